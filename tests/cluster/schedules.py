"""Random schedules of whole clusters: real nodes and real processes on a simulated loop. A seed determines everything.

Two to four nodes start; clients register, unregister and look up names, for processes of their own node and of others;
processes end by themselves, are killed, crash; sometimes one or two things happen to the network or to a node. In some
schedules two nodes never meet, while all the others see them. In the end everything is healed and started again, and
must come to rest. What was seen is a history, which `tests.histories` checks against the guarantees; what a history
does not hold is checked here: every call ends in its time, every monitor tells exactly once, messages come in order,
the dead do not answer, and a node that has joined knows everybody's names.
"""

import asyncio
import itertools
import random
from collections.abc import Callable
from math import inf
from typing import Any

from kinfolk import Down, NameLost, NameTaken, Node, NodeClosed, NotConfirmed, Pid, Process, Stop
from kinfolk.errors import AuthenticationFailed, KinfolkError, NameUnknown, NodeLost, NoProcess
from kinfolk.testing import Cluster, SimulatedLoop, cluster, simulate
from kinfolk.testing.cluster import WORDS
from tests.histories.checker import check
from tests.histories.history import (
    Apart,
    Bounds,
    Exit,
    Fault,
    Gone,
    History,
    Lookup,
    Lost,
    Register,
    Rest,
    Unregister,
)

HEARTBEAT = 1.0
DOWN_AFTER = 3.0
PATIENCE = DOWN_AFTER + 2 * HEARTBEAT
"""The default timeout of register."""
LATENCY = 0.0002, 0.005
HOP = 0.05
"""Seconds within which what one node says has come to pass at the other, some steps of a crowded loop included."""
SILENCE = DOWN_AFTER + 2 * HEARTBEAT
NAMES = ("x", "y")
MESSAGES = 12
"""In a stream."""
FAULTS = ("none", "none", "none", "none", "cut", "cut", "crash", "crash", "restart", "power", "partition", "stall")


