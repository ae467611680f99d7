"""Who is connected: both ends of two simultaneous dials must end with the same session, whatever comes first."""

import copy
from collections import deque
from typing import Any

import pytest

from kinfolk.core.members import Members, Target, Verdict
from kinfolk.ids import Seed

ADA, BOB = "ada@h:1", "bob@h:2"
ADMIT, DUPLICATE, STALE, LEFT = Verdict.ADMIT, Verdict.DUPLICATE, Verdict.STALE, Verdict.LEFT


class End:
    """One end: asks its Members what the kernel would ask, and writes to the other end what the shell would send."""

    def __init__(self, name: str, peer: str, wires: "dict[tuple[int, str], deque[str]]") -> None:
        self.name, self.peer, self.wires = name, peer, wires
        self.members = Members(name)
        self.over: set[int] = set()

    def say(self, conn: int, what: str) -> None:
        self.wires[conn, self.peer].append(what)

    def close(self, conn: int) -> None:
        self.say(conn, "closed")
        self.over.add(conn)

    def dial(self, conn: int, seed: str) -> None:
        target = self.members.target(Seed.parse(seed), 0.0)
        there = self.members.session_with(target) is not None or self.members.expects(target)
        if target.conn is None and not there:
            self.members.dial(target, conn)
            self.say(conn, "proof")

    def receive(self, conn: int, what: str) -> None:
        if conn in self.over:
            return
        match what:
            case "proof":  # the listener: the dialler has proved itself
                if self.members.admit(conn, self.peer, 1) is ADMIT:
                    self.say(conn, "ACK")
                else:
                    self.say(conn, "refused")
                    self.over.add(conn)
            case "refused":
                self.members.dial_ended(conn)
                self.over.add(conn)
            case "ACK":
                target = self.members.dial_ended(conn)
                if target is not None:
                    target.answers = self.peer
                self.open(conn, dialled=True)
            case "first frame":
                self.open(conn, dialled=False)
            case "closed":
                self.members.dial_ended(conn)
                self.members.closed(conn)
                self.over.add(conn)
            case _:
                raise AssertionError(what)

    def open(self, conn: int, *, dialled: bool) -> None:
        if self.members.open(conn, self.peer, 1, dialled) is not ADMIT:
            self.close(conn)
            return
        there = self.members.by_peer.get(self.peer)
        if there is not None:
            self.close(there.conn)
            self.members.closed(there.conn)
        self.members.opened(conn, self.peer, 1, dialled, 0.0)
        if dialled:
            self.say(conn, "first frame")

    def sessions(self) -> list[int]:
        assert sorted(self.members.sessions) == [session.conn for session in self.members.by_peer.values()]
        return list(self.members.sessions)


Move = tuple[str, Any]


class World:
    """Two ends and the connections between them. What one end says on one connection arrives in order."""

    def __init__(self, *plans: "tuple[int, str, str]") -> None:
        self.wires: dict[tuple[int, str], deque[str]] = {
            (conn, end): deque() for conn, _, _ in plans for end in (ADA, BOB)
        }
        self.ends = {ADA: End(ADA, BOB, self.wires), BOB: End(BOB, ADA, self.wires)}
        self.plans = list(plans)
        self.cuts: list[int] = []

    def moves(self) -> list[Move]:
        return (
            [("deliver", key) for key, wire in self.wires.items() if wire]
            + [("dial", plan) for plan in self.plans]
            + [("cut", conn) for conn in self.cuts]
        )

    def after(self, move: Move) -> "World":
        world = copy.deepcopy(self)
        match move:
            case "deliver", (conn, end):
                world.ends[end].receive(conn, world.wires[conn, end].popleft())
            case "dial", (conn, end, seed):
                world.plans.remove((conn, end, seed))
                world.ends[end].dial(conn, seed)
            case "cut", conn:  # what was under way is lost; each end notices when it does
                world.cuts.remove(conn)
                for end in (ADA, BOB):
                    world.wires[conn, end].clear()
                    world.wires[conn, end].append("closed")
            case _:
                raise AssertionError(move)
        return world

    def state(self) -> str:
        ends = [(end.over, vars(end.members)) for end in self.ends.values()]
        return repr((self.wires, self.plans, self.cuts, ends))

    def ends_of_all_interleavings(self):
        """Every state in which nothing more can happen, with a story that leads there."""
        stack: list[tuple[World, tuple[Move, ...]]] = [(self, ())]
        met = {self.state()}
        while stack:
            world, story = stack.pop()
            moves = world.moves()
            if not moves:
                yield world, story
            for move in moves:
                following = world.after(move)
                if (state := following.state()) not in met:
                    met.add(state)
                    stack.append((following, (*story, move)))

    def sessions(self) -> tuple[list[int], list[int]]:
        return self.ends[ADA].sessions(), self.ends[BOB].sessions()


