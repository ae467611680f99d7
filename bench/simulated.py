"""``python -m bench.simulated``: what the mesh costs one node among hundreds, counted without sockets.

One kernel is real, all others are scripted: they say what honest peers would say, and count what they are told. So what
comes out is what the rules of the mesh demand, in bytes and in time of the processor; TLS, sockets and the loop come on
top (see docs/scaling.md for what those cost among real nodes). Prints one JSON object for each number of nodes.
"""

import argparse
import gc
import json
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from kinfolk import effects as fx
from kinfolk.ids import Pid
from kinfolk.kernel import Kernel
from kinfolk.tempo import Settings
from kinfolk.wire import frames

FRAME_BYTES = 10
"""What a frame has around the first of its operations."""
NAMES = 10
"""Names that each node holds."""
REGISTERS = 50
SIZES = (100, 200, 500, 1000)


class Cast:
    """One node, and its peers."""

    def __init__(self, nodes: int) -> None:
        self.kernel = Kernel(_name(0), 1, Settings(), random.Random(1))
        self.kernel.creation_is_final = True
        self.peers = [_name(number) for number in range(1, nodes)]
        self.conns: dict[int, str] = {}
        self.time = 0.0
        self.said = self.heard = 0
        self.seconds = 0.0  # of the processor, in the kernel and for encoding and decoding
        self.to_answer: list[tuple[int, frames.Operation]] = []

    def handle(self, happened: fx.Input) -> None:
        """Give the kernel an input; what it says is counted, and kept for those who are to answer it."""
        begun = time.process_time()
        effects = self.kernel.handle(happened, fx.Now(self.time, int(self.time * 1000)))
        for effect in effects:
            if isinstance(effect, fx.Send):
                self.said += len(effect.conns) * (FRAME_BYTES + len(frames.encode_operation(effect.operation)))
        self.seconds += time.process_time() - begun
        for effect in effects:
            if isinstance(effect, fx.Send):
                self.to_answer += [(conn, effect.operation) for conn in effect.conns]
            elif isinstance(effect, fx.WantTurn):
                self.handle(fx.Turn())

    def hear(self, conn: int, operation: frames.Operation) -> None:
        """A peer says something."""
        encoded = frames.encode_frame([operation])
        self.heard += len(encoded)
        begun = time.process_time()
        decoded = frames.decode_payload(operation.TAG, encoded[frames.HEADER_BYTES :])
        self.seconds += time.process_time() - begun
        assert decoded is not None, "it is a frame of ours"
        self.handle(fx.Received(conn, decoded))

    def answer(self) -> None:
        """Let each peer answer what it was told, as an honest one does."""
        while self.to_answer:
            told, self.to_answer = self.to_answer, []
            for conn, operation in told:
                match operation:
                    case frames.NameClaimed(position=position) | frames.NamesWithdrawn(position=position):
                        self.hear(conn, frames.Acknowledged([position]))
                    case frames.Ping(sequence=sequence):
                        self.hear(conn, frames.Pong(sequence))
                    case _:
                        pass

    def measure(self, act: Callable[[], object]) -> dict[str, float]:
        """What something costs this node."""
        self.said = self.heard = 0
        self.seconds = 0.0
        act()
        self.answer()
        return {"bytes_said": self.said, "bytes_heard": self.heard, "processor_seconds": round(self.seconds, 6)}

    # --- what happens ---

    def join(self) -> None:
        """A session with each opens; each has its names, and lists all others."""
        for number, peer in enumerate(self.peers, 1):
            conn = self.kernel.new_connection()
            self.conns[conn] = peer
            self.handle(fx.Opened(conn, peer, 1, dialled=True))
            listed = [other for other in self.peers if other != peer]
            self.hear(conn, frames.Peers(listed, 0, 0, [1] * len(listed)))
            names = [f"service/{number}/{index}" for index in range(NAMES)]
            every = list(range(1, NAMES + 1))
            sync = frames.LedgerSynced(
                1, 2 * NAMES, True, names, [1] * NAMES, every, [number << 20] * NAMES, [True] * NAMES
            )
            self.hear(conn, sync)
            self.answer()

    def beat(self) -> None:
        """One heartbeat: this node's, and that of every peer."""
        due = self.kernel.next_deadline()
        assert due is not None, "there are peers"
        self.time = max(self.time, due)
        self.handle(fx.TimePassed())
        for conn in self.conns:
            self.hear(conn, frames.Ping(1, 2 * NAMES, self.kernel.names.mirrors[self.conns[conn]].digest))

    def register(self, count: int) -> None:
        """Names of this node, confirmed by all, one after the other."""
        for number in range(count):
            name = f"own/{number}"
            self.handle(fx.Register(number + 1, name, Pid(self.kernel.name, 1, 1), True, 60.0, "message"))
            self.answer()

    def exit(self) -> None:
        """The process that has all these names ends."""
        self.handle(fx.ProcessExited(1))

    def lose(self) -> None:
        """One peer is lost, with its names."""
        self.handle(fx.Closed(next(iter(self.conns)), "gone"))


def _name(number: int) -> str:
    return f"node{number}@10.0.{number >> 8}.{number & 255}:4370"


def measure(nodes: int) -> dict[str, Any]:
    """What one node of so many pays."""
    gc.collect()
    tracemalloc.start()
    cast = Cast(nodes)
    before = tracemalloc.get_traced_memory()[0]
    cast.join()
    gc.collect()
    memory = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    again = Cast(nodes)
    joined = again.measure(again.join)
    cast.time = 1.0
    cast.measure(cast.beat)  # the first finds all timers due
    beat = cast.measure(cast.beat)
    registered = cast.measure(lambda: cast.register(REGISTERS))
    exited = cast.measure(cast.exit)
    return {
        "nodes": nodes,
        "names_of_each": NAMES,
        "bytes_of_memory_for_each_peer": round(memory / (nodes - 1)),
        "joining": joined,
        "a_heartbeat": beat,
        "a_register": {what: round(cost / REGISTERS, 6) for what, cost in registered.items()},
        f"the_exit_of_a_process_with_{REGISTERS}_names": exited,
        "the_loss_of_a_peer": cast.measure(cast.lose),
    }


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.simulated", description=__doc__)
    parser.add_argument("nodes", type=int, nargs="*", help=f"how many; by default {', '.join(map(str, SIZES))}")
    sizes: Iterable[int] = parser.parse_args(arguments).nodes or SIZES
    for nodes in sizes:
        print(json.dumps(measure(nodes)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
