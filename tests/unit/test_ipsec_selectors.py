"""Traffic selectors, policies and the databases of associations (RFC 4301 section 4.4; B4, B5)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.support.ipsec import ESP_SUITES, NEAR6, ah_sa, esp_sa, far_end, ipv4_packet

from locum.errors import ConfigurationError
from locum.ipsec import algorithms
from locum.ipsec.ip import flow_of
from locum.ipsec.policy import MAX_POLICIES, Action, Policy, PolicyDatabase, Protection
from locum.ipsec.sa import Direction, Expiry, Lifetime, Mode, Protocol, SaDatabase, UdpEncapsulation
from locum.ipsec.selectors import MAX_REMEMBERED_FLOWS, TrafficSelector, parse_selectors


def one(text: str) -> TrafficSelector:
    (selector,) = parse_selectors(text)
    return selector


@pytest.mark.parametrize(
    "text",
    [
        "10.1.0.0/16",
        "192.0.2.1/32",
        "10.0.0.1-10.0.0.9",
        "2001:db8::/32[tcp/443]",
        "10.1.0.0/16[udp/1024-65535]",
        "10.1.0.0/16[icmp]",
        "0.0.0.0/0[tcp/opaque]",
        "0.0.0.0/0[47]",
    ],
)
def test_a_selector_is_written_as_it_is_read(text: str) -> None:
    assert str(one(text)) == text


def test_any_speaks_of_both_ip_versions() -> None:
    assert [str(selector) for selector in parse_selectors("any[tcp/80]")] == ["0.0.0.0/0[tcp/80]", "::/0[tcp/80]"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.1.0.1/16",
        "10.0.0.9-10.0.0.1",
        "10.0.0.1-::1",
        "10.0.0.0/8[quic]",
        "10.0.0.0/8[256]",
        "10.0.0.0/8[any/80]",
        "10.0.0.0/8[tcp/80-70]",
        "10.0.0.0/8[tcp/65536]",
        "10.0.0.0/8[tcp/http]",
        "10.0.0.0/8[tcp/80",
        "example.com",
        "fe80::1%eth0",
        "fe80::%2[icmpv6]",
    ],
)
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_selectors(text)


@pytest.mark.parametrize(
    "left, right, common",
    [
        ("10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/16"),
        ("10.0.0.0/8[tcp]", "10.1.0.0/16", "10.1.0.0/16[tcp]"),
        ("10.0.0.0/8[tcp/80-90]", "10.0.0.0/8[tcp/85-99]", "10.0.0.0/8[tcp/85-90]"),
        ("10.0.0.5-10.0.0.9", "10.0.0.0-10.0.0.7", "10.0.0.5-10.0.0.7"),
        ("10.0.0.0/8[tcp/opaque]", "10.0.0.0/8[tcp]", "10.0.0.0/8[tcp/opaque]"),
        ("10.0.0.0/8[tcp/opaque]", "10.0.0.0/8[tcp/80]", None),
        ("10.0.0.0/8[tcp]", "10.0.0.0/8[udp]", None),
        ("10.0.0.0/8", "11.0.0.0/8", None),
        ("10.0.0.0/8", "::/0", None),
        ("10.0.0.0/8[tcp/80]", "10.0.0.0/8[tcp/81]", None),
    ],
)
def test_selectors_are_narrowed_to_what_both_speak_of(left: str, right: str, common: str | None) -> None:
    expected = one(common) if common else None
    assert one(left).intersection(one(right)) == expected
    assert one(right).intersection(one(left)) == expected


def test_a_selector_contains_what_narrowing_leaves_whole() -> None:
    assert one("10.0.0.0/8").contains(one("10.1.0.0/16[tcp/80]"))
    assert not one("10.1.0.0/16").contains(one("10.0.0.0/8"))


def test_ports_that_cannot_be_seen_match_any_port_and_opaque_only() -> None:
    address = ip_address("10.1.2.3").packed
    assert one("10.0.0.0/8[tcp]").matches(address, 6, None)
    assert one("10.0.0.0/8[tcp/opaque]").matches(address, 6, None)
    assert not one("10.0.0.0/8[tcp/80]").matches(address, 6, None)
    assert not one("10.0.0.0/8[tcp/opaque]").matches(address, 6, 80)
    assert not one("::/0").matches(address, 6, 80)


def policy(name: str, local: str, remote: str, action: Action = Action.BYPASS) -> Policy:
    protection = Protection() if action is Action.PROTECT else None
    return Policy(
        name=name,
        action=action,
        local=parse_selectors(local),
        remote=parse_selectors(remote),
        protection=protection,
    )


def test_the_first_matching_row_decides_in_both_directions_and_nothing_means_discard() -> None:
    database = PolicyDatabase(
        [policy("dns", "10.1.0.0/16", "any[udp/53]"), policy("rest", "10.1.0.0/16", "any", Action.PROTECT)]
    )
    dns = flow_of(ipv4_packet())
    answer = flow_of(ipv4_packet(source="10.2.0.1", destination="10.1.0.1", ports=(53, 1024)))
    other = flow_of(ipv4_packet(ports=(1024, 54)))
    stranger = flow_of(ipv4_packet(source="10.9.0.1"))
    assert database.lookup(dns, Direction.OUT).name == "dns"
    assert database.lookup(answer, Direction.IN).name == "dns"
    assert database.lookup(other, Direction.OUT).name == "rest"
    assert database.lookup(stranger, Direction.OUT).action is Action.DISCARD
    assert database.lookup(dns, Direction.IN).action is Action.DISCARD


def test_a_row_can_be_for_one_direction() -> None:
    database = PolicyDatabase([replace(policy("out", "any", "any"), direction=Direction.OUT)])
    flow = flow_of(ipv4_packet())
    assert database.lookup(flow, Direction.OUT).name == "out"
    assert database.lookup(flow, Direction.IN).action is Action.DISCARD


def test_new_rows_replace_what_was_remembered() -> None:
    database = PolicyDatabase([policy("old", "any", "any")])
    flow = flow_of(ipv4_packet())
    assert database.lookup(flow, Direction.OUT).name == "old"
    generation = database.generation
    database.replace([policy("new", "any", "any")])
    assert database.lookup(flow, Direction.OUT).name == "new"
    assert database.generation > generation
    assert [row.name for row in database] == ["new"] and len(database) == 1


def test_what_is_remembered_is_bounded() -> None:
    database = PolicyDatabase([policy("all", "any", "any")])
    for port in range(MAX_REMEMBERED_FLOWS + 10):
        database.lookup(flow_of(ipv4_packet(ports=(port & 0xFFFF, 53))), Direction.OUT)
    assert len(database._remembered) <= MAX_REMEMBERED_FLOWS


def test_policies_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        Policy(name="no way said", action=Action.PROTECT)
    with pytest.raises(ConfigurationError):
        Policy(name="way said", action=Action.BYPASS, protection=Protection())
    with pytest.raises(ConfigurationError):
        Policy(name="nothing", action=Action.BYPASS, local=())
    with pytest.raises(ConfigurationError):
        Protection(mode=Mode.TRANSPORT, tunnel_local=ip_address("192.0.2.1"))
    with pytest.raises(ConfigurationError):
        PolicyDatabase([policy("twice", "any", "any"), policy("twice", "any", "any")])
    with pytest.raises(ConfigurationError):
        PolicyDatabase(policy(str(number), "any", "any") for number in range(MAX_POLICIES + 1))


def test_keys_are_never_shown() -> None:
    for encryption, integrity in ESP_SUITES:
        sa = esp_sa(encryption, integrity)
        for key in (sa.encryption_key, sa.integrity_key):
            assert not key or (key.hex() not in repr(sa) and repr(key) not in repr(sa))
    assert "integrity_key" not in repr(ah_sa())


@pytest.mark.parametrize(
    "changes",
    [
        {"spi": 0},
        {"spi": 255},
        {"spi": 1 << 32},
        {"destination": NEAR6},
        {"replay_window": 4097},
        {"replay_window": 0, "extended_sequence": True},
        {"local": ()},
        {"encryption_key": b"short"},
        {"encryption": algorithms.NULL, "encryption_key": b""},
        {"integrity": algorithms.SHA2_256_128, "integrity_key": bytes(32)},
        {"encryption": None, "encryption_key": b""},
        {
            "encryption": algorithms.NULL,
            "encryption_key": b"",
            "integrity": algorithms.AH_AES128_GMAC,
            "integrity_key": bytes(20),
        },
    ],
)
def test_associations_that_contradict_themselves_are_refused(
    changes: dict[str, object],
) -> None:
    with pytest.raises(ConfigurationError):
        replace(esp_sa(), **changes)


def test_ah_takes_no_encryption_and_no_udp() -> None:
    for changes in (
        {"encryption": algorithms.NULL},
        {"encapsulation": UdpEncapsulation(source_port=4500, destination_port=4500)},
        {"integrity": None, "integrity_key": b""},
        {"integrity_key": b"short"},
    ):
        with pytest.raises(ConfigurationError):
            replace(ah_sa(), **changes)
    with pytest.raises(ConfigurationError):
        UdpEncapsulation(source_port=0, destination_port=4500)


def test_associations_are_found_by_spi_and_by_traffic_the_newest_first() -> None:
    database = SaDatabase()
    old, new = esp_sa(spi=1000), esp_sa(spi=1001)
    other = esp_sa(spi=1002, remote=parse_selectors("10.9.0.0/16"))
    incoming = far_end(old)
    for sa in (old, new, other, incoming):
        database.add(sa)
    flow = flow_of(ipv4_packet())
    assert database.inbound(Protocol.ESP, 1000) is incoming
    assert database.inbound(Protocol.AH, 1000) is None
    assert database.inbound(Protocol.ESP, 1001) is None
    assert database.outbound(flow) is new
    database.remove(new)
    assert database.outbound(flow) is old
    assert len(database) == 3 and set(map(id, database)) == {id(old), id(other), id(incoming)}
    for taken in (far_end(old), old, replace(other, created=1.0)):
        with pytest.raises(ConfigurationError):
            database.add(taken)
    database.remove(far_end(old))  # an equal one is another one
    assert database.inbound(Protocol.ESP, 1000) is incoming
    database.remove(incoming)
    assert database.inbound(Protocol.ESP, 1000) is None


def test_lifetimes_count_seconds_bytes_and_packets() -> None:
    lifetime = Lifetime(
        soft_seconds=10, hard_seconds=20, soft_bytes=100, hard_bytes=200, soft_packets=5, hard_packets=9
    )
    nothing = {"age": 0.0, "used_bytes": 0, "used_packets": 0}
    assert lifetime.expiry(age=9.9, used_bytes=99, used_packets=4) is Expiry.NONE
    for soft in ({"age": 10.0}, {"used_bytes": 100}, {"used_packets": 5}):
        assert lifetime.expiry(**{**nothing, **soft}) is Expiry.SOFT
    for hard in ({"age": 20.0}, {"used_bytes": 200}, {"used_packets": 9}):
        assert lifetime.expiry(**{**nothing, **hard}) is Expiry.HARD
    with pytest.raises(ConfigurationError):
        Lifetime(soft_seconds=2, hard_seconds=1)
    with pytest.raises(ConfigurationError):
        Lifetime(hard_bytes=0)


def test_algorithms_are_found_by_what_ike_calls_them() -> None:
    for encryption in algorithms.ENCRYPTION.values():
        bits = None if encryption.transform_id in (11, 28) else encryption.key_length * 8
        assert algorithms.encryption_of(encryption.transform_id, bits) is encryption
    for integrity in algorithms.INTEGRITY.values():
        assert algorithms.integrity_of(integrity.transform_id) is integrity
    # AES-GCM without a key length, 3DES, DES-MAC
    assert algorithms.encryption_of(20, None) is None
    assert algorithms.encryption_of(3, None) is None
    assert algorithms.integrity_of(3) is None
