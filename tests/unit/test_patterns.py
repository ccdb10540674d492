"""Peer patterns: what they are, and whom they match."""

from __future__ import annotations

import pytest

from locum.errors import ConfigurationError
from locum.patterns import PATTERN_LIMIT, matches, normalize_identity, normalize_pattern, parse_pattern


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("*", "*"),
        ("dns:Example.COM.", "dns:example.com"),
        ("dns:*.Example.com", "dns:*.example.com"),
        ("dns:localhost", "dns:localhost"),
        ("dns:_s.xn--bcher-kva.example", "dns:_s.xn--bcher-kva.example"),
        ("ip:192.0.2.0/24", "ip:192.0.2.0/24"),
        ("ip:192.0.2.1/32", "ip:192.0.2.1"),
        ("ip:2001:DB8:0::/32", "ip:2001:db8::/32"),
        ("ip:2001:db8::0001", "ip:2001:db8::1"),
        ("ip:::ffff:192.0.2.0/120", "ip:192.0.2.0/24"),
        ("ip:0.0.0.0/0", "ip:0.0.0.0/0"),
        ("pin:server-1", "pin:server-1"),
        ("email:Alice@Example.COM.", "email:Alice@example.com"),
        ("email:*@Example.com", "email:*@example.com"),
        ("dn:cn=VPN  Gateway, o=Example,C=DE", "dn:CN=vpn gateway,O=example,C=de"),
        ("keyid:0AFF", "keyid:0aff"),
    ],
)
def test_a_pattern_has_one_normal_form_which_is_a_pattern_too(text: str, normal: str) -> None:
    assert normalize_pattern(text) == normal
    assert parse_pattern(normal) == parse_pattern(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "dns:",
        "dns:*",
        "dns:*.",
        "dns:a.*.com",
        "dns:*a.com",
        "dns:*.*.com",
        "dns:a..b",
        "dns:-a.example",
        "dns:bücher.example",
        "dns:" + "a" * 64 + ".example",
        "dns:" + "a." * 127 + "a",
        "ip:",
        "ip:192.0.2.1/24",
        "ip:192.0.2",
        "ip:300.0.0.1",
        "ip:a.example",
        "pin:",
        "pin:a b",
        "uri:x",
        "email:",
        "email:alice",
        "email:@example.com",
        "email:alice@",
        "email:a b@example.com",
        "email:alice@*.example.com",
        "dn:",
        "dn:example.com",
        "dn:CN=a,",
        "dn:CN=" + "a" * PATTERN_LIMIT,
        "dn:CN=" + "\u200b" * (PATTERN_LIMIT // 2),
        "keyid:",
        "keyid:0",
        "keyid:0x00",
        "keyid:٠٠",
        "**",
        " *",
    ],
)
def test_what_is_no_pattern_is_said_in_one_line(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_pattern(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "identity", "address", "expected"),
    [
        ("*", "dns:a.example", "", True),
        ("*", "pin:x", "192.0.2.1", True),
        ("dns:a.example", "dns:a.example", "", True),
        ("dns:a.example", "dns:A.Example.", "", True),
        ("dns:a.example", "dns:b.example", "", False),
        ("dns:a.example", "pin:a.example", "", False),
        ("dns:a.example", "a.example", "", False),
        ("dns:*.example", "dns:a.example", "", True),
        ("dns:*.example", "dns:example", "", False),
        ("dns:*.example", "dns:.example", "", False),
        ("dns:*.example", "dns:a.b.example", "", False),
        ("dns:*.example", "dns:aexample", "", False),
        ("ip:192.0.2.0/24", "ip:192.0.2.9", "", True),
        ("ip:192.0.2.0/24", "dns:a.example", "192.0.2.9", True),
        ("ip:192.0.2.0/24", "dns:a.example", "::ffff:192.0.2.9", True),
        ("ip:::ffff:192.0.2.0/120", "dns:a.example", "192.0.2.9", True),
        ("ip:192.0.2.0/24", "dns:a.example", "198.51.100.1", False),
        ("ip:192.0.2.0/24", "dns:a.example", "", False),
        ("ip:192.0.2.0/24", "dns:192.0.2.9", "", False),
        ("ip:192.0.2.0/24", "ip:nonsense", "nonsense", False),
        ("ip:2001:db8::/32", "ip:2001:db8::5", "", True),
        ("ip:2001:db8::/32", "ip:192.0.2.9", "", False),
        ("ip:0.0.0.0/0", "ip:2001:db8::5", "", False),
        ("pin:x", "pin:x", "", True),
        ("pin:x", "pin:X", "", False),
        ("pin:x", "dns:x", "", False),
        ("email:alice@example.com", "email:alice@Example.com", "", True),
        ("email:alice@example.com", "email:Alice@example.com", "", False),
        ("email:alice@example.com", "email:alice", "", False),
        ("email:alice@example.com", "dns:alice@example.com", "", False),
        ("email:*@example.com", "email:bob@EXAMPLE.com", "", True),
        ("email:*@example.com", "email:bob@a.example.com", "", False),
        ("email:*@example.com", "email:a@b@example.com", "", False),
        ("email:*@example.com", "dns:example.com", "", False),
        ("dn:CN=a,O=b", "dn:CN=A,O=B", "", True),
        ("dn:CN=a,O=b", "dn:2.5.4.3=a, o=b", "", True),
        ("dn:CN=a,O=b", "dn:O=b,CN=a", "", False),
        ("dn:CN=a,O=b", "dn:CN=a", "", False),
        ("dn:CN=a,O=b", "dn:CN=a\\,O=b", "", False),
        ("dn:CN=a,O=b", "dn:nonsense", "", False),
        ("keyid:0aff", "keyid:0AFF", "", True),
        ("keyid:0aff", "keyid:0afe", "", False),
        ("keyid:0aff", "keyid:nonsense", "", False),
        ("*", "keyid:00", "", True),
    ],
)
def test_a_pattern_matches_the_peers_it_describes(
    pattern: str, identity: str, address: str, expected: bool
) -> None:
    assert matches(pattern, identity, address) is expected


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("Peer.Example.", "dns:peer.example"),
        ("192.0.2.1", "ip:192.0.2.1"),
        ("2001:DB8::1", "ip:2001:db8::1"),
        ("::ffff:192.0.2.1", "ip:192.0.2.1"),
        ("alice@Example.com", "email:alice@example.com"),
        ("dns:peer.example", "dns:peer.example"),
        ("ip:192.0.2.1/32", "ip:192.0.2.1"),
        ("dn:cn=a", "dn:CN=a"),
        ("keyid:FF", "keyid:ff"),
    ],
)
def test_an_identity_has_one_normal_form_with_its_kind(text: str, identity: str) -> None:
    assert normalize_identity(text) == identity
    assert normalize_identity(identity) == identity
    assert matches(identity, identity)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "*.example.com",
        "dns:*.example.com",
        "ip:192.0.2.0/24",
        "email:*@example.com",
        "pin:x",
        "CN=a",
        "a b",
    ],
)
def test_what_does_not_name_one_peer_is_no_identity(text: str) -> None:
    with pytest.raises(ConfigurationError):
        normalize_identity(text)
