"""The auction house on a simulated network that is parted while both sides bid."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from examples.auction.house import BOOKS, CATALOGUE, Look, Place, ask, auction, known_lots, open_house
from kinfolk import Node, Refused
from kinfolk.testing import cluster
from kinfolk.testing.plugin import KinSim


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait, in virtual time."""
    async with asyncio.timeout(120):
        while not await condition():  # noqa: ASYNC110 - conditions of other nodes set no event
            await asyncio.sleep(0.05)


async def bids(node: Node) -> set[str]:
    """The ids of the bids for lot 1 in the books of this node."""
    found = await node.call((BOOKS, node.name), Look())
    return {bid.id for lot in found for bid in lot.bids if lot.number == 1}


async def parted_while_both_sides_bid() -> None:
    """Part three nodes, bid on both sides, and let them come together."""
    async with cluster(3) as nodes:
        for node in nodes:
            await open_house(node, 3600.0)

        async def all_know_all() -> bool:
            lots = [await node.call((BOOKS, node.name), Look()) for node in nodes]
            return all(len(found) == len(CATALOGUE) for found in lots)

        await until(all_know_all)
        alone, other = nodes[0], nodes[1]
        await ask(other, auction(1), Place("before", "ada", 1), patience=60)
        nodes.partition(alone)

        async def each_side_has_one() -> bool:
            here, there = alone.names.whereis(auction(1)), other.names.whereis(auction(1))
            return here is not None and there is not None and here.node == alone.name != there.node

        await until(each_side_has_one)
        await ask(alone, auction(1), Place("here", "ada", 5), patience=60)
        await ask(other, auction(1), Place("there", "bob", 7), patience=60)
        assert await bids(alone) == {"before", "here"} and await bids(other) == {"before", "there"}
        await asyncio.sleep(nodes.rng.random())
        nodes.heal()
        await nodes.settled()

        async def nothing_is_lost() -> bool:
            lot = await ask(alone, auction(1), Place("here", "ada", 5), patience=60)  # again: it tells what it knows
            known = [{bid.id for bid in lot.bids}, *[await bids(node) for node in nodes]]
            return all(ids == {"before", "here", "there"} for ids in known)

        await until(nothing_is_lost)
        with pytest.raises(Refused, match="bob offers 7"):
            await ask(alone, auction(1), Place("late", "ada", 6), patience=60)
        last = await ask(other, auction(1), Place("last", "ada", 8), patience=60)
        assert [bid.amount for bid in last.bids] == [8, 7, 5, 1]
        assert (await known_lots(alone))[1] == last


@pytest.mark.parametrize("seeds", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_what_both_sides_have_accepted_is_put_together_when_they_meet(kin_sim: KinSim, seeds: int) -> None:
    kin_sim(parted_while_both_sides_bid, seeds=seeds)
