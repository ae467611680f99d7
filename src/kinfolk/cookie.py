"""Cookies: the secret that the nodes of a cluster share, and every key that is made of it.

A generated cookie is 256 random bits and a checksum, so that a mistyped one is noticed. Any other text is a cookie too,
but a *weak* one: it is stretched, which makes guessing slow, not impossible.

    secret = the 32 random bytes                                  of a generated cookie
             scrypt(text, "kinfolk/1 cookie", n=2^15, r=8, p=3)   of any other
    key    = HKDF-SHA256(secret, salt="kinfolk/1 cookie", info=label)

Each use has its own label, so no key tells anything about another. Nothing here shows a secret in a repr or an error,
nor to a tool that shows the variables of a traceback: whatever may be on the stack when something raises is `Hidden`.
Only the functions at the end touch files; only `new_cookie` uses randomness.
"""

import base64
import hashlib
import hmac
import os
import re
import secrets
import shlex
import stat
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, NoReturn, TypeVar, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_PREFIX = "kfc1_"
_LOOKS_GENERATED = re.compile(r"kfc[0-9]*_", re.IGNORECASE)
_LOOKS_LATER = re.compile(r"kfc(?!1_)[0-9]+_", re.IGNORECASE)
_ENCODED = re.compile(r"[A-Za-z0-9_-]{48}")  # 32 random bytes and 4 of checksum, without padding
_SECRET_BYTES = 32
_SALT = b"kinfolk/1 cookie"
_MAX_FILE = 4096

T = TypeVar("T")


