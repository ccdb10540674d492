"""Programs that tests need: without one a test is skipped on a person's machine and fails where CI=true."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from locum.demo.namespaces import why_not
from locum.demo.programs import IKE_PROGRAMS, ProgramMissing, require_program


def require(name: str) -> Path:
    """The path of a program of `locum.demo.programs.PROGRAMS`, or the end of this test."""
    try:
        return require_program(name)
    except ProgramMissing as missing:
        without(str(missing))


def require_ike_peer() -> None:
    """strongSwan and network namespaces, or the end of this test."""
    for name in IKE_PROGRAMS:
        require(name)
    if reason := why_not():
        without(reason)


def without(reason: str) -> NoReturn:
    """End this test: something that it needs cannot be had here."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
