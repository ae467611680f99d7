"""Test an application of kinfolk: whole clusters in one program, with every fault, in real or in simulated time.

`cluster` makes nodes that can be parted, crashed and restarted; `simulate` runs a test on an event loop whose time is
virtual, and whose every decision comes from a seed, so that what fails once fails again. The pytest plugin
(`kinfolk.testing.plugin`) gives both as fixtures. See docs/testing.md.
"""

from kinfolk.testing.cluster import Cluster, NotSettled, cluster
from kinfolk.testing.loop import NotSimulated, SimulatedLoop, Stuck
from kinfolk.testing.simulation import simulate

__all__ = ["Cluster", "NotSettled", "NotSimulated", "SimulatedLoop", "Stuck", "cluster", "simulate"]
