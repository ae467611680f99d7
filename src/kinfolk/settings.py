"""Settings: an argument goes before the environment, the environment before ``kinfolk.toml`` in the current directory.

The file's keys are those of `_KEYS` below, in its top level. A cookie itself may stand in the environment, never in
the file that ends up in a repository: there, `cookie_file` names it. So it is with etcd's password
(KINFOLK_ETCD_PASSWORD, `etcd_password_file`).
"""

import os
import re
import secrets
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import cast

import msgspec
from msgspec import Struct

from kinfolk.cookie import Cookie, Hidden, read_cookie_file, user_cookie
from kinfolk.discovery.sources import ETCD, scheme_of
from kinfolk.ids import Address, Seed, check_word, node_address
from kinfolk.registries.etcd import SCHEME, Etcd
from kinfolk.seconds import check_seconds
from kinfolk.shell.tls import OwnCertificates

_KEYS = {
    "name", "listen", "cluster", "cookie_file", "join", "discover_every", "drain_timeout", "idle_after", "high_water",
    "max_outbox",
    "tls_certificate", "tls_key", "tls_authority",
    "registry", "etcd_user", "etcd_password_file", "etcd_authority", "etcd_certificate", "etcd_key",
}  # fmt: skip
DEFAULT_CLUSTER = "kinfolk"
MESH = "mesh"
DISCOVER_EVERY = 5.0
"""Seconds between two looks for the addresses of nodes, about."""
DRAIN_TIMEOUT = 25.0
"""Seconds; orchestrators kill a program 30 s after they have told it to end."""
IDLE_AFTER = 60.0
"""Seconds after which a session that nobody uses ends, where sessions open on demand."""
MAX_OUTBOX = 64 * 1024 * 1024
"""Bytes that may wait for a peer at all, unless something else is set."""

CookieArgument = str | Cookie | Sequence[str | Cookie] | None
FileArgument = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None


class Settings(Struct, frozen=True):
    """What a node needs to know before it binds its port."""

    name: str
    """As in the argument, made up if there was none; port 0 until the port is bound."""
    listen: Address
    cluster: str
    cookies: tuple[Cookie, ...]
    join: tuple[Seed, ...]
    discover: tuple[str | Etcd, ...]
    """Where to look for more to join: texts as in the argument, and the etcd in which nodes announce themselves."""
    discover_every: float
    """Seconds between two looks, about."""
    tls: OwnCertificates | None
    """Certificates of an own authority, if they take the place of those derived from the cookie."""
    neighbours: bool
    """Whether nothing was said of whom to join, so that the nodes of this user on this machine find each other."""
    registry: Etcd | None
    """The authority over names, if it is not the mesh."""
    drain_timeout: float
    """Seconds that the node may take to finish its work when it is to leave."""
    idle_after: float
    """Seconds without a word after which a session ends, where sessions open on demand; infinite: never."""
    high_water: int
    """Bytes that may wait for a peer before users' messages are refused."""
    max_outbox: int
    """Bytes that may wait for a peer at all."""


