"""Run schedules by hand: ``python -m tests.cluster [SEED] [--count N] [--first N]``; a SEED prints all that happens."""

import argparse
import gc
import hashlib
import logging
import statistics
import sys
import time

from tests.cluster.schedules import Schedule


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description="Run schedules of whole clusters.")
    parser.add_argument("seed", type=int, nargs="?", help="the one schedule to run and to print; without it, many")
    parser.add_argument("--count", type=int, default=1000, help="how many schedules without a seed")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--digest", action="store_true", help="print a digest of all that happens, for each")
    parser.add_argument("--short", type=int, default=0, metavar="NODES", help="short ones, to see how fast they are")
    options = parser.parse_args()
    logging.getLogger("kinfolk").addHandler(logging.NullHandler())
    if options.seed is not None:
        violations = Schedule(options.seed, print, short=options.short).run()
        print(*violations or ["no violation"], sep="\n")
        return bool(violations)
    gc.collect()
    gc.freeze()  # what is there by now stays: no collection needs to look at it
    began, steps, seconds, bad, times = time.process_time(), 0, 0.0, 0, list[float]()
    for seed in range(options.first, options.first + options.count):
        lines: list[str] = []
        before = time.process_time()
        schedule = Schedule(seed, lines.append if options.digest else None, short=options.short)
        violations = schedule.run()
        times.append(time.process_time() - before)
        if options.digest:
            print(seed, hashlib.sha256("\n".join(lines).encode()).hexdigest())
        steps += schedule.steps
        seconds += schedule.seconds
        if violations:
            bad += 1
            print(f"seed {seed}:", *violations, f"  all of it: python -m tests.cluster {seed}", sep="\n  ", flush=True)
    if options.digest:
        return 0
    took = time.process_time() - began
    print(
        f"{options.count} schedules, {bad} bad; {options.count / took:.0f} a second of one core, the middle one in"
        f" {1000 * statistics.median(times):.1f} ms; {steps / options.count:.0f} steps and"
        f" {seconds / options.count:.1f} virtual seconds each"
    )
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
