"""Files that hold secrets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.support.disks import small_disk

from locum.errors import ConfigurationError, Unavailable
from locum.files import FileThere, NoSuchFile, read_private, write_private


def test_a_file_is_written_for_its_owner_alone_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    before = os.umask(0)
    try:
        write_private(path, b"data", what="secret", replace=False)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_private(path, what="secret", limit=4) == b"data"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_there_is_replaced_only_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, b"first", what="secret", replace=False)
    with pytest.raises(FileThere, match="exists already"):
        write_private(path, b"second", what="secret", replace=False)
    assert path.read_bytes() == b"first"
    write_private(path, b"second", what="secret", replace=True)
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o611])
def test_a_file_open_to_others_is_refused_with_the_fix(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"data")
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}$"):
        read_private(path, what="secret", limit=100)


def test_a_file_that_is_too_large_missing_or_a_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, b"12345", what="secret", replace=False)
    with pytest.raises(ConfigurationError, match="larger than 4 bytes"):
        read_private(path, what="secret", limit=4)
    with pytest.raises(NoSuchFile, match="no such secret"):
        read_private(tmp_path / "other", what="secret", limit=4)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_private(tmp_path, what="secret", limit=4)


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        path = disk.path / "secret"
        write_private(path, b"old", what="secret", replace=False)
        disk.fill()
        with pytest.raises(Unavailable, match="No space left"):
            write_private(path, bytes(8192), what="secret", replace=True)
        assert path.read_bytes() == b"old"
        assert sorted(each.name for each in disk.path.iterdir()) == ["ballast", "secret"]


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file or directory"):
        write_private(tmp_path / "a" / "b", b"", what="secret", replace=False)
