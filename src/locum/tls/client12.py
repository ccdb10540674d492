"""The TLS 1.2 client from the ServerHello on (RFC 5246 section 7.3, RFC 7627, RFC 5077; fig 14).

Full handshakes with RSA, DHE and ECDHE key exchange and AEAD suites, and the abbreviated handshake with a
ticket, which needs no delegate beyond the start. No renegotiation.
"""

from __future__ import annotations

from dataclasses import field

from locum.crypto.symmetric import constant_time_equal
from locum.errors import Incompatible
from locum.handshake import Ask, PeerChain, Verdict, ask, expect, now
from locum.tls import schedule
from locum.tls.agreement import agreed_limits, ask_accepted, bounded, of_length, selected_protocol
from locum.tls.alerts import DecryptError, IllegalParameter
from locum.tls.extensions import expect_empty, parse_point_formats
from locum.tls.messages import CertificateVerify, Finished, Message, ServerHello, serialize
from locum.tls.messages12 import (
    Certificate,
    CertificateRequest,
    CertificateStatus,
    ClientKeyExchange,
    NewSessionTicket,
    ServerHelloDone,
    ServerKeyExchange,
)
from locum.tls.offer import Offer
from locum.tls.operations import (
    AuthenticateRequest,
    ClientCertificateRequest,
    ClientCertificateResponse,
    ClientKeyExchangeRequest,
    ClientKeyExchangeResponse,
    ClientSignatureRequest,
    ClientSignatureResponse,
    KeyBlockResponse,
    KeyForm,
    MasterSecretResponse,
    ServerFinishedRequest,
    ServerFinishedResponse,
    SessionKeysRequest,
)
from locum.tls.outcome import Outcome
from locum.tls.receiving import receive, receive_one_of
from locum.tls.registry import (
    Authentication,
    CipherSuite,
    ExtensionType,
    KeyExchange,
    ProtocolVersion,
    scheme_authentication,
)
from locum.tls.session import DEFAULT_TICKET_LIFETIME, MAX_TICKET, SessionInfo, SessionTicket, exporter12
from locum.tls.signed_messages12 import told_messages
from locum.tls.steps import (
    Handshake,
    ReadKeys,
    ReceiveChangeCipherSpec,
    Send,
    SendChangeCipherSpec,
    WriteKeys,
)
from locum.tls.transcript import Transcript
from locum.values import dataclass

_SERVER_HELLO = frozenset(
    {
        ExtensionType.SERVER_NAME,
        ExtensionType.STATUS_REQUEST,
        ExtensionType.EC_POINT_FORMATS,
        ExtensionType.APPLICATION_LAYER_PROTOCOL_NEGOTIATION,
        ExtensionType.EXTENDED_MASTER_SECRET,
        ExtensionType.RECORD_SIZE_LIMIT,
        ExtensionType.SESSION_TICKET,
        ExtensionType.RENEGOTIATION_INFO,
        # RFC 8446 section 4.2.7: some servers send it here; to be ignored.
        ExtensionType.SUPPORTED_GROUPS,
    }
)
_UNCOMPRESSED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agreed:
    """What the ServerHello settled."""

    suite: CipherSuite
    randoms: bytes
    alpn: str | None
    extended: bool
    status: bool
    ticket: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Flight:
    """The server's first flight after its hello, as far as it needs an answer."""

    chain: PeerChain
    request: CertificateRequest | None
    parameters: bytes = b""
    scheme: int = 0
    signature: bytes = b""
    group: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    """The session's keys in either form of A7: `master` is None where the delegate keeps it."""

    master: bytes | None = field(repr=False)
    client: tuple[bytes, bytes] = field(repr=False)
    server: tuple[bytes, bytes] = field(repr=False)
    client_verify_data: bytes = b""


def handshake(offer: Offer, transcript: Transcript, hello: ServerHello, suite: CipherSuite) -> Handshake[Outcome]:
    """Everything after the ServerHello, which already is in the transcript."""
    transcript.start(suite.hash)
    agreed = _server_hello(offer, hello, suite)
    limits = agreed_limits(
        offer.configuration.record_size_limit,
        hello.extensions.get(ExtensionType.RECORD_SIZE_LIMIT),
        ProtocolVersion.TLS_1_2,
    )
    if limits is not None:
        yield limits
    previous = offer.ticket12
    if previous is not None and hello.session_id == offer.session_id and hello.session_id:
        return (yield from _abbreviated(offer, transcript, agreed, previous))
    return (yield from _full(offer, transcript, agreed))


