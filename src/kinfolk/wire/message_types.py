"""Message types: what they are called on the wire, and which of their fields are open.

A message type is a msgspec Struct or a dataclass. Its fields are encoded as they are declared: the receiver's
declaration says how to read them. A field declared as ``Any``, ``object`` or some class that MessagePack does not know
is *open*: only the value itself can say what it is, so it is encoded like a message of its own. Which fields are open
is found once for each type; a type without open fields is left to msgspec altogether.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, get_origin

import msgspec
from msgspec import inspect

SCALARS = frozenset({type(None), bool, int, float, str, bytes})
"""What MessagePack carries as it is, and what the key of a dict may be."""

Lower = Callable[[Any, int], object]
"""Turns a value into what msgspec can encode. The number says how many levels of nesting are still allowed."""

TOO_DEEP = "nested too deeply (more than 100 levels), or it contains itself"


class Unsendable(Exception):
    """Some part of a message cannot be sent. `path` leads to it, innermost step first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


def is_message_type(kind: type) -> bool:
    """Whether its instances travel as named messages."""
    # The class of all Structs describes their fields as well; its instances are classes, which do not travel.
    return (hasattr(kind, "__struct_fields__") or hasattr(kind, "__dataclass_fields__")) and not issubclass(kind, type)


def wire_name(kind: type) -> str:
    """The name of a message type on the wire: the ``tag=`` of the Struct, else ``module:qualname``.

    Raises:
        Unsendable: the name would mean nothing on another node.
    """
    tag = _own_tag(kind)
    if tag is not None:
        return tag
    module, name = kind.__module__, kind.__qualname__
    if module != "__main__" and "<locals>" not in name:
        return f"{module}:{name}"
    where = "in __main__, which is another module on every node" if module == "__main__" else "inside a function"
    remedy = (
        f'give it a name (class {kind.__name__}(..., tag="{kind.__name__.lower()}")), or move it into a module'
        if issubclass(kind, msgspec.Struct)
        else "move it into a module"
    )
    raise Unsendable(f"{kind.__name__} is defined {where}: {remedy}")


def _own_tag(kind: type) -> str | None:
    """The tag, unless it is a number or only inherited: a name for one class cannot name another."""
    if not issubclass(kind, msgspec.Struct):
        return None
    tag = kind.__struct_config__.tag
    inherited = any(issubclass(base, msgspec.Struct) and base.__struct_config__.tag == tag for base in kind.__mro__[1:])
    return tag if isinstance(tag, str) and not inherited else None


def described(annotation: object) -> inspect.Type:
    """What msgspec knows of a type.

    Raises:
        TypeError: it cannot be a message type, or part of one; the message says why.
    """
    try:
        return inspect.type_info(annotation)
    except (TypeError, NameError, AttributeError, RecursionError) as error:
        name = annotation.__qualname__ if isinstance(annotation, type) else repr(annotation)
        raise TypeError(f"{name} cannot be a message type: {error}") from error


def message_types_in(annotation: object) -> tuple[type, ...]:
    """The Structs and dataclasses that an annotation mentions, those in their fields included.

    Raises:
        TypeError: as `described`.
    """
    found = _message_types_in(annotation)
    if isinstance(found, str):
        raise TypeError(found)
    return found


@lru_cache(256)
def _message_types_in(annotation: object) -> tuple[type, ...] | str:
    """Those types; or the text of why it cannot be a message type, if it never can.

    It takes a tenth of a millisecond to find out, for each node that is started and for each ``receive(Down)``.
    """
    try:
        parts = _reachable(described(annotation))
    except TypeError as error:
        if isinstance(error.__cause__, TypeError):
            return str(error)
        raise  # a name in it may yet come to be defined
    return tuple(
        get_origin(part.cls) or part.cls
        for part in parts
        if isinstance(part, inspect.StructType | inspect.DataclassType)
    )


def lowering_of(kind: type, lower_any: Lower) -> Lower | None:
    """How instances of a message type become what msgspec can encode; None if they already are.

    Args:
        kind: the type.
        lower_any: used for whatever is in an open field.

    Raises:
        TypeError: as `described`.
    """
    return _Compiler(lower_any).compile(described(kind))


