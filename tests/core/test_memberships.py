"""Memberships of groups in the ledgers: told, synced, resumed and lost with their nodes, like names but without rivals.

We are ada, as in `test_names`; a peer says who of its processes is in which group.
"""

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinfolk.core.changes import Accepted, Acknowledge, Change, Entered, MemberAdded, MemberRemoved, Synced, Withdrawn
from kinfolk.core.mirror import Membership, add_digest, membership_digest
from kinfolk.core.names import Names
from kinfolk.errors import RemoteProtocolError
from kinfolk.ids import Pid
from tests.core.test_names import ADA, BOB, CREATION, LAPSE, PATIENCE, claim, only, own_pid, table


def bob(local: int, creation: int = 1) -> Pid:
    return Pid(BOB, creation, local)


def stepping(step: int, room: int = 1000) -> Names:
    """A table that does so many facts in one slice."""
    return Names(ADA, CREATION, patience=PATIENCE, lapse=LAPSE, step=step, room=room)


def up(names: Names, *members: Membership, position: int = 0, creation: int = 1) -> list[Change]:
    """A session with Bob opens, and his ledger with these members is synced."""
    names.peer_up(BOB)
    names.sync_begins(BOB, creation, position)
    return names.sync_part(BOB, [], 0, members) + names.sync_done(BOB)


def worked(names: Names) -> list[Change]:
    """Do what goes in slices to its end."""
    changes: list[Change] = []
    while names.busy:
        changes += names.work()
    return changes


def told(changes: Iterable[object]) -> list[tuple[str, str, Pid]]:
    """What the changes say of members."""
    signs = {MemberAdded: "+", MemberRemoved: "-"}
    return [
        (signs[type(change)], change.group, change.pid)
        for change in changes
        if isinstance(change, MemberAdded | MemberRemoved)
    ]


# --- our own ---


def test_joining_is_an_entry_of_our_ledger_and_seen_here_at_once():
    names = table()
    changes = names.join("stores", own_pid(1))
    assert changes == [Entered(1, "stores", 1), MemberAdded("stores", own_pid(1))]
    assert names.groups.members("stores") == [own_pid(1)]
    assert names.digest == membership_digest(("stores", 1))


def test_nobody_waits_for_an_acknowledgement_of_a_membership():
    names = table()
    up(names)
    names.join("stores", own_pid(1))
    names.leave("stores", own_pid(1))
    assert not names.ledger.missing(1) and not names.ledger.missing(2)
    assert not only(Accepted, names.peer_acknowledged(BOB, [1, 2]))


def test_joining_twice_and_leaving_what_one_is_not_in_make_no_entry():
    names = table()
    names.join("stores", own_pid(1))
    assert names.join("stores", own_pid(1)) == []
    assert names.leave("shops", own_pid(1)) == names.leave("stores", own_pid(2)) == []
    assert names.ledger.position == 1


def test_leaving_is_an_entry_that_names_group_and_process():
    names = table()
    names.join("stores", own_pid(1))
    assert names.leave("stores", own_pid(1)) == [
        MemberRemoved("stores", own_pid(1)),
        Withdrawn(2, (), ("stores",), 1),
    ]
    assert names.digest == 0 and not names.memberships and list(names.groups) == []


def test_the_exit_of_a_process_ends_all_it_has_in_one_entry():
    names = table()
    made = claim(names, "db", local=1)
    for group in ("stores", "shops"):
        names.join(group, own_pid(1))
    names.join("stores", own_pid(2))
    before = names.ledger.position
    changes = names.process_exited(1)
    assert only(Withdrawn, changes) == [Withdrawn(before + 1, (made,), ("stores", "shops"), 1, "exited")]
    assert told(changes) == [("-", "stores", own_pid(1)), ("-", "shops", own_pid(1))]
    assert names.groups.members("stores") == [own_pid(2)]
    assert names.process_exited(1) == []


def test_a_process_in_very_many_groups_is_in_none_at_once_though_they_are_told_in_slices():
    names = stepping(step=3)
    groups = [f"group/{number}" for number in range(10)]
    for group in groups:
        names.join(group, own_pid(1))
    changes = names.process_exited(1)
    assert len(told(changes)) == 3 and names.busy
    assert all(names.groups.members(group) == [] for group in groups)
    changes += worked(names)
    assert told(changes) == [("-", group, own_pid(1)) for group in groups]
    assert [len(entry.groups) for entry in only(Withdrawn, changes)] == [3, 3, 3, 1]
    assert names.digest == 0 and list(names.groups) == [] and not names.refused


