"""The TLS 1.3 client from the ServerHello on (RFC 8446 sections 2 and 4).

Reads as the ladder of section 2; the delegate's three operations stand where the public-key work would be.
"""

from __future__ import annotations

from dataclasses import field

from locum.crypto.symmetric import constant_time_equal
from locum.errors import OperationError
from locum.handshake import Ask, PeerChain, Verdict, ask, expect
from locum.tls import schedule
from locum.tls.agreement import agreed_limits, ask_accepted, bounded, of_length, selected_protocol
from locum.tls.alerts import (
    DecryptError,
    IllegalParameter,
    MissingExtension,
    UnexpectedMessage,
)
from locum.tls.extensions import (
    Extensions,
    KeyShareEntry,
    expect_empty,
    parse_codes,
    parse_cookie,
    parse_names,
    parse_server_share,
    parse_u16,
)
from locum.tls.messages import CertificateVerify, Finished, ServerHello, serialize
from locum.tls.messages13 import Certificate, CertificateRequest, EncryptedExtensions
from locum.tls.offer import Offer
from locum.tls.operations import (
    AuthenticateRequest,
    ClientCertificateRequest,
    ClientCertificateResponse,
    ClientSignatureRequest,
    ClientSignatureResponse,
    HandshakeSecretsRequest,
    HandshakeSecretsResponse,
    KeyShareRequest,
    KeyShareResponse,
    MasterSecretRequest,
    MasterSecretResponse,
    SharedSecretRequest,
    SharedSecretResponse,
)
from locum.tls.outcome import ApplicationSecrets, Outcome
from locum.tls.receiving import receive, receive_one_of
from locum.tls.registry import PKCS1_SCHEMES, CipherSuite, ExtensionType, ProtocolVersion
from locum.tls.session import SessionInfo, exporter13
from locum.tls.steps import Handshake, ReadKeys, RecordLimits, Send, SendChangeCipherSpec, WriteKeys
from locum.tls.transcript import Transcript
from locum.values import dataclass

_SERVER_HELLO = frozenset(
    {ExtensionType.SUPPORTED_VERSIONS, ExtensionType.KEY_SHARE, ExtensionType.PRE_SHARED_KEY}
)
_HELLO_RETRY_REQUEST = frozenset({ExtensionType.SUPPORTED_VERSIONS, ExtensionType.KEY_SHARE, ExtensionType.COOKIE})
_ENCRYPTED_EXTENSIONS = frozenset(
    {
        ExtensionType.SERVER_NAME,
        ExtensionType.SUPPORTED_GROUPS,
        ExtensionType.APPLICATION_LAYER_PROTOCOL_NEGOTIATION,
        ExtensionType.RECORD_SIZE_LIMIT,
    }
)
_CERTIFICATE_ENTRY = frozenset({ExtensionType.STATUS_REQUEST})


