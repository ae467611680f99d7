"""Sessions on demand, as one kernel has them: the table in `kinfolk.ondemand`, row by row, with frames by hand."""

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from kinfolk import effects as fx
from kinfolk.errors import NodeLost, NodeUnreachable
from kinfolk.ids import Pid, Seed
from kinfolk.kernel import Kernel
from kinfolk.tempo import Settings
from kinfolk.tenure import Held, Member
from kinfolk.wire import frames
from tests.kernel.test_replication import ADA, BOB, CARL, CREATION, Ada, only, synced

LEASE = 5
IDLE, HALF = 10.0, 5.0
DAY = 86400.0
ASKS, SAYS_NO = frames.Rest(True), frames.Rest(False)


class Lazy(Ada):
    """Ada, with a lease from an authority that knows bob as well, and no session."""

    def __init__(self, down_after: float = 1e6) -> None:
        super().__init__()
        self.quiet = 0.0
        chosen = Settings(idle_after=IDLE, stalled_limit=1e9, down_after=down_after)
        self.kernel = Kernel(ADA, CREATION, chosen, random.Random(1), authority="etcd", quiet=lambda peer: self.quiet)
        self.names = self.kernel.names
        self.refs = 0
        enters = self.handle(fx.EnterRegistry(1, 5.0))
        (granting, _) = (consult.request for consult in only(fx.Consult, enters))
        (entering,) = only(fx.Consult, self.handle(fx.Consulted(granting, fx.Granted(LEASE, 10**6))))
        self.handle(fx.Consulted(entering.request, fx.Done(2)))
        self.handle(fx.Snapshot(2, [fact_of(ADA, CREATION, 2)], True, True))
        self.revision = 2

    def told(self, *changes: fx.Fact | fx.Gone) -> list[fx.Effect]:
        self.revision += 1
        return self.handle(fx.Changed(self.revision, changes))

    def lease(self, creation: int = 1) -> list[fx.Effect]:
        """Bob has a lease."""
        return self.told(fact_of(BOB, creation, self.revision + 1))

    def unlease(self) -> list[fx.Effect]:
        """Bob has none any longer."""
        return self.told(fx.Gone(f"nodes/{BOB}", self.revision + 1))

    def connect(self) -> list[fx.Effect]:
        """Bob dials, and all is exchanged."""
        effects = self.open(BOB, synced())
        self.said[BOB].clear()
        return effects

    def reached(self, dial: fx.Dial, creation: int = 1) -> list[fx.Effect]:
        """A dial of ours ends in a session."""
        self.conns[BOB] = dial.conn
        return self.handle(fx.Opened(dial.conn, BOB, creation, dialled=True))

    def beat(self) -> list[frames.Operation]:
        """The next heartbeat. What is said to bob, but for signs of life."""
        due = self.kernel.next_deadline()
        assert due is not None
        self.said[BOB].clear()
        while BOB in self.conns and not any(isinstance(said, frames.Ping) for said in self.said[BOB]):
            due = self.kernel.next_deadline()
            assert due is not None
            self.time = due
            self.handle(fx.TimePassed())
        return [said for said in self.said[BOB] if not isinstance(said, frames.Ping)]

    def dials_until(self, end: float) -> list[fx.Dial]:
        """The dials that its timers lead to, up to the first moment at which there are any."""
        while (due := self.kernel.next_deadline()) is not None and due <= end:
            self.time = due
            dials = only(fx.Dial, self.handle(fx.TimePassed()))
            if dials:
                return dials
        self.time = end
        return []

    def rest(self) -> None:
        """Ask bob to end the session."""
        self.quiet = IDLE
        assert self.beat() == [ASKS]
        self.said[BOB].clear()


def fact_of(node: str, creation: int, revision: int) -> fx.Fact:
    return fx.Fact(f"nodes/{node}", msgspec.json.encode(Member(creation)), revision, LEASE if node == ADA else 6)


def seen(effects: Sequence[fx.Effect]) -> list[str]:
    """What peers do, in words."""
    kinds: dict[type, str] = {
        fx.PeerUp: "up",
        fx.PeerDown: "down",
        fx.Connected: "connected",
        fx.Disconnected: "disconnected",
    }
    return [kinds[type(effect)] for effect in effects if type(effect) in kinds]


