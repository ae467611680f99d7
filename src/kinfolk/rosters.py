"""Groups that an outside authority (etcd) keeps: who of this node is a member there, and who of all others.

A membership is a key of its own under the node's lease, and contradicts no other. So a member is one here at once and
in any case, also while there is no lease; whatever the authority has is brought to that, step by step, and one request
about a membership is under way at a time:

| the authority has   | it is wanted                        | it is not                             |
| ------------------- | ----------------------------------- | ------------------------------------- |
| nothing (ABSENT)    | Put: PUTTING                        | forgotten                             |
| PUTTING, done       | THERE                               | Remove: REMOVING                      |
| PUTTING, unanswered | Put again                           | Remove: REMOVING                      |
| THERE               |                                     | Remove: REMOVING                      |
| THERE, told gone    | Put: PUTTING                        |                                       |
| REMOVING, done      | Put, with a new number: PUTTING     | forgotten                             |
| REMOVING, unanswered| Remove again                        | Remove again                          |

Nothing of a lease that has ended is there. A write of ours that is carried out long after we gave it up is told by the
watch, and removed. The number in the value keeps a Remove that comes so late from what has been written since.
"""

from collections.abc import Callable, Iterator
from enum import Enum

import msgspec
from msgspec import Struct

from kinfolk import effects as fx
from kinfolk.agenda import Agenda
from kinfolk.core.groups import Groups
from kinfolk.ids import Pid, check_name

AGAIN = 0.2
"""Seconds after which something that was not answered is asked again."""
PREFIX = "groups/"


class Stage(Enum):
    """What the authority has of a membership of ours."""

    ABSENT = "absent"
    PUTTING = "putting"
    THERE = "there"
    REMOVING = "removing"


class Seat(Struct, frozen=True):
    """What stands under a membership: which of its node's it is."""

    number: int


class _Own(Struct, eq=False):
    """A membership of a process of this node."""

    key: str
    number: int
    value: bytes
    """What is put, or removed."""
    wanted: bool = True
    stage: Stage = Stage.ABSENT
    asking: bool = False
    """Whether a Put or Remove of it is under way."""
    revision: int = 0


