"""Every handshake message, record type, alert and end of stream at every state of the client.

Exhaustive: what is not due ends the connection with the right alert and a typed error, whatever state it comes in.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from tests.support.tls_script import (
    SCRIPTS,
    TLS12,
    TLS13,
    Conversation,
    Recording,
    Script,
    raw_message,
    record,
    recorded,
)

from locum.tls import messages12, messages13
from locum.tls.alerts import AlertDescription, AlertLevel, AlertReceived, Truncated, UnexpectedMessage
from locum.tls.connection import CloseReceived, HandshakeComplete
from locum.tls.extensions import Extensions
from locum.tls.messages import CertificateVerify, Finished, serialize
from locum.tls.registry import ContentType, HandshakeType

UNEXPECTED = AlertDescription.UNEXPECTED_MESSAGE

#: Which types may come where the script's next step is this one (a step that may be left out lets the next in).
DUE_13 = {
    "hello_retry_request": {HandshakeType.SERVER_HELLO},
    "server_hello": {HandshakeType.SERVER_HELLO},
    "encrypted_extensions": {HandshakeType.ENCRYPTED_EXTENSIONS},
    "certificate_request": {HandshakeType.CERTIFICATE_REQUEST, HandshakeType.CERTIFICATE},
    "certificate": {HandshakeType.CERTIFICATE, HandshakeType.CERTIFICATE_REQUEST},
    "certificate_verify": {HandshakeType.CERTIFICATE_VERIFY},
    "finished": {HandshakeType.FINISHED},
    "": {HandshakeType.NEW_SESSION_TICKET, HandshakeType.KEY_UPDATE},
}
DUE_12 = {
    "server_hello": {HandshakeType.SERVER_HELLO},
    "certificate": {HandshakeType.CERTIFICATE},
    "certificate_status": {HandshakeType.CERTIFICATE_STATUS, HandshakeType.SERVER_KEY_EXCHANGE},
    "server_key_exchange": {HandshakeType.SERVER_KEY_EXCHANGE},
    "certificate_request": {HandshakeType.CERTIFICATE_REQUEST, HandshakeType.SERVER_HELLO_DONE},
    "server_hello_done": {HandshakeType.SERVER_HELLO_DONE},
    "new_session_ticket": {HandshakeType.NEW_SESSION_TICKET},
    "change_cipher_spec": set(),
    "finished": {HandshakeType.FINISHED},
    "": set(),
}
DUE_RSA = {
    "certificate_status": {
        HandshakeType.CERTIFICATE_STATUS,
        HandshakeType.CERTIFICATE_REQUEST,
        HandshakeType.SERVER_HELLO_DONE,
    },
    "server_hello_done": {HandshakeType.SERVER_HELLO_DONE, HandshakeType.CERTIFICATE_REQUEST},
}

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
    if script.version is TLS13:
        # Once a CertificateRequest has come there is no second one.
        return DUE_13[step] - (
            {HandshakeType.CERTIFICATE_REQUEST} if "certificate_request" in script.steps[:played] else set()
        )
    allowed = {**DUE_12, **(DUE_RSA if script.name == "1.2 RSA" else {})}[step]
    if step not in ("server_hello", "change_cipher_spec"):
        # RFC 5246 section 7.4.1.1: ignored while negotiating, refused with a warning afterwards.
        allowed = allowed | {HandshakeType.HELLO_REQUEST}
    return allowed


def every_message(script: Script) -> Iterator[tuple[int, bytes]]:
    """One well-formed message of every type in both versions' forms, and types that nobody knows."""
    talk = Conversation(script)
    other = Conversation(next(s for s in SCRIPTS if s.version is not script.version))
    steps = ("certificate", "certificate_request", "new_session_ticket", "server_hello")
    messages = [talk.message(step) for step in steps] + [other.message(step) for step in steps]
    if script.version is TLS13:
        messages.append(talk.message("hello_retry_request"))
    messages += [
        talk.message("encrypted_extensions"),
        talk.message("certificate_status"),
        talk.message("server_key_exchange"),
        CertificateVerify(scheme=0x0804, signature=b"s"),
        Finished(verify_data=bytes(12 if script.version is TLS12 else 32)),
        messages12.HelloRequest(),
        messages12.ServerHelloDone(),
        messages12.ClientKeyExchange(body=b"\x01\x02"),
        messages13.KeyUpdate(update_requested=False),
        messages13.EncryptedExtensions(extensions=Extensions()),
    ]
    assert talk.hello is not None
    messages.append(talk.hello)
    for message in messages:
        yield message.type, serialize(message)
    for code in (3, HandshakeType.END_OF_EARLY_DATA, 21, 23, 67, HandshakeType.MESSAGE_HASH, 255):
        yield code, raw_message(code, b"")


