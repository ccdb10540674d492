"""Path validation: what is accepted, and the fault and reason of everything that is not."""

import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support import pki

from locum.crypto.asymmetric.certificates import (
    MAX_CERTIFICATES,
    PathValidator,
    Peer,
    Rejected,
    describe,
    load_anchors,
    load_public_key,
)
from locum.errors import ConfigurationError
from locum.handshake import Fault

ROOT = pki.ca()
INTERMEDIATE = pki.intermediate(ROOT)


def validate(
    issued: pki.Issued,
    name: str = pki.PEER_NAME,
    *,
    anchors: tuple[bytes, ...] = (ROOT.pem,),
    now: float = pki.EPOCH,
    chain: tuple[bytes, ...] | None = None,
) -> Peer:
    return PathValidator(anchors).validate(chain or issued.chain, b"", name, now=now)


def rejection(issued: pki.Issued, name: str = pki.PEER_NAME, **options: object) -> Rejected:
    with pytest.raises(Rejected) as raised:
        validate(issued, name, **options)  # type: ignore[arg-type]
    assert raised.value.fault not in (Fault.NONE, Fault.POLICY)
    assert str(raised.value)
    assert "\n" not in str(raised.value)
    return raised.value


# --- good --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521", "mldsa44", "mldsa65", "mldsa87"])
def test_chain_of_every_kind_of_authority_is_accepted(kind: str) -> None:
    root = pki.ca(kind)
    leaf = pki.leaf(pki.intermediate(root, kind), kind)
    peer = validate(leaf, anchors=(root.pem,))
    assert peer.may_sign
    assert peer.may_encipher == (kind == "rsa")
    assert peer.valid_until == leaf.certificate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize("kind", ["ed25519", "ed448"])
def test_eddsa_leaf_of_another_authority_is_accepted(kind: str) -> None:
    assert validate(pki.leaf(ROOT, kind)).may_sign


@pytest.mark.parametrize("kind", ["ed25519", "ed448"])
def test_eddsa_authority_is_unsupported_and_the_reason_says_what_to_do(kind: str) -> None:
    root = pki.ca(kind)
    rejected = rejection(pki.leaf(root, kind), anchors=(root.pem,))
    assert rejected.fault is Fault.UNSUPPORTED
    assert "pin the peer's key" in str(rejected)


@pytest.mark.parametrize("name", [pki.PEER_NAME, "PEER.example.COM", pki.PEER_ADDRESS])
def test_name_or_address_of_the_certificate_is_accepted(name: str) -> None:
    validate(pki.leaf(INTERMEDIATE), name)


def test_ipv6_address_is_compared_as_an_address() -> None:
    validate(pki.leaf(ROOT, names=("2001:db8::1",)), "2001:0db8:0:0::1")


def test_wildcard_stands_for_one_label() -> None:
    leaf = pki.leaf(ROOT, names=("*.example.com",))
    validate(leaf, "a.example.com")
    assert rejection(leaf, "a.b.example.com").fault is Fault.WRONG_NAME
    assert rejection(leaf, "example.com").fault is Fault.WRONG_NAME


def test_intermediate_may_be_the_anchor() -> None:
    validate(pki.leaf(INTERMEDIATE), anchors=(INTERMEDIATE.pem,))


def test_leaf_may_be_the_anchor() -> None:
    leaf = pki.leaf(pki.ca(name="Nobody Knows"))
    validate(leaf, anchors=(leaf.pem,))


def test_anchors_in_der_and_several_in_one_pem_are_read() -> None:
    other = pki.ca(name="Other Root")
    assert len(load_anchors(ROOT.pem + other.pem)) == 2
    validate(pki.leaf(INTERMEDIATE), anchors=(other.der, ROOT.der))


def test_certificates_in_any_order_and_unrelated_ones_are_accepted() -> None:
    leaf = pki.leaf(INTERMEDIATE)
    validate(leaf, chain=(leaf.der, pki.ca(name="Other Root").der, INTERMEDIATE.der))


def test_old_private_root_with_basic_constraints_alone_is_accepted() -> None:
    root = pki.ca(name="Plain Root", plain=True)
    validate(pki.leaf(root, plain=True, usage=None, purposes=None), anchors=(root.pem,))


# --- faults ------------------------------------------------------------------------------------------------


def test_expired_certificate() -> None:
    rejected = rejection(pki.leaf(INTERMEDIATE, not_after=pki.NOW - pki.DAY / 2))
    assert rejected.fault is Fault.EXPIRED
    assert "expired on" in str(rejected)


