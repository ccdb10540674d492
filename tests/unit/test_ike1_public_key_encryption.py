"""Public key encryption (RFC 2409 section 5.2) against the RFC itself: the other end is its formulas, by hand.

Nothing here uses the package's own code for messages, keys or ciphers, so that both cannot be wrong alike.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.support import pki
from tests.support.ike1_memory import prepared
from tests.support.ike_memory import LEFT_ADDRESS, LEFT_NAME, RIGHT_ADDRESS, RIGHT_NAME, Host

from locum.authority.port import AuthoritySession
from locum.handshake import Request, Response
from locum.ike.configuration import Mode
from locum.ike.engine import Path, State
from locum.ike.operations import SaKeysResponse

SA, KE, ID, HASH, NONCE = 1, 4, 5, 8, 10
EXCHANGES = {Mode.MAIN: 2, Mode.AGGRESSIVE: 4}
ENCRYPTED = 1
BLOCK = 16
#: AES-CBC of 128 bits, SHA2-256, encryption with RSA, ecp256: as attributes (RFC 2409 appendix A).
SUITE = {1: 7, 14: 128, 2: 4, 3: 4, 4: 19}
MODES = pytest.mark.parametrize("mode", list(Mode), ids=[mode.value for mode in Mode])


def attributes(body: bytes) -> dict[int, int]:
    """The attributes of a transform that have the short form."""
    found, at = {}, 0
    while at < len(body):
        kind, value = struct.unpack_from(">HH", body, at)
        at += 4
        if kind & 0x8000:
            found[kind & 0x7FFF] = value
        else:
            at += value
    return found


def transform(number: int, body: bytes) -> bytes:
    """A transform of ISAKMP, the last of its proposal."""
    return struct.pack(">BBHBBH", 0, 0, 8 + len(body), number, 1, 0) + body


def security_association(body: bytes) -> bytes:
    """SA_b with one proposal of one transform (RFC 2408 sections 3.4 to 3.6)."""
    return struct.pack(">II", 1, 1) + struct.pack(">BBHBBBB", 0, 0, 8 + len(body), 1, 1, 0, 1) + body


OFFER = security_association(
    transform(1, b"".join(struct.pack(">HH", 0x8000 | kind, value) for kind, value in SUITE.items()))
)


def chosen(offer: bytes) -> bytes:
    """SA_b of an answer: of the transforms that are offered the one with our suite, as it came."""
    at = 16
    while at < len(offer):
        _, _, length = struct.unpack_from(">BBH", offer, at)
        each = offer[at : at + length]
        if SUITE.items() <= attributes(each[8:]).items():
            return security_association(b"\0" + each[1:])
        at += length
    raise AssertionError("the suite is not on offer")


def write(*payloads: tuple[int, bytes]) -> tuple[int, bytes]:
    """The type of the first payload, and the chain."""
    following = [kind for kind, _ in payloads[1:]] + [0]
    parts = [
        struct.pack(">BBH", after, 0, 4 + len(body)) + body
        for (_, body), after in zip(payloads, following, strict=True)
    ]
    return payloads[0][0], b"".join(parts)


def read(first: int, chain: bytes) -> dict[int, bytes]:
    """Bodies by type; what follows the last payload is padding."""
    found, kind, at = {}, first, 0
    while kind:
        following, _, length = struct.unpack_from(">BBH", chain, at)
        found[kind], kind, at = chain[at + 4 : at + length], following, at + length
    return found


def of_rsa(name: str) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    """The key and the certificate that `encryption_authority` has for this name."""
    issued = pki.leaf(pki.ca(), "rsa", (name,), slot=f"ike1:{name}", subject=name, purposes=None)
    key = load_pem_private_key(issued.key_pem, None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key, x509.load_der_x509_certificate(issued.chain[0])


@dataclass
class ByHand:
    """One end of phase 1: what RFC 2409 section 5.2 says, and nothing else."""

    name: str
    peer: str
    cookies: bytes = b""
    values: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.key, _ = of_rsa(self.name)
        _, certificate = of_rsa(self.peer)
        to = certificate.public_key()
        assert isinstance(to, rsa.RSAPublicKey)
        self.to = to
        self.private = ec.generate_private_key(ec.SECP256R1())
        numbers = self.private.public_key().public_numbers()
        self.public = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        self.nonce = bytes(range(20))
        self.id_body = struct.pack(">BBH", 2, 0, 0) + self.name.encode()

    def hidden(self) -> tuple[tuple[int, bytes], ...]:
        """KE, <ID_b>PubKey, <N_b>PubKey."""
        pad = padding.PKCS1v15()
        return (
            (KE, self.public),
            (ID, self.to.encrypt(self.id_body, pad)),
            (NONCE, self.to.encrypt(self.nonce, pad)),
        )

    def take(self, theirs: dict[int, bytes]) -> None:
        """The peer's KE, ID and nonce."""
        pad = padding.PKCS1v15()
        self.their_public = theirs[KE]
        self.their_id = self.key.decrypt(theirs[ID], pad)
        self.their_nonce = self.key.decrypt(theirs[NONCE], pad)
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + self.their_public)
        self.secret = self.private.exchange(ec.ECDH(), point)

    def derive(self, nonces: bytes) -> None:
        """SKEYID and its children; `nonces` are Ni_b | Nr_b."""
        self.skeyid = prf(hashlib.sha256(nonces).digest(), self.cookies)
        seed = self.secret + self.cookies
        d = prf(self.skeyid, seed + b"\0")
        a = prf(self.skeyid, d + seed + b"\1")
        e = prf(self.skeyid, a + seed + b"\2")
        self.keys = d + a + e
        self.cipher = algorithms.AES(e[:16])

    def hash_i(self, initiator: bytes, responder: bytes, sa: bytes, id_body: bytes) -> bytes:
        """prf(SKEYID, g^xi | g^xr | CKY-I | CKY-R | SAi_b | IDii_b)."""
        return prf(self.skeyid, initiator + responder + self.cookies + sa + id_body)

    def hash_r(self, initiator: bytes, responder: bytes, sa: bytes, id_body: bytes) -> bytes:
        """prf(SKEYID, g^xr | g^xi | CKY-R | CKY-I | SAi_b | IDir_b)."""
        return prf(self.skeyid, responder + initiator + self.cookies[8:] + self.cookies[:8] + sa + id_body)

    def encrypted(self, iv: bytes, chain: bytes) -> bytes:
        """CBC, padded with zeros."""
        working = Cipher(self.cipher, modes.CBC(iv)).encryptor()
        return working.update(chain + bytes(-len(chain) % BLOCK)) + working.finalize()

    def decrypted(self, iv: bytes, body: bytes) -> bytes:
        """The reverse, padding and all."""
        working = Cipher(self.cipher, modes.CBC(iv)).decryptor()
        return working.update(body) + working.finalize()


