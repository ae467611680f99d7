"""The vocabulary between the kernel and the world: what may happen to it, and what it may ask for.

Inputs are facts (past tense) or orders (imperative); effects are verbs, plus the changes that others may watch.
The driver gives one input, carries out all its effects in order, and only then gives the next.

A connection is known by a number that never comes back (``conn``); an order that wants an answer carries a
reference (``ref``), answered by exactly one Succeed or Fail.

Source: effects as data in one place, as ``effect()`` in rabbitmq/ra.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from kinfolk.cookie import Hidden
from kinfolk.errors import AuthenticationFailed, KinfolkError, NameLost, NameTaken, NodeUnreachable
from kinfolk.ids import Pid, Seed
from kinfolk.wire.frames import Operation

OnLost = Literal["exit", "message"]


class Now(NamedTuple):
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


class Forget(Struct, frozen=True):
    """Dial these no longer, unless a session with them is open: discovery has dropped them."""

    seeds: tuple[Seed, ...]


class KeysChanged(Struct, frozen=True):
    """This node has other keys: whoever refused the old ones may take these."""


class Shutdown(Struct, frozen=True):
    """Close every session, fail every order, take no more."""

    leaves: bool = False
    """Tell the peers that this start of the node never comes back."""


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
    """A session with this node is open; messages for it go there."""

    peer: str
    creation: int
    conn: int


class PeerDown(Struct, frozen=True):
    """The session has ended, and with it whatever was under way."""

    peer: str
    creation: int
    conn: int
    reason: str


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


class RaiseCreation(Struct, frozen=True):
    """This node's creation was older than its last one (its clock was set back): it starts anew under this one."""

    creation: int


class Log(Struct, frozen=True):
    """A log line. `level` as in the logging module."""

    level: int
    text: str


class Count(Struct, frozen=True):
    """Add to a counter that users can read."""

    counter: str
    by: int = 1


Input = (
    Proved | Opened | DialFailed | Closed | Received | Heard | StallHeard | Drained | Turn | TimePassed | ProcessExited
    | Register | Abandon | Unregister | Transfer | JoinGroup | LeaveGroup | Join | Forget | KeysChanged | Shutdown
)  # fmt: skip
NameChange = NameAdded | NameRemoved
MemberChange = MemberAdded | MemberRemoved
Effect = (
    Send | WantDrain | WantTurn | Dial | Admit | Refuse | Close | Succeed | Fail | TellLoss
    | PeerUp | PeerDown | PeerStalled | PeerResumed | ReportStalls
    | NameAdded | NameRemoved | MemberAdded | MemberRemoved | RaiseCreation | Log | Count
)  # fmt: skip
