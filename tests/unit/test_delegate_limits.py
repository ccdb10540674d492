"""The rate limit of each terminal: a token bucket (A3: a terminal that floods harms nobody else)."""

from __future__ import annotations

import pytest

from locum.delegate.limits import RateLimiter, RateLimits


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    limiter = RateLimiter(RateLimits(rate=10.0, burst=3.0))
    assert [limiter.take("meter", 100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert limiter.take("meter", 100.0) == pytest.approx(0.1)
    assert limiter.take("meter", 100.05) == pytest.approx(0.05)
    assert limiter.take("meter", 100.11) == 0.0
    assert limiter.take("meter", 100.11) > 0.0


def test_a_refused_request_costs_nothing() -> None:
    limiter = RateLimiter(RateLimits(rate=1.0, burst=1.0))
    assert limiter.take("meter", 0.0) == 0.0
    for _ in range(1000):
        assert limiter.take("meter", 0.5) > 0.0
    assert limiter.take("meter", 1.0) == 0.0


def test_what_a_request_turned_out_to_be_worth_has_to_be_waited_for() -> None:
    limiter = RateLimiter(RateLimits(rate=10.0, burst=3.0))
    assert limiter.take("meter", 0.0) == 0.0
    limiter.charge("meter", 7.0)
    assert limiter.take("meter", 0.0) == pytest.approx(0.6)
    assert limiter.take("meter", 0.61) == 0.0
    limiter.charge("nobody", 7.0)
    assert limiter.take("nobody", 0.0) == 0.0


def test_a_rest_fills_the_bucket_to_the_burst_and_no_further() -> None:
    limiter = RateLimiter(RateLimits(rate=10.0, burst=3.0))
    limiter.take("meter", 0.0)
    assert [limiter.take("meter", 3600.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert limiter.take("meter", 3600.0) > 0.0


def test_terminals_do_not_share_a_bucket() -> None:
    limiter = RateLimiter(RateLimits(rate=1.0, burst=1.0))
    assert limiter.take("flood", 0.0) == 0.0
    assert limiter.take("flood", 0.0) > 0.0
    assert limiter.take("meter", 0.0) == 0.0


def test_a_clock_that_stands_still_or_steps_back_gives_no_tokens() -> None:
    limiter = RateLimiter(RateLimits(rate=1.0, burst=1.0))
    assert limiter.take("meter", 10.0) == 0.0
    assert limiter.take("meter", 5.0) > 0.0


def test_the_longest_unused_bucket_makes_room() -> None:
    limiter = RateLimiter(RateLimits(rate=1.0, burst=1.0), maximum=2)
    limiter.take("a", 0.0)
    limiter.take("b", 0.0)
    limiter.take("a", 0.0)
    limiter.take("c", 0.0)
    assert len(limiter) == 2
    assert limiter.take("a", 0.0) > 0.0


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.5)])
def test_limits_that_let_nothing_through_are_a_mistake(rate: float, burst: float) -> None:
    with pytest.raises(ValueError):
        RateLimits(rate=rate, burst=burst)
