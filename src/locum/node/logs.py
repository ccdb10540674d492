"""The format of log lines: text for people or JSON for machines, one line each, on stderr.

Never knows what is logged; that no secret is among it is the business of those who log.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Literal, TextIO

from locum.text import printable

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


class TextFormatter(logging.Formatter):
    """`TIME LEVEL logger: message name=value ...`"""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname.lower():7} {record.name}: {printable(record.getMessage())}"
        for name, value in _fields(record).items():
            line += f" {name}={printable(str(value))}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the fields of the call."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(*, level: LogLevel, form: LogFormat, stream: TextIO | None = None) -> None:
    """Send locum's log of `level` and above, and warnings of libraries, to `stream` (stderr) in `form`.

    Libraries stay silent below that: what they would say there, nobody here has read for secrets.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("locum").setLevel(level.upper())
    logging.captureWarnings(True)  # a library that warns of an old algorithm keeps to our form
    logging.raiseExceptions = False  # a full disk behind stderr must not disturb the node
