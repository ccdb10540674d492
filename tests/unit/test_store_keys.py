"""What the key server keeps, on SQLite and on PostgreSQL: keys, certificates, edges, and what it made itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from tests.support.key_pairs import KeyPair, key_pair
from tests.support.stores import ACTOR, NODE_KEY, Raw, finish, start_process

from locum.errors import ConfigurationError
from locum.handshake import MAX_CHAIN
from locum.keyless.queries import MAX_CERTIFICATE_NAMES, MAX_OCSP
from locum.store import (
    Allow,
    Edge,
    EdgeRole,
    LinkAuthority,
    NewCertificate,
    Outcome,
    Permissions,
    ServedCertificate,
    Store,
    StoredKey,
)
from locum.store.edges import KEYS_LIMIT, RATE_LIMIT
from locum.store.keys import PRIVATE_KEY_LIMIT, TOKEN_LIMIT

pytest_plugins = ["tests.support.store_fixtures"]

FINGERPRINT, OTHER_FINGERPRINT = "ab" * 32, "cd" * 32
TOKEN = "pkcs11:token=locum;object=web?module-path=/usr/lib/softhsm/libsofthsm2.so"


def add_key(store: Store, name: str = "web", pair: KeyPair | None = None) -> StoredKey:
    pair = pair or key_pair()
    return store.keys.add(name, public_key=pair.public_key, private_key=pair.pkcs8, actor=ACTOR)


def new_certificate(name: str = "www", **values: object) -> NewCertificate:
    defaults: dict[str, object] = {
        "names": ("www.example", "*.shop.example"),
        "chain": (b"leaf", b"ca"),
        "ski": bytes(20),
        "not_after": 2e9,
    }
    return NewCertificate(name=name, **(defaults | values))  # type: ignore[arg-type]


def enroll(
    store: Store,
    name: str = "edge-1",
    keys: tuple[str, ...] = ("web",),
    *,
    replace: bool = False,
    **values: object,
) -> Edge:
    fingerprint = str(values.pop("fingerprint", FINGERPRINT))
    permissions = Permissions(keys=keys, **values)  # type: ignore[arg-type]
    return store.edges.enroll(
        name, fingerprint=fingerprint, not_after=2e9, permissions=permissions, actor=ACTOR, replace=replace
    )


def audited(store: Store) -> list[tuple[str, str]]:
    entries = store.audit.newest(100)
    assert all((entry.actor, entry.outcome) == (ACTOR, Outcome.OK) for entry in entries)
    return [(entry.action, entry.subject) for entry in entries]


# --- keys -------------------------------------------------------------------------------------------------


def test_a_key_comes_out_as_it_went_in_with_its_names(store: Store) -> None:
    pair = key_pair("rsa2048")
    added = add_key(store, pair=pair)
    assert (added.name, added.kind, added.token) == ("web", "rsa2048", "")
    assert (added.public_key, added.private_key) == (pair.public_key, pair.pkcs8)
    assert (len(added.ski), len(added.digest)) == (20, 64)
    assert store.keys.all() == [added]
    assert audited(store) == [("key.add", "web")]


def test_a_private_key_stays_out_of_repr_and_is_sealed_in_the_database(store: Store, raw: Raw) -> None:
    pair = key_pair()
    added = add_key(store)
    assert repr(pair.pkcs8) not in repr(added)
    assert "private_key" not in repr(added)
    [(sealed,)] = raw("SELECT sealed_private_key FROM private_keys")
    assert pair.pkcs8[-32:] not in bytes(sealed)


def test_a_key_in_a_token_has_its_uri_and_nothing_private(store: Store) -> None:
    pair = key_pair()
    added = store.keys.add("web", public_key=pair.public_key, token=TOKEN, actor=ACTOR)
    assert (added.private_key, added.token) == (None, TOKEN)
    assert store.keys.all() == [added]


def test_a_key_is_either_here_or_in_a_token(store: Store) -> None:
    pair = key_pair()
    with pytest.raises(ValueError, match="either"):
        store.keys.add("web", public_key=pair.public_key, actor=ACTOR)
    with pytest.raises(ValueError, match="either"):
        store.keys.add("web", public_key=pair.public_key, private_key=pair.pkcs8, token=TOKEN, actor=ACTOR)


def test_a_name_and_a_key_are_there_once(store: Store) -> None:
    add_key(store)
    with pytest.raises(ConfigurationError, match="a key is called 'web' already"):
        add_key(store, pair=key_pair(number=1))
    with pytest.raises(ConfigurationError, match="there already, as 'web'"):
        add_key(store, "other")
    assert [key.name for key in store.keys.all()] == ["web"]
    assert audited(store) == [("key.add", "web")]


@pytest.mark.parametrize("name", ["", "*", "a b", "-a", "a" * 65])
def test_a_name_that_needs_quoting_is_refused(store: Store, name: str) -> None:
    with pytest.raises(ConfigurationError, match="key's name"):
        add_key(store, name)


def test_what_is_no_public_key_or_too_large_is_refused(store: Store) -> None:
    pair = key_pair()
    with pytest.raises(ConfigurationError, match="not a public key"):
        store.keys.add("web", public_key=b"\x30\x00", private_key=pair.pkcs8, actor=ACTOR)
    with pytest.raises(ConfigurationError, match="too large"):
        store.keys.add("web", public_key=pair.public_key, private_key=bytes(PRIVATE_KEY_LIMIT + 1), actor=ACTOR)
    with pytest.raises(ConfigurationError, match="URI"):
        store.keys.add("web", public_key=pair.public_key, token="pkcs11:" + "a" * TOKEN_LIMIT, actor=ACTOR)
    assert store.generation() == 1


def test_removing_a_key_takes_it_from_its_edges(store: Store) -> None:
    add_key(store)
    enroll(store, "edge-1", ("other", "web"))
    enroll(store, "edge-2", ("*",), fingerprint=OTHER_FINGERPRINT)
    assert store.keys.remove("web", actor=ACTOR) == ("edge-1",)
    assert store.keys.all() == []
    assert [edge.keys for edge in store.edges.all()] == [("other",), ("*",)]
    # A later key of the same name is another one.
    add_key(store, pair=key_pair(number=1))
    assert store.edges.all()[0].keys == ("other",)
    with pytest.raises(ConfigurationError, match="no key is called 'gone'"):
        store.keys.remove("gone", actor=ACTOR)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE private_keys SET sealed_private_key = :other WHERE name = 'web'",
        "UPDATE private_keys SET name = 'web2' WHERE name = 'web'",
        "UPDATE private_keys SET ski = :other WHERE name = 'web'",
    ],
)
def test_a_key_that_was_altered_behind_our_back_is_noticed(store: Store, raw: Raw, statement: str) -> None:
    add_key(store)
    raw(statement, **({"other": bytes(20)} if ":other" in statement else {}))
    with pytest.raises(ConfigurationError, match="was altered in the database"):
        store.keys.all()
    with pytest.raises(ConfigurationError, match="was altered in the database"):
        store.key_server_snapshot()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE private_keys SET token = 'pkcs11:object=web?module-path=/tmp/evil.so'",
        "UPDATE private_keys SET token = ''",
        "UPDATE private_keys SET name = 'web2'",
    ],
)
def test_another_library_for_a_key_in_a_token_is_noticed(store: Store, raw: Raw, statement: str) -> None:
    store.keys.add("web", public_key=key_pair().public_key, token=TOKEN, actor=ACTOR)
    raw(statement)
    with pytest.raises(ConfigurationError, match="was altered in the database"):
        store.key_server_snapshot()


# --- certificates -----------------------------------------------------------------------------------------


def test_a_certificate_comes_out_as_it_went_in(store: Store) -> None:
    added = store.certificates.add(new_certificate(ocsp=b"good"), actor=ACTOR)
    assert added == ServedCertificate(
        id=added.id,
        name="www",
        names=("www.example", "*.shop.example"),
        chain=(b"leaf", b"ca"),
        ski=bytes(20),
        ocsp=b"good",
        not_after=2e9,
        added=added.added,
    )
    assert store.certificates.all() == [added]


def test_a_certificate_is_replaced_only_when_that_is_wanted(store: Store) -> None:
    store.certificates.add(new_certificate(), actor=ACTOR)
    with pytest.raises(ConfigurationError, match="--replace"):
        store.certificates.add(new_certificate(chain=(b"newer",)), actor=ACTOR)
    store.certificates.add(new_certificate(chain=(b"newer",)), actor=ACTOR, replace=True)
    assert [certificate.chain for certificate in store.certificates.all()] == [(b"newer",)]
    assert audited(store) == [("certificate.add", "www"), ("certificate.replace", "www")]


def test_two_certificates_may_be_for_the_same_host(store: Store) -> None:
    for name in ("www-rsa", "www-ec"):
        store.certificates.add(new_certificate(name), actor=ACTOR)
    assert [certificate.name for certificate in store.certificates.all()] == ["www-ec", "www-rsa"]


def test_a_certificate_gets_another_ocsp_response(store: Store) -> None:
    store.certificates.add(new_certificate(), actor=ACTOR)
    store.certificates.set_ocsp("www", b"newer", actor=ACTOR)
    assert store.certificates.all()[0].ocsp == b"newer"
    with pytest.raises(ConfigurationError, match="exceeds"):
        store.certificates.set_ocsp("www", bytes(MAX_OCSP + 1), actor=ACTOR)
    with pytest.raises(ConfigurationError, match="no certificate is called"):
        store.certificates.set_ocsp("other", b"", actor=ACTOR)


def test_a_removed_certificate_is_gone(store: Store) -> None:
    store.certificates.add(new_certificate(), actor=ACTOR)
    store.certificates.remove("www", actor=ACTOR)
    assert store.certificates.all() == []
    with pytest.raises(ConfigurationError, match="no certificate is called"):
        store.certificates.remove("www", actor=ACTOR)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"names": ()}, "names no host"),
        ({"names": ("a b",)}, "white space"),
        ({"names": ("a\nb",)}, "white space"),
        ({"names": ("",)}, "empty"),
        ({"names": ("a" * (MAX_CERTIFICATE_NAMES + 1),)}, "names exceed"),
        ({"chain": ()}, "1 to 10"),
        ({"chain": (b"a",) * 11}, "1 to 10"),
        ({"chain": (bytes(MAX_CHAIN + 1),)}, "chain exceeds"),
        ({"ocsp": bytes(MAX_OCSP + 1)}, "OCSP response exceeds"),
        ({"name": "no name"}, "certificate's name"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_certificate_that_cannot_be_handed_out_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        new_certificate(**({"name": "www"} | changes))  # type: ignore[arg-type]


# --- edges ------------------------------------------------------------------------------------------------


def test_an_edge_comes_out_as_it_went_in(store: Store) -> None:
    edge = enroll(
        store,
        keys=("web", "mail", "web"),
        allow=Allow.BOTH,
        roles=EdgeRole.CLIENT,
        certificates=True,
        rate=12.5,
    )
    assert edge == Edge(
        id=edge.id,
        name="edge-1",
        fingerprint=FINGERPRINT,
        not_after=2e9,
        allow=Allow.BOTH,
        roles=EdgeRole.CLIENT,
        keys=("mail", "web"),
        certificates=True,
        rate=12.5,
        created=edge.created,
        revoked=None,
    )
    assert store.edges.all() == [edge]
    assert store.edges.get("edge-1") == edge
    assert store.edges.get("edge-2") is None
    assert audited(store) == [("edge.enroll", "edge-1")]


def test_what_is_allowed_says_which_operations_and_roles_that_are() -> None:
    assert [(allow.bound, allow.raw) for allow in Allow] == [(True, False), (False, True), (True, True)]
    assert [(role.server, role.client) for role in EdgeRole] == [(True, False), (False, True), (True, True)]


def test_every_key_is_said_with_a_star(store: Store) -> None:
    assert enroll(store, keys=("web", "*")).keys == ("*",)
    assert store.edges.all()[0].keys == ("*",)


def test_an_edge_is_replaced_only_when_that_is_wanted(store: Store) -> None:
    first = enroll(store)
    with pytest.raises(ConfigurationError, match="--replace"):
        enroll(store, fingerprint=OTHER_FINGERPRINT)
    store.edges.revoke("edge-1", actor=ACTOR)
    second = enroll(store, keys=("*",), fingerprint=OTHER_FINGERPRINT, replace=True)
    assert (second.id, second.fingerprint, second.keys, second.revoked) == (
        first.id,
        OTHER_FINGERPRINT,
        ("*",),
        None,
    )
    assert store.edges.all() == [second]
    assert audited(store) == [("edge.enroll", "edge-1"), ("edge.revoke", "edge-1"), ("edge.replace", "edge-1")]


def test_a_credential_that_cannot_be_delivered_undoes_the_enrolment(store: Store) -> None:
    def fail(edge: Edge) -> None:
        raise ConfigurationError(f"no place for {edge.name}")

    with pytest.raises(ConfigurationError, match="no place for edge-1"):
        store.edges.enroll(
            "edge-1",
            fingerprint=FINGERPRINT,
            not_after=2e9,
            permissions=Permissions(keys=("*",)),
            actor=ACTOR,
            deliver=fail,
        )
    assert store.edges.all() == []
    assert store.generation() == 1


def test_permissions_are_changed_as_a_whole(store: Store) -> None:
    before = enroll(store, keys=("web", "mail"), rate=5.0)
    after = store.edges.permit("edge-1", Permissions(keys=("mail",), allow=Allow.RAW), actor=ACTOR)
    assert (after.keys, after.allow, after.rate) == (("mail",), Allow.RAW, 0.0)
    assert (after.id, after.fingerprint, after.created) == (before.id, before.fingerprint, before.created)
    assert store.edges.all() == [after]
    with pytest.raises(ConfigurationError, match="no edge is called 'other'"):
        store.edges.permit("other", Permissions(keys=()), actor=ACTOR)


def test_a_revoked_edge_stays_and_is_revoked_once(store: Store) -> None:
    enroll(store)
    assert store.edges.revoke("edge-1", actor=ACTOR)
    [edge] = store.edges.all()
    assert edge.revoked is not None
    assert not store.edges.revoke("edge-1", actor=ACTOR)
    assert store.edges.all() == [edge]
    assert audited(store) == [("edge.enroll", "edge-1"), ("edge.revoke", "edge-1")]
    with pytest.raises(ConfigurationError, match="no edge is called 'other'"):
        store.edges.revoke("other", actor=ACTOR)


def test_a_removed_edge_is_forgotten_with_its_permissions(store: Store, raw: Raw) -> None:
    enroll(store)
    store.edges.remove("edge-1", actor=ACTOR)
    assert store.edges.all() == []
    assert raw("SELECT * FROM edge_keys") == []
    with pytest.raises(ConfigurationError, match="no edge is called"):
        store.edges.remove("edge-1", actor=ACTOR)


@pytest.mark.parametrize("rate", [-1.0, RATE_LIMIT * 2, math.nan, math.inf])
def test_a_rate_is_a_number_of_operations_per_second(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="rate"):
        Permissions(keys=(), rate=rate)


def test_keys_are_permitted_by_names_and_not_without_end() -> None:
    with pytest.raises(ConfigurationError, match="key's name"):
        Permissions(keys=("a b",))
    with pytest.raises(ConfigurationError, match="at most"):
        Permissions(keys=tuple(f"key-{number}" for number in range(KEYS_LIMIT + 1)))


# --- what nodes make themselves ---------------------------------------------------------------------------


def test_the_authority_of_the_link_is_made_once(store: Store, location: str) -> None:
    def make() -> LinkAuthority:
        return LinkAuthority(certificate=b"certificate", private_key=b"private")

    def make_none() -> LinkAuthority:
        raise AssertionError("there is one already")

    assert store.key_server_snapshot().ca_certificate == b""
    made = store.internal.link_authority(make, actor=ACTOR)
    assert made == LinkAuthority(certificate=b"certificate", private_key=b"private")
    assert b"private" not in repr(made).encode()
    with Store.open(location, NODE_KEY) as other:
        assert other.internal.link_authority(make_none, actor=ACTOR) == made
        assert other.key_server_snapshot().ca_certificate == b"certificate"
    assert audited(store) == [("link.authority", "made")]


def test_another_certificate_beside_the_authoritys_key_is_noticed(store: Store, raw: Raw) -> None:
    store.internal.link_authority(lambda: LinkAuthority(certificate=b"a", private_key=b"b"), actor=ACTOR)
    raw("UPDATE internal_secrets SET public = :other", other=b"another")
    with pytest.raises(ConfigurationError, match="was altered in the database"):
        store.key_server_snapshot()


def test_processes_that_need_the_secrets_at_once_get_the_same_ones(location: str) -> None:
    Store.open(location, NODE_KEY).close()
    code = """
