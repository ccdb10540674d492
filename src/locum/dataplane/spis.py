"""SPIs that were told to a peer and are not in use yet.

Knows numbers only.
"""

from __future__ import annotations

import secrets
from collections.abc import Container

from locum.ipsec.sa import LAST_RESERVED_SPI

#: SPIs that are remembered. An exchange that never came to its end leaves one behind; the oldest are forgotten.
MAX_RESERVED = 4096


class Reservations:
    """Gives out random SPIs, none of them twice."""

    def __init__(self) -> None:
        self._reserved: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._reserved)

    def reserve(self, used: Container[int]) -> int:
        """An SPI that is neither in `used` nor reserved."""
        spi = 0
        while spi <= LAST_RESERVED_SPI or spi in used or spi in self._reserved:
            spi = secrets.randbits(32)
        self._reserved[spi] = None
        if len(self._reserved) > MAX_RESERVED:
            del self._reserved[next(iter(self._reserved))]
        return spi

    def release(self, spi: int) -> None:
        """It is in use now, or never will be; one that is not reserved is no error."""
        self._reserved.pop(spi, None)
