"""A responder on real sockets under attack: a flood of beginnings, and messages that say its SA is over (X1)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.support.ike_memory import network
from tests.support.ipsec_system import EAST, WEST, Site
from tests.support.require import without

from locum.demo.ipsec_terminal import IpsecTerminal
from locum.demo.laboratory import Host
from locum.demo.namespaces import why_not
from locum.demo.traffic import ping
from locum.ike import payloads1, payloads2
from locum.ike.configuration import Connection, Limits, Mode
from locum.ike.engine import IKE_PORT
from locum.ike.header import HEADER_LENGTH, NO_SPI, parse_header
from locum.ike.registry import (
    ExchangeType,
    Flags2,
    NotifyType1,
    NotifyType2,
    PayloadType2,
    ProtocolId,
    Version,
)
from locum.ipsec.ip import IPV4_HEADER, UDP, ipv4_header
from locum.ipsec.udp import encapsulate

UP = "SA up:"
FLOOD = 3000
#: What `FLOOD` beginnings may add to the memory of a process, in KiB: 2 KiB for each would be as much.
GROWTH = 6 << 10
#: So many at a time, and then none until nothing has been answered for so long, in seconds.
BURST, QUIET = 100, 0.03
#: From <linux/if_ether.h>.
ETH_P_ALL = 3

pytestmark = pytest.mark.xdist_group("ipsec-hostile")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if reason := why_not():
        without(reason)
    with Site(tmp_path_factory.mktemp("hostile")) as running:
        yield running


@pytest.fixture(scope="module")
def east(site: Site) -> Path:
    return site.credential(EAST)


@pytest.fixture(scope="module")
def west(site: Site) -> Path:
    return site.credential(WEST)


def first_message(connection: Connection) -> bytes:
    """What an initiator begins with."""
    made = network(connection)
    made.disturb = lambda passage: ()
    made.connect()
    return made.log[0].message


def memory(terminal: IpsecTerminal) -> int:
    """What a process takes of the machine's memory, in KiB."""
    status = Path(f"/proc/{terminal.pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def flood(site: Site, first: bytes) -> list[bytes]:
    """So many beginnings in the name of the peer, with cookies or SPIs of their own; what is answered to them."""
    answers: list[bytes] = []
    with site.west.namespace.socket() as attacker:
        attacker.bind((site.west.address, 0))
        attacker.settimeout(QUIET)
        for number in range(FLOOD):
            attacker.sendto(os.urandom(8) + first[8:], (site.east.address, IKE_PORT))
            # No faster than they are taken: what a socket has no room for attacks nobody.
            with suppress(TimeoutError):
                while number % BURST == BURST - 1:
                    answers.append(attacker.recv(65_535))
    return answers


@pytest.mark.parametrize(
    ("options", "connection"),
    [
        (("--ike", "2"), Connection()),
        (("--ike", "1"), Connection(version=Version.IKE_1)),
        (("--ike", "1", "--mode", "aggressive"), Connection(version=Version.IKE_1, mode=Mode.AGGRESSIVE)),
    ],
    ids=["ikev2", "main", "aggressive"],
)
def test_a_flood_of_beginnings_costs_a_bounded_amount_and_no_sa(
    site: Site, east: Path, west: Path, options: tuple[str, ...], connection: Connection
) -> None:
    with (
        site.run(EAST, east, "--respond", *options) as responder,
        site.run(WEST, west, *options) as initiator,
    ):
        initiator.wait(UP)
        ping(site.west, site.east)
        first = first_message(connection)
        flood(site, first)
        # Whatever is needed once is there; from now on a flood must not cost more than the one before.
        before = memory(responder)
        answers = flood(site, first)
        assert memory(responder) - before < GROWTH
        if connection.version == Version.IKE_2:
            assert any(is_cookie(answer) for answer in answers)
        # Nobody gets more than the limits, and the SA does not notice.
        begun = [answer for answer in answers if connection.version == Version.IKE_1 or not is_cookie(answer)]
        assert len({parse_header(each).initiator_spi for each in begun}) <= Limits().begun_at_once
        ping(site.west, site.east)
        ping(site.east, site.west)
        assert initiator.stop() == 0
        responder.wait("SA down:")


def is_cookie(answer: bytes) -> bool:
    payloads = payloads2.parse_payloads(answer[16], answer[HEADER_LENGTH:])
    notifies = [each.notify_type for each in payloads if isinstance(each, payloads2.Notify)]
    return notifies == [NotifyType2.COOKIE]


def test_an_initiator_gets_in_during_a_flood(site: Site, east: Path, west: Path) -> None:
    first = first_message(Connection())
    with site.run(EAST, east, "--respond") as responder:
        flood(site, first)
        with site.run(WEST, west) as initiator:
            flood(site, first)
            initiator.wait(UP)
            ping(site.west, site.east)
            initiator.stop()
        responder.stop()


@pytest.mark.parametrize("version", [1, 2])
def test_nobody_else_ends_an_sa(site: Site, east: Path, west: Path, version: int) -> None:
    """Who sees the SPIs, and can send from the peer's own address and port, has nothing to say in clear."""
    options = ("--ike", str(version))
    with (
        site.west.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as wire,
        site.west.namespace.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as forger,
        site.run(EAST, east, "--respond", *options) as responder,
        site.run(WEST, west, *options) as initiator,
    ):
        initiator.wait(UP)
        spis = spis_on(wire)
        for message in lies(version, spis):
            datagram = encapsulate(message, IKE_PORT, IKE_PORT)
            header = ipv4_header(packed(site.west), packed(site.east), UDP, IPV4_HEADER + len(datagram))
            forger.sendto(header + datagram, (site.east.address, 0))
        ping(site.west, site.east)
        ping(site.east, site.west)
        responder.look()
        assert not [line for line in responder.lines if line.startswith(("SA down", "IKE SA down"))]
        assert initiator.stop() == 0
        responder.wait("SA down:")


def packed(host: Host) -> bytes:
    return host.wire.ip.packed


def spis_on(wire: socket.socket) -> bytes:
    """Both SPIs of the first message of IKE that has passed and has both."""
    wire.settimeout(5)
    while True:
        frame = wire.recv(65_535)
        ports = (IKE_PORT.to_bytes(2, "big")) * 2
        if frame[12:14] == b"\x08\x00" and frame[34:38] == ports and frame[50:58] != NO_SPI:
            return frame[42:58]


def lies(version: int, spis: bytes) -> Iterator[bytes]:
    """Deletions and errors in clear, and such that pretend to be protected."""
    payloads: tuple[tuple[int, bytes], ...]
    if version == 1:
        protocols = ((ProtocolId.IKE, spis), (ProtocolId.ESP, bytes(4)))
        said1: list[payloads1.Payload] = [
            payloads1.Delete(protocol=protocol, spis=(spi,)) for protocol, spi in protocols
        ]
        for kind in (NotifyType1.INITIAL_CONTACT, NotifyType1.INVALID_COOKIE, NotifyType1.AUTHENTICATION_FAILED):
            said1.append(payloads1.Notification(notify_type=kind, protocol=ProtocolId.IKE, spi=spis))
        payloads = tuple(payloads1.write_payloads((each,)) for each in said1)
        exchange, flags, ids = ExchangeType.INFORMATIONAL_1, (0, 1), (0, 7)
    else:
        said2: list[payloads2.Payload] = [payloads2.Delete(protocol=ProtocolId.IKE, spis=())]
        said2 += [
            payloads2.Notify(notify_type=kind)
            for kind in (
                NotifyType2.AUTHENTICATION_FAILED,
                NotifyType2.INVALID_IKE_SPI,
                NotifyType2.INITIAL_CONTACT,
            )
        ]
        payloads = tuple(payloads2.write_payloads((each,)) for each in said2)
        exchange, ids = ExchangeType.INFORMATIONAL, tuple(range(4))
        flags = (Flags2.INITIATOR, Flags2.INITIATOR | Flags2.RESPONSE, Flags2.RESPONSE)
    for first, chain in (*payloads, (PayloadType2.ENCRYPTED, bytes(4) + os.urandom(60))):
        for flag in flags:
            for message_id in ids:
                length = HEADER_LENGTH + len(chain)
                yield (
                    spis + struct.pack(">BBBBII", first, version << 4, exchange, flag, message_id, length) + chain
                )
