"""Sessions on demand: nodes are known from an authority (etcd), and a session opens when there is something to say.

| a node is   | known by                               | what is said to it                      | a peer |
| ----------- | -------------------------------------- | --------------------------------------- | ------ |
| idle        | its lease                              | waits, and the node is dialled          | yes    |
| connected   | a session                              | goes over it                            | yes    |
| resting     | a session that we have asked to end    | waits until the other end has answered  | yes    |
| unreachable | its lease; a dial failed, or a session broke | is dropped; it is dialled again and again | no |
| gone        | nothing                                | is dropped                              | no     |

| from              | event                                                | to                    | peers are told |
| ----------------- | ---------------------------------------------------- | --------------------- | -------------- |
| gone              | its lease is seen                                    | idle                  | PeerUp         |
| gone, unreachable | a session opens                                      | connected             | PeerUp         |
| idle              | a session opens, by whomever                         | connected             |                |
| idle              | a dial fails                                         | unreachable           | PeerDown       |
| idle              | its lease ends                                       | gone                  | PeerDown       |
| unreachable       | its lease ends                                       | gone                  |                |
| connected         | nothing was said for `idle_after`, nothing hangs on it | resting             |                |
| connected         | the other end asks to end it, and it is the same here | idle                 |                |
| connected         | the session breaks                                   | unreachable, or gone  | PeerDown       |
| connected         | its lease ends                                       | connected             |                |
| resting           | the other end says no                                | connected             |                |
| resting           | the other end agrees                                 | idle, or gone         |                |
| resting           | the session breaks, with nothing heard, said or hanging on it since | idle, or gone |         |
| resting           | the session breaks, with something                   | unreachable, or gone  | PeerDown       |
| resting           | the other end lives, and does not answer             | unreachable, or gone  | PeerDown       |
| any               | a later start of it has a lease or a session         | as from gone          | PeerDown first |

Nothing is lost by hanging up. Who asks says nothing more to processes before it is answered, and the other end agrees
only if it has said nothing for long either and waits for nothing: so nothing is under way, and nobody relies on the
session. Only, what the other end said just before it was asked may come later, a link for example, and its no be lost
together with the session: then the other end counts that as a loss, and so must this one.

A session is kept while one of the two has no lease: without it, nobody could dial that one.
"""

import logging
from collections.abc import Callable, Mapping

from kinfolk import effects as fx
from kinfolk.agenda import Agenda
from kinfolk.core.members import Members, Session, Target
from kinfolk.errors import KinfolkError
from kinfolk.ids import Seed
from kinfolk.mesh import Mesh
from kinfolk.wire import frames

IDLE = "idle"
"""The code of a goodbye that agrees to end an idle session."""


