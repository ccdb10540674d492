"""The link's client: what it believes, what it sends again, and what its sequence store is asked."""

from __future__ import annotations

import pytest
from tests.support.link_network import (
    MemoryCredentials,
    MemoryStore,
    Network,
    credential,
    make_client,
    make_server,
    pair,
    seeded,
)

from locum.errors import LocumError, Misbehaved, Refused, TimedOut, Unavailable
from locum.link import client as client_module
from locum.link import sender
from locum.link.client import Client
from locum.link.coap import MAXIMUM_BODY, Code, Framing, Message, OptionNumber, Type, capabilities
from locum.link.exchange import TransmissionParameters
from locum.link.oscore import MAXIMUM_SEQUENCE, Credential, OscoreOption
from locum.link.sender import Sender

GIVEN = credential()


def sent(client: Client) -> Message:
    """The one message that the client has to send."""
    (data,) = client.transmit()
    return Message.parse_datagram(data)


def option_of(message: Message) -> OscoreOption:
    return OscoreOption.parse(dict(message.options)[OptionNumber.OSCORE])


def unprotected(request: Message, code: int, kind: Type = Type.ACKNOWLEDGEMENT) -> bytes:
    """What anybody can send who has seen the request."""
    return Message(code, request.token, (), b"", kind, request.message_id).write_datagram()


# --- bytes on the wire -------------------------------------------------------------------------------------


def test_a_settled_exchange_costs_24_bytes_up_and_17_down() -> None:
    """4 header, 1 token, 5 OSCORE (with a kid of 2), 1 marker, 1 code, 3 path, 1 marker, 8 tag; and its answer."""
    network, client = pair()
    network.application = lambda request: (Code.CHANGED, bytes(100))
    network.ask(client, b"")
    before = client.bytes_sent, client.bytes_received, client.exchanges
    network.ask(client, bytes(100))
    assert client.bytes_sent - before[0] == 100 + 24
    assert client.bytes_received - before[1] == 100 + 17
    assert client.exchanges - before[2] == 1


def test_the_id_context_is_named_until_the_delegate_has_taken_it_for_fresh() -> None:
    network, client = pair()
    network.ask(client, b"one")
    network.ask(client, b"two")
    requests = [Message.parse_datagram(data) for _, upwards, data in network.travelled if upwards]
    assert [option_of(message).kid_context is not None for message in requests] == [True, True, False]
    assert {option_of(message).kid for message in requests} == {GIVEN.kid}


def test_a_delegate_that_lost_the_context_gets_the_same_message_with_its_id_context() -> None:
    """The same Partial IV and ciphertext: what was asked once cannot be done twice."""
    network, client = pair()
    network.ask(client, b"one")
    network.server = make_server(MemoryCredentials(GIVEN), seed=9)
    network.travelled.clear()
    assert network.ask(client, b"two").payload == b"terminal-1 /kx two"
    first, second, answer = (Message.parse_datagram(data) for _, upwards, data in network.travelled if upwards)
    assert option_of(first).kid_context is None
    assert option_of(second) == option_of(first)._replace(kid_context=option_of(answer).kid_context)
    assert first.payload == second.payload
    network.travelled.clear()
    network.ask(client, b"three")
    assert option_of(Message.parse_datagram(network.travelled[0][2])).kid_context is not None


@pytest.mark.parametrize("framing", list(Framing))
@pytest.mark.parametrize("size", [10, 3000])
def test_on_a_secure_path_the_client_says_who_it_is_and_nothing_is_protected(framing: Framing, size: int) -> None:
    """A4."""
    network = Network(make_server(None, plain=True, framing=framing))
    client = network.clients["remote"] = make_client(None, framing=framing, name="meter-7")
    assert network.ask(client, b"x" * size).payload == b"meter-7 /kx " + b"x" * size
    assert network.requests[0].terminal == "meter-7"
    assert b"xxxx" in network.travelled[0][2] + network.travelled[-1][2]


def test_a_delegate_that_does_not_know_the_context_either_way_is_not_asked_for_ever() -> None:
    network, client = pair()
    network.ask(client, b"one")
    exchange = client.request("/kx", b"two", now=network.now)
    client.receive(unprotected(sent(client), Code.UNAUTHORIZED), now=network.now)
    client.receive(unprotected(sent(client), Code.UNAUTHORIZED), now=network.now)
    assert client.transmit() == []
    client.expire(now=network.now + TransmissionParameters().refusal_wait)
    with pytest.raises(Refused):
        client.outcome(exchange)


# --- answers that nobody authenticated ---------------------------------------------------------------------


