"""The one check of what users give as a number of seconds."""


def check_seconds(seconds: object, what: str = "timeout") -> float:
    """The number, if it is one of seconds: 0 or more, and infinity for ever.

    Args:
        seconds: what was given.
        what: what it was given as, for the message.

    Raises:
        TypeError: not a number.
        ValueError: negative, or NaN, or an int that no float can hold.
    """
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(f"{what} must be a number of seconds, not {seconds!r}: give 0 or more, as in {what}=2.5")
    if not seconds >= 0:  # as a NaN is not
        raise ValueError(f"{what} cannot be {seconds!r} seconds: give 0 or more")
    try:
        return float(seconds)
    except OverflowError:  # as it would raise in the middle of a step of the kernel, and leave that half done
        raise ValueError(f"{what} cannot be that many seconds: give 0 or more, and math.inf for ever") from None
