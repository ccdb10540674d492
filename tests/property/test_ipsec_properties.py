"""IPsec over all packets, algorithms and orders of arrival (RFC 4301 to 4303; B13)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
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

from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import LocumError
from locum.ipsec.esp import EspReceiver, EspSender
from locum.ipsec.faults import Replayed
from locum.ipsec.ip import DESTINATION_OPTIONS, HOP_BY_HOP, TCP, UDP, checksum, flow_key, flow_of, parse
from locum.ipsec.modes import inbound, outbound
from locum.ipsec.sa import Mode, SecurityAssociation, UdpEncapsulation
from locum.ipsec.selectors import TrafficSelector, parse_selectors
from locum.ipsec.sequence import LAST_SEQUENCE, ReplayWindow

suites = st.sampled_from(ESP_SUITES)
ports = st.tuples(st.integers(0, 65535), st.integers(0, 65535))


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    fields: dict[str, Any] = {
        "payload": draw(st.binary(max_size=300)),
        "protocol": draw(st.sampled_from((TCP, UDP, 1, 47, 58, 132))),
        "ports": draw(ports),
        "traffic_class": draw(st.integers(0, 255)),
        "hop_limit": draw(st.integers(0, 255)),
    }
    if draw(st.booleans()):
        fields["source"] = str(draw(st.builds(IPv4Address, st.integers(0, 2**32 - 1))))
        return ipv4_packet(**fields, identification=draw(st.integers(0, 65535)), dont_fragment=draw(st.booleans()))
    fields["source"] = str(draw(st.builds(IPv6Address, st.integers(0, 2**128 - 1))))
    first = draw(st.sampled_from((None, HOP_BY_HOP, DESTINATION_OPTIONS)))
    option = bytes((fields["protocol"], 0, draw(st.sampled_from((1, 0x1E, 0x3E))), 4)) + draw(
        st.binary(min_size=4, max_size=4)
    )
    return ipv6_packet(**fields, extensions=option if first is not None else b"", first=first)


@st.composite
def associations(draw: st.DrawFn) -> SecurityAssociation:
    """Any association, in any mode, over either IP version."""
    changes: dict[str, Any] = {
        "mode": draw(st.sampled_from(Mode)),
        "extended_sequence": draw(st.booleans()),
        "replay_window": draw(st.sampled_from((1, 32, 64, 4096))),
    }
    if draw(st.booleans()):
        changes |= {"source": NEAR6, "destination": FAR6}
    if draw(st.integers(0, 3)) == 0:
        return ah_sa(draw(st.sampled_from(AH_SUITES)), **changes)
    if draw(st.booleans()):
        changes["encapsulation"] = UdpEncapsulation(source_port=4500, destination_port=4501)
    return esp_sa(*draw(suites), **changes)


def but_for_checksums(sa: SecurityAssociation, packet: bytes) -> bytes:
    """`packet` without what transport mode inside of UDP makes anew, as for a NAT in between (RFC 3948)."""
    ip = parse(packet)
    at = {TCP: 16, UDP: 6}.get(ip.protocol)
    if sa.mode is Mode.TUNNEL or sa.encapsulation is None or at is None:
        return packet
    return packet[: ip.payload + at] + bytes(2) + packet[ip.payload + at + 2 :]


@given(associations(), st.lists(packets(), min_size=1, max_size=4), st.integers(1, 2**31))
def test_what_one_end_protects_the_other_delivers_unchanged(
    sa: SecurityAssociation, sent: list[bytes], first: int
) -> None:
    sender, receiver = outbound(sa, first_sequence=first), inbound(far_end(sa))
    for packet in sent:
        sealed = sender.protect(packet)
        assert parse(sealed).length == len(sealed)
        delivered = receiver.unprotect(sealed)
        assert delivered is not None
        assert but_for_checksums(sa, delivered) == but_for_checksums(sa, packet)


@given(associations(), packets(), st.data())
def test_an_altered_packet_is_never_delivered_altered(
    sa: SecurityAssociation, packet: bytes, data: st.DataObject
) -> None:
    sealed = outbound(sa).protect(packet)
    position = data.draw(st.integers(0, len(sealed) - 1))
    altered = bytearray(sealed)
    altered[position] ^= 1 << data.draw(st.integers(0, 7))
    receiver = inbound(far_end(sa))
    start = parse(sealed).payload
    try:
        delivered = receiver.unprotect(bytes(altered))
    except LocumError:
        return
    # Only what is not protected can have changed: the headers in front of ESP, or what AH lets routers change.
    assert position < start or parse(sealed).protocol == UDP
    assert delivered is not None
    since = 20 if sa.mode is Mode.TUNNEL else start
    assert but_for_checksums(sa, delivered)[since:] == but_for_checksums(sa, packet)[since:]


@given(associations(), packets(), st.integers(0, 400))
def test_a_truncated_packet_is_refused(sa: SecurityAssociation, packet: bytes, cut: int) -> None:
    sealed = outbound(sa).protect(packet)
    try:
        inbound(far_end(sa)).unprotect(sealed[: -1 - cut % len(sealed)])
    except LocumError:
        return
    raise AssertionError("a truncated packet was delivered")


@given(associations(), st.binary(max_size=200), st.booleans())
def test_random_bytes_bring_nothing_but_our_own_errors(
    sa: SecurityAssociation, data: bytes, in_header: bool
) -> None:
    receiver = inbound(far_end(sa))
    packet = data
    if in_header:
        protocol = UDP if sa.encapsulation else int(sa.protocol)
        build = ipv4_packet if sa.source.version == 4 else ipv6_packet
        packet = build(sa.spi.to_bytes(4, "big") + data, protocol=protocol, ports=(4500, 4501))
    try:
        receiver.unprotect(packet)
    except LocumError:
        return
    raise AssertionError("random bytes were delivered")


@given(suites, st.sampled_from((1, 8, 64)), st.lists(st.integers(0, 30), max_size=60), st.booleans())
def test_each_packet_is_delivered_at_most_once_in_any_order(
    suite: Any, window: int, arrivals: list[int], extended: bool
) -> None:
    sa = esp_sa(*suite, replay_window=window, extended_sequence=extended)
    start = LAST_SEQUENCE - 15 if extended else 1  # so that some lie on either side of 2^32
    sender, receiver = EspSender(sa, first_sequence=start), EspReceiver(far_end(sa))
    receiver.sequence.highest = start - 1
    sealed = [sender.seal(bytes((index,)), UDP) for index in range(31)]
    seen: set[int] = set()
    highest = -1
    for index in arrivals:
        try:
            opened = receiver.open(sealed[index])
        except (Replayed, AuthenticationFailed):
            # Of an extended number that lies behind the window the upper half is guessed wrong.
            assert index in seen or index <= highest - window
        else:
            assert opened == (UDP, bytes((index,)))
            assert index not in seen and index > highest - window
            seen.add(index)
            highest = max(highest, index)


@given(suites, st.lists(st.integers(0, 200), min_size=2, max_size=30), st.integers(1, LAST_SEQUENCE - 100))
def test_nonces_are_never_repeated(suite: Any, lengths: list[int], first: int) -> None:
    encryption, _ = suite
    sender = EspSender(esp_sa(*suite), first_sequence=first)
    sealed = [sender.seal(bytes(length), UDP) for length in lengths]
    sealed += sender.seal_packets([ipv4_packet()] * 3)
    headers = [packet[: 8 + encryption.iv_length] for packet in sealed]
    assert len(set(headers)) == len(headers)
    if encryption.iv_length:
        assert len({header[8:] for header in headers}) == len(headers)


@given(st.lists(st.integers(1, 400), max_size=100), st.sampled_from((1, 32, 64, 256)))
def test_a_window_agrees_with_a_set(numbers: list[int], size: int) -> None:
    window = ReplayWindow(size)
    seen: set[int] = set()
    for number in numbers:
        expected = number not in seen and number > max(seen, default=0) - size
        assert window.acceptable(number) is expected
        if expected:
            window.accept(number)
            seen.add(number)


@given(st.integers(1, 2**64 - 1), st.integers(-60, 2**31), st.sampled_from((32, 64, 4096)))
def test_extended_numbers_are_found_while_within_reach(highest: int, step: int, size: int) -> None:
    number = highest + max(step, 1 - size)
    if not 0 < number < 2**64:
        return
    window = ReplayWindow(size)
    window.highest = highest
    assert window.extend(number & LAST_SEQUENCE) == number


@given(packets())
def test_headers_are_read_as_they_were_written(packet: bytes) -> None:
    ip = parse(packet)
    assert ip.length == len(packet)
    if ip.version == 4:
        assert checksum(packet[:20]) == 0
    key, flow = flow_key(packet), flow_of(packet)
    if key is not None:
        assert (
            key == bytes((flow.protocol,)) + flow.source + flow.destination + packet[ip.payload : ip.payload + 4]
        )


addresses = st.integers(0, 2**32 - 1).map(IPv4Address)


@st.composite
def selectors(draw: st.DrawFn) -> TrafficSelector:
    start, end = sorted((draw(addresses), draw(addresses)))
    protocol = draw(st.sampled_from((0, TCP, UDP)))
    first, last = sorted(draw(ports)) if protocol and draw(st.booleans()) else (0, 65535)
    if protocol and draw(st.integers(0, 5)) == 0:
        first, last = 65535, 0
    return TrafficSelector(start=start, end=end, protocol=protocol, first_port=first, last_port=last)


@given(selectors())
def test_selectors_are_read_as_they_are_shown(selector: TrafficSelector) -> None:
    assert parse_selectors(str(selector)) == (selector,)


@given(selectors(), selectors(), addresses, st.sampled_from((TCP, UDP, 1)), st.none() | st.integers(0, 65535))
def test_narrowing_means_what_both_mean(
    left: TrafficSelector, right: TrafficSelector, address: IPv4Address, protocol: int, port: int | None
) -> None:
    common = left.intersection(right)
    both = left.matches(address.packed, protocol, port) and right.matches(address.packed, protocol, port)
    assert both is (common is not None and common.matches(address.packed, protocol, port))
    if common is not None:
        assert left.contains(common) and right.contains(common)


@given(st.text(max_size=40))
def test_text_that_is_no_selector_brings_nothing_but_our_own_errors(text: str) -> None:
    try:
        parse_selectors(text)
    except LocumError:
        return
