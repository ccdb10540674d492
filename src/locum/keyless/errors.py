"""How an error travels in the keyless protocol, and back: one byte, and with locum's own peers a short reason.

Never knows which request failed.
"""

from __future__ import annotations

from locum.errors import DecodeError, LocumError, OperationError, Refused, Unavailable
from locum.keyless.registry import MAX_REASON, ErrorCode

#: What each code says when no reason comes with it.
TEXTS = {
    ErrorCode.CRYPTO: "the key server refused, or its key cannot do that",
    ErrorCode.KEY_NOT_FOUND: "the key server has no such key for this edge",
    ErrorCode.READ: "the key server could not read the request",
    ErrorCode.VERSION_MISMATCH: "the key server speaks another version of the protocol",
    ErrorCode.BAD_OPCODE: "the key server does not know this operation",
    ErrorCode.UNEXPECTED_OPCODE: "the key server did not expect this operation",
    ErrorCode.FORMAT: "the key server found the request malformed",
    ErrorCode.INTERNAL: "the key server failed",
    ErrorCode.CERTIFICATE_NOT_FOUND: "the key server has no such certificate for this edge",
    ErrorCode.EXPIRED: "the key server can no longer open what it sealed",
}
#: The codes after which another key server may still do it.
_PASSING = frozenset((ErrorCode.READ, ErrorCode.INTERNAL))


class RequestFault(Refused):
    """A request that is not performed, with the code that says why."""

    def __init__(self, code: ErrorCode, reason: str = "") -> None:
        super().__init__(reason or TEXTS[code])
        self.code = code


def code_of(error: LocumError) -> ErrorCode:
    """The code that stands for an error; every error has one."""
    if isinstance(error, RequestFault):
        return error.code
    if isinstance(error, DecodeError):
        return ErrorCode.FORMAT
    if isinstance(error, Refused):
        return ErrorCode.CRYPTO
    return ErrorCode.INTERNAL


def error_of(payload: bytes, reason: bytes) -> OperationError:
    """The error that an answer stands for; codes that nobody knows are refusals too.

    Unavailable is what another key server may still do; everything else is final.
    """
    code = payload[0] if len(payload) == 1 else -1
    said = _shown(reason) or TEXTS.get(code) or f"the key server gave the error {code}"  # type: ignore[call-overload]
    if code in _PASSING:
        return Unavailable(said)
    return RequestFault(ErrorCode(code), said) if code in TEXTS else Refused(said)


def _shown(reason: bytes) -> str:
    """A reason as one printable line."""
    text = reason[:MAX_REASON].decode(errors="replace")
    return "".join(character if character.isprintable() else "?" for character in text)
