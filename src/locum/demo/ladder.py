"""How a demo looks: one line per step as it happens, drawn between the three parties, and a table at the end.

Knows what a terminal's observer is told, and nothing of how it came about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from locum.terminal.steps import Actor, StepName, TerminalStep

#: Columns of the three lifelines: terminal, delegate, peer.
TERMINAL_AT, DELEGATE_AT, PEER_AT = 4, 24, 44
WIDTH = PEER_AT + 4
STYLES = {Actor.TERMINAL: "cyan", Actor.DELEGATE: "green", Actor.PEER: "magenta"}
FAULTS = (StepName.ERROR, StepName.MALFUNCTION)


@dataclass(slots=True)
class Tally:
    """What one connection cost until its handshake was complete, counted from its steps."""

    round_trips: int = 0
    link_bytes: int = 0
    peer_bytes: int = 0
    seconds: dict[Actor, float] = field(default_factory=lambda: dict.fromkeys(Actor, 0.0))

    def add(self, step: TerminalStep) -> None:
        """Count one step."""
        length = step.bytes_out + step.bytes_in
        self.seconds[step.actor] += step.seconds
        if step.actor is Actor.DELEGATE:
            self.link_bytes += length
            self.round_trips += step.bytes_out > 0
        elif step.actor is Actor.PEER:
            self.peer_bytes += length


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One line of the summary; `fault` is empty when it worked, `skipped` says why nothing was tried.

    `achieved` is what there was to achieve, in a word or two.
    """

    way: str
    peer: str
    achieved: str = "page received"
    negotiated: str = ""
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    fault: str = ""
    skipped: str = ""


class Ladder:
    """Prints a demo to `console`."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @property
    def console(self) -> Console:
        """Where it prints."""
        return self._console

    def title(self, text: str) -> None:
        """The head of a part of the demo."""
        self._console.print()
        self._console.print(Text(text, style="bold"))

    def note(self, text: str, *, style: str = "") -> None:
        """One plain line."""
        self._line(Text(f"  {text}", style=style))

    def command(self, words: Sequence[str], output: str) -> None:
        """A command line that was run, and what it printed."""
        self._line(Text.assemble(("  $ ", "dim"), (" ".join(words), "bold")))
        for line in output.strip().splitlines():
            self._line(Text(f"    {line}", style="dim"))

    def heads(self) -> None:
        """The names of the three parties, above their lifelines, and of the columns beside them."""
        line = Text(" " * (WIDTH + 1))
        for actor, position in zip(Actor, (TERMINAL_AT, DELEGATE_AT, PEER_AT), strict=True):
            start = max(0, position - len(actor) // 2)
            line = line[:start] + Text(actor, style=f"bold {STYLES[actor]}") + line[start + len(actor) :]
        self._line(line + Text(f"{'bytes >':>7} {'< bytes':>7} {'ms':>7}  what", style="dim"))

    def step(self, step: TerminalStep) -> None:
        """One step of a handshake."""
        numbers = f"{step.bytes_out or '':>7} {step.bytes_in or '':>7} {_milliseconds(step.seconds):>7}"
        style = "bold red" if step.operation in FAULTS else ""
        self._line(Text.assemble(_rungs(step), " ", (numbers, "dim"), "  ", (step.detail, style)))

    def result(self, outcome: Outcome) -> None:
        """How one connection ended, in one line."""
        if outcome.fault:
            self._line(Text.assemble(("  FAILED ", "bold red"), f"{outcome.peer}: {outcome.fault}"))
            return
        tally = outcome.tally
        self._line(
            Text.assemble(
                (f"  {outcome.achieved} ", "bold green"),
                f"{outcome.peer}: {outcome.negotiated}; {tally.round_trips} round trips, "
                f"{tally.link_bytes} bytes to and from the delegate, {_milliseconds(outcome.seconds)} ms",
            )
        )

    def summary(self, outcomes: Sequence[Outcome]) -> None:
        """The table at the end."""
        table = Table(
            box=box.SIMPLE_HEAD, title="Summary", title_justify="left", title_style="bold", pad_edge=False
        )
        table.add_column("way")
        table.add_column("peer")
        table.add_column("negotiated", overflow="fold")
        for name in ("delegate\nround trips", "delegate\nbytes", "peer\nbytes", "ms"):
            table.add_column(name, justify="right")
        table.add_column("result")
        for outcome in outcomes:
            if outcome.skipped:
                table.add_row(outcome.way, outcome.peer, "", "", "", "", "", Text("left out", style="yellow"))
                continue
            tally = outcome.tally
            table.add_row(
                outcome.way,
                outcome.peer,
                outcome.negotiated,
                str(tally.round_trips),
                str(tally.link_bytes),
                str(tally.peer_bytes),
                _milliseconds(outcome.seconds),
                Text("FAILED", style="bold red") if outcome.fault else Text("ok", style="bold green"),
            )
        self._console.print()
        self._console.print(table)

    def _line(self, text: Text) -> None:
        # Never wrapped: a long detail must not break the drawing, and a pipe has no width.
        self._console.print(text, no_wrap=True, overflow="ignore", crop=False)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}" if seconds else ""


def _rungs(step: TerminalStep) -> Text:
    """The three lifelines with this step drawn on or between them."""
    cells = [" "] * (WIDTH + 1)
    for position in (TERMINAL_AT, DELEGATE_AT, PEER_AT):
        cells[position] = "│"
    label = f" {step.operation} "
    if step.actor is Actor.TERMINAL:
        cells[TERMINAL_AT] = "●"
        start = TERMINAL_AT + 1
    else:
        end = DELEGATE_AT if step.actor is Actor.DELEGATE else PEER_AT
        cells[TERMINAL_AT] = "├"
        cells[TERMINAL_AT + 1 : end] = "─" * (end - TERMINAL_AT - 1)
        cells[end] = "┤"
        # One message, not a message and its answer, has a direction.
        if not step.bytes_in and step.bytes_out:
            cells[end - 1] = "▶"
        elif not step.bytes_out and step.bytes_in:
            cells[TERMINAL_AT + 1] = "◀"
        start = TERMINAL_AT + (end - TERMINAL_AT - len(label)) // 2 + 1
    cells[start : start + len(label)] = label
    drawn = Text("".join(cells[: WIDTH + 1]), style="dim")
    drawn.stylize(f"not dim {STYLES[step.actor]}", start, start + len(label))
    return drawn
