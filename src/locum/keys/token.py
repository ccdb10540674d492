"""`TokenKey`: a private key in a PKCS#11 token, be it a card, a module or a service (X6).

Never has the key: it asks the token, which must let it sign, and for RSA key exchange decrypt as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from pkcs11 import MGF, Attribute, KeyType, Mechanism, ObjectClass
from pkcs11 import exceptions as errors

from locum.crypto.asymmetric.digest_info import DIGEST_INFOS
from locum.crypto.asymmetric.signatures import KeyKind, PublicKey, Scheme, from_concatenated, signing_scheme
from locum.errors import ConfigurationError, Incompatible, Refused, Unavailable
from locum.keys import rejection
from locum.keys.token_session import library, translated, why
from locum.keys.token_uri import TokenUri

T = TypeVar("T")

#: What a token answers when it has failed for whatever reason, and some for bad padding.
_FAILED = (errors.DeviceError, errors.DeviceMemory, errors.GeneralError, errors.FunctionFailed, errors.HostMemory)
#: What it answers to a request that it will never perform. After all other errors a new session may help.
_REFUSED = (
    errors.ArgumentsBad,
    errors.DataInvalid,
    errors.DataLenRange,
    errors.EncryptedDataInvalid,
    errors.EncryptedDataLenRange,
    errors.FunctionNotSupported,
    errors.FunctionRejected,
    errors.KeySizeRange,
    errors.KeyTypeInconsistent,
    errors.MechanismInvalid,
    errors.MechanismParamInvalid,
)

_PSS_HASHES = {
    "sha256": (Mechanism.SHA256, MGF.SHA256, 32),
    "sha384": (Mechanism.SHA384, MGF.SHA384, 48),
    "sha512": (Mechanism.SHA512, MGF.SHA512, 64),
}
_EDWARDS = (KeyKind.ED25519, KeyKind.ED448)

#: CKA_EC_PARAMS: the curve's OID in DER, or its name as a PrintableString (PKCS#11 v3.1 section 6.3.3).
_CURVES: dict[bytes, ec.EllipticCurve] = {
    bytes.fromhex("06082a8648ce3d030107"): ec.SECP256R1(),
    bytes.fromhex("06052b81040022"): ec.SECP384R1(),
    bytes.fromhex("06052b81040023"): ec.SECP521R1(),
}
_EDWARDS_CURVES: dict[bytes, tuple[type[ed25519.Ed25519PublicKey] | type[ed448.Ed448PublicKey], int]] = {
    bytes.fromhex("06032b6570"): (ed25519.Ed25519PublicKey, 32),
    b"\x13\x0cedwards25519": (ed25519.Ed25519PublicKey, 32),
    bytes.fromhex("06032b6571"): (ed448.Ed448PublicKey, 57),
    b"\x13\x0aedwards448": (ed448.Ed448PublicKey, 57),
}


class TokenKey:
    """A `PrivateKey` that a token has. Calls wait for the token, from any thread, one call at a time.

    A token that was lost is looked for again with the next call. RSA decryption takes the padding off here where
    the token decrypts without it (CKM_RSA_X_509), and then takes the same time whatever was encrypted. A token
    that knows CKM_RSA_PKCS alone answers bad padding in its own way and time: the answer is hidden here, and the
    time it takes is not.
    """

    __slots__ = (
        "_decrypts_raw",
        "_generation",
        "_kind",
        "_library",
        "_modulus",
        "_object",
        "_rejection_secret",
        "public_key",
        "uri",
    )

    def __init__(self, uri: TokenUri) -> None:
        """Find the key. Raises: ConfigurationError, Unavailable; use `open` for a written URI."""
        self.uri = uri
        self._library = library(uri.module)
        self._generation = -1
        self._object: Any = None
        self._decrypts_raw = False
        self._rejection_secret = b""
        #: The SubjectPublicKeyInfo in DER.
        self.public_key = b""
        with self._library.lock:
            self._find()
        public = load_der_public_key(self.public_key)
        try:
            self._kind = PublicKey.of(public).kind
        except Incompatible as error:
            raise ConfigurationError(f"{uri}: the key cannot be used: {error}") from None
        self._modulus = public.public_numbers().n if isinstance(public, rsa.RSAPublicKey) else 0

    @classmethod
    def open(cls, uri: str) -> TokenKey:
        """The key that a ``pkcs11:`` URI names (RFC 7512): see `TokenUri.parse`.

        Raises: ConfigurationError when the URI, the library, the PIN or the key will not do; Unavailable when
        there is no such token now, or no such key in it.
        """
        return cls(TokenUri.parse(uri))

    def __repr__(self) -> str:
        return f"<TokenKey {self.uri}>"

    def sign(self, scheme: str, content: bytes, *, prehashed: bool = False) -> bytes:
        """As `PrivateKey.sign`."""
        try:
            how = signing_scheme(scheme)
            mechanism, data = self._instructions(how, content, prehashed)
        except (Incompatible, ValueError) as error:
            raise Refused(f"the key cannot sign this: {error}") from None
        parameter = _PSS_HASHES[how.hash.name] if how.pss and how.hash is not None else None

        def work(key: Any) -> bytes:
            if not isinstance(key, pkcs11.SignMixin):
                raise Refused("the PKCS#11 token does not let this key sign")
            return _whole(key.sign(data, mechanism=mechanism, mechanism_param=parameter))

        signature = self._use(work)
        return from_concatenated(signature) if mechanism is Mechanism.ECDSA else signature

    def decrypt_pkcs1(self, ciphertext: bytes) -> bytes:
        """As `PrivateKey.decrypt_pkcs1`."""
        length = (self._modulus.bit_length() + 7) // 8
        if not self._modulus or len(ciphertext) != length or int.from_bytes(ciphertext, "big") >= self._modulus:
            raise Refused("the key cannot decrypt this")
        self._rejection_secret = self._rejection_secret or rejection.rejection_secret(self)
        instead = rejection.instead_of_message(self._rejection_secret, ciphertext)

        def work(key: Any) -> bytes:
            if not isinstance(key, pkcs11.DecryptMixin):
                raise Refused("the PKCS#11 token does not let this key decrypt")
            if self._decrypts_raw:
                block = _whole(key.decrypt(ciphertext, mechanism=Mechanism.RSA_X_509))
                return rejection.take_off_padding(block.rjust(length, b"\0"), instead)
            try:
                return _whole(key.decrypt(ciphertext, mechanism=Mechanism.RSA_PKCS))
            except (*_FAILED, *_REFUSED):
                return instead

        return self._use(work)

    def _instructions(self, scheme: Scheme, content: bytes, prehashed: bool) -> tuple[Mechanism, bytes]:
        """The mechanism, and what the token is given. Raises: Incompatible, ValueError."""
        if scheme.bare and self._kind is KeyKind.RSA:
            room = (self._modulus.bit_length() + 7) // 8 - rejection.OVERHEAD
            if len(content) > room or scheme.length not in (None, len(content)):
                raise ValueError(f"{len(content)} bytes do not fit {scheme.name} and the key")
            return Mechanism.RSA_PKCS, content
        if scheme.kind in _EDWARDS and scheme.kind is self._kind:
            if prehashed:
                raise ValueError(f"{scheme.name} signs the whole content, not a digest")
            return Mechanism.EDDSA, content
        if scheme.hash is None:
            raise Incompatible(f"the PKCS#11 token is not asked to sign under {scheme.name}")
        digest = content if prehashed else hashlib.new(scheme.hash.name, content).digest()
        if len(digest) != scheme.hash.digest_size:
            raise ValueError(f"a digest of {len(digest)} bytes")
        if scheme.elliptic and scheme.fits(self._kind, strict=False):
            return Mechanism.ECDSA, digest[: _ORDER_LENGTHS[self._kind]]
        if scheme.pss and self._kind is KeyKind.RSA:
            return Mechanism.RSA_PKCS_PSS, digest
        if scheme.legacy and self._kind is KeyKind.RSA:
            return Mechanism.RSA_PKCS, DIGEST_INFOS[scheme.hash.name] + digest
        raise Incompatible(f"the private key cannot sign under {scheme.name}")

    # --- the token ----------------------------------------------------------------------------------------

    def _use(self, work: Callable[[Any], T]) -> T:
        """Do `work` with the key's object, a second time when the token has been lost. Raises: OperationError."""
        with self._library.lock:
            try:
                return self._try(work)
            except Unavailable:
                self._library.restart()
                return self._try(work)

    def _try(self, work: Callable[[Any], T]) -> T:
        try:
            self._find()
            return work(self._object)
        except ConfigurationError as error:
            raise Unavailable(str(error)) from None
        except _REFUSED as error:
            raise Refused(f"the PKCS#11 token refuses this: {why(error)}") from None
        except errors.PKCS11Error as error:
            raise Unavailable(f"the PKCS#11 token fails: {why(error)}") from None

    def _find(self) -> None:
        """Look for the key, unless it has been found since the library was started."""
        session = self._library.session(self.uri)
        if self._generation == self._library.generation:
            return
        with translated("the PKCS#11 token does not show its keys"):
            found = _search(session, ObjectClass.PRIVATE_KEY, self.uri)
            if not found:
                login = "" if self.uri.pin_file else ", or none that can be seen without a pin-source"
                raise Unavailable(f"{self.uri}: no such key{login}")
            if len(found) > 1:
                raise ConfigurationError(f"{self.uri}: {len(found)} keys fit; say which with id=%NN")
            public_key = _public_key(session, found[0], self.uri)
            self._decrypts_raw = Mechanism.RSA_X_509 in session.token.slot.get_mechanisms()
        if self.public_key not in (b"", public_key):
            raise Unavailable(f"{self.uri}: there is another key now")
        self.public_key, self._object, self._generation = public_key, found[0], self._library.generation


