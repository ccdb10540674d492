"""A terminal reduced to its link: real sockets, real protection, requests made by hand; for a real node."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support import exchange, pki

from locum.authority.remote import PATH, RemoteSession, Resend
from locum.errors import TimedOut
from locum.handshake import Request, Response, Verdict
from locum.link.blockwise import Reply
from locum.link.client import Client
from locum.link.coap import Framing
from locum.link.exchange import TransmissionParameters
from locum.terminal.credential import load_credential
from locum.tls.operations import MasterSecretRequest, MasterSecretResponse, StartResponse

#: Short, because on loopback a lost datagram was refused, not delayed.
PARAMETERS = TransmissionParameters(ack_timeout=0.5, refusal_wait=0.3, response_timeout=5.0)


class DelegateClient:
    """The credential's first delegate over UDP or TCP. `sent` and `received` keep everything that passed."""

    def __init__(
        self,
        credential: Path,
        *,
        stream: bool = False,
        address: tuple[str, int] | None = None,
        plain_name: str = "",
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        delegate = load_credential(credential).delegates[0]
        endpoint = delegate.address.endpoint
        self._address = address or (endpoint.host, endpoint.port)
        self._stream = stream
        self._client = Client(
            credential=None if plain_name else delegate.channel,
            sequence=None if plain_name else delegate.sequence,
            framing=Framing.STREAM if stream else Framing.DATAGRAM,
            random=random,
            terminal_name=plain_name,
            parameters=PARAMETERS,
        )
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM)
        self._socket.connect(self._address)
        self.sent: list[bytes] = []
        self.received: list[bytes] = []

    def __enter__(self) -> DelegateClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def post(self, payload: bytes, *, path: str = PATH, seconds: float = 10.0) -> Reply:
        """One exchange. Raises what `Client.outcome` raises; TimedOut after `seconds`."""
        client, deadline = self._client, time.monotonic() + seconds
        number = client.request(path, payload, now=time.monotonic())
        while True:
            for data in client.transmit():
                self.sent.append(data)
                # A refused port is reported by the next call: the datagram is lost, as datagrams are.
                self._ignoring_refusal(self._socket.sendall, data)
            reply = client.outcome(number)
            if reply is not None:
                return reply
            now = time.monotonic()
            if now >= deadline:
                raise TimedOut("no answer in the time of the test")
            due = min(deadline, client.next_timeout() or deadline)
            if select.select([self._socket], [], [], max(0.0, due - now))[0]:
                data = self._ignoring_refusal(self._socket.recv, 65_536)
                if data:
                    self.received.append(data)
                    client.receive(data, now=time.monotonic())
                elif self._stream:
                    raise ConnectionResetError("the node closed the stream")
            else:
                client.expire(now=time.monotonic())

    def _ignoring_refusal(self, call: Callable[..., bytes | None], argument: object) -> bytes:
        try:
            return call(argument) or b""
        except ConnectionRefusedError:
            if self._stream:
                raise
            return b""

    def perform(self, session: RemoteSession, *requests: Request) -> tuple[Response, ...]:
        """Have `requests` performed, sending the peer's chain if it is wanted."""
        payload = session.encode(requests)
        while True:
            reply = self.post(payload)
            outcome = session.decode(reply.payload, reply.code)
            if not isinstance(outcome, Resend):
                return outcome
            payload = outcome.payload

    def handshake(self, peer: pki.Issued) -> bytes:
        """A whole delegated TLS 1.3 handshake with `peer`; returns the master secret."""
        responses = self.verdict(peer)
        assert isinstance(responses[1], MasterSecretResponse)
        return responses[1].secret

    def verdict(self, peer: pki.Issued, session: RemoteSession | None = None) -> Sequence[Response]:
        """As `handshake`, for a peer that may be refused: a `Verdict`, and the secret if it was accepted."""
        session = session or RemoteSession()
        (start,) = self.perform(session, exchange.START)
        assert isinstance(start, StartResponse)
        self.perform(session, exchange.server_share(start)[0])
        responses = self.perform(session, exchange.authenticate13(peer), MasterSecretRequest())
        assert isinstance(responses[0], Verdict)
        return responses
