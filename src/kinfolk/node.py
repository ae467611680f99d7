"""`Node`: a Python program's place in the cluster.

A node owns everything it starts: its processes, its port, its sessions, its timers. What happens inside it is decided
by the kernel; messages go through the data plane; this file only puts them together and gives them to users.
"""

import asyncio
import importlib
import itertools
import logging
import os
import random
import signal
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import get_ident
from types import MethodType, TracebackType
from typing import Any, ClassVar, Self, TypeVar, TypeVarTuple, cast, overload
from weakref import WeakKeyDictionary, WeakSet

import kinfolk.settings
from kinfolk import effects as fx
from kinfolk import pictures
from kinfolk.allowed import Allowed, Spawnable
from kinfolk.blocking import Blocking
from kinfolk.cookie import Cookie, Hidden
from kinfolk.core.explain import Explanation
from kinfolk.core.names import Names as NameTable
from kinfolk.core.relations import OUTSIDE, Relations
from kinfolk.core.restarts import Strategy
from kinfolk.counters import Counters
from kinfolk.discovery.finder import Finder, open_sources
from kinfolk.errors import KinfolkError, NameLost, NodeClosed, NodeDraining, NodeUnreachable, NoProcess
from kinfolk.groups import Groups
from kinfolk.ids import MAX_CREATION, Address, Pid, Seed, check_name, node_address
from kinfolk.kernel import Kernel
from kinfolk.leaving import Drain
from kinfolk.logs import fields
from kinfolk.messages import Ref, Replies
from kinfolk.process import Body, Process, Runnable, running_process
from kinfolk.reasons import SHUTDOWN, Crash, Reason
from kinfolk.registries.etcd import Client, Etcd
from kinfolk.registry import Names
from kinfolk.seconds import check_seconds
from kinfolk.server import Started, is_server
from kinfolk.service import SERVICE_NAME, service
from kinfolk.shell import neighbours
from kinfolk.shell.alarms import Alarms
from kinfolk.shell.contacts import Contacts
from kinfolk.shell.dataplane import DataPlane, Target
from kinfolk.shell.driver import Driver
from kinfolk.shell.machine import Machine, RealMachine
from kinfolk.shell.signals import Signals
from kinfolk.shell.spawns import Spawns
from kinfolk.shell.stalls import Stalls
from kinfolk.shell.tasks import Processes
from kinfolk.shell.tls import OwnCertificates, Papers, node_uri
from kinfolk.shell.transport import HANDSHAKE_TIMEOUT, Traffic, Transport
from kinfolk.supervisor import Child, Supervising, Supervision, Supervisor
from kinfolk.tempo import Settings
from kinfolk.tenure import MARGIN, Tenure
from kinfolk.tracing import Tracer
from kinfolk.wire.codec import Codec
from kinfolk.wire.handshake import Identity

_log = logging.getLogger("kinfolk")

Ts = TypeVarTuple("Ts")
R = TypeVar("R")

_LOOK_AGAIN = 0.01
"""Seconds."""
MAX_MESSAGE = 16 * 1024 * 1024 - 1024
"""Bytes of the largest message: with what is around it, it fits into a frame."""
CLOSE_TIMEOUT = 5.0
"""Seconds that a closing node gives its processes, and then its connections, to end. Half of that for its processes if
its time for a drain is up already: whoever has told it to end may not wait much longer."""


