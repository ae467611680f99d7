"""What the end of a process and of a node looks like from elsewhere: in which order, exactly once, and to whom."""

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import msgspec
import pytest

from kinfolk import (
    CallFailed,
    CallTimeout,
    Crash,
    Down,
    Exit,
    NameLost,
    NameUnknown,
    Node,
    NodeClosed,
    NoProcess,
    PeerDown,
    PeerUp,
    Pid,
    Process,
    Stop,
)
from kinfolk.core.relations import OUTSIDE
from kinfolk.mailbox import Mailbox
from kinfolk.shell.gate import Gate
from kinfolk.shell.transport import Link
from kinfolk.wire import frames
from tests.node.nodes import Nodes, collect, echo, ended, idle, until


def process_of(node: Node, pid: Pid) -> Process:
    """The process itself."""
    [found] = [process for process in node.processes() if process.pid == pid]
    return found


class Looking(Mailbox):
    """A mailbox that looks around in the very step in which the node puts something into it."""

    __slots__ = ("look", "seen")

    def __init__(self, look: Callable[[object], object]) -> None:
        super().__init__()
        self.look = look
        self.seen: list[tuple[type, object]] = []

    def put_always(self, message: object) -> None:
        self.seen.append((type(message), self.look(message)))
        super().put_always(message)


def spawn_looking(node: Node, look: Callable[[object], object]) -> tuple[Process, Looking]:
    """A process of which one sees what it could see when it is told something."""
    me = process_of(node, node.spawn(idle))
    mailbox = me.mailbox = Looking(look)
    return me, mailbox


def link_between(node: Node, other: Node) -> Link:
    """The connection of their session."""
    return cast("Link", node.dataplane.links[other.name])


def has_relations(node: Node, count: int) -> bool:
    """Whether so many ends of links and monitors are there."""
    return len(node.signals.relations) == count


def came_twice(into: list[Any], what: object) -> bool:
    """Whether this is in a list two times."""
    return into.count(what) == 2


# --- chains, and what a process does to itself ---


async def test_ten_thousand_linked_processes_end_together(nodes: Nodes):
    ada = await nodes.start("ada")
    last = process_of(ada, ada.spawn(idle))
    pids = [ada.spawn(idle) for _ in range(10_000)]
    for left, right in itertools.pairwise(pids):
        ada.signals.link(left.local, right)
    last.link(pids[-1])
    ada.signals.exit(OUTSIDE, pids[0], "bad")
    assert not any(map(ada.is_alive, pids))
    assert last.exit_reason == "bad"
    assert len(ada.signals.relations) == 0


async def test_a_process_spawned_with_a_link_is_linked_before_it_runs(nodes: Nodes):
    ada = await nodes.start("ada")

    async def fails(me: Process) -> None:
        raise Stop("at once")

    async def parent(me: Process) -> None:
        me.spawn(fails, link=True)
        await asyncio.Event().wait()

    assert await ada.wait_exit(ada.spawn(parent)) == "at once"


async def test_a_monitor_of_what_was_just_spawned_misses_nothing(nodes: Nodes):
    ada = await nodes.start("ada")
    downs: list[Down] = []

    async def fails(me: Process) -> None:
        raise Stop("at once")

    async def parent(me: Process) -> None:
        ref = me.monitor(me.spawn(fails))
        downs.append(await me.receive(Down))
        assert downs[0].ref == ref

    assert await ada.wait_exit(ada.spawn(parent)) == "normal"
    assert [down.reason for down in downs] == ["at once"]


async def test_who_stops_says_why_and_nothing_is_logged(nodes: Nodes, caplog: pytest.LogCaptureFixture):
    ada = await nodes.start("ada")

    async def stops(me: Process) -> None:
        call = await me.receive()
        assert call.body == "work"
        raise Stop("had enough")

    pid = ada.spawn(stops)
    waits = asyncio.ensure_future(ada.wait_exit(pid))
    await until(lambda: len(ada.signals.relations))
    with pytest.raises(NoProcess, match=r"ended before it answered: had enough"):
        await ada.call(pid, "work")
    assert await waits == "had enough"
    assert "crashed" not in caplog.text


# --- names are free, and nodes are gone, before anybody hears of it ---


