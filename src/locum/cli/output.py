"""What the commands print: tables for people, JSON for programs, notes and warnings on standard error.

Never prints a control character that came from a certificate, a peer or a file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from locum.text import printable

#: Columns assumed when standard output is no terminal: wide enough that nothing is wrapped for a program.
_PIPE_WIDTH = 10_000


def say(text: str) -> None:
    """Print one line of result on standard output."""
    print(printable(text))  # noqa: T201


def announce(line: str) -> None:
    """Print one line that others wait for, in one write: the logs of other processes go to the same place.

    Raises: OSError when whoever waited has gone.
    """
    sys.stdout.write(f"{printable(line)}\n")
    sys.stdout.flush()


def warn(text: str) -> None:
    """Print one line on standard error about something that may not be what the user wants."""
    print(f"locum: warning: {printable(text)}", file=sys.stderr)  # noqa: T201


def note(text: str) -> None:
    """Print one line on standard error that helps and can be ignored."""
    print(f"locum: {printable(text)}", file=sys.stderr)  # noqa: T201


def moment(seconds: float) -> str:
    """A time in seconds since the epoch, in UTC, for people and for JSON."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def print_list(records: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """Print `records` as a JSON array with everything in them, or as a table of `columns`.

    `empty` is said on standard error in place of a table without rows.
    """
    if as_json:
        print(json.dumps(records, indent=2))  # noqa: T201
        return
    if not records:
        note(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.upper().replace("_", " "), overflow="fold")
    for record in records:
        table.add_row(*(Text(printable(_cell(record[column]))) for column in columns))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    console.print(table)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
