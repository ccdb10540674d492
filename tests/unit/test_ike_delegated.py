"""IKE through a delegate: every mode, whichever end is delegated, agrees on keys, and the audit log says so."""

from __future__ import annotations

import pytest
from tests.support import ike_memory
from tests.support.ike_delegated import Delegate
from tests.support.ike_memory import (
    LEFT_NAME,
    RIGHT_NAME,
    Network,
    certificate_authority,
    keys_agree,
    psk_authority,
)

from locum.authority.databases import PostquantumSecret
from locum.authority.local import LocalAuthority
from locum.ike.algorithms import CURVE25519, ECP_256, ML_KEM_768
from locum.ike.configuration import Connection, Mode
from locum.ike.engine import Established, State
from locum.ike.operations import (
    AdditionalKeyExchangeRequest,
    Exchange,
    IkeAuthenticateRequest,
    IkeStartRequest,
    IntroduceRequest,
    KeyExchangeRequest,
    ProveRequest,
    PublicValueRequest,
    SaKeysRequest,
    SharedSecretRequest,
)
from locum.ike.policy import ChildPolicy, IkePolicy
from locum.ike.registry import Version

MODES = {
    "ikev2": Connection(),
    "main": Connection(version=Version.IKE_1, mode=Mode.MAIN),
    "aggressive": Connection(version=Version.IKE_1, mode=Mode.AGGRESSIVE),
}
AUTHENTICATIONS = {
    "psk": lambda own, peer: psk_authority(own, peer),
    "p256": lambda own, peer: certificate_authority(own),
}

#: What is asked in one batch, from the table in `ike.operations`.
START, PUBLIC, KEYS, PROVE = IkeStartRequest, PublicValueRequest, KeyExchangeRequest, ProveRequest
JUDGE, OVER = IkeAuthenticateRequest, SaKeysRequest
BATCHES = {
    ("ikev2", "left"): [[START, PUBLIC], [KEYS, PROVE], [JUDGE, OVER]],
    ("ikev2", "right"): [[START, KEYS], [JUDGE, PROVE, OVER]],
    ("main", "left"): [[START], [PUBLIC], [KEYS, PROVE], [JUDGE, OVER]],
    ("main", "right"): [[START], [KEYS], [JUDGE, PROVE], [OVER]],
    ("aggressive", "left"): [[START, PUBLIC, IntroduceRequest], [KEYS, JUDGE, PROVE, OVER]],
    ("aggressive", "right"): [[START, KEYS, PROVE], [JUDGE, OVER]],
}


def delegated(
    side: str, connection: Connection, left: LocalAuthority, right: LocalAuthority
) -> tuple[Network, Delegate]:
    """Two ends, the operations of one of them answered by a delegate."""
    network = ike_memory.network(connection, authorities=(left, right))
    host = network.left if side == "left" else network.right
    delegate = Delegate(host.authority)
    host.authority = delegate  # type: ignore[assignment]
    return network, delegate


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("authentication", AUTHENTICATIONS)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_agrees_on_keys_through_a_delegate(mode: str, authentication: str, side: str) -> None:
    make = AUTHENTICATIONS[authentication]
    network, delegate = delegated(side, MODES[mode], make(LEFT_NAME, RIGHT_NAME), make(RIGHT_NAME, LEFT_NAME))
    network.connect()
    assert network.left.sa.state is network.right.sa.state is State.ESTABLISHED
    assert keys_agree(network)
    peer = RIGHT_NAME if side == "left" else LEFT_NAME
    assert delegate.ended == [("ok", f"key handed over (peer dns:{peer})")]
    assert [[type(request) for request in batch] for batch in delegate.asked] == BATCHES[mode, side]
    assert len(delegate.service.sessions) == 0


def test_a_chain_that_the_delegate_has_seen_is_named_by_its_digest() -> None:
    left, right = certificate_authority(LEFT_NAME), certificate_authority(RIGHT_NAME)
    network, delegate = delegated("right", MODES["ikev2"], left, right)
    network.connect()
    first, delegate.sizes = delegate.sizes, []
    network.initiate()
    network.run()
    assert [len(first), len(delegate.sizes)] == [3, 2]
    assert sum(map(sum, delegate.sizes)) < sum(map(sum, first)) - 500
    assert delegate.service.counters.completed == 2


@pytest.mark.parametrize("side", ["left", "right"])
def test_quantum_safe_keys_come_through_a_delegate_and_what_both_proofs_cover_comes_once(side: str) -> None:
    connection = Connection(ike=IkePolicy(additional=((ML_KEM_768,),)), use_ppk=True, ppk_required=True)
    ppk = PostquantumSecret(identifier="ppk-1", secret=bytes(range(32)), terminal="*", peer="*", required=True)
    network, delegate = delegated(
        side,
        connection,
        psk_authority(LEFT_NAME, RIGHT_NAME, ppks=(ppk,)),
        psk_authority(RIGHT_NAME, LEFT_NAME, ppks=(ppk,)),
    )
    network.connect()
    assert keys_agree(network)
    assert delegate.service.counters.completed == 1
    kinds = {type(request) for batch in delegate.asked for request in batch}
    assert AdditionalKeyExchangeRequest in kinds
    # IKE_INTERMEDIATE carries 1,184 bytes there and 1,088 back; a responder judges and proves in one batch.
    assert delegate.sizes[-1][0] < 3800


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_secret_is_rejected_by_the_delegate_or_ends_in_nothing(mode: str, side: str) -> None:
    left, right = psk_authority(LEFT_NAME, RIGHT_NAME), psk_authority(RIGHT_NAME, LEFT_NAME, secret=b"another one")
    network, delegate = delegated(side, MODES[mode], left, right)
    network.connect()
    network.advance(120.0)
    assert not network.left.of(Established)
    assert not network.right.of(Established)
    assert network.left.installed == network.right.installed == []
    assert delegate.service.counters.completed == 0


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("mode", ["ikev2", "main"])
def test_perfect_forward_secrecy_is_a_further_exchange_with_the_delegate(mode: str, side: str) -> None:
    group = CURVE25519 if mode == "ikev2" else ECP_256
    settings = {"version": MODES[mode].version, "mode": MODES[mode].mode, "child": ChildPolicy(groups=(group,))}
    network, delegate = delegated(
        side, Connection(**settings), psk_authority(LEFT_NAME, RIGHT_NAME), psk_authority(RIGHT_NAME, LEFT_NAME)
    )
    network.connect()
    before, handshake = delegate.service.counters.further, len(delegate.asked)
    network.left.sa.rekey_child(network.left.child, now=network.now)
    network.run()
    assert keys_agree(network)
    assert delegate.service.counters.further == before + 1
    assert delegate.service.counters.completed == 1
    assert delegate.ended[-1] == ("ok", "further key exchange")
    further = [request for batch in delegate.asked[handshake:] for request in batch]
    assert isinstance(further[0], IkeStartRequest)
    assert further[0].exchange is Exchange.FURTHER
    assert isinstance(further[-1], SharedSecretRequest)
