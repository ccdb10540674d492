"""The fixture `locum`, a `Shell` in a directory of its own: a pytest plugin."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.shell import Shell


@pytest.fixture
def locum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    for name in ("LOCUM_DATA", "LOCUM_NODE_KEY", "LOCUM_NODE_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    return Shell(capsys)
