"""The node's own service: a process of every node that answers questions about it. Killed, it is started again.

It has the node-scoped name "kinfolk". The command line asks it, through an observer; so may any process, as
``await me.call(("kinfolk", node), ["nodes"])``. Requests are lists, answers are builtins alone; a pid is its text.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import kinfolk
from kinfolk.console import Consoles
from kinfolk.errors import CallTimeout, KinfolkError, NameUnknown, NodeLost, NotAllowed
from kinfolk.ids import Pid
from kinfolk.leaving import Drain, Undone
from kinfolk.messages import Call
from kinfolk.process import Process
from kinfolk.shell.dataplane import Target
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
        watches, consoles = Watches(me.names, me.node.kernel.peers, tasks), Consoles(me)
        try:
            async for call in me.calls():
                await _answer(me, watches, consoles, tasks, call)
        finally:
            watches.close()


async def _answer(me: Process, watches: Watches, consoles: Consoles, tasks: asyncio.TaskGroup, call: Call[Any]) -> None:
    match call.body:
        case ["info"]:
            call.reply(_info(me))
        case ["nodes"]:
            call.reply(_nodes(me))
        case ["stalled"]:
            call.reply(me.node.stalled())
        case ["connected"]:
            call.reply(me.node.connected())
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
        case ["why", str(name)]:
            try:
                call.reply(me.node.explain(name).builtins())
            except ValueError as error:
                call.fail(str(error))
        case ["ps", int(after), int(limit)] if limit > 0:
            call.reply(_processes(me, after, min(limit, PAGE)))
        case ["send", (Pid() | str() | [str(), str()]) as target, body]:
            _act(call, tasks, _send(me, _target(target), body))
        case ["call", (Pid() | str() | [str(), str()]) as target, body, int() | float() as seconds]:
            _act(call, tasks, me.call(_target(target), body, timeout=seconds))
        case ["kill", (Pid() | str()) as target, int() | float() as seconds]:
            _act(call, tasks, _kill(me, target, seconds))
        case ["shell", int(number), str(source)]:
            _act(call, tasks, _shell(me, consoles, number, source))
        case ["at", str(node), list()]:
            request: list[object] = call.body[2]
            _act(call, tasks, me.call((SERVICE_NAME, node), request, timeout=call.remaining))
        case ["tree"]:
            call.reply(_trees(me))
        case ["watch", str(pattern)] | ["watch", str(pattern), "nodes"]:
            try:
                call.reply(watches.open(pattern, nodes=len(call.body) == 3))
            except ValueError as error:
                call.fail(str(error))
        case ["events", int(watch), int() | float() as seconds]:
            watches.fetch(call, watch, seconds)
        case ["drain", None | int() | float() as seconds]:
            _drain(me, call, seconds)
        case _:
            call.fail(
                'unknown request; the service knows ["info"], ["nodes"], ["stalled"], ["connected"],'
                ' ["names", prefix, after, limit],'
                ' ["groups", prefix, after, member, limit], ["whereis", name], ["why", name], ["ps", after, limit],'
                ' ["tree"], ["send", target, message], ["call", target, request, seconds], ["kill", target, seconds],'
                ' ["shell", number, source], ["at", node, request], ["watch", pattern],'
                ' ["watch", pattern, "nodes"], ["events", watch, seconds]'
                ' and ["drain", seconds]'
            )


def _processes(me: Process, after: int, limit: int) -> dict[str, Any]:
    """The first processes of this node in the order of their start, after the one with this local id."""
    found = [process for process in me.node.processes() if process.pid.local > after]
    now = asyncio.get_running_loop().time()
    rows = [
        {
            "pid": str(process.pid),
            "names": [*me.names.of(process.pid), *me.names.local.of(process.pid)],
            "runs": process.function,
            "waiting": len(process.mailbox),
            "received": process.mailbox.taken,
            "age": 0.0 if process.started is None else now - process.started,
        }
        for process in found[:limit]
    ]
    return {"processes": rows, "more": len(found) > limit}


# --- what is done for somebody ---


def _act(call: Call[Any], tasks: asyncio.TaskGroup, doing: Coroutine[Any, Any, object]) -> None:
    """Answer with what comes of it: ``["done", value]``, or ``["failed", class of the error, text]``."""

    async def act() -> None:
        try:
            outcome: list[object] = ["done", await doing]
        except TimeoutError as error:
            outcome = ["failed", CallTimeout.__name__, str(error)]
        except (KinfolkError, ValueError) as error:
            outcome = ["failed", type(error).__name__, str(error)]
        try:
            call.reply(outcome)
        except KinfolkError:
            pass  # it cannot be sent, which the caller has been told

    tasks.create_task(act())


def _target(target: Pid | str | Sequence[str]) -> Target:
    return target if isinstance(target, Pid | str) else (target[0], target[1])


async def _send(me: Process, target: Target, body: object) -> None:
    me.send(target, body)


async def _shell(me: Process, consoles: Consoles, number: int, source: str) -> str:
    if not me.node.allow_shell:
        raise NotAllowed(
            f"{me.node.name} allows no shell: start it with allow_shell=True, or kinfolk run --allow-shell"
        )
    return await consoles.run(number, source)


async def _kill(me: Process, target: Pid | str, seconds: float) -> list[str]:
    """End a process, and wait for its end. Returns its pid and the reason."""
    pid = me.names.whereis(target) if isinstance(target, str) else target
    if pid is None:
        raise NameUnknown(str(target))
    waiting = asyncio.create_task(me.node.wait_exit(pid, timeout=seconds))
    try:
        await asyncio.sleep(0)  # first it is watched, then killed: else all there is to see is that it is dead
        me.node.kill(pid)
        reason = str(await waiting)
    finally:
        waiting.cancel()
    if reason == "noconnection":
        raise NodeLost(f"{pid} cannot be reached: its node is not connected to {me.node.name}, which was asked")
    return [str(pid), reason]


# --- what is told ---


def _info(me: Process) -> dict[str, Any]:
    node = me.node
    return {
        "name": node.name,
        "creation": node.creation,
        "cluster": node.cluster,
        "version": kinfolk.__version__,
        "clock": node.wall_clock() / 1e9,
        "ready": node.ready,
        "draining": _draining(node.draining),
        "peers": node.peers(),
        "stalled": node.stalled(),
        "connected": node.connected(),
        "names": len(node.names),
        "staleness": node.names.staleness(),
        "lease": node.names.lease(),
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
