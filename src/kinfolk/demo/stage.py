"""The stage: one OS process for each member, told what to do over a pipe, and ended in every case."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import DecodeError, convert, json

import kinfolk
from kinfolk.cookie import new_cookie
from kinfolk.demo.checks import Broken, Reply, State, succeeded
from kinfolk.demo.etcd import Server

PATIENCE = 10.0
"""Seconds after which an answer, or an agreement, has not come."""


class Member:
    """One member in its OS process."""

    def __init__(self, word: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.word = word
        self.node = ""
        """Its node's name, once it has started."""
        self._process = process
        self._log = log
        self._obeying = asyncio.Lock()  # one order after the other

    def __str__(self) -> str:
        return self.word

    async def attempt(self, order: str, *arguments: object) -> Reply:
        """Give it an order; what came of that.

        Raises:
            Broken: it has died, or does not answer.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None, "both are pipes"
        try:
            async with self._obeying, asyncio.timeout(PATIENCE):
                stdin.write(json.encode((order, arguments)) + b"\n")
                await stdin.drain()
                return json.decode(await stdout.readline(), type=Reply)
        except (ConnectionError, DecodeError):
            raise Broken(f"{self} has died instead of obeying {order!r}") from None
        except TimeoutError:
            raise Broken(f"{self} has not obeyed {order!r} within {PATIENCE:g} s") from None

    async def do(self, order: str, *arguments: object) -> str:
        """Give it an order that it must be able to obey; what came of that.

        Raises:
            Broken: it was not.
        """
        return str(succeeded(await self.attempt(order, *arguments)))

    async def start(self, join: "Member | None" = None) -> None:
        """Start its node, under its old name if it had one; of the node to join it is told the bare address."""
        addresses = [] if join is None else [join.node.partition("@")[2]]
        self.node = await self.do("start", self.node or f"{self.word}@127.0.0.1:0", addresses)

    async def state(self) -> State:
        """What its node knows."""
        return convert(succeeded(await self.attempt("state")), State)

    async def kill(self) -> None:
        """End its process with SIGKILL."""
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    async def end(self) -> None:
        """End its process in any case: when its input ends, it closes its node; if not soon, it is killed."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(2.0):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    @property
    def exit_code(self) -> int | None:
        """How its process has ended; None while it runs."""
        return self._process.returncode

    def last_words(self) -> list[str]:
        """The end of what it logged."""
        return self._log.read_text(errors="replace").splitlines()[-10:]


class Stage:
    """Where members live: a directory of their own, with a fresh cookie, far from the user's settings."""

    def __init__(self, directory: Path, etcd: Server | None = None) -> None:
        self.etcd = etcd
        """Where names are, if not in the mesh."""
        self.members: dict[str, Member] = {}
        self._directory = directory
        cookie = directory / "cookie"
        with open(os.open(cookie, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(new_cookie())
        settings = {"KINFOLK_HOME": os.fspath(directory), "KINFOLK_COOKIE_FILE": os.fspath(cookie)}
        if etcd is not None:
            settings["KINFOLK_REGISTRY"] = etcd.url
        # The members run elsewhere, so that a kinfolk.toml here means nothing to them: they must still find us.
        path = [os.fspath(Path(kinfolk.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        own = {key: value for key, value in os.environ.items() if not key.startswith("KINFOLK_")}
        self._environment = {**own, **settings, "PYTHONPATH": os.pathsep.join(filter(None, path))}

    async def enter(self, *words: str) -> list[Member]:
        """New members, whose programs run but whose nodes have not started."""
        return list(await asyncio.gather(*map(self._enter, words)))

    async def _enter(self, word: str) -> Member:
        log = self._directory / f"{word}.log"
        with log.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "kinfolk.demo.member"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                cwd=self._directory,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for us: we end them
            )
        former, member = self.members.get(word), Member(word, process, log)
        if former is not None:
            member.node = former.node
        self.members[word] = member
        await member.do("ready")
        return member


@asynccontextmanager
async def stage(with_etcd: bool = False) -> AsyncGenerator[Stage]:
    """A stage, cleared at the end whatever happens. With an etcd, if names are to be there."""
    with tempfile.TemporaryDirectory(prefix="kinfolk-demo-") as directory:
        here = Stage(Path(directory), Server(Path(directory)) if with_etcd else None)
        try:
            if here.etcd is not None:
                here.etcd.start()
                await asyncio.to_thread(here.etcd.wait_until_ready)
            yield here
        finally:
            await asyncio.gather(*(member.end() for member in here.members.values()))
            if here.etcd is not None:
                here.etcd.stop()
