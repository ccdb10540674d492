"""The link against aiocoap, an independent implementation, in both directions over real loopback sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.support.coap_udp import ClientDriver, ServerDriver
from tests.support.link_network import SECRETS, MemoryCredentials, MemoryStore, credential

from locum.errors import Refused, TimedOut
from locum.link.coap import Code, Framing
from locum.link.exchange import TransmissionParameters
from locum.link.oscore import Credential

aiocoap = pytest.importorskip("aiocoap")
from aiocoap import oscore, oscore_sitewrapper, resource  # noqa: E402

ID_CONTEXT = b"\x0a\x0b\x0c\x0d"
TIMES = TransmissionParameters(ack_timeout=0.5, response_timeout=5.0, refusal_wait=0.3, acknowledgement_delay=0.1)
ALGORITHMS = pytest.mark.parametrize("algorithm", list(SECRETS))
FRAMINGS = pytest.mark.parametrize("framing", list(Framing), ids=lambda framing: framing.value)
SIZES = pytest.mark.parametrize("size", [0, 150, 1100, 3000, 20000])


class AiocoapContext(oscore.CanProtect, oscore.CanUnprotect, oscore.SecurityContextUtils):  # type: ignore[misc]
    """An OSCORE context of aiocoap made from one of our credentials, in memory."""

    responses_send_kid = False
    is_signing = False
    external_aad_is_group = False

    def __init__(self, given: Credential, id_context: bytes, *, server: bool, echo: bytes | None = None) -> None:
        names = {"AES-CCM-16-64-128": "AES-CCM-16-64-128", "ChaCha20-Poly1305": "ChaCha20/Poly1305"}
        self.alg_aead = oscore.algorithms[names[given.algorithm]]
        self.hashfun = oscore.hashfunctions["sha256"]
        self.id_context = id_context
        self.sender_id, self.recipient_id = (given.peer_id, given.kid) if server else (given.kid, given.peer_id)
        self.derive_keys(given.salt, given.secret)
        self.sender_sequence_number = 0
        self.recipient_replay_window = oscore.ReplayWindow(32, lambda: None)
        self.echo_recovery = echo
        if echo is None:
            self.recipient_replay_window.initialize_empty()
        self.authenticated_claims: list[str] = []

    def post_seqnoincrease(self) -> None:
        """Nothing is kept on disk."""


class Echo(resource.Resource):  # type: ignore[misc]
    """Answers with what it was sent; optionally late, so that the response comes in a message of its own."""

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__()
        self.delay = delay
        self.calls = 0

    async def render_post(self, request: Any) -> Any:
        self.calls += 1
        await asyncio.sleep(self.delay)
        return aiocoap.Message(code=aiocoap.CONTENT, payload=b"echo:" + request.payload)


def scheme(framing: Framing) -> str:
    return "coap" if framing is Framing.DATAGRAM else "coap+tcp"


def free_port(framing: Framing) -> int:
    kind = socket.SOCK_DGRAM if framing is Framing.DATAGRAM else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def aiocoap_server(context: AiocoapContext | None, framing: Framing, echo: Echo) -> Any:
    """An aiocoap server with the resource /kx; yields its port."""
    port = free_port(framing)
    site = resource.Site()
    site.add_resource(["kx"], echo)
    transports = ["udp6"] if framing is Framing.DATAGRAM else ["tcpserver"]
    server = await aiocoap.Context.create_server_context(None, bind=("127.0.0.1", port), transports=transports)
    server.serversite = oscore_sitewrapper.OscoreSiteWrapper(site, server.server_credentials)
    if context is not None:
        server.server_credentials[":terminal"] = context
    try:
        yield port
    finally:
        await server.shutdown()


@asynccontextmanager
async def aiocoap_client(context: AiocoapContext | None, framing: Framing, port: int) -> Any:
    """An aiocoap client; yields a function that posts a payload and returns the response."""
    transports = ["oscore", "udp6"] if framing is Framing.DATAGRAM else ["oscore", "tcpclient"]
    client = await aiocoap.Context.create_client_context(transports=transports)
    base = f"{scheme(framing)}://127.0.0.1:{port}"
    if context is not None:
        client.client_credentials[f"{base}/*"] = context

    async def post(payload: bytes, *, code: Any = aiocoap.POST, path: str = "/kx", **options: Any) -> Any:
        message = aiocoap.Message(code=code, uri=base + path, payload=payload, **options)
        return await asyncio.wait_for(client.request(message).response, 20)

    try:
        yield post
    finally:
        await client.shutdown()


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))  # type: ignore[arg-type]


@SIZES
@FRAMINGS
@ALGORITHMS
def test_our_client_posts_to_aiocoap_and_gets_the_body_back(algorithm: str, framing: Framing, size: int) -> None:
    async def test() -> None:
        given = credential(1, algorithm)
        echo = Echo()
        payload = bytes(index % 251 for index in range(size))
        async with (
            aiocoap_server(AiocoapContext(given, ID_CONTEXT, server=True), framing, echo) as port,
            ClientDriver(port, given, framing=framing, store=MemoryStore(ID_CONTEXT), parameters=TIMES) as driver,
        ):
            for _ in range(2):
                reply = await driver.ask(payload)
                assert (reply.code, reply.payload) == (Code.CONTENT, b"echo:" + payload)
            assert echo.calls == 2

    run(test)


@SIZES
@FRAMINGS
@ALGORITHMS
def test_aiocoap_posts_to_our_server_and_gets_the_body_back(algorithm: str, framing: Framing, size: int) -> None:
    async def test() -> None:
        given = credential(1, algorithm)
        payload = bytes(index % 251 for index in range(size))
        async with (
            ServerDriver(MemoryCredentials(given), framing=framing, parameters=TIMES) as server,
            aiocoap_client(AiocoapContext(given, ID_CONTEXT, server=False), framing, server.port) as post,
        ):
            for _ in range(2):
                response = await post(payload)
                assert (int(response.code), response.payload) == (Code.CONTENT, b"terminal-1 /kx " + payload)
            assert [request.terminal for request in server.requests] == ["terminal-1"] * 2

    run(test)


@ALGORITHMS
def test_our_client_answers_the_echo_challenge_of_a_restarted_aiocoap(algorithm: str) -> None:
    """RFC 8613 Appendix B.1.2 with aiocoap as the server that lost its replay window."""

    async def test() -> None:
        given = credential(1, algorithm)
        context = AiocoapContext(given, ID_CONTEXT, server=True, echo=b"freshness")
        async with (
            aiocoap_server(context, Framing.DATAGRAM, Echo()) as port,
            ClientDriver(port, given, store=MemoryStore(ID_CONTEXT), parameters=TIMES) as driver,
        ):
            assert (await driver.ask(b"one")).payload == b"echo:one"
            assert context.recipient_replay_window.is_initialized()

    run(test)


def test_aiocoap_answers_our_echo_challenge_again_after_our_server_restarts() -> None:
    async def test() -> None:
        given = credential()
        source = MemoryCredentials(given)
        context = AiocoapContext(given, ID_CONTEXT, server=False)
        async with ServerDriver(source, parameters=TIMES) as first:
            port = first.port
            async with aiocoap_client(context, Framing.DATAGRAM, port) as post:
                assert (await post(b"before")).payload == b"terminal-1 /kx before"
        second = ServerDriver(source, parameters=TIMES)
        second.port = port
        async with second, aiocoap_client(context, Framing.DATAGRAM, port) as post:
            sent = context.sender_sequence_number
            assert (await post(b"after")).payload == b"terminal-1 /kx after"
            assert context.sender_sequence_number == sent + 2, "one request and its repetition with Echo"

    run(test)


@FRAMINGS
def test_aiocoap_without_a_context_is_told_that_oscore_is_required(framing: Framing) -> None:
    async def test() -> None:
        async with (
            ServerDriver(MemoryCredentials(credential()), framing=framing) as server,
            aiocoap_client(None, framing, server.port) as post,
        ):
            assert (await post(b"hello")).code == aiocoap.UNAUTHORIZED
            assert server.requests == []

    run(test)


def test_aiocoap_with_a_wrong_key_gets_an_unprotected_error() -> None:
    async def test() -> None:
        other = Credential(credential().kid, credential().peer_id, b"\xff" * 16, b"salt")
        context = AiocoapContext(other, ID_CONTEXT, server=False)
        async with (
            ServerDriver(MemoryCredentials(credential())) as server,
            aiocoap_client(context, Framing.DATAGRAM, server.port) as post,
        ):
            with pytest.raises(oscore.NotAProtectedMessage, match="No Object-Security"):
                await post(b"hello")
            assert server.requests == []

    run(test)


def test_our_client_with_a_wrong_key_is_refused_by_aiocoap() -> None:
    async def test() -> None:
        other = Credential(credential().kid, credential().peer_id, b"\xff" * 16, b"salt")
        async with (
            aiocoap_server(
                AiocoapContext(credential(), ID_CONTEXT, server=True), Framing.DATAGRAM, Echo()
            ) as port,
            ClientDriver(port, other, store=MemoryStore(ID_CONTEXT), parameters=TIMES) as driver,
        ):
            with pytest.raises(Refused, match="does not know this terminal or its key"):
                await driver.ask(b"hello")

    run(test)


@FRAMINGS
@pytest.mark.parametrize("size", [10, 5000])
def test_plain_requests_on_a_secure_path(framing: Framing, size: int) -> None:
    """A4: without OSCORE, in both directions."""

    async def test() -> None:
        payload = bytes(size)
        async with (
            ServerDriver(None, framing=framing, plain=True, parameters=TIMES) as server,
            aiocoap_client(None, framing, server.port) as post,
        ):
            response = await post(payload, path="/kx?t=meter-7")
            assert response.payload == b"meter-7 /kx " + payload
        async with (
            aiocoap_server(None, framing, Echo()) as port,
            ClientDriver(port, None, framing=framing, name="meter-7", parameters=TIMES) as driver,
        ):
            assert (await driver.ask(payload)).payload == b"echo:" + payload

    run(test)


def test_a_late_answer_comes_in_a_message_of_its_own_both_ways() -> None:
    """RFC 7252 section 5.2.2: acknowledged first, answered and acknowledged again later."""

    async def test() -> None:
        given = credential()
        async with (
            aiocoap_server(AiocoapContext(given, ID_CONTEXT, server=True), Framing.DATAGRAM, Echo(0.4)) as port,
            ClientDriver(port, given, store=MemoryStore(ID_CONTEXT), parameters=TIMES) as driver,
        ):
            assert (await driver.ask(b"slow")).payload == b"echo:slow"
        async with (
            ServerDriver(MemoryCredentials(given), parameters=TIMES, delay=0.4) as server,
            aiocoap_client(AiocoapContext(given, ID_CONTEXT, server=False), Framing.DATAGRAM, server.port) as post,
        ):
            assert (await post(b"slow")).payload == b"terminal-1 /kx slow"
            await asyncio.sleep(0.1)
            assert server.server.next_timeout() is None, "the separate response was acknowledged"

    run(test)


def test_aiocoap_is_told_about_methods_and_options_that_are_not_understood() -> None:
    async def test() -> None:
        given = credential()
        async with (
            ServerDriver(MemoryCredentials(given)) as server,
            aiocoap_client(AiocoapContext(given, ID_CONTEXT, server=False), Framing.DATAGRAM, server.port) as post,
        ):
            assert (await post(b"", code=aiocoap.GET)).code == aiocoap.METHOD_NOT_ALLOWED
            assert (await post(b"x", accept=60)).code == aiocoap.BAD_OPTION
            assert (await post(b"x", content_format=60)).code == aiocoap.CONTENT

    run(test)


def test_a_port_where_nobody_listens_times_out() -> None:
    async def test() -> None:
        parameters = TransmissionParameters(ack_timeout=0.02, max_retransmit=2)
        async with ClientDriver(free_port(Framing.DATAGRAM), credential(), parameters=parameters) as driver:
            with pytest.raises(TimedOut):
                await driver.ask(b"anyone?")

    run(test)