class _Compiler:
    """Makes one function for each part of a type that has open fields. Types may contain themselves."""

    def __init__(self, lower_any: Lower) -> None:
        self._lower_any = lower_any
        self._made: dict[int, list[Lower]] = {}

    def compile(self, kind: inspect.Type) -> Lower | None:
        if not any(isinstance(part, inspect.AnyType | inspect.CustomType) for part in _reachable(kind)):
            return None
        made = self._made.get(id(kind))
        if made is not None:
            # Empty: it is being made further up, the type contains itself.
            return made[0] if made else lambda value, depth: made[0](value, depth)
        holder: list[Lower] = []
        self._made[id(kind)] = holder
        holder.append(self._make(kind))
        return holder[0]

    def _make(self, kind: inspect.Type) -> Lower:
        match kind:
            case inspect.Metadata(type=inner):
                return self.compile(inner) or _as_it_is
            case inspect.StructType() | inspect.DataclassType():
                return self._fields(kind)
            case inspect.TypedDictType():
                return self._typed_dict(kind)
            case inspect.CollectionType(item_type=item):
                return self._items(item)
            case inspect.TupleType(item_types=items):
                return self._positions(items)
            case inspect.NamedTupleType():
                return self._positions([field.type for field in kind.fields])
            case inspect.DictType(key_type=key, value_type=item):
                return self._entries(key, item)
            case inspect.UnionType(types=options):
                return self._union(options)
            case _:
                return self._lower_any

    def _fields(self, kind: inspect.StructType | inspect.DataclassType) -> Lower:
        origin = get_origin(kind.cls) or kind.cls
        fields = [(field.name, field.encode_name, self.compile(field.type)) for field in kind.fields]
        tagged: dict[str, object] = {}
        as_array = False
        if isinstance(kind, inspect.StructType):
            as_array = kind.array_like
            if kind.tag_field is not None:
                tagged[kind.tag_field] = kind.tag

        def lower(value: Any, depth: int) -> object:
            if type(value) is not origin:
                raise Unsendable(f"found {type(value).__name__} where the message type says {origin.__name__}")
            _check(depth)
            lowered: dict[str, object] = dict(tagged)
            for name, encode_name, inner in fields:
                part = getattr(value, name)
                if inner is not None:
                    try:
                        part = inner(part, depth - 1)
                    except Unsendable as blame:
                        blame.path.append(f".{name}")
                        raise
                if part is not msgspec.UNSET:
                    lowered[encode_name] = part
            return list(lowered.values()) if as_array else lowered

        return lower

    def _typed_dict(self, kind: inspect.TypedDictType) -> Lower:
        fields = {field.encode_name: self.compile(field.type) or _as_it_is for field in kind.fields}

        def lower(value: Any, depth: int) -> object:
            _expect(value, dict, depth)
            return _lower_each(value, ((key, fields.get(key, _as_it_is)) for key in value), depth)

        return lower

    def _entries(self, key_kind: inspect.Type, item: inspect.Type) -> Lower:
        inner = self.compile(item) or _as_it_is
        keys_are_open = self.compile(key_kind) is not None

        def lower(value: Any, depth: int) -> object:
            _expect(value, dict, depth)
            if keys_are_open:
                check_keys(value)
            return _lower_each(value, ((key, inner) for key in value), depth)

        return lower

    def _items(self, item: inspect.Type) -> Lower:
        inner = self.compile(item) or _as_it_is

        def lower(value: Any, depth: int) -> object:
            _expect(value, (list, tuple, set, frozenset), depth)
            return lower_items(value, inner, depth)

        return lower

    def _positions(self, items: Iterable[inspect.Type]) -> Lower:
        inners = [self.compile(item) or _as_it_is for item in items]

        def lower(value: Any, depth: int) -> object:
            _expect(value, tuple, depth)
            if len(value) != len(inners):
                raise Unsendable(f"found a tuple of {len(value)} where the message type says {len(inners)}")
            return list(_lower_each(value, enumerate(inners), depth).values())

        return lower

    def _union(self, options: Iterable[inspect.Type]) -> Lower:
        choices = [(_python_types(option), inner) for option in options if (inner := self.compile(option)) is not None]

        def lower(value: Any, depth: int) -> object:
            for types, inner in choices:
                if isinstance(value, types) and value is not None:
                    return inner(value, depth)
            return value

        return lower


def _python_types(option: inspect.Type) -> type | tuple[type, ...]:
    """The types of the values that this option of a union is for."""
    match option:
        case inspect.Metadata(type=inner):
            return _python_types(inner)
        case inspect.StructType() | inspect.DataclassType():
            return get_origin(option.cls) or option.cls
        case inspect.DictType() | inspect.TypedDictType():
            return dict
        case inspect.CollectionType() | inspect.TupleType() | inspect.NamedTupleType():
            return (list, tuple, set, frozenset)
        case _:
            return object


def _reachable(kind: inspect.Type) -> Iterator[inspect.Type]:
    """A type and everything that it is made of, each once."""
    seen: dict[int, inspect.Type] = {}
    waiting = [kind]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        yield part
        match part:
            case inspect.Metadata(type=inner):
                waiting.append(inner)
            case inspect.CollectionType(item_type=item):
                waiting.append(item)
            case inspect.TupleType(item_types=items) | inspect.UnionType(types=items):
                waiting.extend(items)
            case inspect.DictType(key_type=key, value_type=item):
                waiting.extend((key, item))
            case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType() | inspect.NamedTupleType():
                waiting.extend(field.type for field in part.fields)
            case _:
                pass


def lower_items(items: Iterable[Any], lower: Lower, depth: int) -> list[object]:
    """Lower the members of a list, tuple or set."""
    lowered: list[object] = []
    try:
        for item in items:
            lowered.append(lower(item, depth - 1))  # noqa: PERF401 - its length is the path to what fails
    except Unsendable as blame:
        blame.path.append(f"[{len(lowered)}]")
        raise
    return lowered


def _lower_each(values: Any, lowers: Iterable[tuple[Any, Lower]], depth: int) -> dict[Any, object]:
    lowered: dict[Any, object] = {}
    for key, lower in lowers:
        try:
            lowered[key] = lower(values[key], depth - 1)
        except Unsendable as blame:
            blame.path.append(f"[{key!r}]")
            raise
    return lowered


def check_keys(entries: dict[Any, Any]) -> None:
    """Raise Unsendable if a key of a dict is no scalar."""
    if not SCALARS.issuperset(map(type, entries)):
        bad = next(key for key in entries if type(key) not in SCALARS)
        raise Unsendable(
            f"a key is a {type(bad).__name__}, and can only be a str, int, float, bool, bytes or None: convert it"
        )


def _check(depth: int) -> None:
    if depth <= 0:
        raise Unsendable(TOO_DEEP)


def _expect(value: object, types: type | tuple[type, ...], depth: int) -> None:
    _check(depth)
    if not isinstance(value, types):
        names = " or ".join(kind.__name__ for kind in (types if isinstance(types, tuple) else (types,)))
        raise Unsendable(f"found {type(value).__name__} where the message type says {names}")


def _as_it_is(value: object, depth: int) -> object:  # noqa: ARG001 - a Lower
    return value
