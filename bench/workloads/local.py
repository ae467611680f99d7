"""Messages, calls and processes within a node."""

from bench import bare, ours, peers
from bench.harness import Goal, Measure, Opening, Sample, Workload
from bench.stage import Stage
from bench.workloads import casts

CASTS, CALLS, SPAWNS, BURST = 200_000, 20_000, 20_000, 100


def kinfolk(loop: str) -> Opening:
    """A node of ours, alone."""

    async def opening(stage: Stage) -> Measure:
        (agent,), _ = await casts.mesh(stage, loop, 1)

        async def run() -> Sample:
            call = await agent.run(ours.local_call, CALLS)
            return {
                "cast": await agent.run(ours.local_cast, CASTS, BURST),
                "call": call,
                "spawn": await agent.run(ours.local_spawn, SPAWNS),
            }

        return run

    return opening


def bare_mailbox(loop: str) -> Opening:
    """A deque and a future in place of a mailbox, a task in place of a process."""

    async def opening(stage: Stage) -> Measure:
        agent = await stage.python(loop)

        async def run() -> Sample:
            return {
                "cast": await agent.run(bare.local_cast, CASTS, BURST),
                "call": await agent.run(bare.local_call, CALLS),
                "spawn": await agent.run(bare.local_spawn, SPAWNS),
            }

        return run

    return opening


async def erlang(stage: Stage) -> Measure:
    """Processes of Erlang."""
    (node,) = await casts.apart(stage, 1)

    async def run() -> Sample:
        return {
            "cast": await node.run("local_cast", CASTS),
            "call": await node.run("local_call", CALLS),
            "spawn": await node.run("local_spawn", SPAWNS),
        }

    return run


async def pykka(stage: Stage) -> Measure:
    """Actors in threads."""
    agent = await stage.python()

    async def run() -> Sample:
        return {
            "cast": await agent.run(peers.pykka_cast, CASTS // 4),
            "call": await agent.run(peers.pykka_call, CALLS // 4),
        }

    return run


async def xoscar(stage: Stage) -> Measure:
    """Actors of one pool."""
    agent = await stage.python()
    await agent.run(peers.xoscar_serve)

    async def run() -> Sample:
        return {"call": await agent.run(peers.xoscar_call, CALLS // 4)}

    return run


async def lapinbeam(stage: Stage) -> Measure:
    """Actors of one node."""
    agent = await stage.python()
    await agent.run(peers.lapinbeam_start, "ada", [])

    async def run() -> Sample:
        return {
            "cast": await agent.run(peers.lapinbeam_cast, CASTS // 4),
            "call": await agent.run(peers.lapinbeam_call, CALLS // 4),
        }

    return run


WORKLOADS = [
    Workload(
        "local",
        "within a node: messages, calls, processes that end at once",
        {"cast": "/s", "call": "s", "spawn": "s"},
        {
            "kinfolk asyncio": kinfolk("asyncio"),
            "kinfolk uvloop": kinfolk("uvloop"),
            "bare asyncio": bare_mailbox("asyncio"),
            "bare uvloop": bare_mailbox("uvloop"),
            "pykka": pykka,
            "xoscar": xoscar,
            "lapinbeam": lapinbeam,
            "erlang": erlang,
        },
        [
            Goal("cast", ">= 0.5", "bare"),
            Goal("call", "<= 2", "bare"),
            Goal("call", "<= 0.5", "pykka"),
            Goal("call", "<= 0.333", "xoscar"),
            Goal("spawn", "<= 2.5", "bare"),
        ],
    )
]
