"""What things cost, counted: a change that makes the same cost more system calls, frames, bytes or blocks fails here.

The bounds leave some room above what was counted when they were set, which stands beside them. Whoever makes something
cheaper lowers its bound. How long things take is measured by `make bench`, and asserted nowhere.
"""

import asyncio
import itertools
from collections import Counter
from typing import Any, NoReturn

import pytest

from kinfolk import Call, Node, Pid, Process
from kinfolk import effects as fx
from kinfolk.shell import transport
from tests.guards.counting import Traffic, blocks_left, bytes_at_once, bytes_kept, tasks_counted
from tests.node.nodes import Nodes, echo, idle, until

MESSAGES = 1_000
NAMES = 500
BODY = bytes(100)


async def count(me: Process) -> None:
    """Counts messages, and answers a call with how many there were."""
    seen = 0
    while True:
        message = await me.receive()
        if isinstance(message, Call):
            message.reply(seen)
        else:
            seen += 1


def pair(nodes: Nodes) -> tuple[Node, Node]:
    ada, bob = nodes.all
    return ada, bob


async def registered(node: Node, pid: Pid, amount: int, prefix: str = "name") -> None:
    """Register names, all in one turn of the loop, and wait for their confirmations."""
    await asyncio.gather(*(node.names.register(f"{prefix} {number}", pid) for number in range(amount)))


# --- system calls ---


async def test_what_one_turn_sends_leaves_in_a_few_system_calls(quiet: Nodes, traffic: Traffic):
    ada, bob = pair(quiet)
    pid = bob.spawn(count)
    await ada.call(pid, "ready")
    traffic.reset()
    for _ in range(MESSAGES):
        ada.send(pid, BODY)
    assert await ada.call(pid, "how many") == MESSAGES
    assert traffic.sends <= 8, "counted: 3, for two parts of 64 KiB and the answer"
    assert traffic.receives <= 8, "counted: 3"
    assert traffic.operations["Sent"] == MESSAGES
    assert traffic.frames["Sent"] <= 4, "counted: 2 of 64 KiB"
    assert traffic.sent <= MESSAGES * 115 + 1_000, "counted: 105 for each body of 100"


async def test_what_a_sender_that_awaits_each_send_says_is_gathered(
    quiet: Nodes, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transport, "HOLD", 600.0)  # in real life so short that a busy machine gathers less
    ada, bob = pair(quiet)
    pid = bob.spawn(count)
    await ada.call(pid, "ready")
    traffic.reset()
    for _ in range(MESSAGES):
        ada.send(pid, BODY)
        await asyncio.sleep(0)
    await until(lambda: traffic.operations["Sent"] == MESSAGES)  # what is held leaves as soon as nothing comes after it
    assert traffic.sends <= 8, "counted: 3, the first message, a part of 64 KiB and the rest"
    assert await ada.call(pid, "how many") == MESSAGES


async def test_what_is_answered_at_once_is_flushed_once(quiet: Nodes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "RIDE", 600.0)
    ada, _ = pair(quiet)
    pid, flushes = ada.spawn(idle), Counter[str]()
    flush = transport.Link._flush

    def counted(link: transport.Link) -> None:
        flushes[link.name] += 1
        flush(link)

    monkeypatch.setattr(transport.Link, "_flush", counted)
    for number in range(20):
        await ada.names.register(f"name {number}", pid)
    assert flushes[ada.name] <= 30, "counted: 20, one for each claim that bob reads"


async def test_a_call_is_two_writes_and_two_frames(quiet: Nodes, traffic: Traffic):
    ada, bob = pair(quiet)
    pid = bob.spawn(echo)
    await ada.call(pid, "ready")
    traffic.reset()
    for number in range(50):
        assert await ada.call(pid, number) == number
    assert traffic.sends == 100
    assert traffic.receives <= 150, "counted: 100"
    assert traffic.frames == {"Called": 50, "Answered": 50}
    assert traffic.sent <= 50 * 100, "counted: 78 for each, in both directions"


async def test_an_answer_takes_no_turn_of_its_own(quiet: Nodes, monkeypatch: pytest.MonkeyPatch):
    ada, bob = pair(quiet)
    pid, turns = bob.spawn(echo), Counter[str]()
    await ada.call(pid, "ready")
    selector: Any = vars(asyncio.get_running_loop())["_selector"]
    select = selector.select

    def counted(timeout: float | None) -> Any:
        turns["all"] += 1
        return select(timeout)

    monkeypatch.setattr(selector, "select", counted)
    for number in range(50):
        assert await ada.call(pid, number) == number
    assert turns["all"] <= 220, "counted: 200, two for each end: one reads, in the next is spoken and written"


# --- tasks and memory of messages ---


async def test_a_large_message_is_not_copied_before_its_turn(quiet: Nodes):
    ada, bob = pair(quiet)
    pid, body = bob.spawn(count), bytes(1_000_000)
    await ada.call(pid, "ready")
    assert bytes_at_once(lambda: ada.send(pid, body)) <= 100_000, "counted: 1,000"
    assert await ada.call(pid, "how many") == 5


