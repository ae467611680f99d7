"""What the pages show as it happens: asked once for all who look, and only while somebody does.

A node is asked for its pulse once a second, for what happens as it happens, and its peers for theirs in turn, a few a
second: so an open page costs the same with three nodes and with a hundred, with ten names and with a million. Pages
listen by server-sent events:

    hello    all that is known, at first, and to a listener that was too slow: "lost" says how much it has missed
    pulse    once a second: the numbers of the node, a sample for the charts, what goes over each of its sessions
    mesh     the nodes that have changed, and those that are gone
    events   what has happened, with its time; "skipped" says how many changes of names were left out
    away     the node does not answer: why
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from msgspec import json

from kinfolk.dashboard import sampling
from kinfolk.dashboard.sampling import Look
from kinfolk.dashboard.source import Source
from kinfolk.errors import KinfolkError
from kinfolk.logs import fields

_log = logging.getLogger("kinfolk")

BEAT = 1.0
"""Seconds between two pulses."""
KEPT = 900
"""Samples kept for the charts."""
RECENT = 200
"""Events kept for whoever comes."""
SHOWN = 100
"""Changes of names in one message: more than a person can read, whatever happens."""
WAITING = 100
"""Messages that wait for one listener."""
LISTENERS = 100
LINGER = 30.0
"""Seconds for which a feed goes on that nobody listens to: a page that is loaded again finds it running."""
GONE = 60.0
"""Seconds for which a lost node is shown."""
_GAP = 0.25  # seconds between two batches of events
_WAIT = 10.0  # seconds that the node may have no event to tell
_ASKED = 4  # peers in one beat
_PATIENCE = 3.0  # seconds
_STRANGE = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What reading the pulse of a node may raise that is of another version."""


class TooMany(Exception):
    """`LISTENERS` listen already."""


