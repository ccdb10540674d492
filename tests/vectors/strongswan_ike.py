"""Exchanges of two strongSwan daemons, packet by packet, with the secrets that the initiator logged.

strongSwan 5.9.8 (Debian 12) at both ends, addresses 10.99.0.1 and 10.99.0.2, pre-shared key `PSK`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

PSK = b"correct horse battery"
INITIATOR_ADDRESS, RESPONDER_ADDRESS = bytes((10, 99, 0, 1)), bytes((10, 99, 0, 2))


@dataclass(frozen=True)
class Recording:
    """Every IKE message in order, without non-ESP marker, and the logged secrets by their RFC names."""

    messages: tuple[tuple[str, bytes], ...]
    secrets: dict[str, bytes]

    def message(self, index: int) -> bytes:
        return self.messages[index][1]


def _load() -> dict[str, Recording]:
    data = json.loads(Path(__file__).with_suffix(".json").read_text())
    return {
        name: Recording(
            tuple((each["from"], bytes.fromhex(each["message"])) for each in exchange["messages"]),
            {key: bytes.fromhex(value) for key, value in exchange["secrets"].items()},
        )
        for name, exchange in data["exchanges"].items()
    }


RECORDINGS = _load()
