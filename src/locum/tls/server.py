"""The TLS server's handshake, as far as both versions share it: the ClientHello and the choice of the version.

A generator that asks for every operation on public or private keys (`server_operations`) and contains none itself.
"""

from __future__ import annotations

from locum.tls import server12, server13
from locum.tls.client_offer import ClientOffer
from locum.tls.messages import ClientHello
from locum.tls.outcome import Outcome
from locum.tls.receiving import receive
from locum.tls.registry import ProtocolVersion
from locum.tls.selection import choose_version
from locum.tls.server_configuration import ServerConfiguration
from locum.tls.steps import Handshake, SetVersion
from locum.tls.transcript import Transcript


def handshake(configuration: ServerConfiguration) -> Handshake[Outcome]:
    """The server's handshake from the ClientHello to the point where application data may flow.

    Raises: LocumError of the kind that says who is at fault; the connection turns it into an alert.
    """
    transcript = Transcript()
    offer = ClientOffer.of((yield from receive(transcript, ClientHello)))
    version = choose_version(configuration, offer)
    yield SetVersion(version)
    if version is ProtocolVersion.TLS_1_3:
        return (yield from server13.handshake(configuration, offer, transcript))
    return (yield from server12.handshake(configuration, offer, transcript))
