"""The vocabulary between the kernel and the world: what may happen to it, and what it may ask for.

Inputs are facts (past tense) or orders (imperative); effects are verbs, plus the changes that others may watch.
The driver gives one input, carries out all its effects in order, and only then gives the next.

A connection is known by a number that never comes back (``conn``); an order that wants an answer carries a
reference (``ref``), answered by exactly one Succeed or Fail.

Source: effects as data in one place, as ``effect()`` in rabbitmq/ra.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from kinfolk.cookie import Hidden
from kinfolk.core.changes import MemberAdded as MemberAdded
from kinfolk.core.changes import MemberRemoved as MemberRemoved
from kinfolk.core.changes import NameAdded as NameAdded
from kinfolk.core.changes import NameRemoved as NameRemoved
from kinfolk.errors import AuthenticationFailed, KinfolkError, NameLost, NameTaken, NodeUnreachable
from kinfolk.ids import Pid, Seed
from kinfolk.wire.frames import Operation

OnLost = Literal["exit", "message"]


class Now(Struct, frozen=True, gc=False):
    """The time of an input: `mono` in seconds decides deadlines, `wall_ms` in ms since 1970 only goes into stamps."""

    mono: float
    wall_ms: int


# --- inputs: facts from connections ---


class Proved(Struct, frozen=True):
    """Listener's side: a dialler has proved that it knows the cookie. Answered by Admit or Refuse."""

    conn: int
    peer: str
    creation: int


class Opened(Struct, frozen=True):
    """A session can begin: the dialler has the listener's ACK, or the listener the dialler's first frame past it."""

    conn: int
    peer: str
    creation: int
    dialled: bool


class DialFailed(Struct, frozen=True):
    """A dial ended without a session. `number` is as in Refusal.

    `code` is that of the refusal; or "unreachable"; or "ended", if it was closed or reset before TLS was up; or
    "protocol", if what answered there broke the protocol.
    """

    conn: int
    code: str
    error: NodeUnreachable | AuthenticationFailed
    number: int = 0


class Closed(Struct, frozen=True):
    """A connection that was admitted or opened has ended. `level`, as in the logging module: how alarming that is."""

    conn: int
    reason: str
    level: int = 20


class Received(Struct, frozen=True):
    """A control frame arrived in an open session."""

    conn: int
    operations: Sequence[Operation]


class Heard(Struct, frozen=True):
    """Bytes of any kind arrived in an open session."""

    conn: int


class StallHeard(Struct, frozen=True):
    """The peer of an open session has reported that its loop had its last turn so many seconds ago."""

    conn: int
    age: float


class Drained(Struct, frozen=True):
    """The outbox has room again, after WantDrain."""

    conn: int


class Turn(Struct, frozen=True):
    """Others have had their turn, after WantTurn."""


class TimePassed(Struct, frozen=True):
    """The moment that `next_deadline` named has come."""


class ProcessExited(Struct, frozen=True):
    """A process of this node is dead from now on. `reason`, in words, is for people."""

    local: int
    reason: str = ""


# --- inputs: orders of the user ---


class Register(Struct, frozen=True):
    """Claim a name for a process. With `wait`, `ref` is answered when it is confirmed or lost."""

    ref: int
    name: str
    pid: Pid
    wait: bool
    timeout: float
    on_lost: OnLost


class Abandon(Struct, frozen=True):
    """Whoever waits for this order has gone: it holds nothing up any longer.

    The claim of a Register is withdrawn, unless somebody else waits for it as well.
    """

    ref: int


class Unregister(Struct, frozen=True):
    """Withdraw a name of this node; with `position`, only that claim. Answered when peers know, or at the deadline."""

    ref: int
    name: str
    position: int | None
    timeout: float
    holder: Pid | None = None
    """Whose claim it is; None for the one that this node sees."""


class Transfer(Struct, frozen=True):
    """Let a name of this node go to another process, of any node. Answered when peers know, or at the deadline."""

    ref: int
    name: str
    pid: Pid
    timeout: float
    position: int | None = None
    """Of the claim that is to move; None for the one that this node sees."""


class JoinGroup(Struct, frozen=True):
    """Make a living process of this node a member of a group. Carried out at once, and told to the peers."""

    group: str
    pid: Pid


class LeaveGroup(Struct, frozen=True):
    """End a membership of a process of this node."""

    group: str
    pid: Pid


