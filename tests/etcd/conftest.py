"""Etcds that tests do harm to, and nodes that have their names in one."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kinfolk.demo import etcd
from tests.conftest import etcd_of
from tests.etcd.nodes import EtcdNodes, nodes_of


@pytest.fixture
def own_server() -> Iterator[etcd.Server]:
    """An etcd of one member, for a test that stops it."""
    with etcd_of(1) as served:
        yield served


@pytest.fixture
def three() -> Iterator[etcd.Server]:
    """An etcd of three members."""
    with etcd_of(3) as served:
        yield served


@pytest.fixture
async def nodes(server: etcd.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EtcdNodes]:
    """Makes nodes with names in etcd, and closes them; then no task of theirs is left."""
    async with nodes_of(server.url, tmp_path, monkeypatch) as made:
        yield made
