"""Links and monitors: whatever crosses on the way, both ends agree, no unlinked end is heard of, monitors fire once."""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinfolk.core.relations import (
    OUTSIDE,
    Change,
    Ended,
    Exited,
    Fate,
    Fired,
    Linked,
    NodeSeen,
    Relations,
    Signal,
    StallSeen,
    Unlinked,
    UnlinkSeen,
    Unwatched,
    Watched,
)
from kinfolk.errors import NameLost
from kinfolk.ids import Pid
from kinfolk.reasons import Crash

ADA, BOB = "ada@h:1", "bob@h:2"
A1, A2, B1, B2 = Pid(ADA, 1, 1), Pid(ADA, 1, 2), Pid(BOB, 1, 1), Pid(BOB, 1, 2)
ALIVE = {1, 2, 3}


def table(*, connected: bool = True, creation: int = 1) -> Relations:
    """Ada's table, with Bob connected."""
    relations = Relations(ADA, 1, ALIVE.__contains__)
    if connected:
        relations.peer_up(BOB, creation)
    return relations


# --- a link's end, row by row as in the head of the module ---


def linked() -> Relations:
    relations = table()
    assert relations.link(1, B1) == [Linked(BOB, 1, 1)]
    return relations


def unlinking() -> tuple[Relations, int]:
    relations = linked()
    [told] = relations.unlink(1, B1)
    assert isinstance(told, Unlinked)
    return relations, told.number


def test_a_link_is_told_once():
    relations = linked()
    assert relations.link(1, B1) == []
    assert relations.peer_linked(BOB, 1, 1) == []
    assert relations.links(1) == [B1]
    assert len(relations) == 1


def test_a_link_that_comes_for_a_dead_process_is_answered_with_noproc():
    relations = table()
    assert relations.peer_linked(BOB, 1, 9) == [Exited(BOB, 9, 1, "noproc")]
    assert len(relations) == 0


def test_an_unlink_that_comes_removes_the_link_and_is_acknowledged_even_for_the_dead():
    relations = linked()
    assert relations.peer_unlinked(BOB, 1, 1, 5) == [UnlinkSeen(BOB, 1, 1, 5)]
    assert len(relations) == 0
    assert relations.peer_unlinked(BOB, 1, 9, 6) == [UnlinkSeen(BOB, 9, 1, 6)]


def test_an_exit_over_a_link_is_a_signal_once():
    relations = linked()
    assert relations.peer_exited(BOB, 1, 1, "bad") == [Signal(1, B1, "bad", True)]
    assert relations.peer_exited(BOB, 1, 1, "bad") == []
    assert len(relations) == 0


def test_an_own_exit_is_told_over_an_active_link_alone():
    assert linked().exited(1, "bad") == [Exited(BOB, 1, 1, "bad")]
    relations, number = unlinking()
    assert relations.exited(1, "bad") == []
    assert relations.peer_saw_unlink(BOB, 1, 1, number) == []


def test_after_unlink_neither_an_exit_nor_a_lost_session_is_a_signal():
    relations, _ = unlinking()
    assert relations.links(1) == []
    assert relations.peer_exited(BOB, 1, 1, "bad") == []
    relations, _ = unlinking()
    assert relations.peer_down(BOB, "gone") == []
    assert len(relations) == 0


def test_a_link_that_crosses_an_unlink_does_not_count():
    relations, number = unlinking()
    assert relations.peer_linked(BOB, 1, 1) == []
    assert relations.links(1) == []
    assert relations.peer_saw_unlink(BOB, 1, 1, number) == []
    assert len(relations) == 0


