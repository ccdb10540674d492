"""Traffic selectors: narrowing takes what both sides want, and quick mode says the same in its own way."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.errors import DecodeError
from locum.ike.payloads1 import Identification
from locum.ike.registry import IdentificationType
from locum.ike.traffic_selectors import (
    MAX_TRAFFIC_SELECTORS,
    TrafficSelector,
    identification_from_selector,
    intersection,
    is_within,
    narrow,
    selector_from_identification,
    selector_of,
)


def net(text: str, *, protocol: int = 0, port: int = 0) -> TrafficSelector:
    return selector_of(ip_network(text), protocol=protocol, port=port)


OPAQUE = replace(net("10.0.0.0/8"), start_port=65535, end_port=0)

selectors = st.builds(
    lambda first, last, protocol, ports: TrafficSelector(
        ts_type=7,
        protocol=protocol,
        start_port=min(ports),
        end_port=max(ports),
        start=bytes((10, 0, 0, min(first, last))),
        end=bytes((10, 0, 0, max(first, last))),
    ),
    st.integers(0, 255),
    st.integers(0, 255),
    st.sampled_from([0, 6, 17]),
    st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
)


def test_a_network_is_a_range_of_addresses() -> None:
    assert net("10.1.0.0/24") == TrafficSelector(
        ts_type=7, start_port=0, end_port=65535, start=bytes((10, 1, 0, 0)), end=bytes((10, 1, 0, 255))
    )
    six = net("2001:db8::/64", protocol=6, port=443)
    assert (six.ts_type, six.protocol, six.start_port, six.end_port) == (8, 6, 443, 443)
    assert six.end[8:] == b"\xff" * 8


@pytest.mark.parametrize(
    ("left", "right", "common"),
    [
        (net("10.0.0.0/8"), net("10.1.0.0/24"), net("10.1.0.0/24")),
        (net("10.0.0.0/8", protocol=6), net("10.1.0.0/24", port=443), net("10.1.0.0/24", protocol=6, port=443)),
        (net("10.0.0.0/8", protocol=6), net("10.0.0.0/8", protocol=17), None),
        (net("10.0.0.0/8", port=80), net("10.0.0.0/8", port=443), None),
        (net("10.0.0.0/24"), net("10.0.1.0/24"), None),
        (net("10.0.0.0/8"), net("::/0"), None),
        (OPAQUE, OPAQUE, OPAQUE),
        (OPAQUE, net("10.0.0.0/8"), OPAQUE),
        (OPAQUE, net("10.0.0.0/8", port=80), None),
        (TrafficSelector(ts_type=9, start=b"fc"), TrafficSelector(ts_type=9, start=b"fc"), None),
    ],
)
def test_what_two_selectors_have_in_common(
    left: TrafficSelector, right: TrafficSelector, common: TrafficSelector | None
) -> None:
    assert intersection(left, right) == common
    assert intersection(right, left) == common


@given(left=selectors, right=selectors)
def test_an_intersection_lies_within_both(left: TrafficSelector, right: TrafficSelector) -> None:
    common = intersection(left, right)
    if common is not None:
        assert is_within((common,), (left,))
        assert is_within((common,), (right,))
    assert intersection(left, left) == left


def test_narrowing_keeps_the_order_of_the_offer_and_says_nothing_twice() -> None:
    offered = (net("10.1.0.7/32", protocol=6, port=443), net("10.1.0.0/16"))
    allowed = (net("10.1.0.0/24"), net("10.1.0.0/24"), net("192.0.2.0/24"))
    assert narrow(offered, allowed) == (net("10.1.0.7/32", protocol=6, port=443), net("10.1.0.0/24"))
    assert narrow(offered, (net("192.0.2.0/24"),)) == ()


def test_narrowing_is_bounded() -> None:
    many = tuple(net(f"10.{index}.0.0/16") for index in range(MAX_TRAFFIC_SELECTORS + 1))
    assert len(narrow(many, (net("0.0.0.0/0"),))) == MAX_TRAFFIC_SELECTORS


def test_an_answer_beyond_the_offer_is_noticed() -> None:
    offered = (net("10.1.0.0/24"), net("10.2.0.0/24"))
    assert is_within((net("10.2.0.0/25"),), offered)
    assert not is_within((net("10.1.0.0/16"),), offered)
    assert not is_within((net("10.1.0.0/25"), net("10.3.0.0/24")), offered)
    assert not is_within((), offered)


# --- quick mode -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "data", "selector"),
    [
        (1, "0a010007", net("10.1.0.7/32")),
        (4, "0a010007ffffff00", net("10.1.0.0/24")),
        (7, "0a0100000a0100ff", net("10.1.0.0/24")),
        (5, "20010db8" + "00" * 12, net("2001:db8::/128")),
        (6, "20010db8" + "00" * 12 + "ffffffff" + "00" * 12, net("2001:db8::/32")),
    ],
)
def test_an_identification_of_quick_mode_is_a_selector(kind: int, data: str, selector: TrafficSelector) -> None:
    assert selector_from_identification(Identification(id_type=kind, data=bytes.fromhex(data))) == selector


def test_protocol_and_port_of_an_identification_are_kept() -> None:
    identification = Identification(id_type=1, protocol=17, port=1701, data=bytes((10, 1, 0, 7)))
    assert selector_from_identification(identification) == net("10.1.0.7/32", protocol=17, port=1701)


@pytest.mark.parametrize(
    ("kind", "data"),
    [(IdentificationType.FQDN, b"a.test"), (IdentificationType.IPV4_ADDR_SUBNET, b"\n\1\0\0\xff\0\xff\0")],
)
def test_what_is_no_range_of_addresses_is_refused(kind: IdentificationType, data: bytes) -> None:
    with pytest.raises(DecodeError):
        selector_from_identification(Identification(id_type=kind, data=data))


@given(
    network=st.one_of(
        st.builds(lambda a, p: IPv4Network((a, p), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)),
        st.builds(lambda a, p: IPv6Network((a, p), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128)),
    ),
    protocol=st.integers(0, 255),
    port=st.integers(0, 65535),
)
def test_every_network_survives_quick_mode(network: IPv4Network | IPv6Network, protocol: int, port: int) -> None:
    selector = selector_of(network, protocol=protocol, port=port)
    identification = identification_from_selector(selector)
    assert identification.id_type in (IdentificationType.IPV4_ADDR_SUBNET, IdentificationType.IPV6_ADDR_SUBNET)
    assert selector_from_identification(identification) == selector


def test_what_is_no_subnet_becomes_a_range() -> None:
    for start, end, kind in (
        (bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)), IdentificationType.IPV4_ADDR_RANGE),
        (bytes(15) + b"\1", bytes(15) + b"\4", IdentificationType.IPV6_ADDR_RANGE),
    ):
        selector = TrafficSelector(
            ts_type=7 if len(start) == 4 else 8, start_port=0, end_port=65535, start=start, end=end
        )
        identification = identification_from_selector(selector)
        assert identification.id_type == kind
        assert selector_from_identification(identification) == selector


def test_quick_mode_cannot_say_a_range_of_ports() -> None:
    with pytest.raises(ValueError, match="range"):
        identification_from_selector(replace(net("10.0.0.0/8"), start_port=1, end_port=2))
    with pytest.raises(ValueError, match="type 9"):
        identification_from_selector(TrafficSelector(ts_type=9, start=b"fc"))
