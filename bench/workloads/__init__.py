"""All workloads, in the order of the table of goals; each module has those of one subject."""

from bench.harness import Workload
from bench.workloads import large, local, lookup, membership, register, remote

WORKLOADS: list[Workload] = [
    *lookup.WORKLOADS,
    *register.WORKLOADS,
    *membership.WORKLOADS,
    *local.WORKLOADS,
    *remote.WORKLOADS,
    *large.WORKLOADS,
]