def test_a_link_made_anew_is_not_removed_by_the_acknowledgement_of_the_unlink_before():
    relations, number = unlinking()
    assert relations.link(1, B1) == [Linked(BOB, 1, 1)]
    assert relations.peer_saw_unlink(BOB, 1, 1, number) == []
    assert relations.links(1) == [B1]
    [told] = relations.unlink(1, B1)
    assert isinstance(told, Unlinked)
    assert told.number != number
    assert relations.peer_saw_unlink(BOB, 1, 1, number) == []
    assert len(relations) == 1, "it waits for the acknowledgement of its last unlink"
    relations.peer_saw_unlink(BOB, 1, 1, told.number)
    assert len(relations) == 0


def test_two_unlinks_that_cross_are_both_acknowledged():
    relations, number = unlinking()
    assert relations.peer_unlinked(BOB, 1, 1, 5) == [UnlinkSeen(BOB, 1, 1, 5)]
    assert len(relations) == 1
    relations.peer_saw_unlink(BOB, 1, 1, number)
    assert len(relations) == 0


def test_unlinking_what_is_not_linked_says_nothing():
    relations = table()
    assert relations.unlink(1, B1) == []
    assert relations.unlink(1, A2) == []
    assert relations.peer_saw_unlink(BOB, 1, 1, 1) == []
    assert relations.peer_exited(BOB, 1, 1, "bad") == []


def test_an_acknowledgement_with_number_0_removes_no_link():
    relations = linked()
    assert relations.peer_saw_unlink(BOB, 1, 1, 0) == []
    assert relations.links(1) == [B1]


def test_what_is_not_there_answers_a_link_with_a_signal():
    relations = table(creation=5)
    for missing, reason in {
        Pid(ADA, 1, 9): "noproc",
        Pid(ADA, 0, 1): "noproc",
        Pid(BOB, 4, 1): "noproc",
        Pid(BOB, 6, 1): "noconnection",
        Pid("carl@h:3", 1, 1): "noconnection",
    }.items():
        assert relations.link(1, missing) == [Signal(1, missing, reason, True)]
    assert len(relations) == 0


def test_a_process_is_not_linked_to_itself():
    relations = table()
    assert relations.link(1, A1) == []
    assert relations.unlink(1, A1) == []
    assert len(relations) == 0


def test_a_link_within_a_node_has_both_ends_at_once():
    relations = table()
    assert relations.link(1, A2) == relations.link(2, A1) == []
    assert relations.links(1) == [A2]
    assert relations.links(2) == [A1]
    relations.unlink(2, A1)
    assert len(relations) == 0
    relations.link(1, A2)
    assert relations.exited(1, "bad") == [Signal(2, A1, "bad", True)]
    assert len(relations) == 0


def test_a_lost_session_costs_only_what_concerns_it():
    relations = table()
    relations.peer_up("carl@h:3", 1)
    relations.link(1, B1)
    relations.link(1, Pid("carl@h:3", 1, 1))
    relations.link(1, A2)
    assert relations.peer_down(BOB, "gone") == [Signal(1, B1, "noconnection", True)]
    assert relations.links(1) == [Pid("carl@h:3", 1, 1), A2]
    assert relations.peer_down(BOB, "gone") == []


def test_an_adopted_link_is_active_without_a_word():
    relations = table()
    assert relations.adopt(1, B1) == []
    assert relations.links(1) == [B1]
    assert relations.exited(1, "bad") == [Exited(BOB, 1, 1, "bad")]


def test_a_link_that_a_dead_process_would_adopt_ends_the_other():
    assert table().adopt(9, B1) == [Exited(BOB, 9, 1, "noproc")]


def test_a_link_is_not_adopted_from_a_node_that_was_lost():
    relations = table(connected=False)
    assert relations.adopt(1, B1) == [Signal(1, B1, "noconnection", True)]
    assert len(relations) == 0


# --- monitors ---


def test_a_monitor_fires_once_with_the_reason():
    relations = table()
    ref, told = relations.monitor(1, B1)
    assert told == [Watched(BOB, ref, 1)]
    assert relations.peer_ended(BOB, ref, 1, "bad") == [Fired(1, ref, B1, None, "bad")]
    assert relations.peer_ended(BOB, ref, 1, "bad") == []
    assert relations.peer_down(BOB, "gone") == []
    assert len(relations) == 0


