"""The databases of A5 as the delegate decides by them: read at one moment, used until they have changed.

Never writes to the store, and never reads from it while a terminal waits, but once before that terminal would be
turned away: what an administrator allowed a moment ago is allowed.

When the store cannot be read, what was read last stays in force: a broken disk does not stop handshakes. That must
not keep a terminal or a peer alive for ever that an administrator has cut off elsewhere, so after `STALE_SECONDS`
no new sessions are opened until the store answers again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates

from locum.authority import databases
from locum.authority.client_identities import ClientIdentities
from locum.authority.databases import Action, PinnedKey, PolicyRule, PostquantumSecret, TrustMaterial
from locum.authority.ike_secrets import PostquantumSecrets, SharedSecrets
from locum.authority.local import IkeOptions, LocalAuthority, LocalOptions
from locum.authority.port import AuthoritySession
from locum.delegate.channels import Channels
from locum.delegate.limits import RateLimiter, RateLimits
from locum.errors import ConfigurationError, LocumError, Unavailable
from locum.keys.file import FileKey
from locum.store import Store
from locum.store.records import (
    AuthenticationKey,
    AuthenticationKeyKind,
    Identity,
    Policy,
    SharedSecret,
    SharedSecretKind,
    Snapshot,
    Terminal,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds without a look at the store after which no new sessions are opened.
STALE_SECONDS = 3600.0
#: Looks at the store per second that are made because somebody would be turned away: asking for what one may not
#: have must not keep the database busy.
EXTRA_LOOKS = RateLimits(rate=10.0, burst=20.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What was read, beginning at the moment `begun` of the clock."""

    begun: float
    generation: int
    authority: LocalAuthority
    terminals: tuple[Terminal, ...]


