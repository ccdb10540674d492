"""Fuzz targets of the key server: whatever an edge sends, there are whole answers and no other error."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.key_service import Bench, answered, asked, certificate, edge, held

from locum.keyless.operations import CertificateVerify, Role, ServerKeyExchange, Sign
from locum.keyless.queries import CertificateQuery, KeysQuery, TicketsQuery
from locum.keyless.requests import Ping, Seal, Unseal
from locum.keyserver.keyring import held_here
from locum.store.records import Allow

_P256, _ED25519 = held("p256"), held("ed25519")
_KEYS = (_P256, _ED25519)
_CERTIFICATES = (certificate(_P256, ["*.example.com"]),)


def _stream(data: bytes) -> None:
    """The same requests get answers to the same ids, however they are cut."""
    counts = []
    for size in (len(data) or 1, 13):
        connection = Bench(_KEYS, certificates=_CERTIFICATES).connection()
        output = b""
        for start in range(0, len(data), size):
            connection.receive(data[start : start + size])
            output += connection.turn(only_short=False)
        counts.append([(answer.id, answer.opcode) for answer in answered(output)])
    assert counts[0] == counts[1]


class _Watched:
    """A key that complains when it is to sign anything but what a TLS handshake has signed."""

    public_key = _ED25519.public_key

    def sign(self, scheme: str, content: bytes, *, prehashed: bool = False) -> bytes:
        tls13 = content.startswith(b" " * 64 + b"TLS 1.3, ")
        # TLS 1.2: after both randoms a named curve or a prime; or messages from the ClientHello on
        tls12 = content[64:65] == b"\x03" or content[64:66] in _PRIME_LENGTHS or content[:2] == b"\x01\x00"
        assert not prehashed
        assert tls13 or tls12, content
        return b"signature"

    def decrypt_pkcs1(self, ciphertext: bytes) -> bytes:
        raise AssertionError("a key that cannot decrypt was asked to")


_PRIME_LENGTHS = {length.to_bytes(2, "big") for length in (256, 384, 512, 768, 1024)}
_WATCHED = held_here("watched", _Watched())


def _bound(data: bytes) -> None:
    """Whatever an edge without raw permission sends, nothing is signed that is not of TLS."""
    connection = Bench([_WATCHED], [edge(allow=Allow.BOUND)]).connection()
    connection.receive(data)
    answered(connection.turn(only_short=False))


_EXCHANGE = ServerKeyExchange("ED25519", bytes(32), bytes(32), b"\x03\x00\x1d\x20" + bytes(32))

TARGETS: dict[str, Callable[[bytes], None]] = {"stream": _stream, "bound": _bound}
SEEDS: dict[str, list[bytes]] = {
    "stream": [
        asked(Sign("ECDSA_SECP256R1_SHA256", bytes(32)), _P256),
        asked(Sign("ED25519", b"message", prehashed=False), _ED25519) + asked(Ping(b"x")),
        asked(CertificateVerify("ECDSA_SECP256R1_SHA256", Role.SERVER, bytes(32)), _P256),
        asked(KeysQuery()) + asked(TicketsQuery()) + asked(CertificateQuery(server_name="www.example.com")),
        asked(Seal(b"state")) + asked(Unseal(b"nothing")),
    ],
    "bound": [
        asked(Sign("ED25519", b"message", prehashed=False), _ED25519),
        asked(CertificateVerify("ED25519", Role.CLIENT, bytes(32)), _ED25519),
        asked(_EXCHANGE, _ED25519),
    ],
}
