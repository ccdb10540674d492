"""LocalAuthority, TLS 1.3: start, keys, verdicts, and everything that must be refused."""

import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric import x25519
from tests.support import pki
from tests.support.exchange import (
    ALLOW_ALL,
    START,
    TERMINAL,
    TLS_AES_128_GCM_SHA256,
    TRANSCRIPT_HASH,
    authenticate13,
    authority,
    keyed13,
    server_share,
    start12,
)

from locum.authority.authentication import CACHE_LIFETIME
from locum.authority.databases import Action, PinnedKey, PolicyRule, TrustMaterial
from locum.authority.local import LocalAuthority, LocalOptions
from locum.crypto.asymmetric.certificates import PathValidator
from locum.crypto.asymmetric.signatures import sign
from locum.crypto.symmetric import SHA256
from locum.errors import ConfigurationError, LocumError, Misbehaved, Refused
from locum.handshake import Fault, PeerChain, Request, Verdict
from locum.tls import schedule
from locum.tls.operations import (
    AuthenticateRequest,
    HandshakeSecretsRequest,
    HandshakeSecretsResponse,
    KeyForm,
    KeyShareRequest,
    KeyShareResponse,
    MasterSecretRequest,
    MasterSecretResponse,
    SharedSecretRequest,
    SharedSecretResponse,
    StartRequest,
    StartResponse,
)
from locum.tls.registry import CIPHER_SUITES, NamedGroup, ProtocolVersion, SignatureScheme

LEAF = pki.leaf(pki.intermediate(pki.ca()))
TLS_1_3, TLS_1_2 = ProtocolVersion.TLS_1_3, ProtocolVersion.TLS_1_2


def start(request: StartRequest = START, **options: object) -> StartResponse:
    (response,) = authority(**options).open(TERMINAL).perform([request])
    assert isinstance(response, StartResponse)
    return response


def verdict(request: AuthenticateRequest, start: StartRequest = START, **options: object) -> Verdict:
    session = authority(**options).open(TERMINAL)
    keyed13(session, start)
    (response,) = session.perform([request])
    assert isinstance(response, Verdict)
    return response


# --- start -------------------------------------------------------------------------------------------------


def test_default_method_has_everything_in_order() -> None:
    method = start()
    assert method.versions == (TLS_1_3, TLS_1_2)
    assert method.cipher_suites == tuple(CIPHER_SUITES)
    assert method.groups[:5] == (
        NamedGroup.X25519,
        NamedGroup.SECP256R1,
        NamedGroup.X25519MLKEM768,
        NamedGroup.SECP384R1,
        NamedGroup.SECP256R1MLKEM768,
    )
    assert method.key_share_group == NamedGroup.X25519
    assert len(method.key_share) == 32
    assert method.key_form is KeyForm.SECRET
    assert {SignatureScheme.MLDSA65, SignatureScheme.RSA_PKCS1_SHA256} <= set(method.signature_schemes)


def test_suites_come_in_the_order_of_the_registry() -> None:
    request = dataclasses.replace(START, cipher_suites=(0xC02F, 0x1303, 0x1301, 0x9999))
    assert start(request).cipher_suites == (0x1301, 0x1303, 0xC02F)


def test_version_without_a_suite_is_not_chosen() -> None:
    assert start(dataclasses.replace(START, cipher_suites=(0x1301,))).versions == (TLS_1_3,)
    assert start(dataclasses.replace(START, cipher_suites=(0xC02F,))).versions == (TLS_1_2,)


def test_unknown_version_is_not_chosen() -> None:
    assert start(dataclasses.replace(START, versions=(0x0305, TLS_1_3, 0x0302))).versions == (TLS_1_3,)


def test_terminal_limits_and_orders_the_groups() -> None:
    groups = (NamedGroup.X25519MLKEM768, 0x9999, NamedGroup.X25519)
    method = start(dataclasses.replace(START, groups=groups))
    assert method.groups == (NamedGroup.X25519MLKEM768, NamedGroup.X25519)
    assert method.key_share_group == NamedGroup.X25519MLKEM768
    assert len(method.key_share) == 1216


