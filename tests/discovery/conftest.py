"""Nodes as in the tests of one program: nothing may be left over."""

from tests.node.conftest import nodes

__all__ = ["nodes"]
