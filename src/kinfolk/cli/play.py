"""`kinfolk demo`."""

from typing import Literal

from kinfolk.cli import exits


def demo(*, registry: Literal["mesh", "etcd"] = "mesh") -> int:
    """Show it: three nodes in three OS processes find each other, share names, die and return.

    Parameters
    ----------
    registry
        Who decides about names; for etcd, one is started that lasts as long as the demo.
    """
    from kinfolk.demo import etcd, run

    if registry == "etcd" and not etcd.is_installed():
        raise exits.Usage(etcd.HOW_TO_INSTALL)
    return run(with_etcd=registry == "etcd")
