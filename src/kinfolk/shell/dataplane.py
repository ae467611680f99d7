"""The data plane: messages and calls, beside the kernel.

A local send is an append to a mailbox. A remote one is one encoding into the peer's outbox. What arrives goes from the
codec into a mailbox. None of this passes through the kernel; only who is connected, and who holds which name, comes
from there.
"""

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from math import inf
from typing import Any, ClassVar, NoReturn, Protocol, cast

import msgspec

from kinfolk.core.groups import Groups
from kinfolk.core.relations import OUTSIDE
from kinfolk.errors import (
    CallFailed,
    CallTimeout,
    KinfolkError,
    LinkCongested,
    MailboxFull,
    Moved,
    NameUnknown,
    NodeClosed,
    NodeLost,
    NoProcess,
    SendTimeout,
)
from kinfolk.ids import Pid, check_name, check_node_name
from kinfolk.logs import fields
from kinfolk.messages import OF_THE_NODE, Call, reply_type
from kinfolk.process import Process, is_call, running_process
from kinfolk.seconds import check_seconds
from kinfolk.shell.gate import Gate
from kinfolk.shell.limits import Limit, make_room, no_answer
from kinfolk.shell.signals import Signals
from kinfolk.shell.spawns import Spawns
from kinfolk.shell.tasks import Processes
from kinfolk.tracing import Outgoing, Tracer
from kinfolk.wire import codec, frames
from kinfolk.wire.codec import Codec, Traced
from kinfolk.wire.fragments import ANYBODY
from kinfolk.wire.frames import NEVER_MS, milliseconds_of
from kinfolk.wire.message_types import SCALARS
from kinfolk.wire.session import OBSERVED

_log = logging.getLogger("kinfolk")

_SENT = frames.Sent.TAG
_CALLED = frames.Called.TAG
_ANSWERED = frames.Answered.TAG
_KEPT = 1000
"""Processes that have handed over, of which this node still tells to whom; and types of requests that it knows."""

_TARGETS = "give a pid, a name, or (name, node)"

Target = Pid | str | tuple[str, str]
"""Where a message goes: a pid, a name of the cluster, or a name of one node as (name, node)."""


class Peer(Protocol):
    """A link to another program, as the data plane needs it."""

    conn: int
    name: str
    creation: int
    calls: "dict[int, Waiting]"
    """The calls that wait for an answer from there."""
    gate: Gate
    """Who waits until it is not congested."""

    @property
    def congested(self) -> bool:
        """Whether no user's message may be added to what waits for it."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether anything posted has a chance to arrive."""
        ...

    def post(self, operation: frames.Operation) -> None:
        """Append to the outbox."""
        ...

    def post_ahead(self, operation: frames.Operation) -> None:
        """Append to the outbox what leaves with what those say to it whose turn has come. See `Link.post_ahead`."""
        ...

    def post_from(self, operation: frames.Operation, sender: int, target: int | None, size: int = 0) -> None:
        """Append to the outbox, after what one process has said to another. See `Link.post_from`."""
        ...

    def post_fields(
        self, tag: int, fields: tuple[object, ...], sender: int, target: int | None, max_message: int
    ) -> bool:
        """Append to the outbox what was not encoded before; False if it cannot be so. See `Link.post_fields`."""
        ...

    def post_encoded_from(self, tag: int, operation: bytes, sender: int, target: int | None) -> None:
        """Append to the outbox what was encoded before, for several peers."""
        ...

    @property
    def waiting(self) -> int:
        """Bytes that wait for it."""
        ...


class Waiting(msgspec.Struct):
    """A call whose answer is awaited."""

    future: "asyncio.Future[Any]"
    request: object
    target: Target
    congested: str = ""
    """The node to which the request could not be sent yet."""


