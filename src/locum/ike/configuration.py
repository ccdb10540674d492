"""What one end wants of its connections: identities, algorithms, traffic, lifetimes and limits.

Knows neither a message nor a key. The same for both versions of IKE; what only one of them has says so.
"""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from locum.errors import ConfigurationError
from locum.ike.policy import CHILD_LIFETIME, IKE_LIFETIME, ChildPolicy, IkePolicy, Phase1Policy
from locum.ike.registry import AuthenticationMethod1, Version
from locum.ike.traffic_selectors import MAX_TRAFFIC_SELECTORS, TrafficSelector
from locum.ipsec.selectors import Address
from locum.values import dataclass

#: The largest IKE message sent whole, in bytes of UDP payload; longer ones go in fragments where the peer can
#: (RFC 7383 section 2.5.1: what every IPv6 path carries, less IP and UDP headers).
FRAGMENT_SIZE = 1232
FRAGMENT_SIZE_IPV4 = 1280 - 28


class Mode(StrEnum):
    """How IKEv1 makes its ISAKMP SA (RFC 2409 sections 5.1 to 5.4)."""

    MAIN = "main"
    AGGRESSIVE = "aggressive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Every time of an IKE SA, in seconds.

    A request is sent again after `retransmission`, then twice that, and so on, but never after more than
    `longest_retransmission`; after `attempts` transmissions in all the peer is taken for dead (RFC 7296 section
    2.4). A handshake is given up after `handshake`. When nothing was heard for `liveness` the peer is asked
    for a sign of life (RFC 7296 section 2.4, RFC 3706); 0 never asks. `keepalive` is that of NAT mappings.

    `ike_lifetime` and `child_lifetime` end an SA; its successor is made when `margin` of it is left, a fraction,
    of which up to a half is left out at random, so that both ends do not begin at once.
    """

    retransmission: float = 0.5
    longest_retransmission: float = 16.0
    attempts: int = 7
    handshake: float = 30.0
    liveness: float = 30.0
    keepalive: float = 20.0
    ike_lifetime: float = float(IKE_LIFETIME)
    child_lifetime: float = float(CHILD_LIFETIME)
    margin: float = 0.1

    def __post_init__(self) -> None:
        times = (self.retransmission, self.longest_retransmission, self.handshake, self.keepalive)
        if min(*times, self.ike_lifetime, self.child_lifetime) <= 0 or self.liveness < 0 or self.attempts < 1:
            raise ConfigurationError("times of an IKE SA are positive")
        if not 0 < self.margin < 1:
            raise ConfigurationError("the margin is a fraction of the lifetime, between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One connection: with whom, as whom, by which algorithms, for which traffic.

    `remote` is None for a responder that takes peers from any address. `local_identity` and `remote_identity`
    are in the form of a verdict (``dns:NAME``, ``ip:ADDRESS``, ``email:``, ``dn:``, ``keyid:``), empty for what
    the authority has, and for anybody whom it allows. `local` and `remote_traffic` are what the CHILD_SA is for;
    empty stands for the address of that end alone.

    IKEv1: `mode`, `phase1`, and `modes` of `child` follow `transport` by themselves. `ppk_required` refuses
    peers without a post-quantum pre-shared key (RFC 8784), which otherwise is used where both ends have one.
    `keys_from_authority` has the authority derive the CHILD_SA's keys and keep SK_d (the other form of A7; IKEv2):
    there is no rekeying then, and a connection is made anew when its time is up.
    """

    version: Version = Version.IKE_2
    mode: Mode = Mode.MAIN
    remote: Address | None = None
    local_identity: str = ""
    remote_identity: str = ""
    ike: IkePolicy = field(default_factory=IkePolicy)
    phase1: Phase1Policy = field(
        default_factory=lambda: Phase1Policy(
            methods=(
                AuthenticationMethod1.RSA_SIGNATURE,
                AuthenticationMethod1.ECDSA_256,
                AuthenticationMethod1.ECDSA_384,
                AuthenticationMethod1.ECDSA_521,
                AuthenticationMethod1.PRE_SHARED_KEY,
            )
        )
    )
    child: ChildPolicy = field(default_factory=ChildPolicy)
    local_traffic: tuple[TrafficSelector, ...] = ()
    remote_traffic: tuple[TrafficSelector, ...] = ()
    transport: bool = False
    timing: Timing = field(default_factory=Timing)
    use_ppk: bool = False
    ppk_required: bool = False
    keys_from_authority: bool = False
    force_encapsulation: bool = False
    fragmentation: bool = True

    def __post_init__(self) -> None:
        for selectors in (self.local_traffic, self.remote_traffic):
            if len(selectors) > MAX_TRAFFIC_SELECTORS:
                raise ConfigurationError(f"more than {MAX_TRAFFIC_SELECTORS} traffic selectors")
        if self.version == Version.IKE_1 and max(len(self.local_traffic), len(self.remote_traffic)) > 1:
            raise ConfigurationError("quick mode of IKEv1 has one network at each end")
        if self.version == Version.IKE_1 and (self.use_ppk or self.ppk_required or self.keys_from_authority):
            raise ConfigurationError("post-quantum pre-shared keys and keys from the authority are for IKEv2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a responder gives to strangers (RFC 7296 section 2.6).

    With `cookie_threshold` half-open SAs every new initiator must return a cookie first, which costs no memory;
    with `half_open` of them new ones are dropped. `half_open_per_address` binds one source address. Strangers
    begin `begun_per_second` SAs in the long run, and `begun_at_once` after a rest, the second half of them by a
    cookie. IKEv1 has no cookies that cost nothing: there a new stranger takes the place of the oldest who has not
    shown that it gets what is sent to it.

    For addresses from which an SA is established a part is kept that strangers cannot take: `known_half_open` SAs
    besides, and `known_per_second` and `known_at_once` beginnings.

    The values fit a delegate's own for one terminal: every half-open SA is one of 64 sessions there, of which some
    are left for the SAs that are established, and every beginning is one of 60 requests in a second.
    """

    cookie_threshold: int = 32
    half_open: int = 48
    half_open_per_address: int = 16
    begun_per_second: float = 16.0
    begun_at_once: int = 64
    known_half_open: int = 8
    known_per_second: float = 4.0
    known_at_once: int = 16
    established: int = 1024
