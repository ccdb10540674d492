"""IKEv2 as initiator: IKE_SA_INIT, IKE_INTERMEDIATE and IKE_AUTH, one after the other as one generator.

Never signs, derives or judges: the authority does. RFC 7296 section 1.2, with cookies (2.6), INVALID_KE_PAYLOAD
(1.3), additional key exchanges (RFC 9370) and PPK (RFC 8784).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from locum.errors import Incompatible, LocumError, Unauthenticated
from locum.handshake import Ask, PeerRejected, Request, Response, Verdict, expect
from locum.ike.errors import IllegalValue, NoProposalChosen, UnexpectedMessage
from locum.ike.header import NO_SPI
from locum.ike.operations import (
    AdditionalKeyExchangeRequest,
    Exchange,
    IkeKeysResponse,
    IkeStartResponse,
    KeyExchangeRequest,
    ProveResponse,
    PublicValueRequest,
    PublicValueResponse,
    SaKeysResponse,
)
from locum.ike.payloads2 import (
    Authentication,
    Delete,
    IdentificationInitiator,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    SecurityAssociation,
    body_of,
)
from locum.ike.proposals2 import IkeChoice, accept_ike, offer_ike
from locum.ike.registry import ExchangeType, NotifyType2, PayloadType2, TransformType
from locum.ike.suites import Nonces
from locum.ike.v2 import authentication, first_child, negotiation
from locum.ike.v2.core import NONCE_LENGTH, Core
from locum.ike.v2.messages import Content
from locum.ike.v2.negotiation import Agreement, Offer
from locum.ike.v2.steps import Task, accepted, exchange
from locum.wire.cursor import Reader

#: A responder may ask for a cookie so often in one handshake: its secret may have changed meanwhile.
MAX_COOKIES = 3
#: Bytes of a cookie (RFC 7296 section 2.6).
MAX_COOKIE = 64

_GROUP_LENGTH = 2


@dataclass(eq=False, slots=True)
class _Offered:
    """What our IKE_SA_INIT says, which may have to be said again in another way."""

    sa: SecurityAssociation
    nonce: bytes = field(repr=False)
    group: int
    public_value: bytes
    cookie: bytes = b""
    cookies: int = 0
    #: groups that a public value was sent in
    tried: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Init:
    """IKE_SA_INIT, done: our message and half, and the responder's."""

    offered: _Offered
    own_message: bytes
    content: Content
    choice: IkeChoice

    @property
    def nonces(self) -> Nonces:
        """Ni and Nr."""
        return Nonces(initiator=self.offered.nonce, responder=self.content.one(Nonce).data)


def establish(core: Core) -> Task:
    """Make the IKE SA and its first CHILD_SA.

    Raises: PeerError when the peer is at fault, OperationError when the authority did not do its part.
    """
    init = yield from _init(core)
    content, core.suite = init.content, init.choice.suite
    core.channel.peer_spi, core.channel.next_id = content.header.responder_spi, 1
    core.detect_nat(content)
    core.float_path()
    core.agree_fragments(content)
    ppk = _wants_ppk(core) and content.notify(NotifyType2.USE_PPK) is not None
    if core.connection.ppk_required and not ppk:
        raise Incompatible("the peer cannot use a post-quantum pre-shared key, which is required")
    proof = yield from _make_keys(core, init, ppk=ppk)
    if core.connection.ppk_required and not proof.ppk_identity:
        raise Unauthenticated("the authority has no post-quantum pre-shared key for this peer")
    offer = negotiation.offer(core, first=True)
    response = yield from exchange(ExchangeType.IKE_AUTH, _auth_payloads(core, proof, offer), _authenticated)
    core.peer_established = True
    yield from _judge(core, init, response, offer)


# --- IKE_SA_INIT ------------------------------------------------------------------------------------------


