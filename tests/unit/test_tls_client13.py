"""The TLS 1.3 client: every fault of a server that it must notice, with the alert of RFC 8446."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.tls_faults import Fault, check, cut, extension, fields, lengthened
from tests.support.tls_script import (
    BY_NAME,
    CERTIFICATE,
    SERVER_NAME,
    Conversation,
    Recording,
    ScriptedAuthority,
    record,
    recorded,
)

from locum.crypto.symmetric import SHA256
from locum.errors import DecodeError
from locum.handshake import MAX_CERTIFICATES, MAX_CHAIN, Request
from locum.tls import messages13
from locum.tls.alerts import (
    AlertDescription,
    BadRecordMac,
    DecryptError,
    IllegalParameter,
    MissingExtension,
    UnexpectedMessage,
    UnsupportedExtension,
    UnsupportedVersion,
)
from locum.tls.configuration import ClientConfiguration
from locum.tls.connection import ClientConnection, DataReceived, HandshakeComplete, TicketReceived
from locum.tls.extensions import (
    Extensions,
    parse_client_shares,
    parse_codes,
    parse_server_name,
    write_alpn,
    write_server_name,
)
from locum.tls.messages import HELLO_RETRY_REQUEST_RANDOM, serialize
from locum.tls.operations import (
    AuthenticateRequest,
    HandshakeSecretsRequest,
)
from locum.tls.registry import (
    CIPHER_SUITES,
    ContentType,
    ExtensionType,
    NamedGroup,
    ProtocolVersion,
    SignatureScheme,
)

E, A = ExtensionType, AlertDescription
ILLEGAL, DECODE = A.ILLEGAL_PARAMETER, A.DECODE_ERROR
TICKET: Any = dict(BY_NAME["1.3 resumed"].settings)["ticket"]
UNSUPPORTED = A.UNSUPPORTED_EXTENSION
LONG_CHAIN = ((bytes(MAX_CHAIN // 2), Extensions()), (bytes(MAX_CHAIN // 2 + 1), Extensions()))
STATUS_2 = b"\2\0\0\1x"
SHARE_25519 = b"\x00\x1d\x00\x20" + bytes(32)
SHARE_P256 = b"\x00\x17\x00\x41" + bytes(65)


def many_certificates(message: Any) -> Any:
    return replace(message, entries=((CERTIFICATE, Extensions()),) * (MAX_CERTIFICATES + 1))


def in_entry(code: int, data: bytes) -> Any:
    return fields(entries=((CERTIFICATE, Extensions(((code, data),))),))


def twice(message: Any) -> Any:
    items = message.extensions.items
    return replace(message, extensions=Extensions((*items, items[0])))


def without_share_and(code: int) -> Any:
    return lambda message: extension(code, None)(extension(E.KEY_SHARE, None)(message))


def flipped(message: Any) -> Any:
    data = message.verify_data
    return replace(message, verify_data=bytes((data[0] ^ 1,)) + data[1:])


def hello(what: str, change: Any, error: Any, alert: A, **settings: Any) -> Fault:
    return Fault(what, "1.3", "server_hello", change, error, alert, tuple(settings.items()))


def retry(what: str, change: Any, error: Any, alert: A) -> Fault:
    return Fault(what, "1.3 HelloRetryRequest", "hello_retry_request", change, error, alert)


def second(what: str, change: Any, error: Any, alert: A) -> Fault:
    return Fault(what, "1.3 HelloRetryRequest", "server_hello", change, error, alert)


def resumed(what: str, change: Any, error: Any, alert: A) -> Fault:
    return Fault(what, "1.3 resumed", "server_hello", change, error, alert)


def encrypted(what: str, change: Any, error: Any, alert: A, **settings: Any) -> Fault:
    return Fault(what, "1.3", "encrypted_extensions", change, error, alert, tuple(settings.items()))


def evidence(what: str, step: str, change: Any, error: Any, alert: A) -> Fault:
    return Fault(what, "1.3 client certificate", step, change, error, alert)


FAULTS = [
    # RFC 8446 sections 4.1.3 and 4.2.1
    hello("selects TLS 1.2 by extension", extension(E.SUPPORTED_VERSIONS, b"\3\3"), IllegalParameter, ILLEGAL),
    hello("selects an unknown version", extension(E.SUPPORTED_VERSIONS, b"\x03\x05"), IllegalParameter, ILLEGAL),
    hello("version of three bytes", extension(E.SUPPORTED_VERSIONS, b"\3\4\0"), DecodeError, DECODE),
    hello("legacy_version 1.1", fields(legacy_version=0x0302), IllegalParameter, ILLEGAL),
    hello("legacy_version 1.3", fields(legacy_version=0x0304), IllegalParameter, ILLEGAL),
    hello(
        "TLS 1.1 without extension",
        lambda m: extension(E.SUPPORTED_VERSIONS, None)(replace(m, legacy_version=0x0302)),
        UnsupportedVersion,
        A.PROTOCOL_VERSION,
    ),
    hello(
        "TLS 1.2 that is not offered",
        extension(E.SUPPORTED_VERSIONS, None),
        UnsupportedVersion,
        A.PROTOCOL_VERSION,
        versions=(ProtocolVersion.TLS_1_3,),
    ),
    hello("TLS 1.2 with a suite of 1.3", extension(E.SUPPORTED_VERSIONS, None), IllegalParameter, ILLEGAL),
    hello("suite that nobody knows", fields(cipher_suite=0x1399), IllegalParameter, ILLEGAL),
    hello("suite of TLS 1.2", fields(cipher_suite=0xC02F), IllegalParameter, ILLEGAL),
    hello("suite not offered", fields(), IllegalParameter, ILLEGAL, cipher_suites=(0x1302, 0xC02F)),
    hello("compression", fields(compression_method=1), IllegalParameter, ILLEGAL),
    hello("another session id", fields(session_id=b"\xee" * 32), IllegalParameter, ILLEGAL),
    hello("no session id", fields(session_id=b""), IllegalParameter, ILLEGAL),
    hello("session id of 33 bytes", lambda m: serialize(replace(m, session_id=bytes(33))), DecodeError, DECODE),
    hello("session id never sent", fields(session_id=b"x"), IllegalParameter, ILLEGAL, compatibility_mode=False),
    hello("no key share", extension(E.KEY_SHARE, None), MissingExtension, A.MISSING_EXTENSION),
    hello("key share in another group", extension(E.KEY_SHARE, SHARE_P256), IllegalParameter, ILLEGAL),
    hello("key share without key", extension(E.KEY_SHARE, b"\x00\x1d\x00\x00"), DecodeError, DECODE),
    hello("key share with bytes behind", extension(E.KEY_SHARE, SHARE_25519 + b"x"), DecodeError, DECODE),
    hello("key share of a request", extension(E.KEY_SHARE, b"\x00\x1d"), DecodeError, DECODE),
    hello("selects a PSK", extension(E.PRE_SHARED_KEY, b"\0\0"), UnsupportedExtension, A.UNSUPPORTED_EXTENSION),
    hello("unknown extension", extension(0xFAFA, b""), UnsupportedExtension, A.UNSUPPORTED_EXTENSION),
    hello("early_data", extension(E.EARLY_DATA, b""), UnsupportedExtension, A.UNSUPPORTED_EXTENSION),
    hello("extension of another message", extension(E.SERVER_NAME, b""), IllegalParameter, ILLEGAL),
    hello("cookie", extension(E.COOKIE, b"\0\1x"), IllegalParameter, ILLEGAL),
    hello("an extension twice", twice, IllegalParameter, ILLEGAL),
    hello("cut", cut(), DecodeError, DECODE),
    hello("cut after the session id", cut(50), DecodeError, DECODE),
    hello("lengthened", lengthened(), DecodeError, DECODE),
    # RFC 8446 section 4.1.4
    retry("group not offered", extension(E.KEY_SHARE, b"\x00\x19"), IllegalParameter, ILLEGAL),
    retry("group whose share it has", extension(E.KEY_SHARE, b"\x00\x1d"), IllegalParameter, ILLEGAL),
    retry("a whole key share", extension(E.KEY_SHARE, SHARE_P256), DecodeError, DECODE),
    retry("empty cookie", extension(E.COOKIE, b"\0\0"), DecodeError, DECODE),
    retry(
        "changes nothing",
        lambda m: extension(E.COOKIE, None)(extension(E.KEY_SHARE, None)(m)),
        IllegalParameter,
        ILLEGAL,
    ),
    retry("unknown extension", extension(0xFAFA, b""), UnsupportedExtension, A.UNSUPPORTED_EXTENSION),
    retry("extension of another message", extension(E.STATUS_REQUEST, b""), IllegalParameter, ILLEGAL),
    retry("no version", extension(E.SUPPORTED_VERSIONS, None), MissingExtension, A.MISSING_EXTENSION),
    retry("suite not offered", fields(cipher_suite=0x1399), IllegalParameter, ILLEGAL),
    retry("another session id", fields(session_id=b""), IllegalParameter, ILLEGAL),
    second("second request", fields(random=HELLO_RETRY_REQUEST_RANDOM), UnexpectedMessage, A.UNEXPECTED_MESSAGE),
    second("another suite than before", fields(cipher_suite=0x1302), IllegalParameter, ILLEGAL),
    second("another session id", fields(session_id=b""), IllegalParameter, ILLEGAL),
    second("another version", extension(E.SUPPORTED_VERSIONS, b"\3\3"), IllegalParameter, ILLEGAL),
    second("no version", extension(E.SUPPORTED_VERSIONS, None), IllegalParameter, ILLEGAL),
    second("legacy_version 1.1", fields(legacy_version=0x0302), IllegalParameter, ILLEGAL),
    second("compression", fields(compression_method=1), IllegalParameter, ILLEGAL),
    second("the first share's group", extension(E.KEY_SHARE, SHARE_25519), IllegalParameter, ILLEGAL),
    # RFC 8446 section 4.2.11
    resumed("PSK that was not offered", extension(E.PRE_SHARED_KEY, b"\0\1"), IllegalParameter, ILLEGAL),
    resumed("PSK of another hash", fields(cipher_suite=0x1302), IllegalParameter, ILLEGAL),
    resumed("PSK of one byte", extension(E.PRE_SHARED_KEY, b"\0"), DecodeError, DECODE),
    resumed(
        "neither PSK nor share",
        without_share_and(E.PRE_SHARED_KEY),
        MissingExtension,
        A.MISSING_EXTENSION,
    ),
    # RFC 8446 section 4.3.1
    encrypted("unknown extension", extension(0xFAFA, b""), UnsupportedExtension, A.UNSUPPORTED_EXTENSION),
    encrypted("key share", extension(E.KEY_SHARE, SHARE_25519), IllegalParameter, ILLEGAL),
    encrypted("early_data", extension(E.EARLY_DATA, b""), UnsupportedExtension, A.UNSUPPORTED_EXTENSION),
    encrypted("server_name with content", extension(E.SERVER_NAME, b"x"), DecodeError, DECODE),
    encrypted(
        "ALPN not offered at all",
        extension(E.APPLICATION_LAYER_PROTOCOL_NEGOTIATION, write_alpn(("h2",))),
        UnsupportedExtension,
        A.UNSUPPORTED_EXTENSION,
        alpn=(),
    ),
    encrypted(
        "protocol not offered",
        extension(E.APPLICATION_LAYER_PROTOCOL_NEGOTIATION, write_alpn(("mqtt",))),
        IllegalParameter,
        ILLEGAL,
    ),
    encrypted(
        "two protocols",
        extension(E.APPLICATION_LAYER_PROTOCOL_NEGOTIATION, write_alpn(("h2", "h2"))),
        IllegalParameter,
        ILLEGAL,
    ),
    encrypted(
        "no protocol",
        extension(E.APPLICATION_LAYER_PROTOCOL_NEGOTIATION, b"\0\0"),
        DecodeError,
        DECODE,
    ),
    encrypted(
        "record_size_limit not offered",
        extension(E.RECORD_SIZE_LIMIT, b"\x40\x01"),
        UnsupportedExtension,
        A.UNSUPPORTED_EXTENSION,
    ),
    encrypted(
        "record_size_limit below 64",
        extension(E.RECORD_SIZE_LIMIT, b"\x00\x3f"),
        IllegalParameter,
        ILLEGAL,
        record_size_limit=512,
    ),
    encrypted("cut", cut(), DecodeError, DECODE),
    encrypted("lengthened", lengthened(), DecodeError, DECODE),
    # RFC 8446 sections 4.3.2 and 4.4
    evidence("context", "certificate_request", fields(context=b"x"), IllegalParameter, ILLEGAL),
    evidence("cut", "certificate_request", cut(), DecodeError, DECODE),
    evidence("no certificate", "certificate", fields(entries=()), DecodeError, DECODE),
    evidence("context", "certificate", fields(context=b"x"), IllegalParameter, ILLEGAL),
    evidence("11 certificates", "certificate", many_certificates, DecodeError, DECODE),
    evidence("too many bytes", "certificate", fields(entries=LONG_CHAIN), DecodeError, DECODE),
    evidence("empty certificate", "certificate", fields(entries=((b"", Extensions()),)), DecodeError, DECODE),
    evidence(
        "unknown extension", "certificate", in_entry(0xFAFA, b""), UnsupportedExtension, A.UNSUPPORTED_EXTENSION
    ),
    evidence("extension of another message", "certificate", in_entry(E.KEY_SHARE, b""), IllegalParameter, ILLEGAL),
    evidence("status of another type", "certificate", in_entry(E.STATUS_REQUEST, STATUS_2), DecodeError, DECODE),
    evidence("empty status", "certificate", in_entry(E.STATUS_REQUEST, b"\1\0\0\0"), DecodeError, DECODE),
    evidence("cut", "certificate", cut(), DecodeError, DECODE),
    evidence("lengthened", "certificate", lengthened(), DecodeError, DECODE),
    evidence("scheme not offered", "certificate_verify", fields(scheme=0x0807), IllegalParameter, ILLEGAL),
    evidence(
        "PKCS#1 v1.5",
        "certificate_verify",
        fields(scheme=SignatureScheme.RSA_PKCS1_SHA256),
        IllegalParameter,
        ILLEGAL,
    ),
    evidence("empty signature", "certificate_verify", fields(signature=b""), DecodeError, DECODE),
    evidence("lengthened", "certificate_verify", lengthened(), DecodeError, DECODE),
    evidence("wrong by a bit", "finished", flipped, DecryptError, A.DECRYPT_ERROR),
    evidence("cut", "finished", cut(), DecryptError, A.DECRYPT_ERROR),
    evidence("lengthened", "finished", lengthened(), DecryptError, A.DECRYPT_ERROR),
    evidence("empty", "finished", fields(verify_data=b""), DecryptError, A.DECRYPT_ERROR),
    Fault("wrong by a bit", "1.3 resumed", "finished", flipped, DecryptError, A.DECRYPT_ERROR),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_of_the_server_is_answered_with_the_right_alert(fault: Fault) -> None:
    check(fault)


# --- what the ClientHello says ------------------------------------------------------------------------------


def test_the_client_hello_offers_what_was_configured_and_what_the_authority_chose() -> None:
    sent = Conversation(BY_NAME["1.3"]).hello
    assert sent is not None
    extensions = sent.extensions
    assert parse_server_name(extensions.get(E.SERVER_NAME) or b"") == SERVER_NAME
    assert parse_codes(extensions.get(E.SUPPORTED_VERSIONS) or b"", prefix=1) == (0x0304, 0x0303)
    (share,) = parse_client_shares(extensions.get(E.KEY_SHARE) or b"")
    assert (share.group, share.key_exchange) == (NamedGroup.X25519, bytes(32))
    assert extensions.get(E.PSK_KEY_EXCHANGE_MODES) == b"\x01\x01"
    assert sent.compression_methods == b"\0"
    assert len(sent.session_id) == 32
    assert sent.legacy_version == 0x0303


def test_the_server_name_is_sent_without_its_final_dot() -> None:
    """RFC 6066 section 3: "without a trailing dot"."""
    client = ClientConnection(ClientConfiguration(server_name=SERVER_NAME + "."), random=bytes, now=lambda: 0.0)
    client.start()
    assert client.pending is not None
    client.answer(ScriptedAuthority().perform(client.pending))
    assert write_server_name(SERVER_NAME) in client.data_to_send()


def test_the_second_client_hello_differs_only_in_share_and_cookie() -> None:
    talk = Conversation(BY_NAME["1.3 HelloRetryRequest"])
    first = talk.hello
    talk.play(1)
    again = talk.hello
    assert first is not None
    assert again is not None
    assert again.extensions.get(E.COOKIE) == b"\x00\x06cookie"
    (share,) = parse_client_shares(again.extensions.get(E.KEY_SHARE) or b"")
    assert (share.group, share.key_exchange) == (NamedGroup.SECP256R1, bytes(65))
    assert replace(again, extensions=first.extensions) == first
    changed = {E.COOKIE, E.KEY_SHARE}
    assert [i for i in again.extensions.items if i[0] not in changed] == [
        i for i in first.extensions.items if i[0] not in changed
    ]


@pytest.mark.parametrize(("suite", "stays"), [(0x1301, True), (0x1303, True), (0x1302, False)])
def test_a_psk_is_offered_again_after_a_request_only_if_its_hash_is_that_of_the_suite(
    suite: int, stays: bool
) -> None:
    """RFC 8446 section 4.1.2: PSKs that do not go with the server's cipher suite are removed."""
    code = CIPHER_SUITES[suite]
    ticket = replace(TICKET, suite=code, secret=bytes(code.hash.length))
    talk = Conversation(BY_NAME["1.3 HelloRetryRequest"], ticket=ticket)
    assert talk.hello is not None
    assert talk.hello.extensions.get(E.PRE_SHARED_KEY) is not None
    talk.play(1)
    assert (talk.hello.extensions.get(E.PRE_SHARED_KEY) is not None) == stays