def expect_end(talk: Conversation, data: bytes, alert: AlertDescription = UNEXPECTED) -> None:
    """`data` ends the connection with this alert, for good."""
    done = talk.client.handshake_complete
    with pytest.raises(UnexpectedMessage) as caught:
        talk.deliver(data)
    assert talk.last_alert == alert
    assert talk.client.pending is None
    assert talk.client.handshake_complete == done
    with pytest.raises(UnexpectedMessage) as again:
        talk.client.receive_data(b"more")
    assert again.value is caught.value
    assert talk.client.data_to_send() == b""


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_a_message_out_of_turn_ends_the_handshake_at_every_state(state: tuple[Script, int]) -> None:
    script, played = state
    allowed = due(script, played)
    tried = 0
    for code, message in every_message(script):
        if code in allowed:
            continue
        tried += 1
        talk = Conversation(script).play(played)
        expect_end(talk, talk.seal(ContentType.HANDSHAKE, message))
    assert tried > 15


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_the_types_that_are_said_to_be_due_are_not_refused_for_their_turn(state: tuple[Script, int]) -> None:
    script, played = state
    step = next_step(script, played)
    for code, message in every_message(script):
        if code not in due(script, played) or code == HandshakeType.FINISHED:
            continue
        talk = Conversation(script).play(played)
        try:
            talk.deliver(talk.seal(ContentType.HANDSHAKE, message))
        except UnexpectedMessage as error:
            # Only a second HelloRetryRequest, which has the type of the ServerHello that is due.
            assert step == "server_hello" and "second HelloRetryRequest" in str(error)
        except Exception as error:
            assert "is due" not in str(error)


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_application_data_before_the_end_of_the_handshake_is_refused(state: tuple[Script, int]) -> None:
    script, played = state
    talk = Conversation(script).play(played)
    if next_step(script, played):
        expect_end(talk, talk.seal(ContentType.APPLICATION_DATA, b"data"))
    else:
        talk.deliver(talk.seal(ContentType.APPLICATION_DATA, b"data"))
        assert talk.last_alert is None


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_change_cipher_spec_is_dropped_or_refused_as_the_version_wants(state: tuple[Script, int]) -> None:
    script, played = state
    step = next_step(script, played)
    data = record(ContentType.CHANGE_CIPHER_SPEC, b"\x01")
    talk = Conversation(script).play(played)
    if script.version is TLS12 and step == "server_hello":
        # Whether it is too early is known only when the version is.
        talk.deliver(data)
        expect_end(talk, talk.step("server_hello"))
    elif script.version is TLS13 and step:
        talk.deliver(data)
        for name in script.steps[played:]:
            talk.deliver(talk.step(name))
        assert talk.client.handshake_complete
    elif script.version is TLS13 or step in ("", "finished"):
        # Under TLS 1.2 keys it must be protected, and is still out of turn.
        data = data if script.version is TLS13 else talk.seal(ContentType.CHANGE_CIPHER_SPEC, b"\x01")
        expect_end(talk, data)
    elif step == "change_cipher_spec":
        talk.deliver(talk.step(step))
        assert talk.last_alert is None
    else:
        expect_end(talk, data)


@pytest.mark.parametrize("state", STATES, ids=name_of)
@pytest.mark.parametrize("content", [b"\x00", b"\x02", b"\x01\x01"])
def test_a_change_cipher_spec_that_is_not_the_byte_1_is_refused(state: tuple[Script, int], content: bytes) -> None:
    script, played = state
    talk = Conversation(script).play(played)
    if script.version is TLS13:
        expect_end(talk, record(ContentType.CHANGE_CIPHER_SPEC, content))
    else:
        expect_end(talk, talk.seal(ContentType.CHANGE_CIPHER_SPEC, content))


