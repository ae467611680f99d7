"""A node that drains finishes what it has, refuses what it would not finish, and is gone for its peers at once."""

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest

from kinfolk import (
    Call,
    Child,
    KinfolkError,
    NodeDraining,
    NodeLost,
    NoProcess,
    PeerDown,
    Pid,
    Process,
    Server,
)
from kinfolk.node import CLOSE_TIMEOUT
from tests.node import jobs
from tests.node.nodes import HEARTBEAT, Nodes, collect, echo, ended, holders, idle, until
from tests.node.relay import between
from tests.node.test_singletons import History, alternate


class Held:
    """A process that answers each call when it is let."""

    def __init__(self) -> None:
        self.begun: list[Call[Any]] = []

    async def run(self, me: Process) -> None:
        """Its body."""
        async for call in me.calls():
            self.begun.append(call)


class Counting(Server):
    """Takes its time for each call, and counts."""

    async def init(self, counts: Counter[str]) -> None:
        self.counts = counts

    async def work(self, call: Call[jobs.Work]) -> None:
        self.counts["begun"] += 1
        await asyncio.sleep(0.002)
        call.reply(call.body.number)
        self.counts["answered"] += 1


async def step(node: Any, name: str) -> None:
    """Wait until a draining node is at this step."""
    await until(lambda: node.draining is not None and node.draining.step == name)


# --- what others see ---


async def test_a_node_that_has_left_is_gone_at_once_is_not_dialled_and_returns_under_a_new_creation(nodes: Nodes):
    ada = await nodes.start("ada")
    bob = await nodes.start("bob", ada)
    seen: list[Any] = []
    watcher = ada.spawn(collect, seen)
    process = next(each for each in ada.processes() if each.pid == watcher)
    await bob.names.register("b", bob.spawn(echo))
    await until(lambda: process.task is not None and ada.names.whereis("b"))
    process.monitor_node(bob.name)

    assert await bob.drain() is True
    assert (bob.ready, repr(bob)) == (False, f"<node {bob.name} (closed)>")
    await until(lambda: PeerDown(bob.name, "left") in seen)
    assert (ada.peers(), ada.names.whereis("b")) == ([], None)
    assert bob.name not in [str(target.seed.expects) for target in ada.kernel.members.targets.values()]

    again = await nodes.start(bob.name, ada)
    assert again.creation > bob.creation
    await until(lambda: ada.peers() == [again.name])


async def test_whoever_named_a_node_to_join_it_finds_its_next_start(nodes: Nodes):
    bob = await nodes.start("bob")
    ada = await nodes.start("ada", bob)
    await bob.drain()
    await until(lambda: ada.peers() == [])
    again = await nodes.start(bob.name)  # which has nobody to join
    await until(lambda: again.peers() == [ada.name])


async def test_the_last_word_of_a_node_is_heard_whatever_is_on_its_way_to_it(nodes: Nodes):
    """To say something to a socket that is closed resets the connection, and that may overtake what it said before."""
    heard: list[Any] = []

    async def watch(me: Process) -> None:
        me.monitor_node()
        while True:
            heard.append(await me.receive())

    async with between(nodes, "ada", "bob") as way:
        ada, bob = way.nodes
        ada.spawn(watch)
        arrived: list[Any] = []
        target = bob.spawn(collect, arrived)
        way.delay(0.05)
        closing = None
        while not any(isinstance(told, PeerDown) for told in heard):
            ada.send(target, "more")
            await asyncio.sleep(0.001)
            if arrived and closing is None:
                closing = asyncio.create_task(bob.close())
        assert closing is not None
        await closing
    assert "ended the session (closed)" in heard[-1].reason


async def test_closing_without_a_drain_is_no_leaving(nodes: Nodes):
    bob = await nodes.start("bob")
    ada = await nodes.start("ada", bob)
    await bob.close()
    await until(lambda: ada.peers() == [])
    assert ada.kernel.members.left == set()


# --- what is finished, and what is refused ---


