"""Erasing a record: no byte of it is left, everything else still proves, nothing brings it back, and no kill leaves it half done."""

from __future__ import annotations

import gzip
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ledger.store.archive import ArchiveReader
from ledger.store.db import Store
from ledger.store.files import NewFile
from ledger.workspace import Workspace
from tests.anchor.test_faults import Fault, Killed
from tests.conftest import CATALOG, Pair, Party, permit, withdrawn
from tests.databases import Database
from tests.spine.test_postgres_store import pair_on_postgres
from tests.twoparty.conftest import Channel

__all__ = ["pair_on_postgres"]

SECRET = {
    "no": "ZQ-77310",
    "uscc": "91440100ZQ77310ABC",
    "holder": "某某绝密有限公司",
    "decided_on": "2021-07-13",
    "fee": "77310.99",
}
NEEDLES = [SECRET[name] for name in ("no", "uscc", "holder", "fee")]


def erase(party: Party, *keys: str) -> tuple[int, Any]:
    ran = party.run("erase", "permits", *keys, "--reason", "本人申请", "--by", "张三", "--json")
    return ran.code, ran.json


def erased(party: Party, *keys: str) -> Any:
    code, told = erase(party, *keys)
    assert code == 0, told
    return told


def remove(pair: Pair, key: str = SECRET["no"]) -> None:
    pair.sql("DELETE FROM permits WHERE no = ?", key)


def rows(pair: Pair) -> list[str]:
    with closing(sqlite3.connect(pair.database)) as connection:
        return sorted(no for (no,) in connection.execute("SELECT no FROM permits"))


def store(party: Party, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(party.home / "store" / "ledger.db")) as connection, connection:
        return connection.execute(statement, values).fetchall()


def archived(party: Party) -> list[tuple[str, bytes]]:
    """(key tag, canonical bytes and raw row) of every record in every archive, opened with the workspace's keys."""
    workspace = Workspace(party.home)
    found = []
    for name, wrapped, batch in store(
        party, "SELECT archive_file, archive_key_wrapped, batch_id FROM entry_set WHERE archive_file IS NOT NULL"
    ):
        with ArchiveReader(party.home / name, wrapped, workspace.archive_key(), batch.encode()) as reader:
            for frame in reader:
                raw = frame.raw or [b""] * len(frame.canonical)
                tags = [tag.tobytes().hex() for tag in frame.key_tags]
                found += list(zip(tags, (c + r for c, r in zip(frame.canonical, raw, strict=True)), strict=True))
    return found


def mentioning(party: Party, needles: list[str] = NEEDLES) -> set[str]:
    """Files of the workspace in which a needle stands in clear, and archives whose records hold one."""
    wanted = [needle.encode(code) for needle in needles for code in ("utf-8", "gb18030", "utf-16-le")]
    found = {
        str(path.relative_to(party.home))
        for path in party.home.rglob("*")
        if path.is_file() and any(needle in path.read_bytes() for needle in wanted)
    }
    return found | {f"archived {tag}" for tag, data in archived(party) if any(needle in data for needle in wanted)}


def clean(party: Party) -> dict[str, Any]:
    told: dict[str, Any] = party.run("fsck", "--json").json
    assert told["verdict"] == "clean", told["damage"]
    return told


# ---- what is left of it ----


