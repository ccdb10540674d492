"""What the key server works with: private keys, certificates to hand out, edges, and what nodes make themselves.

A migration is history: it spells its tables out and never imports the schema of today.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.Float(53)


def upgrade() -> None:
    """Add the tables."""
    _make_private_keys()
    _make_served_certificates()
    _make_edges()
    op.create_table(
        "internal_secrets",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("public", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("created", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_internal_secrets"),
    )


def downgrade() -> None:
    """What is in the new tables would be lost."""
    raise NotImplementedError("the third migration cannot be undone: restore the database from a backup")


def _make_private_keys() -> None:
    op.create_table(
        "private_keys",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("ski", sa.LargeBinary(20), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("sealed_private_key", sa.LargeBinary(), nullable=False),
        sa.Column("token", sa.String(2048), nullable=False),
        sa.Column("added", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_private_keys"),
        sa.UniqueConstraint("name", name="uq_private_keys_name"),
        sa.UniqueConstraint("ski", name="uq_private_keys_ski"),
        sqlite_autoincrement=True,
    )


def _make_served_certificates() -> None:
    op.create_table(
        "served_certificates",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("names", sa.Text(), nullable=False),
        sa.Column("chain", sa.LargeBinary(), nullable=False),
        sa.Column("ski", sa.LargeBinary(20), nullable=False),
        sa.Column("ocsp", sa.LargeBinary(), nullable=False),
        sa.Column("not_after", _TIME, nullable=False),
        sa.Column("added", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_served_certificates"),
        sa.UniqueConstraint("name", name="uq_served_certificates_name"),
        sqlite_autoincrement=True,
    )


def _make_edges() -> None:
    op.create_table(
        "edges",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("not_after", _TIME, nullable=False),
        sa.Column("allow", sa.String(8), nullable=False),
        sa.Column("roles", sa.String(8), nullable=False),
        sa.Column("all_keys", sa.Boolean(), nullable=False),
        sa.Column("certificates", sa.Boolean(), nullable=False),
        sa.Column("rate", sa.Float(53), nullable=False),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("revoked", _TIME),
        sa.PrimaryKeyConstraint("id", name="pk_edges"),
        sa.UniqueConstraint("name", name="uq_edges_name"),
        sa.UniqueConstraint("fingerprint", name="uq_edges_fingerprint"),
        sa.CheckConstraint("allow IN ('bound', 'raw', 'both')", name="ck_edges_allow"),
        sa.CheckConstraint("roles IN ('server', 'client', 'both')", name="ck_edges_roles"),
        sa.CheckConstraint("rate >= 0", name="ck_edges_rate"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "edge_keys",
        sa.Column("edge_id", _ID, nullable=False),
        sa.Column("key_name", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("edge_id", "key_name", name="pk_edge_keys"),
        sa.ForeignKeyConstraint(["edge_id"], ["edges.id"], name="fk_edge_keys_edge_id", ondelete="CASCADE"),
    )
