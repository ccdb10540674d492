"""Stateless cookies of IKE_SA_INIT: strangers show that they get what is sent to them (RFC 7296 section 2.6).

Keeps two secrets and nothing of any peer.
"""

from __future__ import annotations

from collections.abc import Callable

from locum.crypto.symmetric import SHA256, constant_time_equal
from locum.ipsec.selectors import Address

#: A secret makes cookies for so many seconds, and proves them for as long again.
SECRET_LIFETIME = 60.0

#: Bytes of a secret, and of a cookie: the secret's number and an HMAC-SHA-256. At most 64 are allowed.
_SECRET = 32
COOKIE_LENGTH = 1 + SHA256.length


class CookieJar:
    """Makes cookies and tells its own; `random` gives that many bytes from a cryptographic source."""

    __slots__ = ("_current", "_made", "_number", "_previous", "_random")

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._made: float | None = None
        self._number = 0
        self._current = self._previous = b""

    def make(self, nonce: bytes, address: Address, spi: bytes, *, now: float) -> bytes:
        """The cookie of an initiator: `nonce` is Ni without its header, `spi` SPIi; `COOKIE_LENGTH` bytes."""
        self._rotate(now)
        return bytes((self._number,)) + _mac(self._current, nonce, address, spi)

    def proves(self, cookie: bytes, nonce: bytes, address: Address, spi: bytes, *, now: float) -> bool:
        """True when `cookie` was made here, not long ago, for the same nonce, address and SPI."""
        self._rotate(now)
        if len(cookie) != COOKIE_LENGTH:
            return False
        secret = self._current if cookie[0] == self._number else self._previous
        return bool(secret) and constant_time_equal(cookie[1:], _mac(secret, nonce, address, spi))

    def _rotate(self, now: float) -> None:
        if self._made is not None and now - self._made < SECRET_LIFETIME:
            return
        # After a long rest the secret before is as old as this one, and proves nothing.
        recent = self._made is not None and now - self._made < 2 * SECRET_LIFETIME
        self._previous = self._current if recent else b""
        self._current = self._random(_SECRET)
        self._number = (self._number + 1) % 256
        self._made = now


def _mac(secret: bytes, nonce: bytes, address: Address, spi: bytes) -> bytes:
    # SPI and address have fixed lengths but for the IP version, which is said first.
    return SHA256.hmac(secret, b"".join((bytes((address.version,)), address.packed, spi, nonce)))
