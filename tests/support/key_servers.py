"""A key server that does as it is told: it answers, waits, errs, hangs up, or falls silent; and its credentials.

It performs nothing. A signature is `signature_of` what was asked, so that a test sees whose answer it got.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import cast

from tests.support import pki

from locum.keyless.errors import RequestFault
from locum.keyless.frames import Frame, FrameReader, encode_error, encode_frame, encode_pong, encode_response
from locum.keyless.operations import Sign
from locum.keyless.queries import OfferedKey
from locum.keyless.registry import ErrorCode, Opcode
from locum.keyless.requests import Ping, Request, decode_request
from locum.keys.credential import EdgeCredential
from locum.names import HostPort

#: The name in the certificates of key servers.
SERVER_NAME = "keyserver.test"

#: What becomes of a request: the bytes that answer it, or None for no answer.
Behaviour = Callable[[Frame, Request], bytes | None]


def signature_of(request: Request) -> bytes:
    """What the stand-in answers."""
    assert isinstance(request, Sign)
    return b"signed " + request.content


def perform(frame: Frame, request: Request) -> bytes | None:
    """Answer as a server does that can do everything."""
    return encode_response(frame.id, signature_of(request))


def refuse(frame: Frame, request: Request) -> bytes | None:
    """Answer that the edge may not."""
    return encode_error(frame.id, ErrorCode.KEY_NOT_FOUND, "not for you")


def fail(frame: Frame, request: Request) -> bytes | None:
    """Answer that the server cannot do it now."""
    return encode_error(frame.id, ErrorCode.INTERNAL, "out of order")


def keep_silent(frame: Frame, request: Request) -> bytes | None:
    """Do not answer."""
    return None


def answer_nonsense(frame: Frame, request: Request) -> bytes | None:
    """Answer with a request."""
    return encode_frame(Frame(frame.id, 0x05, b"x"))


def credential(
    directory: Path,
    servers: Sequence[HostPort] = (HostPort("127.0.0.1", 1),),
    *,
    issuer: pki.Issued | None = None,
    name: str = "edge-1",
) -> EdgeCredential:
    """A credential written to `directory`; `issuer` makes the edge's certificate, instead of the right one."""
    root = pki.ca(name="Link Root")
    edge = pki.client(issuer or root, name=name, slot=f"edge {name}")
    return EdgeCredential(
        name=name,
        server_name=SERVER_NAME,
        servers=tuple(servers),
        certificate=edge.chain_pem,
        key=edge.key_pem,
        ca=root.pem,
    ).write(directory, replace=True)


def server_context(
    directory: Path, *, name: str = SERVER_NAME, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    """TLS as a key server has it, with a certificate for `name`, in `version` only if one is given."""
    root = pki.ca(name="Link Root")
    chain, key = pki.leaf(root, names=(name,), slot="key server").write(directory, f"server-{name}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    context.load_verify_locations(cadata=root.pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class KeyServer:
    """One stand-in on 127.0.0.1. What it does can be changed at any time; `received` counts requests.

    `answers_pings` false makes it silent as a whole. Answers go out `delay` seconds late, and in the opposite
    order of a read when `backwards`. After `drop_after` requests in all, the next one has the connection cut.
    """

    def __init__(self, context: ssl.SSLContext, behaviour: Behaviour = perform) -> None:
        self.context = context
        self.behaviour = behaviour
        self.received = 0
        self.connections = 0
        self.answers_pings = True
        self.backwards = False
        self.delay = 0.0
        self.drop_after: int | None = None
        self.port = 0
        self._server: asyncio.Server | None = None
        self._transports: set[asyncio.Transport] = set()

    async def __aenter__(self) -> KeyServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def address(self) -> HostPort:
        """Where it answers, also after `stop`."""
        return HostPort("127.0.0.1", self.port)

    async def start(self) -> None:
        """Listen, at the same port as before if there was one."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), "127.0.0.1", self.port, ssl=self.context
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is not None:
            self._server.close()
            self.cut()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._server.wait_closed(), 5)
            self._server = None

    def cut(self) -> None:
        """Cut every connection."""
        for transport in list(self._transports):
            transport.abort()

    def opened(self, transport: asyncio.Transport) -> None:
        """A connection is there."""
        self.connections += 1
        self._transports.add(transport)

    def closed(self, transport: asyncio.Transport) -> None:
        """It is gone."""
        self._transports.discard(transport)

    def answer(self, frame: Frame) -> bytes | None:
        """The answer to a frame, if any."""
        try:
            request = decode_request(frame)
        except RequestFault as fault:
            return encode_error(frame.id, fault.code, str(fault))
        if isinstance(request, Ping):
            return encode_pong(frame.id, request.payload) if self.answers_pings else None
        self.received += 1
        return self.behaviour(frame, request)


class _Connection(asyncio.Protocol):
    def __init__(self, server: KeyServer) -> None:
        self._server = server
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)
        self._server.opened(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        assert self._transport is not None
        self._server.closed(self._transport)

    def data_received(self, data: bytes) -> None:
        server, transport = self._server, self._transport
        assert transport is not None
        answers = []
        for frame in self._reader.feed(data):
            cut = server.drop_after is not None and server.received >= server.drop_after
            if cut and frame.opcode != Opcode.PING:
                transport.abort()
                return
            answer = server.answer(frame)
            if answer is not None:
                answers.append(answer)
        if server.backwards:
            answers.reverse()
        if server.delay:
            asyncio.get_running_loop().call_later(server.delay, transport.write, b"".join(answers))
        elif answers:
            transport.write(b"".join(answers))


def offered(name: str = "web", ski: bytes = b"s" * 20, **options: object) -> OfferedKey:
    """A key as a server offers it."""
    return OfferedKey(name=name, kind="p256", public_key=b"spki", ski=ski, digest=bytes(32), **options)  # type: ignore[arg-type]
