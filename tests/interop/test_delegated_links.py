"""Real delegates, real servers and every way between terminal and delegate (A2, A4, A7, A12)."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.delegation import SERVERS, TLS12, TLS13, Delegation, Visit, openssl, started
from tests.support.peers import Server, ServerOptions
from tests.support.terminal_peer import LOOPBACK, Middleman
from tests.support.terminal_system import NAME

from locum.errors import OperationError
from locum.terminal.steps import StepName
from locum.tls.operations import KeyForm
from locum.tls.registry import CIPHER_SUITES, KeyExchange, ProtocolVersion

pytestmark = pytest.mark.xdist_group("delegated-links")

EVERY_SERVER = pytest.mark.parametrize("kind", SERVERS)
VERSIONS = pytest.mark.parametrize("version", [TLS13, TLS12], ids=["TLS 1.3", "TLS 1.2"])
ALGORITHMS = ("AES-CCM-16-64-128", "ChaCha20-Poly1305")
#: One suite of TLS 1.2 for each way to agree on a pre-master secret.
EXCHANGES = {
    KeyExchange.ECDHE: 0xC02F,
    KeyExchange.DHE: 0x009E,
    KeyExchange.RSA: 0x009C,
}
CIPHERS = "ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256:AES128-GCM-SHA256"


@pytest.fixture(scope="module")
def secure_path() -> int:
    """A port of loopback that nobody else has."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def delegation(tmp_path_factory: pytest.TempPathFactory, secure_path: int) -> Iterator[Delegation]:
    config = f'[delegate]\nsecure_path_listen = "{LOOPBACK}:{secure_path}"\n'
    with started(Delegation(tmp_path_factory.mktemp("links"), config=config)) as running:
        yield running


@pytest.fixture(scope="module")
def deriving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delegation]:
    """A delegate that derives the record keys of TLS 1.2 itself, whatever the terminal prefers."""
    config = '[tls]\nkey_forms = ["keys"]\n'
    with started(Delegation(tmp_path_factory.mktemp("deriving"), config=config)) as running:
        yield running


def server(delegation: Delegation, kind: str) -> Server:
    """A server with RSA and ECDSA certificates and every key exchange of TLS 1.2."""
    certificates = (delegation.certificate("rsa2048"), delegation.certificate("p256"))
    options: dict[str, Any] = {"ciphers": CIPHERS}
    if kind == "nginx":
        options["dhparam"] = delegation.directory / "dh.pem"
        if not options["dhparam"].exists():
            words = ("genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048")
            openssl(delegation.directory, *words, "-out", options["dhparam"])
    return delegation.server(kind, ServerOptions(certificates=certificates, **options))


# --- transports and protection ----------------------------------------------------------------------------


@EVERY_SERVER
@VERSIONS
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("scheme", ["coap", "coap+tcp"])
def test_every_link_to_the_delegate_gives_sessions(
    delegation: Delegation, kind: str, version: ProtocolVersion, algorithm: str, scheme: str
) -> None:
    name = f"{scheme}-{algorithm}".lower().replace("+", "-")
    address = delegation.node.url.replace("coap:", f"{scheme}:")
    credential = delegation.enrol(name, "--address", address, "--algorithm", algorithm)
    assert f'algorithm = "{algorithm}"' in credential.read_text()
    for _ in range(2):
        visit = delegation.visit(server(delegation, kind), credential=credential, versions=(version,))
        assert visit.session.version is version
        assert visit.steps[0].detail == f"{address}: not secure, every message is encrypted"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_protected_link_shows_neither_names_nor_certificates(delegation: Delegation, algorithm: str) -> None:
    shown: list[bytes] = []

    def watch(data: bytes) -> list[bytes]:
        shown.append(data)
        return [data]

    with Middleman((LOOPBACK, delegation.node.port)) as middleman:
        middleman.to_delegate = middleman.to_terminal = watch
        credential = delegation.enrol(
            f"watched-{algorithm.lower()}", "--address", middleman.address, "--algorithm", algorithm
        )
        visit = delegation.visit(server(delegation, "nginx"), credential=credential)
    passed = b"".join(shown)
    assert len(passed) > 600
    assert NAME.encode() not in passed
    assert visit.session.peer_certificates[0][100:200] not in passed


