"""A worker: one node in an OS process of its own, which does what it is told over a channel.

``python worker.py PATH`` is a nursery: it has imported all there is to import, and forks a worker for each connection
to the socket at PATH, until its standard input ends. The first line on the channel is where and how the worker lives: a
`Home`. Each further line is ``[number, order, arguments]``, each answer ``{"number": ..., "value": ...}`` or
``{"number": ..., "error": ..., "text": ..., "holder": ...}``. Orders run side by side. When the channel ends, the node
closes and the program with it. A worker uses the public interface alone; what its node logs goes to the home's log.
"""

import asyncio
import gc
import hashlib
import importlib
import itertools
import json
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, TypedDict

from kinfolk import (
    Call,
    Child,
    Crash,
    Down,
    Exit,
    KinfolkError,
    LinkCongested,
    NameAdded,
    NameLost,
    NameTaken,
    NameWatch,
    Node,
    NodeClosed,
    PeerDown,
    PeerResumed,
    PeerStalled,
    PeerUp,
    Pid,
    Process,
    Reason,
    Resync,
    Supervision,
    looking,
)
from kinfolk.registry import Registration


def routed_loop(routes: dict[int, int]) -> asyncio.AbstractEventLoop:
    """A loop that connects elsewhere than it is told: to the proxy of this dialler and that listener.

    Within TLS a proxy cannot see who dials; so each dialler has a port of its own for each listener. It is asyncio's
    loop, or the one that KINFOLK_TEST_LOOP names.
    """
    base: Any = asyncio.SelectorEventLoop
    if os.environ.get("KINFOLK_TEST_LOOP") == "uvloop":
        base = importlib.import_module("uvloop").Loop

    class Routed(base):  # type: ignore[misc]  # known only now
        async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
            return await super().create_connection(factory, host, routes.get(port, port), **options)

    made: asyncio.AbstractEventLoop = Routed()
    return made


