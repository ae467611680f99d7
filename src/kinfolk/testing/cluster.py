"""A cluster for tests: whole nodes in one program, and everything that can go wrong between them.

On a simulated loop (`simulate`) its network, its clocks and its random numbers are the simulation's. On any other loop
the network is in memory all the same, but time is real; or it is that of this machine, with ``loopback=True``.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, overload

from kinfolk.cookie import Cookie, new_cookie
from kinfolk.errors import NodeClosed
from kinfolk.ids import node_address
from kinfolk.kernel import Kernel
from kinfolk.node import Node
from kinfolk.seconds import check_seconds
from kinfolk.testing.loop import Program, SimulatedLoop
from kinfolk.testing.network import LATENCY, MemoryMachine, Network

WORDS = ("ada", "bob", "carl", "dora", "emil", "finn", "gina", "hugo", "ines", "jona", "kurt", "lena")
PORT = 4370
COOKIE = Cookie("kfc1_dGhpcyBpcyBrbm93biB0byBhbnlib2R5IGFueWhvdyGKDklE", "kinfolk.testing")
"""That of every cluster in memory, where nobody can connect from elsewhere."""
HEARTBEAT = 0.1
"""Seconds between signs of life where time is real; in a simulation, where it costs nothing, a node's usual one."""
LOOK_EVERY = 0.02
"""Seconds after which it is looked again whether a cluster has settled."""

Main = Callable[[Node], Coroutine[Any, Any, object]]
Side = Node | Iterable[Node]


class NotSettled(AssertionError):
    """A cluster did not come to rest in time; says what it waits for."""


