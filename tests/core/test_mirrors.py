"""Mirrors that are kept, go on, leave and enter the views in slices, and are found to be damaged.

We are ada, as in `test_names`. Slices are small here, so that one can look in between.
"""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinfolk.core.changes import (
    Acknowledge,
    AcknowledgeThrough,
    Confirmed,
    Contest,
    Diverged,
    MemberAdded,
    MemberRemoved,
    NameAdded,
    NameRemoved,
    Synced,
    Withdrawn,
)
from kinfolk.core.ledger import Claim
from kinfolk.core.mirror import Mirror
from kinfolk.core.names import Names
from kinfolk.errors import RemoteProtocolError
from kinfolk.ids import Pid
from tests.core.test_names import ADA, BOB, CARL, CREATION, Peer, claim, claims, connect, lose, only, own_pid


def table(*, step: int = 100, room: int = 1000) -> Names:
    return Names(ADA, CREATION, patience=6.0, lapse=2.5, step=step, room=room)


def author(*names: str, confirmed: bool = True) -> Peer:
    """Bob, with claims of these names."""
    bob = Peer(BOB)
    for stamp, name in enumerate(names):
        bob.claim(name, stamp, local=stamp)
        if confirmed:
            bob.confirm(name)
    return bob


def finish(names: Names) -> list[Any]:
    """All slices that are left."""
    changes: list[Any] = []
    while names.busy:
        changes += names.work()
    return changes


def audit(names: Names, facts: int) -> list[Any]:
    """All slices of an audit."""
    return names.audit(facts) + finish(names)


def resume(names: Names, bob: Peer, until: int | None = None) -> list[Any]:
    """A new session opens, and the peer goes on where our mirror ends."""
    names.peer_up(BOB)
    position = names.offer(BOB, bob.creation)
    assert position
    return names.resumed(BOB, position, bob.position if until is None else until)


def added(changes: Iterable[Any]) -> set[str]:
    return {change.name for change in only(NameAdded, changes)}


def removed(changes: Iterable[Any]) -> set[str]:
    return {change.name for change in only(NameRemoved, changes)}


# --- a peer comes back ---


def test_a_mirror_of_which_nothing_has_changed_is_simply_there_again():
    names, bob = table(), author("a", "b")
    connect(names, bob)
    lose(names, BOB)
    assert names.view == {}
    changes = resume(names, bob)
    assert added(changes) == {"a", "b"} and changes[-1] == Synced(BOB)
    assert names.mirrors[BOB].claims == bob.claims and names.mirrors[BOB].sound


def test_what_was_withdrawn_meanwhile_never_shows():
    names, bob = table(), author("gone", "stays")
    connect(names, bob)
    lose(names, BOB)
    entries = [bob.withdraw("gone")]
    changes = resume(names, bob)
    assert names.view == {} and added(changes) == set(), "nothing shows before all that is older has come"
    for entry in entries:
        changes = names.peer_withdrew(BOB, *entry)
    assert added(changes) == {"stays"} and set(names.view) == {"stays"}


def test_what_was_claimed_and_confirmed_meanwhile_comes_with_the_rest():
    names, bob = table(), author("old")
    connect(names, bob)
    lose(names, BOB)
    made, confirmation = bob.claim("new", 9, local=9), bob.confirm("new")
    resume(names, bob)
    assert names.peer_claimed(BOB, made, 0) == []
    changes = names.peer_confirmed(BOB, *confirmation)
    assert added(changes) == {"old", "new"} and only(Acknowledge, changes) == []


def test_after_a_resume_every_unconfirmed_claim_is_acknowledged_afresh():
    names, bob = table(), author("a", confirmed=False)
    assert only(Acknowledge, connect(names, bob)) == [Acknowledge(BOB, 1)]
    lose(names, BOB)
    assert only(Acknowledge, resume(names, bob)) == [Acknowledge(BOB, 1)]


def test_entries_that_come_after_the_rest_are_taken_in_as_ever():
    names, bob = table(), author("a")
    connect(names, bob)
    lose(names, BOB)
    resume(names, bob)
    changes = claims(names, bob, "b", 9)
    assert changes == [NameAdded("b", bob.claims["b"].pid), Acknowledge(BOB, bob.position)]


