"""The auction house as its users start it: three programs, and a fourth that keeps them running."""

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from examples.auction.__main__ import WORDS, port_of
from tests.background import Background, free_ports, until

ROOT = Path(__file__).parent.parent.parent


class House:
    """``python -m examples.auction``, with ports of its own."""

    def __init__(self, directory: Path, environment: Mapping[str, str], seconds: float = 600.0) -> None:
        self.base = free_ports(20)
        self.environment = {**environment, "PYTHONPATH": str(ROOT / "src")}
        command = self._command("start", "--seconds", str(seconds))
        log = directory / "house.log"
        self._program = Background(command, cwd=ROOT, environment=self.environment, log=log)

    def _command(self, *words: str) -> list[str]:
        return ["-m", "examples.auction", *words, "--base", str(self.base)]

    @property
    def log(self) -> str:
        """All that it has printed."""
        return self._program.log

    def url(self, word: str) -> str:
        """Where the pages of a node are."""
        return f"http://127.0.0.1:{port_of(word, self.base)}"

    def get(self, word: str, path: str) -> httpx.Response | None:
        """What a node answers; None if it does not."""
        try:
            return httpx.get(self.url(word) + path, timeout=10, trust_env=False)
        except httpx.TransportError:
            return None

    def lots(self, word: str) -> dict[int, dict[str, Any]]:
        """All lots, as a node knows them."""
        answer = self.get(word, "/api/lots")
        return {lot["number"]: lot for lot in answer.json()} if answer is not None and answer.status_code == 200 else {}

    def lot(self, word: str, number: int = 1) -> dict[str, Any]:
        """A lot, as soon as this node knows it."""
        return until(lambda: self.lots(word).get(number), lambda: f"{word} knows lot {number}: {self.log}")

    def wait_until_up(self) -> None:
        """Wait until all nodes serve, and know what is sold."""
        for word in WORDS:
            self.lot(word, 3)

    def bid(self, word: str, who: str, amount: int, number: int = 1, bid: str | None = None) -> httpx.Response | None:
        """Send a bid to a node, once."""
        offer = {"id": bid or uuid.uuid4().hex, "who": who, "amount": amount}
        try:
            return httpx.post(f"{self.url(word)}/api/lots/{number}/bids", json=offer, timeout=10, trust_env=False)
        except httpx.TransportError:
            return None

    def must_bid(self, word: str, who: str, amount: int, number: int = 1) -> dict[str, Any]:
        """Bid as the page does: send it until somebody says yes or no."""
        bid = uuid.uuid4().hex

        def look() -> httpx.Response | None:
            answer = self.bid(word, who, amount, number, bid)
            return None if answer is None or answer.status_code == 503 else answer

        answer = until(look, lambda: f"{word} answers a bid: {self.log}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def kill(self, word: str) -> int:
        """End a node as a power cut would; its process."""
        pid = int(re.findall(rf"{word} starts: .* \(process (\d+)\)", self.log)[-1])
        os.kill(pid, signal.SIGKILL)
        return pid

    def rolling_restart(self) -> subprocess.Popen[str]:
        """The command, which runs."""
        return subprocess.Popen(
            [sys.executable, *self._command("rolling-restart")],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def stop(self) -> str:
        """Ctrl-C; what it has printed."""
        return self._program.stop(signal.SIGINT)

    def close(self) -> None:
        """Nothing is left of it."""
        self._program.close()


def accepted(lot: dict[str, Any]) -> list[int]:
    """The amounts of the best bids of a lot, best first."""
    return [bid["amount"] for bid in lot["bids"]]
