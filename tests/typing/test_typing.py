"""Type checkers infer what they should, and object where they should: see `program.py`.

mypy runs here; pyright, and mypy once more, in `make check`.
"""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("program.py")
ROOT = PROGRAM.parents[2]


def checked(program: Path) -> tuple[str, int]:
    # In a process of its own: within this one, mypy would raise the recursion limit for all tests.
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(program)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not run.stderr
    return run.stdout, run.returncode


def test_mypy_infers_replies_and_objects_to_exactly_what_is_wrong():
    assert checked(PROGRAM) == ("Success: no issues found in 1 source file\n", 0)


def test_mypy_would_say_so_if_it_inferred_something_else(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from typing import assert_type\n"
        "from kinfolk.messages import Request\n"
        "from kinfolk.node import Node\n"
        "class Add(Request[int]):\n"
        "    by: int\n"
        "async def main(node: Node) -> None:\n"
        "    assert_type(await node.call('counter', Add(5)), str)\n"
    )
    report, status = checked(wrong)
    assert status == 1
    assert 'Expression is of type "int", not "str"' in report