def test_a_mirror_that_was_never_complete_is_not_offered():
    names, bob = table(), author("a", "b")
    names.peer_up(BOB)
    names.sync_begins(BOB, bob.creation, bob.position)
    names.sync_part(BOB, bob.live()[:1], 0)
    lose(names, BOB)
    assert names.offer(BOB, bob.creation) == 0


def test_a_mirror_of_another_start_is_not_offered_and_gone():
    names, bob = table(), author("a")
    connect(names, bob)
    lose(names, BOB)
    assert names.offer(BOB, bob.creation + 1) == 0
    assert names.offer(BOB, bob.creation) == 0


def test_a_mirror_that_was_forgotten_is_not_offered():
    names, bob = table(), author("a")
    connect(names, bob)
    lose(names, BOB)
    names.forget(BOB)
    assert names.offer(BOB, bob.creation) == 0


def test_an_offered_mirror_is_not_forgotten_and_waits_for_the_next_session_if_this_one_ends():
    names, bob = table(), author("a")
    connect(names, bob)
    lose(names, BOB)
    names.peer_up(BOB)
    assert names.offer(BOB, bob.creation) == bob.position
    names.forget(BOB)
    lose(names, BOB)
    assert names.offer(BOB, bob.creation) == bob.position


def test_kept_mirrors_have_bounded_room_and_the_oldest_goes_first():
    names, bob, carl = table(room=3), author("a", "b"), Peer(CARL)
    for stamp, name in enumerate("cd"):
        carl.claim(name, stamp)
    connect(names, bob, carl)
    lose(names, BOB)
    assert set(names.kept) == {BOB}
    lose(names, CARL)
    assert set(names.kept) == {CARL}


@pytest.mark.parametrize(("position", "until"), [(1, 9), (3, 9), (2, 1)])
def test_nobody_can_go_on_from_elsewhere(position, until):
    names, bob = table(), author("a")
    connect(names, bob)
    lose(names, BOB)
    assert names.offer(BOB, bob.creation) == 2
    with pytest.raises(RemoteProtocolError, match="which was not offered"):
        names.resumed(BOB, position, until)


def test_nor_without_an_offer():
    names = table()
    with pytest.raises(RemoteProtocolError, match="which was not offered"):
        names.resumed(BOB, 0, 0)


def test_who_syncs_instead_of_going_on_makes_the_offer_void():
    names, bob = table(), author("a", "b")
    connect(names, bob)
    lose(names, BOB)
    assert names.offer(BOB, bob.creation)
    bob.withdraw("a")
    names.sync_begins(BOB, bob.creation, bob.position)
    changes = names.sync_part(BOB, bob.live(), 0)
    assert added(changes) == {"b"}
    with pytest.raises(RemoteProtocolError, match="which was not offered"):
        names.resumed(BOB, 4, 5)


# --- slices ---


def test_a_lost_peers_names_are_refused_at_once_and_leave_the_views_in_slices():
    names, bob = table(step=2), author(*"abcde")
    connect(names, bob)
    changes = lose(names, BOB)
    assert len(removed(changes)) == 2 and len(names.view) == 3 and names.busy
    assert all(names.whereis(name) is None for name in "abcde")
    assert names.groups.members("none") == []
    assert removed(finish(names)) == set("abcde") - removed(changes)
    assert names.view == {} and not names.refused


def test_a_name_on_its_way_out_can_be_claimed_and_only_its_own_turn_is_left_out():
    names, bob = table(step=1), author(*"abc")
    connect(names, bob)
    lose(names, BOB)
    changes = names.claim("c", own_pid(), "exit", 0)
    assert changes[0] == NameRemoved("c", bob.claims["c"].pid) and names.whereis("c") == own_pid()
    assert removed(finish(names)) <= set("ab")
    assert names.view == {"c": own_pid()}


def test_a_name_on_its_way_out_can_be_claimed_by_another_peer():
    names, bob, carl = table(step=1), author(*"abc"), Peer(CARL)
    connect(names, bob, carl)
    lose(names, BOB)
    changes = claims(names, carl, "c", 9)
    assert changes == [
        NameRemoved("c", bob.claims["c"].pid),
        NameAdded("c", carl.claims["c"].pid),
        Acknowledge(CARL, 1),
    ]
    finish(names)
    assert names.view == {"c": carl.claims["c"].pid}


