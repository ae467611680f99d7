"""The command `kinfolk` as a user runs it: in processes of its own, with a home of its own."""

import codecs
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pyte

KINFOLK = [sys.executable, "-m", "kinfolk"]
PATIENCE = 20.0

MODULE = """
import asyncio, contextlib, json, os, sys, time
from types import SimpleNamespace

async def body(me):
    await me.receive()

async def shop(node):
    for name in ("shop/db", "shop/[bold]mail", "bell\\x1b[31m\\a", "odd\\tname\\n", "sp\u00e4ti"):
        if node.name.startswith("ada"):
            await node.names.register(name, node.spawn(body))
    for group in ("room/[bold]hall", "room/1", "bell\\x1b[31m\\a"):
        for _ in range(2):
            await node.groups.join(group, node.spawn(body))
    print("ready", node.name, flush=True)

async def boss(node):
    (other,) = node.peers()
    print("started", (await node.spawn_on(other, "shopping:body")).node, flush=True)
    try:
        await node.spawn_on(other, "shopping:boss")
    except Exception as error:
        print(type(error).__name__, flush=True)

async def quick(node):
    print("ready", node.name, len(node.peers()), os.getpid(), sys.argv[0], flush=True)

async def obedient(node):
    "Registers and withdraws names as the lines on its standard input say."
    pids = {}
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    print("ready", node.name, flush=True)
    while line := await reader.readline():
        match json.loads(line):
            case ["add", *names]:
                for name in names:
                    pids[name] = node.spawn(body)
                    await node.names.register(name, pids[name])
            case ["remove", *names]:
                for name in names:
                    node.kill(pids.pop(name))
            case ["block", seconds]:
                time.sleep(seconds)
            case ["storm", number, count]:
                pid = node.spawn(body)
                for i in range(count // 2):
                    node.names.register_nowait(f"storm/{number}/{i}/" + 200 * "x", pid)
                    if i % 50 == 0:
                        await asyncio.sleep(0)
                node.kill(pid)
        waiting = max((len(watch._events) for watch in node.names._watches), default=0)
        links = node._parts.transport._links.values()
        unsent = max((len(link.session.outbox) for link in links if link.is_open), default=0)
        print("done", peak(), waiting, unsent, flush=True)

def peak():
    "Of memory, in KiB, where Linux tells it. (For getrusage it begins with that of the program that started this one.)"
    if not os.path.exists("/proc/self/status"):
        return 0
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

async def tree(node):
    from kinfolk import Child, Supervisor
    children = [Child(body, name="shop/db"), Child(body), Child(Supervisor([Child(body)], strategy="rest_for_one"))]
    await node.supervise(children, strategy="one_for_all")
    print("ready", node.name, flush=True)

from kinfolk import Call, Request

class Sell(Request[dict[str, int]]):
    amount: int
    by: object = None

async def till_body(me):
    total, notes = 0, []
    me.node.codec.learn(Sell)
    while True:
        message = await me.receive()
        match message:
            case Call(body=Sell(amount=amount)) if amount <= 0:
                message.fail(f"{amount} is nothing to sell")
            case Call(body=Sell(amount=amount)):
                total += amount
                message.reply({"total": total})
            case Call(body=str(note)):
                notes.append(note)
                message.reply(notes)
            case Call(body=[]):
                message.reply([me.pid, Sell(amount=total, by=[me.pid]), {1: b"a"}])
            case str(note):
                notes.append(note)

async def till(node):
    pid = node.spawn(till_body)
    await node.names.register("till", pid)
    node.names.local.register("drawer", pid)
    print("ready", node.name, flush=True)

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

async def work(me):
    while me.node.draining is None:
        await asyncio.sleep(0.01)
    for seconds in (0.1, 0.1, 60):
        number = await me.receive()
        await asyncio.sleep(seconds)
        print("did", number, flush=True)

async def deaf(me):
    await asyncio.Event().wait()

async def busy(node):
    "Has something to do, and begins with it when it is told to end."
    pid = node.spawn(work)
    for number in range(3):
        node.send(pid, number)
    print("ready", node.name, flush=True)

async def stuck(node):
    "Has something to do for ever."
    node.send(node.spawn(deaf), "hear me")
    await endless(node)

async def broken(node):
    raise LookupError("the shop has burnt down")

async def failing(node):
    "Makes the node's kernel fail halfway, and does not even notice."
    def fail(happened, now):
        raise RecursionError("halfway")
    driver = node._parts.driver
    driver._kernel = SimpleNamespace(handle=fail, next_deadline=driver._kernel.next_deadline, name=node.name)
    with contextlib.suppress(RecursionError):
        node.names.register_nowait("half", node.spawn(deaf))
    await endless(node)

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
        self.terminals: list[OnTerminal] = []
        clean = {key: value for key, value in os.environ.items() if not key.startswith("KINFOLK_")}
        for key in ("NO_COLOR", "FORCE_COLOR", "LINES"):
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
        return self.start_on_terminal(*arguments, environ=environ).end()

    def start_on_terminal(
        self, *arguments: str, lines: int = 24, environ: Mapping[str, str] = MappingProxyType({})
    ) -> "OnTerminal":
        """Start a command on a pseudo-terminal of its own, and leave it running."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, int(self.environ["COLUMNS"]), 0, 0))
        process = subprocess.Popen(
            [*KINFOLK, *arguments],
            cwd=self.directory,
            env={**self.environ, **environ},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal to it
        )
        os.close(theirs)
        started = OnTerminal(process, ours, int(self.environ["COLUMNS"]), lines)
        self.terminals.append(started)
        return started

    def serve(self, function: str, *arguments: str, **environ: str) -> "Served":
        """Start `kinfolk run` and leave it running."""
        return self.start("run", f"shopping:{function}", *arguments, **environ)

    def start(self, *arguments: str, **environ: str) -> "Served":
        """Start a command and leave it running, its output in pipes."""
        return self._start([*KINFOLK, *arguments], environ)

    def program(self, file: str, **environ: str) -> "Served":
        """Start a program in the directory and leave it running, its output in pipes."""
        return self._start([sys.executable, file], environ)

    def _start(self, command: list[str], environ: Mapping[str, str]) -> "Served":
        process = subprocess.Popen(
            command,
            cwd=self.directory,
            env={**self.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background ignores it
        )
        served = Served(process)
        self.nodes.append(served)
        return served

    def close(self) -> None:
        """End what still runs."""
        for node in self.nodes:
            node.process.kill()
            node.process.communicate()
        for terminal in self.terminals:
            terminal.process.kill()
            terminal.end()


class Served:
    """A command that was left running."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def line(self) -> list[str]:
        """The next line of its output, in words. Waits for it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it has ended: {self.end()}"
        return line.split()

    def ready(self) -> str:
        """Wait until its function has printed that it is ready; the node's name."""
        word, name, *_ = self.line()
        assert word == "ready"
        return name

    def order(self, *order: object) -> list[int]:
        """Have the function `obedient` do something: its peak of memory (KiB), events waiting, bytes unsent."""
        assert self.process.stdin is not None
        print(json.dumps(order), file=self.process.stdin, flush=True)
        done, *numbers = self.line()
        assert done == "done"
        return [int(number) for number in numbers]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> Ended:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return Ended(out, err, self.process.returncode)


class OnTerminal:
    """A command on a pseudo-terminal of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", terminal: int, columns: int, lines: int) -> None:
        self.process = process
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.Stream(self._screen)
        self._fed = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.shown = ""
        """All that it has written."""
        self._terminal: int | None = terminal

    def type(self, keys: str) -> None:
        """Press keys."""
        assert self._terminal is not None, "it has ended"
        os.write(self._terminal, keys.encode())

    def screen(self) -> list[str]:
        """The lines on the screen, below each other, whatever was there before."""
        return screen_of(self.shown)

    def until(self, *parts: str) -> list[str]:
        """Read until the screen shows all this; the lines on it."""
        deadline = time.monotonic() + PATIENCE
        while not all(part in "\n".join(self.screen()) for part in parts):
            assert self._read(deadline - time.monotonic()), f"it never shows {parts}: {self.screen()}"
        return self.screen()

    def until_painted(self, *parts: str, holds: Callable[[list[str]], bool] = lambda _: True) -> list[str]:
        """Read until a terminal that knows every sequence shows all this, and it holds of its lines; those lines."""
        deadline = time.monotonic() + PATIENCE
        while not (all(part in "\n".join(self.painted()) for part in parts) and holds(self.painted())):
            assert self._read(deadline - time.monotonic()), f"it never shows {parts}: {self.painted()}"
        return self.painted()

    def painted(self) -> list[str]:
        """What a terminal shows that knows every sequence."""
        self._stream.feed(self.shown[self._fed :])
        self._fed = len(self.shown)
        return [line.rstrip() for line in self._screen.display]

    def hang_up(self) -> None:
        """Close the terminal, as when its window is closed."""
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    def end(self) -> Ended:
        """Read all that it writes, and wait for its end."""
        deadline = time.monotonic() + PATIENCE
        while self._terminal is not None and self._read(deadline - time.monotonic()):
            pass
        self.hang_up()
        return Ended(self.shown, "", self.process.wait(PATIENCE))

    def _read(self, patience: float) -> bool:
        if self._terminal is None or not select.select([self._terminal], [], [], max(0.0, patience))[0]:
            return False
        try:
            data = os.read(self._terminal, 65536)
        except OSError:  # how Linux says that nobody has the other end open any longer
            data = b""
        self.shown += self._decoder.decode(data)  # what is read may end in the midst of a letter
        return bool(data)


def screen_of(shown: str) -> list[str]:
    """What a terminal shows that knows line ends, the cursor up, and the erasing of a line. Colours are ignored."""
    lines, row = [""], 0
    for text, final in re.findall(r"([^\x1b\r\n]+)|(\r\n|\r|\n|\x1b\[[0-9;?]*[A-Za-z])", shown):
        if text:
            lines[row] += text
        elif "\n" in final:
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif final.endswith("A"):
            row -= int(final[2:-1] or 1)
        elif final.endswith("K") or final == "\r":
            lines[row] = ""
    return [line.rstrip() for line in lines]
