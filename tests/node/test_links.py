"""Links, monitors and exit signals as the documentation of Erlang has them, within a node and between two.

Each row is a rule, a scenario in which it shows, and what becomes of processes ``a`` (of Ada) and ``b`` (of Ada as well
or of Bob). The rules are those of ``erlang:link/1``, ``unlink/1``, ``exit/2``, ``monitor/2``, ``demonitor/2``,
``monitor_node/2``, ``process_flag(trap_exit, ...)`` and of the chapter "Processes" of the reference manual.
"""

import asyncio
from typing import Any, NamedTuple, cast

import pytest

from kinfolk import Down, Exit, Node, PeerDown, PeerUp, Pid, Process, Stop
from kinfolk.shell.transport import Link
from tests.node.nodes import Nodes, echo, until

HERE, THERE, BOTH = ("here",), ("there",), ("here", "there")


class Row(NamedTuple):
    """What happens, step by step (after ``...`` everything has arrived), and what becomes of the processes."""

    rule: str
    steps: str
    a: str
    b: str
    places: tuple[str, ...] = BOTH


ROWS = [
    # --- erlang:link/1 ---
    Row("an exit reaches who is linked", "a link b, ..., b ends bad", "dead bad", "dead bad"),
    Row("a link is bidirectional", "a link b, ..., a ends bad", "dead bad", "dead bad"),
    Row("who set it up does not matter", "b link a, ..., b ends bad", "dead bad", "dead bad"),
    Row("also at once", "a link b, b ends bad", "dead bad", "dead bad", HERE),
    Row("it is set up once this has arrived", "a link b, b exit b bad", "dead noproc", "dead bad", THERE),
    Row("a normal exit ends nobody", "a link b, ..., b ends normal", "alive", "dead normal"),
    Row("shutdown is not normal", "a link b, ..., b ends shutdown", "dead shutdown", "dead shutdown"),
    Row("who traps gets a message", "a traps, a link b, ..., b ends bad", "alive | Exit b bad", "dead bad"),
    Row("of a normal exit too", "a traps, a link b, ..., b ends normal", "alive | Exit b normal", "dead normal"),
    Row("the other end may trap", "b traps, a link b, ..., a ends bad", "dead bad", "alive | Exit a bad"),
    Row("both may trap", "a traps, b traps, a link b, ..., b ends bad", "alive | Exit b bad", "dead bad"),
    Row("it is set up once", "a traps, a link b, a link b, ..., b ends bad", "alive | Exit b bad", "dead bad"),
    Row("from either end", "a traps, a link b, b link a, ..., b ends bad", "alive | Exit b bad", "dead bad"),
    Row("and then again", "a traps, a link b, ..., b link a, ..., b ends bad", "alive | Exit b bad", "dead bad"),
    Row("not to oneself", "a link a, ..., a unlink a", "alive", "alive", HERE),
    Row("not to oneself, trapping", "a traps, a link a, a ends bad", "dead bad", "alive", HERE),
    Row("to the dead: noproc", "b ends bad, ..., a link b", "dead noproc", "dead bad"),
    Row("to the dead, trapping", "a traps, b ends bad, ..., a link b", "alive | Exit b noproc", "dead bad"),
    Row("each attempt", "a traps, b ends bad, ..., a link b, a link b",
        "alive | Exit b noproc | Exit b noproc", "dead bad", HERE),
    Row("to an older start of its node", "a traps, a link older", "alive | Exit older noproc", "alive"),
    Row("to an older start, not trapping", "a link older", "dead noproc", "alive"),
    Row("to what never was", "a traps, a link never", "alive | Exit never noproc", "alive"),
    Row("to a node that is not connected", "a traps, a link away", "alive | Exit away noconnection", "alive"),
    Row("to a node that is not connected, not trapping", "a link away", "dead noconnection", "alive"),
    Row("a lost node: noconnection", "a link b, ..., cut", "dead noconnection", "dead noconnection", THERE),
    Row("a lost node, trapping", "a traps, b traps, a link b, ..., cut",
        "alive | Exit b noconnection", "alive | Exit a noconnection", THERE),
    Row("a lost node, no more after that", "a traps, a link b, b traps, ..., cut, ..., b ends bad",
        "alive | Exit b noconnection", "dead bad", THERE),
    Row("linked anew after that", "a traps, b traps, a link b, ..., cut, ..., a link b, ..., b ends bad",
        "alive | Exit b noconnection | Exit b bad", "dead bad", THERE),
    Row("a chain", "a link b, b link c, ..., c ends bad", "dead bad", "dead bad"),
    Row("a chain ends at who traps", "a link b, b link c, b traps, ..., c ends bad", "alive", "alive | Exit c bad"),
    Row("a ring", "a link b, b link c, c link a, ..., a ends bad", "dead bad", "dead bad"),
    # --- erlang:unlink/1 ---
    Row("unlinked, nothing comes", "a link b, ..., a unlink b, ..., b ends bad", "alive", "dead bad"),
    Row("trapping neither", "a traps, a link b, ..., a unlink b, ..., b ends bad", "alive", "dead bad"),
    Row("from the other end", "a link b, ..., b unlink a, ..., b ends bad", "alive", "dead bad"),
    Row("in both directions", "a link b, ..., a unlink b, ..., a ends bad", "dead bad", "alive"),
    Row("from both ends at once", "a link b, ..., a unlink b, b unlink a, ..., b ends bad", "alive", "dead bad"),
    Row("what is not linked is no error", "a unlink b, a unlink never, a unlink away, ..., b ends bad",
        "alive", "dead bad"),
    Row("one unlink undoes two links", "a link b, a link b, ..., a unlink b, b ends bad", "alive", "dead bad"),
    Row("at once after the link", "a traps, a link b, a unlink b, b ends bad", "alive", "dead bad"),
    Row("an exit under way does not arrive", "a traps, a link b, ..., b exit b bad, a unlink b",
        "alive", "dead bad", THERE),
    Row("an exit under way ends nobody", "a link b, ..., b exit b bad, a unlink b", "alive", "dead bad", THERE),
    Row("noproc under way does not arrive", "a traps, b ends bad, ..., a link b, a unlink b",
        "alive", "dead bad", THERE),
    Row("noconnection does not arrive", "a traps, a link b, ..., a unlink b, cut", "alive", "dead noconnection", THERE),
    Row("what has arrived stays", "a traps, a link b, ..., b ends bad, ..., a unlink b",
        "alive | Exit b bad", "dead bad"),
    Row("linked anew at once", "a traps, a link b, ..., a unlink b, a link b, ..., b ends bad",
        "alive | Exit b bad", "dead bad"),
    Row("linked anew after a while", "a traps, a link b, ..., a unlink b, ..., a link b, ..., b ends bad",
        "alive | Exit b bad", "dead bad"),
    Row("the last word counts", "a link b, ..., a unlink b, a link b, a unlink b, ..., b ends bad",
        "alive", "dead bad"),
    Row("unlink meets a link from there", "a link b, ..., a unlink b, b link a, ..., b ends bad",
        "alive", "dead bad", THERE),
    # --- erlang:exit/2 ---
    Row("an exit signal ends a process", "a exit b bad", "alive", "dead bad"),
    Row("who traps gets a message", "b traps, a exit b bad", "alive", "alive | Exit a bad"),
    Row("normal does nothing", "a exit b normal", "alive", "alive"),
    Row("normal, trapped", "b traps, a exit b normal", "alive", "alive | Exit a normal"),
    Row("normal to oneself", "a exit a normal", "dead normal", "alive", HERE),
    Row("normal to oneself, trapped", "a traps, a exit a normal", "alive | Exit a normal", "alive", HERE),
    Row("to oneself", "a exit a bad", "dead bad", "alive", HERE),
    Row("to oneself, trapped", "a traps, a exit a bad", "alive | Exit a bad", "alive", HERE),
    Row("kill", "a exit b kill", "alive", "dead killed"),
    Row("kill cannot be trapped", "b traps, a exit b kill", "alive", "dead killed"),
    Row("kill oneself", "a traps, a exit a kill", "dead killed", "alive", HERE),
    Row("killed ends the linked", "a link b, ..., kill b", "dead killed", "dead killed"),
    Row("killed can be trapped", "a traps, a link b, ..., kill b", "alive | Exit b killed", "dead killed"),
    Row("kill over a link is as any other", "a traps, a link b, ..., b ends kill", "alive | Exit b kill", "dead kill"),
    Row("kill over a link, not trapped", "a link b, ..., b ends kill", "dead kill", "dead kill"),
    Row("the word killed is no kill", "b traps, a exit b killed", "alive", "alive | Exit a killed"),
    Row("to the dead", "b ends bad, ..., a exit b bad", "alive", "dead bad"),
    Row("to an older start", "a exit older kill", "alive", "alive"),
    Row("to a node that is not connected", "a exit away bad", "alive", "alive"),
    Row("to who is linked", "a traps, a link b, ..., a exit b bad", "alive | Exit b bad", "dead bad"),
    Row("the linked get it from the one that ended", "a link b, ..., c exit b bad", "dead bad", "dead bad"),
    Row("trapping can be given up", "b traps, b traps not, a exit b bad", "alive", "dead bad"),
    Row("signals keep their order", "b traps, a exit b one, a exit b two", "alive", "alive | Exit a one | Exit a two"),
    # --- reasons ---
    Row("a crash ends the linked", "a link b, ..., b crashes", "dead ValueError: boom", "dead ValueError: boom"),
    Row("a crash is trapped", "a traps, a link b, ..., b crashes",
        "alive | Exit b ValueError: boom", "dead ValueError: boom"),
    Row("a crash is seen", "a monitor b, ..., b crashes", "alive | Down b ValueError: boom", "dead ValueError: boom"),
    # --- erlang:monitor/2 ---
    Row("a monitor sees the end", "a monitor b, ..., b ends bad", "alive | Down b bad", "dead bad"),
    Row("a normal one too", "a monitor b, ..., b ends normal", "alive | Down b normal", "dead normal"),
    Row("a kill too", "a monitor b, ..., kill b", "alive | Down b killed", "dead killed"),
    Row("it is for one direction", "a monitor b, ..., a ends bad", "dead bad", "alive"),
    Row("the dead: noproc", "b ends bad, ..., a monitor b", "alive | Down b noproc", "dead bad"),
    Row("an older start", "a monitor older", "alive | Down older noproc", "alive"),
    Row("what never was", "a monitor never", "alive | Down never noproc", "alive"),
    Row("not connected", "a monitor away", "alive | Down away noconnection", "alive"),
    Row("a lost node", "a monitor b, ..., cut", "alive | Down b noconnection", "alive", THERE),
    Row("a lost node, no more after that", "a monitor b, ..., cut, ..., b ends bad",
        "alive | Down b noconnection", "dead bad", THERE),
    Row("each call is a monitor of its own", "a monitor b, a monitor b, ..., b ends bad",
        "alive | Down b bad | Down b bad", "dead bad"),
    Row("both may watch each other", "a monitor b, b monitor a, ..., b ends bad", "alive | Down b bad", "dead bad"),
    Row("not oneself", "a monitor a", "alive", "alive", HERE),
    Row("an exit reaches both kinds", "a traps, a link b, a monitor b, ..., b ends bad",
        "alive | Exit b bad | Down b bad", "dead bad"),
    Row("by name", "b named log, a monitor log, ..., b ends bad", "alive | Down b bad as log", "dead bad"),
    Row("a name that nobody has", "a monitor log", "alive | Down nobody noproc as log", "alive"),
    Row("who had the name is watched", "b named log, a monitor log, ..., b unnamed log, ..., b ends bad",
        "alive | Down b bad as log", "dead bad"),
    Row("a name falls free: no end", "b named log, a monitor log, ..., b unnamed log", "alive", "alive"),
    Row("by name, lost", "b named log, a monitor log, ..., cut",
        "alive | Down nobody noconnection as log", "alive", THERE),
    Row("by a name of the cluster", "b registered db, a monitor db, ..., b ends bad",
        "alive | Down b bad as db", "dead bad"),
    Row("a name of the cluster that nobody has", "a monitor db", "alive | Down nobody noproc as db", "alive"),
    # --- erlang:demonitor/2 ---
    Row("taken back", "a monitor b, ..., a demonitor, b ends bad", "alive", "dead bad"),
    Row("one of two", "a monitor b, a monitor b, a demonitor, ..., b ends bad", "alive | Down b bad", "dead bad"),
    Row("under way", "a monitor b, ..., b exit b bad, a demonitor", "alive", "dead bad"),
    Row("arrived, and flushed", "a monitor b, ..., b ends bad, ..., a demonitor", "alive", "dead bad"),
    Row("arrived, not flushed", "a monitor b, ..., b exit b bad, ..., a demonitor kept",
        "alive | Down b bad", "dead bad"),
    Row("taken back and lost", "a monitor b, ..., a demonitor, cut", "alive", "alive", THERE),
    Row("twice", "a monitor b, a demonitor, a demonitor again, b ends bad", "alive", "dead bad"),
    # --- order: signals between two processes ---
    Row("messages come before the end", "a monitor b, ..., b send a one, b send a two, b exit b bad",
        "alive | one | two | Down b bad", "dead bad"),
    Row("messages come before the exit", "a traps, a link b, ..., b send a one, b exit b bad",
        "alive | one | Exit b bad", "dead bad"),
    Row("a message, then an exit signal", "b traps, a send b one, a exit b bad, a send b two",
        "alive", "alive | one | Exit a bad | two"),
    # --- erlang:monitor_node/2 ---
    Row("a node that is connected", "a watch bob", "alive | PeerUp bob", "alive", THERE),
    Row("a node that is not", "a watch away", "alive | PeerDown away", "alive", THERE),
    Row("what is lost with it comes first", "a watch bob, a monitor b, a traps, a link b, ..., cut",
        "alive | PeerUp bob | Exit b noconnection | Down b noconnection | PeerDown bob | PeerUp bob",
        "dead noconnection", THERE),
    Row("no longer", "a watch bob, a unwatch bob, cut", "alive | PeerUp bob", "alive", THERE),
    Row("all nodes", "a watch all, a watch all, cut", "alive | PeerUp bob | PeerDown bob | PeerUp bob", "alive", THERE),
]  # fmt: skip

