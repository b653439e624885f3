"""The first tables. There is no way down: it would throw the ledger away."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


# Written out here, not taken from the models: these move on, a migration never does.
def _hex(table: str, column: str, digits: int) -> sa.CheckConstraint:
    form = f"length({column}) = {digits} AND trim({column}, '0123456789abcdef') = ''"
    return sa.CheckConstraint(form, name=op.f(f"ck_{table}_{column}_hex"))


def _utc(table: str, column: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} LIKE '____-__-__T__:__:__Z'", name=op.f(f"ck_{table}_{column}_utc"))


def _address(table: str, column: str, *, or_empty: bool = False) -> sa.CheckConstraint:
    form = (
        f"length({column}) = 42 AND substr({column}, 1, 2) = '0x' "
        f"AND trim(substr({column}, 3), '0123456789abcdef') = ''"
    )
    form = f"{column} = '' OR ({form})" if or_empty else form
    return sa.CheckConstraint(form, name=op.f(f"ck_{table}_{column}_address"))


def upgrade() -> None:
    op.create_table(
        "baseline",
        sa.Column("catalog_id", sa.Text(), nullable=False),
        sa.Column("sender_party", sa.Text(), nullable=False),
        sa.Column("key_tag", sa.Text(), nullable=False),
        sa.Column("first_seen_at", sa.Text(), nullable=False),
        _utc("baseline", "first_seen_at"),
        _hex("baseline", "key_tag", 32),
        sa.PrimaryKeyConstraint("catalog_id", "sender_party", "key_tag", name=op.f("pk_baseline")),
    )
    op.create_table(
        "batch",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("descriptor", sa.Text(), nullable=False),
        sa.Column("catalog_id", sa.Text(), nullable=False),
        sa.Column("catalog_version", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("receiver", sa.Text(), nullable=False),
        sa.Column("sender_party", sa.Text(), nullable=False),
        sa.Column("receiver_party", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.CheckConstraint("(receiver = '') = (receiver_party = '')", name=op.f("ck_batch_receiver_named")),
        _utc("batch", "created_at"),
        sa.CheckConstraint("kind <> 'delivery' OR receiver <> ''", name=op.f("ck_batch_delivery_has_receiver")),
        sa.CheckConstraint("kind <> 'sealed' OR receiver = ''", name=op.f("ck_batch_sealed_has_none")),
        sa.CheckConstraint(
            "kind IN ('delivery', 'sealed', 'correction', 'snapshot')", name=op.f("ck_batch_kind_known")
        ),
        _hex("batch", "id", 64),
        _address("batch", "sender"),
        sa.CheckConstraint("number <> ''", name=op.f("ck_batch_number_given")),
        _address("batch", "receiver", or_empty=True),
        sa.CheckConstraint("sender_party <> ''", name=op.f("ck_batch_sender_party_given")),
        sa.CheckConstraint("catalog_version >= 1", name=op.f("ck_batch_catalog_version_positive")),
        sa.CheckConstraint("sender <> receiver", name=op.f("ck_batch_sender_is_not_receiver")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch")),
        sa.UniqueConstraint(
            "catalog_id",
            "sender_party",
            "receiver_party",
            "number",
            name=op.f("uq_batch_catalog_id_sender_party_receiver_party_number"),
        ),
    )
    op.create_table(
        "chain",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("chain_id", sa.BigInteger(), nullable=False),
        sa.Column("contract", sa.Text(), nullable=False),
        sa.Column("code_sha256", sa.Text(), nullable=False),
        sa.Column("origin_number", sa.BigInteger(), nullable=False),
        sa.Column("origin_hash", sa.Text(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("block_hash", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        _hex("chain", "block_hash", 64),
        _hex("chain", "code_sha256", 64),
        _hex("chain", "origin_hash", 64),
        _address("chain", "contract"),
        _utc("chain", "updated_at"),
        sa.CheckConstraint("block_number >= 0", name=op.f("ck_chain_block_number_counts")),
        sa.CheckConstraint("chain_id >= 1", name=op.f("ck_chain_chain_id_positive")),
        sa.CheckConstraint("id = 1", name=op.f("ck_chain_single")),
        sa.CheckConstraint("origin_number >= 1", name=op.f("ck_chain_origin_number_positive")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chain")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("nonce", sa.BigInteger(), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=True),
        sa.Column("block_hash", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "(state IN ('mined', 'confirmed')) = (block_hash IS NOT NULL)", name=op.f("ck_outbox_block_hash_filled")
        ),
        sa.CheckConstraint(
            "(state IN ('mined', 'confirmed')) = (block_number IS NOT NULL)", name=op.f("ck_outbox_block_number_filled")
        ),
        _utc("outbox", "created_at"),
        _address("outbox", "address"),
        _hex("outbox", "block_hash", 64),
        _hex("outbox", "hash", 64),
        sa.CheckConstraint("purpose IN ('anchor', 'register', 'move', 'deploy')", name=op.f("ck_outbox_purpose_known")),
        sa.CheckConstraint(
            "raw <> '' AND length(raw) % 2 = 0 AND trim(raw, '0123456789abcdef') = ''", name=op.f("ck_outbox_raw_hex")
        ),
        sa.CheckConstraint(
            "state IN ('signed', 'sent', 'mined', 'confirmed', 'replaced')", name=op.f("ck_outbox_state_known")
        ),
        _utc("outbox", "updated_at"),
        sa.CheckConstraint("nonce >= 0", name=op.f("ck_outbox_nonce_counts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("address", "nonce", "hash", name=op.f("uq_outbox_address_nonce_hash")),
        sa.UniqueConstraint("hash", name=op.f("uq_outbox_hash")),
    )
    op.create_index(
        "uq_outbox_mined",
        "outbox",
        ["address", "nonce"],
        unique=True,
        sqlite_where=sa.text("state IN ('mined', 'confirmed')"),
        postgresql_where=sa.text("state IN ('mined', 'confirmed')"),
    )
    op.create_table(
        "run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Text(), nullable=False),
        sa.Column("finished_at", sa.Text(), nullable=True),
        sa.Column("exit_code", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        _utc("run", "finished_at"),
        _utc("run", "started_at"),
        sa.CheckConstraint("(finished_at IS NULL) = (exit_code IS NULL)", name=op.f("ck_run_finished_with_exit_code")),
        sa.CheckConstraint("exit_code IN (0, 1, 2)", name=op.f("ck_run_exit_code_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
    )
    op.create_table(
        "arrival",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("file_sha256", sa.Text(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        _hex("arrival", "file_sha256", 64),
        _utc("arrival", "received_at"),
        sa.CheckConstraint("state IN ('received', 'anchored', 'superseded')", name=op.f("ck_arrival_state_known")),
        sa.CheckConstraint("rows >= 0", name=op.f("ck_arrival_rows_counts")),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_arrival_batch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_arrival")),
        sa.UniqueConstraint("batch_id", "file_sha256", name=op.f("uq_arrival_batch_id_file_sha256")),
    )
    op.create_table(
        "consent",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("key_tag", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.CheckConstraint("action IN ('accept', 'withdraw')", name=op.f("ck_consent_action_known")),
        sa.CheckConstraint("approved_by <> ''", name=op.f("ck_consent_approved_by_given")),
        _utc("consent", "created_at"),
        _hex("consent", "key_tag", 32),
        sa.CheckConstraint("reason <> ''", name=op.f("ck_consent_reason_given")),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_consent_batch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consent")),
        sa.UniqueConstraint("batch_id", "key_tag", name=op.f("uq_consent_batch_id_key_tag")),
    )
    op.create_table(
        "entry_set",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("entries_file", sa.Text(), nullable=False),
        sa.Column("entries_sha256", sa.Text(), nullable=False),
        sa.Column("archive_file", sa.Text(), nullable=True),
        sa.Column("archive_key_wrapped", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("published", sa.Boolean(), nullable=False),
        sa.CheckConstraint(
            "(size = 0) = (root = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855')",
            name=op.f("ck_entry_set_empty_root"),
        ),
        _utc("entry_set", "created_at"),
        sa.CheckConstraint("entries_file <> ''", name=op.f("ck_entry_set_entries_file_given")),
        _hex("entry_set", "entries_sha256", 64),
        _hex("entry_set", "root", 64),
        sa.CheckConstraint("role IN ('lawful', 'held')", name=op.f("ck_entry_set_role_known")),
        sa.CheckConstraint(
            "(archive_file IS NULL) = (archive_key_wrapped IS NULL)", name=op.f("ck_entry_set_archive_with_key")
        ),
        sa.CheckConstraint("size >= 0", name=op.f("ck_entry_set_size_counts")),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_entry_set_batch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entry_set")),
        sa.UniqueConstraint("batch_id", "role", "root", name=op.f("uq_entry_set_batch_id_role_root")),
        sa.UniqueConstraint("id", "batch_id", name=op.f("uq_entry_set_id_batch_id")),
    )
    op.create_table(
        "claim",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("entry_set_id", sa.Integer(), nullable=False),
        sa.Column("known_revisions", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("transaction_id", sa.Integer(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("position", sa.BigInteger(), nullable=True),
        sa.Column("block_number", sa.BigInteger(), nullable=True),
        sa.Column("chain_time", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("confirmed_at", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(state = 'confirmed') = (block_number IS NOT NULL)", name=op.f("ck_claim_block_number_filled")
        ),
        sa.CheckConstraint("(state = 'confirmed') = (chain_time IS NOT NULL)", name=op.f("ck_claim_chain_time_filled")),
        sa.CheckConstraint(
            "(state = 'confirmed') = (confirmed_at IS NOT NULL)", name=op.f("ck_claim_confirmed_at_filled")
        ),
        sa.CheckConstraint("(state = 'confirmed') = (position IS NOT NULL)", name=op.f("ck_claim_position_filled")),
        sa.CheckConstraint("(state = 'confirmed') = (revision IS NOT NULL)", name=op.f("ck_claim_revision_filled")),
        sa.CheckConstraint("(state = 'confirmed') = (sequence IS NOT NULL)", name=op.f("ck_claim_sequence_filled")),
        _utc("claim", "chain_time"),
        _utc("claim", "confirmed_at"),
        _utc("claim", "created_at"),
        sa.CheckConstraint(
            "state <> 'sent' OR transaction_id IS NOT NULL", name=op.f("ck_claim_sent_by_a_transaction")
        ),
        sa.CheckConstraint("state IN ('intent', 'sent', 'confirmed', 'overtaken')", name=op.f("ck_claim_state_known")),
        sa.CheckConstraint("known_revisions >= 0", name=op.f("ck_claim_known_revisions_counts")),
        sa.CheckConstraint(
            "revision >= 0 AND sequence >= 0 AND position >= 0 AND block_number >= 0",
            name=op.f("ck_claim_chain_counts"),
        ),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_claim_batch_id")),
        sa.ForeignKeyConstraint(
            ["entry_set_id", "batch_id"],
            ["entry_set.id", "entry_set.batch_id"],
            name=op.f("fk_claim_entry_set_id_batch_id"),
        ),
        sa.ForeignKeyConstraint(["transaction_id"], ["outbox.id"], name=op.f("fk_claim_transaction_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_claim")),
        sa.UniqueConstraint("batch_id", "revision", name=op.f("uq_claim_batch_id_revision")),
        sa.UniqueConstraint("sequence", name=op.f("uq_claim_sequence")),
    )
    op.create_index(
        "uq_claim_open",
        "claim",
        ["batch_id"],
        unique=True,
        sqlite_where=sa.text("state IN ('intent', 'sent')"),
        postgresql_where=sa.text("state IN ('intent', 'sent')"),
    )
