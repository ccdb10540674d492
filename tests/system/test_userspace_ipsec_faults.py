"""Our user-space IPsec on a bad network, against forgers, and beside other programs on the same host."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from tests.support.bad_wire import BadWire, bad
from tests.support.require import require, without
from tests.support.userspace_ends import IN_UDP, PORT, SECONDS, SPIS, End, Tunnel, networks_of

from locum.dataplane import userspace
from locum.dataplane.routing import Routing
from locum.dataplane.spis import MAX_RESERVED
from locum.dataplane.userspace import UserspaceInstaller
from locum.demo.laboratory import EAST, WIRE, Host, Laboratory, Middle
from locum.demo.namespaces import why_not
from locum.demo.traffic import WireTap, ping, stream
from locum.errors import Refused, Unavailable
from locum.ipsec.ip import parse
from locum.ipsec.policy import Action, Policy
from locum.ipsec.sa import Direction, Expiry, Lifetime
from locum.ipsec.selectors import parse_selectors

LENGTH = 300_000
ETHERNET = 14


def laboratory_of(middle: Middle) -> Iterator[Laboratory]:
    require("ping")
    if reason := why_not():
        without(reason)
    with Laboratory(middle) as made:
        yield made


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    yield from laboratory_of(Middle.NOTHING)


@pytest.fixture
def ends(laboratory: Laboratory) -> Iterator[tuple[End, End]]:
    yield from both(laboratory)


def both(laboratory: Laboratory) -> Iterator[tuple[End, End]]:
    with End(laboratory.terminal) as first, End(laboratory.peer) as second:
        for end in (first, second):
            end.open_port()
        yield first, second


def tunnel_of(ends: tuple[End, End], **settings: Any) -> Tunnel:
    tunnel = Tunnel(first=ends[0].host, second=ends[1].host, **settings)
    tunnel.install(*ends)
    return tunnel


def eventually(look: Callable[[], object]) -> None:
    """Wait until `look` finds something."""
    end = time.monotonic() + SECONDS
    while not look():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def sending(host: Host, address: str, datagram: bytes) -> None:
    """Send a datagram to the NAT traversal port of `address`, from some port of `host`, past the tunnel."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with host.namespace.socket(family) as sender:
        sender.sendto(datagram, (address, PORT))


def inner_datagram(host: Host, to: str, payload: bytes = b"x", *, traffic_class: int = 0) -> None:
    """Send a datagram from the inner address of `host`, which nobody answers."""
    with host.namespace.socket() as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, traffic_class)
        sender.bind((host.inner, 0))
        sender.sendto(payload, (to, 9))


def listening(host: Host) -> socket.socket:
    """Takes what `inner_datagram` sends, so that no ICMP message comes back."""
    receiver = host.namespace.socket()
    receiver.bind((host.inner, 9))
    return receiver


class Recorder:
    """Frames that arrive on the wire of a host."""

    def __init__(self, host: Host) -> None:
        self._socket = host.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((WIRE, 3))
        self._socket.settimeout(SECONDS)

    def packet(self, wanted: Callable[[bytes], bool]) -> bytes:
        """The next IP packet that is wanted."""
        while True:
            packet = self._socket.recv(65_535)[ETHERNET:]
            if wanted(packet):
                return packet

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def esp_in_udp(packet: bytes) -> bool:
    """True for ESP in UDP to the second end."""
    return packet[:1] == b"\x45" and packet[9] == 17 and packet[28:32] == SPIS[1].to_bytes(4, "big")


# --- a bad network ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encapsulated", [True, False], ids=["udp", "bare"])
def test_a_stream_gets_through_a_wire_that_loses_doubles_and_reorders(encapsulated: bool) -> None:
    for laboratory in laboratory_of(Middle.CUT):
        with BadWire(laboratory) as wire:
            for ends in both(laboratory):
                tunnel_of(ends, encapsulated=encapsulated)
                ping(ends[0].host, ends[1].host)
                wire.rule = bad(7, loss=0.01, late=0.05, double=0.05, delay=0.01)
                stream(ends[0].host, ends[1].host, length=LENGTH)
                stream(ends[1].host, ends[0].host, length=LENGTH)
                for end in ends:
                    assert set(end.dropped) == {"Replayed"}


