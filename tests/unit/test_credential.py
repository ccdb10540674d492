"""The credential file: read back as it was written, and refused with the field's name when it is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from locum.errors import ConfigurationError
from locum.files import FileThere
from locum.link.oscore import Credential
from locum.names import DelegateAddress
from locum.terminal.credential import (
    DelegateCredential,
    TerminalCredential,
    load_credential,
    parse_credential,
    render_credential,
    save_credential,
)

CHANNEL = Credential(
    kid=b"\x00\x01", peer_id=b"\x00", secret=b"0123456789abcdef", salt=b"saltsalt", algorithm="AES-CCM-16-64-128"
)
CHACHA = Credential(
    kid=b"\x00\x02", peer_id=b"\x00", secret=bytes(range(32)), salt=b"", algorithm="ChaCha20-Poly1305"
)
FULL = TerminalCredential(
    name="meter-7",
    delegates=(
        DelegateCredential(address=DelegateAddress.parse("coap://127.0.0.1:5683"), channel=CHANNEL),
        DelegateCredential(address=DelegateAddress.parse("coap+tcp://[::1]:99"), channel=CHACHA),
        DelegateCredential(address=DelegateAddress.parse("coap://127.0.0.1:5684"), secure_path=True),
    ),
)
TEXT = """
name = "meter-7"
[[delegates]]
address = "coap://127.0.0.1:5683"
kid = "0001"
delegate_id = "00"
key = "MDEyMzQ1Njc4OWFiY2RlZg=="
salt = "c2FsdHNhbHQ="
algorithm = "AES-CCM-16-64-128"
secure_path = false
"""


def test_a_credential_is_read_back_as_it_was_written() -> None:
    assert parse_credential(render_credential(FULL)) == FULL


def test_the_documented_form_is_read() -> None:
    assert parse_credential(TEXT.encode()) == TerminalCredential(name="meter-7", delegates=FULL.delegates[:1])


def test_a_credential_file_is_written_for_its_owner_and_not_over_another(tmp_path: Path) -> None:
    path = tmp_path / "meter.credential"
    save_credential(path, FULL)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_credential(path) == FULL
    with pytest.raises(FileThere):
        save_credential(path, FULL)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_credential(path)


def test_a_key_stays_out_of_repr() -> None:
    assert "0123456789abcdef" not in repr(FULL)
    assert "MDEyMzQ1" not in repr(FULL)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "meter-7"', "", "name is missing"),
        ('name = "meter-7"', "name = 7", "name is not a string"),
        ('name = "meter-7"', 'name = "a b"', "terminal's name"),
        ("[[delegates]]", "[delegates]", "delegates"),
        ("[[delegates]]", "", "'address' is not known"),
        ('"coap://127.0.0.1:5683"', '"http://127.0.0.1"', "delegates 1: .*coap://HOST:PORT"),
        ('kid = "0001"', "", "delegates 1: kid is missing"),
        ('kid = "0001"', 'kid = "xx"', "delegates 1: kid is not hexadecimal"),
        ('kid = "0001"', 'kid = "00"', "delegates 1: .*different"),
        ('kid = "0001"', 'kid = "0001020304050607"', "delegates 1: .*at most 7 bytes"),
        ('key = "', 'key = "!', "delegates 1: key is not base64"),
        ("MDEyMzQ1Njc4OWFiY2RlZg==", "MDEy", "delegates 1: key has 16 bytes for AES-CCM-16-64-128, not 3"),
        ('salt = "', 'salt = "' + "AAAA" * 30, "delegates 1: salt"),
        ("AES-CCM-16-64-128", "DES", "delegates 1: algorithm is one of AES-CCM-16-64-128, ChaCha20-Poly1305"),
        ("AES-CCM-16-64-128", "ChaCha20-Poly1305", "delegates 1: key has 32 bytes"),
        ("secure_path = false", 'secure_path = "no"', "delegates 1: secure_path is true or false"),
        ("secure_path = false", "port = 1", "delegates 1: 'port' is not known"),
        ("secure_path = false", "secure_path = ", "not TOML"),
    ],
)
def test_a_fault_is_named_and_no_key_is_shown(old: str, new: str, message: str) -> None:
    assert TEXT.count(old) == 1
    with pytest.raises(ConfigurationError, match=message) as caught:
        parse_credential(TEXT.replace(old, new).encode())
    assert "MDEyMzQ1" not in str(caught.value)


def test_a_fault_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "meter.credential"
    path.write_text("name = 1")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match=f"^{path}: "):
        load_credential(path)


@pytest.mark.parametrize(
    "data", [b"\xff", b"a = " + b"9" * 5000, b"a = " + b"[" * 5000, b"name = 'a'\ndelegates = []"]
)
def test_hostile_text_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigurationError):
        parse_credential(data)


def test_without_a_key_only_a_secure_path_can_be_used() -> None:
    address = DelegateAddress.parse("coap://a")
    assert DelegateCredential(address=address, secure_path=True).sequence is None
    with pytest.raises(ConfigurationError, match="key is needed"):
        DelegateCredential(address=address)


def test_a_delegate_is_not_named_twice_and_not_seventeen_times() -> None:
    one = FULL.delegates[0]
    with pytest.raises(ConfigurationError, match="twice"):
        TerminalCredential(name="a", delegates=(one, one))
    many = tuple(
        DelegateCredential(address=DelegateAddress.parse(f"coap://a:{port}"), channel=CHANNEL)
        for port in range(1, 18)
    )
    for delegates in ((), many):
        with pytest.raises(ConfigurationError, match="1 to 16"):
            TerminalCredential(name="a", delegates=delegates)


def test_reading_a_credential_loads_no_database_and_no_public_key_code() -> None:
    code = """
import sys
import locum.terminal.credential
for name in ("sqlalchemy", "cryptography.x509", "cryptography.hazmat.primitives.asymmetric", "pydantic"):
    assert name not in sys.modules, name
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
