"""What the commands that ask a node have in common: their options, and which node they ask."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import Parameter

from kinfolk import settings
from kinfolk.cli import exits
from kinfolk.errors import AuthenticationFailed, CallTimeout, NodeUnreachable
from kinfolk.ids import Seed, check_name
from kinfolk.observer import Observer
from kinfolk.shell import neighbours

T = TypeVar("T")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Asking:
    """Options of the commands that ask a node. (Their help is not in docstrings, whose line ends would be shown.)"""

    node: Annotated[
        str | None,
        Parameter(
            env_var="KINFOLK_NODE",
            help="The node to ask, by name or as host:port. Default: the first of KINFOLK_JOIN or of join in"
            " kinfolk.toml, else one of yours that runs on this machine.",
        ),
    ] = None
    cookie_file: Annotated[
        Path | None,
        Parameter(
            help="File of the cluster's cookie, of mode 0600. Default: KINFOLK_COOKIE_FILE, KINFOLK_COOKIE, cookie_file"
            " in kinfolk.toml, else your own cookie."
        ),
    ] = None
    cluster: Annotated[
        str | None,
        Parameter(help="Name of the cluster. Default: KINFOLK_CLUSTER, cluster in kinfolk.toml, else kinfolk."),
    ] = None
    timeout: Annotated[float, Parameter(help="Seconds to wait for the session, and then for each answer.")] = 5.0
    json: Annotated[bool, Parameter(help="Print JSON.", negative="", show_default=False)] = False

    @property
    def patience(self) -> float:
        """Seconds to wait for an answer that the node itself gives when `timeout` has passed: a little longer."""
        return self.timeout + 1.0


def whole_name(text: str) -> str:
    """A name as the user gives it.

    Raises:
        Usage: it cannot be one.
    """
    try:
        return check_name(text)
    except ValueError as error:
        raise exits.Usage(str(error)) from None


def ask(options: Asking, question: Callable[[Observer], Awaitable[T]]) -> T:
    """Open a session as an observer, ask, and return the answer.

    Raises:
        Usage: an option or setting is wrong.
        NodeUnreachable, AuthenticationFailed, CallTimeout, CallFailed: as `Observer`.
    """
    if not 0 < options.timeout < float("inf"):
        raise exits.Usage(f"--timeout {options.timeout:g}: it must be a positive number of seconds")
    try:
        known = settings.resolve(cluster=options.cluster, cookie_file=options.cookie_file)
        seed = Seed.parse(options.node) if options.node else next(iter(known.join), None)
    except (ValueError, OSError) as error:
        raise exits.Usage(exits.line_of(error)) from None
    return asyncio.run(_ask(known, seed, options.timeout, question))


async def _ask(
    known: settings.Settings, seed: Seed | None, timeout: float, question: Callable[[Observer], Awaitable[T]]
) -> T:
    try:
        if seed is None:
            node = await _neighbour(known, timeout)
        else:
            node = await Observer(
                str(seed), cookies=known.cookies, cluster=known.cluster, tls=known.tls, timeout=timeout
            ).open()
    except AuthenticationFailed as error:
        if error.reason != "cookie":
            raise
        used = f"{error} (this command used the one from {known.cookies[0].origin}; --cookie-file names another)"
        raise AuthenticationFailed(used, error.reason) from None
    async with node:
        return await question(node)


async def _neighbour(known: settings.Settings, timeout: float) -> Observer:
    """A session with the first node of this machine that lets us in."""
    home = settings.home()
    refusal: Exception | None = None
    for name in neighbours.neighbours(home, known.cluster):
        node = Observer(name, cookies=known.cookies, cluster=known.cluster, tls=known.tls, timeout=timeout)
        try:
            return await node.open()
        except NodeUnreachable:
            neighbours.forget(home, known.cluster, name)
        except (AuthenticationFailed, CallTimeout) as error:
            refusal = refusal or error
    raise refusal or NodeUnreachable(
        f"no node of yours has said that it runs on this machine in the cluster {known.cluster} (one with join, a"
        " registry or another cookie does not): start one, or say which to ask with --node or KINFOLK_NODE"
    )
