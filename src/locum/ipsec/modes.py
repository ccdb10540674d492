"""Tunnel and transport mode: whole IP packets in, whole IP packets out (RFC 4301 sections 3.2, 5.1.2 and 5.2.1).

Knows one association at a time; which one a packet belongs to is decided elsewhere.

The outer header of a tunnel: DSCP is copied from the packet or 0, and never copied back; ECN is copied out and
combined back in as RFC 6040 has it; in IPv4 the identification is 0 where the packet must not be fragmented (RFC
6864) and counts otherwise; the flow label is 0. The time to live of the packet inside is left alone: whoever
forwards has decremented it.
"""

from __future__ import annotations

from typing import Protocol

from locum.errors import DecodeError
from locum.ipsec.ah import AhReceiver, AhSender
from locum.ipsec.esp import EspReceiver, EspSender
from locum.ipsec.faults import CongestionMarkLost, HeaderRefused, SelectorMismatch
from locum.ipsec.ip import (
    IPV4,
    IPV4_HEADER,
    IPV6,
    IPV6_HEADER,
    UDP,
    IpPacket,
    checksum,
    flow_key,
    flow_of,
    inner_length,
    insertion_point,
    ipv4_header,
    ipv6_header,
    parse,
    require_whole,
    set_length,
)
from locum.ipsec.nat_checksum import repaired
from locum.ipsec.sa import DontFragment, Mode, SecurityAssociation
from locum.ipsec.sa import Protocol as IpsecProtocol
from locum.ipsec.selectors import MAX_REMEMBERED_FLOWS
from locum.ipsec.udp import HEADER_LENGTH as UDP_HEADER
from locum.ipsec.udp import decapsulate, encapsulate

#: Time to live, or hop limit, of outer headers.
HOP_LIMIT = 64

_CONGESTION_EXPERIENCED = 3


class Usage(Protocol):
    """Packets, and their bytes without protection."""

    @property
    def packets(self) -> int: ...
    @property
    def bytes(self) -> int: ...


class Outbound(Protocol):
    """An outbound association at work."""

    sa: SecurityAssociation

    @property
    def usage(self) -> Usage:
        """What it has protected so far."""
        ...

    def protect(self, packet: bytes) -> bytes:
        """The IP packet to send for `packet`, a whole IP packet.

        Raises: FragmentRefused, HeaderRefused, PacketTooLong, SequenceExhausted, LifetimeExpired, DecodeError.
        """
        ...

    def longest(self, path_mtu: int) -> int:
        """The longest packet, in bytes, that fits into `path_mtu` bytes once it is protected."""
        ...

    def follow(self, sa: SecurityAssociation) -> None:
        """Go on as `sa`, which `continues` the one so far."""
        ...


class Inbound(Protocol):
    """An inbound association at work."""

    sa: SecurityAssociation

    @property
    def usage(self) -> Usage:
        """What it has accepted so far."""
        ...

    def unprotect(self, packet: bytes) -> bytes | None:
        """The IP packet that came inside of `packet`, a whole IP packet; None when it was a dummy.

        Raises: FragmentRefused, HeaderRefused, UnknownAssociation, Replayed, LifetimeExpired,
        AuthenticationFailed, SelectorMismatch, CongestionMarkLost, DecodeError.
        """
        ...

    def follow(self, sa: SecurityAssociation) -> None:
        """Go on as `sa`, which `continues` the one so far."""
        ...


def outbound(sa: SecurityAssociation, *, first_sequence: int = 1, first_identification: int = 0) -> Outbound:
    """Put an outbound association to work; `first_sequence`: see `OutboundSequence`.

    The outer headers that have an identification count from `first_identification` on. Whoever leaves them to a
    kernel begins with 1: kernels put a number of their own for 0, and AH would not be authentic.
    """
    kind = EspOutbound if sa.protocol is IpsecProtocol.ESP else AhOutbound
    return kind(sa, first_sequence=first_sequence, first_identification=first_identification)


