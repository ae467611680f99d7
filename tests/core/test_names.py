"""The name table: what each rule is for, that order does not matter, and that its indexes never disagree.

We are ada. The peers are authors of their own ledgers and nothing else.
"""

import time
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kinfolk.core.changes import (
    Accepted,
    Acknowledge,
    AcknowledgeThrough,
    Claimed,
    Confirmed,
    Contest,
    Lost,
    NameAdded,
    NameRemoved,
    Settled,
    Synced,
    Withdrawn,
)
from kinfolk.core.ledger import Claim, Ledger
from kinfolk.core.mirror import Mirror
from kinfolk.core.names import Names
from kinfolk.errors import RemoteProtocolError
from kinfolk.ids import Pid

ADA, BOB, CARL, DAVE = "ada@h:1", "bob@h:2", "carl@h:3", "dave@h:4"
CREATION = 7
PATIENCE, LAPSE = 6.0, 2.5


@pytest.fixture
def kind() -> type[Names]:
    return Names


def table(kind: type[Names] = Names) -> Names:
    return kind(ADA, CREATION, patience=PATIENCE, lapse=LAPSE)


def own_pid(local: int = 1) -> Pid:
    return Pid(ADA, CREATION, local)


class Peer:
    """Another node: the author of one ledger."""

    def __init__(self, name: str, creation: int = 1) -> None:
        self.name, self.creation, self.position = name, creation, 0
        self.claims: dict[str, Claim] = {}
        self.confirmed: set[str] = set()

    def claim(self, name: str, stamp: int, local: int = 1) -> Claim:
        self.position += 1
        self.claims[name] = Claim(name, Pid(self.name, self.creation, local), self.position, stamp)
        return self.claims[name]

    def confirm(self, name: str) -> tuple[int, str, int]:
        self.position += 1
        self.confirmed.add(name)
        return self.position, name, self.claims[name].position

    def withdraw(self, *names: str) -> tuple[int, list[str], list[int]]:
        self.position += 1
        self.confirmed -= set(names)
        return self.position, list(names), [self.claims.pop(name).position for name in names]

    def live(self) -> list[tuple[Claim, bool]]:
        return [(claim, name in self.confirmed) for name, claim in self.claims.items()]


def confirmed_in(mirror: Mirror) -> set[str]:
    """The names whose claim is confirmed, as a mirror has it."""
    return {name for name, claim in mirror.claims.items() if mirror.is_confirmed(claim)}


def is_pending(names: Names, name: str) -> bool:
    return name in names.own and not names.own[name].confirmed


def connect(names: Names, *peers: Peer) -> list[Any]:
    """A session with each peer opens, and its whole ledger is synced."""
    changes = []
    for peer in peers:
        names.peer_up(peer.name)
        names.sync_begins(peer.name, peer.creation, peer.position)
        changes += names.sync_part(peer.name, peer.live(), 0)
        changes += names.sync_done(peer.name)
    return [change for change in changes if not isinstance(change, Synced)]


def lose(names: Names, peer: str, creation: int = 1) -> list[Any]:
    """The session with the peer ends."""
    return names.peer_down(peer, creation)


def claims(names: Names, peer: Peer, name: str, stamp: int, *, confirmed: bool = False) -> list[Any]:
    """The peer claims a name, and we hear of it."""
    changes = names.peer_claimed(peer.name, peer.claim(name, stamp), 0)
    return changes + names.peer_confirmed(peer.name, *peer.confirm(name)) if confirmed else changes


def only(kind: type[Any], changes: Iterable[object]) -> list[Any]:
    return [change for change in changes if isinstance(change, kind)]


def claim(names: Names, name: str = "db", *, local: int = 1) -> Claim:
    """We claim a name that nobody has."""
    names.claim(name, own_pid(local), "exit", 0)
    return names.own[name].claim


def claim_at(names: Names, stamp: int, name: str = "db") -> Claim:
    """We claim a name with exactly this stamp."""
    names.clock.observe(stamp - 1, 2**40)
    made = claim(names, name)
    assert made.stamp == stamp
    return made


def contest_every_second(
    names: Names, ours: Claim, winner: Claim, seconds: Iterable[float], sure: bool = True
) -> float | None:
    """Repeat a contest by a winner, confirmed unless we say otherwise; the second in which we yielded."""
    for second in seconds:
        if only(Lost, names.contested("db", ours.position, winner, sure, float(second))):
            return second
    return None


def yields_after(names: Names, ours: Claim, winner: Claim) -> float | None:
    """The second in which we yielded to a winner that is not confirmed; None if we never would."""
    return contest_every_second(names, ours, winner, range(50), sure=False)


# --- claim, confirm, withdraw ---


def test_a_claim_without_peers_is_confirmed_at_once():
    names = table()
    changes = names.claim("db", own_pid(), "exit", 0)
    made = names.own["db"].claim
    assert changes == [Claimed(made), NameAdded("db", own_pid()), Confirmed(2, made)]
    assert names.view == {"db": own_pid()}
    assert not is_pending(names, "db")


def test_whether_a_name_is_confirmed_is_said_of_its_holder():
    names, bob = table(), Peer(BOB)
    connect(names, bob)
    claims(names, bob, "theirs", 1)
    made = claim(names, "ours")
    assert not any(names.is_confirmed(name) for name in ("ours", "theirs", "nobody's"))
    names.peer_acknowledged(BOB, [made.position])
    names.peer_confirmed(BOB, *bob.confirm("theirs"))
    assert names.is_confirmed("ours") and names.is_confirmed("theirs")


def test_a_claim_holds_here_at_once_and_is_confirmed_when_every_peer_has_acknowledged_it():
    names = table()
    connect(names, Peer(BOB), Peer(CARL))
    made = claim(names)
    assert names.view == {"db": own_pid()} and is_pending(names, "db")
    assert names.peer_acknowledged(BOB, [made.position]) == []
    assert names.peer_acknowledged(CARL, [made.position]) == [Confirmed(2, made)]
    assert names.own["db"].confirmed and not is_pending(names, "db")


def test_a_claim_is_confirmed_when_the_last_peer_that_was_missing_is_lost():
    names = table()
    connect(names, Peer(BOB), Peer(CARL))
    made = claim(names)
    names.peer_acknowledged(BOB, [made.position])
    assert lose(names, CARL) == [Confirmed(2, made)]


def test_a_claim_also_waits_for_peers_that_come_up_meanwhile():
    names = table()
    connect(names, Peer(BOB))
    made = claim(names)
    connect(names, Peer(CARL))
    assert names.peer_acknowledged(BOB, [made.position]) == []
    assert names.peer_acknowledged(CARL, [made.position]) == [Confirmed(2, made)]


def test_a_peer_that_comes_back_must_acknowledge_afresh():
    names = table()
    connect(names, Peer(BOB), Peer(CARL))
    made = claim(names)
    names.peer_acknowledged(BOB, [made.position])
    lose(names, BOB)
    connect(names, Peer(BOB))
    assert names.peer_acknowledged(CARL, [made.position]) == []
    assert names.peer_acknowledged(BOB, [made.position]) == [Confirmed(2, made)]


