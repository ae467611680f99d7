"""When a silent peer is stalled, and when it is lost.

Any bytes are a sign of life. A peer whose loop stands still can send none; a thread of it then reports, beside the
session, how long ago the loop had its last turn. A silence thus has up to three parts:

    heard               turned                 reported             now
      |--- unexplained ---|---- its loop stood ----|--- unexplained ---|

| the last sign of life | unexplained   | since its last turn | the peer                              |
| --------------------- | ------------- | ------------------- | ------------------------------------- |
| bytes                 | <= down_after |                     | is up                                 |
| a report              | <= down_after | <= stalled_limit    | is stalled                            |
| a report              | <= down_after | > stalled_limit     | is lost: it has stood still for too long |
| any                   | > down_after  |                     | is lost: silent                       |

The first part counts, since a loop that ran and was not heard has no connection to us, whatever is reported later. So
a report that somebody held back is worth nothing either: the time for which it was held is unexplained.
"""

from enum import Enum
from math import inf

from msgspec import Struct


class Standing(Enum):
    """How it is with a peer."""

    UP = "up"
    STALLED = "stalled"
    STALLED_TOO_LONG = "stalled for too long"
    SILENT = "silent"


class Signs(Struct):
    """When a peer gave which sign of life, in seconds on our clock."""

    heard: float
    """When the last bytes came."""
    turned: float = -inf
    """When its loop had its last turn, as the last report has it."""
    reported: float = -inf
    """When that report came."""

    def report(self, age: float, now: float) -> None:
        """A report has come: its loop had its last turn so many seconds ago."""
        self.turned, self.reported = now - age, now

    def unexplained(self, now: float) -> float:
        """The seconds of its silence that no stall explains."""
        if self.heard >= self.reported:
            return now - self.heard
        return max(0.0, self.turned - self.heard) + now - self.reported

    def standing(self, now: float, down_after: float, stalled_limit: float) -> Standing:
        """How it is with the peer now: the table above."""
        if self.unexplained(now) > down_after:
            return Standing.SILENT
        if self.heard >= self.reported:
            return Standing.UP
        return Standing.STALLED if now - self.turned <= stalled_limit else Standing.STALLED_TOO_LONG
