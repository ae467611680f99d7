"""The auction house, within one program or as its users start it."""

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.auction.programs import House
from tests.browser.conftest import chromium
from tests.node.conftest import nodes

__all__ = ["chromium", "house", "nodes"]


@pytest.fixture
def house(environment: dict[str, str], tmp_path: Path) -> Generator[House]:
    """A house that is up, in programs of its own."""
    opened = House(tmp_path, environment)
    try:
        opened.wait_until_up()
        yield opened
    finally:
        opened.close()
