"""catalog new: a draft reads every row it was made from, says what it guessed, and holds nothing of the data."""

from __future__ import annotations

import csv
import sqlite3
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.catalog import Catalog, parse_catalog
from ledger.drafting import sample
from ledger.drafting.draft import draft
from ledger.drafting.guess import looks_personal
from ledger.drafting.names import field_names
from ledger.drafting.sample import _ALL
from ledger.record import Unreadable, normal_row
from ledger.source.table import open_table
from tests.conftest import Pair
from tests.databases import Database

from .conftest import Answer, done, duizhang

PERMITS = (
    "行政许可决定文书号", "行政相对人名称", "统一社会信用代码", "法定代表人", "身份证号码", "联系电话", "许可决定日期", "有效期至",
    "费用", "所属区划", "数据更新时间", "许可事项数", "备注栏",
)  # fmt: skip
ID_CARDS = ("11010519491231002X", "440524188001010014")  # valid check digits, published examples of GB 11643


def permits(count: int = 30) -> list[dict[str, str]]:
    """Licences as a city has them: a number of the licence in Chinese, a holder with several licences."""
    return [
        dict(
            zip(
                PERMITS,
                (
                    f"粤食许〔2023〕{number}号",
                    f"广州第{number % 7}食品有限公司",
                    f"91440101MA5{number % 7:06d}X",
                    ("王伟", "李娜", "张敏", "刘洋")[number % 4],
                    ID_CARDS[number % 2],
                    f"138{number:08d}",
                    f"2023-0{number % 9 + 1}-1{number % 10}",
                    f"2028/0{number % 9 + 1}/01" if number % 3 else "",
                    ("12.5", "100", "3.125")[number % 3],
                    f"44010{number % 9}",
                    f"2024-01-0{number % 9 + 1} 08:30:00",
                    str(number % 4),
                    "" if number % 2 else "含,逗号和\"引号\"",
                ),
                strict=True,
            )
        )
        for number in range(count)
    ]  # fmt: skip


def write(path: Path, rows: Sequence[Mapping[str, str]], headers: Sequence[str] | None = None) -> Path:
    headers = list(headers or rows[0])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(headers)
        writer.writerows([[row[name] for name in rows[0]] for row in rows])
    return path


def drafted(*words: object) -> tuple[str, dict[str, Any], Any]:
    """TOML as text and parsed, and what --json says."""
    told = done("catalog", "new", *words, "--out", "-", "--json").json
    return told["toml"], tomllib.loads(told["toml"]), told


def refused(*words: object) -> str:
    answer: Answer = duizhang("catalog", "new", *words, "--json")
    assert answer.code == 2, answer
    return str(answer.json["error"]["code"])


def types(doc: dict[str, Any]) -> dict[str, str]:
    return {f["name"]: f["type"] + (f"({f['scale']})" if "scale" in f else "") for f in doc["field"]}


def personal(doc: dict[str, Any]) -> set[str]:
    return {f["name"] for f in doc["field"] if f.get("personal")}


# ---- what is guessed ----


def test_permits_with_chinese_headings(tmp_path: Path) -> None:
    path = write(tmp_path / "permits.csv", permits())
    text, doc, told = drafted("permits", "--file", path)
    assert types(doc) == {
        "decision_no": "code", "name": "text", "uscc": "code", "legal_rep": "text", "id_card": "code", "phone": "code",
        "decided_on": "date", "valid_until": "date", "fee": "decimal(3)", "field_10": "code", "field_11": "datetime",
        "field_12": "integer", "field_13": "text",
    }  # fmt: skip
    assert tuple(f["title"] for f in doc["field"]) == PERMITS
    assert personal(doc) == {"legal_rep", "id_card", "phone"}
    assert (doc["key"], told["key_from"]) == (["decision_no"], "unique")
    assert doc["subject"] == {"field": "uscc", "visibility": "public", "public_pattern": "9[13][0-9A-Z]{16}"}
    assert doc["field"][0]["required"] is True
    assert (told["rows"], told["unreadable"], told["left_out"]) == (30, 0, [])
    assert "猜测" in text
    assert "guessed" in text


