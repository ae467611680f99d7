"""What a peer says by the thousand is taken in at once, with the same end as one by one.

We are ada, as in `test_names`.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinfolk.core.changes import Acknowledge, Contest, NameAdded
from kinfolk.core.clock import MAX_AHEAD_MS
from kinfolk.core.mirror import Mirror
from kinfolk.core.names import Names
from kinfolk.errors import RemoteProtocolError
from kinfolk.ids import Pid
from tests.core.test_names import ADA, BOB, CARL, CREATION, Peer, claim, connect, lose, only, table

RUNS = st.lists(
    st.tuples(
        st.sampled_from([BOB, CARL]),
        st.sampled_from(["claim", "claim", "confirm", "withdraw", "return", "work"]),
        st.lists(st.sampled_from("abc"), unique=True, min_size=1),
        st.integers(1, 1_000_000),
    ),
    max_size=30,
)


class OneByOne(Names):
    """Takes everything in on the way that is meant for what is disputed, or comes while something is under way."""

    def _undisturbed(self, peer: str) -> Mirror | None:
        return None


def withdraw(names: Names, peer: Peer, entries: list[tuple[int, str, int]]) -> list[Any]:
    """Withdrawals of one name each are heard, as the kernel passes them on."""
    changes, gone = names.peer_withdrew_plainly(peer.name, entries)
    for position, name, at in entries[len(gone) :]:
        changes += names.peer_withdrew(peer.name, position, [name], [at])
    return changes


def small(kind: type[Names]) -> Names:
    """Its slices are of one name, so that something is under way now and then."""
    return kind(ADA, CREATION, patience=6.0, lapse=2.5, step=1)


def sync(names: Names, peer: Peer) -> list[Any]:
    """A session with the peer opens, and all its facts are told."""
    names.peer_up(peer.name)
    names.sync_begins(peer.name, peer.creation, peer.position)
    return names.sync_part(peer.name, peer.live(), 0) + names.sync_done(peer.name)


def state(names: Names) -> Any:
    """All that a name table knows."""
    mirrors = {
        peer: (mirror.claims, mirror.unconfirmed, mirror.held, mirror.digest, mirror.position, mirror.complete)
        for peer, mirror in names.mirrors.items()
    }
    rivals = {name: sorted(claims, key=lambda each: each.order) for name, claims in names.rivals.items()}
    return (
        names.view,
        names.refused,
        rivals,
        names.own,
        names.digest,
        mirrors,
        names.clock.tick(0),
        names.ledger.position,
    )


@given(RUNS)
def test_a_run_has_the_same_end_at_once_as_one_by_one(runs: list[tuple[str, str, list[str], int]]):
    at_once, one_by_one = both = small(Names), small(OneByOne)
    peers = {BOB: Peer(BOB), CARL: Peer(CARL)}
    for names in both:
        connect(names, *peers.values())
        claim(names, "a")
    for whose, what, some, stamp in runs:
        peer = peers[whose]
        said: list[Any] = []
        if what == "claim":
            made = [peer.claim(name, stamp) for name in some if name not in peer.claims]
            said = [names.peer_claimed_all(whose, made, 0) for names in both]
        elif what == "confirm":
            confirmed = [peer.confirm(name) for name in some if name in peer.claims and name not in peer.confirmed]
            said = [names.peer_confirmed_all(whose, confirmed) for names in both]
        elif what == "withdraw":
            withdrawn = [peer.withdraw(name) for name in some if name in peer.claims]
            entries = [(at, gone[0], made_at[0]) for at, gone, made_at in withdrawn]
            said = [withdraw(names, peer, entries) for names in both]
        elif what == "return":  # while its old names may still be on their way out
            said = [[*map(repr, lose(names, whose)), *sorted(map(repr, sync(names, peer)))] for names in both]
        else:
            said = [names.work() for names in both]
        assert said[0] == said[1]
        assert state(at_once) == state(one_by_one)


def test_what_comes_before_a_breach_in_a_run_is_taken_in():
    names, bob = table(), Peer(BOB)
    sync(names, bob)
    first, second = bob.claim("a", 1), bob.claim("b", 2)
    bob.claim("c", 3)
    with pytest.raises(RemoteProtocolError, match="follows entry"):
        names.peer_claimed_all(BOB, [first, second, bob.claim("d", 4)], 0)
    assert names.view == {"a": first.pid, "b": second.pid}
    assert only(NameAdded, lose(names, BOB)) == [NameAdded("a", first.pid), NameAdded("b", second.pid)]


def test_claims_that_nobody_disputes_are_acknowledged_in_their_order():
    names, bob, carl = table(), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    names.peer_claimed(CARL, carl.claim("b", 1), 0)
    changes = names.peer_claimed_all(BOB, [bob.claim(name, 2) for name in "abc"], 0)
    assert only(Acknowledge, changes) == [Acknowledge(BOB, 1), Acknowledge(BOB, 3)]
    assert names.mirrors[BOB].held == {"b"}


def test_the_end_of_a_disputed_claim_ends_what_goes_plainly():
    names, bob, carl = table(), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    names.peer_claimed_all(BOB, [bob.claim(name, 2) for name in "abc"], 0)
    names.peer_claimed(CARL, carl.claim("b", 3), 0)
    entries = [(at, gone[0], made_at[0]) for at, gone, made_at in map(bob.withdraw, "abc")]
    _, gone = names.peer_withdrew_plainly(BOB, entries)
    assert [each.name for each in gone] == ["a"]
    assert names.view == {"b": Pid(BOB, 1, 1), "c": Pid(BOB, 1, 1)}


def confirmed(whose: str, name: str, stamp: int) -> Peer:
    """A peer with a confirmed claim."""
    peer = Peer(whose)
    peer.claim(name, stamp)
    peer.confirm(name)
    return peer


def test_a_sync_finds_out_which_of_its_names_somebody_else_claims():
    names, bob, carl = table(), confirmed(BOB, "a", 2), confirmed(CARL, "a", 1)
    connect(names, carl)
    changes = sync(names, bob)
    assert only(Contest, changes) == [Contest(BOB, bob.claims["a"], carl.claims["a"], True)]
    assert names.view == {"a": carl.claims["a"].pid}


def test_a_sync_moves_the_clock_as_far_as_it_may():
    names, bob = table(), confirmed(BOB, "a", 1_000_000)
    bob.claim("b", (MAX_AHEAD_MS + 1) << 16)
    bob.confirm("b")
    sync(names, bob)
    assert 1_000_000 < names.clock.tick(0) < (MAX_AHEAD_MS + 1) << 16


def test_a_run_takes_the_place_of_names_that_are_on_their_way_out():
    names, bob, carl = small(Names), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    names.peer_claimed_all(BOB, [bob.claim(name, 1) for name in "abc"], 0)
    lose(names, BOB)
    assert names.view.keys() == {"b", "c"}, "they leave in slices"
    changes = names.peer_claimed_all(CARL, [carl.claim(name, 2) for name in "bc"], 0)
    assert names.view == {"b": carl.claims["b"].pid, "c": carl.claims["c"].pid}
    assert only(Acknowledge, changes) == [Acknowledge(CARL, 1), Acknowledge(CARL, 2)]


def test_a_run_takes_the_place_of_names_of_a_process_of_ours_that_is_dead():
    names, carl = small(Names), Peer(CARL)
    connect(names, carl)
    for name in "abc":
        claim(names, name)
    names.process_exited(1)
    assert "c" in names.view, "they leave in slices"
    changes = names.peer_claimed_all(CARL, [carl.claim("c", 9)], 0)
    assert names.view["c"] == carl.claims["c"].pid and "c" not in names.own
    assert only(Acknowledge, changes) == [Acknowledge(CARL, 1)]
