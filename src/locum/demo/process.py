"""One program run in the background: started, awaited, its output kept, ended by its own process id.

Knows nothing of what the program does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from locum.errors import Unavailable

START_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0
POLL_INTERVAL = 0.01
#: How much of the end of a log goes into an error message, in characters.
LOG_TAIL = 400


class BackgroundProcess:
    """A context manager around one process whose output goes to the file `log_path`.

    `ready` looks at the log so far and says whether the program is in service. Standard input is a pipe that
    stays open, for programs that end with it or take commands from it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log_path: Path,
        ready: Callable[[str], bool],
        working_directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        inherited: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.command = [str(word) for word in command]
        self.log_path = log_path
        self._ready = ready
        self._working_directory = working_directory
        self._environment = environment
        self._inherited = tuple(inherited)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id; only while it runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """True while the process has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """Everything the program has printed, to standard output and error."""
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def start(self) -> Self:
        """Start it and wait until it is ready.

        Raises: Unavailable, with the end of the log, when it ends or is not ready within `START_TIMEOUT`.
        """
        environment = {**os.environ, **self._environment} if self._environment is not None else None
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own words, no shell
                self.command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._working_directory,
                env=environment,
                pass_fds=self._inherited,
                process_group=0,
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ready(self.log):
            if self._process.poll() is not None:
                raise Unavailable(f"{self.name} ended at once, status {self._process.returncode}: {self._tail()}")
            if time.monotonic() > deadline:
                self.stop()
                raise Unavailable(f"{self.name} was not ready after {START_TIMEOUT:.0f} s: {self._tail()}")
            time.sleep(POLL_INTERVAL)
        return self

    def write(self, data: bytes) -> None:
        """Write to the program's standard input."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def stop(self) -> int:
        """End it politely, by force after `STOP_TIMEOUT`; returns its exit status. Stopping twice is harmless."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.kill()
        status = self._process.wait()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        return status

    def kill(self) -> None:
        """End it and its own children without warning, as a crash would. Killing twice is harmless."""
        if self.running:
            os.killpg(self.pid, signal.SIGKILL)
            assert self._process is not None
            self._process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _tail(self) -> str:
        return " ".join(self.log[-LOG_TAIL:].split()) or "no output"
