"""Sealing and opening of messages, fragments of both versions, and the CBC chain of IKEv1."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.crypto.symmetric import AES_BLOCK, SHA256, AesCbcHmacKey, AesCbcKey, AuthenticationFailed
from locum.errors import DecodeError
from locum.ike import algorithms as alg
from locum.ike import fragments1
from locum.ike import payloads1 as p1
from locum.ike import payloads2 as p2
from locum.ike.errors import NotProtected
from locum.ike.header import HEADER_LENGTH, MAX_MESSAGE, Header, parse_header
from locum.ike.protection import (
    MAX_FRAGMENTS,
    MIN_FRAGMENT,
    AeadProtection,
    CbcChain,
    CbcProtection,
    Protection,
    Reassembly,
    fragment_message,
    parse_message,
    protection,
    seal_message,
)
from locum.ike.registry import ExchangeType, PayloadType2
from locum.ike.suites import IkeSuite

HEADER = Header(
    initiator_spi=b"initiatr",
    responder_spi=b"responde",
    version=0x20,
    exchange_type=ExchangeType.IKE_AUTH,
    flags=0x08,
    message_id=1,
)
AEADS = (alg.ENCR_AES_GCM_16_128, alg.ENCR_AES_GCM_16_256, alg.ENCR_CHACHA20_POLY1305)
SUITES = [
    *(
        IkeSuite(encryption=each, integrity=None, prf=alg.PRF_HMAC_SHA2_256, group=alg.CURVE25519)
        for each in AEADS
    ),
    *(
        IkeSuite(encryption=alg.ENCR_AES_CBC_256, integrity=each, prf=alg.PRF_HMAC_SHA2_256, group=alg.CURVE25519)
        for each in alg.INTEGRITIES
    ),
]


def key_of(suite: IkeSuite, seed: int = 1) -> Protection:
    material = bytes((seed,)) * suite.encryption.material_length
    integrity = bytes((seed + 100,)) * suite.integrity_length
    return protection(suite, material, integrity, lambda length: bytes(range(length)))


every_suite = pytest.mark.parametrize("suite", SUITES, ids=str)


@every_suite
@given(chain=st.binary(max_size=600), first=st.integers(0, 255))
def test_what_is_sealed_opens(suite: IkeSuite, chain: bytes, first: int) -> None:
    key = key_of(suite)
    message = seal_message(key, HEADER, first, chain)
    header = parse_header(message)
    sealed = parse_message(header, message)
    assert header == HEADER._replace(next_payload=PayloadType2.ENCRYPTED, length=len(message))
    assert isinstance(sealed.encrypted, p2.Encrypted)
    assert sealed.encrypted.first == first
    assert len(sealed.encrypted.data) == key.sealed_length(len(chain))
    assert sealed.open(key) == chain


@every_suite
@given(at=st.integers(0), bit=st.integers(0, 7))
def test_no_bit_of_a_message_can_be_changed(suite: IkeSuite, at: int, bit: int) -> None:
    message = bytearray(seal_message(key_of(suite), HEADER, PayloadType2.NONCE, bytes(40)))
    message[at % len(message)] ^= 1 << bit
    try:
        sealed = parse_message(HEADER._replace(next_payload=message[16]), bytes(message))
    except DecodeError:
        return
    with pytest.raises(NotProtected):
        sealed.open(key_of(suite))


@every_suite
def test_another_key_does_not_open(suite: IkeSuite) -> None:
    message = seal_message(key_of(suite, 1), HEADER, 0, b"")
    with pytest.raises(NotProtected):
        parse_message(parse_header(message), message).open(key_of(suite, 2))


@every_suite
@pytest.mark.parametrize("length", [0, 1, 16, 24, 31, 47])
def test_an_encrypted_payload_that_is_too_short_is_not_protected(suite: IkeSuite, length: int) -> None:
    key = key_of(suite)
    if length < key.sealed_length(0):
        with pytest.raises(NotProtected):
            key.open(bytes(length), b"")


def test_a_message_in_clear_is_not_protected() -> None:
    message = seal_message(key_of(SUITES[0]), HEADER, 0, b"")
    header = parse_header(message)._replace(next_payload=PayloadType2.VENDOR_ID)
    sealed = parse_message(header, message)
    assert sealed.encrypted is None
    assert [raw.type for raw in sealed.clear] == [PayloadType2.VENDOR_ID]
    with pytest.raises(NotProtected, match="clear"):
        sealed.open(key_of(SUITES[0]))


def test_nothing_may_follow_an_encrypted_payload() -> None:
    message = seal_message(key_of(SUITES[0]), HEADER, 0, b"") + b"\0"
    with pytest.raises(DecodeError, match="behind"):
        parse_message(HEADER._replace(next_payload=PayloadType2.ENCRYPTED), message)


def test_an_aead_never_uses_an_iv_twice() -> None:
    key = key_of(SUITES[0])
    ivs = {key.seal(b"same", b"")[:8] for _ in range(100)}
    assert len(ivs) == 100


def test_authentic_padding_that_is_longer_than_the_plaintext_is_malformed() -> None:
    suite = SUITES[0]
    aead = suite.encryption.aead
    assert aead is not None
    material = bytes(suite.encryption.material_length)
    sealed = bytes(8) + aead.new(material[:16]).seal(material[16:] + bytes(8), b"abc\4", b"")
    with pytest.raises(DecodeError, match="padding"):
        AeadProtection(suite.encryption, material).open(sealed, b"")


def test_padding_of_any_length_and_content_is_cut() -> None:
    key = AesCbcHmacKey(bytes(32), bytes(32), SHA256, 16)
    sealed = bytes(16) + key.seal(bytes(16), b"plain" + b"\xa5" * 42 + bytes((42,)), b"")
    suite = SUITES[len(AEADS)]
    assert CbcProtection(suite, bytes(32), bytes(32), bytes).open(sealed, b"") == b"plain"


def test_algorithms_do_what_they_are_made_for_only() -> None:
    with pytest.raises(ValueError, match="no AEAD"):
        AeadProtection(alg.ENCR_AES_CBC_128, bytes(16))
    with pytest.raises(ValueError, match="integrity"):
        CbcProtection(SUITES[0], bytes(16), b"", bytes)


def test_a_message_that_is_too_long_cannot_be_sealed() -> None:
    with pytest.raises(ValueError, match="bytes"):
        seal_message(key_of(SUITES[0]), HEADER, 0, bytes(MAX_MESSAGE))


@every_suite
def test_no_secret_is_shown(suite: IkeSuite) -> None:
    key = key_of(suite)
    message = seal_message(key, HEADER, 0, b"")
    chain = CbcChain(AesCbcKey(b"k" * 16), b"i" * 16)
    for text in (repr(key), repr(parse_message(parse_header(message), message)), repr(chain)):
        assert "kkk" not in text
        assert "iii" not in text
        assert "\\x01\\x01" not in text


# --- fragments of IKEv2 ---------------------------------------------------------------------------------------


def reassemble(key: Protection, messages: list[bytes], assembly: Reassembly | None = None) -> list[object]:
    assembly = assembly or Reassembly()
    results: list[object] = []
    for message in messages:
        sealed = parse_message(parse_header(message), message)
        if isinstance(sealed.encrypted, p2.EncryptedFragment):
            results.append(assembly.add(sealed.encrypted, sealed.open(key)))
        else:
            assert isinstance(sealed.encrypted, p2.Encrypted)
            results.append((sealed.encrypted.first, sealed.open(key)))
    return results


@every_suite
@given(
    length=st.integers(0, 9000),
    maximum=st.integers(MIN_FRAGMENT, 1400),
    order=st.randoms(use_true_random=False),
)
def test_fragments_fit_and_come_together_in_any_order(
    suite: IkeSuite, length: int, maximum: int, order: random.Random
) -> None:
    chain = random.Random(length).randbytes(length)
    key = key_of(suite)
    messages = list(fragment_message(key, HEADER, 39, chain, maximum=maximum))
    assert all(len(message) <= maximum for message in messages)
    order.shuffle(messages)
    results = reassemble(key, messages)
    assert results[:-1] == [None] * (len(messages) - 1)
    assert results[-1] == (39, chain)


def test_only_the_first_fragment_names_the_first_payload() -> None:
    key = key_of(SUITES[0])
    messages = fragment_message(key, HEADER, 39, bytes(1000), maximum=MIN_FRAGMENT)
    fragments = [parse_message(parse_header(each), each).encrypted for each in messages]
    assert [each.first for each in fragments if each is not None] == [39] + [0] * (len(messages) - 1)


def test_a_message_that_fits_is_not_cut() -> None:
    key = key_of(SUITES[0])
    room = 400 - HEADER_LENGTH - 4 - key.sealed_length(0)
    assert len(fragment_message(key, HEADER, 39, bytes(room), maximum=400)) == 1
    assert len(fragment_message(key, HEADER, 39, bytes(room + 1), maximum=400)) == 2


def test_what_cannot_be_cut_is_said() -> None:
    key = key_of(SUITES[0])
    with pytest.raises(ValueError, match="too small"):
        fragment_message(key, HEADER, 0, b"", maximum=MIN_FRAGMENT - 1)
    with pytest.raises(ValueError, match="fragments"):
        fragment_message(key, HEADER, 0, bytes(MIN_FRAGMENT * MAX_FRAGMENTS), maximum=MIN_FRAGMENT)


def fragment(number: int, total: int) -> p2.EncryptedFragment:
    return p2.EncryptedFragment(first=33, number=number, total=total, data=b"")


def test_a_fragment_that_comes_again_changes_nothing() -> None:
    assembly = Reassembly()
    assert assembly.add(fragment(1, 2), b"one") is None
    assert assembly.add(fragment(1, 2), b"other") is None
    assert assembly.add(fragment(2, 2), b"two") == (33, b"onetwo")
    assert assembly.held == 0


def test_a_higher_total_starts_again_and_a_lower_one_is_left_out() -> None:
    # RFC 7383 section 2.6: the sender may have found out that it must cut into smaller pieces.
    assembly = Reassembly()
    assembly.add(fragment(1, 2), b"old")
    assert assembly.add(fragment(1, 3), b"a") is None
    assert assembly.add(fragment(2, 2), b"old") is None
    assembly.add(fragment(2, 3), b"b")
    assert assembly.add(fragment(3, 3), b"c") == (33, b"abc")


def test_reassembly_is_bounded_in_number_and_bytes() -> None:
    assembly = Reassembly()
    with pytest.raises(DecodeError, match="fragments"):
        assembly.add(fragment(1, MAX_FRAGMENTS + 1), b"")
    assembly.add(fragment(1, 3), bytes(40_000))
    with pytest.raises(DecodeError, match="more than"):
        assembly.add(fragment(2, 3), bytes(40_000))
    assert assembly.held == 0


# --- fragments of IKEv1 ---------------------------------------------------------------------------------------

HEADER_1 = Header(initiator_spi=b"initiatr", version=0x10, exchange_type=2, flags=1, next_payload=5)


@given(length=st.integers(28, 9000), maximum=st.integers(MIN_FRAGMENT, 1400))
def test_version_1_fragments_fit_and_come_together_in_any_order(length: int, maximum: int) -> None:
    message = random.Random(length).randbytes(length)
    datagrams = fragments1.cut_message(HEADER_1, message, 7, maximum=maximum)
    if length <= maximum:
        assert datagrams == (message,)
        return
    assembly = fragments1.Reassembly()
    results = []
    for datagram in reversed(datagrams):
        assert len(datagram) <= maximum
        header = parse_header(datagram)
        payloads = p1.parse_payloads(header.next_payload, datagram[HEADER_LENGTH:])
        (piece,) = payloads.items
        assert isinstance(piece, p1.Fragment)
        results.append(assembly.add(piece))
    assert results == [None] * (len(datagrams) - 1) + [message]
    assert assembly.held == 0


def piece(number: int, data: bytes = b"x", *, last: bool = False, identifier: int = 1) -> p1.Fragment:
    return p1.Fragment(id=identifier, number=number, last=last, data=data)


def test_a_fragment_of_another_message_pushes_out_what_is_held() -> None:
    assembly = fragments1.Reassembly()
    assembly.add(piece(1, b"old"))
    assert assembly.add(piece(2, b"b", last=True, identifier=2)) is None
    assert assembly.add(piece(1, b"a", identifier=2)) == b"ab"


def test_a_version_1_fragment_that_comes_again_changes_nothing() -> None:
    assembly = fragments1.Reassembly()
    assembly.add(piece(1, b"a"))
    assert assembly.add(piece(1, b"other")) is None
    assert assembly.add(piece(2, b"b", last=True)) == b"ab"


@pytest.mark.parametrize("before", [(), (piece(3),)])
def test_impossible_numbers_are_refused(before: tuple[p1.Fragment, ...]) -> None:
    assembly = fragments1.Reassembly()
    for each in before:
        assembly.add(each)
    bad = piece(2, last=True) if before else piece(0)
    with pytest.raises(DecodeError, match="fragment"):
        assembly.add(bad)


def test_a_number_beyond_the_last_is_refused() -> None:
    assembly = fragments1.Reassembly()
    assembly.add(piece(2, last=True))
    with pytest.raises(DecodeError, match="fragment 3"):
        assembly.add(piece(3))


def test_version_1_reassembly_is_bounded() -> None:
    assembly = fragments1.Reassembly()
    assembly.add(piece(1, bytes(40_000)))
    with pytest.raises(DecodeError, match="more than"):
        assembly.add(piece(2, bytes(40_000)))
    assert assembly.held == 0


def test_what_cannot_be_cut_in_version_1_is_said() -> None:
    with pytest.raises(ValueError, match="too small"):
        fragments1.cut_message(HEADER_1, bytes(300), 1, maximum=MIN_FRAGMENT - 1)
    with pytest.raises(ValueError, match="fragments"):
        fragments1.cut_message(HEADER_1, bytes(MIN_FRAGMENT * 256), 1, maximum=MIN_FRAGMENT)


# --- encryption of IKEv1 --------------------------------------------------------------------------------------


@given(messages=st.lists(st.binary(min_size=1, max_size=100), min_size=1, max_size=5))
def test_both_ends_of_a_chain_stay_together(messages: list[bytes]) -> None:
    ours = theirs = CbcChain(AesCbcKey(bytes(16)), bytes(16))
    for message in messages:
        ciphertext, ours = ours.seal(message)
        assert len(ciphertext) % AES_BLOCK == 0
        assert ours.iv == ciphertext[-AES_BLOCK:]
        plaintext, theirs = theirs.open(ciphertext)
        assert plaintext.rstrip(b"\0") == message.rstrip(b"\0")
        assert plaintext[: len(message)] == message


@pytest.mark.parametrize("length", [0, 1, 15, 17])
def test_an_incomplete_block_is_not_protected(length: int) -> None:
    with pytest.raises(NotProtected):
        CbcChain(AesCbcKey(bytes(16)), bytes(16)).open(bytes(length))


# --- AES-CBC with HMAC ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 15, 17, 16 + 15, 16 + 17])
def test_what_has_not_whole_blocks_and_a_tag_does_not_authenticate(length: int) -> None:
    with pytest.raises(AuthenticationFailed, match="whole blocks"):
        AesCbcHmacKey(bytes(16), bytes(32), SHA256, 16).open(bytes(16), bytes(length), b"")


def test_an_aes_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="16, 24 or 32"):
        AesCbcKey(bytes(15))
