"""One kernel, and peers whose frames are written by hand: moments that a simulation reaches seldom or never."""

import random
import time
from collections.abc import Sequence
from typing import Any

import pytest

from kinfolk import effects as fx
from kinfolk.core.history import ROOM
from kinfolk.core.ledger import Claim
from kinfolk.errors import NameTaken, NameUnknown, NodeUnreachable
from kinfolk.ids import Pid, Seed
from kinfolk.kernel import Kernel
from kinfolk.tempo import Settings
from kinfolk.wire import frames

ADA, BOB, CARL = "ada@h:1", "bob@h:2", "carl@h:3"
CREATION = 7


class Ada:
    """The kernel. What its steps lead to is returned, and is in `said` as far as it is for peers."""

    def __init__(self, **settings: Any) -> None:
        self.kernel = Kernel(ADA, CREATION, Settings(**settings), random.Random(1))
        self.kernel.creation_is_final = True
        self.names = self.kernel.names
        self.time = 0.0
        self.conns: dict[str, int] = {}
        self.said: dict[str, list[frames.Operation]] = {BOB: [], CARL: []}

    def handle(self, happened: fx.Input) -> list[fx.Effect]:
        effects = self.kernel.handle(happened, fx.Now(self.time, 0))
        peers = {conn: peer for peer, conn in self.conns.items()}
        for effect in effects:
            if isinstance(effect, fx.Send):
                for conn in effect.conns:
                    self.said[peers[conn]].append(effect.operation)
        return effects

    def open(self, peer: str, *first: frames.Operation, creation: int = 0, position: int = 0) -> list[fx.Effect]:
        """A session opens; the peer lists nobody, offers what it mirrors of us, and goes on."""
        conn = self.conns[peer] = self.kernel.new_connection()
        effects = self.handle(fx.Opened(conn, peer, 1, dialled=False))
        return effects + self.say(peer, frames.Peers([], creation, position), *first)

    def close(self, peer: str) -> list[fx.Effect]:
        return self.handle(fx.Closed(self.conns.pop(peer), "cut"))

    def say(self, peer: str, *operations: frames.Operation) -> list[fx.Effect]:
        return [effect for said in operations for effect in self.handle(fx.Received(self.conns[peer], [said]))]

    def finish(self) -> list[fx.Effect]:
        """All slices that are left."""
        effects: list[fx.Effect] = []
        while self.names.busy:
            effects += self.handle(fx.Turn())
        return effects

    def claim(self, name: str, local: int = 1, ref: int = 1, *, wait: bool = False) -> list[fx.Effect]:
        return self.handle(fx.Register(ref, name, own(local), wait, 9.0, "message"))


def own(local: int) -> Pid:
    return Pid(ADA, CREATION, local)


def synced(*names: str, position: int | None = None, confirmed: bool = True, stamp: int = 1) -> frames.LedgerSynced:
    """A whole sync: claims of these names by process 1, made one after the other."""
    positions = list(range(1, len(names) + 1))
    count = len(names)
    return frames.LedgerSynced(
        1, count if position is None else position, True, list(names), [1] * count, positions, [stamp] * count,
        [confirmed] * count,
    )  # fmt: skip


def only(kind: type[Any], things: Sequence[object]) -> list[Any]:
    return [thing for thing in things if isinstance(thing, kind)]


def test_a_peer_that_leaves_is_gone_at_once_and_never_comes_back_in_that_creation():
    ada = Ada(step=1)
    ada.open(BOB, synced("b", "c"))
    ada.finish()
    ada.open(CARL, synced())
    effects = ada.say(BOB, frames.NodeLeft(1), frames.Goodbye("closed", "it is what old nodes understand"))
    assert [down.reason for down in only(fx.PeerDown, effects)] == ["left"]
    assert ada.names.whereis("b") is ada.names.whereis("c") is None, "though its names leave the table bit by bit"
    assert BOB not in ada.names.kept
    ada.finish()
    ada.conns.pop(BOB)

    (refused,) = only(fx.Refuse, ada.handle(fx.Proved(7, BOB, 1)))
    assert refused.code == "left" and "start it anew" in refused.detail
    conn = ada.conns[BOB] = ada.kernel.new_connection()
    assert only(fx.Admit, ada.handle(fx.Proved(conn, BOB, 2)))
    assert only(fx.PeerUp, ada.handle(fx.Opened(conn, BOB, 2, dialled=False)))


