"""Why a packet is not passed on, one exception for each event that RFC 4301 wants told apart.

Knows no packet format; never carries a key or a payload.
"""

from __future__ import annotations

from locum.errors import Incompatible, Misbehaved, Refused, Unavailable


class Replayed(Misbehaved):
    """A sequence number that was seen before, or lies behind the anti-replay window (RFC 4303 section 3.4.3)."""


class UnknownAssociation(Misbehaved):
    """No association has this SPI (RFC 4301 section 5.2 step 3a)."""


class SelectorMismatch(Misbehaved):
    """The packet inside is not one that its association may carry (RFC 4301 section 5.2 step 4)."""


class CongestionMarkLost(Misbehaved):
    """Congestion was marked outside of a packet that cannot carry the mark (RFC 6040 section 4.2): dropped."""


class FragmentRefused(Incompatible):
    """A fragment where only whole packets can be processed (RFC 4303 sections 3.3.4 and 3.4.1)."""


class HeaderRefused(Incompatible):
    """An option or extension header that AH cannot protect: a source route."""


class PacketTooLong(Incompatible):
    """With protection added the packet exceeds what an IP length field can say, 65,535 bytes."""


class DiscardedByPolicy(Refused):
    """The policy database says discard, or says nothing (RFC 4301 section 4.4.1)."""


class NoAssociation(Unavailable):
    """The policy says protect and there is no association yet: one must be agreed (RFC 4301 section 5.1)."""


class SequenceExhausted(Unavailable):
    """The last sequence number has been sent; the association must be replaced (RFC 4303 section 3.3.3)."""


class LifetimeExpired(Unavailable):
    """An association is past a hard limit on its use (RFC 4301 section 4.4.2.1)."""