async def test_a_message_for_another_node_leaves_nothing_but_its_bytes(quiet: Nodes):
    ada, bob = pair(quiet)
    pid = bob.spawn(count)
    await ada.call(pid, "ready")

    async def send() -> None:
        for _ in range(MESSAGES):
            ada.send(pid, BODY)

    assert await blocks_left(send) <= 20, "counted: 5, the outbox and a handle"


async def test_a_call_makes_no_task(quiet: Nodes):
    ada, bob = pair(quiet)
    here, there = ada.spawn(echo), bob.spawn(echo)
    with tasks_counted() as made:
        for number in range(50):
            assert await ada.call(here, number) == number
            assert await ada.call(there, number) == number
    assert not made


async def test_calls_and_messages_leave_nothing_for_the_garbage_collector(quiet: Nodes):
    ada, bob = pair(quiet)
    here, there = ada.spawn(echo), bob.spawn(echo)

    async def calls() -> None:
        for _ in range(400):
            await ada.call(here, 1)
            await ada.call(there, 1)

    await calls()
    assert await blocks_left(calls) <= 300, "counted: 191, of timers that are thrown out now and then"


async def test_a_message_that_waits_here_has_no_memory_of_its_own(nodes: Nodes):
    ada = await nodes.start("ada")
    pid = ada.spawn(idle)

    async def send() -> None:
        for _ in range(MESSAGES):
            ada.send(pid, BODY)

    await asyncio.sleep(0)
    assert await bytes_kept(send) <= MESSAGES * 12, "counted: 8, its place in the deque"


async def test_a_message_that_waits_to_be_written_is_its_bytes(quiet: Nodes):
    ada, bob = pair(quiet)
    pid = bob.spawn(idle)
    await until(lambda: ada.peers() == [bob.name])

    async def send() -> None:
        for _ in range(MESSAGES):
            ada.send(pid, BODY)

    assert await bytes_kept(send) <= MESSAGES * 250, "counted: 164, as a bytearray grows ahead"


async def test_a_lookup_takes_no_memory(nodes: Nodes):
    ada = await nodes.start("ada")
    ada.names.register_nowait("name", ada.spawn(idle))
    whereis, turns = ada.names.whereis, itertools.repeat(None, 1_000)

    def look_up() -> None:
        for _ in turns:
            whereis("name")

    assert bytes_at_once(look_up) == 0


# --- names ---


async def test_a_register_is_three_frames_with_each_peer(quiet: Nodes, traffic: Traffic):
    ada, _ = pair(quiet)
    pid = ada.spawn(idle)
    traffic.reset()
    for number in range(20):
        await ada.names.register(f"name {number}", pid)
    await until(lambda: traffic.frames["NameConfirmed"] == 20)
    assert traffic.frames == {"NameClaimed": 20, "Acknowledged": 20, "NameConfirmed": 20}
    assert traffic.sent <= 20 * 160, "counted: 130 for each, in both directions"


