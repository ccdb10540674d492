"""What a node does to its process and its directory: the lock, the log lines, the hardening."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from locum.errors import ConfigurationError
from locum.node import logs
from locum.node.lock import DataLock


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("locum").setLevel(logging.NOTSET)
    logging.raiseExceptions = True
    logging.captureWarnings(False)


def log_lines(form: logs.LogFormat, root: logging.Logger) -> list[str]:
    stream = io.StringIO()
    logs.configure(level="info", form=form, stream=stream)
    logger = logging.getLogger("locum.test")
    logger.debug("below the level")
    logging.getLogger("library").info("what a library says")
    logger.info("terminal %s", "a\nb\x1b[31m", extra={"peer": "dns:x\r\ny", "code": 4})
    try:
        raise OSError("gone")
    except OSError:
        logger.exception("failed")
    return stream.getvalue().splitlines()


def test_text_log_lines_cannot_be_forged_by_what_is_logged(root_logger: logging.Logger) -> None:
    first, second, *trace = log_lines("text", root_logger)
    assert first.endswith(r"info    locum.test: terminal a\nb\x1b[31m peer=dns:x\r\ny code=4")
    assert second.endswith("error   locum.test: failed")
    assert trace[-1] == "OSError: gone"


def test_json_log_lines_are_objects_with_the_fields_of_the_call(root_logger: logging.Logger) -> None:
    first, second = map(json.loads, log_lines("json", root_logger))
    assert first["message"] == "terminal a\nb\x1b[31m"
    assert (first["level"], first["logger"], first["peer"], first["code"]) == (
        "info",
        "locum.test",
        "dns:x\r\ny",
        4,
    )
    assert "OSError: gone" in second["trace"]


def test_what_a_library_warns_of_is_a_line_of_the_log(root_logger: logging.Logger) -> None:
    stream = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure(level="info", form="json", stream=stream)
        warnings.warn("an old algorithm", stacklevel=1)
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "an old algorithm" in line["message"]


def test_a_directory_has_one_lock_and_names_its_holder(tmp_path: Path) -> None:
    complaint = f"another node runs .*process {os.getpid()}"
    with DataLock(tmp_path), pytest.raises(ConfigurationError, match=complaint):
        DataLock(tmp_path)
    with DataLock(tmp_path):
        pass


def test_a_crashed_holder_leaves_no_lock(tmp_path: Path) -> None:
    holder = (
        "import os, pathlib, sys; from locum.node.lock import DataLock;"
        "DataLock(pathlib.Path(sys.argv[1])); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", holder, tmp_path]).returncode == 9
    with DataLock(tmp_path):
        pass


def test_a_directory_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing/node.lock: .*must be writable"):
        DataLock(tmp_path / "missing")


def test_a_hardened_process_dumps_no_core_and_writes_for_its_owner_only(tmp_path: Path) -> None:
    script = (
        "import resource, sys, pathlib, ctypes; from locum.hardening import harden; harden();"
        "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0);"
        "assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0;"
        "pathlib.Path(sys.argv[1]).write_text('x')"
    )
    path = tmp_path / "file"
    subprocess.run([sys.executable, "-c", script, path], check=True)
    assert path.stat().st_mode & 0o777 == 0o600
