"""What two nodes know of a lot can be put together in any order."""

from functools import reduce
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from examples.auction.lots import Bid, Lot

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
    st.sampled_from(["", "for ada", "for bob"]),
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
    assert both.best == early and both.has(late)
