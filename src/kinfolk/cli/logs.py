"""The log of a node that the command line runs: lines to read, or JSON for whoever gathers them."""

import logging
from datetime import UTC, datetime

from msgspec import json

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; the rest are the fields that the program has given with ``extra``."""


def to_stderr(level: str, form: str) -> None:
    """Log to stderr what is at least of this level."""
    handler = logging.StreamHandler()
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else plain)
    logging.basicConfig(level=level.upper(), handlers=[handler])


class JsonLines(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, where, the traceback, and the fields of ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "where": f"{record.module}:{record.lineno}",
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        line |= {key: value for key, value in vars(record).items() if key not in _OWN and key not in line}
        return json.encode(line, enc_hook=repr).decode()
