"""Names of other nodes' processes: their node is asked, and both ends end alike whatever is lost in between."""

import asyncio

import pytest

from kinfolk import CallTimeout, NameTaken, NameUnknown, Node, NodeClosed, NodeLost, NoProcess, NotConfirmed, Pid
from tests.node.nodes import Nodes, ended, holders, idle, until
from tests.node.relay import Relay

LONG = 30.0


async def behind(nodes: Nodes, relay: Relay, **settings: float) -> tuple[Node, Node]:
    """A node whose link to another, which has dialled it, can be stalled and cut."""
    bob = await nodes.start(relay.name("bob"), listen=relay.target, **settings)
    ada = await nodes.start("ada", bob, **settings)
    return ada, bob


async def test_any_node_can_register_a_process_of_any_other(nodes: Nodes):
    mesh = ada, bob, _ = await nodes.mesh("ada", "bob", "carl")
    pid = bob.spawn(idle)
    registration = await ada.names.register("x", pid)
    assert (registration.name, registration.pid) == ("x", pid)
    assert holders(mesh, "x") == {pid}
    assert await bob.names.register("x", pid) == registration, "it is the claim of the process's own node"
    bob.kill(pid)
    assert bob.names.whereis("x") is None
    await until(lambda: holders(mesh, "x") == {None})


async def test_any_node_can_unregister_a_name_of_any_other(nodes: Nodes):
    mesh = ada, bob, _ = await nodes.mesh("ada", "bob", "carl")
    pid = bob.spawn(idle)
    await bob.names.register("x", pid)
    await ada.names.unregister("x")
    assert holders(mesh, "x") == {None}, "gone everywhere when it returns"
    registration = await ada.names.register("x", pid)
    await registration.release()
    assert holders(mesh, "x") == {None}


async def test_the_one_who_asks_is_told_who_has_the_name(nodes: Nodes):
    ada, bob, carl = await nodes.mesh("ada", "bob", "carl")
    holder = carl.spawn(idle)
    await carl.names.register("x", holder)
    with pytest.raises(NameTaken) as taken:
        await ada.names.register("x", bob.spawn(idle))
    assert taken.value.holder == holder


async def test_dead_processes_get_no_names(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    pid = bob.spawn(idle)
    bob.kill(pid)
    with pytest.raises(NoProcess):
        await ada.names.register("x", pid)
    with pytest.raises(NoProcess, match="restarted"):
        await ada.names.register("x", Pid(bob.name, bob.creation - 1, 1))
    with pytest.raises(NodeLost, match="not connected"):
        await ada.names.register("x", Pid("nobody@127.0.0.1:1", 1, 1))
    assert holders([ada, bob], "x") == {None}


async def test_a_stale_handle_of_another_nodes_claim_changes_nothing(nodes: Nodes):
    mesh = ada, bob = await nodes.mesh("ada", "bob")
    pid = bob.spawn(idle)
    stale = await ada.names.register("x", pid)
    await bob.names.unregister("x")
    await bob.names.register("x", pid)
    with pytest.raises(NameUnknown, match="nothing was changed"):
        await stale.release()
    assert holders(mesh, "x") == {pid}


async def test_only_this_nodes_processes_are_registered_without_waiting(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    with pytest.raises(ValueError, match="another node"):
        ada.names.register_nowait("x", bob.spawn(idle))


async def test_a_link_lost_before_the_answer_leaves_nothing_registered(nodes: Nodes):
    async with Relay() as relay:
        ada, bob = await behind(nodes, relay, down_after=LONG)
        pid = bob.spawn(idle)
        relay.stall(there=False)  # bob hears the question, ada does not hear the answer
        asking = asyncio.create_task(ada.names.register("x", pid))
        await until(lambda: "x" in bob.kernel.names.own)
        await relay.cut()
        assert isinstance(await ended(asking), NodeLost)
        await until(lambda: bob.names.whereis("x") is None)
        relay.heal()
        await until(lambda: ada.peers() and bob.peers())
        assert holders([ada, bob], "x") == {None}


async def test_nor_one_lost_before_the_question(nodes: Nodes):
    async with Relay() as relay:
        ada, bob = await behind(nodes, relay, down_after=LONG)
        pid = bob.spawn(idle)
        relay.stall(back=False)
        asking = asyncio.create_task(ada.names.register("x", pid))
        unasking = asyncio.create_task(ada.names.register("y", pid))
        await asyncio.sleep(0)
        await relay.cut()
        assert isinstance(await ended(asking), NodeLost)
        assert isinstance(await ended(unasking), NodeLost)
        assert holders([ada, bob], "x") == {None}


async def test_what_is_asked_of_a_silent_node_ends_at_its_deadline(nodes: Nodes):
    async with Relay() as relay:
        ada, bob = await behind(nodes, relay, down_after=LONG)
        pid = bob.spawn(idle)
        await bob.names.register("held", pid)
        await until(lambda: ada.names.whereis("held"))
        relay.stall()
        with pytest.raises(NotConfirmed) as late:
            await ada.names.register("x", pid, timeout=0.1)
        assert late.value.missing == (bob.name,)
        with pytest.raises(CallTimeout, match="did not answer"):
            await ada.names.unregister("held", timeout=0.1)
        relay.heal()
        # What was asked too late arrives all the same, and is taken back: nobody waits for it.
        await until(lambda: holders([ada, bob], "held") == {None})
        await until(lambda: holders([ada, bob], "x") == {None})


async def test_a_cancelled_question_leaves_nothing_registered(nodes: Nodes):
    async with Relay() as relay:
        ada, bob = await behind(nodes, relay, down_after=LONG)
        pid = bob.spawn(idle)
        relay.stall(there=False)
        asking = asyncio.create_task(ada.names.register("x", pid))
        await until(lambda: "x" in bob.kernel.names.own)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: bob.names.whereis("x") is None)
        relay.heal()


async def test_what_others_rely_on_is_not_undone_with_the_question(nodes: Nodes):
    async with Relay() as relay:
        ada, bob = await behind(nodes, relay, down_after=LONG)
        pid = bob.spawn(idle)
        relay.stall(there=False)
        asking = asyncio.create_task(ada.names.register("x", pid))
        await until(lambda: "x" in bob.kernel.names.own)
        own = asyncio.create_task(bob.names.register("x", pid))
        await asyncio.sleep(0)
        await relay.cut()
        assert isinstance(await ended(asking), NodeLost)
        assert (await own).pid == pid
        assert bob.names.whereis("x") == pid


async def test_questions_end_with_the_node(nodes: Nodes):
    async with Relay() as relay:
        ada, bob = await behind(nodes, relay, down_after=LONG)
        relay.stall()
        asking = asyncio.create_task(ada.names.register("x", bob.spawn(idle)))
        await asyncio.sleep(0)
        await ada.close()
        assert isinstance(await ended(asking), NodeClosed)
