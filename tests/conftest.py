"""Settings that hold for every test."""

from hypothesis import settings

# The same examples in every run, and no limit on how long one takes: a busy machine is not a failure.
settings.register_profile("kinfolk", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("kinfolk")