def test_nothing_is_confirmed_between_two_sessions_of_which_one_replaces_the_other():
    names = table()
    connect(names, Peer(BOB))
    made = claim(names)
    assert names.peer_down(BOB, 1, returns=True) == []
    connect(names, Peer(BOB))
    assert names.peer_acknowledged(BOB, [made.position]) == [Confirmed(2, made)]


def test_a_withdrawal_does_not_wait_for_a_session_that_replaces_another():
    names = table()
    connect(names, Peer(BOB))
    claim(names)
    [withdrawn] = only(Withdrawn, names.withdraw(["db"]))
    names.ledger.await_withdrawal(withdrawn.position)
    assert names.peer_down(BOB, 1, returns=True) == [Accepted(withdrawn.position)]


def test_what_was_withdrawn_before_a_peer_is_told_of_our_ledger_does_not_wait_for_it():
    names = table()
    claim(names)
    pending = claim(names, "other")
    names.peer_up(BOB)
    [withdrawn] = only(Withdrawn, names.withdraw(["db"]))
    assert not names.ledger.await_withdrawal(withdrawn.position)
    late = claim(names, "late")
    assert names.told_from_here(BOB) == [Accepted(withdrawn.position)]
    assert names.ledger.missing(late.position) == (BOB,), "a claim does wait"
    assert names.own["other"].claim == pending


def test_nothing_is_confirmed_while_a_join_is_in_progress():
    names = table()
    names.hold()
    made = claim(names)
    assert is_pending(names, "db") and names.view["db"] == own_pid()
    connect(names, Peer(BOB))
    assert names.peer_acknowledged(BOB, [made.position]) == []
    assert names.ledger.missing(made.position) == ()
    assert names.release() == [Confirmed(2, made)]


def test_a_claim_that_is_under_way_when_a_join_begins_waits_for_it_as_well():
    names = table()
    connect(names, Peer(BOB))
    made = claim(names)
    names.hold()
    assert names.peer_acknowledged(BOB, [made.position]) == []
    assert names.release() == [Confirmed(2, made)]


def test_the_end_of_a_join_confirms_nothing_that_a_peer_has_yet_to_acknowledge():
    names = table()
    names.hold()
    connect(names, Peer(BOB))
    made = claim(names)
    assert names.release() == []
    assert names.peer_acknowledged(BOB, [made.position]) == [Confirmed(2, made)]


def test_a_withdrawal_names_the_claim_it_ends():
    names = table()
    connect(names, Peer(BOB))
    made = claim(names)
    assert names.withdraw(["db"]) == [NameRemoved("db", own_pid()), Withdrawn(2, (made,))]
    assert names.own == {} and names.view == {} and not is_pending(names, "db")
    assert names.peer_acknowledged(BOB, [made.position]) == [], "an acknowledgement that comes late confirms nothing"


def test_the_exit_of_a_process_withdraws_all_its_names_in_one_entry():
    names = table()
    first, other, second = claim(names, "b"), claim(names, "other", local=2), claim(names, "a")
    changes = names.process_exited(1)
    assert set(only(NameRemoved, changes)) == {NameRemoved("a", own_pid()), NameRemoved("b", own_pid())}
    [withdrawn] = only(Withdrawn, changes)
    assert set(withdrawn.claims) == {first, second}
    assert names.view == {"other": other.pid}
    assert names.process_exited(1) == [] and names.process_exited(99) == []


def test_withdrawing_nothing_makes_no_entry():
    names = table()
    assert names.withdraw([]) == []
    assert names.ledger.position == 0


def test_a_withdrawal_that_somebody_waits_for_is_accepted_when_every_peer_has_acknowledged_it():
    names = table()
    connect(names, Peer(BOB), Peer(CARL))
    claim(names)
    [withdrawn] = only(Withdrawn, names.withdraw(["db"]))
    assert not names.ledger.await_withdrawal(withdrawn.position)
    assert names.peer_acknowledged(BOB, [withdrawn.position]) == []
    assert lose(names, CARL) == [Accepted(withdrawn.position)]
    assert names.peer_acknowledged(BOB, [withdrawn.position]) == []


def test_a_name_claimed_again_is_another_claim():
    names = table()
    connect(names, Peer(BOB))
    first = claim(names)
    names.withdraw(["db"])
    second = claim(names)
    assert second.position > first.position and second.stamp > first.stamp
    assert names.peer_acknowledged(BOB, [first.position]) == []
    assert is_pending(names, "db")
    assert only(Confirmed, names.peer_acknowledged(BOB, [second.position])) == [Confirmed(4, second)]


def test_one_process_may_have_several_names():
    names = table()
    claim(names, "a")
    claim(names, "b")
    names.withdraw(["a"])
    assert names.view == {"b": own_pid()}
    assert only(Withdrawn, names.process_exited(1)) != []


def test_an_entry_that_was_never_made_cannot_be_acknowledged():
    names = table()
    connect(names, Peer(BOB))
    with pytest.raises(RemoteProtocolError, match="acknowledges ledger entry 1"):
        names.peer_acknowledged(BOB, [1])


# --- what peers tell ---


def test_a_peers_claim_is_seen_and_acknowledged():
    names, bob = table(), Peer(BOB)
    connect(names, bob)
    changes = claims(names, bob, "db", 10)
    assert changes == [NameAdded("db", bob.claims["db"].pid), Acknowledge(BOB, 1)]


def test_a_claim_moves_our_clock_past_it():
    names, bob = table(), Peer(BOB)
    connect(names, bob)
    claims(names, bob, "other", 500)
    assert claim(names, "db").stamp == 501


def test_a_synced_claim_is_acknowledged_unless_it_is_confirmed():
    names, bob = table(), Peer(BOB)
    bob.claim("a", 1)
    bob.claim("b", 2)
    bob.confirm("a")
    changes = connect(names, bob)
    assert only(Acknowledge, changes) == [Acknowledge(BOB, 2)]
    assert set(names.view) == {"a", "b"}


def test_a_withdrawal_removes_exactly_the_claim_it_names():
    names, bob = table(), Peer(BOB)
    connect(names, bob)
    claims(names, bob, "a", 1)
    claims(names, bob, "b", 2)
    before = dict(names.view)
    with pytest.raises(RemoteProtocolError, match="withdraws the name 'a' as claimed at 2, which it does not hold"):
        names.peer_withdrew(BOB, 3, ["a"], [2])
    assert names.view == before
    bob.position += 1
    pid = names.view["a"]
    assert names.peer_withdrew(BOB, *bob.withdraw("a")) == [NameRemoved("a", pid), Acknowledge(BOB, 4)]
    assert list(names.view) == ["b"]


def test_a_withdrawal_is_acknowledged_at_once_even_of_a_disputed_name():
    names, bob, carl = table(), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "db", 1)
    claims(names, carl, "db", 2)
    changes = names.peer_withdrew(CARL, *carl.withdraw("db"))
    assert only(Acknowledge, changes) == [Acknowledge(CARL, 2)]


