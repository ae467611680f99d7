"""Many random schedules: no promise is ever broken; and with any one rule removed, some promise is.

Each seed gives its whole schedule. When one fails, the message has the command that runs it again and prints all of it.
"""

import os
import subprocess
import sys

import pytest

from tests.simulation.mutants import MUTANTS, SOUND
from tests.simulation.schedules import NETWORKS, Schedule
from tests.simulation.world import EPOCH_MS, LAST_STAMP

SCHEDULES = {
    "races": 3500,
    "calm": 6000,
    "faults": 3000,
    "strangers": 1500,
    "apart": 500,
    "moves": 500,
    "deaths": 1500,
    "joins": 1500,
    "flaps": 1000,
    "churn": 500,
    "damage": 500,
    "decay": 500,
}
CHUNK = 500
AT_ONCE = 500
"""Of each network; more of them are slow."""
ENOUGH_FOR_A_MUTANT = 300


def test_there_are_enough_schedules_of_every_network():
    assert SCHEDULES.keys() == NETWORKS.keys()
    assert sum(SCHEDULES.values()) >= 20_000


@pytest.mark.parametrize(
    ("network", "first"),
    [
        pytest.param(network, first, marks=[pytest.mark.slow] if first >= AT_ONCE else [])
        for network, count in SCHEDULES.items()
        for first in range(0, count, CHUNK)
    ],
)
def test_no_schedule_breaks_a_promise(network, first):
    for seed in range(first, first + CHUNK):
        violations = Schedule(network, seed).run()
        assert not violations, report(network, seed, violations)


@pytest.mark.parametrize("seed", [504046, 508710, 516170])
def test_who_is_no_longer_connected_is_told_nothing(seed):
    """What he had asked for is given up as his session ends, and then his own claim is the only one left."""
    violations = Schedule("faults", seed).run()
    assert not violations, report("faults", seed, violations)


def test_a_refusal_by_a_seed_that_was_out_of_reach_before_does_not_end_a_join():
    """It is dialled again while the join waits for others, and has meanwhile started under another name."""
    violations = Schedule("joins", 509939).run()
    assert not violations, report("joins", 509939, violations)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_without_one_rule_some_schedule_breaks_a_promise(mutant):
    network = MUTANTS[mutant].network
    assert any(Schedule(network, seed, MUTANTS[mutant]).run() for seed in range(ENOUGH_FOR_A_MUTANT)), (
        f"{mutant} survives {ENOUGH_FOR_A_MUTANT} schedules of {network!r}: the simulation has a hole"
    )


@pytest.mark.parametrize("network", ["races", "calm", "faults"])
def test_wild_clocks_stamp_with_every_time_there_is(network):
    stamps: set[int] = set()
    for seed in range(300):
        schedule = Schedule(network, seed)
        schedule.run()
        stamps |= schedule.world.stamps
    now = EPOCH_MS << 16
    assert max(stamps) == LAST_STAMP, "none at the end of time"
    hours = 3_600_000 << 16
    assert any(now - 9 * hours < stamp < now - hours for stamp in stamps), "none that is hours behind"
    assert any(now + hours < stamp < now + 9 * hours for stamp in stamps), "none that is hours ahead"


@pytest.mark.parametrize("network", NETWORKS)
def test_a_seed_determines_everything(network):
    def transcript() -> list[str]:
        lines: list[str] = []
        Schedule(network, 1, SOUND, lines.append).run()
        return lines

    assert transcript() == transcript()


def test_nor_does_it_depend_on_the_hashes_of_strings():
    def transcript(hash_seed: str) -> str:
        command = [sys.executable, "-m", "tests.simulation", "7", "--network", "faults", "-v"]
        done = subprocess.run(
            command, env=os.environ | {"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
        )
        return done.stdout.rpartition("faults ")[0]  # the last line has the time it took

    assert transcript("1") == transcript("2")


def report(network: str, seed: int, violations: list[str]) -> str:
    command = f"python -m tests.simulation {seed} --network {network} -v"
    return "\n".join([*violations, f"run it again, with all that happens: {command}"])
