"""Orders about other actor and call libraries for Python, each used as its documentation shows."""

import asyncio
import itertools
import threading
import time
from typing import Any

from bench.agent import Here
from bench.stage import free_port
from bench.timing import Timing, call_times, in_turn, percentiles

# --- Pykka: actors in threads, within one program ---


def _pykka_actor() -> Any:
    import pykka

    class Echo(pykka.ThreadingActor):  # type: ignore[misc]
        seen = 0

        def on_receive(self, message: Any) -> Any:
            self.seen += 1
            return self.seen if message == "how many" else message

    return Echo.start()


async def pykka_cast(here: Here, count: int) -> float:
    """Tells, a second."""
    actor = _pykka_actor()
    start = time.perf_counter()
    for _ in range(count):
        actor.tell("hello")
    actor.ask("how many")
    rate = count / (time.perf_counter() - start)
    actor.stop()
    return rate


async def pykka_call(here: Here, count: int) -> float:
    """Asks: seconds for each."""
    actor = _pykka_actor()
    start = time.perf_counter()
    for _ in range(count):
        actor.ask(1)
    each = (time.perf_counter() - start) / count
    actor.stop()
    return each


# --- xoscar: actors in pools ---


def _xoscar_actor() -> Any:
    import xoscar

    class Echo(xoscar.Actor):  # type: ignore[misc]
        seen = 0

        async def echo(self, message: Any) -> Any:
            return message

        async def count(self, message: Any) -> None:
            self.seen += 1

        async def how_many(self) -> int:
            seen, self.seen = self.seen, 0
            return seen

    return Echo


async def xoscar_serve(here: Here) -> str:
    """A pool with an actor; its address."""
    import xoscar

    address = f"127.0.0.1:{free_port()}"
    here.kept["pool"] = await xoscar.create_actor_pool(address, n_process=0)
    here.kept["ref"] = await xoscar.create_actor(_xoscar_actor(), address=address, uid="echo")
    return address


async def xoscar_connect(here: Here, address: str) -> None:
    """Find that actor, from a pool of our own."""
    import xoscar

    here.kept["pool"] = await xoscar.create_actor_pool(f"127.0.0.1:{free_port()}", n_process=0)
    here.kept["ref"] = await xoscar.actor_ref(address=address, uid="echo")


async def xoscar_call(here: Here, count: int) -> float:
    """Calls, one after the other: seconds for each."""
    ref = here.kept["ref"]
    start = time.perf_counter()
    for _ in range(count):
        await ref.echo(1)
    return (time.perf_counter() - start) / count


async def xoscar_times(here: Here, count: int) -> Timing:
    """Calls, one after the other."""
    ref = here.kept["ref"]
    return await call_times(lambda: ref.echo(1), count)


async def xoscar_rate(here: Here, count: int, callers: int) -> float:
    """Calls by so many callers."""
    ref = here.kept["ref"]
    return await in_turn(lambda: ref.echo(1), count, callers)


async def xoscar_one_way(here: Here, count: int, size: int) -> float:
    """Tells, as many a second as the actor has counted."""
    ref, body = here.kept["ref"], bytes(size)
    start = time.perf_counter()
    for _ in range(count):
        await ref.count.tell(body)
    while await ref.how_many() == 0:
        pass
    return count / (time.perf_counter() - start)


# --- RPyC: calls that block ---


async def rpyc_serve(here: Here) -> int:
    """A server in a thread; its port."""
    import rpyc
    from rpyc.utils.server import ThreadedServer

    class Echo(rpyc.Service):  # type: ignore[misc]
        def exposed_echo(self, message: Any) -> Any:
            return message

    server = ThreadedServer(Echo, hostname="127.0.0.1", port=0)
    threading.Thread(target=server.start, daemon=True).start()
    return int(server.port)


async def rpyc_connect(here: Here, port: int) -> None:
    """Connect to it."""
    import rpyc

    here.kept["port"] = port
    here.kept["rpyc"] = rpyc.connect("127.0.0.1", port)


async def rpyc_times(here: Here, count: int) -> Timing:
    """Calls, one after the other."""
    echo = here.kept["rpyc"].root.echo  # asking for the method would be another round trip
    return _blocking_times(lambda: echo(1), count)


async def rpyc_rate(here: Here, count: int, callers: int) -> float:
    """Calls by so many threads, each with a connection of its own."""
    import rpyc

    connections = [rpyc.connect("127.0.0.1", here.kept["port"]) for _ in range(callers)]
    return await _by_threads([lambda echo=each.root.echo: echo(1) for each in connections], count)


# --- Pyro5: calls that block ---


