"""A part of a stream: `reconcile --batch`, `--since`, `--until` say what was asked for and no more."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import date
from typing import Any

import pytest

from ledger.errors import InputError
from ledger.reconcile.scope import WHOLE, Scope, parse_scope
from tests.conftest import Pair, permit, withdrawn

ROWS = [permit(n) for n in range(1, 7)]


def deliver(pair: Pair, number: str, rows: Sequence[dict[str, str]], period: str = "") -> None:
    """Send a batch with a period and load it."""
    path = pair.file(f"{number}.csv", rows)
    pair.province.ok("send", "permits", path, "--batch", number, "--to", "guangzhou", "--period", period)
    pair.city.ok("receive", "permits", path, "--batch", number, "--from", "guangdong", "--load")


@pytest.fixture
def three(pair: Pair) -> Pair:
    """B1 with six rows (January), B2 with a new version of A-1 and A-2 (a week in February), B3 withdrawing A-6 (March)."""
    deliver(pair, "B1", ROWS, "2022-01-31")
    deliver(pair, "B2", [permit(1, "更名"), permit(2, "更名")], "2022-02-01/2022-02-07")
    deliver(pair, "B3", [withdrawn(6)], "2022-03-31")
    return pair


def ask(pair: Pair, *words: str) -> tuple[int, Any]:
    """Exit code and report, both sums checked."""
    ran = pair.city.run("reconcile", "permits", *words, "--json")
    assert "error" not in ran.json, ran.out
    assert all(left == right for left, right in ran.json["balance"].values()), ran.json["balance"]
    return ran.code, ran.json


def found(told: Any) -> list[tuple[str, str]]:
    """(kind, key) of each finding."""
    return [(f["kind"], f["key"]["no"]) for f in told["findings"]]


@pytest.mark.parametrize(
    ("words", "source", "ledger", "batches"),
    [
        (("--batch", "B1"), 3, 3, ["B1"]),
        (("--batch", " b1 "), 3, 3, ["B1"]),
        (("--batch", "B2"), 2, 2, ["B2"]),
        (("--batch", "B3"), 0, 0, ["B3"]),
        (("--since", "2022-02-07"), 2, 2, ["B2", "B3"]),
        (("--since", "2022-02-08"), 0, 0, ["B3"]),
        (("--until", "2022-02-01"), 5, 5, ["B1", "B2"]),
        (("--until", "2022-01-31"), 3, 3, ["B1"]),
        (("--since", "2022-02-03", "--until", "2022-02-04"), 2, 2, ["B2"]),
    ],
)
def test_only_keys_whose_live_version_is_of_the_scope_count(
    three: Pair, words: tuple[str, ...], source: int, ledger: int, batches: list[str]
) -> None:
    code, told = ask(three, *words)
    assert (code, told["verdict"]) == (0, "matched_in_scope")
    assert (told["counts"]["source"], told["counts"]["ledger"]) == (source, ledger)
    assert [batch["batch"] for batch in told["batches"]] == batches
    assert told["notes"]


def test_the_report_carries_what_was_asked_for_and_says_it_in_words(three: Pair) -> None:
    assert ask(three, "--batch", "b1")[1]["scope"] == {"batch": "B1"}
    assert ask(three, "--since", "2022-01-01", "--until", "2022-01-31")[1]["scope"] == {
        "since": "2022-01-01",
        "until": "2022-01-31",
    }
    assert "scope" not in ask(three)[1]
    assert ask(three)[1]["verdict"] == "matched"
    ran = three.city.run("reconcile", "permits", "--batch", "B1", "--lang", "en")
    assert "only batch B1" in ran.out
    assert "2 keys and 2 rows outside" in ran.err


def test_differences_of_other_batches_are_left_out_and_those_of_this_one_are_not(three: Pair) -> None:
    three.sql("UPDATE permits SET holder = '甲公司' WHERE no = 'A-1'")
    three.sql("UPDATE permits SET holder = '乙公司' WHERE no = 'A-3'")
    three.sql("DELETE FROM permits WHERE no = 'A-4'")
    three.sql("INSERT INTO permits SELECT * FROM permits WHERE no = 'A-5'")
    three.sql("UPDATE permits SET decided_on = '2022-02-30' WHERE no = 'A-2'")
    three.sql("INSERT INTO permits VALUES ('A-6', '914401001234500006', '甲公司', '2022-03-04', '12.50')")
    three.sql("INSERT INTO permits VALUES ('A-99', NULL, '伪造', '2022-03-04', '1')")
    three.sql("INSERT INTO permits VALUES ('', NULL, '无键', '2022-03-04', '1')")
    first = [("altered", "A-3"), ("missing", "A-4"), ("duplicate", "A-5")]
    second = [("stale", "A-1"), ("unreadable", "A-2")]
    third = [("not_withdrawn", "A-6")]
    for number, findings in (("B1", first), ("B2", second), ("B3", third)):
        code, told = ask(three, "--batch", number)
        assert (code, told["verdict"], found(told)) == (1, "differences", findings)
        assert told["scope"] == {"batch": number}
    code, told = ask(three)
    assert code == 1
    assert len(told["findings"]) == len(first + second + third) + 2


def test_rows_no_batch_knows_are_of_the_batch_that_the_batch_column_names(three: Pair) -> None:
    three.sql("ALTER TABLE permits ADD COLUMN lot TEXT")
    three.sql("UPDATE permits SET lot = 'B1'")
    three.sql("INSERT INTO permits VALUES ('A-98', NULL, '伪造', '2022-03-04', '1', 'b2')")
    three.sql("INSERT INTO permits VALUES ('A-99', NULL, '伪造', '2022-03-04', '1', NULL)")
    assert found(ask(three, "--batch", "B2")[1]) == []
    with (three.city.home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write('batch_column = "lot"\n')
    code, told = ask(three, "--batch", "B2")
    assert (code, found(told)) == (1, [("unanchored", "A-98")])
    assert told["counts"]["source"] == 3
    # A known key is of the batch that carries it, whatever the column says.
    assert told["counts"]["matched"] == 2
    assert found(ask(three, "--batch", "B1")[1]) == []
    assert found(ask(three, "--since", "2022-01-01")[1]) == []


def test_an_announced_batch_of_the_scope_that_is_not_known_leaves_it_undetermined(three: Pair) -> None:
    path = three.file("B4.csv", [permit(9)])
    three.province.ok("send", "permits", path, "--batch", "B4", "--to", "guangzhou", "--period", "2022-04-01")
    assert ask(three)[1]["verdict"] == "undetermined"
    for words in (("--batch", "B4"), ("--since", "2022-03-31")):
        code, told = ask(three, *words)
        assert (code, told["verdict"]) == (2, "undetermined")
    code, told = ask(three, "--batch", "B1")
    assert (code, told["verdict"]) == (2, "undetermined"), "what is not known may carry a later version of its keys"
    assert any("B4" in note["en"] for note in told["notes"])
    three.sql("DELETE FROM permits WHERE no = 'A-1'")
    code, told = ask(three, "--since", "2022-02-01")
    assert (code, told["verdict"]) == (1, "differences_partial")


def test_an_unknown_batch_after_the_scope_may_carry_its_keys_and_one_before_it_may_not(three: Pair) -> None:
    path = three.file("B4.csv", [permit(1, holder="后来")])
    three.province.ok("send", "permits", path, "--batch", "B4", "--to", "guangzhou")
    code, told = ask(three, "--batch", "B1")
    assert (code, told["verdict"]) == (2, "undetermined"), "B4 may have changed a row of B1"
    receive = ("receive", "permits", path, "--batch", "B4", "--from", "guangdong", "--load")
    assert three.city.run(*receive).code == 0
    assert ask(three, "--batch", "B4")[1]["verdict"] == "matched_in_scope"


def test_without_a_period_the_day_is_the_catalogs_day_of_the_first_anchor(pair: Pair) -> None:
    deliver(pair, "B1", ROWS)
    anchor = ask(pair)[1]["against"]["time"]
    from datetime import UTC, datetime, timedelta

    day = (datetime.fromtimestamp(anchor, UTC) + timedelta(hours=8)).date()
    assert ask(pair, "--since", day.isoformat(), "--until", day.isoformat())[1]["counts"]["ledger"] == 6
    ran = pair.city.run("reconcile", "permits", "--since", (day + timedelta(days=2)).isoformat(), "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "scope.empty"), "nothing that could be checked is never fine"


def test_an_own_source_is_asked_by_its_own_batches(own: Pair) -> None:
    for row in ROWS:
        own.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *row.values())
    number = own.city.ok("anchor", "permits")["anchored"][0]["batch"]
    own.sql("UPDATE permits SET holder = '乙公司' WHERE no = 'A-1'")
    own.city.ok("accept", "permits", "A-1", "--reason", "x", "--by", "y")
    own.sql("DELETE FROM permits WHERE no = 'A-2'")
    correction = own.city.ok("withdraw", "permits", "A-2", "--reason", "revoked", "--by", "y")["batch"]
    own.sql("INSERT INTO permits VALUES ('A-50', NULL, '新', '2022-03-04', '1')")
    code, told = ask(own, "--batch", number)
    assert (code, told["counts"]["ledger"], told["counts"]["accepted"], told["newly_seen"]) == (0, 4, 0, [])
    assert told["counts"]["accepted_removals"] == 0
    assert ask(own, "--batch", correction)[1]["counts"]["accepted_removals"] == 1


def test_an_unknown_batch_is_refused_and_those_there_are_are_named(three: Pair) -> None:
    ran = three.city.run("reconcile", "permits", "--batch", "B9", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "scope.batch_unknown")
    assert all(number in ran.json["error"]["message"] for number in ("B1", "B2", "B3"))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--since", "2022-02-30"), "scope.day"),
        (("--since", "20220201"), "scope.day"),
        (("--until", "2022-W05-1"), "scope.day"),
        (("--until", ""), "scope.day"),
        (("--since", "２０２２-02-01"), "scope.day"),
        (("--since", "2022-02-02", "--until", "2022-02-01"), "scope.order"),
        (("--batch", ""), "scope.batch"),
        (("--batch", "批次一"), "scope.batch"),
        (("--batch", "B1", "--since", "2022-02-01"), "scope.batch_and_days"),
    ],
)
def test_a_scope_that_makes_no_sense_is_refused(pair: Pair, words: tuple[str, ...], code: str) -> None:
    ran = pair.city.run("reconcile", "permits", *words, "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, code)


def test_a_scoped_answer_settles_no_finding_outside_of_it(three: Pair) -> None:
    three.sql("UPDATE permits SET holder = '乙公司' WHERE no IN ('A-1', 'A-3')")
    ask(three)
    ask(three, "--batch", "B1")
    three.sql("UPDATE permits SET holder = '甲公司' WHERE no = 'A-3'")
    ask(three, "--batch", "B1")
    connection = sqlite3.connect(three.city.home / "store" / "ledger.db")
    states = connection.execute("SELECT state FROM finding ORDER BY id").fetchall()
    connection.close()
    assert states == [("new",), ("new",)]


@pytest.mark.parametrize(
    "scope",
    [WHOLE, Scope("B1"), Scope(since=date(2022, 1, 1)), Scope(None, date(2022, 1, 1), date(2022, 1, 1))],
    ids=str,
)
def test_a_scope_survives_being_written_down(scope: Scope) -> None:
    assert Scope.from_json(scope.as_json()) == scope
    assert scope.whole == (scope == WHOLE)


def test_days_are_checked_before_anything_is_opened() -> None:
    with pytest.raises(InputError):
        parse_scope(None, "yesterday", None)


def test_receive_calls_a_row_stale_that_reconcile_calls_stale(three: Pair) -> None:
    three.sql("UPDATE permits SET holder = '甲公司' WHERE no = 'A-1'")
    three.sql("UPDATE permits SET holder = '丙公司' WHERE no = 'A-2'")
    path = str(three.folder / "B2.csv")
    got = three.city.run("receive", "permits", path, "--batch", "B2", "--from", "guangdong", "--json").json
    assert found(got) == [("stale", "A-1"), ("altered", "A-2")]
    assert found(ask(three)[1]) == found(got)


def test_a_workbook_holds_the_findings(three: Pair) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    three.sql("UPDATE permits SET holder = '乙公司' WHERE no = 'A-3'")
    out = three.folder / "found.xlsx"
    assert three.city.run("reconcile", "permits", "--format", "xlsx", "--out", str(out)).code == 1
    rows = list(openpyxl.load_workbook(out).active.iter_rows(values_only=True))
    assert [row[:2] for row in rows] == [("kind", "key"), ("altered", '{"no": "A-3"}')]


def test_a_workbook_does_not_go_where_text_goes(three: Pair) -> None:
    for words in (("--format", "xlsx"), ("--out", str(three.folder / "x"))):
        ran = three.city.run("reconcile", "permits", *words)
        assert ran.code == 2
        assert not (three.folder / "x").exists()
