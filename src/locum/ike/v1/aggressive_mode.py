"""Aggressive mode, both roles (RFC 2409 sections 5.1, 5.2 and 5.4): three messages, identities in clear.

Never holds a private key, a shared secret or a pre-shared key: an authority answers for them (A8).
"""

from __future__ import annotations

from locum.handshake import Ask, Request, expect
from locum.ike.keying1 import PublicValues
from locum.ike.operations import (
    EncryptedIntroductionRequest,
    EncryptedIntroductionResponse,
    Exchange,
    IkeKeysResponse,
    IkeStartResponse,
    IntroduceRequest,
    IntroduceResponse,
    ProveResponse,
    PublicValueRequest,
    PublicValueResponse,
    SaKeysRequest,
    SaKeysResponse,
)
from locum.ike.payloads1 import (
    Identification,
    KeyExchange,
    Nonce,
    Payload,
    SecurityAssociation,
    body_of,
)
from locum.ike.registry import PayloadType1
from locum.ike.suites import Phase1Suite
from locum.ike.v1 import messages
from locum.ike.v1.messages import Message
from locum.ike.v1.phase1 import (
    Outcome,
    Phase1,
    accepted,
    authentication_of,
    body_payload,
    disclosure,
    encrypted_payloads,
    encrypts,
    isakmp_keys_of,
    key_exchange,
    phase1_chain,
    proof_payloads,
)
from locum.ike.v1.steps import Encrypt, Receive, Repeat, Send, Steps, receive

_SA, _ID = PayloadType1.SECURITY_ASSOCIATION, PayloadType1.IDENTIFICATION

# --- initiator ------------------------------------------------------------------------------------------------


def initiate(phase1: Phase1) -> Steps[Outcome]:
    """The initiator's part. Raises: LocumError, which ends the SA."""
    offer, value, introduction = yield from _begin(phase1)
    wanted = phase1.certificate_requests(phase1.connection.phase1.methods)
    yield Send(name="aggressive mode 1", payloads=(*introduction, *wanted, *phase1.vendor_ids()))
    suite, second = yield from _second(phase1, offer)
    phase1.detect_nat(suite, second)

    requests: list[Request] = [disclosure(second, from_initiator=False)] if encrypts(suite) else []
    identification = b"" if encrypts(suite) else second.one(Identification).body
    requests += (
        key_exchange(phase1, suite, second, second.body(_SA)),
        authentication_of(suite, second, identification),
        phase1.prove((second,), identification),
        SaKeysRequest(),
    )
    responses = yield Ask(tuple(requests))
    at = len(requests)
    identity = accepted(responses, at - 3)
    proof = expect(responses, at - 2, ProveResponse)
    keys = isakmp_keys_of(suite, expect(responses, at - 1, SaKeysResponse))
    detection = yield from phase1.nat_detection(suite)
    phase1.float()
    values = PublicValues(initiator=value, responder=second.one(KeyExchange).data)
    yield Encrypt(phase1_chain(suite, keys.e, values))
    payloads = (*proof_payloads(suite, proof), *detection, *phase1.initial_contact_payload())
    yield Send(name="aggressive mode 3", payloads=payloads, repeat=Repeat.ON_REQUEST)
    return Outcome(suite=suite, keys=keys, identity=identity)


