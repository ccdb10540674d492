"""Key agreement: shares, secrets, and what a hostile peer may send instead."""

import hashlib
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x448, x25519
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from locum.crypto.asymmetric import groups
from locum.crypto.asymmetric.finite_field import ffdhe, find_group, modp
from locum.errors import Incompatible, Misbehaved
from locum.tls.registry import NamedGroup

pytestmark = pytest.mark.filterwarnings("ignore:Diffie-Hellman over finite fields")

SHARE_LENGTHS = {
    "SECP256R1": 65,
    "SECP384R1": 97,
    "X25519": 32,
    "X448": 56,
    "FFDHE2048": 256,
    "FFDHE3072": 384,
    "FFDHE4096": 512,
    "FFDHE6144": 768,
    "FFDHE8192": 1024,
    "SECP256R1MLKEM768": 65 + 1184,
    "X25519MLKEM768": 1184 + 32,
}
SYMMETRIC = [name for name in SHARE_LENGTHS if "MLKEM" not in name]


def test_every_named_group_is_implemented() -> None:
    assert SHARE_LENGTHS.keys() == NamedGroup.__members__.keys()


@pytest.mark.parametrize("name", SHARE_LENGTHS)
def test_share_has_the_length_of_its_group(name: str) -> None:
    assert len(groups.start(name).share) == SHARE_LENGTHS[name]


@pytest.mark.parametrize("name", SYMMETRIC)
def test_both_sides_get_the_same_secret(name: str) -> None:
    ours, theirs = groups.start(name), groups.start(name)
    assert ours.complete(theirs.share) == theirs.complete(ours.share)


@pytest.mark.parametrize("name", SHARE_LENGTHS)
def test_a_responder_gets_the_initiators_secret(name: str) -> None:
    initiator = groups.start(name)
    share, secret = groups.respond(name, initiator.share)
    assert initiator.complete(share) == secret


@pytest.mark.parametrize("name", ["X25519MLKEM768", "SECP256R1MLKEM768"])
def test_a_responder_checks_both_parts_of_a_hybrid_share(name: str) -> None:
    share = groups.start(name).share
    for wrong in (b"", share[:-1], share + b"\0", share[1:], bytes(len(share)), share[:100]):
        with pytest.raises(Misbehaved):
            groups.respond(name, wrong)


def test_unknown_group_is_incompatible() -> None:
    with pytest.raises(Incompatible, match="0x9999"):
        groups.start("0x9999")


def test_agreement_is_used_up_by_completing() -> None:
    agreement, peer = groups.start("X25519"), groups.start("X25519")
    agreement.complete(peer.share)
    with pytest.raises(RuntimeError):
        agreement.complete(peer.share)


def test_agreement_is_used_up_by_a_bad_share() -> None:
    agreement = groups.start("X25519")
    with pytest.raises(Misbehaved):
        agreement.complete(bytes(32))
    with pytest.raises(RuntimeError):
        agreement.complete(groups.start("X25519").share)


def test_discarded_agreement_cannot_be_completed() -> None:
    agreement = groups.start("X25519")
    agreement.discard()
    with pytest.raises(RuntimeError):
        agreement.complete(groups.start("X25519").share)


def test_representation_shows_no_secret() -> None:
    agreement = groups.start("X25519")
    assert agreement.share.hex() not in repr(agreement)


# --- hybrids (draft-ietf-tls-ecdhe-mlkem section 3) --------------------------------------------------------


def test_x25519mlkem768_puts_mlkem_first() -> None:
    agreement = groups.start("X25519MLKEM768")
    mlkem_secret, ciphertext = MLKEM768PublicKey.from_public_bytes(agreement.share[:1184]).encapsulate()
    private = x25519.X25519PrivateKey.generate()
    curve_secret = private.exchange(x25519.X25519PublicKey.from_public_bytes(agreement.share[1184:]))
    share = ciphertext + private.public_key().public_bytes_raw()
    assert len(share) == 1120
    assert agreement.complete(share) == mlkem_secret + curve_secret


def test_secp256r1mlkem768_puts_the_curve_first() -> None:
    agreement = groups.start("SECP256R1MLKEM768")
    mlkem_secret, ciphertext = MLKEM768PublicKey.from_public_bytes(agreement.share[65:]).encapsulate()
    private = ec.generate_private_key(ec.SECP256R1())
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), agreement.share[:65])
    curve_secret = private.exchange(ec.ECDH(), point)
    share = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint) + ciphertext
    assert len(share) == 1153
    assert agreement.complete(share) == curve_secret + mlkem_secret


# --- hostile shares ----------------------------------------------------------------------------------------


def _compressed(curve: ec.EllipticCurve) -> bytes:
    public = ec.generate_private_key(curve).public_key()
    return public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def _prime(name: str) -> int:
    return ffdhe(int(name.removeprefix("FFDHE"))).prime


