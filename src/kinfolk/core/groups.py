"""Who is a member of which group, as one node knows it.

A membership is a fact of the member's node like a claim of a name, in the same ledger; but any number of processes may
be members of one group, so there is nothing to decide: the view is the union of what all nodes say.

Source: groups that are a union of what each node says of its own processes, as in erlang/otp (pg).
"""

from collections.abc import Collection, Iterator

from kinfolk.ids import Pid


class Groups:
    """The members of each group. Empty equals absent.

    They are kept node by node: a broadcast needs to know which nodes have members, however many.
    What only reads works from any thread.

    Args:
        refused: pids and nodes, each as (name, creation), that are dead and on their way out of the view.
    """

    def __init__(self, refused: Collection[object]) -> None:
        self._refused = refused
        self._groups: dict[str, dict[str, dict[Pid, None]]] = {}

    def __iter__(self) -> Iterator[str]:
        """The groups with members, some of whom may be refused."""
        return iter(list(self._groups))

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, group: str, pid: Pid) -> bool:
        """A process is a member from now on. Returns whether that is new here."""
        nodes = self._groups.get(group)
        if nodes is None:
            nodes = self._groups[group] = {}
        members = nodes.get(pid.node)
        if members is None:
            members = nodes[pid.node] = {}
        if pid in members:
            return False
        members[pid] = None
        return True

    def remove(self, group: str, pid: Pid) -> bool:
        """A process is no longer a member. Returns whether it was one here."""
        nodes = self._groups.get(group, {})
        members = nodes.get(pid.node)
        if members is None or pid not in members:
            return False
        del members[pid]
        if not members:
            del nodes[pid.node]
        if not nodes:
            del self._groups[group]
        return True

    def clear(self) -> None:
        """Forget all: the node is closed."""
        self._groups.clear()

    def nodes(self, group: str) -> list[str]:
        """The nodes that have members of a group."""
        return list(self._groups.get(group, ()))

    def members(self, group: str) -> list[Pid]:
        """The members of a group as far as they are known to be alive; those of one node together, in their order."""
        return [pid for node in self.nodes(group) for pid in self.members_on(node, group)]

    def members_on(self, node: str, group: str) -> list[Pid]:
        """The members of a group on one node, in the order in which they joined, as far as it is known here."""
        members = list(self._groups.get(group, {}).get(node, ()))
        if not self._refused:
            return members
        return [pid for pid in members if pid not in self._refused and (pid.node, pid.creation) not in self._refused]

    def view(self, group: str) -> list[Pid]:
        """The members of a group, also those that are refused: what the changes yet to be told will start from."""
        return [pid for members in list(self._groups.get(group, {}).values()) for pid in list(members)]
