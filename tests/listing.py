"""Tests named in tables and documents: do they exist?"""

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


@cache
def tests_in(file: str) -> frozenset[str]:
    """The test functions of a file; none if there is no such file."""
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(path.read_text()))
    functions = (node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(name for name in functions if name.startswith("test_"))


def gone(tests: Iterable[str]) -> list[str]:
    """Which of these do not exist: each is a file, or a file and a function in it (``file::function``)."""
    return [
        test
        for test in tests
        for file, _, function in [test.partition("::")]
        if (function not in tests_in(file) if function else not tests_in(file))
    ]
