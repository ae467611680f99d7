"""The node's own service: a process of every node that answers questions about it. Killed, it is started again.

It has the node-scoped name "kinfolk". The command line asks it, through an observer; so may any process, as
``await me.call(("kinfolk", node), ["nodes"])``. Requests are lists, answers are builtins alone; a pid is its text.
"""

import asyncio
import itertools
from typing import Any

from kinfolk.messages import Call
from kinfolk.process import Process
from kinfolk.watches import Watches
from kinfolk.wire.session import OBSERVED

SERVICE_NAME = OBSERVED
PAGE = 5000
"""Names in one answer: with the longest names and node names together that stays below 4 MiB."""
_SLICE = 5000  # names looked at before others get their turn: a few milliseconds


async def service(me: Process) -> None:
    """Answer until the node closes."""
    async with asyncio.TaskGroup() as tasks:
        watches = Watches(me.names, tasks)
        try:
            async for call in me.calls():
                await _answer(me, watches, call)
        finally:
            watches.close()


async def _answer(me: Process, watches: Watches, call: Call[Any]) -> None:
    match call.body:
        case ["info"]:
            call.reply(_info(me))
        case ["nodes"]:
            call.reply(_nodes(me))
        case ["names", str(prefix), str(after), int(limit)] if limit > 0:
            call.reply(await _page(me, prefix, after, min(limit, PAGE)))
        case ["whereis", str(name)]:
            holder = me.node.names.whereis(name)
            call.reply(None if holder is None else str(holder))
        case ["tree"]:
            call.reply(_trees(me))
        case ["watch", str(pattern)]:
            try:
                call.reply(watches.open(pattern))
            except ValueError as error:
                call.fail(str(error))
        case ["events", int(watch), int() | float() as seconds]:
            watches.fetch(call, watch, seconds)
        case _:
            call.fail(
                'unknown request; the service knows ["info"], ["nodes"], ["names", prefix, after, limit],'
                ' ["whereis", name], ["tree"], ["watch", pattern] and ["events", watch, seconds]'
            )


def _info(me: Process) -> dict[str, Any]:
    node = me.node
    return {
        "name": node.name,
        "creation": node.creation,
        "cluster": node.cluster,
        "peers": node.peers(),
        "names": len(node.names),
        "processes": len(node.processes()),
        "counters": dict(node.counters),
    }


def _nodes(me: Process) -> dict[str, int]:
    """The asked node and its peers, each with its creation."""
    node = me.node
    return dict(sorted({**node.kernel.peers(), node.name: node.creation}.items()))


def _trees(me: Process) -> list[dict[str, Any]]:
    """The supervisors that no other of this node supervises, each with what is below it."""
    supervisors = me.node.supervisors
    return [
        {"id": "supervisor", "pid": str(root.me.pid), "runs": root.me.function, **root.tree()}
        for root in list(supervisors.values())
        if root.me.parent is None or root.me.parent.local not in supervisors
    ]


async def _page(me: Process, prefix: str, after: str, limit: int) -> dict[str, Any]:
    """The first names in order that begin with the prefix and come after another.

    However many names there are, the loop is kept for a few milliseconds at a time: the smallest are found slice by
    slice, in a snapshot. Names that come or go between two pages may be missing or too many, as in any listing.
    """
    table = me.node.names.snapshot()
    names = iter(table)
    found: list[str] = []
    while some := list(itertools.islice(names, _SLICE)):
        full = len(found) > limit
        found += [
            name for name in some if after < name and name.startswith(prefix) and not (full and name > found[limit])
        ]
        found.sort()
        del found[limit + 1 :]  # one more than wanted tells that there are more
        await asyncio.sleep(0)
    return {"names": [[name, str(table[name])] for name in found[:limit]], "more": len(found) > limit}
