"""Stores for tests: the node key, the actor and a way to enroll that the store's tests have in common."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from locum.store import NodeKey, Store

NODE_KEY = NodeKey(bytes(range(32)), "the test's node key")
ACTOR = "test"
SECRET = b"0123456789abcdef"

Raw = Callable[..., Sequence[Any]]

#: What a process of `start_process` has to begin with; its arguments are the location and what the test adds.
_PROLOGUE = """
import sys
from tests.support.stores import *
location, *arguments = sys.argv[1:]
"""


def enroll(store: Store, name: str = "meter", *, secret: bytes = SECRET, **options: Any) -> Any:
    """Enroll a terminal with a given key."""
    return store.terminals.enroll(
        name, algorithm="AES-CCM-16-64-128", secret=secret, salt=b"saltsalt", actor=ACTOR, **options
    )


def start_process(code: str, location: str, *arguments: str) -> subprocess.Popen[str]:
    """Run `code` in a process of its own, with `location` and `arguments` as variables."""
    command = [sys.executable, "-c", _PROLOGUE + code, location, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def finish(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """Wait for every process, all of which must succeed, and return what each has printed."""
    results = [process.communicate(timeout=60) for process in processes]
    for process, (_, errors) in zip(processes, results, strict=True):
        assert process.returncode == 0, errors
    return [output for output, _ in results]
