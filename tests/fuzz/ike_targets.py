"""Fuzz targets of IKE: every parser of both versions, what is read being written back, and negotiation."""

from __future__ import annotations

from collections.abc import Callable

from tests.vectors.strongswan_ike import RECORDINGS

from locum.crypto.symmetric import AesCbcKey
from locum.errors import LocumError
from locum.ike import algorithms as alg
from locum.ike import fragments1, payloads1, payloads2, proposals1, proposals2
from locum.ike.header import HEADER_LENGTH, RawPayload, parse_header
from locum.ike.policy import ChildPolicy, IkePolicy, Phase1Policy
from locum.ike.protection import CbcChain, Reassembly, parse_message, protection, seal_message
from locum.ike.registry import AuthenticationMethod1, Flags1, PayloadType1, PayloadType2, ProtocolId
from locum.ike.suites import IkeSuite
from locum.wire.cursor import Reader

_SUITES = (
    IkeSuite(encryption=alg.ENCR_AES_GCM_16_128, integrity=None, prf=alg.PRF_HMAC_SHA2_256, group=alg.CURVE25519),
    IkeSuite(
        encryption=alg.ENCR_AES_CBC_128,
        integrity=alg.AUTH_HMAC_SHA2_256_128,
        prf=alg.PRF_HMAC_SHA2_256,
        group=alg.CURVE25519,
    ),
)


def _header(data: bytes) -> None:
    try:
        parse_header(data)
    except LocumError:
        return


def _message2(data: bytes) -> None:
    try:
        parse_message(parse_header(data), data)
    except LocumError:
        return


def _payloads2(data: bytes) -> None:
    """The first byte is the first payload's type."""
    if not data:
        return
    try:
        payloads = payloads2.parse_payloads(data[0], data[1:])
    except LocumError:
        return
    first, chain = payloads2.write_payloads(payloads)
    assert payloads2.parse_payloads(first, chain) == payloads


def _payloads1(data: bytes) -> None:
    """The first byte is the first payload's type; its top bit asks for public-key encryption."""
    if not data:
        return
    try:
        payloads = payloads1.parse_payloads(
            data[0],
            data[1:],
            maximum_padding=payloads1.MAX_PADDING,
            public_key_encryption=bool(data[0] & 0x80),
        )
    except LocumError:
        return
    first, chain = payloads1.write_payloads(payloads.items)
    again = payloads1.parse_payloads(first, chain, public_key_encryption=bool(data[0] & 0x80))
    assert again.items == payloads.items


def _negotiation2(data: bytes) -> None:
    try:
        offered = payloads2.SecurityAssociation.parse(Reader(data))
    except LocumError:
        return
    additional = ((alg.ML_KEM_768, None), (alg.ML_KEM_1024, None))
    for choose in (
        lambda: proposals2.choose_ike(IkePolicy(additional=additional), offered),
        lambda: proposals2.choose_child(ChildPolicy(groups=(alg.ECP_256, None)), offered, spi=bytes(4)),
        lambda: proposals2.choose_child(ChildPolicy(protocol=ProtocolId.AH), offered, spi=bytes(4), first=True),
        lambda: proposals2.accept_ike(proposals2.offer_ike(IkePolicy(additional=additional)), offered),
        lambda: proposals2.accept_child(proposals2.offer_child(ChildPolicy(), bytes(4)), offered),
    ):
        try:
            choose()
        except LocumError:
            continue


def _negotiation1(data: bytes) -> None:
    try:
        offered = payloads1.SecurityAssociation.parse(Reader(data))
    except LocumError:
        return
    phase1 = Phase1Policy(methods=tuple(AuthenticationMethod1))
    child = ChildPolicy(groups=(None, alg.ECP_256))
    for choose in (
        lambda: proposals1.choose_phase1(phase1, offered),
        lambda: proposals1.choose_phase2(child, offered, spi=bytes(4)),
        lambda: proposals1.choose_phase2(ChildPolicy(protocol=ProtocolId.AH), offered, spi=bytes(4)),
        lambda: proposals1.accept_phase1(proposals1.offer_phase1(phase1), offered),
        lambda: proposals1.accept_phase2(proposals1.offer_phase2(child, bytes(4)), offered),
    ):
        try:
            choose()
        except LocumError:
            continue


