"""Which pre-shared key goes with which terminal and peer, and which post-quantum one."""

from __future__ import annotations

from typing import Any

import pytest

from locum.authority.databases import PostquantumSecret, SharedSecret
from locum.authority.ike_secrets import PostquantumSecrets, SharedSecrets
from locum.errors import ConfigurationError
from locum.ike import algorithms as alg
from locum.ike import keying2


def row(peer: str, secret: bytes, terminal: str = "meter", **options: Any) -> SharedSecret:
    return SharedSecret(terminal=terminal, peer=peer, secret=secret, **options)


ROWS = SharedSecrets(
    (
        row("ip:192.0.2.9", b"by address"),
        row("dns:gw.example.com", b"by name"),
        row("dns:gw.example.com", b"for all", terminal="*"),
        row("email:ann@example.com", b"as bob", local_identity="email:bob@example.com"),
    )
)


@pytest.mark.parametrize(
    ("claimed", "address", "secret"),
    [
        ("dns:gw.example.com", "", b"by name"),
        ("dns:gw.example.com", "192.0.2.9", b"by name"),
        ("dns:other.example.com", "192.0.2.9", b"by address"),
        ("ip:192.0.2.9", "198.51.100.1", b"by address"),
        ("", "192.0.2.9", b"by address"),
        ("", "::ffff:192.0.2.9", b"by address"),
        ("", "192.0.2.8", None),
        ("", "", None),
        ("dns:other.example.com", "192.0.2.8", None),
    ],
)
def test_name_comes_before_address(claimed: str, address: str, secret: bytes | None) -> None:
    found = ROWS.find("meter", claimed, address)
    assert (found.secret if found else None) == secret


def test_own_row_comes_before_one_for_all_terminals() -> None:
    found = ROWS.find("other", "dns:gw.example.com", "")
    assert found is not None
    assert found.secret == b"for all"


def test_row_for_another_own_identity_is_passed_over() -> None:
    ann = "email:ann@example.com"
    assert ROWS.find("meter", ann, "") is ROWS.find("meter", ann, "", local="email:bob@example.com") is not None
    assert ROWS.find("meter", ann, "", local="dns:meter.example.com") is None


def test_only_one_is_found_without_a_name() -> None:
    assert ROWS.only("meter") is None
    found = ROWS.only("other")
    assert found is not None
    assert found.secret == b"for all"
    assert SharedSecrets(()).only("meter") is None


def test_key_for_an_address_proves_the_address() -> None:
    found = ROWS.find("meter", "", "192.0.2.9")
    assert found is not None
    assert found.proves("dns:boss.example.com", "192.0.2.9") == "ip:192.0.2.9"
    assert found.proves("ip:192.0.2.9", "198.51.100.1") == "ip:192.0.2.9"
    assert found.proves("dns:boss.example.com", "198.51.100.1") == ""


@pytest.mark.parametrize(
    "bad", [row("dns:x", b""), row("nonsense", b"x"), row("dns:x", b"x", local_identity="pin:x")], ids=repr
)
def test_row_that_says_nothing_is_a_configuration_error(bad: SharedSecret) -> None:
    with pytest.raises(ConfigurationError):
        SharedSecrets((bad,))


def test_ppk_is_found_by_terminal_and_peer() -> None:
    def ppk(name: str, terminal: str, peer: str) -> PostquantumSecret:
        return PostquantumSecret(identifier=name, secret=b"x", terminal=terminal, peer=peer)

    known = PostquantumSecrets((ppk("a", "*", "*"), ppk("b", "meter", "dns:gw.example.com"), ppk("c", "x", "*")))
    found = known.all_for("meter", "dns:gw.example.com", "192.0.2.1")
    assert [each.identity for each in found] == [b"\2b", b"\2a"]
    assert [each.identity for each in known.all_for("meter", "", "192.0.2.1")] == [b"\2a"]


@pytest.mark.parametrize(
    ("name", "secret"), [("", b"x"), ("x" * 257, b"x"), ("x", b"")], ids=["none", "long", "empty"]
)
def test_ppk_without_name_or_secret_is_a_configuration_error(name: str, secret: bytes) -> None:
    with pytest.raises(ConfigurationError):
        PostquantumSecrets((PostquantumSecret(identifier=name, secret=secret, terminal="*", peer="*"),))


def test_secrets_do_not_show() -> None:
    shown = repr(
        (
            row("dns:x", b"hidden"),
            ROWS.find("meter", "", "192.0.2.9"),
            PostquantumSecret(identifier="a", secret=b"hidden", terminal="*", peer="*"),
            PostquantumSecrets(
                (PostquantumSecret(identifier="a", secret=b"hidden", terminal="*", peer="*"),)
            ).all_for("x", "", ""),
        )
    )
    assert "hidden" not in shown
    assert "by address" not in shown


@pytest.mark.parametrize("prf", [alg.PRF_HMAC_SHA2_256, alg.PRF_HMAC_SHA2_512], ids=str)
def test_proof_of_a_key_is_that_of_the_rfc_each_time(prf: alg.Prf) -> None:
    known = SharedSecrets([row("*", b"secret")]).find("meter", "", "192.0.2.1")
    assert known is not None
    for octets in (b"first", b"second"):
        assert known.auth(prf, octets) == keying2.shared_key_auth(prf, b"secret", octets)
