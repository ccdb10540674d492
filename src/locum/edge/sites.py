"""Everything that an edge can be: certificates in files and at the key server, and keys of both kinds (C3, C5).

Never handles a connection. What it shows is brought up to date from outside, by `look` and `refresh`.
"""

from __future__ import annotations

from collections.abc import Callable

from locum.edge.certificate_files import CertificateFiles
from locum.edge.certificates import CertificateIndex, Choice, Served
from locum.edge.fetched import FetchedCertificates
from locum.edge.key_ring import KeyRing
from locum.errors import OperationError
from locum.tls.alerts import UnrecognizedName
from locum.tls.server_operations import ServerStartRequest


class Sites:
    """The certificates of an edge: a file's for the names that one is for, else the key server's, else a default.

    `now` gives seconds since the epoch.
    """

    def __init__(
        self,
        ring: KeyRing,
        *,
        files: CertificateFiles | None = None,
        fetched: FetchedCertificates | None = None,
        now: Callable[[], float],
    ) -> None:
        self._ring = ring
        self._files = files
        self._fetched = fetched
        self._now = now
        self._index = CertificateIndex((), now=now())
        self._build()

    async def choose(self, request: ServerStartRequest) -> Choice:
        """As `Chooser.choose`."""
        if self._now() >= self._index.until:
            self._build()
        index = self._index
        if self._fetched is not None and not index.covers(request.server_name):
            try:
                choice = await self._fetched.choose(request)
            except OperationError:
                if not index:
                    raise
                choice = None
            if choice is not None:
                return choice
        if not index:
            asked = repr(request.server_name) if request.server_name else "a client that names no site"
            raise UnrecognizedName(f"there is no certificate for {asked}")
        return index.choose(request)

    def look(self) -> None:
        """Read files again that have changed."""
        if self._files is not None and self._files.reload():
            self._build()

    async def refresh(self) -> None:
        """Ask the key servers which keys there are. Raises: LocumError when they cannot say."""
        if await self._ring.refresh():
            if self._fetched is not None:
                self._fetched.forget()
            self._build()

    def _build(self) -> None:
        files = self._files.certificates if self._files is not None else ()
        self._index = CertificateIndex(
            (
                Served(
                    chain=each.chain,
                    holder=self._ring.holder(each.chain.public_key),
                    ocsp=each.ocsp,
                    ocsp_until=each.ocsp_until,
                )
                for each in files
            ),
            now=self._now(),
        )
