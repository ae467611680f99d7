"""Names in etcd, between nodes of one program: registered, found, given up, lost with their processes and nodes."""

from kinfolk import NameTaken
from tests.etcd.nodes import EtcdNodes
from tests.node.nodes import echo, ended, holders, idle, until


async def test_a_name_is_registered_found_called_given_up_and_lost_with_its_process(nodes: EtcdNodes):
    ada, bob = await nodes.start("ada"), await nodes.start("bob")
    claim = await ada.names.register("x", ada.spawn(echo))
    assert ada.names.whereis("x") == claim.pid
    await until(lambda: bob.names.whereis("x") == claim.pid)
    assert await bob.call("x", "hi") == "hi"
    taken = await ended(bob.names.register("x", bob.spawn(idle)))
    assert isinstance(taken, NameTaken) and taken.holder == claim.pid
    await claim.release()
    assert ada.names.whereis("x") is None
    again = await bob.names.register("x", bob.spawn(idle))
    assert claim.epoch is not None and again.epoch is not None and again.epoch > claim.epoch
    await until(lambda: holders([ada, bob], "x") == {again.pid})
    bob.kill(again.pid)
    assert bob.names.whereis("x") is None
    await until(lambda: ada.names.whereis("x") is None)
    await ada.names.register("x", ada.spawn(idle))
