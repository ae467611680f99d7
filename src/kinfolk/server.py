"""`Server`: a stateful service, one method for each type of message.

A process that waits for its messages, and hands each to the method whose annotation names its type. What a method
returns is the answer to a call. Its class says all that it handles; so what does not fit is found when the class is
made, before anybody sends anything.

    init  -- done -->  serving  -- Stop, an exit signal, an exception in a method -->  terminate  -->  dead
    init  -- an exception -->  dead
    any   -- kill -->  dead

One that has a state to hand over gives it to the server that takes its place on another node:

    serving    -- hand_over -->  waiting  -- the name has moved -->  terminate  -->  dead
                                 waiting  -- it has not -->  serving
    init  -- take_over -->  waiting  -- the other has ended -->  serving

Source: gen_server of Erlang/OTP.
"""

# pyright: reportUnknownVariableType=false
# Messages are of any type, and pyright calls `type(message)` unknown.

import inspect
import logging
import sys
import types
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Never,
    NoReturn,
    TypeGuard,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from msgspec import Struct

from kinfolk.core.relations import OUTSIDE
from kinfolk.errors import NameLost, Refused
from kinfolk.handover import HandOver
from kinfolk.logs import fields
from kinfolk.messages import OF_THE_NODE, Call, Exit, Request, Unknown, reply_type
from kinfolk.process import Process, is_call
from kinfolk.reasons import NORMAL, SHUTDOWN, Crash, Reason, Stop
from kinfolk.wire.codec import BadBody
from kinfolk.wire.message_types import is_message_type

if TYPE_CHECKING:
    from kinfolk.node import Node
    from kinfolk.shell.alarms import Alarm

_log = logging.getLogger("kinfolk")

_ANNOTATE = "a public async method handles messages: annotate its one parameter with a message type, or a union of them"


class Started(Request[None], frozen=True, tag="kinfolk:started"):
    """Asked of a server or a supervisor: it answers as soon as its start is complete."""


class Merge(Request[None], frozen=True, tag="kinfolk:merge"):
    """Asked of the winner of a name by the server that has lost it: take this state in."""

    name: str
    state: Any


MERGE_TIMEOUT = 5.0
"""Seconds that the winner of a name may take to take in the loser's state."""


class Handler(Struct, frozen=True):
    """A method that handles messages.

    Attributes:
        name: of the method.
        function: the method itself.
        kinds: the types of its messages.
        takes_call: whether it wants the `Call`, and answers it itself.
    """

    name: str
    function: Callable[..., Coroutine[Any, Any, object]]
    kinds: tuple[type, ...]
    takes_call: bool


