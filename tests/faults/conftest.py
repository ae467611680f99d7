"""The workers of `tests.system`."""

from tests.system.conftest import fleet, nursery

__all__ = ["fleet", "nursery"]
