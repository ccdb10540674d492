"""The message layer: retransmission times, bounded memories, Message IDs."""

from __future__ import annotations

from tests.support.link_network import seeded

from locum.link.exchange import MessageIds, Recent, Retransmissions, TransmissionParameters


def test_the_first_time_out_is_spread_so_that_many_do_not_repeat_at_once() -> None:
    """RFC 7252 section 4.2: between ACK_TIMEOUT and ACK_TIMEOUT * ACK_RANDOM_FACTOR."""
    moments = set()
    for seed in range(50):
        made: Retransmissions[int] = Retransmissions(TransmissionParameters(), seeded(seed))
        made.start(1, b"", 100.0)
        moment = made.next_timeout()
        assert moment is not None
        assert 102.0 <= moment <= 103.0
        moments.add(moment)
    assert len(moments) > 40


def test_what_was_stopped_is_not_sent_again_nor_kept() -> None:
    made: Retransmissions[int] = Retransmissions(TransmissionParameters(), seeded(1))
    made.start(0, b"kept", 0.0)
    for key in range(1, 10_000):
        made.start(key, b"stopped", 1.0)
        assert made.stop(key)
        assert not made.stop(key)
    assert len(made) == 1
    assert len(made._heap) < 100
    again, given_up = made.expire(3.0)
    assert (again, given_up) == ([(0, b"kept")], [])


def test_a_late_timer_repeats_once_and_not_for_every_time_out_that_has_passed() -> None:
    made: Retransmissions[int] = Retransmissions(TransmissionParameters(), seeded(1))
    made.start(0, b"x", 0.0)
    assert made.expire(1000.0) == ([(0, b"x")], [])
    assert made.expire(1000.0) == ([], [])


def test_a_memory_forgets_what_is_too_much_and_what_is_too_old() -> None:
    memory: Recent[str, int] = Recent(limit=2, lifetime=10.0)
    for moment, key in enumerate("abc"):
        memory.put(key, moment, float(moment))
    assert [memory.get(key, 2.0) for key in "abc"] == [None, 1, 2]
    assert memory.get("b", 11.5) is None
    memory.put("c", 7, 11.5)
    assert len(memory) == 1
    assert memory.get("c", 20.0) == 7
    memory.forget(30.0)
    assert len(memory) == 0


def test_message_ids_go_round() -> None:
    """RFC 7252 section 4.4."""
    made = MessageIds(lambda length: b"\xff" * length)
    assert [made.take(), made.take()] == [0, 1]
