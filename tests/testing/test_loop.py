"""The simulated loop: virtual time, an order that the seed decides, and nothing real."""

import asyncio
import socket
import threading
import time
from contextvars import copy_context
from typing import Any

import pytest

from kinfolk.testing import NotSimulated, SimulatedLoop, Stuck, cluster, simulate
from kinfolk.testing.loop import PROGRAM, Program


def test_an_hour_takes_no_time():
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert 3600 <= simulate(0, main) < 3600.01
    assert time.monotonic() - began < 5


def test_timers_ring_in_their_order_and_those_of_one_moment_in_that_of_their_setting():
    async def main() -> list[int]:
        loop, rung = asyncio.get_running_loop(), list[int]()
        for number, delay in enumerate((0.3, 0.1, 0.2, 0.1)):
            loop.call_at(delay, rung.append, number)
        cancelled = [loop.call_later(0.15, rung.append, 9) for _ in range(1000)]
        for timer in cancelled:
            timer.cancel()
        await asyncio.sleep(1)
        return rung

    assert simulate(0, main) == [1, 3, 2, 0]


def _order(seed: int) -> list[tuple[str, int]]:
    """The order in which two programs, each of them in its own order, do three things each."""

    async def main() -> list[tuple[str, int]]:
        loop, done = asyncio.get_running_loop(), list[tuple[str, int]]()
        for number in range(3):
            for program in programs:
                loop.call_soon(done.append, (program.name, number), context=program.context())
        await asyncio.sleep(1)
        return done

    programs = [Program("a"), Program("b")]
    return simulate(seed, main)


def test_within_a_program_first_come_first_served_and_between_programs_the_seed_decides():
    orders = {tuple(_order(seed)) for seed in range(60)}
    assert len(orders) > 10, "of twenty that there are"
    for order in orders:
        for name in "ab":
            assert [number for who, number in order if who == name] == [0, 1, 2]
    assert _order(1) == _order(1)


def test_nothing_of_a_dead_program_runs_and_in_the_end_its_tasks_have_ended():
    said: list[str] = []

    async def life() -> None:
        try:
            said.append("begins")
            await asyncio.sleep(1)
            said.append("lives")
        finally:
            said.append("ends")

    async def main() -> asyncio.Task[None]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        program = Program("p")
        task = loop.create_task(life(), context=program.context())
        await asyncio.sleep(0.5)
        loop.kill(program)
        task.cancel()
        await asyncio.sleep(5)
        assert said == ["begins"] and not task.done()
        return task

    task = simulate(0, main)
    assert said == ["begins", "ends"] and task.cancelled()


def test_what_a_program_starts_belongs_to_it():
    async def main() -> str:
        async def child() -> str:
            return PROGRAM.get().name

        async def parent() -> str:
            return await asyncio.create_task(child())

        context = Program("p").context()
        return await asyncio.get_running_loop().create_task(parent(), context=context)

    assert simulate(0, main) == "p"
    assert PROGRAM not in copy_context()


def test_who_waits_for_what_will_never_happen_is_told():
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck):
        simulate(0, main)


def test_a_node_does_not_hide_that_everybody_waits():
    async def main() -> None:
        async with cluster(1):
            await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck):
        simulate(0, main)


REAL: dict[str, Any] = {
    "getaddrinfo": lambda loop: loop.getaddrinfo("localhost", 80),
    "create_connection": lambda loop: asyncio.open_connection("localhost", 80),
    "create_server": lambda loop: asyncio.start_server(lambda reader, writer: None, port=0),
    "run_in_executor": lambda loop: asyncio.to_thread(time.sleep, 1),
    "sock_connect": lambda loop: loop.sock_connect(None, ("localhost", 80)),
    "subprocess_exec": lambda loop: asyncio.create_subprocess_exec("true"),
    "create_datagram_endpoint": lambda loop: loop.create_datagram_endpoint(asyncio.DatagramProtocol),
}


@pytest.mark.parametrize("name", REAL)
def test_what_is_real_is_refused_by_its_name(name: str):
    async def main() -> None:
        await REAL[name](asyncio.get_running_loop())

    with pytest.raises(NotSimulated, match=f"^{name}: a simulation has no sockets"):
        simulate(0, main)


def test_nothing_that_a_loop_can_do_is_forgotten():
    abstract = {name for name in vars(asyncio.AbstractEventLoop) if not name.startswith("__")}
    own = set(vars(SimulatedLoop))
    assert abstract - own <= {"_timer_handle_cancelled"}


def test_sockets_and_other_threads_cannot_wake_it():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(NotSimulated), socket.socket() as sock:
            loop.add_reader(sock, print)
        refused: list[BaseException] = []

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(print)
            except NotSimulated as error:
                refused.append(error)

        thread = threading.Thread(target=wake)
        thread.start()
        thread.join()
        assert len(refused) == 1

    simulate(0, main)


def test_errors_that_nobody_caught_are_raised_in_the_end():
    async def main() -> None:
        asyncio.get_running_loop().call_soon(int, "no number")
        await asyncio.sleep(1)

    with pytest.raises(ExceptionGroup, match="nobody caught") as caught:
        simulate(0, main)
    assert caught.group_contains(ValueError, match="no number")


@pytest.mark.parametrize("debug", [False, True])
def test_handles_are_asyncios_and_a_callback_that_fails_is_told_with_its_own(debug: bool):
    def fails() -> None:
        raise ZeroDivisionError("as it must")

    async def main() -> None:
        loop, told = asyncio.get_running_loop(), list[dict[str, Any]]()
        loop.set_debug(debug)
        loop.set_exception_handler(lambda _, context: told.append(context))
        handle, timer = loop.call_soon(fails), loop.call_at(1.0, fails)
        assert isinstance(handle, asyncio.Handle)
        assert isinstance(timer, asyncio.TimerHandle)
        assert (timer.when(), timer.cancelled()) == (1.0, False)
        for _ in range(2):
            timer.cancel()
        assert timer.cancelled()
        assert "cancelled" in repr(timer)
        await asyncio.sleep(2)
        assert [(context["handle"], type(context["exception"])) for context in told] == [(handle, ZeroDivisionError)]
        assert "fails() at " in told[0]["message"]
        assert ("created at" in repr(handle)) == debug

    simulate(0, main)


def test_the_wall_clock_goes_with_the_loops_and_the_log_has_both():
    lines: list[str] = []

    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        before = loop.wall_clock()
        await asyncio.sleep(2)
        loop.note("two", "seconds")
        return loop.wall_clock() - before

    assert simulate(0, main, log=lines.append) == pytest.approx(2e9, rel=1e-3)
    assert len(lines) == 1 and lines[0].startswith("2.0") and lines[0].endswith(" two seconds")
