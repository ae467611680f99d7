"""The codec: message bodies to bytes and back.

A body is one MessagePack value. Builtins travel as they are; what would lose its type is a MessagePack extension:

    1  a pid             [node, creation, local]
    2  a named message   [name, fields]
    3  a date or time    ISO 8601 text
    4  a UUID            16 bytes
    5  a Decimal         its text

The receiver makes an object of a named message only if it has learned the type; otherwise an `Unknown`. No byte of a
message ever imports, calls or names anything else. A body that cannot be read costs only that message.

Most bodies are builtins through and through. `is_plain` finds that out with a few set operations, so that they cost
little more than msgspec itself.
"""

# pyright: reportUnknownVariableType=false
# Bodies are of any type, and pyright calls `type(body)` unknown.

import functools
import itertools
import types
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta
from msgspec.msgpack import Ext

from kinfolk.errors import (
    CallFailed,
    KinfolkError,
    MessageTooLarge,
    NoProcess,
    NotSerializable,
    Refused,
)
from kinfolk.ids import Pid
from kinfolk.wire.frames import MAX_FRAME, NodeName, Number
from kinfolk.wire.message_types import (
    SCALARS,
    TOO_DEEP,
    Lower,
    Unsendable,
    check_keys,
    is_message_type,
    lower_items,
    lowering_of,
    message_types_in,
    wire_name,
)

MAX_DEPTH = 100
"""Levels of lists and dicts within each other that a body may have."""

PID, MESSAGE, TIME, UUID_BYTES, DECIMAL = 1, 2, 3, 4, 5
"""The codes of our MessagePack extensions."""

_Bytes = bytes | bytearray | memoryview | msgspec.Raw
_ENCODE_ERRORS = (TypeError, ValueError, OverflowError, AttributeError, RecursionError, msgspec.MsgspecError)


# --- the outcomes of a call, as Answered carries them; the body beside it is the value, or the text of the error ---

OK = "ok"
REFUSED = "refused"
FAILED = "failed"
NO_PROCESS = "noproc"
MOVED = "moved"
"""Its value is the pid of whoever has taken over; nothing was begun."""


def error_of(outcome: str, text: str) -> KinfolkError:
    """What the caller raises for an outcome other than OK. An outcome of a later version is a CallFailed."""
    if outcome == REFUSED:
        return Refused(text)
    if outcome == NO_PROCESS:
        return NoProcess(text)
    return CallFailed(text)


# --- messages that are not what they should be ---


class BadBody(KinfolkError, ValueError):
    """A body that arrived cannot be read, or is not what was asked for. Only this message is lost."""


class Unknown(msgspec.Struct, frozen=True):
    """A message of a type that this node does not know. Sent on, it arrives as what it was.

    It becomes an object as soon as the program asks for its type: ``me.receive(Type)``, ``Node(messages=[Type])``.

    Attributes:
        name: the type's name on the wire, ``module:qualname`` or its tag.
        raw: its fields in MessagePack.
    """

    name: str
    raw: bytes

    def __repr__(self) -> str:
        return f"<unknown message {self.name!r}, {len(self.raw)} bytes>"


class Traced(msgspec.Struct, frozen=True, array_like=True, tag="kinfolk:traced"):
    """A body that travels with the trace it belongs to. Nodes take it apart again: no process ever sees one.

    Attributes:
        carrier: the context of the trace, as header fields: ``traceparent`` and its like.
        body: the body.
    """

    carrier: dict[str, str]
    body: Any


_TRACED = wire_name(Traced)


