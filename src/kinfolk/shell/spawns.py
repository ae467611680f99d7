"""Processes that one node starts on another: both ends of SPAWN and SPAWN_REPLY.

The link and the monitor that the caller wants are made by the spawn itself, at the target before the process takes its
first step, at the caller in the step that takes the answer. So nothing of the new process's end can be missed, and none
of the two nodes can be left with half a link.

Whoever asks either gets the pid, or there shall be no process: if nobody waits for the answer any more when it comes,
the new process is killed. Only the loss of the node leaves that open, and then only for a process without a link.
"""

import asyncio
import inspect
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec

from kinfolk.allowed import Allowed, Spawnable, check_function_name, name_of
from kinfolk.core.relations import OUTSIDE
from kinfolk.errors import (
    CallTimeout,
    KinfolkError,
    NodeClosed,
    NodeDraining,
    NodeLost,
    NotAllowed,
    SpawnFailed,
)
from kinfolk.ids import Pid, check_node_name
from kinfolk.logs import fields
from kinfolk.messages import Ref, Unknown
from kinfolk.reasons import KILL, text_of
from kinfolk.seconds import check_seconds
from kinfolk.shell.signals import Peer, Signals
from kinfolk.wire import frames
from kinfolk.wire.codec import Codec

_log = logging.getLogger("kinfolk")

OK, NOT_ALLOWED, DRAINING, FAILED = "ok", "not_allowed", "draining", "failed"
"""The outcomes of a spawn, on the wire."""
_ERRORS = {NOT_ALLOWED: NotAllowed, DRAINING: NodeDraining}
_MAX_DETAIL = 1024


class _Waiting(msgspec.Struct, frozen=True):
    """A spawn whose answer is under way. Nobody waits for it any more if its future is cancelled."""

    future: "asyncio.Future[Pid]"
    peer: Peer
    own: int
    linked: bool
    ref: Ref | None


