"""Traces that go through a node: what a tracer is, and the mailbox of processes that take part in them.

A node has no tracer unless somebody gives it one (`kinfolk.otel` does). With one, what is sent inside of a trace
carries the trace's context, and a process that takes such a message goes on in that context until it takes the next. A
node never begins a trace by itself.

    a message:  taken  -- the process asks for the next, or ends -->  done  -- takes the next -->  left
    a call:     taken  -- answered, or given up -->  done;  taken  -- the process takes the next message -->  left

Done ends the span, left the context: what a process does while nobody has sent it anything new still belongs to the
last trace.
"""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from kinfolk.mailbox import Mailbox, Match
from kinfolk.process import Process, is_call
from kinfolk.reasons import NORMAL, SHUTDOWN, Reason
from kinfolk.wire.codec import Traced

if TYPE_CHECKING:
    from kinfolk.shell.dataplane import Target


class Outgoing(Protocol):
    """The span of something that is sent. It ends with the block, and with its error.

    Attributes:
        carrier: the context that is to travel with it.
    """

    carrier: dict[str, str]

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Handling(Protocol):
    """What a process does with one message that has come with its trace, or before its first message."""

    def begin(self, process: Process, body: object) -> None:
        """The process, in whose task this runs, has taken the message: begin a span, and make it current."""
        ...

    def end(self, error: str | None) -> None:
        """It is done, or has failed: end the span. Nothing happens if it has not begun, or has ended."""
        ...

    def leave(self) -> None:
        """The process goes on with something else: what was current before is current again."""
        ...


class Tracer(Protocol):
    """Follows traces through a node."""

    def outgoing(self, verb: Literal["send", "call", "broadcast"], target: "Target", body: object) -> Outgoing | None:
        """Something is about to be sent; None outside of a trace, and for a body that carries one already."""
        ...

    def incoming(self, verb: Literal["send", "call"], carrier: dict[str, str]) -> Handling:
        """A message has come with its trace."""
        ...

    def started(self, process: Process) -> Handling | None:
        """A process takes its first step, in the context of whoever has spawned it. What it begins has begun."""
        ...


class TracedMailbox(Mailbox):
    """A mailbox that keeps messages with their traces. The process, and its predicates, see the bodies alone."""

    __slots__ = ("_current", "_process", "_tracer", "_undone")

    def __init__(self, limit: int | None, tracer: Tracer) -> None:
        super().__init__(limit)
        self.ready = ()  # nothing is taken past `receive`
        self._tracer = tracer
        self._process: Process | None = None
        self._current: Handling | None = None
        """Whose context the process is in."""
        self._undone: Handling | None = None
        """That, if it ends when the process asks for a message: a call ends with its answer."""

    def begin(self, process: Process) -> None:
        """Its process takes its first step; called in its task."""
        self._process = process
        self._current = self._undone = self._tracer.started(process)

    def kept(self, message: object) -> object:
        """The message as it came."""
        return message

    async def receive(self, match: Match | None = None) -> Any:
        """As `Mailbox.receive`. The process is then in the context of the message."""
        self._done(None)
        message = await super().receive(None if match is None else _of_body(match))
        if self._current is not None:
            self._current.leave()
            self._current = None
        if type(message) is Traced:
            self._current = self._undone = self._tracer.incoming("send", message.carrier)
            message = message.body
        elif is_call(message) and not message.expired:
            self._current = message.trace
        if self._current is not None and self._process is not None:
            self._current.begin(self._process, message.body if is_call(message) else message)
        return message

    def discard(self, match: Match) -> None:
        """As `Mailbox.discard`."""
        super().discard(_of_body(match))

    def end(self, reason: Reason) -> list[Any]:
        """As `Mailbox.end`."""
        self._done(None if reason in (NORMAL, SHUTDOWN) else str(reason))
        return super().end(reason)

    def _done(self, error: str | None) -> None:
        if self._undone is not None:
            self._undone.end(error)
            self._undone = None


def _of_body(match: Match) -> Match:
    return lambda message: match(message.body if type(message) is Traced else message)
