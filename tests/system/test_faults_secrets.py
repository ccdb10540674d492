"""No secret leaves through a log, an error, the audit log or the database, whatever goes wrong (A4, A5)."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import logging
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.support.delegate_client import DelegateClient
from tests.support.delegation import TLS12, Delegation, started
from tests.support.node import LOCUM
from tests.support.peers import Issued, ServerOptions
from tests.support.terminal_peer import LOOPBACK
from tests.support.terminal_system import NAME, REQUEST

from locum.authority.remote import RemoteSession
from locum.errors import LocumError
from locum.handshake import Response
from locum.link import oscore
from locum.terminal import load_credential
from locum.tls import schedule
from locum.tls.operations import KeyForm
from locum.tls.registry import NamedGroup

pytestmark = pytest.mark.xdist_group("faults-secrets")

SECONDS = 60
#: Fewer bytes than this say nothing when they are found.
SHORTEST = 12
#: Functions of the key schedule whose results are secrets.
DERIVATIONS = (
    "handshake_secret",
    "handshake_traffic_secrets",
    "master_secret",
    "application_traffic_secrets",
    "derive_secret",
    "traffic_keys",
    "resumption_psk",
    "binder_key",
    "master_secret12",
    "key_block12",
)


class Secrets:
    """Every secret that this process has come across, with a name for the failure message."""

    def __init__(self) -> None:
        self.known: dict[bytes, str] = {}

    def add(self, name: str, value: Any) -> None:
        if isinstance(value, tuple):
            for each in value:
                self.add(name, each)
        elif isinstance(value, bytes) and len(value) >= SHORTEST and any(value):
            self.known[value] = name

    def found_in(self, data: bytes) -> set[str]:
        """The names of those that `data` shows, raw or in any usual writing."""
        return {name for value, name in self.known.items() if any(form in data for form in written(value))}


def written(value: bytes) -> Iterator[bytes]:
    """`value` as it is, in hexadecimal, in base64 wherever it begins in there, and as Python and C show bytes."""
    yield value
    for separator in ("", ":", " "):
        yield value.hex(separator).encode() if separator else value.hex().encode()
        yield (value.hex(separator) if separator else value.hex()).upper().encode()
    for shift in range(3):
        # The first and last characters depend on what stands beside it.
        code = base64.b64encode(bytes(shift) + value)[(0, 2, 3)[shift] :].rstrip(b"=")[:-2]
        yield code
        yield code.replace(b"+", b"-").replace(b"/", b"_")
    yield repr(value)[2:-1].encode()
    yield json.dumps(value.decode("latin-1"))[1:-1].encode()
    yield "".join(f"\\x{octet:02x}" for octet in value).encode()
    yield ", ".join(map(str, value)).encode()


def private_parts(name: str, issued: Issued) -> Iterator[tuple[str, bytes]]:
    """The numbers that make a private key, and its encodings."""
    key = issued.private_key
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        with contextlib.suppress(ValueError):
            yield name, key.private_bytes(Encoding.DER, form, NoEncryption())
            yield name, key.private_bytes(Encoding.PEM, form, NoEncryption())
    if hasattr(key, "private_bytes_raw"):
        yield name, key.private_bytes_raw()
        return
    numbers = key.private_numbers()
    for field in ("private_value", "d", "p", "q", "dmp1", "dmq1", "iqmp"):
        if hasattr(numbers, field):
            value = getattr(numbers, field)
            yield f"{field} of {name}", value.to_bytes((value.bit_length() + 7) // 8, "big")


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Secrets:
    """Collects what the terminal in this process derives and receives."""
    secrets = Secrets()

    def watch(module: Any, function: str) -> None:
        original: Callable[..., Any] = getattr(module, function)

        def watched(*arguments: Any, **options: Any) -> Any:
            result = original(*arguments, **options)
            secrets.add(function, result)
            return result

        monkeypatch.setattr(module, function, watched)

    for function in DERIVATIONS:
        watch(schedule, function)
    watch(oscore, "hkdf_expand")
    decode = RemoteSession.decode

    def watched_decode(self: RemoteSession, payload: bytes, code: int) -> Any:
        answer = decode(self, payload, code)
        for response in answer if isinstance(answer, tuple) else ():
            for field in dataclasses.fields(response):
                if not field.repr:
                    secrets.add(f"{type(response).__name__}.{field.name}", getattr(response, field.name))
        return answer

    monkeypatch.setattr(RemoteSession, "decode", watched_decode)
    return secrets


@pytest.fixture(params=["text", "json"])
def delegation(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Delegation]:
    config = f'[log]\nlevel = "debug"\nformat = "{request.param}"\n'
    with started(Delegation(tmp_path, config=config)) as running:
        yield running


def test_what_a_secret_would_look_like_is_recognised() -> None:
    secrets = Secrets()
    value = bytes(range(200, 232))
    secrets.add("it", value)
    for text in (
        b"x" + value + b"y",
        f"key={value.hex()}".encode(),
        f"key={value.hex(':').upper()}".encode(),
        f"key={value!r}".encode(),
        base64.b64encode(b"1" + value + b"23"),
        base64.b64encode(b"12" + value),
        base64.urlsafe_b64encode(value),
        str(list(value)).encode(),
        json.dumps({"key": value.decode("latin-1")}).encode(),
    ):
        assert secrets.found_in(text) == {"it"}, text
    assert not secrets.found_in(value[:-1] + value[1:])


def test_every_response_hides_what_is_secret_in_it() -> None:
    hidden = {
        f"{kind.__name__}.{field.name}"
        for kind in Response.__subclasses__()
        for field in dataclasses.fields(kind)
        if not field.repr
    }
    assert {"HandshakeSecretsResponse.client_secret", "MasterSecretResponse.secret"} <= hidden
    assert {"KeyBlockResponse.key_block", "SharedSecretResponse.secret"} <= hidden


def do_everything(delegation: Delegation, credential: Path, printed: list[bytes]) -> None:
    """Handshakes of every kind, and everything that can go wrong in one; what is printed is kept."""
    certificates = (delegation.certificate("p256"), delegation.certificate("rsa2048"))
    plain = delegation.server("nginx", ServerOptions(certificates=certificates))
    demanding = delegation.server(
        "nginx", ServerOptions(certificates=certificates, client_ca=delegation.authority.path)
    )
    other = delegation.authority.issue("other", names=("other.example",))
    stranger = delegation.server("nginx", ServerOptions(certificates=(other,)))
    for options in (
        {},
        {"groups": (NamedGroup.SECP384R1,)},
        {"versions": (TLS12,), "key_forms": (KeyForm.SECRET,)},
        {"versions": (TLS12,), "key_forms": (KeyForm.KEYS,)},
    ):
        for server in (plain, demanding):
            visit = delegation.visit(server, credential=credential, **options)
        if visit.tickets:
            printed.append(repr(visit.tickets).encode())
            ticket = delegation.visit(plain, credential=credential, **options).tickets[-1]
            assert delegation.visit(plain, credential=credential, ticket=ticket, **options).session.resumed
        with pytest.raises(LocumError) as raised:
            delegation.visit(stranger, credential=credential, **options)
        printed.append(repr(raised.value).encode())
    for words in ([], ["--tls", "1.2"], ["--server-name", "wrong.example"]):
        done = subprocess.run(
            [LOCUM, "terminal", "tls", f"{NAME}:{plain.port}", "--credential", credential, "--verbose", *words],
            input=REQUEST,
            capture_output=True,
            timeout=SECONDS,
        )
        printed.append(done.stderr + done.stdout)
    with DelegateClient(credential) as client:
        for payload in (b"", b"\xff" * 40, b"\x80", b"\x82\x48" + bytes(8), b"\x81\xa1\x00\x63abc"):
            client.post(payload)
    with socket.create_connection((LOOPBACK, delegation.node.port), timeout=SECONDS) as stranger_to_coap:
        stranger_to_coap.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        with contextlib.suppress(ConnectionError):
            while stranger_to_coap.recv(4096):
                pass


def collected(delegation: Delegation) -> dict[str, bytes]:
    """Everything that the node wrote anywhere, by where it was found; the node has been stopped."""
    data = delegation.node.data
    found = {path.name: path.read_bytes() for path in data.iterdir() if path.is_file() and path.name != "node.key"}
    with contextlib.closing(sqlite3.connect(data / "locum.db")) as database:
        # What a page of the file holds in two pieces is whole in here.
        found["the database's content"] = "\n".join(database.iterdump()).encode()
    found["its log"] = delegation.node.logged().encode()
    found["the audit log"] = delegation.node.locum("audit", "list", "--json", "--limit", "1000").stdout.encode()
    for words in (("terminals", "list"), ("identity", "list"), ("trust", "list"), ("policy", "list")):
        found[" ".join(words)] = delegation.node.locum(*words, "--json").stdout.encode()
    return found


def test_no_secret_is_in_a_log_an_error_the_audit_log_or_the_database(
    delegation: Delegation, secrets: Secrets, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    credential = delegation.enrol("meter-7")
    identity = delegation.authority.issue("meter-7", kind="rsa2048", usage="client", names=("meter-7.example",))
    delegation.locum("identity", "add", "meter-7", "--cert", identity.chain, "--key", identity.key)
    delegation.node.stop()
    delegation.node.start()
    channel = load_credential(credential).delegates[0].channel
    assert channel is not None
    node_key = (delegation.node.data / "node.key").read_bytes()
    secrets.add("channel key", channel.secret)
    secrets.add("node key", node_key)
    for name, part in private_parts("client key", identity):
        secrets.add(name, part)

    printed: list[bytes] = []
    do_everything(delegation, credential, printed)
    time.sleep(1.0)
    delegation.node.stop()

    assert secrets.found_in(credential.read_bytes()) == {"channel key"}, "secrets are found where they are"
    assert len(secrets.known) > 100
    assert {"HandshakeSecretsResponse.client_secret", "KeyBlockResponse.key_block"} <= set(secrets.known.values())
    captured = capfd.readouterr()
    places = {
        **collected(delegation),
        "what the commands printed": b"\n".join(printed),
        "what this process printed": (captured.out + captured.err).encode(),
        "what this process logged": caplog.text.encode(),
    }
    assert b"debug" in places["its log"], "the log has everything"
    assert b"key handed over" in places["the audit log"]
    shown = {place: names for place, data in places.items() if (names := secrets.found_in(data))}
    assert shown == {}
