"""A singleton goes to another node with its state, and at no moment do two of it run.

The old server stops between two messages and gives its state away. A supervisor of another node, which stands by for
the name, starts the new server, which takes the state over and then waits. Now the name moves. From then on calls that
wait for the old server are answered with `Moved`, and their callers send them again. The old server terminates and
ends. What had been sent to it goes to the new one, before all else; and only now does that handle its first message.

    old: serving  -- hand_over -->  waiting  -- the name has moved -->  terminate  -->  dead
                                    waiting  -- nobody has taken over, or the name stays -->  serving
    new: init  -- take_over -->  loaded  -- Proceed, or the old one is gone and the name here -->  serving
                                 loaded  -- told to end, or another has the name -->  dead
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from kinfolk.errors import CallTimeout, KinfolkError, MessageTooLarge, NodeLost, NoProcess, NotSerializable, Refused
from kinfolk.ids import MAX_NAME_BYTES, Pid
from kinfolk.logs import fields
from kinfolk.messages import Request

if TYPE_CHECKING:
    from kinfolk.node import Node
    from kinfolk.process import Process

_log = logging.getLogger("kinfolk")

LOADING_TIMEOUT = 10.0
"""Seconds in which a standby must have loaded the state."""
_TOGETHER = 100
"""Messages that are forwarded in one."""


class TakeOver(Request[Pid], frozen=True, tag="kinfolk:take-over"):
    """Asked of a supervisor that stands by for a name: start your child, and let it load this state; its pid."""

    name: str
    holder: Pid
    state: Any


class Proceed(Request[None], frozen=True, tag="kinfolk:proceed"):
    """Asked of that supervisor: let the child begin with these messages; or (None) more come; or (False) let it end."""

    name: str
    holder: Pid
    messages: tuple[Any, ...] = ()
    begin: bool | None = None


class HandOver:
    """Told to a server, before all that waits in its mailbox: give your state away.

    Attributes:
        state: what its `hand_over` has returned.
        gone: whether another goes on with it; else it does itself.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.state: asyncio.Future[Any] = loop.create_future()
        self.gone: asyncio.Future[bool] = loop.create_future()

    def fail(self, error: BaseException) -> None:
        """Its `hand_over` has raised."""
        if not self.state.done():
            self.state.set_exception(error)
            self.state.exception()  # whoever asked may have gone


class Inheritance:
    """What a server is given that takes over.

    Attributes:
        state: of the old one, as it came.
        holder: the old one.
        loaded: done when `take_over` has returned.
        decided: whether it is to begin.
        begin: done when it may handle messages.
        over: done when it has begun, or is to end.
        messages: those that were sent to the old one.
    """

    def __init__(self, state: Any, holder: Pid) -> None:
        loop = asyncio.get_running_loop()
        self.state = state
        self.holder = holder
        self.loaded: asyncio.Future[None] = loop.create_future()
        self.decided: asyncio.Future[bool] = loop.create_future()
        self.begin: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.messages: list[Any] = []


class _Successor(Struct, frozen=True):
    """A server of another node that has loaded the state."""

    peer: str
    pid: Pid


def standby_name(name: str) -> str | None:
    """The node-scoped name of the supervisor that stands by for a name; None for a name too long for that."""
    found = f"kinfolk:standby:{name}"
    return found if len(found.encode()) <= MAX_NAME_BYTES else None


