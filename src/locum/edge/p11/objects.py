"""The objects that keys and certificates are to PKCS#11: their attributes, from what is public about them.

Never sees a private key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from locum.edge.p11.errands import TokenObject
from locum.edge.p11.registry import Attribute, CertificateType, KeyType, ObjectClass
from locum.errors import ConfigurationError
from locum.keyless.queries import OfferedKey

#: CKA_EC_PARAMS of the curves that there are mechanisms for: the object identifier of the curve in DER.
_CURVE_OIDS = {
    "secp256r1": bytes.fromhex("06082a8648ce3d030107"),
    "secp384r1": bytes.fromhex("06052b81040022"),
    "secp521r1": bytes.fromhex("06052b81040023"),
}
#: An uncompressed point is an OCTET STRING in CKA_EC_POINT; its tag and length, by the length of the point.
_POINT_HEADS = {65: b"\x04\x41", 97: b"\x04\x61", 133: b"\x04\x81\x85"}

Attributes = dict[int, int | bytes]


def key_objects(key: OfferedKey) -> Iterator[TokenObject]:
    """The private and the public key object of a key; none for a kind that these clients have no mechanism for."""
    public_key = load_der_public_key(key.public_key)
    match public_key:
        case rsa.RSAPublicKey():
            numbers = public_key.public_numbers()
            length = (public_key.key_size + 7) // 8
            public: Attributes = {
                Attribute.KEY_TYPE: KeyType.RSA,
                Attribute.MODULUS: numbers.n.to_bytes(length, "big"),
                Attribute.PUBLIC_EXPONENT: numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8, "big"),
            }
        case ec.EllipticCurvePublicKey() if public_key.curve.name in _CURVE_OIDS:
            length = 2 * coordinate_length(public_key)
            point = public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            public = {
                Attribute.KEY_TYPE: KeyType.EC,
                Attribute.EC_PARAMS: _CURVE_OIDS[public_key.curve.name],
                Attribute.EC_POINT: _POINT_HEADS[len(point)] + point,
            }
        case _:
            return
    common = _common(key.name, key.ski) | public | {Attribute.DERIVE: 0, Attribute.LOCAL: 0}
    decrypts = int(public[Attribute.KEY_TYPE] == KeyType.RSA and key.raw)
    yield TokenObject(
        attributes=common | _PRIVATE | {Attribute.DECRYPT: decrypts},
        ski=key.ski,
        length=length,
        raw=key.raw,
        bound=key.bound,
    )
    public_only: Attributes = {Attribute.ENCRYPT: decrypts, Attribute.PUBLIC_KEY_INFO: key.public_key}
    if isinstance(public_key, rsa.RSAPublicKey):
        public_only[Attribute.MODULUS_BITS] = public_key.key_size
    yield TokenObject(attributes=common | _PUBLIC | public_only)


def certificate_objects(pem: bytes, keys: Iterable[OfferedKey]) -> Iterator[TokenObject]:
    """The objects of a chain in PEM, for programs that look for certificates in the token.

    One whose key is among `keys` has the name and the id of that key. Raises: ConfigurationError.
    """
    try:
        chain = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigurationError("not a certificate in PEM") from None
    names = {key.ski: key.name for key in keys}
    for certificate in chain:
        ski = x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest
        label = names.get(ski) or certificate.subject.rfc4514_string()
        serial = certificate.serial_number
        length = serial.bit_length() // 8 + 1
        yield TokenObject(
            attributes=_common(label, ski)
            | {
                Attribute.CLASS: ObjectClass.CERTIFICATE,
                Attribute.CERTIFICATE_TYPE: CertificateType.X_509,
                Attribute.SUBJECT: certificate.subject.public_bytes(),
                Attribute.ISSUER: certificate.issuer.public_bytes(),
                Attribute.SERIAL_NUMBER: bytes((2, length)) + serial.to_bytes(length, "big"),
                Attribute.VALUE: certificate.public_bytes(Encoding.DER),
                Attribute.TRUSTED: 0,
            }
        )


def coordinate_length(key: ec.EllipticCurvePublicKey) -> int:
    """Bytes of r and of s in a signature."""
    return (key.curve.key_size + 7) // 8


def digest(objects: Iterable[TokenObject]) -> bytes:
    """Tells whether anything has changed."""
    state = hashlib.sha256()
    for item in objects:
        packet = item.encode()
        state.update(len(packet).to_bytes(4, "big") + packet)
    return state.digest()


def _common(label: str, identifier: bytes) -> Attributes:
    return {
        Attribute.TOKEN: 1,
        Attribute.PRIVATE: 0,  # so that it is seen without a login
        Attribute.MODIFIABLE: 0,
        Attribute.LABEL: label.encode(),
        Attribute.ID: identifier,
    }


_PRIVATE: Attributes = {
    Attribute.CLASS: ObjectClass.PRIVATE_KEY,
    Attribute.SENSITIVE: 1,
    Attribute.EXTRACTABLE: 0,
    Attribute.NEVER_EXTRACTABLE: 1,
    Attribute.ALWAYS_SENSITIVE: 1,
    Attribute.ALWAYS_AUTHENTICATE: 0,
    Attribute.WRAP_WITH_TRUSTED: 0,
    Attribute.SIGN: 1,
    Attribute.SIGN_RECOVER: 0,
    Attribute.UNWRAP: 0,
}
_PUBLIC: Attributes = {
    Attribute.CLASS: ObjectClass.PUBLIC_KEY,
    Attribute.VERIFY: 1,
    Attribute.VERIFY_RECOVER: 0,
    Attribute.WRAP: 0,
}
