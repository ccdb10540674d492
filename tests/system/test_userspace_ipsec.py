"""Our user-space IPsec between two hosts: what goes in at one end comes out at the other, and nothing else."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.ipsec import AH_SUITES, ESP_SUITES
from tests.support.require import require, without
from tests.support.userspace_ends import SECONDS, End, Tunnel

from locum.demo.laboratory import Host, Laboratory
from locum.demo.namespaces import why_not
from locum.demo.traffic import WireTap, ping, stream
from locum.ipsec.algorithms import AES128_CBC, AES256_GCM16, SHA2_256_128
from locum.ipsec.sa import Mode, Protocol

ESP_IDS = ["-".join(each.name for each in suite if each) for suite in ESP_SUITES]


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    require("ping")
    if reason := why_not():
        without(reason)
    with Laboratory() as made:
        yield made


@pytest.fixture
def ends(laboratory: Laboratory) -> Iterator[tuple[End, End]]:
    with End(laboratory.terminal) as first, End(laboratory.peer) as second:
        for end in (first, second):
            end.open_port()
        yield first, second


def tunnel_of(ends: tuple[End, End], **settings: Any) -> Tunnel:
    tunnel = Tunnel(first=ends[0].host, second=ends[1].host, **settings)
    tunnel.install(*ends)
    return tunnel


def exchange(first: Host, second: Host) -> None:
    """Pings and streams in both IP versions and both directions."""
    for ipv6 in (False, True):
        ping(first, second, ipv6=ipv6)
        stream(first, second, ipv6=ipv6)
        stream(second, first, ipv6=ipv6)


@pytest.mark.parametrize("encapsulated", [True, False], ids=["udp", "bare"])
@pytest.mark.parametrize("outer6", [False, True], ids=["over ipv4", "over ipv6"])
def test_a_tunnel_carries_both_ip_versions(ends: tuple[End, End], outer6: bool, encapsulated: bool) -> None:
    tunnel_of(ends, outer6=outer6, encapsulated=encapsulated)
    exchange(ends[0].host, ends[1].host)
    assert not ends[0].dropped and not ends[1].dropped


@pytest.mark.parametrize("encryption, integrity", ESP_SUITES, ids=ESP_IDS)
def test_every_algorithm_of_esp_carries_a_stream(ends: tuple[End, End], encryption: Any, integrity: Any) -> None:
    tunnel_of(ends, encryption=encryption, integrity=integrity)
    stream(ends[0].host, ends[1].host)
    assert not ends[0].dropped and not ends[1].dropped


@pytest.mark.parametrize("integrity", AH_SUITES, ids=[each.name for each in AH_SUITES])
@pytest.mark.parametrize("outer6", [False, True], ids=["over ipv4", "over ipv6"])
def test_ah_carries_a_stream(ends: tuple[End, End], outer6: bool, integrity: Any) -> None:
    tunnel_of(ends, protocol=Protocol.AH, encryption=None, integrity=integrity, encapsulated=False, outer6=outer6)
    exchange(ends[0].host, ends[1].host)
    assert not ends[0].dropped and not ends[1].dropped


def test_extended_sequence_numbers_carry_a_stream(ends: tuple[End, End]) -> None:
    for number, (encryption, integrity) in enumerate(((AES256_GCM16, None), (AES128_CBC, SHA2_256_128))):
        tunnel_of(
            ends,
            encryption=encryption,
            integrity=integrity,
            spis=(0x3000_0000 + number, 0x4000_0000 + number),
            changes={"extended_sequence": True},
        )
        stream(ends[0].host, ends[1].host)


def test_nothing_but_esp_is_on_the_wire(ends: tuple[End, End], laboratory: Laboratory) -> None:
    tunnel_of(ends)
    with WireTap(laboratory.terminal, laboratory.peer) as tap:
        stream(ends[0].host, ends[1].host)
        ping(ends[0].host, ends[1].host)
    assert tap.passed.esp > 0
    assert not tap.passed.clear


@pytest.mark.parametrize("outer6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"encapsulated": False},
        {"encapsulated": False, "protocol": Protocol.AH, "encryption": None, "integrity": SHA2_256_128},
    ],
    ids=["esp in udp", "esp", "ah"],
)
def test_transport_mode_protects_what_two_hosts_say(
    ends: tuple[End, End], settings: dict[str, Any], outer6: bool
) -> None:
    tunnel_of(ends, mode=Mode.TRANSPORT, outer6=outer6, **settings)
    first, second = (end.host for end in ends)
    hosts = [host.address6 if outer6 else host.address for host in (first, second)]
    with WireTap(first, second) as tap:
        assert echo(first, second, hosts, [b"x" * 1000, b"y" * 3000]) == [b"x" * 1000, b"y" * 3000]
    assert not tap.passed.clear


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("encapsulated", [True, False], ids=["udp", "bare"])
def test_datagrams_of_every_size_come_through(ends: tuple[End, End], ipv6: bool, encapsulated: bool) -> None:
    tunnel_of(ends, encapsulated=encapsulated)
    first, second = (end.host for end in ends)
    addresses = [host.inner6 if ipv6 else host.inner for host in (first, second)]
    sizes = [0, 1, 2, 3, 15, 16, 17, *range(1300, 1480), 2800, 9000, 30_000, 65_000]
    sent = [os.urandom(size) for size in sizes]
    assert echo(first, second, addresses, sent) == sent


def echo(first: Host, second: Host, addresses: list[str], payloads: list[bytes]) -> list[bytes]:
    """Send UDP datagrams from one address to the other, one after the other, and back: what came back."""
    family = socket.AF_INET6 if ":" in addresses[0] else socket.AF_INET
    returned = []
    with first.namespace.socket(family) as near, second.namespace.socket(family) as far:
        near.bind((addresses[0], 0))
        far.bind((addresses[1], 0))
        for each in (near, far):
            each.settimeout(SECONDS)
        for payload in payloads:
            near.sendto(payload, far.getsockname())
            data, source = far.recvfrom(65_535)
            far.sendto(data, source)
            returned.append(near.recv(65_535))
    return returned
