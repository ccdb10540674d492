"""Session tickets and their files, configurations, and the total function from error to alert."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum import errors
from locum.crypto.symmetric import SHA256, AuthenticationFailed
from locum.errors import ConfigurationError, DecodeError, LocumError, Refused
from locum.handshake import Fault, PeerRejected, Verdict
from locum.tls import alerts
from locum.tls.alerts import AlertDescription, AlertReceived, Truncated, alert_for, alert_name
from locum.tls.configuration import ClientConfiguration
from locum.tls.registry import CIPHER_SUITES, ProtocolVersion
from locum.tls.session import MAX_TICKET, MAX_TICKET_LIFETIME, SessionInfo, SessionTicket
from locum.tls.transcript import Transcript

TICKET = SessionTicket(
    version=ProtocolVersion.TLS_1_3,
    suite=CIPHER_SUITES[0x1302],
    server_name="server.example.com",
    peer_identity="dns:server.example.com",
    ticket=b"opaque",
    secret=b"\x42" * 48,
    issued_at=1_700_000_000.123,
    lifetime=7200,
    age_add=0xFFFFFFF0,
)


# --- tickets --------------------------------------------------------------------------------------------------


@given(
    suite=st.sampled_from(list(CIPHER_SUITES.values())),
    name=st.text(max_size=60),
    identity=st.text(max_size=60),
    ticket=st.binary(min_size=1, max_size=200),
    issued_at=st.integers(0, 2**42).map(lambda milliseconds: milliseconds / 1000),
    lifetime=st.integers(0, 2**32 - 1),
    age_add=st.integers(0, 2**32 - 1),
)
def test_a_ticket_comes_back_from_its_file_as_it_was(suite: Any, ticket: bytes, **fields: Any) -> None:
    length = suite.hash.length if suite.version is ProtocolVersion.TLS_1_3 else 48
    try:
        fields["name"].encode(), fields["identity"].encode()
    except UnicodeEncodeError:
        return
    original = SessionTicket(
        version=suite.version,
        suite=suite,
        server_name=fields["name"],
        peer_identity=fields["identity"],
        ticket=ticket,
        secret=bytes(length),
        issued_at=fields["issued_at"],
        lifetime=fields["lifetime"],
        age_add=fields["age_add"],
    )
    assert SessionTicket.from_bytes(original.to_bytes()) == original


def test_every_truncation_of_a_tickets_file_is_refused() -> None:
    data = TICKET.to_bytes()
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            SessionTicket.from_bytes(data[:length])
    with pytest.raises(DecodeError):
        SessionTicket.from_bytes(data + b"x")


@given(st.binary(max_size=200))
def test_any_file_is_a_ticket_or_a_typed_error(data: bytes) -> None:
    for prefix in (b"", b"locum ticket 1\n", b"locum ticket 1\n\x03\x04\x13\x01"):
        try:
            SessionTicket.from_bytes(prefix + data)
        except DecodeError:
            continue


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"locum ticket 1", b"locum ticket 2"),
        (b"\x03\x04\x13\x02", b"\x03\x04\x13\x99"),
        (b"\x03\x04\x13\x02", b"\x03\x03\x13\x02"),
        (b"\x03\x04\x13\x02", b"\x03\x04\x13\x01"),
        (b"dns:", b"\xff\xfe\xfd:"),
    ],
)
def test_a_file_that_says_something_impossible_is_refused(old: bytes, new: bytes) -> None:
    data = TICKET.to_bytes()
    assert old in data
    with pytest.raises(DecodeError):
        SessionTicket.from_bytes(data.replace(old, new, 1))


def test_a_file_with_a_ticket_that_no_client_hello_could_hold_is_refused() -> None:
    longest = replace(TICKET, ticket=bytes(MAX_TICKET))
    assert SessionTicket.from_bytes(longest.to_bytes()) == longest
    with pytest.raises(DecodeError):
        SessionTicket.from_bytes(replace(TICKET, ticket=bytes(MAX_TICKET + 1)).to_bytes())


def test_a_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(DecodeError):
        SessionTicket.from_bytes(TICKET.to_bytes() + bytes(1 << 20))


def test_a_ticket_is_used_for_its_server_and_in_its_time_only() -> None:
    issued = TICKET.issued_at
    name = TICKET.server_name
    assert TICKET.usable(name, issued)
    assert TICKET.usable(name, issued + 7199)
    assert not TICKET.usable(name, issued + 7200)
    assert not TICKET.usable(name, issued - 1)
    assert not TICKET.usable("other.example.com", issued)


def test_no_ticket_is_used_longer_than_seven_days() -> None:
    ticket = replace(TICKET, lifetime=2**32 - 1)
    assert ticket.expires_at == ticket.issued_at + MAX_TICKET_LIFETIME


def test_the_age_of_a_ticket_is_in_milliseconds_obfuscated_and_wraps() -> None:
    assert replace(TICKET, age_add=5, issued_at=100.0).obfuscated_age(101.25) == 1255
    assert TICKET.obfuscated_age(TICKET.issued_at + 1) == (1000 + 0xFFFFFFF0) % 2**32


def test_a_ticket_does_not_show_its_secret() -> None:
    shown = repr(TICKET)
    assert "secret" not in shown
    assert "opaque" not in shown
    assert "server.example.com" in shown


def test_a_session_without_exporter_refuses_to_export() -> None:
    session = SessionInfo(
        version=ProtocolVersion.TLS_1_2,
        cipher_suite=CIPHER_SUITES[0x009C],
        group=None,
        server_name="x",
        peer_identity="dns:x",
        alpn=None,
        resumed=False,
        client_authenticated=False,
        peer_certificates=(),
    )
    with pytest.raises(Refused):
        session.export_keying_material("EXPORTER-x", b"", 16)


# --- configurations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"server_name": ""},
        {"server_name": "x" * 254},
        {"server_name": "bücher.example"},
        {"versions": ()},
        {"versions": (0x0302,)},
        {"cipher_suites": ()},
        {"cipher_suites": (0xC013,)},
        {"alpn": ("",)},
        {"alpn": ("x" * 256,)},
        {"alpn": ("日本",)},
        {"alpn": ("h2",) * 17},
        {"record_size_limit": 63},
        {"record_size_limit": 16386},
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be_sent_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ClientConfiguration(**{"server_name": "server.example.com", **values})


def test_a_configuration_at_its_limits_is_taken() -> None:
    ClientConfiguration(server_name="x" * 253, alpn=("x" * 255, "\xff"), record_size_limit=64)
    ClientConfiguration(server_name="::1", record_size_limit=16385, versions=(ProtocolVersion.TLS_1_2,))


# --- alerts ---------------------------------------------------------------------------------------------------


def every_error() -> list[type[LocumError]]:
    """All error types that the package has, whatever room they are in."""
    found, waiting = set(), [LocumError]
    while waiting:
        kind = waiting.pop()
        found.add(kind)
        waiting += kind.__subclasses__()
    return sorted(found, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_every_error_has_an_alert_unless_nothing_may_be_sent(kind: type[LocumError]) -> None:
    error = kind.__new__(kind)
    if kind is PeerRejected:
        error.verdict = Verdict(authentic=False, allowed=False, fault=Fault.REVOKED)  # type: ignore[attr-defined]
    alert = alert_for(error)
    assert (alert is None) == (kind in (AlertReceived, Truncated))
    assert alert is None or alert in AlertDescription


@pytest.mark.parametrize(
    ("error", "alert"),
    [
        (errors.Misbehaved(), AlertDescription.ILLEGAL_PARAMETER),
        (errors.Incompatible(), AlertDescription.HANDSHAKE_FAILURE),
        (errors.Unauthenticated(), AlertDescription.CERTIFICATE_UNKNOWN),
        (errors.DecodeError(), AlertDescription.DECODE_ERROR),
        (errors.OperationError(), AlertDescription.INTERNAL_ERROR),
        (errors.ConfigurationError(), AlertDescription.INTERNAL_ERROR),
        (AuthenticationFailed(), AlertDescription.BAD_RECORD_MAC),
        (alerts.UnexpectedMessage(), AlertDescription.UNEXPECTED_MESSAGE),
        (alerts.BadRecordMac(), AlertDescription.BAD_RECORD_MAC),
        (alerts.RecordOverflow(), AlertDescription.RECORD_OVERFLOW),
        (alerts.IllegalParameter(), AlertDescription.ILLEGAL_PARAMETER),
        (alerts.MissingExtension(), AlertDescription.MISSING_EXTENSION),
        (alerts.UnsupportedExtension(), AlertDescription.UNSUPPORTED_EXTENSION),
        (alerts.DecryptError(), AlertDescription.DECRYPT_ERROR),
        (alerts.UnsupportedVersion(), AlertDescription.PROTOCOL_VERSION),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, LocumError) else "",
)
def test_an_error_becomes_the_alert_of_its_kind(error: LocumError, alert: AlertDescription) -> None:
    assert alert_for(error) is alert


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name)
def test_every_fault_of_a_verdict_has_an_alert(fault: Fault) -> None:
    error = PeerRejected(Verdict(authentic=False, allowed=False, fault=fault))
    assert alert_for(error) in AlertDescription
    assert fault.name.lower() in str(error)


def test_alerts_are_called_by_their_names() -> None:
    assert alert_name(40) == "handshake_failure"
    assert alert_name(199) == "alert 199"
    assert str(AlertReceived(70)) == "the peer sent the alert protocol_version"


# --- the transcript -------------------------------------------------------------------------------------------


def test_a_transcript_hashes_from_the_first_message_on_and_outlives_its_messages() -> None:
    transcript = Transcript()
    transcript.add(b"first")
    transcript.start(SHA256)
    transcript.add(b"second")
    assert transcript.hash() == SHA256.digest(b"firstsecond")
    assert transcript.messages == b"firstsecond"
    assert transcript.hash_with(SHA256, b"x") == SHA256.digest(b"firstsecondx")
    transcript.forget()
    transcript.add(b"third")
    assert transcript.hash() == SHA256.digest(b"firstsecondthird")


def test_after_a_retry_the_first_message_is_its_hash() -> None:
    transcript = Transcript()
    with pytest.raises(ValueError, match="hash"):
        transcript.retry()
    first, request = b"\x01\x00\x00\x03abc", b"\x02\x00\x00\x01x"
    transcript.add(first)
    transcript.add(request)
    transcript.start(SHA256)
    transcript.retry()
    assert transcript.hash() == SHA256.digest(b"\xfe\x00\x00\x20" + SHA256.digest(first) + request)
