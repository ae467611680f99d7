"""`kinfolk run`: a node as a program of its own."""

import asyncio
import importlib
import inspect
import logging
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from kinfolk.cli import exits, logs, systemd
from kinfolk.errors import NodeClosed
from kinfolk.logs import fields
from kinfolk.node import Node
from kinfolk.node import run as run_loop

_log = logging.getLogger("kinfolk")

Main = Callable[[Node], Awaitable[object]]

_JOIN = (
    "Nodes to join, by name or as host:port, or where to look for them, as in dns://name:port, dns+srv://_kinfolk._tcp.name"
    " or etcd://host:2379; with commas between; the rest of the cluster is found by itself."
    " Default: KINFOLK_JOIN, join in kinfolk.toml, else your nodes on this machine."
)
_ALLOW_SPAWN = (
    "What other nodes may start here: MODULE:FUNC, or PACKAGE.* for what is defined in it; may be given several times."
    " Default: nothing."
)
_DRAIN_TIMEOUT = (
    "Seconds to finish work in when it is told to end. Default: KINFOLK_DRAIN_TIMEOUT, drain_timeout in kinfolk.toml,"
    " else 25."
)
_METRICS = (
    "Serve /metrics, /healthz and /readyz there, as in 127.0.0.1:9464. Beyond loopback, whoever asks must show the"
    " token in KINFOLK_METRICS_TOKEN."
)
_DASHBOARD = (
    "Serve the dashboard there, as in 127.0.0.1:4380. Beyond loopback, and to act, whoever looks must show the token in"
    " KINFOLK_DASHBOARD_TOKEN."
)


def run(
    function: Annotated[str, Parameter(name="MODULE:FUNC")],
    /,
    *,
    name: str | None = None,
    join: Annotated[str | None, Parameter(help=_JOIN)] = None,
    listen: str | None = None,
    cluster: str | None = None,
    registry: str | None = None,
    cookie_file: Annotated[list[Path] | None, Parameter(negative="")] = None,
    allow_spawn: Annotated[list[str] | None, Parameter(help=_ALLOW_SPAWN, negative="")] = None,
    drain_timeout: Annotated[float | None, Parameter(help=_DRAIN_TIMEOUT)] = None,
    allow_shell: Annotated[bool, Parameter(negative="")] = False,
    metrics: Annotated[str | None, Parameter(help=_METRICS)] = None,
    dashboard: Annotated[str | None, Parameter(help=_DASHBOARD)] = None,
    log_level: Literal["debug", "info", "warning", "error"] = "info",
    log_format: Literal["text", "json"] = "text",
) -> int:
    """Run a node: start it, join, await FUNC(node), and serve until SIGTERM or SIGINT. SIGHUP reads its keys again.

    The signal cancels FUNC; then the node finishes its work and leaves. That ends with 0, or with 128 and the number of
    the signal (143) if the time was up before. A second signal ends the program at once.

    Parameters
    ----------
    function
        An async function that takes the node. The current directory is importable.
    name
        name@host:port, where other nodes dial it; only the word before the @ for a free port on loopback.
    listen
        The address to bind, if it is not the one in the name.
    cluster
        Name of the cluster.
    registry
        Who decides about names: mesh, or etcd://host:2379 with more members after commas.
    cookie_file
        File of the cluster's cookie, of mode 0600. Of several, the first is used and the others are accepted.
    allow_shell
        Let `kinfolk shell` run Python inside this node. Whoever has the cookie can then do what the program can.
    log_level
        What is logged to stderr.
    log_format
        How: lines to read, or one JSON object a line.
    """
    logs.to_stderr(log_level, log_format)
    main = _load(function)
    seeds = None if join is None else [seed.strip() for seed in join.split(",") if seed.strip()]
    try:
        node = Node(
            name,
            join=seeds,
            listen=listen,
            cluster=cluster,
            registry=registry,
            cookie_file=cookie_file,
            allow_spawn=allow_spawn or (),
            drain_timeout=drain_timeout,
            allow_shell=allow_shell,
        )
        _ = node.name  # binds the port and loads the certificates: what is wrong with them is a mistake in the command
    except (ValueError, OSError, ImportError) as error:  # an extra is missing, as for etcd
        raise exits.Usage(exits.line_of(error)) from None
    pages = {part: address for part, address in (("metrics", metrics), ("dashboard", dashboard)) if address is not None}
    return run_loop(lambda: _serve_with_pages(node, main, pages))


