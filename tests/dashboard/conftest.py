"""Nodes as in tests/node."""

from tests.node.conftest import nodes

__all__ = ["nodes"]