HOSTILE = [
    pytest.param("X25519", bytes(32), id="x25519-zero"),
    pytest.param("X25519", b"\x01" + bytes(31), id="x25519-small-order"),
    pytest.param("X25519", bytes(31), id="x25519-short"),
    pytest.param("X25519", bytes(33), id="x25519-long"),
    pytest.param("X448", bytes(56), id="x448-zero"),
    pytest.param("X448", bytes(55), id="x448-short"),
    pytest.param("SECP256R1", b"\x04" + bytes(63) + b"\x01", id="p256-off-curve"),
    pytest.param("SECP256R1", b"\x00", id="p256-infinity"),
    pytest.param("SECP256R1", b"", id="p256-empty"),
    pytest.param("SECP256R1", _compressed(ec.SECP256R1()), id="p256-compressed"),
    pytest.param("SECP256R1", b"\x06" + bytes(64), id="p256-hybrid-form"),
    pytest.param("SECP384R1", b"\x04" + bytes(64), id="p384-with-a-p256-length"),
    pytest.param("FFDHE2048", b"\x00", id="ffdhe-zero"),
    pytest.param("FFDHE2048", b"\x01", id="ffdhe-one"),
    pytest.param("FFDHE2048", (_prime("FFDHE2048") - 1).to_bytes(256, "big"), id="ffdhe-minus-one"),
    pytest.param("FFDHE2048", _prime("FFDHE2048").to_bytes(256, "big"), id="ffdhe-prime"),
    pytest.param("FFDHE2048", b"\x02".rjust(257, b"\0"), id="ffdhe-long"),
    pytest.param("X25519MLKEM768", bytes(1120), id="hybrid-zero-curve"),
    pytest.param("X25519MLKEM768", bytes(1119), id="hybrid-short"),
    pytest.param("X25519MLKEM768", bytes(32), id="hybrid-curve-alone"),
    pytest.param("SECP256R1MLKEM768", bytes(1153), id="hybrid-p256-zero"),
    pytest.param("SECP256R1MLKEM768", b"", id="hybrid-empty"),
]


@pytest.mark.parametrize(("name", "share"), HOSTILE)
def test_hostile_share_is_misbehaviour(name: str, share: bytes) -> None:
    with pytest.raises(Misbehaved):
        groups.start(name).complete(share)


def test_second_part_of_a_hybrid_has_its_length_checked() -> None:
    agreement = groups.start("SECP256R1MLKEM768")
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    share = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint) + bytes(1087)
    with pytest.raises(Misbehaved, match="1088"):
        agreement.complete(share)


def test_x448_agrees_with_the_library() -> None:
    agreement, private = groups.start("X448"), x448.X448PrivateKey.generate()
    expected = private.exchange(x448.X448PublicKey.from_public_bytes(agreement.share))
    assert agreement.complete(private.public_key().public_bytes_raw()) == expected


# --- finite fields (RFC 7919, RFC 3526) --------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2048, 3072, 4096, 6144, 8192])
@pytest.mark.parametrize("family", ["ffdhe", "modp_"])
def test_computed_prime_is_the_one_openssl_has(family: str, bits: int) -> None:
    command = ["openssl", "genpkey", "-algorithm", "DH", "-pkeyopt", f"group:{family}{bits}"]
    pem = subprocess.run(command, capture_output=True, check=True).stdout
    numbers = load_pem_private_key(pem, None).parameters().parameter_numbers()  # type: ignore[union-attr]
    group = ffdhe(bits) if family == "ffdhe" else modp(bits)
    assert (group.prime, group.generator) == (numbers.p, numbers.g)
    assert group.length == bits // 8


def test_ffdhe2048_ends_as_rfc_7919_prints_it() -> None:
    # RFC 7919 appendix A.1: the last line of the hexadecimal representation.
    assert f"{ffdhe(2048).prime:X}".endswith("886B423861285C97FFFFFFFFFFFFFFFF")


def test_modp2048_ends_as_rfc_3526_prints_it() -> None:
    # RFC 3526 section 3.
    assert f"{modp(2048).prime:X}".endswith("15728E5A8AACAA68FFFFFFFFFFFFFFFF")


@pytest.mark.parametrize("group", [ffdhe(2048), ffdhe(8192), modp(3072)], ids=lambda group: group.name)
def test_group_is_found_by_its_numbers(group: object) -> None:
    assert find_group(group.prime, 2) is group  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("prime", "generator"),
    [
        (ffdhe(2048).prime, 5),
        (ffdhe(2048).prime - 2, 2),
        (23, 5),
        (0, 2),
        (int.from_bytes(hashlib.sha512(b"trapdoor").digest() * 4, "big") | 1 << 2047, 2),
        (modp(2048).order, 2),
    ],
)
def test_unknown_group_is_not_found(prime: int, generator: int) -> None:
    assert find_group(prime, generator) is None


def test_secret_of_a_finite_field_keeps_its_leading_zeros() -> None:
    # Enough tries to meet a secret that begins with a zero byte, one in 256, would be slow; its length says it.
    ours, theirs = groups.start("FFDHE2048"), groups.start("FFDHE2048")
    assert len(ours.complete(theirs.share)) == 256
