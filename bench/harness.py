"""What a benchmark is: a function with the names of the rows it measures. Never asserts on time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured value, and where there is one the reference measured in the same run."""

    name: str
    value: float
    unit: str
    reference: str | None = None
    reference_value: float | None = None

    def as_json(self) -> dict[str, object]:
        """The row as it is in results.json; ratio = value / reference_value."""
        ratio = None if not self.reference_value else round(self.value / self.reference_value, 4)
        return {
            "name": self.name,
            "value": round(self.value, 4),
            "unit": self.unit,
            "reference": self.reference,
            "reference_value": None if self.reference_value is None else round(self.reference_value, 4),
            "ratio": ratio,
        }


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One function that measures all of `names` in one go."""

    names: tuple[str, ...]
    measure: Callable[[], Sequence[Row]]


def process_seconds(pid: int) -> float:
    """CPU time of a process so far, user and system, all threads that it has.

    From the scheduler, in nanoseconds: the ticks of `stat` are too coarse for a few hundred handshakes.
    """
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


def alternate(calls: Sequence[Callable[[], None]], *, rounds: int) -> list[float]:
    """The least CPU time of each call, in seconds, over `rounds` rounds in which they take turns.

    Taking turns, so that whatever else the machine does falls on all of them.
    """
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for index, call in enumerate(calls):
            started = time.process_time()
            call()
            best[index] = min(best[index], time.process_time() - started)
    return best
