"""What the TLS-bound operations consist of, checked, and put together for the key that is to sign it (X3).

Never sees a private key. Whatever is not a part of a TLS handshake, as far as that can be seen here, is refused:
so whoever may ask for bound operations only cannot have anything else signed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from locum.crypto.asymmetric.finite_field import FiniteFieldGroup, ffdhe
from locum.crypto.symmetric import SHA256, SHA384, HashAlgorithm
from locum.errors import DecodeError, LocumError, Refused
from locum.keyless.operations import (
    MAX_CONTENT,
    RANDOM_LENGTH,
    CertificateVerify,
    ClientVerify,
    MasterSecret,
    Role,
    ServerKeyExchange,
)
from locum.tls import schedule
from locum.tls.messages import DOWNGRADE_SENTINELS, ClientHello, Message, ServerHello
from locum.tls.messages12 import (
    Certificate,
    CertificateRequest,
    CertificateStatus,
    ClientKeyExchange,
    ServerHelloDone,
)
from locum.tls.messages12 import ServerKeyExchange as ServerKeyExchangeMessage
from locum.tls.receiving import parse_message
from locum.tls.registry import (
    CIPHER_SUITES,
    ExtensionType,
    HandshakeType,
    KeyExchange,
    NamedGroup,
    ProtocolVersion,
    SignatureScheme,
)
from locum.tls.signed_messages12 import cut_messages
from locum.wire.cursor import Reader

#: The hashes of the cipher suites of TLS 1.3, and of the PRF in TLS 1.2.
_HASHES = {algorithm.name: algorithm for algorithm in (SHA256, SHA384)}
_TRANSCRIPT_LENGTHS = frozenset(algorithm.length for algorithm in _HASHES.values())
_BEGINNINGS = {
    Role.SERVER: schedule.certificate_verify_content(b"server", b""),
    Role.CLIENT: schedule.certificate_verify_content(b"client", b""),
}

#: RFC 8422 section 5.4: ECCurveType named_curve, and how long a point is in each curve, in bytes.
_NAMED_CURVE = 3
_POINT_LENGTHS = {NamedGroup.SECP256R1: 65, NamedGroup.SECP384R1: 97, NamedGroup.X25519: 32, NamedGroup.X448: 56}
_MONTGOMERY = frozenset((NamedGroup.X25519, NamedGroup.X448))
_UNCOMPRESSED = 4
#: RFC 7919 appendix A.
_FINITE_FIELD_BITS = (2048, 3072, 4096, 6144, 8192)

#: The server random is made of a seed of this many bytes.
_SEED_LENGTH = 32
_SENTINELS = (b"", *DOWNGRADE_SENTINELS)

_PARSED: dict[int, type[Message]] = {
    kind.type: kind
    for kind in (
        ClientHello,
        ServerHello,
        Certificate,
        CertificateStatus,
        ServerKeyExchangeMessage,
        CertificateRequest,
        ServerHelloDone,
        ClientKeyExchange,
    )
}


def _order(*types: tuple[HandshakeType, str]) -> re.Pattern[bytes]:
    """The order of a handshake's messages as a pattern over their types; "?" after one that need not come."""
    return re.compile(b"".join(re.escape(bytes((code,))) + often.encode() for code, often in types), re.DOTALL)


#: RFC 5246 section 7.3, up to the ClientKeyExchange: with a client that shows a certificate ...
_WITH_CLIENT_CERTIFICATE = _order(
    (HandshakeType.CLIENT_HELLO, ""),
    (HandshakeType.SERVER_HELLO, ""),
    (HandshakeType.CERTIFICATE, ""),
    (HandshakeType.CERTIFICATE_STATUS, "?"),
    (HandshakeType.SERVER_KEY_EXCHANGE, "?"),
    (HandshakeType.CERTIFICATE_REQUEST, ""),
    (HandshakeType.SERVER_HELLO_DONE, ""),
    (HandshakeType.CERTIFICATE, ""),
    (HandshakeType.CLIENT_KEY_EXCHANGE, ""),
)
#: ... and with RSA key exchange.
_WITH_RSA_KEY_EXCHANGE = _order(
    (HandshakeType.CLIENT_HELLO, ""),
    (HandshakeType.SERVER_HELLO, ""),
    (HandshakeType.CERTIFICATE, ""),
    (HandshakeType.CERTIFICATE_STATUS, "?"),
    (HandshakeType.CERTIFICATE_REQUEST, "?"),
    (HandshakeType.SERVER_HELLO_DONE, ""),
    (HandshakeType.CERTIFICATE, "?"),
    (HandshakeType.CLIENT_KEY_EXCHANGE, ""),
)


