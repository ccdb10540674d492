"""New private keys for the key server, and what a certification authority wants to see of them.

Never keeps a key, and issues no certificate.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key
from cryptography.x509.oid import NameOID

from locum.errors import ConfigurationError
from locum.names import normalize_dns_name

#: RSA keys have this public exponent.
RSA_EXPONENT = 65537
#: Longest commonName in characters (RFC 5280 appendix A.1, ub-common-name).
COMMON_NAME_LIMIT = 64
#: Most names in one request.
NAMES_LIMIT = 100


def _rsa(bits: int) -> Callable[[], PrivateKeyTypes]:
    return lambda: rsa.generate_private_key(RSA_EXPONENT, bits)


def _elliptic(curve: ec.EllipticCurve) -> Callable[[], PrivateKeyTypes]:
    return lambda: ec.generate_private_key(curve)


_GENERATORS: dict[str, Callable[[], PrivateKeyTypes]] = {
    "rsa2048": _rsa(2048),
    "rsa3072": _rsa(3072),
    "rsa4096": _rsa(4096),
    "p256": _elliptic(ec.SECP256R1()),
    "p384": _elliptic(ec.SECP384R1()),
    "p521": _elliptic(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "ml-dsa-44": mldsa.MLDSA44PrivateKey.generate,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
    "ml-dsa-87": mldsa.MLDSA87PrivateKey.generate,
}
#: The kinds of keys that can be made, as `KeyNames.kind` has them.
KINDS = tuple(_GENERATORS)


def generate(kind: str) -> PrivateKeyTypes:
    """A new private key of one of the `KINDS`; ConfigurationError for any other."""
    generator = _GENERATORS.get(kind)
    if generator is None:
        raise ConfigurationError(f"{kind!r} is not a kind of key: {', '.join(KINDS)}")
    return generator()


def signing_request(private_key: bytes, names: Sequence[str]) -> bytes:
    """A PKCS #10 certificate signing request in PEM (RFC 2986) for a PKCS #8 key in DER.

    `names` are DNS names, perhaps with ``*.`` in front, and IP addresses, 1 to 100; the first that is short enough
    becomes the commonName. Raises: ConfigurationError when one cannot be a name.
    """
    if not 1 <= len(names) <= NAMES_LIMIT:
        raise ConfigurationError(f"a signing request is for 1 to {NAMES_LIMIT} names")
    alternatives = [_general_name(name) for name in names]
    common = next((str(name.value) for name in alternatives if len(str(name.value)) <= COMMON_NAME_LIMIT), None)
    subject = x509.Name([] if common is None else [x509.NameAttribute(NameOID.COMMON_NAME, common)])
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=common is None)
    )
    # EdDSA and ML-DSA hash by themselves.
    match load_der_private_key(private_key, None):
        case rsa.RSAPrivateKey() | ec.EllipticCurvePrivateKey() as key:
            return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
        case (
            ed25519.Ed25519PrivateKey()
            | ed448.Ed448PrivateKey()
            | mldsa.MLDSA44PrivateKey()
            | mldsa.MLDSA65PrivateKey()
            | mldsa.MLDSA87PrivateKey()
        ) as key:
            return builder.sign(key, None).public_bytes(Encoding.PEM)
    raise ConfigurationError("a key of this kind signs no request")


def _general_name(text: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        wildcard = "*." if text.startswith("*.") else ""
        return x509.DNSName(wildcard + normalize_dns_name(text.removeprefix("*.")))