def inbound(sa: SecurityAssociation) -> Inbound:
    """Put an inbound association to work."""
    return EspInbound(sa) if sa.protocol is IpsecProtocol.ESP else AhInbound(sa)


class EspOutbound:
    """ESP in either mode, inside of UDP where the association says so."""

    __slots__ = ("_outer", "sa", "sender")

    def __init__(self, sa: SecurityAssociation, *, first_sequence: int = 1, first_identification: int = 0) -> None:
        self.sa = sa
        self.sender = EspSender(sa, first_sequence=first_sequence)
        self._outer = _OuterHeader(sa, first_identification)

    @property
    def usage(self) -> Usage:
        return self.sender.sequence

    def protect(self, packet: bytes) -> bytes:
        ip = parse(packet)
        if self.sa.mode is Mode.TUNNEL:
            esp = self.sender.seal(packet[: ip.length], IPV4 if ip.version == 4 else IPV6)
            body = self._in_udp(esp, self._outer.addresses)
            return self._outer.write(ip, len(body), self._carrier) + body
        require_whole(ip)
        start, protocol_at = insertion_point(ip)
        header = bytearray(packet[:start])
        esp = self.sender.seal(packet[start : ip.length], header[protocol_at])
        body = self._in_udp(esp, ip.source + ip.destination)
        header[protocol_at] = self._carrier
        set_length(header, start + len(body))
        return bytes(header) + body

    def payloads(self, packets: list[bytes]) -> list[bytes]:
        """ESP around each of these IP packets, in order and without outer headers: what a UDP socket sends.

        Raises: as `protect`; then none is returned, and in tunnel mode no number is used.
        """
        if self.sa.mode is Mode.TUNNEL:
            return self.sender.seal_packets(packets)
        sealed = []
        for packet in packets:
            ip = parse(packet)
            require_whole(ip)
            start, protocol_at = insertion_point(ip)
            if start != (IPV4_HEADER if ip.version == 4 else IPV6_HEADER):
                # The header that a socket makes would have none of them.
                raise HeaderRefused("options or extension headers, where the IP header is not ours to write")
            sealed.append(self.sender.seal(packet[start : ip.length], packet[protocol_at]))
        return sealed

    def longest(self, path_mtu: int) -> int:
        header = IPV4_HEADER if self.sa.source.version == 4 else IPV6_HEADER
        room = self.sender.room(path_mtu - header - (UDP_HEADER if self.sa.encapsulation else 0))
        return room if self.sa.mode is Mode.TUNNEL else room + header

    def follow(self, sa: SecurityAssociation) -> None:
        self.sa = sa
        self._outer = _OuterHeader(sa, self._outer.identification)

    @property
    def _carrier(self) -> int:
        return UDP if self.sa.encapsulation else IpsecProtocol.ESP

    def _in_udp(self, esp: bytes, addresses: bytes) -> bytes:
        ports = self.sa.encapsulation
        if ports is None:
            return esp
        with_checksum = addresses if self.sa.source.version == 6 else None
        return encapsulate(esp, ports.source_port, ports.destination_port, with_checksum)


