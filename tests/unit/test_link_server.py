"""The link's server: who is let in, what is answered without the application, and what one terminal cannot do."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from tests.support.link_network import (
    MemoryCredentials,
    MemoryStore,
    Network,
    credential,
    echo_back,
    make_client,
    make_server,
    pair,
    seeded,
)

from locum.errors import LocumError, Unavailable
from locum.link import contexts
from locum.link.blockwise import Block
from locum.link.coap import MAXIMUM_BODY, Code, Framing, Message, OptionNumber, StreamReader, Type
from locum.link.contexts import ContextLimits, ContextTable
from locum.link.exchange import TransmissionParameters
from locum.link.oscore import OscoreOption, SecurityContext, protect_request
from locum.link.server import IncomingRequest, Limits, Server

GIVEN = credential()
ID_CONTEXT = b"\x11\x22\x33\x44"
POST_KX = Message(Code.POST, b"", ((OptionNumber.URI_PATH, b"kx"),), b"hello")


class Terminal:
    """A terminal by hand: every message as the test wants it."""

    message_ids = itertools.count(1)

    def __init__(self, network: Network, number: int = 1, id_context: bytes = ID_CONTEXT) -> None:
        self.network = network
        self.remote = f"by hand {number}"
        self.context = SecurityContext.of_terminal(credential(number), id_context)

    def datagram(
        self, sequence: int, message: Message = POST_KX, *, named: bool = True, **fields: object
    ) -> bytes:
        protected, self.piv = protect_request(self.context, message, sequence, with_id_context=named)
        return protected._replace(token=b"T", message_id=next(self.message_ids), **fields).write_datagram()  # type: ignore[arg-type]

    def exchange(self, data: bytes) -> Message | None:
        """What the server says to one datagram."""
        self.network.deliver(data, self.remote)
        sent = [datagram for datagram, remote in self.network.server.transmit() if remote == self.remote]
        assert len(sent) <= 1
        return Message.parse_datagram(sent[0]) if sent else None

    def ask(self, sequence: int, message: Message = POST_KX, **fields: object) -> Message:
        """What the server says under protection."""
        response = self.exchange(self.datagram(sequence, message, **fields))  # type: ignore[arg-type]
        assert response is not None
        return self.open(response)

    def open(self, response: Message) -> Message:
        option = OscoreOption.parse(dict(response.options)[OptionNumber.OSCORE])
        return Message.parse_plaintext(self.context.open_response(self.piv, response.payload, piv=option.piv))

    def settle(self, sequence: int = 0) -> None:
        """Answer the challenge with `sequence` + 1."""
        echo = dict(self.ask(sequence).options)[OptionNumber.ECHO]
        assert self.ask(sequence + 1, with_echo(echo)).code == Code.CONTENT


def with_echo(echo: bytes) -> Message:
    return POST_KX._replace(options=(*POST_KX.options, (OptionNumber.ECHO, echo)))


def network(**arguments: object) -> Network:
    return Network(make_server(MemoryCredentials(GIVEN, credential(2)), **arguments))  # type: ignore[arg-type]


def settled(**arguments: object) -> tuple[Network, Terminal]:
    made = network(**arguments)
    terminal = Terminal(made)
    terminal.settle()
    return made, terminal


# --- freshness (RFC 8613 Appendix B.1.2) -------------------------------------------------------------------


def test_a_context_not_seen_before_is_challenged_and_then_served() -> None:
    made = network()
    terminal = Terminal(made)
    response = terminal.exchange(terminal.datagram(7))
    assert response is not None
    assert response.code == Code.CHANGED, "the true code is inside"
    option = OscoreOption.parse(dict(response.options)[OptionNumber.OSCORE])
    assert option.piv == b"\x00", "the challenge has a Partial IV of the delegate's own"
    challenge = terminal.open(response)
    assert challenge.code == Code.UNAUTHORIZED
    assert made.requests == [], "the application has not seen it"
    answer = terminal.ask(8, with_echo(dict(challenge.options)[OptionNumber.ECHO]))
    assert answer.payload == b"terminal-1 /kx hello"
    assert terminal.ask(9, named=False).payload == b"terminal-1 /kx hello", "now found by where it comes from"


def test_the_answer_to_a_fresh_request_uses_the_nonce_of_the_request() -> None:
    _, terminal = settled()
    response = terminal.exchange(terminal.datagram(2))
    assert response is not None
    assert response.options == ((OptionNumber.OSCORE, b""),)


def test_numbers_before_the_fresh_one_are_refused() -> None:
    made = network()
    terminal = Terminal(made)
    old = terminal.datagram(5)
    terminal.settle(6)
    response = terminal.exchange(old)
    assert response is not None
    assert (response.code, response.payload) == (Code.UNAUTHORIZED, b"Replay detected")
    assert len(made.requests) == 1


def test_a_wrong_or_late_echo_value_is_challenged_again() -> None:
    made = network()
    terminal = Terminal(made)
    first = dict(terminal.ask(0).options)[OptionNumber.ECHO]
    again = terminal.ask(1, with_echo(b"\x00" * 8))
    assert dict(again.options)[OptionNumber.ECHO] == first, "the same until it is used"
    made.now += contexts.CHALLENGE_LIFETIME + 1
    late = terminal.ask(2, with_echo(first))
    assert late.code == Code.UNAUTHORIZED
    assert dict(late.options)[OptionNumber.ECHO] != first
    assert made.requests == []


def test_the_request_that_answered_a_challenge_is_not_accepted_again_after_its_context_was_forgotten() -> None:
    made = network(limits=Limits(contexts=ContextLimits(contexts=1)))
    terminal = Terminal(made)
    echo = dict(terminal.ask(0).options)[OptionNumber.ECHO]
    answer = terminal.datagram(1, with_echo(echo))
    terminal.exchange(answer)
    Terminal(made, id_context=b"another process").settle()
    replayed = bytearray(answer)
    replayed[2:4] = b"\xff\xff"
    response = terminal.exchange(bytes(replayed))
    assert response is not None
    assert terminal.open(response).code == Code.UNAUTHORIZED
    assert len(made.requests) == 2


def test_a_restart_forgets_everything_but_the_numbers_already_used() -> None:
    source = MemoryCredentials(GIVEN)
    pivs = []
    for _ in range(2):
        made = Network(make_server(source))
        terminal = Terminal(made)
        response = terminal.exchange(terminal.datagram(0))
        assert response is not None
        pivs.append(OscoreOption.parse(dict(response.options)[OptionNumber.OSCORE]).piv)
    assert pivs == [b"\x00", (contexts.RESERVATION).to_bytes(2, "big")]


def test_servers_that_share_a_table_share_their_replay_windows() -> None:
    table = ContextTable(MemoryCredentials(GIVEN), random=seeded(3), limits=ContextLimits())
    datagrams = Network(Server(credentials=table, framing=Framing.DATAGRAM, random=seeded(4)))
    stream = Server(credentials=table, framing=Framing.STREAM, random=seeded(5))
    terminal = Terminal(datagrams)
    terminal.settle()
    message = Message.parse_datagram(terminal.datagram(2))
    terminal.exchange(message.write_datagram())
    assert stream.receive(message.write_stream(), "stream", now=1.0) == []
    reader = StreamReader()
    for data, _ in stream.transmit():
        reader.feed(data)
    assert (reader.next() or message).code == Code.CSM
    refused = reader.next()
    assert refused is not None
    assert refused.payload == b"Replay detected"


# --- refusals without protection (RFC 8613 section 8.2) ----------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"options": ()}, Code.UNAUTHORIZED, b"OSCORE is required here"),
        ({"options": ((9, b"\xff"),)}, Code.BAD_OPTION, b"Failed to decode COSE"),
        ({"options": ((9, b""),)}, Code.BAD_OPTION, b"Failed to decode COSE"),
        ({"options": ((9, b"\x01\x00"),)}, Code.BAD_OPTION, b"Failed to decode COSE"),
        ({"payload": b""}, Code.BAD_OPTION, b"Failed to decode COSE"),
        ({"code": Code.GET}, Code.METHOD_NOT_ALLOWED, b""),
        ({"options": ((9, b"\x09\x00\x77\x77"),)}, Code.UNAUTHORIZED, b"Security context not found"),
        ({"options": ((9, b"\x09\x00\x00\x01"),)}, Code.UNAUTHORIZED, b"Security context not found"),
        ({"options": ((9, b"\x19\x00\x28" + bytes(40) + b"\x00\x01"),)}, Code.UNAUTHORIZED, None),
        ({"options": ((9, b"\x19\x00\x01x\x00\x01"),)}, Code.BAD_REQUEST, b"Decryption failed"),
        ({"payload": b"not a ciphertext"}, Code.BAD_REQUEST, b"Decryption failed"),
        ({"options": ((9, b"\x09\x00\x00\x01"), (27, b""))}, Code.BAD_OPTION, None),
        ({"options": ((9, b"\x09\x00\x00\x01"), (9, b""))}, Code.BAD_OPTION, None),
        ({"options": ((9, b"\x09\x00\x00\x01"), (35, b"coap://elsewhere"))}, Code.BAD_OPTION, None),
    ],
)
def test_what_cannot_be_authenticated_is_refused_by_the_rfc(
    change: dict[str, object], code: Code, text: bytes | None
) -> None:
    made = network()
    terminal = Terminal(made)
    response = terminal.exchange(terminal.datagram(0, **change))
    assert response is not None
    assert response.code == code
    assert response.payload == text or text is None
    assert made.requests == []


def test_options_that_belong_inside_are_discarded_outside() -> None:
    """RFC 8613 section 8.2 step 1."""
    _, terminal = settled()
    data = terminal.datagram(2)
    message = Message.parse_datagram(data)
    outside = message._replace(options=(*message.options, (OptionNumber.URI_PATH, b"evil")))
    response = terminal.exchange(outside.write_datagram())
    assert response is not None
    assert terminal.open(response).payload == b"terminal-1 /kx hello"


@pytest.mark.parametrize("failing_at", ["find", "reserve"])
def test_a_failing_store_is_an_honest_5_03(failing_at: str) -> None:
    source = MemoryCredentials(GIVEN)
    made = Network(make_server(source))
    terminal = Terminal(made)
    if failing_at == "find":
        source.failure = Unavailable("database is locked")
    else:
        source.reserve = lambda kid, count: (_ for _ in ()).throw(Unavailable("disk full"))  # type: ignore[method-assign]
    response = terminal.exchange(terminal.datagram(0))
    assert response is not None
    assert (response.code, response.payload) == (Code.SERVICE_UNAVAILABLE, b"")


def test_a_terminal_that_was_removed_is_unknown_soon() -> None:
    source = MemoryCredentials(GIVEN)
    made = Network(make_server(source))
    terminal = Terminal(made)
    terminal.settle()
    del source.by_kid[GIVEN.kid]
    made.now += contexts.CREDENTIAL_LIFETIME + 1
    response = terminal.exchange(terminal.datagram(2))
    assert response is not None
    assert response.payload == b"Security context not found"


def test_a_replaced_key_takes_effect_soon_and_the_store_is_asked_rarely() -> None:
    source = MemoryCredentials(GIVEN)
    made = Network(make_server(source))
    terminal = Terminal(made)
    terminal.settle()
    lookups = source.lookups
    made.now += contexts.CREDENTIAL_LIFETIME + 1
    for sequence in range(2, 10):
        assert terminal.ask(sequence).code == Code.CONTENT
    assert source.lookups == lookups + 1
    source.by_kid[GIVEN.kid] = ("terminal-1", replace(GIVEN, secret=b"another key here"))
    made.now += contexts.CREDENTIAL_LIFETIME + 1
    response = terminal.exchange(terminal.datagram(10))
    assert response is not None
    assert response.payload == b"Decryption failed"


# --- refusals under protection -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (POST_KX._replace(code=Code.GET), Code.METHOD_NOT_ALLOWED),
        (POST_KX._replace(options=((17, b"\x3c"),)), Code.BAD_OPTION),
        (POST_KX._replace(options=((OptionNumber.URI_PATH, b"\xff"),)), Code.BAD_OPTION),
        (POST_KX._replace(options=((OptionNumber.BLOCK1, b"\x0f"),)), Code.BAD_REQUEST),
        (POST_KX._replace(options=((OptionNumber.BLOCK1, b"\x0e"),)), Code.BAD_REQUEST),
        (POST_KX._replace(options=((OptionNumber.BLOCK1, b"\x16"),)), Code.REQUEST_ENTITY_INCOMPLETE),
        (POST_KX._replace(options=((OptionNumber.BLOCK2, b"\x16"),)), Code.REQUEST_ENTITY_INCOMPLETE),
    ],
)
def test_what_is_authentic_but_not_understood_is_refused_under_protection(message: Message, code: Code) -> None:
    _, terminal = settled()
    assert terminal.ask(2, message).code == code
    assert terminal.ask(3).code == Code.CONTENT, "and the terminal goes on"


def test_what_is_authentic_but_no_message_is_refused() -> None:
    made, terminal = settled()
    ciphertext = terminal.context.seal_request(b"\x02", b"\x02\xff")
    message = Message.parse_datagram(terminal.datagram(2))._replace(payload=ciphertext)
    response = terminal.exchange(message.write_datagram())
    assert response is not None
    assert (response.code, response.payload) == (Code.BAD_REQUEST, b"no CoAP message inside")
    assert len(made.requests) == 1


def test_a_client_that_names_a_block_size_gets_no_larger_block() -> None:
    """RFC 7959 section 2.4."""
    made, terminal = settled()
    made.application = lambda request: (Code.CONTENT, bytes(range(100)))
    received = b""
    for number in range(4):
        option = (int(OptionNumber.BLOCK2), Block(number, False, 1).write())
        response = terminal.ask(2 + number, POST_KX._replace(options=(*POST_KX.options, option)))
        assert Block.parse(dict(response.options)[OptionNumber.BLOCK2], Framing.DATAGRAM) == (
            number,
            number < 3,
            1,
        )
        received += response.payload
    assert received == bytes(range(100))
    assert len(made.requests) == 2, "the application was asked once"


def test_a_body_that_announces_too_much_is_refused_at_its_first_block() -> None:
    _, terminal = settled()
    options = (OptionNumber.BLOCK1, Block(0, True, 6).write()), (OptionNumber.SIZE1, b"\x01\x00\x01")
    refused = terminal.ask(2, Message(Code.POST, b"", options, bytes(1024)))
    assert refused.code == Code.REQUEST_ENTITY_TOO_LARGE
    assert dict(refused.options)[OptionNumber.SIZE1] == b"\x01\x00\x00"


def test_a_body_that_grows_too_much_is_refused_at_the_limit() -> None:
    made, terminal = settled()
    blocks = MAXIMUM_BODY // 1024
    for number in range(blocks + 1):
        option = (int(OptionNumber.BLOCK1), Block(number, True, 6).write())
        code = terminal.ask(2 + number, Message(Code.POST, b"", (option,), bytes(1024))).code
        assert code == (Code.CONTINUE if number < blocks else Code.REQUEST_ENTITY_TOO_LARGE)
    assert len(made.requests) == 1


def test_unfinished_bodies_are_bounded_for_each_terminal_and_forgotten_in_time() -> None:
    made, terminal = settled(limits=Limits(bodies_per_terminal=2, body_lifetime=60.0))
    other = Terminal(made, 2)
    other.settle()

    def block(number: int, path: bytes) -> Message:
        options = (OptionNumber.URI_PATH, path), (int(OptionNumber.BLOCK1), Block(number, number == 0, 0).write())
        return Message(Code.POST, b"", options, bytes(16))

    assert other.ask(2, block(0, b"mine")).code == Code.CONTINUE
    for index, path in enumerate((b"a", b"b", b"c")):
        assert terminal.ask(2 + index, block(0, path)).code == Code.CONTINUE
    assert terminal.ask(5, block(1, b"a")).code == Code.REQUEST_ENTITY_INCOMPLETE
    assert terminal.ask(6, block(1, b"b")).code == Code.CONTENT
    assert other.ask(3, block(1, b"mine")).code == Code.CONTENT
    assert made.server.next_timeout() is not None
    made.now += 61
    made.server.expire(now=made.now)
    assert made.server.next_timeout() is None
    assert terminal.ask(7, block(1, b"c")).code == Code.REQUEST_ENTITY_INCOMPLETE


# --- the message layer -------------------------------------------------------------------------------------


def test_a_repeated_request_gets_the_same_answer_and_is_performed_once() -> None:
    """RFC 7252 section 4.2."""
    made, terminal = settled()
    data = terminal.datagram(2)
    first = terminal.exchange(data)
    assert first is not None
    assert terminal.exchange(data) == first
    assert len(made.requests) == 2


def test_answers_are_kept_for_a_bounded_number_of_requests_only() -> None:
    _, terminal = settled(limits=Limits(exchanges=2))
    data = terminal.datagram(2)
    terminal.exchange(data)
    for sequence in range(3, 5):
        terminal.ask(sequence)
    response = terminal.exchange(data)
    assert response is not None
    assert response.payload == b"Replay detected", "forgotten, but not performed again"


def test_an_application_that_takes_its_time_is_covered_by_an_acknowledgement() -> None:
    """RFC 7252 section 5.2.2: acknowledged, then a confirmable answer, repeated until it is acknowledged."""
    made, terminal = settled()
    data = terminal.datagram(2)
    (request,) = made.server.receive(data, terminal.remote, now=made.now)
    assert made.server.transmit() == []
    assert made.server.receive(data, terminal.remote, now=made.now) == []
    assert made.server.transmit() == [], "a repetition does not hurry it"
    due = made.server.next_timeout()
    assert due == made.now + TransmissionParameters().acknowledgement_delay
    made.server.expire(now=due)
    (acknowledgement,) = made.server.transmit()
    assert acknowledgement[0] == b"\x60\x00" + data[2:4]
    made.server.receive(data, terminal.remote, now=made.now)
    assert made.server.transmit() == [acknowledgement]

    made.server.respond(request, *echo_back(request), now=due)
    (answer,) = made.server.transmit()
    message = Message.parse_datagram(answer[0])
    assert (message.type, message.token) == (Type.CONFIRMABLE, b"T")
    assert terminal.open(message).payload == b"terminal-1 /kx hello"
    again = made.server.next_timeout()
    assert again is not None
    made.server.expire(now=again)
    assert made.server.transmit() == [answer]
    made.server.receive(b"\x60\x00" + answer[0][2:4], terminal.remote, now=again)
    assert made.server.next_timeout() is None


def test_an_answer_that_is_never_acknowledged_is_given_up() -> None:
    made, terminal = settled()
    (request,) = made.server.receive(terminal.datagram(2), terminal.remote, now=made.now)
    made.server.expire(now=made.now + 1)
    made.server.respond(request, Code.CHANGED, b"", now=made.now + 1)
    sent = 0
    while (due := made.server.next_timeout()) is not None:
        made.server.expire(now=due)
        sent += len(made.server.transmit())
    assert sent == 2 + TransmissionParameters().max_retransmit


def test_a_request_is_answered_once() -> None:
    made, terminal = settled()
    (request,) = made.server.receive(terminal.datagram(2), terminal.remote, now=made.now)
    with pytest.raises(ValueError, match="more than 65536"):
        made.server.respond(request, Code.CHANGED, bytes(MAXIMUM_BODY + 1), now=made.now)
    made.server.respond(request, Code.CHANGED, b"", now=made.now)
    with pytest.raises(ValueError, match="has been answered"):
        made.server.respond(request, Code.CHANGED, b"", now=made.now)


def test_a_non_confirmable_request_is_answered_in_kind_and_repetitions_are_ignored() -> None:
    _, terminal = settled()
    data = terminal.datagram(2, type=Type.NON_CONFIRMABLE)
    response = terminal.exchange(data)
    assert response is not None
    assert response.type == Type.NON_CONFIRMABLE
    assert terminal.open(response).code == Code.CONTENT
    assert terminal.exchange(data) is None


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"\x40\x00\x12\x34", b"\x70\x00\x12\x34"),
        (b"\x40\x45\x12\x34", b"\x70\x00\x12\x34"),
        (b"\x40\x20\x12\x34", b"\x70\x00\x12\x34"),
        (b"\x40\x02\x12\x34\xff", b"\x70\x00\x12\x34"),
        (b"\x50\x02\x12\x34\xff", None),
        (b"\x50\x45\x12\x34", None),
        (b"\x60\x00\x12\x34", None),
        (b"\x70\x00\x12\x34", None),
        (b"\x60\x02\x12\x34", None),
        (b"\xc0\x02\x12\x34", None),
        (b"\x16\x03\x01\x00\x2f", None),
        (b"", None),
    ],
)
def test_garbage_is_reset_or_met_with_silence(data: bytes, answer: bytes | None) -> None:
    """RFC 7252 sections 4.2 and 4.3: a ping, responses to nothing, reserved codes, malformed messages."""
    made, terminal = settled()
    assert made.server.receive(data, "somebody", now=made.now) == []
    assert made.server.transmit() == ([] if answer is None else [(answer, "somebody")])
    assert terminal.ask(2).code == Code.CONTENT


# --- several terminals (A12) -------------------------------------------------------------------------------


def test_two_hundred_terminals_at_once_each_get_their_own_answer() -> None:
    numbers = range(1, 201)
    made = Network(make_server(MemoryCredentials(*map(credential, numbers))))
    asked = {}
    for number in numbers:
        client = made.clients[number] = make_client(credential(number), seed=number)
        asked[number] = client.request("/kx", bytes((number % 256,)), now=made.now)
    while made.step():
        pass
    for number, exchange in asked.items():
        reply = made.clients[number].outcome(exchange)
        assert reply is not None
        assert reply.payload == f"terminal-{number} /kx ".encode() + bytes((number % 256,))


def test_many_contexts_of_one_terminal_do_not_push_out_those_of_another() -> None:
    made = network(limits=Limits(contexts=ContextLimits(contexts=4, challenges=4)))
    victim = Terminal(made, 2)
    victim.settle()
    for index in range(20):
        flooding = Terminal(made, 1, id_context=bytes((index,)) * 8)
        flooding.ask(0)
        flooding.settle(1)
    assert victim.ask(2).code == Code.CONTENT


def test_terminals_remembered_are_bounded_and_come_back_by_a_challenge() -> None:
    made = network(limits=Limits(contexts=ContextLimits(terminals=1)))
    first, second = Terminal(made, 1), Terminal(made, 2)
    first.settle()
    second.settle()
    assert first.ask(2).code == Code.UNAUTHORIZED
    first.settle(3)


def test_unanswered_challenges_are_bounded() -> None:
    made = network(limits=Limits(contexts=ContextLimits(challenges=1)))
    first, second = Terminal(made, 1, id_context=b"first"), Terminal(made, 1, id_context=b"second")
    echo = dict(first.ask(0).options)[OptionNumber.ECHO]
    second.ask(0)
    assert first.ask(1, with_echo(echo)).code == Code.UNAUTHORIZED


def test_a_context_is_found_by_its_stream_until_that_ends() -> None:
    source = MemoryCredentials(GIVEN)
    terminal = Terminal(Network(make_server(source)))
    server = make_server(source, framing=Framing.STREAM)

    def ask(sequence: int, message: Message = POST_KX, *, named: bool = True) -> Message:
        data = Message.parse_datagram(terminal.datagram(sequence, message, named=named)).write_stream()
        for request in server.receive(data, "stream", now=1.0):
            server.respond(request, Code.CHANGED, b"", now=1.0)
        reader = StreamReader()
        reader.feed(server.transmit()[-1][0])
        response = reader.next()
        assert response is not None
        return response

    echo = dict(terminal.open(ask(0)).options)[OptionNumber.ECHO]
    assert terminal.open(ask(1, with_echo(echo))).code == Code.CHANGED
    assert terminal.open(ask(2, named=False)).code == Code.CHANGED
    server.disconnected("stream")
    assert ask(3, named=False).payload == b"Security context not found"


def test_remotes_remembered_are_bounded_and_the_id_context_finds_the_way_back() -> None:
    made = network(limits=Limits(contexts=ContextLimits(bindings=1)))
    first, second = Terminal(made, 1), Terminal(made, 2)
    first.settle()
    second.settle()
    response = first.exchange(first.datagram(2, named=False))
    assert response is not None
    assert response.payload == b"Security context not found"
    assert first.ask(3).code == Code.CONTENT


# --- the plain endpoint (A4) -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "name"),
    [((b"t=meter-7",), "meter-7"), ((b"x=1", b"t=m"), "m"), ((), ""), ((b"t=" + bytes(65),), "")],
)
def test_a_plain_endpoint_takes_the_name_that_is_claimed(query: tuple[bytes, ...], name: str) -> None:
    server = make_server(None, plain=True)
    options = ((OptionNumber.URI_PATH, b"kx"), *((int(OptionNumber.URI_QUERY), value) for value in query))
    (request,) = server.receive(Message(Code.POST, b"", options, b"secret").write_datagram(), "remote", now=1.0)
    assert (request.terminal, request.path, request.payload) == (name, "/kx", b"secret")
    assert "secret" not in repr(request), "payloads carry secrets"


def test_a_plain_endpoint_without_credentials_speaks_no_oscore() -> None:
    server = make_server(None, plain=True)
    terminal = Terminal(network())
    assert server.receive(terminal.datagram(0), "remote", now=1.0) == []
    ((answer, _),) = server.transmit()
    assert Message.parse_datagram(answer).code == Code.BAD_OPTION


def test_a_protected_endpoint_takes_no_name_from_a_query() -> None:
    _, terminal = settled()
    message = POST_KX._replace(options=(*POST_KX.options, (OptionNumber.URI_QUERY, b"t=somebody-else")))
    assert terminal.ask(2, message).payload == b"terminal-1 /kx hello"


# --- streams (RFC 8323) ------------------------------------------------------------------------------------


def test_a_stream_begins_with_capabilities_and_answers_a_ping() -> None:
    server = make_server(None, plain=True, framing=Framing.STREAM)
    assert server.receive(Message(Code.PING, b"p").write_stream(), "one", now=1.0) == []
    reader = StreamReader()
    for data, _ in server.transmit():
        reader.feed(data)
    first, second = reader.next(), reader.next()
    assert first is not None
    assert second is not None
    assert (first.code, second.code, second.token) == (Code.CSM, Code.PONG, b"p")


@pytest.mark.parametrize(
    "broken",
    [b"\x0f", Message(Code.CSM, b"", ((3, b""),)).write_stream(), Message(Code.ABORT).write_stream()],
    ids=["malformed", "unknown capability", "aborted"],
)
def test_a_broken_stream_raises_after_what_came_before_it_and_harms_no_other(broken: bytes) -> None:
    server = make_server(None, plain=True, framing=Framing.STREAM)
    good = POST_KX.write_stream()
    (request,) = server.receive(good + broken, "one", now=1.0)
    assert isinstance(request, IncomingRequest)
    assert Message(Code.ABORT).write_stream()[1:2] in server.transmit()[-1][0]
    with pytest.raises(LocumError):
        server.receive(good, "one", now=1.0)
    with pytest.raises(LocumError):
        server.receive(broken, "two", now=1.0)
    assert len(server.receive(good, "three", now=1.0)) == 1
    server.disconnected("one")
    assert len(server.receive(good, "one", now=1.0)) == 1


def test_streams_are_bounded() -> None:
    server = make_server(None, plain=True, framing=Framing.STREAM, limits=Limits(connections=1))
    server.receive(POST_KX.write_stream(), "one", now=1.0)
    with pytest.raises(Unavailable):
        server.receive(POST_KX.write_stream(), "two", now=1.0)
    server.disconnected("one")
    server.receive(POST_KX.write_stream(), "two", now=1.0)


def test_a_response_beyond_what_a_stream_takes_goes_in_blocks() -> None:
    made, client = pair(framing=Framing.STREAM, store=MemoryStore())
    made.application = lambda request: (Code.CONTENT, bytes(3000))
    client.transmit()
    client._emit(Message(Code.CSM, b"", ((2, b"\x04\x80"),)).write_stream())
    assert made.ask(client, b"x").payload == bytes(3000)
    assert client.exchanges == 1 + 1 + 2, "the challenge, and three blocks"
