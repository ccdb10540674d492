"""Tunnel and transport mode, outer headers, UDP encapsulation, and the way through the databases (RFC 4301)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.ipsec import FAR4, FAR6, NEAR4, NEAR6, ah_sa, esp_sa, far_end, ipv4_packet, ipv6_packet

from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import DecodeError, Unavailable
from locum.ipsec import udp
from locum.ipsec.faults import (
    CongestionMarkLost,
    DiscardedByPolicy,
    FragmentRefused,
    PacketTooLong,
    Replayed,
    SelectorMismatch,
    UnknownAssociation,
)
from locum.ipsec.ip import FRAGMENT, ICMP, UDP, checksum, parse
from locum.ipsec.modes import EspInbound, EspOutbound, inbound, outbound
from locum.ipsec.policy import Action, Policy, PolicyDatabase, Protection
from locum.ipsec.processor import MissingAssociation, Processor
from locum.ipsec.sa import DontFragment, Expiry, Lifetime, Mode, SecurityAssociation, UdpEncapsulation
from locum.ipsec.selectors import MAX_REMEMBERED_FLOWS, parse_selectors

NAT = UdpEncapsulation(source_port=4500, destination_port=31000)
V6 = {"source": NEAR6, "destination": FAR6}


def fragment(packet: bytes) -> bytes:
    header = bytearray(packet[:20])
    header[6:8] = b"\x20\x00"
    header[10:12] = b"\0\0"
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    return bytes(header) + packet[20:]


def through(sa: SecurityAssociation, packet: bytes) -> tuple[bytes, bytes | None]:
    sealed = outbound(sa).protect(packet)
    return sealed, inbound(far_end(sa)).unprotect(sealed)


@pytest.mark.parametrize("build", [esp_sa, ah_sa])
@pytest.mark.parametrize("ends", [{}, V6], ids=["over ipv4", "over ipv6"])
@pytest.mark.parametrize("packet", [ipv4_packet(), ipv6_packet()], ids=["ipv4", "ipv6"])
def test_a_tunnel_carries_either_ip_version_over_either(build: Any, ends: dict[str, Any], packet: bytes) -> None:
    sa = build(**ends)
    sealed, opened = through(sa, packet)
    outer = parse(sealed)
    assert (outer.source, outer.destination) == (sa.source.packed, sa.destination.packed)
    assert outer.length == len(sealed)
    assert opened == packet


@pytest.mark.parametrize("build", [esp_sa, ah_sa])
@pytest.mark.parametrize("packet", [ipv4_packet(), ipv6_packet()], ids=["ipv4", "ipv6"])
def test_transport_mode_keeps_the_header(build: Any, packet: bytes) -> None:
    sealed, opened = through(build(mode=Mode.TRANSPORT), packet)
    assert parse(sealed)[3:5] == parse(packet)[3:5]
    assert opened == packet


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("packet, ends", [(ipv4_packet(), {}), (ipv6_packet(), V6)], ids=["ipv4", "ipv6"])
def test_esp_travels_inside_of_udp(mode: Mode, packet: bytes, ends: dict[str, Any]) -> None:
    sa = esp_sa(mode=mode, encapsulation=NAT, **ends)
    sealed, opened = through(sa, packet)
    outer = parse(sealed)
    segment = sealed[outer.payload :]
    assert outer.protocol == UDP
    assert (segment[:2], segment[2:4]) == ((4500).to_bytes(2, "big"), (31000).to_bytes(2, "big"))
    if outer.version == 4:
        assert segment[6:8] == b"\0\0"  # RFC 3948 section 2.1
    else:
        pseudo_header = outer.source + outer.destination + len(segment).to_bytes(4, "big") + bytes((0, 0, 0, UDP))
        assert checksum(pseudo_header + segment) == 0
    assert opened == packet


def test_fragments_are_refused_but_for_inside_a_tunnel() -> None:
    part = fragment(ipv4_packet())
    for sa in (esp_sa(mode=Mode.TRANSPORT), ah_sa(mode=Mode.TRANSPORT)):
        with pytest.raises(FragmentRefused):
            outbound(sa).protect(part)
    for sa in (esp_sa(), ah_sa()):
        sealed, opened = through(sa, part)
        assert opened == part
        with pytest.raises(FragmentRefused):
            inbound(far_end(sa)).unprotect(fragment(sealed))
    with pytest.raises(FragmentRefused):
        outbound(esp_sa(mode=Mode.TRANSPORT)).protect(
            ipv6_packet(extensions=bytes((UDP, 0)) + bytes(6), first=FRAGMENT)
        )


@pytest.mark.parametrize(
    "rule, inner, expected",
    [
        (DontFragment.COPY, True, True),
        (DontFragment.COPY, False, False),
        (DontFragment.SET, False, True),
        (DontFragment.CLEAR, True, False),
    ],
)
def test_the_outer_header_says_what_was_asked_about_fragmentation(
    rule: DontFragment, inner: bool, expected: bool
) -> None:
    sender = outbound(esp_sa(dont_fragment=rule))
    packets = [sender.protect(ipv4_packet(dont_fragment=inner)) for _ in range(3)]
    assert {parse(packet).dont_fragment for packet in packets} == {expected}
    # RFC 6864: packets that may be fragmented need identifications of their own.
    assert len({packet[4:6] for packet in packets}) == (1 if expected else 3)


@pytest.mark.parametrize("copy, expected", [(True, 0xBA), (False, 0x02)])
@pytest.mark.parametrize("ends", [{}, V6], ids=["ipv4", "ipv6"])
def test_dscp_is_copied_out_where_asked_and_ecn_always(copy: bool, expected: int, ends: dict[str, Any]) -> None:
    sealed, opened = through(esp_sa(copy_dscp=copy, **ends), ipv4_packet(traffic_class=0xBA))
    assert parse(sealed).traffic_class == expected
    assert opened is not None and parse(opened).traffic_class == 0xBA


@pytest.mark.parametrize("build", [ipv4_packet, ipv6_packet])
@pytest.mark.parametrize(
    "inner, outer, expected",
    [
        # RFC 6040 section 4.2, figure 4; None: dropped
        (0, 0, 0), (0, 2, 0), (0, 1, 0), (0, 3, None),
        (2, 0, 2), (2, 2, 2), (2, 1, 1), (2, 3, 3),
        (1, 0, 1), (1, 2, 1), (1, 1, 1), (1, 3, 3),
        (3, 0, 3), (3, 2, 3), (3, 1, 3), (3, 3, 3),
    ],
)  # fmt: skip
def test_congestion_marks_are_combined_at_the_end_of_a_tunnel(
    build: Any, inner: int, outer: int, expected: int | None
) -> None:
    for sa in (esp_sa(), ah_sa()):
        sealed = bytearray(outbound(sa).protect(build(traffic_class=0xB8 | inner)))
        sealed[1] = outer
        sealed[10:12] = b"\0\0"
        sealed[10:12] = checksum(bytes(sealed[:20])).to_bytes(2, "big")
        receiver = inbound(far_end(sa))
        if expected is None:
            with pytest.raises(CongestionMarkLost):
                receiver.unprotect(bytes(sealed))
        else:
            assert receiver.unprotect(bytes(sealed)) == build(traffic_class=0xB8 | expected)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("build", [esp_sa, ah_sa])
def test_what_is_inside_must_be_what_the_association_is_for(mode: Mode, build: Any) -> None:
    sa = build(mode=mode, local=parse_selectors("10.1.0.0/16[udp]"), remote=parse_selectors("10.2.0.0/16[udp/53]"))
    sender, receiver = outbound(sa), inbound(far_end(sa))
    for _ in range(2):  # the second time it is remembered
        assert receiver.unprotect(sender.protect(ipv4_packet())) == ipv4_packet()
    for stranger in (
        ipv4_packet(source="10.3.0.1"),
        ipv4_packet(destination="10.3.0.1"),
        ipv4_packet(ports=(1024, 54)),
        ipv4_packet(protocol=6),
        ipv4_packet(protocol=ICMP),
        ipv6_packet(),
    ):
        with pytest.raises(SelectorMismatch):
            receiver.unprotect(sender.protect(stranger))


def test_flows_that_are_remembered_are_bounded() -> None:
    receiver = EspInbound(far_end(esp_sa()))
    for port in range(MAX_REMEMBERED_FLOWS + 5):
        receiver._allowed.check(ipv4_packet(ports=(port, 53)))
    assert len(receiver._allowed._remembered) <= MAX_REMEMBERED_FLOWS


def test_dummies_and_other_packets_come_to_nothing() -> None:
    for sa in (esp_sa(), esp_sa(mode=Mode.TRANSPORT)):
        sender, receiver = EspOutbound(sa), inbound(far_end(sa))
        esp = sender.sender.dummy(64)
        carrier = ipv4_packet(esp, source=str(NEAR4), destination=str(FAR4), protocol=50)
        assert receiver.unprotect(carrier) is None
        with pytest.raises(DecodeError):
            receiver.unprotect(ipv4_packet())


def test_packets_that_become_too_long_are_refused() -> None:
    long = ipv4_packet(bytes(65_480))
    for sa in (
        esp_sa(),
        esp_sa(encapsulation=NAT),
        esp_sa(mode=Mode.TRANSPORT),
        ah_sa(),
        ah_sa(mode=Mode.TRANSPORT),
    ):
        with pytest.raises(PacketTooLong):
            outbound(sa).protect(long)


def test_datagrams_on_the_nat_traversal_port_are_told_apart() -> None:
    assert udp.classify(udp.KEEPALIVE) == (udp.Kind.KEEPALIVE, b"")
    assert udp.classify(udp.mark_ike(b"message")) == (udp.Kind.IKE, b"message")
    esp = EspOutbound(esp_sa()).sender.seal(b"", 6)
    assert udp.classify(esp) == (udp.Kind.ESP, esp)
    for neither in (b"", b"\xfe", b"\xff\xff", b"\0\0\0", b"\0\0\1\1\0\0\0"):
        with pytest.raises(DecodeError):
            udp.classify(neither)


@pytest.mark.parametrize(
    "segment", [b"", bytes(7), b"\x11\x94\x11\x94\x00\x07\0\0", b"\x11\x94\x11\x94\x00\x09\0\0"]
)
def test_udp_headers_are_bounded_by_what_is_there(segment: bytes) -> None:
    with pytest.raises(DecodeError):
        udp.decapsulate(segment)


@pytest.fixture
def processors() -> tuple[Processor, Processor]:
    """Two ends: web traffic passes, 10.9/16 is discarded, all else between 10.1/16 and 10.2/16 is protected."""

    def make(local: str, remote: str) -> Processor:
        mine, theirs = parse_selectors(local), parse_selectors(remote)
        rows = [
            Policy(name="web", action=Action.BYPASS, local=mine, remote=parse_selectors("any[tcp/80]")),
            Policy(name="bad", action=Action.DISCARD, local=mine, remote=parse_selectors("10.9.0.0/16")),
            Policy(name="vpn", action=Action.PROTECT, local=mine, remote=theirs, protection=Protection()),
        ]
        return Processor(PolicyDatabase(rows))

    return make("10.1.0.0/16", "10.2.0.0/16"), make("10.2.0.0/16", "10.1.0.0/16")


def selected(sa: SecurityAssociation) -> SecurityAssociation:
    return replace(sa, local=parse_selectors("10.1.0.0/16"), remote=parse_selectors("10.2.0.0/16"))


def test_a_packet_is_protected_bypassed_or_discarded(processors: tuple[Processor, Processor]) -> None:
    near, far = processors
    web = ipv4_packet(destination="203.0.113.1", protocol=6, ports=(1024, 80))
    assert near.protect(web) == web
    answer = ipv4_packet(source="203.0.113.1", destination="10.1.0.1", protocol=6, ports=(80, 1024))
    assert near.unprotect(answer) == answer
    for discarded in (ipv4_packet(destination="10.9.0.1"), ipv4_packet(source="10.7.0.1")):
        with pytest.raises(DiscardedByPolicy):
            near.protect(discarded)
    with pytest.raises(MissingAssociation) as missing:
        near.protect(ipv4_packet())
    assert isinstance(missing.value, Unavailable)
    assert (missing.value.policy.name, missing.value.flow.destination_port) == ("vpn", 53)
    # What should have come protected is not let in.
    with pytest.raises(DiscardedByPolicy):
        far.unprotect(ipv4_packet())


@pytest.mark.parametrize("build", [esp_sa, ah_sa, lambda: esp_sa(encapsulation=NAT)])
def test_associations_are_used_from_the_moment_they_are_there(
    processors: tuple[Processor, Processor], build: Any
) -> None:
    near, far = processors
    sa = selected(build())
    incoming = far_end(sa)
    near.add(sa)
    far.add(incoming)
    packet = ipv4_packet()
    sealed = near.protect(packet)
    assert far.unprotect(sealed) == packet
    with pytest.raises(Replayed):
        far.unprotect(sealed)
    successor = replace(sa, spi=sa.spi + 1)
    near.add(successor)
    with pytest.raises((UnknownAssociation, DiscardedByPolicy)):
        far.unprotect(near.protect(packet))
    far.add(far_end(successor))
    assert far.unprotect(near.protect(packet)) == packet
    near.remove(successor)
    near.remove(sa)
    near.remove(sa)
    with pytest.raises(MissingAssociation):
        near.protect(packet)
    later = inbound_only(sa)
    assert far.unprotect(later) == packet
    far.remove(incoming)
    with pytest.raises((UnknownAssociation, DiscardedByPolicy)):
        far.unprotect(later)


def inbound_only(sa: SecurityAssociation) -> bytes:
    return outbound(sa, first_sequence=50).protect(ipv4_packet())


def test_udp_that_only_looks_like_esp_keeps_its_way(processors: tuple[Processor, Processor]) -> None:
    near, _ = processors
    incoming = far_end(selected(esp_sa(encapsulation=NAT)))
    near.add(incoming)
    body = udp.encapsulate(incoming.spi.to_bytes(4, "big") + bytes(60), 4500, 53)
    with pytest.raises(DiscardedByPolicy):
        near.unprotect(ipv4_packet(body, protocol=UDP))
    with pytest.raises(DiscardedByPolicy):
        near.unprotect(ipv4_packet(b"", ports=(4500, 31000)))
    forged = udp.encapsulate(incoming.spi.to_bytes(4, "big") + b"\0\0\0\x01" + bytes(60), 4500, 31000)
    header = ipv4_packet(b"", protocol=47)[:20]
    whole = bytearray(header)
    whole[9] = UDP
    whole[2:4] = (20 + len(forged)).to_bytes(2, "big")
    whole[10:12] = b"\0\0"
    whole[10:12] = checksum(bytes(whole)).to_bytes(2, "big")
    with pytest.raises(AuthenticationFailed):
        near.unprotect(bytes(whole) + forged)


@pytest.mark.parametrize("build", [esp_sa, ah_sa])
def test_associations_that_grow_old_are_told(processors: tuple[Processor, Processor], build: Any) -> None:
    near, far = processors
    lifetime = Lifetime(soft_seconds=50, hard_seconds=60, soft_packets=2)
    sa = replace(selected(build(lifetime=lifetime)), created=1000.0)
    near.add(sa)
    far.add(far_end(sa))
    assert near.expired(1049.0) == []
    assert near.expired(1050.0) == [(sa, Expiry.SOFT)]
    assert near.expired(1060.0) == [(sa, Expiry.HARD)]
    for _ in range(2):
        far.unprotect(near.protect(ipv4_packet()))
    assert [expiry for _, expiry in near.expired(1000.0) + far.expired(1000.0)] == [Expiry.SOFT, Expiry.SOFT]
