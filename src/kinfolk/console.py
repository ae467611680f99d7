"""What `kinfolk shell` runs inside a node that allows it: lines of Python, with ``await``, in namespaces that stay.

Whoever may use it can do everything that the program can. So it is off unless the node was made with
``allow_shell=True``. A line runs on the node's loop: one that computes for long holds the node up.

Source: ``python -m asyncio``.
"""

import ast
import asyncio
import inspect
import io
import traceback
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinfolk.process import Process

MAX_CONSOLES = 16
"""Namespaces kept; the one that was not used for longest goes first."""
MAX_SHOWN = 1024 * 1024
"""Characters of one answer."""


class Consoles:
    """The namespaces of one node, each known by a number that its user has made up.

    Args:
        me: the process that runs the lines; `node` in each namespace is its node.
    """

    def __init__(self, me: "Process") -> None:
        self._me = me
        self._spaces: OrderedDict[int, dict[str, Any]] = OrderedDict()

    async def run(self, number: int, source: str) -> str:
        """Run some lines. Returns what they print and, of an expression, its value; of an error, its traceback."""
        space: dict[str, Any] | None = self._spaces.pop(number, None)
        if space is None:
            space = {"__name__": "__console__", "me": self._me, "node": self._me.node}
        self._spaces[number] = space
        while len(self._spaces) > MAX_CONSOLES:
            self._spaces.popitem(last=False)
        shown = io.StringIO()
        space["print"] = partial(print, file=shown)  # for whoever asked, not for the node's own output
        try:
            value = await _evaluated(source, space)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - also SystemExit: a line must not end the node
            shown.writelines(traceback.format_exception(error))
        else:
            if value is not None:
                space["_"] = value
                shown.write(f"{value!r}\n")
        text = shown.getvalue()
        return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}...\n({len(text)} characters in all)\n"


async def _evaluated(source: str, space: dict[str, Any]) -> object:
    """The value of the last line, if that is an expression."""
    tree = ast.parse(source, "<shell>")
    last = tree.body[-1] if tree.body else None
    value = last.value if isinstance(last, ast.Expr) else None
    if value is not None:
        tree.body.pop()
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    await _finished(eval(compile(tree, "<shell>", "exec", flags), space))  # noqa: S307 - this is what it is for
    if value is None:
        return None
    return await _finished(eval(compile(ast.Expression(value), "<shell>", "eval", flags), space))  # noqa: S307


async def _finished(result: object) -> object:
    """Code in which there is an ``await`` gives a coroutine."""
    return await result if inspect.iscoroutine(result) else result