def test_a_request_for_a_cookie_alone_keeps_the_share() -> None:
    talk = Conversation(BY_NAME["1.3 HelloRetryRequest"])
    request = extension(E.KEY_SHARE, None)(talk.message("hello_retry_request"))
    talk.deliver(talk.say(serialize(request), after="hello_retry_request"))
    assert talk.hello is not None
    (share,) = parse_client_shares(talk.hello.extensions.get(E.KEY_SHARE) or b"")
    assert share.group == NamedGroup.X25519
    for step in talk.script.steps[1:]:
        talk.deliver(talk.step(step))
    assert talk.client.handshake_complete


def test_pre_shared_key_is_the_last_extension_with_one_identity_and_binder() -> None:
    talk = Conversation(BY_NAME["1.3 resumed"])
    assert talk.hello is not None
    code, body = talk.hello.extensions.items[-1]
    assert code == E.PRE_SHARED_KEY
    assert body[:14] == b"\x00\x10\x00\x0athe ticket"
    assert int.from_bytes(body[14:18], "big") == 100_000
    assert body[18:21] == b"\x00\x21\x20"
    assert talk.hello.extensions.get(E.PSK_KEY_EXCHANGE_MODES) == b"\x02\x01\x00"


@pytest.mark.parametrize(
    ("setting", "value"),
    [("server_name", "other.example.com"), ("versions", (ProtocolVersion.TLS_1_2,)), ("cipher_suites", (0x1302,))],
)
def test_a_ticket_that_does_not_fit_is_not_offered(setting: str, value: Any) -> None:
    script = BY_NAME["1.3 resumed"]
    settings = {"server_name": SERVER_NAME, **dict(script.settings), setting: value}
    client = ClientConnection(ClientConfiguration(**settings), random=bytes, now=lambda: 1_700_000_000.0)
    client.start()
    assert client.pending is not None
    client.answer(ScriptedAuthority().perform(client.pending))
    assert b"the ticket" not in client.data_to_send()


