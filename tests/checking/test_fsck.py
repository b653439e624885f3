"""fsck: whatever was changed behind the ledger's back is named; what a killed job left open is pending, not damage."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ledger.batch import job as job_module
from ledger.batch.build import root_hex
from ledger.chain.local import LocalChain
from ledger.chain.registry import AnchorRecord, RegistryView
from ledger.chain.rpc import Rpc
from ledger.errors import ChainError
from ledger.fsck.anchors import check_known
from ledger.fsck.report import Report
from ledger.fsck.tables import Tables
from ledger.record import canonical, record_key
from ledger.store.archive import ArchiveWriter
from ledger.store.entryfile import NO_FRAME, Entries, read_entries, write_entries
from ledger.store.files import WorkspaceLock
from ledger.workspace import Workspace

from .conftest import Shared, copy, done, duizhang, row, sql, tree, write_csv

CHECKS = [
    "keys", "store", "database", "rows", "batches", "entries", "archives", "consents", "files", "outbox", "chain",
    "registry", "claims", "anchors", "lawful", "blocks",
]  # fmt: skip


def fsck(workspace: Path) -> tuple[int, dict[str, Any]]:
    answer = duizhang("-C", workspace, "fsck", "--json")
    assert answer.code == {"clean": 0, "damaged": 1, "undetermined": 2}[answer.json["verdict"]]
    return answer.code, answer.json


def codes(report: dict[str, Any], kind: str = "damage") -> set[str]:
    return {remark["code"] for remark in report[kind]}


def damaged(workspace: Path, *expected: str) -> list[dict[str, str]]:
    """fsck ends with 1 and names each code; the remarks with the first of them."""
    code, report = fsck(workspace)
    assert set(expected) <= codes(report), report["damage"]
    assert code == 1
    failed = [check["name"] for check in report["checks"] if check["result"] == "fail"]
    assert failed
    return [remark for remark in report["damage"] if remark["code"] == expected[0]]


def undetermined(workspace: Path, expected: str) -> list[dict[str, str]]:
    code, report = fsck(workspace)
    assert report["damage"] == []
    assert expected in codes(report, "undetermined"), report["undetermined"]
    assert code == 2
    return [remark for remark in report["undetermined"] if remark["code"] == expected]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def entry_file(workspace: Path, number: str, role: str = "lawful") -> Path:
    return (
        workspace
        / sql(
            workspace,
            "SELECT entries_file FROM entry_set JOIN batch ON batch.id = batch_id WHERE number = ? AND role = ?",
            number,
            role,
        )[-1][0]
    )


def archive_file(workspace: Path, number: str) -> Path:
    return (
        workspace
        / sql(
            workspace,
            "SELECT archive_file FROM entry_set JOIN batch ON batch.id = batch_id WHERE number = ? AND role = 'lawful'",
            number,
        )[-1][0]
    )


def rewrite(workspace: Path, number: str, change: Any) -> None:
    """Put other rows into the lawful entry file of a batch, and make the store's own record agree with them."""
    path = entry_file(workspace, number)
    (digest,) = sql(workspace, "SELECT entries_sha256 FROM entry_set WHERE entries_file = ?", f"entries/{path.name}")[0]
    entries: Entries = change(read_entries(path, digest))
    path.unlink()
    digest = write_entries(path, entries.entries, entries.withdrawn, entries.frames)
    sql(
        workspace,
        "UPDATE entry_set SET entries_sha256 = ?, size = ?, root = ? WHERE entries_file = ?",
        digest,
        len(entries.entries),
        root_hex(entries.entries),
        f"entries/{path.name}",
    )


# ---- sound workspaces ----


@pytest.mark.parametrize("side", ["province", "city"])
def test_an_untouched_workspace_is_clean_and_fsck_leaves_it_as_it_is(side: str, request: pytest.FixtureRequest) -> None:
    workspace = request.getfixturevalue(side)
    before = tree(workspace)
    code, report = fsck(workspace)
    assert (code, report["damage"], report["undetermined"], report["pending"]) == (0, [], [], [])
    assert [check["name"] for check in report["checks"]] == CHECKS
    assert [check["number"] for check in report["checks"]] == list(range(1, len(CHECKS) + 1))
    assert {check["result"] for check in report["checks"]} == {"pass"}
    assert tree(workspace) == before


@pytest.mark.parametrize("side", ["province", "city"])
def test_a_batch_that_its_sender_revised_is_a_note(side: str, request: pytest.FixtureRequest) -> None:
    _, report = fsck(request.getfixturevalue(side))
    assert [(note["code"], "B0" in note["where"]) for note in report["notes"]] == [("lawful.revised", True)]