def test_a_peer_that_has_left_is_not_dialled_unless_a_later_start_is_listed_or_the_user_has_named_it():
    for asked_for, listed, dialled in ((False, 1, False), (False, 2, True), (True, 1, True)):
        ada = Ada()
        if asked_for:
            ada.handle(fx.Join(1, (Seed.parse(BOB),), 5.0, True))
            ada.handle(fx.DialFailed(1, "unreachable", NodeUnreachable("nobody is there")))
        ada.open(BOB, synced())
        ada.say(BOB, frames.NodeLeft(1))
        ada.conns.pop(BOB)
        effects = ada.open(CARL)
        effects += ada.close(CARL)
        conn = ada.conns[CARL] = ada.kernel.new_connection()
        effects += ada.handle(fx.Opened(conn, CARL, 1, dialled=False))
        effects += ada.say(CARL, frames.Peers([BOB], creations=[listed]))
        ada.time = 100.0
        effects += ada.handle(fx.TimePassed())
        assert (BOB in [dial.seed.expects for dial in only(fx.Dial, effects)]) is dialled


def test_a_node_that_leaves_says_so_to_everybody_before_it_closes():
    ada = Ada()
    ada.open(BOB, synced())
    ada.open(CARL, synced())
    effects = ada.handle(fx.Shutdown(leaves=True))
    assert ada.said[BOB][-1] == ada.said[CARL][-1] == frames.NodeLeft(CREATION)
    assert [close.code for close in only(fx.Close, effects)] == ["closed", "closed"]
    assert effects.index(only(fx.Send, effects)[-1]) < effects.index(only(fx.Close, effects)[0])


def test_a_join_that_ends_in_the_midst_of_a_slice_confirms_after_what_the_slice_has_withdrawn():
    ada = Ada(step=4)
    ada.open(BOB, synced("a", "b", "c", "d", "e"))
    ada.open(CARL, synced("lost"))
    ada.finish()
    ada.close(BOB)
    ada.close(CARL)
    ada.finish()
    ada.open(BOB)
    ada.handle(fx.Join(99, (Seed.parse(BOB),), 5.0, True, 0))
    ada.open(CARL)
    ada.claim("lost")
    ada.claim("kept", 2)
    kept = ada.names.own["kept"].claim.position
    for peer in (BOB, CARL):
        ada.say(peer, frames.Acknowledged([kept]))
    ada.say(BOB, frames.LedgerResumed(5, 5))
    assert not ada.names.own["kept"].confirmed, "the join goes on: one of bob's names is still on its way"
    effects = ada.say(CARL, frames.LedgerResumed(1, 1))
    assert fx.Succeed(99) in effects and ada.names.own["kept"].confirmed and "lost" not in ada.names.own
    entries = [said.operation for said in only(fx.Send, effects)]
    assert [type(entry) for entry in entries if hasattr(entry, "position")] == [
        frames.NamesWithdrawn, frames.NameConfirmed,
    ]  # fmt: skip


def part(name: str, *, done: bool) -> frames.Operation:
    """One name, of many."""
    return frames.LedgerSynced(1, 999, done, [name], [1], [1 + int(name[1:])], [1], [True])


def test_a_join_waits_beyond_its_time_for_who_goes_on_telling_its_names():
    ada = Ada()
    ada.handle(fx.Join(99, (Seed.parse(BOB),), 1.0, True, 0))
    ada.open(BOB, part("n0", done=False))

    def passes(seconds: float) -> list[fx.Effect]:
        ada.time += seconds
        ada.say(BOB, frames.Ping(1))  # it lives
        return [effect for effect in ada.handle(fx.TimePassed()) if isinstance(effect, fx.Succeed | fx.Fail)]

    assert passes(1.01) == []
    ada.say(BOB, part("n1", done=False))
    assert passes(1.01) == [], "something has come meanwhile"
    assert fx.Succeed(99) in ada.say(BOB, part("n2", done=True))

    ada.close(BOB)
    ada.handle(fx.Join(100, (Seed.parse(BOB),), 1.0, True, 0))
    ada.open(BOB, part("n0", done=False))
    assert passes(1.01) == []
    ada.say(BOB, frames.LedgerSynced(1, 999, False, [], [], [], [], []))
    assert passes(1.01) == [fx.Succeed(100)], "nothing has come: it starts without"


