"""Quick mode, both roles (RFC 2409 section 5.5): the terminal's own work under keys that it has (A9, fig 13).

Only perfect forward secrecy asks an authority for something, a key exchange without any name on it. Never
installs an association: what was agreed on is handed back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, replace

from locum.crypto.symmetric import constant_time_equal
from locum.errors import DecodeError
from locum.handshake import Ask, expect, random
from locum.ike.algorithms import Group
from locum.ike.children import SPI_LENGTH
from locum.ike.errors import UnexpectedMessage
from locum.ike.header import Attribute, parse_attributes
from locum.ike.keying1 import child_keys, hash_2, hash_3
from locum.ike.operations import (
    Exchange,
    IkeStartRequest,
    PublicValueRequest,
    PublicValueResponse,
    SharedSecretRequest,
    SharedSecretResponse,
)
from locum.ike.payloads1 import (
    Hash,
    KeyExchange,
    Nonce,
    Notification,
    Payload,
    SecurityAssociation,
    write_payloads,
)
from locum.ike.policy import ChildPolicy
from locum.ike.proposals1 import accept_phase2, choose_phase2, offer_phase2
from locum.ike.registry import IpsecAttribute, LifeType, NotifyType1, ProtocolId
from locum.ike.suites import ChildKeys, ChildSuite, Nonces
from locum.ike.traffic_selectors import TrafficSelector
from locum.ike.v1 import messages
from locum.ike.v1.isakmp import Isakmp
from locum.ike.v1.messages import Message
from locum.ike.v1.steps import Receive, Repeat, Send, Steps, receive
from locum.ike.v1.traffic import Traffic
from locum.ipsec.selectors import Address
from locum.values import dataclass
from locum.wire.cursor import Reader, Writer

#: Bytes of our nonces (RFC 2409 section 5: 8 to 256).
NONCE_LENGTH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Quick:
    """One quick mode to be done.

    `policy` has the encapsulation modes that fit the path; `lifetime` is ours in seconds, of which the shorter of
    both ends' counts. `reserve_spi` gives the SPI of the inbound association. `peer_identity` is who the peer has
    proven to be, in the form of a verdict.
    """

    isakmp: Isakmp
    message_id: int
    policy: ChildPolicy
    lifetime: float
    traffic: Traffic
    reserve_spi: Callable[[], int]
    peer_identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What quick mode ends in; selectors as seen from here, SPIs as integers, lifetime in seconds.

    `original_addresses` are those of the peer's packets, from and to, as it told them behind a NAT.
    """

    suite: ChildSuite
    initiator: bool
    inbound_spi: int
    outbound_spi: int
    local: TrafficSelector
    remote: TrafficSelector
    lifetime: float
    keys: ChildKeys = field(repr=False)
    original_addresses: tuple[Address, Address] | None


# --- initiator ------------------------------------------------------------------------------------------------


def initiate(quick: Quick) -> Steps[Agreement]:
    """The initiator's part. Raises: LocumError; the ISAKMP SA is not harmed by it."""
    isakmp, traffic, message_id = quick.isakmp, quick.traffic, quick.message_id
    spi = quick.reserve_spi()
    offer = offer_phase2(quick.policy, spi.to_bytes(SPI_LENGTH, "big"))
    group = quick.policy.groups[0]
    exchange: tuple[Payload, ...] = ()
    if group is not None:
        responses = yield Ask((_further(quick, initiator=True), PublicValueRequest(group=group.id)))
        exchange = (KeyExchange(data=expect(responses, 1, PublicValueResponse).public_value),)
    nonce = yield from random(NONCE_LENGTH)
    payloads: tuple[Payload, ...] = (
        offer,
        Nonce(data=nonce),
        *exchange,
        *traffic.identifications(),
        *traffic.original_addresses(),
    )
    yield Send(name="quick mode 1", payloads=isakmp.with_hash(message_id, payloads))

    rule = Receive(
        rule=messages.QUICK_2, encrypted=True, authentic=lambda message: _has_hash_2(quick, message, nonce)
    )
    second = yield from receive(rule)
    choice = accept_phase2(offer, second.one(SecurityAssociation))
    local, remote = traffic.answered(second)
    secret = yield from _initiator_secret(group, second)
    nonces = Nonces(initiator=nonce, responder=second.one(Nonce).data)
    third = Hash(data=hash_3(isakmp.suite.prf, isakmp.keys.a, message_id, nonces))
    yield Send(name="quick mode 3", payloads=(third,), repeat=Repeat.ON_REQUEST)
    spis = (spi.to_bytes(SPI_LENGTH, "big"), choice.peer_spi)
    return Agreement(
        suite=choice.suite,
        initiator=True,
        inbound_spi=spi,
        outbound_spi=int.from_bytes(choice.peer_spi, "big"),
        local=local,
        remote=remote,
        lifetime=_lifetime(quick, choice.suite, second),
        keys=child_keys(isakmp.suite.prf, isakmp.keys.d, choice.suite, spis, nonces, secret),
        original_addresses=traffic.told_addresses(second),
    )


def _initiator_secret(group: Group | None, second: Message) -> Steps[bytes]:
    value = second.get(KeyExchange)
    if (value is None) != (group is None):
        raise UnexpectedMessage("perfect forward secrecy was offered and not answered, or the other way round")
    if group is None or value is None:
        return b""
    responses = yield Ask((SharedSecretRequest(group=group.id, public_value=value.data),))
    return expect(responses, 0, SharedSecretResponse).secret


# --- responder ------------------------------------------------------------------------------------------------