def test_what_others_dispute_is_decided_before_the_slices():
    names, bob, carl = table(step=1), author(*"abc"), Peer(CARL)
    connect(names, bob, carl)
    claims(names, carl, "c", 9)
    changes = lose(names, BOB)
    assert NameAdded("c", carl.claims["c"].pid) in changes and Acknowledge(CARL, 1) in changes
    finish(names)
    assert names.view == {"c": carl.claims["c"].pid}


def test_who_comes_back_while_its_old_names_leave_is_let_in_after_them():
    names, bob = table(step=1), author(*"abc")
    connect(names, bob)
    lose(names, BOB)
    gone = bob.withdraw("b")
    names.peer_up(BOB)
    names.sync_begins(BOB, bob.creation, bob.position)
    changes = names.sync_part(BOB, bob.live(), 0) + names.sync_done(BOB)
    assert added(changes) == set() and names.whereis("a") is None, gone
    finish(names)
    assert names.view == {name: made.pid for name, made in bob.claims.items()} and names.mirrors[BOB].sound


def test_a_mirror_enters_in_slices_and_an_entry_about_a_name_lets_it_go_first():
    names, bob = table(step=1), author(*"abcd")
    connect(names, bob)
    lose(names, BOB)
    finish(names)
    changes = resume(names, bob)
    assert len(added(changes)) == 1 and names.busy
    left = sorted(set("abcd") - added(changes))
    entry = bob.withdraw(left[-1])
    changes = names.peer_withdrew(BOB, *entry)
    assert added(changes) == removed(changes) == {left[-1]}
    changes = claims(names, bob, left[-1], 50)
    finish(names)
    assert names.view == {name: made.pid for name, made in bob.claims.items()}
    assert names.mirrors[BOB].claims == bob.claims and names.mirrors[BOB].sound


def test_what_has_not_entered_yet_is_not_acknowledged():
    names, bob = table(step=1), author(*"abc", confirmed=False)
    connect(names, bob)
    lose(names, BOB)
    finish(names)
    changes = resume(names, bob)
    assert len(only(Acknowledge, changes)) == 1
    assert len(only(Acknowledge, finish(names))) == 2


def test_a_peer_lost_while_it_enters_leaves_nothing_behind_and_is_not_kept():
    names, bob = table(step=1), author(*"abc")
    connect(names, bob)
    lose(names, BOB)
    finish(names)
    resume(names, bob)
    lose(names, BOB)
    finish(names)
    assert names.view == {} and names.kept == {} and names.staged == {} and not names.refused


def test_a_process_with_many_names_is_refused_at_once_and_withdrawn_in_slices():
    names = table(step=2)
    for name in "abcde":
        claim(names, name)
    first = only(Withdrawn, names.process_exited(1))
    assert all(names.whereis(name) is None for name in "abcde")
    withdrawn = first + only(Withdrawn, finish(names))
    assert all(len(entry.claims) <= 2 and entry.exited for entry in withdrawn)
    assert sorted(made.name for entry in withdrawn for made in entry.claims) == list("abcde")
    assert names.own == {} and names.view == {} and names.digest == 0


def test_a_claim_of_a_dead_process_is_withdrawn_instead_of_confirmed():
    names, bob = table(step=1), Peer(BOB)
    connect(names, bob)
    made = [claim(names, name) for name in "abc"]
    names.process_exited(1)
    changes = names.peer_acknowledged(BOB, [each.position for each in made])
    assert only(Confirmed, changes) == []
    finish(names)
    assert names.own == {}


# --- groups ---


def test_memberships_are_facts_of_the_ledger():
    names = table()
    changes = names.join("g", own_pid())
    assert changes[-1] == MemberAdded("g", own_pid()) and names.groups.members("g") == [own_pid()]
    assert names.join("g", own_pid()) == []
    assert names.leave("g", own_pid()) == [MemberRemoved("g", own_pid()), Withdrawn(2, (), ("g",), 1)]
    assert names.leave("g", own_pid()) == [] and len(names.groups) == 0 and names.digest == 0