def certificate_verify_content(operation: CertificateVerify) -> bytes:
    """What a CertificateVerify of TLS 1.3 signs (RFC 8446 section 4.4.3).

    Raises: Refused unless the transcript hash has the length of a cipher suite's hash.
    """
    beginning = _BEGINNINGS.get(operation.role)
    if beginning is None or len(operation.transcript_hash) not in _TRANSCRIPT_LENGTHS:
        raise Refused("a CertificateVerify covers a transcript hash of 32 or 48 bytes, for a server or a client")
    return beginning + operation.transcript_hash


def certificate_verify_beginning(role: Role) -> bytes:
    """What comes before the transcript hash there."""
    return _BEGINNINGS[role]


# --- ServerKeyExchange ------------------------------------------------------------------------------------


def server_key_exchange_content(operation: ServerKeyExchange) -> bytes:
    """What a ServerKeyExchange of TLS 1.2 signs (RFC 5246 section 7.4.3, RFC 8422 section 5.4).

    Raises: Refused for randoms of another length, and for parameters of anything but a named curve or a group of
    RFC 7919. Which of both it is cannot be mistaken: no parameters of one kind can be read as the other.
    """
    if len(operation.client_random) != RANDOM_LENGTH or len(operation.server_random) != RANDOM_LENGTH:
        raise Refused(f"a random has {RANDOM_LENGTH} bytes")
    parameters = operation.parameters
    try:
        if not (_is_named_curve(parameters) or _is_finite_field(parameters)):
            raise Refused("the parameters are neither in a named curve nor in a group of RFC 7919")
    except LocumError as error:
        raise Refused(f"not the parameters of a ServerKeyExchange: {error}") from None
    content = operation.client_random + operation.server_random + parameters
    if _are_messages(content):
        raise Refused("what would be signed could be taken for a client's CertificateVerify")
    return content


def _are_messages(content: bytes) -> bool:
    """True for bytes that are handshake messages and nothing else.

    TLS 1.2 does not mark what a signature is for, and a public value of 8192 bits has room for a handshake: an
    edge could choose both randoms and that value so that the signature proves to somebody that it is a client.
    """
    try:
        return content[0] == HandshakeType.CLIENT_HELLO and bool(list(cut_messages(content)))
    except DecodeError:
        return False


def _is_named_curve(parameters: bytes) -> bool:
    """True for ServerECDHParams with a point of the right length, or an error: DecodeError, Refused."""
    reader = Reader(parameters)
    kind, group = reader.u8(), reader.u16()
    length = _POINT_LENGTHS.get(group)  # type: ignore[call-overload]
    if kind != _NAMED_CURVE or length is None:
        return False
    point = reader.vector(1, minimum=length, maximum=length)
    reader.finish()
    if group not in _MONTGOMERY and point[0] != _UNCOMPRESSED:
        raise Refused("a point in another form than uncompressed")
    return True


def _is_finite_field(parameters: bytes) -> bool:
    """True for ServerDHParams in a group of RFC 7919, or an error: DecodeError, Refused."""
    reader = Reader(parameters)
    prime, generator, public = (reader.vector(2, minimum=1) for _ in range(3))
    reader.finish()
    group = _finite_fields().get(prime)
    if group is None or generator != bytes((group.generator,)):
        return False
    if len(public) > group.length or not 1 < int.from_bytes(public, "big") < group.prime - 1:
        raise Refused(f"a public value that is not in the group {group.name}")
    return True


@cache
def _finite_fields() -> dict[bytes, FiniteFieldGroup]:
    groups = [ffdhe(bits) for bits in _FINITE_FIELD_BITS]
    return {group.prime.to_bytes(group.length, "big"): group for group in groups}


# --- a client's CertificateVerify of TLS 1.2 ----------------------------------------------------------------


