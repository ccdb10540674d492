"""What both ends say of themselves in IKE_SA_INIT and IKE_AUTH, and what they hear: abilities, identities, proofs.

Never makes or judges a proof, and reads no certificate (RFC 7296 section 2.15, RFC 7427, RFC 8784).
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import TypeVar

from locum.errors import Unauthenticated
from locum.handshake import MAX_CERTIFICATES, MAX_CHAIN, PeerChain
from locum.ike.errors import IllegalValue
from locum.ike.operations import IkeAuthenticateRequest, ProveRequest, ProveResponse
from locum.ike.payloads2 import (
    Authentication,
    Certificate,
    CertificateRequest,
    Identification,
    IdentificationResponder,
    Notify,
    Payload,
)
from locum.ike.registry import (
    CertificateEncoding,
    IdentificationType,
    NotifyType2,
    PayloadType2,
    SignatureHash,
)
from locum.ike.v2.core import Core
from locum.ike.v2.messages import Content

I = TypeVar("I", bound=Identification)  # noqa: E741 - the RFC's letter for an identification

#: What our authority verifies signatures over (RFC 7427 section 4, RFC 8420): SHA-2, and Ed25519's IDENTITY.
_HASHES = (
    SignatureHash.SHA2_256,
    SignatureHash.SHA2_384,
    SignatureHash.SHA2_512,
    SignatureHash.IDENTITY,
)
_HASH_LENGTH = 2
#: More hash algorithms than this in one notify are not looked at.
_MAX_HASHES = 32

SIGNATURE_HASHES = Notify(
    notify_type=NotifyType2.SIGNATURE_HASH_ALGORITHMS,
    data=b"".join(each.to_bytes(_HASH_LENGTH, "big") for each in _HASHES),
)
CHILDLESS_SUPPORTED = Notify(notify_type=NotifyType2.CHILDLESS_IKEV2_SUPPORTED)
#: Asks for a certificate of any authority: a terminal does not know whom its own authority trusts. Without being
#: asked many peers send none.
CERTIFICATE_WANTED = CertificateRequest(encoding=CertificateEncoding.X509_SIGNATURE, data=b"")


# --- abilities --------------------------------------------------------------------------------------------


def init_notifies(core: Core, *, response: bool, intermediate: bool, ppk: bool) -> tuple[Payload, ...]:
    """What IKE_SA_INIT says beside the key exchange: NATs, fragments, hashes, IKE_INTERMEDIATE, PPK.

    A responder also says that an IKE SA may be made without a CHILD_SA (RFC 6023 section 3).
    """
    notifies: list[Payload] = list(core.nat_notifies(response=response))
    if core.connection.fragmentation:
        notifies.append(Notify(notify_type=NotifyType2.IKEV2_FRAGMENTATION_SUPPORTED))
    notifies.append(SIGNATURE_HASHES)
    if intermediate:
        notifies.append(Notify(notify_type=NotifyType2.INTERMEDIATE_EXCHANGE_SUPPORTED))
    if ppk:
        notifies.append(Notify(notify_type=NotifyType2.USE_PPK))
    if response:
        notifies.append(CHILDLESS_SUPPORTED)
    return tuple(notifies)


def signature_hashes(content: Content) -> tuple[int, ...]:
    """The hash algorithms that the peer verifies signatures over; none where it does not know RFC 7427."""
    notify = content.notify(NotifyType2.SIGNATURE_HASH_ALGORITHMS)
    data = notify.data[: _MAX_HASHES * _HASH_LENGTH] if notify is not None else b""
    whole = len(data) // _HASH_LENGTH * _HASH_LENGTH
    return tuple(int.from_bytes(data[i : i + _HASH_LENGTH], "big") for i in range(0, whole, _HASH_LENGTH))


def certificate_authorities(content: Content) -> tuple[bytes, ...]:
    """Whom the peer trusts, as far as it says: SHA-1 of public keys, 20 bytes each."""
    return tuple(
        name
        for each in content.all(CertificateRequest)
        if each.encoding == CertificateEncoding.X509_SIGNATURE
        for name in each.authorities
    )


# --- our proof --------------------------------------------------------------------------------------------


def prove_request(
    core: Core,
    init_message: bytes,
    init_content: Content,
    *,
    authorities: tuple[bytes, ...],
    ppk: bool,
    peer: bytes,
) -> ProveRequest:
    """Ask for our proof: `init_message` is our IKE_SA_INIT, `init_content` the peer's.

    `peer` is the `remote_identification`, `ppk` says that both ends can use a PPK.
    """
    return ProveRequest(
        message=init_message,
        intermediate=tuple(core.channel.covered),
        hashes=signature_hashes(init_content),
        authorities=authorities,
        peer_supports_ppk=ppk,
        remote_identification=peer,
    )


def identification(kind: Callable[..., I], proof: ProveResponse) -> I:
    """Our IDi or IDr. Raises: IllegalValue when the authority's is no identification."""
    body = proof.identification
    if len(body) < 4:
        raise IllegalValue("the authority's identification is too short")
    return kind(id_type=body[0], data=body[4:])


