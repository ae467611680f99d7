"""The processes of the auction house, on several nodes within one program."""

import asyncio
from functools import partial

import pytest

from examples.auction.house import (
    AUCTIONEER,
    BOOKS,
    CATALOGUE,
    CLERKS,
    Keep,
    Look,
    Open,
    Place,
    ask,
    auction,
    bidders,
    known_lots,
    open_house,
)
from examples.auction.lots import Bid, Lot, Receipt
from kinfolk import Node, Process, Refused
from tests.node.nodes import Nodes, until


async def house(nodes: Nodes, *words: str, seconds: float = 60.0) -> list[Node]:
    """Nodes of a house whose first lots are open, and who all stand by for them."""
    found = await nodes.mesh(*words, strict_messages=True)
    for node in found:
        await open_house(node, seconds)
    for node in found:
        await until(partial(stands_by_for_all, node))
    return found


def stands_by(node: Node) -> int:
    """For how many auctions this node stands by, or runs them."""
    children = [child for each in node.supervisors.values() for child in each.infos()]
    return sum(child.runs == "Auction" and child.state in ("standby", "running") for child in children)


def stands_by_for_all(node: Node) -> bool:
    """Whether it does for the first lots."""
    return stands_by(node) == len(CATALOGUE)


def runner(nodes: list[Node], number: int) -> Node:
    """The node that runs an auction."""
    pid = nodes[0].names.whereis(auction(number))
    assert pid is not None
    (found,) = [node for node in nodes if node.name == pid.node]
    return found


async def lot(node: Node, number: int = 1) -> Lot:
    """What the books of this node know of a lot."""
    return {lot.number: lot for lot in await node.call((BOOKS, node.name), Look())}[number]


async def test_a_bid_on_any_node_is_in_the_books_of_all_when_it_is_accepted(nodes: Nodes):
    ada, bob = await house(nodes, "ada", "bob")
    accepted = await ask(bob, auction(1), Place("a", "bob", 10))
    assert accepted.best is not None and accepted.best.who == "bob"
    assert await lot(ada) == await lot(bob) == accepted
    with pytest.raises(Refused, match="bob offers 10: bid more"):
        await ask(ada, auction(1), Place("b", "ada", 10))
    assert await ask(ada, auction(1), Place("a", "bob", 10)) == accepted, "the same bid again is the same bid"
    for who, amount in (("bob", 20), ("ada", 10)):
        with pytest.raises(Refused, match="another bid has this id"):
            await ask(ada, auction(1), Place("a", who, amount))
    assert await lot(ada) == accepted


async def test_whoever_watches_hears_of_each_bid_wherever_it_is_made(nodes: Nodes):
    ada, bob = await house(nodes, "ada", "bob")
    heard: list[int] = []

    async def watch(me: Process) -> None:
        await me.groups.join(bidders(1))
        while True:
            news = await me.receive(Lot)
            heard.append(news.best.amount if news.best else 0)

    for node in (ada, bob):
        node.spawn(watch)
    await until(lambda: all(len(node.groups.members(bidders(1))) == 2 for node in (ada, bob)))
    await ask(ada, auction(1), Place("a", "ada", 1))
    await ask(bob, auction(1), Place("b", "bob", 2))
    await until(lambda: len(heard) == 4)
    assert sorted(heard) == [1, 1, 2, 2]


async def test_an_auction_whose_node_dies_goes_on_with_all_that_was_accepted(nodes: Nodes):
    found = await house(nodes, "ada", "bob", "carl")
    before = await ask(found[0], auction(1), Place("a", "ada", 10))
    dies = runner(found, 1)
    lives = [node for node in found if node is not dies]
    dies.abandon()
    after = await ask(lives[0], auction(1), Place("b", "bob", 11))
    assert after.bids[1:] == before.bids and len(after.bids) == 2


async def test_an_auction_moves_with_its_calls_when_its_node_drains(nodes: Nodes):
    found = await house(nodes, "ada", "bob", "carl")
    drains = runner(found, 1)
    stays = next(node for node in found if node is not drains)
    accepted: list[str] = []

    async def bid() -> None:
        for amount in range(1, 200):
            # Not `ask`, which would try again: no call by name is lost.
            found = await stays.call(auction(1), Place(str(amount), "ada", amount))
            accepted.extend(bid.id for bid in found.bids[:1])
            await asyncio.sleep(0)

    bidding = asyncio.create_task(bid())
    await until(lambda: len(accepted) > 10)
    assert await drains.drain()
    assert runner([node for node in found if node is not drains], 1) is not drains
    await bidding
    assert accepted == [str(amount) for amount in range(1, 200)]
    assert {bid.id for bid in (await lot(stays)).bids} == set(accepted)


async def test_the_auctioneer_closes_in_time_and_the_winner_gets_a_receipt_although_clerks_die(nodes: Nodes):
    ada, bob = await house(nodes, "ada", "bob")
    await until(lambda: len(ada.groups.members(CLERKS)) == 4)
    opened = await bob.call(AUCTIONEER, Open("A chair", 1.0))
    assert opened.number == len(CATALOGUE) + 1
    await ask(bob, auction(opened.number), Place("a", "bob", 7))
    clerks = set(ada.groups.members(CLERKS))
    for pid in clerks:
        ada.kill(pid)
    await until(lambda: len(set(ada.groups.members(CLERKS)) - clerks) == 4)

    async def receipt() -> str:
        return (await lot(ada, opened.number)).receipt

    async with asyncio.timeout(15):
        while not await receipt():  # noqa: ASYNC110 - what is in the books of another process sets no event
            await asyncio.sleep(0.05)
    assert (await receipt()).startswith("A chair goes to bob for 7. Written on ")
    with pytest.raises(Refused, match="over"):
        await ask(ada, auction(opened.number), Place("b", "ada", 8))


async def test_a_receipt_is_written_anew_when_a_better_bid_of_the_other_side_of_a_partition_is_known(nodes: Nodes):
    (ada,) = await house(nodes, "ada")
    amy, zed = Bid("1", "Amy", 900, 1.0), Bid("2", "Zed", 5, 1.0)
    written = Receipt("2", "A chair goes to Zed for 5")
    for bids, receipts in (((zed,), (written,)), ((amy,), ())):
        await ada.call((BOOKS, ada.name), Keep(Lot(9, "A chair", 9.0, bids, closed=True, receipts=receipts)))

    async with asyncio.timeout(15):
        while not (await lot(ada, 9)).receipt:  # noqa: ASYNC110 - what is in the books of another process sets no event
            await asyncio.sleep(0.05)
    assert (await lot(ada, 9)).receipt.startswith("A chair goes to Amy for 900. Written on ada")


async def test_a_node_that_comes_later_learns_all_lots_and_stands_by(nodes: Nodes):
    ada, bob = await house(nodes, "ada", "bob")
    await ask(ada, auction(2), Place("a", "ada", 3))
    carl = await nodes.start("carl", ada)
    await open_house(carl, 60.0)
    await until(partial(stands_by_for_all, carl))
    assert await lot(carl, 2) == await lot(bob, 2)
    assert len(await known_lots(carl)) == len(CATALOGUE), "it opens no lots of its own"