# --- the secure path (A4) ---------------------------------------------------------------------------------


def secure_credential(delegation: Delegation, name: str, port: int) -> Path:
    """The credential of a terminal that takes its path to this port for secure."""
    return delegation.enrol(name, "--address", f"coap://{LOOPBACK}:{port}", "--secure-path")


@EVERY_SERVER
@VERSIONS
def test_messages_are_plain_where_both_sides_take_the_path_for_secure(
    delegation: Delegation, secure_path: int, kind: str, version: ProtocolVersion
) -> None:
    credential = secure_credential(delegation, "on-a-wire", secure_path)
    visit = delegation.visit(server(delegation, kind), credential=credential, versions=(version,))
    assert visit.session.version is version
    assert visit.steps[0].operation is StepName.SECURE_PATH
    assert StepName.CHANNEL_KEY not in {step.operation for step in visit.steps}


def test_only_the_terminal_taking_the_path_for_secure_is_not_enough(delegation: Delegation) -> None:
    credential = secure_credential(delegation, "too-trusting", delegation.node.port)
    with pytest.raises(OperationError):
        delegation.visit(server(delegation, "nginx"), credential=credential, timeout=10.0)


def test_only_the_delegate_taking_the_path_for_secure_is_not_enough(
    delegation: Delegation, secure_path: int
) -> None:
    credential = delegation.enrol("careful", "--address", f"coap://{LOOPBACK}:{secure_path}")
    with pytest.raises(OperationError):
        delegation.visit(server(delegation, "nginx"), credential=credential, timeout=10.0)


# --- who derives the keys (A7) ----------------------------------------------------------------------------


def steps_of(visit: Visit) -> set[StepName]:
    return {step.operation for step in visit.steps}


@EVERY_SERVER
@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
@pytest.mark.parametrize("chooser", ["delegate", "terminal"])
def test_the_delegate_derives_the_record_keys(
    delegation: Delegation, deriving: Delegation, kind: str, exchange: KeyExchange, chooser: str
) -> None:
    chosen = deriving if chooser == "delegate" else delegation
    options: dict[str, Any] = {} if chooser == "delegate" else {"key_forms": (KeyForm.KEYS,)}
    visit = chosen.visit(server(chosen, kind), cipher_suites=(EXCHANGES[exchange],), **options)
    assert visit.session.cipher_suite is CIPHER_SUITES[EXCHANGES[exchange]]
    assert StepName.TAKE_KEY in steps_of(visit)
    assert StepName.DERIVE_KEY not in steps_of(visit)
    # Who never has the master secret cannot resume with it.
    assert visit.tickets == ()


@EVERY_SERVER
@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
def test_the_terminal_derives_the_record_keys(delegation: Delegation, kind: str, exchange: KeyExchange) -> None:
    visit = delegation.visit(
        server(delegation, kind), cipher_suites=(EXCHANGES[exchange],), key_forms=(KeyForm.SECRET,)
    )
    assert visit.session.cipher_suite is CIPHER_SUITES[EXCHANGES[exchange]]
    assert StepName.DERIVE_KEY in steps_of(visit)
    assert StepName.TAKE_KEY not in steps_of(visit)
    assert len(visit.tickets) == 1


def test_without_a_common_form_there_is_no_session(deriving: Delegation) -> None:
    with pytest.raises(OperationError, match=re.compile("key form", re.IGNORECASE)):
        deriving.visit(server(deriving, "nginx"), versions=(TLS12,), key_forms=(KeyForm.SECRET,))


@EVERY_SERVER
def test_in_tls_13_the_terminal_derives_the_keys_whatever_the_form(deriving: Delegation, kind: str) -> None:
    visit = deriving.visit(server(deriving, kind), versions=(TLS13,))
    assert StepName.DERIVE_KEY in steps_of(visit)
    ticket = visit.tickets[-1]
    assert deriving.visit(server(deriving, kind), versions=(TLS13,), ticket=ticket).session.resumed