# --- of peers ---


def test_a_peers_members_are_seen_as_it_tells_of_them():
    names = table()
    up(names)
    assert told(names.peer_entered(BOB, 1, ("stores", 3))) == [("+", "stores", bob(3))]
    assert told(names.peer_entered(BOB, 2, ("stores", 4))) == [("+", "stores", bob(4))]
    changes = names.peer_withdrew(BOB, 3, [], [], [("stores", 3)])
    assert told(changes) == [("-", "stores", bob(3))]
    assert only(Acknowledge, changes) == [Acknowledge(BOB, 3)], "as any withdrawal"
    assert names.groups.members("stores") == [bob(4)]


def test_members_of_several_nodes_stand_beside_each_other():
    names = table()
    names.join("stores", own_pid(1))
    assert told(up(names, ("stores", 1))) == [("+", "stores", bob(1))]
    assert names.groups.members("stores") == [own_pid(1), bob(1)]


def test_changes_between_the_parts_of_a_sync_and_the_parts_tell_one_story():
    names = table()
    names.peer_up(BOB)
    names.sync_begins(BOB, 1, 5)
    changes = names.sync_part(BOB, [], 0, [("a", 1)], 5)
    changes += names.peer_entered(BOB, 6, ("b", 1))
    changes += names.peer_withdrew(BOB, 7, [], [], [("c", 1)])  # which the sync has not come to
    changes += names.peer_withdrew(BOB, 8, [], [], [("a", 1)])
    changes += names.sync_part(BOB, [], 0, [("b", 1), ("d", 1)], 8)
    changes += names.sync_done(BOB)
    assert told(changes) == [("+", "a", bob(1)), ("+", "b", bob(1)), ("-", "a", bob(1)), ("+", "d", bob(1))]
    assert names.groups.members("a") == names.groups.members("c") == []
    expected = add_digest(membership_digest(("b", 1)), membership_digest(("d", 1)))
    assert names.mirrors[BOB].digest == expected and not names.diverges(BOB, 8, expected)


@pytest.mark.parametrize(
    ("what", "tell"),
    [
        ("twice", lambda names: names.peer_entered(BOB, 1, ("stores", 1))),
        ("is no member", lambda names: names.peer_withdrew(BOB, 1, [], [], [("stores", 2)])),
        ("follows entry", lambda names: names.peer_entered(BOB, 2, ("stores", 2))),
    ],
)
def test_what_does_not_fit_breaks_the_protocol(what: str, tell: Callable[[Names], object]):
    names = table()
    up(names, ("stores", 1))
    with pytest.raises(RemoteProtocolError, match=what):
        tell(names)
    assert names.groups.members("stores") == [bob(1)]


def test_a_member_that_got_lost_in_memory_is_noticed():
    names = table()
    up(names, ("stores", 1), ("stores", 2))
    right = names.mirrors[BOB].digest
    del names.mirrors[BOB].members["stores", 2]
    names.mirrors[BOB].digest -= membership_digest(("stores", 2))
    assert names.diverges(BOB, 0, right)


# --- peers that go and come back ---


def test_a_lost_peer_takes_its_members_along_at_once_though_they_are_told_in_slices():
    names = stepping(step=3)
    names.join("group/1", own_pid(1))
    up(names, *[(f"group/{number}", local) for number in range(5) for local in (1, 2)])
    worked(names)
    changes = names.peer_down(BOB, 1)
    assert names.busy and len(told(changes)) == 3
    assert names.groups.members("group/1") == [own_pid(1)] and names.groups.members("group/4") == []
    changes += worked(names)
    assert told(changes) == [("-", f"group/{number}", bob(local)) for number in range(5) for local in (1, 2)]
    assert list(names.groups) == ["group/1"] and not names.refused


def test_a_peer_that_comes_back_brings_its_members_with_the_entries_since():
    names = table()
    up(names, ("stores", 1), ("stores", 2), position=4)
    names.peer_down(BOB, 1)
    assert names.groups.members("stores") == []
    names.peer_up(BOB)
    assert names.offer(BOB, 1) == 4
    assert names.resumed(BOB, 4, 6) == []
    changes = names.peer_withdrew(BOB, 5, [], [], [("stores", 1)]) + names.peer_entered(BOB, 6, ("shops", 3))
    changes += worked(names)
    # Who had left meanwhile does not appear for a moment.
    assert sorted(told(changes)) == [("+", "shops", bob(3)), ("+", "stores", bob(2))]
    assert only(Synced, changes) == [Synced(BOB)]


