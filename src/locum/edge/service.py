"""One edge in one process: its key servers, certificates and ticket keys, kept up to date while it serves.

Never accepts a connection by itself: `workers` and `api` do, with what is here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

from locum.edge.authority import EdgeAuthority
from locum.edge.certificate_files import CertificateFile, CertificateFiles
from locum.edge.clients import ClientVerifier
from locum.edge.fetched import FetchedCertificates
from locum.edge.key_ring import KeyRing
from locum.edge.sites import Sites
from locum.edge.ticket_keys import TicketKeyring
from locum.errors import ConfigurationError, LocumError
from locum.files import read_private
from locum.keys.credential import EdgeCredential
from locum.keys.file import FileKey
from locum.keys.pool import KeyServerPool, PoolOptions
from locum.names import HostPort
from locum.tls.registry import ProtocolVersion
from locum.tls.server_configuration import (
    DEFAULT_CIPHER_SUITES,
    DEFAULT_GROUPS,
    ClientCertificates,
    ServerConfiguration,
)

log = logging.getLogger(__name__)

#: Seconds for which a certificate of the key server is kept at most.
CERTIFICATE_LIFETIME = 3600.0
#: Seconds that the key servers have at the start, before the edge serves what it can without them.
START_PATIENCE = 5.0
#: Seconds between looks at the key servers' list of keys, and at files; and after a look that failed.
REFRESH_SECONDS = 30.0
LOOK_SECONDS = 5.0
RETRY_SECONDS = 1.0
#: Largest file of a private key or of authorities, in bytes.
FILE_LIMIT = 1 << 20
_CRL = b"-----BEGIN X509 CRL-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeOptions:
    """What an edge is. Without `credential` it has keys of its own only.

    `key_servers` take the place of those in the credential; `policy` is that of `PoolOptions`. `certificates` are
    in files; `fetch` lets it show the key server's too, each kept for at most `certificate_lifetime` seconds.
    `own_keys` are files of private keys in PEM, mode 0600. `client_authorities` are files with the certificates
    and CRLs in PEM that client certificates are verified with; one must be shown unless `client_optional`.
    `ticket_root` is that of `TicketKeyring`. The rest is as in `ServerConfiguration`.
    """

    credential: Path | None = None
    key_servers: tuple[HostPort, ...] = ()
    policy: Literal["ordered", "least"] = "ordered"
    certificates: tuple[CertificateFile, ...] = ()
    own_keys: tuple[Path, ...] = ()
    fetch: bool = True
    certificate_lifetime: float = CERTIFICATE_LIFETIME
    alpn: tuple[str, ...] = ()
    client_authorities: tuple[Path, ...] = ()
    client_optional: bool = False
    ticket_root: bytes = field(default=b"", repr=False)
    versions: tuple[ProtocolVersion, ...] = (ProtocolVersion.TLS_1_3, ProtocolVersion.TLS_1_2)
    cipher_suites: tuple[int, ...] = DEFAULT_CIPHER_SUITES
    groups: tuple[int, ...] = DEFAULT_GROUPS

    def __post_init__(self) -> None:
        if self.credential is None and not self.certificates:
            raise ConfigurationError("an edge without a credential needs a certificate, and its key")
        if self.credential is None and not self.own_keys:
            raise ConfigurationError("an edge without a credential needs a key of its own")
        if self.certificate_lifetime < 0:
            raise ConfigurationError("a certificate is kept for 0 seconds or more")


class Edge:
    """An edge on this event loop, from entering to leaving it as a context."""

    def __init__(self, options: EdgeOptions) -> None:
        """Raises: ConfigurationError when a file is not what it should be."""
        self._options = options
        self._pool = _pool(options)
        self._ring = KeyRing(map(_own_key, options.own_keys), servers=self._pool)
        self._tickets = TicketKeyring(self._pool, root=options.ticket_root, now=time.time)
        self._sites = Sites(
            self._ring,
            files=CertificateFiles(options.certificates) if options.certificates else None,
            fetched=self._fetched(),
            now=time.time,
        )
        trusted = _client_files(options.client_authorities)
        clients = _clients(trusted)
        #: Answers what handshakes ask.
        self.authority = EdgeAuthority(self._sites, clients=clients, now=time.time)
        #: What handshakes may negotiate.
        self.configuration = ServerConfiguration(
            versions=options.versions,
            cipher_suites=options.cipher_suites,
            groups=options.groups,
            alpn=options.alpn,
            tickets=self._tickets.ring,
            # Who was trusted with other authorities, or before a revocation, proves it anew.
            session_context=_context(trusted),
            client_certificates=_demand(clients, optional=options.client_optional),
            client_authorities=clients.authorities if clients is not None else (),
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Edge:
        seconds = 0.0
        if self._pool is not None:
            await self._pool.__aenter__()
            seconds = await self._first_look(self._pool)
        self._tasks = [
            asyncio.ensure_future(_again_and_again("keys", self._refresh, first=seconds)),
            asyncio.ensure_future(_again_and_again("ticket keys", self._tickets.refresh)),
            asyncio.ensure_future(_again_and_again("files", self._look, first=LOOK_SECONDS)),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._pool is not None:
            await self._pool.close()

    async def reload(self) -> None:
        """Look at files and key servers now."""
        self._sites.look()
        with contextlib.suppress(LocumError):
            await self._sites.refresh()

    async def _first_look(self, pool: KeyServerPool) -> float:
        """Learn which keys there are; returns in how many seconds to look again."""
        try:
            await pool.ready(START_PATIENCE)
            await self._sites.refresh()
        except LocumError as error:
            log.warning("serving what is possible without key servers", extra={"error": str(error)})
            return RETRY_SECONDS
        return REFRESH_SECONDS

    async def _refresh(self) -> float:
        await self._sites.refresh()
        return REFRESH_SECONDS

    async def _look(self) -> float:
        self._sites.look()
        return LOOK_SECONDS

    def _fetched(self) -> FetchedCertificates | None:
        if self._pool is None or not self._options.fetch:
            return None
        lifetime = self._options.certificate_lifetime
        return FetchedCertificates(self._pool, self._ring, lifetime=lifetime, now=time.time)


async def _again_and_again(what: str, work: Callable[[], Awaitable[float]], *, first: float = 0.0) -> None:
    """Do `work` whenever it says that it is due; it says in how many seconds. A failure is logged once."""
    delay, failing = first, False
    while True:
        if delay:
            await asyncio.sleep(delay)
        try:
            delay = await work()
        except LocumError as error:
            delay = RETRY_SECONDS
            if not failing:
                log.warning(f"{what} cannot be brought up to date", extra={"error": str(error)})
            failing = True
            continue
        if failing:
            log.warning(f"{what} are up to date again")
        failing = False


def _pool(options: EdgeOptions) -> KeyServerPool | None:
    if options.credential is None:
        return None
    credential = EdgeCredential.load(options.credential)
    return KeyServerPool(
        credential, servers=options.key_servers or None, options=PoolOptions(policy=options.policy)
    )


def _own_key(path: Path) -> FileKey:
    try:
        return FileKey.from_pem(read_private(path, what="private key", limit=FILE_LIMIT))
    except ConfigurationError as error:
        raise ConfigurationError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def _client_files(paths: tuple[Path, ...]) -> tuple[bytes, ...]:
    """What is in the files of `client_authorities`. Raises: ConfigurationError."""
    found: list[bytes] = []
    for path in paths:
        try:
            with path.open("rb") as file:
                data = file.read(FILE_LIMIT + 1)
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}") from None
        if len(data) > FILE_LIMIT:
            raise ConfigurationError(f"{path}: larger than {FILE_LIMIT} bytes")
        found.append(data)
    return tuple(found)


def _clients(files: tuple[bytes, ...]) -> ClientVerifier | None:
    if not files:
        return None
    anchors = tuple(data for data in files if _CRL not in data)
    return ClientVerifier(anchors, tuple(data for data in files if _CRL in data))


def _context(files: tuple[bytes, ...]) -> bytes:
    digests = sorted(hashlib.sha256(data).digest() for data in files)
    return hashlib.sha256(b"".join(digests)).digest() if digests else b""


def _demand(clients: ClientVerifier | None, *, optional: bool) -> ClientCertificates:
    if clients is None:
        return ClientCertificates.NONE
    return ClientCertificates.OPTIONAL if optional else ClientCertificates.REQUIRED
