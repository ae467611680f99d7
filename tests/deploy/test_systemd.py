"""The unit for systemd: its parts fit the node, and systemd accepts it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kinfolk import Node, new_cookie
from kinfolk.cli.run import run
from kinfolk.node import CLOSE_TIMEOUT
from kinfolk.settings import resolve

UNIT = Path(__file__).parent.parent.parent / "deploy" / "systemd" / "kinfolk@.service"


def read() -> dict[str, dict[str, list[str]]]:
    """The sections; a key may stand there several times."""
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


SERVICE = read()["Service"]


def value(key: str) -> str:
    (found,) = SERVICE[key]
    return found


def test_the_node_gets_the_settings_that_its_file_names(tmp_path: Path):
    head = UNIT.read_text().partition("[Unit]")[0]
    example = dict(line[1:].strip().split("=", 1) for line in head.splitlines() if line.startswith("#     "))
    program, name, argument = value("ExecStart").split()
    assert Path(program).name == "kinfolk" and name == run.__name__ and argument == "${KINFOLK_APP}"
    environ = dict(
        text.replace("%S", str(tmp_path)).replace("%i", "ada").split("=", 1) for text in SERVICE["Environment"]
    )
    cookie = tmp_path / "cookie"
    cookie.write_text(new_cookie())
    cookie.chmod(0o600)
    assert Path(environ.pop("KINFOLK_COOKIE_FILE")).name == cookie.name
    known = resolve(environ={**environ, **example, "KINFOLK_COOKIE_FILE": str(cookie)}, directory=tmp_path)
    assert known.name == example["KINFOLK_NAME"] and [str(seed.address) for seed in known.join] == ["10.0.0.2:4370"]
    assert value("EnvironmentFile") == "/etc/kinfolk/%i.env"


async def test_it_has_time_to_drain_and_close_and_its_peers_have_given_it_up_before_the_watchdog_ends_it():
    async with Node("ada", cookie=new_cookie(), join=[]) as node:
        assert int(value("TimeoutStopSec")) >= node.drain_timeout + 2 * CLOSE_TIMEOUT
        assert int(value("WatchdogSec")) > node.kernel.settings.stalled_limit
    assert value("Type") == "notify" and value("NotifyAccess") == "main" and value("KillMode") == "mixed"
    assert "KillSignal" not in SERVICE, "SIGTERM is what drains"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze, of the package systemd")
def test_systemd_accepts_it_and_calls_it_little_exposed(tmp_path: Path):
    unit = tmp_path / "kinfolk@ada.service"
    unit.write_text(UNIT.read_text().replace("/opt/kinfolk/bin/kinfolk", sys.executable))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=50
    )
    said = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert not said and verified.returncode == 0, verified.stderr
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(unit)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert judged.returncode == 0, judged.stdout
