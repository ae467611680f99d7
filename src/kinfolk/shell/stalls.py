"""Stalls: a node whose loop stands still says so, and hears so of its peers, on a channel beside the sessions.

A loop that stands still can say nothing over TLS, whose state lives on the loop. So a thread of each node, the
`Sentry`, looks every quarter of `stall_after` when the loop had its last turn, and once that is too long ago, tells
every peer how long, by datagrams. While nothing is wrong it says nothing. What it knows are two values that the loop
replaces as a whole: the moment of the last turn, and the tuple of those to tell. It touches nothing else of the node.

A program that is stopped, or that holds the interpreter's lock in C code, stops the thread as well: it is only silent.

Where datagrams do not get through, silence rules, as it does without this channel.
"""

import itertools
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kinfolk import effects as fx
from kinfolk.cookie import Hidden
from kinfolk.logs import fields
from kinfolk.shell.machine import let_go
from kinfolk.wire import frames
from kinfolk.wire.stalls import KEY_BYTES, REPORT_BYTES, Report, decode, encode, is_genuine

if TYPE_CHECKING:
    import asyncio

_log = logging.getLogger("kinfolk")

READ_AT_ONCE = 64
"""Datagrams that are looked at in one go: a few microseconds each."""
PAUSE = 0.05
"""Seconds until the next are looked at, if there are more. A flood costs no more than this lets through; what the
system's buffer does not hold is lost."""
MAX_WAITING = 4096
"""More than a system's buffer holds, usually."""


class Peer(Protocol):
    """A link to another node, as the channel needs it."""

    conn: int

    @property
    def is_open(self) -> bool:
        """Whether operations can be said and heard."""
        ...

    def post(self, operation: frames.Operation) -> None:
        """Append to the outbox."""
        ...


class Recipient(NamedTuple):
    """A peer that wants to hear of our stalls."""

    address: tuple[Any, ...]
    session: int
    key: Hidden[bytes]


@dataclass(slots=True)
class _Expected:
    """What reports of a peer must have."""

    key: Hidden[bytes]
    last: int = 0
    """The sequence number of the last one."""


def address_for(family: int, peername: tuple[Any, ...] | None, port: int) -> tuple[Any, ...] | None:
    """Where a socket of this family reaches a port of a peer; None if it cannot."""
    if not peername:
        return None
    host, _, *rest = peername
    if (":" in host) == (family == socket.AF_INET6):
        return (host, port, *rest)
    return None if family == socket.AF_INET else (f"::ffff:{host}", port)


