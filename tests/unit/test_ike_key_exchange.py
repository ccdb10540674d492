"""Public values in the shapes of KE payloads, and every degenerate one refused."""

from __future__ import annotations

import pytest

from locum.authority.ike_key_exchange import PERFORMED, KeyExchange, find, respond
from locum.crypto.asymmetric.finite_field import modp
from locum.errors import Incompatible, Misbehaved
from locum.ike import algorithms as alg
from locum.ike.algorithms import Group

GROUPS = sorted(PERFORMED, key=lambda group: group.id)
MODP = modp(2048)


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_values_have_the_lengths_of_the_group(group: Group) -> None:
    ours = KeyExchange(group)
    answer, secret = respond(group, ours.public_value)
    assert (len(ours.public_value), len(answer)) == (group.initiator_length, group.responder_length)
    assert ours.complete(answer) == secret


@pytest.mark.parametrize("group", GROUPS, ids=str)
@pytest.mark.parametrize("change", [-1, 1])
def test_value_of_another_length_is_refused(group: Group, change: int) -> None:
    with pytest.raises(Misbehaved, match="bytes"):
        respond(group, bytes(group.initiator_length + change))
    with pytest.raises(Misbehaved, match="bytes"):
        KeyExchange(group).complete(bytes(group.responder_length + change))


def _number(value: int) -> bytes:
    return value.to_bytes(256, "big")


@pytest.mark.parametrize(
    ("group", "value"),
    [
        pytest.param(alg.CURVE25519, bytes(32), id="x25519 zero"),
        pytest.param(alg.CURVE25519, b"\1" + bytes(31), id="x25519 one"),
        pytest.param(alg.CURVE448, bytes(56), id="x448 zero"),
        pytest.param(alg.CURVE448, b"\1" + bytes(55), id="x448 one"),
        pytest.param(alg.ECP_256, bytes(64), id="ecp256 zero"),
        pytest.param(alg.ECP_256, b"\xff" * 64, id="ecp256 beyond the field"),
        pytest.param(alg.ECP_384, b"\1" * 96, id="ecp384 not on the curve"),
        pytest.param(alg.ECP_521, bytes(131) + b"\1", id="ecp521 not on the curve"),
        pytest.param(alg.MODP_2048, _number(0), id="modp zero"),
        pytest.param(alg.MODP_2048, _number(1), id="modp one"),
        pytest.param(alg.MODP_2048, _number(MODP.prime - 1), id="modp minus one"),
        pytest.param(alg.MODP_2048, _number(MODP.prime), id="modp prime"),
        pytest.param(alg.MODP_2048, b"\xff" * 256, id="modp beyond the prime"),
        pytest.param(alg.ML_KEM_768, b"\xff" * 1184, id="mlkem768 out of range"),
        pytest.param(alg.ML_KEM_1024, b"\xff" * 1568, id="mlkem1024 out of range"),
    ],
)
def test_degenerate_value_is_refused(group: Group, value: bytes) -> None:
    with pytest.raises(Misbehaved):
        respond(group, value)
    if group.initiator_length == group.responder_length and not group.additional_only:
        with pytest.raises(Misbehaved):
            KeyExchange(group).complete(value)


def test_altered_ciphertext_gives_another_secret_and_no_error() -> None:
    ours = KeyExchange(alg.ML_KEM_768)
    answer, secret = respond(alg.ML_KEM_768, ours.public_value)
    assert ours.complete(bytes((answer[0] ^ 1,)) + answer[1:]) != secret


@pytest.mark.parametrize("group", [alg.ECP_256, alg.ECP_384, alg.ECP_521], ids=str)
def test_secret_of_a_curve_is_x_alone(group: Group) -> None:
    ours = KeyExchange(group)
    answer, secret = respond(group, ours.public_value)
    assert len(secret) == len(answer) // 2
    ours.discard()


@pytest.mark.parametrize("code", [0, 1, 2, 5, 22, 23, 35, 999])
def test_other_methods_are_not_implemented(code: int) -> None:
    with pytest.raises(Incompatible):
        find(code)


def test_exchange_is_completed_once() -> None:
    ours = KeyExchange(alg.CURVE25519)
    answer, _ = respond(alg.CURVE25519, ours.public_value)
    ours.complete(answer)
    with pytest.raises(RuntimeError):
        ours.complete(answer)
