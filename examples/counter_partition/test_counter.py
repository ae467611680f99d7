"""Whatever the network does, every copy of the counter comes to the sum of what was added.

pytest examples/counter_partition -k fixed              passes
pytest examples/counter_partition -k first              fails, and prints the command that runs it again
"""

import asyncio
from functools import partial

import pytest

from examples.counter_partition.counter import main
from kinfolk.testing import Cluster, cluster
from kinfolk.testing.plugin import KinSim


async def add_some(nodes: Cluster) -> int:
    """Add something here and there; the sum."""
    total = 0
    for amount in range(1, 9):
        node = nodes.rng.choice(nodes)
        await node.call(("counter", node.name), ["add", amount])
        total += amount
        await asyncio.sleep(0.01 * nodes.rng.random())
    return total


async def part_and_heal(nodes: Cluster) -> None:
    """Part one node from the others for a while."""
    await asyncio.sleep(0.05 * nodes.rng.random())
    nodes.partition(nodes.rng.choice(nodes))
    await asyncio.sleep(10.0)
    nodes.heal()


@pytest.mark.parametrize("version", ["first", "fixed"])
def test_every_copy_comes_to_the_sum(kin_sim: KinSim, version: str) -> None:
    async def scenario() -> None:
        async with cluster(3, main=partial(main, remembers=version == "fixed")) as nodes:
            await asyncio.sleep(0.1)
            total, _ = await asyncio.gather(add_some(nodes), part_and_heal(nodes))
            await nodes.settled()
            await asyncio.sleep(2.0)  # virtual seconds, in which everything is told again
            for node in nodes:
                assert await node.call(("counter", node.name), "total") == total

    kin_sim(scenario)
