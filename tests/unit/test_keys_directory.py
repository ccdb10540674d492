"""`KeyDirectory`: which files have keys, that nobody else may read them, and what changes."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tests.support import pki

from locum.errors import ConfigurationError
from locum.keys.directory import MAX_FILE, KeyDirectory

SCHEME = "ECDSA_SECP256R1_SHA256"


def put(directory: Path, name: str, slot: str, *, before: bytes = b"") -> Path:
    """Write a file with the key of this slot as a careful person does: whole, and then into its place."""
    pem = pki.key("p256", slot).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path, fresh = directory / name, directory / f"{name}.new"
    fresh.write_bytes(before + pem)
    fresh.chmod(0o600)
    fresh.rename(path)
    return path


def public(slot: str) -> bytes:
    key = pki.key("p256", slot).public_key()
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def test_keys_are_named_by_their_files(tmp_path: Path) -> None:
    put(tmp_path, "web.key", "web")
    put(tmp_path, "mail.pem", "mail", before=pki.leaf(pki.ca()).chain_pem)
    directory = KeyDirectory(tmp_path)
    assert {name: key.public_key for name, key in directory.keys.items()} == {
        "web": public("web"),
        "mail": public("mail"),
    }
    assert directory.keys["web"].sign(SCHEME, b"x")
    assert directory.problems == ()


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_bytes(pki.leaf(pki.ca()).chain_pem)
    (tmp_path / "readme.txt").write_text("-----BEGIN PRIVATE KEY-----")
    (tmp_path / "old.key.bak").write_text("rubbish")
    (tmp_path / "directory.key").mkdir()
    (tmp_path / "gone.key").symlink_to(tmp_path / "nowhere")
    assert KeyDirectory(tmp_path).keys == {}


@pytest.mark.parametrize(
    ("name", "content", "mode", "why"),
    [
        ("a.key", b"rubbish", 0o600, "a.key: not a private key"),
        ("a.key", b"", 0o600, "a.key: not a private key"),
        ("a.key", pki.leaf(pki.ca()).chain_pem, 0o600, "a.key: not a private key"),
        ("a.key", pki.leaf(pki.ca()).key_pem, 0o640, "chmod 600"),
        ("a.pem", pki.leaf(pki.ca()).key_pem, 0o604, "chmod 600"),
        ("a.key", bytes(MAX_FILE + 1), 0o600, "larger than"),
    ],
    ids=["rubbish", "empty", "no key", "open to its group", "open to everybody", "too large"],
)
def test_file_that_is_not_in_order_is_a_configuration_error(
    tmp_path: Path, name: str, content: bytes, mode: int, why: str
) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / name).chmod(mode)
    with pytest.raises(ConfigurationError, match=why) as error:
        KeyDirectory(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_two_keys_of_one_name_are_a_configuration_error(tmp_path: Path) -> None:
    put(tmp_path, "a.key", "one")
    put(tmp_path, "a.pem", "two")
    with pytest.raises(ConfigurationError, match=r"a\.pem: there is another key of this name"):
        KeyDirectory(tmp_path)


def test_directory_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        KeyDirectory(tmp_path / "nowhere")


def test_nothing_changes_when_nothing_is_changed(tmp_path: Path) -> None:
    put(tmp_path, "a.key", "one")
    directory = KeyDirectory(tmp_path)
    key = directory.keys["a"]
    assert not directory.refresh()
    assert directory.keys["a"] is key


def test_keys_come_change_and_go(tmp_path: Path) -> None:
    put(tmp_path, "a.key", "one")
    directory = KeyDirectory(tmp_path)
    kept = directory.keys["a"]
    put(tmp_path, "b.key", "two")
    assert directory.refresh()
    assert directory.keys.keys() == {"a", "b"}
    assert directory.keys["a"] is kept
    put(tmp_path, "b.key", "three")
    assert directory.refresh()
    assert directory.keys["b"].public_key == public("three")
    (tmp_path / "a.key").unlink()
    assert directory.refresh()
    assert directory.keys.keys() == {"b"}


def test_slip_takes_no_key_away(tmp_path: Path) -> None:
    path = put(tmp_path, "a.key", "one")
    directory = KeyDirectory(tmp_path)
    path.write_bytes(b"rubbish")
    assert not directory.refresh()
    assert directory.keys["a"].public_key == public("one")
    assert len(directory.problems) == 1
    put(tmp_path, "a.key", "two")
    assert directory.refresh()
    assert directory.keys["a"].public_key == public("two")
    assert directory.problems == ()


def test_key_opened_to_others_is_a_problem_until_it_is_closed_again(tmp_path: Path) -> None:
    path = put(tmp_path, "a.key", "one")
    directory = KeyDirectory(tmp_path)
    path.chmod(0o644)
    assert not directory.refresh()
    assert "chmod 600" in directory.problems[0]
    path.chmod(0o600)
    directory.refresh()
    assert directory.problems == ()


def test_directory_that_goes_away_leaves_its_keys(tmp_path: Path) -> None:
    place = tmp_path / "keys"
    place.mkdir()
    put(place, "a.key", "one")
    directory = KeyDirectory(place)
    place.rename(tmp_path / "moved")
    with pytest.raises(ConfigurationError):
        directory.refresh()
    assert directory.keys.keys() == {"a"}