def test_a_lease_makes_a_peer_without_a_session_and_its_end_ends_it():
    ada = Lazy()
    effects = ada.lease()
    assert seen(effects) == ["up"] and not only(fx.Dial, effects)
    assert ada.kernel.peers() == {BOB: 1} and ada.kernel.session_of(BOB) is None
    assert seen(ada.lease()) == [], "the same start"
    assert seen(ada.unlease()) == ["down"] and not ada.kernel.peers()


def test_it_is_dialled_once_when_something_waits_for_it_and_nobody_else_is():
    ada = Lazy()
    ada.lease()
    ada.told(fact_of(CARL, 1, ada.revision + 1))
    (dial,) = only(fx.Dial, ada.handle(fx.Reach(BOB)))
    assert dial.seed.expects == BOB
    assert not only(fx.Dial, ada.handle(fx.Reach(BOB))), "it is being dialled"
    effects = ada.reached(dial)
    assert seen(effects) == ["connected"]
    (peers,) = [send.operation for send in only(fx.Send, effects)]
    assert peers == frames.Peers([]), "who knows all from etcd lists nobody"
    assert effects.index(only(fx.Connected, effects)[0]) > effects.index(only(fx.Send, effects)[0])
    effects = ada.handle(fx.Received(dial.conn, [frames.Peers([CARL, "dan@h:4"], 0, 0, [1, 1])]))
    assert not only(fx.Dial, effects), "nor dials whom others list"
    assert not only(fx.Dial, ada.handle(fx.Reach("eve@h:4"))), "and nobody without a lease"


def test_a_dial_that_fails_makes_it_no_peer_until_it_is_reached_or_has_another_lease():
    ada = Lazy()
    ada.lease()
    (dial,) = only(fx.Dial, ada.handle(fx.Reach(BOB)))
    effects = ada.handle(fx.DialFailed(dial.conn, "unreachable", NodeUnreachable("nobody is there")))
    assert seen(effects) == ["down"] and only(fx.PeerDown, effects)[0].reason == "nobody is there"
    assert not ada.kernel.peers() and not only(fx.Dial, ada.handle(fx.Reach(BOB))), "what is said to it is dropped"
    ada.time = 1.0
    (again,) = only(fx.Dial, ada.handle(fx.TimePassed()))
    assert seen(ada.reached(again)) == ["up", "connected"]
    assert seen(ada.handle(fx.Closed(again.conn, "cut"))) == ["disconnected", "down"]
    assert seen(ada.lease(2)) == ["up"] and ada.kernel.peers() == {BOB: 2}


def test_a_session_that_breaks_is_dialled_again_as_long_as_there_is_a_lease():
    for leased in (True, False):
        ada = Lazy()
        ada.lease()
        ada.connect()
        if not leased:
            assert seen(ada.unlease()) == [], "it is connected"
            assert ada.kernel.peers() == {BOB: 1}
        assert seen(ada.close(BOB)) == ["disconnected", "down"]
        ada.time = 5.0
        assert bool(only(fx.Dial, ada.handle(fx.TimePassed()))) == leased
        assert bool(ada.kernel.members.targets) == leased


def test_who_is_not_in_the_view_yet_is_a_peer_by_its_session():
    ada = Lazy()
    assert seen(ada.connect()) == ["up", "connected"]
    assert seen(ada.lease()) == []
    assert seen(ada.unlease()) == []
    assert seen(ada.close(BOB)) == ["disconnected", "down"]


def test_a_later_start_ends_the_earlier_and_an_earlier_one_is_not_taken_in():
    ada = Lazy()
    ada.lease()
    ada.connect()
    effects = ada.lease(3)
    assert seen(effects) == ["disconnected", "down", "up"]
    assert only(fx.Close, effects)[0].code == "superseded" and ada.kernel.peers() == {BOB: 3}
    assert only(fx.Dial, ada.handle(fx.Reach(BOB)))
    conn = ada.kernel.new_connection()
    effects = ada.handle(fx.Opened(conn, BOB, 2, dialled=False))
    assert seen(effects) == [] and [close.conn for close in only(fx.Close, effects)] == [conn]


