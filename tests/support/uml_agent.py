"""The agent inside of a user-mode-linux guest (see uml.py): does calls, one by one, until it is told to end.

The line carries numbers of calls; calls and answers themselves are files in a directory of the host.
"""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import traceback
import tty
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple


class CommandResult(NamedTuple):
    """What came of a command: 124 is the status of one that took too long."""

    status: int
    output: str


@dataclass(frozen=True, slots=True)
class Call:
    """A function, as ``module:qualified name``, and what it is called with."""

    function: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call returned, or the traceback of what it raised."""

    value: Any = None
    failure: str = ""


def run_command(words: list[str], timeout: float) -> CommandResult:
    """Run a command to its end, or for so many seconds."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            text=True,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return CommandResult(124, (error.stdout or b"").decode(errors="replace"))
    return CommandResult(done.returncode, done.stdout)


def main(line: str, directory: Path) -> None:
    """Serve calls until the line says that it is over, or is."""
    descriptor = os.open(line, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(descriptor)
    os.write(descriptor, b"ready\n")
    with open(descriptor, "rb", buffering=0, closefd=False) as lines:
        while (word := lines.readline().strip()) not in (b"", b"halt"):
            number = int(word)
            answer = _perform(pickle.loads((directory / f"{number}.call").read_bytes()))
            (directory / f"{number}.answer").write_bytes(answer)
            os.write(descriptor, b"%d\n" % number)


def _perform(call: Call) -> bytes:
    try:
        module, _, name = call.function.partition(":")
        function = reduce(getattr, name.split("."), importlib.import_module(module))
        return pickle.dumps(Answer(value=function(*call.arguments)))  # type: ignore[operator]
    except BaseException:
        return pickle.dumps(Answer(failure=traceback.format_exc()))


if __name__ == "__main__":
    # So that what it unpickles are the classes that the other end pickled.
    from tests.support import uml_agent

    uml_agent.main(sys.argv[1], Path(sys.argv[2]))
