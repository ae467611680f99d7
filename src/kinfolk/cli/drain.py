"""`kinfolk drain`: tell a node to finish its work and leave."""

import asyncio
import dataclasses
import sys
from typing import Annotated, Any

from cyclopts import Parameter

from kinfolk.cli import exits, output
from kinfolk.cli.asking import Asking, ask
from kinfolk.errors import KinfolkError
from kinfolk.observer import Observer
from kinfolk.seconds import check_seconds
from kinfolk.wire.handshake import printable

_LOOK = 0.5
"""Seconds between two looks at how far it has come."""
_CLOSES = 20.0
"""Seconds in which a node closes, after its work."""
_FOR_EVER = 1e9
"""Seconds; a node that is gone or stopped is noticed by the looks."""


def drain(
    name: Annotated[str | None, Parameter(name="NODE", show_default=False)] = None,
    /,
    *,
    drain_timeout: Annotated[
        float | None, Parameter(help="Seconds for its work. Default: what the node itself has as drain_timeout.")
    ] = None,
    asking: Asking = Asking(),  # noqa: B008 - it is frozen
) -> int:
    """Let a node finish its work and leave the cluster, and wait until it has left.

    Ends with 0 if all its work was done, with 4 if it left when its time was up.

    Parameters
    ----------
    name
        The node, by name or as host:port; here there is no default but --node or KINFOLK_NODE.
    """
    asking = asking if name is None else dataclasses.replace(asking, node=name)
    if asking.node is None:
        raise exits.Usage("say which node is to leave: `kinfolk drain NODE`, by its name or as host:port")
    try:
        seconds = None if drain_timeout is None else check_seconds(drain_timeout, "--drain-timeout")
    except ValueError as error:
        raise exits.Usage(str(error)) from None
    node, answer = ask(asking, lambda observer: _drain(observer, seconds))
    done: bool = answer["done"]
    if asking.json:
        output.show_json({"node": node, "done": done, "undone": answer["undone"]})
    else:
        print(f"{node} has left{'' if done else ', though it was not done'}")
        _say(answer["undone"], answer["processes"])
    return exits.YES if done else exits.TIMED_OUT


async def _drain(node: Observer, seconds: float | None) -> tuple[str, dict[str, Any]]:
    """Order it, show on stderr what it waits for, and wait until it has closed. Returns its name, and how it went."""
    async with node.another() as beside:
        asked = asyncio.create_task(node.call(["drain", seconds], timeout=_FOR_EVER))
        try:
            shown = None
            while not (await asyncio.wait([asked], timeout=_LOOK))[0]:
                shown = await _look(beside, asked, shown)
            answer: dict[str, Any] = await asked
        finally:
            asked.cancel()
    await node.wait_end(_CLOSES)
    return node.name, answer


async def _look(beside: Observer, asked: "asyncio.Task[Any]", shown: object) -> object:
    try:
        now = (await beside.call(["info"]))["draining"]
    except KinfolkError:
        if asked.done():
            return shown  # it has closed meanwhile
        raise
    if now is not None and now != shown:
        print(f"{beside.name} {now['step']}", file=sys.stderr)
        _say(now["undone"], len(now["undone"]))
    return now


def _say(undone: list[str], processes: int) -> None:
    for line in undone:
        print(f"  {printable(line)}", file=sys.stderr)
    if processes > len(undone):
        print(f"  and {processes - len(undone)} more processes", file=sys.stderr)