def test_it_asks_to_end_a_session_that_is_quiet_and_does_so_when_the_other_agrees():
    ada = Lazy()
    ada.lease()
    ada.connect()
    ada.quiet = IDLE - 0.1
    assert ada.beat() == []
    ada.rest()
    assert ada.beat() == [], "it asks once"
    effects = ada.say(BOB, frames.Goodbye("idle", "yes"))
    assert seen(effects) == ["disconnected"] and ada.kernel.peers() == {BOB: 1}
    ada.time += 10 * IDLE
    assert not only(fx.Dial, ada.handle(fx.TimePassed()))
    assert only(fx.Dial, ada.handle(fx.Reach(BOB)))


def test_it_is_dialled_anew_soon_however_long_ago_the_last_session_was():
    ada = Lazy()
    ada.lease()
    ada.connect()
    ada.rest()
    ada.say(BOB, frames.Goodbye("idle", "yes"))
    ada.time += 100 * 3600.0
    (dial,) = only(fx.Dial, ada.handle(fx.Reach(BOB)))
    assert seen(ada.handle(fx.DialFailed(dial.conn, "unreachable", NodeUnreachable("nobody")))) == ["down"]
    ada.time += 0.2
    assert only(fx.Dial, ada.handle(fx.TimePassed())), "and so it can be found again"


def test_a_dial_that_has_outlived_the_lease_it_was_for_says_nothing_about_the_next_start():
    ada = Lazy()
    ada.lease(1)
    (dial,) = only(fx.Dial, ada.handle(fx.Reach(BOB)))
    assert seen(ada.unlease()) == ["down"] and seen(ada.lease(2)) == ["up"]
    assert seen(ada.handle(fx.DialFailed(dial.conn, "unreachable", NodeUnreachable("timeout")))) == []
    assert ada.kernel.peers() == {BOB: 2} and only(fx.Dial, ada.handle(fx.Reach(BOB)))


def test_an_old_start_that_answers_a_dial_from_before_is_dialled_again():
    ada = Lazy()
    ada.lease(1)
    (dial,) = only(fx.Dial, ada.handle(fx.Reach(BOB)))
    ada.unlease()
    ada.lease(2)
    assert seen(ada.reached(dial, 1)) == [] and ada.kernel.peers() == {BOB: 2}
    assert only(fx.Dial, ada.handle(fx.Reach(BOB))) or ada.dials_until(ada.time + 100.0)


def _with_an_alias(ada: Lazy) -> tuple[fx.Dial, fx.Dial]:
    """A session that was reached by another address of bob breaks. The dials to both that follow."""
    ada.lease()
    (dial,) = only(fx.Dial, ada.handle(fx.Seek((Seed.parse("h:99"),))))
    ada.reached(dial)
    ada.say(BOB, frames.Peers([]))
    ada.say(BOB, synced())
    assert seen(ada.close(BOB)) == ["disconnected", "down"]
    dials = {dial.seed.address.port: dial for _ in range(2) for dial in ada.dials_until(ada.time + 100.0)}
    return dials[2], dials[99]


def test_a_dial_to_another_address_that_fails_says_nothing_about_a_node():
    ada = Lazy()
    proper, alias = _with_an_alias(ada)
    assert seen(ada.lease(2)) == ["up"]
    assert seen(ada.handle(fx.DialFailed(alias.conn, "unreachable", NodeUnreachable("nobody")))) == []
    assert ada.kernel.peers() == {BOB: 2}
    assert seen(ada.handle(fx.DialFailed(proper.conn, "unreachable", NodeUnreachable("nobody")))) == ["down"]


def test_nobody_is_dialled_again_who_is_a_peer_and_whom_nothing_waits_for():
    for waits in (False, True):
        ada = Lazy()
        proper, alias = _with_an_alias(ada)
        for dial in (alias, proper):
            ada.handle(fx.DialFailed(dial.conn, "unreachable", NodeUnreachable("nobody")))
        assert seen(ada.lease(2)) == ["up"]
        if waits:
            ada.handle(fx.Reach(BOB))
        assert bool(ada.dials_until(ada.time + DAY / 2)) == waits


