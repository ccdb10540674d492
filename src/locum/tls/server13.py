"""The TLS 1.3 server from the ClientHello on (RFC 8446 sections 2 and 4).

Reads as the ladder of section 2. The server runs the key schedule; the key share and the signature are asked for.
Early data is never accepted, and psk_ke neither: every session has forward secrecy.
"""

from __future__ import annotations

from dataclasses import field
from functools import lru_cache

from locum.crypto.symmetric import constant_time_equal
from locum.errors import OperationError
from locum.handshake import Ask, Verdict, ask, expect, now, random
from locum.tls import schedule
from locum.tls.agreement import agreed_limits, ask_accepted, bounded
from locum.tls.alerts import (
    CertificateRequired,
    DecryptError,
    IllegalParameter,
    MissingExtension,
    UnsupportedExtension,
)
from locum.tls.client_offer import ClientOffer
from locum.tls.extensions import (
    Extensions,
    KeyShareEntry,
    write_alpn,
    write_certificate_status,
    write_codes,
    write_names,
    write_server_share,
    write_u16,
)
from locum.tls.messages import (
    HELLO_RETRY_REQUEST_RANDOM,
    RANDOM_LENGTH,
    CertificateVerify,
    ClientHello,
    Finished,
    ServerHello,
    serialize,
)
from locum.tls.messages13 import Certificate, CertificateRequest, EncryptedExtensions, NewSessionTicket
from locum.tls.outcome import ApplicationSecrets, Outcome
from locum.tls.receiving import receive
from locum.tls.registry import PKCS1_SCHEMES, CipherSuite, ExtensionType, ProtocolVersion, PskKeyExchangeMode
from locum.tls.resumption import open_ticket, ticket_lifetime
from locum.tls.selection import (
    checked,
    choose_group13,
    choose_protocol,
    choose_scheme13,
    choose_suite13,
    start_request,
)
from locum.tls.server_configuration import ClientCertificates, ServerConfiguration
from locum.tls.server_operations import (
    ClientAuthenticateRequest,
    ServerShareRequest,
    ServerShareResponse,
    ServerSignatureRequest,
    ServerSignatureResponse,
    ServerStartResponse,
)
from locum.tls.session import SessionInfo, exporter13
from locum.tls.steps import (
    Handshake,
    ReadKeys,
    Send,
    SendChangeCipherSpec,
    Tolerate,
    WriteKeys,
)
from locum.tls.tickets import NONCE_LENGTH, TicketState
from locum.tls.transcript import Transcript
from locum.values import dataclass

#: Bytes of 0-RTT records that are dropped: no ticket from here allows any, but one from elsewhere may.
MAX_EARLY_DATA = 1 << 16

#: Pre-shared keys of one ClientHello that are looked at; clients offer one or two.
MAX_IDENTITIES = 4

#: Certificate messages and the like that are remembered: a server has few certificates, and shows them often.
_CACHED = 64
_AGE_ADD_LENGTH = 4
_NO_EXTENSIONS = Extensions()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Agreed:
    """What is settled before the ServerHello. `resumed` is None in a full handshake, `moment` without tickets."""

    wishes: ServerConfiguration
    offer: ClientOffer
    suite: CipherSuite
    share: KeyShareEntry
    alpn: str | None
    retried: bool
    moment: float
    resumed: TicketState | None
    identity_index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Secrets:
    """The handshake's secrets (RFC 8446 section 7.1), each one hash long."""

    client: bytes = field(repr=False)
    server: bytes = field(repr=False)
    master: bytes = field(repr=False)


