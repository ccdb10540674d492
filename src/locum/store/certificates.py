"""Certificates that the key server hands to edges which have none of their own (C3).

Keeps DER and never looks into it; whether a chain is one is decided by whoever adds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cbor2
from sqlalchemy import Connection, Row, delete, insert, select, update

from locum.errors import ConfigurationError
from locum.handshake import MAX_CERTIFICATES, MAX_CHAIN
from locum.keyless.queries import MAX_CERTIFICATE_NAMES, MAX_OCSP
from locum.keyless.registry import SKI_LENGTH
from locum.names import check_name
from locum.store import schema
from locum.store.changes import Area
from locum.store.records import ServedCertificate


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCertificate:
    """A certificate to be added, with the fields of `ServedCertificate`.

    Raises: ConfigurationError when it names nobody, or is larger than what can be handed out.
    """

    name: str
    names: tuple[str, ...]
    chain: tuple[bytes, ...]
    ski: bytes
    not_after: float
    ocsp: bytes = b""

    def __post_init__(self) -> None:
        check_name(self.name, "certificate's name")
        if not 1 <= len(self.chain) <= MAX_CERTIFICATES:
            raise ConfigurationError(f"{self.name}: a chain has 1 to {MAX_CERTIFICATES} certificates")
        if sum(map(len, self.chain)) > MAX_CHAIN:
            raise ConfigurationError(f"{self.name}: the chain exceeds {MAX_CHAIN} bytes")
        _check_ocsp(self.name, self.ocsp)
        if not self.names:
            raise ConfigurationError(f"{self.name}: the certificate names no host (subjectAltName)")
        if sum(len(name.encode()) for name in self.names) > MAX_CERTIFICATE_NAMES:
            raise ConfigurationError(f"{self.name}: the names exceed {MAX_CERTIFICATE_NAMES} bytes")
        if any(name.split() != [name] for name in self.names):
            raise ConfigurationError(f"{self.name}: a name of the certificate is empty, or has white space in it")
        if len(self.ski) != SKI_LENGTH:
            raise ValueError(f"a key identifier has {SKI_LENGTH} bytes")


class ServedCertificates(Area):
    """The certificates, each under a name of its own; several may be for the same host."""

    def add(self, new: NewCertificate, *, actor: str, replace: bool = False) -> ServedCertificate:
        """Add a certificate and return it as it is kept.

        Raises: ConfigurationError when the name is taken and not replaced.
        """
        table = schema.served_certificates
        with self._changing(actor) as change:
            removed = change.connection.execute(delete(table).where(table.c.name == new.name)).rowcount
            if removed and not replace:
                raise ConfigurationError(
                    f"a certificate is called {new.name!r} already; --replace puts this one in its place"
                )
            values = {
                "name": new.name,
                "names": "\n".join(new.names),
                "chain": cbor2.dumps(list(new.chain)),
                "ski": new.ski,
                "ocsp": new.ocsp,
                "not_after": new.not_after,
                "added": change.time,
            }
            added = change.connection.execute(insert(table).values(values).returning(table)).one()
            action = "certificate.replace" if removed else "certificate.add"
            change.record(action, new.name, f"ski:{new.ski.hex()} for {', '.join(new.names)}")
        return _certificate(added)

    def set_ocsp(self, name: str, ocsp: bytes, *, actor: str) -> None:
        """Give a certificate another OCSP response in DER, or with empty bytes none.

        Raises: ConfigurationError when there is no certificate of this name, or the response is too large.
        """
        table = schema.served_certificates
        _check_ocsp(name, ocsp)
        with self._changing(actor) as change:
            if not change.connection.execute(update(table).where(table.c.name == name).values(ocsp=ocsp)).rowcount:
                raise ConfigurationError(_unknown(name))
            change.record("certificate.ocsp", name, f"{len(ocsp)} bytes")

    def all(self) -> list[ServedCertificate]:
        """Every certificate, by name."""
        with self._reading() as connection:
            return list(read_all(connection))

    def remove(self, name: str, *, actor: str) -> None:
        """Remove a certificate; ConfigurationError when there is none of this name."""
        table = schema.served_certificates
        with self._changing(actor) as change:
            if not change.connection.execute(delete(table).where(table.c.name == name)).rowcount:
                raise ConfigurationError(_unknown(name))
            change.record("certificate.remove", name)


def read_all(connection: Connection) -> tuple[ServedCertificate, ...]:
    """Every certificate, by name."""
    table = schema.served_certificates
    return tuple(map(_certificate, connection.execute(select(table).order_by(table.c.name)).all()))


def _certificate(row: Row[Any]) -> ServedCertificate:
    return ServedCertificate(
        id=row.id,
        name=row.name,
        names=tuple(row.names.split("\n")),
        chain=tuple(cbor2.loads(row.chain)),
        ski=row.ski,
        ocsp=row.ocsp,
        not_after=row.not_after,
        added=row.added,
    )


def _check_ocsp(name: str, ocsp: bytes) -> None:
    if len(ocsp) > MAX_OCSP:
        raise ConfigurationError(f"{name}: the OCSP response exceeds {MAX_OCSP} bytes")


def _unknown(name: str) -> str:
    return f"no certificate is called {name!r}; see: locum certificate list"
