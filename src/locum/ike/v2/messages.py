"""Which payloads each message of IKEv2 must have and may have, as a table, and a message that was read.

Knows no key and no state: the exchanges say when a message is due (RFC 7296 sections 1.2 to 1.4, appendix C).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, TypeVar

from locum.errors import DecodeError
from locum.ike.errors import NotifyReceived, UnexpectedMessage, notify_received
from locum.ike.header import MAX_PAYLOADS, Header, RawPayload, parse_chain
from locum.ike.payloads2 import FINAL, Notify, Payload, interpret
from locum.ike.registry import FIRST_STATUS_TYPE, ExchangeType, Flags2, NotifyType2, PayloadType2, name_of
from locum.values import dataclass

P = TypeVar("P", bound=Payload)

SA, KE, NONCE = PayloadType2.SECURITY_ASSOCIATION, PayloadType2.KEY_EXCHANGE, PayloadType2.NONCE
ID_I, ID_R = PayloadType2.IDENTIFICATION_INITIATOR, PayloadType2.IDENTIFICATION_RESPONDER
CERT, CERTREQ = PayloadType2.CERTIFICATE, PayloadType2.CERTIFICATE_REQUEST
AUTH, N, D, V = PayloadType2.AUTHENTICATION, PayloadType2.NOTIFY, PayloadType2.DELETE, PayloadType2.VENDOR_ID
TS_I, TS_R = PayloadType2.TRAFFIC_SELECTOR_INITIATOR, PayloadType2.TRAFFIC_SELECTOR_RESPONDER
CP, EAP = PayloadType2.CONFIGURATION, PayloadType2.EXTENSIBLE_AUTHENTICATION

_SHORT_NAMES: dict[int, str] = {
    SA: "SA",
    KE: "KE",
    ID_I: "IDi",
    ID_R: "IDr",
    CERT: "CERT",
    CERTREQ: "CERTREQ",
    AUTH: "AUTH",
    NONCE: "Nonce",
    N: "N",
    D: "D",
    V: "V",
    TS_I: "TSi",
    TS_R: "TSr",
    CP: "CP",
    EAP: "EAP",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a message is made of: `must` come once each, `may` once at most, `many` as often as there is room.

    Where an error notify ends the exchange, what must come need not. A known payload that is none of these is
    out of turn; unknown ones that are not critical are skipped (RFC 7296 section 2.5).
    """

    must: tuple[PayloadType2, ...] = ()
    may: tuple[PayloadType2, ...] = ()
    many: tuple[PayloadType2, ...] = (N, V)

    @property
    def most(self) -> Mapping[int, int]:
        """How often each payload may come."""
        return {**dict.fromkeys((*self.must, *self.may), 1), **dict.fromkeys(self.many, MAX_PAYLOADS)}


#: Every message of IKEv2 by exchange and direction: True for the response.
RULES: dict[tuple[int, bool], Rule] = {
    (ExchangeType.IKE_SA_INIT, False): Rule(must=(SA, KE, NONCE)),
    (ExchangeType.IKE_SA_INIT, True): Rule(must=(SA, KE, NONCE), many=(N, V, CERTREQ)),
    (ExchangeType.IKE_INTERMEDIATE, False): Rule(must=(KE,)),
    (ExchangeType.IKE_INTERMEDIATE, True): Rule(must=(KE,)),
    # An initiator that leaves AUTH out wants EAP, which is refused as such.
    (ExchangeType.IKE_AUTH, False): Rule(
        must=(ID_I,), may=(ID_R, AUTH, SA, TS_I, TS_R, CP), many=(N, V, CERT, CERTREQ)
    ),
    (ExchangeType.IKE_AUTH, True): Rule(must=(ID_R, AUTH), may=(SA, TS_I, TS_R, CP), many=(N, V, CERT)),
    (ExchangeType.CREATE_CHILD_SA, False): Rule(must=(SA, NONCE), may=(KE, TS_I, TS_R, CP)),
    (ExchangeType.CREATE_CHILD_SA, True): Rule(must=(SA, NONCE), may=(KE, TS_I, TS_R, CP)),
    (ExchangeType.IKE_FOLLOWUP_KE, False): Rule(must=(KE,)),
    (ExchangeType.IKE_FOLLOWUP_KE, True): Rule(must=(KE,)),
    (ExchangeType.INFORMATIONAL, False): Rule(may=(CP,), many=(N, V, D)),
    (ExchangeType.INFORMATIONAL, True): Rule(may=(CP,), many=(N, V, D)),
}
#: The same as numbers: how often each payload may come, and which must.
_BOUNDS: dict[tuple[int, bool], tuple[Mapping[int, int], tuple[PayloadType2, ...]]] = {
    key: (rule.most, rule.must) for key, rule in RULES.items()
}