def _server_hello(offer: Offer, hello: ServerHello, suite: CipherSuite) -> _Agreed:
    answers = hello.extensions
    offer.check_answers(answers, _SERVER_HELLO)
    for code in (ExtensionType.SERVER_NAME, ExtensionType.STATUS_REQUEST, ExtensionType.EXTENDED_MASTER_SECRET):
        expect_empty(answers.get(code) or b"")
    expect_empty(answers.get(ExtensionType.SESSION_TICKET) or b"")
    formats = answers.get(ExtensionType.EC_POINT_FORMATS)
    if formats is not None and _UNCOMPRESSED not in parse_point_formats(formats):
        # RFC 8422 section 5.2: "it MUST contain the value 0 (uncompressed)".
        raise IllegalParameter("the server cannot use uncompressed points")
    renegotiation = answers.get(ExtensionType.RENEGOTIATION_INFO)
    if renegotiation is not None and renegotiation != b"\0":
        # RFC 5746 section 3.4: "the client MUST abort the handshake".
        raise Incompatible("renegotiation_info of a first handshake is not empty")
    return _Agreed(
        suite=suite,
        randoms=offer.random + hello.random,
        alpn=selected_protocol(offer, answers),
        extended=answers.get(ExtensionType.EXTENDED_MASTER_SECRET) is not None,
        status=answers.get(ExtensionType.STATUS_REQUEST) is not None,
        ticket=answers.get(ExtensionType.SESSION_TICKET) is not None,
    )


# --- the full handshake -------------------------------------------------------------------------------------


def _full(offer: Offer, transcript: Transcript, agreed: _Agreed) -> Handshake[Outcome]:
    suite = agreed.suite
    flight = yield from _receive_flight(offer, transcript, agreed)

    # One round trip: authentication first, so that no key is made for a peer that is not who it should be.
    requests = _client_certificate_request(offer, flight)
    responses = yield from ask_accepted(
        _authenticate_request(agreed, flight),
        *requests,
        ClientKeyExchangeRequest(cipher_suite=suite.code, parameters=flight.parameters),
    )
    identity = expect(responses, 0, Verdict).identity
    chosen = expect(responses, 1, ClientCertificateResponse) if requests else None
    exchange = expect(responses, 1 + len(requests), ClientKeyExchangeResponse)

    if flight.request is not None:
        certificates = chosen.certificates if chosen is not None else ()
        yield from _send(transcript, Certificate(certificates=certificates))
    yield from _send(transcript, ClientKeyExchange(body=exchange.body))
    seed = transcript.hash() if agreed.extended else agreed.randoms
    signs = chosen is not None and bool(chosen.certificates)
    keys = yield from _request_keys(offer, transcript, agreed, seed, chosen if signs else None)

    yield SendChangeCipherSpec()
    yield WriteKeys(suite, *keys.client)
    yield from _send(transcript, Finished(verify_data=_client_verify_data(suite, transcript, keys)))
    message = yield from _receive_ticket(transcript, agreed)
    yield ReceiveChangeCipherSpec()
    yield ReadKeys(suite, *keys.server)
    yield from _receive_finished(transcript, suite, keys)
    transcript.forget()
    tickets = yield from _tickets(offer, agreed, keys.master, message, identity)
    return Outcome(
        session=_session(
            offer,
            agreed,
            keys.master,
            identity,
            group=flight.group,
            resumed=False,
            client_authenticated=signs,
            certificates=flight.chain.certificates,
        ),
        tickets=tickets,
    )


def _send(transcript: Transcript, message: Message) -> Handshake[None]:
    data = serialize(message)
    transcript.add(data)
    yield Send(data)


