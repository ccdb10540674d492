"""Terminals and the cipher-key database of A5: the channel key that was set beforehand in both (A4).

Never knows how a channel protects a message, only which sequence numbers have been handed out for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select, update

from locum.crypto.symmetric import AuthenticationFailed
from locum.errors import ConfigurationError, Refused
from locum.names import check_name
from locum.store import schema
from locum.store.changes import Area, Change, terminal_id
from locum.store.records import Channel, Terminal

#: The delegate's OSCORE Sender ID in every channel. A terminal's has at least two bytes, so they always differ.
DELEGATE_ID = b"\x00"
#: Shortest terminal's OSCORE Sender ID in bytes.
KID_LENGTH = 2
#: One past the largest OSCORE sender sequence number (RFC 8613 section 7.2.1: five bytes).
SEQUENCE_LIMIT = 1 << 40
#: Most sequence numbers handed out at once.
RESERVATION_LIMIT = 1 << 20


class Terminals(Area):
    """The terminals that may use this delegate, and the key of the channel to each."""

    def enroll(
        self,
        name: str,
        *,
        algorithm: str,
        secret: bytes,
        salt: bytes,
        actor: str,
        replace: bool = False,
        deliver: Callable[[Channel], None] | None = None,
    ) -> Channel:
        """Enrol the terminal `name` with a new channel key; what was enrolled under `replace` no longer works.

        `deliver` is called with the result before anything is final: what it raises undoes the enrolment, so
        that no terminal is enrolled whose credential nobody has.
        Raises: ConfigurationError when the name cannot be used, or is enrolled already and not replaced.
        """
        check_name(name, "terminal's name")
        with self._changing(actor) as change:
            channel = Channel(
                terminal=name,
                kid=_take_kid(change.connection),
                delegate_id=DELEGATE_ID,
                secret=secret,
                salt=salt,
                algorithm=algorithm,
            )
            replaced = self._insert(change, channel, replace=replace)
            change.record("terminal.replace" if replaced else "terminal.enroll", name, f"kid {channel.kid.hex()}")
            if deliver is not None:
                deliver(channel)
        return channel

    def _insert(self, change: Change, channel: Channel, *, replace: bool) -> bool:
        connection, table = change.connection, schema.terminals
        found = connection.execute(select(table.c.id).where(table.c.name == channel.terminal)).scalar()
        if found is not None and not replace:
            raise ConfigurationError(
                f"terminal {channel.terminal!r} is enrolled already; "
                "--replace gives it a new key, and ends the old one"
            )
        if found is not None:
            # The number stays, and with it the terminal's policies, identities and shared secrets.
            connection.execute(
                update(table).where(table.c.id == found).values(kid=channel.kid, created=change.time, enabled=True)
            )
            connection.execute(delete(schema.cipher_keys).where(schema.cipher_keys.c.terminal_id == found))
            number: int = found
        else:
            values = {"name": channel.terminal, "kid": channel.kid, "created": change.time, "enabled": True}
            number = connection.execute(insert(table).values(values).returning(table.c.id)).scalar_one()
        connection.execute(
            insert(schema.cipher_keys).values(
                terminal_id=number,
                algorithm=channel.algorithm,
                delegate_id=channel.delegate_id,
                sealed_secret=self._sealer.seal(channel.secret, **_place(channel.terminal, channel.kid)),
                salt=channel.salt,
                next_sequence=0,
            )
        )
        return found is not None

    def all(self) -> list[Terminal]:
        """Every terminal, by name."""
        with self._reading() as connection:
            rows = connection.execute(_terminals().order_by(schema.terminals.c.name)).all()
        return [Terminal(**row._mapping) for row in rows]

    def get(self, name: str) -> Terminal | None:
        """The terminal called `name`, or None."""
        with self._reading() as connection:
            row = connection.execute(_terminals().where(schema.terminals.c.name == name)).one_or_none()
        return None if row is None else Terminal(**row._mapping)

    def find_channel(self, kid: bytes) -> Channel | None:
        """The channel of the enabled terminal whose OSCORE Sender ID is `kid`, or None.

        Raises ConfigurationError when its sealed key does not open.
        """
        keys = schema.cipher_keys
        query = (
            select(
                schema.terminals.c.name, keys.c.sealed_secret, keys.c.delegate_id, keys.c.salt, keys.c.algorithm
            )
            .join_from(schema.terminals, keys)
            .where(schema.terminals.c.kid == kid, schema.terminals.c.enabled)
        )
        with self._reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else self._channel(kid, row)

    def _channel(self, kid: bytes, row: Any) -> Channel:
        try:
            secret = self._sealer.open(row.sealed_secret, **_place(row.name, kid))
        except AuthenticationFailed:
            raise ConfigurationError(
                f"the channel key of terminal {row.name!r} was altered in the database; "
                "enroll it again with --replace"
            ) from None
        return Channel(
            terminal=row.name,
            kid=kid,
            delegate_id=row.delegate_id,
            secret=secret,
            salt=row.salt,
            algorithm=row.algorithm,
        )

    def reserve(self, kid: bytes, count: int) -> int:
        """Hand out `count` of the delegate's own sender sequence numbers, each once for ever; returns the first.

        Safe in any number of processes. Raises: ValueError for a count outside 1..2**20; Refused when there is
        no such terminal, or its numbers are used up and it must be enrolled again (RFC 8613 section 7.2.1).
        """
        if not 1 <= count <= RESERVATION_LIMIT:
            raise ValueError(f"{count} sequence numbers cannot be reserved at once")
        keys = schema.cipher_keys
        number = select(schema.terminals.c.id).where(schema.terminals.c.kid == kid).scalar_subquery()
        statement = (
            update(keys)
            .where(keys.c.terminal_id == number, keys.c.next_sequence <= SEQUENCE_LIMIT - count)
            .values(next_sequence=keys.c.next_sequence + count)
            .returning(keys.c.next_sequence)
        )
        with self._writing() as connection:
            after: int | None = connection.execute(statement).scalar()
        if after is None:
            raise Refused(
                f"no sequence numbers are left for terminal key {kid.hex()}: enroll it again with --replace"
            )
        return after - count

    def set_enabled(self, name: str, enabled: bool, *, actor: str) -> bool:
        """Serve the terminal, or keep it and do not; False when it was so already.

        Raises ConfigurationError when there is no terminal of this name.
        """
        with self._changing(actor) as change:
            number = terminal_id(change.connection, name)
            table = schema.terminals
            result = change.connection.execute(
                update(table).where(table.c.id == number, table.c.enabled != enabled).values(enabled=enabled)
            )
            changed = result.rowcount > 0
            if changed:
                change.record("terminal.enable" if enabled else "terminal.disable", name)
        return changed

    def remove(self, name: str, *, actor: str) -> None:
        """Remove a terminal, its key, its policy rules, its shared secrets, and its place in identities.

        Raises ConfigurationError when there is no terminal of this name.
        """
        with self._changing(actor) as change:
            number = terminal_id(change.connection, name)
            change.connection.execute(delete(schema.terminals).where(schema.terminals.c.id == number))
            change.record("terminal.remove", name)


def _take_kid(connection: Connection) -> bytes:
    """A Sender ID that was never used before: a counter in as few bytes as hold it, at least two."""
    meta = schema.meta
    after = connection.execute(
        update(meta).values(next_kid=meta.c.next_kid + 1).returning(meta.c.next_kid)
    ).scalar_one()
    number: int = after - 1
    return number.to_bytes(max(KID_LENGTH, (number.bit_length() + 7) // 8), "big")


def _place(name: str, kid: bytes) -> dict[str, str]:
    return {"table": "cipher_keys", "row": f"{name}/{kid.hex()}", "column": "sealed_secret"}


def _terminals() -> Select[Any]:
    table = schema.terminals
    return select(
        table.c.id, table.c.name, table.c.kid, table.c.created, table.c.enabled, schema.cipher_keys.c.algorithm
    ).join_from(table, schema.cipher_keys)
