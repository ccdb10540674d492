"""A key service in memory: keys, edges and clocks as a test wants them, and a connection that takes requests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from tests.support.key_pairs import key_pair

from locum.keyless.frames import Frame, FrameReader, KeyReference
from locum.keyless.requests import NO_KEY, Request, encode_request
from locum.keys.file import FileKey
from locum.keyserver.connection import Connection
from locum.keyserver.journal import Journal
from locum.keyserver.keyring import CertificateNames, HeldKey, Keyring, held_here
from locum.keyserver.limits import Limits
from locum.keyserver.service import KeyService, State
from locum.keyserver.shared import SharedSecrets
from locum.store.records import Allow, AuditEntry, Edge, EdgeRole, ServedCertificate

NOW = 1_800_000_000.0
YEAR = 365 * 86_400.0


def held(kind: str, name: str = "", number: int = 0) -> HeldKey:
    """A key of this kind in this process, called after its kind unless told otherwise."""
    pair = key_pair(kind, number) if number else key_pair(kind)
    return held_here(name or kind, FileKey(pair.key))


def fingerprint(name: str) -> str:
    """The fingerprint that an edge of this name has."""
    return hashlib.sha256(name.encode()).hexdigest()


def edge(name: str = "edge", **fields: Any) -> Edge:
    """An edge that may do everything with every key, unless told otherwise."""
    everything: dict[str, Any] = {
        "id": 1,
        "fingerprint": fingerprint(name),
        "not_after": NOW + YEAR,
        "allow": Allow.BOTH,
        "roles": EdgeRole.BOTH,
        "keys": ("*",),
        "certificates": True,
        "rate": 0.0,
        "created": NOW,
        "revoked": None,
    }
    return Edge(name=name, **(everything | fields))


def certificate(key: HeldKey, names: Sequence[str], **fields: Any) -> ServedCertificate:
    """A certificate of this key, which nobody looks into."""
    everything: dict[str, Any] = {
        "id": 1,
        "name": names[0],
        "chain": (b"leaf", b"intermediate"),
        "ocsp": b"",
        "not_after": NOW + YEAR,
        "added": NOW,
    }
    return ServedCertificate(names=tuple(names), ski=key.ski, **(everything | fields))


class Bench:
    """A service with its keys and edges; `now` and `clock` are what the test says."""

    def __init__(
        self,
        keys: Iterable[HeldKey] = (),
        edges: Iterable[Edge] = (),
        certificates: Iterable[ServedCertificate] = (),
        *,
        limits: Limits | None = None,
        legacy_hashes: bool = False,
    ) -> None:
        self.now = NOW
        self.clock = 0.0
        self.entries: list[AuditEntry] = []
        self.journal = Journal(self.entries.append, time=lambda: self.now)
        self.service = KeyService(
            journal=self.journal,
            limits=limits or Limits(),
            now=lambda: self.now,
            clock=lambda: self.clock,
            random=Random(1).randbytes,
            legacy_hashes=legacy_hashes,
        )
        self.keys, self.edges, self.certificates = tuple(keys), tuple(edges) or (edge(),), tuple(certificates)
        self.change()

    def change(self, **fields: Any) -> None:
        """Put other keys, edges or certificates in force."""
        for name, value in fields.items():
            setattr(self, name, tuple(value))
        names = CertificateNames(self.certificates)
        self.service.use(
            State(
                generation=1,
                edges={each.fingerprint: each for each in self.edges},
                keyring=Keyring(self.keys, names),
                certificates=names,
                secrets=SharedSecrets(b"r" * 32),
            )
        )

    def permit(self, **fields: Any) -> None:
        """Change what the first edge may do."""
        self.change(edges=(replace(self.edges[0], **fields), *self.edges[1:]))

    def connection(self, name: str = "edge") -> Connection:
        """A connection of the edge with this name."""
        return Connection(self.service, fingerprint(name))

    def audited(self) -> list[tuple[str, str, str, str, str]]:
        """What the audit log has got so far: actor, action, subject, outcome and detail."""
        self.journal.flush()
        return [
            (entry.actor, entry.action, entry.subject, str(entry.outcome), entry.detail) for entry in self.entries
        ]


def asked(request: Request, key: HeldKey | None = None, number: int = 7) -> bytes:
    """The bytes of a request."""
    return encode_request(number, request, NO_KEY if key is None else KeyReference(ski=key.ski))


def answered(data: bytes) -> list[Frame]:
    """The answers in these bytes; every one is whole."""
    reader = FrameReader()
    frames = reader.feed(data)
    assert not reader.pending and reader.fault is None
    return frames


def ask(connection: Connection, request: Request, key: HeldKey | None = None) -> Frame:
    """The answer to one request."""
    connection.receive(asked(request, key))
    (answer,) = answered(connection.turn(only_short=False))
    assert answer.id == 7
    return answer
