"""`EdgeAuthority`: answers what TLS server handshakes ask, and has the private key used where it is (C1, C2).

Never knows how a key's holder is reached, nor how certificates got here. The key exchange is the edge's own: what
is remote is the signature, or with RSA key exchange the master secret, and nothing else (C10).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from locum.crypto.asymmetric import groups
from locum.crypto.asymmetric.finite_field import ffdhe
from locum.crypto.asymmetric.groups import KeyAgreement
from locum.edge.certificates import Choice, Served
from locum.edge.clients import ClientVerifier
from locum.errors import LocumError, Misbehaved, Refused
from locum.handshake import Request, Response, Verdict
from locum.keyless.operations import CertificateVerify, MasterSecret, Role, ServerKeyExchange
from locum.tls import schedule
from locum.tls.operations import MasterSecretResponse
from locum.tls.registry import (
    CIPHER_SUITES,
    CipherSuite,
    KeyExchange,
    NamedGroup,
    group_name,
    scheme_name,
)
from locum.tls.server_operations import (
    ClientAuthenticateRequest,
    ServerMasterSecretRequest,
    ServerParametersRequest,
    ServerParametersResponse,
    ServerShareRequest,
    ServerShareResponse,
    ServerSignatureRequest,
    ServerSignatureResponse,
    ServerStartRequest,
    ServerStartResponse,
)
from locum.wire.cursor import Reader, Writer

T = TypeVar("T")

#: ECParameters of RFC 8422 section 5.4: a curve by its name.
_NAMED_CURVE = 3
#: The groups of RFC 7919 by their code points, with their bits.
_FINITE_FIELDS = {
    int(NamedGroup.FFDHE2048): 2048,
    int(NamedGroup.FFDHE3072): 3072,
    int(NamedGroup.FFDHE4096): 4096,
    int(NamedGroup.FFDHE6144): 6144,
    int(NamedGroup.FFDHE8192): 8192,
}
#: Where client_version stands in a ClientHello with its header (RFC 5246 section 7.4.1.2).
_CLIENT_VERSION = slice(4, 6)


class Chooser(Protocol):
    """Whoever knows which certificates there are."""

    async def choose(self, request: ServerStartRequest) -> Choice:
        """The certificate for this client.

        Raises: Refused when there is none, Unavailable or TimedOut when that cannot be found out now.
        """
        ...


class EdgeAuthority:
    """What all handshakes of an edge have in common.

    `clients` verifies client certificates (C8); without it none is accepted. `now` gives seconds since the epoch.
    """

    def __init__(
        self, certificates: Chooser, *, clients: ClientVerifier | None = None, now: Callable[[], float]
    ) -> None:
        self.certificates = certificates
        self.clients = clients
        self.now = now

    def open(self) -> EdgeSession:
        """Begin the session of one handshake."""
        return EdgeSession(self)


class EdgeSession:
    """One handshake: an `AsyncAuthoritySession`. A failed operation ends it."""

    __slots__ = ("_agreement", "_authority", "_over", "_served")

    def __init__(self, authority: EdgeAuthority) -> None:
        self._authority = authority
        self._served: Served | None = None
        self._agreement: KeyAgreement | None = None
        self._over = False

    def __repr__(self) -> str:
        return f"<EdgeSession{', over' if self._over else ''}>"

    async def perform(self, requests: Sequence[Request]) -> tuple[Response, ...]:
        """As `AsyncAuthoritySession.perform`.

        Raises: Refused for what nobody may do; Unavailable or TimedOut when the key's holder is not there;
        Misbehaved or DecodeError when the client's key exchange is at fault.
        """
        responses: list[Response] = []
        try:
            for request in requests:
                performer = _PERFORMERS.get(type(request))
                if performer is None or self._over:
                    raise self._refusal(request)
                response = await performer(self, request)
                responses.append(response)
                if response.ends_batch:
                    break
        except LocumError:
            self.forget()
            raise
        return tuple(responses)

    async def close(self) -> None:
        """Forget everything; harmless when done before."""
        self.forget()

    def forget(self) -> None:
        """As `close`."""
        self._over = True
        self._served = None
        if self._agreement is not None:
            self._agreement.discard()
            self._agreement = None

    def _refusal(self, request: Request) -> Refused:
        why = "the handshake is over" if self._over else "not an operation of a TLS server"
        return Refused(f"{type(request).__name__}: {why}")

    @staticmethod
    def _due(value: T | None, request: Request) -> T:
        if value is None:
            raise Refused(f"{type(request).__name__}: its turn has not come, or is over")
        return value

    # --- start --------------------------------------------------------------------------------------------

    async def _start(self, request: ServerStartRequest) -> ServerStartResponse:
        choice = await self._authority.certificates.choose(request)
        self._served = choice.served
        return choice.response

    # --- generate_key -------------------------------------------------------------------------------------

    async def _share(self, request: ServerShareRequest) -> ServerShareResponse:
        share, secret = groups.respond(group_name(request.group), request.key_share)
        return ServerShareResponse(key_share=share, secret=secret)

    async def _parameters(self, request: ServerParametersRequest) -> ServerParametersResponse:
        served = self._due(self._served, request)
        self._agreement = groups.start(group_name(request.group))
        parameters = _parameters(request.group, self._agreement.share)
        signature = await served.holder.perform(
            ServerKeyExchange(
                scheme=scheme_name(request.scheme),
                client_random=request.client_random,
                server_random=request.server_random,
                parameters=parameters,
            )
        )
        return ServerParametersResponse(parameters=parameters, signature=signature)

    # --- authenticate -------------------------------------------------------------------------------------

    async def _signature(self, request: ServerSignatureRequest) -> ServerSignatureResponse:
        served = self._due(self._served, request)
        signature = await served.holder.perform(
            CertificateVerify(scheme_name(request.scheme), Role.SERVER, request.transcript_hash)
        )
        return ServerSignatureResponse(signature=signature)

    async def _client(self, request: ClientAuthenticateRequest) -> Verdict:
        clients = self._due(self._authority.clients, request)
        return clients.judge(request, now=self._authority.now())

    # --- request_key --------------------------------------------------------------------------------------

    async def _master_secret(self, request: ServerMasterSecretRequest) -> MasterSecretResponse:
        suite = CIPHER_SUITES[request.cipher_suite]
        if suite.key_exchange is KeyExchange.RSA:
            return MasterSecretResponse(secret=await self._decrypted(request, suite))
        agreement = self._due(self._agreement, request)
        self._agreement = None
        finite = suite.key_exchange is KeyExchange.DHE
        secret = agreement.complete(_only_vector(request.key_exchange, 2 if finite else 1))
        if finite:
            # RFC 5246 section 8.1.2: leading zero bytes are stripped before the secret is used.
            secret = secret.lstrip(b"\0")
        seed = request.client_random + request.server_random
        if request.extended:
            seed = suite.hash.digest(request.messages)
        return MasterSecretResponse(secret=schedule.master_secret12(suite.hash, secret, seed, request.extended))

    async def _decrypted(self, request: ServerMasterSecretRequest, suite: CipherSuite) -> bytes:
        """Fig 2: whoever holds the key decrypts the pre-master secret, and gives what it is good for here only."""
        served = self._due(self._served, request)
        return await served.holder.perform(
            MasterSecret(
                ciphertext=_only_vector(request.key_exchange, 2),
                client_version=int.from_bytes(request.messages[_CLIENT_VERSION], "big"),
                client_random=request.client_random,
                random_seed=request.random_seed,
                server_random=request.server_random,
                hash=suite.hash.name,
                extended=request.extended,
                messages=request.messages if request.extended else b"",
            )
        )


_PERFORMERS: dict[type[Request], Callable[[EdgeSession, Any], Awaitable[Response]]] = {
    ServerStartRequest: EdgeSession._start,
    ServerShareRequest: EdgeSession._share,
    ServerParametersRequest: EdgeSession._parameters,
    ServerSignatureRequest: EdgeSession._signature,
    ClientAuthenticateRequest: EdgeSession._client,
    ServerMasterSecretRequest: EdgeSession._master_secret,
}


def _parameters(group: int, share: bytes) -> bytes:
    """ServerECDHParams (RFC 8422 section 5.4) or ServerDHParams (RFC 5246 section 7.4.3) with this share."""
    writer = Writer()
    bits = _FINITE_FIELDS.get(group)
    if bits is None:
        writer.u8(_NAMED_CURVE)
        writer.u16(group)
        writer.vector(share, 1)
        return writer.getvalue()
    field = ffdhe(bits)
    writer.vector(field.prime.to_bytes(field.length, "big"), 2)
    writer.vector(bytes((field.generator,)), 2)
    writer.vector(share, 2)
    return writer.getvalue()


def _only_vector(body: bytes, size: int) -> bytes:
    """The one vector that a ClientKeyExchange consists of. Raises: DecodeError, Misbehaved."""
    reader = Reader(body)
    value = reader.vector(size)
    reader.finish()
    if not value:
        raise Misbehaved("an empty ClientKeyExchange")
    return value
