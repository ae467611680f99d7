"""What a process can do, and what it can no longer do when it is dead."""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from kinfolk.errors import CallFailed, NoProcess, Refused
from kinfolk.messages import Call, Request, Unknown
from kinfolk.process import Process, current_process
from tests.home import Home, ended, settled


class Add(Request[int]):
    by: int


class Item(msgspec.Struct):
    name: str


class Limited(msgspec.Struct):
    size: int

    def __post_init__(self):
        if self.size > 10:
            raise ValueError("too big")


class NotAMessage:
    pass


@pytest.fixture
async def home() -> AsyncIterator[Home]:
    home = Home()
    home.processes.start()
    yield home
    assert await home.processes.close(1.0) == []


async def result_of(home: Home, body: Any, *args: object) -> Any:
    """What a process body returns, or raises."""
    future = asyncio.get_running_loop().create_future()

    async def run(me: Process) -> None:
        try:
            future.set_result(await body(me, *args))
        except Exception as error:
            future.set_exception(error)

    home.start(run)
    return await future


# --- receive ---


async def test_receive_by_nothing_by_type_and_by_predicate(home):
    async def body(me: Process) -> list[object]:
        for message in ("a", 1, Item("pen"), "b", 2):
            me.send(me.pid, message)
        return [
            await me.receive(int),
            await me.receive(lambda message: message == "b"),
            await me.receive(Item),
            await me.receive(),
            await me.receive(),
        ]

    assert await result_of(home, body) == [1, "b", Item("pen"), "a", 2]


@pytest.mark.parametrize("timeout", [0, 0.01])
async def test_receive_with_a_timeout_raises_timeout_error_and_takes_nothing(home, timeout):
    async def body(me: Process) -> object:
        me.send(me.pid, "other")
        with pytest.raises(TimeoutError, match=r"got no such message within 0"):
            await me.receive(int, timeout=timeout)
        return await me.receive(timeout=timeout)

    assert await result_of(home, body) == "other"


async def test_a_timeout_error_of_a_predicate_is_its_own(home):
    def predicate(message: object) -> bool:
        raise TimeoutError("of the predicate")

    async def body(me: Process) -> None:
        me.send(me.pid, 1)
        await me.receive(predicate, timeout=5)

    with pytest.raises(TimeoutError, match="of the predicate"):
        await result_of(home, body)


@pytest.mark.parametrize("match", [list[int], int | str, 5, "x"])
async def test_receive_by_something_else_is_a_type_error_with_advice(home, match):
    async def body(me: Process) -> object:
        return await me.receive(match)

    with pytest.raises(TypeError, match="give a class"):
        await result_of(home, body)


async def test_only_the_own_task_of_a_process_may_receive_and_all_may_send(home):
    async def child(me: Process) -> None:
        assert current_process() is me
        me.send(me.pid, "from a child")
        with pytest.raises(RuntimeError, match=r"only the task of .* itself may receive"):
            await me.receive()
        with pytest.raises(RuntimeError, match="only the task"):
            await anext(me.calls())

    async def body(me: Process) -> object:
        await asyncio.create_task(child(me))
        return await me.receive()

    assert await result_of(home, body) == "from a child"


async def test_a_message_type_is_known_to_the_node_from_the_first_receive_and_what_came_before_is_read(home):
    process = home.start(forever)
    home.arrive(process, Item("early"))
    received = []

    async def body(me: Process) -> None:
        home.arrive(me, ["other"])
        home.arrive(me, Item("before"))
        received.append(await me.receive(Item))
        home.arrive(me, Item("after"))
        received.append(await me.receive(Item))
        received.append(await me.receive())

    await result_of(home, body)
    assert received == [Item("before"), Item("after"), ["other"]]


async def test_what_came_before_and_cannot_be_read_is_dropped_and_counted(home, caplog):
    heard: list[tuple[str, object]] = []

    async def body(me: Process) -> object:
        too_big = Unknown(f"{__name__}:Limited", msgspec.msgpack.encode({"size": 100}))
        home.arrive(me, too_big)
        home.arrive_as_call(me, too_big, heard)
        home.arrive(me, Limited(5))
        return await me.receive(Limited)

    assert await result_of(home, body) == Limited(5)
    assert home.counters["unreadable_messages"] == 2
    assert "dropped a message" in caplog.text
    assert "too big" in caplog.text
    assert [outcome for outcome, _ in heard] == ["failed"]


async def test_receive_takes_types_that_only_local_messages_can_have(home):
    class Weird(msgspec.Struct):
        bad: "int | NotAMessage"

    async def body(me: Process) -> list[object]:
        message, weird = NotAMessage(), Weird(NotAMessage())
        me.send(me.pid, weird)
        me.send(me.pid, message)
        return [await me.receive(NotAMessage) is message, await me.receive(Weird) is weird]

    assert await result_of(home, body) == [True, True]


# --- calls ---


async def counter(me: Process) -> None:
    total = 0
    async for call in me.calls(Add):
        if call.body.by < 0:
            call.fail("only upwards")
            continue
        total += call.body.by
        call.reply(total)


