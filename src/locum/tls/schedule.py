"""The key schedules: RFC 8446 section 7 for TLS 1.3, RFC 5246 sections 5, 6.3, 8.1 and RFC 7627 for TLS 1.2.

Pure functions from secrets to secrets; who calls them, terminal or delegate, is not known here.
"""

from __future__ import annotations

from functools import lru_cache

from locum.crypto.symmetric import SHA256, HashAlgorithm, HkdfKey, hkdf_expand, hkdf_extract, tls12_prf
from locum.tls.registry import CipherSuite, ProtocolVersion

#: TLS 1.2: bytes of the master secret and of verify_data (RFC 5246 sections 8.1 and 7.4.9).
MASTER_SECRET_LENGTH = 48
VERIFY_DATA_LENGTH = 12

#: RFC 8446 section 4.4.3: 64 spaces, the context string, a zero byte, the transcript hash.
_CERTIFICATE_VERIFY_PADDING = b" " * 64


@lru_cache(maxsize=64)
def _info(label: bytes, context_length: int, length: int) -> bytes:
    """HkdfLabel as far as the context, which comes last (RFC 8446 section 7.1)."""
    name = b"tls13 " + label
    return b"".join((length.to_bytes(2, "big"), bytes((len(name),)), name, bytes((context_length,))))


