"""Where associations and policies are put into effect, whatever does it: a kernel, or a program (B7).

Says what an installer must do and does nothing itself: installers perform I/O and live where that is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from locum.ipsec.policy import Policy
from locum.ipsec.sa import Expiry, SecurityAssociation


class Installer(Protocol):
    """Puts what a key exchange agreed on into effect. Every method may raise `Unavailable` or `Refused`."""

    #: what it is called on the command line and in messages, `kernel` for example
    name: str

    def reserve_spi(self) -> int:
        """An SPI for a new inbound association that is used for no other, to be told to the peer."""
        ...

    def install(self, associations: Iterable[SecurityAssociation]) -> None:
        """Put these into effect, inbound ones first: all of them, or none and an error.

        An outbound one takes over from older ones for the same traffic; those stay until they are removed.
        """
        ...

    def remove(self, associations: Iterable[SecurityAssociation]) -> None:
        """Take these out of effect; one that is not there is no error."""
        ...

    def set_policies(self, policies: Iterable[Policy]) -> None:
        """Put these policies, in this order, in the place of those that were set through this installer."""
        ...

    def expired(self, now: float) -> list[tuple[SecurityAssociation, Expiry]]:
        """Associations that need a successor (SOFT) or must go (HARD) at time `now`, in seconds."""
        ...

    def close(self) -> None:
        """Take out everything that was put in."""
        ...
