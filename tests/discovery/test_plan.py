"""Whom to dial and whom to forget, case by case."""

import pytest

from kinfolk.discovery.plan import reconcile
from kinfolk.ids import Seed

A, B, C = (Seed.parse(f"10.0.0.{number}:4370") for number in (1, 2, 3))
NAMED = Seed.parse("ada@10.0.0.1:4370")
NOW = 100.0


def at(*seeds: Seed):
    return {seed.address for seed in seeds}


@pytest.mark.parametrize(
    ("sought", "found", "wanted", "connected", "dials", "forgets", "kept"),
    [
        pytest.param({}, set(), at(), at(), (), (), {}, id="nothing"),
        pytest.param({}, {A, B}, at(), at(), (A, B), (), {A: NOW, B: NOW}, id="all are new"),
        pytest.param({}, {A}, at(A), at(), (), (), {A: NOW}, id="the mesh dials it already"),
        pytest.param({A: 95.0}, {A}, at(A), at(A), (), (), {A: NOW}, id="connected"),
        pytest.param({A: 95.0}, {A, B}, at(A), at(A), (B,), (), {A: NOW, B: NOW}, id="one comes"),
        pytest.param({A: 95.0, B: 95.0}, {A}, at(A, B), at(A), (), (B,), {A: NOW}, id="one goes"),
        pytest.param({A: 95.0}, set(), at(A), at(A), (), (A,), {A: 95.0}, id="gone, but there is a session"),
        pytest.param({A: 95.0}, {A}, at(), at(), (), (), {A: 95.0}, id="it has left, and rests"),
        pytest.param({A: 40.0}, {A}, at(), at(), (A,), (), {A: NOW}, id="it has rested"),
        pytest.param({A: 95.0}, {NAMED}, at(A), at(A), (), (), {NAMED: NOW}, id="now known by name"),
        pytest.param({C: 1.0}, {A}, at(), at(), (A,), (C,), {A: NOW}, id="another in its place"),
    ],
)
def test_reconcile(sought, found, wanted, connected, dials, forgets, kept):
    steps = reconcile(sought, found, wanted, connected, NOW)
    assert (steps.dials, steps.forgets, steps.sought) == (dials, forgets, kept)


def test_what_has_gone_is_forgotten_again_when_its_session_has_ended():
    steps = reconcile({A: 95.0}, set(), at(A), at(A), NOW)
    steps = reconcile(steps.sought, set(), at(A), at(), NOW)
    assert steps.forgets == (A,) and steps.sought == {}
    assert reconcile(steps.sought, {A}, at(), at(), NOW).dials == (A,), "when it comes back it need not rest"
