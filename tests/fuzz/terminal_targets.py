"""Fuzz targets of the terminal: what a delegate, or a peer, answers to each message, and what a person types."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from ipaddress import ip_address

from tests.support.terminal_memory import World

from locum.errors import ConfigurationError, LocumError
from locum.terminal.channel import Answer
from locum.terminal.connecting import AskDelegate
from locum.terminal.ipsec_options import IpsecOptions, connection
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


def ipsec_words(data: bytes) -> None:
    """One line each for version, mode, methods, proposal, ESP, AH, both identities, and traffic at both ends."""
    words = (*data.decode("utf-8", "surrogateescape").split("\n"), *[""] * 10)[:10]
    options = IpsecOptions(
        version=words[0],
        mode=words[1],
        methods=words[2],
        proposal=words[3],
        esp=words[4],
        ah=words[5],
        local_identity=words[6],
        remote_identity=words[7],
        local_traffic=[words[8]] if words[8] else [],
        remote_traffic=[words[9]] if words[9] else [],
    )
    try:
        connection(options, ip_address("192.0.2.2"))
    except ConfigurationError as error:
        assert "\n" not in str(error), "an error is one line"


TARGETS: dict[str, Callable[[bytes], None]] = {
    "delegate_answers": delegate_answers,
    "peer_answers": peer_answers,
    "ipsec_words": ipsec_words,
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


SEEDS = {
    "delegate_answers": _true_answers(),
    "ipsec_words": (
        b"2\nmain\n\naes256gcm16-prfsha384-x25519-ke1_mlkem768,chacha20poly1305-prfsha256-ecp256\n"
        b"aes256gcm16-x25519-esn\n\na.example\ndn:CN=b,O=c\n10.1.0.0/16\n2001:db8::/32",
        b"1\naggressive\nrsa,ecdsa\naes128-sha256-modp2048\n\nsha256\nkeyid:00ff\nalice@example.com\nany\n",
    ),
}
