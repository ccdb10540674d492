"""How far a terminal has used its sequence numbers, kept beside its credential (RFC 8613 appendix B.1.1).

Never lets a number be used twice: what is lost, locked, copied, damaged or from before the last boot is replaced
by a new ID Context.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import threading
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path

from locum.errors import Unavailable

#: What is appended to the name of a credential file.
STATE_SUFFIX = ".state"
#: Length of an ID Context in bytes. Random, so that no two contexts of one key are ever the same.
ID_CONTEXT_LENGTH = 8
#: Where Linux tells one boot from another (random(4)).
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: Largest state file that is looked at, in bytes; one delegate takes 62.
STATE_LIMIT = 16 * 1024

_CHANNEL_LENGTH = _CHECK_LENGTH = 8
_HEADER = b"locum sequence state 1\n"
_LINE = re.compile(rb"([0-9a-f]{16}) ([0-9a-f]{16}) ([0-9a-f]{10}) ([0-9a-f]{16})")
_MAXIMUM_SEQUENCE = (1 << 40) - 1

_Entries = dict[bytes, tuple[bytes, int]]


class SequenceState:
    """The state file of one credential. It is opened, made and locked when a number is first needed.

    One process at a time holds it, until it ends or this object is gone. The file is overwritten where it is:
    it stays locked, and it stays the same inode, which its lines are bound to, so that a copy of it is worth
    nothing and cannot lead another device to the same numbers. They are bound to the running system too: a disk
    that was cloned, or set back to what it was, keeps its inodes, but not without a boot.
    """

    def __init__(
        self, path: Path, channels: Iterable[bytes], *, random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self._path = path
        self._channels = frozenset(channels)
        self._random = random
        self._guard = threading.Lock()
        self._descriptor: int | None = None
        self._entries: _Entries = {}
        self._holders: dict[bytes, weakref.ref[Sequence]] = {}

    def sequence(self, channel: bytes) -> Sequence:
        """A new user of the numbers of `channel`; for one `Client` each."""
        return Sequence(self, channel)

    def claim(self, channel: bytes, holder: Sequence) -> tuple[bytes, int, bool]:
        """The ID Context and next number for `holder`, and whether they are kept in the file.

        They are not when another process, or another living holder in this one, has them, or there can be no file.
        """
        with self._guard:
            other = self._holders.get(channel)
            if (other is None or other() in (None, holder)) and self._open():
                self._holders[channel] = weakref.ref(holder)
                if channel not in self._entries:
                    self._entries[channel] = (self._random(ID_CONTEXT_LENGTH), 0)
                return *self._entries[channel], True
        return self._random(ID_CONTEXT_LENGTH), 0, False

    def advance(self, channel: bytes, upto: int) -> None:
        """Write down that the numbers below `upto` may have been used. Raises: Unavailable."""
        with self._guard:
            id_context, reserved = self._entries[channel]
            if upto > reserved:
                self._write({**self._entries, channel: (id_context, upto)})
                self._entries[channel] = (id_context, upto)

    def _open(self) -> bool:
        if self._descriptor is not None:
            return True
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._path, flags, 0o600)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            entries = parse_state(os.pread(descriptor, STATE_LIMIT + 1, 0), _origin(descriptor))
        except OSError:
            os.close(descriptor)
            return False
        # What belongs to a key that was replaced is of no more use.
        self._entries = {channel: entry for channel, entry in entries.items() if channel in self._channels}
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        return True

    def _write(self, entries: _Entries) -> None:
        assert self._descriptor is not None
        data = render_state(entries, _origin(self._descriptor))
        try:
            if os.pwrite(self._descriptor, data, 0) != len(data):
                raise Unavailable(f"{self._path}: the disk is full")
            os.ftruncate(self._descriptor, len(data))
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise Unavailable(f"{self._path}: sequence numbers cannot be written down: {error.strerror}") from None


class Sequence:
    """The sequence numbers of one channel, for one user: what `locum.link.client.SequenceStore` asks for."""

    __slots__ = ("__weakref__", "_channel", "_kept", "_state")

    def __init__(self, state: SequenceState, channel: bytes) -> None:
        self._state = state
        self._channel = channel
        self._kept = False

    def load(self) -> tuple[bytes, int]:
        """The ID Context to work in and the first sequence number that has never been used in it.

        When no state can be had, both are new and kept in memory alone.
        """
        id_context, first, self._kept = self._state.claim(self._channel, self)
        return id_context, first

    def reserve(self, upto: int) -> None:
        """To be called before a number below `upto` is used. Raises: Unavailable when it cannot be kept."""
        if self._kept:
            self._state.advance(self._channel, upto)


def channel_name(*parts: bytes) -> bytes:
    """What a channel is called in the state file: 8 bytes from everything that its numbers depend on."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(4, "big") + part)
    return state.digest()[:_CHANNEL_LENGTH]


def parse_state(data: bytes, origin: bytes) -> _Entries:
    """The entries of a state file written at `origin`; lines that are damaged or from elsewhere are left out."""
    if len(data) > STATE_LIMIT or not data.startswith(_HEADER):
        return {}
    entries: _Entries = {}
    for line in data[len(_HEADER) :].split(b"\n"):
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        channel, id_context, number, check = match.groups()
        if bytes.fromhex(check.decode()) == _check(line[:-17], origin):
            entries[bytes.fromhex(channel.decode())] = (bytes.fromhex(id_context.decode()), int(number, 16))
    return entries


def render_state(entries: _Entries, origin: bytes) -> bytes:
    """The content of a state file at `origin`. Raises: Unavailable when a number is past the last one."""
    lines = [_HEADER]
    for channel, (id_context, number) in sorted(entries.items()):
        if number > _MAXIMUM_SEQUENCE:
            raise Unavailable("the sequence numbers of this channel key are used up: enrol the terminal again")
        line = f"{channel.hex()} {id_context.hex()} {number:010x}".encode()
        lines.append(line + b" " + _check(line, origin).hex().encode() + b"\n")
    return b"".join(lines)


def _check(line: bytes, origin: bytes) -> bytes:
    return hashlib.sha256(origin + b"\n" + line).digest()[:_CHECK_LENGTH]


def _origin(descriptor: int) -> bytes:
    status = os.fstat(descriptor)
    return f"{status.st_dev}:{status.st_ino}:{_boot()}".encode()


def _boot() -> str:
    """What the kernel draws at random when it boots; empty where it does not tell."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""
