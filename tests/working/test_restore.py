"""Restoring rows from the archive: the plan, what --apply writes and leaves alone, and that nothing is ever half written."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from ledger.restore import apply as apply_module
from tests.conftest import Pair, permit, withdrawn


def rows(pair: Pair) -> dict[str, tuple[Any, ...]]:
    with closing(sqlite3.connect(pair.database)) as connection:
        found = connection.execute("SELECT no, uscc, holder, decided_on, fee FROM permits").fetchall()
    assert len({row[0] for row in found}) == len(found)
    return {row[0]: row for row in found}


def plan(pair: Pair, *keys: str) -> dict[str, Any]:
    ran = pair.city.run("restore", "permits", *keys, "--json")
    assert ran.code == 1, ran
    return dict(ran.json)


def applied(pair: Pair, *keys: str, code: int = 0) -> dict[str, Any]:
    ran = pair.city.run("restore", "permits", *keys, "--apply", "--by", "张三", "--json")
    assert ran.code == code, ran
    return dict(ran.json)


@pytest.fixture
def damaged(pair: Pair) -> Pair:
    pair.deliver("B1", [permit(1), permit(2), permit(3), permit(4)])
    pair.deliver("B2", [permit(3, holder="乙公司")])
    pair.sql("UPDATE permits SET fee = '9', decided_on = ' 2022/03/04 ' WHERE no = 'A-1'")
    pair.sql("DELETE FROM permits WHERE no = 'A-2'")
    pair.sql("UPDATE permits SET holder = '甲公司' WHERE no = 'A-3'")
    pair.sql("UPDATE permits SET decided_on = '2022-02-30' WHERE no = 'A-4'")
    return pair


def test_the_plan_names_each_field_and_writes_nothing(damaged: Pair) -> None:
    before = rows(damaged)
    told = plan(damaged)
    assert told["applied"] is False
    assert {(it["kind"], it["key"]["no"], it["batch"]) for it in told["items"]} == {
        ("altered", "A-1", "B1"),
        ("missing", "A-2", "B1"),
        ("stale", "A-3", "B2"),
        ("unreadable", "A-4", "B1"),
    }
    changes = {it["key"]["no"]: it["changes"] for it in told["items"]}
    # 2022/03/04 means the same as what was delivered: it is no change.
    assert changes["A-1"] == [{"field": "fee", "observed": "9", "expected": "12.50"}]
    assert changes["A-3"] == [{"field": "holder", "observed": "甲公司", "expected": "乙公司"}]
    assert changes["A-4"] == [{"field": "decided_on", "observed": "2022-02-30", "expected": "2022-03-04"}]
    assert {change["field"]: change["expected"] for change in changes["A-2"]} == permit(2)
    assert rows(damaged) == before


def test_the_statements_do_what_apply_does_when_run_by_hand(damaged: Pair) -> None:
    told = plan(damaged)
    with closing(sqlite3.connect(damaged.database)) as connection, connection:
        for item in told["items"]:
            statement = item["statement"]
            assert connection.execute(statement["sql"], statement["parameters"]).rowcount == 1
    assert damaged.city.ok("reconcile", "permits")["verdict"] == "matched"


def test_the_sql_that_is_printed_can_be_run_as_it_is(damaged: Pair) -> None:
    damaged.sql("UPDATE permits SET holder = 'O''Brien :old_fee' WHERE no = 'A-1'")
    printed = damaged.city.run("restore", "permits", "--format", "sql").out
    with closing(sqlite3.connect(damaged.database)) as connection:
        connection.executescript(printed)
    assert damaged.city.ok("reconcile", "permits")["verdict"] == "matched"


def test_apply_puts_back_only_what_differs_and_reconciles(damaged: Pair) -> None:
    done = applied(damaged)
    assert {(it["key"]["no"], it["result"]) for it in done["items"]} == {
        (no, "restored") for no in ("A-1", "A-2", "A-3", "A-4")
    }
    assert done["reconciled"]["verdict"] == "matched"
    now = rows(damaged)
    assert now["A-1"][3:] == (" 2022/03/04 ", "12.50"), "the delivered formatting stays"
    assert now["A-2"] == tuple(permit(2)[name] for name in ("no", "uscc", "holder", "decided_on", "fee"))
    assert damaged.city.run("restore", "permits", "--json").code == 0, "nothing is left to restore"


def test_columns_outside_the_catalog_are_left_alone(damaged: Pair) -> None:
    damaged.sql("ALTER TABLE permits ADD COLUMN remark TEXT DEFAULT '默认'")
    damaged.sql("UPDATE permits SET remark = '手写' WHERE no = 'A-1'")
    applied(damaged)
    with closing(sqlite3.connect(damaged.database)) as connection:
        remarks = dict(connection.execute("SELECT no, remark FROM permits"))
    assert remarks == {"A-1": "手写", "A-2": "默认", "A-3": "默认", "A-4": "默认"}


def test_only_the_keys_that_were_named(damaged: Pair) -> None:
    done = applied(damaged, "A-1", "A-2", code=1)
    assert {it["key"]["no"] for it in done["items"]} == {"A-1", "A-2"}
    assert {f["key"]["no"] for f in done["reconciled"]["findings"]} == {"A-3", "A-4"}


def between(monkeypatch: pytest.MonkeyPatch, pair: Pair, *statements: str) -> None:
    """Somebody else writes after the plan was made and before it is carried out."""
    honest = apply_module._write

    def late(job: Any, plan: Any) -> Any:
        for statement in statements:
            pair.sql(statement)
        return honest(job, plan)

    monkeypatch.setattr(apply_module, "_write", late)


def test_a_row_that_changed_since_the_plan_is_left_alone(damaged: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    between(
        monkeypatch,
        damaged,
        "UPDATE permits SET holder = '丙公司' WHERE no = 'A-1'",
        "INSERT INTO permits (no, fee) VALUES ('A-2', '1')",
        "DELETE FROM permits WHERE no = 'A-3'",
        "INSERT INTO permits SELECT * FROM permits WHERE no = 'A-4'",
    )
    done = applied(damaged, code=1)
    results = {it["key"]["no"]: it["result"] for it in done["items"]}
    assert results == {"A-1": "changed", "A-2": "there", "A-3": "gone", "A-4": "several"}
    with closing(sqlite3.connect(damaged.database)) as connection:
        found = connection.execute("SELECT no, holder, fee FROM permits ORDER BY no").fetchall()
    assert found == [
        ("A-1", "丙公司", "9"),
        ("A-2", None, "1"),
        ("A-4", "甲公司", "12.50"),
        ("A-4", "甲公司", "12.50"),
    ]


def test_another_format_of_the_same_value_counts_as_changed(damaged: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    between(monkeypatch, damaged, "UPDATE permits SET fee = '9.0' WHERE no = 'A-1'")
    assert {it["key"]["no"]: it["result"] for it in applied(damaged, code=1)["items"]}["A-1"] == "changed"


def test_a_row_is_inserted_only_if_every_needed_column_is_known(damaged: Pair) -> None:
    damaged.sql("ALTER TABLE permits RENAME TO old")
    damaged.sql(
        "CREATE TABLE permits (no TEXT, uscc TEXT, holder TEXT, decided_on TEXT, fee TEXT, office TEXT NOT NULL, "
        "level INTEGER NOT NULL DEFAULT 1)"
    )
    damaged.sql("INSERT INTO permits SELECT *, '广州', 2 FROM old")
    done = applied(damaged, code=1)
    results = {it["key"]["no"]: (it["result"], it["columns"]) for it in done["items"]}
    assert results["A-2"] == ("unknown_columns", ["office"])
    assert results["A-1"] == ("restored", [])
    assert "A-2" not in rows(damaged)


def test_a_trigger_that_changes_what_is_written_rolls_everything_back(damaged: Pair) -> None:
    damaged.sql(
        "CREATE TRIGGER meddle AFTER UPDATE ON permits WHEN new.no = 'A-3' "
        "BEGIN UPDATE permits SET holder = '丁公司' WHERE no = 'A-3'; END"
    )
    before = rows(damaged)
    ran = damaged.city.run("restore", "permits", "--apply", "--by", "张三", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "restore.differs")
    assert "A-3" in ran.json["error"]["message"]
    assert rows(damaged) == before
    (told,) = damaged.city.run("nightly", "--json").json["restores"]
    assert (told["state"], told["error"]) == ("failed", "restore.differs")


def test_a_trigger_that_changes_other_rows_rolls_everything_back(damaged: Pair) -> None:
    damaged.deliver("B3", [permit(8)])
    damaged.sql("CREATE TRIGGER meddle AFTER UPDATE ON permits BEGIN DELETE FROM permits WHERE no = 'A-8'; END")
    before = rows(damaged)
    ran = damaged.city.run("restore", "permits", "--apply", "--by", "张三", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "restore.others_changed")
    assert rows(damaged) == before


def test_nothing_is_put_back_while_a_batch_is_not_known_here(damaged: Pair) -> None:
    path = damaged.file("B3.csv", [permit(1, fee="9.00")])
    damaged.province.ok("send", "permits", path, "--batch", "B3", "--to", "guangzhou")
    before = rows(damaged)
    for words in ((), ("--apply", "--by", "张三")):
        ran = damaged.city.run("restore", "permits", *words, "--json")
        assert (ran.code, ran.json["error"]["code"]) == (2, "restore.open_batches")
        assert "B3" in ran.json["error"]["message"]
    assert rows(damaged) == before


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_write_that_fails_leaves_nothing_half_done(
    damaged: Pair, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The second row written fails, before or after it takes effect."""
    before = rows(damaged)
    honest = apply_module._restore
    done: list[object] = []

    def failing(writer: Any, item: Any, found: Any, unknown: Any) -> Any:
        if len(done) == 1 and moment == "before":
            raise RuntimeError("killed")
        outcome = honest(writer, item, found, unknown)
        done.append(outcome)
        if len(done) == 2:
            raise RuntimeError("killed")
        return outcome

    monkeypatch.setattr(apply_module, "_restore", failing)
    assert damaged.city.run("restore", "permits", "--apply", "--by", "张三").code == 2
    assert rows(damaged) == before
    monkeypatch.setattr(apply_module, "_restore", honest)
    attention = {it["code"] for it in damaged.city.ok("status")["attention"]}
    assert "restore.unfinished" in attention, "nobody knows what it wrote"
    night = damaged.city.run("nightly", "--json").json
    assert [it["state"] for it in night["restores"]] == ["intent"]
    assert "restore.unfinished" not in {it["code"] for it in damaged.city.ok("status")["attention"]}, (
        "told, and reconciled"
    )
    applied(damaged)


