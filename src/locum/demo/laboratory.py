"""A small network of namespaces for IPsec: terminal, peer, delegate, and what may stand between the first two.

Knows addresses and wires, and nothing of what anybody says over them. The addresses are those for documentation
(RFC 5737, RFC 3849), and private ones behind the two ends.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum, auto
from ipaddress import IPv4Interface, IPv6Interface
from types import TracebackType
from typing import Self

from locum.demo.namespaces import Namespace, connect
from locum.demo.programs import require_program

#: The interface of either end on the wire between them, and of the terminal on its link to the delegate.
WIRE = "eth0"
LINK = "link0"
#: The interfaces of the namespace in the middle.
WEST, EAST = "west", "east"


class Middle(Enum):
    """What is between the terminal and the peer."""

    #: A wire.
    NOTHING = auto()
    #: A namespace that forwards nothing by itself, without addresses: for programs that sit on the wire.
    CUT = auto()
    #: A router, and one that hides the terminal's network behind its own address (IPv4).
    ROUTER = auto()
    NAT = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One end: its namespace, its addresses on the wire, and its own ones in the network behind it."""

    namespace: Namespace
    wire: IPv4Interface
    wire6: IPv6Interface
    inside: IPv4Interface
    inside6: IPv6Interface

    @property
    def address(self) -> str:
        """Its IPv4 address on the wire."""
        return str(self.wire.ip)

    @property
    def address6(self) -> str:
        """Its IPv6 address on the wire."""
        return str(self.wire6.ip)

    @property
    def inner(self) -> str:
        """Its IPv4 address in the network behind it."""
        return str(self.inside.ip)

    @property
    def inner6(self) -> str:
        """Its IPv6 address in the network behind it."""
        return str(self.inside6.ip)

    @property
    def network(self) -> str:
        """The IPv4 network behind it."""
        return str(self.inside.network)

    @property
    def network6(self) -> str:
        """The IPv6 network behind it."""
        return str(self.inside6.network)

    def configure(self) -> None:
        """Give its interfaces their addresses."""
        self.namespace.configure(
            f"addr add {self.wire} dev {WIRE}",
            f"addr add {self.wire6} dev {WIRE} nodad",
            f"addr add {self.inside} dev lo",
            f"addr add {self.inside6} dev lo nodad",
        )


class Laboratory:
    """The network; a context manager. `middle` is there unless nothing is between the ends."""

    #: Both ends of the link between terminal and delegate.
    link_terminal = IPv4Interface("198.51.100.1/24")
    link_delegate = IPv4Interface("198.51.100.2/24")
    routers = (IPv4Interface("192.0.2.254/24"), IPv4Interface("203.0.113.254/24"))
    _routers6 = (IPv6Interface("2001:db8::fe/64"), IPv6Interface("2001:db8:0:1::fe/64"))

    def __init__(self, middle: Middle = Middle.NOTHING) -> None:
        self._kind = middle
        self._made = ExitStack()
        routed = middle in (Middle.ROUTER, Middle.NAT)
        self.terminal = Host(
            namespace=Namespace("terminal"),
            wire=IPv4Interface("192.0.2.1/24"),
            wire6=IPv6Interface("2001:db8::1/64"),
            inside=IPv4Interface("10.1.0.1/24"),
            inside6=IPv6Interface("2001:db8:1::1/64"),
        )
        self.peer = Host(
            namespace=Namespace("peer"),
            wire=IPv4Interface("203.0.113.2/24" if routed else "192.0.2.2/24"),
            wire6=IPv6Interface("2001:db8:0:1::2/64" if routed else "2001:db8::2/64"),
            inside=IPv4Interface("10.2.0.1/24"),
            inside6=IPv6Interface("2001:db8:2::1/64"),
        )
        self.delegate = Namespace("delegate")
        self.middle: Namespace | None = None if middle is Middle.NOTHING else Namespace("middle")

    @property
    def delegate_address(self) -> str:
        """Where the terminal reaches the delegate."""
        return str(self.link_delegate.ip)

    def open(self) -> Self:
        """Make all of it. Raises: Unavailable, with the reason."""
        try:
            spaces = (self.terminal.namespace, self.peer.namespace, self.delegate)
            for namespace in (*spaces, *([self.middle] if self.middle is not None else [])):
                self._made.enter_context(namespace)
            self._lay_wires()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Give it up. Closing twice is harmless."""
        self._made.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _lay_wires(self) -> None:
        terminal, peer = self.terminal.namespace, self.peer.namespace
        for namespace in (terminal, peer, *([self.middle] if self.middle is not None else [])):
            # There is nobody who could have the same address, and a second's wait for finding that out.
            namespace.set_kernel("net.ipv6.conf.default.accept_dad", "0")
            namespace.set_kernel("net.ipv6.conf.all.accept_dad", "0")
        connect(terminal, LINK, self.delegate, LINK)
        terminal.configure(f"addr add {self.link_terminal} dev {LINK}")
        self.delegate.configure(f"addr add {self.link_delegate} dev {LINK}")
        if self.middle is None:
            connect(terminal, WIRE, peer, WIRE)
        else:
            connect(terminal, WIRE, self.middle, WEST)
            connect(self.middle, EAST, peer, WIRE)
        self.terminal.configure()
        self.peer.configure()
        if self._kind is Middle.CUT:
            self._cut()
        elif self._kind is not Middle.NOTHING:
            self._route()

    def _cut(self) -> None:
        """Nothing of its own on the wire: no addresses, and whatever passes by is heard."""
        assert self.middle is not None
        self.middle.set_kernel("net.ipv6.conf.all.disable_ipv6", "1")
        self.middle.configure(f"link set {WEST} promisc on", f"link set {EAST} promisc on")

    def _route(self) -> None:
        assert self.middle is not None
        for interface, address, address6 in zip((WEST, EAST), self.routers, self._routers6, strict=True):
            self.middle.configure(
                f"addr add {address} dev {interface}", f"addr add {address6} dev {interface} nodad"
            )
        self.middle.set_kernel("net.ipv4.ip_forward", "1")
        self.middle.set_kernel("net.ipv6.conf.all.forwarding", "1")
        for host, router, router6 in zip((self.terminal, self.peer), self.routers, self._routers6, strict=True):
            host.namespace.configure(f"route add default via {router.ip}")
            host.namespace.ip("-6", "route", "add", "default", "via", str(router6.ip))
        if self._kind is Middle.NAT:
            # Source ports change too, as at a household's router.
            self.middle.run(require_program("nft"), "-f", "-", standard_input=_MASQUERADE)


_MASQUERADE = f"""\
table ip nat {{
  chain out {{
    type nat hook postrouting priority srcnat;
    oifname "{EAST}" masquerade random
  }}
}}
"""
