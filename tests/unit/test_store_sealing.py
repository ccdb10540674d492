"""Secrets at rest: sealed under the node key, in their own place, and the node key itself."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.stores import ACTOR, NODE_KEY, Raw, enroll

from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import ConfigurationError, LocumError
from locum.store import NodeKey, Store, load_node_key, open_node_store
from locum.store.sealing import Sealer

pytest_plugins = ["tests.support.store_fixtures"]

PLACE = {"table": "t", "row": "r", "column": "c"}


def identity(store: Store, name: str, key: bytes = b"very private key") -> None:
    store.identities.add(name, chain_pem="c", private_key_pem=key, terminals=["*"], actor=ACTOR)


# --- sealing ----------------------------------------------------------------------------------------------


def test_what_is_sealed_opens_in_its_place_and_looks_different_each_time() -> None:
    sealer = Sealer(NODE_KEY)
    first, second = sealer.seal(b"secret", **PLACE), sealer.seal(b"secret", **PLACE)
    assert first != second
    assert b"secret" not in first
    assert len(first) == len(b"secret") + 29
    assert sealer.open(first, **PLACE) == sealer.open(second, **PLACE) == b"secret"


@pytest.mark.parametrize("part", ["table", "row", "column"])
def test_what_is_sealed_does_not_open_in_another_place(part: str) -> None:
    sealed = Sealer(NODE_KEY).seal(b"secret", **PLACE)
    with pytest.raises(AuthenticationFailed):
        Sealer(NODE_KEY).open(sealed, **(PLACE | {part: "x"}))


def test_places_are_told_apart_where_their_parts_join() -> None:
    sealed = Sealer(NODE_KEY).seal(b"secret", table="ab", row="c", column="")
    with pytest.raises(AuthenticationFailed):
        Sealer(NODE_KEY).open(sealed, table="a", row="bc", column="")


def test_no_bit_of_a_sealed_secret_can_be_changed_and_no_byte_left_out() -> None:
    sealer = Sealer(NODE_KEY)
    sealed = sealer.seal(b"secret", **PLACE)
    for index in range(len(sealed)):
        changed = bytes((*sealed[:index], sealed[index] ^ 1, *sealed[index + 1 :]))
        for damaged in (changed, sealed[:index]):
            with pytest.raises(AuthenticationFailed):
                sealer.open(damaged, **PLACE)


# --- in the database --------------------------------------------------------------------------------------


def test_the_database_file_contains_no_secret_and_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    with Store.open(tmp_path, NODE_KEY) as store:
        enroll(store, secret=b"channel-key-1234")
        identity(store, "id", b"the private key!")
        files = list(tmp_path.iterdir())
        content = b"".join(path.read_bytes() for path in files)
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert b"CREATE TABLE" in content
    assert b"channel-key-1234" not in content
    assert b"the private key!" not in content


def test_another_node_key_is_noticed_when_the_store_is_opened(store: Store, location: str) -> None:
    enroll(store)
    with pytest.raises(ConfigurationError, match="wrong node key: backup is not the key"):
        Store.open(location, NodeKey(bytes(32), "backup"))


def test_an_altered_channel_key_is_noticed(store: Store, raw: Raw) -> None:
    kid = enroll(store).kid
    [(sealed,)] = raw("SELECT sealed_secret FROM cipher_keys")
    raw("UPDATE cipher_keys SET sealed_secret = :sealed", sealed=bytes(sealed)[:-1] + bytes((sealed[-1] ^ 1,)))
    with pytest.raises(ConfigurationError, match="terminal 'meter' was altered"):
        store.terminals.find_channel(kid)


def test_channel_keys_that_changed_places_are_noticed(store: Store, raw: Raw) -> None:
    kids = [enroll(store, name).kid for name in ("a", "b")]
    [first, second] = raw("SELECT terminal_id, sealed_secret FROM cipher_keys ORDER BY terminal_id")
    for terminal, sealed in ((first[0], second[1]), (second[0], first[1])):
        raw("UPDATE cipher_keys SET sealed_secret = :s WHERE terminal_id = :t", s=bytes(sealed), t=terminal)
    for kid in kids:
        with pytest.raises(ConfigurationError, match="altered"):
            store.terminals.find_channel(kid)


def test_a_channel_key_under_another_terminals_name_is_noticed(store: Store, raw: Raw) -> None:
    kid = enroll(store, "meter").kid
    raw("UPDATE terminals SET name = 'gate'")
    with pytest.raises(ConfigurationError, match="altered"):
        store.terminals.find_channel(kid)


def test_private_keys_that_changed_places_are_noticed(store: Store, raw: Raw) -> None:
    identity(store, "a")
    identity(store, "b")
    raw("UPDATE identities SET name = CASE name WHEN 'a' THEN 'c' ELSE 'd' END")
    for call in (store.identities.all, store.snapshot):
        with pytest.raises(ConfigurationError, match="identity 'c' was altered"):
            call()


# --- the node key -----------------------------------------------------------------------------------------


def test_a_node_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    with open_node_store(data, environment={}) as store:
        kid = enroll(store).kid
    key = data / "node.key"
    content = key.read_bytes()
    assert len(content) == 32
    assert (data.stat().st_mode & 0o777, key.stat().st_mode & 0o777) == (0o700, 0o600)
    with open_node_store(data, environment={}) as store:
        assert store.terminals.find_channel(kid) is not None
    assert key.read_bytes() == content
    assert sorted(path.name for path in data.iterdir()) == ["locum.db", "node.key"]


def test_a_lost_node_key_is_not_replaced_by_another(tmp_path: Path) -> None:
    open_node_store(tmp_path, environment={}).close()
    (tmp_path / "node.key").unlink()
    with pytest.raises(ConfigurationError, match="is missing, and the database was sealed with it"):
        open_node_store(tmp_path, environment={})
    assert not (tmp_path / "node.key").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610])
def test_a_node_key_that_others_can_use_is_refused_with_the_fix(tmp_path: Path, mode: int) -> None:
    open_node_store(tmp_path, environment={}).close()
    (tmp_path / "node.key").chmod(mode)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {tmp_path}/node.key$"):
        open_node_store(tmp_path, environment={})


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_node_key_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(bytes(length))
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="node key"):
        open_node_store(tmp_path, environment={})


def test_a_node_key_comes_from_the_environment(tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.write_bytes(NODE_KEY.key)
    other.chmod(0o600)
    value = base64.b64encode(NODE_KEY.key).decode()
    data = tmp_path / "data"
    for environment in ({"LOCUM_NODE_KEY": value}, {"LOCUM_NODE_KEY_FILE": str(other)}):
        with open_node_store(data, environment=environment) as store:
            assert store.audit.newest(1) == []
    assert not (data / "node.key").exists()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"LOCUM_NODE_KEY": "not base64!"}, "not base64"),
        ({"LOCUM_NODE_KEY": "AAAA"}, "has 32 bytes, not 3"),
        ({"LOCUM_NODE_KEY_FILE": "/nonexistent/key"}, "no such file"),
        ({"LOCUM_NODE_KEY": "AAAA", "LOCUM_NODE_KEY_FILE": "x"}, "not both"),
    ],
)
def test_a_useless_node_key_in_the_environment_is_named(
    tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_node_key(tmp_path, create=True, environment=environment)
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_makers_of_a_node_key_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link_after_another(original: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def link(path: Path, target: Path) -> None:
            if not path.exists():
                descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
                os.write(descriptor, bytes(32))
                os.close(descriptor)
            original(path, target)

        return link

    monkeypatch.setattr(Path, "hardlink_to", link_after_another(Path.hardlink_to))
    key = load_node_key(tmp_path, create=True, environment={})
    assert key is not None
    assert key.key == bytes(32)


def test_no_directory_is_made_for_one_who_only_looks(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such directory"):
        open_node_store(tmp_path / "typo", create=False, environment={})
    assert not (tmp_path / "typo").exists()


def test_a_node_key_stays_out_of_repr_and_of_errors() -> None:
    assert repr(bytes(range(32)))[2:-1] not in repr(NODE_KEY)
    with pytest.raises(LocumError) as caught:
        NodeKey(b"too short a secret", "here")
    assert "secret" not in str(caught.value)
