"""Why a process has ended: one form for it, the same on its own node and across the wire.

A reason is a word (``"normal"``, ``"shutdown"``, ...), a `Crash` with the text of an exception, or `NameLost`.
"""

import traceback
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import force_setattr

from kinfolk.errors import KinfolkError, NameLost
from kinfolk.ids import Pid, check_name, check_pid

NORMAL = "normal"
"""Its body has returned."""
SHUTDOWN = "shutdown"
"""It was asked to end: its node closes, or its supervisor stops it."""
KILL = "kill"
"""Given to `exit`, ends any process; nobody can trap it. Its own reason is then KILLED."""
KILLED = "killed"
"""It was killed, or its task was cancelled."""
NOPROC = "noproc"
"""It was dead already, is of an older start of its node, or never was."""
NOCONNECTION = "noconnection"
"""Its node is not connected: nobody knows whether it lives."""

MAX_WORD = 1024
"""Characters of a reason that is a word, and of the message of a Crash."""
MAX_TYPE = 256
MAX_TRACEBACK = 16 * 1024
"""Characters of a traceback's end that are kept."""

_CRASH, _NAME_LOST = "crash", "name_lost"


class Crash(Struct, frozen=True, dict=True):
    """A process has died of an exception.

    Attributes:
        type: the name of its class, as in ``case Down(reason=Crash(type="ValueError"))``.
        message: its text, of at most MAX_WORD characters.
        traceback: where it was raised, as Python prints it; the last MAX_TRACEBACK characters.
    """

    type: str
    message: str
    traceback: str

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type

    def __repr__(self) -> str:
        return f"<crash {self}>"

    @property
    def error(self) -> BaseException | None:
        """The exception itself, if the process was of this node; exceptions do not travel."""
        return self.__dict__.get("raised")

    @classmethod
    def of(cls, error: BaseException) -> "Crash":
        """The reason of a process that this exception has ended."""
        message = text_of(error)
        try:
            trace = "".join(traceback.format_exception(error))
        except Exception:  # noqa: BLE001 - it asks the same class
            trace = "".join(traceback.format_tb(error.__traceback__))
        crash = cls(
            _sendable(type(error).__qualname__)[:MAX_TYPE],
            _sendable(message)[:MAX_WORD],
            _sendable(trace)[-MAX_TRACEBACK:],
        )
        force_setattr(crash, "raised", error)
        return crash


def text_of(error: BaseException, form: Callable[[object], str] = str) -> str:
    """The text of an exception, which may be of a user's class: it is made whatever that class does."""
    try:
        return form(error)
    except Exception:  # noqa: BLE001 - of a user's class
        return f"{type(error).__name__}: its text cannot be made"


Reason = str | Crash | NameLost
"""Why a process has ended. The words are NORMAL, SHUTDOWN, KILLED, NOPROC, NOCONNECTION, or a program's own."""


class Stop(KinfolkError):
    """Raised by a process in its own task to end with this reason: no crash, and nothing is logged.

    Args:
        reason: a word, or any other `Reason`.

    Raises:
        TypeError, ValueError: it cannot be a reason.
    """

    def __init__(self, reason: "Reason | BaseException" = SHUTDOWN) -> None:
        self.reason = reason_of(reason)
        super().__init__(self.reason)

    def __str__(self) -> str:
        return f"stops: {self.reason}"


def reason_of(given: "Reason | BaseException") -> Reason:
    """The reason that a program has given: a word, a `Crash`, or an exception; as it can travel.

    Raises:
        TypeError: it is something else, or a part of it is of another type than it has to be.
        ValueError: a word that is empty, longer than MAX_WORD, or not valid Unicode; or no valid name was lost.
    """
    if isinstance(given, Crash):
        return _bounded(given)
    if isinstance(given, NameLost):
        return _checked(given)
    if isinstance(given, BaseException):
        return Crash.of(given)
    if not isinstance(given, str):
        raise TypeError(f"an exit reason is a word, a Crash or an exception, not a {type(given).__name__}")
    word = str.__str__(given)  # of a subclass, such as an enum's, which the wire does not carry
    if not 0 < len(word) <= MAX_WORD or word != _sendable(word):
        raise ValueError(f"the exit reason {word[:40]!r} must be 1 to {MAX_WORD} characters of valid Unicode")
    return word


def _bounded(crash: Crash) -> Crash:
    """A crash that a program may have made itself, with texts that fit into a frame."""
    texts: list[object] = [crash.type, crash.message, crash.traceback]
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"the type, message and traceback of a Crash are str, not {type(text).__name__}")
    kind, message, trace = (_sendable(text) for text in (crash.type, crash.message, crash.traceback))
    fits = Crash(kind[:MAX_TYPE], message[:MAX_WORD], trace[-MAX_TRACEBACK:])
    if fits == crash and all(type(text) is str for text in texts):
        return crash
    force_setattr(fits, "raised", crash.error)
    return fits


def _checked(lost: NameLost) -> NameLost:
    """The loss of a name that a program may have made itself."""
    name = check_name(lost.name)
    if lost.winner is not None:
        check_pid(lost.winner)
    return lost if type(lost.name) is str else NameLost(name, lost.winner)


def told(reason: Reason) -> tuple[str, list[str]]:
    """A reason as it goes over the wire: a word, and what belongs to it."""
    match reason:
        case Crash():
            return _CRASH, [reason.type, reason.message, reason.traceback]
        case NameLost():
            return _NAME_LOST, [reason.name, "" if reason.winner is None else str(reason.winner)]
        case _:
            return reason, []


def heard(word: str, detail: Sequence[str]) -> Reason:
    """A reason that has come over the wire. One that a later version has added is its word."""
    match word, detail:
        case "crash", [kind, message, trace, *_]:
            return Crash(kind[:MAX_TYPE], message[:MAX_WORD], trace[-MAX_TRACEBACK:])
        case "name_lost", [name, winner, *_]:
            try:
                return NameLost(name, Pid.parse(winner) if winner else None)
            except ValueError:
                return word
        case _:
            return word


def _sendable(text: str) -> str:
    """The text with whatever UTF-8 cannot carry written out."""
    return text.encode("utf-8", "backslashreplace").decode()
