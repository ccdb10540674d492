"""Whatever may be asked of a private key, performed with a key that this process can use: `LocalHolder`.

Never knows who asks, nor whether he may. What a bound operation signs is put together here, from parts that are
checked; and a pre-master secret never leaves (C1, X3).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import partial
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from locum.crypto.asymmetric.signatures import (
    LEGACY_SCHEMES,
    SCHEMES,
    KeyKind,
    PublicKey,
    Scheme,
)
from locum.errors import Refused
from locum.keyless.operations import (
    MAX_CONTENT,
    CertificateVerify,
    ClientVerify,
    Decrypt,
    KeyOperation,
    MasterSecret,
    Role,
    ServerKeyExchange,
    Sign,
)
from locum.keys.bound import (
    certificate_verify_beginning,
    certificate_verify_content,
    client_verify_content,
    master_secret_seed,
    server_key_exchange_content,
)
from locum.keys.file import FileKey
from locum.keys.port import PrivateKey
from locum.keys.rejection import instead_of_pre_master, rejection_secret
from locum.tls import schedule

#: RFC 5246 section 7.4.7.1: a pre-master secret, which begins with the version that the client asked for.
_PRE_MASTER_LENGTH = 48
_VERSION_LENGTH = 2

_POST_QUANTUM = frozenset((KeyKind.MLDSA44, KeyKind.MLDSA65, KeyKind.MLDSA87))


class LocalHolder:
    """A `KeyHolder` whose key is here, and answers at once. One for each key, kept as long as the key.

    Thread-safe as far as the key is.
    """

    __slots__ = ("_bound12", "_bound13", "_key", "_kind", "_modulus", "_raw", "_rejection_secret", "public_key")

    def __init__(self, key: PrivateKey) -> None:
        """Raises: Incompatible for a key that nothing here can sign with."""
        #: The SubjectPublicKeyInfo in DER.
        self.public_key = key.public_key
        self._key = key
        public = PublicKey.from_der(key.public_key)
        self._kind = public.kind
        self._modulus = public.key.public_numbers().n if isinstance(public.key, rsa.RSAPublicKey) else 0
        self._rejection_secret = b""
        self._raw = _fitting(SCHEMES | LEGACY_SCHEMES, public.kind, strict=False)
        # TLS 1.2 has no ML-DSA (draft-ietf-tls-mldsa section 3).
        bound12 = {} if public.kind in _POST_QUANTUM else SCHEMES
        self._bound12 = _fitting(bound12, public.kind, strict=False)
        self._bound13 = _fitting(SCHEMES, public.kind, strict=True)

    def __repr__(self) -> str:
        return f"<LocalHolder {self._kind.value}>"

    async def perform(self, operation: KeyOperation) -> bytes:
        """As `perform_now`."""
        return _PERFORMERS[type(operation)](self, operation)

    def perform_now(self, operation: KeyOperation) -> bytes:
        """Perform one operation; returns the signature, the decrypted message or the master secret.

        Raises: Refused when the key cannot do that, or for a bound operation that is not one of TLS; what the
        key raises.
        """
        return _PERFORMERS[type(operation)](self, operation)

    def signer(self, scheme: str) -> Callable[[bytes], bytes]:
        """What signs digests as a raw `Sign` under `scheme`, which has been performed before, does: for many.

        The digests have the right length. It raises what the key raises.
        """
        return self._signer(scheme, prehashed=True)

    def transcript_signer(self, scheme: str, role: Role) -> Callable[[bytes], bytes]:
        """What signs transcript hashes as a `CertificateVerify` that has been performed before does: for many.

        The hashes have the length of that one's. It raises what the key raises.
        """
        sign, beginning = self._signer(scheme, prehashed=False), certificate_verify_beginning(role)
        return lambda transcript_hash: sign(beginning + transcript_hash)

    def _signer(self, scheme: str, *, prehashed: bool) -> Callable[[bytes], bytes]:
        if isinstance(self._key, FileKey):
            return self._key.signer(scheme, prehashed=prehashed)
        return partial(self._key.sign, scheme, prehashed=prehashed)

    # --- raw ----------------------------------------------------------------------------------------------

    def _sign(self, operation: Sign) -> bytes:
        if operation.scheme not in self._raw:
            raise Refused(f"a key of the kind {self._kind.value} does not sign under {operation.scheme}")
        if len(operation.content) > MAX_CONTENT:
            raise Refused(f"more than {MAX_CONTENT} bytes to sign")
        return self._key.sign(operation.scheme, operation.content, prehashed=operation.prehashed)

    def _decrypt(self, operation: Decrypt) -> bytes:
        if not self._modulus:
            raise Refused(f"a key of the kind {self._kind.value} does not decrypt")
        return self._key.decrypt_pkcs1(operation.ciphertext)

    # --- bound --------------------------------------------------------------------------------------------

    def _certificate_verify(self, operation: CertificateVerify) -> bytes:
        content = certificate_verify_content(operation)
        return self._sign_bound(self._bound13, operation.scheme, content)

    def _server_key_exchange(self, operation: ServerKeyExchange) -> bytes:
        content = server_key_exchange_content(operation)
        return self._sign_bound(self._bound12, operation.scheme, content)

    def _client_verify(self, operation: ClientVerify) -> bytes:
        content = client_verify_content(operation)
        return self._sign_bound(self._bound12, operation.scheme, content)

    def _sign_bound(self, schemes: frozenset[str], scheme: str, content: bytes) -> bytes:
        if scheme not in schemes:
            raise Refused(f"a key of the kind {self._kind.value} does not sign a handshake under {scheme}")
        return self._key.sign(scheme, content)

    def _master_secret(self, operation: MasterSecret) -> bytes:
        """RFC 5246 section 7.4.7.1: a pre-master secret of another form becomes one that nobody can know."""
        algorithm, seed = master_secret_seed(operation)
        if not self._modulus:
            raise Refused(f"a key of the kind {self._kind.value} does not decrypt")
        if not 0 <= operation.client_version <= 0xFFFF:
            raise Refused("a version has two bytes")
        version = operation.client_version.to_bytes(_VERSION_LENGTH, "big")
        self._rejection_secret = self._rejection_secret or rejection_secret(self._key)
        unknown = instead_of_pre_master(self._rejection_secret, operation.ciphertext, version)
        pre_master = self._pre_master(operation.ciphertext, version, unknown)
        return schedule.master_secret12(algorithm, pre_master, seed, operation.extended)

    def _pre_master(self, ciphertext: bytes, version: bytes, unknown: bytes) -> bytes:
        """The pre-master secret in `ciphertext`, or `unknown` when there is none for this version."""
        # Anybody can see whether this is a number below the modulus: no secret is in the way taken here.
        if len(ciphertext) != (self._modulus.bit_length() + 7) // 8:
            return unknown
        if int.from_bytes(ciphertext, "big") >= self._modulus:
            return unknown
        message = self._key.decrypt_pkcs1(ciphertext)
        # From here on both cases do the same work: nothing is skipped, and the choice is an index.
        found = (message + bytes(_PRE_MASTER_LENGTH))[:_PRE_MASTER_LENGTH]
        right_length = len(message) == _PRE_MASTER_LENGTH
        right_version = hmac.compare_digest(found[:_VERSION_LENGTH], version)
        return (unknown, found)[right_length & right_version]


def _fitting(schemes: dict[str, Scheme], kind: KeyKind, *, strict: bool) -> frozenset[str]:
    """The names of those that a key of this kind can sign under.

    Whether a certificate restricts an RSA key to RSASSA-PSS is not known here; the signatures are the same.
    """
    kinds = (kind, KeyKind.RSA_PSS) if kind is KeyKind.RSA else (kind,)
    return frozenset(
        name for name, scheme in schemes.items() if any(scheme.fits(each, strict=strict) for each in kinds)
    )


_PERFORMERS: dict[type, Callable[[LocalHolder, Any], bytes]] = {
    Sign: LocalHolder._sign,
    Decrypt: LocalHolder._decrypt,
    CertificateVerify: LocalHolder._certificate_verify,
    ServerKeyExchange: LocalHolder._server_key_exchange,
    ClientVerify: LocalHolder._client_verify,
    MasterSecret: LocalHolder._master_secret,
}