class Node:
    """A node of a cluster.

    Use it as ``async with Node(...) as node``, or call `start` and `close`. Nothing runs before it has started, but
    processes can be spawned and named already; they start, and their names travel, with the node.

    Args:
        name: ``name@host:port``, where others dial it; only the word before the ``@`` for a free port on loopback.
            Default: made of the program's name.
        join: nodes or addresses to join, any of the mesh; the rest is found by itself. Default: the nodes of the same
            user on this machine, if this node has no other cookie than that user's. Also where to look for them, again
            and again: ``dns://name:port``, ``dns+srv://_kinfolk._tcp.example.org``, ``etcd://host:2379``, or what
            another package brings. See docs/guides/discovery.md.
        discover_every: seconds between two such looks, about; default 5.
        cookie, cookie_file: the secret that all nodes of the cluster share; of several, the first is used and the
            others are accepted. Default: the user's own, for nodes on loopback alone.
        tls: certificates of your own authority, each naming its node, in place of those derived from the cookie.
        listen: the address to bind, if it is not the one in the name.
        cluster: the name of the cluster; nodes of others are refused.
        registry: who decides about names: "mesh", the default, or etcd, as ``"etcd://host:2379[,host:2379...]"`` or an
            `Etcd`. All nodes of a cluster need the same. See docs/etcd.md.
        heartbeat: seconds between signs of life.
        down_after: seconds of silence after which a peer is lost; default 5 heartbeats.
        stall_after: seconds without a turn of its event loop after which a node is stalled, and tells its peers so;
            default a heartbeat.
        stalled_limit: seconds for which a stalled peer is kept, with its names and links; default 15 heartbeats, or
            3 `down_after`, if that is longer.
        stall_reports: whether this node tells and hears of stalls, by UDP. If not, a stalled node is a silent one.
        drain_timeout: seconds that `drain` may take; default 25.
        idle_after: with etcd, seconds without a word after which a session ends that nothing hangs on; default 60.
        join_timeout: seconds in which a seed must answer; then the node starts alone and keeps dialling. Whoever has
            answered may take longer to tell all its names, as long as some come in each such time.
        min_peers: how many peers the start must reach within `join_timeout`.
        messages: message types that other nodes send here.
        allow_spawn: what other nodes may start here with `spawn_on`: functions, ``"module:function"``, and ``"jobs.*"``
            for what is defined in the package jobs. Modules are imported, and the list is final, when the node starts.
            By default nothing.
        allow_shell: whether `kinfolk shell` may run Python inside this node: everything that the program can do.
        max_message: bytes of the largest message that can be sent. Default: 16 MiB, or what `max_outbox` has room for.
        high_water: bytes that may wait for a peer; beyond, `send` raises LinkCongested. Default: half of `max_outbox`,
            which is the most it can be.
        max_outbox: bytes that may wait for a peer at all, with what must be said to it whatever waits (answers, exits,
            names, signs of life); beyond, its session is closed. Default: 64 MiB.
        strict_messages: encode local messages as well, so that tests find what the wire would not carry.
        allow_weak_cookie: accept a free-text cookie although other machines can reach the node.
        wall_clock: gives nanoseconds since 1970; for tests of what happens when a clock is wrong.
        machine: what the node runs on; `kinfolk.testing` has one that is simulated. Default: this program's.

    Each argument left out is taken from the environment (``KINFOLK_NAME``, ...) or ``kinfolk.toml``: see `settings`.

    Raises:
        ValueError, TypeError: a setting is wrong, or there is no cookie although others could reach the node.
        OSError: a file cannot be read.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        join: Sequence[str] | None = None,
        discover_every: float | None = None,
        cookie: str | Cookie | Sequence[str | Cookie] | None = None,
        cookie_file: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        tls: OwnCertificates | None = None,
        listen: str | None = None,
        cluster: str | None = None,
        registry: str | Etcd | None = None,
        heartbeat: float = 1.0,
        down_after: float | None = None,
        stall_after: float | None = None,
        stalled_limit: float | None = None,
        stall_reports: bool = True,
        drain_timeout: float | None = None,
        idle_after: float | None = None,
        join_timeout: float = 5.0,
        min_peers: int = 0,
        messages: Sequence[type] = (),
        allow_spawn: Sequence[Spawnable | str] = (),
        allow_shell: bool = False,
        max_message: int | None = None,
        high_water: int | None = None,
        max_outbox: int | None = None,
        strict_messages: bool = False,
        allow_weak_cookie: bool = False,
        wall_clock: Callable[[], int] | None = None,
        machine: Machine | None = None,
    ) -> None:
        self.machine = machine or RealMachine()
        """What it runs on."""
        self._keys = Hidden[dict[str, Any]](
            {"cookie": cookie, "cookie_file": cookie_file, "tls": tls, "allow_weak_cookie": allow_weak_cookie}
        )
        del cookie  # tools show the variables of a traceback
        check_seconds(join_timeout, "join_timeout")
        check_seconds(heartbeat, "heartbeat")
        silence = 5 * heartbeat if down_after is None else check_seconds(down_after, "down_after")
        if not 0 < heartbeat < silence:
            raise ValueError("heartbeat must be positive, and down_after longer than a heartbeat")
        self._stall_after = heartbeat if stall_after is None else check_seconds(stall_after, "stall_after")
        if not 0 < self._stall_after < silence:
            raise ValueError("stall_after must be positive, and shorter than down_after: a stall is told before that")
        limit = max(15 * heartbeat, 3 * silence)
        limit = limit if stalled_limit is None else check_seconds(stalled_limit, "stalled_limit")
        if limit < silence:
            raise ValueError("stalled_limit must not be shorter than down_after: a stalled peer is kept for longer")
        self._stall_reports = stall_reports
        self._settings = kinfolk.settings.resolve(
            name=name,
            listen=listen,
            cluster=cluster,
            join=join,
            discover_every=discover_every,
            registry=registry,
            drain_timeout=drain_timeout,
            idle_after=idle_after,
            high_water=high_water,
            max_outbox=max_outbox,
            **self.machine.environment(),
            **self._keys.reveal(),
        )
        self._times = Settings(
            heartbeat=heartbeat, down_after=silence, stalled_limit=limit, idle_after=self._settings.idle_after
        )
        self._join_timeout = join_timeout
        self._min_peers = min_peers
        self._strict = strict_messages
        self.wall_clock = wall_clock or self.machine.wall_clock
        """Gives nanoseconds since 1970."""
        self.counters = Counters()
        """What happened how often: messages dropped and why, sessions lost, conflicts. The table is `counters.DROPPED`
        and `counters.HAPPENED`."""
        self._allowed = Allowed(allow_spawn)
        self.allow_shell = allow_shell
        """Whether `kinfolk shell` may run Python here."""
        self.supervisors: dict[int, Supervising] = {}
        """The supervisors that run, by the local ids of their pids."""
        self._codec = Codec(messages, max_message=_max_message(max_message, self._settings))
        self._references = itertools.count(1)
        self._answers: dict[int, asyncio.Future[object]] = {}
        self._late: dict[int, object] = {}  # answers to those who were cancelled and have not had their turn since
        self._immediate: dict[int, object] = {}
        self._state = "new"
        self._draining: tuple[Drain, asyncio.Task[bool]] | None = None
        self._closing: asyncio.Future[None] | None = None
        self._left_over: list[Process] = []  # by the close: their tasks did not end
        self._has_closed = asyncio.Event()
        self.has_failed = False
        """Whether it has ended because its kernel was in disorder."""
        self.direct: dict[object, Process] = {}
        """By pid, the processes of this node into whose mailboxes a message of this node goes just so. Empty unless the
        node runs, without a tracer, and messages need not be encoded."""
        self.thread: int | None = None
        """The thread of its loop, once it has started."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forget_loop: Callable[[], None] | None = None  # undoes that its close is noticed
        self._os_process = os.getpid()
        self._is_forked = False
        self._announced: Path | None = None
        self._built: _Parts | None = None
        self._tracer: Tracer | None = None
        self._finder: Finder | None = None

    # --- what it is ---

    def __repr__(self) -> str:
        state = "draining" if self.draining and self._state == "running" else self._state
        return f"<node {self._built.name if self._built else self._settings.name} ({state})>"

    def _repr_html_(self) -> str:
        """What a notebook shows; it starts nothing and binds no port."""
        if self._built is None or self._state != "running":
            return pictures.facts(repr(self), {})
        peers = self.peers()
        more = f" and {len(peers) - pictures.ROWS} more" if len(peers) > pictures.ROWS else ""
        return pictures.facts(
            repr(self),
            {
                "cluster": self.cluster,
                "peers": (", ".join(peers[: pictures.ROWS]) or "none") + more,
                "names": f"{len(self.names):,}",
                "groups": f"{len(self._built.kernel.groups):,}",
                "processes here": f"{len(self.processes()):,}",
            },
        )

    @property
    def ready(self) -> bool:
        """Whether it has started, and is neither draining nor closed: whether to send it work."""
        return self._state == "running" and self._draining is None

    @property
    def draining(self) -> Drain | None:
        """How far it has come with leaving; None if nobody has begun to drain it."""
        return None if self._draining is None else self._draining[0]

    @property
    def name(self) -> str:
        """The node's name, ``name@host:port``. Asking for it binds the port, if it was to get a free one."""
        return self._parts.name

    @property
    def creation(self) -> int:
        """The 64-bit number of this start of the node."""
        return self._parts.kernel.creation

    @property
    def cluster(self) -> str:
        """The name of the cluster."""
        return self._settings.cluster

    @property
    def drain_timeout(self) -> float:
        """Seconds that `drain` takes at most, if it is not told otherwise."""
        return self._settings.drain_timeout

    @property
    def names(self) -> Names:
        """The names of the cluster."""
        return self._parts.names

    @property
    def groups(self) -> Groups:
        """The groups of the cluster."""
        return self._parts.groups

    @property
    def kernel(self) -> Kernel:
        """The state machine inside, for looking at."""
        return self._parts.kernel

    @property
    def blocking(self) -> Blocking:
        """Calls, sends and registrations for the other threads of the program."""
        return Blocking(self, lambda: self._loop)

    def peers(self) -> list[str]:
        """The nodes that this one can reach, as far as it knows, sorted.

        On the mesh it has a session with each. With etcd they are those that have a lease, and a session opens when
        there is something to say: see `connected`. A node that could not be reached, or whose session broke, is none
        until it has been reached again.
        """
        return sorted(self._parts.kernel.peers())

    def connected(self) -> list[str]:
        """The peers with which a session is open, sorted; on the mesh, all of them."""
        kernel = self._parts.kernel
        return [peer for peer in self.peers() if kernel.session_of(peer) is not None]

    def traffic(self) -> dict[str, Traffic]:
        """The connected peers, each with what has gone over its session so far, and what waits for it."""
        parts = self._parts
        conns = {peer: parts.kernel.session_of(peer) for peer in self.peers()}
        trips = parts.kernel.round_trips()
        return {peer: parts.transport.traffic(conn, trips[peer]) for peer, conn in conns.items() if conn is not None}

    def congested(self) -> dict[str, int]:
        """The peers for which more waits than `high_water` allows, each with the bytes that wait for it now."""
        return self._parts.dataplane.congested()

    def stalled(self) -> dict[str, float]:
        """Those of the peers whose event loop stands still, each with the seconds since its last turn."""
        now = self._parts.driver.now().mono
        return {peer: now - turned for peer, turned in sorted(self._parts.kernel.stalled().items())}

    def explain(self, name: str) -> Explanation:
        """Why this node sees a name where it sees it: who claims it, who has it by which rule, and what was before.

        It looks at nothing but this node's memory. ``print(node.explain("db"))`` says it in words.

        Raises:
            ValueError, TypeError: the name is not valid.
            NodeClosed: the node is closed.
        """
        self.check_open()
        return self._parts.kernel.explain(check_name(name), self._parts.driver.clock())

    def processes(self) -> list[Process]:
        """The living processes of this node, in the order of their start."""
        return list(self._parts.processes)

    # --- its life ---

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Bind, join, and return when this node is connected to every reachable node and holds all their names.

        Seeds that are down are no error: after `join_timeout` the node starts alone, says so, and keeps dialling.

        Raises:
            AuthenticationFailed: a seed refused the cookie, the version, the cluster or the name.
            NodeUnreachable: fewer than `min_peers` answered in time.
                With etcd as the registry: etcd did not answer within `join_timeout`.
            OSError: the address cannot be bound, or a file of `tls` cannot be read, or others can read the key.
            ValueError: the files of `tls` do not fit, or its certificate does not name this node; or what `allow_spawn`
                names is not there.
            NodeClosed: the node is closed.
            RuntimeError: it has been started already.
        """
        if self._state == "closed":
            raise NodeClosed(f"{self._settings.name} is closed: make a new Node")
        if self._state != "new":
            raise RuntimeError(f"{self!r} has been started already")
        parts = self._parts
        nodes = _nodes_of_run.get(None)
        if nodes is not None:
            nodes.append(self)
        self._state = "starting"
        self.thread = get_ident()
        _started.add(self)
        loop = self._loop = asyncio.get_running_loop()
        try:
            self._allowed.resolve(self.name)
            self._forget_loop = self.machine.at_close(loop, self._loop_closed)
            parts.transport.start(loop)
            parts.stalls.start(loop)
            parts.driver.start(loop)
            parts.processes.start()
            if parts.client is not None:
                await self._enter_registry(parts.client)
            found: tuple[Seed, ...] = ()
            if self._settings.discover:
                finder = self._finder = self._make_finder(parts)
                found = await finder.look(self._join_timeout)
            await self._join(found)
            if self._finder is not None:
                self._finder.start(found)
            self._serve()
        except BaseException:
            await self.close()
            raise
        self._state = "running"
        self._set_direct()
        peers = len(self.peers())
        _log.info("%s is up, with %d peers", self.name, peers, extra=fields(self.name, number=peers))

    def _serve(self) -> None:
        me = self._parts.processes.spawn(service, (), node=self)
        self._parts.names.local.register(SERVICE_NAME, me.pid)

    async def _enter_registry(self, client: Client) -> None:
        try:
            await self.ordered(lambda ref: fx.EnterRegistry(ref, self._join_timeout))
        except NodeUnreachable as error:
            if client.refused is not None:
                raise client.refused from None
            raise NodeUnreachable(f"{error} ({client.trouble or 'no answer'})") from None

    def _make_finder(self, parts: "_Parts") -> Finder:
        settings, machine = self._settings, self.machine
        every = settings.discover_every
        return Finder(
            self.name,
            open_sources(settings.discover, machine.resolve, settings.cluster, self.name, every),
            settings.join,
            parts.kernel.members,
            self.submit,
            machine.resolve,
            every=every,
            rng=machine.random(),
        )

    async def _join(self, found: tuple[Seed, ...]) -> None:
        """Join whom the settings name, and who was found by the sources that they name."""
        seeds = self._settings.join + found
        if not self._settings.neighbours:
            await self.ordered(lambda ref: fx.Join(ref, seeds, self._join_timeout, True, self._min_peers))
            return
        # Announced before looking around: of two that start at once, at least one sees the other.
        home = kinfolk.settings.home()
        try:
            self._announced = neighbours.announce(home, self.cluster, self.name)
        except OSError as error:
            text = "%s cannot be found by others on this machine: %s"
            _log.warning(text, self.name, error, extra=fields(self.name, reason=error))
        seeds = tuple(Seed.parse(name) for name in neighbours.neighbours(home, self.cluster) if name != self.name)
        try:
            await self.ordered(lambda ref: fx.Join(ref, seeds, self._join_timeout, False))
        except KinfolkError as error:
            text = "%s starts without some of its neighbours on this machine: %s"
            _log.info(text, self.name, error, extra=fields(self.name, reason=error))
        # Nobody asked for these neighbours: none may keep the node from starting, or be dialled once it is gone.
        self.submit(fx.Forget(seeds))
        if len(self.peers()) < self._min_peers:
            text = f"{len(self.peers())} of at least {self._min_peers} peers found on this machine"
            raise NodeUnreachable(f"{text}: start them first, give join=[...], or lower min_peers")

    async def connect(self, node: str, *, timeout: float = 10.0) -> None:
        """Connect to a node, and to everybody it knows; return when all their names are here.

        Args:
            node: its name, or only ``host:port``.
            timeout: seconds.

        Raises:
            AuthenticationFailed: it refused, or could not prove that it knows the cookie.
            NodeUnreachable: nobody answered there in time.
            NodeClosed: this node is closed.
            ValueError, TypeError: not a node name or address, or this node's own; or `timeout` is no number of seconds.

        Cancelling it ends the wait; whoever was to be reached is still dialled, as after a failure.
        """
        check_seconds(timeout)
        self.check_open()
        if self._state == "new":
            raise RuntimeError("start the node first, or give it join=[...]")
        seed = Seed.parse(node)
        if seed.expects == self.name:
            raise ValueError(f"{node} is this node itself")
        await self.ordered(lambda ref: fx.Join(ref, (seed,), timeout, False))

    def rekey(
        self,
        *,
        cookie: str | Cookie | Sequence[str | Cookie] | None = None,
        cookie_file: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        tls: OwnCertificates | None = None,
    ) -> None:
        """Take other keys for every connection that begins from now on. Sessions that are open go on.

        A cookie is exchanged in three steps, each on all nodes before the next: [old, new], [new, old], [new]. Nodes
        that have refused this one for its keys are dialled again.

        Args:
            cookie, cookie_file, tls: as for the node. What is left out comes from where it came from before; all files
                are read anew, as are the environment and ``kinfolk.toml`` if keys came from there.

        Raises:
            ValueError, OSError: as for the node; nothing has changed.
            NodeClosed: the node is closed.
        """
        keys = _exchanged(self._keys, Hidden({"cookie": cookie, "cookie_file": cookie_file, "tls": tls}))
        del cookie
        self.check_open()
        settings = kinfolk.settings.resolve(
            name=self.name,
            listen=str(self._settings.listen),
            cluster=self.cluster,
            join=[],
            registry=self._settings.registry or kinfolk.settings.MESH,
            **self.machine.environment(),
            **keys.reveal(),
        )
        self._parts.transport.rekey(_papers(self.machine, settings, self.name))
        self._keys = keys
        first, *others = (cookie.origin for cookie in settings.cookies)
        accepted = f", and accepts as well that from {' and from '.join(others)}" if others else ""
        text = "%s has read its keys again: it uses the cookie from %s%s"
        _log.info(text, self.name, first, accepted, extra=fields(self.name))
        self.submit(fx.KeysChanged())

    async def drain(self, timeout: float | None = None) -> bool:
        """Leave the cluster well: take no new work, finish what there is, tell the peers, and close.

        From now on the node is not `ready`. It starts nothing for other nodes (`NodeDraining`) and no singleton. In
        this order, and all within the time: its singletons go to nodes that stand by for them, those with `hand_over`
        with their state and with no call lost; the others do what they have and end, so that another node starts them;
        the messages and calls that had come are done, while new ones are taken; calls of other nodes are refused
        (`NoProcess`), and what has come meanwhile is done. Its own processes and your program may spawn, send and call
        to the end. Then the node closes as by `close`, and its peers drop it at once.

        Args:
            timeout: seconds; default: the `drain_timeout` of the node. If the node drains already, its time counts.

        Returns:
            Whether all was done. If not, the log says what was left undone, and ``counters["undrained_calls"]`` and
            ``["undrained_messages"]`` how much. False as well if somebody has closed the node meanwhile, or if a
            process has not ended when it was told to.

        Whoever is cancelled no longer waits; the node leaves all the same. Draining again waits for the same end.

        Raises:
            ValueError, TypeError: `timeout` is no number of seconds.
        """
        ending = self.start_draining(timeout)
        drain, process = self.draining, running_process()
        assert drain is not None, "it has begun"
        drain.caller = drain.caller or asyncio.current_task()
        if process is not None:
            drain.spared.add(process)
        return await asyncio.shield(ending)

    def start_draining(self, timeout: float | None = None) -> "asyncio.Task[bool]":
        """Begin to drain; see `drain`. Returns the task that does it."""
        seconds = self._settings.drain_timeout if timeout is None else check_seconds(timeout)
        if self._draining is None:
            if self._state != "closed":
                self.check_open()
            drain = Drain(self, seconds)
            # In a task of its own: whoever waits for it may be cancelled.
            ending = asyncio.create_task(self._drain(drain), name=f"kinfolk: drain {self._settings.name}")
            self._draining = drain, ending
        return self._draining[1]

    async def _drain(self, drain: Drain) -> bool:
        done = self._state != "running"
        try:
            if not done:
                done = await drain.run() and self._closing is None
        finally:
            self._begin_close(drain.caller)
        if self._closing is not None:
            await asyncio.shield(self._closing)
        return done and not self._left_over

    async def close(self) -> None:
        """End every process, tell the peers, free the port. Takes a few seconds at most; closing again does nothing.

        Supervisors stop their children in good order first, and servers terminate, within 5 s; not so if a process of
        this node itself closes it, for it would wait for its own end. What waits to be done is not done: see `drain`.

        Raises:
            RuntimeError: its event loop runs in another thread.
        """
        if self._is_forked:
            self._state = "closed"  # here; it is the other program's
            return
        loop = self._loop
        if loop is not None and loop.is_running() and loop is not asyncio.get_running_loop():
            raise RuntimeError(
                "a node is closed on its own event loop, and that runs in another thread: there use"
                " asyncio.run_coroutine_threadsafe(node.close(), loop)"
            )
        self._begin_close(asyncio.current_task())
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def wait_closed(self) -> None:
        """Wait until the node is closed, whoever closes or drains it: what a program does that only serves."""
        await self._has_closed.wait()

    def _begin_close(self, caller: "asyncio.Task[Any] | None") -> None:
        if self._closing is None:
            started = self._state not in ("new", "closed")
            orderly = self._state == "running" and any(map(_ends_in_order, self.processes()))
            if not orderly or any(process.task is caller for process in self.processes()):
                orderly, self._state = False, "closed"
                self.direct = {}
            if self._built is None:
                self._has_closed.set()
            else:
                # In a task of its own: whoever waits for it may be cancelled. A process that waits goes on after it.
                closing = self._close(self._built, started, orderly, caller)
                self._closing = asyncio.create_task(closing, name=f"kinfolk: close {self._built.name}")

    def abandon(self) -> None:
        """Be gone at once, as if the program had been killed: nobody is told, and nothing ends in good order.

        For tests of what happens then, and for a kernel that has failed. The tasks of its processes are cancelled, so
        their ``finally`` runs, with `NodeClosed` from all that they ask of the node; a simulation runs not even that.
        """
        parts, was = self._built, self._state
        self._state, self.direct = "closed", {}
        if parts is None or was == "closed":
            return
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_future()
            self._closing.set_result(None)
        if self._finder is not None:
            self._finder.abandon()
        parts.driver.stop()
        parts.stalls.close()
        parts.transport.abandon()
        if parts.client is not None:
            parts.client.abandon()
        parts.processes.abandon()
        error = NodeClosed(f"{parts.name} has crashed")
        self._let_go(parts, error)
        parts.names.close(error)
        parts.groups.close(error)
        self._forget_all(parts)
        self._has_closed.set()

    def _kernel_failed(self, error: BaseException) -> None:
        """What this node believes of names is no longer to be trusted: the others learn at once that it is gone."""
        if self.has_failed:
            return
        self.has_failed = True
        try:
            _log.critical(
                "%s ends at once, since a step of its kernel has failed halfway: start it anew. Unless its stack or"
                " memory was at its end, or somebody interrupted it, this is a bug in kinfolk: please report it",
                self.name,
                exc_info=error,
                extra=fields(self.name),
            )
        finally:  # a handler of the program's may raise
            self.abandon()

    def _loop_closed(self) -> None:
        """Before the node: whatever is wanted of it goes through `check_open`, which says so."""
        self.direct = {}

    def _let_go(self, parts: "_Parts", error: NodeClosed) -> None:
        """Nobody waits any longer for what will not come."""
        parts.dataplane.close(error)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(error)
        self._answers.clear()

    def _forget_all(self, parts: "_Parts") -> None:
        """A node that is gone knows of no name and no group, nor minds what becomes of its loop."""
        if self._forget_loop is not None:
            self._forget_loop()
        parts.table.view.clear()
        parts.kernel.groups.clear()

    async def _close(self, parts: "_Parts", started: bool, orderly: bool, caller: "asyncio.Task[Any] | None") -> None:
        late = self.draining is not None and self.draining.late
        patience = CLOSE_TIMEOUT / 2 if late else CLOSE_TIMEOUT
        if orderly:
            await self._stop_services(patience)
        self._state, self.direct = "closed", {}
        error = NodeClosed(f"{parts.name} is closed")
        if self._finder is not None:
            await self._finder.close()
        if self._announced is not None:
            neighbours.withdraw(self._announced)
        # Whoever waits hears of the close, not of what comes with it. Then the processes, so that the names they had
        # are withdrawn in order; then the sessions.
        self._let_go(parts, error)
        self._left_over = await parts.processes.close(patience, caller)
        await _until_said(self.name, parts.contacts, patience)
        self.submit(fx.Shutdown(leaves=self._draining is not None))
        parts.driver.stop()
        parts.names.close(error)
        parts.groups.close(error)
        parts.stalls.close()
        await parts.transport.close(CLOSE_TIMEOUT)
        if parts.client is not None:
            await parts.client.close()
        self._forget_all(parts)
        self._has_closed.set()
        if started:
            _log.info("%s is closed", parts.name, extra=fields(parts.name))

    async def _stop_services(self, patience: float) -> None:
        """Let supervisors stop their children, and then the other servers terminate, while everything still works."""
        try:
            async with asyncio.timeout(patience):
                for first in (_is_root, _ends_in_order):
                    ending = [process for process in self.processes() if first(process)]
                    for process in ending:
                        self._parts.signals.exit(OUTSIDE, process.pid, SHUTDOWN)
                    tasks = [process.task for process in ending if process.task is not None]
                    if tasks:
                        await asyncio.wait(tasks)
        except TimeoutError:
            text = "%s closes although not everybody has ended in good order in time"
            _log.warning(text, self.name, extra=fields(self.name, seconds=patience))

    # --- processes and messages ---

    def spawn(
        self,
        body: Runnable[*Ts],
        /,
        *args: *Ts,
        max_mailbox: int | None = None,
    ) -> Pid:
        """Start a process.

        Args:
            body: a coroutine function; it is called with its `Process` and `args`. Or a `Server` class; its `init` is
                called with `args`.
            max_mailbox: messages that may wait; beyond, a local `send` raises MailboxFull, a remote one is dropped and
                counted. Default: no bound.

        Returns:
            Its pid. Before the node has started, the process begins with the node.

        Raises:
            NodeClosed: the node is closed.
            TypeError: neither a coroutine function nor a Server class, or not for these arguments.
        """
        self.check_open()
        return self.start_process(body, args, max_mailbox).pid

    def _spawn(self, body: Body, args: Sequence[Any], max_mailbox: int | None, parent: Pid | None) -> Pid:
        self.check_open()
        process = self.start_process(body, args, max_mailbox)
        process.parent = parent
        return process.pid

    def _spawn_for_peer(self, body: Body, args: Sequence[Any], max_mailbox: int | None, parent: Pid | None) -> Pid:
        if self._draining is not None:
            raise NodeDraining("it drains, and starts nothing for other nodes any more: start it elsewhere")
        return self._spawn(body, args, max_mailbox, parent)

    async def spawn_on(
        self,
        node: str,
        body: Runnable[*Ts] | str,
        /,
        *args: *Ts,
        max_mailbox: int | None = None,
        timeout: float | None = 5.0,
    ) -> Pid:
        """Start a process on another node, which must allow it.

        Args:
            node: its name. This node's own is as good: a function is then started as by `spawn`.
            body: a function or `Server` that both nodes can import, or its name, as in ``"jobs.images:resize"``. Only
                the name goes over the wire; the node runs what it has under that name, if `allow_spawn` lists it there.
            args: for the function, after its `Process`; anything that can be sent.
            max_mailbox: as for `spawn`.
            timeout: seconds; None waits for ever.

        Returns:
            Its pid. The process may have ended by now, like any other.

        Raises:
            NotAllowed: the node does not allow it, or there is nothing of this name.
            NodeDraining: the node is about to leave.
            SpawnFailed: it could not be started: wrong arguments, or its module cannot be imported. With the text.
            NodeLost: the node is not connected, or was lost before it answered; then the process may live or not.
            CallTimeout: no answer in time.
            NotSerializable: the function has no name that would mean anything there, or an argument cannot be sent.
            MessageTooLarge, NodeClosed, ValueError: as `send` and `spawn`.

        If it is cancelled or times out, the process is killed as soon as the answer comes.
        """
        pid, _ = await self.spawn_for(None, node, body, args, max_mailbox=max_mailbox, timeout=timeout)
        return pid

    async def spawn_for(
        self,
        caller: Process | None,
        node: str,
        body: Spawnable | str,
        args: Sequence[Any],
        *,
        link: bool = False,
        monitor: bool = False,
        max_mailbox: int | None,
        timeout: float | None,
    ) -> tuple[Pid, Ref | None]:
        """Start a process on a node for one of our processes. See `Process.spawn_on`."""
        self.check_open()
        parts = self._parts
        own = OUTSIDE if caller is None else caller.pid.local
        if node != self.name:
            return await parts.spawns.spawn_on(
                node, body, args, own, link=link, monitor=monitor, max_mailbox=max_mailbox, timeout=timeout
            )
        found = parts.spawns.find(body) if isinstance(body, str) else body
        copied: Any = self._codec.copy(list(args)) if self._strict else args
        pid = self._spawn(found, copied, max_mailbox, caller.pid if link and caller is not None else None)
        if link:
            parts.signals.link(own, pid)
        return pid, parts.signals.monitor(own, pid) if monitor else None

    async def supervise(
        self,
        children: Sequence[Child],
        *,
        strategy: Strategy = "one_for_one",
        intensity: int = 3,
        period: float = 5.0,
    ) -> Supervision:
        """Start a supervisor and its children, in their order; return when all have started.

        Args:
            children: what it runs; see `Child`.
            strategy, intensity, period: see `Supervisor`.

        Returns:
            What its children are looked at and managed by. It is stopped by its `stop`, or with the node.

        Raises:
            NameTaken, NotConfirmed: a child did not get its name; those that had started have been stopped.
            ChildFailed: a child ended before it had started; likewise.
            ValueError, TypeError: as `Supervisor`.
            RuntimeError: the node has not started.
            NodeClosed: the node is closed.
        """
        self.check_open()
        if self._state != "running":
            raise RuntimeError("start the node first: supervise() waits until the children have started")
        self._codec.learn(Started)  # with `strict_messages` it is read before the supervisor takes its first step
        process = self.start_process(Supervisor(children, strategy=strategy, intensity=intensity, period=period), ())
        try:
            await self.call(process.pid, Started(), timeout=None)
        except asyncio.CancelledError:
            self._parts.signals.exit(OUTSIDE, process.pid, SHUTDOWN)
            raise
        except NoProcess:
            reason = process.exit_reason
            if isinstance(reason, Crash) and reason.error is not None:
                raise reason.error from reason.error.__cause__
            raise
        return self.supervision(process.pid)

    def supervision(self, pid: Pid) -> Supervision:
        """The children of a supervisor of this node, to be looked at and managed.

        Raises:
            NoProcess: the process is dead, or no supervisor.
        """
        self.check_open()
        supervising = self.supervisors.get(pid.local)
        if supervising is None or supervising.me.pid != pid:
            raise NoProcess(f"{pid} is dead, or no supervisor of this node")
        return Supervision(self, supervising)

    def kill(self, pid: Pid) -> None:
        """End a process at once, wherever it lives. Its names, links and mailbox are gone with it; it cannot refuse.

        Whoever is linked to it or watches it sees the reason "killed".

        Raises:
            NodeClosed: the node is closed.
            TypeError: not a pid.
        """
        self.check_open()
        self._parts.signals.kill(pid)

    async def wait_exit(self, pid: Pid, *, timeout: float | None = None) -> Reason:
        """Wait until a process has ended, wherever it lives: for code that is no process and cannot monitor.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            Why: the reason of its end; "noproc" if it was dead before; "noconnection" if its node is not connected.

        Raises:
            TimeoutError: it was still alive then.
            NodeClosed: this node is closed.
            ValueError, TypeError: `timeout` is no number of seconds.
        """
        self.check_open()
        return await self._parts.signals.wait_exit(pid, timeout)

    def is_alive(self, pid: Pid) -> bool:
        """Whether a process of this node is alive. False for every pid of another node."""
        parts = self._parts
        return (
            pid.node == parts.name
            and pid.creation == parts.kernel.creation
            and parts.processes.get(pid.local) is not None
        )

    def send(self, target: Target, message: object) -> None:
        """Send a message, without waiting.

        A message for a dead process or a lost node is dropped and counted, as it would be if it died just after. To the
        same process messages arrive in the order they were sent; those for others may pass a large one. A local message
        is not copied.

        Args:
            target: a pid, a name of the cluster, or ``(name, node)`` for a name that the node alone knows.
            message: anything that MessagePack carries, pids, and message types; for a local process, any object.

        Raises:
            NameUnknown: nobody has the name.
            NotSerializable: the message cannot go over the wire; says which part of it.
            MessageTooLarge: its encoding is larger than `max_message`.
            MailboxFull: the local process's mailbox is at its bound.
            LinkCongested: more than `high_water` waits for its node, or somebody waits in `send_when_clear`.
            NodeClosed: this node is closed.
        """
        # Most messages are for a process of this node. They need nothing but this: a pid in the table says that the
        # node is open and the process lives. And this thread is its own: to ask which loop runs is a system call until
        # Python 3.12. With the receiving of it, a message within the node went from 1.14 to 0.56 us.
        if get_ident() == self.thread and type(target) is Pid:
            receiver = self.direct.get(target)
            if receiver is not None:
                receiver.mailbox.put(message)
                return
        self.check_open()
        self._parts.dataplane.send(target, message)

    async def send_when_clear(self, target: Target, message: object, *, timeout: float | None = None) -> None:
        """Send a message; if the link to its node is congested, wait until it is not.

        Those who wait are served in their order, and before any `send`. The name is looked up and the message encoded
        at once; if the link is lost meanwhile, the message is dropped and counted, as one that was sent.

        Args:
            target, message: as for `send`.
            timeout: seconds; None waits as long as the link lasts.

        Raises:
            SendTimeout: there was no room in time; nothing was sent.
            NodeClosed: this node is closed, or was while this waited.
            Exception: whatever `send` raises, but for LinkCongested.

        Cancelled, it has sent nothing, unless it was about to return.
        """
        self.check_open()
        await self._parts.dataplane.send_when_clear(target, message, timeout)

    @overload
    async def call(self, target: Target, request: Replies[R], *, timeout: float | None = 5.0) -> R: ...
    # Only mypy comes here, when a reply is not of the type that it is used as: else it would take the next, an Any.
    @overload
    async def call(  # type: ignore[overload-cannot-match]
        self, target: Target, request: Replies[object], *, timeout: float | None = 5.0
    ) -> object: ...
    @overload
    async def call(self, target: Target, request: object, *, timeout: float | None = 5.0) -> Any: ...
    async def call(self, target: Target, request: object, *, timeout: float | None = 5.0) -> Any:
        """Send a request to a process and wait for its answer.

        If the link to its node is congested, it waits for room as `send_when_clear` does, within its `timeout`.

        Args:
            target: as for `send`.
            request: as a message of `send`. A `Request[R]` says the type of its answer.
            timeout: seconds; None waits for ever.

        Returns:
            What the process gave to `call.reply`.

        Raises:
            NoProcess: the process is dead, or ended without an answer; `Moved`, if it was called by its pid, has handed
                over to another, and has not begun with the call. (A call by name goes to whoever has taken over.)
            NodeLost: its node is not connected, or was lost before the answer came.
            Refused: it answered with `call.fail`.
            CallFailed: it crashed, or its answer cannot be read; or the process calls itself.
            CallTimeout: no answer in time, or no room for the request; a late answer is dropped.
            NameUnknown, NotSerializable, MessageTooLarge, MailboxFull, NodeClosed: as `send`.
            ValueError, TypeError: `timeout` is no number of seconds.
        """
        if get_ident() == self.thread and type(target) is Pid:  # as in send
            receiver = self.direct.get(target)
            if receiver is not None:
                return await self._parts.dataplane.call_directly(receiver, request, timeout, None, target)
        self.check_open()
        return await self._parts.dataplane.call(target, request, timeout)

    # --- for the registry and the processes ---

    def check_open(self) -> None:
        """Raise NodeClosed if the node is closed, RuntimeError off its loop's thread."""
        loop = self._loop
        # Forks have told that they are one, so that the system need not be asked who we are.
        if (
            get_ident() == self.thread
            and self._state == "running"
            and loop is not None
            and not loop.is_closed()
            and not self._is_forked
        ):
            return
        if self._state == "closed":
            raise NodeClosed(f"{self._built.name if self._built else self._settings.name} is closed")
        if loop is not None and loop.is_closed():
            raise NodeClosed(
                f"the event loop of {self.name} was closed before it: await node.close() while its loop runs, and make"
                " a new Node to go on"
            )
        if self._os_process != os.getpid():
            raise NodeClosed(f"{self._settings.name} is a node of the program that this one was forked from")
        if self.thread is not None and self.thread != get_ident():
            raise RuntimeError(
                "a node belongs to the thread of its event loop: other threads use node.blocking"
                " (only node.names.whereis and node.groups.members work everywhere)"
            )

    def forget_process(self) -> None:
        """This is a node of the program that this one was forked from: when that ends, its sockets are to close."""
        self._is_forked, self.direct = True, {}
        if self._built is not None:
            self._built.transport.let_go()
            self._built.stalls.let_go()

    def is_service(self, process: Process) -> bool:
        """Whether this is the process that answers questions about the node."""
        return self._parts.names.local.whereis(SERVICE_NAME) == process.pid

    def is_own_thread(self, thread: int) -> bool:
        """Whether the node's loop runs on the thread with this identifier."""
        return thread == self.thread

    @property
    def dataplane(self) -> DataPlane:
        """Messages and calls, for the processes of this node."""
        return self._parts.dataplane

    @property
    def signals(self) -> Signals:
        """Links, monitors and exit signals, for the processes of this node."""
        return self._parts.signals

    @property
    def alarms(self) -> Alarms:
        """What the processes of this node send themselves later."""
        return self._parts.alarms

    def start_process(
        self,
        body: Body,
        args: Sequence[object],
        max_mailbox: int | None = None,
        gate: "asyncio.Future[None] | None" = None,
    ) -> Process:
        """Start a process; see `spawn`. With a gate, its code begins when that has a result."""
        parts = self._parts
        parts.kernel.creation_is_final = True
        return parts.processes.spawn(body, args, node=self, max_mailbox=max_mailbox, gate=gate)

    @property
    def tracer(self) -> Tracer | None:
        """What follows traces through this node; see `kinfolk.otel`. None for most."""
        return self._tracer

    @tracer.setter
    def tracer(self, tracer: Tracer | None) -> None:
        self._tracer = tracer
        if self._built is not None:
            self._built.processes.tracer = self._built.dataplane.tracer = tracer
            self._set_direct()

    def _set_direct(self) -> None:
        closed = self._loop is None or self._loop.is_closed()
        direct = self._state == "running" and not (closed or self._strict or self._tracer is not None)
        self.direct = self._parts.processes.direct if direct else {}

    @property
    def codec(self) -> Codec:
        """The encoding of messages, for the processes of this node."""
        return self._codec

    def clock(self) -> float:
        """The time in seconds that the node counts in, from any thread."""
        return self._parts.driver.clock()

    def submit(self, happened: fx.Input) -> None:
        """Give the kernel an input."""
        self._parts.driver.submit(happened)

    def order(self, make: Callable[[int], fx.Input]) -> tuple[int, "asyncio.Future[object]"]:
        """Give the kernel an order. Returns its reference and the future of its answer: cancelled, `give_up`."""
        ref = next(self._references)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        self._answers[ref] = future
        if self._loop is None:
            self._parts.driver.start(loop)  # the node may never start, and who waits has its time
        self.submit(make(ref))
        return ref, future

    async def ordered(self, make: Callable[[int], fx.Input]) -> object:
        """Give the kernel an order and wait for its answer; cancelled, it is abandoned."""
        ref, answer = self.order(make)
        try:
            return await answer
        except asyncio.CancelledError:
            self.give_up(ref, answer)
            raise

    def give_up(self, ref: int, answer: "asyncio.Future[object]") -> object | None:
        """Whoever waited for an answer was cancelled. Returns what it was, if it was there before our turn came."""
        self.submit(fx.Abandon(ref))
        self._answers.pop(ref, None)
        late = self._late.pop(ref, None)
        told = answer.done() and not answer.cancelled() and answer.exception() is None
        return answer.result() if told else late

    def order_now(self, make: Callable[[int], fx.Input]) -> object:
        """Give the kernel an order that it answers at once: return the value or raise the error."""
        ref = next(self._references)
        self._immediate[ref] = None
        self.submit(make(ref))
        answer = self._immediate.pop(ref)
        if isinstance(answer, KinfolkError):
            raise answer
        return answer

    def order_unheard(self, make: Callable[[int], fx.Input]) -> None:
        """Give the kernel an order whose answer nobody waits for."""
        self.submit(make(next(self._references)))

    # --- effects of the kernel ---

    def _succeed(self, effect: fx.Succeed) -> None:
        if effect.ref in self._immediate:
            self._immediate[effect.ref] = effect.value
            return
        future = self._answers.pop(effect.ref, None)
        if future is not None and not future.done():
            future.set_result(effect.value)
        elif future is not None:
            self._late[effect.ref] = effect.value

    def _fail(self, effect: fx.Fail) -> None:
        if effect.ref in self._immediate:
            self._immediate[effect.ref] = effect.error
            return
        future = self._answers.pop(effect.ref, None)
        if future is not None and not future.done():
            future.set_exception(effect.error)

    def _tell_loss(self, effect: fx.TellLoss) -> None:
        processes = self._parts.processes
        process = processes.get(effect.local)
        if process is None:
            return
        if effect.on_lost == "exit" and isinstance(effect.loss, NameLost):
            self._parts.signals.exit(OUTSIDE, process.pid, effect.loss)
        else:
            process.mailbox.put_always(effect.loss)

    def _peer_up(self, effect: fx.PeerUp) -> None:
        parts = self._parts
        if not effect.conn:
            parts.dataplane.link_up(parts.contacts.up(effect.peer, effect.creation))
            parts.names.node_changed(effect)
            return
        link = parts.transport.link(effect.conn)
        parts.dataplane.link_up(link)
        parts.names.node_changed(effect)
        # It has something to say to the peer, which must not come before our list of peers.
        parts.driver.afterwards(lambda: parts.stalls.peer_up(link))

    def _connected(self, effect: fx.Connected) -> None:
        parts = self._parts
        link = parts.transport.link(effect.conn)
        parts.contacts.connected(effect.peer, link)
        parts.driver.afterwards(lambda: parts.stalls.peer_up(link))

    def _disconnected(self, effect: fx.Disconnected) -> None:
        self._parts.stalls.peer_down(effect.conn)
        self._parts.contacts.disconnected(effect)

    def _hold(self, effect: fx.Hold) -> None:
        self._parts.contacts.hold(effect)

    def _go_on(self, effect: fx.GoOn) -> None:
        self._parts.contacts.go_on(effect)

    def _say(self, effect: fx.Say) -> None:
        self._parts.contacts.say(effect)

    def _peer_down(self, effect: fx.PeerDown) -> None:
        self.counters["peers_lost"] += 1
        self._parts.stalls.peer_down(effect.conn)
        self._parts.contacts.down(effect.peer)
        self._parts.dataplane.link_down(effect.peer, effect.conn, effect.reason)
        self._parts.names.node_changed(effect)

    def _peer_stalled(self, effect: fx.PeerStalled) -> None:
        self._parts.signals.peer_stalled(effect.peer, effect.seconds)
        self._parts.names.node_changed(effect)

    def _peer_resumed(self, effect: fx.PeerResumed) -> None:
        self._parts.signals.peer_resumed(effect.peer, effect.seconds)
        self._parts.names.node_changed(effect)

    def _report_stalls(self, effect: fx.ReportStalls) -> None:
        self._parts.stalls.report_to(effect, self._parts.transport.peername(effect.conn))

    def _raise_creation(self, effect: fx.RaiseCreation) -> None:
        text = "%s starts with a creation past its last one: was the clock set back?"
        _log.warning(text, self.name, extra=fields(self.name))
        self._parts.raise_creation(effect.creation)

    def _write_log(self, effect: fx.Log) -> None:
        if _log.isEnabledFor(effect.level):
            name = self._parts.name
            _log.log(effect.level, "%s: %s", name, effect.text, extra=fields(name, **effect.about))

    def _count(self, effect: fx.Count) -> None:
        self.counters[effect.counter] += effect.by

    def _want_drain(self, effect: fx.WantDrain) -> None:
        self._parts.transport.want_drain(effect)

    def _want_turn(self, effect: fx.WantTurn) -> None:
        assert self._loop is not None, "nothing comes or goes before the node runs"
        self._loop.call_soon(self.submit, fx.Turn())

    def _consult(self, effect: fx.Consult) -> None:
        assert self._parts.client is not None, "the node has an authority to consult"
        self._parts.client.consult(effect.request)

    def _dial(self, effect: fx.Dial) -> None:
        self._parts.transport.dial(effect)

    def _admit(self, effect: fx.Admit) -> None:
        self._parts.transport.admit(effect)

    def _refuse(self, effect: fx.Refuse) -> None:
        self._parts.transport.refuse(effect)

    def _close_link(self, effect: fx.Close) -> None:
        self._parts.transport.close_link(effect)

    _EFFECTS: ClassVar[dict[type, Callable[..., None]]] = {  # but for the most frequent ones, see `_build`
        fx.WantDrain: _want_drain,
        fx.WantTurn: _want_turn,
        fx.Dial: _dial,
        fx.Admit: _admit,
        fx.Refuse: _refuse,
        fx.Close: _close_link,
        fx.Succeed: _succeed,
        fx.Fail: _fail,
        fx.TellLoss: _tell_loss,
        fx.PeerUp: _peer_up,
        fx.PeerDown: _peer_down,
        fx.Connected: _connected,
        fx.Disconnected: _disconnected,
        fx.Hold: _hold,
        fx.GoOn: _go_on,
        fx.Say: _say,
        fx.PeerStalled: _peer_stalled,
        fx.PeerResumed: _peer_resumed,
        fx.ReportStalls: _report_stalls,
        fx.RaiseCreation: _raise_creation,
        fx.Log: _write_log,
        fx.Count: _count,
        fx.Consult: _consult,
    }

    # --- putting it together ---

    @cached_property
    def _parts(self) -> "_Parts":
        """What a node is made of, once its name is final. A port left open is bound here, before anything runs."""
        if self._built is None:
            if self._state == "closed":
                raise NodeClosed(f"{self._settings.name} is closed")
            self._built = self._build()
        return self._built

    def _build(self) -> "_Parts":
        settings = self._settings
        machine = self.machine
        port = machine.bind(settings.listen)
        try:
            name = _final_name(settings.name, port.number)
            papers = _papers(machine, settings, name)
            jitter = machine.random()
            creation = _creation(self.wall_clock(), jitter)
            processes = Processes(name, creation, self._process_exited, machine.context)
            kernel = Kernel(
                name,
                creation,
                self._times,
                jitter,
                is_alive=lambda local: processes.get(local) is not None,
                authority=None if settings.registry is None else str(settings.registry),
                quiet=lambda peer: contacts.quiet(peer),
            )
            table = kernel.tenure or kernel.names
            # Released by the first join: names taken before it are ours only if nobody in the cluster has them.
            kernel.names.hold()
            performers: dict[type, Callable[[Any], None]] = {}  # filled below, before the first step
            driver = Driver(kernel, performers, self.wall_clock, machine.monotonic, self._kernel_failed)
            client = None
            if settings.registry is not None and kernel.tenure is not None:
                pulse = self._times.heartbeat
                ttl = kernel.tenure.ttl - MARGIN
                client = Client(settings.registry, settings.cluster, ttl, pulse, driver.submit, driver.clock, name)
            names = Names(self, table, self._times.down_after + 2 * self._times.heartbeat)
            groups = Groups(self, kernel.groups, WeakKeyDictionary())
            signals = Signals(
                Relations(name, creation, lambda local: processes.get(local) is not None),
                processes,
                table.whereis,
                names.local.whereis,
                driver.afterwards,
            )
            spawns = Spawns(name, self._allowed, self._spawn_for_peer, signals, self._codec, self.counters)
            alarms = Alarms(processes, self.counters)
            contacts = Contacts(
                driver.clock,
                driver.submit,
                self.counters,
                lambda peer: signals.relations.between(peer) > 0 or spawns.waits_for(peer),
                settings.high_water,
                settings.max_outbox,
            )
            dataplane = DataPlane(
                name,
                creation,
                processes,
                signals,
                spawns,
                table.whereis,
                names.local.whereis,
                kernel.groups,
                self._codec,
                self.counters,
                self._strict,
            )
            processes.tracer = dataplane.tracer = self._tracer
            transport = Transport(
                machine,
                port,
                papers,
                lambda: Identity(name, kernel.creation, settings.cluster, papers.keys),
                driver,
                dataplane,
                kernel.new_connection,
                self.counters,
                heartbeat=self._times.heartbeat,
                dial_timeout=min(HANDSHAKE_TIMEOUT, max(1.0, self._times.down_after)),
                high_water=settings.high_water,
                max_outbox=settings.max_outbox,
            )
            stalls = Stalls(
                name,
                port.datagrams,
                machine.nonce,
                driver.submit,
                self.counters,
                stall_after=self._stall_after,
                enabled=self._stall_reports and machine.has_threads,
            )
        except BaseException:
            port.close()
            raise
        performers.update((kind, MethodType(perform, self)) for kind, perform in self._EFFECTS.items())
        # Straight to where they go: there are several for each name.
        performers[fx.Send] = transport.send
        performers[fx.NameAdded] = performers[fx.NameRemoved] = names.changed
        performers[fx.MemberAdded] = performers[fx.MemberRemoved] = groups.changed
        return _Parts(
            name,
            kernel,
            table,
            client,
            driver,
            processes,
            signals,
            spawns,
            alarms,
            contacts,
            dataplane,
            transport,
            stalls,
            names,
            groups,
        )

    def _process_exited(self, process: Process, reason: Reason) -> None:
        parts, pid = self._parts, process.pid
        local = pid.local
        parts.alarms.exited(local)
        served = process.body is service and self.is_service(process)
        parts.names.local.process_exited(pid)
        if parts.kernel.minds_exit(local) or not parts.driver.idle:
            # Not for each: most processes have no name, and a step is a tenth of a short life (21 -> 19 us).
            parts.driver.submit(fx.ProcessExited(local, str(reason)))
        parts.signals.exited(local, reason)
        if not served:
            return
        cancelled = process.task is not None and process.task.cancelling() > 0
        if self._state == "running" and not cancelled:
            # It was killed, or has crashed: the node is to be asked all the same. Where its very task was cancelled,
            # the loop ends, most likely, and nothing new may begin there.
            self._serve()


