"""Which certificate an edge shows, where it comes from, and for how long (C3, C5)."""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.support import pki
from tests.support.edge import SITE, Keys, certificate, client_context, connected, exchange, running_edge
from tests.support.edge import echo as echo_handler
from tests.support.terminal_peer import RawPeer

from locum.edge.certificate_files import CertificateFile, CertificateFiles
from locum.edge.certificates import AbsentKey, CertificateIndex, Chain, Served, staple_end
from locum.edge.fetched import ABSENT_SECONDS, FetchedCertificates
from locum.edge.key_ring import KeyRing
from locum.errors import ConfigurationError, Refused, Unavailable
from locum.keyless.queries import CertificateAnswer, OfferedKey, TicketsAnswer
from locum.keys.port import KeyHolder
from locum.tls.registry import ProtocolVersion, SignatureScheme
from locum.tls.server_configuration import DEFAULT_CIPHER_SUITES
from locum.tls.server_operations import ServerStartRequest

BOTH = (ProtocolVersion.TLS_1_3, ProtocolVersion.TLS_1_2)
NOW = pki.EPOCH


def served(issued: pki.Issued, **options: Any) -> Served:
    chain = Chain.read(issued.chain)
    return Served(chain=chain, holder=AbsentKey(chain.public_key, "not needed here"), **options)


def request(
    name: str = SITE,
    versions: tuple[int, ...] = BOTH,
    suites: tuple[int, ...] = DEFAULT_CIPHER_SUITES,
    schemes: tuple[int, ...] = tuple(SignatureScheme),
    groups: tuple[int, ...] | None = None,
) -> ServerStartRequest:
    return ServerStartRequest(
        server_name=name, versions=versions, cipher_suites=suites, signature_schemes=schemes, groups=groups
    )


def shown(index: CertificateIndex, **options: Any) -> bytes:
    return index.choose(request(**options)).response.certificates[0]


# --- by name ----------------------------------------------------------------------------------------------


def test_the_exact_name_goes_before_the_star_and_the_star_before_the_default() -> None:
    first = certificate("p256", ("first.example.com",))
    star = certificate("p256", ("*.example.org",))
    exact = certificate("p256", ("www.example.org",))
    index = CertificateIndex(map(served, (first, star, exact)), now=NOW)
    assert shown(index, name="www.example.org") == exact.der
    assert shown(index, name="WWW.Example.ORG.") == exact.der
    assert shown(index, name="any.example.org") == star.der
    for name in ("a.b.example.org", "example.org", "unknown.test", ""):
        assert shown(index, name=name) == first.der
        assert not index.covers(name)


def test_a_certificate_that_has_ended_is_shown_when_there_is_no_other() -> None:
    ended = certificate("p256", not_before=pki.NOW - 9 * pki.DAY, not_after=pki.NOW - pki.DAY)
    current = certificate("rsa")
    assert shown(CertificateIndex([served(ended)], now=NOW)) == ended.der
    assert shown(CertificateIndex([served(ended), served(current)], now=NOW)) == current.der


def test_an_index_says_when_it_is_no_longer_right() -> None:
    end = NOW + 1000
    issued = certificate("p256", not_after=datetime.datetime.fromtimestamp(end, datetime.UTC))
    assert CertificateIndex([served(issued)], now=NOW).until == end
    assert CertificateIndex([served(issued, ocsp=b"x", ocsp_until=NOW + 10)], now=NOW).until == NOW + 10
    assert CertificateIndex([], now=NOW).until == float("inf")


def test_without_any_certificate_there_is_nothing_to_choose() -> None:
    with pytest.raises(Unavailable):
        CertificateIndex([], now=NOW).choose(request())


# --- by what the client can -------------------------------------------------------------------------------