def expand_label(algorithm: HashAlgorithm, secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """HKDF-Expand-Label to `length` bytes (RFC 8446 section 7.1); `label` comes without "tls13 "."""
    info = _info(label, len(context), length) + context
    return hkdf_expand(algorithm, secret, info, length)


def derive_secret(algorithm: HashAlgorithm, secret: bytes, label: bytes, transcript_hash: bytes) -> bytes:
    """Derive-Secret, given the transcript's hash rather than its messages (RFC 8446 section 7.1)."""
    return expand_label(algorithm, secret, label, transcript_hash, algorithm.length)


def _derive_two(
    algorithm: HashAlgorithm, secret: bytes, labels: tuple[bytes, bytes], transcript_hash: bytes
) -> tuple[bytes, bytes]:
    """Derive-Secret under two labels, client's and server's."""
    expand, length = HkdfKey(algorithm, secret).expand, algorithm.length
    client, server = labels
    return (
        expand(_info(client, len(transcript_hash), length) + transcript_hash, length),
        expand(_info(server, len(transcript_hash), length) + transcript_hash, length),
    )


def early_secret(algorithm: HashAlgorithm, psk: bytes | None = None) -> bytes:
    """The Early Secret from a pre-shared key, or from zeros without one."""
    return hkdf_extract(algorithm, b"", psk or bytes(algorithm.length))


@lru_cache(maxsize=8)
def _empty_hash(algorithm: HashAlgorithm) -> bytes:
    return algorithm.digest(b"")


@lru_cache(maxsize=8)
def _derived_without_psk(algorithm: HashAlgorithm) -> bytes:
    return derive_secret(algorithm, early_secret(algorithm), b"derived", _empty_hash(algorithm))


def handshake_secret(algorithm: HashAlgorithm, shared_secret: bytes | None, psk: bytes | None = None) -> bytes:
    """The Handshake Secret from the (EC)DHE secret (None: psk_ke, zeros) and an optional pre-shared key."""
    if psk is None:
        derived = _derived_without_psk(algorithm)
    else:
        derived = derive_secret(algorithm, early_secret(algorithm, psk), b"derived", _empty_hash(algorithm))
    return hkdf_extract(algorithm, derived, shared_secret or bytes(algorithm.length))


def handshake_traffic_secrets(
    algorithm: HashAlgorithm, secret: bytes, transcript_hash: bytes
) -> tuple[bytes, bytes]:
    """Client and server handshake traffic secrets from the Handshake Secret and hash(CH..SH)."""
    return _derive_two(algorithm, secret, (b"c hs traffic", b"s hs traffic"), transcript_hash)


def master_secret(algorithm: HashAlgorithm, secret: bytes) -> bytes:
    """The Master Secret from the Handshake Secret."""
    derived = derive_secret(algorithm, secret, b"derived", _empty_hash(algorithm))
    return hkdf_extract(algorithm, derived, bytes(algorithm.length))


def application_traffic_secrets(
    algorithm: HashAlgorithm, secret: bytes, transcript_hash: bytes
) -> tuple[bytes, bytes]:
    """Client and server application traffic secrets from the Master Secret and hash(CH..server Finished)."""
    return _derive_two(algorithm, secret, (b"c ap traffic", b"s ap traffic"), transcript_hash)


def next_traffic_secret(algorithm: HashAlgorithm, secret: bytes) -> bytes:
    """The traffic secret after a KeyUpdate (RFC 8446 section 7.2)."""
    return expand_label(algorithm, secret, b"traffic upd", b"", algorithm.length)


def traffic_keys(suite: CipherSuite, secret: bytes) -> tuple[bytes, bytes]:
    """Record key and IV of one direction from its traffic secret (RFC 8446 section 7.3)."""
    expand = HkdfKey(suite.hash, secret).expand
    key, iv = suite.aead.key_length, suite.implicit_nonce
    return expand(_info(b"key", 0, key), key), expand(_info(b"iv", 0, iv), iv)


def finished_mac(algorithm: HashAlgorithm, secret: bytes, transcript_hash: bytes) -> bytes:
    """verify_data of a TLS 1.3 Finished, and the binder of a pre-shared key (RFC 8446 section 4.4.4)."""
    key = expand_label(algorithm, secret, b"finished", b"", algorithm.length)
    return algorithm.hmac(key, transcript_hash)


def binder_key(algorithm: HashAlgorithm, psk: bytes) -> bytes:
    """The binder key of a resumption PSK (RFC 8446 section 7.1)."""
    return derive_secret(algorithm, early_secret(algorithm, psk), b"res binder", _empty_hash(algorithm))


def resumption_psk(algorithm: HashAlgorithm, resumption_secret: bytes, ticket_nonce: bytes) -> bytes:
    """The pre-shared key that goes with a NewSessionTicket (RFC 8446 section 4.6.1)."""
    return expand_label(algorithm, resumption_secret, b"resumption", ticket_nonce, algorithm.length)


def resumption_psks(algorithm: HashAlgorithm, resumption_secret: bytes, count: int) -> list[tuple[bytes, bytes]]:
    """As many ticket nonces, each one byte, and the pre-shared keys that go with them."""
    expand, length = HkdfKey(algorithm, resumption_secret).expand, algorithm.length
    info = _info(b"resumption", 1, length)
    nonces = [bytes((index,)) for index in range(count)]
    return [(nonce, expand(info + nonce, length)) for nonce in nonces]


def exporter(algorithm: HashAlgorithm, exporter_secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """TLS-Exporter(label, context, length) of RFC 8446 section 7.5."""
    secret = derive_secret(algorithm, exporter_secret, label, _empty_hash(algorithm))
    return expand_label(algorithm, secret, b"exporter", algorithm.digest(context), length)


def certificate_verify_content(role: bytes, transcript_hash: bytes) -> bytes:
    """What a TLS 1.3 CertificateVerify signs; `role` is b"client" or b"server" (RFC 8446 section 4.4.3)."""
    context = b"TLS 1.3, " + role + b" CertificateVerify"
    return _CERTIFICATE_VERIFY_PADDING + context + b"\0" + transcript_hash


# --- TLS 1.2 ----------------------------------------------------------------------------------------------

_BOUND_RANDOM_LABEL = b"locum server random\0"


def bound_random(seed: bytes, sentinel: bytes = b"") -> bytes:
    """The server random, 32 bytes, that is made of `seed` (32 bytes), for RSA key exchange (X3).

    Who has seen a handshake knows the random and not the seed, so that nobody can have the master secret of it
    computed afterwards. `sentinel` takes the place of the last bytes (RFC 8446 section 4.1.3).
    """
    random = SHA256.digest(_BOUND_RANDOM_LABEL + seed)
    return random[: len(random) - len(sentinel)] + sentinel


def master_secret12(algorithm: HashAlgorithm, pre_master_secret: bytes, seed: bytes, extended: bool) -> bytes:
    """The master secret, 48 bytes; `seed` is the session hash if `extended`, else both randoms (64 bytes)."""
    label = b"extended master secret" if extended else b"master secret"
    return tls12_prf(algorithm, pre_master_secret, label, seed, MASTER_SECRET_LENGTH)


def key_block_length(suite: CipherSuite) -> int:
    """Bytes of the key block of a TLS 1.2 AEAD suite: two keys and two implicit nonces."""
    return 2 * (suite.aead.key_length + suite.implicit_nonce)


def key_block12(suite: CipherSuite, secret: bytes, randoms: bytes) -> bytes:
    """The key block; `randoms` is client random + server random, which the expansion takes the other way."""
    seed = randoms[32:] + randoms[:32]
    return tls12_prf(suite.hash, secret, b"key expansion", seed, key_block_length(suite))


def verify_data12(algorithm: HashAlgorithm, secret: bytes, label: bytes, transcript_hash: bytes) -> bytes:
    """verify_data, 12 bytes; `label` is b"client finished" or b"server finished" (RFC 5246 section 7.4.9)."""
    return tls12_prf(algorithm, secret, label, transcript_hash, VERIFY_DATA_LENGTH)


def exporter12(algorithm: HashAlgorithm, secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """RFC 5705 section 4; `seed` is both randoms, and the context with its length in 2 bytes."""
    return tls12_prf(algorithm, secret, label, seed, length)


def split_key_block(suite: CipherSuite, block: bytes) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """Cut a key block into (client key, client IV) and (server key, server IV) (RFC 5246 section 6.3).

    Raises: ValueError unless the block has the suite's length.
    """
    if suite.version is not ProtocolVersion.TLS_1_2 or len(block) != key_block_length(suite):
        raise ValueError("a key block of another suite")
    size, iv = suite.aead.key_length, suite.implicit_nonce
    keys, ivs = block[: 2 * size], block[2 * size :]
    return (keys[:size], ivs[:iv]), (keys[size:], ivs[iv:])
