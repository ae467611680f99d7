"""Large messages, and small ones beside them."""

from bench import bare, ours
from bench.harness import LIMIT, Goal, Measure, Opening, Sample, Workload
from bench.stage import Stage
from bench.workloads import casts

SIZE, COUNT = 10 * 1024 * 1024, 10


def kinfolk(loop: str) -> Opening:
    """Large messages one after the other, each answered with its size, and small calls all the while."""

    async def opening(stage: Stage) -> Measure:
        agent = await casts.pair(stage, loop)

        async def run() -> Sample:
            return await agent.run(ours.large, SIZE, COUNT)

        return run

    return opening


def bare_tls(loop: str) -> Opening:
    """The same over a bare protocol, with nothing beside it."""

    async def opening(stage: Stage) -> Measure:
        agent = await casts.bare_pair(stage, loop)

        async def run() -> Sample:
            return {"each": await agent.run(bare.large, SIZE, COUNT)}

        return run

    return opening


def erlang(*, tls: bool) -> Opening:
    """The same with a `gen_server`."""

    async def opening(stage: Stage) -> Measure:
        here, there = await casts.erlangs(stage, 2, tls=tls)
        await there.run("serve")

        async def run() -> Sample:
            sample: Sample = await here.run("large", there.name, SIZE, COUNT)
            return sample

        return run

    return opening


WORKLOADS = [
    Workload(
        "large",
        "messages of 10 MiB, each answered; and small calls meanwhile",
        {"each": "s", "p99_small": "s"},
        {
            "kinfolk asyncio": kinfolk("asyncio"),
            "kinfolk uvloop": kinfolk("uvloop"),
            "bare TLS asyncio": bare_tls("asyncio"),
            "bare TLS uvloop": bare_tls("uvloop"),
            "erlang TLS": erlang(tls=True),
            "erlang TCP": erlang(tls=False),
        },
        [Goal("each", "<= 1", "erlang TLS"), Goal("p99_small", "<= 1", LIMIT, limit=0.005, called="5 ms")],
        rounds=3,
    )
]
