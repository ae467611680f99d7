"""The example of a fencing token does what it says."""

import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from examples.fencing import NAME, Deposed, write
from kinfolk.demo import etcd
from tests.etcd.nodes import EtcdNodes
from tests.node.nodes import idle, until
from tests.test_examples import Program, wait
from tests.test_examples import start as start


async def test_a_deposed_holder_cannot_write_however_late_its_write_comes(nodes: EtcdNodes, tmp_path: Path):
    journal = str(tmp_path / "journal.db")
    ada, bob = await nodes.start("ada"), await nodes.start("bob")
    old = await ada.names.register(NAME, ada.spawn(idle), on_lost="message")
    assert old.epoch is not None
    write(journal, old.epoch, "by ada")
    client, tenure = bob._parts.client, ada.kernel.tenure
    assert client is not None and tenure is not None
    await client._revoke(tenure._lease)  # as if ada had been stopped for longer than its lease
    await until(lambda: bob.names.whereis(NAME) is None)
    new = await bob.names.register(NAME, bob.spawn(idle))
    assert new.epoch is not None and new.epoch > old.epoch
    write(journal, new.epoch, "by bob")
    with pytest.raises(Deposed, match=f"epoch {new.epoch} has written, this is epoch {old.epoch}"):
        write(journal, old.epoch, "by ada, late")
    write(journal, new.epoch, "by bob")
    assert [text for _, text in _entries(journal)] == ["by ada", "by bob", "by bob"]


@pytest.mark.slow
def test_a_writer_that_is_stopped_is_succeeded_and_does_not_write_when_it_wakes(
    server: etcd.Server, environment: dict[str, str], tmp_path: Path, start: Callable[..., Program]
):
    environment["KINFOLK_REGISTRY"] = server.url
    journal = str(tmp_path / "journal.db")
    programs = [start("fencing.py", journal) for _ in range(2)]
    for program in programs:
        program.prints("is ready")
    first = wait(lambda: next((one for one in programs if one.has_printed("writes")), None), "one writes")
    (second,) = [one for one in programs if one is not first]
    wait(lambda: Path(journal).exists() and _entries(journal), "a first line")
    first.process.send_signal(signal.SIGSTOP)
    second.prints("writes, with epoch")
    number = len(_entries(journal))
    first.process.send_signal(signal.SIGCONT)
    wait(lambda: len(_entries(journal)) > number + 5, "the second goes on")
    epochs = [epoch for epoch, _ in _entries(journal)]
    assert epochs == sorted(epochs) and len(set(epochs)) == 2


def _entries(journal: str) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(journal)) as database:
        try:
            return database.execute("select epoch, text from entries order by rowid").fetchall()
        except sqlite3.OperationalError:  # it has just been made
            return []
