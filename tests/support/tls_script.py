"""A scripted TLS server and authority without any public-key cryptography, to lead a client into every state.

All secrets are constants. The server says what its script says, in order, and can be made to say anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from locum.handshake import Request, Response, Verdict
from locum.tls import messages12, messages13, schedule
from locum.tls.configuration import ClientConfiguration
from locum.tls.connection import ClientConnection, Event
from locum.tls.extensions import Extensions, parse_client_shares, write_codes, write_u16
from locum.tls.messages import (
    HEADER_LENGTH,
    HELLO_RETRY_REQUEST_RANDOM,
    CertificateVerify,
    ClientHello,
    Finished,
    Message,
    ServerHello,
    serialize,
)
from locum.tls.operations import (
    AuthenticateRequest,
    ClientCertificateRequest,
    ClientCertificateResponse,
    ClientKeyExchangeRequest,
    ClientKeyExchangeResponse,
    ClientSignatureRequest,
    ClientSignatureResponse,
    HandshakeSecretsRequest,
    HandshakeSecretsResponse,
    KeyBlockResponse,
    KeyForm,
    KeyShareRequest,
    KeyShareResponse,
    MasterSecretRequest,
    MasterSecretResponse,
    ServerFinishedRequest,
    ServerFinishedResponse,
    SessionKeysRequest,
    SharedSecretRequest,
    SharedSecretResponse,
    StartRequest,
    StartResponse,
)
from locum.tls.receiving import parse_message
from locum.tls.record import Protection, protection
from locum.tls.registry import (
    CIPHER_SUITES,
    CipherSuite,
    ContentType,
    ExtensionType,
    HandshakeType,
    NamedGroup,
    ProtocolVersion,
    SignatureScheme,
)
from locum.tls.session import SessionTicket
from locum.wire.cursor import Writer

TLS12, TLS13 = ProtocolVersion.TLS_1_2, ProtocolVersion.TLS_1_3
SUITE13, ECDHE12, RSA12 = CIPHER_SUITES[0x1301], CIPHER_SUITES[0xC02F], CIPHER_SUITES[0x009C]
SERVER_NAME = "server.example.com"
NOW = 1_700_000_000.0
PRE_MASTER = SHARED = b"\x5a" * 32
PSK, MASTER = b"\x6b" * 32, b"\x6c" * 48
SERVER_RANDOM = b"\x77" * 32
CERTIFICATE = b"0\x82 a certificate in DER, for all the terminal knows"
SIGNATURE = b"a signature"
SCHEMES = (
    SignatureScheme.RSA_PSS_RSAE_SHA256,
    SignatureScheme.ECDSA_SECP256R1_SHA256,
    SignatureScheme.RSA_PKCS1_SHA256,
)
GROUPS = (NamedGroup.X25519, NamedGroup.SECP256R1, NamedGroup.X25519MLKEM768)


class ScriptedAuthority:
    """Finds every peer authentic and allowed, and every key to be the constant one."""

    def __init__(self, *, form: KeyForm = KeyForm.SECRET, has_certificate: bool = True) -> None:
        self._form = form
        self._has_certificate = has_certificate
        self._suite: CipherSuite = SUITE13
        self._master = b""

    def perform(self, requests: Sequence[Request]) -> tuple[Response, ...]:
        """Answer every request."""
        return tuple(self._one(request) for request in requests)

    def _one(self, request: Request) -> Response:
        match request:
            case StartRequest():
                return StartResponse(
                    versions=request.versions,
                    cipher_suites=request.cipher_suites,
                    groups=GROUPS,
                    signature_schemes=SCHEMES,
                    key_share_group=GROUPS[0] if TLS13 in request.versions else 0,
                    key_share=bytes(32) if TLS13 in request.versions else b"",
                    key_form=self._form,
                )
            case KeyShareRequest():
                return KeyShareResponse(key_share=bytes(65))
            case HandshakeSecretsRequest():
                self._suite = CIPHER_SUITES[request.cipher_suite]
                algorithm = self._suite.hash
                secret = schedule.handshake_secret(algorithm, SHARED)
                client, server = schedule.handshake_traffic_secrets(algorithm, secret, request.transcript_hash)
                return HandshakeSecretsResponse(client_secret=client, server_secret=server)
            case SharedSecretRequest():
                return SharedSecretResponse(secret=SHARED)
            case AuthenticateRequest():
                self._suite = CIPHER_SUITES[request.cipher_suite]
                return Verdict(authentic=True, allowed=True, identity=f"dns:{SERVER_NAME}")
            case ClientKeyExchangeRequest():
                return ClientKeyExchangeResponse(body=b"\x20" + bytes(32))
            case ClientCertificateRequest() if self._has_certificate:
                return ClientCertificateResponse(certificates=(CERTIFICATE,), scheme=SCHEMES[0])
            case ClientCertificateRequest():
                return ClientCertificateResponse(certificates=())
            case ClientSignatureRequest():
                return ClientSignatureResponse(signature=SIGNATURE)
            case MasterSecretRequest():
                algorithm = self._suite.hash
                secret = schedule.master_secret(algorithm, schedule.handshake_secret(algorithm, SHARED))
                return MasterSecretResponse(secret=secret)
            case SessionKeysRequest():
                return self._keys12(request)
            case ServerFinishedRequest():
                data = schedule.verify_data12(
                    self._suite.hash, self._master, b"server finished", request.finished_hash
                )
                return ServerFinishedResponse(server_verify_data=data)
        raise AssertionError(request)

    def _keys12(self, request: SessionKeysRequest) -> Response:
        algorithm = self._suite.hash
        self._master = schedule.master_secret12(algorithm, PRE_MASTER, request.seed, request.extended)
        if self._form is KeyForm.SECRET:
            return MasterSecretResponse(secret=self._master)
        return KeyBlockResponse(
            key_block=schedule.key_block12(self._suite, self._master, request.randoms),
            client_verify_data=schedule.verify_data12(
                algorithm, self._master, b"client finished", request.finished_hash
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Script:
    """One course of a handshake: the server's steps in order, and what the client is configured with."""

    name: str
    version: ProtocolVersion
    steps: tuple[str, ...]
    suite: CipherSuite = SUITE13
    form: KeyForm = KeyForm.SECRET
    resumes: bool = False
    settings: tuple[tuple[str, object], ...] = ()

    def __str__(self) -> str:
        return self.name


