"""TLS from asyncio with a remote key: the server of `serve_tls`, and the client whose key is elsewhere (C8)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from tests.support import key_servers, pki
from tests.support.edge import LOOPBACK, PATIENCE, SITE, Keys, certificate, client_context
from tests.support.key_servers import KeyServer

from locum.authority.databases import TrustMaterial
from locum.crypto.asymmetric.certificates import public_key_of
from locum.edge.api import serve_tls
from locum.edge.certificate_files import CertificateFile
from locum.edge.client import client_key, connect_tls
from locum.edge.service import FILE_LIMIT, Edge, EdgeOptions
from locum.edge.tls_server import Limits
from locum.errors import ConfigurationError, LocumError, PeerError, Refused, TimedOut, Unavailable
from locum.keys.credential import EdgeCredential
from locum.keys.pool import KeyServerPool
from locum.tls.alerts import Truncated
from locum.tls.registry import ProtocolVersion

TRUST = TrustMaterial(anchors=(pki.ca().pem,))
VERSIONS = {"tls12": (ProtocolVersion.TLS_1_2,), "tls13": (ProtocolVersion.TLS_1_3,)}


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[Any]], Any]:
    """Run a coroutine on each kind of event loop."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else None

    def run(awaitable: Awaitable[Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(awaitable, PATIENCE))

    return run


async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers a line in capitals, and says who asked."""
    line = await reader.readline()
    session = writer.get_extra_info("tls")
    writer.write(f"{session.server_name} {session.peer_identity} ".encode() + line.upper())
    await writer.drain()


@contextlib.asynccontextmanager
async def serving(directory: Path, handler: Any = upper, **options: Any):  # type: ignore[no-untyped-def]
    """`serve_tls` with a key that a key server has."""
    site = certificate("p256")
    path, key = site.write(directory, "site")
    key.unlink()
    limits = options.pop("limits", None)
    async with KeyServer(key_servers.server_context(directory), Keys(site)) as server:
        key_servers.credential(directory / "edge", [server.address])
        settings = EdgeOptions(
            credential=directory / "edge", certificates=(CertificateFile(certificate=path),), **options
        )
        async with await serve_tls(handler, LOOPBACK, 0, settings, limits=limits) as service:
            yield service


@contextlib.asynccontextmanager
async def client_pool(directory: Path, keys: Keys):  # type: ignore[no-untyped-def]
    """A pool whose key server has a client's key."""
    async with KeyServer(key_servers.server_context(directory), keys) as server:
        written = key_servers.credential(directory / "client", [server.address])
        async with KeyServerPool(EdgeCredential.load(written.directory)) as pool:
            yield pool


def test_asyncio_serves_tls_with_a_remote_key(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as service:
            reader, writer = await asyncio.open_connection(
                LOOPBACK, service.address.port, ssl=client_context(), server_hostname=SITE
            )
            writer.write(b"hello\n")
            assert await reader.read() == f"{SITE}  HELLO\n".encode()
            writer.close()

    run(main())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("permission", ["bound", "raw"])
@pytest.mark.parametrize("kind", ["p256", "rsa", "ed25519"])
def test_a_client_whose_key_is_at_a_key_server_proves_who_it_is(
    run: Any, tmp_path: Path, version: str, permission: str, kind: str
) -> None:
    identity = pki.client(pki.ca(name="Clients"), kind, name="me.example.com")
    keys = Keys(identity, bound=permission == "bound", raw=permission == "raw", client=True, server=False)
    (tmp_path / "clients.pem").write_bytes(pki.ca(name="Clients").pem)

    async def main() -> None:
        async with (
            serving(tmp_path, client_authorities=(tmp_path / "clients.pem",)) as service,
            client_pool(tmp_path, keys) as pool,
        ):
            reader, writer = await connect_tls(
                LOOPBACK,
                service.address.port,
                key=await client_key(pool, public_key_of(identity.certificate)),
                certificates=identity.chain,
                trust=TRUST,
                server_name=SITE,
                versions=VERSIONS[version],
            )
            writer.write(b"hello\n")
            assert await reader.read() == f"{SITE} dns:me.example.com HELLO\n".encode()
            assert writer.get_extra_info("tls").client_authenticated
            writer.close()

    run(main())
    asked = [each for each in keys.performed if "Quer" not in each]
    operation = "CertificateVerify" if version == "tls13" else "ClientVerify"
    assert asked == [operation if permission == "bound" else "Sign"]


def test_a_refused_signature_is_the_clients_error(run: Any, tmp_path: Path) -> None:
    identity = pki.client(pki.ca(name="Clients"))
    keys = Keys(identity, client=True)
    (tmp_path / "clients.pem").write_bytes(pki.ca(name="Clients").pem)

    async def main() -> None:
        async with (
            serving(tmp_path, client_authorities=(tmp_path / "clients.pem",)) as service,
            client_pool(tmp_path, keys) as pool,
        ):
            key = await client_key(pool, public_key_of(identity.certificate))
            keys.refusing = True
            with pytest.raises(Refused, match="revoked"):
                await connect_tls(
                    LOOPBACK,
                    service.address.port,
                    key=key,
                    certificates=identity.chain,
                    trust=TRUST,
                    server_name=SITE,
                )

    run(main())


def test_a_key_that_is_offered_to_servers_only_is_none_for_clients(run: Any, tmp_path: Path) -> None:
    identity = pki.client(pki.ca(name="Clients"))

    async def main() -> None:
        async with client_pool(tmp_path, Keys(identity, client=False)) as pool:
            with pytest.raises(Refused, match="--role client"):
                await client_key(pool, public_key_of(identity.certificate))

    run(main())


def test_a_client_refuses_a_server_that_it_does_not_trust(run: Any, tmp_path: Path) -> None:
    identity = pki.client(pki.ca(name="Clients"))

    async def main() -> None:
        async with serving(tmp_path) as service, client_pool(tmp_path, Keys(identity, client=True)) as pool:
            key = await client_key(pool, public_key_of(identity.certificate))
            for trust, name in ((TrustMaterial(anchors=(pki.ca(name="Other").pem,)), SITE), (TRUST, "other.test")):
                with pytest.raises(PeerError):
                    await connect_tls(
                        LOOPBACK,
                        service.address.port,
                        key=key,
                        certificates=identity.chain,
                        trust=trust,
                        server_name=name,
                    )

    run(main())


def test_a_certificate_of_another_key_is_found_out_at_once(run: Any, tmp_path: Path) -> None:
    identity, other = pki.client(pki.ca(name="Clients")), pki.client(pki.ca(name="Clients"), "rsa")

    async def main() -> None:
        async with client_pool(tmp_path, Keys(identity, client=True)) as pool:
            key = await client_key(pool, public_key_of(identity.certificate))
            with pytest.raises(ConfigurationError):
                await connect_tls(LOOPBACK, 1, key=key, certificates=other.chain, trust=TRUST)

    run(main())


def test_a_server_that_is_not_there_and_one_that_is_silent(run: Any, tmp_path: Path) -> None:
    identity = pki.client(pki.ca(name="Clients"))

    async def main() -> None:
        async with client_pool(tmp_path, Keys(identity, client=True)) as pool:
            key = await client_key(pool, public_key_of(identity.certificate))
            silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(PATIENCE), LOOPBACK, 0)
            port = silent.sockets[0].getsockname()[1]
            with pytest.raises(TimedOut):
                await connect_tls(LOOPBACK, port, key=key, certificates=identity.chain, trust=TRUST, timeout=0.2)
            silent.close()
            with pytest.raises(Unavailable):
                await connect_tls(LOOPBACK, port, key=key, certificates=identity.chain, trust=TRUST)

    run(main())


def test_a_handler_that_fails_leaves_a_stream_that_is_visibly_cut_off(run: Any, tmp_path: Path) -> None:
    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half of an ans")
        await reader.readline()
        raise LocumError("for the test")

    identity = pki.client(pki.ca(name="Clients"))

    async def main() -> None:
        async with (
            serving(tmp_path, fail) as service,
            client_pool(tmp_path, Keys(identity, client=True)) as pool,
        ):
            reader, writer = await connect_tls(
                LOOPBACK,
                service.address.port,
                key=await client_key(pool, public_key_of(identity.certificate)),
                certificates=identity.chain,
                trust=TRUST,
                server_name=SITE,
            )
            assert await reader.readexactly(14) == b"half of an ans"
            writer.write(b"go on\n")
            with pytest.raises((Truncated, Unavailable)):
                await reader.read()
            writer.close()

    run(main())


def test_closing_the_service_waits_for_its_clients_within_limits(run: Any, tmp_path: Path) -> None:
    async def main() -> None:
        context = client_context()
        async with serving(tmp_path, limits=Limits(drain_timeout=5)) as service:
            reader, writer = await asyncio.open_connection(
                LOOPBACK, service.address.port, ssl=context, server_hostname=SITE
            )
            closing = asyncio.ensure_future(service.close())
            await asyncio.sleep(0.1)
            assert not closing.done()
            writer.write(b"last words\n")
            assert (await reader.read()).endswith(b"LAST WORDS\n")
            writer.close()
            await closing
            with pytest.raises(OSError):
                await asyncio.open_connection(LOOPBACK, service.address.port)

    run(main())


def test_options_without_any_key_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="certificate"):
        EdgeOptions()
    with pytest.raises(ConfigurationError, match="key of its own"):
        EdgeOptions(certificates=(CertificateFile(certificate=Path("x")),))


