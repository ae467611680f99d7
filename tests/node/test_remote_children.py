"""Children that run on other nodes than their supervisor."""

import asyncio
from typing import Any

import pytest

from kinfolk import Child, ChildFailed, ChildInfo, Node, NoProcess, Pid, Process, Supervision
from kinfolk.core.restarts import FIRST_PAUSE
from tests.node import jobs
from tests.node.nodes import HEARTBEAT, Nodes, ended, until
from tests.node.relay import Relay, between

MESH: dict[str, Any] = {"allow_spawn": ["tests.node.jobs.*"]}


def info(tree: Supervision, child: str = "c") -> ChildInfo:
    return {info.id: info for info in tree.children()}[child]


async def running(tree: Supervision, on: Node, *not_as: Pid | None) -> Pid:
    """Wait until the child runs on this node, and as none of these; its pid."""
    found: ChildInfo = await until(
        lambda: (now := info(tree)).state == "running" and now.on == on.name and now.pid not in not_as and now
    )
    assert found.pid is not None
    assert on.is_alive(found.pid)
    return found.pid


def alive(nodes: list[Node], function: str) -> int:
    return sum(process.function == function for node in nodes for process in node.processes())


async def test_a_child_runs_on_its_node_is_started_there_again_and_stopped(nodes: Nodes):
    mesh = ada, bob, _ = await nodes.mesh("ada", "bob", "carl", **MESH)
    tree = await ada.supervise([Child(jobs.echo, "x", id="c", on=bob.name)])
    pid = await running(tree, bob)
    assert await ada.call(pid, 1) == ["x", 1]
    for _ in range(2):
        bob.kill(pid)
        pid = await running(tree, bob, pid)
    assert alive(mesh, "echo") == 1
    await tree.stop()
    await until(lambda: alive(mesh, "echo") == 0)
    assert [len(node.signals.relations) for node in mesh] == [0, 0, 0]


async def test_a_server_elsewhere_counts_as_started_when_its_init_is_done(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob", **MESH)
    jobs_before = alive([bob], "Waits")
    start = asyncio.create_task(ada.supervise([Child(jobs.Waits, id="c", name="waits", on=bob.name)]))
    pid = await ada.names.wait_for("waits", timeout=5)
    await asyncio.sleep(0.05)
    assert not start.done()
    bob.send(("gate", bob.name), "open")
    tree = await start
    assert info(tree).pid == pid
    assert jobs_before == 0
    await tree.stop()
    assert alive([bob], "Waits") == 0, "and it ended in good order"


async def test_the_death_of_a_supervisor_takes_its_children_elsewhere_along(nodes: Nodes):
    mesh = ada, bob = await nodes.mesh("ada", "bob", **MESH)
    tree = await ada.supervise([Child(jobs.echo, id="c", on=bob.name), Child(jobs.Idle, id="d", on=bob.name)])
    assert alive(mesh, "echo") == alive(mesh, "Idle") == 1
    ada.kill(tree.pid)
    await until(lambda: alive(mesh, "echo") == alive(mesh, "Idle") == 0)


async def test_when_the_node_is_lost_the_next_of_the_list_is_taken(nodes: Nodes):
    ada, bob, carl = await nodes.mesh("ada", "bob", "carl", **MESH)
    child = Child(jobs.echo, id="c", on=[bob.name, carl.name, ada.name])
    tree = await ada.supervise([child], intensity=0)
    pid = await running(tree, bob)
    await bob.close()
    pid = await running(tree, carl, pid)
    await carl.close()
    await running(tree, ada, pid)


async def test_with_one_node_it_waits_until_that_is_back(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob", **MESH)
    tree = await ada.supervise([Child(jobs.echo, id="c", on=bob.name)], intensity=0)
    pid = await running(tree, bob)
    await bob.close()
    await until(lambda: info(tree).state == "waiting")
    assert info(tree).pid is None
    again = await nodes.start(bob.name, ada, **MESH)
    await running(tree, again, pid)


async def test_a_node_that_takes_its_time_to_close_is_waited_for(nodes: Nodes):
    async def slow_to_end(me: Process) -> None:
        try:
            await me.receive()
        finally:
            await asyncio.sleep(4 * FIRST_PAUSE)

    ada, bob = await nodes.mesh("ada", "bob", **MESH)
    bob.spawn(slow_to_end)
    tree = await ada.supervise([Child(jobs.echo, id="c", on=bob.name)], intensity=0)
    close = asyncio.create_task(bob.close())
    await until(lambda: info(tree).state == "starting")  # bob is connected, and answers no more
    await close
    await until(lambda: info(tree).state == "waiting")
    await tree.stop()


async def test_a_partition_leaves_one_child_once_it_has_healed(nodes: Nodes):
    async with between(nodes, "ada", "bob", **MESH) as way:
        ada, bob = way.nodes
        tree = await ada.supervise([Child(jobs.echo, id="c", on=bob.name)], intensity=0)
        pid = await running(tree, bob)
        way.stall()
        await until(lambda: info(tree).state == "waiting")
        await until(lambda: not bob.is_alive(pid))
        way.heal()
        await running(tree, bob, pid)
        assert alive([ada, bob], "echo") == 1


async def test_what_is_not_allowed_there_fails_the_start(nodes: Nodes):
    ada = await nodes.start("ada")
    bob = await nodes.start("bob", ada)
    with pytest.raises(ChildFailed, match=r"'c' did not start: .*allow"):
        await ada.supervise([Child(jobs.echo, id="c", on=bob.name)])
    assert len(ada.signals.relations) == 0


async def test_a_node_that_is_not_connected_fails_the_start(nodes: Nodes):
    ada = await nodes.start("ada")
    with pytest.raises(ChildFailed, match=r"cannot run c on bob@10.0.0.2:4370: not connected"):
        await ada.supervise([Child(jobs.echo, id="c", on="bob@10.0.0.2:4370")])


async def test_stopped_before_the_first_step_of_its_start_leaves_no_orphan(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob", **MESH)
    for on in (ada, bob):
        tree = await ada.supervise([])
        start = asyncio.create_task(tree.start_child(Child(jobs.echo, id="c", on=on.name)))
        stop = asyncio.create_task(tree.stop())  # in one turn of the loop
        await asyncio.wait_for(stop, 5)
        assert isinstance(await ended(start), ChildFailed | NoProcess)
        await until(lambda: alive([ada, bob], "echo") == 0)


async def test_stopped_while_the_other_node_is_asked_leaves_no_orphan(nodes: Nodes):
    async with Relay() as relay:
        ada = await nodes.start("ada", **MESH)
        bob = await nodes.start(relay.name("bob"), listen=relay.target, down_after=5, **MESH)
        await ada.connect(bob.name)
        tree = await ada.supervise([])
        relay.stall(there=False)  # the answer does not come
        start = asyncio.create_task(tree.start_child(Child(jobs.echo, id="c", on=bob.name)))
        await until(lambda: alive([bob], "echo") == 1)
        stop = asyncio.create_task(tree.stop())
        await asyncio.sleep(HEARTBEAT)
        relay.heal()
        await stop
        assert isinstance(await ended(start), ChildFailed | NoProcess)
        await until(lambda: alive([bob], "echo") == 0)
        await nodes.close()
