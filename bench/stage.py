"""The stage: the programs that one contender needs, started, asked, and ended with it."""

import asyncio
import datetime as dt
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.agent import Here

P = ParamSpec("P")
R = TypeVar("R")

ROOT = Path(__file__).parent.parent
ERLANG = Path(__file__).parent / "erlang"
PATIENCE = 600.0
"""Seconds after which an order that has not been answered never will be."""
ONE_CORE = 0
"""Where both ends run when round trips are compared: else the waking of an idle core is what is measured."""


class Missing(Exception):
    """A reference cannot be measured here. The text says what is missing and how to install it."""


class Failed(Exception):
    """An agent could not do what it was told."""


class Agent:
    """A program that does what it is told over its standard input and output."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.log = log

    async def _say(self, line: str, patience: float) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None, "both are pipes"
        self.process.stdin.write(line.encode() + b"\n")
        try:
            async with asyncio.timeout(patience):
                answer = await self.process.stdout.readline()
        except TimeoutError:
            raise Failed(f"no answer within {patience:g} s to {line[:200]}") from None
        if not answer:
            raise Failed(f"the agent has ended at {line[:200]}: {self.log.read_text(errors='replace')[-2000:]}")
        return answer.decode()

    def kill(self) -> None:
        """End it with SIGKILL."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGKILL)

    async def end(self) -> None:
        """End it; in good order, if it is quick about it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            async with asyncio.timeout(3):
                await self.process.wait()
        except TimeoutError:
            self.kill()
            await self.process.wait()


class PythonAgent(Agent):
    """An agent that runs functions of ours."""

    async def run(
        self, function: Callable[Concatenate[Here, P], Coroutine[Any, Any, R]], *args: P.args, **_: P.kwargs
    ) -> R:
        """Run a function of a module there; its result. Both have to be what JSON can carry."""
        order = json.dumps([f"{function.__module__}:{function.__qualname__}", args])
        answer = json.loads(await self._say(order, PATIENCE))
        if "error" in answer:
            raise Failed(answer["error"])
        value: R = answer["value"]
        return value


class ErlangAgent(Agent):
    """A node of Erlang that runs functions of `bench.erl`."""

    name: str

    async def run(self, function: str, *args: object) -> Any:
        """Run a function there; its result."""
        answer = await self._say(f"{{{function}, {_term(list(args))}}}.", PATIENCE)
        if not answer.startswith("> "):
            raise Failed(f"{function}: {answer.strip()}")
        return json.loads(answer[2:])


class Stage:
    """Starts the agents of one contender. Use it as ``async with``; at its end they all end.

    Args:
        work: a directory for what they need and write.
    """

    def __init__(self, work: Path) -> None:
        self.work = Path(tempfile.mkdtemp(dir=work))
        self._agents: list[Agent] = []
        self._epmd = 0

    async def __aenter__(self) -> "Stage":
        return self

    async def __aexit__(self, *_: object) -> None:
        # The last first: what was started for it, a server or a port mapper, has to outlive it.
        for agents in (self._agents[1:], self._agents[:1]):
            await asyncio.gather(*(agent.end() for agent in agents))
        shutil.rmtree(self.work, ignore_errors=True)

    async def end(self, *agents: Agent) -> None:
        """End these before the others."""
        await asyncio.gather(*(agent.end() for agent in agents))
        self._agents = [agent for agent in self._agents if agent not in agents]

    async def python(self, loop: str = "asyncio", *, core: int | None = None) -> PythonAgent:
        """An agent in Python, on one core if that is given."""
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "KINFOLK_HOME": str(self.work)}
        command = [*_pinned(core), sys.executable, "-m", "bench.agent", loop]
        return await self._start(PythonAgent, command, environment)

    async def erlang(self, word: str, *, tls: bool = True, core: int | None = None) -> ErlangAgent:
        """A node of Erlang, on one core if that is given.

        Raises:
            Missing: there is no Erlang, or not what TLS needs.
        """
        erl = _installed("erl", "erlang-base erlang-ssl")
        environment = {**os.environ, "ERL_EPMD_PORT": str(await self._port_mapper()), "HOME": str(self.work)}
        command = [*_pinned(core), erl, "-noshell", "-pa", str(await self._compiled()), *_ERLANG_SETTINGS]
        command += ["-name", f"{word}@127.0.0.1", "-setcookie", "bench"]
        if tls:
            command += ["-proto_dist", "inet_tls", "-ssl_dist_optfile", str(self._distribution())]
        agent = await self._start(ErlangAgent, [*command, "-s", "bench", "start"], environment)
        agent.name = f"{word}@127.0.0.1"
        await agent.run("ready")
        return agent

    async def program(self, *command: str, packages: str) -> Agent:
        """Some other program, which needs to be told nothing.

        Raises:
            Missing: it is not installed; `packages` are Debian's names of what brings it.
        """
        return await self._start(Agent, [_installed(command[0], packages), *command[1:]], dict(os.environ))

    def certificate(self) -> Path:
        """A file with a certificate for anybody, and its key."""
        path = self.work / "certificate.pem"
        if not path.exists():
            path.write_bytes(_certificate())
            path.chmod(0o600)
        return path

    def _distribution(self) -> Path:
        path = self.work / "distribution.conf"
        pem = self.certificate()
        end = f'{{certfile, "{pem}"}}, {{keyfile, "{pem}"}}, {{verify, verify_none}}'
        path.write_text(f"[{{server, [{end}]}}, {{client, [{end}]}}].\n")
        return path

    async def _port_mapper(self) -> int:
        """An epmd of our own: one that Erlang starts by itself would outlive us."""
        if not self._epmd:
            self._epmd = free_port()
            await self.program("epmd", "-port", str(self._epmd), packages="erlang-base")
            await listening(self._epmd)
        return self._epmd

    async def _compiled(self) -> Path:
        ebin = self.work.parent / "ebin"
        if not (ebin / "bench.beam").exists():
            ebin.mkdir(exist_ok=True)
            source = str(ERLANG / "bench.erl")
            compiler = await asyncio.create_subprocess_exec(_installed("erlc", "erlang-base"), "-o", str(ebin), source)
            if await compiler.wait():
                raise Failed(f"{source} does not compile")
        return ebin

    async def _start(self, kind: type["A"], command: list[str], environment: dict[str, str]) -> "A":
        log = self.work / f"{len(self._agents)}.log"
        pipe = asyncio.subprocess.PIPE
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, stderr=stderr, env=environment, cwd=self.work, limit=2**26
            )
        agent = kind(process, log)
        self._agents.append(agent)
        return agent


A = TypeVar("A", bound=Agent)

# Its standard output is for answers; and `global` is to let a process have several names, as all others do.
_ERLANG_SETTINGS = (
    *("-kernel", "logger", "[{handler, default, logger_std_h, #{config => #{type => standard_error}}}]"),
    *("global_multi_name_action", "allow"),
)


def _pinned(core: int | None) -> list[str]:
    if core is None:
        return []
    return [_installed("taskset", "util-linux"), "-c", str(core)]


def _installed(program: str, packages: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise Missing(f"{program} is not installed (Debian: apt-get install --no-install-recommends {packages})")
    return path


def _term(value: object) -> str:
    """A value as Erlang writes it: text is an atom."""
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, list):
        return f"[{', '.join(map(_term, value))}]"
    return str(value)


def _certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + private


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def listening(*ports: int, within: float = 15.0) -> None:
    """Wait until somebody listens on these ports."""
    for port in ports:
        async with asyncio.timeout(within):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break


async def together(*orders: Coroutine[Any, Any, R]) -> list[R]:
    """Give orders to several agents at once; their results."""
    return list(await asyncio.gather(*orders))


def names_of(agents: Iterable[ErlangAgent]) -> list[str]:
    """The names of nodes of Erlang."""
    return [agent.name for agent in agents]
