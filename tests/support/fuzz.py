"""Collects the fuzz targets: every `tests/fuzz/*_targets.py` has TARGETS, and may have SEEDS, by target name.

STRIDE, where a module has one, says that its targets are whole handshakes: one truncation in so many will do, for
every parser in them has a target of its own, which sees all of them.

A target takes bytes and lets nothing out: `LocumError` is caught inside, anything else is a bug.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FUZZ_DIRECTORY = Path(__file__).resolve().parents[1] / "fuzz"


@dataclass(frozen=True, slots=True)
class Target:
    """One parser under test; `seeds` are valid inputs to start from."""

    name: str
    call: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    stride: int = 1


def collect(prefix: str = "") -> list[Target]:
    """Every target whose name, `room.parser`, begins with `prefix`."""
    found = []
    for path in sorted(FUZZ_DIRECTORY.glob("*_targets.py")):
        module = importlib.import_module(f"tests.fuzz.{path.stem}")
        room = path.stem.removesuffix("_targets")
        seeds = getattr(module, "SEEDS", {})
        for name, call in module.TARGETS.items():
            full_name = name if name.startswith(f"{room}.") else f"{room}.{name}"
            stride = getattr(module, "STRIDE", 1)
            found.append(Target(full_name, call, tuple(seeds.get(name, ())), stride))
    return [target for target in found if target.name.startswith(prefix)]