@pytest.mark.parametrize(
    "state", [s for s in STATES if s[0].version is TLS13 and "server_hello" in s[0].steps[: s[1]]], ids=name_of
)
def test_a_protected_change_cipher_spec_is_refused(state: tuple[Script, int]) -> None:
    """RFC 8446 section 5: "or which receives a protected change_cipher_spec record MUST abort"."""
    script, played = state
    talk = Conversation(script).play(played)
    expect_end(talk, talk.seal(ContentType.CHANGE_CIPHER_SPEC, b"\x01"))


@pytest.mark.parametrize("state", STATES, ids=name_of)
@pytest.mark.parametrize("level", AlertLevel, ids=lambda level: level.name.lower())
def test_an_alert_at_any_state_ends_the_connection_and_is_not_answered(
    state: tuple[Script, int], level: AlertLevel
) -> None:
    script, played = state
    # TLS 1.3 has no warnings; before the version is known there may be some.
    warning = level is AlertLevel.WARNING and (script.version is TLS12 or script.steps[played:] == script.steps)
    for alert in AlertDescription:
        talk = Conversation(script).play(played)
        complete, sent = talk.client.handshake_complete, talk.sent
        data = talk.seal(ContentType.ALERT, bytes((level, alert)))
        if alert is AlertDescription.CLOSE_NOTIFY and complete:
            talk.deliver(data)
            assert talk.events[-1] == CloseReceived()
        elif alert is AlertDescription.USER_CANCELED or (warning and alert is not AlertDescription.CLOSE_NOTIFY):
            talk.deliver(data)
            for name in script.steps[played:]:
                talk.deliver(talk.step(name))
            assert talk.client.handshake_complete
        else:
            with pytest.raises(AlertReceived, match=alert.name.lower()) as caught:
                talk.deliver(data)
            assert caught.value.description == alert
            assert talk.sent == sent
            assert talk.client.handshake_complete == complete


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_an_alert_that_nobody_knows_ends_the_connection(state: tuple[Script, int]) -> None:
    script, played = state
    talk = Conversation(script).play(played)
    with pytest.raises(AlertReceived, match="alert 199"):
        talk.deliver(talk.seal(ContentType.ALERT, b"\x02\xc7"))


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_the_end_of_the_stream_is_a_truncation_at_every_state(state: tuple[Script, int]) -> None:
    script, played = state
    talk = Conversation(script).play(played)
    sent = talk.sent
    with pytest.raises(Truncated, match="without close_notify"):
        talk.end_of_stream()
    talk._settle()
    assert talk.sent == sent


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_the_end_of_the_stream_after_any_byte_is_a_truncation(script: Script) -> None:
    stream = b"".join(recorded(script))
    for end in range(len(stream)):
        talk = Recording(script)
        talk.deliver(stream[:end])
        assert not talk.client.handshake_complete
        with pytest.raises(Truncated):
            talk.end_of_stream()


@pytest.mark.parametrize("state", STATES, ids=name_of)
def test_bytes_that_are_no_tls_are_refused_at_every_state(state: tuple[Script, int]) -> None:
    script, played = state
    for garbage in (
        b"HTTP/1.1 400 Bad Request\r\n",
        b"SSH-2.0-x\r\n",
        bytes(16),
        b"\x80" * 8,
        b"\x18\x03\x03\x00\x01x",
    ):
        talk = Conversation(script).play(played)
        expect_end(talk, garbage)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_any_two_neighbouring_steps_in_the_wrong_order_are_refused(script: Script) -> None:
    for first, second in itertools.pairwise(range(len(script.steps))):
        if script.steps[first] == "certificate_status":
            # It may be left out, and comes too late then.
            continue
        names = {script.steps[first], script.steps[second]}
        if names & {"server_hello", "finished", "change_cipher_spec", "hello_retry_request"}:
            continue
        talk = Conversation(script).play(first)
        with pytest.raises(UnexpectedMessage):
            talk.deliver(talk.step(script.steps[second]))
            talk.deliver(talk.step(script.steps[first]))
        assert talk.last_alert == UNEXPECTED


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_a_whole_script_ends_in_one_complete_handshake(script: Script) -> None:
    talk = Conversation(script).play()
    assert sum(isinstance(event, HandshakeComplete) for event in talk.events) == 1
    assert talk.alerts == []
