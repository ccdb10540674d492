"""How `--verbose` shows what a terminal does: one line on standard error for each step.

Imports no engine: what a step says was put into words before.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from locum.terminal.steps import Observer, TerminalStep
from locum.text import printable


def show_step(step: TerminalStep) -> None:
    """Print one step: who, what, the bytes out and in, and how long it took."""
    print(line_of(step), file=sys.stderr)  # noqa: T201


def timed(clock: Callable[[], float] = time.monotonic) -> Observer:
    """As `show_step`, with the seconds since now in front."""
    began = clock()

    def show(step: TerminalStep) -> None:
        print(f"{clock() - began:10.4f}  {line_of(step)}", file=sys.stderr)  # noqa: T201

    return show


def line_of(step: TerminalStep) -> str:
    """The line for one step."""
    line = f"{step.actor:<8}  {step.operation:<13}  {printable(step.detail)}"
    if step.bytes_out or step.bytes_in:
        line += f"  ({step.bytes_out} bytes out, {step.bytes_in} in)"
    if step.seconds:
        line += f"  {step.seconds * 1000:.1f} ms"
    return line
