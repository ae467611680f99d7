"""Growth: what things cost as there are more names, more processes, more nodes.

Curves, each with the values of one quantity for several sizes; and the rows of what has a goal.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import ours
from bench.harness import LIMIT, Goal, Outcome, Progress, Sample, Workload, results
from bench.stage import PythonAgent, Stage, together
from bench.workloads import casts
from kinfolk.cookie import new_cookie

NAMES = (1_000, 10_000, 100_000, 1_000_000)
PROCESSES = (1_000, 10_000, 100_000, 1_000_000)
NODES = (2, 5, 10, 20, 30, 50)
LOOP = "asyncio"
EXTRA, CONFIRMED = 2_000, 100
IDLE_SECONDS = 6.0
ENOUGH = 600.0
"""Seconds after which one size is given up."""
COUNTED = 500
"""Registers, or exits, of which the bytes are counted."""

_MILLION = Workload(
    "growth",
    "1,000,000 names: a 3rd node joins 2 of which one has them all",
    {"join": "s", "stall": "s", "stall_own": "s"},
    {f"kinfolk {LOOP}": None},
    [
        Goal("stall", "<= 1", LIMIT, limit=0.020, called="20 ms"),
        Goal("stall_own", "<= 1", LIMIT, limit=0.020, called="20 ms of its own"),
        Goal("join", "", LIMIT, limit=1.0, called="1 s"),
    ],
)


@dataclass
class Curve:
    """One quantity by size, for one or several series."""

    title: str
    size: str
    unit: str
    values: dict[str, dict[int, float]] = field(default_factory=dict)

    def add(self, series: str, size: int, value: float) -> None:
        """A point."""
        self.values.setdefault(series, {})[size] = value


def _curves() -> dict[str, Curve]:
    names, processes, nodes = "names", "processes", "nodes"
    return {
        "lookup": Curve("look a name up", names, "s"),
        "nowait": Curve("register a name, unconfirmed, until the peer shows it", names, "s"),
        "register": Curve("register a name, confirmed by 1 peer, p50", names, "s"),
        "join": Curve("a node joins, for each name", names, "s"),
        "stall": Curve("longest stall of any loop while a node joins", names, "s"),
        "loss": Curve("kill -9 of the owner until its names are gone, for each name", names, "s"),
        "memory-name": Curve("memory for each name", names, "B"),
        "memory-process": Curve("memory for each process", processes, "B"),
        "nodes-register": Curve("register a name, confirmed by all, p50", nodes, "s"),
        "nodes-join": Curve("one more node joins", nodes, "s"),
        "nodes-loss": Curve("kill -9 of the owner of 1,000 names until all show none", nodes, "s"),
        "nodes-idle-processor": Curve("processor for each second and link of an idle node", nodes, "s"),
        "nodes-idle-bytes": Curve("said in an idle minute for each link", nodes, "B"),
        "wire": Curve("bytes said, TLS included, for each peer", nodes, "B"),
    }


async def measure(work: Path, say: Progress) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, str]]:
    """Rows for what has a goal, all curves for the file of results, and what could not be measured, and why."""
    curves, failures = _curves(), dict[str, str]()
    samples: dict[str, list[Sample]] = {}

    async def attempt(what: str, measured: Callable[[Stage], Awaitable[Any]]) -> None:
        say(f"growth: {what}")
        try:
            async with Stage(work) as stage, asyncio.timeout(ENOUGH):
                sample = await measured(stage)
        except Exception as error:  # noqa: BLE001 - one size that is too much must not take the others with it
            failures[what] = f"{type(error).__name__}: {error}"
        else:
            if what == f"{NAMES[-1]:,} names":
                samples[f"kinfolk {LOOP}"] = [sample]

    for size in NODES:
        await attempt(f"{size} nodes", lambda stage, size=size: _nodes(stage, size, curves))  # type: ignore[misc]
    for size in PROCESSES:
        await attempt(f"{size:,} processes", lambda stage, size=size: _processes(stage, size, curves))  # type: ignore[misc]
    for size in NAMES:
        await attempt(f"{size:,} names", lambda stage, size=size: _names(stage, size, curves))  # type: ignore[misc]
    missing = {} if samples else {f"kinfolk {LOOP}": failures.get(f"{NAMES[-1]:,} names", "failed")}
    rows = results(Outcome(_MILLION, samples, missing))
    return rows, {word: _written(curve) for word, curve in curves.items()}, failures


def _written(curve: Curve) -> Mapping[str, Any]:
    series = {name: sorted(points.items()) for name, points in curve.values.items()}
    return {"title": curve.title, "size": curve.size, "unit": curve.unit, "series": series}


async def _names(stage: Stage, size: int, curves: Mapping[str, Curve]) -> dict[str, float]:
    """A table of so many names: grown, added to, joined, lost. All are one node's; a second has them, a third comes."""
    looked = await (await stage.python(LOOP)).run(ours.lookup, size, 200_000)
    curves["lookup"].add("kinfolk", size, looked["kinfolk"])
    curves["lookup"].add("dict.get", size, looked["dict"])

    (owner, peer), cookie = await casts.mesh(stage, LOOP, 2)
    both = (owner, peer)
    before = await together(*(agent.run(ours.memory) for agent in both))
    await together(owner.run(ours.hold, size), peer.run(ours.when_names, size))
    after = await together(*(agent.run(ours.memory) for agent in both))
    for series, small, large in zip(("owner", "peer"), before, after, strict=True):
        curves["memory-name"].add(series, size, (large - small) / size)

    begun, shown = await together(owner.run(ours.hold, EXTRA, size), peer.run(ours.when_names, size + EXTRA))
    curves["nowait"].add("kinfolk", size, (shown - begun) / EXTRA)
    curves["register"].add("kinfolk", size, (await owner.run(ours.register, CONFIRMED, 1))["p50"])

    total = size + EXTRA
    await together(*(agent.run(ours.when_names, total) for agent in both))
    joiner = await stage.python(LOOP)
    await joiner.run(ours.start, "joe", cookie, [])
    everybody = (owner, peer, joiner)
    await together(*(agent.run(ours.watch_stalls) for agent in everybody))
    seconds = await joiner.run(ours.arrive, await owner.run(ours.name), 2, total)
    stalls = await together(*(agent.run(ours.stalls) for agent in everybody))
    curves["join"].add("kinfolk", size, seconds / total)
    for series, (wall, own) in zip(("owner", "peer", "joiner"), stalls, strict=True):
        curves["stall"].add(series, size, wall)
        curves["stall"].add(f"{series}, of its own", size, own)

    killed = time.time()
    owner.kill()
    gone = await together(*(agent.run(ours.when_names, 0) for agent in (peer, joiner)))
    curves["loss"].add("kinfolk", size, (max(gone) - killed) / total)
    return {
        "join": seconds,
        "stall": max(wall for wall, _ in stalls),
        "stall_own": max(own for _, own in stalls),
    }