def test_an_expired_ticket_is_not_offered() -> None:
    assert b"the ticket" in Conversation(BY_NAME["1.3"], ticket=replace(TICKET, lifetime=101)).sent
    assert b"the ticket" not in Conversation(BY_NAME["1.3"], ticket=replace(TICKET, lifetime=99)).sent


# --- what is agreed -----------------------------------------------------------------------------------------


def test_the_facts_of_the_session_are_told() -> None:
    talk = Conversation(BY_NAME["1.3"])
    talk.deliver(talk.step("server_hello"))
    answer = extension(E.APPLICATION_LAYER_PROTOCOL_NEGOTIATION, write_alpn(("h2",)))(
        talk.message("encrypted_extensions")
    )
    talk.deliver(talk.say(serialize(answer)))
    for step in ("certificate", "certificate_verify", "finished"):
        talk.deliver(talk.step(step))
    (event,) = talk.events
    assert isinstance(event, HandshakeComplete)
    session = event.session
    assert session is talk.client.session
    assert session.version is ProtocolVersion.TLS_1_3
    assert (session.group, session.alpn, session.resumed) == (NamedGroup.X25519, "h2", False)
    assert session.peer_certificates == (CERTIFICATE,)
    assert session.peer_identity == f"dns:{SERVER_NAME}"
    assert not session.client_authenticated


