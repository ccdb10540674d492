"""AH: what it protects, and what may change on the way (RFC 4302; B13)."""

from __future__ import annotations

import pytest
from tests.support.ipsec import AH_SUITES, ah_sa, far_end, ipv4_packet, ipv6_packet

from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import DecodeError
from locum.ipsec.ah import AhReceiver, AhSender
from locum.ipsec.algorithms import SHA2_256_128, IntegrityAlgorithm
from locum.ipsec.faults import FragmentRefused, HeaderRefused, PacketTooLong, Replayed, UnknownAssociation
from locum.ipsec.ip import DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING, UDP, checksum, parse
from locum.ipsec.sa import SecurityAssociation

every_suite = pytest.mark.parametrize("suite", AH_SUITES, ids=lambda suite: suite.name)


def ends(sa: SecurityAssociation) -> tuple[AhSender, AhReceiver]:
    return AhSender(sa), AhReceiver(far_end(sa))


def with_options(packet: bytes, options: bytes) -> bytes:
    """An IPv4 packet with IP options in it."""
    header = bytearray(packet[:20] + options)
    header[0] = 0x40 | len(header) // 4
    header[2:4] = (len(packet) + len(options)).to_bytes(2, "big")
    return finished(header) + packet[20:]


def finished(header: bytearray) -> bytes:
    header[10:12] = b"\0\0"
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    return bytes(header)


@every_suite
@pytest.mark.parametrize("extended", [False, True])
def test_what_is_sealed_is_opened_once(suite: IntegrityAlgorithm, extended: bool) -> None:
    sender, receiver = ends(ah_sa(suite, extended_sequence=extended))
    for packet in (ipv4_packet(), ipv6_packet(), ipv4_packet(bytes(1400))):
        sealed = sender.seal(packet)
        assert parse(sealed).protocol == 51
        # RFC 4302 section 3.3.3.2.1: whole words in IPv4, whole pairs of them in IPv6.
        assert (len(sealed) - len(packet)) % (4 if packet[0] >> 4 == 4 else 8) == 0
        assert receiver.open(sealed) == packet
        with pytest.raises(Replayed):
            receiver.open(sealed)


@every_suite
@pytest.mark.parametrize("packet", [ipv4_packet(), ipv6_packet()], ids=["ipv4", "ipv6"])
def test_every_altered_byte_is_noticed_but_for_those_that_routers_change(
    suite: IntegrityAlgorithm, packet: bytes
) -> None:
    sender, receiver = ends(ah_sa(suite))
    sealed = sender.seal(packet)
    # DSCP and ECN, flags and fragment offset, TTL, checksum; traffic class, flow label, hop limit.
    mutable = {1, 6, 7, 8, 10, 11} if packet[0] >> 4 == 4 else {0, 1, 2, 3, 7}
    for position in set(range(len(sealed))) - mutable:
        altered = bytearray(sealed)
        altered[position] ^= 0x10
        if packet[0] >> 4 == 4 and position < 20:
            altered[:20] = finished(altered[:20])
        with pytest.raises((AuthenticationFailed, DecodeError, UnknownAssociation)):
            receiver.open(bytes(altered))
    routed = bytearray(sealed)
    if packet[0] >> 4 == 4:
        routed[1], routed[6], routed[8] = 0x03, 0x00, 9
        routed[:20] = finished(routed[:20])
    else:
        routed[0:4], routed[7] = b"\x6f\xff\xff\xff", 9
    opened = receiver.open(bytes(routed))
    assert opened[-15:] == packet[-15:] and opened[8 if packet[0] >> 4 == 4 else 7] == 9


def test_ipv4_options_that_may_change_may_and_others_may_not() -> None:
    record_route = bytes((7, 11, 4)) + bytes(8)
    router_alert = bytes((148, 4, 0, 0))
    packet = with_options(ipv4_packet(), record_route + b"\x01" + router_alert)
    sender, receiver = ends(ah_sa())
    sealed = sender.seal(packet)
    changed = bytearray(sealed)
    changed[22:28] = b"\x08\x0a\x01\0\x01\x01"
    changed[:36] = finished(changed[:36])
    altered = bytearray(sealed)
    altered[34] = 1
    altered[:36] = finished(altered[:36])
    with pytest.raises(AuthenticationFailed):
        receiver.open(bytes(altered))
    assert receiver.open(bytes(changed))[36:] == packet[36:]


