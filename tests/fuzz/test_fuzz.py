"""What is fuzzed holds for every input that is kept, and for as many new ones as a short run can make."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import SHARES
from tests.fuzz.corpus import kept
from tests.fuzz.targets import TARGETS, seeds

ROOT = Path(__file__).parent.parent.parent


def test_every_target_has_its_corpus():
    assert tuple(SHARES) == tuple(TARGETS)
    assert all(kept(target) for target in TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_every_input_that_is_kept_is_taken(target: str):
    with TARGETS[target]() as run:
        for data in [*seeds(target), *kept(target)]:
            run(data)


def test_a_target_fails_when_what_it_watches_is_broken(monkeypatch: pytest.MonkeyPatch):
    """Else it would prove nothing that none ever does."""
    with TARGETS["handshake"]() as run, monkeypatch.context() as patch:
        altered = bytes((3, 23, 2, 0, 1, 0))  # another name in NAME
        run(altered)
        patch.setattr("kinfolk.wire.handshake._proof", lambda key, transcript: bytes(32))
        with pytest.raises(AssertionError, match="in spite of"):
            run(altered)
    with TARGETS["session"]() as run, monkeypatch.context() as patch:
        watches = bytes((2,)) + b"\x10\x91\x93\x01\xc0\xa2hi"
        run(watches)
        patch.setattr("kinfolk.wire.session.OBSERVER_TAGS", frozenset(range(256)))
        with pytest.raises(AssertionError, match="only a peer may"):
            run(watches)
    with TARGETS["codec"]() as run, monkeypatch.context() as patch:
        patch.setattr("kinfolk.wire.codec.BadBody", LookupError)
        with pytest.raises(LookupError, match="extension 99"):
            run(b"\xd4\x63\x00")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris: make fuzz installs it")
def test_a_short_run_finds_nothing():
    command = [sys.executable, "-m", "tests.fuzz", "--minutes", "0.35"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 targets failed" in done.stdout
