"""`locum terminal ipsec` with a real delegate and strongSwan, each in a namespace of its own (A8, A11)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.bad_wire import BadWire, bad, perfect
from tests.support.ike_strongswan import OUR_NAME, PEER_NAME, Pki
from tests.support.require import require, require_ike_peer

from locum.cli.main import run
from locum.demo.ipsec_terminal import IpsecTerminal
from locum.demo.laboratory import Laboratory, Middle
from locum.demo.node import DemoNode
from locum.demo.strongswan import Child, Connection, StrongSwan
from locum.demo.traffic import WireTap, ping, stream
from locum.errors import Unavailable

pytestmark = pytest.mark.xdist_group("ike-command")

UP = ("SA up:", "SA rekeyed:")
BRANCH = "branch.example"
SECRET = "a secret of both ends"
IKE = {1: "aes256-sha256-ecp256", 2: "aes256gcm16-prfsha256-x25519"}


class Site:
    """A laboratory with a delegate's node in it, charon, and a terminal that is enrolled."""

    def __init__(self, running: ExitStack, directory: Path, pki: Pki, middle: Middle) -> None:
        self.running = running
        self.directory = directory
        self.laboratory = running.enter_context(Laboratory(middle))
        self.us, self.peer = self.laboratory.terminal, self.laboratory.peer
        self.pki = pki
        self.node = running.enter_context(
            DemoNode(directory, listen=self.laboratory.delegate_address, namespace=self.laboratory.delegate)
        )
        self.credential = directory / "meter-7.credential"
        self._fill_databases()
        self.charon = running.enter_context(StrongSwan(self.peer.namespace, directory / "charon"))
        self.charon.trust(pki.authority.der)
        self.charon.share(SECRET.encode(), OUR_NAME, BRANCH)
        self._runs = 0

    def _fill_databases(self) -> None:
        own = self.pki.issue(OUR_NAME, "rsa2048")
        secret = self.directory / "secret"
        secret.touch(mode=0o600)
        secret.write_text(SECRET)
        address = ("--address", self.node.address)
        self.locum("enroll", "terminal", "meter-7", "--out", self.credential, *address)
        self.locum("trust", "add", self.pki.authority.path)
        self.locum("policy", "add", "--terminal", "meter-7", "--peer", "*", "--action", "allow")
        self.locum("identity", "add", "own", "--cert", own.chain, "--key", own.key, "--terminal", "*")
        words = ("--terminal", "meter-7", "--peer", f"dns:{BRANCH}", "--local-id", f"dns:{OUR_NAME}")
        self.locum("secret", "add", secret, *words)

    def locum(self, *words: str | Path) -> None:
        """Run an administrator's command on the node's data, without a process for it."""
        assert run([*map(str, words), "--data", str(self.directory / "node")]) == 0, words

    def load(self, version: int, *, secret: bool = False, ipv6: bool = False, **changes: Any) -> None:
        """Set strongSwan up."""
        child = Child(local=[self.peer.network], remote=[self.us.network], proposals=["aes128gcm16"])
        plain = Connection(
            version=version,
            local=self.peer.address6 if ipv6 else self.peer.address,
            remote=self.us.address6 if ipv6 else self.us.address,
            identity=BRANCH if secret else PEER_NAME,
            peer_identity=OUR_NAME,
            certificate=None if secret else self.pki.issue(PEER_NAME, "rsa2048"),
            proposals=[IKE[version]],
            children=[child],
        )
        self.charon.load(replace(plain, **changes))

    def terminal(self, version: int, *options: str, ipv6: bool = False) -> IpsecTerminal:
        """The command, not yet started."""
        self._runs += 1
        peer = self.peer.address6 if ipv6 else self.peer.address
        words = ["--credential", str(self.credential), "--peer", peer, "--ike", str(version)]
        words += ["--local-ts", self.us.network, "--remote-ts", self.peer.network]
        words += ["--proposal", IKE[version], "--esp", "aes128gcm16", *options]
        return IpsecTerminal(self.us.namespace, self.directory, f"terminal-{self._runs}", words)

    def network_state(self) -> str:
        """Everything of the terminal's namespace that a command could leave behind."""
        namespace = self.us.namespace
        families = [namespace.ip(family, what) for family in ("-4", "-6") for what in ("rule", "route")]
        return "\n".join((namespace.ip("-o", "link"), *families))


