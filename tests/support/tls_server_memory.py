"""A `ServerConnection` in memory, its operations answered in place, against our own client or OpenSSL's.

`Answerer` stands for an edge and its key server; what travels can be cut and edited on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL, crypto
from tests.support import pki
from tests.support.tls_memory import TERMINAL, Deterministic, authority, clock, server_leaf, set_groups

from locum.authority.local import LocalAuthority, LocalSession
from locum.crypto.asymmetric import groups, signatures
from locum.crypto.asymmetric.finite_field import ffdhe
from locum.errors import DecodeError, LocumError, Refused
from locum.handshake import Fault, Request, Response, Verdict
from locum.tls import schedule
from locum.tls.alerts import UnrecognizedName
from locum.tls.configuration import ClientConfiguration
from locum.tls.connection import (
    ClientConnection,
    Connection,
    DataReceived,
    Event,
    ServerConnection,
    TicketReceived,
)
from locum.tls.operations import MasterSecretResponse
from locum.tls.registry import (
    CIPHER_SUITES,
    FINITE_FIELD_RANGE,
    PKCS1_SCHEMES,
    KeyExchange,
    SignatureScheme,
    group_name,
    scheme_name,
)
from locum.tls.server_configuration import ServerConfiguration
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
from locum.tls.session import SessionTicket
from locum.tls.tickets import TicketKeys
from locum.wire.cursor import Reader, Writer

#: The ring of every test that resumes: whoever has the root has the tickets.
ROOT = bytes(range(32))
EPOCH_SECONDS = 3600
_PRE_MASTER_LENGTH = 48
_MAX_ROUNDS = 32


def ring(root: bytes = ROOT, now: float = pki.EPOCH) -> TicketKeys:
    """The ticket keys of `root`."""
    return TicketKeys.derived(root, EPOCH_SECONDS, now)


def server_configuration(**settings: Any) -> ServerConfiguration:
    """A server with tickets, unless `tickets` says otherwise."""
    settings.setdefault("tickets", ring())
    return ServerConfiguration(**settings)


class Answerer:
    """Performs what a server asks, with certificates by name; the first one is for everybody else.

    `rsa_key_exchange` and `schemes` limit what the keys are used for. `unknown` refuses other names.
    """

    def __init__(
        self,
        *issued: pki.Issued,
        by_name: dict[str, pki.Issued] | None = None,
        ocsp_response: bytes = b"",
        rsa_key_exchange: bool = True,
        schemes: Sequence[int] = tuple(SignatureScheme),
        unknown: bool = False,
    ) -> None:
        self.default = issued[0] if issued else server_leaf("p256")
        self.by_name = by_name or {}
        self.ocsp_response = ocsp_response
        self.rsa_key_exchange = rsa_key_exchange
        self.schemes = schemes
        self.unknown = unknown
        self.asked: list[Request] = []
        self.random = Deterministic(b"answerer")
        self._issued = self.default
        self._agreement: groups.KeyAgreement | None = None

    def perform(self, requests: Iterable[Request]) -> tuple[Response, ...]:
        """One batch, as far as its first verdict that is not accepted."""
        responses: list[Response] = []
        for request in requests:
            self.asked.append(request)
            responses.append(self._perform(request))
            if responses[-1].ends_batch:
                break
        return tuple(responses)

    def _perform(self, request: Request) -> Response:
        match request:
            case ServerStartRequest():
                return self._start(request)
            case ServerShareRequest(group=group, key_share=share):
                ours, secret = groups.respond(group_name(group), share)
                return ServerShareResponse(key_share=ours, secret=secret)
            case ServerSignatureRequest(scheme=scheme, transcript_hash=digest):
                return ServerSignatureResponse(
                    signature=self._sign(scheme, schedule.certificate_verify_content(b"server", digest))
                )
            case ServerParametersRequest():
                return self._parameters(request)
            case ServerMasterSecretRequest():
                return MasterSecretResponse(secret=self._master_secret(request))
            case ClientAuthenticateRequest():
                return judge(request)
        raise Refused(f"{type(request).__name__} is not known here")

    def _start(self, request: ServerStartRequest) -> ServerStartResponse:
        if self.unknown and request.server_name not in self.by_name:
            raise UnrecognizedName(f"no certificate for {request.server_name!r}")
        self._issued = self.by_name.get(request.server_name, self.default)
        kind = signatures.PublicKey.of(self._issued.key.public_key()).kind

        def fitting(*, strict: bool) -> tuple[int, ...]:
            names = signatures.schemes_for(kind, strict=strict)
            codes = (int(SignatureScheme[name]) for name in names)
            return tuple(code for code in codes if code in request.signature_schemes and code in self.schemes)

        is_rsa = isinstance(self._issued.key, rsa.RSAPrivateKey)
        return ServerStartResponse(
            certificates=self._issued.chain,
            ocsp_response=self.ocsp_response,
            schemes13=fitting(strict=True),
            schemes12=fitting(strict=False),
            rsa_key_exchange=is_rsa and self.rsa_key_exchange,
        )

    def _sign(self, scheme: int, content: bytes) -> bytes:
        return signatures.sign(scheme_name(scheme), self._issued.key, content)

    def _parameters(self, request: ServerParametersRequest) -> ServerParametersResponse:
        writer = Writer()
        if request.group in FINITE_FIELD_RANGE:
            group = ffdhe(int(group_name(request.group).removeprefix("FFDHE")))
            self._agreement = groups.start_finite_field(group)
            for number in (group.prime.to_bytes(group.length, "big"), b"\x02", self._agreement.share):
                writer.vector(number, 2)
        else:
            self._agreement = groups.start(group_name(request.group))
            writer.u8(3)
            writer.u16(request.group)
            writer.vector(self._agreement.share, 1)
        parameters = writer.getvalue()
        content = request.client_random + request.server_random + parameters
        return ServerParametersResponse(parameters=parameters, signature=self._sign(request.scheme, content))

    def _master_secret(self, request: ServerMasterSecretRequest) -> bytes:
        suite = CIPHER_SUITES[request.cipher_suite]
        body = Reader(request.key_exchange)
        theirs = body.vector(1 if suite.key_exchange is KeyExchange.ECDHE else 2)
        body.finish()
        if suite.key_exchange is KeyExchange.RSA:
            sentinels = [request.server_random[24:], b""]
            assert request.server_random in {schedule.bound_random(request.random_seed, s) for s in sentinels}
            secret = self._decrypt(theirs)
        else:
            assert self._agreement is not None
            assert request.random_seed == b""
            secret = self._agreement.complete(theirs)
            if suite.key_exchange is KeyExchange.DHE:
                secret = secret.lstrip(b"\0")
        seed = request.client_random + request.server_random
        if request.extended:
            seed = suite.hash.digest(request.messages)
        return schedule.master_secret12(suite.hash, secret, seed, request.extended)

    def _decrypt(self, ciphertext: bytes) -> bytes:
        try:
            secret = signatures.decrypt_pkcs1(self._issued.key, ciphertext)
        except ValueError:
            raise DecodeError("the ciphertext is no number below the modulus") from None
        fits = len(secret) == _PRE_MASTER_LENGTH and secret[:2] == b"\x03\x03"
        return secret if fits else self.random(_PRE_MASTER_LENGTH)


def judge(request: ClientAuthenticateRequest) -> Verdict:
    """Whether a client is one of the test root's, and has the key that goes with its certificate."""
    certificate = x509.load_der_x509_certificate(request.chain.certificates[0])
    try:
        certificate.verify_directly_issued_by(pki.ca().certificate)
    except Exception:
        return Verdict(authentic=False, allowed=False, fault=Fault.UNKNOWN_ISSUER, reason="not of the test root")
    content = request.content
    if request.version == 0x0304:
        content = schedule.certificate_verify_content(b"client", content)
    assert request.scheme not in PKCS1_SCHEMES or request.version == 0x0303
    try:
        signatures.verify(
            scheme_name(request.scheme),
            signatures.PublicKey.of(certificate.public_key()),
            request.signature,
            content,
            strict=request.version == 0x0304,
        )
    except LocumError as error:
        return Verdict(authentic=False, allowed=False, fault=Fault.BAD_SIGNATURE, reason=str(error))
    (name,) = certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value.get_values_for_type(x509.DNSName)
    if name.startswith("banned."):
        return Verdict(authentic=True, allowed=False, identity=f"dns:{name}", fault=Fault.POLICY, reason="banned")
    return Verdict(authentic=True, allowed=True, identity=f"dns:{name}")


