"""PEM files that a user names: certificates, CRLs, public and private keys, found by their labels.

Runs where the delegate's databases are, never on a terminal. Never prints what it reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from locum.cli.options import read_file
from locum.errors import ConfigurationError

#: Largest PEM file in bytes: a big CRL fits.
FILE_LIMIT = 32 * 1024 * 1024
#: Most blocks in one file; the bundles of operating systems have about 150.
BLOCKS_LIMIT = 2000

_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,64})-----")


@dataclass(frozen=True, slots=True)
class PemBlock:
    """One block with its label and its number in the file, from 1; `data` includes the lines around it."""

    path: Path
    number: int
    label: str
    data: bytes

    def __repr__(self) -> str:
        return f"<PemBlock {self.path} {self.number} {self.label}>"

    @property
    def where(self) -> str:
        """The block, for messages."""
        return f"{self.path}, block {self.number}"


def read_blocks(path: Path) -> list[PemBlock]:
    """Every PEM block of a file, in order; ConfigurationError when there is none, or one without an end."""
    return parse_blocks(read_file(path, limit=FILE_LIMIT), path)


def parse_blocks(data: bytes, path: Path) -> list[PemBlock]:
    """As `read_blocks`, for the content of the file `path`."""
    blocks: list[PemBlock] = []
    position = 0
    while begin := _BEGIN.search(data, position):
        marker = b"-----END " + begin[1] + b"-----"
        end = data.find(marker, begin.end())
        if end < 0:
            raise ConfigurationError(f"{path}: a {begin[1].decode()} has no end")
        position = end + len(marker)
        blocks.append(PemBlock(path, len(blocks) + 1, begin[1].decode(), data[begin.start() : position] + b"\n"))
        if len(blocks) > BLOCKS_LIMIT:
            raise ConfigurationError(f"{path}: more than {BLOCKS_LIMIT} blocks")
    if not blocks:
        hint = "; it looks like DER: convert it with openssl" if data[:1] == b"\x30" else ""
        raise ConfigurationError(f"{path}: no PEM block in it{hint}")
    return blocks


def is_private_key(block: PemBlock) -> bool:
    """True for a private key of any form, encrypted or not."""
    return block.label.endswith("PRIVATE KEY")
