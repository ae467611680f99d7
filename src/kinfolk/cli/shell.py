"""`kinfolk shell`: Python inside a node that allows it."""

import ast
import codeop
import importlib
import secrets
import sys

from kinfolk.cli import exits
from kinfolk.cli.asking import Asking, ask


def shell(*, asking: Asking = Asking()) -> int:  # noqa: B008 - it is frozen
    """Run lines of Python inside a node that was started with allow_shell, until the input ends (Ctrl-D).

    `node` and `me` are there, `await` works, `_` is the last value. Each answer has --timeout seconds.
    """
    number = secrets.randbits(62)

    def run(source: str) -> str:
        shown: str = ask(asking, lambda node: node.act(["shell", number, source], timeout=asking.patience))
        return shown

    where = run("node.name").strip("'\"\n")  # fails now if the node does not allow it, or is not there
    human = sys.stdin.isatty()
    if human:
        importlib.import_module("readline")  # makes input() edit lines

        print(f"Python inside {where}; Ctrl-D ends")
    while True:
        try:
            source = _next(human)
        except EOFError:
            if human:
                print()
            return exits.YES
        except KeyboardInterrupt:
            print()
            continue
        if source.strip():
            sys.stdout.write(run(source))
            sys.stdout.flush()


def _next(human: bool) -> str:
    """The next statement, which may be several lines; of a pipe, all lines there are."""
    if not human:
        source = sys.stdin.read()
        if not source:
            raise EOFError
        return source
    lines = [input(">>> ")]
    while not _is_whole("\n".join(lines)):
        lines.append(input("... "))
    return "\n".join(lines)


def _is_whole(source: str) -> bool:
    """Whether it can be run; what is wrong is found by the node, which says so."""
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        return compiler(source, "<shell>", "single") is not None
    except (SyntaxError, ValueError, OverflowError):
        return True