def test_not_a_byte_of_the_record_is_left_but_in_the_files_that_are_named(pair: Pair) -> None:
    inbox = pair.city.home / "inbox" / "guangdong" / "permits"
    inbox.mkdir(parents=True)
    pair.deliver("B1", [permit(1), SECRET, permit(2)])
    path = pair.file("B2.csv", [{**SECRET, "fee": "77310.98"}, permit(3)])
    pair.province.ok("send", "permits", path, "--batch", "B2", "--to", "guangzhou")
    shutil.copy(path, inbox / "B2.csv")
    # Everything that writes something down about it: night, brief, findings, their working, a restore, an unreadable value.
    pair.city.run("nightly")
    pair.sql("UPDATE permits SET fee = 'ZQ-77310 坏值' WHERE no = ?", SECRET["no"])
    assert pair.city.reconcile()[1] == [("missing", "A-3"), ("unreadable", SECRET["no"])]
    pair.city.ok("restore", "permits", "--apply", "--by", "张三")
    remove(pair)
    assert pair.city.reconcile()[1] == [("missing", SECRET["no"])]
    number = str(pair.city.ok("finding", "list", "permits")["findings"][0]["id"])
    words = ("--reason", f"{SECRET['no']}待删除", "--until", in_a_month(), "--by", "李四")
    pair.city.ok("finding", "explain", number, *words)
    # Written otherwise and packed: no search for the key's text finds it.
    packed = Path(
        pair.file("old.csv", [{**SECRET, "no": f" {SECRET['no'].lower()}", "holder": "-", "uscc": "-", "fee": "1"}])
    )
    (inbox / "old.csv.gz").write_bytes(gzip.compress(packed.read_bytes()))
    proof = pair.city.home / "proof.json"
    pair.city.ok("prove", "permits", SECRET["no"], "--out", str(proof))
    before = mentioning(pair.city)
    tag = store(pair.city, "SELECT key_tag FROM finding WHERE key LIKE ?", f"%{SECRET['no']}%")[0][0]
    briefs = {str(p.relative_to(pair.city.home)) for p in (pair.city.home / "briefs").iterdir()}
    left = {"inbox/guangdong/permits/B2.csv.received", "proof.json", *briefs}
    assert before >= left | {"store/ledger.db", f"archived {tag}"}

    code, told = erase(pair.city, SECRET["no"])
    assert (code, set(told["files"]), told["unread"]) == (1, left | {"inbox/guangdong/permits/old.csv.gz"}, [])
    assert mentioning(pair.city) == left
    assert [(it["batch"], it["file"]) for it in told["delivered"]] == [("B1", "B1.csv")]
    (one,) = told["erased"]
    assert (one["again"], one["in_source"], one["streams"][0]["versions"]) == (False, 0, 2)
    assert tag in one["streams"][0]["key_tags"]
    # What was said about it stays countable, under its tag.
    assert store(pair.city, "SELECT key, key_tag FROM finding WHERE key_tag = ?", tag)[0] == (None, tag)
    assert store(pair.city, "SELECT count(*) FROM found WHERE key_tag = ?", tag)[0][0] >= 2
    for name in told["files"]:
        (pair.city.home / name).unlink()
    again = erased(pair.city, SECRET["no"])
    assert (again["erased"][0]["again"], again["files"], again["archives"]) == (True, [], 0)
    assert mentioning(pair.city) == set()
    clean(pair.city)


def test_each_row_that_stood_twice_is_archived_and_goes_as_well(pair: Pair) -> None:
    pair.deliver("B1", [permit(1), SECRET])
    pair.sql(
        "INSERT INTO permits SELECT no, uscc, '另一' || holder, decided_on, fee FROM permits WHERE no = ?", SECRET["no"]
    )
    pair.sql("UPDATE permits SET fee = '1' WHERE no = 'A-1'")
    path = pair.file("B1.csv", [permit(1), SECRET])
    assert pair.city.run("receive", "permits", path, "--batch", "B1", "--from", "guangdong").code == 1
    assert any("另一".encode() in data for _, data in archived(pair.city))
    remove(pair)
    assert erased(pair.city, SECRET["no"])["archives"] == 2
    assert mentioning(pair.city) == set()
    clean(pair.city)