class OnDemand:
    """Which nodes are peers, and when sessions with them open and end.

    Args:
        agenda: of the node.
        members, mesh: its sessions, and who dials.
        leases: who has a lease from the authority, each with its creation.
        is_leased: whether this node has one.
        quiet: for how many seconds nothing has been said to or by processes of a peer; 0 if anything hangs on the
            session with it.
        asks: whether orders about names are under way between the two.
        lost: told of a peer that was lost, before anybody else is.
        end: ends a session whose other end does not answer, for this reason.
        idle_after: seconds without a word after which a session ends.
        patience: seconds that the other end may take to answer whether it shall.

    Attributes:
        up: the peers, each with its creation.
    """

    def __init__(
        self,
        agenda: Agenda,
        members: Members,
        mesh: Mesh,
        leases: Mapping[str, int],
        *,
        is_leased: Callable[[], bool],
        quiet: Callable[[str], float],
        asks: Callable[[str], bool],
        lost: Callable[[str], None],
        end: Callable[[Session, str], None],
        idle_after: float,
        patience: float,
    ) -> None:
        self._agenda = agenda
        self._members = members
        self._mesh = mesh
        self._leases = leases
        self._is_leased = is_leased
        self._quiet = quiet
        self._asks = asks
        self._lost = lost
        self._end = end
        self._idle_after, self._patience = idle_after, patience
        self.up: dict[str, int] = {}
        self._wanted: set[str] = set()  # those for whom something waits, and no session has opened since

    # --- leases ---

    def seen(self, node: str, creation: int) -> None:
        """A node has a lease."""
        known = self.up.get(node, 0)
        if known < creation:
            self._come(node, creation)

    def gone(self, node: str) -> None:
        """A node has no lease any longer. As long as there is a session with it, it is a peer all the same."""
        self._mesh.forget([Seed.parse(node)])
        if node not in self._members.by_peer:
            self._go(node, "its lease has ended")

    # --- sessions ---

    def is_outdated(self, peer: str, creation: int) -> bool:
        """Whether a later start of the node is known."""
        return creation < max(self._leases.get(peer, 0), self.up.get(peer, 0))

    def reach(self, peer: str) -> None:
        """Something waits to be said to a peer."""
        if peer not in self.up or peer in self._members.by_peer:
            return
        self._wanted.add(peer)
        target = self._mesh.know(peer)
        if target.conn is None:  # it is wanted from now on, however long ago its last session was
            target.attempts, target.refused, target.wanted_since = 0, False, self._agenda.now.mono
            self._mesh.dial(target)

    def dial_failed(self, target: Target, error: KinfolkError) -> None:
        """Somebody could not be reached."""
        peer = target.seed.expects  # under another address of it, we know it only from a session
        if self._members.targets.get(target.seed.address) is target and peer not in self._members.by_peer:
            self._lose(peer, str(error))

    def is_idle(self, target: Target) -> bool:
        """Whether nothing waits to be said to the peer that a target leads to."""
        peer = target.answers or target.seed.expects
        return peer in self.up and peer not in self._wanted

    def opened(self, session: Session) -> None:
        """A session is open, and our list of peers is on its way."""
        if self.up.get(session.peer) != session.creation:
            self._come(session.peer, session.creation)
        self._wanted.discard(session.peer)
        self._agenda.do(fx.Connected(session.peer, session.conn))

    def ended(self, session: Session, reason: str) -> None:
        """A session is over."""
        peer = session.peer
        self._agenda.do(fx.Disconnected(peer, session.conn))
        if not session.resting:
            self._lose(peer, reason)
        elif peer not in self._leases:
            self._go(peer, "its lease has ended")
        if peer not in self._leases:
            self._mesh.peer_left(peer)

    def overflown(self, peer: str, reason: str) -> None:
        """Too much waits to be said to a peer that there is no session with."""
        if peer not in self._members.by_peer:
            self._lose(peer, reason)

    # --- hanging up ---

    def beat(self, late: bool) -> None:
        """Ask to end the sessions that nobody has used for long. Whoever lives and does not answer is no peer.

        `late`: this node was stopped or busy itself, so that an answer may wait to be read.
        """
        now = self._agenda.now.mono
        for session in list(self._members.sessions.values()):
            if session.resting and (late or session.stalled):
                session.asked = now
            elif session.resting and now - session.asked > self._patience:
                self._end(session, f"has not answered for {now - session.asked:.1f} s whether the session shall end")
            elif not session.resting and self._is_idle(session, self._idle_after):
                session.resting, session.asked = True, now
                self._agenda.do(fx.Send((session.conn,), frames.Rest(True)))
                self._agenda.do(fx.Hold(session.peer))

    def agrees_to_rest(self, session: Session) -> bool:
        """The other end asks to end a session: whether we agree. If so, the caller ends it; else we have said no."""
        if self._is_idle(session, self._idle_after / 2):
            session.resting = True
            return True
        self._agenda.do(fx.Send((session.conn,), frames.Rest(False)))
        return False

    def goes_on(self, session: Session) -> None:
        """The other end does not want to end a session."""
        session.resting = False
        self._agenda.do(fx.GoOn(session.peer))

    def has_nothing_to_lose(self, session: Session) -> bool:
        """Whether, of a session that breaks while it rests, the other end can have lost nothing that is known here.

        So it is if no word was heard or said since this end has asked. That is told by the time: before it asked, it
        was quiet for `idle_after`, of which half is far more than what clocks are read apart.
        """
        since = self._agenda.now.mono - session.asked
        return not self._asks(session.peer) and self._quiet(session.peer) >= since + self._idle_after / 2

    def _is_idle(self, session: Session, least: float) -> bool:
        peer = session.peer
        return (
            session.greeted
            and session.synced
            and session.told
            and not session.unsent
            and not session.stalled
            and self._is_leased()
            and self._leases.get(peer) == session.creation
            and not self._asks(peer)
            and self._quiet(peer) >= least
        )

    # --- who is a peer ---

    def _come(self, peer: str, creation: int) -> None:
        self._go(peer, "a later start of it is there")
        self.up[peer] = creation
        self._agenda.log(logging.DEBUG, f"{peer} is there", peer=peer)
        self._agenda.do(fx.PeerUp(peer, creation, 0))

    def _lose(self, peer: str, reason: str) -> None:
        """A peer cannot be reached. As long as it has a lease, somebody dials it: nothing that is said to it does."""
        self._go(peer, reason)
        if peer in self._leases:
            target = self._mesh.know(peer)
            if target.conn is None:
                self._mesh.redial(target)

    def _go(self, peer: str, reason: str) -> None:
        self._wanted.discard(peer)
        creation = self.up.pop(peer, None)
        if creation is not None:
            self._lost(peer)
            self._agenda.do(fx.PeerDown(peer, creation, 0, reason))
