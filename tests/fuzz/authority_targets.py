"""Fuzz targets: everything that an authority reads from terminals, peers and administrators."""

from collections.abc import Callable
from contextlib import suppress

from cryptography.hazmat.primitives.serialization import Encoding
from tests.support import pki
from tests.support.exchange import told12

from locum.authority.chains import ChainCache
from locum.authority.key_exchange12 import perform_key_exchange
from locum.authority.messages import (
    decode_requests,
    decode_responses,
    encode_chain_wanted,
    encode_error,
    encode_requests,
    encode_responses,
)
from locum.authority.remote import RemoteSession
from locum.crypto.asymmetric import groups
from locum.crypto.asymmetric.certificates import PathValidator, load_anchors, load_public_key
from locum.crypto.asymmetric.finite_field import ffdhe
from locum.crypto.asymmetric.revocation import load_crl
from locum.crypto.asymmetric.signatures import PublicKey
from locum.errors import LocumError, Refused
from locum.handshake import Fault, PeerChain, Verdict
from locum.ike import operations as ike
from locum.keys.file import FileKey
from locum.tls.operations import (
    AuthenticateRequest,
    ClientKeyExchangeRequest,
    KeyForm,
    MasterSecretRequest,
    MasterSecretResponse,
    StartRequest,
    StartResponse,
)
from locum.tls.registry import KeyExchange, NamedGroup
from locum.tls.signed_messages12 import signed_messages

ROOT = pki.ca()
INTERMEDIATE = pki.intermediate(ROOT)
LEAF = pki.leaf(INTERMEDIATE)
KEY = PublicKey.of(LEAF.certificate.public_key())
TOKEN = b"8 bytes."
START = StartRequest(versions=(0x0304, 0x0303), cipher_suites=(0x1301,), server_name=pki.PEER_NAME)
AUTHENTICATE = AuthenticateRequest(
    version=0x0303, cipher_suite=0xC02B, chain=PeerChain(LEAF.chain), scheme=0x0403, content=bytes(100)
)
STARTED = StartResponse(
    versions=(0x0304,),
    cipher_suites=(0x1301,),
    groups=(0x1D,),
    signature_schemes=(0x0403,),
    key_share_group=0x1D,
    key_share=bytes(32),
    key_form=KeyForm.SECRET,
)
IKE_START = ike.IkeStartRequest(exchange=ike.Exchange.IKE_2, initiator=False, sa=bytes(48), group=31)
IKE_KEYS = ike.KeyExchangeRequest(
    group=31,
    public_value=bytes(32),
    initiator_spi=bytes(8),
    responder_spi=bytes(8),
    peer_nonce=bytes(32),
    own_nonce=bytes(32),
)
IKE_AUTHENTICATE = ike.IkeAuthenticateRequest(
    chain=PeerChain(LEAF.chain),
    identification=b"\x02\0\0\0peer.example",
    method=14,
    proof=bytes(70),
    message=bytes(100),
    intermediate=(bytes(20), bytes(30)),
)
IKE_PROVE = ike.ProveRequest(message=bytes(100), intermediate=(bytes(20), bytes(30)), hashes=(2, 3))
IKE_PROOF = [IKE_AUTHENTICATE, IKE_PROVE, ike.SaKeysRequest()]
VALIDATOR = PathValidator((ROOT.pem,), (pki.crl(INTERMEDIATE),))
STAPLE = pki.ocsp_response(INTERMEDIATE, LEAF.certificate)


def _told_messages(data: bytes) -> None:
    signed_messages(data, seen=AUTHENTICATE, certificates=LEAF.chain, key_exchange=b"")


def _requests(data: bytes) -> None:
    decode_requests(data, ChainCache())


def _start_responses(data: bytes) -> None:
    decode_responses(data, [START])


def _verdict_responses(data: bytes) -> None:
    decode_responses(data, [AUTHENTICATE, MasterSecretRequest()])


def _ike_start_responses(data: bytes) -> None:
    decode_responses(data, [IKE_START, IKE_KEYS])


def _ike_proof_responses(data: bytes) -> None:
    decode_responses(data, IKE_PROOF)


def _remote_session(data: bytes) -> None:
    remote = RemoteSession()
    remote.encode([START])
    remote.decode(data[1:], data[0] if data else 0)


def _leaf(data: bytes) -> None:
    VALIDATOR.validate((data, INTERMEDIATE.der), b"", pki.PEER_NAME, now=pki.EPOCH)


def _intermediate(data: bytes) -> None:
    VALIDATOR.validate((LEAF.der, data), b"", pki.PEER_NAME, now=pki.EPOCH)


def _staple(data: bytes) -> None:
    VALIDATOR.validate(LEAF.chain, data, pki.PEER_NAME, now=pki.EPOCH)


def _server_name(data: bytes) -> None:
    VALIDATOR.validate(LEAF.chain, b"", data.decode(errors="replace"), now=pki.EPOCH)


def _ecdh_parameters(data: bytes) -> None:
    perform_key_exchange(KeyExchange.ECDHE, data, offered_groups=tuple(NamedGroup), peer_key=KEY, random=bytes)


def _dh_parameters(data: bytes) -> None:
    perform_key_exchange(KeyExchange.DHE, data, offered_groups=(), peer_key=KEY, random=bytes)


