"""Looks again and again for where the nodes of the cluster are, and brings the mesh in line with what is found."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress

from kinfolk import effects as fx
from kinfolk.core.members import Members
from kinfolk.discovery.announced import Announced
from kinfolk.discovery.plan import reconcile
from kinfolk.discovery.sources import Resolve, Source, open_source, seeds_of
from kinfolk.ids import Address, Seed, node_address
from kinfolk.logs import fields
from kinfolk.registries.etcd import Etcd

_log = logging.getLogger("kinfolk")

_PATIENCE = 5.0
"""Seconds that a lookup may take, if the node has no reason to hurry."""


class Finder:
    """Runs the lookups of one node.

    Args:
        name: of the node, which is not dialled.
        sources: to ask, each under the text that it stands for.
        static: whom the node was told to join besides; discovery leaves them alone.
        members: whom the mesh dials, and has sessions with.
        submit: tells the kernel whom to seek and to forget.
        resolve: finds the addresses of the node's own host.
        every: seconds between two looks, about.
        rng: gives the jitter, so that not all nodes ask at once.
    """

    def __init__(
        self,
        name: str,
        sources: Mapping[str, Source],
        static: Collection[Seed],
        members: Members,
        submit: Callable[[fx.Input], None],
        resolve: Resolve,
        *,
        every: float,
        rng: random.Random,
    ) -> None:
        self._name = name
        self._sources = sources
        self._static = {seed.address for seed in static}
        self._members = members
        self._submit = submit
        self._resolve = resolve
        self._every = every
        self._rng = rng
        self._yielded: dict[str, set[Seed]] = {text: set() for text in sources}
        self._troubles: dict[str, str] = {}
        self._own = {node_address(name)}
        self._sought: Mapping[Seed, float] = {}
        self._task: asyncio.Task[None] | None = None

    async def look(self, patience: float = _PATIENCE) -> tuple[Seed, ...]:
        """Ask all sources once; whom to dial by what they yield, or, where one fails, by what it yielded last."""
        await asyncio.gather(self._find_self(patience), *(self._ask(text, patience) for text in self._sources))
        return tuple(sorted(self._found()))

    def start(self, joined: Sequence[Seed]) -> None:
        """Go on by itself from here.

        Args:
            joined: whom the node has joined of those found. From now on they are dialled as long as they are found.
        """
        if joined:
            self._submit(fx.Forget(tuple(joined)))
        self._reconcile()
        self._task = asyncio.create_task(self._run(), name=f"kinfolk: discovery {self._name}")

    async def close(self) -> None:
        """Look no more, and let the sources go."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for text, source in self._sources.items():
            try:
                await close_source(source)
            except Exception as error:  # noqa: BLE001 - whatever another package's source raises
                _log.warning(
                    "%s: %s did not close in order: %s",
                    self._name,
                    text,
                    _line(error),
                    extra=fields(self._name, address=text, reason=_line(error)),
                )

    def abandon(self) -> None:
        """Be gone at once."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every * (0.75 + 0.5 * self._rng.random()))
            await self.look()
            self._reconcile()

    async def _ask(self, text: str, patience: float) -> None:
        """Take what a source yields. Its trouble is told once, and so is its end."""
        try:
            async with asyncio.timeout(patience):
                found = seeds_of(await self._sources[text].addresses())
        except Exception as error:  # noqa: BLE001 - whatever another package's source raises
            trouble = f"no answer within {patience:g} s" if isinstance(error, TimeoutError) else _line(error)
            if self._troubles.get(text) != trouble:
                self._troubles[text] = trouble
                _log.warning(
                    "%s cannot look up %s: %s; it stays with the %d that it knows, and asks again."
                    " `kinfolk doctor --join %s` on this machine says what is wrong",
                    self._name, text, trouble, len(self._yielded[text]), text,
                    extra=fields(self._name, address=text, reason=trouble, number=len(self._yielded[text])),
                )  # fmt: skip
            return
        if self._troubles.pop(text, None) is not None:
            _log.info(
                "%s can look up %s again: it yields %d",
                self._name,
                text,
                len(found),
                extra=fields(self._name, address=text, number=len(found)),
            )
        self._yielded[text] = found

    async def _find_self(self, patience: float) -> None:
        """All addresses of our own host, under which we may be found. If that fails, the one who is dialled tells."""
        own = node_address(self._name)
        with suppress(OSError):
            async with asyncio.timeout(patience):
                self._own |= await self._resolve(own.host, own.port)

    def _found(self) -> set[Seed]:
        found = set[Seed]().union(*self._yielded.values())
        named = {seed.address for seed in found if seed.expects}
        return {
            seed
            for seed in found
            if seed.address not in self._own | self._static and (seed.expects or seed.address not in named)
        }

    def _reconcile(self) -> None:
        wanted, connected = self._meshed()
        steps = reconcile(self._sought, self._found(), wanted, connected, asyncio.get_running_loop().time())
        self._sought = steps.sought
        if steps.forgets:
            self._submit(fx.Forget(steps.forgets))
        if steps.dials:
            self._submit(fx.Seek(steps.dials))

    def _meshed(self) -> tuple[AbstractSet[Address], AbstractSet[Address]]:
        """Whom the mesh wants, and with whom it has a session."""
        targets = self._members.targets
        with_session = {where for where, target in targets.items() if self._members.session_with(target) is not None}
        peers = {node_address(peer) for peer in self._members.by_peer}
        return targets.keys() | peers, with_session | peers


async def close_source(source: Source) -> None:
    """Let a source go, if it wants to be told. Raises what its `close` does."""
    close: Callable[[], Awaitable[None]] | None = getattr(source, "close", None)
    if close is not None:
        async with asyncio.timeout(_PATIENCE):
            await close()


def open_sources(
    where: Iterable[str | Etcd], resolve: Resolve, cluster: str, name: str, every: float
) -> dict[str, Source]:
    """The sources that settings name, each under its text.

    Args:
        where: texts as in a join, and etcds in which nodes announce themselves.
        resolve: finds the addresses of a host.
        cluster: whose nodes are looked for.
        name: of the node to announce; "" for who only looks.
        every: seconds between two looks.

    Raises:
        ImportError: what one needs is not installed.
        OSError: a file cannot be read.
        Exception: what the factory of another package raises.
    """
    return {
        str(one): Announced(one, cluster, name, every) if isinstance(one, Etcd) else open_source(one, resolve)
        for one in where
    }


def _line(error: BaseException) -> str:
    return str(error) or type(error).__name__