async def test_calls_of_a_type_are_answered(home):
    pid = home.spawn(counter)
    assert await home.call(pid, Add(2)) == 2
    assert await home.call(pid, Add(3)) == 5
    with pytest.raises(Refused, match="only upwards"):
        await home.call(pid, Add(-1))
    assert await home.call(pid, Add(1)) == 6


async def test_calls_of_a_type_leave_everything_else_in_the_mailbox(home):
    async def body(me: Process) -> list[object]:
        me.send(me.pid, "plain")
        me.send(me.pid, Add(100))
        other = asyncio.ensure_future(home.call(me.pid, "other"))
        adding = asyncio.ensure_future(home.call(me.pid, Add(1)))
        async for call in me.calls(Add):
            call.reply("added")
            break
        left = [await me.receive(), await me.receive(), await me.receive(Call)]
        left[2].reply()
        return [await adding, await other, left[0], left[1], left[2].body]

    assert await result_of(home, body) == ["added", None, "plain", Add(100), "other"]


async def test_calls_drop_log_and_count_what_is_no_call(home, caplog):
    async def body(me: Process) -> None:
        async for call in me.calls():
            call.reply(call.body)

    pid = home.spawn(body)
    home.send(pid, {"secret": 1})
    assert await home.call(pid, "hi") == "hi"
    assert home.counters["unhandled_messages"] == 1
    assert "takes calls alone: dropped a dict" in caplog.text
    assert "secret" not in caplog.text


async def test_a_call_of_a_type_that_is_learned_late_is_read(home):
    heard: list[tuple[str, object]] = []

    async def body(me: Process) -> None:
        home.arrive_as_call(me, Add(5), heard)
        async for call in me.calls(Add):
            call.reply(call.body.by + 1)
            break

    await result_of(home, body)
    assert heard == [("ok", 6)]


async def test_one_process_calls_another_and_is_its_sender(home):
    async def body(me: Process) -> object:
        return await me.call(me.spawn(counter), Add(4))

    assert await result_of(home, body) == 4
    assert home.senders == [1]


# --- its place ---


async def test_current_process_is_the_process_and_outside_there_is_none(home):
    async def body(me: Process) -> bool:
        inner = await asyncio.to_thread(current_process)
        return current_process() is me and inner is me

    assert await result_of(home, body) is True
    with pytest.raises(RuntimeError, match=r"not inside a process: .*node\.spawn"):
        current_process()


async def test_a_process_spawned_by_another_is_its_own_current_process(home):
    found = []

    async def inner(me: Process) -> None:
        found.append(current_process() is me)

    async def outer(me: Process) -> None:
        me.spawn(inner)
        await settled()
        found.append(current_process() is me)

    await result_of(home, outer)
    assert found == [True, True]


async def test_names_and_node_are_those_of_the_node(home):
    async def body(me: Process) -> object:
        return me.names is home.names and me.node is home

    assert await result_of(home, body)


async def forever(me: Process, x: int = 0) -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_process_says_what_it_is(home):
    process = home.start(forever)
    assert repr(process) == "<process ada@127.0.0.1:4370/1/1 (forever)>"
    assert process.task is not None
    assert process.task.get_name() == str(process.pid)
    partial = home.start(functools.partial(functools.partial(forever), x=1))
    assert partial.function == "forever"
    home.processes.kill(process.pid.local)
    assert repr(process) == "<process ada@127.0.0.1:4370/1/1 (forever, dead)>"


# --- death ---


async def test_the_me_of_a_killed_process_raises(home, caplog):
    caplog.set_level(logging.CRITICAL)
    tried: list[str] = []

    async def body(me: Process) -> None:
        attempts = {
            "send": lambda: me.send(me.pid, 1),
            "call": lambda: me.call(me.pid, 1),
            "receive": lambda: me.receive(),
            "calls": lambda: anext(me.calls()),
            "spawn": lambda: me.spawn(forever),
            "names": lambda: me.names,
        }
        try:
            await me.receive()
        finally:
            for name, attempt in attempts.items():
                try:
                    outcome = attempt()
                    if asyncio.iscoroutine(outcome):
                        await outcome
                except NoProcess as error:
                    tried.append(f"{name}: {error}")

    process = home.start(body)
    await settled()
    assert home.processes.kill(process.pid.local)
    await ended(process)
    assert [text.partition(": ")[0] for text in tried] == ["send", "call", "receive", "calls", "spawn", "names"]
    assert all(text.endswith("is dead (killed): its code must end now") for text in tried)


async def test_a_call_to_a_process_that_crashes_fails_with_the_text_of_its_error(home, caplog):
    async def body(me: Process) -> None:
        async for call in me.calls():
            raise ZeroDivisionError(f"cannot {call.body}")

    pid = home.spawn(body)
    with pytest.raises(CallFailed, match=r"crashed: ZeroDivisionError: cannot divide") as caught:
        await home.call(pid, "divide")
    assert not isinstance(caught.value, Refused)
