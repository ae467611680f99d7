"""Looking for secrets where none may be: in logs, in what objects show, in what tools show of an exception."""

import base64
import re
import traceback
from types import FrameType
from typing import Any

from kinfolk.cookie import Cookie
from kinfolk.shell.tls import derive_authority

_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")


def known_secrets(text: str) -> list[str]:
    """Every form in which a cookie, or a key that is derived from it, may show: text, hex, base64, decimal, repr."""
    cookie = Cookie(text)
    proofs = cookie.proof_keys()
    keys = [cookie.key("certificate authority", 48), proofs.dialler.reveal(), proofs.listener.reveal()]
    if not cookie.weak:
        keys.append(base64.urlsafe_b64decode(text[5:])[:32])
    private = derive_authority(cookie).key.private_numbers().private_value
    number = int.from_bytes(keys[0], "big")
    forms = [text, text.removeprefix("kfc1_"), *(f"{n}" for n in (private, number)), f"{private:x}"]
    for key in keys:
        forms += [key.hex(), key.hex(" "), key.hex(":"), repr(key)[2:-1]]
        forms += [encode(key).decode().rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)]
    return forms


def secrets_in(text: str, cookie: str) -> list[str]:
    """Which secrets of a cookie are in a text."""
    return [secret for secret in known_secrets(cookie) if secret in text]


def dump(error: BaseException, module: str = "kinfolk") -> str:
    """All that tools show of an exception, of the functions of one package: its text and its attributes, and for each
    function on its way the variables, and what the names in the line that raised are worth, also those with dots, as
    cgitb shows them.
    """
    shown = ["".join(traceback.format_exception(error)), repr(error), repr(vars(error))]
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, None if one.__suppress_context__ else one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        for frame, line in traceback.walk_tb(one.__traceback__):
            if str(frame.f_globals.get("__name__", "")).split(".")[0] == module:
                shown += _frame(frame, line)
    return "\n".join(shown)


def _frame(frame: FrameType, number: int) -> list[str]:
    import linecache

    shown = [f"{name} = {value!r}" for name, value in frame.f_locals.items()]
    line = linecache.getline(frame.f_code.co_filename, number, frame.f_globals)
    return shown + [f"{dotted} = {_value(dotted, frame)!r}" for dotted in _DOTTED.findall(line)]


def _value(dotted: str, frame: FrameType) -> Any:
    first, *rest = dotted.split(".")
    value = frame.f_locals.get(first, frame.f_globals.get(first))
    for name in rest:
        value = getattr(value, name, None)
    return value
