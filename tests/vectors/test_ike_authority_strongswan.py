"""An authority in the place of either strongSwan daemon: it accepts the other's proof and makes the same one.

The recorded exchanges are those of `strongswan_ike`; the private value and the nonce of the end that is replaced
are the only things handed to the authority from outside, through the functions that would have made them up.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.exchange import ALLOW_ALL
from tests.vectors.strongswan_ike import PSK, RECORDINGS, Recording
from tests.vectors.test_ike_strongswan_v1 import of_kind, work_out
from tests.vectors.test_ike_strongswan_v1 import one as one1
from tests.vectors.test_ike_strongswan_v2 import agree, clear_payloads
from tests.vectors.test_ike_strongswan_v2 import one as one2

from locum.authority import ike_key_exchange
from locum.authority.databases import SharedSecret, TrustMaterial
from locum.authority.ike_signatures import verify1
from locum.authority.local import IkeOptions, LocalAuthority
from locum.crypto.asymmetric.certificates import describe, parse_chain
from locum.handshake import PeerChain, Verdict
from locum.ike import algorithms as alg
from locum.ike import payloads1, payloads2
from locum.ike.algorithms import Group
from locum.ike.header import parse_header
from locum.ike.operations import (
    Exchange,
    IkeAuthenticateRequest,
    IkeKeysResponse,
    IkeStartRequest,
    IkeStartResponse,
    IntroduceRequest,
    KeyExchangeRequest,
    ProveRequest,
    ProveResponse,
    PublicValueRequest,
    PublicValueResponse,
    SaKeysRequest,
    SaKeysResponse,
)
from locum.ike.policy import Phase1Policy
from locum.ike.registry import AuthenticationMethod1, AuthenticationMethod2
from locum.wire.cursor import Writer

TERMINAL = "meter"
A, B = "dns:a.test", "dns:b.test"


def authority(own: str, peer: str, nonce: bytes = b"", **options: Any) -> LocalAuthority:
    return LocalAuthority(
        trust=TrustMaterial(),
        policy=ALLOW_ALL,
        secrets=(SharedSecret(terminal=TERMINAL, peer=peer, secret=PSK, local_identity=own),),
        now=lambda: 0.0,
        random=lambda _: nonce,
        **options,
    )


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a key exchange come out as recorded: with this public value of ours, and this secret."""

    def prepare(value: bytes, secret: bytes) -> None:
        class Recorded:
            def __init__(self, group: Group) -> None:
                self.group, self.public_value = group, value

            def complete(self, peer_value: bytes) -> bytes:
                return secret

            def discard(self) -> None:
                pass

        for module in ("ike1_session", "ike2_session"):
            monkeypatch.setattr(f"locum.authority.{module}.KeyExchange", Recorded)
        monkeypatch.setattr(ike_key_exchange, "respond", lambda group, peer_value: (value, secret))

    return prepare


def body_of(payload: Any) -> bytes:
    writer = Writer()
    payload.write(writer)
    return writer.getvalue()


# --- IKEv2 ------------------------------------------------------------------------------------------------


def _v2(name: str, index: int) -> tuple[Recording, Any, Any, Any]:
    recording = RECORDINGS[name]
    header, payloads = clear_payloads(recording.message(index))
    return recording, header, one2(payloads, payloads2.KeyExchange), one2(payloads, payloads2.Nonce)


V2 = pytest.mark.parametrize("name", [name for name in RECORDINGS if name.startswith("v2")])