class Cluster(Sequence[Node]):
    """The nodes of a test, in the order of their making. See `cluster`.

    A node that was restarted is another `Node` object in the place of the old one.
    """

    def __init__(
        self,
        count: int,
        *,
        main: Main | None,
        loopback: bool,
        latency: tuple[float, float],
        settings: dict[str, Any],
    ) -> None:
        self._count = count
        self._main = main
        self._loopback = loopback
        self._latency = latency
        self._settings = settings
        self._words = (*WORDS, *(f"n{number}" for number in range(len(WORDS), count)))
        self._places: list[_Place] = []
        self._rng: random.Random | None = None
        self._network: Network | None = None
        self._cookie = Cookie(new_cookie()) if loopback else COOKIE
        self._skew: dict[str, float] = {}

    # --- a sequence of nodes ---

    @overload
    def __getitem__(self, index: int) -> Node: ...
    @overload
    def __getitem__(self, index: slice) -> list[Node]: ...
    def __getitem__(self, index: int | slice) -> Node | list[Node]:
        if isinstance(index, slice):
            return [place.node for place in self._places[index]]
        return self._places[index].node

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Node]:
        return (place.node for place in self._places)

    def __repr__(self) -> str:
        words = [place.word if place.up else f"{place.word} (down)" for place in self._places]
        return f"<cluster of {', '.join(words)}>"

    # --- its life ---

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if isinstance(loop, SimulatedLoop):
            if self._loopback:
                raise RuntimeError("a simulation has no loopback: leave out loopback=True, or run it on a real loop")
            self._settings = {"heartbeat": 1.0, **self._settings}
            self._rng = loop.rng
            note = None if loop.log is None else loop.note
            self._network = Network(loop.rng, self._latency, note, loop.wall_clock)
        else:
            self._settings = {"heartbeat": HEARTBEAT, **self._settings}
            self._rng = random.Random()  # noqa: S311 - no secret
            if not self._loopback:
                self._network = Network(self._rng, self._latency)
        try:
            await asyncio.gather(*(self.add() for _ in range(self._count)))
            await self.settled()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()
        if error is None:
            for place in self._places:
                place.check_main()

    async def _end(self) -> None:
        for place in self._places:
            place.end_main()
        await asyncio.gather(*(place.node.close() for place in self._places))

    async def add(self, **settings: Any) -> Node:
        """Start one more node, which joins the others. Returns it when it has joined.

        Args:
            settings: of `Node`, beside and before those of the cluster.
        """
        place = _Place(self._words[len(self)] if len(self) < len(self._words) else f"n{len(self)}")
        return await self._start(place, settings)

    async def _start(self, place: "_Place", settings: dict[str, Any]) -> Node:
        place.program = Program(place.word)
        name = f"{place.word}@{place.word}:{PORT}"
        given: dict[str, Any] = {"strict_messages": True, "cookie": self._cookie}
        if self._network is not None:
            machine = MemoryMachine(self._network, place.word, place.program, self._skew.get(place.word, 0.0))
            given["machine"] = machine
            self._network.power_on(place.word)
        else:
            name = f"{place.word}@127.0.0.1:{place.port}"
        given["join"] = [other.node.name for other in self._places if other is not place and other.up]
        given |= {**self._settings, **settings}
        place.node = Node(name, **given)
        place.up = True
        if place not in self._places:
            self._places.append(place)
        place.port = node_address(place.node.name).port
        context = place.program.context()
        loop = asyncio.get_running_loop()
        starting = loop.create_task(place.node.start(), name=f"start {place.word}", context=context)
        place.started = started = loop.create_future()
        starting.add_done_callback(lambda task: _pass_on(task, started))
        try:
            await started  # not the task itself: of a node that crashes meanwhile, no code runs any further
        except BaseException:
            starting.cancel()
            if place.started is started:
                place.up = False  # it may be restarted all the same
            raise
        if self._main is not None:
            place.main = loop.create_task(_run(self._main, place.node), name=f"main of {place.word}", context=context)
        return place.node

    @property
    def rng(self) -> random.Random:
        """For what the test itself leaves to chance: in a simulation, the seed decides that as well."""
        if self._rng is None:
            raise RuntimeError("the cluster has not started: use it as `async with cluster(3) as nodes`")
        return self._rng

    # --- what happens to nodes ---

    async def crash(self, node: Node, *, power: bool = False) -> None:
        """End a node at once, as if its program had been killed: no process of it runs any further.

        Args:
            power: its machine is gone as well, so that nobody tells the others: they notice its silence.
        """
        place = self._place(node)
        if not place.up:
            raise ValueError(f"{place.word} is down already")
        self._crash(place, power)
        await _ended(place)

    def _crash(self, place: "_Place", power: bool) -> None:
        place.up = False
        if self._network is not None:
            self._network.crash(place.program, place.word, power=power)
        elif power:
            raise RuntimeError("the power of this machine stays on: leave out loopback=True, or power=True")
        loop = asyncio.get_running_loop()
        if isinstance(loop, SimulatedLoop):
            loop.kill(place.program)
        place.program.alive = False
        place.node.abandon()
        if place.started is not None and not place.started.done():
            place.started.set_exception(NodeClosed(f"{place.word} has crashed while it was starting"))
        if place.main is not None:
            place.main.cancel()

    async def restart(self, node: Node, **settings: Any) -> Node:
        """Start a node anew under its name, after a crash or in the midst of its life, and return the new `Node`.

        Args:
            settings: of `Node`, beside and before those of the cluster.

        Raises:
            NodeClosed: it was crashed before it had started.
        """
        place = self._place(node)
        if place.up:
            await self.crash(node)
        return await self._start(place, settings)

    def is_up(self, node: Node) -> bool:
        """Whether the node runs: it has neither crashed nor been replaced by a restart."""
        for place in self._places:
            if place.node is node:
                return place.up
        return False

    # --- what happens between them ---

    def partition(self, *sides: Side) -> None:
        """Let nothing pass between nodes of different sides. Nothing is told to anybody: connections just fall silent.

        Args:
            sides: nodes, or several together. One alone stands against all others.
        """
        network = self._memory("partition")
        groups = [[self._place(node).word for node in _nodes(side)] for side in sides]
        if len(groups) == 1:
            groups.append([place.word for place in self._places if place.word not in groups[0]])
        for one, other in itertools.permutations(groups, 2):
            for source, target in itertools.product(one, other):
                network.stall(source, target)

    def keep_apart(self, *words: str) -> None:
        """Let nothing pass between nodes that have yet to start, by the first words of their names."""
        network = self._memory("keep_apart")
        for source, target in itertools.permutations(words, 2):
            network.stall(source, target)

    def stall(self, source: Node, target: Node) -> None:
        """Let nothing that one node says arrive at another. What the other says arrives as before."""
        self._memory("stall").stall(self._place(source).word, self._place(target).word)

    def cut(self, one: Node, other: Node) -> None:
        """Reset the connections between two nodes: what is under way is lost. They may connect anew at once."""
        self._memory("cut").cut(self._place(one).word, self._place(other).word)

    def heal(self) -> None:
        """Let everything pass again. What has been said meanwhile arrives, if its connection is still there."""
        self._memory("heal").heal()

    def set_clock(self, node: Node, seconds: float) -> None:
        """Let the wall clock of a node's machine be wrong by so many seconds, from now on."""
        self._memory("set_clock")
        place = self._place(node)
        self._skew[place.word] = seconds
        machine = node.machine
        assert isinstance(machine, MemoryMachine), "that of every node in memory"
        machine.skew = seconds

    def connected(self, one: Node, other: Node) -> bool:
        """Whether both nodes are up and whatever one says arrives at the other."""
        return self._connected(self._place(one), self._place(other))

    def _connected(self, one: "_Place", other: "_Place") -> bool:
        if not (one.up and other.up):
            return False
        network = self._network
        return network is None or (network.passes(one.word, other.word) and network.passes(other.word, one.word))

    # --- and whether it is over ---

    async def settled(self, *, timeout: float = 60.0) -> None:
        """Wait until the nodes have come to rest: those that can are connected, and hold the same names and groups.

        That says nothing of messages between processes.

        Raises:
            NotSettled: they did not within `timeout` seconds, and what is missing.
        """
        check_seconds(timeout)
        until = asyncio.get_running_loop().time() + timeout
        while (missing := self._missing()) is not None:
            if asyncio.get_running_loop().time() >= until:
                raise NotSettled(f"after {timeout:g} s {missing}")
            await asyncio.sleep(LOOK_EVERY)

    def _missing(self) -> str | None:
        """The first thing that keeps the cluster from being at rest."""
        if self._network is not None and self._network.breaks:
            return "a connection is lost, and not everybody has noticed"
        up = [(place, place.node.kernel) for place in self._places if place.up]
        for (one, kernel), (other, there) in itertools.permutations(up, 2):
            if self._connected(one, other):
                what = _behind(kernel, there)
            else:
                what = "holds the other for connected" if there.name in kernel.peers() else None
            if what is not None:
                return f"{kernel.name} {what} (the other is {there.name})"
        for place in self._places:
            if not place.up and any(place.node.name in kernel.peers() for _, kernel in up):
                return f"{place.word} is still taken for connected"
        for _, kernel in up:
            waiting = [name for name, own in kernel.names.own.items() if not own.confirmed]
            if waiting or kernel.names.busy:
                return (
                    f"{kernel.name} waits for the confirmation of {', '.join(waiting[:5]) or 'nothing, but is at work'}"
                )
        return None

    # --- inside ---

    def _place(self, node: Node) -> "_Place":
        for place in self._places:
            if place.node is node:
                return place
        raise ValueError(f"{node!r} is no node of this cluster; after a restart, its place holds another")

    def _memory(self, what: str) -> Network:
        if self._network is None:
            raise RuntimeError(f"{what}: the network of this machine stays as it is; leave out loopback=True")
        return self._network


