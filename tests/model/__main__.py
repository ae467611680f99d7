"""Run the model by hand: ``python -m tests.model [schedules] [seed]``.

First all rules together, then each left out, in the network that shows it, in a fifth of the schedules (200 at least).
"""

import sys
import time
from collections import Counter

from tests.model.guards import ALL, GUARDS
from tests.model.network import NETWORKS, Simulation


def main(schedules: int = 1000, seed: int = 1) -> int:
    """Run so many schedules of each network. Returns 1 if one is bad, or if a rule is not missed."""
    failed = False
    for network in NETWORKS:
        began, kinds, counts, bad = time.process_time(), Counter[str](), Counter[str](), list[int]()
        for number in range(schedules):
            simulation = Simulation(network, f"{seed}/{number}")
            if violations := simulation.run():
                bad.append(number)
                kinds.update(violations.keys())
            counts.update(simulation.counts)
        took = 1000 * (time.process_time() - began) / schedules
        print(f"{network:11} {len(bad)} bad of {schedules}, {took:.1f} ms each {dict(kinds)}")
        print(f"{'':11} {dict(sorted(counts.items()))}", *bad[:10], flush=True)
        failed |= bool(bad)
    for guard, (network, rule) in GUARDS.items():
        numbers = range(max(200, schedules // 5))
        missed = [number for number in numbers if Simulation(network, f"{seed}/{number}", ALL - {guard}).run()]
        if missed:
            print(
                f"{network:11} {len(missed):4} of {len(numbers)} miss {guard!r}, {missed[0]} first: {rule}", flush=True
            )
        else:
            print(f"{network:11} NOTHING misses {guard!r}: {rule}", flush=True)
            failed = True
    return failed


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
