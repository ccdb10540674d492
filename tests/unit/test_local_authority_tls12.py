"""LocalAuthority, TLS 1.2: every key exchange, both key forms of A7, and what binds them together."""

import dataclasses
import subprocess

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dh, ec, padding, x448, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from tests.support import pki
from tests.support.exchange import (
    DHE_RSA,
    ECDHE_ECDSA,
    ECDHE_RSA,
    EXTENDED_KEYS,
    FULL_KEYS,
    RANDOMS,
    RSA,
    START,
    TERMINAL,
    TRANSCRIPT_HASH,
    authenticate12,
    authenticate_rsa,
    authority,
    ecdh_parameters,
    exchanged12,
    start12,
)
from tests.support.require import require

from locum.authority.local import LocalSession
from locum.crypto.asymmetric.finite_field import FiniteFieldGroup, ffdhe, modp
from locum.errors import DecodeError, Incompatible, Misbehaved, Refused
from locum.handshake import Fault, PeerChain, Request, Verdict
from locum.tls import schedule
from locum.tls.operations import (
    AuthenticateRequest,
    ClientKeyExchangeRequest,
    ClientKeyExchangeResponse,
    KeyBlockResponse,
    KeyForm,
    MasterSecretRequest,
    MasterSecretResponse,
    ServerFinishedRequest,
    ServerFinishedResponse,
    SessionKeysRequest,
    StartRequest,
)
from locum.tls.registry import CIPHER_SUITES, NamedGroup, ProtocolVersion, SignatureScheme

pytestmark = pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields")

LEAF = pki.leaf(pki.ca())
RSA_LEAF = pki.leaf(pki.ca(), "rsa")
SUITE = CIPHER_SUITES[ECDHE_ECDSA]


def session(start: StartRequest | None = None, **options: object) -> LocalSession:
    opened = authority(**options).open(TERMINAL)
    opened.perform([start or start12()])
    return opened


def exchange(
    parameters: bytes, *, leaf: pki.Issued = LEAF, suite: int = ECDHE_ECDSA, start: StartRequest | None = None
) -> tuple[LocalSession, ClientKeyExchangeResponse]:
    opened = session(start)
    answer, response = opened.perform(
        [
            authenticate12(leaf, parameters, suite=suite),
            ClientKeyExchangeRequest(cipher_suite=suite, parameters=parameters),
        ]
    )
    assert isinstance(answer, Verdict)
    assert answer.accepted
    assert isinstance(response, ClientKeyExchangeResponse)
    return opened, response


def master_secret(opened: LocalSession, request: SessionKeysRequest = EXTENDED_KEYS) -> bytes:
    (response,) = opened.perform([request])
    assert isinstance(response, MasterSecretResponse)
    return response.secret


def expected_master(pre_master: bytes, suite: int = ECDHE_ECDSA) -> bytes:
    return schedule.master_secret12(CIPHER_SUITES[suite].hash, pre_master, EXTENDED_KEYS.seed, True)


# --- ECDHE -------------------------------------------------------------------------------------------------


def test_x25519() -> None:
    private = x25519.X25519PrivateKey.generate()
    opened, response = exchange(ecdh_parameters(point=private.public_key().public_bytes_raw()))
    assert response.body[0] == 32
    secret = private.exchange(x25519.X25519PublicKey.from_public_bytes(response.body[1:]))
    assert master_secret(opened) == expected_master(secret)


def test_x448() -> None:
    private = x448.X448PrivateKey.generate()
    parameters = ecdh_parameters(NamedGroup.X448, private.public_key().public_bytes_raw())
    opened, response = exchange(parameters)
    secret = private.exchange(x448.X448PublicKey.from_public_bytes(response.body[1:]))
    assert master_secret(opened) == expected_master(secret)


@pytest.mark.parametrize(
    ("group", "curve"), [(NamedGroup.SECP256R1, ec.SECP256R1()), (NamedGroup.SECP384R1, ec.SECP384R1())]
)
def test_curves(group: NamedGroup, curve: ec.EllipticCurve) -> None:
    private = ec.generate_private_key(curve)
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    opened, response = exchange(ecdh_parameters(group, point))
    peer = ec.EllipticCurvePublicKey.from_encoded_point(curve, response.body[1:])
    assert master_secret(opened) == expected_master(private.exchange(ec.ECDH(), peer))