def test_a_join_waits_for_who_goes_on_from_where_a_session_broke_and_for_another_session():
    ada = Ada()
    ada.open(BOB, synced("n0"))
    ada.close(BOB)
    ada.finish()
    ada.handle(fx.Join(99, (Seed.parse(BOB),), 1.0, True, 0))
    ada.open(BOB, frames.LedgerResumed(1, 4), frames.NameClaimed(2, "n1", 1, 1))
    ada.time += 1.01
    assert not any(isinstance(effect, fx.Succeed | fx.Fail) for effect in ada.handle(fx.TimePassed()))
    ada.close(BOB)
    ada.open(BOB, frames.LedgerResumed(2, 4), frames.NameClaimed(3, "n2", 1, 1))
    ada.time += 1.01
    assert not any(isinstance(effect, fx.Succeed | fx.Fail) for effect in ada.handle(fx.TimePassed()))
    assert fx.Succeed(99) in ada.say(BOB, frames.NameClaimed(4, "n3", 1, 1))


def test_a_join_is_bounded_whatever_comes_and_who_connects_gets_the_time_that_was_given():
    ada = Ada()
    ada.handle(fx.Join(1, (Seed.parse(BOB),), 1.0, True, 0))
    ada.handle(fx.Join(2, (Seed.parse(BOB),), 1.0, False))
    ada.open(BOB, part("n0", done=False))
    answers: dict[int, float] = {}
    for number in range(1, 100):
        ada.say(BOB, part(f"n{number}", done=False))
        ada.time += 0.5
        for effect in ada.handle(fx.TimePassed()):
            if isinstance(effect, fx.Succeed | fx.Fail):
                answers[effect.ref] = ada.time
    assert 1.0 <= answers[2] <= 1.5 and 10 < answers[1] < 14


@pytest.mark.parametrize(
    "said",
    [
        (frames.NameClaimed(2, "b", 1, 0), frames.NameClaimed(9, "c", 1, 3)),
        (frames.NameClaimed(2, "b", 1, 2**60), frames.NameConfirmed(3, "b", 2), frames.NameConfirmed(9, "x", 1)),
    ],
    ids=["claims", "confirmations"],
)
def test_what_a_peer_says_before_it_breaks_the_protocol_is_taken_in_and_then_it_is_lost(said: Any):
    ada = Ada()
    ada.open(CARL, synced())
    ada.open(BOB, synced("x"), frames.RegistrationAsked(1, "b", 5, 9000, "exit"))
    effects = ada.handle(fx.Received(ada.conns[BOB], said))
    assert [close.code for close in only(fx.Close, effects)] == ["protocol"] and only(fx.PeerDown, effects)
    ada.finish()
    assert ada.names.whereis("x") is None
    ada.claim("new")
    assert ada.names.whereis("new") is not None


def test_a_catch_up_that_ends_in_a_breach_costs_no_entry_of_ours():
    ada = Ada()
    ada.open(BOB, synced("x"))
    ada.open(CARL, synced())
    ada.close(BOB)
    ada.finish()
    ada.open(BOB, frames.LedgerResumed(1, 2), frames.RegistrationAsked(1, "mine", 5, 9000, "exit"))
    ada.handle(fx.Received(ada.conns[BOB], [frames.NameClaimed(2, "a", 1, 2), frames.NameClaimed(4, "b", 1, 3)]))
    ada.finish()
    assert ada.names.whereis("x") is None
    ada.open(BOB, synced("x"))
    assert ada.names.whereis("x") is not None
    ada.claim("new", wait=True)
    assert set(ada.names.ledger.missing(ada.names.own["new"].claim.position)) == {BOB, CARL}


def test_a_frame_of_very_many_claims_is_one_entry_of_the_history_and_a_catch_up_is_none():
    ada = Ada()
    ada.open(BOB, synced())
    count = 2 * ROOM
    ada.handle(fx.Received(ada.conns[BOB], [frames.NameClaimed(at, f"n{at}", 1, 5) for at in range(1, count)]))
    assert f"n{count - 1}" in str(ada.kernel.explain(f"n{count - 1}"))
    assert len(ada.kernel.history._told.entries) == 1
    ada.handle(fx.Received(ada.conns[BOB], [frames.NameConfirmed(count, "n1", 1)]))
    assert len(ada.kernel.history._told.entries) == 1

    ada = Ada()
    ada.open(BOB, synced("x", confirmed=False))
    ada.close(BOB)
    ada.finish()
    ada.open(BOB, frames.LedgerResumed(1, 2), frames.NameConfirmed(2, "x", 1))
    assert not ada.kernel.history._told.entries


def test_damage_that_is_found_while_we_catch_a_peer_up_is_repaired():
    ada = Ada(sync_part=1)
    ada.open(BOB, synced())
    for number in range(4):
        ada.claim(f"n{number}", ref=number)
    ada.close(BOB)
    ada.open(BOB, synced(), creation=CREATION, position=1)
    assert only(frames.LedgerResumed, ada.said[BOB]), "we go on"
    ada.said[BOB].clear()
    ada.say(BOB, frames.ResyncAsked(2))
    while ada.kernel.members.by_peer[BOB].unsent:
        ada.handle(fx.Drained(ada.conns[BOB]))
    parts = only(frames.LedgerSynced, ada.said[BOB])
    assert {name for part in parts for name in part.names} == {"n0", "n1", "n2", "n3"} and parts[-1].done