CASES = [(place, row) for row in ROWS for place in row.places]


def test_the_table_is_no_smaller_than_the_rules():
    assert len(CASES) >= 60
    assert len(set(CASES)) == len(CASES)


class Actor:
    """A process that does what it is told to and leaves everything in its mailbox."""

    def __init__(self, node: Node) -> None:
        self.me: Process
        self.node = node
        self.refs: list[Any] = []
        self.order: asyncio.Future[str | Exception] = asyncio.get_running_loop().create_future()
        self.pid = node.spawn(self.run)
        [self.me] = [process for process in node.processes() if process.pid == self.pid]

    async def run(self, me: Process) -> None:
        order = await self.order
        if isinstance(order, Exception):
            raise order
        if order != "normal":
            raise Stop(order)

    async def end(self, order: "str | Exception") -> None:
        """It ends of itself, in its own task."""
        self.order.set_result(order)
        assert self.me.task is not None
        await asyncio.wait([self.me.task])


class Stage:
    """Plays a row."""

    def __init__(self, ada: Node, bob: Node, place: str) -> None:
        self.ada, self.bob = ada, bob
        there = ada if place == "here" else bob
        self.actors = {"a": Actor(ada), "b": Actor(there), "c": Actor(ada)}
        pid = self.actors["b"].pid
        self.pids = {
            **{name: actor.pid for name, actor in self.actors.items()},
            "older": Pid(pid.node, pid.creation - 1, pid.local),
            "never": Pid(pid.node, pid.creation, 10**6),
            "away": Pid("carl@127.0.0.1:1", 1, 1),
        }
        self.nodes = {"bob": bob.name, "away": "carl@127.0.0.1:1", "all": None}
        for node in (ada, bob):
            node.names.local.register("echo", node.spawn(echo))

    async def play(self, steps: str) -> None:
        for step in steps.split(", "):
            await self.step(*step.split())
        await self.all_has_arrived()

    async def step(self, who: str, *what: str) -> None:
        if who == "...":
            await self.all_has_arrived()
        elif who == "kill":
            self.ada.kill(self.pids[what[0]])
        elif who == "cut":
            cast("Link", self.ada.dataplane.links[self.bob.name]).abort()
            await until(lambda: not self.ada.peers() or not self.bob.peers())
        else:
            await self.act(self.actors[who], *what)

    async def act(self, actor: Actor, verb: str, *what: str) -> None:
        me = actor.me
        match verb, *what:
            case "traps", *no:
                me.trap_exit = not no
            case "link", other:
                me.link(self.pids[other])
            case "unlink", other:
                me.unlink(self.pids[other])
            case "exit", other, reason:
                me.exit(self.pids[other], reason)
            case "send", other, message:
                me.send(self.pids[other], message)
            case "ends", reason:
                await actor.end(reason)
            case ("crashes",):
                await actor.end(ValueError("boom"))
            case "monitor", "log":
                actor.refs.append(me.monitor(("log", self.pids["b"].node)))
            case "monitor", "db":
                actor.refs.append(me.monitor("db"))
            case "monitor", other:
                actor.refs.append(me.monitor(self.pids[other]))
            case "demonitor", *how:
                me.demonitor(actor.refs[0], flush=how != ["kept"])
            case "named", name:
                actor.node.names.local.register(name, actor.pid)
            case "unnamed", name:
                actor.node.names.local.unregister(name)
            case "registered", name:
                await actor.node.names.register(name, actor.pid)
            case "watch", node:
                me.monitor_node(self.nodes[node])
            case "unwatch", node:
                me.demonitor_node(self.nodes[node])
            case _:
                raise AssertionError(f"no such step: {verb} {what}")

    async def all_has_arrived(self) -> None:
        """Both nodes are connected, and have read what was said until now, and what was said because of that."""
        await until(lambda: self.ada.peers() and self.bob.peers())
        for _ in range(3):
            await self.ada.call(("echo", self.bob.name), "there?")
            await self.bob.call(("echo", self.ada.name), "there?")

    def outcome(self, name: str) -> str:
        me = self.actors[name].me
        if me.exit_reason is not None:
            return f"dead {me.exit_reason}"
        return " | ".join(["alive", *map(self.shown, me.mailbox.messages)])

    def shown(self, message: object) -> str:
        match message:
            case Exit(pid, reason):
                return f"Exit {self.name_of(pid)} {reason}"
            case Down(_, pid, reason, name):
                named = "" if name is None else f" as {name if isinstance(name, str) else name[0]}"
                return f"Down {self.name_of(pid)} {reason}{named}"
            case PeerUp(node):
                return f"PeerUp {self.word_of(node)}"
            case PeerDown(node):
                return f"PeerDown {self.word_of(node)}"
            case _:
                return str(message)

    def name_of(self, pid: Pid | None) -> str:
        return next((name for name, known in self.pids.items() if known == pid), "nobody")

    def word_of(self, node: str) -> str:
        return next(word for word, name in self.nodes.items() if name == node)


@pytest.mark.parametrize(("place", "row"), CASES, ids=[f"{row.rule}, {place}" for place, row in CASES])
async def test_links_monitors_and_exits_are_those_of_erlang(nodes: Nodes, place: str, row: Row):
    ada, bob = await nodes.mesh("ada", "bob")
    stage = Stage(ada, bob, place)
    await stage.play(row.steps)
    assert stage.outcome("a") == row.a
    assert stage.outcome("b") == row.b
    for name in list(stage.actors):
        ada.kill(stage.pids[name])
    await stage.all_has_arrived()
    assert len(ada.signals.relations) == len(bob.signals.relations) == 0, "nothing is left over"
