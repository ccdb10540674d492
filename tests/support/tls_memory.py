"""A `ClientConnection` against an OpenSSL 4 server (pyOpenSSL) in memory, its operations answered in place.

What travels between the two can be cut, edited and counted; our own randomness and clock are fixed.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import mldsa
from OpenSSL import SSL, crypto
from tests.support import pki

from locum.authority.databases import Action, Identity, PinnedKey, PolicyRule, TrustMaterial
from locum.authority.local import LocalAuthority, LocalOptions, LocalSession
from locum.errors import LocumError
from locum.keys.file import FileKey
from locum.tls.configuration import ClientConfiguration
from locum.tls.connection import ClientConnection, DataReceived, Event, TicketReceived
from locum.tls.registry import NamedGroup
from locum.tls.session import SessionTicket

TERMINAL = "meter-7"
#: From <openssl/ssl.h>; pyOpenSSL has no names for them.
OP_NO_EXTENDED_MASTER_SECRET = 1 << 0
OP_ALLOW_NO_DHE_KEX = 1 << 10
OP_PREFER_NO_DHE_KEX = 1 << 35

#: More exchanges than this without progress mean that both ends wait for one another.
_MAX_ROUNDS = 32


class Deterministic:
    """A repeatable source of bytes: SHA-256 in counter mode."""

    def __init__(self, seed: bytes = b"locum") -> None:
        self._seed = seed
        self._counter = 0

    def __call__(self, length: int) -> bytes:
        output = b""
        while len(output) < length:
            output += hashlib.sha256(self._seed + self._counter.to_bytes(8, "big")).digest()
            self._counter += 1
        return output[:length]


def clock() -> float:
    """The moment at which all certificates of `pki` are valid."""
    return pki.EPOCH


@functools.cache
def server_leaf(kind: str) -> pki.Issued:
    """A server certificate with a key of this kind, under the one test root."""
    return pki.leaf(pki.ca(), kind, slot=f"server:{kind}")


@functools.cache
def client_leaf(kind: str) -> pki.Issued:
    """A client certificate with a key of this kind, under the one test root."""
    return pki.client(pki.ca(), kind, slot=f"client:{kind}")


def identity(kind: str) -> Identity:
    """`client_leaf` as an identity of the authority."""
    issued = client_leaf(kind)
    return Identity(name=kind, certificates=issued.chain, key=FileKey.from_pem(issued.key_pem))


def authority(
    *, identities: Iterable[Identity] = (), options: LocalOptions | None = None, pinned: Sequence[PinnedKey] = ()
) -> LocalAuthority:
    """An authority that trusts the test root and lets every terminal reach every peer."""
    return LocalAuthority(
        trust=TrustMaterial(anchors=(pki.ca().pem,), pinned=tuple(pinned)),
        policy=(PolicyRule(terminal="*", peer="*", action=Action.ALLOW),),
        identities=tuple(identities),
        options=options or LocalOptions(groups=tuple(NamedGroup)),
        now=clock,
        random=Deterministic(b"authority"),
    )


def server_context(
    *certificates: pki.Issued | tuple[Path, Path],
    versions: tuple[int, int] = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION),
    ciphers: str = "",
    suites: str = "",
    groups: str = "",
    client_ca: bool = False,
    options: int = 0,
    alpn: Sequence[str] = (),
    ocsp_response: bytes = b"",
) -> SSL.Context:
    """A server context; a certificate may be given by its PEM files (certificate, key).

    `groups` and the cipher strings are OpenSSL's.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(versions[0])
    context.set_max_proto_version(versions[1])
    for issued in certificates or (server_leaf("p256"),):
        if isinstance(issued, tuple):
            context.use_certificate_file(str(issued[0]))
            context.use_privatekey_file(str(issued[1]))
        else:
            context.use_certificate(issued.certificate)
            context.use_privatekey(
                # pyOpenSSL has no name for an ML-DSA key, but takes it in PEM.
                crypto.load_privatekey(crypto.FILETYPE_PEM, issued.key_pem)
                if isinstance(issued.key, mldsa.MLDSA65PrivateKey)
                else issued.key
            )
    context.set_session_id(b"locum-test")
    if ciphers:
        context.set_cipher_list(ciphers.encode())
    if suites:
        context.set_tls13_ciphersuites(suites.encode())
    if options:
        context.set_options(options)
    if client_ca:
        ask_for_client_certificate(context, required=True)
    if alpn:
        offered = [name.encode() for name in alpn]
        context.set_alpn_select_callback(
            lambda connection, names: next((n for n in offered if n in names), SSL.NO_OVERLAPPING_PROTOCOLS)
        )
    if ocsp_response:
        context.set_ocsp_server_callback(lambda connection, data: ocsp_response)
    if groups:
        set_groups(context, groups)
    return context


def ask_for_client_certificate(context: SSL.Context, *, required: bool) -> None:
    """Have the server ask for a certificate of the test root's."""
    store = context.get_cert_store()
    assert store is not None
    store.add_cert(crypto.X509.from_cryptography(pki.ca().certificate))
    context.add_client_ca(pki.ca().certificate)
    context.set_verify(SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if required else 0))


def set_groups(context: SSL.Context, groups: str) -> None:
    """Set what pyOpenSSL has no method for, through the bindings it is made of."""
    from OpenSSL._util import lib

    assert lib.SSL_CTX_set1_curves_list(context._context, groups.encode()) == 1, groups


