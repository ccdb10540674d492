"""Programs that tests need: without one a test is skipped on a person's machine and fails where CI=true."""

import os
from pathlib import Path

import pytest

from locum.demo.programs import ProgramMissing, require_program


def require(name: str) -> Path:
    """The path of a program of `locum.demo.programs.PROGRAMS`, or the end of this test."""
    try:
        return require_program(name)
    except ProgramMissing as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
