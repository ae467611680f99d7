"""``python -m tests.soak --minutes N``: five OS processes, work and faults all the time, on both event loops.

Each loop gets half of the time, and a fleet of its own. In every round the nodes churn names, join and leave groups,
broadcast, call each other by name and start and kill processes; and one fault happens: a node is killed and started
again, links are cut, dropped, stalled or slowed, a node is stopped. After each round everything is healed and all nodes
must agree, every name must answer, and nobody may have logged a mishap. What the processes take of memory, descriptors
and tasks is looked at after the first round and after the last, in the same nodes where they have lived through it.
"""

import argparse
import asyncio
import json
import platform
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.system.chaos import Network
from tests.system.fleet import Fleet, Nursery, Raised, Worker, agreed, resident, states

WORDS = ("ada", "bob", "carl", "dora", "eve")
NAMES = 40
GROUPS = 6
WORK = 6.0
"""Seconds of work, and of the fault, in a round."""
HEARTBEAT = 0.25
LASTING = WORDS[:2]
"""Those that are never killed: in them, what grows is seen."""


class Soak:
    """One fleet on one kind of event loop."""

    def __init__(self, fleet: Fleet, network: Network, loop: str, chance: random.Random) -> None:
        self.fleet, self.network, self.loop, self.chance = fleet, network, loop, chance
        self.workers: dict[str, Worker] = {}
        self.holders: dict[str, str] = {}
        self.spawned: dict[str, list[str]] = {}
        self.done: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    async def enter(self, word: str) -> Worker:
        """A node, joined to whoever is there."""
        worker = await self.fleet.enter(word, KINFOLK_TEST_LOOP=self.loop)
        join = [other.name for other in self.workers.values() if other.word != word and other.runs]
        await worker.ask("start", name=worker.name, join=join, heartbeat=HEARTBEAT, join_timeout=2.0)
        self.workers[word] = worker
        self.holders[word], self.spawned[word] = await worker.ask("spawn"), []
        return worker

    async def run(self, seconds: float) -> dict[str, object]:
        """Go on for so long. What was done, and what the lasting nodes took at the start and at the end."""
        for word in WORDS:
            await self.enter(word)
        await agreed(self.workers.values())
        ending = time.monotonic() + seconds
        before: dict[str, dict[str, int]] = {}
        while time.monotonic() < ending or not before:
            await self.round()
            self.done["rounds"] += 1
            if not before:
                before = await self.census()
            memory = {word: f"{resident(self.workers[word]) / 2**20:.0f} MiB" for word in LASTING}
            print(f"  {self.loop}: {memory} {dict(self.done)}", flush=True)
        return {
            "loop": self.loop,
            "done": dict(self.done),
            "faults": dict(self.faults),
            "start": before,
            "end": await self.census(),
        }

    async def census(self) -> dict[str, dict[str, int]]:
        """What the lasting nodes take, once nothing happens any more."""
        await asyncio.sleep(8 * HEARTBEAT)
        return {
            word: {**await self.workers[word].ask("census"), "memory": resident(self.workers[word])} for word in LASTING
        }

    async def round(self) -> None:
        """Work, with one fault in the middle; then everything is whole again."""
        until = time.monotonic() + WORK
        users = [asyncio.create_task(self.use(word, until)) for word in WORDS]
        await asyncio.sleep(self.chance.random() * WORK / 3)
        stopped = await self.fault()
        await asyncio.gather(*users)
        self.network.heal()
        for worker in stopped:
            worker.signal(signal.SIGCONT)
        for word in WORDS:
            if not self.workers[word].runs:
                await self.enter(word)
        everybody = list(self.workers.values())
        table = await agreed(everybody, within=60)
        for name, pid in table.items():
            asked = self.chance.choice(everybody)
            assert await asked.ask("call", target=name, request=["echo", 1]) == [pid, 1], name
        for state in await states(everybody):
            for bad in ("protocol_errors", "registry_divergence_total"):
                assert state.counters.get(bad, 0) == 0, (state.name, bad)

    async def use(self, word: str, until: float) -> None:
        """What the program of one node does, until then or its end."""
        own = random.Random(f"{word} {self.done['rounds']} {self.loop}")
        worker = self.workers[word]
        holder = self.holders[word]
        spawned = self.spawned[word]
        while time.monotonic() < until and worker.runs:
            name, group = f"name/{own.randrange(NAMES)}", f"group/{own.randrange(GROUPS)}"
            verb, arguments = own.choice(
                list[tuple[str, dict[str, Any]]](
                    [
                        ("register", {"name": name, "pid": holder, "timeout": 1.0, "on_lost": "message"}),
                        ("unregister", {"name": name, "timeout": 1.0}),
                        ("call", {"target": name, "request": ["echo", 1], "timeout": 1.0}),
                        ("call", {"target": name, "request": ["echo", "x" * 200_000], "timeout": 1.0}),
                        ("broadcast", {"group": group, "message": "hello"}),
                        ("join", {"group": group, "pid": own.choice(spawned or [holder])}),
                        ("spawn", {"remember": False}),
                        ("kill", {"pid": spawned[-1]}) if spawned else ("spawn", {"remember": False}),
                    ]
                )
            )
            try:
                value = await worker.ask(verb, **arguments)
            except Raised as raised:
                self.done[f"{verb}: {raised.error}"] += 1
            except (ConnectionError, TimeoutError):
                await asyncio.sleep(0.1)  # it was killed or stopped
            else:
                self.done[verb] += 1
                if verb == "spawn":
                    spawned.append(value)
                elif verb == "kill":
                    spawned.pop()
        with suppress(ConnectionError, TimeoutError):  # killed, or stopped: then it has them in the next round
            while spawned:
                await worker.ask("kill", pid=spawned[-1])
                spawned.pop()

    async def fault(self) -> list[Worker]:
        """Let one thing go wrong. Returns who is stopped."""
        chance, stopped = self.chance, list[Worker]()
        some = chance.sample(WORDS, chance.randrange(1, 3))
        others = [word for word in WORDS if word not in some]
        kind = chance.choice(["none", "kill", "part", "cut", "stall", "drop", "freeze", "slow", "stop"])
        match kind:
            case "kill":
                await self.workers[chance.choice([word for word in WORDS if word not in LASTING])].kill()
            case "part":
                self.network.part(some, others)
            case "cut":
                await self.network.cut(some, others)
            case "stall":
                self.network.stall(some, others[:1])
            case "drop":
                await self.network.drop(some, others)
            case "freeze":
                self.network.freeze(some, others[:1])
            case "slow":
                self.network.slow(0.02)
            case "stop":
                stopped.append(self.workers[some[0]])
                stopped[0].signal(signal.SIGSTOP)
            case _:
                pass
        self.faults[kind] += 1
        return stopped