async def test_what_has_come_is_done_then_calls_of_peers_are_refused_and_what_came_meanwhile_is_done(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    held, own = Held(), bob.spawn(echo)
    pid = bob.spawn(held.run)
    first = asyncio.create_task(ada.call(pid, 1, timeout=None))
    await until(lambda: len(held.begun) == 1)
    leaving = asyncio.create_task(bob.drain())
    await step(bob, "finishes what has come")
    assert not bob.ready and "draining" in repr(bob)
    second = asyncio.create_task(ada.call(pid, 2, timeout=None))
    await until(lambda: len(held.begun) == 2)

    held.begun[0].reply("one")
    await step(bob, "runs dry")
    assert await first == "one"
    with pytest.raises(NoProcess, match="drains, and takes no more calls of other nodes"):
        await ada.call(own, 3)
    assert await bob.call(own, "what is at work here may call") == "what is at work here may call"
    assert await bob.call(bob.spawn(echo), "and start helpers") == "and start helpers"
    assert (await ada.call(("kinfolk", bob.name), ["info"]))["draining"]["step"] == "runs dry"
    assert not leaving.done()

    held.begun[1].reply("two")
    assert await second == "two"
    assert await leaving is True


async def test_messages_that_have_come_are_taken_before_the_node_leaves(nodes: Nodes):
    ada = await nodes.start("ada")
    taken: list[Any] = []
    let = asyncio.Event()

    async def slow(me: Process) -> None:
        await let.wait()
        await collect(me, taken)

    pid = ada.spawn(slow)
    for message in (None, 0, "", "last"):
        ada.send(pid, message)
    leaving = asyncio.create_task(ada.drain())
    await step(ada, "finishes what has come")
    assert ada.draining is not None and [undone.messages for undone in ada.draining.undone()] == [4]
    let.set()
    assert await leaving is True
    assert taken == [None, 0, "", "last"]


async def test_a_steady_load_cannot_keep_a_node_and_each_call_is_answered_or_was_never_begun(nodes: Nodes):
    ada, bob, carl = await nodes.mesh("ada", "bob", "carl")
    counts: Counter[str] = Counter()
    pid = bob.spawn(Counting, counts)
    over = asyncio.Event()

    async def load(node: Any) -> None:
        while not over.is_set():
            try:
                await node.call(pid, jobs.Work(7), timeout=None)
            except (NoProcess, NodeLost) as error:
                counts[type(error).__name__] += 1
                await asyncio.sleep(0.001)
            else:
                counts["heard"] += 1

    loads = [asyncio.create_task(load(node)) for node in (ada, carl) for _ in range(8)]
    await until(lambda: counts["answered"] > 50)
    assert await asyncio.wait_for(bob.drain(60), 10) is True
    over.set()
    await asyncio.gather(*loads)
    assert counts["begun"] == counts["answered"] == counts["heard"]
    assert counts["NoProcess"] > 0


async def test_a_drain_that_is_not_done_in_time_says_what_is_left_and_leaves_all_the_same(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
):
    ada, bob = await nodes.mesh("ada", "bob")
    held = Held()
    pid, deaf = bob.spawn(held.run), bob.spawn(idle)
    bob.send(deaf, "nobody takes this")
    call = asyncio.create_task(ada.call(pid, 1, timeout=None))
    await until(lambda: held.begun)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert await bob.drain(0.1) is False
    assert bob.draining is not None and bob.draining.step == "runs dry", "calls were refused for half of the time"
    assert isinstance(await ended(call), NoProcess)
    (line,) = [record.getMessage() for record in caplog.records if "leaves although" in record.getMessage()]
    assert f"{pid} (Held.run): 0 messages, 1 calls" in line and f"{deaf} (idle): 1 messages, 0 calls" in line
    assert (bob.counters["undrained_calls"], bob.counters["undrained_messages"]) == (1, 1)
    await until(lambda: bob.name in ada.kernel.members.left)


async def test_a_server_that_has_yet_to_start_is_not_waited_for(nodes: Nodes):
    class Slow(Server):
        async def init(self) -> None:
            await asyncio.Event().wait()

    ada = await nodes.start("ada")
    starting = asyncio.create_task(ended(ada.supervise([Child(Slow, shutdown=0.05)])))
    await until(lambda: any(process.open_calls for process in ada.processes() if process.body is Slow))
    assert await ada.drain(10) is True
    assert isinstance(await starting, KinfolkError)


async def test_a_node_whose_time_is_up_gives_its_servers_less_time_to_end(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    patience: list[float] = []

    async def stop(seconds: float) -> None:
        patience.append(seconds)

    for done in (True, False):
        ada = await nodes.start("ada")
        pid = ada.spawn(Counting, Counter[str]())
        await ada.call(pid, jobs.Work(1))
        if not done:
            ada.send(ada.spawn(idle), "nobody takes this")
        monkeypatch.setattr(ada, "_stop_services", stop)
        assert await ada.drain(0.05) is done
    assert patience == [CLOSE_TIMEOUT, CLOSE_TIMEOUT / 2]


async def test_a_call_whose_caller_has_given_up_is_not_waited_for(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    held = Held()
    pid = bob.spawn(held.run)
    call = asyncio.create_task(ended(ada.call(pid, 1, timeout=0.3)))
    await until(lambda: held.begun)
    assert await bob.drain(10) is True
    assert isinstance(await call, TimeoutError)


# --- singletons ---


async def chief(me: Process, history: History, held: Held) -> None:
    word = me.node.name.partition("@")[0]
    history.append(("+", word))
    try:
        await held.run(me)
    finally:
        history.append(("-", word))


async def test_a_singleton_does_what_it_has_and_runs_elsewhere_before_its_node_has_left(nodes: Nodes):
    bob, ada = await nodes.mesh("bob", "ada")
    history: History = []
    helds = {node: Held() for node in (bob, ada)}
    for node in (bob, ada):
        await node.supervise([Child(chief, history, helds[node], name="chief", singleton=True)])
    plain = Held()
    working = asyncio.create_task(ada.call(bob.spawn(plain.run), 0, timeout=None))
    calls = [asyncio.create_task(ada.call("chief", number, timeout=None)) for number in range(3)]
    await until(lambda: plain.begun and len(helds[bob].begun) == 3)

    leaving = asyncio.create_task(bob.drain())
    await step(bob, "hands names over")
    for node in (ada, bob):
        with pytest.raises(NoProcess, match="is about to end, for bob"):
            await node.call("chief", "new")
    bob.send("chief", "new")
    for call in helds[bob].begun:
        call.reply(f"chief {call.body}")
    assert [await call for call in calls] == ["chief 0", "chief 1", "chief 2"]
    await until(lambda: (pid := ada.names.whereis("chief")) is not None and pid.node == ada.name)
    answer = asyncio.create_task(ada.call("chief", 4))
    await until(lambda: helds[ada].begun)
    helds[ada].begun[0].reply("the next chief")
    assert await answer == "the next chief"
    assert not leaving.done() and history == [("+", "bob"), ("-", "bob"), ("+", "ada")]

    assert (await bob.supervise([Child(chief, history, plain, name="other", singleton=True)])).children()[
        0
    ].state == "standby", "a node that drains starts no singleton"
    plain.begun[0].reply("plain")
    assert await working == "plain"
    assert await leaving is True
    await ada.close()
    assert alternate(history)


async def test_a_node_that_stands_by_and_drains_does_not_take_over(nodes: Nodes):
    bob, ada = await nodes.mesh("bob", "ada")
    history: History = []
    trees = [await node.supervise([Child(chief, history, Held(), name="chief", singleton=True)]) for node in (bob, ada)]
    plain = Held()
    working = asyncio.create_task(bob.call(ada.spawn(plain.run), 0, timeout=None))
    await until(lambda: plain.begun)
    leaving = asyncio.create_task(ada.drain())
    await step(ada, "finishes what has come")
    await trees[0].stop()
    await asyncio.sleep(3 * HEARTBEAT)
    assert holders([ada, bob], "chief") == {None}
    plain.begun[0].reply(None)
    assert await leaving is True and await working is None


# --- new work ---


async def test_a_draining_node_starts_nothing_for_others_and_a_remote_child_goes_to_the_next_node(nodes: Nodes):
    bob = await nodes.start("bob", allow_spawn=[jobs.wait])
    carl = await nodes.start("carl", bob, allow_spawn=[jobs.wait])
    ada = await nodes.start("ada", bob)
    await until(lambda: len(bob.peers()) == 2)
    tree = await ada.supervise([Child(jobs.wait, on=[bob.name, carl.name])], intensity=1)
    (child,) = tree.children()
    assert child.pid is not None and child.pid.node == bob.name
    held = Held()
    working = asyncio.create_task(ada.call(bob.spawn(held.run), 0, timeout=None))
    await until(lambda: held.begun)
    leaving = asyncio.create_task(bob.drain())
    await step(bob, "finishes what has come")
    with pytest.raises(NodeDraining, match=r"bob@.*: it drains, and starts nothing for other nodes any more"):
        await ada.spawn_on(bob.name, jobs.wait)
    ada.kill(child.pid)  # its one restart; that bob does not start it again must not count
    await until(lambda: (pid := tree.children()[0].pid) is not None and pid.node == carl.name)
    held.begun[0].reply(None)
    assert await leaving is True and await working is None


# --- who drains, and how often ---


async def test_all_who_drain_wait_for_the_same_end_and_cancelling_one_stops_nothing(nodes: Nodes):
    ada = await nodes.start("ada")
    held = Held()
    working = asyncio.create_task(ada.call(ada.spawn(held.run), 0, timeout=None))
    await until(lambda: held.begun)
    first, second, third = (asyncio.create_task(ada.drain(seconds)) for seconds in (float("inf"), 0.01, 10))
    await asyncio.sleep(0.05)
    third.cancel()
    assert not first.done() and not second.done(), "the first one's time counts"
    held.begun[0].reply(None)
    assert await first is await second is await ada.drain() is True
    assert third.cancelled() and await working is None


async def test_a_process_may_drain_its_own_node_and_is_not_waited_for(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    drained: list[bool] = []

    async def doorman(me: Process) -> None:
        await me.receive()
        drained.append(await me.node.drain())

    pid: Pid = bob.spawn(doorman)
    assert isinstance(await ended(ada.call(pid, "drain")), NoProcess | NodeLost)
    await until(lambda: drained == [True])


async def test_whoever_closes_a_node_that_drains_ends_it_and_that_is_not_well_left(nodes: Nodes):
    ada = await nodes.start("ada")
    held = Held()
    working = asyncio.create_task(ended(ada.call(ada.spawn(held.run), 0, timeout=None)))
    await until(lambda: held.begun)
    leaving = asyncio.create_task(ada.drain())
    await step(ada, "finishes what has come")
    await ada.close()
    assert await leaving is False
    await working


async def test_what_has_not_started_or_is_closed_drains_at_once(nodes: Nodes):
    ada, bob = nodes.make("ada"), await nodes.start("bob")
    await bob.close()
    assert await ada.drain() is await bob.drain() is True
    with pytest.raises(ValueError, match="timeout cannot be -1"):
        await ada.drain(-1)


async def test_a_process_that_does_not_end_spoils_the_leaving(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kinfolk.node.CLOSE_TIMEOUT", 0.1)
    ada = await nodes.start("ada")
    release = asyncio.Event()

    async def stubborn(me: Process) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    ada.spawn(stubborn)
    await asyncio.sleep(0)
    assert await ada.drain() is False
    release.set()
    await asyncio.sleep(0.01)


async def test_the_service_drains_its_node_and_answers_before_it_closes(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    waiting = asyncio.create_task(bob.wait_closed())
    answer = await ada.call(("kinfolk", bob.name), ["drain", 5])
    assert answer == {"done": True, "undone": [], "processes": 0}
    await waiting
    assert repr(bob).endswith("(closed)>")