#: Bytes of the order of a curve: a longer digest is cut (FIPS 186-5 section 6.4.1), which not every token does.
_ORDER_LENGTHS = {KeyKind.P256: 32, KeyKind.P384: 48, KeyKind.P521: 66}


def _whole(result: bytes | Iterator[bytes]) -> bytes:
    """The library's result for data given whole, which is whole as well."""
    return result if isinstance(result, bytes) else b"".join(result)


def _search(session: pkcs11.Session, kind: ObjectClass, uri: TokenUri) -> list[Any]:
    template: dict[Attribute, Any] = {Attribute.CLASS: kind}
    if uri.object:
        template[Attribute.LABEL] = uri.object
    if uri.id:
        template[Attribute.ID] = uri.id
    return list(session.get_objects(template))


def _public_key(session: pkcs11.Session, key: Any, uri: TokenUri) -> bytes:
    """The SubjectPublicKeyInfo that goes with a private key's object."""
    kind = key[Attribute.KEY_TYPE]
    if kind == KeyType.RSA:
        exponent, modulus = (
            int.from_bytes(key[each], "big") for each in (Attribute.PUBLIC_EXPONENT, Attribute.MODULUS)
        )
        return _encoded(rsa.RSAPublicNumbers(exponent, modulus).public_key())
    if kind not in (KeyType.EC, KeyType.EC_EDWARDS):
        raise ConfigurationError(f"{uri}: a key of a type that is not used here")
    # A private key need not have its point; the public key beside it, with the same id, has.
    public = session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: key[Attribute.ID]})
    points = [each[Attribute.EC_POINT] for each in public]
    if len(points) != 1:
        raise ConfigurationError(f"{uri}: {len(points)} public keys with its id in the token; one is needed")
    parameters = key[Attribute.EC_PARAMS]
    try:
        if parameters in _CURVES:
            curve = _CURVES[parameters]
            point = _octets(points[0], 1 + 2 * ((curve.key_size + 7) // 8))
            return _encoded(ec.EllipticCurvePublicKey.from_encoded_point(curve, point))
        if parameters in _EDWARDS_CURVES:
            make, length = _EDWARDS_CURVES[parameters]
            return _encoded(make.from_public_bytes(_octets(points[0], length)))
    except ValueError:
        raise ConfigurationError(f"{uri}: its public key is not a point of its curve") from None
    raise ConfigurationError(f"{uri}: a key on a curve that is not used here")


def _octets(value: bytes, length: int) -> bytes:
    """The point in CKA_EC_POINT: an OCTET STRING in DER, or, of older tokens, the point itself."""
    header = bytes((4, length)) if length < 128 else bytes((4, 0x81, length))
    return value[len(header) :] if value.startswith(header) and len(value) == len(header) + length else value


def _encoded(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
