"""The configurations for strongSwan that docs/ipsec.md shows, loaded by swanctl as a person would (A11)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.ike_strongswan import Pki
from tests.support.require import require, require_ike_peer

from locum.demo.ipsec_terminal import IpsecTerminal
from locum.demo.laboratory import Laboratory
from locum.demo.node import DemoNode
from locum.demo.strongswan import StrongSwan
from locum.demo.traffic import ping

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ipsec.md"
GATEWAY, TERMINAL = "gw.example.com", "meter-7"
SECRET = "11" * 32


def configurations() -> list[str]:
    """The blocks of the page that begin as a swanctl.conf does: with certificates, then with a secret."""
    blocks = re.findall(r"^```\n(connections \{.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    return blocks


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    require_ike_peer()
    with Laboratory() as made:
        yield made


@pytest.fixture(scope="module")
def node(laboratory: Laboratory, ike_pki: Pki, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoNode]:
    directory = tmp_path_factory.mktemp("page")
    with DemoNode(directory, listen=laboratory.delegate_address, namespace=laboratory.delegate) as running:
        running.enroll(TERMINAL)
        own = ike_pki.issue(f"{TERMINAL}.example.com", "p256")
        running.command("trust", "add", str(ike_pki.authority.path))
        words = ("--terminal", TERMINAL, "--peer", f"dns:{GATEWAY}")
        running.command("policy", "add", *words, "--action", "allow")
        running.command("identity", "add", TERMINAL, "--cert", str(own.chain), "--key", str(own.key))
        yield running


@pytest.fixture
def charon(laboratory: Laboratory, tmp_path: Path) -> Iterator[StrongSwan]:
    with ExitStack() as running:
        yield running.enter_context(StrongSwan(laboratory.peer.namespace, tmp_path / "charon"))


@pytest.mark.parametrize("number", [0, 1], ids=["certificates", "secret"])
def test_a_configuration_on_the_page_makes_a_tunnel(
    number: int, laboratory: Laboratory, node: DemoNode, charon: StrongSwan, ike_pki: Pki, tmp_path: Path
) -> None:
    swanctl = require("swanctl")
    (tmp_path / "swanctl.conf").write_text(configurations()[number].replace("0x...", f"0x{SECRET}"))
    issued = ike_pki.issue(GATEWAY, "p256")
    for name, source in (("x509/gw.pem", issued.chain), ("private/gw.pem", issued.key)):
        (tmp_path / name).parent.mkdir()
        shutil.copy(source, tmp_path / name)
    (tmp_path / "x509ca").mkdir()
    shutil.copy(ike_pki.authority.path, tmp_path / "x509ca" / "ca.pem")
    words = (f"SWANCTL_DIR={tmp_path}", swanctl, "--load-all", "--noprompt", "--uri", f"unix://{charon._socket}")
    laboratory.peer.namespace.run("env", *words)
    if number == 1:
        words = ("--terminal", TERMINAL, "--peer", GATEWAY, "--hex")
        node.command("secret", "add", *words, standard_input=SECRET)
    arguments = ["--credential", str(node.directory / f"{TERMINAL}.credential"), "--peer", laboratory.peer.address]
    arguments += ["--local-ts", "10.1.0.0/24", "--remote-ts", "10.2.0.0/24", "--remote-id", GATEWAY]
    with IpsecTerminal(laboratory.terminal.namespace, tmp_path, "terminal", arguments) as terminal:
        terminal.wait("SA up:")
        ping(laboratory.terminal, laboratory.peer)
