"""A running edge in a thread, its backend, and key servers that really perform, for clients that block."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.support import key_servers, pki
from tests.support.key_servers import KeyServer

from locum.crypto.asymmetric.key_names import names_of
from locum.edge.certificate_files import CertificateFile
from locum.edge.proxy import Proxy, ProxyOptions
from locum.edge.service import Edge, EdgeOptions
from locum.edge.tls_server import Limits, TlsServer
from locum.errors import LocumError
from locum.keyless.errors import code_of
from locum.keyless.frames import Frame, encode_error, encode_response
from locum.keyless.queries import (
    CertificateAnswer,
    CertificateNamesQuery,
    CertificateQuery,
    KeysQuery,
    OfferedKey,
    TicketsAnswer,
    TicketsQuery,
    encode_answer,
    keys_page,
    names_page,
)
from locum.keyless.registry import ErrorCode
from locum.keyless.requests import BOUND, RAW, Request
from locum.keys.file import FileKey
from locum.keys.performing import LocalHolder
from locum.names import HostPort
from locum.processes import bind
from locum.runtime import loop_factory

LOOPBACK = "127.0.0.1"
SITE = "site.example.com"
#: Seconds after which anything that has not happened never will.
PATIENCE = 30.0
#: What key servers use for ticket keys.
TICKET_ROOT = bytes(range(32))


def certificate(kind: str = "p256", names: Sequence[str] = (SITE,), **options: Any) -> pki.Issued:
    """A server certificate of the test root for these names."""
    return pki.leaf(pki.ca(), kind, names, slot=f"site {kind} {names[0]}", **options)


class Keys:
    """What a key server has: a `Behaviour` that performs with the keys of `issued`.

    `bound`, `raw`, `server` and `client` are what the edge may; with `mute` it speaks the published protocol only.
    `performed` has the types of the operations asked for, in turn. `certificates` are handed out by name.
    """

    def __init__(
        self,
        *issued: pki.Issued,
        bound: bool = True,
        raw: bool = False,
        server: bool = True,
        client: bool = False,
        mute: bool = False,
        certificates: bool = False,
        lifetime: int = 60,
    ) -> None:
        self.performed: list[str] = []
        self.allowed = (*(BOUND if bound else ()), *(RAW if raw else ()))
        self.refusing = False
        self.mute = mute
        self.lifetime = lifetime
        self.offered: list[OfferedKey] = []
        self.certificates: dict[str, pki.Issued] = {}
        self._holders: dict[bytes, LocalHolder] = {}
        for each in issued:
            key = FileKey(each.key)
            names = names_of(key.public_key)
            self._holders[names.ski] = LocalHolder(key)
            self.offered.append(
                OfferedKey(
                    name=f"key-{len(self.offered)}",
                    kind=names.kind,
                    public_key=key.public_key,
                    ski=names.ski,
                    digest=bytes.fromhex(names.digest),
                    raw=raw,
                    bound=bound,
                    server=server,
                    client=client,
                )
            )
            if certificates:
                alternative = each.certificate.extensions.get_extension_for_class(pki.x509.SubjectAlternativeName)
                for name in alternative.value.get_values_for_type(pki.x509.DNSName):
                    self.certificates[name] = each

    def __call__(self, frame: Frame, request: Request) -> bytes:
        """Answer one request."""
        self.performed.append(type(request).__name__)
        if self.refusing:
            return encode_error(frame.id, ErrorCode.KEY_NOT_FOUND, "this edge has been revoked")
        match request:
            case KeysQuery() | TicketsQuery() | CertificateQuery() | CertificateNamesQuery() if self.mute:
                return encode_error(frame.id, ErrorCode.BAD_OPCODE)
            case KeysQuery():
                return encode_response(frame.id, encode_answer(keys_page(self.offered, request)))
            case TicketsQuery():
                answer = TicketsAnswer(root=TICKET_ROOT, epoch_seconds=3600, lifetime=60)
                return encode_response(frame.id, encode_answer(answer))
            case CertificateNamesQuery():
                return encode_response(frame.id, encode_answer(names_page(sorted(self.certificates), request)))
            case CertificateQuery():
                return self._certificate(frame, request.server_name)
        if not isinstance(request, self.allowed):
            return encode_error(frame.id, ErrorCode.BAD_OPCODE, "not allowed")
        try:
            return encode_response(frame.id, self._performed(frame, request))
        except LocumError as error:
            return encode_error(frame.id, code_of(error), str(error))

    def _performed(self, frame: Frame, request: Request) -> bytes:
        result = self._holders[frame.reference.ski].perform_now(request)  # type: ignore[arg-type]
        if type(request).__name__ != "Decrypt":
            return result
        # The padded block, as the protocol wants it.
        length = len(request.ciphertext)  # type: ignore[union-attr]
        return b"\0\2".ljust(length - len(result) - 1, b"\1") + b"\0" + result

    def _certificate(self, frame: Frame, name: str) -> bytes:
        issued = self.certificates.get(name) or self.certificates.get("*." + name.partition(".")[2])
        if issued is None:
            return encode_error(frame.id, ErrorCode.CERTIFICATE_NOT_FOUND)
        answer = CertificateAnswer(
            name=name,
            names=(name,),
            chain=issued.chain,
            ski=names_of(FileKey(issued.key).public_key).ski,
            lifetime=self.lifetime,
        )
        return encode_response(frame.id, encode_answer(answer))


# --- loops in threads -------------------------------------------------------------------------------------


class LoopThread:
    """An event loop in a thread, for as long as the context lasts."""

    def __init__(self) -> None:
        factory = loop_factory()
        self.loop = factory() if factory is not None else asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> LoopThread:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()

    def call(self, work: Awaitable[Any]) -> Any:
        """Have `work` done on the loop and return its result."""

        async def done() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(done(), self.loop).result(PATIENCE)


@dataclass
class Running:
    """An edge that serves."""

    port: int
    edge: Edge
    server: TlsServer
    servers: list[KeyServer]
    #: The files of certificates.
    files: list[Path]
    thread: LoopThread
    stop: Callable[[], None] = field(repr=False)


@contextmanager
def running_edge(
    keys: Sequence[Keys] = (),
    *,
    files: Sequence[pki.Issued] = (),
    own: Sequence[pki.Issued] = (),
    backend: int = 0,
    proxy: ProxyOptions | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> Iterator[Running]:
    """An edge with a key server for each of `keys`, certificates `files` and `own` keys, before `backend`."""
    with tempfile.TemporaryDirectory(prefix="locum-edge-") as name, LoopThread() as thread:
        directory = Path(name)
        settings = EdgeOptions(
            certificates=_files(directory, files),
            own_keys=_own(directory, own),
            credential=_PLACEHOLDER,
            **options,
        )
        edge = _Edge(thread, directory, keys, settings, proxy or _proxy(backend), limits)
        running = thread.call(edge.begin())
        try:
            yield running
        finally:
            thread.call(edge.end())


_PLACEHOLDER = Path("credential")


def _proxy(backend: int) -> ProxyOptions:
    return ProxyOptions(backend=HostPort(LOOPBACK, backend or 9))


def _files(directory: Path, issued: Sequence[pki.Issued]) -> tuple[CertificateFile, ...]:
    return tuple(
        CertificateFile(certificate=each.write(directory, f"site-{index}")[0]) for index, each in enumerate(issued)
    )


def _own(directory: Path, issued: Sequence[pki.Issued]) -> tuple[Path, ...]:
    return tuple(each.write(directory, f"own-{index}")[1] for index, each in enumerate(issued))


class _Edge:
    """What runs in the loop's thread."""

    def __init__(
        self,
        thread: LoopThread,
        directory: Path,
        keys: Sequence[Keys],
        options: EdgeOptions,
        proxy: ProxyOptions,
        limits: Limits | None,
    ) -> None:
        self._thread = thread
        self._directory = directory
        self._keys = keys
        self._options = options
        self._proxy = proxy
        self._limits = limits
        self._stack = AsyncExitStack()
        self._stop = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def begin(self) -> Running:
        context = key_servers.server_context(self._directory)
        servers = [
            await self._stack.enter_async_context(KeyServer(context, behaviour)) for behaviour in self._keys
        ]
        credential = None
        if servers:
            credential = self._directory / "credential"
            key_servers.credential(credential, [server.address for server in servers])
        edge = await self._stack.enter_async_context(Edge(replace(self._options, credential=credential)))
        listener = bind(HostPort(LOOPBACK, 0), shared=False)
        listener.listen(256)
        port = listener.getsockname()[1]
        serve = Proxy(self._proxy).serve
        server = TlsServer(listener, edge.authority, edge.configuration, serve, limits=self._limits)
        self._serving = asyncio.ensure_future(server.run(self._stop))
        files = [each.certificate for each in self._options.certificates]
        return Running(port, edge, server, servers, files, self._thread, self._stop_soon)

    def _stop_soon(self) -> None:
        self._thread.loop.call_soon_threadsafe(self._stop.set)

    async def end(self) -> None:
        self._stop.set()
        if self._serving is not None:
            await self._serving
        await self._stack.aclose()