async def test_the_names_of_the_dead_are_free_when_their_end_is_told(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    here, seen_here = spawn_looking(bob, lambda _: bob.names.whereis("db"))
    there, seen_there = spawn_looking(ada, lambda _: ada.names.whereis("db"))
    holder = bob.spawn(idle)
    await bob.names.register("db", holder)
    here.monitor("db")
    there.monitor("db")
    await until(lambda: len(bob.signals.relations) == 3)
    bob.kill(holder)
    await until(lambda: seen_there.seen)
    assert seen_here.seen == seen_there.seen == [(Down, None)]


async def test_also_when_a_process_ends_because_it_has_lost_another_name(nodes: Nodes):
    """The loss comes in the middle of a step of the kernel."""
    ada, bob = await nodes.start("ada"), await nodes.start("bob")
    await ada.names.register("db", ada.spawn(idle))
    await asyncio.sleep(0.005)  # the stamps of the claims decide, and have milliseconds
    loser = bob.spawn(idle)
    await bob.names.register("db", loser)
    await bob.names.register("other", loser)
    watcher, looked = spawn_looking(bob, lambda _: bob.names.whereis("other"))
    watcher.monitor(loser)
    await bob.connect(ada.name)
    await until(lambda: looked.seen)
    assert looked.seen == [(Down, None)]
    [down] = watcher.mailbox.messages
    assert isinstance(down.reason, NameLost)


async def test_who_traps_exits_is_told_that_its_name_is_lost_and_lives(nodes: Nodes):
    ada, bob = await nodes.start("ada"), await nodes.start("bob")
    await ada.names.register("db", ada.spawn(idle))
    await asyncio.sleep(0.005)  # the stamps of the claims decide, and have milliseconds
    loser = process_of(bob, bob.spawn(idle))
    loser.trap_exit = True
    await bob.names.register("db", loser.pid)
    await bob.connect(ada.name)
    await until(lambda: loser.mailbox.messages)
    [message] = loser.mailbox.messages
    assert isinstance(message, Exit)
    assert message.pid == Pid(bob.name, bob.creation, OUTSIDE)
    assert isinstance(message.reason, NameLost)
    assert loser.exit_reason is None


async def test_a_lost_name_is_a_reason_that_travels(nodes: Nodes):
    ada = await nodes.start("ada")
    bob, carl = await nodes.mesh("bob", "carl")
    winner = ada.spawn(idle)
    await ada.names.register("db", winner)
    await asyncio.sleep(0.005)  # the stamps of the claims decide, and have milliseconds
    loser = bob.spawn(idle)
    await bob.names.register("db", loser)
    waits = asyncio.ensure_future(carl.wait_exit(loser))
    await until(lambda: len(bob.signals.relations))
    await bob.connect(ada.name)
    reason = await waits
    assert isinstance(reason, NameLost)
    assert (reason.name, reason.winner) == ("db", winner)


async def test_a_lost_node_has_no_names_any_more_when_its_loss_is_told(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    await bob.names.register("db", bob.spawn(idle))
    await until(lambda: ada.names.whereis("db"))
    watcher, looked = spawn_looking(ada, lambda _: ada.names.whereis("db"))
    watcher.monitor_node(bob.name)
    watcher.monitor("db")
    await bob.close()
    await until(lambda: len(looked.seen) == 3)
    assert [kind for kind, _ in looked.seen] == [PeerUp, Down, PeerDown]
    assert [holder for _, holder in looked.seen][1:] == [None, None]
    with pytest.raises(NameUnknown):
        ada.send("db", 1)


async def test_messages_of_a_node_come_between_its_up_and_its_down(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    inbox = process_of(ada, ada.spawn(idle))
    inbox.monitor_node(bob.name)
    numbers = iter(range(10**9))

    async def chatter(me: Process) -> None:
        while True:
            me.send(inbox.pid, next(numbers))
            await asyncio.sleep(0)

    bob.spawn(chatter)
    for cuts in range(1, 6):
        await until(lambda: ada.peers() and bob.peers())
        await until(partial(has_come, inbox, "U1", cuts))
        link_between(ada if cuts % 2 else bob, bob if cuts % 2 else ada).abort()
        await until(partial(has_come, inbox, "D", cuts))
    received = [message for message in inbox.mailbox.messages if isinstance(message, int)]
    assert received == sorted(received), "in order, with gaps where the connection was cut"
    assert shape(inbox).startswith("U1D" * 5)


def shape(inbox: Process) -> str:
    """What has come, with one 1 for any number of messages."""
    letters: dict[type, str] = {PeerUp: "U", PeerDown: "D"}
    kinds = (letters.get(type(message), "1") for message in inbox.mailbox.messages)
    return "".join(kind for kind, _ in itertools.groupby(kinds))


def has_come(inbox: Process, what: str, times: int) -> bool:
    """Whether this has come so many times."""
    return shape(inbox).count(what) == times


class Brim:
    """A link that is full: what is posted ends its session."""

    def __init__(self, like: Link) -> None:
        self.conn, self.name, self.creation = like.conn, like.name, like.creation
        self.calls: dict[int, Any] = {}
        self.is_open = True
        self.congested, self.gate, self.waiting = False, Gate(), 0

    def post(self, operation: frames.Operation) -> None:
        self.is_open = False

    def post_ahead(self, operation: frames.Operation) -> None:
        self.is_open = False

    def post_from(self, operation: frames.Operation, sender: int, target: int | None, size: int = 0) -> None:
        self.is_open = False

    def post_fields(
        self, tag: int, fields: tuple[object, ...], sender: int, target: int | None, max_message: int
    ) -> bool:
        return False

    def post_encoded_from(self, tag: int, operation: bytes, sender: int, target: int | None) -> None:
        self.is_open = False


async def test_what_stands_in_a_frame_behind_the_end_of_its_session_does_not_arrive(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    me = process_of(ada, ada.spawn(idle))
    brim = Brim(link_between(ada, bob))
    body = msgspec.Raw(ada.codec.encode("hello"))
    ada.dataplane.receive(brim, [frames.Called(target, None, 1, 1000, body) for target in (10**6, me.pid.local)])
    assert not brim.is_open, "the first was answered"
    assert not me.mailbox.messages


# --- for those who are no process ---


async def test_wait_exit_says_why_a_process_has_ended(nodes: Nodes, caplog: pytest.LogCaptureFixture):
    ada, bob = await nodes.mesh("ada", "bob")

    async def crashes(me: Process) -> None:
        await me.receive()
        raise ValueError("boom")

    for node in (ada, bob):
        pids = [node.spawn(crashes), node.spawn(crashes)]
        first, second = (asyncio.ensure_future(ada.wait_exit(pid)) for pid in pids)
        await until(partial(has_relations, node, 4 if node is ada else 2))
        ada.send(pids[0], "go")
        ada.kill(pids[1])
        reason = await first
        assert isinstance(reason, Crash)
        assert (reason.type, reason.message) == ("ValueError", "boom")
        assert "in crashes" in reason.traceback
        assert (reason.error is not None) == (node is ada)
        assert await second == "killed"
        assert await ada.wait_exit(pids[0]) == "noproc"
    assert await ada.wait_exit(Pid("carl@127.0.0.1:1", 1, 1)) == "noconnection"
    assert len(ada.signals.relations) == 0


async def test_wait_exit_gives_up_at_its_deadline_and_when_cancelled_and_leaves_nothing(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    pid = bob.spawn(idle)
    with pytest.raises(TimeoutError, match=r"has not ended within 0.05 s"):
        await ada.wait_exit(pid, timeout=0.05)
    waits = asyncio.ensure_future(ada.wait_exit(pid))
    await until(lambda: len(bob.signals.relations) == 1)
    waits.cancel()
    await until(lambda: len(bob.signals.relations) == 0)
    assert len(ada.signals.relations) == 0


async def test_wait_exit_raises_when_its_own_node_closes(nodes: Nodes):
    ada = await nodes.start("ada")
    waits = asyncio.ensure_future(ada.wait_exit(ada.spawn(idle)))
    await asyncio.sleep(0)
    await ada.close()
    with pytest.raises(NodeClosed):
        await waits


# --- a node that closes ---


async def test_a_node_that_closes_ends_its_processes_with_shutdown_as_others_see_it(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    there = bob.spawn(idle)
    watcher, linked = (process_of(ada, ada.spawn(idle)) for _ in range(2))
    watcher.monitor(there)
    linked.link(there)
    await until(lambda: len(bob.signals.relations) == 2)
    await bob.close()
    await until(lambda: linked.exit_reason)
    assert linked.exit_reason == "shutdown"
    assert [down.reason for down in watcher.mailbox.messages] == ["shutdown"]


async def test_a_process_that_closes_its_node_goes_on_although_it_is_linked_to_others(nodes: Nodes):
    ada = await nodes.start("ada")
    done: list[str] = []

    async def closes(me: Process) -> None:
        me.link(me.spawn(idle))
        await me.node.close()
        done.append("closed")

    before = [ada.spawn(idle), ada.spawn(closes), ada.spawn(idle)]
    ada.signals.link(before[0].local, before[1])
    await until(lambda: done)


# --- what is not meant for anybody ---


async def test_what_peers_say_of_processes_that_are_gone_or_never_were_harms_nobody(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    link = link_between(bob, ada)
    for operation in (
        frames.ExitSignal(10**6, 1, "bad"),
        frames.ExitSignal(10**6, 1, "bad", True),
        frames.LinkUndone(10**6, 1, 1),
        frames.UnlinkAcknowledged(10**6, 1, 1),
        frames.LinkMade(10**6, 1),
        frames.MonitorMade(7, 10**6),
        frames.MonitorMade(7, "nobody"),
        frames.MonitorUndone(8),
        frames.MonitorFired(8, None, "normal"),
    ):
        link.post(operation)
    ada.names.local.register("echo", ada.spawn(echo))
    assert await bob.call(("echo", ada.name), 1) == 1
    assert len(ada.signals.relations) == len(bob.signals.relations) == 0


async def test_an_exit_signal_that_no_process_has_sent_comes_from_the_node(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    me = process_of(ada, ada.spawn(idle))
    me.trap_exit = True
    link_between(bob, ada).post(frames.ExitSignal(me.pid.local, None, "bad"))
    await until(lambda: me.mailbox.messages)
    assert list(me.mailbox.messages) == [Exit(Pid(bob.name, bob.creation, OUTSIDE), "bad")]


async def test_a_dead_process_has_no_part_in_it_any_more(nodes: Nodes):
    ada = await nodes.start("ada")
    me = process_of(ada, ada.spawn(idle))
    other = ada.spawn(idle)
    me.trap_exit = True
    ada.kill(me.pid)
    for attempt in (
        lambda: me.link(other),
        lambda: me.unlink(other),
        lambda: me.monitor(other),
        lambda: me.demonitor(cast("Any", 1)),
        lambda: me.exit(other, "bad"),
        lambda: me.monitor_node("carl@127.0.0.1:1"),
        lambda: me.demonitor_node("carl@127.0.0.1:1"),
        lambda: setattr(me, "trap_exit", True),
        lambda: me.spawn(idle, link=True),
    ):
        with pytest.raises(NoProcess):
            attempt()
    assert not me.trap_exit
    assert ada.is_alive(other)


async def test_what_is_no_pid_no_name_or_no_node_is_refused_at_once(nodes: Nodes):
    ada = await nodes.start("ada")
    me = process_of(ada, ada.spawn(idle))
    anything = cast("Any", "db")
    for wrong, kind, text in (
        (lambda: me.link(anything), TypeError, "give a pid, not a str"),
        (lambda: me.unlink(anything), TypeError, "give a pid, not a str"),
        (lambda: me.exit(anything, "bad"), TypeError, "give a pid, not a str"),
        (lambda: ada.kill(anything), TypeError, "give a pid, not a str"),
        (lambda: me.exit(me.pid, cast("Any", 1)), TypeError, "an exit reason is"),
        (lambda: me.exit(me.pid, ""), ValueError, "must be 1 to 1024 characters"),
        (lambda: me.monitor(cast("Any", 1)), TypeError, "cannot monitor a int: give a pid, a name"),
        (lambda: me.monitor(("log", "nowhere")), ValueError, "node name 'nowhere'"),
        (lambda: me.monitor(""), ValueError, "must not be empty"),
        (lambda: me.monitor_node("nowhere"), ValueError, "node name 'nowhere'"),
        (lambda: me.monitor_node(ada.name), ValueError, "is this node itself"),
    ):
        with pytest.raises(kind, match=text):
            wrong()
    assert me.exit_reason is None


# --- calls ---


async def test_a_call_to_oneself_is_refused_however_it_is_made(nodes: Nodes):
    ada = await nodes.start("ada")
    results: list[Any] = []

    async def selfish(me: Process) -> None:
        await me.names.register("me", me.pid)
        ada.names.local.register("here", me.pid)
        ways = [
            lambda: me.call(me.pid, 1),
            lambda: me.call("me", 1),
            lambda: me.call(("here", ada.name), 1),
            lambda: ada.call(me.pid, 1),
            lambda: ada.call("me", 1),
            lambda: asyncio.create_task(me.call(me.pid, 1)),
            lambda: asyncio.create_task(ada.call("me", 1)),
        ]
        results.extend([await ended(way()) for way in ways])

    pid = ada.spawn(selfish)
    assert await ada.wait_exit(pid, timeout=3.0) == "normal"
    assert len(results) == 7
    assert all(isinstance(result, CallFailed) and "calls itself" in str(result) for result in results)


async def test_a_process_may_call_another_through_its_node(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    results: list[Any] = []

    async def asks(me: Process) -> None:
        results.extend([await ada.call(node.spawn(echo), 1) for node in (ada, bob)])

    assert await ada.wait_exit(ada.spawn(asks)) == "normal"
    assert results == [1, 1]


async def test_a_call_by_name_ends_with_the_process_that_had_the_name_then(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    into: list[Any] = []
    for name, node in {"here": ada, "there": bob}.items():
        first, second = node.spawn(collect, into), node.spawn(echo)
        claim = await node.names.register(name, first)
        node.names.local.register("log", first)
        calls = [asyncio.ensure_future(ada.call(target, name)) for target in (name, ("log", node.name))]
        await until(partial(came_twice, into, name))
        await claim.release()
        await node.names.register(name, second)
        node.kill(first)
        for call in calls:
            with pytest.raises(NoProcess, match="ended before it answered: killed"):
                await call
        assert await ada.call(name, 1) == 1


async def test_a_call_knows_how_long_its_caller_waits(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    seen: list[Any] = []

    async def looks(me: Process) -> None:
        async for call in me.calls():
            seen.append((call.deadline, call.remaining, call.expired))
            call.reply()

    for node in (ada, bob):
        pid = node.spawn(looks)
        now = asyncio.get_running_loop().time()
        await ada.call(pid, 1, timeout=100.0)
        deadline, remaining, expired = seen.pop()
        assert now + 99 < deadline < now + 120
        assert 80 < remaining <= 100
        assert not expired
        await ada.call(pid, 1, timeout=None)
        assert seen.pop() == (None, None, False)


@pytest.mark.parametrize("kind", [None, str])
async def test_calls_that_nobody_waits_for_are_passed_over_and_counted(nodes: Nodes, kind: Any):
    ada, bob = await nodes.mesh("ada", "bob")
    gate = asyncio.Event()
    seen: list[object] = []

    async def slow(me: Process) -> None:
        await gate.wait()
        async for call in me.calls(kind):
            seen.append(call.body)
            call.reply(call.body)

    pid = bob.spawn(slow)
    me = process_of(bob, pid)
    for _ in range(3):
        with pytest.raises(CallTimeout):
            await ada.call(pid, "too late", timeout=0.02)
    patient = asyncio.ensure_future(ada.call(pid, "in time"))
    await until(lambda: len(me.mailbox) == 4)
    await until(lambda: all(call.expired for call in list(me.mailbox.messages)[:3]))
    gate.set()
    assert await patient == "in time"
    assert seen == ["in time"]
    assert bob.counters["expired_calls"] == 3
    assert not me.open_calls, "nothing is kept of them"
    assert ada.counters["late_answers"] == 0, "nothing is said of them"


async def test_a_late_reply_never_reaches_a_later_call(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    held: list[Any] = []

    async def holds(me: Process) -> None:
        while True:
            held.append(await me.receive())

    for node in (ada, bob):
        pid = node.spawn(holds)
        with pytest.raises(CallTimeout):
            await ada.call(pid, "first", timeout=0.02)
        later = asyncio.ensure_future(ada.call(pid, "second"))
        await until(lambda: len(held) == 2)
        held[0].reply("to the first")
        held[1].reply("to the second")
        assert await later == "to the second"
        await until(lambda: ada.counters["late_answers"] == 1)
        held.clear()
        ada.counters.clear()