@pytest.mark.parametrize("skipped", [0, 2])
def test_an_entry_that_is_not_the_next_one_breaks_the_protocol_and_changes_nothing(skipped):
    names, bob = table(), Peer(BOB)
    connect(names, bob)
    claims(names, bob, "db", 1)
    before = dict(names.view)
    bob.position = skipped
    with pytest.raises(RemoteProtocolError, match=f"ledger entry {skipped + 1} follows entry 1"):
        names.peer_claimed(BOB, bob.claim("other", 2), 0)
    with pytest.raises(RemoteProtocolError, match="follows entry 1"):
        names.peer_withdrew(BOB, skipped + 1, ["db"], [1])
    with pytest.raises(RemoteProtocolError, match="follows entry 1"):
        names.peer_confirmed(BOB, skipped + 1, "db", 1)
    assert names.view == before


def test_a_peer_cannot_claim_a_name_twice():
    names, bob = table(), Peer(BOB)
    connect(names, bob)
    claims(names, bob, "db", 1)
    with pytest.raises(RemoteProtocolError, match="claims the name 'db' twice"):
        names.peer_claimed(BOB, bob.claim("db", 2), 0)


@pytest.mark.parametrize(("name", "at"), [("db", 2), ("other", 1)])
def test_a_peer_cannot_confirm_what_it_does_not_hold(name, at):
    names, bob = table(), Peer(BOB)
    connect(names, bob)
    claims(names, bob, "db", 1)
    with pytest.raises(RemoteProtocolError, match="which it does not hold"):
        names.peer_confirmed(BOB, 2, name, at)


def test_a_peer_that_has_not_begun_its_sync_cannot_tell_of_its_ledger():
    names = table()
    names.peer_up(BOB)
    with pytest.raises(RemoteProtocolError, match="before it has begun to sync"):
        names.peer_claimed(BOB, Peer(BOB).claim("db", 1), 0)


def test_a_lost_peer_takes_its_names_with_it_and_nobody_elses():
    names, bob, carl = table(), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "a", 1)
    claims(names, bob, "b", 2)
    claims(names, carl, "c", 3)
    changes = lose(names, BOB)
    assert set(changes) == {NameRemoved("a", bob.claims["a"].pid), NameRemoved("b", bob.claims["b"].pid)}
    assert list(names.view) == ["c"]
    assert lose(names, BOB) == [], "a second loss changes nothing"


def test_a_peer_lost_before_its_sync_had_begun_leaves_nothing_behind():
    names = table()
    names.peer_up(BOB)
    assert lose(names, BOB) == []


# --- the sync: in parts, with changes between them ---


def test_changes_between_the_parts_of_a_sync_and_the_parts_tell_one_story():
    names, bob = table(), Peer(BOB)
    for stamp, name in enumerate("abcd"):
        bob.claim(name, stamp)
    names.peer_up(BOB)
    names.sync_begins(BOB, 1, bob.position)
    names.sync_part(BOB, [(bob.claims["a"], False)], 0)
    gone = bob.claims["b"]
    names.peer_withdrew(BOB, *bob.withdraw("b"))  # before the sync came to it
    names.peer_withdrew(BOB, *bob.withdraw("a"))  # after
    claims(names, bob, "b", 9)  # again, as a change; the part will bring it as well
    names.peer_confirmed(BOB, *bob.confirm("c"))  # before the sync came to it
    changes = names.sync_part(BOB, [(bob.claims["b"], False), (bob.claims["c"], True), (bob.claims["d"], False)], 0)
    assert names.view == {name: claim.pid for name, claim in bob.claims.items()} and "a" not in names.view
    assert names.mirrors[BOB].claims == bob.claims and bob.claims["b"] != gone
    assert confirmed_in(names.mirrors[BOB]) == {"c"}
    assert only(Acknowledge, changes) == [Acknowledge(BOB, bob.claims["d"].position)]
    names.sync_done(BOB)
    with pytest.raises(RemoteProtocolError):
        names.peer_withdrew(BOB, bob.position + 1, ["a"], [1])


def test_a_sync_that_contradicts_itself_breaks_the_protocol():
    names, bob = table(), Peer(BOB)
    first = bob.claim("db", 1)
    names.peer_up(BOB)
    names.sync_begins(BOB, 1, 5)
    names.sync_part(BOB, [(first, False)], 0)
    with pytest.raises(RemoteProtocolError, match="syncs 'db', claimed at 2 and at 1"):
        names.sync_part(BOB, [(bob.claim("db", 1), False)], 0)


def test_what_a_broken_operation_has_changed_is_told_with_the_next_changes():
    names, bob = table(), Peer(BOB)
    names.peer_up(BOB)
    names.sync_begins(BOB, 1, 5)
    good, twice = bob.claim("good", 1), bob.claim("twice", 2)
    names.sync_part(BOB, [(twice, False)], 0)
    with pytest.raises(RemoteProtocolError):
        names.sync_part(BOB, [(good, False), (bob.claim("twice", 3), False)], 0)
    changes = lose(names, BOB)
    assert folded({"twice": twice.pid}, changes) == names.view == {}
    assert Acknowledge(BOB, good.position) not in changes, "the session is over: nobody is there to hear it"


# --- the rules: each test takes the kind of table, so that one with the rule removed can be shown to fail ---


def test_a_claim_is_acknowledged_only_while_it_is_alone(kind):
    names, bob, carl = table(kind), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    assert only(Acknowledge, claims(names, bob, "db", 20)) == [Acknowledge(BOB, 1)]
    assert only(Acknowledge, claims(names, carl, "db", 10)) == []
    assert only(Acknowledge, claims(names, carl, "other", 11)) == [Acknowledge(CARL, 2)], "no other is held back"
    changes = names.peer_withdrew(BOB, *bob.withdraw("db"))
    assert only(Acknowledge, changes) == [Acknowledge(CARL, 1), Acknowledge(BOB, 2)]
    assert only(Acknowledge, names.contest_again()) == []


def test_a_peers_claim_is_not_acknowledged_beside_our_own(kind):
    names, bob = table(kind), Peer(BOB)
    connect(names, bob)
    claim_at(names, 10)
    assert only(Acknowledge, claims(names, bob, "db", 20)) == []
    assert only(Acknowledge, names.withdraw(["db"])) == [Acknowledge(BOB, 1)]


def test_who_sees_two_claims_tells_the_losers_origin_and_again_while_both_live(kind):
    names, bob, carl = table(kind), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "db", 20)
    told = only(Contest, claims(names, carl, "db", 10))
    assert told == [Contest(BOB, bob.claims["db"], carl.claims["db"], False)]
    assert names.contest_again() == told
    names.peer_confirmed(CARL, *carl.confirm("db"))
    assert names.contest_again() == [Contest(BOB, bob.claims["db"], carl.claims["db"], True)]
    names.peer_withdrew(BOB, *bob.withdraw("db"))
    assert names.contest_again() == []


