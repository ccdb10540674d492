"""An edge's credential: read back as it was written, private, and refused with the reason when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support import key_servers

from locum.errors import ConfigurationError, Unavailable
from locum.files import FileThere
from locum.keys.credential import FILE_LIMIT, EdgeCredential
from locum.keys.server_link import client_context
from locum.names import HostPort

TWO = (HostPort("127.0.0.1", 2407), HostPort("::1", 9), HostPort("keys.example.com", 1))
TEXT = """
name = "edge-1"
server_name = "keyserver.test"
servers = ["127.0.0.1", "[::1]:9", "keys.example.com:1"]
"""


def test_a_credential_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = key_servers.credential(tmp_path / "deep" / "edge", TWO)
    read = EdgeCredential.load(tmp_path / "deep" / "edge")
    assert read == written
    assert read.directory == written.directory == tmp_path / "deep" / "edge"


def test_every_file_is_its_owners_alone(tmp_path: Path) -> None:
    key_servers.credential(tmp_path / "edge", TWO)
    assert (tmp_path / "edge").stat().st_mode & 0o777 == 0o700
    files = sorted((tmp_path / "edge").iterdir())
    assert [file.name for file in files] == ["ca.pem", "certificate.pem", "credential.toml", "key.pem"]
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)


def test_another_credential_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    credential = key_servers.credential(tmp_path, TWO)
    with pytest.raises(FileThere):
        credential.write(tmp_path)
    assert credential.write(tmp_path, replace=True) == credential


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    credential = key_servers.credential(tmp_path / "edge", TWO)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable, match="cannot be made"):
        credential.write(tmp_path / "file" / "edge")


def test_the_documented_form_is_read_and_the_port_may_be_missing(tmp_path: Path) -> None:
    key_servers.credential(tmp_path, TWO)
    (tmp_path / "credential.toml").write_text(TEXT)
    assert EdgeCredential.load(tmp_path).servers == TWO


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('name = "edge-1"\n', "", "name is missing"),
        ('"edge-1"', "1", "name is not a string"),
        ('"edge-1"', '"../edge"', "edge's name"),
        ('"keyserver.test"', '"KEYSERVER.test"', "server_name"),
        ('"keyserver.test"', '"no name"', "not a DNS name"),
        ('"127.0.0.1", ', '"127.0.0.1:0", ', "port 0"),
        ('"127.0.0.1", ', '"[::1]:9", ', "twice"),
        ('"127.0.0.1", ', "1, ", "a list of HOST:PORT"),
        ('["127.0.0.1", "[::1]:9", "keys.example.com:1"]', "[]", "1 to 16 key servers"),
        ('"127.0.0.1", ', '"127.0.0.1:x", ', "port"),
        ("name =", "nam =", "'nam' is not known"),
        ("name =", "name", "not TOML"),
        ("name =", "[" * 100_000, "larger than"),
        ("name =", "[" * 10_000, "not TOML"),
    ],
    ids=range(14),
)
def test_a_wrong_credential_is_refused_with_the_reason(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    key_servers.credential(tmp_path, TWO)
    path = tmp_path / "credential.toml"
    assert old in TEXT
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        EdgeCredential.load(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["credential.toml", "certificate.pem", "key.pem", "ca.pem"])
def test_a_missing_or_endless_file_is_named(tmp_path: Path, name: str) -> None:
    key_servers.credential(tmp_path, TWO)
    (tmp_path / name).unlink()
    with pytest.raises(ConfigurationError, match=name):
        EdgeCredential.load(tmp_path)
    (tmp_path / name).write_bytes(b"#" * (FILE_LIMIT + 1))
    (tmp_path / name).chmod(0o600)
    with pytest.raises(ConfigurationError, match="larger than"):
        EdgeCredential.load(tmp_path)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key_servers.credential(tmp_path, TWO)
    (tmp_path / "key.pem").chmod(0o640)
    with pytest.raises(ConfigurationError, match="open to other users"):
        EdgeCredential.load(tmp_path)


def test_neither_key_nor_certificate_is_shown(tmp_path: Path) -> None:
    assert "BEGIN" not in repr(key_servers.credential(tmp_path, TWO))


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("ca.pem", b"nothing", "not a certificate"),
        ("ca.pem", b"\xff", "not a certificate"),
        ("certificate.pem", b"nothing", "do not belong together"),
        ("key.pem", b"nothing", "do not belong together"),
    ],
    ids=["ca", "ca not ASCII", "certificate", "key"],
)
def test_a_credential_that_tls_cannot_use_is_told(tmp_path: Path, name: str, data: bytes, complaint: str) -> None:
    credential = key_servers.credential(tmp_path, TWO)
    client_context(credential)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigurationError, match=complaint):
        client_context(credential)


def test_the_key_of_another_certificate_is_told(tmp_path: Path) -> None:
    credential = key_servers.credential(tmp_path, TWO)
    other = key_servers.credential(tmp_path / "other", TWO, name="edge-2")
    (tmp_path / "key.pem").write_bytes(other.key)
    with pytest.raises(ConfigurationError, match="do not belong together"):
        client_context(credential)
