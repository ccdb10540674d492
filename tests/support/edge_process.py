"""A real `locum edge` for tests: its own processes, in a directory with its certificates."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.edge import LOOPBACK

from locum.demo.process import BackgroundProcess

_READY = re.compile(r"^ready edge=127\.0\.0\.1:(\d+)$", re.MULTILINE)


class EdgeProcess:
    """One that serves at `port` of loopback."""

    def __init__(self, process: BackgroundProcess) -> None:
        found = _READY.search(process.log)
        assert found is not None
        self.port = int(found[1])
        self._process = process

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._process.log

    @property
    def pid(self) -> int:
        """Its first process, which takes the signals."""
        return self._process.pid

    @property
    def workers(self) -> list[int]:
        """The processes that serve."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        return [int(word) for word in children.split()]


@contextmanager
def edge_process(directory: Path, backend: int, *words: str | Path, processes: int = 1) -> Iterator[EdgeProcess]:
    """`locum edge` before the plain backend at a port of loopback; `words` are its other options."""
    command = [sys.executable, "-m", "locum", "edge", "--processes", str(processes), *map(str, words)]
    command += ["--listen", f"{LOOPBACK}:0", "--backend", f"{LOOPBACK}:{backend}"]
    with BackgroundProcess(
        "locum edge",
        command,
        log_path=directory / "edge.log",
        ready=lambda log: _READY.search(log) is not None,
        working_directory=directory,
    ) as process:
        yield EdgeProcess(process)
