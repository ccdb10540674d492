"""Fuzz targets of the authority's side of IKE: identities, certificates, proofs, public values and offers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from tests.support import pki
from tests.support.ike_authority import (
    LEFT,
    NONCE_I,
    RIGHT,
    SPI_I,
    SPI_R,
    authority,
    body_of,
    init_message,
    policy1,
    psk_pair,
    start2,
)

from locum.authority import ike_key_exchange
from locum.authority.databases import TrustMaterial
from locum.authority.ike2_messages import Half, Spis, check_init_message
from locum.authority.ike_authentication import IkeAuthenticator
from locum.authority.ike_identities import identification_of, identities_of, parse_identification
from locum.authority.ike_signatures import find_signer, verify1, verify2
from locum.crypto.asymmetric.certificates import parse_chain, subject_of
from locum.crypto.asymmetric.signatures import PublicKey
from locum.errors import LocumError
from locum.handshake import PeerChain
from locum.ike import algorithms as alg
from locum.ike.operations import Exchange, IkeStartRequest
from locum.ike.proposals1 import offer_phase1
from locum.ike.registry import AuthenticationMethod1
from locum.keys.file import FileKey

_LEAF = pki.leaf(pki.ca())
_AUTHENTICATOR = IkeAuthenticator(TrustMaterial(anchors=(pki.ca().pem,)))
_CLAIMED = identification_of(f"dns:{pki.PEER_NAME}")
_KEYS = {
    kind: PublicKey.of(pki.key(kind).public_key()) for kind in ("rsa", "p256", "p384", "p521", "ed25519", "ed448")
}
_SMALL = (alg.CURVE25519, alg.ECP_256, alg.ML_KEM_768)
_OCTETS = b"signed octets"
_HALF = Half(group=31, public_value=bytes(32), nonce=NONCE_I)
_LEFT, _ = psk_pair()


def _identification(data: bytes) -> None:
    """What is understood is written as text, and that text as an identification that says the same."""
    try:
        parsed = parse_identification(data)
    except LocumError:
        return
    if parsed.text.startswith("dn:"):
        return
    assert identification_of(parsed.text).text == parsed.text


def _init_message(data: bytes) -> None:
    try:
        check_init_message(data, _HALF, Spis(initiator=SPI_I, responder=SPI_R), from_initiator=True)
    except LocumError:
        return
    assert data[:8] == SPI_I
    assert NONCE_I in data


def _certificate(data: bytes) -> None:
    with contextlib.suppress(LocumError):
        identities_of(subject_of(parse_chain([data])[0]))
    try:
        (proven,) = _AUTHENTICATOR.prove_ike(PeerChain((data,)), _CLAIMED, now=pki.EPOCH)
    except LocumError:
        return
    assert proven.identities == (_CLAIMED.text,)
    assert data == _LEAF.der


def _signature2(data: bytes) -> None:
    """The first byte chooses the key, the second is the auth method. Nobody can forge a proof."""
    if len(data) < 2:
        return
    kinds = sorted(_KEYS)
    try:
        verify2(data[1], _KEYS[kinds[data[0] % len(kinds)]], data[2:], _OCTETS, legacy_sha1=True)
    except LocumError:
        return
    assert any(data[2:] == seed[2:] for seed in SEEDS["signature2"])


def _signature1(data: bytes) -> None:
    """The first byte chooses the method."""
    if not data:
        return
    method = list(AuthenticationMethod1)[1:][data[0] % 5]
    if method is AuthenticationMethod1.RSA_ENCRYPTION:
        return
    for key in _KEYS.values():
        try:
            verify1(method, alg.PRF_HMAC_SHA2_256, key, data[1:], bytes(32))
        except LocumError:
            continue
        raise AssertionError("a signature out of nothing")


def _public_value(data: bytes) -> None:
    """The first byte chooses the group."""
    if not data:
        return
    group = _SMALL[data[0] % len(_SMALL)]
    try:
        value, secret = ike_key_exchange.respond(group, data[1:])
    except LocumError:
        return
    assert len(value) == group.responder_length
    assert any(secret)


def _start(data: bytes) -> None:
    """The first byte chooses the exchange and the role, the rest is an SA payload."""
    if not data:
        return
    exchange = list(Exchange)[data[0] >> 1 & 3]
    request = IkeStartRequest(exchange=exchange, initiator=bool(data[0] & 1), sa=data[1:], group=31)
    session = _LEFT.open(LEFT)
    try:
        session.perform([request])
    except LocumError:
        return


def _identity_text(data: bytes) -> None:
    """What a terminal asks for as its own or the peer's identity."""
    text = data.decode(errors="replace")
    for field in ("local_identity", "remote_identity"):
        try:
            authority().open(RIGHT).perform([start2(initiator=True, **{field: text})])
        except LocumError:
            continue


TARGETS: dict[str, Callable[[bytes], None]] = {
    "identification": _identification,
    "identity_text": _identity_text,
    "init_message": _init_message,
    "certificate": _certificate,
    "signature2": _signature2,
    "signature1": _signature1,
    "public_value": _public_value,
    "start": _start,
}


def _signed(kind: str) -> bytes:
    signer = find_signer(_KEYS[kind].kind, (2, 3, 4, 5), legacy_sha1=False, rsa_pss=True)
    assert signer is not None
    proof = signer.sign(FileKey(pki.key(kind)), _OCTETS)
    return bytes((sorted(_KEYS).index(kind), signer.method)) + proof


SEEDS: dict[str, tuple[bytes, ...]] = {
    "identification": tuple(
        identification_of(text).body
        for text in (
            "dns:peer.example.com",
            "ip:192.0.2.1",
            "ip:2001:db8::1",
            "email:a@b.example",
            "dn:CN=a,O=b",
            "keyid:c0ffee",
        )
    ),
    "identity_text": (b"dns:peer.example.com", b"dn:CN=a\\2cb,O=#0401ff", b"email:a@b.example", b"keyid:00"),
    "init_message": (init_message(from_initiator=True, group=31, public_value=bytes(32), nonce=NONCE_I),),
    "certificate": (_LEAF.der,),
    "signature2": tuple(_signed(kind) for kind in _KEYS),
    "public_value": tuple(
        bytes((index,)) + ike_key_exchange.KeyExchange(group).public_value for index, group in enumerate(_SMALL)
    ),
    "start": (
        b"\0" + start2(initiator=False).sa,
        b"\1" + start2(initiator=True).sa,
        *(
            bytes((role,)) + body_of(offer_phase1(policy1(AuthenticationMethod1.PRE_SHARED_KEY)))
            for role in (2, 3, 4, 5)
        ),
    ),
}
