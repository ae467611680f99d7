"""``python -m bench.crowd [--nodes N]``: many nodes with names and groups in one etcd, several in each program.

What is measured: how long it takes until all know all, how many sessions there are and when, what an idle node costs,
and how long what the dead had is still seen. An etcd of one member is started for it. Prints one JSON object.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from bench import many
from bench.stage import PythonAgent, Stage, together
from kinfolk.cookie import new_cookie
from kinfolk.demo import etcd


class Crowd:
    """The programs, and what they are asked."""

    def __init__(self, agents: list[PythonAgent], say: Callable[[str], None]) -> None:
        self.agents = agents
        self.measured: dict[str, Any] = {}
        self._say = say

    async def each(self, order: Callable[..., Any], *arguments: object) -> list[Any]:
        """Give all of them an order."""
        return await together(*(agent.run(order, *arguments) for agent in self.agents))

    async def timed(self, what: str, done: Awaitable[list[float]], begun: float | None = None) -> None:
        """Note how long something took until all had seen it."""
        begun = time.time() if begun is None else begun
        self.note(what, max(await done) - begun)

    def note(self, what: str, value: Any) -> None:
        """Something was measured."""
        self.measured[what] = round(value, 4) if isinstance(value, float) else value
        self._say(f"{what}: {self.measured[what]}")

    async def sessions(self, what: str) -> None:
        """Note how many sessions there are."""
        self.note(what, sum(await self.each(many.sessions)) // 2)


async def run(
    nodes: int,
    programs: int,
    names: int,
    *,
    heartbeat: float,
    idle_after: float,
    idle_seconds: float = 20.0,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure; what was measured, by what it is called.

    Args:
        nodes, programs, names: how many, how many OS processes they share, and how many names each registers.
        heartbeat, idle_after: settings of the nodes; their lease is a little longer than five heartbeats.
        idle_seconds: for how long it looks what idle nodes cost.
        say: told what is measured, as it comes.
    """
    with tempfile.TemporaryDirectory(prefix="crowd-") as work:
        server = etcd.Server(Path(work))
        server.start()
        try:
            server.wait_until_ready()
            async with Stage(Path(work)) as stage:
                crowd = Crowd([await stage.python() for _ in range(programs)], say)
                await _measure(crowd, nodes, names, server, (heartbeat, idle_after), idle_seconds)
                return crowd.measured
        finally:
            server.stop()


async def _measure(
    crowd: Crowd, nodes: int, names: int, server: etcd.Server, settings: tuple[float, float], idle_seconds: float
) -> None:
    programs, total = len(crowd.agents), nodes * names
    crowd.note("nodes", nodes)
    crowd.note("programs", programs)
    crowd.note("sessions of a full mesh", nodes * (nodes - 1) // 2)
    empty = await crowd.each(many.state)
    words = [[f"n{number}" for number in range(first, nodes, programs)] for first in range(programs)]
    cookie, begun = new_cookie(), time.time()
    started = await together(
        *(
            agent.run(many.start, some, cookie, server.url, *settings)
            for agent, some in zip(crowd.agents, words, strict=True)
        )
    )
    everybody = [name for some in started for name in some]
    crowd.note("s until all have started", time.time() - begun)
    await crowd.timed("s until all know all nodes", crowd.each(many.when_peers, nodes - 1), begun)

    before = await crowd.each(many.state)
    begun = time.time()
    seen = await crowd.each(many.register, names, total)
    crowd.note("s until all names were registered", max(registered for registered, _ in seen) - begun)
    crowd.note(f"s until all see all {total:,} names", max(shown for _, shown in seen) - begun)
    after = await crowd.each(many.state)
    crowd.note("us of processor for each name that a node sees", 1e6 * _per_node(after, before, "cpu", nodes) / total)
    await crowd.each(many.join)
    await crowd.timed("s until all see a member of each node in one group", crowd.each(many.when_members, nodes))
    await crowd.sessions("sessions, all names and members known")

    before = await crowd.each(many.state)
    crowd.note("MiB of memory for each node", _per_node(before, empty, "memory", nodes) / 2**20)
    crowd.note("sockets for each node", _per_node(before, empty, "sockets", nodes))
    await asyncio.sleep(idle_seconds)
    after = await crowd.each(many.state)
    crowd.note(
        "ms of processor for each second of an idle node", 1000 * _per_node(after, before, "cpu", nodes) / idle_seconds
    )
    begun = await crowd.agents[0].run(many.register_one, "one more")
    await crowd.timed("s until all see one more name", crowd.each(many.when_names, total + 1), begun)
    crowd.note("MiB of etcd", _resident(server) / 2**20)

    took = [
        each
        for some in await together(
            *(agent.run(many.call_some, everybody, 3, number) for number, agent in enumerate(crowd.agents))
        )
        for each in some
    ]
    crowd.note("calls, each to another of 3 nodes", len(took))
    crowd.note("ms for such a call, median", 1000 * sorted(took)[len(took) // 2])
    await crowd.sessions("sessions after that")
    begun = await crowd.agents[0].run(many.broadcast)
    heard = await together(
        *(agent.run(many.when_heard, len(some)) for agent, some in zip(crowd.agents, words, strict=True))
    )
    crowd.note("s until a broadcast has reached a member of each node", max(heard) - begun)
    await crowd.sessions("sessions after that as well")
    held = await crowd.each(many.state)
    crowd.note("MiB of memory for each node, with these", _per_node(held, empty, "memory", nodes) / 2**20)
    await crowd.timed("s until all sessions have ended", crowd.each(many.when_no_sessions))
    for trouble in await crowd.each(many.troubles):
        assert not trouble, trouble

    killed, gone = time.time(), len(words[-1])
    crowd.agents.pop().kill()
    await crowd.timed(
        f"s until the names of {gone} killed nodes are gone",
        crowd.each(many.when_names, total + 1 - gone * names),
        killed,
    )
    await crowd.timed("... and their members, and they themselves", crowd.each(many.when_gone, nodes - gone), killed)


def _per_node(after: list[dict[str, float]], before: list[dict[str, float]], what: str, nodes: int) -> float:
    return sum(late[what] - early[what] for late, early in zip(after, before, strict=True)) / nodes


def _resident(server: etcd.Server) -> int:
    pid = server.members[0].pid
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.crowd", description=__doc__)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--programs", type=int, default=10, help="in how many programs they are")
    parser.add_argument("--names", type=int, default=10, help="names that each registers")
    parser.add_argument("--heartbeat", type=float, default=5.0, help="seconds")
    parser.add_argument("--idle-after", type=float, default=20.0, help="seconds without a word until a session ends")
    options = parser.parse_args(arguments)
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begun:5.0f} s] {text}", file=sys.stderr, flush=True)

    measured = asyncio.run(
        run(
            options.nodes,
            options.programs,
            options.names,
            heartbeat=options.heartbeat,
            idle_after=options.idle_after,
            say=say,
        )
    )
    print(json.dumps(measured, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
