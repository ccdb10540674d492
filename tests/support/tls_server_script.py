"""A scripted TLS client and answerer without any public-key cryptography, to lead a server into every state.

All secrets are constants. The client says what its script says, in order, and can be made to say anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tests.support.tls_script import (
    CERTIFICATE,
    ECDHE12,
    MASTER,
    NOW,
    PRE_MASTER,
    PSK,
    RSA12,
    SCHEMES,
    SERVER_NAME,
    SHARED,
    SIGNATURE,
    SUITE13,
    TLS12,
    TLS13,
    record,
    server_key_exchange,
)

from locum.handshake import Request, Response, Verdict
from locum.tls import messages12, messages13, schedule
from locum.tls.connection import Event, ServerConnection
from locum.tls.extensions import (
    Extensions,
    KeyShareEntry,
    write_alpn,
    write_client_shares,
    write_codes,
    write_server_name,
    write_status_request,
)
from locum.tls.messages import (
    HEADER_LENGTH,
    CertificateVerify,
    ClientHello,
    Finished,
    Message,
    ServerHello,
    serialize,
)
from locum.tls.operations import MasterSecretResponse
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
)
from locum.tls.server_configuration import ClientCertificates, ServerConfiguration
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
from locum.tls.tickets import NONCE_LENGTH, TicketKeys, TicketState
from locum.wire.cursor import Writer

CLIENT_RANDOM = b"\x33" * 32
SESSION_ID = b"\x44" * 32
OCSP = b"an OCSP response"
CLIENT_IDENTITY = "dns:client.example.com"
PROTOCOL = "h2"


def ring() -> TicketKeys:
    """The ticket keys of every scripted server."""
    return TicketKeys.derived(bytes(32), 3600, NOW)


class ScriptedAnswerer:
    """Has one certificate, which can do everything, and finds every client authentic and allowed."""

    def perform(self, requests: Sequence[Request]) -> tuple[Response, ...]:
        """Answer every request."""
        return tuple(self._one(request) for request in requests)

    def _one(self, request: Request) -> Response:
        match request:
            case ServerStartRequest(signature_schemes=offered):
                schemes = tuple(scheme for scheme in SCHEMES if scheme in offered)
                return ServerStartResponse(
                    certificates=(CERTIFICATE,),
                    ocsp_response=OCSP,
                    schemes13=schemes,
                    schemes12=schemes,
                    rsa_key_exchange=True,
                )
            case ServerShareRequest():
                return ServerShareResponse(key_share=bytes(32), secret=SHARED)
            case ServerSignatureRequest():
                return ServerSignatureResponse(signature=SIGNATURE)
            case ServerParametersRequest(group=group, scheme=scheme):
                split = messages12.ServerKeyExchange(body=server_key_exchange(group, scheme)).split
                parameters, _, signature, _ = split(ECDHE12.key_exchange)
                return ServerParametersResponse(parameters=parameters, signature=signature)
            case ServerMasterSecretRequest():
                algorithm = CIPHER_SUITES[request.cipher_suite].hash
                seed = request.client_random + request.server_random
                if request.extended:
                    seed = algorithm.digest(request.messages)
                secret = schedule.master_secret12(algorithm, PRE_MASTER, seed, request.extended)
                return MasterSecretResponse(secret=secret)
            case ClientAuthenticateRequest():
                return Verdict(authentic=True, allowed=True, identity=CLIENT_IDENTITY)
        raise AssertionError(request)


@dataclass(frozen=True, kw_only=True)
class Script:
    """One course of a handshake: the client's steps in order, and what the server is configured with."""

    name: str
    version: ProtocolVersion
    steps: tuple[str, ...]
    suite: CipherSuite = SUITE13
    resumes: bool = False
    settings: tuple[tuple[str, object], ...] = ()

    def __str__(self) -> str:
        return self.name


_ASKING = (("client_certificates", ClientCertificates.OPTIONAL),)
_FULL_12 = ("client_hello", "client_key_exchange", "change_cipher_spec", "finished")

