"""The command `kinfolk` as a user runs it: in processes of its own, with a home of its own."""

import os
import pty
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

KINFOLK = [sys.executable, "-m", "kinfolk"]
PATIENCE = 20.0

MODULE = """
import asyncio, os, sys

async def body(me):
    await me.receive()

async def shop(node):
    for name in ("shop/db", "shop/[bold]mail", "bell\\x1b[31m\\a", "odd\\tname\\n", "sp\u00e4ti"):
        if node.name.startswith("ada"):
            await node.names.register(name, node.spawn(body))
    print("ready", node.name, flush=True)

async def quick(node):
    print("ready", node.name, len(node.peers()), os.getpid(), sys.argv[0], flush=True)

async def endless(node):
    print("ready", node.name, flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        print("tidy", flush=True)

async def stubborn(node):
    print("ready", node.name, flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("no", flush=True)

async def broken(node):
    raise LookupError("the shop has burnt down")

def not_async(node):
    pass

constant = 1
"""


@dataclass
class Ended:
    """What a command has printed, and its exit code."""

    out: str
    err: str
    code: int

    @property
    def only_line(self) -> str:
        """The one line on stderr, if nothing else was printed."""
        assert self.out == "", self.out
        assert self.err.startswith("kinfolk: ") and self.err.endswith("\n") and self.err.count("\n") == 1, self.err
        return self.err


class Shell:
    """A directory with settings and programs, in which commands are run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nodes: list[Served] = []
        clean = {key: value for key, value in os.environ.items() if not key.startswith("KINFOLK_")}
        for key in ("NO_COLOR", "FORCE_COLOR"):
            clean.pop(key, None)
        self.environ = {**clean, "KINFOLK_HOME": str(directory / "home"), "TERM": "xterm", "COLUMNS": "200"}
        (directory / "shopping.py").write_text(MODULE)

    def run(self, *arguments: str, **environ: str) -> Ended:
        """Run a command to its end, its output in pipes."""
        done = subprocess.run(
            [*KINFOLK, *arguments],
            cwd=self.directory,
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return Ended(done.stdout, done.stderr, done.returncode)

    def run_on_terminal(self, *arguments: str, **environ: str) -> Ended:
        """Run a command to its end on a pseudo-terminal."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*KINFOLK, *arguments],
            cwd=self.directory,
            env={**self.environ, **environ},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        out = b""
        try:
            while data := os.read(ours, 65536):
                out += data
        except OSError:  # how Linux says that nobody has the other end open any longer
            pass
        os.close(ours)
        return Ended(out.decode(), "", process.wait(PATIENCE))

    def serve(self, function: str, *arguments: str, **environ: str) -> "Served":
        """Start `kinfolk run` and leave it running."""
        return self.start("run", f"shopping:{function}", *arguments, **environ)

    def start(self, *arguments: str, **environ: str) -> "Served":
        """Start a command and leave it running, its output in pipes."""
        process = subprocess.Popen(
            [*KINFOLK, *arguments],
            cwd=self.directory,
            env={**self.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        served = Served(process)
        self.nodes.append(served)
        return served

    def close(self) -> None:
        """End what still runs."""
        for node in self.nodes:
            node.process.kill()
            node.process.communicate()


class Served:
    """A command that was left running."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def line(self) -> list[str]:
        """The next line of its output, in words. Waits for it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it has ended: {self.end().err}"
        return line.split()

    def ready(self) -> str:
        """Wait until its function has printed that it is ready; the node's name."""
        word, name, *_ = self.line()
        assert word == "ready"
        return name

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> Ended:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return Ended(out, err, self.process.returncode)