def test_a_catalog_without_archive_and_with_a_personal_key(pair: Pair) -> None:
    text = CATALOG.replace('title = "文号"', 'title = "文号"\npersonal = true').replace(
        "version = 1", "version = 1\narchive = false"
    )
    for party in (pair.province, pair.city):
        (party.home / "catalogs" / "permits.toml").write_text(text, encoding="utf-8")
    pair.deliver("B1", [permit(1), SECRET])
    remove(pair)
    assert pair.city.run("reconcile", "permits", "--json").json["counts"]["missing"] == 1
    ran = pair.city.run("erase", "permits", SECRET["no"], "--reason", "本人申请", "--by", "张三")
    assert (ran.code, SECRET["no"] in ran.out + ran.err) == (0, False)
    told = pair.city.ok("reconcile", "permits")
    assert (told["counts"]["erased"], told["counts"]["missing"], told["verdict"]) == (1, 0, "matched")
    assert mentioning(pair.city) == set()
    clean(pair.city)


def test_pages_that_were_freed_before_hold_it_no_longer(pair: Pair) -> None:
    pair.deliver("B1", [permit(1), SECRET])
    path = pair.city.home / "store" / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        # As most builds of SQLite do, and as a report leaves it that was pruned long ago.
        connection.execute("PRAGMA secure_delete = OFF")
        for statement in (
            "INSERT INTO run (command, started_at, outcome) VALUES ('x', '2022-01-01T00:00:00Z', ?)",
            "DELETE FROM run WHERE outcome = ?",
        ):
            with connection:
                connection.execute(statement, (SECRET["holder"],))
    assert SECRET["holder"].encode() in path.read_bytes()
    remove(pair)
    erased(pair.city, SECRET["no"])
    assert mentioning(pair.city) == set()


def test_on_postgres_nothing_is_left_in_the_tables(pair_on_postgres: Pair, postgres: Database) -> None:
    pair = pair_on_postgres
    pair.deliver("B1", [permit(1), SECRET])
    remove(pair)
    assert pair.city.reconcile()[1] == [("missing", SECRET["no"])]

    def tables() -> bytes:
        postgres.run("CHECKPOINT")
        data = postgres.server.folder / "data"
        files = postgres.run(
            "SELECT pg_relation_filepath(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relkind IN ('r', 'i', 't') AND (n.nspname = 'city' OR (n.nspname = 'pg_toast' AND c.oid IN "
            "(SELECT reltoastrelid FROM pg_class k JOIN pg_namespace m ON m.oid = k.relnamespace WHERE m.nspname = 'city')))"
        )
        return b"".join((data / name).read_bytes() for (name,) in files)

    assert SECRET["no"].encode() in tables()
    erased(pair.city, SECRET["no"])
    assert SECRET["no"].encode() not in tables()
    assert pair.city.reconcile()[2]["erased"] == 1