class Server:
    """A stateful service: derive a class, and write one public ``async def`` for each message type.

    ::

        class Counter(Server):
            async def init(self, start: int = 0) -> None:
                self.total = start

            async def add(self, message: Add) -> int:    # Add is a Request[int]
                self.total += message.by
                return self.total

        pid = node.spawn(Counter, 10)
        total = await node.call(pid, Add(by=5))

    The one parameter of such a method is annotated with a message type (a Struct or dataclass, `Exit`, `Down`,
    `PeerUp`, `PeerDown`, `PeerStalled`, `PeerResumed`, `NameLost`, `NameTaken`) or a union of them. A message goes to
    the method for its type, or else for the nearest of its base classes. A subclass may override a method. Other async
    methods begin with an underscore.

    A call is answered with what the method returns. ``raise Refused(text)`` answers with an error, and so does a
    request that no method takes; any other exception ends the server: the caller sees CallFailed, its supervisor acts.
    To answer later, annotate ``call: Call[Add]``, keep the call, and answer it with `Call.reply` or `Call.fail` when it
    suits. What is only sent is handled alike, and the result dropped. One message is handled at a time.

    Exit signals end a server once it has handled what came before, unless it has a method for `Exit`. Those of the
    process that it was spawned by and linked to (its supervisor, say), or of the node itself, always do.
    ``raise Stop(reason)`` ends it as well. Before its end comes `terminate`.

    Attributes:
        me: its Process.

    Raises:
        TypeError: when a class is made: two methods take one type, or one returns something else than its request
            promises, or has no message type. Names that are not defined yet are looked up at the first spawn.
    """

    me: Process
    __handlers__: ClassVar[dict[str, Handler] | None] = {}
    __table__: ClassVar[dict[type, Handler]] = {}

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        try:
            _prepare(cls, sys._getframe(1).f_locals)  # where the class statement stands: types may be local there
        except NameError:
            cls.__handlers__ = None

    @property
    def node(self) -> "Node":
        """The node where it lives."""
        return self.me.node

    async def init(self, *args: Any, **keywords: Any) -> None:
        """Called first, with the arguments of `spawn`. Messages wait until it returns; an exception ends the server."""

    async def hand_over(self) -> Any:
        """Give the state that another server of this kind is to go on with; of a message's types, builtins say.

        Called in a singleton under a supervisor when its node drains: between two messages, and after it none is
        handled, but the name still leads here. What it returns is given to `take_over` of a server that another node
        has started; then the name moves there. Calls that wait here are sent there by themselves, and messages
        forwarded in their order, before all that come there first. Should all this fail, this server goes on as before.
        So this gives the state, and ends nothing: `terminate` does, before the other handles its first message. Calls
        that it has kept, to answer them later, it answers in one of the two. Alarms, links, monitors and memberships of
        groups do not go with it.

        Called as well when a confirmed name was lost to an older claim, after a partition: then `take_over` of the
        winner, which has a state of its own, gets this one, once; and this server ends with `NameLost`.
        """
        raise NotImplementedError

    async def take_over(self, state: Any) -> None:
        """Go on with the state of another server: one that hands over to this one, or that has lost its name to it.

        Called after `init`, and before the first message; or, with a loser's state, between two messages. The
        annotation of `state` is the type that it arrives as.
        """
        raise NotImplementedError

    async def terminate(self, reason: Reason) -> None:
        """Called last, unless the server is killed. It may still send, call, and answer the calls that it has kept.

        Args:
            reason: why it ends: that of `Stop` or of the exit signal, or a `Crash` with the exception of a method.
        """

    def send_after(self, seconds: float, message: object) -> "Alarm":
        """Send a message to itself later: see `Process.send_after`."""
        return self.me.send_after(seconds, message)

    def send_interval(self, seconds: float, message: object) -> "Alarm":
        """Send a message to itself again and again: see `Process.send_interval`."""
        return self.me.send_interval(seconds, message)


def is_server(body: object) -> TypeGuard[type[Server]]:
    """Whether it is a Server class."""
    return isinstance(body, type) and issubclass(body, Server)


def serve(kind: type[Server], me: Process, args: tuple[Any, ...]) -> Coroutine[Any, Any, None]:
    """The life of a server, for the process that it is to be.

    Raises:
        TypeError: its `init` does not take these arguments, or the class is wrong; the message says how.
    """
    if kind.__handlers__ is None:
        try:
            _prepare(kind, {})
        except NameError as error:
            raise TypeError(
                f"an annotation of {kind.__qualname__} cannot be read: {error}; import it or define it where it is"
                " there when the program runs"
            ) from None
    if kind.init is Server.init and args:
        raise TypeError(f"{kind.__qualname__} has no init, and so takes no arguments")
    inspect.signature(kind.init).bind(None, *args)
    for message_type in (Started, Merge, *kind.__table__):
        if message_type not in OF_THE_NODE:
            me.node.codec.learn(message_type)
    server = kind()
    server.me = me
    return _life(server, args)


async def _life(server: Server, args: tuple[Any, ...]) -> None:
    me = server.me
    me.trap_exit = True  # or nothing could be handled, and `terminate` not called, once the signal is here
    await server.init(*args)
    try:
        if me.inheritance is not None:
            await _take_over(server, me.inheritance.state)
            me.inheritance.loaded.set_result(None)
            await me.inheritance.begin
        while True:
            await _take(server, await me.receive())
    except Stop as stop:
        await server.terminate(stop.reason)
        raise
    except Exception as error:
        if me.exit_reason is None:
            await server.terminate(Crash.of(error))
        raise


