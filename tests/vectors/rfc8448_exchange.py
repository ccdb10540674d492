"""The (EC)DHE secret of a trace, from the client's private key in the RFC and the share in the ServerHello."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from tests.vectors.rfc8448 import Trace

from locum.tls.extensions import parse_server_share
from locum.tls.messages import ServerHello
from locum.tls.receiving import parse_message
from locum.tls.record import HEADER_LENGTH
from locum.tls.registry import ExtensionType, NamedGroup


def shared_secret(trace: Trace) -> bytes:
    """The input keying material of the handshake secret."""
    hello = parse_message(ServerHello, trace["server_hello"][HEADER_LENGTH:])
    share = parse_server_share(hello.extensions.get(ExtensionType.KEY_SHARE) or b"")
    if share.group == NamedGroup.X25519:
        private = X25519PrivateKey.from_private_bytes(trace["client_private"])
        return private.exchange(X25519PublicKey.from_public_bytes(share.key_exchange))
    curve = ec.SECP256R1()
    scalar = ec.derive_private_key(int.from_bytes(trace["client_private"], "big"), curve)
    return scalar.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(curve, share.key_exchange))