def test_finite_fields_are_offered_to_tls_1_2_alone() -> None:
    assert NamedGroup.FFDHE2048 in start().groups
    assert NamedGroup.FFDHE2048 not in start(dataclasses.replace(START, versions=(TLS_1_3,))).groups
    assert NamedGroup.FFDHE2048 not in start(dataclasses.replace(START, cipher_suites=(0x1301, 0xC02B))).groups


def test_finite_field_gets_no_key_share() -> None:
    request = dataclasses.replace(START, groups=(NamedGroup.FFDHE2048, NamedGroup.X448))
    assert start(request).key_share_group == NamedGroup.X448


def test_tls_1_2_alone_needs_no_key_share_and_no_hybrid() -> None:
    method = start(start12())
    assert (method.key_share_group, method.key_share) == (0, b"")
    assert NamedGroup.X25519MLKEM768 not in method.groups
    assert SignatureScheme.MLDSA65 not in method.signature_schemes


@pytest.mark.parametrize(
    "changes",
    [
        {"versions": (0x0302,)},
        {"versions": ()},
        {"cipher_suites": ()},
        {"cipher_suites": (0x002F,)},
        {"groups": (0x9999,)},
        {"groups": (NamedGroup.FFDHE2048,)},
        {"key_forms": ()},
        {"server_name": ""},
        {"server_name": "not a name"},
    ],
    ids=str,
)
def test_offer_of_which_nothing_is_left_is_refused(changes: dict[str, object]) -> None:
    session = authority().open(TERMINAL)
    with pytest.raises(Refused):
        session.perform([dataclasses.replace(START, **changes)])  # type: ignore[arg-type]


def test_options_of_the_node_limit_the_method() -> None:
    options = LocalOptions(
        versions=(TLS_1_2,),
        cipher_suites=(0xC02C, 0xC02B),
        groups=(NamedGroup.SECP384R1,),
        key_forms=(KeyForm.KEYS,),
    )
    method = start(options=options)
    assert method.versions == (TLS_1_2,)
    assert method.cipher_suites == (0xC02B, 0xC02C)
    assert method.groups == (NamedGroup.SECP384R1,)
    assert method.key_form is KeyForm.KEYS
    session = authority(options=options).open(TERMINAL)
    with pytest.raises(Refused, match="key form"):
        session.perform([dataclasses.replace(START, key_forms=(KeyForm.SECRET,))])