def test_a_join_dials_again_whom_nothing_waits_for():
    ada = Lazy()
    ada.lease()
    (dial,) = only(fx.Dial, ada.handle(fx.Join(9, (Seed.parse(BOB),), 1000.0, False)))
    ada.handle(fx.DialFailed(dial.conn, "duplicate", NodeUnreachable("it is dialling")))
    assert ada.kernel.peers() == {BOB: 1} and ada.dials_until(ada.time + 100.0)


@pytest.mark.parametrize("before", ["nothing", "a session"])
def test_who_is_given_up_undialled_is_dialled_as_long_as_it_has_a_lease(before: str):
    ada = Lazy()
    ada.lease()
    if before == "a session":
        ada.connect()
        ada.rest()
        ada.say(BOB, frames.Goodbye("idle", "yes"))
        del ada.conns[BOB]
    assert seen(ada.handle(fx.Unsaid(BOB, "too much"))) == ["down"]
    (dial,) = ada.dials_until(ada.time + 100.0)
    assert seen(ada.reached(dial)) == ["up", "connected"]


@pytest.mark.parametrize("leased", [True, False])
def test_who_has_a_lease_is_dialled_however_long_it_was_out_of_reach(leased: bool):
    ada = Lazy()
    if leased:
        ada.lease()
        (dial,) = only(fx.Dial, ada.handle(fx.Reach(BOB)))
    else:
        (dial,) = only(fx.Dial, ada.handle(fx.Seek((Seed.parse(BOB),))))
    dials = [dial]
    while ada.time < 1.5 * DAY:
        ada.handle(fx.DialFailed(dial.conn, "unreachable", NodeUnreachable("partition")))
        dials = ada.dials_until(2 * DAY)
        if not dials:
            break
        (dial,) = dials
    if leased:
        assert dials and seen(ada.reached(dial)) == ["up", "connected"]
    else:
        assert not dials and not ada.kernel.members.targets, "nobody says that it is there"


def test_it_holds_what_is_said_until_the_other_has_answered():
    ada = Lazy()
    ada.lease()
    ada.connect()
    ada.quiet = IDLE
    due = ada.kernel.next_deadline()
    assert due is not None
    ada.time = due
    effects = ada.handle(fx.TimePassed())
    *_, last, hold = [effect for effect in effects if isinstance(effect, fx.Send | fx.Hold)]
    assert isinstance(last, fx.Send) and last.operation == ASKS and hold == fx.Hold(BOB)
    assert only(fx.GoOn, ada.say(BOB, SAYS_NO)) == [fx.GoOn(BOB)]
    assert BOB in ada.kernel.peers() and ada.kernel.session_of(BOB) is not None
    ada.rest()  # and asks again


def test_who_lives_and_does_not_answer_is_no_peer():
    ada = Lazy(down_after=5.0)
    ada.lease()
    ada.connect()
    ada.rest()
    ada.time += 60.0  # this node was stopped
    effects = ada.handle(fx.TimePassed())
    assert not seen(effects)
    asked = ada.time
    while not seen(effects):
        ada.time += 1.0
        ada.handle(fx.Heard(ada.conns[BOB]))
        effects = ada.handle(fx.TimePassed())
    assert 5.0 < ada.time - asked <= 7.0 and seen(effects) == ["disconnected", "down"]
    assert "has not answered" in only(fx.PeerDown, effects)[0].reason


def test_it_agrees_if_it_has_been_quiet_for_half_of_the_time_and_says_no_if_not():
    ada = Lazy()
    ada.lease()
    ada.connect()
    ada.quiet = HALF - 0.1
    effects = ada.say(BOB, ASKS)
    assert ada.said[BOB] == [SAYS_NO] and not only(fx.Close, effects) and not only(fx.Hold, effects)
    ada.quiet = HALF
    effects = ada.say(BOB, ASKS)
    assert [close.code for close in only(fx.Close, effects)] == ["idle"] and seen(effects) == ["disconnected"]


