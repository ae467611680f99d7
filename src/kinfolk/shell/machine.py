"""The machine that a node runs on: its network, its clocks, its random numbers.

All that a node has of the world outside its program comes through here, so that a simulated machine can take the place
of the real one (`kinfolk.testing`). What goes over a connection, and what becomes of it, is not decided here but in the
transport: a machine carries bytes between two ends, each of which learns by which certificate the other is known.
"""

import asyncio
import errno
import os
import random
import secrets
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Any, NamedTuple

from kinfolk.cookie import Cookie
from kinfolk.errors import RemoteProtocolError
from kinfolk.ids import Address
from kinfolk.shell.ending import LoopEnd
from kinfolk.shell.tls import SERVER_NAME, Credentials, OwnCertificates, Papers, named_nodes, peer_fingerprint

SHUTDOWN_TIMEOUT = 1.0
"""Seconds in which the other end must take what we still have to say to it when a connection is closed."""
TLS_TIMEOUT = 10.0
"""Seconds for TLS alone. Whoever connects has a shorter limit, which covers the rest as well."""
ACCEPT_AT_ONCE = 64

_TLS_HANDSHAKE = b"\x16"
"""The first byte of every TLS connection: the content type of a handshake record (RFC 8446, 5.1)."""

Protocol = Callable[[], asyncio.BufferedProtocol]
"""Makes the protocol of a connection that is ready for it: the bytes from here on are the session's."""


class OtherEnd(NamedTuple):
    """Who is at the other end of a connection, as far as its certificate says."""

    fingerprint: bytes
    names: frozenset[str] | None
    """The URIs in it; None where certificates name nobody."""


class Caller(ABC):
    """Somebody who has connected to us, and of whom we know nothing yet."""

    host: str
    """Whence, for the log and for the bounds on what one host may take up."""

    @abstractmethod
    async def secure(self, papers: Papers, protocol: Protocol) -> None:
        """Show our papers and see the caller's; return when the protocol has its connection.

        Raises:
            OSError: the connection has ended, or the other end's papers are no good.
            RemoteProtocolError: it does not speak as a node does.
        """

    @abstractmethod
    def close(self) -> None:
        """End a connection that no protocol has been made for."""


class Port(ABC):
    """Where a node is reached, from when it knows its name."""

    number: int

    @abstractmethod
    def listen(
        self,
        loop: asyncio.AbstractEventLoop,
        accepted: Callable[[Caller], None],
        failed: Callable[[OSError], None],
    ) -> None:
        """From now on tell of everybody who connects, and of what keeps us from letting them: then it tries again."""

    @abstractmethod
    def close(self) -> None:
        """Free the port."""

    def let_go(self) -> None:  # noqa: B027 - a port of no system's has nothing to do
        """This is a fork of the program whose port it is: keep nobody from it when that program has gone."""

    def datagrams(self) -> socket.socket:
        """A UDP socket, not blocking, at the same host, and of the same number if that is free; for a thread.

        Raises:
            OSError: none can be had.
        """
        raise OSError("this machine has no datagrams")


class Machine(ABC):
    """What a node needs of the world outside its program."""

    has_threads: bool
    """Whether a node may have threads, and sockets of theirs, beside its loop. Nothing that matters to what it does
    may depend on them where not."""

    def context(self) -> Context | None:
        """The context in which a task of the node begins; None for that of whoever starts it."""
        return None

    @abstractmethod
    def environment(self) -> dict[str, Any]:
        """Where settings come from that no argument gives: what `settings.resolve` takes beside the arguments."""

    @abstractmethod
    def papers(self, cookies: Sequence[Cookie], own: OwnCertificates | None) -> Papers:
        """What a node with these cookies identifies itself with. Raises as `Credentials.of` does."""

    @abstractmethod
    def bind(self, address: Address) -> Port:
        """Take a port; number 0 takes a free one.

        Raises:
            OSError: which address could not be bound, and the likely cause.
        """

    @abstractmethod
    async def dial(self, loop: asyncio.AbstractEventLoop, address: Address, papers: Papers, protocol: Protocol) -> None:
        """Connect to whoever listens there; return when the protocol has its connection. Raises OSError."""

    def at_close(self, loop: asyncio.AbstractEventLoop, closed: Callable[[], None]) -> Callable[[], None]:
        """Call something in the step in which this loop is closed. Returns what makes that undone."""
        return LoopEnd(loop, closed).cancel

    async def resolve(self, host: str, port: int) -> set[Address]:
        """All addresses of a host, IPv4 and IPv6, each with the port. Raises OSError if there is none."""
        raise OSError(f"this machine has no DNS that knows {host} (and port {port})")

    @abstractmethod
    def other_end(self, transport: asyncio.BaseTransport, papers: Papers) -> OtherEnd:
        """Who is at the other end of a connection that a protocol has got."""

    @abstractmethod
    def wall_clock(self) -> int:
        """Nanoseconds since 1970, as far as anybody knows."""

    @abstractmethod
    def monotonic(self) -> float:
        """The seconds of a node that has no loop yet, or no longer."""

    @abstractmethod
    def random(self) -> random.Random:
        """Random numbers that need not be secret: for jitter."""

    @abstractmethod
    def nonce(self, size: int) -> bytes:
        """Bytes that nobody can guess."""


