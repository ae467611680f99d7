"""What a Server class says about its messages, and what is refused when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec
import pytest

from kinfolk import Call, Down, Exit, NameLost, PeerUp, Process, Replies, Request, Server
from kinfolk.server import serve

if TYPE_CHECKING:
    from decimal import Decimal

T = TypeVar("T")


class Add(Request[int]):
    by: int


class Sum(Request["int | None"]):
    pass


class Reset(Request[None]):
    pass


class Note(msgspec.Struct):
    text: str


class Fetch(Request[T], Generic[T]):
    kind: type[T]


@dataclass
class Names(Replies[list[str]]):
    prefix: str


def begin(cls: type[Server], *args: object) -> None:
    """As `spawn` does, as far as it comes without a process."""
    serve(cls, cast("Process", None), args).close()


def handled(cls: type[Server]) -> dict[str, str]:
    """Each message type and the method that takes it."""
    return {kind.__name__: handler.name for kind, handler in cls.__table__.items()}


def test_a_method_for_each_type_by_its_annotation():
    class Counter(Server):
        async def init(self, start: int = 0) -> None: ...
        async def add(self, message: Add) -> int:
            return 0

        async def both(self, message: Reset | Note) -> None: ...
        async def told(self, message: Exit | Down | PeerUp | NameLost) -> None: ...
        async def fetch(self, message: Fetch[Any]) -> object:
            return 0

        async def names(self, message: Names) -> list[str]:
            return []

        async def maybe(self, message: Sum) -> int:
            return 0

        async def _helper(self, a: int, b: int) -> None: ...
        def plain(self, text: str) -> None: ...
        @staticmethod
        def static() -> None: ...

    assert handled(Counter) == {
        "Add": "add",
        "Reset": "both",
        "Note": "both",
        "Exit": "told",
        "Down": "told",
        "PeerUp": "told",
        "NameLost": "told",
        "Fetch": "fetch",
        "Names": "names",
        "Sum": "maybe",
    }


def test_a_method_may_take_the_call():
    class Later(Server):
        async def add(self, call: Call[Add | Reset]) -> None: ...

    assert Later.__table__[Add].takes_call
    assert Later.__table__[Reset].takes_call


def test_a_subclass_overrides_by_name_and_inherits_the_rest():
    class Base(Server):
        async def add(self, message: Add) -> int:
            return 0

        async def note(self, message: Note) -> None: ...

    class Derived(Base):
        async def add(self, message: Add | Reset) -> Any:
            return 0

    class Without(Base):
        add = None  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    assert handled(Base) == {"Add": "add", "Note": "note"}
    assert handled(Derived) == {"Add": "add", "Reset": "add", "Note": "note"}
    assert Derived.__table__[Add].function is Derived.add
    assert handled(Without) == {"Note": "note"}


def test_what_a_base_class_names_need_not_be_known_where_it_is_derived_from():
    def base() -> type[Server]:
        class Inner(Request[int]):
            pass

        class Base(Server):
            async def inner(self, message: Inner) -> int:
                return 0

        return Base

    class Derived(base()):  # type: ignore[misc]
        async def add(self, message: Add) -> int:
            return 0

    assert handled(Derived) == {"Inner": "inner", "Add": "add"}


def test_a_type_nested_in_the_class_is_found():
    class Counter(Server):
        class Step(Request[int]):
            pass

        async def step(self, message: Step) -> int:
            return 0

    assert handled(Counter) == {"Step": "step"}


WRONG: dict[str, tuple[str, str]] = {
    "a type taken twice": (
        "async def add(self, message: Add) -> int: ...\nasync def more(self, message: Note | Add) -> int: ...",
        "Wrong.add and Wrong.more both handle Add: one method takes a type",
    ),
    "another return type": (
        "async def add(self, message: Add) -> str: ...",
        "Wrong.add returns str, but the reply to Add is int: change the one or the other",
    ),
    "nothing returned": (
        "async def add(self, message: Add) -> None: ...",
        "Wrong.add returns NoneType, but the reply to Add is int",
    ),
    "more than is promised": (
        "async def add(self, message: Add) -> int | str: ...",
        "Wrong.add returns int | str, but the reply to Add is int",
    ),
    "never what one of two promises": (
        "async def both(self, message: Add | Reset) -> int: ...",
        "Wrong.both returns int, but the reply to Reset is NoneType",
    ),
    "a list of something else": (
        "async def names(self, message: Names) -> list[int]: ...",
        r"Wrong.names returns list\[int\], but the reply to Names is list\[str\]",
    ),
    "a Call and an answer": ("async def add(self, call: Call[Add]) -> int: ...", "answers it itself, but says it ret"),
    "no annotation": ("async def add(self, message): ...", "Wrong.add takes nothing, which is no message type"),
    "a builtin": ("async def add(self, key: str) -> int: ...", "Wrong.add takes str, which is no message type"),
    "any call": ("async def add(self, call: Call) -> int: ...", "Wrong.add takes Call, which is no message type"),
    "no parameter": ("async def add(self) -> int: ...", "Wrong.add has not one parameter"),
    "two parameters": ("async def add(self, a: Add, b: int) -> int: ...", "Wrong.add has not one parameter"),
    "a keyword": ("async def add(self, *, a: Add) -> int: ...", "Wrong.add has not one parameter"),
}


@pytest.mark.parametrize("strings", [False, True], ids=["evaluated", "strings"])
@pytest.mark.parametrize(("body", "message"), WRONG.values(), ids=WRONG)
def test_a_class_that_cannot_work_is_refused_when_it_is_made(body: str, message: str, strings: bool):
    head = "from __future__ import annotations\n" if strings else ""
    text = f"{head}class Wrong(Server):\n" + "\n".join(f"    {line}" for line in body.splitlines())
    with pytest.raises(TypeError, match=message):
        exec(compile(text, "wrong", "exec", dont_inherit=True), dict(globals()))


def test_a_subclass_can_break_what_its_base_class_did():
    class Base(Server):
        async def add(self, message: Add) -> int:
            return 0

    with pytest.raises(TypeError, match=r"add and .*more both handle Add"):

        class Derived(Base):  # pyright: ignore[reportUnusedClass]
            async def more(self, message: Add) -> int:
                return 0


def test_names_that_are_defined_later_are_looked_up_at_the_first_spawn():
    names: dict[str, Any] = {}
    exec(
        "from __future__ import annotations\n"
        "from kinfolk import Server, Request\n"
        "class Early(Server):\n"
        "    async def late(self, message: Late) -> int: ...\n",
        names,
    )
    early: type[Server] = names["Early"]
    assert early.__handlers__ is None
    with pytest.raises(TypeError, match="an annotation of Early cannot be read: name 'Late' is not defined; import it"):
        begin(early, "too", "many")
    exec("class Late(Request[int]): pass", names)
    with pytest.raises(TypeError, match="Early has no init, and so takes no arguments"):
        begin(early, "too", "many")
    assert handled(early) == {"Late": "late"}


def test_what_only_type_checkers_import_is_told():
    class Blind(Server):
        async def add(self, message: Add) -> Decimal:
            raise NotImplementedError

    with pytest.raises(TypeError, match="name 'Decimal' is not defined"):
        begin(Blind)
