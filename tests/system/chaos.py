"""A network that breaks on demand: a TCP proxy for every dialler and every listener, on loopback.

Within TLS a proxy cannot see who dials. So each dialler reaches each listener by a port of its own, which its worker
puts in place of the listener's (`worker.routed_loop`); the names of the nodes stay those of the listeners.

    stall   nothing arrives any longer, nobody is told: what was sent waits, and arrives after `heal`
    cut     every connection is reset, nobody can connect
    drop    every connection is reset, once
    forget  every connection is reset at one end, the other is told nothing
    trickle a byte arrives now and then, in its turn
    freeze  the connections of this moment are stalled for ever, new ones are as good as ever
"""

import asyncio
import socket
import struct
from collections.abc import Iterable
from functools import partial
from typing import Self

from tests.system.fleet import Fleet

_READ = 64 * 1024


class Lane:
    """What goes from one node to another, in all their connections."""

    def __init__(self) -> None:
        self.moving = asyncio.Event()
        self.moving.set()
        self.delay = 0.0
        self.trickles = 0.0
        """Seconds for each byte; 0 for as many as there are, at once."""
        self.bytes = 0


class Connection:
    """One dialled connection: two sockets and a pump each way. Carried by one task."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far
        self.kept: socket.socket | None = None
        """The end that is told nothing of a reset."""
        self.thawed = asyncio.Event()
        self.thawed.set()

    async def carry(self, target: int, there: Lane, back: Lane) -> None:
        """Connect, and carry bytes until both ends have ended; end with a reset if one of them did, or if cancelled."""
        loop = asyncio.get_running_loop()
        try:
            await there.moving.wait()  # the SYN would wait as well, and what answers it
            await back.moving.wait()
            await loop.sock_connect(self.far, ("127.0.0.1", target))
            async with asyncio.TaskGroup() as pumps:
                self._pump(pumps, self.near, self.far, there, back)
                self._pump(pumps, self.far, self.near, back, there)
        except BaseException as error:
            for sock in (self.near, self.far):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if self.kept is not None:
                (self.near if self.kept is self.far else self.far).close()
                await asyncio.Event().wait()  # until it is cancelled again
            if not isinstance(error, OSError | ExceptionGroup):
                raise
        finally:
            self.near.close()
            self.far.close()

    def _pump(
        self, pumps: asyncio.TaskGroup, source: socket.socket, sink: socket.socket, lane: Lane, back: Lane
    ) -> None:
        """Carry bytes one way, and then the end, in order, each as late as the lane wants it."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(16)

        async def read() -> None:
            data: bytes | None = None
            while data != b"":
                try:
                    data = await loop.sock_recv(source, 1 if lane.trickles else _READ)
                except OSError:
                    data = None
                await waiting.put((loop.time() + lane.delay, data))
                if data is None:
                    return

        async def write() -> None:
            data: bytes | None = None
            while data != b"":
                due, data = await waiting.get()
                if due > loop.time():
                    await asyncio.sleep(due - loop.time())
                if lane.trickles:
                    await asyncio.sleep(lane.trickles)
                await self._moving(lane)
                if data is None:
                    raise ConnectionResetError
                try:
                    if data:
                        lane.bytes += len(data)
                        await loop.sock_sendall(sink, data)
                    else:
                        sink.shutdown(socket.SHUT_WR)
                except OSError:
                    await self._moving(back)  # the news of it goes the other way
                    raise

        pumps.create_task(read())
        pumps.create_task(write())

    def reset(self) -> None:
        """End both ends with RST."""
        for sock in (self.near, self.far):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    async def _moving(self, lane: Lane) -> None:
        while not (self.thawed.is_set() and lane.moving.is_set()):
            await self.thawed.wait()
            await lane.moving.wait()