def test_a_store_that_somebody_still_reads_is_cleared_by_the_next_job(pair: Pair) -> None:
    pair.deliver("B1", [permit(1), SECRET])
    remove(pair)
    pair.city.reconcile()
    with closing(sqlite3.connect(pair.city.home / "store" / "ledger.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM batch").fetchall()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ledger.store.database.BUSY_TIMEOUT_SECONDS", 0.2)
            code, told = erase(pair.city, SECRET["no"])
        assert (code, told["error"]["code"]) == (2, "store.in_use")
        # It is erased for everybody; what is left to do is said.
        pending = pair.city.run("status", "--json").json["pending"]
        assert [it["code"] for it in pending] == ["erasure.open"]
    assert pair.city.reconcile()[2]["erased"] == 1
    assert mentioning(pair.city) == set()
    assert pair.city.run("status", "--json").json["pending"] == []
    clean(pair.city)


# ---- reconciliation ----


def test_reconciliation_says_erased_and_never_missing(pair: Pair) -> None:
    pair.deliver("B1", [permit(1), permit(2), permit(3)])
    code, told = erase(pair.city, "A-2", "A-2")
    assert (code, [(it["key"]["no"], it["in_source"]) for it in told["erased"]]) == (1, [("A-2", 1)])
    ran = pair.city.run("reconcile", "permits", "--json")
    (finding,) = ran.json["findings"]
    assert (finding["kind"], finding["reason"]["value"], finding["expected"]) == ("not_withdrawn", "erased_here", None)
    assert (ran.json["counts"]["ledger"], ran.json["counts"]["erased"], ran.json["erased"]) == (2, 0, [])
    assert "本方已删除其原文" in pair.city.run("reconcile", "permits").out
    remove(pair, "A-2")
    tag = told["erased"][0]["streams"][0]["key_tags"]
    report = pair.city.ok("reconcile", "permits")
    assert (report["verdict"], report["counts"]["erased"], report["erased"]) == ("matched", 1, tag)
    assert report["balance"] == {"source_rows": [2, 2], "ledger_keys": [2, 2]}
    assert "本方已删除原文 1" in pair.city.run("reconcile", "permits").out
    (settled,) = pair.city.ok("finding", "list", "permits", "--state", "settled")["findings"]
    assert settled["settled_by"] == "erasure"
    # Back again, altered, twice, unreadable: never lawful.
    pair.sql("INSERT INTO permits VALUES ('A-2', '9144010012345', '乙', '2022-01-01', '1')")
    assert pair.city.reconcile()[1] == [("not_withdrawn", "A-2")]
    pair.sql("INSERT INTO permits VALUES ('A-2', '9144010012345', '乙', '2022-01-01', '1')")
    assert pair.city.reconcile()[1] == [("duplicate", "A-2")]
    remove(pair, "A-2")
    pair.sql("INSERT INTO permits VALUES ('A-2', '9144010012345', '乙', '坏', '1')")
    code, found, counts = pair.city.reconcile()
    assert (code, found, counts["unreadable_anchored"]) == (1, [("unreadable", "A-2")], 0)
    assert pair.city.run("restore", "permits", "--json").json["items"] == []


def test_an_erased_record_is_neither_proved_nor_restored(pair: Pair) -> None:
    pair.deliver("B1", [permit(1), permit(2)])
    remove(pair, "A-2")
    erased(pair.city, "A-2")
    for words, code in (
        (("prove", "permits", "A-2"), "prove.erased"),
        (("restore", "permits", "A-2"), "restore.erased"),
    ):
        ran = pair.city.run(*words, "--json")
        assert (ran.code, ran.json["error"]["code"]) == (2, code)
    plan = pair.city.ok("restore", "permits")
    assert (plan["items"], plan["left_out"], len(plan["erased"])) == ([], [], 1)
    assert pair.city.ok("prove", "permits", "A-1", "--out", str(pair.folder / "proof.json"))


def test_a_counterparty_that_still_has_it_does_not_bring_it_back(pair: Pair) -> None:
    pair.deliver("B1", [permit(1), SECRET])
    remove(pair)
    erased(pair.city, SECRET["no"])
    receive = ("--from", "guangdong", "--load", "--json")
    # The same file again, then a later version of the record, by hand and by the night.
    first = pair.city.run("receive", "permits", str(pair.folder / "B1.csv"), "--batch", "B1", *receive).json
    assert any("已删除原文" in note for note in first["notes"])
    path = pair.file("B2.csv", [{**SECRET, "fee": "77310.97"}, permit(5)])
    pair.province.ok("send", "permits", path, "--batch", "B2", "--to", "guangzhou")
    second = pair.city.run("receive", "permits", path, "--batch", "B2", *receive).json
    assert (second["file_matches"], rows(pair)) == (True, ["A-1", "A-5"])
    assert any("已删除原文" in note for note in second["notes"])
    inbox = pair.city.home / "inbox" / "guangdong" / "permits"
    inbox.mkdir(parents=True)
    path = pair.file("B3.csv", [{**SECRET, "fee": "77310.96"}])
    pair.province.ok("send", "permits", path, "--batch", "B3", "--to", "guangzhou")
    shutil.copy(path, inbox / "B3.csv")
    pair.city.run("nightly")
    report = pair.city.ok("reconcile", "permits")
    assert (report["verdict"], report["counts"]["erased"]) == ("matched", 1)
    assert pair.city.ok("restore", "permits")["items"] == []
    told = pair.city.run("reconcile", "permits", "--with", "guangdong", "--json").json
    findings = [(batch["batch"], finding["erased"]) for batch in told["batches"] for finding in batch["findings"]]
    assert (told["verdict"], findings) == ("matched", [("B1", True), ("B2", True), ("B3", True)])
    (inbox / "B3.csv.received").unlink()
    assert mentioning(pair.city) == set()
    clean(pair.city)
    # The sender takes it back: nothing is left to say.
    path = pair.file("B4.csv", [{"no": SECRET["no"], "operation": "withdraw", "reason": "erased"}])
    pair.province.ok("send", "permits", path, "--batch", "B4", "--to", "guangzhou")
    assert pair.city.run("receive", "permits", path, "--batch", "B4", *receive).json["verdict"] == "matched"
    assert mentioning(pair.city) == set()
    report = pair.city.ok("reconcile", "permits")
    assert (report["verdict"], report["counts"]["erased"], report["notes"]) == ("matched", 0, [])
    clean(pair.city)


def test_the_sender_erases_in_every_stream_and_is_told_whom_to_tell(own: Pair) -> None:
    own.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *SECRET.values())
    own.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *permit(1).values())
    # Keys stand in reports that are no findings, too.
    assert own.city.reconcile()[2]["newly_seen"] == 2
    own.city.ok("anchor")
    assert SECRET["no"].encode() in (own.city.home / "store" / "ledger.db").read_bytes()
    path = own.file("B1.csv", [SECRET, permit(1)])
    own.city.ok("send", "permits", path, "--batch", "B1", "--to", "guangdong")
    remove(own)
    told = erased(own.city, SECRET["no"])
    (one,) = told["erased"]
    assert [(it["sender"], it["receiver"]) for it in one["streams"]] == [("guangzhou", ""), ("guangzhou", "guangdong")]
    assert [(it["to"], it["reason"], it["key"]) for it in told["due"]] == [("guangdong", "erased", None)]
    assert mentioning(own.city) == set()
    assert own.city.ok("anchor")["anchored"][0]["batch"] is None
    # Back in the table it is never sealed, and nobody can accept it.
    own.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *SECRET.values())
    assert own.city.reconcile()[1] == [("not_withdrawn", SECRET["no"])]
    ran = own.city.run("accept", "permits", SECRET["no"], "--reason", "x", "--by", "李四", "--json")
    assert ran.json["error"]["code"] == "accept.erased"
    remove(own)
    (due,) = [it for it in own.city.run("status", "--json").json["attention"] if it["code"] == "due.withdraw"]
    assert "guangdong" in due["message"]
    path = own.file("B2.csv", [{"no": SECRET["no"], "operation": "withdraw", "reason": "erased"}])
    own.city.ok("send", "permits", path, "--batch", "B2", "--to", "guangdong")
    assert not [it for it in own.city.run("status", "--json").json["attention"] if it["code"] == "due.withdraw"]
    assert erased(own.city, SECRET["no"])["due"] == []
    assert mentioning(own.city) == set()
    clean(own.city)


