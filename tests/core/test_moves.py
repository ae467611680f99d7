"""Names that move: in one entry within a node, by an heir to another. We are ada: the old node, the new, or a peer."""

import pytest

from kinfolk.core.changes import (
    Acknowledge,
    Claimed,
    Confirmed,
    Contest,
    HandedOver,
    Lost,
    Moved,
    NameAdded,
    NameRemoved,
    Withdrawn,
)
from kinfolk.core.ledger import Claim
from kinfolk.core.names import Names
from kinfolk.errors import RemoteProtocolError
from kinfolk.ids import Pid
from tests.core.test_names import (
    BOB,
    CARL,
    PATIENCE,
    Peer,
    claim,
    claim_at,
    claims,
    connect,
    contest_every_second,
    lose,
    only,
    own_pid,
    table,
)

DAVE = "dave@h:4"


@pytest.fixture
def kind() -> type[Names]:
    return Names


def inherits(peer: Peer, old: Claim) -> Claim:
    """The peer claims a name as the heir of another claim."""
    heir = peer.claim(old.name, old.stamp - 1)
    peer.claims[old.name] = heir = Claim(heir.name, heir.pid, heir.position, heir.stamp, old.identity)
    return heir


def held(kind: type[Names], *peers: Peer) -> tuple[Names, Claim]:
    """We hold the name, confirmed by these peers."""
    names = table(kind)
    connect(names, *peers)
    made = claim(names)
    for peer in peers:
        names.peer_acknowledged(peer.name, [made.position])
    assert names.own["db"].confirmed
    return names, made


# --- as a peer ---


def test_an_heir_is_acknowledged_beside_the_claim_that_it_succeeds_and_neither_is_contested(kind):
    names, bob, carl = table(kind), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "db", 20, confirmed=True)
    heir = inherits(carl, bob.claims["db"])
    changes = names.peer_claimed(CARL, heir, 0)
    assert changes == [Acknowledge(CARL, heir.position)]
    assert names.view["db"] == bob.claims["db"].pid and names.moving("db") == heir.pid
    assert names.contest_again() == []


def test_once_it_is_confirmed_the_heir_is_seen_and_the_old_claim_is_told(kind):
    names, bob, carl = table(kind), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "db", 20, confirmed=True)
    old, heir = bob.claims["db"], inherits(carl, bob.claims["db"])
    names.peer_claimed(CARL, heir, 0)
    changes = names.peer_confirmed(CARL, *carl.confirm("db"))
    assert only(NameRemoved, changes) + only(NameAdded, changes) == [
        NameRemoved("db", old.pid),
        NameAdded("db", heir.pid),
    ]
    assert only(Contest, changes) == [Contest(BOB, old, heir, True)], "bob may have lost carl"
    assert names.moving("db") is None
    assert not only(NameRemoved, names.peer_withdrew(BOB, *bob.withdraw("db")))
    assert names.view["db"] == heir.pid


def test_the_old_claim_may_be_seen_to_go_before_the_heir_is_confirmed(kind):
    names, bob, carl = table(kind), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "db", 20, confirmed=True)
    heir = inherits(carl, bob.claims["db"])
    names.peer_claimed(CARL, heir, 0)
    changes = names.peer_withdrew(BOB, *bob.withdraw("db"))
    assert only(NameAdded, changes) == [NameAdded("db", heir.pid)], "at no moment it is free"


def test_an_heir_is_not_acknowledged_while_a_third_claim_is_known(kind):
    names, bob, carl, dave = table(kind), Peer(BOB), Peer(CARL), Peer(DAVE)
    connect(names, bob, carl, dave)
    claims(names, bob, "db", 20, confirmed=True)
    claims(names, dave, "db", 30)
    heir = inherits(carl, bob.claims["db"])
    assert not only(Acknowledge, names.peer_claimed(CARL, heir, 0))
    assert Acknowledge(CARL, heir.position) in names.peer_withdrew(DAVE, *dave.withdraw("db"))


def test_of_another_heir_than_its_own_a_claim_is_no_predecessor(kind):
    names, bob, carl, dave = table(kind), Peer(BOB), Peer(CARL), Peer(DAVE)
    connect(names, bob, carl, dave)
    claims(names, bob, "db", 20, confirmed=True)
    names.peer_claimed(CARL, inherits(carl, bob.claims["db"]), 0)
    assert not only(Acknowledge, names.peer_claimed(DAVE, inherits(dave, bob.claims["db"]), 0))