async def _take(server: Server, message: Any) -> None:
    kind: type[Any] = type(message)
    match message:
        case _ if is_call(message):
            await _answer(server, message)
        case HandOver():
            await _hand_over(server, message)
        case Exit(pid, NameLost() as loss) if pid.local == OUTSIDE:
            if has_state(type(server)):
                await _offer(server, loss)
            raise Stop(loss)
        case Exit(pid, reason) if pid == server.me.parent or pid.local == OUTSIDE:
            raise Stop(reason)
        case Exit(_, reason) if _handler(server, Exit) is None:
            if reason != NORMAL:
                raise Stop(reason)
        case _:
            handler = _handler(server, kind)
            if handler is None:
                server.node.counters["unhandled_messages"] += 1
                text = _no_handler(server, message)
                _log.warning("%s dropped a message: %s", server.me.pid, text, extra=_about(server, text))
                return
            argument = Call(message, None, lambda _outcome, _value: None) if handler.takes_call else message
            try:
                await handler.function(server, argument)
            except Refused as refusal:
                text = "%s refuses a message that was sent: %s"
                _log.info(text, server.me.pid, refusal, extra=_about(server, refusal))


async def _answer(server: Server, call: Call[Any]) -> None:
    if call.expired:
        call.drop()
        server.node.counters["expired_calls"] += 1
        return
    if type(call.body) is Started:
        call.reply()
        return
    if type(call.body) is Merge:
        await _merge(server, call)
        return
    kind: type[Any] = type(call.body)
    handler = _handler(server, kind)
    if handler is None:
        call.fail(_no_handler(server, call.body))
        return
    try:
        if handler.takes_call:
            await handler.function(server, call)
            return
        answer = await handler.function(server, call.body)
    except Refused as refusal:
        if call.answered:
            raise
        call.fail(str(refusal))
    else:
        call.reply(answer)


# --- the state of a server that goes, and of one that comes ---


def has_state(kind: type[Server]) -> bool:
    """Whether servers of this class have a state to hand over."""
    return kind.hand_over is not Server.hand_over


def takes_state(kind: type[Server]) -> bool:
    """Whether servers of this class can go on with the state of another."""
    return kind.take_over is not Server.take_over


async def _hand_over(server: Server, order: HandOver) -> None:
    """Give the state away; then end, or go on if nobody has taken over."""
    try:
        state = await server.hand_over()
    except BaseException as error:
        order.fail(error)
        raise
    order.state.set_result(state)
    if await order.gone:
        raise Stop(SHUTDOWN)


async def _take_over(server: Server, state: Any) -> None:
    hints = get_type_hints(type(server).take_over)
    parameters = [name for name in inspect.signature(type(server).take_over).parameters if name != "self"]
    annotation = hints.get(parameters[0], Any)
    codec = server.node.codec
    state = codec.resolve(state) if annotation is Any else codec.convert(state, annotation)
    await server.take_over(state)


async def _offer(server: Server, loss: NameLost) -> None:
    """The name was lost to an older claim: give the winner our state, once. Whatever comes of it, this server ends."""
    try:
        await server.me.call(loss.name, Merge(name=loss.name, state=await server.hand_over()), timeout=MERGE_TIMEOUT)
    except Exception as error:  # noqa: BLE001 - whatever hand_over raises
        _log.warning(
            "%s, which has lost %r, could not give its state to the winner: %s",
            server.me.pid,
            loss.name,
            error,
            extra=_about(server, error, loss.name),
        )


def _about(server: Server, reason: object, name: str | None = None) -> dict[str, object]:
    """The fields of a log record about a server."""
    return fields(server.node.name, pid=server.me.pid, runs=server.me.function, registered=name, reason=reason)


async def _merge(server: Server, call: Call[Any]) -> None:
    if not takes_state(type(server)):
        call.fail(f"{type(server).__qualname__} has no take_over: it takes no other's state")
        return
    try:
        await _take_over(server, call.body.state)
    except (Refused, BadBody) as error:
        call.fail(str(error))
    else:
        call.reply()


def _handler(server: Server, kind: type[Any]) -> Handler | None:
    table = server.__table__
    for base in kind.__mro__:
        handler = table.get(base)
        if handler is not None:
            return handler
    return None


def _no_handler(server: Server, message: object) -> str:
    kind: type[Any] = type(message)
    what = message.name if isinstance(message, Unknown) else kind.__qualname__
    handled = ", ".join(kind.__qualname__ for kind in server.__table__) or "no message"
    return f"{type(server).__qualname__} has no method for {what}: it handles {handled}"


# --- what a class handles ---


