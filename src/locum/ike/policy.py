"""What we are ready to negotiate, and in which order we prefer it, for both versions.

Knows algorithms, not payloads; legacy ones take part only where a policy names them, and those that are
never negotiated have no object that could be named.
"""

from __future__ import annotations

from locum.errors import ConfigurationError
from locum.ike import algorithms as alg
from locum.ike.algorithms import Encryption, Group, Integrity, Prf
from locum.ike.registry import (
    ADDITIONAL_KEY_EXCHANGES,
    AuthenticationMethod1,
    EncapsulationMode,
    EncryptionId,
    ProtocolId,
)
from locum.values import dataclass

_ENCRYPTIONS = (
    alg.ENCR_AES_GCM_16_256,
    alg.ENCR_AES_GCM_16_128,
    alg.ENCR_CHACHA20_POLY1305,
    alg.ENCR_AES_CBC_256,
    alg.ENCR_AES_CBC_128,
)
_PRFS = (alg.PRF_HMAC_SHA2_256, alg.PRF_HMAC_SHA2_384, alg.PRF_HMAC_SHA2_512)
_INTEGRITIES = (alg.AUTH_HMAC_SHA2_256_128, alg.AUTH_HMAC_SHA2_384_192, alg.AUTH_HMAC_SHA2_512_256)
_CURVES = (alg.ECP_256, alg.ECP_384, alg.ECP_521)
_MODP = (alg.MODP_3072, alg.MODP_4096, alg.MODP_2048)

#: An IKE or ISAKMP SA lives so many seconds unless a policy says otherwise; a CHILD_SA so many.
IKE_LIFETIME = 14_400
CHILD_LIFETIME = 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class IkePolicy:
    """IKEv2: the most preferred first in every field.

    `additional` has a tuple for each additional key exchange in order (RFC 9370), at most seven; None in it
    means that this one may be left out.
    """

    encryptions: tuple[Encryption, ...] = _ENCRYPTIONS
    prfs: tuple[Prf, ...] = _PRFS
    integrities: tuple[Integrity, ...] = _INTEGRITIES
    groups: tuple[Group, ...] = (alg.CURVE25519, *_CURVES, alg.CURVE448, *_MODP, alg.MODP_6144, alg.MODP_8192)
    additional: tuple[tuple[Group | None, ...], ...] = ()

    def __hash__(self) -> int:
        # Of little, since what came of a peer's offer is looked up by policy in every handshake.
        return hash((len(self.encryptions), len(self.prfs), len(self.integrities), len(self.groups)))

    def __post_init__(self) -> None:
        """Refuse what no IKE SA can have: ConfigurationError."""
        if alg.ENCR_NULL in self.encryptions:
            raise ConfigurationError("an IKE SA must encrypt: NULL is for ESP only")
        for group in self.groups:
            if group.additional_only:
                raise ConfigurationError(f"{group.name} can be an additional key exchange only")
        if len(self.additional) > len(ADDITIONAL_KEY_EXCHANGES):
            raise ConfigurationError(f"more than {len(ADDITIONAL_KEY_EXCHANGES)} additional key exchanges")


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase1Policy:
    """IKEv1, main and aggressive mode: the most preferred first in every field.

    `lifetime` is in seconds; None offers none.
    """

    methods: tuple[AuthenticationMethod1, ...]
    encryptions: tuple[Encryption, ...] = (alg.ENCR_AES_CBC_256, alg.ENCR_AES_CBC_128)
    prfs: tuple[Prf, ...] = _PRFS
    groups: tuple[Group, ...] = (*_CURVES, *_MODP)
    lifetime: int | None = IKE_LIFETIME

    def __hash__(self) -> int:
        # As that of `IkePolicy`.
        return hash((len(self.methods), len(self.encryptions), len(self.prfs), len(self.groups), self.lifetime))

    def __post_init__(self) -> None:
        """Refuse what phase 1 has no number for: ConfigurationError."""
        for encryption in self.encryptions:
            if encryption.id != EncryptionId.AES_CBC:
                raise ConfigurationError(f"{encryption.name} cannot protect phase 1 of IKEv1: take AES-CBC")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildPolicy:
    """A CHILD_SA of IKEv2, or quick mode: the most preferred first in every field.

    None in `groups` stands for doing without perfect forward secrecy. By default we do, unless the peer insists:
    one may take the first CHILD_SA, which never has it, and then no successor without. `encryptions` say nothing
    for AH.
    `extended_sequence_numbers` are the acceptable values. `modes` and `lifetime` (seconds, None offers none)
    matter in IKEv1, where they are negotiated here.
    """

    protocol: ProtocolId = ProtocolId.ESP
    encryptions: tuple[Encryption, ...] = _ENCRYPTIONS
    integrities: tuple[Integrity, ...] = _INTEGRITIES
    groups: tuple[Group | None, ...] = (None, alg.CURVE25519, *_CURVES, alg.CURVE448, *_MODP)
    additional: tuple[tuple[Group | None, ...], ...] = ()
    extended_sequence_numbers: tuple[bool, ...] = (False, True)
    modes: tuple[EncapsulationMode, ...] = (EncapsulationMode.TUNNEL,)
    lifetime: int | None = CHILD_LIFETIME
