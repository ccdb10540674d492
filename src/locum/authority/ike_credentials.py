"""With what a terminal proves who it is in IKE: a pre-shared key, or an identity with its certificate and key.

Knows what rows say; never a private key itself, only the port to one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cryptography import x509

from locum.authority.client_identities import KnownIdentity
from locum.authority.ike_identities import Identification, identification_of
from locum.authority.ike_secrets import KnownSecret
from locum.authority.session import Databases
from locum.crypto.asymmetric.certificates import public_key_hash
from locum.errors import ConfigurationError, Refused
from locum.values import dataclass


@dataclass(frozen=True, slots=True)
class PeerView:
    """What is known of a peer when something has to be chosen for it: what it claims or is wanted to be.

    `identities` is empty while nothing is known but the address.
    """

    identities: tuple[str, ...]
    address: str

    @property
    def named(self) -> str:
        """The identity by which a shared secret is found; a pinned key is none."""
        return next((each for each in self.identities if not each.startswith("pin:")), "")


class Credentials:
    """What `databases` hold for one terminal that wants to be `local` (None: whoever it may be)."""

    def __init__(self, databases: Databases, terminal: str, local: Identification | None) -> None:
        self._databases = databases
        self._terminal = terminal
        self._local = local

    @property
    def _local_text(self) -> str:
        return self._local.text if self._local is not None else ""

    # --- pre-shared keys ----------------------------------------------------------------------------------

    def secret(self, peer: PeerView) -> KnownSecret | None:
        """The pre-shared key with this peer."""
        return self._databases.secrets.find(self._terminal, peer.named, peer.address, local=self._local_text)

    def secret_before_identity(self, peer: PeerView) -> KnownSecret | None:
        """As `secret`, or the only one that there is: IKEv1 needs it before the peer has said a name."""
        return self.secret(peer) or self._databases.secrets.only(self._terminal, local=self._local_text)

    def identification_of(self, secret: KnownSecret) -> Identification:
        """Who to say one is when proving it with `secret`. Raises: Refused when there is no name."""
        if secret.local is not None:
            return secret.local
        if self._local is not None:
            return self._local
        try:
            return identification_of(f"dns:{self._terminal}")
        except ConfigurationError:
            raise Refused(
                f"terminal {self._terminal!r} has no name that IKE can say; give its secret a local identity"
            ) from None

    # --- identities with certificates ---------------------------------------------------------------------

    def identities(self, peer: PeerView, *, anybody: bool = False) -> list[KnownIdentity]:
        """The identities for this peer, or for `anybody` who may turn up, those that are valid now first."""
        now = self._databases.now()
        fitting = [
            known
            for known in self._databases.identities.known
            if (known.is_of(self._terminal) if anybody else self._is_for(known, peer))
            and self.identification_with(known) is not None
        ]
        return sorted(fitting, key=lambda known: not known.is_valid(now))

    def _is_for(self, known: KnownIdentity, peer: PeerView) -> bool:
        return known.is_for(self._terminal, peer.identities or ("",), peer.address)

    def identification_with(self, known: KnownIdentity) -> Identification | None:
        """Who to say one is with this identity: the wanted one if its certificate has it, by default the first."""
        if self._local is None:
            return known.names[0] if known.names else None
        return next((each for each in known.names if each.text == self._local.text), None)


def preferred(
    identities: Iterable[KnownIdentity], authorities: Sequence[bytes], anchors: Sequence[x509.Certificate]
) -> list[KnownIdentity]:
    """Those whose chain ends in one of the `authorities` first: the peer's CERTREQ is a hint (RFC 7296 3.7).

    `authorities` are distinguished names in DER, or SHA-1 of public keys; `anchors` are known by both.
    """
    known = list(identities)
    if not authorities or len(known) < 2:
        return known
    wanted = set(authorities)
    wanted |= {anchor.subject.public_bytes() for anchor in anchors if public_key_hash(anchor) in wanted}
    return sorted(known, key=lambda each: not wanted & (each.issuers | each.issuer_keys))
