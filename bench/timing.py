"""How agents measure: the same loops around ours and around every reference."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

Timing = dict[str, float]
"""Percentiles, in seconds: p50 and p99."""


def percentiles(times: Sequence[float]) -> Timing:
    """What of these times half, and 99 of 100, do not exceed."""
    ordered = sorted(times)
    return {"p50": ordered[len(ordered) // 2], "p99": ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]}


async def call_times(call: Callable[[], Awaitable[object]], count: int) -> Timing:
    """Call one after the other."""
    times: list[float] = []
    clock = time.perf_counter
    for _ in range(count):
        start = clock()
        await call()
        times.append(clock() - start)
    return percentiles(times)


async def in_turn(call: Callable[[], Awaitable[object]], count: int, callers: int) -> float:
    """Call by so many callers at once; calls a second."""
    each = count // callers

    async def caller() -> None:
        for _ in range(each):
            await call()

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return each * callers / (time.perf_counter() - start)


async def burst_through(
    send: Callable[[], object], count: int, burst: int, counted: Callable[[], Awaitable[object]]
) -> float:
    """Send in bursts, the loop having a turn after each, until the other end has counted all; messages a second."""
    start = time.perf_counter()
    for _ in range(count // burst):
        for _ in range(burst):
            send()
        await asyncio.sleep(0)
    await counted()
    return count // burst * burst / (time.perf_counter() - start)
