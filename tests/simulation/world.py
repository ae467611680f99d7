"""A network of kernels in virtual time: no loop, no sockets, no clock.

A *host* is a place with an address; a *node* is one start of a kernel there. Two *ends* make a connection. What one
step of a kernel sends to one end travels as one packet, after a delay drawn at random, in order. Nothing happens but
the events of one heap, so a seed determines everything.

What may go wrong is a method each: `cut` (a connection breaks: the ends notice at different times, or one never does,
and part of what was under way is lost), `stall` (one direction carries nothing, and nobody is told), `crash`,
`shut_down`, `pause` (a stopped node: whatever happens to it waits). The world carries out effects and knows nothing of
names; who watches them is told through `Watch`.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from math import inf
from typing import Any, Protocol

from kinfolk import effects as fx
from kinfolk.core.names import Names
from kinfolk.errors import AuthenticationFailed, NodeUnreachable
from kinfolk.ids import Address, Pid, Seed
from kinfolk.kernel import Kernel
from kinfolk.tempo import Settings
from kinfolk.wire import frames
from kinfolk.wire.outbox import Outbox

HANDSHAKE_TIMEOUT = 2.0
EPOCH_MS = 1_700_000_000_000
WILD = (-(2**62), -7_200_000, -1, 0, 7_200_000, 2**47 - 1, 2**47, 2**62)
"""What wild clocks read, by itself or beside what the time is, in ms."""
LAST_STAMP = 2**63 - 1

NAMES = ("ada", "bob", "carl", "dora", "emil")

Run = Sequence[frames.Operation]
Packet = list[Run] | bytearray | None
"""The frames of one step, encoded or not; None is the end of the stream."""


class State(Enum):
    """What one end of a connection is to its node."""

    DIALLING = "dialling"
    PROVED = "proved"
    ADMITTED = "admitted"
    OPEN = "open"
    CLOSED = "closed"


class Host:
    """A place where nodes start, one after the other, under one name."""

    def __init__(self, name: str) -> None:
        self.name = f"{name}@{name}:1"
        self.address = Address(name, 1)
        self.seed = Seed(self.address, self.name)
        self.node: Node | None = None
        self.creation = 0
        self.skew_ms = 0


class Node:
    """One start of a host: a kernel and its ends of connections."""

    def __init__(self, host: Host, kernel: Kernel, processes: set[int]) -> None:
        self.host, self.kernel, self.name = host, kernel, host.name
        self.alive = True
        self.wakes = 0.0
        """Until then it is stopped."""
        self.slept = 0.0
        """For how long, the last time."""
        self.armed = inf
        """The event for its next deadline is there at this time."""
        self.ends: dict[int, End] = {}
        self.outbox: dict[int, list[frames.Operation]] = {}
        self.processes = processes
        self.last_process = 0

    def spawn(self) -> Pid:
        """A new process."""
        self.last_process += 1
        self.processes.add(self.last_process)
        self.kernel.creation_is_final = True
        return Pid(self.name, self.kernel.creation, self.last_process)

    def __repr__(self) -> str:
        return self.host.address.host


class End:
    """One end of a connection, and what is on its way to it."""

    __slots__ = ("last", "limit", "node", "number", "opened", "other", "received", "sent", "stalled", "state", "synced")

    def __init__(self, node: Node, number: int, state: State) -> None:
        self.node, self.number, self.state = node, number, state
        self.other: End | None = None
        self.sent = self.received = 0
        self.limit: float = inf
        """Packets from this one on are lost."""
        self.last = 0.0
        """When the last packet on the way arrives."""
        self.stalled: list[tuple[End, int, Packet]] | None = None
        """What waits while nothing comes through."""
        self.opened = inf
        """When the session opened at this end."""
        self.synced = inf
        """When the other end's names were all here."""


class Watch(Protocol):
    """Who is told what the kernels do."""

    def started(self, node: Node) -> None: ...
    def stopped(self, node: Node, crashed: bool) -> None: ...
    def before(self, node: Node, happened: fx.Input) -> None: ...
    def effects(self) -> dict[type, Callable[[Node, Any], None]]: ...
    def failed(self, node: Node, happened: fx.Input, error: Exception) -> None: ...