def settle(connection: Connection, perform: Callable[[tuple[Request, ...]], tuple[Response, ...]]) -> None:
    """Have everything performed that `connection` asks for."""
    while (pending := connection.pending) is not None:
        try:
            responses = perform(pending)
        except LocumError as error:
            connection.fail(error)
            continue
        connection.answer(responses)


class _Half:
    """The server's side of either link."""

    def __init__(self, wishes: ServerConfiguration, by: Answerer | None, now: Callable[[], float]) -> None:
        self.answerer = by or Answerer()
        self.server = ServerConnection(wishes, random=Deterministic(b"server"), now=now)
        self.server.start()
        self.server_events: list[Event] = []
        self.error: LocumError | None = None
        self.sent_by_server = self.sent_by_client = b""
        self.chunk = 0
        self.edit_to_server: Callable[[bytes], bytes] = lambda data: data
        self.edit_to_client: Callable[[bytes], bytes] = lambda data: data

    def to_server(self, data: bytes) -> None:
        """Give the server bytes; its error stays in `error`."""
        self.sent_by_client += data
        data = self.edit_to_server(data)
        step = self.chunk or len(data) or 1
        try:
            for start in range(0, len(data), step):
                self.server.receive_data(data[start : start + step])
                settle(self.server, self.answerer.perform)
        except LocumError as error:
            self.error = error
        self.server_events += self.server.events()

    def from_server(self) -> bytes:
        """What the server has to say."""
        data = bytes(self.server.data_to_send())
        self.sent_by_server += data
        return self.edit_to_client(data)

    @property
    def at_server(self) -> bytes:
        """The application data that the server has got so far."""
        return b"".join(event.data for event in self.server_events if isinstance(event, DataReceived))

    @property
    def asked(self) -> list[str]:
        """What the server has asked for."""
        return [type(request).__name__ for request in self.answerer.asked]


