"""The errors: one tree, each says what to do, and each survives a copy and a pickle."""

import copy
import inspect
import pickle
from typing import Any

import pytest

from kinfolk import errors
from kinfolk.errors import KinfolkError
from kinfolk.ids import Pid

PID = Pid("ada@10.0.0.1:4370", 0xC0FFEE, 7)
CLASSES: list[Any] = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, BaseException)]


def takes_arguments_of_its_own(cls) -> bool:
    return any("__init__" in vars(base) for base in cls.__mro__ if base.__module__ == errors.__name__)


EXAMPLES: list[KinfolkError] = [
    errors.NameTaken("db", PID),
    errors.ChildFailed("db", "the child 'db' did not start", "ValueError: boom"),
    errors.NotConfirmed("db", ["bob@h:1", "carl@h:1"]),
    errors.NotConfirmed("db"),
    errors.NameUnknown("db"),
    errors.NameUnknown("db", "it was unregistered before it was confirmed"),
    errors.NameWaitTimeout("db", "no process registered it within 5 s"),
    errors.NameLost("db", PID),
    errors.NotMoved("db", "bob@h:1 did not answer in time; try again"),
    errors.Moved(PID),
    errors.AuthenticationFailed("bob@h:1 speaks version 2", "version"),
    errors.AuthenticationFailed("the cookie is another"),
    *(cls("what went wrong, and what to do") for cls in CLASSES if not takes_arguments_of_its_own(cls)),
]


def test_all_errors_are_one_tree():
    assert all(issubclass(cls, KinfolkError) for cls in CLASSES)
    assert KinfolkError.__mro__[1] is Exception


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("NotConfirmed", [TimeoutError]),
        ("NameUnknown", [LookupError]),
        ("NameWaitTimeout", [errors.NameUnknown, TimeoutError]),
        ("Refused", [errors.CallFailed]),
        ("Moved", [errors.NoProcess]),
        ("CallTimeout", [TimeoutError]),
        ("NotSerializable", [TypeError]),
        ("MessageTooLarge", [ValueError]),
        ("SendTimeout", [errors.LinkCongested, TimeoutError]),
        ("NotAllowed", [PermissionError]),
        ("NodeLost", [ConnectionError]),
        ("NodeUnreachable", [ConnectionError]),
        ("AuthenticationFailed", [ConnectionError]),
        ("LocalProtocolError", [errors.ProtocolError]),
        ("RemoteProtocolError", [errors.ProtocolError]),
    ],
)
def test_an_error_that_a_standard_class_describes_is_caught_as_that(name, bases):
    assert all(issubclass(getattr(errors, name), base) for base in bases)


def test_a_call_that_failed_is_not_a_timeout_or_the_other_way_round():
    assert not issubclass(errors.CallFailed, OSError)
    assert not issubclass(errors.CallTimeout, errors.CallFailed)
    assert not issubclass(errors.NoProcess, errors.CallFailed)


def test_every_error_has_an_example_here():
    assert {type(error) for error in EXAMPLES} | {KinfolkError} >= set(CLASSES)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_survives_a_copy_and_a_pickle(error, way):
    twin = way(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert vars(twin) == vars(error)
    assert twin.args == error.args


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            errors.NameTaken("db", PID),
            "the name 'db' is held by ada@10.0.0.1:4370/c0ffee/7: pick another, or wait until it falls free",
        ),
        (
            errors.NotConfirmed("db", ["bob@h:1", "carl@h:1"]),
            (
                "the claim of 'db' was withdrawn: no answer in time from bob@h:1, carl@h:1;"
                " register it again, or allow a longer timeout"
            ),
        ),
        (
            errors.NotConfirmed("db"),
            (
                "the claim of 'db' was withdrawn: this node had not started, or had not finished joining;"
                " register it again, or allow a longer timeout"
            ),
        ),
        (
            errors.NameUnknown("db"),
            ("name 'db': no process is registered under it: wait for one by names.wait_for(), or see `kinfolk names`"),
        ),
        (errors.NameLost("db", PID), "the name 'db' was lost to ada@10.0.0.1:4370/c0ffee/7, whose claim is older"),
        (errors.AuthenticationFailed("the cookie is another"), "the cookie is another"),
    ],
)
def test_an_error_says_what_is_wrong_and_what_to_do(error, says):
    assert str(error) == says


def test_errors_carry_what_a_program_needs():
    assert (errors.NameTaken("db", PID).name, errors.NameTaken("db", PID).holder) == ("db", PID)
    assert errors.NotConfirmed("db", ["bob@h:1"]).missing == ("bob@h:1",)
    assert errors.NameUnknown("db").name == "db"
    assert errors.NameLost("db", PID).winner == PID
    assert errors.AuthenticationFailed("no").reason == "cookie"
    assert errors.AuthenticationFailed("no", "version").reason == "version"


def test_every_error_says_in_its_docstring_what_it_means():
    assert all(cls.__doc__ and cls.__doc__.strip() for cls in CLASSES)