def test_the_text_names_every_check_and_the_verdict(province: Path) -> None:
    entry_file(province, "B1").unlink()
    answer = duizhang("-C", province, "fsck", "--lang", "en")
    assert answer.code == 1
    assert answer.out.startswith("fsck: damaged\n")
    assert "[store.entries_missing]" in answer.out
    assert all(f"\n{number}   " in answer.out for number in range(1, 10))


def test_fsck_starts_a_killed_chain_and_is_clean(shared: Shared, city: Path) -> None:
    shared.chain.down()
    assert fsck(city)[0] == 0


# ---- files ----


def test_one_flipped_byte_in_an_entry_file(province: Path) -> None:
    path = entry_file(province, "B1")
    flip(path, 200)
    (remark,) = damaged(province, "store.entries_damaged")
    assert path.name in remark["where"]
    assert "B1" in remark["where"]


def test_an_entry_file_forged_together_with_its_hash_in_the_store(province: Path) -> None:
    def forge(entries: Entries) -> Entries:
        forged = entries.entries.copy()
        forged[3, 63] ^= 1
        return Entries(forged, entries.withdrawn, entries.frames)

    rewrite(province, "B1", forge)
    (remark,) = damaged(province, "store.archive_commitment", "claim.root")
    assert remark["where"].endswith("entry 3")


def test_a_forged_size_or_root_in_the_store(province: Path) -> None:
    name = f"entries/{entry_file(province, 'B1').name}"
    sql(province, "UPDATE entry_set SET root = ? WHERE entries_file = ?", "ab" * 32, name)
    damaged(province, "store.entries_root", "claim.root")
    sql(province, "UPDATE entry_set SET size = 29 WHERE entries_file = ?", name)
    damaged(province, "store.entries_root", "claim.size")


def test_an_entry_taken_out_of_a_lawful_set_that_the_sender_anchored(city: Path) -> None:
    def shorten(entries: Entries) -> Entries:
        return Entries(entries.entries[1:], entries.withdrawn[1:], entries.frames[1:])

    rewrite(city, "B1", shorten)
    (remark,) = damaged(city, "lawful.never_anchored", "store.archive_stray")
    assert "B1" in remark["where"]


def test_an_entry_whose_record_is_said_not_to_be_archived(province: Path) -> None:
    def hide(entries: Entries) -> Entries:
        frames = entries.frames.copy()
        frames[7] = NO_FRAME
        return Entries(entries.entries, entries.withdrawn, frames)

    rewrite(province, "B1", hide)
    (remark,) = damaged(province, "store.archive_record_missing", "store.archive_stray")
    assert remark["where"].endswith("entry 7")


def test_a_withdrawal_flag_turned_round_in_either_direction(province: Path) -> None:
    def turn(entries: Entries) -> Entries:
        return Entries(entries.entries, np.logical_not(entries.withdrawn), entries.frames)

    rewrite(province, "B2", turn)
    assert len(damaged(province, "store.withdrawal_flag")) == 3


def test_one_flipped_byte_in_an_archive_frame(province: Path) -> None:
    path = archive_file(province, "B1")
    flip(path, 60)
    (remark,) = damaged(province, "store.archive_damaged")
    assert path.name in remark["where"]
    assert "frame 0" in remark["where"]


def test_two_archives_swapped_on_disk(province: Path) -> None:
    first, second = archive_file(province, "B1"), archive_file(province, "B2")
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    assert len(damaged(province, "store.archive_damaged")) == 2


def test_two_archives_swapped_in_the_store_with_their_keys(province: Path) -> None:
    rows = sql(
        province,
        "SELECT s.id, archive_file, archive_key_wrapped FROM entry_set s JOIN batch b ON b.id = batch_id "
        "WHERE number IN ('B1', 'B2')",
    )
    (first, *one), (second, *two) = rows
    for number, values in ((first, two), (second, one)):
        sql(province, "UPDATE entry_set SET archive_file = ?, archive_key_wrapped = ? WHERE id = ?", *values, number)
    assert len(damaged(province, "store.archive_key_damaged")) == 2


def test_an_archive_struck_from_the_store(province: Path) -> None:
    sql(province, "UPDATE entry_set SET archive_file = NULL, archive_key_wrapped = NULL")
    assert len(damaged(province, "store.archive_unnamed")) == 4