def test_a_narrower_path_is_found_out_and_kept_to() -> None:
    for laboratory in laboratory_of(Middle.ROUTER):
        assert laboratory.middle is not None
        for ends in both(laboratory):
            tunnel_of(ends)
            first, second = (end.host for end in ends)
            before = mtu_of(ends[0])
            stream(first, second, length=LENGTH)
            laboratory.middle.ip("link", "set", EAST, "mtu", "1350")
            second.namespace.ip("link", "set", WIRE, "mtu", "1350")
            stream(first, second, length=LENGTH)
            stream(second, first, length=LENGTH)
            eventually(lambda: mtu_of(ends[0]) < 1350 and mtu_of(ends[1]) < 1350)  # noqa: B023
            assert before > 1400
            # Nothing is lost for its length, whether it may be cut or not.
            inner = f"{1350 - 28}"
            for rule in ("dont", "want"):
                first.namespace.run("ping", "-c", "2", "-i", "0.1", "-M", rule, "-s", inner, second.inner)
            with pytest.raises(Unavailable, match="too long"):
                first.namespace.run("ping", "-c", "1", "-M", "do", "-s", inner, "-W", "1", second.inner)


def mtu_of(end: End) -> int:
    """The MTU of the device."""
    name = end.call(lambda it: it.interface)
    words = end.host.namespace.ip("-o", "link", "show", name).split()
    return int(words[words.index("mtu") + 1])


