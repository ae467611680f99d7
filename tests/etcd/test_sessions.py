"""Sessions on demand: nodes with names in etcd know each other without one, open it to say something, and let it go."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from kinfolk import CallTimeout, Down, Exit, LinkCongested, Node, NodeLost, PeerDown, PeerUp, Pid, Process
from tests.etcd.nodes import EtcdNodes
from tests.node.nodes import HEARTBEAT, collect, echo, ended, idle, until
from tests.node.relay import between

IDLE = 3 * HEARTBEAT


async def pair(nodes: EtcdNodes, **settings: Any) -> tuple[Node, Node]:
    """Two nodes that know each other, and have no session."""
    ada, bob = await nodes.start("ada", **settings), await nodes.start("bob", **settings)
    await until(lambda: ada.peers() == [bob.name] and bob.peers() == [ada.name])
    assert not ada.connected() and not bob.connected()
    return ada, bob


async def settle(*nodes: Node) -> None:
    """Wait until no session is open."""
    await until(lambda: not any(node.connected() for node in nodes))


async def kept(*nodes: Node) -> None:
    """Look for long whether their sessions go on: that time is what is tested."""
    loop = asyncio.get_running_loop()
    since = loop.time()
    while loop.time() - since < 4 * IDLE:
        assert all(node.connected() for node in nodes)
        await asyncio.sleep(HEARTBEAT / 4)


async def watch(me: Process, target: Any, into: list[Any]) -> None:
    """Monitors, and remembers what it hears."""
    me.trap_exit = True
    me.monitor_node()
    if target is not None:
        me.monitor(target)
    while True:
        into.append(await me.receive())


async def linked(me: Process, target: Pid, into: list[Any]) -> None:
    me.trap_exit = True
    me.link(target)
    into.append(await me.receive())


async def test_nodes_know_each_other_and_connect_when_the_first_thing_is_said(nodes: EtcdNodes):
    ada, bob = await pair(nodes)
    eve = await nodes.start("eve")
    heard: list[Any] = []
    pid = bob.spawn(collect, heard)
    for number in range(100):
        ada.send(pid, number)
    ada.send(pid, b"x" * 200_000)
    ada.send(pid, "after")
    await until(lambda: len(heard) == 102)
    assert heard == [*range(100), b"x" * 200_000, "after"], "what waited for the session leaves in its order"
    assert ada.connected() == [bob.name] and bob.connected() == [ada.name] and not eve.connected()
    assert eve.peers() == sorted([ada.name, bob.name])
    assert not any(node.counters.dropped() for node in (ada, bob, eve))


async def _call(ada: Node, bob: Node) -> None:
    assert await ada.call(bob.spawn(echo), "hi") == "hi"


async def _send_to_a_name_there(ada: Node, bob: Node) -> None:
    heard: list[Any] = []
    bob.names.local.register("logger", bob.spawn(collect, heard))
    ada.send(("logger", bob.name), "hi")
    await until(lambda: heard == ["hi"])


async def _send_when_clear(ada: Node, bob: Node) -> None:
    heard: list[Any] = []
    await ada.send_when_clear(bob.spawn(collect, heard), "hi")
    await until(lambda: heard == ["hi"])


async def _monitor(ada: Node, bob: Node) -> None:
    heard: list[Any] = []
    target = bob.spawn(idle)
    ada.spawn(watch, target, heard)
    await until(lambda: bob.signals.relations.between(ada.name) == 1)
    bob.kill(target)
    await until(lambda: any(isinstance(told, Down) and told.reason == "killed" for told in heard))


async def _link(ada: Node, bob: Node) -> None:
    heard: list[Any] = []
    target = bob.spawn(idle)
    ada.spawn(linked, target, heard)
    await until(lambda: bob.signals.relations.between(ada.name) == 1)
    bob.kill(target)
    await until(lambda: heard == [Exit(target, "killed")])


async def _kill(ada: Node, bob: Node) -> None:
    target = bob.spawn(idle)
    ada.kill(target)
    await until(lambda: not bob.is_alive(target))


async def _wait_exit(ada: Node, bob: Node) -> None:
    target = bob.spawn(idle)
    waiting = asyncio.create_task(ada.wait_exit(target))
    await until(lambda: bob.signals.relations.between(ada.name) == 1)
    bob.kill(target)
    assert await waiting == "killed"


async def _spawn_on(ada: Node, bob: Node) -> None:
    pid = await ada.spawn_on(bob.name, echo)
    assert pid.node == bob.name and await ada.call(pid, "hi") == "hi"


async def _register_for_a_process_there(ada: Node, bob: Node) -> None:
    pid = bob.spawn(idle)
    assert (await ada.names.register("away", pid)).pid == pid
    await ada.names.wait_for("away", timeout=5)  # what etcd has granted to another node is seen a moment later
    await ada.names.unregister("away")
    assert bob.names.whereis("away") is None


async def _connect(ada: Node, bob: Node) -> None:
    await ada.connect(bob.name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "order",
    [
        _call, _send_to_a_name_there, _send_when_clear, _monitor, _link, _kill, _wait_exit, _spawn_on,
        _register_for_a_process_there, _connect,
    ],
)  # fmt: skip
async def test_whatever_needs_a_session_opens_it_and_it_ends_when_nothing_needs_it(nodes: EtcdNodes, order: Any):
    ada, bob = await pair(nodes, idle_after=IDLE, allow_spawn=[echo])
    await order(ada, bob)
    assert ada.connected() == [bob.name]
    await settle(ada, bob)
    assert ada.peers() == [bob.name] and bob.peers() == [ada.name]
    assert ada.counters["peers_lost"] == bob.counters["peers_lost"] == 0
    await order(bob, ada)  # and again, from the other end
    assert not ada.counters.dropped() and not bob.counters.dropped()


class Hanging:
    """What keeps a session, until it is let go."""

    def __init__(self, ada: Node, bob: Node) -> None:
        self.ada, self.bob = ada, bob
        self.heard: list[Any] = []
        self.target = bob.spawn(idle)

    async def monitor(self) -> Callable[[], object]:
        watcher = self.ada.spawn(watch, self.target, self.heard)
        return lambda: self.ada.kill(watcher)

    async def link(self) -> Callable[[], object]:
        self.ada.spawn(linked, self.target, self.heard)
        return lambda: self.bob.kill(self.target)

    async def call(self) -> Callable[[], object]:
        calling = asyncio.create_task(ended(self.ada.call(self.target, "hi", timeout=60)))

        def let_go() -> None:
            assert not calling.done()
            self.bob.kill(self.target)

        return let_go

    async def remote_child(self) -> Callable[[], object]:
        async def parent(me: Process) -> None:
            await me.spawn_on(self.bob.name, idle, link=True)
            await me.receive()

        pid = self.ada.spawn(parent)
        return lambda: self.ada.send(pid, "end")


@pytest.mark.slow
@pytest.mark.parametrize("what", [Hanging.monitor, Hanging.link, Hanging.call, Hanging.remote_child])
async def test_a_session_that_something_hangs_on_is_kept_by_both_ends(nodes: EtcdNodes, what: Any):
    ada, bob = await pair(nodes, idle_after=IDLE, allow_spawn=[idle])
    let_go = await what(Hanging(ada, bob))
    await until(lambda: ada.connected() and bob.connected())
    await kept(ada, bob)
    let_go()
    await settle(ada, bob)


@pytest.mark.slow
async def test_an_end_that_waits_for_nothing_itself_asks_and_is_told_no_and_what_it_says_meanwhile_arrives(
    nodes: EtcdNodes,
):
    ada, bob = await pair(nodes, idle_after=IDLE)
    heard: list[Any] = []
    listens = ada.spawn(collect, heard)
    ended_ = asyncio.create_task(ended(ada.call(bob.spawn(idle), "never answered", timeout=60)))
    await until(lambda: bob.connected())
    said, held = 0, 0
    contact = bob._parts.contacts._all[ada.name]
    while held < 3:  # it is held each time that bob has asked, and not been answered
        if contact._held:
            bob.send(listens, said)
            said, held = said + 1, held + 1
            await until(lambda: not contact._held)
        await asyncio.sleep(0)
    await until(lambda: heard == list(range(said)))
    assert ada.connected(), "it has been the same session all the time"
    assert ada.counters["peers_lost"] == bob.counters["peers_lost"] == 0
    ended_.cancel()


@pytest.mark.slow
async def test_nobody_who_watches_nodes_hears_of_a_session_that_comes_and_goes(nodes: EtcdNodes):
    ada, bob = await pair(nodes, idle_after=IDLE)
    heard: list[Any] = []
    ada.spawn(watch, None, heard)
    await until(lambda: heard == [PeerUp(bob.name)])
    for _ in range(2):
        await ada.call(("kinfolk", bob.name), ["nodes"])
        await settle(ada, bob)
    assert heard == [PeerUp(bob.name)]
    await bob.close()
    await until(lambda: len(heard) == 2)
    assert isinstance(heard[1], PeerDown) and not ada.peers()
    again = await nodes.start(bob.name)
    await until(lambda: heard[2:] == [PeerUp(again.name)])
    assert await ada.call(("kinfolk", again.name), ["nodes"])


@pytest.mark.slow
async def test_what_is_said_while_sessions_end_and_open_arrives_in_order_and_once(nodes: EtcdNodes):
    """Sessions that end after two heartbeats without a word, so that what is said meets their end on its way."""
    rng = random.Random(1)
    async with between(nodes, "ada", "bob", heartbeat=0.05, down_after=5.0, idle_after=0.1) as two:
        two.delay(0.03)
        heard: dict[str, list[int]] = {node.name: [] for node in two.nodes}
        pids = {node.name: node.spawn(collect, heard[node.name]) for node in two.nodes}
        opened = 0

        async def talk(node: Node, other: Node) -> None:
            nonlocal opened
            for number in range(60):
                opened += not node.connected()
                node.send(pids[other.name], number)
                await asyncio.sleep(rng.choice([0.0, 0.1, 0.13, 0.16, 0.19, 0.22, 0.25]))

        ada, bob = two.nodes
        await asyncio.gather(talk(ada, bob), talk(bob, ada))
        await until(lambda: all(len(told) == 60 for told in heard.values()))
        assert all(told == list(range(60)) for told in heard.values())
        assert opened > 5, "they did end and open"
        assert not ada.counters.dropped() and not bob.counters.dropped()
        assert ada.counters["peers_lost"] == bob.counters["peers_lost"] == 0


async def test_a_node_that_cannot_be_reached_is_no_peer_until_it_can_and_all_is_told_as_on_the_mesh(nodes: EtcdNodes):
    ada, bob = await pair(nodes)
    pid = (await bob.names.register("x", bob.spawn(echo))).pid
    await until(lambda: ada.names.whereis("x") == pid)
    heard: list[Any] = []
    watcher = ada.spawn(watch, pid, heard)
    await until(lambda: heard == [PeerUp(bob.name)] and ada.connected())
    calling = asyncio.create_task(ended(ada.call(bob.spawn(idle), "hi")))
    await until(lambda: len(ada._parts.contacts._all[bob.name].calls) == 1)
    bob.abandon()  # as if it had been killed: its lease lives on for a while
    await until(lambda: len(heard) == 3)
    assert heard[1].reason == "noconnection" and isinstance(heard[2], PeerDown)
    assert isinstance(await calling, NodeLost) and not ada.peers()
    assert isinstance(await ended(ada.call(pid, "hi")), NodeLost)
    ada.send(pid, "lost")
    assert ada.counters["sends_to_lost_nodes"] == 1
    assert ada.names.whereis("x") == pid, "its lease says who has the name"
    tenure = ada.kernel.tenure
    assert tenure is not None
    await until(lambda: bob.name not in tenure.nodes)
    assert ada.names.whereis("x") is None and not ada.kernel.members.targets
    assert ada.is_alive(watcher)


async def test_a_call_whose_caller_has_given_up_before_there_was_a_session_is_not_made(nodes: EtcdNodes):
    async with between(nodes, "ada", "bob", heartbeat=0.05, down_after=5.0, idle_after=0.1) as two:
        ada, bob = two.nodes
        heard: list[Any] = []
        target = bob.spawn(collect, heard)
        await settle(ada, bob)
        two.stall()
        with pytest.raises(CallTimeout):
            await ada.call(target, "too late", timeout=0.1)
        ada.send(target, "after")
        two.heal()
        await until(lambda: heard)
        assert heard == ["after"]


async def test_a_dial_that_fails_tells_all_that_waited_for_it(nodes: EtcdNodes):
    ada, bob = await pair(nodes)
    pid = bob.spawn(idle)
    bob.abandon()
    heard: list[Any] = []
    waits = [ended(ada.call(pid, "hi")), ended(ada.spawn_on(bob.name, idle)), ended(ada.names.register("x", pid))]
    for number in range(3):
        ada.send(pid, number)
    ada.spawn(watch, pid, heard)
    ada.spawn(linked, pid, heard)
    assert ada.peers() == [bob.name]
    assert [type(error) for error in await asyncio.gather(*waits)] == [NodeLost] * 3
    await until(lambda: len(heard) == 4)
    assert not ada.peers() and ada.counters["sends_to_lost_nodes"] == 3
    assert {getattr(told, "reason", None) for told in heard} >= {"noconnection"}


async def test_more_than_may_wait_for_a_node_that_is_being_dialled_is_refused(nodes: EtcdNodes):
    ada = await nodes.start("ada", high_water=100_000, max_outbox=10_000_000)
    bob = await nodes.start("bob")
    heard: list[Any] = []
    pid = bob.spawn(collect, heard)
    await until(lambda: ada.peers() == [bob.name])
    said = 0
    while not ada.congested():
        ada.send(pid, bytes(1000))
        said += 1
    assert 50 < said < 100
    with pytest.raises(LinkCongested):
        ada.send(pid, "too much")
    assert ada.counters["links_congested"] == 1
    cleared = asyncio.create_task(ada.send_when_clear(pid, "clear"))
    answered = asyncio.create_task(ada.call(bob.spawn(echo), "hi"))
    assert await answered == "hi"
    await cleared
    await until(lambda: len(heard) == said + 1)
    assert heard[-1] == "clear" and not ada.counters.dropped()


async def test_what_waits_for_a_session_is_said_before_a_node_closes(nodes: EtcdNodes):
    ada, bob = await pair(nodes)
    heard: list[Any] = []
    ada.send(bob.spawn(collect, heard), "last words")
    await ada.close()
    await until(lambda: heard == ["last words"])


async def test_a_node_for_which_too_much_waits_is_given_up_until_it_is_reached(nodes: EtcdNodes):
    ada = await nodes.start("ada", high_water=20_000, max_outbox=40_000)
    bob = await nodes.start("bob")
    await until(lambda: ada.peers() == [bob.name])
    pid, heard = bob.spawn(idle), list[Any]()

    async def greedy(me: Process) -> None:
        for _ in range(1000):  # nobody is refused who watches
            me.monitor(pid)
        me.monitor_node()
        while True:
            heard.append(await me.receive())

    ada.spawn(greedy)
    await until(lambda: PeerUp(bob.name) in heard)
    assert [told.reason for told in heard if isinstance(told, Down)] == ["noconnection"] * 1000
    assert ada.counters["outbox_overflows"] == 1


async def test_a_node_that_starts_anew_is_another_and_what_waits_for_the_old_one_is_told_so(nodes: EtcdNodes):
    ada, bob = await pair(nodes)
    heard: list[Any] = []
    old = bob.spawn(idle)
    ada.spawn(watch, old, heard)
    await until(lambda: heard == [PeerUp(bob.name)] and ada.connected())
    bob.abandon()
    again = await nodes.start(bob.name)
    await until(lambda: ada.peers() == [again.name] and ada.kernel.peers()[again.name] == again.creation)
    await until(lambda: len(heard) >= 4)
    assert heard[1].reason == "noconnection"
    assert [type(told) for told in heard[2:]] == [PeerDown, PeerUp]
    assert await ada.call(again.spawn(echo), "hi") == "hi"


@pytest.mark.slow
async def test_a_session_is_kept_while_one_of_the_two_has_no_lease_and_its_end_is_the_end_of_the_peer(nodes: EtcdNodes):
    ada, bob = await pair(nodes, idle_after=IDLE)
    tenure, lost, mute, client = ada.kernel.tenure, bob.kernel.tenure, bob._parts.client, ada._parts.client
    assert tenure is not None and lost is not None and mute is not None and client is not None
    await _call(ada, bob)
    mute._closed = True  # it asks etcd nothing more
    await client._revoke(lost._lease)
    await until(lambda: bob.name not in tenure.nodes)
    await kept(ada, bob)
    assert ada.peers() == [bob.name] and await ada.call(bob.spawn(echo), "hi") == "hi"
    bob.abandon()
    await until(lambda: not ada.peers())
    assert not ada.kernel.members.targets, "nobody dials it"