def test_a_move_within_a_node_is_seen_at_once_and_keeps_what_the_claim_is(kind):
    names, bob = table(kind), Peer(BOB)
    connect(names, bob)
    claims(names, bob, "db", 20, confirmed=True)
    old = bob.claims["db"]
    bob.position += 1
    changes = names.peer_moved(BOB, bob.position, "db", old.position, 5)
    new = Pid(BOB, 1, 5)
    assert changes == [NameRemoved("db", old.pid), NameAdded("db", new), Acknowledge(BOB, bob.position)]
    mirror = names.mirrors[BOB]
    assert mirror.claims["db"] == Claim("db", new, bob.position, 20) and mirror.is_confirmed(mirror.claims["db"])
    assert mirror.adds_up
    with pytest.raises(RemoteProtocolError, match="moves the name 'db' as claimed at 1"):
        names.peer_moved(BOB, bob.position + 1, "db", old.position, 6)


# --- as the old node ---


def test_we_acknowledge_the_heir_of_our_claim_only_once_we_let_it_go(kind):
    bob, carl = Peer(BOB), Peer(CARL)
    names, old = held(kind, bob, carl)
    heir = inherits(bob, old)
    names.expect("db", heir.pid)
    assert names.peer_claimed(BOB, heir, 0) == []
    assert names.contest_again() == []
    assert names.let_go("db") == [Acknowledge(BOB, heir.position)]


def test_our_claim_goes_to_its_confirmed_heir_without_a_loss(kind):
    bob, carl = Peer(BOB), Peer(CARL)
    names, old = held(kind, bob, carl)
    heir = inherits(bob, old)
    names.expect("db", heir.pid)
    names.peer_claimed(BOB, heir, 0)
    names.let_go("db")
    changes = names.peer_confirmed(BOB, *bob.confirm("db"))
    assert [each.heir.pid for each in only(HandedOver, changes)] == [heir.pid] and not only(Lost, changes)
    assert [each.claims for each in only(Withdrawn, changes)] == [(old,)]
    assert only(NameRemoved, changes) + only(NameAdded, changes) == [
        NameRemoved("db", old.pid),
        NameAdded("db", heir.pid),
    ]
    assert "db" not in names.own and names.view["db"] == heir.pid


def test_a_claim_that_was_not_given_up_is_lost_to_its_heir_like_to_any_older_claim(kind):
    bob = Peer(BOB)
    names, old = held(kind, bob)
    names.peer_claimed(BOB, inherits(bob, old), 0)
    changes = names.peer_confirmed(BOB, *bob.confirm("db"))
    assert only(Lost, changes) and not only(HandedOver, changes)


def test_the_word_of_a_third_node_about_the_heir_counts_at_once(kind):
    carl = Peer(CARL)
    names, old = held(kind, carl)
    heir = Claim("db", Pid(BOB, 1, 4), 9, old.stamp - 1)
    names.expect("db", heir.pid)
    assert only(HandedOver, names.contested("db", old.position, heir, True, 0.0))


def test_but_not_if_the_name_was_not_to_go_there(kind):
    carl = Peer(CARL)
    names, old = held(kind, carl)
    heir = Claim("db", Pid(BOB, 1, 4), 9, old.stamp - 1)
    names.expect("db", heir.pid)
    names.keep("db")
    assert contest_every_second(names, old, heir, range(20)) == PATIENCE


def test_a_move_of_ours_is_one_entry(kind):
    bob = Peer(BOB)
    names, old = held(kind, bob)
    digest = names.digest
    changes = names.move("db", own_pid(2))
    new = names.own["db"].claim
    assert changes == [Moved(new, old.position), NameRemoved("db", own_pid(1)), NameAdded("db", own_pid(2))]
    assert (new.position, new.stamp, names.own["db"].confirmed) == (old.position + 2, old.stamp, True)
    assert names.digest != digest
    assert not names.process_exited(1), "it has nothing left"
    assert [each.claims for each in only(Withdrawn, names.process_exited(2))] == [(new,)]


# --- as the new node ---


def test_our_heir_is_older_by_a_moment_and_waits_for_all(kind):
    names, bob, carl = table(kind), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "db", 20, confirmed=True)
    old = bob.claims["db"]
    changes = names.inherit("db", own_pid(), old.identity, "exit")
    heir = names.own["db"].claim
    assert changes == [Claimed(heir)] and heir.after == old.identity and heir.stamp < old.stamp
    assert names.view["db"] == old.pid and names.contest_again() == []
    assert names.peer_acknowledged(CARL, [heir.position]) == []
    assert names.ledger.waits_only_for(heir.position, BOB)
    changes = names.peer_acknowledged(BOB, [heir.position])
    assert only(Confirmed, changes) == [Confirmed(heir.position + 1, heir)]
    assert names.view["db"] == own_pid() and not only(Lost, changes)