def test_a_restore_stands_in_the_next_brief_and_only_there(damaged: Pair) -> None:
    applied(damaged, "A-1", code=1)
    first = damaged.city.run("nightly", "--json").json
    (told,) = first["restores"]
    assert (told["catalog"], told["by"], told["state"]) == ("permits", "张三", "applied")
    assert told["items"] == [
        {
            "key": {"no": "A-1"},
            "key_tag": told["items"][0]["key_tag"],
            "kind": "altered",
            "fields": ["fee"],
            "result": "restored",
        }
    ]
    assert "12.50" not in json.dumps(told)
    assert damaged.city.run("nightly", "--json").json["restores"] == []


def test_what_is_no_matter_of_values_is_named_and_left(pair: Pair) -> None:
    pair.deliver("B1", [permit(1), permit(2)])
    path = pair.file("B2.csv", [withdrawn(2)])
    pair.province.ok("send", "permits", path, "--batch", "B2", "--to", "guangzhou")
    pair.city.run("receive", "permits", path, "--batch", "B2", "--from", "guangdong")
    pair.sql("INSERT INTO permits SELECT * FROM permits WHERE no = 'A-1'")
    pair.sql("INSERT INTO permits (no, holder) VALUES ('A-9', '伪造')")
    told = plan(pair)
    assert told["items"] == []
    assert {left["finding"]["kind"] for left in told["left_out"]} == {"duplicate", "not_withdrawn", "unanchored"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--apply"], "restore.by"),
        (["--apply", "--by", " "], "restore.by"),
        (["A-9"], "restore.nothing"),
        (["A-1", "A-9"], "restore.nothing"),
    ],
)
def test_what_cannot_be_done_is_refused(damaged: Pair, words: list[str], code: str) -> None:
    before = rows(damaged)
    ran = damaged.city.run("restore", "permits", *words, "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, code)
    assert rows(damaged) == before


def test_without_an_archive_there_is_nothing_to_restore_from(damaged: Pair) -> None:
    path = damaged.city.home / "catalogs" / "permits.toml"
    path.write_text("archive = false\n" + path.read_text("utf-8"), "utf-8")
    ran = damaged.city.run("restore", "permits", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "restore.no_archive")


def test_personal_values_are_masked_and_still_restored(damaged: Pair) -> None:
    path = damaged.city.home / "catalogs" / "permits.toml"
    text = path.read_text("utf-8").replace('name = "fee"\n', 'name = "fee"\npersonal = true\n')
    path.write_text(text, "utf-8")
    ran = damaged.city.run("restore", "permits", "A-1", "--json")
    assert "12.50" not in ran.out
    for style in ("table", "sql"):
        told = damaged.city.run("restore", "permits", "A-1", "--format", style)
        assert "12.50" not in told.out + told.err
        assert "fee" in told.out
    applied(damaged, "A-1", code=1)
    assert rows(damaged)["A-1"][4] == "12.50"


def test_a_table_without_rights_is_left_alone(damaged: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged.sql("ALTER TABLE permits RENAME TO held")
    damaged.sql("CREATE VIEW permits AS SELECT * FROM held")
    ran = damaged.city.run("restore", "permits", "--apply", "--by", "张三", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "load.view")
