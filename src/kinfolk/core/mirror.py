"""What a peer holds of another node's ledger, how it gets there, and how it is known to be right.

A mirror has every live fact of a ledger, losing claims included. Where it stands:

    live       its claims are in the views, each entry goes there at once
    staged     it is built beside the views: by a sync while another mirror of that node is still in them, or from the
               mirror of an earlier session that goes on where it was; then it enters the views, fact by fact
    kept       its session is over: it waits for a bounded time, outside the views, for the node to come back

The *digest* of a ledger is a sum over its live facts, so it can be carried along with each change, and compared by two
who have never told each other the order in which they learned what they know. A sum that is carried along says that
nothing was left out; that memory still holds what was told can only be found by adding up anew (`total`).
"""

from collections.abc import Container, Iterable, Iterator
from itertools import chain
from struct import Struct as Packing
from zlib import crc32

from msgspec import Struct

from kinfolk.core.ledger import Claim
from kinfolk.errors import RemoteProtocolError

Membership = tuple[str, int]
"""A group, and the local id of a process that is a member of it."""
Fact = str | Membership
"""Which fact: a name stands for the claim of it, a membership for itself."""

_MASK = 2**63 - 1
_numbers = Packing("<QQQ").pack
_number = Packing("<Q").pack


def claim_digest(claim: Claim, confirmed: bool) -> int:
    """What a claim adds to the digest of its ledger."""
    check = crc32(claim.name.encode(), crc32(_numbers(claim.position, claim.pid.local, claim.stamp)))
    return check << 31 if confirmed else check


def confirmation_digest(claim: Claim) -> int:
    """What the digest of its ledger changes by when a claim is confirmed; one checksum instead of two."""
    check = claim_digest(claim, False)
    return (check << 31) - check


def membership_digest(membership: Membership) -> int:
    """What a membership adds to the digest of its ledger."""
    group, local = membership
    return crc32(group.encode(), crc32(_number(local))) << 16


def add_digest(digest: int, change: int) -> int:
    """A digest after a change; a negative one takes something away."""
    return (digest + change) & _MASK


def total(claims: Iterable[Claim], unconfirmed: Container[int], node: str) -> int:
    """What these claims add to the digest of a node, those at these positions not being confirmed.

    A claim for a process of another node is none that the node can have made: it adds to what is wrong.
    """
    return sum(claim_digest(claim, claim.position not in unconfirmed) + (claim.pid.node != node) for claim in claims)


class Mirror:
    """A peer's ledger as told by that peer."""

    def __init__(self, peer: str, creation: int, position: int) -> None:
        self.peer, self.creation = peer, creation
        self.position = position
        """The last entry reflected here; of what the sync has yet to bring, nothing is known before `complete`."""
        self.complete = False
        self.damaged = False
        """Memory did not hold what the peer had told: it is not worth keeping, and to be made anew."""
        self.claims: dict[str, Claim] = {}
        self.unconfirmed: set[int] = set()
        """Positions of the claims that are not confirmed."""
        self.held: set[str] = set()
        """Names whose claim is not acknowledged yet."""
        self.members: dict[Membership, None] = {}
        self.digest = 0

    def __len__(self) -> int:
        """How many facts are in it."""
        return len(self.claims) + len(self.members)

    def advance(self, position: int) -> None:
        """Go on to the next entry.

        Raises:
            RemoteProtocolError: it is not the next one.
        """
        if position != self.position + 1:
            raise RemoteProtocolError(f"ledger entry {position} follows entry {self.position}")
        self.position = position

    @property
    def sound(self) -> bool:
        """Whether it is known to be all that the peer has told, so that whatever does not fit is a breach."""
        return self.complete and not self.damaged

    @property
    def adds_up(self) -> bool:
        """Whether memory holds what was told: this looks at every fact."""
        members = sum(map(membership_digest, self.members))
        return add_digest(total(self.claims.values(), self.unconfirmed, self.peer) + members, -self.digest) == 0

    def is_confirmed(self, claim: Claim) -> bool:
        """Whether this claim, which is in the mirror, is confirmed."""
        return claim.position not in self.unconfirmed

    def put(self, claim: Claim, confirmed: bool) -> None:
        """Take a claim in."""
        self.claims[claim.name] = claim
        if not confirmed:
            self.unconfirmed.add(claim.position)
        self.digest = (self.digest + claim_digest(claim, confirmed)) & _MASK

    def confirm(self, claim: Claim) -> None:
        """A claim that is in the mirror is confirmed now."""
        if claim.position in self.unconfirmed:
            self.unconfirmed.discard(claim.position)
            self.digest = (self.digest + confirmation_digest(claim)) & _MASK

    def drop(self, claim: Claim) -> None:
        """A claim that is in the mirror is gone."""
        self.digest = (self.digest - claim_digest(claim, claim.position not in self.unconfirmed)) & _MASK
        del self.claims[claim.name]
        self.unconfirmed.discard(claim.position)
        self.held.discard(claim.name)

    def enter(self, membership: Membership) -> bool:
        """A process is a member of a group. Returns whether that is new."""
        if membership in self.members:
            return False
        self.members[membership] = None
        self.digest = add_digest(self.digest, membership_digest(membership))
        return True

    def leave(self, membership: Membership) -> bool:
        """A process is no longer a member of a group. Returns whether it was."""
        if membership not in self.members:
            return False
        del self.members[membership]
        self.digest = add_digest(self.digest, -membership_digest(membership))
        return True

    def has(self, fact: Fact) -> bool:
        """Whether a fact is in it."""
        return fact in self.claims if isinstance(fact, str) else fact in self.members

    def facts(self) -> Iterator[Fact]:
        """Which facts are in it at this moment, whatever becomes of the mirror meanwhile."""
        return chain(list(self.claims), list(self.members))


class Staged(Struct):
    """A mirror that is built beside the views.

    offered    the mirror of an earlier session: the peer has yet to say whether it goes on from there
    otherwise  ready when it has reached entry `until`, which is unknown before the end of a sync
    """

    mirror: Mirror
    offered: bool = False
    until: int | None = None

    @property
    def ready(self) -> bool:
        """Whether all is here that it waits for."""
        return self.until is not None and self.mirror.position >= self.until


class Repair:
    """A live mirror that is being made equal to one that was staged, fact by fact.

    Args:
        live: in the views; empty, if there was none.
        wanted: what it is to be. Its facts are taken out of it as they come into the views.

    Entries that come meanwhile are about the live mirror, and let their fact go first (`take`).
    """

    def __init__(self, live: Mirror, wanted: Mirror) -> None:
        self.live, self.wanted = live, wanted
        self._old = live.facts()
        self._compares = bool(live.claims or live.members)
        self._done: set[Fact] = set()

    def take(self, fact: Fact) -> bool:
        """Whether this fact has yet to be repaired, which the caller then does."""
        if not self._compares:
            return self.wanted.has(fact)
        if fact in self._done:
            return False
        self._done.add(fact)
        return True

    def __iter__(self) -> Iterator[Fact]:
        """The facts that have yet to be repaired: first those of the live mirror, then what it lacks."""
        yield from filter(self.take, self._old)
        self._compares = False
        yield from filter(self.take, self.wanted.facts())