def prf(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def message(cookies: bytes, mode: Mode, first: int, body: bytes, flags: int = 0) -> bytes:
    return cookies + struct.pack(">BBBBII", first, 0x10, EXCHANGES[mode], flags, 0, 28 + len(body)) + body


class Ours:
    """Our end, driven one message at a time; what its authority answers is kept."""

    def __init__(self, mode: Mode, *, initiator: bool) -> None:
        self.network = prepared("encryption", mode)
        self.host: Host = self.network.left if initiator else self.network.right
        self.responses: list[Response] = []
        opened = self.host.authority.open
        self.host.authority.open = lambda terminal: Heard(opened(terminal), self.responses)  # type: ignore

    def initiate(self) -> bytes:
        self.host.endpoint.initiate(Path(LEFT_ADDRESS, 500, RIGHT_ADDRESS, 500), now=self.network.now)
        return self._turn()

    def take(self, arrived: bytes) -> bytes:
        ends = (LEFT_ADDRESS, RIGHT_ADDRESS) if self.host is self.network.left else (RIGHT_ADDRESS, LEFT_ADDRESS)
        self.host.endpoint.receive(arrived, Path(ends[0], 500, ends[1], 500), now=self.network.now)
        return self._turn()

    def _turn(self) -> bytes:
        self.host.work(self.network.now)
        return next((each.message for each in self.host.endpoint.transmit()), b"")

    @property
    def keys(self) -> bytes:
        (response,) = (each for each in self.responses if isinstance(each, SaKeysResponse))
        return response.keys


class Heard:
    """A session whose answers are written down."""

    def __init__(self, session: AuthoritySession, responses: list[Response]) -> None:
        self._session, self._responses = session, responses

    def perform(self, requests: tuple[Request, ...]) -> Any:
        responses = self._session.perform(requests)
        self._responses += responses
        return responses


def test_a_responder_of_main_mode_agrees_with_the_rfc() -> None:
    ours, hand = Ours(Mode.MAIN, initiator=False), ByHand(LEFT_NAME, RIGHT_NAME)
    second = ours.take(message(b"initiate" + bytes(8), Mode.MAIN, *write((SA, OFFER))))
    hand.cookies = second[:16]
    assert read(second[16], second[28:])[SA] == OFFER
    fourth = ours.take(message(hand.cookies, Mode.MAIN, *write(*hand.hidden())))
    hand.take(read(fourth[16], fourth[28:]))
    assert hand.their_id == struct.pack(">BBH", 2, 0, 0) + RIGHT_NAME.encode()
    hand.derive(hand.nonce + hand.their_nonce)
    iv = hashlib.sha256(hand.public + hand.their_public).digest()[:BLOCK]
    proof = hand.hash_i(hand.public, hand.their_public, OFFER, hand.id_body)
    first, chain = write((HASH, proof))
    fifth = hand.encrypted(iv, chain)
    sixth = ours.take(message(hand.cookies, Mode.MAIN, first, fifth, ENCRYPTED))
    answer = read(sixth[16], hand.decrypted(fifth[-BLOCK:], sixth[28:]))
    assert answer[HASH] == hand.hash_r(hand.public, hand.their_public, OFFER, hand.their_id)
    assert ours.keys == hand.keys
    assert ours.host.sa.state is State.ESTABLISHED


def test_an_initiator_of_main_mode_agrees_with_the_rfc() -> None:
    ours, hand = Ours(Mode.MAIN, initiator=True), ByHand(RIGHT_NAME, LEFT_NAME)
    first = ours.initiate()
    hand.cookies = first[:8] + b"response"
    offer = read(first[16], first[28:])[SA]
    third = ours.take(message(hand.cookies, Mode.MAIN, *write((SA, chosen(offer)))))
    hand.take(read(third[16], third[28:]))
    assert hand.their_id == struct.pack(">BBH", 2, 0, 0) + LEFT_NAME.encode()
    hand.derive(hand.their_nonce + hand.nonce)
    fifth = ours.take(message(hand.cookies, Mode.MAIN, *write(*hand.hidden())))
    iv = hashlib.sha256(hand.their_public + hand.public).digest()[:BLOCK]
    proof = read(fifth[16], hand.decrypted(iv, fifth[28:]))[HASH]
    assert proof == hand.hash_i(hand.their_public, hand.public, offer, hand.their_id)
    kind, chain = write((HASH, hand.hash_r(hand.their_public, hand.public, offer, hand.id_body)))
    ours.take(message(hand.cookies, Mode.MAIN, kind, hand.encrypted(fifth[-BLOCK:], chain), ENCRYPTED))
    assert ours.keys == hand.keys
    assert ours.host.sa.state is State.ESTABLISHED


def test_a_responder_of_aggressive_mode_agrees_with_the_rfc() -> None:
    ours, hand = Ours(Mode.AGGRESSIVE, initiator=False), ByHand(LEFT_NAME, RIGHT_NAME)
    second = ours.take(message(b"initiate" + bytes(8), Mode.AGGRESSIVE, *write((SA, OFFER), *hand.hidden())))
    hand.cookies = second[:16]
    answer = read(second[16], second[28:])
    hand.take(answer)
    hand.derive(hand.nonce + hand.their_nonce)
    assert answer[HASH] == hand.hash_r(hand.public, hand.their_public, OFFER, hand.their_id)
    proof = hand.hash_i(hand.public, hand.their_public, OFFER, hand.id_body)
    ours.take(message(hand.cookies, Mode.AGGRESSIVE, *write((HASH, proof))))
    assert ours.keys == hand.keys
    assert ours.host.sa.state is State.ESTABLISHED


def test_an_initiator_of_aggressive_mode_agrees_with_the_rfc() -> None:
    ours, hand = Ours(Mode.AGGRESSIVE, initiator=True), ByHand(RIGHT_NAME, LEFT_NAME)
    first = ours.initiate()
    hand.cookies = first[:8] + b"response"
    asked = read(first[16], first[28:])
    hand.take(asked)
    hand.derive(hand.their_nonce + hand.nonce)
    proof = hand.hash_r(hand.their_public, hand.public, asked[SA], hand.id_body)
    answer = write((SA, chosen(asked[SA])), *hand.hidden(), (HASH, proof))
    third = ours.take(message(hand.cookies, Mode.AGGRESSIVE, *answer))
    body = third[28:]
    if third[19] & ENCRYPTED:
        body = hand.decrypted(hashlib.sha256(hand.their_public + hand.public).digest()[:BLOCK], body)
    assert read(third[16], body)[HASH] == hand.hash_i(hand.their_public, hand.public, asked[SA], hand.their_id)
    assert ours.keys == hand.keys
    assert ours.host.sa.state is State.ESTABLISHED


@MODES
def test_whoever_cannot_decrypt_cannot_prove_itself(mode: Mode) -> None:
    """Who knows only public keys does not learn the responder's nonce, without which there is no SKEYID."""
    ours, hand = Ours(mode, initiator=False), ByHand(LEFT_NAME, RIGHT_NAME)
    if mode is Mode.MAIN:
        second = ours.take(message(b"initiate" + bytes(8), mode, *write((SA, OFFER))))
        hand.cookies = second[:16]
        answer = ours.take(message(hand.cookies, mode, *write(*hand.hidden())))
    else:
        answer = ours.take(message(b"initiate" + bytes(8), mode, *write((SA, OFFER), *hand.hidden())))
        hand.cookies = answer[:16]
    hand.take(read(answer[16], answer[28:]))
    hand.derive(hand.nonce + bytes(len(hand.their_nonce)))
    kind, chain = write((HASH, hand.hash_i(hand.public, hand.their_public, OFFER, hand.id_body)))
    if mode is Mode.MAIN:
        iv = hashlib.sha256(hand.public + hand.their_public).digest()[:BLOCK]
        chain = hand.encrypted(iv, chain)
    ours.take(message(hand.cookies, mode, kind, chain, ENCRYPTED if mode is Mode.MAIN else 0))
    assert all(sa.state is not State.ESTABLISHED for sa in ours.host.endpoint.sas)
    assert not any(isinstance(each, SaKeysResponse) for each in ours.responses)
