"""Timers: each key is due once, at the last moment it was set to, in order of time."""

from hypothesis import given
from hypothesis import strategies as st

from kinfolk.core.timers import Timers

keys = st.integers(0, 5)
moments = st.integers(0, 20)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), keys, moments),
        st.tuples(st.just("cancel"), keys, st.just(0)),
        st.tuples(st.just("due"), st.just(0), moments),
    ),
    max_size=60,
)


@given(steps)
def test_timers_are_a_dictionary_of_keys_and_moments(steps):
    timers, model = Timers(), {}
    for what, key, moment in steps:
        if what == "set":
            timers.set(key, moment)
            model[key] = moment
        elif what == "cancel":
            timers.cancel(key)
            model.pop(key, None)
        else:
            fired = list(timers.due(moment))
            assert [when for _, when in fired] == sorted(when for when in model.values() if when <= moment)
            assert dict(fired) == {k: when for k, when in model.items() if when <= moment}
            model = {k: when for k, when in model.items() if when > moment}
        assert timers.next() == min(model.values(), default=None)
        assert {k for k in range(6) if k in timers} == set(model)


def test_keys_due_at_one_moment_come_in_the_order_they_were_set():
    timers = Timers()
    for key in "bca":
        timers.set(key, 1.0)
    assert [key for key, _ in timers.due(1.0)] == ["b", "c", "a"]


def test_a_key_set_again_moves():
    timers = Timers()
    timers.set("a", 1.0)
    timers.set("a", 3.0)
    assert list(timers.due(2.0)) == []
    timers.set("a", 2.0)
    assert list(timers.due(2.0)) == [("a", 2.0)]
    assert timers.next() is None


def test_a_key_may_be_set_or_cancelled_while_others_come_due():
    timers = Timers()
    for key in "abc":
        timers.set(key, 1.0)
    seen: list[object] = []
    for fired, _ in timers.due(1.0):
        seen.append(fired)
        timers.cancel("b")
        if fired == "a":
            timers.set("a", 2.0)
    assert seen == ["a", "c"]
    assert timers.next() == 2.0


def test_cancelling_what_is_not_there_changes_nothing():
    timers = Timers()
    timers.cancel("a")
    assert timers.next() is None and list(timers.due(9.0)) == []


def test_keys_of_several_kinds_live_together():
    timers = Timers()
    timers.set(("order", 1), 1.0)
    timers.set("beat", 1.0)
    timers.set(("dial", None), 1.0)
    assert len(list(timers.due(1.0))) == 3


def test_timers_set_and_cancelled_over_and_over_do_not_pile_up():
    timers = Timers()
    timers.set("far", 1e9)
    for order in range(10_000):
        timers.set(order, 1e6 + order)
        timers.cancel(order)
    for _ in range(10_000):
        timers.set("beat", 1e8)
    assert len(timers._heap) < 200
    assert [key for key, _ in timers.due(1e9)] == ["beat", "far"]