def test_a_lawful_set_without_archive_although_the_catalog_asks_for_one(province: Path) -> None:
    def bare(entries: Entries) -> Entries:
        return Entries(entries.entries, entries.withdrawn, np.full_like(entries.frames, NO_FRAME))

    rewrite(province, "B1", bare)
    name = f"entries/{entry_file(province, 'B1').name}"
    sql(province, "UPDATE entry_set SET archive_file = NULL, archive_key_wrapped = NULL WHERE entries_file = ?", name)
    (remark,) = damaged(province, "store.archive_unnamed")
    assert "B1" in remark["where"]


def forge(workspace: Path, canonical: bytes, record_key: bytes) -> None:
    """Make B1 a batch of one entry whose archived record is `canonical`: commitment and files agree with each other."""
    opened = Workspace(workspace)
    keys = opened.exchange_key("guangzhou").for_catalog(opened.catalog("registration"))
    tag = keys.key_tag(record_key)
    entry = np.frombuffer(keys.entry(bytes(16), tag, keys.commit(canonical)[2]), np.uint8).reshape(1, 64)
    (batch_id,) = sql(workspace, "SELECT id FROM batch WHERE number = 'B1'")[0]
    with ArchiveWriter(workspace / "archive" / "forged.archive", batch_id.encode(), opened.archive_key()) as writer:
        frames = writer.append(np.ascontiguousarray(entry[:, 16:32]), [canonical])
        reference = writer.finish()
    rewrite(workspace, "B1", lambda _: Entries(entry, np.zeros(1, np.bool_), frames))
    sql(
        workspace,
        "UPDATE entry_set SET archive_file = ?, archive_key_wrapped = ? WHERE batch_id = ?",
        f"archive/{reference.file_name}",
        reference.key_wrapped,
        batch_id,
    )


def test_an_archived_record_that_opens_its_commitment_and_is_no_record(province: Path) -> None:
    forge(province, b'{"catalog":"registration/1","record":{}}', b"any")
    (remark,) = damaged(province, "store.archive_form", "claim.root")
    assert "canonical.fields" in duizhang("-C", province, "fsck", "--lang", "en").out
    assert remark["where"].endswith("entry 0")


def test_an_archived_record_under_the_key_tag_of_another(province: Path) -> None:
    catalog = Workspace(province).catalog("registration")
    data = canonical(catalog, dict(row(1)))
    forge(province, data, b"another record's key")
    damaged(province, "store.entry_tags", "claim.root")
    # The subject's tag is looked at as well: forge() leaves it empty.
    forge(province, data, record_key(catalog, row(1)))
    damaged(province, "store.entry_tags")


def test_deleted_files(province: Path) -> None:
    entry_file(province, "B1").unlink()
    archive_file(province, "B2").unlink()
    damaged(province, "store.entries_missing", "store.archive_missing")


def test_every_damage_is_reported_not_only_the_first(province: Path) -> None:
    entry_file(province, "B1").unlink()
    flip(entry_file(province, "B2"), 100)
    sql(province, "UPDATE claim SET block_number = 99 WHERE id = 1")
    sql(province, "UPDATE batch SET period = '2026-01-01' WHERE number = 'B1'")
    damaged(province, "store.entries_missing", "store.entries_damaged", "claim.block_number", "batch.column")


def test_a_file_that_nothing_names_is_a_leftover_and_stays(province: Path) -> None:
    stray = province / "entries" / "stray.parquet"
    stray.write_bytes(b"left by a kill")
    (province / "archive" / ".tmp-0011").write_bytes(b"")
    code, report = fsck(province)
    assert code == 0
    leftovers = {Path(note["where"]).name for note in report["notes"] if note["code"] == "leftover"}
    assert leftovers == {"stray.parquet", ".tmp-0011"}
    assert stray.exists()


def test_two_sets_that_name_one_file(province: Path) -> None:
    sql(province, "UPDATE entry_set SET entries_file = (SELECT entries_file FROM entry_set WHERE id = 1) WHERE id = 2")
    damaged(province, "file.shared", "store.entries_damaged")


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


# ---- keys and catalogs ----


def test_the_wrong_archive_key_is_named_and_nothing_is_called_damaged(province: Path) -> None:
    (province / "keys" / "archive.key").write_text("0" * 64 + "\n")
    assert len(undetermined(province, "archive.wrong_key")) == 4


def test_the_wrong_exchange_key_is_named_and_nothing_is_called_damaged(province: Path) -> None:
    (province / "keys" / "guangzhou" / "1.key").write_text("0" * 64 + "\n")
    remarks = undetermined(province, "key.wrong")
    assert {"B0", "B1", "B2"} == {remark["where"].split()[-2] for remark in remarks}


