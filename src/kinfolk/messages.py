"""What processes say to each other: typed requests, calls, and messages of a type that is not known here.

And what their node tells them: `Exit`, `Down`, `PeerUp`, `PeerDown`.

Any value can be a message. A `Request[R]` is one whose reply has a type, so that
``await node.call("counter", Add(by=5))`` is an ``int`` to type checkers, and arrives as one.
"""

import asyncio
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    NewType,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from kinfolk.core.relations import Name
from kinfolk.errors import NameLost, NameTaken
from kinfolk.ids import Pid
from kinfolk.reasons import Reason
from kinfolk.wire import codec
from kinfolk.wire.codec import Unknown

if TYPE_CHECKING:
    # Only type checkers know defaults of type variables in Python 3.11; with one, a bare `Call` is a Call[Any].
    from typing_extensions import TypeVar as TypeVarWithDefault

    from kinfolk.tracing import Handling

    B = TypeVarWithDefault("B", default=Any, covariant=True)
else:
    B = TypeVar("B", covariant=True)

__all__ = ["Call", "Down", "Exit", "PeerDown", "PeerUp", "Ref", "Replies", "Request", "Unknown", "reply_type"]

R = TypeVar("R", covariant=True)

Ref = NewType("Ref", int)
"""A monitor of this node: `Process.monitor` returns it, and the `Down` that it ends with carries it."""


class Exit(msgspec.Struct, frozen=True):
    """An exit signal that has reached a process that traps exits: a linked process has ended, or somebody wants it to.

    Attributes:
        pid: the process that has ended, or that has called `exit`. Its local id is 0 if that was no process.
        reason: why, as `Reason` describes it.
    """

    pid: Pid
    reason: Reason


class Down(msgspec.Struct, frozen=True):
    """A monitor has come to its end: the process it watched is dead, or its node is lost.

    Attributes:
        ref: what `monitor` returned.
        pid: the process. None if the monitor was set on a name and nobody is known to have had it.
        reason: why, as `Reason` describes it; "noproc" if it was dead before, "noconnection" if its node was lost.
        name: what the monitor was set on, unless that was a pid: the name, or (name, node).
    """

    ref: Ref
    pid: Pid | None
    reason: Reason
    name: Name | None = None


class PeerUp(msgspec.Struct, frozen=True):
    """A node that this process watches is connected, or with etcd can be: before any message from there."""

    node: str


class PeerDown(msgspec.Struct, frozen=True):
    """A node that this process watches is not connected any more, or never was; no message comes from it after this.

    Its names are gone by now, and links and monitors of its processes have ended with "noconnection".
    """

    node: str
    reason: str


class PeerStalled(msgspec.Struct, frozen=True):
    """The event loop of a connected node stands still, for so many seconds until now: it lives, but answers nothing."""

    node: str
    seconds: float


class PeerResumed(msgspec.Struct, frozen=True):
    """The event loop of that node turns again. It is known to have stood still for so many seconds."""

    node: str
    seconds: float


OF_THE_NODE = (Exit, Down, PeerUp, PeerDown, PeerStalled, PeerResumed, NameLost, NameTaken)
"""What the node itself tells a process: it comes over no wire."""


def _reply_type_in_bases(cls: type) -> Any:
    for base in cls.__dict__.get("__orig_bases__", cls.__bases__):
        origin, arguments = get_origin(base) or base, get_args(base)
        if origin is Replies:
            return arguments[0] if arguments else None
        declared = getattr(origin, "__reply_type__", None)
        if declared is not None:
            return _substitute(declared, dict(zip(getattr(origin, "__parameters__", ()), arguments, strict=False)))
    return None


def _substitute(declared: Any, arguments: dict[Any, Any]) -> Any:
    """The declared type with the type variables of its class replaced by what a subclass gives for them."""
    if isinstance(declared, TypeVar):
        return arguments.get(declared, declared)
    parameters: tuple[Any, ...] = getattr(declared, "__parameters__", ())
    if not parameters or isinstance(declared, type):
        return declared
    return declared[tuple(arguments.get(parameter, Any) for parameter in parameters)]


class Replies(Generic[R]):
    """Base of all messages whose reply has a type: `Request`, or your own dataclass ``class Add(Replies[int])``."""

    __slots__ = ()
    __reply_type__: ClassVar[Any] = None

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        cls.__reply_type__ = _reply_type_in_bases(cls)


