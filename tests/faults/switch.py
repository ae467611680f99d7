"""A switch in user space: namespaces of the network, each with one interface, whose frames this process carries.

Each frame may be held up, lost or dropped, by who sends it and who is to get it; so links can be slow, bad, and broken
in one direction alone, which no firewall and no cable can do to all of TCP alike. Needs root, ``ip`` and TAP devices.
"""

import asyncio
import ctypes
import fcntl
import itertools
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 2, 0x1000
_CLONE_NEWNET = 0x40000000
_FRAME = 65536
_AT_ONCE = 64
"""Frames that are taken from an interface before others have their turn."""
_MAC = bytes((2, 0, 0, 0, 0))
_numbers = itertools.count()


class Link:
    """One direction between two ports."""

    def __init__(self) -> None:
        self.cut = False
        self.loss = 0.0
        self.delay = 0.0
        self.jitter = 0.0
        """Up to so many seconds more or less than the delay; frames never overtake each other."""
        self.arrives = 0.0
        self.carried = 0


class Port:
    """A namespace with one interface: the last byte of its address is its number."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.namespace = f"kf{os.getpid()}-{next(_numbers)}"
        self.address = f"10.77.0.{number}"
        _ip("netns", "add", self.namespace)
        self.tap = _tap(self.namespace)
        self.run("ip", "link", "set", "eth0", "address", f"02:00:00:00:00:{number:02x}")
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self.run("ip", "link", "set", device, "up")

    def run(self, *command: str) -> str:
        """Run a program in the namespace; what it says."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.namespace, *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def close(self) -> None:
        """The end of it."""
        os.close(self.tap)
        _ip("netns", "delete", self.namespace)


class Switch:
    """Ports 1 to `count`, each linked with each. Frames are carried as long as it is entered; `close` it in the end."""

    def __init__(self, count: int, seed: int = 0) -> None:
        self._chance = random.Random(seed)
        self.ports: dict[int, Port] = {}
        self.links = {(a, b): Link() for a in range(1, count + 1) for b in range(1, count + 1) if a != b}
        try:
            for number in range(1, count + 1):
                self.ports[number] = Port(number)
        except BaseException:
            self.close()
            raise

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for port in self.ports.values():
            loop.add_reader(port.tap, self._take, loop, port)
        return self

    async def __aexit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for port in self.ports.values():
            loop.remove_reader(port.tap)
        self.heal()

    def close(self) -> None:
        """Take all namespaces away."""
        for port in self.ports.values():
            port.close()
        self.ports.clear()

    def cut(self, senders: Iterable[int], receivers: Iterable[int]) -> None:
        """Nothing that these send arrives at those."""
        receivers = tuple(receivers)
        for sender in senders:
            for receiver in receivers:
                if sender != receiver:
                    self.links[sender, receiver].cut = True

    def part(self, some: Sequence[int], others: Sequence[int]) -> None:
        """Cut everything between the two sets."""
        self.cut(some, others)
        self.cut(others, some)

    def spoil(self, some: int, other: int, *, delay: float, jitter: float = 0.0, loss: float = 0.0) -> None:
        """Make a link slow and bad, each way."""
        for pair in ((some, other), (other, some)):
            link = self.links[pair]
            link.delay, link.jitter, link.loss = delay, jitter, loss

    def heal(self) -> None:
        """All links are as good as new."""
        for link in self.links.values():
            link.cut, link.loss, link.delay, link.jitter = False, 0.0, 0.0, 0.0

    def _take(self, loop: asyncio.AbstractEventLoop, port: Port) -> None:
        for _ in range(_AT_ONCE):
            try:
                frame = os.read(port.tap, _FRAME)
            except BlockingIOError:
                return
            # To one, or to everybody: who has which address is asked of all.
            known = frame[:5] == _MAC and frame[5] in self.ports
            for number in [frame[5]] if known else self.ports:
                if number != port.number:
                    self._carry(loop, self.links[port.number, number], self.ports[number], frame)

    def _carry(self, loop: asyncio.AbstractEventLoop, link: Link, to: Port, frame: bytes) -> None:
        if link.cut or self._chance.random() < link.loss:
            return
        link.carried += 1
        now = loop.time()
        due = now + link.delay + link.jitter * self._chance.uniform(-1, 1)
        link.arrives = max(due, link.arrives)
        if link.arrives <= now:
            self._put(to, frame)
        else:
            loop.call_at(link.arrives, self._put, to, frame)

    def _put(self, to: Port, frame: bytes) -> None:
        if to.number in self.ports:
            with suppress(BlockingIOError):  # a full queue loses frames, as that of any switch
                os.write(to.tap, frame)


def missing() -> str:
    """What keeps this machine from having a switch, in words; empty if nothing does."""
    if os.geteuid() != 0:
        return "needs root, for namespaces of the network"
    tools = [tool for tool in ("ip", "ss", "nft") if shutil.which(tool) is None]
    if tools:
        return f"needs {', '.join(tools)}: install iproute2 and nftables"
    if not Path("/dev/net/tun").exists():
        return "needs TAP devices, and there is no /dev/net/tun"
    made = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return "" if made.returncode == 0 else "may not make namespaces of the network here, though it is root"


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def _tap(namespace: str) -> int:
    """A TAP device ``eth0`` in the namespace; its descriptor, which belongs to it wherever it is used."""
    libc = ctypes.CDLL(None, use_errno=True)
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        assert libc.setns(there, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22s", b"eth0", _IFF_TAP | _IFF_NO_PI, b""))
        finally:
            assert libc.setns(here, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(here)
        os.close(there)
    return tap
