"""`locum ARGUMENTS` in this process, as a user gives them; the fixture `locum` is in `shell_fixtures`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from locum.cli.main import run


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


class Shell:
    """Runs `locum ARGUMENTS` in this process, in a directory of its own."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str | Path) -> Result:
        status = run([str(argument) for argument in arguments])
        captured = self._capture.readouterr()
        return Result(status, captured.out, captured.err)

    def ok(self, *arguments: str | Path) -> Result:
        result = self(*arguments)
        assert result.status == 0, result.err
        return result

    def refused(self, *arguments: str | Path) -> str:
        """The one line that the command refuses with."""
        result = self(*arguments)
        assert result.status == 1
        assert result.out == ""
        lines = result.err.splitlines()
        assert len(lines) == 1, result.err
        assert lines[0].startswith("locum: error: ")
        return lines[0]

    def json(self, *arguments: str | Path) -> list[dict[str, object]]:
        listed: list[dict[str, object]] = json.loads(self.ok(*arguments, "--json").out)
        return listed