def test_the_response_says_what_the_key_can_do_for_this_client() -> None:
    index = CertificateIndex([served(certificate("rsa"))], now=NOW)
    everything = index.choose(request()).response
    assert SignatureScheme.RSA_PSS_RSAE_SHA256 in everything.schemes13
    assert SignatureScheme.RSA_PKCS1_SHA256 not in everything.schemes13
    assert SignatureScheme.RSA_PKCS1_SHA256 in everything.schemes12
    assert everything.rsa_key_exchange
    only13 = index.choose(request(versions=(ProtocolVersion.TLS_1_3,))).response
    assert (only13.schemes12, only13.rsa_key_exchange) == ((), False)
    only_rsa = index.choose(request(versions=(ProtocolVersion.TLS_1_2,), suites=(0x009C,))).response
    assert (only_rsa.schemes13, only_rsa.schemes12, only_rsa.rsa_key_exchange) == ((), (), True)


@pytest.mark.parametrize(
    ("usage", "signs", "decrypts"),
    [(("digital_signature",), True, False), (("key_encipherment",), False, True)],
    ids=["sign", "decrypt"],
)
def test_key_usage_limits_what_a_key_is_used_for(usage: tuple[str, ...], signs: bool, decrypts: bool) -> None:
    response = CertificateIndex([served(certificate("rsa", usage=usage))], now=NOW).choose(request()).response
    assert bool(response.schemes13) is signs
    assert bool(response.schemes12) is signs
    assert response.rsa_key_exchange is decrypts


def test_a_client_that_fits_no_certificate_is_shown_one_that_can_do_nothing() -> None:
    index = CertificateIndex([served(certificate("p256"))], now=NOW)
    response = index.choose(request(schemes=(SignatureScheme.RSA_PSS_RSAE_SHA256,))).response
    assert (response.schemes13, response.schemes12, response.rsa_key_exchange) == ((), (), False)


def test_in_tls_1_2_the_curve_of_a_certificate_must_be_among_the_clients_groups() -> None:
    curve, rsa = certificate("p256"), certificate("rsa")
    index = CertificateIndex([served(curve), served(rsa)], now=NOW)
    for groups, expected in (((23, 29), curve), ((29,), rsa), (None, curve)):
        assert shown(index, versions=(ProtocolVersion.TLS_1_2,), groups=groups) == expected.der
    assert shown(index, groups=(29,)) == curve.der


@pytest.mark.parametrize("kind", ["mldsa65", "ed448", "p521"])
def test_other_kinds_of_keys_sign_in_tls_1_3(kind: str) -> None:
    assert CertificateIndex([served(certificate(kind))], now=NOW).choose(request()).response.schemes13


# --- files ------------------------------------------------------------------------------------------------


def test_an_ocsp_response_beside_the_certificate_is_stapled_until_it_ends(tmp_path: Path) -> None:
    issued = certificate("p256")
    path, _ = issued.write(tmp_path, "site")
    response = pki.ocsp_response(pki.ca(), issued.certificate)
    (tmp_path / "site.pem.ocsp").write_bytes(response)
    [found] = CertificateFiles([CertificateFile(certificate=path)]).certificates
    assert found.ocsp == response
    assert found.ocsp_until == staple_end(response) > NOW
    for now, stapled in ((NOW, response), (found.ocsp_until, b"")):
        index = CertificateIndex([served(issued, ocsp=found.ocsp, ocsp_until=found.ocsp_until)], now=now)
        assert index.choose(request()).response.ocsp_response == stapled


@pytest.mark.parametrize("what", ["garbage", "revoked", "error"])
def test_an_ocsp_response_that_says_nothing_good_is_refused(what: str) -> None:
    issued = certificate("p256")
    response = {
        "garbage": b"garbage",
        "revoked": pki.ocsp_response(pki.ca(), issued.certificate, revoked=True),
        "error": pki.ocsp_error(),
    }[what]
    with pytest.raises(ConfigurationError):
        staple_end(response)


def test_files_are_read_again_when_they_change_and_kept_when_they_break(tmp_path: Path) -> None:
    first, second = certificate("p256"), certificate("rsa")
    path, _ = first.write(tmp_path, "site")
    files = CertificateFiles([CertificateFile(certificate=path)])
    assert not files.reload()
    path.write_bytes(b"-----BEGIN NONSENSE-----")
    assert not files.reload()
    assert files.certificates[0].chain.certificates == first.chain
    path.write_bytes(second.chain_pem)
    assert files.reload()
    assert files.certificates[0].chain.certificates == second.chain