async def soak(minutes: float, seed: int, loops: Sequence[str]) -> list[dict[str, object]]:
    """One fleet after the other."""
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="kinfolk-soak-") as made:
        directory = Path(made)
        nursery = Nursery(directory)
        try:
            for loop in loops:
                (directory / loop).mkdir()
                async with Fleet(directory / loop, nursery) as fleet, Network(fleet, WORDS) as network:
                    run = Soak(fleet, network, loop, random.Random(seed))
                    results.append(await run.run(60 * minutes / len(loops)))
        finally:
            nursery.close()
    return results


def growth(result: dict[str, object]) -> list[str]:
    """What has grown that must not: each as a line."""
    start, end = result["start"], result["end"]
    assert isinstance(start, dict) and isinstance(end, dict), "run() gives them"
    return [
        f"{word}: {what} went from {count} to {end[word][what]}"
        for word, counts in start.items()
        for what, count in counts.items()
        if end[word][what] > (1.5 * count + 32 * 2**20 if what == "memory" else count + 8)
    ]


def main() -> None:
    """Exit with 1 if something has grown; a violation ends it with its traceback."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    loops = ["asyncio", "uvloop"] if find_spec("uvloop") else ["asyncio"]
    if len(loops) == 1:
        print("uvloop is not installed: asyncio alone", flush=True)
    results = asyncio.run(soak(given.minutes, given.seed, loops))
    print(json.dumps({"python": platform.python_version(), "minutes": given.minutes, "results": results}, indent=1))
    grown = [f"{result['loop']}: {line}" for result in results for line in growth(result)]
    print("\n".join(grown) or "nothing has grown")
    sys.exit(bool(grown))


if __name__ == "__main__":
    main()