class EspInbound:
    """ESP in either mode, inside of UDP where the association says so."""

    __slots__ = ("_allowed", "receiver", "sa")

    def __init__(self, sa: SecurityAssociation) -> None:
        self.sa = sa
        self.receiver = EspReceiver(sa)
        self._allowed = FlowFilter(sa)

    @property
    def usage(self) -> Usage:
        return self.receiver.sequence

    def unprotect(self, packet: bytes) -> bytes | None:
        ip = parse(packet)
        require_whole(ip)
        esp = packet[ip.payload : ip.length]
        if ip.protocol == UDP and self.sa.encapsulation:
            esp = decapsulate(esp)
        elif ip.protocol != IpsecProtocol.ESP:
            raise DecodeError("an IP packet without ESP")
        if self.sa.mode is Mode.TUNNEL:
            return self.unprotect_payload(esp, traffic_class=ip.traffic_class)
        opened = self.receiver.open(esp)
        if opened is None:
            return None
        payload = opened.payload
        if self.sa.encapsulation:
            payload = self._repaired(opened.next_header, payload, ip.source, ip.destination)
        header = bytearray(packet[: ip.payload])
        header[ip.protocol_at] = opened.next_header
        set_length(header, ip.payload + len(payload))
        inner = bytes(header) + payload
        self._allowed.check(inner)
        return inner

    def unprotect_payload(self, esp: bytes, *, traffic_class: int = 0) -> bytes | None:
        """Tunnel mode, from what came in a UDP datagram or behind an outer header with this traffic class.

        Raises: as `unprotect`.
        """
        inner = self.receiver.open_packet(esp)
        if inner is None:
            return None
        self._allowed.check(inner)
        return with_congestion(inner, traffic_class) if traffic_class & 3 else inner

    def unprotect_datagram(
        self, esp: bytes, source: bytes, destination: bytes, *, traffic_class: int = 0
    ) -> bytes | None:
        """Transport mode, from what came in a UDP datagram between these addresses, 4 or 16 bytes each.

        Raises: as `unprotect`.
        """
        opened = self.receiver.open(esp)
        if opened is None:
            return None
        header, length = (ipv4_header, IPV4_HEADER) if len(source) == 4 else (ipv6_header, IPV6_HEADER)
        payload = self._repaired(opened.next_header, opened.payload, source, destination)
        inner = header(source, destination, opened.next_header, length + len(payload), traffic_class=traffic_class)
        inner += payload
        self._allowed.check(inner)
        return inner

    def check(self, inner: bytes) -> None:
        """Raise `SelectorMismatch` for an IP packet that the association may not carry, DecodeError for none."""
        self._allowed.check(inner)

    def follow(self, sa: SecurityAssociation) -> None:
        self.sa = sa
        self._allowed = FlowFilter(sa)

    def _repaired(self, protocol: int, payload: bytes, source: bytes, destination: bytes) -> bytes:
        """`payload` of transport mode, its checksum for the addresses that it has now (RFC 3948 section 3.1.2)."""
        original = self.sa.original_addresses
        packed = (original[0].packed, original[1].packed) if original else None
        return repaired(protocol, payload, (source, destination), packed)


class AhOutbound:
    """AH in either mode."""

    __slots__ = ("_outer", "sa", "sender")

    def __init__(self, sa: SecurityAssociation, *, first_sequence: int = 1, first_identification: int = 0) -> None:
        self.sa = sa
        self.sender = AhSender(sa, first_sequence=first_sequence)
        self._outer = _OuterHeader(sa, first_identification)

    @property
    def usage(self) -> Usage:
        return self.sender.sequence

    def protect(self, packet: bytes) -> bytes:
        if self.sa.mode is Mode.TUNNEL:
            ip = parse(packet)
            carrier = IPV4 if ip.version == 4 else IPV6
            packet = self._outer.write(ip, ip.length, carrier) + packet[: ip.length]
        return self.sender.seal(packet)

    def longest(self, path_mtu: int) -> int:
        header = IPV4_HEADER if self.sa.source.version == 4 else IPV6_HEADER
        room = path_mtu - self.sender.overhead
        return room - header if self.sa.mode is Mode.TUNNEL else room

    def follow(self, sa: SecurityAssociation) -> None:
        self.sa = sa
        self._outer = _OuterHeader(sa, self._outer.identification)


class AhInbound:
    """AH in either mode."""

    __slots__ = ("_allowed", "receiver", "sa")

    def __init__(self, sa: SecurityAssociation) -> None:
        self.sa = sa
        self.receiver = AhReceiver(sa)
        self._allowed = FlowFilter(sa)

    @property
    def usage(self) -> Usage:
        return self.receiver.sequence

    def unprotect(self, packet: bytes) -> bytes | None:
        opened = self.receiver.open(packet)
        if self.sa.mode is Mode.TRANSPORT:
            self._allowed.check(opened)
            return opened
        outer = parse(opened)
        inner = opened[outer.payload :]
        inner = inner[: inner_length(inner, len(inner), outer.protocol)]
        self._allowed.check(inner)
        return with_congestion(inner, outer.traffic_class)

    def follow(self, sa: SecurityAssociation) -> None:
        self.sa = sa
        self._allowed = FlowFilter(sa)


