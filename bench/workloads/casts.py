"""The usual casts: a mesh of ours, a mesh of Erlang's, a server and a client."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from bench import bare, ours
from bench.harness import Sample
from bench.stage import ErlangAgent, PythonAgent, Stage, names_of, together
from kinfolk.cookie import new_cookie

WORDS = ("ada", "bob", "eve", "joe")


async def mesh(stage: Stage, loop: str, size: int, *, core: int | None = None) -> tuple[list[PythonAgent], str]:
    """So many nodes of ours, each an agent of its own, connected; and their cookie."""
    agents = [await stage.python(loop, core=core) for _ in range(size)]
    cookie = new_cookie()
    await join(agents, cookie)
    return agents, cookie


async def join(agents: Sequence[PythonAgent], cookie: str) -> list[str]:
    """Start a node in each agent, the first before the others; their names."""
    names: list[str] = []
    for agent, word in zip(agents, WORDS, strict=False):
        names.append(await agent.run(ours.start, word, cookie, list(names)))
    await together(*(agent.run(ours.peers, len(agents) - 1) for agent in agents))
    return names


async def erlangs(stage: Stage, size: int, *, tls: bool = True, core: int | None = None) -> list[ErlangAgent]:
    """So many nodes of Erlang, connected."""
    agents = await apart(stage, size, tls=tls, core=core)
    await agents[0].run("connect", names_of(agents[1:]))
    for agent in agents:
        await agent.run("connect", names_of(other for other in agents if other is not agent))
    return agents


async def apart(stage: Stage, size: int, *, tls: bool = True, core: int | None = None) -> list[ErlangAgent]:
    """So many nodes of Erlang that do not know each other."""
    return [await stage.erlang(word, tls=tls, core=core) for word in WORDS[:size]]


async def pair(stage: Stage, loop: str, *, core: int | None = None) -> PythonAgent:
    """Two nodes of ours, the second with processes to speak to; the first."""
    (here, there), _ = await mesh(stage, loop, 2, core=core)
    await there.run(ours.serve)
    return here


async def bare_pair(
    stage: Stage,
    loop: str,
    serve: Callable[..., Coroutine[Any, Any, int]] = bare.serve_calls,
    *args: int,
    core: int | None = None,
) -> PythonAgent:
    """A client of a bare server, connected over TLS."""
    server, client = await stage.python(loop, core=core), await stage.python(loop, core=core)
    port = await server.run(serve, str(stage.certificate()), *args)
    await client.run(bare.connect, port)
    return client


def alone(metric: str, figure: float) -> Sample:
    """A sample of one metric."""
    return {metric: figure}