def _receive_flight(offer: Offer, transcript: Transcript, agreed: _Agreed) -> Handshake[_Flight]:
    """Certificate [CertificateStatus] [ServerKeyExchange] [CertificateRequest] ServerHelloDone."""
    suite = agreed.suite
    certificate = yield from receive(transcript, Certificate)
    if not certificate.certificates:
        raise IllegalParameter("the server sent no certificate")
    due: list[type[Message]] = [CertificateRequest, ServerHelloDone]
    if suite.key_exchange is not KeyExchange.RSA:
        due = [ServerKeyExchange]
    # RFC 6066 section 8: a server that agreed to CertificateStatus may still leave it out.
    optional = [CertificateStatus] if agreed.status else []
    message = yield from receive_one_of(transcript, *optional, *due)
    staple = b""
    if isinstance(message, CertificateStatus):
        staple = message.ocsp_response
        message = yield from receive_one_of(transcript, *due)
    parameters, scheme, signature = b"", 0, b""
    group: int | None = None
    if isinstance(message, ServerKeyExchange):
        parameters, scheme, signature, group = message.split(suite.key_exchange)
        _check_key_exchange(offer, suite, scheme, group)
        message = yield from receive_one_of(transcript, CertificateRequest, ServerHelloDone)
    request = None
    if isinstance(message, CertificateRequest):
        request = message
        yield from receive(transcript, ServerHelloDone)
    return _Flight(
        chain=bounded(PeerChain(certificate.certificates, staple)),
        request=request,
        parameters=parameters,
        scheme=scheme,
        signature=signature,
        group=group,
    )


def _check_key_exchange(offer: Offer, suite: CipherSuite, scheme: int, group: int | None) -> None:
    if scheme not in offer.method.signature_schemes:
        raise IllegalParameter(f"ServerKeyExchange signed with scheme 0x{scheme:04x}, not offered")
    if suite.authentication not in (Authentication.ANY, scheme_authentication(scheme)):
        raise IllegalParameter(f"scheme 0x{scheme:04x} does not fit {suite.name}")
    if group is not None and group not in offer.method.groups:
        raise IllegalParameter(f"ServerKeyExchange in group 0x{group:04x}, not offered")


def _authenticate_request(agreed: _Agreed, flight: _Flight) -> AuthenticateRequest:
    return AuthenticateRequest(
        version=ProtocolVersion.TLS_1_2,
        cipher_suite=agreed.suite.code,
        chain=flight.chain,
        scheme=flight.scheme,
        signature=flight.signature,
        content=agreed.randoms + flight.parameters if flight.signature else b"",
    )


def _client_certificate_request(offer: Offer, flight: _Flight) -> tuple[ClientCertificateRequest, ...]:
    if flight.request is None or not offer.configuration.client_certificate:
        return ()
    return (
        ClientCertificateRequest(
            version=ProtocolVersion.TLS_1_2,
            schemes=flight.request.schemes,
            authorities=flight.request.authorities,
        ),
    )


def _request_keys(
    offer: Offer,
    transcript: Transcript,
    agreed: _Agreed,
    seed: bytes,
    identity: ClientCertificateResponse | None,
) -> Handshake[_Keys]:
    """request_key in the form that was chosen at the start, with the client's signature before it (A7)."""
    suite = agreed.suite
    request = SessionKeysRequest(extended=agreed.extended, seed=seed)
    if offer.method.key_form is KeyForm.SECRET:
        if identity is None:
            answer = yield from ask(request, MasterSecretResponse)
        else:
            responses = yield Ask((_signature_request(transcript), request))
            yield from _send_signature(transcript, identity, expect(responses, 0, ClientSignatureResponse))
            answer = expect(responses, 1, MasterSecretResponse)
        return _own_keys(agreed, of_length(answer.secret, schedule.MASTER_SECRET_LENGTH))
    if identity is not None:
        # The client's verify_data covers CertificateVerify, so here the signature costs a round trip.
        signature = yield from ask(_signature_request(transcript), ClientSignatureResponse)
        yield from _send_signature(transcript, identity, signature)
    block = yield from ask(
        SessionKeysRequest(
            extended=agreed.extended, seed=seed, randoms=agreed.randoms, finished_hash=transcript.hash()
        ),
        KeyBlockResponse,
    )
    key_block = of_length(block.key_block, schedule.key_block_length(suite))
    client, server = schedule.split_key_block(suite, key_block)
    verify_data = of_length(block.client_verify_data, schedule.VERIFY_DATA_LENGTH)
    return _Keys(master=None, client=client, server=server, client_verify_data=verify_data)


def _own_keys(agreed: _Agreed, master: bytes) -> _Keys:
    block = schedule.key_block12(agreed.suite, master, agreed.randoms)
    client, server = schedule.split_key_block(agreed.suite, block)
    return _Keys(master=master, client=client, server=server)


def _signature_request(transcript: Transcript) -> ClientSignatureRequest:
    """RFC 5246 section 7.4.8: over all messages so far, of which the authority is told those it cannot know."""
    content = told_messages(transcript.messages)
    return ClientSignatureRequest(version=ProtocolVersion.TLS_1_2, content=content)


