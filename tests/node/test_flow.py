"""Backpressure, and large messages that hold up nobody: over real connections, some of which are stalled."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from kinfolk import (
    CallFailed,
    CallTimeout,
    Down,
    Exit,
    LinkCongested,
    Node,
    NodeClosed,
    NodeLost,
    NoProcess,
    Pid,
    Process,
    SendTimeout,
)
from kinfolk.shell.transport import Link
from kinfolk.wire import frames
from kinfolk.wire.fragments import Assemblies, Backlog
from tests.node import jobs
from tests.node.nodes import Nodes, collect, echo, ended, idle, until
from tests.node.relay import Relay

PIECE = bytes(50_000)
LARGE = bytes(15 * 1024 * 1024)


class Jam(NamedTuple):
    """Ada's link to bob is congested: the way there is stalled, and as much has been sent as she was allowed to."""

    ada: Node
    bob: Node
    sent: int
    """How often PIECE was sent to `sink`."""
    sink: Pid
    into: list[Any]
    """What it has got."""
    relay: Relay

    def arrived(self) -> list[Any]:
        """What has come behind that."""
        assert all(message == PIECE for message in self.into[: self.sent])
        return self.into[self.sent :]


@asynccontextmanager
async def jammed(nodes: Nodes, **settings: Any) -> AsyncGenerator[Jam]:
    """Two nodes in a jam."""
    async with Relay() as relay:
        settings = {"max_outbox": 2_000_000, "high_water": 200_000, "down_after": 60.0, **settings}
        bob = await nodes.start(relay.name("bob"), listen=relay.target, down_after=60.0)
        ada = await nodes.start("ada", bob, **settings)
        into: list[Any] = []
        sink = bob.spawn(collect, into)
        relay.stall(back=False)
        sent = await fill(ada, sink)
        yield Jam(ada, bob, sent, sink, into, relay)
        relay.heal()
        await nodes.close()


async def fill(node: Node, target: Pid) -> int:
    """Send until that is refused also when all buffers on the way have had time to fill. How often it was not."""
    sent = refused = 0
    while refused < 20:
        try:
            node.send(target, PIECE)
        except LinkCongested:
            refused += 1
            await asyncio.sleep(0.005)
        else:
            sent, refused = sent + 1, 0
    return sent


def link(node: Node, other: Node) -> Link:
    """One node's end of the link to another."""
    found = node.dataplane.links[other.name]
    assert isinstance(found, Link)
    return found


# --- backpressure ---


async def test_a_congested_link_is_felt_by_who_sends_there_and_by_nobody_else(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
):
    async with jammed(nodes) as jam:
        ada, bob = jam.ada, jam.bob
        carl = await nodes.start("carl", ada)
        there, ear = carl.spawn(echo), carl.spawn(collect, [])
        with pytest.raises(LinkCongested, match=rf"bytes wait for {bob.name}.*send more slowly, or await send_when"):
            ada.send(jam.sink, 1)
        with pytest.raises(LinkCongested):
            ada.send(("anybody", bob.name), 1)
        (waiting,) = ada.congested().values()
        assert list(ada.congested()) == [bob.name] and 200_000 < waiting < 600_000
        assert bob.congested() == carl.congested() == {}
        for number in range(100):
            assert await ada.call(there, number, timeout=2.0) == number
            ada.send(ear, number)
        assert ada.counters["links_congested"] >= 1
        lines = [record for record in caplog.records if "congested" in record.message]
        assert len(lines) == 1 and lines[0].levelno == logging.WARNING and bob.name in lines[0].message
        assert ada.counters["peers_lost"] == 0
        jam.relay.heal()
        await until(lambda: ada.congested() == {})
        ada.send(jam.sink, "after all")
        await until(lambda: jam.arrived() == ["after all"])


async def test_what_waits_for_room_is_sent_in_its_order_and_before_what_does_not_wait(nodes: Nodes):
    async with jammed(nodes) as jam:
        waiting = [asyncio.create_task(jam.ada.send_when_clear(jam.sink, number)) for number in range(100)]
        await asyncio.sleep(0)
        assert len(link(jam.ada, jam.bob).gate) == 100
        with pytest.raises(LinkCongested):
            jam.ada.send(jam.sink, "impatient")
        jam.relay.heal()
        while True:
            try:
                jam.ada.send(jam.sink, "patient")
                break
            except LinkCongested:
                assert len(link(jam.ada, jam.bob).gate) or len(jam.ada.congested())
                await asyncio.sleep(0)
        await asyncio.gather(*waiting)
        await until(lambda: len(jam.into) == jam.sent + 101)
        assert jam.arrived() == [*range(100), "patient"]


