"""What both versions settle alike: application protocol, record sizes, the chain and the verdict."""

from __future__ import annotations

from locum.errors import DecodeError, OperationError
from locum.handshake import (
    MAX_CHAIN,
    Ask,
    PeerAuthentication,
    PeerChain,
    PeerRejected,
    Request,
    Response,
    Verdict,
    expect,
)
from locum.tls.alerts import IllegalParameter
from locum.tls.configuration import MIN_RECORD_SIZE_LIMIT
from locum.tls.extensions import Extensions, parse_alpn, parse_u16
from locum.tls.offer import Offer
from locum.tls.record import MAX_PLAINTEXT
from locum.tls.registry import ExtensionType, ProtocolVersion
from locum.tls.steps import Handshake, RecordLimits


def selected_protocol(offer: Offer, answers: Extensions) -> str | None:
    """The one protocol that the server chose of ours (RFC 7301 section 3.2)."""
    data = answers.get(ExtensionType.APPLICATION_LAYER_PROTOCOL_NEGOTIATION)
    if data is None:
        return None
    names = parse_alpn(data)
    if len(names) != 1 or names[0] not in offer.configuration.alpn:
        raise IllegalParameter("the server chose an application protocol that was not offered")
    return names[0]


def agreed_limits(ours: int | None, data: bytes | None, version: ProtocolVersion) -> RecordLimits | None:
    """What both sides may send, when both named a record_size_limit: `ours`, and the peer's extension `data`.

    In TLS 1.3 the limit counts the content type, so one byte less is content (RFC 8449 section 4).
    """
    if data is None or ours is None:
        return None
    theirs = parse_u16(data)
    if theirs < MIN_RECORD_SIZE_LIMIT:
        raise IllegalParameter(f"a record_size_limit of {theirs}")
    content_type = 1 if version is ProtocolVersion.TLS_1_3 else 0
    return RecordLimits(
        send=min(theirs - content_type, MAX_PLAINTEXT), receive=min(ours, MAX_PLAINTEXT + content_type)
    )


def ask_accepted(authenticate: PeerAuthentication, *more: Request) -> Handshake[tuple[Response, ...]]:
    """Ask for a verdict and, in the same round trip, for what depends on it.

    Raises: PeerRejected when the peer is not authentic or not allowed (fig 5 S11, S19).
    """
    responses: tuple[Response, ...] = yield Ask((authenticate, *more))
    verdict = expect(responses, 0, Verdict)
    if not verdict.accepted:
        raise PeerRejected(verdict)
    return responses


def bounded(chain: PeerChain) -> PeerChain:
    """`chain`, if an authority will take it. Raises: DecodeError, so that the peer is blamed and nobody else."""
    if sum(map(len, chain.certificates)) + len(chain.ocsp_response) > MAX_CHAIN:
        raise DecodeError(f"a certificate chain of more than {MAX_CHAIN} bytes")
    return chain


def of_length(secret: bytes, length: int) -> bytes:
    """`secret`, which the authority gave and which must have `length` bytes.

    Raises: OperationError, so that the peer is not blamed for what an authority got wrong.
    """
    if len(secret) != length:
        raise OperationError(f"the authority gave a secret of {len(secret)} bytes, not {length}")
    return secret
