"""Links, monitors, exits and messages on top of simulated sessions: no promise is broken; without a rule, one is."""

from collections import Counter

import pytest

from tests.simulation.relatives import RELATIVES, SOUND, Relatives
from tests.simulation.relatives_mutants import MUTANTS

SCHEDULES = {"quiet": 1200, "torn": 600}
CHUNK = 100
ENOUGH_FOR_A_MUTANT = 300


@pytest.mark.parametrize(
    ("network", "first"), [(network, first) for network, count in SCHEDULES.items() for first in range(0, count, CHUNK)]
)
def test_no_schedule_breaks_a_promise(network, first):
    for seed in range(first, first + CHUNK):
        violations = Relatives(network, seed).run()
        assert not violations, report(network, seed, violations)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_without_one_rule_some_schedule_breaks_a_promise(mutant):
    network = MUTANTS[mutant].network
    assert any(Relatives(network, seed, MUTANTS[mutant]).run() for seed in range(ENOUGH_FOR_A_MUTANT)), (
        f"{mutant} survives {ENOUGH_FOR_A_MUTANT} schedules of {network!r}: the simulation has a hole"
    )


def test_schedules_of_every_network_run():
    assert SCHEDULES.keys() == RELATIVES.keys()


def test_what_is_judged_does_happen():
    counts = Counter[str]()
    for network in RELATIVES:
        for seed in range(40):
            schedule = Relatives(network, seed)
            schedule.run()
            counts += schedule.judge.counts
    rare = {what: count for what, count in counts.items() if count < 5}
    assert len(counts) == 7
    assert not rare


@pytest.mark.parametrize("network", RELATIVES)
def test_a_seed_determines_everything(network):
    def transcript() -> list[str]:
        lines: list[str] = []
        Relatives(network, 1, SOUND, lines.append).run()
        return lines

    assert transcript() == transcript()


def report(network: str, seed: int, violations: list[str]) -> str:
    command = f"python -m tests.simulation.relatives {seed} --network {network} -v"
    return "\n".join([*violations, f"run it again, with all that happens: {command}"])