def _load(function: str) -> Main:
    """The function that ``module:function`` names.

    Raises:
        Usage: there is none, or it is no async function.
        Exception: what the module raises when it is imported.
    """
    module_name, colon, path = function.partition(":")
    if not (colon and module_name and path):
        raise exits.Usage(f"{function!r} names no function: give MODULE:FUNC, as in shop.main:serve")
    sys.path.insert(0, str(Path.cwd()))
    found: object = _import(module_name)
    sys.argv[0] = str(getattr(found, "__file__", None) or module_name)  # nodes without a name are called after it
    for part in path.split("."):
        if not hasattr(found, part):
            raise exits.Usage(f"{module_name} has no {path!r}")
        found = getattr(found, part)
    if not inspect.iscoroutinefunction(found):
        raise exits.Usage(f"{function} must be an async function that takes the node: async def f(node)")
    return found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        raise exits.Usage(f"no module named {name!r} in {Path.cwd()} or among what is installed") from None


async def _serve_with_pages(node: Node, main: Main, pages: Mapping[str, str]) -> int:
    """The pages are there before the node has started, and until it has left: they say that it is not ready.

    Args:
        pages: the part of kinfolk that serves each, and where.
    """
    async with systemd.watched(node.name), AsyncExitStack() as served:
        served.push_async_callback(node.close)  # its port is bound already
        for part, address in pages.items():
            try:
                serve = importlib.import_module(f"kinfolk.{part}").serve
            except ModuleNotFoundError as error:
                raise exits.Usage(f"--{part} needs {error.name}: pip install 'kinfolk[{part}]'") from None
            token = os.environ.get(f"KINFOLK_{part.upper()}_TOKEN")
            try:
                await served.enter_async_context(serve(node, address, token=token))
            except (ValueError, OSError) as error:
                raise exits.Usage(exits.line_of(error)) from None
        return await _serve(node, main)


async def _serve(node: Node, main: Main) -> int:
    """Run the node until `main` raises, a signal comes, or somebody else lets the node leave."""
    stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    _listen(node, stopped)
    work = asyncio.create_task(_work(node, main))
    closed = asyncio.create_task(node.wait_closed())
    try:
        await _first(work, stopped, closed)
        if closed.done() and node.draining is None and not node.has_failed:
            await _first(work, stopped)  # it has closed the node itself, and goes on
        if work.done() and (work.exception() is not None or work.result() != exits.YES):
            return work.result()
        await _first(closed, stopped)
        if node.has_failed:
            return exits.NO
        return await _leave(node, work, stopped.result() if stopped.done() else signal.SIGTERM)
    finally:
        closed.cancel()
        await node.close()


async def _first(*awaited: "asyncio.Future[Any]") -> None:
    await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)


async def _work(node: Node, main: Main) -> int:
    try:
        await node.start()
    except (ValueError, ImportError) as error:
        if isinstance(error, ImportError) and error.name is not None:
            raise  # of a module that others may start; without a name it is an extra that is missing
        raise exits.Usage(exits.line_of(error)) from None
    systemd.tell(node.name, "READY=1", f"STATUS={node.name} is up, with {len(node.peers())} peers")
    try:
        await main(node)
    except Exception:  # noqa: BLE001 - whatever it is, the user sees where it was raised
        traceback.print_exc()
        return exits.NO
    return exits.YES


def _listen(node: Node, stopped: "asyncio.Future[int]") -> None:
    """Take the first signal that ends the program; a second one then ends it at once. Read the keys again on SIGHUP."""
    loop = asyncio.get_running_loop()
    on_terminal = sys.stderr.isatty()

    def stop(number: int) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        if not stopped.done():
            stopped.set_result(number)

    def hang_up() -> None:
        if on_terminal and not sys.stderr.isatty():
            stop(signal.SIGHUP)  # the terminal has gone, as when its window is closed: that ends a program
        else:
            _rekey(node)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGHUP, hang_up)


async def _leave(node: Node, work: "asyncio.Task[int]", number: int) -> int:
    """End what `main` still does, and then leave, all within the time of the node."""
    systemd.tell(node.name, "STOPPING=1", f"STATUS={node.name} leaves")
    loop = asyncio.get_running_loop()
    until = loop.time() + node.drain_timeout
    work.cancel()
    await asyncio.wait([work], timeout=node.drain_timeout)
    left = await node.drain(max(0.0, until - loop.time()))
    if not (left and work.done()):
        exits.at_once(128 + number)  # or it would wait for what has not ended in all this time
    return exits.YES if work.cancelled() else work.result()


def _rekey(node: Node) -> None:
    try:
        node.rekey()
    except (ValueError, OSError) as error:
        text = exits.line_of(error)
        _log.error(
            "%s keeps its keys, since others cannot be read: %s",
            node.name,
            text,
            extra=fields(node.name, reason=text),
        )
    except NodeClosed:
        pass  # it is on its way out
