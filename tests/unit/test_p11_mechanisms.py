"""Mechanisms: what each signs under which scheme, and what none of them signs."""

import hashlib

import pytest

from locum.edge.p11.mechanisms import MAX_CONTENT, SIGNING, Failed, scheme_and_content, signing
from locum.edge.p11.registry import Mechanism, Rv

NONE = (0, 0, 0)
DIGESTS = {bits: hashlib.new(f"sha{bits}", b"content").digest() for bits in (256, 384, 512)}
PSS = {256: (0x250, 2, 32), 384: (0x260, 3, 48), 512: (0x270, 4, 64)}
INFO = {
    256: bytes.fromhex("3031300d060960864801650304020105000420"),
    384: bytes.fromhex("3041300d060960864801650304020205000430"),
    512: bytes.fromhex("3051300d060960864801650304020305000440"),
}
CURVES = {256: "SECP256R1", 384: "SECP384R1", 512: "SECP521R1"}


@pytest.mark.parametrize("bits", [256, 384, 512])
def test_digests_become_digests_under_a_scheme(bits: int) -> None:
    digest = DIGESTS[bits]
    pss = signing(Mechanism.RSA_PKCS_PSS, PSS[bits])
    assert scheme_and_content(pss, PSS[bits][0], digest) == (f"RSA_PSS_RSAE_SHA{bits}", digest)
    pkcs1 = signing(Mechanism.RSA_PKCS, NONE)
    assert scheme_and_content(pkcs1, 0, INFO[bits] + digest) == (f"RSA_PKCS1_SHA{bits}", digest)
    ecdsa = signing(Mechanism.ECDSA, NONE)
    assert scheme_and_content(ecdsa, 0, digest) == (f"ECDSA_{CURVES[bits]}_SHA{bits}", digest)


@pytest.mark.parametrize("bits", [256, 384, 512])
def test_contents_stay_contents(bits: int) -> None:
    for mechanism, parameters, scheme in (
        (Mechanism[f"SHA{bits}_RSA_PKCS"], NONE, f"RSA_PKCS1_SHA{bits}"),
        (Mechanism[f"SHA{bits}_RSA_PKCS_PSS"], PSS[bits], f"RSA_PSS_RSAE_SHA{bits}"),
        (Mechanism[f"ECDSA_SHA{bits}"], NONE, f"ECDSA_{CURVES[bits]}_SHA{bits}"),
    ):
        how = signing(mechanism, parameters)
        assert how.whole
        assert scheme_and_content(how, parameters[0], b"content") == (scheme, b"content")


@pytest.mark.parametrize(
    ("mechanism", "rv"),
    [
        (3, Rv.MECHANISM_INVALID),
        (9, Rv.MECHANISM_INVALID),
        (6, Rv.MECHANISM_INVALID),
        (0x1042, Rv.MECHANISM_INVALID),
    ],
    ids=["RSA_X_509", "OAEP", "SHA1_RSA_PKCS", "ECDSA_SHA1"],
)
def test_what_is_unsafe_is_no_mechanism(mechanism: int, rv: Rv) -> None:
    assert mechanism not in SIGNING
    with pytest.raises(Failed) as failed:
        signing(mechanism, NONE)
    assert failed.value.rv is Rv.MECHANISM_INVALID


@pytest.mark.parametrize(
    ("mechanism", "parameters"),
    [
        (Mechanism.RSA_PKCS_PSS, (0x250, 2, 20)),
        (Mechanism.RSA_PKCS_PSS, (0x250, 3, 32)),
        (Mechanism.RSA_PKCS_PSS, (0x220, 1, 20)),
        (Mechanism.SHA256_RSA_PKCS_PSS, (0x260, 3, 48)),
        (Mechanism.SHA256_RSA_PKCS_PSS, NONE),
    ],
    ids=["salt", "mgf", "sha1", "another hash", "none"],
)
def test_pss_has_the_parameters_of_tls_or_none(mechanism: int, parameters: tuple[int, int, int]) -> None:
    with pytest.raises(Failed) as failed:
        signing(mechanism, parameters)
    assert failed.value.rv is Rv.MECHANISM_PARAM_INVALID


@pytest.mark.parametrize(
    ("mechanism", "parameters", "data", "rv"),
    [
        (Mechanism.RSA_PKCS, NONE, DIGESTS[256], Rv.DATA_INVALID),
        (Mechanism.RSA_PKCS, NONE, b"any text at all", Rv.DATA_INVALID),
        (Mechanism.RSA_PKCS, NONE, INFO[256] + DIGESTS[256] + b"\0", Rv.DATA_INVALID),
        (Mechanism.RSA_PKCS, NONE, INFO[384] + DIGESTS[256], Rv.DATA_INVALID),
        (Mechanism.RSA_PKCS, NONE, bytes(36), Rv.DATA_INVALID),
        (Mechanism.RSA_PKCS_PSS, PSS[256], DIGESTS[384], Rv.DATA_LEN_RANGE),
        (Mechanism.ECDSA, NONE, bytes(20), Rv.DATA_LEN_RANGE),
        (Mechanism.ECDSA, NONE, b"", Rv.DATA_LEN_RANGE),
        (Mechanism.SHA256_RSA_PKCS, NONE, bytes(MAX_CONTENT + 1), Rv.DATA_LEN_RANGE),
    ],
    ids=["bare digest", "text", "trailing byte", "wrong hash", "md5sha1", "pss length", "sha1", "empty", "long"],
)
def test_what_is_no_digest_is_not_signed(
    mechanism: int, parameters: tuple[int, int, int], data: bytes, rv: Rv
) -> None:
    with pytest.raises(Failed) as failed:
        scheme_and_content(signing(mechanism, parameters), parameters[0], data)
    assert failed.value.rv is rv