def test_ipv6_options_that_may_change_may_and_others_may_not() -> None:
    options = bytes((UDP, 1, 0, 0x3E, 4)) + b"flip" + bytes((0x1E, 4)) + b"stay" + bytes(1)
    packet = ipv6_packet(extensions=options, first=HOP_BY_HOP)
    sender, receiver = ends(ah_sa())
    sealed = sender.seal(packet)
    with pytest.raises(AuthenticationFailed):
        receiver.open(sealed.replace(b"stay", b"away"))
    assert receiver.open(sealed.replace(b"flip", b"flop")) == packet.replace(b"flip", b"flop")


def test_packets_that_cannot_be_protected_are_refused_without_using_a_number() -> None:
    sender = AhSender(ah_sa())
    fragment = bytearray(ipv4_packet())
    fragment[6:8] = b"\x20\x00"
    routing = bytes((UDP, 0)) + bytes(6)
    for packet, error in (
        (finished(fragment[:20]) + bytes(fragment[20:]), FragmentRefused),
        (ipv6_packet(extensions=bytes((UDP, 0)) + bytes(6), first=FRAGMENT), FragmentRefused),
        (with_options(ipv4_packet(), bytes((131, 7, 4)) + bytes(5)), HeaderRefused),
        (with_options(ipv4_packet(), bytes((137, 7, 4)) + bytes(5)), HeaderRefused),
        (ipv6_packet(extensions=routing, first=ROUTING), HeaderRefused),
        (with_options(ipv4_packet(), bytes((7, 9, 4, 0))), DecodeError),
        (with_options(ipv4_packet(), bytes((1, 1, 1, 7))), DecodeError),
        (ipv6_packet(extensions=bytes((UDP, 0, 1, 9)) + bytes(4), first=HOP_BY_HOP), DecodeError),
        (ipv4_packet(bytes(65_500)), PacketTooLong),
        (b"", DecodeError),
    ):
        with pytest.raises(error):
            sender.seal(packet)
    assert sender.sequence.sequence == 0


def test_options_for_the_last_hop_are_behind_ah() -> None:
    packet = ipv6_packet(extensions=bytes((UDP, 0, 1, 4)) + bytes(4), first=DESTINATION_OPTIONS)
    sender, receiver = ends(ah_sa())
    sealed = sender.seal(packet)
    assert sealed[6] == 51
    assert receiver.open(sealed) == packet


def test_an_ipv4_header_aligned_to_8_bytes_is_accepted() -> None:
    sa = ah_sa(SHA2_256_128)
    sealed = AhSender(sa).seal(ipv4_packet())
    # A sender that pads AH to 32 bytes authenticates the padding too.
    assert sa.integrity is not None and sa.integrity.mac is not None
    longer = bytearray(sealed[:20])
    longer[2:4] = (len(sealed) + 4).to_bytes(2, "big")
    header = finished(longer)
    fixed = bytes((sealed[20], sealed[21] + 1)) + sealed[22:32]
    muted = header[:1] + b"\0" + header[2:6] + bytes(3) + header[9:10] + bytes(2) + header[12:]
    icv = sa.integrity.mac.new(sa.integrity_key).tag(muted + fixed + bytes(16) + bytes(4) + sealed[48:])
    assert AhReceiver(far_end(sa)).open(header + fixed + icv + bytes(4) + sealed[48:]) == ipv4_packet()


def test_other_associations_and_lengths_are_told_from_forgery() -> None:
    sender, receiver = ends(ah_sa())
    sealed = bytearray(sender.seal(ipv4_packet()))
    other = bytes(sealed[:24]) + b"\0\0\xff\xff" + bytes(sealed[28:])
    with pytest.raises(UnknownAssociation):
        receiver.open(other)
    for length in (0, 4, 7, 255):
        sealed[21] = length
        with pytest.raises(DecodeError):
            receiver.open(bytes(sealed))
    with pytest.raises(DecodeError):
        receiver.open(ipv4_packet())
    with pytest.raises(DecodeError):
        receiver.open(ipv4_packet(b"\x11\x05", protocol=51))