class Sentry(threading.Thread):
    """The thread that looks whether the loop turns.

    Args:
        sock: over which it reports; it does not close it.
        stall_after: seconds without a turn after which it does.
        has_ended: whether the loop has been closed, and the node forgotten.
    """

    def __init__(self, sock: socket.socket, stall_after: float, has_ended: Callable[[], bool]) -> None:
        super().__init__(name="kinfolk: sentry", daemon=True)
        self.every = min(stall_after / 4, 60.0)
        """Seconds between two looks, and between two turns of the loop that is looked at."""
        self.turned = time.monotonic()
        """The loop's last turn; the loop writes it."""
        self.recipients: tuple[Recipient, ...] = ()
        """Whom to tell; the loop replaces it."""
        self.looks = 0
        """How often it has looked; it writes it itself."""
        self._sock = sock
        self._stall_after = stall_after
        self._has_ended = has_ended
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End soon; returns when it has."""
        self._stopped.set()
        self.join()

    def run(self) -> None:
        """Look until stopped."""
        last, excused = time.monotonic(), False
        numbers = itertools.count(1)
        while not self._stopped.wait(self.every) and not self._has_ended():
            now = time.monotonic()
            self.looks += 1
            # If we have slept for long, the whole program was stopped: now the loop, too, has its chance first.
            excused, last = now - last > self.every + self._stall_after and not excused, now
            age = now - self.turned
            if age > self._stall_after and not excused:
                self._report(next(numbers), age)

    def _report(self, number: int, age: float) -> None:
        for address, session, key in self.recipients:
            with suppress(OSError):  # no route, a full buffer: another report follows
                self._sock.sendto(encode(Report(session, number, age), key), address)


class Stalls:
    """The channel of one node.

    Args:
        name: of the node, for the log.
        open_socket: gives a UDP socket, or raises OSError.
        nonce: gives so many bytes that nobody can guess.
        submit: gives the kernel an input.
        counters: of the node.
        stall_after: seconds without a turn after which a loop stands still.
        enabled: else nobody is told and nobody is heard.
    """

    def __init__(
        self,
        name: str,
        open_socket: Callable[[], socket.socket],
        nonce: Callable[[int], bytes],
        submit: Callable[[fx.Input], None],
        counters: Counter[str],
        *,
        stall_after: float,
        enabled: bool,
    ) -> None:
        self._name = name
        self._open_socket = open_socket
        self._nonce = nonce
        self._submit = submit
        self._counters = counters
        self._stall_after = stall_after
        self._enabled = enabled
        self._loop: asyncio.AbstractEventLoop
        self._sock: socket.socket | None = None
        self._sentry: Sentry
        self._looks = 0  # of the sentry, at our last turn
        self._timer: asyncio.TimerHandle | None = None  # for the next turn
        self._deaf_until = 0.0
        self._pause: asyncio.TimerHandle | None = None  # until datagrams are looked at again
        self._expected: dict[int, _Expected] = {}
        self._recipients: dict[int, Recipient] = {}

    def start(self, loop: "asyncio.AbstractEventLoop") -> None:
        """Watch the loop, and listen for reports."""
        if not self._enabled:
            return
        try:
            self._sock = self._open_socket()
        except OSError as error:
            _log.warning(
                "%s can neither report nor hear of stalls: no UDP socket (%s). A node whose event loop stands still is"
                " taken for dead after down_after",
                self._name,
                error,
                extra=fields(self._name, reason=error),
            )
            return
        self._loop = loop
        self._sentry = Sentry(self._sock, self._stall_after, loop.is_closed)
        self._sentry.start()
        self._timer = loop.call_later(self._sentry.every, self._turn)
        self._listen()

    def let_go(self) -> None:
        """This is a fork of the program whose socket it is."""
        if self._sock is not None:
            let_go(self._sock.fileno())

    def close(self) -> None:
        """Watch and listen no longer."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        for timer in (self._timer, self._pause):
            if timer is not None:
                timer.cancel()
        self._sentry.stop()
        if self._pause is None:
            self._loop.remove_reader(sock)
        sock.close()

    # --- peers come and go ---

    def peer_up(self, peer: Peer) -> None:
        """A session is open: tell the peer where to report."""
        if self._sock is None or not peer.is_open:
            return
        key = Hidden(self._nonce(KEY_BYTES))
        self._expected[peer.conn] = _Expected(key)
        peer.post(frames.StallPort(self._sock.getsockname()[1], peer.conn, key.reveal()))

    def peer_down(self, conn: int) -> None:
        """The session is over."""
        self._expected.pop(conn, None)
        if self._recipients.pop(conn, None) is not None:
            self._sentry.recipients = tuple(self._recipients.values())

    def report_to(self, effect: fx.ReportStalls, peername: tuple[Any, ...] | None) -> None:
        """The peer of a session wants to hear of our stalls.

        Args:
            effect: how.
            peername: the peer's end of the session.
        """
        address = None if self._sock is None else address_for(self._sock.family, peername, effect.port)
        if address is not None:
            self._recipients[effect.conn] = Recipient(address, effect.session, effect.key)
            self._sentry.recipients = tuple(self._recipients.values())

    # --- our own loop ---

    def _turn(self) -> None:
        sentry, now = self._sentry, time.monotonic()
        stood, looked = now - sentry.turned, sentry.looks - self._looks
        sentry.turned, self._looks = now, sentry.looks
        self._timer = self._loop.call_later(sentry.every, self._turn)
        if stood > self._stall_after:
            self._deaf_until = now + sentry.every
        if stood > self._stall_after + sentry.every:
            self._counters["own_stalls"] += 1
            if looked * sentry.every > stood / 2:
                why = (
                    "something on it ran for that long without an await. Let it run beside the loop: in a thread (await"
                    " asyncio.to_thread(...)), or in a process of its own"
                )
            else:
                why = (
                    "so did all of the program. It was stopped, or its machine was suspended or overloaded, or code in"
                    " C held the interpreter's lock: peers heard nothing of it and may have given it up"
                )
            _log.warning(
                "%s: the event loop stood still for %.1f s: %s",
                self._name,
                stood,
                why,
                extra=fields(self._name, seconds=stood),
            )

    # --- reports of others ---

    def _listen(self) -> None:
        self._pause = None
        assert self._sock is not None, "the timer is cancelled when the socket is closed"
        self._loop.add_reader(self._sock, self._readable, self._sock)

    def _readable(self, sock: socket.socket) -> None:
        # After a stall of our own, what waits is of unknown age, and other nodes of this program are about to go on as
        # well. Whoever still stands still reports again at once. (Some loops see timers before datagrams, some after.)
        now = time.monotonic()
        deaf = now < self._deaf_until or now - self._sentry.turned > self._stall_after
        for _ in range(MAX_WAITING if deaf else READ_AT_ONCE):
            datagram = _next(sock)
            if datagram is None:
                return
            if not deaf:
                self._take(datagram)
        self._loop.remove_reader(sock)
        self._pause = self._loop.call_later(PAUSE, self._listen)

    def _take(self, datagram: bytes) -> None:
        report = decode(datagram)
        expected = None if report is None else self._expected.get(report.session)
        # The cheap questions first: only who has seen a report knows a session and a number that lead to the last one.
        if (
            report is None
            or expected is None
            or report.sequence <= expected.last
            or not is_genuine(datagram, expected.key)
        ):
            self._counters["stall_reports_dropped"] += 1
            return
        expected.last = report.sequence
        self._submit(fx.StallHeard(report.session, report.age))


def _next(sock: socket.socket) -> bytes | None:
    """The next datagram, of which a byte too many is enough to see that it is none of ours; None if none waits."""
    try:
        return sock.recv(REPORT_BYTES + 1)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:  # the fate of an earlier datagram, on some systems
        return b""
