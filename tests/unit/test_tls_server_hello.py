"""The ClientHello at the server: every fault that must be noticed, and what is chosen of what is offered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.support.tls_faults import cut, extension, fields, lengthened
from tests.support.tls_script import PSK, SCHEMES, SERVER_NAME, SHARED, TLS12, TLS13
from tests.support.tls_server_script import BY_NAME, CLIENT_RANDOM, SESSION_ID, Conversation, cut_records

from locum.errors import DecodeError, Incompatible, LocumError, OperationError
from locum.handshake import Request, Response
from locum.tls import schedule
from locum.tls.alerts import (
    AlertDescription,
    DecryptError,
    IllegalParameter,
    InappropriateFallback,
    MissingExtension,
    NoApplicationProtocol,
    UnrecognizedName,
    UnsupportedVersion,
)
from locum.tls.extensions import (
    Extensions,
    KeyShareEntry,
    parse_server_share,
    parse_u16,
    write_alpn,
    write_client_shares,
    write_codes,
    write_server_name,
)
from locum.tls.messages import DOWNGRADE_SENTINELS, ClientHello, ServerHello, serialize
from locum.tls.receiving import parse_message
from locum.tls.registry import (
    CIPHER_SUITES,
    FALLBACK_SCSV,
    ContentType,
    ExtensionType,
    HandshakeType,
    NamedGroup,
    SignatureScheme,
)
from locum.tls.server_operations import ServerStartRequest, ServerStartResponse

E, A = ExtensionType, AlertDescription
S13, S12, RSA = BY_NAME["1.3"], BY_NAME["1.2 ECDHE"], BY_NAME["1.2 RSA"]
X25519, P256, P384 = NamedGroup.X25519, NamedGroup.SECP256R1, NamedGroup.SECP384R1
HYBRID, FFDHE = NamedGroup.X25519MLKEM768, NamedGroup.FFDHE2048

Change = Callable[[Any], Any]
UNCHANGED: Change = fields()


def both(*changes: Change) -> Change:
    """One change after the other."""

    def change(message: Any) -> Any:
        for each in changes:
            message = each(message)
        return message

    return change


def shares(*entries: tuple[int, int]) -> Change:
    """Key shares by group and length."""
    return extension(E.KEY_SHARE, write_client_shares(tuple(KeyShareEntry(g, bytes(n)) for g, n in entries)))


def groups(*codes: int) -> Change:
    return extension(E.SUPPORTED_GROUPS, write_codes(codes))


def first(code: int) -> Change:
    """This extension before all others."""

    def change(message: ClientHello) -> ClientHello:
        items = sorted(message.extensions.items, key=lambda item: item[0] != code)
        return replace(message, extensions=Extensions(tuple(items)))

    return change


def twice(code: int) -> Change:
    def change(message: ClientHello) -> ClientHello:
        data = message.extensions.get(ExtensionType(code)) or b""
        return replace(message, extensions=Extensions((*message.extensions.items, (code, data))))

    return change


def say(script: str, change: Change, **settings: Any) -> Conversation:
    """A conversation in which the first thing said is this hello."""
    talk = Conversation(BY_NAME[script], **settings)
    said = change(talk.client_hello())
    talk.deliver(talk.say(said if isinstance(said, bytes) else serialize(said), after="client_hello"))
    return talk


# --- what ends the handshake --------------------------------------------------------------------------------

FAULTS: tuple[tuple[str, str, Change, type[LocumError], AlertDescription], ...] = (
    ("1.3", "cut short", cut(), DecodeError, A.DECODE_ERROR),
    ("1.3", "too long", lengthened(), DecodeError, A.DECODE_ERROR),
    ("1.3", "session id of 33 bytes", fields(session_id=bytes(33)), DecodeError, A.DECODE_ERROR),
    ("1.3", "an extension twice", twice(E.KEY_SHARE), IllegalParameter, A.ILLEGAL_PARAMETER),
    (
        "1.3",
        "no version known",
        extension(E.SUPPORTED_VERSIONS, b"\2\3\2"),
        UnsupportedVersion,
        A.PROTOCOL_VERSION,
    ),
    ("1.3", "no versions", extension(E.SUPPORTED_VERSIONS, b"\0"), DecodeError, A.DECODE_ERROR),
    ("1.3", "versions of odd length", extension(E.SUPPORTED_VERSIONS, b"\3\3\4\3"), DecodeError, A.DECODE_ERROR),
    ("1.2 ECDHE", "TLS 1.1", fields(legacy_version=0x0302), UnsupportedVersion, A.PROTOCOL_VERSION),
    ("1.2 ECDHE", "SSL 3", fields(legacy_version=0x0300), UnsupportedVersion, A.PROTOCOL_VERSION),
    (
        "1.2 ECDHE",
        "fallback",
        fields(cipher_suites=(0xC02F, FALLBACK_SCSV)),
        InappropriateFallback,
        A.INAPPROPRIATE_FALLBACK,
    ),
    ("1.3", "compression too", fields(compression_methods=b"\0\1"), IllegalParameter, A.ILLEGAL_PARAMETER),
    ("1.3", "only compression", fields(compression_methods=b"\1"), IllegalParameter, A.ILLEGAL_PARAMETER),
    (
        "1.2 ECDHE",
        "only compression 1.2",
        fields(compression_methods=b"\1"),
        IllegalParameter,
        A.ILLEGAL_PARAMETER,
    ),
    ("1.3", "no suite", fields(cipher_suites=(0xC02F, 0x13FF)), Incompatible, A.HANDSHAKE_FAILURE),
    ("1.2 ECDHE", "no suite 1.2", fields(cipher_suites=(0xC013, 0x1301)), Incompatible, A.HANDSHAKE_FAILURE),
    ("1.3", "no groups", extension(E.SUPPORTED_GROUPS, None), MissingExtension, A.MISSING_EXTENSION),
    ("1.3", "no shares", extension(E.KEY_SHARE, None), MissingExtension, A.MISSING_EXTENSION),
    ("1.3", "no schemes", extension(E.SIGNATURE_ALGORITHMS, None), MissingExtension, A.MISSING_EXTENSION),
    ("1.3", "no group known", groups(0x2A2A, 0x0019), Incompatible, A.HANDSHAKE_FAILURE),
    ("1.2 ECDHE", "no group known 1.2", groups(0x2A2A, HYBRID), Incompatible, A.HANDSHAKE_FAILURE),
    ("1.3", "two shares of a group", shares((X25519, 32), (X25519, 32)), IllegalParameter, A.ILLEGAL_PARAMETER),
    ("1.3", "empty share", shares((X25519, 0)), DecodeError, A.DECODE_ERROR),
    (
        "1.3",
        "only PKCS#1",
        extension(E.SIGNATURE_ALGORITHMS, write_codes((0x0401,))),
        Incompatible,
        A.HANDSHAKE_FAILURE,
    ),
    (
        "1.2 ECDHE",
        "no scheme known",
        extension(E.SIGNATURE_ALGORITHMS, write_codes((0x0201,))),
        Incompatible,
        A.HANDSHAKE_FAILURE,
    ),
    ("1.2 ECDHE", "no schemes 1.2", extension(E.SIGNATURE_ALGORITHMS, None), Incompatible, A.HANDSHAKE_FAILURE),
    (
        "1.3",
        "no protocol",
        extension(16, write_alpn(("spdy/3",))),
        NoApplicationProtocol,
        A.NO_APPLICATION_PROTOCOL,
    ),
    (
        "1.2 ECDHE",
        "no protocol 1.2",
        extension(16, write_alpn(("spdy/3",))),
        NoApplicationProtocol,
        A.NO_APPLICATION_PROTOCOL,
    ),
    ("1.3", "empty protocol list", extension(16, b"\0\0"), DecodeError, A.DECODE_ERROR),
    ("1.3", "too many protocols", extension(16, write_alpn(("x",) * 129)), DecodeError, A.DECODE_ERROR),
    ("1.3", "too many shares", shares(*((group, 1) for group in range(129))), DecodeError, A.DECODE_ERROR),
    (
        "1.3 resumed",
        "too many PSKs",
        extension(
            E.PRE_SHARED_KEY, (129 * 7).to_bytes(2, "big") + b"\0\1x\0\0\0\0" * 129 + b"\0\x21\x20" + bytes(32)
        ),
        DecodeError,
        A.DECODE_ERROR,
    ),
    ("1.3", "empty server name", extension(0, b""), DecodeError, A.DECODE_ERROR),
    ("1.3", "name with a space", extension(0, write_server_name("a b")), IllegalParameter, A.ILLEGAL_PARAMETER),
    (
        "1.3",
        "name with a line end",
        extension(0, write_server_name("a\nb")),
        IllegalParameter,
        A.ILLEGAL_PARAMETER,
    ),
    ("1.3", "name too long", extension(0, write_server_name("a" * 256)), IllegalParameter, A.ILLEGAL_PARAMETER),
    ("1.3", "early_data with content", extension(E.EARLY_DATA, b"x"), DecodeError, A.DECODE_ERROR),
    ("1.3", "status_request cut", extension(E.STATUS_REQUEST, b"\1\0\0\0"), DecodeError, A.DECODE_ERROR),
    (
        "1.2 ECDHE",
        "extended_master_secret with content",
        extension(E.EXTENDED_MASTER_SECRET, b"x"),
        DecodeError,
        A.DECODE_ERROR,
    ),
    (
        "1.2 ECDHE",
        "compressed points only",
        extension(E.EC_POINT_FORMATS, b"\1\1"),
        IllegalParameter,
        A.ILLEGAL_PARAMETER,
    ),
    ("1.2 ECDHE", "renegotiation", extension(E.RENEGOTIATION_INFO, b"\1x"), Incompatible, A.HANDSHAKE_FAILURE),
    ("1.2 ECDHE", "renegotiation cut", extension(E.RENEGOTIATION_INFO, b"\1"), DecodeError, A.DECODE_ERROR),
    ("1.3 resumed", "PSK not last", first(E.PRE_SHARED_KEY), IllegalParameter, A.ILLEGAL_PARAMETER),
    (
        "1.3 resumed",
        "PSK without modes",
        extension(E.PSK_KEY_EXCHANGE_MODES, None),
        MissingExtension,
        A.MISSING_EXTENSION,
    ),
    ("1.3 resumed", "PSK without binders", extension(E.PRE_SHARED_KEY, b"\0\0"), DecodeError, A.DECODE_ERROR),
    (
        "1.3 resumed",
        "more PSKs than binders",
        extension(E.PRE_SHARED_KEY, b"\0\x0e" + b"\0\1x\0\0\0\0" * 2 + b"\0\x21\x20" + bytes(32)),
        IllegalParameter,
        A.ILLEGAL_PARAMETER,
    ),
    (
        "1.3",
        "record_size_limit of 63",
        extension(E.RECORD_SIZE_LIMIT, b"\0\x3f"),
        IllegalParameter,
        A.ILLEGAL_PARAMETER,
    ),
    ("1.3", "record_size_limit cut", extension(E.RECORD_SIZE_LIMIT, b"\0"), DecodeError, A.DECODE_ERROR),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0]}, {fault[1]}")
def test_a_faulty_client_hello_ends_the_handshake_with_the_alert_that_fits(
    fault: tuple[str, str, Change, type[LocumError], AlertDescription],
) -> None:
    script, _, change, error, alert = fault
    talk = Conversation(BY_NAME[script], record_size_limit=1000)
    said = change(talk.client_hello())
    with pytest.raises(error):
        talk.deliver(talk.say(said if isinstance(said, bytes) else serialize(said)))
    assert talk.last_alert == alert
    assert not talk.server.handshake_complete
    assert talk.server.pending is None


def test_a_binder_of_another_secret_is_a_decrypt_error() -> None:
    talk = Conversation(BY_NAME["1.3 resumed"])
    hello = talk.with_psk(talk.client_hello(), secret=bytes(32))
    with pytest.raises(DecryptError, match="binder"):
        talk.deliver(talk.say(serialize(hello)))
    assert talk.last_alert == A.DECRYPT_ERROR


def test_a_binder_of_another_length_is_a_decrypt_error() -> None:
    talk = Conversation(BY_NAME["1.3 resumed"])
    ticket = talk.ticket(PSK)
    identity = len(ticket).to_bytes(2, "big") + ticket + bytes(4)
    body = len(identity).to_bytes(2, "big") + identity + b"\0\x22\x21" + bytes(33)
    with pytest.raises(DecryptError):
        talk.deliver(talk.say(serialize(extension(E.PRE_SHARED_KEY, body)(talk.client_hello()))))


# --- what is chosen -----------------------------------------------------------------------------------------


def test_the_highest_common_version_is_spoken_whatever_the_order() -> None:
    talk = say("1.3", UNCHANGED, versions=(TLS12, TLS13))
    assert talk.server_hello.extensions.get(E.SUPPORTED_VERSIONS) == b"\3\4"


def test_a_server_without_tls_13_takes_its_client_hello_for_one_of_tls_12() -> None:
    talk = Conversation(S12, versions=(TLS12,))
    hello = talk.client_hello()
    items = (*hello.extensions.items, (int(E.SUPPORTED_VERSIONS), write_codes((TLS13, TLS12), prefix=1)))
    talk.deliver(talk.say(serialize(replace(hello, extensions=Extensions(items)))))
    assert talk.server_hello.extensions.get(E.SUPPORTED_VERSIONS) is None
    # RFC 8446 section 4.1.3: the sentinel is that of servers that could speak TLS 1.3.
    assert talk.server_hello.random[-8:] not in DOWNGRADE_SENTINELS


@pytest.mark.parametrize("script", ["1.2 ECDHE", "1.2 RSA"])
def test_a_server_of_tls_13_that_speaks_tls_12_says_so_in_its_random(script: str) -> None:
    assert say(script, UNCHANGED).server_hello.random[-8:] == DOWNGRADE_SENTINELS[0]
    assert say(script, UNCHANGED, versions=(TLS12,)).server_hello.random[-8:] not in DOWNGRADE_SENTINELS


def test_the_random_of_rsa_key_exchange_is_made_of_a_seed_and_no_other_is() -> None:
    seed = b"\x77" * 32
    assert say("1.2 RSA", UNCHANGED, versions=(TLS12,)).server_hello.random == schedule.bound_random(seed)
    with_sentinel = schedule.bound_random(seed, DOWNGRADE_SENTINELS[0])
    assert say("1.2 RSA", UNCHANGED).server_hello.random == with_sentinel
    assert say("1.2 ECDHE", UNCHANGED, versions=(TLS12,)).server_hello.random == seed


@pytest.mark.parametrize("ours", [(0x1301, 0x1302, 0x1303), (0x1303, 0x1301, 0x1302)], ids=["AES", "ChaCha20"])
def test_the_servers_order_of_suites_decides(ours: tuple[int, ...]) -> None:
    talk = Conversation(S13, versions=(TLS13,), cipher_suites=ours)
    talk.listening = False
    change = fields(cipher_suites=(0x1302, 0x1303, 0x1301))
    talk.deliver(talk.say(serialize(change(talk.client_hello()))))
    _, hello = next(cut_records(talk.sent))
    assert parse_message(ServerHello, hello).cipher_suite == ours[0]


def chosen_group(talk: Conversation) -> tuple[int, bool]:
    """Group, and whether it was asked for by a HelloRetryRequest."""
    share = talk.server_hello.extensions.get(E.KEY_SHARE) or b""
    if talk.server_hello.is_hello_retry_request:
        return parse_u16(share), True
    return parse_server_share(share).group, False


GROUP_CHOICES = (
    ("a share in the first", (X25519, P256), ((X25519, 32), (P256, 65)), (X25519, P256), (X25519, False)),
    ("a share in the second", (X25519, P256), ((P256, 65),), (X25519, P256), (P256, False)),
    ("the server's order", (P256, X25519), ((X25519, 32), (P256, 65)), (X25519, P256), (P256, False)),
    ("no share at all", (X25519, P256), (), (X25519, P256), (X25519, True)),
    ("a share that is unknown", (X25519, P256), ((0x2A2A, 1),), (X25519, P256), (X25519, True)),
    ("only another group", (P384,), ((X25519, 32),), (X25519, P384), (P384, True)),
    ("hybrid with a share", (HYBRID, X25519), ((HYBRID, 9), (X25519, 32)), (X25519, HYBRID), (HYBRID, False)),
    ("hybrid without a share", (HYBRID, X25519), ((X25519, 32),), (X25519, HYBRID), (HYBRID, True)),
    ("hybrid that is not preferred", (X25519, HYBRID), ((X25519, 32),), (X25519, HYBRID), (X25519, False)),
    ("hybrid that is not offered", (HYBRID, X25519), ((X25519, 32),), (X25519, P256), (X25519, False)),
)


@pytest.mark.parametrize("choice", GROUP_CHOICES, ids=lambda choice: choice[0])
def test_the_group_is_one_with_a_share_unless_a_hybrid_one_is_preferred(choice: Any) -> None:
    _, ours, sent, offered, expected = choice
    talk = say("1.3", both(groups(*offered), shares(*sent)), groups=ours)
    assert chosen_group(talk) == expected


@pytest.mark.parametrize("alpn", [("h2", "http/1.1"), ("http/1.1", "h2")], ids=["h2", "http"])
@pytest.mark.parametrize("script", ["1.3", "1.2 ECDHE"])
def test_the_servers_order_of_protocols_decides(script: str, alpn: tuple[str, ...]) -> None:
    talk = Conversation(BY_NAME[script], alpn=alpn)
    change = extension(16, write_alpn(("\x0a\x0a", "h2", "http/1.1")))
    talk.deliver(talk.say(serialize(change(talk.client_hello())), after="client_hello"))
    for step in talk.script.steps[1:]:
        talk.deliver(talk.step(step))
    assert talk.server.session is not None
    assert talk.server.session.alpn == alpn[0]


@pytest.mark.parametrize("script", ["1.3", "1.2 ECDHE"])
def test_without_protocols_on_either_side_none_is_agreed(script: str) -> None:
    talk = Conversation(BY_NAME[script], alpn=()).play()
    assert talk.server.session is not None
    assert talk.server.session.alpn is None
    talk = say(script, extension(16, None))
    for step in talk.script.steps[1:]:
        talk.deliver(talk.step(step))
    assert talk.server.session is not None
    assert talk.server.session.alpn is None


@pytest.mark.parametrize(
    ("sent", "seen"),
    [("server.example.com", "server.example.com"), ("SERVER.example.COM.", "server.example.com"), (None, "")],
)
def test_the_server_name_is_asked_for_as_names_are_compared(sent: str | None, seen: str) -> None:
    talk = Conversation(S13)
    data = write_server_name(sent) if sent is not None else None
    talk.server.receive_data(talk.say(serialize(extension(0, data)(talk.client_hello()))))
    assert talk.server.pending is not None
    start = talk.server.pending[0]
    assert isinstance(start, ServerStartRequest)
    assert start.server_name == start.peer == seen
    assert start.uninvited
    assert start.signature_schemes == SCHEMES
    assert start.versions == (TLS13, TLS12)
    assert start.cipher_suites == (0x1301,)
    assert start.alpn == ("h2",)
    assert start.groups == (0x2A2A, X25519, P256)


def test_everything_that_nobody_knows_is_harmless() -> None:
    """RFC 8701: values that stand for the future are everywhere in the hello."""
    grease = (0x0A0A, 0x1A1A, 0xFAFA)
    talk = Conversation(S13)
    hello = talk.client_hello()
    changed = both(
        fields(cipher_suites=(*grease, *hello.cipher_suites)),
        groups(*grease, X25519),
        shares((0x1A1A, 1), (X25519, 32), (0xFAFA, 2000)),
        extension(E.SIGNATURE_ALGORITHMS, write_codes((*grease, *SCHEMES))),
        extension(E.SIGNATURE_ALGORITHMS_CERT, write_codes((*grease, *SCHEMES))),
        extension(E.SUPPORTED_VERSIONS, write_codes((0x7A7A, TLS13), prefix=1)),
        extension(E.PSK_KEY_EXCHANGE_MODES, b"\x03\x0b\x01\x2a"),
        extension(E.STATUS_REQUEST, b"\x02anything"),
        extension(16, write_alpn(("\x0a\x0a", "h2"))),
        extension(0x0A0A, b""),
        extension(0xFE0D, bytes(200)),
        extension(0xFAFA, b"\0"),
    )(hello)
    talk.deliver(talk.say(serialize(changed), after="client_hello"))
    talk.deliver(talk.step("finished"))
    assert talk.server.handshake_complete


# --- TLS 1.2: what goes together ----------------------------------------------------------------------------

ECDHE_ECDSA, ECDHE_RSA, DHE_RSA, RSA_ONLY = 0xC02B, 0xC02F, 0x009E, 0x009C
ECDSA_SCHEME, RSA_SCHEME = SignatureScheme.ECDSA_SECP256R1_SHA256, SignatureScheme.RSA_PSS_RSAE_SHA256


class Limited:
    """Answers the start with a certificate of which only this can be used, and nothing more."""

    def __init__(self, **answer: Any) -> None:
        self.answer = {"certificates": (b"certificate",), **answer}

    def perform(self, requests: tuple[Request, ...]) -> tuple[Response, ...]:
        assert isinstance(requests[0], ServerStartRequest)
        return (ServerStartResponse(**self.answer),)


def chosen12(answer: dict[str, Any], change: Change = UNCHANGED, **settings: Any) -> tuple[int, int, int]:
    """Suite, group and scheme that are asked for next; the last two are 0 with RSA key exchange."""
    talk = Conversation(S12, **settings)
    suites = (RSA_ONLY, DHE_RSA, ECDHE_RSA, ECDHE_ECDSA)
    talk.server.receive_data(talk.say(serialize(change(fields(cipher_suites=suites)(talk.client_hello())))))
    assert talk.server.pending is not None
    talk.server.answer(Limited(**answer).perform(talk.server.pending))
    if not talk.server.pending:
        talk._settle()
        return talk.server_hello.cipher_suite, 0, 0
    (request,) = talk.server.pending
    return 0, request.group, request.scheme  # type: ignore[attr-defined]


def test_in_tls_12_the_key_of_the_certificate_decides_about_the_suite() -> None:
    assert chosen12({"schemes12": (ECDSA_SCHEME,)}) == (0, X25519, ECDSA_SCHEME)
    assert chosen12({"schemes12": (RSA_SCHEME,)}) == (0, X25519, RSA_SCHEME)
    assert chosen12({"rsa_key_exchange": True}) == (RSA_ONLY, 0, 0)
    # Forward secrecy comes first, although this client would have it the other way round.
    assert chosen12({"schemes12": (RSA_SCHEME,), "rsa_key_exchange": True})[1:] == (X25519, RSA_SCHEME)


def test_a_client_that_names_no_curves_gets_the_one_that_all_have() -> None:
    no_groups = extension(E.SUPPORTED_GROUPS, None)
    assert chosen12({"schemes12": (RSA_SCHEME,)}, no_groups)[1] == P256
    with pytest.raises(Incompatible):
        chosen12({"schemes12": (RSA_SCHEME,)}, no_groups, groups=(X25519,))


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        ((X25519,), FFDHE),
        ((FFDHE, X25519), FFDHE),
        ((NamedGroup.FFDHE3072, X25519), NamedGroup.FFDHE3072),
    ],
    ids=["names none", "names ours", "names our second"],
)
def test_finite_fields_are_those_of_rfc_7919(offered: tuple[int, ...], expected: int) -> None:
    ours = {"versions": (TLS12,), "cipher_suites": (DHE_RSA,), "groups": (FFDHE, NamedGroup.FFDHE3072, X25519)}
    assert chosen12({"schemes12": (RSA_SCHEME,)}, groups(*offered), **ours)[1] == expected


def test_a_client_that_names_only_other_finite_fields_gets_none() -> None:
    """RFC 7919 section 4: "the server MUST NOT select an FFDHE cipher suite"."""
    ours = {"versions": (TLS12,), "cipher_suites": (DHE_RSA,), "groups": (FFDHE, X25519)}
    with pytest.raises(Incompatible):
        chosen12({"schemes12": (RSA_SCHEME,)}, groups(0x01FF, X25519), **ours)
    with pytest.raises(Incompatible):
        chosen12({"schemes12": (RSA_SCHEME,)}, versions=(TLS12,), cipher_suites=(DHE_RSA,))


# --- what the answerer gets wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["1.3", "1.2 ECDHE"])
def test_a_name_that_nobody_knows_is_said_to_be_unrecognized(script: str) -> None:
    talk = Conversation(BY_NAME[script])
    talk.server.receive_data(talk.say(serialize(talk.client_hello())))
    with pytest.raises(UnrecognizedName):
        talk.server.fail(UnrecognizedName("no certificate for this name"))
    talk._settle()
    assert talk.last_alert == A.UNRECOGNIZED_NAME


WRONG_STARTS: dict[str, dict[str, Any]] = {
    "no certificate": {"certificates": (), "schemes13": SCHEMES, "schemes12": SCHEMES},
    "scheme not offered": {"schemes13": (0x0807,), "schemes12": (0x0807,)},
}


@pytest.mark.parametrize("script", [S13, S12], ids=str)
@pytest.mark.parametrize("what", WRONG_STARTS)
def test_an_answerer_that_gets_it_wrong_is_not_blamed_on_the_client(script: Any, what: str) -> None:
    talk = Conversation(script)
    talk.server.receive_data(talk.say(serialize(talk.client_hello())))
    assert talk.server.pending is not None
    answers = [*Limited(**WRONG_STARTS[what]).perform(talk.server.pending)]
    answers += talk.answerer.perform(talk.server.pending[1:])
    with pytest.raises(OperationError):
        talk.server.answer(tuple(answers))
    talk._settle()
    assert talk.last_alert == A.INTERNAL_ERROR


def test_a_key_that_can_do_nothing_for_tls_13_does_not_bring_down_the_version() -> None:
    talk = Conversation(S13)
    talk.server.receive_data(talk.say(serialize(talk.client_hello()), after="client_hello"))
    assert talk.server.pending is not None
    start = ServerStartResponse(certificates=(b"c",), schemes12=SCHEMES, rsa_key_exchange=True)
    with pytest.raises(Incompatible):
        talk.server.answer((start, *talk.answerer.perform(talk.server.pending[1:])))
    talk._settle()
    assert talk.last_alert == A.HANDSHAKE_FAILURE


# --- HelloRetryRequest --------------------------------------------------------------------------------------

SECOND: tuple[tuple[str, Change], ...] = (
    ("another random", fields(random=bytes(32))),
    ("another session id", fields(session_id=bytes(32))),
    ("other suites", fields(cipher_suites=(0x1301, 0x1302))),
    ("another legacy version", fields(legacy_version=0x0304)),
    ("other groups", groups(P256, X25519)),
    ("another name", extension(0, write_server_name("other.example.com"))),
    ("other schemes", extension(E.SIGNATURE_ALGORITHMS, write_codes((0x0804,)))),
    ("other protocols", extension(16, write_alpn(("http/1.1", "h2")))),
    ("another version", extension(E.SUPPORTED_VERSIONS, write_codes((TLS12,), prefix=1))),
    ("the same share again", shares((X25519, 32))),
    ("no share", shares()),
    ("early data", extension(E.EARLY_DATA, b"")),
)


@pytest.mark.parametrize("second", SECOND, ids=lambda second: second[0])
def test_a_second_hello_that_is_another_offer_is_refused(second: tuple[str, Change]) -> None:
    talk = Conversation(BY_NAME["1.3 retry"]).play(1)
    assert talk.server_hello.is_hello_retry_request
    with pytest.raises(IllegalParameter):
        talk.deliver(talk.say(serialize(second[1](talk.message("second_client_hello")))))
    assert talk.last_alert == A.ILLEGAL_PARAMETER


def test_a_second_hello_may_change_what_nobody_here_knows() -> None:
    talk = Conversation(BY_NAME["1.3 retry"]).play(1)
    change = both(extension(0x2A2A, None), extension(21, bytes(99)), extension(0xFE0D, bytes(7)))
    talk.deliver(talk.say(serialize(change(talk.message("second_client_hello"))), after="second_client_hello"))
    talk.deliver(talk.step("finished"))
    assert talk.server.handshake_complete


def test_a_ticket_can_be_resumed_after_a_retry() -> None:
    talk = Conversation(BY_NAME["1.3 resumed"], groups=(P256,))
    talk.deliver(talk.say(serialize(talk.client_hello())))
    assert talk.server_hello.is_hello_retry_request
    second = talk.with_psk(replace(talk.client_hello(P256)))
    talk.deliver(talk.say(serialize(second)))
    talk.deliver(talk.step("finished"))
    assert talk.server.session is not None
    assert talk.server.session.resumed


def test_the_session_id_is_echoed_and_a_dummy_change_cipher_spec_sent_for_who_has_one() -> None:
    dummy = bytes.fromhex("140303000101")
    for script, played in (("1.3", 1), ("1.3 retry", 2)):
        talk = Conversation(BY_NAME[script]).play(played)
        assert talk.server_hello.session_id == SESSION_ID
        assert talk.sent.count(dummy) == 1
    assert dummy not in Conversation(S13, compatibility_mode=False).play(1).sent
    talk = say("1.3", fields(session_id=b""))
    assert talk.server_hello.session_id == b""
    assert dummy not in talk.sent


def test_the_hello_record_has_the_version_that_every_middlebox_knows() -> None:
    assert Conversation(S13).play(1).sent[:3] == bytes((ContentType.HANDSHAKE, 3, 3))


def test_a_server_that_gives_up_on_the_first_bytes_says_so() -> None:
    talk = Conversation(S13)
    with pytest.raises(LocumError):
        talk.deliver(b"\x16\x03\x01\x00\x04\x0b\x00\x00\x00")
    assert talk.last_alert == A.UNEXPECTED_MESSAGE


def test_a_hello_has_the_random_that_its_keys_are_made_of() -> None:
    talk = Conversation(S12).play()
    assert talk.heard[HandshakeType.SERVER_HELLO]
    assert talk.server.session is not None
    assert talk.server.session.server_name == SERVER_NAME
    exported = talk.server.session.export_keying_material("EXPORTER-x", b"", 32)
    randoms = CLIENT_RANDOM + talk.server_hello.random
    suite = CIPHER_SUITES[0xC02F]
    assert exported == schedule.exporter12(
        suite.hash, talk._secrets["master"], b"EXPORTER-x", randoms + b"\0\0", 32
    )
    assert SHARED not in exported
