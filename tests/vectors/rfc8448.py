"""Reads `rfc8448.txt`: the traces of RFC 8448 as sections with named octet strings."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

Trace = dict[str, bytes]

_TITLE = re.compile(r"\[(\d)\. .*\]")
_NAME = re.compile(r"(\w+) \((\d+) octets\):")


@cache
def load() -> dict[int, Trace]:
    """Every section by its number; each value is checked against the number of octets it says."""
    sections: dict[int, Trace] = {}
    expected: dict[tuple[int, str], int] = {}
    number, name = 0, ""
    for line in (Path(__file__).parent / "rfc8448.txt").read_text("ascii").splitlines():
        if title := _TITLE.fullmatch(line):
            number = int(title[1])
            sections[number] = {}
        elif entry := _NAME.fullmatch(line):
            name = entry[1]
            sections[number][name] = b""
            expected[number, name] = int(entry[2])
        elif line.startswith("   "):
            sections[number][name] += bytes.fromhex(line)
        elif line and not line.startswith("#"):
            raise ValueError(f"rfc8448.txt: {line!r}")
    for (section, key), length in expected.items():
        if len(sections[section][key]) != length:
            raise ValueError(f"rfc8448.txt: {key} of section {section} has not {length} octets")
    return sections
