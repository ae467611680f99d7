"""``python -m bench [--rounds N] [WORD,WORD ...]``: measure the workloads with these words, or all of them."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import document, growth, harness, report
from bench.workloads import WORKLOADS

GROWTH = "growth"
WORDS = [workload.word for workload in WORKLOADS] + [GROWTH]


def main(arguments: Sequence[str]) -> int:
    """Measure, write the results down, show them."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("only", nargs="*", help=f"which of {', '.join(WORDS)}; all of them by default")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured, at most")
    options = parser.parse_args(arguments)
    only = [word for given in options.only for word in given.split(",") if word]
    unknown = [word for word in only if not any(known.startswith(word) for known in WORDS)]
    if unknown:
        parser.error(f"there is no workload {', '.join(unknown)}: there are {', '.join(WORDS)}")
    chosen = [word for word in WORDS if not only or word in only]
    chosen = chosen or [word for word in WORDS if any(word.startswith(start) for start in only)]
    try:
        asyncio.run(run(chosen, options.rounds))
    except KeyboardInterrupt:
        print("Stopped. What had been measured before is kept.", file=sys.stderr)
        return 130
    return 0


async def run(chosen: Sequence[str], rounds: int) -> None:
    """Measure these workloads one after the other; what has been measured is written down after each."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    begun = time.monotonic()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as work, console.status("") as status:

        def say(text: str) -> None:
            passed = time.monotonic() - begun
            status.update(f"[{passed // 60:.0f}:{passed % 60:02.0f}] {text}")
            if not console.is_terminal and text.endswith("..."):
                console.print(f"[{passed:4.0f} s] {text}", markup=False)

        for workload in WORKLOADS:
            if workload.word not in chosen:
                continue
            say(f"{workload.word}: {workload.title} ...")
            outcome = await harness.measure(workload, rounds, Path(work), say)
            new = harness.results(outcome)
            rows += new
            for name, why in outcome.missing.items():
                console.print(f"{workload.word}: without {name}: {why}", markup=False)
            report.write(new, {}, rounds)
        if GROWTH in chosen:
            say("growth: cost against size ...")
            new, curves, failures = await growth.measure(Path(work), say)
            for what, why in failures.items():
                console.print(f"growth: without {what}: {why}", markup=False)
            rows += new
            report.write(new, curves, rounds)
    if chosen == WORDS:
        report.remember()
    report.show(console, rows)
    document.main()
    console.print(f"{report.RESULTS} after {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
