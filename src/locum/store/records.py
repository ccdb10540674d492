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


class Allow(StrEnum):
    """What an edge may ask of a private key: operations bound to TLS, raw ones, or both (X3)."""

    BOUND = "bound"
    RAW = "raw"
    BOTH = "both"

    @property
    def bound(self) -> bool:
        """True when operations are allowed whose content the key server builds or checks itself."""
        return self is not Allow.RAW

    @property
    def raw(self) -> bool:
        """True when operations are allowed on content that the edge brings."""
        return self is not Allow.BOUND


class EdgeRole(StrEnum):
    """Whose handshakes an edge may have signed: a TLS server's, a TLS client's (C8), or both."""

    SERVER = "server"
    CLIENT = "client"
    BOTH = "both"

    @property
    def server(self) -> bool:
        """True when the edge may be a TLS server."""
        return self is not EdgeRole.CLIENT

    @property
    def client(self) -> bool:
        """True when the edge may be a TLS client."""
        return self is not EdgeRole.SERVER


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
class StoredKey:
    """A private key that the key server uses for edges (C1, C2).

    `kind` is a word as ``rsa2048`` or ``p256``; `public_key` a SubjectPublicKeyInfo in DER. `ski`, 20 bytes, and
    `digest`, 64 hexadecimal digits, are its names in the keyless protocol. `private_key` is PKCS #8 in DER without
    a passphrase, or None for a key that stays in the PKCS #11 `token` (a URI of RFC 7512, X6), else empty.
    """

    id: int
    name: str
    kind: str
    public_key: bytes
    ski: bytes
    digest: str
    private_key: bytes | None = field(repr=False)
    token: str
    added: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedCertificate:
    """A certificate that the key server may hand to edges (C3).

    `names` are its DNS names in lower case, perhaps with ``*.`` in front, and its IP addresses. `chain` is in DER,
    the certificate itself first; `ski` that of its key. `ocsp` is an OCSP response in DER, or empty. `not_after`
    is when the first certificate of the chain ends.
    """

    id: int
    name: str
    names: tuple[str, ...]
    chain: tuple[bytes, ...]
    ski: bytes
    ocsp: bytes
    not_after: float
    added: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """One who may use private keys without having them, and how far (X3).

    `fingerprint` is the SHA-256 of its client certificate in hexadecimal, `not_after` the end of that. `keys` are
    names of keys, or ``("*",)`` for all that there are and will be. `certificates` says that it may fetch those
    (C3). `rate` is how many operations it may ask per second in the long run, 0 for the server's default.
    """

    id: int
    name: str
    fingerprint: str
    not_after: float
    allow: Allow
    roles: EdgeRole
    keys: tuple[str, ...]
    certificates: bool
    rate: float
    created: float
    revoked: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkAuthority:
    """The CA of the link between edges and key servers (C6): certificate, and private key as PKCS #8, in DER."""

    certificate: bytes
    private_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyServerSnapshot:
    """Everything that a key server decides by and works with, as it was at one generation.

    `ca_certificate` is that of the link's CA in DER, empty before there is one. `ticket_root`, 32 bytes, is what
    the keys of session tickets are derived from, empty before it is needed.
    """

    generation: int
    keys: tuple[StoredKey, ...]
    certificates: tuple[ServedCertificate, ...]
    edges: tuple[Edge, ...]
    ca_certificate: bytes
    ticket_root: bytes = field(repr=False)


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
