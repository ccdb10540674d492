"""Every handshake message, record type, alert and end of stream at every state of the server.

Exhaustive: what is not due ends the connection with the right alert and a typed error, whatever state it comes in.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support import tls_script
from tests.support.tls_script import TLS12, TLS13, raw_message, record
from tests.support.tls_server_script import SCRIPTS, Conversation, Recording, Script, recorded

from locum.tls import messages12, messages13
from locum.tls.alerts import AlertDescription, AlertLevel, AlertReceived, Truncated, UnexpectedMessage
from locum.tls.connection import CloseReceived, HandshakeComplete
from locum.tls.messages import CertificateVerify, Finished, serialize
from locum.tls.registry import ContentType, HandshakeType

UNEXPECTED = AlertDescription.UNEXPECTED_MESSAGE

#: Which types may come where the script's next step is this one; after the last one it is nothing.
DUE = {
    "client_hello": {HandshakeType.CLIENT_HELLO},
    "second_client_hello": {HandshakeType.CLIENT_HELLO},
    "certificate": {HandshakeType.CERTIFICATE},
    "client_key_exchange": {HandshakeType.CLIENT_KEY_EXCHANGE},
    "certificate_verify": {HandshakeType.CERTIFICATE_VERIFY},
    "change_cipher_spec": set[HandshakeType](),
    "finished": {HandshakeType.FINISHED},
}
DONE = {TLS13: {HandshakeType.KEY_UPDATE}, TLS12: {HandshakeType.CLIENT_HELLO}}

STATES = [(script, played) for script in SCRIPTS for played in range(len(script.steps) + 1)]


def name_of(state: tuple[Script, int]) -> str:
    script, played = state
    return f"{script.name} before {next_step(script, played) or 'data'}"


def next_step(script: Script, played: int) -> str:
    """The step that is due, or nothing once the handshake is complete."""
    return script.steps[played] if played < len(script.steps) else ""


def due(script: Script, played: int) -> set[HandshakeType]:
    """The handshake types that may come in this state."""
    step = next_step(script, played)
    return DUE[step] if step else DONE[script.version]


def every_message(script: Script) -> Iterator[tuple[int, bytes]]:
    """One well-formed message of every type in both versions' forms, and types that nobody knows."""
    messages = []
    for name in ("1.3", "1.2 ECDHE"):
        talk = tls_script.Conversation(tls_script.BY_NAME[name])
        steps = ("server_hello", "certificate", "certificate_request", "new_session_ticket")
        messages += [talk.message(step) for step in steps]
    messages += [
        talk.message("encrypted_extensions"),
        talk.message("certificate_status"),
        talk.message("server_key_exchange"),
        Conversation(script).message("client_hello"),
        CertificateVerify(scheme=0x0804, signature=b"s"),
        Finished(verify_data=bytes(12 if script.version is TLS12 else 32)),
        messages12.HelloRequest(),
        messages12.ServerHelloDone(),
        messages12.ClientKeyExchange(body=b"\x01\x02"),
        messages13.KeyUpdate(update_requested=False),
    ]
    for message in messages:
        yield message.type, serialize(message)
    for code in (3, HandshakeType.END_OF_EARLY_DATA, 21, 23, 67, HandshakeType.MESSAGE_HASH, 255):
        yield code, raw_message(code, b"")


def expect_end(talk: Conversation, data: bytes) -> None:
    """`data` ends the connection with unexpected_message, for good."""
    done = talk.server.handshake_complete
    with pytest.raises(UnexpectedMessage) as caught:
        talk.deliver(data)
    assert talk.last_alert == UNEXPECTED
    assert talk.server.pending is None
    assert talk.server.handshake_complete == done
    with pytest.raises(UnexpectedMessage) as again:
        talk.server.receive_data(b"more")
    assert again.value is caught.value
    assert talk.server.data_to_send() == b""


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_a_message_out_of_turn_ends_the_handshake_at_every_state_of_the_server(state: tuple[Script, int]) -> None:
    script, played = state
    tried = 0
    for code, message in every_message(script):
        if code in due(script, played):
            continue
        tried += 1
        talk = Conversation(script).play(played)
        expect_end(talk, talk.seal(ContentType.HANDSHAKE, message))
    assert tried > 15


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_application_data_before_the_end_of_the_servers_handshake_is_refused(state: tuple[Script, int]) -> None:
    script, played = state
    talk = Conversation(script).play(played)
    data = talk.seal(ContentType.APPLICATION_DATA, b"data")
    if next_step(script, played):
        expect_end(talk, data)
    else:
        talk.deliver(data)
        assert talk.last_alert is None


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_change_cipher_spec_is_dropped_or_refused_by_the_server_as_the_version_wants(
    state: tuple[Script, int],
) -> None:
    script, played = state
    step = next_step(script, played)
    talk = Conversation(script).play(played)
    data = record(ContentType.CHANGE_CIPHER_SPEC, b"\x01")
    if script.version is TLS13 and step and played:
        talk.deliver(data)
        for name in script.steps[played:]:
            talk.deliver(talk.step(name))
        assert talk.server.handshake_complete
    elif script.version is TLS13 or not played:
        # RFC 8446 section 5: it may come after the first ClientHello, and not after the Finished.
        expect_end(talk, data)
    elif step == "change_cipher_spec":
        talk.deliver(talk.step(step))
        assert talk.last_alert is None
    else:
        expect_end(talk, talk.seal(ContentType.CHANGE_CIPHER_SPEC, b"\x01"))


