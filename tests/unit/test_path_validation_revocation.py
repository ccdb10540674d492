"""Revocation: CRLs that were given, and stapled OCSP responses."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support import pki

from locum.crypto.asymmetric.certificates import PathValidator, Peer, Rejected
from locum.crypto.asymmetric.revocation import (
    CLOCK_SKEW,
    OCSP_LIFETIME_WITHOUT_NEXT_UPDATE,
    load_crl,
)
from locum.errors import ConfigurationError
from locum.handshake import Fault

ROOT = pki.ca()
INTERMEDIATE = pki.intermediate(ROOT)
LEAF = pki.leaf(INTERMEDIATE)
OTHER = pki.leaf(INTERMEDIATE, names=("other.example.com",), slot="other")


def validate(
    leaf: pki.Issued = LEAF, *, crls: tuple[bytes, ...] = (), staple: bytes = b"", now: float = pki.EPOCH
) -> Peer:
    return PathValidator((ROOT.pem,), crls).validate(leaf.chain, staple, pki.PEER_NAME, now=now)


def rejection(leaf: pki.Issued = LEAF, **options: object) -> Rejected:
    with pytest.raises(Rejected) as raised:
        validate(leaf, **options)  # type: ignore[arg-type]
    return raised.value


# --- CRLs --------------------------------------------------------------------------------------------------


def test_certificate_on_a_list_is_revoked() -> None:
    rejected = rejection(crls=(pki.crl(INTERMEDIATE, [LEAF.certificate]),))
    assert rejected.fault is Fault.REVOKED
    assert f"{LEAF.certificate.serial_number:x}" in str(rejected)


def test_certificate_not_on_the_list_is_good_until_its_next_update() -> None:
    peer = validate(crls=(pki.crl(INTERMEDIATE, [OTHER.certificate]),))
    assert peer.valid_until == pki.EPOCH + 30 * 86400


def test_intermediate_on_the_roots_list_is_revoked() -> None:
    assert rejection(crls=(pki.crl(ROOT, [INTERMEDIATE.certificate]),)).fault is Fault.REVOKED


def test_list_of_another_authority_says_nothing() -> None:
    stranger = pki.ca(name="Stranger")
    validate(crls=(pki.crl(stranger, [LEAF.certificate]),))


def test_stale_list_fails_closed() -> None:
    stale = pki.crl(INTERMEDIATE, next_update=pki.NOW - pki.DAY / 2)
    rejected = rejection(crls=(stale,))
    assert rejected.fault is Fault.BAD_STATUS_RESPONSE
    assert "give a newer one" in str(rejected)


def test_newer_list_takes_the_place_of_a_stale_one() -> None:
    stale = pki.crl(INTERMEDIATE, this_update=pki.NOW - 9 * pki.DAY, next_update=pki.NOW - pki.DAY / 2)
    fresh = pki.crl(INTERMEDIATE)
    validate(crls=(stale, fresh))
    validate(crls=(fresh, stale))


def test_newer_list_counts_alone() -> None:
    old = pki.crl(INTERMEDIATE, this_update=pki.NOW - 9 * pki.DAY)
    new = pki.crl(INTERMEDIATE, [LEAF.certificate])
    assert rejection(crls=(old, new)).fault is Fault.REVOKED


def test_forged_list_fails_closed() -> None:
    forged = pki.crl(INTERMEDIATE, signing_key=pki.key("p256", "forger"))
    rejected = rejection(crls=(forged,))
    assert rejected.fault is Fault.BAD_STATUS_RESPONSE
    assert "signed" in str(rejected)


def test_forged_list_revokes_nobody() -> None:
    forged = pki.crl(INTERMEDIATE, [LEAF.certificate], signing_key=pki.key("p256", "forger"))
    validate(crls=(forged, pki.crl(INTERMEDIATE, this_update=pki.NOW - 9 * pki.DAY)))


def test_list_of_an_authority_that_may_not_sign_lists() -> None:
    usage = pki._key_usage(key_cert_sign=True)
    basic = x509.BasicConstraints(ca=True, path_length=None)
    silent = pki.leaf(
        ROOT,
        names=(),
        subject="Silent",
        slot="ca:Silent",
        usage=None,
        purposes=None,
        plain=True,
        extensions=((basic, True), (usage, True)),
    )
    leaf = pki.leaf(silent)
    validate(leaf)
    assert rejection(leaf, crls=(pki.crl(silent),)).fault is Fault.BAD_STATUS_RESPONSE


def test_list_of_an_authority_with_a_malformed_extension() -> None:
    rubbish = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.31"), b"\x02\x01\x05")
    odd = pki.intermediate(ROOT, name="Odd", extensions=((rubbish, False),))
    leaf = pki.leaf(odd)
    validate(leaf)
    assert rejection(leaf, crls=(pki.crl(odd),)).fault is Fault.BAD_STATUS_RESPONSE


def test_list_of_the_future_fails_closed() -> None:
    early = pki.crl(INTERMEDIATE, this_update=pki.NOW + pki.DAY)
    assert rejection(crls=(early,)).fault is Fault.BAD_STATUS_RESPONSE
    slightly = pki.crl(INTERMEDIATE, this_update=pki.NOW + (CLOCK_SKEW - 1) * pki.DAY / 86400)
    validate(crls=(slightly,))


def test_list_in_der_is_read() -> None:
    der = load_crl(pki.crl(INTERMEDIATE, [LEAF.certificate])).public_bytes(Encoding.DER)
    assert rejection(crls=(der,)).fault is Fault.REVOKED


@pytest.mark.parametrize("data", [b"", b"rubbish", ROOT.pem, b"-----BEGIN X509 CRL-----\n-----END X509 CRL-----"])
def test_list_that_is_none_is_a_configuration_error(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        PathValidator((ROOT.pem,), (data,))


def test_partial_list_is_a_configuration_error() -> None:
    # RFC 5280 section 5.2.5: the issuingDistributionPoint is critical.
    part = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
    with pytest.raises(ConfigurationError, match=r"2\.5\.29\.28"):
        load_crl(pki.crl(INTERMEDIATE, extensions=((part, True),)))


# --- stapled OCSP ------------------------------------------------------------------------------------------


def staple(**options: object) -> bytes:
    return pki.ocsp_response(INTERMEDIATE, LEAF.certificate, **options)  # type: ignore[arg-type]


def test_good_response_limits_how_long_the_chain_is_good() -> None:
    assert validate(staple=staple()).valid_until == pki.EPOCH + 7 * 86400


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256()], ids=lambda each: each.name)
def test_certificate_id_with_any_hash_is_understood(algorithm: hashes.HashAlgorithm) -> None:
    validate(staple=staple(algorithm=algorithm))


@pytest.mark.parametrize("kind", ["rsa", "p384", "p521", "mldsa65"])
def test_response_of_an_authority_of_every_kind(kind: str) -> None:
    root = pki.ca(kind)
    leaf = pki.leaf(root)
    response = pki.ocsp_response(root, leaf.certificate)
    PathValidator((root.pem,)).validate(leaf.chain, response, pki.PEER_NAME, now=pki.EPOCH)


def test_revoked() -> None:
    assert rejection(staple=staple(revoked=True)).fault is Fault.REVOKED


def test_unknown_certificate_is_not_good_news() -> None:
    assert rejection(staple=staple(unknown=True)).fault is Fault.BAD_STATUS_RESPONSE


def test_response_about_another_certificate() -> None:
    response = pki.ocsp_response(INTERMEDIATE, OTHER.certificate)
    assert rejection(staple=response).fault is Fault.BAD_STATUS_RESPONSE


def test_response_about_the_same_serial_number_of_another_issuer() -> None:
    stranger = pki.ca(name="Stranger")
    response = pki.ocsp_response(stranger, LEAF.certificate, responder=pki.ocsp_responder(INTERMEDIATE))
    rejected = rejection(staple=response)
    assert rejected.fault is Fault.BAD_STATUS_RESPONSE
    assert "another certificate" in str(rejected)


def test_forged_response() -> None:
    rejected = rejection(staple=staple(forged=True))
    assert rejected.fault is Fault.BAD_STATUS_RESPONSE
    assert "signed" in str(rejected)


def test_expired_response() -> None:
    rejected = rejection(staple=staple(next_update=pki.NOW - pki.DAY / 2))
    assert rejected.fault is Fault.BAD_STATUS_RESPONSE
    assert "good until" in str(rejected)


def test_response_without_next_update_is_good_for_a_week() -> None:
    response = staple(this_update=pki.NOW, next_update=None)
    assert validate(staple=response).valid_until == pki.EPOCH + OCSP_LIFETIME_WITHOUT_NEXT_UPDATE
    later = pki.EPOCH + OCSP_LIFETIME_WITHOUT_NEXT_UPDATE + 1
    assert rejection(staple=response, now=later).fault is Fault.BAD_STATUS_RESPONSE


def test_response_of_the_future() -> None:
    response = staple(this_update=pki.NOW + pki.DAY)
    assert rejection(staple=response).fault is Fault.BAD_STATUS_RESPONSE


@pytest.mark.parametrize("response", [b"rubbish", b"\x30\x03\x0a\x01\x03", pki.ocsp_error()])
def test_response_that_is_none(response: bytes) -> None:
    assert rejection(staple=response).fault is Fault.BAD_STATUS_RESPONSE


def test_delegated_responder_is_accepted() -> None:
    validate(staple=staple(responder=pki.ocsp_responder(INTERMEDIATE)))


def test_responder_without_the_purpose_is_not() -> None:
    response = staple(responder=pki.ocsp_responder(INTERMEDIATE, delegated=False))
    assert rejection(staple=response).fault is Fault.BAD_STATUS_RESPONSE


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "mldsa44"])
def test_responder_may_have_another_kind_of_key(kind: str) -> None:
    validate(staple=staple(responder=pki.ocsp_responder(INTERMEDIATE, kind)))


def test_responder_whose_key_is_not_for_signatures_is_not() -> None:
    response = staple(responder=pki.ocsp_responder(INTERMEDIATE, usage=("key_agreement",)))
    assert rejection(staple=response).fault is Fault.BAD_STATUS_RESPONSE


def test_responder_of_another_authority_is_not() -> None:
    response = staple(responder=pki.ocsp_responder(pki.ca(name="Stranger")))
    assert rejection(staple=response).fault is Fault.BAD_STATUS_RESPONSE


def test_expired_responder_is_not() -> None:
    responder = pki.ocsp_responder(INTERMEDIATE)
    leaf = pki.leaf(INTERMEDIATE, not_after=pki.NOW + 800 * pki.DAY)
    options = {"responder": responder, "next_update": pki.NOW + 500 * pki.DAY}
    response = pki.ocsp_response(INTERMEDIATE, leaf.certificate, **options)  # type: ignore[arg-type]
    validate(leaf, staple=response)
    after = responder.certificate.not_valid_after_utc.timestamp() + 86400
    assert rejection(leaf, staple=response, now=after).fault is Fault.BAD_STATUS_RESPONSE


def test_certificate_that_demands_a_staple_without_one() -> None:
    # RFC 7633 section 4.2.3.1.
    leaf = pki.leaf(INTERMEDIATE, must_staple=True)
    rejected = rejection(leaf)
    assert rejected.fault is Fault.BAD_STATUS_RESPONSE
    assert "RFC 7633" in str(rejected)
    validate(leaf, staple=pki.ocsp_response(INTERMEDIATE, leaf.certificate))


def test_list_and_staple_are_both_checked() -> None:
    listed = pki.crl(INTERMEDIATE, [LEAF.certificate])
    assert rejection(crls=(listed,), staple=staple()).fault is Fault.REVOKED