@dataclass(frozen=True, slots=True)
class _Secrets:
    """Handshake traffic secrets, and the master secret where the terminal derived it itself."""

    client: bytes = field(repr=False)
    server: bytes = field(repr=False)
    master: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What the server showed to prove who it is; None of it in a resumed session."""

    request: CertificateRequest | None
    chain: PeerChain
    verify: CertificateVerify
    transcript_hash: bytes


def handshake(offer: Offer, transcript: Transcript, hello: ServerHello, suite: CipherSuite) -> Handshake[Outcome]:
    """Everything after the first ServerHello, which already is in the transcript."""
    transcript.start(suite.hash)
    sent_dummy = False
    if hello.is_hello_retry_request:
        offer, hello = yield from _retry(offer, transcript, hello, suite)
        sent_dummy = True
    share, resumed = _key_exchange(offer, hello, suite)

    secrets = yield from _generate_keys(offer, transcript, suite, share, resumed)
    yield ReadKeys(suite, *schedule.traffic_keys(suite, secrets.server))
    if offer.configuration.compatibility_mode and not sent_dummy:
        yield SendChangeCipherSpec()
    yield WriteKeys(suite, *schedule.traffic_keys(suite, secrets.client))

    encrypted = yield from receive(transcript, EncryptedExtensions)
    alpn, limits = _encrypted_extensions(offer, encrypted.extensions)
    if limits is not None:
        yield limits
    evidence = None if resumed else (yield from _receive_evidence(offer, transcript))
    yield from _receive_finished(transcript, suite, secrets.server)
    through_server_finished = transcript.hash()

    accepted = yield from _authenticate(offer, transcript, suite, secrets, evidence)
    master = of_length(accepted.master, suite.hash.length)
    write, read = schedule.application_traffic_secrets(suite.hash, master, through_server_finished)
    yield ReadKeys(suite, *schedule.traffic_keys(suite, read))
    finished = schedule.finished_mac(suite.hash, secrets.client, transcript.hash())
    yield from _send(transcript, serialize(Finished(verify_data=finished)))
    yield WriteKeys(suite, *schedule.traffic_keys(suite, write))

    resumption = schedule.derive_secret(suite.hash, master, b"res master", transcript.hash())
    exporter = schedule.derive_secret(suite.hash, master, b"exp master", through_server_finished)
    transcript.forget()
    return Outcome(
        session=SessionInfo(
            version=ProtocolVersion.TLS_1_3,
            cipher_suite=suite,
            group=share.group if share is not None else None,
            server_name=offer.configuration.server_name,
            peer_identity=accepted.identity,
            alpn=alpn,
            resumed=resumed,
            client_authenticated=accepted.client_authenticated,
            peer_certificates=evidence.chain.certificates if evidence is not None else (),
            _exporter=exporter13(suite, exporter),
        ),
        secrets=ApplicationSecrets(read=read, write=write, resumption=resumption),
    )


def _send(transcript: Transcript, message: bytes) -> Handshake[None]:
    transcript.add(message)
    yield Send(message)


def _retry(
    offer: Offer, transcript: Transcript, request: ServerHello, suite: CipherSuite
) -> Handshake[tuple[Offer, ServerHello]]:
    """HelloRetryRequest: another share or a cookie, and a second ClientHello (RFC 8446 section 4.1.4)."""
    offer.check_answers(request.extensions, _HELLO_RETRY_REQUEST)
    share, cookie = offer.share, None
    selected = request.extensions.get(ExtensionType.KEY_SHARE)
    if selected is not None:
        group = parse_u16(selected)
        if group not in offer.method.groups or (share is not None and group == share.group):
            raise IllegalParameter("HelloRetryRequest for a group that was not offered, or has its share")
        answer = yield from ask(KeyShareRequest(group=group), KeyShareResponse)
        if not answer.key_share:
            raise OperationError("the authority gave an empty key share")
        share = KeyShareEntry(group, answer.key_share)
    sent = request.extensions.get(ExtensionType.COOKIE)
    if sent is not None:
        cookie = parse_cookie(sent)
    if selected is None and cookie is None:
        raise IllegalParameter("a HelloRetryRequest that would change nothing")

    # The request itself was added when it was received; the first ClientHello before it becomes its hash.
    transcript.retry()
    offer = offer.after_retry(share=share, cookie=cookie, suite_hash=suite.hash.name)
    if offer.configuration.compatibility_mode:
        yield SendChangeCipherSpec()
    yield from _send(transcript, offer.client_hello(transcript))
    hello = yield from receive(transcript, ServerHello)
    if hello.is_hello_retry_request:
        raise UnexpectedMessage("a second HelloRetryRequest")
    selected_version = hello.extensions.get(ExtensionType.SUPPORTED_VERSIONS)
    same = (
        selected_version is not None
        and parse_u16(selected_version) == ProtocolVersion.TLS_1_3
        and hello.cipher_suite == suite.code
        and hello.session_id == offer.session_id
        and hello.compression_method == 0
        and hello.legacy_version == ProtocolVersion.TLS_1_2
    )
    if not same:
        raise IllegalParameter("the ServerHello does not agree with the HelloRetryRequest before it")
    return offer, hello


def _key_exchange(offer: Offer, hello: ServerHello, suite: CipherSuite) -> tuple[KeyShareEntry | None, bool]:
    """The server's share (None for psk_ke) and whether it accepted the pre-shared key."""
    offer.check_answers(hello.extensions, _SERVER_HELLO)
    selected = hello.extensions.get(ExtensionType.PRE_SHARED_KEY)
    if selected is not None:
        psk = offer.psk
        if parse_u16(selected) != 0 or psk is None or psk.suite.hash is not suite.hash:
            raise IllegalParameter("the server selected a pre-shared key that was not offered for this hash")
    data = hello.extensions.get(ExtensionType.KEY_SHARE)
    if data is None:
        if selected is None or not offer.configuration.psk_without_dhe:
            raise MissingExtension("the ServerHello has no key share")
        return None, True
    share = parse_server_share(data)
    if offer.share is None or share.group != offer.share.group:
        raise IllegalParameter("the server's key share is in another group than ours")
    return share, selected is not None


def _generate_keys(
    offer: Offer, transcript: Transcript, suite: CipherSuite, share: KeyShareEntry | None, resumed: bool
) -> Handshake[_Secrets]:
    """generate_key: by the delegate, or from its bare shared secret where a PSK only we have goes in (A7)."""
    psk = offer.psk
    if not resumed or psk is None:
        if share is None:
            raise MissingExtension("the ServerHello has no key share")
        secrets = yield from ask(
            HandshakeSecretsRequest(
                cipher_suite=suite.code,
                group=share.group,
                key_share=share.key_exchange,
                transcript_hash=transcript.hash(),
            ),
            HandshakeSecretsResponse,
        )
        length = suite.hash.length
        return _Secrets(of_length(secrets.client_secret, length), of_length(secrets.server_secret, length), None)
    shared = None
    if share is not None:
        request = SharedSecretRequest(group=share.group, key_share=share.key_exchange)
        shared = (yield from ask(request, SharedSecretResponse)).secret
    secret = schedule.handshake_secret(suite.hash, shared, psk.secret)
    client, server = schedule.handshake_traffic_secrets(suite.hash, secret, transcript.hash())
    return _Secrets(client, server, schedule.master_secret(suite.hash, secret))


