"""The way of packets between the device and the sockets, with a device in memory."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from tests.support.ipsec import esp_sa, far_end, ipv4_packet, ipv6_packet
from tests.support.tcp import is_intact, tcp_packet

from locum.dataplane.forwarding import PACKETS_PER_TURN, Forwarding
from locum.dataplane.lanes import Lane
from locum.dataplane.tun import LARGEST_MTU, VNET_HEADER
from locum.ipsec.esp import EspSender
from locum.ipsec.ip import ICMP, IPV4, parse
from locum.ipsec.modes import EspOutbound, Outbound
from locum.ipsec.policy import Action, Policy, PolicyDatabase, Protection
from locum.ipsec.processor import Processor
from locum.ipsec.sa import Mode, UdpEncapsulation
from locum.ipsec.selectors import MAX_REMEMBERED_FLOWS, parse_selectors
from locum.ipsec.too_big import fragments

NAT = UdpEncapsulation(source_port=4500, destination_port=4500)
NEAR, FAR = parse_selectors("10.1.0.0/16"), parse_selectors("10.2.0.0/16")
SOURCE = ("198.51.100.2", 4500)


class MemoryDevice:
    """What a TUN device does, over a pair of sockets that keep packets apart."""

    def __init__(self) -> None:
        self._out, self._in = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._out.setblocking(False)
        self.descriptor = self._out.fileno()
        self.largest_mtu = LARGEST_MTU
        self.written: list[bytes] = []
        self.calls = 0
        self.broken = False

    def routes(self, *packets: bytes) -> None:
        """The host routes these to the device."""
        for packet in packets:
            self._in.send(bytes(VNET_HEADER) + packet)

    def write(self, packet: bytes) -> None:
        if self.broken:
            raise OSError(22, "Invalid argument")
        self.calls += 1
        self.written.append(packet)

    def write_segments(self, _kind: int, header: bytes, _size: int, segments: list[bytes]) -> None:
        self.write(header + b"".join(segments))

    def close(self) -> None:
        self._out.close()
        self._in.close()


class Bench:
    """A `Forwarding` with everything around it in memory."""

    def __init__(self, *policies: Policy, longest: int = 1400) -> None:
        self.device = MemoryDevice()
        self.processor = Processor(PolicyDatabase(policies or [protect()]))
        self.dropped: Counter[str] = Counter()
        self.sent: list[tuple[Outbound, int, list[bytes]]] = []
        self.plain: list[tuple[bytes, Any]] = []
        self.longest = longest
        self.opened = 0
        self.losses: list[bool] = []
        self.lanes: dict[tuple[Outbound, int, int], Lane] = {}
        self.forwarding = Forwarding(
            self.device,  # type: ignore[arg-type]
            self.processor,
            open_lane=self._open,
            send_plain=lambda packet, destination: self.plain.append((packet, destination)),
            dropped=self.dropped,
            now=lambda: 0.0,
            lost=lambda: self.losses.append(True),
        )
        self.no_socket = False

    def _open(self, outbound: Outbound, traffic_class: int) -> Lane | None:
        self.opened += 1
        if self.no_socket:
            return None
        lane = Lane(lambda packets: self.sent.append((outbound, traffic_class, packets)), self.longest)
        return self.lanes.setdefault((outbound, traffic_class, self.longest), lane)

    def add(self, *associations: Any) -> None:
        for sa in associations:
            self.processor.add(sa)
        self.forwarding.forget()

    def leave(self, *packets: bytes) -> list[list[bytes]]:
        """What is sent, in batches, when the host routes these to the device."""
        self.device.routes(*packets)
        self.sent.clear()
        self.forwarding.readable()
        return [packets for _, _, packets in self.sent]

    def arrive(self, *datagrams: bytes, traffic_class: int = 0) -> list[bytes]:
        """What is not ESP of these datagrams."""
        local = ip_address("192.0.2.1").packed
        return self.forwarding.arrived(list(datagrams), local, SOURCE, traffic_class)


def protect(**changes: Any) -> Policy:
    policy = Policy(name="all", action=Action.PROTECT, protection=Protection(), local=NEAR, remote=FAR)
    return replace(policy, **changes)


@pytest.fixture
def made() -> Iterator[list[Bench]]:
    benches: list[Bench] = []
    yield benches
    for each in benches:
        each.device.close()


@pytest.fixture
def bench(made: list[Bench]) -> Bench:
    made.append(Bench())
    made[0].add(esp_sa(encapsulation=NAT))
    return made[0]


# --- out --------------------------------------------------------------------------------------------------


def test_packets_of_one_turn_leave_in_one_batch_and_in_order(bench: Bench) -> None:
    packets = [ipv4_packet(bytes(count), ports=(count, 53)) for count in range(20)]
    assert bench.leave(*packets) == [packets]


def test_a_turn_takes_no_more_than_its_share(bench: Bench) -> None:
    packets = [ipv4_packet(number.to_bytes(2, "big")) for number in range(PACKETS_PER_TURN + 5)]
    assert bench.leave(*packets) == [packets[:PACKETS_PER_TURN]]
    assert bench.leave() == [packets[PACKETS_PER_TURN:]]
    assert bench.leave() == []


def test_a_flow_is_decided_once_and_anew_after_a_change(bench: Bench) -> None:
    bench.leave(*[ipv4_packet(bytes(count)) for count in range(9)])
    assert bench.opened == 1
    bench.forwarding.forget()
    bench.leave(ipv4_packet())
    assert bench.opened == 2


def test_flows_that_differ_in_anything_that_matters_are_told_apart(bench: Bench) -> None:
    flows = [
        ipv4_packet(),
        ipv4_packet(ports=(1, 53)),
        ipv4_packet(traffic_class=8),
        ipv4_packet(protocol=6, payload=bytes(20)),
        ipv4_packet(destination="10.2.0.2"),
    ]
    for _ in range(2):
        bench.leave(*flows)
    assert bench.opened == len(flows)
    assert {traffic_class for _, traffic_class, _ in bench.sent} == {0, 8}


def test_remembered_flows_are_bounded(bench: Bench) -> None:
    for number in range(MAX_REMEMBERED_FLOWS + 50):
        bench.leave(ipv4_packet(ports=(number & 0xFFFF, 53)))
    assert 0 < len(bench.forwarding._lanes) <= MAX_REMEMBERED_FLOWS


def test_what_the_policy_discards_or_nobody_protects_is_dropped_and_counted(made: list[Bench]) -> None:
    bench = Bench(Policy(name="no", action=Action.DISCARD, remote=parse_selectors("10.2.9.0/24")), protect())
    made.append(bench)
    assert bench.leave(ipv4_packet(), ipv4_packet(destination="10.2.9.1"), b"\x45junk", b"\x00", bytes(60)) == []
    assert bench.dropped == {"MissingAssociation": 1, "DiscardedByPolicy": 1, "DecodeError": 3}


def test_without_a_socket_packets_are_dropped_and_counted(bench: Bench) -> None:
    bench.no_socket = True
    assert bench.leave(ipv4_packet(), ipv4_packet()) == []
    assert bench.dropped == {"no socket to send it": 2}


def test_bypassed_packets_leave_as_they_are(made: list[Bench]) -> None:
    bench = Bench(Policy(name="clear", action=Action.BYPASS))
    made.append(bench)
    bench.leave(ipv4_packet(), ipv4_packet(destination="224.0.1.1"))
    assert bench.plain == [
        (ipv4_packet(), ip_address("10.2.0.1")),
        (ipv4_packet(destination="224.0.1.1"), ip_address("224.0.1.1")),
    ]


@pytest.mark.parametrize(
    "destination", ["ff02::16", "ff01::1", "fe80::9", "169.254.3.4", "224.0.0.251", "255.255.255.255"]
)
def test_what_is_for_the_link_of_the_device_goes_nowhere(made: list[Bench], destination: str) -> None:
    bench = Bench(protect(local=parse_selectors("any"), remote=parse_selectors("any")))
    made.append(bench)
    bench.add(esp_sa(encapsulation=NAT))
    make = ipv6_packet if ":" in destination else ipv4_packet
    assert bench.leave(make(destination=destination)) == []
    assert bench.dropped == {"for the link of the device": 1}


def test_the_sender_of_a_packet_that_is_too_long_is_told(bench: Bench) -> None:
    bench.longest = 1000
    long = ipv4_packet(bytes(1100))
    for _ in range(2):
        assert bench.leave(long) == []
    assert bench.dropped == {"longer than the path takes": 2}
    assert [parse(message).protocol for message in bench.device.written] == [ICMP, ICMP]
    assert bench.device.written[0].endswith(long[: 576 - 28])
    cut = ipv4_packet(bytes(1100), dont_fragment=False)
    assert bench.leave(cut) == [[cut]]


def test_every_path_takes_what_its_ip_version_promises(made: list[Bench]) -> None:
    bench = Bench(protect(local=parse_selectors("any"), remote=parse_selectors("any")), longest=100)
    made.append(bench)
    bench.add(esp_sa(encapsulation=NAT))
    four, six = ipv4_packet(bytes(576 - 28)), ipv6_packet(bytes(1280 - 48))
    assert bench.leave(four, six) == [[four, six]]
    longer = ipv4_packet(bytes(577 - 28)), ipv6_packet(bytes(1281 - 48))
    assert bench.leave(*longer) == []


def test_fragments_pass_where_ports_do_not_matter(bench: Bench) -> None:
    pieces = fragments(ipv4_packet(bytes(3000), dont_fragment=False), 1400, 0)
    assert [piece for batch in bench.leave(*pieces) for piece in batch] == pieces


@pytest.mark.parametrize("mode", list(Mode))
def test_fragments_are_put_together_where_they_must_be(made: list[Bench], mode: Mode) -> None:
    bench = Bench(protect(remote=parse_selectors("10.2.0.0/16[udp/53]")))
    made.append(bench)
    ends = {"source": ip_address("10.1.0.1"), "destination": ip_address("10.2.0.1")}
    bench.add(esp_sa(encapsulation=NAT, mode=mode, **ends))
    packet = ipv4_packet(bytes(3000), dont_fragment=False)
    for _ in range(2):
        assert bench.leave(*fragments(packet, 1400, 0)) == [[packet]]
    other = ipv4_packet(bytes(3000), dont_fragment=False, ports=(1, 54), identification=1)
    assert bench.leave(*fragments(other, 1400, 0)) == []
    assert bench.dropped == {"DiscardedByPolicy": 1}
    assert bench.leave(*fragments(packet, 1400, 0)[1:]) == []


# --- in ---------------------------------------------------------------------------------------------------


@pytest.fixture
def sender(bench: Bench) -> EspSender:
    """The far end of an association that `bench` receives with."""
    sa = esp_sa(spi=0x7777_7777, encapsulation=NAT, local=FAR, remote=NEAR + parse_selectors("fd00::/16"))
    bench.add(far_end(sa))
    return EspSender(sa)


def back(payload: bytes = b"", **changes: Any) -> bytes:
    return ipv4_packet(payload, source="10.2.0.1", destination="10.1.0.1", **changes)


def test_what_arrives_is_delivered_in_order_and_what_is_bad_is_dropped_and_counted(
    bench: Bench, sender: EspSender
) -> None:
    packets = [back(bytes(count)) for count in range(3)]
    sealed = sender.seal_packets(packets)
    forged = sender.seal(b"no IP packet", IPV4)
    (stranger,) = sender.seal_packets([ipv4_packet(source="10.3.0.1", destination="10.1.0.1")])
    altered = sealed[0][:-1] + bytes((sealed[0][-1] ^ 1,))
    unknown = b"\x12\x34\x56\x78" + bytes(40)
    rest = bench.arrive(
        altered, sealed[0], sealed[1], sealed[1], sender.dummy(30), forged, stranger, unknown, sealed[2]
    )
    assert rest == []
    assert bench.device.written == packets
    assert bench.dropped == {
        "AuthenticationFailed": 1,
        "DecodeError": 1,
        "Replayed": 1,
        "SelectorMismatch": 1,
        "UnknownAssociation": 1,
    }


def test_what_is_not_esp_is_handed_back(bench: Bench, sender: EspSender) -> None:
    (sealed,) = sender.seal_packets([back()])
    assert bench.arrive(bytes(4) + b"ike", sealed, b"\xff", b"") == [bytes(4) + b"ike", b"\xff", b""]
    assert bench.device.written == [back()]


def test_a_stream_is_delivered_in_one_piece(bench: Bench) -> None:
    sa = esp_sa(spi=0x7777_7777, encapsulation=NAT)
    bench.add(far_end(sa))
    segments = [tcp_packet(1 + number * 1000, bytes(1000)) for number in range(20)]
    bench.arrive(*EspSender(sa).seal_packets(segments))
    assert bench.device.calls == 1
    assert is_intact(bench.device.written[0])


def test_a_stream_that_the_association_may_not_carry_is_dropped_as_a_whole(
    bench: Bench, sender: EspSender
) -> None:
    segments = [tcp_packet(1 + number * 1000, bytes(1000)) for number in range(20)]
    bench.arrive(*sender.seal_packets(segments))
    assert bench.device.written == []
    assert bench.dropped == {"SelectorMismatch": 20}


def test_several_associations_may_come_mixed(bench: Bench, sender: EspSender) -> None:
    other = esp_sa(spi=0x8888_8888, encapsulation=NAT)
    bench.add(far_end(other))
    packets = [back(bytes(count)) for count in range(6)]
    sealed = [*sender.seal_packets(packets[:3]), *EspSender(other).seal_packets(packets[3:])]
    order = (0, 3, 1, 4, 5, 2)
    bench.arrive(*(sealed[index] for index in order))
    assert bench.device.written == [packets[index] for index in order]


def test_congestion_is_marked_inside(bench: Bench, sender: EspSender) -> None:
    capable, not_capable = back(traffic_class=2), back()
    bench.arrive(*sender.seal_packets([capable, not_capable]), traffic_class=3)
    assert [parse(packet).traffic_class for packet in bench.device.written] == [3]
    assert bench.dropped == {"CongestionMarkLost": 1}


def test_transport_mode_gets_a_header_of_the_datagrams_addresses(bench: Bench) -> None:
    ends = {"source": ip_address(SOURCE[0]), "destination": ip_address("192.0.2.1")}
    sa = esp_sa(spi=0x9999_9999, encapsulation=NAT, mode=Mode.TRANSPORT, **ends)
    bench.add(far_end(sa))
    packet = ipv4_packet(bytes(100), source=SOURCE[0], destination="192.0.2.1")
    # Without a checksum, there is none to repair.
    bench.arrive(*EspOutbound(sa).payloads([packet]))
    assert bench.device.written == [packet]


def test_an_association_without_encapsulation_takes_nothing_from_udp(bench: Bench) -> None:
    sa = esp_sa(spi=0x9999_9999)
    bench.add(far_end(sa))
    bench.arrive(*EspSender(sa).seal_packets([back()]))
    assert bench.dropped == {"UnknownAssociation": 1}


def test_bare_packets_are_opened_too(bench: Bench) -> None:
    sa = esp_sa(spi=0x9999_9999)
    bench.add(far_end(sa))
    sealed = EspOutbound(sa).protect(back())
    for packet in (sealed, sealed, b"junk"):
        bench.forwarding.arrived_bare(packet)
    bench.forwarding.arrived_bare(ipv4_packet())
    assert bench.device.written == [back()]
    assert bench.dropped == {"Replayed": 1, "DecodeError": 1, "DiscardedByPolicy": 1}


def test_what_the_host_does_not_take_is_counted(bench: Bench, sender: EspSender) -> None:
    bench.device.broken = True
    bench.arrive(*sender.seal_packets([back()]))
    assert bench.dropped == {"not taken by this host: Invalid argument": 1}


def test_a_device_that_is_gone_is_told_and_what_was_read_before_is_sent(bench: Bench) -> None:
    bench.device.routes(ipv4_packet())
    bench.forwarding.readable()
    assert not bench.losses
    descriptor, bench.device.descriptor = bench.device.descriptor, -1
    bench.forwarding.readable()
    assert bench.losses == [True]
    bench.device.descriptor = descriptor