@pytest.mark.parametrize("how", ["withdrawn", "lost", "replaced"])
def test_our_heir_goes_with_the_claim_that_it_succeeds(kind, how: str):
    names, bob, carl = table(kind), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "db", 20, confirmed=True)
    names.inherit("db", own_pid(), bob.claims["db"].identity, "exit")
    heir = names.own["db"].claim
    names.peer_acknowledged(CARL, [heir.position])
    if how == "withdrawn":
        changes = names.peer_withdrew(BOB, *bob.withdraw("db"))
    else:
        changes = names.peer_down(BOB, 1, returns=True) if how == "replaced" else lose(names, BOB)
    assert not only(Confirmed, changes) and [each.claims for each in only(Withdrawn, changes)] == [(heir,)]
    assert "db" not in names.view


def test_there_is_no_heir_to_a_claim_that_is_unconfirmed_disputed_or_another(kind):
    names, bob, carl = table(kind), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "db", 20)
    claims(names, bob, "other", 1, confirmed=True)
    old = bob.claims["db"]
    assert names.inherit("db", own_pid(), old.identity, "exit") is None, "unconfirmed"
    names.peer_confirmed(BOB, *bob.confirm("db"))
    assert names.inherit("db", own_pid(), (BOB, 1, 99), "exit") is None, "another"
    assert names.inherit("nobody", own_pid(), old.identity, "exit") is None
    claims(names, carl, "db", 30)
    assert names.inherit("db", own_pid(), old.identity, "exit") is None, "disputed"
    assert not names.own and names.ledger.position == 0


def test_an_heir_that_is_confirmed_stays_whatever_becomes_of_the_old_claim(kind):
    names, bob = table(kind), Peer(BOB)
    connect(names, bob)
    claims(names, bob, "db", 20, confirmed=True)
    names.inherit("db", own_pid(), bob.claims["db"].identity, "exit")
    names.peer_acknowledged(BOB, [names.own["db"].claim.position])
    assert not only(Withdrawn, lose(names, BOB)) and names.view["db"] == own_pid()


def test_a_claim_at_the_beginning_of_time_has_no_heir(kind):
    names, bob = table(kind), Peer(BOB)
    connect(names, bob)
    claims(names, bob, "db", 0, confirmed=True)
    assert names.inherit("db", own_pid(), bob.claims["db"].identity, "exit") is None
    assert claim_at(names, 5, "mine").after is None


def without(**methods):
    return type("Without" + "".join(methods), (Names,), methods)


MUTANTS = [
    (
        without(_may_acknowledge=lambda self, claim: claim.name not in self.rivals),
        test_an_heir_is_acknowledged_beside_the_claim_that_it_succeeds_and_neither_is_contested,
    ),
    (without(_may_acknowledge=lambda *_: True), test_an_heir_is_not_acknowledged_while_a_third_claim_is_known),
    (without(_may_acknowledge=lambda *_: True), test_of_another_heir_than_its_own_a_claim_is_no_predecessor),
    (
        without(_contestants=lambda self, claims: claims),
        test_an_heir_is_acknowledged_beside_the_claim_that_it_succeeds_and_neither_is_contested,
    ),
    (without(_contestants=lambda self, claims: claims), test_our_heir_is_older_by_a_moment_and_waits_for_all),
    (without(_seniority=lambda self, old: old.stamp), test_our_heir_is_older_by_a_moment_and_waits_for_all),
    (without(_lets_go=lambda *_: True), test_we_acknowledge_the_heir_of_our_claim_only_once_we_let_it_go),
    (without(_goes_to=lambda *_: False), test_our_claim_goes_to_its_confirmed_heir_without_a_loss),
    (without(_goes_to=lambda *_: False), test_the_word_of_a_third_node_about_the_heir_counts_at_once),
    (without(_goes_to=lambda *_: True), test_but_not_if_the_name_was_not_to_go_there),
    (
        without(_is_orphan=lambda *_: False),
        lambda kind: test_our_heir_goes_with_the_claim_that_it_succeeds(kind, "withdrawn"),
    ),
    (
        without(_is_orphan=lambda *_: False),
        lambda kind: test_our_heir_goes_with_the_claim_that_it_succeeds(kind, "lost"),
    ),
]


@pytest.mark.parametrize(("mutant", "test"), MUTANTS)
def test_without_the_rule_its_test_fails(mutant, test):
    test(Names)
    with pytest.raises((AssertionError, ValueError, KeyError)):
        test(mutant)