def dialling(*plans) -> World:
    """All these dials are in progress: their proofs are under way."""
    world = World(*plans)
    for plan in plans:
        world = world.after(("dial", plan))
    assert all(world.wires[conn, BOB if end == ADA else ADA] for conn, end, _ in plans)
    return world


SEEDS = [(ADA, BOB), ("h:1", "h:2"), (ADA, "h:2"), ("h:1", BOB)]
"""How bob dials ada and how ada dials bob: by name, or by an address of which the name is not known yet."""


@pytest.mark.parametrize(("to_ada", "to_bob"), SEEDS)
def test_of_two_dials_in_progress_both_ends_keep_that_of_the_smaller_name_in_every_interleaving(to_ada, to_bob):
    world = dialling((1, ADA, to_bob), (2, BOB, to_ada))
    for end, story in world.ends_of_all_interleavings():
        assert end.sessions() == ([1], [1]), story
        assert not any(e.members.dials or e.members.candidates for e in end.ends.values()), story


@pytest.mark.parametrize(("to_ada", "to_bob"), SEEDS)
def test_dials_that_begin_at_any_moment_end_in_one_session_too(to_ada, to_bob):
    won = set()
    for end, story in World((1, ADA, to_bob), (2, BOB, to_ada)).ends_of_all_interleavings():
        ada, bob = end.sessions()
        assert ada == bob and len(ada) == 1, story
        won |= set(ada)
    if to_bob == BOB:
        assert won == {1, 2}, "who was first is kept: the other need not dial any more"


@pytest.mark.parametrize(
    "plans",
    [
        [(1, ADA, BOB), (2, BOB, ADA), (3, ADA, "alias:2")],
        [(1, ADA, BOB), (2, BOB, ADA), (3, BOB, "alias:1")],
        [(1, ADA, "alias:2"), (3, BOB, "alias:1"), (2, BOB, ADA)],
        [(1, ADA, BOB), (2, ADA, "alias:2")],
        [(1, BOB, ADA), (2, BOB, "alias:1")],
    ],
)
def test_a_node_dialled_by_two_of_its_addresses_is_one_peer_with_one_session(plans):
    for end, story in dialling(*plans).ends_of_all_interleavings():
        ada, bob = end.sessions()
        assert ada == bob and len(ada) == 1, story


@pytest.mark.parametrize(("to_ada", "to_bob"), SEEDS)
@pytest.mark.parametrize("cut", [1, 2])
def test_when_a_connection_breaks_at_any_moment_both_ends_still_agree(cut, to_ada, to_bob):
    world = dialling((1, ADA, to_bob), (2, BOB, to_ada))
    world.cuts = [cut]
    for end, story in world.ends_of_all_interleavings():
        ada, bob = end.sessions()
        assert ada == bob and len(ada) <= 1 and cut not in ada, story


@pytest.mark.parametrize(("dialler", "loser"), [(ADA, ADA), (ADA, BOB), (BOB, ADA), (BOB, BOB)])
def test_a_later_dial_of_who_has_lost_the_session_replaces_it_at_the_other_end(dialler, loser):
    def peer(name):
        return BOB if name == ADA else ADA

    world = dialling((1, dialler, peer(dialler)))
    [(world, _)] = world.ends_of_all_interleavings()
    assert world.sessions() == ([1], [1])
    world.ends[loser].receive(1, "closed")  # the other end has not noticed, and may never
    world.wires |= {(2, ADA): deque(), (2, BOB): deque()}
    world.ends[loser].dial(2, peer(loser))
    before = world.after(("deliver", (2, peer(loser))))
    assert before.ends[peer(loser)].sessions() == [1], "until the first frame past ACK, the old session is not touched"
    for end, story in world.ends_of_all_interleavings():
        assert end.sessions() == ([2], [2]), story


# --- one end ---


def connected(members: Members, conn: int, peer: str, creation: int = 1, *, dialled: bool = False):
    if not dialled:
        assert members.admit(conn, peer, creation) is ADMIT
    assert members.open(conn, peer, creation, dialled) is ADMIT
    there = members.by_peer.get(peer)
    if there is not None:
        members.closed(there.conn)
    return members.opened(conn, peer, creation, dialled, 0.0)


def test_a_session_is_there_from_its_opening_to_its_end():
    members = Members(ADA)
    session = connected(members, 1, BOB, 7)
    assert members.sessions == {1: session} and members.by_peer == {BOB: session}
    assert (session.conn, session.peer, session.creation, session.dialled) == (1, BOB, 7, False)
    assert members.closed(1) is session
    assert members.sessions == members.by_peer == {}
    assert members.closed(1) is None


