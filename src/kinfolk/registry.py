"""`node.names`: the cluster-wide registry as users see it.

`whereis` is one lookup in a local dictionary, for every name of every node. Registering and unregistering go through
the kernel, which tells all peers and waits for them.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from msgspec import Struct

from kinfolk import effects as fx
from kinfolk import pictures
from kinfolk.core.ledger import Claim
from kinfolk.core.names import Names as NameTable
from kinfolk.effects import NameAdded, NameRemoved
from kinfolk.errors import NameTaken, NameUnknown, NameWaitTimeout, NodeClosed, NoProcess
from kinfolk.events import Row, Watch
from kinfolk.ids import Pid, check_name, check_pid
from kinfolk.seconds import check_seconds
from kinfolk.tenure import Tenure

if TYPE_CHECKING:
    from kinfolk.node import Node


class Resync(Struct, frozen=True):
    """A watcher lagged too far behind: events were left out. `names` is the table as it is now; changes follow."""

    names: dict[str, Pid]


NameEvent = NameAdded | NameRemoved | Resync
NodeEvent = fx.PeerUp | fx.PeerDown | fx.PeerStalled | fx.PeerResumed


class Registration:
    """What `register` returns: a handle of exactly this claim of the name."""

    def __init__(self, names: "Names", claim: Claim) -> None:
        self._names = names
        self._claim = claim
        self.name = claim.name
        self.pid = claim.pid

    def __repr__(self) -> str:
        return f"<registration of {self.name!r} for {self.pid}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registration) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[str, Pid, int]:
        return self.name, self.pid, self._claim.position

    @property
    def epoch(self) -> int | None:
        """A fencing token: of two holders of a name one after the other, the later one's is higher.

        None on the mesh, which has none to give; and after `register_nowait` until the name is confirmed.
        """
        return self._names.epoch(self._claim)

    async def release(self, *, timeout: float | None = None) -> None:
        """Give up the name, if it is still held by this very claim.

        Returns when every peer knows, or after `timeout` seconds (default: as for `register`).

        Raises:
            NameUnknown: this registration has ended, and nothing was changed.
            NodeClosed: the node is closed.
        """
        await self._names.withdraw(self.name, timeout, self._claim)


class Names:
    """The names of the cluster, from one node.

    Attributes:
        whereis: ``whereis(name) -> Pid | None``, the holder of a name. One dictionary lookup: it waits for nothing, and
            works from any thread. The answer may differ between nodes while a change is under way.
        local: names that only this node knows.
    """

    whereis: Callable[[str], Pid | None]

    def __init__(self, node: "Node", table: NameTable | Tenure, patience: float) -> None:
        self._node = node
        self._table = table
        self._view = table.view
        self._patience = patience
        self._waiters: dict[str, dict[asyncio.Future[Pid], None]] = {}
        self._registering: Counter[str] = Counter()  # calls of `register` under way
        self._given: dict[str, int] = {}  # position of the claim that somebody has a Registration of
        self._watches: WeakKeyDictionary[NameWatch | ClusterWatch, None] = WeakKeyDictionary()
        self._watched = False  # whether there may be some: even to ask that dictionary for its length takes long
        self.whereis = table.whereis
        self.leased = isinstance(table, Tenure)
        """Whether names are held by a lease from an authority, which can end unseen."""
        self.local = LocalNames(node)

    def snapshot(self) -> dict[str, Pid]:
        """All names with their holders, as this node knows them at this moment."""
        names = dict(self._view)
        if not self._table.refused:
            return names
        return {name: pid for name, pid in names.items() if not self._table.is_refused(pid)}

    def of(self, pid: Pid, limit: int | None = None) -> list[str]:
        """The names of a process of this node, the oldest first; of any other process, none.

        Args:
            limit: how many at most, if not all.
        """
        if (pid.node, pid.creation) != (self._node.name, self._node.creation):
            return []
        held = (name for name in self._table.names_of(pid.local) if self.whereis(name) == pid)
        return list(itertools.islice(held, limit))

    def __len__(self) -> int:
        return len(self._view)

    def _repr_html_(self) -> str:
        """What a notebook shows: the first of the names, with their holders."""
        names = self.snapshot()
        return pictures.listing(f"{len(names):,} names, as {self._node.name} knows them", ("name", "held by"), names)

    @property
    def held(self) -> int:
        """How many names this node has claimed for its processes."""
        return len(self._table.own)

    def staleness(self) -> float:
        """How old the answers of `whereis` may be, in seconds: when they were last known to be those of the authority.

        0.0 on the mesh, where every node is its own authority. With etcd it grows while etcd cannot be reached, and is
        at most about a heartbeat otherwise. Works from any thread.
        """
        return self._table.staleness(self._node.clock()) if isinstance(self._table, Tenure) else 0.0

    def lease(self) -> float | None:
        """For how many seconds names of this node are its own from now on, unless its lease is renewed before that.

        0.0 while it has no lease from etcd: then it has no names. None on the mesh. Works from any thread.
        """
        return self._table.lease_left(self._node.clock()) if isinstance(self._table, Tenure) else None

    async def register(
        self, name: str, pid: Pid, *, timeout: float | None = None, on_lost: fx.OnLost = "exit"
    ) -> Registration:
        """Claim a name for a process, cluster-wide. For a process of another node, that node is asked to.

        When it returns, every connected node resolves the name to `pid`. The same pid under the same name again gives
        the same registration. Before the node has started and joined, it waits for that.

        Args:
            name: 1 to 255 bytes of UTF-8.
            pid: a living process.
            timeout: seconds; the default is long enough to count a dying peer out.
            on_lost: what happens to the process if a healed partition finds an older claim: it ends with reason
                `NameLost`, or gets `NameLost` as a message.

        Raises:
            NameTaken: another process holds the name.
            NotConfirmed: some peers, or etcd, did not acknowledge in time; the claim is withdrawn.
            NoProcess: the process is dead.
            NameUnknown: the name was unregistered meanwhile.
            NodeLost: the process's node is not connected, or was lost before it answered. It may have registered the
                name all the same: asking again gives the same registration.
            NodeClosed: the node is closed.
            ValueError, TypeError: the name or pid is not valid, or `timeout` is no number of seconds.

        Cancelling it withdraws the claim.
        """
        name = self._check(name, pid)
        patience = self._patience if timeout is None else check_seconds(timeout)
        ref, answer = self._node.order(lambda ref: fx.Register(ref, name, pid, True, patience, on_lost))
        self._registering[name] += 1
        try:
            claim = await answer  # not shielded, which takes a tenth of a register by 16 callers (54.3 -> 48.8 us)
        except asyncio.CancelledError:
            # Between the cancellation and our turn it may have been confirmed all the same.
            late = self._node.give_up(ref, answer)
            if late is not None:
                self._unwanted(late)
            raise
        finally:
            self._registering[name] -= 1
            if not self._registering[name]:
                del self._registering[name]
        return self._registration(claim)

    def register_nowait(self, name: str, pid: Pid, *, on_lost: fx.OnLost = "exit") -> Registration:
        """Claim a name for a process of this node and return at once, also before the node has started.

        The claim holds here from now on and travels to the peers. If it loses to another before every peer has
        acknowledged it, the process gets `NameTaken` as a message.

        Raises:
            NameTaken: another process holds the name, as far as this node knows.
            NoProcess: the process is dead.
            NodeClosed: the node is closed.
            ValueError, TypeError: the name or pid is not valid.
        """
        name = self._check(name, pid)
        if pid.node != self._node.name:
            raise ValueError(f"{pid} is a process of another node: only `await names.register(...)` can ask that node")
        return self._registration(self._node.order_now(lambda ref: fx.Register(ref, name, pid, False, 0.0, on_lost)))

    async def unregister(self, name: str, *, timeout: float | None = None) -> None:
        """Give up a name, whoever holds it. Returns when every peer knows, or after `timeout` seconds.

        If a process of another node holds it, that node is asked to withdraw exactly the claim that this node sees.

        Raises:
            NameUnknown: nobody has the name, or somebody else by now; nothing was changed.
            NodeLost: the holder's node is not connected, or was lost before it answered.
            CallTimeout: the holder's node did not answer in time.
            NodeClosed: the node is closed.
            ValueError, TypeError: the name is not valid, or `timeout` is no number of seconds.
        """
        name = check_name(name)
        await self.withdraw(name, timeout)

    async def transfer(self, name: str, pid: Pid, *, timeout: float | None = None) -> Registration:
        """Let another process have a name, whoever has it now: at no moment nobody has it, or a third could take it.

        Before it returns, every connected node resolves the name to the old holder or to `pid`; then to `pid`. The
        old holder is not told: it gave the name up, and lives on. From any node: the holder's is asked.

        Args:
            pid: a living process, of any node that the holder's is connected to.
            timeout: seconds; default: as for `register`.

        Raises:
            NotMoved: a peer did not answer in time, or the name is disputed, or is being moved already; or names are in
                etcd, where they do not move.
            NameUnknown: nobody has the name, or somebody else than this node saw; nothing was changed.
            NotConfirmed: its claim has yet to be confirmed.
            NoProcess: `pid` is dead.
            NodeLost: a node that it takes is not connected, or was lost meanwhile.
            CallTimeout: the holder's node did not answer in time.
            NodeClosed: the node is closed.
            ValueError, TypeError: the name or pid is not valid, or `timeout` is no number of seconds.

        After an error the name is with its old holder, if that lives. Only if the new node was lost at the very end, or
        the holder's node was, may the name still come to `pid`; if the old holder has it in another partition, that one
        gets `NameLost` then. Cancelling it leaves the name where it is, unless it has moved already.
        """
        name = self._check(name, pid)
        patience = self._patience if timeout is None else check_seconds(timeout)
        claim = await self._node.ordered(lambda ref: fx.Transfer(ref, name, pid, patience))
        return self._registration(claim)

    def moving(self, name: str) -> Pid | None:
        """Who is about to get the name from its holder, by a `transfer` to another node that is under way."""
        return self._table.moving(name)

    async def withdraw(self, name: str, timeout: float | None, claim: Claim | None = None) -> None:
        """Give up a name; with a claim, only that one. See `unregister` and `Registration.release`."""
        patience = self._patience if timeout is None else check_seconds(timeout)
        self._node.check_open()
        position, holder = (None, None) if claim is None else (claim.position, claim.pid)
        await self._node.ordered(lambda ref: fx.Unregister(ref, name, position, patience, holder))

    async def wait_for(self, name: str, *, timeout: float | None = None) -> Pid:
        """Wait until somebody holds the name.

        Args:
            timeout: seconds; None waits for ever.

        Returns:
            The holder at the moment it appeared here.

        Raises:
            NameWaitTimeout: nobody did in time (also a TimeoutError).
            NodeClosed: the node is closed.
            ValueError, TypeError: the name is not valid, or `timeout` is no number of seconds.
        """
        name = check_name(name)
        if timeout is not None:
            check_seconds(timeout)
        self._node.check_open()
        holder = self.whereis(name)
        if holder is not None:
            return holder
        future: asyncio.Future[Pid] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(name, {})[future] = None
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise NameWaitTimeout(name, f"no process registered it within {timeout:g} s") from None
        finally:
            waiting = self._waiters.get(name)
            if waiting is not None:
                waiting.pop(future, None)
                if not waiting:
                    del self._waiters[name]

    def watch(self, pattern: str = "*", *, max_events: int = 10_000) -> "NameWatch":
        """Follow the names that match: first a NameAdded for each that is there, then every change in order.

        Args:
            pattern: a name, or a prefix followed by ``*``.
            max_events: how far the watcher may lag behind. Beyond, waiting events are replaced by one `Resync`.

        Returns:
            An async iterator of NameAdded, NameRemoved and Resync. It raises NodeClosed when the node closes.
        """
        self._node.check_open()
        watch = NameWatch(self._view, pattern, max_events)
        self._watches[watch] = None
        self._watched = True
        return watch

    # --- for the node ---

    def watch_with_nodes(self, pattern: str, *, max_events: int, changes: bool = False) -> "ClusterWatch":
        """As `watch`, and between the changes of names the peers that come, go, stall and resume, from now on.

        Args:
            changes: leave out the names that are there, at first and in a `Resync`.
        """
        self._node.check_open()
        watch = ClusterWatch({} if changes else self._view, pattern, max_events)
        self._watches[watch] = None
        self._watched = True
        return watch

    def node_changed(self, change: NodeEvent) -> None:
        """Pass on what a peer does to those who watch nodes as well."""
        for watch in self._watches:
            if isinstance(watch, ClusterWatch):
                watch.node_changed(change)

    def epoch(self, claim: Claim) -> int | None:
        """The fencing token of a claim."""
        return self._table.epoch(claim) if isinstance(self._table, Tenure) else None

    def changed(self, change: NameAdded | NameRemoved) -> None:
        """Pass one change of the view on to those who wait for it."""
        if type(change) is NameAdded:
            if self._waiters:
                for future in self._waiters.pop(change.name, ()):
                    if not future.done():
                        future.set_result(change.pid)
        elif self._given and change.pid.node == self._node.name:
            self._given.pop(change.name, None)
        if self._watched:
            self._watched = bool(self._watches)
            for watch in self._watches:
                watch.changed(change)

    def close(self, error: NodeClosed) -> None:
        """Let everybody who waits know that the node is closed."""
        for waiting in self._waiters.values():
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
        self._waiters.clear()
        for watch in list(self._watches):
            watch.fail(error)

    def _registration(self, claim: object) -> Registration:
        assert isinstance(claim, Claim), "a Register succeeds with its claim"
        if claim.pid.node == self._node.name:
            self._given[claim.name] = claim.position
        return Registration(self, claim)

    def _unwanted(self, claim: object) -> None:
        """A claim was confirmed in the moment its `register` was cancelled: release it, unless somebody else has it."""
        assert isinstance(claim, Claim), "a Register succeeds with its claim"
        if self._given.get(claim.name) != claim.position and self._registering[claim.name] == 1:
            self._node.order_unheard(lambda ref: fx.Unregister(ref, claim.name, claim.position, 0.0, claim.pid))

    def _check(self, name: str, pid: Pid) -> str:
        name = check_name(name)
        check_pid(pid)
        self._node.check_open()
        if pid.node == self._node.name and not self._node.is_alive(pid):
            raise NoProcess(f"cannot register {name!r}: {pid} is dead")
        return name


class NameWatch(Watch[NameEvent]):
    """The async iterator that `Names.watch` returns. `close()` ends it; so does dropping it."""

    def __init__(self, view: Mapping[str, Pid], pattern: str, max_events: int) -> None:
        self._view = view
        super().__init__(pattern, max_events)

    def changed(self, change: NameAdded | NameRemoved) -> None:
        """Take in a change of the view."""
        self._take_in(change.name, change)

    def _table(self) -> Iterator[Row]:
        return _rows(self._view, self._prefix, self._any)

    def _added(self, row: Row) -> NameEvent:
        return NameAdded(*row)

    def _resynced(self, rows: list[Row]) -> NameEvent:
        return Resync(dict(rows))


class ClusterWatch(Watch[NameEvent | NodeEvent]):
    """As a NameWatch, and what peers do, in the order of this node. After a Resync, ask the node who is there."""

    def __init__(self, view: Mapping[str, Pid], pattern: str, max_events: int) -> None:
        self._view = view
        super().__init__(pattern, max_events)

    def changed(self, change: NameAdded | NameRemoved) -> None:
        """Take in a change of the view."""
        self._take_in(change.name, change)

    def node_changed(self, change: NodeEvent) -> None:
        """Take in what a peer does."""
        self._append(change)

    def _table(self) -> Iterator[Row]:
        return _rows(self._view, self._prefix, self._any)

    def _added(self, row: Row) -> NameEvent:
        return NameAdded(*row)

    def _resynced(self, rows: list[Row]) -> NameEvent:
        return Resync(dict(rows))


def _rows(view: Mapping[str, Pid], prefix: str, any_: bool) -> Iterator[Row]:
    """The rows among which are all that match a pattern."""
    if any_:
        return iter(dict(view).items())
    holder = view.get(prefix)
    return iter(() if holder is None else ((prefix, holder),))


class LocalNames:
    """Names that only this node knows, for processes of its own. ``(name, node)`` reaches them from afar."""

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._holders: dict[str, Pid] = {}
        self._by_process: dict[Pid, dict[str, None]] = {}  # so that no exit looks at the names of others

    def register(self, name: str, pid: Pid) -> None:
        """Give a process of this node a name on this node.

        Raises:
            NameTaken: another process has it.
            NoProcess: the process is dead.
            ValueError, TypeError: the name or pid is not valid.
        """
        name = check_name(name)
        check_pid(pid)
        if pid.node != self._node.name:
            raise ValueError(f"{pid} is a process of another node: its names belong there")
        if not self._node.is_alive(pid):
            raise NoProcess(f"cannot register {name!r}: {pid} is dead")
        holder = self._holders.setdefault(name, pid)
        if holder != pid:
            raise NameTaken(name, holder)
        self._by_process.setdefault(pid, {})[name] = None

    def unregister(self, name: str) -> None:
        """Take the name away.

        Raises:
            NameUnknown: nobody has it.
        """
        holder = self._holders.pop(name, None)
        if holder is None:
            raise NameUnknown(name, "no process of this node has it")
        del self._by_process[holder][name]

    def whereis(self, name: str) -> Pid | None:
        """The process with this name on this node."""
        return self._holders.get(name)

    def of(self, pid: Pid) -> list[str]:
        """The names that a process has on this node alone."""
        return list(self._by_process.get(pid, ()))

    def snapshot(self) -> dict[str, Pid]:
        """All names of this node alone."""
        return dict(self._holders)

    def process_exited(self, pid: Pid) -> None:
        """A process is dead: it has no names."""
        for name in self._by_process.pop(pid, ()):
            del self._holders[name]