SCRIPTS = (
    Script(name="1.3", version=TLS13, steps=("client_hello", "finished")),
    Script(name="1.3 retry", version=TLS13, steps=("client_hello", "second_client_hello", "finished")),
    Script(name="1.3 resumed", version=TLS13, steps=("client_hello", "finished"), resumes=True),
    Script(
        name="1.3 client certificate",
        version=TLS13,
        steps=("client_hello", "certificate", "certificate_verify", "finished"),
        settings=_ASKING,
    ),
    Script(name="1.2 ECDHE", version=TLS12, steps=_FULL_12, suite=ECDHE12),
    Script(name="1.2 RSA", version=TLS12, steps=_FULL_12, suite=RSA12),
    Script(
        name="1.2 client certificate",
        version=TLS12,
        steps=(
            "client_hello",
            "certificate",
            "client_key_exchange",
            "certificate_verify",
            "change_cipher_spec",
            "finished",
        ),
        suite=ECDHE12,
        settings=_ASKING,
    ),
    Script(
        name="1.2 resumed",
        version=TLS12,
        steps=("client_hello", "change_cipher_spec", "finished"),
        suite=ECDHE12,
        resumes=True,
    ),
)
BY_NAME = {script.name: script for script in SCRIPTS}


class Conversation:
    """A scripted client talks to a server. Nothing moves but by `play` and `deliver`."""

    #: When false, what the server says is only kept in `sent`.
    listening = True

    def __init__(self, script: Script, **settings: object) -> None:
        self.script = script
        self.answerer = ScriptedAnswerer()
        given = {"alpn": (PROTOCOL,), "tickets": ring(), **dict(script.settings), **settings}
        self.configuration = ServerConfiguration(**given)  # type: ignore[arg-type]
        self.server = ServerConnection(self.configuration, random=lambda length: b"\x77" * length, now=lambda: NOW)
        self.events: list[Event] = []
        #: Everything the server sent, as it was on the wire.
        self.sent = b""
        #: Alerts that the server sent, as (level, description).
        self.alerts: list[tuple[int, int]] = []
        self.data = b""
        #: The handshake messages that were heard, by type; of each type the last one. And all tickets.
        self.heard: dict[int, bytes] = {}
        self.tickets: list[bytes] = []
        self._transcript = self._fragment = b""
        self._read: Protection | None = None
        self._write: Protection | None = None
        self._secrets: dict[str, bytes] = {}
        self._keys: tuple[tuple[bytes, bytes], tuple[bytes, bytes]] | None = None
        self.server.start()

    # --- what a test does ---------------------------------------------------------------------------------

    def play(self, steps: int | None = None) -> Conversation:
        """Say the first `steps` steps of the script, or all of them."""
        for step in self.script.steps[:steps]:
            self.deliver(self.step(step))
        return self

    def step(self, name: str) -> bytes:
        """The records of one step; the client's keys and transcript go on as if it had been said."""
        if name == "change_cipher_spec":
            data = record(ContentType.CHANGE_CIPHER_SPEC, b"\x01")
            self._write = self._protection12(0)
            return data
        return self.say(serialize(self.message(name)), after=name)

    def say(self, message: bytes, *, after: str = "") -> bytes:
        """The records of one handshake message, which joins the transcript; `after` as whose step it counts."""
        data = self.seal(ContentType.HANDSHAKE, message)
        self._transcript += message
        if after == "client_key_exchange" and HandshakeType.SERVER_HELLO in self.heard:
            hello = self.server_hello
            extended = hello.extensions.get(ExtensionType.EXTENDED_MASTER_SECRET) is not None
            seed = self._digest() if extended else CLIENT_RANDOM + hello.random
            self._keys12(schedule.master_secret12(self.script.suite.hash, PRE_MASTER, seed, extended))
        if after == "finished" and self.script.version is TLS13:
            self._write = protection(self.script.suite, *self._traffic("write"))
        return data

    def seal(self, kind: int, content: bytes) -> bytes:
        """Records with `content` under the client's present key."""
        pieces = [content[i : i + 16384] for i in range(0, len(content), 16384)] or [b""]
        if self._write is None:
            return b"".join(record(kind, piece) for piece in pieces)
        return b"".join(bytes(self._write.seal(kind, piece)) for piece in pieces)

    def deliver(self, data: bytes, *, chunk: int = 0) -> None:
        """Give the server bytes; answer what it asks, and hear what it says, also when it raises."""
        try:
            for start in range(0, len(data), chunk or len(data) or 1):
                self.server.receive_data(data[start : start + (chunk or len(data))])
                while (pending := self.server.pending) is not None:
                    self.server.answer(self.answerer.perform(pending))
        finally:
            self._settle()

    def end_of_stream(self) -> None:
        """The client's end of the stream is there."""
        self.server.receive_data(b"")

    @property
    def last_alert(self) -> int | None:
        """The description of the only fatal alert that the server has sent."""
        fatal = [description for level, description in self.alerts if level == 2]
        assert len(fatal) <= 1
        return fatal[0] if fatal else None

    @property
    def server_hello(self) -> ServerHello:
        """The last ServerHello or HelloRetryRequest."""
        return parse_message(ServerHello, self.heard[HandshakeType.SERVER_HELLO])

    # --- the messages of the script -------------------------------------------------------------------------

    def message(self, name: str) -> Message:
        """The message of a step, as the server expects it."""
        makers: dict[str, Callable[[], Message]] = {
            "client_hello": self.client_hello,
            "second_client_hello": lambda: self.client_hello(NamedGroup.SECP256R1),
            "certificate": self._certificate,
            "certificate_verify": lambda: CertificateVerify(scheme=SCHEMES[0], signature=SIGNATURE),
            "client_key_exchange": lambda: messages12.ClientKeyExchange(body=b"\x20" + bytes(32)),
            "finished": self._finished,
        }
        return makers[name]()

    def client_hello(self, group: int = NamedGroup.X25519) -> ClientHello:
        """A hello for this script, with a share in `group`; the retried one's first share is of no use."""
        retried = "second_client_hello" in self.script.steps
        groups = (NamedGroup.SECP256R1,) if retried else (NamedGroup.X25519, NamedGroup.SECP256R1)
        items: list[tuple[int, bytes]] = [
            (0x2A2A, b""),
            (ExtensionType.SERVER_NAME, write_server_name(SERVER_NAME)),
            (ExtensionType.STATUS_REQUEST, write_status_request()),
            (ExtensionType.SUPPORTED_GROUPS, write_codes((0x2A2A, *groups))),
            (ExtensionType.SIGNATURE_ALGORITHMS, write_codes(SCHEMES)),
            (ExtensionType.APPLICATION_LAYER_PROTOCOL_NEGOTIATION, write_alpn((PROTOCOL,))),
            (ExtensionType.RECORD_SIZE_LIMIT, b"\x40\x00"),
        ]
        if self.script.version is TLS13:
            share = write_client_shares((KeyShareEntry(0x2A2A, b"\0"), KeyShareEntry(group, bytes(32))))
            items += [
                (ExtensionType.SUPPORTED_VERSIONS, write_codes((0x2A2A, TLS13, TLS12), prefix=1)),
                (ExtensionType.PSK_KEY_EXCHANGE_MODES, b"\x01\x01"),
                (ExtensionType.KEY_SHARE, share),
            ]
        else:
            ticket = self.ticket(MASTER) if self.script.resumes else b""
            items += [
                (ExtensionType.EC_POINT_FORMATS, b"\x01\x00"),
                (ExtensionType.EXTENDED_MASTER_SECRET, b""),
                (ExtensionType.SESSION_TICKET, ticket),
                (ExtensionType.RENEGOTIATION_INFO, b"\0"),
            ]
        hello = ClientHello(
            random=CLIENT_RANDOM,
            session_id=SESSION_ID,
            cipher_suites=(0x2A2A, self.script.suite.code),
            extensions=Extensions(tuple(items)),
        )
        return self.with_psk(hello) if self.script.resumes and self.script.version is TLS13 else hello

    def ticket(self, secret: bytes, **fields: object) -> bytes:
        """A ticket of this server's, for a session of this script's kind."""
        given = {"suite": self.script.suite, "server_name": SERVER_NAME, "authenticated_at": NOW - 60, **fields}
        state = TicketState(secret=secret, **given)  # type: ignore[arg-type]
        context = self.configuration.resumption_context
        ticket = ring().seal(state, now=NOW, nonce=bytes(NONCE_LENGTH), context=context)
        assert ticket is not None
        return ticket

    def with_psk(
        self, hello: ClientHello, ticket: bytes | None = None, secret: bytes = PSK, *, before: Sequence[bytes] = ()
    ) -> ClientHello:
        """`hello` with this ticket and the binder that `secret` makes; those `before` it have binders of zeros."""
        algorithm = self.script.suite.hash
        tickets = [*before, ticket or self.ticket(PSK)]

        def built(binder: bytes) -> ClientHello:
            writer = Writer()
            with writer.prefixed(2):
                for each in tickets:
                    writer.vector(each, 2)
                    writer.u32(0)
            with writer.prefixed(2):
                for _ in before:
                    writer.vector(bytes(algorithm.length), 1)
                writer.vector(binder, 1)
            items = [item for item in hello.extensions.items if item[0] != ExtensionType.PRE_SHARED_KEY]
            items.append((ExtensionType.PRE_SHARED_KEY, writer.getvalue()))
            return replace(hello, extensions=Extensions(tuple(items)))

        binders = 2 + len(tickets) * (1 + algorithm.length)
        truncated = serialize(built(bytes(algorithm.length)))[:-binders]
        key = schedule.binder_key(algorithm, secret)
        return built(schedule.finished_mac(algorithm, key, algorithm.digest(self._transcript + truncated)))

    def _certificate(self) -> Message:
        if self.script.version is TLS12:
            return messages12.Certificate(certificates=(CERTIFICATE,))
        return messages13.Certificate(entries=((CERTIFICATE, Extensions()),))

    def _finished(self) -> Finished:
        algorithm = self.script.suite.hash
        if self.script.version is TLS12:
            data = schedule.verify_data12(algorithm, self._secrets["master"], b"client finished", self._digest())
        else:
            data = schedule.finished_mac(algorithm, self._secrets["client"], self._digest())
        return Finished(verify_data=data)

    # --- keys -----------------------------------------------------------------------------------------------

    def _digest(self) -> bytes:
        return self.script.suite.hash.digest(self._transcript)

    def _traffic(self, which: str) -> tuple[bytes, bytes]:
        return schedule.traffic_keys(self.script.suite, self._secrets[which])

    def _handshake_keys(self) -> None:
        suite, psk = self.script.suite, PSK if self.script.resumes else None
        secret = schedule.handshake_secret(suite.hash, SHARED, psk)
        client, server = schedule.handshake_traffic_secrets(suite.hash, secret, self._digest())
        master = schedule.master_secret(suite.hash, secret)
        self._secrets = {"client": client, "server": server, "master": master}
        self._write = protection(suite, *self._traffic("client"))
        self._read = protection(suite, *self._traffic("server"))

    def _application_keys(self) -> None:
        suite = self.script.suite
        secrets = schedule.application_traffic_secrets(suite.hash, self._secrets["master"], self._digest())
        self._secrets["write"], self._secrets["read"] = secrets
        self._read = protection(suite, *self._traffic("read"))

    def update_write_keys(self) -> None:
        """What follows a KeyUpdate that the client has sent."""
        suite = self.script.suite
        self._secrets["write"] = schedule.next_traffic_secret(suite.hash, self._secrets["write"])
        self._write = protection(suite, *self._traffic("write"))

    def _update_read_keys(self) -> None:
        suite = self.script.suite
        self._secrets["read"] = schedule.next_traffic_secret(suite.hash, self._secrets["read"])
        self._read = protection(suite, *self._traffic("read"))

    def _keys12(self, master: bytes) -> None:
        suite, randoms = self.script.suite, CLIENT_RANDOM + self.server_hello.random
        self._secrets["master"] = master
        self._keys = schedule.split_key_block(suite, schedule.key_block12(suite, master, randoms))

    def _protection12(self, direction: int) -> Protection:
        if self._keys is None:
            suite = self.script.suite
            return protection(suite, bytes(suite.aead.key_length), bytes(suite.implicit_nonce))
        return protection(self.script.suite, *self._keys[direction])

    # --- what the server says -------------------------------------------------------------------------------

    def _settle(self) -> None:
        data = bytes(self.server.data_to_send())
        self.sent += data
        for header, body in cut_records(data):
            if self.listening:
                self._hear(header, body)
        self.events += self.server.events()

    def _hear(self, header: bytes, body: bytes) -> None:
        kind, content = header[0], body
        if self._read is not None and (self.script.version is TLS12 or kind == ContentType.APPLICATION_DATA):
            kind, content = self._read.open(header, memoryview(body))
        if kind == ContentType.ALERT:
            self.alerts.append((content[0], content[1]))
        elif kind == ContentType.APPLICATION_DATA:
            self.data += content
        elif kind == ContentType.HANDSHAKE:
            self._hear_messages(content)
        elif self.script.version is TLS12:
            self._read = self._protection12(1)

    def _hear_messages(self, content: bytes) -> None:
        self._fragment += content
        while len(self._fragment) >= HEADER_LENGTH:
            length = HEADER_LENGTH + int.from_bytes(self._fragment[1:HEADER_LENGTH], "big")
            if len(self._fragment) < length:
                return
            message, self._fragment = self._fragment[:length], self._fragment[length:]
            self._hear_message(message)

    def _hear_message(self, message: bytes) -> None:
        code = message[0]
        self.heard[code] = message
        if code == HandshakeType.NEW_SESSION_TICKET:
            self.tickets.append(message)
        if code == HandshakeType.KEY_UPDATE:
            self._update_read_keys()
            return
        if code == HandshakeType.FINISHED:
            self._check_finished(message)
        retried = code == HandshakeType.SERVER_HELLO and self.server_hello.is_hello_retry_request
        if retried:
            digest = self._digest()
            self._transcript = bytes((HandshakeType.MESSAGE_HASH, 0, 0, len(digest))) + digest
        self._transcript += message
        if code == HandshakeType.SERVER_HELLO and not retried:
            if self.script.version is TLS13:
                self._handshake_keys()
            elif self.script.resumes:
                self._keys12(MASTER)
        if code == HandshakeType.FINISHED and self.script.version is TLS13:
            self._application_keys()

    def _check_finished(self, message: bytes) -> None:
        suite = self.script.suite
        if self.script.version is TLS12:
            due = schedule.verify_data12(suite.hash, self._secrets["master"], b"server finished", self._digest())
        else:
            due = schedule.finished_mac(suite.hash, self._secrets["server"], self._digest())
        assert message[HEADER_LENGTH:] == due


class Recording(Conversation):
    """Nobody listens: the server gets bytes that were recorded before, and what it says is only kept."""

    listening = False


def cut_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Header and body of each record."""
    while data:
        end = 5 + int.from_bytes(data[3:5], "big")
        yield data[:5], data[5:end]
        data = data[end:]


def recorded(script: Script, **settings: object) -> tuple[bytes, ...]:
    """What the client says in each step; a server with the same settings takes it as its own handshake."""
    talk = Conversation(script, **settings)
    pieces = []
    for step in script.steps:
        pieces.append(talk.step(step))
        talk.deliver(pieces[-1])
    assert talk.server.handshake_complete
    return tuple(pieces)
