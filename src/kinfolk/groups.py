"""`node.groups` and `me.groups`: processes that are spoken to together, wherever they live.

Who is a member is a fact of the member's own node, in the same ledger as its names: every node knows all members of
all groups, a process that exits is a member no longer, and a lost node's members are gone with it. A group is there
while it has members; empty equals absent, and nothing has to be made or removed.

Source: process groups as in erlang/otp (pg); a broadcast that crosses each link once is the original's.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from msgspec import Struct

from kinfolk import effects as fx
from kinfolk.core.groups import Groups as GroupTable
from kinfolk.effects import MemberAdded, MemberRemoved
from kinfolk.errors import NodeClosed, NoProcess
from kinfolk.events import Row, Watch
from kinfolk.ids import Pid, check_name, check_pid

if TYPE_CHECKING:
    from kinfolk.node import Node
    from kinfolk.process import Process


class GroupResync(Struct, frozen=True):
    """A watcher lagged too far behind: events were left out. `groups` is the table as it is now; changes follow."""

    groups: dict[str, list[Pid]]


GroupEvent = MemberAdded | MemberRemoved | GroupResync


class Groups:
    """The groups of the cluster: from a node, or from one of its processes (`me.groups`).

    `members`, `local_members` and `snapshot` work from any thread and wait for nothing. Nodes may differ while a
    change is under way.
    """

    def __init__(
        self,
        node: "Node",
        table: GroupTable,
        watches: "WeakKeyDictionary[GroupWatch, None]",
        own: "Process | None" = None,
    ) -> None:
        self._node = node
        self._table = table
        self._watches = watches
        self._own = own

    def of(self, process: "Process") -> "Groups":
        """The same groups, from a process of this node: it joins and leaves itself, and broadcasts as the sender."""
        return Groups(self._node, self._table, self._watches, process)

    async def join(self, group: str, pid: Pid | None = None) -> None:
        """Make a process of this node a member of a group. A member that joins again stays one.

        Nothing is waited for, now: when this returns, the process is a member here, and the peers are told, in order
        with what is sent from here. So a peer's process that gets a message sent after the join finds the member there
        (unless the two nodes have met just now, and that peer has not heard of all names and members yet).

        Args:
            group: 1 to 255 bytes of UTF-8.
            pid: who joins; it may be left out in `me.groups`, for the process itself.

        Raises:
            NoProcess: the process is dead.
            NodeClosed: the node is closed.
            ValueError, TypeError: the name or pid is not valid, or is a process of another node.
        """
        group, pid = self._checked(group, pid)
        if not self._node.is_alive(pid):
            raise NoProcess(f"cannot join {group!r}: {pid} is dead")
        self._node.submit(fx.JoinGroup(group, pid))

    async def leave(self, group: str, pid: Pid | None = None) -> None:
        """End a membership. Nothing happens if the process is no member. As `join`, it waits for nothing.

        Raises:
            NodeClosed, ValueError, TypeError: as `join`.
        """
        group, pid = self._checked(group, pid)
        if self._node.is_alive(pid):  # else it is no member, or will not be in a moment
            self._node.submit(fx.LeaveGroup(group, pid))

    def members(self, group: str) -> list[Pid]:
        """All members of a group: those of one node together, in the order in which they joined. [] if it is empty."""
        return self._table.members(group)

    def local_members(self, group: str) -> list[Pid]:
        """The members that are processes of this node, in the order in which they joined."""
        return self._table.members_on(self._node.name, group)

    def snapshot(self) -> dict[str, list[Pid]]:
        """All groups with their members, as this node knows them at this moment."""
        groups = {group: self._table.members(group) for group in self._table}
        return {group: members for group, members in groups.items() if members}

    def broadcast(self, group: str, message: object, *, include_self: bool = False) -> None:
        """Send a message to all members of a group, without waiting.

        It is encoded once, and goes once to each node with members, as far as they are known here; there it reaches
        whoever is a member at that moment. As with `send`, what goes to a lost node is dropped and counted, and
        messages of one sender arrive in their order. Members on one node get the same object, not copies of their own:
        they should not change it. A member whose mailbox is full misses it, and so do all members on a node for which
        more waits than `high_water` allows; both is counted.

        Args:
            group: nobody may be in it; then nothing happens.
            message: as for `send`.
            include_self: in `me.groups`: whether the process gets it as well, if it is a member.

        Raises:
            NotSerializable, MessageTooLarge: the message cannot go over the wire; it was sent to nobody. Raised only if
                a member lives on another node, or with `strict_messages`.
            NoProcess: this process is dead.
            NodeClosed: the node is closed.
            ValueError, TypeError: the name is not valid.
        """
        group = self._check(group)
        sender = None if self._own is None else self._own.pid.local
        self._node.dataplane.broadcast(group, message, sender, include_self=include_self)

    def watch(self, pattern: str = "*", *, max_events: int = 10_000) -> "GroupWatch":
        """Follow the groups that match: first a MemberAdded for each member there is, then every change in order.

        Args:
            pattern: a group, or a prefix followed by ``*``.
            max_events: how far the watcher may lag behind. Beyond, waiting events are replaced by one `GroupResync`.

        Returns:
            An async iterator of MemberAdded, MemberRemoved and GroupResync. It raises NodeClosed when the node closes.
        """
        self._node.check_open()
        watch = GroupWatch(self._table, pattern, max_events)
        self._watches[watch] = None
        return watch

    # --- for the node ---

    def changed(self, change: MemberAdded | MemberRemoved) -> None:
        """Pass one change of the view on to those who watch it."""
        if self._watches:  # an empty WeakKeyDictionary takes long to iterate
            for watch in self._watches:
                watch.changed(change)

    def close(self, error: NodeClosed) -> None:
        """Let everybody who watches know that the node is closed."""
        for watch in list(self._watches):
            watch.fail(error)

    # --- inside ---

    def _check(self, group: str) -> str:
        if self._own is not None:
            self._own.check_alive()
        self._node.check_open()
        return check_name(group)

    def _checked(self, group: str, pid: Pid | None) -> tuple[str, Pid]:
        group = self._check(group)
        if pid is None and self._own is not None:
            return group, self._own.pid
        pid = check_pid(pid)
        if pid.node != self._node.name:
            raise ValueError(f"{pid} is a process of another node: it joins and leaves groups there, by me.groups")
        return group, pid


class GroupWatch(Watch[GroupEvent]):
    """The async iterator that `Groups.watch` returns. `close()` ends it; so does dropping it."""

    def __init__(self, table: GroupTable, pattern: str, max_events: int) -> None:
        self._groups = table
        super().__init__(pattern, max_events)

    def changed(self, change: MemberAdded | MemberRemoved) -> None:
        """Take in a change of the view."""
        self._take_in(change.group, change)

    def _table(self) -> Iterator[Row]:
        groups = filter(self._matches, self._groups) if self._any else (self._prefix,)
        return _rows([(group, self._groups.view(group)) for group in groups])

    def _added(self, row: Row) -> GroupEvent:
        return MemberAdded(*row)

    def _resynced(self, rows: list[Row]) -> GroupEvent:
        groups: dict[str, list[Pid]] = {}
        for group, pid in rows:
            groups.setdefault(group, []).append(pid)
        return GroupResync(groups)


def _rows(groups: list[tuple[str, list[Pid]]]) -> Iterator[Row]:
    return ((group, pid) for group, members in groups for pid in members)
