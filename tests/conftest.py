"""What every test may use: the `require` fixture, and Hypothesis kept to what two cores can do."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.support import require as programs

settings.register_profile(
    "locum", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("locum")


@pytest.fixture(scope="session")
def require() -> Callable[[str], Path]:
    """`require("nginx")` gives the program's path; without it the test is skipped, or fails where CI=true."""
    return programs.require
