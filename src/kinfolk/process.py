"""`Process`: what the body of a process gets as its first argument, usually called ``me``.

A process is one asyncio task with a pid and a mailbox. Everything it says to others goes through its node, with itself
as the sender.
"""

import asyncio
import functools
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from threading import get_ident
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    NoReturn,
    Protocol,
    TypeGuard,
    TypeVar,
    TypeVarTuple,
    cast,
    get_origin,
    overload,
)

from kinfolk.errors import NoProcess
from kinfolk.ids import Pid
from kinfolk.logs import fields
from kinfolk.mailbox import Mailbox, Match
from kinfolk.messages import Call, Down, Ref, Replies, Unknown
from kinfolk.reasons import Reason, reason_of
from kinfolk.seconds import check_seconds
from kinfolk.wire import codec
from kinfolk.wire.codec import BadBody, Traced

if TYPE_CHECKING:
    from kinfolk.groups import Groups
    from kinfolk.handover import Inheritance
    from kinfolk.node import Node
    from kinfolk.registry import Names
    from kinfolk.shell.alarms import Alarm
    from kinfolk.shell.dataplane import Target
    from kinfolk.shell.signals import Signals

_log = logging.getLogger("kinfolk")

T = TypeVar("T")
R = TypeVar("R")
B_co = TypeVar("B_co", covariant=True)
Ts = TypeVarTuple("Ts")

PRUNE_FROM = 64

_current_task: Callable[[Any], object]
if sys.version_info >= (3, 12):
    _current_task = asyncio.current_task
else:
    # There it is a function in Python around this look into a dictionary, which every receive would pay: 60 ns of 350.
    _current_task = vars(asyncio.tasks)["_current_tasks"].get

Body = Callable[..., Any]
"""What a process runs: a coroutine function whose first argument is its `Process`, or a `Server` class."""


class Initialised(Protocol[*Ts]):
    """A `Server` whose `init` takes these arguments, as type checkers see it."""

    async def init(self, *args: *Ts) -> None:
        """See `Server.init`."""
        ...


Runnable = Callable[["Process", *Ts], Coroutine[Any, Any, object]] | Callable[[], Initialised[*Ts]]
"""A `Body` that takes these arguments, as type checkers see it."""


_current: ContextVar["Process"] = ContextVar("kinfolk.current_process")


def current_process() -> "Process":
    """The process that this code runs in, also in the tasks that it started.

    Raises:
        RuntimeError: not inside a process.
    """
    try:
        return _current.get()
    except LookupError:
        raise RuntimeError(
            "not inside a process: start this code with node.spawn(), or pass the process on as an argument"
        ) from None


def running_process() -> "Process | None":
    """The process that this code runs in; None outside of one."""
    return _current.get(None)