def test_a_draft_holds_no_value_of_the_data(tmp_path: Path) -> None:
    rows = permits()
    text, _, _ = drafted("permits", "--file", write(tmp_path / "p.csv", rows))
    values = {value for row in rows for value in row.values() if len(value) > 3}
    assert [value for value in values if value in text] == []


def test_leading_zeros_and_numbers_of_one_length_stay_codes(tmp_path: Path) -> None:
    rows = [
        {"a": f"{n:04d}", "b": str(510000 + n), "c": str(n), "d": f"{n}.50", "e": f"{n}", "版本号": f"{n}.10"}
        for n in range(1, 12)
    ]
    _, doc, _ = drafted("x", "--file", write(tmp_path / "x.csv", rows))
    assert types(doc) == {
        "a": "code",
        "b": "code",
        "c": "integer",
        "d": "decimal(2)",
        "e": "integer",
        "field_6": "code",
    }


@pytest.mark.parametrize(
    ("values", "type"),
    [
        (("2020-01-02", "2020-02-30"), "code"),
        (("2020-01-02", "待定"), "text"),
        (("2020-01-02", "2020-01-02 08:00"), "text"),
        (("2020-01-02 08:00", "2020/01/02T09:30:15.5+08:00"), "datetime"),
        (("1", "１"), "text"),
        (("1", "1e5"), "code"),
        (("-1.5", "2"), "decimal(1)"),
        (("1,000", "2"), "text"),
        (("1" * 65, "2"), "integer"),
        (("1" * 66, "2"), "code"),
        (("0." + "1" * 39, "1"), "code"),
        (("A-1", "b_2"), "code"),
        (("甲", "乙"), "text"),
        (("", " "), "text"),
        (("true", "false"), "text"),
        (("20200102", "20200103"), "code"),
    ],
)
def test_a_type_is_guessed_only_if_every_value_has_a_form_in_it(
    tmp_path: Path, values: tuple[str, ...], type: str
) -> None:
    rows = [{"id": f"k{n}", "column": value} for n, value in enumerate(values)]
    _, doc, told = drafted("x", "--file", write(tmp_path / "x.csv", rows))
    assert types(doc)["column"].replace("code", "code") == type
    assert told["unreadable"] == 0


def test_the_one_odd_value_at_the_end_of_the_sample_counts(tmp_path: Path) -> None:
    rows = [{"id": f"k{n}", "amount": str(n)} for n in range(4999)] + [{"id": "last", "amount": "约三"}]
    _, doc, told = drafted("x", "--file", write(tmp_path / "x.csv", rows))
    assert (types(doc)["amount"], told["rows"]) == ("text", 5000)


def test_only_the_first_rows_are_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "SAMPLE_ROWS", 10)
    rows = [{"id": f"k{n}", "amount": str(n)} for n in range(10)] + [{"id": "k1", "amount": "约三"}]
    _, doc, told = drafted("x", "--file", write(tmp_path / "x.csv", rows))
    assert (types(doc)["amount"], told["rows"], doc["key"]) == ("integer", 10, ["id"])


@pytest.mark.parametrize(
    ("title", "texts", "expected"),
    [
        ("甲", ["11010519491231002X", "x"], True),
        ("甲", ["11010519491231002x"], True),
        ("甲", ["110105194912310021"] * 1 + ["x"] * 3, False),  # wrong check digit, and alone
        ("甲", ["13800138000", "13900139000"], True),
        ("甲", ["王伟", "李娜", "张敏"], True),
        ("甲", ["广州市", "深圳市", "黄埔区"], False),
        ("甲", ["91440000190326633X"], False),
        ("负责人", [], True),
        ("出生日期", ["1990-01-02"], True),
        ("企业名称", ["王记"], False),
        ("证件类型", ["身份证"], False),
    ],
)
def test_what_looks_personal_by_heading_or_by_value(title: str, texts: list[str], expected: bool) -> None:
    assert looks_personal(sample.Column(title, "x", texts, _ALL)) is expected