def _prepare(cls: type[Server], local: Mapping[str, Any]) -> None:
    """Find the handlers of a class, and check them. NameError: an annotation names what is not defined (yet)."""
    handlers = {name: _read(cls, name, function, local) for name, function in _public_coroutines(cls)}
    table: dict[type, Handler] = {}
    for handler in handlers.values():
        for kind in handler.kinds:
            other = table.setdefault(kind, handler)
            if other is not handler:
                raise TypeError(
                    f"{cls.__qualname__}.{other.name} and {cls.__qualname__}.{handler.name} both handle"
                    f" {kind.__qualname__}: one method takes a type"
                )
    cls.__handlers__, cls.__table__ = handlers, table


def _public_coroutines(cls: type) -> Iterator[tuple[str, Any]]:
    """The methods that handle messages, in the order of their definition, those of base classes first."""
    names = [name for base in reversed(cls.__mro__) for name in vars(base)]
    for name in dict.fromkeys(names):
        if not name.startswith("_") and not hasattr(Server, name):
            function = inspect.getattr_static(cls, name)
            if inspect.iscoroutinefunction(function):
                yield name, function


def _read(cls: type[Server], name: str, function: Any, local: Mapping[str, Any]) -> Handler:
    for base in cls.__mro__[1:]:
        handlers: dict[str, Handler] = getattr(base, "__handlers__", None) or {}
        known = handlers.get(name)
        if known is not None and known.function is function:
            return known  # read where it was written: what its annotations name may be unknown here
    method = f"{cls.__qualname__}.{name}"
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if len(parameters) != 1 or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    ):
        raise TypeError(f"{method} has not one parameter: {_ANNOTATE}; or begin its name with an underscore")
    hints = get_type_hints(function, localns={**local, **vars(cls)})
    annotation = hints.get(parameters[0].name)
    takes_call = get_origin(annotation) is Call
    options = list(_options(get_args(annotation)[0] if takes_call else annotation))
    for option in options:
        if not _is_message(option):
            raise TypeError(f"{method} takes {_named(option)}, which is no message type: {_ANNOTATE}")
    if "return" in hints:
        _check_return(method, options, hints["return"], takes_call)
    return Handler(name, function, tuple(dict.fromkeys(get_origin(option) or option for option in options)), takes_call)


def _options(annotation: Any) -> Iterator[Any]:
    """The members of a union, or the annotation itself."""
    alias = getattr(annotation, "__value__", None)  # of a `type` statement
    if alias is not None:
        yield from _options(alias)
    elif get_origin(annotation) in (Union, types.UnionType):
        for option in get_args(annotation):
            yield from _options(option)
    else:
        yield annotation


def _is_message(option: Any) -> bool:
    kind = get_origin(option) or option
    return isinstance(kind, type) and (is_message_type(kind) or kind in OF_THE_NODE)


def _check_return(method: str, options: list[Any], returned: Any, takes_call: bool) -> None:
    if takes_call:
        if returned not in (type(None), None, Any, NoReturn, Never):
            raise TypeError(
                f"{method} takes the Call, and so answers it itself, but says it returns {_named(returned)}: let it"
                " return None"
            )
        return
    parts = list(_options(returned))
    promised: list[Any] = []
    for option in options:
        declared = reply_type(get_origin(option) or option)
        if declared is None or getattr(declared, "__parameters__", None):
            return  # a message without a typed reply, or one whose type only the message itself knows
        if not any(_fits(part, promise) for part in parts for promise in _options(declared)):
            raise TypeError(_wrong_return(method, returned, option, declared))
        promised += _options(declared)
    for part in parts:
        if not any(_fits(part, promise) for promise in promised):
            raise TypeError(_wrong_return(method, returned, options[0], reply_type(options[0])))


def _fits(part: Any, promise: Any) -> bool:
    if part in (promise, Any, NoReturn, Never) or promise in (Any, object) or isinstance(part, TypeVar):
        return True
    return isinstance(part, type) and isinstance(promise, type) and issubclass(part, promise)


def _wrong_return(method: str, returned: Any, option: Any, declared: Any) -> str:
    return (
        f"{method} returns {_named(returned)}, but the reply to {_named(option)} is {_named(declared)}: change the one"
        " or the other"
    )


def _named(annotation: Any) -> str:
    if annotation is None:
        return "nothing"
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
