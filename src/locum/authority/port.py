"""The port `Authority`: whoever answers the four key-exchange operations of A1.

Knows neither how answers travel nor any public-key algorithm, so terminals may import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from locum.handshake import Request, Response


class AuthoritySession(Protocol):
    """The operations of one handshake. Used up when the key has been handed over or anything failed."""

    def perform(self, requests: Sequence[Request]) -> tuple[Response, ...]:
        """Perform `requests` in order and return their responses.

        A response that `ends_batch`, as a `Verdict` that is not accepted, is the last, and the session is over.
        Raises: OperationError (`Refused`, `Unavailable`, `TimedOut`), or PeerError or DecodeError when the peer's
        key exchange is at fault; the session is over then.
        """
        ...

    def close(self) -> None:
        """Forget everything this session holds. Closing twice is harmless."""
        ...


class AsyncAuthoritySession(Protocol):
    """As `AuthoritySession`, for answers that take time to arrive."""

    async def perform(self, requests: Sequence[Request]) -> tuple[Response, ...]:
        """As `AuthoritySession.perform`."""
        ...

    async def close(self) -> None:
        """As `AuthoritySession.close`."""
        ...
