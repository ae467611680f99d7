"""Neighbours: how nodes of one user on one machine find each other without any setting.

Each such node keeps an empty file, named after itself, in ``<home>/nodes/<cluster>/``; whoever starts next dials the
names found there. The directory is only a hint of whom to dial: a node that died leaves its file behind, and whoever is
dialled has to prove that it knows the cookie.

Two nodes that start at once find each other when each announces itself before it looks: the later of the two
announcements comes before its own look, and after the other's.
"""

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
    return path


def withdraw(path: Path) -> None:
    """Take an announcement back, before the port is closed: after that it may belong to the node's next start."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # read-only or gone by now: the file is a hint, and whoever dials finds nobody


def neighbours(home: Path, cluster: str) -> list[str]:
    """The names of all announced nodes, those included that died without taking it back. Sorted; [] if unreadable."""
    try:
        files = [path.name for path in (home / "nodes" / cluster).iterdir()]
    except OSError:
        return []
    return sorted(name for name in map(unquote, files) if _is_node_name(name))


def forget(home: Path, cluster: str, name: str) -> None:
    """Drop the announcement of a node that refuses connections: it died without taking it back."""
    withdraw(_file(home, cluster, name))


def _file(home: Path, cluster: str, name: str) -> Path:
    # ':' and the like stand for something else in the file names of some systems.
    return home / "nodes" / cluster / quote(name, safe="@")


def _is_node_name(name: str) -> bool:
    try:
        check_node_name(name)
    except ValueError:
        return False
    return True
