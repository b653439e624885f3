"""fsck: rows that were changed, and a store that was cut off, rolled back or taken away, are named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import Shared, copy, sql
from .fsck_runs import codes, damaged, entry_file, flip, fsck

# ---- rows ----


def test_one_flipped_byte_in_a_descriptor(province: Path) -> None:
    sql(province, "UPDATE batch SET descriptor = replace(descriptor, 'sha256', 'sha257') WHERE number = 'B1'")
    damaged(province, "batch.id", "batch.descriptor")
    _, report = fsck(province)
    assert "archive.no_descriptor" in codes(report, "undetermined")


def test_a_descriptor_replaced_by_another_valid_one(province: Path) -> None:
    sql(province, "UPDATE batch SET descriptor = replace(descriptor, '\"B1\"', '\"B9\"') WHERE number = 'B1'")
    damaged(province, "batch.id", "batch.column")


@pytest.mark.parametrize(
    ("column", "value"),
    [("number", "B7"), ("kind", "snapshot"), ("period", "2026-01-01"), ("catalog_version", 2), ("catalog_id", "other")],
)
def test_a_batch_column_that_contradicts_the_descriptor(province: Path, column: str, value: object) -> None:
    sql(province, f"UPDATE batch SET {column} = ? WHERE number = 'B1'", value)
    (remark,) = damaged(province, "batch.column")
    assert column in remark["message"]


def test_a_party_name_that_never_held_the_address(province: Path) -> None:
    sql(province, "UPDATE batch SET receiver_party = 'shenzhen' WHERE number = 'B1'")
    damaged(province, "batch.party", "key.missing")


def test_text_that_is_not_utf_8_damages_one_row_and_hides_no_other(province: Path) -> None:
    sql(province, "UPDATE batch SET period = CAST(x'ff' AS TEXT) WHERE number = 'B2'")
    sql(province, "UPDATE batch SET kind = 'snapshot' WHERE number = 'B1'")
    damaged(province, "store.row", "batch.column")


def test_rows_that_no_constraint_allows(province: Path) -> None:
    sql(province, "UPDATE claim SET state = 'bogus' WHERE id = 1")
    (remark,) = [it for it in damaged(province, "store.row") if "state_known" in it["message"]]
    assert remark["where"].endswith(":claim")


def test_rows_against_an_index_that_was_taken_away(province: Path) -> None:
    sql(province, "DROP INDEX uq_outbox_mined")
    sql(province, "UPDATE outbox SET nonce = 1, address = (SELECT address FROM outbox WHERE id = 2)")
    assert any("uq_outbox_mined" in it["message"] for it in damaged(province, "store.row"))


def test_a_stored_transaction_that_is_not_what_its_hash_says(province: Path) -> None:
    sql(province, "UPDATE outbox SET raw = '00' || substr(raw, 3) WHERE id = 2")
    damaged(province, "outbox.hash")


def test_a_confirmed_transaction_in_a_block_that_is_not_on_chain(province: Path) -> None:
    sql(province, "UPDATE outbox SET block_hash = ? WHERE id = 2", "0" * 64)
    damaged(province, "outbox.block")


@pytest.mark.parametrize(
    ("column", "value"),
    [("sequence", 77), ("position", 77), ("block_number", 77), ("chain_time", "2001-01-01T00:00:00Z")],
)
def test_a_confirmed_claim_that_says_something_else_than_the_chain(province: Path, column: str, value: object) -> None:
    sql(province, f"UPDATE claim SET {column} = ? WHERE id = 2", value)
    (remark,) = damaged(province, f"claim.{column}")
    assert "claim 2" in remark["where"]


def test_a_confirmed_claim_of_a_revision_that_is_not_on_chain(province: Path) -> None:
    sql(province, "UPDATE claim SET revision = 5 WHERE id = 2")
    damaged(province, "claim.not_on_chain", "store.rolled_back")


def test_a_claim_whose_entry_set_is_not_there(province: Path) -> None:
    sql(province, "UPDATE claim SET entry_set_id = 999 WHERE id = 4")
    damaged(province, "claim.dangling", "store.integrity")


def test_a_claim_that_is_the_other_sides_to_make(city: Path) -> None:
    sql(
        city,
        "UPDATE claim SET entry_set_id = (SELECT id FROM entry_set e WHERE e.batch_id = claim.batch_id AND role = 'lawful')",
    )
    damaged(city, "claim.not_ours", "claim.missing")


def test_an_accepted_change_whose_key_is_not_in_its_batch(province: Path) -> None:
    sql(
        province,
        "INSERT INTO consent (batch_id, key_tag, action, reason, approved_by, created_at) "
        "SELECT id, ?, 'accept', 'because', 'li', '2026-01-01T00:00:00Z' FROM batch WHERE number = 'B1'",
        "ab" * 16,
    )
    damaged(province, "consent.no_entry")
    entry_file(province, "B1").unlink()
    _, report = fsck(province)
    assert "consent.unread" in codes(report, "undetermined")
    assert "consent.no_entry" not in codes(report)


def test_the_row_of_the_chain_deleted(province: Path) -> None:
    sql(province, "DELETE FROM chain")
    damaged(province, "store.no_chain")


# ---- the store as a whole ----


def test_the_store_rolled_back_to_a_copy_taken_before_the_last_batch(shared: Shared, tmp_path: Path) -> None:
    old = copy(shared, shared.before, tmp_path / "old")
    (remark,) = damaged(old, "store.rolled_back")
    assert "4" in remark["message"]


def test_a_deleted_claim(province: Path) -> None:
    sql(province, "DELETE FROM claim WHERE batch_id = (SELECT id FROM batch WHERE number = 'B2')")
    damaged(province, "store.rolled_back", "claim.missing")


def test_a_store_cut_off_in_the_middle(province: Path) -> None:
    path = province / "store" / "ledger.db"
    sql(province, "PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(path, path.stat().st_size // 2)
    code, report = fsck(province)
    assert code == 1
    assert codes(report) & {"store.damaged", "store.integrity"}


def test_a_store_cut_off_to_nothing(province: Path) -> None:
    sql(province, "PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(province / "store" / "ledger.db", 0)
    damaged(province, "store.empty")


def test_a_store_that_is_gone(province: Path) -> None:
    (province / "store" / "ledger.db").unlink()
    damaged(province, "store.missing")


def test_one_flipped_byte_in_an_index_page_of_the_store(province: Path) -> None:
    sql(province, "PRAGMA wal_checkpoint(TRUNCATE)")
    (page,) = sql(province, "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_batch_1'")[0]
    (size,) = sql(province, "PRAGMA page_size")[0]
    flip(province / "store" / "ledger.db", page * size - 20)
    damaged(province, "store.integrity")
