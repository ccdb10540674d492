"""What the tests of the kernel installer have done in a guest (uml.py): two hosts, and the traffic between them.

The functions are called from outside; the network and the installers stay from call to call. `left` and `right`
are the hosts, `end` is the name of one of them. Between them is a router, where the traffic is looked at: a host
shows a packet twice, also without the tunnel that it came through.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import count

from locum.dataplane import xfrm
from locum.dataplane.kernel import KernelInstaller
from locum.dataplane.kernel_netlink import NetlinkSocket
from locum.demo.laboratory import EAST, WEST, WIRE, Host, Laboratory, Middle
from locum.demo.namespaces import Namespace
from locum.errors import LocumError
from locum.ipsec.installer import Port, Used
from locum.ipsec.ip import ICMPV6, checksum, flow_of
from locum.ipsec.policy import Policy
from locum.ipsec.sa import Expiry, SecurityAssociation

#: Seconds that a packet may take in the guest, on a machine with much else to do; and that are waited for one that
#: is not to come.
PATIENCE = 5.0
SILENCE = 0.3
_ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
_ALL_PROTOCOLS = 0x0003
_ETHERNET = 14
_LONGEST = 1 << 16
#: Router and neighbour discovery, which is not what the tests are about: type * 256.
_NEIGHBOURS = range(133 << 8, 138 << 8)
#: ICMP's types for an echo request and its reply.
ECHO = {4: (8, 0), 6: (128, 129)}
IDENTIFIER = 0x6C6F
#: Where struct xfrm_userpolicy_info has the direction, and from where on it is one of a socket's policies.
_DIRECTION_PLACE, _OF_SOCKETS = 160, 3


class Ends:
    """Two hosts with an installer each, and sockets on the router."""

    def __init__(self, running: ExitStack) -> None:
        laboratory = running.enter_context(Laboratory(Middle.ROUTER))
        router = laboratory.middle
        assert router is not None
        self.hosts: dict[str, Host] = {"left": laboratory.terminal, "right": laboratory.peer}
        self.installers: dict[str, KernelInstaller] = {}
        self.ports: dict[str, Port] = {}
        self.received: list[tuple[object, ...]] = []
        for end, host in self.hosts.items():
            for network, address in ((host.network, host.address), (host.network6, host.address6)):
                router.ip("route", "add", network, "via", address)
            self.start(end)
        running.callback(lambda: [installer.close() for installer in self.installers.values()])
        self.seen, self.injecting = (
            router.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS)) for _ in range(2)
        )
        for sock, interface in ((self.seen, WEST), (self.injecting, EAST)):
            running.callback(sock.close)
            sock.bind((interface, _ALL_PROTOCOLS))
            sock.setblocking(False)
        self.header = _mac(self.hosts["right"].namespace, WIRE) + _mac(router, EAST)

    def start(self, end: str) -> None:
        """A new installer for `end`; one that was there before is forgotten as if it had been killed."""
        self.installers[end] = KernelInstaller()
        with self.hosts[end].namespace.entered():
            self.installers[end].start()


def _mac(namespace: Namespace, interface: str) -> bytes:
    address: str = json.loads(namespace.ip("-j", "link", "show", interface))[0]["address"]
    return bytes.fromhex(address.replace(":", ""))


_running = ExitStack()
_made: list[Ends] = []
_loop = asyncio.new_event_loop()
_echoes = count(1)


def _ends() -> Ends:
    if not _made:
        _made.append(Ends(_running))
    return _made[0]


# --- installers -------------------------------------------------------------------------------------------


def addresses() -> dict[str, dict[str, str]]:
    """The addresses of both hosts: `address`, `address6`, `inner`, `inner6`."""
    names = ("address", "address6", "inner", "inner6")
    return {end: {name: getattr(host, name) for name in names} for end, host in _ends().hosts.items()}


def install(end: str, associations: Sequence[SecurityAssociation]) -> None:
    """Install these."""
    _ends().installers[end].install(associations)


def remove(end: str, associations: Sequence[SecurityAssociation]) -> None:
    """Remove these."""
    _ends().installers[end].remove(associations)


def move(end: str, old: SecurityAssociation, new: SecurityAssociation) -> None:
    """Put one in the place of the other."""
    _ends().installers[end].move(old, new)


def set_policies(end: str, policies: Sequence[Policy]) -> None:
    """Set these."""
    _ends().installers[end].set_policies(policies)


def refusal(function: str, end: str, *arguments: object) -> tuple[str, str]:
    """The class and the text of the error that a method of an installer raises."""
    try:
        getattr(_ends().installers[end], function)(*arguments)
    except LocumError as error:
        return type(error).__name__, str(error)
    raise AssertionError(f"{function} raised nothing")


def expired(end: str, now: float) -> list[tuple[SecurityAssociation, Expiry]]:
    """Those that have expired."""
    return _ends().installers[end].expired(now)


def used(end: str, sa: SecurityAssociation) -> Used:
    """What one has carried."""
    return _ends().installers[end].used(sa)


def reserve_spis(end: str, number: int) -> list[int]:
    """So many SPIs."""
    return [_ends().installers[end].reserve_spi() for _ in range(number)]


def begin_anew() -> None:
    """End both installers, which leaves nothing in the kernel, and start others."""
    for end in _ends().hosts:
        _ends().installers[end].close()
    left = left_over()
    for end in _ends().hosts:
        ip(end, "xfrm", "state", "flush")
        ip(end, "xfrm", "policy", "flush")
        _ends().start(end)
    assert not left, f"{left} associations and policies were left in the kernel"


def be_killed(end: str) -> None:
    """Forget the installer of `end` without closing it, and start another."""
    _ends().start(end)


def open_port(end: str, number: int, encapsulated: bool) -> None:
    """Open a port of `end`, whose messages `messages` gives."""

    async def opened() -> None:
        with _ends().hosts[end].namespace.entered():
            _ends().ports[end] = (
                _ends()
                .installers[end]
                .open_port(number, lambda *received: _ends().received.append(received), encapsulated=encapsulated)
            )

    _loop.run_until_complete(opened())


def send_message(end: str, message: bytes, source: str, destination: str, number: int) -> list[tuple[object, ...]]:
    """Send an IKE message from the port of `end`: what was received at any port."""
    _ends().received.clear()
    _ends().ports[end].send(message, ip_address(source), ip_address(destination), number)
    until = time.monotonic() + PATIENCE
    while not _ends().received and time.monotonic() < until:
        _loop.run_until_complete(asyncio.sleep(0.002))
    return list(_ends().received)


def shown(end: str, what: str) -> str:
    """What `ip xfrm state` or `ip xfrm policy` prints."""
    return ip(end, "xfrm", what)


def ip(end: str, *words: str) -> str:
    """What a command of `ip` prints."""
    with _ends().hosts[end].namespace.entered():
        return subprocess.run(["ip", *words], stdout=subprocess.PIPE, text=True, check=True).stdout


def left_over() -> int:
    """How many associations and policies the kernel has in both hosts, those of sockets aside."""
    found = 0
    for host in _ends().hosts.values():
        with host.namespace.entered():
            kernel = NetlinkSocket(socket.NETLINK_XFRM)
        policies = [struct.unpack_from("B", body, _DIRECTION_PLACE)[0] for body in kernel.dump(xfrm.GET_POLICY)]
        found += len(kernel.dump(xfrm.GET_STATE)) + sum(direction < _OF_SOCKETS for direction in policies)
        kernel.close()
    return found


# --- traffic ----------------------------------------------------------------------------------------------


def ping(end: str, source: str, destination: str, answered: bool = True) -> bool:
    """Send an echo request from `source`: True when the reply comes. `answered` says what is expected.

    What the host itself refuses to send is not answered either.
    """
    version = ip_address(source).version
    family, protocol = (
        (socket.AF_INET, socket.IPPROTO_ICMP) if version == 4 else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    )
    request = echo_request(version, next(_echoes), bytes(56))
    with _ends().hosts[end].namespace.socket(family, socket.SOCK_RAW, protocol) as sock:
        sock.bind((source, 0))
        try:
            sock.sendto(request, (destination, 0))
        except OSError:
            return False
        until = time.monotonic() + (PATIENCE if answered else SILENCE)
        while (left := until - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                received = sock.recv(_LONGEST)
            except TimeoutError:
                return False
            reply = received[(received[0] & 15) * 4 :] if version == 4 else received
            if reply[0] == ECHO[version][1] and reply[4:] == request[4:]:
                return True
    return False


def echo_request(version: int, number: int, payload: bytes) -> bytes:
    """An ICMP message; the checksum of ICMPv6 is filled in by the kernel."""
    message = struct.pack("!BBHHH", ECHO[version][0], 0, 0, IDENTIFIER, number) + payload
    if version == 6:
        return message
    return message[:2] + checksum(message).to_bytes(2, "big") + message[4:]


def wire(expected: int) -> list[bytes]:
    """The IP packets that came by since the last call, in both directions; waits for `expected` of them."""
    found: list[bytes] = []
    until = time.monotonic() + PATIENCE
    while True:
        try:
            frame = _ends().seen.recv(_LONGEST)
        except BlockingIOError:
            if len(found) >= expected or time.monotonic() > until:
                return found
            time.sleep(0.002)
            continue
        packet = frame[_ETHERNET:]
        if frame[12:14] in _ETHERTYPES.values() and not _of_neighbours(packet):
            found.append(packet)


def _of_neighbours(packet: bytes) -> bool:
    flow = flow_of(packet)
    # Multicast of any kind: hosts announce themselves.
    return flow.destination[:1] == b"\xff" or (flow.protocol == ICMPV6 and flow.source_port in _NEIGHBOURS)


def inject(packets: Sequence[bytes]) -> None:
    """Put these IP packets on the wire as if the left host had sent them."""
    for packet in packets:
        _ends().injecting.send(_ends().header + _ETHERTYPES[packet[0] >> 4] + packet)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What both installers are told, by end."""

    associations: Mapping[str, Sequence[SecurityAssociation]]
    policies: Mapping[str, Sequence[Policy]]


def set_up(setting: Setting) -> None:
    """Tell the installers."""
    for end, policies in setting.policies.items():
        set_policies(end, policies)
    for end, associations in setting.associations.items():
        install(end, associations)
    wire(0)


def take_down(setting: Setting) -> int:
    """Tell the installers to remove it: how much is left in the kernel then."""
    for end, associations in setting.associations.items():
        remove(end, associations)
    for end in setting.policies:
        set_policies(end, ())
    return left_over()


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came of pings: how many were answered, what was on the wire, what the left kernel showed and kept."""

    answered: int
    wire: Sequence[bytes]
    states: str
    left_over: int


def protected_pings(setting: Setting, source: str, destination: str, number: int) -> Seen:
    """Set up, ping from the left, take down."""
    set_up(setting)
    answered = sum(ping("left", source, destination) for _ in range(number))
    on_wire = wire(2 * number)
    states = shown("left", "state")
    return Seen(answered=answered, wire=on_wire, states=states, left_over=take_down(setting))


def answers(setting: Setting, packets: Sequence[bytes], expected: int) -> list[bytes]:
    """Set up, put packets on the wire as from the left, take down: what came from the right."""
    set_up(setting)
    inject(packets)
    found = wire(expected)
    take_down(setting)
    return found
