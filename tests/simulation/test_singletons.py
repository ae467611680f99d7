"""Singletons on top of simulated names: one runs, no two side by side, and soon after a loss; without a rule, not."""

from collections import Counter

import pytest

from tests.simulation.mutants import AcknowledgesAll, AsksNoNewcomer
from tests.simulation.singletons import SINGLETONS, SOUND, Rules, Singletons

SCHEDULES = {"losses": 150, "storms": 150}
CHUNK = 50
ENOUGH_FOR_A_MUTANT = 150

MUTANTS = {
    "runs before its name is confirmed": Rules("storms", waits=False),
    "runs on when its name is lost": Rules("losses", yields=False),
    "does not return after a loss": Rules("losses", returns=False),
    "stands by for ever": Rules("losses", tries_again=False),
    "has peers that acknowledge all": Rules("storms", AcknowledgesAll),
    "does not wait for newcomers": Rules("storms", AsksNoNewcomer),
}


@pytest.mark.parametrize(
    ("network", "first"), [(network, first) for network, count in SCHEDULES.items() for first in range(0, count, CHUNK)]
)
def test_one_runs(network, first):
    for seed in range(first, first + CHUNK):
        violations = Singletons(network, seed).run()
        assert not violations, report(network, seed, violations)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_without_one_rule_some_schedule_breaks_a_promise(mutant):
    rules = MUTANTS[mutant]
    assert any(Singletons(rules.network, seed, rules).run() for seed in range(ENOUGH_FOR_A_MUTANT)), (
        f"whoever {mutant} survives {ENOUGH_FOR_A_MUTANT} schedules of {rules.network!r}: the simulation has a hole"
    )


def test_schedules_of_every_network_run():
    assert SCHEDULES.keys() == SINGLETONS.keys()


def test_every_loss_does_happen():
    counts = Counter[str]()
    for seed in range(20):
        schedule = Singletons("losses", seed)
        schedule.run()
        counts += schedule.judge.counts
    assert min(counts[what] for what in ("exit", "crash", "cut off", "ends", "names lost")) >= 5


@pytest.mark.parametrize("network", SINGLETONS)
def test_a_seed_determines_everything(network):
    def transcript() -> list[str]:
        lines: list[str] = []
        Singletons(network, 1, SOUND, lines.append).run()
        return lines

    assert transcript() == transcript()


def report(network: str, seed: int, violations: list[str]) -> str:
    command = f"python -m tests.simulation.singletons {seed} --network {network} -v"
    return "\n".join([*violations, f"run it again, with all that happens: {command}"])