@pytest.mark.parametrize(
    "parameters",
    [
        ecdh_parameters(NamedGroup.X25519MLKEM768, bytes(120)),
        ecdh_parameters(NamedGroup.FFDHE2048, bytes(200)),
        ecdh_parameters(0x0019, bytes(133)),
        b"\x01" + ecdh_parameters()[1:],
        ecdh_parameters(point=bytes(32)),
        ecdh_parameters(NamedGroup.SECP256R1, b"\x04" + bytes(64)),
    ],
    ids=["hybrid", "finite-field", "not-offered", "explicit-curve", "zero-share", "off-curve"],
)
def test_parameters_that_cannot_be_are_misbehaviour(parameters: bytes) -> None:
    with pytest.raises(Misbehaved):
        exchange(parameters)


def test_group_that_the_terminal_left_out_is_misbehaviour() -> None:
    with pytest.raises(Misbehaved, match="SECP384R1"):
        exchange(ecdh_parameters(NamedGroup.SECP384R1, bytes(97)), start=start12(groups=(NamedGroup.X25519,)))


@pytest.mark.parametrize(
    "parameters",
    [b"\x03", b"\x03\x00\x1d\x20" + bytes(31), ecdh_parameters() + b"\0"],
    ids=["cut-off", "short-share", "trailing"],
)
def test_malformed_parameters_are_a_decode_error(parameters: bytes) -> None:
    with pytest.raises(DecodeError):
        exchange(parameters)


# --- DHE ---------------------------------------------------------------------------------------------------


