"""What other nodes may start here, and how a function is named across nodes: ``module:qualname``.

`Allowed` is a table from such names to functions, made once, when the node starts. What a peer says is looked up in it
and nothing else is done with it: no module is imported and no attribute is followed on a peer's word, so there is no
name that leads out of the list.
"""

import importlib
import inspect
import logging
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from kinfolk.errors import NotAllowed, NotSerializable, SpawnFailed
from kinfolk.logs import fields

_log = logging.getLogger("kinfolk")

Spawnable = Callable[..., Any]
"""A coroutine function, or a class with an ``async def init``."""

MAX_NAME = 1024
"""Characters of a name on the wire."""


def name_of(body: object) -> str:
    """The name of a function or class by which another node can find it.

    Raises:
        NotSerializable: it has none that would mean the same there; the message says what to do.
    """
    if not (inspect.isfunction(body) or inspect.isclass(body)):
        raise NotSerializable(
            f"{body!r} has no name on other nodes: give a function or class that is defined in a module, and arguments"
        )
    module, name = body.__module__, body.__qualname__
    remedy = "move it into a module that both nodes can import"
    if module == "__main__":
        raise NotSerializable(f"{name} is defined in __main__, which is another module on every node: {remedy}")
    if "<" in name:
        raise NotSerializable(f"{name} is defined inside a function, where no other node can find it: {remedy}")
    return f"{module}:{name}"


def check_function_name(name: str) -> str:
    """Return the text unchanged if it is a ``module:qualname``.

    Raises:
        ValueError: it is not.
    """
    module, colon, path = name.partition(":")
    if not colon or len(name) > MAX_NAME or not all(map(str.isidentifier, [*module.split("."), *path.split(".")])):
        raise ValueError(f"{name!r} is no name of a function: expected module:function, as in 'jobs.images:resize'")
    return name


class Allowed:
    """The functions and classes that other nodes may start here.

    Args:
        entries: functions, classes, and texts. ``"module:function"`` is the one thing that it leads to at the start.
            ``"package.*"`` is each coroutine function, and each class with an ``async def init``, that is defined at
            the top of this module or of one below it, under a name that does not begin with an underscore.

    Raises:
        TypeError, ValueError: an entry is none of these, or cannot be named.
    """

    def __init__(self, entries: Sequence[Spawnable | str] = ()) -> None:
        if isinstance(entries, str):
            raise TypeError(f"allow_spawn={entries!r}: give a list, as in allow_spawn=[{entries!r}]")
        self._entries = list(entries)
        self._table: dict[str, Spawnable] = {}
        self._broken: dict[str, str] = {}
        for entry in self._entries:
            if not isinstance(entry, str):
                self._table[name_of(entry)] = _checked(entry, name_of(entry))
            elif entry.endswith(".*"):
                check_function_name(f"{entry.removesuffix('.*')}:_")
            else:
                check_function_name(entry)

    def __iter__(self) -> Iterator[str]:
        """All names under which something can be started."""
        return iter(self._table)

    def resolve(self, node: str) -> None:
        """Import what the texts name. From now on the table is final.

        Modules below a package that cannot be imported are left out, and said so in the log of this node.

        Raises:
            ValueError: what an entry names is not there, cannot be imported, or cannot be started.
        """
        for entry in self._entries:
            if not isinstance(entry, str):
                continue
            if entry.endswith(".*"):
                for module in self._modules(entry.removesuffix(".*"), entry, node):
                    self._table.update(_defined_in(module))
            else:
                body = _resolved(entry)
                self._table[entry] = body
                if "<" not in body.__qualname__:  # and by its own name, if it was listed where it is only imported
                    self._table[f"{body.__module__}:{body.__qualname__}"] = body

    def find(self, name: str) -> Spawnable:
        """What another node means by this name.

        Raises:
            NotAllowed: it is not on the list, whether or not there is such a thing.
            SpawnFailed: it is, but its module could not be imported at the start.
        """
        body = self._table.get(name)
        if body is not None:
            return body
        module = name.partition(":")[0]
        if module in self._broken:
            raise SpawnFailed(f"{module} could not be imported when the node started: {self._broken[module]}")
        text = f"{name[:200]!r} is not on the list of what may be started here"
        raise NotAllowed(f"{text}: add it to Node(allow_spawn=[...])")

    def _modules(self, name: str, entry: str, node: str) -> Iterator[ModuleType]:
        module = _imported(name, entry)
        yield module
        waiting = [module]
        while waiting:
            package = waiting.pop()
            for found in pkgutil.iter_modules(getattr(package, "__path__", ()), package.__name__ + "."):
                if found.name.endswith(".__main__"):
                    continue  # importing it would run a program
                try:
                    module = importlib.import_module(found.name)
                except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a module does
                    self._broken[found.name] = f"{type(error).__name__}: {error}"
                    _log.warning(
                        "allow_spawn=%r goes without %s: %r",
                        entry,
                        found.name,
                        error,
                        extra=fields(node, runs=found.name, reason=repr(error)),
                    )
                    continue
                yield module
                waiting.append(module)


def _imported(name: str, entry: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise ValueError(
            f"allow_spawn={entry!r}: {name} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _resolved(entry: str) -> Spawnable:
    module, _, path = entry.partition(":")
    found: Any = _imported(module, entry)
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise ValueError(f"allow_spawn={entry!r}: {error}") from None
    return _checked(found, entry)


def _checked(body: Spawnable, entry: str) -> Spawnable:
    """Raise ValueError for what surely cannot be a process: who lists it means something else."""
    if inspect.isfunction(body) or _is_server(body):
        return body
    what = "a class without an async def init" if inspect.isclass(body) else f"a {type(body).__name__}"
    raise ValueError(f"allow_spawn: {entry} is {what}: list coroutine functions, as spawn() takes them")


def _defined_in(module: ModuleType) -> Iterator[tuple[str, Spawnable]]:
    """What was defined at the top of a module, and not only imported there, and can be a process."""
    for name, value in list(vars(module).items()):
        if name.startswith("_") or not (_is_coroutine_function(value) or _is_server(value)):
            continue
        if (value.__module__, value.__qualname__) == (module.__name__, name):
            yield f"{module.__name__}:{name}", value


def _is_coroutine_function(value: object) -> bool:
    return inspect.isfunction(value) and inspect.iscoroutinefunction(value)


def _is_server(value: object) -> bool:
    return inspect.isclass(value) and inspect.iscoroutinefunction(getattr(value, "init", None))
