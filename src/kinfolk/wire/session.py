"""A session: one connection between two nodes as a state machine. Bytes in, events out; what to send is in `outbox`.

    HANDSHAKE   NAME, CHALLENGE, REPLY, ACK or REFUSED; frames of at most 4 KiB
    ADMITTED    listener only: ACK is on its way, the dialler may still change its mind
    OPEN        everything else; frames of at most 16 MiB
    CLOSED      nothing is taken in or sent any more; who said GOODBYE waits for the other end to hang up

| from      | what happens                                         | to       | events                |
| HANDSHAKE | the dialler has proved itself (listener)             |          | Proved                |
| HANDSHAKE | admit() (listener)                                   | ADMITTED |                       |
| HANDSHAKE | ACK (dialler)                                        | OPEN     | Opened                |
| HANDSHAKE | refuse(), REFUSED, a refusal of the handshake itself | CLOSED   | Refused               |
| ADMITTED  | the first frame past ACK                             | OPEN     | Opened, then as OPEN  |
| ADMITTED  | GOODBYE: the dialler has changed its mind            | CLOSED   | Refused               |
| OPEN      | a frame                                              |          | Operations            |
| OPEN      | GOODBYE                                              | CLOSED   | Operations            |
| any       | a breach of the protocol                             | CLOSED   | RemoteProtocolError   |
| any       | close(), connection_lost()                           | CLOSED   |                       |

Who has said GOODBYE does not hang up as well: what the other end says before it has heard it would come to nobody, TCP
would answer with a reset, and a reset overtakes what was said before it. So it is `parting` until the other end has
said GOODBYE too, or has hung up; the driver gives it a second for that. Who did not listen before is not waited for.

An `asyncio.BufferedProtocol` drives it like this::

    def get_buffer(self, hint):
        return self.session.get_buffer(hint)

    def buffer_updated(self, count):
        try:
            for event in self.session.receive(count):
                self.handle(event)                      # which may call admit, refuse, close
        except RemoteProtocolError as error:
            self.log_and_close(error)
        self.flush()                                    # transport.write(self.session.outbox.take())
        if self.session.state is State.CLOSED and not self.session.parting:
            self.transport.close()

Source: the shape is that of python-websockets' `Protocol`.
"""

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Final, cast

from msgspec import Struct

from kinfolk.errors import LocalProtocolError, RemoteProtocolError
from kinfolk.wire.fragments import FRAGMENTED, Assemblies, Backlog
from kinfolk.wire.frames import (
    HANDSHAKE,
    MAX_FRAME,
    Answered,
    Called,
    Fragment,
    Goodbye,
    Operation,
    Peers,
    Ping,
    Pong,
)
from kinfolk.wire.handshake import MAX_DETAIL, Dialler, Listener, Proved, Purpose, Refused, printable
from kinfolk.wire.outbox import Outbox
from kinfolk.wire.reader import FrameReader, frame_name, read_operations

OBSERVED = "kinfolk"
"""The node-scoped name of the one process that an observer may call: the node's own service."""
OBSERVER_TAGS = frozenset(kind.TAG for kind in (Called, Answered, Fragment, Ping, Pong, Goodbye))
"""What may be said in a session with an observer: it asks and is answered, and is no part of mesh and registry."""

_UNHEARD = frozenset({"silent", "stalled", "overflow"})
"""Codes of GOODBYE for who does not listen: there is no use in waiting until it has heard that."""
_DISCARDED_BYTES = 4096


class State(Enum):
    """Where a session is."""

    HANDSHAKE = "handshake"
    ADMITTED = "admitted"
    OPEN = "open"
    CLOSED = "closed"


# By their own names: Python 3.11 looks enum members up slowly, and these stand in the way of every message.
_HANDSHAKE: Final = State.HANDSHAKE
_ADMITTED: Final = State.ADMITTED
_OPEN: Final = State.OPEN
_CLOSED: Final = State.CLOSED


class Opened(Struct, frozen=True):
    """Both ends have proved themselves and want the session. From now on operations may be put into the outbox."""

    peer: str
    creation: int
    purpose: Purpose
    features: frozenset[str]
    dialled: bool
    """Whether this end connected."""


