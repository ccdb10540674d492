"""The TLS 1.2 server from the ClientHello on (RFC 5246 section 7.3, RFC 7627, RFC 5077).

Full handshakes with RSA (fig 2), DHE and ECDHE key exchange and AEAD suites, and the abbreviated handshake with a
ticket, which asks for nothing. No session ids, no renegotiation.
"""

from __future__ import annotations

from dataclasses import field
from functools import lru_cache

from locum.crypto.symmetric import constant_time_equal
from locum.errors import Incompatible
from locum.handshake import PeerChain, Verdict, ask, expect, now, random
from locum.tls import schedule
from locum.tls.agreement import agreed_limits, ask_accepted, bounded, of_length
from locum.tls.alerts import DecryptError, IllegalParameter
from locum.tls.client_offer import ClientOffer
from locum.tls.extensions import Extensions, write_alpn, write_u16
from locum.tls.messages import (
    DOWNGRADE_SENTINELS,
    RANDOM_LENGTH,
    CertificateVerify,
    Finished,
    ServerHello,
    serialize,
)
from locum.tls.messages12 import (
    Certificate,
    CertificateRequest,
    CertificateStatus,
    ClientKeyExchange,
    NewSessionTicket,
    ServerHelloDone,
    ServerKeyExchange,
)
from locum.tls.operations import MasterSecretResponse
from locum.tls.outcome import Outcome
from locum.tls.receiving import receive
from locum.tls.registry import CipherSuite, ExtensionType, KeyExchange, ProtocolVersion, SignatureScheme
from locum.tls.resumption import open_ticket, ticket_lifetime
from locum.tls.selection import Choice12, checked, choose12, choose_protocol, start_request
from locum.tls.server_configuration import ClientCertificates, ServerConfiguration
from locum.tls.server_operations import (
    ClientAuthenticateRequest,
    ServerMasterSecretRequest,
    ServerParametersRequest,
    ServerParametersResponse,
    ServerStartResponse,
)
from locum.tls.session import SessionInfo, exporter12
from locum.tls.steps import (
    Handshake,
    ReadKeys,
    ReceiveChangeCipherSpec,
    Send,
    SendChangeCipherSpec,
    WriteKeys,
)
from locum.tls.tickets import NONCE_LENGTH, TicketState
from locum.tls.transcript import Transcript
from locum.values import dataclass

#: RFC 5246 section 7.4.4, RFC 8422 section 5.5: rsa_sign and ecdsa_sign, which stands for EdDSA too.
_CERTIFICATE_TYPES = b"\x01\x40"
_UNCOMPRESSED_POINTS_ONLY = b"\x01\x00"
_NO_RENEGOTIATION_YET = b"\x00"
_ONLY_13 = frozenset({SignatureScheme.MLDSA44, SignatureScheme.MLDSA65, SignatureScheme.MLDSA87})

#: Certificate messages and the like that are remembered: a server has few certificates, and shows them often.
_CACHED = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agreed:
    """What the ServerHello said. `moment` is 0 without tickets, `seed` empty without RSA key exchange."""

    wishes: ServerConfiguration
    offer: ClientOffer
    suite: CipherSuite
    alpn: str | None
    randoms: bytes
    moment: float
    promises_ticket: bool
    seed: bytes = field(repr=False, default=b"")

    @property
    def extended(self) -> bool:
        """Whether the extended master secret is used (RFC 7627)."""
        return self.offer.extended_master_secret


@dataclass(frozen=True, slots=True, kw_only=True)
class _Keys:
    """Master secret, and key and IV of each direction."""

    master: bytes = field(repr=False)
    client: tuple[bytes, bytes] = field(repr=False)
    server: tuple[bytes, bytes] = field(repr=False)


def handshake(wishes: ServerConfiguration, offer: ClientOffer, transcript: Transcript) -> Handshake[Outcome]:
    """Everything after the ClientHello, which already is in the transcript."""
    moment = (yield from now()) if wishes.tickets is not None else 0.0
    previous = _resumable(wishes, offer, moment)
    if previous is not None:
        return (yield from _abbreviated(wishes, offer, transcript, moment, previous))
    return (yield from _full(wishes, offer, transcript, moment))


# --- the full handshake -------------------------------------------------------------------------------------