class Databases:
    """The newest state of the store, as the authority that opens sessions.

    `read` and `poll` may run in another thread than everything else. `clock` never runs backwards, in seconds.
    """

    def __init__(
        self,
        store: Store,
        options: LocalOptions,
        channels: Channels,
        *,
        ike_options: IkeOptions | None = None,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._options = options
        self._ike_options = ike_options
        self._channels = channels
        self._now = now
        self._clock = clock
        self._authority: LocalAuthority | None = None
        self._generation = -1
        self._begun = self._read_at = clock()
        self._failing = False
        self._extra_looks = RateLimiter(EXTRA_LOOKS)

    @property
    def outdated(self) -> bool:
        """True when the store has not answered for so long that no new sessions may be opened."""
        return self._clock() - self._read_at > STALE_SECONDS

    def open(self, terminal: str) -> AuthoritySession:
        """Begin a session. Raises: Unavailable before the first `use`."""
        if self._authority is None:
            raise Unavailable("the databases have not been read yet")
        return self._authority.open(terminal)

    def use(self, loaded: Loaded) -> None:
        """Go by `loaded` from now on, in sessions in flight too; unless something newer was read since."""
        if loaded.begun < self._begun:
            return
        self._begun = loaded.begun
        live = self._authority
        if live is None:
            self._authority = loaded.authority
        else:
            live.authenticator = loaded.authority.authenticator
            live.policy = loaded.authority.policy
            live.identities = loaded.authority.identities
            live.secrets = loaded.authority.secrets
            live.ppks = loaded.authority.ppks
        self._generation = loaded.generation
        self._channels.use(loaded.terminals)

    def poll(self) -> Loaded | None:
        """What the store holds now if it has changed, else None. Raises nothing: a failure is logged once."""
        try:
            loaded = self._changed()
        except LocumError as error:
            self._failed(error)
            return None
        self._read_at = self._clock()
        if self._failing:
            self._failing = False
            log.warning("databases can be read again")
        self._channels.restock()
        return loaded

    def look(self) -> bool:
        """Go by what the store holds now; true when it had changed, false also when it cannot be read so often."""
        if self._failing or self._extra_looks.take("", self._clock()):
            return False
        try:
            loaded = self._changed()
        except LocumError as error:
            # No further looks until `poll` has read again: each could wait for a database that is not there.
            self._failed(error)
            return False
        if loaded is None:
            return False
        self.use(loaded)
        return True

    def _failed(self, error: LocumError) -> None:
        if not self._failing:
            self._failing = True
            log.error("databases cannot be read; the last state stays in force", extra={"error": str(error)})

    def _changed(self) -> Loaded | None:
        if self._store.generation() == self._generation:
            return None
        loaded = self.read()
        log.info("databases read", extra={"generation": loaded.generation})
        return loaded

    def read(self) -> Loaded:
        """Read everything. Raises: LocumError when the store fails or holds what nobody can decide by.

        An identity or a shared secret that cannot be used is left out, and the log says so.
        """
        # Two reads are two moments: the older generation of the two makes sure that a change between is seen.
        begun = self._clock()
        generation = self._store.generation()
        terminals = tuple(self._store.terminals.all())
        return Loaded(
            begun=begun,
            generation=generation,
            authority=self._authority_from(self._store.snapshot()),
            terminals=terminals,
        )

    def _authority_from(self, snapshot: Snapshot) -> LocalAuthority:
        return LocalAuthority(
            trust=_trust(snapshot.authentication_keys),
            policy=tuple(_rule(policy) for policy in snapshot.policies),
            identities=tuple(
                found for identity in snapshot.identities if (found := _identity(identity)) is not None
            ),
            secrets=tuple(_usable(snapshot.shared_secrets, SharedSecretKind.PRE_SHARED_KEY, _pre_shared_key)),
            ppks=tuple(_usable(snapshot.shared_secrets, SharedSecretKind.POST_QUANTUM, _post_quantum)),
            options=self._options,
            ike_options=self._ike_options,
            now=self._now,
            refresh=self.look,
        )


def _trust(keys: tuple[AuthenticationKey, ...]) -> TrustMaterial:
    return TrustMaterial(
        anchors=tuple(key.der for key in keys if key.kind is AuthenticationKeyKind.ANCHOR),
        pinned=tuple(
            PinnedKey(name=key.name, key=key.der, peers=(key.peer,))
            for key in keys
            if key.kind is AuthenticationKeyKind.PIN
        ),
        crls=tuple(key.der for key in keys if key.kind is AuthenticationKeyKind.CRL),
    )


def _rule(policy: Policy) -> PolicyRule:
    return PolicyRule(terminal=policy.terminal, peer=policy.peer, action=Action(policy.action))


def _identity(identity: Identity) -> databases.Identity | None:
    """The identity with its key ready for use; None, and a line in the log, when it cannot be used."""
    try:
        certificates = load_pem_x509_certificates(identity.chain_pem.encode())
        usable = databases.Identity(
            name=identity.name,
            certificates=tuple(certificate.public_bytes(Encoding.DER) for certificate in certificates),
            key=FileKey.from_pem(identity.private_key_pem),
            terminals=identity.terminals,
            peers=(identity.peer,),
        )
        # By itself first: among all others it would keep them from being read too.
        ClientIdentities((usable,))
    except (ConfigurationError, ValueError) as error:
        # Only the kind: the text of a library's error about a key is not ours to log.
        log.error("identity cannot be used", extra={"identity": identity.name, "kind": type(error).__name__})
        return None
    return usable


def _usable(
    secrets: Iterable[SharedSecret], kind: SharedSecretKind, prepare: Callable[[SharedSecret], T]
) -> Iterator[T]:
    """The secrets of one kind; one that cannot be used is left out, with a line in the log."""
    for secret in secrets:
        if secret.kind is not kind:
            continue
        try:
            yield prepare(secret)
        except ConfigurationError as error:
            log.error("shared secret cannot be used", extra={"secret": secret.id, "error": str(error)})


def _pre_shared_key(secret: SharedSecret) -> databases.SharedSecret:
    usable = databases.SharedSecret(
        terminal=secret.terminal, peer=secret.peer, secret=secret.secret, local_identity=secret.local_identity
    )
    # By itself first, as with identities.
    SharedSecrets((usable,))
    return usable


def _post_quantum(secret: SharedSecret) -> PostquantumSecret:
    usable = PostquantumSecret(
        identifier=secret.identifier,
        secret=secret.secret,
        terminal=secret.terminal,
        peer=secret.peer,
        required=secret.required,
    )
    PostquantumSecrets((usable,))
    return usable