def test_our_own_claim_is_defended_by_contest(kind):
    names, bob = table(kind), Peer(BOB)
    connect(names, bob)
    ours = claim_at(names, 10)
    assert only(Contest, claims(names, bob, "db", 20)) == [Contest(BOB, bob.claims["db"], ours, False)]


def test_who_stands_against_our_claim_is_told_at_once_that_it_is_confirmed(kind):
    names, bob = table(kind), Peer(BOB)
    connect(names, bob)
    ours = claim_at(names, 10)
    claims(names, bob, "db", 20)
    told = only(Contest, names.peer_acknowledged(BOB, [ours.position]))
    assert told == [Contest(BOB, bob.claims["db"], ours, True)]


def test_a_claim_held_back_and_confirmed_meanwhile_needs_no_acknowledgement(kind):
    names, bob, carl = table(kind), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "db", 10)
    claims(names, carl, "db", 20, confirmed=True)
    changes = names.peer_withdrew(BOB, *bob.withdraw("db"))
    assert only(Acknowledge, changes) == [Acknowledge(BOB, 2)]


def test_two_that_are_left_when_a_third_goes_are_judged_again(kind):
    names, bob, carl, dave = table(kind), Peer(BOB), Peer(CARL), Peer(DAVE)
    connect(names, bob, carl, dave)
    claims(names, bob, "db", 10)
    claims(names, carl, "db", 20)
    claims(names, dave, "db", 30)
    told = only(Contest, lose(names, BOB))
    assert told == [Contest(DAVE, dave.claims["db"], carl.claims["db"], False)]


def test_a_confirmed_claim_outranks_an_older_one_that_is_not(kind):
    names, bob, carl = table(kind), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "db", 20, confirmed=True)
    told = only(Contest, claims(names, carl, "db", 10))
    assert told == [Contest(CARL, carl.claims["db"], bob.claims["db"], True)]


def test_our_confirmed_claim_does_not_yield_to_an_older_one_that_is_not(kind):
    names, bob = table(kind), Peer(BOB)
    ours = claim_at(names, 20)
    bob.claim("db", 10)
    changes = connect(names, bob)
    assert only(Lost, changes) == []
    assert only(Contest, changes) == [Contest(BOB, bob.claims["db"], ours, True)]


def test_an_unconfirmed_claim_of_ours_yields_to_an_older_one(kind):
    names, bob = table(kind), Peer(BOB)
    connect(names, bob)
    ours = claim_at(names, 20)
    own = names.own["db"]
    changes = claims(names, bob, "db", 10)
    theirs = bob.claims["db"]
    assert changes == [
        Lost(own, theirs),
        NameRemoved("db", ours.pid),
        NameAdded("db", theirs.pid),
        Withdrawn(2, (ours,), cause="yielded"),
        Acknowledge(BOB, theirs.position),
    ]
    assert not own.confirmed


def test_of_two_confirmed_claims_the_younger_yields(kind):
    names, bob = table(kind), Peer(BOB)
    claim_at(names, 20)
    bob.claim("db", 10)
    bob.confirm("db")
    [lost] = only(Lost, connect(names, bob))
    assert lost.own.confirmed and lost.winner == bob.claims["db"]

    other, carl = table(kind), Peer(CARL)
    ours = claim_at(other, 20)
    carl.claim("db", 30)
    carl.confirm("db")
    changes = connect(other, carl)
    assert only(Lost, changes) == [] and other.view["db"] == ours.pid


def test_our_claim_is_judged_again_when_the_other_is_confirmed(kind):
    names, bob = table(kind), Peer(BOB)
    connect(names, bob)
    claim_at(names, 10)
    claims(names, bob, "db", 20)
    assert only(Lost, names.peer_confirmed(BOB, *bob.confirm("db")))


def test_a_contested_claim_yields_only_to_one_of_higher_rank(kind):
    stranger = Peer(DAVE)
    younger, older = stranger.claim("db", 30), Peer(DAVE).claim("db", 10)

    pending = table(kind)
    connect(pending, Peer(BOB))
    ours = claim_at(pending, 20)
    assert pending.contested("db", ours.position, younger, False, 0.0) == []
    assert "db" in pending.own

    confirmed = table(kind)
    ours = claim_at(confirmed, 20)
    connect(confirmed, Peer(BOB))
    assert confirmed.contested("db", ours.position, older, False, 0.0) == [], "confirmed after the contest was sent"
    for second in range(20):
        assert confirmed.contested("db", ours.position, younger, True, float(second)) == []
    assert "db" in confirmed.own


def test_a_contest_about_a_claim_that_is_gone_changes_nothing():
    names, winner = table(), Peer(DAVE).claim("db", 1)
    connect(names, Peer(BOB))
    assert names.contested("db", 1, winner, False, 0.0) == []
    first = claim_at(names, 20)
    names.withdraw(["db"])
    claim(names)
    assert names.contested("db", first.position, winner, False, 0.0) == []
    assert "db" in names.own


def test_an_unconfirmed_winner_that_we_do_not_see_counts_at_once():
    names, bob = table(), Peer(BOB)
    connect(names, bob)
    ours, winner = claim_at(names, 20), Peer(DAVE).claim("db", 10)
    own = names.own["db"]
    assert names.contested("db", ours.position, winner, False, 0.0) == [
        Lost(own, winner),
        NameRemoved("db", ours.pid),
        Withdrawn(2, (ours,), cause="yielded"),
    ]


def test_yielding_to_a_claim_unseen_here_acknowledges_what_was_held_back():
    names, bob = table(), Peer(BOB)
    connect(names, bob)
    ours, winner = claim_at(names, 20), Peer(DAVE).claim("db", 10)
    claims(names, bob, "db", 30)
    changes = names.contested("db", ours.position, winner, False, 0.0)
    assert changes[-1] == Acknowledge(BOB, 1)
    assert names.view["db"] == bob.claims["db"].pid


def test_a_third_nodes_word_counts_nothing_about_a_claim_whose_origin_has_told_us_more(kind):
    names, carl = table(kind), Peer(CARL)
    connect(names, Peer(BOB), carl)
    claims(names, carl, "db", 10)
    gone = carl.claims["db"]
    names.peer_withdrew(CARL, *carl.withdraw("db"))
    ours = claim_at(names, 20)
    assert yields_after(names, ours, gone) is None


def test_nor_about_a_claim_of_an_older_start_of_a_node(kind):
    names, old = table(kind), Peer(CARL, creation=1)
    dead = old.claim("db", 10)
    connect(names, Peer(BOB), Peer(CARL, creation=2))
    ours = claim_at(names, 20)
    assert yields_after(names, ours, dead) is None


def test_nor_about_one_of_this_very_node(kind):
    names = table(kind)
    connect(names, Peer(BOB))
    ours = claim_at(names, 20)
    before = Claim("db", Pid(ADA, CREATION - 1, 1), 1, 10)
    assert yields_after(names, ours, before) is None


