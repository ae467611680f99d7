"""The transport: TLS connections of one node, each driving a session.

Every connection is a `Link`. Its life before the session opens belongs to one task, accepting or dialling, with one
deadline for everything: TCP, TLS and handshake (a stopped machine's kernel still accepts connections). After that the
link lives by its callbacks alone. What one turn of the loop produced for a peer leaves in one write.
"""

import asyncio
import dataclasses
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from math import inf
from typing import Any, Final, cast

from msgspec import Struct

from kinfolk import effects as fx
from kinfolk.errors import AuthenticationFailed, NodeUnreachable, RemoteProtocolError
from kinfolk.ids import Seed
from kinfolk.logs import fields
from kinfolk.shell.contacts import Contact
from kinfolk.shell.dataplane import CONTROL, DataPlane, Waiting
from kinfolk.shell.driver import Driver
from kinfolk.shell.gate import Gate
from kinfolk.shell.machine import Caller, Machine, Port, let_go
from kinfolk.shell.tls import Papers, node_uri, probable_cause
from kinfolk.wire import frames
from kinfolk.wire.frames import FRAGMENT_BYTES
from kinfolk.wire.handshake import NONCE_BYTES, Dialler, Fingerprints, Identity, Listener, Proved, Refused
from kinfolk.wire.session import OBSERVED, Event, Opened, Operations, Session, State

_log = logging.getLogger("kinfolk")

HANDSHAKE_TIMEOUT = 5.0
"""Seconds from the first packet to an open session."""
MAX_HALF_OPEN = 512
"""Connections that have not finished TLS; above, the oldest is dropped."""
MAX_HALF_OPEN_PER_HOST = 128
MAX_DIALS = 256
"""Dials at once; more wait for their turn. A peer may tell of thousands of nodes that are not there."""
MAX_UNPROVED = 512
"""Connections past TLS, whose other end thus knows a cookie, that have not finished the handshake."""
READ_SLICE = 0.001
"""Seconds for which the frames of one peer may keep the loop; a sync of a million names has thousands of them. With 1
ms in place of 5 a node that gets 100,000 names from three peers stalls for 11 ms at most, not for 26, at no cost."""
OBSERVER_SILENCE = 600.0
"""Seconds after which an observer that says nothing is taken for gone: nobody beats for observers. Those that wait for
events ask every few seconds."""
WRITE_BUFFER = 64 * 1024
"""Bytes handed to TLS and not yet written, above which the rest waits in the outbox: nothing can overtake them."""
UNSENT = 128 * 1024
"""Bytes that the system keeps for one connection and has not sent, above which it takes no more. It would take as many
as 4 MiB, which small messages could not overtake: beside messages of 10 MiB, their p99 was twice as long."""
WRITE_PART = 64 * 1024
"""TLS encrypts in records of 16 KiB; far larger writes only copy more."""
LINGER = 1.0
"""Seconds after a goodbye in which the other end may hang up, before this end does."""
HOLD = 0.0002
"""Seconds after a write for which more is gathered, as long as each turn of the loop adds to it."""
RIDE = 0.001
"""Seconds after which what nobody waits for leaves by itself, if no write has taken it along."""
FEED_AT_ONCE = 4
"""Fragments of large messages that one link writes before others get their turn."""
TELL_CONGESTION = 10.0
"""Seconds in which the log tells of one link at most once that it is congested."""

_NOTSENT_LOWAT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)  # Linux and macOS
_BIN_HEAD = 5
"""Bytes before those of a large body, in its encoding."""
_NOTHING = memoryview(b"")
_OPEN: Final = State.OPEN  # by their own names: they stand in the way of every message
_CLOSED: Final = State.CLOSED
_NO_REFUSAL = frozenset({"duplicate", "closed"})
"""Codes of REFUSED that say "not this connection" rather than "not you"."""


class Traffic(Struct, frozen=True):
    """What has gone over the session with a peer since it opened, and what waits for it."""

    bytes_in: int
    bytes_out: int
    """Before TLS."""
    frames_in: int
    frames_out: int
    waiting: int
    """Bytes that wait to be written."""
    round_trip: float | None
    """Seconds that it took to answer the last sign of life that it answered in time; None at first."""


