"""The tenure of names under random schedules: what must hold, and that it does not hold without each rule."""

from collections import Counter

import pytest

from kinfolk import effects as fx
from kinfolk.errors import NameTaken
from kinfolk.ids import Pid
from kinfolk.tenure import MARGIN, Stage, Tenure
from tests.etcd.world import TTL, Etcd, Node, World

SEEDS, MANY, STEPS = 40, 1500, 250


def test_whatever_is_late_lost_stopped_or_repeated_nobody_holds_what_etcd_gives_to_others():
    did: Counter[str] = Counter()
    for seed in range(SEEDS):
        did += _run(seed).did
    assert min(did.values()) > SEEDS / 10, f"everything happens: {did}"


@pytest.mark.slow
def test_nor_in_many_schedules():
    for seed in range(SEEDS, MANY):
        _run(seed)


def _run(seed: int) -> World:
    world = World(seed)
    try:
        world.run(STEPS)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error
    return world


# --- by hand ---


class ByHand(World):
    """A world in which only what is told to happens. All nodes are in, and have been told of all others."""

    def __init__(self) -> None:
        super().__init__(-1)
        for node in self.nodes.values():
            self.finish(node)
        for node in self.nodes.values():
            node.do("snapshot", fx.Snapshot(self.etcd.revision, list(self.etcd.keys.values()), True, True))
            node.follows = self.etcd.revision
            assert node.entered

    def finish(self, node: Node) -> None:
        """Carry out what it asks, and let it hear the answers."""
        while node.requests or node.answers:
            self.deliver(node)
            self.hear(node)

    def register(self, node: Node, name: str) -> int:
        node.locals += 1
        pid = Pid(node.name, node.creation, node.locals)
        return self.order(node, "register", lambda ref: fx.Register(ref, name, pid, True, 5.0, "message"), 5.0)

    def unregister(self, node: Node, name: str) -> int:
        return self.order(node, "unregister", lambda ref: fx.Unregister(ref, name, None, 5.0), 5.0)

    def tell_one(self, node: Node) -> bool:
        """Tell it the next change, if there is one."""
        changes = self.etcd.after(node.follows or 0)
        if changes:
            node.follows = changes[0].revision
            node.do(
                "changed", fx.Changed(node.follows, [change for change in changes if change.revision == node.follows])
            )
        return bool(changes)


def test_what_was_so_before_a_name_was_ours_does_not_come_back_when_we_have_given_it_up():
    world = ByHand()
    ada, bob = world.nodes["ada"], world.nodes["bob"]
    for node in (bob, ada):  # ada is told nothing of bob's
        for act in (world.register, world.unregister):
            act(node, "x")
            world.finish(node)
    while world.tell_one(ada):
        assert not ada.view


def test_who_had_a_name_when_we_asked_is_not_shown_once_we_have_been_told_that_it_is_free():
    world = ByHand()
    ada, bob = world.nodes["ada"], world.nodes["bob"]
    world.register(bob, "x")
    world.finish(bob)
    ref = world.register(ada, "x")
    world.deliver(ada)
    world.unregister(bob, "x")
    world.finish(bob)
    while world.tell_one(ada):
        pass
    world.finish(ada)
    assert isinstance(ada.failed[ref], NameTaken)
    assert not ada.view


def test_a_late_answer_does_not_prolong_a_lease_and_a_lost_one_is_asked_for_again():
    world = ByHand()
    ada = world.nodes["ada"]
    until = ada.tenure.until
    world.pass_time(1.0)
    assert ada.requests == [fx.Renew(ada.tenure._lease)]
    world.deliver(ada)
    world.pass_time(0.9)
    world.hear(ada)
    assert ada.tenure.until == until + 1.0, "it counts from before it was asked for"
    world.pass_time(0.2)
    world.lose_request(ada)
    world.hear(ada)
    world.pass_time(0.2)
    assert ada.requests == [fx.Renew(ada.tenure._lease)]


def test_a_lease_that_is_over_by_our_own_clock_is_lost_whatever_etcd_says_and_everything_comes_back_once():
    world = ByHand()
    ada = world.nodes["ada"]
    world.register(ada, "x")
    world.finish(ada)
    assert ada.view
    first = ada.tenure._lease
    world.etcd.stopped = True
    world.pass_time(TTL - MARGIN + 0.01)
    assert not ada.view and ada.told == ["x"] and ada.tenure.stage is Stage.REVOKING
    ref = world.register(ada, "x")
    world.etcd.stopped = False
    world.finish(ada)
    assert ada.tenure.stage is Stage.HELD and ada.tenure._lease != first
    assert first not in world.etcd.leases, "the old one is ended before the new one begins"
    assert ref in ada.succeeded and ada.told == ["x"]


def test_what_is_given_up_is_removed_however_often_that_is_not_answered():
    world = ByHand()
    ada = world.nodes["ada"]
    world.register(ada, "x")
    world.finish(ada)
    ref = world.unregister(ada, "x")
    for _ in range(3):
        assert not ada.view and ref not in ada.succeeded
        (removal,) = [request for request in ada.requests if isinstance(request, fx.Remove)]
        ada.requests.remove(removal)
        ada.do("consulted", fx.Consulted(removal, None))
        world.pass_time(0.25)
    world.finish(ada)
    assert ref in ada.succeeded and "names/x" not in world.etcd.keys


def test_a_start_that_is_older_than_one_in_etcd_stays_out_and_a_newer_one_ends_the_older():
    world = ByHand()
    old = world.nodes["ada"]
    world.register(old, "x")
    world.finish(old)
    world.check()
    world.start("ada")
    new = world.nodes["ada"]
    world.finish(new)
    assert new.tenure.stage is Stage.HELD and "names/x" not in world.etcd.keys
    world.now += 2.0
    old.time_passed()
    world.finish(old)  # hears that its lease is over, and looks who is there
    assert old.tenure.stage is Stage.ENTERING and not old.view and old.told == ["x"]
    assert new.tenure.stage is Stage.HELD


