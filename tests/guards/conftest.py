"""What things cost is counted over real TLS, on asyncio's own loop."""

import pytest

from tests.guards.counting import Traffic
from tests.node.conftest import nodes
from tests.node.nodes import Nodes

__all__ = ["nodes"]


@pytest.fixture
async def quiet(nodes: Nodes) -> Nodes:
    """Two nodes that know each other, ada and bob, and have nothing to say by themselves."""
    await nodes.mesh("ada", "bob", heartbeat=600.0)
    return nodes


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Traffic:
    """Counts what goes over all sockets of this program."""
    return Traffic(monkeypatch)