class Spawns:
    """Starts processes on peers, and those that peers want here.

    Args:
        name: of the node.
        allowed: what peers may start here.
        spawn: starts a process of this node for a peer: ``spawn(body, args, max_mailbox, parent)``.
        signals: links and monitors.
        codec: for the arguments.
        counters: of the node.
    """

    def __init__(
        self,
        name: str,
        allowed: Allowed,
        spawn: Callable[[Spawnable, Sequence[Any], int | None, Pid | None], Pid],
        signals: Signals,
        codec: Codec,
        counters: Counter[str],
    ) -> None:
        self._name = name
        self._allowed = allowed
        self._spawn = spawn
        self._signals = signals
        self._codec = codec
        self._counters = counters
        self._peers: dict[str, Peer] = {}
        self._references = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}

    # --- the caller's end ---

    async def spawn_on(
        self,
        node: str,
        body: Spawnable | str,
        args: Sequence[Any],
        own: int = OUTSIDE,
        *,
        link: bool = False,
        monitor: bool = False,
        max_mailbox: int | None,
        timeout: float | None,
    ) -> tuple[Pid, Ref | None]:
        """Start a process on another node. See `Node.spawn_on`; `own` is the caller, if it is a process."""
        function = check_function_name(body) if isinstance(body, str) else name_of(body)
        if max_mailbox is not None and max_mailbox < 1:
            raise ValueError(f"max_mailbox={max_mailbox}: a mailbox holds at least one message")
        if timeout is not None:
            check_seconds(timeout)
        encoded = msgspec.Raw(self._codec.encode(list(args)))
        peer = self._peers.get(node)
        if peer is None:
            check_node_name(node)
            raise NodeLost(f"cannot start {function} on {node}: it is not connected")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Pid] = loop.create_future()
        reference = next(self._references)
        ref = self._signals.expect(own, node) if monitor else None
        waiting = self._waiting[reference] = _Waiting(future, peer, own, link, ref)
        asked = frames.SpawnAsked(reference, function, own or None, link, ref, max_mailbox, encoded)
        try:
            peer.post_from(asked, own, -reference, len(encoded))  # no other says anything to who is not there yet
        except BaseException:
            del self._waiting[reference]
            self._give_up(waiting)
            raise
        timer = None
        if timeout is not None:
            text = f"{node} has not answered within {timeout:g} s whether it has started {function}"
            timer = loop.call_later(timeout, _time_out, future, text)
        try:
            return await future, ref
        except BaseException:
            self._give_up(waiting)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _give_up(self, waiting: _Waiting) -> None:
        """The caller will not learn the pid."""
        if waiting.ref is not None:
            self._signals.demonitor(waiting.own, waiting.ref)
        future = waiting.future
        if future.cancel() or future.cancelled():
            return  # `_answered` sees to it
        if future.exception() is None:
            self._end(waiting, future.result())

    def _end(self, waiting: _Waiting, pid: Pid) -> None:
        """A process was started for somebody who does not want it any more."""
        self._counters["unwanted_spawns"] += 1
        if waiting.linked:
            self._signals.unlink(waiting.own, pid)
        self._signals.exit(OUTSIDE, pid, KILL)

    def _answered(self, peer: Peer, operation: frames.SpawnAnswered) -> None:
        waiting = self._waiting.get(operation.reference)
        if waiting is None or waiting.peer is not peer:
            return
        del self._waiting[operation.reference]
        future = waiting.future
        if operation.outcome != OK:
            if not future.done():
                kind = _ERRORS.get(operation.outcome, SpawnFailed)
                future.set_exception(kind(f"{peer.name}: {operation.detail}"))
            return
        pid = Pid(peer.name, peer.creation, operation.local)
        if future.done():
            self._end(waiting, pid)
            return
        if waiting.linked:
            self._signals.adopt(waiting.own, pid)
        future.set_result(pid)

    # --- the target's end ---

    def find(self, name: str) -> Spawnable:
        """What a name means on this node. See `Allowed.find`."""
        return self._allowed.find(check_function_name(name))

    def _asked(self, peer: Peer, operation: frames.SpawnAsked) -> None:
        try:
            body = self._allowed.find(operation.function)
            linked = operation.sender if operation.linked else None
            parent = Pid(peer.name, peer.creation, linked) if linked else None
            pid = self._spawn(body, self._arguments(body, operation.args), operation.max_mailbox, parent)
        except NodeClosed:
            return  # this node is about to end the session, which says it all
        except NodeDraining as error:
            self._refuse(peer, operation, DRAINING, str(error))
        except NotAllowed as error:
            self._refuse(peer, operation, NOT_ALLOWED, str(error))
        except SpawnFailed as error:
            self._refuse(peer, operation, FAILED, str(error))
        except Exception as error:  # noqa: BLE001 - whatever the arguments lead to
            self._refuse(peer, operation, FAILED, f"{type(error).__name__}: {text_of(error)}")
        else:
            if parent is not None:
                self._signals.adopt(pid.local, parent)
            if operation.monitor is not None:
                self._signals.adopt_watcher(peer.name, operation.monitor, pid.local)
            peer.post_ahead(frames.SpawnAnswered(operation.reference, OK, pid.local))  # and what it says at once

    def _arguments(self, body: Spawnable, encoded: msgspec.Raw) -> list[Any]:
        decoded: Any = self._codec.decode(encoded)
        match decoded:
            case [*args]:
                pass
            case _:
                raise SpawnFailed("the arguments are no list")
        for arg in args:
            if isinstance(arg, Unknown):
                raise SpawnFailed(f"an argument is a {arg.name}, a type that is unknown here: Node(messages=[...])")
        if inspect.isclass(body):  # its arguments would be looked at only in the first step
            server: Any = body
            inspect.signature(server.init).bind(None, *args)
        return args

    def _refuse(self, peer: Peer, operation: frames.SpawnAsked, outcome: str, detail: str) -> None:
        self._counters["spawns_refused"] += 1
        _log.warning(
            "%s could not start %.200r here: %s",
            peer.name,
            operation.function,
            detail,
            extra=fields(self._name, peer=peer.name, runs=operation.function[:_MAX_DETAIL], reason=detail),
        )
        peer.post(frames.SpawnAnswered(operation.reference, outcome, 0, detail[:_MAX_DETAIL]))

    # --- for the data plane ---

    def receive(self, peer: Peer, operation: frames.Operation) -> None:
        """Take in an operation about starting processes."""
        if self._peers.get(peer.name) is peer:
            self.OPERATIONS[type(operation)](self, peer, operation)

    OPERATIONS: ClassVar[dict[type[frames.Operation], Callable[..., None]]] = {
        frames.SpawnAsked: _asked,
        frames.SpawnAnswered: _answered,
    }

    def waits_for(self, name: str) -> bool:
        """Whether the answer to a spawn is to come from a peer."""
        return any(waiting.peer.name == name for waiting in self._waiting.values())

    def peer_up(self, peer: Peer) -> None:
        """A session with the peer is open."""
        self._peers[peer.name] = peer

    def peer_down(self, name: str, reason: str) -> None:
        """The session with the peer is over. To be told before the signals are: nobody has these monitors."""
        peer = self._peers.pop(name, None)
        for reference, waiting in list(self._waiting.items()):
            if waiting.peer is peer:
                if waiting.ref is not None:
                    self._signals.demonitor(waiting.own, waiting.ref)
                text = f"the connection to {name} ended before it answered whether it has started a process: {reason}"
                self._fail(reference, NodeLost(text))

    def close(self, error: NodeClosed) -> None:
        """Nothing will be answered any longer."""
        for reference in list(self._waiting):
            self._fail(reference, error)

    def _fail(self, reference: int, error: KinfolkError) -> None:
        future = self._waiting.pop(reference).future
        if not future.done():
            future.set_exception(error)


def _time_out(future: "asyncio.Future[Pid]", text: str) -> None:
    if not future.done():
        future.set_exception(CallTimeout(text))
