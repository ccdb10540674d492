"""Main mode, both roles (RFC 2409 sections 5.1, 5.2 and 5.4): six messages, identities encrypted.

Never holds a private key, a shared secret or a pre-shared key: an authority answers for them (A8, fig 12).
"""

from __future__ import annotations

from locum.handshake import Ask, Request, ask, expect, random
from locum.ike.keying1 import PublicValues
from locum.ike.operations import (
    EncryptedIntroductionRequest,
    EncryptedIntroductionResponse,
    Exchange,
    IkeKeysResponse,
    IkeStartResponse,
    ProveResponse,
    PublicValueRequest,
    PublicValueResponse,
    SaKeysRequest,
    SaKeysResponse,
)
from locum.ike.payloads1 import Identification, KeyExchange, Nonce, Payload, body_of
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

# --- initiator ------------------------------------------------------------------------------------------------


def initiate(phase1: Phase1) -> Steps[Outcome]:
    """The initiator's part. Raises: LocumError, which ends the SA."""
    full = phase1.offer()
    response = yield from ask(phase1.start(Exchange.MAIN, body_of(full)), IkeStartResponse)
    offer, sa = phase1.left_of(full, response)
    yield Send(name="main mode 1", payloads=(sa, *phase1.vendor_ids()))
    second = yield from receive(Receive(rule=messages.MAIN_2))
    phase1.learn(second)
    suite = phase1.accept(offer, second)

    value, payloads = yield from _initiator_key_exchange(suite, second.body(PayloadType1.SECURITY_ASSOCIATION))
    detection = yield from phase1.nat_detection(suite)
    wanted = phase1.certificate_requests((suite.method,))
    yield Send(name="main mode 3", payloads=(*payloads, *wanted, *detection))
    rule = messages.main_key_exchange(suite.method, from_initiator=False)
    fourth = yield from receive(Receive(rule=rule, public_key_encryption=encrypts(suite)))
    phase1.learn(fourth)
    phase1.detect_nat(suite, fourth)

    proof = yield from _keys_and_proof(phase1, suite, value, (second, fourth))
    phase1.float()
    identity = () if encrypts(suite) else (body_payload(PayloadType1.IDENTIFICATION, proof.identification),)
    contact = phase1.initial_contact_payload()
    yield Send(name="main mode 5", payloads=(*identity, *proof_payloads(suite, proof), *contact))
    rule = messages.main_proof(suite.method, from_initiator=False)
    sixth = yield from receive(Receive(rule=rule, encrypted=True))
    identification = b"" if encrypts(suite) else sixth.one(Identification).body
    phase1.farewell = int.from_bytes((yield from random(4)), "big") or 1
    judge = authentication_of(suite, sixth, identification, farewell=phase1.farewell)
    responses = yield Ask((judge, SaKeysRequest()))
    identity_text = accepted(responses, 0)
    keys = isakmp_keys_of(suite, expect(responses, 1, SaKeysResponse))
    return Outcome(suite=suite, keys=keys, identity=identity_text)


def _initiator_key_exchange(suite: Phase1Suite, chosen: bytes) -> Steps[tuple[bytes, tuple[Payload, ...]]]:
    """Our public value, and the payloads of message 3 that carry it; `chosen` is the answered SA payload."""
    request = PublicValueRequest(group=suite.group.id, sa=chosen)
    if not encrypts(suite):
        response = yield from ask(request, PublicValueResponse)
        value = response.public_value
        return value, (KeyExchange(data=value), Nonce(data=response.nonce))
    responses = yield Ask((request, EncryptedIntroductionRequest()))
    value = expect(responses, 0, PublicValueResponse).public_value
    introduction = expect(responses, 1, EncryptedIntroductionResponse)
    return value, (
        KeyExchange(data=value),
        *encrypted_payloads(introduction.identification, introduction.nonce, introduction.certificate_hash),
    )


