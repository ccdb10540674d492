"""Fuzz targets of the link: every parser, and both endpoints as a whole."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.link_network import MemoryCredentials, Network, credential, make_client, make_server

from locum.errors import LocumError
from locum.link.blockwise import Block
from locum.link.coap import RULES, Code, Framing, Message, StreamReader, capabilities, recognise
from locum.link.oscore import OscoreOption


def _datagram(data: bytes) -> None:
    try:
        message = Message.parse_datagram(data)
        assert Message.parse_datagram(message.write_datagram()) == message
        recognise(message.options, RULES)
    except LocumError:
        return


def _plaintext(data: bytes) -> None:
    try:
        message = Message.parse_plaintext(data)
        assert Message.parse_plaintext(message.write_plaintext()) == message
    except LocumError:
        return


def _stream(data: bytes) -> None:
    reader = StreamReader()
    try:
        reader.feed(data)
        while reader.next() is not None:
            pass
    except LocumError:
        return


def _oscore_option(data: bytes) -> None:
    try:
        assert OscoreOption.parse(data).write() == data
    except LocumError:
        return


def _block(data: bytes) -> None:
    try:
        Block.parse(data[:3], Framing.STREAM)
    except LocumError:
        return


def _server(data: bytes, framing: Framing, *, plain: bool) -> None:
    server = make_server(None if plain else MemoryCredentials(credential()), plain=plain, framing=framing)
    try:
        for request in server.receive(data, "remote", now=1.0):
            server.respond(request, Code.CHANGED, request.payload, now=1.0)
    except LocumError:
        assert framing is Framing.STREAM
    server.transmit()
    server.expire(now=1000.0)


def _client(data: bytes, framing: Framing, *, plain: bool) -> None:
    client = make_client(None if plain else credential(), framing=framing)
    exchange = client.request("/kx", b"payload", now=0.0)
    token = Message.parse_datagram(client.transmit()[0]).token if framing is Framing.DATAGRAM else b""
    # Most of what can be wrong is looked at only in an answer to this very request.
    client.receive(data[:4] + token + data[4:], now=1.0)
    client.receive(data, now=1.0)
    client.expire(now=1000.0)
    try:
        client.outcome(exchange)
    except LocumError:
        return


def _recorded(framing: Framing) -> tuple[bytes, ...]:
    network = Network(make_server(MemoryCredentials(credential()), framing=framing))
    client = network.clients["remote"] = make_client(credential(), framing=framing)
    network.ask(client, b"payload")
    return tuple(data for _, _, data in network.travelled)


_PLAIN = Message(Code.POST, b"t", ((11, b"kx"), (15, b"t=name"), (27, b"\x0e")), bytes(16))

TARGETS: dict[str, Callable[[bytes], None]] = {
    "datagram": _datagram,
    "plaintext": _plaintext,
    "stream": _stream,
    "oscore_option": _oscore_option,
    "block": _block,
    "server_datagram": lambda data: _server(data, Framing.DATAGRAM, plain=False),
    "server_stream": lambda data: _server(data, Framing.STREAM, plain=False),
    "server_plain_datagram": lambda data: _server(data, Framing.DATAGRAM, plain=True),
    "server_plain_stream": lambda data: _server(data, Framing.STREAM, plain=True),
    "client_datagram": lambda data: _client(data, Framing.DATAGRAM, plain=False),
    "client_stream": lambda data: _client(data, Framing.STREAM, plain=False),
    "client_plain_datagram": lambda data: _client(data, Framing.DATAGRAM, plain=True),
    "client_plain_stream": lambda data: _client(data, Framing.STREAM, plain=True),
}

_DATAGRAMS = _recorded(Framing.DATAGRAM)
_STREAMS = _recorded(Framing.STREAM)
SEEDS: dict[str, tuple[bytes, ...]] = {
    "datagram": (*_DATAGRAMS, _PLAIN.write_datagram()),
    "plaintext": (_PLAIN.write_plaintext(),),
    "stream": (capabilities() + _PLAIN.write_stream(),),
    "oscore_option": (OscoreOption(b"\x01", b"\x00\x01", b"context").write(),),
    "server_datagram": _DATAGRAMS,
    "server_stream": _STREAMS,
    "server_plain_datagram": (_PLAIN.write_datagram(),),
    "server_plain_stream": (capabilities() + _PLAIN.write_stream(),),
    "client_datagram": _DATAGRAMS,
    "client_stream": _STREAMS,
    "client_plain_datagram": (Message(Code.CONTENT, b"", ((23, b"\x0e"),), bytes(16)).write_datagram(),),
    "client_plain_stream": (capabilities(),),
}
