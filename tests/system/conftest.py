"""Every test gets a fleet of its own, in a directory of its own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.system.fleet import Fleet, Nursery


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Where the workers of all fleets come from."""
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.close()


@pytest.fixture
async def fleet(tmp_path: Path, nursery: Nursery) -> AsyncIterator[Fleet]:
    """An empty fleet; at the end its workers end, and what they have logged is checked."""
    async with Fleet(tmp_path, nursery) as fleet:
        yield fleet