@V2
def test_authority_as_responder_of_ikev2_makes_the_recorded_auth(name: str, replay: Any) -> None:
    recording, _, value_i, nonce_i = _v2(name, 0)
    _, header, value_r, nonce_r = _v2(name, 1)
    agreed = agree(recording)
    request, reply = (agreed.open(*recording.messages[index]) for index in (2, 3))
    replay(value_r.data, recording.secrets["shared_secret"])
    _, init = clear_payloads(recording.message(0))
    session = authority(B, A).open(TERMINAL)
    start, keys = session.perform(
        [
            IkeStartRequest(
                exchange=Exchange.IKE_2,
                initiator=False,
                sa=body_of(one2(init, payloads2.SecurityAssociation)),
                group=value_i.group,
                peer_address="10.99.0.1",
            ),
            KeyExchangeRequest(
                group=value_i.group,
                public_value=value_i.data,
                initiator_spi=header.initiator_spi,
                responder_spi=header.responder_spi,
                peer_nonce=nonce_i.data,
                own_nonce=nonce_r.data,
            ),
        ]
    )
    assert isinstance(start, IkeStartResponse)
    assert isinstance(keys, IkeKeysResponse)
    logged = recording.secrets
    assert keys.keys == b"".join(logged.get(each, b"") for each in ("SK_ai", "SK_ar", "SK_ei", "SK_er"))
    shown = one2(request, payloads2.IdentificationInitiator)
    auth = one2(request, payloads2.Authentication)
    verdict, proof, last = session.perform(
        [
            IkeAuthenticateRequest(
                chain=PeerChain(()),
                identification=shown.body,
                method=auth.method,
                proof=auth.data,
                message=recording.message(0),
            ),
            ProveRequest(message=recording.message(1), hashes=(2, 3, 4, 5)),
            SaKeysRequest(),
        ]
    )
    assert isinstance(verdict, Verdict)
    assert verdict == Verdict(authentic=True, allowed=True, identity=A)
    assert isinstance(proof, ProveResponse)
    assert proof.method == AuthenticationMethod2.SHARED_KEY
    assert proof.identification == one2(reply, payloads2.IdentificationResponder).body
    assert proof.proof == one2(reply, payloads2.Authentication).data == logged["AUTH_r"]
    assert isinstance(last, SaKeysResponse)
    assert last.keys == logged["SK_d"]


@V2
def test_authority_as_initiator_of_ikev2_makes_the_recorded_auth(name: str, replay: Any) -> None:
    recording, _, value_i, nonce_i = _v2(name, 0)
    _, header, value_r, nonce_r = _v2(name, 1)
    agreed = agree(recording)
    request, reply = (agreed.open(*recording.messages[index]) for index in (2, 3))
    replay(value_i.data, recording.secrets["shared_secret"])
    (_, init), (_, answer) = (clear_payloads(recording.message(index)) for index in (0, 1))
    session = authority(A, B).open(TERMINAL)
    _, value = session.perform(
        [
            IkeStartRequest(
                exchange=Exchange.IKE_2,
                initiator=True,
                sa=body_of(one2(init, payloads2.SecurityAssociation)),
                peer_address="10.99.0.2",
                remote_identity=B,
            ),
            PublicValueRequest(group=value_i.group),
        ]
    )
    assert isinstance(value, PublicValueResponse)
    assert value.public_value == value_i.data
    _, proof = session.perform(
        [
            KeyExchangeRequest(
                group=value_r.group,
                public_value=value_r.data,
                initiator_spi=header.initiator_spi,
                responder_spi=header.responder_spi,
                peer_nonce=nonce_r.data,
                own_nonce=nonce_i.data,
                sa=body_of(one2(answer, payloads2.SecurityAssociation)),
            ),
            ProveRequest(message=recording.message(0)),
        ]
    )
    assert isinstance(proof, ProveResponse)
    assert proof.proof == one2(request, payloads2.Authentication).data == recording.secrets["AUTH_i"]
    auth = one2(reply, payloads2.Authentication)
    verdict, last = session.perform(
        [
            IkeAuthenticateRequest(
                chain=PeerChain(()),
                identification=one2(reply, payloads2.IdentificationResponder).body,
                method=auth.method,
                proof=auth.data,
                message=recording.message(1),
            ),
            SaKeysRequest(),
        ]
    )
    assert verdict == Verdict(authentic=True, allowed=True, identity=B)
    assert isinstance(last, SaKeysResponse)
    assert last.keys == recording.secrets["SK_d"]


