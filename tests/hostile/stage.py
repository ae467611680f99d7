"""A node under attack, without sockets: what mallory says is taken in within the same turn of the loop.

The node is a whole one, but for TLS: its loop hands it connections that are two lists of bytes. So a thousand
handshakes take a second, and everything from the link upwards is what runs in earnest: sessions, kernel, log, counters.
Beside mallory an honest peer is connected all the time, and must not notice.
"""

import asyncio
import hashlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self, TypeVar, cast

from kinfolk import Node, Process
from kinfolk import effects as fx
from kinfolk.cookie import Cookie, new_cookie
from kinfolk.ids import Seed
from kinfolk.shell.machine import TcpCaller
from kinfolk.shell.transport import Link
from kinfolk.wire import frames
from kinfolk.wire.frames import HEADER_BYTES, Operation, decode_payload, encode_frame
from kinfolk.wire.handshake import NONCE_BYTES, Dialler, Fingerprints, Identity, Listener, Proved, Purpose
from kinfolk.wire.session import Event, Operations, Session
from tests.wire.pair import copied

BOB = "bob@127.0.0.1:1"
MALLORY = "mallory@127.0.0.1:2"
LEAVES = {BOB: b"bob's certificate", MALLORY: b"mallory's certificate"}
OWN = 2
"""The process of the node, by its local id, that has a name."""
TURNS = 200
"""Turns of the loop within which everything that follows from a frame has happened."""

T = TypeVar("T")


class _Certificate:
    """What a TLS connection says of the other end."""

    def __init__(self, leaf: bytes) -> None:
        self._leaf = leaf

    def getpeercert(self, binary_form: bool = False) -> bytes:
        return self._leaf


class Pipe(asyncio.Transport):
    """The node's end of a connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, leaf: bytes) -> None:
        super().__init__({"ssl_object": _Certificate(leaf)})
        self.said = bytearray()
        self._loop = loop
        self._closing = False
        self._protocol: asyncio.BufferedProtocol | None = None

    def connect(self, protocol: asyncio.BufferedProtocol) -> None:
        """TLS is up."""
        self._protocol = protocol
        protocol.connection_made(self)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: Any) -> None:
        self.said += data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._lost)

    abort = close

    def _lost(self) -> None:
        assert self._protocol is not None
        self._protocol.connection_lost(None)

    def feed(self, data: bytes) -> None:
        """These bytes come from the other end, as far as anybody still reads them."""
        protocol, rest = self._protocol, memoryview(data)
        assert protocol is not None
        while rest and not self._closing:
            room = cast("memoryview", protocol.get_buffer(len(rest)))
            count = min(len(room), len(rest))
            room[:count], rest = rest[:count], rest[count:]
            protocol.buffer_updated(count)
            if cast(Link, protocol).session.parting:  # who hears a goodbye hangs up
                self.close()


class PipeLoop(asyncio.SelectorEventLoop):
    """A loop whose connections are pipes."""

    def __init__(self) -> None:
        super().__init__()
        self.accepts = ""
        """Whose connection is accepted next."""
        self.answers = False
        """Whether mallory can be dialled, once; nobody else can."""
        self.refuses = asyncio.Event()
        """Whether those who cannot be dialled say so; else who dials them waits."""
        self.refuses.set()
        self.waiting = 0
        self.pipes: list[Pipe] = []

    async def connect_accepted_socket(self, protocol_factory: Any, sock: socket.socket, **_: Any) -> Any:
        """As asyncio's, at once."""
        sock.close()
        return self._connect(protocol_factory, self.accepts)

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        """As asyncio's, at once, if mallory answers."""
        if not (self.answers and MALLORY.endswith(f":{port}")):
            self.waiting += 1
            await self.refuses.wait()
            self.waiting -= 1
            raise ConnectionRefusedError(f"nobody listens on port {port}")
        self.answers = False
        return self._connect(protocol_factory, MALLORY)

    def _connect(self, protocol_factory: Callable[[], asyncio.BufferedProtocol], who: str) -> Any:
        pipe = Pipe(self, LEAVES[who])
        protocol = protocol_factory()
        self.pipes.append(pipe)
        pipe.connect(protocol)
        return pipe, protocol


