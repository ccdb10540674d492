"""What a node's configuration lets its terminals negotiate in IKE."""

from __future__ import annotations

import pytest

from locum.authority.local import IkeOptions
from locum.errors import ConfigurationError
from locum.ike import algorithms as alg
from locum.node.config import IkeSection, parse
from locum.node.node import _ike_options


def options(text: str) -> IkeOptions:
    return _ike_options(parse(f"[ike]\n{text}".encode()).ike)


def test_without_a_configuration_the_authoritys_own_defaults_hold() -> None:
    assert _ike_options(IkeSection()) == IkeOptions()


def test_named_groups_restrict_every_key_exchange_of_both_versions() -> None:
    chosen = options('groups = ["ecp384", "x25519", "mlkem768"]')
    assert chosen.policy.groups == (alg.ECP_384, alg.CURVE25519)
    assert chosen.phase1.groups == (alg.ECP_384,)
    assert set(chosen.policy.additional) == {(alg.ECP_384, alg.CURVE25519, alg.ML_KEM_768, None)}
    assert len(chosen.policy.additional) == len(IkeOptions().policy.additional)


def test_sha1_is_for_those_who_ask_for_it() -> None:
    assert alg.PRF_HMAC_SHA1 not in options("").phase1.prfs
    legacy = options("legacy_sha1 = true")
    assert legacy.legacy_sha1
    assert legacy.phase1.prfs[-1] == alg.PRF_HMAC_SHA1
    assert legacy.policy == options("").policy


def test_pss_can_be_switched_off() -> None:
    assert options("").rsa_pss
    assert not options("rsa_pss = false").rsa_pss


def test_a_group_that_the_node_cannot_perform_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="mlkem512 is not implemented"):
        options('groups = ["x25519", "mlkem512"]')
