"""Identity: node names, addresses, creations and pids.

A node is named ``name@host:port``; the host and port are where others dial it. Each start of a node has a new
*creation*, a 64-bit number that grows from start to start: a pid of an older creation is dead for good.
Everything here is a plain value. Nothing reads a clock or opens a socket.
"""

import ipaddress
import re
from functools import lru_cache
from html import escape
from typing import NamedTuple

import msgspec

_WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{0,32}")
_HOST = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?"
)

MAX_NAME_BYTES = 255
MAX_CREATION = MAX_LOCAL = 2**63 - 1


class Address(NamedTuple):
    """Where a node listens. ``str()`` gives ``host:port``, with brackets around an IPv6 host."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach the address."""
        if not (":" in self.host or _is_number(self.host)):
            return self.host == "localhost"  # a name; that it is no IP address is found out slowly below
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read ``host:port`` or ``[ipv6]:port``; port 0 means "any free port".

        Raises:
            ValueError: saying which part is wrong and what it should look like.
        """
        host, colon, port = text.rpartition(":")
        if not colon or not host:
            raise ValueError(f"address {text!r} needs a host and a port, as in 10.0.0.1:4370 or [::1]:4370")
        if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
            raise ValueError(f"port {port!r} in {text!r} must be a number from 0 to 65535")
        return cls(_parse_host(host, text), int(port))


class Seed(NamedTuple):
    """Somebody to dial: an address, and the node name expected there (empty when only the address is known)."""

    address: Address
    expects: str

    def __str__(self) -> str:
        return self.expects or str(self.address)

    @classmethod
    def parse(cls, text: str) -> "Seed":
        """Read a node name ``name@host:port`` or a bare address ``host:port``.

        Raises:
            ValueError: saying which part is wrong and what it should look like.
        """
        if "@" not in text:
            address, expects = Address.parse(text), ""
        else:
            address = node_address(text)
            expects = f"{text.partition('@')[0]}@{address}"
        if address.port == 0:
            raise ValueError(f"cannot dial {text!r}: port 0 is no port; name the port the node listens on")
        return cls(address, expects)


class Pid(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False, cache_hash=True):
    """The address of a process: its node, that node's creation, and a number that the node never gives twice.

    Immutable, hashable, ordered. ``str(pid)`` is its one text form, ``Pid.parse`` reads it back.
    A pid is local to a node when ``pid.node == node.name``.
    """

    node: str
    creation: int
    local: int

    def __str__(self) -> str:
        return f"{self.node}/{self.creation:x}/{self.local}"

    def __repr__(self) -> str:
        return f"<pid {self}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f"<code>{escape(str(self))}</code>"

    @classmethod
    def parse(cls, text: str) -> "Pid":
        """Read ``name@host:port/creation/local`` (creation in hex, local in decimal).

        Raises:
            ValueError: the text is not a pid.
        """
        node, _, rest = text.partition("/")
        creation, _, local = rest.partition("/")
        if not re.fullmatch(r"[0-9a-f]{1,16}", creation) or not re.fullmatch(r"[0-9]{1,19}", local):
            raise ValueError(f"{text!r} is no pid: expected name@host:port/creation/number, as str(pid) prints it")
        pid = cls(check_node_name(node), int(creation, 16), int(local))
        if str(pid) != text or pid.creation > MAX_CREATION or pid.local > MAX_LOCAL:
            raise ValueError(f"{text!r} is no pid: its numbers are 0 to 2^63 - 1 without leading zeros")
        return pid


@lru_cache(4096)
def node_address(name: str) -> Address:
    """The address in a node name. The same few names come again and again, in each session with each peer.

    Raises:
        ValueError: the name is not ``name@host:port``; the message says which part is wrong.
    """
    word, at, address = name.partition("@")
    if not at:
        raise ValueError(f"node name {name!r} has no '@': expected name@host:port, as in ada@10.0.0.1:4370")
    check_word(word, "the part before '@'", name)
    return Address.parse(address)


@lru_cache(4096)
def check_node_name(name: str) -> str:
    """Return the name if it is a valid, dialable node name (its port is not 0); raise ValueError if not.

    Names are compared as text, so an address that can be written in several ways must be written in the one of `str()`.
    """
    address = node_address(name)
    if address.port == 0:
        raise ValueError(f"node name {name!r} has port 0: it becomes a real port when the node starts")
    if not name.endswith(f"@{address}"):
        raise ValueError(f"node name {name!r} must be written {name.partition('@')[0]}@{address}")
    return str.__str__(name)  # a plain one is kept for all that are equal


def check_word(word: str, what: str, within: str = "") -> str:
    """Return a short name if it is 1 to 64 letters, digits, '_', '.' or '-'; raise ValueError if not."""
    if not _WORD.fullmatch(word):
        place = f" in {within!r}" if within else ""
        raise ValueError(f"{what} is {word!r}{place}: it must be 1 to 64 letters, digits, '_', '.' or '-'")
    return word


def check_name(name: str) -> str:
    """Return the name of a process if it is valid: a str of 1 to 255 bytes in UTF-8. One of a subclass as a plain str.

    Raises:
        TypeError: not a str.
        ValueError: empty, too long, or not encodable.
    """
    if not isinstance(name, str):
        raise TypeError(f"a name must be a str, not {type(name).__name__}")
    if type(name) is not str:
        name = str.__str__(name)  # as of a StrEnum: the wire carries no subclasses
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"name {name!r} is not valid Unicode: it holds a lone surrogate") from None
    if not size:
        raise ValueError("a name must not be empty")
    if size > MAX_NAME_BYTES:
        raise ValueError(f"name {name[:20]!r}... is {size} bytes of UTF-8: at most {MAX_NAME_BYTES} are allowed")
    return name


def check_pid(pid: object) -> Pid:
    """Return the pid if it is one; raise TypeError if not."""
    if not isinstance(pid, Pid):
        raise TypeError(f"expected a Pid, as spawn() returns it, not {type(pid).__name__}")
    return pid


def _parse_host(host: str, text: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            ipv6 = ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            raise ValueError(f"{host} in {text!r} is no IPv6 address") from None
        if not _ZONE.fullmatch(ipv6.scope_id or ""):  # ipaddress takes any text there, line breaks included
            raise ValueError(f"zone {ipv6.scope_id!r} in {text!r} must be the name of a network interface")
        return ipv6.compressed
    if ":" in host:
        raise ValueError(f"host {host!r} in {text!r} looks like IPv6: put it in brackets, as in [::1]:4370")
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise ValueError(f"host {host!r} in {text!r} is neither a host name nor an IP address")
    if _is_number(host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(
                f"host {host!r} in {text!r} is no IPv4 address: expected four numbers from 0 to 255"
            ) from None
    return host


def _is_number(host: str) -> bool:
    """Whether an IPv4 address is meant: no domain is a number."""
    return host.rstrip(".").rpartition(".")[2].isdigit()
