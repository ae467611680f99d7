"""A cluster that is only told of: any number of nodes, without one of them."""

import asyncio
from collections.abc import Sequence
from typing import Any

from kinfolk import NodeLost
from kinfolk.dashboard.source import Source


class Told(Source):
    """Answers as the service of the first of some nodes would.

    Attributes:
        events: what is told next to whoever follows; None as an event makes the node be away.
        pulses: how often a node was asked for its pulse, by its name.
        away: why the node does not answer; None if it does.
        strange: nodes whose pulses lack something, and what.
    """

    def __init__(self, *words: str) -> None:
        self.names = [f"{word}@10.0.0.{number}:4370" for number, word in enumerate(words, 1)]
        self.events: asyncio.Queue[list[list[Any]]] = asyncio.Queue()
        self.pulses = dict.fromkeys(self.names, 0)
        self.away: str | None = None
        self.strange: dict[str, str] = {}
        self.creation = 0x18EB_0000_0000_0000
        self.stalled: dict[str, float] = {}
        self.missing: set[frozenset[str]] = set()
        self.draining: dict[str, str] = {}
        self.clock = 1_800_000_000.0
        self.loads = [number * 7 % 5 for number in range(len(self.names))]

    @property
    def name(self) -> str:
        """Of the asked node."""
        return self.names[0]

    async def ask(self, request: Sequence[object], timeout: float = 5.0) -> Any:
        """Answer."""
        if self.away is not None:
            raise NodeLost(self.away)
        match list(request):
            case ["pulse"]:
                return self.pulse(self.name)
            case ["at", str(node), ["pulse"]]:
                return ["done", self.pulse(node)]
            case ["watch", "*", "changes"]:
                return 1
            case ["events", 1, _]:
                return await self.events.get()
            case _:
                raise AssertionError(f"nobody asks for {request} here")

    def pulse(self, node: str) -> dict[str, Any]:
        """What a node tells of itself: the more it has been asked, the more has gone over its sessions."""
        self.pulses[node] += 1
        self.clock += 0.01
        times, load = self.pulses[node], self.loads[self.names.index(node)]
        told = {
            "name": node,
            "creation": self.creation + self.names.index(node) * 10**9,
            "clock": self.clock,
            "ready": node not in self.draining,
            "draining": self.draining.get(node),
            "names": 12_000,
            "held": 100 * load + 20,
            "processes": 40 + load,
            "cpu": times * 0.01 * (load + 1),
            "counters": {"peers_lost": 2, "late_answers": 3},
            "peers": {
                other: [times * 1_500 * (load + 1), times * 900, times * 4, times * 3, 0, 0.0011]
                for other in self.names
                if other != node and frozenset((node, other)) not in self.missing
            },
            "stalled": self.stalled if node == self.name else {},
        }
        return {key: value for key, value in told.items() if key != self.strange.get(node)}
