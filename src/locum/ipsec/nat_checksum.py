"""Transport mode through a NAT: checksums of TCP and UDP made right for other addresses (RFC 3948 section 3.1.2).

Knows two headers and addresses, and no association.
"""

from __future__ import annotations

from locum.ipsec.ip import TCP, UDP, checksum

#: Where the checksum stands, and the least that has one, in bytes.
_PLACES = {TCP: (16, 20), UDP: (6, 8)}
_MODULUS = 0xFFFF

Addresses = tuple[bytes, bytes]


def repaired(protocol: int, segment: bytes, addresses: Addresses, original: Addresses | None) -> bytes:
    """`segment` of IP protocol `protocol` with a checksum for `addresses`, source and destination.

    With the `original` addresses, for which the checksum was made, it is changed by the difference, and what is
    wrong stays wrong; without, it is made anew, for ESP has seen to it that nothing was altered. Other protocols,
    and UDP without a checksum, stay as they are.
    """
    place = _PLACES.get(protocol)
    if place is None or len(segment) < place[1] or addresses == original:
        return segment
    at = place[0]
    old = int.from_bytes(segment[at : at + 2], "big")
    if protocol == UDP and not old:
        return segment
    if original is not None:
        # The sum of a header and its checksum is constant (RFC 1624).
        before, after = (int.from_bytes(b"".join(each), "big") for each in (original, addresses))
        new = (old + before - after) % _MODULUS
    else:
        pseudo_header = b"".join(addresses) + len(segment).to_bytes(4, "big") + protocol.to_bytes(4, "big")
        new = checksum(pseudo_header + segment[:at] + b"\0\0" + segment[at + 2 :])
    if not new and protocol == UDP:
        new = _MODULUS  # the other zero: this one would say that there is none (RFC 768)
    return segment[:at] + new.to_bytes(2, "big") + segment[at + 2 :]
