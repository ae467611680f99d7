"""The names of several nodes, from the first registration before the start to the last when a process exits."""

import asyncio
import enum
from pathlib import Path
from typing import Any, cast

import pytest

from kinfolk import (
    CallTimeout,
    NameAdded,
    NameLost,
    NameRemoved,
    NameTaken,
    NameUnknown,
    Node,
    NodeLost,
    NoProcess,
    NotConfirmed,
    Pid,
    Process,
)
from kinfolk.errors import NameWaitTimeout
from tests.node.nodes import HEARTBEAT, Nodes, collect, echo, ended, holders, idle, until
from tests.node.relay import Relay


async def test_names_taken_before_the_start_are_known_everywhere_after_it(nodes: Nodes):
    ada = await nodes.start("ada")
    bob = nodes.make("bob", ada)
    pid = bob.spawn(echo)
    for name in ("one", "two"):
        bob.names.register_nowait(name, pid)
    waiting = asyncio.create_task(bob.names.register("three", pid))
    await asyncio.sleep(0.02)
    assert not waiting.done(), "register waits for the start"
    await bob.start()
    await waiting
    await until(lambda: ada.names.snapshot() == {"one": pid, "two": pid, "three": pid})
    assert await ada.call("two", "hi") == "hi"


async def test_who_waits_for_a_node_that_never_starts_waits_in_vain_and_not_for_ever(nodes: Nodes):
    ada = nodes.make("ada")
    pid = ada.spawn(echo)
    with pytest.raises(NotConfirmed, match="this node had not started"):
        await ada.names.register("x", pid, timeout=0.05)
    assert ada.names.whereis("x") is None
    with pytest.raises(CallTimeout, match=f"{ada.name} has not been started"):
        await ada.call(pid, 1, timeout=0.05)


def test_a_node_may_start_on_another_loop_than_that_on_which_somebody_waited_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KINFOLK_HOME", str(tmp_path))
    node = Node("ada")
    pid = node.spawn(echo)

    async def wait() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await node.names.register("x", pid, timeout=60.0)

    async def main() -> None:
        async with node:
            with pytest.raises(NameWaitTimeout):
                await node.names.wait_for("x", timeout=0.01)
            await node.names.register("x", pid)
            assert await node.call("x", "hi") == "hi"

    asyncio.run(wait())
    asyncio.run(main())


async def test_a_name_taken_before_the_start_loses_to_who_has_it_in_the_cluster(nodes: Nodes):
    ada = await nodes.start("ada")
    bob = nodes.make("bob", ada)
    told: list[Any] = []
    early = bob.spawn(collect, told)
    bob.names.register_nowait("x", early)  # earlier than ada, but nobody in the cluster could know
    held = (await ada.names.register("x", ada.spawn(idle))).pid
    waiting = asyncio.create_task(bob.names.register("y", early))
    await asyncio.sleep(0)
    also = (await ada.names.register("y", ada.spawn(idle))).pid
    await bob.start()
    assert isinstance(error := await ended(waiting), NameTaken) and error.holder == also
    await until(lambda: told == [NameTaken])
    await until(lambda: holders([ada, bob], "x") == {held})
    assert holders([ada, bob], "y") == {also}
    assert bob.is_alive(early) and ada.is_alive(held)


async def test_a_process_has_many_names_and_loses_all_of_them_with_its_life(nodes: Nodes):
    mesh = ada, bob, carl = await nodes.mesh("ada", "bob", "carl")
    for end in ("return", "kill", "remote kill", "cancel"):
        pid = bob.spawn(collect, [])
        names = [f"{end}/{number}" for number in range(50)]
        await asyncio.gather(*(bob.names.register(name, pid) for name in names))
        assert all(holders(mesh, name) == {pid} for name in names)
        match end:
            case "return":
                assert isinstance(await ended(ada.call(pid, "return")), NoProcess)
                assert not bob.names.snapshot(), "at home they go with the process"
            case "kill":
                bob.kill(pid)
                assert not bob.names.snapshot(), "at home they go with the process"
            case "remote kill":
                carl.kill(pid)
            case _:
                next(task for task in asyncio.all_tasks() if task.get_name() == str(pid)).cancel()
        await until(lambda: not any(node.names.snapshot() for node in mesh))


