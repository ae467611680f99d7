"""``python -m bench.profiling WORD ...``: where the time of a workload goes, all nodes of it in one program.

Prints the processor time of one operation, of all nodes together and without a profiler, and then the functions that
a profiler finds it in. Such times do not depend on what else the machine does, as far as caches allow. So a change can
be judged on a busy machine: the best of a few runs before, and after.
"""

import argparse
import asyncio
import cProfile
import gc
import pstats
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

from bench import ours
from bench.agent import Here
from kinfolk import Node
from kinfolk.cookie import new_cookie

Work = Callable[[list[Here]], Awaitable[int]]
"""Does some of a workload; how many operations that were."""


def _node(here: Here) -> Node:
    node: Node = here.kept["node"]
    return node


async def _nowait(nodes: list[Here]) -> int:
    await ours.hold(nodes[0], 10_000)
    await ours.until(lambda: all(len(_node(here).names) == 10_000 for here in nodes))
    return 10_000


def _register(callers: int) -> Work:
    async def work(nodes: list[Here]) -> int:
        await ours.register(nodes[0], 250 * callers, callers)
        return 250 * callers

    return work


async def _owners(nodes: list[Here]) -> None:
    await ours.owners(nodes[0], 10_000)
    await ours.until(lambda: all(len(_node(here).names) == 10_000 for here in nodes))


async def _exits(nodes: list[Here]) -> int:
    await ours.stop_owners(nodes[0])
    await ours.until(lambda: all(len(_node(here).names) == 0 for here in nodes))
    return 10_000


async def _held(nodes: list[Here]) -> None:
    await ours.hold(nodes[0], 50_000)


async def _join(nodes: list[Here]) -> int:
    await ours.arrive(nodes[1], _node(nodes[0]).name, 1, 50_000)
    return 50_000


async def _serving(nodes: list[Here]) -> None:
    await ours.serve(nodes[-1])


async def _call(nodes: list[Here]) -> int:
    await ours.times(nodes[0], 3_000)
    return 3_000


async def _call16(nodes: list[Here]) -> int:
    await ours.rate(nodes[0], 16_000, 16)
    return 16_000


async def _one_way(nodes: list[Here]) -> int:
    await ours.one_way(nodes[0], 50_000, 100, 100)
    return 50_000


async def _awaiting(nodes: list[Here]) -> int:
    await ours.one_way(nodes[0], 50_000, 100, 1)
    return 50_000


async def _local_cast(nodes: list[Here]) -> int:
    await ours.local_cast(nodes[0], 200_000, 100)
    return 200_000


async def _local_call(nodes: list[Here]) -> int:
    await ours.local_call(nodes[0], 20_000)
    return 20_000


async def _local_spawn(nodes: list[Here]) -> int:
    await ours.local_spawn(nodes[0], 20_000)
    return 20_000


async def _remote_spawn(nodes: list[Here]) -> int:
    await ours.remote_spawn(nodes[0], _node(nodes[1]).name, 1_000)
    return 1_000


WORKS: dict[str, tuple[int, Callable[[list[Here]], Awaitable[None]] | None, Work]] = {
    "register": (3, None, _register(1)),
    "register16": (3, None, _register(16)),
    "nowait": (3, None, _nowait),
    "exits": (3, _owners, _exits),
    "join": (-2, _held, _join),
    "cast": (1, None, _local_cast),
    "localcall": (1, None, _local_call),
    "localspawn": (1, None, _local_spawn),
    "oneway": (2, _serving, _one_way),
    "awaiting": (2, _serving, _awaiting),
    "call": (2, _serving, _call),
    "call16": (2, _serving, _call16),
    "spawn": (2, None, _remote_spawn),
}
"""By word: how many nodes (not connected, if negative), what comes before, and what is measured."""


async def measure(word: str, profiler: cProfile.Profile | None) -> float:
    """Do the work once; the processor's seconds for one operation."""
    size, before, work = WORKS[word]
    cookie, nodes = new_cookie(), [Here() for _ in range(abs(size))]
    names: list[str] = []
    for number, here in enumerate(nodes):
        names.append(await ours.start(here, f"n{number}", cookie, list(names) if size > 0 else []))
    if size > 0:
        await asyncio.gather(*(ours.peers(here, size - 1) for here in nodes))
    if before is not None:
        await before(nodes)
    gc.collect()
    begun = time.thread_time()
    if profiler is not None:
        profiler.enable()
    count = await work(nodes)
    if profiler is not None:
        profiler.disable()
    each = (time.thread_time() - begun) / count
    await asyncio.gather(*(ours.leave(here) for here in nodes))
    return each


def main(arguments: Sequence[str]) -> int:
    """Measure without a profiler, the best of some runs, and then with it."""
    parser = argparse.ArgumentParser(prog="python -m bench.profiling", description=__doc__)
    parser.add_argument("words", nargs="+", choices=WORKS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--functions", type=int, default=25, help="how many to show; 0 for no profile")
    options = parser.parse_args(arguments)
    for word in options.words:
        best = min(asyncio.run(measure(word, None)) for _ in range(options.runs))
        print(f"{word}: {best * 1e6:.2f} us of the processor for one, at all its nodes together")
        if options.functions:
            profiler = cProfile.Profile()
            asyncio.run(measure(word, profiler))
            pstats.Stats(profiler).strip_dirs().sort_stats("tottime").print_stats(options.functions)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