@dataclass(frozen=True, slots=True)
class _Parts:
    """A node with its name final."""

    name: str
    kernel: Kernel
    table: NameTable | Tenure
    """Who has which name: the mesh's, or an authority's."""
    client: Client | None
    """What talks to that authority."""
    driver: Driver
    processes: Processes
    signals: Signals
    spawns: Spawns
    alarms: Alarms
    contacts: Contacts
    dataplane: DataPlane
    transport: Transport
    stalls: Stalls
    names: Names
    groups: Groups

    def raise_creation(self, creation: int) -> None:
        """Start anew under a higher creation. No pid has been given out yet; the service, if it runs, starts again."""
        self.processes.renumber(creation)
        self.dataplane.creation = self.signals.relations.creation = creation
        for process in self.processes:
            self.processes.kill(process.pid.local, SHUTDOWN)


async def start(name: str | None = None, **settings: Any) -> Node:
    """Make a node and start it, for notebooks and frameworks: ``node = await kinfolk.start(...)``, then `node.close()`.

    Takes what `Node` takes, raises what `Node` and `Node.start` raise.
    """
    given = Hidden(settings)
    del settings
    node = Node(name, **given.reveal())
    await node.start()
    return node


_nodes_of_run: ContextVar[list[Node]] = ContextVar("kinfolk.nodes_of_run")
"""The nodes that have been started inside of `run`."""


