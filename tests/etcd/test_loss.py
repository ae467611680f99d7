"""What nodes do when etcd stalls, dies, or cannot be reached; with real leases, and so slowly."""

import asyncio
import itertools
import math
import shutil
import signal
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from kinfolk import (
    Child,
    NameAdded,
    NameLost,
    NameRemoved,
    NameTaken,
    Node,
    NodeLost,
    NotConfirmed,
    Pid,
    Reason,
    Request,
    Server,
)
from kinfolk import effects as fx
from kinfolk.demo import etcd
from kinfolk.registries.etcd import Client
from kinfolk.settings import resolve
from tests.etcd.nodes import EtcdNodes, nodes_of
from tests.node.nodes import collect, echo, ended, holders, idle, until
from tests.node.relay import Relay, between
from tests.system.chaos import Lane, Proxy

pytestmark = pytest.mark.slow


class Way(Relay):
    """The way of one node to an etcd of one member."""

    def __init__(self, server: etcd.Server) -> None:
        self._there, self._back = Lane(), Lane()
        self.target = server.members[0].endpoint
        self._proxy = Proxy(self._there, self._back, int(self.target.rpartition(":")[2]))

    @property
    def url(self) -> str:
        return f"etcd://127.0.0.1:{self._proxy.port}"


@pytest.fixture
async def own(own_server: etcd.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EtcdNodes]:
    """Nodes with an etcd of their own."""
    async with nodes_of(own_server.url, tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
async def trio(three: etcd.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EtcdNodes]:
    """Nodes with an etcd of three members."""
    async with nodes_of(three.url, tmp_path, monkeypatch) as made:
        yield made


class Chief(Server):
    """A singleton that writes down where it runs from when to when."""

    async def init(self, history: list[tuple[str, str]]) -> None:
        self.history, self.word = history, self.node.name.partition("@")[0]
        history.append(("+", self.word))

    async def terminate(self, reason: Reason) -> None:
        self.history.append(("-", self.word))


class OneOwner:
    """Looks all the time whether two nodes own a name at once."""

    def __init__(self, nodes: list[Node], name: str) -> None:
        self.nodes, self.name = nodes, name
        self.owners: list[str] = []  # one after the other
        self._task = asyncio.create_task(self._look())

    def own(self) -> list[Node]:
        return [
            node for node in self.nodes if (pid := node.names.whereis(self.name)) is not None and pid.node == node.name
        ]

    async def _look(self) -> None:
        while True:
            owners = [node.name for node in self.own()]
            assert len(owners) <= 1, owners
            self.owners += [owner for owner in owners if self.owners[-1:] != [owner]]
            await asyncio.sleep(0.002)

    async def end(self) -> list[str]:
        assert not self._task.done(), self._task
        self._task.cancel()
        await asyncio.wait([self._task])
        return self.owners


async def want(node: Node, name: str) -> None:
    """Try for ever to get a name."""
    pid = node.spawn(idle)
    while True:
        try:
            await node.names.register(name, pid, timeout=0.5)
            return
        except (NameTaken, NotConfirmed):
            await asyncio.sleep(0.02)


async def test_an_etcd_that_stalls_for_longer_than_the_lease_leaves_nobody_an_owner_and_then_one(
    own: EtcdNodes, own_server: etcd.Server
):
    ada, bob = await own.start("ada"), await own.start("bob")
    told: list[Any] = []
    exits = ada.spawn(idle)
    await ada.names.register("x", exits)
    keeps = (await ada.names.register("kept", ada.spawn(collect, told), on_lost="message")).pid
    await until(lambda: bob.names.whereis("x") == exits and bob.names.whereis("kept") == keeps)
    await until(lambda: max(node.names.staleness() for node in (ada, bob)) < 1.0)
    looking = OneOwner([ada, bob], "x")
    wanting = asyncio.create_task(want(bob, "x"))
    etcd_ = own_server.members[0]
    etcd_.signal(signal.SIGSTOP)
    lost = await ada.wait_exit(exits, timeout=5)
    assert isinstance(lost, NameLost) and lost.winner is None
    await until(lambda: told == [NameLost])
    assert ada.names.whereis("x") is None and ada.names.whereis("kept") is None
    assert bob.names.whereis("kept") == keeps, "others see the last that they were told"
    begun = asyncio.get_running_loop().time()
    refused = await ended(ada.names.register("y", ada.spawn(idle), timeout=0.5))
    assert isinstance(refused, NotConfirmed) and "etcd" in str(refused)
    assert asyncio.get_running_loop().time() - begun < 2
    await asyncio.sleep(9)  # the time that it stalls is what is tested
    assert min(node.names.staleness() for node in (ada, bob)) > 8
    etcd_.signal(signal.SIGCONT)
    await asyncio.wait_for(wanting, 20)
    await until(lambda: holders([ada, bob], "x") == {bob.names.whereis("x")})
    await until(lambda: max(node.names.staleness() for node in (ada, bob)) < 1.0)
    await until(lambda: bob.names.whereis("kept") is None)
    again = await ada.names.register("kept", keeps)
    assert told == [NameLost] and ada.is_alive(keeps)
    await until(lambda: holders([ada, bob], "kept") == {again.pid})
    assert await looking.end() == [ada.name, bob.name]
    assert ada.counters["leases_lost"] == 1


async def test_a_singleton_stands_by_while_etcd_stalls_and_then_runs_once(own: EtcdNodes, own_server: etcd.Server):
    history: list[tuple[str, str]] = []
    mesh = [await own.start("ada"), await own.start("bob")]
    for node in mesh:
        await node.supervise([Child(Chief, history, name="chief", singleton=True, shutdown=1.0)])
    assert history == [("+", "ada")]
    own_server.members[0].signal(signal.SIGSTOP)
    await until(lambda: history == [("+", "ada"), ("-", "ada")])
    await asyncio.sleep(4)
    assert len(history) == 2, "nobody runs it"
    own_server.members[0].signal(signal.SIGCONT)
    await until(lambda: len(history) == 3 and len(holders(mesh, "chief")) == 1, within=20)
    await asyncio.sleep(1)
    assert len(history) == 3


class Work(Request[None], tag="work"):
    pass


class Busy(Server):
    """Has messages that it cannot leave."""

    async def init(self, history: list[str]) -> None:
        self.word = self.node.name.partition("@")[0]
        history.append(self.word)

    async def work(self, message: Work) -> None:
        await asyncio.sleep(60)


async def test_a_singleton_cut_off_in_the_midst_of_a_message_is_ended_after_its_shutdown_time(
    own: EtcdNodes, own_server: etcd.Server
):
    history: list[str] = []
    async with Way(own_server) as way:
        ada, bob = await own.start("ada", registry=way.url), await own.start("bob")
        for node in (ada, bob):
            await node.supervise([Child(Busy, history, name="busy", singleton=True, shutdown=0.5)])
        pid = ada.names.whereis("busy")
        assert pid is not None and pid.node == ada.name
        ada.send(pid, Work())
        way.stall()
        await until(lambda: ada.names.whereis("busy") is None and ada.is_alive(pid))
        await until(lambda: not ada.is_alive(pid), within=1.5)
        await until(lambda: history == ["ada", "bob"])
        await way.cut()
        await own.close()


async def test_a_node_cut_off_from_etcd_loses_its_names_and_keeps_its_sessions(own: EtcdNodes, own_server: etcd.Server):
    async with Way(own_server) as way:
        ada, bob = await own.start("ada", registry=way.url), await own.start("bob")
        looking = OneOwner([ada, bob], "x")
        pid = (await ada.names.register("x", ada.spawn(echo), on_lost="message")).pid
        await until(lambda: bob.names.whereis("x") == pid)
        assert await bob.call(pid, "hi") == "hi"
        way.stall()
        wanting = asyncio.create_task(want(bob, "x"))
        await until(lambda: ada.names.whereis("x") is None)
        await asyncio.wait_for(wanting, 20)
        assert ada.peers() == [bob.name] and bob.peers() == [ada.name]
        assert await bob.call(pid, "hi") == "hi", "its processes are where they were"
        assert isinstance(await ended(ada.names.register("y", pid, timeout=0.3)), NotConfirmed)
        assert ada.names.staleness() > 1
        await way.cut()
        way.heal()
        await ada.names.register("y", pid, timeout=10)
        await until(lambda: holders([ada, bob], "y") == {pid})
        await until(lambda: holders([ada, bob], "x") == {bob.names.whereis("x")})
        assert await looking.end() == [ada.name, bob.name]
        await own.close()


async def test_nodes_parted_from_each_other_but_not_from_etcd_keep_all_names(own: EtcdNodes):
    async with between(own, "ada", "bob") as pair:
        ada, bob = pair.nodes
        pid = (await ada.names.register("x", ada.spawn(echo))).pid
        await until(lambda: bob.names.whereis("x") == pid and bob.peers() == [ada.name])
        pair.stall()
        await until(lambda: not bob.peers() and not ada.peers())
        assert holders([ada, bob], "x") == {pid}, "who has a name is etcd's to say, and who is there"
        assert isinstance(await ended(bob.call("x", "hi")), NodeLost)
        assert isinstance(await ended(bob.names.register("x", bob.spawn(idle))), NameTaken)
        other = (await bob.names.register("y", bob.spawn(idle))).pid
        await until(lambda: ada.names.whereis("y") == other)
        pair.heal()
        await until(lambda: ada.peers() == [bob.name] and bob.peers() == [ada.name])
        assert await bob.call("x", "hi") == "hi"


def leader(server: etcd.Server) -> etcd.Member:
    """The member that leads at present."""
    for member in server.members:
        try:
            with urllib.request.urlopen(f"{member.state}/metrics", timeout=1) as answer:
                if b"etcd_server_is_leader 1" in answer.read():
                    return member
        except OSError:
            pass
    raise LookupError("nobody leads")


def record(node: Node) -> list[fx.Fact | fx.Gone]:
    """Every change that etcd tells a node from now on."""
    told: list[fx.Fact | fx.Gone] = []
    client = node._parts.client
    assert client is not None
    tell: Callable[[fx.Input], None] = client._tell

    def take(happened: fx.Input) -> None:
        assert not isinstance(happened, fx.Snapshot), "it resumes, and does not begin anew"
        if isinstance(happened, fx.Changed):
            told.extend(happened.changes)
        tell(happened)

    client._tell = take
    return told


async def whole_history(nodes: EtcdNodes) -> list[fx.Fact | fx.Gone]:
    """Every change that etcd knows of, up to this moment."""
    truth: list[fx.Fact | fx.Gone] = []
    current = asyncio.Event()

    def take(happened: fx.Input) -> None:
        if isinstance(happened, fx.Changed):
            truth.extend(happened.changes)
        elif isinstance(happened, fx.Current) and truth:
            current.set()

    where = resolve(name="ada", registry=nodes.url, cookie=nodes.cookie).registry
    assert where is not None
    client = Client(where, nodes.cluster, 6.0, 1.0, take, asyncio.get_running_loop().time, "ada@h:1")
    client.consult(fx.Follow(1))
    await asyncio.wait_for(current.wait(), 10)
    await client.close()
    return truth


async def fold(node: Node, names: dict[str, Pid]) -> None:
    """Follow all names; each event fits those before it."""
    async for event in node.names.watch("*"):
        match event:
            case NameAdded(name=name, pid=pid):
                assert name not in names
                names[name] = pid
            case NameRemoved(name=name, pid=pid):
                assert names.pop(name) == pid
            case _:
                raise AssertionError(event)


class Load:
    """Nodes that fight for a few names, and note when each was told what."""

    def __init__(self) -> None:
        self.held: dict[str, list[tuple[float, float]]] = {}
        """From when to when somebody has held a name for certain: from the answer of its register to its release."""
        self.claimed: dict[tuple[str, Pid], list[tuple[float, float]]] = {}
        """From when to when somebody may have held it: from its register to the answer of its release."""
        self.refused: list[tuple[str, Pid, float, float]] = []
        """Who was said to hold a name, and from when to when that was asked."""

    async def fight(self, node: Node, name: str) -> None:
        clock, pid = asyncio.get_running_loop().time, node.spawn(idle)
        claimed = self.claimed.setdefault((name, pid), [])
        while True:
            begun = clock()
            claimed.append((begun, math.inf))
            try:
                claim = await node.names.register(name, pid, timeout=2)
            except NameTaken as error:
                claimed.pop()
                self.refused.append((name, error.holder, begun, clock()))
                await asyncio.sleep(0.01)
                continue
            except NotConfirmed:
                continue  # it may come late
            since = clock()
            await asyncio.sleep(0.02)
            let_go = clock()
            self.held.setdefault(name, []).append((since, let_go))
            await claim.release(timeout=2)
            if clock() < let_go + 2:  # else nobody knows when it is carried out
                claimed[-1] = begun, clock()

    def check(self) -> int:
        """Whether there is an order in which all of it happened one after the other. How often a name was held."""
        for held in self.held.values():
            held.sort()
            for (_, end), (begin, _) in itertools.pairwise(held):
                assert end <= begin, "two have held it at once"
        for name, holder, begun, ended_at in self.refused:
            claims = self.claimed[name, holder]
            assert any(since <= ended_at and begun <= until for since, until in claims), "refused for nobody"
        return sum(map(len, self.held.values()))


async def test_the_leader_is_killed_and_comes_back_under_load_and_nothing_is_lost(trio: EtcdNodes, three: etcd.Server):
    mesh = [await trio.start(word, heartbeat=1.0) for word in ("ada", "bob", "eve")]
    kept = {f"kept/{node.name}/{number}": node for node in mesh for number in range(20)}
    pids = {name: node.spawn(idle) for name, node in kept.items()}
    told = [record(node) for node in mesh]
    await asyncio.gather(*(node.names.register(name, pids[name]) for name, node in kept.items()))
    folded: list[dict[str, Pid]] = [{} for _ in mesh]
    load = Load()
    tasks = [asyncio.create_task(fold(node, names)) for node, names in zip(mesh, folded, strict=True)]
    tasks += [asyncio.create_task(load.fight(node, f"fought/{number}")) for node in mesh for number in range(3)]
    for _ in range(3):
        victim = await asyncio.to_thread(leader, three)
        before = load.check()
        victim.kill()
        await until(lambda: load.check() > before + 20, within=20)  # noqa: B023 - it is waited for here
        victim.start(three.members)
        await asyncio.to_thread(three.wait_until_ready)
        assert all(node.is_alive(pids[name]) for name, node in kept.items())
    assert not any(task.done() for task in tasks), tasks
    assert load.refused, "it has been fought"
    for task in tasks[len(mesh) :]:
        task.cancel()
    await asyncio.wait(tasks[len(mesh) :])
    await until(lambda: all(node.names.snapshot() == mesh[0].names.snapshot() for node in mesh))
    await until(lambda: all(names == mesh[0].names.snapshot() for names in folded))
    assert all(mesh[0].names.whereis(name) == pid for name, pid in pids.items()), "no name is lost"
    assert sum(node.counters["leases_lost"] for node in mesh) == 0
    assert sum(node.counters["registry_follows_ended"] for node in mesh) > 0, "some had to resume"
    truth = await whole_history(trio)
    for some in told:
        assert len(some) > 200 and some == truth[-len(some) :], "told without a gap what etcd has in its history"
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_history_that_is_compacted_meanwhile_is_made_up_for_by_a_snapshot(
    own: EtcdNodes, own_server: etcd.Server
):
    async with Way(own_server) as way:
        ada, bob = await own.start("ada", registry=way.url, down_after=30.0), await own.start("bob")
        for name in ("stays", "goes"):
            await bob.names.register(name, bob.spawn(idle))
        await until(lambda: len(ada.names) == 2)
        folded: dict[str, Pid] = {}
        following = asyncio.create_task(fold(ada, folded))
        way.stall()
        await bob.names.unregister("goes")
        comes = (await bob.names.register("comes", bob.spawn(idle))).pid
        compacting = await asyncio.create_subprocess_exec(
            *("etcdctl", "--endpoints", own_server.members[0].endpoint, "compact", str(_revision(bob))),
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin:/usr/local/bin"},
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await compacting.wait() == 0
        await way.cut()
        way.heal()
        await until(lambda: ada.names.whereis("comes") == comes, within=20)
        assert ada.names.snapshot() == bob.names.snapshot()
        await until(lambda: folded == bob.names.snapshot())
        following.cancel()
        await asyncio.wait([following])
        assert ada.counters["leases_lost"] == 0
        await own.close()


async def test_an_etcd_that_has_lost_its_data_is_joined_anew(own: EtcdNodes, own_server: etcd.Server):
    mesh = ada, bob = [await own.start(word) for word in ("ada", "bob")]
    told: list[Any] = []
    for number in range(10):  # so that the new history is behind the old
        await bob.names.register(f"old/{number}", bob.spawn(idle))
    pid = (await ada.names.register("x", ada.spawn(collect, told), on_lost="message")).pid
    (member,) = own_server.members
    member.kill()
    shutil.rmtree(member._directory / member.word)
    member.start(own_server.members)
    await until(lambda: told == [NameLost], within=20)
    await ada.names.register("x", pid, timeout=20)
    other = (await bob.names.register("y", bob.spawn(idle), timeout=20)).pid
    await until(lambda: all(node.names.snapshot() == {"x": pid, "y": other} for node in mesh), within=20)
    assert told == [NameLost]


def _revision(node: Node) -> int:
    tenure = node.kernel.tenure
    assert tenure is not None
    return tenure._revision
