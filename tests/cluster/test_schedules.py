"""Many random schedules of whole clusters: no promise is ever broken, and a seed determines everything.

When one fails, the message has the command that runs it again and prints all of it.
"""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from kinfolk import effects as fx
from kinfolk import kernel
from kinfolk.core.ledger import Ledger
from kinfolk.node import Node
from kinfolk.shell.dataplane import DataPlane
from kinfolk.shell.signals import Signals
from kinfolk.wire import frames
from tests.cluster.schedules import Schedule
from tests.simulation.mutants import MUTANTS

COUNT = 240
CHUNK = 60
REGRESSIONS = (
    *(14, 26, 50, 139, 385),
    *(201491, 201508, 201939, 202236, 202872, 203513, 205289, 205448, 208381, 208561, 212658, 215373),
    *(402617, 421814, 512200),
)
"""Seeds that have shown something once. First, mostly, a name that both sides of a partition gave away; then names that
a `register` had returned, and that went with the confirmation of the answer; then a start that a
crash never ended, and the end of a node that a partition kept from one who should have heard of it; then two that start
at once, neither of which the other has to know."""
ENOUGH_FOR_A_MISTAKE = 60
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nodes log is of no interest here."""
    monkeypatch.setattr(logging.getLogger("kinfolk"), "disabled", True)


def check(seed: int) -> None:
    violations = Schedule(seed).run()
    assert not violations, "\n".join([*violations, f"run it again, with all that happens: {command(seed)}"])


def command(seed: int) -> str:
    return f"python -m tests.cluster {seed}"


@pytest.mark.parametrize("first", range(0, COUNT, CHUNK))
def test_no_schedule_breaks_a_promise(first: int):
    for seed in range(first, first + CHUNK):
        check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(10_000, 13_000, 500))
def test_nor_do_many_more(first: int):
    for seed in range(first, first + 500):
        check(seed)


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_what_went_wrong_once_goes_right(seed: int):
    check(seed)


# --- a seed determines everything ---


def digests(python: str, hash_seed: str) -> str:
    """Another interpreter's digests of all that happens in some schedules."""
    path = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    done = subprocess.run(
        [python, "-m", "tests.cluster", "--digest", "--count", "15"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
    )
    return done.stdout


def test_neither_hashes_nor_the_process_change_a_byte_of_what_happens():
    first = digests(sys.executable, "1")
    assert first.count("\n") == 15
    assert digests(sys.executable, "2") == first


@pytest.mark.slow
def test_nor_does_the_version_of_python():
    """Those on the path that have what kinfolk needs, and those named in KINFOLK_PYTHONS, with colons between them."""
    named = os.environ.get("KINFOLK_PYTHONS", "").split(os.pathsep)
    found = [path for version in range(11, 16) if (path := shutil.which(f"python3.{version}"))]
    others = [path for path in (*named, *found) if path and _has_what_it_needs(path)]
    if not others:
        pytest.skip("no other Python with kinfolk's dependencies: name some in KINFOLK_PYTHONS")
    here = digests(sys.executable, "1")
    for python in others:
        assert digests(python, "3") == here, f"{python} differs"


def _has_what_it_needs(python: str) -> bool:
    done = subprocess.run([python, "-c", "import msgspec, cryptography, cyclopts, rich"], capture_output=True)
    return done.returncode == 0


# --- what would be noticed ---


def _nothing(*_: object, **__: object) -> None:
    pass


def _two_of_each(plane: DataPlane, link: Any, operation: frames.Sent) -> None:
    plane._sent(link, operation)
    plane._sent(link, operation)


MISTAKES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "names of the dead stay": lambda patch: patch.setitem(kernel._INPUTS, fx.ProcessExited, _nothing),
    "a claim waits for nobody": lambda patch: patch.setattr(Ledger, "await_claim", lambda *_: True),
    "ends are told to nobody": lambda patch: patch.setattr(Signals, "exited", _nothing),
    "processes do not hear of lost nodes": lambda patch: patch.setattr(Signals, "peer_down", _nothing),
    "a loss is told to nobody": lambda patch: patch.setitem(Node._EFFECTS, fx.TellLoss, _nothing),
    "messages come twice": lambda patch: patch.setitem(
        cast("dict[type, object]", DataPlane.FRAMES), frames.Sent, _two_of_each
    ),
    "a peer that is silent is waited for": lambda patch: patch.setattr(
        "kinfolk.node.Kernel", MUTANTS["NeverListensForSilence"].kernel
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_noticed(mistake: str, monkeypatch: pytest.MonkeyPatch):
    MISTAKES[mistake](monkeypatch)
    assert any(Schedule(seed).run() for seed in range(ENOUGH_FOR_A_MISTAKE)), "the schedules have a hole"