def test_each_monitor_of_one_process_fires_for_itself():
    relations = table()
    refs = [relations.monitor(1, A2)[0] for _ in range(3)]
    assert relations.demonitor(1, refs[1]) == []
    assert relations.exited(2, "bad") == [Fired(1, ref, A2, None, "bad") for ref in (refs[0], refs[2])]
    assert len(relations) == 0


def test_what_is_not_there_answers_a_monitor_at_once():
    relations = table(creation=5)
    for missing, reason in {
        Pid(ADA, 1, 9): "noproc",
        Pid(ADA, 0, 1): "noproc",
        Pid(BOB, 4, 1): "noproc",
        Pid(BOB, 6, 1): "noconnection",
        Pid("carl@h:3", 1, 1): "noconnection",
    }.items():
        ref, changes = relations.monitor(1, missing)
        assert changes == [Fired(1, ref, missing, None, reason)]
    assert len(relations) == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [("db", "noproc"), (("log", ADA), "noproc"), (("log", "carl@h:3"), "noconnection")],
)
def test_a_name_that_nobody_is_known_to_have_answers_a_monitor_at_once(name: Any, reason: str):
    ref, changes = table().monitor(1, None, name)
    assert changes == [Fired(1, ref, None, name, reason)]


def test_a_monitor_of_a_name_of_another_node_learns_the_pid_when_it_fires():
    relations = table()
    ref, told = relations.monitor(1, None, ("log", BOB))
    assert told == [Watched(BOB, ref, "log")]
    assert relations.peer_ended(BOB, ref, 2, "bad") == [Fired(1, ref, B2, ("log", BOB), "bad")]
    ref, _ = relations.monitor(1, None, ("log", BOB))
    assert relations.peer_ended(BOB, ref, None, "noproc") == [Fired(1, ref, None, ("log", BOB), "noproc")]
    ref, _ = relations.monitor(1, None, ("log", BOB))
    assert relations.peer_down(BOB, "gone") == [Fired(1, ref, None, ("log", BOB), "noconnection")]


def test_after_demonitor_a_monitor_does_not_fire():
    relations = table()
    ref, _ = relations.monitor(1, B1)
    assert relations.demonitor(2, ref) == [], "it is not its own"
    assert relations.demonitor(1, ref) == [Unwatched(BOB, ref)]
    assert relations.demonitor(1, ref) == []
    assert relations.peer_ended(BOB, ref, 1, "bad") == []
    assert len(relations) == 0


def test_a_process_does_not_watch_itself():
    relations = table()
    _, changes = relations.monitor(1, A1)
    assert changes == []
    assert len(relations) == 0


def test_the_node_watches_for_those_who_are_no_process():
    relations = table()
    ref, _ = relations.monitor(OUTSIDE, A1)
    assert relations.exited(1, "bad") == [Fired(OUTSIDE, ref, A1, None, "bad")]


def test_a_watcher_that_exits_watches_no_longer():
    relations = table()
    relations.monitor(1, A2)
    there, _ = relations.monitor(1, B1)
    assert relations.exited(1, "normal") == [Unwatched(BOB, there)]
    assert relations.exited(2, "normal") == []
    assert relations.peer_ended(BOB, there, 1, "bad") == []
    assert len(relations) == 0


def test_a_peers_monitor_is_answered_once_when_the_process_ends_or_at_once():
    relations = table()
    assert relations.peer_watches(BOB, 7, 1) == []
    assert relations.peer_watches(BOB, 7, 2) == [], "a reference that is in use"
    assert relations.peer_watches(BOB, 8, 9) == [Ended(BOB, 8, 9, "noproc")]
    assert relations.peer_watches(BOB, 9, None) == [Ended(BOB, 9, None, "noproc")]
    assert relations.exited(2, "bad") == []
    assert relations.exited(1, "bad") == [Ended(BOB, 7, 1, "bad")]
    assert relations.peer_watches_no_longer(BOB, 7) == []


