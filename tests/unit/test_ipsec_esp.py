"""ESP, its sending and its receiving end (RFC 4303; B13)."""

from __future__ import annotations

import pytest
from tests.support.ipsec import ESP_SUITES, esp_sa, far_end, ipv4_packet, ipv6_packet, key_of

from locum.crypto.symmetric import AES_BLOCK, AuthenticationFailed, CbcChain
from locum.errors import DecodeError
from locum.ipsec import algorithms
from locum.ipsec.algorithms import EncryptionAlgorithm, IntegrityAlgorithm
from locum.ipsec.esp import MAX_PAYLOAD, EspReceiver, EspSender
from locum.ipsec.faults import LifetimeExpired, Replayed, SequenceExhausted, UnknownAssociation
from locum.ipsec.ip import IPV4, IPV6, TCP
from locum.ipsec.protection import protection
from locum.ipsec.sa import Lifetime, SecurityAssociation
from locum.ipsec.sequence import LAST_SEQUENCE

Suite = tuple[EncryptionAlgorithm, IntegrityAlgorithm | None]
every_suite = pytest.mark.parametrize("suite", ESP_SUITES, ids=lambda suite: "-".join(a.name for a in suite if a))


def ends(sa: SecurityAssociation, first: int = 1) -> tuple[EspSender, EspReceiver]:
    receiver = EspReceiver(far_end(sa))
    receiver.sequence.highest = first - 1
    return EspSender(sa, first_sequence=first), receiver


@every_suite
@pytest.mark.parametrize("extended", [False, True])
def test_what_is_sealed_is_opened(suite: Suite, extended: bool) -> None:
    sender, receiver = ends(esp_sa(*suite, extended_sequence=extended))
    for length in (*range(40), 1400, MAX_PAYLOAD):
        payload = bytes(range(256)) * 256
        sealed = sender.seal(payload[:length], TCP)
        assert len(sealed) <= length + sender.overhead
        assert (len(sealed) - receiver._minimum + 2) % 4 == 0
        assert receiver.open(sealed) == (TCP, payload[:length])
    assert receiver.sequence.packets == sender.sequence.packets == 42
    assert receiver.sequence.bytes == sender.sequence.bytes


@every_suite
def test_only_null_encryption_shows_the_payload(suite: Suite) -> None:
    payload = b"a payload that is long enough to be found"
    sealed = EspSender(esp_sa(*suite)).seal(payload, TCP)
    assert (payload in sealed) is not suite[0].confidential


@every_suite
def test_a_packet_is_opened_once(suite: Suite) -> None:
    sender, receiver = ends(esp_sa(*suite))
    first, second = sender.seal(b"1", TCP), sender.seal(b"2", TCP)
    assert receiver.open(second) == (TCP, b"2")
    assert receiver.open(first) == (TCP, b"1")
    for packet in (first, second):
        with pytest.raises(Replayed):
            receiver.open(packet)


@every_suite
@pytest.mark.parametrize("extended", [False, True])
def test_every_altered_byte_is_noticed_and_changes_no_state(suite: Suite, extended: bool) -> None:
    sender, receiver = ends(esp_sa(*suite, extended_sequence=extended))
    sealed = sender.seal(b"payload", TCP)
    for position in range(len(sealed)):
        altered = bytearray(sealed)
        altered[position] ^= 0x10
        with pytest.raises((AuthenticationFailed, UnknownAssociation)):
            receiver.open(bytes(altered))
    assert receiver.open(sealed) == (TCP, b"payload")


@every_suite
def test_every_truncation_is_noticed(suite: Suite) -> None:
    sender, receiver = ends(esp_sa(*suite))
    sealed = sender.seal(b"payload", TCP)
    for length in range(len(sealed)):
        with pytest.raises((AuthenticationFailed, DecodeError)):
            receiver.open(sealed[:length])
    with pytest.raises((AuthenticationFailed, DecodeError)):
        receiver.open(sealed + b"\0")


@every_suite
def test_the_upper_half_of_an_extended_number_is_authenticated(suite: Suite) -> None:
    sa = esp_sa(*suite, extended_sequence=True)
    sealed = EspSender(sa, first_sequence=(7 << 32) + 5).seal(b"payload", TCP)
    assert sealed[4:8] == b"\0\0\0\x05"
    receiver = EspReceiver(far_end(sa))
    with pytest.raises(AuthenticationFailed):
        receiver.open(sealed)
    receiver.sequence.highest = 7 << 32
    assert receiver.open(sealed) == (TCP, b"payload")