class Pair(_Half):
    """Our client, with a local authority, and our server."""

    def __init__(
        self,
        wishes: ServerConfiguration,
        configuration: ClientConfiguration,
        *,
        by: Answerer | None = None,
        client_by: LocalAuthority | None = None,
        now: Callable[[], float] = clock,
    ) -> None:
        super().__init__(wishes, by, now)
        self.client = ClientConnection(configuration, random=Deterministic(b"client"), now=now)
        self.session: LocalSession = (client_by or authority()).open(TERMINAL)
        self.client_events: list[Event] = []
        self.client_error: LocumError | None = None

    def run(self) -> Pair:
        """Let both speak until neither has anything to say; what is wrong stays in the two errors."""
        self.client.start()
        for _ in range(_MAX_ROUNDS):
            if not self.move():
                return self
        raise AssertionError("the handshake does not come to an end")

    def move(self) -> bool:
        """One turn of each side; true when somebody said something."""
        self._settle_client()
        up = bytes(self.client.data_to_send())
        if up:
            self.to_server(up)
        down = self.from_server()
        step = self.chunk or len(down) or 1
        for start in range(0, len(down), step):
            self._client(lambda start=start: self.client.receive_data(down[start : start + step]))
            self._settle_client()
        self.client_events += self.client.events()
        return bool(up or down)

    def _settle_client(self) -> None:
        self._client(lambda: settle(self.client, self.session.perform))

    def _client(self, action: Callable[[], None]) -> None:
        try:
            action()
        except LocumError as error:
            self.client_error = error

    def shake(self) -> Pair:
        """Run to the end of a handshake that must succeed. Raises: what either side raised."""
        self.run()
        if self.error is not None or self.client_error is not None:
            raise self.error or self.client_error or AssertionError
        assert self.client.handshake_complete
        assert self.server.handshake_complete
        return self

    def check_data(self) -> Pair:
        """Application data arrives, in both directions."""
        before = len(self.at_server), len(self.at_client)
        self.client.send_data(b"from the client")
        self.server.send_data(b"from the server")
        self.move()
        self.move()
        assert (self.at_server[before[0] :], self.at_client[before[1] :]) == (
            b"from the client",
            b"from the server",
        )
        return self

    @property
    def at_client(self) -> bytes:
        """The application data that the client has got so far."""
        return b"".join(event.data for event in self.client_events if isinstance(event, DataReceived))

    @property
    def tickets(self) -> list[SessionTicket]:
        """The tickets that the client has got so far."""
        return [event.ticket for event in self.client_events if isinstance(event, TicketReceived)]