def test_a_psk_that_the_server_leaves_aside_leads_to_a_full_handshake() -> None:
    talk = Conversation(replace(BY_NAME["1.3"], settings=BY_NAME["1.3 resumed"].settings)).play()
    assert talk.client.session is not None
    assert not talk.client.session.resumed
    assert talk.client.session.peer_certificates == (CERTIFICATE,)


def test_resumption_without_a_share_uses_the_psk_alone() -> None:
    talk = Conversation(BY_NAME["1.3 resumed"])
    without = extension(E.KEY_SHARE, None)(talk.message("server_hello"))
    talk.deliver(talk.say(serialize(without)))
    assert talk.client.pending is None
    assert talk.last_alert is None
    talk = Conversation(BY_NAME["1.3 resumed"], psk_without_dhe=False)
    with pytest.raises(MissingExtension):
        talk.deliver(talk.say(serialize(without)))


@pytest.mark.parametrize("has_certificate", [True, False])
def test_a_certificate_request_is_answered_with_the_authoritys_certificate_or_none(has_certificate: bool) -> None:
    talk = Conversation(BY_NAME["1.3 client certificate"])
    talk.authority = ScriptedAuthority(has_certificate=has_certificate)
    talk.play()
    assert talk.client.session is not None
    assert talk.client.session.client_authenticated == has_certificate


