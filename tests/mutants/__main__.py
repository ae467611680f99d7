"""Break each guarantee once, and see a test notice: ``python -m tests.mutants [WORD ...]``.

Works on a copy of the tree. First every named test has to pass there as it is; then each mutant is put in, its test is
run and has to fail, and the mutant is taken out. With words: only those whose guarantee or description has one of them.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.listing import ROOT
from tests.mutants.table import MUTANTS, Mutant

PATIENCE = 300
"""Seconds after which a test that hangs counts as failed."""
PASSED, FAILED = 0, 1
"""What pytest ends with; all else means that it could not run the test."""


def main(words: list[str]) -> int:
    mutants = [m for m in MUTANTS if not words or any(word in f"{m.guarantee} {m.what}" for word in words)]
    with TemporaryDirectory() as directory:
        tree = Path(directory, "tree")
        for part in ("src", "tests", "examples", "deploy"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / file, tree)
        shutil.copytree(ROOT / "docs", tree / "docs")
        code, said = _pytest(tree, sorted({mutant.test for mutant in mutants}))
        if code != PASSED:
            print(f"{said}\nThe tests have to pass before anything is broken.")
            return 1
        survivors = [mutant for mutant in mutants if not _is_caught(tree, mutant)]
    for mutant in survivors:
        print(f"SURVIVED: {mutant.what} ({mutant.file}): {mutant.test} has not failed")
    print(f"caught {len(mutants) - len(survivors)} of {len(mutants)}")
    return bool(survivors)


def _is_caught(tree: Path, mutant: Mutant) -> bool:
    """Put a mutant in, run its test, and take it out again."""
    path = tree / "src" / "kinfolk" / mutant.file
    sound = path.read_text()
    assert sound.count(mutant.old) == 1, f"{mutant.file} does not have this once:\n{mutant.old}"
    path.write_text(sound.replace(mutant.old, mutant.new))
    began = time.monotonic()
    try:
        code, said = _pytest(tree, [mutant.test])
    finally:
        path.write_text(sound)
    if code not in (PASSED, FAILED):
        print(said)
    verdict = {PASSED: "SURVIVED", FAILED: "caught"}.get(code, "could not be run")
    print(f"{verdict:9} {time.monotonic() - began:5.1f} s  {mutant.guarantee}: {mutant.what}", flush=True)
    return code == FAILED


def _pytest(tree: Path, tests: Iterable[str]) -> tuple[int, str]:
    """Run tests of the copy; what pytest ends with, and the end of what it says."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "slow or not slow", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return FAILED, f"{tests} hang"
    return done.returncode, done.stdout[-3000:] + done.stderr[-1000:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
