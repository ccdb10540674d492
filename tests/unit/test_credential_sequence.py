"""A terminal's sequence numbers (RFC 8613 appendix B.1.1): whatever happens to the file, none is used twice."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.disks import small_disk

from locum.errors import Unavailable
from locum.terminal import sequence as sequence_module
from locum.terminal.sequence import Sequence, SequenceState, channel_name, parse_state, render_state

CHANNEL = channel_name(b"one")
OTHER = channel_name(b"other")


def state(path: Path, *channels: bytes) -> SequenceState:
    return SequenceState(path, channels or (CHANNEL,))


def used(path: Path, upto: int) -> bytes:
    """Use the numbers below `upto`, as a process that ends; returns the ID Context."""
    sequence = state(path).sequence(CHANNEL)
    id_context, _ = sequence.load()
    sequence.reserve(upto)
    return id_context


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "meter.credential.state"


def assert_new(sequence: Sequence, *known: bytes) -> None:
    id_context, first = sequence.load()
    assert first == 0
    assert len(id_context) == 8
    assert id_context not in known


def test_numbers_go_on_where_they_were_reserved(path: Path) -> None:
    id_context = used(path, 64)
    assert state(path).sequence(CHANNEL).load() == (id_context, 64)
    used(path, 128)
    assert state(path).sequence(CHANNEL).load() == (id_context, 128)
    assert path.stat().st_mode & 0o777 == 0o600


def test_reserving_less_takes_nothing_back(path: Path) -> None:
    id_context = used(path, 64)
    used(path, 10)
    assert state(path).sequence(CHANNEL).load() == (id_context, 64)


def test_what_was_only_loaded_may_be_another_context_next_time(path: Path) -> None:
    first, _ = state(path).sequence(CHANNEL).load()
    assert_new(state(path).sequence(CHANNEL), first)


def test_two_users_in_one_process_never_share_numbers(path: Path) -> None:
    shared = state(path)
    first, second = shared.sequence(CHANNEL), shared.sequence(CHANNEL)
    id_context, _ = first.load()
    assert_new(second, id_context)
    second.reserve(1000)
    first.reserve(64)
    assert first.load() == (id_context, 64)
    del first
    gc.collect()
    assert second.load() == (id_context, 64)


def test_two_readers_of_one_credential_never_share_numbers(path: Path) -> None:
    first, second = state(path), state(path)
    id_context, _ = first.sequence(CHANNEL).load()
    assert_new(second.sequence(CHANNEL), id_context)


def test_the_lock_ends_with_its_process_even_when_that_is_killed(path: Path) -> None:
    code = """
import sys
from pathlib import Path
from locum.terminal.sequence import SequenceState, channel_name
sequence = SequenceState(Path(sys.argv[1]), [channel_name(b"one")]).sequence(channel_name(b"one"))
print(sequence.load()[0].hex())
sequence.reserve(64)
print("reserved", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    id_context = bytes.fromhex(process.stdout.readline())
    assert process.stdout.readline() == "reserved\n"
    mine = state(path)
    sequence = mine.sequence(CHANNEL)
    assert_new(sequence, id_context)
    process.kill()
    process.communicate()
    assert sequence.load() == (id_context, 64)


def test_a_copy_of_the_file_is_worth_nothing(path: Path) -> None:
    id_context = used(path, 64)
    backup = path.with_suffix(".backup")
    shutil.copy2(path, backup)
    used(path, 128)
    backup.rename(path)
    assert_new(state(path).sequence(CHANNEL), id_context)


def test_a_disk_that_was_set_back_or_cloned_begins_anew_after_the_boot(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("1d6d3b8e-0000-4000-8000-000000000001\n")
    monkeypatch.setattr(sequence_module, "BOOT_ID", boot_id)
    id_context = used(path, 64)
    snapshot = path.read_bytes()
    assert used(path, 128) == id_context
    path.write_bytes(snapshot)
    boot_id.write_text("1d6d3b8e-0000-4000-8000-000000000002\n")
    assert_new(state(path).sequence(CHANNEL), id_context)


def test_a_kernel_that_does_not_tell_its_boots_apart_keeps_numbers_all_the_same(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence_module, "BOOT_ID", tmp_path / "missing")
    id_context = used(path, 64)
    assert state(path).sequence(CHANNEL).load() == (id_context, 64)


def test_channels_have_numbers_of_their_own_and_those_of_old_keys_go(path: Path) -> None:
    both = state(path, CHANNEL, OTHER)
    first, second = both.sequence(CHANNEL), both.sequence(OTHER)
    assert first.load()[0] != second.load()[0]
    first.reserve(10)
    second.reserve(20)
    del both, first, second
    gc.collect()
    later = state(path, OTHER).sequence(OTHER)
    assert later.load()[1] == 20
    later.reserve(21)
    assert path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("damage", ["empty", "torn", "flipped", "garbage", "huge"])
def test_a_damaged_file_is_replaced_by_a_new_context(path: Path, damage: str) -> None:
    id_context = used(path, 64)
    content = path.read_bytes()
    damaged = {
        "empty": b"",
        "torn": content[:-20],
        "flipped": content.replace(b" 0000000040 ", b" 0000000020 "),
        "garbage": os.urandom(100),
        "huge": content + b"x" * 20_000,
    }[damage]
    assert damaged != content
    with path.open("r+b") as file:
        file.truncate()
        file.write(damaged)
    assert_new(state(path).sequence(CHANNEL), id_context)
    used(path, 1)
    assert state(path).sequence(CHANNEL).load()[1] == 1


def test_where_no_file_can_be_the_numbers_live_in_memory(tmp_path: Path) -> None:
    missing = state(tmp_path / "nowhere" / "state").sequence(CHANNEL)
    linked = tmp_path / "link"
    linked.symlink_to(tmp_path / "elsewhere")
    for sequence in (missing, state(linked).sequence(CHANNEL), state(tmp_path).sequence(CHANNEL)):
        assert_new(sequence)
        sequence.reserve(100)
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_is_said_before_a_number_is_used(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 16) as disk:
        path = disk.path / "state"
        sequence = state(path).sequence(CHANNEL)
        sequence.load()
        disk.fill()
        with pytest.raises(Unavailable, match=r"cannot be written down|disk is full"):
            sequence.reserve(64)
        disk.free()
        sequence.reserve(64)
        assert sequence.load()[1] == 64


def test_a_state_is_read_back_at_the_place_it_was_written(path: Path) -> None:
    entries = {CHANNEL: (b"12345678", 0), OTHER: (b"abcdefgh", (1 << 40) - 1)}
    content = render_state(entries, b"1:2")
    assert parse_state(content, b"1:2") == entries
    assert parse_state(content, b"1:3") == {}
    with pytest.raises(Unavailable, match="enrol the terminal again"):
        render_state({CHANNEL: (b"12345678", 1 << 40)}, b"1:2")