def handshake(wishes: ServerConfiguration, offer: ClientOffer, transcript: Transcript) -> Handshake[Outcome]:
    """Everything after the first ClientHello, which already is in the transcript."""
    agreed = yield from _agree(wishes, offer, transcript)
    suite = agreed.suite
    start, secrets = yield from _server_hello(agreed, transcript)
    yield ReadKeys(suite, *schedule.traffic_keys(suite, secrets.client))
    yield Tolerate(MAX_EARLY_DATA if agreed.offer.early_data and not agreed.retried else 0)
    yield WriteKeys(suite, *schedule.traffic_keys(suite, secrets.server))
    limits = agreed_limits(wishes.record_size_limit, agreed.offer.record_size_limit, ProtocolVersion.TLS_1_3)
    if limits is not None:
        yield limits
    asks = start is not None and wishes.client_certificates is not ClientCertificates.NONE
    yield from _flight(agreed, transcript, secrets, start, asks_client=asks)
    through_server_finished = transcript.hash()
    read, write = schedule.application_traffic_secrets(suite.hash, secrets.master, through_server_finished)
    yield WriteKeys(suite, *schedule.traffic_keys(suite, write))

    evidence = (yield from _client_evidence(wishes, transcript)) if asks else None
    yield from _receive_finished(transcript, suite, secrets.client)
    yield ReadKeys(suite, *schedule.traffic_keys(suite, read))
    identity = agreed.resumed.peer_identity if agreed.resumed is not None else ""
    if evidence is not None:
        identity = expect((yield from ask_accepted(evidence)), 0, Verdict).identity

    resumption = schedule.derive_secret(suite.hash, secrets.master, b"res master", transcript.hash())
    exporter = schedule.derive_secret(suite.hash, secrets.master, b"exp master", through_server_finished)
    transcript.forget()
    yield from _send_tickets(agreed, resumption, identity)
    return Outcome(
        session=SessionInfo(
            version=ProtocolVersion.TLS_1_3,
            cipher_suite=suite,
            group=agreed.share.group,
            server_name=agreed.offer.server_name,
            peer_identity=identity,
            alpn=agreed.alpn,
            resumed=agreed.resumed is not None,
            client_authenticated=bool(identity),
            peer_certificates=evidence.chain.certificates if evidence is not None else (),
            _exporter=exporter13(suite, exporter),
        ),
        secrets=ApplicationSecrets(read=read, write=write),
    )


# --- what is settled before the ServerHello -----------------------------------------------------------------


def _agree(wishes: ServerConfiguration, offer: ClientOffer, transcript: Transcript) -> Handshake[_Agreed]:
    if offer.hello.compression_methods != b"\0":
        # RFC 8446 section 4.1.2: "MUST contain exactly one byte, set to zero".
        raise IllegalParameter("a ClientHello of TLS 1.3 with compression methods")
    suite = choose_suite13(wishes, offer)
    transcript.start(suite.hash)
    group = choose_group13(wishes, offer)
    share, retried = offer.share(group), False
    if share is None:
        offer, share = yield from _retry(offer, transcript, suite, group, wishes.compatibility_mode)
        retried = True
    if offer.psks is not None and offer.psk_modes is None:
        # RFC 8446 section 4.2.9: "servers MUST abort the handshake."
        raise MissingExtension("pre_shared_key without psk_key_exchange_modes")
    moment = (yield from now()) if wishes.tickets is not None else 0.0
    index, resumed = _resumable(wishes, offer, transcript, suite, moment)
    if resumed is None and offer.schemes is None:
        raise MissingExtension("a ClientHello of TLS 1.3 without signature_algorithms")
    return _Agreed(
        wishes=wishes,
        offer=offer,
        suite=suite,
        share=share,
        alpn=choose_protocol(wishes, offer),
        retried=retried,
        moment=moment,
        resumed=resumed,
        identity_index=index,
    )


def _retry(
    first: ClientOffer, transcript: Transcript, suite: CipherSuite, group: int, compatible: bool
) -> Handshake[tuple[ClientOffer, KeyShareEntry]]:
    """HelloRetryRequest for a share in `group`, and the second ClientHello (RFC 8446 section 4.1.4).

    Without a cookie: it is for servers that forget the client meanwhile.
    """
    extensions = Extensions(
        (
            (ExtensionType.SUPPORTED_VERSIONS, write_u16(ProtocolVersion.TLS_1_3)),
            (ExtensionType.KEY_SHARE, write_u16(group)),
        )
    )
    request = ServerHello(
        random=HELLO_RETRY_REQUEST_RANDOM,
        session_id=first.hello.session_id,
        cipher_suite=suite.code,
        extensions=extensions,
    )
    yield from _send(transcript, serialize(request))
    transcript.retry()
    if compatible and first.hello.session_id:
        yield SendChangeCipherSpec()
    if first.early_data:
        yield Tolerate(MAX_EARLY_DATA)
    second = ClientOffer.of((yield from receive(transcript, ClientHello)))
    share = second.share(group)
    if share is None or second.early_data or not second.agrees_with(first):
        raise IllegalParameter("the second ClientHello is not what the HelloRetryRequest asks for")
    return second, share


def _resumable(
    wishes: ServerConfiguration, offer: ClientOffer, transcript: Transcript, suite: CipherSuite, moment: float
) -> tuple[int, TicketState | None]:
    """The first pre-shared key that can be accepted, and its place (RFC 8446 section 4.2.11).

    Raises: DecryptError when its binder does not verify.
    """
    psks = offer.psks
    if psks is None or PskKeyExchangeMode.PSK_DHE_KE not in (offer.psk_modes or b""):
        return 0, None
    for index, (ticket, _) in enumerate(psks.identities[:MAX_IDENTITIES]):
        state = open_ticket(wishes, offer, ticket, version=ProtocolVersion.TLS_1_3, moment=moment)
        if state is None or state.suite.hash is not suite.hash:
            continue
        key = schedule.binder_key(suite.hash, state.secret)
        due = schedule.finished_mac(suite.hash, key, transcript.hash_without(psks.binders_length))
        if not constant_time_equal(psks.binders[index], due):
            raise DecryptError("the binder of a pre-shared key does not verify")
        return index, state
    return 0, None