def test_a_peers_monitor_goes_when_taken_back_or_with_its_session():
    relations = table()
    relations.peer_watches(BOB, 7, 1)
    relations.peer_watches_no_longer(BOB, 7)
    assert len(relations) == 0
    relations.peer_watches(BOB, 7, 1)
    relations.peer_down(BOB, "gone")
    assert len(relations) == 0
    assert relations.exited(1, "bad") == []


def test_an_expected_process_is_watched_by_its_reference():
    relations = table()
    ref = relations.expect(1, BOB)
    assert relations.peer_ended(BOB, ref, 2, "bad") == [Fired(1, ref, B2, None, "bad")]
    ref = relations.expect(1, BOB)
    assert relations.peer_down(BOB, "gone") == [Fired(1, ref, None, None, "noconnection")]


# --- exit signals ---


@pytest.mark.parametrize("traps", [False, True])
@pytest.mark.parametrize(
    ("linked", "sender", "reason", "without", "with_trap"),
    [
        (False, B1, "normal", Fate.IGNORED, Fate.MESSAGE),
        (False, A1, "normal", Fate.DEATH, Fate.MESSAGE),
        (False, A2, "normal", Fate.IGNORED, Fate.MESSAGE),
        (False, Pid(BOB, 1, OUTSIDE), "normal", Fate.IGNORED, Fate.MESSAGE),
        (False, B1, "bad", Fate.DEATH, Fate.MESSAGE),
        (False, B1, "killed", Fate.DEATH, Fate.MESSAGE),
        (False, B1, "kill", Fate.DEATH, Fate.DEATH),
        (False, A1, "kill", Fate.DEATH, Fate.DEATH),
        (False, B1, Crash("E", "", ""), Fate.DEATH, Fate.MESSAGE),
        (True, B1, "normal", Fate.IGNORED, Fate.MESSAGE),
        (True, B1, "shutdown", Fate.DEATH, Fate.MESSAGE),
        (True, B1, "noproc", Fate.DEATH, Fate.MESSAGE),
        (True, B1, "noconnection", Fate.DEATH, Fate.MESSAGE),
        (True, B1, "killed", Fate.DEATH, Fate.MESSAGE),
        (True, B1, "kill", Fate.DEATH, Fate.MESSAGE),
        (True, B1, NameLost("db", B1), Fate.DEATH, Fate.MESSAGE),
    ],
)
def test_the_fate_of_a_signal(traps: bool, linked: bool, sender: Pid, reason: Any, without: Fate, with_trap: Fate):
    relations = table()
    relations.trap(1, traps)
    expected = with_trap if traps else without
    became = "killed" if reason == "kill" and not linked else reason
    assert relations.fate(Signal(1, sender, reason, linked)) == (expected, became)


def test_trapping_is_forgotten_with_the_process_and_when_it_ends():
    relations = table()
    relations.trap(1, True)
    assert relations.traps(1)
    assert len(relations) == 1
    relations.trap(1, False)
    relations.trap(2, False)
    assert not relations.traps(1)
    assert len(relations) == 0
    relations.trap(1, True)
    relations.exited(1, "normal")
    assert not relations.traps(1)


# --- nodes ---


def test_who_watches_a_node_learns_how_it_is_and_every_change_after_what_ends_with_it():
    relations = table(connected=False)
    assert relations.watch_node(1, BOB) == [NodeSeen(1, BOB, "noconnection")]
    assert relations.watch_node(1, BOB) == []
    assert relations.peer_up(BOB, 1) == [NodeSeen(1, BOB)]
    assert relations.watch_node(2, None) == [NodeSeen(2, BOB)]
    relations.link(1, B1)
    ref, _ = relations.monitor(2, B1)
    assert relations.peer_down(BOB, "cut") == [
        Signal(1, B1, "noconnection", True),
        Fired(2, ref, B1, None, "noconnection"),
        NodeSeen(1, BOB, "cut"),
        NodeSeen(2, BOB, "cut"),
    ]
    relations.unwatch_node(1, BOB)
    relations.unwatch_node(1, BOB)
    relations.unwatch_node(2, BOB)
    assert relations.peer_up(BOB, 2) == [NodeSeen(2, BOB)]
    relations.exited(2, "normal")
    assert relations.peer_down(BOB, "cut") == []
    assert len(relations) == 0


