"""The network in memory: its connections behave as TCP's do, also when they fail."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from kinfolk import Node
from kinfolk.cookie import Cookie, new_cookie
from kinfolk.errors import AuthenticationFailed
from kinfolk.ids import Address
from kinfolk.shell.machine import Caller
from kinfolk.shell.tls import OwnCertificates, Papers
from kinfolk.testing import SimulatedLoop, simulate
from kinfolk.testing.loop import Program
from kinfolk.testing.network import HIGH_WATER, MemoryMachine, Network

T = TypeVar("T")
THERE = Address("b", 1)
PAPERS = {host: Papers(host.encode(), ()) for host in "ab"}


class Talk(asyncio.BufferedProtocol):
    """One end of a connection: remembers what it hears, in the pieces in which it does."""

    def __init__(self, room: int = 1000) -> None:
        self.heard: list[bytes] = []
        self.lost: list[Exception | None] = []
        self.waits = False
        self._buffer = bytearray(room)
        self.transport: asyncio.Transport

    @property
    def text(self) -> bytes:
        return b"".join(self.heard)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.heard.append(bytes(self._buffer[:nbytes]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)

    def pause_writing(self) -> None:
        self.waits = True

    def resume_writing(self) -> None:
        self.waits = False


class Net:
    """Hosts a and b, and what connects them."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        self.network = Network(loop.rng)
        self.programs = {host: Program(host) for host in "ab"}
        self.a, self.b = (MemoryMachine(self.network, host, self.programs[host]) for host in "ab")
        self.accepted: list[Talk] = []
        self.port = self.b.bind(THERE)
        self.port.listen(loop, self._accepted, lambda error: None)

    def _accepted(self, caller: Caller) -> None:
        assert caller.host == "a"

        def made() -> Talk:
            self.accepted.append(Talk())
            return self.accepted[-1]

        self._task = asyncio.ensure_future(caller.secure(PAPERS["b"], made))

    async def connect(self) -> tuple[Talk, Talk]:
        """A new connection: the ends of a and of b."""
        talk, count = Talk(), len(self.accepted)
        await self.a.dial(asyncio.get_running_loop(), THERE, PAPERS["a"], lambda: talk)
        while len(self.accepted) == count:  # noqa: ASYNC110 - time is virtual
            await asyncio.sleep(0.001)
        return talk, self.accepted[-1]


def run(test: Callable[[Net], Coroutine[Any, Any, T]], seeds: int = 10) -> None:
    async def main() -> None:
        await test(Net())

    for seed in range(seeds):
        simulate(seed, main)


def is_reset(talk: Talk) -> bool:
    return len(talk.lost) == 1 and isinstance(talk.lost[0], ConnectionResetError)


def test_bytes_arrive_in_order_and_the_end_after_them():
    async def test(net: Net) -> None:
        near, far = await net.connect()
        assert net.a.other_end(near.transport, PAPERS["a"]).fingerprint == b"b"
        assert net.b.other_end(far.transport, PAPERS["b"]).fingerprint == b"a"
        for number in range(100):
            near.transport.write(b"%d " % number)
        near.transport.write(bytes(5000))
        near.transport.close()
        near.transport.write(b"nobody hears this")
        await asyncio.sleep(1)
        assert far.text == b"".join(b"%d " % number for number in range(100)) + bytes(5000)
        assert max(map(len, far.heard)) == 1000, "as much as there is room for"
        assert far.lost == near.lost == [None]

    run(test)


def test_who_does_not_read_makes_the_other_end_wait():
    async def test(net: Net) -> None:
        near, far = await net.connect()
        far.transport.pause_reading()
        near.transport.write(bytes(HIGH_WATER))
        assert not near.waits
        near.transport.write(b"1")
        assert near.waits
        await asyncio.sleep(1)
        assert not far.heard and near.waits
        far.transport.resume_reading()
        await asyncio.sleep(1)
        assert len(far.text) == HIGH_WATER + 1 and not near.waits

    run(test)


