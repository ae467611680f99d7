"""What is fuzzed: functions that take any bytes, and raise if the code under test does what it never may.

A target is made once, and called for every input. Inputs that hold several frames are cut at `SEPARATOR`, so that a
fuzzer can shorten, move and repeat them without having to keep lengths right.
"""

import dataclasses
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from decimal import Decimal
from math import inf
from tempfile import TemporaryDirectory
from unittest.mock import patch
from uuid import UUID

import msgspec

from kinfolk.errors import NotSerializable, RemoteProtocolError
from kinfolk.ids import Pid
from kinfolk.wire import frames
from kinfolk.wire.codec import BadBody, Codec
from kinfolk.wire.frames import FRAMES, HANDSHAKE, MAX_FRAME_BEFORE_AUTHENTICATION, encode_frame
from kinfolk.wire.handshake import Proved
from kinfolk.wire.reader import CAPACITY, read_operations
from kinfolk.wire.session import OBSERVER_TAGS, Event, Operations, Session, State
from tests.hostile.stage import Stage, Visit
from tests.hostile.table import REACH, At, entry_of, example
from tests.wire.pair import ADA, Pair, copied, dialler, identity
from tests.wire.vectors import VECTORS

Target = Callable[[bytes], None]
Made = Generator[Target]

SEPARATOR = b"\xc1\xc1"
"""Between the frames of an input: a byte that MessagePack never uses, twice."""
OUTBOX = 16 * 1024
"""Bytes that one end may have to say, at most, to somebody who has not proved anything."""


# --- bodies ---


class Point(msgspec.Struct, frozen=True, tag="point"):
    x: int
    y: float = 0.0


class Shape(msgspec.Struct, frozen=True, tag="shape"):
    corners: list[Point]
    owner: Pid | None = None
    anything: object = None


class Row(msgspec.Struct, frozen=True, tag="row", array_like=True):
    key: UUID
    value: Decimal
    lasts: timedelta = timedelta()


@dataclasses.dataclass
class Note:
    text: str
    tags: set[str]
    within: "Note | None" = None


@contextmanager
def codec() -> Made:
    """A body is read or it is a `BadBody`; what was read can be sent, and arrives as what it was."""
    made = Codec([Point, Shape, Row, Note])

    def run(data: bytes) -> None:
        try:
            value = made.decode(data)
        except BadBody:
            return
        try:
            encoded = made.encode(value)
        except NotSerializable:  # nested more deeply than may be sent, or with keys that may not
            return
        again = made.encode(made.decode(encoded))
        assert again == encoded, f"{value!r} was {encoded.hex()}, and is {again.hex()} after a way over the wire"

    yield run


# --- frames ---


@contextmanager
def payload() -> Made:
    """The payload of a frame, whose tag is the first byte: read, or a breach; what was read is what is sent on."""

    def run(data: bytes) -> None:
        if not data:
            return
        kind, rest = FRAMES[data[0] % len(FRAMES)], data[1:]
        try:
            operations = read_operations(kind.TAG, rest)
        except RemoteProtocolError:
            return
        assert operations is not None and all(type(operation) is kind for operation in operations)
        frame = encode_frame(operations)
        again = read_operations(frame[4], frame[5:])
        assert again is not None and encode_frame(again) == frame

    yield run


# --- the handshake ---


@contextmanager
def handshake() -> Made:
    """Two honest ends and somebody between them, who delivers, alters, adds and repeats: see `_Middle`."""

    def run(data: bytes) -> None:
        _Middle(data).run()

    yield run


class _Middle:
    """Whoever is in the middle, as the input says. No end is taken in unless NAME and CHALLENGE arrived as they were.

    Each step is one byte: its lowest bit chooses the end that is to hear something, the next two what: what the other
    end says now (0), the same with one byte altered (1), so many bytes of the input (2), what was said before (3).
    """

    def __init__(self, data: bytes) -> None:
        self._script = iter(data)
        pair = Pair()
        self._ends = (pair.dialler, pair.listener)
        self._said = (bytearray(), bytearray())
        self._heard = (bytearray(), bytearray())

    def run(self) -> None:
        for step in self._script:
            to = step & 1
            self._collect()
            match step >> 1 & 3:
                case 0:
                    data = self._unheard(to)
                case 1:
                    data = self._altered(self._unheard(to))
                case 2:
                    data = bytes(byte for byte, _ in zip(self._script, range(step >> 3), strict=False))
                case _:
                    data = bytes(self._said[1 - to])
            self._hear(to, data)

    def _next(self) -> int:
        return next(self._script, 0)

    def _altered(self, data: bytes) -> bytes:
        altered = bytearray(data)
        if altered:
            altered[self._next() % len(data)] ^= self._next()
        return bytes(altered)

    def _collect(self) -> None:
        for end, said in zip(self._ends, self._said, strict=True):
            said += end.outbox.take()
            assert len(said) <= OUTBOX, "a stranger makes an end talk"

    def _unheard(self, to: int) -> bytes:
        """What the other end has said beyond as many bytes as this one has heard."""
        return bytes(self._said[1 - to][len(self._heard[to]) :])

    def _hear(self, to: int, data: bytes) -> None:
        end = self._ends[to]
        self._heard[to].extend(data)
        try:
            for event in end.feed(data):
                self._taken_in(event)
                if isinstance(event, Proved):
                    end.admit()
        except RemoteProtocolError:
            assert end.state is State.CLOSED
        if end.state is State.HANDSHAKE:
            room = len(end.get_buffer())
            assert room <= max(CAPACITY, 4 + MAX_FRAME_BEFORE_AUTHENTICATION), "a stranger makes an end take memory"

    def _taken_in(self, event: Event) -> None:
        """Somebody has proved itself: then nothing of what the proof is about was altered."""
        if isinstance(event, Operations) or type(event).__name__ == "Refused":
            return
        self._collect()
        for to in (0, 1):
            first = _first_frame(self._said[1 - to])
            assert self._heard[to].startswith(first), f"{event} in spite of {self._heard[to].hex()}"