class World:
    """All hosts, their connections, and the time.

    Args:
        rng: all that is random.
        settings: of every kernel.
        kernel_type, names_type: what runs on every host; a mutant, for example.
        watch: is told what happens, and gets the effects that are not for the network.
        delay: seconds a packet takes, from 0 to this; in a `slow` direction, to what is said there.
        drain: seconds until an outbox has room again, from 0 to this.
        encoded: packets travel as bytes and not as objects.
    """

    def __init__(
        self,
        rng: random.Random,
        settings: Settings,
        watch: Watch,
        *,
        kernel_type: type[Kernel] = Kernel,
        names_type: type[Names] = Names,
        delay: float = 0.05,
        drain: float = 0.05,
        encoded: bool = False,
    ) -> None:
        self.rng, self.settings, self.watch = rng, settings, watch
        self.kernel_type, self.names_type = kernel_type, names_type
        self.delay, self.drain, self.encoded = delay, drain, encoded
        self.turn = drain / 10
        """Seconds until a node that has much to do goes on with it, from 0 to this."""
        self.slow: dict[tuple[str, str], float] = {}
        self.now = 0.0
        self.steps = 0
        self.wild_clocks = False
        self.stamps: set[int] = set()
        """Those that were said while clocks were wild."""
        self.hosts: dict[str, Host] = {}
        self.by_address: dict[Address, Host] = {}
        self.strangers: set[str] = set()
        """Hosts of which no two ever connect."""
        self.silent: set[tuple[str, str]] = set()
        """Directions (from, to) in which nothing comes through."""
        self.trace: Callable[[str], None] | None = None
        self._events: list[tuple[float, int, Node | None, Callable[[Any], None], Any]] = []
        self._count = 0
        self._effects: dict[type, Callable[[Node, Any], None]] = {
            fx.Send: self._send,
            fx.WantDrain: self._want_drain,
            fx.WantTurn: self._want_turn,
            fx.Dial: self._dial,
            fx.Admit: self._admit,
            fx.Refuse: self._refuse,
            fx.Close: self._close,
            fx.RaiseCreation: self._raise_creation,
            **watch.effects(),
        }

    # --- time ---

    def at(self, when: float, node: Node | None, act: Callable[[Any], None], subject: Any = None) -> None:
        """Do this then, unless the node is dead by then; a node that is stopped does it when it wakes."""
        self._count += 1
        heapq.heappush(self._events, (when, self._count, node, act, subject))

    def run(self, until: float) -> None:
        """Let everything happen up to this moment."""
        events = self._events
        while events and events[0][0] <= until:
            when, count, node, act, subject = heapq.heappop(events)
            if node is not None:
                if not node.alive:
                    continue
                if node.wakes > when:
                    heapq.heappush(events, (node.wakes, count, node, act, subject))
                    continue
            self.now = when
            self.steps += 1
            act(subject)
        self.now = until

    # --- hosts and nodes ---

    def add_host(self, name: str) -> Host:
        """A new place, with nothing running there."""
        host = self.hosts[name] = Host(name)
        self.by_address[host.address] = host
        return host

    def start(self, host: Host, creation: int | None = None) -> Node:
        """Start a node, under a creation higher than the last unless one is given."""
        assert host.node is None, f"{host.name} runs already"
        host.creation = host.creation + 1 + self.rng.randrange(3) if creation is None else creation
        processes: set[int] = set()
        kernel = self.kernel_type(
            host.name, host.creation, self.settings, self.rng, self.names_type, is_alive=processes.__contains__
        )
        node = host.node = Node(host, kernel, processes)
        if self.trace:
            self.trace(f"{node} starts, creation {host.creation}")
        self.watch.started(node)
        return node

    def running(self) -> list[Node]:
        """The nodes that live."""
        return [host.node for host in self.hosts.values() if host.node is not None]

    def feed(self, node: Node, happened: fx.Input) -> None:
        """Give a kernel one input and carry out its effects."""
        self.watch.before(node, happened)
        if self.trace and not isinstance(happened, fx.TimePassed):
            self.trace(f"{node}: {_text(happened, node)}")
        wall = EPOCH_MS + int(self.now * 1000) + node.host.skew_ms
        if self.wild_clocks and self.rng.random() < 0.05:
            wall = self.rng.choice(WILD) + self.rng.choice((0, wall, wall))
        try:
            effects = node.kernel.handle(happened, fx.Now(self.now, wall))
        except Exception as error:
            self.watch.failed(node, happened, error)
            return
        table = self._effects
        for effect in effects:
            if self.trace:
                self.trace(f"    {node} -> {_text(effect, node)}")
            perform = table.get(type(effect))
            if perform is not None:
                perform(node, effect)
        if node.outbox:
            outbox, node.outbox = node.outbox, {}
            for number, operations in outbox.items():
                end = node.ends.get(number)
                if end is not None:
                    self._post(end, operations)
        deadline = node.kernel.next_deadline()
        if deadline is not None and deadline < node.armed:
            self._arm(node)

    def _arm(self, node: Node) -> None:
        deadline = node.kernel.next_deadline()
        if deadline is not None and deadline < node.armed:
            node.armed = deadline
            self.at(max(deadline, self.now), node, self._deadline, (node, deadline))

    def _deadline(self, subject: tuple[Node, float]) -> None:
        node, armed = subject
        if node.armed != armed:
            return  # an earlier one came in between
        node.armed = inf
        deadline = node.kernel.next_deadline()
        if deadline is not None and deadline <= self.now:
            self.feed(node, fx.TimePassed())
        else:
            self._arm(node)

    def process_exits(self, node: Node, local: int) -> None:
        """A process of the node ends."""
        if node.alive and local in node.processes:
            node.processes.discard(local)
            self.feed(node, fx.ProcessExited(local))

    # --- faults ---

    def cut(self, end: End, silent: bool = False) -> None:
        """This end notices now; the other later or, if `silent`, never. Part of what this end had sent is lost."""
        other = end.other
        end.limit = end.received
        if other is not None:
            other.limit = min(other.limit, self.rng.randint(other.received, other.sent))
            if not silent:
                self._post_end(end)
        if self.trace:
            where = f"{end.node} - {other.node if other else '?'}"
            self.trace(f"* the connection {where} breaks{', as only the first of them sees' if silent else ''}")
        self.at(self.now, end.node, self._ended, end)

    def crash(self, node: Node, silent: Iterable[str] = ()) -> None:
        """The node is gone. Peers see closed sockets, but those in `silent` see nothing any more."""
        if self.trace:
            self.trace(f"* {node} crashes; silent towards {', '.join(sorted(silent)) or 'nobody'}")
        node.alive = False
        node.host.node = None
        for end in list(node.ends.values()):
            if end.other is not None:
                other = end.other
                other.limit = min(other.limit, self.rng.randint(other.received, other.sent))
                if other.node.name not in silent:
                    self._post_end(end)
            end.state = State.CLOSED
        node.ends.clear()
        self.watch.stopped(node, crashed=True)

    def shut_down(self, node: Node, leaves: bool = False) -> None:
        """The node closes in good order, for good in this creation if it `leaves`."""
        self.feed(node, fx.Shutdown(leaves))
        node.alive = False
        node.host.node = None
        self.watch.stopped(node, crashed=False)

    def pause(self, node: Node, seconds: float) -> None:
        """Stop the node (SIGSTOP): all that happens to it waits."""
        if self.trace:
            self.trace(f"* {node} stops for {seconds:.2f} s")
        node.wakes, node.slept = max(node.wakes, self.now + seconds), seconds

    def stall(self, a: str, b: str) -> None:
        """From now on nothing comes through from a to b (names of hosts), and nobody is told."""
        if self.trace:
            self.trace(f"* nothing passes from {a} to {b}")
        self.silent.add((a, b))
        for end in self._ends_of(b):
            if end.other is not None and end.other.node.host.address.host == a and end.stalled is None:
                end.stalled = []

    def heal(self, a: str, b: str) -> None:
        """What was sent from a to b meanwhile comes through, unless the connection has died of it."""
        if (a, b) not in self.silent:
            return
        if self.trace:
            self.trace(f"* messages pass from {a} to {b} again")
        self.silent.discard((a, b))
        for end in self._ends_of(b):
            if end.other is None or end.other.node.host.address.host != a or end.stalled is None:
                continue
            waiting, end.stalled = end.stalled, None
            for to, index, packet in waiting:
                self._travel(to, index, packet)
            if waiting and end.state is State.OPEN and self.rng.random() < 0.3:
                self.cut(end)

    def _ends_of(self, host: str) -> list[End]:
        node = self.hosts[host].node
        return [] if node is None else list(node.ends.values())

    def can_meet(self, a: Host, b: Host) -> bool:
        """Whether these two can ever connect."""
        return not (a.address.host in self.strangers and b.address.host in self.strangers)

    def link(self, a: Node, b: Node) -> End | None:
        """The end at `a` of the session that is open at both ends, if there is one."""
        number = a.kernel.session_of(b.name)
        end = None if number is None else a.ends.get(number)
        if end is None or end.state is not State.OPEN or end.other is None:
            return None
        other = end.other
        same = other.node is b and other.state is State.OPEN and b.kernel.session_of(a.name) == other.number
        return end if same else None

    # --- packets ---

    def _latency(self, a: Host, b: Host) -> float:
        slow = self.slow.get((a.address.host, b.address.host)) if self.slow else None
        return self.rng.random() * (self.delay if slow is None else slow)

    def _post(self, end: End, operations: list[frames.Operation]) -> None:
        other = end.other
        if other is None or other.state is State.CLOSED:
            return
        packet: Packet
        if self.wild_clocks:
            self.stamps |= {operation.stamp for operation in operations if isinstance(operation, frames.NameClaimed)}
        if self.encoded or self.wild_clocks:  # what is out of range can be said, and not be read
            outbox = Outbox()
            for operation in operations:
                outbox.append(operation.TAG, frames.encode_operation(operation))
            packet = outbox.take()
        elif len(operations) == 1:
            packet = [operations]
        else:
            packet = [list(run) for _, run in itertools.groupby(operations, type)]
        index = other.sent
        other.sent = index + 1
        self._travel(other, index, packet)

    def _post_end(self, end: End) -> None:
        if end.other is not None and end.other.state is not State.CLOSED:
            self._travel(end.other, -1, None)

    def _travel(self, to: End, index: int, packet: Packet) -> None:
        if to.stalled is not None:
            to.stalled.append((to, index, packet))
            return
        most = self.delay
        if self.slow:
            assert to.other is not None, "only a connected end is sent to"
            most = self.slow.get((to.other.node.host.address.host, to.node.host.address.host), most)
        when = self.now + self.rng.random() * most
        if when < to.last:
            when = to.last
        else:
            to.last = when
        self._count += 1
        heapq.heappush(self._events, (when, self._count, to.node, self._arrive, (to, index, packet)))

    def _arrive(self, subject: tuple[End, int, Packet]) -> None:
        end, index, packet = subject
        if end.state is State.CLOSED or index >= end.limit:
            return
        if packet is None:
            self._ended(end)
            return
        end.received = index + 1
        if end.state is State.DIALLING or end.state is State.PROVED:
            raise AssertionError(f"a frame before the session could open: {packet!r}")
        node, number = end.node, end.number
        if end.state is State.ADMITTED:
            end.state, end.opened = State.OPEN, self.now
            assert end.other is not None, "an admitted end has a dialler"
            dialler = end.other.node
            self.feed(node, fx.Opened(number, dialler.name, dialler.kernel.creation, dialled=False))
        runs = _parsed(packet) if isinstance(packet, bytearray) else packet
        for operations in runs:
            if end.state is not State.OPEN:
                return
            self.received(end, operations)

    def received(self, end: End, operations: Run) -> None:
        """The operations of one frame have come."""
        self.feed(end.node, fx.Received(end.number, operations))

    def _ended(self, end: End) -> None:
        """A connection has ended under this end."""
        if end.state is State.DIALLING:
            self._dial_fails(end, "unreachable", "the connection ended during the handshake")
        elif end.state is not State.CLOSED:
            end.state = State.CLOSED
            del end.node.ends[end.number]
            self.feed(end.node, fx.Closed(end.number, "the connection was closed"))

    # --- effects ---

    def _send(self, node: Node, effect: fx.Send) -> None:
        for number in effect.conns:
            end = node.ends.get(number)
            if end is None or end.state is not State.OPEN:
                raise AssertionError(f"{node} sends on connection {number}, which is not open")
            box = node.outbox.get(number)
            if box is None:
                node.outbox[number] = [effect.operation]
            else:
                box.append(effect.operation)

    def _want_drain(self, node: Node, effect: fx.WantDrain) -> None:
        self.at(self.now + self.rng.random() * self.drain, node, self._drained, node.ends[effect.conn])

    def _want_turn(self, node: Node, effect: fx.WantTurn) -> None:
        self.at(self.now + self.rng.random() * self.turn, node, self._turn, node)

    def _turn(self, node: Node) -> None:
        self.feed(node, fx.Turn())

    def _drained(self, end: End) -> None:
        if end.state is State.OPEN:
            self.feed(end.node, fx.Drained(end.number))

    def _dial(self, node: Node, effect: fx.Dial) -> None:
        end = node.ends[effect.conn] = End(node, effect.conn, State.DIALLING)
        host = self.by_address.get(effect.seed.address)
        self.at(self.now + HANDSHAKE_TIMEOUT, node, self._handshake_over, end)
        if host is node.host:
            self.at(self.now + self.delay / 10, node, self._meets_itself, end)
        elif host is None or host.node is None or not self.can_meet(node.host, host) or self._blocked(node.host, host):
            # Refused at once, or nobody answers until the handshake is over.
            if host is None or host.node is None or self.rng.random() < 0.5:
                self.at(self.now + self.rng.random() * self.delay, node, self._unreachable, end)
        else:
            self.at(self.now + self._latency(node.host, host), None, self._reaches, (end, host, effect.seed.expects))

    def _blocked(self, a: Host, b: Host) -> bool:
        pair = a.address.host, b.address.host
        return pair in self.silent or pair[::-1] in self.silent

    def _meets_itself(self, end: End) -> None:
        self._dial_fails(end, "self", "this address is our own")

    def _unreachable(self, end: End) -> None:
        self._dial_fails(end, "unreachable", "nobody listens there")

    def _handshake_over(self, end: End) -> None:
        """Neither end waits longer than this for the handshake and for the first frame past it."""
        if end.state is State.DIALLING:
            self._post_end(end)
            self._dial_fails(end, "unreachable", "no answer in time")
        elif end.state is State.PROVED or end.state is State.ADMITTED:
            self._post_end(end)
            self._ended(end)

    def _dial_fails(self, end: End, code: str, text: str, number: int = 0) -> None:
        if end.state is not State.DIALLING:
            return
        end.state = State.CLOSED
        del end.node.ends[end.number]
        error: NodeUnreachable | AuthenticationFailed
        if code in ("unreachable", "self", "duplicate", "closed"):
            error = NodeUnreachable(text)
        else:
            error = AuthenticationFailed(text, "name")
        self.feed(end.node, fx.DialFailed(end.number, code, error, number))

    def _reaches(self, subject: tuple[End, Host, str]) -> None:
        """A dialler has proved itself, if there is somebody to prove it to."""
        dialler, host, expects = subject
        node = host.node
        if dialler.state is not State.DIALLING or not dialler.node.alive or self._blocked(dialler.node.host, host):
            return
        if node is None:
            self.at(self.now + self.rng.random() * self.delay, dialler.node, self._unreachable, dialler)
        elif node.wakes > self.now:
            self.at(node.wakes, None, self._reaches, subject)
        elif expects and expects != node.name:
            self.at(
                self.now + self._latency(host, dialler.node.host), dialler.node, self._refused, (dialler, "name", "", 0)
            )
        else:
            end = End(node, node.kernel.new_connection(), State.PROVED)
            node.ends[end.number] = end
            end.other, dialler.other = dialler, end
            self.at(self.now + HANDSHAKE_TIMEOUT, node, self._handshake_over, end)
            self.feed(node, fx.Proved(end.number, dialler.node.name, dialler.node.kernel.creation))

    def _admit(self, node: Node, effect: fx.Admit) -> None:
        end = node.ends[effect.conn]
        assert end.state is State.PROVED and end.other is not None, "only a proved dialler is admitted"
        end.state = State.ADMITTED
        dialler = end.other
        if not self._blocked(node.host, dialler.node.host):
            dialler.last = self.now + self._latency(node.host, dialler.node.host)
            self.at(dialler.last, dialler.node, self._admitted, (dialler, node.kernel.creation))

    def _admitted(self, subject: tuple[End, int]) -> None:
        end, creation = subject
        if end.state is State.DIALLING:
            assert end.other is not None, "somebody has admitted it"
            end.state, end.opened = State.OPEN, self.now
            self.feed(end.node, fx.Opened(end.number, end.other.node.name, creation, dialled=True))

    def _refuse(self, node: Node, effect: fx.Refuse) -> None:
        end = node.ends.pop(effect.conn)
        end.state = State.CLOSED
        assert end.other is not None, "only a proved dialler is refused"
        dialler = end.other
        if not self._blocked(node.host, dialler.node.host):
            answer = (dialler, effect.code, effect.detail, effect.number)
            self.at(self.now + self._latency(node.host, dialler.node.host), dialler.node, self._refused, answer)

    def _refused(self, subject: tuple[End, str, str, int]) -> None:
        end, code, detail, number = subject
        self._dial_fails(end, code, detail, number)

    def _close(self, node: Node, effect: fx.Close) -> None:
        end = node.ends.pop(effect.conn, None)
        if end is None:
            raise AssertionError(f"{node} closes connection {effect.conn}, which is not there")
        waiting = node.outbox.pop(effect.conn, [])
        if end.state is State.OPEN:
            if effect.code:
                waiting.append(frames.Goodbye(effect.code, effect.detail))
            if waiting:
                self._post(end, waiting)
        if end.other is not None:
            if self.rng.random() < 0.2:  # unread bytes at our end turn the close into a reset
                other = end.other
                other.limit = min(other.limit, self.rng.randint(other.received, other.sent))
            self._post_end(end)
        end.state = State.CLOSED

    def _raise_creation(self, node: Node, effect: fx.RaiseCreation) -> None:
        node.host.creation = effect.creation


def _parsed(data: bytearray) -> list[Run]:
    runs: list[Run] = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        operations = frames.decode_payload(data[at + 4], memoryview(data)[at + 5 : at + 4 + length])
        assert operations, "every frame of ours has a tag that we know, and something in it"
        runs.append(operations)
        at += 4 + length
    assert at == len(data), "frames fill a packet to its end"
    return runs


def _text(thing: object, node: Node) -> str:
    """An input or effect for people to read: connections become the peer's name."""
    name = type(thing).__name__
    parts: list[str] = []
    for field in getattr(thing, "__struct_fields__", ()):
        value = getattr(thing, field)
        if field == "conn" or field == "conns":
            numbers = value if isinstance(value, tuple) else (value,)
            ends = [node.ends.get(number) for number in numbers]
            value = " ".join(
                f"{end.other.node if end is not None and end.other is not None else ''}#{number}"
                for number, end in zip(numbers, ends, strict=True)
            )
            parts.append(value)
        elif field == "operation":
            parts.append(repr(value))
        else:
            parts.append(f"{field}={value}")
    return f"{name} {', '.join(parts)}"
