"""The databases of A5, on SQLite and on PostgreSQL: what goes in comes out, and changes are seen and audited."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError
from tests.support.stores import ACTOR, NODE_KEY, Raw, enroll

from locum.errors import ConfigurationError, LocumError, Refused
from locum.patterns import PATTERN_LIMIT
from locum.store import (
    Action,
    AuditEntry,
    AuthenticationKeyKind,
    NewKey,
    NewSecret,
    Outcome,
    SharedSecretKind,
    Store,
)
from locum.store.secrets import IDENTIFIER_LIMIT, SECRET_LIMIT
from locum.store.terminals import RESERVATION_LIMIT, SEQUENCE_LIMIT

pytest_plugins = ["tests.support.store_fixtures"]


def add_policy(
    store: Store, terminal: str = "*", peer: str = "dns:a.example", action: Action = Action.ALLOW
) -> int:
    return store.policies.add(terminal, peer, action, actor=ACTOR)[0].id


def add_identity(store: Store, name: str = "id", terminals: tuple[str, ...] = ("*",), **options: object) -> None:
    store.identities.add(
        name, chain_pem="chain", private_key_pem=b"very private", terminals=terminals, actor=ACTOR, **options
    )  # type: ignore[arg-type]


def add_secret(
    store: Store, terminal: str = "meter", peer: str = "peer.example", *, replace: bool = False, **values: object
) -> int:
    new = NewSecret(**{"terminal": terminal, "peer": peer, "secret": b"a shared secret!"} | values)  # type: ignore[arg-type]
    return store.secrets.add(new, replace=replace, actor=ACTOR).id


def anchor(der: bytes = b"der", name: str = "CN=Root") -> NewKey:
    return NewKey(kind=AuthenticationKeyKind.ANCHOR, name=name, der=der)


def pin(der: bytes = b"spki", name: str = "server", peer: str = "dns:A.example.") -> NewKey:
    return NewKey(kind=AuthenticationKeyKind.PIN, name=name, der=der, peer=peer)


def entry(number: int, **changes: object) -> AuditEntry:
    values: dict[str, object] = {
        "time": float(number),
        "actor": "a",
        "action": "b",
        "subject": "c",
        "outcome": Outcome.OK,
        "detail": str(number),
    }
    return AuditEntry(**(values | changes))  # type: ignore[arg-type]


# --- terminals and channel keys ---------------------------------------------------------------------------


def test_a_terminal_is_found_by_its_kid_with_the_key_it_was_enrolled_with(store: Store) -> None:
    channel = enroll(store)
    assert store.terminals.find_channel(channel.kid) == channel
    assert (channel.terminal, channel.secret, channel.salt) == ("meter", b"0123456789abcdef", b"saltsalt")
    assert store.terminals.get("meter") == store.terminals.all()[0]
    assert store.terminals.get("other") is None
    assert store.terminals.find_channel(b"\x77\x77") is None


def test_a_channel_key_stays_out_of_repr(store: Store) -> None:
    assert "0123456789abcdef" not in repr(enroll(store))


def test_kids_have_two_bytes_differ_from_the_delegates_and_are_never_given_again(store: Store) -> None:
    first = enroll(store, "a")
    store.terminals.remove("a", actor=ACTOR)
    second = enroll(store, "a")
    assert (first.kid, second.kid) == (b"\x00\x01", b"\x00\x02")
    assert first.delegate_id == b"\x00"


def test_kids_grow_to_three_bytes_after_65535_terminals(store: Store, raw: Raw) -> None:
    raw("UPDATE meta SET next_kid = 65535")
    assert [enroll(store, name).kid for name in "ab"] == [b"\xff\xff", b"\x01\x00\x00"]


def test_enrolling_a_name_twice_is_refused_and_changes_nothing(store: Store) -> None:
    channel = enroll(store)
    generation = store.generation()
    with pytest.raises(ConfigurationError, match="enrolled already"):
        enroll(store, secret=b"f" * 16)
    assert store.generation() == generation
    assert store.terminals.find_channel(channel.kid) == channel


def test_replacing_ends_the_old_key_and_keeps_what_belongs_to_the_terminal(store: Store) -> None:
    old = enroll(store)
    add_policy(store, "meter")
    add_identity(store, terminals=("meter",))
    add_secret(store)
    store.terminals.reserve(old.kid, 5)
    new = enroll(store, secret=b"f" * 16, replace=True)
    assert store.terminals.find_channel(old.kid) is None
    assert store.terminals.find_channel(new.kid) == new
    assert store.terminals.reserve(new.kid, 1) == 0
    assert store.policies.all()[0].terminal == "meter"
    assert store.identities.all()[0].terminals == ("meter",)
    assert store.secrets.all()[0].terminal == "meter"


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "ü", 'a"', "a\n", "*"])
def test_names_that_would_need_quoting_are_refused(store: Store, name: str) -> None:
    with pytest.raises(ConfigurationError, match="terminal's name"):
        enroll(store, name)


def test_a_credential_that_cannot_be_delivered_enrolls_nobody(store: Store) -> None:
    def fail(channel: object) -> None:
        raise OSError("no space")

    generation = store.generation()
    with pytest.raises(OSError, match="no space"):
        enroll(store, deliver=fail)
    assert store.terminals.all() == []
    assert store.generation() == generation
    assert store.audit.newest(10) == []


def test_a_disabled_terminal_is_kept_and_not_found(store: Store) -> None:
    channel = enroll(store)
    assert store.terminals.set_enabled("meter", False, actor=ACTOR)
    assert not store.terminals.set_enabled("meter", False, actor=ACTOR)
    assert store.terminals.find_channel(channel.kid) is None
    assert not store.terminals.all()[0].enabled
    assert store.terminals.set_enabled("meter", True, actor=ACTOR)
    assert store.terminals.find_channel(channel.kid) == channel


def test_removing_a_terminal_takes_its_rules_and_secrets_along_and_leaves_its_identity_to_nobody(
    store: Store,
) -> None:
    channel = enroll(store)
    add_policy(store, "meter")
    kept = add_policy(store, "*")
    add_identity(store, terminals=("meter",))
    enroll(store, "other")
    add_secret(store, "meter")
    kept_secret = add_secret(store, "other")
    store.terminals.remove("meter", actor=ACTOR)
    assert store.terminals.find_channel(channel.kid) is None
    assert [policy.id for policy in store.policies.all()] == [kept]
    assert [secret.id for secret in store.secrets.all()] == [kept_secret]
    assert store.identities.all()[0].terminals == ()


def test_unknown_terminals_are_named_in_the_error(store: Store) -> None:
    for change in (
        lambda: store.terminals.remove("ghost", actor=ACTOR),
        lambda: store.terminals.set_enabled("ghost", True, actor=ACTOR),
        lambda: add_policy(store, "ghost"),
        lambda: add_identity(store, terminals=("ghost",)),
        lambda: add_secret(store, "ghost"),
    ):
        with pytest.raises(ConfigurationError, match="'ghost'"):
            change()
    assert store.identities.all() == []


# --- the delegate's sequence numbers ----------------------------------------------------------------------


def test_sequence_numbers_are_handed_out_once(store: Store, location: str) -> None:
    kid = enroll(store).kid
    assert [store.terminals.reserve(kid, 10), store.terminals.reserve(kid, 1)] == [0, 10]
    with Store.open(location, NODE_KEY) as again:
        assert again.terminals.reserve(kid, 1) == 11


def test_sequence_numbers_end_at_forty_bits(store: Store, raw: Raw) -> None:
    kid = enroll(store).kid
    raw("UPDATE cipher_keys SET next_sequence = :number", number=SEQUENCE_LIMIT - 3)
    with pytest.raises(Refused, match="enroll it again"):
        store.terminals.reserve(kid, 4)
    assert store.terminals.reserve(kid, 3) == SEQUENCE_LIMIT - 3
    with pytest.raises(Refused):
        store.terminals.reserve(kid, 1)


@pytest.mark.parametrize("count", [0, -1, RESERVATION_LIMIT + 1])
def test_impossible_reservations_are_errors_of_the_caller(store: Store, count: int) -> None:
    with pytest.raises(ValueError, match="reserved"):
        store.terminals.reserve(enroll(store).kid, count)


# --- trust ------------------------------------------------------------------------------------------------


def test_keys_are_kept_with_their_fingerprint_and_added_once(store: Store) -> None:
    (first, added), (again, added_again) = store.trust.add([anchor(), anchor()], actor=ACTOR)
    assert (added, added_again) == (True, False)
    assert first == again == store.trust.all()[0]
    assert first.fingerprint == "5050d80d22ecd471ea55df7034042c1e041341ff4066e7f6ff38e20b720df8ea"
    assert (first.der, first.peer, first.kind) == (b"der", "", AuthenticationKeyKind.ANCHOR)


def test_a_pinned_key_has_a_normal_peer_and_a_name_of_its_own(store: Store) -> None:
    [(key, _)] = store.trust.add([pin()], actor=ACTOR)
    assert key.peer == "dns:a.example"
    with pytest.raises(ConfigurationError, match="'server' already"):
        store.trust.add([anchor(), pin(b"another")], actor=ACTOR)
    assert store.trust.all() == [key]


def test_a_newer_crl_takes_the_place_of_an_older_one(store: Store) -> None:
    old, new = (NewKey(kind=AuthenticationKeyKind.CRL, name="CN=Root", der=der) for der in (b"old", b"new"))
    [(kept, _)] = store.trust.add([old], actor=ACTOR)
    replacing = NewKey(kind=new.kind, name=new.name, der=new.der, replaces=(kept.id,))
    store.trust.add([replacing], actor=ACTOR)
    assert [key.der for key in store.trust.all()] == [b"new"]


@pytest.mark.parametrize(
    "values",
    [
        {"der": b""},
        {"der": bytes(64 * 1024 + 1)},
        {"peer": "dns:a.example"},
        {"kind": AuthenticationKeyKind.PIN, "name": "a b", "peer": "*"},
        {"kind": AuthenticationKeyKind.PIN, "name": "a", "peer": ""},
        {"kind": AuthenticationKeyKind.PIN, "name": "a", "peer": "pin:a"},
        {"kind": AuthenticationKeyKind.PIN, "name": "a", "peer": "nonsense"},
    ],
)
def test_keys_that_make_no_sense_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        NewKey(**({"kind": AuthenticationKeyKind.ANCHOR, "name": "n", "der": b"d"} | values))  # type: ignore[arg-type]


def test_keys_are_removed_by_id(store: Store) -> None:
    added = store.trust.add([anchor(b"1"), anchor(b"2")], actor=ACTOR)
    assert store.trust.remove([added[0][0].id, 4711], actor=ACTOR) == [added[0][0]]
    assert store.trust.remove([], actor=ACTOR) == []
    assert [key.der for key in store.trust.all()] == [b"2"]


# --- policies and identities ------------------------------------------------------------------------------


def test_policies_are_normal_and_added_once(store: Store) -> None:
    enroll(store)
    first = store.policies.add("meter", "dns:*.EXAMPLE.com.", Action.DENY, actor=ACTOR)
    again = store.policies.add("meter", "dns:*.example.com", Action.DENY, actor=ACTOR)
    other = store.policies.add("*", "dns:*.example.com", Action.DENY, actor=ACTOR)
    assert (first[0], True, False, True) == (again[0], first[1], again[1], other[1])
    assert first[0].peer == "dns:*.example.com"
    assert store.policies.all() == [first[0], other[0]]


def test_a_policy_is_removed_by_its_id_and_the_id_never_comes_back(store: Store) -> None:
    first = add_policy(store)
    assert store.policies.remove(first, actor=ACTOR).peer == "dns:a.example"
    assert add_policy(store) > first
    with pytest.raises(ConfigurationError, match=f"id {first}"):
        store.policies.remove(first, actor=ACTOR)


def test_an_identity_comes_back_whole_and_is_replaced_only_on_demand(store: Store) -> None:
    enroll(store, "a")
    enroll(store, "b")
    add_identity(store, terminals=("b", "a", "a"), peer="dns:*.Example.com")
    [identity] = store.identities.all()
    assert (identity.terminals, identity.peer) == (("a", "b"), "dns:*.example.com")
    assert (identity.chain_pem, identity.private_key_pem) == ("chain", b"very private")
    assert "very private" not in repr(identity)
    with pytest.raises(ConfigurationError, match="--replace"):
        add_identity(store)
    assert store.identities.all() == [identity]
    add_identity(store, replace=True)
    assert [each.terminals for each in store.identities.all()] == [("*",)]
    store.identities.remove("id", actor=ACTOR)
    with pytest.raises(ConfigurationError, match="'id'"):
        store.identities.remove("id", actor=ACTOR)


def test_a_pattern_as_long_as_may_be_is_kept(store: Store) -> None:
    enroll(store)
    name = "dn:CN=" + "ü" * (PATTERN_LIMIT - 6)
    add_policy(store, peer=name)
    add_identity(store, peer=name)
    store.trust.add([pin(peer=name)], actor=ACTOR)
    add_secret(store, peer=name, local_identity=name)
    kept = store.policies.all()[0], store.identities.all()[0], store.trust.all()[0], store.secrets.all()[0]
    assert {each.peer for each in kept} == {name}


# --- shared secrets ---------------------------------------------------------------------------------------


def test_a_pre_shared_key_comes_back_whole_and_normal(store: Store) -> None:
    enroll(store)
    new = NewSecret(
        terminal="meter", peer="Peer.Example.", secret=b"\x00 a shared secret", local_identity="meter@Example.com"
    )
    kept = store.secrets.add(new, actor=ACTOR)
    assert store.secrets.all() == [kept]
    assert (kept.kind, kept.terminal, kept.peer) == (SharedSecretKind.PRE_SHARED_KEY, "meter", "dns:peer.example")
    assert (kept.secret, kept.local_identity) == (b"\x00 a shared secret", "email:meter@example.com")
    assert (kept.identifier, kept.required) == ("", False)


def test_a_post_quantum_key_has_an_identifier_and_may_be_required(store: Store) -> None:
    enroll(store)
    add_secret(store, peer="*", identifier="ppk-1", required=True)
    [kept] = store.secrets.all()
    assert (kept.kind, kept.identifier, kept.required) == (SharedSecretKind.POST_QUANTUM, "ppk-1", True)
    assert kept.peer == "*"


def test_a_shared_secret_shows_in_no_representation_and_no_table(store: Store, raw: Raw) -> None:
    enroll(store)
    add_secret(store)
    assert "a shared secret!" not in repr(
        NewSecret(terminal="meter", peer="a.example", secret=b"a shared secret!")
    )
    assert "a shared secret!" not in repr(store.secrets.all())
    assert b"a shared secret!" not in bytes(raw("SELECT sealed_secret FROM shared_secrets")[0][0])
    assert "a shared secret!" not in repr(raw("SELECT * FROM audit"))


def test_a_terminal_has_one_secret_of_a_kind_for_a_peer_and_another_only_on_demand(store: Store) -> None:
    enroll(store)
    enroll(store, "other")
    first = add_secret(store)
    kept = [
        first,
        add_secret(store, "other"),
        add_secret(store, peer="ip:192.0.2.1"),
        add_secret(store, identifier="ppk-1"),
        add_secret(store, identifier="ppk-2"),
    ]
    with pytest.raises(ConfigurationError, match=r"pre-shared key for dns:peer\.example already; --replace"):
        add_secret(store, secret=b"another secret!!", local_identity="dns:meter.example")
    with pytest.raises(ConfigurationError, match="'ppk-2' for"):
        add_secret(store, identifier="ppk-2")
    assert [secret.id for secret in store.secrets.all()] == kept
    newer = add_secret(store, secret=b"another secret!!", replace=True)
    assert [secret.id for secret in store.secrets.all()] == [*kept[1:], newer]
    assert store.secrets.all()[-1].secret == b"another secret!!"


def test_a_shared_secret_is_removed_by_its_id(store: Store) -> None:
    enroll(store)
    first = add_secret(store)
    store.secrets.remove(first, actor=ACTOR)
    assert store.secrets.all() == []
    assert add_secret(store) > first
    with pytest.raises(ConfigurationError, match=f"id {first}; see: locum secret list"):
        store.secrets.remove(first, actor=ACTOR)


def test_changes_of_shared_secrets_are_audited_without_them(store: Store) -> None:
    enroll(store)
    first = add_secret(store)
    second = add_secret(store, replace=True)
    third = add_secret(store, identifier="ppk-1", required=True)
    store.secrets.remove(third, actor=ACTOR)
    entries = store.audit.newest(4)
    assert {(entry.actor, entry.subject) for entry in entries} == {(ACTOR, "meter")}
    assert [(entry.action, entry.detail) for entry in entries] == [
        ("secret.add", f"pre-shared key for dns:peer.example (id {first})"),
        ("secret.replace", f"pre-shared key for dns:peer.example (id {second})"),
        ("secret.add", f"post-quantum pre-shared key 'ppk-1' for dns:peer.example (id {third})"),
        ("secret.remove", f"post-quantum pre-shared key 'ppk-1' for dns:peer.example (id {third})"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        "peer = '*'",
        "local_identity = 'dns:another.example'",
        "required = NOT required",
        "identifier = 'ppk-2'",
        "terminal_id = (SELECT id FROM terminals WHERE name = 'other')",
    ],
)
def test_a_shared_secret_opens_only_in_its_row_as_it_was_written(store: Store, raw: Raw, change: str) -> None:
    enroll(store)
    enroll(store, "other")
    number = add_secret(store, identifier="ppk-1", required=True)
    raw(f"UPDATE shared_secrets SET {change}")
    with pytest.raises(
        ConfigurationError, match=f"altered in the database: remove it with locum secret remove {number}"
    ):
        store.secrets.all()
    store.secrets.remove(number, actor=ACTOR)
    assert store.secrets.all() == []


@pytest.mark.parametrize(
    "values",
    [
        {"secret": b""},
        {"secret": bytes(SECRET_LIMIT + 1)},
        {"peer": ""},
        {"peer": "ip:192.0.2.0/24"},
        {"peer": "pin:server"},
        {"local_identity": "dns:*.example"},
        {"local_identity": "*"},
        {"required": True},
        {"identifier": "a\nb"},
        {"identifier": "ü" * (IDENTIFIER_LIMIT // 2 + 1)},
        {"identifier": "\udcff"},
        {"identifier": "ppk-1", "local_identity": "dns:meter.example"},
    ],
)
def test_shared_secrets_that_make_no_sense_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        NewSecret(**({"terminal": "meter", "peer": "peer.example", "secret": b"s" * 16} | values))  # type: ignore[arg-type]
    assert "s" * 16 not in str(caught.value)


def test_shared_secrets_as_long_as_may_be_are_kept(store: Store) -> None:
    enroll(store)
    add_secret(store, secret=b"\xff" * SECRET_LIMIT, identifier="a" * IDENTIFIER_LIMIT)
    [kept] = store.secrets.all()
    assert (kept.secret, kept.identifier) == (b"\xff" * SECRET_LIMIT, "a" * IDENTIFIER_LIMIT)


def test_the_name_that_a_terminal_goes_by_is_kept_as_it_was_written(store: Store) -> None:
    enroll(store)
    add_secret(store, peer="dn:CN=Peer,O=Example", local_identity="dn:CN=Meter 7,O=Example")
    [kept] = store.secrets.all()
    assert (kept.peer, kept.local_identity) == ("dn:CN=peer,O=example", "dn:CN=Meter 7,O=Example")


# --- generation and audit ---------------------------------------------------------------------------------


def test_every_change_raises_the_generation_and_is_seen_by_another_store(store: Store, location: str) -> None:
    with Store.open(location, NODE_KEY) as other:
        seen = [other.generation()]
        for change in (
            lambda: enroll(store),
            lambda: add_policy(store, "meter"),
            lambda: add_identity(store),
            lambda: add_secret(store),
            lambda: store.trust.add([anchor()], actor=ACTOR),
            lambda: store.terminals.set_enabled("meter", False, actor=ACTOR),
            lambda: store.policies.remove(store.policies.all()[0].id, actor=ACTOR),
            lambda: store.identities.remove("id", actor=ACTOR),
            lambda: store.secrets.remove(store.secrets.all()[0].id, actor=ACTOR),
            lambda: store.trust.remove([store.trust.all()[0].id], actor=ACTOR),
            lambda: store.terminals.remove("meter", actor=ACTOR),
        ):
            change()
            seen.append(other.generation())
    assert seen == list(range(seen[0], seen[0] + 12))


def test_what_changes_no_configuration_leaves_the_generation(store: Store) -> None:
    kid = enroll(store).kid
    add_policy(store)
    generation = store.generation()
    add_policy(store)
    store.terminals.set_enabled("meter", True, actor=ACTOR)
    store.terminals.reserve(kid, 1)
    store.audit.append([entry(1)])
    assert store.generation() == generation


def test_a_snapshot_holds_everything_at_its_generation(store: Store) -> None:
    enroll(store)
    add_policy(store)
    add_identity(store)
    add_secret(store)
    store.trust.add([anchor()], actor=ACTOR)
    snapshot = store.snapshot()
    assert snapshot.generation == store.generation()
    assert snapshot.policies == tuple(store.policies.all())
    assert snapshot.identities == tuple(store.identities.all())
    assert snapshot.shared_secrets == tuple(store.secrets.all())
    assert snapshot.authentication_keys == tuple(store.trust.all())


def test_every_change_is_audited_with_who_did_what(store: Store) -> None:
    enroll(store)
    number = add_policy(store, "meter")
    [enrolled, allowed] = store.audit.newest(10)
    assert (enrolled.actor, enrolled.action, enrolled.subject) == (ACTOR, "terminal.enroll", "meter")
    assert (allowed.action, allowed.detail) == ("policy.add", f"allow dns:a.example (id {number})")
    assert allowed.outcome is Outcome.OK


def test_the_newest_entries_are_read_oldest_first(store: Store) -> None:
    store.audit_many(entry(number) for number in range(1, 8))
    assert [each.detail for each in store.audit.newest(3)] == ["5", "6", "7"]
    with pytest.raises(ValueError, match="cannot be read"):
        store.audit.newest(0)


def test_long_and_unprintable_texts_are_cut_and_escaped(store: Store) -> None:
    store.audit.append([entry(1, subject="a\x00b\x1b[31m\ud800", detail="x" * 5000, action="\n" * 500)])
    [kept] = store.audit.newest(1)
    assert kept.subject == "a\\x00b\\x1b[31m\\ud800"
    assert (len(kept.detail), kept.detail[-1], len(kept.action)) == (1024, "…", 64)


def test_an_audit_entry_cannot_be_changed_or_deleted(store: Store, raw: Raw, location: str) -> None:
    store.audit.append([entry(1)])
    statements = ["UPDATE audit SET detail = 'x'", "DELETE FROM audit", "DELETE FROM audit WHERE id = 1"]
    if location.startswith("postgresql"):
        statements.append("TRUNCATE audit")
    else:
        statements.append("REPLACE INTO audit SELECT id, 0, actor, action, subject, outcome, detail FROM audit")
    for statement in statements:
        with pytest.raises(DBAPIError, match="append-only"):
            raw(statement)
    assert store.audit.newest(10) == [entry(1)]


def test_a_change_that_cannot_be_audited_does_not_happen(store: Store, raw: Raw) -> None:
    enroll(store)
    before = store.snapshot(), store.terminals.all()
    raw("ALTER TABLE audit RENAME TO audit_gone")
    for change in (
        lambda: enroll(store, "other"),
        lambda: add_policy(store),
        lambda: add_identity(store),
        lambda: add_secret(store),
        lambda: store.trust.add([anchor()], actor=ACTOR),
        lambda: store.terminals.remove("meter", actor=ACTOR),
    ):
        with pytest.raises(LocumError):
            change()
    raw("ALTER TABLE audit_gone RENAME TO audit")
    assert (store.snapshot(), store.terminals.all()) == before
