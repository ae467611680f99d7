"""Servers at work: on one node and across two."""

import asyncio
from typing import Any

import msgspec
import pytest

from kinfolk import (
    Alarm,
    Call,
    CallFailed,
    CallTimeout,
    Crash,
    Down,
    Exit,
    Node,
    NoProcess,
    Pid,
    Process,
    Reason,
    Refused,
    Request,
    Server,
    Stop,
)
from tests.node.nodes import Nodes, idle, until


class Add(Request[int], tag="add"):
    by: int


class Break(Request[None], tag="break"):
    how: str


class Wait(Request[str], tag="wait"):
    pass


class Open(msgspec.Struct, tag="open"):
    text: str


class Watch(Request[None], tag="watch"):
    pid: Pid


class Twice(Add, tag="twice"):
    pass


class Counter(Server):
    """What a server can do, one method each. It writes down how it ends."""

    def __init__(self) -> None:
        self.waiting: list[Call[Wait]] = []
        self.downs: list[Down] = []

    async def init(self, start: int = 0, ends: list[Reason] | None = None) -> None:
        self.total = start
        self.ends: list[Reason] = [] if ends is None else ends

    async def add(self, message: Add) -> int:
        self.total += message.by
        return self.total

    async def wait(self, call: Call[Wait]) -> None:
        self.waiting.append(call)

    async def opened(self, message: Open) -> None:
        for call in self.waiting:
            call.reply(message.text)
        self.waiting.clear()

    async def broken(self, message: Break) -> None:
        match message.how:
            case "refuse":
                raise Refused("not today")
            case "stop":
                raise Stop("enough")
            case _:
                raise ValueError("broken")

    async def watch(self, message: Watch) -> None:
        self.me.monitor(message.pid)

    async def down(self, message: Down) -> None:
        self.total += 1000

    async def terminate(self, reason: Reason) -> None:
        self.ends.append(reason)


@pytest.fixture
async def two(nodes: Nodes) -> list[Node]:
    return await nodes.mesh("ada", "bob")


@pytest.mark.parametrize("there", [False, True], ids=["here", "from-another-node"])
class TestFromHereAndThere:
    async def test_answers_calls_and_takes_sends(self, two: list[Node], there: bool):
        home, asker = two[0], two[int(there)]
        pid = home.spawn(Counter, 10)
        assert await asker.call(pid, Add(5)) == 15
        asker.send(pid, Add(5))
        assert await asker.call(pid, Add(0)) == 20

    async def test_says_what_it_handles_when_it_is_asked_for_something_else(self, two: list[Node], there: bool):
        home, asker = two[0], two[int(there)]
        pid = home.spawn(Counter)
        with pytest.raises(Refused, match="Counter has no method for list: it handles Add, Wait, Open, Break"):
            await asker.call(pid, ["get", "k"])
        asker.send(pid, "what?")
        assert await asker.call(pid, Add(1)) == 1, "and lives on"
        assert home.counters["unhandled_messages"] == 1

    async def test_refusing_is_an_answer_and_anything_else_the_end(self, two: list[Node], there: bool):
        home, asker = two[0], two[int(there)]
        ends: list[Reason] = []
        pid = home.spawn(Counter, 0, ends)
        with pytest.raises(Refused, match="not today"):
            await asker.call(pid, Break("refuse"))
        asker.send(pid, Break("refuse"))
        assert await asker.call(pid, Add(1)) == 1
        end = asyncio.create_task(asker.wait_exit(pid))
        await asker.call(pid, Add(0))
        with pytest.raises(CallFailed, match=r"Counter.* crashed: ValueError: broken"):
            await asker.call(pid, Break("crash"))
        reason = await end
        assert isinstance(reason, Crash)
        assert reason.type == "ValueError"
        assert [isinstance(end, Crash) and str(end) for end in ends] == ["ValueError: broken"]

    async def test_answers_later_from_another_message(self, two: list[Node], there: bool):
        home, asker = two[0], two[int(there)]
        pid = home.spawn(Counter)
        waits = [asyncio.create_task(asker.call(pid, Wait())) for _ in range(2)]
        await until(lambda: len(_server_calls(home, pid)) == 2)
        asker.send(pid, Open("now"))
        assert await asyncio.gather(*waits) == ["now", "now"]
        asker.send(pid, Wait())  # nobody waits for the answer
        asker.send(pid, Open("again"))
        assert await asker.call(pid, Add(1)) == 1

    async def test_stops_itself_with_a_reason(self, two: list[Node], there: bool):
        home, asker = two[0], two[int(there)]
        ends: list[Reason] = []
        pid = home.spawn(Counter, 0, ends)
        with pytest.raises(NoProcess, match="ended before it answered: enough"):
            await asker.call(pid, Break("stop"))
        assert ends == ["enough"]


