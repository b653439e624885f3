"""Two parties: sketches, erasures, closed deliveries, catalog declarations, what bridges leave behind. There is no way down."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_PURPOSES = "purpose IN ('anchor', 'register', 'move', 'deploy')"
_MORE_PURPOSES = "purpose IN ('anchor', 'register', 'move', 'deploy', 'attest', 'dispute')"


def _hex(table: str, column: str, digits: int) -> sa.CheckConstraint:
    form = f"length({column}) = {digits} AND trim({column}, '0123456789abcdef') = ''"
    return sa.CheckConstraint(form, name=op.f(f"ck_{table}_{column}_hex"))


def _utc(table: str, column: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} LIKE '____-__-__T__:__:__Z'", name=op.f(f"ck_{table}_{column}_utc"))


def upgrade() -> None:
    _widen_purposes()
    op.add_column("claim", sa.Column("sketch", sa.LargeBinary(), nullable=True))
    op.create_table(
        "declaration",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        _hex("declaration", "digest", 64),
        sa.CheckConstraint("text <> ''", name=op.f("ck_declaration_text_given")),
        _utc("declaration", "created_at"),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_declaration")),
    )
    op.create_table(
        "erasure",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("catalog_id", sa.Text(), nullable=False),
        sa.Column("sender_party", sa.Text(), nullable=False),
        sa.Column("receiver_party", sa.Text(), nullable=False),
        sa.Column("key_tag", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=False),
        sa.Column("files", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("finished_at", sa.Text(), nullable=True),
        sa.CheckConstraint("(state = 'done') = (finished_at IS NOT NULL)", name=op.f("ck_erasure_finished_at_filled")),
        sa.CheckConstraint("approved_by <> ''", name=op.f("ck_erasure_approved_by_given")),
        _utc("erasure", "created_at"),
        _utc("erasure", "finished_at"),
        _hex("erasure", "key_tag", 32),
        sa.CheckConstraint("reason <> ''", name=op.f("ck_erasure_reason_given")),
        sa.CheckConstraint("state IN ('intent', 'done')", name=op.f("ck_erasure_state_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasure")),
        sa.UniqueConstraint(
            "catalog_id",
            "sender_party",
            "receiver_party",
            "key_tag",
            name=op.f("uq_erasure_catalog_id_sender_party_receiver_party_key_tag"),
        ),
    )
    op.create_table(
        "closing",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("closed_at", sa.Text(), nullable=False),
        _utc("closing", "closed_at"),
        sa.CheckConstraint("reason IN ('final', 'deadline')", name=op.f("ck_closing_reason_known")),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_closing_batch_id")),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_closing")),
    )
    op.create_table(
        "not_carried",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("key_tag", sa.Text(), nullable=False),
        _hex("not_carried", "key_tag", 32),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_not_carried_batch_id")),
        sa.PrimaryKeyConstraint("batch_id", "key_tag", name=op.f("pk_not_carried")),
    )


def _widen_purposes() -> None:
    """Let the outbox know two more purposes. SQLite cannot change a constraint: the table is made anew from its own text."""
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        op.drop_constraint(op.f("ck_outbox_purpose_known"), "outbox", type_="check")
        op.create_check_constraint(op.f("ck_outbox_purpose_known"), "outbox", _MORE_PURPOSES)
        return
    told = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'outbox'").scalar_one()
    index = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'uq_outbox_mined'").scalar_one()
    if _PURPOSES not in told:
        raise ValueError("the outbox is not as migration 0001 made it")
    # Claims refer to the table by its name, which for a moment nothing has.
    connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
    connection.exec_driver_sql("CREATE TEMPORARY TABLE outbox_rows AS SELECT * FROM outbox")
    connection.exec_driver_sql("DROP TABLE outbox")
    connection.exec_driver_sql(told.replace(_PURPOSES, _MORE_PURPOSES))
    connection.exec_driver_sql("INSERT INTO outbox SELECT * FROM outbox_rows")
    connection.exec_driver_sql("DROP TABLE outbox_rows")
    connection.exec_driver_sql(index)