def test_of_two_that_ask_at_once_each_answers_the_other():
    for waits, answers in ((False, ["idle"]), (True, [])):
        ada = Lazy()
        ada.lease()
        ada.connect()
        ada.rest()
        ada.quiet = 0.0 if waits else IDLE  # whether something is held meanwhile
        effects = ada.say(BOB, ASKS)
        assert [close.code for close in only(fx.Close, effects)] == answers
        if waits:
            assert ada.said[BOB] == [SAYS_NO]
            assert seen(ada.say(BOB, frames.Goodbye("idle", "yes"))) == ["disconnected"]
        assert ada.kernel.peers() == {BOB: 1}


@pytest.mark.parametrize("how", ["breaks", "replaced"])
def test_a_session_that_ends_while_it_waits_for_the_answer_has_ended_well(how: str):
    ada = Lazy()
    ada.lease()
    ada.connect()
    ada.rest()
    ada.time += 3.0
    ada.quiet += 3.0
    if how == "breaks":
        assert seen(ada.close(BOB)) == ["disconnected"]
    else:
        assert seen(ada.connect()) == ["disconnected", "connected"]
    assert ada.kernel.peers() == {BOB: 1}


def _something_hangs_on_it(ada: Lazy) -> None:
    ada.quiet = 0.0


def _a_word_was_heard_since(ada: Lazy) -> None:
    ada.time += 9.0
    ada.quiet = 8.9


def _is_asked_and_has_answered(ada: Lazy) -> None:
    ada.say(BOB, frames.RegistrationAsked(9, "x", 1, 10**8, "message"))


@pytest.mark.parametrize("how", ["breaks", "replaced"])
@pytest.mark.parametrize("because", [_something_hangs_on_it, _a_word_was_heard_since, _is_asked_and_has_answered])
def test_but_is_lost_if_something_came_that_the_other_end_has_lost(because: Any, how: str):
    ada = Lazy()
    ada.lease()
    ada.connect()
    ada.rest()
    because(ada)
    if how == "breaks":
        assert seen(ada.close(BOB)) == ["disconnected", "down"] and not ada.kernel.peers()
    else:
        assert seen(ada.connect()) == ["disconnected", "down", "up", "connected"]


def test_an_end_that_both_have_agreed_on_is_no_loss_whatever_waits_meanwhile():
    ada = Lazy()
    ada.lease()
    ada.connect()
    ada.rest()
    ada.quiet = 0.0  # somebody speaks: it waits for the next session
    assert seen(ada.say(BOB, frames.Goodbye("idle", "yes"))) == ["disconnected"] and ada.kernel.peers() == {BOB: 1}


@pytest.mark.parametrize("how", ["agreed", "breaks", "lost"])
def test_who_is_stalled_when_its_session_ends_well_is_not_stalled_for_ever(how: str):
    ada = Lazy()
    ada.lease()
    ada.connect()
    ada.rest()
    ada.time += 2.0
    assert only(fx.PeerStalled, ada.handle(fx.StallHeard(ada.conns[BOB], 1.5)))
    ada.time += 0.3
    ada.quiet = 0.0 if how == "lost" else IDLE + 2.3
    effects = ada.say(BOB, frames.Goodbye("idle", "yes")) if how == "agreed" else ada.close(BOB)
    if how == "lost":
        assert only(fx.PeerDown, effects) and not only(fx.PeerResumed, effects), "that says it"
    else:
        (resumed,) = only(fx.PeerResumed, effects)
        assert (resumed.peer, resumed.seconds) == (BOB, pytest.approx(1.5)) and not only(fx.PeerDown, effects)


@pytest.mark.parametrize(
    "last", [frames.Goodbye("closed", "bye"), frames.NodeLeft(1), frames.Peers([]), frames.Goodbye("silent", "")]
)
def test_nor_has_one_that_ends_because_the_other_says_that_it_is_gone_or_breaks_the_protocol(last: frames.Operation):
    ada = Lazy()
    ada.lease()
    ada.connect()
    ada.rest()
    assert seen(ada.say(BOB, last)) == ["disconnected", "down"] and not ada.kernel.peers()


def test_a_no_to_what_was_not_asked_is_a_breach():
    ada = Lazy()
    ada.lease()
    ada.connect()
    effects = ada.say(BOB, SAYS_NO)
    assert [close.code for close in only(fx.Close, effects)] == ["protocol"] and not only(fx.GoOn, effects)


