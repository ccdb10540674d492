"""Is this the IKE_SA_INIT message of this session? Only such a one is signed, and only such a one proves anything.

Knows the outside of a message and two of its payloads; no key and no secret.
"""

from __future__ import annotations

from locum.errors import DecodeError, Refused
from locum.ike.errors import UnsupportedVersion
from locum.ike.header import HEADER_LENGTH, NO_SPI, RawPayload, parse_chain, parse_header
from locum.ike.operations import MAX_INIT_MESSAGE
from locum.ike.registry import ExchangeType, Flags2, PayloadType2, Version
from locum.values import dataclass

#: The group, and with reserved bytes what stands before the public value in a KE payload (RFC 7296 section 3.4).
_GROUP = 2
_KE_PREFIX = 4
_SAID = frozenset({PayloadType2.KEY_EXCHANGE, PayloadType2.NONCE})
_MAJOR_VERSION = Version.IKE_2 >> 4
_DIRECTION = Flags2.INITIATOR | Flags2.RESPONSE


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """What one end has said in IKE_SA_INIT: its public value in `group`, and its nonce."""

    group: int
    public_value: bytes
    nonce: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Spis:
    """SPIi and SPIr, 8 bytes each."""

    initiator: bytes
    responder: bytes


def check_init_message(message: bytes, half: Half, spis: Spis, *, from_initiator: bool) -> None:
    """Refuse a message that is not the IKE_SA_INIT request, or response, with these SPIs and this half.

    Raises: Refused.
    """
    if not HEADER_LENGTH <= len(message) <= MAX_INIT_MESSAGE:
        raise Refused(f"an IKE_SA_INIT message of {len(message)} bytes")
    try:
        header = parse_header(message)
        payloads = parse_chain(header.next_payload, message[HEADER_LENGTH:], only=_SAID)
    except (DecodeError, UnsupportedVersion) as error:
        raise Refused(f"the IKE_SA_INIT message of this session is malformed: {error}") from None
    expected = (
        _MAJOR_VERSION,
        ExchangeType.IKE_SA_INIT,
        0,
        spis.initiator,
        NO_SPI if from_initiator else spis.responder,
        Flags2.INITIATOR if from_initiator else Flags2.RESPONSE,
    )
    found = (
        header.major_version,
        header.exchange_type,
        header.message_id,
        header.initiator_spi,
        header.responder_spi,
        header.flags & _DIRECTION,
    )
    key_exchange = b"".join((half.group.to_bytes(_GROUP, "big"), half.public_value))
    said = {each.type: _said(each) for each in payloads}
    due = {PayloadType2.KEY_EXCHANGE: key_exchange, PayloadType2.NONCE: half.nonce}
    if found != expected or said != due or len(payloads) != len(due):
        raise Refused("the message is not the IKE_SA_INIT of this session")


def _said(payload: RawPayload) -> bytes:
    """The body of a KE payload without what is reserved in it, or of another one."""
    if payload.type == PayloadType2.KEY_EXCHANGE:
        return payload.body[:_GROUP] + payload.body[_KE_PREFIX:]
    return payload.body