def test_an_exit_ends_names_and_memberships_in_one_entry():
    names = table()
    claim(names, "a")
    names.join("g", own_pid())
    names.join("h", own_pid())
    [withdrawn] = only(Withdrawn, names.process_exited(1))
    assert [made.name for made in withdrawn.claims] == ["a"]
    assert withdrawn.groups == ("g", "h") and withdrawn.local == 1 and withdrawn.exited
    assert len(names.groups) == 0 and names.memberships == {}


def test_a_peers_members_come_with_its_sync_and_go_with_it():
    names, bob = table(step=1), Peer(BOB)
    names.peer_up(BOB)
    names.sync_begins(BOB, 1, 2)
    names.sync_part(BOB, [], 0, [("g", 5), ("g", 6)])
    names.sync_done(BOB)
    assert names.groups.members("g") == [Pid(BOB, 1, 5), Pid(BOB, 1, 6)]
    assert names.peer_entered(BOB, 3, ("h", 5)) == [MemberAdded("h", Pid(BOB, 1, 5))]
    assert only(MemberRemoved, names.peer_withdrew(BOB, 4, [], [], [("h", 5)])) == [MemberRemoved("h", Pid(BOB, 1, 5))]
    lose(names, BOB)
    assert names.groups.members("g") == [], "refused at once"
    finish(names)
    assert len(names.groups) == 0
    bob.position = 4
    resume(names, bob)
    finish(names)
    assert set(names.groups.members("g")) == {Pid(BOB, 1, 5), Pid(BOB, 1, 6)}


def test_a_membership_that_is_there_cannot_begin_again():
    names = table()
    connect(names, Peer(BOB))
    names.peer_entered(BOB, 1, ("g", 5))
    with pytest.raises(RemoteProtocolError, match="enters the group 'g' twice"):
        names.peer_entered(BOB, 2, ("g", 5))


def test_a_membership_that_is_not_there_cannot_end():
    names = table()
    connect(names, Peer(BOB))
    with pytest.raises(RemoteProtocolError, match="leaves the group 'g', of which it is no member"):
        names.peer_withdrew(BOB, 1, [], [], [("g", 5)])


# --- digests ---


@given(st.permutations(range(8)), st.sets(st.integers(0, 7)))
def test_the_digest_is_that_of_the_live_facts_whatever_the_way_there(order, gone):
    facts = [Claim(str(n), Pid(BOB, 1, n), n + 1, 100 + n) for n in range(8)]
    one, other = Mirror(BOB, 1, 0), Mirror(BOB, 1, 0)
    for n in order:
        one.put(facts[n], confirmed=False)
        one.enter((f"g{n}", n))
    for n in order:
        one.confirm(facts[n])
    for n in gone:
        one.drop(facts[n])
        one.leave((f"g{n}", n))
    for n in set(range(8)) - gone:
        other.put(facts[n], confirmed=True)
        other.enter((f"g{n}", n))
    assert one.digest == other.digest
    assert (one.digest == 0) == (len(gone) == 8)


def test_a_table_and_its_mirror_have_the_same_digest():
    ours, theirs = table(), table()
    claim(ours, "a")
    ours.join("g", own_pid())
    theirs.peer_up(ADA)
    theirs.sync_begins(ADA, CREATION, ours.ledger.position)
    theirs.sync_part(ADA, [(own.claim, own.confirmed) for own in ours.own.values()], 0, ours.memberships)
    theirs.sync_done(ADA)
    assert not theirs.diverges(ADA, ours.ledger.position, ours.digest)
    assert theirs.diverges(ADA, ours.ledger.position, ours.digest + 1)
    assert not theirs.diverges(ADA, ours.ledger.position + 1, ours.digest + 1), "another position says nothing"


def damage_claim(names: Names) -> None:
    made = names.mirrors[BOB].claims["b"]
    names.mirrors[BOB].claims["b"] = Claim("b", Pid(BOB, 1, 77), made.position, made.stamp)


def lose_claim(names: Names) -> None:
    del names.mirrors[BOB].claims["b"]


def invent_claim(names: Names) -> None:
    names.mirrors[BOB].claims["x"] = Claim("x", Pid(BOB, 1, 77), 99, 99)


def invent_member(names: Names) -> None:
    names.mirrors[BOB].members["g", 77] = None