def test_a_certificate_request_without_signature_algorithms_is_refused() -> None:
    """RFC 8446 section 4.3.2: "MUST include the signature_algorithms extension"."""
    talk = Conversation(BY_NAME["1.3 client certificate"]).play(2)
    empty = messages13.CertificateRequest(context=b"", extensions=Extensions())
    talk.deliver(talk.say(serialize(empty)))
    with pytest.raises(MissingExtension):
        for step in talk.script.steps[3:]:
            talk.deliver(talk.step(step))
    assert talk.last_alert == A.MISSING_EXTENSION


def test_an_unknown_extension_in_a_certificate_request_or_ticket_is_ignored() -> None:
    talk = Conversation(BY_NAME["1.3 client certificate"]).play(2)
    request = extension(0xFAFA, b"grease")(talk.message("certificate_request"))
    talk.deliver(talk.say(serialize(request)))
    for step in talk.script.steps[3:]:
        talk.deliver(talk.step(step))
    ticket = extension(0xFAFA, b"grease")(talk.message("new_session_ticket"))
    talk.deliver(talk.seal(ContentType.HANDSHAKE, serialize(ticket)))
    assert isinstance(talk.events[-1], TicketReceived)


def test_a_stapled_response_goes_to_the_authority_with_the_chain() -> None:
    talk = Conversation(BY_NAME["1.3"]).play(2)
    asked: list[Request] = []
    perform = talk.authority.perform
    talk.authority.perform = lambda requests: (asked.extend(requests), perform(requests))[1]  # type: ignore[method-assign]
    stapled = in_entry(E.STATUS_REQUEST, b"\x01\x00\x00\x04OCSP")(talk.message("certificate"))
    talk.deliver(talk.say(serialize(stapled)))
    for step in ("certificate_verify", "finished"):
        talk.deliver(talk.step(step))
    authenticate = asked[0]
    assert isinstance(authenticate, AuthenticateRequest)
    assert authenticate.chain.certificates == (CERTIFICATE,)
    assert authenticate.chain.ocsp_response == b"OCSP"


