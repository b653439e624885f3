"""Reconciliations and their findings as people work them; tokens, restores, proposals, notices. There is no way down."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _hex(table: str, column: str, digits: int) -> sa.CheckConstraint:
    form = f"length({column}) = {digits} AND trim({column}, '0123456789abcdef') = ''"
    return sa.CheckConstraint(form, name=op.f(f"ck_{table}_{column}_hex"))


def _utc(table: str, column: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} LIKE '____-__-__T__:__:__Z'", name=op.f(f"ck_{table}_{column}_utc"))


def upgrade() -> None:
    op.add_column("consent", sa.Column("proposed_by", sa.Text(), nullable=True))
    op.create_table(
        "finding",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("catalog_id", sa.Text(), nullable=False),
        sa.Column("key_tag", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("batch", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("assigned_to", sa.Text(), nullable=True),
        sa.Column("explained_until", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("changed_by", sa.Text(), nullable=True),
        sa.Column("changed_at", sa.Text(), nullable=True),
        sa.Column("first_seen_at", sa.Text(), nullable=False),
        sa.Column("first_run", sa.Text(), nullable=False),
        sa.Column("last_seen_at", sa.Text(), nullable=False),
        sa.Column("last_run", sa.Text(), nullable=False),
        sa.Column("told_at", sa.Text(), nullable=True),
        sa.Column("read_mark", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=True),
        sa.Column("settled_at", sa.Text(), nullable=True),
        sa.Column("settled_by", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state = 'explained') = (explained_until IS NOT NULL)", name=op.f("ck_finding_explained_until_filled")
        ),
        sa.CheckConstraint("(state = 'settled') = (settled_at IS NOT NULL)", name=op.f("ck_finding_settled_at_filled")),
        sa.CheckConstraint("(state = 'settled') = (settled_by IS NOT NULL)", name=op.f("ck_finding_settled_by_filled")),
        _utc("finding", "changed_at"),
        sa.CheckConstraint("explained_until LIKE '____-__-__'", name=op.f("ck_finding_explained_until_day")),
        _utc("finding", "first_seen_at"),
        sa.CheckConstraint("kind <> ''", name=op.f("ck_finding_kind_given")),
        _utc("finding", "last_seen_at"),
        _hex("finding", "content", 64),
        _hex("finding", "key_tag", 32),
        _utc("finding", "settled_at"),
        sa.CheckConstraint(
            "state <> 'assigned' OR assigned_to IS NOT NULL", name=op.f("ck_finding_assigned_to_somebody")
        ),
        sa.CheckConstraint("state <> 'explained' OR reason IS NOT NULL", name=op.f("ck_finding_explained_with_reason")),
        sa.CheckConstraint("state IN ('new', 'assigned', 'explained', 'settled')", name=op.f("ck_finding_state_known")),
        _utc("finding", "told_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_finding")),
        sa.UniqueConstraint("catalog_id", "key_tag", "kind", name=op.f("uq_finding_catalog_id_key_tag_kind")),
    )
    op.create_index("ix_finding_state", "finding", ["state"], unique=False)
    op.create_table(
        "notice",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("sent_at", sa.Text(), nullable=True),
        sa.CheckConstraint("(state = 'sent') = (sent_at IS NOT NULL)", name=op.f("ck_notice_sent_at_filled")),
        sa.CheckConstraint("channel IN ('webhook', 'mail')", name=op.f("ck_notice_channel_known")),
        _utc("notice", "created_at"),
        _hex("notice", "id", 32),
        _utc("notice", "sent_at"),
        sa.CheckConstraint("state IN ('waiting', 'sent', 'failed')", name=op.f("ck_notice_state_known")),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_notice_attempts_counts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice")),
    )
    op.create_table(
        "proposal",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("catalog_id", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("key_tag", sa.Text(), nullable=False),
        sa.Column("commitment", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("proposed_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.Text(), nullable=True),
        sa.CheckConstraint("action IN ('accept', 'withdraw')", name=op.f("ck_proposal_action_known")),
        sa.CheckConstraint(
            "commitment = '' OR (length(commitment) = 64 AND trim(commitment, '0123456789abcdef') = '')",
            name=op.f("ck_proposal_commitment_hex"),
        ),
        _utc("proposal", "created_at"),
        _utc("proposal", "decided_at"),
        _hex("proposal", "key_tag", 32),
        sa.CheckConstraint("proposed_by <> ''", name=op.f("ck_proposal_proposed_by_given")),
        sa.CheckConstraint("reason <> ''", name=op.f("ck_proposal_reason_given")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposal")),
    )
    op.create_index(
        "uq_proposal_open",
        "proposal",
        ["catalog_id", "action", "key_tag"],
        unique=True,
        sqlite_where=sa.text("decided_at IS NULL"),
        postgresql_where=sa.text("decided_at IS NULL"),
    )
    op.create_table(
        "reconciliation",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("catalog_id", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("requested_by", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("progress_rows", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Text(), nullable=True),
        sa.Column("heartbeat_at", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.Text(), nullable=True),
        sa.Column("verdict", sa.Text(), nullable=True),
        sa.Column("exit_code", sa.BigInteger(), nullable=True),
        sa.Column("report", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state = 'finished') = (exit_code IS NOT NULL)", name=op.f("ck_reconciliation_exit_code_filled")
        ),
        sa.CheckConstraint("(state = 'finished') = (report IS NOT NULL)", name=op.f("ck_reconciliation_report_filled")),
        sa.CheckConstraint(
            "(state = 'finished') = (verdict IS NOT NULL)", name=op.f("ck_reconciliation_verdict_filled")
        ),
        sa.CheckConstraint(
            "(state IN ('failed', 'interrupted')) = (error IS NOT NULL)", name=op.f("ck_reconciliation_error_filled")
        ),
        sa.CheckConstraint(
            "(state IN ('finished', 'failed', 'interrupted')) = (finished_at IS NOT NULL)",
            name=op.f("ck_reconciliation_finished_at_filled"),
        ),
        sa.CheckConstraint("catalog_id <> ''", name=op.f("ck_reconciliation_catalog_given")),
        _utc("reconciliation", "created_at"),
        _utc("reconciliation", "finished_at"),
        _utc("reconciliation", "heartbeat_at"),
        _hex("reconciliation", "id", 32),
        sa.CheckConstraint("requested_by <> ''", name=op.f("ck_reconciliation_requested_by_given")),
        _utc("reconciliation", "started_at"),
        sa.CheckConstraint(
            "state <> 'running' OR (worker IS NOT NULL AND started_at IS NOT NULL AND heartbeat_at IS NOT NULL)",
            name=op.f("ck_reconciliation_running_has_a_worker"),
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'finished', 'failed', 'interrupted')",
            name=op.f("ck_reconciliation_state_known"),
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_reconciliation_attempts_counts")),
        sa.CheckConstraint("exit_code IN (0, 1, 2)", name=op.f("ck_reconciliation_exit_code_known")),
        sa.CheckConstraint("progress_rows >= 0", name=op.f("ck_reconciliation_progress_counts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliation")),
    )
    op.create_index(
        "ix_reconciliation_catalog_id_created_at", "reconciliation", ["catalog_id", "created_at"], unique=False
    )
    op.create_index(
        "uq_reconciliation_running",
        "reconciliation",
        ["catalog_id"],
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "restore",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("catalog_id", sa.Text(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Text(), nullable=False),
        sa.Column("finished_at", sa.Text(), nullable=True),
        sa.Column("told_at", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state IN ('applied', 'failed')) = (finished_at IS NOT NULL)", name=op.f("ck_restore_finished_at_filled")
        ),
        sa.CheckConstraint("approved_by <> ''", name=op.f("ck_restore_approved_by_given")),
        _utc("restore", "finished_at"),
        _utc("restore", "started_at"),
        sa.CheckConstraint("state IN ('intent', 'applied', 'failed')", name=op.f("ck_restore_state_known")),
        _utc("restore", "told_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_restore")),
    )
    op.create_table(
        "token",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Text(), nullable=False),
        sa.Column("revoked_at", sa.Text(), nullable=True),
        sa.Column("last_used_at", sa.Text(), nullable=True),
        _utc("token", "created_at"),
        _utc("token", "expires_at"),
        _utc("token", "last_used_at"),
        _hex("token", "secret_sha256", 64),
        sa.CheckConstraint("name <> ''", name=op.f("ck_token_name_given")),
        _utc("token", "revoked_at"),
        sa.CheckConstraint("scopes <> ''", name=op.f("ck_token_scopes_given")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token")),
    )
    op.create_table(
        "found",
        sa.Column("reconciliation_id", sa.Text(), nullable=False),
        sa.Column("ordinal", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key_tag", sa.Text(), nullable=True),
        sa.Column("batch", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.CheckConstraint("kind <> ''", name=op.f("ck_found_kind_given")),
        _hex("found", "key_tag", 32),
        sa.CheckConstraint("ordinal >= 0", name=op.f("ck_found_ordinal_counts")),
        sa.ForeignKeyConstraint(
            ["reconciliation_id"], ["reconciliation.id"], name=op.f("fk_found_reconciliation_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("reconciliation_id", "ordinal", name=op.f("pk_found")),
    )
    op.create_index("ix_found_reconciliation_id_kind", "found", ["reconciliation_id", "kind"], unique=False)
