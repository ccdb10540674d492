"""Published values of IKE's key exchanges and signatures, in the shapes in which they are on the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from locum.authority import ike_key_exchange
from locum.authority.ike_key_exchange import KeyExchange
from locum.authority.ike_signatures import verify2
from locum.crypto.asymmetric import groups
from locum.crypto.asymmetric.signatures import PublicKey
from locum.errors import Unauthenticated
from locum.ike import algorithms as alg
from locum.ike.algorithms import Group


def unspaced(text: str) -> bytes:
    return bytes.fromhex("".join(text.split()))


#: RFC 5903 section 8: i, g^i, r and the shared secret, which is x alone (section 9).
RFC_5903 = {
    alg.ECP_256: (
        ec.SECP256R1(),
        "C88F01F5 10D9AC3F 70A292DA A2316DE5 44E9AAB8 AFE84049 C62A9C57 862D1433",
        "DAD0B653 94221CF9 B051E1FE CA5787D0 98DFE637 FC90B9EF 945D0C37 72581180"
        "5271A046 1CDB8252 D61F1C45 6FA3E59A B1F45B33 ACCF5F58 389E0577 B8990BB3",
        "C6EF9C5D 78AE012A 011164AC B397CE20 88685D8F 06BF9BE0 B283AB46 476BEE53",
        "D6840F6B 42F6EDAF D13116E0 E1256520 2FEF8E9E CE7DCE03 812464D0 4B9442DE",
    ),
    alg.ECP_384: (
        ec.SECP384R1(),
        "099F3C70 34D4A2C6 99884D73 A375A67F 7624EF7C 6B3C0F16 0647B674 14DCE655"
        "E35B5380 41E649EE 3FAEF896 783AB194",
        "667842D7 D180AC2C DE6F74F3 7551F557 55C7645C 20EF73E3 1634FE72 B4C55EE6"
        "DE3AC808 ACB4BDB4 C88732AE E95F41AA"
        "9482ED1F C0EEB9CA FC498462 5CCFC23F 65032149 E0E144AD A0241815 35A0F38E"
        "EB9FCFF3 C2C947DA E69B4C63 4573A81C",
        "41CB0779 B4BDB85D 47846725 FBEC3C94 30FAB46C C8DC5060 855CC9BD A0AA2942"
        "E0308312 916B8ED2 960E4BD5 5A7448FC",
        "11187331 C279962D 93D60424 3FD592CB 9D0A926F 422E4718 7521287E 7156C5C4"
        "D6031355 69B9E9D0 9CF5D4A2 70F59746",
    ),
}


def fixed(curve: ec.EllipticCurve, value: str) -> Callable[[Any], ec.EllipticCurvePrivateKey]:
    """What makes private keys, and always this one."""
    private = ec.derive_private_key(int.from_bytes(unspaced(value), "big"), curve)
    return lambda _: private


@pytest.mark.parametrize("group", RFC_5903, ids=str)
def test_public_values_and_secret_are_those_of_rfc_5903(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    curve, initiator, public, responder, shared = RFC_5903[group]
    monkeypatch.setattr(groups.ec, "generate_private_key", fixed(curve, initiator))
    ours = KeyExchange(group)
    assert ours.public_value == unspaced(public)
    monkeypatch.setattr(groups.ec, "generate_private_key", fixed(curve, responder))
    answer, secret = ike_key_exchange.respond(group, ours.public_value)
    assert secret == unspaced(shared)
    assert ours.complete(answer) == unspaced(shared)


#: RFC 4754 section 8.1: the public key g^w, and r and s over "abc" with SHA-256.
RFC_4754_KEY = (
    "2442A5CC 0ECD015F A3CA31DC 8E2BBC70 BF42D60C BCA20085 E0822CB0 4235E970"
    "6FC98BD7 E50211A4 A27102FA 3549DF79 EBCB4BF2 46B80945 CDDFE7D5 09BBFD7D"
)
RFC_4754_SIGNATURE = (
    "CB28E099 9B9C7715 FD0A80D8 E47A7707 9716CBBF 917DD72E 97566EA1 C066957C"
    "86FA3BB4 E26CAD5B F90B7F81 899256CE 7594BB1E A0C89212 748BFF3B 3D5B0315"
)


def test_signature_of_rfc_4754_is_accepted_and_no_other() -> None:
    point = b"\4" + unspaced(RFC_4754_KEY)
    key = PublicKey.of(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point))
    signature = unspaced(RFC_4754_SIGNATURE)
    verify2(9, key, signature, b"abc", legacy_sha1=False)
    with pytest.raises(Unauthenticated):
        verify2(9, key, signature, b"abd", legacy_sha1=False)
    with pytest.raises(Unauthenticated):
        verify2(9, key, signature[32:] + signature[:32], b"abc", legacy_sha1=False)
