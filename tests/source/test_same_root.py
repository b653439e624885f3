"""The same rows give the same root whichever database they are read from."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from ledger.batch.build import Builder
from ledger.catalog import Catalog, parse_catalog
from ledger.keys import ExchangeKey
from ledger.source.table import open_table
from tests.databases import Database, Server, fresh, or_skip, shared_mariadb, shared_postgres

CATALOG = """
id = "same"
version = 1
key = ["no"]
subject = { field = "who", visibility = "protected" }
field = [
  { name = "no", type = "code" }, { name = "who", type = "text" }, { name = "state", type = "enum" },
  { name = "fee", type = "decimal", scale = 2 }, { name = "count", type = "integer" }, { name = "day", type = "date" },
  { name = "at", type = "datetime" }, { name = "zoned", type = "datetime" },
]
"""
CELLS = [
    "甲", "📜", "e\u0301", "é", "ａＢ１", " lead", "trail \u3000", "", "NULL", "\\N", "\\.", "a,b", '"', 'a""b', "line\nbreak", "a\r\nb\rc",
    "\t", "\x01", "\x7f", "\u0085x", "\u2028", "\ufeffx", "\u200b", "%s", "?", "'", "0", "007", "-0", "1e5", "true", "x" * 70_000, "𠀀𪚥", "\uffff",
]  # fmt: skip
ROWS: list[Sequence[str | None]] = [
    (f"n-{row}", cell, cell[:20], f"{row}.50", str(row - 3), f"20{10 + row % 80:02d}-02-28", f"2024-01-{1 + row % 28:02d} 08:30:00", f"2024-01-{1 + row % 28:02d} 00:30:00")
    for row, cell in enumerate(CELLS)
] + [("null", None, None, None, None, None, None, None), ("min", "x", "x", "-0.01", "-2147483648", "1970-01-02", "1970-01-02 00:00:00", "1970-01-02 00:00:00")]  # fmt: skip
COLUMNS = {
    "sqlite": "no TEXT, who TEXT, state TEXT, fee TEXT, count INTEGER, day TEXT, at TEXT, zoned TEXT",
    "postgresql": "no varchar(99), who text, state text, fee numeric(20,4), count int, day date, at timestamp, zoned timestamptz",
    "mysql": "no varchar(99), who longtext, state text, fee decimal(20,4), count int, day date, at datetime(6), zoned timestamp(3) NULL",
}


def root(url: str, catalog: Catalog) -> tuple[int, bytes]:
    """Size and root of the table `t`."""
    builder = Builder(catalog, ExchangeKey(bytes(range(32))).for_catalog(catalog), None, None)
    with open_table(url, "t", catalog) as source:
        for chunk in source.scan():
            builder.add(chunk)
    assert not builder.bad
    built = builder.finish()
    return built.size, built.root


def sqlite_root(catalog: Catalog, folder: Path) -> tuple[int, bytes]:
    with closing(sqlite3.connect(folder / "same.db")) as connection:
        connection.execute(f"CREATE TABLE t ({COLUMNS['sqlite']})")
        connection.executemany(
            f"INSERT INTO t VALUES ({', '.join('?' * 8)})",
            [(*row[:7], None if row[7] is None else f"{row[7]}Z") for row in ROWS],
        )
        connection.commit()
    return root(f"sqlite:///{folder}/same.db", catalog)


def start(kind: str) -> Server:
    return or_skip(shared_mariadb) if kind == "mariadb" else or_skip(shared_postgres, kind)


@pytest.mark.parametrize("kind", ["18", "15", "mariadb"])
def test_hostile_rows_have_one_root_in_every_database(kind: str, tmp_path: Path) -> None:
    catalog = parse_catalog(CATALOG.encode(), "same.toml")
    with fresh(start(kind)) as database:
        fill(database)
        assert root(database.url, catalog) == sqlite_root(catalog, tmp_path)


def fill(database: Database) -> None:
    dialect = "mysql" if database.server.kind == "mariadb" else "postgresql"
    with closing(database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'" if dialect == "mysql" else "SET timezone = 'UTC'")
        cursor.execute(f"CREATE TABLE t ({COLUMNS[dialect]})")
        cursor.executemany(f"INSERT INTO t VALUES ({', '.join(['%s'] * 8)})", ROWS)
