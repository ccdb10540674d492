"""Files that hold secrets: read only when nobody else can, written whole or not at all, mode 0600.

Never looks at what is in them.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from locum.errors import ConfigurationError, Unavailable


class NoSuchFile(ConfigurationError):
    """The file is not there."""


class FileThere(ConfigurationError):
    """The file is there already and was not to be replaced."""


def read_private(path: Path, *, what: str, limit: int) -> bytes:
    """Return the content of a file of at most `limit` bytes that only its owner can use.

    `what` names the file's kind in errors. Raises: NoSuchFile; ConfigurationError when it cannot be read, is
    too large, or is open to other users.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigurationError(f"{path}: the {what} is open to other users; fix: chmod 600 {path}")
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise NoSuchFile(f"{path}: no such {what}") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: the {what} cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise ConfigurationError(f"{path}: the {what} is larger than {limit} bytes")
    return data


def write_private(path: Path, data: bytes, *, what: str, replace: bool) -> None:
    """Write `data` to a new file of mode 0600; it is durable, and never seen half written.

    Raises: FileThere when the file exists and `replace` is false; Unavailable when it cannot be written.
    """
    try:
        # mkstemp creates with O_EXCL and mode 0600, next to the file so that rename and link can do the rest.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                temporary.rename(path)
            else:
                path.hardlink_to(temporary)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        _sync_directory(path.parent)
    except FileExistsError:
        raise FileThere(f"{path}: the {what} exists already") from None
    except OSError as error:
        raise Unavailable(f"{path}: the {what} cannot be written: {error.strerror}") from None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
