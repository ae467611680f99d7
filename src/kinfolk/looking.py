"""Long tables of a node, looked at without holding it up: pages of names, groups and processes, and who is on top.

Whoever looks goes slice by slice. After each, the others on the loop have their turn; and where they have much to do,
he who looks then rests for several times as long as he took (`Turns`). So a look takes longer at a busy node, and the
node is as quick as before.
"""

import asyncio
import heapq
import itertools
import os
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from kinfolk.ids import Pid

if TYPE_CHECKING:
    from kinfolk.node import Node
    from kinfolk.process import Process

T = TypeVar("T")
R = TypeVar("R", str, tuple[str, Pid])

PAGE = 5000
"""Names or members in one answer: with the longest names and node names together that stays below 4 MiB."""
PROCESSES = 1000
"""Processes in one answer, of which there is more to tell."""
TOP = 200
"""Processes in one answer about those on top."""
_SLICE = 1000  # rows that are walked before others get their turn: at most a few milliseconds
_SORTED, _WRITTEN, _NAMED = 2, 5, 2  # times as much as walking: to sort rows, to write them, to look for their names
_BUSY = 0.0005  # seconds; others who take less than this in their turn have nothing to do
_REST = 4  # times as long as a slice took
_LISTINGS = 4  # that are kept until their next page is asked for
_FORGET = 30.0  # seconds after which one is not
_SHOWN = 20  # links, and groups, of one process
_TOLD = 10  # names of one process among many, the oldest: so that no number of names makes an answer too large
_ALL = 2**63 - 1  # children of one supervisor, for whoever wants every one
_ALL_TOLD = 100  # names of one that is asked about alone
_NEXT = 5  # messages that wait for it, the oldest
_NOT_SHOWN = (os.path.dirname(__file__), os.path.dirname(asyncio.__file__))  # of the code that a process is in