class Actor:
    """A process that answers, remembers what it got, and ends as it is told."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.me: Process | None = None

    async def run(self, me: Process) -> None:
        """Its body."""
        self.me = me
        while True:
            message = await me.receive()
            match message:
                case Call(body=["echo", value]):
                    message.reply([str(me.pid), value])
                case Call(body=["spawn", node, body, args]):
                    message.reply(str(await me.spawn_on(node, body, *args, link=True)))
                case Call(body=["return"]):
                    message.reply("bye")
                    return
                case Call(body=["raise", text]):
                    raise LookupError(text)
                case Call(body=["fail", text]):
                    message.fail(text)
                case Call(body=["unserializable"]):
                    try:
                        message.reply(object())
                    except TypeError as error:
                        self.seen.append(f"{type(error).__name__}: {error}")
                case Call(body=["keep", value]):
                    self.seen.append(value)  # and never answer
                case Call(body=["relay", target, request]):
                    message.reply(await me.call(_target(target), request))
                case Call():
                    message.fail("unknown request")
                case ["return"]:
                    return
                case ["sleep", seconds]:
                    await asyncio.sleep(seconds)
                case NameLost() | NameTaken():
                    self.seen.append([type(message).__name__, message.name])
                case Exit() | Down():
                    pid = None if message.pid is None else str(message.pid)
                    self.seen.append([type(message).__name__, pid, _words(message.reason)])
                case PeerUp() | PeerDown() | PeerStalled() | PeerResumed():
                    self.seen.append([type(message).__name__, message.node])
                case _:
                    self.seen.append(message)


class Worker:
    """The orders. Each returns what is answered."""

    node: Node
    _tree: Supervision

    def __init__(self) -> None:
        self._actors: dict[str, Actor] = {}
        self._registrations: dict[str, Registration] = {}
        self._events: list[list[object]] = []
        self._watches: list[tuple[NameWatch, asyncio.Task[None]]] = []
        self._before: set[asyncio.Task[Any]] = set()
        self._shift = 0
        self._resting = False
        self._churning: asyncio.Task[None] | None = None
        self._more: list[Node] = []
        self._clients: list[asyncio.Task[None]] = []
        self._loaded: Counter[str] = Counter()
        self._taken: dict[str, int] = {}
        self._answered: list[str] = []
        self._unanswered: list[list[str]] = []

    # --- the node ---

    async def start(self, at: float = 0.0, early: Iterable[str] = (), shift: float = 0.0, **settings: Any) -> str:
        """Make and start a node; `early` names are registered before it starts. Its name."""
        self._before = asyncio.all_tasks()
        self.shift_clock(shift)
        self.node = Node(**settings, wall_clock=lambda: time.time_ns() + self._shift)
        for name in early:
            self.register_nowait(name)
        await _moment(at)
        await self.node.start()
        return self.node.name

    async def start_more(self, nodes: Iterable[str], at: float = 0.0, **settings: Any) -> None:
        """Start these nodes beside the first, all at once; each holds a name."""
        self._more += (more := [Node(name, **settings) for name in nodes])
        await _moment(at)
        await asyncio.gather(*(node.start() for node in more))
        await asyncio.gather(*(node.names.register(f"{node.name}/own", node.spawn(Actor().run)) for node in more))

    def states(self) -> list[dict[str, Any]]:
        """What each of its nodes knows."""
        return [self.state(node) for node in (self.node, *self._more)]

    async def close_more(self) -> None:
        """Close all but the first node."""
        await asyncio.gather(*(node.close() for node in self._more))
        self._more.clear()

    def census(self) -> dict[str, int]:
        """How many there are of all that could be left over."""
        gc.collect()
        kernel = self.node.kernel
        transport: Any = self.node._parts.transport
        tables: dict[str, Any] = {
            "tasks": asyncio.all_tasks(),
            "descriptors": os.listdir("/proc/self/fd"),
            "sessions": kernel.members.sessions,
            "candidates": kernel.members.candidates,
            "dials": kernel.members.dials,
            "mirrors": kernel.names.mirrors,
            "links": transport._links,
            "handshakes": (*transport._tasks, *transport._half_open, *transport._unproved),
            "routes": self.node.dataplane.links,
        }
        return {what: len(table) for what, table in tables.items()}

    async def close(self) -> list[str]:
        """Close its nodes. The tasks that are left over."""
        await self.close_more()
        await self.node.close()
        for watch, task in self._watches:
            watch.close()
            await task
        self._watches.clear()
        current = asyncio.current_task()
        return [repr(task) for task in asyncio.all_tasks() - self._before if task is not current]

    async def connect(self, node: str, timeout: float = 10.0) -> None:
        """Connect to a node."""
        await self.node.connect(node, timeout=timeout)

    def rekey(self, **keys: Any) -> None:
        """Give the node other keys."""
        self.node.rekey(**keys)

    def shift_clock(self, seconds: float) -> None:
        """Set the node's wall clock to so many seconds past the right time."""
        self._shift = int(seconds * 1e9)

    def stamped(self, name: str) -> float:
        """When the node has claimed this name of its own, in seconds past the right time of now."""
        return (self.node.kernel.names.own[name].claim.stamp >> 16) / 1000 - time.time()

    def compute(self, seconds: float) -> None:
        """From the loop's next turn on, compute for so many seconds without an await, as a careless user does."""
        asyncio.get_running_loop().call_soon(_compute, seconds)

    def block(self, seconds: float) -> None:
        """From the loop's next turn on, wait for so many seconds in a call that blocks: as above, at less cost."""
        asyncio.get_running_loop().call_soon(time.sleep, seconds)

    def debug(self) -> None:
        """From now on, log all that can be logged, asyncio's own included."""
        logging.getLogger().setLevel(logging.DEBUG)
        asyncio.get_running_loop().set_debug(True)

    def state(self, node: Node | None = None) -> dict[str, Any]:
        """What the node, or another one here, knows."""
        node = node or self.node
        return {
            "name": node.name,
            "creation": node.creation,
            "peers": node.peers(),
            "stalled": node.stalled(),
            "names": {name: str(pid) for name, pid in node.names.snapshot().items()},
            "counters": dict(node.counters),
        }

    def names(self) -> dict[str, str]:
        """Every name with its holder."""
        return {name: str(pid) for name, pid in self.node.names.snapshot().items()}

    def whereis(self, name: str) -> str | None:
        """The holder of a name."""
        holder = self.node.names.whereis(name)
        return None if holder is None else str(holder)

    # --- processes ---

    def spawn(self, remember: bool = True) -> str:
        """Start an actor; its pid. What it has got can be asked for only if it is remembered."""
        actor = Actor()
        pid = str(self.node.spawn(actor.run))
        if remember:
            self._actors[pid] = actor
        return pid

    def kill(self, pid: str) -> None:
        """Kill a process, of whichever node."""
        self.node.kill(Pid.parse(pid))

    def seen(self, pid: str) -> list[object]:
        """What an actor has got."""
        return self._actors[pid].seen

    def count_seen(self, pid: str) -> int:
        """How much an actor has got."""
        return len(self._actors[pid].seen)

    def exit_reason(self, pid: str) -> str | None:
        """Why an actor has ended; None while it lives."""
        me = self._actors[pid].me
        return None if me is None or me.exit_reason is None else _words(me.exit_reason)

    def act(self, pid: str, verb: str, what: Iterable[str]) -> None:
        """Let an actor link, unlink, monitor, exit, watch or trap."""
        me = self._actors[pid].me
        assert me is not None, "it has begun before the next order came"
        match verb, *what:
            case ("trap",):
                me.trap_exit = True
            case "link", other:
                me.link(Pid.parse(other))
            case "unlink", other:
                me.unlink(Pid.parse(other))
            case "monitor", other:
                me.monitor(Pid.parse(other))
            case "exit", other, reason:
                me.exit(Pid.parse(other), reason)
            case "watch", node:
                me.monitor_node(node)
            case "watch stalls", node:
                me.monitor_node(node, stalls=True)
            case _:
                raise ValueError(f"an actor cannot {verb}")

    async def wait_exit(self, pid: str) -> str:
        """Wait until a process of whichever node has ended."""
        return _words(await self.node.wait_exit(Pid.parse(pid)))

    def cancel_task(self, pid: str) -> None:
        """Cancel the task of a process, as asyncio does it."""
        (task,) = (task for task in asyncio.all_tasks() if task.get_name() == pid)
        task.cancel()

    async def whereis_at_its_end(self, name: str, pid: str) -> str | None:
        """Wait until a process has ended; who has the name in that very moment."""
        await self.node.wait_exit(Pid.parse(pid))
        return self.whereis(name)

    def relations(self) -> int:
        """Links, monitors and the like that the node keeps."""
        return len(self.node.signals.relations)

    # --- supervisors ---

    async def supervise_tree(self, branches: Sequence[Sequence[int]], nodes: Sequence[str]) -> None:
        """Grow the tree of `plants`."""
        plants = importlib.import_module("plants")
        self._tree = await self.node.supervise(plants.tree(branches, nodes), intensity=10_000)

    async def supervise_chief(self, history: str) -> None:
        """Supervise the singleton of `plants`."""
        plants = importlib.import_module("plants")
        child = Child(plants.chief, history, name="chief", singleton=True)
        self._tree = await self.node.supervise([child], intensity=10_000)

    async def supervise_named(self, name: str) -> None:
        """Supervise an actor with a name."""
        self._tree = await self.node.supervise([Child(_act, name=name)], intensity=10_000)

    async def supervise_clock(self, history: str) -> None:
        """Supervise the clock of `plants`."""
        plants = importlib.import_module("plants")
        child = Child(plants.Clock, history, name="clock", singleton=True)
        self._tree = await self.node.supervise([child], intensity=10_000)

    def tick(self, clients: int, prefix: str) -> None:
        """Until `ticked`, let so many clients tell the clock what to do, each time something new."""
        plants = importlib.import_module("plants")
        numbers = itertools.count()

        async def client() -> None:
            while not self._resting:
                what = f"{prefix}{next(numbers)}"
                try:
                    assert await self.node.call("clock", plants.Tick(what=what), timeout=15.0) == what
                    self._answered.append(what)
                except KinfolkError as error:
                    self._unanswered.append([what, repr(error)])
                await asyncio.sleep(0.004)

        self._resting, self._answered, self._unanswered = False, [], []
        self._clients = [asyncio.create_task(client()) for _ in range(clients)]

    async def ticked(self) -> dict[str, Any]:
        """Finish with `tick`: what was answered, and what was not, with the reason."""
        self._resting = True
        await asyncio.gather(*self._clients)
        return {"answered": self._answered, "unanswered": self._unanswered}

    async def clock(self) -> list[str]:
        """What the clock has done."""
        plants = importlib.import_module("plants")
        done: list[str] = await self.node.call("clock", plants.Ticked(), timeout=15.0)
        return done

    async def drain(self) -> bool:
        """Leave."""
        return await self.node.drain()

    async def tree(self) -> Any:
        """What the node's service tells of its supervisors."""
        return await looking.trees(partial(self.node.call, ("kinfolk", self.node.name)))

    async def stop_tree(self) -> None:
        """Stop what it supervises."""
        await self._tree.stop()

    def leaves(self) -> dict[str, str]:
        """The leaves that live here, by their numbers."""
        names = self.node.names.local.snapshot()
        return {name.removeprefix("leaf/"): str(pid) for name, pid in names.items() if name.startswith("leaf/")}

    def left(self) -> dict[str, int]:
        """What supervision could leave behind here."""
        node = self.node
        return {
            "tasks": len(asyncio.all_tasks()),
            "processes": len(node.processes()),
            "relations": len(node.signals.relations),
            "alarms": len(node.alarms),
            "supervisors": len(node.supervisors),
        }

    def send(self, target: Any, message: Any) -> None:
        """Send a message."""
        self.node.send(_target(target), message)

    async def call(self, target: Any, request: Any, timeout: float | None = 5.0) -> Any:
        """Call a process."""
        return await self.node.call(_target(target), request, timeout=timeout)

    def load(self, target: str, clients: int) -> None:
        """Until `unload`, let so many clients call a process or name, each again as soon as it has its answer."""

        async def client() -> None:
            while not self._resting:
                try:
                    await self.node.call(_target(target), ["work"])
                    self._loaded["answered"] += 1
                except KinfolkError as error:
                    self._loaded[type(error).__name__] += 1
                    await asyncio.sleep(0.02)

        self._resting, self._loaded = False, Counter()
        self._clients = [asyncio.create_task(client()) for _ in range(clients)]

    async def unload(self) -> dict[str, int]:
        """Finish with `load`: how many calls were answered, and what the others raised."""
        self._resting = True
        await asyncio.gather(*self._clients)
        return self._loaded

    def loaded(self) -> dict[str, int]:
        """How many calls of `load` were answered up to now, and what the others raised."""
        return self._loaded

    def send_unserializable(self, target: Any) -> None:
        """Send what no wire can carry."""
        self.node.send(_target(target), {"numbers": [1, lambda: 2]})

    def send_bytes(self, target: Any, size: int, count: int = 1) -> None:
        """Send so many bytes, so many times."""
        for _ in range(count):
            self.node.send(_target(target), bytes(size))

    # --- what is cancelled ---

    async def register_cancelled(self, name: str, turns: int) -> str | None:
        """Register a name, and cancel that after so many turns of the loop. The pid, or None if that was in time."""
        pid = self.spawn()
        if await _cancelled(self.node.names.register(name, Pid.parse(pid)), turns) is None:
            self.kill(pid)
            return None
        return pid

    async def call_cancelled(self, target: Any, request: Any, turns: int) -> Any:
        """Call a process, and cancel that after so many turns of the loop. The answer, or None."""
        return await _cancelled(self.node.call(_target(target), request), turns)

    async def connect_cancelled(self, name: str, to: str, turns: int) -> list[str]:
        """With another node: connect, cancel that after so many turns, and connect. Its names then; it is closed."""
        async with Node(name, join=[]) as node:
            await _cancelled(node.connect(to), turns)
            await node.connect(to)
            return list(node.names.snapshot())

    # --- the limits of the operating system ---

    def limit_descriptors(self, spare: int | None) -> None:
        """Let the process open so many more files and sockets; None for as many as there may be."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = most
        if spare is not None:
            allowed = max(int(number) for number in os.listdir("/proc/self/fd")) + 1 + spare
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))

    def congested(self) -> dict[str, int]:
        """What waits for which peers, where that is more than it should be."""
        return self.node.congested()

    def consume(self, max_mailbox: int, pace: float) -> str:
        """Start a process that takes a message every so many seconds, on average, and counts them. Its pid."""
        taken = itertools.count()

        async def consumer(me: Process) -> None:
            began = time.monotonic()
            for number in taken:
                ahead = began + number * pace - time.monotonic()
                if ahead > 0.005:
                    await asyncio.sleep(ahead)
                elif ahead < 0:
                    began -= ahead  # it has waited for messages
                self._taken[str(me.pid)] = number
                await me.receive()

        pid = str(self.node.spawn(consumer, max_mailbox=max_mailbox))
        self._taken[pid] = 0
        return pid

    def taken(self, pid: str) -> int:
        """How many messages a consumer has taken."""
        return self._taken[pid]

    async def overload(self, target: str, rate: float, seconds: float, size: int) -> dict[str, int]:
        """Send so many messages a second of so many bytes. How many were sent, and how many refused."""
        loop, counts = asyncio.get_running_loop(), {"sent": 0, "refused": 0}
        began, body, pid = loop.time(), bytes(size), Pid.parse(target)
        while (elapsed := loop.time() - began) < seconds:
            while sum(counts.values()) < elapsed * rate:
                try:
                    self.node.send(pid, body)
                    counts["sent"] += 1
                except LinkCongested:
                    counts["refused"] += 1
            await asyncio.sleep(0.005)
        return counts

    async def pour(self, target: str, size: int, seconds: float) -> int:
        """Send messages of so many bytes as fast as there is room for them. How many there were."""
        loop, sent = asyncio.get_running_loop(), 0
        until = loop.time() + seconds
        while loop.time() < until:
            await self.node.send_when_clear(Pid.parse(target), bytes(size))
            sent += 1
            await asyncio.sleep(0)
        return sent

    # --- processes elsewhere ---

    async def spawn_on(self, node: str, body: str, args: Iterable[Any] = (), timeout: float | None = 5.0) -> str:
        """Start a process on a node; its pid."""
        return str(await self.node.spawn_on(node, body, *args, timeout=timeout))

    async def spawn_linked(self, node: str, body: str, args: Iterable[Any] = ()) -> list[str]:
        """Have a new actor start a linked process on a node; both pids."""
        actor = Actor()
        mine = self.node.spawn(actor.run)
        self._actors[str(mine)] = actor
        started = self.node.call(mine, ["spawn", node, body, list(args)])
        return [str(mine), await started]

    def running(self, module: str) -> list[str]:
        """The processes of this node that run a function of this module."""
        return [str(process.pid) for process in self.node.processes() if process.body.__module__ == module]

    # --- groups ---

    async def join(self, group: str, pid: str | None = None) -> str:
        """Put a process into a group, a new actor if no pid is given; its pid."""
        pid = self.spawn() if pid is None else pid
        await self.node.groups.join(group, Pid.parse(pid))
        return pid

    async def leave(self, group: str, pid: str) -> None:
        """Take a process out of a group."""
        await self.node.groups.leave(group, Pid.parse(pid))

    def groups(self) -> dict[str, list[str]]:
        """Every group with its members, in order."""
        return {group: sorted(map(str, pids)) for group, pids in self.node.groups.snapshot().items()}

    def broadcast(self, group: str, message: Any) -> None:
        """Send a message to a group."""
        self.node.groups.broadcast(group, message)

    # --- names ---

    async def register(
        self, name: str, pid: str | None = None, at: float = 0.0, timeout: float | None = None, on_lost: Any = "exit"
    ) -> str:
        """Register a name, for a new actor if no pid is given, which is killed if that fails. The pid."""
        mine = self.spawn() if pid is None else pid
        await _moment(at)
        try:
            registered = await self.node.names.register(name, Pid.parse(mine), timeout=timeout, on_lost=on_lost)
        except BaseException:
            if pid is None:
                self.kill(mine)
            raise
        self._registrations[name] = registered
        return mine

    async def register_many(self, names: list[str]) -> dict[str, str]:
        """Register many names at once, each for an actor of its own; each name with its pid."""
        return dict(zip(names, await asyncio.gather(*map(self.register, names)), strict=True))

    def register_nowait(self, name: str, pid: str | None = None, keep: bool = True) -> str:
        """Register a name without waiting; keep the handle, or the one there is. The pid."""
        pid = self.spawn() if pid is None else pid
        registered = self.node.names.register_nowait(name, Pid.parse(pid))
        if keep:
            self._registrations[name] = registered
        return pid

    def fill(self, count: int, prefix: str, first: int = 0, pid: str | None = None) -> str:
        """Register so many names, ``prefix/number``, for one actor, a new one if no pid is given. Its pid."""
        pid = self.spawn() if pid is None else pid
        for number in range(first, first + count):
            self.node.names.register_nowait(f"{prefix}/{number}", Pid.parse(pid))
        return pid

    def churn(self, prefix: str, size: int) -> str:
        """Until `rest`, give up names ``prefix/number`` and register them again, all the time. Their pid."""
        actor = self.fill(size, prefix)

        async def change() -> None:
            for number in itertools.cycle(range(size)):
                await self.node.names.unregister(f"{prefix}/{number}")
                await self.node.names.register(f"{prefix}/{number}", Pid.parse(actor))
                if self._resting:
                    return

        self._resting, self._churning = False, asyncio.create_task(change())
        return actor

    async def rest(self) -> None:
        """Finish with `churn`: every name is registered then."""
        assert self._churning is not None, "churn() comes first"
        self._resting = True
        await self._churning

    def missing(self, prefix: str, count: int) -> int:
        """How many of the names ``prefix/number`` resolve to nobody."""
        return sum(self.node.names.whereis(f"{prefix}/{number}") is None for number in range(count))

    def fingerprint(self) -> str:
        """Equal where all names have the same holders."""
        table = sorted((name, str(pid)) for name, pid in self.node.names.snapshot().items())
        return hashlib.sha256(repr(table).encode()).hexdigest()

    def register_locally(self, name: str, pid: str) -> None:
        """Give an actor a name on this node."""
        self.node.names.local.register(name, Pid.parse(pid))

    async def unregister(self, name: str, timeout: float | None = None) -> None:
        """Give up a name."""
        await self.node.names.unregister(name, timeout=timeout)

    async def give_up(self, name: str) -> tuple[str | None, bool]:
        """Give up a name: whom it is taken from, if anybody has it here, and whether that has ended well."""
        pid = self.whereis(name)
        if pid is None:
            return None, False
        try:
            await self.node.names.unregister(name)
        except KinfolkError:
            return pid, False
        return pid, True

    async def release(self, name: str) -> None:
        """Give up the last registration of a name."""
        await self._registrations[name].release()

    async def wait_for(self, name: str, timeout: float | None = None) -> str:
        """Wait until somebody has the name."""
        return str(await self.node.names.wait_for(name, timeout=timeout))

    async def watch(self, pattern: str = "*") -> None:
        """From now on, remember what happens to names; what is there already comes first."""
        watch = self.node.names.watch(pattern)
        task = asyncio.create_task(self._follow(watch))
        self._watches.append((watch, task))
        await asyncio.sleep(0)

    def events(self) -> list[list[object]]:
        """What has happened to the watched names: [monotonic seconds, "+" or "-", name, pid]."""
        return self._events

    async def _follow(self, watch: NameWatch) -> None:
        try:
            async for event in watch:
                now = time.monotonic()
                if isinstance(event, Resync):
                    self._events.append([now, "resync", "", ""])
                else:
                    sign = "+" if isinstance(event, NameAdded) else "-"
                    self._events.append([now, sign, event.name, str(event.pid)])
        except NodeClosed:
            self._events.append([time.monotonic(), "closed", "", ""])


async def _act(me: Process) -> None:
    await Actor().run(me)


async def _cancelled(waiting: Coroutine[Any, Any, Any], turns: int) -> Any:
    """What it comes to if it is cancelled after so many turns of the loop: None if that was in time."""
    task = asyncio.ensure_future(waiting)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return None


def _words(reason: Reason) -> str:
    """A reason in words; a lost name's and a crash's begin with what they are."""
    match reason:
        case Crash():
            return f"Crash {reason.type}: {reason.message}, raised in {'run' if 'in run' in reason.traceback else '?'}"
        case NameLost():
            return "NameLost"
        case _:
            return reason


def _compute(seconds: float) -> None:
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        number += 1


def _target(target: Any) -> Any:
    """A pid's text as the pid, a list as (name, node); any other text is a name."""
    if isinstance(target, list):
        return tuple(target)
    return Pid.parse(target) if target.count("/") == 2 and "@" in target else target


