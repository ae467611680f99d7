"""What every command has in common, and `kinfolk cookie`."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

import kinfolk
from kinfolk import Cookie
from kinfolk.cli import main
from tests.cli.commands import KINFOLK


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nonsense"], "nonsense"),
        (["names", "--nonsense"], "--nonsense"),
        (["names", "one", "two"], "two"),
        (["whereis"], "NAME"),
        (["run"], "MODULE:FUNC"),
        (["run", "a:b", "--log-level", "loud"], "loud"),
        (["names", "--timeout", "soon"], "soon"),
        (["cookie", "old"], "old"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(capsys, arguments, complaint):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert out == ""
    assert err.startswith("kinfolk: ") and err.count("\n") == 1
    assert complaint in err and "--help" in err


def test_a_paragraph_of_help_breaks_where_the_terminal_ends_and_nowhere_else(shell):
    lines = shell.run("run", "--help", COLUMNS="300").out.splitlines()
    assert any(line.startswith("The signal cancels FUNC;") and "ends the program at once." in line for line in lines)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["names", "--help"], ["cookie"], ["cookie", "new", "--help"]])
def test_help_is_shown_and_is_no_error(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    assert "Usage: kinfolk" in capsys.readouterr().out


def test_the_version_is_printed(shell):
    assert shell.run("--version").out == f"kinfolk {kinfolk.__version__}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the full device of Linux")
def test_output_that_cannot_be_written_is_told_in_one_line_and_output_that_nobody_wants_is_not_missed(shell):
    command = [*KINFOLK, "doctor", "--json"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=shell.environ)
    assert (done.stderr, done.returncode) == (
        "kinfolk: cannot write all of the output: No space left on device\n",
        1,
    )
    closed = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], capture_output=True, env=shell.environ)
    assert (closed.stderr, closed.returncode) == (b"", shell.run("doctor", "--json").code)


def test_the_installed_command_is_the_module(shell):
    script = f"{sys.prefix}/bin/kinfolk"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, env=shell.environ)
    assert done.stdout == f"kinfolk {kinfolk.__version__}\n"


def test_a_new_cookie_is_printed_alone_and_is_another_each_time(capsys):
    texts = set()
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main(["cookie", "new"])
        assert ended.value.code == 0
        out, err = capsys.readouterr()
        assert out.count("\n") == 1 and err == ""
        assert not Cookie(out).weak
        texts.add(out)
    assert len(texts) == 2


def test_a_new_cookie_goes_into_a_new_file_that_only_the_user_can_read(shell):
    path = shell.directory / "cookie"
    ended = shell.run("cookie", "new", "--file", "cookie")
    assert (ended.out, ended.err, ended.code) == ("", "", 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not Cookie(path.read_text()).weak


def test_a_cookie_is_never_overwritten(inside, shell):
    (shell.directory / "cookie").write_text("precious")
    ended = inside(shell, "cookie", "new", "--file", "cookie")
    assert ended.code == 2
    assert "never overwritten" in ended.only_line
    assert (shell.directory / "cookie").read_text() == "precious"


def test_a_cookie_file_that_cannot_be_made_is_told(inside, shell):
    ended = inside(shell, "cookie", "new", "--file", "no/such/place")
    assert ended.code == 2
    assert "no/such/place" in ended.only_line


def test_no_option_takes_a_secret():
    with pytest.raises(SystemExit) as ended:
        main(["nodes", "--cookie", "secret"])
    assert ended.value.code == 2