# --- IKEv1 ------------------------------------------------------------------------------------------------


class Recorded1:
    """What both ends said in phase 1 of a recording."""

    def __init__(self, name: str) -> None:
        recording = RECORDINGS[name]
        self.secrets = recording.secrets
        self.phase1 = work_out(recording)
        opened = self.phase1.opened
        self.offer = opened[0].raw[0].body
        self.answer = opened[1].raw[0].body
        nonces = [one1(each, payloads1.Nonce).data for each in opened if of_kind(each, payloads1.Nonce)]
        self.nonce_i, self.nonce_r = nonces[:2]
        shown = [each.body for message in opened for each in of_kind(message, payloads1.Identification)]
        self.id_i, self.id_r = shown[:2]
        self.header = parse_header(recording.message(1))

    def keys(self, *, initiator: bool, sa: bytes = b"") -> KeyExchangeRequest:
        values = self.phase1.values
        return KeyExchangeRequest(
            group=self.phase1.suite.group.id,
            public_value=values.responder if initiator else values.initiator,
            initiator_spi=self.header.initiator_spi,
            responder_spi=self.header.responder_spi,
            peer_nonce=self.nonce_r if initiator else self.nonce_i,
            sa=sa,
        )

    def authenticate(self, *, of_initiator: bool) -> IkeAuthenticateRequest:
        return IkeAuthenticateRequest(
            chain=PeerChain(()),
            identification=self.id_i if of_initiator else self.id_r,
            method=AuthenticationMethod1.PRE_SHARED_KEY,
            proof=self.secrets["HASH_I" if of_initiator else "HASH_R"],
        )

    @property
    def all_keys(self) -> bytes:
        return self.secrets["SKEYID_d"] + self.secrets["SKEYID_a"] + self.secrets["SKEYID_e"]


def legacy(group: Group) -> IkeOptions:
    return IkeOptions(
        phase1=Phase1Policy(
            methods=tuple(AuthenticationMethod1),
            prfs=(alg.PRF_HMAC_SHA2_256, alg.PRF_HMAC_SHA1),
            groups=(group,),
        )
    )


def test_authority_as_responder_of_main_mode_makes_the_recorded_hash(replay: Any) -> None:
    recorded = Recorded1("v1-main-psk")
    replay(recorded.phase1.values.responder, recorded.secrets["shared_secret"])
    options = legacy(recorded.phase1.suite.group)
    session = authority(B, A, recorded.nonce_r, ike_options=options).open(TERMINAL)
    start = IkeStartRequest(exchange=Exchange.MAIN, initiator=False, sa=recorded.offer, peer_address="10.99.0.1")
    (chosen,) = session.perform([start])
    assert isinstance(chosen, IkeStartResponse)
    assert (chosen.sa or recorded.offer) == recorded.answer
    (keys,) = session.perform([recorded.keys(initiator=False)])
    assert isinstance(keys, IkeKeysResponse)
    assert keys.keys == recorded.secrets["SKEYID_e"]
    assert keys.nonce == recorded.nonce_r
    verdict, proof = session.perform([recorded.authenticate(of_initiator=True), ProveRequest()])
    assert verdict == Verdict(authentic=True, allowed=True, identity=A)
    assert isinstance(proof, ProveResponse)
    assert (proof.identification, proof.proof) == (recorded.id_r, recorded.secrets["HASH_R"])
    (last,) = session.perform([SaKeysRequest()])
    assert isinstance(last, SaKeysResponse)
    assert last.keys == recorded.all_keys


