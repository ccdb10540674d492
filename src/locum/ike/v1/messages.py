"""Which payloads each message of IKEv1 must have and may have, as a table, and a message that was read.

Knows no key and no state: when a message is due is said by the exchanges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from typing import Any, TypeVar

from locum.ike.errors import UnexpectedMessage
from locum.ike.header import MAX_PAYLOADS, Header
from locum.ike.payloads1 import Notification, Payload, Payloads, interpret
from locum.ike.registry import AuthenticationMethod1, NotifyType1, PayloadType1, name_of
from locum.values import dataclass

P = TypeVar("P", bound=Payload)

SA, KE, ID = PayloadType1.SECURITY_ASSOCIATION, PayloadType1.KEY_EXCHANGE, PayloadType1.IDENTIFICATION
CERT, CR = PayloadType1.CERTIFICATE, PayloadType1.CERTIFICATE_REQUEST
HASH, SIG, NONCE = PayloadType1.HASH, PayloadType1.SIGNATURE, PayloadType1.NONCE
N, D, VID = PayloadType1.NOTIFICATION, PayloadType1.DELETE, PayloadType1.VENDOR_ID
NAT_D, NAT_OA = PayloadType1.NAT_D, PayloadType1.NAT_OA

_SHORT_NAMES = {
    SA: "SA",
    KE: "KE",
    ID: "ID",
    CERT: "CERT",
    CR: "CR",
    HASH: "HASH",
    SIG: "SIG",
    NONCE: "NONCE",
    N: "N",
    D: "D",
    VID: "VID",
    NAT_D: "NAT-D",
    NAT_OA: "NAT-OA",
}

#: How often payloads that may be repeated are repeated at most.
_MANY = MAX_PAYLOADS


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was read, opened where it was encrypted."""

    header: Header
    payloads: Payloads
    encrypted: bool
    #: the message as it came, by which it is known again
    whole: bytes = field(repr=False)

    def all(self, kind: type[P]) -> tuple[P, ...]:
        """Every payload of this class, in order."""
        found: Sequence[Any] = self.payloads.by_class.get(kind, ())
        return tuple(found)

    def get(self, kind: type[P]) -> P | None:
        """The first payload of this class, None without one."""
        found: Sequence[Any] = self.payloads.by_class.get(kind, ())
        return found[0] if found else None

    def one(self, kind: type[P]) -> P:
        """The payload of this class, which the message's rule says must be there."""
        found: P = self.all(kind)[0]
        return found

    def in_clear(self) -> Message:
        """The same message, its ID and nonce read as such where they were taken for ciphertexts.

        Raises: DecodeError.
        """
        items = tuple(interpret(raw) for raw in self.payloads.raw)
        return replace(self, payloads=replace(self.payloads, items=items))

    def body(self, kind: PayloadType1) -> bytes:
        """The body of the first payload of this type as received: SAi_b, IDii_b and the like."""
        return next(raw.body for raw in self.payloads.raw if raw.type == kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one message is made of.

    `leading` stand first, in this order, once each. `must` come once each behind them, `may` at most so often as
    the number says, in any order (RFC 2409 section 5). Payloads of unknown types are skipped.
    """

    name: str
    leading: tuple[PayloadType1, ...] = ()
    must: tuple[PayloadType1, ...] = ()
    may: Mapping[PayloadType1, int]

    def check(self, payloads: Payloads) -> None:
        """Raises: UnexpectedMessage for a payload that is missing, out of place, or there too often."""
        types = [raw.type for raw in payloads.raw]
        if tuple(types[: len(self.leading)]) != self.leading:
            raise UnexpectedMessage(f"{self.name} begins otherwise: {describe(payloads.items)}")
        counts: dict[int, int] = {}
        for kind in types:
            counts[kind] = counts.get(kind, 0) + 1
        for kind in (*self.leading, *self.must):
            if counts.pop(kind, 0) != 1:
                raise UnexpectedMessage(f"{self.name} has not one {_SHORT_NAMES[kind]} payload")
        for kind, count in counts.items():
            if kind in _SHORT_NAMES and count > self.may.get(PayloadType1(kind), 0):
                raise UnexpectedMessage(f"{self.name} has too many {_SHORT_NAMES[PayloadType1(kind)]} payloads")


def describe(payloads: tuple[Payload, ...]) -> str:
    """The payloads' names for people: ``SA, KE, NONCE, VID x 3``, with the types of notifications."""
    names: list[str] = []
    counts: list[int] = []
    for payload in payloads:
        name = _SHORT_NAMES.get(PayloadType1(payload.type), "") if payload.type in _KNOWN else ""
        name = name or f"payload {payload.type}"
        if isinstance(payload, Notification):
            name = f"N({name_of(NotifyType1, payload.notify_type)})"
        if names and names[-1] == name:
            counts[-1] += 1
        else:
            names.append(name)
            counts.append(1)
    return ", ".join(
        name if count == 1 else f"{name} x {count}" for name, count in zip(names, counts, strict=True)
    )


_KNOWN = frozenset(PayloadType1)

# --- phase 1 --------------------------------------------------------------------------------------------------

#: Methods whose proof is a signature, in a SIG payload; all others prove themselves by HASH_I and HASH_R.
SIGNATURE_METHODS = frozenset(
    {
        AuthenticationMethod1.RSA_SIGNATURE,
        AuthenticationMethod1.ECDSA_256,
        AuthenticationMethod1.ECDSA_384,
        AuthenticationMethod1.ECDSA_521,
    }
)

#: Vendor IDs, and notifications such as INITIAL_CONTACT, may come anywhere in phase 1.
_ANYWHERE = {VID: _MANY, N: _MANY}
_WITH_NAT = {**_ANYWHERE, NAT_D: _MANY}
#: A certificate may be asked for in any message but the first (RFC 2409 section 5: "other optional payloads").
_WITH_CR = {**_WITH_NAT, CR: _MANY}

MAIN_1 = Rule(name="main mode 1", leading=(SA,), may={**_ANYWHERE, CR: _MANY})
MAIN_2 = Rule(name="main mode 2", leading=(SA,), may={**_ANYWHERE, CR: _MANY})
_MAIN_3 = Rule(name="main mode 3", must=(KE, NONCE), may=_WITH_CR)
_MAIN_4 = Rule(name="main mode 4", must=(KE, NONCE), may=_WITH_CR)
_MAIN_3_ENCRYPTED = Rule(name="main mode 3", must=(KE, ID, NONCE), may={**_WITH_CR, HASH: 1})
_MAIN_4_ENCRYPTED = Rule(name="main mode 4", must=(KE, ID, NONCE), may=_WITH_CR)


def main_key_exchange(method: AuthenticationMethod1, *, from_initiator: bool) -> Rule:
    """Message 3 or 4 of main mode (RFC 2409 sections 5.1, 5.2 and 5.4)."""
    if method == AuthenticationMethod1.RSA_ENCRYPTION:
        return _MAIN_3_ENCRYPTED if from_initiator else _MAIN_4_ENCRYPTED
    return _MAIN_3 if from_initiator else _MAIN_4


def main_proof(method: AuthenticationMethod1, *, from_initiator: bool) -> Rule:
    """Message 5 or 6 of main mode."""
    return _MAIN_PROOFS[_kind(method), from_initiator]


def aggressive_answer(method: AuthenticationMethod1) -> Rule:
    """Message 2 of aggressive mode."""
    return _AGGRESSIVE_2[_kind(method)]


def aggressive_proof(method: AuthenticationMethod1) -> Rule:
    """Message 3 of aggressive mode, encrypted or not."""
    return _AGGRESSIVE_3[_kind(method)]


def _kind(method: AuthenticationMethod1) -> AuthenticationMethod1:
    """The method that stands for all that look alike."""
    return AuthenticationMethod1.RSA_SIGNATURE if method in SIGNATURE_METHODS else method


_SIGNATURE = AuthenticationMethod1.RSA_SIGNATURE
_SHARED_KEY = AuthenticationMethod1.PRE_SHARED_KEY
_ENCRYPTION = AuthenticationMethod1.RSA_ENCRYPTION
_WITH_CERT = {**_WITH_CR, CERT: _MANY}

_MAIN_PROOFS = {
    (method, from_initiator): Rule(name=f"main mode {5 if from_initiator else 6}", must=must, may=may)
    for method, must, may in (
        (_SIGNATURE, (ID, SIG), _WITH_CERT),
        (_SHARED_KEY, (ID, HASH), _WITH_CR),
        (_ENCRYPTION, (HASH,), _WITH_CR),
    )
    for from_initiator in (True, False)
}

#: With public key encryption a HASH may stand in it, of the certificate used.
AGGRESSIVE_1 = Rule(
    name="aggressive mode 1", leading=(SA,), must=(KE, NONCE, ID), may={**_ANYWHERE, CR: _MANY, HASH: 1}
)
#: Before it is known which method was chosen.
AGGRESSIVE_2 = Rule(
    name="aggressive mode 2", leading=(SA,), must=(KE, NONCE, ID), may={**_WITH_CERT, HASH: 1, SIG: 1}
)
_AGGRESSIVE_2 = {
    method: Rule(name="aggressive mode 2", leading=(SA,), must=(KE, NONCE, ID, proof), may=may)
    for method, proof, may in (
        (_SIGNATURE, SIG, _WITH_CERT),
        (_SHARED_KEY, HASH, _WITH_CR),
        (_ENCRYPTION, HASH, _WITH_CR),
    )
}
_AGGRESSIVE_3 = {
    method: Rule(name="aggressive mode 3", must=(proof,), may=may)
    for method, proof, may in (
        (_SIGNATURE, SIG, _WITH_CERT),
        (_SHARED_KEY, HASH, _WITH_CR),
        (_ENCRYPTION, HASH, _WITH_CR),
    )
}

# --- phase 2 --------------------------------------------------------------------------------------------------

#: RFC 2409 section 5.5: HASH and SA stand first.
_QUICK = {KE: 1, ID: 2, NAT_OA: 2, N: _MANY, VID: _MANY}
QUICK_1 = Rule(name="quick mode 1", leading=(HASH, SA), must=(NONCE,), may=_QUICK)
QUICK_2 = Rule(name="quick mode 2", leading=(HASH, SA), must=(NONCE,), may=_QUICK)
QUICK_3 = Rule(name="quick mode 3", leading=(HASH,), may={N: _MANY, VID: _MANY})
INFORMATIONAL = Rule(name="informational", leading=(HASH,), may={N: _MANY, D: _MANY, VID: _MANY})

#: Without an SA, or before it is established; what it says is a hint at most.
INFORMATIONAL_CLEAR = Rule(name="informational", may={HASH: 1, N: _MANY, D: _MANY, VID: _MANY})
