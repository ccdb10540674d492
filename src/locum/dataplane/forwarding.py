"""The way of packets between the TUN device and the sockets, in batches, and what is dropped on it.

Knows no route and no key: whom a packet belongs to, `ipsec.processor` says. It decides once for every flow.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_address

from locum.dataplane.datagrams import Source
from locum.dataplane.gathering import gather
from locum.dataplane.lanes import Lane
from locum.dataplane.tun import LARGEST_MTU, LEAST_IPV6_MTU, LEAST_MTU, VNET_HEADER, TunDevice
from locum.errors import LocumError
from locum.ipsec.ip import TCP, UDP, parse
from locum.ipsec.modes import EspInbound, Outbound, with_congestion
from locum.ipsec.policy import Policy
from locum.ipsec.processor import Processor
from locum.ipsec.reassembly import Reassembly
from locum.ipsec.sa import Mode, Protocol
from locum.ipsec.selectors import MAX_REMEMBERED_FLOWS, Address
from locum.ipsec.too_big import may_be_cut, too_big
from locum.ipsec.udp import NON_ESP_MARKER

#: Packets from the device in one turn of the event loop: others want their turn too.
PACKETS_PER_TURN = 128

#: What tells a flow in IPv4: version, header length and traffic class; fragmentation; protocol; addresses, ports.
_FLOW4 = struct.Struct("!H4xHxB2x12s")
#: And in IPv6: version, traffic class and flow label; next header; addresses and ports.
_FLOW6 = struct.Struct("!I2xBx36s")
_PLAIN_IPV4 = 0x45
_WITH_PORTS = frozenset((TCP, UDP))
_LEAST_ESP = 8

#: Sends IP packets that a policy lets go as they are, to this destination.
SendPlain = Callable[[bytes, Address], None]
#: Makes what sends the packets of an association with this traffic class; None when it cannot be sent.
OpenLane = Callable[[Outbound, int], Lane | None]
_Key = tuple[int, int, int, bytes] | tuple[int, int, bytes]


class Forwarding:
    """Moves packets. Not for use by several threads at a time; `dropped` counts by reason what goes no further."""

    def __init__(
        self,
        device: TunDevice,
        processor: Processor,
        *,
        open_lane: OpenLane,
        send_plain: SendPlain,
        dropped: Counter[str],
        now: Callable[[], float],
        lost: Callable[[], None],
    ) -> None:
        """`now` gives the time in seconds, and never runs backwards; `lost` is called when the device is gone."""
        self._lost = lost
        self._device = device
        self._processor = processor
        self._open_lane = open_lane
        self._send_plain = send_plain
        self._dropped = dropped
        self._now = now
        self._lanes: dict[_Key, Lane] = {}
        self._reassembly = Reassembly()
        self._whole_only = False

    def forget(self) -> None:
        """Decide anew about every flow: associations or policies have changed."""
        self._lanes.clear()
        self._whole_only = self._processor.needs_whole_packets

    # --- out ----------------------------------------------------------------------------------------------

    def readable(self) -> None:
        """Protect and send what the device has, as much as one turn allows."""
        read, descriptor, size = os.read, self._device.descriptor, VNET_HEADER + self._device.largest_mtu
        lanes = self._lanes
        busy: list[Lane] = []
        try:
            for _ in range(PACKETS_PER_TURN):
                packet = read(descriptor, size)[VNET_HEADER:]
                try:
                    lane = lanes[
                        _FLOW4.unpack_from(packet) if packet[0] == _PLAIN_IPV4 else _FLOW6.unpack_from(packet)
                    ]
                except (KeyError, struct.error, IndexError):
                    known = self._lane_of(packet)
                    if known is None:
                        continue
                    lane, whole = known
                else:
                    whole = packet
                # What came in fragments may leave in fragments.
                if len(packet) > lane.longest and whole is packet and not self._may_go(packet, lane.longest):
                    continue
                if not lane.packets:
                    busy.append(lane)
                lane.packets.append(whole)
        except BlockingIOError:
            pass
        except OSError:
            self._lost()
        for lane in busy:
            packets, lane.packets = lane.packets, []
            lane.send(packets)

    def _lane_of(self, packet: bytes) -> tuple[Lane, bytes] | None:
        """Where a packet of a flow that is not known goes, and the packet; None when it goes no further now."""
        try:
            ip = parse(packet)
            if _stays_on_link(ip.destination):
                # It speaks to whoever is on the device's own link, and nobody is.
                self._dropped["for the link of the device"] += 1
                return None
            if ip.fragment and self._whole_only:
                whole = self._reassembly.take(packet, self._now())
                if whole is None:
                    return None
                packet, ip = whole, parse(whole)
            chosen = self._processor.choose(packet)
        except LocumError as error:
            self._dropped[_name(error)] += 1
            return None
        if isinstance(chosen, Policy):
            lane = self._plain_lane(ip.destination)
        else:
            opened = self._open_lane(chosen, ip.traffic_class)
            if opened is None:
                self._dropped["no socket to send it"] += 1
                return None
            lane = opened
        # Only what shows its ports in the plainest place has a key that says all that matters.
        if ip.protocol in _WITH_PORTS and not ip.fragment and not ip.extensions and ip.length >= ip.payload + 4:
            if packet[0] == _PLAIN_IPV4:
                self._remember(_FLOW4.unpack_from(packet), lane)
            elif ip.version == 6:
                self._remember(_FLOW6.unpack_from(packet), lane)
        return lane, packet

    def _remember(self, key: _Key, lane: Lane) -> None:
        if len(self._lanes) >= MAX_REMEMBERED_FLOWS:
            self._lanes.clear()
        self._lanes[key] = lane

    def _plain_lane(self, destination: bytes) -> Lane:
        address = ip_address(destination)

        def send(packets: list[bytes]) -> None:
            for packet in packets:
                self._send_plain(packet, address)

        return Lane(send, LARGEST_MTU)

    def _may_go(self, packet: bytes, longest: int) -> bool:
        """True for a packet that may be cut on its way; else its sender is told, and it is dropped."""
        if packet[0] >> 4 == 6:
            longest = max(longest, LEAST_IPV6_MTU)
        else:
            longest = max(longest, LEAST_MTU)
        if len(packet) <= longest or may_be_cut(packet):
            return True
        self._dropped["longer than the path takes"] += 1
        message = too_big(packet, longest)
        if message is not None:
            self._write(message)
        return False

    # --- in -----------------------------------------------------------------------------------------------

    def arrived(self, datagrams: list[bytes], local: bytes, source: Source, traffic_class: int) -> list[bytes]:
        """Take ESP that came in UDP; a `datagrams.ReceiveEsp`. Returns what is not ESP."""
        others: list[bytes] = []
        packets: list[bytes] = []
        current: EspInbound | None = None
        index = 0
        while index < len(datagrams):
            datagram = datagrams[index]
            receiver = self._receiver_of(datagram)
            if receiver is None:
                if len(datagram) < _LEAST_ESP or datagram[:4] == NON_ESP_MARKER:
                    others.append(datagram)
                else:
                    self._dropped["UnknownAssociation"] += 1
                index += 1
                continue
            if receiver is not current:
                self._deliver(current, packets, traffic_class)
                current, packets = receiver, []
            if receiver.sa.mode is Mode.TUNNEL:
                opened, end = receiver.receiver.open_run(datagrams, index)
                if opened:
                    packets += opened
                    index = end
                    continue
            index += 1
            try:
                if receiver.sa.mode is Mode.TUNNEL:
                    inner = receiver.receiver.open_packet(datagram)
                    if inner is not None:
                        packets.append(inner)
                else:
                    address = ip_address(source[0]).packed
                    inner = receiver.unprotect_datagram(datagram, address, local, traffic_class=traffic_class)
                    if inner is not None:
                        self._write(inner)
            except LocumError as error:
                self._dropped[_name(error)] += 1
        self._deliver(current, packets, traffic_class)
        return others

    def _receiver_of(self, datagram: bytes) -> EspInbound | None:
        receiver = self._processor.receiver(Protocol.ESP, int.from_bytes(datagram[:4], "big"))
        return receiver if isinstance(receiver, EspInbound) and receiver.sa.encapsulation else None

    def arrived_bare(self, packet: bytes) -> None:
        """Take an IP packet with ESP or AH in it; a `raw.ReceivePacket`."""
        try:
            inner = self._processor.unprotect(packet)
        except LocumError as error:
            self._dropped[_name(error)] += 1
        else:
            if inner is not None:
                self._write(inner)

    def _deliver(self, receiver: EspInbound | None, packets: list[bytes], traffic_class: int) -> None:
        """Give the host what came out of a tunnel, behind outer headers with this traffic class."""
        if receiver is None:
            return
        if traffic_class & 3:
            packets = list(self._marked(packets, traffic_class))
        for first, segments in gather(packets):
            try:
                # All of them are between the same ports.
                receiver.check(first)
                if segments is None:
                    self._device.write(first)
                else:
                    self._device.write_segments(*segments)
            except LocumError as error:
                self._dropped[_name(error)] += 1 if segments is None else len(segments.segments)
            except OSError as error:
                self._refused(error)

    def _marked(self, packets: list[bytes], traffic_class: int) -> Iterator[bytes]:
        for packet in packets:
            try:
                yield with_congestion(packet, traffic_class)
            except LocumError as error:
                self._dropped[_name(error)] += 1

    def _write(self, packet: bytes) -> None:
        try:
            self._device.write(packet)
        except OSError as error:
            self._refused(error)

    def _refused(self, error: OSError) -> None:
        self._dropped[f"not taken by this host: {error.strerror}"] += 1


def _stays_on_link(destination: bytes) -> bool:
    """True for addresses that no router passes on (RFC 3927, 4291 section 2.5.6, 5771 section 4, 7346)."""
    if len(destination) == 4:
        return destination[:2] == b"\xa9\xfe" or destination[:3] == b"\xe0\0\0" or destination == b"\xff" * 4
    first, second = destination[:2]
    return (first == 0xFE and second & 0xC0 == 0x80) or (first == 0xFF and second & 0x0F <= 2)


def _name(error: LocumError) -> str:
    return type(error).__name__
