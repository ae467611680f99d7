"""Orders about kinfolk, for an agent that is one node (or, where growth is measured, several)."""

import asyncio
import gc
import itertools
import os
import socket
import struct
import time
import timeit
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from bench.agent import Here
from bench.timing import Timing, burst_through, call_times, in_turn, percentiles
from kinfolk import Call, Node, Pid, Process

BURST = 100
"""Registrations between which the loop gets its turn, where nothing else makes it."""


def _node(here: Here) -> Node:
    node: Node = here.kept["node"]
    return node


async def idle(me: Process) -> None:
    """A process that waits to be stopped."""
    await me.receive()


async def echo(me: Process) -> None:
    """Answers each call with what it says; a large one with its size."""
    async for call in me.calls():
        body = call.body
        call.reply(len(body) if isinstance(body, bytes) else body)


async def counter(me: Process) -> None:
    """Counts messages, and answers a call with how many there were since the last."""
    seen = 0
    while True:
        message = await me.receive()
        if isinstance(message, Call):
            message.reply(seen)
            seen = 0
        else:
            seen += 1


async def greet(me: Process, parent: Pid) -> None:
    """Says hello and ends."""
    me.send(parent, "hello")


async def nothing(me: Process) -> None:
    """Ends at once."""


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something, looking every millisecond."""
    while not condition():  # noqa: ASYNC110 - what others tell us sets no event
        await asyncio.sleep(0.001)


# --- a node ---


async def start(here: Here, word: str, cookie: str, join: Sequence[str]) -> str:
    """Start a node; its name."""
    node = here.kept["node"] = Node(word, cookie=cookie, join=join, allow_spawn=[greet])
    await node.start()
    await until(lambda: len(node.peers()) >= len(join))
    return node.name


async def name(here: Here) -> str:
    """The node's name."""
    return _node(here).name


async def peers(here: Here, count: int) -> None:
    """Wait until it has so many peers."""
    await until(lambda: len(_node(here).peers()) == count)


async def leave(here: Here) -> None:
    """Close the node."""
    await here.kept.pop("node").close()


async def serve(here: Here) -> None:
    """Processes for others to speak to, under the names echo, sizer and counter."""
    node = _node(here)
    for word, body in (("echo", echo), ("sizer", echo), ("counter", counter)):
        await node.names.register(word, node.spawn(body))


class Stalls:
    """Notes for how long the loop has not come round, by the clock on the wall and by that of its thread.

    The second leaves out what other programs have had of the core meanwhile.
    """

    def __init__(self) -> None:
        self.wall = self.own = 0.0
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            wall, own = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.001)
            self.wall = max(self.wall, time.perf_counter() - wall - 0.001)
            self.own = max(self.own, time.thread_time() - own)

    def end(self) -> list[float]:
        """The longest, in seconds."""
        self._task.cancel()
        return [self.wall, self.own]


async def watch_stalls(here: Here) -> None:
    """Begin to note stalls."""
    gc.collect()
    here.kept["stalls"] = Stalls()


async def stalls(here: Here) -> list[float]:
    """The longest stall since, in seconds: by the wall's clock and by the thread's."""
    longest: list[float] = here.kept.pop("stalls").end()
    return longest


# --- lookups ---


