"""Every script, played again, reads as it stands; `tests.kernel.transcript` says what the commands mean."""

import pytest

from tests.kernel.transcript import SCRIPTS, Stage

STORIES = sorted(path.name for path in SCRIPTS.glob("*.txt"))


@pytest.mark.parametrize("story", STORIES)
def test_the_story_goes_as_it_is_told(story):
    told = (SCRIPTS / story).read_text()
    assert "BROKEN" not in told
    assert Stage().play(told).splitlines() == told.splitlines()
