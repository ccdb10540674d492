"""Fuzz targets of the terminal: whatever a delegate, or a peer, answers to each message of a handshake."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from tests.support.terminal_memory import World

from locum.errors import LocumError
from locum.terminal.channel import Answer
from locum.terminal.connecting import AskDelegate
from locum.tls.registry import NamedGroup


def delegate_answers(data: bytes) -> None:
    """Byte 0 says which message is answered with the rest, byte 1 is the CoAP code."""
    if len(data) < 2:
        return

    def interfere(step: AskDelegate, number: int) -> Answer | None:
        if number - 1 != data[0] % 4:
            return None
        return Answer(delegate=step.delegate, code=data[1], payload=data[2:])

    with contextlib.suppress(LocumError):
        World(interfere=interfere).connect(timeout=1.0)


def peer_answers(data: bytes) -> None:
    """The peer answers the ClientHello with `data`, and then ends its stream."""
    world = World()
    pieces = [data, b""]
    world._read = lambda: pieces.pop(0) if pieces else b""  # type: ignore[method-assign]
    with contextlib.suppress(LocumError):
        world.connect()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "delegate_answers": delegate_answers,
    "peer_answers": peer_answers,
}


def _true_answers() -> tuple[bytes, ...]:
    """What a delegate answers in one handshake, as inputs of `delegate_answers`."""
    seen: list[bytes] = []
    world = World()
    ask = world._ask

    def record(step: AskDelegate) -> Answer:
        answer = ask(step)
        seen.append(bytes((len(seen), answer.code)) + answer.payload)
        return answer

    world._ask = record  # type: ignore[method-assign]
    world.connect(groups=(NamedGroup.X25519,))
    return tuple(seen)


SEEDS = {"delegate_answers": _true_answers()}
