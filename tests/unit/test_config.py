"""locum.toml: defaults, every setting, and faults in one line that names file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from locum.errors import ConfigurationError
from locum.ike import algorithms
from locum.names import DelegateAddress, HostPort
from locum.node.config import Configuration, load, parse
from locum.tls.operations import KeyForm
from locum.tls.registry import NamedGroup, ProtocolVersion

EVERYTHING = b"""
[node]
database = "postgresql://locum:hunter2@db.example/locum"
[delegate]
listen = "[::]:5683"
secure_path_listen = "127.0.0.1:5684"
addresses = ["coap://delegate.example", "coap+tcp://192.0.2.1:7"]
session_lifetime = 30
max_sessions = 5
max_sessions_per_terminal = 2
requests_per_second = 0.5
request_burst = 3
datagram_size = 1024
[keyserver]
listen = "0.0.0.0:2407"
addresses = ["keys.example:2407"]
processes = 3
key_directory = "/etc/locum/keys"
legacy_hashes = true
requests_per_second = 500
max_connections = 10
max_handshakes = 5
handshake_seconds = 1
message_seconds = 2
idle_seconds = 3
drain_seconds = 0
poll_seconds = 0.5
[[keyserver.upstream]]
credential = "/etc/locum/upstream"
policy = "ordered"
[tls]
versions = ["1.3"]
groups = ["X25519MLKEM768", "x25519"]
cipher_suites = ["TLS_CHACHA20_POLY1305_SHA256"]
key_forms = ["keys"]
[ike]
groups = ["ECP384", "mlkem768"]
legacy_sha1 = true
rsa_pss = false
[log]
level = "debug"
format = "json"
"""


def test_a_node_without_a_file_runs_on_the_defaults(tmp_path: Path) -> None:
    configuration = load(tmp_path)
    assert configuration == Configuration() == parse(b"")
    assert configuration.delegate.listen == HostPort("127.0.0.1", 5683)
    assert configuration.delegate.secure_path_listen is None
    assert configuration.delegate.session_lifetime == 60.0
    assert configuration.node.database is None
    assert configuration.keyserver.listen is None


def test_every_setting_is_read(tmp_path: Path) -> None:
    (tmp_path / "locum.toml").write_bytes(EVERYTHING)
    configuration = load(tmp_path)
    delegate, tls = configuration.delegate, configuration.tls
    assert configuration.node.database == "postgresql://locum:hunter2@db.example/locum"
    assert (delegate.listen, delegate.secure_path_listen) == (HostPort("::", 5683), HostPort("127.0.0.1", 5684))
    assert delegate.addresses == (
        DelegateAddress.parse("coap://delegate.example:5683"),
        DelegateAddress.parse("coap+tcp://192.0.2.1:7"),
    )
    assert (delegate.session_lifetime, delegate.max_sessions, delegate.max_sessions_per_terminal) == (30.0, 5, 2)
    assert (delegate.requests_per_second, delegate.request_burst, delegate.datagram_size) == (0.5, 3.0, 1024)
    assert tls.versions == (ProtocolVersion.TLS_1_3,)
    assert tls.groups == (NamedGroup.X25519MLKEM768, NamedGroup.X25519)
    assert (tls.cipher_suites, tls.key_forms) == ((0x1303,), (KeyForm.KEYS,))
    keys = configuration.keyserver
    assert (keys.listen, keys.addresses) == (HostPort("0.0.0.0", 2407), (HostPort("keys.example", 2407),))
    assert (keys.processes, keys.key_directory, keys.legacy_hashes) == (3, Path("/etc/locum/keys"), True)
    assert (keys.requests_per_second, keys.max_connections, keys.max_handshakes) == (500, 10, 5)
    assert (keys.handshake_seconds, keys.message_seconds, keys.idle_seconds) == (1, 2, 3)
    assert (keys.drain_seconds, keys.poll_seconds) == (0, 0.5)
    (upstream,) = keys.upstream
    assert (upstream.credential, upstream.policy) == (Path("/etc/locum/upstream"), "ordered")
    ike = configuration.ike
    assert (ike.groups, ike.legacy_sha1, ike.rsa_pss) == ((algorithms.ECP_384, algorithms.ML_KEM_768), True, False)
    assert (configuration.log.level, configuration.log.format) == ("debug", "json")


def test_a_named_file_goes_before_the_one_in_the_data_directory(tmp_path: Path) -> None:
    (tmp_path / "locum.toml").write_bytes(EVERYTHING)
    other = tmp_path / "other.toml"
    other.write_text("[delegate]\nmax_sessions = 7")
    assert load(tmp_path, other).delegate.max_sessions == 7
    assert load(tmp_path / "nowhere") == Configuration()
    with pytest.raises(ConfigurationError, match="no such file"):
        load(tmp_path, tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[delegates]", "delegates: no such setting"),
        ("[delegate]\nport = 1", "delegate.port: no such setting"),
        ('[delegate]\nlisten = "x"', "delegate.listen: .*port"),
        ("[delegate]\nlisten = 5683", "delegate.listen: "),
        ('[delegate]\naddresses = "coap://a"', "delegate.addresses: "),
        ('[delegate]\naddresses = ["coap://a", "b"]', "delegate.addresses.1: .*coap://HOST:PORT"),
        ('[delegate]\nlisten = "1.1.1.1:1"\nsecure_path_listen = "1.1.1.1:1"', "must differ from listen"),
        ("[delegate]\nsession_lifetime = 0", "delegate.session_lifetime: .*greater than or equal to 1"),
        ("[delegate]\nsession_lifetime = 3601", "delegate.session_lifetime: .*less than or equal to 3600"),
        ("[delegate]\nsession_lifetime = nan", "delegate.session_lifetime: "),
        ('[delegate]\nsession_lifetime = "60"', "delegate.session_lifetime: "),
        ("[delegate]\nsession_lifetime = true", "delegate.session_lifetime: "),
        ("[delegate]\nmax_sessions = 0", "delegate.max_sessions: "),
        ("[delegate]\nmax_sessions = 1.5", "delegate.max_sessions: "),
        ("[delegate]\nmax_sessions_per_terminal = 100001", "delegate.max_sessions_per_terminal: "),
        ("[delegate]\nrequests_per_second = 0", "delegate.requests_per_second: "),
        ("[delegate]\nrequests_per_second = inf", "delegate.requests_per_second: "),
        ("[delegate]\nrequest_burst = 0.5", "delegate.request_burst: "),
        ("[delegate]\ndatagram_size = 127", "delegate.datagram_size: "),
        ("[delegate]\ndatagram_size = 65508", "delegate.datagram_size: "),
        ("[keyserver]\nprocesses = 0", "keyserver.processes: "),
        ('[keyserver]\nlisten = "x"', "keyserver.listen: .*port"),
        ("[[keyserver.upstream]]", "keyserver.upstream.0.credential: "),
        ("[keyserver]\npoll_seconds = 0", "keyserver.poll_seconds: "),
        ('[tls]\nversions = ["1.1"]', r"tls.versions: '1.1' is not one of 1.2, 1.3"),
        ('[tls]\nversions = "1.3"', "tls.versions: a list of TLS versions"),
        ('[tls]\ngroups = ["x25519", "X25519"]', "tls.groups: 'X25519' is there twice"),
        ("[tls]\ngroups = [29]", "tls.groups: '29' is not one of"),
        ('[tls]\ncipher_suites = ["TLS_NULL"]', "tls.cipher_suites: 'TLS_NULL' is not one of"),
        ('[tls]\nkey_forms = ["block"]', "tls.key_forms: 'block' is not one of secret, keys"),
        ('[ike]\ngroups = ["modp1024"]', "ike.groups: 'modp1024' is not one of x25519"),
        ('[ike]\ngroups = ["mlkem768"]', "ike: groups must have one for the first key exchange"),
        ("[ike]\nlegacy_sha1 = 1", "ike.legacy_sha1: "),
        ('[log]\nlevel = "loud"', "log.level: "),
        ("[node]\ndatabase = 5", "node.database: "),
        ("[node", "not TOML: "),
        ("a = " + "9" * 5000, "not TOML"),
        ("a = " + "[" * 5000, "not TOML"),
    ],
)
def test_a_fault_is_one_line_that_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "locum.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=f"^{path}: .*{message}") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_password_is_neither_in_repr_nor_in_errors() -> None:
    assert "hunter2" not in repr(parse(EVERYTHING))
    with pytest.raises(ConfigurationError) as caught:
        parse(b'[node]\ndatabase = ["postgresql://u:hunter2@h/d"]')
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_too_large_or_not_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="larger than"):
        parse(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ConfigurationError, match="not TOML"):
        parse(b"\xff\xfe")
