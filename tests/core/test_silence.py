"""When a silent peer is stalled and when it is lost: the table of `kinfolk.core.silence`."""

from typing import NamedTuple

import pytest

from kinfolk.core.silence import Signs, Standing

UP, STALLED, TOO_LONG, SILENT = Standing.UP, Standing.STALLED, Standing.STALLED_TOO_LONG, Standing.SILENT
DOWN_AFTER, STALLED_LIMIT = 5.0, 15.0


class Row(NamedTuple):
    what: str
    heard: float
    reports: list[tuple[float, float]]
    """Of each: when it came, and the age in it."""
    now: float
    standing: Standing


ROWS = [
    Row("just heard", 0.0, [], 0.0, UP),
    Row("silent for as long as may be", 0.0, [], 5.0, UP),
    Row("silent for longer", 0.0, [], 5.1, SILENT),
    Row("a first report", 0.0, [(1.2, 1.2)], 1.2, STALLED),
    Row("reports go on past down_after", 0.0, [(1.2, 1.2), (9.0, 9.0)], 9.1, STALLED),
    Row("bytes of the system's buffers between reports", 3.0, [(2.0, 2.0), (3.5, 3.5)], 3.5, STALLED),
    Row("bytes after the last report", 9.5, [(9.0, 9.0)], 9.5, UP),
    Row("bytes after the last report, and then nothing", 9.5, [(9.0, 9.0)], 14.6, SILENT),
    Row("no report for as long as may be", 0.0, [(4.0, 4.0)], 9.0, STALLED),
    Row("stopped or dead in the middle of a stall", 0.0, [(4.0, 4.0)], 9.1, SILENT),
    Row("stalled for as long as may be", 0.0, [(15.0, 15.0)], 15.0, STALLED),
    Row("stalled for longer", 0.0, [(15.1, 15.1)], 15.1, TOO_LONG),
    Row("the limit passes between reports", 0.0, [(14.9, 14.9)], 15.1, TOO_LONG),
    Row("its loop has turned, but we have not heard it", 0.0, [(7.0, 1.5)], 7.0, SILENT),
    Row("a short silence before the stall", 0.0, [(7.0, 4.0)], 7.0, STALLED),
    Row("silence before and after the stall add up", 0.0, [(7.0, 4.0)], 9.1, SILENT),
    Row("a report that was held back", 0.0, [(9.0, 1.2)], 9.0, SILENT),
    Row("a report that cannot be true says what is worst for it", 0.0, [(1.0, 4e6)], 1.0, TOO_LONG),
    Row("a loop that says to turn all the time, and says nothing else", 0.0, [(n, 0.0) for n in range(7)], 6.0, SILENT),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_how_it_is_with_a_peer_follows_from_its_signs_of_life(row: Row):
    signs = Signs(row.heard)
    for came, age in row.reports:
        signs.report(age, came)
    assert signs.standing(row.now, DOWN_AFTER, STALLED_LIMIT) is row.standing


def test_every_standing_occurs():
    assert {row.standing for row in ROWS} == set(Standing)
