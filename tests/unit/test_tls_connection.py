"""The TLS connection after and around the handshake: key updates, tickets, closing, waiting, and every limit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.tls_script import BY_NAME, PSK, SCRIPTS, Conversation, Script, record

from locum.errors import DecodeError
from locum.tls import connection as connection_module
from locum.tls.alerts import (
    AlertDescription,
    BadRecordMac,
    IllegalParameter,
    RecordOverflow,
    UnexpectedMessage,
    alert_for,
)
from locum.tls.configuration import ClientConfiguration
from locum.tls.connection import (
    MAX_IDLE_MESSAGES,
    MAX_WAITING,
    ClientConnection,
    CloseReceived,
    DataReceived,
    TicketReceived,
)
from locum.tls.messages import MAX_CERTIFICATE_MESSAGE, MAX_MESSAGE, serialize
from locum.tls.messages12 import HelloRequest
from locum.tls.messages13 import KeyUpdate
from locum.tls.operations import HandshakeSecretsRequest
from locum.tls.record import MAX_EMPTY_RECORDS, MAX_PLAINTEXT
from locum.tls.registry import ContentType, HandshakeType
from locum.tls.session import MAX_TICKET

S13, S12 = BY_NAME["1.3"], BY_NAME["1.2 ECDHE"]
A = AlertDescription
DATA, HANDSHAKE = ContentType.APPLICATION_DATA, ContentType.HANDSHAKE


def established(script: Script = S13) -> Conversation:
    talk = Conversation(script).play()
    talk.events.clear()
    return talk


def key_update(talk: Conversation, *, requested: bool = False) -> bytes:
    """A KeyUpdate of the server, after which it uses its next key."""
    data = talk.seal(HANDSHAKE, serialize(KeyUpdate(update_requested=requested)))
    talk.update_write_keys()
    return data


def send(talk: Conversation, data: bytes) -> None:
    """From the client to the server."""
    talk.data = b""
    talk.client.send_data(data)
    talk._settle()
    assert talk.data == data


# --- key updates (RFC 8446 section 4.6.3) ---------------------------------------------------------------------


def test_a_key_update_of_the_peer_changes_the_key_of_what_it_sends() -> None:
    talk = established()
    for number in range(3):
        talk.deliver(key_update(talk))
        talk.deliver(talk.seal(DATA, b"%d" % number))
        assert talk.events[-1] == DataReceived(b"%d" % number)
    assert talk.alerts == []


def test_a_key_update_that_asks_for_one_is_answered_with_one_that_does_not() -> None:
    talk = established()
    before = len(talk.sent)
    talk.deliver(key_update(talk, requested=True))
    # One record: header, four bytes of header of the message, one of body, content type, tag.
    assert len(talk.sent) - before == 5 + 4 + 1 + 1 + 16
    send(talk, b"under the next key")
    talk.deliver(talk.seal(DATA, b"and back"))
    assert talk.events == [DataReceived(b"and back")]


def test_our_key_update_changes_our_key() -> None:
    talk = established()
    send(talk, b"before")
    for requested in (False, True):
        talk.client.update_keys(request_peer=requested)
        send(talk, b"after")


def test_data_under_the_old_key_after_a_key_update_does_not_authenticate() -> None:
    talk = established()
    update = talk.seal(HANDSHAKE, serialize(KeyUpdate(update_requested=False)))
    talk.deliver(update)
    with pytest.raises(BadRecordMac):
        talk.deliver(talk.seal(DATA, b"old key"))
    assert talk.last_alert == A.BAD_RECORD_MAC


def test_a_key_update_must_be_the_last_of_its_record() -> None:
    talk = established()
    update = serialize(KeyUpdate(update_requested=False))
    with pytest.raises(UnexpectedMessage):
        talk.deliver(talk.seal(HANDSHAKE, update + update))
    assert talk.last_alert == A.UNEXPECTED_MESSAGE


@pytest.mark.parametrize(
    ("body", "error", "alert"),
    [
        (b"\x02", IllegalParameter, A.ILLEGAL_PARAMETER),
        (b"", DecodeError, A.DECODE_ERROR),
        (b"\0\0", DecodeError, A.DECODE_ERROR),
    ],
)
def test_a_malformed_key_update_is_refused(body: bytes, error: type[Exception], alert: A) -> None:
    talk = established()
    with pytest.raises(error):
        talk.deliver(talk.seal(HANDSHAKE, bytes((24, 0, 0, len(body))) + body))
    assert talk.last_alert == alert


def test_the_key_is_updated_before_it_has_sealed_too_many_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "REKEY_AFTER", 3)
    talk = established()
    lengths = []
    for _ in range(8):
        before = len(talk.sent)
        send(talk, b"x")
        lengths.append(len(talk.sent) - before)
    plain, update = 5 + 1 + 1 + 16, 5 + 5 + 1 + 16
    assert lengths == [plain] * 3 + [plain + update] + [plain] * 2 + [plain + update] + [plain]


def test_a_tls_12_key_is_never_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "REKEY_AFTER", 1)
    talk = established(S12)
    for _ in range(5):
        send(talk, b"x")
    assert talk.alerts == []


# --- tickets (RFC 8446 section 4.6.1) -------------------------------------------------------------------------


def test_tickets_after_the_handshake_are_told_with_their_psk() -> None:
    talk = established()
    for _ in range(2):
        talk.deliver(talk.seal(HANDSHAKE, serialize(talk.message("new_session_ticket"))))
    first, second = talk.events
    assert isinstance(first, TicketReceived)
    assert isinstance(second, TicketReceived)
    assert first.ticket.secret == second.ticket.secret
    assert len(first.ticket.secret) == 32
    assert first.ticket.secret != PSK
    assert (first.ticket.lifetime, first.ticket.age_add) == (300, 7)


def test_a_ticket_with_lifetime_0_is_dropped() -> None:
    """RFC 8446 section 4.6.1: "The value of zero indicates that the ticket should be discarded immediately."."""
    talk = established()
    ticket = serialize(talk.message("new_session_ticket"))
    talk.deliver(talk.seal(HANDSHAKE, ticket[:4] + bytes(4) + ticket[8:]))
    assert talk.events == []


def test_a_ticket_that_no_client_hello_could_hold_is_dropped() -> None:
    """A ClientHello has 65,535 bytes for all its extensions (RFC 8446 section 4.1.2)."""
    talk = established()
    for length in (MAX_TICKET, MAX_TICKET + 1, 0xFFFF):
        ticket = replace(talk.message("new_session_ticket"), ticket=bytes(length))
        talk.deliver(talk.seal(HANDSHAKE, serialize(ticket)))
    assert [len(event.ticket.ticket) for event in talk.events if isinstance(event, TicketReceived)] == [MAX_TICKET]


@pytest.mark.parametrize("length", [0, 5, 12, -1])
def test_a_malformed_ticket_is_refused(length: int) -> None:
    talk = established()
    body = serialize(talk.message("new_session_ticket"))[4:][:length]
    with pytest.raises(DecodeError):
        talk.deliver(talk.seal(HANDSHAKE, bytes((4, 0, 0, len(body))) + body))
    assert talk.last_alert == A.DECODE_ERROR


def test_post_handshake_authentication_was_not_offered_and_is_refused() -> None:
    talk = established()
    request = BY_NAME["1.3 client certificate"]
    with pytest.raises(UnexpectedMessage, match="CertificateRequest"):
        talk.deliver(talk.seal(HANDSHAKE, serialize(Conversation(request).message("certificate_request"))))


# --- limits ---------------------------------------------------------------------------------------------------


def idle_13(talk: Conversation, kind: str) -> bytes:
    if kind == "KeyUpdate":
        return key_update(talk)
    if kind == "ticket":
        return talk.seal(HANDSHAKE, serialize(talk.message("new_session_ticket")))
    return talk.seal(ContentType.ALERT, bytes((1, A.USER_CANCELED)))


def idle_12(talk: Conversation, kind: str) -> bytes:
    if kind == "HelloRequest":
        return talk.seal(HANDSHAKE, serialize(HelloRequest()))
    return talk.seal(ContentType.ALERT, bytes((1, A.NO_RENEGOTIATION)))


IDLE = [(S13, "KeyUpdate"), (S13, "ticket"), (S13, "warning"), (S12, "HelloRequest"), (S12, "warning")]


@pytest.mark.parametrize(("script", "kind"), IDLE, ids=lambda value: str(value))
def test_messages_without_data_between_them_are_limited(script: Script, kind: str) -> None:
    make = idle_13 if script is S13 else idle_12
    talk = established(script)
    for _ in range(MAX_IDLE_MESSAGES):
        talk.deliver(make(talk, kind))
    # Empty application data is no data.
    talk.deliver(talk.seal(DATA, b""))
    with pytest.raises(UnexpectedMessage, match="without data"):
        talk.deliver(make(talk, kind))
    assert talk.last_alert == A.UNEXPECTED_MESSAGE

    talk = established(script)
    for _ in range(3):
        for _ in range(MAX_IDLE_MESSAGES):
            talk.deliver(make(talk, kind))
        talk.deliver(talk.seal(DATA, b"data"))
    assert talk.last_alert is None


@pytest.mark.parametrize("script", [S13, S12], ids=str)
def test_warnings_before_the_version_is_known_are_limited(script: Script) -> None:
    talk = Conversation(script)
    warning = record(ContentType.ALERT, bytes((1, A.UNRECOGNIZED_NAME)))
    talk.deliver(warning * MAX_IDLE_MESSAGES)
    with pytest.raises(UnexpectedMessage):
        talk.deliver(warning)


def test_dropped_change_cipher_specs_are_limited() -> None:
    talk = Conversation(S13).play(1)
    dummy = record(ContentType.CHANGE_CIPHER_SPEC, b"\x01")
    talk.deliver(dummy * MAX_IDLE_MESSAGES)
    with pytest.raises(UnexpectedMessage):
        talk.deliver(dummy)
    assert talk.last_alert == A.UNEXPECTED_MESSAGE


def test_ignored_hello_requests_are_limited() -> None:
    talk = Conversation(S12).play(2)
    request = record(HANDSHAKE, serialize(HelloRequest()) * MAX_IDLE_MESSAGES)
    talk.deliver(request)
    with pytest.raises(UnexpectedMessage):
        talk.deliver(request)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_empty_records_in_a_row_are_limited(script: Script) -> None:
    talk = established(script)
    for _ in range(3):
        for _ in range(MAX_EMPTY_RECORDS):
            talk.deliver(talk.seal(DATA, b""))
        talk.deliver(talk.seal(DATA, b"x"))
    for _ in range(MAX_EMPTY_RECORDS):
        talk.deliver(talk.seal(DATA, b""))
    with pytest.raises(UnexpectedMessage, match="empty records"):
        talk.deliver(talk.seal(DATA, b""))
    assert talk.last_alert == A.UNEXPECTED_MESSAGE


@pytest.mark.parametrize("kind", [HANDSHAKE, ContentType.ALERT, ContentType.CHANGE_CIPHER_SPEC])
@pytest.mark.parametrize("script", [S13, S12], ids=str)
def test_an_empty_record_of_any_other_type_is_refused(script: Script, kind: ContentType) -> None:
    """RFC 8446 section 5.1: "Implementations MUST NOT send zero-length fragments of Handshake types"."""
    for talk in (Conversation(script), established(script)):
        with pytest.raises(UnexpectedMessage):
            talk.deliver(talk.seal(kind, b""))


@pytest.mark.parametrize(
    ("code", "longest"),
    [
        (HandshakeType.SERVER_HELLO, MAX_MESSAGE),
        (HandshakeType.CERTIFICATE, MAX_CERTIFICATE_MESSAGE),
        (99, MAX_MESSAGE),
    ],
)
def test_a_message_that_says_it_is_too_long_is_refused_before_it_has_come(code: int, longest: int) -> None:
    talk = Conversation(S13)
    talk.deliver(record(HANDSHAKE, bytes((code,)) + longest.to_bytes(3, "big")))
    assert talk.last_alert is None
    talk = Conversation(S13)
    with pytest.raises(DecodeError):
        talk.deliver(record(HANDSHAKE, bytes((code,)) + (longest + 1).to_bytes(3, "big")))
    assert talk.last_alert == A.DECODE_ERROR


def test_only_so_many_bytes_may_wait_while_an_operation_is_pending() -> None:
    talk = Conversation(S13)
    talk.client.receive_data(talk.step("server_hello"))
    piece = record(DATA, bytes(MAX_PLAINTEXT))
    assert not talk.client.wants_data
    for _ in range(MAX_WAITING // len(piece)):
        talk.client.receive_data(piece)
    with pytest.raises(UnexpectedMessage, match="while the handshake waits"):
        talk.client.receive_data(piece)


# --- sizes of records -----------------------------------------------------------------------------------------


def test_a_plain_record_may_have_2_to_the_14_bytes_and_no_more() -> None:
    for script in (S13, S12):
        talk = Conversation(script)
        with pytest.raises(RecordOverflow):
            talk.deliver(b"\x16\x03\x03" + (MAX_PLAINTEXT + 1).to_bytes(2, "big"))
        assert talk.last_alert == A.RECORD_OVERFLOW
        talk = Conversation(script)
        talk.deliver(b"\x16\x03\x03" + MAX_PLAINTEXT.to_bytes(2, "big"))
        assert talk.last_alert is None


@pytest.mark.parametrize(("script", "expansion"), [(S13, 256), (S12, 2048)], ids=["1.3", "1.2"])
def test_a_protected_record_may_be_longer_by_what_its_version_allows(script: Script, expansion: int) -> None:
    talk = established(script)
    talk.deliver(b"\x17\x03\x03" + (MAX_PLAINTEXT + expansion).to_bytes(2, "big"))
    talk = established(script)
    with pytest.raises(RecordOverflow):
        talk.deliver(b"\x17\x03\x03" + (MAX_PLAINTEXT + expansion + 1).to_bytes(2, "big"))
    assert talk.last_alert == A.RECORD_OVERFLOW


@pytest.mark.parametrize("script", [S13, S12], ids=str)
def test_content_of_2_to_the_14_bytes_is_taken_and_one_more_is_not(script: Script) -> None:
    talk = established(script)
    assert talk._write is not None
    talk.deliver(bytes(talk._write.seal(DATA, bytes(MAX_PLAINTEXT))))
    assert talk.events == [DataReceived(bytes(MAX_PLAINTEXT))]
    with pytest.raises(RecordOverflow):
        talk.deliver(bytes(talk._write.seal(DATA, bytes(MAX_PLAINTEXT + 1))))
    assert talk.last_alert == A.RECORD_OVERFLOW


def padded(talk: Conversation, inner: bytes) -> bytes:
    """A TLS 1.3 record with this TLSInnerPlaintext; `seal` adds the content type, which here is the last byte."""
    assert talk._write is not None
    key = talk._write._key  # type: ignore[attr-defined]
    nonce = (talk._write._iv ^ talk._write.sequence).to_bytes(12, "big")  # type: ignore[attr-defined]
    header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
    talk._write.sequence += 1
    return bytes(header + key.seal(nonce, inner, header))


def test_padding_is_taken_off() -> None:
    talk = established()
    talk.deliver(padded(talk, b"some data\0\0\x17" + bytes(100)))
    assert talk.events == [DataReceived(b"some data\0\0")]
    talk.deliver(padded(talk, b"\x17" + bytes(MAX_PLAINTEXT)))
    assert len(talk.events) == 1
    talk.deliver(padded(talk, bytes(MAX_PLAINTEXT) + b"\x17"))
    assert talk.events[1:] == [DataReceived(bytes(MAX_PLAINTEXT))]


def test_padding_does_not_make_a_record_any_longer() -> None:
    """RFC 8446 section 5.4: "the full encoded TLSInnerPlaintext MUST NOT exceed 2^14 + 1 octets"."""
    talk = established()
    with pytest.raises(RecordOverflow):
        talk.deliver(padded(talk, b"\x17" + bytes(MAX_PLAINTEXT + 1)))
    assert talk.last_alert == A.RECORD_OVERFLOW


def test_a_record_of_nothing_but_padding_is_refused() -> None:
    talk = established()
    with pytest.raises(UnexpectedMessage, match="without content type"):
        talk.deliver(padded(talk, bytes(20)))
    assert talk.last_alert == A.UNEXPECTED_MESSAGE


@pytest.mark.parametrize("kind", [0, 19, 24, 255])
def test_a_content_type_that_nobody_knows_is_refused(kind: int) -> None:
    talk = established()
    with pytest.raises(UnexpectedMessage):
        talk.deliver(padded(talk, b"x" + bytes((kind or 1,))))
    talk = established()
    with pytest.raises(UnexpectedMessage):
        talk.deliver(record(kind, b"x"))


@pytest.mark.parametrize("length", [0, 1, 16])
def test_a_protected_record_that_is_too_short_to_be_one_is_refused(length: int) -> None:
    for script in (S13, S12):
        talk = established(script)
        with pytest.raises(BadRecordMac):
            talk.deliver(record(DATA, bytes(length)))
        assert talk.last_alert == A.BAD_RECORD_MAC


@pytest.mark.parametrize("content", [b"\x02", b"\x02\x28\x00", b"\x01\x5a" * 2])
@pytest.mark.parametrize("script", [S13, S12], ids=str)
def test_an_alert_record_that_is_not_two_bytes_is_refused(script: Script, content: bytes) -> None:
    for talk in (Conversation(script), established(script)):
        with pytest.raises(DecodeError):
            talk.deliver(talk.seal(ContentType.ALERT, content))
        assert talk.last_alert == A.DECODE_ERROR


def test_another_record_inside_a_handshake_message_is_refused() -> None:
    """RFC 8446 section 5.1: "Handshake messages MUST NOT be interleaved with other record types"."""
    for other in (record(ContentType.CHANGE_CIPHER_SPEC, b"\x01"), record(DATA, b"x")):
        talk = Conversation(S13)
        hello = serialize(talk.message("server_hello"))
        talk.deliver(record(HANDSHAKE, hello[:20]))
        with pytest.raises(UnexpectedMessage):
            talk.deliver(other)
        assert talk.last_alert == A.UNEXPECTED_MESSAGE


@pytest.mark.parametrize("major", [0, 2, 4])
def test_a_record_of_another_major_version_is_refused(major: int) -> None:
    talk = Conversation(S13)
    with pytest.raises(DecodeError):
        talk.deliver(b"\x16" + bytes((major,)) + b"\x03\x00\x01x")


def test_the_minor_version_of_a_record_means_nothing() -> None:
    talk = Conversation(S13)
    talk.deliver(record(HANDSHAKE, talk.step("server_hello")[5:], version=0x0301))
    assert talk.last_alert is None


# --- closing ----------------------------------------------------------------------------------------------------


def test_what_comes_after_close_notify_is_ignored() -> None:
    """RFC 8446 section 6.1: "Any data received after a closure alert has been received MUST be ignored"."""
    for script in (S13, S12):
        talk = established(script)
        close = talk.seal(ContentType.ALERT, b"\x01\x00")
        talk.deliver(close + talk.seal(DATA, b"late") + b"and no record")
        assert talk.events == [CloseReceived()]
        talk.deliver(b"more")
        talk.end_of_stream()
        assert talk.events == [CloseReceived()]
        assert not talk.client.wants_data


def test_tls_12_answers_close_notify_and_tls_13_does_not_have_to() -> None:
    talk = established(S12)
    talk.deliver(talk.seal(ContentType.ALERT, b"\x01\x00"))
    assert talk.alerts == [(1, A.CLOSE_NOTIFY)]
    talk = established(S13)
    talk.deliver(talk.seal(ContentType.ALERT, b"\x01\x00"))
    assert talk.alerts == []
    send(talk, b"half open")


def test_nothing_is_sent_after_our_close_notify() -> None:
    talk = established()
    talk.client.close()
    talk.client.close()
    talk._settle()
    assert talk.alerts == [(1, A.CLOSE_NOTIFY)]
    with pytest.raises(RuntimeError):
        talk.client.send_data(b"x")
    with pytest.raises(RuntimeError):
        talk.client.update_keys()
    sent = talk.sent
    talk.deliver(key_update(talk, requested=True))
    talk.deliver(talk.seal(DATA, b"still read"))
    assert talk.events == [DataReceived(b"still read")]
    with pytest.raises(BadRecordMac):
        talk.deliver(record(DATA, bytes(40)))
    assert talk.sent == sent


def test_an_error_is_final_and_tells_itself_again() -> None:
    talk = established()
    with pytest.raises(BadRecordMac) as caught:
        talk.deliver(record(DATA, bytes(40)))
    for action in (
        lambda: talk.client.receive_data(b"x"),
        lambda: talk.client.send_data(b"x"),
        talk.client.update_keys,
    ):
        with pytest.raises(BadRecordMac) as again:
            action()
        assert again.value is caught.value
    talk.client.close()
    assert talk.client.data_to_send() == b""


# --- use --------------------------------------------------------------------------------------------------------


def test_bytes_that_come_while_an_operation_is_pending_are_read_afterwards() -> None:
    talk = Conversation(S13)
    stream = talk.step("server_hello")
    talk.client.receive_data(stream)
    assert talk.client.pending is not None
    assert isinstance(talk.client.pending[0], HandshakeSecretsRequest)
    for step in S13.steps[1:]:
        talk.client.receive_data(talk.step(step))
    talk._settle()
    assert talk.client.handshake_complete


def test_misuse_is_our_own_fault() -> None:
    client = ClientConnection(ClientConfiguration(server_name="x"), random=bytes, now=lambda: 0.0)
    for action in (lambda: client.send_data(b"x"), client.update_keys, lambda: client.answer(())):
        with pytest.raises(RuntimeError):
            action()
    client.close()
    assert client.data_to_send() == b""
    assert client.session is None


def test_an_error_before_the_client_hello_sends_no_alert() -> None:
    client = ClientConnection(ClientConfiguration(server_name="x"), random=bytes, now=lambda: 0.0)
    client.start()
    with pytest.raises(DecodeError):
        client.fail(DecodeError("nonsense from the delegate"))
    assert client.data_to_send() == b""


def test_the_repr_says_how_far_it_is_and_no_secret() -> None:
    talk = Conversation(S13)
    assert "in handshake" in repr(talk.client)
    talk.play()
    assert "established" in repr(talk.client)
    assert "b'" not in repr(talk.events)
    talk.deliver(talk.seal(DATA, b"secret data"))
    assert "secret data" not in repr(talk.events)
    with pytest.raises(BadRecordMac) as caught:
        talk.deliver(record(DATA, bytes(40)))
    assert "failed" in repr(talk.client)
    assert alert_for(caught.value) == A.BAD_RECORD_MAC


def test_large_data_is_cut_into_records_of_at_most_2_to_the_14_bytes() -> None:
    talk = established()
    before = len(talk.sent)
    send(talk, bytes(MAX_PLAINTEXT * 2 + 1))
    assert len(talk.sent) - before == MAX_PLAINTEXT * 2 + 1 + 3 * (5 + 1 + 16)
    send(talk, b"")