def _ticket(version: ProtocolVersion) -> SessionTicket:
    suite, secret = (SUITE13, PSK) if version is TLS13 else (ECDHE12, MASTER)
    return SessionTicket(
        version=version,
        suite=suite,
        server_name=SERVER_NAME,
        peer_identity=f"dns:{SERVER_NAME}",
        ticket=b"the ticket",
        secret=secret,
        issued_at=NOW - 100,
        lifetime=7200,
    )


_AUTHENTICATED_13 = ("certificate", "certificate_verify", "finished")
_ENDS_12 = ("new_session_ticket", "change_cipher_spec", "finished")
SCRIPTS = (
    Script(name="1.3", version=TLS13, steps=("server_hello", "encrypted_extensions", *_AUTHENTICATED_13)),
    Script(
        name="1.3 HelloRetryRequest",
        version=TLS13,
        steps=("hello_retry_request", "server_hello", "encrypted_extensions", *_AUTHENTICATED_13),
    ),
    Script(
        name="1.3 client certificate",
        version=TLS13,
        steps=("server_hello", "encrypted_extensions", "certificate_request", *_AUTHENTICATED_13),
    ),
    Script(
        name="1.3 resumed",
        version=TLS13,
        steps=("server_hello", "encrypted_extensions", "finished"),
        resumes=True,
        settings=(("ticket", _ticket(TLS13)), ("psk_without_dhe", True)),
    ),
    Script(
        name="1.2 ECDHE",
        version=TLS12,
        suite=ECDHE12,
        steps=(
            "server_hello",
            "certificate",
            "certificate_status",
            "server_key_exchange",
            "certificate_request",
            "server_hello_done",
            *_ENDS_12,
        ),
    ),
    Script(
        name="1.2 RSA",
        version=TLS12,
        suite=RSA12,
        form=KeyForm.KEYS,
        steps=("server_hello", "certificate", "certificate_status", "server_hello_done", *_ENDS_12),
    ),
    Script(
        name="1.2 resumed",
        version=TLS12,
        suite=ECDHE12,
        steps=("server_hello", *_ENDS_12),
        resumes=True,
        settings=(("ticket", _ticket(TLS12)),),
    ),
)
BY_NAME = {script.name: script for script in SCRIPTS}


