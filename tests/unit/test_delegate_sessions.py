"""The table of sessions: tokens bound to terminals, bounded in number and time, wiped at the end (A3)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from locum.delegate.sessions import TOKEN_LENGTH, Session, SessionLimits, SessionTable
from locum.handshake import Request, Response


class Closable:
    def __init__(self) -> None:
        self.closed = 0

    def perform(self, requests: Sequence[Request]) -> tuple[Response, ...]:
        raise AssertionError("not asked here")

    def close(self) -> None:
        self.closed += 1


def counting_random() -> object:
    numbers = itertools.count(1)
    return lambda length: next(numbers).to_bytes(length, "big")


def table(**limits: float) -> SessionTable:
    return SessionTable(SessionLimits(**limits), random=counting_random())  # type: ignore[arg-type]


def open_session(sessions: SessionTable, terminal: str, now: float = 0.0) -> Session:
    allowed, victim = sessions.room_for(terminal)
    assert allowed
    if victim is not None:
        sessions.end(victim)
    return sessions.open(terminal, Closable(), now=now)


def test_a_session_is_found_by_its_own_terminal_until_its_time_is_up() -> None:
    sessions = table(lifetime=60.0)
    session = open_session(sessions, "meter", now=100.0)
    assert len(session.token) == TOKEN_LENGTH
    assert sessions.find(session.token, "meter", now=159.9) is session
    assert sessions.find(session.token, "meter", now=160.0) is None
    assert sessions.find(session.token, "other", now=100.0) is None
    assert sessions.find(bytes(TOKEN_LENGTH), "meter", now=100.0) is None
    assert sessions.find(b"", "meter", now=100.0) is None


def test_a_token_in_use_is_never_given_twice() -> None:
    tokens = iter([b"\x01" * 8, b"\x01" * 8, b"\x02" * 8])
    sessions = SessionTable(SessionLimits(), random=lambda length: next(tokens))
    assert open_session(sessions, "a").token == b"\x01" * 8
    assert open_session(sessions, "b").token == b"\x02" * 8


def test_ending_a_session_wipes_it_and_leaves_the_others_alone() -> None:
    sessions = table()
    first, second = open_session(sessions, "meter"), open_session(sessions, "meter")
    sessions.end(first)
    assert first.authority.closed == 1  # type: ignore[attr-defined]
    assert second.authority.closed == 0  # type: ignore[attr-defined]
    assert sessions.find(first.token, "meter", now=0.0) is None
    assert sessions.find(second.token, "meter", now=0.0) is second
    sessions.end(first)
    assert len(sessions) == sessions.count("meter") == 1


def test_a_terminal_with_too_many_sessions_loses_its_own_oldest() -> None:
    sessions = table(per_terminal=2)
    other = open_session(sessions, "other")
    first, second, third = (open_session(sessions, "meter") for _ in range(3))
    assert sessions.find(first.token, "meter", now=0.0) is None
    assert sessions.find(second.token, "meter", now=0.0) is second
    assert sessions.find(third.token, "meter", now=0.0) is third
    assert sessions.find(other.token, "other", now=0.0) is other


def test_a_full_table_refuses_newcomers_and_lets_the_others_replace_their_own() -> None:
    sessions = table(overall=3, per_terminal=3)
    mine = [open_session(sessions, "meter") for _ in range(3)]
    assert sessions.room_for("newcomer") == (False, None)
    assert sessions.room_for("meter") == (True, mine[0])
    sessions.end(mine[1])
    assert sessions.room_for("newcomer") == (True, None)


def test_expired_sessions_are_reported_oldest_first() -> None:
    sessions = table(lifetime=10.0)
    opened = [open_session(sessions, name, now=when) for name, when in (("a", 0.0), ("b", 1.0), ("a", 5.0))]
    assert sessions.expired(now=9.9) == []
    assert sessions.expired(now=11.0) == opened[:2]
    for session in opened[:2]:
        sessions.end(session)
    assert list(sessions) == [opened[2]]


def test_a_session_shows_nothing_of_its_secrets() -> None:
    assert "Closable" not in repr(open_session(table(), "meter"))


@pytest.mark.parametrize("limits", [{"lifetime": 0}, {"overall": 0}, {"per_terminal": 0}])
def test_limits_without_room_for_a_session_are_a_mistake(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        SessionLimits(**limits)  # type: ignore[arg-type]
