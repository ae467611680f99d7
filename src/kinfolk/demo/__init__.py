"""`kinfolk demo`: three nodes in three OS processes show what a cluster does, and each step is checked on all of them.

`story` is what happens, `checks` says whether it is as promised, `stage` runs the processes, and `member` is the
program in each of them: a user's program, which knows nothing but the public interface.
"""

from kinfolk.demo.story import run

__all__ = ["run"]