def test_a_receive_after_an_erasure_says_erased_and_is_closed(pair: Pair) -> None:
    pair.deliver("B1", [permit(1), permit(2)])
    remove(pair, "A-2")
    erased(pair.city, "A-2")
    words = ("receive", "permits", str(pair.folder / "B1.csv"), "--batch", "B1", "--from", "guangdong")
    told = pair.city.run(*words, "--json")
    assert (told.code, told.json["verdict"], told.json["findings"]) == (0, "matched", [])
    assert "不在所持之列" in told.json["notes"][-1]
    night = pair.city.run("nightly", "--json")
    # Nothing is looked at again each night because of it.
    assert (night.code, night.json["received"]) == (0, [])
    pair.sql("INSERT INTO permits VALUES ('A-2', 'x', 'y', '2022-01-01', '1')")
    told = pair.city.run(*words, "--json")
    assert [(f["kind"], f["reason"]["value"]) for f in told.json["findings"]] == [("not_withdrawn", "erased_here")]


def test_what_the_sender_says_of_an_erased_record_is_learnt_without_a_file(channel: Channel) -> None:
    channel.send("B1", [permit(1), permit(2)])
    channel.land("B1", [permit(1), permit(2)])
    channel.city.ok("receive", "permits", "--batch", "B1", "--from", "guangdong")
    remove(channel.pair, "A-2")
    erased(channel.city, "A-2")
    # Record or withdrawal: without the key nobody here can tell, and it does not matter.
    channel.send("B2", [withdrawn(2, "erased"), permit(3)])
    channel.land("B2", [permit(3)])
    told = channel.city.ok("receive", "permits", "--batch", "B2", "--from", "guangdong")
    assert (told["verdict"], told["findings"]) == ("matched", [])
    assert channel.city.ok("reconcile", "permits")["verdict"] == "matched"
    clean(channel.city)