_started: WeakSet[Node] = WeakSet()
"""The nodes that this program has started: its forks tell them that they are none of theirs."""


def _tell_nodes_of_fork() -> None:
    """In a program that was just forked."""
    for node in list(_started):
        node.forget_process()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_tell_nodes_of_fork)


class _Interrupted(KeyboardInterrupt, SystemExit):
    """Ctrl-C: to whoever catches it a KeyboardInterrupt, else the end of the program, without a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.code = 128 + signal.SIGINT


def run(main: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """Run an async function to its end on a new event loop (uvloop's, when that is installed); return its result.

    On SIGTERM all nodes that it has started `drain`; then the function is cancelled, and the program ends with 0, or
    with 143 if they were not done in time. A second SIGTERM ends it at once. (Not so if something else handles SIGTERM
    already, or outside the main thread.) Ctrl-C cancels the function, so that ``async with`` closes its nodes, and ends
    the program with 130.

    Raises:
        KeyboardInterrupt: Ctrl-C; shows no traceback if nobody catches it.
        SystemExit: SIGTERM.
    """
    try:
        factory = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        factory = None
    told = _Told()
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            value = runner.run(told.run(main()))
    except KeyboardInterrupt:
        raise _Interrupted from None
    except asyncio.CancelledError:
        if told.code is None:
            raise
        raise SystemExit(told.code) from None
    if told.code:
        raise SystemExit(told.code)
    return value


class _Told:
    """What `run` does on SIGTERM."""

    def __init__(self) -> None:
        self.code: int | None = None
        """The exit code, once it has been told to end and the nodes have left."""
        self._leaving: asyncio.Task[None] | None = None

    async def run(self, main: Coroutine[Any, Any, R]) -> R:
        nodes: list[Node] = []
        _nodes_of_run.set(nodes)
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None, "the runner makes one"

        def stop() -> None:
            loop.remove_signal_handler(signal.SIGTERM)  # from now on it ends the program
            self._leaving = loop.create_task(self._leave(nodes, task))

        if not _handles_sigterm():
            return await main
        loop.add_signal_handler(signal.SIGTERM, stop)
        try:
            try:
                value = await main
            except Exception as error:
                if self._leaving is None or not _is_of_a_node(error):
                    raise
                await self._leaving
                raise asyncio.CancelledError from None  # the end of its nodes was that of what it asked of them
            if self._leaving is not None:
                await self._leaving  # it may have returned because its node had closed
            return value
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    async def _leave(self, nodes: list[Node], task: "asyncio.Task[Any]") -> None:
        left = await asyncio.gather(*(node.drain() for node in nodes))
        self.code = 0 if all(left) else 128 + signal.SIGTERM
        task.cancel()


def _is_of_a_node(error: BaseException) -> bool:
    """Whether it says nothing but what nodes raise, as when they close."""
    if not isinstance(error, BaseExceptionGroup):
        return isinstance(error, KinfolkError)
    return cast("BaseExceptionGroup[BaseException]", error).split(KinfolkError)[1] is None


def _handles_sigterm() -> bool:
    """Whether SIGTERM is ours to handle: it has no other meaning yet, and this is the thread that can."""
    here = threading.current_thread() is threading.main_thread()
    return here and os.name == "posix" and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def _until_said(node: str, contacts: Contacts, patience: float) -> None:
    """Wait until all that waits for a session is on its way, as what waits for a link is written before it closes."""
    try:
        async with asyncio.timeout(patience):
            while contacts.waits:  # noqa: ASYNC110 - mostly nothing does
                await asyncio.sleep(_LOOK_AGAIN)
    except TimeoutError:
        text = "some messages were not sent: the nodes that they are for could not be reached in time"
        _log.warning("%s: %s", node, text, extra=fields(node, seconds=patience))


def _is_root(process: Process) -> bool:
    return isinstance(process.body, Supervisor) and process.parent is None


def _ends_in_order(process: Process) -> bool:
    return is_server(process.body) or isinstance(process.body, Supervisor)


def _papers(machine: Machine, settings: kinfolk.settings.Settings, name: str) -> Papers:
    """For a node whose name is final, so that a certificate of its own can be checked for it."""
    papers = machine.papers(settings.cookies, settings.tls)
    papers.check_name(node_uri(settings.cluster, name))
    return papers


def _max_message(given: int | None, settings: kinfolk.settings.Settings) -> int:
    """A message that may be sent fits into what may wait: it never closes a session."""
    room = settings.max_outbox - settings.high_water
    if given is not None and given > room:
        raise ValueError(
            f"max_message={given} is too much for max_outbox={settings.max_outbox}, of which high_water takes"
            f" {settings.high_water}: give at most {room}, or raise max_outbox"
        )
    return min(MAX_MESSAGE, room) if given is None else given


def _exchanged(old: Hidden[dict[str, Any]], new: Hidden[dict[str, Any]]) -> Hidden[dict[str, Any]]:
    """The arguments that name the keys, with new ones in the place of old ones; a cookie and a file are of one kind."""
    given = {key for key in new.reveal() if new.reveal()[key] is not None}
    if given & {"cookie", "cookie_file"}:
        given |= {"cookie", "cookie_file"}
    return Hidden({**old.reveal(), **{key: new.reveal()[key] for key in given}})


def _creation(wall_ns: int, rng: random.Random) -> int:
    """The number of a start: the time, so that a later one has a higher one.

    A clock that is out of all bounds gives a low one of no order. Whoever has met a start of this node before refuses
    one that is not higher, and tells the number to go on from.
    """
    return wall_ns if 0 < wall_ns < MAX_CREATION else rng.randrange(1, 2**32)


def _final_name(name: str, bound_port: int) -> str:
    """A name with port 0 gets the port that was bound."""
    word, _, _ = name.partition("@")
    address = node_address(name)
    return name if address.port else f"{word}@{Address(address.host, bound_port)}"
