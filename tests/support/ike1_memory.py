"""IKEv1 between two ends in memory: connections, and authorities for every method of authentication."""

from __future__ import annotations

from typing import Any

from tests.support import pki
from tests.support.ike_memory import (
    LEFT_NAME,
    RIGHT_NAME,
    TERMINAL,
    Host,
    Network,
    certificate_authority,
    network,
    psk_authority,
)

from locum.authority.databases import Action, Identity, PinnedKey, PolicyRule, TrustMaterial
from locum.authority.local import LocalAuthority
from locum.ike.configuration import Connection, Mode
from locum.ike.policy import Phase1Policy
from locum.ike.registry import AuthenticationMethod1, Version
from locum.ike.v1.sa import Ike1Sa
from locum.keys.file import FileKey

#: Names of the methods: a pre-shared key, certificates by kind of key, and public key encryption.
SIGNATURES = ("rsa", "p256", "p384", "p521")
METHODS = ("psk", *SIGNATURES, "encryption")

ENCRYPTION = Phase1Policy(methods=(AuthenticationMethod1.RSA_ENCRYPTION,))


def connection(mode: Mode = Mode.MAIN, **settings: Any) -> Connection:
    """A connection of IKEv1."""
    return Connection(version=Version.IKE_1, mode=mode, **settings)


def encryption_authority(own: str, peer: str) -> LocalAuthority:
    """An authority with an RSA certificate, and the peer's pinned, for public key encryption."""
    ours, theirs = (
        pki.leaf(pki.ca(), "rsa", (name,), slot=f"ike1:{name}", subject=name, purposes=None)
        for name in (own, peer)
    )
    pin = PinnedKey(name=peer, key=theirs.chain[0], peers=(f"dns:{peer}",))
    identity = Identity(name=own, certificates=ours.chain, key=FileKey.from_pem(ours.key_pem))
    return LocalAuthority(
        trust=TrustMaterial(anchors=(pki.ca().pem,), pinned=(pin,)),
        policy=[PolicyRule(terminal=TERMINAL, peer="*", action=Action.ALLOW)],
        identities=(identity,),
        now=lambda: pki.EPOCH,
    )


def authorities(method: str) -> tuple[LocalAuthority, LocalAuthority]:
    """Those of both ends."""
    names = ((LEFT_NAME, RIGHT_NAME), (RIGHT_NAME, LEFT_NAME))
    if method == "psk":
        left, right = (psk_authority(*each) for each in names)
    elif method == "encryption":
        left, right = (encryption_authority(*each) for each in names)
    else:
        left, right = (certificate_authority(own, kind=method) for own, _ in names)
    return left, right


def connected(
    method: str = "psk", mode: Mode = Mode.MAIN, *, right: Connection | None = None, **settings: Any
) -> Network:
    """Two ends that have made an ISAKMP SA and a child; `right` is another connection than the left end's."""
    return prepared(method, mode, right=right, **settings).connect()


def prepared(
    method: str = "psk", mode: Mode = Mode.MAIN, *, right: Connection | None = None, **settings: Any
) -> Network:
    """As `connected`, before anything has happened."""
    if method == "encryption":
        settings.setdefault("phase1", ENCRYPTION)
        # The initiator needs to know to whose key it encrypts.
        right = right or connection(mode, **settings)
        settings.setdefault("remote_identity", f"dns:{RIGHT_NAME}")
    left = connection(mode, **settings)
    return network(left, right, authorities=authorities(method), observed=True)


def only(host: Host) -> Ike1Sa:
    """The only SA of an end that is not closed."""
    sa = host.sa
    assert isinstance(sa, Ike1Sa)
    return sa
