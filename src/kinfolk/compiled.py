"""What the classes of modules that mypyc may compile need: the mark that lets uncompiled ones inherit from them.

Nobody needs mypyc, or its package of marks, to run kinfolk: without it the mark says nothing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_marks: object) -> Callable[[T], T]:
        """Leave the class as it is."""
        return lambda marked: marked


__all__ = ["mypyc_attr"]
