"""The two programs of docs/comparison.md print what the page shows: ours with one holder, the other's with two."""

import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "comparison.md").read_text()
BENCH = ROOT / ".venv-bench" / "bin" / "python"
"""Of the measurements: has lapinbeam, once `make bench` has run."""


def shown(program: str) -> str:
    """What the page says that a program prints, as a pattern: ports and how many names are lost differ."""
    (block,) = (text for text in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL) if program in text)
    lines = "".join(line for line in block.splitlines(keepends=True) if not line.startswith("$ "))
    return re.sub(r"@127\.0\.0\.1:\d+/\w+/\d+", "@127.0.0.1:*", lines)


def printed(python: str, program: str, environment: dict[str, str]) -> str:
    command = [python, str(ROOT / "examples" / "comparison" / program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_of_two_nodes_that_register_one_name_at_once_one_has_it_and_both_say_so(environment: dict[str, str]):
    said = printed(sys.executable, "names_kinfolk.py", environment)
    assert fnmatchcase(said, shown("names_kinfolk.py")), said
    assert "bob knows 20000 of them" in said


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(not BENCH.exists(), reason="lapinbeam is in the environment of make bench alone")
def test_what_the_page_says_of_the_other_library_is_so(environment: dict[str, str]):
    said = printed(str(BENCH), "names_lapinbeam.py", environment)
    lines = shown("names_lapinbeam.py").splitlines()
    assert said.splitlines()[:-1] == lines[:-1], "the last is how many names are lost, which may be none"