def test_but_it_does_count_about_what_its_origin_has_not_told_us_yet():
    def contested(carl, winner):
        names = table()
        connect(names, Peer(BOB), carl)
        return yields_after(names, claim_at(names, 20), winner)

    under_way, restarted = Claim("db", Pid(CARL, 1, 1), 1, 10), Claim("db", Pid(CARL, 2, 1), 1, 10)
    assert contested(Peer(CARL), under_way) is not None, "its next entry, which is under way"
    assert contested(Peer(CARL), restarted) is not None, "of a later start, which we have yet to meet"


def test_losing_claims_are_mirrored_as_well(kind):
    names, bob, carl = table(kind), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "db", 10)
    claims(names, carl, "db", 20)
    changes = lose(names, BOB)
    assert only(NameAdded, changes) == [NameAdded("db", carl.claims["db"].pid)]
    assert only(Acknowledge, changes) == [Acknowledge(CARL, 1)]


def rumoured(kind) -> tuple[Names, Claim, Claim]:
    names = table(kind)
    connect(names, Peer(BOB))
    return names, claim_at(names, 20), Peer(DAVE).claim("db", 10)


def test_a_confirmed_winner_that_we_do_not_see_must_be_repeated_for_as_long_as_it_may_be_dead(kind):
    assert contest_every_second(*rumoured(kind), range(50)) == PATIENCE


def test_nor_does_an_unconfirmed_winner_count_at_once_when_its_node_was_lost_here(kind):
    def contested(creation):
        names = table(kind)
        connect(names, Peer(BOB), Peer(DAVE))
        lose(names, DAVE)
        return yields_after(names, claim_at(names, 20), Peer(DAVE, creation).claim("db", 10))

    assert contested(creation=1) == PATIENCE
    assert contested(creation=2) == 0, "a later start of it is surely alive"


def test_such_a_contest_lapses_when_it_is_not_repeated(kind):
    names, ours, winner = rumoured(kind)
    assert contest_every_second(names, ours, winner, [0, 1, 2, 3, 4, 5]) is None
    assert contest_every_second(names, ours, winner, [8, 9, 10, 11, 12, 13]) is None, "2.5 s of silence in between"
    assert contest_every_second(names, ours, winner, [14]) == 14


def test_a_break_no_longer_than_the_lapse_is_none(kind):
    assert contest_every_second(*rumoured(kind), [0, 2.5, 5, 7.5]) == 7.5


def test_contests_of_two_winners_are_counted_apart(kind):
    names, ours, dave = rumoured(kind)
    erin = Peer("erin@h:5").claim("db", 11)
    for second in range(6):
        assert contest_every_second(names, ours, dave if second < 3 else erin, [second]) is None
    assert contest_every_second(names, ours, erin, [6, 7, 8]) is None
    assert contest_every_second(names, ours, erin, [9]) == 9


def test_what_was_said_against_an_earlier_claim_of_ours_does_not_count(kind):
    names, ours, winner = rumoured(kind)
    assert contest_every_second(names, ours, winner, range(7)) == PATIENCE
    again = claim_at(names, 50)
    assert contest_every_second(names, again, winner, range(8, 13)) is None, "its node may have died meanwhile"


def test_contests_that_lapsed_are_not_kept():
    names, ours, _ = rumoured(Names)
    for second in range(0, 300, 3):
        winner = Claim("db", Pid(DAVE, 1, 1), second + 1, 10)
        names.contested("db", ours.position, winner, True, float(second))
    assert len(names._rumours) == 1


def test_each_of_many_contests_costs_the_same():
    names = table()
    ours = claim(names)
    began = time.process_time()
    for number in range(20_000):
        contest_every_second(names, ours, Claim("db", Pid(BOB, 1, 1), number, 0), [number / 1000])
    assert time.process_time() - began < 4, "it grows with their number"
    assert len(names._rumours) <= LAPSE * 1000 + 1


def test_who_we_see_goes_before_who_we_have_not_acknowledged(kind):
    names, bob, carl = table(kind), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "db", 20)
    claims(names, carl, "db", 10)
    assert names.view["db"] == bob.claims["db"].pid, "acknowledged here, though the other is older"
    changes = names.peer_confirmed(CARL, *carl.confirm("db"))
    assert only(NameRemoved, changes) + only(NameAdded, changes) == [
        NameRemoved("db", bob.claims["db"].pid),
        NameAdded("db", carl.claims["db"].pid),
    ], "confirmed goes before acknowledged"


def test_of_those_not_acknowledged_the_older_is_seen(kind):
    names, bob, carl, dave = table(kind), Peer(BOB), Peer(CARL), Peer(DAVE)
    connect(names, bob, carl, dave)
    claims(names, bob, "db", 10)
    claims(names, carl, "db", 30)
    claims(names, dave, "db", 20)
    names.peer_withdrew(BOB, *bob.withdraw("db"))
    assert names.view["db"] == dave.claims["db"].pid


def without(**methods):
    return type("Without" + "".join(methods), (Names,), methods)


MUTANTS = [
    (without(_may_acknowledge=lambda self, claim: True), test_a_claim_is_acknowledged_only_while_it_is_alone),
    (without(_may_acknowledge=lambda self, claim: True), test_a_peers_claim_is_not_acknowledged_beside_our_own),
    (
        without(_contests=lambda self, loser: False),
        test_who_sees_two_claims_tells_the_losers_origin_and_again_while_both_live,
    ),
    (without(_contests=lambda self, loser: False), test_our_own_claim_is_defended_by_contest),
    (
        without(_confirm=lambda self, position: None),
        test_who_stands_against_our_claim_is_told_at_once_that_it_is_confirmed,
    ),
    (without(_contests=lambda self, loser: False), test_two_that_are_left_when_a_third_goes_are_judged_again),
    (without(_rank=lambda self, claim: claim.order), test_a_confirmed_claim_outranks_an_older_one_that_is_not),
    (
        without(_rank=lambda self, claim: claim.order),
        test_our_confirmed_claim_does_not_yield_to_an_older_one_that_is_not,
    ),
    (
        without(_rank=lambda self, claim: not self._is_confirmed(claim)),
        test_an_unconfirmed_claim_of_ours_yields_to_an_older_one,
    ),
    (without(_outranks=lambda *_: True), test_a_contested_claim_yields_only_to_one_of_higher_rank),
    (
        without(_outranks=lambda self, winner, confirmed, own: confirmed or not own.confirmed),
        test_a_contested_claim_yields_only_to_one_of_higher_rank,
    ),
    (
        without(_outranks=lambda self, winner, confirmed, own: winner.order < own.claim.order),
        test_a_contested_claim_yields_only_to_one_of_higher_rank,
    ),
    (
        without(_told_more=lambda self, winner: False),
        test_a_third_nodes_word_counts_nothing_about_a_claim_whose_origin_has_told_us_more,
    ),
    (without(_told_more=lambda self, winner: False), test_nor_about_a_claim_of_an_older_start_of_a_node),
    (without(_told_more=lambda self, winner: False), test_nor_about_one_of_this_very_node),
    (without(_keeps=lambda self, claim: claim.name not in self.view), test_losing_claims_are_mirrored_as_well),
    (
        without(_believed=lambda self, own, winner, now: True),
        test_a_confirmed_winner_that_we_do_not_see_must_be_repeated_for_as_long_as_it_may_be_dead,
    ),
    (
        without(_believed=lambda self, own, winner, now: False),
        test_a_confirmed_winner_that_we_do_not_see_must_be_repeated_for_as_long_as_it_may_be_dead,
    ),
    (
        without(_races=lambda self, winner, confirmed: True),
        test_a_confirmed_winner_that_we_do_not_see_must_be_repeated_for_as_long_as_it_may_be_dead,
    ),
    (
        without(_races=lambda self, winner, confirmed: not confirmed),
        test_nor_does_an_unconfirmed_winner_count_at_once_when_its_node_was_lost_here,
    ),
    (
        without(_races=lambda self, winner, confirmed: False),
        test_nor_does_an_unconfirmed_winner_count_at_once_when_its_node_was_lost_here,
    ),
    (
        without(__init__=lambda self, *args, **_: Names.__init__(self, *args, patience=PATIENCE, lapse=1e9)),
        test_such_a_contest_lapses_when_it_is_not_repeated,
    ),
    (
        without(__init__=lambda self, *args, **_: Names.__init__(self, *args, patience=PATIENCE, lapse=2.4)),
        test_a_break_no_longer_than_the_lapse_is_none,
    ),
    (without(_view_order=Names._rank), test_who_we_see_goes_before_who_we_have_not_acknowledged),
]