def test_a_name_that_memory_shows_and_nobody_claims_is_no_reason_to_fall():
    ada = Ada()
    ada.open(BOB, synced("a"))
    ada.names.mirrors[BOB].claims.clear()
    effects = ada.handle(fx.Unregister(5, "a", None, 1.0))
    assert [type(failed.error) for failed in only(fx.Fail, effects)] == [NameUnknown]


def asked(ada: Ada, peer: str, reference: int, name: str, local: int) -> list[fx.Effect]:
    return ada.say(peer, frames.RegistrationAsked(reference, name, local, 5000, "message"))


def settle(ada: Ada, peer: str, reference: int, *, keep: bool) -> None:
    ada.say(peer, frames.AskSettled(reference, keep))


def test_a_name_asked_for_while_its_dead_holder_is_on_the_way_out_goes_with_the_asker_until_it_is_answered():
    ada = Ada(step=1)
    for name in ("a", "b", "c"):
        ada.claim(name, local=1)
    ada.open(BOB, synced())
    ada.handle(fx.ProcessExited(1))
    assert "c" in ada.names.own and ada.names.whereis("c") is None
    asked(ada, BOB, 1, "c", 2)
    assert ada.names.whereis("c") == own(2)
    ada.close(BOB)
    ada.finish()
    assert ada.names.whereis("c") is None, "bob was told that the connection is lost, and nothing registered"


def test_a_name_that_an_asker_was_told_to_have_stays_when_its_session_ends():
    ada = Ada()
    ada.open(BOB, synced())
    asked(ada, BOB, 1, "x", 1)
    ada.say(BOB, frames.Acknowledged([1]))
    assert only(frames.AskAnswered, ada.said[BOB])[-1].outcome == "ok"
    ada.close(BOB)
    ada.finish()
    assert ada.names.whereis("x") == own(1), "its user may have been told, and relies on it"


def test_what_one_asker_keeps_does_not_go_with_another():
    ada = Ada()
    ada.open(BOB, synced())
    ada.open(CARL, synced())
    asked(ada, BOB, 1, "x", 1)
    for peer in (BOB, CARL):
        ada.say(peer, frames.Acknowledged([1]))
    asked(ada, CARL, 1, "x", 1)
    assert only(frames.AskAnswered, ada.said[CARL])[-1].outcome == "ok"
    settle(ada, CARL, 1, keep=True)
    ada.close(BOB)
    assert ada.names.whereis("x") == own(1)


def test_what_one_asker_has_yet_to_settle_does_not_go_with_another():
    ada = Ada()
    ada.open(BOB, synced())
    ada.open(CARL, synced())
    asked(ada, BOB, 1, "x", 1)
    for peer in (BOB, CARL):
        ada.say(peer, frames.Acknowledged([1]))
    asked(ada, CARL, 1, "x", 1)
    settle(ada, BOB, 1, keep=False)
    assert ada.names.whereis("x") == own(1), "carl has yet to say"
    settle(ada, CARL, 1, keep=False)
    assert ada.names.whereis("x") is None, "nobody has any use for it"


def test_a_peer_that_was_synced_behind_a_withdrawal_acknowledges_it_when_all_is_in_its_views():
    ada = Ada(sync_part=1, log=3)
    ada.open(BOB, synced())
    for number in range(3):
        ada.claim(f"n{number}", ref=number)
    ada.close(BOB)
    ada.open(BOB, synced(), creation=CREATION, position=3)
    assert only(frames.LedgerResumed, ada.said[BOB]), "we go on"
    ada.said[BOB].clear()
    ada.handle(fx.Unregister(50, "n0", None, 9.0))
    for number in range(4, 9):
        ada.claim(f"n{number}", ref=number)
    while not any(part.done for part in only(frames.LedgerSynced, ada.said[BOB])):
        ada.handle(fx.Drained(ada.conns[BOB]))
    assert not only(frames.NamesWithdrawn, ada.said[BOB]), "the log was too short by then"
    end = only(frames.LedgerSynced, ada.said[BOB])[-1].position
    assert fx.Succeed(50) not in ada.say(BOB, frames.Acknowledged([end])), "that is the claim made there, and no more"
    assert fx.Succeed(50) in ada.say(BOB, frames.Acknowledged([], end))


