"""What a `LocalAuthority` decides by: authentication keys and policies (A5), its identities and shared secrets.

Plain values and the decision of the policy; knows neither where they are kept nor any certificate's content.
"""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import field
from enum import StrEnum
from functools import lru_cache

from locum.errors import ConfigurationError, Refused
from locum.keys.port import PrivateKey
from locum.names import normalize_dns_name
from locum.patterns import PeerPattern, parse_pattern
from locum.values import dataclass

#: Stands for every terminal, or every peer.
ANY = "*"
#: Identities made of names and kept for the next use.
_CACHED = 4096
#: Peers for which it is remembered which rule is for them.
_CACHED_MATCHES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedKey:
    """A peer's public key, trusted without any authority.

    `key` is a public key or a certificate in PEM or DER. It authenticates the peers that match one of the
    patterns `peers` and no others; neither dates nor names nor revocation of the certificate it comes in matter.
    """

    name: str
    key: bytes
    peers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustMaterial:
    """The authentication-key database (A5): certificates and CRLs in PEM or DER, and pinned keys."""

    anchors: tuple[bytes, ...] = ()
    pinned: tuple[PinnedKey, ...] = ()
    crls: tuple[bytes, ...] = ()


class Action(StrEnum):
    """What a rule does."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """One row of the policy database (A5): may `terminal` (a name or ``*``) reach the peers of a pattern?"""

    terminal: str
    peer: str
    action: Action


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a terminal may reach a peer, and if not, why and what would change that."""

    allowed: bool
    reason: str = ""


class Policy:
    """The policy database: a rule that denies wins, else one that allows, else the peer is denied.

    Rules are matched with the peer's name and with the address the terminal says it connects to; so a rule for
    ``ip:`` trusts the terminal's word, one for ``dns:`` or ``pin:`` only what the peer has proven.
    Raises: ConfigurationError when a rule's pattern is malformed.
    """

    def __init__(self, rules: Iterable[PolicyRule]) -> None:
        self._rules: dict[tuple[str, Action], list[PeerPattern]] = {}
        for rule in rules:
            self._rules.setdefault((rule.terminal, Action(rule.action)), []).append(parse_pattern(rule.peer))
        self._match_once = lru_cache(_CACHED_MATCHES)(self._match)

    def decide(
        self, terminal: str, identities: Sequence[str], address: str = "", *, possible: Sequence[str] = ()
    ) -> Decision:
        """May `terminal` reach the peer with these identities, in the form of a verdict, at `address`?

        `possible` are identities that the peer has not proven but still may: enough to allow, not to deny.
        """
        shown = identities[0]
        denying = self._match_once(terminal, Action.DENY, tuple(identities), address)
        if denying is not None:
            return Decision(False, f"a policy denies terminal {terminal!r} the peers {denying}, and so {shown}")
        if self._match_once(terminal, Action.ALLOW, (*identities, *possible), address) is not None:
            return Decision(True)
        return Decision(
            False,
            f"no policy allows terminal {terminal!r} to reach {shown}; to allow it: "
            f"locum policy add --terminal {terminal} --peer {shlex.quote(shown)} --action allow",
        )

    def foresee(self, terminal: str, address: str, identity: str = "") -> Decision:
        """May `terminal` reach a peer at `address` of which no more is known, if it proves what policy wants?

        `identity` is what is known of it besides, which may be not all that it proves, or has proven.
        """
        denying = self._match_once(terminal, Action.DENY, (identity,), address)
        if denying is not None:
            shown = identity or f"ip:{address}"
            return Decision(False, f"a policy denies terminal {terminal!r} the peers {denying}, and so {shown}")
        if any(self._rules.get((name, Action.ALLOW)) for name in (terminal, ANY)):
            return Decision(True)
        return Decision(
            False,
            f"no policy allows terminal {terminal!r} to reach anybody; to allow it: "
            f"locum policy add --terminal {terminal} --peer PEER --action allow",
        )

    def _match(self, terminal: str, action: Action, identities: Sequence[str], address: str) -> PeerPattern | None:
        for name in (terminal, ANY):
            for pattern in self._rules.get((name, action), ()):
                for identity in identities:
                    if pattern.matches(identity, address):
                        return pattern
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A client certificate that may be used for `terminals` (names or ``*``) towards `peers` (patterns).

    `certificates` is the chain in DER, the identity's own certificate first.
    """

    name: str
    certificates: tuple[bytes, ...]
    key: PrivateKey = field(repr=False)
    terminals: tuple[str, ...] = (ANY,)
    peers: tuple[str, ...] = (ANY,)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSecret:
    """A pre-shared key of IKE between `terminal` (a name or ``*``) and the peer with the identity `peer`.

    With ``ip:ADDRESS`` the peer is known by its address alone. `local_identity` is who the terminal says it is;
    when empty, what the terminal asks for, or ``dns:`` and its name.
    """

    terminal: str
    peer: str
    secret: bytes = field(repr=False)
    local_identity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostquantumSecret:
    """A post-quantum pre-shared key (PPK, RFC 8784) with a fixed `identifier` that both ends know it by.

    It is for `terminal` (a name or ``*``) and the peers that match the pattern `peer`. `required` refuses to do
    without it.
    """

    identifier: str
    secret: bytes = field(repr=False)
    terminal: str
    peer: str
    required: bool = False


@lru_cache(_CACHED)
def named_identity(server_name: str) -> str:
    """The identity of whoever proves to be `server_name`: ``ip:ADDRESS`` or ``dns:NAME`` in its normal form.

    Raises: Refused when it is neither an IP address nor a DNS name.
    """
    try:
        return f"ip:{ipaddress.ip_address(server_name)}"
    except ValueError:
        pass
    try:
        return f"dns:{normalize_dns_name(server_name)}"
    except ConfigurationError as error:
        raise Refused(f"the name of the peer: {error}") from None