def _keys_and_proof(
    phase1: Phase1, suite: Phase1Suite, value: bytes, received: tuple[Message, Message]
) -> Steps[ProveResponse]:
    """After message 4: encryption begins, and our proof is made."""
    fourth = received[1]
    peer_value = fourth.one(KeyExchange).data
    requests: list[Request] = [disclosure(fourth, from_initiator=False)] if encrypts(suite) else []
    requests.append(key_exchange(phase1, suite, fourth))
    requests.append(phase1.prove(received))
    responses = yield Ask(tuple(requests))
    keys = expect(responses, len(requests) - 2, IkeKeysResponse)
    values = PublicValues(initiator=value, responder=peer_value)
    yield Encrypt(phase1_chain(suite, keys.keys, values))
    return expect(responses, len(requests) - 1, ProveResponse)


# --- responder ------------------------------------------------------------------------------------------------


def respond(phase1: Phase1) -> Steps[Outcome]:
    """The responder's part, as in fig 12. Raises: LocumError, which ends the SA."""
    first = yield from receive(Receive(rule=messages.MAIN_1))
    phase1.learn(first)
    restricted = phase1.restricted(first)
    offered = first.body(PayloadType1.SECURITY_ASSOCIATION)
    response = yield from ask(phase1.start(Exchange.MAIN, restricted, offered), IkeStartResponse)
    suite, chosen = phase1.chosen(restricted, response)
    answer = body_payload(PayloadType1.SECURITY_ASSOCIATION, chosen)
    yield Send(name="main mode 2", payloads=(answer, *phase1.vendor_ids()), repeat=Repeat.ON_REQUEST)

    rule = messages.main_key_exchange(suite.method, from_initiator=True)
    third = yield from receive(Receive(rule=rule, public_key_encryption=encrypts(suite)))
    phase1.learn(third)
    phase1.detect_nat(suite, third)
    yield from _responder_key_exchange(phase1, suite, third)

    rule = messages.main_proof(suite.method, from_initiator=True)
    fifth = yield from receive(Receive(rule=rule, encrypted=True))
    phase1.learn(fifth)
    identification = b"" if encrypts(suite) else fifth.one(Identification).body
    prove = phase1.prove((first, third, fifth), identification)
    responses = yield Ask((authentication_of(suite, fifth, identification), prove))
    identity_text = accepted(responses, 0)
    proof = expect(responses, 1, ProveResponse)
    handed_over = yield from ask(SaKeysRequest(), SaKeysResponse)
    keys = isakmp_keys_of(suite, handed_over)
    identity = () if encrypts(suite) else (body_payload(PayloadType1.IDENTIFICATION, proof.identification),)
    payloads = (*identity, *proof_payloads(suite, proof))
    yield Send(name="main mode 6", payloads=payloads, repeat=Repeat.ON_REQUEST)
    return Outcome(suite=suite, keys=keys, identity=identity_text)


def _responder_key_exchange(phase1: Phase1, suite: Phase1Suite, third: Message) -> Steps[None]:
    """Answer message 3; encryption begins with message 5."""
    exchange = key_exchange(phase1, suite, third)
    requests: tuple[Request, ...] = (exchange,)
    if encrypts(suite):
        requests = (disclosure(third, from_initiator=True), EncryptedIntroductionRequest(), exchange)
    responses = yield Ask(requests)
    keys = expect(responses, len(requests) - 1, IkeKeysResponse)
    payloads: tuple[Payload, ...] = (KeyExchange(data=keys.public_value),)
    if encrypts(suite):
        introduction = expect(responses, 1, EncryptedIntroductionResponse)
        payloads += encrypted_payloads(introduction.identification, introduction.nonce)
    else:
        payloads += (Nonce(data=keys.nonce),)
    detection = yield from phase1.nat_detection(suite)
    wanted = phase1.certificate_requests((suite.method,))
    yield Send(name="main mode 4", payloads=(*payloads, *wanted, *detection), repeat=Repeat.ON_REQUEST)
    values = PublicValues(initiator=third.one(KeyExchange).data, responder=keys.public_value)
    yield Encrypt(phase1_chain(suite, keys.keys, values))
