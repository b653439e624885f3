"""Deliveries in every format, through the commands and through the inbox at night."""

from __future__ import annotations

import csv
import gzip
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.sheet import write_rows
from tests.conftest import FIELDS, Pair, permit, withdrawn
from tests.source.workbooks import number, row, sheet, text, workbook

ROWS = [permit(n) for n in range(1, 6)]


def as_xlsx(path: Path, rows: Sequence[Mapping[str, str]]) -> str:
    columns = [*FIELDS, *(c for c in ("operation", "reason") if any(c in row for row in rows))]
    filled = [{"operation": "upsert", **row} for row in rows]
    write_rows(path, columns, [[row.get(c, "") for c in columns] for row in filled])
    return str(path)


def as_parquet(path: Path, rows: Sequence[Mapping[str, str]]) -> str:
    pq.write_table(pa.table({name: [row[name] for row in rows] for name in FIELDS}), path)
    return str(path)


def as_gb18030(path: Path, rows: Sequence[Mapping[str, str]]) -> str:
    with path.open("w", encoding="gb18030", newline="") as file:
        csv.writer(file).writerows(
            [["文号", "代码", "名称", "决定日期", "费用"], *([row[f] for f in FIELDS] for row in rows)]
        )
    return str(path)


def inbox(pair: Pair) -> Path:
    folder = pair.city.home / "inbox" / "guangdong" / "permits"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_sent_as_a_workbook_received_as_parquet(pair: Pair) -> None:
    sent = pair.province.ok(
        "send", "permits", as_xlsx(pair.folder / "B1.xlsx", ROWS), "--batch", "B1", "--to", "guangzhou"
    )
    assert sent["size"] == 5
    got = pair.city.ok(
        "receive",
        "permits",
        as_parquet(pair.folder / "B1.parquet", ROWS),
        "--batch",
        "B1",
        "--from",
        "guangdong",
        "--load",
    )
    assert (got["verdict"], got["file_matches"]) == ("matched", True)
    assert pair.city.reconcile()[0] == 0
    # A withdrawal and a changed record come the same way.
    second = as_xlsx(pair.folder / "B2.xlsx", [permit(1, "更名"), withdrawn(2)])
    pair.province.ok("send", "permits", second, "--batch", "B2", "--to", "guangzhou")
    got = pair.city.ok("receive", "permits", second, "--batch", "B2", "--from", "guangdong", "--load")
    assert got["verdict"] == "matched"
    assert pair.city.reconcile()[0] == 0


def test_bad_rows_of_a_workbook_are_listed_and_set_aside(pair: Pair) -> None:
    header = row(*(text(name) for name in FIELDS))
    good = [text(ROWS[0][name]) for name in FIELDS]
    bad = [*good[:4], number("36.900000000000006")]
    path = workbook(
        pair.folder / "bad.xlsx", sheet(header, row(*good), row(*bad, at=9), after='<autoFilter ref="A1:E9"/>')
    )
    ran = pair.province.run("send", "permits", str(path), "--batch", "B1", "--to", "guangzhou", "--lang", "zh")
    assert ran.code == 2
    assert "第 9 行 fee = “36.900000000000006” 数值超过 15 位有效数字" in ran.err
    aside = pair.folder / "aside.csv"
    ran = pair.province.run("digest", "permits", str(path), "--quarantine", str(aside), "--json")
    assert (ran.code, ran.json["size"], ran.json["set_aside"]) == (1, 1, 1)
    assert len(ran.json["notes"]) == 1
    with aside.open(encoding="utf-8", newline="") as file:
        kept = list(csv.DictReader(file))
    assert [(r["no"], r["fee"], r["_line"], r["_field"], r["_rule"]) for r in kept] == [
        ("A-1", "36.900000000000006", "9", "fee", "cell.precision")
    ]


def test_the_sheet_and_the_row_of_the_header_are_told_on_the_command_line(pair: Pair) -> None:
    wanted = pair.province.ok("digest", "permits", pair.file("p.csv", ROWS[:1]))["root"]
    data = sheet(row(text("许可台账")), row(*(text(f) for f in FIELDS)), row(*(text(ROWS[0][f]) for f in FIELDS)))
    path = str(workbook(pair.folder / "s.xlsx", {"说明": sheet(row(text("x"))), "数据": data}))
    assert pair.province.run("digest", "permits", path, "--json").json["error"]["code"] == "xlsx.sheets"
    ran = pair.province.run("digest", "permits", path, "--sheet", "数据", "--json")
    assert "--header-row 2" in ran.json["error"]["message"]
    assert pair.province.ok("digest", "permits", path, "--sheet", "数据", "--header-row", "2")["root"] == wanted


@pytest.mark.parametrize("format", ["gb18030", "gb18030.gz", "xlsx", "parquet"])
def test_every_format_is_taken_from_the_inbox_at_night(pair: Pair, format: str) -> None:
    """A real sender's file waits under its batch number; the night reads it as the workspace says."""
    pair.province.ok("send", "permits", pair.file("sent.csv", ROWS), "--batch", "B1.2", "--to", "guangzhou")
    for record in ROWS:
        pair.sql("INSERT INTO permits VALUES (?, ?, ?, ?, ?)", *(record[name] for name in FIELDS))
    if format.startswith("gb18030"):
        config = pair.city.home / "duizhang.toml"
        told = '\n[source.permits.file]\nencoding = "gb18030"\n'
        config.write_text(config.read_text(encoding="utf-8") + told, encoding="utf-8")
        waiting = inbox(pair) / "B1.2.csv"
        as_gb18030(waiting, ROWS)
        if format.endswith("gz"):
            packed = waiting.with_name("B1.2.csv.gz")
            packed.write_bytes(gzip.compress(waiting.read_bytes()))
            waiting.unlink()
            waiting = packed
    else:
        waiting = inbox(pair) / f"B1.2.{format}"
        {"xlsx": as_xlsx, "parquet": as_parquet}[format](waiting, ROWS)
    ran = pair.city.run("nightly", "--json")
    assert (ran.code, ran.json["failures"]) == (0, [])
    assert [got["verdict"] for got in ran.json["received"]] == ["matched"]
    assert [path.name for path in inbox(pair).iterdir()] == [f"{waiting.name}.received"]


def test_two_files_of_one_batch_are_both_left_and_named(pair: Pair) -> None:
    pair.province.ok("send", "permits", pair.file("sent.csv", ROWS), "--batch", "B1", "--to", "guangzhou")
    shutil.copy(pair.folder / "sent.csv", inbox(pair) / "B1.csv")
    # Another spelling of the same batch number is the same batch.
    as_xlsx(inbox(pair) / "ｂ１.xlsx", ROWS[:2])
    ran = pair.city.run("nightly", "--json")
    assert ran.code == 2
    (failure,) = ran.json["failures"]
    assert failure["error"]["code"] == "nightly.several_files"
    assert "B1.csv" in failure["error"]["message"]
    assert "ｂ１.xlsx" in failure["error"]["message"]
    assert sorted(path.name for path in inbox(pair).iterdir()) == ["B1.csv", "ｂ１.xlsx"]


def test_a_file_the_inbox_does_not_take_is_told(pair: Pair) -> None:
    (inbox(pair) / "B1.xls").write_bytes(b"x")
    ran = pair.city.run("nightly", "--json")
    assert [failure["error"]["code"] for failure in ran.json["failures"]] == ["nightly.odd_file"]