class FlowFilter:
    """Whether an association may carry a packet (RFC 4301 section 5.2 step 4); remembers plain flows that may."""

    __slots__ = ("_carries", "_remembered")

    def __init__(self, sa: SecurityAssociation) -> None:
        self._carries = sa.carries
        self._remembered: set[bytes] = set()

    def check(self, packet: bytes) -> None:
        """Raise `SelectorMismatch` for an IP packet that is not allowed, DecodeError for one that is none."""
        key = flow_key(packet)
        if key in self._remembered:
            return
        if not self._carries(flow_of(packet)):
            raise SelectorMismatch("a packet that its association may not carry")
        if key is not None:
            if len(self._remembered) >= MAX_REMEMBERED_FLOWS:
                self._remembered.clear()
            self._remembered.add(key)


class _OuterHeader:
    """The outer headers of one tunnel."""

    __slots__ = ("_copy_dscp", "_dont_fragment", "_ends", "_version", "addresses", "identification")

    def __init__(self, sa: SecurityAssociation, identification: int) -> None:
        self._version = sa.source.version
        self._ends = sa.source.packed, sa.destination.packed
        self.addresses = b"".join(self._ends)
        self._dont_fragment = sa.dont_fragment
        self._copy_dscp = sa.copy_dscp
        #: that of the next packet that has one
        self.identification = identification

    def write(self, inner: IpPacket, body_length: int, protocol: int) -> bytes:
        """The header for a body of so many bytes around `inner`. Raises: PacketTooLong."""
        traffic_class = inner.traffic_class if self._copy_dscp else inner.traffic_class & 3
        if self._version == 6:
            length = IPV6_HEADER + body_length
            return ipv6_header(
                *self._ends,
                protocol,
                length,
                traffic_class=traffic_class,
                hop_limit=HOP_LIMIT,
            )
        whole = self._dont_fragment is DontFragment.SET or (
            self._dont_fragment is DontFragment.COPY and inner.dont_fragment
        )
        identification = 0 if whole else self.identification
        if not whole:
            self.identification = identification % 0xFFFF + 1
        return ipv4_header(
            *self._ends,
            protocol,
            IPV4_HEADER + body_length,
            traffic_class=traffic_class,
            hop_limit=HOP_LIMIT,
            identification=identification,
            dont_fragment=whole,
        )


def with_congestion(inner: bytes, outer_class: int) -> bytes:
    """`inner` with what routers marked on the outer header (RFC 6040 section 4.2). Raises: CongestionMarkLost."""
    outer = outer_class & 3
    ecn = (inner[1] if inner[0] >> 4 == 4 else inner[1] >> 4) & 3
    if not ecn:
        if outer == _CONGESTION_EXPERIENCED:
            raise CongestionMarkLost("congestion was marked on a packet that cannot carry the mark")
        return inner
    # ECT(0) becomes ECT(1) or CE, ECT(1) becomes CE, and nothing else changes.
    combined = {2: (2, 1, 2, 3), 1: (1, 1, 1, 3), 3: (3, 3, 3, 3)}[ecn][outer]
    if combined == ecn:
        return inner
    header = bytearray(inner)
    if header[0] >> 4 == 6:
        header[1] ^= (ecn ^ combined) << 4
        return bytes(header)
    header[1] ^= ecn ^ combined
    end = (header[0] & 0x0F) * 4
    header[10:12] = bytes(2)
    header[10:12] = checksum(bytes(header[:end])).to_bytes(2, "big")
    return bytes(header)
