"""Receiving the one message that is due: its type is checked, it is parsed whole, and it joins the transcript."""

from __future__ import annotations

from typing import Any, TypeVar

from locum.tls.alerts import UnexpectedMessage
from locum.tls.messages import HEADER_LENGTH, Message
from locum.tls.registry import HandshakeType
from locum.tls.steps import Handshake, Receive
from locum.tls.transcript import Transcript
from locum.wire.cursor import Reader

M = TypeVar("M", bound=Message)


def receive(transcript: Transcript, kind: type[M]) -> Handshake[M]:
    """Wait for the next message, which must be a `kind`; its bytes join the transcript.

    Raises: UnexpectedMessage for any other type, DecodeError for a malformed body.
    """
    code, raw = yield Receive()
    if code != kind.type:
        raise UnexpectedMessage(f"{message_name(code)} where {message_name(kind.type)} is due")
    return _parse(transcript, kind, raw)


def receive_one_of(transcript: Transcript, *kinds: type[Message]) -> Handshake[Message]:
    """As `receive`, where any of several types may come."""
    code, raw = yield Receive()
    for kind in kinds:
        if code == kind.type:
            return _parse(transcript, kind, raw)
    names = " or ".join(message_name(kind.type) for kind in kinds)
    raise UnexpectedMessage(f"{message_name(code)} where {names} is due")


def _parse(transcript: Transcript, kind: type[M], raw: bytes) -> M:
    message = parse_message(kind, raw)
    transcript.add(raw)
    return message


def parse_message(kind: type[M], raw: bytes) -> M:
    """Parse the body of `raw`, a message with its header; DecodeError unless it is used up exactly."""
    reader = Reader(raw)
    reader.block(HEADER_LENGTH)
    message: Any = kind.parse(reader)
    reader.finish()
    return message  # type: ignore[no-any-return]


def message_name(code: int) -> str:
    """The RFC's name of a handshake message, or its number."""
    if code not in HandshakeType.__members__.values():
        return f"handshake message {code}"
    return "".join(word.capitalize() for word in HandshakeType(code).name.split("_"))