class Link:
    """The client, its authority's session and the server, joined by two pipes of which each end can be held.

    `edit_to_server` and `edit_to_client` see every piece on its way and return what arrives; `chunk` cuts what
    the client gets into pieces of that many bytes.
    """

    def __init__(
        self,
        configuration: ClientConfiguration,
        context: SSL.Context,
        *,
        by: LocalAuthority | None = None,
        chunk: int = 0,
        edit_to_server: Callable[[bytes], bytes] = lambda data: data,
        edit_to_client: Callable[[bytes], bytes] = lambda data: data,
    ) -> None:
        self.client = ClientConnection(configuration, random=Deterministic(), now=clock)
        self.session: LocalSession = (by or authority()).open(TERMINAL)
        self.server = SSL.Connection(context, None)
        self.server.set_accept_state()
        self.chunk = chunk
        self.edit_to_server, self.edit_to_client = edit_to_server, edit_to_client
        self.server_error: SSL.Error | None = None
        self.events: list[Event] = []
        self.asked: list[str] = []
        self.round_trips = 0
        self.sent_by_client = self.sent_by_server = b""

    # --- the two pipes ------------------------------------------------------------------------------------

    def answer_pending(self) -> None:
        """Have everything performed that the client asks for."""
        while self.client.pending is not None:
            requests = self.client.pending
            self.asked += [type(request).__name__ for request in requests]
            self.round_trips += 1
            try:
                responses = self.session.perform(requests)
            except LocumError as error:
                self.client.fail(error)
                continue
            self.client.answer(responses)

    def client_to_server(self) -> bool:
        """Move what the client has to say; true when there was something."""
        data = bytes(self.client.data_to_send())
        if not data:
            return False
        self.sent_by_client += data
        self.server.bio_write(self.edit_to_server(data))
        return True

    def server_to_client(self) -> bool:
        """Move what the server has to say; true when there was something."""
        data = self.take_from_server()
        if not data:
            return False
        data = self.edit_to_client(data)
        step = self.chunk or len(data) or 1
        for start in range(0, len(data), step):
            self.client.receive_data(data[start : start + step])
            self.answer_pending()
        self.events += self.client.events()
        return True

    def take_from_server(self) -> bytes:
        """Everything the server has to say, taken off its pipe."""
        data = b""
        while True:
            try:
                data += self.server.bio_read(65536)
            except SSL.WantReadError:
                self.sent_by_server += data
                return data

    def drive_server(self) -> None:
        """Let the server go on with its handshake; what it thinks is wrong stays in `server_error`."""
        try:
            self.server.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self.server_error = error

    def run(self) -> None:
        """Let both sides speak until neither has anything to say.

        Raises: LocumError as the client raised it; what the server thinks is wrong stays in `server_error`.
        """
        self.client.start()
        self.answer_pending()
        for _ in range(_MAX_ROUNDS):
            moved = self.client_to_server()
            self.drive_server()
            if not (self.server_to_client() or moved):
                break
        self.events += self.client.events()

    def shake(self) -> Link:
        """Run the handshake to its end on both sides, and what follows it at once (tickets).

        Raises: LocumError as the client raised it, SSL.Error as the server did.
        """
        self.run()
        if self.server_error is not None:
            raise self.server_error
        assert self.client.handshake_complete
        return self

    # --- application data -----------------------------------------------------------------------------------

    def send(self, data: bytes) -> bytes:
        """From the client to the server; returns what the server read."""
        self.client.send_data(data)
        self.client_to_server()
        return self.server_read(len(data))

    def server_read(self, length: int) -> bytes:
        """What the server can read now, at most `length` bytes."""
        received = b""
        while len(received) < length:
            try:
                received += self.server.recv(length - len(received))
            except SSL.WantReadError:
                break
        return received

    def reply(self, data: bytes) -> bytes:
        """From the server to the client; returns what the client got."""
        before = len(self.events)
        view = memoryview(data)
        while view:
            # A memory BIO takes everything, but one call writes at most one record.
            view = view[self.server.send(bytes(view[:16384])) :]
            self.server_to_client()
        return b"".join(event.data for event in self.events[before:] if isinstance(event, DataReceived))

    @property
    def tickets(self) -> list[SessionTicket]:
        """The tickets received so far."""
        return [event.ticket for event in self.events if isinstance(event, TicketReceived)]

    @property
    def resumed_at_server(self) -> bool:
        """Whether the server too thinks that this session was resumed."""
        from OpenSSL._util import lib

        return bool(lib.SSL_session_reused(self.server._ssl))


class Flip:
    """Flips a bit of the byte at this position of a stream, unless that is a record's minor version."""

    def __init__(self, position: int) -> None:
        self._position = position
        self._seen = 0

    def __call__(self, data: bytes) -> bytes:
        start, self._seen = self._seen, self._seen + len(data)
        offset = self._position - start
        if not 0 <= offset < len(data):
            return data
        header = 0
        while header + 2 < offset:
            header += 5 + int.from_bytes(data[header + 3 : header + 5], "big")
        if header + 2 == offset:
            offset -= 1
        return data[:offset] + bytes((data[offset] ^ 0x10,)) + data[offset + 1 :]


def configuration(**settings: Any) -> ClientConfiguration:
    """A client that wants to reach the peer of `pki`."""
    settings.setdefault("server_name", pki.PEER_NAME)
    return ClientConfiguration(**settings)
