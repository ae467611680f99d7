"""Every scenario has its tests, and every test that is named exists."""

import pytest

from tests.faults.index import SCENARIOS, STORIES
from tests.listing import gone

NUMBERS = [f"D{number:02}" for number in range(1, 33)]


def test_every_scenario_is_in_the_index():
    assert sorted(SCENARIOS) == NUMBERS


@pytest.mark.parametrize("scenario", [*SCENARIOS, *STORIES])
def test_every_test_in_the_index_exists(scenario: str):
    tests = {**SCENARIOS, **STORIES}[scenario].tests
    assert tests and not gone(tests)


def test_a_test_that_is_gone_is_found_out():
    file = "tests/faults/test_index.py"
    assert gone([f"{file}::test_gone", "tests/faults/test_nothing.py", file]) == [
        f"{file}::test_gone",
        "tests/faults/test_nothing.py",
    ]