def test_sessions_do_not_share_what_is_unsent():
    members = Members(ADA)
    one, other = connected(members, 1, BOB), connected(members, 2, "carl@h:3")
    one.unsent.append("db")
    assert other.unsent == []


def test_the_end_of_a_replaced_session_does_not_touch_the_one_that_replaced_it():
    members = Members(ADA)
    connected(members, 1, BOB)
    session = connected(members, 2, BOB)
    assert members.closed(1) is None
    assert members.by_peer == {BOB: session}


def test_a_candidate_that_goes_leaves_no_trace():
    members = Members(ADA)
    members.admit(1, BOB, 1)
    assert members.expects(Target(Seed.parse(BOB), BOB)) and members.expects(Target(Seed.parse("h:2"), ""))
    assert not members.expects(Target(Seed.parse("carl@h:3"), "carl@h:3"))
    assert members.closed(1) is None
    assert not members.expects(Target(Seed.parse(BOB), BOB))
    assert members.candidates == {} and members.creations == {}


@pytest.mark.parametrize("dialled", [True, False])
def test_a_restarted_node_replaces_its_old_session_whoever_dialled(dialled):
    members = Members(ADA)
    connected(members, 1, BOB, 1, dialled=not dialled)
    session = connected(members, 2, BOB, 2, dialled=dialled)
    assert members.by_peer == {BOB: session} and members.creations == {BOB: 2}


def test_an_older_start_of_a_node_is_refused_for_good():
    members = Members(ADA)
    connected(members, 1, BOB, 2)
    assert members.admit(2, BOB, 1) is STALE
    assert members.open(3, BOB, 1, True) is STALE
    members.closed(1)
    assert members.admit(4, BOB, 1) is STALE, "also when the newer one is not connected any more"
    assert members.admit(5, BOB, 2) is ADMIT


def test_a_creation_is_remembered_for_a_while_after_the_last_session_and_as_long_as_there_is_one():
    members = Members("carl@h:3", forget_after=100.0)
    members.opened(1, ADA, 7, False, 0.0)
    members.opened(2, BOB, 7, False, 0.0).signs.heard = 50.0
    members.closed(2)
    members.opened(3, "dora@h:4", 1, False, 150.0)
    assert members.admit(4, BOB, 6) is members.admit(5, ADA, 6) is STALE
    members.opened(6, BOB, 8, False, 150.0).signs.heard = 160.0  # seen again: its time begins anew
    members.closed(6)
    members.opened(7, "emil@h:5", 1, False, 260.0)
    assert members.admit(8, BOB, 7) is STALE
    members.opened(9, "finn@h:6", 1, False, 260.1)
    assert members.admit(10, BOB, 7) is ADMIT
    assert members.admit(11, ADA, 6) is STALE, "its session is still open"


def test_who_comes_and_goes_for_ever_fills_no_memory():
    members = Members("carl@h:3", forget_after=100.0)
    for number in range(10_000):
        members.opened(number, f"x{number}@h:1", 1, False, float(number)).signs.heard = float(number)
        members.closed(number)
    assert len(members.creations) <= 102 and len(members._last_heard) <= 101


def test_one_admitted_before_a_newer_start_of_its_node_was_known_is_stale_when_it_could_open():
    members = Members(ADA)
    assert members.admit(1, BOB, 1) is ADMIT
    connected(members, 2, BOB, 2)
    assert members.open(1, BOB, 1, False) is STALE
    assert members.candidates == {}


def test_a_node_that_has_left_is_refused_in_that_creation_and_welcome_in_a_higher_one():
    members = Members(ADA)
    assert members.admit(1, BOB, 2) is ADMIT  # a second connection, on its way while the session ends
    members.leaves(connected(members, 2, BOB, 2))
    members.closed(2)
    assert members.open(1, BOB, 2, False) is LEFT
    assert members.admit(3, BOB, 2) is LEFT
    assert members.open(4, BOB, 2, True) is LEFT
    assert members.admit(5, BOB, 1) is STALE
    connected(members, 6, BOB, 3)
    members.closed(6)
    assert members.admit(7, BOB, 3) is ADMIT, "that one has not left"


def test_that_a_node_has_left_is_remembered_as_long_as_its_creation():
    members = Members(ADA, forget_after=100.0)
    members.leaves(connected(members, 1, BOB, 2))
    members.closed(1)
    members.opened(2, "dora@h:4", 1, False, 100.0)
    assert members.admit(3, BOB, 2) is LEFT
    members.opened(4, "emil@h:5", 1, False, 100.1)
    assert members.admit(5, BOB, 2) is ADMIT
    assert not members.left


