"""Fixtures of the tests with strongSwan."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support.ike_strongswan import Bench, Pki
from tests.support.require import require_ike_peer


@pytest.fixture(scope="session")
def ike_pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Certificates for both ends, made once."""
    return Pki(tmp_path_factory.mktemp("ike-pki"))


@pytest.fixture
def make_bench(tmp_path: Path, ike_pki: Pki) -> Iterator[Callable[..., Bench]]:
    """Makes benches, with the options of `Bench`; what runs on them ends with the test."""
    require_ike_peer()
    with ExitStack() as running:
        count = 0

        def make(**options: Any) -> Bench:
            nonlocal count
            count += 1
            return Bench(running, tmp_path / f"bench-{count}", ike_pki, **options)

        yield make


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """A laboratory with strongSwan in it."""
    return make_bench()