@every_suite
def test_no_iv_and_no_packet_comes_twice(suite: Suite) -> None:
    sender = EspSender(esp_sa(*suite))
    sealed = [sender.seal(b"the same", TCP) for _ in range(500)]
    assert len(set(sealed)) == 500
    if suite[0].iv_length:
        assert len({packet[8 : 8 + suite[0].iv_length] for packet in sealed}) == 500


def test_the_last_number_is_the_end_of_the_association() -> None:
    sender, receiver = ends(esp_sa(), first=LAST_SEQUENCE)
    last = sender.seal(b"last", TCP)
    for _ in range(2):
        with pytest.raises(SequenceExhausted):
            sender.seal(b"more", TCP)
        with pytest.raises(SequenceExhausted):
            sender.seal_packets([ipv4_packet()])
    assert receiver.open(last) == (TCP, b"last")


def test_a_batch_beyond_the_end_uses_no_number() -> None:
    length = len(ipv4_packet())
    for lifetime in (Lifetime(hard_packets=2), Lifetime(hard_bytes=2 * length)):
        sender = EspSender(esp_sa(lifetime=lifetime))
        with pytest.raises(LifetimeExpired):
            sender.seal_packets([ipv4_packet()] * 3)
        assert sender.sequence.sequence == sender.sequence.bytes == 0
        assert len(sender.seal_packets([ipv4_packet()] * 2)) == 2
        with pytest.raises(LifetimeExpired):
            sender.seal_packets([ipv4_packet()])
        assert (sender.sequence.sequence, sender.sequence.bytes) == (2, 2 * length)


def test_traffic_flow_padding_is_removed_by_the_length_of_what_is_inside() -> None:
    sender, receiver = ends(esp_sa())
    for packet, next_header in ((ipv4_packet(), IPV4), (ipv6_packet(), IPV6)):
        sealed = sender.seal(packet, next_header, traffic_flow_padding=300)
        assert len(sealed) > 300
        assert receiver.open_packet(sealed) == packet


def test_dummy_packets_are_dropped() -> None:
    sender, receiver = ends(esp_sa())
    assert receiver.open(sender.dummy(100)) is None
    assert receiver.open_packet(sender.dummy(0)) is None
    assert receiver.sequence.packets == 2


@pytest.mark.parametrize("trailer", [b"\x01\x02\x04\x03\x06", b"\0\0\x02\x06", b"\x02\x01\x02\x06", b"\xff\x06"])
def test_padding_other_than_1_2_3_is_refused(trailer: bytes) -> None:
    sa = esp_sa()
    receiver = EspReceiver(far_end(sa))
    with pytest.raises(DecodeError):
        receiver.open(protection(sa).seal(1, trailer))
    # It was authentic, so its number is used up all the same.
    with pytest.raises(Replayed):
        receiver.open(protection(sa).seal(1, b"\0\x06"))


def test_incomplete_blocks_are_refused_even_when_authentic() -> None:
    sa = esp_sa(algorithms.AES128_CBC, algorithms.SHA2_256_128)
    body = sa.spi.to_bytes(4, "big") + b"\0\0\0\x01" + bytes(16 + 7)
    assert sa.integrity is not None and sa.integrity.mac is not None
    with pytest.raises(DecodeError):
        EspReceiver(far_end(sa)).open(body + sa.integrity.mac.new(sa.integrity_key).tag(body))


def test_a_tunnel_carries_ip_packets_only() -> None:
    sender, receiver = ends(esp_sa())
    for payload, next_header in ((b"TCP", TCP), (b"", IPV4), (ipv4_packet(), IPV6), (ipv4_packet()[:-1], IPV4)):
        with pytest.raises(DecodeError):
            receiver.open_packet(sender.seal(payload, next_header))


def test_payloads_that_no_packet_can_carry_are_our_own_mistake() -> None:
    with pytest.raises(ValueError):
        EspSender(esp_sa()).seal(bytes(MAX_PAYLOAD + 1), TCP)


def test_a_cbc_chain_hides_what_repeats_and_opens_messages_in_any_order() -> None:
    sender, receiver = CbcChain(key_of(16)), CbcChain(key_of(16))
    messages = [sender.encrypt(number, bytes(AES_BLOCK * 3)) for number in range(1, 20)]
    blocks = [message[at : at + AES_BLOCK] for message in messages for at in range(0, 64, AES_BLOCK)]
    assert len(set(blocks)) == len(blocks)
    for message in reversed(messages):
        assert receiver.decrypt(message) == bytes(AES_BLOCK * 3)
    for incomplete in (b"", bytes(15), bytes(17)):
        with pytest.raises(ValueError):
            receiver.decrypt(incomplete)
    with pytest.raises(ValueError):
        sender.encrypt(20, bytes(15))