@pytest.mark.parametrize("damage", [damage_claim, lose_claim, invent_claim, invent_member])
@pytest.mark.parametrize("step", [1, 100])
def test_a_damaged_mirror_is_found_and_a_sync_in_the_same_session_repairs_it(damage, step):
    names, bob = table(step=step), author("a", "b", "c")
    connect(names, bob)
    before = dict(names.view)
    assert audit(names, 100) == [], "sound"
    damage(names)
    found = audit(names, 100)
    assert Diverged(BOB) in found
    names.distrust(BOB)
    assert not names.diverges(BOB, bob.position, 1), "asked for already"
    assert not names.is_syncing(BOB), "what comes begins anew"
    names.sync_begins(BOB, bob.creation, bob.position)
    assert names.sync_part(BOB, bob.live(), 0) == [], "it is built beside the views"
    names.sync_done(BOB)
    finish(names)
    assert names.view == before and names.mirrors[BOB].claims == bob.claims and not names.mirrors[BOB].members
    assert audit(names, 100) == [] and names.mirrors[BOB].sound
    assert names.mirrors[BOB].digest == sum_of(bob)


def sum_of(peer: Peer) -> int:
    mirror = Mirror(peer.name, peer.creation, 0)
    for made, confirmed in peer.live():
        mirror.put(made, confirmed)
    return mirror.digest


def test_a_damaged_mirror_is_not_kept_and_breaks_no_protocol():
    names, bob = table(), author("a", "b")
    connect(names, bob)
    lose_claim(names)
    names.distrust(BOB)
    names.peer_withdrew(BOB, *bob.withdraw("b"))
    claims(names, bob, "b", 9)
    lose(names, BOB)
    assert names.kept == {}


def test_withdrawals_during_the_repair_are_acknowledged_when_nothing_shows_them_any_more():
    names, bob = table(), author("a", "b")
    connect(names, bob)
    damage_claim(names)
    names.distrust(BOB)
    names.sync_begins(BOB, bob.creation, bob.position)
    names.sync_part(BOB, bob.live(), 0)
    entry = bob.withdraw("a")
    assert names.peer_withdrew(BOB, *entry) == [] and names.whereis("a") is not None
    changes = names.sync_done(BOB)
    assert AcknowledgeThrough(BOB, entry[0]) in changes and names.whereis("a") is None


@pytest.mark.parametrize("whose", ["ours", "a"])
def test_a_damaged_view_is_put_right_by_itself(whose):
    names, bob = table(), author("a")
    connect(names, bob)
    ours = claim(names, "ours")
    right = dict(names.view)
    names.view[whose] = Pid(CARL, 1, 1)
    changes = audit(names, 100)
    assert Diverged(ADA) in changes and names.view == right
    names.view["x"] = ours.pid
    assert Diverged(ADA) in audit(names, 100) and names.view == right
    del names.view[whose]
    assert Diverged(ADA) in audit(names, 100) and names.view == right
    assert audit(names, 100) == []


def test_our_own_damage_is_said_so_that_peers_follow():
    names = table()
    made = claim(names, "a")
    names.own["a"].claim = Claim("a", own_pid(2), made.position, made.stamp)
    before = names.digest
    assert Diverged(ADA) in audit(names, 100)
    assert names.digest != before
    assert only(Diverged, audit(names, 100)) == []


def test_an_audit_of_a_large_table_takes_several_turns_and_changes_meanwhile_make_no_difference():
    names, bob = table(), author(*(f"n{number}" for number in range(950)))
    connect(names, bob)
    names.mirrors[BOB].claims["n900"] = Claim("n900", Pid(BOB, 1, 77), 5, 5)
    found = audit(names, 300)
    assert only(Diverged, found) == []
    claims(names, bob, "more", 5000)
    names.peer_withdrew(BOB, *bob.withdraw("n1"))
    for _ in range(7):
        found += audit(names, 300)
    assert only(Diverged, found)


def test_an_audit_looks_at_memberships_in_slices_as_well():
    names = table(step=100)
    for number in range(1000):
        names.join(f"g{number}", own_pid())
    names.audit(10_000)
    turns = 0
    while names.busy:
        names.work()
        turns += 1
    assert turns >= 9


