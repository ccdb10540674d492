"""What the store keeps, as plain values: one frozen dataclass per kind of row.

Knows no table. Times are seconds since the epoch; secrets stay out of every `repr`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class AuthenticationKeyKind(StrEnum):
    """What a row of the authentication-key database is: a CA certificate, a public key, or a CRL."""

    ANCHOR = "anchor"
    PIN = "pin"
    CRL = "crl"


class Action(StrEnum):
    """What a policy rule does with the peers that it matches."""

    ALLOW = "allow"
    DENY = "deny"


class SharedSecretKind(StrEnum):
    """What a shared secret is for: to authenticate with in IKE, or to mix into the keys of IKEv2 (RFC 8784)."""

    PRE_SHARED_KEY = "psk"
    POST_QUANTUM = "ppk"


class Outcome(StrEnum):
    """How something that is audited ended."""

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """An enrolled terminal. `kid` is its OSCORE Sender ID; a disabled terminal is kept and not served."""

    id: int
    name: str
    kid: bytes
    created: float
    enabled: bool
    algorithm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A row of the cipher-key database (A5): what was set beforehand in the terminal and here (A4)."""

    terminal: str
    kid: bytes
    delegate_id: bytes
    secret: bytes = field(repr=False)
    salt: bytes
    algorithm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationKey:
    """A row of the authentication-key database (A5).

    `der` is a certificate, a SubjectPublicKeyInfo or a CertificateList; `fingerprint` its SHA-256 in
    hexadecimal. `peer` is the peer pattern that a pinned key stands for, and empty for the other kinds.
    """

    id: int
    kind: AuthenticationKeyKind
    name: str
    peer: str
    der: bytes
    fingerprint: str
    added: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A row of the policy database (A5): `terminal` is a name or ``*``, `peer` a peer pattern."""

    id: int
    terminal: str
    peer: str
    action: Action
    added: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A client certificate that the delegate may use: `terminals` are names, or ``("*",)`` for all.

    `peer` is the peer pattern that it is shown to, ``*`` for all. `chain_pem` begins with the identity's own
    certificate; `private_key_pem` is PKCS #8 without a passphrase.
    """

    id: int
    name: str
    terminals: tuple[str, ...]
    peer: str
    chain_pem: str
    private_key_pem: bytes = field(repr=False)
    added: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSecret:
    """A secret that `terminal` shares with `peer`, an identity such as ``dns:NAME`` or ``*``.

    A pre-shared key may have a `local_identity`, who the terminal is towards the peer. A post-quantum one has an
    `identifier`, by which both ends know it, and may be `required`.
    """

    id: int
    kind: SharedSecretKind
    terminal: str
    peer: str
    identifier: str
    local_identity: str
    required: bool
    secret: bytes = field(repr=False)
    added: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One line of the audit log: who did what to whom, and how it ended. Texts that are too long are cut."""

    time: float
    actor: str
    action: str
    subject: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that a delegate decides by, as it was at one generation; channel keys are looked up singly."""

    generation: int
    authentication_keys: tuple[AuthenticationKey, ...]
    policies: tuple[Policy, ...]
    identities: tuple[Identity, ...]
    shared_secrets: tuple[SharedSecret, ...]
