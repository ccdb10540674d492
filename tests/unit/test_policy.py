"""The policy database: deny wins, else allow, else denied (A5, A6)."""

import pytest

from locum.authority.databases import Action, Policy, PolicyRule, named_identity
from locum.errors import ConfigurationError, Refused

WWW = "dns:www.example.com"


def policy(*rules: tuple[str, str, str]) -> Policy:
    return Policy(
        PolicyRule(terminal=terminal, peer=peer, action=Action(action)) for terminal, peer, action in rules
    )


def test_without_rules_everything_is_denied_and_the_reason_says_what_to_do() -> None:
    decision = policy().decide("meter-7", (WWW,))
    assert not decision.allowed
    assert "locum policy add --terminal meter-7 --peer dns:www.example.com --action allow" in decision.reason


@pytest.mark.parametrize("peer", ["*", WWW, "dns:*.example.com", "dns:WWW.Example.COM"])
@pytest.mark.parametrize("terminal", ["*", "meter-7"])
def test_matching_rule_allows(terminal: str, peer: str) -> None:
    decision = policy((terminal, peer, "allow")).decide("meter-7", (WWW,))
    assert decision.allowed
    assert decision.reason == ""


@pytest.mark.parametrize("rule", [("meter-8", "*", "allow"), ("meter-7", "dns:other.example.com", "allow")])
def test_rule_for_somebody_else_allows_nothing(rule: tuple[str, str, str]) -> None:
    assert not policy(rule).decide("meter-7", (WWW,)).allowed


@pytest.mark.parametrize("order", [1, -1])
def test_deny_wins_in_any_order(order: int) -> None:
    rules = [("meter-7", WWW, "allow"), ("*", "dns:*.example.com", "deny")][::order]
    decision = policy(*rules).decide("meter-7", (WWW,))
    assert not decision.allowed
    assert "dns:*.example.com" in decision.reason


def test_deny_for_another_terminal_does_not_matter() -> None:
    assert policy(("*", "*", "allow"), ("meter-8", "*", "deny")).decide("meter-7", (WWW,)).allowed


def test_rule_for_a_network_looks_at_the_address() -> None:
    rules = policy(("*", "*", "allow"), ("*", "ip:192.0.2.0/24", "deny"))
    assert not rules.decide("meter-7", (WWW,), "192.0.2.9").allowed
    assert rules.decide("meter-7", (WWW,), "198.51.100.1").allowed
    assert rules.decide("meter-7", (WWW,), "").allowed
    assert not rules.decide("meter-7", ("ip:192.0.2.9",)).allowed


def test_pinned_peer_is_allowed_by_its_name_or_by_its_pin() -> None:
    proven = ("pin:lab", "dns:lab.example.com")
    assert policy(("*", "pin:lab", "allow")).decide("meter-7", proven).allowed
    assert policy(("*", "dns:lab.example.com", "allow")).decide("meter-7", proven).allowed
    assert not policy(("*", "*", "allow"), ("*", "pin:lab", "deny")).decide("meter-7", proven).allowed


def test_possible_identity_is_enough_to_allow_but_not_to_deny() -> None:
    name, possible = ("dns:lab.example.com",), ("pin:lab",)
    assert policy(("*", "pin:lab", "allow")).decide("meter-7", name, possible=possible).allowed
    assert policy(("*", "*", "allow"), ("*", "pin:lab", "deny")).decide("meter-7", name, possible=possible).allowed


@pytest.mark.parametrize("peer", ["", "example.com", "dns:", "ip:300.0.0.1", "pin:", "dns:*", "mac:00"])
def test_malformed_pattern_is_a_configuration_error(peer: str) -> None:
    with pytest.raises(ConfigurationError):
        policy(("*", peer, "allow"))


@pytest.mark.parametrize(
    ("server_name", "identity"),
    [
        ("www.example.com", "dns:www.example.com"),
        ("WWW.Example.com.", "dns:www.example.com"),
        ("192.0.2.1", "ip:192.0.2.1"),
        ("2001:DB8:0::1", "ip:2001:db8::1"),
        ("localhost", "dns:localhost"),
    ],
)
def test_name_has_one_identity(server_name: str, identity: str) -> None:
    assert named_identity(server_name) == identity


@pytest.mark.parametrize("server_name", ["", " ", "a b", "exämple.com", "-x.com", "a..b", "x" * 300, "1.2.3.4:5"])
def test_name_that_is_none_is_refused(server_name: str) -> None:
    with pytest.raises(Refused):
        named_identity(server_name)
