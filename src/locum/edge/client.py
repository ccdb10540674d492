"""The mirror image (C8): a TLS client whose certificate's private key is at a key server.

Never has that key. Everything else, the server's authentication first, the client does itself.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Sequence
from typing import Any

from locum.authority.databases import ANY, Action, Identity, PolicyRule, TrustMaterial
from locum.authority.local import LocalAuthority, LocalSession
from locum.edge.handshake import shake_hands
from locum.edge.raw import RawHolder
from locum.errors import LocumError, Refused, TimedOut, Unavailable
from locum.handshake import Request, Response
from locum.keyless.operations import CertificateVerify, ClientVerify, KeyOperation, Role
from locum.keys.pool import KeyServerPool
from locum.keys.port import KeyHolder
from locum.text import what_failed
from locum.tls.configuration import ClientConfiguration
from locum.tls.connection import ClientConnection
from locum.tls.operations import ClientSignatureRequest, ClientSignatureResponse
from locum.tls.registry import ProtocolVersion
from locum.tls_transport import TlsTransport, Wire

#: Seconds that connecting may take, handshake included.
CONNECT_TIMEOUT = 30.0
#: Bytes that `StreamReader` keeps before it pauses the server (twice this is the most), and its longest line.
STREAM_LIMIT = 65_536

_NAME = "client"


async def client_key(pool: KeyServerPool, public_key: bytes) -> KeyHolder:
    """The holder of the key with this SubjectPublicKeyInfo (DER), for use as a client.

    Raises: Refused when the key servers do not offer it for that; what `KeyServerPool.keys` raises.
    """
    for offered in await pool.keys():
        if offered.public_key == public_key and offered.client:
            holder = pool.key(offered)
            return holder if offered.bound else RawHolder(holder)
    raise Refused("the key server does not offer this key for clients; see: locum enroll edge --role client")


async def connect_tls(
    host: str,
    port: int,
    *,
    key: KeyHolder,
    certificates: Sequence[bytes],
    trust: TrustMaterial,
    server_name: str = "",
    timeout: float = CONNECT_TIMEOUT,  # noqa: ASYNC109
    limit: int = STREAM_LIMIT,
    **options: Any,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a TLS server, show it `certificates` (DER, own one first) if it asks, and return asyncio streams.

    `key` signs for them. `trust` is what the server is verified with, for `server_name`, which is `host` unless
    given. `options` are those of `ClientConfiguration`: alpn, versions, cipher_suites, groups, ticket.
    ``writer.get_extra_info("tls")`` is the `SessionInfo`.
    Raises: ConfigurationError when key and certificate do not belong together; LocumError of the kind that says
    who is at fault.
    """
    recorder = _Recorder(key.public_key)
    authority = LocalAuthority(
        trust=trust,
        policy=(PolicyRule(terminal=ANY, peer=ANY, action=Action.ALLOW),),
        identities=(Identity(name=_NAME, certificates=tuple(certificates), key=recorder),),
        now=time.time,
    )
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            _, wire = await loop.create_connection(Wire, host, port)
            connection = ClientConnection(
                ClientConfiguration(
                    server_name=server_name or host,
                    peer_address=wire.peer_address,
                    client_certificate=True,
                    **options,
                ),
                random=os.urandom,
                now=time.time,
            )
            try:
                await shake_hands(wire, connection, ClientSession(authority.open(_NAME), recorder, key))
            except BaseException:
                wire.tcp.close()
                raise
    except TimeoutError:
        raise TimedOut(f"{host}:{port}: no TLS session within {timeout:g} s") from None
    except OSError as error:
        raise Unavailable(f"{host}:{port}: {what_failed(error)}") from None
    reader = asyncio.StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport = TlsTransport(
        wire, connection, peer=f"{host}:{port}", application=protocol, events=connection.events()
    )
    transport.begin()
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class ClientSession:
    """An `AsyncAuthoritySession`: a local authority's, with the client's signature made by the key's holder.

    The local authority says what is to be signed, after it has checked that it may be.
    """

    def __init__(self, session: LocalSession, recorder: _Recorder, key: KeyHolder) -> None:
        self._session = session
        self._recorder = recorder
        self._key = key

    async def perform(self, requests: Sequence[Request]) -> tuple[Response, ...]:
        """As `AsyncAuthoritySession.perform`."""
        responses = self._session.perform(requests)
        signed: list[Response] = []
        for request, response in zip(requests, responses, strict=False):
            if isinstance(request, ClientSignatureRequest) and isinstance(response, ClientSignatureResponse):
                response = dataclasses.replace(response, signature=await self._sign(request))
            signed.append(response)
        return tuple(signed)

    async def _sign(self, request: ClientSignatureRequest) -> bytes:
        scheme, content = self._recorder.taken()
        operation: KeyOperation
        if request.version == ProtocolVersion.TLS_1_3:
            operation = CertificateVerify(scheme, Role.CLIENT, request.content)
        else:
            operation = ClientVerify(scheme, content)
        try:
            return await self._key.perform(operation)
        except LocumError:
            self._session.close()
            raise

    async def close(self) -> None:
        """As `AsyncAuthoritySession.close`."""
        self._session.close()


class _Recorder:
    """A `PrivateKey` that signs nothing: it keeps what it was to sign, for somebody who can."""

    def __init__(self, public_key: bytes) -> None:
        self.public_key = public_key
        self._asked: tuple[str, bytes] | None = None

    def __repr__(self) -> str:
        return "<_Recorder>"

    def sign(self, scheme: str, content: bytes, *, prehashed: bool = False) -> bytes:
        """Keep both; the signature is put in its place later."""
        self._asked = scheme, content
        return b""

    def decrypt_pkcs1(self, ciphertext: bytes) -> bytes:
        """Raises: Refused; TLS clients decrypt nothing."""
        raise Refused("a client's key decrypts nothing")

    def taken(self) -> tuple[str, bytes]:
        """The scheme and the content of the last signature that was asked for. Raises: Refused without one."""
        if self._asked is None:
            raise Refused("nothing is to be signed")
        asked, self._asked = self._asked, None
        return asked
