"""NAT detection, and what tells IKE from ESP on port 4500 (RFC 3947, RFC 3948, RFC 7296 section 2.23).

Knows addresses as bytes and no socket.
"""

from __future__ import annotations

from locum.crypto.symmetric import SHA1, HashAlgorithm
from locum.ike.header import Header

#: Stands before every IKE message on port 4500, where an ESP packet has its SPI (RFC 3948 section 2.2).
NON_ESP_MARKER = bytes(4)

#: A datagram of this one byte keeps a NAT's mapping alive and means nothing (RFC 3948 section 2.3).
KEEPALIVE = b"\xff"


def detection_hash(header: Header, address: bytes, port: int, algorithm: HashAlgorithm = SHA1) -> bytes:
    """The hash of SPIs, address (4 or 16 bytes) and port that NAT_DETECTION_* and NAT-D carry.

    Always SHA-1 in IKEv2, where it is a fingerprint and no protection; the negotiated hash in IKEv1.
    `header` is that of the message which carries it.
    """
    return algorithm.digest(header.initiator_spi + header.responder_spi + address + port.to_bytes(2, "big"))
