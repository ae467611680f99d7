"""The hybrid logical clock that stamps claims.

A stamp is one integer, ``ms << 16 | counter``: it follows the wall clock as long as that moves forward, and the stamps
seen from others otherwise, so that "the earlier wins" holds as far as clocks allow. Clocks never decide anything else.

Source: Kulkarni, Demirbas et al., "Logical Physical Clocks" (2014).
"""

MAX_AHEAD_MS = 60_000
"""A stamp further ahead of the wall clock is compared like any other, but does not move our clock."""
_MAX_MS = 2**47 - 1
_MAX_STAMP = 2**63 - 1


class Clock:
    """One node's clock. The wall clock comes in as an argument, in ms since 1970."""

    def __init__(self) -> None:
        self._last = 0

    def tick(self, wall_ms: int) -> int:
        """A stamp later than any given or observed before.

        At the end of all stamps it is the last there is, again and again: who comes later does not lose by it, for
        nothing is known by its stamp alone.
        """
        self._last = min(max(self._last + 1, min(max(wall_ms, 0), _MAX_MS) << 16), _MAX_STAMP)
        return self._last

    def observe(self, stamp: int, wall_ms: int) -> None:
        """Take note of another node's stamp, so that what we claim after hearing of it counts as later."""
        if self._last < stamp < self.end(wall_ms):
            self._last = stamp

    def end(self, wall_ms: int) -> int:
        """The first stamp too far ahead to be taken note of."""
        return (wall_ms + MAX_AHEAD_MS + 1) << 16
