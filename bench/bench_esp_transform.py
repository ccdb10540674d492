"""The ESP transform alone, without any I/O: packets of 1,400 bytes, AES-128-GCM, against the cipher by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

from bench.harness import Benchmark, Row, alternate

from locum.ipsec.algorithms import AES128_GCM16
from locum.ipsec.esp import EspReceiver, EspSender
from locum.ipsec.ip import UDP, ipv4_header
from locum.ipsec.modes import EspInbound, EspOutbound
from locum.ipsec.sa import Direction, SecurityAssociation

PACKET_LENGTH = 1400
#: Packets that a sender takes at a time.
BATCH = 64
BATCHES = 60
ROUNDS = 15
MEGABYTE = 1_000_000


def association() -> SecurityAssociation:
    """An outbound association in tunnel mode."""
    return SecurityAssociation(
        spi=0x1000_0001,
        direction=Direction.OUT,
        source=ip_address("192.0.2.1"),
        destination=ip_address("198.51.100.2"),
        encryption=AES128_GCM16,
        encryption_key=bytes(range(AES128_GCM16.keymat_length)),
    )


def plain_packet() -> bytes:
    """A UDP packet between two networks."""
    ends = ip_address("10.1.0.1").packed, ip_address("10.2.0.1").packed
    return ipv4_header(*ends, UDP, PACKET_LENGTH) + bytes((4, 0, 0, 53)) + bytes(PACKET_LENGTH - 24)


def measure() -> list[Row]:
    """Seal and open the same packet again and again, each time under a new sequence number."""
    sa = association()
    incoming = replace(sa, direction=Direction.IN, replay_window=0)
    sender, outbound, inbound = EspSender(sa), EspOutbound(sa), EspInbound(incoming)
    packets = [plain_packet()] * BATCH
    numbered = EspSender(sa)
    batches = [numbered.seal_packets(packets) for _ in range(BATCHES)]
    whole = [outbound.protect(packet) for packet in packets]
    assert AES128_GCM16.aead is not None
    cipher, nonce, plaintext = AES128_GCM16.aead.new(bytes(16)), bytes(12), packets[0] + bytes(4)
    ciphertext = cipher.seal(nonce, plaintext, b"12345678")

    def open_all() -> None:
        receiver = EspReceiver(incoming)
        for batch in batches:
            receiver.open_run(batch, 0)

    def repeated(call: Callable[[], object]) -> None:
        for _ in range(BATCHES):
            call()

    calls = (
        lambda: repeated(lambda: sender.seal_packets(packets)),
        open_all,
        lambda: repeated(lambda: [outbound.protect(packet) for packet in packets]),
        lambda: repeated(lambda: [inbound.unprotect(packet) for packet in whole]),
        lambda: repeated(lambda: [cipher.seal(nonce, plaintext, b"12345678") for _ in packets]),
        lambda: repeated(lambda: [cipher.open(nonce, ciphertext, b"12345678") for _ in packets]),
    )
    volume = BATCH * BATCHES * PACKET_LENGTH / MEGABYTE
    seal, opened, protect, unprotect, bare_seal, bare_open = (
        volume / seconds for seconds in alternate(calls, rounds=ROUNDS)
    )
    bare = "AES-128-GCM alone"
    return [
        Row(name="esp-seal", value=seal, unit="MB/s", reference=bare, reference_value=bare_seal),
        Row(name="esp-open", value=opened, unit="MB/s", reference=bare, reference_value=bare_open),
        Row(name="esp-tunnel-out", value=protect, unit="MB/s", reference=bare, reference_value=bare_seal),
        Row(name="esp-tunnel-in", value=unprotect, unit="MB/s", reference=bare, reference_value=bare_open),
    ]


BENCHMARKS = (Benchmark(("esp-seal", "esp-open", "esp-tunnel-out", "esp-tunnel-in"), measure),)