def test_of_those_who_are_listed_nobody_counts_that_has_left_in_that_creation_before_or_since():
    members = Members(ADA)
    carl = connected(members, 1, "carl@h:3", 1)
    carl.listed = {BOB: 2, "dora@h:4": 2, "emil@h:5": 0}
    assert members.listed_by(carl) == list(carl.listed)
    for conn, peer in enumerate(carl.listed, 2):
        members.leaves(connected(members, conn, peer, 2))
        members.closed(conn)
    assert members.listed_by(carl) == ["emil@h:5"], "of whom nobody has said in which creation it is there"
    carl.listed = {BOB: 1, "dora@h:4": 3}
    assert members.listed_by(carl) == ["dora@h:4"]


def test_a_creation_counts_as_seen_only_when_its_session_opens():
    members = Members(ADA)
    members.admit(1, BOB, 9)
    members.closed(1)
    assert members.admit(2, BOB, 1) is ADMIT


@pytest.mark.parametrize(
    ("we", "peer", "dial", "verdict"),
    [
        (ADA, BOB, BOB, DUPLICATE),  # ours goes on
        (BOB, ADA, ADA, ADMIT),  # theirs does
        (ADA, BOB, "carl@h:3", ADMIT),  # a dial to somebody else
        (ADA, BOB, "h:2", DUPLICATE),  # by an address: it is the one in the peer's name
        (ADA, BOB, "alias:2", ADMIT),  # we do not know yet whom we dial: decided when the sessions could open
        (ADA, BOB, None, ADMIT),
    ],
)
def test_a_dialler_is_refused_only_while_our_own_dial_to_it_goes_on_and_our_name_is_smaller(we, peer, dial, verdict):
    members = Members(we)
    if dial is not None:
        members.dial(members.target(Seed.parse(dial), 0.0), 1)
    assert members.admit(2, peer, 1) is verdict
    if dial is not None:
        members.dial_ended(1)
        assert members.admit(3, peer, 1) is ADMIT


@pytest.mark.parametrize(
    ("we", "peer", "there_dialled", "dialled", "verdict"),
    [
        # Reached by two of its addresses: the first stays.
        (ADA, BOB, True, True, DUPLICATE),
        (BOB, ADA, True, True, DUPLICATE),
        # Dialled by both: the dial of the smaller name stays.
        (ADA, BOB, False, True, ADMIT),
        (BOB, ADA, False, True, DUPLICATE),
        # A later dial from the peer: it has lost the session that we still see.
        (ADA, BOB, True, False, ADMIT),
        (BOB, ADA, True, False, ADMIT),
        (ADA, BOB, False, False, ADMIT),
        (BOB, ADA, False, False, ADMIT),
    ],
)
def test_beside_an_open_session(we, peer, there_dialled, dialled, verdict):
    members = Members(we)
    connected(members, 1, peer, dialled=there_dialled)
    if not dialled:
        members.admit(2, peer, 1)
    assert members.open(2, peer, 1, dialled) is verdict


@pytest.mark.parametrize(
    ("we", "peer", "creation", "verdict"),
    [(BOB, ADA, 1, DUPLICATE), (ADA, BOB, 1, ADMIT), (BOB, ADA, 2, ADMIT)],
)
def test_the_larger_names_dial_gives_way_to_a_candidate_of_the_same_start(we, peer, creation, verdict):
    members = Members(we)
    members.admit(1, peer, 1)
    assert members.open(2, peer, creation, True) is verdict


# --- targets ---


def test_an_address_is_one_target_however_often_it_is_named():
    members = Members(ADA)
    bare = members.target(Seed.parse("h:2"), 1.0)
    assert (bare.answers, bare.wanted_since, bare.conn) == ("", 1.0, None)
    assert members.target(Seed.parse(BOB), 2.0) is bare
    assert (bare.answers, bare.seed.expects, bare.wanted_since) == (BOB, BOB, 1.0)
    assert members.target(Seed.parse("h:2"), 3.0) is bare
    assert bare.seed.expects == BOB, "an address alone does not make us forget who is there"
    members.target(Seed.parse("carl@h:2"), 4.0)
    assert bare.answers == "carl@h:2", "the last we heard"
    assert list(members.targets.values()) == [bare]


def test_a_target_needs_no_dial_while_there_is_a_session_with_who_answers_there():
    members = Members(ADA)
    named, alias = members.target(Seed.parse(BOB), 0.0), members.target(Seed.parse("alias:2"), 0.0)
    session = connected(members, 1, BOB)
    assert members.session_with(named) is session
    assert members.session_with(alias) is None, "nobody has answered there yet"
    alias.answers = BOB
    assert members.session_with(alias) is session
    members.closed(1)
    assert members.session_with(named) is None


def test_a_dial_ends_once():
    members = Members(ADA)
    target = members.target(Seed.parse(BOB), 0.0)
    members.dial(target, 1)
    assert target.conn == 1 and members.dials == {1: target}
    assert members.dial_ended(1) is target
    assert target.conn is None and members.dials == {}
    assert members.dial_ended(1) is None