class Join(Struct, frozen=True):
    """Connect to these seeds and to everybody they know, and hold all their names.

    `patient` is for the start of a node: seeds that are down are dialled again until the timeout, then no error.
    """

    ref: int
    seeds: tuple[Seed, ...]
    timeout: float
    patient: bool
    min_peers: int = 0


class Seek(Struct, frozen=True):
    """Dial these from now on: discovery has found them. Nothing waits for it, and who leaves is not dialled again."""

    seeds: tuple[Seed, ...]


class Forget(Struct, frozen=True):
    """Dial these no longer, unless a session with them is open: discovery has dropped them."""

    seeds: tuple[Seed, ...]


class Reach(Struct, frozen=True):
    """Something waits to be said to a peer that there is no session with."""

    peer: str


class Unsaid(Struct, frozen=True):
    """Too much waits to be said to a peer that there is no session with, or one that is about to end."""

    peer: str
    reason: str


class KeysChanged(Struct, frozen=True):
    """This node has other keys: whoever refused the old ones may take these."""


class EnterRegistry(Struct, frozen=True):
    """Take part in the registry of an outside authority. Answered when its names are here, or at the deadline."""

    ref: int
    timeout: float


class Shutdown(Struct, frozen=True):
    """Close every session, fail every order, take no more."""

    leaves: bool = False
    """Tell the peers that this start of the node never comes back."""


# --- an authority over names outside the mesh: what it is asked (effects), and what it says (inputs) ---


class Grant(Struct, frozen=True):
    """Give this node a lease of so many whole seconds."""

    ttl: int


class Renew(Struct, frozen=True):
    """Let a lease begin anew."""

    lease: int


class Revoke(Struct, frozen=True):
    """End a lease, and with it all that was put under it."""

    lease: int


class Put(Struct, frozen=True):
    """Write a key under a lease, if there is no such key."""

    key: str
    value: bytes
    lease: int
    claim: int
    """The claim that is written so; 0 for the node itself."""


class Remove(Struct, frozen=True):
    """Delete a key, if it has this very value."""

    key: str
    value: bytes
    claim: int


class Follow(Struct, frozen=True):
    """Tell all changes after this revision; 0: all that is there, and then its changes."""

    after: int
    known: int = 0
    """The latest revision that any answer has told of: whoever is not there yet has another history."""


class Release(Struct, frozen=True):
    """Go: nothing more is asked. Ends this lease, if there is one, as well as that can be done in a moment."""

    lease: int


Request = Grant | Renew | Revoke | Put | Remove | Follow | Release


class Consult(Struct, frozen=True):
    """Ask the authority. All but Follow and Release are answered by exactly one Consulted."""

    request: Request


class Fact(Struct, frozen=True, gc=False):
    """A key as the authority has it: written at this revision, under this lease."""

    key: str
    value: bytes
    revision: int
    lease: int


class Gone(Struct, frozen=True, gc=False):
    """The authority has no such key any longer, as of this revision."""

    key: str
    revision: int


class Granted(Struct, frozen=True):
    """Answer of Grant and Renew: seconds that the lease lasts from now; 0 if there is none."""

    lease: int
    ttl: int


class Done(Struct, frozen=True):
    """Answer of Revoke, of Put if it has written, and of Remove: there is no such key, as of this revision."""

    revision: int


class NoLease(Struct, frozen=True):
    """Answer of Put: the lease has ended."""


class Consulted(Struct, frozen=True):
    """The answer to a request. Fact: Put or Remove has found this, and left it. None: it may have been carried out."""

    request: Request
    answer: Granted | Done | Fact | NoLease | None


class Snapshot(Struct, frozen=True):
    """A part of all that was there at this revision; after the last part its changes follow."""

    revision: int
    facts: Sequence[Fact]
    first: bool
    done: bool


class Changed(Struct, frozen=True):
    """The next changes, in order. `revision`: with them, all up to this one are told; 0 if more of it follow."""

    revision: int
    changes: Sequence[Fact | Gone]


class Current(Struct, frozen=True):
    """All that was so at this moment of `Now.mono` has been told."""

    mono: float


class Unfollowed(Struct, frozen=True):
    """Changes are told no longer. `compacted`: those that come next cannot be told one by one any more."""

    compacted: bool = False


# --- effects ---


