"""What can go wrong in IKE, and the total functions from error to notify for both versions.

Knows no message, no key and no state: what an error is answered with depends on the error alone.
"""

from __future__ import annotations

from enum import IntEnum

from locum.crypto.symmetric import AuthenticationFailed as TagFailed
from locum.errors import (
    DecodeError,
    Incompatible,
    LocumError,
    Misbehaved,
    OperationError,
    PeerError,
    Unauthenticated,
)
from locum.handshake import Fault, PeerRejected
from locum.ike.registry import NotifyType1, NotifyType2, name_of
from locum.values import dataclass


class NotProtected(Misbehaved):
    """A message whose integrity does not verify, or that comes in clear where it must not: never answered.

    RFC 7296 section 2.21.4: an answer would let anybody who can send packets tear a session down.
    """


class UnexpectedMessage(Misbehaved):
    """An exchange, a message or a payload out of turn, missing, or present too often."""


class IllegalValue(Misbehaved):
    """A field that is well formed and not allowed here."""


class InvalidSpi(Misbehaved):
    """SPIs or cookies that belong to no IKE SA of ours."""


class InvalidMessageId(Misbehaved):
    """A message id outside the window; `message_id` is the one received (RFC 7296 section 2.3)."""

    def __init__(self, message_id: int) -> None:
        super().__init__(f"message id {message_id} is outside the window")
        self.message_id = message_id


class UnsupportedCriticalPayload(Incompatible):
    """An unknown payload that must not be skipped; `payload_type` is its code (RFC 7296 section 2.5)."""

    def __init__(self, payload_type: int) -> None:
        super().__init__(f"payload {payload_type} is critical and unknown")
        self.payload_type = payload_type


class UnsupportedVersion(Incompatible):
    """A major version that is neither 1 nor 2, or not the one that this SA speaks."""


class NoProposalChosen(Incompatible):
    """No offered proposal is acceptable: the peer and we share no algorithms."""


class AlteredProposal(Misbehaved):
    """The peer answered with a proposal that is not one of ours, unmodified (RFC 2409 section 5)."""


class InvalidKeyExchange(Incompatible):
    """The peer's KE payload is in another group than the one to be used, `group` (RFC 7296 section 1.3)."""

    def __init__(self, group: int) -> None:
        super().__init__(f"the KE payload must be in group {group}")
        self.group = group


class TrafficSelectorsUnacceptable(Incompatible):
    """No part of the proposed traffic selectors is allowed by the policy."""


class NoAdditionalSas(Incompatible):
    """No further CHILD_SA is accepted under this IKE SA."""


class ChildSaNotFound(Misbehaved):
    """A request to rekey a CHILD_SA that does not exist; `protocol` and `spi` are those asked for."""

    def __init__(self, protocol: int, spi: bytes) -> None:
        super().__init__(f"there is no CHILD_SA with SPI {spi.hex()}")
        self.protocol = protocol
        self.spi = spi


class Busy(Incompatible):
    """The request collides with an exchange of ours, or comes too soon after others: the peer may try again.

    RFC 7296 section 2.25.
    """


class StateNotFound(Misbehaved):
    """An IKE_FOLLOWUP_KE that continues no exchange of ours (RFC 9370 section 2.2.4)."""


class AuthenticationFailed(Unauthenticated):
    """The peer's AUTH, HASH or SIG does not verify."""


class NotifyReceived(PeerError):
    """The peer ended an exchange with an error notify; `notify_type` is its code."""

    def __init__(self, notify_type: int, name: str) -> None:
        super().__init__(f"the peer sent {name}")
        self.notify_type = notify_type


def notify_received(registry: type[IntEnum], notify_type: int) -> NotifyReceived:
    """The error that a peer's error notify is, named after the version's `registry` of notify types."""
    return NotifyReceived(notify_type, name_of(registry, notify_type))


# --- from error to notify ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Notification:
    """What to tell the peer: the notify type of the version spoken, and its notification data.

    `protocol` and `spi` name the SA in question where it is not the IKE SA itself.
    """

    notify_type: int
    data: bytes = b""
    protocol: int = 0
    spi: bytes = b""


