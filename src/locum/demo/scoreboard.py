"""A table that fills as a demo goes on: live on a terminal, printed once at its end elsewhere.

Knows what is written into it, and nothing of how it came about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text


@dataclass(slots=True)
class Line:
    """One line: `cells` as its columns are called, and how it went; `fault` is empty while nothing went wrong."""

    cells: list[str]
    done: bool = False
    fault: str = ""


class Scoreboard:
    """A context manager: the table of `columns`, and a result beside each line."""

    def __init__(self, console: Console, title: str, columns: Sequence[str]) -> None:
        self._console = console
        self._title = title
        self._columns = tuple(columns)
        self._lines: list[Line] = []
        # What is printed meanwhile appears above the table.
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self._drawn)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()
        if not self._console.is_terminal:
            self._console.print()

    def begin(self, *cells: str) -> Line:
        """A new line, under way."""
        self._lines.append(Line(list(cells)))
        return self._lines[-1]

    def end(self, line: Line, *, fault: str = "", **cells: str) -> None:
        """The line is done; `cells` are what is known now, by the names of their columns."""
        for name, text in cells.items():
            line.cells[self._columns.index(name)] = text
        line.done, line.fault = True, fault
        if not self._console.is_terminal:
            # Where nothing is drawn until the end, one line says how far it is.
            self._console.print(Text.assemble("  ", _result(line), f"  {', '.join(filter(None, line.cells))}"))

    @property
    def faults(self) -> list[str]:
        """What went wrong, line by line, and what was begun and not ended."""
        bad = [line for line in self._lines if line.fault or not line.done]
        return [f"{line.cells[0]}: {line.fault or 'not done'}" for line in bad]

    @property
    def count(self) -> int:
        """How many lines there are."""
        return len(self._lines)

    def _drawn(self) -> RenderableType:
        table = Table(
            box=box.SIMPLE_HEAD, title=self._title, title_justify="left", title_style="bold", pad_edge=False
        )
        for name in self._columns:
            table.add_column(name, overflow="fold")
        table.add_column("result")
        for line in self._lines:
            table.add_row(*line.cells, _result(line))
        return table


def _result(line: Line) -> Text:
    if line.fault:
        return Text("FAILED", style="bold red")
    return Text("ok", style="bold green") if line.done else Text("...", style="yellow")
