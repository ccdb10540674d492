"""The TLS server after the ClientHello: faults of clients and of answerers, early data, and what comes later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.tls_faults import cut, extension, fields, lengthened
from tests.support.tls_script import CERTIFICATE, TLS12, TLS13, record
from tests.support.tls_server_script import (
    BY_NAME,
    CLIENT_IDENTITY,
    OCSP,
    SCRIPTS,
    Conversation,
    Script,
    ScriptedAnswerer,
)

from locum.errors import DecodeError, Incompatible, LocumError, Misbehaved, OperationError, Refused
from locum.handshake import MAX_CHAIN, Fault, PeerRejected, Request, Response, Verdict
from locum.tls import messages12, messages13
from locum.tls.alerts import (
    AlertDescription,
    AlertLevel,
    AlertReceived,
    BadRecordMac,
    CertificateRequired,
    DecryptError,
    IllegalParameter,
    UnexpectedMessage,
    UnsupportedExtension,
)
from locum.tls.connection import MAX_IDLE_MESSAGES, MAX_WAITING, DataReceived, ServerConnection
from locum.tls.extensions import Extensions
from locum.tls.messages import Finished, serialize
from locum.tls.messages13 import KeyUpdate
from locum.tls.operations import MasterSecretResponse
from locum.tls.receiving import parse_message
from locum.tls.record import protection
from locum.tls.registry import CIPHER_SUITES, ContentType, ExtensionType, HandshakeType
from locum.tls.server13 import MAX_EARLY_DATA
from locum.tls.server_configuration import ClientCertificates
from locum.tls.server_operations import (
    ClientAuthenticateRequest,
    ServerMasterSecretRequest,
    ServerShareRequest,
    ServerShareResponse,
)

E, A = ExtensionType, AlertDescription
S13, S12 = BY_NAME["1.3"], BY_NAME["1.2 ECDHE"]
ASKING = {TLS13: BY_NAME["1.3 client certificate"], TLS12: BY_NAME["1.2 client certificate"]}
DATA, HANDSHAKE = ContentType.APPLICATION_DATA, ContentType.HANDSHAKE


def established(script: Script = S13, **settings: Any) -> Conversation:
    talk = Conversation(script, **settings).play()
    talk.events.clear()
    return talk


def at(script: Script, step: str, **settings: Any) -> Conversation:
    """The conversation in which this step is due."""
    return Conversation(script, **settings).play(script.steps.index(step))


# --- the client's messages ----------------------------------------------------------------------------------


def flipped(message: Finished) -> Finished:
    return replace(message, verify_data=bytes((message.verify_data[0] ^ 1,)) + message.verify_data[1:])


FAULTS: tuple[tuple[str, str, str, Any, type[LocumError], AlertDescription], ...] = (
    ("1.3", "finished", "another value", flipped, DecryptError, A.DECRYPT_ERROR),
    ("1.3", "finished", "a shorter value", cut(), DecryptError, A.DECRYPT_ERROR),
    ("1.3", "finished", "empty", fields(verify_data=b""), DecryptError, A.DECRYPT_ERROR),
    ("1.3 resumed", "finished", "another value", flipped, DecryptError, A.DECRYPT_ERROR),
    ("1.2 ECDHE", "finished", "another value", flipped, DecryptError, A.DECRYPT_ERROR),
    ("1.2 ECDHE", "finished", "a longer value", lengthened(), DecryptError, A.DECRYPT_ERROR),
    ("1.2 resumed", "finished", "another value", flipped, DecryptError, A.DECRYPT_ERROR),
    (
        "1.3 client certificate",
        "certificate",
        "a context",
        fields(context=b"x"),
        IllegalParameter,
        A.ILLEGAL_PARAMETER,
    ),
    (
        "1.3 client certificate",
        "certificate",
        "an extension",
        fields(entries=((CERTIFICATE, Extensions(((5, b""),))),)),
        UnsupportedExtension,
        A.UNSUPPORTED_EXTENSION,
    ),
    ("1.3 client certificate", "certificate", "cut short", cut(), DecodeError, A.DECODE_ERROR),
    ("1.2 client certificate", "certificate", "cut short", cut(), DecodeError, A.DECODE_ERROR),
    (
        "1.3 client certificate",
        "certificate_verify",
        "PKCS#1",
        fields(scheme=0x0401),
        IllegalParameter,
        A.ILLEGAL_PARAMETER,
    ),
    (
        "1.3 client certificate",
        "certificate_verify",
        "a scheme not offered",
        fields(scheme=0x0203),
        IllegalParameter,
        A.ILLEGAL_PARAMETER,
    ),
    (
        "1.2 client certificate",
        "certificate_verify",
        "a scheme not offered",
        fields(scheme=0x0203),
        IllegalParameter,
        A.ILLEGAL_PARAMETER,
    ),
    (
        "1.2 client certificate",
        "certificate_verify",
        "a scheme of TLS 1.3",
        fields(scheme=0x0905),
        IllegalParameter,
        A.ILLEGAL_PARAMETER,
    ),
    (
        "1.2 client certificate",
        "certificate_verify",
        "no signature",
        fields(signature=b""),
        DecodeError,
        A.DECODE_ERROR,
    ),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: ", ".join(fault[:3]))
def test_a_faulty_message_of_the_client_ends_the_handshake_with_the_alert_that_fits(fault: Any) -> None:
    script, step, _, change, error, alert = fault
    talk = at(BY_NAME[script], step)
    said = change(talk.message(step))
    with pytest.raises(error):
        talk.deliver(talk.say(said if isinstance(said, bytes) else serialize(said)))
    assert talk.last_alert == alert
    assert not talk.server.handshake_complete


@pytest.mark.parametrize("version", [TLS13, TLS12], ids=lambda version: version.name)
def test_a_chain_that_no_authority_would_take_is_the_clients_fault(version: Any) -> None:
    talk = at(ASKING[version], "certificate")
    long = bytes(MAX_CHAIN + 1)
    message: Any = messages12.Certificate(certificates=(long,))
    if version is TLS13:
        message = messages13.Certificate(entries=((long, Extensions()),))
    with pytest.raises(DecodeError, match="chain"):
        talk.deliver(talk.say(serialize(message)))
        if version is TLS12:
            talk.deliver(talk.step("client_key_exchange"))
        talk.deliver(talk.step("certificate_verify"))
    assert talk.last_alert == A.DECODE_ERROR


@pytest.mark.parametrize(
    ("version", "error", "alert"),
    [(TLS13, CertificateRequired, A.CERTIFICATE_REQUIRED), (TLS12, Incompatible, A.HANDSHAKE_FAILURE)],
    ids=["TLS_1_3", "TLS_1_2"],
)
def test_no_certificate_is_enough_only_where_it_is_optional(version: Any, error: Any, alert: Any) -> None:
    empty: Any = (
        messages13.Certificate(entries=()) if version is TLS13 else messages12.Certificate(certificates=())
    )
    talk = at(ASKING[version], "certificate")
    talk.deliver(talk.say(serialize(empty)))
    steps = ["finished"] if version is TLS13 else ["client_key_exchange", "change_cipher_spec", "finished"]
    for step in steps:
        talk.deliver(talk.step(step))
    assert talk.server.session is not None
    assert not talk.server.session.client_authenticated
    assert talk.server.session.peer_identity == ""

    talk = at(ASKING[version], "certificate", client_certificates=ClientCertificates.REQUIRED)
    with pytest.raises(error):
        talk.deliver(talk.say(serialize(empty)))
    assert talk.last_alert == alert


@pytest.mark.parametrize("version", [TLS13, TLS12], ids=lambda version: version.name)
def test_a_certificate_request_says_what_is_configured(version: Any) -> None:
    names = (b"0\x03one", b"0\x03two")
    schemes = (0x0804, 0x0905)
    talk = Conversation(ASKING[version], client_authorities=names, client_schemes=schemes).play(1)
    raw = talk.heard[HandshakeType.CERTIFICATE_REQUEST]
    if version is TLS13:
        asked = parse_message(messages13.CertificateRequest, raw)
        assert asked.extensions.get(E.SIGNATURE_ALGORITHMS) == b"\0\4\x08\x04\x09\x05"
        assert asked.extensions.get(E.CERTIFICATE_AUTHORITIES) == b"\0\x0e\0\x050\x03one\0\x050\x03two"
        return
    # ML-DSA is for TLS 1.3 alone.
    assert parse_message(messages12.CertificateRequest, raw) == messages12.CertificateRequest(
        certificate_types=b"\x01\x40", schemes=(0x0804,), authorities=names
    )


def test_a_client_is_asked_for_a_certificate_in_a_full_handshake_alone() -> None:
    for script in SCRIPTS:
        settings = {"client_certificates": ClientCertificates.OPTIONAL}
        asked = HandshakeType.CERTIFICATE_REQUEST in Conversation(script, **settings).play(1).heard
        assert asked == (not script.resumes and script.name != "1.3 retry")


# --- the answerer -------------------------------------------------------------------------------------------


class Answering(ScriptedAnswerer):
    """Answers requests of this kind with this, or raises it."""

    def __init__(self, kind: type[Request], answer: Response | LocumError) -> None:
        self.kind, self.answer = kind, answer
        self.seen: list[Request] = []

    def _one(self, request: Request) -> Response:
        self.seen.append(request)
        if not isinstance(request, self.kind):
            return super()._one(request)
        if isinstance(self.answer, LocumError):
            raise self.answer
        return self.answer


def conversation(script: Script, kind: type[Request], answer: Response | LocumError) -> Conversation:
    talk = Conversation(script)
    talk.answerer = Answering(kind, answer)
    return talk


@pytest.mark.parametrize("version", [TLS13, TLS12], ids=lambda version: version.name)
@pytest.mark.parametrize(
    ("verdict", "alert"),
    [
        (Verdict(authentic=False, allowed=False, fault=Fault.UNKNOWN_ISSUER, reason="x"), A.UNKNOWN_CA),
        (Verdict(authentic=False, allowed=False, fault=Fault.BAD_SIGNATURE, reason="x"), A.DECRYPT_ERROR),
        (Verdict(authentic=True, allowed=False, fault=Fault.POLICY, reason="x"), A.ACCESS_DENIED),
    ],
    ids=["issuer", "signature", "policy"],
)
def test_a_client_that_is_rejected_learns_by_alert_why(version: Any, verdict: Verdict, alert: Any) -> None:
    talk = conversation(ASKING[version], ClientAuthenticateRequest, verdict)
    with pytest.raises(PeerRejected):
        talk.play()
    assert talk.last_alert == alert
    assert not talk.server.handshake_complete


@pytest.mark.parametrize("version", [TLS13, TLS12], ids=lambda version: version.name)
def test_a_client_is_judged_by_what_it_signed_in_this_handshake(version: Any) -> None:
    talk = Conversation(ASKING[version])
    answering = Answering(ServerShareRequest, ServerShareResponse(key_share=bytes(32), secret=b"\x5a" * 32))
    talk.answerer = answering
    script = talk.script
    for step in script.steps[: script.steps.index("certificate_verify")]:
        talk.deliver(talk.step(step))
    before = talk._transcript
    for step in script.steps[script.steps.index("certificate_verify") :]:
        talk.deliver(talk.step(step))
    (judged,) = [request for request in answering.seen if isinstance(request, ClientAuthenticateRequest)]
    assert judged.version == version
    assert judged.content == (before if version is TLS12 else script.suite.hash.digest(before))
    assert judged.chain.certificates == (CERTIFICATE,)
    assert talk.server.session is not None
    assert talk.server.session.peer_identity == CLIENT_IDENTITY
    assert talk.server.session.peer_certificates == (CERTIFICATE,)


def test_in_tls_13_nobody_is_judged_before_the_finished_has_been_verified() -> None:
    talk = at(ASKING[TLS13], "finished")
    said = flipped(talk.message("finished"))  # type: ignore[arg-type]
    answering = Answering(ClientAuthenticateRequest, Refused("too early"))
    talk.answerer = answering
    with pytest.raises(DecryptError):
        talk.deliver(talk.say(serialize(said)))
    assert answering.seen == []


@pytest.mark.parametrize("name", ["1.2 ECDHE", "1.2 RSA", "1.2 client certificate"])
def test_the_master_secret_is_asked_for_with_all_messages_up_to_the_client_key_exchange(name: str) -> None:
    talk = Conversation(BY_NAME[name])
    answering = Answering(ServerShareRequest, Refused("not in TLS 1.2"))
    talk.answerer = answering
    script = talk.script
    for step in script.steps[: script.steps.index("client_key_exchange") + 1]:
        talk.deliver(talk.step(step))
    messages = talk._transcript
    for step in script.steps[script.steps.index("client_key_exchange") + 1 :]:
        talk.deliver(talk.step(step))
    (asked,) = [request for request in answering.seen if isinstance(request, ServerMasterSecretRequest)]
    assert asked.messages == messages
    assert asked.messages.endswith(asked.key_exchange)
    assert asked.client_random in messages
    assert asked.server_random in messages
    assert asked.extended
    assert (asked.random_seed == b"\x77" * 32) == (name == "1.2 RSA")
    assert asked.cipher_suite == script.suite.code


def test_a_pre_master_secret_that_is_no_good_looks_like_any_wrong_key() -> None:
    """RFC 5246 section 7.4.7.1: the handshake goes on with another secret, and ends at the Finished."""
    other = MasterSecretResponse(secret=bytes(48))
    for name in ("1.2 RSA", "1.2 ECDHE"):
        talk = conversation(BY_NAME[name], ServerMasterSecretRequest, other).play(2)
        assert talk.alerts == []
        talk.deliver(talk.step("change_cipher_spec"))
        assert talk.alerts == []
        with pytest.raises(BadRecordMac):
            talk.deliver(talk.step("finished"))
        assert talk.last_alert == A.BAD_RECORD_MAC


@pytest.mark.parametrize(
    ("name", "kind", "answer"),
    [
        ("1.2 ECDHE", ServerMasterSecretRequest, MasterSecretResponse(secret=bytes(47))),
        ("1.3", ServerShareRequest, ServerShareResponse(key_share=b"", secret=b"x")),
        ("1.3", ServerShareRequest, ServerShareResponse(key_share=b"x", secret=b"")),
        ("1.3 resumed", ServerShareRequest, ServerShareResponse(key_share=b"", secret=b"x")),
        ("1.3", ServerShareRequest, MasterSecretResponse(secret=b"x")),
    ],
    ids=["master secret", "key share", "secret", "resumed", "another answer"],
)
def test_what_an_answerer_gets_wrong_is_our_fault(name: str, kind: type[Request], answer: Response) -> None:
    talk = conversation(BY_NAME[name], kind, answer)
    with pytest.raises(OperationError):
        talk.play()
    assert talk.last_alert == A.INTERNAL_ERROR


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
@pytest.mark.parametrize(
    ("error", "alert"),
    [
        (Refused("no"), A.INTERNAL_ERROR),
        (Misbehaved("the share is no point"), A.ILLEGAL_PARAMETER),
        (DecodeError("not even a vector"), A.DECODE_ERROR),
    ],
    ids=["refused", "misbehaved", "decode"],
)
def test_an_operation_that_fails_ends_the_handshake_with_its_alert(
    script: Script, error: LocumError, alert: Any
) -> None:
    operations = 0
    while True:
        talk = Conversation(script)
        done = 0
        try:
            for step in script.steps:
                talk.server.receive_data(talk.step(step))
                while talk.server.pending is not None:
                    if done == operations:
                        talk.server.fail(error)
                    done += 1
                    talk.server.answer(talk.answerer.perform(talk.server.pending))
                talk._settle()
        except LocumError as raised:
            assert raised is error
            talk._settle()
            assert talk.last_alert == alert
            operations += 1
            continue
        break
    assert talk.server.handshake_complete
    expected = {"1.3": 2, "1.3 retry": 2, "1.3 resumed": 1, "1.3 client certificate": 3, "1.2 ECDHE": 3}
    expected |= {"1.2 RSA": 2, "1.2 client certificate": 3, "1.2 resumed": 0}
    assert operations == expected[script.name]


# --- OCSP, record sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [True, False], ids=["asked for", "not asked for"])
@pytest.mark.parametrize("script", [S13, S12], ids=str)
def test_an_ocsp_response_is_stapled_when_the_client_asks(script: Script, asked: bool) -> None:
    talk = Conversation(script)
    hello = talk.client_hello()
    if not asked:
        hello = extension(E.STATUS_REQUEST, None)(hello)
    talk.deliver(talk.say(serialize(hello), after="client_hello"))
    if script is S13:
        shown = parse_message(messages13.Certificate, talk.heard[HandshakeType.CERTIFICATE]).chain().ocsp_response
        assert shown == (OCSP if asked else b"")
        return
    assert (talk.server_hello.extensions.get(E.STATUS_REQUEST) == b"") == asked
    assert (HandshakeType.CERTIFICATE_STATUS in talk.heard) == asked
    if asked:
        status = parse_message(messages12.CertificateStatus, talk.heard[HandshakeType.CERTIFICATE_STATUS])
        assert status.ocsp_response == OCSP


@pytest.mark.parametrize("script", [S13, S12, BY_NAME["1.3 resumed"], BY_NAME["1.2 resumed"]], ids=str)
def test_record_sizes_are_agreed_in_both_directions(script: Script) -> None:
    talk = Conversation(script, record_size_limit=200)
    hello = extension(E.RECORD_SIZE_LIMIT, b"\0\x64")(talk.client_hello())
    if script.name == "1.3 resumed":
        hello = talk.with_psk(hello)
    talk.deliver(talk.say(serialize(hello), after="client_hello"))
    for step in script.steps[1:]:
        talk.deliver(talk.step(step))
    before = len(talk.sent)
    talk.server.send_data(bytes(500))
    talk._settle()
    assert talk.data == bytes(500)
    content = 99 if script.version is TLS13 else 100
    assert len(talk.sent) - before > 500 + 5 * (500 // content)
    with pytest.raises(LocumError, match="record"):
        talk.deliver(talk.seal(DATA, bytes(201)))
    assert talk.last_alert == A.RECORD_OVERFLOW


def test_without_our_limit_the_clients_is_not_answered() -> None:
    talk = Conversation(S12).play(1)
    assert talk.server_hello.extensions.get(E.RECORD_SIZE_LIMIT) is None


# --- early data, alerts in clear ----------------------------------------------------------------------------


def early(length: int) -> bytes:
    """A record of 0-RTT data, of this length with its header, under a key that the server does not have."""
    suite = CIPHER_SUITES[0x1301]
    sealed = protection(suite, b"\x99" * 16, bytes(12)).seal(DATA, bytes(length - 5 - 17))
    assert len(sealed) == length
    return bytes(sealed)


def offering_early_data(name: str) -> tuple[Conversation, bytes]:
    talk = Conversation(BY_NAME[name])
    hello = extension(E.EARLY_DATA, b"")(talk.client_hello())
    hello = talk.with_psk(hello) if name == "1.3 resumed" else hello
    return talk, talk.say(serialize(hello), after="client_hello")


@pytest.mark.parametrize("name", ["1.3", "1.3 resumed", "1.3 retry"])
@pytest.mark.parametrize("records", [0, 1, 3])
def test_early_data_is_dropped_and_the_handshake_goes_on(name: str, records: int) -> None:
    talk, hello = offering_early_data(name)
    talk.deliver(hello + early(16_384 + 22) * records)
    assert talk.alerts == []
    for step in talk.script.steps[1:]:
        talk.deliver(talk.step(step))
    talk.deliver(talk.seal(DATA, b"data"))
    assert talk.events[-1] == DataReceived(b"data")
    answer = talk.heard.get(HandshakeType.ENCRYPTED_EXTENSIONS)
    assert answer is not None
    assert parse_message(messages13.EncryptedExtensions, answer).extensions.get(E.EARLY_DATA) is None


@pytest.mark.parametrize("name", ["1.3", "1.3 retry"])
def test_more_early_data_than_anybody_may_send_ends_the_handshake(name: str) -> None:
    talk, hello = offering_early_data(name)
    talk.deliver(hello + early(16_384) * (MAX_EARLY_DATA // 16_384))
    with pytest.raises(Misbehaved):
        talk.deliver(early(22 + 1))


def test_empty_records_of_early_data_count_too() -> None:
    talk, hello = offering_early_data("1.3")
    talk.deliver(hello)
    with pytest.raises(Misbehaved):
        talk.deliver(b"\x17\x03\x03\x00\x00" * (MAX_EARLY_DATA // 5 + 1))


def test_data_that_is_not_announced_as_early_is_not_dropped() -> None:
    talk = Conversation(S13).play(1)
    with pytest.raises(BadRecordMac):
        talk.deliver(early(100))
    talk = Conversation(BY_NAME["1.3 retry"]).play(1)
    with pytest.raises(UnexpectedMessage):
        talk.deliver(early(100))


def test_no_early_data_comes_after_a_record_that_opened() -> None:
    talk, hello = offering_early_data("1.3 resumed")
    talk.deliver(hello + early(100))
    talk.deliver(talk.step("finished"))
    with pytest.raises(BadRecordMac):
        talk.deliver(early(100))


def test_an_alert_in_clear_says_why_a_client_gives_up_before_it_has_keys() -> None:
    alert = record(ContentType.ALERT, bytes((AlertLevel.FATAL, A.UNKNOWN_CA)))
    talk = Conversation(S13).play(1)
    with pytest.raises(AlertReceived, match="unknown_ca"):
        talk.deliver(alert)
    # Once the client has shown that it has keys, whoever writes in clear is somebody else.
    for name, played in (("1.3 client certificate", 2), ("1.3", 2)):
        talk = Conversation(BY_NAME[name]).play(played)
        with pytest.raises(UnexpectedMessage):
            talk.deliver(alert)


# --- after the handshake ------------------------------------------------------------------------------------


def test_a_key_update_of_the_client_changes_its_key_and_is_answered_when_asked() -> None:
    talk = established()
    for number in range(3):
        requested = number % 2 == 1
        sent = len(talk.sent)
        data = talk.seal(HANDSHAKE, serialize(KeyUpdate(update_requested=requested)))
        talk.update_write_keys()
        talk.deliver(data)
        assert (len(talk.sent) > sent) == requested
        talk.deliver(talk.seal(DATA, b"%d" % number))
        assert talk.events[-1] == DataReceived(b"%d" % number)
        talk.data = b""
        talk.server.send_data(b"back")
        talk._settle()
        assert talk.data == b"back"


def test_the_server_can_update_its_own_keys() -> None:
    talk = established()
    talk.server.update_keys()
    talk.server.send_data(b"new key")
    talk._settle()
    assert talk.data == b"new key"


def test_renegotiation_is_refused_with_a_warning_and_not_for_ever() -> None:
    talk = established(S12)
    hello = serialize(talk.client_hello())
    for _ in range(MAX_IDLE_MESSAGES):
        talk.deliver(talk.seal(HANDSHAKE, hello))
    assert talk.alerts == [(AlertLevel.WARNING, A.NO_RENEGOTIATION)] * MAX_IDLE_MESSAGES
    talk.deliver(talk.seal(DATA, b"still here"))
    assert talk.events[-1] == DataReceived(b"still here")
    with pytest.raises(UnexpectedMessage):
        for _ in range(MAX_IDLE_MESSAGES + 1):
            talk.deliver(talk.seal(HANDSHAKE, hello))


def test_bytes_wait_while_somebody_answers_but_not_without_end() -> None:
    talk = Conversation(S13)
    talk.server.receive_data(talk.say(serialize(talk.client_hello())))
    assert talk.server.pending is not None
    assert not talk.server.wants_data
    talk.server.receive_data(bytes(MAX_WAITING))
    with pytest.raises(UnexpectedMessage):
        talk.server.receive_data(b"\0")


def test_data_that_comes_with_the_finished_is_not_lost() -> None:
    talk = Conversation(ASKING[TLS13]).play(3)
    data = talk.step("finished")
    talk.deliver(data + talk.seal(DATA, b"at once"))
    assert talk.events[-1] == DataReceived(b"at once")


def test_each_side_can_close_first() -> None:
    for script in (S13, S12):
        talk = established(script)
        talk.server.close()
        talk._settle()
        assert talk.alerts == [(AlertLevel.WARNING, A.CLOSE_NOTIFY)]
        with pytest.raises(RuntimeError):
            talk.server.send_data(b"x")


def test_a_repr_shows_the_state_and_nothing_else() -> None:
    talk = Conversation(S13)
    assert repr(talk.server) == "<ServerConnection in handshake>"
    assert repr(talk.play().server) == "<ServerConnection established>"
    assert isinstance(talk.server, ServerConnection)
