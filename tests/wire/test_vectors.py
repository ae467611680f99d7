"""The bytes on the wire are what docs/protocol.md says, and stay so."""

import hashlib
import hmac
import re
import zlib
from base64 import urlsafe_b64decode
from pathlib import Path

import msgspec
import pytest

from kinfolk.cookie import Cookie
from kinfolk.core.ledger import Claim
from kinfolk.core.mirror import Mirror
from kinfolk.ids import Pid
from kinfolk.wire.frames import FRAMES, Operation, Ping, decode_payload, encode_frame
from kinfolk.wire.outbox import Outbox
from tests.wire.pair import ADA, ADA_LEAF, BOB, BOB_LEAF, COOKIE, dialler, identity, listener
from tests.wire.vectors import (
    ACK_PROOF,
    ADA_CREATION,
    BOB_CREATION,
    DIGEST,
    MORE,
    REPLY_PROOF,
    STAMP,
    VECTORS,
    Vector,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
ALL = {**{kind.__name__: vector for kind, vector in VECTORS.items()}, **MORE}


@pytest.mark.parametrize("vector", ALL.values(), ids=ALL)
def test_a_recorded_frame_round_trips(vector: Vector):
    assert encode_frame(vector.operations).hex() == vector.frame.hex()
    decoded = decode_payload(vector.frame[4], vector.frame[5:])
    assert decoded is not None
    assert encode_frame(decoded) == vector.frame
    assert [type(operation) for operation in decoded] == [type(operation) for operation in vector.operations]


@pytest.mark.parametrize("vector", ALL.values(), ids=ALL)
def test_the_outbox_says_the_same_with_a_wider_count(vector: Vector):
    outbox = Outbox()
    for operation in vector.operations:
        outbox.encode(operation)
    data = outbox.take()
    count = len(vector.operations)
    assert data[5:10] == b"\xdd" + count.to_bytes(4, "big")
    assert data[10:] == vector.frame[6:]
    assert int.from_bytes(data[:4], "little") == len(data) - 4


def test_the_frame_of_an_outbox_that_the_document_shows():
    outbox = Outbox()
    outbox.encode(Ping(1))
    assert outbox.take() == bytes.fromhex("0a000000 f0 dd00000001 93 01 00 00")


def test_every_kind_of_frame_has_a_vector():
    assert set(VECTORS) == set(FRAMES)


@pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: kind.__name__)
def test_every_kind_of_frame_is_documented(kind: type[Operation]):
    """A row in the table of tags, a section with every field, and the recorded bytes."""
    text = DOCUMENT.read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| 0x{kind.TAG:02X} \| (\w+) \| `{kind.__name__}` \|.*\|$", text, re.MULTILINE)
    assert kind.__doc__ is not None
    assert kind.__doc__.startswith((f"{row}:", f"{row} "))
    section = re.search(rf"^#### {row} \(0x{kind.TAG:02X}\)\n(.*?)^#", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    fields = re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE)
    assert tuple(fields) == kind.__struct_fields__
    assert f"{VECTORS[kind].frame.hex()}" in re.sub(r"\s", "", section[1])


def test_the_other_recorded_frames_are_in_the_document():
    text = re.sub(r"\s", "", DOCUMENT.read_text(encoding="utf-8"))
    assert all(vector.frame.hex() in text for vector in MORE.values())


def test_no_two_kinds_share_a_tag():
    assert len({kind.TAG for kind in FRAMES}) == len(FRAMES)


def test_a_decoder_ignores_fields_of_a_later_minor_version():
    assert decode_payload(Ping.TAG, msgspec.msgpack.encode([[7, 0, 0, "new"], [8]])) == [Ping(7), Ping(8)]


def test_the_recorded_digest_follows_from_the_document_alone():
    def crc(text: str, *numbers: int) -> int:
        return zlib.crc32(text.encode(), zlib.crc32(b"".join(number.to_bytes(8, "little") for number in numbers)))

    confirmed, unconfirmed, member = crc("db", 1, 3, STAMP), crc("näme", 2, 4, STAMP + 1), crc("stores", 3)
    assert (confirmed * 2**31 + unconfirmed + member * 2**16) % 2**63 == DIGEST
    mirror = Mirror(ADA, ADA_CREATION, 5)
    mirror.put(Claim("db", Pid(ADA, ADA_CREATION, 3), 1, STAMP), True)
    mirror.put(Claim("näme", Pid(ADA, ADA_CREATION, 4), 2, STAMP + 1), False)
    mirror.enter(("stores", 3))
    assert mirror.digest == DIGEST


# --- the handshake ---


def test_the_recorded_handshake_is_what_the_two_ends_say():
    ada, bob = dialler(identity(ADA, creation=ADA_CREATION)), listener(identity(BOB, creation=BOB_CREATION))
    frames = [ada.greeting]
    frames.append(bob.receive(frames[-1][4], frames[-1][5:]).reply)
    frames.append(ada.receive(frames[-1][4], frames[-1][5:]).reply)
    bob.receive(frames[-1][4], frames[-1][5:])
    frames.append(bob.admit())
    assert frames == [vector.frame for vector in list(VECTORS.values())[:4]]


def hkdf(secret: bytes, label: str, size: int = 32) -> bytes:
    """RFC 5869 by the letter, for one or two blocks."""
    pseudorandom = hmac.digest(b"kinfolk/1 cookie", secret, "sha256")
    first = hmac.digest(pseudorandom, label.encode() + b"\x01", "sha256")
    second = hmac.digest(pseudorandom, first + label.encode() + b"\x02", "sha256")
    return (first + second)[:size]


def test_the_recorded_proofs_follow_from_the_document_alone():
    """Nothing of kinfolk computes here: it is what a second implementation would do."""
    secret = bytes(range(32))
    name, challenge, *_ = (vector.frame for vector in VECTORS.values())
    transcript = b"kinfolk/1 handshake\0" + name + challenge + ADA_LEAF + BOB_LEAF
    assert hmac.digest(hkdf(secret, "dialler proof"), transcript, "sha256") == REPLY_PROOF
    assert hmac.digest(hkdf(secret, "listener proof"), transcript, "sha256") == ACK_PROOF


def test_the_keys_of_a_cookie_follow_from_the_document_alone():
    text = "kfc1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-RJn6K"
    assert Cookie(text) == COOKIE
    secret = urlsafe_b64decode(text[5:])[:32]
    assert COOKIE.key("certificate authority", 48) == hkdf(secret, "certificate authority", 48)
    stretched = hashlib.scrypt(b"correct horse", salt=b"kinfolk/1 cookie", n=2**15, r=8, p=3, maxmem=2**26, dklen=32)
    assert Cookie("correct horse").key("dialler proof") == hkdf(stretched, "dialler proof")


def test_the_recorded_keys_are_in_the_document():
    text = re.sub(r"\s", "", DOCUMENT.read_text(encoding="utf-8"))
    weak = Cookie("correct horse")
    keys = [cookie.key(label) for cookie in (COOKIE, weak) for label in ("dialler proof", "listener proof")]
    for key in (*keys, COOKIE.key("certificate authority", 48)):
        assert key.hex() in text
