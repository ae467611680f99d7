"""One kernel, and peers whose frames are written by hand: moments that a simulation reaches seldom or never."""

import random
from collections.abc import Sequence
from typing import Any

from kinfolk import effects as fx
from kinfolk.ids import Pid, Seed
from kinfolk.kernel import Kernel, Settings
from kinfolk.wire import frames

ADA, BOB, CARL = "ada@h:1", "bob@h:2", "carl@h:3"
CREATION = 7


class Ada:
    """The kernel. What its steps lead to is returned, and is in `said` as far as it is for peers."""

    def __init__(self, **settings: Any) -> None:
        self.kernel = Kernel(ADA, CREATION, Settings(**settings), random.Random(1))
        self.kernel.creation_is_final = True
        self.names = self.kernel.names
        self.time = 0.0
        self.conns: dict[str, int] = {}
        self.said: dict[str, list[frames.Operation]] = {BOB: [], CARL: []}

    def handle(self, happened: fx.Input) -> list[fx.Effect]:
        effects = self.kernel.handle(happened, fx.Now(self.time, 0))
        peers = {conn: peer for peer, conn in self.conns.items()}
        for effect in effects:
            if isinstance(effect, fx.Send):
                for conn in effect.conns:
                    self.said[peers[conn]].append(effect.operation)
        return effects

    def open(self, peer: str, *first: frames.Operation, creation: int = 0, position: int = 0) -> list[fx.Effect]:
        """A session opens; the peer lists nobody, offers what it mirrors of us, and goes on."""
        conn = self.conns[peer] = self.kernel.new_connection()
        effects = self.handle(fx.Opened(conn, peer, 1, dialled=False))
        return effects + self.say(peer, frames.Peers([], creation, position), *first)

    def close(self, peer: str) -> list[fx.Effect]:
        return self.handle(fx.Closed(self.conns.pop(peer), "cut"))

    def say(self, peer: str, *operations: frames.Operation) -> list[fx.Effect]:
        return [effect for said in operations for effect in self.handle(fx.Received(self.conns[peer], [said]))]

    def finish(self) -> list[fx.Effect]:
        """All slices that are left."""
        effects: list[fx.Effect] = []
        while self.names.busy:
            effects += self.handle(fx.Turn())
        return effects

    def claim(self, name: str, local: int = 1, ref: int = 1, *, wait: bool = False) -> list[fx.Effect]:
        return self.handle(fx.Register(ref, name, own(local), wait, 9.0, "message"))


def own(local: int) -> Pid:
    return Pid(ADA, CREATION, local)


def synced(*names: str, position: int | None = None, confirmed: bool = True, stamp: int = 1) -> frames.LedgerSynced:
    """A whole sync: claims of these names by process 1, made one after the other."""
    positions = list(range(1, len(names) + 1))
    count = len(names)
    return frames.LedgerSynced(
        1, count if position is None else position, True, list(names), [1] * count, positions, [stamp] * count,
        [confirmed] * count,
    )  # fmt: skip


def only(kind: type[Any], things: Sequence[object]) -> list[Any]:
    return [thing for thing in things if isinstance(thing, kind)]


def test_a_join_that_ends_in_the_midst_of_a_slice_confirms_after_what_the_slice_has_withdrawn():
    ada = Ada(step=4)
    ada.open(BOB, synced("a", "b", "c", "d", "e"))
    ada.open(CARL, synced("lost"))
    ada.finish()
    ada.close(BOB)
    ada.close(CARL)
    ada.finish()
    ada.open(BOB)
    ada.handle(fx.Join(99, (Seed.parse(BOB),), 5.0, True, 0))
    ada.open(CARL)
    ada.claim("lost")
    ada.claim("kept", 2)
    kept = ada.names.own["kept"].claim.position
    for peer in (BOB, CARL):
        ada.say(peer, frames.Acknowledged([kept]))
    ada.say(BOB, frames.LedgerResumed(5, 5))
    assert not ada.names.own["kept"].confirmed, "the join goes on: one of bob's names is still on its way"
    effects = ada.say(CARL, frames.LedgerResumed(1, 1))
    assert fx.Succeed(99) in effects and ada.names.own["kept"].confirmed and "lost" not in ada.names.own
    entries = [said.operation for said in only(fx.Send, effects)]
    assert [type(entry) for entry in entries if hasattr(entry, "position")] == [
        frames.NamesWithdrawn, frames.NameConfirmed,
    ]  # fmt: skip


def asked(ada: Ada, peer: str, reference: int, name: str, local: int) -> list[fx.Effect]:
    return ada.say(peer, frames.RegistrationAsked(reference, name, local, 5000, "message"))


def settle(ada: Ada, peer: str, reference: int, *, keep: bool) -> None:
    ada.say(peer, frames.AskSettled(reference, keep))