@pytest.mark.parametrize("code", [Code.UNAUTHORIZED, Code.BAD_REQUEST, Code.SERVICE_UNAVAILABLE, Code.CHANGED])
@pytest.mark.parametrize("kind", [Type.ACKNOWLEDGEMENT, Type.CONFIRMABLE, Type.NON_CONFIRMABLE])
def test_a_forged_answer_does_not_keep_the_true_one_away(code: int, kind: Type) -> None:
    network, client = pair()
    exchange = client.request("/kx", b"x", now=network.now)
    (data,) = client.transmit()
    client.receive(unprotected(Message.parse_datagram(data), code, kind), now=network.now)
    assert client.outcome(exchange) is None
    network._fly("terminal", True, data)
    assert network.run(client, exchange).payload == b"terminal-1 /kx x"


def test_a_forged_answer_does_not_stop_retransmission() -> None:
    client = make_client(GIVEN, parameters=TransmissionParameters(refusal_wait=60.0))
    client.request("/kx", b"x", now=0.0)
    request = sent(client)
    client.receive(unprotected(request, Code.UNAUTHORIZED), now=0.0)
    client.expire(now=5.0)
    assert sent(client) == request


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (Code.UNAUTHORIZED, Refused, "does not know this terminal or its key"),
        (Code.BAD_REQUEST, Refused, "does not know this terminal or its key"),
        (Code.SERVICE_UNAVAILABLE, Unavailable, "cannot answer now"),
        (Code.BAD_OPTION, Refused, "answers 4.02 without protection"),
    ],
)
def test_an_unprotected_error_is_believed_when_nothing_else_comes(
    code: int, error: type[LocumError], text: str
) -> None:
    client = make_client(GIVEN)
    exchange = client.request("/kx", b"x", now=0.0)
    client.receive(unprotected(sent(client), code), now=1.0)
    assert client.next_timeout() is not None
    client.expire(now=1.0 + TransmissionParameters().refusal_wait)
    with pytest.raises(error, match=text):
        client.outcome(exchange)
    assert client.next_timeout() is None


def test_a_terminal_with_a_wrong_key_is_refused_with_a_reason() -> None:
    network = Network(make_server(MemoryCredentials(GIVEN)))
    wrong = network.clients["wrong"] = make_client(Credential(GIVEN.kid, b"\x00", b"another key here"))
    with pytest.raises(Refused, match="enrol the terminal again"):
        network.ask(wrong, b"x")


def test_a_damaged_or_foreign_answer_is_ignored() -> None:
    network, client = pair()
    exchange = client.request("/kx", b"x", now=network.now)
    request = sent(client)
    for option in (b"", b"\xff", b"\x01\x00"):
        forged = Message(Code.CHANGED, request.token, ((9, option),), b"forged answer", Type.ACKNOWLEDGEMENT)
        client.receive(forged._replace(message_id=request.message_id).write_datagram(), now=network.now)
    client.receive(b"\x60\x45\x00\x00", now=network.now)
    client.receive(b"garbage", now=network.now)
    assert client.outcome(exchange) is None
    assert client.transmit() == []


def test_the_answer_to_one_request_is_not_taken_for_the_answer_to_another() -> None:
    network, client = pair(parameters=TransmissionParameters(nstart=2))
    network.ask(client, b"")
    exchanges = [client.request("/kx", payload, now=network.now) for payload in (b"one", b"two")]
    first, second = client.transmit()
    network.deliver(first, "terminal")
    ((answer, _),) = network.server.transmit()
    swapped = Message.parse_datagram(answer)._replace(
        token=Message.parse_datagram(second).token, message_id=Message.parse_datagram(second).message_id
    )
    client.receive(swapped.write_datagram(), now=network.now)
    assert [client.outcome(exchange) for exchange in exchanges] == [None, None]


# --- the message layer -------------------------------------------------------------------------------------


def test_a_request_without_answer_is_repeated_with_doubling_times_and_then_given_up() -> None:
    """RFC 7252 section 4.2: at most MAX_RETRANSMIT times, MAX_TRANSMIT_WAIT in all."""
    client = make_client(GIVEN)
    exchange = client.request("/kx", b"x", now=0.0)
    first = client.transmit()
    moments = []
    while (due := client.next_timeout()) is not None:
        moments.append(due)
        client.expire(now=due)
        assert client.transmit() in (first, [])
    assert 2.0 <= moments[0] <= 3.0
    assert [round((later - moments[0]) / moments[0]) for later in moments] == [0, 2, 6, 14, 30]
    with pytest.raises(TimedOut):
        client.outcome(exchange)


def test_a_delegate_that_acknowledges_and_never_answers_is_given_up() -> None:
    client = make_client(GIVEN)
    exchange = client.request("/kx", b"x", now=0.0)
    client.receive(b"\x60\x00" + sent(client).message_id.to_bytes(2, "big"), now=1.0)
    assert client.next_timeout() == 1.0 + TransmissionParameters().response_timeout
    client.expire(now=31.0)
    with pytest.raises(TimedOut):
        client.outcome(exchange)


