"""ICMP and ICMPv6 echo by hand, for ends that have a tunnel and no interface."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

from locum.ipsec.ip import ICMP, IPV6_HEADER, checksum, ipv4_header, ipv6_header, parse

ICMPV6 = 58
#: The types of request and reply.
_TYPES = {ICMP: (8, 0), ICMPV6: (128, 129)}
_IDENTIFIER = 0x4C43


@dataclass(frozen=True, slots=True)
class Echo:
    """An echo request or reply inside of an IP packet."""

    source: bytes
    destination: bytes
    reply: bool
    body: bytes

    def packet(self) -> bytes:
        """The whole IP packet."""
        protocol = ICMP if len(self.source) == 4 else ICMPV6
        message = bytes([_TYPES[protocol][self.reply], 0, 0, 0]) + self.body
        covered = message
        if protocol == ICMPV6:
            pseudo = self.source + self.destination + len(message).to_bytes(4, "big") + protocol.to_bytes(4, "big")
            covered = pseudo + message
        message = message[:2] + checksum(covered).to_bytes(2, "big") + message[4:]
        if protocol == ICMP:
            return ipv4_header(self.source, self.destination, protocol, 20 + len(message)) + message
        return ipv6_header(self.source, self.destination, protocol, IPV6_HEADER + len(message)) + message

    def answer(self) -> Echo:
        """The reply to this request."""
        return Echo(self.destination, self.source, True, self.body)


def request(source: str, destination: str, number: int, *, size: int = 56) -> Echo:
    """Our echo request of this number, with `size` bytes of data."""
    body = _IDENTIFIER.to_bytes(2, "big") + number.to_bytes(2, "big") + bytes(size)
    return Echo(ip_address(source).packed, ip_address(destination).packed, False, body)


def parse_echo(packet: bytes) -> Echo | None:
    """The echo request or reply in an IP packet, None where there is none."""
    ip = parse(packet)
    message = packet[ip.payload : ip.length]
    if ip.protocol not in _TYPES or ip.fragment or message[0] not in _TYPES[ip.protocol]:
        return None
    return Echo(ip.source, ip.destination, _TYPES[ip.protocol].index(message[0]) == 1, message[4:])
