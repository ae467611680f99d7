"""Finds what somebody looks for in the tables of a node, however long they are, and counts what there is of it.

Tables are gone through slice by slice (`kinfolk.looking.Turns`), in a snapshot. What comes or goes between two pages
may be missing or too many, as in any listing.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from kinfolk.ids import Pid
from kinfolk.looking import SORTS, Turns, names_of, row

if TYPE_CHECKING:
    from kinfolk.node import Node
    from kinfolk.process import Process


class Ordered(Protocol):
    """What can be put in order."""

    def __lt__(self, other: Any, /) -> bool:
        """Whether it comes before another."""
        ...


T = TypeVar("T", bound=Ordered)

_COST = 2  # of a row that is put in order, in those of one that is only walked over
_LOOKED_AT = 100
_TOLD = 6
"""Names of one process."""
DEEPEST = 10_000
"""Processes that may be skipped: all before those that are told are put in order for it."""

ORDERS = ("start", "waiting", "received")
"""How processes may be ordered: by their start, or the one first that has most messages."""


class Found(NamedTuple, Generic[T]):
    """The first of the rows that were looked for, whether there are more after them, and how many there are in all."""

    rows: list[T]
    more: bool
    matching: int


async def first(
    rows: Iterable[T], limit: int, wanted: Callable[[T], bool] | None = None, after: T | None = None
) -> Found[T]:
    """The smallest of the rows that are wanted, in order.

    Args:
        limit: how many.
        wanted: says whether a row counts; None for all of them.
        after: only rows beyond this one are returned; those before it count all the same.
    """
    found: list[T] = []
    kept = limit + 1  # one more than wanted tells that there are more
    last: T | None = None  # of those that are kept, once there are so many
    count = 0
    async for some in Turns().over(rows, _COST):
        if wanted is not None:
            some = list(filter(wanted, some))
        count += len(some)
        if after is not None:
            some = [row for row in some if after < row]
        if last is not None:
            some = [row for row in some if row < last]
        found += some
        if len(found) >= 2 * kept:  # not after each slice: to sort many again for a few more takes long
            found.sort()
            del found[kept:]
            last = found[-1]
    found.sort()
    return Found(found[:limit], len(found) > limit, count)


def containing(text: str) -> Callable[[str], bool] | None:
    """Says of a name whether a text occurs in it; capitals count if the text has some. None if all names will do."""
    if not text:
        return None
    if text == text.lower():
        return lambda name: text in name.lower()
    return lambda name: text in name


async def names(node: "Node", text: str, holder: str, after: str, limit: int) -> dict[str, Any]:
    """The names in which a text occurs, each with its holder, which is of this node if one is given."""
    table = node.names.snapshot()
    has = containing(text)

    def wanted(name: str) -> bool:
        return table[name].node == holder and (has is None or has(name))

    found = await first(table, limit, wanted if holder else has, after)
    rows = [[name, str(table[name])] for name in found.rows]
    return {"names": rows, "more": found.more, "count": found.matching}


async def groups(node: "Node", text: str, after: str, limit: int) -> dict[str, Any]:
    """The groups in whose names a text occurs, each with the number of its members."""
    table = node.groups.snapshot()
    found = await first(table, limit, containing(text), after)
    rows = [[group, len(table[group])] for group in found.rows]
    return {"groups": rows, "more": found.more, "count": found.matching}


async def members(node: "Node", group: str, after: Pid | None, limit: int) -> dict[str, Any]:
    """The members of one group."""
    found = await first(node.groups.members(group), limit, None, after)
    return {"members": [str(pid) for pid in found.rows], "more": found.more, "count": found.matching}


async def processes(node: "Node", text: str, order: str, skip: int, limit: int) -> dict[str, Any]:
    """The processes of this node whose function or names contain a text, in this order, from the one at `skip` on.

    Beyond `DEEPEST` nobody comes: what is told from there on is the last there is to be had, whoever else there may be.
    Of a process that has very many names, only the oldest `_LOOKED_AT` are looked at, and only the oldest `_TOLD` told.
    """
    has = containing(text)

    def wanted(row: "tuple[int, int, Process]") -> bool:
        process = row[2]
        return has is None or has(process.function) or any(map(has, names_of(node, process, _LOOKED_AT)))

    skip = min(skip, DEEPEST)
    rank = SORTS["age" if order == "start" else order](node)
    rows = ((rank(process), process.pid.local, process) for process in node.processes())
    found = await first(rows, skip + limit, None if has is None else wanted)
    now = asyncio.get_running_loop().time()
    shown = [row(node, process, now, _TOLD) for _, _, process in found.rows[skip:]]
    return {"processes": shown, "more": found.more and skip < DEEPEST, "count": found.matching}
