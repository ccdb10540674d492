"""`values.dataclass`: what a frozen dataclass still is when only the type checker keeps it from being changed."""

from __future__ import annotations

from locum.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    x: int
    y: int = 0


@dataclass(frozen=True)
class Odd:
    x: int

    def __hash__(self) -> int:
        return 7


@dataclass(frozen=True, eq=False)
class Unique:
    x: int


@dataclass
class Changeable:
    x: int


def test_equal_ones_have_one_hash() -> None:
    assert Point(x=1) == Point(x=1, y=0)
    assert len({Point(x=1), Point(x=1), Point(x=2)}) == 2


def test_a_hash_of_its_own_stays() -> None:
    assert hash(Odd(1)) == 7


def test_without_equality_each_is_itself() -> None:
    assert Unique(1) != Unique(1)
    assert len({Unique(1), Unique(1)}) == 2


def test_what_is_not_frozen_has_no_hash() -> None:
    assert Changeable.__hash__ is None


def test_slots_stay_slots() -> None:
    assert not hasattr(Point(x=1), "__dict__")