class Schedule:
    """One schedule.

    Args:
        seed: determines everything.
        log: gets everything that happens, line by line.
        short: so many nodes, a few clients at once, a fault or none: to see how fast the simulation is. 0: not short.
    """

    def __init__(self, seed: int, log: Callable[[str], object] | None = None, *, short: int = 0) -> None:
        self.seed, self.short = seed, short
        self.log = log
        self.rng = random.Random(f"schedule {seed}")
        self.history = History(Bounds(HOP, SILENCE))
        self.violations: list[str] = []
        self.steps = 0
        self.seconds = 0.0
        self.loop: SimulatedLoop
        self.nodes: Cluster
        self.strangers = self.race = False
        self.first_fault = inf
        self.joined: dict[str, float] = {}
        """When those that started again had joined; infinity until then."""
        self.holders: dict[Pid, Exit] = {}
        """The processes with names, and their ends, as far as those are known."""
        self.watches: list[tuple[Node, Pid, list[object]]] = []
        """Of each watcher: its node, whom it watches, and the reasons that it has been told."""
        self.streams: list[list[int]] = []
        """What has come of each stream of numbers."""

    def run(self) -> list[str]:
        """Run it. Returns the violations."""
        try:
            simulate(self.seed, self._run, log=self.log)
        except Exception as error:
            self.violations.append(f"raised: {type(error).__name__}: {error}")
        self.violations += check(self.history)
        return self.violations

    def say(self, *words: object) -> None:
        """For the log."""
        self.loop.note("--", *words)

    def violation(self, text: str) -> None:
        """A promise is broken."""
        self.say("VIOLATION", text)
        self.violations.append(f"{text} (at {self.loop.time():.3f})")

    # --- the schedule ---

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        self.loop = loop
        rng = self.rng
        self.strangers = rng.random() < 0.2 and not self.short
        self.race = rng.random() < 0.3 or bool(self.short)
        size = 1 if self.strangers else self.short or rng.choice((2, 3, 3, 3, 3, 4))
        async with cluster(size, latency=LATENCY, heartbeat=HEARTBEAT, down_after=DOWN_AFTER) as self.nodes:
            if self.strangers:
                await self._meet_strangers()
            for node in self.nodes:
                # Forward alone: a node whose clock has gone back past its last start may be refused by who knows that.
                self.nodes.set_clock(node, rng.choice((0.0, 0.0, 0.3, 1.0, 3600.0)))
            self._rest()
            clients = [self._client() for _ in range(rng.randint(2, 4) if self.short else rng.randint(3, 8))]
            faults = [self._fault() for _ in range(1 if self.short else rng.choice((1, 1, 1, 2)))]
            await asyncio.gather(*clients, *faults)
            await self._in_the_end()
        self.steps, self.seconds = loop.steps, loop.time()
        # When a simulation ends, the garbage collector comes: let it find then what the nodes were made of, instead of
        # looking through it now and again later.
        del self.nodes
        self.watches.clear()

    async def _meet_strangers(self) -> None:
        """Two or three nodes join the first, and never meet."""
        words = WORDS[1 : self.rng.choice((3, 3, 4))]
        self.nodes.keep_apart(*words)
        for _ in words:
            await self.nodes.add()
        await self.nodes.settled()

    async def _client(self) -> None:
        """Somebody who does one thing at some moment, and looks before and after it."""
        rng = self.rng
        what, *arguments = rng.choice(RACE if self.race else CLIENTS)
        await asyncio.sleep(rng.random() * rng.choice((0.01,) if self.race else (0.0, 0.02, 0.3, 0.3, 6.0)))
        began = self.loop.time()
        try:
            await what(self, *arguments)
        except NodeClosed:
            pass  # it has crashed meanwhile
        took = self.loop.time() - began
        if took > PATIENCE + 2 * HEARTBEAT + HOP:  # another node, if it was asked, has that much longer to answer
            self.violation(f"{what.__name__} has taken {took:.3f} s")
        self._look()

    def _up(self) -> list[Node]:
        return [node for node in self.nodes if self.nodes.is_up(node)]

    def _somewhere(self) -> Node:
        return self.rng.choice(self._up())

    def _look(self) -> None:
        """Every node resolves every name."""
        now = self.loop.time()
        for node in self._up():
            whereis, word = node.names.whereis, node.name
            for name in NAMES:
                pid = whereis(name)
                self.history.add(Lookup(word, name, None if pid is None else str(pid), now, now))

    def _rest(self) -> None:
        """All that can be is connected, and nothing is under way."""
        now, up = self.loop.time(), self._up()
        self._look()
        pairs = itertools.combinations(up, 2)
        if all(self.nodes.connected(one, other) for one, other in pairs):
            self.history.add(Rest(frozenset(node.name for node in up), now, now))
            return
        for one, other in itertools.combinations(up, 2):
            if self.nodes.connected(one, other):
                self.history.add(Rest(frozenset((one.name, other.name)), now, now))

    # --- what clients do ---

    async def _register(self, elsewhere: bool, node: Node | None = None, name: str | None = None) -> None:
        node = node or self._somewhere()
        home = self._somewhere() if elsewhere else node
        name = name or self.rng.choice(NAMES)
        pid = home.spawn(self._holder, self.rng.choice((None, None, 0.05, 2.0)))
        self.holders[pid] = end = Exit(str(pid), inf)
        self.history.add(end)
        self._watch(pid)
        record = Register(name, str(pid), self.loop.time())
        self.history.add(record)
        self.say("register", name, pid, "by", node.name)
        try:
            await node.names.register(name, pid, on_lost=self.rng.choice(("exit", "message")))
        except NameTaken as taken:
            record.outcome, record.holder = "failed", None if taken.holder is None else str(taken.holder)
        except (NoProcess, NameUnknown, NotConfirmed):
            record.outcome = "failed"
        except NodeLost:
            return  # the other node may have confirmed it or not
        else:
            record.outcome = "held"
        record.ended = self.loop.time()
        self.say("register", name, pid, record.outcome, record.holder)
        self._look()

    async def _unregister(self) -> None:
        node = self._somewhere()
        name = self.rng.choice(NAMES)
        pid = node.names.whereis(name)
        if pid is None:
            return
        record = Unregister(name, str(pid), self.loop.time())
        self.history.add(record)
        self.say("unregister", name, pid, "by", node.name)
        try:
            await node.names.unregister(name)
            record.done = True
        except KinfolkError as error:
            self.say("unregister", name, type(error).__name__)
        finally:
            record.ended = self.loop.time()

    async def _exit(self) -> None:
        pids = [pid for pid in self.holders if self._home(pid) is not None]
        if not pids:
            return
        pid = self.rng.choice(pids)
        how = self.rng.choice(("kill", "return", "crash"))
        sender = self._somewhere()
        self.say(how, pid, "from", sender.name)
        self._ends(pid)
        if how != "kill":
            sender.send(pid, how)
            return
        node = self._home(pid)
        sender.kill(pid)
        if node is not None and sender is node:
            self._ended(pid)
            if any(node.names.whereis(name) == pid for name in NAMES):
                self.violation(f"{pid} is killed, and its own node names it")

    def _home(self, pid: Pid) -> Node | None:
        """The node where a process is alive."""
        return next((node for node in self._up() if node.is_alive(pid)), None)

    async def _stream(self) -> None:
        """One process sends numbers to another."""
        come: list[int] = []
        target = self._somewhere().spawn(_collect, come)
        self._somewhere().spawn(_count, target)
        self.streams.append(come)

    def _watch(self, pid: Pid) -> None:
        node, told = self._somewhere(), list[object]()
        node.spawn(self._watcher, pid, told)
        self.watches.append((node, pid, told))

    async def _watcher(self, me: Process, pid: Pid, told: list[object]) -> None:
        me.monitor(pid)
        while True:
            down = await me.receive(Down)
            told.append(down.reason)
            self.say(me.pid, "hears of the end of", pid, down.reason)
            if any(me.node.names.whereis(name) == pid for name in NAMES):
                self.violation(f"{me.pid} has heard of the end of {pid}, and its node still names it")

    async def _holder(self, me: Process, seconds: float | None) -> None:
        """Has a name, for a while or for ever."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    match await me.receive():
                        case NameLost(name=name):
                            self.say("lost", name, me.pid)
                            self.history.add(Lost(name, str(me.pid), self.loop.time()))
                        case "return":
                            return
                        case "crash":
                            raise Stop("told to")
                        case _:
                            pass
        except TimeoutError:
            pass
        finally:
            self._ended(me.pid, me.exit_reason)

    def _ends(self, pid: Pid) -> None:
        """From now on the process may end."""
        end = self.holders[pid]
        end.began = min(end.began, self.loop.time())

    def _ended(self, pid: Pid, reason: object = None) -> None:
        """The process has ended by now."""
        end, now = self.holders[pid], self.loop.time()
        end.ended = min(end.ended, now)
        if isinstance(reason, NameLost):
            self.history.add(Lost(reason.name, str(pid), now))
            end.began = min(end.began, now, self.first_fault)  # it was lost, and dead, before its code came to know
        end.began = min(end.began, now)

    # --- what happens to them ---

    async def _fault(self) -> None:
        rng = self.rng
        what = rng.choice(FAULTS[:7] if self.short else FAULTS)
        if what == "none" or (self.strangers and what in ("partition", "stall")):
            return  # healing them would let strangers meet
        await asyncio.sleep(rng.random() * (0.05 if self.short else rng.choice((0.05, 0.5, 3.0))))
        up = self._up()
        if len(up) < 2:
            return
        one, other = rng.sample(up, 2)
        self.first_fault = min(self.first_fault, self.loop.time())
        self.say(what, one.name, other.name)
        match what:
            case "cut":
                self.history.fault([one.name], [other.name], self.loop.time())
                self.nodes.cut(one, other)
            case "partition" | "stall":
                await self._apart(what, one, other)
            case _:
                await self._crash(one, power=what == "power")
                if what == "restart":
                    await asyncio.sleep(rng.random() * 0.5)
                    await self._restart(one)
                elif what == "power":
                    await asyncio.sleep(SILENCE + 2 * HOP)
                    self._look()

    async def _apart(self, what: str, one: Node, other: Node) -> None:
        now = self.loop.time()
        if what == "stall":
            sides: list[list[Node]] = [[one], [other]]
            self.nodes.stall(one, other)
        else:
            left = [one, *(node for node in self.nodes if node not in (one, other) and self.rng.random() < 0.5)]
            sides = [left, [node for node in self.nodes if node not in left]]
            self.nodes.partition(*sides)
        apart = [Apart(frozenset((near.name, far.name)), now) for near in sides[0] for far in sides[1]]
        self.history.add(*apart)
        if self.rng.random() < 0.5:
            # Each side misses the other, and gives its name away.
            rivals = [self._register(False, node, "x") for node in (one, other)]
            await asyncio.gather(*rivals, asyncio.sleep(SILENCE + self.rng.random()), return_exceptions=True)
        else:
            await asyncio.sleep(self.rng.choice((0.5, 2.0)) * self.rng.random())
        self._look()
        self.nodes.heal()
        # Two faults at once heal each other: both are over now.
        for happened in self.history.happened:
            if isinstance(happened, Apart):
                happened.ended = min(happened.ended, self.loop.time())

    async def _crash(self, node: Node, *, power: bool) -> None:
        now = self.loop.time()
        self.history.fault([node.name], [other.name for other in self.nodes], now)
        self.history.add(Gone(f"{node.name}/{node.creation:x}", now, silent=power))
        await self.nodes.crash(node, power=power)

    async def _restart(self, node: Node) -> None:
        """A node that has joined is connected to everybody who had before it began, and knows all their names."""
        began = self.loop.time()
        self.joined[node.name] = inf
        faults = len(self.history.happened)
        try:
            born = await self.nodes.restart(node)
        except AuthenticationFailed as error:
            # Whoever is reset between TLS and the end of the handshake takes that for a refusal, and does not start.
            self.say("restart", error)
            if not any(isinstance(what, Fault | Gone) for what in self.history.happened[faults:]):
                self.violation(f"{node.name} was refused: {error}")
            return
        except NodeClosed:
            return  # another fault has ended it meanwhile
        self.joined[node.name] = self.loop.time()
        happened = self.history.happened[faults:]
        members = [other for other in self._up() if self.joined.get(other.name, -inf) < began]
        reachable = [other for other in members if self.nodes.connected(born, other)]
        if any(isinstance(what, Fault | Apart | Gone) for what in happened) or not self._all_connected(began):
            return
        for other in reachable:
            if other.name not in born.peers():
                self.violation(f"{born.name} has joined, and is not connected to {other.name}")
        for record in self.history.happened[:faults]:
            if isinstance(record, Register) and record.outcome == "held" and record.ended < began:
                self._is_known(born, record)

    def _all_connected(self, since: float) -> bool:
        """Whether nothing has kept any two nodes apart since then."""
        return all(not isinstance(what, Apart) or what.ended < since for what in self.history.happened)

    def _is_known(self, node: Node, record: Register) -> None:
        pid = Pid.parse(record.pid)
        ends = (what for what in self.history.happened if isinstance(what, Unregister | Lost))
        given_up = any(what.name == record.name and what.pid == record.pid for what in ends)
        home = self._home(pid)
        if (
            home is None
            or not self.nodes.connected(node, home)
            or self.holders[pid].began < inf
            or given_up
            or self._disputed(record)
        ):
            return
        if node.names.whereis(record.name) != pid:
            self.violation(f"{node.name} has joined, and does not know that {pid} is {record.name!r}")

    def _disputed(self, record: Register) -> bool:
        """Whether somebody else was given the name as well, on the other side of a partition, and one has yet to go."""
        others = (what for what in self.history.happened if isinstance(what, Register) and what is not record)
        return any(
            other.name == record.name and other.outcome != "failed" and self._home(Pid.parse(other.pid)) is not None
            for other in others
        )

    # --- and what is true in the end ---

    async def _in_the_end(self) -> None:
        self.say("the end: heal, and restart who is down")
        self.nodes.heal()
        for happened in self.history.happened:
            if isinstance(happened, Apart):
                happened.ended = min(happened.ended, self.loop.time())
        for node in self.nodes:
            if not self.nodes.is_up(node):
                await self.nodes.restart(node)
        await self.nodes.settled()
        self._rest()
        await asyncio.sleep(LATENCY[1])  # what is seen at rest is seen before the ends that follow
        for pid in self.holders:
            home = self._home(pid)
            if home is not None:
                self._ends(pid)
                home.kill(pid)
                self._ended(pid)
        await self.nodes.settled()
        self._rest()
        await asyncio.sleep(2 * LATENCY[1])
        for node, pid, told in self.watches:
            if self.nodes.is_up(node) and len(told) != 1:
                self.violation(f"{node.name} was told {len(told)} times of the end of {pid}: {told}")
        for come in self.streams:
            if come != sorted(set(come)):
                self.violation(f"messages came in another order: {come}")
            if self.first_fault == inf and not self.strangers and come != list(range(MESSAGES)):
                self.violation(f"messages are missing, and there was no fault: {come}")
        for pid in self.rng.sample(sorted(self.holders), min(2, len(self.holders))):
            await self._is_dead(self._somewhere(), pid)

    async def _is_dead(self, node: Node, pid: Pid) -> None:
        try:
            await node.call(pid, "are you there?", timeout=1.0)
        except (NoProcess, NodeLost):
            return
        except KinfolkError as error:
            self.violation(f"a call to {pid}, which is dead, raised {error!r}")
        else:
            self.violation(f"{pid} is dead, and has answered")


CLIENTS: tuple[tuple[Any, ...], ...] = (
    (Schedule._register, False),
    (Schedule._register, False),
    (Schedule._register, False),
    (Schedule._register, True),
    (Schedule._unregister,),
    (Schedule._exit,),
    (Schedule._exit,),
    (Schedule._stream,),
)
"""What a client may do, with its arguments."""
RACE: tuple[tuple[Any, ...], ...] = (
    (Schedule._register, False),
    (Schedule._register, False),
    (Schedule._register, True),
    (Schedule._exit,),
)
"""The same, where all of them begin at once."""


async def _collect(me: Process, come: list[int]) -> None:
    while True:
        come.append(await me.receive(int))


async def _count(me: Process, target: Pid) -> None:
    for number in range(MESSAGES):
        me.send(target, number)
        if number % 4 == 3:
            await asyncio.sleep(0.001)