async def test_a_message_goes_to_the_method_for_its_nearest_base_class(two: list[Node]):
    ada, _ = two
    assert await ada.call(ada.spawn(Counter), Twice(2)) == 2


def _server_calls(node: Node, pid: Pid) -> dict[Any, None]:
    return next(process.open_calls or {} for process in node.processes() if process.pid == pid)


async def test_the_message_types_of_a_server_are_known_from_its_spawn(two: list[Node]):
    class Lone(Server):
        async def both(self, message: Add | Open) -> int:
            return 1 if isinstance(message, Open) else 2

    ada, bob = two
    assert await bob.call(ada.spawn(Lone), Open("x")) == 1


async def test_an_exit_signal_ends_it_after_what_came_before(two: list[Node]):
    ada, _ = two
    ends: list[Reason] = []
    pid = ada.spawn(Counter, 0, ends)
    end = asyncio.create_task(ada.wait_exit(pid))
    answer = asyncio.create_task(ada.call(pid, Add(1)))
    await asyncio.sleep(0)

    async def ender(me: Process) -> None:
        me.exit(pid, "normal")  # does nothing, as to any process
        me.exit(pid, "goodbye")

    ada.spawn(ender)
    assert await answer == 1
    assert await end == "goodbye"
    assert ends == ["goodbye"]


async def test_a_method_for_exits_gets_them_all_but_the_parents(two: list[Node]):
    ada, _ = two
    seen: list[Exit] = []
    ends: list[Reason] = []

    class Trapping(Server):
        async def left(self, message: Exit) -> None:
            seen.append(message)

        async def terminate(self, reason: Reason) -> None:
            ends.append(reason)

    async def parent(me: Process, pids: list[Pid]) -> None:
        pids.append(me.spawn(Trapping, link=True))
        await me.receive()

    pids: list[Pid] = []
    parent_pid = ada.spawn(parent, pids)
    pid = (await until(lambda: pids))[0]

    async def stranger(me: Process) -> None:
        me.exit(pid, "shutdown")
        me.link(pid)

    other = ada.spawn(stranger)
    await until(lambda: len(seen) == 2)
    assert seen == [Exit(other, "shutdown"), Exit(other, "normal")]
    ada.send(parent_pid, "go")
    assert await ada.wait_exit(pid, timeout=5) == "normal"
    assert ends == ["normal"]


async def test_watches_others(two: list[Node]):
    ada, bob = two
    pid, watched = ada.spawn(Counter), bob.spawn(idle)
    await ada.call(pid, Watch(watched))
    bob.kill(watched)

    async with asyncio.timeout(5):
        while await ada.call(pid, Add(0)) != 1000:  # noqa: ASYNC110 - a server sets no event of ours
            await asyncio.sleep(0.01)


async def test_kill_asks_nobody(two: list[Node]):
    ada, _ = two
    ends: list[Reason] = []
    pid = ada.spawn(Counter, 0, ends)
    await ada.call(pid, Add(1))
    ada.kill(pid)
    assert await ada.wait_exit(pid) in ("killed", "noproc")
    await asyncio.sleep(0)
    assert ends == []


