"""How a key server follows its databases, and the keys that are not in them (X3, X6, C7)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.key_pairs import key_pair
from tests.support.key_service import NOW, YEAR, certificate, edge, fingerprint, held
from tests.support.stores import NODE_KEY

from locum.errors import ConfigurationError, Unavailable
from locum.keyless.frames import KeyReference
from locum.keys.file import FileKey
from locum.keyserver.databases import STALE_SECONDS, TOKEN_SECONDS, Databases
from locum.keyserver.elsewhere import DirectoryKeys
from locum.keyserver.grants import Grant
from locum.keyserver.keyring import CertificateNames, HeldKey, Keyring, held_here
from locum.store import Store
from locum.store.edges import Permissions
from locum.store.records import StoredKey

TOKEN = "pkcs11:token=locum;object=key"


class Site:
    """A store with the databases of a key server over it, and a token that may be there or not."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = 0.0
        self.token_is_there = True
        self.databases = Databases(store, open_token=self.open_token, clock=lambda: self.clock)

    def open_token(self, row: StoredKey) -> HeldKey:
        if not self.token_is_there:
            raise Unavailable("no such token")
        return held_here(row.name, FileKey(key_pair("p384").key))

    def add(self, kind: str = "p256", name: str = "main") -> None:
        pair = key_pair(kind)
        self.store.keys.add(name, public_key=pair.public_key, private_key=pair.pkcs8, actor="test")

    def add_token(self) -> None:
        self.store.keys.add("token", public_key=key_pair("p384").public_key, token=TOKEN, actor="test")

    def names(self) -> list[str]:
        return [key.name for key in self.databases.read().keyring.keys]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Store.open(f"sqlite:///{tmp_path}/locum.db", NODE_KEY) as store:
        store.internal.ticket_root(actor="test")
        yield Site(store)


def test_keys_and_edges_of_the_store_are_ready_for_use(site: Site) -> None:
    site.add()
    permissions = Permissions(keys=("*",))
    site.store.edges.enroll(
        "web", fingerprint=fingerprint("web"), not_after=NOW + YEAR, permissions=permissions, actor="test"
    )
    state = site.databases.read()
    key = state.keyring.find(KeyReference(ski=held("p256").ski))
    assert key is not None and key.local is not None
    assert state.edges[fingerprint("web")].name == "web"


def test_only_a_change_is_read_and_keys_that_stay_are_not_made_again(site: Site) -> None:
    site.add()
    (before,) = site.databases.read().keyring.keys
    assert site.databases.poll() is None
    site.add("rsa2048", "other")
    state = site.databases.poll()
    assert state is not None
    assert [key.name for key in state.keyring.keys] == ["main", "other"]
    assert before in state.keyring.keys


def test_a_key_that_is_removed_and_added_again_under_its_name_is_another_one(site: Site) -> None:
    site.add()
    site.databases.read()
    site.store.keys.remove("main", actor="test")
    site.add("rsa2048", "main")
    (key,) = site.databases.read().keyring.keys
    assert key.kind == "rsa2048"


def test_a_store_that_fails_keeps_the_last_state_and_is_out_of_date_after_a_while(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.databases.read()

    def fail() -> int:
        raise Unavailable("the disk is gone")

    with monkeypatch.context() as broken:
        broken.setattr(site.store, "generation", fail)
        assert site.databases.poll() is None
        assert site.databases.poll() is None
        assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1
        assert not site.databases.outdated
        site.clock += STALE_SECONDS + 1
        assert site.databases.outdated
    site.databases.poll()
    assert not site.databases.outdated


def test_a_token_that_is_not_there_is_looked_for_again_and_keeps_no_other_key_out(site: Site) -> None:
    site.add()
    site.add_token()
    site.token_is_there = False
    assert site.names() == ["main"]
    site.token_is_there = True
    assert site.databases.poll() is None
    site.clock += TOKEN_SECONDS
    state = site.databases.poll()
    assert state is not None
    assert [key.name for key in state.keyring.keys] == ["main", "token"]
    site.clock += TOKEN_SECONDS
    assert site.databases.poll() is None


def test_keys_from_elsewhere_come_after_those_of_the_store(site: Site) -> None:
    site.add()
    site.databases.read()
    site.databases.others = (held("rsa2048", "main"), held("p256", "twice"), held("ed25519", "else"))
    state = site.databases.poll()
    assert state is not None
    # One has a name that is there already, and one is a key that is there already.
    assert [(key.name, key.kind) for key in state.keyring.keys] == [("main", "p256"), ("else", "ed25519")]
    assert site.databases.poll() is None


# --- a directory --------------------------------------------------------------------------------------------


def write(path: Path, kind: str, mode: int = 0o600) -> None:
    path.touch()
    path.chmod(mode)
    path.write_bytes(key_pair(kind).pem())


def test_a_directory_is_followed_and_a_fault_in_it_takes_nothing_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "one.key", "p256")
    keys = DirectoryKeys(tmp_path)
    (one,) = keys.keys
    write(tmp_path / "two.key", "p384")
    write(tmp_path / "open.key", "rsa2048", 0o644)
    for _ in range(2):
        keys.refresh()
        assert [key.name for key in keys.keys] == ["one", "two"]
    assert keys.keys[0] is one
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_a_directory_with_a_fault_at_the_start_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "open.key", "p256", 0o644)
    with pytest.raises(ConfigurationError, match="open to other users"):
        DirectoryKeys(tmp_path)


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("www.example.com", "exact"),
        ("WWW.Example.COM.", "exact"),
        ("other.example.com", "wildcard"),
        ("a.b.example.com", None),
        ("example.com", None),
        ("192.0.2.1", "exact"),
        ("", None),
    ],
)
def test_a_certificate_is_found_by_its_names_and_by_a_wildcard_for_one_label(
    asked: str, found: str | None
) -> None:
    key = held("p256")
    names = CertificateNames(
        [
            certificate(key, ["www.example.com", "192.0.2.1"], name="exact"),
            certificate(key, ["*.example.com"], name="wildcard"),
        ]
    )
    certificate_ = names.find(asked)
    assert (certificate_.name if certificate_ else None) == found


def test_of_two_certificates_for_a_name_the_one_that_is_good_longer_counts() -> None:
    key = held("p256")
    both = [
        certificate(key, ["a.test"], name="new", not_after=NOW + 2),
        certificate(key, ["a.test"], name="old", not_after=NOW + 1),
    ]
    found = CertificateNames(both).find("a.test")
    assert found is not None and found.name == "new"


def test_an_edge_sees_no_certificate_whose_key_is_not_there() -> None:
    names = CertificateNames([certificate(held("p384"), ["a.test"])])
    grant = Grant(edge(), Keyring([held("p256")], names), names, legacy_hashes=False)
    assert grant.certificate("a.test") is None
    assert grant.certificate_names() == []