async def test_wait_for_and_watch_follow_other_nodes(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    old = (await bob.names.register("svc/old", bob.spawn(idle))).pid
    watch = ada.names.watch("svc/*")
    assert await anext(watch) == NameAdded("svc/old", old)
    waiting = asyncio.create_task(ada.names.wait_for("svc/new", timeout=5))
    await asyncio.sleep(0)
    new = (await bob.names.register("svc/new", bob.spawn(idle))).pid
    await bob.names.register("other", new)
    assert await waiting == new
    await bob.names.unregister("svc/old")
    bob.kill(new)
    assert await anext(watch) == NameAdded("svc/new", new)
    assert await anext(watch) == NameRemoved("svc/old", old)
    assert await anext(watch) == NameRemoved("svc/new", new)
    with pytest.raises(NameWaitTimeout, match=r"0\.01 s"):
        await ada.names.wait_for("svc/new", timeout=0.01)


async def test_what_nobody_holds_cannot_be_given_up(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    handle = await bob.names.register("x", bob.spawn(idle))
    await handle.release()
    with pytest.raises(NameUnknown):
        await handle.release()
    with pytest.raises(NameUnknown):
        await bob.names.unregister("x")
    with pytest.raises(NameUnknown):
        await ada.names.unregister("never")


async def test_an_old_handle_cannot_give_up_a_new_registration(nodes: Nodes):
    mesh = await nodes.mesh("ada", "bob")
    ada = mesh[0]
    pid = ada.spawn(idle)
    old = await ada.names.register("x", pid)
    await ada.names.unregister("x")
    new = await ada.names.register("x", pid)
    assert old != new
    with pytest.raises(NameUnknown, match="nothing was changed"):
        await old.release()
    assert holders(mesh, "x") == {pid}
    assert await ada.names.register("x", pid) == new, "again is the same registration"
    both = await asyncio.gather(*(ada.names.register("y", pid) for _ in range(5)))
    assert len(set(both)) == 1


async def test_register_and_unregister_at_every_turn_leave_all_nodes_equal(nodes: Nodes):
    mesh = await nodes.mesh("ada", "bob", "carl")

    async def churn(number: int) -> None:
        node = mesh[number % 3]
        pid = node.spawn(idle)
        for turn in range(30):
            name = f"churn/{(number + turn) % 7}"
            try:
                registration = await node.names.register(name, pid)
            except NameTaken:
                continue
            assert holders(mesh, name) == {pid}
            await registration.release()
            assert pid not in holders(mesh, name)

    await asyncio.gather(*(churn(number) for number in range(9)))
    assert all(node.names.snapshot() == {} for node in mesh)


async def test_a_silent_peer_is_named_by_the_register_that_it_keeps_waiting_and_counted_out_by_the_next(nodes: Nodes):
    async with Relay() as relay:
        bob = await nodes.start(relay.name("bob"), listen=relay.target)
        ada = await nodes.start("ada", bob)
        carl = await nodes.start("carl", ada)
        await until(lambda: len(carl.peers()) == 2)
        pid = ada.spawn(idle)
        relay.stall()
        with pytest.raises(NotConfirmed, match=r"withdrawn.*bob") as caught:
            await ada.names.register("x", pid, timeout=0.1)
        assert caught.value.missing == (bob.name,)
        assert ada.names.whereis("x") is None
        await until(lambda: carl.names.whereis("x") is None)
        await ada.names.register("x", pid)  # by default it waits until the silent one is counted out
        assert holders([ada, carl], "x") == {pid} and ada.peers() == [carl.name]
        relay.heal()
        await until(lambda: bob.names.whereis("x") == pid)


async def test_a_pending_register_ends_with_what_becomes_of_its_claim(nodes: Nodes):
    async with Relay() as relay:
        bob = await nodes.start(relay.name("bob"), listen=relay.target, down_after=60.0)
        ada = await nodes.start("ada", bob, down_after=60.0)
        relay.stall(there=False)  # bob hears everything, and cannot answer
        pid, other = ada.spawn(idle), ada.spawn(idle)

        async def pending(name: str) -> asyncio.Task[Any]:
            task = asyncio.create_task(ada.names.register(name, pid))
            await until(lambda: bob.names.whereis(name) == pid)
            assert not task.done()
            return task

        cancelled = await pending("cancelled")
        cancelled.cancel()
        assert isinstance(await ended(cancelled), asyncio.CancelledError)
        await until(lambda: bob.names.whereis("cancelled") is None)

        unregistered = await pending("unregistered")
        await ada.names.unregister("unregistered", timeout=0.05)
        assert isinstance(await ended(unregistered), NameUnknown)
        await until(lambda: bob.names.whereis("unregistered") is None)

        both = await pending("both"), await pending("both")
        both[0].cancel()
        await asyncio.sleep(0.05)
        assert ada.names.whereis("both") == bob.names.whereis("both") == pid, "somebody still waits for it"

        second = asyncio.create_task(ada.names.register("both", other, timeout=0.1))
        assert isinstance(error := await ended(second), NameTaken) and error.holder == pid

        ada.kill(pid)
        assert isinstance(await ended(both[1]), NoProcess)
        assert ada.names.snapshot() == {}
        await until(lambda: bob.names.snapshot() == {})
        relay.heal()
        assert (await ada.names.register("both", other)).pid == other


async def test_register_nowait_holds_at_once_here_and_says_when_it_loses(nodes: Nodes):
    async with Relay() as relay:
        bob = await nodes.start(relay.name("bob"), listen=relay.target, down_after=60.0)
        ada = await nodes.start("ada", bob, down_after=60.0)
        relay.stall()
        told_ada: list[Any] = []
        told_bob: list[Any] = []
        first, second = ada.spawn(collect, told_ada), bob.spawn(collect, told_bob)
        ada.names.register_nowait("x", first)
        await asyncio.sleep(0.005)
        handle = bob.names.register_nowait("x", second)
        assert (ada.names.whereis("x"), bob.names.whereis("x")) == (first, second)
        relay.heal()
        await until(lambda: holders([ada, bob], "x") == {first})
        await until(lambda: told_bob == [NameTaken])
        with pytest.raises(NameUnknown):
            await handle.release()
        with pytest.raises(NameTaken):
            bob.names.register_nowait("x", second)
        assert told_ada == [] and bob.is_alive(second)


async def test_two_nodes_that_each_hold_a_name_and_then_meet_keep_the_earlier_and_tell_the_other_once(nodes: Nodes):
    ada, bob = await nodes.start("ada"), await nodes.start("bob")
    told: list[Any] = []
    first, second = ada.spawn(idle), bob.spawn(collect, told)
    third, fourth = bob.spawn(idle), ada.spawn(idle)
    await ada.names.register("x", first)
    await asyncio.sleep(0.005)
    await bob.names.register("x", second, on_lost="message")
    await bob.names.register("y", third)
    await asyncio.sleep(0.005)
    await ada.names.register("y", fourth)
    dead = next(process for process in ada.processes() if process.pid == fourth)
    await bob.connect(ada.name)
    await until(lambda: holders([ada, bob], "x") == {first} and holders([ada, bob], "y") == {third})
    await until(lambda: told == [NameLost] and not ada.is_alive(fourth))
    assert isinstance(dead.exit_reason, NameLost) and dead.exit_reason.winner == third
    await asyncio.sleep(3 * HEARTBEAT)
    assert told == [NameLost] and bob.is_alive(second)
    assert (ada.counters["names_lost"], bob.counters["names_lost"]) == (1, 1)


async def test_a_process_registers_itself(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    into: list[Any] = []

    async def service(me: Process, name: str) -> None:
        into.append(await ended(me.names.register(name, me.pid)))
        async for call in me.calls():
            call.reply(name)

    ada.spawn(service, "svc")
    await until(lambda: into)
    assert await bob.call("svc", "who?") == "svc"
    bob.spawn(service, "svc")
    await until(lambda: len(into) == 2)
    assert isinstance(into[1], NameTaken)


class Text(str):
    """As those of other libraries that mark what is safe, or tell where it came from."""

    __slots__ = ()


class Service(enum.StrEnum):
    DB = "db"


@pytest.mark.parametrize("given", [Text("db"), Service.DB], ids=["subclass", "enum"])
async def test_a_name_is_plain_text_whatever_it_was_given_as(nodes: Nodes, given: str):
    ada, bob = await nodes.mesh("ada", "bob")
    pid = ada.spawn(echo)
    await ada.names.register(given, pid)
    ada.names.register_nowait(Text(f"{given} now"), pid)
    await ada.groups.join(given, pid)
    await until(lambda: bob.names.whereis("db now") == pid and pid in bob.groups.members("db"))
    assert {type(name) for node in (ada, bob) for name in node.names.snapshot()} == {str}
    assert await bob.call(given, 1) == await bob.call("db", 1) == 1
    await bob.names.unregister(given)
    await ada.groups.leave(given, pid)
    await until(lambda: ada.names.whereis("db") is None and not bob.groups.members("db"))


async def test_names_are_any_text_of_1_to_255_bytes(nodes: Nodes):
    mesh = ada, bob = await nodes.mesh("ada", "bob")
    pid = ada.spawn(echo)
    for name in ("x" * 255, "ä" * 127, "🐘" * 63, " ", "\n", "a/b*", "*", "\x00", "ada@127.0.0.1:1/1/1"):
        await ada.names.register(name, pid)
        assert holders(mesh, name) == {pid}
        assert await bob.call(name, 1) == 1
    for wrong in ("", "x" * 256, "ä" * 128, "\ud800"):
        with pytest.raises(ValueError, match="name"):
            await ada.names.register(wrong, pid)
    with pytest.raises(TypeError):
        await ada.names.register(cast("str", 7), pid)
    with pytest.raises(TypeError):
        await ada.names.register("x", cast("Pid", "pid"))
    ada.kill(pid)
    with pytest.raises(NoProcess):
        await ada.names.register("x", pid)


async def test_the_name_of_a_lost_node_is_free_when_its_call_fails(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    pid = bob.spawn(idle)
    await bob.names.register("db", pid)
    waiting = asyncio.create_task(ada.call("db", 1))
    await asyncio.sleep(0.02)
    closing = asyncio.create_task(bob.close())
    assert isinstance(await ended(waiting), NodeLost | NoProcess)
    await until(lambda: ada.names.whereis("db") is None)
    new = ada.spawn(idle)
    assert (await ada.names.register("db", new)).pid == new
    await closing


async def test_five_thousand_names_are_there_when_the_join_returns(nodes: Nodes):
    ada = await nodes.start("ada")
    pid = ada.spawn(idle)
    await asyncio.gather(*(ada.names.register(f"n{number}", pid) for number in range(5000)))
    bob = await nodes.start("bob", ada)
    assert len(bob.names) == 5000 and bob.names.snapshot() == ada.names.snapshot()