@pytest.mark.parametrize("name", ["archive.key", "own/1.key", "guangzhou/1.key", "account.json", "account.password"])
def test_a_missing_key_file(province: Path, name: str) -> None:
    (province / "keys" / name).unlink()
    assert any(remark["where"].endswith(name) for remark in damaged(province, "key.missing"))


@pytest.mark.parametrize(
    "name", ["archive.key", "own/1.key", "guangzhou/1.key", "account.password", "guangzhou/join.json"]
)
def test_a_key_file_that_others_can_read(province: Path, name: str) -> None:
    path = province / "keys" / name
    path.chmod(0o644)
    code, report = fsck(province)
    assert code == 1
    assert [it for it in report["damage"] if it["code"] in ("key.permissions", "key.exposed")]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_key_file_that_was_cut_off(province: Path) -> None:
    path = province / "keys" / "own" / "1.key"
    path.write_bytes(path.read_bytes()[:40])
    damaged(province, "key.form")


def test_a_catalog_that_changed_meanwhile_keeps_records_from_being_checked(province: Path) -> None:
    built_in = Path(__file__).parents[2] / "ledger" / "catalogs" / "registration.toml"
    changed = built_in.read_text(encoding="utf-8").replace('type = "date"', 'type = "text"')
    (province / "catalogs" / "registration.toml").write_text(changed, encoding="utf-8")
    remarks = undetermined(province, "catalog.changed")
    assert len(remarks) == 4
    assert "B1" in " ".join(remark["where"] for remark in remarks)


# ---- the chain ----


def storage_slot(node: Rpc, contract: str, word: str) -> str:
    """The storage slot of the contract that holds this word."""
    state = json.loads(gzip.decompress(bytes.fromhex(node.call("anvil_dumpState", False)[2:])))
    storage = state["accounts"][contract]["storage"]
    (slot,) = [slot for slot, value in storage.items() if int(value, 16) == int(word, 16)]
    return f"0x{int(slot, 16):064x}"


def test_a_root_rewritten_in_the_contracts_storage(province: Path, node: Rpc) -> None:
    (root,) = sql(province, "SELECT root FROM entry_set JOIN batch ON batch.id = batch_id WHERE number = 'B2'")[0]
    (contract,) = sql(province, "SELECT contract FROM chain")[0]
    slot = storage_slot(node, contract, root)
    node.call("anvil_setStorageAt", contract, slot, "0x" + "ab" * 32)
    damaged(province, "chain.contradiction", "claim.root")


def test_other_code_at_the_contracts_address(province: Path, node: Rpc) -> None:
    (contract,) = sql(province, "SELECT contract FROM chain")[0]
    node.call("anvil_setCode", contract, "0x6001600155")
    code, report = fsck(province)
    assert (code, codes(report)) == (1, {"chain.other_code"})
    assert "chain.not_read" in codes(report, "undetermined")


def test_a_remembered_block_that_is_not_on_chain(province: Path) -> None:
    sql(province, "UPDATE chain SET block_hash = ?", "0" * 64)
    damaged(province, "chain.lost")


def test_another_chain_and_no_chain_at_all_are_not_damage(province: Path) -> None:
    sql(province, "UPDATE chain SET chain_id = 5")
    undetermined(province, "chain.other_chain")
    config = province / "duizhang.toml"
    config.write_text(
        config.read_text(encoding="utf-8").replace('"embedded"', '"http://127.0.0.1:1"'), encoding="utf-8"
    )
    undetermined(province, "chain.unreachable")


def test_damage_in_the_store_is_found_without_the_chain(province: Path) -> None:
    config = province / "duizhang.toml"
    config.write_text(
        config.read_text(encoding="utf-8").replace('"embedded"', '"http://127.0.0.1:1"'), encoding="utf-8"
    )
    entry_file(province, "B1").unlink()
    damaged(province, "store.entries_missing")