def respond(quick: Quick) -> Steps[Agreement]:
    """The responder's part, as in fig 13. Raises: LocumError; the ISAKMP SA is not harmed by it."""
    isakmp, traffic, message_id = quick.isakmp, quick.traffic, quick.message_id
    first = yield from receive(Receive(rule=messages.QUICK_1, encrypted=True, authentic=isakmp.vouches_for))
    local, remote = traffic.offered(first)
    offered = first.one(SecurityAssociation)
    choice = choose_phase2(quick.policy, offered, spi=bytes(SPI_LENGTH))
    suite = choice.suite
    exchange, secret = yield from _responder_secret(quick, suite.group, first)
    # An SPI is reserved only for what will be used.
    spi = quick.reserve_spi()
    chosen = replace(choice.answer.proposals[0], spi=spi.to_bytes(SPI_LENGTH, "big"))
    nonce = yield from random(NONCE_LENGTH)
    nonces = Nonces(initiator=first.one(Nonce).data, responder=nonce)
    payloads: tuple[Payload, ...] = (
        replace(choice.answer, proposals=(chosen,)),
        Nonce(data=nonce),
        *exchange,
        *traffic.echoed(first),
        *traffic.original_addresses(),
        *_responder_lifetime(quick, suite, spi),
    )
    covered = write_payloads(payloads)[1]
    second = Hash(data=hash_2(isakmp.suite.prf, isakmp.keys.a, message_id, nonces.initiator, covered))
    yield Send(name="quick mode 2", payloads=(second, *payloads))

    due = hash_3(isakmp.suite.prf, isakmp.keys.a, message_id, nonces)
    yield from receive(
        Receive(
            rule=messages.QUICK_3,
            encrypted=True,
            authentic=lambda message: constant_time_equal(message.one(Hash).data, due),
        )
    )
    spis = (choice.peer_spi, spi.to_bytes(SPI_LENGTH, "big"))
    return Agreement(
        suite=suite,
        initiator=False,
        inbound_spi=spi,
        outbound_spi=int.from_bytes(choice.peer_spi, "big"),
        local=local,
        remote=remote,
        lifetime=_lifetime(quick, suite, first),
        keys=child_keys(isakmp.suite.prf, isakmp.keys.d, suite, spis, nonces, secret),
        original_addresses=traffic.told_addresses(first),
    )


def _responder_secret(
    quick: Quick, group: Group | None, first: Message
) -> Steps[tuple[tuple[Payload, ...], bytes]]:
    """Our KE payload, and the shared secret; neither without perfect forward secrecy."""
    value = first.get(KeyExchange)
    if group is None:
        # A public value that goes with no group of the chosen transform is of no use, and of no harm.
        return (), b""
    if value is None:
        raise UnexpectedMessage("perfect forward secrecy is offered without a KE payload")
    request = SharedSecretRequest(group=group.id, public_value=value.data)
    responses = yield Ask((_further(quick, initiator=False), request))
    response = expect(responses, 1, SharedSecretResponse)
    return (KeyExchange(data=response.public_value),), response.secret


# --- both -----------------------------------------------------------------------------------------------------


def _further(quick: Quick, *, initiator: bool) -> IkeStartRequest:
    return IkeStartRequest(
        exchange=Exchange.FURTHER,
        initiator=initiator,
        peer_address=str(quick.traffic.path.remote),
        remote_identity=quick.peer_identity,
    )


def _has_hash_2(quick: Quick, message: Message, initiator_nonce: bytes) -> bool:
    prf, key = quick.isakmp.suite.prf, quick.isakmp.keys.a
    due = hash_2(prf, key, quick.message_id, initiator_nonce, message.payloads.after_first())
    return constant_time_equal(message.one(Hash).data, due)


def _lifetime(quick: Quick, suite: ChildSuite, message: Message) -> float:
    """The shortest of what we want, what was agreed on, and what a responder announced besides."""
    announced = [
        seconds
        for each in message.all(Notification)
        if each.notify_type == NotifyType1.RESPONDER_LIFETIME
        and (seconds := announced_lifetime(each, IpsecAttribute.LIFE_TYPE, IpsecAttribute.LIFE_DURATION))
    ]
    agreed = [float(suite.lifetime)] if suite.lifetime else []
    return min((quick.lifetime, *agreed, *announced))


def _responder_lifetime(quick: Quick, suite: ChildSuite, spi: int) -> tuple[Payload, ...]:
    """RESPONDER_LIFETIME where ours ends before what the initiator offered (RFC 2407 section 4.5.4)."""
    if suite.lifetime is None or suite.lifetime <= quick.lifetime:
        return ()
    data = lifetime_attributes(quick.lifetime, IpsecAttribute.LIFE_TYPE, IpsecAttribute.LIFE_DURATION)
    own = spi.to_bytes(SPI_LENGTH, "big")
    notify = NotifyType1.RESPONDER_LIFETIME
    return (Notification(notify_type=notify, protocol=ProtocolId(suite.protocol), spi=own, data=data),)


def lifetime_attributes(seconds: float, life_type: int, life_duration: int) -> bytes:
    """The data of RESPONDER_LIFETIME: attributes as in a transform of the phase in question."""
    writer = Writer()
    Attribute.of(life_type, LifeType.SECONDS).write(writer)
    Attribute.of(life_duration, max(1, int(seconds))).write(writer)
    return writer.getvalue()


def announced_lifetime(notification: Notification, life_type: int, life_duration: int) -> float | None:
    """The seconds of a RESPONDER_LIFETIME; None where it names none, or cannot be read."""
    try:
        attributes = parse_attributes(Reader(notification.data))
    except DecodeError:
        return None
    kind = None
    for attribute in attributes:
        if attribute.type == life_type:
            kind = attribute.number
        elif attribute.type == life_duration and kind == LifeType.SECONDS and attribute.number:
            return float(attribute.number)
    return None