def certificates(proof: ProveResponse) -> tuple[Payload, ...]:
    """Our certificates, our own first; none with a pre-shared key."""
    return tuple(
        Certificate(encoding=CertificateEncoding.X509_SIGNATURE, data=each) for each in proof.certificates
    )


def ppk_notifies(proof: ProveResponse, *, required: bool) -> tuple[Payload, ...]:
    """An initiator's word on the PPK it used, and its proof without one where it may be left out (RFC 8784)."""
    if not proof.ppk_identity:
        return ()
    identity = Notify(notify_type=NotifyType2.PPK_IDENTITY, data=proof.ppk_identity)
    if required or not proof.proof_without_ppk:
        return (identity,)
    return identity, Notify(notify_type=NotifyType2.NO_PPK_AUTH, data=proof.proof_without_ppk)


def wanted_responder(text: str) -> IdentificationResponder | None:
    """The IDr that an initiator insists on, from an identity in the form of a verdict.

    None for a distinguished name, which takes X.509 code to write: the authority insists on it all the same.
    """
    kind, _, value = text.partition(":")
    if kind == "dns":
        return IdentificationResponder(id_type=IdentificationType.FQDN, data=value.encode())
    if kind == "email":
        return IdentificationResponder(id_type=IdentificationType.RFC822_ADDR, data=value.encode())
    if kind == "ip":
        packed = ip_address(value).packed
        four = len(packed) == 4
        id_type = IdentificationType.IPV4_ADDR if four else IdentificationType.IPV6_ADDR
        return IdentificationResponder(id_type=id_type, data=packed)
    if kind == "keyid":
        return IdentificationResponder(id_type=IdentificationType.KEY_ID, data=bytes.fromhex(value))
    return None


# --- the peer's proof ---------------------------------------------------------------------------------------


def peer_chain(content: Content) -> PeerChain:
    """The peer's certificates and stapled OCSP response (RFC 4806); other encodings are left out.

    Raises: IllegalValue beyond `MAX_CERTIFICATES` or `MAX_CHAIN` bytes.
    """
    found: list[bytes] = []
    ocsp_response = b""
    size = 0
    for each in content.all(Certificate):
        size += len(each.data)
        if each.encoding == CertificateEncoding.X509_SIGNATURE:
            found.append(each.data)
        elif each.encoding == CertificateEncoding.OCSP_CONTENT:
            ocsp_response = each.data
    if len(found) > MAX_CERTIFICATES or size > MAX_CHAIN:
        raise IllegalValue(f"a chain of {len(found)} certificates and {size} bytes")
    return PeerChain(tuple(found), ocsp_response)


def authenticate_request(
    core: Core, content: Content, init_message: bytes, *, identification: PayloadType2
) -> IkeAuthenticateRequest:
    """Ask for the verdict on a message of IKE_AUTH; `init_message` is the peer's IKE_SA_INIT.

    Raises: Unauthenticated without AUTH: the peer wants EAP.
    """
    proof = content.get(Authentication)
    if proof is None:
        raise Unauthenticated("the peer wants EAP, which is not supported")
    return IkeAuthenticateRequest(
        chain=peer_chain(content),
        identification=content.body(identification),
        method=proof.method,
        proof=proof.data,
        message=init_message,
        intermediate=tuple(core.channel.covered),
        ppk_identity=_notified(content, NotifyType2.PPK_IDENTITY),
        proof_without_ppk=_notified(content, NotifyType2.NO_PPK_AUTH),
        ppk_confirmed=not core.initiator or content.notify(NotifyType2.PPK_IDENTITY) is not None,
    )


def _notified(content: Content, notify_type: NotifyType2) -> bytes:
    notify = content.notify(notify_type)
    return notify.data if notify is not None else b""
