"""The tables of A5 as SQLAlchemy knows them; the migrations make them.

Holds no query and no secret: what must stay secret is in columns named ``sealed_...``.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

#: The newest migration. A database that is here already is opened without loading Alembic.
HEAD = "0003"

#: The only row of `meta`.
META_ID = 1

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only in a column declared as INTEGER.
_Id = BigInteger().with_variant(Integer(), "sqlite")
# A peer pattern. SQLite heeds no length, so its columns were left as they were first made.
_Pattern = String(1024).with_variant(String(260), "sqlite")


def _id() -> Column[int]:
    return Column("id", _Id, primary_key=True)


#: One row: the generation that every change of configuration raises, the next terminal's number, and a
#: sealed constant by which a wrong node key is noticed.
meta = Table(
    "meta",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("created", Float(53), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("next_kid", BigInteger, nullable=False),
    Column("sealed_check", LargeBinary, nullable=False),
    CheckConstraint(f"id = {META_ID}", name="single"),
)

terminals = Table(
    "terminals",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("kid", LargeBinary(7), nullable=False, unique=True),
    Column("created", Float(53), nullable=False),
    Column("enabled", Boolean, nullable=False),
    # A number is never given twice, so that nothing that was meant for a removed terminal fits a later one.
    sqlite_autoincrement=True,
)

#: The cipher-key database: one channel key per terminal, and how many of the delegate's own sender sequence
#: numbers under it have been handed out.
cipher_keys = Table(
    "cipher_keys",
    metadata,
    Column(
        "terminal_id",
        _Id,
        ForeignKey("terminals.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("algorithm", String(32), nullable=False),
    Column("delegate_id", LargeBinary(7), nullable=False),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("next_sequence", BigInteger, nullable=False),
    CheckConstraint("next_sequence >= 0", name="sequence"),
)

#: The authentication-key database: trust anchors, pinned keys (SubjectPublicKeyInfo) and CRLs, all in DER.
authentication_keys = Table(
    "authentication_keys",
    metadata,
    _id(),
    Column("kind", String(8), nullable=False),
    Column("name", String(256), nullable=False),
    Column("peer", _Pattern, nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("added", Float(53), nullable=False),
    UniqueConstraint("kind", "fingerprint", "peer"),
    CheckConstraint("kind IN ('anchor', 'pin', 'crl')", name="kind"),
    CheckConstraint("(kind = 'pin') = (peer <> '')", name="peer"),
    sqlite_autoincrement=True,
)
# A verdict names the pinned key that was shown (pin:NAME), so that name must mean one key.
Index(
    "uq_authentication_keys_pin_name",
    authentication_keys.c.name,
    unique=True,
    sqlite_where=text("kind = 'pin'"),
    postgresql_where=text("kind = 'pin'"),
)

#: The policy database. A rule without a terminal is for every terminal.
policies = Table(
    "policies",
    metadata,
    _id(),
    Column("terminal_id", _Id, ForeignKey("terminals.id", ondelete="CASCADE")),
    Column("peer", _Pattern, nullable=False),
    Column("action", String(8), nullable=False),
    Column("added", Float(53), nullable=False),
    CheckConstraint("action IN ('allow', 'deny')", name="action"),
    sqlite_autoincrement=True,
)
Index("ix_policies_terminal_id", policies.c.terminal_id)

identities = Table(
    "identities",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("peer", _Pattern, nullable=False),
    Column("chain_pem", Text, nullable=False),
    Column("sealed_private_key", LargeBinary, nullable=False),
    Column("all_terminals", Boolean, nullable=False),
    Column("added", Float(53), nullable=False),
    sqlite_autoincrement=True,
)

#: Which terminals an identity may be used for, unless for all. Losing the last one leaves it to nobody.
identity_terminals = Table(
    "identity_terminals",
    metadata,
    Column("identity_id", _Id, ForeignKey("identities.id", ondelete="CASCADE"), primary_key=True),
    Column("terminal_id", _Id, ForeignKey("terminals.id", ondelete="CASCADE"), primary_key=True),
)
Index("ix_identity_terminals_terminal_id", identity_terminals.c.terminal_id)

#: Pre-shared keys and post-quantum pre-shared keys; `identifier` is the latter's, `peer` an identity or ``*``.
shared_secrets = Table(
    "shared_secrets",
    metadata,
    _id(),
    Column("kind", String(8), nullable=False),
    Column("terminal_id", _Id, ForeignKey("terminals.id", ondelete="CASCADE"), nullable=False),
    Column("peer", _Pattern, nullable=False),
    Column("identifier", String(255), nullable=False),
    Column("local_identity", _Pattern, nullable=False),
    Column("required", Boolean, nullable=False),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("added", Float(53), nullable=False),
    CheckConstraint("kind IN ('psk', 'ppk')", name="kind"),
    CheckConstraint("(kind = 'ppk') = (identifier <> '')", name="identifier"),
    sqlite_autoincrement=True,
)
Index("ix_shared_secrets_terminal_id", shared_secrets.c.terminal_id)

#: The private keys of the key server. One that stays in a PKCS #11 token has its URI here, and sealed beside it.
private_keys = Table(
    "private_keys",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("kind", String(32), nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("ski", LargeBinary(20), nullable=False, unique=True),
    Column("digest", String(64), nullable=False),
    Column("sealed_private_key", LargeBinary, nullable=False),
    Column("token", String(2048), nullable=False),
    Column("added", Float(53), nullable=False),
    sqlite_autoincrement=True,
)

#: Certificates that the key server hands out; `names` has one in each line, `chain` is a CBOR array of DER.
served_certificates = Table(
    "served_certificates",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("names", Text, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    Column("ski", LargeBinary(20), nullable=False),
    Column("ocsp", LargeBinary, nullable=False),
    Column("not_after", Float(53), nullable=False),
    Column("added", Float(53), nullable=False),
    sqlite_autoincrement=True,
)

edges = Table(
    "edges",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("fingerprint", String(64), nullable=False, unique=True),
    Column("not_after", Float(53), nullable=False),
    Column("allow", String(8), nullable=False),
    Column("roles", String(8), nullable=False),
    Column("all_keys", Boolean, nullable=False),
    Column("certificates", Boolean, nullable=False),
    Column("rate", Float(53), nullable=False),
    Column("created", Float(53), nullable=False),
    Column("revoked", Float(53)),
    CheckConstraint("allow IN ('bound', 'raw', 'both')", name="allow"),
    CheckConstraint("roles IN ('server', 'client', 'both')", name="roles"),
    CheckConstraint("rate >= 0", name="rate"),
    sqlite_autoincrement=True,
)

#: Which keys an edge may use, unless all, by their names: a key may also be in a directory, or at another server.
edge_keys = Table(
    "edge_keys",
    metadata,
    Column("edge_id", _Id, ForeignKey("edges.id", ondelete="CASCADE"), primary_key=True),
    Column("key_name", String(64), primary_key=True),
)

#: What nodes that share a database have in common without anybody having set it: see `store.internal`.
internal_secrets = Table(
    "internal_secrets",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("public", LargeBinary, nullable=False),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("created", Float(53), nullable=False),
)

#: Append-only: triggers refuse to change or delete a row.
audit = Table(
    "audit",
    metadata,
    _id(),
    Column("time", Float(53), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(260), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("detail", String(1024), nullable=False),
    sqlite_autoincrement=True,
)
