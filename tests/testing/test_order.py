"""Who is told of one thing is told in the order of asking, never in that of addresses: else no run repeats itself."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from kinfolk import Node, NoProcess, Process
from kinfolk.testing import cluster, simulate

MANY = 40


def order_of(test: Callable[[Node, list[int]], Coroutine[Any, Any, None]]) -> list[int]:
    """The order in which a test notes its numbers."""
    noted: list[int] = []

    async def main() -> None:
        async with cluster(1) as nodes:
            await test(nodes[0], noted)

    simulate(0, main)
    return noted


async def idle(me: Process) -> None:
    await asyncio.Event().wait()


def test_those_who_wait_for_a_name():
    async def test(node: Node, noted: list[int]) -> None:
        async def wait(number: int) -> None:
            await node.names.wait_for("x")
            noted.append(number)

        tasks = [asyncio.ensure_future(wait(number)) for number in range(MANY)]
        await asyncio.sleep(0)
        await node.names.register("x", node.spawn(idle))
        await asyncio.gather(*tasks)

    assert order_of(test) == list(range(MANY))


def test_those_who_watch_names_and_groups():
    async def test(node: Node, noted: list[int]) -> None:
        async def watch(number: int, watched: Any) -> None:
            await anext(watched)
            noted.append(number)

        watches = [node.names.watch("x") if number % 2 else node.groups.watch("x") for number in range(MANY)]
        tasks = [asyncio.ensure_future(watch(number, watched)) for number, watched in enumerate(watches)]
        await asyncio.sleep(0.01)
        pid = node.spawn(idle)
        await node.names.register("x", pid)
        await node.groups.join("x", pid)
        await asyncio.gather(*tasks)

    noted = order_of(test)
    assert noted == [*range(1, MANY, 2), *range(0, MANY, 2)]


def test_those_whose_calls_are_open_when_a_process_ends():
    async def test(node: Node, noted: list[int]) -> None:
        pid = node.spawn(idle)

        async def call(number: int) -> None:
            try:
                await node.call(pid, number)
            except NoProcess:
                noted.append(number)

        tasks = [asyncio.ensure_future(call(number)) for number in range(MANY)]
        await asyncio.sleep(0.01)
        node.kill(pid)
        await asyncio.gather(*tasks)

    assert order_of(test) == list(range(MANY))


def test_tasks_of_a_group_that_is_cancelled():
    async def test(node: Node, noted: list[int]) -> None:
        async def wait(number: int) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                noted.append(number)

        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(MANY):
                    tasks.create_task(wait(number))
                await asyncio.sleep(0.01)
                raise LookupError
        except* LookupError:
            pass

    first = order_of(test)
    assert sorted(first) == list(range(MANY))
    assert first == list(range(MANY)), "asyncio keeps them in a set: their hashes are their numbers"
