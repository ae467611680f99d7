"""Messages and calls between the processes of several nodes."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import msgspec
import pytest

from kinfolk import (
    CallFailed,
    CallTimeout,
    MailboxFull,
    MessageTooLarge,
    Moved,
    NameUnknown,
    Node,
    NodeClosed,
    NodeLost,
    NoProcess,
    NotSerializable,
    Pid,
    Process,
    Refused,
    Request,
    Unknown,
    current_process,
)
from kinfolk.shell.limits import MOST, Limit
from tests.node.nodes import Nodes, collect, echo, ended, idle, until
from tests.node.relay import Relay


class Add(Request[int]):
    by: int


class Halve(Request[tuple[int, int]]):
    number: int


@dataclass
class Parcel:
    content: list[int]


class Stranger(Request[str]):
    word: str


def has_counted(node: Node, counter: str, times: int) -> bool:
    return node.counters[counter] == times


async def counter(me: Process, total: int = 0) -> None:
    async for call in me.calls(Add):
        total += call.body.by
        call.reply(total)


async def test_a_process_of_another_node_is_reached_by_pid_by_name_and_by_the_name_it_has_there(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    pid = bob.spawn(echo)
    await bob.names.register("everywhere", pid)
    bob.names.local.register("here", pid)
    targets: list[Pid | str | tuple[str, str]] = [pid, "everywhere", ("here", bob.name), Pid.parse(str(pid))]
    for address in targets:
        assert await ada.call(address, "hi") == await bob.call(address, "hi") == "hi"
    into: list[Any] = []
    listener = bob.spawn(collect, into)
    await bob.names.register("ear", listener)
    bob.names.local.register("ear", listener)
    ears: list[Pid | str | tuple[str, str]] = [listener, "ear", ("ear", bob.name)]
    for number, target in enumerate(ears):
        ada.send(target, number)
        bob.send(target, number + 10)
    await until(lambda: len(into) == 6)
    assert sorted(into) == [0, 1, 2, 10, 11, 12]
    assert ada.names.local.whereis("here") is None


async def test_what_is_sent_arrives_in_order_and_so_do_the_answers(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    into: list[Any] = []
    pid = bob.spawn(collect, into)
    for number in range(2000):
        ada.send(pid, number)
    await until(lambda: len(into) == 2000)
    assert into == list(range(2000))
    answering = bob.spawn(echo)
    assert await asyncio.gather(*(ada.call(answering, n) for n in range(500))) == list(range(500))


async def test_a_local_message_is_passed_and_a_remote_one_is_copied(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    message = {"pair": (1, 2), "set": {3}}
    here, there = ada.spawn(echo), bob.spawn(echo)
    assert await ada.call(here, message) is message
    assert await ada.call(there, message) == {"pair": [1, 2], "set": [3]}
    strict = await nodes.start("strict", strict_messages=True)
    pid = strict.spawn(echo)
    assert await strict.call(pid, message) == {"pair": [1, 2], "set": [3]}
    with pytest.raises(NotSerializable, match="body"):
        await strict.call(pid, [object()])
    with pytest.raises(NotSerializable):
        strict.send(pid, lambda: 1)


async def test_the_answer_to_a_typed_request_has_its_type_also_from_afar(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")

    async def halves(me: Process) -> None:
        async for call in me.calls(Halve):
            call.reply(divmod(call.body.number, 2))

    for node in (ada, bob):
        total, pair = node.spawn(counter, 10), node.spawn(halves)
        assert await ada.call(total, Add(by=5)) == 15
        assert await ada.call(total, Add(by=5)) == 20
        assert await ada.call(pair, Halve(number=7)) == (3, 1)


async def test_message_types_arrive_as_what_they_are_where_they_are_known_and_as_unknown_elsewhere(nodes: Nodes):
    ada = await nodes.start("ada")
    bob = await nodes.start("bob", ada, messages=[Parcel])
    parcels: list[Any] = []
    ada.send(bob.spawn(collect, parcels), Parcel([1, 2]))
    strangers: list[Any] = []
    ada.send(bob.spawn(collect, strangers), Stranger(word="hi"))
    await until(lambda: parcels and strangers)
    assert parcels == [Parcel([1, 2])]
    (unknown,) = strangers
    assert isinstance(unknown, Unknown) and unknown.name == f"{Stranger.__module__}:Stranger"


async def test_a_pid_in_a_message_is_a_pid_and_leads_back(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")

    async def answer(me: Process, into: list[Any]) -> None:
        async for call in me.calls():
            me.send(call.body, ["from", me.pid])
            call.reply([call.sender, current_process().pid])

    async def ask(me: Process, there: Pid, into: list[Any]) -> None:
        into.append(await me.call(there, me.pid))
        into.append(await me.receive())

    into: list[Any] = []
    there = bob.spawn(answer, [])
    me = ada.spawn(ask, there, into)
    await until(lambda: len(into) == 2)
    assert into == [[me, there], ["from", there]]


async def test_a_call_ends_with_what_became_of_it(nodes: Nodes, caplog: pytest.LogCaptureFixture):
    ada, bob = await nodes.mesh("ada", "bob")

    async def moody(me: Process) -> None:
        async for call in me.calls():
            match call.body:
                case "refuse":
                    call.fail("not today")
                case "crash":
                    raise LookupError("out of paper")
                case "leave":
                    return
                case "unserializable":
                    with pytest.raises(NotSerializable):
                        call.reply(object())
                case "twice":
                    call.reply(1)
                    with pytest.raises(RuntimeError, match="answered already"):
                        call.reply(2)
                case _:
                    call.fail("unknown request")

    for node in (ada, bob):
        pid = node.spawn(moody)
        with pytest.raises(Refused, match="not today"):
            await ada.call(pid, "refuse")
        assert await ada.call(pid, "twice") == 1
        if node is bob:
            with pytest.raises(CallFailed, match="could not be sent"):
                await ada.call(pid, "unserializable")
        with pytest.raises(NoProcess, match="ended before it answered"):
            await ada.call(pid, "leave")
        with pytest.raises(NoProcess, match="dead"):
            await ada.call(pid, "anything")
        with pytest.raises(CallFailed, match="out of paper"):
            await ada.call(node.spawn(moody), "crash")
        sleepy = node.spawn(idle)
        with pytest.raises(CallTimeout, match=r"0\.05 s"):
            await ada.call(sleepy, "anything", timeout=0.05)
        waiting = asyncio.create_task(ada.call(sleepy, "anything"))
        await asyncio.sleep(0.05)
        ada.kill(sleepy)
        with pytest.raises(NoProcess):
            await waiting
    with pytest.raises(NameUnknown):
        await ada.call("nobody", 1)
    with pytest.raises(NoProcess, match="is dead, or never was"):
        await ada.call(("nobody", bob.name), 1)
    with pytest.raises(NameUnknown):
        await ada.call(("nobody", ada.name), 1)
    with pytest.raises(NodeLost, match="not connected"):
        await ada.call(("nobody", "carl@127.0.0.1:1"), 1)
    with pytest.raises(NotSerializable):
        await ada.call(bob.spawn(echo), object())
    with pytest.raises(TypeError):
        await ada.call(cast("str", 17), 1)
    crashes = [record for record in caplog.records if "crashed" in record.getMessage()]
    assert len(crashes) == 2, "each crash is logged once, where it happened"


async def test_a_late_answer_is_dropped_and_counted(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    gate = asyncio.Event()

    async def slow(me: Process) -> None:
        async for call in me.calls():
            await gate.wait()
            call.reply("late")

    for count, node in enumerate((ada, bob), start=1):
        gate.clear()
        with pytest.raises(CallTimeout):
            await ada.call(node.spawn(slow), 1, timeout=0.02)
        gate.set()
        await until(partial(has_counted, ada, "late_answers", count))


async def test_a_process_that_calls_itself_is_told(nodes: Nodes):
    ada = await nodes.start("ada")
    into: list[Any] = []

    async def selfish(me: Process) -> None:
        into.append(await ended(me.call(me.pid, 1)))

    ada.spawn(selfish)
    await until(lambda: into)
    assert isinstance(into[0], CallFailed) and "itself" in str(into[0])


async def test_what_a_process_leaves_unread_is_counted_and_callers_are_told(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    busy = ada.spawn(idle)
    calls = [asyncio.create_task(ended(node.call(busy, "work"))) for node in (ada, bob)]
    for number in range(3):
        ada.send(busy, number)
    bob.send(busy, 3)
    (process,) = [process for process in ada.processes() if process.pid == busy]
    await until(lambda: len(process.mailbox) == 6)
    ada.kill(busy)
    assert ada.counters.dropped() == {"unread_messages": 4}
    assert [type(await call) for call in calls] == [NoProcess, NoProcess]


async def test_messages_to_the_dead_and_the_lost_are_dropped_and_counted(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    here, there = ada.spawn(idle), bob.spawn(idle)
    ada.kill(here)
    ada.kill(there)
    await until(lambda: not bob.is_alive(there))
    ada.send(here, 1)
    assert ada.counters["sends_to_dead_processes"] == 1
    ada.send(there, 1)
    ada.send(("nobody", bob.name), 1)
    await until(lambda: bob.counters["sends_to_unknown_names"] == 1)
    assert bob.counters["sends_to_dead_processes"] == 1
    with pytest.raises(NameUnknown):
        ada.send("nobody", 1)
    with pytest.raises(NameUnknown):
        ada.send(("nobody", ada.name), 1)
    await bob.close()
    await until(lambda: not ada.peers())
    ada.send(there, 1)
    ada.send(("nobody", bob.name), 1)
    assert ada.counters["sends_to_lost_nodes"] == 2
    with pytest.raises(NodeLost):
        await ada.call(there, 1)


async def test_what_is_too_large_or_cannot_be_sent_is_refused_before_it_leaves(nodes: Nodes):
    ada = await nodes.start("ada", max_message=1000)
    bob = await nodes.start("bob", ada)
    into: list[Any] = []
    pid = bob.spawn(collect, into)
    with pytest.raises(MessageTooLarge, match="max_message"):
        ada.send(pid, bytes(1001))
    with pytest.raises(NotSerializable, match=r"body\['a'\]\[0\]"):
        ada.send(pid, {"a": [lambda: 1]})
    with pytest.raises(NotSerializable, match="64 bits"):
        ada.send(pid, 2**64)
    ada.send(pid, "fine")
    await until(lambda: into == ["fine"])


@pytest.mark.parametrize("most", [1000, 64 * 1024, 100_000])
@pytest.mark.parametrize("make", [bytes, lambda size: ["x" * size]], ids=["bytes", "a list"])
async def test_the_largest_message_to_another_node_is_as_long_as_max_message(
    nodes: Nodes, most: int, make: Callable[[int], Any]
):
    ada, bob = await nodes.mesh("ada", "bob", max_message=most)
    into: list[Any] = []
    there = bob.spawn(collect, into)
    size = next(size for size in range(most, 0, -1) if len(msgspec.msgpack.encode(make(size))) <= most)
    with pytest.raises(MessageTooLarge, match=f"the message is {most + 1} bytes on the wire"):
        ada.send(there, make(size + 1))
    with pytest.raises(MessageTooLarge, match=f"the message is {most + 1} bytes on the wire"):
        await ada.call(there, make(size + 1))
    ada.send(there, make(size))
    await until(lambda: into == [make(size)])


async def test_ten_megabytes_arrive_whole(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    big = bytes(range(256)) * 40_000
    assert await ada.call(bob.spawn(echo), big) == big
    assert ada.counters["peers_lost"] == bob.counters["peers_lost"] == 0


async def test_a_full_mailbox_is_told_to_a_local_sender_and_counted_for_a_remote_one(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    pid = bob.spawn(idle, max_mailbox=2)
    await asyncio.sleep(0)
    bob.send(pid, 1)
    bob.send(pid, 2)
    with pytest.raises(MailboxFull):
        bob.send(pid, 3)
    ada.send(pid, 3)
    await until(lambda: bob.counters["mailbox_overflows"] == 1)
    with pytest.raises(CallFailed, match="mailbox is full"):
        await ada.call(pid, 4)
    with pytest.raises(MailboxFull):
        await bob.call(pid, 4)


async def test_a_call_under_way_raises_node_lost_when_the_connection_ends(nodes: Nodes):
    async with Relay() as relay:
        bob = await nodes.start(relay.name("bob"), listen=relay.target)
        ada = await nodes.start("ada", bob)
        pid = bob.spawn(idle)
        waiting = [asyncio.create_task(ada.call(pid, n, timeout=None)) for n in range(3)]
        await asyncio.sleep(0.05)
        await relay.drop()
        for task in waiting:
            with pytest.raises(NodeLost, match="before the answer came"):
                await task
        await until(lambda: ada.peers() == [bob.name])
        assert await ada.call(bob.spawn(echo), "again") == "again"


async def test_many_nodes_call_one_process_at_once(nodes: Nodes):
    mesh = await nodes.mesh("ada", "bob", "carl", "dora")
    total = mesh[0].spawn(counter)
    await mesh[0].names.register("counter", total)
    answers = await asyncio.gather(*(node.call("counter", Add(by=1)) for node in mesh for _ in range(100)))
    assert sorted(answers) == list(range(1, 401))


async def test_what_is_no_pair_of_a_name_and_its_node_is_refused(nodes: Nodes):
    ada = await nodes.start("ada")
    wrong: Any = ("x",)
    for speak in (ada.call, ada.send_when_clear):
        with pytest.raises(TypeError, match=r"cannot send to \('x',\): give a pid, a name, or \(name, node\)"):
            await speak(wrong, 1)
    with pytest.raises(TypeError, match=r"cannot send to \('x',\): give a pid"):
        ada.send(wrong, 1)


async def test_calls_of_many_lengths_end_each_in_its_time(nodes: Nodes):
    ada = await nodes.start("ada")
    pid, ends = ada.spawn(idle), list[float]()

    async def call(seconds: float) -> None:
        with pytest.raises(CallTimeout, match=f"did not answer within {seconds:g} s"):
            await ada.call(pid, "nothing", timeout=seconds)
        ends.append(seconds)

    lengths = [0.01 + number / 200 for number in range(2 * MOST)]
    waiting = [asyncio.create_task(call(seconds)) for seconds in reversed(lengths) for _ in range(3)]
    await asyncio.sleep(0)
    assert len(ada.dataplane._limits) == MOST, "while each has calls, no other gets a timer that is kept"
    await asyncio.gather(*waiting)
    assert sorted(ends) == sorted(3 * lengths)
    assert await ada.call(ada.spawn(echo), "again", timeout=lengths[0]) == "again"


async def test_lengths_that_nobody_waits_for_make_room_for_others(nodes: Nodes):
    ada = await nodes.start("ada")
    pid, limits = ada.spawn(echo), ada.dataplane._limits
    for number in range(MOST):
        await ada.call(pid, 1, timeout=3600.0 + number)
    used = asyncio.create_task(ada.call(ada.spawn(idle), 1, timeout=3600.0))
    await asyncio.sleep(0)
    first, forgotten = limits[3600.0], limits[3601.0]
    await ada.call(pid, 1, timeout=10.0)
    assert list(limits) == [3600.0, *(3602.0 + number for number in range(MOST - 2)), 10.0]
    assert limits[3600.0] is first and used in asyncio.all_tasks()
    assert forgotten._timer is not None and forgotten._timer.cancelled()
    for number in range(10 * MOST):
        await ada.call(pid, 1, timeout=5000.0 + number)
    assert len(limits) == MOST and limits[3600.0] is first
    used.cancel()


async def test_a_call_that_waits_longer_than_another_of_its_length_has_its_own_time(nodes: Nodes):
    ada = await nodes.start("ada")
    pid, loop = ada.spawn(idle), asyncio.get_running_loop()

    async def call() -> float:
        begun = loop.time()
        with pytest.raises(CallTimeout):
            await ada.call(pid, "nothing", timeout=0.1)
        return loop.time() - begun

    first = asyncio.create_task(call())
    await asyncio.sleep(0.06)
    second = asyncio.create_task(call())
    assert await first >= 0.1 and await second >= 0.1


async def test_who_is_turned_away_gets_no_message_and_no_call_of_its_own_node(nodes: Nodes):
    ada = await nodes.start("ada")
    pid = ada.spawn(echo)
    assert await ada.call(pid, 1) == 1
    (process,) = (process for process in ada.processes() if process.pid == pid)
    ada.dataplane.turn_away(process)
    ada.send(pid, "too late")
    assert not process.mailbox.messages and ada.counters["sends_to_dead_processes"] == 1
    with pytest.raises(NoProcess, match="about to end"):
        await ada.call(pid, 2)


async def test_what_is_sent_to_who_has_handed_over_goes_to_the_heir_on_its_own_node_too(nodes: Nodes):
    ada = await nodes.start("ada")
    old, heir = ada.spawn(idle), ada.spawn(idle)
    processes = {process.pid: process for process in ada.processes()}
    ada.send(old, "before")
    assert ada.dataplane.hand_over(processes[old], heir) == ["before"]
    ada.send(old, "after")
    assert list(processes[heir].mailbox.messages) == ["after"]
    with pytest.raises(Moved):
        await ada.call(old, "anybody?")


async def test_a_node_that_has_begun_to_close_takes_no_message_for_processes_that_still_live(nodes: Nodes):
    ada = await nodes.start("ada")
    pid = ada.spawn(idle)
    closing = asyncio.create_task(ada.close())
    await asyncio.sleep(0)
    assert ada.processes(), "they end in a moment"
    with pytest.raises(NodeClosed):
        ada.send(pid, "too late")
    await closing


async def test_a_node_that_is_abandoned_takes_no_message(nodes: Nodes):
    ada = await nodes.start("ada")
    pid = ada.spawn(idle)
    ada.abandon()
    assert ada.processes(), "its processes do not know yet"
    with pytest.raises(NodeClosed):
        ada.send(pid, "too late")


async def test_a_node_is_sent_through_on_its_own_thread_alone(nodes: Nodes):
    ada = await nodes.start("ada")
    pid = ada.spawn(idle)
    ada.send(pid, 1)
    with pytest.raises(RuntimeError, match=r"node\.blocking"):
        await asyncio.to_thread(ada.send, pid, 2)


async def test_calls_are_kept_no_longer_than_they_wait(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    pids = [ada.spawn(idle), bob.spawn(idle)]
    for pid in pids:
        for _ in range(20):
            with pytest.raises(CallTimeout):
                await ada.call(pid, bytes(10), timeout=0.001)
        call = asyncio.create_task(ada.call(pid, 1))
        await asyncio.sleep(0)
        call.cancel()
        assert isinstance(await ended(call), asyncio.CancelledError)
    assert not ada.dataplane._local_calls
    assert not any(limit.waiting for limit in ada.dataplane._limits.values())
    await until(lambda: 0.001 not in ada.dataplane._limits)
    assert not any(link.calls for link in ada.dataplane.links.values())


async def test_child_tasks_of_a_process_send_as_it_and_do_not_receive_for_it(nodes: Nodes):
    ada, bob = await nodes.mesh("ada", "bob")
    there, into = bob.spawn(sender_of), list[Any]()

    async def parent(me: Process) -> None:
        async def child() -> None:
            into.append(current_process() is me)
            into.append(await me.call(there, 1))
            into.append(await ended(me.receive()))

        await asyncio.create_task(child())

    pid = ada.spawn(parent)
    await until(lambda: len(into) == 3)
    assert into[:2] == [True, pid] and isinstance(into[2], RuntimeError)


async def sender_of(me: Process) -> None:
    async for call in me.calls():
        call.reply(call.sender)


async def test_calls_that_are_due_at_once_end_together_and_no_other_does():
    loop = asyncio.get_running_loop()
    among: dict[float, Limit] = {}
    limit = among[0.01] = Limit(0.01, loop, among)
    futures = [loop.create_future() for _ in range(1000)]
    later = loop.create_future()
    now = loop.time()
    for number, future in enumerate(futures):
        limit.waiting[future] = now, "nobody"
        if number % 2:
            future.cancel()
    limit.waiting[later] = now + 3600, "nobody"
    async with asyncio.timeout(10):
        with pytest.raises(CallTimeout):
            await futures[0]
        assert list(limit.waiting) == [later] and not later.done()
    limit.close(NodeClosed("over"))
    with pytest.raises(NodeClosed):
        await later
    for future in futures:
        assert future.cancelled() or future.exception()


async def test_the_timer_of_calls_keeps_nothing_of_who_called_first(nodes: Nodes):
    ada = await nodes.start("ada")
    variable: ContextVar[object] = ContextVar("request")
    seen: list[weakref.ref[Any]] = []
    target = ada.spawn(echo)

    async def first(me: Process) -> None:
        thing = type("Thing", (), {})()
        variable.set(thing)
        seen.extend((weakref.ref(me), weakref.ref(thing)))
        await me.call(target, 1, timeout=3600.0)

    await ada.wait_exit(ada.spawn(first))
    await until(lambda: gc.collect() and not any(each() for each in seen))
    assert 3600.0 in ada.dataplane._limits


async def test_nobody_receives_for_a_process_that_has_yet_to_start(nodes: Nodes):
    ada = nodes.make("ada")
    pid = ada.spawn(collect, heard := list[Any]())
    ada.send(pid, "hers")
    process = ada._parts.processes.get(pid.local)
    assert process is not None
    attempts: list[Coroutine[Any, Any, Any]] = [process.receive(), process.next_call(None)]
    for attempt in attempts:
        with pytest.raises(RuntimeError, match="only the task of"):
            await asyncio.wait_for(attempt, 1)
    await ada.start()
    await until(lambda: heard == ["hers"])
