"""`locum demo ike` from its command line (A8, A9, A11, A12 for IKE)."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.require import require_ike_peer

from locum.demo import ike

TIMEOUT = 180


def demo(*arguments: str, before: Sequence[str | Path] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-m", "locum", "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def test_every_way_gives_a_tunnel_that_carries_packets() -> None:
    require_ike_peer()
    done = demo("ike")
    assert done.returncode == 0, done.stdout + done.stderr
    for way in ike.WAYS:
        assert way.title in done.stdout
    assert f"{len(ike.WAYS)} of {len(ike.WAYS)} tunnels carried packets both ways." in done.stdout
    assert "main mode with the delegate (fig 12), then quick mode by the terminal alone (fig 13)" in done.stdout
    assert done.stdout.count("none in clear") == len(ike.WAYS)
    for actor in ("terminal", "delegate", "peer"):
        assert actor in done.stdout
    assert "FAILED" not in done.stdout


def test_without_root_it_fails_with_one_line_that_says_why() -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can give up being root")
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    if subprocess.run([*nobody, sys.executable, "-c", "import locum"], capture_output=True).returncode != 0:
        pytest.skip("this checkout is readable for root alone")
    done = demo("ike", before=nobody)
    assert done.returncode == 1
    assert done.stderr == (
        "locum: error: IKE cannot be shown here: making network namespaces needs root: try with sudo\n"
    )
