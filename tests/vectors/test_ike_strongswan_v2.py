"""IKEv2 as two strongSwan daemons spoke it: every message read, every key and AUTH derived, every SK opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from tests.vectors.strongswan_ike import INITIATOR_ADDRESS, PSK, RECORDINGS, RESPONDER_ADDRESS, Recording

from locum.ike import keying2, proposals2
from locum.ike import payloads2 as p
from locum.ike.header import HEADER_LENGTH, Header, parse_header
from locum.ike.nat import detection_hash
from locum.ike.policy import ChildPolicy, IkePolicy
from locum.ike.protection import Protection, parse_message, protection, seal_message
from locum.ike.registry import ExchangeType, Flags2, NotifyType2, ProtocolId
from locum.ike.suites import IkeSuite, Nonces

NAMES = [name for name in RECORDINGS if name.startswith("v2")]
P = TypeVar("P")


def clear_payloads(message: bytes) -> tuple[Header, tuple[p.Payload, ...]]:
    header = parse_header(message)
    return header, p.parse_payloads(header.next_payload, message[HEADER_LENGTH:])


def one(payloads: tuple[p.Payload, ...], kind: type[P]) -> P:
    (found,) = (each for each in payloads if isinstance(each, kind))
    return found


@dataclass
class Agreed:
    """What IKE_SA_INIT of a recording agrees on, worked out from the messages and the shared secret alone."""

    suite: IkeSuite
    nonces: Nonces
    keys: keying2.IkeKeys
    initiator: Protection
    responder: Protection

    def open(self, sender: str, message: bytes) -> tuple[p.Payload, ...]:
        sealed = parse_message(parse_header(message), message)
        assert isinstance(sealed.encrypted, p.Encrypted)
        key = self.initiator if sender == "initiator" else self.responder
        return p.parse_payloads(sealed.encrypted.first, sealed.open(key))


def agree(recording: Recording) -> Agreed:
    _, init = clear_payloads(recording.message(0))
    header, answer = clear_payloads(recording.message(1))
    choice = proposals2.accept_ike(one(init, p.SecurityAssociation), one(answer, p.SecurityAssociation))
    nonces = Nonces(initiator=one(init, p.Nonce).data, responder=one(answer, p.Nonce).data)
    prf = choice.suite.prf
    seed = keying2.skeyseed(prf, nonces, recording.secrets["shared_secret"])
    assert seed == recording.secrets["SKEYSEED"]
    keys = keying2.ike_keys(choice.suite, seed, nonces, header.initiator_spi, header.responder_spi)

    def random(length: int) -> bytes:
        return bytes(length)

    return Agreed(
        choice.suite,
        nonces,
        keys,
        protection(choice.suite, keys.sk_ei, keys.sk_ai, random),
        protection(choice.suite, keys.sk_er, keys.sk_ar, random),
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_keys_of_the_ike_sa_are_those_that_were_logged(name: str) -> None:
    recording = RECORDINGS[name]
    keys = agree(recording).keys
    for field in ("sk_d", "sk_ei", "sk_er", "sk_pi", "sk_pr"):
        assert getattr(keys, field) == recording.secrets["SK_" + field[3:]], field
    assert keys.sk_ai == recording.secrets.get("SK_ai", b"")
    assert keys.sk_ar == recording.secrets.get("SK_ar", b"")


@pytest.mark.parametrize("name", NAMES)
def test_our_responder_would_have_chosen_what_theirs_did(name: str) -> None:
    recording = RECORDINGS[name]
    _, init = clear_payloads(recording.message(0))
    _, answer = clear_payloads(recording.message(1))
    group = one(init, p.KeyExchange).group
    choice = proposals2.choose_ike(IkePolicy(), one(init, p.SecurityAssociation), preferred_group=group)
    theirs = one(answer, p.SecurityAssociation).proposals[0]
    assert choice.proposal.number == theirs.number
    assert set(choice.proposal.transforms) == set(theirs.transforms)


@pytest.mark.parametrize("name", NAMES)
def test_both_auth_payloads_are_those_that_were_sent(name: str) -> None:
    recording = RECORDINGS[name]
    agreed = agree(recording)
    prf, keys = agreed.suite.prf, agreed.keys
    request = agreed.open(*recording.messages[2])
    reply = agreed.open(*recording.messages[3])

    identity = one(request, p.IdentificationInitiator)
    assert (identity.id_type, identity.data) == (2, b"a.test")
    octets = keying2.signed_octets(prf, recording.message(0), agreed.nonces.responder, keys.sk_pi, identity.body)
    assert one(request, p.Authentication).data == keying2.shared_key_auth(prf, PSK, octets)

    identity_r = one(reply, p.IdentificationResponder)
    octets = keying2.signed_octets(prf, recording.message(1), agreed.nonces.initiator, keys.sk_pr, identity_r.body)
    assert one(reply, p.Authentication).data == keying2.shared_key_auth(prf, PSK, octets)


@pytest.mark.parametrize("name", NAMES)
def test_the_keys_of_the_child_sa_are_those_that_were_logged(name: str) -> None:
    recording = RECORDINGS[name]
    agreed = agree(recording)
    offer = one(agreed.open(*recording.messages[2]), p.SecurityAssociation)
    answer = one(agreed.open(*recording.messages[3]), p.SecurityAssociation)
    choice = proposals2.accept_child(offer, answer)
    keys = keying2.child_keys(agreed.suite.prf, choice.suite, agreed.keys.sk_d, agreed.nonces)
    assert keys.initiator.encryption == recording.secrets["ENCR_i"]
    assert keys.responder.encryption == recording.secrets["ENCR_r"]
    assert keys.initiator.integrity == recording.secrets.get("INTEG_i", b"")
    assert keys.responder.integrity == recording.secrets.get("INTEG_r", b"")
    ours = proposals2.choose_child(ChildPolicy(), offer, spi=bytes(4), first=True)
    assert ours.suite == choice.suite


@pytest.mark.parametrize("name", NAMES)
def test_the_delete_at_the_end_and_its_answer_open(name: str) -> None:
    recording = RECORDINGS[name]
    agreed = agree(recording)
    sender, request = recording.messages[4]
    header = parse_header(request)
    assert header.exchange_type == ExchangeType.INFORMATIONAL
    assert not header.flags & Flags2.RESPONSE
    assert one(agreed.open(sender, request), p.Delete) == p.Delete(protocol=ProtocolId.IKE)
    sender, answer = recording.messages[5]
    assert parse_header(answer).flags & Flags2.RESPONSE
    assert agreed.open(sender, answer) == ()


@pytest.mark.parametrize("name", NAMES)
def test_every_payload_is_written_as_it_came(name: str) -> None:
    recording = RECORDINGS[name]
    agreed = agree(recording)
    for sender, message in recording.messages:
        header = parse_header(message)
        if header.exchange_type == ExchangeType.IKE_SA_INIT:
            chain: Any = message[HEADER_LENGTH:]
            first = header.next_payload
        else:
            sealed = parse_message(header, message)
            assert sealed.encrypted is not None
            first = sealed.encrypted.first
            chain = sealed.open(agreed.initiator if sender == "initiator" else agreed.responder)
        assert p.write_payloads(p.parse_payloads(first, chain)) == (first, chain)


@pytest.mark.parametrize("name", NAMES)
def test_what_we_seal_is_as_long_as_what_they_sealed_and_opens(name: str) -> None:
    recording = RECORDINGS[name]
    agreed = agree(recording)
    sender, message = recording.messages[2]
    sealed = parse_message(parse_header(message), message)
    assert sealed.encrypted is not None
    chain = sealed.open(agreed.initiator)
    ours = seal_message(agreed.initiator, sealed.header, sealed.encrypted.first, chain)
    assert ours[: HEADER_LENGTH + 4] == message[: HEADER_LENGTH + 4]
    assert len(ours) == len(message)
    assert agreed.open(sender, ours) == agreed.open(sender, message)


@pytest.mark.parametrize("name", NAMES)
def test_nat_detection_hashes_are_those_that_were_sent(name: str) -> None:
    recording = RECORDINGS[name]
    header, answer = clear_payloads(recording.message(1))
    sent = {each.notify_type: each.data for each in answer if isinstance(each, p.Notify)}
    assert sent[NotifyType2.NAT_DETECTION_DESTINATION_IP] == detection_hash(header, INITIATOR_ADDRESS, 500)
    # kernel-libipsec pretends that there is a NAT in front of its own address.
    assert sent[NotifyType2.NAT_DETECTION_SOURCE_IP] != detection_hash(header, RESPONDER_ADDRESS, 500)