class Proxy:
    """The way from one dialler to one listener."""

    def __init__(self, there: Lane, back: Lane, target: int) -> None:
        self.there, self.back = there, back
        self.connections: dict[Connection, asyncio.Task[None]] = {}
        self.accepted = 0
        self.resets = False
        self._target = target
        self._accepting: asyncio.Task[None] | None = None
        self._listener = _listen(0)
        self.port: int = self._listener.getsockname()[1]

    def open(self) -> None:
        """Accept connections."""
        if self._accepting is None:
            if self._listener.fileno() < 0:
                self._listener = _listen(self.port)
            self._accepting = asyncio.create_task(self._accept(self._listener))

    async def refuse(self) -> None:
        """Accept no more connections."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.wait([self._accepting])
            self._accepting = None
        self._listener.close()

    async def reset(self) -> None:
        """End every connection with RST at both ends."""
        tasks = list(self.connections.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            near, _ = await loop.sock_accept(listener)
            self.accepted += 1
            near.setblocking(False)
            far = socket.socket()
            far.setblocking(False)
            connection = Connection(near, far)
            if self.resets:
                connection.reset()
                continue
            task = asyncio.create_task(connection.carry(self._target, self.there, self.back))
            self.connections[connection] = task
            task.add_done_callback(partial(self._ended, connection))

    def _ended(self, connection: Connection, _: asyncio.Task[None]) -> None:
        del self.connections[connection]


class Network:
    """All ways between some words of a fleet. Make it before their workers enter."""

    def __init__(self, fleet: Fleet, words: Iterable[str]) -> None:
        self.words = tuple(words)
        self.lanes = {(a, b): Lane() for a in self.words for b in self.words if a != b}
        self.proxies: dict[tuple[str, str], Proxy] = {}
        for word in self.words:
            fleet.name(word)
        for a, b in self.lanes:
            proxy = self.proxies[a, b] = Proxy(self.lanes[a, b], self.lanes[b, a], fleet.ports[b])
            fleet.routes.setdefault(a, {})[fleet.ports[b]] = proxy.port

    async def __aenter__(self) -> Self:
        for proxy in self.proxies.values():
            proxy.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        for proxy in self.proxies.values():
            await proxy.refuse()
            await proxy.reset()

    def stall(self, senders: Iterable[str], receivers: Iterable[str]) -> None:
        """Nothing that these send arrives at those."""
        for a, b in _pairs(senders, receivers):
            self.lanes[a, b].moving.clear()

    def trickle(self, senders: Iterable[str], receivers: Iterable[str], seconds: float) -> None:
        """What these send arrives at those byte by byte, one in so many seconds."""
        for a, b in _pairs(senders, receivers):
            self.lanes[a, b].trickles = seconds

    def part(self, some: Iterable[str], others: Iterable[str]) -> None:
        """Stall everything between the two sets."""
        some, others = tuple(some), tuple(others)
        self.stall(some, others)
        self.stall(others, some)

    async def cut(self, some: Iterable[str], others: Iterable[str]) -> None:
        """Reset everything between the two sets, and refuse connections."""
        for a, b in _both_ways(some, others):
            await self.proxies[a, b].refuse()
            await self.proxies[a, b].reset()

    async def drop(self, some: Iterable[str], others: Iterable[str]) -> None:
        """Reset every connection between the two sets."""
        for a, b in _both_ways(some, others):
            await self.proxies[a, b].reset()

    def forget(self, loser: str, other: str) -> None:
        """Reset every connection between the two at the loser's end alone; the other's bytes go nowhere."""
        for pair in ((loser, other), (other, loser)):
            for connection, task in self.proxies[pair].connections.items():
                connection.kept = connection.far if pair[0] == loser else connection.near
                task.cancel()

    def freeze(self, some: Iterable[str], others: Iterable[str]) -> None:
        """Let nothing move any longer in the connections that there are between the two sets."""
        for a, b in _both_ways(some, others):
            for connection in self.proxies[a, b].connections:
                connection.thawed.clear()

    def slow(self, seconds: float) -> None:
        """Everything takes so long, each way."""
        for lane in self.lanes.values():
            lane.delay = seconds

    def heal(self) -> None:
        """Everything moves, and everybody can connect."""
        for lane in self.lanes.values():
            lane.trickles = 0.0
            lane.moving.set()
        for proxy in self.proxies.values():
            proxy.open()

    def connections(self) -> int:
        """How many there are."""
        return sum(len(proxy.connections) for proxy in self.proxies.values())


def _listen(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(64)
    sock.setblocking(False)
    return sock


def _pairs(some: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    others = tuple(others)
    return [(a, b) for a in some for b in others if a != b]


def _both_ways(some: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    there = _pairs(some, others)
    return [*there, *((b, a) for a, b in there)]
