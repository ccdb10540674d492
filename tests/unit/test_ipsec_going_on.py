"""Associations that go on: at other addresses, in runs, and after very many losses (RFC 4303 Appendix A2.3)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from tests.support.ipsec import FAR4, FAR6, NEAR6, ah_sa, esp_sa, far_end, ipv4_packet, ipv6_packet, key_of

from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import ConfigurationError
from locum.ipsec.algorithms import AES128_CBC, NULL_AES128_GMAC, SHA2_256_128
from locum.ipsec.esp import EspReceiver, EspSender
from locum.ipsec.ip import NO_NEXT_HEADER, parse
from locum.ipsec.modes import inbound, outbound
from locum.ipsec.policy import Action, Policy, PolicyDatabase, Protection
from locum.ipsec.processor import Processor
from locum.ipsec.sa import Direction, Lifetime, Mode, SaDatabase, UdpEncapsulation
from locum.ipsec.selectors import parse_selectors
from locum.ipsec.sequence import (
    LAST_EXTENDED_SEQUENCE,
    LAST_SEQUENCE,
    RESYNCHRONIZE_AFTER,
    RESYNCHRONIZE_PLACES,
)

ELSEWHERE = ip_address("198.51.100.77")
NAT = UdpEncapsulation(source_port=4500, destination_port=31000)
EVERYTHING = Policy(name="all", action=Action.PROTECT, protection=Protection())


@pytest.mark.parametrize("build", [esp_sa, ah_sa])
def test_numbers_go_on_at_another_address(build: Any) -> None:
    sa = build()
    here, there = Processor(PolicyDatabase([EVERYTHING])), Processor(PolicyDatabase([EVERYTHING]))
    here.add(sa)
    there.add(far_end(sa))
    early = [here.protect(ipv4_packet()) for _ in range(3)]
    assert [there.unprotect(packet) for packet in early] == [ipv4_packet()] * 3
    moved = replace(sa, destination=ELSEWHERE)
    here.move(sa, moved)
    there.move(next(iter(there.associations)), far_end(moved))
    late = here.protect(ipv4_packet())
    assert parse(late).destination == ELSEWHERE.packed
    assert there.unprotect(late) == ipv4_packet()
    usage = here.usage(moved), next(iter(there.associations))
    assert usage[0] is not None and usage[0].packets == 4
    assert there.usage(usage[1]) is not None and there.usage(usage[1]).packets == 4  # type: ignore[union-attr]
    assert here.usage(sa) is None
    here.remove(moved)
    assert len(here.associations) == 0


def test_an_association_can_move_to_the_other_ip_version_and_behind_a_nat() -> None:
    sa = esp_sa()
    sender = outbound(sa)
    sender.follow(replace(sa, source=NEAR6, destination=FAR6, encapsulation=NAT))
    assert parse(sender.protect(ipv4_packet())).destination == FAR6.packed


def test_only_the_same_association_can_take_the_place_of_another() -> None:
    sa, other = esp_sa(), esp_sa(spi=0x4444_4444, destination=ELSEWHERE)
    database = SaDatabase()
    database.add(sa)
    database.add(other)
    for wrong in (
        replace(sa, spi=0x5555_5555),
        replace(sa, encryption_key=key_of(20, 9)),
        replace(sa, mode=Mode.TRANSPORT),
        replace(sa, direction=Direction.IN),
    ):
        with pytest.raises(ConfigurationError):
            database.replace(sa, wrong)
    with pytest.raises(ConfigurationError):
        database.replace(esp_sa(), replace(sa, destination=ELSEWHERE))
    database.add(replace(sa, destination=ELSEWHERE))
    with pytest.raises(ConfigurationError, match="cannot be replaced"):
        database.replace(sa, replace(sa, destination=ELSEWHERE, encapsulation=NAT))


SUITES = [
    esp_sa(extended_sequence=True),
    esp_sa(NULL_AES128_GMAC, extended_sequence=True),
    esp_sa(AES128_CBC, SHA2_256_128, extended_sequence=True),
    ah_sa(extended_sequence=True),
]
SUITE_IDS = ["gcm", "gmac", "cbc", "ah"]


@pytest.mark.parametrize("sa", SUITES, ids=SUITE_IDS)
@pytest.mark.parametrize("lost", [1 << 32, RESYNCHRONIZE_PLACES << 32])
def test_a_receiver_finds_its_place_again_after_four_thousand_million_lost_packets(sa: Any, lost: int) -> None:
    receiver = inbound(far_end(sa))
    assert receiver.unprotect(outbound(sa, first_sequence=1000).protect(ipv4_packet())) == ipv4_packet()
    later = outbound(sa, first_sequence=lost + 2000)
    for _ in range(RESYNCHRONIZE_AFTER - 1):
        with pytest.raises(AuthenticationFailed):
            receiver.unprotect(later.protect(ipv4_packet()))
    assert [receiver.unprotect(later.protect(ipv4_packet())) for _ in range(3)] == [ipv4_packet()] * 3


@pytest.mark.parametrize("sa", SUITES, ids=SUITE_IDS)
def test_beyond_its_reach_a_receiver_does_not_look(sa: Any) -> None:
    receiver = inbound(far_end(sa))
    later = outbound(sa, first_sequence=((RESYNCHRONIZE_PLACES + 1) << 32) + 5)
    for _ in range(RESYNCHRONIZE_AFTER * 2):
        with pytest.raises(AuthenticationFailed):
            receiver.unprotect(later.protect(ipv4_packet()))


def test_failures_count_only_one_after_the_other() -> None:
    sa = esp_sa(extended_sequence=True)
    receiver, near, later = EspReceiver(far_end(sa)), EspSender(sa), EspSender(sa, first_sequence=(1 << 32) + 9)
    for _ in range(3):
        for _ in range(RESYNCHRONIZE_AFTER - 1):
            with pytest.raises(AuthenticationFailed):
                receiver.open(later.seal(b"", 59))
        assert receiver.open(near.seal(b"x", 17)) is not None


def test_forgeries_do_not_move_a_window_and_numbers_of_32_bits_are_never_searched_for() -> None:
    for extended in (False, True):
        sa = esp_sa(extended_sequence=extended)
        receiver = EspReceiver(far_end(sa))
        for number in range(RESYNCHRONIZE_AFTER * 3):
            with pytest.raises(AuthenticationFailed):
                receiver.open(sa.spi.to_bytes(4, "big") + (number + 1).to_bytes(4, "big") + bytes(60))
        assert receiver.sequence.highest == 0
        assert bool(receiver.sequence.candidates(1)) is False


# --- runs -------------------------------------------------------------------------------------------------


def test_a_run_ends_where_something_is_out_of_turn() -> None:
    sa = esp_sa()
    sender, receiver = EspSender(sa), EspReceiver(far_end(sa))
    packets = [ipv4_packet(bytes(count)) for count in range(6)]
    sealed = sender.seal_packets(packets)
    dummy, tail = sender.dummy(10), sender.seal_packets(packets[:1])
    assert receiver.open_run(sealed[:2], 0) == (packets[:2], 2)
    # Number 3 is missing.
    assert receiver.open_run(sealed[3:], 0) == ([], 0)
    assert receiver.open_packet(sealed[3]) == packets[3]
    assert receiver.open_run([*sealed[4:], dummy, *tail], 0) == (packets[4:], 2)
    assert receiver.open(dummy) is None
    assert receiver.open_run([dummy, *tail], 1) == (packets[:1], 2)
    assert receiver.open_run(sealed, 0) == ([], 0)
    assert receiver.open_packet(sealed[2]) == packets[2]
    assert receiver.sequence.packets == 8


@pytest.mark.parametrize("extended, last", [(False, LAST_SEQUENCE), (True, LAST_EXTENDED_SEQUENCE)])
def test_a_run_does_not_go_beyond_the_last_number(extended: bool, last: int) -> None:
    sa = esp_sa(extended_sequence=extended)
    receiver = EspReceiver(far_end(sa))
    sender = EspSender(sa, first_sequence=last - 2)
    sealed = sender.seal_packets([ipv4_packet()] * 3)
    receiver.sequence.accept(last - 3)
    assert receiver.open_run([*sealed, sealed[0][:4] + bytes(4) + sealed[0][8:]], 0)[1] == 3
    assert receiver.sequence.allowance == 0


def test_a_run_over_the_boundary_of_the_lower_half_is_followed() -> None:
    sa = esp_sa(extended_sequence=True)
    receiver = EspReceiver(far_end(sa))
    receiver.sequence.accept((1 << 32) - 3)
    sealed = EspSender(sa, first_sequence=(1 << 32) - 2).seal_packets([ipv4_packet()] * 9)
    assert receiver.open_run(sealed, 0)[1] == 9
    assert receiver.sequence.highest == (1 << 32) + 6


@pytest.mark.parametrize("lifetime", [Lifetime(hard_packets=3), Lifetime(hard_bytes=65_535 * 3 + 10)])
def test_a_run_stays_within_the_hard_limits(lifetime: Lifetime) -> None:
    sa = esp_sa()
    receiver = EspReceiver(far_end(replace(sa, lifetime=lifetime)))
    sealed = EspSender(sa).seal_packets([ipv4_packet()] * 9)
    assert receiver.open_run(sealed, 0)[1] == 3


def test_hidden_lengths_and_forged_contents_are_left_to_the_one_who_looks_closely() -> None:
    sa = esp_sa()
    for seal in (
        lambda sender: sender.seal(ipv4_packet(), 4, traffic_flow_padding=64),
        lambda sender: sender.seal(ipv4_packet(), 41),
        lambda sender: sender.seal(b"", NO_NEXT_HEADER),
        lambda sender: sender.seal(b"no packet", 4),
        lambda sender: sender.seal(ipv6_packet()[:-1], 41),
    ):
        sender, receiver = EspSender(sa), EspReceiver(far_end(sa))
        assert receiver.open_run([seal(sender)], 0) == ([], 0)
        assert receiver.sequence.highest == 0
    for wrong in (b"", b"\0" * 8, b"\0" * 33, sa.spi.to_bytes(4, "big") + b"\0\0\0\1" + bytes(60)):
        assert EspReceiver(far_end(sa)).open_run([wrong], 0) == ([], 0)


# --- how long a packet may be -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("changes", [{}, {"source": NEAR6, "destination": FAR6}], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("mtu", range(1280, 1296))
def test_the_longest_packet_fits_and_a_longer_one_does_not(mtu: int, changes: dict[str, Any], mode: Mode) -> None:
    plain = ipv6_packet if changes else ipv4_packet
    for sa in (
        esp_sa(mode=mode, **changes),
        esp_sa(mode=mode, encapsulation=NAT, **changes),
        esp_sa(AES128_CBC, SHA2_256_128, mode=mode, **changes),
        ah_sa(mode=mode, **changes),
    ):
        sender = outbound(sa)
        longest = sender.longest(mtu)
        header = len(plain(b""))
        assert len(sender.protect(plain(bytes(longest - header)))) <= mtu
        assert len(sender.protect(plain(bytes(longest + 1 - header)))) > mtu


@pytest.mark.parametrize(
    "policies, mode, whole",
    [
        ([EVERYTHING], Mode.TUNNEL, False),
        ([EVERYTHING], Mode.TRANSPORT, True),
        ([replace(EVERYTHING, remote=parse_selectors("any[udp/53]"))], Mode.TUNNEL, True),
        ([replace(EVERYTHING, remote=parse_selectors("any[udp]"))], Mode.TUNNEL, False),
    ],
    ids=["tunnel", "transport", "ports", "protocol"],
)
def test_whole_packets_are_needed_for_ports_and_for_transport_mode(policies: Any, mode: Mode, whole: bool) -> None:
    processor = Processor(PolicyDatabase(policies))
    assert not processor.needs_whole_packets or mode is Mode.TUNNEL
    processor.add(esp_sa(mode=mode, destination=FAR4))
    assert processor.needs_whole_packets is whole
