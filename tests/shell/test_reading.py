"""What comes over a link is handled in slices, and what waits for its turn is neither lost nor taken for silence."""

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest

from kinfolk.shell import transport
from kinfolk.shell.transport import Link
from kinfolk.wire.fragments import Backlog
from kinfolk.wire.outbox import Outbox
from kinfolk.wire.session import State


class Talk:
    """A session in which so many frames have come at once."""

    def __init__(self, frames: int) -> None:
        self.state, self.outbox, self.backlog = State.OPEN, Outbox(), Backlog()
        self._frames = frames

    def receive(self, count: int) -> Iterator[str]:
        for number in range(self._frames):
            yield f"frame {number}"

    def connection_lost(self) -> str:
        self.state = State.CLOSED
        return "the connection ended"


class Owner:
    """As much of a transport as a link needs to read, and the end of TLS that it reads from."""

    def __init__(self) -> None:
        self.loop, self.high_water = asyncio.get_running_loop(), 1000
        self.seen: list[str] = []
        self.resumed, self.ended = asyncio.Event(), asyncio.Event()

    def happened(self, link: Link, event: str) -> None:
        self.seen.append(event)

    def heard(self, link: Link, last: float) -> float:
        self.seen.append("heard")
        return last

    def pause_reading(self) -> None:
        self.seen.append("pause")

    def resume_reading(self) -> None:
        self.seen.append("resume")
        self.resumed.set()

    def drained(self, link: Link) -> None:
        self.seen.append("drained")

    def lost(self, link: Link, reason: str, error: Exception | None) -> None:
        self.seen.append("lost")
        self.ended.set()

    def is_closing(self) -> bool:
        return False


@pytest.fixture
def slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame, and then others have their turn."""
    monkeypatch.setattr(transport, "READ_SLICE", -1.0)


async def test_who_has_sent_more_than_a_slice_is_heard_as_long_as_that_waits(slices: None):
    owner = Owner()
    link = Link(cast("Any", owner), cast("Any", None), 1, None)
    link._session, link._tls = cast("Any", Talk(3)), cast("Any", owner)
    link.buffer_updated(100)
    assert owner.seen == ["frame 0", "pause", "heard"]
    await asyncio.wait_for(owner.resumed.wait(), 10)
    await asyncio.sleep(0)
    assert owner.seen[3:] == ["frame 1", "heard", "frame 2", "heard", "resume", "heard"]


async def test_what_has_come_before_a_connection_ends_is_handled_first(slices: None):
    owner = Owner()
    link = Link(cast("Any", owner), cast("Any", None), 1, None)
    link._session, link._tls = cast("Any", Talk(3)), cast("Any", owner)
    link.buffer_updated(100)
    link.connection_lost(None)
    assert "lost" not in owner.seen
    await asyncio.wait_for(owner.ended.wait(), 10)
    assert [seen for seen in owner.seen if seen.startswith("frame")] == ["frame 0", "frame 1", "frame 2"]


class Waits(Owner):
    """One whose kernel has nothing to say for now, and goes on once the link has room."""

    def happened(self, link: Link, event: str) -> None:
        super().happened(link, event)
        link.want_drain()


async def test_who_waits_for_room_hears_of_it_though_nothing_is_to_be_written():
    owner = Waits()
    link = Link(cast("Any", owner), cast("Any", None), 1, None)
    link._session, link._tls = cast("Any", Talk(1)), cast("Any", owner)
    link.buffer_updated(100)
    await asyncio.sleep(0)
    assert owner.seen == ["frame 0", "heard", "drained"]
