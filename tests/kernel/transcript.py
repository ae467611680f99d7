"""Scenarios as transcripts: a few kernels, a network that loses what it is told to lose, and what can be seen of it.

A script (``scripts/*.txt``) is a list of commands; below each, indented, stands what it led to. Playing a script gives
the same text again. Commands on one line, parted by ``;``, happen at the same moment; after each line half a second
passes. Times are virtual: a frame takes 10 ms, a heartbeat is 1 s, silence is noticed after 3 s.

    python -m tests.kernel.transcript [SCRIPT ...]    writes what is seen into the scripts: then read the difference

``start NODE ...``           each joins by all the others; ``start NODE via ADDRESS``: by this one, ``alone``: by none
``register NODE NAME``       for a new process of the node. ``as N``: for process N; ``nowait``; ``timeout T``;
                             ``message``: a loss is a message to the process, not its end
``unregister NODE NAME``     ``from P``: only the registration made at entry P of the node's ledger
``exit NODE N``              process N ends
``join NODE ADDRESS``        connect to whoever is there
``cut A B``                  their connection breaks, and both notice; ``drop A B``: only A does
``part A B``                 nothing passes between them any more; ``silence A B``: nothing from A to B; ``heal A B``
``crash NODE``               it is gone; ``unseen by A ...``: to these it only falls silent
``restart NODE``             it joins by all the others; ``creation N``: under this creation
``leave NODE``               it leaves the cluster: it never comes back in this creation; ``close NODE``: it may
``stop NODE T``              it is stopped for so many seconds
``watch NODE``               from now on its changes of names and peers are shown
``wait T``                   let so many seconds pass
``who NAME``                 whom each node resolves it to
"""

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kinfolk import effects as fx
from kinfolk.core.names import Names
from kinfolk.errors import NotConfirmed
from kinfolk.ids import Pid, Seed
from kinfolk.tempo import Settings
from tests.simulation.judge import Judge, watched
from tests.simulation.world import Node, State, World

SCRIPTS = Path(__file__).parent / "scripts"


class Steady(random.Random):
    """No chance: everything takes its usual time, and what a break can lose is lost."""

    def random(self) -> float:
        return 0.5

    def randint(self, a: int, b: int) -> int:
        return a


class Reporter(Judge):
    """A judge that also says what it sees."""

    def __init__(self) -> None:
        super().__init__(partitions=True, prompt=False, reachable=False)
        self.lines: list[str] = []
        self.watched: set[str] = set()
        self.steady = False

    def effects(self) -> dict[type, Callable[[Node, Any], None]]:
        says: dict[type, Callable[[Node, Any], str]] = {
            fx.Succeed: self._success,
            fx.Fail: self._failure,
            fx.TellLoss: lambda node, told: f"{node}.{told.local} is told: {_error(told.loss)}",
            fx.RaiseCreation: lambda node, raised: f"{node} starts anew under creation {raised.creation}",
        }
        shows: dict[type, Callable[[Any], str]] = {
            fx.PeerUp: lambda up: f"{_host(up.peer)} is up",
            fx.PeerDown: lambda down: f"{_host(down.peer)} is down: {down.reason}",
            fx.NameAdded: lambda added: f"{added.name} is {_pid(added.pid)}",
            fx.NameRemoved: lambda gone: f"{gone.name} is no longer {_pid(gone.pid)}",
        }
        judges = super().effects()

        def reported(kind: type) -> Callable[[Node, Any], None]:
            def see(node: Node, effect: Any) -> None:
                if kind in says:
                    self.lines.append(says[kind](node, effect))
                elif kind in shows and str(node) in self.watched:
                    self.lines.append(f"{node} sees: {shows[kind](effect)}")
                if kind in judges:
                    judges[kind](node, effect)

            return see

        return {kind: reported(kind) for kind in judges.keys() | says.keys()}

    def _success(self, node: Node, answer: fx.Succeed) -> str:
        order = self.orders[answer.ref]
        match order.kind:
            case "register":
                return f"{_pid(order.pid)} has {order.name}{'' if order.wait else ' for now'}"
            case "unregister":
                return f"{node} has given up {order.name}"
            case "transfer":
                return f"{order.name} has moved to {_pid(order.pid)}"
            case _:
                return f"{node} has joined"

    def _failure(self, node: Node, answer: fx.Fail) -> str:
        order = self.orders[answer.ref]
        who = str(node) if order.pid is None else _pid(order.pid)
        return f"{who} fails: {_error(answer.error)}"