async def _processes(stage: Stage, size: int, curves: Mapping[str, Curve]) -> None:
    """So many processes that wait for a message."""
    (agent,), _ = await casts.mesh(stage, LOOP, 1)
    before = await agent.run(ours.memory)
    await agent.run(ours.spawn_idle, size)
    curves["memory-process"].add("kinfolk", size, (await agent.run(ours.memory) - before) / size)


async def _nodes(stage: Stage, size: int, curves: Mapping[str, Curve]) -> None:
    """A mesh of so many nodes: one has a program of its own and is looked at, the rest share another."""
    cookie = new_cookie()
    crowd, one = await stage.python(LOOP), await stage.python(LOOP)
    names = await crowd.run(ours.start_crowd, [f"n{number}" for number in range(size - 1)], cookie, [])
    await one.run(ours.start, "ada", cookie, names[:1])
    await together(one.run(ours.peers, size - 1), crowd.run(ours.crowd_peers, size - 1))

    curves["nodes-register"].add("kinfolk", size, (await one.run(ours.register, CONFIRMED, 1))["p50"])
    said, answered = await _traffic(one, one.run(ours.repeat_register, COUNTED))
    curves["wire"].add("a register, by its node", size, said / COUNTED / (size - 1))
    curves["wire"].add("a register, by its peer", size, answered / COUNTED / (size - 1))
    await one.run(ours.end_registered)
    await one.run(ours.owners, COUNTED)
    await crowd.run(ours.crowd_names, COUNTED)
    exits = together(one.run(ours.stop_owners, 1, 0.002), crowd.run(ours.crowd_names, 0))
    said, answered = await _traffic(one, exits)
    curves["wire"].add("an exit, by its node", size, said / COUNTED / (size - 1))
    curves["wire"].add("an exit, by its peer", size, answered / COUNTED / (size - 1))

    before = await one.run(ours.used)
    await one.run(ours.quiet, IDLE_SECONDS)
    after = await one.run(ours.used)
    curves["nodes-idle-processor"].add("kinfolk", size, (after["cpu"] - before["cpu"]) / IDLE_SECONDS / (size - 1))
    minute = (after["said"] - before["said"]) / IDLE_SECONDS * 60
    curves["nodes-idle-bytes"].add("kinfolk", size, minute / (size - 1))

    joiner = await stage.python(LOOP)
    await joiner.run(ours.start, "joe", cookie, [])
    curves["nodes-join"].add("kinfolk", size, await joiner.run(ours.arrive, names[0], size, 0))
    await joiner.run(ours.leave)
    await together(one.run(ours.peers, size - 1), crowd.run(ours.crowd_peers, size - 1))

    await one.run(ours.hold, 1_000)
    await crowd.run(ours.crowd_names, 1_000)
    killed = time.time()
    one.kill()
    curves["nodes-loss"].add("kinfolk", size, await crowd.run(ours.crowd_names, 0) - killed)


async def _traffic(one: PythonAgent, work: Awaitable[object]) -> tuple[float, float]:
    """The bytes that this program says and hears on its connections during some work."""
    before = await one.run(ours.used)
    await work
    after = await one.run(ours.used)
    return after["said"] - before["said"], after["heard"] - before["heard"]
