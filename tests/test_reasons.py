"""Exit reasons: one form, also after a journey; never more than what the protocol allows."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import force_setattr

from kinfolk.errors import NameLost
from kinfolk.ids import Pid
from kinfolk.reasons import MAX_TRACEBACK, MAX_TYPE, MAX_WORD, Crash, Reason, Stop, heard, reason_of, told
from kinfolk.wire.frames import MonitorFired, decode_payload, encode_frame


def raised(error: BaseException) -> BaseException:
    """The error, with the traceback of having been raised here."""
    try:
        raise error
    except BaseException as caught:
        return caught


def after_a_journey(reason: Reason) -> Reason:
    """The reason as another node sees it."""
    frame = encode_frame([MonitorFired(1, 1, *told(reason))])
    [operation] = decode_payload(frame[4], frame[5:]) or []
    assert isinstance(operation, MonitorFired)
    return heard(operation.reason, operation.detail)


def test_a_crash_has_type_text_traceback_and_here_the_exception_itself():
    error = raised(ValueError("no"))
    crash = Crash.of(error)
    assert (crash.type, crash.message) == ("ValueError", "no")
    assert "in raised" in crash.traceback
    assert crash.error is error
    assert str(crash) == "ValueError: no"
    assert str(Crash.of(KeyError())) == "KeyError"


def test_a_crash_travels_as_text_and_its_exception_stays():
    crash = Crash.of(raised(ValueError("no")))
    arrived = after_a_journey(crash)
    assert arrived == crash
    assert isinstance(arrived, Crash)
    assert arrived.error is None


@given(st.text(min_size=1, max_size=MAX_WORD))
def test_a_word_travels_as_it_is(word: str):
    assert after_a_journey(reason_of(word)) == word


def test_a_lost_name_travels_with_its_winner():
    lost = NameLost("db", Pid("bob@h:1", 255, 4))
    arrived = after_a_journey(lost)
    assert isinstance(arrived, NameLost)
    assert (arrived.name, arrived.winner) == ("db", lost.winner)


@pytest.mark.parametrize("detail", [[], ["a"], ["db", "no pid"], ["a", "b", "c"]])
def test_what_does_not_belong_to_a_reason_leaves_its_word(detail: list[str]):
    assert heard("name_lost", detail) == "name_lost"
    assert heard("of a later version", detail) == "of a later version"


def test_texts_that_a_later_version_adds_are_ignored():
    assert heard("crash", ["E", "m", "t", "new"]) == Crash("E", "m", "t")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x" * 100_000),
        ValueError("\ud800 lone"),
        Unspeakable(),
        ExceptionGroup("many", [ValueError("y" * 10_000) for _ in range(20)]),
        type("E" * 1000, (Exception,), {})(),
    ],
    ids=lambda error: type(error).__name__[:20],
)
def test_whatever_a_process_dies_of_fits_into_a_frame(error: Exception):
    crash = Crash.of(raised(error))
    assert len(crash.type) <= MAX_TYPE
    assert len(crash.message) <= MAX_WORD
    assert 0 < len(crash.traceback) <= MAX_TRACEBACK
    assert after_a_journey(crash) == crash


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "given",
    [
        Text("done"),
        Crash("E" * 1000, "\ud800", "x" * 20_000_000),
        Crash(Text("E"), "", ""),
        NameLost(Text("db"), None),
    ],
    ids=["word", "crash", "texts", "name"],
)
def test_what_a_program_gives_as_a_reason_travels(given: Reason):
    reason = reason_of(given)
    arrived = after_a_journey(reason)
    assert str(arrived) == str(reason)
    assert type(arrived) is type(reason)


def test_a_reason_that_is_made_to_fit_keeps_its_exception():
    error = ValueError("no")
    crash = Crash.of(error)
    force_setattr(crash, "message", "x" * 2 * MAX_WORD)
    fits = reason_of(crash)
    assert isinstance(fits, Crash)
    assert fits.message == "x" * MAX_WORD
    assert fits.error is error


@pytest.mark.parametrize(
    "wrong",
    [Crash(cast("str", 1), "", ""), Crash("E", cast("str", None), ""), NameLost(cast("str", 7)), NameLost("\ud800")],
)
def test_reasons_that_could_not_travel_are_refused(wrong: Reason):
    with pytest.raises((TypeError, ValueError)):
        reason_of(wrong)


def test_programs_give_words_exceptions_and_reasons():
    crash = Crash("E", "", "")
    lost = NameLost("db", Pid("bob@h:1", 1, 1))
    assert reason_of("done") == "done"
    assert reason_of(crash) is crash
    assert reason_of(lost) is lost
    assert reason_of(ValueError("no")) == Crash.of(ValueError("no"))
    assert Stop().reason == "shutdown"
    assert Stop("done").reason == "done"


@pytest.mark.parametrize("word", ["", "x" * (MAX_WORD + 1), "\ud800"])
def test_a_word_that_cannot_travel_is_refused_where_it_is_given(word: str):
    with pytest.raises(ValueError, match=r"must be 1 to 1024 characters of valid Unicode"):
        reason_of(word)


@pytest.mark.parametrize("given", [None, 1, b"x", {"a": 1}])
def test_what_is_no_reason_is_refused(given: Any):
    with pytest.raises(TypeError, match=r"an exit reason is a word, a Crash or an exception, not a"):
        reason_of(given)