from locum.store import LinkAuthority
import os
def make():
    return LinkAuthority(certificate=os.urandom(8), private_key=os.urandom(8))
with Store.open(location, NODE_KEY) as store:
    sys.stdin.readline()
    authority = store.internal.link_authority(make, actor=ACTOR)
    print(authority.certificate.hex(), authority.private_key.hex(), store.internal.ticket_root(actor=ACTOR).hex())
"""
    assert len(set(finish([start_process(code, location) for _ in range(3)]))) == 1


def test_an_edge_that_is_cut_off_knows_no_later_ticket_keys(store: Store) -> None:
    assert store.key_server_snapshot().ticket_root == b""
    enroll(store)
    roots = [store.internal.ticket_root(actor=ACTOR)]
    assert len(roots[0]) == 32
    store.edges.permit("edge-1", Permissions(keys=("*",)), actor=ACTOR)
    assert store.internal.ticket_root(actor=ACTOR) == roots[0]
    store.edges.permit("edge-1", Permissions(keys=("web", "mail")), actor=ACTOR)
    roots.append(store.key_server_snapshot().ticket_root)
    store.edges.permit("edge-1", Permissions(keys=("web",)), actor=ACTOR)
    roots.append(store.key_server_snapshot().ticket_root)
    store.edges.permit("edge-1", Permissions(keys=("web",), roles=EdgeRole.CLIENT), actor=ACTOR)
    roots.append(store.key_server_snapshot().ticket_root)
    store.edges.permit("edge-1", Permissions(keys=("mail",)), actor=ACTOR)
    assert store.internal.ticket_root(actor=ACTOR) == roots[-1]
    store.edges.revoke("edge-1", actor=ACTOR)
    roots.append(store.key_server_snapshot().ticket_root)
    enroll(store, fingerprint=OTHER_FINGERPRINT, replace=True)
    roots.append(store.key_server_snapshot().ticket_root)
    store.edges.remove("edge-1", actor=ACTOR)
    roots.append(store.key_server_snapshot().ticket_root)
    assert store.internal.ticket_root(actor=ACTOR) == roots[-1]
    assert len(set(roots)) == len(roots)
    assert {len(root) for root in roots} == {32}


# --- all of it --------------------------------------------------------------------------------------------


def test_a_snapshot_has_everything_of_one_generation(store: Store) -> None:
    key = add_key(store)
    certificate = store.certificates.add(new_certificate(ski=key.ski), actor=ACTOR)
    edge = enroll(store)
    root = store.internal.ticket_root(actor=ACTOR)
    snapshot = store.key_server_snapshot()
    assert snapshot.generation == store.generation() == 5
    assert (snapshot.keys, snapshot.certificates, snapshot.edges) == ((key,), (certificate,), (edge,))
    assert snapshot.ticket_root == root
    assert repr(root) not in repr(snapshot)


def test_every_change_raises_the_generation_and_nothing_else_does(store: Store) -> None:
    changes: list[Callable[[], object]] = [
        lambda: add_key(store),
        lambda: store.certificates.add(new_certificate(), actor=ACTOR),
        lambda: enroll(store),
        lambda: store.edges.permit("edge-1", Permissions(keys=()), actor=ACTOR),
        lambda: store.edges.revoke("edge-1", actor=ACTOR),
        lambda: store.keys.remove("web", actor=ACTOR),
    ]
    for number, change in enumerate(changes, 2):
        change()
        assert store.generation() == number
    store.edges.revoke("edge-1", actor=ACTOR)
    store.key_server_snapshot()
    assert store.generation() == len(changes) + 1
