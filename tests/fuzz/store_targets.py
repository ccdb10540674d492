"""Fuzz targets: what reads credential files, their state, configurations, patterns, addresses, secrets and PEM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.key_pairs import key_pair

from locum.cli import secret
from locum.cli.pem import parse_blocks
from locum.crypto.asymmetric.key_names import DIGEST_LENGTH, SKI_LENGTH, names_of
from locum.errors import LocumError
from locum.link.oscore import Credential
from locum.names import DelegateAddress, HostPort
from locum.node import config
from locum.patterns import normalize_identity, parse_pattern
from locum.store.engine import database_url
from locum.store.sealing import NodeKey, Sealer
from locum.terminal.credential import (
    DelegateCredential,
    TerminalCredential,
    parse_credential,
    render_credential,
)
from locum.terminal.sequence import channel_name, parse_state, render_state

_SEALER = Sealer(NodeKey(bytes(32), "fuzz"))
_PLACE = {"table": "t", "row": "r", "column": "c"}


def _guarded(call: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        try:
            call(data)
        except LocumError as error:
            assert "\n" not in str(error), "an error is one line"

    return target


def _credential(data: bytes) -> None:
    credential = parse_credential(data)
    assert parse_credential(render_credential(credential)) == credential


def _state(data: bytes) -> None:
    entries = parse_state(data, b"1:2")
    assert parse_state(render_state(entries, b"1:2"), b"1:2") == entries


def _configuration(data: bytes) -> None:
    config.parse(data)


def _pattern(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    first, _, rest = text.partition("\n")
    pattern = parse_pattern(first)
    assert parse_pattern(str(pattern)) == pattern
    identity, _, address = rest.partition("\n")
    assert pattern.matches(identity, address) or str(pattern) != "*"


def _identity(data: bytes) -> None:
    identity = normalize_identity(data.decode("utf-8", "surrogateescape"))
    assert normalize_identity(identity) == identity
    assert parse_pattern(identity).matches(identity)


def _host_port(data: bytes) -> None:
    parsed = HostPort.parse(data.decode("utf-8", "surrogateescape"))
    assert HostPort.parse(str(parsed)) == parsed


def _delegate_address(data: bytes) -> None:
    address = DelegateAddress.parse(data.decode("utf-8", "surrogateescape"))
    assert DelegateAddress.parse(str(address)) == address


def _database_url(data: bytes) -> None:
    database_url(data.decode("utf-8", "surrogateescape"))


def _pem(data: bytes) -> None:
    for block in parse_blocks(data, Path("file.pem")):
        assert block.data.rstrip(b"\n") in data


def _secret(data: bytes) -> None:
    secret._decoded(data[1:], in_hex=data[:1] == b"h", in_base64=data[:1] == b"b")


def _key_names(data: bytes) -> None:
    names = names_of(data)
    assert (len(names.ski), len(names.digest)) == (SKI_LENGTH, DIGEST_LENGTH)


def _sealed(data: bytes) -> None:
    _SEALER.open(data, **_PLACE)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "credential": _guarded(_credential),
    "sequence_state": _guarded(_state),
    "configuration": _guarded(_configuration),
    "pattern": _guarded(_pattern),
    "identity": _guarded(_identity),
    "host_port": _guarded(_host_port),
    "delegate_address": _guarded(_delegate_address),
    "database_url": _guarded(_database_url),
    "pem": _guarded(_pem),
    "secret": _guarded(_secret),
    "sealed_secret": _guarded(_sealed),
    "key_names": _guarded(_key_names),
}

_CREDENTIAL = TerminalCredential(
    name="meter",
    delegates=(
        DelegateCredential(
            address=DelegateAddress.parse("coap://127.0.0.1:5683"),
            channel=Credential(kid=b"\x00\x01", peer_id=b"\x00", secret=bytes(16), salt=b"salt"),
        ),
        DelegateCredential(address=DelegateAddress.parse("coap+tcp://[::1]:5684"), secure_path=True),
    ),
)

SEEDS: dict[str, tuple[bytes, ...]] = {
    "credential": (render_credential(_CREDENTIAL),),
    "sequence_state": (render_state({channel_name(b"a"): (b"12345678", 64)}, b"1:2"),),
    "configuration": (
        b'[delegate]\nlisten = "[::1]:5683"\naddresses = ["coap://a"]\nsession_lifetime = 5\n',
        b'[tls]\nversions = ["1.3"]\ngroups = ["x25519"]\n[log]\nlevel = "info"\n',
    ),
    "pattern": (
        b"dns:*.example.com\ndns:a.example.com\n192.0.2.1",
        b"ip:192.0.2.0/24\n\n::ffff:192.0.2.1",
        b"pin:a",
        b"*",
        b"email:*@example.com\nemail:alice@example.com",
        b"dn:CN=a\\, b+UID=c,2.5.4.10=X\\C3\\A9\ndn:UID=c+CN=a\\,  B,O=x\xc3\xa9",
        b"keyid:00ff\nkeyid:00FF",
    ),
    "identity": (b"peer.example", b"192.0.2.1", b"alice@example.com", b"dn:CN=a,O=#0c0141", b"keyid:00ff"),
    "host_port": (b"127.0.0.1:5683", b"[2001:db8::1]:443", b"a.example:1"),
    "delegate_address": (b"coap://127.0.0.1:5683", b"coap+tcp://[::1]"),
    "database_url": (b"postgresql://u:p@h/d?host=/tmp", b"sqlite:////tmp/x.db", b"/data"),
    "pem": (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",),
    "secret": (b"t correct horse\n", b"h00 ff\n0a", b"bAAECAw==\r\n"),
    "key_names": tuple(key_pair(kind).public_key for kind in ("rsa2048", "p256", "ed25519", "ml-dsa-44")),
    "sealed_secret": (_SEALER.seal(b"secret", **_PLACE),),
}