def resolve(
    *,
    name: str | None = None,
    listen: str | None = None,
    cluster: str | None = None,
    cookie: CookieArgument = None,
    cookie_file: FileArgument = None,
    tls: OwnCertificates | None = None,
    join: Sequence[str] | None = None,
    discover_every: float | None = None,
    registry: str | Etcd | None = None,
    drain_timeout: float | None = None,
    idle_after: float | None = None,
    allow_weak_cookie: bool = False,
    high_water: int | None = None,
    max_outbox: int | None = None,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = Path(),
) -> Settings:
    """Put arguments, environment and file together.

    Args:
        environ: default: that of this program.
        directory: where ``kinfolk.toml`` may be; None: no file is read. Default: the current one.
        All others are those of `Node`.

    Raises:
        ValueError: a setting is wrong, or a node that others could reach has no cookie or a guessable one.
        OSError: a file that a setting names cannot be read.
    """
    hidden = Hidden(cookie)
    del cookie
    given = _Given(environ, None if directory is None else directory / "kinfolk.toml")
    full_name = _complete_name(given.text("name", name))
    where = node_address(full_name)
    listen_text = given.text("listen", listen)
    at = where if listen_text is None else _listen_address(listen_text, where.port)
    loopback = where.is_loopback and at.is_loopback
    joined = given.joined(join)
    cookies = given.cookies(hidden, cookie_file)
    if not cookies and not loopback:
        raise ValueError(
            f"{full_name} can be reached by other machines, so it needs a cookie: make one with `kinfolk cookie new`"
            " and give it as cookie_file=... or in KINFOLK_COOKIE_FILE, the same on every node"
        )
    if not loopback and not allow_weak_cookie and any(cookie.weak for cookie in cookies):
        raise ValueError(
            "a free-text cookie can be guessed by whoever reaches the port: make one with `kinfolk cookie new`"
            " (or accept the risk with allow_weak_cookie=True)"
        )
    own = not cookies
    authority = given.registry(registry)
    discover = given.discover(joined or [])
    if authority is not None and any(isinstance(source, Etcd) for source in discover):
        raise ValueError("join names an etcd, and registry as well: leave it out of join, nodes find each other there")
    every = given.seconds("discover_every", discover_every, DISCOVER_EVERY)
    if not 0 < every < inf:
        raise ValueError(f"discover_every={every:g}: give a positive number of seconds, as in 5")
    idle = given.seconds("idle_after", idle_after, IDLE_AFTER)
    if not idle:
        raise ValueError("idle_after=0: give a positive number of seconds, as in 60, or inf to keep every session")
    most = given.number("max_outbox", max_outbox) or MAX_OUTBOX
    mark = given.number("high_water", high_water) or max(1, most // 2)
    if mark > most // 2:
        raise ValueError(
            f"high_water={mark} is too high for max_outbox={most}: give at most half of it, so that there is room for"
            " what must be said to a congested peer"
        )
    return Settings(
        name=full_name,
        listen=at,
        cluster=check_word(given.text("cluster", cluster) or DEFAULT_CLUSTER, "the cluster's name"),
        cookies=cookies or (user_cookie(home(environ)),),
        join=tuple(Seed.parse(text) for text in joined or [] if "://" not in text),
        discover=discover,
        discover_every=every,
        tls=tls or given.own_certificates(),
        neighbours=joined is None and own and authority is None,
        registry=authority,
        drain_timeout=given.seconds("drain_timeout", drain_timeout, DRAIN_TIMEOUT),
        idle_after=idle,
        high_water=mark,
        max_outbox=most,
    )


def home(environ: Mapping[str, str] | None = None) -> Path:
    """Where a user's loopback cookie is, and the list of its nodes on this machine: $KINFOLK_HOME or ~/.kinfolk.

    Raises:
        ValueError: the user has no home directory, as in some containers.
    """
    given = _environ(environ).get("KINFOLK_HOME")
    try:
        return Path(given) if given else Path.home() / ".kinfolk"
    except RuntimeError:
        raise ValueError(
            "this user has no home directory for a cookie and the list of nodes: set KINFOLK_HOME to a directory, or"
            " give cookie_file and join"
        ) from None


def _environ(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    """Never to be put into a variable: the environment may hold the cookie, and a traceback's variables are shown."""
    return os.environ if environ is None else environ


class _Given:
    """What the environment and the file say, each by the same name: the environment goes first."""

    def __init__(self, environ: Mapping[str, str] | None, path: Path | None) -> None:
        self._environ = environ
        self._file = {} if path is None else _read_file(path)

    def text(self, key: str, argument: str | None = None) -> str | None:
        value = argument or self._variable(key) or self._file.get(key)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"kinfolk.toml: {key} must be a string")
        return value

    def seconds(self, key: str, argument: float | None, default: float) -> float:
        if argument is not None:
            return check_seconds(argument, key)
        variable = self._variable(key)
        try:
            return check_seconds(float(variable) if variable else self._file.get(key, default), key)
        except (TypeError, ValueError):
            where = f"KINFOLK_{key.upper()}" if variable else f"kinfolk.toml: {key}"
            raise ValueError(f"{where} must be a number of seconds, 0 or more, as in 25") from None

    def number(self, key: str, argument: int | None) -> int | None:
        """A number of at least 1; None if there is none."""
        value: object = argument
        if value is None:
            value = self._variable(key) or self._file.get(key)
        if value is None:
            return None
        try:
            number = msgspec.convert(value, int, strict=False)
        except msgspec.ValidationError:
            number = 0
        if number < 1:
            raise ValueError(f"{key}={value!r}: give a number of bytes, at least 1")
        return number

    def joined(self, argument: Sequence[str] | None) -> list[str] | None:
        """Nodes, addresses and where to look for more, as texts."""
        given: object = argument
        if given is None:
            given = _environ(self._environ).get("KINFOLK_JOIN", self._file.get("join"))
        if given is None:
            return None
        if isinstance(given, str):
            given = _parts(given)
        try:
            return msgspec.convert(given, list[str])
        except msgspec.ValidationError:
            raise ValueError("join must be a list of nodes, as in ['ada@10.0.0.1:4370']") from None

    def discover(self, joined: Sequence[str]) -> tuple[str | Etcd, ...]:
        """Where to look for nodes. All etcds that are named are members of one."""
        texts = [text for text in joined if "://" in text]
        schemes = [scheme_of(text) for text in texts]
        members = [text.removeprefix(SCHEME) for text, scheme in zip(texts, schemes, strict=True) if scheme == ETCD]
        others = [text for text, scheme in zip(texts, schemes, strict=True) if scheme != ETCD]
        return (*others, self._etcd(",".join(member.rstrip("/") for member in members))) if members else (*others,)

    def cookies(self, argument: Hidden[CookieArgument], files: FileArgument) -> tuple[Cookie, ...]:
        """The first is used, the others are accepted as well. None if there is none."""
        if argument.reveal() is not None:
            if files is not None:
                raise ValueError("give cookie or cookie_file, not both")
            return _cookies(argument)
        if files is None and not self._variable("cookie_file") and self._variable("cookie"):
            return (Cookie(_environ(self._environ)["KINFOLK_COOKIE"], "KINFOLK_COOKIE"),)
        if files is None:
            files = self._cookie_files()
        elif isinstance(files, str | os.PathLike):
            files = [files]
        elif not files:
            raise ValueError("cookie_file is an empty list: leave it out, or name at least one")
        return _once(read_cookie_file(Path(path)) for path in files)

    def _cookie_files(self) -> list[str]:
        named: object = self._variable("cookie_file") or self._file.get("cookie_file", "")
        if isinstance(named, str):
            return _parts(named)
        try:
            return msgspec.convert(named, list[str])
        except msgspec.ValidationError:
            raise ValueError("kinfolk.toml: cookie_file must be a file, or a list of files") from None

    def registry(self, argument: str | Etcd | None) -> Etcd | None:
        """The authority over names; None, or "mesh", is the mesh."""
        if isinstance(argument, Etcd):
            return argument
        url = self.text("registry", argument)
        if url is None or url == MESH:
            return None
        if not url.startswith(SCHEME):
            raise ValueError(f"registry {url!r}: it is {MESH!r}, or etcd://host:2379 with more members after commas")
        return self._etcd(url.removeprefix(SCHEME).rstrip("/"))

    def _etcd(self, members: str) -> Etcd:
        """The etcd with these members, with commas between, and how to get in."""
        return Etcd(
            *members.split(","),
            authority=self.text("etcd_authority"),
            certificate=self.text("etcd_certificate"),
            key=self.text("etcd_key"),
            user=self.text("etcd_user"),
            password=self._variable("etcd_password") or None,
            password_file=None if self._variable("etcd_password") else self.text("etcd_password_file"),
        )

    def own_certificates(self) -> OwnCertificates | None:
        paths = {key: self.text(key) for key in ("tls_certificate", "tls_key", "tls_authority")}
        if not any(paths.values()):
            return None
        missing = [key for key, path in paths.items() if not path]
        if missing:
            raise ValueError(f"own certificates need all three of {', '.join(paths)}: {', '.join(missing)} is missing")
        return OwnCertificates(*(path for path in paths.values() if path))

    def _variable(self, key: str) -> str | None:
        return _environ(self._environ).get(f"KINFOLK_{key.upper()}")


def _read_file(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            content = Hidden[dict[str, object]](tomllib.load(file))
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    if "cookie" in content.reveal():
        raise ValueError(f"{path} holds a cookie: put it into a file of mode 0600 and name that as cookie_file")
    unknown = sorted(set(content.reveal()) - _KEYS)
    if unknown:
        raise ValueError(f"{path} has unknown keys {', '.join(unknown)}: known are {', '.join(sorted(_KEYS))}")
    return content.reveal()


def _complete_name(name: str | None) -> str:
    """Names may lack their parts: none at all, or only the word before the '@'; the rest is on loopback."""
    if name is None:
        word = re.sub(r"[^A-Za-z0-9_.-]", "-", _program())[:40] or "python"
        name = f"{word}-{secrets.token_hex(3)}"
    if "@" not in name:
        name = f"{check_word(name, 'the node name')}@127.0.0.1:0"
    return f"{name.partition('@')[0]}@{node_address(name)}"


def _program() -> str:
    """What runs here: a file, or the package of `python -m PACKAGE`."""
    if not sys.argv or sys.argv[0] in ("", "-c", "-m"):
        return "python"
    file = Path(sys.argv[0])
    return file.parent.name if file.name == "__main__.py" else file.stem


def _listen_address(text: str, port: int) -> Address:
    """The port may be left out; it is then that of the name."""
    has_port = "]:" in text if text.startswith("[") else text.count(":") == 1
    return Address.parse(text if has_port else f"{text}:{port}")


def _parts(text: str) -> list[str]:
    """What stands between the commas of a setting that is a list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _cookies(given: Hidden[CookieArgument]) -> tuple[Cookie, ...]:
    """Each is hidden before any is made: one that is wrong must not show the others."""
    if isinstance(given.reveal(), str | Cookie):
        items = [Hidden[object](given.reveal())]
    else:
        items = [Hidden[object](item) for item in cast("Sequence[object]", given.reveal())]
    if not items:
        raise ValueError("cookie is an empty list: leave it out, or give at least one")
    return _once(map(_cookie, items))


def _cookie(given: Hidden[object]) -> Cookie:
    if isinstance(given.reveal(), Cookie):
        return cast("Cookie", given.reveal())
    return Cookie(cast("str", given.reveal()))


def _once(cookies: Iterable[Cookie]) -> tuple[Cookie, ...]:
    """In their order; files of a rotation may hold the same."""
    return tuple(dict.fromkeys(cookies))