class Stage:
    """Plays one script."""

    def __init__(self) -> None:
        self.reporter = Reporter()
        settings = Settings(heartbeat=1.0, down_after=3.0, redial_min=0.1, redial_max=1.0)
        names_type = watched(Names)
        self.world = World(Steady(), settings, self.reporter, names_type=names_type, delay=0.02)
        self.reporter.world = self.world

    def play(self, text: str) -> str:
        """Play a script. Returns it with what was seen; a promise that was broken is the last line."""
        out: list[str] = []
        for line in text.splitlines():
            if line.startswith("  "):
                continue
            out.append(line)
            commands = [command.split() for command in line.partition("#")[0].split(";") if command.strip()]
            for command, *words in commands:
                _COMMANDS[command](self, *words)
            if commands and commands[0][0] not in ("wait", "who", "watch"):
                self.wait("0.5")
            out += self._seen()
        self.wait("20")
        self.reporter.finish()
        out += self._seen()
        out += [f"  BROKEN: {violation}" for violation in self.reporter.violations]
        return "\n".join(out) + "\n"

    def _seen(self) -> list[str]:
        seen = [f"  {line}" for line in self.reporter.lines]
        self.reporter.lines.clear()
        return seen

    def _node(self, name: str) -> Node:
        node = self.world.hosts[name].node
        assert node is not None, f"{name} does not run"
        return node

    # --- commands ---

    def start(self, *words: str) -> None:
        names = words[:1] if words[1:2] in (("via",), ("alone",)) else words
        for name in names:
            self.world.add_host(name)
        for name in names:
            self._start(name, None if names == words else [Seed.parse(word) for word in words[2:]])

    def restart(self, name: str, *options: str) -> None:
        if "creation" in options:
            self.world.hosts[name].creation = int(_option(options, "creation", "")) - 1
        self._start(name)

    def _start(self, name: str, seeds: list[Seed] | None = None) -> None:
        host = self.world.hosts[name]
        node = self.world.start(host, host.creation + 1)
        if seeds is None:
            seeds = [other.seed for other in self.world.hosts.values() if other is not host]
        self.reporter.join(node, seeds, timeout=5.0, patient=True)

    def register(self, name: str, wanted: str, *options: str) -> None:
        node = self._node(name)
        local = _option(options, "as", "")
        pid = Pid(node.name, node.kernel.creation, int(local)) if local else node.spawn()
        self.reporter.register(
            node,
            wanted,
            pid,
            wait="nowait" not in options,
            timeout=float(_option(options, "timeout", "5")),
            on_lost="message" if "message" in options else "exit",
        )

    def unregister(self, name: str, wanted: str, *options: str) -> None:
        position = _option(options, "from", "")
        self.reporter.unregister(self._node(name), wanted, int(position) if position else None, 5.0)

    def transfer(self, name: str, wanted: str, _to: str, heir: str, *options: str) -> None:
        self.reporter.transfer(
            self._node(name), wanted, self._node(heir).spawn(), float(_option(options, "timeout", "5"))
        )

    def exit(self, name: str, local: str) -> None:
        self.world.process_exits(self._node(name), int(local))

    def join(self, name: str, address: str) -> None:
        self.reporter.join(self._node(name), [Seed.parse(address)], timeout=5.0, patient=False)

    def cut(self, a: str, b: str, *, silent: bool = False) -> None:
        for end in list(self._node(a).ends.values()):
            if end.state is State.OPEN and end.other is not None and end.other.node is self._node(b):
                self.world.cut(end, silent)

    def drop(self, a: str, b: str) -> None:
        self.cut(a, b, silent=True)

    def silence(self, a: str, b: str) -> None:
        self.world.stall(a, b)

    def part(self, a: str, b: str) -> None:
        self.world.stall(a, b)
        self.world.stall(b, a)

    def heal(self, a: str, b: str) -> None:
        self.world.heal(a, b)
        self.world.heal(b, a)

    def crash(self, name: str, *words: str) -> None:
        self.world.crash(self._node(name), {self.world.hosts[word].name for word in words[2:]})

    def leave(self, name: str) -> None:
        self.world.shut_down(self._node(name), leaves=True)

    def close(self, name: str) -> None:
        self.world.shut_down(self._node(name))

    def stop(self, name: str, seconds: str) -> None:
        self.world.pause(self._node(name), float(seconds))

    def watch(self, *names: str) -> None:
        self.reporter.watched.update(names)

    def wait(self, seconds: str) -> None:
        self.world.run(self.world.now + float(seconds))

    def who(self, name: str) -> None:
        for node in self.world.running():
            self.reporter.lines.append(f"{node}: {_pid(node.kernel.names.view.get(name))}")


_COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command
    for command in (
        Stage.start, Stage.restart, Stage.register, Stage.unregister, Stage.transfer, Stage.exit, Stage.join,
        Stage.cut, Stage.drop, Stage.silence, Stage.part, Stage.heal, Stage.crash, Stage.leave, Stage.close,
        Stage.stop, Stage.watch, Stage.wait, Stage.who,
    )
}  # fmt: skip


def _option(options: Sequence[str], word: str, default: str) -> str:
    return options[options.index(word) + 1] if word in options else default


def _host(name: str) -> str:
    return name.partition("@")[0]


def _pid(pid: Pid | None) -> str:
    """``ada.1``, and ``ada'.1`` for one of ada's second start."""
    return "nobody" if pid is None else f"{_host(pid.node)}{(pid.creation - 1) * chr(39)}.{pid.local}"


def _error(error: Exception) -> str:
    """Class and fields, with pids and nodes in their short form."""
    words = [_pid(value) if isinstance(value, Pid) else str(value) for value in error.args]
    if isinstance(error, NotConfirmed):
        words += [f"no answer from {_host(peer)}" for peer in error.missing]
    return f"{type(error).__name__}({', '.join(words)})"


def main(scripts: Sequence[Path]) -> None:
    """Write what is seen into these scripts."""
    for script in scripts:
        script.write_text(Stage().play(script.read_text()))


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or sorted(SCRIPTS.glob("*.txt")))