# --- the server's flight ------------------------------------------------------------------------------------


def _server_hello(
    agreed: _Agreed, transcript: Transcript
) -> Handshake[tuple[ServerStartResponse | None, _Secrets]]:
    """start and generate_key in one round trip, and the ServerHello that follows from them."""
    suite, offer = agreed.suite, agreed.offer
    exchange = ServerShareRequest(group=agreed.share.group, key_share=agreed.share.key_exchange)
    start = None
    if agreed.resumed is None:
        responses = yield Ask((start_request(agreed.wishes, offer), exchange))
        start = checked(expect(responses, 0, ServerStartResponse), offer)
        answer = expect(responses, 1, ServerShareResponse)
    else:
        answer = yield from ask(exchange, ServerShareResponse)
    if not answer.key_share or not answer.secret:
        raise OperationError("the authority gave an empty key share")
    extensions: tuple[tuple[int, bytes], ...] = (
        (ExtensionType.SUPPORTED_VERSIONS, _VERSION_13),
        (ExtensionType.KEY_SHARE, write_server_share(KeyShareEntry(agreed.share.group, answer.key_share))),
    )
    if agreed.resumed is not None:
        extensions += ((ExtensionType.PRE_SHARED_KEY, write_u16(agreed.identity_index)),)
    hello = ServerHello(
        random=(yield from random(RANDOM_LENGTH)),
        session_id=offer.hello.session_id,
        cipher_suite=suite.code,
        extensions=Extensions(extensions),
    )
    yield from _send(transcript, serialize(hello))
    if agreed.wishes.compatibility_mode and offer.hello.session_id and not agreed.retried:
        yield SendChangeCipherSpec()
    psk = agreed.resumed.secret if agreed.resumed is not None else None
    secret = schedule.handshake_secret(suite.hash, answer.secret, psk)
    client, server = schedule.handshake_traffic_secrets(suite.hash, secret, transcript.hash())
    return start, _Secrets(client=client, server=server, master=schedule.master_secret(suite.hash, secret))


def _flight(
    agreed: _Agreed,
    transcript: Transcript,
    secrets: _Secrets,
    start: ServerStartResponse | None,
    *,
    asks_client: bool,
) -> Handshake[None]:
    """EncryptedExtensions [[CertificateRequest] Certificate CertificateVerify] Finished, all in one go."""
    wishes, suite = agreed.wishes, agreed.suite
    named = start is not None and bool(agreed.offer.server_name)
    limited = agreed.offer.record_size_limit is not None
    messages = _encrypted_extensions(named, agreed.alpn, wishes.record_size_limit if limited else None)
    if start is not None:
        if asks_client:
            messages += _certificate_request(wishes.client_schemes, wishes.client_authorities)
        messages += _certificate(start.certificates, start.ocsp_response if agreed.offer.status else b"")
    transcript.add(messages)
    if start is not None:
        scheme = choose_scheme13(start)
        request = ServerSignatureRequest(scheme=scheme, transcript_hash=transcript.hash())
        signature = (yield from ask(request, ServerSignatureResponse)).signature
        verify = serialize(CertificateVerify(scheme=scheme, signature=signature))
        transcript.add(verify)
        messages += verify
    finished = serialize(
        Finished(verify_data=schedule.finished_mac(suite.hash, secrets.server, transcript.hash()))
    )
    transcript.add(finished)
    yield Send(messages + finished)


def _send(transcript: Transcript, message: bytes) -> Handshake[None]:
    transcript.add(message)
    yield Send(message)


_VERSION_13 = write_u16(ProtocolVersion.TLS_1_3)


@lru_cache(maxsize=_CACHED)
def _encrypted_extensions(named: bool, alpn: str | None, limit: int | None) -> bytes:
    """The message with an acknowledgement of the name, the application protocol and our record_size_limit."""
    items: list[tuple[int, bytes]] = []
    if named:
        items.append((ExtensionType.SERVER_NAME, b""))
    if alpn is not None:
        items.append((ExtensionType.APPLICATION_LAYER_PROTOCOL_NEGOTIATION, write_alpn((alpn,))))
    if limit is not None:
        items.append((ExtensionType.RECORD_SIZE_LIMIT, write_u16(limit)))
    return serialize(EncryptedExtensions(extensions=Extensions(tuple(items))))


