"""The TLS client's handshake, as far as both versions share it: start, ClientHello, ServerHello, version.

A generator that asks an authority for every operation on public keys (A10; fig 14) and contains none itself.
"""

from __future__ import annotations

from locum.errors import OperationError
from locum.handshake import ask, now, random
from locum.tls import client12, client13
from locum.tls.alerts import IllegalParameter, MissingExtension, UnsupportedVersion
from locum.tls.configuration import ClientConfiguration
from locum.tls.extensions import KeyShareEntry, parse_u16
from locum.tls.messages import DOWNGRADE_SENTINELS, ServerHello
from locum.tls.offer import Offer
from locum.tls.operations import StartRequest, StartResponse
from locum.tls.outcome import Outcome
from locum.tls.receiving import receive
from locum.tls.registry import CIPHER_SUITES, CipherSuite, ExtensionType, ProtocolVersion
from locum.tls.steps import Handshake, Send, SetVersion
from locum.tls.transcript import Transcript


def handshake(configuration: ClientConfiguration) -> Handshake[Outcome]:
    """The client's handshake from the start request to the point where application data may flow.

    Raises: LocumError of the kind that says who is at fault; the connection turns it into an alert.
    """
    offer = yield from _prepare(configuration)
    transcript = Transcript()
    hello = offer.client_hello(transcript)
    transcript.add(hello)
    yield Send(hello)
    server_hello = yield from receive(transcript, ServerHello)
    version = _negotiated_version(offer, server_hello)
    suite = _negotiated_suite(offer, server_hello, version)
    yield SetVersion(version)
    if version is ProtocolVersion.TLS_1_3:
        return (yield from client13.handshake(offer, transcript, server_hello, suite))
    return (yield from client12.handshake(offer, transcript, server_hello, suite))


def _prepare(configuration: ClientConfiguration) -> Handshake[Offer]:
    """Start: the terminal's algorithms in, the chosen method out (fig 14 S331, S322)."""
    moment = yield from now()
    ticket = configuration.ticket
    if ticket is not None and not _usable(configuration, moment):
        ticket = None
    method = yield from ask(
        StartRequest(
            versions=configuration.versions,
            cipher_suites=configuration.cipher_suites,
            groups=configuration.groups,
            server_name=configuration.server_name,
            peer_address=configuration.peer_address,
            key_forms=configuration.key_forms,
            resumption=ticket is not None,
        ),
        StartResponse,
    )
    if ticket is not None and (
        ticket.version not in method.versions or ticket.suite.code not in method.cipher_suites
    ):
        ticket = None
    needs_session_id = configuration.compatibility_mode or (
        ticket is not None and ticket.version is ProtocolVersion.TLS_1_2
    )
    client_random = yield from random(32)
    session_id = (yield from random(32)) if needs_session_id else b""
    share = None
    if ProtocolVersion.TLS_1_3 in method.versions:
        if not method.key_share:
            raise OperationError("the authority offers TLS 1.3 without a key share")
        share = KeyShareEntry(method.key_share_group, method.key_share)
    return Offer(
        configuration=configuration,
        method=method,
        random=client_random,
        session_id=session_id,
        ticket=ticket,
        now=moment,
        share=share,
    )


def _usable(configuration: ClientConfiguration, moment: float) -> bool:
    ticket = configuration.ticket
    return (
        ticket is not None
        and ticket.usable(configuration.server_name, moment)
        and ticket.version in configuration.versions
    )


def _negotiated_version(offer: Offer, hello: ServerHello) -> ProtocolVersion:
    """RFC 8446 sections 4.1.3 and 4.2.1: what the server selected, and that nobody talked it down."""
    selected = hello.extensions.get(ExtensionType.SUPPORTED_VERSIONS)
    if selected is not None:
        if parse_u16(selected) != ProtocolVersion.TLS_1_3 or not offer.offers13:
            raise IllegalParameter("the server selected a version that was not offered")
        if hello.legacy_version != ProtocolVersion.TLS_1_2:
            raise IllegalParameter("legacy_version of a TLS 1.3 ServerHello is not TLS 1.2")
        return ProtocolVersion.TLS_1_3
    if hello.is_hello_retry_request and offer.offers13:
        # RFC 8446 section 4.1.3: the random is looked at before everything else.
        raise MissingExtension("a HelloRetryRequest without supported_versions")
    if hello.legacy_version != ProtocolVersion.TLS_1_2 or not offer.offers12:
        raise UnsupportedVersion(f"the server selected version 0x{hello.legacy_version:04x}, which is not offered")
    if offer.offers13 and hello.random[-8:] in DOWNGRADE_SENTINELS:
        # RFC 8446 section 4.1.3: "TLS 1.3 clients receiving a ServerHello indicating TLS 1.2 or below MUST
        # check that the last 8 bytes are not equal to either of these values."
        raise IllegalParameter("the handshake was downgraded by somebody on the path")
    return ProtocolVersion.TLS_1_2


def _negotiated_suite(offer: Offer, hello: ServerHello, version: ProtocolVersion) -> CipherSuite:
    if hello.cipher_suite not in offer.cipher_suites:
        raise IllegalParameter(f"the server selected the cipher suite 0x{hello.cipher_suite:04x}, not offered")
    suite = CIPHER_SUITES[hello.cipher_suite]
    if suite.version is not version:
        raise IllegalParameter(f"{suite.name} is not a cipher suite of the selected version")
    if hello.compression_method != 0:
        raise IllegalParameter("the server selected compression")
    if version is ProtocolVersion.TLS_1_3 and hello.session_id != offer.session_id:
        raise IllegalParameter("the server does not echo legacy_session_id")
    return suite
