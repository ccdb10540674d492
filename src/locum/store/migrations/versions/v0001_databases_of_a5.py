"""The databases of A5: terminals, channel keys, authentication keys, policies, identities, audit log.

A migration is history: it spells its tables out and never imports the schema of today.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.Float(53)
_APPEND_ONLY = "the audit log is append-only"


def upgrade() -> None:
    """Make every table in an empty database."""
    _make_meta()
    _make_terminals()
    _make_authentication_keys()
    _make_policies()
    _make_identities()
    _make_audit()


def downgrade() -> None:
    """There is nothing before the first migration."""
    raise NotImplementedError("the first migration cannot be undone: delete the database instead")


def _make_meta() -> None:
    op.create_table(
        "meta",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("next_kid", sa.BigInteger(), nullable=False),
        sa.Column("sealed_check", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_meta"),
        sa.CheckConstraint("id = 1", name="ck_meta_single"),
    )


def _make_terminals() -> None:
    op.create_table(
        "terminals",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("kid", sa.LargeBinary(7), nullable=False),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_terminals"),
        sa.UniqueConstraint("name", name="uq_terminals_name"),
        sa.UniqueConstraint("kid", name="uq_terminals_kid"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "cipher_keys",
        sa.Column("terminal_id", _ID, autoincrement=False, nullable=False),
        sa.Column("algorithm", sa.String(32), nullable=False),
        sa.Column("delegate_id", sa.LargeBinary(7), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("next_sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("terminal_id", name="pk_cipher_keys"),
        sa.ForeignKeyConstraint(
            ["terminal_id"], ["terminals.id"], name="fk_cipher_keys_terminal_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("next_sequence >= 0", name="ck_cipher_keys_sequence"),
    )


def _make_authentication_keys() -> None:
    op.create_table(
        "authentication_keys",
        sa.Column("id", _ID, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("name", sa.String(256), nullable=False),
        sa.Column("peer", sa.String(260), nullable=False),
        sa.Column("der", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("added", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_authentication_keys"),
        sa.UniqueConstraint("kind", "fingerprint", "peer", name="uq_authentication_keys_kind_fingerprint_peer"),
        sa.CheckConstraint("kind IN ('anchor', 'pin', 'crl')", name="ck_authentication_keys_kind"),
        sa.CheckConstraint("(kind = 'pin') = (peer <> '')", name="ck_authentication_keys_peer"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "uq_authentication_keys_pin_name",
        "authentication_keys",
        ["name"],
        unique=True,
        sqlite_where=sa.text("kind = 'pin'"),
        postgresql_where=sa.text("kind = 'pin'"),
    )


def _make_policies() -> None:
    op.create_table(
        "policies",
        sa.Column("id", _ID, nullable=False),
        sa.Column("terminal_id", _ID),
        sa.Column("peer", sa.String(260), nullable=False),
        sa.Column("action", sa.String(8), nullable=False),
        sa.Column("added", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_policies"),
        sa.ForeignKeyConstraint(
            ["terminal_id"], ["terminals.id"], name="fk_policies_terminal_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("action IN ('allow', 'deny')", name="ck_policies_action"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_policies_terminal_id", "policies", ["terminal_id"])


def _make_identities() -> None:
    op.create_table(
        "identities",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("peer", sa.String(260), nullable=False),
        sa.Column("chain_pem", sa.Text(), nullable=False),
        sa.Column("sealed_private_key", sa.LargeBinary(), nullable=False),
        sa.Column("all_terminals", sa.Boolean(), nullable=False),
        sa.Column("added", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_identities"),
        sa.UniqueConstraint("name", name="uq_identities_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "identity_terminals",
        sa.Column("identity_id", _ID, nullable=False),
        sa.Column("terminal_id", _ID, nullable=False),
        sa.PrimaryKeyConstraint("identity_id", "terminal_id", name="pk_identity_terminals"),
        sa.ForeignKeyConstraint(
            ["identity_id"], ["identities.id"], name="fk_identity_terminals_identity_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["terminal_id"], ["terminals.id"], name="fk_identity_terminals_terminal_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_identity_terminals_terminal_id", "identity_terminals", ["terminal_id"])


def _make_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", _ID, nullable=False),
        sa.Column("time", _TIME, nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(260), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("detail", sa.String(1024), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
        sqlite_autoincrement=True,
    )
    if op.get_bind().dialect.name == "sqlite":
        for event in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{event.lower()} BEFORE {event} ON audit "
                f"BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END"
            )
        # INSERT OR REPLACE deletes a row without asking the trigger for deletion.
        op.execute(
            "CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit "  # noqa: S608 - fixed words
            "WHEN NEW.id IN (SELECT id FROM audit) "
            f"BEGIN SELECT RAISE(ABORT, '{_APPEND_ONLY}'); END"
        )
        return
    op.execute(
        "CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_APPEND_ONLY}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()"
    )