@pytest.mark.parametrize(
    "wrong",
    [{"versions": ()}, {"versions": (0x0302,)}, {"cipher_suites": (1,)}, {"groups": (1,)}, {"key_forms": ()}],
)
def test_options_that_are_none_are_a_configuration_error(wrong: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ConfigurationError):
        LocalOptions(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rules",
    [
        (),
        (PolicyRule(terminal="meter-8", peer="*", action=Action.ALLOW),),
        (*ALLOW_ALL, PolicyRule(terminal="*", peer=f"dns:{pki.PEER_NAME}", action=Action.DENY)),
        (*ALLOW_ALL, PolicyRule(terminal="*", peer=f"ip:{pki.PEER_ADDRESS}", action=Action.DENY)),
    ],
)
def test_denied_peer_is_refused_before_any_key_is_made(
    rules: tuple[PolicyRule, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(name: str) -> None:
        raise AssertionError("a key was made")

    session = authority(policy=rules).open(TERMINAL)
    monkeypatch.setattr("locum.crypto.asymmetric.groups.start", never)
    with pytest.raises(Refused, match="polic"):
        session.perform([START])


# --- generate_key ------------------------------------------------------------------------------------------


def test_handshake_secrets_are_those_of_the_server() -> None:
    session = authority().open(TERMINAL)
    (method,) = session.perform([START])
    assert isinstance(method, StartResponse)
    request, shared = server_share(method)
    (response,) = session.perform([request])
    expected = schedule.handshake_traffic_secrets(
        SHA256, schedule.handshake_secret(SHA256, shared), TRANSCRIPT_HASH
    )
    assert isinstance(response, HandshakeSecretsResponse)
    assert (response.client_secret, response.server_secret) == expected


def test_retry_gives_a_share_in_the_group_asked_for() -> None:
    session = authority().open(TERMINAL)
    (first,) = session.perform([START])
    (second,) = session.perform([KeyShareRequest(group=NamedGroup.SECP384R1)])
    assert isinstance(second, KeyShareResponse)
    assert len(second.key_share) == 97
    assert isinstance(first, StartResponse)
    with pytest.raises(Misbehaved):
        session.perform([server_share(first)[0]])


@pytest.mark.parametrize("group", [NamedGroup.X25519, NamedGroup.FFDHE2048, 0x9999])
def test_retry_in_a_group_that_cannot_be_is_misbehaviour(group: int) -> None:
    session = authority().open(TERMINAL)
    session.perform([START])
    with pytest.raises(Misbehaved):
        session.perform([KeyShareRequest(group=group)])


def test_retry_within_the_groups_of_the_terminal_only() -> None:
    session = authority().open(TERMINAL)
    session.perform([dataclasses.replace(START, groups=(NamedGroup.X25519,))])
    with pytest.raises(Misbehaved):
        session.perform([KeyShareRequest(group=NamedGroup.SECP256R1)])


def test_bad_share_of_the_server_ends_the_session() -> None:
    session = authority().open(TERMINAL)
    session.perform([START])
    request = HandshakeSecretsRequest(
        cipher_suite=TLS_AES_128_GCM_SHA256,
        group=NamedGroup.X25519,
        key_share=bytes(32),
        transcript_hash=TRANSCRIPT_HASH,
    )
    with pytest.raises(Misbehaved):
        session.perform([request])
    with pytest.raises(Refused, match="over"):
        session.perform([request])


@pytest.mark.parametrize(
    "changes",
    [{"cipher_suite": 0xC02B}, {"cipher_suite": 0x9999}, {"transcript_hash": bytes(31)}, {"cipher_suite": 0x1302}],
    ids=str,
)
def test_secrets_for_what_was_not_agreed_are_refused(changes: dict[str, object]) -> None:
    session = authority().open(TERMINAL)
    (method,) = session.perform([START])
    assert isinstance(method, StartResponse)
    with pytest.raises(Refused):
        session.perform([dataclasses.replace(server_share(method)[0], **changes)])  # type: ignore[arg-type]


def test_suite_that_was_not_offered_is_refused() -> None:
    session = authority().open(TERMINAL)
    (method,) = session.perform([dataclasses.replace(START, cipher_suites=(0x1303,))])
    assert isinstance(method, StartResponse)
    with pytest.raises(Refused, match="0x1301"):
        session.perform([server_share(method)[0]])


def test_bare_secret_is_for_resumption_alone() -> None:
    session = authority().open(TERMINAL)
    session.perform([START])
    with pytest.raises(Refused, match="resumption"):
        session.perform([SharedSecretRequest(group=NamedGroup.X25519, key_share=bytes(31) + b"\x09")])


def test_resumption_gets_the_bare_secret_and_nothing_more() -> None:
    session = authority().open(TERMINAL)
    (method,) = session.perform([dataclasses.replace(START, resumption=True)])
    assert isinstance(method, StartResponse)
    private = x25519.X25519PrivateKey.generate()
    share = private.public_key().public_bytes_raw()
    (response,) = session.perform([SharedSecretRequest(group=NamedGroup.X25519, key_share=share)])
    assert isinstance(response, SharedSecretResponse)
    assert response.secret == private.exchange(x25519.X25519PublicKey.from_public_bytes(method.key_share))
    with pytest.raises(Refused, match="over"):
        session.perform([MasterSecretRequest()])


def test_server_may_decline_the_resumption() -> None:
    session = authority().open(TERMINAL)
    keyed13(session, dataclasses.replace(START, resumption=True))
    responses = session.perform([authenticate13(LEAF), MasterSecretRequest()])
    assert isinstance(responses[1], MasterSecretResponse)


def test_resumption_does_not_get_around_the_verdict() -> None:
    session = authority().open(TERMINAL)
    keyed13(session, dataclasses.replace(START, resumption=True))
    with pytest.raises(Refused):
        session.perform([SharedSecretRequest(group=NamedGroup.X25519, key_share=bytes(31) + b"\x09")])


# --- authenticate ------------------------------------------------------------------------------------------


def test_master_secret_follows_an_accepted_verdict() -> None:
    session = authority().open(TERMINAL)
    (method,) = session.perform([START])
    assert isinstance(method, StartResponse)
    request, shared = server_share(method)
    session.perform([request])
    answer, key = session.perform([authenticate13(LEAF), MasterSecretRequest()])
    assert answer == Verdict(authentic=True, allowed=True, identity=f"dns:{pki.PEER_NAME}")
    assert isinstance(key, MasterSecretResponse)
    assert key.secret == schedule.master_secret(SHA256, schedule.handshake_secret(SHA256, shared))
    with pytest.raises(Refused, match="over"):
        session.perform([MasterSecretRequest()])


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [
        ("p384", SignatureScheme.ECDSA_SECP384R1_SHA384),
        ("p521", SignatureScheme.ECDSA_SECP521R1_SHA512),
        ("rsa", SignatureScheme.RSA_PSS_RSAE_SHA256),
        ("ed25519", SignatureScheme.ED25519),
        ("ed448", SignatureScheme.ED448),
        ("mldsa65", SignatureScheme.MLDSA65),
    ],
)
def test_peer_with_every_kind_of_key_is_authentic(kind: str, scheme: SignatureScheme) -> None:
    leaf = pki.leaf(pki.ca(), kind)
    content = schedule.certificate_verify_content(b"server", TRANSCRIPT_HASH)
    signature = sign(scheme.name, leaf.key, content)
    assert verdict(authenticate13(leaf, scheme, signature=signature)).accepted


def test_peer_reached_by_its_address_has_an_address_as_identity() -> None:
    request = dataclasses.replace(START, server_name=pki.PEER_ADDRESS)
    assert verdict(authenticate13(LEAF), request).identity == f"ip:{pki.PEER_ADDRESS}"


FAULTY = [
    pytest.param(pki.leaf(pki.ca(), not_after=pki.NOW - pki.DAY / 2), Fault.EXPIRED, id="expired"),
    pytest.param(pki.leaf(pki.ca(name="Unknown")), Fault.UNKNOWN_ISSUER, id="unknown-issuer"),
    pytest.param(pki.leaf(pki.ca(), names=("other.example",)), Fault.WRONG_NAME, id="wrong-name"),
    pytest.param(pki.leaf(pki.ca(), usage=("key_encipherment",)), Fault.UNSUPPORTED, id="key-usage"),
    pytest.param(pki.leaf(pki.ca(), must_staple=True), Fault.BAD_STATUS_RESPONSE, id="must-staple"),
]


@pytest.mark.parametrize(("leaf", "fault"), FAULTY)
def test_peer_that_is_not_authentic_ends_the_session(leaf: pki.Issued, fault: Fault) -> None:
    session = authority().open(TERMINAL)
    keyed13(session)
    responses = session.perform([authenticate13(leaf), MasterSecretRequest()])
    assert len(responses) == 1
    (answer,) = responses
    assert isinstance(answer, Verdict)
    assert (answer.authentic, answer.allowed, answer.identity, answer.fault) == (False, False, "", fault)
    assert answer.reason
    with pytest.raises(Refused, match="over"):
        session.perform([MasterSecretRequest()])


def test_revoked_peer() -> None:
    leaf = pki.leaf(pki.ca(), slot="revoked")
    trust = TrustMaterial(anchors=(pki.ca().pem,), crls=(pki.crl(pki.ca(), [leaf.certificate]),))
    assert verdict(authenticate13(leaf), trust=trust).fault is Fault.REVOKED


def test_staple_is_part_of_the_chain() -> None:
    leaf = pki.leaf(pki.ca())
    good = pki.ocsp_response(pki.ca(), leaf.certificate)
    revoked = pki.ocsp_response(pki.ca(), leaf.certificate, revoked=True)
    assert verdict(authenticate13(leaf, chain=PeerChain(leaf.chain, good))).accepted
    assert verdict(authenticate13(leaf, chain=PeerChain(leaf.chain, revoked))).fault is Fault.REVOKED


@pytest.mark.parametrize(
    ("scheme", "signature"),
    [
        (SignatureScheme.ECDSA_SECP256R1_SHA256, b"\x30\x06\x02\x01\x01\x02\x01\x01"),
        (SignatureScheme.ECDSA_SECP256R1_SHA256, b""),
        (SignatureScheme.RSA_PSS_RSAE_SHA256, bytes(256)),
        (SignatureScheme.ECDSA_SECP384R1_SHA384, b"\x30\x06\x02\x01\x01\x02\x01\x01"),
        (0x0203, b"x"),
        (0, b""),
    ],
)
def test_signature_that_does_not_prove_the_key_is_a_bad_signature(scheme: int, signature: bytes) -> None:
    answer = verdict(authenticate13(LEAF, scheme, signature=signature))
    assert (answer.authentic, answer.fault) == (False, Fault.BAD_SIGNATURE)


def test_signature_of_another_handshake_is_a_bad_signature() -> None:
    request = dataclasses.replace(authenticate13(LEAF), content=bytes(31) + b"\x01")
    assert verdict(request).fault is Fault.BAD_SIGNATURE


def test_signature_of_a_client_is_a_bad_signature() -> None:
    # RFC 8446 section 4.4.3: the context strings keep the two roles apart.
    content = schedule.certificate_verify_content(b"client", TRANSCRIPT_HASH)
    signature = sign("ECDSA_SECP256R1_SHA256", LEAF.key, content)
    assert verdict(authenticate13(LEAF, signature=signature)).fault is Fault.BAD_SIGNATURE


def test_peer_that_policy_denies_by_its_pin_is_authentic_and_not_allowed() -> None:
    # The pin is known only when the peer has shown its key, so the start cannot deny it.
    pin = PinnedKey(name="lab", key=LEAF.public_pem, peers=("*",))
    answer = verdict(
        authenticate13(LEAF),
        trust=TrustMaterial(pinned=(pin,)),
        policy=(*ALLOW_ALL, PolicyRule(terminal="*", peer="pin:lab", action=Action.DENY)),
    )
    assert (answer.authentic, answer.allowed, answer.fault) == (True, False, Fault.POLICY)
    assert answer.identity == "pin:lab"
    assert "pin:lab" in answer.reason


def test_rule_for_a_pin_allows_nobody_else_of_that_name() -> None:
    pin = PinnedKey(name="lab", key=pki.leaf(pki.ca(), slot="pinned").public_pem, peers=("*",))
    answer = verdict(
        authenticate13(LEAF),
        trust=TrustMaterial(anchors=(pki.ca().pem,), pinned=(pin,)),
        policy=(PolicyRule(terminal="*", peer="pin:lab", action=Action.ALLOW),),
    )
    assert (answer.authentic, answer.allowed) == (True, False)
    assert answer.identity == f"dns:{pki.PEER_NAME}"


@pytest.mark.parametrize("form", ["public_pem", "pem", "der"])
def test_pinned_key_needs_no_authority_and_no_dates(form: str) -> None:
    leaf = pki.leaf(pki.ca("ed448", "Nobody Knows"), "ed25519", not_after=pki.NOW - pki.DAY / 2)
    pin = PinnedKey(name="lab", key=getattr(leaf, form), peers=(f"dns:{pki.PEER_NAME}",))
    signature = leaf.key.sign(schedule.certificate_verify_content(b"server", TRANSCRIPT_HASH))
    request = authenticate13(leaf, SignatureScheme.ED25519, signature=signature)
    answer = verdict(request, trust=TrustMaterial(pinned=(pin,)))
    assert answer == Verdict(authentic=True, allowed=True, identity="pin:lab")


def test_pinned_key_is_good_for_its_peers_alone() -> None:
    pin = PinnedKey(name="lab", key=LEAF.public_pem, peers=("dns:other.example.com", "ip:192.0.2.0/24"))
    assert verdict(authenticate13(LEAF), trust=TrustMaterial(pinned=(pin,))).fault is Fault.UNKNOWN_ISSUER
    other = dataclasses.replace(START, server_name="192.0.2.77")
    assert verdict(authenticate13(LEAF), other, trust=TrustMaterial(pinned=(pin,))).identity == "pin:lab"


def test_key_that_the_library_does_not_know_matches_no_pin() -> None:
    # The object identifier of P-256, 1.2.840.10045.3.1.7, made into that of another curve.
    unknown = LEAF.der.replace(bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d030105"))
    assert unknown != LEAF.der
    pin = PinnedKey(name="lab", key=LEAF.public_pem, peers=("*",))
    request = authenticate13(LEAF, chain=PeerChain((unknown,)))
    assert verdict(request, trust=TrustMaterial(pinned=(pin,))).fault is Fault.UNSUPPORTED


def test_terminals_word_about_the_address_does_not_stretch_a_pin() -> None:
    pin = PinnedKey(name="lab", key=LEAF.public_pem, peers=(f"ip:{pki.PEER_ADDRESS}",))
    answer = verdict(authenticate13(LEAF), trust=TrustMaterial(pinned=(pin,)))
    assert not answer.authentic


@pytest.mark.parametrize(
    "changes",
    [
        {"cipher_suite": 0x1302},
        {"cipher_suite": 0x1303},
        {"cipher_suite": 0xC02B},
        {"version": TLS_1_2, "cipher_suite": 0xC02B, "content": bytes(100)},
        {"version": 0x0302},
        {"content": b""},
    ],
    ids=str,
)
def test_authentication_that_is_not_of_this_handshake_is_refused(changes: dict[str, object]) -> None:
    session = authority().open(TERMINAL)
    keyed13(session)
    with pytest.raises(Refused):
        session.perform([dataclasses.replace(authenticate13(LEAF), **changes)])  # type: ignore[arg-type]


# --- order -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        authenticate13(LEAF),
        MasterSecretRequest(),
        KeyShareRequest(group=NamedGroup.SECP256R1),
        SharedSecretRequest(group=NamedGroup.X25519, key_share=bytes(32)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_nothing_is_done_before_the_start(request_: Request) -> None:
    with pytest.raises(Refused, match="not been started"):
        authority().open(TERMINAL).perform([request_])


def test_no_key_before_the_verdict() -> None:
    session = authority().open(TERMINAL)
    keyed13(session)
    with pytest.raises(Refused):
        session.perform([MasterSecretRequest()])


def test_no_verdict_before_the_secrets() -> None:
    session = authority().open(TERMINAL)
    session.perform([START])
    with pytest.raises(Refused):
        session.perform([authenticate13(LEAF)])


def test_every_operation_is_performed_once() -> None:
    for repeated in (START, authenticate13(LEAF)):
        session = authority().open(TERMINAL)
        keyed13(session)
        session.perform([authenticate13(LEAF)])
        with pytest.raises(Refused, match="before"):
            session.perform([repeated])


def test_retry_is_over_when_the_secrets_are_made() -> None:
    session = authority().open(TERMINAL)
    keyed13(session)
    with pytest.raises(Refused):
        session.perform([KeyShareRequest(group=NamedGroup.SECP256R1)])


def test_closed_session_does_nothing_more() -> None:
    session = authority().open(TERMINAL)
    keyed13(session)
    session.close()
    session.close()
    with pytest.raises(Refused, match="over"):
        session.perform([authenticate13(LEAF)])


def test_foreign_request_is_refused() -> None:
    with pytest.raises(Refused, match="not an operation"):
        authority().open(TERMINAL).perform([Request()])


@pytest.mark.parametrize("ending", ["close", "failure", "last key"])
def test_session_that_has_ended_holds_no_secret(ending: str) -> None:
    session = authority().open(TERMINAL)
    keyed13(session)
    if ending == "close":
        session.close()
    elif ending == "failure":
        with pytest.raises(LocumError):
            session.perform([MasterSecretRequest()])
    else:
        session.perform([authenticate13(LEAF), MasterSecretRequest()])
    held = {name: getattr(session._session, name) for name in ("_agreement", "_secret", "_exchange", "_chosen")}
    assert set(held.values()) == {None}


def test_representation_shows_no_secret() -> None:
    session = authority().open(TERMINAL)
    keyed13(session)
    assert repr(session) == "<LocalSession of 'meter-7'>"


# --- memory of chains --------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = pki.EPOCH

    def __call__(self) -> float:
        return self.now


def counting(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    calls: list[object] = []
    validate = PathValidator.validate

    def count(self: PathValidator, *arguments: object, **keywords: object) -> object:
        calls.append(arguments)
        return validate(self, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(PathValidator, "validate", count)
    return calls


def ask(authority: LocalAuthority, request: AuthenticateRequest, start: StartRequest = START) -> Verdict:
    session = authority.open(TERMINAL)
    keyed13(session, start)
    (answer,) = session.perform([request])
    assert isinstance(answer, Verdict)
    return answer


def test_chain_is_validated_once_and_its_signature_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counting(monkeypatch)
    delegate = authority()
    for _ in range(3):
        assert ask(delegate, authenticate13(LEAF)).accepted
    assert len(calls) == 1
    assert ask(delegate, authenticate13(LEAF, signature=b"x")).fault is Fault.BAD_SIGNATURE


def test_validated_chain_is_good_for_its_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counting(monkeypatch)
    delegate = authority()
    assert ask(delegate, authenticate13(LEAF)).accepted
    other = dataclasses.replace(START, server_name="other.example.com")
    assert ask(delegate, authenticate13(LEAF), other).fault is Fault.WRONG_NAME
    assert len(calls) == 2


def test_validated_chain_is_forgotten_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, clock = counting(monkeypatch), Clock()
    delegate = authority(now=clock)
    for seconds in (0.0, CACHE_LIFETIME - 1, CACHE_LIFETIME + 1):
        clock.now = pki.EPOCH + seconds
        assert ask(delegate, authenticate13(LEAF)).accepted
    assert len(calls) == 2


def test_clock_that_is_set_back_forgets_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, clock = counting(monkeypatch), Clock()
    delegate = authority(now=clock)
    ask(delegate, authenticate13(LEAF))
    clock.now -= 10
    ask(delegate, authenticate13(LEAF))
    assert len(calls) == 2


def test_validated_chain_is_not_good_past_its_end() -> None:
    clock = Clock()
    delegate = authority(now=clock)
    leaf = pki.leaf(pki.ca(), not_after=pki.NOW + pki.DAY / 1440)
    assert ask(delegate, authenticate13(leaf)).accepted
    clock.now += 61
    assert ask(delegate, authenticate13(leaf)).fault is Fault.EXPIRED


def test_rejected_chain_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counting(monkeypatch)
    delegate = authority()
    stranger = pki.leaf(pki.ca(name="Unknown"))
    for _ in range(2):
        assert ask(delegate, authenticate13(stranger)).fault is Fault.UNKNOWN_ISSUER
    assert len(calls) == 2


def test_memory_of_chains_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locum.authority.authentication.MAX_CACHED_CHAINS", 2)
    calls = counting(monkeypatch)
    delegate = authority()
    leaves = [pki.leaf(pki.ca(), slot=f"bounded {number}") for number in range(3)]
    for leaf in leaves:
        ask(delegate, authenticate13(leaf))
    ask(delegate, authenticate13(leaves[2]))
    assert len(calls) == 3
    ask(delegate, authenticate13(leaves[0]))
    assert len(calls) == 4


@pytest.mark.parametrize(
    "trust",
    [
        TrustMaterial(anchors=(b"rubbish",)),
        TrustMaterial(crls=(b"rubbish",)),
        TrustMaterial(pinned=(PinnedKey(name="x", key=b"rubbish", peers=("*",)),)),
        TrustMaterial(pinned=(PinnedKey(name="x", key=pki.ca().pem, peers=("rubbish",)),)),
    ],
)
def test_bad_trust_material_is_a_configuration_error(trust: TrustMaterial) -> None:
    with pytest.raises(ConfigurationError):
        authority(trust=trust)