async def pyro_serve(here: Here) -> str:
    """A daemon in a thread; the object's address."""
    import Pyro5.api

    @Pyro5.api.expose
    class Echo:
        def echo(self, message: Any) -> Any:
            return message

    daemon = Pyro5.api.Daemon(host="127.0.0.1")
    address = str(daemon.register(Echo()))
    threading.Thread(target=daemon.requestLoop, daemon=True).start()
    return address


async def pyro_connect(here: Here, address: str) -> None:
    """Find that object."""
    import Pyro5.api

    here.kept["pyro"] = Pyro5.api.Proxy(address)
    here.kept["pyro"]._pyroBind()


async def pyro_times(here: Here, count: int) -> Timing:
    """Calls, one after the other."""
    proxy = here.kept["pyro"]
    return _blocking_times(lambda: proxy.echo(1), count)


def _blocking_times(call: Any, count: int) -> Timing:
    seen: list[float] = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        seen.append(time.perf_counter() - start)
    return percentiles(seen)


async def _by_threads(calls: list[Any], count: int) -> float:
    each = count // len(calls)

    def caller(call: Any) -> None:
        for _ in range(each):
            call()

    threads = [threading.Thread(target=caller, args=(call,)) for call in calls]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return each * len(calls) / (time.perf_counter() - start)


# --- lapinbeam: the nearest in promise; actors, monitors and names over TCP ---

LAPINBEAM_BURST = 200


async def lapinbeam_start(here: Here, word: str, join: list[str]) -> str:
    """A node with an actor that answers and counts, and the registry; its name."""
    import lapinbeam
    from lapinbeam.registry import register_registry

    @lapinbeam.actor(name="echo")
    class Echo:
        def __init__(self) -> None:
            self.seen = 0

        async def receive(self, message: Any) -> None:
            meta = lapinbeam.current_message()
            if message == "how many":
                await meta.reply(self.seen)
                self.seen = 0
            elif isinstance(message, dict):
                await meta.reply(message)
            else:
                self.seen += 1

    node = here.kept["lapinbeam"] = lapinbeam.Node(f"{word}@127.0.0.1:{free_port()}", peer_queue_capacity=1_000_000)
    await node.start()
    supervisor = lapinbeam.Supervisor(node=node)
    here.kept["supervisor"] = supervisor
    here.kept["echo"] = supervisor.spawn(Echo)
    register_registry(node, supervisor)
    for other in join:
        await node.connect_peer(other)
    return str(node.local_id)


async def lapinbeam_call(here: Here, count: int) -> float:
    """Asks within the node: seconds for each."""
    ref = here.kept["echo"]
    start = time.perf_counter()
    for _ in range(count):
        await ref.ask({"n": 1})
    return (time.perf_counter() - start) / count


async def lapinbeam_cast(here: Here, count: int) -> float:
    """Sends within the node, a second."""
    ref = here.kept["echo"]
    start = time.perf_counter()
    for _ in range(count):
        await ref.send("hello")
    await ref.ask("how many", timeout=60)
    return count / (time.perf_counter() - start)


async def lapinbeam_times(here: Here, other: str, count: int) -> Timing:
    """Asks of another node's actor, one after the other."""
    ref = here.kept["lapinbeam"].get_remote_actor(other, "echo")
    return await call_times(lambda: ref.ask({"n": 1}), count)


async def lapinbeam_rate(here: Here, other: str, count: int, callers: int) -> float:
    """Asks by so many callers."""
    ref = here.kept["lapinbeam"].get_remote_actor(other, "echo")
    return await in_turn(lambda: ref.ask({"n": 1}), count, callers)


async def lapinbeam_one_way(here: Here, other: str, count: int, size: int) -> float:
    """Sends to another node's actor, as many a second as it has counted.

    In bursts, each counted before the next begins: of several thousand at once, it loses some.
    """
    ref, body = here.kept["lapinbeam"].get_remote_actor(other, "echo"), "x" * size
    start = time.perf_counter()
    seen = 0
    for _ in range(0, count, LAPINBEAM_BURST):
        for _ in range(LAPINBEAM_BURST):
            await ref.send(body)
        seen += await ref.ask("how many", timeout=60)
    return float(seen / (time.perf_counter() - start))


async def lapinbeam_register(here: Here, count: int, run: int) -> float:
    """Take so many names for the actor here; seconds since the epoch when that began. Nobody confirms them."""
    from lapinbeam.registry import register_name

    node, begun = here.kept["lapinbeam"], time.time()
    for number in range(count):
        await register_name(node, f"{run} {number}", here.kept["echo"])
    return begun


async def lapinbeam_knows(here: Here, count: int, run: int) -> float:
    """Wait until this node knows the last of them; seconds since the epoch then."""
    from lapinbeam.registry import whereis_name

    node = here.kept["lapinbeam"]
    for number in itertools.repeat(count - 1):
        if whereis_name(node, f"{run} {number}") is not None:
            break
        await asyncio.sleep(0.001)
    return time.time()
