"""Names in etcd, between nodes of one program: registered, found, given up, lost with their processes and nodes."""

import asyncio

import pytest

from kinfolk import Child, NameTaken, NotMoved, Server, looking
from kinfolk.metrics import NodeCollector
from tests.etcd.nodes import EtcdNodes
from tests.node.nodes import echo, ended, holders, idle, until


async def test_a_name_is_registered_found_called_given_up_and_lost_with_its_process(nodes: EtcdNodes):
    ada, bob = await nodes.start("ada"), await nodes.start("bob")
    claim = await ada.names.register("x", ada.spawn(echo))
    assert ada.names.whereis("x") == claim.pid
    await until(lambda: bob.names.whereis("x") == claim.pid)
    assert await bob.call("x", "hi") == "hi"
    taken = await ended(bob.names.register("x", bob.spawn(idle)))
    assert isinstance(taken, NameTaken) and taken.holder == claim.pid
    await claim.release()
    assert ada.names.whereis("x") is None
    again = await bob.names.register("x", bob.spawn(idle))
    assert claim.epoch is not None and again.epoch is not None and again.epoch > claim.epoch
    await until(lambda: holders([ada, bob], "x") == {again.pid})
    bob.kill(again.pid)
    assert bob.names.whereis("x") is None
    await until(lambda: ada.names.whereis("x") is None)
    await ada.names.register("x", ada.spawn(idle))


async def test_whoever_looks_sees_what_etcd_has(nodes: EtcdNodes):
    ada, bob = await nodes.start("ada"), await nodes.start("bob")
    pids = {name: (await ada.names.register(name, ada.spawn(idle))).pid for name in ("x", "y")}
    await until(lambda: len(bob.names) == 2)
    for node in (ada, bob):
        told = await looking.Listings(node).names("", "", 10)
        assert told == {"names": [[name, str(pid)] for name, pid in pids.items()], "more": False}
    assert [row["names"] for row in (await looking.top(ada, "name", "", 3))["top"]] == [["kinfolk"], ["x"], ["y"]]
    values = {metric.name: metric.samples[0].value for metric in NodeCollector(ada).collect() if metric.samples}
    assert (values["kinfolk_claims"], values["kinfolk_names_disputed"], values["kinfolk_names"]) == (2, 0, 2)


async def test_nodes_with_names_in_the_mesh_and_in_etcd_do_not_mix(nodes: EtcdNodes, caplog: pytest.LogCaptureFixture):
    ada = await nodes.start("ada")
    bob = await nodes.start("bob", ada, registry="mesh")
    await until(lambda: ada.peers() == [bob.name])
    bob.names.register_nowait("x", bob.spawn(idle))
    await until(lambda: "give all nodes of a cluster the same registry" in caplog.text)
    assert ada.names.whereis("x") is None


async def test_a_name_that_falls_free_is_taken_by_who_waits_for_that_and_etcd_holds_what_is_seen(nodes: EtcdNodes):
    ada, bob = await nodes.start("ada"), await nodes.start("bob")
    claim = await ada.names.register("x", ada.spawn(idle))
    await until(lambda: bob.names.whereis("x"))
    watch = bob.names.watch("x")
    await anext(watch)
    await claim.release()
    await anext(watch)
    new = await bob.names.register("x", bob.spawn(idle))
    waiting = asyncio.create_task(bob.names.unregister("x"))
    again = asyncio.create_task(bob.names.register("x", bob.spawn(idle)))  # once the former is gone
    await waiting
    assert (await again).pid != new.pid
    assert bob.kernel.tenure is not None and set(bob.kernel.tenure.nodes) == {ada.name, bob.name}
    await ada.close()
    await until(lambda: set(bob.kernel.tenure.nodes) == {bob.name} if bob.kernel.tenure else False)


class Tally(Server):
    """A singleton that would hand its state over."""

    async def init(self, history: list[str]) -> None:
        self.history = history
        history.append(self.node.name)

    async def hand_over(self) -> list[str]:
        return self.history

    async def take_over(self, state: list[str]) -> None:
        raise AssertionError("names in etcd do not move")


async def test_names_do_not_move_and_a_singleton_of_a_node_that_leaves_begins_elsewhere(nodes: EtcdNodes):
    ada, bob = await nodes.start("ada"), await nodes.start("bob")
    pid = (await ada.names.register("x", ada.spawn(idle))).pid
    for node in (ada, bob):
        await until(lambda: node.names.whereis("x") == pid)  # noqa: B023 - it is waited for here
        assert isinstance(await ended(node.names.transfer("x", node.spawn(idle))), NotMoved)
    assert holders([ada, bob], "x") == {pid}
    history: list[str] = []
    for node in (ada, bob):
        await node.supervise([Child(Tally, history, name="tally", singleton=True)])
    await ada.drain()
    await until(lambda: history == [ada.name, bob.name])
