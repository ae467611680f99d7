"""Orders about etcd and redis as registries of names: create if absent, over their asyncio clients."""

from typing import Any

from bench.agent import Here
from bench.timing import Timing, call_times, in_turn


def _names(here: Here) -> Any:
    """Names that were never used."""
    here.kept["next"] = here.kept.get("next", 0) + 1
    return f"name {here.kept['next']}"


async def redis_connect(here: Here, port: int) -> None:
    """Connect to a server."""
    import redis.asyncio

    here.kept["redis"] = redis.asyncio.Redis(host="127.0.0.1", port=port)
    await here.kept["redis"].ping()


async def redis_register(here: Here, count: int, callers: int) -> float:
    """``SET name value NX`` by so many callers: a second."""
    client = here.kept["redis"]
    return await in_turn(lambda: client.set(_names(here), "pid", nx=True), count, callers)


async def redis_lookup(here: Here, count: int) -> Timing:
    """Reads of one name."""
    client = here.kept["redis"]
    await client.set("looked up", "pid")
    return await call_times(lambda: client.get("looked up"), count)


async def etcd_connect(here: Here, port: int) -> None:
    """Connect to a server, and take a lease."""
    import aetcd

    client = here.kept["etcd"] = aetcd.Client(host="127.0.0.1", port=port)
    await client.connect()
    here.kept["lease"] = await client.lease(600)


async def etcd_register(here: Here, count: int, callers: int) -> float:
    """A transaction for each, put if it was never created, by so many callers: a second."""
    client, lease = here.kept["etcd"], here.kept["lease"]

    async def take() -> None:
        name = _names(here).encode()
        absent = [client.transactions.create(name) == 0]
        won, _ = await client.transaction(absent, [client.transactions.put(name, b"pid", lease=lease)], [])
        assert won

    return await in_turn(take, count, callers)


async def etcd_lookup(here: Here, count: int) -> Timing:
    """Linearizable reads of one name."""
    client = here.kept["etcd"]
    await client.put(b"looked up", b"pid")
    return await call_times(lambda: client.get(b"looked up"), count)
