"""Fuzz targets of the data planes: what peers send through a tunnel, and what a kernel answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from tests.support.ipsec import esp_sa
from tests.support.tcp import is_intact, tcp_packet

from locum.dataplane import kernel_netlink, rtnetlink, xfrm
from locum.dataplane.datagrams import runs
from locum.dataplane.gathering import gather
from locum.errors import LocumError
from locum.ipsec.ip import inner_length


def _packets(data: bytes) -> list[bytes]:
    """IP packets as they come out of a tunnel, each as long as it says; a byte in front of each says how long."""
    found = []
    position = 0
    while position < len(data):
        length = 20 + data[position]
        packet = data[position + 1 : position + 1 + length]
        position += 1 + length
        if packet:
            try:
                found.append(packet[: inner_length(packet, len(packet), 4 if packet[0] >> 4 == 4 else 41)])
            except LocumError:
                continue
    return found


def _gathered(data: bytes) -> None:
    """No byte is lost or added, and what was intact still is."""
    packets = _packets(data)
    pieces = list(gather(packets))
    assert sum(1 if piece.segments is None else len(piece.segments.segments) for piece in pieces) == len(packets)
    position = 0
    for first, segments in pieces:
        assert first == packets[position]
        if segments is None:
            position += 1
            continue
        end = position + len(segments.segments)
        whole = segments.header + b"".join(segments.segments)
        assert whole.endswith(packets[end - 1][len(segments.header) :])
        try:
            intact = all(is_intact(packet) for packet in packets[position:end])
        except LocumError:
            intact = False
        assert is_intact(whole) or not intact
        position = end


def _runs(data: bytes) -> None:
    packets = [bytes(1 + size) for size in data]
    assert [packet for _, run in runs(packets) for packet in run] == packets


def _netlink(data: bytes) -> None:
    for parse in (rtnetlink.Rule.parse, rtnetlink.parse_address, rtnetlink.parse_way):
        try:
            parse(data)
        except LocumError:
            continue


def _kernel_answers(data: bytes) -> None:
    """What comes out of a netlink socket, and what each message of it is read as."""
    bodies = []
    with suppress(LocumError):
        for _, flags, _, body in kernel_netlink._messages(data):
            bodies.append(body)
            kernel_netlink._check(body, flags)
    for read in (xfrm.parse_spi, xfrm.parse_progress, xfrm.parse_policy_number):
        for body in (data, *bodies):
            with suppress(LocumError):
                read(body)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "gathered": _gathered,
    "runs": _runs,
    "netlink": _netlink,
    "kernel_answers": _kernel_answers,
}

_STREAM = [tcp_packet(1 + 40 * number, bytes(40)) for number in range(5)]
_STREAM6 = [tcp_packet(1 + 40 * number, bytes(40), ipv6=True) for number in range(5)]


def _told(kind: int, body: bytes, *, flags: int = 0) -> bytes:
    """A message of the kernel's."""
    return kernel_netlink._HEADER.pack(kernel_netlink._HEADER.size + len(body), kind, flags, 1, 0) + body


_STATE = xfrm.state(esp_sa(), 1)
_REFUSAL = kernel_netlink._CODE.pack(-22) + bytes(16) + kernel_netlink.attribute(1, b"no such mode\0")
SEEDS: dict[str, tuple[bytes, ...]] = {
    "gathered": tuple(
        b"".join(bytes((len(each) - 20,)) + each for each in stream) for stream in (_STREAM, _STREAM6)
    ),
    "runs": (bytes((9, 9, 9, 3, 9)),),
    "netlink": (rtnetlink.Rule(2, 0x4C00_0001, 7, 4500, 76).write(),),
    "kernel_answers": (_STATE, _told(xfrm.NEW_STATE, _STATE), _told(kernel_netlink._ERROR, _REFUSAL, flags=0x300)),
}