class _Place:
    """Where a node is in the cluster, from start to start."""

    node: Node
    program: Program

    def __init__(self, word: str) -> None:
        self.word = word
        self.up = False
        self.port = 0
        self.main: asyncio.Task[None] | None = None
        self.started: asyncio.Future[None] | None = None
        """Done when the last start has ended."""

    def end_main(self) -> None:
        if self.main is not None:
            self.main.cancel()

    def check_main(self) -> None:
        """Raise what it has raised."""
        if self.main is not None and self.main.done() and not self.main.cancelled():
            self.main.result()


def cluster(
    count: int = 3,
    *,
    main: Main | None = None,
    loopback: bool = False,
    latency: tuple[float, float] = LATENCY,
    **settings: Any,
) -> Cluster:
    """Nodes for a test: ``async with cluster(3) as nodes``, which are then connected, each with all others.

    Args:
        count: how many.
        main: what each node runs once it has started, and again after a restart, as `kinfolk run` would: called with
            the node, ended with it. What it raises is raised at the end of the block.
        loopback: connect them over TLS and sockets of this machine, in place of a network in memory: slower, nothing
            of the network is left out, and it cannot be parted.
        latency: seconds that bytes are under way in memory, at least and at most.
        settings: of every `Node`. Beside its usual ones, `strict_messages` is on, and where time is real, nodes give a
            sign of life every 0.1 s.

    Returns:
        The nodes as a sequence, with `partition`, `heal`, `crash`, `restart`, `settled` and others.
    """
    return Cluster(count, main=main, loopback=loopback, latency=latency, settings=settings)


async def _run(main: Main, node: Node) -> None:
    await main(node)


def _pass_on(task: "asyncio.Task[None]", outcome: "asyncio.Future[None]") -> None:
    """Let a future end as a task has, unless it has ended already."""
    if task.cancelled():
        outcome.cancel()
        return
    error = task.exception()
    if outcome.done():
        return
    if error is None:
        outcome.set_result(None)
    else:
        outcome.set_exception(error)


async def _ended(place: _Place) -> None:
    """Wait, where code can still run, until that of a crashed node has ended."""
    if isinstance(asyncio.get_running_loop(), SimulatedLoop):
        return
    tasks = [process.task for process in place.node.processes() if process.task is not None]
    if place.main is not None:
        tasks.append(place.main)
    if tasks:
        await asyncio.wait(tasks, timeout=5.0)


def _nodes(side: Side) -> list[Node]:
    return [side] if isinstance(side, Node) else list(side)


def _behind(one: Kernel, other: Kernel) -> str | None:
    """What one node has yet to learn of another that it can be connected with."""
    session = one.members.by_peer.get(other.name)
    if session is None or session.creation != other.creation or not (session.greeted and session.synced):
        return "is not connected"
    mirror = one.names.mirrors.get(other.name)
    if mirror is None or not mirror.complete or mirror.position != other.names.ledger.position:
        return "does not hold all names yet"
    return None
