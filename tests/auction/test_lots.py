"""What two nodes know of a lot can be put together in any order."""

from functools import reduce
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from examples.auction.lots import Bid, Lot, Receipt

# One bid may have been accepted twice, at different times: once on each side of a partition.
BIDS = st.builds(
    lambda number, at: Bid(str(number), "ada", 1 + number // 2, at), st.integers(0, 7), st.integers(0, 3).map(float)
)
LOTS = st.builds(
    Lot,
    st.just(1),
    st.just("a chair"),
    st.integers(0, 3).map(float),
    st.lists(BIDS, unique_by=lambda bid: bid.id).map(tuple),
    st.booleans(),
    st.sets(st.builds(Receipt, st.sampled_from("012"), st.sampled_from(["for ada", "for bob"]))).map(
        lambda receipts: tuple(sorted(receipts))
    ),
)


@given(st.lists(LOTS, min_size=3, max_size=3))
def test_in_whichever_order_and_however_often_what_is_known_comes_it_is_the_same_in_the_end(lots: list[Lot]):
    ends = {reduce(Lot.joined, order) for order in permutations(lots)}
    (end,) = {end.joined(lot) for end in ends for lot in lots}
    assert {bid.id for bid in end.bids} == {bid.id for lot in lots for bid in lot.bids}
    assert list(end.bids) == sorted(end.bids, key=lambda bid: (-bid.amount, bid.at, bid.id))


def test_of_two_equal_bids_the_earlier_wins():
    late, early = Bid("a", "ada", 5, 2.0), Bid("b", "bob", 5, 1.0)
    both = Lot(1, "a chair", 9.0, (late,)).joined(Lot(1, "a chair", 9.0, (early,)))
    assert both.best == early and both.accepted("a") == late and both.accepted("c") is None


def test_of_two_winners_on_both_sides_of_a_partition_the_better_one_has_the_receipt():
    amy, zed = Bid("1", "Amy", 900, 1.0), Bid("2", "Zed", 5, 1.0)
    here = Lot(1, "a chair", 9.0, (amy,), closed=True, receipts=(Receipt("1", "goes to Amy for 900"),))
    there = Lot(1, "a chair", 9.0, (zed,), closed=True, receipts=(Receipt("2", "goes to Zed for 5"),))
    assert (here.receipt, there.receipt) == ("goes to Amy for 900", "goes to Zed for 5")
    assert here.joined(there).receipt == there.joined(here).receipt == "goes to Amy for 900"
    unwritten = Lot(1, "a chair", 9.0, (amy,), closed=True)
    assert there.joined(unwritten).receipt == "", "so it is written anew"
