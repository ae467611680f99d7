"""What is sold, and for how much: values alone.

What is known of a lot only ever grows, so two nodes that know different things of it can put them together, in
whichever order (`Lot.joined`). That is what makes everything else simple: no copy is wrong, one can only be behind.
"""

from msgspec import Struct


class Bid(Struct, frozen=True):
    """Somebody offers so much. The bidder makes up the id: the same bid, sent twice, is one."""

    id: str
    who: str
    amount: int
    at: float


class Receipt(Struct, frozen=True, order=True):
    """What the winner gets to read, and by which bid it has won."""

    bid: str
    text: str


class Lot(Struct, frozen=True, tag="auction.lot"):
    """All that is known of one auction: the bids, best first; whether it is over; and the receipts that were written.

    There are several receipts when both sides of a partition have closed it, each with a winner of its own.
    """

    number: int
    title: str
    closes_at: float
    bids: tuple[Bid, ...] = ()
    closed: bool = False
    receipts: tuple[Receipt, ...] = ()

    @property
    def best(self) -> Bid | None:
        """The bid that wins if no other comes."""
        return self.bids[0] if self.bids else None

    @property
    def receipt(self) -> str:
        """What the winner gets to read; empty if nothing has been written yet for the bid that wins."""
        return next((receipt.text for receipt in self.receipts if self.best and receipt.bid == self.best.id), "")

    def accepted(self, bid_id: str) -> Bid | None:
        """The bid with this id, if it has been accepted before."""
        return next((bid for bid in self.bids if bid.id == bid_id), None)

    def joined(self, other: "Lot") -> "Lot":
        """What both of two know of the same lot."""
        latest_first = sorted((*self.bids, *other.bids), key=lambda bid: bid.at, reverse=True)
        bids = {bid.id: bid for bid in latest_first}.values()
        return Lot(
            self.number,
            min(self.title, other.title),
            min(self.closes_at, other.closes_at),
            tuple(sorted(bids, key=lambda bid: (-bid.amount, bid.at, bid.id))),
            self.closed or other.closed,
            tuple(sorted({*self.receipts, *other.receipts})),
        )
