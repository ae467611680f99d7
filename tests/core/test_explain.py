"""Who has a name by which rule, in which state each claim is, and what is remembered of a name. We are ada."""

import tracemalloc

import pytest

from kinfolk.core.explain import MAX_PAST, Explanation, explain
from kinfolk.core.history import History
from kinfolk.core.ledger import Claim
from kinfolk.core.names import Names
from kinfolk.ids import Pid
from tests.core.test_names import ADA, BOB, CARL, Peer, claim, claim_at, claims, connect, lose, table

T = 1_000_000_000_000


def why(names: Names, name: str = "db", history: History | None = None) -> Explanation:
    return explain(names, history or History(), name)


def states(names: Names) -> list[tuple[str, str]]:
    """The node and state of each claim, that of the holder first."""
    return [(info.pid.node, info.state) for info in why(names).claims]


def told(name: str, position: int, peer: str = BOB) -> Claim:
    return Claim(name, Pid(peer, 1, 1), position, 1)


def happened(history: History, name: str, *live: Claim) -> list[str]:
    return [entry.what for entry in history.of(name, live)]


# --- who has it ---


def test_nobody_has_a_name_that_nobody_claims():
    told = why(table())
    assert (told.holder, told.rule, told.claims, told.history) == (None, "no claim", (), ())


def test_of_two_claims_the_confirmed_goes_first_whatever_the_stamps():
    names, bob, carl = table(), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "db", 20, confirmed=True)
    claims(names, carl, "db", 10)
    assert why(names).rule == "confirmed first"
    assert states(names) == [(BOB, "confirmed"), (CARL, "held back")]


def test_of_two_that_are_not_confirmed_the_acknowledged_goes_first():
    names, bob, carl = table(), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "db", 20)
    claims(names, carl, "db", 10)
    assert why(names).rule == "acknowledged first"
    assert states(names) == [(BOB, "yielding"), (CARL, "held back")]
    assert [info.acknowledged for info in why(names).claims] == [(ADA,), ()]
    assert [info.missing for info in why(names).claims] == [(), (ADA,)]


@pytest.mark.parametrize(("stamp", "rule"), [(20, "earlier stamp"), (10, "node order")])
def test_of_two_confirmed_the_earlier_goes_first_or_the_nodes_names_decide(stamp: int, rule: str):
    names, bob, carl = table(), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    claims(names, bob, "db", 10, confirmed=True)
    claims(names, carl, "db", stamp, confirmed=True)
    assert why(names).rule == rule
    assert states(names) == [(BOB, "confirmed"), (CARL, "yielding")]
    assert f"the claim of {bob.claims['db'].pid} stands before it" in why(names).claims[1].text


def test_the_dead_are_refused_though_their_names_are_still_there():
    names, bob = table(), Peer(BOB)
    names.step = 1
    connect(names, bob)
    for name in ("a", "b", "db"):
        claim(names, f"own/{name}")
        bob.claim(name, 1)
    lose(names, BOB)
    connect(names, bob)
    while names.busy:
        names.work()
    lose(names, BOB)
    assert (why(names).rule, why(names).holder) == ("lost node", None)
    while names.busy:
        names.work()
    assert why(names).rule == "no claim"
    names.process_exited(1)
    dead = why(names, "own/db")
    assert (dead.rule, dead.holder) == ("dead process", None)
    assert [info.state for info in dead.claims] == ["dead"]


# --- how far a claim has come ---


def test_a_claim_of_ours_tells_for_whom_it_waits():
    names = table()
    connect(names, Peer(BOB), Peer(CARL))
    made = claim_at(names, (T << 16) + 3)
    names.peer_acknowledged(CARL, [made.position])
    (info,) = why(names).claims
    assert (info.state, info.acknowledged, info.missing) == ("waiting", (CARL,), (BOB,))
    assert (info.time, info.counter, info.position, info.epoch) == (T / 1000, 3, made.position, None)
    names.peer_acknowledged(BOB, [made.position])
    assert states(names) == [(ADA, "confirmed")]


def test_a_claim_that_only_waits_for_a_join_says_so():
    names = table()
    names.hold()
    claim(names)
    (info,) = why(names).claims
    assert (info.state, info.missing) == ("waiting", ()) and "join" in info.text


def test_a_name_that_moves_shows_where_it_goes():
    names, bob, carl = table(), Peer(BOB), Peer(CARL)
    connect(names, bob, carl)
    made = claim(names)
    for peer in (BOB, CARL):
        names.peer_acknowledged(peer, [made.position])
    heir = bob.claim("db", made.stamp - 1)
    names.expect("db", heir.pid)
    assert [(info.state, info.goes_to) for info in why(names).claims] == [("moving", heir.pid)]
    names.peer_claimed(BOB, Claim("db", heir.pid, heir.position, heir.stamp, made.identity), 0)
    assert states(names) == [(ADA, "moving"), (BOB, "held back")]
    assert "succeed" in why(names).claims[1].text