def test_who_watches_one_node_and_all_is_told_once():
    relations = table(connected=False)
    relations.watch_node(1, BOB)
    relations.watch_node(1, None)
    assert relations.peer_up(BOB, 1) == [NodeSeen(1, BOB)]


def test_who_watches_stalls_learns_of_them_and_others_do_not():
    relations = table(connected=False)
    relations.watch_node(1, BOB)
    assert relations.watch_node(2, BOB, stalls=True) == [NodeSeen(2, BOB, "noconnection")]
    assert relations.watch_node(3, None, stalls=True) == []
    relations.watch_node(3, BOB)  # told of stalls by the other watch
    relations.peer_up(BOB, 1)
    assert relations.peer_stalled(BOB, 1.5) == [StallSeen(2, BOB, 1.5), StallSeen(3, BOB, 1.5)]
    assert relations.watch_node(4, BOB, stalls=True) == [NodeSeen(4, BOB), StallSeen(4, BOB, 1.5)]
    assert relations.watch_node(4, BOB, stalls=True) == []
    assert relations.watch_node(1, BOB, stalls=True) == [StallSeen(1, BOB, 1.5)], "it watches more from now on"
    assert relations.watch_node(1, BOB) == []
    over = [StallSeen(own, BOB, 7.0, over=True) for own in (1, 2, 3, 4)]
    assert relations.peer_resumed(BOB, 7.0) == over
    assert relations.watch_node(5, None, stalls=True) == [NodeSeen(5, BOB)]
    for own in range(1, 6):
        relations.exited(own, "normal")
    assert relations.peer_stalled(BOB, 2.0) == [] and len(relations) == 0


# --- two nodes: any interleaving, over channels that keep their order and may be cut ---


