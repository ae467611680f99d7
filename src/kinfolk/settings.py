"""Settings: an argument goes before the environment, the environment before ``kinfolk.toml`` in the current directory.

The file's keys are those of `_KEYS` below, in its top level. A cookie itself may stand in the environment, never in
the file that ends up in a repository: there, `cookie_file` names it.
"""

import os
import re
import secrets
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from kinfolk.cookie import Cookie, read_cookie_file, user_cookie
from kinfolk.ids import Address, Seed, check_word, node_address
from kinfolk.shell.tls import OwnCertificates

_KEYS = {"name", "listen", "cluster", "cookie_file", "join", "tls_certificate", "tls_key", "tls_authority"}
DEFAULT_CLUSTER = "kinfolk"


class Settings(Struct, frozen=True):
    """What a node needs to know before it binds its port."""

    name: str
    """As in the argument, made up if there was none; port 0 until the port is bound."""
    listen: Address
    cluster: str
    cookies: tuple[Cookie, ...]
    join: tuple[Seed, ...]
    tls: OwnCertificates | None
    """Certificates of an own authority, if they take the place of those derived from the cookie."""
    neighbours: bool
    """Whether nothing was said of whom to join, so that the nodes of this user on this machine find each other."""


def resolve(
    *,
    name: str | None = None,
    listen: str | None = None,
    cluster: str | None = None,
    cookie: str | Cookie | Sequence[str | Cookie] | None = None,
    cookie_file: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    tls: OwnCertificates | None = None,
    join: Sequence[str] | None = None,
    allow_weak_cookie: bool = False,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Settings:
    """Put arguments, environment and file together.

    Raises:
        ValueError: a setting is wrong, or a node that others could reach has no cookie or a guessable one.
        OSError: a file that a setting names cannot be read.
    """
    env = os.environ if environ is None else environ
    file = _read_file((directory or Path()) / "kinfolk.toml")

    def text(key: str, argument: str | None) -> str | None:
        value = argument or env.get(f"KINFOLK_{key.upper()}") or file.get(key)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"kinfolk.toml: {key} must be a string")
        return value

    full_name = _complete_name(text("name", name))
    where = node_address(full_name)
    listen_text = text("listen", listen)
    at = where if listen_text is None else _listen_address(listen_text, where.port)
    loopback = where.is_loopback and at.is_loopback
    seeds = _seeds(join, env, file)
    if cookie is not None and cookie_file is not None:
        raise ValueError("give cookie or cookie_file, not both")
    if cookie is None and cookie_file is None and not env.get("KINFOLK_COOKIE_FILE") and env.get("KINFOLK_COOKIE"):
        cookie = Cookie(env["KINFOLK_COOKIE"], "KINFOLK_COOKIE")  # the environment goes before the file's cookie_file
    if isinstance(cookie_file, str | os.PathLike):
        cookie_file = [cookie_file]
    named = text("cookie_file", None) if cookie_file is None else None
    files = cookie_file or _parts(named or "")
    cookies = _cookies(cookie, [Path(path) for path in files])
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
    return Settings(
        name=full_name,
        listen=at,
        cluster=check_word(text("cluster", cluster) or DEFAULT_CLUSTER, "the cluster's name"),
        cookies=cookies or (user_cookie(home(env)),),
        join=seeds or (),
        tls=tls or _own_certificates(text),
        neighbours=seeds is None and own,
    )


def home(environ: Mapping[str, str] | None = None) -> Path:
    """Where a user's loopback cookie is, and the list of its nodes on this machine: $KINFOLK_HOME or ~/.kinfolk."""
    env = os.environ if environ is None else environ
    return Path(env.get("KINFOLK_HOME") or Path.home() / ".kinfolk")


def _own_certificates(text: Callable[[str, str | None], str | None]) -> OwnCertificates | None:
    paths = {key: text(key, None) for key in ("tls_certificate", "tls_key", "tls_authority")}
    if not any(paths.values()):
        return None
    missing = [key for key, path in paths.items() if not path]
    if missing:
        raise ValueError(f"own certificates need all three of {', '.join(paths)}: {', '.join(missing)} is missing")
    return OwnCertificates(*(Path(path) for path in paths.values() if path))


def _read_file(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            content: dict[str, object] = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    if "cookie" in content:
        raise ValueError(f"{path} holds a cookie: put it into a file of mode 0600 and name that as cookie_file")
    unknown = sorted(set(content) - _KEYS)
    if unknown:
        raise ValueError(f"{path} has unknown keys {', '.join(unknown)}: known are {', '.join(sorted(_KEYS))}")
    return content


def _complete_name(name: str | None) -> str:
    """Names may lack their parts: none at all, or only the word before the '@'; the rest is on loopback."""
    if name is None:
        program = Path(sys.argv[0]).stem if sys.argv and sys.argv[0] not in ("", "-c", "-m") else "python"
        word = re.sub(r"[^A-Za-z0-9_.-]", "-", program)[:40] or "python"
        name = f"{word}-{secrets.token_hex(3)}"
    if "@" not in name:
        name = f"{check_word(name, 'the node name')}@127.0.0.1:0"
    return f"{name.partition('@')[0]}@{node_address(name)}"


def _listen_address(text: str, port: int) -> Address:
    """The port may be left out; it is then that of the name."""
    has_port = "]:" in text if text.startswith("[") else text.count(":") == 1
    return Address.parse(text if has_port else f"{text}:{port}")


def _seeds(join: Sequence[str] | None, env: Mapping[str, str], file: Mapping[str, object]) -> tuple[Seed, ...] | None:
    given: object = join
    if given is None:
        given = env.get("KINFOLK_JOIN", file.get("join"))
    if given is None:
        return None
    if isinstance(given, str):
        given = _parts(given)
    try:
        return tuple(Seed.parse(text) for text in msgspec.convert(given, list[str]))
    except msgspec.ValidationError:
        raise ValueError("join must be a list of nodes, as in ['ada@10.0.0.1:4370']") from None


def _parts(text: str) -> list[str]:
    """What stands between the commas of a setting that is a list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _cookies(cookie: str | Cookie | Sequence[str | Cookie] | None, files: Sequence[Path]) -> tuple[Cookie, ...]:
    """The first is used, the others are accepted as well."""
    if cookie is None:
        return tuple(read_cookie_file(path) for path in files)
    if isinstance(cookie, str | Cookie):
        cookie = [cookie]
    if not cookie:
        raise ValueError("cookie is an empty list: leave it out, or give at least one")
    return tuple(item if isinstance(item, Cookie) else Cookie(item) for item in cookie)
