"""From the store to the authority: what is read, when it is used, and what an outage leaves in force (A5)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from tests.support import exchange, pki
from tests.support.ike_offers import psk_opening

from locum.authority.local import LocalOptions
from locum.delegate.channels import Channels
from locum.delegate.databases import EXTRA_LOOKS, STALE_SECONDS, Databases
from locum.errors import LocumError, Refused, Unavailable
from locum.handshake import MAX_CERTIFICATES, Verdict
from locum.ike.operations import IkeStartResponse
from locum.store import Action, AuthenticationKeyKind, NewSecret, Store, open_node_store
from locum.store.trust import NewKey
from locum.tls.operations import ClientCertificateRequest, ClientCertificateResponse

ROOT = pki.ca()
PEER = pki.leaf(ROOT)
ACTOR = "test"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_node_store(tmp_path / "node") as store:
        yield store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def databases(store: Store, clock: Clock) -> Databases:
    channels = Channels(store.terminals, clock=clock)
    found = Databases(store, LocalOptions(), channels, now=lambda: pki.EPOCH, clock=clock)
    found.use(found.read())
    return found


def poll(databases: Databases) -> bool:
    """One look at the store; True when it has changed."""
    loaded = databases.poll()
    if loaded is not None:
        databases.use(loaded)
    return loaded is not None


def fill(store: Store) -> None:
    der = x509.load_pem_x509_certificate(ROOT.pem).public_bytes(pki.serialization.Encoding.DER)
    store.trust.add([NewKey(kind=AuthenticationKeyKind.ANCHOR, name="root", der=der)], actor=ACTOR)
    store.policies.add("*", "*", Action.ALLOW, actor=ACTOR)


def verdict(databases: Databases) -> Verdict:
    session = databases.open(exchange.TERMINAL)
    exchange.keyed13(session)  # type: ignore[arg-type]
    (answer,) = session.perform([exchange.authenticate13(PEER)])
    assert isinstance(answer, Verdict)
    return answer


def test_nothing_is_opened_before_the_first_read(store: Store, clock: Clock) -> None:
    channels = Channels(store.terminals, clock=clock)
    databases = Databases(store, LocalOptions(), channels, now=lambda: pki.EPOCH, clock=clock)
    with pytest.raises(Unavailable):
        databases.open("meter")


def test_an_empty_store_denies_everything(databases: Databases) -> None:
    with pytest.raises(Refused, match="no policy allows"):
        verdict(databases)


def test_trust_and_policy_of_the_store_decide(store: Store, databases: Databases) -> None:
    fill(store)
    assert poll(databases)
    assert verdict(databases).accepted
    assert not poll(databases), "nothing is read twice"


def test_pinned_keys_of_the_store_decide(store: Store, databases: Databases) -> None:
    store.policies.add("*", "*", Action.ALLOW, actor=ACTOR)
    pinned = x509.load_pem_x509_certificate(PEER.pem).public_key()
    der = pinned.public_bytes(pki.serialization.Encoding.DER, pki.serialization.PublicFormat.SubjectPublicKeyInfo)
    pin = NewKey(kind=AuthenticationKeyKind.PIN, name="broker", der=der, peer=f"dns:{pki.PEER_NAME}")
    store.trust.add([pin], actor=ACTOR)
    poll(databases)
    assert verdict(databases).identity == "pin:broker"


def test_an_identity_of_the_store_is_offered_to_a_peer_that_asks(store: Store, databases: Databases) -> None:
    fill(store)
    issued = pki.client(ROOT)
    store.terminals.enroll(
        exchange.TERMINAL, algorithm="AES-CCM-16-64-128", secret=bytes(16), salt=b"", actor=ACTOR
    )
    store.identities.add(
        "meter",
        chain_pem=issued.chain_pem.decode(),
        private_key_pem=issued.key_pem,
        terminals=(exchange.TERMINAL,),
        actor=ACTOR,
    )
    poll(databases)
    session = databases.open(exchange.TERMINAL)
    exchange.keyed13(session)  # type: ignore[arg-type]
    (_, certificate) = session.perform(
        [exchange.authenticate13(PEER), ClientCertificateRequest(version=0x0304, schemes=(0x0403,))]
    )
    assert isinstance(certificate, ClientCertificateResponse)
    assert certificate.certificates == issued.chain


CLIENT = pki.client(ROOT)
NOT_FOR_SIGNATURES = pki.client(ROOT, "rsa", usage=("key_encipherment",))


@pytest.mark.parametrize(
    ("chain", "key"),
    [
        (b"no PEM", b"secret garbage"),
        (CLIENT.chain_pem, b"secret garbage"),
        (CLIENT.chain_pem, PEER.key_pem),
        (NOT_FOR_SIGNATURES.chain_pem, NOT_FOR_SIGNATURES.key_pem),
        (CLIENT.chain_pem + ROOT.pem * MAX_CERTIFICATES, CLIENT.key_pem),
    ],
    ids=["no certificate", "no key", "another key", "not for signatures", "too long a chain"],
)
def test_an_identity_that_cannot_be_used_is_left_out_and_logged(
    store: Store, databases: Databases, caplog: pytest.LogCaptureFixture, chain: bytes, key: bytes
) -> None:
    fill(store)
    store.identities.add("broken", chain_pem=chain.decode(), private_key_pem=key, terminals=("*",), actor=ACTOR)
    with caplog.at_level(logging.ERROR):
        poll(databases)
    assert verdict(databases).accepted
    (record,) = caplog.records
    assert vars(record)["identity"] == "broken"
    assert "garbage" not in repr(vars(record))


def test_a_session_in_flight_is_judged_by_the_newest_policy(store: Store, databases: Databases) -> None:
    fill(store)
    poll(databases)
    session = databases.open(exchange.TERMINAL)
    exchange.keyed13(session)  # type: ignore[arg-type]
    store.policies.add("*", f"dns:{pki.PEER_NAME}", Action.DENY, actor=ACTOR)
    poll(databases)
    (answer,) = session.perform([exchange.authenticate13(PEER)])
    assert isinstance(answer, Verdict)
    assert (answer.authentic, answer.allowed) == (True, False)


def test_what_was_read_later_is_not_undone_by_what_was_read_before(
    store: Store, databases: Databases, clock: Clock
) -> None:
    """A slow read in the other thread ends after one that was made because a terminal would be turned away."""
    fill(store)
    slow = databases.read()
    clock.now += 0.1
    store.policies.add("*", f"dns:{pki.PEER_NAME}", Action.DENY, actor=ACTOR)
    poll(databases)
    databases.use(slow)
    with pytest.raises(Refused):
        databases.open(exchange.TERMINAL).perform([exchange.START])


def test_an_outage_leaves_the_last_state_in_force_until_it_is_stale(
    store: Store,
    databases: Databases,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(store)
    poll(databases)

    def away() -> int:
        raise Unavailable("the database is away")

    with caplog.at_level(logging.WARNING):
        with monkeypatch.context() as outage:
            outage.setattr(store, "generation", away)
            for _ in range(3):
                assert not poll(databases)
                assert verdict(databases).accepted
                assert not databases.outdated
                clock.now += STALE_SECONDS / 2
            assert databases.outdated
        assert not poll(databases)
        assert not databases.outdated
    assert len(caplog.records) == 2, "an outage is logged when it begins and when it ends"


# --- shared secrets ---------------------------------------------------------------------------------------

SHARED = "a secret that two know"


def add_secret(store: Store, **values: object) -> None:
    new = {"terminal": exchange.TERMINAL, "peer": "peer.example", "secret": SHARED.encode()} | values
    store.secrets.add(NewSecret(**new), actor=ACTOR, replace=True)  # type: ignore[arg-type]


@pytest.fixture
def ike(store: Store) -> Store:
    """A store whose policy allows everybody and whose terminal is enrolled."""
    fill(store)
    store.terminals.enroll(
        exchange.TERMINAL, algorithm="AES-CCM-16-64-128", secret=bytes(16), salt=b"", actor=ACTOR
    )
    return store


def offered(databases: Databases, peer: str = "dns:peer.example") -> IkeStartResponse:
    """What the authority offers in IKEv1 to a peer that it can only have a pre-shared key with."""
    response, *_ = databases.open(exchange.TERMINAL).perform(psk_opening(peer))
    assert isinstance(response, IkeStartResponse)
    return response


def test_a_shared_secret_of_the_store_authenticates_with_its_peer_alone(ike: Store, databases: Databases) -> None:
    add_secret(ike)
    # With a single one main mode would do with it, whatever the peer.
    add_secret(ike, peer="third.example")
    poll(databases)
    assert offered(databases).group == 19
    with pytest.raises(LocumError):
        offered(databases, "dns:another.example")


def test_a_shared_secret_is_in_force_at_once_and_until_it_is_removed(ike: Store, databases: Databases) -> None:
    poll(databases)
    with pytest.raises(LocumError):
        offered(databases)
    add_secret(ike)
    offered(databases)
    ike.secrets.remove(ike.secrets.all()[0].id, actor=ACTOR)
    poll(databases)
    with pytest.raises(LocumError):
        offered(databases)


def test_post_quantum_keys_of_the_store_are_no_pre_shared_keys(ike: Store, databases: Databases) -> None:
    add_secret(ike, identifier="ppk-1", required=True)
    poll(databases)
    with pytest.raises(LocumError):
        offered(databases)
    authority = databases._authority
    assert authority is not None
    (known,) = authority.ppks.all_for(exchange.TERMINAL, "dns:peer.example", "")
    assert (known.secret, known.required) == (SHARED.encode(), True)
    assert known.identity.endswith(b"ppk-1")
    assert authority.ppks.all_for(exchange.TERMINAL, "dns:another.example", "") == ()


def test_a_shared_secret_that_cannot_be_used_is_left_out_and_logged(
    ike: Store, databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    add_secret(ike)
    add_secret(ike, peer="third.example")
    # A country has two letters, as a certificate's name can carry it.
    add_secret(ike, peer="*", local_identity="dn:C=Germany")
    with caplog.at_level(logging.ERROR):
        poll(databases)
    offered(databases)
    with pytest.raises(LocumError):
        offered(databases, "dns:another.example")
    (record,) = caplog.records
    assert vars(record)["secret"] == 3
    assert SHARED not in repr(vars(record))


# --- before anybody is turned away ------------------------------------------------------------------------


def test_nobody_is_refused_at_the_start_by_a_policy_of_a_moment_ago(databases: Databases, store: Store) -> None:
    with pytest.raises(Refused, match="no policy allows"):
        databases.open(exchange.TERMINAL).perform([exchange.START])
    fill(store)
    assert verdict(databases).accepted


def test_nobody_is_rejected_by_trust_of_a_moment_ago(databases: Databases, store: Store) -> None:
    store.policies.add("*", "*", Action.ALLOW, actor=ACTOR)
    session = databases.open(exchange.TERMINAL)
    exchange.keyed13(session)  # type: ignore[arg-type]
    fill(store)
    (answer,) = session.perform([exchange.authenticate13(PEER)])
    assert isinstance(answer, Verdict) and answer.accepted


def test_refusals_make_the_delegate_look_at_the_store_only_so_often(
    databases: Databases, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    generation = store.generation

    def counted() -> int:
        nonlocal looks
        looks += 1
        return generation()

    monkeypatch.setattr(store, "generation", counted)
    for _ in range(1000):
        with pytest.raises(Refused):
            databases.open(exchange.TERMINAL).perform([exchange.START])
    assert looks == EXTRA_LOOKS.burst
    clock.now += 1.0
    for _ in range(1000):
        with pytest.raises(Refused):
            databases.open(exchange.TERMINAL).perform([exchange.START])
    assert looks == EXTRA_LOOKS.burst + EXTRA_LOOKS.rate


def test_a_store_that_cannot_be_read_leaves_a_refusal_a_refusal(
    databases: Databases, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def broken() -> int:
        nonlocal looks
        looks += 1
        raise Unavailable("the disk is gone")

    monkeypatch.setattr(store, "generation", broken)
    for _ in range(3):
        with pytest.raises(Refused, match="no policy allows"):
            databases.open(exchange.TERMINAL).perform([exchange.START])
    assert looks == 1, "a store that is not there is waited for once, not by every terminal that is refused"
