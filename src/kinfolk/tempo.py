"""How fast a kernel is, and how much it does at a time."""

from msgspec import Struct

from kinfolk.core.names import SLICE


class Settings(Struct, frozen=True):
    """Times in seconds, sizes in names."""

    heartbeat: float = 1.0
    """How often peers get a sign of life."""
    down_after: float = 5.0
    """The silence after which a peer counts as lost."""
    stalled_limit: float = 15.0
    """How long the loop of a peer that reports it may stand still, until the peer counts as lost."""
    redial_min: float = 0.1
    redial_max: float = 60.0
    """The shortest and the longest wait before a lost peer is dialled again; in between, a fifth of its absence."""
    forget_after: float = 24 * 3600.0
    """How long a lost peer is dialled."""
    sync_part: int = SLICE
    """Names in one part of a sync."""
    step: int = SLICE
    """Names in one slice of what concerns many: a peer that is lost or comes back, a process that exits."""
    log: int = 10_000
    """Facts in the log of the last entries, from which peers that come back catch up."""
    keep_mirrors: float = 600.0
    """How long the mirror of a lost peer is kept for its return."""
    room: int = 1_000_000
    """How many names and memberships the kept mirrors may have together."""
    audit: int = 20_000
    """How often a heartbeat looks at a fact, in slices: once whether memory still holds what was told, and once whether
    the views show it."""
    idle_after: float = 60.0
    """How long nothing is said over a session until it ends, where sessions open on demand: with an authority."""
