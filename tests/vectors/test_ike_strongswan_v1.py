"""IKEv1 as two strongSwan daemons spoke it: every message read and decrypted, every key and HASH derived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from tests.vectors.strongswan_ike import INITIATOR_ADDRESS, PSK, RECORDINGS, Recording

from locum.crypto.symmetric import AesCbcKey
from locum.ike import algorithms as alg
from locum.ike import keying1, proposals1
from locum.ike import payloads1 as p
from locum.ike.header import HEADER_LENGTH, parse_header
from locum.ike.nat import detection_hash
from locum.ike.policy import ChildPolicy, Phase1Policy
from locum.ike.protection import CbcChain
from locum.ike.registry import (
    VENDOR_ID_DPD,
    VENDOR_ID_FRAGMENTATION,
    VENDOR_ID_NAT_T,
    AuthenticationMethod1,
    EncapsulationMode,
    ExchangeType,
    Flags1,
    ProtocolId,
)
from locum.ike.suites import Nonces, Phase1Suite

MAIN = ("v1-main-psk", "v1-main-rsa-pfs")
AGGRESSIVE = "v1-aggressive-psk-sha1"
NAMES = (*MAIN, AGGRESSIVE)
P = TypeVar("P")

PHASE1 = Phase1Policy(
    methods=(AuthenticationMethod1.PRE_SHARED_KEY, AuthenticationMethod1.RSA_SIGNATURE),
    prfs=(alg.PRF_HMAC_SHA2_256, alg.PRF_HMAC_SHA1),
)


def of_kind(payloads: p.Payloads, kind: type[P]) -> list[P]:
    return [each for each in payloads.items if isinstance(each, kind)]


def one(payloads: p.Payloads, kind: type[P]) -> P:
    (found,) = of_kind(payloads, kind)
    return found


@dataclass
class Phase1:
    """Phase 1 of a recording, worked out from the messages and the shared secret alone."""

    suite: Phase1Suite
    skeyid: bytes
    keys: keying1.IsakmpKeys
    cookies: keying1.Cookies
    values: keying1.PublicValues
    sa: bytes
    #: every message in clear, in order, those of phase 2 and after it included
    opened: tuple[p.Payloads, ...]


def work_out(recording: Recording) -> Phase1:
    clear = [
        p.parse_payloads(parse_header(message).next_payload, message[HEADER_LENGTH:])
        for _, message in recording.messages
        if not parse_header(message).flags & Flags1.ENCRYPTION
    ]
    suite = proposals1.accept_phase1(
        one(clear[0], p.SecurityAssociation), one(clear[1], p.SecurityAssociation)
    ).suite
    values = [one(each, p.KeyExchange).data for each in clear if of_kind(each, p.KeyExchange)]
    nonces = [one(each, p.Nonce).data for each in clear if of_kind(each, p.Nonce)]
    header = parse_header(recording.message(1))
    cookies = keying1.Cookies(initiator=header.initiator_spi, responder=header.responder_spi)
    pair = Nonces(initiator=nonces[0], responder=nonces[1])
    secret = recording.secrets["shared_secret"]
    if suite.method is AuthenticationMethod1.PRE_SHARED_KEY:
        skeyid = keying1.skeyid_for_pre_shared_key(suite.prf, pair, PSK)
    else:
        skeyid = keying1.skeyid_for_signatures(suite.prf, pair, secret)
    public = keying1.PublicValues(initiator=values[0], responder=values[1])
    keys = keying1.isakmp_keys(suite.prf, skeyid, secret, cookies)
    opened = decrypt(recording, suite, keys, public)
    return Phase1(suite, skeyid, keys, cookies, public, clear[0].raw[0].body, opened)


def decrypt(
    recording: Recording, suite: Phase1Suite, keys: keying1.IsakmpKeys, values: keying1.PublicValues
) -> tuple[p.Payloads, ...]:
    """Open every message with the chain of its exchange: one for phase 1, one for each message id after it."""
    key = AesCbcKey(keying1.encryption_key(suite.prf, keys.e, suite.encryption))
    chains = {0: CbcChain(key, keying1.phase1_iv(suite.prf, values))}
    opened = []
    for _, message in recording.messages:
        header = parse_header(message)
        body = message[HEADER_LENGTH:]
        if not header.flags & Flags1.ENCRYPTION:
            opened.append(p.parse_payloads(header.next_payload, body))
            continue
        if header.message_id not in chains:
            iv = keying1.phase2_iv(suite.prf, chains[0].iv, header.message_id)
            chains[header.message_id] = CbcChain(key, iv)
        plaintext, chains[header.message_id] = chains[header.message_id].open(body)
        opened.append(p.parse_payloads(header.next_payload, plaintext, maximum_padding=p.MAX_PADDING))
    return tuple(opened)


def quick_mode(recording: Recording, phase1: Phase1) -> tuple[int, list[p.Payloads]]:
    headers = [parse_header(message) for _, message in recording.messages]
    found = [
        (header.message_id, payloads)
        for header, payloads in zip(headers, phase1.opened, strict=True)
        if header.exchange_type == ExchangeType.QUICK_MODE
    ]
    assert len(found) == 3
    return found[0][0], [payloads for _, payloads in found]


@pytest.mark.parametrize("name", NAMES)
def test_skeyid_and_its_children_are_those_that_were_logged(name: str) -> None:
    recording = RECORDINGS[name]
    phase1 = work_out(recording)
    assert phase1.skeyid == recording.secrets["SKEYID"]
    assert phase1.keys.d == recording.secrets["SKEYID_d"]
    assert phase1.keys.a == recording.secrets["SKEYID_a"]
    assert phase1.keys.e == recording.secrets["SKEYID_e"]
    assert (
        keying1.encryption_key(phase1.suite.prf, phase1.keys.e, phase1.suite.encryption) == recording.secrets["Ka"]
    )
    assert keying1.phase1_iv(phase1.suite.prf, phase1.values) == recording.secrets["IV"]


@pytest.mark.parametrize("name", NAMES)
def test_hash_i_and_hash_r_are_those_that_were_logged(name: str) -> None:
    recording = RECORDINGS[name]
    phase1 = work_out(recording)
    identities = [
        each.body for message in phase1.opened for each in of_kind(message, p.Identification) if each.id_type == 2
    ]
    ours, theirs = identities if name != AGGRESSIVE else (identities[0], identities[1])
    prf = phase1.suite.prf
    common = (phase1.values, phase1.cookies, phase1.sa)
    assert keying1.hash_i(prf, phase1.skeyid, *common, ours) == recording.secrets["HASH_I"]
    assert keying1.hash_r(prf, phase1.skeyid, *common, theirs) == recording.secrets["HASH_R"]


def test_the_hashes_of_a_pre_shared_key_are_those_that_were_sent() -> None:
    for name in ("v1-main-psk", AGGRESSIVE):
        recording = RECORDINGS[name]
        hashes = [
            each.data
            for (_, message), payloads in zip(recording.messages, work_out(recording).opened, strict=True)
            for each in of_kind(payloads, p.Hash)
            if parse_header(message).message_id == 0
        ]
        assert set(hashes) == {recording.secrets["HASH_I"], recording.secrets["HASH_R"]}


def test_the_rsa_signatures_are_over_hash_i_and_hash_r() -> None:
    recording = RECORDINGS["v1-main-rsa-pfs"]
    opened = work_out(recording).opened
    for payloads, name in zip(opened[4:6], ("HASH_I", "HASH_R"), strict=True):
        key = x509.load_der_x509_certificate(one(payloads, p.Certificate).data).public_key()
        assert isinstance(key, RSAPublicKey)
        numbers = key.public_numbers()
        signature = int.from_bytes(one(payloads, p.Signature).data, "big")
        block = pow(signature, numbers.e, numbers.n).to_bytes(256, "big")
        assert block == b"\0\1" + b"\xff" * 221 + b"\0" + recording.secrets[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_hashes_of_quick_mode_are_those_that_were_sent(name: str) -> None:
    recording = RECORDINGS[name]
    phase1 = work_out(recording)
    prf, key = phase1.suite.prf, phase1.keys.a
    message_id, (first, second, third) = quick_mode(recording, phase1)
    nonces = Nonces(initiator=one(first, p.Nonce).data, responder=one(second, p.Nonce).data)
    hash_1 = keying1.hash_1(prf, key, message_id, first.after_first())
    hash_2 = keying1.hash_2(prf, key, message_id, nonces.initiator, second.after_first())
    hash_3 = keying1.hash_3(prf, key, message_id, nonces)
    assert one(first, p.Hash).data == hash_1 == recording.secrets["HASH(1)"]
    assert one(second, p.Hash).data == hash_2 == recording.secrets["HASH(2)"]
    assert one(third, p.Hash).data == hash_3 == recording.secrets["HASH(3)"]


@pytest.mark.parametrize("name", NAMES)
def test_keymat_is_what_was_logged(name: str) -> None:
    recording = RECORDINGS[name]
    phase1 = work_out(recording)
    _, (first, second, _) = quick_mode(recording, phase1)
    offer, answer = one(first, p.SecurityAssociation), one(second, p.SecurityAssociation)
    accepted = proposals1.accept_phase2(offer, answer)
    assert accepted.suite.mode is EncapsulationMode.UDP_TUNNEL
    keys = keying1.child_keys(
        phase1.suite.prf,
        phase1.keys.d,
        accepted.suite,
        (offer.proposals[0].spi, accepted.peer_spi),
        Nonces(initiator=one(first, p.Nonce).data, responder=one(second, p.Nonce).data),
        recording.secrets.get("quick_mode_secret", b""),
    )
    assert keys.initiator.encryption == recording.secrets["ENCR_i"]
    assert keys.responder.encryption == recording.secrets["ENCR_r"]
    assert keys.initiator.integrity == recording.secrets.get("INTEG_i", b"")
    assert keys.responder.integrity == recording.secrets.get("INTEG_r", b"")


@pytest.mark.parametrize("name", NAMES)
def test_our_responder_would_have_chosen_what_theirs_did(name: str) -> None:
    recording = RECORDINGS[name]
    phase1 = work_out(recording)
    offer, answer = (one(each, p.SecurityAssociation) for each in phase1.opened[:2])
    assert proposals1.choose_phase1(PHASE1, offer).answer == answer
    _, (first, second, _) = quick_mode(recording, phase1)
    offer, answer = one(first, p.SecurityAssociation), one(second, p.SecurityAssociation)
    policy = ChildPolicy(groups=(None, alg.ECP_256), modes=(EncapsulationMode.UDP_TUNNEL,))
    choice = proposals1.choose_phase2(policy, offer, spi=answer.proposals[0].spi)
    assert choice.answer == answer
    assert choice.peer_spi == offer.proposals[0].spi


@pytest.mark.parametrize("name", NAMES)
def test_every_payload_is_written_as_it_came(name: str) -> None:
    recording = RECORDINGS[name]
    for (_, message), payloads in zip(recording.messages, work_out(recording).opened, strict=True):
        assert p.write_payloads(payloads.items) == (parse_header(message).next_payload, payloads.chain)


@pytest.mark.parametrize("name", NAMES)
def test_the_session_ends_with_the_deletion_of_both_sas(name: str) -> None:
    recording = RECORDINGS[name]
    phase1 = work_out(recording)
    headers = [parse_header(message) for _, message in recording.messages]
    deletions = []
    for header, payloads in zip(headers, phase1.opened, strict=True):
        if header.exchange_type == ExchangeType.INFORMATIONAL_1:
            due = keying1.hash_1(phase1.suite.prf, phase1.keys.a, header.message_id, payloads.after_first())
            assert one(payloads, p.Hash).data == due
            deletions.append(one(payloads, p.Delete))
    assert [each.protocol for each in deletions] == [ProtocolId.ESP, ProtocolId.IKE]
    assert deletions[1].spis == (phase1.cookies.both,)


def test_nat_d_and_the_vendor_ids_are_those_that_were_sent() -> None:
    recording = RECORDINGS["v1-main-psk"]
    phase1 = work_out(recording)
    header = parse_header(recording.message(3))
    hashes = [each.data for each in of_kind(phase1.opened[3], p.NatDetection)]
    assert hashes[0] == detection_hash(header, INITIATOR_ADDRESS, 500, phase1.suite.prf.hash)
    ids = [each.data for each in of_kind(phase1.opened[0], p.VendorId)]
    assert VENDOR_ID_NAT_T in ids
    assert VENDOR_ID_DPD in ids
    assert any(each.startswith(VENDOR_ID_FRAGMENTATION) for each in ids)
