"""Opens the records of a trace and finds the handshake messages in them."""

from __future__ import annotations

from locum.tls.messages import HEADER_LENGTH
from locum.tls.record import RecordReader, protection
from locum.tls.registry import CIPHER_SUITES, ContentType

SUITE = CIPHER_SUITES[0x1301]


def contents(data: bytes, keys: tuple[bytes, bytes] | None = None) -> list[tuple[int, bytes]]:
    """Type and content of every record in `data`, opened with key and IV where there are any."""
    reader = RecordReader()
    if keys is not None:
        reader.protection = protection(SUITE, *keys)
    reader.feed(data)
    found = []
    while (record := reader.next()) is not None:
        found.append(record)
    assert reader.waiting == 0
    return found


def handshake_bytes(data: bytes, keys: tuple[bytes, bytes] | None = None) -> bytes:
    """The handshake messages in `data`, one after the other; other records are left out."""
    return b"".join(content for kind, content in contents(data, keys) if kind == ContentType.HANDSHAKE)


def handshake_messages(data: bytes, keys: tuple[bytes, bytes] | None = None) -> list[bytes]:
    """The handshake messages in `data`, header included."""
    rest, found = handshake_bytes(data, keys), []
    while rest:
        end = HEADER_LENGTH + int.from_bytes(rest[1:HEADER_LENGTH], "big")
        found.append(rest[:end])
        rest = rest[end:]
    return found