@lru_cache(maxsize=_CACHED)
def _certificate_request(schemes: tuple[int, ...], authorities: tuple[bytes, ...]) -> bytes:
    items = [(int(ExtensionType.SIGNATURE_ALGORITHMS), write_codes(schemes))]
    if authorities:
        items.append((ExtensionType.CERTIFICATE_AUTHORITIES, write_names(authorities)))
    return serialize(CertificateRequest(context=b"", extensions=Extensions(tuple(items))))


@lru_cache(maxsize=_CACHED)
def _certificate(certificates: tuple[bytes, ...], ocsp_response: bytes) -> bytes:
    """The chain; the OCSP response goes with the first of it (RFC 8446 section 4.4.2.1)."""
    stapled: tuple[tuple[int, bytes], ...] = ()
    if ocsp_response:
        stapled = ((ExtensionType.STATUS_REQUEST, write_certificate_status(ocsp_response)),)
    entries = tuple(
        (data, Extensions(stapled) if index == 0 else Extensions()) for index, data in enumerate(certificates)
    )
    return serialize(Certificate(entries=entries))


# --- the client's flight ------------------------------------------------------------------------------------


def _client_evidence(
    wishes: ServerConfiguration, transcript: Transcript
) -> Handshake[ClientAuthenticateRequest | None]:
    """Certificate [CertificateVerify]: what there is to be verified once the Finished has come, or nothing."""
    message = yield from receive(transcript, Certificate)
    if message.context:
        raise IllegalParameter("a client Certificate with a context that was not asked for")
    if not message.entries:
        if wishes.client_certificates is ClientCertificates.REQUIRED:
            raise CertificateRequired("the client shows no certificate")
        return None
    if any(extensions.items for _, extensions in message.entries):
        raise UnsupportedExtension("the client's certificate comes with extensions that were not asked for")
    content = transcript.hash()
    verify = yield from receive(transcript, CertificateVerify)
    if verify.scheme not in wishes.client_schemes or verify.scheme in PKCS1_SCHEMES:
        raise IllegalParameter(f"CertificateVerify with scheme 0x{verify.scheme:04x}, not offered for it")
    return ClientAuthenticateRequest(
        version=ProtocolVersion.TLS_1_3,
        chain=bounded(message.chain()),
        scheme=verify.scheme,
        signature=verify.signature,
        content=content,
    )


def _receive_finished(transcript: Transcript, suite: CipherSuite, secret: bytes) -> Handshake[None]:
    due = schedule.finished_mac(suite.hash, secret, transcript.hash())
    finished = yield from receive(transcript, Finished)
    if not constant_time_equal(finished.verify_data, due):
        raise DecryptError("the client's Finished does not verify")


def _send_tickets(agreed: _Agreed, resumption: bytes, identity: str) -> Handshake[None]:
    """NewSessionTicket, as many as are wanted; one after a resumption, to take the place of the one used up."""
    wishes, resumed, moment = agreed.wishes, agreed.resumed, agreed.moment
    count = wishes.ticket_count if resumed is None else min(wishes.ticket_count, 1)
    # RFC 8446 section 4.2.9: no tickets for modes that the client cannot use.
    if wishes.tickets is None or PskKeyExchangeMode.PSK_DHE_KE not in (agreed.offer.psk_modes or b"") or not count:
        return
    authenticated_at = resumed.authenticated_at if resumed is not None else moment
    lifetime = ticket_lifetime(wishes, authenticated_at=authenticated_at, moment=moment)
    if not lifetime:
        return
    each = NONCE_LENGTH + _AGE_ADD_LENGTH
    fresh = yield from random(count * each)
    context = wishes.resumption_context
    psks = schedule.resumption_psks(agreed.suite.hash, resumption, count)
    messages = b""
    for index, (nonce, psk) in enumerate(psks):
        made = fresh[index * each : (index + 1) * each]
        state = TicketState(
            suite=agreed.suite,
            secret=psk,
            server_name=agreed.offer.server_name,
            peer_identity=identity,
            authenticated_at=authenticated_at,
        )
        ticket = wishes.tickets.seal(state, now=moment, nonce=made[:NONCE_LENGTH], context=context)
        if ticket is not None:
            messages += serialize(
                NewSessionTicket(
                    lifetime=lifetime,
                    age_add=int.from_bytes(made[NONCE_LENGTH:], "big"),
                    nonce=nonce,
                    ticket=ticket,
                    extensions=_NO_EXTENSIONS,
                )
            )
    if messages:
        yield Send(messages)
