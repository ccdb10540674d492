"""Counts cryptographic calls as they happen, by their kind, without a change to what calls them."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType, TracebackType
from typing import Any, Self

AEAD_METHODS = frozenset(("encrypt", "decrypt", "encrypt_into", "decrypt_into"))
AEAD_CLASSES = frozenset(("AESCCM", "AESGCM", "ChaCha20Poly1305", "AESGCMSIV", "AESOCB3"))
#: Modules of `cryptography` that do public-key work or X.509, by a part of their names.
ASYMMETRIC = ("x25519", "x448", "ed25519", "ed448", ".ec", ".rsa", ".dh", "mlkem", "mldsa", ".x509", ".keys")


class CallCounter:
    """A context manager; `counts` has "aead", "hash", "hmac" and "asymmetric" for this thread.

    A hash counts when its digest is taken, so hashing a message in pieces is one.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        sys.setprofile(self._called)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        sys.setprofile(None)

    def _called(self, frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            kind = classify(function)
            if kind:
                self.counts[kind] += 1


def classify(function: Any) -> str:
    """The kind of a built-in function or method; empty when it is not cryptography."""
    name = function.__name__
    owner = getattr(function, "__self__", None)
    kind = owner if isinstance(owner, type) else type(owner)
    if name in AEAD_METHODS and kind.__name__ in AEAD_CLASSES:
        return "aead"
    if name == "hmac_digest":
        return "hmac"
    if name == "digest" and kind.__module__ == "_hashlib":
        return "hmac" if kind.__name__ == "HMAC" else "hash"
    module = f".{kind.__module__}.{getattr(function, '__module__', None) or ''}"
    if "_rust" in module and any(part in module for part in ASYMMETRIC):
        return "asymmetric"
    return ""
