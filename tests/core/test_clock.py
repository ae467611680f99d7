"""The hybrid clock: stamps always grow, follow the wall clock when they can, and wild clocks move nobody else's."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from kinfolk.core.clock import MAX_AHEAD_MS, Clock

walls = st.integers(0, 2**47 - 1)
sane_walls = st.integers(0, 2**46)
stamps = st.integers(0, 2**63 - 1)


@given(st.lists(st.integers(-(2**60), 2**60), min_size=1))
def test_each_stamp_is_later_than_the_one_before_whatever_the_wall_clock_does(readings):
    clock = Clock()
    given_out = [clock.tick(wall) for wall in readings]
    assert all(earlier < later for earlier, later in itertools.pairwise(given_out))


@given(sane_walls, st.integers(0, MAX_AHEAD_MS), st.integers(0, 2**16 - 1))
def test_what_we_stamp_after_hearing_of_a_claim_counts_as_later(wall, ahead, counter):
    clock = Clock()
    seen = (wall + ahead) << 16 | counter
    clock.observe(seen, wall)
    assert clock.tick(wall) > seen


def test_a_stamp_is_the_wall_clock_as_long_as_that_moves_forward():
    clock = Clock()
    assert clock.tick(1000) == 1000 << 16
    assert clock.tick(1000) == 1000 << 16 | 1
    assert clock.tick(1001) == 1001 << 16
    assert clock.tick(900) == 1001 << 16 | 1


@given(st.integers(1, 2**46), stamps)
def test_a_stamp_too_far_ahead_does_not_move_our_clock(wall, stamp):
    clock = Clock()
    clock.observe(stamp, wall)
    if stamp >> 16 > wall + MAX_AHEAD_MS:
        assert clock.tick(wall) == wall << 16
    else:
        assert clock.tick(wall) == max(wall << 16, stamp + 1)


def test_exactly_one_minute_ahead_still_counts():
    at_the_bound, beyond = Clock(), Clock()
    at_the_bound.observe(MAX_AHEAD_MS << 16, 0)
    beyond.observe((MAX_AHEAD_MS + 1) << 16, 0)
    assert at_the_bound.tick(0) == MAX_AHEAD_MS << 16 | 1
    assert beyond.tick(0) == 1


def test_an_earlier_stamp_does_not_move_our_clock_back():
    clock = Clock()
    first = clock.tick(1000)
    clock.observe(5, 1000)
    assert clock.tick(0) == first + 1


def test_more_stamps_in_a_millisecond_than_its_counter_holds_go_on_growing():
    clock = Clock()
    clock.observe(1000 << 16 | 2**16 - 1, 1000)
    assert clock.tick(1000) == 1001 << 16


@given(walls)
def test_a_stamp_fits_63_bits(wall):
    assert 0 < Clock().tick(wall) < 2**63
    assert 0 < Clock().tick(wall * 2**20 + 1) < 2**63


readings = st.integers(-(2**62), 2**62) | st.sampled_from([-1, 0, 1, 2**47 - 1, 2**47, 2**63, 10**30])
EVENTS = st.lists(st.tuples(st.booleans(), readings, stamps | st.integers(2**63 - 2**18, 2**63 - 1)), max_size=30)


def lived(clock: Clock, events: list[tuple[bool, int, int]]) -> list[int]:
    """What a clock gives out that ticks, or hears of a stamp, at each of these readings of the wall clock."""
    given_out = []
    for ticks, wall, stamp in events:
        if ticks:
            given_out.append(clock.tick(wall))
        else:
            clock.observe(stamp, wall)
    return given_out


@given(EVENTS)
def test_whatever_is_heard_and_whatever_the_time_stamps_fit_63_bits_and_never_go_back(events):
    given_out = lived(Clock(), events)
    assert all(0 <= stamp < 2**63 for stamp in given_out)
    assert all(earlier < later or later == 2**63 - 1 for earlier, later in itertools.pairwise(given_out))


@given(EVENTS)
def test_no_stamp_of_others_moves_a_clock_more_than_a_minute_past_its_own_time(events):
    walls = [min(max(wall, 0), 2**47 - 1) for _, wall, _ in events]
    for stamp in lived(Clock(), events):
        assert stamp <= (max(walls) + MAX_AHEAD_MS + 1 << 16) + len(events)


def test_at_the_end_of_all_stamps_the_last_one_is_given_again():
    clock = Clock()
    clock.observe(2**63 - 2, 2**62)
    assert [clock.tick(0) for _ in range(3)] == [2**63 - 1] * 3
