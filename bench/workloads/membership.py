"""Nodes that come and go, and processes that do: how long it takes until every node shows the same."""

import time

from bench import ours
from bench.harness import LIMIT, Goal, Measure, Opening, Sample, Workload
from bench.stage import Stage, names_of, together
from bench.workloads import casts

NODES = 3
OWNED = 10_000


def kinfolk_join(loop: str, count: int) -> Opening:
    """A fourth node joins three that hold the names, a third each; with the longest stall of any of the four loops."""

    async def opening(stage: Stage) -> Measure:
        agents, cookie = await casts.mesh(stage, loop, NODES)
        first = 0
        for number, agent in enumerate(agents):
            share = count // NODES + (number < count % NODES)
            await agent.run(ours.hold, share, first)
            first += share
        await together(*(agent.run(ours.when_names, count) for agent in agents))
        joiner = await stage.python(loop)
        seed = await agents[0].run(ours.name)

        async def run() -> Sample:
            everybody = [*agents, joiner]
            await joiner.run(ours.start, "joe", cookie, [])
            await together(*(agent.run(ours.watch_stalls) for agent in everybody))
            seconds = await joiner.run(ours.arrive, seed, NODES, count)
            stalls = await together(*(agent.run(ours.stalls) for agent in everybody))
            await joiner.run(ours.leave)
            await together(*(agent.run(ours.peers, NODES - 1) for agent in agents))
            return {
                "each": seconds,
                "stall": max(wall for wall, _ in stalls),
                "stall_own": max(own for _, own in stalls),
            }

        return run

    return opening


def pg_join(count: int, *, tls: bool) -> Opening:
    """The same with `pg`: groups of one member."""

    async def opening(stage: Stage) -> Measure:
        *three, joiner = await casts.apart(stage, NODES + 1, tls=tls)
        await three[0].run("connect", names_of(three[1:]))
        first = 1
        for number, node in enumerate(three):
            share = count // NODES + (number < count % NODES)
            await node.run("pg_hold", share, first)
            first += share
        await together(*(node.run("when_size", "bench", count) for node in three))

        async def run() -> Sample:
            seconds = await joiner.run("pg_arrive", names_of(three), count)
            await joiner.run("pg_leave", names_of(three))
            return {"each": seconds}

        return run

    return opening


async def global_join(stage: Stage) -> Measure:
    """The same with `global`, which resolves name by name; once, since it takes so long."""

    async def run() -> Sample:
        async with Stage(stage.work) as inner:
            holder, joiner = await casts.apart(inner, 2)
            await holder.run("global_hold", OWNED)
            return {"each": await joiner.run("global_join", [holder.name], OWNED)}

    return run


def kinfolk_loss(loop: str) -> Opening:
    """The owner of the names is killed with SIGKILL; until the two others show none of them."""

    async def opening(stage: Stage) -> Measure:
        others, cookie = await casts.mesh(stage, loop, NODES - 1)
        seeds = await together(*(agent.run(ours.name) for agent in others))

        async def run() -> Sample:
            owner = await stage.python(loop)
            await owner.run(ours.start, "eve", cookie, seeds)
            await owner.run(ours.hold, OWNED)
            await together(*(agent.run(ours.when_names, OWNED) for agent in others))
            begun = time.time()
            owner.kill()
            gone = await together(*(agent.run(ours.when_names, 0) for agent in others))
            await stage.end(owner)
            return {"gone": max(gone) - begun}

        return run

    return opening


def pg_loss(*, tls: bool) -> Opening:
    """The same with `pg`."""

    async def opening(stage: Stage) -> Measure:
        others = await casts.erlangs(stage, NODES - 1, tls=tls)

        async def run() -> Sample:
            owner = await stage.erlang("eve", tls=tls)
            await owner.run("connect", names_of(others))
            await owner.run("pg_hold", OWNED, 1)
            await together(*(node.run("when_size", "bench", OWNED) for node in others))
            begun = time.time()
            owner.kill()
            gone = await together(*(node.run("when_size", "bench", 0) for node in others))
            await stage.end(owner)
            return {"gone": max(gone) - begun}

        return run

    return opening


