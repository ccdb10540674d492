"""Client certificates (C8): is the client who it says it is, and may it have a connection?

Never knows the connection. Whoever holds a certificate of one of the given authorities may.
"""

from __future__ import annotations

import hashlib

from locum.authority.authentication import Proven, ProvenCache
from locum.authority.ike_identities import identities_of
from locum.crypto.asymmetric.certificates import PathValidator, Rejected, load_anchors, parse_chain, subject_of
from locum.crypto.asymmetric.signatures import verify
from locum.errors import ConfigurationError, Incompatible, Misbehaved, Unauthenticated
from locum.handshake import Fault, PeerChain, Verdict
from locum.tls.registry import ProtocolVersion, scheme_name
from locum.tls.schedule import certificate_verify_content
from locum.tls.server_operations import ClientAuthenticateRequest

#: What a client is called whose certificate names nobody.
NAMELESS = "dn:"


class ClientVerifier:
    """Verifies clients by the trust anchors and CRLs given, in PEM or DER.

    Raises: ConfigurationError when one of them is not what it should be.
    """

    def __init__(self, anchors: tuple[bytes, ...], crls: tuple[bytes, ...] = ()) -> None:
        self._paths = PathValidator(anchors, crls)
        self._cache = ProvenCache()
        #: The subjects of the authorities in DER, for the CertificateRequest: some clients send nothing without.
        self.authorities = tuple(
            certificate.subject.public_bytes() for anchor in anchors for certificate in load_anchors(anchor)
        )
        if not self.authorities:
            raise ConfigurationError("no authority to verify clients with")

    def judge(self, request: ClientAuthenticateRequest, *, now: float) -> Verdict:
        """Both results of the authentication, with the identity and the reason."""
        try:
            proven = self._prove(request.chain, now)
            _check_possession(request, proven)
        except Rejected as rejected:
            return Verdict(authentic=False, allowed=False, reason=str(rejected), fault=rejected.fault)
        return Verdict(authentic=True, allowed=True, identity=proven.identities[0])

    def _prove(self, chain: PeerChain, now: float) -> Proven:
        key = hashlib.sha256(chain.digest).digest()
        proven = self._cache.find(key, now=now)
        if proven is None:
            leaf = parse_chain(chain.certificates)[0]
            names = tuple(each.text for each in identities_of(subject_of(leaf))) or (NAMELESS,)
            proven = Proven(names, self._paths.validate_client(chain.certificates, now=now))
            self._cache.add(key, proven, now=now)
        return proven


def _check_possession(request: ClientAuthenticateRequest, proven: Proven) -> None:
    """Verify the CertificateVerify (RFC 8446 section 4.4.3, RFC 5246 section 7.4.8). Raises: Rejected."""
    if not proven.peer.may_sign:
        raise Rejected(Fault.UNSUPPORTED, "the client's certificate is not for signatures (keyUsage)")
    strict = request.version == ProtocolVersion.TLS_1_3
    content = certificate_verify_content(b"client", request.content) if strict else request.content
    try:
        verify(scheme_name(request.scheme), proven.peer.key, request.signature, content, strict=strict)
    except (Unauthenticated, Misbehaved, Incompatible) as error:
        raise Rejected(Fault.BAD_SIGNATURE, f"the client did not prove to hold its key: {error}") from None
