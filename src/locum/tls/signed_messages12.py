"""What the client's CertificateVerify of TLS 1.2 covers: all messages before it (RFC 5246 section 7.4.8).

Never knows a key. Whoever signs bytes, or a hash, that a terminal gives it signs anything. So the terminal tells
only the messages that the authority can neither have seen nor made, and the authority writes the others itself: it
signs the handshake in which it authenticated the peer and made the ClientKeyExchange, and no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from locum.errors import Refused
from locum.tls.messages import HEADER_LENGTH, ClientHello, ServerHello, serialize
from locum.tls.messages12 import (
    Certificate,
    CertificateRequest,
    CertificateStatus,
    ClientKeyExchange,
    ServerHelloDone,
    ServerKeyExchange,
)
from locum.tls.operations import AuthenticateRequest
from locum.tls.receiving import parse_message
from locum.tls.registry import HandshakeType
from locum.wire.cursor import Reader

#: Client random and server random, in bytes.
RANDOMS = 64

_TOLD = (HandshakeType.CLIENT_HELLO, HandshakeType.SERVER_HELLO, HandshakeType.CERTIFICATE_REQUEST)


def told_messages(messages: bytes) -> bytes:
    """Of all `messages` so far, headers included, those that the authority must be told."""
    return b"".join(raw for code, raw in cut_messages(messages) if code in _TOLD)


def signed_messages(
    told: bytes, *, seen: AuthenticateRequest, certificates: Sequence[bytes], key_exchange: bytes
) -> bytes:
    """Everything that is signed: what was `told`, and around it what the authority has `seen` and made.

    `certificates` is the client's chain in DER, `key_exchange` the body of its ClientKeyExchange.
    Raises: DecodeError for malformed messages, Refused for those of another handshake.
    """
    messages = list(cut_messages(told))
    if tuple(code for code, _ in messages) != _TOLD:
        raise Refused("ClientHello, ServerHello and CertificateRequest are needed for the client's signature")
    (_, client), (_, server), (_, request) = messages
    server_hello = parse_message(ServerHello, server)
    parse_message(CertificateRequest, request)
    randoms = parse_message(ClientHello, client).random + server_hello.random
    if server_hello.cipher_suite != seen.cipher_suite or seen.content[:RANDOMS] not in (b"", randoms):
        raise Refused("the client's signature is asked for another handshake than was authenticated")
    parts = [client, server, serialize(Certificate(certificates=seen.chain.certificates))]
    if seen.chain.ocsp_response:
        parts.append(serialize(CertificateStatus(ocsp_response=seen.chain.ocsp_response)))
    if seen.signature:
        parts.append(serialize(ServerKeyExchange.join(seen.content[RANDOMS:], seen.scheme, seen.signature)))
    parts += [
        request,
        serialize(ServerHelloDone()),
        serialize(Certificate(certificates=tuple(certificates))),
        serialize(ClientKeyExchange(body=key_exchange)),
    ]
    return b"".join(parts)


def cut_messages(messages: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of each message, header included. Raises: DecodeError."""
    reader = Reader(messages)
    while reader.remaining:
        header = reader.block(HEADER_LENGTH)
        yield header[0], header + reader.block(int.from_bytes(header[1:], "big"))