class Rosters:
    """The memberships of one node, and its view of all others.

    Args:
        agenda: of the node.
        node, creation: this start of it.
        no_lease: told that the authority knows our lease no longer.

    Attributes:
        view: who is a member of which group.
    """

    def __init__(self, agenda: Agenda, node: str, creation: int, no_lease: Callable[[], None]) -> None:
        self._agenda = agenda
        self.node, self.creation = node, creation
        self._no_lease = no_lease
        self.view = Groups(frozenset())
        self._own: dict[str, _Own] = {}
        self._by_process: dict[int, dict[str, None]] = {}  # the groups that each is a member of
        self._others: dict[str, None] = {}  # keys
        self._lease = 0
        self._numbers = 0

    # --- what own processes want ---

    def join(self, group: str, pid: Pid) -> None:
        """A process of this node is a member from now on."""
        if not self.view.add(group, pid):
            return
        self._agenda.do(fx.MemberAdded(group, pid))
        self._by_process.setdefault(pid.local, {})[group] = None
        own = self._own.get(_key(group, pid))
        if own is None:
            own = self._make(_key(group, pid))
        own.wanted = True
        self._go_on(own)

    def leave(self, group: str, pid: Pid) -> None:
        """A process of this node is a member no longer."""
        if not self.view.remove(group, pid):
            return
        self._agenda.do(fx.MemberRemoved(group, pid))
        groups = self._by_process[pid.local]
        del groups[group]
        if not groups:
            del self._by_process[pid.local]
        own = self._own[_key(group, pid)]
        own.wanted = False
        self._go_on(own)

    def exited(self, local: int) -> None:
        """A process of this node is dead: it is in no group."""
        for group in list(self._by_process.get(local, ())):
            self.leave(group, Pid(self.node, self.creation, local))

    def groups_of(self, local: int) -> list[str]:
        """The groups that a process of this node is a member of, in the order in which it joined them."""
        return list(self._by_process.get(local, ()))

    # --- the lease ---

    def leased(self, lease: int) -> None:
        """There is a lease: all that is wanted is written under it."""
        self._lease = lease
        for own in list(self._own.values()):
            self._go_on(own)

    def unleased(self) -> None:
        """The lease counts no longer. Whatever was put under it goes with it, and is put anew under the next."""
        self._lease = 0
        for own in list(self._own.values()):
            if own.asking:
                self._number(own)  # an answer that comes late is about another
            own.stage, own.asking = Stage.ABSENT, False
            self._agenda.timers.cancel(("roster", own.key))
            self._go_on(own)

    # --- what the authority says ---

    def consulted(self, request: fx.Put | fx.Remove, answer: object) -> None:
        """A request about a membership has been answered, or has not been."""
        own = self._own.get(request.key)
        if own is None or own.number != request.claim or (isinstance(request, fx.Put) and request.lease != self._lease):
            return  # of a lease that has ended
        own.asking = False
        match request, answer:
            case _, None:
                self._agenda.later(("roster", own.key), AGAIN)
            case fx.Put(), fx.NoLease():
                self._no_lease()
            case fx.Put(), fx.Done(revision=revision):
                self._is_there(own, revision)
            case fx.Put(value=value), fx.Fact(value=found, revision=revision) if found == value:
                self._is_there(own, revision)  # our own write, which was not answered
            case _, fx.Fact(value=found):  # what an earlier membership of this process has left
                own.value, own.stage = found, Stage.REMOVING
                self._go_on(own)
            case _:
                own.stage = Stage.ABSENT
                self._number(own)
                self._go_on(own)

    def again(self, key: str) -> None:
        """What was not answered is asked again, or what is wanted now."""
        own = self._own.get(key)
        if own is not None:
            self._go_on(own)

    def fold(self, fact: fx.Fact) -> bool:
        """Somebody has written this. Returns whether it is a membership."""
        found = _membership(fact.key)
        if found is None:
            return False
        group, pid = found
        if pid.node != self.node:
            self._others[fact.key] = None
            if self.view.add(group, pid):
                self._agenda.do(fx.MemberAdded(group, pid))
        elif pid.creation == self.creation and self._lease and fact.lease == self._lease:
            own = self._own.get(fact.key)
            if own is None:  # a write that comes late
                own = self._make(fact.key)
                own.value, own.wanted, own.stage = fact.value, False, Stage.THERE
                self._go_on(own)
        return True

    def gone(self, key: str, revision: int) -> None:
        """There is no such key since before or at this revision."""
        own = self._own.get(key)
        if own is not None and own.stage is Stage.THERE and own.revision < revision:
            own.stage = Stage.ABSENT
            self._go_on(own)
        elif key in self._others:
            del self._others[key]
            self._hide(key)

    def keys(self) -> Iterator[str]:
        """The keys of others that are known to be there, and those of ours."""
        yield from self._others
        for own in self._own.values():
            if own.stage is Stage.THERE:
                yield own.key

    def forget_others(self) -> None:
        """The authority has another history than the one we know: what others had there is not known."""
        for key in self._others:
            self._hide(key)
        self._others.clear()

    # --- inside ---

    def _make(self, key: str) -> _Own:
        own = self._own[key] = _Own(key, 0, b"")
        self._number(own)
        return own

    def _number(self, own: _Own) -> None:
        self._numbers += 1
        own.number, own.value = self._numbers, msgspec.json.encode(Seat(self._numbers))

    def _is_there(self, own: _Own, revision: int) -> None:
        own.stage, own.revision = Stage.THERE, revision
        self._go_on(own)

    def _go_on(self, own: _Own) -> None:
        """Ask for the next step towards what is wanted, if there is one and none is under way."""
        if own.asking:
            return
        if own.stage is Stage.ABSENT and not own.wanted:
            del self._own[own.key]
            self._agenda.timers.cancel(("roster", own.key))
        elif self._lease and own.wanted and own.stage in (Stage.ABSENT, Stage.PUTTING):
            own.stage = Stage.PUTTING
            self._ask(own, fx.Put(own.key, own.value, self._lease, own.number))
        elif self._lease and (own.stage is Stage.REMOVING or not own.wanted):
            own.stage = Stage.REMOVING
            self._ask(own, fx.Remove(own.key, own.value, own.number))

    def _ask(self, own: _Own, request: fx.Put | fx.Remove) -> None:
        own.asking = True
        self._agenda.timers.cancel(("roster", own.key))
        self._agenda.do(fx.Consult(request))

    def _hide(self, key: str) -> None:
        found = _membership(key)
        if found is not None and self.view.remove(*found):
            self._agenda.do(fx.MemberRemoved(*found))


def _key(group: str, pid: Pid) -> str:
    return f"{PREFIX}{pid}/{group}"


def _membership(key: str) -> tuple[str, Pid] | None:
    """The group and the member of a key; None if it is something else: whoever can write there can write anything."""
    *pid, group = key.removeprefix(PREFIX).split("/", 3)
    try:
        return check_name(group), Pid.parse("/".join(pid))
    except ValueError:
        return None
