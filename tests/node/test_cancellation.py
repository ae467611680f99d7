"""Whatever waits may be cancelled at any moment: nothing hangs, nothing leaks, and a name is held or it is free."""

import asyncio
import random
import socket
from functools import partial
from typing import Any

from kinfolk import NameAdded, Node, Pid
from tests.node.nodes import Nodes, echo, ended, holders, idle, until


async def turns(count: int) -> None:
    """Let the loop turn so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


def resolves(nodes: list[Node], name: str, holder: Pid | None) -> bool:
    """Whether that is what all of them know."""
    return holders(nodes, name) == {holder}


async def cancelled(task: "asyncio.Task[Any]", after: int) -> Any:
    """Cancel a task after so many turns of the loop; what it came to."""
    await turns(after)
    task.cancel()
    return await ended(task)


async def test_a_register_cancelled_at_any_moment_holds_the_name_with_the_knowledge_of_its_caller_or_not_at_all(
    nodes: Nodes,
):
    mesh = await nodes.mesh("ada", "bob", "carl")
    chance = random.Random(32)
    kept = 0
    for number in range(200):
        node, name = mesh[number % 3], f"n{number}"
        pid = node.spawn(idle)
        outcome = await cancelled(asyncio.create_task(node.names.register(name, pid)), chance.randrange(12))
        if isinstance(outcome, asyncio.CancelledError):
            await until(partial(resolves, mesh, name, None), 5)
        else:
            assert outcome.pid == pid and holders(mesh, name) == {pid}
            kept += 1
            await outcome.release()
    assert 20 < kept < 180, f"{kept} of 200 were confirmed before they were cancelled: the moments tell nothing"
    await until(lambda: all(node.names.snapshot() == {} for node in mesh))
    assert all(not node.kernel.names.own and not node.kernel.names.rivals for node in mesh)
    # The names are as good as new.
    for number in range(0, 200, 20):
        pid = mesh[0].spawn(idle)
        assert (await mesh[0].names.register(f"n{number}", pid)).pid == pid


async def test_registers_of_one_name_cancelled_at_any_moment_leave_at_most_one_holder(nodes: Nodes):
    mesh = await nodes.mesh("ada", "bob", "carl")
    chance = random.Random(33)
    for number in range(60):
        name = f"n{number}"
        tasks = [asyncio.create_task(node.names.register(name, node.spawn(idle))) for node in mesh]
        outcomes = await asyncio.gather(*(cancelled(task, chance.randrange(20)) for task in tasks))
        held = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
        assert len(held) <= 1
        await until(partial(resolves, mesh, name, held[0].pid if held else None), 5)


async def test_an_unregister_cancelled_at_any_moment_still_gives_the_name_up(nodes: Nodes):
    mesh = await nodes.mesh("ada", "bob", "carl")
    chance = random.Random(34)
    for number in range(50):
        node, name = mesh[number % 3], f"n{number}"
        await node.names.register(name, node.spawn(idle))
        await cancelled(asyncio.create_task(node.names.unregister(name)), 1 + chance.randrange(10))
        await until(partial(resolves, mesh, name, None), 5)


async def test_a_call_cancelled_at_any_moment_is_answered_or_forgotten(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    chance = random.Random(35)
    pids = [ada.spawn(echo), bob.spawn(echo)]
    answered = 0
    for number in range(200):
        outcome = await cancelled(asyncio.create_task(ada.call(pids[number % 2], number)), chance.randrange(10))
        answered += outcome == number
        assert outcome == number or isinstance(outcome, asyncio.CancelledError)
    assert 10 < answered < 190
    for pid in pids:
        assert await ada.call(pid, "last") == "last"
    assert not any(link.calls for link in ada.dataplane.links.values())


async def test_a_connect_cancelled_at_any_moment_leaves_the_node_able_to_connect(nodes: Nodes):
    chance = random.Random(36)
    bob = await nodes.start("bob")
    held = (await bob.names.register("db", bob.spawn(echo))).pid
    for _ in range(40):
        ada = await nodes.start("ada")
        await cancelled(asyncio.create_task(ada.connect(bob.name)), chance.randrange(40))
        await asyncio.wait_for(ada.connect(bob.name), 5)
        assert ada.names.snapshot() == {"db": held}
        pid = ada.spawn(idle)
        assert (await ada.names.register("mine", pid)).pid == bob.names.whereis("mine") == pid
        await ada.close()
        nodes.all.remove(ada)
        await until(lambda: not bob.peers())


async def test_a_cancelled_connect_holds_no_registration_up(nodes: Nodes):
    ada = await nodes.start("ada", down_after=30.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never says a word
        where = f"127.0.0.1:{silent.getsockname()[1]}"
        connecting = asyncio.create_task(ada.connect(where, timeout=60))
        other = asyncio.create_task(ada.connect(where, timeout=60))
        await turns(2)
        registering = asyncio.create_task(ada.names.register("db", ada.spawn(idle), timeout=60))
        for task in (connecting, other):
            await turns(20)
            assert not registering.done(), "nothing is confirmed during a join: the mesh may have the name"
            assert isinstance(await cancelled(task, 1), asyncio.CancelledError)
        await turns(5)
        assert registering.done() and registering.result().name == "db"


async def test_a_wait_for_or_a_watch_cancelled_at_any_moment_harms_no_other(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    for number in range(30):
        name = f"n{number}"
        watch = ada.names.watch(name)
        patient = asyncio.create_task(ada.names.wait_for(name))
        following = asyncio.create_task(anext(watch))
        doomed = [asyncio.create_task(ada.names.wait_for(name)), asyncio.create_task(anext(ada.names.watch(name)))]
        pid = bob.spawn(idle)
        registering = asyncio.create_task(bob.names.register(name, pid))
        await asyncio.gather(*(cancelled(task, number % 10) for task in doomed))
        await registering
        assert await patient == pid
        assert await following == NameAdded(name, pid)


async def test_nodes_that_close_at_any_moment_leave_nothing_behind(nodes: Nodes):
    chance = random.Random(37)
    for _ in range(15):
        ada = await nodes.start("ada")
        starting = [nodes.make(word, ada) for word in ("bob", "carl")]
        tasks = [asyncio.create_task(_use(node)) for node in starting]
        await turns(chance.randrange(60))
        await asyncio.gather(*(node.close() for node in chance.sample([ada, *starting], 3)))
        for task in tasks:
            await ended(task)
        nodes.all.clear()


async def _use(node: Node) -> None:
    await node.start()
    pid = node.spawn(echo)
    await node.names.register(f"of {node.name}", pid)
    await node.call(pid, 1)