class Send(Struct, frozen=True, gc=False):
    """Append one operation to the outboxes of these connections."""

    conns: tuple[int, ...]
    operation: Operation


class WantDrain(Struct, frozen=True):
    """Give a Drained input as soon as the outbox of this connection has room."""

    conn: int


class WantTurn(Struct, frozen=True):
    """Give a Turn input after everybody else who waits has had a turn: this node has much to do."""


class Dial(Struct, frozen=True):
    """Connect and authenticate. Followed by Opened or DialFailed."""

    conn: int
    seed: Seed


class Admit(Struct, frozen=True):
    """Send ACK to a proved dialler. Followed by Opened or Closed."""

    conn: int


class Refuse(Struct, frozen=True):
    """Tell a proved dialler why not, and close. Nothing follows."""

    conn: int
    code: str
    detail: str
    number: int = 0


class Close(Struct, frozen=True):
    """Say goodbye and close. Nothing follows from this connection."""

    conn: int
    code: str
    detail: str


class Succeed(Struct, frozen=True):
    """Answer an order."""

    ref: int
    value: object = None


class Fail(Struct, frozen=True):
    """Answer an order by raising."""

    ref: int
    error: KinfolkError


class TellLoss(Struct, frozen=True):
    """A process lost a name without having given it up: end it with this reason, or put the loss into its mailbox."""

    local: int
    loss: NameLost | NameTaken
    on_lost: OnLost


class PeerUp(Struct, frozen=True):
    """A session with this node is open; messages for it go there.

    `conn` is 0 where sessions open on demand: the node is known, whether there is a session or not.
    """

    peer: str
    creation: int
    conn: int


class PeerDown(Struct, frozen=True):
    """The session has ended, and with it whatever was under way; or no session with a known node could be opened."""

    peer: str
    creation: int
    conn: int
    reason: str


class Connected(Struct, frozen=True):
    """A session with a peer is open, that was known before: what waits for it goes there."""

    peer: str
    conn: int


class Disconnected(Struct, frozen=True):
    """This session has ended. If the peer is lost with it, a PeerDown follows."""

    peer: str
    conn: int


class Hold(Struct, frozen=True):
    """Say nothing to a peer until GoOn, or the next Connected: the session may be about to end."""

    peer: str


class GoOn(Struct, frozen=True):
    """The session with a peer goes on after all: say what waits for it."""

    peer: str


class Say(Struct, frozen=True):
    """Say this to a peer, after whatever waits to be said to it."""

    peer: str
    operation: Operation


class PeerStalled(Struct, frozen=True):
    """The node's loop stands still, for so many seconds until now. Its session, and all that hangs on it, is kept."""

    peer: str
    conn: int
    seconds: float


class PeerResumed(Struct, frozen=True):
    """The node's loop turns again. It is known to have stood still for so many seconds."""

    peer: str
    conn: int
    seconds: float


class ReportStalls(Struct, frozen=True):
    """Should our loop stand still, tell the peer of this session so, in the way that it has asked for."""

    conn: int
    port: int
    session: int
    key: Hidden[bytes]


class RaiseCreation(Struct, frozen=True):
    """This node's creation was older than its last one (its clock was set back): it starts anew under this one."""

    creation: int


class Log(Struct, frozen=True):
    """A log line. `level` as in the logging module; `about` has fields of `kinfolk.logs`, without the node."""

    level: int
    text: str
    about: Mapping[str, Any] = {}


class Count(Struct, frozen=True):
    """Add to a counter that users can read."""

    counter: str
    by: int = 1


Input = (
    Proved | Opened | DialFailed | Closed | Received | Heard | StallHeard | Drained | Turn | TimePassed | ProcessExited
    | Register | Abandon | Unregister | Transfer | JoinGroup | LeaveGroup | Join | Seek | Forget | Reach | Unsaid
    | KeysChanged | EnterRegistry | Shutdown | Consulted | Snapshot | Changed | Current | Unfollowed
)  # fmt: skip
Effect = (
    Send | WantDrain | WantTurn | Dial | Admit | Refuse | Close | Succeed | Fail | TellLoss
    | PeerUp | PeerDown | Connected | Disconnected | Hold | GoOn | Say | PeerStalled | PeerResumed | ReportStalls
    | NameAdded | NameRemoved | MemberAdded | MemberRemoved | RaiseCreation | Log | Count
    | Consult
)  # fmt: skip