async def global_loss(stage: Stage) -> Measure:
    """The same with `global`; once."""

    async def run() -> Sample:
        async with Stage(stage.work) as inner:
            owner, other = await casts.apart(inner, 2)
            await owner.run("global_hold", OWNED)
            await other.run("global_join", [owner.name], OWNED)
            begun = time.time()
            owner.kill()
            return {"gone": await other.run("when_size", "global_names", 0) - begun}

    return run


def kinfolk_exits(loop: str) -> Opening:
    """The owners of a name each exit, until all three nodes show none."""

    async def opening(stage: Stage) -> Measure:
        agents, _ = await casts.mesh(stage, loop, NODES)

        async def run() -> Sample:
            await agents[0].run(ours.owners, OWNED)
            await together(*(agent.run(ours.when_names, OWNED) for agent in agents))
            begun, *gone = await together(
                agents[0].run(ours.stop_owners), *(agent.run(ours.when_names, 0) for agent in agents[1:])
            )
            return {"rate": OWNED / (max(gone) - begun)}

        return run

    return opening


def pg_exits(*, tls: bool) -> Opening:
    """The same with `pg`."""

    async def opening(stage: Stage) -> Measure:
        first, *others = await casts.erlangs(stage, NODES, tls=tls)

        async def run() -> Sample:
            return {"rate": await first.run("pg_exits", names_of(others), OWNED)}

        return run

    return opening


_JOIN = {"each": "s", "stall": "s", "stall_own": "s"}
_STALL = Goal("stall", "<= 1", LIMIT, limit=0.020, called="20 ms")

WORKLOADS = [
    Workload(
        "join10k",
        "a 4th node joins 3 with 10,000 names",
        _JOIN,
        {
            "kinfolk asyncio": kinfolk_join("asyncio", 10_000),
            "kinfolk uvloop": kinfolk_join("uvloop", 10_000),
            "erlang pg": pg_join(10_000, tls=True),
            "erlang pg TCP": pg_join(10_000, tls=False),
            "erlang global": global_join,
        },
        [_STALL],
        few={"erlang global": 1},
        cold=("erlang global",),
    ),
    Workload(
        "join100k",
        "a 4th node joins 3 with 100,000 names",
        _JOIN,
        {
            "kinfolk asyncio": kinfolk_join("asyncio", 100_000),
            "kinfolk uvloop": kinfolk_join("uvloop", 100_000),
            "erlang pg": pg_join(100_000, tls=True),
            "erlang pg TCP": pg_join(100_000, tls=False),
        },
        [Goal("each", "<= 0.5", "erlang pg"), _STALL],
        rounds=3,
    ),
    Workload(
        "loss",
        "kill -9 of the owner of 10,000 names, until they are gone everywhere",
        {"gone": "s"},
        {
            "kinfolk asyncio": kinfolk_loss("asyncio"),
            "kinfolk uvloop": kinfolk_loss("uvloop"),
            "erlang pg": pg_loss(tls=True),
            "erlang pg TCP": pg_loss(tls=False),
            "erlang global": global_loss,
        },
        [Goal("gone", "<= 1", "erlang pg"), Goal("gone", "<= 1", LIMIT, limit=0.1, called="100 ms")],
        few={"erlang global": 1},
        cold=("erlang global",),
    ),
    Workload(
        "exits",
        "10,000 owners of a name exit, until no node shows one",
        {"rate": "/s"},
        {
            "kinfolk asyncio": kinfolk_exits("asyncio"),
            "kinfolk uvloop": kinfolk_exits("uvloop"),
            "erlang pg": pg_exits(tls=True),
            "erlang pg TCP": pg_exits(tls=False),
        },
        [Goal("rate", ">= 1.5", "erlang pg")],
    ),
]
