"""Secrets that terminals share with peers of IKE; patterns long enough for distinguished names.

A migration is history: it spells its tables out and never imports the schema of today.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_PATTERN = sa.String(1024).with_variant(sa.String(260), "sqlite")
_OLD_PATTERN = 260


def upgrade() -> None:
    """Add the table, and make room in the columns that hold patterns."""
    op.create_table(
        "shared_secrets",
        sa.Column("id", _ID, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("terminal_id", _ID, nullable=False),
        sa.Column("peer", _PATTERN, nullable=False),
        sa.Column("identifier", sa.String(255), nullable=False),
        sa.Column("local_identity", _PATTERN, nullable=False),
        sa.Column("required", sa.Boolean(), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("added", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_shared_secrets"),
        sa.ForeignKeyConstraint(
            ["terminal_id"], ["terminals.id"], name="fk_shared_secrets_terminal_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("kind IN ('psk', 'ppk')", name="ck_shared_secrets_kind"),
        sa.CheckConstraint("(kind = 'ppk') = (identifier <> '')", name="ck_shared_secrets_identifier"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_shared_secrets_terminal_id", "shared_secrets", ["terminal_id"])
    if op.get_bind().dialect.name != "sqlite":  # which heeds no length
        for table in ("authentication_keys", "policies", "identities"):
            op.alter_column(table, "peer", existing_type=sa.String(_OLD_PATTERN), type_=sa.String(1024))


def downgrade() -> None:
    """What is in the new table would be lost."""
    raise NotImplementedError("the second migration cannot be undone: restore the database from a backup")