class Operations(Struct, frozen=True):
    """A frame of an open session, or what has come in fragments: one or more operations of one kind.

    `Raw` bodies in them are views into the read buffer: decode or copy them before the next event is asked for.
    """

    tag: int
    operations: Sequence[Operation]


Event = Proved | Refused | Opened | Operations


class Session:
    """One connection, from its first byte inside TLS.

    Args:
        handshake: `Dialler` or `Listener`, with the fingerprints of this connection.

    `outbox` is what to send: the driver takes and writes it after each batch of events and after each call below.
    `backlog` is what large messages hold up, and these: the driver feeds the outbox from it before it takes that.
    `parting` is whether this end has said GOODBYE, and the other has not heard it yet, as far as is known.
    `peer` is who the other end is, once it has proved so. `frames` counts those that came, `ignored` those of a later
    minor version.
    """

    def __init__(self, handshake: Dialler | Listener) -> None:
        self.state = _HANDSHAKE
        self.outbox = Outbox()
        self.backlog = Backlog()
        self.parting = False
        self.peer: Proved | None = None
        self.ignored = 0
        self.frames = 0
        self._greeted = False  # the other end has listed its peers; an observer has none to list
        self._handshake = handshake
        self._reader = FrameReader()
        self._assemblies = Assemblies()
        if isinstance(handshake, Dialler):
            self.outbox.add_frame(handshake.greeting)

    @property
    def dialled(self) -> bool:
        """Whether this end connected."""
        return isinstance(self._handshake, Dialler)

    # --- bytes in ---

    def get_buffer(self, hint: int = -1) -> memoryview:
        """Where to put the next bytes: never empty."""
        if self.state is _CLOSED and not self.parting:
            return memoryview(bytearray(_DISCARDED_BYTES))  # what was under way when we closed
        return self._reader.get_buffer(hint)

    def receive(self, count: int) -> Iterator[Event]:
        """So many bytes are now in the buffer: the events that follow, to be handled one by one as they come.

        Raises:
            RemoteProtocolError: while iterating, when the other end breaks the protocol. The session is CLOSED then,
                and a GOODBYE in the outbox if there is somebody to say it to.
        """
        if self.state is _CLOSED and not self.parting:
            return iter(())
        self._reader.advance(count)
        return self._events()

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Event]:
        """`get_buffer` and `receive` for bytes that are elsewhere: for memory networks and tests.

        Raises:
            RemoteProtocolError: as `receive`.
        """
        rest = memoryview(data)
        while rest:
            room = self.get_buffer(len(rest))
            count = min(len(room), len(rest))
            room[:count], rest = rest[:count], rest[count:]
            yield from self.receive(count)

    def connection_lost(self) -> str:
        """No more bytes will come. Returns what was under way, in words for a log line."""
        state = self.state
        self._end()
        self.parting = False
        if state is _HANDSHAKE:
            return f"the connection ended while {self._handshake.state.value}"
        if state is _CLOSED:
            return "the session was closed"
        return "the connection ended in the middle of a frame" if len(self._reader) else "the connection ended"

    # --- orders ---

    def admit(self) -> None:
        """Let the proved dialler in. The session is open when its first frame has come.

        Raises:
            LocalProtocolError: this end has dialled, or no dialler has proved itself, or it has been decided already.
        """
        self.outbox.add_frame(self._listener("admit").admit())
        self._reader.limit = MAX_FRAME
        self.state = _ADMITTED

    def refuse(self, code: str, detail: str, number: int = 0) -> None:
        """Tell the dialler why not. `code`, `detail`, `number` as in `Listener.refuse`.

        Raises:
            LocalProtocolError: this end has dialled, or it has been decided already.
        """
        self.outbox.add_frame(self._listener("refuse").refuse(code, detail, number))
        self.state = _CLOSED

    def close(self, code: str, detail: str) -> None:
        """End the session, once: with a code, and if the handshake is over, say GOODBYE."""
        if code and self.state in (_ADMITTED, _OPEN):
            self.outbox.encode(Goodbye(code, detail[:MAX_DETAIL]))
            self.parting = code not in _UNHEARD
        self._end()

    def _end(self) -> None:
        """Nothing is taken in any more, and nothing of what is half said or half heard is kept."""
        self.state = _CLOSED
        self.backlog.clear()
        self._assemblies.clear()

    def _listener(self, order: str) -> Listener:
        if self.state is not _HANDSHAKE or isinstance(self._handshake, Dialler):
            role = "dialler" if self.dialled else "listener"
            raise LocalProtocolError(f"{order}() by a {role} in state {self.state.value}")
        return self._handshake

    # --- events out ---

    def _events(self) -> Iterator[Event]:
        try:
            for tag, payload in self._reader.frames():
                self.frames += 1
                if self.state is _CLOSED:  # by the caller, perhaps while it handled an event
                    self.parting = self.parting and tag != Goodbye.TAG
                    continue
                if self.state is _HANDSHAKE:
                    event = self._shake_hands(tag, payload)
                    if event is not None:
                        yield event
                    continue
                operations = self._read(tag, payload)
                if self.state is _ADMITTED:
                    yield self._open() if tag != Goodbye.TAG else self._withdrawn(operations)
                # Asked anew: a session that the caller did not want after all has no frames.
                if self.state is not _OPEN or operations is None:
                    continue
                if tag == Fragment.TAG:
                    yield from self._assemble(cast("Sequence[Fragment]", operations))
                    continue
                if tag == Goodbye.TAG:
                    self._end()
                yield Operations(tag, operations)
        except RemoteProtocolError as error:
            if self.state is _CLOSED:  # it has been told so, and whatever else it says is no matter
                self.parting = False
                return
            self.close("protocol", str(error))
            raise

    def _shake_hands(self, tag: int, payload: memoryview) -> Event | None:
        reply, event = self._handshake.receive(tag, payload)
        if reply:
            self.outbox.add_frame(reply)
        if isinstance(event, Refused):
            self.state = _CLOSED
        elif isinstance(event, Proved):
            self.peer = event
            if self.dialled:
                return self._open()
        return event

    def _open(self) -> Opened:
        assert self.peer is not None, "nobody gets past ACK without a proof"
        self._reader.limit = MAX_FRAME
        self.state = _OPEN
        peer = self.peer
        return Opened(peer.peer, peer.creation, peer.purpose, peer.features, self.dialled)

    def _withdrawn(self, goodbyes: Sequence[Operation] | None) -> Refused:
        self.state = _CLOSED
        match goodbyes:
            case [Goodbye(code=code, detail=detail), *_]:
                return Refused(printable(code), printable(detail))
            case _:
                raise AssertionError("a frame is never empty, and decodes to the kind of its tag")

    def _read(self, tag: int, payload: memoryview) -> Sequence[Operation] | None:
        assert self.peer is not None, "nobody gets past ACK without a proof"
        if tag in HANDSHAKE:
            raise RemoteProtocolError(f"{frame_name(tag)} in state {self.state.value}: the handshake is over")
        operations = read_operations(tag, payload)
        if operations is None:
            self.ignored += 1
        elif not self._greeted:
            self._begins(tag, self.peer.purpose)
        return operations

    def _assemble(self, fragments: Sequence[Fragment]) -> Iterator[Operations]:
        """What these fragments complete, as if it had come in one piece."""
        assert self.peer is not None, "nobody gets past ACK without a proof"
        for fragment in fragments:
            if self.peer.purpose == "observer" and fragment.kind in FRAGMENTED:
                self._begins(fragment.kind, "observer")
            whole = self._assemblies.take(fragment)
            if whole is None:
                continue
            tag, operations = whole
            if operations is None:
                self.ignored += 1
                continue
            yield Operations(tag, operations)
            if self.state is not _OPEN:  # closed by the caller, while it handled that
                return

    def _begins(self, tag: int, purpose: Purpose) -> None:
        """Check the order: a peer begins with the list of its peers; an observer only ever asks and is answered."""
        if purpose == "observer":
            if tag not in OBSERVER_TAGS:
                raise RemoteProtocolError(
                    f"{frame_name(tag)} in the session of an observer, which is no part of the mesh"
                )
        elif tag == Peers.TAG:
            self._greeted = True
        elif tag != Goodbye.TAG:
            raise RemoteProtocolError(f"begins with {frame_name(tag)} instead of its list of peers")