def test_an_anchor_of_this_account_that_no_job_of_the_store_made(
    shared: Shared, province: Path, tmp_path: Path, node: Rpc
) -> None:
    """A second workspace with the same account anchors; the store of the first learns of it from fsck."""
    other = copy(shared, shared.province, tmp_path / "other")
    file = write_csv(tmp_path / "b9.csv", [row(900)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalChain, "checkpoint", _not_saved)
        answer = duizhang("-C", other, "send", "registration", file, "--batch", "B9", "--to", "guangzhou")
    assert "test.killed" in answer.err
    damaged(province, "store.rolled_back")


def test_a_contract_that_tells_one_revision_twice() -> None:
    """The real one cannot: equal values are a no-op there."""
    first = AnchorRecord("guangdong", "ab" * 32, 1, 1, "cd" * 32, 1, 0, 2, 2)
    second = replace(first, revision=2, sequence=2, block=3, position=3)
    view = RegistryView(3, 0, 3, {"guangdong": ()}, {"guangdong": (first, second)})
    check = Report("guangdong").open("anchors", "", "")
    check_known(check, "guangdong", Tables({}, {}, {}, [], [], []), view)
    assert [it.code for it in check.damage] == ["store.rolled_back", "store.rolled_back", "chain.repeated"]


# ---- what a killed job leaves ----


_checkpoint = LocalChain.checkpoint


def _not_saved(self: LocalChain) -> tuple[int, str]:
    state = self.status()
    if state.block == state.saved_block:
        return _checkpoint(self)
    raise ChainError("test.killed", "", "killed after something was mined, before the dump was written")


def _killed(*_: object) -> None:
    raise ChainError("test.killed", "", "killed before anything was sent")


def test_an_intent_that_was_never_sent_is_pending(
    province: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_csv(tmp_path / "b3.csv", [row(300)])
    monkeypatch.setattr(job_module.Job, "anchor", _killed)
    assert duizhang("-C", province, "send", "registration", file, "--batch", "B3", "--to", "guangzhou").code == 2
    before = tree(province)
    code, report = fsck(province)
    assert (code, report["damage"]) == (0, [])
    assert [(it["code"], "B3" in it["where"]) for it in report["pending"]] == [("claim.open", True)]
    assert tree(province) == before


def test_an_anchor_that_was_mined_but_not_saved_is_pending(
    province: Path, tmp_path: Path, node: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_csv(tmp_path / "b3.csv", [row(300)])
    monkeypatch.setattr(LocalChain, "checkpoint", _not_saved)
    assert duizhang("-C", province, "send", "registration", file, "--batch", "B3", "--to", "guangzhou").code == 2
    code, report = fsck(province)
    assert (code, report["damage"]) == (0, [])
    assert codes(report, "pending") == {"claim.mined", "outbox.unfinished"}


def test_a_lawful_set_whose_sender_is_not_on_chain_is_a_note_as_long_as_we_anchored_nothing(
    shared: Shared, city: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain that was killed may have lost the sender's anchor; he sends it again."""
    monkeypatch.setattr(job_module.Job, "anchor", _killed)
    file = shared.root / "b2.csv"
    assert duizhang("-C", city, "receive", "registration", file, "--batch", "B2", "--from", "guangdong").code == 2
    rewrite(city, "B2", lambda it: Entries(it.entries[1:], it.withdrawn[1:], it.frames[1:]))
    _, report = fsck(city)
    assert "lawful.not_on_chain" in codes(report, "notes")
    assert "lawful.never_anchored" not in codes(report)


def test_an_open_claim_that_counts_on_revisions_the_chain_does_not_have(
    province: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_csv(tmp_path / "b3.csv", [row(300)])
    monkeypatch.setattr(job_module.Job, "anchor", _killed)
    duizhang("-C", province, "send", "registration", file, "--batch", "B3", "--to", "guangzhou")
    sql(province, "UPDATE claim SET known_revisions = 2 WHERE state = 'intent'")
    damaged(province, "claim.known_revisions")


def test_an_overtaken_claim_and_an_interrupted_run_are_no_damage(
    province: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_csv(tmp_path / "b3.csv", [row(300)])
    monkeypatch.setattr(job_module.Job, "anchor", _killed)
    duizhang("-C", province, "send", "registration", file, "--batch", "B3", "--to", "guangzhou")
    sql(province, "UPDATE claim SET state = 'overtaken' WHERE state = 'intent'")
    sql(province, "INSERT INTO run (command, started_at) VALUES ('nightly', '2026-01-01T00:00:00Z')")
    code, report = fsck(province)
    assert (code, report["damage"]) == (0, [])
    assert "claim.overtaken" in codes(report, "notes")
    assert codes(report, "pending") == {"run.interrupted"}


def test_a_second_job_at_once_is_refused(province: Path) -> None:
    with WorkspaceLock(province / "lock", "nightly"):
        answer = duizhang("-C", province, "fsck", "--json")
    assert answer.code == 2
    assert answer.json["error"]["code"] == "workspace.busy"


def test_the_workspace_can_go_on_after_fsck(province: Path, node: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    fsck(province)
    assert done("-C", province, "status", "--json").json["pending"] == []
