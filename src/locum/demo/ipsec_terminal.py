"""`locum terminal ipsec` as a process in a namespace, watched through what `--verbose` prints.

Knows the command line and the lines it prints, and nothing of what is behind them.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from locum.demo.namespaces import Namespace
from locum.demo.process import POLL_INTERVAL, BackgroundProcess
from locum.errors import Unavailable
from locum.terminal.steps import Actor, StepName, TerminalStep

#: Seconds that a terminal has for what is waited for.
PATIENCE = 20.0
_STEP = re.compile(
    rf"^(?:\s*(?P<at>[\d.]+) +)?(?P<actor>{'|'.join(Actor)}) +(?P<operation>{'|'.join(StepName)}) +(?P<detail>.*?)"
    r"(?:  \((?P<out>\d+) bytes out, (?P<in>\d+) in\))?(?:  (?P<milliseconds>[\d.]+) ms)?$"
)


class IpsecTerminal:
    """One run of the command in `directory`, with its log in `name`.log there; a context manager.

    `show` is told each step while somebody waits or looks. `steps` and `lines` are what it has printed so far:
    steps, and everything else, the reports. `began` and `at` are when it took the first and the last step, in
    seconds of its own clock.
    """

    def __init__(
        self,
        namespace: Namespace,
        directory: Path,
        name: str,
        arguments: Sequence[str],
        *,
        show: Callable[[TerminalStep], None] = lambda step: None,
    ) -> None:
        self.arguments = ["terminal", "ipsec", *arguments, "--verbose"]
        self.steps: list[TerminalStep] = []
        self.lines: list[str] = []
        self.began: float | None = None
        self.at = 0.0
        self._show = show
        self._read = 0
        self._process = BackgroundProcess(
            "locum terminal ipsec",
            namespace.command([sys.executable, "-m", "locum", *self.arguments]),
            log_path=directory / f"{name}.log",
            working_directory=directory,
            ready=lambda log: any(line.startswith("ready ") for line in log.splitlines()),
        )

    def start(self) -> Self:
        """Start it and wait until it listens. Raises: Unavailable."""
        self._process.start()
        return self

    def stop(self) -> int:
        """End it in order, so that it deletes its SAs; returns its exit status. Stopping twice is harmless."""
        status = self._process.stop()
        self.look()
        return status

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id, while it runs."""
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything it has printed."""
        return self._process.log

    def look(self) -> None:
        """Take in, and show, what it has printed since the last look."""
        whole, newline, _ = self._process.log[self._read :].rpartition("\n")
        self._read += len(whole) + len(newline)
        for line in whole.splitlines():
            found = _STEP.match(line)
            if found is None:
                self.lines.append(line)
                continue
            self.at = float(found["at"] or 0)
            self.began = self.at if self.began is None else self.began
            self.steps.append(_step(found))
            self._show(self.steps[-1])

    def wait(self, *beginnings: str, count: int = 1, patience: float = PATIENCE) -> str:
        """Wait for the report number `count` that begins in one of these ways; returns the line.

        Raises: Unavailable, with the last line, when it ends before or does not say so within `patience` seconds.
        """
        deadline = time.monotonic() + patience
        while True:
            running = self._process.running
            self.look()
            found = [line for line in self.lines if line.startswith(beginnings)]
            if len(found) >= count:
                return found[count - 1]
            if not running or time.monotonic() > deadline:
                last = next((line for line in reversed(self.lines) if line.strip()), "nothing")
                fault = f"did not say {beginnings[0]!r} within {patience:g} s" if running else "ended"
                raise Unavailable(f"locum terminal ipsec {fault}; its last words: {last}")
            time.sleep(POLL_INTERVAL)


def parse_step(line: str) -> TerminalStep | None:
    """The step that a line of `--verbose` tells of; None for any other line."""
    found = _STEP.match(line)
    return None if found is None else _step(found)


def _step(found: re.Match[str]) -> TerminalStep:
    return TerminalStep(
        actor=Actor(found["actor"]),
        operation=StepName(found["operation"]),
        detail=found["detail"],
        bytes_out=int(found["out"] or 0),
        bytes_in=int(found["in"] or 0),
        seconds=float(found["milliseconds"] or 0) / 1000,
    )
