"""Private keys that a user names, in PEM, encrypted or not: read for whoever keeps them.

Takes no password as an argument, where other users of the machine could see it, and never prints a key.
"""

from __future__ import annotations

import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from locum.cli.options import read_file
from locum.cli.output import warn
from locum.cli.pem import FILE_LIMIT, PemBlock, is_private_key, parse_blocks, read_blocks
from locum.errors import ConfigurationError, LocumError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from locum.keys.file import FileKey

#: Longest password of a private key, in bytes.
PASSWORD_LIMIT = 1024
#: Stands for standard input in place of a file.
STANDARD_INPUT = Path("-")


@dataclass(frozen=True, slots=True)
class ReadKey:
    """A private key as it was read, and as it signs."""

    key: PrivateKeyTypes = field(repr=False)
    held: FileKey

    @property
    def pkcs8_pem(self) -> bytes:
        """PKCS #8 in PEM without a password."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def pkcs8_der(self) -> bytes:
        """PKCS #8 in DER without a password."""
        return pkcs8_der(self.key)


def pkcs8_der(key: PrivateKeyTypes) -> bytes:
    """A private key as PKCS #8 in DER without a password."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def read_private_key(path: Path, password_file: Path | None, *, asked_by: str) -> ReadKey:
    """Read the one private key in `path`, or on standard input when that is ``-``.

    An encrypted one is decrypted with the first line of `password_file`, or asked for; `asked_by` is what
    names that file, for errors. Raises: ConfigurationError.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from locum.keys.file import FileKey

    shown = "standard input" if path == STANDARD_INPUT else str(path)
    blocks = [block for block in _blocks(path) if is_private_key(block)]
    if len(blocks) != 1:
        raise ConfigurationError(f"{shown}: one private key is needed, and there are {len(blocks)}")
    data = blocks[0].data
    password = _password(shown, password_file, asked_by) if _is_encrypted(blocks[0]) else None
    try:
        held = FileKey.from_pem(data, password)
    except LocumError as error:
        raise ConfigurationError(f"{shown}: {error}") from None
    return ReadKey(load_pem_private_key(data, password), held)


def _blocks(path: Path) -> list[PemBlock]:
    if path != STANDARD_INPUT:
        blocks = read_blocks(path)
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) and any(map(is_private_key, blocks)):
            warn(f"{path} is open to other users of this machine")
        return blocks
    data = sys.stdin.buffer.read(FILE_LIMIT + 1)
    if len(data) > FILE_LIMIT:
        raise ConfigurationError(f"standard input: larger than {FILE_LIMIT} bytes")
    return parse_blocks(data, Path("standard input"))


def _is_encrypted(block: PemBlock) -> bool:
    # PKCS #8 says so in its label, the older forms in a header (RFC 1421 section 4.6.1.1).
    return "ENCRYPTED" in block.label or b"Proc-Type: 4,ENCRYPTED" in block.data


def _password(shown: str, password_file: Path | None, option: str) -> bytes:
    if password_file is not None:
        return read_file(password_file, limit=PASSWORD_LIMIT).split(b"\n", 1)[0].rstrip(b"\r")
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{shown} is encrypted, and there is nobody to ask; give {option} FILE")
    answer: str = typer.prompt(f"Password of {shown}", hide_input=True, err=True)
    return answer.encode()[:PASSWORD_LIMIT]
