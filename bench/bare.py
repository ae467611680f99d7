"""The physical limit: what a protocol of only a few lines does over TLS, what blocking sockets and a bare mailbox do.

`Wire` is the least that can carry messages: a length before each, one write for all that one turn of the loop brings.
"""

import asyncio
import itertools
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from bench.agent import Here
from bench.timing import Timing, burst_through, call_times, in_turn, percentiles

_LENGTH = struct.Struct("<I")
_ROOM = 256 * 1024


class Wire(asyncio.BufferedProtocol):
    """Frames of bytes over a connection, written once a turn of the loop.

    Args:
        on_frame: told of each frame that comes.
    """

    def __init__(self, on_frame: Callable[["Wire", memoryview], None]) -> None:
        self._on_frame = on_frame
        self._buffer = bytearray(_ROOM)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._out = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        view, filled, at = self._view, self._filled + nbytes, 0
        while filled - at >= 4:
            (length,) = _LENGTH.unpack_from(view, at)
            if filled - at - 4 < length:
                self._make_room(length + 4)
                break
            self._on_frame(self, view[at + 4 : at + 4 + length])
            at += 4 + length
        if at:
            self._view[: filled - at] = bytes(view[at:filled])
        self._filled = filled - at

    def _make_room(self, size: int) -> None:
        if size > len(self._buffer):
            self._buffer = bytearray(size + _ROOM)
            self._buffer[: len(self._view)] = self._view
            self._view = memoryview(self._buffer)

    def send(self, body: bytes) -> None:
        """Put a frame on its way."""
        out = self._out
        if not out:
            asyncio.get_running_loop().call_soon(self._flush)
        out += _LENGTH.pack(len(body))
        out += body

    def _flush(self) -> None:
        out, self._out = self._out, bytearray()
        # As kinfolk does: far larger writes only copy more.
        view = memoryview(out)
        for start in range(0, len(view), 64 * 1024):
            self._transport.write(view[start : start + 64 * 1024])


class Caller:
    """Calls over a `Wire`: a number before the body, which comes back with the answer."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self.wire: Wire

    def answered(self, _: Wire, frame: memoryview) -> None:
        self._waiting.pop(_LENGTH.unpack_from(frame)[0]).set_result(bytes(frame[4:]))

    async def call(self, body: bytes) -> bytes:
        number = next(self._numbers) % 2**32
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self.wire.send(_LENGTH.pack(number) + body)
        answer: bytes = await future
        return answer


class Counting:
    """Counts frames, and answers one of another size than the rest with how many there were."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._seen = 0

    def came(self, wire: Wire, frame: memoryview) -> None:
        if len(frame) == self._size:
            bytes(frame)  # what is sent is there to be kept
            self._seen += 1
        else:
            wire.send(bytes(frame[:4]) + _LENGTH.pack(self._seen))
            self._seen = 0


def _server_context(pem: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(pem)
    return context


def _client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


# --- orders: a server ---


async def serve_calls(here: Here, pem: str) -> int:
    """Send every frame back; the port. A frame of more than a KiB is answered with its first bytes only."""

    def echo(wire: Wire, frame: memoryview) -> None:
        wire.send(bytes(frame[:1024]))

    return await _serve(here, echo, pem)


async def serve_counter(here: Here, pem: str, size: int) -> int:
    """Count the frames of a size; the port."""
    return await _serve(here, Counting(size).came, pem)


async def _serve(here: Here, on_frame: Callable[[Wire, memoryview], None], pem: str) -> int:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Wire(on_frame), "127.0.0.1", 0, ssl=_server_context(pem))
    here.kept["server"] = server
    return int(server.sockets[0].getsockname()[1])


# --- orders: a client ---


async def connect(here: Here, port: int) -> None:
    """Connect to a server."""
    caller = here.kept["caller"] = Caller()
    loop = asyncio.get_running_loop()
    _, wire = await loop.create_connection(lambda: Wire(caller.answered), "127.0.0.1", port, ssl=_client_context())
    caller.wire = wire


async def times(here: Here, count: int) -> Timing:
    """Calls one after the other."""
    caller: Caller = here.kept["caller"]
    return await call_times(lambda: caller.call(b"1"), count)


async def rate(here: Here, count: int, callers: int) -> float:
    """Calls by so many callers."""
    caller: Caller = here.kept["caller"]
    return await in_turn(lambda: caller.call(b"1"), count, callers)


async def one_way(here: Here, count: int, size: int, burst: int) -> float:
    """Messages one way, as many a second as are counted at the other end."""
    caller: Caller = here.kept["caller"]
    body = bytes(size)
    return await burst_through(lambda: caller.wire.send(body), count, burst, lambda: caller.call(b"how many"))


async def large(here: Here, size: int, count: int) -> float:
    """Large messages, each answered: seconds for one."""
    caller: Caller = here.kept["caller"]
    body = bytes(size)
    start = time.perf_counter()
    for _ in range(count):
        await caller.call(body)
    return (time.perf_counter() - start) / count


# --- orders: blocking sockets ---


async def serve_blocking(here: Here, pem: str | None) -> int:
    """Send everything back, in a thread, with or without TLS; the port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if pem is not None:
            connection = _server_context(pem).wrap_socket(connection, server_side=True)
        while data := connection.recv(4096):
            connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


async def connect_blocking(here: Here, port: int, tls: bool) -> None:
    """Connect to that server."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    here.kept["socket"] = _client_context().wrap_socket(connection) if tls else connection


async def times_blocking(here: Here, count: int) -> Timing:
    """Round trips, one after the other."""
    connection: socket.socket = here.kept["socket"]
    seen: list[float] = []
    for _ in range(count):
        start = time.perf_counter()
        connection.sendall(b"1")
        connection.recv(4096)
        seen.append(time.perf_counter() - start)
    return percentiles(seen)


# --- orders: a mailbox, a task ---


class Mailbox:
    """A deque and a future: the least that a process can be sent to with."""

    def __init__(self) -> None:
        self._messages: deque[Any] = deque()
        self._wake: asyncio.Future[None] | None = None

    def put(self, message: object) -> None:
        self._messages.append(message)
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    async def get(self) -> Any:
        messages = self._messages
        while not messages:
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
            self._wake = None
        return messages.popleft()


async def local_cast(here: Here, count: int, burst: int) -> float:
    """Messages through a mailbox, to a task that counts them."""
    mailbox = Mailbox()

    async def counter() -> None:
        seen = 0
        while True:
            message = await mailbox.get()
            if isinstance(message, asyncio.Future):
                message.set_result(seen)
                seen = 0
            else:
                seen += 1

    async def how_many() -> object:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        mailbox.put(future)
        return await future

    task = asyncio.create_task(counter())
    try:
        return await burst_through(lambda: mailbox.put("hello"), count, burst, how_many)
    finally:
        task.cancel()


async def local_call(here: Here, count: int) -> float:
    """Calls through a mailbox: a body and a future; seconds for each."""
    mailbox = Mailbox()

    async def echo() -> None:
        while True:
            body, future = await mailbox.get()
            future.set_result(body)

    async def call(body: object) -> object:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        mailbox.put((body, future))
        return await future

    task = asyncio.create_task(echo())
    start = time.perf_counter()
    for _ in range(count):
        await call(1)
    task.cancel()
    return (time.perf_counter() - start) / count


async def local_spawn(here: Here, count: int) -> float:
    """Tasks that end at once: seconds for each."""

    async def nothing() -> None:
        pass

    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    for _ in range(count // 1000):
        for task in [loop.create_task(nothing()) for _ in range(1000)]:
            await task
    return (time.perf_counter() - start) / count
