"""The pool of key servers: what is asked is answered once, whoever is lost, slow, silent or unwilling (C4)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.support import key_servers, pki
from tests.support.key_servers import KeyServer

from locum.errors import Refused, TimedOut, Unavailable
from locum.keyless.errors import RequestFault
from locum.keyless.frames import Frame, KeyReference, encode_response
from locum.keyless.operations import Decrypt, Sign
from locum.keyless.queries import (
    CertificateAnswer,
    CertificateNamesQuery,
    CertificateQuery,
    KeysQuery,
    TicketsAnswer,
    TicketsQuery,
    encode_answer,
    keys_page,
    names_page,
)
from locum.keyless.registry import ErrorCode
from locum.keyless.requests import Request, Seal, Unseal
from locum.keys.pool import KeyServerPool, PoolOptions
from locum.keys.server_link import LinkOptions
from locum.runtime import loop_factory

KEY = KeyReference(ski=b"s" * 20)
#: Patient enough for a loaded machine, and quick to come back.
LINK = LinkOptions(connect_timeout=20, ping_interval=20, ping_timeout=20, first_delay=0.01, longest_delay=0.05)
PATIENT = PoolOptions(timeout=30, hedge_delay=None, link=LINK)
ORDERED = PoolOptions(policy="ordered", timeout=30, hedge_delay=None, link=LINK)


def operation(number: int = 0) -> Sign:
    return Sign("ECDSA_SECP256R1_SHA256", number.to_bytes(32, "big"))


def run(test: Awaitable[None]) -> None:
    async def main() -> None:
        await test

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what must come; the test fails by its own time limit when it does not."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Servers:
    """Two stand-ins with a pool."""

    def __init__(self, tmp_path: Path, options: PoolOptions = PATIENT, *, count: int = 2) -> None:
        context = key_servers.server_context(tmp_path)
        self.path = tmp_path
        self.options = options
        self.servers = [KeyServer(context) for _ in range(count)]
        self.pool: KeyServerPool

    async def __aenter__(self) -> Servers:
        for server in self.servers:
            await server.start()
        credential = key_servers.credential(self.path / "edge", [server.address for server in self.servers])
        self.pool = KeyServerPool(credential, options=self.options)
        await self.pool.__aenter__()
        await until(lambda: all(status.up for status in self.pool.status()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pool.close()
        for server in self.servers:
            await server.stop()

    async def ask(self, count: int) -> list[bytes]:
        """The answers to `count` different operations, asked at the same time."""
        return await asyncio.gather(*(self.pool.perform(KEY, operation(number)) for number in range(count)))


def expected(count: int) -> list[bytes]:
    return [key_servers.signature_of(operation(number)) for number in range(count)]


def nothing_left(pool: KeyServerPool) -> bool:
    return not pool._calls and all(status.outstanding == 0 for status in pool.status())


# --- answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_an_operation_is_performed_in_both_versions_of_tls(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async def test() -> None:
        async with KeyServer(key_servers.server_context(tmp_path, version=version)) as server:
            credential = key_servers.credential(tmp_path / "edge", [server.address])
            async with KeyServerPool(credential, options=PATIENT) as pool:
                assert await pool.perform(KEY, operation()) == key_servers.signature_of(operation())

    run(test())


def test_answers_out_of_order_find_their_requests(tmp_path: Path) -> None:
    async def test() -> None:
        async with Servers(tmp_path, count=1) as net:
            net.servers[0].backwards = True
            assert await net.ask(1000) == expected(1000)
            assert nothing_left(net.pool)

    run(test())


def test_ten_thousand_requests_are_pipelined_on_one_connection(tmp_path: Path) -> None:
    async def test() -> None:
        options = PoolOptions(timeout=60, hedge_delay=None, max_outstanding=10_000, link=LINK)
        async with Servers(tmp_path, options, count=1) as net:
            assert await net.ask(10_000) == expected(10_000)
            assert net.servers[0].connections == 1

    run(test())


def test_the_servers_can_be_given_apart_from_the_credential(tmp_path: Path) -> None:
    async def test() -> None:
        async with KeyServer(key_servers.server_context(tmp_path)) as server:
            credential = key_servers.credential(tmp_path / "edge")
            async with KeyServerPool(credential, servers=[server.address], options=PATIENT) as pool:
                assert await pool.perform(KEY, operation()) == key_servers.signature_of(operation())

    run(test())


def test_a_decryption_comes_back_without_its_padding(tmp_path: Path) -> None:
    async def test() -> None:
        async with Servers(tmp_path, count=1) as net:
            key = net.pool.key(key_servers.offered())
            block = b"\0\x02" + b"\xff" * 205 + b"\0" + b"m" * 48
            net.servers[0].behaviour = lambda frame, _: encode_response(frame.id, block)
            assert await key.perform(Decrypt(b"c" * 256)) == b"m" * 48
            net.servers[0].behaviour = lambda frame, _: encode_response(frame.id, b"\0\x01" + block[2:])
            assert await key.perform(Decrypt(b"c" * 256)) not in (b"m" * 48, b"")
            net.servers[0].behaviour = lambda frame, _: encode_response(frame.id, block[1:])
            with pytest.raises(Unavailable, match="no block"):
                await key.perform(Decrypt(b"c" * 256))
            assert "web" in repr(key)

    run(test())


def test_what_does_not_fit_the_protocol_is_refused_here(tmp_path: Path) -> None:
    async def test() -> None:
        async with Servers(tmp_path, count=1) as net:
            with pytest.raises(Refused, match="cannot be asked"):
                await net.pool.perform(KEY, Sign("ED25519", bytes(70_000), prehashed=False))
            assert net.servers[0].received == 0
            assert nothing_left(net.pool)

    run(test())


# --- queries ----------------------------------------------------------------------------------------------


def test_keys_certificates_and_tickets_are_fetched_page_by_page(tmp_path: Path) -> None:
    keys = [key_servers.offered(f"key-{number}", number.to_bytes(20, "big")) for number in range(1000)]
    names = [f"host-{number}.example.com" for number in range(5000)]
    certificate = CertificateAnswer(name="web", names=("a.test",), chain=(b"der",), ski=b"s" * 20, lifetime=60)
    tickets = TicketsAnswer(root=bytes(32), epoch_seconds=3600, lifetime=60)

    def answer(frame: Frame, request: Request) -> bytes | None:
        match request:
            case KeysQuery():
                return encode_response(frame.id, encode_answer(keys_page(keys, request)))
            case CertificateNamesQuery():
                return encode_response(frame.id, encode_answer(names_page(names, request)))
            case CertificateQuery(server_name="a.test"):
                return encode_response(frame.id, encode_answer(certificate))
            case TicketsQuery():
                return encode_response(frame.id, encode_answer(tickets))
            case Seal():
                return encode_response(frame.id, b"sealed " + request.content)
            case Unseal():
                return encode_response(frame.id, request.sealed.removeprefix(b"sealed "))
        raise AssertionError(request)

    async def test() -> None:
        async with Servers(tmp_path, count=1) as net:
            net.servers[0].behaviour = answer
            assert await net.pool.keys() == tuple(keys)
            assert await net.pool.certificate_names() == tuple(names)
            assert await net.pool.certificate("a.test") == certificate
            assert await net.pool.tickets() == tickets
            assert await net.pool.unseal(await net.pool.seal(b"x")) == b"x"
            net.servers[0].behaviour = lambda frame, _: encode_response(frame.id, b"\xff")
            with pytest.raises(Unavailable, match="malformed"):
                await net.pool.tickets()

    run(test())


# --- errors -----------------------------------------------------------------------------------------------


def test_a_refusal_is_final(tmp_path: Path) -> None:
    async def test() -> None:
        async with Servers(tmp_path, ORDERED) as net:
            net.servers[0].behaviour = key_servers.refuse
            with pytest.raises(RequestFault, match="not for you") as caught:
                await net.pool.perform(KEY, operation())
            assert caught.value.code is ErrorCode.KEY_NOT_FOUND
            assert net.servers[1].received == 0

    run(test())


@pytest.mark.parametrize("behaviour", [key_servers.fail, key_servers.answer_nonsense], ids=["error", "nonsense"])
def test_what_one_server_cannot_do_now_another_is_asked_once(
    tmp_path: Path, behaviour: key_servers.Behaviour
) -> None:
    async def test() -> None:
        async with Servers(tmp_path, ORDERED) as net:
            net.servers[0].behaviour = behaviour
            assert await net.ask(3) == expected(3)
            net.servers[1].behaviour = behaviour
            with pytest.raises(Unavailable):
                await net.pool.perform(KEY, operation())
            assert [server.received for server in net.servers] == [4, 4]
            assert nothing_left(net.pool)

    run(test())


def test_without_an_answer_an_operation_times_out(tmp_path: Path) -> None:
    async def test() -> None:
        options = PoolOptions(timeout=0.2, hedge_delay=0.05, link=LINK)
        async with Servers(tmp_path, options) as net:
            for server in net.servers:
                server.behaviour = key_servers.keep_silent
            with pytest.raises(TimedOut):
                await net.pool.perform(KEY, operation())
            assert nothing_left(net.pool)

    run(test())


def test_more_than_may_be_outstanding_is_turned_away_at_once(tmp_path: Path) -> None:
    async def test() -> None:
        options = PoolOptions(timeout=30, hedge_delay=None, max_outstanding=4, link=LINK)
        async with Servers(tmp_path, options, count=1) as net:
            net.servers[0].behaviour = key_servers.keep_silent
            asked = [asyncio.create_task(net.pool.perform(KEY, operation(number))) for number in range(4)]
            await until(lambda: net.servers[0].received == 4)
            with pytest.raises(Unavailable, match="waiting"):
                await net.pool.perform(KEY, operation())
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            assert nothing_left(net.pool)

    run(test())


def test_closing_fails_what_is_under_way(tmp_path: Path) -> None:
    async def test() -> None:
        async with Servers(tmp_path, count=1) as net:
            net.servers[0].behaviour = key_servers.keep_silent
            asked = asyncio.create_task(net.pool.perform(KEY, operation()))
            await until(lambda: net.servers[0].received == 1)
            await net.pool.close()
            with pytest.raises(Unavailable, match="closed"):
                await asked
            with pytest.raises(Unavailable, match="closed"):
                await net.pool.perform(KEY, operation())
            with pytest.raises(Unavailable, match="closed"):
                await net.pool.ready(1)

    run(test())


# --- servers that are lost --------------------------------------------------------------------------------


def test_a_server_lost_amid_pipelined_requests_costs_none_of_them(tmp_path: Path) -> None:
    async def test() -> None:
        async with Servers(tmp_path) as net:
            for server in net.servers:
                server.drop_after = 300
            asked = asyncio.create_task(net.ask(2000))
            await until(lambda: any(not status.up for status in net.pool.status()))
            for server in net.servers:
                server.drop_after = None
            assert await asked == expected(2000)
            assert nothing_left(net.pool)

    run(test())


def test_an_operation_waits_for_a_server_that_comes_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with Servers(tmp_path, count=1) as net:
            await net.servers[0].stop()
            await until(lambda: not net.pool.status()[0].up)
            asked = asyncio.create_task(net.ask(10))
            await asyncio.sleep(0.05)
            await net.servers[0].start()
            assert await asked == expected(10)

    run(test())


def test_a_request_that_every_server_dies_of_is_given_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with Servers(tmp_path) as net:
            for server in net.servers:
                server.drop_after = 0
            with pytest.raises(Unavailable, match="connections were lost"):
                await net.pool.perform(KEY, operation())
            assert nothing_left(net.pool)

    run(test())


def test_without_any_server_the_reasons_are_told(tmp_path: Path) -> None:
    async def test() -> None:
        options = PoolOptions(timeout=0.3, link=LINK)
        async with KeyServerPool(key_servers.credential(tmp_path), options=options) as pool:
            with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1: .*refused"):
                await pool.perform(KEY, operation())
            with pytest.raises(Unavailable, match="refused"):
                await pool.ready(0.01)

    run(test())


def test_ready_returns_when_the_first_server_is_up(tmp_path: Path) -> None:
    async def test() -> None:
        async with KeyServer(key_servers.server_context(tmp_path)) as server:
            credential = key_servers.credential(tmp_path / "edge", [server.address])
            async with KeyServerPool(credential, options=PATIENT) as pool:
                await pool.ready(30)
                assert pool.status()[0].up
                await pool.ready(0)

    run(test())


# --- servers that are slow or silent ----------------------------------------------------------------------


def test_a_silent_server_is_overtaken_and_given_up(tmp_path: Path) -> None:
    link = LinkOptions(
        connect_timeout=20, ping_interval=20, ping_timeout=0.3, first_delay=0.01, longest_delay=0.05
    )
    options = PoolOptions(policy="ordered", timeout=30, hedge_delay=0.02, link=link)

    async def test() -> None:
        async with Servers(tmp_path, options) as net:
            silent = net.servers[0]
            silent.behaviour, silent.answers_pings = key_servers.keep_silent, False
            assert await net.ask(100) == expected(100)
            assert silent.received == 100
            # Further requests do not try it first any more.
            assert await net.ask(100) == expected(100)
            assert silent.received == 100
            await until(lambda: "no sign of life" in net.pool.status()[0].reason)
            silent.behaviour, silent.answers_pings = key_servers.perform, True
            await until(lambda: net.pool.status()[0].up)
            await net.ask(1)
            assert silent.received == 101

    run(test())


def test_a_slow_server_is_preferred_again_as_soon_as_it_is_heard(tmp_path: Path) -> None:
    options = PoolOptions(policy="ordered", timeout=30, hedge_delay=0.02, link=LINK)

    async def test() -> None:
        async with Servers(tmp_path, options) as net:
            slow, _ = net.servers
            slow.behaviour = key_servers.keep_silent
            assert await net.ask(1) == expected(1)
            # It still answers pings.
            await until(lambda: not net.pool.status()[0].slow)
            slow.behaviour = key_servers.perform
            await net.ask(1)
            assert slow.received == 2
            assert net.pool.status()[0].up

    run(test())


def test_an_operation_that_nobody_answers_does_not_keep_others_from_being_hedged(tmp_path: Path) -> None:
    options = PoolOptions(policy="ordered", timeout=30, hedge_delay=0.02, link=LINK)

    async def test() -> None:
        async with Servers(tmp_path, options) as net:
            first, second = net.servers
            first.behaviour = second.behaviour = key_servers.keep_silent
            stuck = asyncio.create_task(net.pool.perform(KEY, operation()))
            await until(lambda: second.received == 1)
            await until(lambda: not net.pool.status()[0].slow)
            second.behaviour = key_servers.perform
            assert await net.ask(1) == expected(1)
            assert first.received == 2
            assert not stuck.done()
            stuck.cancel()

    run(test())


def test_hedging_stops_when_everybody_is_merely_busy(tmp_path: Path) -> None:
    options = PoolOptions(policy="ordered", timeout=30, hedge_delay=0.01, link=LINK)

    async def test() -> None:
        async with Servers(tmp_path, options) as net:
            for server in net.servers:
                server.delay = 0.5
            assert await net.ask(2000) == expected(2000)
            # Each was asked once, and few twice.
            assert 2000 <= sum(server.received for server in net.servers) <= 2300

    run(test())


def test_an_idle_connection_is_pinged_and_given_up_when_nobody_answers(tmp_path: Path) -> None:
    link = LinkOptions(
        connect_timeout=20, ping_interval=0.05, ping_timeout=0.3, first_delay=0.01, longest_delay=0.05
    )

    async def test() -> None:
        async with Servers(tmp_path, PoolOptions(timeout=30, link=link), count=1) as net:
            net.servers[0].answers_pings = False
            await until(lambda: not net.pool.status()[0].up)
            net.servers[0].answers_pings = True
            assert await net.ask(1) == expected(1)

    run(test())


# --- choice -----------------------------------------------------------------------------------------------


def test_ordered_takes_the_first_that_is_up_and_goes_back_to_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with Servers(tmp_path, ORDERED) as net:
            first, second = net.servers
            await net.ask(10)
            assert (first.received, second.received) == (10, 0)
            await first.stop()
            await until(lambda: not net.pool.status()[0].up)
            await net.ask(10)
            assert (first.received, second.received) == (10, 10)
            await first.start()
            await until(lambda: net.pool.status()[0].up)
            await net.ask(10)
            assert (first.received, second.received) == (20, 10)

    run(test())


def test_least_spreads_the_work(tmp_path: Path) -> None:
    async def test() -> None:
        async with Servers(tmp_path) as net:
            await net.ask(100)
            assert [server.received for server in net.servers] == [50, 50]
            for _ in range(20):
                await net.ask(1)
            assert all(server.received >= 55 for server in net.servers)

    run(test())


# --- who is trusted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_an_edge_that_the_server_does_not_trust_is_told_so(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async def test() -> None:
        stranger = pki.ca(name="Another Root")
        async with KeyServer(key_servers.server_context(tmp_path, version=version)) as server:
            credential = key_servers.credential(tmp_path / "edge", [server.address], issuer=stranger)
            async with KeyServerPool(credential, options=PATIENT) as pool:
                await until(lambda: pool.status()[0].reason != "not connected yet")
                assert "enrolled elsewhere" in pool.status()[0].reason
                assert not pool.status()[0].up

    run(test())


def test_a_server_with_a_certificate_for_another_name_gets_no_request(tmp_path: Path) -> None:
    async def test() -> None:
        async with KeyServer(key_servers.server_context(tmp_path, name="impostor.test")) as server:
            credential = key_servers.credential(tmp_path / "edge", [server.address])
            async with KeyServerPool(credential, options=PATIENT) as pool:
                await until(lambda: pool.status()[0].reason != "not connected yet")
                assert "Hostname mismatch" in pool.status()[0].reason
            assert server.received == 0

    run(test())


def test_a_renewed_credential_is_used_without_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        async with KeyServer(key_servers.server_context(tmp_path)) as server:
            stranger = pki.ca(name="Another Root")
            credential = key_servers.credential(tmp_path / "edge", [server.address], issuer=stranger)
            async with KeyServerPool(credential, options=PATIENT) as pool:
                await until(lambda: "enrolled elsewhere" in pool.status()[0].reason)
                key_servers.credential(tmp_path / "edge", [server.address])
                await pool.ready(30)

    run(test())


def test_a_peer_that_speaks_something_else_is_left(tmp_path: Path) -> None:
    async def test() -> None:
        async with Servers(tmp_path, ORDERED) as net:
            net.servers[0].behaviour = lambda frame, _: b"HTTP/1.1 400 Bad Request\r\n\r\n"
            assert await net.ask(1) == expected(1)
            assert net.servers[1].received == 1

    run(test())