#: First match wins, so a subclass stands before its base.
_NOTIFY_2: tuple[tuple[type[LocumError], NotifyType2], ...] = (
    (InvalidSpi, NotifyType2.INVALID_IKE_SPI),
    (StateNotFound, NotifyType2.STATE_NOT_FOUND),
    (AlteredProposal, NotifyType2.NO_PROPOSAL_CHOSEN),
    (UnsupportedVersion, NotifyType2.INVALID_MAJOR_VERSION),
    (TrafficSelectorsUnacceptable, NotifyType2.TS_UNACCEPTABLE),
    (NoAdditionalSas, NotifyType2.NO_ADDITIONAL_SAS),
    (Busy, NotifyType2.TEMPORARY_FAILURE),
    (Incompatible, NotifyType2.NO_PROPOSAL_CHOSEN),
    (Misbehaved, NotifyType2.INVALID_SYNTAX),
    (DecodeError, NotifyType2.INVALID_SYNTAX),
    (Unauthenticated, NotifyType2.AUTHENTICATION_FAILED),
    (OperationError, NotifyType2.TEMPORARY_FAILURE),
)

_SILENT = (NotProtected, TagFailed, NotifyReceived)


def notify2_for(error: LocumError) -> Notification | None:
    """The IKEv2 notify that `error` is answered with; None where nothing may be sent (RFC 7296 section 2.21)."""
    if isinstance(error, _SILENT):
        return None
    if isinstance(error, UnsupportedCriticalPayload):
        return Notification(NotifyType2.UNSUPPORTED_CRITICAL_PAYLOAD, bytes((error.payload_type,)))
    if isinstance(error, InvalidMessageId):
        return Notification(NotifyType2.INVALID_MESSAGE_ID, error.message_id.to_bytes(4, "big"))
    if isinstance(error, InvalidKeyExchange):
        return Notification(NotifyType2.INVALID_KE_PAYLOAD, error.group.to_bytes(2, "big"))
    if isinstance(error, ChildSaNotFound):
        return Notification(NotifyType2.CHILD_SA_NOT_FOUND, protocol=error.protocol, spi=error.spi)
    for kind, notify_type in _NOTIFY_2:
        if isinstance(error, kind):
            return Notification(notify_type)
    return Notification(NotifyType2.TEMPORARY_FAILURE)


_FAULT_1 = {
    Fault.NONE: NotifyType1.AUTHENTICATION_FAILED,
    Fault.BAD_CERTIFICATE: NotifyType1.INVALID_CERTIFICATE,
    Fault.EXPIRED: NotifyType1.INVALID_CERTIFICATE,
    Fault.UNKNOWN_ISSUER: NotifyType1.INVALID_CERT_AUTHORITY,
    Fault.WRONG_NAME: NotifyType1.INVALID_ID_INFORMATION,
    Fault.REVOKED: NotifyType1.INVALID_CERTIFICATE,
    Fault.BAD_SIGNATURE: NotifyType1.INVALID_SIGNATURE,
    Fault.UNSUPPORTED: NotifyType1.CERT_TYPE_UNSUPPORTED,
    Fault.BAD_STATUS_RESPONSE: NotifyType1.INVALID_CERTIFICATE,
    Fault.POLICY: NotifyType1.AUTHENTICATION_FAILED,
}

_NOTIFY_1: tuple[tuple[type[LocumError], NotifyType1], ...] = (
    (InvalidSpi, NotifyType1.INVALID_COOKIE),
    (InvalidMessageId, NotifyType1.INVALID_MESSAGE_ID),
    (UnexpectedMessage, NotifyType1.INVALID_EXCHANGE_TYPE),
    (AlteredProposal, NotifyType1.BAD_PROPOSAL_SYNTAX),
    (ChildSaNotFound, NotifyType1.INVALID_SPI),
    (UnsupportedCriticalPayload, NotifyType1.INVALID_PAYLOAD_TYPE),
    (UnsupportedVersion, NotifyType1.INVALID_MAJOR_VERSION),
    (InvalidKeyExchange, NotifyType1.INVALID_KEY_INFORMATION),
    (TrafficSelectorsUnacceptable, NotifyType1.INVALID_ID_INFORMATION),
    (Incompatible, NotifyType1.NO_PROPOSAL_CHOSEN),
    (Misbehaved, NotifyType1.PAYLOAD_MALFORMED),
    (DecodeError, NotifyType1.PAYLOAD_MALFORMED),
    (AuthenticationFailed, NotifyType1.INVALID_HASH_INFORMATION),
    (Unauthenticated, NotifyType1.AUTHENTICATION_FAILED),
)


def notify1_for(error: LocumError) -> Notification | None:
    """The IKEv1 notify that `error` is answered with; None where nothing may be sent (RFC 2408 section 5).

    An operation that was not performed has no word in IKEv1: the peer is told that no proposal was chosen.
    """
    if isinstance(error, _SILENT):
        return None
    if isinstance(error, PeerRejected):
        return Notification(_FAULT_1[error.verdict.fault])
    for kind, notify_type in _NOTIFY_1:
        if isinstance(error, kind):
            return Notification(notify_type)
    return Notification(NotifyType1.NO_PROPOSAL_CHOSEN)
