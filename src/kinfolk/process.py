"""`Process`: what the body of a process gets as its first argument, usually called ``me``.

A process is one asyncio task with a pid and a mailbox. Everything it says to others goes through its node, with itself
as the sender.
"""

import asyncio
import functools
import logging
from asyncio import current_task
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeGuard, TypeVar, TypeVarTuple, cast, get_origin, overload

from kinfolk.errors import NoProcess
from kinfolk.ids import Pid
from kinfolk.mailbox import Mailbox, Match
from kinfolk.messages import Call, Replies, Unknown
from kinfolk.seconds import check_seconds
from kinfolk.wire import codec
from kinfolk.wire.codec import BadBody

if TYPE_CHECKING:
    from kinfolk.node import Node
    from kinfolk.registry import Names
    from kinfolk.shell.dataplane import Target

_log = logging.getLogger("kinfolk")

T = TypeVar("T")
R = TypeVar("R")
B_co = TypeVar("B_co", covariant=True)
Ts = TypeVarTuple("Ts")

NORMAL = "normal"
SHUTDOWN = "shutdown"
KILL = "kill"

PRUNE_FROM = 64

ExitReason = str | BaseException
"""Why a process has ended: NORMAL (its body returned), SHUTDOWN (its node closed), KILL (it was killed, or its task was
cancelled), another word that was given to `kill`, `NameLost`, or the exception that it died of."""

Body = Callable[..., Coroutine[Any, Any, object]]
"""What a process runs: a coroutine function whose first argument is its `Process`."""

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


class Process:
    """A process of this node, as it sees itself. Made by `spawn`.

    Only its own task may receive; what it sends may also come from tasks that it has started. Once it is dead, every
    method raises NoProcess: code that would not be cancelled can do no more harm.

    Attributes:
        pid: its address, for others.
        node: where it lives.
        mailbox: what has been sent to it.
        body: the function that it runs.
    """

    __slots__ = (
        "__weakref__",
        "_filters",
        "_loop",
        "body",
        "exit_reason",
        "mailbox",
        "node",
        "open_calls",
        "pid",
        "prune_at",
        "task",
    )

    def __init__(self, pid: Pid, node: "Node", body: Body, mailbox: Mailbox) -> None:
        self.pid = pid
        self.node = node
        self.body = body
        self.mailbox = mailbox
        self.exit_reason: ExitReason | None = None
        """None as long as it lives."""
        self.open_calls: set[Call[Any]] | None = None
        """Calls that it has not answered; None as long as there never was one."""
        self.prune_at = PRUNE_FROM
        """At so many, those whose callers have given up are thrown out."""
        self.task: asyncio.Task[Any] | None = None
        """The task that it is; None before the node has started."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._filters: dict[tuple[type[Any], bool], Match] | None = None

    def __repr__(self) -> str:
        state = "" if self.exit_reason is None else ", dead"
        return f"<process {self.pid} ({self.function}{state})>"

    @property
    def function(self) -> str:
        """The name of the function that it runs."""
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
            The body of a `send`, or a `Call`, or what the node has to tell: `NameLost`, `NameTaken`.

        Raises:
            TimeoutError: nothing came in time; no message was taken.
            NoProcess: this process is dead.
            RuntimeError: not in the process's own task.
            TypeError: `match` is neither a type nor a predicate, or `timeout` no number.
            ValueError: `timeout` is negative or NaN.

        Cancelling it loses no message.
        """
        if current_task(self._loop) is not self.task or self.exit_reason is not None:
            self._refuse_to_receive()
        if timeout is not None:
            check_seconds(timeout)
        if match is None:
            messages = self.mailbox.messages
            if messages:
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
        """
        return Calls(self, kind)

    async def next_call(self, kind: type[T] | None) -> Call[T]:
        """Wait for the next call that `calls` is to yield."""
        if current_task(self._loop) is not self.task or self.exit_reason is not None:
            self._refuse_to_receive()
        if kind is not None:
            call: Call[T] = await self.mailbox.receive(self._filter(kind, calls=True))
            return call
        while True:
            message = await self.mailbox.receive()
            if type(message) is Call:
                return cast("Call[T]", message)
            self.node.counters["unhandled_messages"] += 1
            _log.warning("%s (%s) takes calls alone: dropped a %s", self.pid, self.function, type(message).__name__)

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
                _log.warning("dropped a message for %s: %s", self.pid, error)
                if _is_call(message):
                    message.abandon(codec.FAILED, f"the request could not be read: {error}")

    def _resolved(self, message: Any) -> object:
        if isinstance(message, Unknown):
            return self.node.codec.resolve(message)
        if _is_call(message) and isinstance(message.body, Unknown):
            message.body = self.node.codec.resolve(message.body)
        return message

    # --- sending ---

    def send(self, target: "Target", message: object) -> None:
        """Send a message, as `Node.send` does, with this process as the sender.

        Raises:
            NoProcess: this process is dead.
            Exception: what `Node.send` raises.
        """
        self._check_alive()
        self.node.check_open()
        self.node.dataplane.send(target, message, self.pid.local)

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
        self._check_alive()
        self.node.check_open()
        return await self.node.dataplane.call(target, request, timeout, self.pid.local)

    def spawn(
        self,
        body: Callable[["Process", *Ts], Coroutine[Any, Any, object]],
        /,
        *args: *Ts,
        max_mailbox: int | None = None,
    ) -> Pid:
        """Start a process on this node, as `Node.spawn` does. It lives on when this one ends.

        Raises:
            NoProcess: this process is dead.
            Exception: what `Node.spawn` raises.
        """
        self._check_alive()
        return self.node.spawn(body, *args, max_mailbox=max_mailbox)

    @property
    def names(self) -> "Names":
        """The names of the cluster: ``await me.names.register("db", me.pid)``."""
        self._check_alive()
        return self.node.names

    # --- life and death, for the node ---

    def begin(self, task: "asyncio.Task[Any]") -> None:
        """This task is the process from now on; called in it."""
        self.task = task
        self._loop = task.get_loop()  # Without it, current_task() takes three times as long on Python 3.11.
        _current.set(self)

    def end(self, reason: ExitReason) -> None:
        """The process is dead from now on."""
        self.exit_reason = reason
        self.mailbox.take_all()

    def _check_alive(self) -> None:
        if self.exit_reason is not None:
            reason = self.exit_reason if isinstance(self.exit_reason, str) else repr(self.exit_reason)
            raise NoProcess(f"this process, {self.pid} ({self.function}), is dead ({reason}): its code must end now")

    def _refuse_to_receive(self) -> NoReturn:
        self._check_alive()
        raise RuntimeError(
            f"only the task of {self.pid} ({self.function}) itself may receive from its mailbox: receive there and"
            " hand the messages on, or spawn a process for this task"
        )


def _is_call(message: object) -> TypeGuard[Call[Any]]:
    return isinstance(message, Call)


def _is_call_of(kind: type[Any]) -> Match:
    return lambda message: _is_call(message) and isinstance(message.body, kind)


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

    async def __anext__(self) -> Call[B_co]:
        return await self._process.next_call(self._kind)