@pytest.mark.parametrize("state", STATES, ids=name_of)
@pytest.mark.parametrize("content", [b"\x00", b"\x02", b"\x01\x01"])
def test_a_change_cipher_spec_of_other_content_is_refused_by_the_server(
    state: tuple[Script, int], content: bytes
) -> None:
    script, played = state
    talk = Conversation(script).play(played)
    if script.version is TLS13:
        expect_end(talk, record(ContentType.CHANGE_CIPHER_SPEC, content))
    else:
        expect_end(talk, talk.seal(ContentType.CHANGE_CIPHER_SPEC, content))


@pytest.mark.parametrize("state", STATES, ids=name_of)
@pytest.mark.parametrize("level", AlertLevel, ids=lambda level: level.name.lower())
def test_an_alert_at_any_state_of_the_server_ends_the_connection_and_is_not_answered(
    state: tuple[Script, int], level: AlertLevel
) -> None:
    script, played = state
    # TLS 1.3 has no warnings; before the version is known there may be some.
    warning = level is AlertLevel.WARNING and (script.version is TLS12 or not played)
    for alert in AlertDescription:
        talk = Conversation(script).play(played)
        complete, sent = talk.server.handshake_complete, talk.sent
        data = talk.seal(ContentType.ALERT, bytes((level, alert)))
        if alert is AlertDescription.CLOSE_NOTIFY and complete:
            talk.deliver(data)
            assert talk.events[-1] == CloseReceived()
        elif alert is AlertDescription.USER_CANCELED or (warning and alert is not AlertDescription.CLOSE_NOTIFY):
            talk.deliver(data)
            for name in script.steps[played:]:
                talk.deliver(talk.step(name))
            assert talk.server.handshake_complete
        else:
            with pytest.raises(AlertReceived, match=alert.name.lower()) as caught:
                talk.deliver(data)
            assert caught.value.description == alert
            assert talk.sent == sent
            assert talk.server.handshake_complete == complete


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_the_end_of_the_stream_is_a_truncation_at_every_state_of_the_server(state: tuple[Script, int]) -> None:
    script, played = state
    talk = Conversation(script).play(played)
    with pytest.raises(Truncated, match="without close_notify"):
        talk.end_of_stream()
    assert talk.server.data_to_send() == b""


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_the_end_of_the_clients_stream_after_any_byte_is_a_truncation(script: Script) -> None:
    stream = b"".join(recorded(script))
    for end in range(len(stream)):
        talk = Recording(script)
        talk.deliver(stream[:end])
        assert not talk.server.handshake_complete
        with pytest.raises(Truncated):
            talk.end_of_stream()


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
@pytest.mark.parametrize("chunk", [1, 2, 7, 1000])
def test_the_servers_handshake_does_not_depend_on_how_the_clients_bytes_are_cut(
    script: Script, chunk: int
) -> None:
    pieces = recorded(script)
    whole = Recording(script)
    for piece in pieces:
        whole.deliver(piece)
    talk = Recording(script)
    for piece in pieces:
        talk.deliver(piece, chunk=chunk)
    assert talk.server.handshake_complete
    assert talk.sent == whole.sent


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_bytes_that_are_no_tls_are_refused_at_every_state_of_the_server(state: tuple[Script, int]) -> None:
    script, played = state
    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"SSH-2.0-x\r\n",
        bytes(16),
        b"\x80\x2e\x01\x03\x01" * 4,
        b"\x18\x03\x03\x00\x01x",
    ):
        talk = Conversation(script).play(played)
        expect_end(talk, garbage)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_a_whole_script_ends_in_one_complete_handshake_of_the_server(script: Script) -> None:
    talk = Conversation(script).play()
    assert sum(isinstance(event, HandshakeComplete) for event in talk.events) == 1
    assert talk.alerts == []
