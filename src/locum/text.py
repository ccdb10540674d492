"""Text that may come from anywhere, made fit to be shown to a person or kept.

Never knows who said it.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with everything escaped that is not printable, as line breaks and control sequences of terminals."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
