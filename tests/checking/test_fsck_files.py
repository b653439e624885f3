"""fsck: entry files, archives, key files and catalogs that were changed behind the ledger's back are named."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from ledger.fsck import archives
from ledger.record import canonical, record_key
from ledger.store.archive import ArchiveWriter
from ledger.store.entryfile import NO_FRAME, Entries
from ledger.workspace import Workspace

from .conftest import duizhang, row, sql
from .fsck_runs import archive_file, codes, damaged, entry_file, flip, fsck, rewrite, undetermined

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


def test_tiles_that_are_not_those_of_the_entries(province: Path) -> None:
    def swap(entries: Entries) -> Entries:
        assert entries.tiles is not None
        wrong = entries.tiles.copy()
        wrong[-1, 31] ^= 1
        return Entries(entries.entries, entries.withdrawn, entries.frames, tiles=wrong)

    rewrite(province, "B1", swap)
    (remark,) = damaged(province, "store.entries_tiles")
    assert "B1" in remark["where"]


def test_a_file_from_before_there_were_tiles_is_whole(province: Path) -> None:
    def older(entries: Entries) -> Entries:
        assert entries.tiles is not None
        return Entries(entries.entries, entries.withdrawn, entries.frames)

    rewrite(province, "B1", older)
    assert fsck(province)[0] == 0


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


def test_many_wrong_entries_are_named_up_to_a_limit_and_counted(
    province: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "SHOWN", 4)

    def turn(entries: Entries) -> Entries:
        return Entries(entries.entries, np.logical_not(entries.withdrawn), entries.frames)

    rewrite(province, "B1", turn)
    remarks = damaged(province, "store.withdrawal_flag")
    assert len(remarks) == 5
    assert "30" in remarks[-1]["message"]


def test_one_flipped_byte_in_an_archive_frame(province: Path) -> None:
    path = archive_file(province, "B1")
    flip(path, 60)
    (remark,) = damaged(province, "store.archive_damaged")
    assert path.name in remark["where"]
    assert "frame 0" in remark["where"]
    # Not one more damage for each of the records in it.
    assert codes(fsck(province)[1]) == {"store.archive_damaged"}


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
    _, report = fsck(province)
    assert "archive.no_entries" in codes(report, "undetermined")


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


def test_records_are_checked_under_the_catalog_of_their_day_or_not_at_all(province: Path) -> None:
    built_in = Path(__file__).parents[2] / "ledger" / "catalogs" / "registration.toml"
    changed = built_in.read_text(encoding="utf-8").replace('type = "date"', 'type = "text"')
    (province / "catalogs" / "registration.toml").write_text(changed, encoding="utf-8")
    assert fsck(province)[0] == 0
    # A store that does not know how the catalog was declared then.
    with sqlite3.connect(province / "store" / "ledger.db") as store:
        store.execute("DELETE FROM declaration")
    store.close()
    remarks = undetermined(province, "catalog.changed")
    assert len(remarks) == 4
    assert "B1" in " ".join(remark["where"] for remark in remarks)
