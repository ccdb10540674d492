"""`locum terminal ipsec` at both ends, with real delegates, in namespaces (A8 to A12)."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.ipsec_system import EAST, WEST, Site, command
from tests.support.require import without

from locum.demo.namespaces import why_not
from locum.demo.programs import require_program
from locum.demo.traffic import WireTap, ping
from locum.errors import Unavailable
from locum.terminal.steps import StepName

UP = "SA up:"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if reason := why_not():
        without(reason)
    with Site(tmp_path_factory.mktemp("ipsec")) as running:
        yield running


@pytest.fixture(scope="module")
def west(site: Site) -> Path:
    return site.credential(WEST)


@pytest.fixture(scope="module")
def east(site: Site) -> Path:
    return site.credential(EAST)


def errors(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("locum: error: ")]


@pytest.mark.parametrize(
    "options",
    [
        ("--ike", "2"),
        ("--ike", "2", "--proposal", "aes256gcm16-prfsha384-x25519-ke1_mlkem768"),
        ("--ike", "2", "--keys-from-delegate"),
        ("--ike", "1"),
        ("--ike", "1", "--mode", "aggressive"),
        ("--ike", "2", "--esp", "aes256-sha512-ecp256-esn", "--force-encapsulation"),
    ],
    ids=["ikev2", "mlkem", "keys-from-delegate", "main", "aggressive", "cbc-pfs-udp"],
)
def test_two_terminals_have_a_tunnel_until_one_is_interrupted(
    site: Site, west: Path, east: Path, options: tuple[str, ...]
) -> None:
    before = site.network_state(WEST), site.network_state(EAST)
    with site.run(EAST, east, "--respond", *options) as responder, site.run(WEST, west, *options) as initiator:
        initiator.wait(UP)
        responder.wait(UP)
        ping(site.west, site.east)
        ping(site.east, site.west)
        assert initiator.stop() == 0
        responder.wait("SA down:")
        assert responder.stop() == 0
        assert errors(initiator.lines + responder.lines) == []
    assert (site.network_state(WEST), site.network_state(EAST)) == before


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--transport",),
        ("--ah", "sha256"),
        ("--transport", "--ike", "1"),
        ("--port", "15000", "--peer-port", "15000"),
    ],
    ids=["tunnel", "transport", "ah", "transport-ikev1", "one-port"],
)
@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
def test_hosts_protect_what_is_between_themselves(
    site: Site, west: Path, east: Path, options: tuple[str, ...], ipv6: bool
) -> None:
    with (
        site.run_between(EAST, east, "--respond", *options, ipv6=ipv6) as responder,
        site.run_between(WEST, west, *options, ipv6=ipv6) as initiator,
    ):
        initiator.wait(UP)
        to = site.east.address6 if ipv6 else site.east.address
        site.west.namespace.run(require_program("ping"), "-n", "-i", "0.05", "-W", "2", "-c", "5", to)
        # IKE finds its way past the tunnel that it has made.
        assert initiator.stop() == 0
        responder.wait("SA down:")


def test_traffic_does_not_leave_unprotected_while_there_is_no_sa(site: Site, west: Path) -> None:
    once = ("-n", "-W", "1", "-c", "1", "-I", site.west.inner, site.east.inner)
    with WireTap(site.east, site.west) as tap, site.run(WEST, west):
        with pytest.raises(Unavailable):
            site.west.namespace.run(require_program("ping"), *once)
        assert tap.passed.clear == 0


def test_keys_are_replaced_while_packets_pass(site: Site, west: Path, east: Path) -> None:
    short = ("--lifetime", "14", "--child-lifetime", "10")
    with site.run(EAST, east, "--respond", *short) as responder, site.run(WEST, west, *short) as initiator:
        initiator.wait(UP)
        initiator.wait("SA rekeyed:", patience=30)
        ping(site.west, site.east)
        initiator.wait("IKE SA rekeyed:", patience=30)
        ping(site.east, site.west)
        responder.stop()


def test_a_terminal_that_was_killed_takes_its_place_again(site: Site, west: Path, east: Path) -> None:
    before = site.network_state(WEST)
    with site.run(EAST, east, "--respond") as responder:
        with site.run(WEST, west) as killed:
            killed.wait(UP)
            killed.kill()
        with site.run(WEST, west) as initiator:
            initiator.wait(UP)
            responder.wait("SA down:")
            ping(site.east, site.west)
            assert initiator.stop() == 0
    assert site.network_state(WEST) == before


def test_sigterm_ends_it_as_sigint_does(site: Site, west: Path, east: Path) -> None:
    before = site.network_state(WEST)
    with site.run(EAST, east, "--respond") as responder, site.run(WEST, west) as initiator:
        initiator.wait(UP)
        os.kill(initiator.pid, signal.SIGTERM)
        responder.wait("SA down:")
        assert initiator.stop() == 0
    assert site.network_state(WEST) == before


def test_a_delegate_that_dies_leaves_the_sa_and_another_helps_with_the_next_keys(site: Site, east: Path) -> None:
    mortal = site.start_node(WEST)
    two = site.credential(WEST, mortal, site.node)
    options = ("--esp", "aes256gcm16-x25519")
    with (
        site.run(EAST, east, "--respond", *options) as responder,
        site.run(WEST, two, "--child-lifetime", "10", *options) as initiator,
    ):
        initiator.wait(UP)
        responder.wait(UP)
        mortal.process.kill()
        ping(site.west, site.east)
        initiator.wait("SA rekeyed:", patience=30)
        ping(site.west, site.east)
        assert any(step.operation is StepName.NEXT_DELEGATE for step in initiator.steps)


def test_a_delegate_that_is_gone_is_passed_over(site: Site, east: Path) -> None:
    gone = site.start_node(WEST)
    two = site.credential(WEST, gone, site.node)
    gone.process.kill()
    with site.run(EAST, east, "--respond"), site.run(WEST, two) as initiator:
        initiator.wait(UP)
        ping(site.west, site.east)
        assert any(step.operation is StepName.NEXT_DELEGATE for step in initiator.steps)


def test_a_credential_that_the_delegate_does_not_know_ends_the_command_with_one_line(
    site: Site, west: Path, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger.credential"
    stranger.touch(mode=0o600)
    stranger.write_text(re.sub('kid = "[0-9a-f]*"', 'kid = "ffffffff"', west.read_text()))
    with site.run(WEST, stranger) as refused:
        with pytest.raises(Unavailable, match="ended"):
            refused.wait(UP)
        assert refused.stop() == 1
        (line,) = errors(refused.lines)
        assert "enrol the terminal again" in line


def test_a_peer_that_does_not_answer_is_given_up_when_asked_to(site: Site, west: Path) -> None:
    with site.run(WEST, west, "--timeout", "2") as initiator:
        with pytest.raises(Unavailable, match="ended"):
            initiator.wait(UP)
        assert initiator.stop() == 1
        (line,) = errors(initiator.lines)
        assert f"no SA with {site.east.address} within 2 s" in line


def test_a_certificate_for_somebody_else_ends_the_command_with_one_line(
    site: Site, west: Path, east: Path
) -> None:
    with (
        site.run(EAST, east, "--respond") as responder,
        site.run(WEST, west, "--remote-id", "dns:north.example") as initiator,
    ):
        with pytest.raises(Unavailable, match="ended"):
            initiator.wait(UP)
        assert initiator.stop() == 1
        assert len(errors(initiator.lines)) == 1
        assert responder.stop() == 0


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--proposal", "3des-md5-modp1024"), "3des is too weak and never negotiated"),
        (("--proposal", "aes256gcm16"), "does not name"),
        (("--esp", "aes256"), "does not name an integrity algorithm"),
        (("--esp", "aes256gcm16", "--ah", "sha256"), "either ESP or AH"),
        (("--local-ts", "10.0.0.1/8"), "host bits set"),
        (("--local", "nowhere"), "is not an IP address"),
        (("--local", "2001:db8::1"), "different IP versions"),
        (("--mode", "aggressive"), "are for IKEv1"),
        (("--ike", "1", "--mode", "aggressive", "--auth", "psk"), "--allow-aggressive-psk"),
        (("--ike", "1", "--require-ppk"), "for IKEv2"),
        (("--remote-id", "dns:*.example.com"), "does not name one peer"),
        (("--ike", "3"), "--ike"),
        (("--lifetime", "1"), "--lifetime"),
        (("--port", "70000"), "--port"),
        (("--dataplane", "wireguard"), "--dataplane"),
        (("surplus",), "surplus"),
    ],
    ids=lambda value: "-".join(value).replace("--", "") if isinstance(value, tuple) else None,
)
def test_a_mistake_on_the_command_line_is_one_line(tmp_path: Path, words: tuple[str, ...], why: str) -> None:
    done = command("--credential", str(tmp_path / "none"), "--peer", "192.0.2.2", *words)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("locum: error: ")
    assert why in done.stderr


def test_a_credential_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = command("--credential", str(tmp_path / "none"), "--peer", "192.0.2.2")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "none" in done.stderr
