"""From what a node tells of itself at two moments to what a person wants to see: rates, states, samples for charts."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from kinfolk.counters import DROPPED

Told = Mapping[str, Any]
"""A pulse, as `kinfolk.service` answers it."""
IN, OUT, FRAMES_IN, FRAMES_OUT, WAITING, TRIP = range(6)
"""What a pulse tells of a peer, in this order."""

SAMPLE = (
    "at",
    "names",
    "processes",
    "in",
    "out",
    "frames_in",
    "frames_out",
    "dropped",
    "waiting",
    "trip",
    "took",
    "cpu",
)
"""The numbers of one sample: seconds since 1970; how many; bytes, frames and dropped messages a second; bytes that wait
for peers; seconds of the slowest heartbeat, and that the node took to answer; the part of a core that it has used."""


class Look(Struct, frozen=True):
    """A pulse, and when it came, in seconds on the clock of whoever asked."""

    told: Told
    at: float
    took: float = 0.0


def peer_rates(new: Look, old: Look | None) -> dict[str, list[float]]:
    """Of each peer the bytes and frames a second, in and out. A session that was opened anew counts from zero."""
    known: Mapping[str, list[Any]] = {} if old is None else old.told["peers"]
    seconds = 0.0 if old is None else new.at - old.at
    return {peer: _rates(now, known.get(peer), seconds) for peer, now in new.told["peers"].items()}


def _rates(now: list[Any], before: list[Any] | None, seconds: float) -> list[float]:
    if before is None or seconds <= 0:
        return [0.0] * 4
    return [(now[i] - (before[i] if before[i] <= now[i] else 0)) / seconds for i in (IN, OUT, FRAMES_IN, FRAMES_OUT)]


def totals(rates: Mapping[str, list[float]]) -> list[float]:
    """Of all peers together."""
    return [sum(column) for column in zip(*rates.values(), strict=True)] or [0.0] * 4


def _gain(new: Look, old: Look | None, value: float, before: float) -> float:
    """How much a sum has grown, a second; 0 when its node has been restarted."""
    if old is None or old.told["creation"] != new.told["creation"] or new.at <= old.at:
        return 0.0
    return max(0.0, value - before) / (new.at - old.at)


def cpu(new: Look, old: Look | None) -> float:
    """The part of a core that the node's program has used."""
    return _gain(new, old, new.told["cpu"], 0.0 if old is None else old.told["cpu"])


def dropped(told: Told) -> int:
    """The messages that nobody got."""
    return sum(count for name, count in told["counters"].items() if name in DROPPED)


def sample(new: Look, old: Look | None, rates: Mapping[str, list[float]]) -> list[float]:
    """One point of each chart, as `SAMPLE` says."""
    peers = new.told["peers"].values()
    lost = _gain(new, old, dropped(new.told), 0 if old is None else dropped(old.told))
    return [
        round(new.told["clock"], 1),
        new.told["names"],
        new.told["processes"],
        *(round(rate, 1) for rate in totals(rates)),
        round(lost, 2),
        sum(peer[WAITING] for peer in peers),
        round(max((peer[TRIP] or 0.0 for peer in peers), default=0.0), 5),
        round(new.took, 5),
        round(cpu(new, old), 4),
    ]


def row(name: str, new: Look, old: Look | None, everybody: Mapping[str, object]) -> dict[str, Any]:
    """A node of the picture, as it has told of itself.

    Args:
        everybody: all nodes, of which it should have a session with each other.
    """
    told = new.told
    rates = totals(peer_rates(new, old))
    return {
        "name": name,
        "state": "draining" if told["draining"] is not None else "up" if told["ready"] else "starting",
        "why": told["draining"] or "",
        "creation": f"{told['creation']:x}",
        "held": told["held"],
        "processes": told["processes"],
        "in": round(rates[IN], 1),
        "out": round(rates[OUT], 1),
        "waiting": sum(peer[WAITING] for peer in told["peers"].values()),
        "cpu": round(cpu(new, old), 3),
        "missing": sorted(node for node in everybody if node != name and node not in told["peers"]),
    }


def bare_row(name: str, state: str, why: str) -> dict[str, Any]:
    """A node that has told nothing."""
    return {"name": name, "state": state, "why": why}
