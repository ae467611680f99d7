"""`kinfolk demo`."""


def demo() -> int:
    """Show it: three nodes in three OS processes find each other, share names, die and return."""
    from kinfolk.demo import run

    return run()
