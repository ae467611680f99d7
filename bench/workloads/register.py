"""Registering names: confirmed by every peer, one caller or many; and unconfirmed, until every node shows them."""

from bench import bare, ours, peers, stores
from bench.harness import Goal, Measure, Opening, Sample, Workload
from bench.stage import ONE_CORE, Stage, names_of, together
from bench.workloads import casts
from bench.workloads.lookup import etcd_client, redis_client

NODES = 3
UNCONFIRMED = 10_000
EXTRA = 5_000


def kinfolk(loop: str, count: int, callers: int, core: int | None) -> Opening:
    """Three nodes; one of them registers."""

    async def opening(stage: Stage) -> Measure:
        (first, *_), _ = await casts.mesh(stage, loop, NODES, core=core)

        async def run() -> Sample:
            return await first.run(ours.register, count, callers)

        return run

    return opening


def erlang(count: int, callers: int, core: int | None, *, tls: bool) -> Opening:
    """The same with `global`."""

    async def opening(stage: Stage) -> Measure:
        first, *_ = await casts.erlangs(stage, NODES, tls=tls, core=core)

        async def run() -> Sample:
            sample: Sample = await first.run("global_register", count, callers)
            return sample

        return run

    return opening


def etcd(count: int, callers: int) -> Opening:
    """The same with etcd: one member."""

    async def opening(stage: Stage) -> Measure:
        client = await etcd_client(stage)

        async def run() -> Sample:
            return {"rate": await client.run(stores.etcd_register, count, callers)}

        return run

    return opening


def redis(count: int, callers: int) -> Opening:
    """The same with redis."""

    async def opening(stage: Stage) -> Measure:
        client = await redis_client(stage)

        async def run() -> Sample:
            return {"rate": await client.run(stores.redis_register, count, callers)}

        return run

    return opening


def bare_call(loop: str) -> Opening:
    """A call over TLS of a few lines: the least that a confirmation by one peer can cost."""

    async def opening(stage: Stage) -> Measure:
        client = await casts.bare_pair(stage, loop, core=ONE_CORE)

        async def run() -> Sample:
            return {"p50": (await client.run(bare.times, 1000))["p50"]}

        return run

    return opening


def nowait(loop: str) -> Opening:
    """Unconfirmed names of one process, until all three nodes show them; then the same in large tables."""

    async def opening(stage: Stage) -> Measure:
        agents, _ = await casts.mesh(stage, loop, NODES)

        async def shown(count: int, first: int) -> float:
            begun, *ends = await together(
                agents[0].run(ours.hold, count, first),
                *(agent.run(ours.when_names, first + count) for agent in agents[1:]),
            )
            return count / (max(ends) - begun)

        async def run() -> Sample:
            rate = await shown(UNCONFIRMED, 0)
            await agents[0].run(ours.let_go)
            await together(*(agent.run(ours.when_names, 0) for agent in agents))
            await shown(1_000, 0)
            small = await shown(EXTRA, 1_000)
            await shown(100_000 - 1_000 - EXTRA, 1_000 + EXTRA)
            large = await shown(EXTRA, 100_000)
            await agents[0].run(ours.let_go)
            await together(*(agent.run(ours.when_names, 0) for agent in agents))
            return {"rate": rate, "rate_1k": small, "rate_100k": large}

        return run

    return opening


def pg(*, tls: bool) -> Opening:
    """`pg:join`, a group for each name."""

    async def opening(stage: Stage) -> Measure:
        first, *others = await casts.erlangs(stage, NODES, tls=tls)

        async def run() -> Sample:
            return {"rate": await first.run("pg_join", names_of(others), UNCONFIRMED)}

        return run

    return opening


async def lapinbeam(stage: Stage) -> Measure:
    """Names that nobody confirms, over TCP, until the two others know the last."""
    agents = [await stage.python() for _ in range(NODES)]
    names: list[str] = []
    for agent, word in zip(agents, casts.WORDS, strict=False):
        names.append(await agent.run(peers.lapinbeam_start, word, list(names)))
    runs = iter(range(1000))

    async def run() -> Sample:
        turn, count = next(runs), 2_000
        begun, *ends = await together(
            agents[0].run(peers.lapinbeam_register, count, turn),
            *(agent.run(peers.lapinbeam_knows, count, turn) for agent in agents[1:]),
        )
        return {"rate": count / (max(ends) - begun)}

    return run


def _both(many: int, few: int, callers: int, core: int | None = None) -> dict[str, Opening]:
    """Ours and those that confirm as well; each registers as many as it can in a second or so."""
    return {
        "kinfolk asyncio": kinfolk("asyncio", many, callers, core),
        "kinfolk uvloop": kinfolk("uvloop", many, callers, core),
        "erlang global": erlang(few, callers, core, tls=True),
        "erlang global TCP": erlang(few, callers, core, tls=False),
        "etcd": etcd(4 * few, callers),
        "redis": redis(10 * few, callers),
    }


WORKLOADS = [
    Workload(
        "register",
        "register a name, confirmed; 1 caller, 3 nodes on one core",
        {"rate": "/s", "p50": "s"},
        {
            **_both(1_500, 200, 1, ONE_CORE),
            "bare TLS asyncio": bare_call("asyncio"),
            "bare TLS uvloop": bare_call("uvloop"),
        },
        [Goal("rate", ">= 4", "erlang global"), Goal("p50", "<= 2.5", "bare TLS")],
    ),
    Workload(
        "register16",
        "register names, confirmed; 16 callers, 3 nodes",
        {"rate": "/s"},
        _both(8_000, 320, 16),
        [Goal("rate", ">= 40", "erlang global"), Goal("rate", ">= 5", "etcd")],
    ),
    Workload(
        "nowait",
        "10,000 unconfirmed names, until all 3 nodes show them",
        {"rate": "/s", "rate_100k": "/s"},
        {
            "kinfolk asyncio": nowait("asyncio"),
            "kinfolk uvloop": nowait("uvloop"),
            "erlang pg": pg(tls=True),
            "erlang pg TCP": pg(tls=False),
            "lapinbeam TCP": lapinbeam,
        },
        [
            Goal("rate", ">= 2", "erlang pg"),
            Goal("rate_100k", ">= 0.8", "kinfolk", "rate_1k", called="own, 1,000 names"),
        ],
        rounds=3,
    ),
]