def _hybrid_share(data: bytes) -> None:
    groups.start("X25519MLKEM768").complete(data)


def _crl(data: bytes) -> None:
    load_crl(data)


def _anchors(data: bytes) -> None:
    load_anchors(data)


def _public_key(data: bytes) -> None:
    load_public_key(data)


def _private_key(data: bytes) -> None:
    FileKey.from_pem(data)


def _only_typed_errors(call: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        with suppress(LocumError):
            call(data)

    return target


_CALLS: dict[str, Callable[[bytes], None]] = {
    "told_messages": _told_messages,
    "requests": _requests,
    "start_responses": _start_responses,
    "verdict_responses": _verdict_responses,
    "ike_start_responses": _ike_start_responses,
    "ike_proof_responses": _ike_proof_responses,
    "remote_session": _remote_session,
    "leaf": _leaf,
    "intermediate": _intermediate,
    "staple": _staple,
    "server_name": _server_name,
    "ecdh_parameters": _ecdh_parameters,
    "dh_parameters": _dh_parameters,
    "hybrid_share": _hybrid_share,
    "crl": _crl,
    "anchors": _anchors,
    "public_key": _public_key,
    "private_key": _private_key,
}
TARGETS = {name: _only_typed_errors(call) for name, call in _CALLS.items()}

_VERDICT = Verdict(authentic=False, allowed=False, reason="no", fault=Fault.EXPIRED)
_DH = b"".join(
    len(value).to_bytes(2, "big") + value for value in (ffdhe(2048).prime.to_bytes(256, "big"), b"\x02", b"\x05")
)
_EXCHANGE = ClientKeyExchangeRequest(cipher_suite=0xC02B, parameters=bytes(36))
_RESPONDER = pki.ocsp_responder(INTERMEDIATE)
SEEDS: dict[str, tuple[bytes, ...]] = {
    "told_messages": (b"".join(told12(randoms=bytes(64))),),
    "requests": (
        encode_requests(b"", [START]),
        encode_requests(TOKEN, [AUTHENTICATE, MasterSecretRequest()], with_chain=True),
        encode_requests(
            TOKEN, [AUTHENTICATE, ClientKeyExchangeRequest(cipher_suite=0xC02B, parameters=bytes(36))]
        ),
        encode_requests(b"", [IKE_START, IKE_KEYS]),
        encode_requests(TOKEN, IKE_PROOF, with_chain=True),
        encode_requests(
            b"",
            [
                ike.IkeStartRequest(exchange=ike.Exchange.FURTHER, initiator=False, group=31),
                ike.SharedSecretRequest(group=31, public_value=bytes(32), more=True),
            ],
        ),
    ),
    "start_responses": (encode_responses(TOKEN, [START], [STARTED]), encode_error(Refused("no"))),
    "verdict_responses": (
        encode_responses(b"", [AUTHENTICATE], [_VERDICT]),
        encode_responses(
            b"",
            [AUTHENTICATE, MasterSecretRequest()],
            [Verdict(authentic=True, allowed=True, identity="dns:a"), MasterSecretResponse(secret=bytes(32))],
        ),
    ),
    "ike_start_responses": (
        encode_responses(
            TOKEN,
            [IKE_START, IKE_KEYS],
            [ike.IkeStartResponse(group=31), ike.IkeKeysResponse(keys=bytes(72), public_value=bytes(32))],
        ),
        encode_responses(TOKEN, [IKE_START], [ike.IkeStartResponse(group=19, other_group_wanted=True)]),
    ),
    "ike_proof_responses": (
        encode_responses(
            b"",
            IKE_PROOF,
            [
                Verdict(authentic=True, allowed=True, identity="dns:a"),
                ike.ProveResponse(
                    identification=b"\x02\0\0\0a", certificates=LEAF.chain, method=14, proof=bytes(70)
                ),
                ike.SaKeysResponse(keys=bytes(32)),
            ],
        ),
        encode_responses(b"", IKE_PROOF, [_VERDICT]),
    ),
    "remote_session": (
        b"\x44" + encode_responses(TOKEN, [START], [STARTED]),
        b"\x44" + encode_chain_wanted(),
        b"\x83" + encode_error(Refused("no")),
    ),
    "leaf": (LEAF.der, pki.leaf(INTERMEDIATE, "rsa").der, pki.leaf(INTERMEDIATE, must_staple=True).der),
    "intermediate": (INTERMEDIATE.der,),
    "staple": (
        STAPLE,
        pki.ocsp_response(INTERMEDIATE, LEAF.certificate, responder=pki.ocsp_responder(INTERMEDIATE)),
    ),
    "server_name": (b"peer.example.com", b"127.0.0.1", b"2001:db8::1"),
    "ecdh_parameters": (b"\x03\x00\x1d\x20" + bytes(31) + b"\x09",),
    "dh_parameters": (_DH,),
    "crl": (pki.crl(INTERMEDIATE, [LEAF.certificate]), load_crl(pki.crl(INTERMEDIATE)).public_bytes(Encoding.DER)),
    "anchors": (ROOT.pem, ROOT.der),
    "public_key": (LEAF.public_pem, LEAF.pem, LEAF.der),
    "private_key": (LEAF.key_pem,),
}
