"""The side channel for stalls, over real datagrams: who is heard, what a stranger can do, and that nothing is left."""

import asyncio
import itertools
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from kinfolk import effects as fx
from kinfolk.cookie import Hidden
from kinfolk.shell import stalls as channel
from kinfolk.shell.machine import datagrams_beside
from kinfolk.shell.stalls import READ_AT_ONCE, Stalls, address_for
from kinfolk.wire import frames
from kinfolk.wire.stalls import Report, decode, encode
from tests.node.nodes import until

STALL_AFTER = 0.2
LOOPBACK = ("127.0.0.1", 0)


class Link:
    """A session, as the channel sees it."""

    def __init__(self, conn: int) -> None:
        self.conn = conn
        self.is_open = True
        self.told: list[frames.StallPort] = []

    def post(self, operation: frames.Operation) -> None:
        assert isinstance(operation, frames.StallPort)
        self.told.append(operation)


class End:
    """One node's channel, with what it has heard."""

    def __init__(self, listener: socket.socket, *, enabled: bool = True) -> None:
        self.heard: list[fx.Input] = []
        self.counters: Counter[str] = Counter()
        self.listener = listener
        self.stalls = Stalls(
            "ada@127.0.0.1:1",
            lambda: datagrams_beside(listener),
            os.urandom,
            self.heard.append,
            self.counters,
            stall_after=STALL_AFTER,
            enabled=enabled,
        )

    def meet(self, conn: int) -> frames.StallPort:
        """A session opens; where the peer is to report."""
        link = Link(conn)
        self.stalls.peer_up(link)
        (told,) = link.told
        return told


@asynccontextmanager
async def end(host: str = "127.0.0.1", **settings: Any) -> AsyncGenerator[End]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        one = End(listener, **settings)
        one.stalls.start(asyncio.get_running_loop())
        try:
            yield one
        finally:
            one.stalls.close()


def dropped(count: int, one: End) -> Callable[[], bool]:
    return lambda: one.counters["stall_reports_dropped"] == count