class DataPlane:
    """Moves messages between the processes of one node and, over links, those of others.

    Args:
        name, creation: of the node.
        processes: its processes.
        signals, spawns: what takes in what peers say of ends of processes, and of processes to start.
        whereis: who holds which name in the cluster.
        local_names: who holds which name on this node alone.
        groups: who is a member of which group.
        codec: for message bodies.
        counters: what was dropped, and why.
        strict: encode and decode local messages as well, so that tests find what the wire would not carry.

    Attributes:
        tracer: of the node. What is sent or called inside of a trace then goes as a `Traced`, a body with its context.
    """

    def __init__(
        self,
        name: str,
        creation: int,
        processes: Processes,
        signals: Signals,
        spawns: Spawns,
        whereis: Callable[[str], Pid | None],
        local_names: Callable[[str], Pid | None],
        groups: Groups,
        codec: Codec,
        counters: Counter[str],
        strict: bool,
    ) -> None:
        self.name, self.creation = name, creation
        self.tracer: Tracer | None = None
        self.links: dict[str, Peer] = {}
        self._processes = processes
        self._signals = signals
        self._spawns = spawns
        self._whereis = whereis
        self._local_names = local_names
        self._groups = groups
        self._codec = codec
        self._counters = counters
        self._strict = strict
        self._references = itertools.count(1)
        self._local_calls: dict[int, Waiting] = {}
        self._limits: dict[float, Limit] = {}
        self._unlimited: dict[asyncio.Future[object], tuple[float, object]] = {}
        self._readable: set[type] = set()
        """Types of requests of which the type of the reply is known, or that there is none."""
        self._heirs: dict[int, Pid] = {}
        """Processes of this node that have handed over, each with who has taken over, the oldest first."""
        self.turned_away: set[int] = set()
        """Processes that take no message or call any more: their node drains, and they do what they have. See
        `turn_away`."""
        self.refuses_calls_of_peers = False
        """Whether calls of other nodes are refused, but for those to the node's own service."""

    # --- out ---

    def send(self, target: Target, body: object, sender: int | None = None) -> None:
        """Send a message. See `Node.send` for what it raises."""
        if self.tracer is not None:
            sending = self.tracer.outgoing("send", target, body)
            if sending is not None:
                with sending:
                    self.send(target, Traced(sending.carrier, body), sender)
                return
        if not isinstance(target, Pid):
            if isinstance(target, tuple):
                self._send_to_local_name(*_place(target), body, sender)
                return
            target = self._resolve(target)
        if target.node == self.name:
            process = self._receiver(target.local) if target.creation == self.creation else None
            if process is None:
                self._not_here(target.local, body, sender)
            elif self._strict or self.tracer is not None:
                self._put(process, self._codec.copy(body) if self._strict else body)
            else:
                process.mailbox.put(body)
            return
        link, local, bodies = self.links.get(target.node), target.local, self._codec
        if link is not None and link.creation == target.creation and not link.congested:
            # No bytes of the body, no operation: 1.95 -> 1.40 us of the sender's processor for a message of 100 bytes.
            fields = local, sender, body if type(body) in SCALARS else bodies.lowered(body)
            if link.post_fields(_SENT, fields, sender or OUTSIDE, local, bodies.max_message):
                return
        encoded = msgspec.Raw(bodies.encode(body))
        if link is None:
            self._counters["sends_to_lost_nodes"] += 1
        elif link.creation != target.creation:
            self._counters["sends_to_dead_processes"] += 1
        elif link.congested:
            self._refuse(link)
        else:
            link.post_from(frames.Sent(local, sender, encoded), sender or OUTSIDE, local, len(encoded))

    def _send_to_local_name(self, name: str, node: str, body: object, sender: int | None) -> None:
        if node == self.name:
            holder = self._local_names(name)
            if holder is None:
                raise NameUnknown(name, f"no process of {node} has it (it is a name of that node alone)")
            self.send(holder, body, sender)
            return
        check_node_name(node)
        name = check_name(name)
        encoded = msgspec.Raw(self._codec.encode(body))
        link = self.links.get(node)
        if link is None:
            self._counters["sends_to_lost_nodes"] += 1
        elif link.congested:
            self._refuse(link)
        else:
            link.post_from(frames.SentToName(name, sender, encoded), sender or OUTSIDE, ANYBODY, len(encoded))

    def _refuse(self, link: Peer) -> NoReturn:
        raise LinkCongested(
            f"{link.waiting} bytes wait for {link.name}, more than high_water allows: send more slowly, or await"
            " send_when_clear()"
        )

    async def send_when_clear(
        self, target: Target, body: object, timeout: float | None, sender: int | None = None
    ) -> None:
        """Send a message as soon as the link is clear. See `Node.send_when_clear`."""
        if self.tracer is not None:
            sending = self.tracer.outgoing("send", target, body)
            if sending is not None:
                with sending:
                    await self.send_when_clear(target, Traced(sending.carrier, body), timeout, sender)
                return
        if timeout is not None:
            check_seconds(timeout)
        if isinstance(target, tuple):
            target = _place(target)
        where = target if isinstance(target, Pid | tuple) else self._resolve(target)
        link = self.links.get(where.node if isinstance(where, Pid) else where[1])
        if link is None or not link.congested or (isinstance(where, Pid) and link.creation != where.creation):
            self.send(where, body, sender)
            return
        encoded = msgspec.Raw(self._codec.encode(body))
        operation: frames.Operation
        addressee: int | None
        if isinstance(where, Pid):
            operation, addressee = frames.Sent(where.local, sender, encoded), where.local
        else:
            operation, addressee = frames.SentToName(check_name(where[0]), sender, encoded), ANYBODY
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def let_in() -> None:
            self._check_sender(sender)
            link.post_from(operation, sender or OUTSIDE, addressee, len(encoded))
            future.set_result(None)

        def give_up() -> None:
            if not future.done():
                text = f"{link.waiting} bytes wait for {link.name}, and there was no room for more within {timeout:g} s"
                future.set_exception(SendTimeout(text))

        link.gate.wait(future, let_in)
        timer = None if timeout is None else loop.call_later(timeout, give_up)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()

    def _check_sender(self, sender: int | None) -> None:
        """Nothing comes from a process after its end, also if one of its tasks has waited since before that."""
        if sender is not None and self._processes.get(sender) is None:
            raise NoProcess(f"process {sender} of {self.name}, which wanted to send this, is dead")

    def broadcast(self, group: str, body: object, sender: int | None, *, include_self: bool) -> None:
        """Send a message to all members of a group. See `Groups.broadcast`."""
        if self.tracer is not None:
            sending = self.tracer.outgoing("broadcast", group, body)
            if sending is not None:
                with sending:
                    self.broadcast(group, Traced(sending.carrier, body), sender, include_self=include_self)
                return
        others = [node for node in self._groups.nodes(group) if node != self.name]
        encoded = self._codec.encode(body) if others or self._strict else b""
        links: list[Peer] = []
        for node in others:
            link = self.links.get(node)
            if link is None:
                self._counters["sends_to_lost_nodes"] += 1
            elif link.congested:
                self._counters["sends_to_congested_nodes"] += 1
            else:
                links.append(link)
        if links:
            operation = frames.encode_operation(frames.Broadcast(group, sender, msgspec.Raw(encoded)))
            for link in links:
                link.post_encoded_from(frames.Broadcast.TAG, operation, sender or OUTSIDE, ANYBODY)
        if self._strict:
            body = self._codec.decode(encoded)
        self._deliver_to_members(group, body, None if include_self else sender)

    def _deliver_to_members(self, group: str, body: object, but: int | None) -> None:
        """Give all members of this node the same object."""
        for pid in self._groups.members_on(self.name, group):
            process = None if pid.local == but else self._receiver(pid.local)
            if process is None:
                continue
            try:
                self._put(process, body)
            except MailboxFull:
                self._overflowed(process)

    def _put(self, process: Process, message: object) -> None:
        if type(message) is Traced:
            process.mailbox.put_traced(message)
        else:
            process.mailbox.put(message)

    def call(
        self, target: Target, request: object, timeout: float | None, sender: int | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Send a request and wait for the answer, once this is awaited. See `Node.call`."""
        if timeout is not None:
            check_seconds(timeout)
        if type(request) not in SCALARS:
            self._learn_reply(type(request))
        if self.tracer is not None:
            calling = self.tracer.outgoing("call", target, request)
            if calling is not None:
                return self._call_traced(calling, target, request, timeout, sender)
        if isinstance(target, Pid | tuple):
            return self._call(target, request, timeout, timeout, sender)
        return self._call_holder(target, request, timeout, sender)

    async def _call_traced(
        self, calling: Outgoing, target: Target, request: object, timeout: float | None, sender: int | None
    ) -> Any:
        with calling:
            return await self.call(target, Traced(calling.carrier, request), timeout, sender)

    async def _call_holder(self, target: str, request: object, timeout: float | None, sender: int | None) -> Any:
        """Call whoever has a name.

        Whoever had it and hands over answers with `Moved` what it has not begun: that goes to the next holder.
        """
        loop, holder = asyncio.get_running_loop(), self._resolve(target)
        deadline = None if timeout is None else loop.time() + timeout
        left = timeout
        while True:
            process = None if self._strict or self.tracer is not None else self._processes.direct.get(holder)
            try:
                if process is not None and left is timeout:
                    caller = None if sender is None else self._processes.get(sender)
                    return await self.call_directly(process, request, timeout, caller, target)
                return await self._call(target, request, timeout, left, sender, holder)
            except Moved as moved:
                self._counters["calls_sent_again"] += 1
                known = self._whereis(target)
                holder = moved.heir if known in (None, holder) else known
                left = None if deadline is None else max(0.0, deadline - loop.time())

    async def _call(
        self,
        target: Target,
        request: object,
        timeout: float | None,
        left: float | None,
        sender: int | None,
        holder: Pid | None = None,
    ) -> Any:
        """Call once. Of the time, so much is left; a name was found to be held by the holder."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        reference = next(self._references)
        waiting = Waiting(future, request, target)
        pid = target if isinstance(target, Pid) else holder
        if pid is None:
            pending = self._begin_call_by_name(waiting, reference, left, sender)
        elif pid.node == self.name:
            pending = self._call_here(pid, waiting, reference, left, sender)
        else:
            pending = self._call_there(pid.node, pid, pid.local, waiting, reference, left, sender)
        timer = None if left is None or timeout is None else loop.call_later(left, self._time_out, waiting, timeout)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            pending.pop(reference, None)

    def _time_out(self, waiting: Waiting, timeout: float) -> None:
        if waiting.future.done():
            return
        target = waiting.target if isinstance(waiting.target, Pid) else repr(waiting.target)
        if waiting.congested:
            text = f"{target} was not even asked within {timeout:g} s: the link to {waiting.congested} is congested"
        elif self._processes.loop is None:
            text = f"{target} did not answer within {timeout:g} s: {self.name} has not been started"
        else:
            text = no_answer(waiting.target, timeout)
        waiting.future.set_exception(CallTimeout(text))

    def _begin_call_by_name(
        self, waiting: Waiting, reference: int, timeout: float | None, sender: int | None
    ) -> "dict[int, Waiting]":
        """Put a request for a name of one node on its way. Returns the table in which it waits for its answer."""
        target = waiting.target
        assert isinstance(target, tuple), "names of the cluster are looked up before"
        address, node = _place(target)
        check_node_name(node)
        address = check_name(address)
        if node == self.name:
            named = self._local_names(address)
            if named is None:
                raise NameUnknown(address, f"no process of {node} has it (it is a name of that node alone)")
            return self._call_here(named, waiting, reference, timeout, sender)
        return self._call_there(node, None, address, waiting, reference, timeout, sender)

    def _call_here(
        self, pid: Pid, waiting: Waiting, reference: int, timeout: float | None, sender: int | None
    ) -> "dict[int, Waiting]":
        process = self._receiver(pid.local) if pid.creation == self.creation else None
        if process is None:
            if pid.creation == self.creation and pid.local in self._heirs:
                raise Moved(self._heirs[pid.local])
            raise NoProcess(self._takes_no_calls(pid.local, str(pid)))
        if process is (running_process() if sender is None else self._processes.get(sender)):
            raise CallFailed(f"{pid} calls itself: it cannot answer while it waits for the answer")
        body = self._codec.copy(waiting.request) if self._strict else waiting.request
        self._local_calls[reference] = waiting
        who = None if sender is None else Pid(self.name, self.creation, sender)
        call = Call(body, who, lambda outcome, value: self._answered_here(reference, outcome, value))
        if type(body) is Traced:
            self._unwrap(call)
        try:
            self._processes.take_call(process, call, timeout)
        except BaseException:
            del self._local_calls[reference]
            raise
        return self._local_calls

    def _unwrap(self, call: Call[Any]) -> None:
        """A call has come with its trace."""
        carrier, call.body = call.body.carrier, call.body.body
        if self.tracer is not None:
            call.trace = self.tracer.incoming("call", carrier)

    def _answered_here(self, reference: int, outcome: str, value: object) -> None:
        waiting = self._local_calls.pop(reference, None)
        if waiting is None or waiting.future.done():
            self._counters["late_answers"] += 1
        elif outcome != codec.OK:
            waiting.future.set_exception(_error_of(outcome, value))
        elif not self._strict:
            waiting.future.set_result(value)
        else:
            try:
                copy = self._codec.copy(value)
            except KinfolkError as error:  # as over the wire: both are told
                waiting.future.set_exception(CallFailed(f"the answer could not be sent: {error}"))
                raise
            self._give(waiting, copy)

    async def call_directly(
        self, process: Process, request: object, timeout: float | None, caller: Process | None, target: Target
    ) -> Any:
        """Call a process of this node that takes calls, while there is no tracer and nothing is to be encoded.

        Args:
            caller: the process that calls, if it says so itself.
            target: as whom it was called, by a pid or a name.

        Otherwise as `call`, with half of its steps: 13.9 -> 8.7 us of the processor for a call within the node.
        """
        if timeout is not None and (type(timeout) is not float or not timeout >= 0):
            check_seconds(timeout)
        if timeout is not None and timeout not in self._limits and not make_room(self._limits):
            sender = None if caller is None else caller.pid.local
            return await self._call(target, request, timeout, timeout, sender, process.pid)
        kind = type(request)
        if kind not in self._readable:
            self._learn_reply(kind)
        if process is (running_process() if caller is None else caller):
            raise CallFailed(f"{process.pid} calls itself: it cannot answer while it waits for the answer")
        loop = self._processes.loop
        assert loop is not None, "the node runs"
        future: asyncio.Future[Any] = loop.create_future()
        now = loop.time()
        if timeout is None:
            waiting, due = self._unlimited, inf
        else:
            limit = self._limits.get(timeout)
            if limit is None:
                limit = self._limits[timeout] = Limit(timeout, loop, self._limits)
            waiting, due = limit.waiting, now + timeout
        call = Call(request, None if caller is None else caller.pid, partial(self._answered_directly, future))
        self._processes.take_call(process, call, timeout, now)
        waiting[future] = (due, target)
        try:
            return await future
        finally:
            waiting.pop(future, None)

    def _answered_directly(self, future: "asyncio.Future[object]", outcome: str, value: object) -> None:
        if future.done():
            self._counters["late_answers"] += 1
        elif outcome == codec.OK:
            future.set_result(value)
        else:
            future.set_exception(_error_of(outcome, value))

    def _call_there(
        self,
        node: str,
        pid: Pid | None,
        address: int | str,
        waiting: Waiting,
        reference: int,
        timeout: float | None,
        sender: int | None,
    ) -> "dict[int, Waiting]":
        request, link, bodies = waiting.request, self.links.get(node), self._codec
        if link is not None and (pid is None or link.creation == pid.creation) and not link.congested:
            # As in `send`.
            body = request if type(request) in SCALARS else bodies.lowered(request)
            fields = address, sender, reference, milliseconds_of(timeout), body
            whom = ANYBODY if isinstance(address, str) else address
            link.calls[reference] = waiting  # before it is posted: that may be too much for the link, and end it
            posted = False
            try:
                posted = link.post_fields(_CALLED, fields, sender or OUTSIDE, whom, bodies.max_message)
            finally:
                if not posted:
                    link.calls.pop(reference, None)
            if posted:
                return link.calls
        return self._call_encoded(node, pid, address, waiting, reference, timeout, sender)

    def _call_encoded(
        self,
        node: str,
        pid: Pid | None,
        address: int | str,
        waiting: Waiting,
        reference: int,
        timeout: float | None,
        sender: int | None,
    ) -> "dict[int, Waiting]":
        """As `_call_there`, for what cannot be posted at once; says why, if it cannot be at all."""
        body = msgspec.Raw(self._codec.encode(waiting.request))
        link = self.links.get(node)
        if link is None:
            raise NodeLost(f"cannot call {pid or (address, node)}: {node} is not connected")
        if pid is not None and link.creation != pid.creation:
            raise NoProcess(f"{pid} is dead: {node} has been restarted since")
        link.calls[reference] = waiting

        def post(seconds: float | None) -> None:
            called = frames.Called(address, sender, reference, milliseconds_of(seconds), body)
            link.post_from(called, sender or OUTSIDE, ANYBODY if isinstance(address, str) else address, len(body))

        if link.congested:
            self._call_when_clear(link, waiting, sender, timeout, post)
            return link.calls
        try:
            post(timeout)
        except BaseException:
            del link.calls[reference]
            raise
        return link.calls

    def _call_when_clear(
        self,
        link: Peer,
        waiting: Waiting,
        sender: int | None,
        timeout: float | None,
        post: Callable[[float | None], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time()

        def let_in() -> None:
            self._check_sender(sender)
            waiting.congested = ""
            post(None if timeout is None else timeout - (loop.time() - since))

        waiting.congested = link.name
        link.gate.wait(waiting.future, let_in)

    def _resolve(self, name: str) -> Pid:
        if not isinstance(name, str):
            raise TypeError(f"cannot send to a {type(name).__name__}: {_TARGETS}")
        holder = self._whereis(name)
        if holder is None:
            raise NameUnknown(name)
        return holder

    # --- in ---

    def receive(self, link: Peer, operations: Sequence[frames.Operation]) -> None:
        """Take in the operations of one frame of the data plane. Nothing is raised: a bad message harms only itself."""
        take_in = self.FRAMES[type(operations[0])]  # all are of one kind
        if take_in is DataPlane._sent:
            self._sent_many(link, operations)
            return
        for operation in operations:
            take_in(self, link, operation)

    def _sent_many(self, link: Peer, operations: Sequence[frames.Operation]) -> None:
        """As `_sent` for each, in one function as long as nothing is out of the ordinary."""
        get, read = self._processes.get, self._codec.read
        for operation in cast("Sequence[frames.Sent]", operations):
            process = get(operation.target)
            if process is None or self._heirs or self.turned_away:
                self._sent(link, operation)
                continue
            try:
                message = read(operation.body)
            except Exception:  # noqa: BLE001 - of any class; the codec finds the same, and says what it is
                self._sent(link, operation)
                continue
            if type(message) is Traced:
                self._sent(link, operation)
                continue
            try:
                process.mailbox.put(message)
            except MailboxFull:
                self._overflowed(process)

    def _sent(self, link: Peer, operation: frames.Sent) -> None:
        process = self._receiver(operation.target)
        if process is None and operation.target in self._heirs:
            self._forward(self._heirs[operation.target], operation.body)
        else:
            self._deliver(link, process, operation.body)

    def _sent_to_name(self, link: Peer, operation: frames.SentToName) -> None:
        process = self._process_named(operation.target)
        if process is None:
            self._counters["sends_to_unknown_names"] += 1
        else:
            self._deliver(link, process, operation.body)

    def _broadcast(self, link: Peer, operation: frames.Broadcast) -> None:
        try:
            self._deliver_to_members(operation.group, self._codec.decode(operation.body), None)
        except codec.BadBody as error:
            self._counters["unreadable_messages"] += 1
            _log.warning(
                "dropped a message from %s for the group %r: %s",
                link.name,
                operation.group,
                error,
                extra=fields(self.name, peer=link.name, group=operation.group, reason=error),
            )

    def _deliver(self, link: Peer, process: Process | None, body: msgspec.Raw) -> None:
        if process is None:
            self._counters["sends_to_dead_processes"] += 1
            return
        try:
            message = self._codec.decode(body)
            if type(message) is Traced:
                process.mailbox.put_traced(message)
            else:
                process.mailbox.put(message)
        except codec.BadBody as error:
            self._counters["unreadable_messages"] += 1
            _log.warning(
                "dropped a message from %s for %s: %s",
                link.name,
                process.pid,
                error,
                extra=fields(self.name, peer=link.name, pid=process.pid, runs=process.function, reason=error),
            )
        except MailboxFull:
            self._overflowed(process)

    def _overflowed(self, process: Process) -> None:
        self._counters["mailbox_overflows"] += 1
        self._processes.overflowed(process)

    def _called(self, link: Peer, operation: frames.Called) -> None:
        if not link.is_open:
            return  # ended by the answer to a call before this one, in the same frame: nothing comes after a PeerDown

        target, heirs = operation.target, self._heirs
        if not isinstance(target, int):
            process = self._process_named(target)
        elif heirs or self.turned_away:
            process = self._receiver(target)
        else:
            process = self._processes.get(target)
        answering = OUTSIDE if process is None else process.pid.local
        answer = partial(self._answer, link, operation.reference, operation.sender, answering)
        if isinstance(target, int) and target in heirs:
            answer(codec.MOVED, heirs[target])
            return
        if self.refuses_calls_of_peers and target != OBSERVED:
            answer(
                codec.NO_PROCESS, f"{self.name} drains, and takes no more calls of other nodes: call again, elsewhere"
            )
            return
        if process is None:
            what = f"process {target}" if isinstance(target, int) else f"the process named {target!r}"
            answer(codec.NO_PROCESS, self._takes_no_calls(target, f"{what} of {self.name}"))
            return
        who = None if operation.sender is None else Pid(link.name, link.creation, operation.sender)
        timeout = None if operation.timeout_ms >= NEVER_MS else operation.timeout_ms / 1000
        try:
            call = Call(self._codec.decode(operation.body), who, answer)
            if type(call.body) is Traced:
                self._unwrap(call)
            self._processes.take_call(process, call, timeout)
        except codec.BadBody as error:
            self._counters["unreadable_messages"] += 1
            answer(codec.FAILED, f"the request could not be read: {error}")
        except MailboxFull as error:
            self._counters["mailbox_overflows"] += 1
            answer(codec.FAILED, str(error))

    def _answer(
        self, link: Peer, reference: int, caller: int | None, answering: int, outcome: str, value: object
    ) -> None:
        """Answer a call, after what its process has sent to the caller. Who is no process gets each answer alone."""
        if not link.is_open:
            self._counters["answers_to_lost_nodes"] += 1
            return
        whom, bodies = caller or -reference, self._codec
        try:
            # As in `send`.
            fields = reference, outcome, value if type(value) in SCALARS else bodies.lowered(value)
            if link.post_fields(_ANSWERED, fields, answering, whom, bodies.max_message):
                return
            body = bodies.encode(value)
        except KinfolkError as error:
            # The caller must not wait for what cannot come; whoever answered so is told as well.
            text = bodies.encode(f"the answer could not be sent: {error}")
            link.post_from(frames.Answered(reference, codec.FAILED, msgspec.Raw(text)), answering, whom)
            raise
        link.post_from(frames.Answered(reference, outcome, msgspec.Raw(body)), answering, whom, len(body))

    def _answered(self, link: Peer, operation: frames.Answered) -> None:
        waiting = link.calls.pop(operation.reference, None)
        if waiting is None or waiting.future.done():
            self._counters["late_answers"] += 1
            return
        try:
            value = self._codec.decode(operation.body)
            if operation.outcome != codec.OK:
                raise _error_of(operation.outcome, value)
            self._give(waiting, value)
        except codec.BadBody as error:
            waiting.future.set_exception(_unreadable(waiting, error))
        except KinfolkError as error:
            waiting.future.set_exception(error)

    def _learn_reply(self, request: type) -> None:
        """Know the types in the reply to this request, before it is sent.

        Raises:
            TypeError: the reply type of the class cannot be read; the message says why.
        """
        if request in self._readable:
            return
        try:
            expected = reply_type(request)
            if expected is not None:
                self._codec.convert(None, expected)
        except codec.BadBody:
            pass  # None does not fit, but the type can be read
        except (TypeError, NameError, RecursionError) as error:
            raise TypeError(f"the reply type of {request.__qualname__} cannot be read: {error}") from None
        if len(self._readable) >= _KEPT:
            self._readable.clear()  # who makes types as the program runs shall not make this grow
        self._readable.add(request)

    def _give(self, waiting: Waiting, value: object) -> None:
        """Answer with a value that has come over the wire, as the type that the request declares."""
        if type(waiting.request) in SCALARS:
            waiting.future.set_result(value)
            return
        try:
            expected = reply_type(type(_bare(waiting.request)))
            waiting.future.set_result(value if expected is None else self._codec.convert(value, expected))
        except (codec.BadBody, TypeError, NameError, RecursionError) as error:
            waiting.future.set_exception(_unreadable(waiting, error))

    def _end_of_process(self, link: Peer, operation: frames.Operation) -> None:
        self._signals.receive(link, operation)

    def _spawn(self, link: Peer, operation: frames.Operation) -> None:
        self._spawns.receive(link, operation)

    # --- processes that hand over ---

    def hand_over(self, process: Process, heir: Pid) -> list[object]:
        """From now on, calls to the process are answered with `Moved`, and what is sent to it goes to its heir.

        So are the calls that wait in its mailbox. Returns the messages that wait there, which are for the heir.
        """
        self._heirs[process.pid.local] = heir
        self._processes.direct.pop(process.pid, None)
        if len(self._heirs) > _KEPT:
            del self._heirs[next(iter(self._heirs))]
        messages: list[object] = []
        for message in process.mailbox.take_all():
            if is_call(message):
                message.abandon(codec.MOVED, heir)
            elif not isinstance(message, OF_THE_NODE):
                messages.append(message)
        return messages

    def turn_away(self, process: Process) -> None:
        """From now on, the process takes no message or call."""
        self.turned_away.add(process.pid.local)
        self._processes.direct.pop(process.pid, None)

    def _not_here(self, local: int, body: object, sender: int | None) -> None:
        """A message of this node is for a process of it that takes none."""
        heir = self._heirs.get(local)
        if heir is None:
            self._counters["sends_to_dead_processes"] += 1
        else:
            self.send(heir, body, sender)

    def _forward(self, heir: Pid, body: msgspec.Raw) -> None:
        """A message of another node is for a process of this one that has handed over."""
        link = self.links.get(heir.node)
        if link is None or link.creation != heir.creation:
            self._counters["sends_to_lost_nodes"] += 1
        else:
            link.post(frames.Sent(heir.local, None, msgspec.Raw(bytes(body))))

    def _process_named(self, name: str) -> Process | None:
        pid = self._local_names(name)
        return None if pid is None else self._receiver(pid.local)

    def _receiver(self, local: int) -> Process | None:
        """The process that is to get a message or a call for this local id; None if it is dead or takes none."""
        away = local in self.turned_away or local in self._heirs
        return None if away else self._processes.get(local)

    def _takes_no_calls(self, target: int | str, what: str) -> str:
        if target in self.turned_away:
            return f"{what} is about to end, for {self.name} drains: call again, whoever has its name then"
        return f"{what} is dead, or never was"

    FRAMES: ClassVar[dict[type[frames.Operation], Callable[..., None]]] = {
        frames.Sent: _sent,
        frames.SentToName: _sent_to_name,
        frames.Broadcast: _broadcast,
        frames.Called: _called,
        frames.Answered: _answered,
        **dict.fromkeys(Signals.OPERATIONS, _end_of_process),
        **dict.fromkeys(Spawns.OPERATIONS, _spawn),
    }

    # --- links come and go ---

    def congested(self) -> dict[str, int]:
        """The nodes whose links are congested, and what waits for each."""
        return {name: link.waiting for name, link in sorted(self.links.items()) if link.congested}

    def link_up(self, link: Peer) -> None:
        """Messages for the node go over this link from now on."""
        self.links[link.name] = link
        self._signals.peer_up(link)
        self._spawns.peer_up(link)

    def link_down(self, name: str, conn: int, reason: str) -> None:
        """The link is gone, and with it the answers that were to come over it."""
        link = self.links.get(name)
        if link is not None and link.conn == conn:
            del self.links[name]
            _fail_all(link.calls, NodeLost(f"the connection to {name} ended before the answer came: {reason}"))
            link.gate.close(self._drop)
            self._spawns.peer_down(name, reason)
            self._signals.peer_down(name, reason)

    def _drop(self, future: "asyncio.Future[Any]") -> None:
        """A message that has waited for room is dropped with its link, as if it had been sent before."""
        self._counters["sends_to_lost_nodes"] += 1
        future.set_result(None)

    def close(self, error: NodeClosed) -> None:
        """Nothing will be answered any longer."""
        _fail_all(self._local_calls, error)
        for limit in self._limits.values():
            limit.close(error)
        self._limits.clear()
        for future in self._unlimited:
            if not future.done():
                future.set_exception(error)
        for link in list(self.links.values()):
            _fail_all(link.calls, error)
            link.gate.close(lambda future: future.set_exception(error))
        self.links.clear()
        self._spawns.close(error)
        self._signals.close(error)


CONTROL: frozenset[int] = frozenset(frame.TAG for frame in frames.FRAMES if frame not in DataPlane.FRAMES)
"""Tags of the frames that are not the data plane's."""


def _place(target: tuple[str, ...]) -> tuple[str, str]:
    """A name and the node that knows it, as they were given. TypeError: it is something else."""
    if len(target) != 2:
        raise TypeError(f"cannot send to {target!r}: {_TARGETS}")
    return target[0], target[1]


def _bare(request: object) -> object:
    """The request itself, if it travels with its trace."""
    return request.body if isinstance(request, Traced) else request


def _error_of(outcome: str, value: object) -> KinfolkError:
    if outcome == codec.MOVED and isinstance(value, Pid):
        return Moved(value)
    return codec.error_of(outcome, str(value))


def _unreadable(waiting: Waiting, error: Exception) -> CallFailed:
    return CallFailed(f"the answer of {waiting.target} could not be read: {error}")


def _fail_all(waiting: dict[int, Waiting], error: Exception) -> None:
    for call in list(waiting.values()):
        if not call.future.done():
            call.future.set_exception(error)
    waiting.clear()