# ---- refusals ----


def test_what_is_refused_changes_nothing(pair: Pair) -> None:
    pair.deliver("B1", [permit(1), permit(2)])
    before = {path: path.read_bytes() for path in (pair.city.home / "archive").iterdir()}
    code, told = erase(pair.city, "A-1", "A-404")
    assert (code, told["error"]["code"], "A-404" in told["error"]["message"]) == (2, "erase.unknown_key", True)
    for reason, by in (("", "张三"), ("理由", " \u200b")):
        ran = pair.city.run("erase", "permits", "A-1", "--reason", reason, "--by", by, "--json")
        assert (ran.code, ran.json["error"]["code"]) == (2, "consent.empty")
    store(
        pair.city,
        "INSERT INTO reconciliation (id, catalog_id, scope, requested_by, state, attempts, progress_rows, worker, created_at, "
        "started_at, heartbeat_at) VALUES (?, 'permits', '{}', 'api', 'running', 1, 0, 'w', ?, ?, ?)",
        "ab" * 16,
        *["2999-01-01T00:00:00Z"] * 3,
    )
    code, told = erase(pair.city, "A-1")
    assert (code, told["error"]["code"]) == (2, "erase.reconciling")
    store(pair.city, "DELETE FROM reconciliation WHERE worker = 'w'")
    config = pair.city.home / "duizhang.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text + "\n[consent]\napprovers = 2\n", encoding="utf-8")
    code, told = erase(pair.city, "A-1")
    assert (code, told["error"]["code"]) == (2, "erase.approvers")
    config.write_text(text, encoding="utf-8")
    assert {path: path.read_bytes() for path in (pair.city.home / "archive").iterdir()} == before
    assert store(pair.city, "SELECT count(*) FROM erasure") == [(0,)]


def test_where_nobody_could_look_is_said(pair: Pair) -> None:
    pair.deliver("B1", [permit(1), permit(2)])
    inbox = pair.city.home / "inbox" / "guangdong" / "permits"
    inbox.mkdir(parents=True)
    (inbox / "scan.xlsx").write_bytes(b"PK\x03\x04 no workbook at all")
    config = pair.city.home / "duizhang.toml"
    config.write_text(
        config.read_text(encoding="utf-8").replace('table = "permits"', 'table = "gone"'), encoding="utf-8"
    )
    code, told = erase(pair.city, "A-1")
    assert (code, told["unread"], told["erased"][0]["in_source"]) == (2, ["inbox/guangdong/permits/scan.xlsx"], None)
    assert "数据源未能查看" in told["notes"][0]


def test_a_short_key_is_not_found_in_the_hex_of_an_address_but_in_that_of_a_record(pair: Pair) -> None:
    pair.deliver("B1", [permit(5), permit(6)])
    remove(pair, "A-5")
    config = pair.city.home / "duizhang.toml"
    # The hex of A-5 is 412d35.
    before = config.read_text(encoding="utf-8")
    config.write_text(f"{before}\n# 0x6412d35f10 aa412d35\n", encoding="utf-8")
    erased(pair.city, "A-5")
    for shown in ("412d35", b'{"no":"A-5"}'.hex(), b"A-5,x".hex(), b"x\nA-5".hex()):
        config.write_text(f"{before}\n# {shown}\n", encoding="utf-8")
        code, told = erase(pair.city, "A-5")
        assert (code, told["files"]) == (1, ["duizhang.toml"]), shown