def _first_frame(said: bytes | bytearray) -> bytes:
    return bytes(said[: 4 + int.from_bytes(said[:4], "little")])


# --- open sessions ---


def _framed(data: bytes) -> bytes:
    """Each part between separators as a frame: its first byte the tag."""
    return b"".join(len(part).to_bytes(4, "little") + part for part in data.split(SEPARATOR))


@contextmanager
def session() -> Made:
    """An open session: a breach closes it, and how the bytes were cut makes no difference.

    The first byte says whose session it is (a listener's, a dialler's, an observer's) and how long the pieces are.
    """

    def run(data: bytes) -> None:
        if not data:
            return
        whose, size, stream = data[0] % 3, 1 + (data[0] >> 2), _framed(data[1:])
        whole = list(_outcomes(_open(whose), [stream]))
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert list(_outcomes(_open(whose), pieces)) == whole, "it matters how the bytes were cut"

    yield run


def _open(whose: int) -> Session:
    if whose == 2:
        pair = Pair(dialler(identity("cli"), purpose="observer")).open(frames.Ping(1))
    else:
        pair = Pair().open(frames.Peers([ADA]))
    return pair.dialler if whose == 1 else pair.listener


def _outcomes(end: Session, pieces: list[bytes]) -> Iterator[object]:
    """What the bytes lead to, in words that can be compared."""
    observed = end.peer is not None and end.peer.purpose == "observer"
    try:
        for piece in pieces:
            for event in end.feed(piece):
                assert isinstance(event, Operations) and event.operations
                assert event.tag not in HANDSHAKE
                assert event.tag in OBSERVER_TAGS or not observed, "an observer says what only a peer may"
                outlasting = copied(event)
                assert isinstance(outlasting, Operations)
                yield encode_frame(outlasting.operations)
    except RemoteProtocolError as error:
        assert end.state is State.CLOSED
        yield str(error)
    yield end.state, end.ignored, bytes(end.outbox.take())


# --- a whole node ---


class _Scene(Stage):
    """A stage on which a peer may do what a peer may: end processes, give them names. It leaves no more behind."""

    def state(self) -> dict[str, object]:
        """What no peer may leave behind."""
        allowed = {"view", "own", "entries", "processes", "rivals"}
        return {what: value for what, value in super().state().items() if what not in allowed}


@contextmanager
def node() -> Made:
    """A whole node, with an honest peer beside: whatever is said to it in whatever state, it lives and forgets it.

    The first byte says what the session has come to (see `tests.hostile.table.At`).
    """
    places = list(At)

    async def attack(reach: Callable[[Stage], Awaitable[Visit]], stream: bytes) -> None:
        visit = await reach(scene)
        if not visit.pipe.is_closing():
            visit.pipe.feed(stream)
        for complaint in await scene.leave(visit):
            assert complaint.startswith("WARNING "), complaint

    def run(data: bytes) -> None:
        if data:
            scene.run(attack(REACH[places[data[0] % len(places)]], _framed(data[1:])))

    # Here all that comes is taken in within the same turn of the loop, however long it takes.
    with TemporaryDirectory() as home, patch("kinfolk.shell.transport.READ_SLICE", inf):
        with patch.dict("os.environ", KINFOLK_HOME=home):
            scene = _Scene()
            scene.open()
        try:
            yield run
        finally:
            scene.close()


TARGETS: dict[str, Callable[[], AbstractContextManager[Target]]] = {
    "codec": codec,
    "payload": payload,
    "handshake": handshake,
    "session": session,
    "node": node,
}


# --- where a fuzzer begins ---


def seeds(target: str) -> Iterator[bytes]:
    """Inputs that are mostly right: from the recorded frames, so they need not be kept."""
    operations = [entry_of(kind).idle or VECTORS[kind].operations for kind in FRAMES]
    match target:
        case "codec":
            made = Codec([Point, Shape, Row, Note])
            pid = Pid("ada@10.0.0.1:4370", 1, 7)
            for body in (
                None,
                [1, -1, 2.5, "text", b"bytes", {"key": [True, None]}],
                pid,
                Shape([Point(1), Point(2, 0.5)], pid, {"a": [pid]}),
                Row(UUID(int=1), Decimal("1.10"), timedelta(seconds=90)),
                Note("a", {"b"}, Note("c", set())),
                [UUID(int=1), Decimal("NaN"), timedelta(days=-1)],
            ):
                yield made.encode(body)
            yield bytes.fromhex("c719 03 323032362d30312d30325430333a30343a30352b30303a3030")
        case "payload":
            for number, kind in enumerate(FRAMES):
                yield bytes((number,)) + encode_frame([example(kind)])[5:]
        case "handshake":
            yield bytes((1, 0, 1, 0))
            yield bytes((1, 0, 3, 9, 1))
            yield bytes((1, 2, 9, 1, 1))
            yield bytes((1, 7, 0, 6))
        case "session" | "node":
            for head in range(len(At) if target == "node" else 3):
                yield bytes((head,)) + SEPARATOR.join(encode_frame(list(some))[4:] for some in operations[:3])
                for some in operations:
                    yield bytes((head,)) + encode_frame(list(some))[4:]
        case _:
            raise ValueError(f"no target {target!r}: there are {', '.join(TARGETS)}")
