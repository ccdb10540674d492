"""The TLS 1.2 client: every fault of a server that it must notice, resumption, and both key forms (A7)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.tls_faults import Fault, check, cut, extension, fields, lengthened
from tests.support.tls_script import (
    BY_NAME,
    CERTIFICATE,
    NOW,
    SERVER_NAME,
    SIGNATURE,
    Conversation,
    Script,
    ScriptedAuthority,
    server_key_exchange,
)

from locum.errors import DecodeError, Incompatible, OperationError, Refused
from locum.handshake import MAX_CHAIN, Request, Response
from locum.tls import messages12
from locum.tls.alerts import (
    AlertDescription,
    BadRecordMac,
    DecryptError,
    IllegalParameter,
    UnexpectedMessage,
    UnsupportedExtension,
    UnsupportedVersion,
)
from locum.tls.connection import DataReceived, TicketReceived
from locum.tls.extensions import write_alpn
from locum.tls.messages import DOWNGRADE_SENTINELS, serialize
from locum.tls.operations import (
    AuthenticateRequest,
    ClientCertificateRequest,
    ClientCertificateResponse,
    ClientKeyExchangeRequest,
    ClientKeyExchangeResponse,
    ClientSignatureRequest,
    KeyBlockResponse,
    KeyForm,
    MasterSecretResponse,
    ServerFinishedResponse,
)
from locum.tls.registry import (
    ContentType,
    ExtensionType,
    HandshakeType,
    NamedGroup,
    ProtocolVersion,
    SignatureScheme,
)
from locum.tls.session import MAX_TICKET
from locum.tls.signed_messages12 import signed_messages

E, A = ExtensionType, AlertDescription
ILLEGAL, DECODE, UNSUPPORTED = A.ILLEGAL_PARAMETER, A.DECODE_ERROR, A.UNSUPPORTED_EXTENSION
ECDHE = BY_NAME["1.2 ECDHE"]
RSA = BY_NAME["1.2 RSA"]
RESUMED = BY_NAME["1.2 resumed"]
ONLY12 = (ProtocolVersion.TLS_1_2,)


def hello(what: str, change: Any, error: Any, alert: A, **settings: Any) -> Fault:
    return Fault(what, "1.2 ECDHE", "server_hello", change, error, alert, tuple(settings.items()))


def exchange(what: str, body: bytes, error: Any, alert: A) -> Fault:
    return Fault(what, "1.2 ECDHE", "server_key_exchange", fields(body=body), error, alert)


def flight(what: str, step: str, change: Any, error: Any, alert: A) -> Fault:
    return Fault(what, "1.2 ECDHE", step, change, error, alert)


def resumed(what: str, change: Any, error: Any, alert: A) -> Fault:
    return Fault(what, "1.2 resumed", "server_hello", change, error, alert)


def flipped(message: Any) -> Any:
    data = message.verify_data
    return replace(message, verify_data=bytes((data[0] ^ 1,)) + data[1:])


def sentinel(index: int) -> Any:
    return fields(random=bytes(24) + DOWNGRADE_SENTINELS[index])


FAULTS = [
    # RFC 8446 section 4.1.3
    hello("sentinel of TLS 1.2", sentinel(0), IllegalParameter, ILLEGAL),
    hello("sentinel of TLS 1.1", sentinel(1), IllegalParameter, ILLEGAL),
    hello("version 1.1", fields(legacy_version=0x0302), UnsupportedVersion, A.PROTOCOL_VERSION),
    hello("version 1.3 without extension", fields(legacy_version=0x0304), UnsupportedVersion, A.PROTOCOL_VERSION),
    hello("SSL 3", fields(legacy_version=0x0300), UnsupportedVersion, A.PROTOCOL_VERSION),
    hello(
        "TLS 1.3 that is not offered",
        extension(E.SUPPORTED_VERSIONS, b"\3\4"),
        IllegalParameter,
        ILLEGAL,
        versions=ONLY12,
    ),
    # RFC 5246 section 7.4.1.3
    hello("suite that nobody knows", fields(cipher_suite=0xC02E), IllegalParameter, ILLEGAL),
    hello("suite of TLS 1.3", fields(cipher_suite=0x1301), IllegalParameter, ILLEGAL),
    hello("CBC", fields(cipher_suite=0xC013), IllegalParameter, ILLEGAL),
    hello("suite not offered", fields(), IllegalParameter, ILLEGAL, cipher_suites=(0xC030, 0x1301)),
    hello("compression", fields(compression_method=1), IllegalParameter, ILLEGAL),
    hello("session id of 33 bytes", lambda m: serialize(replace(m, session_id=bytes(33))), DecodeError, DECODE),
    hello("unknown extension", extension(0xFAFA, b""), UnsupportedExtension, UNSUPPORTED),
    hello("ALPN not offered", extension(16, write_alpn(("h2",))), UnsupportedExtension, UNSUPPORTED, alpn=()),
    hello("protocol not offered", extension(16, write_alpn(("mqtt",))), IllegalParameter, ILLEGAL),
    hello("extension of another message", extension(E.KEY_SHARE, b""), IllegalParameter, ILLEGAL),
    hello("signature_algorithms", extension(E.SIGNATURE_ALGORITHMS, b"\0\2\4\1"), IllegalParameter, ILLEGAL),
    hello("server_name with content", extension(E.SERVER_NAME, b"x"), DecodeError, DECODE),
    hello("status_request with content", extension(E.STATUS_REQUEST, b"x"), DecodeError, DECODE),
    hello("session_ticket with content", extension(E.SESSION_TICKET, b"x"), DecodeError, DECODE),
    hello("extended_master_secret with content", extension(E.EXTENDED_MASTER_SECRET, b"x"), DecodeError, DECODE),
    hello("no uncompressed points", extension(E.EC_POINT_FORMATS, b"\1\1"), IllegalParameter, ILLEGAL),
    hello("no point formats", extension(E.EC_POINT_FORMATS, b"\0"), DecodeError, DECODE),
    hello("renegotiates", extension(E.RENEGOTIATION_INFO, b"\x02ab"), Incompatible, A.HANDSHAKE_FAILURE),
    hello(
        "record_size_limit below 64",
        extension(E.RECORD_SIZE_LIMIT, b"\0\x3f"),
        IllegalParameter,
        ILLEGAL,
        record_size_limit=512,
    ),
    hello("cut", cut(), DecodeError, DECODE),
    hello("lengthened", lengthened(), DecodeError, DECODE),
    # RFC 5246 section 7.4.2, RFC 6066 section 8
    flight("no certificate", "certificate", fields(certificates=()), IllegalParameter, ILLEGAL),
    flight("empty certificate", "certificate", fields(certificates=(b"",)), DecodeError, DECODE),
    flight("11 certificates", "certificate", fields(certificates=(CERTIFICATE,) * 11), DecodeError, DECODE),
    flight("cut", "certificate", cut(), DecodeError, DECODE),
    flight("lengthened", "certificate", lengthened(), DecodeError, DECODE),
    flight("empty status", "certificate_status", fields(ocsp_response=b""), DecodeError, DECODE),
    flight("lengthened", "certificate_status", lengthened(), DecodeError, DECODE),
    # RFC 8422 section 5.4
    exchange("empty", b"", DecodeError, DECODE),
    exchange("explicit prime curve", b"\1" + server_key_exchange()[1:], IllegalParameter, ILLEGAL),
    exchange("group not offered", server_key_exchange(group=NamedGroup.X448), IllegalParameter, ILLEGAL),
    exchange("unknown group", server_key_exchange(group=0x0019), IllegalParameter, ILLEGAL),
    exchange("scheme not offered", server_key_exchange(scheme=0x0807), IllegalParameter, ILLEGAL),
    exchange("SHA-1", server_key_exchange(scheme=0x0201), IllegalParameter, ILLEGAL),
    exchange(
        "ECDSA in an RSA suite",
        server_key_exchange(scheme=SignatureScheme.ECDSA_SECP256R1_SHA256),
        IllegalParameter,
        ILLEGAL,
    ),
    exchange("empty point", b"\3\0\x1d\0\x08\x04\0\1x", DecodeError, DECODE),
    exchange("empty signature", b"\3\0\x1d\1x\x08\x04\0\0", DecodeError, DECODE),
    exchange("cut", server_key_exchange()[:-1], DecodeError, DECODE),
    exchange("lengthened", server_key_exchange() + b"x", DecodeError, DECODE),
    # RFC 5246 section 7.4.4
    flight("no certificate types", "certificate_request", fields(certificate_types=b""), DecodeError, DECODE),
    flight("no schemes", "certificate_request", fields(schemes=()), DecodeError, DECODE),
    flight("empty name", "certificate_request", fields(authorities=(b"",)), DecodeError, DECODE),
    flight("cut", "certificate_request", cut(), DecodeError, DECODE),
    flight("lengthened", "certificate_request", lengthened(), DecodeError, DECODE),
    flight("lengthened", "server_hello_done", lengthened(), DecodeError, DECODE),
    flight("lengthened", "new_session_ticket", lengthened(), DecodeError, DECODE),
    # RFC 5246 section 7.4.9
    flight("wrong by a bit", "finished", flipped, DecryptError, A.DECRYPT_ERROR),
    flight("cut", "finished", cut(), DecryptError, A.DECRYPT_ERROR),
    flight("empty", "finished", fields(verify_data=b""), DecryptError, A.DECRYPT_ERROR),
    flight("lengthened", "finished", lengthened(), DecryptError, A.DECRYPT_ERROR),
    Fault("wrong by a bit", "1.2 RSA", "finished", flipped, DecryptError, A.DECRYPT_ERROR),
    Fault("wrong by a bit", "1.2 resumed", "finished", flipped, DecryptError, A.DECRYPT_ERROR),
    # RFC 7627 section 5.3 and RFC 5246 section 7.4.1.3
    resumed("without RFC 7627", extension(E.EXTENDED_MASTER_SECRET, None), Incompatible, A.HANDSHAKE_FAILURE),
    resumed("with another suite", fields(cipher_suite=0xC030), IllegalParameter, ILLEGAL),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_of_the_server_is_answered_with_the_right_alert(fault: Fault) -> None:
    check(fault)


def test_the_sentinel_means_nothing_to_a_client_that_did_not_offer_tls_13() -> None:
    for index in (0, 1):
        talk = Conversation(ECDHE, versions=ONLY12)
        talk.deliver(talk.say(serialize(sentinel(index)(talk.message("server_hello"))), after="server_hello"))
        assert talk.last_alert is None


# --- what the authority is asked (A1) -----------------------------------------------------------------------


def asked_in(script: Script, **settings: Any) -> tuple[Conversation, list[tuple[Request, ...]]]:
    """A whole conversation and the batches of requests in it."""
    talk = Conversation(script, **settings)
    batches: list[tuple[Request, ...]] = []
    perform = talk.authority.perform
    talk.authority.perform = lambda requests: (batches.append(tuple(requests)), perform(requests))[1]  # type: ignore[method-assign]
    talk.play()
    return talk, batches


def names(batches: list[tuple[Request, ...]]) -> list[list[str]]:
    return [[type(request).__name__ for request in batch] for batch in batches]


def test_authentication_comes_before_the_key_exchange_in_the_same_round_trip() -> None:
    talk, batches = asked_in(ECDHE)
    assert names(batches) == [
        ["AuthenticateRequest", "ClientCertificateRequest", "ClientKeyExchangeRequest"],
        ["ClientSignatureRequest", "SessionKeysRequest"],
    ]
    authenticate, certificate, exchange = batches[0]
    parameters = server_key_exchange()[: -4 - len(SIGNATURE)]
    assert isinstance(authenticate, AuthenticateRequest)
    assert talk.hello is not None
    assert authenticate.content == talk.hello.random + b"\x77" * 32 + parameters
    assert authenticate.signature == SIGNATURE
    assert authenticate.chain.ocsp_response == b"an OCSP response"
    assert isinstance(certificate, ClientCertificateRequest)
    assert certificate.authorities == (b"0\0",)
    assert isinstance(exchange, ClientKeyExchangeRequest)
    assert exchange.parameters == parameters


def test_rsa_key_exchange_has_nothing_signed_and_no_parameters() -> None:
    _, batches = asked_in(RSA)
    assert names(batches) == [
        ["AuthenticateRequest", "ClientKeyExchangeRequest"],
        ["SessionKeysRequest"],
        ["ServerFinishedRequest"],
    ]
    authenticate = batches[0][0]
    assert isinstance(authenticate, AuthenticateRequest)
    assert (authenticate.scheme, authenticate.signature, authenticate.content) == (0, b"", b"")


def test_where_the_delegate_keeps_the_secret_the_signature_costs_a_round_trip() -> None:
    talk, batches = asked_in(replace(ECDHE, form=KeyForm.KEYS))
    assert names(batches)[1:] == [["ClientSignatureRequest"], ["SessionKeysRequest"], ["ServerFinishedRequest"]]
    assert not any(isinstance(event, TicketReceived) for event in talk.events)
    assert talk.client.session is not None
    with pytest.raises(Refused):
        talk.client.session.export_keying_material("EXPORTER-x", b"", 8)


def test_for_its_signature_the_authority_is_told_only_what_it_cannot_know() -> None:
    steps = [*RSA.steps]
    steps.insert(steps.index("server_hello_done"), "certificate_request")
    for script in (ECDHE, replace(ECDHE, form=KeyForm.KEYS), replace(RSA, steps=tuple(steps))):
        talk, batches = asked_in(script)
        asked = [request for batch in batches for request in batch]
        (authenticate,) = [request for request in asked if isinstance(request, AuthenticateRequest)]
        (signature,) = [request for request in asked if isinstance(request, ClientSignatureRequest)]
        assert CERTIFICATE not in signature.content
        certificates, exchange = (talk.authority.perform((request,))[0] for request in asked[1:3])
        assert isinstance(certificates, ClientCertificateResponse)
        assert isinstance(exchange, ClientKeyExchangeResponse)
        signed = signed_messages(
            signature.content,
            seen=authenticate,
            certificates=certificates.certificates,
            key_exchange=exchange.body,
        )
        assert talk._transcript.startswith(signed)
        assert talk._transcript[len(signed)] == HandshakeType.CERTIFICATE_VERIFY


def test_a_chain_that_no_authority_takes_is_the_peers_fault() -> None:
    long = fields(certificates=(bytes(MAX_CHAIN // 2),) * 2)
    talk = Conversation(ECDHE).play(1)
    talk.deliver(talk.say(serialize(long(talk.message("certificate")))))
    talk.deliver(talk.step("certificate_status") + talk.step("server_key_exchange"))
    with pytest.raises(DecodeError, match="chain"):
        talk.deliver(talk.step("certificate_request") + talk.step("server_hello_done"))
    assert talk.last_alert == DECODE


def test_a_certificate_status_may_be_left_out_although_agreed() -> None:
    for script in (ECDHE, RSA):
        steps = tuple(step for step in script.steps if step != "certificate_status")
        assert Conversation(replace(script, steps=steps)).play().client.handshake_complete


def test_without_a_certificate_request_none_is_sent() -> None:
    steps = tuple(step for step in ECDHE.steps if step != "certificate_request")
    talk = Conversation(replace(ECDHE, steps=steps)).play()
    assert talk.client.session is not None
    assert not talk.client.session.client_authenticated


@pytest.mark.parametrize("wanted", [True, False])
def test_a_certificate_request_is_answered_with_an_empty_certificate_where_there_is_none(wanted: bool) -> None:
    talk = Conversation(ECDHE, client_certificate=wanted)
    talk.authority = ScriptedAuthority(has_certificate=False)
    talk.play()
    assert b"\x0b\x00\x00\x03\x00\x00\x00" in talk.sent
    assert talk.client.session is not None
    assert not talk.client.session.client_authenticated


# --- tickets (RFC 5077) ---------------------------------------------------------------------------------------


def ticket_of(talk: Conversation) -> Any:
    (event,) = [event for event in talk.events if isinstance(event, TicketReceived)]
    return event.ticket


def test_a_ticket_has_the_lifetime_that_the_server_names_or_a_default() -> None:
    ticket = ticket_of(Conversation(ECDHE).play())
    assert (ticket.issued_at, ticket.lifetime, ticket.server_name) == (NOW, 300, SERVER_NAME)
    talk = Conversation(ECDHE).play(6)
    talk.deliver(talk.say(serialize(messages12.NewSessionTicket(lifetime_hint=0, ticket=b"t"))))
    for step in ("change_cipher_spec", "finished"):
        talk.deliver(talk.step(step))
    assert ticket_of(talk).lifetime == 7200


def test_an_empty_ticket_is_no_ticket() -> None:
    talk = Conversation(ECDHE).play(6)
    talk.deliver(talk.say(serialize(messages12.NewSessionTicket(lifetime_hint=9, ticket=b""))))
    for step in ("change_cipher_spec", "finished"):
        talk.deliver(talk.step(step))
    assert not any(isinstance(event, TicketReceived) for event in talk.events)


def test_a_ticket_that_no_client_hello_could_hold_is_no_ticket() -> None:
    talk = Conversation(ECDHE).play(6)
    talk.deliver(talk.say(serialize(messages12.NewSessionTicket(lifetime_hint=9, ticket=bytes(MAX_TICKET + 1)))))
    for step in ("change_cipher_spec", "finished"):
        talk.deliver(talk.step(step))
    assert not any(isinstance(event, TicketReceived) for event in talk.events)


def test_a_ticket_that_the_server_leaves_aside_leads_to_a_full_handshake() -> None:
    talk = Conversation(replace(ECDHE, settings=RESUMED.settings)).play()
    assert talk.client.session is not None
    assert not talk.client.session.resumed


def test_a_resumed_session_has_the_identity_of_the_one_it_came_from() -> None:
    talk, batches = asked_in(RESUMED)
    assert batches == []
    session = talk.client.session
    assert session is not None
    assert session.resumed
    assert (session.peer_identity, session.peer_certificates, session.group) == (f"dns:{SERVER_NAME}", (), None)


def test_a_session_without_rfc_7627_gives_neither_ticket_nor_exporter() -> None:
    """Its master secret is not bound to this handshake, so it must not outlive it (RFC 7627 section 5.4)."""
    talk = Conversation(ECDHE)
    hello = extension(E.EXTENDED_MASTER_SECRET, None)(talk.message("server_hello"))
    talk.deliver(talk.say(serialize(hello), after="server_hello"))
    for step in ECDHE.steps[1:]:
        talk.deliver(talk.step(step))
    assert not any(isinstance(event, TicketReceived) for event in talk.events)
    assert talk.client.session is not None
    with pytest.raises(Refused):
        talk.client.session.export_keying_material("EXPORTER-x", b"", 8)


# --- records ------------------------------------------------------------------------------------------------


def test_record_size_limit_of_tls_12_counts_content_only() -> None:
    talk = Conversation(ECDHE, record_size_limit=128)
    limited = extension(E.RECORD_SIZE_LIMIT, b"\0\x64")(talk.message("server_hello"))
    talk.deliver(talk.say(serialize(limited), after="server_hello"))
    for step in ECDHE.steps[1:]:
        talk.deliver(talk.step(step))
    before = len(talk.sent)
    talk.client.send_data(bytes(250))
    talk._settle()
    assert talk.data == bytes(250)
    assert len(talk.sent) - before == 250 + 3 * (5 + 8 + 16)
    talk.deliver(talk.seal(ContentType.APPLICATION_DATA, bytes(128)))
    assert talk.events[-1] == DataReceived(bytes(128))
    with pytest.raises(Exception, match="129 bytes"):
        talk.deliver(talk.seal(ContentType.APPLICATION_DATA, bytes(129)))
    assert talk.last_alert == A.RECORD_OVERFLOW


def test_a_finished_in_clear_is_refused() -> None:
    talk = Conversation(ECDHE).play(8)
    finished = serialize(talk.message("finished"))
    with pytest.raises(BadRecordMac):
        talk.deliver(b"\x16\x03\x03" + len(finished).to_bytes(2, "big") + finished)
    assert talk.last_alert == A.BAD_RECORD_MAC


def test_a_handshake_message_that_spans_change_cipher_spec_is_refused() -> None:
    talk = Conversation(ECDHE).play(7)
    talk.deliver(talk.seal(ContentType.HANDSHAKE, b"\x14\x00"))
    with pytest.raises(UnexpectedMessage):
        talk.deliver(talk.step("change_cipher_spec"))


def test_a_request_to_renegotiate_is_ignored_during_and_refused_after_the_handshake() -> None:
    request = serialize(messages12.HelloRequest())
    talk = Conversation(ECDHE).play(1)
    talk.deliver(talk.seal(ContentType.HANDSHAKE, request))
    for step in ECDHE.steps[1:]:
        talk.deliver(talk.step(step))
    assert talk.alerts == []
    talk.deliver(talk.seal(ContentType.HANDSHAKE, request))
    assert talk.alerts == [(1, A.NO_RENEGOTIATION)]
    talk.client.send_data(b"still here")
    talk._settle()
    assert talk.data == b"still here"


# --- nonsense of the authority ------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 47, 49])
def test_a_master_secret_of_another_length_is_the_authoritys_fault(length: int) -> None:
    class Odd(ScriptedAuthority):
        def _keys12(self, request: Any) -> Response:
            super()._keys12(request)
            return MasterSecretResponse(secret=bytes(length))

    talk = Conversation(ECDHE)
    talk.authority = Odd()
    with pytest.raises(OperationError, match="not 48"):
        talk.play()
    assert talk.last_alert == A.INTERNAL_ERROR


@pytest.mark.parametrize(
    "answer",
    [
        KeyBlockResponse(key_block=bytes(39), client_verify_data=bytes(12)),
        KeyBlockResponse(key_block=bytes(104), client_verify_data=bytes(12)),
        KeyBlockResponse(key_block=bytes(40), client_verify_data=bytes(32)),
        MasterSecretResponse(secret=bytes(48)),
        ServerFinishedResponse(server_verify_data=bytes(11)),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_keys_of_another_length_are_the_authoritys_fault(answer: Response) -> None:
    class Odd(ScriptedAuthority):
        def _one(self, request: Request) -> Response:
            response = super()._one(request)
            replaced = ServerFinishedResponse if isinstance(answer, ServerFinishedResponse) else KeyBlockResponse
            return answer if isinstance(response, replaced) else response

    talk = Conversation(RSA)
    talk.authority = Odd(form=KeyForm.KEYS)
    with pytest.raises(OperationError):
        talk.play()
    assert talk.last_alert == A.INTERNAL_ERROR
