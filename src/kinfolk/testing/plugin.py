"""The pytest plugin: `kin_cluster` makes nodes, `kin_sim` runs a test under many seeds. See docs/testing.md.

It is there as soon as kinfolk is installed, asks for no other plugin, and stays out of the way of those that run
coroutines: `kin_cluster` works on whatever asyncio loop a test runs on, and a test with `kin_sim` is a plain function.
"""

import os
import shlex
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import pytest

from kinfolk.testing.cluster import Cluster, cluster
from kinfolk.testing.simulation import simulate

SEEDS = 20
"""Under which a test with `kin_sim` is run, if nothing says how many."""

Scenario = Callable[[], Coroutine[Any, Any, object]]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The plugin's options."""
    group = parser.getgroup("kinfolk", "kinfolk: simulated clusters")
    group.addoption("--kin-seeds", type=int, metavar="N", help="run tests with kin_sim under N seeds each")
    group.addoption("--kin-seed", type=int, metavar="SEED", help="run them under this one, and print what happens")
    parser.addini("kin_seeds", f"under how many seeds tests with kin_sim are run (default: {SEEDS})", default=None)


class KinSim:
    """What a test gets as `kin_sim`: call it with an async function, which is run under one seed after the other.

    Attributes:
        seeds: those that it will be run under, if the call names no number.
    """

    def __init__(self, item: pytest.Item, options: pytest.Config) -> None:
        self._item = item
        self._one: int | None = options.getoption("--kin-seed")
        self._count: int | None = options.getoption("--kin-seeds")
        self._usual = int(options.getini("kin_seeds") or SEEDS)
        self._started_in = options.invocation_params.dir

    def seeds(self, count: int | None = None) -> Iterable[int]:
        """The seeds to run under: the command line goes before the test, and the test before the settings."""
        if self._one is not None:
            return [self._one]
        return range(self._count or count or self._usual)

    def __call__(self, scenario: Scenario, *, seeds: int | None = None) -> None:
        """Run an async function under each seed, each time on a new simulated loop.

        Args:
            scenario: makes its nodes with `kinfolk.testing.cluster`, and raises if something is wrong.
            seeds: under how many; the option ``--kin-seeds`` goes before it.

        Raises:
            Whatever it raises under one of them, with the command that runs it again under that seed as a note.
        """
        for seed in self.seeds(seeds):
            try:
                simulate(seed, scenario, log=None if self._one is None else print)
            except (KeyboardInterrupt, SystemExit, pytest.skip.Exception):
                raise
            except BaseException as error:
                text = f"with seed {seed}; to run it again: {self.command(seed)}"
                error.add_note(text)
                if isinstance(error, pytest.fail.Exception):  # of which pytest does not show the notes
                    self._item.add_report_section("call", "kinfolk", text)
                raise

    def command(self, seed: int) -> str:
        """The command that runs this test under one seed."""
        path, colons, rest = self._item.nodeid.partition("::")
        there = Path(os.path.relpath(self._item.config.rootpath / path, self._started_in))
        return f"pytest {shlex.quote(f'{there.as_posix()}{colons}{rest}')} --kin-seed={seed}"


@pytest.fixture
def kin_cluster() -> Callable[..., Cluster]:
    """Makes nodes for a test: ``async with kin_cluster(3) as nodes``. See `kinfolk.testing.cluster`."""
    return cluster


@pytest.fixture
def kin_sim(request: pytest.FixtureRequest) -> KinSim:
    """Runs an async function on a simulated loop under many seeds: ``kin_sim(scenario)``. See `KinSim`."""
    return KinSim(request.node, request.config)
