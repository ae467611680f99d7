"""A node in a notebook: in a real kernel of IPython, cell by cell, as the guide has it."""

import re
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.integrations import guide

pytestmark = pytest.mark.slow
manager = pytest.importorskip("jupyter_client.manager", reason="needs the extra slow: pip install 'kinfolk[slow]'")

PATIENCE = 60
Run = Callable[[str], dict[str, str]]


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Generator[Run]:
    """Runs a cell in a kernel; gives what the cell shows, by its kind."""
    kernel, client = manager.start_new_kernel(env=environment, cwd=str(tmp_path), startup_timeout=PATIENCE)

    def run(code: str) -> dict[str, str]:
        shown: dict[str, str] = {}

        def hear(message: dict[str, Any]) -> None:
            content = message["content"]
            if message["msg_type"] == "error":
                shown["error"] = "\n".join(content["traceback"])
            elif message["msg_type"] == "execute_result":
                shown.update(content["data"])
            elif message["msg_type"] == "stream":
                shown[content["name"]] = shown.get(content["name"], "") + content["text"]

        client.execute_interactive(code, output_hook=hear, timeout=PATIENCE)
        assert "error" not in shown, shown["error"]
        return shown

    yield run
    client.stop_channels()
    kernel.shutdown_kernel(now=True)


def test_a_notebook_has_a_node_that_lives_between_its_cells_and_shows_itself(
    run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    start, call, names = guide.cells()
    run(start)
    assert run(call)["text/plain"] == "144"
    shown = run(names)["text/html"]
    assert re.search(r"<td[^>]*>squares</td><td[^>]*>notebook@127\.0\.0\.1:\d+/\w+/\d+</td>", shown), shown

    # While no cell runs, the loop turns: another program is answered.
    asked = subprocess.run(
        [sys.executable, "-m", "kinfolk", "call", "squares", "5"], env=environment, capture_output=True, text=True
    )
    assert asked.stdout == "25\n", asked.stderr

    assert "<b>" not in run("await node.names.register('<b>bold</b>', node.spawn(squares)); node.names")["text/html"]
    assert run("node.spawn(squares)")["text/html"].startswith("<code>notebook@127.0.0.1:")
    shown = run("node")["text/html"]
    assert "&lt;node notebook@127.0.0.1:" in shown and "(running)" in shown
    assert "stderr" not in run("await node.close()")
    assert "(closed)" in run("node")["text/html"]


def test_the_loop_of_python_m_asyncio_turns_as_well(environment: dict[str, str], tmp_path: Path) -> None:
    start, call, _ = guide.cells()
    lines = [
        *start.replace("\n    async for", "\n    async for").splitlines(),
        "",
        *call.splitlines(),
        "await node.close()",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "asyncio"],
        input="\n".join(lines) + "\n",
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "144" in done.stdout, done.stderr
