"""Why a name is where it is: who claims it, who has it by which rule, and what has become of earlier claims.

Everything is as one node knows it. What other nodes know they tell themselves: of a claim that a peer has withdrawn,
only that peer knows why.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from msgspec import Struct

from kinfolk.core.history import Entry, History
from kinfolk.core.ledger import Claim
from kinfolk.core.names import Names
from kinfolk.ids import Pid

MAX_PAST = 100
"""Things that have happened, in one explanation: the last ones."""


class ClaimInfo(Struct, frozen=True):
    """A live claim of a name, as one node knows it.

    Attributes:
        pid: the process that the name is claimed for; its node has made the claim.
        position: of the claim, among all that this start of its node has told of itself.
        time, counter: its stamp, by which the earlier of two claims is told: seconds since 1970 on the clock of its
            node, and a number within the millisecond. With an authority there are none: None and 0.
        epoch: its fencing token, the revision at which the authority has written it; None on the mesh, and before.
        state: one of

            - ``confirmed``: all nodes that were connected to its node have acknowledged it;
            - ``waiting``: made by the asked node, and not confirmed yet; `missing` says for whom it waits;
            - ``acknowledged``: of a peer that has yet to confirm it, and acknowledged here;
            - ``held back``: of a peer, and not acknowledged here while another claim stands against it;
            - ``yielding``: another claim stands before it, so that its node gives it up when it hears of that;
            - ``moving``: the name is on its way from it to another node, to the process `goes_to`;
            - ``arriving``: told by its node, and not in the tables here yet;
            - ``dead``: its process or node is dead, and it is about to vanish;
            - ``leaving``: with an authority: given up by the asked node, and not known to be gone there yet.
        text: the same in words.
        acknowledged, missing: the peers that have acknowledged it and those that have not, if it is of the asked node
            and waits for them. For a claim of a peer: the asked node alone, in one of the two.
        goes_to: who is to have the name after it.
    """

    pid: Pid
    position: int
    time: float | None
    counter: int
    epoch: int | None
    state: str
    text: str
    acknowledged: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    goes_to: Pid | None = None


class PastEvent(Struct, frozen=True):
    """Something that has happened to a claim of a name, or to a peer that had one.

    Attributes:
        time: when, in seconds since 1970 on the clock of the asked node.
        what: a word or two that stay the same from version to version, as in ``exited`` or ``peer lost``.
        text: the same in words.
        pid: the process whose claim it happened to; None where it is a peer that came.
        other: the process that has the name instead.
    """

    time: float
    what: str
    text: str
    pid: Pid | None = None
    other: Pid | None = None


class Explanation(Struct, frozen=True):
    """Why a node sees a name where it sees it. `Node.explain` returns it; ``str()`` of it is for people.

    Attributes:
        name: that was asked for.
        node: that was asked.
        holder: the process that has the name there, as `whereis` says.
        rule: by which that is so, in a word or two that stay the same from version to version: ``only claim``,
            ``confirmed first``, ``acknowledged first``, ``earlier stamp``, ``node order``; or, if nobody has it,
            ``no claim``, ``dead process``, ``lost node``. ``authority``, if names are not decided by the mesh.
        because: the same in words.
        claims: all that are known, the one that has the name first.
        history: what has happened to this name there, the oldest first. It goes back as far as memory was set aside;
            with an authority nothing of it is remembered.
        staleness: seconds since all this was known to be what the authority has; 0.0 on the mesh.
    """

    name: str
    node: str
    holder: Pid | None
    rule: str
    because: str
    claims: tuple[ClaimInfo, ...]
    history: tuple[PastEvent, ...]
    staleness: float = 0.0

    def __str__(self) -> str:
        return "\n".join(lines(self.builtins()))

    def builtins(self) -> dict[str, Any]:
        """The same in dictionaries and lists; a pid is its text."""
        return cast("dict[str, Any]", _plain(self))


def lines(told: Mapping[str, Any]) -> list[str]:
    """An explanation, as `Explanation.builtins` gives it, in words."""
    name, node = told["name"], told["node"]
    who = f"is held by {told['holder']}" if told["holder"] else "is held by nobody"
    shown = [f"{name} {who}, as {node} sees it", f"  {told['rule']}: {told['because']}"]
    for claim in told["claims"]:
        shown.append(f"claim of {claim['pid']}: {claim['state']}")
        shown.append(f"  {claim['text']}")
        epoch = "" if claim["epoch"] is None else f", epoch {claim['epoch']}"
        stamp = "" if claim["time"] is None else f", stamp {_moment(claim['time'])} +{claim['counter']}"
        shown.append(f"  entry {claim['position']}{stamp}{epoch}")
        if claim["acknowledged"]:
            shown.append(f"  acknowledged by {', '.join(claim['acknowledged'])}")
        if claim["missing"]:
            shown.append(f"  not acknowledged by {', '.join(claim['missing'])}")
    shown.append("what has happened:" if told["history"] else f"nothing that happened to it is remembered by {node}")
    shown += [f"  {_moment(event['time'])}  {event['what']}: {event['text']}" for event in told["history"]]
    return shown


def _moment(seconds: float) -> str:
    """A time of day, with its date. What no calendar has, as stamps of a wild clock may be, is a number."""
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(" ", "milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.3f}"


def _plain(value: object) -> object:
    if isinstance(value, Pid):
        return str(value)
    if isinstance(value, Struct):
        return {field: _plain(getattr(value, field)) for field in value.__struct_fields__}
    return [*map(_plain, cast("tuple[object, ...]", value))] if isinstance(value, tuple) else value


def explain(names: Names, history: History, name: str) -> Explanation:
    """Why a name is where the tables of a node have it."""
    claims = names.in_view_order(name)
    arriving = [claim for claim in names.arriving(name) if claim not in claims]
    kept = [mirror.claims[name] for mirror in names.kept.values() if name in mirror.claims]
    rule, because = _rule(names, name, claims)
    past = history.of(name, [*claims, *arriving, *kept])
    return Explanation(
        name,
        names.node,
        names.whereis(name),
        rule,
        because,
        tuple([_info(names, claim) for claim in claims] + [_arriving(claim) for claim in arriving]),
        tuple(_past(history, names.node, entry) for entry in past[-MAX_PAST:]),
    )


def granted(pid: Pid, number: int, revision: int, state: str, text: str) -> ClaimInfo:
    """A claim that is for an outside authority to grant, written there at a revision, or 0."""
    return ClaimInfo(pid, number, None, 0, revision or None, state, text)


def decided(
    node: str, name: str, holder: Pid | None, because: str, claims: Sequence[ClaimInfo], staleness: float
) -> Explanation:
    """Why a name is where an outside authority has it: this node decides nothing, and remembers nothing."""
    return Explanation(name, node, holder, "authority", because, tuple(claims), (), staleness)


# --- who has it ---


def _rule(names: Names, name: str, claims: Sequence[Claim]) -> tuple[str, str]:
    """By which rule the first of these claims, in the order of the view, has the name or has it not."""
    shown = names.view.get(name)
    if shown is not None and names.is_refused(shown):
        if shown.node == names.node:
            return "dead process", f"{shown}, which had it, is dead"
        return "lost node", f"{shown}, which had it, is of a node that is lost"
    if not claims:
        return "no claim", "no live claim of it is known here"
    first = claims[0]
    if len(claims) == 1:
        return "only claim", "no other claim of it is known here"
    second = claims[1]
    if names.confirms(first) != names.confirms(second):
        return "confirmed first", f"its claim is confirmed, and that of {second.pid} is not"
    if names.acknowledges(first) != names.acknowledges(second):
        return "acknowledged first", f"this node has acknowledged its claim, and not that of {second.pid}"
    both = "confirmed" if names.confirms(first) else "not confirmed yet"
    if first.stamp != second.stamp:
        return "earlier stamp", f"its claim and that of {second.pid} are both {both}, and its own is the earlier"
    return "node order", f"its claim and that of {second.pid} are both {both} and of one moment: node names decide"


# --- the claims ---


def _info(names: Names, claim: Claim) -> ClaimInfo:
    state, text, acknowledged, missing, goes_to = _state(names, claim)
    return _claim(claim, state, text, acknowledged, missing, goes_to)


def _claim(
    claim: Claim,
    state: str,
    text: str,
    acknowledged: tuple[str, ...] = (),
    missing: tuple[str, ...] = (),
    goes_to: Pid | None = None,
) -> ClaimInfo:
    time, counter = (claim.stamp >> 16) / 1000, claim.stamp & 0xFFFF
    return ClaimInfo(claim.pid, claim.position, time, counter, None, state, text, acknowledged, missing, goes_to)


def _arriving(claim: Claim) -> ClaimInfo:
    return _claim(claim, "arriving", f"told by {claim.pid.node}, and not in the tables here yet")


def _state(names: Names, claim: Claim) -> tuple[str, str, tuple[str, ...], tuple[str, ...], Pid | None]:
    """The state of a claim that is in the views, in a word and in words; whose acknowledgements; where it goes."""
    acknowledged, missing = _acknowledgements(names, claim)
    heir = names.heir_of(claim)
    first = names.first(claim.name)
    state, text = _standing(names, claim, missing)
    if state == "confirmed" and heir is not None:
        state, text = "moving", f"confirmed, and on its way to {heir}"
    elif state in ("confirmed", "waiting", "acknowledged") and first is not None and names.yields(claim, first):
        state, text = "yielding", f"{text}; the claim of {first.pid} stands before it"
    if claim.after is not None and not names.confirms(claim) and state != "dead":
        text = f"{text}; it is to succeed the claim of {claim.after[0]} at {claim.after[2]}"
    return state, text, acknowledged, missing, heir


def _acknowledgements(names: Names, claim: Claim) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if claim.pid.node == names.node:
        missing = names.ledger.missing(claim.position)
        peers = names.ledger.peers - {names.ledger.JOINING}
        return () if names.confirms(claim) else tuple(sorted(peers.difference(missing))), missing
    return ((names.node,), ()) if names.acknowledges(claim) else ((), (names.node,))


def _standing(names: Names, claim: Claim, missing: Sequence[str]) -> tuple[str, str]:
    node = claim.pid.node
    if names.is_refused(claim.pid):
        return "dead", "its process is dead" if node == names.node else f"{node} is lost"
    if names.confirms(claim):
        return "confirmed", "confirmed by all whom its node was connected to"
    if node != names.node:
        if names.acknowledges(claim):
            return "acknowledged", f"acknowledged here, and not confirmed by {node} yet"
        return "held back", "not acknowledged here, since another claim is known"
    if missing:
        return "waiting", f"waits to be acknowledged by {' and '.join(missing)}"
    return "waiting", "waits until the join that is in progress is over"


# --- what has happened ---

_TEXTS = {
    "claimed": "claimed for {pid}",
    "confirmed": "the claim of {pid} was confirmed",
    "moved": "{node} gave it to its process {pid}",
    "withdrawn": "{node} withdrew the claim of {pid}{instead}: it can tell why",
    "unregistered": "{pid} lost it: it was unregistered",
    "exited": "{pid} lost it: the process exited{text}",
    "unconfirmed": "the claim of {pid} was withdrawn: {peers} did not acknowledge it in time",
    "abandoned": "the claim of {pid} was withdrawn: nobody waited for it any longer",
    "unwanted": "the claim of {pid} was withdrawn: the node that had asked for it wants it no longer",
    "orphaned": "the claim of {pid} was withdrawn: the claim that it was to succeed is gone",
    "revoked": "the claim of {pid} was withdrawn: the name is not to move there any more",
    "yielded": "the claim of {pid} was withdrawn before it was confirmed: that of {other} stood before it",
    "lost": "{pid} lost it to {other}, whose claim stood before it; it was told so by NameLost",
    "handed over": "it has moved from {pid} to {other}",
    "contested": "{node} was told that the claim of {pid} stands behind that of {other}",
    "challenged": "somebody told that the claim of {pid} stands behind that of {other}",
    "peer up": "{peers} came",
    "peer lost": "{peers} was lost, and {pid} with it{text}",
    "peer left": "{peers} left the cluster, and {pid} with it",
    "superseded": "{peers} was started anew, and {pid} is dead",
    "replaced": "the session with {peers}, which had told of {pid}, was replaced by a newer one",
}


def _past(history: History, node: str, entry: Entry) -> PastEvent:
    claim = entry.claims[0] if entry.claims else None
    text = entry.text
    if entry.what == "exited" and claim is not None:
        text = history.reason_of(claim.pid.local)
    words = _TEXTS[entry.what].format(
        pid=None if claim is None else claim.pid,
        node=node if claim is None else claim.pid.node,
        other=entry.other,
        instead="" if entry.other is None else f", before which that of {entry.other} stood",
        peers=" and ".join(entry.peers),
        text=text and f" ({text})",
    )
    return PastEvent(entry.at / 1000, entry.what, words, None if claim is None else claim.pid, entry.other)