@pytest.mark.parametrize("content", [None, b"", b"nothing", b"x" * 300_000], ids=["none", "empty", "text", "long"])
def test_a_file_that_is_no_certificate_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "site.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"site\.pem"):
        CertificateFiles([CertificateFile(certificate=path)])


def test_a_new_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    first, second = certificate("p256"), certificate("p384")
    with (
        RawPeer(echo_handler) as backend,
        running_edge([Keys(first, second)], files=[first], backend=backend.port) as edge,
    ):
        path = edge.files[0]
        path.write_bytes(second.chain_pem)
        os.utime(path, ns=(1, 1))
        edge.thread.call(edge.edge.reload())
        with connected(edge.port) as stream:
            assert stream.getpeercert(binary_form=True) == second.der


# --- from the key server ----------------------------------------------------------------------------------


def test_certificates_of_the_key_server_are_shown_by_name(tmp_path: Path) -> None:
    one, other = certificate("p256", ("one.example.com",)), certificate("rsa", ("*.other.example.com",))
    keys = Keys(one, other, certificates=True)
    with RawPeer(echo_handler) as backend, running_edge([keys], backend=backend.port) as edge:
        for name, issued in (("one.example.com", one), ("x.other.example.com", other)):
            with connected(edge.port, name=name) as stream:
                assert stream.getpeercert(binary_form=True) == issued.der
                assert exchange(stream, b"x") == b"x"
        unknown = pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name")
        with unknown, connected(edge.port, name="unknown.example.com"):
            pass
        context = client_context()
        context.check_hostname = False
        with connected(edge.port, context, name=None) as stream:
            assert stream.getpeercert(binary_form=True) == one.der


@pytest.mark.parametrize(("lifetime", "questions"), [(60.0, 1), (0.0, 3)], ids=["kept", "each time"])
def test_a_certificate_is_fetched_once_or_each_time(lifetime: float, questions: int) -> None:
    keys = Keys(certificate("p256"), certificates=True)
    with (
        RawPeer(echo_handler) as backend,
        running_edge([keys], backend=backend.port, certificate_lifetime=lifetime) as edge,
    ):
        for _ in range(3):
            with connected(edge.port) as stream:
                assert exchange(stream, b"x") == b"x"
    assert keys.performed.count("CertificateQuery") == questions


def test_a_file_goes_before_the_key_servers_certificate() -> None:
    mine, theirs = certificate("p256"), certificate("rsa")
    keys = Keys(mine, theirs, certificates=True)
    with (
        RawPeer(echo_handler) as backend,
        running_edge([keys], files=[mine], backend=backend.port) as edge,
        connected(edge.port) as stream,
    ):
        assert stream.getpeercert(binary_form=True) == mine.der
    assert "CertificateQuery" not in keys.performed


class Servers:
    """Key servers that hand out one certificate, and count how often."""

    def __init__(self, issued: pki.Issued, lifetime: int = 100) -> None:
        self.issued = issued
        self.lifetime = lifetime
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def keys(self) -> tuple[OfferedKey, ...]:
        return ()

    def key(self, offered: OfferedKey) -> KeyHolder:
        raise NotImplementedError

    async def certificate_names(self) -> tuple[str, ...]:
        return ("*.example.com",)

    async def tickets(self) -> TicketsAnswer:
        raise NotImplementedError

    async def certificate(self, server_name: str) -> CertificateAnswer:
        self.asked.append(server_name)
        await self.gate.wait()
        if not server_name.endswith(".example.com"):
            raise Refused("no such certificate")
        return CertificateAnswer(
            name="c", names=("*.example.com",), chain=self.issued.chain, ski=bytes(20), lifetime=self.lifetime
        )


def fetching(servers: Servers, lifetime: float = 1000.0) -> tuple[FetchedCertificates, list[float]]:
    clock = [NOW]
    return (
        FetchedCertificates(servers, KeyRing(servers=servers), lifetime=lifetime, now=lambda: clock[0]),
        clock,
    )