def _begin(phase1: Phase1) -> Steps[tuple[SecurityAssociation, bytes, tuple[Payload, ...]]]:
    """What is offered, our public value, and the payloads of message 1 that carry both and say who we are."""
    full = phase1.offer()
    encrypted = phase1.prefers_encryption
    introduce = EncryptedIntroductionRequest() if encrypted else IntroduceRequest()
    start = phase1.start(Exchange.AGGRESSIVE, body_of(full))
    responses = yield Ask((start, PublicValueRequest(group=phase1.connection.phase1.groups[0].id), introduce))
    offer, sa = phase1.left_of(full, expect(responses, 0, IkeStartResponse))
    share = expect(responses, 1, PublicValueResponse)
    value = KeyExchange(data=share.public_value)
    if encrypted:
        hidden = expect(responses, 2, EncryptedIntroductionResponse)
        secret = encrypted_payloads(hidden.identification, hidden.nonce, hidden.certificate_hash)
        return offer, share.public_value, (sa, value, *secret)
    identification = expect(responses, 2, IntroduceResponse).identification
    open_ = (Nonce(data=share.nonce), body_payload(_ID, identification))
    return offer, share.public_value, (sa, value, *open_)


def _second(phase1: Phase1, offer: SecurityAssociation) -> Steps[tuple[Phase1Suite, Message]]:
    """Message 2, of which each method that was offered makes another one."""
    second = yield from receive(
        Receive(rule=messages.AGGRESSIVE_2, public_key_encryption=phase1.prefers_encryption)
    )
    phase1.learn(second)
    suite = phase1.accept(offer, second)
    messages.aggressive_answer(suite.method).check(second.payloads)
    return suite, second


# --- responder ------------------------------------------------------------------------------------------------


def respond(phase1: Phase1) -> Steps[Outcome]:
    """The responder's part. Raises: LocumError, which ends the SA."""
    first = yield from receive(Receive(rule=messages.AGGRESSIVE_1, public_key_encryption=True))
    phase1.learn(first)
    suite = yield from _answer(phase1, first)
    rule = messages.aggressive_proof(suite.method)
    third = yield from receive(Receive(rule=rule, encrypted=None))
    phase1.learn(third)
    phase1.detect_nat(suite, third)
    identification = b"" if encrypts(suite) else first.body(_ID)
    responses = yield Ask((authentication_of(suite, third, identification), SaKeysRequest()))
    identity = accepted(responses, 0)
    keys = isakmp_keys_of(suite, expect(responses, 1, SaKeysResponse))
    return Outcome(suite=suite, keys=keys, identity=identity)


def _answer(phase1: Phase1, first: Message) -> Steps[Phase1Suite]:
    """Everything that message 2 takes, asked for at once; then encryption begins."""
    restricted, wanted = phase1.restricted_to_one_group(first)
    hidden = encrypts(wanted)
    first = first if hidden else first.in_clear()
    start = phase1.start(Exchange.AGGRESSIVE, restricted, first.body(_SA), group=wanted.group.id)
    requests: list[Request] = [start]
    if hidden:
        requests += (disclosure(first, from_initiator=True), EncryptedIntroductionRequest())
    identification = b"" if hidden else first.body(_ID)
    requests += (key_exchange(phase1, wanted, first), phase1.prove((first,), identification))
    responses = yield Ask(tuple(requests))
    at = len(requests)
    suite, chosen = phase1.chosen(restricted, expect(responses, 0, IkeStartResponse))
    keys = expect(responses, at - 2, IkeKeysResponse)
    proof = expect(responses, at - 1, ProveResponse)
    payloads: tuple[Payload, ...] = (body_payload(_SA, chosen), KeyExchange(data=keys.public_value))
    if hidden:
        introduction = expect(responses, 2, EncryptedIntroductionResponse)
        payloads += encrypted_payloads(introduction.identification, introduction.nonce)
    else:
        payloads += (Nonce(data=keys.nonce), body_payload(_ID, proof.identification))
    detection = yield from phase1.nat_detection(suite)
    requested = phase1.certificate_requests((suite.method,))
    payloads += (*proof_payloads(suite, proof), *requested, *detection, *phase1.vendor_ids())
    yield Send(name="aggressive mode 2", payloads=payloads, repeat=Repeat.SPARINGLY)
    values = PublicValues(initiator=first.one(KeyExchange).data, responder=keys.public_value)
    yield Encrypt(phase1_chain(suite, keys.keys, values))
    return suite
