"""Routes, rules and addresses in the kernel's format."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.dataplane import rtnetlink
from locum.dataplane.kernel_netlink import attribute, attributes
from locum.dataplane.rtnetlink import Rule
from locum.errors import DecodeError

RULE = Rule(socket.AF_INET6, 0x4C00_0007, 0x6C6F_6375, 4500, 76)


def test_a_rule_reads_as_it_was_written() -> None:
    assert Rule.parse(RULE.write()) == RULE


def test_what_a_rule_does_not_say_is_zero() -> None:
    assert Rule.parse(RULE.write()[:12]) == Rule(socket.AF_INET6, 0, 0, 0, 0)
    assert Rule.parse(RULE.write()[:12] + attribute(15, b"\1\2") + attribute(21, b"")) == Rule(10, 0, 0, 0, 0)


@given(st.binary(max_size=80))
def test_answers_of_any_bytes_are_read_or_refused(body: bytes) -> None:
    for parse in (Rule.parse, rtnetlink.parse_address):
        try:
            parse(body)
        except DecodeError:
            continue


@pytest.mark.parametrize("address, family", [("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6)])
def test_an_address_is_the_local_one_where_there_is_a_peer(address: str, family: int) -> None:
    packed = ip_address(address).packed
    header = struct.pack("=BBBBI", family, 24, 0, 253, 3)
    far = ip_address("203.0.113.9").packed
    assert rtnetlink.parse_address(header + attribute(1, packed)) == (ip_address(address), 253)
    assert rtnetlink.parse_address(header + attribute(1, far) + attribute(2, packed)) == (ip_address(address), 253)
    with pytest.raises(DecodeError):
        rtnetlink.parse_address(header)


def test_a_route_names_network_device_table_and_source() -> None:
    body = rtnetlink.route(ip_network("10.2.0.0/16"), 7, 0x4C00_0007, ip_address("10.1.0.1"), 76)
    assert (body[0], body[1], body[5], body[7]) == (socket.AF_INET, 16, 76, 1)
    found = dict(attributes(body[12:]))
    assert found[1] == bytes((10, 2, 0, 0)) and found[7] == bytes((10, 1, 0, 1))
    assert (struct.unpack("=I", found[4]), struct.unpack("=I", found[15])) == ((7,), (0x4C00_0007,))
    assert 7 not in dict(attributes(rtnetlink.route(ip_network("::/0"), 7, 1, None, 76)[12:]))
