"""Fuzz: ``python -m tests.fuzz [TARGET ...] [--minutes N] [--keep]``, guided by what of the code each input reaches.

Every target has its share of the time, in a process of its own, one after the other. What makes one fail is left in
``build/fuzz``; ``--replay TARGET FILE`` runs such an input again. ``--keep`` puts the fewest inputs that reach what
all have reached into the corpus. Needs atheris, which `make fuzz` installs.
"""

import argparse
import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.fuzz.corpus import keep, kept

SHARES = {"codec": 1, "payload": 1, "handshake": 2, "session": 2, "node": 4}
"""The targets, and how much of the time each has."""
FOUND = Path("build/fuzz")
LONGEST = 2048
"""Bytes of an input."""
LONGEST_KEPT = 400
HANGS_AFTER = 20
"""Seconds for one input."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz, guided by coverage.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", default=tuple(SHARES), help=f"of {', '.join(SHARES)}")
    parser.add_argument("--minutes", type=float, default=1.0, help="for all targets together")
    parser.add_argument("--keep", action="store_true", help="put what is new into the corpus")
    parser.add_argument("--replay", action="store_true", help="TARGET FILE: run one input")
    parser.add_argument("--inside", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _fuzz(*options.inside)
    if options.replay:
        return _replay(*options.targets)
    unknown = set(options.targets) - set(SHARES)
    if unknown:
        parser.error(f"no target {', '.join(unknown)}: there are {', '.join(SHARES)}")
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: `make fuzz` does that, where there is one for this Python and machine")
    FOUND.mkdir(parents=True, exist_ok=True)
    share = 60 * options.minutes / sum(SHARES[target] for target in options.targets)
    results = [_run(target, share * SHARES[target], options.keep) for target in options.targets]
    print(f"{sum(runs for runs, _ in results)} inputs, {sum(failed for _, failed in results)} targets failed")
    return any(failed for _, failed in results)


def _replay(target: str, file: str) -> int:
    from tests.fuzz.targets import TARGETS

    with TARGETS[target]() as run:
        run(Path(file).read_bytes())
    print("nothing is wrong with it")
    return 0


def _run(target: str, seconds: float, keeping: bool) -> tuple[int, bool]:
    """Fuzz one target for so long. How many inputs it was given, and whether one of them made it fail."""
    from tests.fuzz.targets import seeds  # not above: atheris has to come first

    with TemporaryDirectory() as directory:
        inputs = Path(directory, "inputs")
        inputs.mkdir()
        for number, data in enumerate([*seeds(target), *kept(target)]):
            (inputs / f"seed-{number}").write_bytes(data)
        began = time.monotonic()
        log = FOUND / f"{target}.log"
        with log.open("w") as output:
            code = _inside(
                output,
                *(target, f"-max_total_time={int(seconds)}", f"-artifact_prefix={FOUND}/{target}-"),
                *(f"-max_len={LONGEST}", f"-timeout={HANGS_AFTER}", "-rss_limit_mb=1024", "-print_final_stats=1"),
                inputs,
            )
        said = log.read_text(errors="replace")
        runs = int((re.findall(r"number_of_executed_units: (\d+)", said) or re.findall(r"#(\d+)\t", said) or [0])[-1])
        reached = (re.findall(r"cov: (\d+)", said) or ["?"])[-1]
        took = time.monotonic() - began
        print(f"{target:10} {runs:9} inputs in {took:4.0f} s, {reached} edges reached", flush=True)
        if code:
            print(said[-4000:])
            print(f"{target} has FAILED: python -m tests.fuzz --replay {target} {FOUND}/{target}-...")
        elif keeping:
            _keep(target, inputs, Path(directory, "fewest"))
    return runs, code != 0


def _keep(target: str, inputs: Path, fewest: Path) -> None:
    """Put the fewest of the inputs that reach what all of them reach into the corpus, unless they are long."""
    fewest.mkdir()
    with (FOUND / f"{target}.merge.log").open("w") as output:
        code = _inside(output, target, "-merge=1", f"-max_len={LONGEST_KEPT}", fewest, inputs)
    assert code == 0 and any(fewest.iterdir()), f"they could not be merged: see {output.name}"
    keep(target, (file.read_bytes() for file in fewest.iterdir()))


def _inside(output: Any, target: str, *arguments: object) -> int:
    """The fuzzer ends its process when it ends, and starts itself anew to merge: so it is a program of its own."""
    program = (FOUND / f"{target}.sh").absolute()
    program.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tests.fuzz --inside {program} {target} "$@"\n'
    )
    program.chmod(0o755)
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode


def _fuzz(program: str, target: str, *arguments: str) -> None:
    atheris: Any = importlib.import_module("atheris")  # has no types
    with atheris.instrument_imports(include=["kinfolk"]):
        from tests.fuzz.targets import TARGETS
    with TARGETS[target]() as run:
        atheris.Setup([program, *arguments], run)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