@pytest.fixture(scope="module")
def make_site(tmp_path_factory: pytest.TempPathFactory, ike_pki: Pki) -> Iterator[Callable[[Middle], Site]]:
    """Makes sites, each kind once."""
    require_ike_peer()
    sites: dict[Middle, Site] = {}
    with ExitStack() as running:

        def make(middle: Middle) -> Site:
            if middle not in sites:
                directory = tmp_path_factory.mktemp(middle.name.lower())
                sites[middle] = Site(running, directory, ike_pki, middle)
            return sites[middle]

        yield make


@pytest.fixture
def site(make_site: Callable[[Middle], Site]) -> Iterator[Site]:
    """The site without anything between both ends."""
    site = make_site(Middle.NOTHING)
    yield site
    site.charon.abandon()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("respond", [True, False], ids=["responder", "initiator"])
def test_packets_pass_through_a_tunnel_and_at_the_end_nothing_is_left(
    site: Site, version: int, respond: bool
) -> None:
    before = site.network_state()
    site.load(version)
    with WireTap(site.peer, site.us) as tap:
        with site.terminal(version, *(["--respond"] if respond else [])) as terminal:
            if respond:
                site.charon.initiate()
            terminal.wait(*UP)
            ping(site.us, site.peer)
            ping(site.peer, site.us)
            stream(site.us, site.peer)
            stream(site.peer, site.us)
            assert site.network_state() != before
            assert terminal.stop() == 0
        site.charon.gone()
        assert site.network_state() == before
        with pytest.raises(Unavailable, match="100% packet loss"):
            site.peer.namespace.run("ping", "-n", "-c", "1", "-W", "1", "-I", site.peer.inner, site.us.inner)
    assert tap.passed.esp > 0
    assert tap.passed.clear == 0


def test_a_tunnel_between_ipv6_addresses(site: Site) -> None:
    site.load(2, ipv6=True)
    with site.terminal(2, ipv6=True) as terminal:
        terminal.wait(*UP)
        ping(site.us, site.peer)
        stream(site.peer, site.us)


def test_a_secret_instead_of_certificates(site: Site) -> None:
    site.load(2, secret=True)
    with site.terminal(2, "--remote-id", f"dns:{BRANCH}") as terminal:
        terminal.wait(*UP)
        ping(site.us, site.peer)


def test_a_peer_that_has_gone_is_found_again(site: Site) -> None:
    site.load(2)
    with site.terminal(2, "--dpd", "1") as terminal:
        terminal.wait(*UP)
        site.charon.abandon()
        # Its delete is lost, as in a crash: the terminal asks for a sign of life and is told of no such SA.
        terminal.wait(*UP, count=2)
        ping(site.us, site.peer)


def test_a_terminal_that_was_killed_leaves_nothing_in_the_way_of_the_next(site: Site) -> None:
    site.load(2)
    before = site.network_state()
    with site.terminal(2) as terminal:
        terminal.wait(*UP)
        terminal.kill()
    site.charon.abandon()
    with site.terminal(2) as terminal:
        terminal.wait(*UP)
        ping(site.us, site.peer)
        terminal.stop()
    assert site.network_state() == before


def test_a_peer_that_is_not_who_it_should_be_ends_the_command_with_one_line(site: Site) -> None:
    site.load(2)
    with site.terminal(2, "--remote-id", "dns:elsewhere.example") as terminal:
        with pytest.raises(Unavailable, match="ended"):
            terminal.wait(*UP)
        assert terminal.stop() == 1
        assert len([line for line in terminal.lines if line.startswith("locum: error: ")]) == 1


@pytest.mark.parametrize("version", [1, 2])
def test_a_bad_wire_costs_time_and_nothing_else(make_site: Callable[[Middle], Site], version: int) -> None:
    site = make_site(Middle.CUT)
    with BadWire(site.laboratory, bad(version, loss=0.1)) as wire:
        site.load(version)
        with site.terminal(version) as terminal:
            terminal.wait(*UP, patience=30)
            stream(site.us, site.peer, length=64 * 1024)
            stream(site.peer, site.us, length=64 * 1024)
            wire.rule = perfect
            ping(site.us, site.peer)
        site.charon.abandon()


@pytest.mark.parametrize("version", [1, 2])
def test_behind_address_translation(make_site: Callable[[Middle], Site], version: int) -> None:
    require("nft")
    site = make_site(Middle.NAT)
    site.load(version, remote="%any")
    with site.terminal(version) as terminal:
        terminal.wait(*UP)
        ping(site.us, site.peer)
        ping(site.peer, site.us)
        stream(site.us, site.peer)
    site.charon.abandon()
