"""Settings that hold for every test."""

import os
import signal
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from kinfolk.demo import etcd

# The same examples in every run, and no limit on how long one takes: a busy machine is not a failure.
settings.register_profile("kinfolk", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("kinfolk")

# Whoever starts the tests in the background may ignore SIGINT, and programs started by the tests would as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def server() -> Iterator[etcd.Server]:
    """An etcd of one member, for all tests that do it no harm."""
    with etcd_of(1) as served:
        yield served


@contextmanager
def etcd_of(size: int) -> Generator[etcd.Server]:
    """An etcd with so many members; where none is installed, the test is skipped."""
    if not etcd.is_installed():
        pytest.skip(etcd.HOW_TO_INSTALL)
    with tempfile.TemporaryDirectory(prefix="kinfolk-etcd-") as directory:
        served = etcd.Server(Path(directory), size)
        try:
            served.start()
            served.wait_until_ready()
            yield served
        finally:
            served.stop()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user's environment without any setting, and a home of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("KINFOLK_")}
    return {**kept, "KINFOLK_HOME": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"}