def _opened2(data: bytes) -> None:
    """Authentic messages around hostile content, and the content itself taken for a sealed one."""
    if not data:
        return
    header = parse_header(RECORDINGS["v2-psk-x25519-cbc-sha256"].message(2))
    for suite in _SUITES:
        key = protection(suite, bytes(suite.encryption.material_length), bytes(suite.integrity_length), bytes)
        message = seal_message(key, header, data[0], data[1:])
        sealed = parse_message(parse_header(message), message)
        assert sealed.open(key) == data[1:]
        try:
            payloads2.parse_payloads(data[0], sealed.open(key))
            key.open(data, message)
        except LocumError:
            continue


def _fragments2(data: bytes) -> None:
    """Three bytes each for number, total and length of a fragment."""
    assembly = Reassembly()
    for at in range(0, len(data) - 2, 3):
        number, total, length = data[at : at + 3]
        body = number.to_bytes(2, "big") + total.to_bytes(2, "big")
        try:
            fragment = payloads2.EncryptedFragment.of(RawPayload(PayloadType2.ENCRYPTED_FRAGMENT, body))
            assembly.add(fragment, bytes(length * 256))
        except LocumError:
            continue


def _fragments1(data: bytes) -> None:
    assembly = fragments1.Reassembly()
    for at in range(0, len(data), 8):
        try:
            assembly.add(payloads1.Fragment.parse(Reader(data[at : at + 8])))
        except LocumError:
            continue


def _decrypted1(data: bytes) -> None:
    try:
        plaintext, _ = CbcChain(AesCbcKey(bytes(16)), bytes(16)).open(data)
        payloads1.parse_payloads(PayloadType1.HASH, plaintext, maximum_padding=payloads1.MAX_PADDING)
    except LocumError:
        return


_ALL = tuple(message for recording in RECORDINGS.values() for _, message in recording.messages)
_SECOND = tuple(
    message for name, each in RECORDINGS.items() if name.startswith("v2") for _, message in each.messages
)
_CLEAR2 = tuple(message for message in _SECOND if message[16] != PayloadType2.ENCRYPTED)
_CLEAR1 = tuple(
    message
    for name, each in RECORDINGS.items()
    if name.startswith("v1")
    for _, message in each.messages
    if not message[19] & Flags1.ENCRYPTION
)


def _after_header(message: bytes) -> bytes:
    return message[16:17] + message[HEADER_LENGTH:]


def _security_association(message: bytes) -> bytes:
    length = int.from_bytes(message[HEADER_LENGTH + 2 : HEADER_LENGTH + 4], "big")
    return message[HEADER_LENGTH + 4 : HEADER_LENGTH + length]


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": _header,
    "message2": _message2,
    "payloads2": _payloads2,
    "payloads1": _payloads1,
    "negotiation2": _negotiation2,
    "negotiation1": _negotiation1,
    "opened2": _opened2,
    "fragments2": _fragments2,
    "fragments1": _fragments1,
    "decrypted1": _decrypted1,
}

SEEDS: dict[str, tuple[bytes, ...]] = {
    "header": _ALL[:2],
    "message2": _SECOND[:4],
    "payloads2": tuple(_after_header(message) for message in _CLEAR2[:2]),
    "payloads1": tuple(_after_header(message) for message in _CLEAR1[:4]),
    "negotiation2": tuple(_security_association(message) for message in _CLEAR2[:2]),
    "negotiation1": tuple(_security_association(message) for message in _CLEAR1[:2]),
    "opened2": tuple(_after_header(message) for message in _CLEAR2[:1]),
}