def _send_signature(
    transcript: Transcript, identity: ClientCertificateResponse, answer: ClientSignatureResponse
) -> Handshake[None]:
    verify = CertificateVerify(scheme=identity.scheme, signature=answer.signature)
    yield from _send(transcript, verify)


def _client_verify_data(suite: CipherSuite, transcript: Transcript, keys: _Keys) -> bytes:
    if keys.master is None:
        return keys.client_verify_data
    return schedule.verify_data12(suite.hash, keys.master, b"client finished", transcript.hash())


def _receive_ticket(transcript: Transcript, agreed: _Agreed) -> Handshake[NewSessionTicket | None]:
    """RFC 5077 section 3.3: the ServerHello said whether a ticket comes."""
    if not agreed.ticket:
        return None
    return (yield from receive(transcript, NewSessionTicket))


def _receive_finished(transcript: Transcript, suite: CipherSuite, keys: _Keys) -> Handshake[None]:
    before = transcript.hash()
    finished = yield from receive(transcript, Finished)
    if keys.master is not None:
        due = schedule.verify_data12(suite.hash, keys.master, b"server finished", before)
    else:
        answer = yield from ask(ServerFinishedRequest(finished_hash=before), ServerFinishedResponse)
        due = of_length(answer.server_verify_data, schedule.VERIFY_DATA_LENGTH)
    if not constant_time_equal(finished.verify_data, due):
        raise DecryptError("the server's Finished does not verify")


# --- resumption -----------------------------------------------------------------------------------------------


def _abbreviated(
    offer: Offer, transcript: Transcript, agreed: _Agreed, previous: SessionTicket
) -> Handshake[Outcome]:
    """RFC 5077 section 3.1, fig 2: the server accepted the ticket by echoing our session id."""
    suite = agreed.suite
    if suite is not previous.suite:
        raise IllegalParameter("the session is resumed with another cipher suite")
    if not agreed.extended:
        # RFC 7627 section 5.3: "the client MUST abort the handshake."
        raise Incompatible("the session is resumed without the extended master secret")
    keys = _own_keys(agreed, previous.secret)
    message = yield from _receive_ticket(transcript, agreed)
    yield ReceiveChangeCipherSpec()
    yield ReadKeys(suite, *keys.server)
    yield from _receive_finished(transcript, suite, keys)
    yield SendChangeCipherSpec()
    yield WriteKeys(suite, *keys.client)
    yield from _send(transcript, Finished(verify_data=_client_verify_data(suite, transcript, keys)))
    transcript.forget()
    identity = previous.peer_identity
    tickets = yield from _tickets(offer, agreed, keys.master, message, identity)
    return Outcome(
        session=_session(
            offer,
            agreed,
            keys.master,
            identity,
            group=None,
            resumed=True,
            client_authenticated=False,
            certificates=(),
        ),
        tickets=tickets,
    )


def _tickets(
    offer: Offer, agreed: _Agreed, master: bytes | None, message: NewSessionTicket | None, identity: str
) -> Handshake[tuple[SessionTicket, ...]]:
    """What can be resumed later: never a session without RFC 7627, nor one whose secret the delegate keeps."""
    if message is None or not 1 <= len(message.ticket) <= MAX_TICKET or master is None or not agreed.extended:
        return ()
    moment = yield from now()
    ticket = SessionTicket(
        version=ProtocolVersion.TLS_1_2,
        suite=agreed.suite,
        server_name=offer.configuration.server_name,
        peer_identity=identity,
        ticket=message.ticket,
        secret=master,
        issued_at=moment,
        # RFC 5077 section 3.3: a hint of 0 means that the server names no lifetime.
        lifetime=message.lifetime_hint or DEFAULT_TICKET_LIFETIME,
    )
    return (ticket,)


def _session(
    offer: Offer,
    agreed: _Agreed,
    master: bytes | None,
    identity: str,
    *,
    group: int | None,
    resumed: bool,
    client_authenticated: bool,
    certificates: tuple[bytes, ...],
) -> SessionInfo:
    return SessionInfo(
        version=ProtocolVersion.TLS_1_2,
        cipher_suite=agreed.suite,
        group=group,
        server_name=offer.configuration.server_name,
        peer_identity=identity,
        alpn=agreed.alpn,
        resumed=resumed,
        client_authenticated=client_authenticated,
        peer_certificates=certificates,
        _exporter=exporter12(agreed.suite, master, agreed.randoms)
        if master is not None and agreed.extended
        else None,
    )