@pytest.mark.parametrize(("mutant", "test"), MUTANTS, ids=[f"{m.__name__}-{i}" for i, (m, _) in enumerate(MUTANTS)])
def test_without_the_rule_its_test_fails(mutant, test):
    test(Names)
    with pytest.raises((AssertionError, ValueError, KeyError)):
        test(mutant)


# --- laws: the order in which peers are heard does not matter ---


def folded(view: dict[str, Pid], changes) -> dict[str, Pid]:
    """The view after these changes, each of which must fit the one before."""
    view = dict(view)
    for change in changes:
        if isinstance(change, NameAdded):
            assert change.name not in view, f"{change} while {view[change.name]} is there"
            view[change.name] = change.pid
        elif isinstance(change, NameRemoved):
            assert view.pop(change.name) == change.pid, f"{change} while another is there"
    return view


LAST_STAMP = 2**63 - 1
wild_stamps = st.integers(0, 12) | st.integers(LAST_STAMP // 3 - 12, LAST_STAMP // 3 - 1)
wild_walls = st.sampled_from([-(2**62), -1, 0, 1, 10**12, 2**47 - 1, 2**47, 2**62])
entries = st.lists(
    st.tuples(st.sampled_from("xyz"), st.sampled_from(["claim", "confirm", "withdraw"]), wild_stamps), max_size=8
)


def written(peer: Peer, plan, wall: int = 0) -> list[Any]:
    """A ledger of the peer's, as the calls by which its entries are heard at this time of ours."""
    heard = []
    for name, what, stamp in plan:
        if what == "claim" and name not in peer.claims:
            made = peer.claim(name, stamp * 3 + ord(peer.name[0]) % 3)
            heard.append(lambda names, made=made: names.peer_claimed(peer.name, made, wall))
        elif what == "confirm" and name in peer.claims and name not in peer.confirmed:
            entry = peer.confirm(name)
            heard.append(lambda names, entry=entry: names.peer_confirmed(peer.name, *entry))
        elif what == "withdraw" and name in peer.claims:
            gone = peer.withdraw(name)
            heard.append(lambda names, gone=gone: names.peer_withdrew(peer.name, *gone))
    return heard


def known(names: Names) -> dict[str, list[Any]]:
    """Everything that is known of each name, the holder by rank first: this must not depend on who was heard when."""
    return {
        name: sorted((not names._is_confirmed(claim), claim.order, claim) for claim in names.claims(name))
        for name in names.view
    }


def heard_in_turns(names: Names, ledgers: dict[str, list[Any]], turns) -> list[Any]:
    changes, queues = [], {peer: list(ledger) for peer, ledger in ledgers.items()}
    for peer in turns:
        changes += queues[peer].pop(0)(names)
    return changes


@given(st.data())
@settings(max_examples=200)
def test_the_same_claims_in_another_order_end_in_the_same_table(data):
    peers = [Peer(BOB), Peer(CARL), Peer(DAVE)]
    ledgers = {peer.name: written(peer, data.draw(entries)) for peer in peers}
    turns = [peer for peer, ledger in ledgers.items() for _ in ledger]
    tables = []
    for order in (turns, data.draw(st.permutations(turns))):
        names = table()
        connect(names, *(Peer(peer.name) for peer in peers))
        changes = heard_in_turns(names, ledgers, order)
        assert folded({}, changes) == names.view
        tables.append(names)
    one, other = tables
    assert known(one) == known(other)
    settled = {name for name, rank in known(one).items() if len(rank) == 1 or not rank[0][0]}
    assert {n: one.view[n] for n in settled} == {n: other.view[n] for n in settled}, "confirmed or alone: seen alike"


@given(st.data())
@settings(max_examples=200)
def test_no_time_of_ours_changes_what_we_know_of_others(data):
    plans = {name: data.draw(entries) for name in (BOB, CARL)}
    tables = []
    for wall in (0, data.draw(wild_walls)):
        names, peers = table(), [Peer(name) for name in plans]
        ledgers = {peer.name: written(peer, plans[peer.name], wall) for peer in peers}
        connect(names, *(Peer(peer.name) for peer in peers))
        heard_in_turns(names, ledgers, [peer for peer, ledger in ledgers.items() for _ in ledger])
        tables.append(names)
    one, other = tables
    assert known(one) == known(other) and one.view == other.view


@given(wild_walls, st.integers(0, LAST_STAMP), st.booleans())
def test_a_claim_wins_or_loses_by_its_stamp_and_is_kept_whatever_that_is(wall, stamp, sure):
    names, bob, carl = table(), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, carl, "db", 1000)
    made = bob.claim("db", stamp)
    names.peer_claimed(BOB, made, wall)
    if sure:
        names.peer_confirmed(BOB, *bob.confirm("db"))
    winner = BOB if sure or stamp < 1000 or (stamp == 1000 and BOB < CARL) else CARL
    assert min(names.claims("db"), key=names._rank).pid.node == winner
    assert made in names.claims("db")
    names.peer_withdrew(CARL, *carl.withdraw("db"))
    assert names.view == {"db": made.pid}


