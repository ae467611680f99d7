"""Looking a name up: the registry of every node is a dictionary of its own."""

from bench import ours, stores
from bench.harness import LIMIT, Goal, Measure, Sample, Workload
from bench.stage import PythonAgent, Stage, free_port, listening
from bench.workloads import casts

LOOKUPS = 200_000
SMALL, LARGE = 100, 100_000


async def kinfolk(stage: Stage) -> Measure:
    """`Names.whereis`, among few names and among many, and the dictionary beside it in the same program."""
    agent = await stage.python()

    async def run() -> Sample:
        few, many = [await agent.run(ours.lookup, size, LOOKUPS) for size in (SMALL, LARGE)]
        allocated = await agent.run(ours.lookup_allocations, 10_000)
        return {
            "each": few["kinfolk"],
            "dict": few["dict"],
            "each_100k": many["kinfolk"],
            "dict_100k": many["dict"],
            "allocated": allocated,
        }

    return run


async def erlang_global(stage: Stage) -> Measure:
    """`global:whereis_name`."""
    (node,) = await casts.apart(stage, 1)

    async def run() -> Sample:
        return {"each": (await node.run("lookup", LOOKUPS))["global"]}

    return run


async def erlang_ets(stage: Stage) -> Measure:
    """`ets:lookup`: what syn's lookup begins with."""
    (node,) = await casts.apart(stage, 1)

    async def run() -> Sample:
        return {"each": (await node.run("lookup", LOOKUPS))["ets"]}

    return run


async def redis(stage: Stage) -> Measure:
    """A read from redis, both ends on one core."""
    client = await redis_client(stage)

    async def run() -> Sample:
        return {"each": (await client.run(stores.redis_lookup, 1000))["p50"]}

    return run


async def etcd(stage: Stage) -> Measure:
    """A linearizable read from etcd."""
    client = await etcd_client(stage)

    async def run() -> Sample:
        return {"each": (await client.run(stores.etcd_lookup, 500))["p50"]}

    return run


async def redis_client(stage: Stage) -> PythonAgent:
    """A redis that keeps nothing, and a client."""
    port = free_port()
    await stage.program(
        "redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1", packages="redis-server"
    )
    await listening(port)
    client = await stage.python()
    await client.run(stores.redis_connect, port)
    return client


async def etcd_client(stage: Stage) -> PythonAgent:
    """An etcd of one member, and a client."""
    port, peer = free_port(), free_port()
    client_url, peer_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    await stage.program(
        *("etcd", "--data-dir", str(stage.work / "etcd"), "--log-level", "error"),
        *("--listen-client-urls", client_url, "--advertise-client-urls", client_url),
        *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
        *("--initial-cluster", f"default={peer_url}"),
        packages="etcd-server",
    )
    await listening(port)
    client = await stage.python()
    await client.run(stores.etcd_connect, port)
    return client


WORKLOADS = [
    Workload(
        "lookup",
        "look a name up",
        {"each": "s", "each_100k": "s", "allocated": "B"},
        {
            "kinfolk asyncio": kinfolk,
            "erlang global": erlang_global,
            "erlang ets": erlang_ets,
            "redis": redis,
            "etcd": etcd,
        },
        [
            Goal("each", "<= 2", "kinfolk", "dict", called="dict.get"),
            Goal("each_100k", "<= 2", "kinfolk", "dict_100k", called="dict.get, 100k names"),
            Goal("each_100k", "<= 1.2", "kinfolk", "each", called="own, 100 names"),
            Goal("allocated", "<= 1", LIMIT, limit=64, called="64 bytes in all"),
        ],
    )
]