def test_certificate_of_the_future() -> None:
    rejected = rejection(pki.leaf(INTERMEDIATE, not_before=pki.NOW + pki.DAY))
    assert rejected.fault is Fault.EXPIRED
    assert "valid only from" in str(rejected)


def test_expired_intermediate() -> None:
    expired = pki.intermediate(ROOT, name="Expired", not_after=pki.NOW - pki.DAY)
    rejected = rejection(pki.leaf(expired))
    assert rejected.fault is Fault.EXPIRED
    assert "CN=Expired" in str(rejected)


def test_expired_root() -> None:
    leaf = pki.leaf(ROOT, not_after=pki.NOW + 4000 * pki.DAY)
    rejected = rejection(leaf, now=pki.EPOCH + 3999 * 86400)
    assert rejected.fault is Fault.EXPIRED
    assert "trust anchor" in str(rejected)


def test_wrong_name() -> None:
    rejected = rejection(pki.leaf(INTERMEDIATE), "other.example.com")
    assert rejected.fault is Fault.WRONG_NAME
    assert "other.example.com" in str(rejected)


def test_wrong_address() -> None:
    assert rejection(pki.leaf(INTERMEDIATE), "127.0.0.2").fault is Fault.WRONG_NAME


def test_common_name_is_no_name() -> None:
    # RFC 9525 section 2: the subject's common name is not looked at.
    rejected = rejection(pki.leaf(INTERMEDIATE, names=(), subject=pki.PEER_NAME))
    assert rejected.fault is Fault.WRONG_NAME
    assert "subjectAltName" in str(rejected)


def test_name_that_no_certificate_can_prove() -> None:
    assert rejection(pki.leaf(INTERMEDIATE), "a_b.example.com").fault is Fault.WRONG_NAME


def test_unknown_issuer() -> None:
    rejected = rejection(pki.leaf(pki.ca(name="Unknown Root")))
    assert rejected.fault is Fault.UNKNOWN_ISSUER
    assert "CN=Unknown Root" in str(rejected)
    assert "locum trust add" in str(rejected)


def test_self_signed_certificate_of_a_stranger() -> None:
    assert rejection(pki.self_signed()).fault is Fault.UNKNOWN_ISSUER


def test_missing_intermediate_is_named() -> None:
    leaf = pki.leaf(INTERMEDIATE)
    rejected = rejection(leaf, chain=(leaf.der,))
    assert rejected.fault is Fault.UNKNOWN_ISSUER
    assert "CN=Test Intermediate" in str(rejected)


def test_no_anchor_at_all() -> None:
    rejected = rejection(pki.leaf(ROOT), anchors=())
    assert rejected.fault is Fault.UNKNOWN_ISSUER
    assert "no trust anchor" in str(rejected)


def test_impostor_of_a_root_is_found_by_its_signature() -> None:
    # The same subject, another key.
    impostor = replace(ROOT, key=pki.key("p256", "impostor"))
    rejected = rejection(pki.leaf(impostor, slot="victim"))
    assert rejected.fault is Fault.BAD_CERTIFICATE
    assert "not signed by" in str(rejected)


def test_altered_certificate() -> None:
    altered = bytearray(pki.leaf(INTERMEDIATE).der)
    altered[-5] ^= 1
    rejected = rejection(pki.leaf(INTERMEDIATE), chain=(bytes(altered), INTERMEDIATE.der))
    assert rejected.fault is Fault.BAD_CERTIFICATE


@pytest.mark.parametrize("rubbish", [b"", b"\x30\x03\x02\x01\x01", b"rubbish"])
def test_something_else_than_a_certificate(rubbish: bytes) -> None:
    leaf = pki.leaf(INTERMEDIATE)
    for chain in ((rubbish,), (leaf.der, rubbish)):
        assert rejection(leaf, chain=chain).fault is Fault.BAD_CERTIFICATE


def test_leaf_that_signs_certificates() -> None:
    pretender = pki.intermediate(ROOT, name="Pretender", is_ca=False)
    rejected = rejection(pki.leaf(pretender))
    assert rejected.fault is Fault.BAD_CERTIFICATE
    assert "basicConstraints" in str(rejected)


def test_authority_whose_key_usage_forbids_signing() -> None:
    crippled = pki.leaf(
        ROOT,
        names=(),
        subject="Crippled",
        slot="ca:Crippled",
        plain=True,
        purposes=None,
        extensions=((x509.BasicConstraints(ca=True, path_length=None), True),),
    )
    rejected = rejection(pki.leaf(crippled))
    assert rejected.fault is Fault.BAD_CERTIFICATE
    assert "keyUsage" in str(rejected)