class _Lines(logging.Handler):
    """What has been logged."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def complaints(self) -> list[str]:
        """What was more than news since the last time."""
        records, self.records = self.records, []
        return [f"{r.levelname} {r.getMessage()}" for r in records if r.levelno >= logging.WARNING]


class Visit:
    """One connection of somebody else's with the node: a session of its own, which may be told to say anything."""

    def __init__(self, pipe: Pipe, session: Session, creation: int) -> None:
        self.pipe, self.session, self.creation = pipe, session, creation
        self.heard: list[Operation] = []
        """What the node has said since the handshake."""
        self.events: list[Event] = []

    def listen(self) -> Self:
        """Take in what the node has said."""
        said, self.pipe.said = bytes(self.pipe.said), bytearray()
        for event in self.session.feed(said):
            event = copied(event)
            self.events.append(event)
            if isinstance(event, Operations):
                self.heard += event.operations
            elif isinstance(event, Proved):
                self.session.admit()
        return self

    def next(self) -> bytes:
        """What an honest end would say now."""
        return bytes(self.session.outbox.take())

    def go_on(self) -> Self:
        """Say what an honest end would say now, and take in the answer."""
        self.pipe.feed(self.next())
        return self.listen()

    def say(self, *operations: Operation) -> Self:
        """Say these, a frame each, and take in the answer."""
        for operation in operations:
            self.pipe.feed(encode_frame([operation]))
        return self.listen()

    def is_answered(self, number: int) -> bool:
        """Whether the node answers a ping: the session is open, and everything before was taken."""
        self.say(frames.Ping(number))
        return frames.Pong(number) in self.heard

    def last_frame(self) -> Sequence[Operation] | None:
        """The last frame that the node has said and nobody has taken in yet."""
        data, last = memoryview(bytes(self.pipe.said)), None
        while data:
            length = int.from_bytes(data[:4], "little")
            last = decode_payload(data[4], data[HEADER_BYTES : 4 + length])
            data = data[4 + length :]
        return last