def test_a_packet_that_has_become_too_long_is_reported_to_its_sender(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    tunnel_of(ends)
    first, second = (end.host for end in ends)
    ping(first, second)
    # The device is told about a path only now and then; until then its packets are answered one by one.
    monkeypatch.setattr(userspace, "MTU_INTERVAL", 1000.0)

    def narrow(installer: Any) -> None:
        for lane in installer._parts.lanes._lanes.values():
            lane.longest = 1000

    ends[0].call(narrow)
    family = socket.AF_INET
    with first.namespace.socket(family) as sender:
        sender.bind((first.inner, 0))
        sender.connect((second.inner, 9))
        sender.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: always

        def told() -> bool:
            ends[0].call(narrow)
            with suppress(OSError):
                sender.send(bytes(1100))
            return sender.getsockopt(socket.IPPROTO_IP, 14) == 1000  # IP_MTU

        eventually(told)
    assert ends[0].dropped["longer than the path takes"]


# --- forgers ----------------------------------------------------------------------------------------------


def test_what_is_not_authentic_is_dropped_and_counted(ends: tuple[End, End]) -> None:
    tunnel_of(ends)
    first, second = (end.host for end in ends)
    ping(first, second)
    spi = SPIS[0].to_bytes(4, "big")
    junk = {
        "UnknownAssociation": b"\x12\x34\x56\x78" + bytes(40),
        "AuthenticationFailed": spi + (1000).to_bytes(4, "big") + os.urandom(60),
        "DecodeError": spi + bytes(6),
        "neither ESP nor IKE": b"\x01\x02",
    }
    for reason, datagram in junk.items():
        for address in (first.address, first.address6):
            sending(second, address, datagram)
        eventually(lambda reason=reason: ends[0].dropped[reason] == 2)  # type: ignore[misc]
    sending(second, first.address, os.urandom(1400))
    stream(first, second, length=LENGTH)


def test_a_replayed_packet_is_dropped(ends: tuple[End, End]) -> None:
    tunnel_of(ends)
    first, second = (end.host for end in ends)
    with Recorder(second) as recorder:
        ping(first, second)
        packet = recorder.packet(esp_in_udp)
    before = ends[1].call(lambda it: sum(it.used(sa).packets for sa in it._processor.associations))
    for _ in range(3):
        sending(first, second.address, packet[28:])
    eventually(lambda: ends[1].dropped["Replayed"] == 3)
    assert ends[1].call(lambda it: sum(it.used(sa).packets for sa in it._processor.associations)) == before


def test_a_packet_that_its_association_may_not_carry_is_dropped(ends: tuple[End, End]) -> None:
    tunnel = tunnel_of(ends)
    first, second = (end.host for end in ends)
    narrow = parse_selectors("10.1.0.99")
    mine = tunnel.associations(1)[0]

    def tighten(installer: Any) -> None:
        installer.remove([sa for sa in installer._processor.associations if sa.direction is Direction.IN])
        installer.install([replace(mine, remote=narrow)])

    ends[1].call(tighten)
    inner_datagram(first, second.inner)
    eventually(lambda: ends[1].dropped["SelectorMismatch"] == 1)


def test_used_up_associations_carry_nothing_more(ends: tuple[End, End]) -> None:
    tunnel_of(ends, changes={"lifetime": Lifetime(soft_packets=2, hard_packets=4)})
    first, second = (end.host for end in ends)

    def expiries() -> set[Expiry]:
        return ends[0].call(lambda it: {expiry for _, expiry in it.expired(0.0)})

    assert expiries() == set()
    with listening(second):
        for _ in range(3):
            inner_datagram(first, second.inner)
        eventually(lambda: expiries() == {Expiry.SOFT})
        for _ in range(3):
            inner_datagram(first, second.inner)
        eventually(lambda: expiries() == {Expiry.HARD})
    eventually(lambda: ends[0].dropped["LifetimeExpired"] == 2)


# --- IKE on the same port ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("number, encapsulated", [(500, False), (4500, True)])
def test_ike_messages_come_out_of_a_port_and_go_into_it(
    laboratory: Laboratory, number: int, encapsulated: bool, ipv6: bool
) -> None:
    with End(laboratory.terminal) as first, End(laboratory.peer) as second:
        ports = [end.open_port(number, encapsulated=encapsulated) for end in (first, second)]
        addresses = [ip_address(end.host.address6 if ipv6 else end.host.address) for end in (first, second)]
        message = bytes(range(28)) * 50
        if encapsulated:
            first.call(lambda _: ports[0].send_keepalive(*addresses, number))
        for _ in range(3):
            first.call(lambda _: ports[0].send(message, *addresses, number))
        eventually(lambda: len(second.messages) >= 3)
        # A keepalive says nothing to IKE.
        assert second.messages == [(message, addresses[1], addresses[0], number)] * 3


def test_a_message_longer_than_the_path_goes_in_fragments(laboratory: Laboratory) -> None:
    with End(laboratory.terminal) as first, End(laboratory.peer) as second:
        ports = [end.open_port() for end in (first, second)]
        message = bytes(range(256)) * 40
        for addresses in (
            [ip_address(host.host.address) for host in (first, second)],
            [ip_address(host.host.address6) for host in (first, second)],
        ):
            first.call(lambda _, ends=addresses: ports[0].send(message, *ends, PORT))  # type: ignore[misc]
        eventually(lambda: len(second.messages) == 2)
        assert {each[0] for each in second.messages} == {message}


def test_ike_and_esp_share_a_port(ends: tuple[End, End]) -> None:
    tunnel_of(ends)
    first, second = (end.host for end in ends)
    sending(first, second.address, bytes(4) + b"a message of IKE")
    stream(first, second, length=LENGTH)
    eventually(lambda: ends[1].messages)
    assert ends[1].messages[0][0] == b"a message of IKE"


def test_a_port_that_is_taken_is_refused_and_told(ends: tuple[End, End]) -> None:
    with pytest.raises(Unavailable, match="UDP port 4500"):
        ends[0].open_port()
    local = ip_address("192.0.2.77")
    with pytest.raises(Unavailable, match=r"192\.0\.2\.77"):
        ends[0].open_port(4501, local=local)


# --- policies ---------------------------------------------------------------------------------------------


def test_a_tunnel_for_everything_does_not_swallow_itself(ends: tuple[End, End]) -> None:
    tunnel_of(ends, traffic=("any", "any"))
    first, second = (end.host for end in ends)
    for ipv6 in (False, True):
        ping(first, second, ipv6=ipv6)
        stream(first, second, ipv6=ipv6)


def test_what_is_discarded_goes_nowhere_and_what_is_bypassed_goes_in_clear(ends: tuple[End, End]) -> None:
    first, second = (end.host for end in ends)
    tunnel = Tunnel(first=first, second=second)
    here, there = networks_of(first), networks_of(second)
    tcp, udp = (tuple(replace(each, protocol=number) for each in there) for number in (6, 17))
    rows = [
        Policy(name="no tcp", action=Action.DISCARD, local=here, remote=tcp),
        Policy(name="udp in clear", action=Action.BYPASS, local=here, remote=udp),
        tunnel.policy(0),
    ]
    ends[0].call(lambda it: it.install(tunnel.associations(0)))
    ends[0].call(lambda it: it.set_policies(rows))
    ends[1].call(lambda it: it.install(tunnel.associations(1)))
    ends[1].call(lambda it: it.set_policies([tunnel.policy(1)]))
    ping(first, second)
    # Somewhere must be a way for what is in clear.
    first.namespace.ip("route", "add", second.network, "via", second.address)
    try:
        with WireTap(first, second) as tap:
            inner_datagram(first, second.inner)
            eventually(lambda: tap.passed.clear == 1)
        with pytest.raises(Unavailable):
            stream_that_fails(first, second)
    finally:
        first.namespace.ip("route", "del", second.network)
    assert ends[0].dropped["DiscardedByPolicy"]


def stream_that_fails(first: Host, second: Host) -> None:
    with first.namespace.socket(socket.AF_INET, socket.SOCK_STREAM) as sender:
        sender.settimeout(0.5)
        sender.bind((first.inner, 0))
        try:
            sender.connect((second.inner, 9))
        except OSError as error:
            raise Unavailable(str(error)) from None


def test_ports_in_a_policy_hold_for_fragments_too(ends: tuple[End, End]) -> None:
    first, second = (end.host for end in ends)
    tunnel_of(ends, traffic=("10.1.0.0/24[udp]", "10.2.0.0/24[udp/9]"))
    with WireTap(first, second) as tap, second.namespace.socket() as far:
        far.bind((second.inner, 9))
        far.settimeout(SECONDS)
        inner_datagram(first, second.inner, b"z" * 20_000)
        assert far.recv(65_535) == b"z" * 20_000
    assert not tap.passed.clear


def test_the_traffic_class_is_copied_to_the_outer_header(ends: tuple[End, End]) -> None:
    tunnel_of(ends)
    first, second = (end.host for end in ends)
    with Recorder(second) as recorder:
        inner_datagram(first, second.inner, traffic_class=0xB8)
        assert parse(recorder.packet(esp_in_udp)).traffic_class == 0xB8


def test_a_new_association_takes_over_and_the_old_one_still_receives(ends: tuple[End, End]) -> None:
    old = tunnel_of(ends)
    first, second = (end.host for end in ends)
    ping(first, second)
    new = replace(old, spis=(0x5000_0001, 0x5000_0002), seed=9)
    ends[1].call(lambda it: it.install(new.associations(1)))
    # The second end would send with what the first does not have yet; the first goes on to be heard.
    with listening(second):
        inner_datagram(first, second.inner)
        eventually(lambda: used(ends[1], SPIS[1]) > 3)
    ends[0].call(lambda it: it.install(new.associations(0)))
    stream(first, second, length=LENGTH)
    for end in ends:
        end.call(lambda it: it.remove([sa for sa in it._processor.associations if sa.spi in SPIS]))
    stream(first, second, length=LENGTH)
    assert used(ends[1], new.spis[1]) > 20
    assert not ends[0].dropped


def used(end: End, spi: int) -> int:
    """Packets that an association has carried."""
    return end.call(lambda it: sum(it.used(sa).packets for sa in it._processor.associations if sa.spi == spi))


def test_a_peer_is_followed_to_another_address_without_a_new_key(ends: tuple[End, End]) -> None:
    tunnel_of(ends)
    first, second = (end.host for end in ends)
    ping(first, second)
    before = used(ends[0], SPIS[1])
    elsewhere = ip_address("192.0.2.22")
    second.namespace.ip("addr", "add", f"{elsewhere}/24", "dev", WIRE)
    try:
        away = ip_address(second.address)

        def follow(installer: UserspaceInstaller) -> None:
            for sa in list(installer._processor.associations):
                changes = {name: elsewhere for name in ("source", "destination") if getattr(sa, name) == away}
                installer.move(sa, replace(sa, **changes))

        for end in ends:
            end.call(follow)
        stream(first, second, length=LENGTH)
        stream(second, first, length=LENGTH)
        assert used(ends[0], SPIS[1]) > before
        with pytest.raises(Refused):
            sa = ends[0].call(lambda it: next(iter(it._processor.associations)))
            ends[0].call(lambda it: it.move(sa, replace(sa, spi=0x7777_7777)))
    finally:
        second.namespace.ip("addr", "del", f"{elsewhere}/24", "dev", WIRE)


# --- what is left -----------------------------------------------------------------------------------------


def state_of(host: Host) -> list[str]:
    """Everything that an installer could leave behind."""
    run = host.namespace.run
    shown = [("rule",), ("route", "show", "table", "all"), ("-o", "link"), ("addr",)]
    return [run("ip", *family, *words) for words in shown for family in ((), ("-6",))]


def test_closing_removes_everything(laboratory: Laboratory) -> None:
    before = [state_of(host) for host in (laboratory.terminal, laboratory.peer)]
    for ends in both(laboratory):
        tunnel_of(ends)
        ping(ends[0].host, ends[1].host)
        assert state_of(laboratory.terminal) != before[0]
    assert [state_of(host) for host in (laboratory.terminal, laboratory.peer)] == before


def test_a_start_that_fails_leaves_nothing_behind(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    before = state_of(laboratory.terminal)
    really = Routing.open

    def fails(self: Routing) -> None:
        really(self)
        raise Unavailable("no more")

    monkeypatch.setattr(Routing, "open", fails)
    with pytest.raises(Unavailable, match="no more"), End(laboratory.terminal):
        pass
    assert state_of(laboratory.terminal) == before


def test_an_association_that_cannot_be_installed_takes_the_others_along(ends: tuple[End, End]) -> None:
    tunnel = Tunnel(first=ends[0].host, second=ends[1].host)
    inbound, outbound = tunnel.associations(0)
    with pytest.raises(Refused):
        ends[0].call(lambda it: it.install([outbound, inbound, replace(inbound)]))
    assert ends[0].call(lambda it: len(it._processor.associations)) == 0
    with pytest.raises(Refused, match="more than 4096 routes"):
        ends[0].call(lambda it: it.set_policies([wide_policy()]))
    assert ends[0].call(lambda it: len(it._processor.policies)) == 0


def wide_policy() -> Policy:
    remote = tuple(
        each for number in range(90) for each in parse_selectors(f"{number + 1}::1-{number + 1}:ffff::fffe")
    )
    return Policy(name="wide", action=Action.DISCARD, remote=remote)


_CRASHES = """
import asyncio
from locum.dataplane.userspace import UserspaceInstaller
async def main():
    UserspaceInstaller().start()
    print("started", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_what_a_killed_process_leaves_is_removed_by_the_next(laboratory: Laboratory) -> None:
    host = laboratory.terminal
    before = state_of(host)
    words = host.namespace.command([sys.executable, "-c", _CRASHES])
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.send_signal(signal.SIGKILL)
    assert state_of(host) != before
    with End(host):
        pass
    assert state_of(host) == before


def test_a_device_that_somebody_removes_is_told_and_the_rest_is_cleaned_up(laboratory: Laboratory) -> None:
    before = state_of(laboratory.terminal)
    with End(laboratory.terminal) as end:
        laboratory.terminal.namespace.ip("link", "del", end.call(lambda it: it.interface))

        def lost() -> bool:
            with suppress(Unavailable):
                end.call(lambda it: it.expired(0.0))
                return False
            return True

        eventually(lost)
    assert state_of(laboratory.terminal) == before


def test_a_strict_reverse_path_filter_is_told_before_it_drops_everything(ends: tuple[End, End]) -> None:
    first, second = (end.host for end in ends)
    tunnel = Tunnel(first=first, second=second, traffic=("any", "any"))
    first.namespace.set_kernel(f"net.ipv4.conf.{WIRE}.rp_filter", "1")
    try:
        with pytest.raises(Refused, match=f"set net.ipv4.conf.{WIRE}.rp_filter to 2"):
            tunnel.install(*ends)
        assert ends[0].call(lambda it: len(it._processor.policies)) == 0
        ends[0].call(lambda it: it.remove(list(it._processor.associations)))
        first.namespace.set_kernel(f"net.ipv4.conf.{WIRE}.rp_filter", "2")
        tunnel.install(*ends)
        ping(first, second)
    finally:
        first.namespace.set_kernel(f"net.ipv4.conf.{WIRE}.rp_filter", "0")


def test_two_installers_on_one_host_are_not_in_each_others_way(laboratory: Laboratory) -> None:
    before = state_of(laboratory.terminal)
    with End(laboratory.terminal) as one, End(laboratory.terminal) as other:
        names = {each.call(lambda it: it.interface) for each in (one, other)}
        assert len(names) == 2
    assert state_of(laboratory.terminal) == before


def test_reserved_spis_differ_and_are_no_reserved_numbers(ends: tuple[End, End]) -> None:
    spis = ends[0].call(lambda it: [it.reserve_spi() for _ in range(5000)])
    assert len(set(spis)) == 5000
    assert min(spis) > 255
    assert ends[0].call(lambda it: len(it._spis)) == MAX_RESERVED


def test_local_addresses_are_those_towards_the_peer(ends: tuple[End, End]) -> None:
    tunnel_of(ends, traffic=("any", "any"))
    first, second = (end.host for end in ends)

    def towards(address: str) -> str:
        def ask(installer: Any) -> str:
            with first.namespace.entered():
                return str(installer.local_address(ip_address(address)))

        return ends[0].call(ask)

    assert towards(second.address) == first.address
    assert towards(second.address6) == first.address6
    with pytest.raises(Unavailable, match=r"no way to 203\.0\.113\.9"):
        towards("203.0.113.9")
    assert IN_UDP.source_port == PORT
