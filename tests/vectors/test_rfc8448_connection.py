"""RFC 8448 sections 3, 5, 6 and 7 through the client itself: every record it sends is the RFC's, octet for octet.

Only the ClientHello is given, because the RFC's client offers things that locum never does; a scripted authority
answers with what follows from the RFC's private keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.vectors.rfc8448 import Trace, load
from tests.vectors.rfc8448_exchange import shared_secret
from tests.vectors.rfc8448_records import SUITE, handshake_messages

from locum.crypto.symmetric import SHA256
from locum.handshake import Request, Response, Verdict
from locum.tls import schedule
from locum.tls.configuration import ClientConfiguration
from locum.tls.connection import ClientConnection, CloseReceived, DataReceived, HandshakeComplete, TicketReceived
from locum.tls.messages import CertificateVerify
from locum.tls.messages13 import Certificate
from locum.tls.offer import Offer
from locum.tls.operations import (
    AuthenticateRequest,
    ClientCertificateRequest,
    ClientCertificateResponse,
    ClientSignatureRequest,
    ClientSignatureResponse,
    HandshakeSecretsRequest,
    HandshakeSecretsResponse,
    KeyForm,
    KeyShareRequest,
    KeyShareResponse,
    MasterSecretRequest,
    MasterSecretResponse,
    StartRequest,
    StartResponse,
)
from locum.tls.receiving import parse_message
from locum.tls.record import HEADER_LENGTH, RecordWriter, protection
from locum.tls.registry import CIPHER_SUITES, ContentType, NamedGroup, ProtocolVersion, SignatureScheme

SUITES = (0x1301, 0x1303, 0x1302)
GROUPS = (NamedGroup.X25519, NamedGroup.SECP256R1, NamedGroup.SECP384R1)
SCHEMES = (SignatureScheme.ECDSA_SECP256R1_SHA256, SignatureScheme.RSA_PSS_RSAE_SHA256)
DATA = bytes(range(50))


class TraceAuthority:
    """Answers with what the trace's private keys and certificates give, and checks what it is asked."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.asked: list[Request] = []

    def perform(self, request: Request) -> Response:
        self.asked.append(request)
        match request:
            case StartRequest():
                return StartResponse(
                    versions=(ProtocolVersion.TLS_1_3,),
                    cipher_suites=SUITES,
                    groups=GROUPS,
                    signature_schemes=SCHEMES,
                    key_share_group=NamedGroup.X25519,
                    key_share=bytes(32),
                    key_form=KeyForm.SECRET,
                )
            case KeyShareRequest(group=group):
                assert group == NamedGroup.SECP256R1
                return KeyShareResponse(key_share=bytes(65))
            case HandshakeSecretsRequest(transcript_hash=transcript_hash):
                secret = schedule.handshake_secret(SHA256, shared_secret(self._trace))
                client, server = schedule.handshake_traffic_secrets(SHA256, secret, transcript_hash)
                assert (client, server) == (self._trace["c_hs_traffic"], self._trace["s_hs_traffic"])
                return HandshakeSecretsResponse(client_secret=client, server_secret=server)
            case AuthenticateRequest():
                return Verdict(authentic=True, allowed=True, identity="dns:server")
            case ClientCertificateRequest():
                return ClientCertificateResponse(certificates=self._own_chain, scheme=self._own_verify.scheme)
            case ClientSignatureRequest():
                return ClientSignatureResponse(signature=self._own_verify.signature)
            case MasterSecretRequest():
                return MasterSecretResponse(secret=self._master)
        raise AssertionError(request)

    @property
    def _master(self) -> bytes:
        return schedule.master_secret(SHA256, self._trace["handshake_secret"])

    @property
    def _own_messages(self) -> list[bytes]:
        keys = (self._trace["client_handshake_key"], self._trace["client_handshake_iv"])
        return handshake_messages(self._trace["client_flight"], keys)

    @property
    def _own_chain(self) -> tuple[bytes, ...]:
        return parse_message(Certificate, self._own_messages[0]).chain().certificates

    @property
    def _own_verify(self) -> CertificateVerify:
        return parse_message(CertificateVerify, self._own_messages[1])


def hello_random(trace: Trace) -> Iterator[bytes]:
    """What the client draws: client random and, in compatibility mode, the session id."""
    hello = trace["client_hello"][HEADER_LENGTH:]
    yield hello[6:38]
    yield hello[39 : 39 + hello[38]]