async def test_a_confirmation_rides_with_the_next_claim(
    quiet: Nodes, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(transport, "RIDE", 600.0)  # in real life so short that a busy machine may write it by itself
    ada, _ = pair(quiet)
    pid = ada.spawn(idle)
    traffic.reset()
    for number in range(20):
        await ada.names.register(f"name {number}", pid)
    assert traffic.sends == 40, "a claim and an acknowledgement each"
    assert traffic.operations["NameConfirmed"] == 19


async def test_names_of_one_turn_share_their_frames(quiet: Nodes, traffic: Traffic):
    ada, _ = pair(quiet)
    pid = ada.spawn(idle)
    traffic.reset()
    await registered(ada, pid, NAMES)
    await until(lambda: traffic.operations["NameConfirmed"] == NAMES)
    assert traffic.operations["NameClaimed"] == NAMES
    assert traffic.operations["Acknowledged"] <= 4, "counted: 1 for each frame of claims"
    assert sum(traffic.frames.values()) <= 6, "counted: 3"
    assert traffic.sends <= 6, "counted: 3"
    assert traffic.sent <= NAMES * 55, "counted: 42 for each, in both directions"


async def test_the_end_of_a_process_withdraws_its_names_in_one_frame(quiet: Nodes, traffic: Traffic):
    ada, bob = pair(quiet)
    pid = ada.spawn(idle)
    await registered(ada, pid, NAMES)
    await until(lambda: len(bob.names) == NAMES)
    traffic.reset()
    ada.kill(pid)
    await until(lambda: not len(bob.names))
    assert traffic.frames["NamesWithdrawn"] <= 2, "counted: 1"
    assert traffic.sent <= NAMES * 15, "counted: 11 for each, in both directions"


async def test_a_table_travels_in_columns_to_who_joins(nodes: Nodes, traffic: Traffic):
    ada = await nodes.start("ada", heartbeat=600.0)
    pid = ada.spawn(idle)
    await registered(ada, pid, NAMES)
    empty = await nodes.start("bob", ada, heartbeat=600.0)
    await empty.close()
    await until(lambda: not ada.peers())
    traffic.reset()
    await nodes.start("eve", ada, heartbeat=600.0)
    assert traffic.frames["LedgerSynced"] <= 3, "counted: 1"
    assert traffic.sent <= NAMES * 40, "counted: 29 for each, the handshake among them"


async def test_a_name_takes_little_memory(quiet: Nodes):
    ada, bob = pair(quiet)
    pid = ada.spawn(idle)
    await registered(ada, pid, 64, "first")

    async def hold() -> None:
        for number in range(1_000):
            ada.names.register_nowait(f"name {number}", pid)
        await until(lambda: len(bob.names) == 1_064)

    assert await bytes_kept(hold) <= 1_000 * 1_900, (
        "counted: 1,690 for each, at its owner and at the peer together, a third of it in the bounded history"
    )


# --- processes ---


async def greet(me: Process, parent: Pid) -> None:
    """Says hello and ends."""
    me.send(parent, "hello")


async def test_what_a_process_spawned_from_elsewhere_says_at_once_leaves_with_the_answer(
    nodes: Nodes, traffic: Traffic
):
    bob = await nodes.start("bob", heartbeat=600.0, allow_spawn=[greet])
    ada = await nodes.start("ada", bob, heartbeat=600.0)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def parent(me: Process) -> None:
        for number in range(51):
            if number == 1:
                traffic.reset()
            await me.spawn_on(bob.name, greet, me.pid)
            assert await me.receive() == "hello"
        done.set_result(None)

    ada.spawn(parent)
    await done
    assert traffic.frames["SpawnAsked"] == traffic.frames["SpawnAnswered"] == traffic.frames["Sent"] == 50
    assert traffic.sends <= 105, "counted: 100, two for each"


async def test_a_process_is_one_task_and_takes_little_memory(nodes: Nodes):
    ada = await nodes.start("ada")

    async def spawn() -> None:
        for _ in range(200):
            ada.spawn(idle)
        await asyncio.sleep(0)

    with tasks_counted() as made:
        await spawn()
    assert sum(made.values()) == 200
    assert await bytes_kept(spawn) <= 200 * 5_000, "counted: 3,730 for each"


async def test_a_process_that_has_ended_leaves_nothing_for_the_garbage_collector(nodes: Nodes):
    ada = await nodes.start("ada")

    async def over(me: Process) -> None:
        pass

    async def lives() -> None:
        for _ in range(200):
            pid = ada.spawn(over)
            while ada.is_alive(pid):  # noqa: ASYNC110 - waiting must leave nothing either
                await asyncio.sleep(0)

    await lives()
    assert await blocks_left(lives) <= 100, "counted: 12"


class Unlisted(dict[str, Pid]):
    """A table that nobody may go through."""

    def items(self) -> NoReturn:
        raise AssertionError("looks at every name")

    __iter__ = keys = values = items


async def test_the_end_of_a_process_looks_at_no_local_name_of_others(nodes: Nodes, monkeypatch: pytest.MonkeyPatch):
    ada = await nodes.start("ada")
    one, other = ada.spawn(idle), ada.spawn(idle)
    local = ada.names.local
    for number in range(3):
        local.register(f"one {number}", one)
        local.register(f"other {number}", other)
    local.unregister("one 0")
    monkeypatch.setattr(local, "_holders", Unlisted(local._holders))
    ada.kill(one)
    assert [local.whereis(f"one {number}") for number in range(3)] == [None] * 3
    assert local.of(other) == ["other 0", "other 1", "other 2"]
    assert local.of(one) == []


async def test_the_end_of_a_process_that_owns_nothing_is_no_step_of_the_kernel(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    ada = await nodes.start("ada", heartbeat=600.0)
    driver, kernel = ada._parts.driver, ada._parts.kernel
    steps: list[fx.Input] = []

    class Counted:
        """The kernel, which where it is compiled takes no other `handle`."""

        next_deadline = kernel.next_deadline

        def handle(self, happened: fx.Input, now: fx.Now) -> list[fx.Effect]:
            steps.append(happened)
            return kernel.handle(happened, now)

    monkeypatch.setattr(driver, "_kernel", Counted())
    plain, named, member = (ada.spawn(idle) for _ in range(3))
    ada.names.register_nowait("name", named)
    await ada.groups.join("group", member)
    steps.clear()
    for pid in (plain, named, member):
        ada.kill(pid)
    await until(lambda: not any(map(ada.is_alive, (plain, named, member))))
    ends = [step.local for step in steps if isinstance(step, fx.ProcessExited)]
    assert sorted(ends) == [named.local, member.local]
    assert ada.names.whereis("name") is None and not ada.groups.members("group")


async def test_the_end_of_a_process_in_the_midst_of_a_step_waits_behind_what_was_ordered_for_it(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
):
    ada = await nodes.start("ada", heartbeat=600.0)
    pid, driver = ada.spawn(idle), ada._parts.driver
    (task,) = (process.task for process in ada.processes() if process.pid == pid)
    assert task is not None
    with monkeypatch.context() as midst:
        midst.setattr(driver, "_running", True)
        driver.submit(fx.Register(1_000_000, "name", pid, False, 0.0, "message"))
        task.cancel()
        await until(lambda: not ada.is_alive(pid))
    driver.submit(fx.Turn())
    assert ada.names.whereis("name") is None
