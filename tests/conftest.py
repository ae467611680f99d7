"""Settings that hold for every test."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run, and no limit on how long one takes: a busy machine is not a failure.
settings.register_profile("kinfolk", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("kinfolk")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user's environment without any setting, and a home of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("KINFOLK_")}
    return {**kept, "KINFOLK_HOME": str(tmp_path / "home"), "PYTHONUNBUFFERED": "1"}
