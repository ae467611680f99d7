"""Is it as promised? What the nodes of the demo must agree on, and in which words they do not."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct


class Broken(Exception):
    """Something is not as promised; the message says what."""


class State(Struct, frozen=True):
    """What one node knows: its peers, and who has which name."""

    name: str
    peers: list[str]
    names: dict[str, str]


class Reply(Struct, frozen=True):
    """What a member answers: a value, or the name and text of the error that was raised."""

    value: object = None
    error: str = ""
    detail: str = ""


def differences(states: Iterable[State], names: Mapping[str, str]) -> list[str]:
    """Where the nodes do not form a full mesh or do not know exactly these names, one sentence each; [] is agreement.

    Args:
        names: every name with the pid that must have it.
    """
    states = list(states)
    mesh = {state.name for state in states}
    found: list[str] = []
    for state in states:
        peers = set(state.peers)
        found += [f"{state.name} is not connected to {peer}" for peer in sorted(mesh - peers - {state.name})]
        found += [f"{state.name} is still connected to {peer}" for peer in sorted(peers - mesh)]
        for name in sorted(names.keys() | state.names.keys()):
            expected, actual = names.get(name), state.names.get(name)
            if expected != actual:
                found.append(
                    f"on {state.name} the name {name} belongs to {actual or 'nobody'}, not to {expected or 'nobody'}"
                )
    return found


def winner(replies: Sequence[Reply]) -> int:
    """Which of those who raced for a name has won. A winner replies its pid, a loser NameTaken with the winner's.

    Raises:
        Broken: not exactly one has won, or a loser has been told something else.
    """
    won = [number for number, reply in enumerate(replies) if not reply.error]
    if len(won) != 1:
        raise Broken(f"{len(won)} of {len(replies)} have won the race")
    pid = replies[won[0]].value
    for reply in replies:
        if reply.error and (reply.error, reply.value) != ("NameTaken", pid):
            raise Broken(f"a loser was told {reply.error} by {reply.value or reply.detail}, not NameTaken by {pid}")
    return won[0]


def succeeded(reply: Reply) -> object:
    """The value of a reply.

    Raises:
        Broken: it is an error.
    """
    if reply.error:
        raise Broken(f"{reply.error}: {reply.detail}")
    return reply.value


def failed(reply: Reply, error: str) -> None:
    """Accept a reply that is this error.

    Raises:
        Broken: it is not.
    """
    if reply.error != error:
        raise Broken(f"expected {error}, got {reply.error or repr(reply.value)} {reply.detail}".rstrip())
