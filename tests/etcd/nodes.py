"""Makes nodes with names in etcd, each test's in a cluster of its own, so that all tests can share one etcd."""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kinfolk import Node
from tests.node.nodes import Nodes


class EtcdNodes(Nodes):
    """The nodes of a test."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.cluster = f"test-{secrets.token_hex(4)}"
        self.url = url

    def make(self, word: str, *join: Node, **settings: Any) -> Node:
        settings = {"registry": self.url, "cluster": self.cluster, **settings}
        return super().make(word, *join, **settings)


@asynccontextmanager
async def nodes_of(url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[EtcdNodes]:
    """The nodes of a test, far from the user's settings; at its end no task is left."""
    for key in [key for key in os.environ if key.startswith("KINFOLK_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("KINFOLK_HOME", str(home / "home"))
    monkeypatch.chdir(home)
    nodes = EtcdNodes(url)
    try:
        yield nodes
    finally:
        await nodes.close()
    # A client of etcd may have tasks of its library's, which are cancelled and have yet to end.
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=1)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks are left over: {left}"