def _init(core: Core) -> Generator[Any, Any, _Init]:
    """IKE_SA_INIT, until the responder does not want it otherwise any more."""
    offered = yield from _begin(core)
    while True:
        payloads = _init_payloads(core, offered)
        content = yield from exchange(ExchangeType.IKE_SA_INIT, payloads, partial(_accept_init, offered))
        cookie = content.notify(NotifyType2.COOKIE)
        other = content.notify(NotifyType2.INVALID_KE_PAYLOAD)
        if cookie is not None:
            offered.cookies += 1
            offered.cookie = cookie.data
        elif other is not None:
            offered.group = int.from_bytes(other.data, "big")
            offered.tried.add(offered.group)
            responses = yield Ask((PublicValueRequest(group=offered.group),))
            offered.public_value = expect(responses, 0, PublicValueResponse).public_value
        else:
            return _Init(offered, core.channel.last_request, content, _accept_choice(offered, content))


def _begin(core: Core) -> Generator[Any, Any, _Offered]:
    """Have the authority cut our offer down and make a public value in the first group of ours."""
    policy = core.connection.ike
    sa = offer_ike(policy)
    group = policy.groups[0].id
    start = core.start_request(Exchange.IKE_2, initiator=True, sa=body_of(sa), group=group)
    responses: tuple[Response, ...] = yield Ask((start, PublicValueRequest(group=group)))
    cut = expect(responses, 0, IkeStartResponse).sa
    if cut:
        reader = Reader(cut)
        sa = SecurityAssociation.parse(reader)
        reader.finish()
    public_value = expect(responses, 1, PublicValueResponse).public_value
    return _Offered(sa, core.random(NONCE_LENGTH), group, public_value, tried={group})


def _init_payloads(core: Core, offered: _Offered) -> tuple[Payload, ...]:
    cookie = (Notify(notify_type=NotifyType2.COOKIE, data=offered.cookie),) if offered.cookie else ()
    return (
        *cookie,
        offered.sa,
        KeyExchange(group=offered.group, data=offered.public_value),
        Nonce(data=offered.nonce),
        *authentication.init_notifies(
            core, response=False, intermediate=bool(core.connection.ike.additional), ppk=_wants_ppk(core)
        ),
    )


def _wants_ppk(core: Core) -> bool:
    return core.connection.use_ppk or core.connection.ppk_required


def _accept_init(offered: _Offered, content: Content) -> Content:
    """What goes on with the handshake; it came in clear, and anybody may have sent it.

    Raises: UnexpectedMessage for what was heeded already and has arrived once more, other LocumErrors for what
    cannot be believed or ends the handshake.
    """
    cookie = content.notify(NotifyType2.COOKIE)
    if cookie is not None:
        if cookie.data == offered.cookie:
            raise UnexpectedMessage("the same cookie again")
        if not 1 <= len(cookie.data) <= MAX_COOKIE or offered.cookies >= MAX_COOKIES:
            raise IllegalValue(f"cookie {offered.cookies + 1}, of {len(cookie.data)} bytes")
        return content
    other = content.notify(NotifyType2.INVALID_KE_PAYLOAD)
    if other is not None:
        group = int.from_bytes(other.data, "big")
        if group in offered.tried:
            raise UnexpectedMessage(f"a KE payload is wanted in group {group}, which has been sent")
        if len(other.data) != _GROUP_LENGTH or group not in _groups(offered.sa):
            raise IllegalValue(f"a KE payload is wanted in group {group}, which was not offered")
        return content
    content.raise_error()
    _accept_choice(offered, content)
    if content.header.responder_spi == NO_SPI:
        raise IllegalValue("a responder's SPI of zero")
    return content


def _accept_choice(offered: _Offered, content: Content) -> IkeChoice:
    choice = accept_ike(offered.sa, content.one(SecurityAssociation))
    ke, group = content.one(KeyExchange), choice.suite.group
    if not ke.group == group.id == offered.group or len(ke.data) != group.responder_length:
        raise IllegalValue(f"a KE payload in group {ke.group} of {len(ke.data)} bytes")
    if any(choice.suite.additional) and not content.notify(NotifyType2.INTERMEDIATE_EXCHANGE_SUPPORTED):
        raise IllegalValue("additional key exchanges without IKE_INTERMEDIATE")
    return choice


def _groups(sa: SecurityAssociation) -> set[int]:
    transforms = (transform for proposal in sa.proposals for transform in proposal.transforms)
    return {each.id for each in transforms if each.type == TransformType.KEY_EXCHANGE}


# --- IKE_INTERMEDIATE -------------------------------------------------------------------------------------