def test_fsck_finds_an_erased_record_that_came_back_from_a_backup(pair: Pair) -> None:
    pair.deliver("B1", [permit(1), permit(2)])
    (old,) = (pair.city.home / "archive").iterdir()
    data = old.read_bytes()
    ((name, sha, archive, key),) = store(
        pair.city,
        "SELECT entries_file, entries_sha256, archive_file, archive_key_wrapped FROM entry_set WHERE role = 'lawful'",
    )
    entries = (pair.city.home / name).read_bytes()
    remove(pair, "A-2")
    erased(pair.city, "A-2")
    old.write_bytes(data)
    told = pair.city.run("fsck", "--json").json
    assert {it["code"] for it in told["damage"]} == {"erasure.file_there"}
    (pair.city.home / name).write_bytes(entries)
    store(
        pair.city,
        "UPDATE entry_set SET entries_file = ?, entries_sha256 = ?, archive_file = ?, archive_key_wrapped = ? WHERE role = 'lawful'",
        name, sha, archive, key,
    )  # fmt: skip
    told = pair.city.run("fsck", "--json").json
    assert {it["code"] for it in told["damage"]} == {"erasure.file_there", "store.erased_there"}
    # Erasing again mends it.
    erased(pair.city, "A-2")
    clean(pair.city)


# ---- killed ----


def effects(patch: pytest.MonkeyPatch, effect: str, fault: Fault) -> None:
    """Put the fault into one kind of effect of an erasure."""
    if effect == "store":
        patch.setattr(Store, "write", fault.wrap_write(Store.write))
    elif effect == "file":
        patch.setattr(NewFile, "publish", fault.wrap(NewFile.publish))
    elif effect == "delete":
        patch.setattr(Path, "unlink", fault.wrap(Path.unlink))
    else:
        patch.setattr(Store, "forget", fault.wrap(Store.forget))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("effect", ["store", "file", "delete", "forget"])
def test_any_effect_of_an_erasure_may_fail_before_or_after_it_happened(pair: Pair, effect: str, when: str) -> None:
    pair.deliver("B1", [permit(n) for n in range(1, 16)])
    pair.deliver("B2", [permit(n, "乙公司") for n in range(1, 16)])
    failed = 0
    for at in range(1, 15):
        key = f"A-{at}"
        remove(pair, key)
        fault = Fault(at, when)
        with pytest.MonkeyPatch.context() as patch:
            effects(patch, effect, fault)
            try:
                erase(pair.city, key)
            except Killed:
                failed += 1
        # Whatever runs next finds it whole: not begun, or done to the end.
        _, found, counts = pair.city.reconcile()
        begun = counts["erased"] == at
        assert (found, counts["erased"]) == (([], at) if begun else ([("missing", key)], at - 1))
        done = store(pair.city, "SELECT count(*) FROM erasure WHERE state = 'done'")[0][0]
        assert (done, clean(pair.city)["pending"]) == (counts["erased"], [])
        assert erased(pair.city, key)["erased"][0]["again"] is begun
        assert not [data for _, data in archived(pair.city) if f'"no":"{key}"'.encode() in data]
        named = {name for row in store(pair.city, "SELECT entries_file, archive_file FROM entry_set") for name in row}
        files = {
            str(p.relative_to(pair.city.home)) for n in ("entries", "archive") for p in (pair.city.home / n).iterdir()
        }
        # Before the transaction a kill may leave new files that nobody names and no key opens; old ones never stay.
        assert len(files - named) <= failed * 4
        assert named - {None} <= files
        if fault.calls < at:
            break
    else:
        pytest.fail("the fault never ran past the last effect")
    assert failed == at - 1 > 0
    assert len(archived(pair.city)) == 2 * (15 - at)


def in_a_month() -> str:
    """A day that an explanation may hold until."""
    return (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
