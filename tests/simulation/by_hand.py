"""Run schedules from the command line, one with all that happens or many with what came up."""

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol


class Counting(Protocol):
    """A judge that counts what comes up."""

    counts: Counter[str]


class Run(Protocol):
    """A schedule."""

    @property
    def judge(self) -> Counting:
        """Who watches it."""
        ...

    def run(self) -> list[str]:
        """Run it. Returns the violations."""
        ...


def run_by_hand(
    module: str, networks: Iterable[str], make: Callable[[str, int, Callable[[str], None] | None], Run]
) -> int:
    """Do what the command line says. Returns the exit code.

    Args:
        module: the name of the module that is run.
        networks: the names of its networks.
        make: makes the schedule of a network and seed, with what takes its transcript.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description="Run simulated schedules.")
    parser.add_argument("seed", type=int, nargs="?", help="the one schedule to run; without it, many")
    parser.add_argument("--network", choices=networks, help="without it, all")
    parser.add_argument("--count", type=int, default=1000, help="how many schedules without a seed")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("-v", "--verbose", action="store_true", help="print everything that happens")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.count) if options.seed is None else (options.seed,)
    bad = 0
    for network in [options.network] if options.network else networks:
        began, counts, failing = time.process_time(), Counter[str](), 0
        for seed in seeds:
            schedule = make(network, seed, print if options.verbose else None)
            violations = schedule.run()
            counts += schedule.judge.counts
            if violations:
                failing += 1
                print(f"{network} {seed}", *violations[:3], sep="\n    ")
        took = (time.process_time() - began) / len(seeds)
        print(f"{network}: {len(seeds)} schedules, {failing} bad, {1000 * took:.2f} ms each")
        print(*(f"    {count:8} {what}" for what, count in sorted(counts.items())), sep="\n", flush=True)
        bad += failing
    return bad > 0