class RealMachine(Machine):
    """The one that this program runs on: TLS over TCP."""

    has_threads = True

    def environment(self) -> dict[str, Any]:
        """That of this program, and the current directory."""
        return {}

    def papers(self, cookies: Sequence[Cookie], own: OwnCertificates | None) -> Papers:
        """Certificates for TLS."""
        return Credentials.of(cookies, own)

    def bind(self, address: Address) -> Port:
        """A listening socket."""
        return _TcpPort(listening(address))

    async def dial(self, loop: asyncio.AbstractEventLoop, address: Address, papers: Papers, protocol: Protocol) -> None:
        """TCP, then TLS."""
        assert isinstance(papers, Credentials), "papers() of this machine gives them"
        await loop.create_connection(
            protocol,
            address.host,
            address.port,
            ssl=papers.client,
            server_hostname=SERVER_NAME,
            ssl_handshake_timeout=TLS_TIMEOUT,
            ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
        )

    async def resolve(self, host: str, port: int) -> set[Address]:
        """As the system does it: by its hosts file, DNS, or whatever it is set up for."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise OSError(error.errno, f"{host} has no address: {error.strerror}") from None
        return {Address(str(entry[4][0]), port) for entry in found}

    def other_end(self, transport: asyncio.BaseTransport, papers: Papers) -> OtherEnd:
        """By its TLS certificate."""
        tls = transport.get_extra_info("ssl_object")
        return OtherEnd(peer_fingerprint(tls), named_nodes(tls) if papers.names_nodes else None)

    def wall_clock(self) -> int:
        """The system's."""
        return time.time_ns()

    def monotonic(self) -> float:
        """The system's."""
        return time.monotonic()

    def random(self) -> random.Random:
        """Seeded by the system."""
        return random.Random()  # noqa: S311 - no secret

    def nonce(self, size: int) -> bytes:
        """From the system."""
        return secrets.token_bytes(size)


class _TcpPort(Port):
    def __init__(self, sock: socket.socket) -> None:
        self.number = sock.getsockname()[1]
        self._sock = sock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._accepted: Callable[[Caller], None]
        self._failed: Callable[[OSError], None]
        self._pause: asyncio.TimerHandle | None = None  # until the port is looked at again

    def listen(
        self,
        loop: asyncio.AbstractEventLoop,
        accepted: Callable[[Caller], None],
        failed: Callable[[OSError], None],
    ) -> None:
        self._loop, self._accepted, self._failed = loop, accepted, failed
        self._listen(loop)

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        elif self._loop is not None:
            self._loop.remove_reader(self._sock)
        self._sock.close()

    def let_go(self) -> None:
        let_go(self._sock.fileno())

    def datagrams(self) -> socket.socket:
        return datagrams_beside(self._sock)

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        self._pause = None
        loop.add_reader(self._sock, self._accept_waiting, loop)

    def _accept_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take in the connections that wait at our port, a bounded number in one turn of the loop."""
        for _ in range(ACCEPT_AT_ONCE):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Out of descriptors or memory: those that are there go on, new ones wait in the kernel's queue.
                self._failed(error)
                loop.remove_reader(self._sock)
                self._pause = loop.call_later(1.0, self._listen, loop)
                return
            sock.setblocking(False)
            self._accepted(TcpCaller(loop, sock, str(address[0])))


class TcpCaller(Caller):
    """Somebody whose TCP connection has been accepted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, host: str) -> None:
        self._loop, self._sock, self.host = loop, sock, host

    async def secure(self, papers: Papers, protocol: Protocol) -> None:
        """TLS."""
        assert isinstance(papers, Credentials), "papers() of this machine gives them"
        await _tls_begins(self._loop, self._sock)
        await self._loop.connect_accepted_socket(
            protocol,
            self._sock,
            ssl=papers.server,
            ssl_handshake_timeout=TLS_TIMEOUT,
            ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
        )

    def close(self) -> None:
        """Close the socket. Once asyncio has made a transport of it, that is asyncio's business."""
        self._sock.close()


def listening(address: Address) -> socket.socket:
    """A listening socket at this address, not blocking. Port 0 takes a free one.

    Raises:
        OSError: which address could not be bound, and the likely cause.
    """
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from None
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(1024)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}{_advice(error)}") from None
    return sock


def _advice(error: OSError) -> str:
    """What to do if an address cannot be bound; nothing if only the system knows."""
    if error.errno == errno.EADDRINUSE:
        return "; is another node running there? End it, or take another port"
    if error.errno == errno.EADDRNOTAVAIL:
        return "; it is no address of this machine: name one that is, or say which to bind with listen"
    return ""


def datagrams_beside(listener: socket.socket) -> socket.socket:
    """A UDP socket at the host of a listener, and of the same number if that is free. Raises OSError."""
    host, port, *rest = listener.getsockname()
    sock = socket.socket(listener.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        try:
            sock.bind((host, port, *rest))
        except OSError:
            sock.bind((host, 0, *rest))
    except OSError:
        sock.close()
        raise
    return sock


def let_go(descriptor: int) -> None:
    """Give up what a fork has inherited of a socket; it would stay open for the other end as long as the fork lives.

    The descriptor stays taken: whoever closes the socket here later would else close something else.
    """
    if descriptor < 0:
        return  # closed
    with suppress(OSError):  # no descriptor is free
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, descriptor, inheritable=False)
        os.close(null)


async def _tls_begins(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    """Wait for the first byte of a TLS handshake. asyncio's TLS takes 300 KiB from the start: not for just anybody.

    Raises:
        RemoteProtocolError: something else has come.
        ConnectionResetError: the other end has closed.
    """
    come = asyncio.Event()
    loop.add_reader(sock, come.set)
    try:
        await come.wait()
    finally:
        loop.remove_reader(sock)
    first = sock.recv(1, socket.MSG_PEEK)
    if not first:
        raise ConnectionResetError("closed without a word")
    if first != _TLS_HANDSHAKE:
        raise RemoteProtocolError("what it says is not TLS: no kinfolk node")