def test_a_stall_holds_bytes_back_one_way_until_it_is_over():
    async def test(net: Net) -> None:
        near, far = await net.connect()
        net.network.stall("a", "b")
        near.transport.write(b"there")
        far.transport.write(b"and back")
        await asyncio.sleep(60)
        assert far.text == b"" and near.text == b"and back"
        net.network.heal()
        await asyncio.sleep(1)
        assert far.text == b"there"

    run(test)


def test_a_close_behind_a_stall_is_heard_when_that_is_over():
    async def test(net: Net) -> None:
        near, far = await net.connect()
        net.network.stall("a", "b")
        near.transport.write(b"bye")
        near.transport.close()
        await asyncio.sleep(60)
        assert near.lost == [None] and far.lost == []
        net.network.heal()
        await asyncio.sleep(1)
        assert far.text == b"bye" and far.lost == [None]

    run(test)


def test_who_dials_beyond_a_stall_waits_whichever_way_it_is():
    async def test(net: Net) -> None:
        for pair in (("a", "b"), ("b", "a")):
            net.network.stall(*pair)
            dialling = asyncio.ensure_future(net.connect())
            await asyncio.sleep(60)
            assert not dialling.done()
            net.network.heal()
            near, far = await dialling
            near.transport.write(b"hi")
            await asyncio.sleep(1)
            assert far.text == b"hi"

    run(test)


def test_a_cut_resets_both_ends_and_loses_what_is_under_way():
    async def test(net: Net) -> None:
        near, far = await net.connect()
        near.transport.write(b"lost")
        net.network.cut("b", "a")
        assert net.network.breaks
        await asyncio.sleep(1)
        assert is_reset(near) and is_reset(far) and far.text == b""
        assert not net.network.breaks
        await net.connect()

    run(test)


def test_an_abort_loses_what_is_under_way():
    async def test(net: Net) -> None:
        near, far = await net.connect()
        near.transport.write(b"lost")
        near.transport.abort()
        await asyncio.sleep(1)
        assert near.lost == [None] and is_reset(far) and far.text == b""

    run(test)


@pytest.mark.parametrize("power", [False, True])
def test_a_host_tells_of_the_end_of_a_program_unless_its_power_is_gone(power: bool):
    async def test(net: Net) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        near, far = await net.connect()
        net.network.crash(net.programs["b"], "b", power=power)
        loop.kill(net.programs["b"])
        near.transport.write(b"are you there?")
        await asyncio.sleep(60)
        assert near.lost == [] if power else is_reset(near)
        assert far.heard == [] and far.lost == []
        dialling = asyncio.ensure_future(net.connect())
        await asyncio.sleep(60)
        assert dialling.done() is not power
        net.network.power_on("b")
        with pytest.raises(ConnectionRefusedError):
            await dialling
        await asyncio.sleep(1)
        assert is_reset(near), "the host knows of no such connection"

    run(test)


def test_a_port_is_taken_once_and_refuses_when_nobody_has_it():
    async def test(net: Net) -> None:
        with pytest.raises(OSError, match="Address already in use"):
            net.b.bind(THERE)
        with pytest.raises(OSError, match="this machine is b"):
            net.b.bind(Address("a", 1))
        free = [net.b.bind(Address("b", 0)).number for _ in range(2)]
        assert len(set(free)) == 2
        net.port.close()
        with pytest.raises(ConnectionRefusedError):
            await net.connect()
        net.b.bind(THERE)

    run(test, 1)


def test_another_cookie_is_refused_by_the_handshake_itself():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        network = Network(loop.rng)
        nodes = [
            Node(f"{host}@{host}:1", cookie=Cookie(new_cookie()), machine=MemoryMachine(network, host, Program(host)))
            for host in "ab"
        ]
        for node in nodes:
            await node.start()
        with pytest.raises(AuthenticationFailed, match="cookie"):
            await nodes[0].connect(nodes[1].name)
        for node in nodes:
            await node.close()

    simulate(0, main)


def test_certificates_of_ones_own_are_refused_with_the_remedy():
    async def test(net: Net) -> None:
        with pytest.raises(ValueError, match="no TLS in a network in memory"):
            net.a.papers([], OwnCertificates("a", "b", "c"))

    run(test, 1)
