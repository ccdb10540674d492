"""Sequence numbers: never given out twice, never accepted twice (RFC 4303 sections 3.3.3, 3.4.3, Appendix A)."""

from __future__ import annotations

import pytest
from tests.support.ipsec import esp_sa, far_end

from locum.errors import ConfigurationError
from locum.ipsec.faults import LifetimeExpired, Replayed, SequenceExhausted
from locum.ipsec.sa import Lifetime
from locum.ipsec.sequence import (
    LAST_EXTENDED_SEQUENCE,
    LAST_SEQUENCE,
    InboundSequence,
    OutboundSequence,
    ReplayWindow,
)


def test_numbers_begin_at_one_and_count_packets_and_bytes() -> None:
    sequence = OutboundSequence(esp_sa())
    assert [sequence.next(100), sequence.next(50)] == [1, 2]
    assert (sequence.packets, sequence.bytes) == (2, 150)


@pytest.mark.parametrize("extended, last", [(False, LAST_SEQUENCE), (True, LAST_EXTENDED_SEQUENCE)])
def test_the_last_number_is_given_out_once(extended: bool, last: int) -> None:
    sequence = OutboundSequence(esp_sa(extended_sequence=extended), first=last)
    assert sequence.next(1) == last
    for _ in range(2):
        with pytest.raises(SequenceExhausted):
            sequence.next(1)
    assert sequence.sequence == last


@pytest.mark.parametrize("first", [0, LAST_SEQUENCE + 1])
def test_a_first_number_out_of_range_is_refused(first: int) -> None:
    with pytest.raises(ConfigurationError):
        OutboundSequence(esp_sa(), first=first)


def test_hard_limits_stop_the_sender_before_they_are_exceeded() -> None:
    packets = OutboundSequence(esp_sa(lifetime=Lifetime(hard_packets=2)), first=10)
    assert [packets.next(1), packets.next(1)] == [10, 11]
    with pytest.raises(LifetimeExpired):
        packets.next(1)
    volume = OutboundSequence(esp_sa(lifetime=Lifetime(hard_bytes=100)))
    volume.next(60)
    with pytest.raises(LifetimeExpired):
        volume.next(41)
    assert volume.next(40) == 2


def test_hard_limits_stop_the_receiver() -> None:
    for lifetime in (Lifetime(hard_packets=1), Lifetime(hard_bytes=100)):
        sequence = InboundSequence(far_end(esp_sa(lifetime=lifetime)))
        sequence.count(sequence.check(1), 100)
        with pytest.raises(LifetimeExpired):
            sequence.check(2)


@pytest.mark.parametrize("size", [1, 32, 64, 4096])
def test_a_window_accepts_each_number_once_and_none_behind_it(size: int) -> None:
    window = ReplayWindow(size)
    assert not window.acceptable(0)
    window.accept(size + 10)
    assert not window.acceptable(size + 10)
    assert not window.acceptable(10)
    for number in range(11, size + 10):
        assert window.acceptable(number)
        window.accept(number)
        assert not window.acceptable(number)
    assert window.acceptable(size + 11)


def test_a_jump_forgets_what_lies_behind_the_window() -> None:
    window = ReplayWindow(64)
    window.accept(1)
    window.accept(1 << 40)
    assert not window.acceptable(1)
    assert window.acceptable((1 << 40) - 63)
    assert not window.acceptable((1 << 40) - 64)


def test_without_anti_replay_a_number_is_accepted_again() -> None:
    sequence = InboundSequence(far_end(esp_sa(replay_window=0)))
    for number in (5, 5, 1, 100_000):
        sequence.count(sequence.check(number), 1)
    assert sequence.packets == 4


def test_number_zero_is_never_accepted() -> None:
    for size in (0, 64):
        with pytest.raises(Replayed):
            InboundSequence(far_end(esp_sa(replay_window=size))).check(0)


@pytest.mark.parametrize(
    "highest, low, whole",
    [
        # RFC 4303 Appendix A2.2, case A: the window lies within one subspace
        (100, 101, 101),
        (100, 37, 37),
        (100, 36, (1 << 32) + 36),
        ((3 << 32) + 100, 50, (3 << 32) + 50),
        ((3 << 32) + 100, 36, (4 << 32) + 36),
        ((3 << 32) + 0xFFFFFFFF, 0, 4 << 32),
        ((3 << 32) + 63, 0, 3 << 32),
        # case B: the window spans two subspaces
        ((3 << 32) + 10, 0xFFFFFFFF, (2 << 32) + 0xFFFFFFFF),
        ((3 << 32) + 10, 0xFFFFFFCB, (2 << 32) + 0xFFFFFFCB),
        ((3 << 32) + 10, 0xFFFFFFCA, (3 << 32) + 0xFFFFFFCA),
        ((3 << 32) + 10, 11, (3 << 32) + 11),
        ((3 << 32) + 62, 0xFFFFFFFF, (2 << 32) + 0xFFFFFFFF),
        # before the first packet there is nothing
        (0, 1, 1),
        (10, 0xFFFFFFFF, -1),
        # nor behind the last
        (LAST_EXTENDED_SEQUENCE, 5, -LAST_SEQUENCE - 1 + 5),
    ],
)
def test_the_upper_half_of_an_extended_number_is_found(highest: int, low: int, whole: int) -> None:
    window = ReplayWindow(64)
    window.highest = highest
    assert window.extend(low) == whole


def test_beyond_the_last_extended_number_nothing_is_accepted() -> None:
    sequence = InboundSequence(far_end(esp_sa(extended_sequence=True)))
    sequence.accept(LAST_EXTENDED_SEQUENCE)
    for low in (0, 5, LAST_SEQUENCE - 64, LAST_SEQUENCE):
        with pytest.raises(Replayed):
            sequence.check(low)
    assert sequence.check(LAST_SEQUENCE - 63) == LAST_EXTENDED_SEQUENCE - 63


def test_extended_numbers_cross_from_one_subspace_to_the_next() -> None:
    sequence = InboundSequence(far_end(esp_sa(extended_sequence=True)))
    start = (1 << 32) - 3
    sequence.accept(start - 1)
    arrived = [start, start + 2, start + 4, start + 1, start + 5, start + 3]
    for number in arrived:
        assert sequence.check(number & LAST_SEQUENCE) == number
        sequence.count(number, 1)
        with pytest.raises(Replayed):
            sequence.check(number & LAST_SEQUENCE)
