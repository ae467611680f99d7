"""Processes are born and die in one step, and nothing of them is left over."""

import asyncio
import contextlib
import gc
import time
import weakref
from contextvars import ContextVar
from typing import Any

import pytest

from kinfolk.errors import CallFailed, MailboxFull, NameLost, NodeClosed, NoProcess, Refused
from kinfolk.ids import Pid
from kinfolk.messages import Call
from kinfolk.process import Process
from kinfolk.reasons import Crash
from kinfolk.shell import tasks
from tests.home import NAME, Home, ended, settled


def started(linger_after: float = 1.0) -> Home:
    home = Home(linger_after)
    home.processes.start()
    return home


async def forever(me: Process) -> None:
    await asyncio.get_running_loop().create_future()


async def nothing(me: Process) -> None:
    pass


async def crash(me: Process) -> None:
    raise ZeroDivisionError("as it must")


async def hold_calls(me: Process) -> None:
    held = [call async for call in me.calls()]
    assert not held


class Stubborn:
    """Bodies that swallow a number of cancellations."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.swallowed = 0

    async def __call__(self, me: Process) -> None:
        while self.swallowed < self.times:
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self.swallowed += 1


# --- birth ---


async def test_spawn_gives_each_process_the_next_number_and_a_task_named_after_its_pid():
    home = started()
    first, second = home.start(forever), home.start(forever)
    assert (first.pid, second.pid) == (Pid(NAME, 1, 1), Pid(NAME, 1, 2))
    assert home.processes.get(1) is first
    assert list(home.processes) == [first, second]
    assert len(home.processes) == 2
    assert first.task is not None
    assert first.task.get_name() == str(first.pid)
    await home.processes.close(1.0)


def test_processes_spawned_before_the_loop_runs_start_with_the_node_in_order_and_have_a_mailbox_already():
    home = Home()
    heard: list[object] = []
    word: ContextVar[str] = ContextVar("word")

    async def listen(me: Process, name: str) -> None:
        heard.append((name, word.get(), await me.receive()))

    word.set("of the spawner")
    first, second = home.start(listen, "first"), home.start(listen, "second")
    word.set("of later")
    home.send(first.pid, 1)
    home.send(second.pid, 2)
    assert home.processes.get(second.pid.local) is second

    async def main() -> None:
        home.processes.start()
        await settled()
        await home.processes.close(1.0)

    asyncio.run(main())
    assert heard == [("first", "of the spawner", 1), ("second", "of the spawner", 2)]


def test_processes_that_never_start_leave_nothing_behind():
    home = Home()
    home.start(forever)
    killed = home.start(forever)
    assert home.processes.kill(killed.pid.local)
    asyncio.run(home.processes.close(1.0))
    gc.collect()  # A coroutine that was never awaited would be a warning, and so an error.
    assert home.exits == [(2, "killed"), (1, "shutdown")]


def plain_function(me: Process) -> int:
    return 5


async def async_generator(me: Process):
    yield 1


def generator(me: Process):
    yield 1


async def no_process() -> None:
    pass


async def two_arguments(me: Process, one: int) -> None:
    pass


@pytest.mark.parametrize(
    ("body", "args", "text"),
    [
        (5, (), "cannot spawn 5: give an async function whose first argument is its Process"),
        (plain_function, (), "it returned 5 instead of a coroutine; is it missing its 'async'?"),
        (async_generator, (), "async_generator: it has a 'yield'"),
        (generator, (), "generator: it has a 'yield'"),
        (two_arguments, (), "missing 1 required positional argument: 'one'"),
        (two_arguments, (1, 2), "takes 2 positional arguments but 3 were given"),
        (no_process, (), "cannot spawn no_process: no_process() takes 0 positional arguments but 1 was given; give an"),
    ],
)
async def test_what_is_no_process_body_is_a_type_error_with_advice(body, args, text):
    home = started()
    with pytest.raises(TypeError) as caught:
        home.start(body, *args)
    assert text in str(caught.value)
    assert len(home.processes) == 0


async def test_a_coroutine_instead_of_its_function_is_a_type_error_with_advice():
    home = started()
    body: Any = two_arguments(object(), 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"two_arguments\(\.\.\.\), which has been called already: .*spawn\(two_arg"):
        home.start(body)


async def test_any_callable_that_returns_a_coroutine_is_a_body():
    home = started()
    process = home.start(lambda me: forever(me))
    await settled()
    assert list(home.processes) == [process]
    await home.processes.close(1.0)


async def test_max_mailbox_bounds_the_mailbox():
    home = started()
    process = home.start(forever, max_mailbox=1)
    process.mailbox.put(1)
    with pytest.raises(MailboxFull):
        process.mailbox.put(2)
    with pytest.raises(ValueError, match="max_mailbox=0"):
        home.start(forever, max_mailbox=0)
    await home.processes.close(1.0)


# --- death ---


async def test_a_process_that_returns_exits_as_normal():
    home = started()
    await ended(home.start(nothing))
    assert home.exits == [(1, "normal")]


async def test_a_process_that_raises_is_logged_once_with_its_traceback_and_exits_with_the_error(caplog):
    home = started()
    process = home.start(crash)
    await ended(process)
    [(local, reason)] = home.exits
    assert local == 1
    assert isinstance(reason, Crash)
    assert (reason.type, reason.message) == ("ZeroDivisionError", "as it must")
    assert isinstance(reason.error, ZeroDivisionError)
    assert process.exit_reason is reason
    [record] = caplog.records
    assert record.getMessage() == f"{process.pid} (crash) crashed: ZeroDivisionError('as it must')"
    assert "in crash" in record.exc_text if record.exc_text else record.exc_info
    del process, home
    gc.collect()  # An exception that nobody retrieved would be logged.
    assert len(caplog.records) == 1


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


async def test_a_process_is_dead_also_if_its_error_cannot_be_shown(caplog):
    home = started()

    async def unspeakable(me: Process) -> None:
        raise Unspeakable

    process = home.start(unspeakable)
    await ended(process)
    [(_, reason)] = home.exits
    assert isinstance(reason, Crash)
    assert (reason.type, reason.message) == ("Unspeakable", "Unspeakable: its text cannot be made")
    [record] = caplog.records
    assert record.getMessage().endswith("crashed: Unspeakable: its text cannot be made")
    assert not home.processes.get(process.pid.local)


async def test_a_process_is_dead_also_if_its_crash_cannot_be_logged(monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(tasks._log, "error", full)
    home = started()
    process = home.start(crash)
    assert process.task is not None
    with pytest.raises(OSError, match="No space"):
        await process.task
    [(_, reason)] = home.exits
    assert isinstance(reason, Crash) and reason.type == "ZeroDivisionError"


async def test_a_process_whose_task_is_cancelled_exits_as_killed():
    home = started()
    process = home.start(forever)
    await settled()
    assert process.task is not None
    process.task.cancel()
    await ended(process)
    assert home.exits == [(1, "killed")]


async def test_what_the_code_of_a_killed_process_has_held_is_let_go_at_once():
    home = started()
    held: list[weakref.ref[object]] = []

    async def holds(me: Process) -> None:
        thing = Stubborn(0)
        held.append(weakref.ref(thing))
        await me.receive()

    process = home.start(holds)
    await settled()
    gc.disable()
    try:
        home.processes.kill(process.pid.local)
        await ended(process)
        await settled()
        assert held[0]() is None
    finally:
        gc.enable()


async def test_a_process_whose_task_is_cancelled_before_its_first_step_exits_as_killed():
    home = started()
    process = home.start(forever)
    assert process.task is not None
    process.task.cancel()
    await settled()
    gc.collect()
    assert home.exits == [(1, "killed")]


async def test_a_process_that_awaits_what_was_cancelled_has_crashed(caplog):
    home = started()

    async def body(me: Process) -> None:
        other = asyncio.ensure_future(asyncio.sleep(100))
        other.cancel()
        await other

    process = home.start(body)
    await ended(process)
    assert isinstance(process.exit_reason, Crash)
    assert process.exit_reason.type == "CancelledError"
    assert "crashed" in caplog.text


async def test_the_death_is_complete_before_the_task_is_done():
    home = started()
    seen: list[object] = []
    process = home.start(nothing)
    assert process.task is not None
    process.task.add_done_callback(lambda _: seen.append((home.exits[:], len(home.processes), process.exit_reason)))
    await ended(process)
    assert seen == [([(1, "normal")], 0, "normal")]


@pytest.mark.parametrize("reason", ["killed", "noconnection", NameLost("db", Pid("bob@h:1", 1, 1))])
async def test_a_killed_process_is_dead_when_kill_returns(reason):
    home = started()
    process = home.start(hold_calls)
    process.mailbox.put("waiting")
    await settled()
    assert home.processes.kill(1, reason)
    assert home.exits == [(1, reason)]
    assert process.exit_reason == reason
    assert home.processes.get(1) is None
    assert len(process.mailbox) == 0
    assert not home.processes.kill(1, reason), "it was dead"
    await ended(process)
    assert len(home.exits) == 1


async def test_a_process_may_kill_itself():
    home = started()
    after: list[str] = []

    async def body(me: Process) -> None:
        home.processes.kill(me.pid.local)
        after.append("still in the same step")
        await asyncio.sleep(0)
        after.append("never")

    await ended(home.start(body))
    assert after == ["still in the same step"]
    assert home.exits == [(1, "killed")]


async def test_an_error_while_a_killed_process_cleans_up_is_logged(caplog):
    home = started()

    async def body(me: Process) -> None:
        try:
            await forever(me)
        finally:
            raise OSError("disk full")

    process = home.start(body)
    await settled()
    home.processes.kill(1)
    await ended(process)
    assert "raised while it was ended: OSError('disk full')" in caplog.text
    assert home.exits == [(1, "killed")]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_program_goes_through_a_process(error):
    home = Home()

    async def body(me: Process) -> None:
        raise error

    async def main() -> None:
        home.processes.start()
        home.start(body)
        await forever(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    with pytest.raises(error):
        asyncio.run(main())
    [(_, reason)] = home.exits
    assert isinstance(reason, Crash)
    assert isinstance(reason.error, error)


# --- calls that are open when a process dies ---


async def call_and(home: Home, process: Process, then: Any) -> Any:
    """Call a process; when it holds the call, do something else; return what the caller gets."""
    calling = asyncio.ensure_future(home.call(process.pid, "request"))
    await settled()
    then()
    with contextlib.suppress(CallFailed, NoProcess):
        return await calling
    return calling.exception()


async def test_a_crash_fails_its_open_calls_with_the_text_of_the_error(caplog):
    home = started()

    async def body(me: Process) -> None:
        await me.receive()
        await me.receive(str)
        raise ZeroDivisionError("as it must")

    process = home.start(body)
    error = await call_and(home, process, lambda: process.mailbox.put("go"))
    assert type(error) is CallFailed
    assert str(error).endswith("crashed: ZeroDivisionError: as it must")


@pytest.mark.parametrize(
    ("reason", "words"),
    [("killed", "killed"), ("shutdown", "shutdown"), (NameLost("db", Pid("b@h:1", 1, 1)), "the name 'db' was lost")],
)
async def test_a_kill_answers_open_calls_with_no_process_also_those_still_in_the_mailbox(reason, words):
    home = started()
    for body in (forever, hold_calls):
        process = home.start(body)
        error = await call_and(home, process, lambda process=process: home.processes.kill(process.pid.local, reason))
        assert type(error) is NoProcess
        assert f"ended before it answered: {words}" in str(error)


async def test_a_normal_exit_answers_open_calls_with_no_process():
    home = started()

    async def body(me: Process) -> None:
        await me.receive(str)

    process = home.start(body)
    error = await call_and(home, process, lambda: process.mailbox.put("go"))
    assert type(error) is NoProcess
    assert "normal" in str(error)


async def test_the_caller_learns_of_a_death_only_when_the_node_knows():
    home = started()
    process = home.start(hold_calls)
    seen: list[int] = []
    call = Call("x", None, lambda outcome, value: seen.append(len(home.exits)))
    home.processes.take_call(process, call, None)
    home.processes.kill(1)
    assert seen == [1]


async def test_a_caller_that_cannot_be_told_does_not_keep_others_from_being_told(caplog):
    home = started()
    process = home.start(hold_calls)
    told: list[str] = []

    def congested(outcome: str, value: object) -> None:
        raise Refused("the outbox is full")

    for answer in (congested, lambda outcome, value: told.append(outcome)) * 3:
        home.processes.take_call(process, Call("x", None, answer), None)
    home.processes.kill(1)
    assert told == ["noproc"] * 3
    assert caplog.text.count("could not tell the caller") == 3


async def test_answered_calls_are_not_kept():
    home = started()

    async def echo(me: Process) -> None:
        async for call in me.calls():
            call.reply(call.body)

    process = home.start(echo)
    for number in range(100):
        assert await home.call(process.pid, number) == number
        assert not process.open_calls
    await home.processes.close(1.0)


async def test_calls_that_are_never_answered_do_not_gather_without_bound():
    home = started()

    async def deaf(me: Process) -> None:
        while True:
            await me.receive()

    process = home.start(deaf)
    most = 0
    for number in range(1000):
        home.processes.take_call(process, Call(number, None, lambda *_: None), 0.0)
        await asyncio.sleep(0)
        most = max(most, len(process.open_calls or ()))
    assert most <= 64
    patient = [Call(number, None, lambda *_: None) for number in range(200)]
    for call in patient:
        home.processes.take_call(process, call, None)
    assert set(patient) <= (process.open_calls or {}).keys(), "their callers still wait"
    await home.processes.close(1.0)


async def test_a_call_that_finds_the_mailbox_full_is_not_kept():
    home = started()
    process = home.start(forever, max_mailbox=1)
    process.mailbox.put(1)
    with pytest.raises(MailboxFull):
        home.processes.take_call(process, Call("x", None, lambda *_: None), 1.0)
    assert not process.open_calls
    await home.processes.close(1.0)


# --- those who will not go ---


async def test_a_task_that_swallows_its_cancellation_is_reported_once_and_cancelled_until_it_ends(caplog):
    home = started(linger_after=0.001)
    stubborn = Stubborn(times=4)
    process = home.start(stubborn)
    await settled()
    home.processes.kill(1)
    assert home.exits == [(1, "killed")]
    await settled()
    assert stubborn.swallowed == 1
    await ended(process)
    assert stubborn.swallowed == 4
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{process.pid} (Stubborn) is lingering")
    assert home.exits == [(1, "killed")]
    await settled()
    assert home.processes.lingering == []


async def test_the_lingering_can_be_seen():
    home = started(linger_after=0.001)
    process = home.start(Stubborn(times=3))
    await settled()
    home.processes.kill(1)
    assert home.processes.lingering == []
    while not home.processes.lingering:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.001)
    assert home.processes.lingering == [process]
    await ended(process)


async def test_many_that_die_at_once_leave_no_timer_behind():
    home = started(linger_after=1000)
    processes = [home.start(forever) for _ in range(100)]
    await settled()
    for process in processes:
        home.processes.kill(process.pid.local)
    assert await home.processes.close(5.0) == []
    await settled()
    loop: Any = asyncio.get_running_loop()
    assert [handle for handle in loop._scheduled if not handle.cancelled()] == []


# --- the end ---


async def test_close_ends_all_processes_and_waits_for_them():
    home = started()
    ends: list[int] = []

    async def body(me: Process) -> None:
        try:
            await forever(me)
        finally:
            await asyncio.sleep(0)
            ends.append(me.pid.local)

    processes = [home.start(body) for _ in range(3)]
    await settled()
    assert await home.processes.close(5.0) == []
    assert ends == [1, 2, 3]
    assert all(process.task is None for process in processes), "none runs, or is kept"
    assert home.exits == [(1, "shutdown"), (2, "shutdown"), (3, "shutdown")]
    with pytest.raises(NodeClosed):
        home.start(forever)
    assert await home.processes.close(5.0) == []


async def test_who_has_had_no_turn_to_end_is_not_said_to_linger(caplog):
    home = started(linger_after=0.05)
    first, second = home.start(forever), home.start(forever)
    await settled()
    for process, busy in ((first, 0.1), (second, 0.06)):  # the second is due in the very moment the loop is free
        home.processes.kill(process.pid.local)
        time.sleep(busy)  # noqa: ASYNC251 - it is the loop that is to be busy
    await ended(first)
    await ended(second)
    assert "lingering" not in caplog.text


async def test_close_waits_no_longer_than_it_may_and_names_who_is_left(caplog):
    home = started(linger_after=0.05)
    process = home.start(Stubborn(times=2))
    await settled()
    assert await home.processes.close(0.001) == [process]
    assert f"have not ended within 0.001 s: {process.pid} (Stubborn)" in caplog.text
    await ended(process)


async def test_a_process_that_closes_the_node_goes_on_until_it_returns():
    home = started()
    steps: list[str] = []

    async def closer(me: Process) -> None:
        steps.append(str(await home.processes.close(5.0)))
        await asyncio.sleep(0)
        steps.append("returned")

    other = home.start(forever)
    process, task = home.start(closer), other.task
    await ended(process)
    assert steps == ["[]", "returned"]
    assert task is not None
    assert task.cancelled()
    assert home.exits == [(1, "shutdown"), (2, "shutdown")]


async def in_a_group(me: Process) -> None:
    async with asyncio.TaskGroup():
        await forever(me)


async def with_a_task(me: Process) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(forever(me))
        await forever(me)


@pytest.mark.parametrize("body", [forever, in_a_group, with_a_task])
def test_a_loop_that_is_thrown_away_takes_its_processes_with_it_and_nobody_is_told(body: Any, caplog):
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # asyncio's own complaint

    async def main() -> tuple[Any, list[Any]]:
        home = started()
        process = home.start(body)
        await settled()
        assert process.task is not None
        return process.task.get_coro(), home.exits

    life, exits = loop.run_until_complete(main())
    loop.close()
    life.close()  # as the garbage collector does, which else might come to the body first
    gc.collect()
    assert exits == [] and "crashed" not in caplog.text