async def test_large_messages_that_wait_are_let_in_as_room_appears_and_no_more_at_once(nodes: Nodes):
    async with jammed(nodes) as jam:
        mine = link(jam.ada, jam.bob)
        waiting = [asyncio.create_task(jam.ada.send_when_clear(jam.sink, bytes(150_000))) for _ in range(20)]
        await asyncio.sleep(0)
        most = 0
        jam.relay.heal()
        while not all(task.done() for task in waiting):
            most = max(most, mine.waiting)
            await asyncio.sleep(0)
        await until(lambda: len(jam.arrived()) == 20)
        assert most < 200_000 + 150_000 + 400_000  # and what is in TLS


async def test_who_gives_up_waiting_has_sent_nothing_and_stops_nobody_behind(nodes: Nodes):
    async with jammed(nodes) as jam:
        first, second, third = (
            asyncio.create_task(jam.ada.send_when_clear(jam.sink, number, timeout=timeout))
            for number, timeout in ((1, None), (2, 0.01), (3, None))
        )
        await asyncio.sleep(0)
        first.cancel()
        assert isinstance(await ended(first), asyncio.CancelledError)
        with pytest.raises(SendTimeout, match=r"no room for more within 0\.01 s"):
            await second
        assert len(link(jam.ada, jam.bob).gate) == 1
        jam.relay.heal()
        await third
        await until(lambda: jam.arrived() == [3])
        assert link(jam.ada, jam.bob).congested is False


async def test_nothing_that_cannot_be_sent_waits_for_room(nodes: Nodes):
    async with jammed(nodes, max_message=300_000) as jam:
        for message in (object(), bytes(300_001)):
            assert isinstance(await ended(jam.ada.send_when_clear(jam.sink, message)), TypeError | ValueError)
        for wrong in ("", "x" * 256):
            assert isinstance(await ended(jam.ada.send_when_clear((wrong, jam.bob.name), 1)), ValueError)
        with pytest.raises(ValueError, match="timeout"):
            await jam.ada.send_when_clear(jam.sink, 1, timeout=-1)
        assert len(link(jam.ada, jam.bob).gate) == 0


async def test_a_link_that_is_lost_drops_what_waits_for_it_as_it_drops_what_was_sent(nodes: Nodes):
    async with jammed(nodes) as jam:
        sending = asyncio.create_task(jam.ada.send_when_clear(jam.sink, 1))
        calling = asyncio.create_task(jam.ada.call(jam.sink, 1, timeout=None))
        await asyncio.sleep(0)
        await jam.relay.cut()
        await sending
        assert jam.ada.counters["sends_to_lost_nodes"] == 1
        with pytest.raises(NodeLost):
            await calling
        assert jam.ada.congested() == {}
        await jam.ada.send_when_clear(jam.sink, 1)
        assert jam.ada.counters["sends_to_lost_nodes"] == 2


async def test_who_waits_for_room_hears_of_the_close_of_the_node(nodes: Nodes):
    async with jammed(nodes) as jam:
        waiting = [
            asyncio.create_task(jam.ada.send_when_clear(jam.sink, 1)),
            asyncio.create_task(jam.ada.call(jam.sink, 1, timeout=None)),
        ]
        await asyncio.sleep(0)
        await jam.ada.close()
        assert [type(await ended(task)) for task in waiting] == [NodeClosed] * 2


async def test_nothing_comes_from_a_process_after_its_end_though_a_task_of_it_has_waited_for_room(nodes: Nodes):
    async with jammed(nodes) as jam:
        tasks: list[asyncio.Task[Any]] = []

        async def sender(me: Process) -> None:
            tasks.append(asyncio.create_task(me.send_when_clear(jam.sink, "too late")))
            tasks.append(asyncio.create_task(me.call(jam.sink, "too late", timeout=None)))
            await asyncio.Event().wait()

        pid = jam.ada.spawn(sender)
        await until(lambda: len(link(jam.ada, jam.bob).gate) == 2)
        jam.ada.kill(pid)
        jam.relay.heal()
        assert [type(await ended(task)) for task in tasks] == [NoProcess] * 2
        jam.ada.send(jam.sink, "the last")
        await until(lambda: jam.arrived() == ["the last"])