class Link(asyncio.BufferedProtocol):
    """One connection and its session."""

    def __init__(self, transport: "Transport", credentials: Papers, conn: int, seed: Seed | None) -> None:
        self._owner = transport
        self._named: frozenset[str] | None = None  # by the other end's certificate, where certificates name nodes
        self.credentials = credentials
        """Those that the connection began with; the node may have others by now."""
        self._tls: asyncio.Transport | None = None
        self._session: Session | None = None
        self._flushing = False  # whether a flush is sure to come, so that nobody needs to ask for one
        self._hold_until = -inf
        self._may_wait = 0  # bytes of the outbox, if nobody waits for any of them
        self._riding = False  # whether there is a timer for these
        self._seen = 0  # bytes in the outbox at the turn before
        self._paused = False
        self._rest: memoryview[int] = _NOTHING  # taken out of the outbox and not yet handed to TLS
        self._held = 0  # bytes that wait beside the outbox: while it is 0, the backlog is empty
        self._high_water = transport.high_water
        self._told_congestion = -inf  # when the log did
        self._reading_paused = False
        self._unread = False  # whether frames wait in the buffer for their turn
        self._then: Callable[[], None] | None = None  # what is to be done when they have been handled
        self._wants_drain = False
        self._lingering: asyncio.TimerHandle | None = None  # until the other end has heard our goodbye
        self._heard = 0.0
        self.conn = conn
        self.seed = seed
        """Whom this end dialled; None if it was dialled."""
        self.name = ""
        """The peer's name, once it has proved it."""
        self.creation = 0
        self.is_observer = False
        self.has_woken = False
        """Whether processes may have something to say since they have heard from the other end in this turn."""
        self.silence: asyncio.TimerHandle | None = None
        """When an observer has said nothing for too long."""
        self.has_transport = False
        """Whether asyncio owns the socket."""
        self.calls: dict[int, Waiting] = {}
        self.congested = False
        """Whether more waits than the high-water mark allows: no user's message may be added, only what must be."""
        self.gate = Gate()
        self.contact: Contact | None = None
        """What the data plane knows it as, where sessions open on demand."""
        self.bytes_in = self.bytes_out = 0
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the session opens, or with the reason why it did not."""

    def __repr__(self) -> str:
        return f"<link {self.conn} with {self.name or self.seed or 'a stranger'}>"

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """TLS is up: begin the handshake."""
        # No isinstance: uvloop's transports behave like asyncio's, and derive from none of them.
        self._tls = made = cast("asyncio.Transport", transport)
        made.set_write_buffer_limits(high=WRITE_BUFFER)
        _keep_little_unsent(made)
        other = self._owner.machine.other_end(made, self.credentials)
        self._session = self._owner.new_session(self, other.fingerprint)
        self._named = other.names
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where TLS puts what it has decrypted."""
        assert self._session is not None, "TLS delivers nothing before connection_made"
        return self._session.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come: let the session read them."""
        session = self._session
        assert session is not None, "TLS delivers nothing before connection_made"
        self.bytes_in += nbytes
        self._read(session, session.receive(nbytes))

    def _read(self, session: Session, events: Iterator[Event]) -> None:
        """Handle what has come for a few milliseconds; if there is more, others get their turn first.

        As long as there is more, nobody can say that the other end is silent: what it says waits behind that, unread.
        """
        loop = self._owner.loop
        until = loop.time() + READ_SLICE
        self._unread = False
        # The flush at the end takes all answers along: one more in the next turn would find nothing.
        flushing, self._flushing = self._flushing, True
        try:
            for event in events:
                self._owner.happened(self, event)
                if loop.time() > until and session.state is _OPEN:
                    self._unread = True
                    break
        except RemoteProtocolError as error:
            self._owner.broken(self, error)
        finally:
            self._flushing = flushing
        self._hold_until = -inf  # who has been answered is likely to wait for an answer again
        self._pause_reading(self._unread)
        if self._unread:
            loop.call_soon(self._read, session, events)
        waiting = len(session.outbox.buffer)
        if self._held or self._wants_drain or waiting > self._may_wait:
            self._flush()
        elif self.has_woken and not self._flushing:
            # Behind those who have just been woken, in the same turn: what they answer waits for no turn of its own.
            self._flush_soon()
        self.has_woken = False
        if session.state is _CLOSED:
            self._part(session)
        elif session.state is _OPEN:
            self._heard = self._owner.heard(self, self._heard)
        if self._then is not None and not self._unread:
            self._then()

    def _pause_reading(self, pause: bool) -> None:
        """As long as frames in the buffer wait to be handled, nothing may be read into it."""
        if pause == self._reading_paused or self._tls is None:
            return
        self._reading_paused = pause
        if pause:
            self._tls.pause_reading()
        else:
            self._tls.resume_reading()

    def eof_received(self) -> bool:
        """The other end will send nothing more: close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone. What the other end has said before comes first: its goodbye, for example."""
        if self._unread:
            self._then = lambda: self._lost(exc)
        else:
            self._lost(exc)

    def _lost(self, exc: Exception | None) -> None:
        self._release()
        if self._lingering is not None:
            self._lingering.cancel()  # it would keep all that the link holds
            self._owner.parting.discard(self)
        what = self._session.connection_lost() if self._session else "the connection ended during TLS"
        self._owner.lost(self, f"{what} ({exc})" if exc else what, exc)

    def pause_writing(self) -> None:
        """TLS has enough to write for now: the rest waits in the outbox."""
        self._paused = True

    def resume_writing(self) -> None:
        """TLS has written: go on."""
        self._paused = False
        self._flush()

    # --- our side ---

    @property
    def session(self) -> Session:
        """The state machine of this connection."""
        assert self._session is not None, "nobody knows of a link before its handshake has begun"
        return self._session

    def may_be(self, uri: Callable[[str], str], node: str) -> bool:
        """Whether the other end's certificate lets it be this node. `uri` gives the URI of a node."""
        return self._named is None or uri(node) in self._named

    @property
    def peername(self) -> tuple[Any, ...] | None:
        """The address of the other end, as sockets have it."""
        return None if self._tls is None else self._tls.get_extra_info("peername")

    @property
    def is_open(self) -> bool:
        """Whether operations can be said and heard."""
        return self._session is not None and self._session.state is _OPEN

    @property
    def has_tls(self) -> bool:
        """Whether the TLS handshake is over, so that asyncio owns the socket."""
        return self._tls is not None

    def fail(self, error: Exception) -> None:
        """The session will not open, for this reason. Nothing happens if it has."""
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()  # the task that waits may be cancelled and never look

    @property
    def waiting(self) -> int:
        """Bytes that wait for the peer: here, and in TLS."""
        if self._session is None or self._tls is None:
            return 0
        return len(self._session.outbox) + self._held + self._tls.get_write_buffer_size()

    def post(self, operation: frames.Operation) -> None:
        """Append an operation to the outbox; it leaves with whatever else this turn of the loop brings."""
        session = self.session
        if session.state is _OPEN:
            session.outbox.encode(operation)
            self._posted(session)

    def post_encoded(self, tag: int, operation: bytes) -> None:
        """Append an operation that was encoded before, for several links."""
        session = self.session
        if session.state is _OPEN:
            session.outbox.append(tag, operation)
            self._posted(session)

    def post_along(self, tag: int, operation: bytes) -> None:
        """As `post_encoded`, for what nobody waits for: it leaves with what comes next, or a little later by itself.

        With it for confirmations, a register takes four writes and reads of TLS instead of six: 345 -> 285 us
        of the processor of three nodes.
        """
        session = self.session
        if session.state is not _OPEN:
            return
        alone = len(session.outbox.buffer) == self._may_wait
        session.outbox.append(tag, operation)
        if not alone or len(session.outbox.buffer) > WRITE_PART:
            self._posted(session)
            return
        self._may_wait = len(session.outbox.buffer)
        if not self._riding:
            self._riding = True
            self._owner.loop.call_later(RIDE, self._ride)

    def post_ahead(self, operation: frames.Operation) -> None:
        """Append what leaves behind those whose turn has come by now: so what they say to it needs no write of its own.

        A spawn from another node whose process speaks at once takes two writes and reads of TLS instead of three:
        178 -> 133 us of the processor of both nodes.
        """
        session = self.session
        if session.state is not _OPEN:
            return
        alone = len(session.outbox) == self._may_wait
        session.outbox.encode(operation)
        if alone:
            self._may_wait = len(session.outbox)
            self._owner.loop.call_soon(self._flush)
        else:
            self._posted(session)

    def _ride(self) -> None:
        self._riding = False
        self._flush()

    def post_from(self, operation: frames.Operation, sender: int, target: int | None, size: int = 0) -> None:
        """Post what a process says to another: after all that it has said to it before, not after what others say.

        Args:
            sender, target: as for `Backlog.add`.
            size: bytes of its body.

        Raises:
            MessageTooLarge: as `Backlog.add`.
        """
        session = self.session
        if size > FRAGMENT_BYTES or (self._held and session.backlog.holds(sender, target)):
            self.post_encoded_from(operation.TAG, frames.encode_operation(operation), sender, target)
        elif session.state is _OPEN:
            session.outbox.encode(operation)
            self._posted(session)

    def post_encoded_from(self, tag: int, operation: bytes, sender: int, target: int | None) -> None:
        """As `post_from`, for an operation that was encoded before.

        Raises:
            MessageTooLarge: as `Backlog.add`.
        """
        session = self.session
        if len(operation) <= FRAGMENT_BYTES and not session.backlog.holds(sender, target):
            self.post_encoded(tag, operation)
        elif session.state is _OPEN:
            session.backlog.add(tag, operation, sender, target)
            self._count_held(session)
            self._posted(session)

    def post_fields(
        self, tag: int, fields: tuple[object, ...], sender: int, target: int | None, max_message: int
    ) -> bool:
        """As `post_from`, for an operation with a body that was not encoded before; all in one function.

        Args:
            fields: of the operation. The last is its body, of builtins alone or lowered to them.
            sender, target: as for `Backlog.add`.
            max_message: bytes of the largest body that may be sent.

        Returns:
            Whether it is posted. If not, whoever encodes the body learns why.
        """
        session = self._session
        if session is None or session.state is not _OPEN:
            return False
        body = fields[-1]
        if type(body) is bytes and len(body) > FRAGMENT_BYTES:
            return self._post_large(session, tag, fields[:-1], body, sender, target, max_message)
        if self._held and session.backlog.holds(sender, target):
            return False
        outbox = session.outbox
        try:
            large = outbox.encode_fields(tag, fields, max_message if max_message < FRAGMENT_BYTES else FRAGMENT_BYTES)
        except Exception:  # noqa: BLE001 - of any class; the codec finds the same, and says where it is
            return False
        if large:
            if len(large) - len(frames.encode_fields(fields[:-1])) > max_message:
                return False
            self.post_encoded_from(tag, large, sender, target)
            return True
        # As in `_posted`, written out: every message to another node goes through here.
        if len(outbox.buffer) + self._held > self._high_water:
            self._filled(session)
        if not self._flushing:
            self._flush_soon()
        return True

    def _post_large(
        self,
        session: Session,
        tag: int,
        fields: tuple[object, ...],
        body: bytes,
        sender: int,
        target: int | None,
        max_message: int,
    ) -> bool:
        """As `post_fields`, for a body that needs no encoding: without a copy.

        Two copies of 10 MiB took 8 ms at once, as long as anything that small messages had to wait for.
        """
        head = frames.encode_head(fields, len(body))
        if len(body) + _BIN_HEAD > max_message:
            return False
        session.backlog.add(tag, head, sender, target, body)
        self._count_held(session)
        self._posted(session)
        return True

    def want_drain(self) -> None:
        """Tell the kernel once little is waiting."""
        self._wants_drain = True
        self._posted(self.session)

    def close(self, code: str = "", detail: str = "") -> None:
        """End the session, with a goodbye if there is a code, and close the connection once that has been heard."""
        session = self._session
        if session is None:
            self._end()
        else:
            while session.state is _OPEN and session.backlog:
                session.backlog.feed(session.outbox)
            session.close(code, detail)
            self._write_all(session)
            self._part(session)

    def abort(self) -> None:
        """Close the connection without writing what waits."""
        self._release()
        if self._tls is not None:
            self._tls.abort()

    def let_go(self) -> None:
        """This is a fork of the program whose connection it is."""
        sock = None if self._tls is None else self._tls.get_extra_info("socket")
        if sock is not None:
            let_go(sock.fileno())

    def flush(self) -> None:
        """Write at once what waits."""
        self._flush()

    def _posted(self, session: Session) -> None:
        if len(session.outbox.buffer) + self._held > self._high_water:
            self._filled(session)
        if not self._flushing:
            self._flush_soon()

    def _filled(self, session: Session) -> None:
        """More waits than the high-water mark allows."""
        if not self.congested:
            self.congested = True
            self._told_congestion = self._owner.congested(self, self._told_congestion)
        if len(session.outbox.buffer) + self._held > self._owner.max_outbox:
            self._owner.overflown(self)

    def _flush_soon(self) -> None:
        self._flushing = True
        self._owner.loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        """Flush at once what comes alone; but hold on to a stream of which each turn brings some more.

        Whoever sends and awaits something each time would else cost a write and a read for each message: 35 us of the
        processor for one of 100 bytes, and 9 so.
        """
        session, loop = self.session, self._owner.loop
        waiting = len(session.outbox.buffer)
        if self._seen < waiting < WRITE_PART and not self._held and loop.time() < self._hold_until:
            self._seen = waiting
            loop.call_soon(self._flush_now)
            return
        self._flushing = False
        self._seen = 0
        if waiting or self._held or self._wants_drain:  # else nobody whom a frame has woken had anything to say
            self._flush()
        if waiting:
            self._hold_until = loop.time() + HOLD

    def _flush(self) -> None:
        """Hand to TLS what waits, as far as TLS takes it: the outbox, and behind all of it one fragment, and again.

        So neither holds up the other: who says something waits for one fragment at most, a large message for what is
        in the outbox at its turn.
        """
        session, tls = self._session, self._tls
        if session is None or tls is None or tls.is_closing():
            return
        outbox = session.outbox
        if not (self._held or self._paused or self.congested or self._wants_drain):
            # Nothing but a little in the outbox, or nothing, as nearly always.
            waiting = len(outbox.buffer)
            if waiting <= WRITE_PART:
                self._may_wait = 0
                if waiting:
                    self.bytes_out += waiting
                    tls.write(outbox.take())
                return
        fed = 0
        while not self._paused:
            if self._rest:
                part, self._rest = self._rest[:WRITE_PART], self._rest[WRITE_PART:]
                tls.write(part)
                continue
            if not outbox.buffer:
                self._drained(session)
            if session.backlog and fed < FEED_AT_ONCE:
                session.backlog.feed(outbox)
                fed += 1
            if not outbox.buffer:
                if session.backlog and not self._flushing:
                    self._flush_soon()
                break
            taken = outbox.take()
            self._may_wait = 0
            self.bytes_out += len(taken)
            self._rest = memoryview(taken)
        self._count_held(session)
        self._let_in(session)

    def _drained(self, session: Session) -> None:
        """The outbox is empty: the kernel may have waited for that."""
        if self._wants_drain and session.state is _OPEN:
            self._wants_drain = False
            self._owner.loop.call_soon(self._owner.drained, self)

    def _let_in(self, session: Session) -> None:
        """Those who wait for room are let in, one by one, as long as there is some; then everybody."""
        if not self.congested:
            return
        while session.state is _OPEN and len(session.outbox.buffer) + self._held <= self._high_water:
            if not self.gate.let_in():
                self.congested = False
                return

    def _write_all(self, session: Session) -> None:
        """Hand all that waits to TLS, which has a second to write it: nothing comes after it."""
        tls = self._tls
        if tls is None or tls.is_closing():
            return
        for waiting in (self._rest, memoryview(session.outbox.take())):
            for start in range(0, len(waiting), WRITE_PART):
                tls.write(waiting[start : start + WRITE_PART])
        self._release()

    def _count_held(self, session: Session) -> None:
        self._held = len(session.backlog) + len(self._rest)

    def _release(self) -> None:
        """Nothing that has been taken out of the outbox will be written."""
        self._rest = _NOTHING
        self._held = 0

    def _part(self, session: Session) -> None:
        """Hang up, now or when the other end has heard our goodbye."""
        if not session.parting:
            self._end()
        elif self._lingering is None:
            self._lingering = self._owner.loop.call_later(LINGER, self._end)
            self._owner.parting.add(self)

    def _end(self) -> None:
        if self._tls is not None and not self._tls.is_closing():
            self._tls.close()


