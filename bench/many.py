"""Orders about kinfolk, for an agent that is many nodes with names and groups in one etcd."""

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence

from bench import ours
from bench.agent import Here
from kinfolk import Node, Process

LOOK_EVERY = 0.02
"""Seconds between two looks whether something has come about: the looks must cost nothing."""


def _crowd(here: Here) -> list[Node]:
    crowd: list[Node] = here.kept["crowd"]
    return crowd


async def _until(condition: Callable[[], bool]) -> float:
    """Wait for something; the system time then."""
    while not condition():  # noqa: ASYNC110 - what others tell us sets no event
        await asyncio.sleep(LOOK_EVERY)
    return time.time()


async def start(
    here: Here, words: Sequence[str], cookie: str, url: str, heartbeat: float, idle_after: float
) -> list[str]:
    """Start nodes, all at once; their names."""
    here.kept["crowd"] = [
        Node(
            word,
            cookie=cookie,
            registry=url,
            join_timeout=120.0,
            heartbeat=heartbeat,
            down_after=5 * heartbeat,
            idle_after=idle_after,
        )
        for word in words
    ]
    await asyncio.gather(*(node.start() for node in _crowd(here)))
    return [node.name for node in _crowd(here)]


async def when_peers(here: Here, count: int) -> float:
    """Wait until each node here knows so many others."""
    return await _until(lambda: all(len(node.peers()) == count for node in _crowd(here)))


async def register(here: Here, count: int, total: int) -> list[float]:
    """Register so many names on each node, one after the other, for a process that answers calls; wait until all show.

    The system times of both.
    """

    async def hold(node: Node) -> None:
        pid = node.spawn(ours.echo)
        for number in range(count):
            await node.names.register(f"{node.name}/{number}", pid, timeout=60)

    await asyncio.gather(*map(hold, _crowd(here)))
    return [time.time(), await when_names(here, total)]


async def register_one(here: Here, name: str) -> float:
    """Register a name on the first node here; when that began."""
    node, begun = _crowd(here)[0], time.time()
    await node.names.register(name, node.spawn(ours.echo), timeout=60)
    return begun


async def when_names(here: Here, count: int) -> float:
    """Wait until each node here sees exactly so many names."""
    return await _until(lambda: all(len(node.names) == count for node in _crowd(here)))


async def guest(me: Process, heard: list[float]) -> None:
    """Is in the group, and notes when it was spoken to."""
    await me.groups.join("all")
    while True:
        await me.receive()
        heard.append(time.time())


async def join(here: Here) -> None:
    """A process of each node joins one group."""
    here.kept["heard"] = []
    for node in _crowd(here):
        node.spawn(guest, here.kept["heard"])


async def when_members(here: Here, count: int) -> float:
    """Wait until each node here sees exactly so many members."""
    return await _until(lambda: all(len(node.groups.members("all")) == count for node in _crowd(here)))


async def broadcast(here: Here) -> float:
    """The first node here speaks to the group; the system time."""
    now = time.time()
    _crowd(here)[0].groups.broadcast("all", "hello")
    return now


async def when_heard(here: Here, count: int) -> float:
    """Wait until so many messages have come to the members here; when the last one did."""
    heard: list[float] = here.kept["heard"]
    await _until(lambda: len(heard) == count)
    return max(heard, default=0.0)


async def call_some(here: Here, names: Sequence[str], each: int, seed: int) -> list[float]:
    """Each node here calls processes of a few others, one after the other; what each call took."""
    rng, took = random.Random(seed), []

    async def call(node: Node) -> None:
        for other in rng.sample([name for name in names if name != node.name], each):
            begun = time.monotonic()
            await node.call(f"{other}/0", "hi", timeout=60)
            took.append(time.monotonic() - begun)

    await asyncio.gather(*(call(node) for node in _crowd(here)))
    return took


async def sessions(here: Here) -> int:
    """Ends of sessions that are open here."""
    return sum(len(node.connected()) for node in _crowd(here))


async def when_no_sessions(here: Here) -> float:
    """Wait until no session is open here."""
    return await _until(lambda: not any(node.connected() for node in _crowd(here)))


async def state(here: Here) -> dict[str, float]:
    """What this program has."""
    sockets = 0
    for entry in os.listdir("/proc/self/fd"):
        try:
            sockets += os.readlink(f"/proc/self/fd/{entry}").startswith("socket:")
        except OSError:
            pass
    return {"memory": float(await ours.memory(here)), "sockets": float(sockets), "cpu": time.process_time()}


async def troubles(here: Here) -> dict[str, int]:
    """What was counted here that should not have been."""
    wrong = ("peers_lost", "leases_lost", "names_lost", "protocol_errors", "registry_unreadable")
    found: dict[str, int] = {}
    for node in _crowd(here):
        for name, count in {**{key: node.counters[key] for key in wrong}, **node.counters.dropped()}.items():
            if count:
                found[name] = found.get(name, 0) + count
    return found


async def when_gone(here: Here, count: int) -> float:
    """Wait until each node here sees so many members, and one peer less."""
    await when_members(here, count)
    return await when_peers(here, count - 1)
