"""A fleet: nodes in OS processes of their own, told what to do, killed and stopped, and never left over."""

import asyncio
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import kinfolk
from kinfolk.cookie import new_cookie
from tests.secrecy import secrets_in
from tests.system.worker import Home

PATIENCE = 15.0
"""Seconds after which something that must happen has not happened."""
SLACK = float(os.environ.get("KINFOLK_FAULTS_SLACK", "4"))
"""How much longer things may take than is promised, since machines are shared: 1 on one that is idle."""
PROGRAM = Path(__file__).with_name("worker.py")
MISHAPS = ("Traceback", "ERROR", "CRITICAL", "Warning", "never retrieved", "never awaited", "bug in kinfolk")
"""What no log may hold, except where a test says that it will."""


class Raised(Exception):
    """An order that a worker could not carry out: the error that was raised there."""

    def __init__(self, error: str, text: str, holder: str | None = None) -> None:
        super().__init__(f"{error}: {text}")
        self.error, self.text, self.holder = error, text, holder


@dataclass(frozen=True)
class State:
    """What a node knows."""

    name: str
    creation: int
    peers: list[str]
    stalled: dict[str, float]
    names: dict[str, str]
    counters: dict[str, int]


class Nursery:
    """Where workers come from: a program that has imported everything and forks them.

    `within`: a command that runs another one, in whatever surroundings the workers are to have.
    """

    def __init__(self, directory: Path, within: Sequence[str] = ()) -> None:
        self.path = os.fspath(directory / "nursery")
        self._process = subprocess.Popen(
            [*within, sys.executable, "-W", "error", os.fspath(PROGRAM), self.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.fspath(Path(kinfolk.__file__).parent.parent)},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def close(self) -> None:
        """Fork no more."""
        self._process.communicate(timeout=PATIENCE)

    async def worker(self, word: str, name: str, home: Home) -> "Worker":
        """A new worker."""
        reader, writer = await asyncio.open_unix_connection(self.path, limit=2**24)
        writer.write(json.dumps(home).encode() + b"\n")
        pid = json.loads(await reader.readline())
        return Worker(word, name, pid, Path(home["log"]), reader, writer)


class Worker:
    """A node in its OS process."""

    def __init__(
        self, word: str, name: str, pid: int, log: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.word = word
        self.name = name
        self.pid = pid
        self.killed_at = 0.0
        self._log = log
        self._reader, self._writer = reader, writer
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._reading = asyncio.create_task(self._read())

    def __repr__(self) -> str:
        return self.word

    @property
    def runs(self) -> bool:
        """Whether its process has not ended."""
        return not self._reading.done()

    async def ask(self, order: str, **arguments: Any) -> Any:
        """Give an order; its value.

        Raises:
            Raised: what it raised there.
        """
        number = next(self._numbers)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps([number, order, arguments]).encode() + b"\n")
        async with asyncio.timeout(PATIENCE):
            return await future

    async def attempt(self, order: str, **arguments: Any) -> Any:
        """Give an order; its value, or the `Raised`."""
        try:
            return await self.ask(order, **arguments)
        except Raised as raised:
            return raised

    async def state(self) -> State:
        """What it knows."""
        return State(**await self.ask("state"))

    async def has_seen(self, pid: str, messages: Sequence[object]) -> bool:
        """Whether these are what its actor has got."""
        return bool(await self.ask("seen", pid=pid) == list(messages))

    async def has_ended(self, pid: str) -> bool:
        """Whether its actor is dead."""
        return await self.ask("exit_reason", pid=pid) is not None

    async def has_lost(self, peers: int) -> bool:
        """Whether it has lost so many peers since its start."""
        return (await self.state()).counters.get("peers_lost", 0) >= peers

    def log(self) -> list[str]:
        """What it has logged, line by line."""
        return self._log.read_text(errors="replace").splitlines()

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal."""
        assert self.runs, f"{self} has ended, and its pid may be another's"
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """End its process with SIGKILL. `killed_at` is a moment at which its sockets were not closed yet."""
        self.killed_at = time.monotonic()
        self.signal(signal.SIGKILL)
        await self._reading

    async def end(self, patience: float = 10.0) -> None:
        """Let it close its node and end; kill it if it does not."""
        if self.runs:
            self._writer.write_eof()
        try:
            async with asyncio.timeout(patience):
                await asyncio.shield(self._reading)
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"{self} does not end: {self.log()[-5:]}") from None

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                answer = json.loads(line)
                future = self._asked.pop(answer["number"])
                if future.done():
                    continue
                if "error" in answer:
                    future.set_exception(Raised(answer["error"], answer["text"], answer["holder"]))
                else:
                    future.set_result(answer["value"])
        except ConnectionError:  # it was killed before it had read all
            pass
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
        for future in self._asked.values():
            if not future.done():
                future.set_exception(ConnectionResetError(f"{self} has ended: {self.log()[-5:]}"))


class Fleet:
    """All workers of a test, in a directory of their own, with a fresh cookie."""

    def __init__(self, directory: Path, nursery: Nursery) -> None:
        self.directory = directory
        self.nursery = nursery
        self.workers: dict[str, Worker] = {}
        self.routes: dict[str, dict[int, int]] = {}
        """For each word, by the port that it dials: the port that it reaches."""
        self.ports: dict[str, int] = {}
        self.expected_mishaps: list[str] = []
        """Parts of log lines that are no mishap, in this test."""
        self.cookie = new_cookie()
        self._logs: dict[Path, None] = {}
        self._cookie_file = self.write_cookie("cookie", self.cookie)

    def write_cookie(self, file: str, cookie: str) -> Path:
        """Put a cookie into a file of the fleet's directory."""
        path = self.directory / file
        path.touch(mode=0o600)
        path.write_text(cookie)
        return path

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for worker in self.workers.values():
            if worker.runs:
                worker.signal(signal.SIGCONT)
        ends = await asyncio.gather(*(worker.end() for worker in self.workers.values()), return_exceptions=True)
        if kind is None:
            self.check_logs()
            assert not [end for end in ends if end is not None]

    def name(self, word: str) -> str:
        """The name of a node with this word, on a port of its own; the same in all its lives."""
        if word not in self.ports:
            self.ports[word] = free_port(self.ports.values())
        return f"{word}@{self.host(word)}:{self.ports[word]}"

    def host(self, word: str) -> str:
        """Where this node is."""
        return "127.0.0.1"

    def nursery_of(self, word: str) -> Nursery:
        """Where its workers come from."""
        return self.nursery

    def connections(self) -> int:
        """How many TCP connections there are to its nodes."""
        return connections(self.ports.values())

    async def enter(self, word: str, **environment: str) -> Worker:
        """A new process, whose node has not been made yet."""
        name, log = self.name(word), self.directory / f"{word}.log"
        settings = {
            "KINFOLK_HOME": os.fspath(self.directory / "home"),
            "KINFOLK_COOKIE_FILE": os.fspath(self._cookie_file),
        }
        home = Home(
            environment={**settings, **environment},
            directory=os.fspath(self.directory),
            log=os.fspath(log),
            routes={str(port): proxy for port, proxy in self.routes.get(word, {}).items()},
        )
        self._logs[log] = None
        worker = self.workers[word] = await self.nursery_of(word).worker(word, name, home)
        return worker

    async def start(self, word: str, join: Sequence[str] = (), **settings: Any) -> Worker:
        """A new process with a node that has started and joined."""
        worker = await self.enter(word)
        await worker.ask("start", name=worker.name, join=[self.name(other) for other in join], **settings)
        return worker

    async def mesh(self, *words: str, **settings: Any) -> list[Worker]:
        """Workers that are connected, each with all others: all join the first."""
        entered = await asyncio.gather(*map(self.enter, words))
        first, *others = entered
        await first.ask("start", name=first.name, join=[], **settings)
        join = [first.name]
        await asyncio.gather(*(worker.ask("start", name=worker.name, join=join, **settings) for worker in others))
        await agreed(entered)
        return entered

    def check_logs(self) -> None:
        """No worker has logged a mishap or a secret, or has one on its command line."""
        for log in self._logs:
            text = log.read_text(errors="replace")
            assert not secrets_in(text, self.cookie), f"{log.name} holds the cookie"
            for line in text.splitlines():
                if any(expected in line for expected in self.expected_mishaps):
                    continue
                assert not any(mishap in line for mishap in MISHAPS), f"{log.name}: {line}\n{text}"


async def until(condition: Callable[[], Awaitable[Any] | Any], what: str, within: float = PATIENCE) -> Any:
    """Wait until a condition holds; its value. It may also fail by an AssertionError, which then is the reason."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        why = ""
        try:
            value = condition()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
        except AssertionError as error:
            why = f": {error}"
        assert loop.time() < deadline, f"not within {within:g} s: {what}{why}"
        await asyncio.sleep(0.01)


async def always(condition: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Check again and again, for so many seconds, that nothing is wrong."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while loop.time() < until:
        await condition()
        await asyncio.sleep(0.02)


async def states(workers: Iterable[Worker]) -> list[State]:
    """What each of them knows."""
    return list(await asyncio.gather(*(worker.state() for worker in workers)))


async def check_agreement(workers: Iterable[Worker], names: Mapping[str, str] | None = None) -> dict[str, str]:
    """At this moment they are connected, each with all others, and know the same names: these, if given."""
    known = await states(workers)
    everybody = {state.name for state in known}
    table = dict(known[0].names if names is None else names)
    for state in known:
        assert set(state.peers) == everybody - {state.name}, f"{state.name} is connected to {state.peers}"
        differing = {
            name: (state.names.get(name), table.get(name))
            for name in state.names.keys() | table.keys()
            if state.names.get(name) != table.get(name)
        }
        assert not differing, f"{state.name} knows, and should: {differing}"
    return table


async def agreed(
    workers: Iterable[Worker], names: Mapping[str, str] | None = None, within: float = PATIENCE
) -> dict[str, str]:
    """Wait until they agree; what they agree on."""
    workers = list(workers)

    async def agree() -> list[dict[str, str]]:
        return [await check_agreement(workers, names)]

    (table,) = await until(agree, f"{workers} agree", within)
    return dict(table)


def resident(worker: Worker) -> int:
    """The bytes of memory that its process takes."""
    return int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def connections(ports: Iterable[int]) -> int:
    """How many TCP connections to these ports of loopback are established, as the operating system sees it."""
    listening = {f"0100007F:{port:04X}" for port in ports}
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(local in listening and state == "01" for _, local, _, state, *_ in map(str.split, table))


def free_port(taken: Iterable[int] = ()) -> int:
    """A port that is free, and outside of those that the system gives to who connects: it stays free for restarts."""
    taken = set(taken)
    while True:
        port = random.randrange(12000, 32000)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in taken:
            return port