def test_a_reset_is_believed_when_nothing_else_comes() -> None:
    client = make_client(GIVEN)
    exchange = client.request("/kx", b"x", now=0.0)
    client.receive(b"\x70\x00" + sent(client).message_id.to_bytes(2, "big"), now=0.0)
    assert client.outcome(exchange) is None
    client.expire(now=TransmissionParameters().refusal_wait)
    with pytest.raises(Unavailable, match="rejects"):
        client.outcome(exchange)


def test_no_more_requests_are_in_flight_than_nstart_allows() -> None:
    """RFC 7252 section 4.7."""
    client = make_client(GIVEN, parameters=TransmissionParameters(nstart=2))
    exchanges = [client.request("/kx", b"x", now=0.0) for _ in range(3)]
    assert len(client.transmit()) == 2
    client.cancel(exchanges[0])
    assert client.transmit() == []
    client.expire(now=0.0)
    assert len(client.transmit()) == 1


def test_what_is_under_way_is_bounded() -> None:
    client = make_client(GIVEN)
    for _ in range(client_module.MAXIMUM_EXCHANGES):
        client.request("/kx", b"", now=0.0)
    with pytest.raises(Unavailable):
        client.request("/kx", b"", now=0.0)


def test_pings_and_responses_to_nothing_are_reset_and_repeated_answers_acknowledged() -> None:
    network, client = pair()
    client.receive(b"\x40\x00\x00\x07", now=0.0)
    client.receive(b"\x40\x45\x00\x08", now=0.0)
    client.receive(b"\x40\x02\x00\x09", now=0.0)
    assert client.transmit() == [b"\x70\x00\x00\x07", b"\x70\x00\x00\x08", b"\x70\x00\x00\x09"]
    network.ask(client, b"")

    exchange = client.request("/kx", b"slow", now=network.now)
    (data,) = client.transmit()
    (request,) = network.server.receive(data, "terminal", now=network.now)
    network.server.expire(now=network.now + 1)
    network.server.respond(request, Code.CONTENT, b"late", now=network.now + 1)
    (acknowledgement, _), (answer, _) = network.server.transmit()
    client.receive(acknowledgement, now=network.now + 1)
    for _ in range(2):
        client.receive(answer, now=network.now + 1)
        assert client.transmit() == [b"\x60\x00" + answer[2:4]]
    reply = client.outcome(exchange)
    assert reply is not None
    assert reply.payload == b"late"


def test_a_cancelled_exchange_is_forgotten() -> None:
    network, client = pair()
    exchange = client.request("/kx", b"x", now=network.now)
    client.cancel(exchange)
    client.cancel(exchange)
    assert client.next_timeout() is None
    with pytest.raises(ValueError, match="no exchange"):
        client.outcome(exchange)
    assert network.ask(client, b"y").payload == b"terminal-1 /kx y"


def test_an_outcome_is_given_once_and_a_payload_never_shown() -> None:
    network, client = pair()
    exchange = client.request("/kx", b"secret", now=network.now)
    assert "secret" not in repr(network.run(client, exchange))
    with pytest.raises(ValueError, match="no exchange"):
        client.outcome(exchange)
    with pytest.raises(ValueError, match="more than 65536"):
        client.request("/kx", bytes(MAXIMUM_BODY + 1), now=network.now)


def test_when_the_network_says_that_nobody_is_there_everything_under_way_fails() -> None:
    network, client = pair()
    exchanges = [client.request("/kx", b"x", now=network.now) for _ in range(2)]
    client.disconnected("connection refused")
    for exchange in exchanges:
        with pytest.raises(Unavailable, match="connection refused"):
            client.outcome(exchange)
    client.transmit()
    assert network.ask(client, b"y").code == Code.CONTENT, "datagrams may find it again"


# --- challenges --------------------------------------------------------------------------------------------


def test_endless_challenges_end() -> None:
    network, client = pair()
    server = network.server
    server._contexts.admit = lambda *_: False  # type: ignore[method-assign, union-attr]
    with pytest.raises(Unavailable, match="never takes"):
        network.ask(client, b"x")
    assert client.exchanges == 1 + client_module.MAXIMUM_CHALLENGES


def test_an_authentic_answer_that_breaks_the_protocol_is_misbehaviour() -> None:
    network, client = pair()
    network.application = lambda request: (Code.CONTINUE, b"")
    with pytest.raises(Misbehaved):
        network.ask(client, b"x")


def test_authentic_errors_are_replies() -> None:
    network, client = pair()
    network.application = lambda request: (Code.NOT_FOUND, b"no such session")
    reply = network.ask(client, b"x")
    assert (reply.code, reply.payload) == (Code.NOT_FOUND, b"no such session")


