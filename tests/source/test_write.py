"""A SQLite table as a writer, its shape, and its row versions; PostgreSQL's shape."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ledger.catalog import Catalog
from ledger.errors import LedgerError, SourceError
from ledger.source.layout import ColumnShape
from ledger.source.sqlitewrite import SqliteWriter
from ledger.source.table import describe_table, open_table
from ledger.source.write import Writer, open_writer
from tests.databases import Database

Make = Callable[..., str]
TEXT_TABLE = "CREATE TABLE fines (no TEXT, holder TEXT, fee TEXT, decided TEXT)"


def rows(url: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        return connection.execute("SELECT * FROM fines ORDER BY 1").fetchall()


@pytest.mark.parametrize("ddl", [TEXT_TABLE, TEXT_TABLE.replace("no TEXT", "no TEXT PRIMARY KEY") + " WITHOUT ROWID"])
def test_a_writer_changes_only_what_it_is_told(database: Make, fines: Catalog, ddl: str) -> None:
    url = database(ddl, rows=[("1", "x", "1", None), ("2", "y", "2", None)])
    with open_writer(url, "fines", fines) as writer:
        ((located, chunk),) = writer.rows(["no"])
        places = dict(zip(chunk.fields["no"].to_pylist(), located, strict=True))
        assert writer.update(places["1"], {"fee": "3"}) == places["1"]
        assert writer.read(places["1"]) == {"no": "1", "holder": "x", "fee": "3", "decided": None}
        writer.insert({"no": "3"})
        assert writer.delete(places["2"]) is True
        assert writer.delete(places["2"]) is False
        assert writer.update(places["2"], {"fee": "3"}) is None
        assert writer.read(places["2"]) is None
        assert writer.update_sql(["fee"]).startswith('UPDATE "fines" SET "fee" = ? WHERE ')
        assert writer.insert_sql(["no"]) == 'INSERT INTO "fines" ("no") VALUES (?)'
        writer.settle()
    assert rows(url) == [("1", "x", "3", None), ("3", None, None, None)]


def test_an_exception_in_the_block_undoes_everything(database: Make, fines: Catalog) -> None:
    url = database(TEXT_TABLE)

    def strike() -> None:
        with open_writer(url, "fines", fines) as writer:
            assert writer.insert({"no": "1"}) is not None
            raise RuntimeError("struck")

    with pytest.raises(RuntimeError, match="struck"):
        strike()
    assert rows(url) == []


def test_a_batch_is_written_beside_and_read_back(database: Make, fines: Catalog) -> None:
    url = database(TEXT_TABLE.replace("decided TEXT", "decided TEXT, b TEXT"))
    with open_writer(url, "fines", fines, batch_column="b") as writer:
        place = writer.insert({"no": "1"}, batch="B1")
        assert place is not None
        writer.update(place, {}, batch="B2")
        ((_, chunk),) = writer.rows(["no"], batch=True)
        assert chunk.extra["batch"].to_pylist() == ["B2"]
        ((_, chunk),) = writer.rows(["no"])
        assert chunk.extra == {}
        with pytest.raises(ValueError, match="nothing"):
            writer.update(place, {})


def test_a_batch_needs_a_column(database: Make, fines: Catalog) -> None:
    with (
        open_writer(database(TEXT_TABLE), "fines", fines) as writer,
        pytest.raises(ValueError, match="no batch column"),
    ):
        writer.insert({"no": "1"}, batch="B1")


@pytest.mark.parametrize(
    ("ddl", "required"),
    [
        ("id INTEGER PRIMARY KEY, no TEXT NOT NULL, holder TEXT NOT NULL DEFAULT 'x', fee TEXT, decided TEXT", ("no",)),
        ("id INT PRIMARY KEY NOT NULL, no TEXT, holder TEXT, fee TEXT, decided TEXT", ("id",)),
        ("no TEXT, holder TEXT, fee TEXT, decided TEXT NOT NULL AS ('x') STORED", ()),
    ],
)
def test_columns_an_insert_must_fill_are_named(
    database: Make, fines: Catalog, ddl: str, required: tuple[str, ...]
) -> None:
    with open_writer(database(f"CREATE TABLE fines ({ddl})"), "fines", fines) as writer:
        assert writer.required() == required


def test_a_key_without_rowids_must_be_filled(database: Make, fines: Catalog) -> None:
    with open_writer(
        database(TEXT_TABLE.replace("no TEXT", "no TEXT PRIMARY KEY") + " WITHOUT ROWID"), "fines", fines
    ) as writer:
        assert writer.required() == ("no",)


def test_two_writers_do_not_meet(database: Make, fines: Catalog) -> None:
    url = database(TEXT_TABLE)
    with open_writer(url, "fines", fines), pytest.raises(SourceError) as caught:  # noqa: SIM117
        with open_writer(url, "fines", fines, lock_seconds=0.01):
            pass
    assert caught.value.code == "source.locked"


def test_a_writer_is_what_its_protocol_says() -> None:
    assert {name for name in vars(Writer) if not name.startswith("_")} <= {*dir(SqliteWriter), "where", "layout"}


def test_row_versions_are_integers_or_moments(database: Make, fines: Catalog) -> None:
    day = 86_400_000_000
    cases: list[tuple[Any, int | None]] = [
        (5, 5), (-(2**63), -(2**63)), (None, None), ("", None), ("1970-01-02T00:00:00Z", day), ("1970-01-02 00:00:00.5", day - 28_800_000_000 + 500_000),
        ("1970-01-02", day - 28_800_000_000),
    ]  # fmt: skip
    url = database(
        TEXT_TABLE.replace("decided TEXT", "decided TEXT, v"),
        rows=[(str(i), "x", "1", None, value) for i, (value, _) in enumerate(cases)],
    )
    with open_table(url, "fines", fines, row_version_column="V") as source:
        (chunk,) = source.scan()
        assert source.ignored == ()
    assert chunk.extra["row_version"].to_pylist() == [version for _, version in cases]
    assert not chunk.refused


@pytest.mark.parametrize("value", [1.5, b"x", "soon", "12"])
def test_what_is_no_row_version_refuses_its_row(database: Make, fines: Catalog, value: object) -> None:
    url = database(TEXT_TABLE.replace("decided TEXT", "decided TEXT, v"), rows=[("1", "x", "1", None, value)])
    with open_table(url, "fines", fines, row_version_column="v") as source:
        (chunk,) = source.scan()
    assert chunk.refused[0].field == "v"


def test_a_row_version_column_that_lacks_is_named(database: Make, fines: Catalog) -> None:
    url = database(TEXT_TABLE)

    def read() -> None:
        with open_table(url, "fines", fines, row_version_column="v"):
            pass

    with pytest.raises(LedgerError) as caught:
        read()
    assert "row_version_column = v" in caught.value.en


def test_a_sqlite_tables_shape(database: Make, tmp_path: Path) -> None:
    database(
        "CREATE TABLE fines (id INTEGER PRIMARY KEY, a VARCHAR(9) NOT NULL, b DECIMAL(10, 2), c DATE, d datetime, e REAL, f BLOB, g, h NUMERIC, i TEXT)"
    )
    assert [(c.name, c.declared, c.type, c.nullable, c.scale, c.in_primary_key) for c in describe_table("sqlite:///city.db", "FINES", tmp_path).columns] == [
        ("id", "INTEGER", "integer", True, None, True), ("a", "VARCHAR(9)", "text", False, None, False), ("b", "DECIMAL(10, 2)", "decimal", True, 2, False),
        ("c", "DATE", "date", True, None, False), ("d", "datetime", "datetime", True, None, False), ("e", "REAL", None, True, None, False),
        ("f", "BLOB", None, True, None, False), ("g", "", "text", True, None, False), ("h", "NUMERIC", None, True, None, False), ("i", "TEXT", "text", True, None, False),
    ]  # fmt: skip


def test_a_postgresql_tables_shape(postgres: Database) -> None:
    postgres.run(
        "CREATE DOMAIN fee AS numeric(12,3) NOT NULL",
        "CREATE TABLE t (a varchar(9), no int, b numeric(10,2) NOT NULL, c date, d timestamptz, e float8, f fee, g numeric, gone int, h numeric(5), PRIMARY KEY (no, a))",
        "ALTER TABLE t DROP COLUMN gone",
    )
    assert describe_table(postgres.url, "t").columns == (
        ColumnShape("a", "character varying(9)", "text", False, None, True), ColumnShape("no", "integer", "integer", False, None, True),
        ColumnShape("b", "numeric(10,2)", "decimal", False, 2, False), ColumnShape("c", "date", "date", True, None, False),
        ColumnShape("d", "timestamp with time zone", "datetime", True, None, False), ColumnShape("e", "double precision", None, True, None, False),
        ColumnShape("f", "fee", "decimal", False, 3, False), ColumnShape("g", "numeric", "decimal", True, None, False),
        ColumnShape("h", "numeric(5,0)", "decimal", True, 0, False),
    )  # fmt: skip