@dataclass(frozen=True, slots=True)
class Content:
    """One message as it was read and opened, its payloads in order, of which the table allows every one.

    `raw` are the same payloads uninterpreted, and `by_class` by their classes; `message` is the whole message
    where it came in clear.
    """

    header: Header
    payloads: tuple[Payload, ...]
    raw: tuple[RawPayload, ...]
    by_class: Mapping[type[Payload], Sequence[Payload]] = field(repr=False)
    message: bytes = field(repr=False, default=b"")

    def all(self, kind: type[P]) -> Sequence[P]:
        """Every payload of this class."""
        found: Sequence[Any] = self.by_class.get(kind, ())
        return found

    def get(self, kind: type[P]) -> P | None:
        """The first payload of this class, None without one."""
        found: Sequence[Any] = self.by_class.get(kind, ())
        return found[0] if found else None

    def one(self, kind: type[P]) -> P:
        """The payload of this class. Raises: UnexpectedMessage when it is missing."""
        found = self.get(kind)
        if found is None:
            raise UnexpectedMessage(f"{describe(self.header, self.payloads)}: {kind.__name__} is missing")
        return found

    def body(self, kind: PayloadType2) -> bytes:
        """The body of the first payload of this type as it came. Raises: UnexpectedMessage when it is missing."""
        for raw in self.raw:
            if raw.type == kind:
                return raw.body
        raise UnexpectedMessage(f"{describe(self.header, self.payloads)}: {_SHORT_NAMES[kind]} is missing")

    def notify(self, notify_type: NotifyType2) -> Notify | None:
        """The first notify of this type, None without one."""
        for each in self.all(Notify):
            if each.notify_type == notify_type:
                return each
        return None

    @property
    def error(self) -> NotifyReceived | None:
        """The first notify that reports an error, known or not (RFC 7296 section 3.10.1); None without one."""
        for each in self.all(Notify):
            if each.notify_type < FIRST_STATUS_TYPE:
                return notify_received(NotifyType2, each.notify_type)
        return None

    def raise_error(self) -> None:
        """Raises: NotifyReceived when the message reports an error."""
        error = self.error
        if error is not None:
            raise error

    def __str__(self) -> str:
        return describe(self.header, self.payloads)


def read(header: Header, first: int, chain: bytes, message: bytes = b"") -> Content:
    """Cut a chain of payloads that was in clear or has been opened, and hold it against the table.

    Raises: DecodeError for a malformed payload, UnsupportedCriticalPayload, UnexpectedMessage for one that is
    missing, out of turn or there too often.
    """
    raw = parse_chain(first, chain, final=FINAL)
    if (raw[-1].end if raw else 0) != len(chain):
        raise DecodeError("bytes behind the last payload")
    response = bool(header.flags & Flags2.RESPONSE)
    most, must = _BOUNDS.get((header.exchange_type, response), (None, ()))
    if most is None:
        raise UnexpectedMessage(f"exchange {header.exchange_type}")
    counts: dict[int, int] = {}
    for each in raw:
        kind = each[0]
        count = counts[kind] = counts.get(kind, 0) + 1
        room = most.get(kind)
        if count > (_room_for_unknown(kind) if room is None else room):
            raise UnexpectedMessage(f"{_title(header)}: {_SHORT_NAMES.get(kind, str(kind))} is out of turn")
    payloads = tuple([interpret(each) for each in raw])
    by_class: dict[type[Payload], list[Payload]] = {}
    for payload in payloads:
        same = by_class.get(type(payload))
        if same is None:
            by_class[type(payload)] = [payload]
        else:
            same.append(payload)
    content = Content(header, payloads, raw, by_class, message)
    for kind in must:
        if kind not in counts and not (response and _ends_otherwise(content)):
            raise UnexpectedMessage(f"{content}: {_SHORT_NAMES[kind]} is missing")
    return content


def _room_for_unknown(kind: int) -> int:
    """How many payloads may be there that no rule names: those that are not known at all."""
    return 0 if kind in _SHORT_NAMES or kind in FINAL else MAX_PAYLOADS


def _ends_otherwise(content: Content) -> bool:
    """True for a response that is nothing but a reason why not."""
    return content.error is not None or content.notify(NotifyType2.COOKIE) is not None


# --- for people -----------------------------------------------------------------------------------------------


def describe(header: Header, payloads: tuple[Payload, ...]) -> str:
    """``IKE_AUTH request: IDi, CERT x 2, AUTH, N(INITIAL_CONTACT), SA, TSi, TSr``."""
    names: list[str] = []
    counts: list[int] = []
    for payload in payloads:
        name = _SHORT_NAMES.get(payload.type, f"payload {payload.type}")
        if isinstance(payload, Notify):
            name = f"N({name_of(NotifyType2, payload.notify_type)})"
        if names and names[-1] == name:
            counts[-1] += 1
        else:
            names.append(name)
            counts.append(1)
    listed = (name if count == 1 else f"{name} x {count}" for name, count in zip(names, counts, strict=True))
    return f"{_title(header)}: {', '.join(listed) or 'nothing'}"


def _title(header: Header) -> str:
    kind = "response" if header.flags & Flags2.RESPONSE else "request"
    return f"{name_of(ExchangeType, header.exchange_type)} {kind}"