@pytest.fixture
def stranger() -> Any:
    """Somebody who can send datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        yield sock


async def test_a_report_is_heard_once_and_what_is_forged_or_of_another_session_never(stranger: socket.socket):
    async with end() as one:
        told, other = one.meet(3), one.meet(4)
        to, key = ("127.0.0.1", told.port), Hidden(told.key)
        genuine = encode(Report(told.session, 5, 1.5), key)
        stranger.sendto(genuine, to)
        await until(lambda: one.heard)
        assert one.heard == [fx.StallHeard(3, 1.5)]
        wrong = {
            "the same again": genuine,
            "an earlier one": encode(Report(3, 4, 1.6), key),
            "number 0": encode(Report(3, 0, 1.6), key),
            "under the key of another session": encode(Report(3, 6, 1.6), Hidden(other.key)),
            "under no key": encode(Report(3, 6, 1.6), Hidden(bytes(32))),
            "moved to another session": encode(Report(4, 6, 1.6), key),
            "of a session that there is not": encode(Report(5, 6, 1.6), key),
            "cut": genuine[:-1],
            "longer": encode(Report(3, 6, 1.6), key) + b"\0",
            "empty": b"",
            "large": os.urandom(60_000),
        }
        for count, (what, datagram) in enumerate(wrong.items(), 1):
            stranger.sendto(datagram, to)
            await until(dropped(count, one))
            assert len(one.heard) == 1, what
        stranger.sendto(encode(Report(3, 6, 1.75), key), to)
        await until(lambda: len(one.heard) == 2)
        assert one.heard[-1] == fx.StallHeard(3, 1.75)
        one.stalls.peer_down(3)
        stranger.sendto(encode(Report(3, 7, 2.0), key), to)
        await until(dropped(len(wrong) + 1, one))
        assert len(one.heard) == 2, "the session is over"


async def test_a_flood_is_looked_at_in_small_portions(stranger: socket.socket, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(channel, "PAUSE", 0.5)
    async with end() as one:
        to = ("127.0.0.1", one.meet(3).port)
        for _ in range(READ_AT_ONCE + 20):
            stranger.sendto(bytes(52), to)
        await until(dropped(READ_AT_ONCE, one))
        loop = asyncio.get_running_loop()
        began = loop.time()
        await until(dropped(READ_AT_ONCE + 20, one))
        assert loop.time() - began > 0.2, "the rest has waited"


async def test_a_loop_that_stands_still_is_reported_and_one_that_turns_is_not(
    stranger: socket.socket, caplog: pytest.LogCaptureFixture
):
    stranger.bind(LOOPBACK)
    stranger.setblocking(False)
    key = Hidden(os.urandom(32))
    async with end() as one:
        one.stalls.report_to(fx.ReportStalls(3, stranger.getsockname()[1], 77, key), LOOPBACK)
        await asyncio.sleep(2 * STALL_AFTER)
        before = one.counters["own_stalls"]
        assert _waiting(stranger) == [] or before, "nothing was wrong"
        _compute(4 * STALL_AFTER)
        reports = [decode(datagram) for datagram in _waiting(stranger)]
        await until(lambda: one.counters["own_stalls"] > before)
        assert "something on it ran for that long without an await" in caplog.text
        ages = [report.age for report in reports if report is not None]
        assert len(ages) == len(reports) >= 3 and STALL_AFTER <= ages[0] < ages[-1]
        assert [report.session for report in reports if report] == [77] * len(reports)
        numbers = [report.sequence for report in reports if report]
        assert numbers == sorted(set(numbers))
        one.stalls.peer_down(3)
        _waiting(stranger)
        _block(2 * STALL_AFTER)
        assert _waiting(stranger) == [], "the session is over"


async def test_what_waits_after_a_stall_of_our_own_is_of_unknown_age_and_dropped(stranger: socket.socket):
    async with end() as one:
        told = one.meet(3)
        stranger.sendto(encode(Report(3, 1, 1.0), Hidden(told.key)), ("127.0.0.1", told.port))
        _block(2 * STALL_AFTER)
        await until(lambda: one.counters["own_stalls"])
        assert one.heard == []
        for number in itertools.count(2):  # the peer reports again and again, if it still stands still
            stranger.sendto(encode(Report(3, number, 1.5), Hidden(told.key)), ("127.0.0.1", told.port))
            await asyncio.sleep(0.01)
            if one.heard:
                break
        assert one.heard == [fx.StallHeard(3, 1.5)]


async def test_a_program_that_was_stopped_says_so_of_itself(caplog: pytest.LogCaptureFixture):
    async with end() as one:
        one.stalls._sentry.stop()  # as if it could not run
        _block(2 * STALL_AFTER)
        await until(lambda: one.counters["own_stalls"])
        assert "so did all of the program" in caplog.text


def test_a_sentry_that_could_not_run_itself_lets_the_loop_go_first(monkeypatch: pytest.MonkeyPatch):
    """As after SIGCONT: the loop's last turn is long ago, but nobody knows whether it stands still."""
    clock, asked = [100.0], threading.Event()
    monkeypatch.setattr(channel, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    sent: list[tuple[float, float]] = []
    waits = iter([0.05, 10.0, 0.05, 0.05])

    class Sentry(channel.Sentry):
        def _report(self, number: int, age: float) -> None:
            sent.append((clock[0], age))

    class Ended:
        def wait(self, seconds: float) -> bool:
            slept = next(waits, None)
            if slept is None:
                asked.set()
                return True
            clock[0] += slept
            return False

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sentry = Sentry(sock, STALL_AFTER, lambda: False)
        sentry._stopped = Ended()  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
        sentry.start()
        sentry.join()
    assert asked.is_set()
    assert [moment for moment, _ in sent] == [pytest.approx(110.1), pytest.approx(110.15)]


async def test_thread_and_socket_end_with_the_channel():
    before = threading.active_count()
    async with end() as one, end() as other:
        assert threading.active_count() == before + 2
        one.meet(1)
        other.meet(1)
    assert threading.active_count() == before
    one.stalls.close()  # once more does nothing


def test_the_thread_ends_when_its_loop_is_closed_and_nobody_has_closed_the_node():
    loop = asyncio.new_event_loop()
    with socket.socket() as listener:
        listener.bind(LOOPBACK)
        one = End(listener)
        one.stalls.start(loop)
        sentry, sock = one.stalls._sentry, one.stalls._sock
        loop.close()
        sentry.join(10)
        assert sock is not None and not sentry.is_alive()
        sock.close()


async def test_switched_off_it_tells_nobody_and_opens_nothing():
    before = threading.active_count()
    async with end(enabled=False) as one:
        link = Link(1)
        one.stalls.peer_up(link)
        one.stalls.report_to(fx.ReportStalls(1, 1, 1, Hidden(bytes(32))), LOOPBACK)
        one.stalls.peer_down(1)
        assert link.told == [] and threading.active_count() == before


async def test_without_a_socket_the_node_runs_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(_: object) -> socket.socket:
        raise OSError("no datagrams here")

    monkeypatch.setattr("tests.shell.test_stalls.datagrams_beside", refuse)
    async with end() as one:
        link = Link(1)
        one.stalls.peer_up(link)
        assert link.told == []
    assert "can neither report nor hear of stalls: no UDP socket (no datagrams here)" in caplog.text


async def test_a_session_that_has_ended_meanwhile_is_told_nothing():
    async with end() as one:
        link = Link(1)
        link.is_open = False
        one.stalls.peer_up(link)
        assert link.told == [] and one.stalls._expected == {}


def test_the_port_is_the_listeners_if_that_is_free_and_the_host_in_any_case():
    with socket.socket() as listener:
        listener.bind(LOOPBACK)
        with datagrams_beside(listener) as first, datagrams_beside(listener) as second:
            assert first.getsockname() == listener.getsockname()
            host, port = second.getsockname()
            assert host == "127.0.0.1" and port != listener.getsockname()[1]


@pytest.mark.parametrize(
    ("family", "peername", "address"),
    [
        (socket.AF_INET, ("10.0.0.1", 5), ("10.0.0.1", 9)),
        (socket.AF_INET6, ("fe80::1", 5, 0, 2), ("fe80::1", 9, 0, 2)),
        (socket.AF_INET6, ("10.0.0.1", 5), ("::ffff:10.0.0.1", 9)),
        (socket.AF_INET, ("::1", 5, 0, 0), None),
        (socket.AF_INET, None, None),
    ],
)
def test_a_peer_is_reached_where_its_session_comes_from(family: int, peername: Any, address: Any):
    assert address_for(family, peername, 9) == address


def _compute(seconds: float) -> None:
    """Hold the loop by computing, as users do."""
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        number += 1


def _block(seconds: float) -> None:
    """Hold the loop at less cost."""
    time.sleep(seconds)


def _waiting(sock: socket.socket) -> list[bytes]:
    found: list[bytes] = []
    while True:
        try:
            found.append(sock.recv(100))
        except BlockingIOError:
            return found


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kinfolk")
