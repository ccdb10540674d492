"""A node of one's own in a directory, run and administered by the command line as a user would.

Knows the commands and nothing of what is behind them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from locum.demo.namespaces import Namespace
from locum.demo.process import BackgroundProcess
from locum.errors import Unavailable

DATA = "node"
COMMAND_TIMEOUT = 60.0


class DemoNode:
    """`locum up` on free ports of `listen`, with its data in `directory`/node; a context manager.

    It is a delegate, unless it is a `key_server`; several of these can share the data. `name` is that of its log.
    `show` is told each command line and what it printed. `configuration` is the content of a locum.toml.
    `interpreter_options` go to the node's Python, a profiler for example. It runs in `namespace`, if there is one.
    """

    def __init__(
        self,
        directory: Path,
        *,
        listen: str = "127.0.0.1",
        key_server: bool = False,
        name: str = "node",
        namespace: Namespace | None = None,
        configuration: str = "",
        interpreter_options: Sequence[str] = (),
        show: Callable[[Sequence[str], str], None] = lambda words, output: None,
    ) -> None:
        self.directory = directory
        self.name = name
        self._show = show
        role = ("--no-delegate", "--key-server") if key_server else ("--listen",)
        self._arguments = ["up", "--data", DATA, *role, f"{listen}:0"]
        if configuration:
            (directory / f"{name}.toml").write_text(configuration, encoding="utf-8")
            self._arguments += ["--config", f"{name}.toml"]
        command = [sys.executable, *interpreter_options, "-m", "locum", *self._arguments]
        self.process = BackgroundProcess(
            "locum up",
            command if namespace is None else namespace.command(command),
            log_path=directory / f"{name}.log",
            ready=lambda log: _ready_line(log) is not None,
            working_directory=directory,
        )

    @property
    def address(self) -> str:
        """The delegate's address, for credential files."""
        return self._announced("delegate")

    @property
    def key_server(self) -> str:
        """The key server's address, for the credentials of edges."""
        return self._announced("keyserver")

    def _announced(self, role: str) -> str:
        words = (_ready_line(self.process.log) or "").split()
        found = [word.removeprefix(f"{role}=") for word in words if word.startswith(f"{role}=")]
        if not found:
            raise Unavailable(f"the node is not running as a {role}")
        return found[0]

    def start(self) -> Self:
        """Start it and wait until it serves. Raises: Unavailable."""
        self.process.start()
        self._show(("locum", *self._arguments), _ready_line(self.process.log) or "")
        return self

    def restart(self) -> Self:
        """Start it again where it was, after it has been killed. Raises: Unavailable."""
        line = _ready_line(self.process.log) or ""
        addresses = [word.rpartition("=")[2].rpartition("/")[2] for word in line.split() if ":" in word]
        self._arguments = [addresses[0] if word.endswith(":0") else word for word in self._arguments]
        self.process.command = [addresses[0] if word.endswith(":0") else word for word in self.process.command]
        return self.start()

    def command(self, *words: str, standard_input: str = "") -> str:
        """Run `locum WORDS` on this node's data and return what it printed. Raises: Unavailable when it fails."""
        words = (*words, "--data", DATA)
        done = subprocess.run(  # noqa: S603 - our own program and words
            [sys.executable, "-m", "locum", *words],
            cwd=self.directory,
            input=standard_input,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        self._show(("locum", *words), done.stdout)
        if done.returncode != 0:
            raise Unavailable(f"locum {words[0]} failed: {done.stderr.strip()}")
        return done.stdout

    def enroll(self, terminal: str) -> Path:
        """Enrol a terminal; returns its credential file."""
        name = f"{terminal}.credential"
        self.command("enroll", "terminal", terminal, "--address", self.address, "--out", name)
        return self.directory / name

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.stop()


def _ready_line(log: str) -> str | None:
    return next((line for line in log.splitlines() if line.startswith("ready ")), None)
