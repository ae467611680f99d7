"""Sources of addresses: DNS, and what other packages bring by the entry point group ``kinfolk.discovery``.

A source of another package is an entry point, named after its scheme, of a factory: it is given the text of the join,
``scheme://...``, and gives an object with ``async def addresses()``, as `Source` says.
"""

import importlib
import inspect
from collections.abc import Awaitable, Callable, Iterable
from collections.abc import Set as AbstractSet
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, cast

from kinfolk.ids import Address, Seed

GROUP = "kinfolk.discovery"
DNS, SRV, ETCD = "dns", "dns+srv", "etcd"
BUILT_IN = (DNS, SRV, ETCD)

Resolve = Callable[[str, int], Awaitable[AbstractSet[Address]]]
"""Gives all addresses of a host, each with the port. Raises OSError if it has none, or nobody answers."""


class Source(Protocol):
    """Where addresses come from. If it has ``async def close()`` as well, that is called when the node closes."""

    async def addresses(self) -> AbstractSet[Address | str]:
        """All that are to be dialled, anew in each call: ``host:port`` or, better, ``name@host:port``.

        The node's own may be among them. What is raised is logged, and the last set stays; so does what takes longer
        than the node waits.
        """
        ...


class Dns:
    """All addresses of a host, A and AAAA, as the system resolves it: ``dns://host:port``."""

    def __init__(self, text: str, resolve: Resolve) -> None:
        self._address = dns_address(text)
        self._resolve = resolve

    async def addresses(self) -> AbstractSet[Address | str]:
        """Ask for them."""
        return set(await self._resolve(self._address.host, self._address.port))


class Srv:
    """The targets of the SRV records of a name, asked for with dnspython: ``dns+srv://_kinfolk._tcp.example``.

    Args:
        text: as in the join.
        resolver: a `dns.asyncresolver.Resolver`; default: one with the settings of the system.

    Raises:
        ImportError: dnspython is not installed.
    """

    def __init__(self, text: str, resolver: Any = None) -> None:
        self._name = srv_name(text)
        self._resolver = resolver or _dnspython("dns.asyncresolver").Resolver()
        self._exception: type[Exception] = _dnspython("dns.exception").DNSException

    async def addresses(self) -> AbstractSet[Address | str]:
        """Ask for them. Targets are dialled by their names, which are those in the names of nodes, most likely."""
        try:
            answer = await self._resolver.resolve(self._name, "SRV")
        except self._exception as error:
            raise OSError(f"no SRV records: {error}") from None
        return {str(Address(record.target.to_text(omit_final_dot=True), record.port)) for record in answer}


def dns_address(text: str) -> Address:
    """The host and port in ``dns://host:port``. Raises ValueError."""
    address = Address.parse(text.partition("://")[2])
    if not address.port:
        raise ValueError(f"join {text!r}: port 0 is no port; name the port that the nodes listen on")
    return address


def srv_name(text: str) -> str:
    """The name in ``dns+srv://name``. Raises ValueError."""
    name = text.partition("://")[2]
    if not name.startswith("_") or set(name) & set(":/ "):
        raise ValueError(f"join {text!r}: give the name of SRV records, as in dns+srv://_kinfolk._tcp.example.org")
    return name


def scheme_of(text: str) -> str:
    """What stands before ``://``, if that is a scheme that there is.

    Raises:
        ValueError: it is not; says which there are.
    """
    scheme = text.partition("://")[0]
    if scheme == DNS:
        dns_address(text)
    elif scheme == SRV:
        srv_name(text)
    elif scheme != ETCD and not _plugins(scheme):
        known = sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})
        raise ValueError(
            f"join {text!r}: nothing here finds nodes by {scheme}://; known are {', '.join(known)}. Correct it, or"
            f" install the package that brings the entry point {scheme!r} of {GROUP}"
        )
    return scheme


def open_source(text: str, resolve: Resolve) -> Source:
    """The source that a text stands for, but for etcd's.

    Raises:
        ValueError: see `scheme_of`.
        ImportError: what it needs is not installed.
        Exception: what the factory of another package raises.
    """
    scheme = scheme_of(text)
    if scheme == DNS:
        return Dns(text, resolve)
    if scheme == SRV:
        return Srv(text)
    source: object = _plugins(scheme)[0].load()(text)
    if not inspect.iscoroutinefunction(getattr(source, "addresses", None)):
        raise TypeError(f"the entry point {scheme!r} of {GROUP} gave {source!r}, which has no async def addresses()")
    return cast("Source", source)


def seeds_of(addresses: Iterable[Address | str]) -> set[Seed]:
    """Addresses as a source yields them, each with the name of the node there if that is known. Raises ValueError."""
    return {Seed.parse(str(address)) for address in addresses}


def _plugins(scheme: str) -> list[EntryPoint]:
    return list(entry_points(group=GROUP, name=scheme))


def _dnspython(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        text = "SRV records need the package dnspython: install kinfolk with pip install 'kinfolk[dns]'"
        raise ImportError(f"{text} ({error})") from error
