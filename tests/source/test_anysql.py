"""Any other database through SQLAlchemy, shown with SQLite sent that way: read by what its driver gives, and said to be untested."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from ledger.catalog import Catalog
from ledger.errors import LedgerError, SourceError
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel
from ledger.source import anysql
from ledger.source.sqlite import open_source as open_sqlite
from ledger.source.table import open_table

Make = Callable[..., str]
RowsOf = Callable[[Iterable[Chunk]], list[tuple[str | None, ...]]]
TABLE = "CREATE TABLE fines (no VARCHAR(9) PRIMARY KEY, holder TEXT, fee NUMERIC(12, 2), decided DATE)"
CELLS = ["甲", "📜", "e\u0301", " x\u3000", "", "a\r\nb", "'", '"', "%s", ":a", "\ufeff", "x" * 70_000]
ROWS = [(f"n{row}", cell, row, "2024-02-29") for row, cell in enumerate(CELLS)] + [("z", None, None, None)]


def read(url: str, catalog: Catalog, table: str = "fines", **more: Any) -> list[Chunk]:
    with anysql.open_source(make_url(url), table, catalog, **more) as source:
        return list(source.scan())


def refusal(url: str, catalog: Catalog, table: str = "fines", **more: Any) -> LedgerError:
    with pytest.raises(SourceError) as caught:
        read(url, catalog, table, **more)
    return caught.value


def test_hostile_rows_give_the_entries_that_sqlite_itself_gives(database: Make, fines: Catalog, kernel: Kernel) -> None:
    url = database(TABLE, rows=ROWS)
    with open_sqlite(url, "fines", fines) as source:
        expected = [kernel.run(chunk).entries.tobytes() for chunk in source.scan()]
    assert [kernel.run(chunk).entries.tobytes() for chunk in read(url, fines)] == expected
    assert sum(map(len, expected)) == 64 * len(ROWS)


def test_a_scan_can_be_repeated_and_a_view_is_read(database: Make, fines: Catalog, rows_of: RowsOf) -> None:
    url = database(TABLE, "CREATE VIEW v AS SELECT *, 1 AS one FROM fines", rows=[("1", "x", 2, "2024-01-01")])
    with anysql.open_source(make_url(url), "v", fines) as source:
        first = rows_of(source.scan())
        assert rows_of(source.scan()) == first == [("1", "x", "2", "2024-01-01")]
        assert source.ignored == ("one",)


def test_it_says_that_it_is_untested(database: Make, fines: Catalog) -> None:
    with anysql.open_source(make_url(database(TABLE)), "fines", fines) as source:
        assert [("测试" in zh, "not tested" in en) for zh, en in source.notes] == [(True, True)]


def test_without_a_consistent_read_it_says_that_too(
    database: Make, fines: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def levels(_self: object, _connection: object) -> Sequence[str]:
        return ["READ COMMITTED", "AUTOCOMMIT"]

    monkeypatch.setattr("sqlalchemy.dialects.sqlite.base.SQLiteDialect.get_isolation_level_values", levels)
    with anysql.open_source(make_url(database(TABLE)), "fines", fines) as source:
        assert "one moment" in source.notes[1][1]


@pytest.mark.parametrize("declared", ["BOOLEAN", "FLOAT", "BLOB", "JSON", "TIME"])
def test_a_type_without_a_form_is_refused_by_name(database: Make, fines: Catalog, declared: str) -> None:
    error = refusal(database(TABLE.replace("holder TEXT", f"holder {declared}")), fines)
    assert error.code == "source.column_type"
    assert "column holder" in error.en
    assert declared in error.en


def test_batch_and_row_version_come_beside_the_fields(database: Make, fines: Catalog) -> None:
    url = database(
        TABLE.replace("DATE)", "DATE, b TEXT, v BIGINT, d DATE)"),
        rows=[("1", "x", 1, None, " b1", 5, "1970-01-02"), ("2", "x", 1, None, None, None, None)],
    )
    (chunk,) = read(url, fines, batch_column="B", row_version_column="v")
    assert chunk.extra["batch"].to_pylist() == ["B1", None]
    assert chunk.extra["row_version"].to_pylist() == [5, None]
    (chunk,) = read(url, fines, row_version_column="d")
    assert chunk.extra["row_version"].to_pylist() == [57_600_000_000, None]
    assert refusal(url, fines, row_version_column="b").code == "source.column_type"


def test_what_is_missing_is_named(database: Make, fines: Catalog) -> None:
    url = database(TABLE)
    error = refusal(url, fines, "nothing")
    assert (error.code, "fines" in error.en) == ("source.table_missing", True)
    assert refusal(url, fines, columns={"fee": "amount"}).code == "source.column_missing"


@pytest.mark.parametrize("scheme", ["oracle", "mssql+pyodbc", "kingbase", "db2+ibm_db"])
def test_a_driver_that_lacks_is_named_and_the_password_never(fines: Catalog, scheme: str) -> None:
    with pytest.raises(SourceError) as caught, open_table(f"{scheme}://u:geheim@h/d", "t", fines):
        pass
    assert caught.value.code == "source.driver"
    assert "pip" in caught.value.en
    assert "geheim" not in f"{caught.value.zh}{caught.value.en}{caught.value.where}"
    assert "h/d" in caught.value.where


def test_a_binary_float_refuses_its_row(database: Make, fines: Catalog) -> None:
    (chunk,) = read(database(TABLE, rows=[("1", "x", 2.5, None), ("2", "x", 2, None)]), fines)
    assert {row: (why.field, why.code) for row, why in chunk.refused.items()} == {0: ("fee", "value.type")}


def test_an_error_in_the_middle_of_a_scan_is_ours(
    database: Make, fines: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anysql, "FIRST_CHUNK_ROWS", 1)
    url = database(TABLE, "INSERT INTO fines VALUES ('1', 'x', 1, NULL), ('2', CAST(X'FF' AS TEXT), 1, NULL)")
    assert refusal(url, fines).code == "source.failed"


def test_its_shape_is_told(database: Make) -> None:
    url = database(TABLE)
    assert [(c.name, c.type, c.nullable, c.scale, c.in_primary_key) for c in anysql.describe_table(make_url(url), "fines").columns] == [
        ("no", "text", True, None, True), ("holder", "text", True, None, False), ("fee", "decimal", True, 2, False), ("decided", "date", True, None, False),
    ]  # fmt: skip


def test_nothing_it_did_is_ever_committed(database: Make, fines: Catalog, rows_of: RowsOf) -> None:
    url = database(TABLE)
    with anysql.open_source(make_url(url), "fines", fines) as source:
        connection: Connection = source._connection
        connection.exec_driver_sql("INSERT INTO fines (no) VALUES ('1')")
    assert rows_of(read(url, fines)) == []