def _vector(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def dh_parameters(prime: int, generator: int, public: int) -> bytes:
    values = (prime, generator, public)
    return b"".join(_vector(value.to_bytes((value.bit_length() + 7) // 8 or 1, "big")) for value in values)


def dh_private(group: FiniteFieldGroup) -> dh.DHPrivateKey:
    return dh.DHParameterNumbers(group.prime, 2).parameters().generate_private_key()


@pytest.mark.parametrize("group", [ffdhe(2048), ffdhe(3072), modp(2048), modp(4096)], ids=lambda each: each.name)
def test_dhe_in_groups_of_known_origin(group: FiniteFieldGroup) -> None:
    private = dh_private(group)
    parameters = dh_parameters(group.prime, 2, private.public_key().public_numbers().y)
    opened, response = exchange(parameters, leaf=RSA_LEAF, suite=DHE_RSA)
    assert int.from_bytes(response.body[:2], "big") == len(response.body) - 2 == group.length
    numbers = dh.DHPublicNumbers(int.from_bytes(response.body[2:], "big"), dh.DHParameterNumbers(group.prime, 2))
    secret = private.exchange(numbers.public_key())
    assert master_secret(opened) == expected_master(secret.lstrip(b"\0"), DHE_RSA)


@pytest.mark.parametrize("group", [ffdhe(6144), ffdhe(8192), modp(8192)], ids=lambda each: each.name)
def test_no_server_makes_us_compute_in_a_larger_group_than_was_offered(group: FiniteFieldGroup) -> None:
    with pytest.raises(Incompatible, match="larger"):
        exchange(dh_parameters(group.prime, 2, 5), leaf=RSA_LEAF, suite=DHE_RSA)


def test_the_groups_that_are_offered_bound_those_that_the_server_may_make() -> None:
    two_groups = (NamedGroup.X25519, NamedGroup.FFDHE2048)
    exchange(dh_parameters(modp(2048).prime, 2, 5), leaf=RSA_LEAF, suite=DHE_RSA, start=start12(groups=two_groups))
    with pytest.raises(Incompatible, match="larger"):
        exchange(
            dh_parameters(ffdhe(3072).prime, 2, 5), leaf=RSA_LEAF, suite=DHE_RSA, start=start12(groups=two_groups)
        )


def test_without_a_finite_field_group_in_the_offer_the_server_makes_its_own() -> None:
    start = start12(groups=(NamedGroup.X25519,))
    exchange(dh_parameters(modp(4096).prime, 2, 5), leaf=RSA_LEAF, suite=DHE_RSA, start=start)
    with pytest.raises(Incompatible, match="larger"):
        exchange(dh_parameters(modp(6144).prime, 2, 5), leaf=RSA_LEAF, suite=DHE_RSA, start=start)


def test_leading_zeros_of_the_dhe_secret_are_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    # RFC 5246 section 8.1.2. A secret that begins with zeros is made by letting the library give one.
    padded = b"\0\0" + bytes(range(1, 255))
    monkeypatch.setattr("locum.crypto.asymmetric.groups.KeyAgreement.complete", lambda self, share: padded)
    opened, _ = exchange(dh_parameters(ffdhe(2048).prime, 2, 5), leaf=RSA_LEAF, suite=DHE_RSA)
    assert master_secret(opened) == expected_master(padded[2:], DHE_RSA)


def _rfc5114_group() -> tuple[int, int]:
    require("openssl")
    pem = subprocess.run(
        ["openssl", "genpkey", "-algorithm", "DH", "-pkeyopt", "group:dh_2048_256"],
        capture_output=True,
        check=True,
    ).stdout
    numbers = load_pem_private_key(pem, None).parameters().parameter_numbers()  # type: ignore[union-attr]
    return numbers.p, numbers.g


@pytest.mark.parametrize(
    ("prime", "generator"),
    [(ffdhe(2048).prime, 5), (ffdhe(2048).prime + 2, 2), (23, 5), ((1 << 1024) - 105, 2)],
    ids=["generator", "prime", "tiny", "1024-bits"],
)
def test_group_of_unknown_origin_is_incompatible(prime: int, generator: int) -> None:
    with pytest.raises(Incompatible, match="RFC 7919"):
        exchange(dh_parameters(prime, generator, 5), leaf=RSA_LEAF, suite=DHE_RSA)


def test_group_of_rfc_5114_with_its_small_subgroup_is_incompatible() -> None:
    with pytest.raises(Incompatible, match="RFC 7919"):
        exchange(dh_parameters(*_rfc5114_group(), 5), leaf=RSA_LEAF, suite=DHE_RSA)


@pytest.mark.parametrize("public", [0, 1, ffdhe(2048).prime - 1, ffdhe(2048).prime])
def test_public_value_outside_the_group_is_misbehaviour(public: int) -> None:
    with pytest.raises(Misbehaved):
        exchange(dh_parameters(ffdhe(2048).prime, 2, public), leaf=RSA_LEAF, suite=DHE_RSA)


def test_malformed_dh_parameters_are_a_decode_error() -> None:
    with pytest.raises(DecodeError):
        exchange(dh_parameters(ffdhe(2048).prime, 2, 5)[:-1], leaf=RSA_LEAF, suite=DHE_RSA)


# --- RSA ---------------------------------------------------------------------------------------------------


def test_rsa_encrypts_version_and_random_to_the_certificate() -> None:
    opened = session(random=lambda length: bytes(range(length)))
    answer, response = opened.perform([authenticate_rsa(RSA_LEAF), ClientKeyExchangeRequest(cipher_suite=RSA)])
    assert isinstance(answer, Verdict)
    assert answer.accepted
    assert isinstance(response, ClientKeyExchangeResponse)
    assert response.body[:2] == b"\x01\x00"
    pre_master = RSA_LEAF.key.decrypt(response.body[2:], padding.PKCS1v15())
    # RFC 5246 section 7.4.7.1: the version offered in the ClientHello, and 46 random bytes.
    assert pre_master == b"\x03\x03" + bytes(range(46))
    assert master_secret(opened) == expected_master(pre_master, RSA)


@pytest.mark.parametrize("claim", [{"signature": b"x"}, {"content": RANDOMS + b"x"}])
def test_rsa_key_exchange_with_anything_signed_is_refused(claim: dict[str, bytes]) -> None:
    """Nobody has verified it, so nothing later may take it for the peer's word."""
    with pytest.raises(Refused, match="nothing is signed"):
        session().perform([dataclasses.replace(authenticate_rsa(RSA_LEAF), **claim)])


@pytest.mark.parametrize(
    ("leaf", "suite"),
    [
        (pki.leaf(pki.ca(), "rsa", usage=("digital_signature",)), RSA),
        (LEAF, RSA),
        (LEAF, ECDHE_RSA),
        (RSA_LEAF, ECDHE_ECDSA),
        (pki.leaf(pki.ca(), "rsa", usage=("key_encipherment",)), ECDHE_RSA),
    ],
    ids=["no-encipherment", "ecdsa-for-rsa", "ecdsa-for-ecdhe-rsa", "rsa-for-ecdhe-ecdsa", "no-signature"],
)
def test_certificate_that_does_not_fit_the_suite_is_unsupported(leaf: pki.Issued, suite: int) -> None:
    request = authenticate_rsa(leaf) if suite == RSA else authenticate12(leaf, ecdh_parameters(), suite=suite)
    (answer,) = session().perform([request])
    assert isinstance(answer, Verdict)
    assert (answer.authentic, answer.fault) == (False, Fault.UNSUPPORTED)


# --- authenticate ------------------------------------------------------------------------------------------


def test_rsa_key_may_sign_with_pkcs1_or_pss() -> None:
    assert session().perform([authenticate12(RSA_LEAF, ecdh_parameters())])[0].accepted  # type: ignore[attr-defined]
    parameters = ecdh_parameters()
    signature = RSA_LEAF.key.sign(
        RANDOMS + parameters, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()
    )
    request = dataclasses.replace(
        authenticate12(RSA_LEAF, parameters), scheme=SignatureScheme.RSA_PSS_RSAE_SHA256, signature=signature
    )
    assert session().perform([request])[0].accepted  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["ed25519", "ed448"])
def test_eddsa_key_signs_for_ecdsa_suites(kind: str) -> None:
    # RFC 8422 section 5.5.
    leaf = pki.leaf(pki.ca(), kind)
    parameters = ecdh_parameters()
    request = AuthenticateRequest(
        version=ProtocolVersion.TLS_1_2,
        cipher_suite=ECDHE_ECDSA,
        chain=PeerChain(leaf.chain),
        scheme=SignatureScheme[kind.upper()],
        signature=leaf.key.sign(RANDOMS + parameters),
        content=RANDOMS + parameters,
    )
    assert session().perform([request])[0].accepted  # type: ignore[attr-defined]


def test_any_curve_may_sign_with_any_hash() -> None:
    leaf = pki.leaf(pki.ca(), "p384")
    parameters = ecdh_parameters()
    request = dataclasses.replace(
        authenticate12(LEAF, parameters),
        chain=PeerChain(leaf.chain),
        signature=leaf.key.sign(RANDOMS + parameters, ec.ECDSA(hashes.SHA256())),
    )
    assert session().perform([request])[0].accepted  # type: ignore[attr-defined]


def test_signature_over_other_randoms_is_a_bad_signature() -> None:
    request = authenticate12(LEAF, ecdh_parameters())
    request = dataclasses.replace(request, content=bytes(64) + request.content[64:])
    (answer,) = session().perform([request])
    assert isinstance(answer, Verdict)
    assert answer.fault is Fault.BAD_SIGNATURE


@pytest.mark.parametrize("content", [b"", RANDOMS, RANDOMS[:-1]])
def test_signature_over_no_parameters_is_refused(content: bytes) -> None:
    signature = LEAF.key.sign(content, ec.ECDSA(hashes.SHA256()))
    request = dataclasses.replace(authenticate12(LEAF, ecdh_parameters()), content=content, signature=signature)
    with pytest.raises(Refused):
        session().perform([request])


def test_rejected_peer_gets_no_key_exchange() -> None:
    stranger = pki.leaf(pki.ca(name="Unknown"))
    parameters = ecdh_parameters()
    opened = session()
    responses = opened.perform(
        [
            authenticate12(stranger, parameters),
            ClientKeyExchangeRequest(cipher_suite=ECDHE_ECDSA, parameters=parameters),
        ]
    )
    assert len(responses) == 1


# --- what binds one operation to the other -----------------------------------------------------------------


def test_no_key_exchange_before_the_verdict() -> None:
    with pytest.raises(Refused):
        session().perform([ClientKeyExchangeRequest(cipher_suite=ECDHE_ECDSA, parameters=ecdh_parameters())])


def test_parameters_that_were_not_signed_are_refused() -> None:
    opened = session()
    opened.perform([authenticate12(LEAF, ecdh_parameters())])
    with pytest.raises(Refused, match="not those that were authenticated"):
        opened.perform([ClientKeyExchangeRequest(cipher_suite=ECDHE_ECDSA, parameters=ecdh_parameters())])


def test_key_exchange_for_another_suite_is_refused() -> None:
    parameters = ecdh_parameters()
    opened = session()
    opened.perform([authenticate12(LEAF, parameters)])
    with pytest.raises(Refused, match="another cipher suite"):
        opened.perform([ClientKeyExchangeRequest(cipher_suite=RSA, parameters=parameters)])


def test_keys_of_other_randoms_than_were_signed_are_refused() -> None:
    opened = authority().open(TERMINAL)
    exchanged12(opened, LEAF)
    with pytest.raises(Refused, match="randoms"):
        opened.perform([SessionKeysRequest(extended=False, seed=bytes(64))])


def test_no_keys_before_the_key_exchange() -> None:
    opened = session()
    opened.perform([authenticate12(LEAF, ecdh_parameters())])
    with pytest.raises(Refused):
        opened.perform([EXTENDED_KEYS])


@pytest.mark.parametrize("request_", [MasterSecretRequest(), ServerFinishedRequest(finished_hash=bytes(32))])
def test_operations_of_another_flow_are_refused(request_: Request) -> None:
    opened = authority().open(TERMINAL)
    exchanged12(opened, LEAF)
    with pytest.raises(Refused):
        opened.perform([request_])


def test_suite_of_tls_1_3_is_not_one_of_tls_1_2() -> None:
    request = dataclasses.replace(authenticate12(LEAF, ecdh_parameters()), cipher_suite=0x1301)
    opened = authority().open(TERMINAL)
    opened.perform([START])
    with pytest.raises(Refused):
        opened.perform([request])


def test_offer_of_both_versions_can_end_in_tls_1_2() -> None:
    opened = authority().open(TERMINAL)
    exchanged12(opened, LEAF, START)
    assert len(master_secret(opened)) == 48


# --- both key forms (A7) -----------------------------------------------------------------------------------


def test_master_secret_without_the_extension() -> None:
    private = x25519.X25519PrivateKey.generate()
    opened, response = exchange(ecdh_parameters(point=private.public_key().public_bytes_raw()))
    secret = private.exchange(x25519.X25519PublicKey.from_public_bytes(response.body[1:]))
    expected = schedule.master_secret12(SUITE.hash, secret, RANDOMS, False)
    assert master_secret(opened, SessionKeysRequest(extended=False, seed=RANDOMS)) == expected


def test_session_is_over_with_the_master_secret() -> None:
    opened = authority().open(TERMINAL)
    exchanged12(opened, LEAF)
    master_secret(opened)
    with pytest.raises(Refused, match="over"):
        opened.perform([EXTENDED_KEYS])


@pytest.mark.parametrize(
    "request_",
    [
        SessionKeysRequest(extended=True, seed=bytes(64)),
        SessionKeysRequest(extended=True, seed=b""),
        SessionKeysRequest(extended=False, seed=bytes(32)),
    ],
)
def test_seed_of_the_wrong_length_is_refused(request_: SessionKeysRequest) -> None:
    opened = authority().open(TERMINAL)
    exchanged12(opened, LEAF)
    with pytest.raises(Refused, match="seed"):
        opened.perform([request_])


def test_terminal_that_takes_keys_never_gets_the_master_secret() -> None:
    private = x25519.X25519PrivateKey.generate()
    parameters = ecdh_parameters(point=private.public_key().public_bytes_raw())
    opened, exchanged = exchange(parameters, start=start12(key_forms=(KeyForm.KEYS,)))
    secret = private.exchange(x25519.X25519PublicKey.from_public_bytes(exchanged.body[1:]))
    master = expected_master(secret)

    (keys,) = opened.perform([FULL_KEYS])
    assert isinstance(keys, KeyBlockResponse)
    assert keys.key_block == schedule.key_block12(SUITE, master, RANDOMS)
    assert keys.client_verify_data == schedule.verify_data12(
        SUITE.hash, master, b"client finished", TRANSCRIPT_HASH
    )

    (finished,) = opened.perform([ServerFinishedRequest(finished_hash=bytes(31) + b"\x01")])
    assert isinstance(finished, ServerFinishedResponse)
    assert finished.server_verify_data == schedule.verify_data12(
        SUITE.hash, master, b"server finished", bytes(31) + b"\x01"
    )
    with pytest.raises(Refused, match="over"):
        opened.perform([ServerFinishedRequest(finished_hash=bytes(32))])


@pytest.mark.parametrize(
    "changes", [{"randoms": b""}, {"randoms": bytes(64)}, {"finished_hash": b""}, {"finished_hash": bytes(48)}]
)
def test_keys_need_the_randoms_and_the_transcript(changes: dict[str, bytes]) -> None:
    opened = authority().open(TERMINAL)
    exchanged12(opened, LEAF, start12(key_forms=(KeyForm.KEYS,)))
    with pytest.raises(Refused):
        opened.perform([dataclasses.replace(FULL_KEYS, **changes)])  # type: ignore[arg-type]


def test_server_finished_needs_the_transcript() -> None:
    opened = authority().open(TERMINAL)
    exchanged12(opened, LEAF, start12(key_forms=(KeyForm.KEYS,)))
    opened.perform([FULL_KEYS])
    with pytest.raises(Refused):
        opened.perform([ServerFinishedRequest(finished_hash=b"")])