class Turns:
    """Lets the others on the loop have their turn, between the slices of somebody who looks."""

    def __init__(self) -> None:
        self._clock = asyncio.get_running_loop().time
        self._since = self._clock()
        self._spent = 0

    async def over(self, rows: Iterable[T], cost: int = 1) -> AsyncIterator[list[T]]:
        """The rows in slices; the others have their turn after each.

        Args:
            cost: of a row, in those of one that is only walked over.
        """
        waiting = iter(rows)
        while some := list(itertools.islice(waiting, max(1, _SLICE // cost))):
            yield some
            self._spent += cost * len(some)
            if self._spent >= _SLICE:
                self._spent = 0
                await self._next()

    async def _next(self) -> None:
        done = self._clock()
        await asyncio.sleep(0)
        if self._clock() - done > _BUSY:
            await asyncio.sleep(_REST * (done - self._since))
        self._since = self._clock()


# --- pages ---


class _Kept(NamedTuple):
    """A listing that may go on: since when it waits for that, its next row, and the rest."""

    since: float
    first: list[Any]
    rest: Iterator[Any]


class Listings:
    """Pages of the names and groups that a node knows, in order.

    The first page of a listing sorts all of it, and the others go on from there. One whose next page is not asked for
    in time begins anew, at the row that it had come to. So what comes or goes between two pages may be missing, or too
    many.
    """

    def __init__(self, node: "Node") -> None:
        self._node = node
        self._open: OrderedDict[object, _Kept] = OrderedDict()

    async def names(self, prefix: str, after: str, limit: int) -> dict[str, Any]:
        """The first names that begin with the prefix and come after another, each with its holder."""
        whereis = self._node.names.whereis  # for it, who is dead and on his way out of the table has no name
        turns = Turns()

        async def anew() -> Iterator[str]:
            table = dict((self._node.kernel.tenure or self._node.kernel.names).view)
            return await _sorted(
                turns, table, lambda name: after < name and name.startswith(prefix) and whereis(name) is not None
            )

        page, more = await self._page(turns, ("names", prefix), after, limit, anew)
        rows = [
            [name, str(holder)]
            async for some in turns.over(page, _WRITTEN)
            for name in some
            if (holder := whereis(name)) is not None
        ]
        return {"names": rows, "more": more}

    async def groups(self, prefix: str, after: tuple[str, Pid] | None, limit: int) -> dict[str, Any]:
        """The first memberships of groups that begin with the prefix, each as group and pid, after another."""
        every, turns = self._node.kernel.groups, Turns()

        async def anew() -> Iterator[tuple[str, Pid]]:
            members = ((group, pid) for group in every if group.startswith(prefix) for pid in every.members(group))
            return await _sorted(turns, members, lambda member: after is None or after < member)

        page, more = await self._page(turns, ("groups", prefix), after, limit, anew)
        rows = [[group, str(pid)] async for some in turns.over(page, _WRITTEN) for group, pid in some]
        return {"groups": rows, "more": more}

    async def _page(
        self, turns: Turns, what: object, after: object, limit: int, anew: Callable[[], Awaitable[Iterator[R]]]
    ) -> tuple[list[R], bool]:
        """The next rows of a listing, and whether there are more."""
        now = asyncio.get_running_loop().time()
        kept = self._open.pop((what, after), None)
        if kept is None or now - kept.since > _FORGET:
            first, rest = [], await anew()
        else:
            first, rest = kept.first, kept.rest
        rows, page = itertools.chain(first, rest), list[R]()
        async for some in turns.over(itertools.islice(rows, min(limit, PAGE)), _SORTED):
            page += some
        ahead = list(itertools.islice(rows, 1))
        if ahead:
            self._open[what, page[-1]] = _Kept(now, ahead, rest)
            while len(self._open) > _LISTINGS:
                self._open.popitem(last=False)
        return page, bool(ahead)


async def _sorted(turns: Turns, rows: Iterable[R], wanted: Callable[[R], bool]) -> Iterator[R]:
    """The rows that are wanted, in order: slices are sorted now, and merged as far as somebody goes on."""
    return heapq.merge(*[sorted(filter(wanted, some)) async for some in turns.over(rows, _SORTED)])


async def processes(node: "Node", after: int, limit: int) -> dict[str, Any]:
    """The first processes in the order of their start, after the one with this local id."""
    alive = node.processes()
    start = bisect_right(alive, after, key=_local)
    end = start + min(limit, PROCESSES)
    return {"processes": await _rows(node, Turns(), alive[start:end]), "more": end < len(alive)}


# --- who is on top ---


class Mailboxes(NamedTuple):
    """How many processes a node has, the messages that wait for all of them, and for the one with most."""

    processes: int
    waiting: int
    longest: int


async def mailboxes(node: "Node") -> Mailboxes:
    """What waits for the processes of a node."""
    waiting = longest = 0
    alive = node.processes()
    async for some in Turns().over(alive):
        lengths = [len(process.mailbox.messages) for process in some]
        waiting, longest = waiting + sum(lengths), max(longest, *lengths)
    return Mailboxes(len(alive), waiting, longest)


Key = Callable[["Process"], Any]


async def top(node: "Node", sort: str, pattern: str, limit: int) -> dict[str, Any]:
    """The processes that stand first by something, at most `TOP` of them, and what there is of all.

    Args:
        sort: one of `SORTS`.
        pattern: which count: those with this somewhere in a name, in what they run, or in the node's name.

    Raises:
        ValueError: there is no such order.
    """
    if sort not in SORTS:
        raise ValueError(f"processes are not sorted by {sort!r}: there are {', '.join(SORTS)}")
    key, limit = SORTS[sort](node), min(limit, TOP)
    has = _has(node, pattern)
    turns, alive = Turns(), node.processes()
    waiting = matching = 0
    first: list[tuple[Any, int, Process]] = []
    async for some in turns.over(alive, 1 if has is None and sort != "name" else _NAMED):
        waiting += sum([len(process.mailbox.messages) for process in some])
        chosen = some if has is None else [process for process in some if has(process)]
        matching += len(chosen)
        keyed = [(key(process), process.pid.local, process) for process in chosen]
        if len(first) == limit:
            keyed = [row for row in keyed if row < first[-1]]
        if keyed:
            first = heapq.nsmallest(limit, itertools.chain(first, keyed))
    return {
        "node": node.name,
        "names": len(node.names),
        "processes": len(alive),
        "waiting": waiting,
        "matching": matching,
        "ready": node.ready,
        "top": await _rows(node, turns, [process for _, _, process in first]),
    }


def _by_name(node: "Node") -> Key:
    claimed, local = _claimed(node), node.names.local.of

    def key(process: "Process") -> tuple[bool, str]:
        names = claimed(process.pid.local) or local(process.pid)
        return (False, names[0]) if names else (True, "")

    return key


def _claimed(node: "Node") -> Callable[[int], list[str]]:
    """The names that a process has or claims: quicker to find than those that it has for certain."""
    return (node.kernel.tenure or node.kernel.names).names_of


def _waiting(process: "Process") -> int:
    return -len(process.mailbox.messages)


def _received(process: "Process") -> int:
    return -process.mailbox.taken


SORTS: Mapping[str, Callable[["Node"], Key]] = {
    "waiting": lambda _: _waiting,
    "received": lambda _: _received,
    "age": lambda _: lambda _: 0,  # those that are as high stand in the order of their start
    "name": _by_name,
}
"""What processes are sorted by: the most, the oldest, or the alphabet first."""


def _has(node: "Node", pattern: str) -> Callable[["Process"], bool] | None:
    """Whether a process has the text somewhere; None if all have."""
    if pattern in node.name:
        return None
    claimed, local = _claimed(node), node.names.local.of
    runs: dict[int, bool] = {}  # by the identity of what runs: many processes run the same

    def has(process: "Process") -> bool:
        body = id(process.body)
        found = runs.get(body)
        if found is None:
            found = runs[body] = pattern in process.function
        if found:
            return True
        for names in claimed(process.pid.local), local(process.pid):
            for name in names:
                if pattern in name:
                    return True
        return False

    return has


def names_of(node: "Node", process: "Process", limit: int) -> list[str]:
    """The names of a process of this node, so many at most: those first that the whole cluster knows."""
    return [*node.names.of(process.pid, limit), *node.names.local.of(process.pid)][:limit]


# --- what is supervised ---


async def supervised(node: "Node", local: int, skip: int, most: int, limit: int) -> dict[str, Any]:
    """The supervisors of a node in the order of their start, each with its children, but not with what is below those.

    Args:
        local: from that local id on.
        skip: so many children of that one have been told.
        most: children that are told of one supervisor, in all.
        limit: supervisors and children in this answer, not counting the first of each; at most `PROCESSES`.

    Returns:
        Also what to give as `local` and `skip` for those that come next; None if there are none.
    """
    supervisors, turns, told = node.supervisors, Turns(), list[dict[str, Any]]()
    room = min(limit, PROCESSES)
    following: list[int] | None = None
    ahead = sorted(each for each in supervisors if each >= local)
    for each in ahead:
        supervising = supervisors.get(each)
        if supervising is None:
            continue  # it has ended since we began
        if room <= 0:
            following = [each, 0]
            break
        start = skip if each == local else 0
        last = min(most, len(supervising.slots))
        end = min(last, start + max(1, room - 1))
        told.append(
            {
                "pid": str(supervising.me.pid),
                "parent": None if supervising.me.parent is None else str(supervising.me.parent),
                "runs": supervising.me.function,
                "strategy": supervising.strategy,
                "children": [
                    {**msgspec.structs.asdict(child), "pid": None if child.pid is None else str(child.pid)}
                    async for some in turns.over(supervising.infos(start, end), _WRITTEN)
                    for child in some
                ],
                "left_out": len(supervising.slots) - last,
            }
        )
        room -= 1 + max(0, end - start)
        if end < last:
            following = [each, end]
            break
    return {"supervisors": told, "next": following}


async def trees(ask: Callable[[list[Any]], Awaitable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """All that is supervised on a node, page by page of `supervised`; see `grown`."""
    told = list[dict[str, Any]]()
    following: list[int] | None = [0, 0]
    while following is not None:
        page = await ask(["tree", *following, _ALL, PROCESSES])
        told += page["supervisors"]
        following = page["next"]
    return grown(told)


def grown(told: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trees of what `supervised` has told: those that no other of it supervises, each with all that is below it."""
    known: dict[str, dict[str, Any]] = {}
    for each in told:  # one may come again, with more of its children
        children = [dict[str, Any](child) for child in each["children"]]
        known.setdefault(each["pid"], {**each, "children": []})["children"] += children
    for each in known.values():
        for child in each["children"]:
            if child["pid"] in known:
                child |= _below(known[child["pid"]])
    return [
        {"id": "supervisor", "pid": pid, "runs": each["runs"], **_below(each)}
        for pid, each in known.items()
        if each["parent"] not in known
    ]


def _below(supervisor: dict[str, Any]) -> dict[str, Any]:
    left_out = {"left_out": supervisor["left_out"]} if supervisor["left_out"] else {}
    return {"strategy": supervisor["strategy"], "children": supervisor["children"], **left_out}


# --- processes, as they are told of ---


async def _rows(node: "Node", turns: Turns, processes: "list[Process]") -> list[dict[str, Any]]:
    now = asyncio.get_running_loop().time()
    return [row(node, process, now, _TOLD) async for some in turns.over(processes, _WRITTEN) for process in some]


def row(node: "Node", process: "Process", now: float, names: int) -> dict[str, Any]:
    """What is told of a process of this node, with so many of its names: the oldest."""
    return {
        "pid": str(process.pid),
        "names": names_of(node, process, names),
        "runs": process.function,
        "waiting": len(process.mailbox),
        "received": process.mailbox.taken,
        "age": 0.0 if process.started is None else now - process.started,
    }


def process(node: "Node", pid: Pid) -> dict[str, Any] | None:
    """What there is to tell of one process of this node, all within bounds; None if it is dead or lives elsewhere."""
    alive = node.processes()
    found = alive[bisect_left(alive, pid.local, key=_local) :][:1]
    if not found or found[0].pid != pid:
        return None
    supervisor = node.supervisors.get(pid.local)
    return {
        **row(node, found[0], asyncio.get_running_loop().time(), _ALL_TOLD),
        "parent": None if found[0].parent is None else str(found[0].parent),
        "links": [str(link) for link in node.signals.relations.links(pid.local)[:_SHOWN]],
        "groups": node.kernel.groups_of(pid.local)[:_SHOWN],
        "open_calls": len(found[0].open_calls or ()),
        "next": [type(message).__name__ for message in itertools.islice(found[0].mailbox.messages, _NEXT)],
        "at": _place(found[0]),
        "supervises": 0 if supervisor is None else len(supervisor.slots),
    }


def _local(process: "Process") -> int:
    return process.pid.local


def _place(process: "Process") -> str | None:
    """Where its code waits, as file and line: the last before it goes on into kinfolk or asyncio. None: not begun."""
    waits: Any = None if process.task is None else process.task.get_coro()
    place = None
    while frame := getattr(waits, "cr_frame", None):
        if place is None or not frame.f_code.co_filename.startswith(_NOT_SHOWN):
            place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        waits = waits.cr_await
    return place
