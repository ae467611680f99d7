"""Nodes that announce themselves in etcd, each under a lease, and find all others there: ``etcd://host:2379``.

Only whom to dial comes from there; names and all else stay with the mesh. While etcd is away, the mesh goes on.
"""

import asyncio
from collections.abc import Set as AbstractSet
from typing import Any

from kinfolk import effects as fx
from kinfolk.ids import Address
from kinfolk.registries.etcd import Client, Etcd

_TTL = 15
"""Seconds of the lease, unless it is renewed so seldom that it must last longer."""
_KEYS = "announced/"


class Announced:
    """The nodes of a cluster that have announced themselves.

    Args:
        etcd: where.
        cluster: whose nodes.
        name: of the node to announce; "" to look only.
        every: seconds between two calls of `addresses`, about.

    Raises:
        ImportError: grpcio or protobuf are not installed.
        OSError: a file of `etcd` cannot be read.
    """

    def __init__(self, etcd: Etcd, cluster: str, name: str, every: float) -> None:
        self._etcd = etcd
        self._name = name
        self._ttl = max(_TTL, int(3 * every) + 1)
        self._client = Client(etcd, cluster, self._ttl, 1.0, self._told, asyncio.get_running_loop().time, name)
        self._lease = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._nodes: dict[str, str] = {}  # by their keys
        self._arriving: dict[str, str] | None = None  # of a snapshot that has not ended
        self._revision = 0
        self._following = False
        self._current = asyncio.Event()

    async def addresses(self) -> AbstractSet[Address | str]:
        """Keep the announcement, and tell who else is there.

        Raises:
            OSError: etcd does not answer, or refuses.
        """
        if not self._following:
            self._current.clear()
            self._following = True
            self._client.consult(fx.Follow(self._revision))
        if self._name:
            await self._announce()
        await self._current.wait()
        if not self._following:
            raise self._trouble()
        return set(self._nodes.values())

    async def close(self) -> None:
        """Take the announcement back, as well as that can be done in a moment."""
        self._client.consult(fx.Release(self._lease))
        await self._client.close()

    async def _announce(self) -> None:
        if self._lease and (await self._ask(fx.Renew(self._lease))).ttl <= 0:
            self._lease = 0
        if not self._lease:
            self._lease = (await self._ask(fx.Grant(self._ttl))).lease
        key, value = f"{_KEYS}{self._name}", self._name.encode()
        there = await self._ask(fx.Put(key, value, self._lease, 0))
        if isinstance(there, fx.NoLease):
            self._lease = 0  # the next call gets another
        elif isinstance(there, fx.Fact) and there.lease != self._lease:
            # From a former start of this node: it goes with that one's lease, unless we take it away.
            await self._ask(fx.Revoke(there.lease))
            await self._ask(fx.Put(key, value, self._lease, 0))

    async def _ask(self, request: fx.Request) -> Any:
        future = self._answers[id(request)] = asyncio.get_running_loop().create_future()
        try:
            self._client.consult(request)
            answer = await future
        finally:
            del self._answers[id(request)]
        if answer is None:
            raise self._trouble()
        return answer

    def _trouble(self) -> OSError:
        return OSError(f"{self._etcd}: {self._client.refused or self._client.trouble or 'no answer'}")

    def _told(self, said: fx.Input) -> None:
        match said:
            case fx.Consulted(request=request, answer=answer):
                future = self._answers.get(id(request))
                if future is not None and not future.done():
                    future.set_result(answer)
            case fx.Snapshot():
                self._arrives(said)
            case fx.Changed(revision=revision, changes=changes):
                for change in changes:
                    _apply(self._nodes, change)
                self._revision = revision or self._revision
            case fx.Unfollowed(compacted=compacted):
                self._following = False
                if compacted:
                    self._revision = 0
                self._current.set()
            case _:
                self._current.set()  # all changes up to a moment ago have been told

    def _arrives(self, part: fx.Snapshot) -> None:
        """A part of all that is there. What was known before holds until the last has come."""
        arriving = {} if part.first or self._arriving is None else self._arriving
        for fact in part.facts:
            _apply(arriving, fact)
        self._arriving = arriving
        if part.done:
            self._nodes, self._arriving, self._revision = arriving, None, part.revision
            self._current.set()


def _apply(nodes: dict[str, str], change: fx.Fact | fx.Gone) -> None:
    if isinstance(change, fx.Gone):
        nodes.pop(change.key, None)
    elif change.key.startswith(_KEYS):
        nodes[change.key] = change.key.removeprefix(_KEYS)
