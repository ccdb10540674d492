"""What holds of the link whatever the network does: right answers, no nonce twice, no replay, no untyped error."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.link_network import (
    MemoryCredentials,
    MemoryStore,
    Network,
    SealRecorder,
    credential,
    make_client,
    make_server,
    pair,
)

from locum.errors import LocumError, TimedOut
from locum.link.coap import Code, Framing, Message, StreamReader, Type, capabilities
from locum.link.exchange import TransmissionParameters
from locum.link.oscore import Credential, OscoreOption
from locum.link.server import IncomingRequest, Limits

options = st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=300)), max_size=32).map(
    lambda items: tuple(sorted(items, key=lambda item: item[0]))
)
messages = st.builds(
    Message,
    code=st.integers(1, 255),
    token=st.binary(max_size=8),
    options=options,
    payload=st.binary(max_size=300),
    type=st.sampled_from(Type),
    message_id=st.integers(0, 65535),
)


@given(messages)
def test_every_message_survives_every_form(message: Message) -> None:
    assert Message.parse_datagram(message.write_datagram()) == message
    assert Message.parse_plaintext(message.write_plaintext())[2:4] == message[2:4]
    reader = StreamReader()
    reader.feed(message.write_stream())
    assert (reader.next() or message)[:4] == message[:4]


@given(st.binary(max_size=60))
def test_what_parses_as_a_datagram_means_the_same_written_anew(data: bytes) -> None:
    try:
        message = Message.parse_datagram(data)
    except LocumError:
        return
    assert Message.parse_datagram(message.write_datagram()) == message


@given(st.binary(max_size=30))
def test_what_parses_as_an_oscore_option_is_written_as_it_was(data: bytes) -> None:
    try:
        option = OscoreOption.parse(data)
    except LocumError:
        return
    assert option.write() == data


def cuts(data: bytes, points: list[int]) -> list[bytes]:
    """`data` in pieces, cut at `points` (taken modulo its length)."""
    places = sorted({point % (len(data) + 1) for point in points} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(st.lists(messages, max_size=5), st.lists(st.integers(0, 5000), max_size=20))
def test_a_stream_reads_the_same_however_it_is_cut(sent: list[Message], points: list[int]) -> None:
    reader = StreamReader()
    received = []
    for piece in cuts(b"".join(message.write_stream() for message in sent), points):
        reader.feed(piece)
        while (message := reader.next()) is not None:
            received.append(message[:4])
    assert received == [message[:4] for message in sent]


@given(st.lists(st.integers(0, 20000), max_size=12), st.lists(st.integers(0, 4000), min_size=1, max_size=3))
def test_both_ends_of_a_stream_work_however_it_is_cut(points: list[int], sizes: list[int]) -> None:
    network, client = pair(framing=Framing.STREAM)
    replies = {client.request("/kx", bytes(size), now=0.0): size for size in sizes}
    answered: list[IncomingRequest] = []
    for _ in range(6):
        for piece in cuts(b"".join(client.transmit()), points):
            for request in network.server.receive(piece, "stream", now=0.0):
                answered.append(request)
                network.server.respond(request, Code.CONTENT, request.payload, now=0.0)
        for piece in cuts(b"".join(data for data, _ in network.server.transmit()), points):
            client.receive(piece, now=0.0)
    assert sorted(len(request.payload) for request in answered) == sorted(sizes)
    for exchange, size in replies.items():
        reply = client.outcome(exchange)
        assert reply is not None
        assert reply.payload == bytes(size)


def bad_network(chance: random.Random, loss: float) -> Callable[[bytes], list[float]]:
    """Loses, doubles, delays and so reorders datagrams."""

    def fate(_: bytes) -> list[float]:
        copies = 0 if chance.random() < loss else 1 + (chance.random() < 0.3)
        return [chance.choice((0.001, 0.05, 1.0, 3.0)) for _ in range(copies)]

    return fate


#: On the worst of these networks a block may take far longer than any sensible server waits for the next one.
ENDURING = Limits(body_lifetime=1e6)
PATIENT = TransmissionParameters(
    max_retransmit=9, nstart=2, refusal_wait=1e5, response_timeout=1e5, exchange_lifetime=1e6
)


@given(seed=st.integers(0, 2**32), sizes=st.lists(st.sampled_from((0, 100, 1500, 3000)), min_size=1, max_size=4))
def test_over_a_bad_network_every_answer_is_right_and_no_nonce_is_used_twice(seed: int, sizes: list[int]) -> None:
    """Client and server restart in between; the store and the credential source outlast them."""
    chance = random.Random(seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        recorder = SealRecorder(monkeypatch)
        given_credential = credential()
        source = MemoryCredentials(given_credential)
        store = MemoryStore()
        loss = chance.choice((0.0, 0.1, 0.3))
        network = Network(
            make_server(source, seed=seed, parameters=PATIENT, limits=ENDURING), fate=bad_network(chance, loss)
        )
        done: list[bytes] = []

        def application(request: IncomingRequest) -> tuple[int, bytes]:
            done.append(request.payload)
            return Code.CONTENT, b"done:" + request.payload

        network.application = application
        asked = []
        for number, size in enumerate(sizes):
            if number == 0 or chance.random() < 0.4:
                client = make_client(given_credential, store=store, seed=seed + number, parameters=PATIENT)
                network.clients = {f"process {number}": client}
            if chance.random() < 0.3:
                network.server = make_server(source, seed=seed + number, parameters=PATIENT, limits=ENDURING)
            body = bytes((number,)) * size + bytes((number,))
            asked.append(body)
            try:
                assert network.ask(client, body).payload == b"done:" + body
            except TimedOut:
                # Everything in one direction may be lost, if rarely; what must hold holds all the same.
                continue
        assert recorder.repeated_nonces() == 0
        assert all(done.count(body) <= 1 for body in asked), "nothing is done twice"


@given(seed=st.integers(0, 2**32), plain=st.booleans(), framing=st.sampled_from(Framing))
def test_random_and_damaged_bytes_disturb_nobody(seed: int, plain: bool, framing: Framing) -> None:
    chance = random.Random(seed)
    network, client = pair(framing=framing)
    network.ask(client, b"before")
    recorded = [data for _, _, data in network.travelled]
    target = make_server(None, plain=True, framing=framing) if plain else network.server
    for number in range(20):
        data = bytearray(chance.choice(recorded) if chance.random() < 0.8 else chance.randbytes(40))
        for _ in range(chance.randrange(4)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            for request in target.receive(bytes(data[: chance.randrange(len(data) + 1)]), number, now=network.now):
                target.respond(request, Code.CHANGED, b"", now=network.now)
        except LocumError:
            assert framing is Framing.STREAM
    network.server.transmit()
    assert network.ask(client, b"after").payload == b"terminal-1 /kx after"


@given(seed=st.integers(0, 2**32), framing=st.sampled_from(Framing))
def test_whatever_a_client_receives_it_never_raises_and_never_believes_it(seed: int, framing: Framing) -> None:
    chance = random.Random(seed)
    network, client = pair(framing=framing)
    network.ask(client, b"before")
    recorded = [data for _, _, data in network.travelled] + [capabilities()]
    exchange = client.request("/kx", b"x", now=network.now)
    assert len(client.transmit()) == 1
    for _ in range(20):
        noise = bytearray(chance.choice(recorded) if chance.random() < 0.8 else chance.randbytes(40))
        if noise and chance.random() < 0.7:
            noise[chance.randrange(len(noise))] = chance.randrange(256)
        client.receive(bytes(noise), now=network.now)
    client.transmit()
    if client.closed:
        with pytest.raises(LocumError):
            client.outcome(exchange)
    else:
        assert client.outcome(exchange) is None


@given(seed=st.integers(0, 2**32), restart=st.booleans())
def test_no_recorded_datagram_is_ever_performed_again(seed: int, restart: bool) -> None:
    chance = random.Random(seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        recorder = SealRecorder(monkeypatch)
        source = MemoryCredentials(credential())
        network = Network(make_server(source, seed=seed))
        client = network.clients["terminal"] = make_client(credential(), store=MemoryStore(), seed=seed)
        for number in range(chance.randrange(1, 5)):
            network.ask(client, bytes((number,)))
        recorded = [data for _, upwards, data in network.travelled if upwards]
        if restart:
            network.server = make_server(source, seed=seed + 1)
        performed = len(network.requests)
        for _ in range(20):
            replayed = bytearray(chance.choice(recorded))
            replayed[2:4] = chance.randbytes(2)
            network.deliver(bytes(replayed), chance.choice(("terminal", "attacker")))
        assert len(network.requests) == performed
        assert recorder.repeated_nonces() == 0
        network.server.transmit()
        assert network.ask(client, b"still there").code == Code.CONTENT
        assert recorder.repeated_nonces() == 0


@given(st.binary(min_size=16, max_size=40), st.binary(max_size=16), st.binary(max_size=7), st.binary(max_size=7))
def test_any_credential_that_is_accepted_works(secret: bytes, salt: bytes, kid: bytes, peer_id: bytes) -> None:
    try:
        made = Credential(kid, peer_id, secret, salt)
    except LocumError:
        assert kid == peer_id
        return
    network = Network(make_server(MemoryCredentials(made)))
    client = network.clients["terminal"] = make_client(made)
    assert network.ask(client, b"x").code == Code.CONTENT