class Stage:
    """The node, its honest peer, and mallory."""

    def __init__(self) -> None:
        self.lines = _Lines()
        self._runner = asyncio.Runner(loop_factory=PipeLoop)
        self._starts = 0
        self._pings = 0
        self._cookie = Cookie(new_cookie())
        self.node: Node
        self.bob: Visit

    @property
    def loop(self) -> PipeLoop:
        """The loop of everything."""
        return cast("PipeLoop", self._runner.get_loop())

    def run(self, act: Awaitable[T]) -> T:
        """Run a coroutine on the loop."""

        async def acting() -> T:
            return await act

        return self._runner.run(acting())

    def open(self) -> None:
        """Start the node, and connect the honest peer."""
        log = logging.getLogger("kinfolk")
        log.addHandler(self.lines)
        log.setLevel(logging.DEBUG)
        self.run(self._open())

    async def _open(self) -> None:
        self.node = Node("ada@127.0.0.1:0", cookie=self._cookie, join=[], heartbeat=3600.0)
        await self.node.start()
        # No timer dials mallory again: a dial under way at the wrong moment would be a reason to send mallory away.
        mesh = self.node.kernel._mesh
        mesh._least = mesh._most = 3600.0
        own = self.node.spawn(_idle)
        assert own.local == OWN
        await self.node.names.register("ada/own", own)
        bob = self.bob = await self.dial(BOB)
        bob.go_on().go_on().say(
            frames.Peers([]),
            frames.LedgerSynced(bob.creation, 1, True, ["bob/own"], [1], [1], [1], [True]),
        )
        assert bob.is_answered(0)
        await self.until(lambda: not self.transport._tasks)
        self._before = self.state()
        self.lines.complaints()

    def close(self) -> None:
        """The end."""
        self.run(self.node.close())
        logging.getLogger("kinfolk").removeHandler(self.lines)
        self._runner.close()

    # --- mallory comes ---

    async def dial(self, who: str = MALLORY, purpose: Purpose = "peer", creation: int = 0) -> Visit:
        """Connect to the node, up to the end of TLS; as a new start of whoever it is, unless a creation is given."""
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        ours.send(b"\x16")
        self.loop.accepts = who
        count = len(self.loop.pipes)
        self.transport._accepted(TcpCaller(self.loop, theirs, "127.0.0.1"))
        await self.until(lambda: len(self.loop.pipes) > count)
        ours.close()
        if not creation:
            self._starts += 1
            creation = self._starts
        me = Identity("observer" if purpose == "observer" else who, creation, "kinfolk", self._keys)
        handshake = Dialler(me, fingerprints=self._fingerprints(who), nonce=os.urandom(NONCE_BYTES), purpose=purpose)
        return Visit(self.loop.pipes[-1], Session(handshake), creation)

    async def be_dialled(self) -> Visit:
        """Let the node connect to mallory, up to the end of TLS."""
        count = len(self.loop.pipes)
        self.loop.answers = True
        self.node.order_unheard(lambda ref: fx.Join(ref, (Seed.parse(MALLORY),), 3600.0, False))
        await self.until(lambda: len(self.loop.pipes) > count)
        self._starts += 1
        me = Identity(MALLORY, self._starts, "kinfolk", self._keys)
        listener = Listener(me, fingerprints=self._fingerprints(MALLORY), nonce=os.urandom(NONCE_BYTES))
        return Visit(self.loop.pipes[-1], Session(listener), self._starts)

    @property
    def _keys(self) -> Any:
        return self.transport._credentials.keys

    def _fingerprints(self, who: str) -> Fingerprints:
        return Fingerprints(hashlib.sha256(LEAVES[who]).digest(), self.transport._credentials.fingerprint)

    # --- and what is left of it ---

    @property
    def transport(self) -> Any:
        """The node's."""
        return self.node._parts.transport

    async def until(self, condition: Callable[[], object]) -> None:
        """Let the loop turn until this holds."""
        for _ in range(TURNS):
            if condition():
                return
            await asyncio.sleep(0)
        raise AssertionError("it does not happen")

    async def leave(self, visit: Visit) -> list[str]:
        """The visit is over: nothing of it is left, nobody has noticed. What the node has complained of."""
        visit.pipe.close()
        kernel = self.node.kernel
        await self.until(lambda: not self.transport._tasks and len(self.transport._links) == 1)
        self.node.submit(fx.Forget(tuple(t.seed for t in kernel.members.targets.values() if t.answers != BOB)))
        await self.until(lambda: not kernel.members.dials)
        self.loop.pipes[:] = [self.bob.pipe]
        self._pings += 1
        assert self.bob.is_answered(self._pings), "the honest peer is not answered any longer"
        assert self.bob.heard[-1] == frames.Pong(self._pings)
        state = self.state()
        left = {what: (there, state[what]) for what, there in self._before.items() if state[what] != there}
        assert not left, f"not as before: {left}"
        return self.lines.complaints()

    def state(self) -> dict[str, object]:
        """All that others could notice, and all that could be left over."""
        kernel, transport, dataplane = self.node.kernel, self.transport, self.node.dataplane
        names, members = kernel.names, kernel.members
        return {
            "view": dict(names.view),
            "own": {name: (own.claim, own.confirmed) for name, own in names.own.items()},
            "mirrors": sorted(names.mirrors),
            "rivals": dict(names.rivals),
            "entries": names.ledger.position,
            "peers": self.node.peers(),
            "candidates": dict(members.candidates),
            "sessions": sorted(members.sessions),
            "dials": dict(members.dials),
            "links": sorted(transport._links),
            "messages": sorted(dataplane.links),
            "half-open": (len(transport._half_open), len(transport._unproved), len(transport._tasks)),
            "processes": [process.pid for process in self.node.processes()],
            "joins": len(kernel._mesh._joins),
        }


async def _idle(me: Process) -> None:
    await asyncio.Event().wait()
