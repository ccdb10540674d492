"""Fuzz targets of IPsec: headers, datagrams, selectors, and the receiving end of every association."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.ipsec import (
    AH_SUITES,
    ESP_SUITES,
    FAR6,
    NEAR6,
    ah_sa,
    esp_sa,
    far_end,
    ipv4_packet,
    ipv6_packet,
)

from locum.errors import LocumError
from locum.ipsec import udp
from locum.ipsec.ip import flow_key, flow_of, insertion_point, parse
from locum.ipsec.modes import inbound, outbound
from locum.ipsec.nat_checksum import repaired
from locum.ipsec.policy import Action, Policy, PolicyDatabase
from locum.ipsec.processor import Processor
from locum.ipsec.protection import protection
from locum.ipsec.reassembly import Reassembly
from locum.ipsec.sa import Mode, SecurityAssociation, UdpEncapsulation
from locum.ipsec.selectors import parse_selectors
from locum.ipsec.too_big import fragments, too_big

_NAT = UdpEncapsulation(source_port=4500, destination_port=4500)


def _header(data: bytes) -> None:
    flow_key(data)
    try:
        ip = parse(data)
        assert 0 < insertion_point(ip)[0] <= ip.payload <= ip.length <= len(data)
        flow_of(data)
    except LocumError:
        return


def _datagram(data: bytes) -> None:
    try:
        kind, payload = udp.classify(data)
        assert data.endswith(payload) and (kind is not udp.Kind.IKE or udp.mark_ike(payload) == data)
        udp.decapsulate(data)
    except LocumError:
        return


def _selector(data: bytes) -> None:
    try:
        for selector in parse_selectors(data.decode("latin-1")):
            assert parse_selectors(str(selector)) == (selector,)
    except LocumError:
        return


def _associations() -> list[SecurityAssociation]:
    found = []
    for extended in (False, True):
        for changes in ({}, {"mode": Mode.TRANSPORT}, {"source": NEAR6, "destination": FAR6}):
            options: dict[str, Any] = {**changes, "extended_sequence": extended}
            found += [esp_sa(*suite, **options) for suite in ESP_SUITES]
            found += [ah_sa(suite, **options) for suite in AH_SUITES]
            found.append(esp_sa(encapsulation=_NAT, **options))
    return found


_ASSOCIATIONS = _associations()


def _packet(data: bytes) -> None:
    """The first byte chooses an association, the others are a packet for it."""
    sa = _ASSOCIATIONS[(data[0] if data else 0) % len(_ASSOCIATIONS)]
    try:
        inbound(far_end(sa)).unprotect(data[1:])
    except LocumError:
        return


def _inside(data: bytes) -> None:
    """As if the peer itself were hostile: the bytes are a plaintext, sealed with the right key."""
    sa = esp_sa()
    try:
        sealed = protection(sa).seal(1, data.ljust(2, b"\0"))
        inbound(far_end(sa)).unprotect(ipv4_packet(sealed, protocol=50))
    except LocumError:
        return


def _processor(data: bytes) -> None:
    rows = [Policy(name="dns", action=Action.BYPASS, remote=parse_selectors("any[udp/53]"))]
    processor = Processor(PolicyDatabase(rows))
    for sa in (esp_sa(), esp_sa(spi=0x3000_0000, encapsulation=_NAT), ah_sa()):
        processor.add(far_end(sa))
    for step in (processor.unprotect, processor.protect):
        try:
            step(data)
        except LocumError:
            continue


def _fragment(data: bytes) -> None:
    """Many packets, each behind its length: whatever they claim, what comes out is a packet, and bounded."""
    whole = Reassembly()
    position = 0
    while position + 2 <= len(data):
        length = int.from_bytes(data[position : position + 2], "big")
        piece = data[position + 2 : position + 2 + length]
        position += 2 + length
        try:
            packet = whole.take(piece, 0.0)
            assert packet is None or not parse(packet).fragment
        except LocumError:
            continue


def _too_big(data: bytes) -> None:
    """The first two bytes are an MTU, the others a packet: its pieces make it again, or it is refused."""
    mtu, packet = int.from_bytes(data[:2], "big"), data[2:]
    try:
        message = too_big(packet, mtu)
        assert message is None or parse(message).length == len(message)
        pieces = fragments(packet, mtu, 7)
        assert all(parse(piece).length == len(piece) <= mtu for piece in pieces)
    except LocumError:
        return


def _repair(data: bytes) -> None:
    """The checksum of a segment for other addresses: never longer, never anything but two bytes."""
    for protocol in (6, 17, 1):
        for original in (None, (bytes(4), bytes(4))):
            result = repaired(protocol, data, (b"abcd", b"efgh"), original)
            assert len(result) == len(data)
            assert sum(one != other for one, other in zip(result, data, strict=True)) <= 2


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": _header,
    "datagram": _datagram,
    "selector": _selector,
    "packet": _packet,
    "inside": _inside,
    "processor": _processor,
    "fragment": _fragment,
    "too_big": _too_big,
    "repair": _repair,
}

_PLAIN = (
    ipv4_packet(),
    ipv6_packet(),
    ipv6_packet(extensions=bytes((17, 0, 1, 4)) + bytes(4), first=0),
    ipv6_packet(extensions=bytes((17, 0, 0, 9)) + bytes(4), first=44),
)
_SEALED = tuple(
    bytes((index,)) + outbound(sa).protect(packet)
    for index, sa in enumerate(_ASSOCIATIONS)
    for packet in _PLAIN[:3]
)
SEEDS: dict[str, tuple[bytes, ...]] = {
    "header": _PLAIN,
    "datagram": (udp.KEEPALIVE, udp.mark_ike(bytes(28)), _SEALED[0][21:], _SEALED[-1][21:]),
    "selector": (b"10.1.0.0/16[tcp/80-90]", b"any", b"10.0.0.1-10.0.0.9[udp/opaque]", b"2001:db8::/32[icmpv6]"),
    "packet": _SEALED[::7],
    "inside": tuple(packet + b"\x01\x01\x04" for packet in _PLAIN),
    "processor": (*_PLAIN, *(packet[1:] for packet in _SEALED[::11])),
    "fragment": tuple(
        b"".join(len(piece).to_bytes(2, "big") + piece for piece in fragments(packet, 1280, 7))
        for packet in (ipv4_packet(bytes(3000), dont_fragment=False), ipv6_packet(bytes(3000)))
    ),
    "too_big": tuple(
        bytes((4, 0)) + packet for packet in (*_PLAIN, ipv4_packet(bytes(1500), dont_fragment=False))
    ),
    "repair": (_PLAIN[0][20:], bytes(40)),
}
