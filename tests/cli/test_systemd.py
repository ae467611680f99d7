"""`kinfolk run` under systemd: it says that it is ready, that it turns, and that it leaves."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kinfolk.cli import systemd


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


def test_it_tells_when_it_has_joined_that_its_loop_turns_and_when_it_leaves(shell, listener):
    told = {"NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "300000"}
    endless = shell.serve("endless", "--name", "ada", **told)
    heard: list[str] = []
    while len(heard) < 4:
        heard.append(listener.recv(1000).decode())
    (ready,) = [text for text in heard if text != "WATCHDOG=1"]
    assert ready == f"READY=1\nSTATUS={endless.ready()} is up, with 0 peers"
    endless.signal(signal.SIGTERM)
    while not heard[-1].startswith("STOPPING=1"):
        heard.append(listener.recv(1000).decode())
    assert endless.end().code == 0


async def test_a_loop_that_stands_still_tells_nothing(listener, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", listener.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    listener.settimeout(0.2)
    async with systemd.watched("ada@127.0.0.1:1"):
        await asyncio.sleep(0)
        assert listener.recv(100) == b"WATCHDOG=1"
        with pytest.raises(TimeoutError):
            listener.recv(100)  # this thread is the loop's: nothing turns meanwhile
        await asyncio.sleep(0.05)
        assert listener.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    "environ", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}]
)
def test_it_does_not_tell_what_nobody_has_asked_it_for(environ, monkeypatch):
    for key in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environ.items():
        monkeypatch.setenv(key, value)
    assert systemd.watchdog() is None
    systemd.tell("ada@127.0.0.1:1", "READY=1")


def test_a_systemd_that_does_not_listen_is_logged_and_no_more(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    systemd.tell("ada@127.0.0.1:1", "READY=1")
    assert "systemd could not be told READY=1" in caplog.text