def test_many_that_come_back_while_many_names_leave_are_let_in_slice_by_slice():
    names, many = table(step=1), author(*(f"n{number}" for number in range(2000)))
    connect(names, many)
    lose(names, BOB)
    peers = [Peer(f"peer{number}@h:1") for number in range(500)]
    for peer in peers:
        connect(names, peer)
        claims(names, peer, peer.name, 1, confirmed=True)
        lose(names, peer.name)
        names.peer_up(peer.name)
        names.resumed(peer.name, names.offer(peer.name, peer.creation), peer.position)
    names.step = 200
    shown = 0
    while names.busy:
        changes = names.work()
        shown += len(only(NameAdded, changes))
        assert len(only(NameAdded, changes)) <= 200, "no slice is larger than it should be"
    assert shown == 500


@pytest.mark.parametrize("entry", ["claims twice", "withdraws", "confirms"])
def test_what_does_not_fit_a_damaged_mirror_is_no_breach_but_finds_the_damage(entry):
    names, bob = table(), author("a", "b")
    bob.claim("c", 7, local=3)
    connect(names, bob)
    claims = names.mirrors[BOB].claims
    if entry == "claims twice":
        claims["d"] = Claim("d", Pid(BOB, 1, 77), 1, 1)
        changes = names.peer_claimed(BOB, bob.claim("d", 9), 0)
    elif entry == "withdraws":
        del claims["a"]
        changes = names.peer_withdrew(BOB, *bob.withdraw("a"))
    else:
        del claims["c"]
        changes = names.peer_confirmed(BOB, *bob.confirm("c"))
    assert only(Diverged, changes) == [Diverged(BOB)] and not names.mirrors[BOB].sound
    with pytest.raises(RemoteProtocolError, match="follows"):
        names.peer_claimed(BOB, Claim("e", Pid(BOB, 1, 1), 99, 9), 0)


def test_a_damaged_mirror_that_goes_on_is_asked_for_anew_as_well():
    names, bob = table(), author("a", "b")
    connect(names, bob)
    lose(names, BOB)
    del names.kept[BOB].claims["a"]
    entry = bob.withdraw("a")
    resume(names, bob)
    assert only(Diverged, names.peer_withdrew(BOB, *entry)) == [Diverged(BOB)]
    assert names.distrust(BOB) == bob.position
    assert not names.mirrors[BOB].sound, "what it was made of was damaged"


@pytest.mark.parametrize("broken", ["claims", "view", "twice"])
def test_a_dispute_that_the_tables_do_not_know_is_put_right(broken):
    names, bob, carl = table(), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    ours = [names.peer_claimed(peer.name, peer.claim("x", stamp), 0) for stamp, peer in enumerate((bob, carl))]
    assert ours and len(names.rivals["x"]) == 2
    if broken == "claims":
        names.rivals["x"][0] = Claim("x", Pid(BOB, 1, 77), 1, 1)
    elif broken == "view":
        del names.view["x"]
    else:
        names.rivals["x"].append(names.rivals["x"][0])
    assert only(Diverged, audit(names, 1000)) == [Diverged(names.node)]
    assert names.rivals["x"] == [bob.claims["x"], carl.claims["x"]] and names.whereis("x") == bob.claims["x"].pid


def test_the_end_of_a_claim_that_the_views_do_not_have_lets_them_show_what_is_left():
    names, bob, carl = table(), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    for stamp, peer in enumerate((bob, carl)):
        names.peer_claimed(peer.name, peer.claim("x", stamp), 0)
    del names.view["x"]
    names.peer_withdrew(BOB, *bob.withdraw("x"))
    assert names.whereis("x") == carl.claims["x"].pid and names.rivals == {}


def test_what_is_disputed_is_contested_again_in_slices():
    names, bob, carl = table(step=10), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    for number in range(95):
        for stamp, peer in enumerate((bob, carl)):
            names.peer_claimed(peer.name, peer.claim(f"n{number}", stamp), 0)
    slices = [names.contest_again()]
    while names.busy:
        slices.append(names.work())
    assert all(len(changes) <= 10 for changes in slices)
    told = [contest.loser.name for changes in slices for contest in only(Contest, changes)]
    assert sorted(told) == sorted(names.rivals), "each once"
