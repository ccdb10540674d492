"""IKEv2 as responder: IKE_SA_INIT, IKE_INTERMEDIATE and IKE_AUTH, one after the other as one generator.

Never signs, derives or judges: the authority does. RFC 7296 section 1.2, with additional key exchanges (RFC 9370)
and PPK (RFC 8784), and without a CHILD_SA where the initiator wants none (RFC 6023). Cookies are the endpoint's
matter: whom it does not know has no SA.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from locum.errors import LocumError, Unauthenticated
from locum.handshake import Ask, PeerRejected, Verdict, expect
from locum.ike.errors import IllegalValue, InvalidKeyExchange, NoProposalChosen, notify2_for
from locum.ike.operations import (
    AdditionalKeyExchangeRequest,
    Exchange,
    IkeKeysResponse,
    IkeStartResponse,
    KeyExchangeRequest,
    ProveResponse,
    SaKeysResponse,
)
from locum.ike.payloads2 import (
    Authentication,
    IdentificationResponder,
    KeyExchange,
    Nonce,
    Notify,
    Payload,
    SecurityAssociation,
)
from locum.ike.registry import ExchangeType, NotifyType2, PayloadType2
from locum.ike.suites import Nonces
from locum.ike.v2 import authentication, first_child, negotiation, offers
from locum.ike.v2.core import NONCE_LENGTH, Core
from locum.ike.v2.messages import Content
from locum.ike.v2.negotiation import Agreement
from locum.ike.v2.offers import Choice
from locum.ike.v2.steps import Answering, reply


def establish(core: Core, init: Content) -> Answering:
    """Make the IKE SA and its first CHILD_SA from the initiator's IKE_SA_INIT on.

    Raises: PeerError when the peer is at fault, OperationError when the authority did not do its part; the
    notify for it is the answer to the request at hand.
    """
    nonce = core.random(NONCE_LENGTH)
    core.channel.peer_spi = init.header.initiator_spi
    core.detect_nat(init)
    choice, public_value = yield from _choose(core, init, nonce)
    core.agree_fragments(init)
    ppk = _wants_ppk(core) and init.notify(NotifyType2.USE_PPK) is not None
    payloads = _init_payloads(
        core, choice, KeyExchange(group=choice.suite.group.id, data=public_value), nonce, ppk=ppk
    )
    additional = [group for group in choice.suite.additional if group is not None]
    following = ExchangeType.IKE_INTERMEDIATE if additional else ExchangeType.IKE_AUTH
    request = yield from reply(payloads, following)
    own_message = core.channel.last_response
    for index, group in enumerate(additional):
        ke = request.one(KeyExchange)
        if ke.group != group.id or len(ke.data) != group.initiator_length:
            raise IllegalValue(f"a KE payload in group {ke.group} of {len(ke.data)} bytes")
        responses = yield Ask((AdditionalKeyExchangeRequest(group=group.id, public_value=ke.data),))
        keys = expect(responses, 0, IkeKeysResponse)
        core.use_keys(keys.keys, after_response=True)
        more = index + 1 < len(additional)
        following = ExchangeType.IKE_INTERMEDIATE if more else ExchangeType.IKE_AUTH
        request = yield from reply((KeyExchange(group=group.id, data=keys.public_value),), following)
    nonces = Nonces(initiator=init.one(Nonce).data, responder=nonce)
    return (yield from _authenticate(core, init, own_message, request, nonces, ppk=ppk))


# --- IKE_SA_INIT ------------------------------------------------------------------------------------------


def _choose(core: Core, init: Content, nonce: bytes) -> Generator[Any, Any, tuple[Choice, bytes]]:
    """What is chosen from the offer, and our public value.

    Raises: NoProposalChosen; InvalidKeyExchange when the public value must come in another group.
    """
    ke = init.one(KeyExchange)
    policy, offer = core.connection.ike, init.body(PayloadType2.SECURITY_ASSOCIATION)
    sa = offers.cut_down(policy, offer).body
    start = core.start_request(Exchange.IKE_2, initiator=False, sa=sa, group=ke.group)
    exchange = KeyExchangeRequest(
        group=ke.group,
        public_value=ke.data,
        initiator_spi=core.channel.peer_spi,
        responder_spi=core.channel.own_spi,
        peer_nonce=init.one(Nonce).data,
        own_nonce=nonce,
    )
    responses = yield Ask((start, exchange))
    begun = expect(responses, 0, IkeStartResponse)
    if begun.other_group_wanted:
        raise InvalidKeyExchange(begun.group)
    keys = expect(responses, 1, IkeKeysResponse)
    choice = offers.accept(policy, offer, begun.sa or sa)
    if choice.suite.group.id != ke.group:
        raise InvalidKeyExchange(choice.suite.group.id)
    if any(choice.suite.additional) and not init.notify(NotifyType2.INTERMEDIATE_EXCHANGE_SUPPORTED):
        raise NoProposalChosen("additional key exchanges without IKE_INTERMEDIATE")
    core.suite = choice.suite
    core.use_keys(keys.keys, after_response=True)
    return choice, keys.public_value


def _init_payloads(core: Core, choice: Choice, ke: KeyExchange, nonce: bytes, *, ppk: bool) -> tuple[Payload, ...]:
    return (
        choice.sa,
        ke,
        Nonce(data=nonce),
        *authentication.init_notifies(core, response=True, intermediate=any(choice.suite.additional), ppk=ppk),
        authentication.CERTIFICATE_WANTED,
    )


def _wants_ppk(core: Core) -> bool:
    connection = core.connection
    return connection.use_ppk or connection.ppk_required


# --- IKE_AUTH ---------------------------------------------------------------------------------------------


def _authenticate(
    core: Core, init: Content, own_message: bytes, request: Content, nonces: Nonces, *, ppk: bool
) -> Answering:
    """Have the initiator judged, prove ourselves, and make the CHILD_SA that it asks for."""
    required = core.connection.ppk_required
    agreement = _agree_child(core, request)
    authenticate = authentication.authenticate_request(
        core, request, init.message, identification=PayloadType2.IDENTIFICATION_INITIATOR
    )
    if required and not (ppk and authenticate.ppk_identity):
        raise Unauthenticated("the peer has not used the post-quantum pre-shared key, which is required")
    prove = authentication.prove_request(
        core,
        own_message,
        init,
        authorities=authentication.certificate_authorities(request),
        ppk=ppk,
        peer=authenticate.identification,
    )
    responses = yield Ask((authenticate, prove, *first_child.keys_requests(core, agreement)))
    verdict = expect(responses, 0, Verdict)
    if not verdict.accepted:
        raise PeerRejected(verdict)
    proof = expect(responses, 1, ProveResponse)
    keys = expect(responses, 2, SaKeysResponse) if len(responses) > 2 else None
    if required and not (keys is not None and keys.ppk_used):
        raise Unauthenticated("the post-quantum pre-shared key, which is required, was not used")
    core.sa.initial_contact = request.notify(NotifyType2.INITIAL_CONTACT) is not None
    core.establish(verdict.identity)
    payloads = _auth_payloads(proof, keys)
    try:
        first_child.make(core, agreement, keys, nonces)
    except LocumError as error:
        core.child_failed(error)
        return (*payloads, *_child_refused(error))
    if isinstance(agreement, Agreement):
        return (*payloads, *agreement.sa, *agreement.traffic)
    return (*payloads, *(_child_refused(agreement) if agreement is not None else ()))


def _agree_child(core: Core, request: Content) -> Agreement | LocumError | None:
    """The first CHILD_SA, or why there is none; None where the initiator asks for none (RFC 6023)."""
    if request.get(SecurityAssociation) is None:
        return None
    try:
        return negotiation.choose(core, request, first=True)
    except LocumError as error:
        return error


def _auth_payloads(proof: ProveResponse, keys: SaKeysResponse | None) -> tuple[Payload, ...]:
    # RFC 8784 section 3: the initiator knows which PPK it named, so that the confirmation is empty.
    confirmation = (Notify(notify_type=NotifyType2.PPK_IDENTITY),) if keys is not None and keys.ppk_used else ()
    return (
        authentication.identification(IdentificationResponder, proof),
        *authentication.certificates(proof),
        Authentication(method=proof.method, data=proof.proof),
        *confirmation,
    )


def _child_refused(error: LocumError) -> tuple[Payload, ...]:
    """RFC 7296 section 1.2: the IKE SA is made all the same."""
    notification = notify2_for(error)
    if notification is None:
        return ()
    return (Notify(notify_type=notification.notify_type, data=notification.data),)
