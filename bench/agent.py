"""The program at the other end of an `Agent`: does what it is told, one order after the other, on one event loop.

``python -m bench.agent asyncio|uvloop``. An order is a line ``["module:function", [arguments]]`` on standard input; the
function is async, and gets a `Here` and the arguments. The answer is a line on standard output, ``{"value": ...}`` or
``{"error": ...}``. When the input ends, so does the program.
"""

import asyncio
import importlib
import json
import os
import sys
import traceback
from typing import Any


class Here:
    """What the functions of one agent keep between two orders."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}


async def serve(answers: Any) -> None:
    """Carry out orders until there are no more."""
    reader = asyncio.StreamReader(limit=2**26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    here = Here()
    while line := await reader.readline():
        where, arguments = json.loads(line)
        module, _, name = where.partition(":")
        try:
            answer = {"value": await getattr(importlib.import_module(module), name)(here, *arguments)}
        except Exception:  # noqa: BLE001 - whatever it is, the one who ordered is told
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Run on the loop that is asked for."""
    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    factory = importlib.import_module("uvloop").new_event_loop if sys.argv[1] == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(answers))
        answers.flush()
        os._exit(0)  # what a reference has left running (threads, loops of its own) must not keep us


if __name__ == "__main__":
    main()