class Process:
    """A process of this node, as it sees itself. Made by `spawn`.

    Only its own task may receive; what it sends may also come from tasks that it has started. Once it is dead, every
    method raises NoProcess: code that would not be cancelled can do no more harm.

    Attributes:
        pid: its address, for others.
        node: where it lives.
        mailbox: what has been sent to it.
        body: what it runs: a function, or a `Server` class.
        parent: the process that it was spawned by and linked to; None if there is none.
    """

    __slots__ = (
        "__weakref__",
        "_filters",
        "_loop",
        "body",
        "exit_reason",
        "inheritance",
        "mailbox",
        "node",
        "open_calls",
        "parent",
        "pid",
        "prune_at",
        "started",
        "task",
    )

    def __init__(self, pid: Pid, node: "Node", body: Body, mailbox: Mailbox) -> None:
        self.pid = pid
        self.node = node
        self.body = body
        self.mailbox = mailbox
        self.parent: Pid | None = None
        self.exit_reason: Reason | None = None
        """None as long as it lives."""
        self.inheritance: Inheritance | None = None
        """What it is given by the process that it takes over from; None for most."""
        self.open_calls: dict[Call[Any], None] | None = None
        """Calls that it has not answered; None as long as there never was one."""
        self.prune_at = PRUNE_FROM
        """At so many, those whose callers have given up are thrown out."""
        self.task: asyncio.Task[Any] | None = None
        """The task that it is; None before the node has started, and once it has ended."""
        self.started: float | None = None
        """When its code began, on the scale of its loop's `time`, in seconds; None before."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._filters: dict[tuple[type[Any], bool], Match] | None = None

    def __repr__(self) -> str:
        state = "" if self.exit_reason is None else ", dead"
        return f"<process {self.pid} ({self.function}{state})>"

    @property
    def function(self) -> str:
        """The name of what it runs."""
        body: Any = self.body
        while isinstance(body, functools.partial):
            body = cast("functools.partial[object]", body).func
        return str(getattr(body, "__qualname__", type(body).__qualname__))

    # --- receiving ---

    @overload
    async def receive(self, /, *, timeout: float | None = None) -> Any: ...
    @overload
    async def receive(self, match: type[T], /, *, timeout: float | None = None) -> T: ...
    @overload
    async def receive(self, match: Match, /, *, timeout: float | None = None) -> Any: ...
    async def receive(self, match: type[Any] | Match | None = None, /, *, timeout: float | None = None) -> Any:
        """Wait for a message and take it out of the mailbox; those that do not match stay, in their order.

        Args:
            match: nothing for the oldest message; a type for the oldest of that type (the node then also knows it as
                a message type of others); or a predicate for the oldest message for which it is true.
            timeout: seconds; 0 only looks into the mailbox; None waits for ever.

        Returns:
            The body of a `send`, or a `Call`, or what the node has to tell: `Exit`, `Down`, `PeerUp`, `PeerDown`,
            `PeerStalled`, `PeerResumed`, `NameLost`, `NameTaken`.

        Raises:
            TimeoutError: nothing came in time; no message was taken.
            NoProcess: this process is dead.
            RuntimeError: not in the process's own task.
            TypeError: `match` is neither a type nor a predicate, or `timeout` no number.
            ValueError: `timeout` is negative or NaN.

        Cancelling it loses no message.
        """
        if self.task is None or _current_task(self._loop) is not self.task or self.exit_reason is not None:
            self._refuse_to_receive()
        if timeout is not None:
            check_seconds(timeout)
        if match is None:
            messages = self.mailbox.ready
            if messages:
                self.mailbox.taken += 1
                return messages.popleft()
            wanted = None
        else:
            wanted = self._filter(match)
        if timeout is None:
            return await self.mailbox.receive(wanted)
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                return await self.mailbox.receive(wanted)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(f"{self.pid} ({self.function}) got no such message within {timeout:g} s") from None

    @overload
    def calls(self, /) -> "Calls[Any]": ...
    @overload
    def calls(self, kind: type[T], /) -> "Calls[T]": ...
    def calls(self, kind: type[Any] | None = None, /) -> "Calls[Any]":
        """The calls to this process, one after the other: ``async for call in me.calls()``.

        Without a type, messages that are no calls are dropped, logged and counted: nobody would ever receive them.
        With a type, only calls whose body is of it come, and everything else stays in the mailbox to be received later.
        Calls whose callers have given up meanwhile are passed over and counted.
        """
        return Calls(self, kind)

    async def next_call(self, kind: type[T] | None) -> Call[T]:
        """Wait for the next call that `calls` is to yield."""
        loop = self._loop
        if self.task is None or _current_task(loop) is not self.task or self.exit_reason is not None:
            self._refuse_to_receive()
        wanted = None if kind is None else self._filter(kind, calls=True)
        while True:
            message = await self.mailbox.receive(wanted)
            if type(message) is Call:
                call = cast("Call[T]", message)
                deadline = call.deadline
                if deadline is None or loop is None or loop.time() < deadline:
                    return call
                call.drop()
                self.node.counters["expired_calls"] += 1
                continue
            self.node.counters["unhandled_messages"] += 1
            _log.warning(
                "%s (%s) takes calls alone: dropped a %s",
                self.pid,
                self.function,
                type(message).__name__,
                extra=fields(self.pid.node, pid=self.pid, runs=self.function),
            )

    def _filter(self, match: type[Any] | Match, calls: bool = False) -> Match:
        if not isinstance(match, type):
            if get_origin(match) is not None or not callable(match):
                raise TypeError(
                    f"receive({match!r}): give a class, as in receive(list), or a predicate, as in"
                    " receive(lambda message: isinstance(message, A | B))"
                )
            return match
        kind: type[Any] = match
        if self._filters is None:  # Made when needed: spawning must cost little.
            self._filters = {}
        wanted = self._filters.get((kind, calls))
        if wanted is None:
            self._learn(kind)
            wanted = self._filters[kind, calls] = _is_call_of(kind) if calls else _is_a(kind)
        return wanted

    def _learn(self, kind: type[Any]) -> None:
        """Let the node know this message type, and read what of it has arrived before."""
        try:
            self.node.codec.learn(kind)
        except TypeError:
            return  # No message type: only messages of this node can be of it.
        for message in self.mailbox.take_all():
            try:
                self.mailbox.put_always(self._resolved(message))
            except BadBody as error:
                self.node.counters["unreadable_messages"] += 1
                _log.warning(
                    "dropped a message for %s: %s",
                    self.pid,
                    error,
                    extra=fields(self.pid.node, pid=self.pid, runs=self.function, reason=error),
                )
                if is_call(message):
                    message.abandon(codec.FAILED, f"the request could not be read: {error}")

    def _resolved(self, message: Any) -> object:
        if isinstance(message, Unknown | Traced):
            return self.node.codec.resolve(message)
        if is_call(message) and isinstance(message.body, Unknown):
            message.body = self.node.codec.resolve(message.body)
        return message

    # --- sending ---

    def send(self, target: "Target", message: object) -> None:
        """Send a message, as `Node.send` does, with this process as the sender.

        Raises:
            NoProcess: this process is dead.
            Exception: what `Node.send` raises.
        """
        node = self.node
        if self.exit_reason is None and get_ident() == node.thread and type(target) is Pid:  # as in Node.send
            receiver = node.direct.get(target)
            if receiver is not None:
                receiver.mailbox.put(message)
                return
        self.check_alive()
        node.check_open()
        node.dataplane.send(target, message, self.pid.local)

    async def send_when_clear(self, target: "Target", message: object, *, timeout: float | None = None) -> None:
        """Send a message as soon as the link is clear, as `Node.send_when_clear` does, with this process as the sender.

        Raises:
            NoProcess: this process is dead.
            Exception: what `Node.send_when_clear` raises.
        """
        self.check_alive()
        self.node.check_open()
        await self.node.dataplane.send_when_clear(target, message, timeout, self.pid.local)

    @overload
    async def call(self, target: "Target", request: Replies[R], *, timeout: float | None = 5.0) -> R: ...
    # Only mypy comes here, when a reply is not of the type that it is used as: else it would take the next, an Any.
    @overload
    async def call(  # type: ignore[overload-cannot-match]
        self, target: "Target", request: Replies[object], *, timeout: float | None = 5.0
    ) -> object: ...
    @overload
    async def call(self, target: "Target", request: object, *, timeout: float | None = 5.0) -> Any: ...
    async def call(self, target: "Target", request: object, *, timeout: float | None = 5.0) -> Any:
        """Send a request and wait for its answer, as `Node.call` does, with this process as the sender.

        Raises:
            NoProcess: the target is dead, or this process is.
            Exception: what `Node.call` raises.
        """
        node = self.node
        if self.exit_reason is None and get_ident() == node.thread and type(target) is Pid:  # as in Node.call
            receiver = node.direct.get(target)
            if receiver is not None:
                return await node.dataplane.call_directly(receiver, request, timeout, self, target)
        self.check_alive()
        node.check_open()
        return await node.dataplane.call(target, request, timeout, self.pid.local)

    def spawn(
        self,
        body: Runnable[*Ts],
        /,
        *args: *Ts,
        link: bool = False,
        max_mailbox: int | None = None,
    ) -> Pid:
        """Start a process on this node, as `Node.spawn` does. It lives on when this one ends, unless it is linked.

        Args:
            link: link it to this process before it takes its first step. To watch it from its first step on, monitor
                what this returns, as in ``ref = me.monitor(me.spawn(work))``: it does not run before the next await.

        Raises:
            NoProcess: this process is dead.
            Exception: what `Node.spawn` raises.
        """
        self.check_alive()
        self.node.check_open()
        if link:
            return self.start_linked(body, args, max_mailbox).pid
        return self.node.start_process(body, args, max_mailbox).pid

    def send_after(self, seconds: float, message: object) -> "Alarm":
        """Send a message to this process itself, later.

        Args:
            seconds: how much later.

        Returns:
            The alarm; its `cancel` prevents the message. The end of the process cancels it as well.

        Raises:
            NoProcess, NodeClosed: as `link`.
            ValueError: the time is less than 0, or has no end.
        """
        self.check_alive()
        self.node.check_open()
        return self.node.alarms.after(self.pid.local, seconds, message)

    def send_interval(self, seconds: float, message: object) -> "Alarm":
        """Send a message to this process itself every so many seconds, the first one after that time.

        Of messages that a busy event loop has delayed beyond the next, only one comes.

        Returns:
            The alarm; its `cancel` ends the messages. The end of the process cancels it as well.

        Raises:
            NoProcess, NodeClosed: as `link`.
            ValueError: the time is not more than 0, or has no end.
        """
        self.check_alive()
        self.node.check_open()
        return self.node.alarms.every(self.pid.local, seconds, message)

    @overload
    async def spawn_on(
        self,
        node: str,
        body: Runnable[*Ts] | str,
        /,
        *args: *Ts,
        link: bool = False,
        monitor: Literal[False] = False,
        max_mailbox: int | None = None,
        timeout: float | None = 5.0,
    ) -> Pid: ...
    @overload
    async def spawn_on(
        self,
        node: str,
        body: Runnable[*Ts] | str,
        /,
        *args: *Ts,
        link: bool = False,
        monitor: Literal[True],
        max_mailbox: int | None = None,
        timeout: float | None = 5.0,
    ) -> tuple[Pid, Ref]: ...
    @overload
    async def spawn_on(
        self,
        node: str,
        body: Callable[["Process", *Ts], Coroutine[Any, Any, object]] | str,
        /,
        *args: *Ts,
        link: bool = False,
        monitor: bool,
        max_mailbox: int | None = None,
        timeout: float | None = 5.0,
    ) -> Pid | tuple[Pid, Ref]: ...
    async def spawn_on(
        self,
        node: str,
        body: Runnable[*Ts] | str,
        /,
        *args: *Ts,
        link: bool = False,
        monitor: bool = False,
        max_mailbox: int | None = None,
        timeout: float | None = 5.0,
    ) -> Pid | tuple[Pid, Ref]:
        """Start a process on another node, as `Node.spawn_on` does.

        Args:
            link: link it to this process before it takes its first step. If this process ends meanwhile, or the node is
                lost, the new process ends too.
            monitor: watch it from its first step on; the monitor is returned as well.

        Returns:
            Its pid; with `monitor` the pid and the monitor.

        Raises:
            NoProcess: this process is dead.
            Exception: what `Node.spawn_on` raises. Then no `Exit` and no `Down` of the new process arrives.
        """
        self.check_alive()
        pid, ref = await self.node.spawn_for(
            self, node, body, args, link=link, monitor=monitor, max_mailbox=max_mailbox, timeout=timeout
        )
        return pid if ref is None else (pid, ref)

    @property
    def names(self) -> "Names":
        """The names of the cluster: ``await me.names.register("db", me.pid)``."""
        self.check_alive()
        return self.node.names

    @property
    def groups(self) -> "Groups":
        """The groups of the cluster, for this process: ``await me.groups.join("stores")``."""
        self.check_alive()
        return self.node.groups.of(self)

    # --- the ends of others, and its own ---

    def link(self, pid: Pid) -> None:
        """Tie this process and another, wherever it lives, to each other: when one ends, the other gets an exit signal.

        The signal carries the reason of the end. "normal" does nothing, any other reason ends the process, unless it
        traps exits: then an `Exit` arrives. A process that is dead answers with the reason "noproc", a node that is not
        connected or is lost with "noconnection". Two processes have at most one link: linking again does nothing.

        Raises:
            NoProcess: this process is dead.
            NodeClosed: its node is closed.
            TypeError: not a pid.
        """
        self._signals.link(self.pid.local, pid)

    def unlink(self, pid: Pid) -> None:
        """Undo a link, from either end. Once this returns, the other's end has no effect here, and no `Exit` arrives.

        An `Exit` that has arrived before stays in the mailbox. What is not linked is no error.

        Raises:
            NoProcess, NodeClosed, TypeError: as `link`.
        """
        self._signals.unlink(self.pid.local, pid)

    @property
    def trap_exit(self) -> bool:
        """Whether exit signals arrive as `Exit` messages instead of ending this process; all but those of `kill`."""
        return self.exit_reason is None and self.node.signals.relations.traps(self.pid.local)

    @trap_exit.setter
    def trap_exit(self, on: bool) -> None:
        self._signals.relations.trap(self.pid.local, on)

    def exit(self, pid: Pid, reason: "Reason | BaseException") -> None:
        """Send an exit signal to a process, wherever it lives.

        Args:
            pid: who gets it; this process itself as well.
            reason: "kill" ends the process whatever it does, with the reason "killed". "normal" ends only a process
                that sends it to itself. Anything else (a word, a `Crash`, an exception) ends a process that does not
                trap exits. One that does gets an `Exit`.

        Nothing happens if the process is dead or its node not connected.

        Raises:
            NoProcess, NodeClosed, TypeError: as `link`.
            ValueError: the word is empty or too long.
        """
        self._signals.exit(self.pid.local, pid, reason_of(reason))

    def monitor(self, target: "Target") -> Ref:
        """Watch a process, wherever it lives: when it ends, a `Down` arrives, once.

        Args:
            target: a pid, a name of the cluster (who has it now is watched), or ``(name, node)``.

        Returns:
            The monitor, as it stands in the `Down`. Each call makes one of its own.

        A process that is dead, or a name that nobody has, is reported at once with the reason "noproc"; a node that is
        not connected, or is lost later, with "noconnection". What the process sent before arrives before the `Down`.

        Raises:
            NoProcess, NodeClosed: as `link`.
            TypeError, ValueError: neither a pid nor a name.
        """
        return self._signals.monitor(self.pid.local, target)

    def demonitor(self, ref: Ref, flush: bool = True) -> None:
        """Watch no longer: no `Down` of this monitor arrives any more.

        Args:
            ref: what `monitor` returned. One that has come to its end is no error.
            flush: take its `Down` out of the mailbox, if it has arrived already.

        Raises:
            NoProcess, NodeClosed: as `link`.
        """
        self._signals.demonitor(self.pid.local, ref)
        if flush:
            self.mailbox.discard(lambda message: type(message) is Down and message.ref == ref)

    def monitor_node(self, node: str | None = None, *, stalls: bool = False) -> None:
        """Watch a node: a `PeerUp` or `PeerDown` arrives now, for how it is, and then with each change.

        Args:
            node: its name; None for every node, of which those that are there are told now.
            stalls: whether a `PeerStalled` is to arrive when the event loop of a connected node stands still, and a
                `PeerResumed` when it turns again.

        Before a `PeerUp` no message of that node arrives, and after a `PeerDown` none. Watching again does nothing.

        With names in etcd a node is there that has a lease and can be reached, as far as is known, whether a session
        is open or not; see docs/etcd.md. Stalls are told of connected nodes.

        Raises:
            NoProcess, NodeClosed: as `link`.
            ValueError: no node name, or this node's own.
        """
        self._signals.watch_node(self.pid.local, node, stalls)

    def demonitor_node(self, node: str | None = None) -> None:
        """Undo `monitor_node`. What has arrived stays in the mailbox.

        Raises:
            NoProcess, NodeClosed, ValueError: as `monitor_node`.
        """
        self._signals.unwatch_node(self.pid.local, node)

    @property
    def _signals(self) -> "Signals":
        self.check_alive()
        self.node.check_open()
        return self.node.signals

    # --- life and death, for the node ---

    def start_linked(
        self,
        body: Body,
        args: Sequence[object],
        max_mailbox: int | None = None,
        gate: "asyncio.Future[None] | None" = None,
    ) -> "Process":
        """Start a process of which this one is the parent. With a gate, its code begins when that has a result."""
        self.check_alive()
        process = self.node.start_process(body, args, max_mailbox, gate)
        process.parent = self.pid
        self.node.signals.link(self.pid.local, process.pid)
        return process

    def begin(self, task: "asyncio.Task[Any]") -> None:
        """This task is the process from now on; called in it."""
        self.task = task
        loop = self._loop = task.get_loop()
        self.started = loop.time()
        _current.set(self)

    def end(self, reason: Reason) -> None:
        """The process is dead from now on."""
        self.exit_reason = reason
        unread = self.mailbox.end(reason)
        if unread:  # the callers among them are told
            self.node.counters["unread_messages"] += sum(type(message) is not Call for message in unread)

    def check_alive(self) -> None:
        """Raise NoProcess if it is dead."""
        if self.exit_reason is not None:
            raise NoProcess(
                f"this process, {self.pid} ({self.function}), is dead ({self.exit_reason}): its code must end now"
            )

    def _refuse_to_receive(self) -> NoReturn:
        self.check_alive()
        raise RuntimeError(
            f"only the task of {self.pid} ({self.function}) itself may receive from its mailbox: receive there and"
            " hand the messages on, or spawn a process for this task"
        )


def is_call(message: object) -> TypeGuard[Call[Any]]:
    """Whether a message is a call."""
    return isinstance(message, Call)


def _is_call_of(kind: type[Any]) -> Match:
    return lambda message: is_call(message) and isinstance(message.body, kind)


def _is_a(kind: type[Any]) -> Match:
    return lambda message: isinstance(message, kind)


class Calls(Generic[B_co]):
    """The async iterator that `Process.calls` returns. It does not end before the process does."""

    __slots__ = ("_kind", "_process")

    def __init__(self, process: Process, kind: type[B_co] | None) -> None:
        self._process = process
        self._kind = kind

    def __aiter__(self) -> "Calls[B_co]":
        return self

    def __anext__(self) -> Coroutine[Any, Any, Call[B_co]]:
        return self._process.next_call(self._kind)  # the coroutine itself: one frame less to resume for each call
