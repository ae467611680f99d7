"""Who is a member of which group: the view of one node."""

import random
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from kinfolk.core.groups import Groups
from kinfolk.ids import Pid

ADA, BOB = "ada@10.0.0.1:4370", "bob@10.0.0.2:4370"


def ada(local: int) -> Pid:
    return Pid(ADA, 1, local)


def bob(local: int, creation: int = 1) -> Pid:
    return Pid(BOB, creation, local)


def pids() -> Iterator[Pid]:
    return (Pid(node, creation, local) for node in (ADA, BOB) for creation in (1, 2) for local in (1, 2, 3))


def test_members_of_one_node_stand_together_in_the_order_in_which_they_joined():
    groups = Groups(())
    for pid in (ada(2), bob(1), ada(1), bob(3)):
        assert groups.add("stores", pid)
    assert groups.members("stores") == [ada(2), ada(1), bob(1), bob(3)]
    assert groups.members_on(BOB, "stores") == [bob(1), bob(3)]
    assert groups.nodes("stores") == [ADA, BOB]


def test_empty_equals_absent():
    groups = Groups(())
    assert groups.members("stores") == groups.view("stores") == groups.nodes("stores") == list(groups) == []
    groups.add("stores", ada(1))
    groups.add("stores", bob(1))
    assert groups.remove("stores", ada(1))
    assert groups.nodes("stores") == [BOB], "no broadcast goes to a node that has no member any more"
    assert groups.remove("stores", bob(1))
    assert list(groups) == [] and len(groups) == 0
    assert not groups.remove("stores", bob(1))


def test_joining_twice_and_leaving_twice_change_nothing():
    groups = Groups(())
    assert groups.add("stores", ada(1)) and not groups.add("stores", ada(1))
    assert groups.members("stores") == [ada(1)]
    assert groups.remove("stores", ada(1)) and not groups.remove("stores", ada(1))


def test_who_is_refused_is_no_member_although_still_in_the_view():
    refused: set[object] = set()
    groups = Groups(refused)
    for pid in (ada(1), ada(2), bob(1), bob(1, creation=2)):
        groups.add("stores", pid)
    refused |= {ada(1), (BOB, 1)}
    assert groups.members("stores") == [ada(2), bob(1, creation=2)]
    assert groups.members_on(ADA, "stores") == [ada(2)]
    assert groups.view("stores") == [ada(1), ada(2), bob(1), bob(1, creation=2)]


@given(st.randoms(use_true_random=False))
def test_whatever_is_done_the_view_is_a_set_of_pairs(chance: random.Random):
    groups, model = Groups(()), set[tuple[str, Pid]]()
    for _ in range(60):
        group, pid = chance.choice("ab"), chance.choice(list(pids()))
        if chance.random() < 0.5:
            assert groups.add(group, pid) is ((group, pid) not in model)
            model.add((group, pid))
        else:
            assert groups.remove(group, pid) is ((group, pid) in model)
            model.discard((group, pid))
        assert {(group, pid) for group in groups for pid in groups.members(group)} == model
        for group in "ab":
            assert set(groups.nodes(group)) == {pid.node for of, pid in model if of == group}
