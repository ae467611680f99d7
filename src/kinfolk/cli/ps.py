"""`kinfolk ps`: the processes of one node, or of all."""

from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from kinfolk.cli import exits, output
from kinfolk.cli.asking import Asking, ask
from kinfolk.looking import PROCESSES
from kinfolk.observer import Observer

_KEYS = {"pid": "", "runs": "", "waiting": 0, "received": 0, "age": 0.0}


def ps(
    *,
    all: Annotated[bool, Parameter(negative="")] = False,  # noqa: A002 - it is the option's name
    sort: Literal["pid", "runs", "waiting", "received", "age"] = "pid",
    asking: Asking = Asking(),  # noqa: B008 - it is frozen
) -> int:
    """List the processes of one node: what each runs, how many messages wait and were received, and its age.

    Parameters
    ----------
    all
        Of every node that it is connected to as well.
    sort
        By what: the most of it first, if it is a number.
    """
    rows = ask(asking, lambda node: _processes(node, all))
    if sort != "pid":  # they come in the order of their start
        rows.sort(key=lambda row: row[sort], reverse=not isinstance(_KEYS[sort], str))
    if asking.json:
        output.show_json(rows)
        return exits.YES
    table = [
        [
            row["pid"],
            " ".join(row["names"]),
            row["runs"],
            str(row["waiting"]),
            str(row["received"]),
            str(timedelta(seconds=int(row["age"]))),
        ]
        for row in rows
    ]
    output.show(["PID", "NAMES", "RUNS", "WAITING", "RECEIVED", "AGE"], table, "no processes")
    return exits.YES


async def _processes(node: Observer, everywhere: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with output.Progress("processes") as progress:
        for name in await node.call(["nodes"]) if everywhere else [node.name]:
            async for page in _pages(node, name):
                rows += page
                progress.at(len(rows))
    return rows


async def _pages(node: Observer, name: str) -> AsyncGenerator[list[dict[str, Any]]]:
    """The processes of the asked node, or those of a peer of its, which it asks for us."""
    after, more = 0, True
    while more:
        request: list[Any] = ["ps", after, PROCESSES]
        page = await (node.call(request) if name == node.name else node.act(["at", name, request]))
        rows, more = page["processes"], page["more"]
        after = int(rows[-1]["pid"].rpartition("/")[2]) if rows else after
        yield [{"node": name, **row} for row in rows]