def test_authority_as_initiator_of_main_mode_makes_the_recorded_hash(replay: Any) -> None:
    recorded = Recorded1("v1-main-psk")
    replay(recorded.phase1.values.initiator, recorded.secrets["shared_secret"])
    options = legacy(recorded.phase1.suite.group)
    session = authority(A, B, recorded.nonce_i, ike_options=options).open(TERMINAL)
    start = IkeStartRequest(exchange=Exchange.MAIN, initiator=True, sa=recorded.offer, remote_identity=B)
    session.perform([start])
    (value,) = session.perform([PublicValueRequest(group=recorded.phase1.suite.group.id, sa=recorded.answer)])
    assert isinstance(value, PublicValueResponse)
    assert value.nonce == recorded.nonce_i
    keys, proof = session.perform([recorded.keys(initiator=True), ProveRequest()])
    assert isinstance(keys, IkeKeysResponse)
    assert keys.keys == recorded.secrets["SKEYID_e"]
    assert isinstance(proof, ProveResponse)
    assert proof.proof == recorded.secrets["HASH_I"]
    verdict, last = session.perform([recorded.authenticate(of_initiator=False), SaKeysRequest()])
    assert verdict == Verdict(authentic=True, allowed=True, identity=B)
    assert isinstance(last, SaKeysResponse)
    assert last.keys == recorded.all_keys


def test_authority_as_responder_of_aggressive_mode_makes_the_recorded_hash(replay: Any) -> None:
    recorded = Recorded1("v1-aggressive-psk-sha1")
    replay(recorded.phase1.values.responder, recorded.secrets["shared_secret"])
    group = recorded.phase1.suite.group
    session = authority(B, A, recorded.nonce_r, ike_options=legacy(group)).open(TERMINAL)
    start = IkeStartRequest(exchange=Exchange.AGGRESSIVE, initiator=False, sa=recorded.offer, group=group.id)
    _, keys, proof = session.perform(
        [start, recorded.keys(initiator=False), ProveRequest(remote_identification=recorded.id_i)]
    )
    assert isinstance(keys, IkeKeysResponse)
    assert keys.keys == recorded.secrets["SKEYID_e"]
    assert isinstance(proof, ProveResponse)
    assert proof.proof == recorded.secrets["HASH_R"]
    verdict, last = session.perform([recorded.authenticate(of_initiator=True), SaKeysRequest()])
    assert verdict == Verdict(authentic=True, allowed=True, identity=A)
    assert isinstance(last, SaKeysResponse)
    assert last.keys == recorded.all_keys


def test_authority_as_initiator_of_aggressive_mode_makes_the_recorded_hash(replay: Any) -> None:
    recorded = Recorded1("v1-aggressive-psk-sha1")
    replay(recorded.phase1.values.initiator, recorded.secrets["shared_secret"])
    group = recorded.phase1.suite.group
    session = authority(A, B, recorded.nonce_i, ike_options=legacy(group)).open(TERMINAL)
    start = IkeStartRequest(exchange=Exchange.AGGRESSIVE, initiator=True, sa=recorded.offer, remote_identity=B)
    session.perform([start, PublicValueRequest(group=group.id), IntroduceRequest()])
    _, verdict, proof, last = session.perform(
        [
            recorded.keys(initiator=True, sa=recorded.answer),
            recorded.authenticate(of_initiator=False),
            ProveRequest(remote_identification=recorded.id_r),
            SaKeysRequest(),
        ]
    )
    assert verdict == Verdict(authentic=True, allowed=True, identity=B)
    assert isinstance(proof, ProveResponse)
    assert proof.proof == recorded.secrets["HASH_I"]
    assert isinstance(last, SaKeysResponse)
    assert last.keys == recorded.all_keys


def test_recorded_rsa_signatures_of_main_mode_are_accepted() -> None:
    recorded = Recorded1("v1-main-rsa-pfs")
    suite = recorded.phase1.suite
    for payloads, name in zip(recorded.phase1.opened[4:6], ("HASH_I", "HASH_R"), strict=True):
        (leaf,) = parse_chain([one1(payloads, payloads1.Certificate).data])
        signature = one1(payloads, payloads1.Signature).data
        verify1(suite.method, suite.prf, describe(leaf).key, signature, recorded.secrets[name])