@pytest.fixture
def the_traces_client_hellos(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ClientHello of the trace that has the client's random takes the place of ours."""

    def client_hello(offer: Offer, transcript: Any) -> bytes:
        del transcript
        (trace,) = [t for t in load().values() if t["client_hello"][11:43] == offer.random]
        return trace["client_hello" if offer.cookie is None else "second_client_hello"][HEADER_LENGTH:]

    monkeypatch.setattr(Offer, "client_hello", client_hello)


class Replay:
    """The client under test, fed with the server's records of one trace."""

    def __init__(self, section: int) -> None:
        self.trace = load()[section]
        self.authority = TraceAuthority(self.trace)
        drawn = hello_random(self.trace)
        configuration = ClientConfiguration(
            server_name="server",
            versions=(ProtocolVersion.TLS_1_3,),
            cipher_suites=SUITES,
            record_size_limit=0x4001,
            compatibility_mode=section == 7,
        )
        self.client = ClientConnection(configuration, random=lambda length: next(drawn), now=lambda: 1_000_000.0)
        self.client.start()
        self.answer()

    def answer(self) -> None:
        while (pending := self.client.pending) is not None:
            self.client.answer(tuple(self.authority.perform(request) for request in pending))

    def receive(self, name: str, step: int) -> None:
        data = self.trace[name]
        for start in range(0, len(data), step or len(data)):
            self.client.receive_data(data[start : start + (step or len(data))])
            self.answer()

    def sent(self) -> bytes:
        return bytes(self.client.data_to_send())


@pytest.mark.usefixtures("the_traces_client_hellos")
@pytest.mark.parametrize("step", [0, 1, 100], ids=["in one piece", "octet by octet", "in pieces"])
@pytest.mark.parametrize("section", [3, 5, 6, 7])
def test_what_the_client_sends_is_the_rfcs_octet_for_octet(section: int, step: int) -> None:
    replay = Replay(section)
    trace = replay.trace
    assert replay.sent() == trace["client_hello"]
    if "hello_retry_request" in trace:
        replay.receive("hello_retry_request", step)
        assert replay.sent() == trace["second_client_hello"]
    replay.receive("server_hello", step)
    replay.receive("server_flight", step)
    if section == 6:
        check_messages_of_the_client_flight(replay)
    else:
        assert replay.sent() == trace["client_flight"]
    (complete,) = replay.client.events()
    assert isinstance(complete, HandshakeComplete)
    assert complete.session.cipher_suite is CIPHER_SUITES[0x1301]
    assert complete.session.client_authenticated == (section == 6)
    assert complete.session.peer_identity == "dns:server"
    if section == 3:
        exchange_data(replay, step)
    replay.client.close()
    assert replay.sent() == trace["client_close"]
    replay.receive("server_close", step)
    assert replay.client.events() == [CloseReceived()]


def check_messages_of_the_client_flight(replay: Replay) -> None:
    """The RFC's client puts its three messages into one record, we each into one of its own."""
    keys = (replay.trace["client_handshake_key"], replay.trace["client_handshake_iv"])
    ours, theirs = replay.sent(), replay.trace["client_flight"]
    messages = handshake_messages(ours, keys)
    assert messages == handshake_messages(theirs, keys)
    writer = RecordWriter()
    writer.protection = protection(SUITE, *keys)
    writer.write(ContentType.HANDSHAKE, b"".join(messages))
    assert writer.take() == theirs
    # The signature is over what the RFC's is over.
    (signed,) = [request for request in replay.authority.asked if isinstance(request, ClientSignatureRequest)]
    content = schedule.certificate_verify_content(b"client", signed.content)
    assert content.endswith(bytes.fromhex("44026ef3331bc864da1c08ee32e196d93cc2c5d487e47e957d980e7c3d801b9a"))


def exchange_data(replay: Replay, step: int) -> None:
    """Section 3 goes on with a ticket and 50 octets each way."""
    replay.receive("new_session_ticket", step)
    (event,) = replay.client.events()
    assert isinstance(event, TicketReceived)
    assert event.ticket.secret == replay.trace["resumption"]
    assert event.ticket.lifetime == 30
    assert len(event.ticket.ticket) == 178
    assert event.ticket.ticket in load()[4]["client_hello"]
    replay.client.send_data(DATA)
    assert replay.sent() == replay.trace["client_data"]
    replay.receive("server_data", step)
    assert replay.client.events() == [DataReceived(DATA)]


@pytest.mark.usefixtures("the_traces_client_hellos")
@pytest.mark.parametrize("section", [3, 5, 6, 7])
def test_the_authority_is_asked_about_what_the_trace_shows(section: int) -> None:
    replay = Replay(section)
    for name in ("hello_retry_request", "server_hello", "server_flight"):
        if name in replay.trace:
            replay.receive(name, 0)
    (asked,) = [request for request in replay.authority.asked if isinstance(request, AuthenticateRequest)]
    scheme = SignatureScheme.ECDSA_SECP256R1_SHA256 if section == 6 else SignatureScheme.RSA_PSS_RSAE_SHA256
    assert asked.scheme == scheme
    assert len(asked.chain.certificates) == 1
    # The transcript hash that the server's CertificateVerify signs; the signature itself is verified elsewhere.
    expected = {
        3: "764d6632b3c35c3f3205e3499ac3edbaabb88295fba751461d3678e2e5ea0687",
        5: "a303fd397938c2b5c3fb0dfb33bd6c46d890331e3be5ed3b8ea2be5218c3db1a",
        6: "859eaf14bd760766c74a398668367bc3a32687ce5a598b4383726ab82a911e26",
        7: "f6f6f65e8dadcbfc7dfd3a7841469b0f9889ba468c9ff9da0ae5ca4dea8b50e4",
    }
    assert asked.content == bytes.fromhex(expected[section])