def client_verify_content(operation: ClientVerify) -> bytes:
    """What a client's CertificateVerify of TLS 1.2 signs: all messages before it (RFC 5246 section 7.4.8).

    Raises: Refused unless these are the messages of such a handshake, each of them whole and in its turn, and
    the server accepts the scheme.
    """
    messages = _parse(operation.messages, _WITH_CLIENT_CERTIFICATE)
    _check_hellos(messages)
    request = next(message for message in messages if isinstance(message, CertificateRequest))
    if SignatureScheme.__members__.get(operation.scheme) not in request.schemes:
        raise Refused(f"the server does not accept {operation.scheme}")
    *_, certificate, _ = messages
    if not isinstance(certificate, Certificate) or not certificate.certificates:
        raise Refused("a client without a certificate signs nothing")
    return operation.messages


def _parse(data: bytes, order: re.Pattern[bytes]) -> Sequence[Message]:
    """The messages in `data`, in this order. Raises: Refused."""
    if len(data) > MAX_CONTENT:
        raise Refused(f"more than {MAX_CONTENT} bytes of handshake messages")
    try:
        cut = list(cut_messages(data))
        if not order.fullmatch(bytes(code for code, _ in cut)):
            raise Refused("not these messages, or not in this order")
        return [parse_message(_PARSED[code], raw) for code, raw in cut]
    except LocumError as error:
        raise Refused(f"not the messages of a TLS 1.2 handshake: {error}") from None


def _check_hellos(messages: Sequence[Message]) -> tuple[ClientHello, ServerHello]:
    """Both hellos. Raises: Refused unless they agree on TLS 1.2."""
    client, server = messages[:2]
    assert isinstance(client, ClientHello)
    assert isinstance(server, ServerHello)
    if (
        client.legacy_version < ProtocolVersion.TLS_1_2
        or server.legacy_version != ProtocolVersion.TLS_1_2
        or server.extensions.get(ExtensionType.SUPPORTED_VERSIONS) is not None
        or server.is_hello_retry_request
        or server.cipher_suite not in client.cipher_suites
    ):
        raise Refused("not a handshake of TLS 1.2")
    return client, server


# --- RSA key exchange -------------------------------------------------------------------------------------


def master_secret_seed(operation: MasterSecret) -> tuple[HashAlgorithm, bytes]:
    """The PRF's hash, and the seed of the master secret: session hash (RFC 7627) or both randoms.

    Raises: Refused unless the server random was made of the seed that is shown, and unless the messages, where
    they are needed, are those of a handshake with these randoms and this ciphertext.
    """
    algorithm = _HASHES.get(operation.hash)
    if algorithm is None:
        raise Refused("the PRF is made of SHA-256 or SHA-384")
    if len(operation.client_random) != RANDOM_LENGTH or len(operation.random_seed) != _SEED_LENGTH:
        raise Refused(f"a random has {RANDOM_LENGTH} bytes, and a seed {_SEED_LENGTH}")
    seed, server_random = operation.random_seed, operation.server_random
    if server_random not in [schedule.bound_random(seed, sentinel) for sentinel in _SENTINELS]:
        raise Refused("the server random is not made of this seed")
    if not operation.extended:
        if operation.messages:
            raise Refused("messages count with the extended master secret only")
        return algorithm, operation.client_random + server_random
    _check_exchange(operation, algorithm)
    return algorithm, algorithm.digest(operation.messages)


def _check_exchange(operation: MasterSecret, algorithm: HashAlgorithm) -> None:
    """Raise Refused unless the messages are of this very RSA key exchange."""
    messages = _parse(operation.messages, _WITH_RSA_KEY_EXCHANGE)
    client, server = _check_hellos(messages)
    if (client.legacy_version, client.random) != (operation.client_version, operation.client_random):
        raise Refused("the messages are those of another client")
    if server.random != operation.server_random:
        raise Refused("the messages are those of another server")
    suite = CIPHER_SUITES.get(server.cipher_suite)
    if suite is None or suite.key_exchange is not KeyExchange.RSA or suite.hash is not algorithm:
        raise Refused("the messages are of another cipher suite")
    extended = ExtensionType.EXTENDED_MASTER_SECRET
    if client.extensions.get(extended) is None or server.extensions.get(extended) is None:
        raise Refused("no extended master secret was agreed on")
    exchange = messages[-1]
    assert isinstance(exchange, ClientKeyExchange)
    if exchange.body != len(operation.ciphertext).to_bytes(2, "big") + operation.ciphertext:
        raise Refused("the messages have another ciphertext")