async def test_a_server_whose_init_fails_answers_nobody_and_is_not_terminated(two: list[Node]):
    ended: list[Reason] = []

    class Broken(Server):
        async def init(self) -> None:
            raise OSError("no disk")

        async def terminate(self, reason: Reason) -> None:
            ended.append(reason)

    ada, _ = two
    pid = ada.spawn(Broken)
    with pytest.raises(CallFailed, match="crashed: OSError: no disk"):
        await ada.call(pid, Add(1))
    assert ended == []


async def test_arguments_that_init_does_not_take_are_refused_at_once(two: list[Node]):
    class Bare(Server):
        pass

    ada, _ = two
    before = len(ada.processes())
    with pytest.raises(TypeError, match="too many positional arguments"):
        ada.spawn(Counter, 1, [], 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="Bare has no init, and so takes no arguments"):
        ada.spawn(Bare, 1)
    assert len(ada.processes()) == before


async def test_calls_whose_callers_have_given_up_are_passed_over(two: list[Node]):
    class Slow(Server):
        async def init(self, handled: list[int]) -> None:
            self.handled = handled

        async def add(self, message: Add) -> int:
            self.handled.append(message.by)
            await asyncio.sleep(0.1 if message.by == 1 else 0)
            return message.by

    ada, _ = two
    handled: list[int] = []
    pid = ada.spawn(Slow, handled)
    first = asyncio.create_task(ada.call(pid, Add(1)))
    await asyncio.sleep(0)
    with pytest.raises(CallTimeout):
        await ada.call(pid, Add(2), timeout=0.02)
    assert await first == 1
    assert await ada.call(pid, Add(3)) == 3
    assert handled == [1, 3]
    assert ada.counters["expired_calls"] == 1


# --- timers ---


async def test_messages_that_it_sends_to_itself_later(two: list[Node]):
    class Clock(Server):
        async def init(self) -> None:
            self.seen: list[str] = []
            self.send_after(0.02, Open("once"))
            cancelled = self.send_after(0.01, Open("never"))
            assert cancelled.active and cancelled.cancel() and not cancelled.active and not cancelled.cancel()
            self.ticks: Alarm = self.send_interval(0.005, Open("tick"))

        async def opened(self, message: Open) -> None:
            self.seen.append(message.text)
            if self.seen.count("tick") == 5:
                self.ticks.cancel()

        async def wait(self, message: Wait) -> str:
            return " ".join(sorted(self.seen))

    ada, _ = two
    pid = ada.spawn(Clock)
    async with asyncio.timeout(5):
        while (seen := await ada.call(pid, Wait())) != "once tick tick tick tick tick":
            assert "never" not in seen
            await asyncio.sleep(0.01)
    assert len(ada.alarms) == 0


async def test_alarms_end_with_their_process(two: list[Node]):
    async def sleeper(me: Process) -> None:
        me.send_after(60, "late")
        me.send_interval(60, "again")
        await me.receive()

    ada, _ = two
    pid = ada.spawn(sleeper)
    await until(lambda: len(ada.alarms) == 2)
    ada.kill(pid)
    assert len(ada.alarms) == 0


async def test_an_interval_does_not_flood_a_full_mailbox(two: list[Node]):
    async def busy(me: Process) -> None:
        me.send_interval(0.001, "tick")
        await asyncio.Event().wait()

    ada, _ = two
    pid = ada.spawn(busy, max_mailbox=3)
    await until(lambda: ada.counters["mailbox_overflows"] > 2)
    ada.kill(pid)


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
async def test_times_that_make_no_sense_are_refused(two: list[Node], seconds: float):
    refused: list[str] = []

    async def body(me: Process) -> None:
        for send in (me.send_after, me.send_interval):
            try:
                send(seconds, "x")
            except ValueError as error:
                refused.append(str(error))

    ada, _ = two
    await ada.wait_exit(ada.spawn(body))
    assert len(refused) == 2
    assert all("seconds" in text for text in refused)