async def hand_over(process: "Process", name: str, stop: Callable[[], Awaitable[None]]) -> bool:
    """Let a standby of another node go on with the server that has this name.

    Args:
        stop: ends the old server in good order, once the name has gone.

    Returns:
        Whether one does. If not, the old one goes on, if it lives; the log says why.
    """
    node, order = process.node, HandOver()
    if node.names.leased:
        _log.info(
            "%s: %r is not handed over with its state: names in etcd do not move",
            node.name,
            name,
            extra=fields(node.name, registered=name, pid=process.pid),
        )
        return False
    process.mailbox.put_first([order])
    ended = asyncio.create_task(node.wait_exit(process.pid))
    successor, moved = None, False
    try:
        await asyncio.wait({order.state, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not order.state.done() or order.state.exception() is not None:
            return False
        successor = await _find(node, process.pid, name, order.state.result())
        if successor is None:
            _log.info(
                "%s: no other node takes %r over with its state",
                node.name,
                name,
                extra=fields(node.name, registered=name, pid=process.pid),
            )
            return False
        await node.names.transfer(name, successor.pid)
        moved = True
        messages = node.dataplane.hand_over(process, successor.pid)
        order.gone.set_result(True)
        await stop()
        await _forward(node, process.pid, name, successor, messages)
        _log.info(
            "%s: %r has gone to %s, with its state",
            node.name,
            name,
            successor.pid,
            extra=fields(node.name, registered=name, pid=process.pid, peer=successor.peer),
        )
    except KinfolkError as error:
        _log.warning(
            "%s: %r was not handed over as it should be: %s",
            node.name,
            name,
            error,
            extra=fields(node.name, registered=name, pid=process.pid, reason=error),
        )
    finally:
        ended.cancel()
        process.mailbox.discard(lambda message: message is order)
        if not order.gone.done():
            order.gone.set_result(moved)
        if successor is not None and not moved:
            _tell(node, successor.peer, Proceed(name=name, holder=process.pid, begin=False))
    return moved


async def _find(node: "Node", holder: Pid, name: str, state: Any) -> _Successor | None:
    """A standby that has loaded the state: where nodes are restarted in turn, the youngest is not the next to go."""
    address = standby_name(name)
    peers = node.kernel.peers()
    for peer in sorted(peers, key=lambda peer: (-peers[peer], peer)) if address is not None else ():
        assert address is not None, "only those with one are asked"
        try:
            offer = TakeOver(name=name, holder=holder, state=state)
            pid = await node.call((address, peer), offer, timeout=LOADING_TIMEOUT)
        except (NoProcess, Refused, NodeLost):
            continue
        except CallTimeout:
            _tell(node, peer, Proceed(name=name, holder=holder, begin=False))
            continue
        except asyncio.CancelledError:
            _tell(node, peer, Proceed(name=name, holder=holder, begin=False))
            raise
        return _Successor(peer, pid)
    return None


async def _forward(node: "Node", holder: Pid, name: str, successor: _Successor, messages: list[Any]) -> None:
    """Send the messages ahead, in their order, and let the new server begin."""
    address = str(standby_name(name)), successor.peer
    for start in range(0, len(messages), _TOGETHER):
        some = messages[start : start + _TOGETHER]
        try:
            await node.call(address, Proceed(name=name, holder=holder, messages=tuple(some)), timeout=LOADING_TIMEOUT)
        except (NotSerializable, MessageTooLarge):
            for message in some:
                await _forward_one(node, address, Proceed(name=name, holder=holder, messages=(message,)))
    await node.call(address, Proceed(name=name, holder=holder, begin=True), timeout=LOADING_TIMEOUT)


async def _forward_one(node: "Node", address: tuple[str, str], message: Proceed) -> None:
    try:
        await node.call(address, message, timeout=LOADING_TIMEOUT)
    except (NotSerializable, MessageTooLarge) as error:
        node.counters["unforwarded_messages"] += 1
        _log.warning(
            "%s: a message for %r stays behind: %s",
            node.name,
            message.name,
            error,
            extra=fields(node.name, registered=message.name, peer=address[1], reason=error),
        )


def _tell(node: "Node", peer: str, message: Proceed) -> None:
    try:
        node.send((str(standby_name(message.name)), peer), message)
    except KinfolkError as error:  # the node closes, or its link is full: the other end sees where the name is
        _log.info(
            "%s: could not tell %s that %r stays: %s",
            node.name,
            peer,
            message.name,
            error,
            extra=fields(node.name, registered=message.name, peer=peer, reason=error),
        )
