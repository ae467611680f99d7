"""Memberships in etcd, by hand: each row of the table in `kinfolk.rosters`. In random schedules they are in `world`."""

from kinfolk import effects as fx
from kinfolk.ids import Pid
from tests.etcd.test_tenure import ByHand
from tests.etcd.world import Node


class Hall(ByHand):
    """Ada has one process, and there is one group."""

    def __init__(self) -> None:
        super().__init__()
        self.ada = self.nodes["ada"]
        self.pid = Pid(self.ada.name, self.ada.creation, 1)
        self.key = f"groups/{self.pid}/stores"
        self.hear_all(self.ada)

    def join(self) -> None:
        self.ada.wanted.add(("stores", 1))
        self.ada.do("join", "stores", self.pid)

    def leave(self) -> None:
        self.ada.wanted.discard(("stores", 1))
        self.ada.do("leave", "stores", self.pid)

    def asked(self) -> fx.Put | fx.Remove:
        """The one request about the membership, taken off its way."""
        (request,) = [each for each in self.ada.requests if isinstance(each, fx.Put | fx.Remove)]
        self.ada.requests.remove(request)
        return request

    def unanswered(self) -> fx.Put | fx.Remove:
        """It is given up, and may yet be carried out."""
        request = self.asked()
        self.ada.do("consulted", fx.Consulted(request, None))
        return request

    def hear_all(self, node: Node) -> None:
        while self.tell_one(node):
            self.check()
        self.finish(node)

    def is_there(self) -> bool:
        return self.key in self.etcd.keys

    def settle(self) -> None:
        """All that is under way has been carried out, heard and told, also to others."""
        for _ in range(3):
            self.pass_time(0.25)
            for node in self.nodes.values():
                self.finish(node)
                self.hear_all(node)
        for node in self.nodes.values():
            assert (("stores", self.pid) in node.members) == self.is_there()


def test_a_membership_is_written_told_and_removed():
    hall = Hall()
    hall.join()
    hall.check()
    hall.settle()
    assert hall.is_there()
    hall.leave()
    hall.settle()
    assert not hall.is_there() and not hall.ada.tenure.rosters._own


def test_one_request_at_a_time_is_under_way_however_often_it_changes_its_mind():
    hall = Hall()
    for _ in range(5):
        hall.join()
        hall.leave()
    hall.join()
    assert isinstance(hall.asked(), fx.Put)


def test_what_is_not_answered_is_asked_again_as_long_as_it_is_wanted():
    hall = Hall()
    hall.join()
    first = hall.unanswered()
    hall.pass_time(0.25)
    assert hall.unanswered() == first
    hall.leave()
    assert isinstance(hall.asked(), fx.Remove), "it may be there"


def test_a_write_that_is_carried_out_after_all_was_given_up_is_removed():
    hall = Hall()
    hall.join()
    late = hall.unanswered()
    hall.leave()
    hall.finish(hall.ada)
    assert not hall.ada.tenure.rosters._own
    hall.etcd.carry_out(late, hall.now, 0.0)
    assert hall.is_there()
    hall.settle()
    assert not hall.is_there()


def test_a_removal_that_is_carried_out_late_does_not_remove_what_was_written_since():
    hall = Hall()
    hall.join()
    hall.settle()
    hall.leave()
    late = hall.unanswered()
    hall.pass_time(0.25)
    hall.finish(hall.ada)
    hall.join()
    hall.settle()
    hall.etcd.carry_out(late, hall.now, 0.0)
    assert hall.is_there()


def test_a_removal_under_a_lease_that_has_ended_says_nothing_of_what_is_written_under_the_next():
    hall = Hall()
    hall.join()
    hall.settle()
    hall.leave()
    removal = hall.asked()
    answer = hall.etcd.carry_out(removal, hall.now, 0.0)
    hall.join()
    hall.ada.tenure._lose_lease("of a test")
    hall.finish(hall.ada)
    for _ in range(3):
        hall.pass_time(0.25)
        hall.settle()
    assert hall.is_there()
    written = hall.etcd.keys[hall.key]
    hall.ada.do("consulted", fx.Consulted(removal, answer))
    hall.settle()
    assert hall.etcd.keys[hall.key] == written


def test_what_an_earlier_membership_has_left_is_removed_first():
    hall = Hall()
    hall.etcd.carry_out(fx.Put(hall.key, b'{"number":99}', hall.ada.tenure._lease, 99), hall.now, 0.0)
    hall.join()
    hall.settle()
    assert hall.is_there() and hall.etcd.keys[hall.key].value != b'{"number":99}'


def test_what_somebody_else_has_removed_is_written_again():
    hall = Hall()
    hall.join()
    hall.settle()
    hall.etcd._delete([hall.key])
    hall.settle()
    assert hall.is_there() and ("stores", 1) in hall.ada.wanted


def test_a_lost_lease_takes_memberships_along_and_the_next_brings_back_those_that_are_wanted():
    hall = Hall()
    hall.join()
    hall.settle()
    gone = Pid(hall.pid.node, hall.pid.creation, 2)
    hall.ada.wanted.add(("stores", 2))
    hall.ada.do("join", "stores", gone)
    hall.settle()
    hall.etcd.end(hall.ada.tenure._lease)
    hall.ada.wanted.discard(("stores", 2))
    hall.ada.do("leave", "stores", gone)
    hall.finish(hall.ada)
    assert not hall.is_there()
    hall.settle()
    assert hall.is_there() and f"groups/{gone}/stores" not in hall.etcd.keys


def test_what_is_no_membership_is_passed_over():
    hall = Hall()
    wrong: list[fx.Fact | fx.Gone] = [
        fx.Fact("groups/nobody/stores", b"1", 100, 0),
        fx.Fact("groups/bob@127.0.0.1:1/1/1", b"1", 100, 0),
        fx.Fact("groups/bob@127.0.0.1:1/1/1/", b"1", 100, 0),
        fx.Fact(f"groups/bob@127.0.0.1:1/1/1/{'x' * 256}", b"1", 100, 0),
        fx.Gone("groups/bob@127.0.0.1:1/1/1/stores", 100),
        fx.Gone("groups/", 100),
    ]
    hall.ada.do("changed", fx.Changed(100, wrong))
    assert not hall.ada.members