# --- clients and backends that block ----------------------------------------------------------------------


def client_context(
    version: ssl.TLSVersion | None = None, *, ciphers: str = "", identity: pki.Issued | None = None
) -> ssl.SSLContext:
    """OpenSSL as a client that trusts the test root."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pki.ca().pem.decode())
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if ciphers:
        context.set_ciphers(ciphers)
    if identity is not None:
        with tempfile.TemporaryDirectory() as name:
            context.load_cert_chain(*identity.write(Path(name), "client"))
    # Python would take a stream that was cut off for one that has ended.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    return context


@contextmanager
def connected(
    port: int,
    context: ssl.SSLContext | None = None,
    *,
    name: str | None = SITE,
    session: ssl.SSLSession | None = None,
) -> Iterator[ssl.SSLSocket]:
    """A TLS connection to the edge at `port`; an end without close_notify is an error."""
    context = context or client_context()
    with (
        socket.create_connection((LOOPBACK, port), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname=name, session=session, suppress_ragged_eofs=False) as stream,
    ):
        yield stream


def exchange(stream: ssl.SSLSocket, data: bytes) -> bytes:
    """Send `data` to an echo and return what comes back for it."""
    stream.sendall(data)
    received = b""
    while len(received) < len(data) and (part := stream.recv(1 << 16)):
        received += part
    return received


def echo(sock: socket.socket) -> None:
    """A backend's handler: everything comes back, and then the end."""
    with contextlib.suppress(OSError):
        while part := sock.recv(1 << 16):
            sock.sendall(part)
        sock.shutdown(socket.SHUT_WR)
