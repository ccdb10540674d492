"""`locum demo keyserver` from its command line (C1, C2, C4, X4), and its parts when something is wrong."""

import io
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from tests.support.require import require

from locum.demo import keyserver
from locum.demo.pki import CertificateAuthority
from locum.demo.scoreboard import Scoreboard
from locum.demo.tls_clients import Target

TIMEOUT = 300
#: Pages of the edge by two clients in every way, of nginx without RSA key exchange; two failovers, a revocation.
LINES = 2 * len(keyserver.WISHES) + 2 * (len(keyserver.WISHES) - 1) + 3


def test_servers_without_keys_serve_every_client_and_outlive_a_key_server() -> None:
    for name in keyserver.PROGRAMS:
        require(name)
    done = subprocess.run(
        [sys.executable, "-m", "locum", "demo", "keyserver"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{LINES} of {LINES} worked." in done.stdout
    for way, _ in keyserver.WISHES:
        assert f"edge: {way}" in done.stdout
    assert "FAILED" not in done.stdout
    assert "handshakes, 0 of them afterwards" not in done.stdout
    assert "the key server holds the only copy" in done.stdout


def test_a_line_that_failed_or_was_never_ended_counts_as_a_fault() -> None:
    output = io.StringIO()
    with Scoreboard(Console(file=output, width=100), "title", ("what", "result of it")) as board:
        board.end(board.begin("first", ""), **{"result of it": "fine"})
        board.end(board.begin("second", ""), fault="it broke")
        board.begin("third", "")
    assert board.count == 3
    assert board.faults == ["second: it broke", "third: not done"]
    assert output.getvalue().count("FAILED") == 2


def test_a_server_that_is_not_there_is_a_failed_handshake(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path, "root")
    target = Target(host="127.0.0.1", port=1, name="www.example", authority=authority.path, page=b"")
    with keyserver.Load(target) as load:
        while not load.fault:
            pass
    assert load.made == 0
    assert load.fault.startswith("a handshake failed: ")
