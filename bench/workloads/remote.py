"""Messages, calls and processes between two nodes."""

from bench import bare, ours, peers
from bench.harness import Goal, Measure, Opening, Sample, Workload
from bench.stage import ONE_CORE, PythonAgent, Stage
from bench.workloads import casts

MESSAGES, SIZE, BURST = 50_000, 100, 100
CALLS, CALLERS = 3_000, 16
SPAWNS = 1_000


def kinfolk_one_way(loop: str) -> Opening:
    """Messages of 100 bytes, in bursts, and by a sender that lets the loop turn after each."""

    async def opening(stage: Stage) -> Measure:
        agent = await casts.pair(stage, loop)

        async def run() -> Sample:
            return {
                "rate": await agent.run(ours.one_way, MESSAGES, SIZE, BURST),
                "rate_awaiting": await agent.run(ours.one_way, MESSAGES // 2, SIZE, 1),
            }

        return run

    return opening


def bare_one_way(loop: str) -> Opening:
    """The same over a bare protocol that writes once a turn."""

    async def opening(stage: Stage) -> Measure:
        agent = await casts.bare_pair(stage, loop, bare.serve_counter, SIZE)

        async def run() -> Sample:
            return {
                "rate": await agent.run(bare.one_way, MESSAGES, SIZE, BURST),
                "rate_awaiting": await agent.run(bare.one_way, MESSAGES // 2, SIZE, 1),
            }

        return run

    return opening


def erlang_one_way(*, tls: bool) -> Opening:
    """The same in Erlang, whose senders await nothing."""

    async def opening(stage: Stage) -> Measure:
        here, there = await casts.erlangs(stage, 2, tls=tls)
        await there.run("serve")

        async def run() -> Sample:
            rate = await here.run("one_way", there.name, MESSAGES, SIZE)
            return {"rate": rate, "rate_awaiting": rate}

        return run

    return opening


async def xoscar_one_way(stage: Stage) -> Measure:
    """The same between two pools."""
    agent = await _xoscar(stage)

    async def run() -> Sample:
        return {"rate": await agent.run(peers.xoscar_one_way, MESSAGES // 25, SIZE)}

    return run


async def lapinbeam_one_way(stage: Stage) -> Measure:
    """The same over TCP."""
    agent, other = await _lapinbeam(stage)

    async def run() -> Sample:
        return {"rate": await agent.run(peers.lapinbeam_one_way, other, MESSAGES // 10, SIZE)}

    return run


def kinfolk_calls(loop: str) -> Opening:
    """One call after the other, both ends on one core."""

    async def opening(stage: Stage) -> Measure:
        agent = await casts.pair(stage, loop, core=ONE_CORE)

        async def run() -> Sample:
            return await agent.run(ours.times, CALLS)

        return run

    return opening


def bare_calls(loop: str) -> Opening:
    """The same over a bare protocol."""

    async def opening(stage: Stage) -> Measure:
        agent = await casts.bare_pair(stage, loop, core=ONE_CORE)

        async def run() -> Sample:
            return await agent.run(bare.times, CALLS)

        return run

    return opening


def sockets(*, tls: bool) -> Opening:
    """The same over blocking sockets: the floor."""

    async def opening(stage: Stage) -> Measure:
        server, client = await stage.python(core=ONE_CORE), await stage.python(core=ONE_CORE)
        port = await server.run(bare.serve_blocking, str(stage.certificate()) if tls else None)
        await client.run(bare.connect_blocking, port, tls)

        async def run() -> Sample:
            return await client.run(bare.times_blocking, CALLS)

        return run

    return opening


def erlang_calls(*, tls: bool) -> Opening:
    """The same with a `gen_server`."""

    async def opening(stage: Stage) -> Measure:
        here, there = await casts.erlangs(stage, 2, tls=tls, core=ONE_CORE)
        await there.run("serve")

        async def run() -> Sample:
            sample: Sample = await here.run("call_times", there.name, CALLS)
            return sample

        return run

    return opening


async def xoscar_calls(stage: Stage) -> Measure:
    """The same between two pools."""
    agent = await _xoscar(stage, ONE_CORE)

    async def run() -> Sample:
        return await agent.run(peers.xoscar_times, CALLS // 3)

    return run


async def rpyc_calls(stage: Stage) -> Measure:
    """The same with RPyC, over TCP."""
    agent = await _rpyc(stage, ONE_CORE)

    async def run() -> Sample:
        return await agent.run(peers.rpyc_times, CALLS)

    return run


async def pyro_calls(stage: Stage) -> Measure:
    """The same with Pyro5, over TCP."""
    server, client = await stage.python(core=ONE_CORE), await stage.python(core=ONE_CORE)
    await client.run(peers.pyro_connect, await server.run(peers.pyro_serve))

    async def run() -> Sample:
        return await client.run(peers.pyro_times, CALLS)

    return run


async def lapinbeam_calls(stage: Stage) -> Measure:
    """The same with lapinbeam, over TCP."""
    agent, other = await _lapinbeam(stage, ONE_CORE)

    async def run() -> Sample:
        return await agent.run(peers.lapinbeam_times, other, CALLS // 3)

    return run


def kinfolk_callers(loop: str) -> Opening:
    """Calls by 16 callers."""

    async def opening(stage: Stage) -> Measure:
        agent = await casts.pair(stage, loop)

        async def run() -> Sample:
            return {"rate": await agent.run(ours.rate, 8 * CALLS, CALLERS)}

        return run

    return opening


def bare_callers(loop: str) -> Opening:
    """The same over a bare protocol."""

    async def opening(stage: Stage) -> Measure:
        agent = await casts.bare_pair(stage, loop)

        async def run() -> Sample:
            return {"rate": await agent.run(bare.rate, 8 * CALLS, CALLERS)}

        return run

    return opening


def erlang_callers(*, tls: bool) -> Opening:
    """The same with a `gen_server`."""

    async def opening(stage: Stage) -> Measure:
        here, there = await casts.erlangs(stage, 2, tls=tls)
        await there.run("serve")

        async def run() -> Sample:
            return {"rate": await here.run("call_rate", there.name, 8 * CALLS, CALLERS)}

        return run

    return opening


async def xoscar_callers(stage: Stage) -> Measure:
    """The same between two pools."""
    agent = await _xoscar(stage)

    async def run() -> Sample:
        return {"rate": await agent.run(peers.xoscar_rate, CALLS, CALLERS)}

    return run


async def rpyc_callers(stage: Stage) -> Measure:
    """The same with RPyC: threads, each with a connection."""
    agent = await _rpyc(stage)

    async def run() -> Sample:
        return {"rate": await agent.run(peers.rpyc_rate, CALLS, CALLERS)}

    return run


async def lapinbeam_callers(stage: Stage) -> Measure:
    """The same with lapinbeam, over TCP."""
    agent, other = await _lapinbeam(stage)

    async def run() -> Sample:
        return {"rate": await agent.run(peers.lapinbeam_rate, other, CALLS, CALLERS)}

    return run


def kinfolk_spawn(loop: str) -> Opening:
    """A process on the other node, and its first message; both ends on one core."""

    async def opening(stage: Stage) -> Measure:
        (here, there), _ = await casts.mesh(stage, loop, 2, core=ONE_CORE)
        other = await there.run(ours.name)

        async def run() -> Sample:
            return {"rate": await here.run(ours.remote_spawn, other, SPAWNS)}

        return run

    return opening


def erlang_spawn(*, tls: bool) -> Opening:
    """The same with `spawn/4`."""

    async def opening(stage: Stage) -> Measure:
        here, there = await casts.erlangs(stage, 2, tls=tls, core=ONE_CORE)

        async def run() -> Sample:
            return {"rate": await here.run("remote_spawn", there.name, SPAWNS)}

        return run

    return opening


async def _xoscar(stage: Stage, core: int | None = None) -> PythonAgent:
    server, client = await stage.python(core=core), await stage.python(core=core)
    await client.run(peers.xoscar_connect, await server.run(peers.xoscar_serve))
    return client


async def _rpyc(stage: Stage, core: int | None = None) -> PythonAgent:
    server, client = await stage.python(core=core), await stage.python(core=core)
    await client.run(peers.rpyc_connect, await server.run(peers.rpyc_serve))
    return client


async def _lapinbeam(stage: Stage, core: int | None = None) -> tuple[PythonAgent, str]:
    server, client = await stage.python(core=core), await stage.python(core=core)
    other = await server.run(peers.lapinbeam_start, "bob", [])
    await client.run(peers.lapinbeam_start, "ada", [other])
    return client, other


WORKLOADS = [
    Workload(
        "oneway",
        "messages of 100 bytes to another node",
        {"rate": "/s", "rate_awaiting": "/s"},
        {
            "kinfolk asyncio": kinfolk_one_way("asyncio"),
            "kinfolk uvloop": kinfolk_one_way("uvloop"),
            "bare TLS asyncio": bare_one_way("asyncio"),
            "bare TLS uvloop": bare_one_way("uvloop"),
            "erlang TLS": erlang_one_way(tls=True),
            "erlang TCP": erlang_one_way(tls=False),
            "xoscar TCP": xoscar_one_way,
            "lapinbeam TCP": lapinbeam_one_way,
        },
        [
            Goal("rate", ">= 3", "erlang TLS"),
            Goal("rate", ">= 0.4", "bare TLS"),
            Goal("rate_awaiting", ">= 1", "erlang TLS"),
        ],
    ),
    Workload(
        "call",
        "calls to another node, one after the other, both ends on one core",
        {"p50": "s", "p99": "s"},
        {
            "kinfolk asyncio": kinfolk_calls("asyncio"),
            "kinfolk uvloop": kinfolk_calls("uvloop"),
            "bare TLS asyncio": bare_calls("asyncio"),
            "bare TLS uvloop": bare_calls("uvloop"),
            "sockets TLS": sockets(tls=True),
            "sockets TCP": sockets(tls=False),
            "erlang TLS": erlang_calls(tls=True),
            "erlang TCP": erlang_calls(tls=False),
            "rpyc TCP": rpyc_calls,
            "pyro5 TCP": pyro_calls,
            "xoscar TCP": xoscar_calls,
            "lapinbeam TCP": lapinbeam_calls,
        },
        [
            Goal("p50", "<= 1.2", "erlang TLS", loops=("uvloop",)),
            Goal("p50", "<= 2", "erlang TLS", loops=("asyncio",)),
            Goal("p99", "<= 3", "kinfolk", "p50", called="own p50"),
        ],
    ),
    Workload(
        "call16",
        "calls to another node by 16 callers",
        {"rate": "/s"},
        {
            "kinfolk asyncio": kinfolk_callers("asyncio"),
            "kinfolk uvloop": kinfolk_callers("uvloop"),
            "bare TLS asyncio": bare_callers("asyncio"),
            "bare TLS uvloop": bare_callers("uvloop"),
            "erlang TLS": erlang_callers(tls=True),
            "erlang TCP": erlang_callers(tls=False),
            "rpyc TCP": rpyc_callers,
            "xoscar TCP": xoscar_callers,
            "lapinbeam TCP": lapinbeam_callers,
        },
        [Goal("rate", ">= 2", "erlang TLS")],
    ),
    Workload(
        "spawn",
        "processes spawned on another node, each until its first message; both ends on one core",
        {"rate": "/s"},
        {
            "kinfolk asyncio": kinfolk_spawn("asyncio"),
            "kinfolk uvloop": kinfolk_spawn("uvloop"),
            "erlang TLS": erlang_spawn(tls=True),
            "erlang TCP": erlang_spawn(tls=False),
        },
        [Goal("rate", ">= 1", "erlang TLS")],
    ),
]