def test_an_etcd_that_has_lost_its_data_takes_all_names_and_they_can_be_registered_anew():
    world = ByHand()
    ada, bob = world.nodes["ada"], world.nodes["bob"]
    world.register(ada, "x")
    world.finish(ada)
    world.register(bob, "y")
    world.finish(bob)
    while world.tell_one(ada):
        pass
    assert set(ada.view) == {"x", "y"}
    world.check()
    world.etcd = Etcd()
    for node in world.nodes.values():
        node.known.clear()
    ada.tenure._complete = False
    ada.do("unfollowed", fx.Unfollowed(True))
    ada.do("snapshot", fx.Snapshot(1, [], True, True))
    world.finish(ada)
    assert not ada.view and ada.told == ["x"]
    world.register(bob, "z")  # it has not noticed yet, and is told by the answer
    world.finish(bob)
    ref = world.register(ada, "y")
    world.finish(ada)
    assert ref in ada.succeeded and bob.told == ["y"]


def test_another_history_is_known_by_the_answers_that_the_old_one_gave_and_hides_nothing_that_is_held():
    world = ByHand()
    ada = world.nodes["ada"]
    world.register(ada, "x")
    world.finish(ada)
    world.check()
    known, told = ada.tenure._answered, ada.tenure._revision
    assert known > told, "the watch has not told of it yet"
    world.etcd = Etcd()
    ada.known.clear()
    ada.do("unfollowed", fx.Unfollowed(False))
    ada.tenure._lose_lease("of a test")
    world.finish(ada)
    ref = world.register(ada, "x")
    world.finish(ada)
    assert ref in ada.succeeded and ada.told == ["x"]
    assert known > world.etcd.revision, "so what is won there looks old"
    world.pass_time(1.0)
    assert ada.tenure._expected == known
    ada.tenure._complete = False  # whoever asks etcd has found it behind that
    ada.do("snapshot", fx.Snapshot(world.etcd.revision, list(world.etcd.keys.values()), True, True))
    assert ada.view.keys() == {"x"} and not ada.tenure._floors


def test_what_is_no_fact_is_passed_over():
    world = ByHand()
    ada = world.nodes["ada"]
    wrong: list[fx.Fact | fx.Gone] = [
        fx.Fact("names/x", b"{", 100, 0),
        fx.Fact("names/x", b'{"pid":"nobody","claim":1}', 100, 0),
        fx.Fact("names/", b'{"pid":"bob@127.0.0.1:1/1/1","claim":1}', 100, 0),
        fx.Fact("nodes/nobody", b'{"creation":1}', 100, 0),
        fx.Fact("elsewhere/x", b'{"pid":"bob@127.0.0.1:1/1/1","claim":1}', 100, 0),
        fx.Gone("elsewhere/x", 100),
    ]
    before = dict(ada.tenure.nodes)
    ada.do("changed", fx.Changed(100, wrong))
    assert not ada.view and ada.tenure.nodes == before


# --- each rule left out ---


class CountsFromTheAnswer(Tenure):
    def _set_until(self, begun: float, ttl: int) -> None:
        super()._set_until(self._agenda.now.mono, ttl)


class LeavesNoMargin(Tenure):
    def _set_until(self, begun: float, ttl: int) -> None:
        super()._set_until(begun, ttl + int(MARGIN))


class DoesNotRevoke(Tenure):
    def _lose_lease(self, why: str) -> None:
        super()._lose_lease(why)
        self._agenda.take()
        self.stage, self._stepping = Stage.GRANTING, False
        self._step()


class KeepsWhatItHeld(Tenure):
    def _lose(self, own: object) -> None:
        pass


class DoesNotKnowItsOwnWrite(Tenure):
    def _put(self, put: fx.Put, answer: object) -> None:
        if isinstance(answer, fx.Fact) and answer.value == put.value:
            answer = fx.Fact(answer.key, answer.value + b" ", answer.revision, answer.lease)
        super()._put(put, answer)

    def _see_ours(self, name: str, pid: Pid, number: int, fact: fx.Fact) -> None:
        pass


class LeavesLateWrites(Tenure):
    def _see_ours(self, name: str, pid: Pid, number: int, fact: fx.Fact) -> None:
        if number in self._by_number:
            super()._see_ours(name, pid, number, fact)


class KeepsWhatASnapshotDoesNotShow(Tenure):
    def snapshot(self, part: fx.Snapshot) -> None:
        super().snapshot(fx.Snapshot(part.revision, part.facts, False, part.done))


class ResumesAfterACompaction(Tenure):
    def unfollowed(self, fact: fx.Unfollowed) -> None:
        super().unfollowed(fx.Unfollowed(False))
        self._revision += 1 if fact.compacted else 0


RULES = [
    CountsFromTheAnswer,
    LeavesNoMargin,
    DoesNotRevoke,
    KeepsWhatItHeld,
    DoesNotKnowItsOwnWrite,
    LeavesLateWrites,
    KeepsWhatASnapshotDoesNotShow,
    ResumesAfterACompaction,
]


@pytest.mark.slow
@pytest.mark.parametrize("without", RULES)
def test_each_rule_is_missed_when_it_is_left_out(without: type[Tenure]):
    for seed in range(MANY):
        try:
            World(seed, without).run(STEPS)
        except AssertionError:
            return
    raise AssertionError(f"{MANY} schedules do without it")
