"""How a worker of the agent is started."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from locum.cli.pkcs11_process import WorkerSettings


def test_a_worker_imports_nothing_from_the_directory_that_it_is_started_in(tmp_path: Path) -> None:
    package = tmp_path / "locum"
    package.mkdir()
    (package / "__init__.py").write_text("open('imported', 'w').close()\n")
    command = WorkerSettings(parent=os.getpid(), credential=str(tmp_path / "none"), timeout=1.0).command()
    ended = subprocess.run([*command, "-1"], cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert b"No module named" not in ended.stderr
    assert not (tmp_path / "imported").exists()
