"""What one edge may do, as of one state of the databases: with which keys, which operations, for whom (X3).

Never performs anything.
"""

from __future__ import annotations

from collections.abc import Callable

from locum.keyless.errors import RequestFault
from locum.keyless.frames import KeyReference
from locum.keyless.operations import (
    CertificateVerify,
    ClientVerify,
    Decrypt,
    KeyOperation,
    MasterSecret,
    Role,
    ServerKeyExchange,
    Sign,
)
from locum.keyless.queries import OfferedKey
from locum.keyless.registry import HEADER_LENGTH, LEGACY_SCHEMES, OPCODE_OF_SCHEME, SIGNING, ErrorCode
from locum.keyserver.journal import Use
from locum.keyserver.keyring import CertificateNames, HeldKey, Keyring
from locum.store.records import Edge, ServedCertificate

#: In `Edge.keys`: all of them.
ALL = "*"
#: Requests of one length that are remembered: far more than an edge has keys and schemes in use.
MAXIMUM_LANES = 256
#: Lengths of requests that are remembered.
MAXIMUM_LENGTHS = 64


class Lane:
    """All requests that differ in their id and in their last bytes only: judged once, performed often.

    `perform` takes those last bytes; `cost` is as in `HeldKey`.
    """

    __slots__ = ("cost", "perform", "use")

    def __init__(self, perform: Callable[[bytes], bytes], cost: int, use: Use) -> None:
        self.perform = perform
        self.cost = cost
        self.use = use


class Lanes:
    """The lanes of requests of one length, by what is between the header and the `tail`, their last bytes."""

    __slots__ = ("by_middle", "middle", "tail")

    def __init__(self, tail: int) -> None:
        self.middle = slice(HEADER_LENGTH, -tail)
        self.tail = slice(-tail, None)
        self.by_middle: dict[bytes, Lane] = {}


class Grant:
    """The permissions of an edge, looked up in one state of the databases."""

    __slots__ = ("_keys", "certificates", "edge", "keyring", "lanes", "legacy_hashes")

    def __init__(
        self, edge: Edge, keyring: Keyring, certificates: CertificateNames, *, legacy_hashes: bool
    ) -> None:
        self.edge = edge
        self.keyring = keyring
        self.certificates = certificates
        self.legacy_hashes = legacy_hashes
        self._keys = None if ALL in edge.keys else frozenset(edge.keys)
        #: By the length of a request. They go when the state of the databases does.
        self.lanes: dict[int, Lanes] = {}

    def remember(self, frame: bytes, tail: int, lane: Lane) -> None:
        """Have further requests like `frame`, whose last `tail` bytes are what `lane` takes, go that way."""
        lanes = self.lanes.get(len(frame))
        if lanes is None:
            if len(self.lanes) >= MAXIMUM_LENGTHS:
                return
            lanes = self.lanes[len(frame)] = Lanes(tail)
        if lanes.tail == slice(-tail, None) and len(lanes.by_middle) < MAXIMUM_LANES:
            lanes.by_middle[frame[lanes.middle]] = lane

    def may_connect(self, now: float) -> str:
        """Empty when the edge may ask at all, else why not. `now` is in seconds since the epoch."""
        if self.edge.revoked is not None:
            return "revoked"
        return "" if now < self.edge.not_after else "the certificate has expired"

    def allows(self, key: HeldKey) -> bool:
        """True when the edge may use this key in some way."""
        return self._keys is None or key.name in self._keys

    def key(self, reference: KeyReference) -> HeldKey:
        """The key that is meant. Raises: RequestFault, the same if there is none or it is not for this edge."""
        key = self.keyring.find(reference)
        if key is None or not self.allows(key):
            raise RequestFault(ErrorCode.KEY_NOT_FOUND)
        return key

    def check(self, key: HeldKey, operation: KeyOperation) -> None:
        """Raise RequestFault unless this edge may have this done with this key, and the two fit."""
        if isinstance(operation, Sign | Decrypt):
            if not (self.edge.allow.raw and key.raw):
                raise RequestFault(ErrorCode.CRYPTO, "this edge may use operations bound to TLS only")
            self._check_raw(key, operation)
        elif not (self.edge.allow.bound and key.bound):
            raise RequestFault(ErrorCode.CRYPTO, "this edge may use raw operations only")
        elif not (self.edge.roles.client if _is_client(operation) else self.edge.roles.server):
            raise RequestFault(
                ErrorCode.CRYPTO, f"this edge is no TLS {'client' if _is_client(operation) else 'server'}"
            )

    def _check_raw(self, key: HeldKey, operation: Sign | Decrypt) -> None:
        if isinstance(operation, Decrypt):
            if not key.modulus_length:
                raise RequestFault(ErrorCode.CRYPTO, f"a key of the kind {key.kind} does not decrypt")
            return
        if operation.scheme in LEGACY_SCHEMES and not self.legacy_hashes:
            raise RequestFault(
                ErrorCode.CRYPTO, f"{operation.scheme} is not safe; the key server does not allow it"
            )
        opcode = OPCODE_OF_SCHEME.get(operation.scheme)
        if opcode is not None and SIGNING[opcode].family is not key.family:
            raise RequestFault(
                ErrorCode.CRYPTO, f"a key of the kind {key.kind} does not sign under {operation.scheme}"
            )

    def certificate(self, server_name: str) -> ServedCertificate | None:
        """The certificate for this name, if the edge may use its key."""
        found = self.certificates.find(server_name)
        key = None if found is None else self.keyring.find(KeyReference(found.ski))
        return found if key is not None and self.allows(key) else None

    def certificate_names(self) -> list[str]:
        """The names that there are certificates for whose keys the edge may use, in order."""
        return [name for name in self.certificates.names if self.certificate(name) is not None]

    def offered(self) -> list[OfferedKey]:
        """The keys that the edge may use, and how, in the order of their names."""
        edge = self.edge
        return [
            OfferedKey(
                name=key.name,
                kind=key.kind,
                public_key=key.public_key,
                ski=key.ski,
                digest=key.digest,
                raw=edge.allow.raw and key.raw,
                bound=edge.allow.bound and key.bound,
                server=edge.roles.server and key.server,
                client=edge.roles.client and key.client,
            )
            for key in sorted(self.keyring.keys, key=lambda key: key.name)
            if self.allows(key)
        ]


def _is_client(operation: CertificateVerify | ServerKeyExchange | ClientVerify | MasterSecret) -> bool:
    """True when it is a TLS client that has this signed."""
    if isinstance(operation, CertificateVerify):
        return operation.role is Role.CLIENT
    return isinstance(operation, ClientVerify)
