"""IKEv2 by operations: two authorities agree on keys by every method, and nothing is given out of turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support import pki
from tests.support.ike_authority import (
    LEFT,
    LEFT_ADDRESS,
    LEFT_NAME,
    NONCE_I,
    NONCE_R,
    RIGHT,
    RIGHT_ADDRESS,
    RIGHT_NAME,
    SECRET,
    SPI_I,
    SPI_R,
    Play2,
    authority,
    body_of,
    certificate_pair,
    identity,
    init_message,
    psk_pair,
    start2,
)

from locum.authority.databases import Action, PinnedKey, PolicyRule, PostquantumSecret, SharedSecret, TrustMaterial
from locum.authority.ike_key_exchange import PERFORMED
from locum.authority.local import IkeOptions, LocalAuthority
from locum.errors import DecodeError, Incompatible, LocumError, Misbehaved, Refused
from locum.handshake import Fault, PeerChain, Request, Verdict
from locum.ike import algorithms as alg
from locum.ike.algorithms import Group
from locum.ike.errors import AlteredProposal, NoProposalChosen
from locum.ike.operations import (
    AdditionalKeyExchangeRequest,
    Exchange,
    IkeKeysResponse,
    IkeStartRequest,
    IkeStartResponse,
    IntroduceRequest,
    KeyExchangeRequest,
    ProveRequest,
    ProveResponse,
    PublicValueRequest,
    SaKeysRequest,
    SaKeysResponse,
)
from locum.ike.payloads2 import SecurityAssociation
from locum.ike.policy import IkePolicy
from locum.ike.proposals2 import offer_ike
from locum.ike.registry import AuthenticationMethod2, ExchangeType, Flags2, SignatureHash, Version
from locum.wire.cursor import Reader

FIRST_GROUPS = sorted((group for group in PERFORMED if not group.additional_only), key=lambda group: group.id)
TWO_MORE = IkePolicy(groups=(alg.CURVE25519,), additional=((alg.ML_KEM_768,), (alg.ECP_384,), (alg.ML_KEM_1024,)))


def certified(pair: tuple[LocalAuthority, LocalAuthority], **options: Any) -> Play2:
    return Play2(*pair, remote_identity=f"dns:{RIGHT_NAME}", **options)


# --- agreement --------------------------------------------------------------------------------------------


def test_pre_shared_key_authenticates_both_ends() -> None:
    result = Play2(*psk_pair()).run()
    assert result.agreed
    assert result.method == AuthenticationMethod2.SHARED_KEY
    assert result.by_responder.identity == f"dns:{LEFT}"
    assert result.by_initiator is not None
    assert result.by_initiator.identity == f"dns:{RIGHT}"
    assert len(result.initiator_keys) == 32


@pytest.mark.parametrize("group", FIRST_GROUPS, ids=str)
def test_every_group_makes_the_same_keys_at_both_ends(group: Group) -> None:
    play = Play2(*psk_pair(), policy=IkePolicy(groups=(group,)))
    assert play.run().agreed
    assert play.protection[0][0] == play.protection[0][1]
    assert len(play.value_i) == len(play.value_r) == group.initiator_length


@pytest.mark.parametrize(
    ("suite", "length"),
    [
        pytest.param({"encryptions": (alg.ENCR_AES_GCM_16_256,)}, 2 * 36, id="aead"),
        pytest.param({"encryptions": (alg.ENCR_CHACHA20_POLY1305,)}, 2 * 36, id="chacha"),
        pytest.param(
            {"encryptions": (alg.ENCR_AES_CBC_128,), "integrities": (alg.AUTH_HMAC_SHA2_384_192,)},
            2 * (16 + 48),
            id="cbc",
        ),
    ],
)
def test_protection_keys_have_the_lengths_of_the_suite(suite: dict[str, Any], length: int) -> None:
    play = Play2(*psk_pair(), policy=IkePolicy(prfs=(alg.PRF_HMAC_SHA2_512,), **suite))
    result = play.run()
    assert result.agreed
    assert len(play.protection[0][0]) == length
    assert len(result.initiator_keys) == 64


@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521", "ed25519", "ed448"])
def test_every_kind_of_key_signs_with_rfc_7427(kind: str) -> None:
    result = certified(certificate_pair(kind)).run()
    assert result.agreed
    assert result.method == AuthenticationMethod2.DIGITAL_SIGNATURE
    assert result.by_responder.identity == f"dns:{LEFT_NAME}"


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("p256", AuthenticationMethod2.ECDSA_256),
        ("p384", AuthenticationMethod2.ECDSA_384),
        ("p521", AuthenticationMethod2.ECDSA_521),
    ],
)
@pytest.mark.parametrize("hashes", [(), (SignatureHash.SHA1,)], ids=["none", "sha1"])
def test_peer_without_a_common_hash_gets_the_methods_of_rfc_4754(
    kind: str, method: AuthenticationMethod2, hashes: tuple[int, ...]
) -> None:
    result = certified(certificate_pair(kind), hashes=hashes).run()
    assert result.agreed
    assert result.method == method


def test_rsa_with_sha1_is_made_and_accepted_only_where_it_is_allowed() -> None:
    allowed = certificate_pair("rsa", ike_options=IkeOptions(legacy_sha1=True))
    result = certified(allowed, hashes=()).run()
    assert result.agreed
    assert result.method == AuthenticationMethod2.RSA_SIGNATURE

    with pytest.raises(Refused, match="neither a fitting identity"):
        certified(certificate_pair("rsa"), hashes=()).run()

    strict = certificate_pair("rsa")[1]
    result = certified((allowed[0], strict), hashes=()).run()
    assert not result.by_responder.authentic
    assert result.by_responder.fault is Fault.UNSUPPORTED
    assert "SHA-1" in result.by_responder.reason


@pytest.mark.parametrize("pss", [True, False], ids=["pss", "pkcs1"])
@pytest.mark.parametrize("algorithm", [SignatureHash.SHA2_256, SignatureHash.SHA2_384, SignatureHash.SHA2_512])
def test_both_rsa_signatures_are_made_and_accepted(pss: bool, algorithm: SignatureHash) -> None:
    play = certified(certificate_pair("rsa", ike_options=IkeOptions(rsa_pss=pss)), hashes=(algorithm,))
    play.init()
    proof = play.prove_initiator()
    assert (bytes.fromhex("06092a864886f70d01010a") in proof.proof[:80]) is pss
    assert len(play.answer(proof)) == 3


def test_eddsa_needs_the_identity_hash() -> None:
    hashes = (SignatureHash.SHA2_256, SignatureHash.SHA2_512)
    with pytest.raises(Refused, match="neither a fitting identity"):
        certified(certificate_pair("ed25519"), hashes=hashes).run()


def test_ends_may_prove_themselves_differently() -> None:
    left = authority(
        secrets=(SharedSecret(terminal=LEFT, peer=f"dns:{RIGHT_NAME}", secret=SECRET),),
    )
    right = authority(
        secrets=(SharedSecret(terminal=RIGHT, peer=f"dns:{LEFT}", secret=SECRET),),
        identities=(identity(RIGHT_NAME),),
    )
    play = certified((left, right))
    play.init()
    answer = play.answer(play.prove_initiator())
    assert isinstance(answer[1], ProveResponse)
    # The peer proved itself by a shared key, and so do we; by certificate it would have been by certificate.
    assert answer[1].method == AuthenticationMethod2.SHARED_KEY


def test_responder_answers_a_certificate_with_a_certificate() -> None:
    left, _ = certificate_pair()
    right = authority(
        secrets=(SharedSecret(terminal=RIGHT, peer=f"dns:{LEFT_NAME}", secret=SECRET),),
        identities=(identity(RIGHT_NAME),),
    )
    assert certified((left, right)).run().method == AuthenticationMethod2.DIGITAL_SIGNATURE


def test_additional_key_exchanges_change_all_keys_and_are_authenticated() -> None:
    play = Play2(*psk_pair(), policy=TWO_MORE)
    assert play.run().agreed
    assert [ours == theirs for ours, theirs in play.protection] == [True] * 4
    assert len({ours for ours, _ in play.protection}) == 4


@pytest.mark.parametrize("index", range(6))
def test_altered_intermediate_message_is_noticed(index: int) -> None:
    play = Play2(*psk_pair(), policy=TWO_MORE)
    play.init()
    for slot in play.policy.additional:
        assert slot[0] is not None
        play.additional(slot[0])
    proof = play.prove_initiator()
    play.intermediate[index] += b"\0"
    (verdict,) = play.answer(proof)
    assert isinstance(verdict, Verdict)
    assert verdict.fault is Fault.BAD_SIGNATURE


def test_authority_can_keep_sk_d_and_derive_the_child_keys() -> None:
    kept = Play2(*psk_pair(), child=(36, 0)).run()
    assert kept.agreed
    assert len(kept.initiator_keys) == 2 * 36
    both = Play2(*psk_pair(), child=(32, 32)).run()
    assert len(both.initiator_keys) == 2 * 64


@pytest.mark.parametrize("child", [(65, 0), (0, 65), (-1, 0)])
def test_child_keys_of_impossible_lengths_are_refused(child: tuple[int, int]) -> None:
    with pytest.raises(Refused):
        Play2(*psk_pair(), child=child).run()


# --- the peer is not who it should be -----------------------------------------------------------------------


def test_wrong_pre_shared_key_is_not_authentic() -> None:
    left, _ = psk_pair()
    right = authority(secrets=(SharedSecret(terminal=RIGHT, peer=f"dns:{LEFT}", secret=b"another"),))
    verdict = Play2(left, right).run().by_responder
    assert not verdict.authentic
    assert verdict.fault is Fault.BAD_SIGNATURE
    assert SECRET.decode() not in verdict.reason


def test_peer_without_a_pre_shared_key_is_unknown() -> None:
    left, _ = psk_pair()
    right = authority(secrets=(SharedSecret(terminal=RIGHT, peer="dns:somebody.example.com", secret=SECRET),))
    verdict = Play2(left, right).run().by_responder
    assert verdict.fault is Fault.UNKNOWN_ISSUER


def test_secret_of_another_terminal_is_of_no_use() -> None:
    left = authority(secrets=(SharedSecret(terminal="other", peer=f"dns:{RIGHT}", secret=SECRET),))
    with pytest.raises(Refused, match="pre-shared key"):
        Play2(left, psk_pair()[1]).run()


def test_secret_for_an_address_proves_the_address_and_no_name() -> None:
    left = authority(secrets=(SharedSecret(terminal=LEFT, peer=f"ip:{RIGHT_ADDRESS}", secret=SECRET),))
    right = authority(secrets=(SharedSecret(terminal=RIGHT, peer=f"ip:{LEFT_ADDRESS}", secret=SECRET),))
    result = Play2(left, right, remote_identity="").run()
    assert result.agreed
    assert result.by_responder.identity == f"ip:{LEFT_ADDRESS}"

    result = Play2(left, right).run()
    assert result.by_initiator is not None
    assert result.by_initiator.fault is Fault.WRONG_NAME


def test_secret_decides_the_own_identity() -> None:
    left = authority(
        secrets=(
            SharedSecret(
                terminal=LEFT, peer=f"dns:{RIGHT}", secret=SECRET, local_identity="email:left@example.com"
            ),
        )
    )
    right = authority(secrets=(SharedSecret(terminal=RIGHT, peer="email:left@example.com", secret=SECRET),))
    assert Play2(left, right).run().by_responder.identity == "email:left@example.com"


def test_terminal_says_who_it_wants_to_be() -> None:
    right = authority(secrets=(SharedSecret(terminal=RIGHT, peer="keyid:c0ffee", secret=SECRET),))
    result = Play2(psk_pair()[0], right, local_identity="keyid:C0FFEE").run()
    assert result.agreed
    assert result.by_responder.identity == "keyid:c0ffee"


def test_certificate_must_be_for_the_identity_that_is_claimed() -> None:
    play = certified(certificate_pair())
    play.init()
    proof = play.prove_initiator()
    stolen = replace(proof, identification=b"\2\0\0\0" + RIGHT_NAME.encode())
    (verdict,) = play.answer(stolen)
    assert isinstance(verdict, Verdict)
    assert verdict.fault is Fault.WRONG_NAME
    assert LEFT_NAME in verdict.reason


def test_somebody_else_than_wanted_is_turned_away() -> None:
    left = authority(identities=(identity(LEFT_NAME),))
    right = authority(identities=(identity("impostor.example.com"),))
    result = certified((left, right)).run()
    assert result.by_responder.accepted
    assert result.by_initiator is not None
    assert result.by_initiator.fault is Fault.WRONG_NAME
    assert result.initiator_keys == b""


def test_unknown_issuer_is_not_trusted() -> None:
    left = authority(identities=(identity(LEFT_NAME, issuer=pki.ca(name="Unknown")),))
    verdict = certified((left, certificate_pair()[1])).run().by_responder
    assert verdict.fault is Fault.UNKNOWN_ISSUER


@pytest.mark.parametrize("position", [0, 20, -1])
def test_altered_signature_is_noticed(position: int) -> None:
    play = certified(certificate_pair())
    play.init()
    proof = play.prove_initiator()
    altered = bytearray(proof.proof)
    altered[position] ^= 1
    (verdict,) = play.answer(replace(proof, proof=bytes(altered)))
    assert isinstance(verdict, Verdict)
    assert not verdict.authentic
    assert verdict.fault in (Fault.BAD_SIGNATURE, Fault.UNSUPPORTED)


@pytest.mark.parametrize("method", [0, 1, 2, 3, 9, 10, 11, 12, 14, 255])
@pytest.mark.parametrize("proof", [b"", b"\0", b"\xff", bytes(64), bytes(300)], ids=len)
def test_proof_of_nothing_is_a_verdict_and_no_error(method: int, proof: bytes) -> None:
    play = certified(certificate_pair())
    play.init()
    made = play.prove_initiator()
    (verdict,) = play.answer(replace(made, proof=proof, method=method))
    assert isinstance(verdict, Verdict)
    assert not verdict.authentic
    with pytest.raises(Refused, match="over"):
        play.responder.perform([SaKeysRequest()])


@pytest.mark.parametrize(
    "identification", [b"", b"\2\0\0\0", b"\1\0\0\0abc", b"\x09\0\0\0\x30\x80", b"\x0a\0\0\0x"]
)
def test_malformed_identity_is_a_verdict(identification: bytes) -> None:
    play = Play2(*psk_pair())
    play.init()
    (verdict,) = play.answer(replace(play.prove_initiator(), identification=identification))
    assert isinstance(verdict, Verdict)
    assert verdict.fault is Fault.WRONG_NAME


def test_policy_denies_who_is_authentic() -> None:
    rules = (
        PolicyRule(terminal="*", peer="*", action=Action.ALLOW),
        PolicyRule(terminal="*", peer=f"dns:{LEFT}", action=Action.DENY),
    )
    left, _ = psk_pair()
    _, right = psk_pair(policy=rules)
    verdict = Play2(left, right).run().by_responder
    assert verdict.authentic
    assert not verdict.allowed
    assert verdict.fault is Fault.POLICY
    assert verdict.identity == f"dns:{LEFT}"


def test_pinned_key_needs_no_certificate_authority() -> None:
    peer = pki.leaf(pki.ca(name="Unknown"), "p256", (LEFT_NAME,), slot=LEFT_NAME, subject=LEFT_NAME, purposes=None)
    pins = TrustMaterial(pinned=(PinnedKey(name="left", key=peer.public_pem, peers=(f"dns:{LEFT_NAME}",)),))
    left = authority(identities=(identity(LEFT_NAME, issuer=pki.ca(name="Unknown")),))
    right = authority(trust=pins, identities=(identity(RIGHT_NAME),))
    result = certified((left, right)).run()
    assert result.agreed
    assert result.by_responder.identity == "pin:left"

    play = certified((left, right))
    play.init()
    answer = play.answer(play.prove_initiator(), chain=PeerChain(()))
    assert len(answer) == 3


def test_pinned_key_is_for_its_peers_alone() -> None:
    peer = pki.leaf(pki.ca(name="Unknown"), "p256", (LEFT_NAME,), slot=LEFT_NAME, subject=LEFT_NAME, purposes=None)
    pins = TrustMaterial(pinned=(PinnedKey(name="left", key=peer.public_pem, peers=("dns:other.example.com",)),))
    left = authority(identities=(identity(LEFT_NAME, issuer=pki.ca(name="Unknown")),))
    right = authority(trust=pins, identities=(identity(RIGHT_NAME),))
    assert certified((left, right)).run().by_responder.fault is Fault.UNKNOWN_ISSUER
    play = certified((left, right))
    play.init()
    (verdict,) = play.answer(play.prove_initiator(), chain=PeerChain(()))
    assert isinstance(verdict, Verdict)
    assert verdict.fault is Fault.UNKNOWN_ISSUER


# --- nothing is signed but this session's own message -------------------------------------------------------


def _foreign_messages() -> dict[str, dict[str, Any]]:
    return {
        "spi": {"initiator_spi": b"anything"},
        "responder spi": {"responder_spi": SPI_R},
        "version": {"version": Version.IKE_1},
        "exchange": {"exchange_type": ExchangeType.IKE_AUTH},
        "flags": {"flags": Flags2.RESPONSE},
        "message id": {"message_id": 1},
        "length": {"length": 28},
    }


@pytest.mark.parametrize("changes", _foreign_messages().values(), ids=_foreign_messages().keys())
def test_message_with_another_header_is_not_signed(changes: dict[str, Any]) -> None:
    play = Play2(*psk_pair())
    play.init()
    message = init_message(
        from_initiator=True, group=play.group.id, public_value=play.value_i, nonce=NONCE_I, **changes
    )
    with pytest.raises(Refused, match="IKE_SA_INIT"):
        play.prove_initiator(message=message)


@pytest.mark.parametrize("field", ["group", "public_value", "nonce"])
def test_message_with_another_half_is_not_signed(field: str) -> None:
    play = Play2(*psk_pair())
    play.init()
    half: dict[str, Any] = {"group": play.group.id, "public_value": play.value_i, "nonce": NONCE_I}
    half[field] = 19 if field == "group" else half[field][:-1] + b"\0"
    with pytest.raises(Refused, match="not the IKE_SA_INIT"):
        play.prove_initiator(message=init_message(from_initiator=True, **half))


@pytest.mark.parametrize("message", [b"", bytes(28), b" " * 64, bytes(20_000)], ids=len)
def test_anything_else_is_not_signed(message: bytes) -> None:
    play = Play2(*psk_pair())
    play.init()
    with pytest.raises(Refused):
        play.prove_initiator(message=message)


def test_peer_is_not_judged_by_a_foreign_message() -> None:
    play = Play2(*psk_pair())
    play.init()
    proof = play.prove_initiator()
    other = init_message(from_initiator=True, group=31, public_value=bytes(32), nonce=NONCE_I)
    with pytest.raises(Refused, match="not the IKE_SA_INIT"):
        play.answer(proof, message=other)


def test_session_for_one_peer_proves_itself_to_no_other() -> None:
    play = Play2(*psk_pair())
    play.init()
    with pytest.raises(Refused, match="was started for"):
        play.prove_initiator(remote_identification=b"\2\0\0\0other.example.com")


def test_peer_that_the_message_insists_on_must_be_the_one() -> None:
    left, right = psk_pair()
    play = Play2(left, right, remote_identity="")
    play.init()
    proof = play.prove_initiator(remote_identification=b"\2\0\0\0" + RIGHT.encode())
    final = play.conclude(play.answer(proof))
    assert isinstance(final[0], Verdict)
    assert final[0].accepted


# --- start ------------------------------------------------------------------------------------------------


def start(request: IkeStartRequest, **options: Any) -> IkeStartResponse:
    (response,) = authority(**options).open(LEFT).perform([request])
    assert isinstance(response, IkeStartResponse)
    return response


def test_offer_that_is_all_allowed_comes_back_empty() -> None:
    response = start(start2(initiator=True))
    assert response == IkeStartResponse(sa=b"", group=alg.CURVE25519.id)
    assert not response.ends_batch


def test_offer_is_cut_to_what_the_options_allow() -> None:
    options = IkeOptions(
        policy=IkePolicy(encryptions=(alg.ENCR_AES_GCM_16_256,), groups=(alg.ECP_256, alg.ECP_384))
    )
    response = start(start2(initiator=True), ike_options=options)
    cut = SecurityAssociation.parse(Reader(response.sa))
    assert len(cut.proposals) == 1
    assert {each.id for each in cut.proposals[0].transforms if each.type == 4} == {19, 20}
    assert response.group == 19


def test_responder_chooses_in_the_group_of_the_peers_value() -> None:
    response = start(start2(initiator=False, group=alg.ECP_384.id))
    assert response.group == alg.ECP_384.id
    assert not response.other_group_wanted
    chosen = SecurityAssociation.parse(Reader(response.sa))
    assert len(chosen.proposals) == 1


def test_value_in_a_group_that_is_not_chosen_must_come_again() -> None:
    options = IkeOptions(policy=IkePolicy(groups=(alg.ECP_256,)))
    session = authority(ike_options=options).open(LEFT)
    exchange = KeyExchangeRequest(
        group=31,
        public_value=bytes(32),
        initiator_spi=SPI_I,
        responder_spi=SPI_R,
        peer_nonce=NONCE_I,
        own_nonce=NONCE_R,
    )
    responses = session.perform([start2(initiator=False), exchange])
    assert responses == (IkeStartResponse(group=alg.ECP_256.id, other_group_wanted=True),)
    with pytest.raises(Refused, match="over"):
        session.perform([exchange])


def test_nothing_in_common_is_no_proposal_chosen() -> None:
    options = IkeOptions(policy=IkePolicy(prfs=(alg.PRF_HMAC_SHA1,)))
    for initiator in (True, False):
        with pytest.raises(NoProposalChosen):
            start(start2(initiator=initiator), ike_options=options)


@pytest.mark.parametrize("sa", [b"", b"\0", bytes(40), bytes(9000)], ids=len)
def test_malformed_offer_is_a_typed_error(sa: bytes) -> None:
    with pytest.raises((DecodeError, Refused)):
        start(start2(initiator=False, sa=sa))


@pytest.mark.parametrize(
    ("rules", "request_changes"),
    [
        pytest.param((("*", "*", "allow"), ("*", "ip:192.0.2.0/24", "deny")), {}, id="address denied"),
        pytest.param((("*", "*", "allow"), ("*", "*", "deny")), {}, id="everybody denied"),
        pytest.param((), {}, id="nobody allowed"),
        pytest.param((("other", "*", "allow"),), {}, id="another terminal allowed"),
        pytest.param(
            (("*", "*", "allow"), ("*", "dns:denied.example.com", "deny")),
            {"remote_identity": "dns:denied.example.com"},
            id="wanted denied",
        ),
        pytest.param(
            (("*", "dns:peer.example.com", "allow"),),
            {"remote_identity": "dns:x.example.com"},
            id="wanted not allowed",
        ),
    ],
)
def test_peer_that_can_never_be_allowed_is_refused_from_the_start(
    rules: tuple[tuple[str, str, str], ...], request_changes: dict[str, Any]
) -> None:
    policy = tuple(PolicyRule(terminal=a, peer=b, action=Action(c)) for a, b, c in rules)
    for initiator in (True, False):
        with pytest.raises(Refused, match="polic"):
            start(start2(initiator=initiator, peer_address=RIGHT_ADDRESS, **request_changes), policy=policy)


def test_peer_of_unknown_name_may_begin_where_some_name_is_allowed() -> None:
    policy = (PolicyRule(terminal=LEFT, peer="dns:peer.example.com", action=Action.ALLOW),)
    assert start(start2(initiator=False), policy=policy).group == 31


@pytest.mark.parametrize("identity_text", ["pin:x", "dns:*.example.com", "ip:192.0.2.0/24", "nonsense:x", "dn:"])
def test_identity_that_names_nobody_is_refused(identity_text: str) -> None:
    with pytest.raises(Refused):
        start(start2(initiator=True, remote_identity=identity_text))
    with pytest.raises(Refused):
        start(start2(initiator=True, local_identity=identity_text))


def test_refusal_looks_at_the_databases_once_more() -> None:
    found = authority(policy=())
    opened = found.open(LEFT)

    def refresh() -> bool:
        found.policy = authority().policy
        return True

    found.refresh = refresh
    assert opened.perform([start2(initiator=True)])


def test_secret_added_a_moment_ago_is_found() -> None:
    left, right = psk_pair()
    bare = authority()

    def refresh() -> bool:
        bare.secrets = left.secrets
        return True

    bare.refresh = refresh
    assert Play2(bare, right).run().agreed

    late = authority()

    def refresh_responder() -> bool:
        late.secrets = right.secrets
        return True

    late.refresh = refresh_responder
    assert Play2(left, late).run().agreed


# --- key exchange -------------------------------------------------------------------------------------------


def test_initiator_asks_for_another_group_once() -> None:
    session = authority().open(LEFT)
    session.perform([start2(initiator=True), PublicValueRequest(group=31), PublicValueRequest(group=19)])
    with pytest.raises(Misbehaved, match="again"):
        session.perform([PublicValueRequest(group=20)])


def test_same_group_does_not_come_again() -> None:
    session = authority().open(LEFT)
    session.perform([start2(initiator=True), PublicValueRequest(group=31)])
    with pytest.raises(Misbehaved):
        session.perform([PublicValueRequest(group=31)])


@pytest.mark.parametrize("group", [1, 2, 5, 35, 36, 999])
def test_group_that_was_not_offered_gets_no_value(group: int) -> None:
    session = authority().open(LEFT)
    with pytest.raises((Refused, Incompatible)):
        session.perform([start2(initiator=True), PublicValueRequest(group=group)])


def test_responder_cannot_choose_what_was_not_offered() -> None:
    play = Play2(*psk_pair(), policy=IkePolicy(groups=(alg.CURVE25519, alg.ECP_256)))
    session = play.left.open(LEFT)
    session.perform([start2(initiator=True, policy=play.policy), PublicValueRequest(group=31)])
    other = body_of(offer_ike(IkePolicy(encryptions=(alg.ENCR_AES_CBC_192,), groups=(alg.CURVE25519,))))
    exchange = KeyExchangeRequest(
        group=31,
        public_value=bytes(31) + b"\x09",
        initiator_spi=SPI_I,
        responder_spi=SPI_R,
        peer_nonce=NONCE_R,
        own_nonce=NONCE_I,
        sa=other,
    )
    with pytest.raises(AlteredProposal):
        session.perform([exchange])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"group": 19}, Misbehaved),
        ({"public_value": bytes(32)}, Misbehaved),
        ({"public_value": bytes(31)}, Misbehaved),
        ({"peer_nonce": bytes(15)}, Misbehaved),
        ({"peer_nonce": bytes(257)}, Misbehaved),
        ({"own_nonce": b""}, Refused),
        ({"initiator_spi": bytes(8)}, Refused),
        ({"responder_spi": b"short"}, Refused),
        ({"sa": b"x"}, Refused),
    ],
    ids=str,
)
def test_key_exchange_of_the_wrong_shape_is_refused(changes: dict[str, Any], error: type[LocumError]) -> None:
    good = KeyExchangeRequest(
        group=31,
        public_value=bytes(31) + b"\x09",
        initiator_spi=SPI_I,
        responder_spi=SPI_R,
        peer_nonce=NONCE_I,
        own_nonce=NONCE_R,
    )
    session = authority().open(RIGHT)
    session.perform([start2(initiator=False)])
    with pytest.raises(error):
        session.perform([replace(good, **changes)])
    with pytest.raises(Refused, match="over"):
        session.perform([good])


def test_additional_key_exchange_that_was_not_agreed_on_is_refused() -> None:
    play = Play2(*psk_pair())
    play.init()
    with pytest.raises(Misbehaved, match="not agreed"):
        play.responder.perform([AdditionalKeyExchangeRequest(group=36, public_value=bytes(1184))])


def test_additional_key_exchanges_come_in_their_order() -> None:
    play = Play2(*psk_pair(), policy=TWO_MORE)
    play.init()
    with pytest.raises(Refused, match="no turn"):
        play.initiator.perform([PublicValueRequest(group=20)])


def test_nothing_is_proven_before_all_key_exchanges() -> None:
    play = Play2(*psk_pair(), policy=TWO_MORE)
    play.init()
    with pytest.raises(Refused, match="additional"):
        play.prove_initiator()


# --- order ------------------------------------------------------------------------------------------------


def test_responder_proves_itself_only_to_an_accepted_peer() -> None:
    play = Play2(*psk_pair())
    play.init()
    with pytest.raises(Refused, match="turn"):
        play.responder.perform([play.prove(initiator=False)])


def test_initiator_judges_only_after_its_own_proof() -> None:
    play = Play2(*psk_pair())
    play.init()
    answer = play.answer(play.prove_initiator())
    fresh = Play2(play.left, play.right)
    fresh.init()
    assert isinstance(answer[1], ProveResponse)
    with pytest.raises(Refused, match="first"):
        fresh.initiator.perform([fresh.authenticate(answer[1], by_initiator=False)])


def test_keys_come_after_both_proofs() -> None:
    play = Play2(*psk_pair())
    play.init()
    proof = play.prove_initiator()
    with pytest.raises(Refused):
        play.initiator.perform([SaKeysRequest()])
    verdict = play.responder.perform([play.authenticate(proof, by_initiator=True)])[0]
    assert isinstance(verdict, Verdict)
    assert verdict.accepted
    with pytest.raises(Refused, match="own proof"):
        play.responder.perform([SaKeysRequest()])


@pytest.mark.parametrize("request_", [IntroduceRequest(), Request()], ids=["introduce", "nothing"])
def test_operation_of_another_kind_is_refused(request_: Request) -> None:
    with pytest.raises(Refused, match="not an operation of IKE"):
        authority().open(LEFT).perform([start2(initiator=True), request_])


def test_every_operation_is_performed_once() -> None:
    session = authority().open(LEFT)
    session.perform([start2(initiator=True)])
    with pytest.raises(Refused, match="before"):
        session.perform([start2(initiator=True)])


def test_session_that_is_over_holds_no_secret() -> None:
    play = Play2(*psk_pair())
    play.run()
    for session in (play.initiator, play.responder):
        inner: Any = session._session
        held = [getattr(inner, name) for name in ("_exchange", "_schedule", "_own", "_peer", "_ppk", "_judgement")]
        assert held == [None] * 6
        with pytest.raises(Refused, match="over"):
            session.perform([SaKeysRequest()])


def test_representations_show_no_secret() -> None:
    play = Play2(*psk_pair())
    play.init()
    proof = play.prove_initiator()
    answer = play.answer(proof)
    assert isinstance(answer[2], SaKeysResponse)
    shown = repr((play.initiator, play.left, answer[2], play.left.secrets, play.initiator._session))
    assert SECRET.decode() not in shown
    assert repr(answer[2].keys) not in shown
    assert "keys=" not in repr(IkeKeysResponse(keys=b"secret"))


# --- post-quantum pre-shared keys ---------------------------------------------------------------------------


def ppk(
    terminal: str, *, required: bool = False, secret: bytes = b"quantum", name: str = "ppk"
) -> PostquantumSecret:
    return PostquantumSecret(identifier=name, secret=secret, terminal=terminal, peer="*", required=required)


def with_ppks(left: PostquantumSecret | None, right: PostquantumSecret | None, *, use: bool = True) -> Play2:
    return Play2(psk_pair(ppks=(left,) if left else ())[0], psk_pair(ppks=(right,) if right else ())[1], ppk=use)


@pytest.mark.parametrize("required", [True, False])
def test_ppk_of_both_ends_is_used(required: bool) -> None:
    result = with_ppks(ppk(LEFT, required=required), ppk(RIGHT, required=required)).run()
    assert result.agreed
    assert result.ppk_used


@pytest.mark.parametrize(("left", "right"), [(ppk(LEFT), None), (None, ppk(RIGHT))], ids=["left", "right"])
def test_ppk_of_one_end_is_done_without(left: PostquantumSecret | None, right: PostquantumSecret | None) -> None:
    result = with_ppks(left, right).run()
    assert result.agreed
    assert not result.ppk_used


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param(ppk(LEFT, required=True), None, id="initiator insists"),
        pytest.param(None, ppk(RIGHT, required=True), id="responder insists"),
        pytest.param(ppk(LEFT, required=True), ppk(RIGHT, name="other"), id="another name"),
    ],
)
def test_required_ppk_is_not_done_without(left: PostquantumSecret | None, right: PostquantumSecret | None) -> None:
    verdict = with_ppks(left, right).run().by_responder
    assert not verdict.authentic
    assert verdict.fault is Fault.UNSUPPORTED


def test_wrong_ppk_under_the_right_name_is_not_authentic() -> None:
    verdict = with_ppks(ppk(LEFT), ppk(RIGHT, secret=b"another")).run().by_responder
    assert verdict.fault is Fault.BAD_SIGNATURE


def test_required_ppk_refuses_a_peer_that_knows_none() -> None:
    with pytest.raises(Refused, match="post-quantum"):
        with_ppks(ppk(LEFT, required=True), None, use=False).run()


def test_confirmation_of_a_ppk_must_be_true() -> None:
    play = with_ppks(None, None)
    play.init()
    final = play.conclude(play.answer(play.prove_initiator()), ppk_confirmed=True)
    assert isinstance(final[0], Verdict)
    assert final[0].fault is Fault.UNSUPPORTED

    play = with_ppks(ppk(LEFT, required=True), ppk(RIGHT, required=True))
    play.init()
    final = play.conclude(play.answer(play.prove_initiator()), ppk_confirmed=False)
    assert isinstance(final[0], Verdict)
    assert not final[0].authentic


def test_child_keys_from_the_authority_agree_with_a_ppk_too() -> None:
    left, right = ppk(LEFT), ppk(RIGHT)
    play = with_ppks(left, right)
    play.child = (36, 0)
    assert play.run().agreed


def test_ppk_identity_is_of_the_fixed_type() -> None:
    play = with_ppks(ppk(LEFT), None)
    play.init()
    proof = play.prove_initiator()
    assert proof.ppk_identity == b"\x02ppk"
    assert proof.proof_without_ppk not in (b"", proof.proof)


def test_exchange_kinds_have_sessions_of_their_own() -> None:
    session = authority().open(LEFT)
    session.perform([replace(start2(initiator=True), exchange=Exchange.FURTHER, sa=b"")])
    with pytest.raises(Refused, match="not an operation"):
        session.perform([ProveRequest()])