# This tells type checkers what msgspec does: annotations are fields, and a request does not change. On a metaclass
# derived from msgspec's, mypy would miss that a request is frozen.
@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Request(msgspec.Struct, Replies[R], frozen=True):
    """Base of typed requests: a frozen msgspec Struct whose parameter is the type of the reply.

    ::

        class Add(Request[int]):
            by: int

    Class arguments are msgspec's: ``tag="add"`` gives the message a name of its own on the wire.
    """


def reply_type(request: type) -> Any:
    """The type of the reply to a request, as its class says it; ``None`` if it says nothing.

    ``Request[None]`` says something: its reply type is ``type(None)``.

    Raises:
        NameError: the type was given as a string and names something that its module does not have.
    """
    declared: Any = getattr(request, "__reply_type__", None)
    if declared is None or isinstance(declared, TypeVar):
        return None
    # Strings in it (a class that is defined later, say) have a meaning only now.
    names = vars(sys.modules[request.__module__]) if request.__module__ in sys.modules else {}
    return get_type_hints(SimpleNamespace(__annotations__={"reply": declared}), names)["reply"]


class Call(Generic[B]):
    """A request that waits for its answer. Answer it once, with `reply` or `fail`; later and elsewhere is fine.

    If nobody answers before the caller's deadline, the caller gives up, and an answer after that is dropped.
    If the process ends first, the caller is told at once.

    Attributes:
        body: the request.
        sender: the calling process; None if the call came from outside of one.
    """

    __slots__ = ("_among", "_answer", "_deadline", "body", "sender", "trace")
    __match_args__ = ("body",)

    def __init__(self, body: B, sender: Pid | None, answer: Callable[[str, object], None]) -> None:
        self.body = body
        self.sender = sender
        self._answer: Callable[[str, object], None] | None = answer
        self._among: dict[Call[Any], None] | None = None
        self._deadline: float | None = None
        self.trace: Handling | None = None
        """For the node: the trace that it came with, if the node has a tracer."""

    def __repr__(self) -> str:
        return f"<call {self.body!r}{'' if self._answer else ', answered'}>"

    @property
    def answered(self) -> bool:
        """Whether it has been answered."""
        return self._answer is None

    @property
    def deadline(self) -> float | None:
        """When its caller gives up, on the clock of the event loop; None for never, and before it is in a mailbox."""
        return self._deadline

    @property
    def remaining(self) -> float | None:
        """Seconds until its caller gives up, not less than 0; None for never."""
        return None if self._deadline is None else max(0.0, self._deadline - asyncio.get_running_loop().time())

    @property
    def expired(self) -> bool:
        """Whether the caller has given up by now: there is no need to work on it any more."""
        return self._deadline is not None and asyncio.get_running_loop().time() >= self._deadline

    def reply(self, value: object = None) -> None:
        """Answer with a value.

        Raises:
            RuntimeError: it has been answered already.
            NotSerializable, MessageTooLarge: the value cannot go over the wire; the caller is told so.
        """
        self._finish(codec.OK, value)

    def fail(self, reason: str) -> None:
        """Answer with an error: the caller raises `Refused` with this text.

        Raises:
            RuntimeError: it has been answered already.
        """
        self._finish(codec.REFUSED, str(reason))

    def _finish(self, outcome: str, value: object) -> None:
        if self._answer is None:
            raise RuntimeError(f"the call {self.body!r} has been answered already: a call is answered once")
        self.abandon(outcome, value)

    # --- for the node ---

    def opened(self, deadline: float | None, among: "dict[Call[Any], None]") -> None:
        """The call is in a mailbox: when its caller gives up (loop time), and where it is kept until it is answered."""
        self._deadline = deadline
        self._among = among

    def expired_at(self, now: float) -> bool:
        """Whether its caller has given up at that loop time."""
        return self._deadline is not None and now >= self._deadline

    def drop(self) -> None:
        """Nobody waits for an answer any more: it counts as answered."""
        self._answer = None
        if self._among is not None:
            self._among.pop(self, None)
        if self.trace is not None:
            self.trace.end("its caller has given up")

    def abandon(self, outcome: str, value: object) -> None:
        """Answer it unless it has been answered: its process is dead, or cannot read it."""
        answer, self._answer = self._answer, None
        if answer is None:
            return
        if self._among is not None:
            self._among.pop(self, None)
        try:
            answer(outcome, value)
        except Exception as error:
            if self.trace is not None:
                self.trace.end(f"the answer could not be sent: {error}")
            raise
        if self.trace is not None:
            self.trace.end(None if outcome == codec.OK else str(value))