# --- sequence numbers (RFC 8613 Appendix B.1.1) ------------------------------------------------------------


def numbers(made: Sender, count: int) -> list[tuple[bytes | None, int]]:
    return [(context.id_context, number) for context, number in (made.take() for _ in range(count))]


def test_numbers_are_reserved_before_they_are_used_and_never_used_again() -> None:
    store = MemoryStore()
    first = Sender(GIVEN, store, seeded(1))
    assert store.next == 0, "nothing is reserved before it is needed"
    assert numbers(first, 1) == [(store.id_context, 0)]
    assert store.next == sender.RESERVATION
    numbers(first, sender.RESERVATION)
    assert (store.next, store.reservations) == (2 * sender.RESERVATION, 2)
    assert numbers(Sender(GIVEN, store, seeded(1)), 1) == [(store.id_context, 2 * sender.RESERVATION)]


def test_without_a_store_every_client_works_in_a_context_of_its_own() -> None:
    taken = [numbers(Sender(GIVEN, None, seeded(seed)), 1)[0] for seed in range(3)]
    assert len({id_context for id_context, _ in taken}) == 3
    assert {number for _, number in taken} == {0}
    assert all(len(id_context or b"") == sender.ID_CONTEXT_LENGTH for id_context, _ in taken)


def test_a_store_that_cannot_be_read_is_done_without() -> None:
    store = MemoryStore()
    store.broken = True
    (id_context, number), *_ = numbers(Sender(GIVEN, store, seeded(1)), 1)
    assert id_context != store.id_context
    assert number == 0


def test_a_store_that_fails_later_is_left_before_a_number_is_used_that_it_does_not_know() -> None:
    store = MemoryStore()
    made = Sender(GIVEN, store, seeded(1))
    numbers(made, sender.RESERVATION)
    store.broken = True
    (id_context, number), *_ = numbers(made, 1)
    assert id_context != store.id_context
    assert number == 0
    store.broken = False
    assert numbers(made, 100)[-1] == (id_context, 100)
    assert store.next == sender.RESERVATION


def test_a_context_whose_numbers_are_used_up_is_followed_by_a_fresh_one() -> None:
    store = MemoryStore()
    store.next = MAXIMUM_SEQUENCE - 1
    made = Sender(GIVEN, store, seeded(1))
    taken = numbers(made, 3)
    assert taken[:2] == [(store.id_context, MAXIMUM_SEQUENCE - 1), (store.id_context, MAXIMUM_SEQUENCE)]
    assert taken[2][1] == 0
    assert taken[2][0] != store.id_context
    assert numbers(Sender(GIVEN, store, seeded(2)), 1)[0][1] == 0


# --- streams (RFC 8323) ------------------------------------------------------------------------------------


def test_a_request_too_large_for_an_unknown_peer_waits_for_its_capabilities() -> None:
    client = make_client(GIVEN, framing=Framing.STREAM)
    assert client.transmit() == [capabilities()]
    client.request("/kx", bytes(100), now=0.0)
    large = client.request("/kx", bytes(5000), now=0.0)
    assert len(client.transmit()) == 1
    client.receive(capabilities(), now=0.0)
    (data,) = client.transmit()
    assert len(data) > 5000
    assert client.outcome(large) is None


def test_a_stream_that_stays_silent_times_out() -> None:
    client = make_client(GIVEN, framing=Framing.STREAM)
    exchanges = [client.request("/kx", bytes(size), now=0.0) for size in (1, 5000)]
    assert client.next_timeout() == TransmissionParameters().response_timeout
    client.expire(now=TransmissionParameters().response_timeout)
    for exchange in exchanges:
        with pytest.raises(TimedOut):
            client.outcome(exchange)


@pytest.mark.parametrize(
    "data",
    [b"\x0f", Message(Code.CSM, b"", ((3, b""),)).write_stream(), Message(Code.RELEASE).write_stream()],
    ids=["malformed", "unknown capability", "released"],
)
def test_a_broken_stream_fails_what_is_under_way_and_closes(data: bytes) -> None:
    client = make_client(GIVEN, framing=Framing.STREAM)
    exchange = client.request("/kx", b"x", now=0.0)
    client.receive(data, now=0.0)
    assert client.closed
    with pytest.raises(Unavailable):
        client.outcome(exchange)
    with pytest.raises(Unavailable):
        client.request("/kx", b"x", now=0.0)


def test_a_ping_on_a_stream_is_answered() -> None:
    client = make_client(GIVEN, framing=Framing.STREAM)
    client.transmit()
    client.receive(Message(Code.PING, b"p").write_stream(), now=0.0)
    assert client.transmit() == [Message(Code.PONG, b"p").write_stream()]
