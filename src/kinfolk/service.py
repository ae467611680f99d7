"""The node's own service: a process of every node that answers questions about it. Killed, it is started again.

It has the node-scoped name "kinfolk". The command line asks it, through an observer; so may any process, as
``await me.call(("kinfolk", node), ["nodes"])``. Requests are lists, answers are builtins alone; a pid is its text.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from kinfolk.ids import Pid
from kinfolk.leaving import Drain, Undone
from kinfolk.messages import Call
from kinfolk.process import Process
from kinfolk.watches import Watches
from kinfolk.wire.session import OBSERVED

T = TypeVar("T", str, tuple[str, Pid])

SERVICE_NAME = OBSERVED
PAGE = 5000
"""Names or members in one answer: with the longest names and node names together that stays below 4 MiB."""
_SHOWN = 10  # processes that a draining node waits for
_SLICE = 5000  # of them looked at before others get their turn: a few milliseconds


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
            call.reply(await _names(me, prefix, after, min(limit, PAGE)))
        case ["groups", str(prefix), str(group), str(member), int(limit)] if limit > 0:
            try:
                last = (group, Pid.parse(member)) if member else None
            except ValueError as error:
                call.fail(str(error))
            else:
                call.reply(await _groups(me, prefix, last, min(limit, PAGE)))
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
        case ["drain", None | int() | float() as seconds]:
            _drain(me, call, seconds)
        case _:
            call.fail(
                'unknown request; the service knows ["info"], ["nodes"], ["names", prefix, after, limit],'
                ' ["groups", prefix, after, member, limit], ["whereis", name], ["tree"],'
                ' ["watch", pattern], ["events", watch, seconds] and ["drain", seconds]'
            )


def _info(me: Process) -> dict[str, Any]:
    node = me.node
    return {
        "name": node.name,
        "creation": node.creation,
        "cluster": node.cluster,
        "ready": node.ready,
        "draining": _draining(node.draining),
        "peers": node.peers(),
        "names": len(node.names),
        "processes": len(node.processes()),
        "counters": dict(node.counters),
    }


def _draining(drain: Drain | None) -> dict[str, Any] | None:
    """How far a node has come with leaving: the step that it is at, and what it waits for there."""
    return None if drain is None else {"step": drain.step, "undone": _texts(drain.undone())}


def _texts(undone: Sequence[Undone]) -> list[str]:
    return [str(each) for each in undone[:_SHOWN]]


def _drain(me: Process, call: Call[Any], seconds: float | None) -> None:
    """Drain the node. Answered when all is done, or the time is up, before the node closes."""
    try:
        _ = me.node.start_draining(seconds)
    except ValueError as error:
        call.fail(str(error))
        return

    def tell(done: bool, undone: list[Undone]) -> None:
        if not call.answered:
            call.reply({"done": done, "undone": _texts(undone), "processes": len(undone)})

    drain = me.node.draining
    assert drain is not None, "it has just begun"
    drain.when_over(tell)


def _nodes(me: Process) -> dict[str, int]:
    """The asked node and its peers, each with its creation."""
    node = me.node
    return dict(sorted({**node.kernel.peers(), node.name: node.creation}.items()))


def _trees(me: Process) -> list[dict[str, Any]]:
    """The supervisors that no other of this node supervises, each with what is below it."""
    supervisors = list(me.node.supervisors.values())
    pids = {each.me.pid for each in supervisors}
    return [
        {"id": "supervisor", "pid": str(root.me.pid), "runs": root.me.function, **root.tree()}
        for root in supervisors
        if root.me.parent not in pids
    ]


async def _names(me: Process, prefix: str, after: str, limit: int) -> dict[str, Any]:
    """The first names in order that begin with the prefix and come after another."""
    table = me.node.names.snapshot()
    names, more = await _first(table, lambda name: after < name and name.startswith(prefix), limit)
    return {"names": [[name, str(table[name])] for name in names], "more": more}


async def _groups(me: Process, prefix: str, after: tuple[str, Pid] | None, limit: int) -> dict[str, Any]:
    """The first memberships in order of groups that begin with the prefix, each as group and pid, after another."""
    groups = me.node.groups.snapshot()
    members = ((group, pid) for group, pids in groups.items() if group.startswith(prefix) for pid in pids)
    found, more = await _first(members, lambda member: after is None or after < member, limit)
    return {"groups": [[group, str(pid)] for group, pid in found], "more": more}


async def _first(rows: Iterable[T], wanted: Callable[[T], bool], limit: int) -> tuple[list[T], bool]:
    """The smallest of the rows that are wanted, in order, and whether there are more.

    However many there are, the loop is kept for a few milliseconds at a time: the smallest are found slice by slice, in
    a snapshot. What comes or goes between two pages may be missing or too many, as in any listing.
    """
    waiting = iter(rows)
    found: list[T] = []
    while some := list(itertools.islice(waiting, _SLICE)):
        full = len(found) > limit
        found += [row for row in some if wanted(row) and not (full and row > found[limit])]
        found.sort()
        del found[limit + 1 :]  # one more than wanted tells that there are more
        await asyncio.sleep(0)
    return found[:limit], len(found) > limit
