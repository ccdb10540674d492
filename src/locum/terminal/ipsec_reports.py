"""What an IPsec terminal reports while it runs: each is a fact for a program, and a line for a person.

Never holds a key. Addresses and times are as everywhere: addresses of `ipaddress`, seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from locum.errors import LocumError
from locum.ike.engine import Child, IkeSa
from locum.ike.registry import Version
from locum.ipsec.sa import SecurityAssociation
from locum.ipsec.selectors import Address, TrafficSelector
from locum.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Something that a terminal did or noticed; `str` gives the line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready(Report):
    """The terminal listens. `local` is None where it does so on every address; `dataplane` says which it took."""

    local: Address | None
    ports: tuple[int, ...]
    dataplane: str

    def __str__(self) -> str:
        ports = ",".join(map(str, self.ports))
        return f"ready local={self.local or '*'} ports={ports} dataplane={self.dataplane}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SaUp(Report):
    """An IKE SA is established, or, with `rekeyed`, has taken over from the one before."""

    sa: IkeSa = field(repr=False)
    rekeyed: bool = False

    def __str__(self) -> str:
        path = self.sa.path
        word = "rekeyed" if self.rekeyed else "up"
        return (
            f"IKE SA {word}: {version_name(self.sa.connection.version)} {path.local} - {path.remote} "
            f"({self.sa.peer_identity}), {self.sa.algorithms}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SaDown(Report):
    """An IKE SA is over; `error` is None when it was ended in order."""

    sa: IkeSa = field(repr=False)
    error: LocumError | None
    reason: str

    def __str__(self) -> str:
        return f"IKE SA down: {self.sa.path.local} - {self.sa.path.remote}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildUp(Report):
    """Traffic is protected; with `rekeyed` by a pair of associations that takes over from another."""

    child: Child
    rekeyed: bool = False

    def __str__(self) -> str:
        return f"SA {'rekeyed' if self.rekeyed else 'up'}: {describe_child(self.child)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildDown(Report):
    """A pair of associations is no longer in effect."""

    child: Child
    reason: str

    def __str__(self) -> str:
        inbound, outbound = self.child.inbound.spi, self.child.outbound.spi
        return f"SA down: SPI {inbound:08x} in, {outbound:08x} out: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem(Report):
    """Something failed that is not the end; `seconds` until it is tried again, None where nothing is tried."""

    reason: str
    seconds: float | None = None

    def __str__(self) -> str:
        again = "" if self.seconds is None else f"; trying again in {self.seconds:.0f} s"
        return f"{self.reason}{again}"


def version_name(version: Version) -> str:
    """``IKEv1`` or ``IKEv2``."""
    return "IKEv1" if version == Version.IKE_1 else "IKEv2"


def describe_child(child: Child) -> str:
    """``10.1.0.0/16 === 10.2.0.0/16, tunnel in UDP, ESP/AES-GCM-16-256, SPI c1.. in, 8a.. out``."""
    outbound = child.outbound
    wrapping = " in UDP" if outbound.encapsulation is not None else ""
    return (
        f"{_shown(outbound.local)} === {_shown(outbound.remote)}, {outbound.mode}{wrapping}, {child.suite}, "
        f"SPI {_spi(child.inbound)} in, {_spi(outbound)} out"
    )


def _shown(selectors: Sequence[TrafficSelector]) -> str:
    return " ".join(map(str, selectors))


def _spi(association: SecurityAssociation) -> str:
    return f"{association.spi:08x}"