class Conversation:
    """A client, its authority and the scripted server. Nothing moves but by `play` and `deliver`."""

    #: When false, what the client says is only kept in `sent`.
    listening = True

    def __init__(self, script: Script, **settings: object) -> None:
        self.script = script
        self.authority = ScriptedAuthority(form=script.form)
        counter = iter(range(256))
        configuration = ClientConfiguration(
            server_name=SERVER_NAME, **{"alpn": ("h2",), **dict(script.settings), **settings}
        )
        self.client = ClientConnection(
            configuration, random=lambda length: bytes((next(counter),)) * length, now=lambda: NOW
        )
        self.events: list[Event] = []
        #: Everything the client sent, as it was on the wire.
        self.sent = b""
        #: Alerts that the client sent, as (level, description).
        self.alerts: list[tuple[int, int]] = []
        self.data = b""
        self.hello: ClientHello | None = None
        self._transcript = b""
        self._extended = False
        self._read: Protection | None = None
        self._write: Protection | None = None
        self._secrets: dict[str, bytes] = {}
        self._keys: tuple[tuple[bytes, bytes], tuple[bytes, bytes]] | None = None
        self.client.start()
        self._settle()

    # --- what a test does ---------------------------------------------------------------------------------

    def play(self, steps: int | None = None) -> Conversation:
        """Say the first `steps` steps of the script, or all of them."""
        for step in self.script.steps[:steps]:
            self.deliver(self.step(step))
        return self

    def step(self, name: str) -> bytes:
        """The records of one step; the server's keys and transcript go on as if it had been said."""
        if name == "change_cipher_spec":
            data = record(ContentType.CHANGE_CIPHER_SPEC, b"\x01")
            assert self._keys is not None
            self._write = protection(self.script.suite, *self._keys[1])
            return data
        message = serialize(self.message(name))
        return self.say(message, after=name)

    def say(self, message: bytes, *, after: str = "") -> bytes:
        """The records of one handshake message, which joins the transcript; `after` as whose step it counts."""
        data = self.seal(ContentType.HANDSHAKE, message)
        if after == "hello_retry_request":
            digest = self.script.suite.hash.digest(self._transcript)
            self._transcript = bytes((HandshakeType.MESSAGE_HASH, 0, 0, len(digest))) + digest
        self._transcript += message
        if after == "server_hello":
            answer = parse_message(ServerHello, message)
            self._extended = answer.extensions.get(ExtensionType.EXTENDED_MASTER_SECRET) is not None
        self._after(after)
        return data

    def seal(self, kind: int, content: bytes) -> bytes:
        """Records with `content` under the server's present key."""
        pieces = [content[i : i + 16384] for i in range(0, len(content), 16384)] or [b""]
        if self._write is None:
            return b"".join(record(kind, piece) for piece in pieces)
        return b"".join(bytes(self._write.seal(kind, piece)) for piece in pieces)

    def deliver(self, data: bytes, *, chunk: int = 0) -> None:
        """Give the client bytes; answer what it asks, and hear what it says, also when it raises."""
        try:
            for start in range(0, len(data), chunk or len(data) or 1):
                self.client.receive_data(data[start : start + (chunk or len(data))])
                self._answer()
        finally:
            self._settle()

    def end_of_stream(self) -> None:
        """The server's end of the stream is there."""
        self.client.receive_data(b"")

    @property
    def last_alert(self) -> int | None:
        """The description of the only fatal alert that the client has sent."""
        fatal = [description for level, description in self.alerts if level == 2]
        assert len(fatal) <= 1
        return fatal[0] if fatal else None

    # --- the messages of the script -------------------------------------------------------------------------

    def message(self, name: str) -> Message:
        """The message of a step, as the client expects it."""
        makers: dict[str, Callable[[], Message]] = {
            "hello_retry_request": self._hello_retry_request,
            "server_hello": self._server_hello13 if self.script.version is TLS13 else self._server_hello12,
            "encrypted_extensions": lambda: messages13.EncryptedExtensions(extensions=Extensions(((0, b""),))),
            "certificate": self._certificate,
            "certificate_request": self._certificate_request,
            "certificate_status": lambda: messages12.CertificateStatus(ocsp_response=b"an OCSP response"),
            "certificate_verify": lambda: CertificateVerify(scheme=SCHEMES[0], signature=SIGNATURE),
            "server_key_exchange": lambda: messages12.ServerKeyExchange(body=server_key_exchange()),
            "server_hello_done": messages12.ServerHelloDone,
            "new_session_ticket": self._new_session_ticket,
            "finished": self._finished,
        }
        return makers[name]()

    def _hello_retry_request(self) -> ServerHello:
        assert self.hello is not None
        extensions = (
            (ExtensionType.SUPPORTED_VERSIONS, write_u16(TLS13)),
            (ExtensionType.KEY_SHARE, write_u16(NamedGroup.SECP256R1)),
            (ExtensionType.COOKIE, b"\x00\x06cookie"),
        )
        return ServerHello(
            random=HELLO_RETRY_REQUEST_RANDOM,
            session_id=self.hello.session_id,
            cipher_suite=self.script.suite.code,
            extensions=Extensions(extensions),
        )

    def _server_hello13(self) -> ServerHello:
        assert self.hello is not None
        (share,) = parse_client_shares(self.hello.extensions.get(ExtensionType.KEY_SHARE) or b"")
        writer = Writer()
        replace(share, key_exchange=bytes(32)).write(writer)
        extensions: tuple[tuple[int, bytes], ...] = (
            (ExtensionType.SUPPORTED_VERSIONS, write_u16(TLS13)),
            (ExtensionType.KEY_SHARE, writer.getvalue()),
        )
        if self.script.resumes:
            extensions += ((ExtensionType.PRE_SHARED_KEY, b"\0\0"),)
        return ServerHello(
            random=SERVER_RANDOM,
            session_id=self.hello.session_id,
            cipher_suite=self.script.suite.code,
            extensions=Extensions(extensions),
        )

    def _server_hello12(self) -> ServerHello:
        assert self.hello is not None
        extensions: tuple[tuple[int, bytes], ...] = (
            (ExtensionType.RENEGOTIATION_INFO, b"\0"),
            (ExtensionType.EXTENDED_MASTER_SECRET, b""),
            (ExtensionType.SESSION_TICKET, b""),
        )
        if not self.script.resumes:
            extensions += ((ExtensionType.STATUS_REQUEST, b""),)
        return ServerHello(
            random=SERVER_RANDOM,
            session_id=self.hello.session_id if self.script.resumes else b"",
            cipher_suite=self.script.suite.code,
            extensions=Extensions(extensions),
        )

    def _certificate(self) -> Message:
        if self.script.version is TLS12:
            return messages12.Certificate(certificates=(CERTIFICATE,))
        return messages13.Certificate(entries=((CERTIFICATE, Extensions()),))

    def _certificate_request(self) -> Message:
        if self.script.version is TLS12:
            return messages12.CertificateRequest(
                certificate_types=b"\x01\x40", schemes=SCHEMES, authorities=(b"0\0",)
            )
        schemes = ((ExtensionType.SIGNATURE_ALGORITHMS, write_codes(SCHEMES)),)
        return messages13.CertificateRequest(context=b"", extensions=Extensions(schemes))

    def _new_session_ticket(self) -> Message:
        if self.script.version is TLS12:
            return messages12.NewSessionTicket(lifetime_hint=300, ticket=b"a new ticket")
        return messages13.NewSessionTicket(
            lifetime=300, age_add=7, nonce=b"\x01", ticket=b"a new ticket", extensions=Extensions()
        )

    def _finished(self) -> Finished:
        algorithm = self.script.suite.hash
        digest = algorithm.digest(self._transcript)
        if self.script.version is TLS12:
            data = schedule.verify_data12(algorithm, self._secrets["master"], b"server finished", digest)
        else:
            data = schedule.finished_mac(algorithm, self._secrets["server"], digest)
        return Finished(verify_data=data)

    # --- keys -----------------------------------------------------------------------------------------------

    def _after(self, step: str) -> None:
        if self.script.version is TLS13:
            if step == "server_hello":
                self._handshake_keys()
            elif step == "finished":
                self._application_keys()
        elif step == "server_hello" and self.script.resumes:
            self._keys12(MASTER)

    def _handshake_keys(self) -> None:
        suite = self.script.suite
        psk = PSK if self.script.resumes else None
        secret = schedule.handshake_secret(suite.hash, SHARED, psk)
        digest = suite.hash.digest(self._transcript)
        client, server = schedule.handshake_traffic_secrets(suite.hash, secret, digest)
        self._secrets = {
            "client": client,
            "server": server,
            "master": schedule.master_secret(suite.hash, secret),
        }
        self._read = protection(suite, *schedule.traffic_keys(suite, client))
        self._write = protection(suite, *schedule.traffic_keys(suite, server))

    def _application_keys(self) -> None:
        suite = self.script.suite
        digest = suite.hash.digest(self._transcript)
        client, server = schedule.application_traffic_secrets(suite.hash, self._secrets["master"], digest)
        self._secrets["read"], self._secrets["write"] = client, server
        self._write = protection(suite, *schedule.traffic_keys(suite, server))

    def update_write_keys(self) -> None:
        """What follows a KeyUpdate that the server has sent."""
        suite = self.script.suite
        self._secrets["write"] = schedule.next_traffic_secret(suite.hash, self._secrets["write"])
        self._write = protection(suite, *schedule.traffic_keys(suite, self._secrets["write"]))

    def _update_read_keys(self) -> None:
        suite = self.script.suite
        self._secrets["read"] = schedule.next_traffic_secret(suite.hash, self._secrets["read"])
        self._read = protection(suite, *schedule.traffic_keys(suite, self._secrets["read"]))

    def _keys12(self, master: bytes) -> None:
        assert self.hello is not None
        suite, randoms = self.script.suite, self.hello.random + SERVER_RANDOM
        self._secrets["master"] = master
        self._keys = schedule.split_key_block(suite, schedule.key_block12(suite, master, randoms))

    # --- what the client says -------------------------------------------------------------------------------

    def _answer(self) -> None:
        while (pending := self.client.pending) is not None:
            self.client.answer(self.authority.perform(pending))

    def _settle(self) -> None:
        self._answer()
        data = bytes(self.client.data_to_send())
        self.sent += data
        while data:
            length = int.from_bytes(data[3:5], "big")
            header, body, data = data[:5], data[5 : 5 + length], data[5 + length :]
            if self.listening:
                self._hear(header, body)
            elif self.hello is None:
                self.hello = parse_message(ClientHello, body)
        self.events += self.client.events()

    def _hear(self, header: bytes, body: bytes) -> None:
        kind, content = header[0], body
        if self._read is not None and (self.script.version is TLS12 or kind == ContentType.APPLICATION_DATA):
            kind, content = self._read.open(header, memoryview(body))
        if kind == ContentType.ALERT:
            self.alerts.append((content[0], content[1]))
        elif kind == ContentType.APPLICATION_DATA:
            self.data += content
        elif kind == ContentType.HANDSHAKE:
            self._hear_message(content)
        elif self.script.version is TLS12:
            assert self._keys is not None
            self._read = protection(self.script.suite, *self._keys[0])

    def _hear_message(self, message: bytes) -> None:
        code = message[0]
        if code == HandshakeType.KEY_UPDATE:
            self._update_read_keys()
            return
        if code == HandshakeType.CLIENT_HELLO:
            self.hello = parse_message(ClientHello, message)
        if code == HandshakeType.FINISHED:
            self._check_finished(message)
        self._transcript += message
        if code == HandshakeType.CLIENT_KEY_EXCHANGE:
            assert self.hello is not None
            algorithm = self.script.suite.hash
            seed = algorithm.digest(self._transcript) if self._extended else self.hello.random + SERVER_RANDOM
            self._keys12(schedule.master_secret12(algorithm, PRE_MASTER, seed, self._extended))

    def _check_finished(self, message: bytes) -> None:
        suite, digest = self.script.suite, self.script.suite.hash.digest(self._transcript)
        if self.script.version is TLS12:
            due = schedule.verify_data12(suite.hash, self._secrets["master"], b"client finished", digest)
        else:
            due = schedule.finished_mac(suite.hash, self._secrets["client"], digest)
            self._read = protection(suite, *schedule.traffic_keys(suite, self._secrets["read"]))
        assert message[HEADER_LENGTH:] == due


class Recording(Conversation):
    """Nobody listens: the client gets bytes that were recorded before, and what it says is only kept."""

    listening = False


def recorded(script: Script, **settings: object) -> tuple[bytes, ...]:
    """What the server says in each step; a client with the same settings takes it as its own handshake."""
    talk = Conversation(script, **settings)
    pieces = []
    for step in script.steps:
        pieces.append(talk.step(step))
        talk.deliver(pieces[-1])
    return tuple(pieces)


def record(kind: int, content: bytes, version: int = 0x0303) -> bytes:
    """A record in clear."""
    return bytes((kind,)) + version.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content


def raw_message(code: int, body: bytes) -> bytes:
    """A handshake message with any type and body."""
    return bytes((code,)) + len(body).to_bytes(3, "big") + body


def server_key_exchange(group: int = NamedGroup.X25519, scheme: int = SCHEMES[0]) -> bytes:
    """ServerECDHParams with their signature."""
    writer = Writer()
    writer.u8(3)
    writer.u16(group)
    writer.vector(bytes(32), 1)
    writer.u16(scheme)
    writer.vector(SIGNATURE, 2)
    return writer.getvalue()