# --- record size limits (RFC 8449) --------------------------------------------------------------------------


def limited(server_limit: int = 100) -> Conversation:
    talk = Conversation(BY_NAME["1.3"], record_size_limit=128)
    talk.deliver(talk.step("server_hello"))
    answer = extension(E.RECORD_SIZE_LIMIT, server_limit.to_bytes(2, "big"))(talk.message("encrypted_extensions"))
    talk.deliver(talk.say(serialize(answer)))
    for step in ("certificate", "certificate_verify", "finished"):
        talk.deliver(talk.step(step))
    return talk


def test_our_records_keep_to_the_servers_limit_which_counts_the_content_type() -> None:
    talk = limited()
    before = len(talk.sent)
    talk.client.send_data(bytes(1000))
    talk._settle()
    assert talk.data == bytes(1000)
    lengths = []
    rest = talk.sent[before:]
    while rest:
        length = int.from_bytes(rest[3:5], "big")
        lengths.append(length)
        rest = rest[5 + length :]
    assert lengths == [100 + 16] * 10 + [10 + 1 + 16]


def test_a_record_beyond_our_limit_is_refused() -> None:
    talk = limited()
    talk.deliver(talk.seal(ContentType.APPLICATION_DATA, bytes(127)))
    assert talk.events[-1] == DataReceived(bytes(127))
    with pytest.raises(Exception, match="record_size_limit"):
        talk.deliver(talk.seal(ContentType.APPLICATION_DATA, bytes(128)))
    assert talk.last_alert == A.RECORD_OVERFLOW