@given(st.lists(st.integers(0, LAST_STAMP) | st.just(LAST_STAMP), max_size=10), st.lists(wild_walls, min_size=1))
def test_stamps_of_the_far_future_leave_ours_what_the_wall_clock_makes_them(heard, walls):
    names, bob = table(), Peer(BOB)
    connect(names, bob)
    for number, stamp in enumerate(heard):
        names.peer_claimed(BOB, bob.claim(f"bob/{number}", stamp), 10**12)
    names.claim("ours", own_pid(), "exit", 10**12)
    assert names.own["ours"].claim.stamp >> 16 <= 10**12 + 60_001
    for number, wall in enumerate(walls):
        names.claim(f"ours/{number}", own_pid(), "exit", wall)
        assert names.own[f"ours/{number}"].claim.stamp <= LAST_STAMP
    assert len(names.own) == len(walls) + 1


@given(st.data())
@settings(max_examples=200)
def test_a_sync_ends_where_hearing_every_entry_ends(data):
    bob, carl = Peer(BOB), Peer(CARL)
    bobs, carls = written(bob, data.draw(entries)), written(carl, data.draw(entries))
    heard, synced = table(), table()
    connect(heard, Peer(BOB), Peer(CARL))
    heard_in_turns(heard, {BOB: bobs, CARL: carls}, [BOB] * len(bobs) + [CARL] * len(carls))
    changes = connect(synced, bob, carl)
    assert folded({}, changes) == synced.view
    assert known(heard) == known(synced)
    assert {p: m.claims for p, m in heard.mirrors.items()} == {p: m.claims for p, m in synced.mirrors.items()}
    assert {p: m.position for p, m in heard.mirrors.items()} == {p: m.position for p, m in synced.mirrors.items()}


@given(st.data())
@settings(max_examples=200)
def test_the_same_claim_twice_counts_once(data):
    bob = Peer(BOB)
    plan = data.draw(entries)
    written(bob, plan)
    once, twice = table(), table()
    connect(once, bob)
    twice.peer_up(BOB)
    twice.sync_begins(BOB, bob.creation, bob.position)
    twice.sync_part(BOB, bob.live(), 0)
    assert twice.sync_part(BOB, bob.live(), 0) == []
    twice.sync_done(BOB)
    assert known(once) == known(twice) and once.view == twice.view


@given(st.permutations([(BOB, 10, False), (CARL, 20, True), (DAVE, 30, False), (ADA, 25, False)]))
def test_the_winner_of_a_race_does_not_depend_on_who_is_heard_when(order):
    names, peers = table(), {name: Peer(name) for name in (BOB, CARL, DAVE)}
    connect(names, *peers.values())
    for node, stamp, sure in order:
        if node != ADA:
            claims(names, peers[node], "db", stamp, confirmed=sure)
        elif "db" not in names.view:
            claim_at(names, stamp)
    assert "db" not in names.own
    assert names.view["db"].node == CARL
    for loser in (BOB, DAVE):
        names.peer_withdrew(loser, *peers[loser].withdraw("db"))
    assert names.rivals == {} and names.view == {"db": peers[CARL].claims["db"].pid}


# --- any sequence of events: the indexes agree, and every promise is kept ---


