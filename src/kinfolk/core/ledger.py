"""A node's ledger: the totally ordered log of its own facts, and which peers have yet to acknowledge what.

Each entry has a position, counted from 1. Only the node itself appends. What a node says of its ledger is never
relayed: peers hear it from the node or not at all. What they hold of it is a mirror, see `kinfolk.core.mirror`.
"""

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Generic, TypeVar

from msgspec import Struct

from kinfolk.errors import RemoteProtocolError
from kinfolk.ids import Pid

Order = tuple[int, str, int, int]
Identity = tuple[str, int, int]
"""What identifies a claim: its node, that node's creation, its position."""
E = TypeVar("E")


class Claim(Struct, frozen=True, gc=False):
    """One claim of a name. A stamp alone identifies nothing."""

    name: str
    pid: Pid
    position: int
    stamp: int
    after: Identity | None = None
    """The claim that this one succeeds, whose *heir* it is: the name moves from the one to the other."""

    @property
    def identity(self) -> Identity:
        """What distinguishes it from all others."""
        return self.pid.node, self.pid.creation, self.position

    @property
    def order(self) -> Order:
        """Claims sort by stamp; the rest only makes the order total."""
        return self.stamp, self.pid.node, self.pid.creation, self.position


class Ledger:
    """This node's positions, and which peers have yet to acknowledge the entries that somebody waits for."""

    JOINING = ""
    """Stands for the peers that a join in progress may still bring: while it is there, nothing is confirmed."""

    def __init__(self) -> None:
        self.position = 0
        self.peers: set[str] = set()
        self._missing: dict[int, set[str]] = {}
        self._claims: set[int] = set()

    def append(self) -> int:
        """Take the next position for an entry that nobody waits for."""
        self.position += 1
        return self.position

    def await_claim(self, position: int) -> bool:
        """Wait until every peer has acknowledged a claim, also those that join meanwhile. True if none is missing."""
        self._claims.add(position)
        self._missing[position] = set(self.peers)
        return not self.peers

    def await_withdrawal(self, position: int) -> bool:
        """Wait until every peer of this moment has acknowledged a withdrawal. True if none is missing."""
        missing = self.peers - {self.JOINING}
        if missing:
            self._missing[position] = missing
        return not missing

    def forget(self, position: int) -> None:
        """Nobody waits for this entry any longer."""
        self._missing.pop(position, None)
        self._claims.discard(position)

    def missing(self, position: int) -> tuple[str, ...]:
        """The peers that have not acknowledged this entry, sorted."""
        return tuple(sorted(self._missing.get(position, set()) - {self.JOINING}))

    def waits_only_for(self, position: int, peer: str) -> bool:
        """Whether this peer alone has yet to acknowledge the entry."""
        return self._missing.get(position) == {peer}

    def peer_up(self, peer: str) -> None:
        """A session with the peer is open. It has acknowledged none of the claims that wait: the sync asks afresh."""
        self.peers.add(peer)
        for position in self._claims:
            self._missing[position].add(peer)

    def peer_down(self, peer: str, returns: bool = False) -> list[int]:
        """Nobody waits for this peer any longer. Returns the positions that were missing only its acknowledgement.

        With `returns` a new session with it opens in the same moment. Then claims go on waiting for it; withdrawals do
        not, for its new mirror will never show what they withdrew.
        """
        self.peers.discard(peer)
        return self.excuse(peer) if returns else self._acknowledge(peer, list(self._missing))

    def excuse(self, peer: str) -> list[int]:
        """No withdrawal made so far waits for this peer any longer. Returns the positions that were missing only it."""
        return self._acknowledge(peer, [at for at in self._missing if at not in self._claims])

    def acknowledged(self, peer: str, positions: Iterable[int], through: int = 0) -> list[int]:
        """The peer has these entries in its views, and every withdrawal `through` that one.

        Returns the positions that everybody has acknowledged now.

        Raises:
            RemoteProtocolError: it acknowledges an entry that was never made.
        """
        positions = list(positions)
        last = max(through, *positions, 0)
        if last > self.position:
            raise RemoteProtocolError(f"acknowledges ledger entry {last}, but the last is {self.position}")
        if through:
            positions += [at for at in self._missing if at <= through and at not in self._claims]
        return self._acknowledge(peer, positions)

    def _acknowledge(self, peer: str, positions: list[int]) -> list[int]:
        complete: list[int] = []
        for position in positions:
            missing = self._missing.get(position)
            if missing is not None and peer in missing:
                missing.discard(peer)
                if not missing:
                    complete.append(position)
        return complete


class Log(Generic[E]):
    """The last entries of a ledger, for peers whose mirror has only these to catch up on.

    Args:
        room: how many facts the kept entries may have together; the oldest entries go first.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._entries: deque[tuple[E, int]] = deque()
        self._facts = 0
        self._last = 0

    def append(self, position: int, entry: E, facts: int = 1) -> None:
        """Keep the next entry, which says so many facts."""
        assert position == self._last + 1, "the log has every entry"
        self._last = position
        self._entries.append((entry, facts))
        self._facts += facts
        while self._facts > self._room:
            self._facts -= self._entries.popleft()[1]

    def reaches(self, position: int) -> bool:
        """Whether every entry after this one is here, and there is such a one."""
        return self._last - len(self._entries) <= position <= self._last

    def after(self, position: int, count: int) -> list[E]:
        """The entries after this one, at most so many."""
        start = position - (self._last - len(self._entries))
        return [entry for entry, _ in islice(self._entries, start, start + count)]
