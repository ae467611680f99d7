"""`kinfolk doctor`: what could keep a node from joining its cluster, and what to do about it."""

import asyncio
import errno
import platform
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

from kinfolk import settings
from kinfolk.cli import exits, output
from kinfolk.discovery.finder import close_source, open_sources
from kinfolk.discovery.sources import seeds_of
from kinfolk.errors import KinfolkError
from kinfolk.ids import Address, Seed, node_address
from kinfolk.observer import Observer
from kinfolk.registries.etcd import Etcd
from kinfolk.shell import neighbours
from kinfolk.shell.machine import RealMachine

_SKEW = 1.0
"""Seconds by which clocks may differ. Nothing breaks beyond: but then the earlier of two claims may lose a conflict."""

State = Literal["ok", "warning", "wrong"]


class Finding(NamedTuple):
    """What was looked at, how it is, and what to do if that is not well."""

    state: State
    what: str
    says: str
    remedy: str = ""


def doctor(
    *,
    name: str | None = None,
    listen: str | None = None,
    join: str | None = None,
    cluster: str | None = None,
    cookie_file: Annotated[list[Path] | None, Parameter(negative="")] = None,
    timeout: float = 5.0,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Check what a node here would need: settings, cookie, address, port, and whom it would join. Starts nothing.

    Run it where the node is to run, with the same options, environment and kinfolk.toml. Exit code 1 if something is
    wrong.

    Parameters
    ----------
    name
        name@host:port, as for `kinfolk run`.
    listen
        The address to bind, if it is not the one in the name.
    join
        Nodes to join, and where to look for them, with commas between, as for `kinfolk run`.
    cluster
        Name of the cluster.
    cookie_file
        File of the cluster's cookie.
    timeout
        Seconds that each node has to answer.
    json
        Print JSON.
    """
    if not 0 < timeout < float("inf"):
        raise exits.Usage(f"--timeout {timeout:g}: it must be a positive number of seconds")
    seeds = None if join is None else [seed.strip() for seed in join.split(",") if seed.strip()]
    findings = list(_software())
    try:
        known = settings.resolve(name=name, listen=listen, join=seeds, cluster=cluster, cookie_file=cookie_file)
    except (ValueError, OSError) as error:
        findings.append(Finding("wrong", "settings", exits.line_of(error), "correct this, then run doctor again"))
    else:
        findings += [*_cookies(known), *_own_address(known), *asyncio.run(_others(known, timeout))]
    if json:
        output.show_json([finding._asdict() for finding in findings])
    else:
        output.show(["", "WHAT", "IS", "WHAT TO DO"], findings, "", prose=True)
    return exits.NO if any(finding.state == "wrong" for finding in findings) else exits.YES


def _software() -> Iterator[Finding]:
    yield Finding("ok", "software", f"kinfolk {version('kinfolk')}, Python {platform.python_version()}")


def _cookies(known: settings.Settings) -> Iterator[Finding]:
    for cookie in known.cookies:
        if cookie.weak:
            yield Finding(
                "warning",
                f"cookie from {cookie.origin}",
                "free text, which can be guessed",
                "make one with `kinfolk cookie new --file cookie` and give it to every node",
            )
        else:
            yield Finding("ok", f"cookie from {cookie.origin}", "256 random bits, its checksum is right")


def _own_address(known: settings.Settings) -> Iterator[Finding]:
    name = node_address(known.name)
    yield _resolved(name, f"own name {known.name}", "give --name an address where other machines reach this one")
    if name.is_loopback:
        yield Finding("ok", "reach", "loopback: only programs on this machine can join")
    if known.listen.port == 0:
        yield Finding("ok", "port", "any that is free")
        return
    try:
        with closing(RealMachine().bind(known.listen)):
            yield Finding("ok", f"port {known.listen}", "free")
    except OSError as error:
        says, _, _ = (error.strerror or "").partition(";")
        if error.errno == errno.EADDRINUSE:
            remedy = "fine if the node runs already; else end what runs there (`ss -ltnp`), or take another port"
            yield Finding("warning", f"port {known.listen}", says, remedy)
        else:
            remedy = "give --name or --listen an address of this machine, and a port that this user may take"
            yield Finding("wrong", f"port {known.listen}", says, remedy)


def _resolved(address: Address, what: str, remedy: str) -> Finding:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return Finding("wrong", what, f"{address.host} has no address: {error.strerror}", remedy)
    hosts = sorted({str(entry[4][0]) for entry in found})
    return Finding("ok", what, f"{address.host} is {', '.join(hosts)}")


async def _others(known: settings.Settings, timeout: float) -> list[Finding]:
    seeds = list(known.join)
    if known.neighbours:
        seeds = [Seed.parse(name) for name in neighbours.neighbours(settings.home(), known.cluster)]
    lookups, found = await _lookups(known, timeout)
    seeds += sorted(found - set(seeds))
    if not seeds and not lookups:
        remedy = "nothing, for the first node of a cluster; else give --join, KINFOLK_JOIN or join in kinfolk.toml"
        return [Finding("ok", "nodes to join", "none", remedy)]
    asked = await asyncio.gather(*(_seed(known, seed, timeout) for seed in seeds))
    seen: dict[str, Finding] = {finding.what: finding for findings in (lookups, *asked) for finding in findings}
    return list(seen.values())


async def _lookups(known: settings.Settings, timeout: float) -> tuple[list[Finding], set[Seed]]:
    """What each place to look yields, and all of that together."""
    findings: list[Finding] = []
    yielded: set[Seed] = set()
    for where in known.discover:
        what = f"lookup {where}"
        try:
            async with asyncio.timeout(timeout):
                seeds = await _look(known, where)
        except Exception as error:  # noqa: BLE001 - whatever another package's source raises
            silent = isinstance(error, TimeoutError)
            says = f"no answer within {timeout:g} s" if silent else exits.line_of(error)
            remedy = "correct --join, or the DNS or service that it asks; a node would go on asking"
            findings.append(Finding("wrong", what, says, remedy))
            continue
        yielded |= seeds
        if seeds:
            findings.append(Finding("ok", what, f"yields {', '.join(str(seed) for seed in sorted(seeds))}"))
        else:
            remedy = "fine for the first node of a cluster; else see whether the others are listed there"
            findings.append(Finding("warning", what, "yields nobody", remedy))
    return findings, yielded


async def _look(known: settings.Settings, where: str | Etcd) -> set[Seed]:
    """What one place yields, without announcing anybody there."""
    opened = open_sources([where], RealMachine().resolve, known.cluster, "", known.discover_every)
    source = opened[str(where)]
    try:
        return seeds_of(await source.addresses())
    finally:
        await close_source(source)


async def _seed(known: settings.Settings, seed: Seed, timeout: float) -> list[Finding]:
    resolved = await asyncio.to_thread(
        _resolved, seed.address, f"address {seed.address}", "correct the name, or the DNS of this machine"
    )
    if resolved.state != "ok":
        return [resolved]
    observer = Observer(str(seed), cookies=known.cookies, cluster=known.cluster, tls=known.tls, timeout=timeout)
    try:
        async with observer as node:
            return [resolved, *[finding async for finding in _nodes(node)]]
    except KinfolkError as error:
        remedy = "start that node, open the port in the firewall between, or correct --join"
        if exits.code_of(error) == exits.UNREACHABLE and getattr(error, "reason", "") == "cookie":
            remedy = "give both the same cookie file; the log of that node says more"
        return [resolved, Finding("wrong", f"node {seed}", exits.line_of(error), remedy)]


async def _nodes(node: Observer) -> AsyncIterator[Finding]:
    """The node that was asked, and its peers as it reaches them."""
    before = time.time()
    told: dict[str, Any] = await node.call(["info"])
    yield _node(told, before, time.time())
    for peer in told["peers"]:
        before = time.time()
        try:
            yield _node(await node.act(["at", peer, ["info"]]), before, time.time())
        except KinfolkError as error:
            yield Finding("warning", f"node {peer}", exits.line_of(error), f"ask it itself: kinfolk info --node {peer}")


def _node(told: dict[str, Any], before: float, after: float) -> Finding:
    """How a node's version and clock go with ours. It read its clock at some time between these two of ours."""
    what, clock = f"node {told['name']}", told["clock"]
    skew = max(before - clock, clock - after, 0.0)
    own = version("kinfolk")
    if told["version"] != own:
        says = f"has kinfolk {told['version']}, here is {own}"
        return Finding("warning", what, says, "fine during an upgrade; else install the same everywhere")
    if skew > _SKEW:
        says = f"its clock is {skew:.1f} s {'ahead of' if clock > after else 'behind'} the one here"
        return Finding("warning", what, says, "let NTP or chrony set both clocks: they decide who wins a conflict")
    return Finding("ok", what, f"reached; kinfolk {told['version']}, {len(told['peers'])} peers")