class AnyEvents(RuleBasedStateMachine):
    """Random but lawful events. `view`, `rivals` and the rest are compared with what own claims and mirrors say."""

    NAMES = st.sampled_from("pq")
    PEERS = st.sampled_from([BOB, CARL, DAVE])

    @initialize()
    def start(self):
        self.names = table()
        self.peers = {name: Peer(name) for name in (BOB, CARL, DAVE)}
        self.up: dict[str, list[str]] = {}  # connected peers, with the names that their sync has yet to bring
        self.seen: dict[str, Pid] = {}
        self.entries = 0
        self.missing: dict[int, set[str]] = {}  # by position of each pending claim of ours
        self.acknowledged: set[tuple[str, int, int]] = set()
        self.joining = False
        self.now = 0.0
        self.stamp = 100
        connect(self.names, *self.peers.values())
        self.up = {name: [] for name in self.peers}
        self.syncing: set[str] = set()

    def take(self, changes, *, silent: str = ""):
        self.seen = folded(self.seen, changes)
        for change in changes:
            match change:
                case Claimed(made):
                    self.entries += 1
                    assert made.position == self.entries
                    self.missing[made.position] = set(self.up) | ({Ledger.JOINING} if self.joining else set())
                case Withdrawn(position, gone):
                    self.entries += 1
                    assert position == self.entries and gone
                    for made in gone:
                        self.missing.pop(made.position, None)
                case Confirmed(position, made):
                    self.entries += 1
                    assert position == self.entries
                    assert self.missing.pop(made.position) == set(), "confirmed before all have acknowledged"
                case Lost(own, winner):
                    assert winner.name == own.claim.name and winner.pid.node != ADA
                case Acknowledge(peer, position):
                    assert peer in self.up and peer != silent
                    key = (peer, self.peers[peer].creation, position)
                    assert key not in self.acknowledged, "twice"
                    self.acknowledged.add(key)
                case Contest(peer, loser, winner, sure):
                    assert peer in self.up and loser.pid.node == peer != winner.pid.node
                    assert loser.name == winner.name
                    assert (not sure, winner.order) < (loser.name not in self.peers[peer].confirmed, loser.order)
                case AcknowledgeThrough(peer, position):
                    assert peer in self.up and position == self.peers[peer].position
                case Settled(name):
                    assert any(name in peer.confirmed for peer in self.peers.values())
                case _:
                    assert isinstance(change, NameAdded | NameRemoved | Accepted | Synced)

    # our own side

    @rule(name=NAMES, local=st.integers(1, 2), wall=st.integers(0, 3))
    def claim(self, name, local, wall):
        if name not in self.names.view:
            self.take(self.names.claim(name, own_pid(local), "exit", wall))
            assert name not in self.names.own or self.names.own[name].claim.pid == own_pid(local)

    @precondition(lambda self: self.names.own)
    @rule(name=NAMES)
    def withdraw(self, name):
        if name in self.names.own:
            self.take(self.names.withdraw([name]))

    @precondition(lambda self: self.names.own)
    @rule(local=st.integers(1, 2))
    def exit(self, local):
        self.take(self.names.process_exited(local))
        assert all(own.claim.pid.local != local for own in self.names.own.values())

    @rule()
    def hold(self):
        self.names.hold()
        self.joining = True
        for missing in self.missing.values():
            missing.add(Ledger.JOINING)

    @rule()
    def release(self):
        self.joining = False
        for missing in self.missing.values():
            missing.discard(Ledger.JOINING)
        self.take(self.names.release())

    # sessions

    @precondition(lambda self: len(self.up) < 3)
    @rule(data=st.data(), restarted=st.booleans())
    def connect(self, data, restarted):
        name = data.draw(st.sampled_from([name for name in self.peers if name not in self.up]))
        if restarted:
            self.peers[name] = Peer(name, self.peers[name].creation + 1)
        peer = self.peers[name]
        self.acknowledged = {key for key in self.acknowledged if key[0] != name}
        self.up[name] = list(peer.claims)
        for missing in self.missing.values():
            missing.add(name)
        self.names.peer_up(name)
        self.names.sync_begins(name, peer.creation, peer.position)
        self.syncing.add(name)

    @precondition(lambda self: self.syncing)
    @rule(data=st.data(), most=st.integers(1, 3))
    def sync(self, data, most):
        name = data.draw(st.sampled_from(sorted(self.syncing)))
        peer, unsent = self.peers[name], self.up[name]
        part = [unsent.pop() for _ in range(min(most, len(unsent)))]
        live = [(peer.claims[n], n in peer.confirmed) for n in part if n in peer.claims]
        self.take(self.names.sync_part(name, live, 0))
        if not unsent:
            self.take(self.names.sync_done(name))
            self.syncing.discard(name)

    @precondition(lambda self: self.up)
    @rule(data=st.data())
    def lose(self, data):
        name = data.draw(st.sampled_from(sorted(self.up)))
        for missing in self.missing.values():
            missing.discard(name)
        del self.up[name]
        self.syncing.discard(name)
        self.take(self.names.peer_down(name, self.peers[name].creation), silent=name)

    @precondition(lambda self: self.up)
    @rule(data=st.data())
    def replace(self, data):
        """A new session takes the place of one, in one step."""
        name = data.draw(st.sampled_from(sorted(self.up)))
        peer = self.peers[name]
        self.up[name] = list(peer.claims)
        for missing in self.missing.values():
            missing.add(name)
        self.acknowledged = {key for key in self.acknowledged if key[0] != name}
        self.take(self.names.peer_down(name, peer.creation, returns=True), silent=name)
        self.names.peer_up(name)
        self.names.sync_begins(name, peer.creation, peer.position)
        self.syncing.add(name)

    # the peers' side; whether we hear of it depends on the session

    @rule(peer=PEERS, name=NAMES)
    def peer_claims_and_confirms(self, peer, name):
        self.peer_claims(peer, name, older=False)
        self.peer_confirms(peer, name)

    @rule(peer=PEERS, name=NAMES, older=st.booleans())
    def peer_claims(self, peer, name, older):
        author = self.peers[peer]
        if name not in author.claims:
            self.stamp += 1
            made = author.claim(name, self.stamp if not older else 200 - self.stamp)
            if peer in self.up:
                self.take(self.names.peer_claimed(peer, made, 0))

    @rule(peer=PEERS, name=NAMES)
    def peer_confirms(self, peer, name):
        author = self.peers[peer]
        if name in author.claims and name not in author.confirmed:
            entry = author.confirm(name)
            if peer in self.up:
                self.take(self.names.peer_confirmed(peer, *entry))

    @rule(peer=PEERS, gone=st.sets(NAMES, min_size=1))
    def peer_withdraws(self, peer, gone):
        author = self.peers[peer]
        gone &= set(author.claims)
        if gone:
            entry = author.withdraw(*sorted(gone))
            if peer in self.up:
                self.take(self.names.peer_withdrew(peer, *entry))

    @precondition(lambda self: self.up and self.missing)
    @rule(data=st.data())
    def acknowledge(self, data):
        peer = data.draw(st.sampled_from(sorted(self.up)))
        positions = data.draw(st.lists(st.integers(1, self.names.ledger.position), max_size=3))
        for position in positions:
            self.missing.get(position, set()).discard(peer)
        self.take(self.names.peer_acknowledged(peer, positions))

    @precondition(lambda self: self.names.own)
    @rule(name=NAMES, stamp=st.integers(1, 300), sure=st.booleans(), later=st.floats(0, 3), data=st.data())
    def contest(self, name, stamp, sure, later, data):
        self.now += later
        own = self.names.own.get(name)
        if own is not None:
            node = data.draw(st.sampled_from([BOB, CARL, "erin@h:5"]))
            winner = Claim(name, Pid(node, 1, 1), data.draw(st.integers(1, 10)), stamp)
            self.take(self.names.contested(name, own.claim.position, winner, sure, self.now))

    @rule()
    def heartbeat(self):
        before = dict(self.seen)
        self.take(self.names.contest_again())
        assert self.seen == before

    # what must hold after each of them

    @invariant()
    def the_view_is_the_fold_of_its_changes(self):
        assert self.names.view == self.seen

    @invariant()
    def the_indexes_agree_with_own_claims_and_mirrors(self):
        names = self.names
        found: dict[str, list[Claim]] = {}
        for known in ({n: own.claim for n, own in names.own.items()}, *(m.claims for m in names.mirrors.values())):
            for name, made in known.items():
                assert made.name == name
                found.setdefault(name, []).append(made)
        assert set(names.mirrors) == set(self.up)
        assert {n: sorted(c, key=lambda x: x.order) for n, c in names.rivals.items()} == {
            n: sorted(c, key=lambda x: x.order) for n, c in found.items() if len(c) > 1
        }
        assert names.view == {n: min(c, key=names._view_order).pid for n, c in found.items()}
        assert names._changes == [], "every change has been given to the caller"

    @invariant()
    def own_claims_are_known_by_position_and_process(self):
        names = self.names
        pending = {own.claim.position: name for name, own in names.own.items() if not own.confirmed}
        assert names._pending == pending
        assert set(names.ledger._claims) == set(pending) == set(self.missing)
        by_process: dict[int, set[str]] = {}
        for name, own in names.own.items():
            by_process.setdefault(own.claim.pid.local, set()).add(name)
        assert {local: set(facts) for local, facts in names._by_process.items()} == by_process
        assert names.ledger.position == self.entries

    @invariant()
    def a_claim_waits_exactly_for_those_who_have_not_acknowledged_it(self):
        assert all(self.missing.values()), "confirmed as soon as nobody is missing"
        for position, missing in self.missing.items():
            assert set(self.names.ledger.missing(position)) == missing - {Ledger.JOINING}

    @invariant()
    def no_claim_of_ours_stands_against_one_of_higher_rank(self):
        for name in self.names.rivals.keys() & self.names.own.keys():
            first = min(self.names.claims(name), key=self.names._rank)
            assert first == self.names.own[name].claim

    @invariant()
    def mirrors_hold_what_their_authors_said(self):
        for name, unsent in self.up.items():
            peer, mirror = self.peers[name], self.names.mirrors[name]
            assert mirror.position == peer.position and mirror.creation == peer.creation
            assert {n: c for n, c in mirror.claims.items() if n not in unsent} == {
                n: c for n, c in peer.claims.items() if n not in unsent
            }
            assert confirmed_in(mirror) == peer.confirmed & set(mirror.claims)

    @invariant()
    def an_acknowledgement_is_held_back_only_while_a_name_is_disputed(self):
        for name, mirror in self.names.mirrors.items():
            assert mirror.held <= set(self.names.rivals) & set(mirror.claims)
            for held in mirror.held:
                assert (name, mirror.creation, mirror.claims[held].position) not in self.acknowledged
            for told in set(mirror.claims) - mirror.held - confirmed_in(mirror):
                assert (name, mirror.creation, mirror.claims[told].position) in self.acknowledged


AnyEvents.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None, derandomize=True)
test_any_sequence_of_events_keeps_the_table_consistent = AnyEvents.TestCase
