"""Ways of two terminals to prove themselves through their delegate, and a NAT between them (A8, A11, A12)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support.ipsec_system import EAST, WEST, Site, administer
from tests.support.require import require, without

from locum.demo.laboratory import Middle
from locum.demo.namespaces import why_not
from locum.demo.traffic import WireTap, ping
from locum.terminal.steps import StepName

pytestmark = pytest.mark.xdist_group("ipsec-methods")

UP = "SA up:"
SECRET = "a secret of two branches\n"
PPK = "0123456789abcdef" * 4
#: What names begin with whose secrets or keys are the other end's too.
SHARED, PINNED = "psk-", "rsa-"
PPK_ID = "quantum-1"
BYTES = 200_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if reason := why_not():
        without(reason)
    with Site(tmp_path_factory.mktemp("methods")) as running:
        add_secrets(running)
        add_pinned_keys(running)
        yield running


@pytest.fixture(scope="module")
def credentials(site: Site) -> dict[str, Path]:
    return {terminal: site.credential(terminal) for terminal in (WEST, EAST)}


def add_secrets(site: Site) -> None:
    """A pre-shared key under names of its own, and a post-quantum one beside the certificates."""
    files = [site.directory / name for name in ("secret", "ppk")]
    for file, content in zip(files, (SECRET, PPK), strict=True):
        file.touch(mode=0o600)
        file.write_text(content)
    secret, ppk = files
    for here, there in ((WEST, EAST), (EAST, WEST)):
        words = ("--terminal", here, "--peer")
        own = ("--local-id", f"dns:{SHARED}{here}.example")
        administer(site.node, "secret", "add", secret, *words, f"dns:{SHARED}{there}.example", *own)
        administer(site.node, "secret", "add", ppk, *words, f"dns:{there}.example", "--ppk", PPK_ID, "--hex")


def add_pinned_keys(site: Site) -> None:
    """RSA keys, each pinned for the other end: public key encryption must know them beforehand."""
    for terminal in (WEST, EAST):
        issued = site.authority.issue(
            f"{PINNED}{terminal}", kind="rsa2048", names=(f"{PINNED}{terminal}.example",), usage="ipsec"
        )
        words = ("--cert", issued.chain, "--key", issued.key, "--terminal", terminal)
        administer(site.node, "identity", "add", f"{PINNED}{terminal}", *words)
        pin = ("--pin", "--peer", f"dns:{PINNED}{terminal}.example", "--name", terminal)
        administer(site.node, "trust", "add", *pin, issued.chain)


def identities(kind: str) -> dict[str, tuple[str, ...]]:
    """Who each end is, and wants, by the names that begin with `kind`."""
    return {
        here: ("--local-id", f"dns:{kind}{here}.example", "--remote-id", f"dns:{kind}{there}.example")
        for here, there in ((WEST, EAST), (EAST, WEST))
    }


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SHARED, ("--ike", "2")),
        (SHARED, ("--ike", "1", "--auth", "psk")),
        (SHARED, ("--ike", "1", "--auth", "psk", "--mode", "aggressive", "--allow-aggressive-psk")),
        (PINNED, ("--ike", "1", "--auth", "rsa-encryption")),
        (PINNED, ("--ike", "1", "--auth", "rsa-encryption", "--mode", "aggressive")),
        ("", ("--require-ppk",)),
        (SHARED, ("--ike", "1", "--auth", "psk", "--esp", "aes256gcm16-ecp384")),
    ],
    ids=["psk", "psk-main", "psk-aggressive", "encryption-main", "encryption-aggressive", "ppk", "psk-main-pfs"],
)
def test_two_terminals_prove_themselves_in_every_way(
    site: Site, credentials: dict[str, Path], kind: str, options: tuple[str, ...]
) -> None:
    who = identities(kind)
    with (
        site.run(EAST, credentials[EAST], "--respond", *options, *who[EAST]) as responder,
        site.run(WEST, credentials[WEST], *options, *who[WEST]) as initiator,
    ):
        initiator.wait(UP)
        responder.wait(UP)
        ping(site.west, site.east)
        ping(site.east, site.west)
        assert initiator.stop() == 0
        responder.wait("SA down:")
        said = [step.detail for step in initiator.steps if step.operation is StepName.AUTHENTICATE]
        proven = f"pin:{EAST}" if kind == PINNED else f"dns:{kind}{EAST}.example"
        assert f"{proven} is authentic and allowed" in said


def test_an_end_that_insists_on_a_post_quantum_key_has_no_sa_without_it(
    site: Site, credentials: dict[str, Path]
) -> None:
    who = identities("")
    with (
        site.run(EAST, credentials[EAST], "--respond", *who[EAST]) as responder,
        site.run(WEST, credentials[WEST], "--require-ppk", "--timeout", "8", *who[WEST]) as initiator,
    ):
        assert initiator.wait("locum: error: ")
        assert initiator.stop() == 1
        responder.look()
        assert not [line for line in responder.lines if line.startswith(UP)]


# --- many at once -----------------------------------------------------------------------------------------


def test_several_terminals_peers_and_delegates_at_once(site: Site) -> None:
    """A12: three SAs of each end side by side, each of another version or mode and with a delegate of its own."""
    nodes = [site.node, site.start_node(WEST, EAST), site.start_node(WEST, EAST)]
    kinds = [("--ike", "2"), ("--ike", "1"), ("--ike", "1", "--mode", "aggressive")]
    with ExitStack() as running:
        pairs = []
        for number, (node, options) in enumerate(zip(nodes, kinds, strict=True)):
            here, there = f"10.7{number}.0.0/24", f"10.8{number}.0.0/24"
            port = ("--port", str(15_000 + number), "--peer-port", str(15_000 + number))
            east = (*options, *port, "--respond", "--local-ts", there, "--remote-ts", here)
            west = (*options, *port, "--local-ts", here, "--remote-ts", there)
            site.west.namespace.ip("addr", "add", f"10.7{number}.0.1/24", "dev", "lo")
            site.east.namespace.ip("addr", "add", f"10.8{number}.0.1/24", "dev", "lo")
            responder = site.run_towards(EAST, site.credential(EAST, node), site.west.address, *east)
            initiator = site.run_towards(WEST, site.credential(WEST, node), site.east.address, *west)
            pairs.append((running.enter_context(responder), running.enter_context(initiator)))
        for number, (responder, initiator) in enumerate(pairs):
            initiator.wait(UP)
            responder.wait(UP)
            words = ("-n", "-i", "0.05", "-W", "2", "-c", "3", "-I", f"10.7{number}.0.1", f"10.8{number}.0.1")
            site.west.namespace.run("ping", *words)
        assert [initiator.stop() for _, initiator in pairs] == [0, 0, 0]


# --- through a NAT ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def natted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if reason := why_not():
        without(reason)
    require("nft")
    with Site(tmp_path_factory.mktemp("natted"), Middle.NAT) as running:
        yield running


@pytest.mark.parametrize(
    "options",
    [("--ike", "2"), ("--ike", "1"), ("--ike", "1", "--mode", "aggressive")],
    ids=lambda words: words[-1],
)
def test_transport_mode_through_a_nat_carries_tcp_whose_checksums_are_repaired(
    natted: Site, options: tuple[str, ...]
) -> None:
    """RFC 3948 section 3.1.2: the kernel at the end takes a segment only if its checksum is for what it sees."""
    public = str(natted.laboratory.routers[1].ip)
    west, east = (natted.credential(terminal) for terminal in (WEST, EAST))
    transport = ("--transport", *options)
    with (
        WireTap(natted.east) as tap,
        natted.run_towards(EAST, east, public, "--respond", *transport) as responder,
        natted.run_towards(WEST, west, natted.east.address, *transport) as initiator,
    ):
        initiator.wait(UP)
        responder.wait(UP)
        assert received_over_tcp(natted) == BYTES
        assert tap.passed.esp > 2 * BYTES // 1500
        assert initiator.stop() == 0
        responder.wait("SA down:")


def received_over_tcp(site: Site) -> int:
    """Bytes that come back over one TCP connection, from the hidden host's own address to the other's."""
    with (
        site.east.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as listener,
        site.west.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as client,
    ):
        listener.bind((site.east.address, 0))
        listener.listen(1)
        listener.settimeout(20)
        client.settimeout(20)

        def echo() -> None:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(65_536):
                    connection.sendall(data)

        thread = threading.Thread(target=echo, daemon=True)
        thread.start()
        client.connect(listener.getsockname())
        sender = threading.Thread(target=lambda: (client.sendall(bytes(BYTES)), client.shutdown(socket.SHUT_WR)))
        sender.start()
        total = 0
        while data := client.recv(65_536):
            total += len(data)
        sender.join()
        thread.join()
        return total
