"""What a kernel makes of reports of stalls. When a peer counts as what, is in `tests/core/test_silence.py`."""

import logging
from collections.abc import Sequence
from typing import Any

import pytest

from kinfolk import effects as fx
from kinfolk.cookie import Hidden
from kinfolk.ids import Pid
from kinfolk.wire import frames
from tests.kernel.test_replication import BOB, Ada, only, synced

DB = Pid(BOB, 1, 1)


class Clock(Ada):
    """Ada, with bob connected and a name of his, at 0 s; heartbeats come in time."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.open(BOB, synced("db"))
        self.conn = self.conns[BOB]

    def report(self, age: float) -> list[fx.Effect]:
        return self.handle(fx.StallHeard(self.conn, age))

    def until(self, moment: float) -> list[fx.Effect]:
        """Let time pass."""
        effects: list[fx.Effect] = []
        while (due := self.kernel.next_deadline()) is not None and due <= moment:
            self.time = due
            effects += self.handle(fx.TimePassed())
        self.time = moment
        return effects

    def stall(self, moment: float, since: float = 0.0) -> list[fx.Effect]:
        """Let time pass up to a moment, with four reports in each second."""
        effects: list[fx.Effect] = []
        while self.time < moment:
            effects += self.until(self.time + 0.25)
            if self.time - since > 1.0:
                effects += self.report(self.time - since)
        return effects


def lost(effects: Sequence[fx.Effect]) -> list[str]:
    return [down.reason for down in only(fx.PeerDown, effects)]


def logged(effects: Sequence[fx.Effect], level: int) -> list[str]:
    return [log.text for log in only(fx.Log, effects) if log.level == level]


def test_a_stalled_peer_is_told_of_once_and_keeps_its_names_up_to_the_limit():
    ada = Clock()
    effects = ada.stall(15.0)
    assert only(fx.PeerStalled, effects) == [fx.PeerStalled(BOB, ada.conn, 1.25)]
    assert only(fx.Count, effects) == [fx.Count("peer_stalls")]
    (line,) = logged(effects, logging.WARNING)
    assert line.startswith(f"{BOB} is stalled: its event loop stands still, for 1.2 s")
    assert not lost(effects) and ada.names.whereis("db") == DB
    assert ada.kernel.stalled() == {BOB: 0.0}
    effects = ada.stall(16.0)
    assert lost(effects) == ["its event loop has stood still for 16.0 s, longer than stalled_limit"]
    (close,) = only(fx.Close, effects)
    assert close.code == "stalled"
    assert ada.names.whereis("db") is None and ada.kernel.stalled() == {}


def test_a_peer_that_says_nothing_at_all_is_lost_as_ever():
    ada = Clock()
    assert lost(ada.until(6.0)) == ["heard nothing for 6.0 s"]


def test_a_peer_that_is_stopped_in_the_middle_of_a_stall_is_lost_down_after_its_last_report():
    ada = Clock()
    ada.stall(4.0)
    assert not lost(ada.until(9.0))
    assert lost(ada.until(10.0)) == ["heard nothing for 10.0 s"]


def test_bytes_end_a_stall_once_reports_no_longer_come():
    ada = Clock()
    ada.stall(8.0)
    effects = ada.handle(fx.Heard(ada.conn))
    assert not only(fx.PeerResumed, effects), "a system sends what its buffers hold for a loop that stands still"
    assert not only(fx.PeerStalled, ada.stall(9.0)), "it is known already"
    ada.until(10.25)
    effects = ada.say(BOB, frames.Pong(1))
    assert only(fx.PeerResumed, effects) == [fx.PeerResumed(BOB, ada.conn, 9.0)]
    assert logged(effects, logging.INFO) == [f"{BOB} goes on: its event loop had stood still for 9.0 s"]
    assert ada.kernel.stalled() == {} and not only(fx.PeerResumed, ada.say(BOB, frames.Pong(2)))
    again = ada.stall(12.0, since=10.25)
    assert len(only(fx.PeerStalled, again)) == 1, "the next stall is another one"


def test_a_report_explains_no_time_in_which_the_loop_ran():
    ada = Clock(down_after=3.0)
    ada.until(4.0 - 0.5)
    effects = ada.report(0.2)
    assert not only(fx.PeerStalled, effects), "it ran until now, and we have heard nothing"
    assert lost(ada.until(4.0)) == ["heard nothing for 4.0 s"]


def test_who_has_stood_still_itself_gives_a_stalled_peer_a_fresh_period():
    ada = Clock()
    ada.stall(4.0)
    ada.time = 30.0
    assert not lost(ada.handle(fx.TimePassed()))
    assert not lost(ada.until(34.0))
    assert lost(ada.until(36.0)) != []


def test_a_report_for_a_session_that_has_ended_is_nothing():
    ada = Clock()
    ada.close(BOB)
    assert ada.report(2.0) == []


def test_a_peer_is_reported_to_as_it_wants_the_last_time():
    ada = Clock()
    for port in (1, 65535):
        effects = ada.say(BOB, frames.StallPort(port, 3, bytes(32)))
        assert only(fx.ReportStalls, effects) == [fx.ReportStalls(ada.conn, port, 3, Hidden(bytes(32)))]


@pytest.mark.parametrize("seconds", [0.0, 4e6])
def test_a_lying_peer_harms_itself_alone(seconds: float):
    ada = Clock()
    effects: list[fx.Effect] = []
    while ada.time < 7.0 and not lost(effects):
        effects += ada.until(ada.time + 0.25)
        effects += ada.report(seconds)
    assert lost(effects)
