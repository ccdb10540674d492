"""The control protocol of strongSwan's charon over its Unix socket: one request at a time.

Knows how messages are written, and nothing of what they ask for. Format: strongSwan's README of the vici plugin.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from locum.errors import DecodeError, Unavailable

#: Seconds that one answer may take, when the request does not say otherwise.
TIMEOUT = 30.0
#: charon's own limit on a message, in bytes.
MAX_MESSAGE = 512 * 1024
#: Sections in sections.
MAX_DEPTH = 16


class Packet(IntEnum):
    """The first byte of a packet."""

    REQUEST = 0
    RESPONSE = 1
    UNKNOWN_COMMAND = 2
    REGISTER = 3
    UNREGISTER = 4
    CONFIRM = 5
    UNKNOWN_EVENT = 6
    EVENT = 7


class Element(IntEnum):
    """The first byte of each part of a message."""

    SECTION_START = 1
    SECTION_END = 2
    KEY_VALUE = 3
    LIST_START = 4
    LIST_ITEM = 5
    LIST_END = 6


#: A message: text or bytes, lists of these, and messages.
Message = Mapping[str, Any]


def encode(message: Message) -> bytes:
    """A message on the wire; booleans are written as ``yes`` and ``no``."""
    written = bytearray()
    for key, value in message.items():
        name = key.encode()
        head = struct.pack("B", len(name)) + name
        if isinstance(value, Mapping):
            written += bytes([Element.SECTION_START]) + head + encode(value) + bytes([Element.SECTION_END])
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            written += bytes([Element.LIST_START]) + head
            for item in value:
                written += bytes([Element.LIST_ITEM]) + _value(item)
            written += bytes([Element.LIST_END])
        else:
            written += bytes([Element.KEY_VALUE]) + head + _value(value)
    return bytes(written)


def _value(value: object) -> bytes:
    if isinstance(value, bool):
        value = "yes" if value else "no"
    data = value if isinstance(value, bytes) else str(value).encode()
    return struct.pack("!H", len(data)) + data


def decode(data: bytes) -> dict[str, Any]:
    """A message from the wire; every value is text. Raises: DecodeError."""
    reader = _Reader(data)
    root: dict[str, Any] = {}
    sections = [root]
    items: list[str] | None = None
    while not reader.done:
        match reader.element(), items:
            case Element.SECTION_START, None if len(sections) < MAX_DEPTH:
                section: dict[str, Any] = {}
                sections[-1][reader.name()] = section
                sections.append(section)
            case Element.SECTION_END, None if len(sections) > 1:
                sections.pop()
            case Element.KEY_VALUE, None:
                name = reader.name()
                sections[-1][name] = reader.value()
            case Element.LIST_START, None:
                items = sections[-1].setdefault(reader.name(), [])
            case Element.LIST_ITEM, list():
                items.append(reader.value())
            case Element.LIST_END, list():
                items = None
            case _:
                raise DecodeError("vici: an element where it cannot be")
    if len(sections) > 1 or items is not None:
        raise DecodeError("vici: the message ends in the middle")
    return root


class _Reader:
    """Reads a message from its beginning."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._data)

    def element(self) -> Element:
        try:
            return Element(self._take(1)[0])
        except ValueError as error:
            raise DecodeError(f"vici: {error}") from None

    def name(self) -> str:
        return self._take(self._take(1)[0]).decode(errors="replace")

    def value(self) -> str:
        return self._take(int.from_bytes(self._take(2), "big")).decode(errors="replace")

    def _take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        if len(taken) < length:
            raise DecodeError("vici: the message ends in the middle")
        self._at += length
        return taken


class Vici:
    """A connection to charon; a context manager."""

    def __init__(self, path: Path, *, timeout: float = TIMEOUT) -> None:
        """Raises: Unavailable when nobody listens there."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise Unavailable(f"charon does not listen on {path}: {error}") from None

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def request(self, command: str, message: Message | None = None) -> dict[str, Any]:
        """Perform a command; returns the answer. Raises: Unavailable with charon's reason when it says ``no``."""
        self._send(Packet.REQUEST, command, encode(message or {}))
        answer = self._answer(command)
        if answer.get("success", "yes") != "yes":
            raise Unavailable(f"charon refuses {command}: {answer.get('errmsg', 'no reason given')}")
        return answer

    def listing(self, command: str, event: str, message: Message | None = None) -> list[dict[str, Any]]:
        """Perform a command that answers with events, one for each thing it lists; returns these."""
        self._send(Packet.REGISTER, event)
        if self._receive()[0] != Packet.CONFIRM:
            raise Unavailable(f"charon knows no events {event}")
        self._send(Packet.REQUEST, command, encode(message or {}))
        events: list[dict[str, Any]] = []
        self._answer(command, events)
        return events

    def _answer(self, command: str, events: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        while True:
            kind, data = self._receive()
            if kind == Packet.EVENT and events is not None:
                events.append(decode(data[1 + data[0] :]))
            elif kind == Packet.RESPONSE:
                return decode(data)
            else:
                raise Unavailable(f"charon does not know {command}")

    def _send(self, kind: Packet, name: str, message: bytes = b"") -> None:
        packet = bytes([kind, len(name)]) + name.encode() + message
        try:
            self._socket.sendall(struct.pack("!I", len(packet)) + packet)
        except OSError as error:
            raise Unavailable(f"charon: {error}") from None

    def _receive(self) -> tuple[int, bytes]:
        length = int.from_bytes(self._exactly(4), "big")
        if not 0 < length <= MAX_MESSAGE:
            raise DecodeError(f"vici: a packet of {length} bytes")
        packet = self._exactly(length)
        return packet[0], packet[1:]

    def _exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            try:
                more = self._socket.recv(length - len(data))
            except OSError as error:
                raise Unavailable(f"charon does not answer: {error or 'timed out'}") from None
            if not more:
                raise Unavailable("charon closed its control connection")
            data += more
        return bytes(data)
