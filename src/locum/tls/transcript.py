"""The transcript of a handshake: every message as it was on the wire, and its hash once that is known."""

from __future__ import annotations

from locum.crypto.symmetric import HashAlgorithm
from locum.tls.registry import HandshakeType


class Transcript:
    """Collects messages; `start` fixes the hash (RFC 8446 section 4.4.1, RFC 5246 section 7.4.9).

    The messages themselves are kept until `forget`, because a TLS 1.2 client signature covers them, hashed with a
    function of its own choice. They are bounded by the longest message and the number of messages in turn.
    """

    def __init__(self) -> None:
        self._messages = bytearray()
        self._algorithm: HashAlgorithm | None = None

    def add(self, message: bytes) -> None:
        """Append one message with its header."""
        self._messages += message
        if self._algorithm is not None:
            self._state.update(message)

    def start(self, algorithm: HashAlgorithm) -> None:
        """The cipher suite is known: hash with `algorithm` from the first message on."""
        self._algorithm = algorithm
        self._state = algorithm.new()
        self._state.update(self._messages)

    def hash(self) -> bytes:
        """Transcript-Hash of all messages so far."""
        return self._state.copy().digest()

    def retry(self) -> None:
        """After a HelloRetryRequest the first ClientHello stands as its hash (RFC 8446 section 4.4.1).

        Called when exactly these two messages are here.
        """
        algorithm = self._algorithm
        if algorithm is None:
            raise ValueError("the transcript's hash is not known yet")
        length = 4 + int.from_bytes(self._messages[1:4], "big")
        digest = algorithm.digest(self._messages[:length])
        stand_in = bytes((HandshakeType.MESSAGE_HASH, 0, 0, len(digest))) + digest
        self._messages[:length] = stand_in
        self.start(algorithm)

    def hash_with(self, algorithm: HashAlgorithm, extra: bytes) -> bytes:
        """The hash that the transcript would have with `extra` added, by `algorithm`: for a PSK binder."""
        state = algorithm.new()
        state.update(self._messages)
        state.update(extra)
        return state.digest()

    def hash_without(self, length: int) -> bytes:
        """The hash of all but the last `length` bytes, which are a ClientHello's binders."""
        assert self._algorithm is not None
        with memoryview(self._messages) as view:
            return self._algorithm.digest(view[: len(view) - length])

    @property
    def messages(self) -> bytes:
        """All messages so far."""
        return bytes(self._messages)

    def forget(self) -> None:
        """Drop the messages; the hash goes on."""
        self._messages.clear()