def _full(
    wishes: ServerConfiguration, offer: ClientOffer, transcript: Transcript, moment: float
) -> Handshake[Outcome]:
    start = checked((yield from ask(start_request(wishes, offer), ServerStartResponse)), offer)
    choice = choose12(wishes, offer, start)
    suite = choice.suite
    transcript.start(suite.hash)
    staples = offer.status and bool(start.ocsp_response)
    rsa = suite.key_exchange is KeyExchange.RSA
    agreed, hello = yield from _server_hello(
        wishes,
        offer,
        suite,
        moment,
        staples=staples,
        rsa=rsa,
        tickets=ticket_lifetime(wishes, authenticated_at=moment, moment=moment) > 0,
    )
    limits = agreed_limits(wishes.record_size_limit, offer.record_size_limit, ProtocolVersion.TLS_1_2)
    if limits is not None:
        yield limits
    asks = wishes.client_certificates is not ClientCertificates.NONE
    flight = hello + _certificate(start.certificates, start.ocsp_response if staples else b"")
    if not rsa:
        flight += yield from _server_key_exchange(agreed, choice)
    if asks:
        flight += _certificate_request(wishes.client_schemes, wishes.client_authorities)
    yield from _send(transcript, flight + _SERVER_HELLO_DONE)

    keys, evidence, identity = yield from _client_flight(agreed, transcript, asks=asks)
    yield from _receive_finished(transcript, agreed, keys)
    yield from _send_ticket(agreed, transcript, keys, identity)
    yield from _send_finished(transcript, agreed, keys)
    transcript.forget()
    return _outcome(
        agreed,
        keys,
        group=choice.group or None,
        identity=identity,
        certificates=evidence.chain.certificates if evidence is not None else (),
        resumed=False,
    )


def _send(transcript: Transcript, messages: bytes) -> Handshake[None]:
    transcript.add(messages)
    yield Send(messages)


def _server_hello(
    wishes: ServerConfiguration,
    offer: ClientOffer,
    suite: CipherSuite,
    moment: float,
    *,
    staples: bool,
    rsa: bool,
    tickets: bool,
    session_id: bytes = b"",
) -> Handshake[tuple[_Agreed, bytes]]:
    """What is agreed, and the ServerHello that says so; a session id echoes that of a client that resumes."""
    made = yield from random(RANDOM_LENGTH)
    # RFC 8446 section 4.1.3: a server of TLS 1.3 that speaks TLS 1.2 says so where nobody can change it.
    sentinel = DOWNGRADE_SENTINELS[0] if ProtocolVersion.TLS_1_3 in wishes.versions else b""
    server_random = (
        schedule.bound_random(made, sentinel) if rsa else made[: RANDOM_LENGTH - len(sentinel)] + sentinel
    )
    agreed = _Agreed(
        wishes=wishes,
        offer=offer,
        suite=suite,
        alpn=choose_protocol(wishes, offer),
        randoms=offer.hello.random + server_random,
        moment=moment,
        promises_ticket=tickets and offer.ticket is not None and offer.extended_master_secret,
        seed=made if rsa else b"",
    )
    hello = ServerHello(
        random=server_random,
        session_id=session_id,
        cipher_suite=suite.code,
        extensions=_extensions(agreed, staples=staples, resumes=bool(session_id)),
    )
    return agreed, serialize(hello)


def _extensions(agreed: _Agreed, *, staples: bool, resumes: bool) -> Extensions:
    """Answers to what the client offered, and nothing else (RFC 5246 section 7.4.1.4)."""
    wishes, offer = agreed.wishes, agreed.offer
    items: list[tuple[int, bytes]] = []
    if offer.server_name and not resumes:
        items.append((ExtensionType.SERVER_NAME, b""))
    if staples:
        items.append((ExtensionType.STATUS_REQUEST, b""))
    if offer.point_formats and agreed.suite.key_exchange is KeyExchange.ECDHE:
        items.append((ExtensionType.EC_POINT_FORMATS, _UNCOMPRESSED_POINTS_ONLY))
    if agreed.alpn is not None:
        items.append((ExtensionType.APPLICATION_LAYER_PROTOCOL_NEGOTIATION, write_alpn((agreed.alpn,))))
    if agreed.extended:
        items.append((ExtensionType.EXTENDED_MASTER_SECRET, b""))
    if wishes.record_size_limit is not None and offer.record_size_limit is not None:
        items.append((ExtensionType.RECORD_SIZE_LIMIT, write_u16(wishes.record_size_limit)))
    if agreed.promises_ticket:
        items.append((ExtensionType.SESSION_TICKET, b""))
    if offer.secure_renegotiation:
        items.append((ExtensionType.RENEGOTIATION_INFO, _NO_RENEGOTIATION_YET))
    return Extensions(tuple(items))


