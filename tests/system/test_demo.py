"""`locum demo tls`, the main job, from its command line (A1 to A12, X1, X2)."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from locum.demo import scenario
from locum.demo.ladder import Ladder
from locum.demo.peers import Openssl4Server
from locum.demo.programs import PROGRAMS, Program

TIMEOUT = 120


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "locum", "demo", "tls", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def test_every_way_works_with_every_server_that_knows_it(require: Callable[[str], Path]) -> None:
    require("openssl")
    require("nginx")
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 of 16 pages received." in done.stdout
    for way in scenario.WAYS:
        assert way.title in done.stdout
    for actor in ("terminal", "delegate", "peer"):
        assert actor in done.stdout
    assert "FAILED" not in done.stdout


def test_a_terminal_without_unicode_gets_a_plain_drawing(require: Callable[[str], Path]) -> None:
    require("openssl")
    done = demo(PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stdout + done.stderr


def test_missing_servers_are_left_out_and_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("openssl", "nginx"):
        monkeypatch.setitem(PROGRAMS, name, Program(f"no-such-{name}", name))
    monkeypatch.setattr(scenario, "can_install", lambda: False)
    assert scenario.Demo(tmp_path, Ladder(Console(width=200))).run()
    printed = capsys.readouterr().out
    assert "6 of 6 pages received." in printed
    assert "no-such-nginx is not installed: sudo apt-get install --no-install-recommends nginx" in printed


def test_one_page_that_does_not_arrive_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scenario.Demo, "_install_missing", lambda self: None)
    for name in ("openssl", "nginx"):
        monkeypatch.setitem(PROGRAMS, name, Program(f"no-such-{name}", name))
    start = Openssl4Server.start

    def wrong_page(server: Openssl4Server) -> Openssl4Server:
        if server.directory.name == "demanding":
            (server.directory / "index.html").write_text("something else")
        return start(server)

    monkeypatch.setattr(Openssl4Server, "start", wrong_page)
    assert not scenario.Demo(tmp_path, Ladder(Console(width=200))).run()
    printed = capsys.readouterr().out
    assert "5 of 6 pages received." in printed
    assert "FAILED" in printed


def test_a_directory_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    done = demo("--keep", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == f"locum: error: {tmp_path} is not empty\n"
