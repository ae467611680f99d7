"""The probe of the container, beside a node that serves its pages."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from kinfolk import Node, new_cookie
from kinfolk.metrics import serve

pytestmark = pytest.mark.slow

PROBE = Path(__file__).parent.parent.parent / "deploy" / "app" / "probe.py"
TOKEN = "0123456789abcdef"


async def probe(page: str, port: int, tmp_path: Path, token: str = TOKEN) -> int:
    """How it ends, asking at this port."""
    script = tmp_path / "probe.py"
    script.write_text(PROBE.read_text().replace("9464", str(port)))
    environment = {**os.environ, "KINFOLK_METRICS_TOKEN": token}
    asked = await asyncio.create_subprocess_exec(
        sys.executable, str(script), page, env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    return await asked.wait()


async def test_the_probe_tells_a_node_that_is_ready_from_one_that_is_not(tmp_path: Path):
    node = Node("ada@127.0.0.1:0", cookie=new_cookie(), join=[])
    async with serve(node, "127.0.0.1:0", token=TOKEN) as where:
        assert await probe("healthz", where.port, tmp_path) == 0
        assert await probe("readyz", where.port, tmp_path) == 1
        async with node:
            assert await probe("readyz", where.port, tmp_path) == 0
            assert await probe("readyz", where.port, tmp_path, "another, that is wrong") == 1
    assert await probe("healthz", where.port, tmp_path) == 1
