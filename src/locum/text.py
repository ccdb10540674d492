"""Text that may come from anywhere, made fit to be shown to a person or kept.

Never knows who said it.
"""

from __future__ import annotations

import os
import socket


def printable(text: str) -> str:
    """`text` with everything escaped that is not printable, as line breaks and control sequences of terminals."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def what_failed(error: OSError) -> str:
    """What the system says of an error, without the addresses and calls that event loops add."""
    if error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__