def test_sessions_do_not_outlive_the_authorities_that_their_clients_were_trusted_by(tmp_path: Path) -> None:
    site = certificate("p256")
    path, key = site.write(tmp_path, "site")

    def context(*contents: bytes) -> bytes:
        paths = tuple(tmp_path / f"clients-{index}.pem" for index in range(len(contents)))
        for where, content in zip(paths, contents, strict=True):
            where.write_bytes(content)
        options = EdgeOptions(
            certificates=(CertificateFile(certificate=path),), own_keys=(key,), client_authorities=paths
        )
        return Edge(options).configuration.resumption_context

    authority, revocations = pki.ca().pem, pki.crl(pki.ca(), [])
    contexts = {context(authority), context(authority, authority + b"\n"), context(authority, revocations)}
    assert len(contexts) == 3
    assert context(authority) in contexts


def test_a_file_of_authorities_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    site = certificate("p256")
    path, key = site.write(tmp_path, "site")
    clients = tmp_path / "clients.pem"
    clients.write_bytes(pki.ca().pem + b"\n" * FILE_LIMIT)
    options = EdgeOptions(
        certificates=(CertificateFile(certificate=path),), own_keys=(key,), client_authorities=(clients,)
    )
    with pytest.raises(ConfigurationError, match="larger than"):
        Edge(options)