_SERVER_HELLO_DONE = serialize(ServerHelloDone())


@lru_cache(maxsize=_CACHED)
def _certificate(certificates: tuple[bytes, ...], ocsp_response: bytes) -> bytes:
    """Certificate [CertificateStatus]."""
    message = serialize(Certificate(certificates=certificates))
    return message + serialize(CertificateStatus(ocsp_response=ocsp_response)) if ocsp_response else message


@lru_cache(maxsize=_CACHED)
def _certificate_request(schemes: tuple[int, ...], authorities: tuple[bytes, ...]) -> bytes:
    return serialize(
        CertificateRequest(
            certificate_types=_CERTIFICATE_TYPES,
            schemes=tuple(scheme for scheme in schemes if scheme not in _ONLY_13),
            authorities=authorities,
        )
    )


def _server_key_exchange(agreed: _Agreed, choice: Choice12) -> Handshake[bytes]:
    answer = yield from ask(
        ServerParametersRequest(
            group=choice.group,
            scheme=choice.scheme,
            client_random=agreed.randoms[:RANDOM_LENGTH],
            server_random=agreed.randoms[RANDOM_LENGTH:],
        ),
        ServerParametersResponse,
    )
    return serialize(ServerKeyExchange.join(answer.parameters, choice.scheme, answer.signature))


# --- the client's answer ------------------------------------------------------------------------------------


def _client_flight(
    agreed: _Agreed, transcript: Transcript, *, asks: bool
) -> Handshake[tuple[_Keys, ClientAuthenticateRequest | None, str]]:
    """[Certificate] ClientKeyExchange [CertificateVerify], and in one round trip what they are good for."""
    certificates: tuple[bytes, ...] = ()
    if asks:
        certificates = (yield from receive(transcript, Certificate)).certificates
        if not certificates and agreed.wishes.client_certificates is ClientCertificates.REQUIRED:
            # RFC 5246 section 7.4.6: "fatal handshake_failure".
            raise Incompatible("the client shows no certificate")
    exchange = yield from receive(transcript, ClientKeyExchange)
    messages = transcript.messages
    evidence = (yield from _client_evidence(agreed, transcript, certificates)) if certificates else None
    request = ServerMasterSecretRequest(
        cipher_suite=agreed.suite.code,
        extended=agreed.extended,
        client_random=agreed.randoms[:RANDOM_LENGTH],
        server_random=agreed.randoms[RANDOM_LENGTH:],
        key_exchange=exchange.body,
        messages=messages,
        random_seed=agreed.seed,
    )
    identity = ""
    if evidence is None:
        answer = yield from ask(request, MasterSecretResponse)
    else:
        responses = yield from ask_accepted(evidence, request)
        identity, answer = expect(responses, 0, Verdict).identity, expect(responses, 1, MasterSecretResponse)
    return _keys(agreed, of_length(answer.secret, schedule.MASTER_SECRET_LENGTH)), evidence, identity


def _client_evidence(
    agreed: _Agreed, transcript: Transcript, certificates: tuple[bytes, ...]
) -> Handshake[ClientAuthenticateRequest]:
    """CertificateVerify, which covers all messages before it (RFC 5246 section 7.4.8)."""
    content = transcript.messages
    verify = yield from receive(transcript, CertificateVerify)
    if verify.scheme not in agreed.wishes.client_schemes or verify.scheme in _ONLY_13:
        raise IllegalParameter(f"CertificateVerify with scheme 0x{verify.scheme:04x}, not offered for it")
    return ClientAuthenticateRequest(
        version=ProtocolVersion.TLS_1_2,
        chain=bounded(PeerChain(certificates)),
        scheme=verify.scheme,
        signature=verify.signature,
        content=content,
    )


def _keys(agreed: _Agreed, master: bytes) -> _Keys:
    block = schedule.key_block12(agreed.suite, master, agreed.randoms)
    client, server = schedule.split_key_block(agreed.suite, block)
    return _Keys(master=master, client=client, server=server)


