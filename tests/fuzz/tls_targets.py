"""Fuzz targets of the tls room: a client in every state, every message and extension, records, tickets."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tests.support.tls_script import BY_NAME, SCRIPTS, Conversation, Recording, Script, recorded

from locum.errors import LocumError
from locum.tls import extensions as ext
from locum.tls import messages12, messages13
from locum.tls.messages import CertificateVerify, ClientHello, Finished, ServerHello, serialize
from locum.tls.receiving import parse_message
from locum.tls.record import RecordReader, protection
from locum.tls.registry import CIPHER_SUITES, ContentType, ExtensionType, KeyExchange
from locum.tls.session import SessionTicket
from locum.wire.cursor import Reader, Writer

Target = Callable[[bytes], None]


def stream_of(script: Script) -> Target:
    """The client of this script gets the input as what the server sends; then the stream ends."""

    def target(data: bytes) -> None:
        talk = Recording(script)
        with suppress(LocumError):
            talk.deliver(data)
            talk.end_of_stream()

    return target


def clear_flight_of(script: Script) -> Target:
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


def message(kind: Any) -> Target:
    """The input is the body of a message of this kind."""

    def target(data: bytes) -> None:
        with suppress(LocumError):
            parse_message(kind, bytes((kind.type,)) + len(data).to_bytes(3, "big") + data)

    return target


def parser(parse: Callable[[bytes], Any]) -> Target:
    """The input is parsed."""

    def target(data: bytes) -> None:
        with suppress(LocumError):
            parse(data)

    return target


def records(data: bytes) -> None:
    """The input is a stream of records, read in clear and under a key of each version."""
    for suite in (None, CIPHER_SUITES[0x1301], CIPHER_SUITES[0xC02F], CIPHER_SUITES[0xCCA8]):
        reader = RecordReader()
        if suite is not None:
            reader.version = suite.version
            reader.protection = protection(suite, bytes(suite.aead.key_length), bytes(suite.implicit_nonce))
        reader.feed(data)
        with suppress(LocumError):
            while reader.next() is not None:
                pass


def server_key_exchange(data: bytes) -> None:
    """The input is the body of a ServerKeyExchange, cut up for both kinds of parameters."""
    for exchange in (KeyExchange.ECDHE, KeyExchange.DHE):
        with suppress(LocumError):
            messages12.ServerKeyExchange(body=data).split(exchange)


_MESSAGES: dict[str, Any] = {
    "client_hello": ClientHello,
    "server_hello": ServerHello,
    "certificate_verify": CertificateVerify,
    "finished": Finished,
    "encrypted_extensions": messages13.EncryptedExtensions,
    "certificate_request_13": messages13.CertificateRequest,
    "certificate_13": messages13.Certificate,
    "new_session_ticket_13": messages13.NewSessionTicket,
    "key_update": messages13.KeyUpdate,
    "hello_request": messages12.HelloRequest,
    "certificate_12": messages12.Certificate,
    "certificate_status": messages12.CertificateStatus,
    "certificate_request_12": messages12.CertificateRequest,
    "server_hello_done": messages12.ServerHelloDone,
    "client_key_exchange": messages12.ClientKeyExchange,
    "new_session_ticket_12": messages12.NewSessionTicket,
}
_EXTENSIONS: dict[str, Callable[[bytes], Any]] = {
    "extensions": lambda data: ext.Extensions.parse(Reader(data)),
    "codes": ext.parse_codes,
    "server_name": ext.parse_server_name,
    "alpn": ext.parse_alpn,
    "server_share": ext.parse_server_share,
    "client_shares": ext.parse_client_shares,
    "certificate_status_extension": ext.parse_certificate_status,
    "names": ext.parse_names,
    "cookie": ext.parse_cookie,
    "point_formats": ext.parse_point_formats,
}

TARGETS: dict[str, Target] = {
    **{f"stream {script}": stream_of(script) for script in SCRIPTS},
    **{f"messages {script}": clear_flight_of(script) for script in SCRIPTS},
    **{name: message(kind) for name, kind in _MESSAGES.items()},
    **{name: parser(parse) for name, parse in _EXTENSIONS.items()},
    "server_key_exchange": server_key_exchange,
    "records": records,
    "session_ticket": parser(SessionTicket.from_bytes),
}


def _bodies(script: Script) -> dict[str, bytes]:
    """The bodies of a whole conversation's messages by their steps."""
    talk, found = Conversation(script), {}
    for step in script.steps:
        if step != "change_cipher_spec":
            found[step] = serialize(talk.message(step))[4:]
        talk.deliver(talk.step(step))
    return found


def _seeds() -> dict[str, tuple[bytes, ...]]:
    seeds: dict[str, tuple[bytes, ...]] = {}
    for script in SCRIPTS:
        stream = recorded(script)
        seeds[f"stream {script}"] = (b"".join(stream),)
        seeds[f"messages {script}"] = tuple(
            bytes((number,)) + serialize(Conversation(script).play(number).message(step))
            for number, step in enumerate(script.steps)
            if step != "change_cipher_spec"
        )
    for name, suffix in (("1.3 client certificate", "_13"), ("1.2 ECDHE", "_12")):
        script = BY_NAME[name]
        for step, body in _bodies(script).items():
            target = step if step in TARGETS else step + suffix
            if target in TARGETS:
                seeds[target] = (*seeds.get(target, ()), body)
    hello = Conversation(BY_NAME["1.3 resumed"]).sent
    seeds["client_hello"] = (hello[9:],)
    parsed = Conversation(BY_NAME["1.3 resumed"]).hello
    assert parsed is not None
    writer = Writer()
    parsed.extensions.write(writer)
    seeds["extensions"] = (writer.getvalue(),)
    codes = {"codes": 10, "server_name": 0, "alpn": 16, "client_shares": 51, "point_formats": 11}
    for name, code in codes.items():
        seeds[name] = (parsed.extensions.get(ExtensionType(code)) or b"",)
    seeds["server_share"] = (seeds["client_shares"][0][2:],)
    seeds["cookie"], seeds["names"] = (b"\0\6cookie",), (b"\0\4\0\x020\0",)
    seeds["certificate_status_extension"] = seeds["certificate_status"]
    seeds["key_update"] = (b"\1",)
    seeds["client_key_exchange"] = (b"\x20" + bytes(32),)
    seeds["new_session_ticket_13"] = (serialize(Conversation(SCRIPTS[0]).message("new_session_ticket"))[4:],)
    seeds["records"] = (hello, b"".join(recorded(BY_NAME["1.2 ECDHE"])))
    tickets = [dict(script.settings)["ticket"] for script in SCRIPTS if script.resumes]
    seeds["session_ticket"] = tuple(ticket.to_bytes() for ticket in tickets if isinstance(ticket, SessionTicket))
    return seeds


SEEDS: dict[str, tuple[bytes, ...]] = _seeds()