def _make_keys(core: Core, init: _Init, *, ppk: bool) -> Generator[Any, Any, ProveResponse]:
    """The keys of the SA, changed by each additional key exchange, and with the last ones our proof."""
    content, nonces = init.content, init.nonces
    request: Request = KeyExchangeRequest(
        group=init.offered.group,
        public_value=content.one(KeyExchange).data,
        initiator_spi=core.channel.own_spi,
        responder_spi=core.channel.peer_spi,
        peer_nonce=nonces.responder,
        own_nonce=nonces.initiator,
        sa=content.body(PayloadType2.SECURITY_ASSOCIATION),
    )
    for group in init.choice.suite.additional:
        if group is None:
            continue
        responses = yield Ask((request, PublicValueRequest(group=group.id)))
        core.use_keys(expect(responses, 0, IkeKeysResponse).keys)
        own = KeyExchange(group=group.id, data=expect(responses, 1, PublicValueResponse).public_value)
        response = yield from exchange(ExchangeType.IKE_INTERMEDIATE, (own,), accepted)
        ke = response.one(KeyExchange)
        if ke.group != group.id or len(ke.data) != group.responder_length:
            raise IllegalValue(f"a KE payload in group {ke.group} of {len(ke.data)} bytes")
        request = AdditionalKeyExchangeRequest(group=group.id, public_value=ke.data)
    wanted = authentication.wanted_responder(core.connection.remote_identity)
    prove = authentication.prove_request(
        core,
        init.own_message,
        content,
        authorities=authentication.certificate_authorities(content),
        ppk=ppk,
        peer=wanted.body if wanted is not None else b"",
    )
    responses = yield Ask((request, prove))
    core.use_keys(expect(responses, 0, IkeKeysResponse).keys)
    return expect(responses, 1, ProveResponse)


# --- IKE_AUTH ---------------------------------------------------------------------------------------------


def _auth_payloads(core: Core, proof: ProveResponse, offer: Offer) -> tuple[Payload, ...]:
    wanted = authentication.wanted_responder(core.connection.remote_identity)
    contact = (Notify(notify_type=NotifyType2.INITIAL_CONTACT),) if core.sa.initial_contact else ()
    return (
        authentication.identification(IdentificationInitiator, proof),
        *authentication.certificates(proof),
        *contact,
        authentication.CERTIFICATE_WANTED,
        *((wanted,) if wanted is not None else ()),
        Authentication(method=proof.method, data=proof.proof),
        *authentication.ppk_notifies(proof, required=core.connection.ppk_required),
        offer.sa,
        *offer.traffic,
    )


def _authenticated(content: Content) -> Content:
    """Raises: NotifyReceived where the responder says no; beside its proof an error is the CHILD_SA's alone."""
    if content.get(Authentication) is None:
        content.raise_error()
    content.one(Authentication)
    return content


def _judge(core: Core, init: _Init, response: Content, offer: Offer) -> Task:
    """Have the responder judged; only then the keys are handed over."""
    agreement = _agree_child(core, response, offer)
    authenticate = authentication.authenticate_request(
        core, response, init.content.message, identification=PayloadType2.IDENTIFICATION_RESPONDER
    )
    if core.connection.ppk_required and not authenticate.ppk_confirmed:
        raise Unauthenticated("the peer has not used the post-quantum pre-shared key, which is required")
    responses = yield Ask((authenticate, *first_child.keys_requests(core, agreement)))
    verdict = expect(responses, 0, Verdict)
    if not verdict.accepted:
        raise PeerRejected(verdict)
    core.establish(verdict.identity)
    keys = expect(responses, 1, SaKeysResponse) if len(responses) > 1 else None
    first_child.make(core, agreement, keys, init.nonces)


def _agree_child(core: Core, response: Content, offer: Offer) -> Agreement | LocumError:
    """The first CHILD_SA, or why there is none; the IKE SA is good without it (RFC 7296 section 1.2)."""
    if response.get(SecurityAssociation) is None:
        return response.error or NoProposalChosen("the peer has made no CHILD_SA")
    try:
        return negotiation.accept(core, offer, response)
    except LocumError as error:
        core.unwanted.append(Delete(protocol=core.connection.child.protocol, spis=(offer.spi_bytes,)))
        return error
