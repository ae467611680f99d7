"""The auction house: what runs on every node of it.

    auction/N    an `Auction` for each lot: a singleton, so one in the cluster; all bids go through it
    auctioneer   the `Auctioneer`, a singleton as well: opens lots, and closes them when their time is up
    books        the `Books`, one on every node: a copy of every lot
    clerks       a pool of `clerk` processes on every node: they write the receipts
    bidders/N    the group of those who watch lot N: whatever happens to it is broadcast there

A bid is accepted when it is in the books of every node that is connected. So a node may die at any moment: whoever runs
the auction next reads there what had been accepted. And when a node leaves in good order, its auctions move with their
state, and no call is lost.
"""

import asyncio
import random
from typing import TypeVar

import msgspec

from examples.auction.lots import Bid, Lot, Receipt
from kinfolk import (
    CallFailed,
    CallTimeout,
    Child,
    KinfolkError,
    NameUnknown,
    Node,
    NodeLost,
    NoProcess,
    PeerDown,
    PeerUp,
    Pid,
    Process,
    Refused,
    Replies,
    Request,
    Server,
    Supervision,
    Supervisor,
)

R = TypeVar("R")

AUCTIONEER = "auctioneer"
BOOKS = "books"
CLERKS = "clerks"
CATALOGUE = ("A brass telescope", "A chess table", "The moon, on paper")
GONE = (NameUnknown, NoProcess, NodeLost, CallFailed)
"""What a call raises when whoever had the name is gone, or has just moved."""


def auction(number: int) -> str:
    """The name of the auction of a lot."""
    return f"auction/{number}"


def bidders(number: int) -> str:
    """The group of those who watch a lot."""
    return f"bidders/{number}"


def now(node: Node) -> float:
    """Seconds since 1970, by the clock of the node: in a simulated cluster it is not that of the machine."""
    return node.wall_clock() / 1e9


async def ask(node: Node, name: str, request: Replies[R], patience: float = 5.0) -> R:
    """Call whoever has the name; wait for it and ask again while it moves or starts anew. So ask nothing that does harm
    when it is done twice.

    Raises:
        Refused: the answer is no.
        TimeoutError: nobody has answered in all this time.
    """
    async with asyncio.timeout(patience):
        while True:
            await node.names.wait_for(name)
            try:
                return await node.call(name, request, timeout=None)
            except Refused:
                raise
            except GONE:
                await asyncio.sleep(0.05)


# --- the books ---


class Keep(Request[Lot], frozen=True, tag="auction.keep"):
    """Write this down; the answer is all that you know of the lot then."""

    lot: Lot


class Look(Request[list[Lot]], frozen=True, tag="auction.look"):
    """What do you know of all lots?"""


class Tell(msgspec.Struct, frozen=True, tag="auction.tell"):
    """Let these books have all that you know."""

    books: Pid


class Books(Server):
    """What this node knows of all lots; for each, the node stands by to run its auction."""

    async def init(self, auctions: Supervision) -> None:
        self.lots: dict[int, Lot] = {}
        self.auctions = auctions
        self.node.names.local.register(BOOKS, self.me.pid)
        self.me.monitor_node()  # of those that are connected it hears at once

    async def nodes(self, message: PeerUp | PeerDown) -> None:
        if isinstance(message, PeerUp):  # it is new, or a partition has healed, or we are new: it may know more
            self.me.send((BOOKS, message.node), Tell(self.me.pid))

    async def tell(self, message: Tell) -> None:
        for lot in self.lots.values():
            self.me.send(message.books, Keep(lot))

    async def keep(self, message: Keep) -> Lot:
        number = message.lot.number
        if number not in self.lots:
            self.me.spawn(stand_by, self.auctions, number)  # which takes a while: the auction asks these books
        known = self.lots.get(number, message.lot)
        self.lots[number] = known.joined(message.lot)
        return self.lots[number]

    async def look(self, message: Look) -> list[Lot]:
        return list(self.lots.values())


async def stand_by(_: Process, auctions: Supervision, number: int) -> None:
    """Run the auction of a lot here when no other node does."""
    if auction(number) not in {child.id for child in auctions.children()}:  # books that were lost know it anew
        await auctions.start_child(Child(Auction, number, name=auction(number), singleton=True))


async def ask_all_books(node: Node, request: Replies[R]) -> list[R]:
    """Ask the books of every node that is connected; those of a node that just comes or goes do not answer."""

    async def ask_books(where: str) -> list[R]:
        try:
            return [await node.call((BOOKS, where), request, timeout=2.0)]
        except (*GONE, CallTimeout):
            return []

    answers = await asyncio.gather(*map(ask_books, (node.name, *node.peers())))
    return [found for answer in answers for found in answer]


