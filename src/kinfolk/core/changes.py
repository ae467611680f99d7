"""What an event changes in the name table, in the vocabulary of the table.

Some of it others may watch (a name resolves to somebody else now), and they get it as it is: one object all the way.
Some is an entry of this node's ledger that all peers have to be told of, the rest has to be said to one peer or to
whoever waits for something.

They are values of values, in which there can be no cycle, and a table of a million names makes millions of them: with
``gc=False`` the garbage collector neither looks at them nor takes their number as a reason to look at everything.
"""

from typing import Literal

from msgspec import Struct

from kinfolk.core.ledger import Claim
from kinfolk.ids import Pid

Cause = Literal[
    "unregistered", "exited", "unconfirmed", "abandoned", "unwanted", "orphaned", "revoked", "yielded", "handed over"
]
"""Why a claim of ours was withdrawn.

    unregistered  somebody gave the name up                exited       its process is dead
    unconfirmed   not all peers acknowledged it in time    abandoned    nobody waited for it any longer
    unwanted      the node that asked for it lets it go    orphaned     an heir: what it was to succeed is gone
    revoked       an heir: it is not to move any more      yielded      to another node's claim (after a Lost)
    handed over   to the heir it was meant for (after a HandedOver)
"""


class OwnClaim(Struct, gc=False):
    """A live claim of this node, and whether every peer of the moment has acknowledged it."""

    claim: Claim
    on_lost: str
    confirmed: bool = False


class NameAdded(Struct, frozen=True, gc=False):
    """From now on the name resolves to this pid here."""

    name: str
    pid: Pid


class NameRemoved(Struct, frozen=True, gc=False):
    """The name no longer resolves to this pid here."""

    name: str
    pid: Pid


class MemberAdded(Struct, frozen=True, gc=False):
    """From now on the process is a member of the group here."""

    group: str
    pid: Pid


class MemberRemoved(Struct, frozen=True, gc=False):
    """The process is not a member of the group here any longer."""

    group: str
    pid: Pid


class Claimed(Struct, frozen=True, gc=False):
    """A new entry of our ledger: tell all peers."""

    claim: Claim


class Withdrawn(Struct, frozen=True, gc=False):
    """A new entry of our ledger, which withdraws these claims, and memberships of one process: tell all peers."""

    position: int
    claims: tuple[Claim, ...]
    groups: tuple[str, ...] = ()
    local: int = 0
    """Whose memberships."""
    cause: Cause = "unregistered"
    missing: tuple[str, ...] = ()
    """The peers that did not acknowledge in time, if that is the cause."""

    @property
    def exited(self) -> bool:
        """Whether the process is dead."""
        return self.cause == "exited"


class Confirmed(Struct, frozen=True, gc=False):
    """A new entry of our ledger, which confirms this claim of ours: tell all peers, and who waits for it."""

    position: int
    claim: Claim


class Moved(Struct, frozen=True, gc=False):
    """A new entry of our ledger, which gives the claim made at `position` to another process here: tell all peers."""

    claim: Claim
    position: int


class Entered(Struct, frozen=True, gc=False):
    """A new entry of our ledger, by which a process of ours is a member of a group: tell all peers."""

    position: int
    group: str
    local: int


class Lost(Struct, frozen=True, gc=False):
    """A claim of ours has yielded to another node's (its Withdrawn follows)."""

    own: OwnClaim
    winner: Claim


class HandedOver(Struct, frozen=True, gc=False):
    """A name of ours has gone to the heir that it was meant for (the Withdrawn of our claim follows)."""

    own: OwnClaim
    heir: Claim


class Accepted(Struct, frozen=True, gc=False):
    """Every peer has acknowledged this withdrawal or move of ours, which `await_withdrawal` asked for."""

    position: int


class Acknowledge(Struct, frozen=True, gc=False):
    """Tell the peer that this entry of its ledger is in our views."""

    peer: str
    position: int


class AcknowledgeThrough(Struct, frozen=True, gc=False):
    """Tell the peer that no claim withdrawn up to this entry of its ledger is in our views any more."""

    peer: str
    position: int


class Settled(Struct, frozen=True, gc=False):
    """A peer's claim of the name, which we know, is confirmed by now."""

    name: str


class Contest(Struct, frozen=True, gc=False):
    """Tell the peer that its claim stands against one of higher rank."""

    peer: str
    loser: Claim
    winner: Claim
    confirmed: bool


class Synced(Struct, frozen=True, gc=False):
    """All that the peer had to tell is in our views."""

    peer: str


class Diverged(Struct, frozen=True, gc=False):
    """What is in memory of this node's facts is not what was told: memory is broken, or kinfolk is.

    A mirror has to be synced afresh. The views, and our own digest (`node` is ourselves), are right again by now.
    """

    node: str


Change = (
    NameAdded | NameRemoved | MemberAdded | MemberRemoved
    | Claimed | Withdrawn | Confirmed | Moved | Entered | Lost | HandedOver | Accepted
    | Acknowledge | AcknowledgeThrough | Settled | Contest | Synced | Diverged
)  # fmt: skip
