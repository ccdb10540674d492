"""Alerts, the errors that lead to them, and the one total function from error to alert (RFC 8446 section 6).

Knows no message and no state.
"""

from __future__ import annotations

from enum import IntEnum

from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import (
    DecodeError,
    Incompatible,
    LocumError,
    Misbehaved,
    PeerError,
    Unauthenticated,
)
from locum.handshake import Fault, PeerRejected


class AlertLevel(IntEnum):
    """RFC 5246 section 7.2; TLS 1.3 ignores it."""

    WARNING = 1
    FATAL = 2


class AlertDescription(IntEnum):
    """RFC 8446 section 6."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    USER_CANCELED = 90
    NO_RENEGOTIATION = 100
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    UNRECOGNIZED_NAME = 112
    BAD_CERTIFICATE_STATUS_RESPONSE = 113
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120


def alert_name(code: int) -> str:
    """The RFC's name of an alert, or its number."""
    return (
        AlertDescription(code).name.lower() if code in AlertDescription.__members__.values() else f"alert {code}"
    )


class UnexpectedMessage(Misbehaved):
    """A message or record out of turn."""


class BadRecordMac(Misbehaved):
    """A record whose AEAD tag does not verify."""


class RecordOverflow(Misbehaved):
    """A record longer than the protocol, or than our record_size_limit, allows."""


class IllegalParameter(Misbehaved):
    """A field that is well formed and not allowed here."""


class MissingExtension(Misbehaved):
    """An extension that must be there is not."""


class UnsupportedExtension(Misbehaved):
    """An answer to an extension that was not offered."""


class DecryptError(Misbehaved):
    """A Finished or a binder that does not verify."""


class UnsupportedVersion(Incompatible):
    """The peer speaks no version that both sides allow."""


class InappropriateFallback(Misbehaved):
    """The client tries a lower version than both sides can speak (RFC 7507)."""


class NoApplicationProtocol(Incompatible):
    """The client offers application protocols, and none of ours (RFC 7301 section 3.2)."""


class UnrecognizedName(Incompatible):
    """There is no certificate for the name that the client asks for (RFC 6066 section 3)."""


class CertificateRequired(Unauthenticated):
    """TLS 1.3: the client shows no certificate, and has to (RFC 8446 section 4.4.2.4)."""


class Truncated(Misbehaved):
    """The stream ended without close_notify: what was received may not be all that was sent."""


class AlertReceived(PeerError):
    """The peer ended the connection with an alert; `description` is its code."""

    def __init__(self, description: int) -> None:
        super().__init__(f"the peer sent the alert {alert_name(description)}")
        self.description = description


_BY_FAULT = {
    Fault.NONE: AlertDescription.CERTIFICATE_UNKNOWN,
    Fault.BAD_CERTIFICATE: AlertDescription.BAD_CERTIFICATE,
    Fault.EXPIRED: AlertDescription.CERTIFICATE_EXPIRED,
    Fault.UNKNOWN_ISSUER: AlertDescription.UNKNOWN_CA,
    Fault.WRONG_NAME: AlertDescription.BAD_CERTIFICATE,
    Fault.REVOKED: AlertDescription.CERTIFICATE_REVOKED,
    Fault.BAD_SIGNATURE: AlertDescription.DECRYPT_ERROR,
    Fault.UNSUPPORTED: AlertDescription.UNSUPPORTED_CERTIFICATE,
    Fault.BAD_STATUS_RESPONSE: AlertDescription.BAD_CERTIFICATE_STATUS_RESPONSE,
    Fault.POLICY: AlertDescription.ACCESS_DENIED,
}

#: First match wins, so a subclass stands before its base.
_BY_ERROR: tuple[tuple[type[LocumError], AlertDescription], ...] = (
    (UnexpectedMessage, AlertDescription.UNEXPECTED_MESSAGE),
    (BadRecordMac, AlertDescription.BAD_RECORD_MAC),
    (RecordOverflow, AlertDescription.RECORD_OVERFLOW),
    (MissingExtension, AlertDescription.MISSING_EXTENSION),
    (UnsupportedExtension, AlertDescription.UNSUPPORTED_EXTENSION),
    (DecryptError, AlertDescription.DECRYPT_ERROR),
    (InappropriateFallback, AlertDescription.INAPPROPRIATE_FALLBACK),
    (UnsupportedVersion, AlertDescription.PROTOCOL_VERSION),
    (NoApplicationProtocol, AlertDescription.NO_APPLICATION_PROTOCOL),
    (UnrecognizedName, AlertDescription.UNRECOGNIZED_NAME),
    (CertificateRequired, AlertDescription.CERTIFICATE_REQUIRED),
    (Misbehaved, AlertDescription.ILLEGAL_PARAMETER),
    (Incompatible, AlertDescription.HANDSHAKE_FAILURE),
    (Unauthenticated, AlertDescription.CERTIFICATE_UNKNOWN),
    (AuthenticationFailed, AlertDescription.BAD_RECORD_MAC),
    (DecodeError, AlertDescription.DECODE_ERROR),
)


def alert_for(error: LocumError) -> AlertDescription | None:
    """The alert that `error` is answered with; None where nothing may be sent any more."""
    if isinstance(error, (AlertReceived, Truncated)):
        return None
    if isinstance(error, PeerRejected):
        return _BY_FAULT[error.verdict.fault]
    for kind, description in _BY_ERROR:
        if isinstance(error, kind):
            return description
    return AlertDescription.INTERNAL_ERROR
