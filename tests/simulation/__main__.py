"""Run schedules by hand: ``python -m tests.simulation [SEED] [--network N] [--count N] [--mutant M] [-v]``."""

import argparse
import sys
import time
from collections import Counter

from tests.simulation.mutants import MUTANTS, SOUND
from tests.simulation.schedules import NETWORKS, Schedule


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Run simulated schedules.")
    parser.add_argument("seed", type=int, nargs="?", help="the one schedule to run; without it, many")
    parser.add_argument("--network", choices=NETWORKS, help="without it, all")
    parser.add_argument("--mutant", choices=MUTANTS, help="a rule to leave out")
    parser.add_argument("--count", type=int, default=1000, help="how many schedules without a seed")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("-v", "--verbose", action="store_true", help="print everything that happens")
    options = parser.parse_args()
    mutant = MUTANTS[options.mutant] if options.mutant else SOUND
    networks = [options.network] if options.network else list(NETWORKS)
    seeds = range(options.first, options.first + options.count) if options.seed is None else (options.seed,)
    bad = 0
    for network in networks:
        began, steps, kinds, failing, confirmed, losses, beaten = time.process_time(), 0, Counter[str](), [], 0, 0, 0
        for seed in seeds:
            schedule = Schedule(network, seed, mutant, print if options.verbose else None)
            violations = schedule.run()
            steps += schedule.world.steps
            confirmed += schedule.judge.confirmed
            losses += schedule.judge.losses
            beaten += schedule.judge.beaten_by_the_dead
            if violations:
                failing.append(seed)
                kinds["".join("#" if c.isdigit() else c for c in violations[0].partition(": ")[2])[:110]] += 1
                if options.seed is not None:
                    print(*violations, sep="\n")
        took = time.process_time() - began
        print(
            f"{network:10} {len(seeds)} schedules, {len(failing)} bad, {1000 * took / len(seeds):.2f} ms and"
            f" {steps / len(seeds):.0f} steps each, {confirmed} confirmed, {losses} of them lost, {beaten} to the dead",
            flush=True,
        )
        for kind, count in kinds.most_common(12):
            print(f"    {count:5} {kind}")
        if failing:
            print("    seeds", *failing[:12])
        bad += len(failing)
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
