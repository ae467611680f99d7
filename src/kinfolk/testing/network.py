"""A network in memory: hosts with ports, connections with latency, and every way in which they fail.

It works on any event loop; on a simulated one, whatever happens in it is decided by the seed. Connections behave like
TCP's with TLS: bytes arrive in order or not at all, who does not read makes the other end wait, a stall holds bytes
back until it is over, and what a host says before it has noticed that the other is gone is lost. Who is at the other
end is known by papers made up for each program, in place of certificates; the handshake inside is the real one.
"""

import asyncio
import errno
import random
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from functools import cache
from hashlib import sha256
from typing import Any

from kinfolk.cookie import Cookie, ProofKeys
from kinfolk.ids import Address
from kinfolk.shell.machine import Caller, Machine, OtherEnd, Port, Protocol
from kinfolk.shell.tls import OwnCertificates, Papers
from kinfolk.testing.loop import PROGRAM, Program, SimulatedLoop

LATENCY = 0.0002, 0.005
FIRST_FREE_PORT = 49152
_ANY = "0.0.0.0"  # noqa: S104 - nothing is bound
HIGH_WATER = 64 * 1024
"""Bytes under way, above which the writer is asked to wait."""


class Network:
    """Hosts by name, and what is between them.

    Args:
        rng: decides the latencies, and everything that a program on one of the hosts takes as random.
        latency: seconds that bytes are under way, at least and at most.
        note: told of what happens, in words; None if nobody wants to know.
        wall_clock: the right time, in nanoseconds since 1970.
    """

    def __init__(
        self,
        rng: random.Random,
        latency: tuple[float, float] = LATENCY,
        note: Callable[..., None] | None = None,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.rng = rng
        self.latency = latency
        self._note = note
        self.wall_clock = wall_clock
        self.ports: dict[Address, _MemoryPort] = {}
        self._stalled: set[tuple[str, str]] = set()
        self._dark: set[str] = set()  # hosts without power: nobody there says that nobody is there
        self._ends: dict[_End, None] = {}
        self._waiting: dict[asyncio.Future[None], None] = {}  # dials that nothing answers
        self._numbers = 0

    # --- what a program sees of it ---

    def number(self) -> int:
        """One that has not been given yet."""
        self._numbers += 1
        return self._numbers

    def delay(self) -> float:
        """How long something is under way."""
        low, high = self.latency
        return low + (high - low) * self.rng.random()

    def note(self, what: str, who: str, whom: str, data: bytes | None = None) -> None:
        """Something has happened."""
        if self._note is not None:
            self._note(what, who, whom, *(() if data is None else (len(data), f"{zlib.crc32(data):08x}")))

    def is_on(self, host: str) -> bool:
        """Whether a host has power."""
        return host not in self._dark

    def passes(self, source: str, target: str) -> bool:
        """Whether what one host says arrives at the other."""
        return (source, target) not in self._stalled

    async def dial(self, machine: "MemoryMachine", address: Address, papers: Papers, protocol: Protocol) -> None:
        """Connect a program to whoever listens at an address. Raises OSError."""
        here, there = machine.host, address.host
        self.note("dials", here, str(address))
        await asyncio.sleep(self.delay())
        while not (self.passes(here, there) and self.passes(there, here)) or there in self._dark:
            await self._until_healed()
        port = self.ports.get(address)
        if port is None:
            await asyncio.sleep(self.delay())
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        near, far = _End(self, machine.program, here, there), _End(self, port.machine.program, there, here)
        near.other, far.other = far, near
        self._ends[near] = self._ends[far] = None
        try:
            port.accept(_MemoryCaller(far))
            near.show(papers)
            await near.ready
        except BaseException:
            near.abort()
            raise
        near.attach(protocol())

    async def _until_healed(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        try:
            await future
        finally:
            self._waiting.pop(future, None)

    # --- what goes wrong ---

    def stall(self, source: str, target: str) -> None:
        """Let nothing arrive at the target from the source any more; the other way is as before."""
        self._stalled.add((source, target))
        self.note("stall", source, target)

    def heal(self, pairs: Iterable[tuple[str, str]] | None = None) -> None:
        """Let everything arrive again, or what goes between these (source, target)."""
        healed = self._stalled.copy() if pairs is None else self._stalled & set(pairs)
        self._stalled -= healed
        for source, target in sorted(healed):
            self.note("heal", source, target)
        for future in list(self._waiting):
            if not future.done():
                future.set_result(None)
        for end in list(self._ends):
            end.pushed()

    def cut(self, one: str, other: str) -> None:
        """Reset every connection between two hosts; what was under way is lost. New ones are possible."""
        self.note("cut", one, other)
        for end in list(self._ends):
            if {end.host, end.other.host} == {one, other}:
                end.reset()

    def crash(self, program: Program, host: str, *, power: bool = False) -> None:
        """A program is gone: its host closes its connections. With its power gone as well, nobody is told anything."""
        self.note("power" if power else "crash", host, program.name)
        for address in [at for at, port in self.ports.items() if port.machine.program is program]:
            del self.ports[address]
        if power:
            self._dark.add(host)
        for end in [end for end in self._ends if end.program is program]:
            end.die(tell=not power)

    def power_on(self, host: str) -> None:
        """There is somebody again who says that nobody is there."""
        if host in self._dark:
            self._dark.discard(host)
            self.heal(())

    @property
    def breaks(self) -> bool:
        """Whether a connection has been lost and an end of it has yet to notice."""
        return any(end.is_lost for end in self._ends)

    # --- for ends ---

    def forget(self, end: "_End") -> None:
        """A connection has ended here."""
        self._ends.pop(end, None)


class _End(asyncio.Transport):
    """One end of a connection: what it writes is under way until it arrives at the other."""

    other: "_End"
    papers: Papers
    """Those of this end."""

    def __init__(self, network: Network, program: Program, host: str, there: str) -> None:
        super().__init__()
        self._network = network
        self._loop = asyncio.get_running_loop()
        self.program, self.host, self._there = program, host, there
        self.ready: asyncio.Future[None] = self._loop.create_future()
        """Done when the other end has shown its papers; or with the reason why it has not."""
        self._context = Context()  # that of whoever dials or accepts is none of the connection's business
        self._context.run(PROGRAM.set, program)
        self._protocol: asyncio.BufferedProtocol | None = None
        self._closing = self._gone = self._mute = self._dead = False
        self._under_way: deque[tuple[float, bytes | Papers | OSError | None]] = deque()  # None: nothing more comes
        self._size = 0
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._reads = True
        self._writer_waits = False
        self._high = HIGH_WATER

    def __repr__(self) -> str:
        return f"<connection {self.host} to {self._there}>"

    def show(self, papers: Papers) -> None:
        """Let the other end see our papers."""
        self.papers = papers
        self._send(papers)

    @property
    def is_lost(self) -> bool:
        """Whether it has been reset, and has not noticed."""
        return self._mute and not self._gone

    def attach(self, protocol: asyncio.BufferedProtocol) -> None:
        """Both ends have seen each other's papers: the connection is this protocol's."""
        self._protocol = protocol
        self._context.run(protocol.connection_made, self)
        if self._gone:
            self._call(protocol.connection_lost, ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
        self.other.pushed()

    def _call(self, method: Callable[..., object], *args: object) -> None:
        self._loop.call_soon(method, *args, context=self._context)

    def pushed(self) -> None:
        """What kept bytes from arriving may have gone."""
        end = self if self.other._dead else self.other  # nothing runs any longer where it was to arrive
        end._call(self._go_on)

    # --- asyncio's side ---

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The papers of the other end, as "papers"."""
        return self.other.papers if name == "papers" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Ask the writer to wait above `high` bytes under way."""
        self._high = HIGH_WATER if high is None else high

    def get_write_buffer_size(self) -> int:
        """Bytes under way."""
        return self._size

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        if self._closing or not data:
            return
        self._size += len(data)
        self._send(bytes(data))
        if self._size > self._high and not self._writer_waits and self._protocol is not None:
            self._writer_waits = True
            self._protocol.pause_writing()

    def is_closing(self) -> bool:
        """Whether it is closed, by whichever end."""
        return self._closing

    def pause_reading(self) -> None:
        """Leave what arrives where it is."""
        self._reads = False

    def resume_reading(self) -> None:
        """Go on."""
        if not self._reads:
            self._reads = True
            self.other.pushed()

    def is_reading(self) -> bool:
        """Whether it does."""
        return self._reads and not self._closing

    def close(self) -> None:
        """Close once everything is under way; the other end hears of it after that."""
        if not self._closing:
            self._closing = True
            self._send(None)
            self._over(None)

    def abort(self) -> None:
        """Close at once: what is under way is lost."""
        if not self._closing:
            self._closing = True
            self._lose()
            self._over(None)

    # --- what goes to the other end ---

    def _send(self, what: bytes | Papers | OSError | None) -> None:
        if self._mute:
            return
        self._last = max(self._last, self._loop.time() + self._network.delay())
        self._under_way.append((self._last, what))
        if self._timer is None:
            self._arm()

    def _lose(self) -> None:
        """Nothing of what is under way arrives, but that the connection is gone."""
        self._under_way.clear()
        self._size = 0
        self._send(_reset())

    def _arm(self) -> None:
        # What arrives is the other program's business, and happens there.
        self._timer = self._loop.call_at(self._under_way[0][0], self._is_due, context=self.other._context)

    def _is_due(self) -> None:
        self._timer = None
        self._go_on()

    def _go_on(self) -> None:
        """Let arrive what is due, unless something keeps it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        other = self.other
        while self._under_way and self._network.passes(self.host, self._there):
            if other._dead:
                if self._network.is_on(self._there):
                    self.reset()  # the host is there, and knows of no such connection
                return
            due, what = self._under_way[0]
            if due > self._loop.time():
                self._arm()
                return
            if isinstance(what, bytes):
                if not other._takes():
                    return
                self._size -= len(what)
                self._go_on_writing()
            self._under_way.popleft()
            other._arrived(what)
        if self._gone and not self._under_way:
            self._network.forget(self)

    def _go_on_writing(self) -> None:
        if self._writer_waits and 4 * self._size < self._high and self._protocol is not None:
            self._writer_waits = False
            if not self._closing:
                self._call(self._protocol.resume_writing)

    # --- what comes from it ---

    def _takes(self) -> bool:
        """Whether bytes can be taken in now. Those for an end that is closed are taken in and lost."""
        return self._closing or (self._protocol is not None and self._reads)

    def _arrived(self, what: bytes | Papers | OSError | None) -> None:
        if isinstance(what, Papers):
            if not self.ready.done():
                self.ready.set_result(None)
        elif not isinstance(what, bytes):
            self._ended(what)
        elif not self._closing:
            self._network.note("bytes", self._there, self.host, what)
            self._feed(what)

    def _feed(self, data: bytes) -> None:
        protocol, size = self._protocol, len(data)
        assert protocol is not None, "nothing arrives before that"
        room = memoryview(protocol.get_buffer(size))
        if len(room) >= size:  # as nearly always
            room[:size] = data
            protocol.buffer_updated(size)
            return
        rest = memoryview(data)
        while rest and not self._closing:
            room = memoryview(protocol.get_buffer(len(rest)))
            count = min(len(room), len(rest))
            room[:count], rest = rest[:count], rest[count:]
            protocol.buffer_updated(count)

    def _ended(self, error: OSError | None) -> None:
        """The other end has closed, or is gone."""
        if self._closing:
            return
        self._closing = True
        if error is None:
            self._send(None)
        self._over(error)

    def _over(self, error: OSError | None) -> None:
        self._gone = True
        self._network.note("ends", self.host, self._there)
        if not self.ready.done():
            self.ready.set_exception(error or _reset())
            self.ready.exception()  # whoever waits for it may have given up
        if self._protocol is not None:
            self._call(self._protocol.connection_lost, error)
        if not self._under_way:
            self._network.forget(self)

    # --- faults ---

    def reset(self) -> None:
        """The connection is lost for this end, in a moment; nobody hears what it says until then."""
        self._mute = True
        self._under_way.clear()
        self._size = 0
        self._loop.call_later(self._network.delay(), self._ended, _reset(), context=self._context)

    def die(self, *, tell: bool) -> None:
        """This end is no more; its host says so to the other, or does not."""
        self._closing = self._gone = True
        self._under_way.clear()
        if tell:
            self._lose()
        else:
            self._network.forget(self)
        self._mute = self._dead = True


def _reset() -> OSError:
    return ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")


class _MemoryCaller(Caller):
    def __init__(self, end: _End) -> None:
        self.host = end._there
        self._end = end

    async def secure(self, papers: Papers, protocol: Protocol) -> None:
        end = self._end
        end.show(papers)
        await end.ready
        if end.is_closing():
            raise _reset()
        end.attach(protocol())

    def close(self) -> None:
        self._end.abort()


class _MemoryPort(Port):
    def __init__(self, machine: "MemoryMachine", address: Address) -> None:
        self.number = address.port
        self.machine = machine
        self._address = address
        self._accepted: Callable[[Caller], None] | None = None
        self._queue: list[Caller] = []

    def accept(self, caller: Caller) -> None:
        """Somebody connects. As long as nobody listens yet, the caller waits, as in a kernel's queue."""
        if self._accepted is None:
            self._queue.append(caller)
        else:
            context = self.machine.program.context()
            asyncio.get_running_loop().call_soon(self._accepted, caller, context=context)

    def listen(
        self,
        loop: asyncio.AbstractEventLoop,
        accepted: Callable[[Caller], None],
        failed: Callable[[OSError], None],
    ) -> None:
        self._accepted = accepted
        for caller in self._queue:
            self.accept(caller)
        self._queue.clear()

    def close(self) -> None:
        for caller in self._queue:
            caller.close()
        ports = self.machine.network.ports
        if ports.get(self._address) is self:
            del ports[self._address]


@cache
def _proof_keys(cookie: Cookie) -> ProofKeys:
    """They take a while to compute, and a cluster for tests has always the same."""
    return cookie.proof_keys()


class MemoryMachine(Machine):
    """A machine of a network in memory, for one program.

    Args:
        network: that it is in.
        host: its name there.
        program: that runs on it.
        skew: seconds by which its wall clock is wrong.
    """

    has_threads = False

    def __init__(self, network: Network, host: str, program: Program, skew: float = 0.0) -> None:
        self.network = network
        self.host, self.program = host, program
        self.skew = skew

    def environment(self) -> dict[str, Any]:
        """Nothing: no environment and no file."""
        return {"environ": {}, "directory": None}

    def papers(self, cookies: Sequence[Cookie], own: OwnCertificates | None) -> Papers:
        """Made up, and those of no other program."""
        if own is not None:
            raise ValueError("there is no TLS in a network in memory: leave out tls=..., or test it over loopback")
        name = f"{self.host} {self.network.number()}"
        keys = tuple(map(_proof_keys, cookies))
        return Papers(sha256(name.encode()).digest(), keys)

    def bind(self, address: Address) -> Port:
        """Take a port of this host."""
        ports = self.network.ports
        if address.host not in (self.host, _ANY):
            raise OSError(errno.EADDRNOTAVAIL, f"cannot listen on {address}: this machine is {self.host}")
        number = address.port
        if number == 0:
            number = next(n for n in range(FIRST_FREE_PORT, 65536) if Address(self.host, n) not in ports)
        where = Address(self.host, number)
        if where in ports:
            raise OSError(errno.EADDRINUSE, f"cannot listen on {where}: Address already in use")
        port = ports[where] = _MemoryPort(self, where)
        return port

    async def dial(self, loop: asyncio.AbstractEventLoop, address: Address, papers: Papers, protocol: Protocol) -> None:
        """See `Network.dial`."""
        await self.network.dial(self, address, papers, protocol)

    def at_close(self, loop: asyncio.AbstractEventLoop, closed: Callable[[], None]) -> Callable[[], None]:
        """Not of a simulated loop: it notices when nothing will ever happen any more, and a timer always will."""
        if isinstance(loop, SimulatedLoop):
            return lambda: None
        return super().at_close(loop, closed)

    def other_end(self, transport: asyncio.BaseTransport, papers: Papers) -> OtherEnd:
        """By its papers, which name nobody."""
        return OtherEnd(transport.get_extra_info("papers").fingerprint, None)

    def wall_clock(self) -> int:
        """That of the simulation, and as wrong as this machine's."""
        return self.network.wall_clock() + int(self.skew * 1e9)

    def monotonic(self) -> float:
        """That of the loop."""
        return asyncio.get_running_loop().time()

    def context(self) -> Context:
        """Everything that the node starts belongs to its program."""
        return self.program.context()

    def random(self) -> random.Random:
        """Seeded by the network."""
        return random.Random(self.network.rng.getrandbits(64))  # noqa: S311 - repeatable is what it has to be

    def nonce(self, size: int) -> bytes:
        """From the network."""
        return self.network.rng.randbytes(size)
