"""IKEv1 by operations: two authorities agree on keys by every method and mode, and nothing comes out of turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support import pki
from tests.support.ike_authority import (
    LEFT,
    LEFT_ADDRESS,
    LEFT_NAME,
    RIGHT,
    RIGHT_ADDRESS,
    RIGHT_NAME,
    SECRET,
    SPI_I,
    SPI_R,
    Play1,
    authority,
    body_of,
    certificate_pair,
    encryption_pair,
    identity,
    policy1,
    psk_pair,
)

from locum.authority.databases import PinnedKey, SharedSecret, TrustMaterial
from locum.authority.local import IkeOptions, LocalAuthority, LocalSession
from locum.errors import DecodeError, LocumError, Misbehaved, Refused
from locum.handshake import Fault, PeerChain, Request, Verdict
from locum.ike import algorithms as alg
from locum.ike.errors import AlteredProposal, NoProposalChosen
from locum.ike.operations import (
    DisclosureRequest,
    EncryptedIntroductionRequest,
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
from locum.ike.payloads1 import SecurityAssociation
from locum.ike.policy import Phase1Policy
from locum.ike.proposals1 import accept_phase1, offer_phase1
from locum.ike.registry import AuthenticationMethod1
from locum.wire.cursor import Reader

Method = AuthenticationMethod1
MODES = pytest.mark.parametrize("exchange", [Exchange.MAIN, Exchange.AGGRESSIVE], ids=["main", "aggressive"])
SIGNATURES = pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("rsa", Method.RSA_SIGNATURE),
        ("p256", Method.ECDSA_256),
        ("p384", Method.ECDSA_384),
        ("p521", Method.ECDSA_521),
    ],
)


def psk(exchange: Exchange = Exchange.MAIN, **options: Any) -> Play1:
    return Play1(*psk_pair(), policy1(Method.PRE_SHARED_KEY), exchange, **options)


def signed(
    kind: str = "p256",
    method: Method = Method.ECDSA_256,
    exchange: Exchange = Exchange.MAIN,
    pair: tuple[LocalAuthority, LocalAuthority] | None = None,
    **options: Any,
) -> Play1:
    options.setdefault("remote_identity", f"dns:{RIGHT_NAME}")
    return Play1(*(pair or certificate_pair(kind)), policy1(method), exchange, **options)


def encrypted(exchange: Exchange = Exchange.MAIN, pair: Any = None) -> Play1:
    pair = pair or encryption_pair()
    return Play1(*pair, policy1(Method.RSA_ENCRYPTION), exchange, remote_identity=f"dns:{RIGHT_NAME}")


# --- agreement --------------------------------------------------------------------------------------------


@MODES
def test_pre_shared_key_authenticates_both_ends(exchange: Exchange) -> None:
    result = psk(exchange).run()
    assert result.agreed
    assert result.by_responder.identity == f"dns:{LEFT}"
    assert result.by_initiator is not None
    assert result.by_initiator.identity == f"dns:{RIGHT}"
    assert len(result.initiator_keys) == 3 * 32


@MODES
@SIGNATURES
def test_every_signature_authenticates_both_ends(kind: str, method: Method, exchange: Exchange) -> None:
    result = signed(kind, method, exchange).run()
    assert result.agreed
    assert result.method == method
    assert result.by_responder.identity == f"dns:{LEFT_NAME}"


@SIGNATURES
@pytest.mark.parametrize("prf", [alg.PRF_HMAC_SHA2_256, alg.PRF_HMAC_SHA2_384, alg.PRF_HMAC_SHA2_512], ids=str)
def test_hash_of_any_length_is_signed(kind: str, method: Method, prf: alg.Prf) -> None:
    play = signed(kind, method)
    play.policy = policy1(method, prfs=(prf,))
    result = play.run()
    assert result.agreed
    assert len(result.initiator_keys) == 3 * prf.length


def test_rsa_signature_covers_a_sha1_hash_where_that_is_allowed() -> None:
    legacy = Phase1Policy(methods=tuple(Method), prfs=(alg.PRF_HMAC_SHA1,))
    pair = certificate_pair("rsa", ike_options=IkeOptions(phase1=legacy))
    play = signed(method=Method.RSA_SIGNATURE, pair=pair)
    play.policy = policy1(Method.RSA_SIGNATURE, prfs=(alg.PRF_HMAC_SHA1,))
    assert play.run().agreed

    with pytest.raises(NoProposalChosen):
        Play1(*certificate_pair("rsa"), play.policy).run()


@MODES
def test_public_key_encryption_authenticates_both_ends(exchange: Exchange) -> None:
    result = encrypted(exchange).run()
    assert result.agreed
    assert result.by_responder.identity == "pin:the-other"


@pytest.mark.parametrize("group", [alg.ECP_256, alg.ECP_521, alg.MODP_2048], ids=str)
def test_groups_of_phase_1_work(group: alg.Group) -> None:
    play = psk()
    play.policy = policy1(Method.PRE_SHARED_KEY, groups=(group,))
    assert play.run().agreed


def test_main_mode_finds_the_secret_by_address() -> None:
    left = authority(
        secrets=(
            SharedSecret(terminal=LEFT, peer="dns:unrelated.example.com", secret=b"x"),
            SharedSecret(terminal=LEFT, peer=f"ip:{RIGHT_ADDRESS}", secret=SECRET),
        )
    )
    right = authority(
        secrets=(
            SharedSecret(terminal=RIGHT, peer="dns:unrelated.example.com", secret=b"x"),
            SharedSecret(terminal=RIGHT, peer=f"ip:{LEFT_ADDRESS}", secret=SECRET),
        )
    )
    result = Play1(left, right, policy1(Method.PRE_SHARED_KEY), remote_identity="").run()
    assert result.agreed
    assert result.by_responder.identity == f"ip:{LEFT_ADDRESS}"


def test_main_mode_cannot_guess_between_secrets() -> None:
    left, _ = psk_pair()
    right = authority(
        secrets=tuple(
            SharedSecret(terminal=RIGHT, peer=peer, secret=SECRET)
            for peer in (f"dns:{LEFT}", "dns:other.example.com")
        )
    )
    policy = policy1(Method.PRE_SHARED_KEY)
    with pytest.raises(NoProposalChosen):
        Play1(left, right, policy).run()
    # In aggressive mode the peer says who it is in time.
    assert Play1(left, right, policy, Exchange.AGGRESSIVE).run().agreed


def test_responder_falls_back_to_a_certificate_where_the_peer_offers_no_secret() -> None:
    left = authority(identities=(identity(LEFT_NAME),))
    right = authority(
        identities=(identity(RIGHT_NAME),),
        secrets=(SharedSecret(terminal=RIGHT, peer=f"ip:{LEFT_ADDRESS}", secret=SECRET),),
    )
    assert signed(pair=(left, right)).run().agreed


def test_initiator_with_a_secret_for_the_peer_offers_nothing_else() -> None:
    found = authority(
        identities=(identity(LEFT_NAME),),
        secrets=(SharedSecret(terminal=LEFT, peer=f"dns:{RIGHT}", secret=SECRET),),
    )
    policy = Phase1Policy(methods=tuple(Method))
    request = Play1(found, found, policy).start(initiator=True)
    (response,) = found.open(LEFT).perform([request])
    assert isinstance(response, IkeStartResponse)
    cut = SecurityAssociation.parse(Reader(response.sa))
    methods = {
        attribute.number
        for transform in cut.proposals[0].transforms
        for attribute in transform.attributes
        if attribute.type == 3
    }
    assert methods == {Method.PRE_SHARED_KEY}


def test_offer_names_only_methods_that_there_is_a_key_for() -> None:
    found = authority(identities=(identity(LEFT_NAME, "rsa"),))
    policy = Phase1Policy(methods=tuple(Method))
    (response,) = found.open(LEFT).perform([Play1(found, found, policy).start(initiator=True)])
    assert isinstance(response, IkeStartResponse)
    full = offer_phase1(policy)
    chosen = SecurityAssociation.parse(Reader(response.sa))
    for transform in chosen.proposals[0].transforms:
        answer = replace(chosen, proposals=(replace(chosen.proposals[0], transforms=(transform,)),))
        assert accept_phase1(full, answer).suite.method is Method.RSA_SIGNATURE


def test_aggressive_offer_has_one_group_and_one_method() -> None:
    found = authority(identities=(identity(LEFT_NAME, "rsa"), identity(LEFT_NAME, "p256")))
    policy = Phase1Policy(methods=(Method.RSA_SIGNATURE, Method.ECDSA_256), groups=(alg.ECP_256, alg.ECP_384))
    play = Play1(found, found, policy, Exchange.AGGRESSIVE, remote_identity="")
    (response,) = found.open(LEFT).perform([play.start(initiator=True)])
    assert isinstance(response, IkeStartResponse)
    seen = {
        (attribute.type, attribute.number)
        for transform in SecurityAssociation.parse(Reader(response.sa)).proposals[0].transforms
        for attribute in transform.attributes
        if attribute.type in (3, 4)
    }
    assert seen == {(3, Method.RSA_SIGNATURE), (4, alg.ECP_256.id)}
    assert response.group == alg.ECP_256.id


def test_offer_fits_into_a_datagram() -> None:
    found = authority(identities=tuple(identity(LEFT_NAME, kind) for kind in ("rsa", "p256", "p384", "p521")))
    policy = Phase1Policy(methods=tuple(Method))
    (response,) = found.open(LEFT).perform([Play1(found, found, policy, remote_identity="").start(initiator=True)])
    assert isinstance(response, IkeStartResponse)
    assert len(SecurityAssociation.parse(Reader(response.sa)).proposals[0].transforms) == 64


def test_nothing_to_prove_oneself_with_is_no_proposal_chosen() -> None:
    bare = authority()
    for method in Method:
        for initiator in (True, False):
            with pytest.raises(NoProposalChosen):
                bare.open(LEFT).perform([Play1(bare, bare, policy1(method)).start(initiator=initiator)])


def test_identity_added_a_moment_ago_is_offered() -> None:
    left, right = certificate_pair()
    bare = authority()

    def refresh() -> bool:
        bare.identities = left.identities
        return True

    bare.refresh = refresh
    assert signed(pair=(bare, right)).run().agreed


def test_identity_for_certain_peers_is_shown_to_no_other() -> None:
    left, _ = certificate_pair()
    right = authority(identities=(identity(RIGHT_NAME, peers=("dns:somebody-else.example.com",)),))
    with pytest.raises(Refused, match="no fitting identity"):
        signed(pair=(left, right)).run()


def test_peer_that_names_an_authority_gets_a_certificate_from_it() -> None:
    other = pki.ca(name="Other Root")
    left, _ = certificate_pair()
    right = authority(identities=(identity(RIGHT_NAME, issuer=other), identity(RIGHT_NAME)))
    session, verdict_and_proof = None, []
    for authorities in ((), (pki.ca().certificate.subject.public_bytes(),)):
        play = signed(pair=(left, right))
        session, proof = _until_proof(play)
        responses = session.perform([play.authenticate(proof), ProveRequest(authorities=authorities)])
        assert isinstance(responses[1], ProveResponse)
        verdict_and_proof.append(responses[1].certificates[0])
    assert verdict_and_proof[0] == right.identities.known[0].identity.certificates[0]
    assert verdict_and_proof[1] == right.identities.known[1].identity.certificates[0]


def _until_proof(play: Play1) -> tuple[LocalSession, ProveResponse]:
    """Main mode up to message 5: the responder's session, and the initiator's proof."""
    session, keys = _until_keys(play)
    (exchange, initiator) = keys
    *_, proof = initiator.perform([exchange, ProveRequest()])
    assert isinstance(proof, ProveResponse)
    return session, proof


def _until_keys(play: Play1) -> tuple[LocalSession, tuple[KeyExchangeRequest, LocalSession]]:
    full = play.start(initiator=True)
    (offer,) = play.initiator.perform([full])
    assert isinstance(offer, IkeStartResponse)
    offered = offer.sa or full.sa
    (choice,) = play.responder.perform([play.start(initiator=False, sa=offered)])
    assert isinstance(choice, IkeStartResponse)
    (value,) = play.initiator.perform([PublicValueRequest(group=choice.group, sa=choice.sa or offered)])
    assert isinstance(value, PublicValueResponse)
    (keys,) = play.responder.perform([play.keys(value.public_value, value.nonce)])
    assert isinstance(keys, IkeKeysResponse)
    assert len(value.nonce) == len(keys.nonce) == 32
    return play.responder, (play.keys(keys.public_value, keys.nonce), play.initiator)


# --- the peer is not who it should be -----------------------------------------------------------------------


@MODES
def test_wrong_pre_shared_key_is_not_authentic(exchange: Exchange) -> None:
    left, _ = psk_pair()
    right = authority(secrets=(SharedSecret(terminal=RIGHT, peer=f"dns:{LEFT}", secret=b"another"),))
    verdict = Play1(left, right, policy1(Method.PRE_SHARED_KEY), exchange).run().by_responder
    assert not verdict.authentic
    assert verdict.fault is Fault.BAD_SIGNATURE


def test_identity_must_be_that_of_the_secret_which_was_used() -> None:
    left = authority(
        secrets=(
            SharedSecret(terminal=LEFT, peer=f"dns:{RIGHT}", secret=SECRET, local_identity="dns:x.example.com"),
        )
    )
    verdict = Play1(left, psk_pair()[1], policy1(Method.PRE_SHARED_KEY)).run().by_responder
    assert verdict.fault is Fault.WRONG_NAME
    assert "x.example.com" in verdict.reason


@MODES
def test_unknown_issuer_is_not_trusted(exchange: Exchange) -> None:
    stranger = authority(
        identities=(
            identity(LEFT_NAME, issuer=pki.ca(name="Unknown")),
            identity(RIGHT_NAME, issuer=pki.ca(name="U")),
        )
    )
    verdict = signed(exchange=exchange, pair=(stranger, certificate_pair()[1]))
    if exchange is Exchange.AGGRESSIVE:
        verdict = signed(exchange=exchange, pair=(certificate_pair()[0], stranger))
    assert verdict.run().by_responder.fault is Fault.UNKNOWN_ISSUER


@SIGNATURES
def test_altered_signature_is_noticed(kind: str, method: Method) -> None:
    play = signed(kind, method)
    session, proof = _until_proof(play)
    altered = bytearray(proof.proof)
    altered[-1] ^= 1
    (verdict,) = session.perform([play.authenticate(replace(proof, proof=bytes(altered)))])
    assert isinstance(verdict, Verdict)
    assert verdict.fault is Fault.BAD_SIGNATURE


@SIGNATURES
@pytest.mark.parametrize("proof", [b"", b"\0", bytes(64), bytes(256)], ids=len)
def test_proof_of_nothing_is_a_verdict_and_no_error(kind: str, method: Method, proof: bytes) -> None:
    play = signed(kind, method)
    session, made = _until_proof(play)
    (verdict,) = session.perform([play.authenticate(replace(made, proof=proof))])
    assert isinstance(verdict, Verdict)
    assert not verdict.authentic


def test_key_of_another_kind_than_agreed_is_not_accepted() -> None:
    left = authority(identities=(identity(LEFT_NAME, "p256"),))
    play = signed("p384", Method.ECDSA_384)
    session, proof = _until_proof(play)
    chain = left.identities.known[0].identity.certificates
    (verdict,) = session.perform([replace(play.authenticate(proof), chain=PeerChain(chain))])
    assert isinstance(verdict, Verdict)
    assert verdict.fault is Fault.BAD_SIGNATURE


def test_method_that_was_not_agreed_on_is_refused() -> None:
    play = signed()
    session, proof = _until_proof(play)
    with pytest.raises(Refused, match="agreed"):
        session.perform([replace(play.authenticate(proof), method=Method.PRE_SHARED_KEY)])


# --- public key encryption ----------------------------------------------------------------------------------


def test_initiator_needs_the_peers_pinned_key() -> None:
    left = authority(identities=(identity(LEFT_NAME, "rsa"),))
    with pytest.raises(NoProposalChosen):
        encrypted(pair=(left, encryption_pair()[1])).run()


@MODES
def test_stranger_learns_nothing_but_that_its_proof_fails(exchange: Exchange) -> None:
    right = encryption_pair()[1]
    known = pki.leaf(pki.ca(), "rsa", (RIGHT_NAME,), slot=RIGHT_NAME, subject=RIGHT_NAME, purposes=None)
    pins = (PinnedKey(name="right", key=known.public_pem, peers=(f"dns:{RIGHT_NAME}",)),)
    left = authority(trust=TrustMaterial(pinned=pins), identities=(identity("stranger.example.com", "rsa"),))
    play = encrypted(exchange, (left, right))
    verdict = play.run().by_responder
    # In aggressive mode it is the stranger that is asked first, and cannot decrypt what was made for nobody.
    assert verdict.fault is Fault.BAD_SIGNATURE


@pytest.mark.parametrize("damage", ["identification", "nonce", "both", "length"])
def test_what_does_not_decrypt_is_not_told(damage: str) -> None:
    play = encrypted()
    full = play.start(initiator=True)
    (offer,) = play.initiator.perform([full])
    assert isinstance(offer, IkeStartResponse)
    offered = offer.sa or full.sa
    (choice,) = play.responder.perform([play.start(initiator=False, sa=offered)])
    assert isinstance(choice, IkeStartResponse)
    value, hidden = play.initiator.perform(
        [PublicValueRequest(group=choice.group, sa=choice.sa or offered), EncryptedIntroductionRequest()]
    )
    assert isinstance(value, PublicValueResponse)
    assert value.nonce == b""
    request: Any = play.disclosure(hidden)  # type: ignore[arg-type]
    broken = b"\0" * 100 if damage == "length" else b"\1" + bytes(255)
    if damage != "nonce":
        request = replace(request, identification=broken)
    if damage != "identification":
        request = replace(request, nonce=broken)
    answers = play.responder.perform([request, EncryptedIntroductionRequest(), play.keys(value.public_value, b"")])
    assert len(answers) == 3
    (verdict,) = play.responder.perform(
        [
            IkeAuthenticateRequest(
                chain=PeerChain(()), identification=b"", method=Method.RSA_ENCRYPTION, proof=bytes(32)
            )
        ]
    )
    assert isinstance(verdict, Verdict)
    assert verdict.fault is Fault.BAD_SIGNATURE


def test_certificate_hash_says_which_key_was_encrypted_to() -> None:
    left, right = encryption_pair()
    second = identity("second.example.com", "rsa")
    both = authority(
        trust=TrustMaterial(
            pinned=(
                PinnedKey(
                    name="left",
                    key=pki.leaf(
                        pki.ca(), "rsa", (LEFT_NAME,), slot=LEFT_NAME, subject=LEFT_NAME, purposes=None
                    ).public_pem,
                    peers=(f"dns:{LEFT_NAME}",),
                ),
            )
        ),
        identities=(second, right.identities.known[0].identity),
    )
    play = encrypted(pair=(left, both))
    # Without the hash the first key is tried, and nothing fits.
    assert play.run().by_responder.fault is Fault.BAD_SIGNATURE

    play = encrypted(pair=(left, both))
    certificate = right.identities.known[0].identity.certificates[0]
    original = play.disclosure
    digest = alg.PRF_HMAC_SHA2_256.hash.digest(certificate)
    play.disclosure = lambda hidden: replace(original(hidden), certificate_hash=digest)  # type: ignore[method-assign]
    assert play.run().agreed


@pytest.mark.parametrize(
    "request_",
    [EncryptedIntroductionRequest(), DisclosureRequest(identification=b"x", nonce=b"x")],
    ids=["introduce", "disclose"],
)
def test_nothing_is_decrypted_with_another_method(request_: Request) -> None:
    play = signed("rsa", Method.RSA_SIGNATURE)
    (offer,) = play.responder.perform([play.start(initiator=False)])
    assert isinstance(offer, IkeStartResponse)
    with pytest.raises(Refused):
        play.responder.perform([request_])


def test_key_without_decryption_is_no_hindrance_to_anybody() -> None:
    with pytest.raises(NoProposalChosen):
        encrypted(pair=certificate_pair("p256")).run()


# --- order ------------------------------------------------------------------------------------------------


def test_responder_of_main_mode_proves_itself_only_to_an_accepted_peer() -> None:
    session, _ = _until_keys(signed())
    with pytest.raises(Refused, match="turn"):
        session.perform([ProveRequest()])


def test_initiator_of_main_mode_proves_itself_first() -> None:
    play = signed()
    _, (exchange, initiator) = _until_keys(play)
    initiator.perform([exchange])
    request = IkeAuthenticateRequest(chain=PeerChain(()), identification=b"", method=Method.ECDSA_256, proof=b"")
    with pytest.raises(Refused, match="proves itself"):
        initiator.perform([request])


def test_only_the_initiator_of_main_mode_takes_leave_of_whom_it_turns_down() -> None:
    """A HASH under SKEYID_a is given to nobody else, and to nobody who gets SKEYID_a."""
    play = signed()
    session, proof = _until_proof(play)
    altered = replace(play.authenticate(proof), proof=bytes(64), farewell=1)
    with pytest.raises(Refused, match="leave"):
        session.perform([altered])
    play = signed()
    session, proof = _until_proof(play)
    (verdict,) = session.perform([replace(play.authenticate(proof), farewell=1)])
    assert type(verdict) is Verdict
    assert verdict.accepted


def test_keys_come_after_both_proofs() -> None:
    play = signed()
    session, proof = _until_proof(play)
    (verdict,) = session.perform([play.authenticate(proof)])
    assert isinstance(verdict, Verdict)
    assert verdict.accepted
    with pytest.raises(Refused, match="own proof"):
        session.perform([SaKeysRequest()])


def test_keys_of_quick_mode_are_made_by_the_terminal() -> None:
    play = signed()
    session, proof = _until_proof(play)
    session.perform([play.authenticate(proof), ProveRequest()])
    with pytest.raises(Refused, match="quick mode"):
        session.perform([SaKeysRequest(child_encryption=16)])


def test_introduction_is_for_the_initiator_of_aggressive_mode() -> None:
    play = psk()
    with pytest.raises(Refused):
        play.initiator.perform([play.start(initiator=True), IntroduceRequest()])
    with pytest.raises(Refused):
        play.responder.perform([play.start(initiator=False), IntroduceRequest()])


def test_public_value_comes_in_the_chosen_group_and_once() -> None:
    play = psk()
    start = play.start(initiator=True)
    with pytest.raises(Refused, match="was chosen"):
        play.initiator.perform([start, PublicValueRequest(group=20, sa=_first_of(start))])
    play = psk()
    request = PublicValueRequest(group=19, sa=_first_of(start))
    with pytest.raises(Refused, match="before"):
        play.initiator.perform([start, request, request])


def _first_of(start: IkeStartRequest) -> bytes:
    """The answer that takes the first transform."""
    sa = SecurityAssociation.parse(Reader(start.sa))
    proposal = replace(sa.proposals[0], transforms=sa.proposals[0].transforms[:1])
    return body_of(replace(sa, proposals=(proposal,)))


def test_answer_with_what_was_not_offered_is_noticed() -> None:
    play = psk()
    start = play.start(initiator=True)
    other = body_of(offer_phase1(policy1(Method.PRE_SHARED_KEY, groups=(alg.MODP_2048,), lifetime=77)))
    with pytest.raises(AlteredProposal):
        play.initiator.perform([start, PublicValueRequest(group=14, sa=other)])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"group": 20}, Misbehaved),
        ({"public_value": bytes(64)}, Misbehaved),
        ({"public_value": bytes(63)}, Misbehaved),
        ({"peer_nonce": bytes(7)}, Misbehaved),
        ({"peer_nonce": bytes(257)}, Misbehaved),
        ({"initiator_spi": bytes(8)}, Refused),
        ({"responder_spi": b"short"}, Refused),
    ],
    ids=str,
)
def test_key_exchange_of_the_wrong_shape_is_refused(changes: dict[str, Any], error: type[LocumError]) -> None:
    play = psk()
    play.responder.perform([play.start(initiator=False)])
    good = KeyExchangeRequest(
        group=19, public_value=bytes(64), initiator_spi=SPI_I, responder_spi=SPI_R, peer_nonce=bytes(16)
    )
    with pytest.raises(error):
        play.responder.perform([replace(good, **changes)])


@pytest.mark.parametrize("sa", [b"\0", bytes(40), bytes(9000)], ids=len)
def test_malformed_offer_is_a_typed_error(sa: bytes) -> None:
    play = psk()
    with pytest.raises((DecodeError, Refused)):
        play.responder.perform([play.start(initiator=False, sa=sa)])


def test_session_that_is_over_holds_no_secret() -> None:
    play = psk()
    assert play.run().agreed
    for session in (play.initiator, play.responder):
        inner: Any = session._session
        held = [
            getattr(inner, name) for name in ("_exchange", "_keys", "_secret", "_own", "_disclosed", "_judgement")
        ]
        assert held == [None] * 6
        assert inner._nonce == b""


def test_last_answer_is_all_three_keys() -> None:
    play = psk(Exchange.AGGRESSIVE)
    result = play.run()
    assert result.initiator_keys
    assert SaKeysResponse(keys=result.initiator_keys).last
    assert "keys" not in repr(SaKeysResponse(keys=b"secret"))