class Hidden(Generic[T]):
    """A secret that can be passed on, compared and hashed, but neither printed, copied nor pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "<hidden>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hidden) and bool(self._value == cast("Hidden[object]", other)._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is neither copied nor pickled")

    def reveal(self) -> T:
        """The secret. Use it within an expression: a variable would be shown with the others of its frame."""
        return self._value


@dataclass(frozen=True, slots=True)
class ProofKeys:
    """The keys by which both ends of a handshake prove that they know a cookie: one a role, against reflection."""

    dialler: Hidden[bytes] = field(repr=False)
    listener: Hidden[bytes] = field(repr=False)


class Cookie:
    """One cookie. It can be compared and hashed; it cannot be printed, copied or pickled.

    Args:
        text: as `kinfolk cookie new` printed it, or any other single line; white space around it is ignored.
        origin: where it came from, in words, for messages to the user.

    Raises:
        ValueError: empty, several lines, or a mistyped generated cookie. The message does not repeat it.
    """

    __slots__ = ("_given", "_secret", "origin", "weak")

    origin: str
    weak: bool
    """Whether it is free text that somebody may guess."""

    def __init__(self, text: str, origin: str = "an argument") -> None:
        line = Hidden(text)
        del text
        if not isinstance(line.reveal(), str):
            raise TypeError(f"the cookie from {origin} must be a str, not {type(line.reveal()).__name__}")
        line = Hidden(line.reveal().strip())
        if not line.reveal() or "\n" in line.reveal() or "\r" in line.reveal():
            raise ValueError(f"the cookie from {origin} must be one line of text: make one with `kinfolk cookie new`")
        self.origin = origin
        self.weak = not _LOOKS_GENERATED.match(line.reveal())
        self._given = Hidden(_free_text(line, origin) if self.weak else _random_bytes(line, origin))
        self._secret = None if self.weak else self._given  # None: not stretched yet

    def __repr__(self) -> str:
        return f"<{'weak ' if self.weak else ''}cookie from {self.origin}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cookie):
            return NotImplemented
        return self.weak == other.weak and hmac.compare_digest(self._given.reveal(), other._given.reveal())

    def __hash__(self) -> int:
        return hash(self._given)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a cookie is neither copied nor pickled: pass the object, or name the file that holds it")

    def key(self, label: str, size: int = 32) -> bytes:
        """`size` bytes that only who knows the cookie can compute, others for every label.

        The first use of a weak cookie takes about a quarter of a second and 32 MiB; the result is kept.
        """
        if self._secret is None:
            self._secret = Hidden(
                hashlib.scrypt(self._given.reveal(), salt=_SALT, n=2**15, r=8, p=3, maxmem=64 * 2**20, dklen=32)
            )
        return HKDF(hashes.SHA256(), size, _SALT, label.encode()).derive(self._secret.reveal())

    def proof_keys(self) -> ProofKeys:
        """The keys of the handshake."""
        return ProofKeys(Hidden(self.key("dialler proof")), Hidden(self.key("listener proof")))


def new_cookie() -> str:
    """The text of a new cookie: 256 bits from the operating system, and a checksum."""
    secret = secrets.token_bytes(_SECRET_BYTES)
    return _PREFIX + base64.urlsafe_b64encode(secret + zlib.crc32(secret).to_bytes(4, "big")).decode()


def _random_bytes(line: Hidden[str], origin: str) -> bytes:
    if _LOOKS_LATER.match(line.reveal()):
        raise ValueError(f"the cookie from {origin} was made by a later version of kinfolk: upgrade this one")
    secret = _decoded(line.reveal())
    if secret is None:
        raise ValueError(
            f"the cookie from {origin} is damaged: it begins like one of `kinfolk cookie new`, but its length or"
            " checksum is wrong; copy it again, whole"
        )
    return secret


def _decoded(text: str) -> bytes | None:
    """The random bytes of a generated cookie; None if it is damaged. Raises nothing: its variables are secrets."""
    if not text.startswith(_PREFIX) or not _ENCODED.fullmatch(text, len(_PREFIX)):
        return None
    raw = base64.urlsafe_b64decode(text[len(_PREFIX) :])
    secret, checksum = raw[:_SECRET_BYTES], raw[_SECRET_BYTES:]
    return secret if zlib.crc32(secret).to_bytes(4, "big") == checksum else None


def _free_text(line: Hidden[str], origin: str) -> bytes:
    try:
        return line.reveal().encode()
    except UnicodeEncodeError:
        pass  # it holds the text, so it goes no further, not even as the context of another
    raise ValueError(f"the cookie from {origin} is not valid UTF-8")


# --- files ---


def check_private(path: Path, what: str, status: os.stat_result | None = None) -> None:
    """Raise unless a file of secrets is a regular file that only its owner can read.

    Args:
        what: what it is, in words, for the message.
        status: of the open file, if it is open.

    Raises:
        OSError: it cannot be looked at; PermissionError if others may read or change it.
        ValueError: not a regular file.
    """
    status = status or path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{what} {path} must be a regular file")
    if os.name == "posix" and status.st_mode & 0o077:
        raise PermissionError(f"{what} {path} is open to other users: run `chmod 600 {shlex.quote(os.fspath(path))}`")


def read_cookie_file(path: Path) -> Cookie:
    """The cookie in a file that only its owner can read.

    Raises:
        OSError: it cannot be opened; PermissionError if others may read or change it.
        ValueError: not a regular file, or no cookie in it.
    """
    # Checked on the open file, so that it cannot be exchanged in between; not blocking, in case it is a pipe.
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError as error:
        make = f"kinfolk cookie new --file {shlex.quote(os.fspath(path))}"
        text = f"{error.strerror}: `{make}` makes a cookie, of which each node of the cluster needs a copy"
        raise FileNotFoundError(error.errno, text, os.fspath(path)) from None
    with open(fd, "rb") as file:
        check_private(path, "the cookie file", os.fstat(fd))
        content = Hidden(file.read(_MAX_FILE + 1))
    if len(content.reveal()) > _MAX_FILE:
        raise ValueError(f"{path} is no cookie file: it holds more than {_MAX_FILE} bytes")
    return Cookie(content.reveal().decode(errors="surrogateescape"), f"the file {path}")


def user_cookie(home: Path) -> Cookie:
    """The cookie of this user on this machine, from the file `cookie` in `home`; both are made on first use.

    It serves nodes on loopback for which none was given. Of two programs that start at once, one makes it.

    Raises:
        OSError: the directory or the file cannot be made or read, or others may change it.
        ValueError: as `read_cookie_file`.

    Source: Erlang's ~/.erlang.cookie.
    """
    path = home / "cookie"
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name == "posix" and home.stat().st_mode & 0o022:
        raise PermissionError(
            f"{home}, where your cookie is, is open to other users: run `chmod 700 {shlex.quote(os.fspath(home))}`"
        )
    if not path.exists():
        _create_file(path, Hidden(new_cookie() + "\n"))
    return read_cookie_file(path)


def _create_file(path: Path, content: Hidden[str]) -> None:
    """Make a file of mode 0600, whole or not at all. One that is already there stays as it is."""
    fd, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(content.reveal())
            file.flush()
            os.fsync(fd)
        try:
            os.link(draft, path)  # unlike a rename, it fails if another program was first
        except FileExistsError:
            pass
    finally:
        os.unlink(draft)
