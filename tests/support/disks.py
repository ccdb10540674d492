"""Small real file systems for tests of full and read-only disks. Mounting one needs root on Linux."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A tmpfs of `size` bytes at `path`."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._ballast = path / "ballast"
        _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path))

    def fill(self) -> None:
        """Leave no free byte."""
        with self._ballast.open("wb", buffering=0) as file:
            for size in (65536, 4096):
                while True:
                    try:
                        file.write(bytes(size))
                    except OSError:
                        break

    def free(self) -> None:
        """Take back what `fill` took."""
        self._ballast.unlink()

    def make_read_only(self) -> None:
        """Refuse every write from now on."""
        _mount("-o", "remount,ro", str(self.path))


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[SmallDisk]:
    """A small disk at the new directory `path`, or the end of this test where it cannot be mounted."""
    path.mkdir()
    try:
        disk = SmallDisk(path, size)
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail(f"no tmpfs can be mounted: {error}")
        pytest.skip("mounting a small disk needs root")
    try:
        yield disk
    finally:
        # Lazily: a process that was killed may take a moment to let go.
        subprocess.run(["umount", "-l", str(path)], check=True, capture_output=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