async def test_a_call_waits_for_room_within_its_timeout(nodes: Nodes):
    async with jammed(nodes) as jam:
        answering = jam.bob.spawn(echo)
        with pytest.raises(CallTimeout, match=r"not even asked within 0\.05 s: the link to bob@.* is congested"):
            await jam.ada.call(answering, 1, timeout=0.05)
        assert not link(jam.ada, jam.bob).calls and not link(jam.ada, jam.bob).gate
        calls = [asyncio.create_task(jam.ada.call(answering, number)) for number in range(10)]
        await asyncio.sleep(0)
        jam.relay.heal()
        assert await asyncio.gather(*calls) == list(range(10))


async def test_a_broadcast_leaves_out_nodes_that_are_congested_and_counts_them(nodes: Nodes):
    async with jammed(nodes) as jam:
        carl = await nodes.start("carl", jam.ada)
        at_carl: list[Any] = []
        await carl.groups.join("all", carl.spawn(collect, at_carl))
        await jam.bob.groups.join("all", jam.sink)
        await until(lambda: len(jam.ada.groups.members("all")) == 2)
        jam.ada.groups.broadcast("all", "hi")
        await until(lambda: at_carl == ["hi"])
        assert jam.ada.counters["sends_to_congested_nodes"] == 1
        jam.relay.heal()
        await until(lambda: jam.ada.congested() == {})
        jam.ada.groups.broadcast("all", "again")
        await until(lambda: jam.arrived() == ["again"])


async def test_what_must_be_said_goes_on_to_a_congested_peer(nodes: Nodes):
    """Answers, links, exits and names wait behind what was sent, and are not refused."""
    async with jammed(nodes) as jam:
        answering, dying = jam.ada.spawn(echo), jam.ada.spawn(idle)
        seen: list[Any] = []

        async def watcher(me: Process) -> None:
            me.trap_exit = True
            me.link(dying)
            me.monitor(dying)
            seen.append(await me.call(answering, "hi", timeout=None))
            seen.append(type(await me.receive()))
            seen.append(type(await me.receive()))

        jam.bob.spawn(watcher)
        await until(lambda: len(jam.ada.signals.relations) >= 2)
        claim = asyncio.create_task(jam.ada.names.register("db", jam.ada.spawn(idle), timeout=30.0))
        jam.ada.kill(dying)
        await asyncio.sleep(0)
        assert jam.ada.counters["peers_lost"] == 0 and not seen
        jam.relay.heal()
        await until(lambda: len(seen) == 3)
        assert seen[0] == "hi" and set(seen[1:]) == {Exit, Down}
        assert (await claim).pid == jam.bob.names.whereis("db")


async def test_a_peer_that_does_not_read_is_closed_at_the_hard_bound(nodes: Nodes):
    async with jammed(nodes, max_outbox=700_000) as jam:
        registered, holder = 0, jam.ada.spawn(idle)
        while jam.ada.counters["outbox_overflows"] == 0 and registered < 20_000:
            for _ in range(100):
                jam.ada.names.register_nowait(f"{registered}/{'x' * 200}", holder)
                registered += 1
            assert link_bytes(jam.ada) < 1_200_000
            await asyncio.sleep(0)
        assert jam.ada.counters["outbox_overflows"] == 1
        await until(lambda: jam.ada.counters["peers_lost"] == 1)
        jam.relay.heal()
        await until(lambda: jam.ada.peers() == [jam.bob.name])
        await until(lambda: jam.bob.names.whereis(f"0/{'x' * 200}"))


def link_bytes(node: Node) -> int:
    """What waits for all its peers."""
    return sum(link.waiting for link in node.dataplane.links.values())


