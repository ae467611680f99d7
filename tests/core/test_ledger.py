"""The ledger: who has yet to acknowledge what; the mirror: nothing is left out and nothing comes twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinfolk.core.ledger import Claim, Ledger, Log
from kinfolk.core.mirror import Mirror
from kinfolk.errors import RemoteProtocolError
from kinfolk.ids import Pid

BOB, CARL = "bob@h:2", "carl@h:3"


def ledger_with(*peers: str) -> Ledger:
    ledger = Ledger()
    for peer in peers:
        ledger.peer_up(peer)
    return ledger


# --- positions ---


def test_positions_count_from_1_without_gaps():
    ledger = Ledger()
    assert ledger.position == 0
    assert [ledger.append() for _ in range(3)] == [1, 2, 3]
    assert ledger.position == 3


# --- claims wait for everybody, those included that join meanwhile ---


def test_without_peers_nobody_is_waited_for():
    ledger = Ledger()
    assert ledger.await_claim(ledger.append())
    assert ledger.await_withdrawal(ledger.append())


def test_an_entry_is_complete_when_the_last_peer_has_acknowledged_it():
    ledger = ledger_with(BOB, CARL)
    position = ledger.append()
    assert not ledger.await_claim(position)
    assert ledger.missing(position) == (BOB, CARL)
    assert ledger.acknowledged(BOB, [position]) == []
    assert ledger.missing(position) == (CARL,)
    assert ledger.acknowledged(CARL, [position]) == [position]


def test_one_frame_may_acknowledge_several_entries():
    ledger = ledger_with(BOB)
    for _ in range(3):
        ledger.await_claim(ledger.append())
    assert ledger.acknowledged(BOB, [1, 3]) == [1, 3]
    assert ledger.acknowledged(BOB, iter([2])) == [2]


def test_acknowledging_twice_counts_once():
    ledger = ledger_with(BOB, CARL)
    ledger.await_claim(ledger.append())
    assert ledger.acknowledged(BOB, [1, 1]) == []
    assert ledger.acknowledged(BOB, [1]) == []
    assert ledger.acknowledged(CARL, [1, 1]) == [1]
    assert ledger.acknowledged(CARL, [1]) == []


def test_a_claim_also_waits_for_peers_that_join_meanwhile():
    ledger = ledger_with(BOB)
    ledger.await_claim(ledger.append())
    ledger.peer_up(CARL)
    assert ledger.acknowledged(BOB, [1]) == []
    assert ledger.acknowledged(CARL, [1]) == [1]


def test_a_peer_that_comes_back_is_asked_afresh():
    ledger = ledger_with(BOB, CARL)
    ledger.await_claim(ledger.append())
    ledger.acknowledged(BOB, [1])
    ledger.peer_down(BOB)
    ledger.peer_up(BOB)
    assert ledger.missing(1) == (BOB, CARL)


def test_a_claim_does_not_wait_for_a_lost_peer():
    ledger = ledger_with(BOB, CARL)
    ledger.await_claim(ledger.append())
    ledger.await_claim(ledger.append())
    ledger.acknowledged(BOB, [1])
    assert ledger.peer_down(CARL) == [1]
    assert ledger.peer_down(BOB) == [2]


def test_with_a_session_that_replaces_another_claims_go_on_waiting_and_withdrawals_do_not():
    ledger = ledger_with(BOB)
    ledger.await_claim(ledger.append())
    ledger.await_withdrawal(ledger.append())
    assert ledger.peer_down(BOB, returns=True) == [2]
    ledger.peer_up(BOB)
    assert ledger.missing(1) == (BOB,)


def test_a_withdrawal_waits_for_the_peers_of_its_moment_only():
    ledger = ledger_with(BOB)
    assert not ledger.await_withdrawal(ledger.append())
    ledger.peer_up(CARL)
    assert ledger.missing(1) == (BOB,)
    assert ledger.peer_down(BOB) == [1]


def test_nobody_waits_for_an_entry_that_was_forgotten():
    ledger = ledger_with(BOB)
    ledger.await_claim(ledger.append())
    ledger.forget(1)
    ledger.peer_up(CARL)
    assert ledger.missing(1) == ()
    assert ledger.acknowledged(BOB, [1]) == []
    assert ledger.peer_down(CARL) == []


def test_entries_that_nobody_waits_for_may_be_acknowledged():
    ledger = ledger_with(BOB)
    ledger.append()
    assert ledger.acknowledged(BOB, [1]) == []
    assert ledger.acknowledged(CARL, [1]) == []


def test_an_entry_that_was_never_made_cannot_be_acknowledged():
    ledger = ledger_with(BOB)
    ledger.await_claim(ledger.append())
    with pytest.raises(RemoteProtocolError, match="acknowledges ledger entry 2, but the last is 1"):
        ledger.acknowledged(BOB, [1, 2])
    assert ledger.missing(1) == (BOB,), "nothing changed"
    assert ledger.acknowledged(BOB, []) == []


def test_a_join_in_progress_holds_claims_but_no_withdrawals():
    ledger = ledger_with(Ledger.JOINING)
    assert not ledger.await_claim(ledger.append())
    assert ledger.missing(1) == (), "it is nobody in particular"
    assert ledger.await_withdrawal(ledger.append())
    assert ledger.peer_down(Ledger.JOINING) == [1]


peers = st.sampled_from("xyz")
happenings = st.lists(
    st.one_of(
        st.tuples(st.just("claim")),
        st.tuples(st.just("withdraw")),
        st.tuples(st.just("up"), peers),
        st.tuples(st.just("down"), peers),
        st.tuples(st.just("acknowledge"), peers, st.lists(st.integers(1, 8), max_size=4)),
        st.tuples(st.just("forget"), st.integers(1, 8)),
    ),
    max_size=40,
)


@given(happenings)
def test_a_ledger_is_a_set_of_missing_peers_for_each_entry_that_waits(happenings):
    ledger, connected = Ledger(), set[str]()
    waits: dict[int, set[str]] = {}
    claims: set[int] = set()
    for what, *arguments in happenings:
        complete: list[int] = []
        match what, arguments:
            case (("claim" | "withdraw"), _):
                position = ledger.append()
                done = (ledger.await_claim if what == "claim" else ledger.await_withdrawal)(position)
                assert done == (not connected)
                waits[position] = set(connected)
                claims |= {position} if what == "claim" else set()
                if done:
                    ledger.forget(position)
                    del waits[position]
                    claims.discard(position)
            case "up", [peer]:
                ledger.peer_up(peer)
                connected.add(peer)
                for position in claims & set(waits):
                    waits[position].add(peer)
            case "down", [peer]:
                complete = ledger.peer_down(peer)
                connected.discard(peer)
                expected = [position for position, missing in waits.items() if missing == {peer}]
                assert sorted(complete) == sorted(expected)
                for missing in waits.values():
                    missing.discard(peer)
            case "acknowledge", [peer, positions]:
                positions = [position for position in positions if position <= ledger.position]
                complete = ledger.acknowledged(peer, positions)
                assert sorted(complete) == sorted({p for p in positions if waits.get(p) == {peer}})
                for position in positions:
                    waits.get(position, set()).discard(peer)
            case "forget", [position]:
                ledger.forget(position)
                waits.pop(position, None)
                claims.discard(position)
            case _:
                raise AssertionError(what)
        for position in complete:
            ledger.forget(position)
            del waits[position]
            claims.discard(position)
        assert {p: set(ledger.missing(p)) for p in range(1, ledger.position + 1) if ledger.missing(p)} == waits


# --- mirrors ---


def test_a_mirror_goes_on_one_entry_at_a_time():
    mirror = Mirror(BOB, 1, 5)
    mirror.advance(6)
    for position in (5, 6, 8):
        with pytest.raises(RemoteProtocolError, match=f"ledger entry {position} follows entry 6"):
            mirror.advance(position)
    assert mirror.position == 6


def test_claims_are_ordered_by_stamp_then_node_and_never_equal_to_another():
    early = Claim("db", Pid(CARL, 1, 1), 9, 10)
    late = Claim("db", Pid(BOB, 1, 1), 1, 11)
    tied = Claim("db", Pid(BOB, 1, 1), 1, 10)
    restarted = Claim("db", Pid(BOB, 2, 1), 1, 10)
    assert sorted([late, restarted, early, tied], key=lambda claim: claim.order) == [tied, restarted, early, late]


# --- the log ---


def test_the_log_reaches_back_as_far_as_its_room():
    log = Log[str](room=3)
    assert log.reaches(0) and log.after(0, 10) == []
    for position in range(1, 6):
        log.append(position, f"entry {position}")
    assert [position for position in range(8) if log.reaches(position)] == [2, 3, 4, 5]
    assert log.after(2, 2) == ["entry 3", "entry 4"]
    assert log.after(4, 10) == ["entry 5"]


def test_an_entry_of_many_facts_takes_the_room_of_many():
    log = Log[str](room=3)
    log.append(1, "small")
    log.append(2, "large", facts=3)
    assert not log.reaches(0) and log.after(1, 10) == ["large"]
    log.append(3, "too large", facts=4)
    assert log.reaches(3) and not log.reaches(2)