# --- change of keys -------------------------------------------------------------------------------------------


def test_anything_left_of_the_old_epoch_when_the_key_changes_is_refused() -> None:
    """RFC 8446 section 5.1: "Handshake messages MUST NOT span key changes"."""
    for extra in (b"\x08", b"\x08\x00\x00\x00", bytes(20)):
        talk = Conversation(BY_NAME["1.3"])
        hello = serialize(talk.message("server_hello"))
        with pytest.raises(UnexpectedMessage):
            talk.deliver(record(ContentType.HANDSHAKE, hello + extra))
        assert talk.last_alert == A.UNEXPECTED_MESSAGE

        talk = Conversation(BY_NAME["1.3"]).play(4)
        finished = serialize(talk.message("finished"))
        with pytest.raises(UnexpectedMessage):
            talk.deliver(talk.seal(ContentType.HANDSHAKE, finished + extra))
        assert talk.last_alert == A.UNEXPECTED_MESSAGE


def test_a_plain_record_after_the_server_hello_is_refused() -> None:
    talk = Conversation(BY_NAME["1.3"]).play(1)
    with pytest.raises(UnexpectedMessage, match="unprotected"):
        talk.deliver(record(ContentType.HANDSHAKE, serialize(talk.message("encrypted_extensions"))))


@pytest.mark.parametrize("position", [0, 5, 20, -1])
def test_a_record_that_does_not_authenticate_is_refused(position: int) -> None:
    talk = Conversation(BY_NAME["1.3"]).play(1)
    data = bytearray(talk.step("encrypted_extensions"))
    if position == 0:
        data = bytearray(b"\x17\x03\x03\x00\x10" + bytes(16))
    else:
        data[position] ^= 1
    with pytest.raises(BadRecordMac):
        talk.deliver(bytes(data))
    assert talk.last_alert == A.BAD_RECORD_MAC


# --- determinism ----------------------------------------------------------------------------------------------


def test_the_same_randomness_and_answers_give_the_same_bytes() -> None:
    script = BY_NAME["1.3 client certificate"]
    first, second = Conversation(script).play(), Conversation(script).play()
    assert first.sent == second.sent
    replayed = Recording(script)
    replayed.deliver(b"".join(recorded(script)))
    assert replayed.sent == first.sent


def test_handshake_secrets_are_asked_for_with_the_hash_of_both_hellos() -> None:
    talk = Conversation(BY_NAME["1.3"])
    hello_bytes = talk.sent[5:]
    server = serialize(talk.message("server_hello"))
    talk.client.receive_data(record(ContentType.HANDSHAKE, server))
    (request,) = talk.client.pending or ()
    assert isinstance(request, HandshakeSecretsRequest)
    assert request.transcript_hash == SHA256.digest(hello_bytes + server)
    assert (request.group, request.key_share, request.cipher_suite) == (NamedGroup.X25519, bytes(32), 0x1301)