async def lookup(here: Here, names: int, count: int) -> dict[str, float]:
    """Seconds for a lookup among so many names: the registry's, and a dictionary's."""
    node = Node("a")
    pid = node.spawn(idle)
    for number in range(names):
        node.names.register_nowait(f"name {number}", pid)
    table = node.names.snapshot()
    wanted = [f"name {number}" for number in range(0, names, max(1, names // 100))]
    result = {"kinfolk": _look_up(node.names.whereis, wanted, count), "dict": _look_up(table.get, wanted, count)}
    await node.close()
    return result


def _look_up(look: Callable[[str], object], names: Sequence[str], count: int) -> float:
    """The best of five, with the loop around it: interruptions only ever add."""
    timer = timeit.Timer("for name in names: look(name)", globals={"look": look, "names": names})
    turns = count // len(names) // 5
    return min(timer.repeat(5, turns)) / turns / len(names)


async def lookup_allocations(here: Here, count: int) -> float:
    """Bytes of memory that so many lookups take at any time."""
    node = Node("a")
    pid = node.spawn(idle)
    node.names.register_nowait("name", pid)
    whereis, turns = node.names.whereis, itertools.repeat(None, count)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    for _ in turns:
        whereis("name")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await node.close()
    return float(peak - before)


# --- names ---


async def register(here: Here, count: int, callers: int) -> dict[str, float]:
    """Register so many names, confirmed, by so many callers; a second, and what half of them took at most."""
    node = _node(here)
    pid = node.spawn(idle)
    names = iter(range(count))
    times: list[float] = []

    async def one() -> None:
        name = f"registered {next(names)}"
        start = time.perf_counter()
        await node.names.register(name, pid)
        times.append(time.perf_counter() - start)

    rate = await in_turn(one, count, callers)
    node.kill(pid)
    await until(lambda: not any(map(node.names.whereis, ("registered 0", f"registered {count - 1}"))))
    return {"rate": rate, "p50": percentiles(times)["p50"]}


async def hold(here: Here, count: int, first: int = 0) -> float:
    """Register names that stay, unconfirmed; when that began (system time)."""
    node = _node(here)
    pid = node.spawn(idle)
    here.kept.setdefault("holders", []).append(pid)
    begun = time.time()
    for number in range(first, first + count):
        node.names.register_nowait(f"held {number}", pid)
        if number % BURST == 0:
            await asyncio.sleep(0)
    return begun


async def let_go(here: Here) -> None:
    """End those that hold names."""
    for pid in here.kept.pop("holders"):
        _node(here).kill(pid)


async def when_names(here: Here, count: int) -> float:
    """Wait until this node knows exactly so many names; the system time then."""
    names = _node(here).names
    await until(lambda: len(names) == count)
    return time.time()


async def arrive(here: Here, seed: str, nodes: int, count: int) -> float:
    """Connect a node that knows nobody to a mesh; seconds until it has so many peers, and knows so many names."""
    begun = time.perf_counter()
    await _node(here).connect(seed, timeout=120)
    await peers(here, nodes)
    await when_names(here, count)
    return time.perf_counter() - begun


async def owners(here: Here, count: int) -> None:
    """Spawn processes that each have a name."""
    node = _node(here)
    here.kept["owners"] = pids = [node.spawn(idle) for _ in range(count)]
    for number, pid in enumerate(pids):
        node.names.register_nowait(f"owned {number}", pid)
        if number % BURST == 0:
            await asyncio.sleep(0)


async def stop_owners(here: Here, burst: int = BURST, pause: float = 0.0) -> float:
    """Let them exit, with a pause after so many; when that began (system time)."""
    node, begun = _node(here), time.time()
    for number, pid in enumerate(here.kept.pop("owners")):
        node.send(pid, "stop")
        if number % burst == 0:
            await asyncio.sleep(pause)
    return begun


# --- messages within a node ---


async def local_cast(here: Here, count: int, burst: int) -> float:
    """Messages to a process of this node, a second."""
    node = _node(here)
    pid = node.spawn(counter)
    rate = await burst_through(lambda: node.send(pid, "hello"), count, burst, lambda: node.call(pid, "how many"))
    node.kill(pid)
    return rate


async def local_call(here: Here, count: int) -> float:
    """Calls of a process of this node: seconds for each."""
    node = _node(here)
    pid = node.spawn(echo)
    start = time.perf_counter()
    for _ in range(count):
        await node.call(pid, 1)
    each = (time.perf_counter() - start) / count
    node.kill(pid)
    return each


async def local_spawn(here: Here, count: int) -> float:
    """Processes that end at once: seconds for each."""
    node = _node(here)
    start = time.perf_counter()
    for _ in range(count // 1000):
        tasks = [node.start_process(nothing, ()).task for _ in range(1000)]
        for task in tasks:
            assert task is not None, "the node runs"
            await task
    return (time.perf_counter() - start) / count


# --- messages between nodes ---


async def _there(here: Here, word: str) -> tuple[Node, Pid]:
    node = _node(here)
    return node, await node.names.wait_for(word, timeout=10)


async def one_way(here: Here, count: int, size: int, burst: int) -> float:
    """Messages to a process of another node, as many a second as it counts."""
    node, pid = await _there(here, "counter")
    body = bytes(size)
    return await burst_through(
        lambda: node.send(pid, body), count, burst, lambda: node.call(pid, "how many", timeout=60)
    )


async def times(here: Here, count: int) -> Timing:
    """Calls to another node, one after the other."""
    node, pid = await _there(here, "echo")
    return await call_times(lambda: node.call(pid, 1), count)


async def rate(here: Here, count: int, callers: int) -> float:
    """Calls to another node, by so many callers."""
    node, pid = await _there(here, "echo")
    return await in_turn(lambda: node.call(pid, 1), count, callers)


async def large(here: Here, size: int, count: int) -> dict[str, float]:
    """Large messages, each answered with its size; then the same with small calls to another process meanwhile."""
    node, sizer = await _there(here, "sizer")
    _, small = await _there(here, "echo")
    body = bytes(size)

    async def all_of_them() -> float:
        begun = time.perf_counter()
        for _ in range(count):
            assert await node.call(sizer, body, timeout=60) == size
        return (time.perf_counter() - begun) / count

    seen: list[float] = []

    async def chatter() -> None:
        while True:
            begun = time.perf_counter()
            await node.call(small, 1, timeout=60)
            seen.append(time.perf_counter() - begun)
            await asyncio.sleep(0.001)

    each = await all_of_them()
    task = asyncio.create_task(chatter())
    await all_of_them()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return {"each": each, "p99_small": percentiles(seen)["p99"] if seen else float("inf")}


async def remote_spawn(here: Here, other: str, count: int) -> float:
    """Processes spawned on another node, each answered by its first message: a second."""
    node = _node(here)
    done: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def parent(me: Process) -> None:
        begun = time.perf_counter()
        for _ in range(count):
            await me.spawn_on(other, greet, me.pid)
            await me.receive()
        done.set_result(count / (time.perf_counter() - begun))

    node.spawn(parent)
    return await done


# --- growth ---


async def memory(here: Here) -> int:
    """Bytes of memory that this program has, after a collection of garbage."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")  # noqa: ASYNC240 - memory's own file


async def spawn_idle(here: Here, count: int) -> None:
    """Spawn processes that wait for a message, and let them begin."""
    node = _node(here)
    for number in range(count):
        node.spawn(idle)
        if number % BURST == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0.05)


async def start_crowd(here: Here, words: Sequence[str], cookie: str, join: Sequence[str]) -> list[str]:
    """Start several nodes in this program, one after the other; their names."""
    crowd: list[Node] = here.kept.setdefault("crowd", [])
    for word in words:
        crowd.append(Node(word, cookie=cookie, join=join or [node.name for node in crowd[:1]]))
        await crowd[-1].start()
    here.kept.setdefault("node", crowd[0])
    return [node.name for node in crowd]


async def crowd_peers(here: Here, count: int) -> None:
    """Wait until each node here has so many peers."""
    crowd: list[Node] = here.kept["crowd"]
    await until(lambda: all(len(node.peers()) == count for node in crowd))


async def crowd_names(here: Here, count: int) -> float:
    """Wait until each node here knows exactly so many names; the system time then."""
    crowd: list[Node] = here.kept["crowd"]
    await until(lambda: all(len(node.names) == count for node in crowd))
    return time.time()


async def used(here: Here) -> dict[str, float]:
    """What this program has used so far: seconds of the processor, and bytes said and heard on all its connections.

    The bytes are those of TCP: with what TLS adds, without headers.
    """
    said, heard = _bytes()
    return {"cpu": time.process_time(), "said": float(said), "heard": float(heard)}


def _bytes() -> tuple[int, int]:
    said = heard = 0
    for entry in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{entry}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry))) as sock:
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                acknowledged, received = struct.unpack_from("<QQ", info, 120)  # tcpi_bytes_acked, tcpi_bytes_received
                said, heard = said + acknowledged, heard + received
    return said, heard


async def quiet(here: Here, seconds: float) -> None:
    """Do nothing for a while."""
    await asyncio.sleep(seconds)


async def repeat_register(here: Here, count: int) -> None:
    """Register names, confirmed, one after the other, for one process."""
    node = _node(here)
    here.kept["registered"] = pid = node.spawn(idle)
    for number in range(count):
        await node.names.register(f"counted {number}", pid)


async def end_registered(here: Here) -> None:
    """End the process that has them, and wait until the names are gone."""
    node = _node(here)
    node.kill(here.kept.pop("registered"))
    await until(lambda: len(node.names) == 0)
