"""Everything kinfolk raises, one tree under KinfolkError. Each message says what to do.

Wrong arguments are plain TypeError and ValueError. Errors that a standard class describes as well also derive from it,
so `except TimeoutError` and `except ConnectionError` work as expected.
"""

from collections.abc import Sequence

from kinfolk.ids import Pid


class KinfolkError(Exception):
    """Base of all errors of kinfolk."""


# --- names ---


class NameTaken(KinfolkError):
    """The name belongs to another process. `holder` is its pid, which may have gone just now.

    Also arrives as a message in the mailbox of a process whose `register_nowait` lost the race.
    """

    def __init__(self, name: str, holder: Pid) -> None:
        super().__init__(name, holder)
        self.name, self.holder = name, holder

    def __str__(self) -> str:
        return f"the name {self.name!r} is held by {self.holder}: pick another, or wait until it falls free"


class NotConfirmed(KinfolkError, TimeoutError):
    """Not every connected peer acknowledged the claim in time, so it was withdrawn. `missing` names those peers."""

    def __init__(self, name: str, missing: Sequence[str] = ()) -> None:
        super().__init__(name)  # of two arguments, an OSError would take the first for an errno
        self.name, self.missing = name, tuple(missing)

    def __reduce__(self) -> tuple[type, tuple[str, tuple[str, ...]]]:
        return type(self), (self.name, self.missing)

    def __str__(self) -> str:
        who = (
            f"no answer in time from {', '.join(self.missing)}"
            if self.missing
            else "this node had not started, or had not finished joining"
        )
        return f"the claim of {self.name!r} was withdrawn: {who}; register it again, or allow a longer timeout"


_NOBODY = "no process is registered under it: wait for one by names.wait_for(), or see `kinfolk names`"


class NameUnknown(KinfolkError, LookupError):
    """No process has this name here and now, or the registration that was meant has ended."""

    def __init__(self, name: str, detail: str = _NOBODY) -> None:
        super().__init__(
            name
        )  # of two arguments, an OSError, as which it can be caught too, would take one for an errno
        self.name, self.detail = name, detail

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.name, self.detail)

    def __str__(self) -> str:
        return f"name {self.name!r}: {self.detail}"


class NameWaitTimeout(NameUnknown, TimeoutError):
    """`wait_for` saw nobody register the name before its deadline."""


class NotMoved(KinfolkError):
    """`transfer` could not move the name: it stays with its holder, as long as that lives."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(name, detail)
        self.name, self.detail = name, detail

    def __str__(self) -> str:
        return f"the name {self.name!r} was not moved: {self.detail}"


class NameLost(KinfolkError):
    """A confirmed name was lost: a healed partition found an older claim. `winner` holds the name now.

    With etcd as the registry `winner` is None: this node's lease has ended, and with it all that it held.

    By default it is the exit reason of the process that held it; with `on_lost="message"` it arrives in its mailbox.
    """

    def __init__(self, name: str, winner: Pid | None = None) -> None:
        super().__init__(name, winner)
        self.name, self.winner = name, winner

    def __str__(self) -> str:
        if self.winner is None:
            return f"the name {self.name!r} was lost: etcd could not be reached for too long, or has removed it"
        return f"the name {self.name!r} was lost to {self.winner}, whose claim is older"


# --- processes, messages and calls ---


class NoProcess(KinfolkError):
    """The process is dead, of an older start of its node, or never was."""


class Moved(NoProcess):
    """The process has handed over to `heir`, and has not begun with the call. Calls by name are sent again at once."""

    def __init__(self, heir: Pid) -> None:
        super().__init__(heir)
        self.heir = heir

    def __str__(self) -> str:
        return f"the process has handed over to {self.heir}: call that, or its name"


class CallFailed(KinfolkError):
    """The process did not answer the call: it crashed, or its answer could not be read. Carries its error text."""


class Refused(CallFailed):
    """The process answered the call with an error, by `call.fail(...)` or by raising this in a Server, and lives on."""


class CallTimeout(KinfolkError, TimeoutError):
    """No answer came before the deadline. The request may still be worked on; a late answer is dropped."""


class NotSerializable(KinfolkError, TypeError):
    """The message cannot be sent over the wire; the message names the path to the value that cannot."""


class MessageTooLarge(KinfolkError, ValueError):
    """The encoded message is larger than the node's `max_message`."""


class MailboxFull(KinfolkError):
    """The mailbox of the local process is at its bound: slow down, or raise `max_mailbox`."""


class LinkCongested(KinfolkError):
    """More waits for the node than the sender's `high_water` allows; nothing was sent. Slow down.

    `send_when_clear` waits until there is room, and so does `call`.
    """


class SendTimeout(LinkCongested, TimeoutError):
    """`send_when_clear` found the link to the node congested until its deadline; nothing was sent."""


class NotAllowed(KinfolkError, PermissionError):
    """The other node does not allow this: what was to be started is not on its list, `Node(allow_spawn=[...])`."""


class NodeDraining(NotAllowed):
    """The other node is about to leave, and starts nothing for others any more: start it elsewhere."""


class SpawnFailed(KinfolkError):
    """The other node could not start the process: wrong arguments, or its module is broken. Carries its error text."""


class ChildFailed(KinfolkError):
    """A supervisor gave up: a child could not be started, or ended too often. `child` is its id, `reason` why."""

    def __init__(self, child: str, what: str, reason: str) -> None:
        super().__init__(child, what, reason)
        self.child, self.what, self.reason = child, what, reason

    def __str__(self) -> str:
        return f"{self.what}: {self.reason}"


# --- nodes ---


class NodeLost(KinfolkError, ConnectionError):
    """The node of the process is not connected, or its connection ended before the answer."""


class NodeClosed(KinfolkError):
    """This node is closed, or was closed while the call waited."""


class NodeUnreachable(KinfolkError, ConnectionError):
    """The node could not be reached: nobody listens there, the host is unknown, or it did not answer in time."""


class AuthenticationFailed(KinfolkError, ConnectionError):
    """A handshake ended in a refusal. `reason` is one of: cookie, certificate, version, cluster, name, purpose.

    The cookie differs, or the other end speaks another version, belongs to another cluster, or the node name is in use.
    """

    def __init__(self, message: str, reason: str = "cookie") -> None:
        super().__init__(message)
        self.reason = reason


class ProtocolError(KinfolkError):
    """The rules of the wire protocol were broken; the session ends, the node lives."""


class LocalProtocolError(ProtocolError):
    """This end used a state machine wrongly: a mistake of kinfolk or of its caller."""


class RemoteProtocolError(ProtocolError):
    """The other end sent what the protocol does not allow."""
