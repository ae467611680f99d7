"""Neighbours: how nodes of one user on one machine find each other without any setting.

Each such node keeps a file, named after itself, in ``<home>/nodes/<cluster>/``; whoever starts next dials the names
found there. In it stands the OS process of the node, so that the file of one that was killed is recognised and removed.
The directory is only a hint of whom to dial: whoever is dialled has to prove that it knows the cookie.

Two nodes that start at once find each other when each announces itself before it looks: the later of the two
announcements comes before its own look, and after the other's.
"""

import os
from pathlib import Path
from urllib.parse import quote, unquote

from kinfolk.ids import check_node_name


def announce(home: Path, cluster: str, name: str) -> Path:
    """Let others find this node. Returns the file to withdraw again.

    Args:
        home: as `kinfolk.settings.home` gives it.
        name: the node's final name, on a port that listens already.

    Raises:
        OSError: the file cannot be made; the node then runs, but is not found.
    """
    path = _file(home, cluster, name)
    for directory in (home, home / "nodes", path.parent):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    try:
        path.write_text(str(os.getpid()))
    except OSError:
        withdraw(path)  # empty, as on a full disk, it would count for ever as one that is being written
        raise
    return path


def withdraw(path: Path) -> None:
    """Take an announcement back, before the port is closed: after that it may belong to the node's next start."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # read-only or gone by now: the file is a hint, and whoever dials finds nobody


def neighbours(home: Path, cluster: str) -> list[str]:
    """The names of all announced nodes, sorted; [] if unreadable. Announcements of dead OS processes are removed."""
    try:
        files = [path for path in (home / "nodes" / cluster).iterdir() if _is_node_name(unquote(path.name))]
    except OSError:
        return []
    for path in files:
        if _is_dead(path):
            withdraw(path)
    return sorted(unquote(path.name) for path in files if path.exists())


def forget(home: Path, cluster: str, name: str) -> None:
    """Drop the announcement of a node that refuses connections: it died without taking it back."""
    withdraw(_file(home, cluster, name))


def _file(home: Path, cluster: str, name: str) -> Path:
    # ':' and the like stand for something else in the file names of some systems.
    return home / "nodes" / cluster / quote(name, safe="@")


def _is_dead(path: Path) -> bool:
    """Whether the OS process that made the announcement is gone for certain."""
    if os.name != "posix":
        return False  # elsewhere, signal 0 is no question
    try:
        os.kill(int(path.read_text()), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):
        pass  # another user's, or not written yet
    return False


def _is_node_name(name: str) -> bool:
    try:
        check_node_name(name)
    except ValueError:
        return False
    return True
