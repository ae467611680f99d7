"""Several nodes in one program: real TLS over loopback, and nothing may be left over."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.node.nodes import Nodes


@pytest.fixture
async def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Nodes]:
    """Makes nodes, and closes them; then no task, socket or file of theirs is left."""
    for key in [key for key in os.environ if key.startswith("KINFOLK_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("KINFOLK_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    files = _files()
    nodes = Nodes()
    try:
        yield nodes
    finally:
        await nodes.close()
    del nodes
    await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left over"
    # No new ones: what a library of another test had open, it may close meanwhile.
    assert not set(_files()) - set(files), "sockets or files are left over"


def _files() -> list[str]:
    """What this program has open, as the system names it."""
    found = []
    for number in os.listdir("/dev/fd"):
        try:
            found.append(os.readlink(f"/dev/fd/{number}"))
        except OSError:  # of the listing itself
            continue
    return sorted(name for name in found if name.startswith("socket:"))
