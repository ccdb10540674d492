"""Which TLS-bound operation a content to be signed comes from (X3): what programs hand to a mechanism with a hash.

Says what a content looks like, no more: whoever has the key puts the content together again, and checks its parts.
"""

from __future__ import annotations

from locum.errors import DecodeError
from locum.keyless.operations import (
    RANDOM_LENGTH,
    CertificateVerify,
    ClientVerify,
    Role,
    ServerKeyExchange,
)
from locum.tls import schedule
from locum.tls.registry import HandshakeType
from locum.wire.cursor import Reader

#: ECCurveType of a ServerECDHParams with a named curve (RFC 8422 section 5.4).
_NAMED_CURVE = 3

_PREFIXES = {
    schedule.certificate_verify_content(b"server", b""): Role.SERVER,
    schedule.certificate_verify_content(b"client", b""): Role.CLIENT,
}

BoundSignature = CertificateVerify | ServerKeyExchange | ClientVerify


def bound_signature(scheme: str, content: bytes) -> BoundSignature | None:
    """The operation whose content this is, under the scheme of this IANA name; None when it is not one of TLS."""
    for prefix, role in _PREFIXES.items():
        if content.startswith(prefix):
            return CertificateVerify(scheme, role, content[len(prefix) :])
    randoms, parameters = content[: 2 * RANDOM_LENGTH], content[2 * RANDOM_LENGTH :]
    if _is_parameters(parameters):
        return ServerKeyExchange(scheme, randoms[:RANDOM_LENGTH], randoms[RANDOM_LENGTH:], parameters)
    if content[:1] == bytes((HandshakeType.CLIENT_HELLO,)):
        return ClientVerify(scheme, content)
    return None


def _is_parameters(parameters: bytes) -> bool:
    """True for bytes that have the form of a ServerECDHParams or a ServerDHParams (RFC 5246 section 7.4.3)."""
    reader = Reader(parameters)
    try:
        if parameters[:1] == bytes((_NAMED_CURVE,)):
            reader.block(3)
            reader.vector(1, minimum=1)
        else:
            for _ in ("dh_p", "dh_g", "dh_Ys"):
                reader.vector(2, minimum=1)
        reader.finish()
    except DecodeError:
        return False
    return True