def test_all_of_a_sync_is_acknowledged_when_it_is_in_the_views():
    ada = Ada(step=1)
    ada.open(BOB, synced("a", "b", position=5))
    assert only(frames.Acknowledged, ada.said[BOB]) == [frames.Acknowledged([], 5)]
    ada.said[BOB].clear()
    ada.say(BOB, synced("a", position=9))
    assert not only(frames.Acknowledged, ada.said[BOB]), "the second sync is built beside the first, which is shown yet"
    ada.finish()
    assert only(frames.Acknowledged, ada.said[BOB]) == [frames.Acknowledged([], 9)]


def test_who_waits_for_a_rival_is_told_when_a_sync_shows_it_confirmed():
    ada = Ada()
    ada.open(BOB, synced("x", confirmed=False))
    assert not only(fx.Fail, ada.claim("x", ref=5, wait=True)), "who has won is not certain yet"
    effects = ada.say(BOB, synced("x", position=2))
    assert [type(failed.error) for failed in only(fx.Fail, effects)] == [NameTaken]


def test_the_losses_of_peers_are_forgotten_with_their_creations():
    ada = Ada(forget_after=100.0)
    ada.open(BOB, synced("a"))
    ada.close(BOB)
    lost = ada.names._lost
    assert lost == {BOB: 1}
    ada.time = 99.0
    ada.handle(fx.TimePassed())
    assert lost == {BOB: 1}
    ada.time = 101.0
    ada.handle(fx.TimePassed())
    assert lost == {}


def test_each_of_many_unregisters_that_time_out_at_once_costs_the_same():
    ada = Ada()
    ada.open(BOB, synced())
    for number in range(8000):
        ada.claim(f"n{number}", ref=number + 1)
        ada.handle(fx.Unregister(10_000 + number, f"n{number}", None, 1.0))
    ada.time = 2.0
    began = time.process_time()
    assert len(only(fx.Succeed, ada.handle(fx.TimePassed()))) == 8000
    assert time.process_time() - began < 1.5, "it grows with their number"


def test_a_name_of_ours_that_the_view_has_lost_is_not_claimed_twice():
    ada = Ada()
    ada.claim("x", 1)
    del ada.names.view["x"]
    effects = ada.claim("x", 2, ref=5)
    assert [type(failed.error) for failed in only(fx.Fail, effects)] == [NameTaken]
    assert ada.names.whereis("x") == own(1) and fx.Count("registry_divergence_total") in effects


def test_nor_one_of_a_dead_process_whose_turn_to_leave_has_not_come():
    ada = Ada(step=1)
    for name in ("a", "b", "c"):
        ada.claim(name, 1)
    ada.handle(fx.ProcessExited(1))
    gone = ada.names.own["c"].claim
    del ada.names.view["c"]
    assert fx.NameAdded("c", own(2)) in ada.claim("c", 2, ref=5)
    ada.finish()
    assert ada.names.whereis("c") == own(2) and ada.names.own["c"].claim != gone and set(ada.names.own) == {"c"}


def test_a_name_that_memory_has_lost_twice_is_held_by_the_one_who_lives():
    ada = Ada(step=1)
    for name in ("a", "b", "c"):
        ada.claim(name, 1)
    ada.handle(fx.ProcessExited(1))
    del ada.names.view["c"]
    ada.open(BOB, synced())
    bobs = Claim("c", Pid(BOB, 1, 1), 1, 1)
    ada.names.mirrors[BOB].put(bobs, True)
    effects = ada.claim("c", 2, ref=5)
    assert [type(failed.error) for failed in only(fx.Fail, effects)] == [NameTaken]
    assert ada.names.whereis("c") == bobs.pid


def test_the_claims_of_a_frame_are_acknowledged_by_one_operation_but_around_what_is_contested():
    ada = Ada()
    ada.claim("x")  # confirmed at once: there is no peer
    ada.open(BOB, synced())
    ada.open(CARL, synced())
    ada.said[BOB].clear()
    claims = [frames.NameClaimed(number, name, 1, 5, None) for number, name in enumerate("abxcd", 1)]
    ada.handle(fx.Received(ada.conns[BOB], claims))
    before, contest, after = ada.said[BOB]
    assert (before, after) == (frames.Acknowledged([1, 2]), frames.Acknowledged([4, 5]))
    assert isinstance(contest, frames.NameContested) and contest.name == "x"
    ada.say(BOB, frames.NameClaimed(6, "e", 1, 5, None))
    assert ada.said[BOB][3:] == [frames.Acknowledged([6])], "not those of another step"