def test_path_length_of_an_intermediate() -> None:
    deeper = pki.intermediate(INTERMEDIATE, name="Too Deep")
    assert rejection(pki.leaf(deeper)).fault is Fault.BAD_CERTIFICATE


def test_path_that_is_too_long() -> None:
    issuer = ROOT
    for depth in range(8):
        issuer = pki.intermediate(issuer, name=f"Depth {depth}", path_length=None)
    rejected = rejection(pki.leaf(issuer))
    assert rejected.fault is Fault.BAD_CERTIFICATE
    assert "too long" in str(rejected)


@pytest.mark.parametrize("sent_along", ["its root", "itself"])
def test_what_is_issued_by_itself_does_not_hide_that_an_issuer_is_unknown(sent_along: str) -> None:
    stranger = pki.ca(name="Nobody's Root")
    leaf = pki.leaf(stranger) if sent_along == "its root" else pki.self_signed()
    rejected = rejection(leaf, chain=(*leaf.chain, stranger.der if sent_along == "its root" else leaf.der))
    assert rejected.fault is Fault.UNKNOWN_ISSUER
    assert "locum trust add" in str(rejected)


def test_name_constraints_of_an_authority() -> None:
    constraints = x509.NameConstraints([x509.DNSName("allowed.example")], None)
    constrained = pki.intermediate(ROOT, name="Constrained", extensions=((constraints, True),))
    validate(pki.leaf(constrained, names=("a.allowed.example",)), "a.allowed.example")
    assert rejection(pki.leaf(constrained)).fault is Fault.BAD_CERTIFICATE


def test_unknown_critical_extension() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    rejected = rejection(pki.leaf(INTERMEDIATE, extensions=((unknown, True),)))
    assert rejected.fault is Fault.BAD_CERTIFICATE
    assert "1.2.3.4" in str(rejected)


@pytest.mark.parametrize("identifier", ["2.5.29.15", "2.5.29.37", "2.5.29.30", "2.5.29.31", "1.3.6.1.5.5.7.1.24"])
def test_malformed_extension(identifier: str) -> None:
    rubbish = x509.UnrecognizedExtension(x509.ObjectIdentifier(identifier), b"\x02\x01\x05")
    leaf = pki.leaf(INTERMEDIATE, usage=None, purposes=None, extensions=((rubbish, False),))
    rejected = rejection(leaf)
    assert rejected.fault is Fault.BAD_CERTIFICATE
    assert "malformed" in str(rejected)


def test_malformed_name() -> None:
    # A commonName with the tag of a BIT STRING: the library parses names only when they are asked for.
    leaf = pki.leaf(INTERMEDIATE, subject="a name that is easily found")
    altered = leaf.der.replace(b"\x0c\x1ba name", b"\x03\x1ba name")
    assert altered != leaf.der
    assert rejection(leaf, chain=(altered, INTERMEDIATE.der)).fault is Fault.BAD_CERTIFICATE


def test_certificate_for_clients() -> None:
    rejected = rejection(pki.leaf(INTERMEDIATE, purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,)))
    assert rejected.fault is Fault.BAD_CERTIFICATE
    assert "not meant for servers" in str(rejected)


def test_authority_for_clients() -> None:
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    authority = pki.intermediate(ROOT, name="For Clients", extensions=((purposes, False),))
    assert rejection(pki.leaf(authority)).fault is Fault.BAD_CERTIFICATE


def test_certificate_for_any_purpose_is_accepted() -> None:
    validate(pki.leaf(INTERMEDIATE, purposes=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)))


def test_short_rsa_key_of_a_peer() -> None:
    rejected = rejection(pki.leaf(INTERMEDIATE, "rsa1024"))
    assert rejected.fault is Fault.UNSUPPORTED
    assert "1024 bits" in str(rejected)


def test_short_rsa_key_of_an_authority() -> None:
    root = pki.ca("rsa1024", "Weak Root")
    assert rejection(pki.leaf(root), anchors=(root.pem,)).fault is Fault.UNSUPPORTED


@pytest.mark.parametrize(
    ("usage", "may_sign", "may_encipher"),
    [
        (("digital_signature",), True, False),
        (("key_encipherment",), False, True),
        (("digital_signature", "key_encipherment"), True, True),
        (("key_agreement",), False, False),
        (None, True, True),
    ],
)
def test_key_usage_says_what_the_key_is_for(
    usage: tuple[str, ...] | None, may_sign: bool, may_encipher: bool
) -> None:
    peer = validate(pki.leaf(INTERMEDIATE, "rsa", usage=usage))
    assert (peer.may_sign, peer.may_encipher) == (may_sign, may_encipher)


