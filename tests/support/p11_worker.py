"""A worker of the PKCS#11 agent with keys of its own instead of a key server's, for tests that need none.

`python -m tests.support.p11_worker SETTINGS DESCRIPTOR`, started by `tests.support.p11_agent`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key

from locum.edge.p11.worker import run_worker
from locum.keyless.operations import KeyOperation
from locum.keyless.queries import OfferedKey
from locum.keys.file import FileKey
from locum.keys.performing import LocalHolder
from locum.keys.port import KeyHolder
from locum.node import logs


def offered_key(name: str, public_key: bytes, *, raw: bool, bound: bool) -> OfferedKey:
    """What a key server would say of a key."""
    ski = x509.SubjectKeyIdentifier.from_public_key(load_der_public_key(public_key)).digest
    digest = hashlib.sha256(public_key).digest()
    return OfferedKey(name=name, kind="", public_key=public_key, ski=ski, digest=digest, raw=raw, bound=bound)


class SlowHolder:
    """A holder that takes its time, ends its process, or stops it, as the test wants."""

    def __init__(self, holder: LocalHolder, delay: float, fatal: bytes, stopping: bytes) -> None:
        self._holder, self._delay, self._fatal, self._stopping = holder, delay, fatal, stopping

    @property
    def public_key(self) -> bytes:
        return self._holder.public_key

    async def perform(self, operation: KeyOperation) -> bytes:
        content = repr(operation).encode()
        if self._fatal and self._fatal in content:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._stopping and self._stopping in content:
            os.kill(os.getpid(), signal.SIGSTOP)
        if self._delay:
            await asyncio.sleep(self._delay)
        return await self._holder.perform(operation)


class FileHolders:
    """The keys in the files `keys`, name to path; read anew at each look."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._holders: dict[bytes, KeyHolder] = {}

    async def keys(self) -> tuple[OfferedKey, ...]:
        return self._read()

    def _read(self) -> tuple[OfferedKey, ...]:
        offered = []
        for name, path in self._settings["keys"].items():
            key = FileKey.from_pem(Path(path).read_bytes())
            found = offered_key(
                name,
                key.public_key,
                raw=self._settings.get("raw", True),
                bound=self._settings.get("bound", True),
            )
            offered.append(found)
            self._holders[found.ski] = SlowHolder(
                LocalHolder(key),
                self._settings.get("delay", 0.0),
                self._settings.get("fatal", "").encode(),
                self._settings.get("stopping", "").encode(),
            )
        return tuple(offered)

    def key(self, offered: OfferedKey) -> KeyHolder:
        return self._holders[offered.ski]


def main() -> int:
    settings = json.loads(sys.argv[1])
    logs.configure(level="info", form="text")

    @asynccontextmanager
    async def holders() -> AsyncIterator[FileHolders]:
        yield FileHolders(settings)

    certificates = Path(settings["certificate"]).read_bytes() if settings.get("certificate") else b""
    return run_worker(socket.socket(fileno=int(sys.argv[2])), holders, certificates=certificates)


if __name__ == "__main__":
    sys.exit(main())