def test_a_goodbye_that_agrees_to_what_was_not_asked_is_a_loss():
    ada = Lazy()
    ada.lease()
    ada.connect()
    assert seen(ada.say(BOB, frames.Goodbye("idle", "yes"))) == ["disconnected", "down"]


def _no_lease_here(ada: Lazy) -> None:
    ada.handle(fx.Consulted(fx.Put("names/x", b"", LEASE, 1), None))
    assert ada.kernel.tenure is not None
    ada.kernel.tenure._lose_lease("it is over")


def _no_lease_there(ada: Lazy) -> None:
    ada.unlease()


def _asks(ada: Lazy) -> None:
    ada.handle(fx.Register(9, "x", Pid(BOB, 1, 1), True, 1e5, "message"))


def _is_asked(ada: Lazy) -> None:
    ada.say(BOB, frames.RegistrationAsked(9, "x", 1, 10**8, "message"))


def _is_stalled(ada: Lazy) -> None:
    ada.time += 0.5
    ada.handle(fx.StallHeard(ada.conns[BOB], 0.4))


@pytest.mark.parametrize("because", [_no_lease_here, _no_lease_there, _asks, _is_asked, _is_stalled])
def test_a_session_is_kept_while_the_kernel_needs_it(because: Any):
    ada = Lazy()
    ada.lease()
    ada.connect()
    because(ada)
    ada.quiet = IDLE
    assert ASKS not in ada.beat()
    ada.said[BOB].clear()
    ada.say(BOB, ASKS)
    assert SAYS_NO in ada.said[BOB]


def test_orders_about_names_wait_for_the_session_and_end_with_the_peer():
    ada = Lazy()
    ada.lease()
    effects = ada.handle(fx.Register(9, "x", Pid(BOB, 1, 1), True, 5.0, "message"))
    assert [type(say.operation) for say in only(fx.Say, effects)] == [frames.RegistrationAsked]
    (dial,) = only(fx.Dial, ada.handle(fx.Reach(BOB)))
    failed = only(fx.Fail, ada.handle(fx.DialFailed(dial.conn, "unreachable", NodeUnreachable("nobody"))))
    assert [type(fail.error) for fail in failed] == [NodeLost]


def test_a_peer_for_which_too_much_waits_is_given_up():
    ada = Lazy()
    ada.lease()
    assert seen(ada.handle(fx.Unsaid(BOB, "too much"))) == ["down"]
    ada.lease(2)
    conn = ada.kernel.new_connection()
    ada.conns[BOB] = conn
    ada.handle(fx.Opened(conn, BOB, 2, dialled=False))
    assert seen(ada.handle(fx.Unsaid(BOB, "too much"))) == ["disconnected", "down"]


def test_a_mesh_never_lets_a_session_go():
    ada = Ada()
    ada.open(BOB, synced())
    ada.said[BOB].clear()
    ada.say(BOB, ASKS)
    assert ada.said[BOB] == [SAYS_NO] and ada.kernel.session_of(BOB) is not None


def test_names_and_groups_told_as_on_the_mesh_end_the_session():
    for told in (frames.GroupEntered(1, "stores", 1), frames.NameClaimed(1, "x", 1, 1)):
        ada = Lazy()
        ada.lease()
        ada.connect()
        effects = ada.say(BOB, told)
        assert [close.code for close in only(fx.Close, effects)] == ["registry"]
        assert not ada.kernel.groups.members("stores")


def test_what_is_known_of_names_does_not_depend_on_sessions():
    ada = Lazy()
    ada.lease()
    held = msgspec.json.encode(Held(f"{BOB}/1/1", 1))
    ada.told(fx.Fact("names/db", held, ada.revision + 1, 6), fx.Fact(f"groups/{BOB}/1/1/stores", b"1", 9, 6))
    ada.connect()
    ada.close(BOB)
    assert ada.kernel.tenure is not None and ada.kernel.tenure.whereis("db") == Pid(BOB, 1, 1)
    assert ada.kernel.groups.members("stores") == [Pid(BOB, 1, 1)]
