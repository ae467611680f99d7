"""Whom to dial, and whom no longer, for what a lookup has found. Pure: the time comes in with the question."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from msgspec import Struct

from kinfolk.ids import Address, Seed

REST = 60.0
"""Seconds for which whoever the mesh has given up is not dialled again: it has left by a drain, or is ourselves."""


class Steps(Struct, frozen=True):
    """What to do, and what to remember for the next time."""

    dials: tuple[Seed, ...]
    forgets: tuple[Seed, ...]
    sought: Mapping[Seed, float]
    """Everybody whom discovery has found and not forgotten, each with the last time that the mesh wanted it."""


def reconcile(
    sought: Mapping[Seed, float],
    found: AbstractSet[Seed],
    wanted: AbstractSet[Address],
    connected: AbstractSet[Address],
    now: float,
    rest: float = REST,
) -> Steps:
    """Compare what was found with what was sought so far.

    Args:
        sought: as it came out the last time.
        found: what all sources yield now, without this node itself and whom it was told to join by name.
        wanted: whom the mesh dials, or has a session with.
        connected: with whom there is a session.
        now: in seconds.
        rest: seconds for which whoever the mesh wants no longer is left alone.

    Returns:
        Dials: who is new, and who has rested for long enough. Forgets: who has gone; while there is a session, it is
        remembered, and forgotten again at its end.
    """
    dials: list[Seed] = []
    forgets: list[Seed] = []
    kept: dict[Seed, float] = {}
    for seed in sorted(found):
        if seed.address in wanted:
            kept[seed] = now
        elif seed in sought and now - sought[seed] < rest:
            kept[seed] = sought[seed]
        else:
            kept[seed] = now
            dials.append(seed)
    for seed in sorted(sought.keys() - found):
        if any(seed.address == other.address for other in found):
            continue  # somebody else is there now
        forgets.append(seed)
        if seed.address in connected:
            kept[seed] = sought[seed]
    return Steps(tuple(dials), tuple(forgets), kept)