def _encrypted_extensions(offer: Offer, answers: Extensions) -> tuple[str | None, RecordLimits | None]:
    """The application protocol and the record size limits that were agreed."""
    offer.check_answers(answers, _ENCRYPTED_EXTENSIONS)
    name = answers.get(ExtensionType.SERVER_NAME)
    if name is not None:
        expect_empty(name)
    limits = agreed_limits(
        offer.configuration.record_size_limit,
        answers.get(ExtensionType.RECORD_SIZE_LIMIT),
        ProtocolVersion.TLS_1_3,
    )
    return selected_protocol(offer, answers), limits


def _receive_evidence(offer: Offer, transcript: Transcript) -> Handshake[_Evidence]:
    """[CertificateRequest] Certificate CertificateVerify."""
    request = None
    message = yield from receive_one_of(transcript, CertificateRequest, Certificate)
    if isinstance(message, CertificateRequest):
        request = message
        if request.context:
            raise IllegalParameter("a CertificateRequest with a context during the handshake")
        message = yield from receive(transcript, Certificate)
    assert isinstance(message, Certificate)
    if message.context:
        raise IllegalParameter("a server Certificate with a context")
    for _, extensions in message.entries:
        offer.check_answers(extensions, _CERTIFICATE_ENTRY)
    chain = bounded(message.chain())
    transcript_hash = transcript.hash()
    verify = yield from receive(transcript, CertificateVerify)
    if verify.scheme not in offer.method.signature_schemes or verify.scheme in PKCS1_SCHEMES:
        raise IllegalParameter(f"CertificateVerify with scheme 0x{verify.scheme:04x}, not offered for it")
    return _Evidence(request, chain, verify, transcript_hash)


def _receive_finished(transcript: Transcript, suite: CipherSuite, secret: bytes) -> Handshake[None]:
    due = schedule.finished_mac(suite.hash, secret, transcript.hash())
    finished = yield from receive(transcript, Finished)
    if not constant_time_equal(finished.verify_data, due):
        raise DecryptError("the server's Finished does not verify")


@dataclass(frozen=True, slots=True)
class _Accepted:
    """The peer is authentic and allowed, and the master secret is here."""

    identity: str
    client_authenticated: bool
    master: bytes = field(repr=False)


def _authenticate(
    offer: Offer,
    transcript: Transcript,
    suite: CipherSuite,
    secrets: _Secrets,
    evidence: _Evidence | None,
) -> Handshake[_Accepted]:
    """authenticate and request_key, in one round trip where no client certificate was asked for."""
    if evidence is None:
        psk = offer.psk
        if psk is None or secrets.master is None:
            raise IllegalParameter("a session resumed without a pre-shared key")
        return _Accepted(psk.peer_identity, False, secrets.master)
    authenticate = AuthenticateRequest(
        version=ProtocolVersion.TLS_1_3,
        cipher_suite=suite.code,
        chain=evidence.chain,
        scheme=evidence.verify.scheme,
        signature=evidence.verify.signature,
        content=evidence.transcript_hash,
    )
    if evidence.request is None:
        responses = yield from ask_accepted(authenticate, MasterSecretRequest())
        master = expect(responses, 1, MasterSecretResponse)
        return _Accepted(expect(responses, 0, Verdict).identity, False, master.secret)

    certificates: tuple[bytes, ...] = ()
    which = _client_certificate_request(offer, evidence.request)
    responses = yield from ask_accepted(authenticate, *which)
    identity, chosen = expect(responses, 0, Verdict).identity, None
    if which:
        chosen = expect(responses, 1, ClientCertificateResponse)
        certificates = chosen.certificates
    entries = tuple((data, Extensions()) for data in certificates)
    yield from _send(transcript, serialize(Certificate(context=evidence.request.context, entries=entries)))
    if chosen is None or not certificates:
        answer = yield from ask(MasterSecretRequest(), MasterSecretResponse)
        return _Accepted(identity, False, answer.secret)
    sign = ClientSignatureRequest(version=ProtocolVersion.TLS_1_3, content=transcript.hash())
    responses = yield Ask((sign, MasterSecretRequest()))
    signature = expect(responses, 0, ClientSignatureResponse).signature
    verify = CertificateVerify(scheme=chosen.scheme, signature=signature)
    yield from _send(transcript, serialize(verify))
    return _Accepted(identity, True, expect(responses, 1, MasterSecretResponse).secret)


def _client_certificate_request(offer: Offer, request: CertificateRequest) -> tuple[ClientCertificateRequest, ...]:
    """What to ask the delegate for, or nothing when no certificate is to be shown."""
    schemes = request.extensions.get(ExtensionType.SIGNATURE_ALGORITHMS)
    if schemes is None:
        raise MissingExtension("a CertificateRequest without signature_algorithms")
    accepted = parse_codes(schemes)
    authorities = request.extensions.get(ExtensionType.CERTIFICATE_AUTHORITIES)
    names = parse_names(authorities) if authorities is not None else ()
    if not offer.configuration.client_certificate:
        return ()
    return (ClientCertificateRequest(version=ProtocolVersion.TLS_1_3, schemes=accepted, authorities=names),)
