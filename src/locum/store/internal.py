"""What nodes that share a database have in common without anybody having set it: the link's CA, the ticket root.

Never knows what a certificate is: whoever needs the CA first brings a new one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Protocol

from sqlalchemy import Connection, delete, insert, select

from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import ConfigurationError
from locum.keyless.queries import TICKET_ROOT_LENGTH
from locum.store import schema
from locum.store.changes import Area, Change
from locum.store.records import LinkAuthority
from locum.store.sealing import Sealer

_AUTHORITY = "link-authority"
_TICKET_ROOT = "ticket-root"
#: What is public of the ticket root: nothing.
_NOTHING = b""


class NewAuthority(Protocol):
    """A CA that was just made: certificate, and private key as PKCS #8, in DER."""

    @property
    def certificate(self) -> bytes: ...

    @property
    def private_key(self) -> bytes: ...


class Internal(Area):
    """Secrets that are made when they are first needed, by one node for all that share the database."""

    def link_authority(self, make: Callable[[], NewAuthority], *, actor: str) -> LinkAuthority:
        """The CA of the link between edges and key servers; `make` gives a new one where there is none yet.

        Raises: ConfigurationError when the sealed one does not open.
        """
        with self._reading() as connection:
            found = _read(connection, self._sealer, _AUTHORITY)
        if found is None:
            with self._changing(actor) as change:
                # Another process may have been first; its CA then holds.
                found = _read(change.connection, self._sealer, _AUTHORITY)
                if found is None:
                    made = make()
                    found = made.certificate, made.private_key
                    _keep(change, self._sealer, _AUTHORITY, *found)
                    fingerprint = hashlib.sha256(made.certificate).hexdigest()
                    change.record("link.authority", "made", f"sha256:{fingerprint}")
        certificate, private_key = found
        return LinkAuthority(certificate=certificate, private_key=private_key)

    def ticket_root(self, *, actor: str) -> bytes:
        """What the keys of session tickets are derived from, 32 bytes; a new one after an edge was cut off.

        Raises: ConfigurationError when the sealed one does not open.
        """
        with self._reading() as connection:
            found = _read(connection, self._sealer, _TICKET_ROOT)
        if found is None:
            with self._changing(actor) as change:
                found = _read(change.connection, self._sealer, _TICKET_ROOT)
                if found is None:
                    found = _NOTHING, os.urandom(TICKET_ROOT_LENGTH)
                    _keep(change, self._sealer, _TICKET_ROOT, *found)
                    change.record("link.ticket-root", "made")
        return found[1]


def read_all(connection: Connection, sealer: Sealer) -> tuple[bytes, bytes]:
    """The certificate of the link's CA in DER and the ticket root, each empty before there is one.

    Raises: ConfigurationError when a sealed one does not open.
    """
    authority = _read(connection, sealer, _AUTHORITY)
    root = _read(connection, sealer, _TICKET_ROOT)
    return b"" if authority is None else authority[0], b"" if root is None else root[1]


def renew_ticket_root(change: Change, sealer: Sealer) -> None:
    """Put a new ticket root in the place of one that is there: somebody who knows keys made of it was cut off."""
    table = schema.internal_secrets
    if change.connection.execute(delete(table).where(table.c.name == _TICKET_ROOT)).rowcount:
        _keep(change, sealer, _TICKET_ROOT, _NOTHING, os.urandom(TICKET_ROOT_LENGTH))


def _keep(change: Change, sealer: Sealer, name: str, public: bytes, secret: bytes) -> None:
    values = {
        "name": name,
        "public": public,
        "sealed_secret": sealer.seal(secret, **_place(name, public)),
        "created": change.time,
    }
    change.connection.execute(insert(schema.internal_secrets).values(values))


def _read(connection: Connection, sealer: Sealer, name: str) -> tuple[bytes, bytes] | None:
    """What is public and what is secret under this name, or None when it has not been made."""
    table = schema.internal_secrets
    row = connection.execute(select(table).where(table.c.name == name)).one_or_none()
    if row is None:
        return None
    try:
        return row.public, sealer.open(row.sealed_secret, **_place(name, row.public))
    except AuthenticationFailed:
        raise ConfigurationError(
            f"the secret {name!r} was altered in the database; restore it from a backup"
        ) from None


def _place(name: str, public: bytes) -> dict[str, str]:
    # What is public belongs to the place: nobody can put another certificate beside the key.
    return {
        "table": "internal_secrets",
        "row": f"{name}/{hashlib.sha256(public).hexdigest()}",
        "column": "sealed_secret",
    }