def test_a_claim_that_is_told_and_not_in_the_views_yet_is_arriving():
    names, bob = table(), Peer(BOB)
    connect(names, bob)
    names.sync_begins(BOB, 1, 1)
    names.sync_part(BOB, [(bob.claim("db", 1), True)], 0)
    assert states(names) == [(BOB, "arriving")] and why(names).holder is None


# --- what is remembered ---


def test_entries_are_bounded_and_those_of_peers_do_not_drive_out_our_own():
    history = History(room=100)
    history.own(T, "claimed", [told("ours", 1, ADA)])
    for number in range(1000):
        history.told(T, "claimed", [told(f"x{number}", number)])
    assert happened(history, "ours") == ["claimed"]
    assert [happened(history, f"x{number}") for number in (899, 900)] == [[], ["claimed"]]
    history.told(T, "withdrawn", [told(f"y{number}", number) for number in range(99)])
    assert happened(history, "x998") == [] and happened(history, "x999") == ["claimed"]


def test_more_of_everything_takes_no_more_memory():
    history = History(room=100)
    claimed = [told(f"x{number}", number) for number in range(5)]

    def go_on(numbers: range) -> int:
        for number in numbers:
            history.own(T, "claimed", claimed[:1])
            history.told(T, "withdrawn", claimed[:1])
            history.contested(T, "contested", claimed[0], told("db", number, CARL))
            history.exited(number, f"{number}" * 100)
            history.peer_up(T, BOB, number)
            history.peer_down(
                T, "peer lost", BOB, number, "cut", 9, {f"{number}/{each}": claimed[each] for each in range(5)}
            )
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        some = go_on(range(1500))
        assert go_on(range(1500, 2500)) - some < some / 10
    finally:
        tracemalloc.stop()


def test_a_lost_peer_is_one_entry_however_many_names_it_had():
    history = History(room=100)
    history.told(T, "claimed", [told("other", 1, CARL)])
    mirrored = {f"x{number}": told(f"x{number}", number) for number in range(1, 101)}
    history.peer_up(T, BOB, 1)
    history.peer_down(T, "peer lost", BOB, 1, "cut", 100, mirrored)
    history.peer_up(T, BOB, 1)
    assert happened(history, "x7") == ["peer lost", "peer up"]
    assert happened(history, "other") == ["claimed"] and happened(history, "never") == []


def test_of_a_lost_peer_with_more_names_than_are_remembered_the_kept_mirror_tells():
    history = History(room=10)
    mirrored = {f"x{number}": told(f"x{number}", number) for number in range(1, 101)}
    history.told(T, "claimed", [mirrored["x100"]])
    history.peer_down(T, "peer lost", BOB, 1, "cut", 100, mirrored)
    assert happened(history, "x7", mirrored["x7"]) == ["peer lost"]
    assert happened(history, "x100") == ["claimed", "peer lost"]
    assert happened(history, "x7") == happened(history, "later", told("later", 101)) == []
    assert happened(history, "x7", Claim("x7", Pid(BOB, 2, 1), 7, 1)) == []  # of another start


def test_what_was_gone_before_its_peer_was_lost_did_not_go_with_it():
    history = History(room=1)
    history.told(T, "withdrawn", [told("db", 1)])
    history.peer_down(T, "peer lost", BOB, 1, "cut", 9, {"a": told("a", 2), "b": told("b", 3)})
    assert happened(history, "db") == ["withdrawn"]


def test_the_session_that_brought_a_name_is_told_of_unless_its_claim_was():
    history = History()
    for _ in range(2):
        history.peer_up(T, BOB, 1)
    assert happened(history, "db", told("db", 1)) == ["peer up"]
    history.told(T, "claimed", [told("db", 1)])
    assert happened(history, "db", told("db", 1)) == ["claimed"]


def test_a_contest_that_is_repeated_is_told_once():
    history = History()
    for _ in range(3):
        history.contested(T, "contested", told("db", 1), told("db", 2, CARL))
    assert happened(history, "db") == ["contested"]


def test_an_explanation_has_the_last_of_what_has_happened():
    names, history = table(), History()
    for position in range(MAX_PAST + 7):
        history.own(T + position, "claimed", [told("db", position, ADA)])
    past = why(names, history=history).history
    assert len(past) == MAX_PAST and past[-1].time == (T + MAX_PAST + 6) / 1000


def test_a_time_that_no_calendar_has_is_shown_as_a_number():
    history = History()
    history.own(2**62, "claimed", [told("db", 1, ADA)])  # by a wild clock
    assert f"  {2**62 / 1000:.3f}  claimed: " in str(why(table(), history=history))
