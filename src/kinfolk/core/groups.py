"""Who is a member of which group, as one node knows it.

A membership is a fact of the member's node like a claim of a name, in the same ledger; but any number of processes may
be members of one group, so there is nothing to decide: the view is the union of what all nodes say.
"""

from collections.abc import Collection

from kinfolk.ids import Pid


class Groups:
    """The members of each group, in the order in which this node learned of them. Empty equals absent.

    Args:
        refused: pids and nodes, each as (name, creation), that are dead and on their way out of the view.
    """

    def __init__(self, refused: Collection[object]) -> None:
        self._refused = refused
        self.view: dict[str, dict[Pid, None]] = {}

    def add(self, group: str, pid: Pid) -> bool:
        """A process is a member from now on. Returns whether that is new here."""
        members = self.view.setdefault(group, {})
        if pid in members:
            return False
        members[pid] = None
        return True

    def remove(self, group: str, pid: Pid) -> bool:
        """A process is no longer a member. Returns whether it was one here."""
        members = self.view.get(group)
        if members is None or pid not in members:
            return False
        del members[pid]
        if not members:
            del self.view[group]
        return True

    def members(self, group: str) -> list[Pid]:
        """The members of a group, as far as they are known to be alive."""
        members = list(self.view.get(group, ()))
        if not self._refused:
            return members
        return [pid for pid in members if pid not in self._refused and (pid.node, pid.creation) not in self._refused]
