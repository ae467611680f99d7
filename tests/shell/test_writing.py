"""What a link has to say goes to TLS as far as TLS takes it, in an order that keeps nobody waiting."""

import asyncio
from typing import Any, cast

import msgspec
import pytest

from kinfolk.shell import transport
from kinfolk.shell.transport import FEED_AT_ONCE, WRITE_BUFFER, Link
from kinfolk.wire.fragments import Assemblies
from kinfolk.wire.frames import FRAGMENT_BYTES, MAX_FRAME, Fragment, Goodbye, Operation, Ping, Sent, encode_frame
from kinfolk.wire.reader import FrameReader, read_operations
from kinfolk.wire.session import Event, State
from tests.wire.test_session import open_dialler


class Tls:
    """An end of TLS that takes so many bytes at a time, and the node that owns the link."""

    def __init__(self, takes: int = WRITE_BUFFER) -> None:
        self.loop = asyncio.get_running_loop()
        self.high_water, self.max_outbox = 10_000_000, 20_000_000
        self.takes = takes
        self.parting: set[Link] = set()
        self.written = bytearray()
        self.closing = False
        self.drains: list[int] = []
        """How many bytes were written when the kernel was told that the outbox is empty."""
        self.link = Link(cast("Any", self), cast("Any", None), 1, None)
        session = open_dialler()
        session.outbox.take()
        self.link._session, self.link._tls = session, cast("Any", self)
        self._waits = 0

    def write(self, data: memoryview) -> None:
        assert not self.closing
        self.written += data
        self._waits += len(data)
        if self._waits >= self.takes:
            self.link.pause_writing()

    def go_on(self) -> None:
        """What was written has left."""
        self._waits = 0
        self.link.resume_writing()

    def get_write_buffer_size(self) -> int:
        return self._waits

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def happened(self, link: Link, event: Event) -> None:
        pass

    def drained(self, link: Link) -> None:
        self.drains.append(len(self.written))

    async def all(self) -> list[Operation]:
        """Let everything leave. What the other end has read, fragments included."""
        while self.link.session.outbox or self.link._held:
            self.go_on()
            await asyncio.sleep(0)
        return self.read()

    def read(self) -> list[Operation]:
        found: list[Operation] = []
        for tag, payload in FrameReader(MAX_FRAME).feed(self.written):
            operations = read_operations(tag, payload)
            assert operations is not None
            found += operations
        return found


def large(target: int, size: int = 20 * FRAGMENT_BYTES) -> tuple[Operation, int, int, int]:
    """A large message for a process, as `post_from` takes it."""
    return Sent(target, None, msgspec.Raw(msgspec.msgpack.encode(bytes(size)))), 0, target, size


def names(operations: list[Operation]) -> list[str]:
    return [type(operation).__name__ for operation in operations]


async def test_tls_gets_no_more_than_it_takes_and_the_rest_stays_where_it_can_be_overtaken():
    tls = Tls()
    tls.link.post_from(*large(1))
    await asyncio.sleep(0)
    assert WRITE_BUFFER <= len(tls.written) <= WRITE_BUFFER + FRAGMENT_BYTES
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(tls.written) <= WRITE_BUFFER + FRAGMENT_BYTES
    assert tls.link.waiting > 20 * FRAGMENT_BYTES


@pytest.mark.parametrize("takes", [1, 10_000, FRAGMENT_BYTES, 5 * FRAGMENT_BYTES, 10**9])
async def test_at_most_one_fragment_that_is_not_with_tls_goes_before_what_is_said_now(takes: int):
    tls = Tls(takes)
    for target in (1, 2):
        tls.link.post_from(*large(target))
    written = []
    for number in range(60):
        written.append(len(tls.written))
        tls.link.post(Ping(number))
        if number % 3:
            await asyncio.sleep(0)
        tls.go_on()
    await tls.all()
    place, pings = 0, 0
    for tag, payload in FrameReader(MAX_FRAME).feed(tls.written):
        for operation in read_operations(tag, payload) or ():
            if isinstance(operation, Ping):
                assert place - written[operation.sequence] <= FRAGMENT_BYTES + 2000
                pings += 1
        place += 5 + len(payload)
    assert pings == 60


async def test_a_large_message_moves_on_however_much_else_there_is_to_say():
    tls = Tls(takes=1000)
    tls.link.post_from(*large(1))
    for number in range(200):
        tls.link.post_from(*large(2, 2000))
        await asyncio.sleep(0)
        tls.go_on()
        if number == 100:
            assert names(tls.read()).count("Fragment") > 0
    assert names(tls.read()).count("Fragment") == 21


async def test_a_link_that_tls_never_stops_lets_others_have_their_turn():
    tls = Tls(takes=10**9)
    tls.link.post_from(*large(1))
    turns = 0
    while tls.link._held:
        before = len(tls.written)
        await asyncio.sleep(0)
        assert len(tls.written) - before <= FEED_AT_ONCE * (FRAGMENT_BYTES + 100)
        turns += 1
    assert turns > 20 // FEED_AT_ONCE


async def test_the_kernel_is_told_of_room_between_the_fragments_of_a_large_message():
    tls = Tls()
    tls.link.post_from(*large(1))
    tls.link.want_drain()
    await tls.all()
    await asyncio.sleep(0)
    assert tls.drains and tls.drains[0] < 3 * FRAGMENT_BYTES


@pytest.mark.parametrize("takes", [1000, 10**9], ids=["slow", "quick"])
async def test_what_was_said_before_an_orderly_end_comes_before_the_goodbye(takes: int):
    tls = Tls(takes)
    tls.link.post(Ping(1))
    tls.link.post_from(*large(1))
    tls.link.post_from(*large(1, 10))
    await asyncio.sleep(0)
    tls.link.close("closed", "bye")
    assemblies, whole = Assemblies(), 0
    for operation in tls.read():
        if isinstance(operation, Fragment):
            whole += assemblies.take(operation) is not None
    assert whole == 1 and names(tls.read())[-2:] == ["Sent", "Goodbye"]
    assert isinstance(tls.read()[0], Ping) and isinstance(tls.read()[-1], Goodbye)


async def test_a_link_that_is_over_keeps_nothing_of_what_waited():
    tls = Tls(takes=1000)
    tls.link.post_from(*large(1))
    await asyncio.sleep(0)
    tls.link.session.close("", "")
    tls.link.abort()
    assert tls.link._held == 0 and not tls.link.session.backlog
    tls.link.post_from(*large(1))
    assert tls.link.session.state is State.CLOSED and not tls.link.session.backlog


def feed(link: Link, *operations: Operation) -> None:
    """These have come from the other end."""
    data = encode_frame(operations)
    link.get_buffer(len(data))[: len(data)] = data
    link.buffer_updated(len(data))


async def test_who_has_said_goodbye_does_not_hang_up_before_the_other_end_has_heard_it():
    tls = Tls()
    tls.link.close("closed", "bye")
    feed(tls.link, Ping(1))  # on its way when we said it
    tls.link.close()
    assert not tls.closing and names(tls.read()) == ["Goodbye"]
    feed(tls.link, Goodbye("closed", "me too"))
    assert tls.closing

    heard = Tls()
    feed(heard.link, Goodbye("closed", "bye"))
    assert heard.closing, "who has heard it hangs up"


async def test_who_does_not_hang_up_after_a_goodbye_is_given_a_moment_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "LINGER", 0.01)
    tls = Tls()
    tls.link.close("protocol", "you are mad")
    async with asyncio.timeout(10):
        while not tls.closing:
            feed(tls.link, Ping(1))
            await asyncio.sleep(0)
