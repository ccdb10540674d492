"""Informational exchanges: what they say and how it is said (RFC 2408 5.7, RFC 2407 4.6.3, RFC 3706).

Single messages without answers, so that there is no generator here; what follows from them is the SA's matter.
"""

from __future__ import annotations

from collections.abc import Iterable

from locum.ike.errors import Notification as Reason
from locum.ike.keying1 import Cookies
from locum.ike.payloads1 import Delete, Notification
from locum.ike.registry import (
    FIRST_STATUS_TYPE,
    IpsecAttribute,
    NotifyType1,
    OakleyAttribute,
    ProtocolId,
)
from locum.ike.v1.messages import Message
from locum.ike.v1.quick_mode import announced_lifetime, lifetime_attributes
from locum.ipsec.sa import Protocol
from locum.values import dataclass

_PROTOCOLS = {ProtocolId.ESP: Protocol.ESP, ProtocolId.AH: Protocol.AH}
_SPI_LENGTH = 4


# --- what is said -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChildDeleted:
    """The peer has removed an inbound association of its own: the one that we send under this SPI to."""

    protocol: Protocol
    spi: int


@dataclass(frozen=True, slots=True)
class SaDeleted:
    """The peer has removed the ISAKMP SA."""


@dataclass(frozen=True, slots=True)
class Asked:
    """R-U-THERE with its sequence number as bytes."""

    sequence: bytes


@dataclass(frozen=True, slots=True)
class Answered:
    """R-U-THERE-ACK with its sequence number as bytes."""

    sequence: bytes


@dataclass(frozen=True, slots=True)
class InitialContact:
    """The peer knows no other SA with us."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """RESPONDER_LIFETIME: of the ISAKMP SA where `spi` is None, else of the child that we send to under it."""

    seconds: float
    protocol: Protocol | None = None
    spi: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """An error notify; `spi` is empty where it names none."""

    notify_type: int
    spi: bytes


News = ChildDeleted | SaDeleted | Asked | Answered | InitialContact | Lifetime | Failure


def news_of(message: Message, cookies: Cookies) -> tuple[News, ...]:
    """Everything that a message says about this SA and its children; what is not understood is passed over."""
    said: list[News] = []
    for delete in message.all(Delete):
        said += _deleted(delete, cookies)
    for notification in message.all(Notification):
        news = _notified(notification, cookies)
        if news is not None:
            said.append(news)
    return tuple(said)


def _deleted(delete: Delete, cookies: Cookies) -> Iterable[News]:
    protocol = _protocol(delete.protocol)
    if protocol is not None:
        return (ChildDeleted(protocol, int.from_bytes(spi, "big")) for spi in delete.spis)
    return (SaDeleted(),) if delete.protocol == ProtocolId.IKE and cookies.both in delete.spis else ()


def _protocol(code: int) -> Protocol | None:
    return _PROTOCOLS[ProtocolId(code)] if code in _PROTOCOLS else None


def _notified(notification: Notification, cookies: Cookies) -> News | None:
    match notification.notify_type:
        case NotifyType1.R_U_THERE if notification.spi == cookies.both:
            return Asked(notification.data)
        case NotifyType1.R_U_THERE_ACK if notification.spi == cookies.both:
            return Answered(notification.data)
        case NotifyType1.INITIAL_CONTACT:
            return InitialContact()
        case NotifyType1.RESPONDER_LIFETIME:
            return _lifetime(notification)
        case code if code < FIRST_STATUS_TYPE:
            return Failure(code, notification.spi)
    return None


def _lifetime(notification: Notification) -> Lifetime | None:
    protocol = _protocol(notification.protocol)
    if protocol is None:
        seconds = announced_lifetime(notification, OakleyAttribute.LIFE_TYPE, OakleyAttribute.LIFE_DURATION)
        return None if seconds is None else Lifetime(seconds)
    seconds = announced_lifetime(notification, IpsecAttribute.LIFE_TYPE, IpsecAttribute.LIFE_DURATION)
    if seconds is None or len(notification.spi) != _SPI_LENGTH:
        return None
    return Lifetime(seconds, protocol, int.from_bytes(notification.spi, "big"))


# --- saying it --------------------------------------------------------------------------------------------


def child_deletion(protocol: Protocol, spi: int) -> Delete:
    """The deletion of an inbound association of ours."""
    code = ProtocolId.ESP if protocol is Protocol.ESP else ProtocolId.AH
    return Delete(protocol=code, spis=(spi.to_bytes(_SPI_LENGTH, "big"),))


def sa_deletion(cookies: Cookies) -> Delete:
    """The deletion of the ISAKMP SA."""
    return Delete(protocol=ProtocolId.IKE, spis=(cookies.both,))


def are_you_there(cookies: Cookies, sequence: bytes) -> Notification:
    """R-U-THERE."""
    return Notification(notify_type=NotifyType1.R_U_THERE, spi=cookies.both, data=sequence)


def i_am_here(cookies: Cookies, sequence: bytes) -> Notification:
    """R-U-THERE-ACK."""
    return Notification(notify_type=NotifyType1.R_U_THERE_ACK, spi=cookies.both, data=sequence)


def lifetime(cookies: Cookies, seconds: float) -> Notification:
    """RESPONDER_LIFETIME of the ISAKMP SA."""
    data = lifetime_attributes(seconds, OakleyAttribute.LIFE_TYPE, OakleyAttribute.LIFE_DURATION)
    return Notification(notify_type=NotifyType1.RESPONDER_LIFETIME, spi=cookies.both, data=data)


def failure(reason: Reason, *, protocol: int = ProtocolId.IKE, spi: bytes = b"") -> Notification:
    """An error notify about what `spi` of `protocol` stands for."""
    return Notification(notify_type=reason.notify_type, protocol=protocol, spi=spi, data=reason.data)
