"""A short run of every fuzz target: random bytes, and damaged copies of the valid inputs it knows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.fuzz import Target, collect

TARGETS = collect()
LARGEST_INPUT = 2048


def damaged(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Copies of the seeds, cut short, lengthened, and with a stretch of bytes overwritten."""

    @st.composite
    def build(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(st.sampled_from(seeds)))
        position = draw(st.integers(0, len(data)))
        patch = draw(st.binary(max_size=8))
        data[position : position + draw(st.integers(0, len(patch)))] = patch
        return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)

    return build()


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    random = st.binary(max_size=LARGEST_INPUT)
    return st.one_of(random, damaged(target.seeds)) if target.seeds else random


def test_there_are_targets() -> None:
    assert TARGETS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_only_typed_errors_leave(target: Target) -> None:
    @given(inputs(target))
    def run(data: bytes) -> None:
        target.call(data)

    run()


@pytest.mark.parametrize("target", [each for each in TARGETS if each.seeds], ids=lambda target: target.name)
def test_every_truncation_of_a_valid_input_is_harmless(target: Target) -> None:
    for seed in target.seeds:
        for length in range(0, min(len(seed), LARGEST_INPUT) + 1, target.stride):
            target.call(seed[:length])
