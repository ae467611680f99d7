"""`kinfolk completion`."""

import shutil
import subprocess

import pytest


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "completed"),
    [(["wh"], {"whereis", "why"}), (["names", "--js"], {"--json"}), (["cookie", "n"], {"new"})],
)
def test_bash_completes_commands_and_options(shell, inside, words, completed):
    script = inside(shell, "completion", "bash").out
    line = " ".join(words)
    ask = f"COMP_WORDS=(kinfolk {line}); COMP_CWORD={len(words)}; _kinfolk; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert {word.strip() for word in done.stdout.split()} == completed


@pytest.mark.parametrize("other", ["zsh", "fish"])
def test_other_shells_have_a_script_that_names_every_command(shell, inside, other):
    script = inside(shell, "completion", other).out
    assert all(command in script for command in ("whereis", "doctor", "cookie", "completion"))


def test_an_unknown_shell_is_a_usage_error(shell, inside):
    assert inside(shell, "completion", "tcsh").code == 2