def client_context(
    *,
    versions: tuple[int, int] = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION),
    ciphers: str = "",
    suites: str = "",
    groups: str = "",
    certificate: pki.Issued | None = None,
    alpn: Sequence[str] = (),
    options: int = 0,
) -> SSL.Context:
    """An OpenSSL client that trusts the test root; `groups` and the cipher strings are OpenSSL's."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(versions[0])
    context.set_max_proto_version(versions[1])
    store = context.get_cert_store()
    assert store is not None
    store.add_cert(crypto.X509.from_cryptography(pki.ca().certificate))
    context.set_verify(SSL.VERIFY_PEER)
    context.set_session_cache_mode(SSL.SESS_CACHE_CLIENT)
    if ciphers:
        context.set_cipher_list(ciphers.encode())
    if suites:
        context.set_tls13_ciphersuites(suites.encode())
    if groups:
        set_groups(context, groups)
    if certificate is not None:
        context.use_certificate(certificate.certificate)
        context.use_privatekey(certificate.key)
    if alpn:
        context.set_alpn_protos([name.encode() for name in alpn])
    if options:
        context.set_options(options)
    return context


class OpenSslPair(_Half):
    """OpenSSL's client and our server; `session` is one to resume."""

    def __init__(
        self,
        wishes: ServerConfiguration,
        context: SSL.Context,
        *,
        by: Answerer | None = None,
        server_name: str = pki.PEER_NAME,
        session: SSL.Session | None = None,
        status: bool = False,
    ) -> None:
        super().__init__(wishes, by, clock)
        self.client = SSL.Connection(context, None)
        self.client.set_tlsext_host_name(server_name.encode())
        self.client.set_connect_state()
        if session is not None:
            self.client.set_session(session)
        if status:
            self.client.request_ocsp()
        self.client_error: SSL.Error | None = None

    def run(self) -> OpenSslPair:
        """Let both speak until neither has anything to say; what is wrong stays in the two errors."""
        for _ in range(_MAX_ROUNDS):
            try:
                self.client.do_handshake()
            except SSL.WantReadError:
                pass
            except SSL.Error as error:
                self.client_error = error
            if not self.move():
                return self
        raise AssertionError("the handshake does not come to an end")

    def move(self) -> bool:
        """Both directions once; true when somebody said something."""
        up = self._take()
        if up:
            self.to_server(up)
        down = self.from_server()
        if down:
            self.client.bio_write(down)
        return bool(up or down)

    def _take(self) -> bytes:
        data = b""
        while True:
            try:
                data += self.client.bio_read(65536)
            except SSL.WantReadError:
                return data

    def shake(self) -> OpenSslPair:
        """Run to the end of a handshake that must succeed. Raises: what either side raised."""
        self.run()
        if self.error is not None or self.client_error is not None:
            raise self.error or self.client_error or AssertionError
        assert self.server.handshake_complete
        return self

    def read(self, length: int) -> bytes:
        """What the client can read now, at most `length` bytes."""
        received = b""
        while len(received) < length:
            try:
                received += self.client.recv(length - len(received))
            except SSL.WantReadError:
                break
        return received

    def check_data(self) -> OpenSslPair:
        """Application data arrives, in both directions; which is also when OpenSSL reads its tickets."""
        before = len(self.at_server)
        self.client.send(b"from the client")
        self.move()
        assert self.at_server[before:] == b"from the client"
        self.server.send_data(b"from the server")
        self.move()
        assert self.read(15) == b"from the server"
        return self

    @property
    def resumed(self) -> bool:
        """Whether the client too thinks that this session was resumed."""
        from OpenSSL._util import lib

        return bool(lib.SSL_session_reused(self.client._ssl))

    @property
    def suite(self) -> str:
        """OpenSSL's name of the cipher suite."""
        return self.client.get_cipher_name() or ""
