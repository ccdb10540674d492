"""The node key, and secrets sealed under it: AES-256-GCM bound to the place where each one is kept.

Never knows a table's meaning or what a secret is for.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from locum.crypto.symmetric import AES_256_GCM, AeadKey, AuthenticationFailed
from locum.errors import ConfigurationError
from locum.files import FileThere, NoSuchFile, read_private, write_private

#: Length of a node key in bytes.
NODE_KEY_LENGTH = 32
#: The file in the data directory that holds the node key, 32 bytes as they are.
NODE_KEY_FILE = "node.key"
#: Names another file to read the node key from.
FILE_VARIABLE = "LOCUM_NODE_KEY_FILE"
#: Holds the node key itself, in base64.
VALUE_VARIABLE = "LOCUM_NODE_KEY"

#: First byte of a sealed secret: how it was sealed.
_FORMAT = b"\x01"
#: Length of the random nonce in bytes. A node seals far fewer than the 2**32 secrets that random nonces of
#: this length allow under one key (NIST SP 800-38D section 8.3).
_NONCE_LENGTH = 12


@dataclass(frozen=True, slots=True)
class NodeKey:
    """The key that seals a node's secrets, 32 bytes, and where it came from, for messages."""

    key: bytes = field(repr=False)
    origin: str

    def __post_init__(self) -> None:
        if len(self.key) != NODE_KEY_LENGTH:
            raise ConfigurationError(f"{self.origin}: a node key has {NODE_KEY_LENGTH} bytes, not {len(self.key)}")


class Sealer:
    """Seals and opens secrets under one node key."""

    __slots__ = ("_aead", "_random")

    def __init__(self, node_key: NodeKey, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._aead: AeadKey = AES_256_GCM.new(node_key.key)
        self._random = random

    def seal(self, secret: bytes, *, table: str, row: str, column: str) -> bytes:
        """Seal `secret` for one place: it opens there and nowhere else. 29 bytes longer than the secret."""
        nonce = self._random(_NONCE_LENGTH)
        return _FORMAT + nonce + self._aead.seal(nonce, secret, _place(table, row, column))

    def open(self, sealed: bytes, *, table: str, row: str, column: str) -> bytes:
        """Return the secret. AuthenticationFailed: altered, moved from another place, or another node key."""
        if sealed[:1] != _FORMAT:
            raise AuthenticationFailed("sealed in a way that this version does not know")
        nonce, ciphertext = sealed[1 : 1 + _NONCE_LENGTH], sealed[1 + _NONCE_LENGTH :]
        if len(ciphertext) < AES_256_GCM.tag_length:
            raise AuthenticationFailed("the sealed secret is cut short")
        return self._aead.open(nonce, ciphertext, _place(table, row, column))


def _place(table: str, row: str, column: str) -> bytes:
    """The associated data: each part with its length before it, so that no two places look alike."""
    parts = [part.encode() for part in ("locum-sealed", table, row, column)]
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def load_node_key(data_dir: Path, *, create: bool, environment: Mapping[str, str] = os.environ) -> NodeKey | None:
    """Find the node key: in the environment, in a file that the environment names, or in `data_dir`.

    A missing file in `data_dir` is made when `create` is true; else the answer is None. Raises
    ConfigurationError when a key is malformed or readable by others, Unavailable when it cannot be written.
    """
    value, named = environment.get(VALUE_VARIABLE), environment.get(FILE_VARIABLE)
    if value and named:
        raise ConfigurationError(f"set either ${VALUE_VARIABLE} or ${FILE_VARIABLE}, not both")
    if value:
        return _decode(value)
    if named:
        key = _read(Path(named))
        if key is None:
            raise ConfigurationError(f"{named}: no such file (named by ${FILE_VARIABLE})")
        return key
    path = data_dir / NODE_KEY_FILE
    return _read(path) or (_create(path) if create else None)


def _decode(value: str) -> NodeKey:
    try:
        key = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigurationError(f"${VALUE_VARIABLE} is not base64") from None
    return NodeKey(key, f"${VALUE_VARIABLE}")


def _read(path: Path) -> NodeKey | None:
    try:
        return NodeKey(read_private(path, what="node key", limit=NODE_KEY_LENGTH), str(path))
    except NoSuchFile:
        return None


def _create(path: Path) -> NodeKey | None:
    # Another process may be first; its key then holds.
    with contextlib.suppress(FileThere):
        write_private(path, os.urandom(NODE_KEY_LENGTH), what="node key", replace=False)
    return _read(path)
