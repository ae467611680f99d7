"""An etcd of one's own, for the demo and for tests: its members in OS processes, on loopback, with a directory each."""

import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

HOW_TO_INSTALL = "etcd is not installed here: on Debian and Ubuntu, apt install etcd-server; else see https://etcd.io"


def is_installed() -> bool:
    """Whether there is an etcd to start."""
    return shutil.which("etcd") is not None


class Member:
    """One member of an etcd.

    Args:
        directory: where it keeps its data and its log.
        word: its name in the cluster.
        ports: one for clients, one for other members, one to ask how it is.
        options: further arguments for it.
    """

    def __init__(self, directory: Path, word: str, ports: tuple[int, int, int], options: tuple[str, ...] = ()) -> None:
        self.word = word
        self.endpoint, peer, state = (f"127.0.0.1:{port}" for port in ports)
        self.peer, self.state = f"http://{peer}", f"http://{state}"
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, members: "list[Member]") -> None:
        """Start it, as one of these; see `wait_until_ready`."""
        log = (self._directory / f"{self.word}.log").open("ab")
        scheme = "https" if any("cert-file" in option for option in self._options) else "http"
        with log:
            self._process = subprocess.Popen(  # noqa: S603 - arguments of ours
                [
                    *("etcd", "--name", self.word, "--data-dir", str(self._directory / self.word)),
                    *("--listen-client-urls", f"{scheme}://{self.endpoint}"),
                    *("--advertise-client-urls", f"{scheme}://{self.endpoint}"),
                    *("--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer),
                    *("--listen-metrics-urls", self.state),
                    *("--initial-cluster", ",".join(f"{member.word}={member.peer}" for member in members)),
                    *("--heartbeat-interval", "50", "--election-timeout", "500"),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: we end it
            )

    @property
    def pid(self) -> int:
        """Of its OS process."""
        assert self._process is not None, "it has been started"
        return self._process.pid

    def is_ready(self) -> bool:
        """Whether it serves, and knows a leader."""
        try:
            with urllib.request.urlopen(f"{self.state}/health", timeout=1) as answer:  # noqa: S310 - of ours
                return b"true" in answer.read()
        except OSError:
            return False

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None, "it has been started"
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once; `start` starts it again with the data it has."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Server:
    """An etcd.

    Args:
        directory: for its data.
        size: how many members it has.
        options: further arguments for each member.
    """

    def __init__(self, directory: Path, size: int = 1, options: tuple[str, ...] = ()) -> None:
        ports = iter(_free_ports(3 * size))
        self.members = [
            Member(directory, f"etcd{number}", (next(ports), next(ports), next(ports)), options)
            for number in range(size)
        ]

    @property
    def url(self) -> str:
        """What a node needs to know."""
        return f"etcd://{','.join(member.endpoint for member in self.members)}"

    def start(self) -> None:
        """Start all members."""
        for member in self.members:
            member.start(self.members)

    def wait_until_ready(self, within: float = 20.0) -> None:
        """Wait until all members serve.

        Raises:
            TimeoutError: they did not in time.
        """
        until = time.monotonic() + within
        while not all(member.is_ready() for member in self.members):
            if time.monotonic() > until:
                raise TimeoutError(f"etcd at {self.url} does not serve within {within:g} s")
            time.sleep(0.02)

    def stop(self) -> None:
        """End all members at once."""
        for member in self.members:
            member.kill()


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