class Listener:
    """The messages that wait for one page: a bounded number, after that nothing but how many were lost."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._lost = 0
        self._woken = asyncio.Event()
        self._ended = False

    def tell(self, message: bytes) -> None:
        """Say something, if there is room; if there is none, all that waits is worth nothing any more."""
        if self._lost or len(self._messages) >= WAITING:
            self._lost += len(self._messages) + 1
            self._messages.clear()
        else:
            self._messages.append(message)
        self._woken.set()

    def end(self) -> None:
        """Nothing more will be said."""
        self._ended = True
        self._woken.set()

    async def take(self) -> bytes | int | None:
        """The next message; or how many were lost, so that it must hear of all anew; None at the end."""
        while not (self._messages or self._lost or self._ended):
            self._woken.clear()
            await self._woken.wait()
        if self._ended:
            return None
        if self._lost:
            lost, self._lost = self._lost, 0
            return lost
        return self._messages.popleft()


class Feed:
    """What one node tells, for any number of pages.

    Args:
        source: whom to ask.
        beat: seconds between two pulses.
    """

    def __init__(self, source: Source, beat: float = BEAT) -> None:
        self._source = source
        self._beat = beat
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._resting: asyncio.TimerHandle | None = None
        self._closed = False
        self._look: Look | None = None
        self._pulse: dict[str, Any] | None = None
        self._away: str | None = None
        self._samples: deque[list[float]] = deque(maxlen=KEPT)
        self._events: deque[list[Any]] = deque(maxlen=RECENT)
        self._others: dict[str, Look] = {}
        self._rows: dict[str, dict[str, Any]] = {}
        self._lost_at: dict[str, float] = {}
        self._turn: deque[str] = deque()

    async def listen(self) -> AsyncGenerator[bytes]:
        """The messages, as they go to a browser; the first says all.

        Raises:
            TooMany: so many listen already.
        """
        if len(self._listeners) >= LISTENERS:
            raise TooMany
        if self._closed:
            return
        listener = Listener()
        self._listeners.add(listener)
        self._start()
        try:
            yield self._hello(0)
            while (said := await listener.take()) is not None:
                yield self._hello(said) if isinstance(said, int) else said
        finally:
            self._listeners.discard(listener)
            if not self._listeners and not self._closed:
                self._resting = asyncio.get_running_loop().call_later(LINGER, self._stop)

    @property
    def runs(self) -> bool:
        """Whether the node is being asked."""
        return self._task is not None

    async def close(self) -> None:
        """Ask no more, and end what the pages listen to."""
        self._closed = True
        for listener in self._listeners:
            listener.end()
        task = self._task
        self._stop()
        if task is not None:
            await asyncio.wait([task])

    def _start(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="kinfolk: what the dashboard shows")
            self._task.add_done_callback(self._failed)

    def _stop(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _failed(self, task: "asyncio.Task[None]") -> None:
        """Only a bug of ours ends the feed by itself: pages that ask again begin another."""
        if not task.cancelled() and task is self._task:
            self._task = None
            _log.error("the dashboard has failed", exc_info=task.exception(), extra=fields(self._source.name))
            for listener in self._listeners:
                listener.end()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._feel())
            tasks.create_task(self._follow())
            tasks.create_task(self._look_around())

    def _say(self, event: str, data: object) -> None:
        message = _message(event, data)
        for listener in self._listeners:
            listener.tell(message)

    def _hello(self, lost: int) -> bytes:
        return _message(
            "hello",
            {
                "lost": lost,
                "away": self._away,
                "pulse": self._pulse,
                "fields": sampling.SAMPLE,
                "samples": list(self._samples),
                "events": list(self._events),
                "nodes": list(self._rows.values()),
            },
        )

    # --- the pulse ---

    async def _feel(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                told = await self._source.ask(["pulse"])
                self._felt(Look(told, loop.time(), loop.time() - began))
            except KinfolkError as error:
                self._is_away(str(error))
            except _STRANGE as error:
                self._look = None  # the next one is not compared with it
                self._is_away(_strange(error))
            beat = self._beat if self._samples or self._away else self._beat / 5  # the second makes the first rates
            await asyncio.sleep(max(self._beat / 10, began + beat - loop.time()))

    def _is_away(self, why: str) -> None:
        self._away = why
        self._say("away", {"why": why})

    def _felt(self, new: Look) -> None:
        self._away = None
        old, self._look = self._look, new
        if old is not None and (old.told["creation"] != new.told["creation"] or new.at - old.at > 10 * self._beat):
            old = None  # it has been restarted, or nobody looked for a while
        rates = sampling.peer_rates(new, old)
        told, stalled = new.told, new.told["stalled"]
        sample = sampling.sample(new, old, rates)
        if old is not None:
            self._samples.append(sample)
        self._pulse = {
            **{key: told[key] for key in ("name", "ready", "draining", "names", "held", "processes", "counters")},
            "creation": f"{told['creation']:x}",
            "sample": sample,
            "counts": old is not None,
            "peers": {
                peer: {
                    "in": round(rates[peer][sampling.IN], 1),
                    "out": round(rates[peer][sampling.OUT], 1),
                    "waiting": known[sampling.WAITING],
                    "trip": known[sampling.TRIP],
                    "stalled": stalled.get(peer),
                }
                for peer, known in told["peers"].items()
            },
        }
        self._say("pulse", self._pulse)
        self._draw(new, old)

    # --- the picture of the mesh ---

    def _draw(self, new: Look, old: Look | None) -> None:
        """Say which nodes look otherwise than before."""
        now, told = new.at, new.told
        name = told["name"]
        everybody = {name: None, **dict.fromkeys(told["peers"])}
        for node in self._lost_at.keys() & everybody.keys():
            del self._lost_at[node]
        rows = {node: self._row_of(node, told["stalled"], everybody) for node in told["peers"]}
        rows[name] = {**sampling.row(name, new, old, everybody), "self": True}
        for node, at in list(self._lost_at.items()):
            if now - at > GONE:
                del self._lost_at[node]
            else:
                rows[node] = self._rows.get(node) or sampling.bare_row(node, "down", "")
        self._others = {node: look for node, look in self._others.items() if node in everybody}
        changed = [row for node, row in rows.items() if row != self._rows.get(node)]
        gone = [node for node in self._rows if node not in rows]
        self._rows = rows
        if changed or gone:
            self._say("mesh", {"nodes": changed, "gone": gone})

    def _row_of(self, node: str, stalled: Mapping[str, float], everybody: Mapping[str, object]) -> dict[str, Any]:
        known = self._rows.get(node)
        row = known if known is not None and known["state"] != "down" else sampling.bare_row(node, "up", "")
        if "missing" in row:
            row = {**row, "missing": [other for other in row["missing"] if other in everybody]}
        if node in stalled:
            return {**row, "state": "stalled", "why": f"its event loop stands still, for {stalled[node]:.0f} s so far"}
        return {**row, "state": "up", "why": ""} if row["state"] == "stalled" else row

    async def _look_around(self) -> None:
        """Ask the peers for their pulses, in turn."""
        while True:
            look = self._look
            if look is not None and self._away is None:
                await asyncio.gather(*(self._ask(node) for node in self._next(look)))
            await asyncio.sleep(self._beat)

    def _next(self, look: Look) -> list[str]:
        peers, stalled = look.told["peers"], look.told["stalled"]
        known = set(self._turn)
        self._turn.extend(peer for peer in peers if peer not in known)
        chosen: list[str] = []
        for _ in range(len(self._turn)):
            node = self._turn.popleft()
            if node in peers:
                self._turn.append(node)
                if node not in stalled:
                    chosen.append(node)
            if len(chosen) == _ASKED:
                break
        return chosen

    async def _ask(self, node: str) -> None:
        loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        try:
            told = await self._source.at(node, ["pulse"], _PATIENCE)
            self._answered(node, Look(told, loop.time(), loop.time() - began))
        except KinfolkError as error:
            self._is_silent(node, str(error))
        except _STRANGE as error:
            self._others.pop(node, None)  # the next one is not compared with it
            self._is_silent(node, _strange(error))

    def _is_silent(self, node: str, why: str) -> None:
        if node in self._rows:
            self._rows[node] = {**self._rows[node], "state": "silent", "why": why}
            self._say("mesh", {"nodes": [self._rows[node]], "gone": []})

    def _answered(self, node: str, new: Look) -> None:
        told, old = new.told, self._others.get(node)
        if node not in self._rows or self._look is None:
            return
        self._others[node] = new
        if old is not None and old.told["creation"] != told["creation"]:
            old = None
        everybody = {self._look.told["name"]: None, **dict.fromkeys(self._look.told["peers"])}
        row = sampling.row(node, new, old, everybody)
        if row != self._rows[node]:
            self._rows[node] = row
            self._say("mesh", {"nodes": [row], "gone": []})

    # --- events ---

    async def _follow(self) -> None:
        """Follow what happens to names and nodes; when the node was away, whatever happened then is missing."""
        began = False
        while True:
            try:
                number = await self._source.ask(["watch", "*", "changes"])
                if began:
                    self._happened([["resync"]])
                began = True
                while (events := await self._source.ask(["events", number, _WAIT], _WAIT + _PATIENCE)) is not None:
                    if events:
                        self._happened(events)
                        await asyncio.sleep(_GAP)
            except KinfolkError:
                pass  # the pulse tells
            await asyncio.sleep(self._beat)

    def _happened(self, events: Sequence[Sequence[Any]]) -> None:
        now = round(time.time(), 2)
        names = sum(event[0] in ("added", "removed") for event in events)
        skipped, shown = max(0, names - SHOWN), list[list[Any]]()
        left_out = skipped
        for event in events:
            if event[0] in ("added", "removed"):
                if left_out:
                    left_out -= 1
                    continue
            elif event[0] == "down":
                self._is_down(str(event[1]), str(event[2]))
            shown.append([now, *event])
        self._events.extend(shown)
        self._say("events", {"events": shown, "skipped": skipped})

    def _is_down(self, node: str, reason: str) -> None:
        self._lost_at[node] = asyncio.get_running_loop().time()
        self._rows[node] = sampling.bare_row(node, "down", reason)
        self._say("mesh", {"nodes": [self._rows[node]], "gone": []})


def _strange(error: Exception) -> str:
    return f"it tells of itself otherwise than this version understands: {error!r}"


def _message(event: str, data: object) -> bytes:
    """As server-sent events have it; JSON has no line ends."""
    return b"event: %s\ndata: %s\n\n" % (event.encode(), json.encode(data))