async def _moment(at: float) -> None:
    """Wait for a moment on the monotonic clock, which all processes of a machine share."""
    delay = at - time.monotonic()
    if delay > 0:
        await asyncio.sleep(delay)


class Home(TypedDict):
    """Where and how a worker lives."""

    environment: dict[str, str]
    directory: str
    log: str
    routes: dict[str, int]
    """By the port that it dials: the port that it reaches."""


async def _obey(worker: Worker, channel: asyncio.StreamWriter, number: int, order: str, arguments: Any) -> None:
    try:
        value = getattr(worker, order)(**arguments)
        answer: dict[str, object] = {"value": await value if asyncio.iscoroutine(value) else value}
    except Exception as error:
        holder = str(error.holder) if isinstance(error, NameTaken) else None
        answer = {"error": type(error).__name__, "text": str(error), "holder": holder}
    channel.write(json.dumps({"number": number, **answer}).encode() + b"\n")


async def live(channel: socket.socket) -> None:
    """Obey until the channel ends."""
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=2**24)
    worker = Worker()
    obeying: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = asyncio.create_task(_obey(worker, writer, *json.loads(line)))
        obeying.add(task)
        task.add_done_callback(obeying.discard)
    if hasattr(worker, "node"):
        await worker.close()
    writer.close()
    await writer.wait_closed()


