"""The node's own service: a process of every node that answers questions about it. Killed, it is started again.

It has the node-scoped name "kinfolk". The command line asks it, through an observer; so may any process, as
``await me.call(("kinfolk", node), ["nodes"])``. Requests are lists, answers are builtins alone; a pid is its text.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple

import kinfolk
from kinfolk import finding, looking
from kinfolk.console import Consoles
from kinfolk.errors import CallTimeout, KinfolkError, NameUnknown, NodeLost, NotAllowed
from kinfolk.ids import Pid
from kinfolk.leaving import Drain, Undone
from kinfolk.messages import Call
from kinfolk.process import Process
from kinfolk.seconds import check_seconds
from kinfolk.shell.dataplane import Target
from kinfolk.watches import Watches
from kinfolk.wire.session import OBSERVED

SERVICE_NAME = OBSERVED
_LOOKS = 4  # requests that look through tables at a time, each with a copy of one
_SHOWN = 10  # processes that a draining node waits for


async def service(me: Process) -> None:
    """Answer until the node closes."""
    async with asyncio.TaskGroup() as tasks:
        watches = Watches(me.names, me.node.kernel.peers, tasks)
        kept = _Kept(watches, Consoles(me), looking.Listings(me.node), asyncio.Semaphore(_LOOKS))
        try:
            async for call in me.calls():
                _answer(me, kept, tasks, call)
        finally:
            watches.close()


class _Kept(NamedTuple):
    """What the service keeps from one request to others."""

    watches: Watches
    consoles: Consoles
    listings: looking.Listings
    looks: asyncio.Semaphore


def _answer(me: Process, kept: _Kept, tasks: asyncio.TaskGroup, call: Call[Any]) -> None:
    watches, consoles, listings, looks = kept
    look = partial(_look, call, looks, tasks)
    match call.body:
        case ["info"]:
            _reply(call, _info(me))
        case ["pulse"]:
            _reply(call, _pulse(me))
        case ["nodes"]:
            _reply(call, _nodes(me))
        case ["stalled"]:
            _reply(call, me.node.stalled())
        case ["connected"]:
            _reply(call, me.node.connected())
        case ["names", str(prefix), str(after), int(limit)] if limit > 0:
            look(lambda: listings.names(prefix, after, limit))
        case ["groups", str(prefix), str(group), str(member), int(limit)] if limit > 0:
            try:
                last = (group, Pid.parse(member)) if member else None
            except ValueError as error:
                _fail(call, error)
            else:
                look(lambda: listings.groups(prefix, last, limit))
        case ["find names", str(text), str(where), str(after), int(limit)] if limit > 0:
            look(lambda: finding.names(me.node, text, where, after, min(limit, looking.PAGE)))
        case ["find groups", str(text), str(after), int(limit)] if limit > 0:
            look(lambda: finding.groups(me.node, text, after, min(limit, looking.PAGE)))
        case ["find members", str(group), None | Pid(), int(limit)] if limit > 0:
            look(lambda: finding.members(me.node, group, call.body[2], min(limit, looking.PAGE)))
        case ["find processes", str(text), str(order), int(skip), int(limit)] if limit > 0 and order in finding.ORDERS:
            look(lambda: finding.processes(me.node, text, order, max(skip, 0), min(limit, looking.PROCESSES)))
        case ["whereis", str(name)]:
            holder = me.node.names.whereis(name)
            _reply(call, None if holder is None else str(holder))
        case ["why", str(name)]:
            try:
                why = me.node.explain(name).builtins()
            except ValueError as error:
                _fail(call, error)
            else:
                _reply(call, why)
        case ["ps", int(local), int(limit)] if limit > 0:
            look(lambda: looking.processes(me.node, local, limit))
        case ["top", str(sort), str(pattern), int(limit)] if limit > 0:
            look(lambda: looking.top(me.node, sort, pattern, limit))
        case ["process", str(pid)]:
            try:
                process = looking.process(me.node, Pid.parse(pid))
            except ValueError as error:
                _fail(call, error)
            else:
                _reply(call, process)
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
        case ["tree", int(local), int(skip), int(most), int(limit)] if min(most, limit) > 0 <= skip:
            look(lambda: looking.supervised(me.node, local, skip, most, limit))
        case ["watch", str(pattern)] | ["watch", str(pattern), "nodes" | "changes"]:
            what = call.body[2] if len(call.body) == 3 else ""
            try:
                watch = watches.open(pattern, nodes=what != "", changes=what == "changes")
            except ValueError as error:
                _fail(call, error)
            else:
                _reply(call, watch)
        case ["events", int(watch), int() | float() as seconds]:
            watches.fetch(call, watch, seconds)
        case ["drain", None | int() | float() as seconds]:
            _drain(me, call, seconds)
        case _:
            call.fail(
                'unknown request; the service knows ["info"], ["pulse"], ["nodes"], ["stalled"], ["connected"],'
                ' ["names", prefix, after, limit], ["groups", prefix, after, member, limit],'
                ' ["find names", text, node, after, limit], ["find groups", text, after, limit],'
                ' ["find members", group, after, limit], ["find processes", text, order, skip, limit],'
                ' ["whereis", name], ["why", name], ["ps", after, limit], ["top", sort, pattern, limit],'
                ' ["process", pid], ["tree", after, skip, most, limit], ["send", target, message],'
                ' ["call", target, request, seconds], ["kill", target, seconds], ["shell", number, source],'
                ' ["at", node, request], ["watch", pattern], ["watch", pattern, "nodes"],'
                ' ["watch", pattern, "changes"], ["events", watch, seconds]'
                ' and ["drain", seconds]'
            )


def _reply(call: Call[Any], value: object) -> None:
    """Answer with a value. One that cannot be sent is its caller's loss, and nobody else's: the caller is told so."""
    try:
        call.reply(value)
    except KinfolkError as error:
        if not call.answered:
            _fail(call, error)


def _fail(call: Call[Any], error: Exception) -> None:
    """Answer with the text of an error."""
    try:
        call.fail(str(error))
    except KinfolkError:
        pass  # not even that can be sent: it has what was asked for in it


def _look(
    call: Call[Any], looks: asyncio.Semaphore, tasks: asyncio.TaskGroup, look: Callable[[], Awaitable[object]]
) -> None:
    """Answer with what is seen, and others meanwhile. Few look at a time, and none for a caller who has given up."""

    async def see() -> None:
        try:
            async with asyncio.timeout(call.remaining), looks:
                seen = await look()
        except TimeoutError:
            call.drop()
        except (KinfolkError, ValueError) as error:
            _fail(call, error)
        else:
            _reply(call, seen)

    tasks.create_task(see())


# --- what is done for somebody ---


def _act(call: Call[Any], tasks: asyncio.TaskGroup, doing: Coroutine[Any, Any, object]) -> None:
    """Answer with what comes of it: ``["done", value]``, or ``["failed", class of the error, text]``."""

    async def act() -> None:
        try:
            outcome: list[object] = ["done", await doing]
        except TimeoutError as error:
            outcome = ["failed", CallTimeout.__name__, str(error)]
        except (KinfolkError, TypeError, ValueError) as error:
            outcome = ["failed", type(error).__name__, str(error)]
        _reply(call, outcome)

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
    check_seconds(seconds, "seconds")  # before anybody is killed
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


def _pulse(me: Process) -> dict[str, Any]:
    """What changes from moment to moment, in numbers: it costs the same however many names there are."""
    node = me.node
    return {
        "name": node.name,
        "creation": node.creation,
        "clock": node.wall_clock() / 1e9,
        "ready": node.ready,
        "draining": None if node.draining is None else node.draining.step,
        "names": len(node.names),
        "held": node.names.held,
        "processes": len(node.processes()),
        "cpu": time.process_time(),
        "counters": dict(node.counters),
        "peers": {
            peer: [
                traffic.bytes_in,
                traffic.bytes_out,
                traffic.frames_in,
                traffic.frames_out,
                traffic.waiting,
                traffic.round_trip,
            ]
            for peer, traffic in node.traffic().items()
        },
        "stalled": node.stalled(),
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
    except (TypeError, ValueError) as error:
        _fail(call, error)
        return

    def tell(done: bool, undone: list[Undone]) -> None:
        if not call.answered:
            _reply(call, {"done": done, "undone": _texts(undone), "processes": len(undone)})

    drain = me.node.draining
    assert drain is not None, "it has just begun"
    drain.when_over(tell)


def _nodes(me: Process) -> dict[str, int]:
    """The asked node and its peers, each with its creation."""
    node = me.node
    return dict(sorted({**node.kernel.peers(), node.name: node.creation}.items()))
