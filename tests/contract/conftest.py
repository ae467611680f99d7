"""The same nodes with each registry: what is promised of names must hold with all of them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kinfolk import Node, Pid
from tests.etcd.nodes import nodes_of
from tests.node.nodes import Nodes, holders, until


class Contract:
    """Nodes of one cluster, connected with each other, and what a test may know of their registry."""

    def __init__(self, nodes: Nodes, registry: str) -> None:
        self.nodes = nodes
        self.registry = registry

    async def start(self, *words: str) -> list[Node]:
        """Nodes that know each other."""
        started: list[Node] = []
        for word in words:
            started.append(await self.nodes.start(word, *started[:1]))
        await until(lambda: all(len(node.peers()) == len(words) - 1 for node in started))
        return started

    async def resolved(self, mesh: list[Node], name: str, pid: Pid | None) -> None:
        """All resolve the name to this: at once on the mesh, whose nodes have agreed; soon with an authority."""
        if self.registry == "mesh":
            assert holders(mesh, name) == {pid}
        await until(lambda: holders(mesh, name) == {pid})


@pytest.fixture(params=["mesh", pytest.param("etcd", marks=pytest.mark.slow)])
async def contract(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Contract]:
    """Nodes with one registry after the other."""
    url = request.getfixturevalue("server").url if request.param == "etcd" else "mesh"
    async with nodes_of(url, tmp_path, monkeypatch) as nodes:
        yield Contract(nodes, request.param)
