"""Neighbours on one machine: who is announced is found, and nothing else is."""

import errno
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kinfolk.shell.neighbours import announce, forget, neighbours, withdraw

ADA, IPV6 = "ada@127.0.0.1:4370", "bob@[::1]:4371"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "deep" / ".kinfolk"


def test_who_is_announced_is_found_by_its_name(home):
    announce(home, "kinfolk", ADA)
    announce(home, "kinfolk", IPV6)
    announce(home, "kinfolk", "carl@localhost:4372")
    assert neighbours(home, "kinfolk") == [ADA, IPV6, "carl@localhost:4372"]


def test_an_announcement_made_again_is_one(home):
    assert announce(home, "kinfolk", ADA) == announce(home, "kinfolk", ADA)
    assert neighbours(home, "kinfolk") == [ADA]


def test_withdrawn_and_forgotten_nodes_are_not_found(home):
    path = announce(home, "kinfolk", ADA)
    announce(home, "kinfolk", IPV6)
    withdraw(path)
    withdraw(path)
    assert neighbours(home, "kinfolk") == [IPV6]
    forget(home, "kinfolk", IPV6)
    forget(home, "kinfolk", IPV6)
    assert neighbours(home, "kinfolk") == []


def test_the_announcement_of_a_dead_os_process_is_removed(home):
    path = announce(home, "kinfolk", ADA)
    announce(home, "kinfolk", IPV6)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path.write_text(str(gone.pid))
    assert neighbours(home, "kinfolk") == [IPV6]
    assert not path.exists()


def test_an_announcement_that_is_being_written_counts(home):
    announce(home, "kinfolk", ADA).write_text("")
    assert neighbours(home, "kinfolk") == [ADA]


def test_an_announcement_that_cannot_be_written_is_none(home, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        announce(home, "kinfolk", ADA)
    assert neighbours(home, "kinfolk") == []


def test_clusters_do_not_see_each_other(home):
    announce(home, "kinfolk", ADA)
    assert neighbours(home, "other") == []


def test_nobody_is_found_where_nothing_is(home):
    assert neighbours(home, "kinfolk") == []


def test_files_that_are_no_node_names_are_left_alone(home):
    directory = announce(home, "kinfolk", ADA).parent
    for stray in (".DS_Store", "bob", "eve@127.0.0.1%3A0", "%FF"):
        (directory / stray).touch()
    assert neighbours(home, "kinfolk") == [ADA]


def test_only_the_user_can_read_it_and_no_file_name_needs_quoting(home):
    path = announce(home, "kinfolk", IPV6)
    for directory in (home, home / "nodes", path.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not set(path.name) & set(':[]/\\*?"<>|')
