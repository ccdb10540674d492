"""Where associations and policies are put into effect, whatever does it: a kernel, or a program (B7).

Says what an installer must do and does nothing itself: installers perform I/O and live where that is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from locum.ipsec.policy import Policy
from locum.ipsec.sa import Expiry, SecurityAssociation
from locum.ipsec.selectors import Address


class Used(NamedTuple):
    """What an association has carried so far: packets, and their bytes without protection."""

    packets: int
    bytes: int


#: Takes an IKE message that arrived, without a non-ESP marker: message, local address, remote address and port.
Receive = Callable[[bytes, Address, Address, int], None]


class Port(Protocol):
    """A UDP port of IKE on this host. On a port that is `encapsulated`, ESP travels too (RFC 3948).

    An installer opens it, for it alone can say how IKE stays outside of its own policies, and it keeps ESP for
    itself. Everything that is read or written here is IKE messages without the non-ESP marker, which an
    encapsulated port puts before them and takes off; keepalives that arrive are dropped.
    """

    number: int
    encapsulated: bool

    def send(self, message: bytes, local: Address, remote: Address, remote_port: int) -> None:
        """Send a message from `local`. What cannot be sent is lost, as it may be on the way; raises nothing."""
        ...

    def send_keepalive(self, local: Address, remote: Address, remote_port: int) -> None:
        """Send what keeps the mapping of a NAT alive (RFC 3948 section 2.3). Raises nothing."""
        ...

    def close(self) -> None:
        """Stop to listen."""
        ...


class Installer(Protocol):
    """Puts what a key exchange agreed on into effect. Every method may raise `Unavailable` or `Refused`.

    Every method is called by the thread of a running asyncio event loop, and none blocks for longer than this
    host needs to answer. In the order of a life: `start`, then anything, then `close`.
    """

    #: what it is called on the command line and in messages, `kernel` for example
    name: str

    def start(self) -> None:
        """Get ready. Raises: Unavailable when this host, or this user, cannot; then nothing is left behind."""
        ...

    def local_address(self, remote: Address) -> Address:
        """The address that this host has towards `remote` outside of all tunnels. Raises: Unavailable."""
        ...

    def open_port(
        self, number: int, receive: Receive, *, local: Address | None = None, encapsulated: bool = False
    ) -> Port:
        """Listen on UDP port `number` of `local`, or of every address, IPv4 and IPv6, and have messages received.

        With `number` 0 the host chooses one. Raises: Unavailable when it is taken or forbidden.
        """
        ...

    def reserve_spi(self) -> int:
        """An SPI for a new inbound association that is used for no other, to be told to the peer."""
        ...

    def install(self, associations: Iterable[SecurityAssociation]) -> None:
        """Put these into effect, inbound ones first: all of them, or none and an error.

        An outbound one takes over from older ones for the same traffic; those stay until they are removed.
        Encapsulated ones travel through an encapsulated port that is open, with the number they name.
        """
        ...

    def move(self, old: SecurityAssociation, new: SecurityAssociation) -> None:
        """Put `new` in the place of `old`, which differs in addresses and encapsulation only.

        SPI, keys, sequence numbers and anti-replay window go on: so a peer is followed to another address.
        """
        ...

    def remove(self, associations: Iterable[SecurityAssociation]) -> None:
        """Take these out of effect; one that is not there is no error."""
        ...

    def set_policies(self, policies: Iterable[Policy]) -> None:
        """Put these policies, in this order, in the place of those that were set through this installer.

        Traffic that none of them speaks of goes its way as if there were no installer.
        """
        ...

    def expired(self, now: float) -> list[tuple[SecurityAssociation, Expiry]]:
        """Associations that need a successor (SOFT) or must go (HARD) at time `now`, in seconds."""
        ...

    def used(self, sa: SecurityAssociation) -> Used:
        """What an association that is installed has carried so far; nothing for one that is not."""
        ...

    def close(self) -> None:
        """Take out everything that was put in, and close every port. May be called twice."""
        ...
