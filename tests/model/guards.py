"""The rules that can be left out, each with a network whose schedules show what breaks."""

from typing import NamedTuple


class Guard(NamedTuple):
    network: str
    rule: str


GUARDS = {
    # Claims and their conflicts
    "alone": Guard("strangers", "a peer acknowledges a claim only while it knows no other live claim of that name"),
    "contest": Guard("strangers", "who sees two claims tells the loser's origin"),
    "again": Guard("apart", "a contest is repeated with each heartbeat"),
    "confirm": Guard("strangers", "a confirmed claim outranks one that is not, whatever their stamps"),
    "viewed": Guard("strangers", "of two unconfirmed claims, lookups prefer the one that was acknowledged here"),
    "rank": Guard("strangers", "a contested origin yields only to a claim of higher rank, as far as it knows its own"),
    "direct": Guard("flaps", "third nodes are not believed about a claim whose origin has told us more since"),
    "patience": Guard("deaths", "a winner that may be dead is believed in only after its contest went on for a while"),
    "each": Guard("deaths", "that while begins anew with each claim of ours"),
    "met": Guard("deaths", "an unconfirmed winner counts at once only if its node was never met"),
    "mirror": Guard("calm", "losing claims are mirrored too"),
    "newcomer": Guard("faults", "a claim waits for peers that come meanwhile as well"),
    "returns": Guard("apart", "a peer whose session is replaced is not counted out in between"),
    "timeout": Guard("calm", "a register that ends at its deadline withdraws its claim"),
    "exit": Guard("calm", "the exit of a process ends its memberships"),
    # Names that move to another node
    "heir": Guard("moves", "an heir is acknowledged although the claim that it succeeds is known"),
    "shadow": Guard("moves", "before it is confirmed, an heir and the claim it succeeds do not contest each other"),
    "senior": Guard("moves", "an heir is a moment older than the claim that it succeeds"),
    "last": Guard("torn", "the node that gives a name up acknowledges the heir after all others"),
    "word": Guard("moves", "a node that has let go of a name keeps silent until it knows what has become of the heir"),
    "orphan": Guard("torn", "an heir is withdrawn if the claim that it succeeds goes before it is confirmed"),
    # Telling a ledger
    "moment": Guard("flaps", "a chunk tells facts as they are when it is produced"),
    "overtaking": Guard("flaps", "an entry never overtakes a chunk or the rest of the log"),
    "creation": Guard("faults", "only a mirror of the same creation is resumed"),
    "whole": Guard("faults", "only a complete mirror is kept for resumption"),
    "trimmed": Guard("flaps", "a log that no longer reaches back means a fresh sync, also in the midst of a resume"),
    "begun": Guard("flaps", "withdrawals from before the sync count as acknowledged when it begins"),
    # Hearing it
    "pinned": Guard("flaps", "a mirror that was offered is kept until the sync begins"),
    "staged": Guard("flaps", "a resumed mirror shows nothing before it has come to where the session began"),
    "visible": Guard("flaps", "a claim that is not in the views is not acknowledged"),
    "hidden": Guard("flaps", "a withdrawal is acknowledged at once even if the mirror is still staged"),
    "through": Guard("flaps", "after a sync that began anew, its end mark acknowledges the withdrawals up to there"),
    "afresh": Guard("flaps", "after a resume, unconfirmed claims are acknowledged afresh"),
    "refused": Guard("flaps", "lookups refuse a lost peer's names at once"),
    "sweep": Guard("flaps", "a peer that is back is staged until what was there before has left"),
    "order": Guard("flaps", "an entry or a chunk about a key that has yet to enter the views lets it enter first"),
    "staged resync": Guard("strangers", "a resync in the session is built aside"),
    "doubt": Guard("flaps", "a mirror known to be wrong is neither compared nor kept"),
    "digest": Guard("corruption", "heartbeats carry a digest of the ledger"),
    "compared": Guard("calm", "a digest is compared only by a complete mirror at its position"),
}
ALL = frozenset(GUARDS)