async def test_no_message_that_may_be_sent_closes_a_session(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob", max_outbox=400_000)
    into: list[Any] = []
    sink = bob.spawn(collect, into)
    with pytest.raises(ValueError, match="max_message allows 200000"):
        ada.send(sink, bytes(200_001))
    for _ in range(10):
        await ada.send_when_clear(sink, bytes(199_000))
    await until(lambda: len(into) == 10)
    assert ada.counters["outbox_overflows"] == 0
    with pytest.raises(ValueError, match="give at most 200000, or raise max_outbox"):
        nodes.make("carl", max_outbox=400_000, max_message=200_001)


# --- mailboxes ---


async def test_a_slow_process_is_told_of_in_the_log_now_and_then_and_its_neighbours_do_not_notice(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
):
    ada, bob = await nodes.mesh("ada", "bob")
    slow, quick = bob.spawn(idle, max_mailbox=10), bob.spawn(echo)
    await bob.groups.join("all", slow)
    await until(lambda: ada.groups.members("all"))
    for number in range(1000):
        ada.send(slow, number)
    assert await ada.call(quick, "hi", timeout=2.0) == "hi"
    ada.groups.broadcast("all", "hi")
    bob.groups.broadcast("all", "hi")
    await until(lambda: bob.counters["mailbox_overflows"] == 992)
    (line,) = [record for record in caplog.records if "is full" in record.message]
    assert line.levelno == logging.WARNING and str(slow) in line.message and "1 messages" in line.message
    (process,) = (process for process in bob.processes() if process.pid == slow)
    assert len(process.mailbox) == 10 and process.mailbox.dropped == 992
    with pytest.raises(CallFailed, match="mailbox is full"):
        await ada.call(slow, 1, timeout=30.0)


# --- large messages ---


async def test_large_messages_of_every_kind_arrive_whole(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob", allow_spawn=["tests.node.jobs.*"])
    content = bytes(range(256)) * 4000
    into: list[Any] = []
    sink = bob.spawn(collect, into)
    bob.names.local.register("sink", sink)
    await bob.groups.join("sinks", sink)
    await until(lambda: ada.groups.members("sinks"))
    ada.send(sink, [1, content])
    ada.send(("sink", bob.name), [2, content])
    ada.groups.broadcast("sinks", [3, content])
    await until(lambda: len(into) == 3)
    assert into == [[1, content], [2, content], [3, content]]
    assert await ada.call(bob.spawn(echo), content) == content
    pid = await ada.spawn_on(bob.name, jobs.echo, content)
    assert await ada.call(pid, "hi") == [content, "hi"]
    assert not link(ada, bob).session.backlog and not len(link(bob, ada).session._assemblies)


async def test_what_a_process_says_to_another_keeps_its_order_whatever_its_size(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    events: list[Any] = []

    async def listener(me: Process) -> None:
        me.trap_exit = True
        speaker = await me.receive(Pid)
        me.link(speaker)
        me.monitor(speaker)
        me.send(speaker, "go on")
        asking = asyncio.create_task(me.call(speaker, "an answer"))
        asking.add_done_callback(lambda _: events.append("answer"))
        while True:
            match await me.receive():
                case [number, *_]:
                    events.append(number)
                case other:
                    events.append(type(other))

    async def speaker(me: Process, to: Pid) -> None:
        me.send(to, me.pid)
        await me.receive(str)
        call = await anext(me.calls())
        large = bytes(2_000_000)
        me.send(to, [1, large])
        me.send(to, [2])
        me.send(("listener", bob.name), [3])
        me.send(to, [4, large])
        me.send(("listener", bob.name), [5, large])
        me.send(to, [6])
        me.groups.broadcast("listeners", [7])
        me.send(aside, "aside")
        call.reply(large)

    heard: list[Any] = []
    to, aside = bob.spawn(listener), bob.spawn(collect, heard)
    bob.names.local.register("listener", to)
    await bob.groups.join("listeners", to)
    await until(lambda: ada.groups.members("listeners"))
    ada.spawn(speaker, to)
    await until(lambda: Down in events and Exit in events and "answer" in events)
    events.remove("answer")  # it came to a task beside the process, which may have its turn at any time
    assert events[:7] == [1, 2, 3, 4, 5, 6, 7]
    assert set(events[7:]) == {Exit, Down}, "its end comes after all that it has said"
    await until(lambda: heard == ["aside"])


async def test_an_answer_comes_after_the_large_message_that_its_process_has_sent_before(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    seen: list[Any] = []

    async def speaker(me: Process) -> None:
        async for call in me.calls():
            assert call.sender is not None
            me.send(call.sender, bytes(1_000_000))
            call.reply("small")

    async def asker(me: Process) -> None:
        seen.append(await me.call(there, "hi"))
        seen.append(await me.receive(timeout=0))

    there = bob.spawn(speaker)
    ada.spawn(asker)
    await until(lambda: len(seen) == 2)
    assert seen == ["small", bytes(1_000_000)]


async def test_a_small_message_of_another_pair_does_not_wait_for_a_large_one(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    order: list[str] = []

    async def notes(me: Process, what: str) -> None:
        await me.receive()
        order.append(what)

    first, second = bob.spawn(notes, "large"), bob.spawn(notes, "small")
    ada.send(first, LARGE)
    ada.send(second, 1)
    assert await ada.call(bob.spawn(echo), "hi") == "hi"
    assert order == ["small"]
    await until(lambda: order == ["small", "large"])


async def test_signs_of_life_and_a_flood_of_small_messages_pass_between_the_fragments_of_a_large_one(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    """In terms of the stream: at most one fragment that was not out yet goes before what is said now."""
    ada, bob = await nodes.mesh("ada", "bob", heartbeat=0.05, down_after=10.0)
    count: Counter[str] = Counter()
    late: Counter[str] = Counter()
    posted: dict[str, list[int]] = {"small": [], "ping": []}
    counted(monkeypatch, Backlog, "feed", lambda *_: count.update(["fed"]))
    counted(monkeypatch, Assemblies, "take", lambda *_: count.update(["taken"]))

    def arrived(what: str) -> None:
        if posted[what]:
            late[what] = max(late[what], count["taken"] - posted[what].pop(0))
        count[what] += 1

    mine = link(ada, bob)

    def post(operation: frames.Operation) -> None:
        if isinstance(operation, frames.Ping):
            posted["ping"].append(count["fed"])

    def received(happened: Any) -> None:
        if isinstance(getattr(happened, "operations", [None])[0], frames.Ping):
            arrived("ping")

    counted(monkeypatch, Link, "post", lambda self, operation: post(operation) if self is mine else None)
    counted(monkeypatch, bob._parts.driver, "submit", received)

    def heard(_: Any, operations: list[Any]) -> None:
        for operation in operations:
            if isinstance(operation, frames.Sent) and operation.target == small.local:
                arrived("small")

    counted(monkeypatch, bob.dataplane, "receive", heard)

    async def large(me: Process) -> None:
        await me.receive()
        count["small before large"] = count["small"]

    small, sink = bob.spawn(idle), bob.spawn(large)
    for _ in range(3):
        ada.send(sink, LARGE)
        for number in range(10_000 // 3 + 1):
            posted["small"].append(count["fed"])
            ada.send(small, number)
            if number % 20 == 0:
                await asyncio.sleep(0)
    await until(lambda: count["small"] >= 10_000 and not link_bytes(ada), within=30)
    await until(lambda: count["small before large"] and count["ping"] > 3)
    assert count["taken"] == count["fed"] >= 3 * len(LARGE) // frames.FRAGMENT_BYTES
    assert late["small"] <= 1 and late["ping"] <= 1
    assert ada.counters["peers_lost"] == bob.counters["peers_lost"] == 0


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, method: str, count: Callable[..., None]) -> None:
    """Tell of each call of a method before it is done."""
    real = getattr(owner, method)

    def counting(*arguments: Any) -> Any:
        count(*arguments)
        return real(*arguments)

    monkeypatch.setattr(owner, method, counting)


async def test_a_session_that_ends_in_the_middle_of_a_large_message_drops_it(nodes: Nodes):
    async with Relay() as relay:
        bob = await nodes.start(relay.name("bob"), listen=relay.target, down_after=60.0)
        ada = await nodes.start("ada", bob, down_after=60.0)
        into: list[Any] = []
        sink = bob.spawn(collect, into)
        relay.stall(back=False)
        ada.send(sink, LARGE)
        mine, other = link(ada, bob), link(bob, ada)
        await until(lambda: 0 < len(mine.session.backlog) < len(LARGE) - 100_000)
        await relay.drop()
        await until(lambda: mine.session.state is not mine.session.state.OPEN and not mine.session.backlog)
        await until(lambda: len(other.session._assemblies) == 0 and not other.is_open)
        relay.heal()
        await until(lambda: ada.peers() == [bob.name] and bob.peers() == [ada.name])
        ada.send(sink, "again")
        await until(lambda: into == ["again"])


async def test_what_was_sent_before_an_orderly_close_is_written_also_when_it_is_large(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    into: list[Any] = []
    sink = bob.spawn(collect, into)
    ada.send(sink, bytes(1_000_000))
    ada.send(sink, "the last")
    await ada.close()
    await until(lambda: len(into) == 2)
    assert into == [bytes(1_000_000), "the last"]
