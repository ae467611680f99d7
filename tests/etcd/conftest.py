"""An etcd for the tests that need one, started by themselves."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kinfolk.demo import etcd
from tests.etcd.nodes import EtcdNodes, nodes_of


@pytest.fixture(scope="session")
def server() -> Iterator[etcd.Server]:
    """An etcd of one member, for all tests that do it no harm."""
    yield from _serve(1)


@pytest.fixture
def own_server() -> Iterator[etcd.Server]:
    """An etcd of one member, for a test that stops it."""
    yield from _serve(1)


@pytest.fixture
def three() -> Iterator[etcd.Server]:
    """An etcd of three members."""
    yield from _serve(3)


def _serve(size: int) -> Iterator[etcd.Server]:
    if not etcd.is_installed():
        pytest.skip(etcd.HOW_TO_INSTALL)
    directory = Path(tempfile.mkdtemp(prefix="kinfolk-etcd-"))
    served = etcd.Server(directory, size)
    try:
        served.start()
        served.wait_until_ready()
        yield served
    finally:
        served.stop()
        shutil.rmtree(directory)


@pytest.fixture
async def nodes(server: etcd.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EtcdNodes]:
    """Makes nodes with names in etcd, and closes them; then no task of theirs is left."""
    async with nodes_of(server.url, tmp_path, monkeypatch) as made:
        yield made