def test_number_of_certificates_is_limited() -> None:
    leaf = pki.leaf(INTERMEDIATE)
    validate(leaf, chain=(leaf.der, *(INTERMEDIATE.der,) * (MAX_CERTIFICATES - 1)))
    rejected = rejection(leaf, chain=(leaf.der, *(INTERMEDIATE.der,) * MAX_CERTIFICATES))
    assert rejected.fault is Fault.BAD_CERTIFICATE
    with pytest.raises(Rejected):
        PathValidator((ROOT.pem,)).validate((), b"", pki.PEER_NAME, now=pki.EPOCH)


def test_bytes_of_a_chain_are_limited() -> None:
    leaf = pki.leaf(INTERMEDIATE)
    rejected = rejection(leaf, chain=(leaf.der, bytes(64 * 1024)))
    assert rejected.fault is Fault.BAD_CERTIFICATE
    assert "bytes" in str(rejected)


def test_reason_shows_no_control_characters_of_the_peer() -> None:
    evil = pki.ca(name="Evil\x1b[2J\r\nRoot")
    assert str(rejection(pki.leaf(evil))).isprintable()


# --- what an administrator gives ---------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"rubbish", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"])
def test_anchor_that_is_none_is_a_configuration_error(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        PathValidator((data,))


def test_private_key_is_not_an_anchor() -> None:
    with pytest.raises(ConfigurationError):
        PathValidator((ROOT.key_pem,))


def test_public_key_is_found_in_every_form() -> None:
    leaf = pki.leaf(INTERMEDIATE)
    expected = load_public_key(leaf.public_pem)
    for data in (expected, leaf.pem, leaf.der):
        assert load_public_key(data) == expected


@pytest.mark.parametrize("data", [b"", b"rubbish", ROOT.key_pem])
def test_pinned_key_that_is_none_is_a_configuration_error(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        load_public_key(data)


# --- PKIs as people make them with OpenSSL -----------------------------------------------------------------


def _openssl(directory: Path, *commands: str) -> None:
    for command in commands:
        subprocess.run(["openssl", *command.split()], cwd=directory, check=True, capture_output=True)


def _now_validate(directory: Path, name: str, anchor: str = "ca.pem", certificate: str = "s.pem") -> Peer:
    der = x509.load_pem_x509_certificate((directory / certificate).read_bytes()).public_bytes(Encoding.DER)
    anchors = ((directory / anchor).read_bytes(),)
    return PathValidator(anchors).validate((der,), b"", name, now=time.time())


CURVE = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


def test_self_signed_server_of_openssl_req(tmp_path: Path) -> None:
    san = "-addext subjectAltName=DNS:device.local,IP:192.0.2.1"
    _openssl(tmp_path, f"req -x509 {CURVE} -keyout s.key -out s.pem -days 9 -subj /CN=device {san}")
    _now_validate(tmp_path, "device.local", anchor="s.pem")
    _now_validate(tmp_path, "192.0.2.1", anchor="s.pem")


def test_server_of_openssl_x509_req(tmp_path: Path) -> None:
    (tmp_path / "s.ext").write_text("subjectAltName=DNS:device.local\n")
    _openssl(
        tmp_path,
        f"req -x509 {CURVE} -keyout ca.key -out ca.pem -days 9 -subj /CN=ca",
        f"req {CURVE} -keyout s.key -out s.csr -subj /CN=device",
        "x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out s.pem -days 9 -extfile s.ext",
    )
    assert _now_validate(tmp_path, "device.local").may_sign


def test_server_certified_by_openssl_req_with_an_authority(tmp_path: Path) -> None:
    # `openssl req -x509 -CA` makes certificates with CA:TRUE.
    san = "-addext subjectAltName=DNS:device.local"
    _openssl(
        tmp_path,
        f"req -x509 {CURVE} -keyout ca.key -out ca.pem -days 9 -subj /CN=ca",
        f"req -x509 {CURVE} -keyout s.key -out s.pem -days 9 -subj /CN=device {san} -CA ca.pem -CAkey ca.key",
    )
    certificate = x509.load_pem_x509_certificate((tmp_path / "s.pem").read_bytes())
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    _now_validate(tmp_path, "device.local")


def test_description_of_a_certificate_validates_nothing() -> None:
    assert describe(pki.self_signed().certificate).may_sign
