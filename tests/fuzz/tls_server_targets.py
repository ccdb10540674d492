"""Fuzz targets of the TLS server: a server in every state, what only it parses, and its tickets."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from tests.support.tls_script import PSK
from tests.support.tls_server_script import (
    BY_NAME,
    SCRIPTS,
    Conversation,
    Recording,
    Script,
    recorded,
    ring,
)

from locum.errors import LocumError
from locum.tls import extensions as ext
from locum.tls.client_offer import ClientOffer
from locum.tls.messages import ClientHello, serialize
from locum.tls.receiving import parse_message
from locum.tls.registry import ContentType, ExtensionType
from locum.tls.tickets import TicketState

Target = Callable[[bytes], None]


def stream_of(script: Script) -> Target:
    """The server of this script gets the input as what the client sends; then the stream ends."""

    def target(data: bytes) -> None:
        talk = Recording(script)
        with suppress(LocumError):
            talk.deliver(data)
            talk.end_of_stream()

    return target


def messages_of(script: Script) -> Target:
    """As `stream_of`, but protected: the first byte says how many steps are played, the rest are messages.

    So the input reaches what stands behind the record protection.
    """

    def target(data: bytes) -> None:
        if not data:
            return
        talk = Conversation(script).play(data[0] % (len(script.steps) + 1))
        talk.listening = False
        with suppress(LocumError):
            talk.deliver(talk.seal(ContentType.HANDSHAKE, data[1:]))
            talk.end_of_stream()

    return target


def parser(parse: Callable[[bytes], object]) -> Target:
    """The input is parsed."""

    def target(data: bytes) -> None:
        with suppress(LocumError):
            parse(data)

    return target


def client_offer(data: bytes) -> ClientOffer:
    """The input is the body of a ClientHello, of which every extension is read."""
    raw = b"\x01" + len(data).to_bytes(3, "big") + data
    return ClientOffer.of(parse_message(ClientHello, raw))


def ticket(data: bytes) -> None:
    """The input is a ticket of unknown origin, and what stands in one that is genuine."""
    assert ring().open(data, now=0) is None
    with suppress(LocumError):
        assert TicketState.from_bytes(TicketState.from_bytes(data).to_bytes())


TARGETS: dict[str, Target] = {
    **{f"stream {script}": stream_of(script) for script in SCRIPTS},
    **{f"messages {script}": messages_of(script) for script in SCRIPTS},
    "client_offer": parser(client_offer),
    "offered_psks": parser(ext.parse_offered_psks),
    "psk_modes": parser(ext.parse_psk_modes),
    "status_request": parser(ext.parse_status_request),
    "renegotiation_info": parser(ext.parse_renegotiation_info),
    "ticket": ticket,
}


def _seeds() -> dict[str, tuple[bytes, ...]]:
    seeds: dict[str, tuple[bytes, ...]] = {}
    hellos = []
    for script in SCRIPTS:
        seeds[f"stream {script}"] = (b"".join(recorded(script)),)
        seeds[f"messages {script}"] = tuple(
            bytes((number,)) + serialize(Conversation(script).play(number).message(step))
            for number, step in enumerate(script.steps)
            if step != "change_cipher_spec"
        )
        hellos.append(serialize(Conversation(script).message("client_hello"))[4:])
    seeds["client_offer"] = tuple(hellos)
    talk = Conversation(BY_NAME["1.3 resumed"])
    seeds["offered_psks"] = (talk.client_hello().extensions.get(ExtensionType.PRE_SHARED_KEY) or b"",)
    seeds["psk_modes"], seeds["status_request"] = (b"\1\1",), (ext.write_status_request(),)
    seeds["renegotiation_info"] = (b"\0", b"\2xx")
    state = TicketState(suite=talk.script.suite, secret=PSK, server_name="a", authenticated_at=1.0)
    seeds["ticket"] = (talk.ticket(PSK), state.to_bytes())
    return seeds


SEEDS: dict[str, tuple[bytes, ...]] = _seeds()
