"""Many nodes on one etcd: all know all names and members, and hardly any two have a session."""

import pytest

from bench import crowd
from kinfolk.demo import etcd

NODES, PROGRAMS, NAMES = 48, 4, 5


@pytest.mark.slow
@pytest.mark.skipif(not etcd.is_installed(), reason=etcd.HOW_TO_INSTALL)
async def test_fifty_nodes_see_all_names_and_members_with_far_fewer_sessions_than_a_mesh_has():
    measured = await crowd.run(
        NODES, PROGRAMS, NAMES, heartbeat=2.0, idle_after=10.0, idle_seconds=1.0, say=lambda _: None
    )  # it waits until all see everything, and until what a killed program had is gone everywhere
    mesh = measured["sessions of a full mesh"]
    assert mesh == NODES * (NODES - 1) // 2
    assert measured["sessions, all names and members known"] == 0
    assert 0 < measured["sessions after that"] <= 3 * NODES < mesh / 7
    assert measured["sessions after that as well"] <= 3 * NODES + NODES - 1
