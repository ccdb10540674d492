"""Certificates in files beside the edge, with OCSP responses to staple, read again when they change (C3).

Never reads a private key: an edge has none, or is told where its own one is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from locum.edge.certificates import Chain, staple_end
from locum.errors import ConfigurationError

log = logging.getLogger(__name__)

#: Largest file of certificates or of an OCSP response, in bytes.
FILE_LIMIT = 256 * 1024
#: What the OCSP response of a file of certificates is called, if it is not given.
OCSP_SUFFIX = ".ocsp"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCertificate:
    """What one file says: a chain, and an OCSP response that may be shown until `ocsp_until`, or none."""

    chain: Chain
    ocsp: bytes = field(default=b"", repr=False)
    ocsp_until: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFile:
    """A chain in PEM, and an OCSP response in DER; without `ocsp`, the file of the same name with .ocsp added."""

    certificate: Path
    ocsp: Path | None = None

    @property
    def ocsp_path(self) -> Path:
        """Where the OCSP response is, if there is one."""
        return self.ocsp or self.certificate.with_name(self.certificate.name + OCSP_SUFFIX)

    def read(self) -> FileCertificate:
        """Read both. Raises: ConfigurationError; an OCSP response that was not asked for may be missing."""
        data = _read(self.certificate)
        try:
            chain = Chain.from_pem(data)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.certificate}: {error}") from None
        if self.ocsp is None and not self.ocsp_path.exists():
            return FileCertificate(chain=chain)
        response = _read(self.ocsp_path)
        try:
            return FileCertificate(chain=chain, ocsp=response, ocsp_until=staple_end(response))
        except ConfigurationError as error:
            raise ConfigurationError(f"{self.ocsp_path}: {error}") from None


class CertificateFiles:
    """All of them. What cannot be read later on stays as it was, and the log says so.

    Raises: ConfigurationError when one cannot be read at first.
    """

    def __init__(self, files: Sequence[CertificateFile]) -> None:
        self._files = tuple(files)
        self._state = self._look()
        self.certificates = tuple(file.read() for file in self._files)

    def reload(self) -> bool:
        """Read again what has changed since; true when something had."""
        state = self._look()
        if state == self._state:
            return False
        self._state = state
        try:
            self.certificates = tuple(file.read() for file in self._files)
        except ConfigurationError as error:
            log.error("certificates cannot be read; those read before stay", extra={"error": str(error)})
            return False
        log.info("certificates read again")
        return True

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What tells a file from itself at another time."""
        return tuple(_identity(path) for file in self._files for path in (file.certificate, file.ocsp_path))


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    if len(data) > FILE_LIMIT:
        raise ConfigurationError(f"{path}: larger than {FILE_LIMIT} bytes")
    return data
