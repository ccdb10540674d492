"""Checksums of transport mode behind a NAT (RFC 3948 section 3.1.2)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from tests.support.ipsec import FAR4, FAR6, NEAR4, NEAR6, esp_sa, far_end
from tests.support.tcp import is_intact, tcp_packet

from locum.ipsec.ip import TCP, UDP, checksum, ipv4_header, parse
from locum.ipsec.modes import EspInbound, EspOutbound
from locum.ipsec.nat_checksum import repaired
from locum.ipsec.sa import Mode, UdpEncapsulation
from locum.ipsec.udp import HEADER_LENGTH

PRIVATE = ip_address("10.0.0.5")
NAT = UdpEncapsulation(source_port=4500, destination_port=4500)


def udp_segment(ends: tuple[bytes, bytes], payload: bytes, *, summed: bool = True) -> bytes:
    length = (8 + len(payload)).to_bytes(2, "big")
    segment = b"\x04\x00\x00\x35" + length + bytes(2) + payload
    total = checksum(b"".join(ends) + b"\0\0" + length + bytes((0, 0, 0, UDP)) + segment) or 0xFFFF
    return segment[:6] + (total if summed else 0).to_bytes(2, "big") + segment[8:]


def verifies(protocol: int, segment: bytes, ends: tuple[bytes, bytes]) -> bool:
    pseudo_header = b"".join(ends) + len(segment).to_bytes(4, "big") + protocol.to_bytes(4, "big")
    return checksum(pseudo_header + segment) == 0


@pytest.mark.parametrize("known", [True, False], ids=["original addresses known", "unknown"])
@pytest.mark.parametrize("length", [0, 1, 700, 1401])
def test_the_checksum_is_right_for_the_new_addresses(known: bool, length: int) -> None:
    for far, near, new in ((FAR4, NEAR4, PRIVATE), (FAR6, NEAR6, ip_address("fd00::7"))):
        before, after = (near.packed, far.packed), (new.packed, far.packed)
        for number in range(300):
            segment = udp_segment(before, number.to_bytes(2, "big") + bytes(length))
            result = repaired(UDP, segment, after, before if known else None)
            assert verifies(UDP, result, after)
            assert result[6:8] != bytes(2)
            assert result[:6] + result[8:] == segment[:6] + segment[8:]


def test_what_was_wrong_stays_wrong_where_the_original_addresses_are_known() -> None:
    before, after = (NEAR4.packed, FAR4.packed), (PRIVATE.packed, FAR4.packed)
    segment = udp_segment(before, b"data") + b"x"
    assert not verifies(UDP, repaired(UDP, segment, after, before), after)


@pytest.mark.parametrize(
    "protocol, segment",
    [
        (UDP, udp_segment((NEAR4.packed, FAR4.packed), b"x", summed=False)),
        (TCP, bytes(19)),
        (UDP, bytes(7)),
        (1, bytes(40)),
    ],
    ids=["udp without checksum", "short tcp", "short udp", "icmp"],
)
def test_what_has_no_checksum_to_repair_stays_as_it_is(protocol: int, segment: bytes) -> None:
    for original in (None, (NEAR4.packed, FAR4.packed)):
        assert repaired(protocol, segment, (PRIVATE.packed, FAR4.packed), original) == segment


@pytest.mark.parametrize(
    "original", [(ip_address("10.1.0.1"), ip_address("10.2.0.1")), None], ids=["known", "unknown"]
)
def test_a_tcp_packet_of_transport_mode_is_intact_behind_a_nat(original: Any) -> None:
    sa = esp_sa(
        mode=Mode.TRANSPORT, encapsulation=NAT, source=ip_address("10.1.0.1"), destination=ip_address("10.2.0.1")
    )
    packet = tcp_packet(1, b"hello")
    sealed = EspOutbound(sa).protect(packet)
    # The NAT writes another source address.
    ip = parse(sealed)
    behind = ipv4_header(FAR4.packed, ip.destination, ip.protocol, ip.length) + sealed[ip.payload :]
    inside = far_end(replace(sa, source=FAR4, original_addresses=original))
    opened = EspInbound(inside).unprotect(behind)
    assert opened is not None and is_intact(opened)
    assert parse(opened).source == FAR4.packed
    esp = sealed[ip.payload + HEADER_LENGTH :]
    datagram = EspInbound(inside).unprotect_datagram(esp, FAR4.packed, ip.destination)
    assert datagram is not None and is_intact(datagram)


def test_without_a_nat_nothing_is_touched() -> None:
    sa = esp_sa(mode=Mode.TRANSPORT, source=ip_address("10.1.0.1"), destination=ip_address("10.2.0.1"))
    altered = tcp_packet(1, b"hello")[:-1] + b"!"
    assert EspInbound(far_end(sa)).unprotect(EspOutbound(sa).protect(altered)) == altered
