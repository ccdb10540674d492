"""One fault in one message of a scripted handshake, and the alert that it must be answered with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tests.support.tls_script import BY_NAME, Conversation

from locum.errors import LocumError
from locum.tls.alerts import AlertDescription
from locum.tls.extensions import Extensions
from locum.tls.messages import serialize


@dataclass(frozen=True)
class Fault:
    """`change` makes of the message of `step` what the server says instead: a message, or bytes with header."""

    what: str
    script: str
    step: str
    change: Callable[[Any], Any]
    error: type[LocumError]
    alert: AlertDescription
    settings: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return f"{self.script}, {self.step}: {self.what}"


def check(fault: Fault) -> None:
    """Lead the client to the step, say the wrong thing, and see the error and the alert."""
    talk = Conversation(BY_NAME[fault.script], **dict(fault.settings))
    for step in talk.script.steps:
        if step == fault.step:
            break
        talk.deliver(talk.step(step))
    said = fault.change(talk.message(fault.step))
    data = said if isinstance(said, bytes) else serialize(said)
    with pytest.raises(fault.error):
        talk.deliver(talk.say(data))
    assert talk.last_alert == fault.alert
    assert not talk.client.handshake_complete


def fields(**values: Any) -> Callable[[Any], Any]:
    """Change these fields of the message."""
    return lambda message: replace(message, **values)


def extension(code: int, data: bytes | None) -> Callable[[Any], Any]:
    """Put this extension in the place of the one of its type, or at the end; None leaves it out."""

    def change(message: Any) -> Any:
        items = [item for item in message.extensions.items if item[0] != code]
        if data is not None:
            items.append((code, data))
        return replace(message, extensions=Extensions(tuple(items)))

    return change


def cut(count: int = 1) -> Callable[[Any], bytes]:
    """Leave out the last `count` bytes of the body."""
    return lambda message: _with_length(serialize(message)[:-count])


def lengthened(extra: bytes = b"\0") -> Callable[[Any], bytes]:
    """Put `extra` behind the body."""
    return lambda message: _with_length(serialize(message) + extra)


def _with_length(data: bytes) -> bytes:
    return data[:1] + (len(data) - 4).to_bytes(3, "big") + data[4:]
