"""Looking for secrets where none may be: in logs, in what objects show, in what tools show of an exception."""

import base64
import functools
import linecache
import re
import traceback
from types import FrameType
from typing import Any

from kinfolk.cookie import Cookie
from kinfolk.shell.tls import derive_authority

_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


@functools.cache  # a weak cookie takes its time
def known_secrets(text: str) -> list[str]:
    """Every form in which a cookie, or a key that is derived from it, may show: text, hex, base64, decimal, repr."""
    cookie = Cookie(text)
    proofs = cookie.proof_keys()
    keys = [cookie.key("certificate authority", 48), proofs.dialler.reveal(), proofs.listener.reveal()]
    if not cookie.weak:
        keys.append(base64.urlsafe_b64decode(text[5:])[:32])
    private = derive_authority(cookie).key.private_numbers().private_value
    forms = [text, text.removeprefix("kfc1_"), f"{private}", f"{private:x}", str(int.from_bytes(keys[0], "big"))]
    for key in keys:
        forms += [key.hex(), key.hex(" "), key.hex(":"), repr(key)[2:-1]]
        forms += [encode(key).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)]
    return forms


def secrets_in(text: str, cookie: str) -> list[str]:
    """Which secrets of a cookie are in a text."""
    return [secret for secret in known_secrets(cookie) if secret in text]


def parts_in(text: str, secret: str, size: int = 12) -> list[str]:
    """Which parts of a secret, each of so many characters, are in a text."""
    return [part for part in (secret[at : at + size] for at in range(len(secret) - size + 1)) if part in text]


def dump(error: BaseException, package: str = "kinfolk") -> str:
    """All that tools show of an exception: its text and its arguments, and of each function of the package on its way
    the variables, and what the names in the line that raised are worth, also those with dots, as cgitb shows them.
    """
    shown: list[str] = []
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
        shown += [*traceback.format_exception(one, chain=False), repr(one), repr(one.args), repr(vars(one))]
        for frame, line in traceback.walk_tb(one.__traceback__):
            if str(frame.f_globals.get("__name__", "")).split(".")[0] == package:
                shown += _frame(frame, line)
    return "\n".join(shown)


def _frame(frame: FrameType, number: int) -> list[str]:
    line = linecache.getline(frame.f_code.co_filename, number, frame.f_globals)
    values = {dotted: _value(dotted, frame) for dotted in _DOTTED.findall(line)} | frame.f_locals
    return [f"{name} = {shown(value)}" for name, value in values.items()]


def _value(dotted: str, frame: FrameType) -> Any:
    first, *rest = dotted.split(".")
    value = frame.f_locals.get(first, frame.f_globals.get(first))
    try:
        return functools.reduce(getattr, rest, value)
    except Exception as error:  # no such attribute, or a property that raises
        return error


def shown(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # an object that was being made
        return f"<no repr: {error!r}>"
