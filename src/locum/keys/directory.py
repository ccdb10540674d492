"""`KeyDirectory`: the private keys in a directory of PEM files, looked at again when they change (X6).

Never writes there, and never knows what the keys are for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from locum.errors import ConfigurationError
from locum.files import NoSuchFile, read_private
from locum.keys.file import FileKey

#: Files that have a key: NAME.key has nothing else, NAME.pem may be a certificate's and is then left alone.
KEY_SUFFIX, PEM_SUFFIX = ".key", ".pem"
#: Largest file in bytes, and most such files in one directory.
MAX_FILE = 64 * 1024
MAX_FILES = 2000

_PRIVATE_KEY = b"PRIVATE KEY-----"

#: What tells that a file has been changed: device, inode, length, and the moment in nanoseconds.
_Mark = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Known:
    """A file as it was read: without a key when there is none in it, or none that can be used."""

    mark: _Mark
    key: FileKey | None = field(default=None, repr=False)
    problem: str = ""


class KeyDirectory:
    """The keys in a directory, by the names of their files without the suffix.

    `keys` and `problems`, one line each, are as the directory was when it was refreshed last. A file that is being
    replaced by one that is not in order keeps its key: a slip of an editor takes no service down.
    """

    def __init__(self, path: Path) -> None:
        """Read it. Raises: ConfigurationError when it cannot be read, or for the first problem in it."""
        self.path = path
        self.keys: Mapping[str, FileKey] = {}
        self.problems: tuple[str, ...] = ()
        self._known: dict[str, _Known] = {}
        self.refresh()
        if self.problems:
            raise ConfigurationError(self.problems[0])

    def refresh(self) -> bool:
        """Look again; True when there are other keys than before.

        Raises: ConfigurationError when the directory cannot be read; the keys are then as before.
        """
        known = {name: self._look(name, mark) for name, mark in self._scan().items()}
        keys: dict[str, FileKey] = {}
        problems = [each.problem for each in known.values() if each.problem]
        for name, each in known.items():
            stem = Path(name).stem
            if each.key is not None and stem in keys:
                problems.append(f"{self.path / name}: there is another key of this name, which is used")
            elif each.key is not None:
                keys[stem] = each.key
        # The same file gives the same object, so that equal means unchanged.
        changed = keys != self.keys
        self._known, self.keys, self.problems = known, keys, tuple(problems)
        return changed

    def _scan(self) -> dict[str, _Mark]:
        """The files that may have keys, by name and in order."""
        try:
            with os.scandir(self.path) as entries:
                found = {
                    entry.name: _mark(entry.stat())
                    for entry in entries
                    if entry.name.endswith((KEY_SUFFIX, PEM_SUFFIX)) and entry.is_file()
                }
        except OSError as error:
            raise ConfigurationError(f"{self.path}: the directory cannot be read: {error.strerror}") from None
        if len(found) > MAX_FILES:
            raise ConfigurationError(f"{self.path}: more than {MAX_FILES} files of keys")
        return dict(sorted(found.items()))

    def _look(self, name: str, mark: _Mark) -> _Known:
        before = self._known.get(name)
        if before is not None and before.mark == mark:
            return before
        try:
            return _Known(mark, _read(self.path / name))
        except ConfigurationError as error:
            problem = str(error) if str(self.path) in str(error) else f"{self.path / name}: {error}"
            return _Known(mark, before.key if before is not None else None, problem)


def _mark(status: os.stat_result) -> _Mark:
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns


def _read(path: Path) -> FileKey | None:
    """The key in a file; None in a .pem without one, or when the file has just been removed.

    Raises: ConfigurationError.
    """
    try:
        if path.suffix == PEM_SUFFIX and not _mentions_a_key(path):
            return None
        return FileKey.from_pem(read_private(path, what="private key", limit=MAX_FILE))
    except (FileNotFoundError, NoSuchFile):
        return None
    except OSError as error:
        raise ConfigurationError(f"{path}: the private key cannot be read: {error.strerror}") from None


def _mentions_a_key(path: Path) -> bool:
    with path.open("rb") as file:
        return _PRIVATE_KEY in file.read(MAX_FILE)
