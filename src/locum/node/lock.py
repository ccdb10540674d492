"""The lock on a data directory: at most one node runs on it.

Never knows what the directory contains. The kernel lets go of the lock when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from locum.errors import ConfigurationError

FILE_NAME = "node.lock"


class DataLock:
    """Holds the lock on `directory` from construction to `release`.

    Raises: ConfigurationError when another process holds it, or the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        path = directory / FILE_NAME
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(f"{path}: {error.strerror}; the data directory must be writable") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise ConfigurationError(
                f"{directory}: another node runs on this data directory"
                + (f" (process {holder})" if holder else "")
                + "; stop it, or give this one its own --data"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode("ascii"), 0)

    def release(self) -> None:
        """Let go of the lock; harmless the second time. The file stays, empty of meaning without the lock."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> DataLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