def _receive_finished(transcript: Transcript, agreed: _Agreed, keys: _Keys) -> Handshake[None]:
    """With a pre-master secret that was no good, the record of the Finished does not even open."""
    yield ReceiveChangeCipherSpec()
    yield ReadKeys(agreed.suite, *keys.client)
    due = schedule.verify_data12(agreed.suite.hash, keys.master, b"client finished", transcript.hash())
    finished = yield from receive(transcript, Finished)
    if not constant_time_equal(finished.verify_data, due):
        raise DecryptError("the client's Finished does not verify")


def _send_finished(transcript: Transcript, agreed: _Agreed, keys: _Keys) -> Handshake[None]:
    yield SendChangeCipherSpec()
    yield WriteKeys(agreed.suite, *keys.server)
    due = schedule.verify_data12(agreed.suite.hash, keys.master, b"server finished", transcript.hash())
    yield from _send(transcript, serialize(Finished(verify_data=due)))


def _send_ticket(agreed: _Agreed, transcript: Transcript, keys: _Keys, identity: str) -> Handshake[None]:
    """NewSessionTicket where the ServerHello promised it; an empty one if there is none after all."""
    if not agreed.promises_ticket or agreed.wishes.tickets is None:
        return
    state = TicketState(
        suite=agreed.suite,
        secret=keys.master,
        server_name=agreed.offer.server_name,
        peer_identity=identity,
        authenticated_at=agreed.moment,
    )
    ticket = agreed.wishes.tickets.seal(
        state,
        now=agreed.moment,
        nonce=(yield from random(NONCE_LENGTH)),
        context=agreed.wishes.resumption_context,
    )
    lifetime = ticket_lifetime(agreed.wishes, authenticated_at=agreed.moment, moment=agreed.moment)
    yield from _send(transcript, serialize(NewSessionTicket(lifetime_hint=lifetime, ticket=ticket or b"")))


# --- resumption ---------------------------------------------------------------------------------------------


def _resumable(wishes: ServerConfiguration, offer: ClientOffer, moment: float) -> TicketState | None:
    """The state of the client's ticket, if it may be resumed here and now.

    Raises: Incompatible when the client has given up the extended master secret meanwhile.
    """
    if not offer.ticket or not offer.hello.session_id:
        return None
    state = open_ticket(wishes, offer, offer.ticket, version=ProtocolVersion.TLS_1_2, moment=moment)
    if state is None:
        return None
    code = state.suite.code
    if code not in wishes.cipher_suites or code not in offer.hello.cipher_suites:
        return None
    if not offer.extended_master_secret:
        # RFC 7627 section 5.3: "the server MUST abort the abbreviated handshake."
        raise Incompatible("the session is resumed without the extended master secret")
    return state


def _abbreviated(
    wishes: ServerConfiguration, offer: ClientOffer, transcript: Transcript, moment: float, previous: TicketState
) -> Handshake[Outcome]:
    """RFC 5077 section 3.1, fig 2: the ticket is accepted by echoing the client's session id; it stays in use."""
    transcript.start(previous.suite.hash)
    agreed, hello = yield from _server_hello(
        wishes,
        offer,
        previous.suite,
        moment,
        staples=False,
        rsa=False,
        tickets=False,
        session_id=offer.hello.session_id,
    )
    limits = agreed_limits(wishes.record_size_limit, offer.record_size_limit, ProtocolVersion.TLS_1_2)
    if limits is not None:
        yield limits
    yield from _send(transcript, hello)
    keys = _keys(agreed, previous.secret)
    yield from _send_finished(transcript, agreed, keys)
    yield from _receive_finished(transcript, agreed, keys)
    transcript.forget()
    return _outcome(agreed, keys, group=None, identity=previous.peer_identity, certificates=(), resumed=True)


def _outcome(
    agreed: _Agreed,
    keys: _Keys,
    *,
    group: int | None,
    identity: str,
    certificates: tuple[bytes, ...],
    resumed: bool,
) -> Outcome:
    return Outcome(
        session=SessionInfo(
            version=ProtocolVersion.TLS_1_2,
            cipher_suite=agreed.suite,
            group=group,
            server_name=agreed.offer.server_name,
            peer_identity=identity,
            alpn=agreed.alpn,
            resumed=resumed,
            client_authenticated=bool(identity),
            peer_certificates=certificates,
            _exporter=exporter12(agreed.suite, keys.master, agreed.randoms) if agreed.extended else None,
        )
    )
