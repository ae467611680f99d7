"""Reports of stalls: the datagrams by which a node whose loop stands still says so.

    session    u64   the number that the receiver has given to the session
    sequence   u64   higher in each report of a session
    age        u32   milliseconds since the loop's last turn
    tag        32    HMAC-SHA256 under the key that the receiver has told in the session, over a label and the above

Numbers are little endian. The receiver tells number, key and port by STALL_PORT, inside the session; so who can make a
report is the peer of that session alone. What is wrong with a datagram is never told to anybody: it is dropped.
"""

import hmac
import struct
from typing import NamedTuple

from kinfolk.cookie import Hidden

KEY_BYTES = 32
MAX_AGE = (2**32 - 1) / 1000
"""Seconds; who stands still for longer says this."""

_BODY = struct.Struct("<QQI")
_TAG_BYTES = 32
REPORT_BYTES = _BODY.size + _TAG_BYTES
_CONTEXT = b"kinfolk/1 stall\0"


class Report(NamedTuple):
    """What a datagram says."""

    session: int
    sequence: int
    age: float
    """Seconds, to a millisecond."""


def encode(report: Report, key: Hidden[bytes]) -> bytes:
    """The datagram for whoever has told this key."""
    body = _BODY.pack(report.session, report.sequence, round(min(report.age, MAX_AGE) * 1000))
    return body + hmac.digest(key.reveal(), _CONTEXT + body, "sha256")


def decode(datagram: bytes) -> Report | None:
    """What a datagram says, whoever has sent it; None if it is no report by its form."""
    if len(datagram) != REPORT_BYTES:
        return None
    session, sequence, milliseconds = _BODY.unpack_from(datagram)
    return Report(session, sequence, milliseconds / 1000)


def is_genuine(datagram: bytes, key: Hidden[bytes]) -> bool:
    """Whether a datagram was made with this key."""
    body, tag = datagram[: _BODY.size], datagram[_BODY.size :]
    return hmac.compare_digest(tag, hmac.digest(key.reveal(), _CONTEXT + body, "sha256"))