def nurse(path: str) -> socket.socket | None:
    """Fork a worker for each connection. Returns the channel in the worker, None in the nursery at its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them: whoever told them sees the channel end
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return None
            channel, _ = listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                return channel
            channel.close()


def move_in(channel: socket.socket) -> Home:
    """Read the first line of the channel, byte by byte, and live as it says."""
    line = b""
    while not line.endswith(b"\n"):
        line += channel.recv(1)
    home: Home = json.loads(line)
    for key in [key for key in os.environ if key.startswith("KINFOLK_")]:
        del os.environ[key]
    os.environ.update(home["environment"])
    os.chdir(home["directory"])
    log = os.open(home["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for ours, standard in ((null, 0), (log, 1), (log, 2)):
        os.dup2(ours, standard)
    os.close(null)
    os.close(log)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    channel.sendall(json.dumps(os.getpid()).encode() + b"\n")
    return home


def main() -> None:
    """Be a nursery, and then perhaps a worker."""
    channel = nurse(sys.argv[1])
    if channel is None:
        return
    home = move_in(channel)
    routes = {int(port): proxy for port, proxy in home["routes"].items()}
    with asyncio.Runner(loop_factory=lambda: routed_loop(routes)) as runner:
        runner.run(live(channel))


if __name__ == "__main__":
    main()
