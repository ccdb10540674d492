"""PKCS#11 libraries in this process: loaded once, one call at a time, logged in once for each token.

Never knows what a key is used for. The library is told nothing of threads, so a lock stands for all of them; more
work at once takes more processes. A PIN is read from its file when it is needed, and not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pkcs11
from pkcs11 import exceptions as errors

from locum.errors import ConfigurationError, Unavailable
from locum.files import read_private
from locum.keys.token_uri import TokenUri

#: Longest PIN in bytes.
MAX_PIN = 256
#: A library is restarted once in so many seconds at most: while a token is away, each request would do it.
RESTART_INTERVAL = 1.0

_WRONG_PIN = (
    errors.PinIncorrect,
    errors.PinInvalid,
    errors.PinLenRange,
    errors.PinExpired,
    errors.PinLocked,
    errors.UserPinNotInitialized,
)


class Library:
    """One PKCS#11 library. Whoever uses anything that came from it holds `lock` meanwhile.

    `generation` is another number after each restart: nothing that came from it before is of use any more.
    """

    def __init__(self, path: str) -> None:
        """Raises: ConfigurationError when it cannot be loaded."""
        if not Path(path).is_file():
            raise ConfigurationError(f"{path}: no such PKCS#11 library")
        try:
            self._library = pkcs11.lib(path)
        except errors.PKCS11Error as error:
            raise ConfigurationError(f"{path}: not a PKCS#11 library that can be used: {why(error)}") from None
        self.lock = threading.RLock()
        self.generation = 0
        self._path = path
        self._forked = False
        self._restarted_at = -RESTART_INTERVAL
        #: By token, as the URI describes it, and whether there is a PIN for it.
        self._sessions: dict[tuple[str, bool], pkcs11.Session] = {}
        #: SHA-256 of PINs that a token did not accept: a second try with the same one helps to lock it.
        self._refused: set[bytes] = set()

    def session(self, uri: TokenUri) -> pkcs11.Session:
        """The session with the token of `uri`, logged in if there is a PIN file.

        Raises: Unavailable when there is no such token, or it cannot be used now; ConfigurationError when more
        than one is meant, or for its PIN.
        """
        if self._forked:
            self.restart()
        place = uri.place, bool(uri.pin_file)
        session = self._sessions.get(place)
        if session is None:
            session = self._sessions[place] = self._open(uri)
        return session

    def restart(self) -> None:
        """End every session and begin anew: only so does a library look for its tokens again.

        Raises: Unavailable when it fails, or was done a moment ago.
        """
        now = time.monotonic()
        if now < self._restarted_at + RESTART_INTERVAL:
            raise Unavailable("the PKCS#11 token could not be reached a moment ago")
        self._restarted_at = now
        self._forked = False
        self._sessions.clear()
        self.generation += 1
        with contextlib.suppress(errors.PKCS11Error):
            self._library.finalize()
        with translated("the PKCS#11 library cannot be started"):
            self._library.initialize()

    def forked(self) -> None:
        """In a child process: another lock, and a restart before anything else (PKCS#11 v3.1 section 5.4)."""
        self.lock = threading.RLock()
        self._forked = True
        self._restarted_at = -RESTART_INTERVAL

    def _open(self, uri: TokenUri) -> pkcs11.Session:
        token = self._find(uri)
        pin = _read_pin(Path(uri.pin_file)) if uri.pin_file else None
        fingerprint = hashlib.sha256(f"{token.serial!r} {pin}".encode()).digest()
        if fingerprint in self._refused:
            raise ConfigurationError(f"{uri.pin_file}: the PKCS#11 token refused this PIN before")
        with translated("the PKCS#11 token cannot be used"):
            try:
                return token.open(user_pin=pin)
            except errors.UserAlreadyLoggedIn:
                return token.open()
            except _WRONG_PIN as error:
                self._refused.add(fingerprint)
                raise ConfigurationError(
                    f"{uri.pin_file}: the PKCS#11 token refuses this PIN: {why(error)}"
                ) from None

    def _find(self, uri: TokenUri) -> pkcs11.Token:
        with translated("the PKCS#11 library shows no tokens"):
            found = [token for token in self._tokens() if _is_meant(token, uri)]
        if not found:
            raise Unavailable(f"{self._path}: no token {uri.place}")
        if len(found) > 1:
            raise ConfigurationError(f"{self._path}: {len(found)} tokens fit {uri.place}")
        return found[0]

    def _tokens(self) -> Iterator[pkcs11.Token]:
        for slot in self._library.get_slots(token_present=True):
            with contextlib.suppress(errors.TokenNotPresent, errors.TokenNotRecognised):
                yield slot.get_token()


def library(path: str) -> Library:
    """The library at `path`, which is loaded once. Raises: ConfigurationError when it cannot be."""
    with _loading:
        found = _libraries.get(path)
        if found is None:
            found = _libraries[path] = Library(path)
        return found


def why(error: errors.PKCS11Error) -> str:
    """What a library answered, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__} ({text})" if text else type(error).__name__


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """A library's errors inside become Unavailable."""
    try:
        yield
    except errors.PKCS11Error as error:
        raise Unavailable(f"{what}: {why(error)}") from None


def _is_meant(token: pkcs11.Token, uri: TokenUri) -> bool:
    serial = token.serial.decode("ascii", "replace") if isinstance(token.serial, bytes) else str(token.serial)
    return (
        uri.token in ("", token.label)
        and uri.manufacturer in ("", token.manufacturer_id)
        and uri.model in ("", token.model)
        and uri.serial in ("", serial.strip())
        and uri.slot in (None, token.slot.slot_id)
    )


def _read_pin(path: Path) -> str:
    data = read_private(path, what="PIN of a PKCS#11 token", limit=MAX_PIN).rstrip(b"\r\n")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: the PIN is not UTF-8") from None


_loading = threading.Lock()
_libraries: dict[str, Library] = {}


def _after_fork() -> None:
    for loaded in _libraries.values():
        loaded.forked()


os.register_at_fork(after_in_child=_after_fork)
