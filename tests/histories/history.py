"""What clients of names did, what came of it, and when: a history, to be checked by `tests.histories.checker`.

Times are seconds on one clock that all clients share. What takes a while has two: it may have taken effect at any
moment between them. Pids and nodes are written out; a pid begins with the name of its node.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from msgspec import Struct


def start_of(pid: str) -> str:
    """The start of a node in which a process lives."""
    return pid.rpartition("/")[0]


def node_of(pid: str) -> str:
    """The node on which a process lives."""
    return pid.partition("/")[0]


class Register(Struct):
    """Somebody registers a process under a name."""

    name: str
    pid: str
    began: float
    ended: float = inf
    outcome: Literal["unknown", "held", "failed"] = "unknown"
    """Confirmed; or not. Unknown as long as it has not returned, and for ever if its node is gone."""
    holder: str | None = None
    """Who has the name already, if it was refused for that."""


class Unregister(Struct):
    """Somebody takes a name from the process that a node resolves it to."""

    name: str
    pid: str
    began: float
    ended: float = inf
    done: bool = False
    """Whether it returned, so that every peer had acknowledged it, or its time was up."""


class Exit(Struct):
    """A process ends."""

    pid: str
    began: float
    ended: float = inf


class Lost(Struct):
    """A process is told that it has lost a name."""

    name: str
    pid: str
    at: float


class Lookup(Struct, gc=False):
    """A node resolves a name."""

    node: str
    name: str
    pid: str | None
    began: float
    ended: float


class Fault(Struct):
    """Something happens to what is between two nodes, or to one of them: after that, what held between them may not."""

    pair: frozenset[str]
    at: float


class Apart(Struct):
    """Meanwhile nothing passes between two nodes, one way at least."""

    pair: frozenset[str]
    began: float
    ended: float = inf


class Gone(Struct):
    """A start of a node is gone, with all its processes."""

    start: str
    """The name of the node and its creation, as its pids begin."""
    at: float
    silent: bool = False
    """Whether nobody is told, so that it is missed only after a while."""


class Rest(Struct):
    """Nothing is under way between these nodes, and all of them are connected, each with each."""

    nodes: frozenset[str]
    at: float
    until: float
    """Up to when nothing has happened since."""


Happening = Register | Unregister | Exit | Lost | Lookup | Fault | Apart | Gone | Rest


@dataclass(frozen=True)
class Bounds:
    """How long what is stated to be over may still be seen, in seconds."""

    hop: float
    """Until an end is known at a node that is connected: one hop, and what reading the clock costs."""
    silence: float
    """Until a node that is not heard of any more is taken for lost."""


@dataclass
class History:
    """Everything that happened, in the order of its beginning as far as that is known."""

    bounds: Bounds
    happened: list[Happening] = field(default_factory=list)

    def add(self, *happened: Happening) -> None:
        """Something has happened, or begins."""
        self.happened += happened

    def fault(self, nodes: Iterable[str], others: Iterable[str], at: float) -> None:
        """Something happens between each of the one and each of the others."""
        others = list(others)
        self.happened += [Fault(frozenset((one, other)), at) for one in nodes for other in others if one != other]
