"""A program that runs beside a test, with all that it starts; and waiting for what it does."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tests.system.fleet import free_port

T = TypeVar("T")
PATIENCE = 60.0


def until(look: Callable[[], T | None], what: Callable[[], str]) -> T:
    """Look until there is something; that. `what` says what is missing, if it does not come."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if (found := look()) is not None:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE:g} s: {what()}")


def free_ports(count: int, hosts: Sequence[str] = ("127.0.0.1",)) -> int:
    """The first of so many ports in a row that are free."""
    while True:
        first = free_port()
        try:
            for host, port in itertools.product(hosts, range(first, first + count)):
                with socket.socket() as sock:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind((host, port))
        except OSError:
            continue
        return first


class Background:
    """A program of Python, its output in a file. Nothing of it is left over after `close`, whatever has happened."""

    def __init__(self, arguments: Sequence[str], *, cwd: Path, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=cwd,
                env=dict(environment),
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """All that it has printed."""
        return self._log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> str:
        """Tell it to end, and wait until it has; what it has printed."""
        self.process.send_signal(number)
        self.process.wait(PATIENCE)
        return self.log

    def close(self) -> None:
        """End it at once, if it has not ended, with all that it has started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