async def known_lots(node: Node) -> dict[int, Lot]:
    """All that any books know, by the numbers of the lots."""
    lots: dict[int, Lot] = {}
    for found in await ask_all_books(node, Look()):
        for lot in found:
            lots[lot.number] = lot.joined(lots.get(lot.number, lot))
    return lots


# --- the auctions ---


class Place(Request[Lot], frozen=True, tag="auction.place"):
    """Bid for the lot. May be asked again with the same id."""

    id: str
    who: str
    amount: int


class Close(Request[Lot], frozen=True, tag="auction.close"):
    """The time is up; or, with a receipt, let the winner have it."""

    receipt: Receipt | None = None


class Auction(Server):
    """One lot under the hammer. Its state goes with it when its node drains, and is in the books when its node dies."""

    async def init(self, number: int) -> None:
        self.lot = (await known_lots(self.node))[number]
        self._tell()

    async def place(self, message: Place) -> Lot:
        bid = Bid(message.id, message.who, message.amount, now(self.node))
        known = self.lot.accepted(bid.id)
        if known is not None:
            if (known.who, known.amount) != (bid.who, bid.amount):
                raise Refused("another bid has this id: make up a new one")
            return self.lot
        if self.lot.closed or bid.at >= self.lot.closes_at:
            raise Refused("the auction is over")
        if self.lot.best is not None and bid.amount <= self.lot.best.amount:
            raise Refused(f"{self.lot.best.who} offers {self.lot.best.amount}: bid more")
        return await self._learn(bids=(bid,))

    async def close(self, message: Close) -> Lot:
        return await self._learn(closed=True, receipts=() if message.receipt is None else (message.receipt,))

    async def hand_over(self) -> Lot:
        return self.lot

    async def take_over(self, state: Lot) -> None:  # of the one that ran elsewhere; or of a rival, after a partition
        await self._learn(bids=state.bids, closed=state.closed, receipts=state.receipts)

    async def _learn(self, **news: object) -> Lot:
        """Nobody hears of it before it is in the books."""
        self.lot = self.lot.joined(msgspec.structs.replace(self.lot, **news))
        await ask_all_books(self.node, Keep(self.lot))
        self._tell()
        return self.lot

    def _tell(self) -> None:
        self.me.groups.broadcast(bidders(self.lot.number), self.lot)


# --- the auctioneer and the clerks ---


class Open(Request[Lot], frozen=True, tag="auction.open"):
    """Sell this, for so many seconds."""

    title: str
    seconds: float


class Tick(msgspec.Struct, frozen=True):
    """Look at the clock."""


class Write(Request[str], frozen=True, tag="auction.write"):
    """Write the receipt."""

    lot: Lot


class Auctioneer(Server):
    """Opens lots, and closes them in time. There is one in the cluster, so no two lots get one number."""

    async def init(self, seconds: float) -> None:
        if not await known_lots(self.node):
            for title in CATALOGUE:
                await self.open(Open(title, seconds))
        self.send_interval(0.5, Tick())

    async def open(self, message: Open) -> Lot:
        number = max(await known_lots(self.node), default=0) + 1
        lot = Lot(number, message.title, now(self.node) + message.seconds)
        await ask_all_books(self.node, Keep(lot))
        return lot

    async def tick(self, message: Tick) -> None:
        for lot in (await known_lots(self.node)).values():
            try:
                if not lot.closed and now(self.node) >= lot.closes_at:
                    lot = await ask(self.node, auction(lot.number), Close())
                if lot.closed and lot.best is not None and not lot.receipt:
                    clerk = random.choice(self.me.groups.members(CLERKS))
                    receipt = Receipt(lot.best.id, await self.me.call(clerk, Write(lot)))
                    await ask(self.node, auction(lot.number), Close(receipt))
            except (KinfolkError, TimeoutError, IndexError):
                continue  # somebody has just gone: the next tick comes soon


async def clerk(me: Process) -> None:
    """Write receipts. A clerk who dies is replaced, and whoever waits for a receipt asks another."""
    await me.groups.join(CLERKS)
    async for call in me.calls(Write):
        await asyncio.sleep(0.2)  # the work
        lot = call.body.lot
        assert lot.best is not None, "only what has been sold is written"
        call.reply(
            f"{lot.title} goes to {lot.best.who} for {lot.best.amount}. Written on {me.node.name.partition('@')[0]}"
        )


async def open_house(node: Node, seconds: float) -> None:
    """Run on this node what every node of the house runs. Its first lots are open for so many seconds."""
    auctions = await node.supervise([])  # the books add them
    clerks = Supervisor([Child(clerk, id=f"clerk-{number}") for number in (1, 2)])
    await node.supervise(
        [
            Child(Books, auctions, id=BOOKS),
            Child(clerks, id=CLERKS),
            Child(Auctioneer, seconds, name=AUCTIONEER, singleton=True),
        ]
    )
