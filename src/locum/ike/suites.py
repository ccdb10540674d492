"""What a negotiation ends in: the algorithms of an IKE SA of either version, of a CHILD_SA, and keys.

Knows no payload: how they were agreed on is said in `proposals1` and `proposals2`.
"""

from __future__ import annotations

from dataclasses import field

from locum.ike.algorithms import Encryption, Group, Integrity, Prf
from locum.ike.registry import AuthenticationMethod1, EncapsulationMode, ProtocolId
from locum.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class IkeSuite:
    """The algorithms of an IKEv2 SA; `integrity` is None with an AEAD.

    `additional` are the additional key exchanges in order; None in it stands for one agreed to be skipped
    (RFC 9370 section 2.2.1).
    """

    encryption: Encryption
    integrity: Integrity | None
    prf: Prf
    group: Group
    additional: tuple[Group | None, ...] = ()

    @property
    def integrity_length(self) -> int:
        """Bytes of SK_ai and of SK_ar."""
        return self.integrity.key_length if self.integrity is not None else 0

    def __str__(self) -> str:
        names = [self.encryption.name, *([self.integrity.name] if self.integrity is not None else [])]
        names += [self.prf.name, self.group.name]
        return "/".join((*names, *(group.name for group in self.additional if group is not None)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase1Suite:
    """The algorithms of an ISAKMP SA (IKEv1): `prf` is HMAC with the negotiated hash.

    `lifetime` is in seconds, None where the proposal names none.
    """

    encryption: Encryption
    prf: Prf
    method: AuthenticationMethod1
    group: Group
    lifetime: int | None = None

    def __str__(self) -> str:
        return "/".join((self.encryption.name, self.prf.name, self.group.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSuite:
    """The algorithms of a pair of ESP or AH SAs.

    `encryption` is None for AH; `integrity` is None with an AEAD. `group` and `additional` are the key
    exchanges of perfect forward secrecy. `mode` and `lifetime` (seconds) are negotiated here in IKEv1 only.
    """

    protocol: ProtocolId
    encryption: Encryption | None
    integrity: Integrity | None
    extended_sequence_numbers: bool = False
    group: Group | None = None
    additional: tuple[Group | None, ...] = ()
    mode: EncapsulationMode | None = None
    lifetime: int | None = None

    @property
    def encryption_length(self) -> int:
        """Bytes of keying material that encryption takes, for one direction."""
        return self.encryption.material_length if self.encryption is not None else 0

    @property
    def integrity_length(self) -> int:
        """Bytes of keying material that integrity takes, for one direction."""
        return self.integrity.key_length if self.integrity is not None else 0

    def __str__(self) -> str:
        parts = (self.encryption, self.integrity, self.group, *self.additional)
        return "/".join((self.protocol.name, *(part.name for part in parts if part is not None)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Nonces:
    """The nonces of the exchange that makes the keys: 8 to 256 bytes each in IKEv1, 16 to 256 in IKEv2."""

    initiator: bytes
    responder: bytes

    @property
    def both(self) -> bytes:
        """Ni | Nr, in IKEv1 Ni_b | Nr_b."""
        return self.initiator + self.responder


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionKeys:
    """Keying material of one SA: encryption key followed by salt, and integrity key; either may be empty."""

    encryption: bytes = field(repr=False)
    integrity: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildKeys:
    """The SAs of a CHILD_SA: from the exchange's initiator to its responder, and back."""

    initiator: DirectionKeys
    responder: DirectionKeys