def test_the_key_is_a_pair_where_no_field_is_unique(tmp_path: Path) -> None:
    rows = [{"year": str(2000 + n // 3), "quarter": f"Q{n % 3}", "value": "7"} for n in range(9)]
    _, doc, told = drafted("x", "--file", write(tmp_path / "x.csv", rows))
    assert (sorted(doc["key"]), told["key_from"]) == (["quarter", "year"], "pair")


def test_a_key_is_never_a_field_with_a_gap_and_says_if_nothing_is_unique(tmp_path: Path) -> None:
    rows = [{"no": str(n) if n else "", "name": "x"} for n in range(3)]
    text, _, told = drafted("x", "--file", write(tmp_path / "x.csv", rows))
    assert told["key_from"] == "none"
    assert "NOT borne out" in text
    # Unique as written, not in normal form.
    rows = [{"code": value, "name": "x"} for value in ("ab", "AB", "ａｂ1")]
    assert drafted("x", "--file", write(tmp_path / "x.csv", rows))[2]["key_from"] == "none"


def test_headings_of_any_kind_become_names_that_differ() -> None:
    names, numbered = field_names(
        ["Name", "name", "企业名称", "甲", "Company Type", "operation", "9lives", "甲乙", "x" * 200]
    )
    assert names == [
        "name_2", "name", "name_3", "field_4", "company_type", "operation_field", "field_7", "field_8", "x" * 56,
    ]  # fmt: skip
    assert [n for n, only in zip(names, numbered, strict=True) if only] == ["field_4", "field_7", "field_8"]


def test_headings_that_would_break_toml_or_look_like_each_other(tmp_path: Path) -> None:
    headings = ['说"明\\', "两\n行", "tab\there", "Name", "name", "# [x]", "id = 1", " 空格 ", "\x7f"]
    rows = [{h: f"v{n}{at}x" for at, h in enumerate(headings)} for n in range(3)]
    path = write(tmp_path / "x.csv", rows)
    text, doc, _ = drafted("x", "--file", path)
    assert [f.get("title", f["name"]) for f in doc["field"]] == headings
    catalog = parse_catalog(text.encode(), "x")
    with sample.open_file(path, catalog) as file:
        assert file.ignored == ()


# ---- round trips: what a draft is good for ----


def take(pair: Pair, catalog_id: str, *words: object) -> None:
    """Draft into the city's workspace; the draft must pass the check."""
    made = pair.city.ok("catalog", "new", catalog_id, *map(str, words))
    assert made["file"] == str(pair.city.home / "catalogs" / f"{catalog_id}.toml")
    assert pair.city.ok("catalog", "check", catalog_id)["catalogs"][0]["valid"] is True


def test_a_file_in_any_format_is_read_whole_by_its_draft_and_gives_one_root(pair: Pair) -> None:
    rows = permits(200)
    plain = write(pair.folder / "licences.csv", rows)
    coded = pair.folder / "licences18030.csv"
    coded.write_bytes(plain.read_text(encoding="utf-8").encode("gb18030"))
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(list(PERMITS))
    for row in rows:
        sheet.append([value or None for value in row.values()])
    book.save(pair.folder / "licences.xlsx")
    table = pa.table({name: pa.array([row[name] or None for row in rows], pa.string()) for name in PERMITS})
    pq.write_table(table, pair.folder / "licences.parquet")
    take(pair, "licences", "--file", plain)
    digests = {
        tuple(pair.city.ok("digest", "licences", str(pair.folder / name))[part] for part in ("size", "root"))
        for name in ("licences.csv", "licences.xlsx", "licences.parquet")
    }
    assert [size for size, _ in digests] == [200]
    bodies = [(pair.city.home / "catalogs" / "licences.toml").read_text(encoding="utf-8")]
    for name, more in (
        ("licences.xlsx", ()),
        ("licences.parquet", ()),
        ("licences18030.csv", ("--encoding", "gb18030")),
    ):
        bodies.append(
            pair.city.run("catalog", "new", "licences", "--file", str(pair.folder / name), "--out", "-", *more).out
        )
    assert len(set(bodies)) == 1


def test_typed_cells_of_workbook_and_parquet(pair: Pair) -> None:
    import datetime as dt
    from decimal import Decimal

    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["编号", "日期", "数量", "金额"])
    for n in range(5):
        sheet.append([f"A{n}", dt.date(2024, 1, n + 1), n, n + 0.25])
    book.save(pair.folder / "typed.xlsx")
    pq.write_table(
        pa.table(
            {
                "编号": [f"A{n}" for n in range(5)],
                "日期": pa.array([dt.date(2024, 1, n + 1) for n in range(5)]),
                "数量": pa.array(range(5), pa.int64()),
                "金额": pa.array([Decimal(f"{n}.25") for n in range(5)], pa.decimal128(10, 2)),
            }
        ),
        pair.folder / "typed.parquet",
    )
    for number, name in enumerate(("typed.xlsx", "typed.parquet")):
        take(pair, f"typed{number}", "--file", pair.folder / name)
        assert pair.city.ok("digest", f"typed{number}", str(pair.folder / name))["size"] == 5
        doc = tomllib.loads((pair.city.home / "catalogs" / f"typed{number}.toml").read_text(encoding="utf-8"))
        assert types(doc) == {"no": "code", "day": "date", "quantity": "integer", "amount": "decimal(2)"}


def configure(pair: Pair, catalog_id: str, url: str, more: str = "") -> None:
    with (pair.city.home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write(f'\n[source.{catalog_id}]\nurl = "{url}"\ntable = "{catalog_id}"\norigin = "own"\n{more}')


def test_the_configured_table_of_a_database(pair: Pair) -> None:
    with sqlite3.connect(pair.database) as database:
        database.execute(
            "CREATE TABLE firms (uscc TEXT PRIMARY KEY, 企业名称 TEXT, opened DATE, capital DECIMAL(12,2), staff INTEGER,"
            " batch_no TEXT, ver INTEGER, photo BLOB)"
        )
        database.executemany(
            "INSERT INTO firms VALUES (?, ?, ?, ?, ?, 'B1', 1, NULL)",
            [(f"91440101MA5{n:07d}", f"公司{n}", f"2020-01-0{n + 1}", str(n), n) for n in range(9)],
        )
    database.close()
    configure(pair, "firms", f"sqlite:///{pair.database}", 'batch_column = "batch_no"\nrow_version_column = "ver"\n')
    take(pair, "firms")
    text = (pair.city.home / "catalogs" / "firms.toml").read_text(encoding="utf-8")
    doc = tomllib.loads(text)
    names = set(types(doc))
    assert {"uscc", "name", "opened", "staff"} <= names
    assert not names & {"batch_no", "ver", "photo"}
    assert doc["key"] == ["uscc"]
    assert '# name = "企业名称"' in text
    with (pair.city.home / "duizhang.toml").open("a", encoding="utf-8") as config:
        config.write('[source.firms.columns]\nname = "企业名称"\n')
    assert pair.city.ok("digest", "firms")["size"] == 9


def test_a_postgres_table_by_its_declared_types_and_its_values(postgres18: Database) -> None:
    postgres18.run(
        'CREATE TABLE penalties (doc_no varchar(40), seq int, "当事人名称" text, fine numeric(12,2), rate numeric, decided date,'
        " changed timestamptz, seen timestamp, uscc char(18), zip text, score double precision, ok boolean, PRIMARY KEY (doc_no, seq))",
        "INSERT INTO penalties SELECT 'P-' || n, n, '公司' || n, n + 0.5, n * 0.125, date '2024-01-01' + n,"
        " timestamptz '2024-01-01 08:00:00+08' + n * interval '1 hour', timestamp '2024-01-01 08:00:00.25',"
        " '91440101MA5' || lpad(n::text, 7, '0'), lpad(n::text, 6, '0'), n / 3.0, true FROM generate_series(1, 50) n",
    )
    text, doc, told = drafted("penalties", "--url", postgres18.url, "--table", "penalties")
    assert (doc["key"], told["key_from"]) == (["doc_no", "seq"], "primary_key")
    found = types(doc)
    assert {name: found[name] for name in ("doc_no", "seq", "fine", "rate", "decided", "changed", "seen", "uscc", "zip")} == {
        "doc_no": "code", "seq": "integer", "fine": "decimal(2)", "rate": "decimal(3)", "decided": "date",
        "changed": "datetime", "seen": "datetime", "uscc": "code", "zip": "code",
    }  # fmt: skip
    assert {it["column"]: it["reason"] for it in told["left_out"]} == {"score": "type", "ok": "type"}
    assert "left out" in text
    assert doc["subject"]["field"] == "uscc"
    catalog = parse_catalog(text.encode(), "penalties")
    columns = {field.name: field.title or field.name for field in catalog.fields}
    with open_table(postgres18.url, "penalties", catalog, columns=columns) as source:
        chunks = list(source.scan())
    rows = [
        dict(zip(c.fields, row, strict=True))
        for c in chunks
        for row in zip(*(v.to_pylist() for v in c.fields.values()), strict=True)
    ]
    assert len(rows) == 50
    assert [row for c in chunks for row in c.refused] == []
    assert [it for it in (normal_row(catalog, row) for row in rows) if isinstance(it, Unreadable)] == []


def test_sqlite_values_that_are_not_what_the_column_declares(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, d DATE, r TEXT, b TEXT)")
        database.executemany(
            "INSERT INTO t VALUES (?, ?, ?, ?, ?)", [(1, 5, "2020-01-01", "x", "y"), (2, "约五", "待定", "x", b"z")]
        )
    database.close()
    _, doc, told = drafted("t", "--url", f"sqlite:///{path}", "--table", "t")
    assert types(doc) == {"id": "integer", "n": "text", "d": "text", "r": "text"}
    assert told["left_out"] == [{"column": "b", "reason": "values"}]
    assert told["unreadable"] == 0


def test_withdrawals_of_a_sample_do_not_count(tmp_path: Path) -> None:
    rows = [
        {"no": "A1", "amount": "5", "operation": "upsert", "reason": ""},
        {"no": "A2", "amount": "6", "operation": "upsert", "reason": ""},
        {"no": "A1", "amount": "n/a", "operation": "withdraw", "reason": "revoked"},
    ]
    _, doc, _ = drafted("x", "--file", write(tmp_path / "x.csv", rows))
    assert types(doc) == {"no": "code", "amount": "integer"}
    assert doc["key"] == ["no"]


def test_rows_nobody_can_read_are_counted_and_change_no_guess(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"no,amount\nA1,5\nA2\nA3,\xff\nA4,7\n")
    text, doc, told = drafted("x", "--file", path)
    assert (types(doc)["amount"], told["unreadable"], doc["key"]) == ("integer", 2, ["no"])
    assert "样本中有 2 行无法读取" in text


# ---- refusals ----


def test_what_is_refused(tmp_path: Path) -> None:
    good = write(tmp_path / "good.csv", permits(3))
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "twice.csv").write_text("a,b,a\n1,2,3\n", encoding="utf-8")
    (tmp_path / "blank.csv").write_text("a,,b\n1,2,3\n", encoding="utf-8")
    (tmp_path / "headless.csv").write_text("91440000190326633X,甲公司,2020-01-02\n", encoding="utf-8")
    (tmp_path / "only.csv").write_text("operation,reason\nupsert,\n", encoding="utf-8")
    out = ("--out", "-")
    assert refused("x", "--file", tmp_path / "empty.csv", *out) == "csv.empty"
    assert refused("x", "--file", tmp_path / "twice.csv", *out) == "csv.header_repeated"
    assert drafted("x", "--file", tmp_path / "blank.csv")[2]["left_out"] == [{"column": "#2", "reason": "unnamed"}]
    assert refused("x", "--file", tmp_path / "headless.csv", *out) == "draft.no_header"
    assert refused("x", "--file", tmp_path / "only.csv", *out) == "draft.no_columns"
    assert refused("x", "--file", tmp_path / "none.csv", *out) == "csv.file"
    for bad in ("X", "1a", "../x", "a/b", "", "a" * 33, "许可"):
        assert refused(bad, "--file", good, *out) == "draft.id"
    assert refused("x", "--file", good, "--table", "t", *out) == "draft.origin"
    assert refused("x", "--table", "t", *out) == "draft.origin"
    assert refused("x", "--url", "sqlite:////x.db", *out) == "draft.origin"
    assert refused("x", "--url", f"sqlite:///{tmp_path}/none.db", "--table", "t", *out) == "source.missing"


def test_a_headless_file_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "headless.csv"
    path.write_text("91440000190326633X,甲公司,2020-01-02\n", encoding="utf-8")
    answer = duizhang("catalog", "new", "x", "--file", path, "--out", "-")
    assert "91440000190326633X" not in answer.out + answer.err
    assert "甲公司" not in answer.out + answer.err


def test_a_header_without_rows_gives_a_draft_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("企业名称,统一社会信用代码,注册日期\n", encoding="utf-8")
    text, doc, told = drafted("x", "--file", path)
    assert (doc["key"], told["key_from"], told["rows"]) == (["uscc"], "none", 0)
    assert set(types(doc).values()) == {"text"}
    assert text.count("类型未知") == 3


def test_an_invalid_id_never_becomes_a_path(pair: Pair) -> None:
    good = write(pair.folder / "good.csv", permits(3))
    for bad in ("../evil", "a/b", "X"):
        ran = pair.city.run("catalog", "new", bad, "--file", str(good), "--json")
        assert (ran.code, ran.json["error"]["code"]) == (2, "draft.id")
    assert not list(pair.folder.rglob("evil*"))


def test_nothing_is_overwritten_and_no_id_is_taken_twice(pair: Pair) -> None:
    good = write(pair.folder / "good.csv", permits(3))
    path = pair.city.home / "catalogs" / "permits.toml"
    before = path.read_bytes()
    for words, code in (
        (("permits",), "draft.exists"),
        (("registration",), "draft.id_taken"),
        (("x", "--out", str(path)), "draft.exists"),
    ):
        ran = pair.city.run("catalog", "new", *words, "--file", str(good), "--json")
        assert (ran.code, ran.json["error"]["code"]) == (2, code)
    assert path.read_bytes() == before
    ran = pair.city.run("catalog", "new", "x", "--json")
    assert (ran.code, ran.json["error"]["code"]) == (2, "draft.origin")


def test_outside_a_workspace_the_place_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = write(tmp_path / "good.csv", permits(3))
    assert refused("x", "--file", good) == "draft.out"
    done("catalog", "new", "x", "--file", good, "--out", tmp_path / "x.toml")
    assert done("catalog", "check", tmp_path / "x.toml").code == 0


@dataclass
class Fickle:
    """Reads differently once types are declared, as cells of a workbook may."""

    where: str = "fickle"
    reads: int = 0

    def columns(self) -> tuple[list[sample.Column], list[tuple[str, str]]]:
        return [sample.Column(name, name, ["1", "2"], _ALL) for name in ("a", "n")], []

    def read(self, catalog: Catalog, titles: Mapping[str, str]) -> sample.Rows:
        self.reads += 1
        second = "2e3" if catalog.by_name["n"].type == "integer" else "2000"
        return sample.Rows(2, {"a": ["1", "2"], "n": ["1", second]}, [])


def test_what_is_read_under_the_guessed_types_decides() -> None:
    origin = Fickle()
    made = draft("x", origin)
    assert [field.type for field in made.catalog.fields] == ["integer", "text"]
    assert origin.reads == 2