class Transport:
    """The connections of one node: accepts, dials, and carries out what the kernel wants done with them.

    Args:
        machine: what it runs on, which dials for it.
        port: where it is reached.
        credentials: for TLS and the handshake, from the machine.
        identity: gives the node's identity, which may change until the first session.
        driver: gets the facts.
        dataplane: gets the frames that are messages.
        counters: of the node.
        new_connection: gives numbers to connections that are accepted.
        heartbeat: seconds; how closely the kernel needs to know when bytes came.
        dial_timeout: seconds from TCP to an open session; a stopped machine's kernel still accepts connections.
        high_water: bytes that may wait for one peer before users' messages are refused.
        max_outbox: bytes that may wait for one peer at all.
    """

    def __init__(
        self,
        machine: Machine,
        port: Port,
        credentials: Papers,
        identity: Callable[[], Identity],
        driver: Driver,
        dataplane: DataPlane,
        new_connection: Callable[[], int],
        counters: Counter[str],
        *,
        heartbeat: float,
        dial_timeout: float,
        high_water: int,
        max_outbox: int,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop
        self.high_water = high_water
        self.max_outbox = max_outbox
        self.machine = machine
        self._port = port
        self._credentials = credentials
        self._identity = identity
        self._driver = driver
        self._dataplane = dataplane
        self._node = dataplane.name
        self._new_connection = new_connection
        self._counters = counters
        self._heartbeat = heartbeat
        self._dial_timeout = dial_timeout
        self._links: dict[int, Link] = {}
        self.parting: set[Link] = set()
        """Those whose other end has yet to hear our goodbye."""
        self._tasks: dict[int, asyncio.Task[None]] = {}  # of the connections that are not open yet
        self._half_open: dict[int, tuple[str, asyncio.Task[None]]] = {}
        self._unproved: dict[int, asyncio.Task[None]] = {}
        self._dialling = asyncio.Semaphore(MAX_DIALS)
        self._empty: asyncio.Future[None] | None = None  # done when the last link of a closing node has gone

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Accept connections from now on."""
        self.loop = loop
        self._port.listen(loop, self._accepted, self._cannot_accept)

    async def close(self, timeout: float) -> None:
        """Free the port, end every connection; what waits is written within `timeout` seconds or not at all."""
        self._port.close()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for link in list(self._links.values()):
            link.close()
        if self._links:
            self._empty = self.loop.create_future()
            await asyncio.wait([self._empty], timeout=timeout)
        self._abort()

    def abandon(self) -> None:
        """End every connection without a word, and wait for nothing."""
        self._port.close()
        for task in list(self._tasks.values()):
            task.cancel()
        self._abort()

    def let_go(self) -> None:
        """This is a fork of the program whose connections these are: they are to end with that one."""
        self._port.let_go()
        for link in {*self._links.values(), *self.parting}:
            link.let_go()

    def _abort(self) -> None:
        for link in {*self._links.values(), *self.parting}:
            link.abort()

    def rekey(self, credentials: Papers) -> None:
        """Use these for every connection that begins from now on; those that are there go on."""
        self._credentials = credentials

    def link(self, conn: int) -> Link:
        """The link of an open session."""
        return self._links[conn]

    def traffic(self, conn: int, round_trip: float | None) -> Traffic:
        """What has gone over an open session."""
        link = self._links[conn]
        frames_in, frames_out = link.session.frames, link.session.outbox.frames
        return Traffic(link.bytes_in, link.bytes_out, frames_in, frames_out, link.waiting, round_trip)

    def peername(self, conn: int) -> tuple[Any, ...] | None:
        """The address of the other end of a session, as sockets have it; None once the session has ended."""
        link = self._links.get(conn)
        return None if link is None else link.peername

    # --- effects ---

    def send(self, effect: fx.Send) -> None:
        """Append an operation, encoded once, to the outboxes of several links."""
        operation = effect.operation
        along = type(operation) is frames.NameConfirmed  # the caller has been told; what others see of it is the claim
        if len(effect.conns) == 1 and not along:
            link = self._links.get(effect.conns[0])
            if link is not None:
                link.post(operation)
            return
        encoded = frames.encode_operation(operation)
        for conn in effect.conns:
            link = self._links.get(conn)
            if link is None:
                continue
            if along:
                link.post_along(operation.TAG, encoded)
            else:
                link.post_encoded(operation.TAG, encoded)

    def want_drain(self, effect: fx.WantDrain) -> None:
        """Report when the outbox of a link has room."""
        link = self._links.get(effect.conn)
        if link is not None:  # else it has overflown in the very step that wants more of it
            link.want_drain()

    def dial(self, effect: fx.Dial) -> None:
        """Begin to connect and to authenticate."""
        task = self.loop.create_task(
            self._dial(effect.conn, effect.seed), name=f"kinfolk: dial {effect.seed}", context=self.machine.context()
        )
        self._track(effect.conn, task)

    def admit(self, effect: fx.Admit) -> None:
        """Let a proved dialler in."""
        link = self._links.get(effect.conn)
        if link is not None:
            link.session.admit()
            link.flush()

    def refuse(self, effect: fx.Refuse) -> None:
        """Tell a proved dialler why not."""
        link = self._links.get(effect.conn)
        if link is not None:
            link.session.refuse(effect.code, effect.detail, effect.number)
            link.close()
            link.fail(NodeUnreachable(effect.detail))

    def close_link(self, effect: fx.Close) -> None:
        """End a connection in whatever state it is."""
        link = self._links.get(effect.conn)
        if link is not None:
            link.close(effect.code, effect.detail)
        task = self._tasks.get(effect.conn)
        if task is not None:
            task.cancel()

    # --- connections that are not open yet ---

    def _cannot_accept(self, error: OSError) -> None:
        self._counters["accept_errors"] += 1
        _log.error(
            "cannot accept connections: %s; trying again in a second", error, extra=fields(self._node, reason=error)
        )

    def _accepted(self, caller: Caller) -> None:
        """Somebody has connected."""
        host = caller.host
        link = Link(self, self._credentials, self._new_connection(), None)
        task = self.loop.create_task(
            self._accept(link, caller), name=f"kinfolk: accept {host}", context=self.machine.context()
        )
        # Not at the end of `_accept`: a task that is cancelled before its first step never gets there.
        task.add_done_callback(lambda _: None if link.has_transport else caller.close())
        self._track(link.conn, task)
        self._make_room(host)
        self._half_open[link.conn] = host, task

    def _make_room(self, host: str) -> None:
        """Strangers must not use up what friends need: beyond a number of half-open connections the oldest goes."""
        same_host = [conn for conn, (other, _) in self._half_open.items() if other == host]
        if len(same_host) >= MAX_HALF_OPEN_PER_HOST:
            self._drop(self._half_open.pop(same_host[0])[1])
        elif len(self._half_open) >= MAX_HALF_OPEN:
            self._drop(self._half_open.pop(next(iter(self._half_open)))[1])

    def _drop(self, task: asyncio.Task[None]) -> None:
        self._counters["half_open_dropped"] += 1
        task.cancel()

    async def _accept(self, link: Link, caller: Caller) -> None:
        conn, host = link.conn, caller.host
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                await caller.secure(link.credentials, lambda: self._connecting(link))
                self._half_open.pop(conn, None)
                if len(self._unproved) >= MAX_UNPROVED:
                    self._drop(self._unproved.pop(next(iter(self._unproved))))
                current = asyncio.current_task()
                assert current is not None, "this runs in its own task"
                self._unproved[conn] = current
                await link.opened
        except TimeoutError:
            self._not_opened(link, host, f"no handshake within {HANDSHAKE_TIMEOUT:g} s")
        except (OSError, AuthenticationFailed, NodeUnreachable, RemoteProtocolError) as error:
            refused = isinstance(error, AuthenticationFailed | RemoteProtocolError)
            self._not_opened(link, host, _why(error, link), refused=refused)
        finally:
            self._half_open.pop(conn, None)
            self._unproved.pop(conn, None)
            if not link.is_open:
                self._give_up(link, "it did not become a session")

    def _not_opened(self, link: Link, host: str, why: str, *, refused: bool = False) -> None:
        if link.name and not refused:
            _log.debug(
                "a connection from %s did not become a session: %s",
                link.name,
                why,
                extra=fields(self._node, peer=link.name, address=host, reason=why),
            )
        else:
            self._counters["handshakes_failed"] += 1
            _log.warning(
                "a connection from %s did not become a session: %s",
                host,
                why,
                extra=fields(self._node, address=host, reason=why),
            )

    async def _dial(self, conn: int, seed: Seed) -> None:
        link = Link(self, self._credentials, conn, seed)
        try:
            async with self._dialling, asyncio.timeout(self._dial_timeout):
                await self.machine.dial(self.loop, seed.address, link.credentials, lambda: self._connecting(link))
                await link.opened
        except _RefusedError as refused:
            failed = fx.DialFailed(conn, refused.code, refused.error, refused.number)
        except TimeoutError:
            text = f"{seed} did not answer within {self._dial_timeout:g} s: is it stopped, or a firewall in between?"
            failed = fx.DialFailed(conn, "unreachable", NodeUnreachable(text))
        except OSError as error:
            told = dial_error(seed, error, link.credentials, past_tls=link.has_tls)
            code = "unreachable"
            if isinstance(told, AuthenticationFailed):
                # Past TLS it is a node of ours that has ended it; before, it may be anything on the way there.
                code = "cookie" if link.has_tls or isinstance(error, ssl.SSLError) else "ended"
            failed = fx.DialFailed(conn, code, told)
        else:
            return
        finally:
            if not link.is_open:
                self._give_up(link, "it did not become a session")
        self._driver.submit(failed)

    def _connecting(self, link: Link) -> Link:
        self._links[link.conn] = link
        link.has_transport = True
        return link

    def _track(self, conn: int, task: asyncio.Task[None]) -> None:
        self._tasks[conn] = task
        task.add_done_callback(lambda done: self._untrack(conn, done))

    def _untrack(self, conn: int, task: asyncio.Task[None]) -> None:
        self._tasks.pop(conn, None)
        if not task.cancelled() and task.exception() is not None:
            _log.error(
                "a connection failed in an unexpected way",
                exc_info=task.exception(),
                extra=fields(self._node, reason=task.exception()),
            )

    def _give_up(self, link: Link, reason: str) -> None:
        link.close()
        self._report_closed(link, reason)

    # --- what links report ---

    def new_session(self, link: Link, peer: bytes) -> Session:
        """The session of a connection whose TLS is up, and whose other end has a certificate with this fingerprint."""
        fingerprints = Fingerprints(link.credentials.fingerprint, peer)
        nonce = self.machine.nonce(NONCE_BYTES)
        me = self._identity()
        if me.keys is not link.credentials.keys:  # the node has got others meanwhile
            me = dataclasses.replace(me, keys=link.credentials.keys)
        if link.seed is None:
            return Session(Listener(me, fingerprints=fingerprints, nonce=nonce))
        return Session(Dialler(me, fingerprints=fingerprints, nonce=nonce, expects=link.seed.expects))

    def happened(self, link: Link, event: Event) -> None:
        """A session has understood something."""
        match event:
            case Operations():
                operations = event.operations
                if link.is_observer:
                    self._observed(link, operations)
                elif event.tag in CONTROL:
                    self._driver.submit(fx.Received(link.conn, operations))
                elif link.contact is None:
                    link.has_woken = True
                    self._dataplane.receive(link, operations)
                else:
                    link.has_woken = True
                    link.contact.used = self.loop.time()
                    self._dataplane.receive(link.contact, operations)
            case Proved(purpose="observer"):
                link.session.admit()
            case Proved(peer=peer) | Opened(peer=peer, purpose="peer") if not link.may_be(self._uri, peer):
                self._impostor(link, peer)
            case Proved(peer=peer, creation=creation):
                link.name, link.creation = peer, creation
                if link.seed is None:
                    self._driver.submit(fx.Proved(link.conn, peer, creation))
            case Opened(peer=peer, creation=creation, purpose=purpose):
                link.name, link.creation = peer, creation
                link.is_observer = purpose == "observer"
                if not link.opened.done():
                    link.opened.set_result(None)
                if not link.is_observer:
                    self._driver.submit(fx.Opened(link.conn, peer, creation, event.dialled))
            case Refused():
                error = refusal_error(event)
                link.fail(error if link.seed is None else _RefusedError(event.code, error, event.number))

    def _uri(self, node: str) -> str:
        return node_uri(self._identity().cluster, node)

    def _impostor(self, link: Link, peer: str) -> None:
        """Somebody who knows the cookie says to be a node that its certificate does not name."""
        text = f"the certificate of {peer} does not name it: it must have the URI {self._uri(peer)}"
        error = AuthenticationFailed(text, "certificate")
        if link.seed is None:
            link.session.refuse("certificate", text)
            link.fail(error)
        else:
            link.session.close("certificate", text)
            link.fail(_RefusedError("certificate", error))

    def _observed(self, link: Link, operations: Sequence[frames.Operation]) -> None:
        """What an observer says: it may call the node's own service, and nothing else."""
        for operation in operations:
            match operation:
                case frames.Called(target=target) if target == OBSERVED:
                    self._dataplane.receive(link, [operation])
                case frames.Ping(sequence=sequence):
                    link.post(frames.Pong(sequence))
                case frames.Pong() | frames.Goodbye():
                    pass
                case _:
                    what = type(operation).__name__
                    error = RemoteProtocolError(f"an observer may only call {OBSERVED!r}, not send {what}")
                    self.broken(link, error)
                    return

    def heard(self, link: Link, last: float) -> float:
        """Bytes have come in an open session. Returns when that was noted for the last time."""
        now = self.loop.time()
        if now - last < self._heartbeat / 4:
            return last
        if not link.is_observer:
            self._driver.submit(fx.Heard(link.conn))
        elif link.conn in self._links:
            if link.silence is not None:
                link.silence.cancel()
            link.silence = self.loop.call_at(now + OBSERVER_SILENCE, self._silent, link)
        return now

    def _silent(self, link: Link) -> None:
        """An observer has said nothing for too long: its machine may have vanished without a word."""
        reason = f"the observer has said nothing for {OBSERVER_SILENCE:g} s"
        _log.info("a session ends: %s", reason, extra=fields(self._node, reason=reason))
        link.close("silent", reason)
        self._report_closed(link, reason)

    def broken(self, link: Link, error: RemoteProtocolError) -> None:
        """The other end has broken the protocol: this session ends, nothing else."""
        self._counters["protocol_errors"] += 1
        if not link.opened.done():
            link.fail(error if link.seed is None else _RefusedError("protocol", _no_node(link, error)))
            return
        link.close("protocol", str(error))
        if link.is_observer:
            _log.warning(
                "an observer broke the protocol, its session ends: %s", error, extra=fields(self._node, reason=error)
            )
        self._report_closed(link, f"it broke the protocol: {error}", logging.WARNING)

    def drained(self, link: Link) -> None:
        """Little waits for this peer."""
        if link.session.state is _OPEN:
            self._driver.submit(fx.Drained(link.conn))

    def congested(self, link: Link, last: float) -> float:
        """More waits for this peer than the high-water mark. Returns when the log told of it for the last time."""
        now = self.loop.time()
        if link.is_observer:  # no message of a user's goes there
            return last
        self._counters["links_congested"] += 1
        if now - last < TELL_CONGESTION:
            return last
        _log.warning(
            "the link to %s is congested: %d bytes wait for it",
            link.name,
            link.waiting,
            extra=fields(self._node, peer=link.name, number=link.waiting),
        )
        return now

    def overflown(self, link: Link) -> None:
        """The peer does not read what is said to it."""
        if self._links.get(link.conn) is not link:
            return
        self._counters["outbox_overflows"] += 1
        reason = f"{link.waiting} bytes wait for it, more than max_outbox allows: it does not read"
        if link.is_observer:
            _log.warning("the session with an observer ends: %s", reason, extra=fields(self._node, reason=reason))
        link.session.close("overflow", reason)
        link.abort()
        self._report_closed(link, reason, logging.WARNING)

    def lost(self, link: Link, reason: str, error: Exception | None) -> None:
        """A connection is gone."""
        link.fail(error if isinstance(error, OSError) else ConnectionResetError(reason))
        self._report_closed(link, reason)

    def _report_closed(self, link: Link, reason: str, level: int = logging.INFO) -> None:
        if link.silence is not None:
            link.silence.cancel()
        if self._links.pop(link.conn, None) is not None and link.name and not link.is_observer:
            self._driver.submit(fx.Closed(link.conn, reason, level))
        if not self._links and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)


