"""Random schedules of the model: with all rules nothing breaks, and without any one of them something does.

What runs here is a small part, always the same; `python -m tests.model 10000 2` runs more, with another seed.
"""

import pytest

from tests.model.guards import ALL, GUARDS
from tests.model.network import NETWORKS, Simulation

SCHEDULES = 200

MUST_HAPPEN = {
    "calm": {"confirmed", "confirmed, not waited for", "taken", "taken, told by message", "timed out", "released"},
    "strangers": {"confirmed", "taken", "timed out", "resyncs"},
    "faults": {"resumes", "replaced", "back while swept", "lost", "resyncs"},
    "apart": {"resumes", "replaced", "lost"},
    "moves": {"moved", "moved within a node", "stayed"},
    "torn": {"moved", "stayed", "stayed, in doubt"},
    "flaps": {"resumes", "back while swept", "trimmed", "resyncs"},
    "deaths": {"confirmed", "taken"},
    "corruption": {"corrupted", "diverged", "resyncs"},
}
"""A network in which this never happens shows nothing about it."""


@pytest.mark.parametrize("network", NETWORKS)
def test_no_schedule_breaks_a_promise(network: str):
    happened = set[str]()
    for number in range(SCHEDULES):
        simulation = Simulation(network, f"1/{number}")
        violations = simulation.run()
        assert not violations, f"schedule {number} of {network!r} shows {sorted(violations)}"
        happened |= simulation.counts.keys()
    assert MUST_HAPPEN[network] <= happened


@pytest.mark.parametrize("guard", GUARDS)
def test_without_one_rule_some_schedule_breaks_a_promise(guard: str):
    network, rule = GUARDS[guard]
    assert any(Simulation(network, f"1/{number}", ALL - {guard}).run() for number in range(SCHEDULES)), (
        f"no schedule of {network!r} misses that {rule}"
    )


def test_a_seed_determines_everything():
    first, second = (Simulation("flaps", "7") for _ in range(2))
    assert first.run() == second.run()
    assert (first.counts, first.entries) == (second.counts, second.entries)
    assert first.entries != Simulation("flaps", "8").entries