def test_the_shorter_lifetime_counts_and_renewal_keeps_nobody_waiting() -> None:
    async def main() -> None:
        servers = Servers(certificate("p256", ("*.example.com",)))
        fetched, clock = fetching(servers)
        assert await fetched.choose(request("a.example.com")) is not None
        clock[0] = NOW + 40
        await fetched.choose(request("a.example.com"))
        assert len(servers.asked) == 1
        servers.gate.clear()
        clock[0] = NOW + 60
        assert await fetched.choose(request("a.example.com")) is not None
        await asyncio.sleep(0)
        assert len(servers.asked) == 2
        servers.gate.set()
        clock[0] = NOW + 1000
        assert await fetched.choose(request("a.example.com")) is not None

    asyncio.run(main())


def test_a_clock_that_is_set_back_does_not_make_a_certificate_live_longer() -> None:
    async def main() -> None:
        servers = Servers(certificate("p256", ("*.example.com",)))
        fetched, clock = fetching(servers)
        await fetched.choose(request("a.example.com"))
        clock[0] = NOW - 1
        await fetched.choose(request("a.example.com"))
        assert len(servers.asked) == 2

    asyncio.run(main())


def test_many_who_ask_for_the_same_name_make_one_question() -> None:
    async def main() -> None:
        servers = Servers(certificate("p256", ("*.example.com",)))
        servers.gate.clear()
        fetched, _ = fetching(servers)
        waiting = [asyncio.ensure_future(fetched.choose(request("a.example.com"))) for _ in range(20)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        servers.gate.set()
        found = await asyncio.gather(*waiting[1:])
        assert servers.asked == ["a.example.com"]
        assert all(choice is not None for choice in found)

    asyncio.run(main())


def test_a_name_without_certificate_is_asked_for_once_in_a_while() -> None:
    async def main() -> None:
        servers = Servers(certificate("p256"))
        fetched, clock = fetching(servers)
        for _ in range(5):
            assert await fetched.choose(request("a.test")) is None
        assert len(servers.asked) == 1
        clock[0] += ABSENT_SECONDS
        assert await fetched.choose(request("a.test")) is None
        assert len(servers.asked) == 2
        assert await fetched.choose(request("x" * 300)) is None
        assert len(servers.asked) == 2

    asyncio.run(main())


def test_strangers_that_ask_for_any_name_push_out_no_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locum.edge.fetched.MAX_NAMES", 3)

    async def main() -> None:
        servers = Servers(certificate("p256", ("*.example.com",)))
        fetched, _ = fetching(servers)
        await fetched.choose(request("a.example.com"))
        for number in range(10):
            assert await fetched.choose(request(f"{number}.invalid")) is None
            assert await fetched.choose(request(f"{number}.example.com")) is not None
            assert await fetched.choose(request("a.example.com")) is not None
        assert servers.asked.count("a.example.com") == 1

    asyncio.run(main())


def test_a_certificate_is_shown_while_no_more_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        servers = Servers(certificate("p256", ("*.example.com",)))
        fetched, clock = fetching(servers)
        await fetched.choose(request("a.example.com"))
        monkeypatch.setattr("locum.edge.fetched.MAX_QUESTIONS", 0)
        clock[0] = NOW + 60
        assert await fetched.choose(request("a.example.com")) is not None
        assert len(servers.asked) == 1

    asyncio.run(main())


def test_a_client_that_names_nobody_gets_a_certificate_for_the_first_name() -> None:
    async def main() -> None:
        servers = Servers(certificate("p256", ("*.example.com",)))
        fetched, _ = fetching(servers)
        assert await fetched.choose(request("")) is not None
        assert servers.asked == ["www.example.com"]

    asyncio.run(main())


def test_a_chain_that_is_none_is_not_shown() -> None:
    async def main() -> None:
        servers = Servers(certificate("p256", ("*.example.com",)))
        servers.certificate = _broken  # type: ignore[method-assign]
        fetched, _ = fetching(servers)
        with pytest.raises(Unavailable):
            await fetched.choose(request("a.example.com"))

    asyncio.run(main())


async def _broken(server_name: str) -> CertificateAnswer:
    return CertificateAnswer(name="c", names=(), chain=(b"garbage",), ski=bytes(20), lifetime=5)