class _RefusedError(Exception):
    """A dial ended in a refusal."""

    def __init__(self, code: str, error: AuthenticationFailed | NodeUnreachable, number: int = 0) -> None:
        super().__init__(code)
        self.code, self.error, self.number = code, error, number


def _keep_little_unsent(transport: asyncio.Transport) -> None:
    """What the other end cannot take yet is to wait here, where its order is ours; as far as the system can do so."""
    sock = transport.get_extra_info("socket")
    if sock is not None and _NOTSENT_LOWAT is not None:
        with suppress(OSError):  # it has ended already
            sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT)


def refusal_error(refused: Refused) -> AuthenticationFailed | NodeUnreachable:
    """What a refusal of the other end's is to the user who dialled it."""
    if refused.code in _NO_REFUSAL:
        return NodeUnreachable(refused.detail)
    return AuthenticationFailed(refused.detail, refused.code)


def _no_node(link: Link, error: RemoteProtocolError) -> NodeUnreachable:
    return NodeUnreachable(f"{link.seed} does not speak as a kinfolk node does: {error}")


def dial_error(seed: Seed, error: OSError, ours: Papers, *, past_tls: bool) -> AuthenticationFailed | NodeUnreachable:
    """What to tell who dialled. TCP failed: unreachable. TLS failed, or it ended before ACK: most likely the cookie."""
    ended = ssl.SSLError | ConnectionResetError | ConnectionAbortedError | BrokenPipeError
    if past_tls or isinstance(error, ended):
        own = ours.names_nodes
        reason = "certificate" if own else "cookie"
        return AuthenticationFailed(f"{seed} did not let us in: {probable_cause(error, own=own)}", reason)
    why = error.strerror or error
    if error.errno in (errno.EMFILE, errno.ENFILE):
        text = f"cannot connect to {seed}: {why}, here at this node: close some, or raise the limit (`ulimit -n`)"
        return NodeUnreachable(text)
    return NodeUnreachable(f"cannot connect to {seed}: {why}; is it running there?")


def _why(error: Exception, link: Link) -> str:
    """Why somebody who connected to us was not let in, for our log."""
    own = link.credentials.names_nodes
    who = f"no kinfolk node, or one {'that does not accept our certificate' if own else 'with another cookie'}"
    if own and isinstance(error, ssl.SSLError) and "CERTIFICATE" in (error.reason or ""):
        return f"TLS failed: {probable_cause(error, own=True)}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error}): {who}"
    if isinstance(error, OSError) and not isinstance(error, AuthenticationFailed | NodeUnreachable):
        if link.has_tls:
            return "the other end closed the connection"
        return f"the other end closed the connection during TLS: {who}"
    return str(error)