class Codec:
    """Encodes and decodes the bodies of one node's messages.

    Args:
        messages: message types (Structs, dataclasses) that others may send to this node.
        max_message: bytes of the largest body that may be sent.

    Raises:
        TypeError: one of them cannot be a message type, or has no name that other nodes could use.
        ValueError: two of them have the same name.
    """

    def __init__(self, messages: Iterable[type] = (), *, max_message: int = MAX_FRAME) -> None:
        self.max_message = max_message
        self._known: dict[str, type] = {}
        self._readers: dict[str, Callable[[_Bytes], object]] = {}
        self._learned: set[object] = set()
        self._writers: dict[type, tuple[str, Lower | None]] = {}
        self._depth = 0  # messages within messages, while one is decoded
        self.read: Callable[[_Bytes], object] = msgspec.msgpack.Decoder(ext_hook=self._extension).decode
        """As `decode`, but an error may be of any class: for who then calls that."""
        self._lower_by_type: dict[type, Lower] = {
            **_LOWER_BY_TYPE,
            Traced: self._lower_traced,
            dict: self._lower_dict,
            **dict.fromkeys((list, tuple, set, frozenset), self._lower_items),
        }
        self.learn(Traced)
        for kind in messages:
            if not (isinstance(kind, type) and is_message_type(kind)):
                raise TypeError(f"{kind!r} is no message type: it must be a msgspec Struct or a dataclass")
            try:
                wire_name(kind)
            except Unsendable as error:
                raise TypeError(error.reason) from None
            self.learn(kind)

    # --- out ---

    def encode(self, body: object) -> bytes:
        """The bytes of a body.

        Tuples and sets become lists, subclasses of dict, list, tuple and set their base, bytearrays bytes. One that is
        too large with its trace goes without it.

        Raises:
            NotSerializable: naming the path to the value that cannot be sent, and what to do instead.
            MessageTooLarge: more than `max_message` bytes.
        """
        lowered = self.lowered(body)
        try:
            encoded = _encode(lowered)
        except _ENCODE_ERRORS:
            raise _not_serializable(_explain(lowered)) from None
        if len(encoded) > self.max_message:
            if type(body) is Traced:
                return self.encode(body.body)
            raise MessageTooLarge(
                f"the message is {len(encoded)} bytes on the wire, and max_message allows {self.max_message}:"
                " send it in parts, or raise Node(max_message=...)"
            )
        return encoded

    def lowered(self, body: object) -> object:
        """The body as msgspec can encode it, together with its frame, unless a value in it is beyond all bounds.

        Raises:
            NotSerializable: as `encode`.
        """
        if type(body) in SCALARS or is_plain(body):  # most are found without a call
            return body
        try:
            return self._lower(body, MAX_DEPTH)
        except Unsendable as blame:
            raise _not_serializable(blame) from None

    def copy(self, body: object) -> object:
        """The body as it would arrive at another node that knows the same types.

        Raises:
            NotSerializable, MessageTooLarge: as `encode`.
            BadBody: as `decode`.
        """
        return self.decode(self.encode(body))

    # --- in ---

    def decode(self, raw: _Bytes) -> object:
        """The body in these bytes. A named message of a type that is not known comes back as `Unknown`.

        Raises:
            BadBody: it cannot be read; the message says why.
        """
        try:
            return self.read(raw)
        except BadBody:
            raise
        except RecursionError:
            raise BadBody("nested too deeply") from None
        except Exception as error:
            # Of any class: a message type's own __post_init__ is in there as well.
            raise BadBody(str(error) or type(error).__name__) from error

    def learn(self, annotation: object) -> None:
        """From now on decode the message types that this type mentions: itself, in its arguments, in its fields.

        A type whose name would mean nothing on another node is passed over: it can never arrive.

        Raises:
            TypeError: it cannot be a message type; the message says why.
            ValueError: another type has the same name.
        """
        if annotation in self._learned:
            return
        for kind in message_types_in(annotation):
            if kind is Pid or kind is Unknown:
                continue
            try:
                name = wire_name(kind)
            except Unsendable:
                continue
            known = self._known.get(name, kind)
            if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
                raise ValueError(f"{known!r} and {kind!r} are both called {name!r} on the wire: change one's tag=")
            # The same class made anew, as a notebook does, takes the place of the old one.
            self._known[name] = kind
            self._readers.pop(name, None)
        self._learned.add(annotation)

    def resolve(self, value: Any) -> Any:
        """The value, with each `Unknown` in it (also in lists and dicts) decoded whose type has been learned since.

        Raises:
            BadBody: one of them cannot be read.
        """
        kind: type[Any] = type(value)
        if kind is Unknown:
            return self._message_of(value.name, value.raw)
        if kind is list:
            return [self.resolve(item) for item in value]
        if kind is dict:
            return {key: self.resolve(item) for key, item in value.items()}
        if kind is Traced:
            return Traced(value.carrier, self.resolve(value.body))
        return value

    def convert(self, value: object, annotation: Any) -> Any:
        """A decoded value as the type that was asked for: a list as the tuple or set that it was, and so on.

        Raises:
            BadBody: it does not fit.
            TypeError: the type cannot be read from messages.
        """
        if type(value) is annotation:
            return value
        self.learn(annotation)
        try:
            return msgspec.convert(self.resolve(value), annotation)
        except msgspec.ValidationError as error:
            raise BadBody(str(error)) from None

    # --- one value out ---

    def _lower(self, value: Any, depth: int) -> object:
        """The value with everything that is no builtin as an extension."""
        kind: type[Any] = type(value)
        if kind in SCALARS:
            return value
        if depth <= 0:
            raise Unsendable(TOO_DEEP)
        lower = self._lower_by_type.get(kind)
        if lower is not None:
            return lower(value, depth)
        if is_message_type(kind):
            return self._lower_message(value, depth)
        if isinstance(value, dict):
            return self._lower_dict(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._lower_items(value, depth)
        raise Unsendable(_why_not(value))

    def _lower_items(self, items: Any, depth: int) -> object:
        return lower_items(items, self._lower, depth)

    def _lower_dict(self, entries: Any, depth: int) -> object:
        check_keys(entries)
        lowered: dict[Any, object] = {}
        for key, value in entries.items():
            try:
                lowered[key] = self._lower(value, depth - 1)
            except Unsendable as blame:
                blame.path.append(f"[{key!r}]")
                raise
        return lowered

    def _lower_message(self, message: Any, depth: int) -> object:
        kind: type[Any] = type(message)
        name, lower = self._writers.get(kind) or self._writer(kind)
        fields = message if lower is None else lower(message, depth)
        try:
            return Ext(MESSAGE, _encode((name, fields)))
        except _ENCODE_ERRORS:
            raise _explain(fields, of_message=True) from None

    def _lower_traced(self, traced: Traced, depth: int) -> object:
        """With nothing said about the body that would not be said of the body alone: as deep, and by the same path."""
        body = traced.body if is_plain(traced.body, depth) else self._lower(traced.body, depth)
        try:
            return Ext(MESSAGE, _encode((_TRACED, (_TRACED, traced.carrier, body))))
        except _ENCODE_ERRORS:
            raise _explain(body) from None

    def _writer(self, kind: type) -> tuple[str, Lower | None]:
        name = wire_name(kind)
        try:
            writer = name, lowering_of(kind, self._lower)
        except TypeError as error:
            raise Unsendable(str(error)) from None
        self._writers[kind] = writer
        return writer

    # --- one value in ---

    def _extension(self, code: int, data: memoryview) -> object:
        if code == MESSAGE:
            if self._depth > MAX_DEPTH:  # one level more than is sent: a trace may be around it
                raise BadBody("nested too deeply")
            self._depth += 1
            try:
                return self._message_of(*_decode_message(data))
            finally:
                self._depth -= 1
        read = _READ.get(code)
        if read is None:
            raise BadBody(f"it holds an extension {code}, which this version does not know")
        return read(data)

    def _message_of(self, name: str, fields: msgspec.Raw | bytes) -> object:
        kind = self._known.get(name)
        if kind is None:
            return Unknown(name, bytes(fields))
        read = self._readers.get(name)
        if read is None:
            read = self._readers[name] = msgspec.msgpack.Decoder(kind, ext_hook=self._extension).decode
        try:
            return read(fields)
        except msgspec.ValidationError as error:
            raise BadBody(f"message {name!r}: {error}") from None


def is_plain(body: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether a body is made of builtins alone, so that msgspec can encode it as it is, together with its frame."""
    kind: type[Any] = type(body)
    if kind is dict:
        if not _all_scalars(map(type, body)):
            return False
        items = body.values()
    elif kind is list or kind is tuple:
        items = body
    else:
        return kind in SCALARS
    if depth <= 0:
        return False
    if _all_scalars(map(type, items)) or (len(items) > _MANY and depth > 1 and _are_flat_rows(items)):
        return True
    for item in items:  # noqa: SIM110 - all() with a generator takes longer
        if type(item) not in SCALARS and not is_plain(item, depth - 1):
            return False
    return True


_all_scalars = SCALARS.issuperset
_MANY = 8
"""Items from which on it pays to try them all at once."""


def _are_flat_rows(items: Iterable[Any]) -> bool:
    """Whether all items are dicts of scalars, or all are lists of scalars, found without a look at each row."""
    kinds = set(map(type, items))
    if kinds == {dict}:
        return _all_scalars(map(type, _chained(items))) and _all_scalars(map(type, _chained(map(_values, items))))
    return kinds <= {list, tuple} and _all_scalars(map(type, _chained(items)))


_chained: Callable[[Iterable[Any]], Iterable[Any]] = itertools.chain.from_iterable
_values: Callable[[Any], Iterable[Any]] = dict[Any, Any].values


# --- the extensions ---

_encode = msgspec.msgpack.Encoder().encode
_decode_pid = msgspec.msgpack.Decoder(tuple[NodeName, Number, Number]).decode
_decode_message = msgspec.msgpack.Decoder(
    tuple[Annotated[str, Meta(min_length=1, max_length=1024)], msgspec.Raw]
).decode


def _lower_pid(pid: Pid, depth: int) -> object:  # noqa: ARG001
    return Ext(PID, _encode(pid))


def _lower_unknown(message: Unknown, depth: int) -> object:  # noqa: ARG001
    return Ext(MESSAGE, _encode((message.name, msgspec.Raw(message.raw))))


def _lower_time(value: datetime | date | time, depth: int) -> object:  # noqa: ARG001
    return Ext(TIME, value.isoformat().encode())


def _lower_timedelta(value: timedelta, depth: int) -> object:  # noqa: ARG001
    return Ext(TIME, msgspec.to_builtins(value).encode())


_LOWER_BY_TYPE: Mapping[type, Lower] = types.MappingProxyType(
    {
        Pid: _lower_pid,
        Unknown: _lower_unknown,
        datetime: _lower_time,
        date: _lower_time,
        time: _lower_time,
        timedelta: _lower_timedelta,
        UUID: lambda value, _: Ext(UUID_BYTES, value.bytes),
        Decimal: lambda value, _: Ext(DECIMAL, str(value).encode()),
        bytearray: lambda value, _: value,
        memoryview: lambda value, _: value,
    }
)
"""Those that need no codec."""


def _read_pid(data: memoryview) -> Pid:
    return Pid(*_decode_pid(data))


def _read_time(data: memoryview) -> object:
    text = str(data, "ascii")
    if text.startswith(("P", "-P")):
        return msgspec.convert(text, timedelta)
    if "T" in text:
        return datetime.fromisoformat(text)
    return time.fromisoformat(text) if ":" in text else date.fromisoformat(text)


_READ: dict[int, Callable[[memoryview], object]] = {
    PID: _read_pid,
    TIME: _read_time,
    UUID_BYTES: lambda data: UUID(bytes=bytes(data)),
    DECIMAL: lambda data: Decimal(str(data, "ascii")),
}


# --- why something cannot be sent ---


def _not_serializable(blame: Unsendable) -> NotSerializable:
    return NotSerializable(f"body{''.join(reversed(blame.path))}: {blame.reason}")


def _explain(value: Any, *, of_message: bool = False, depth: int = MAX_DEPTH) -> Unsendable:
    """Which part of a value msgspec will not encode, and why. It tries the parts one by one: this is no fast path."""
    if depth <= 0:
        return Unsendable(TOO_DEEP)
    for step, part in _parts(value, of_message):
        try:
            _encode(part)
        except _ENCODE_ERRORS:
            blame = _explain(part, depth=depth - 1)
            blame.path.append(step)
            return blame
    return Unsendable(_why_not(value))


def _parts(value: Any, of_message: bool) -> Iterable[tuple[str, Any]]:
    kind: type[Any] = type(value)
    if is_message_type(kind):
        names = getattr(value, "__struct_fields__", None) or value.__dataclass_fields__
        return [(f".{name}", getattr(value, name, None)) for name in names]
    if issubclass(kind, dict):
        keys = [(f"[{key!r}] (the key)", key) for key in value]
        return keys + [(f".{key}" if of_message else f"[{key!r}]", item) for key, item in value.items()]
    if issubclass(kind, list | tuple | set | frozenset):
        return [(f"[{index}]", item) for index, item in enumerate(value)]
    return []


_CODE = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    functools.partial,
)
_RUNNING = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)
_BASES = (bool, int, float, str, bytes, bytearray, datetime, date, time, timedelta, UUID, Decimal, Pid)


def _why_not(value: object) -> str:
    """Why a value cannot be sent, and what to do instead."""
    kind: type[Any] = type(value)
    name = kind.__name__
    if kind is int:
        return "an int beyond 64 bits cannot be sent: send it as a str"
    if kind is str:
        return "a str with a lone surrogate cannot be sent: it is no valid Unicode"
    if isinstance(value, Enum):
        return f"{value!s} would lose its type: send its .value, or declare a field of a message type as {name}"
    if isinstance(value, type):
        return f"a class ({value.__name__}) cannot be sent: send a name that the receiver looks up"
    if isinstance(value, _CODE):
        return "a function cannot be sent: send a name that the receiver looks up"
    if isinstance(value, _RUNNING):
        return f"a {name} cannot be sent: send its result"
    if isinstance(value, BaseException):
        return f"an exception ({name}) cannot be sent: send its text"
    if isinstance(getattr(value, "pid", None), Pid):
        return f"a {name} cannot be sent: send its .pid"
    for base in _BASES:
        if isinstance(value, base):
            return f"a {name} would arrive as a plain {base.__name__}: send {base.__name__}(...)"
    return f"a {name} cannot be sent: make it a dataclass or a msgspec Struct, or send builtins"