def test_a_new_start_of_a_peer_has_none_of_the_members_of_the_old_one():
    names = table()
    up(names, ("stores", 1), position=4)
    names.peer_down(BOB, 1)
    names.peer_up(BOB)
    assert names.offer(BOB, 2) == 0
    changes = up(names, ("stores", 1), creation=2)
    assert told(changes) == [("+", "stores", bob(1, creation=2))]
    assert names.groups.members("stores") == [bob(1, creation=2)]


def test_a_second_sync_tells_only_of_what_differs():
    names = table()
    up(names, ("a", 1), ("b", 1), position=4)
    names.distrust(BOB)
    names.sync_begins(BOB, 1, 9)
    changes = names.sync_part(BOB, [], 0, [("b", 1), ("c", 1)], 9) + names.sync_done(BOB) + worked(names)
    assert sorted(told(changes)) == [("+", "c", bob(1)), ("-", "a", bob(1))]
    assert sorted(names.groups) == ["b", "c"]


def test_members_count_in_the_room_for_mirrors_that_are_kept():
    names = stepping(step=100, room=5)
    up(names, *[("stores", local) for local in range(1, 7)], position=6)
    names.peer_down(BOB, 1)
    assert names.offer(BOB, 1) == 0, "six facts are more than the room for five"


# --- whatever happens ---


class Story:
    """Bob's ledger, his sessions with us, and our own processes, at random."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.names = stepping(step=chance.choice((1, 2, 5, 100)))
        self.position, self.live = 0, set[Membership]()
        self.own = set[Membership]()
        self.connected = False
        self.changes: list[Any] = []

    def some(self) -> Membership:
        return self.chance.choice("abc"), self.chance.randint(1, 3)

    def step(self) -> None:
        match self.chance.choice(("bob", "bob", "own", "own", "exit", "session", "work")):
            case "bob":
                self.bob_changes()
            case "own":
                self.own_changes()
            case "exit" if not self.names.busy:
                local = self.chance.randint(1, 3)
                self.own = {membership for membership in self.own if membership[1] != local}
                self.changes += self.names.process_exited(local)
                self.changes += worked(self.names)  # it never joins again, while a test's may
            case "session":
                self.session()
            case _:
                self.changes += self.names.work() if self.names.busy else []

    def bob_changes(self) -> None:
        membership, self.position = self.some(), self.position + 1
        if membership in self.live:
            self.live.discard(membership)
            if self.connected:
                self.changes += self.names.peer_withdrew(BOB, self.position, [], [], [membership])
        else:
            self.live.add(membership)
            if self.connected:
                self.changes += self.names.peer_entered(BOB, self.position, membership)

    def own_changes(self) -> None:
        membership = group, local = self.some()
        if membership in self.own:
            self.own.discard(membership)
            self.changes += self.names.leave(group, own_pid(local))
        else:
            self.own.add(membership)
            self.changes += self.names.join(group, own_pid(local))

    def session(self) -> None:
        if self.connected:
            self.changes += self.names.peer_down(BOB, 1)
        else:
            self.names.peer_up(BOB)
            self.names.offer(BOB, 1)
            self.names.sync_begins(BOB, 1, self.position)
            self.changes += self.names.sync_part(BOB, [], 0, sorted(self.live), self.position)
            self.changes += self.names.sync_done(BOB)
        self.connected = not self.connected

    def expected(self) -> set[tuple[str, Pid]]:
        theirs = {(group, bob(local)) for group, local in self.live} if self.connected else set[tuple[str, Pid]]()
        return theirs | {(group, own_pid(local)) for group, local in self.own}


@given(st.randoms(use_true_random=False))
def test_whatever_happens_the_changes_add_up_to_the_view_and_the_view_to_the_facts(chance: random.Random):
    story = Story(chance)
    for _ in range(60):
        story.step()
    story.changes += worked(story.names)
    groups = story.names.groups
    view = {(group, pid) for group in groups for pid in groups.members(group)}
    assert view == story.expected()
    folded = set[tuple[str, Pid]]()
    for sign, group, pid in told(story.changes):
        assert ((group, pid) in folded) is (sign == "-"), "an event tells of what is new"
        folded ^= {(group, pid)}
    assert folded == view
    assert story.names.digest == add_digest(sum(map(membership_digest, story.own)), 0)
