"""Reports of stalls: who has the key alone can make one, and only for its session."""

import hmac
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kinfolk.cookie import Hidden
from kinfolk.wire.frames import StallPort
from kinfolk.wire.stalls import MAX_AGE, REPORT_BYTES, Report, decode, encode, is_genuine
from tests.wire.vectors import VECTORS

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
KEY = Hidden(bytes(range(32)))
NUMBERS = st.integers(0, 2**63 - 1)
REPORTS = st.builds(Report, NUMBERS, NUMBERS, st.integers(0, 2**32 - 1).map(lambda milliseconds: milliseconds / 1000))


@given(REPORTS)
def test_a_report_arrives_as_it_was_sent(report: Report):
    datagram = encode(report, KEY)
    assert len(datagram) == REPORT_BYTES
    assert decode(datagram) == report and is_genuine(datagram, KEY)


@given(st.floats(0, 1e12))
def test_an_age_is_told_to_a_millisecond_and_up_to_a_bound(age: float):
    report = decode(encode(Report(1, 1, age), KEY))
    assert report is not None and abs(report.age - min(age, MAX_AGE)) <= 0.001


@given(st.binary(max_size=2 * REPORT_BYTES))
def test_garbage_is_no_report_or_not_genuine(garbage: bytes):
    report = decode(garbage)
    assert (report is None) == (len(garbage) != REPORT_BYTES)
    assert report is None or not is_genuine(garbage, KEY)


@given(REPORTS, st.integers(0, 8 * REPORT_BYTES - 1))
def test_a_report_with_any_bit_changed_is_not_genuine(report: Report, bit: int):
    datagram = bytearray(encode(report, KEY))
    datagram[bit // 8] ^= 1 << bit % 8
    assert not is_genuine(bytes(datagram), KEY)


@given(REPORTS, st.binary(min_size=32, max_size=32).filter(lambda key: key != KEY.reveal()))
def test_a_report_under_another_key_is_not_genuine(report: Report, other: bytes):
    assert not is_genuine(encode(report, Hidden(other)), KEY)


def test_the_report_in_the_document_follows_from_the_document_alone():
    (told,) = VECTORS[StallPort].operations
    assert isinstance(told, StallPort)
    body = told.session.to_bytes(8, "little") + (1).to_bytes(8, "little") + (1500).to_bytes(4, "little")
    datagram = body + hmac.digest(told.key, b"kinfolk/1 stall\0" + body, "sha256")
    assert encode(Report(told.session, 1, 1.5), Hidden(told.key)) == datagram
    assert datagram.hex() in re.sub(r"\s", "", DOCUMENT.read_text(encoding="utf-8"))
