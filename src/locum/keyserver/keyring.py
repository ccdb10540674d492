"""The keys that a key server works with, wherever they are, and the names by which requests mean them.

Never knows who asks, nor what he may do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from locum.crypto.asymmetric.key_names import names_of
from locum.keyless.frames import KeyReference
from locum.keyless.registry import Family
from locum.keys.performing import LocalHolder
from locum.keys.port import KeyHolder, PrivateKey
from locum.store.records import ServedCertificate

#: About how long an operation takes, in microseconds of CPU, so that long ones can be done in turns. For RSA by
#: the modulus in bits; from one machine, and only their order of magnitude counts.
_RSA_COSTS = ((2048, 280), (3072, 900), (4096, 2000), (8192, 14_000))
_COSTS = {"p256": 25, "ed25519": 40, "p384": 250, "p521": 400}
_OTHER_COST = 500


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldKey:
    """A private key, here or elsewhere.

    `local` performs at once; without it the key is asked through `holder`, and answers later. `modulus_length` is
    in bytes, 0 unless it is an RSA key; `family` None when no published opcode is for such a key. `cost` is about
    how long an operation takes here, in microseconds. `raw` and `bound` say which operations its holder performs,
    `server` and `client` for whom.
    """

    name: str
    kind: str
    public_key: bytes
    ski: bytes
    digest: bytes
    holder: KeyHolder = field(repr=False)
    local: LocalHolder | None = field(repr=False)
    family: Family | None
    modulus_length: int
    cost: int
    raw: bool = True
    bound: bool = True
    server: bool = True
    client: bool = True


def held_here(name: str, key: PrivateKey) -> HeldKey:
    """A key of this process, which performs at once. Raises: LocumError for a kind that nobody can sign with."""
    local = LocalHolder(key)
    return _held(name, local, local)


def held_elsewhere(
    name: str, holder: KeyHolder, *, raw: bool = True, bound: bool = True, server: bool = True, client: bool = True
) -> HeldKey:
    """A key that answers in its own time: a token's, or one of another key server (C7). Raises: as `held_here`."""
    return _held(name, holder, None, raw=raw, bound=bound, server=server, client=client)


def _held(
    name: str,
    holder: KeyHolder,
    local: LocalHolder | None,
    *,
    raw: bool = True,
    bound: bool = True,
    server: bool = True,
    client: bool = True,
) -> HeldKey:
    names = names_of(holder.public_key)
    public = load_der_public_key(holder.public_key)
    family, length, cost = None, 0, _COSTS.get(names.kind, _OTHER_COST)
    if isinstance(public, rsa.RSAPublicKey):
        family, length = Family.RSA, (public.key_size + 7) // 8
        cost = next((cost for bits, cost in _RSA_COSTS if public.key_size <= bits), _RSA_COSTS[-1][1])
    elif isinstance(public, ec.EllipticCurvePublicKey):
        family = Family.ECDSA
    elif isinstance(public, ed25519.Ed25519PublicKey):
        family = Family.ED25519
    return HeldKey(
        name=name,
        kind=names.kind,
        public_key=holder.public_key,
        ski=names.ski,
        digest=bytes.fromhex(names.digest),
        holder=holder,
        local=local,
        family=family,
        modulus_length=length,
        cost=cost if local is not None else 0,
        raw=raw,
        bound=bound,
        server=server,
        client=client,
    )


class Keyring:
    """Keys by every name that a request can have for them; the first of two that share one counts.

    For references by server name the certificates say whose key it is.
    """

    __slots__ = ("_by_digest", "_by_ski", "_certificates", "keys")

    def __init__(self, keys: Iterable[HeldKey], certificates: CertificateNames) -> None:
        self.keys: tuple[HeldKey, ...] = tuple(_first(keys))
        self._by_ski = {key.ski: key for key in self.keys}
        # RSA keys with one modulus and two exponents have one digest.
        self._by_digest = {key.digest: key for key in reversed(self.keys)}
        self._certificates = certificates

    def find(self, reference: KeyReference) -> HeldKey | None:
        """The key that is meant, if there is one."""
        if reference.ski:
            return self._by_ski.get(reference.ski)
        if reference.digest:
            return self._by_digest.get(reference.digest)
        certificate = self._certificates.find(reference.server_name)
        return None if certificate is None else self._by_ski.get(certificate.ski)


def _first(keys: Iterable[HeldKey]) -> Iterable[HeldKey]:
    names: set[str] = set()
    skis: set[bytes] = set()
    for key in keys:
        if key.name not in names and key.ski not in skis:
            names.add(key.name)
            skis.add(key.ski)
            yield key


class CertificateNames:
    """Certificates by their names (C3); of several for one name, the one that is good the longest."""

    __slots__ = ("_by_name", "names")

    def __init__(self, certificates: Iterable[ServedCertificate]) -> None:
        self._by_name: dict[str, ServedCertificate] = {}
        for certificate in sorted(certificates, key=lambda each: each.not_after):
            for name in certificate.names:
                self._by_name[name.lower()] = certificate
        #: In order, wildcards among them.
        self.names: tuple[str, ...] = tuple(sorted(self._by_name))

    def find(self, server_name: str) -> ServedCertificate | None:
        """The certificate for a name: one with this very name, or one with a wildcard for its first label."""
        name = server_name.lower().removesuffix(".")
        found = self._by_name.get(name)
        if found is None:
            _, dot, rest = name.partition(".")
            found = self._by_name.get(f"*.{rest}") if dot else None
        return found