class World:
    """Ada and Bob with two processes each. Every process traps exits, so that only `exit` ends one."""

    def __init__(self) -> None:
        self.alive = {ADA: {1, 2}, BOB: {1, 2}}
        self.ends = {name: Relations(name, 1, self.alive[name].__contains__) for name in (ADA, BOB)}
        self.session = {ADA: 0, BOB: 0}
        """The one that each end is in; 0 for none."""
        self.latest = 0
        self.over = True
        """Whether an end of the latest session has seen it end: then nobody comes into it any more."""
        self.ways: dict[tuple[str, int], deque[tuple[Change, int]]] = {}
        """What an end has said in a session and the other has not read; with a LINK, how many UNLINKs it had read."""
        self.unlinks_said: Counter[tuple[int, Pid, Pid]] = Counter()
        self.unlinks_read: Counter[tuple[int, Pid, Pid]] = Counter()
        """In each session, from one process to another."""
        self.barred: set[tuple[Pid, Pid]] = set()
        """Who must get no signal of whom over a link: it has unlinked, or has got one, and is not linked anew."""
        self.signals: Counter[tuple[Pid, Pid]] = Counter()
        self.refs: dict[tuple[Pid, int], Pid] = {}
        """Who watches whom, without those that were taken back."""
        self.fired: Counter[tuple[Pid, int]] = Counter()
        self.reasons: dict[Pid, str] = {}

    # --- what may happen ---

    def link(self, own: Pid, other: Pid) -> None:
        if self.is_alive(own):
            self.barred.discard((own, other))
            if own.node == other.node:
                self.barred.discard((other, own))
            self.do(own.node, self.ends[own.node].link(own.local, other))

    def unlink(self, own: Pid, other: Pid) -> None:
        if self.is_alive(own):
            self.do(own.node, self.ends[own.node].unlink(own.local, other))
            self.barred.add((own, other))

    def monitor(self, own: Pid, other: Pid) -> None:
        if self.is_alive(own) and own != other:
            ref, changes = self.ends[own.node].monitor(own.local, other)
            self.refs[own, ref] = other
            self.do(own.node, changes)

    def demonitor(self, own: Pid, other: Pid) -> None:
        mine = [ref for (watcher, ref), target in self.refs.items() if (watcher, target) == (own, other)]
        if mine and self.is_alive(own):
            del self.refs[own, mine[0]]
            self.do(own.node, self.ends[own.node].demonitor(own.local, mine[0]))

    def exit(self, own: Pid, other: Pid) -> None:
        if self.is_alive(own):
            self.alive[own.node].discard(own.local)
            self.reasons[own] = f"the end of {own}"
            self.do(own.node, self.ends[own.node].exited(own.local, self.reasons[own]))

    def deliver(self, own: Pid, other: Pid) -> None:
        unread = self.unread(own.node)
        if unread:
            self.hear(own.node, *unread.popleft())

    def lose(self, own: Pid, other: Pid) -> None:
        """This end sees the session end, and half of what it has not read goes with it."""
        if self.session[own.node]:
            self.do(own.node, self.ends[own.node].peer_down(self.other(own.node), "lost"))
            said = self.ways[own.node, self.session[own.node]]
            for _ in range(len(said) // 2):
                said.pop()
            self.over |= self.session[own.node] == self.latest
            self.session[own.node] = 0

    def open(self, own: Pid, other: Pid) -> None:
        """This end has a session: the one that the other has already, or a new one."""
        end = own.node
        if self.over or self.session[end] == self.latest:
            self.latest, self.over = self.latest + 1, False
            self.ways |= {(name, self.latest): deque() for name in (ADA, BOB)}
        if self.session[end]:
            self.do(end, self.ends[end].peer_down(self.other(end), "replaced"))
        self.session[end] = self.latest
        self.do(end, self.ends[end].peer_up(self.other(end), 1))

    # --- how it happens ---

    def is_alive(self, pid: Pid) -> bool:
        return pid.local in self.alive[pid.node]

    def other(self, end: str) -> str:
        return BOB if end == ADA else ADA

    def unread(self, end: str) -> deque[tuple[Change, int]]:
        """What this end has not read in its session."""
        return self.ways.get((self.other(end), self.session[end]), deque())

    def say(self, end: str, change: Change) -> None:
        session, read = self.session[end], 0
        if isinstance(change, Linked):
            read = self.unlinks_read[session, Pid(change.peer, 1, change.other), Pid(end, 1, change.own)]
        elif isinstance(change, Unlinked):
            self.unlinks_said[session, Pid(end, 1, change.own), Pid(change.peer, 1, change.other)] += 1
        self.ways[end, session].append((change, read))

    def do(self, end: str, changes: Sequence[Change]) -> None:
        for change in changes:
            match change:
                case Signal(own, sender, reason):
                    pair = Pid(end, 1, own), sender
                    assert pair not in self.barred, "an exit over a link that is none any more"
                    self.barred.add(pair)
                    self.signals[pair] += 1
                    self.check_reason(sender, reason)
                case Fired(own, ref, pid, _, reason):
                    assert (Pid(end, 1, own), ref) in self.refs, "a monitor that was taken back"
                    assert pid == self.refs[Pid(end, 1, own), ref]
                    self.fired[Pid(end, 1, own), ref] += 1
                    self.check_reason(pid, reason)
                case NodeSeen() | StallSeen():
                    raise AssertionError("nobody watches nodes here")
                case _:
                    self.say(end, change)

    def check_reason(self, pid: Pid | None, reason: object) -> None:
        assert reason in {"noconnection", *(("noproc", self.reasons[pid]) if pid in self.reasons else ())}

    def hear(self, end: str, change: Change, unlinks: int) -> None:
        me, node, session = self.ends[end], self.other(end), self.session[end]
        match change:
            case Linked(_, own, other):
                pair = Pid(end, 1, other), Pid(node, 1, own)
                if self.unlinks_said[session, *pair] == unlinks:  # else it was made before an unlink, which ends it
                    self.barred.discard(pair)
                self.do(end, me.peer_linked(node, own, other))
            case Unlinked(_, own, other, number):
                self.unlinks_read[session, Pid(node, 1, own), Pid(end, 1, other)] += 1
                self.do(end, me.peer_unlinked(node, own, other, number))
            case UnlinkSeen(_, own, other, number):
                self.do(end, me.peer_saw_unlink(node, own, other, number))
            case Exited(_, own, other, reason):
                self.do(end, me.peer_exited(node, own, other, reason))
            case Watched(_, ref, int(target)):
                self.do(end, me.peer_watches(node, ref, target))
            case Unwatched(_, ref):
                self.do(end, me.peer_watches_no_longer(node, ref))
            case Ended(_, ref, own, reason):
                self.do(end, me.peer_ended(node, ref, own, reason))
            case _:
                raise AssertionError(f"{change} is not for a peer")

    def settle(self) -> None:
        """Both ends come into one session and read everything."""
        while self.over or self.session[ADA] != self.session[BOB]:
            self.open(A1 if self.over or self.session[ADA] < self.latest else B1, A1)
        while self.unread(ADA) or self.unread(BOB):
            self.deliver(A1, B1)
            self.deliver(B1, A1)

    # --- what must hold when all has arrived ---

    def links(self) -> set[tuple[Pid, Pid]]:
        living = [pid for pid in PIDS if self.is_alive(pid)]
        return {(pid, other) for pid in living for other in self.ends[pid.node].links(pid.local)}

    def check(self) -> None:
        links = self.links()
        assert links == {(other, own) for own, other in links}, "both ends agree"
        assert all(self.is_alive(other) for _, other in links)
        waits = 0
        for (own, ref), target in self.refs.items():
            if not self.is_alive(own):
                assert self.fired[own, ref] <= 1
            elif not self.is_alive(target):
                assert self.fired[own, ref] == 1
            else:
                assert self.fired[own, ref] <= 1, "a cut session"
                waits += not self.fired[own, ref]
        entries = sum(len(end) for end in self.ends.values())
        assert entries == len(links) + 2 * waits, "nothing is left over"


PIDS = [A1, A2, B1, B2]
OFTEN = [World.link, World.unlink, World.monitor, World.demonitor, World.deliver, World.deliver]
RARELY = [World.exit, World.lose, World.open]


@settings(max_examples=400)
@given(
    st.lists(st.tuples(st.sampled_from(OFTEN * 3 + RARELY), st.sampled_from(PIDS), st.sampled_from(PIDS)), max_size=60)
)
def test_whatever_crosses_both_ends_agree_and_who_unlinks_hears_nothing_and_monitors_fire_once(plan: list[Any]):
    world = World()
    world.settle()
    for step, own, other in plan:
        step(world, own, other)
    world.settle()
    world.check()
    for pid in PIDS:
        linked = [other for own, other in world.links() if own == pid]
        before = Counter(world.signals)
        world.exit(pid, pid)
        world.settle()
        world.check()
        assert world.signals - before == Counter((other, pid) for other in linked)
    assert not any(map(len, world.ends.values()))


@settings(max_examples=1500)
@given(st.lists(st.tuples(st.sampled_from(OFTEN + RARELY), st.sampled_from([A1, B1])), max_size=20))
def test_what_crosses_between_two_processes_ends_alike(plan: list[Any]):
    world = World()
    world.settle()
    for step, own in plan:
        step(world, own, B1 if own == A1 else A1)
    world.settle()
    world.check()
