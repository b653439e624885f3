"""MariaDB tables as sources, on a real server."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pymysql
import pytest

from ledger.catalog import Catalog, parse_catalog
from ledger.errors import SourceError
from ledger.kernel.entries import Kernel
from ledger.keys import parse_key
from ledger.source import mariadb as mariadb_module
from ledger.source.table import describe_table, open_table
from tests.databases import PASSWORD, Database

CATALOG = """
id = "t"
version = 1
key = ["no"]
[[field]]
name = "no"
type = "code"
[[field]]
name = "name"
type = "text"
[[field]]
name = "fee"
type = "decimal"
scale = 2
[[field]]
name = "pages"
type = "integer"
[[field]]
name = "decided_on"
type = "date"
[[field]]
name = "received_at"
type = "datetime"
"""
COLUMNS = "no varchar(20), name longtext, fee decimal(12,4), pages int, decided_on date, received_at datetime(6)"


def catalog() -> Catalog:
    return parse_catalog(CATALOG.encode(), "test")


def read(database: Database, table: str = "t", **more: Any) -> tuple[dict[str, list[Any]], dict[int, str]]:
    """All values by field, and the rules by which rows were refused."""
    values: dict[str, list[Any]] = {name: [] for name in catalog().by_name}
    refused: dict[int, str] = {}
    with open_table(database.url, table, catalog(), **more) as source:
        for chunk in source.scan():
            for name, column in chunk.fields.items():
                values[name] += column.to_pylist()
            refused |= {int(chunk.numbers[row]): why.code for row, why in chunk.refused.items()}
    return values, refused


@pytest.fixture
def table(mariadb: Database) -> Database:
    mariadb.run(f"CREATE TABLE t ({COLUMNS}) ENGINE=InnoDB")
    return mariadb


def test_values_are_written_as_f2_says(table: Database) -> None:
    table.run(
        "INSERT INTO t VALUES ('0012', '  甲“公司”\n𠮷', 12.5000, 7, '2022-03-04', '2022-03-04 05:06:07.500000'),"
        " ('b', '', -0.0000, 0, NULL, NULL), (NULL, NULL, NULL, NULL, '0001-01-01', '9999-12-31 23:59:59')"
    )
    values, refused = read(table)
    assert refused == {}
    assert values["no"] == ["0012", "b", None]
    assert values["name"] == ["  甲“公司”\n𠮷", "", None]
    assert values["fee"] == ["12.5", "0", None]
    assert values["pages"] == ["7", "0", None]
    assert values["decided_on"] == ["2022-03-04", None, "0001-01-01"]
    assert values["received_at"] == ["2022-03-04 05:06:07.500000", None, "9999-12-31 23:59:59.000000"]


def test_the_same_rows_give_the_same_entries_as_sqlite(table: Database, tmp_path: Any) -> None:
    import sqlite3

    rows = [
        ("a'b", "甲\t乙", "12.50", "3", "2022-03-04", "2022-03-04 05:06:07"),
        ("Ｃ1", "x" * 70_000, "0.10", "-7", "1999-12-31", "2022-03-04 23:59:59.25"),
        ("0007", "=1+1", None, None, None, None),
    ]
    table.fill("t", rows)
    path = tmp_path / "t.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE t (no TEXT, name TEXT, fee TEXT, pages TEXT, decided_on TEXT, received_at TEXT)"
        )
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    keys = parse_key(b"11" * 32 + b"\n", "key").for_catalog(catalog())
    found = []
    for url in (table.url, f"sqlite:///{path}"):
        with open_table(url, "t", catalog()) as source:
            entries = [Kernel(catalog(), keys).run(chunk).entries for chunk in source.scan()]
        found.append(sorted(entry.tobytes() for chunk in entries for entry in chunk))
    assert len(found[0]) == 3
    assert found[0] == found[1]


def test_zero_dates_are_refused_with_their_row(table: Database) -> None:
    table.run(
        "SET SESSION sql_mode = ''",
        "INSERT INTO t VALUES ('a', 'x', 1, 1, '0000-00-00', NULL), ('b', 'x', 1, 1, '2022-00-10', NULL),"
        " ('c', 'x', 1, 1, NULL, '0000-00-00 00:00:00'), ('d', 'x', 1, 1, '2022-01-01', NULL)",
    )
    values, refused = read(table)
    assert refused == {1: "value.date", 2: "value.date", 3: "value.date"}
    assert values["decided_on"][3] == "2022-01-01"


def test_a_timestamp_is_an_instant_whatever_the_sessions_zone(mariadb: Database) -> None:
    mariadb.run(
        "SET SESSION time_zone = '+08:00'",
        "CREATE TABLE t (no varchar(9), name text, fee decimal(5,2), pages tinyint(1), decided_on date, received_at timestamp)",
        "INSERT INTO t VALUES ('a', 'x', 1, 1, NULL, '2022-03-04 08:00:00')",
    )
    values, refused = read(mariadb)
    assert (values["received_at"], values["pages"], refused) == (["2022-03-04 00:00:00Z"], ["1"], {})


def test_padding_is_no_part_of_a_number(mariadb: Database) -> None:
    mariadb.run(
        "CREATE TABLE t (no int(8) zerofill, name decimal(8,3) zerofill, fee decimal(8,3) zerofill, pages int(5) zerofill, "
        "decided_on date, received_at datetime)",
        "INSERT INTO t VALUES (12, 7.5, 7.5, 0, NULL, NULL)",
    )
    values, _ = read(mariadb)
    assert [values[name] for name in ("no", "name", "fee", "pages")] == [["12"], ["7.5"], ["7.5"], ["0"]]


@pytest.mark.parametrize(
    ("field", "declared"),
    [
        ("name", "blob"), ("fee", "double"), ("fee", "float"), ("pages", "bit(8)"), ("name", "varbinary(9)"),
        ("received_at", "time"), ("pages", "year"), ("name", "point"), ("name", "datetime"), ("decided_on", "timestamp"),
        ("name", "uuid"), ("name", "inet6"), ("received_at", "date"), ("decided_on", "int"),
    ],
)  # fmt: skip
def test_types_without_a_form_are_refused_by_name(mariadb: Database, field: str, declared: str) -> None:
    columns = [
        f"{part.split()[0]} {declared if part.split()[0] == field else part.split()[1]}" for part in COLUMNS.split(", ")
    ]
    mariadb.run(f"CREATE TABLE t ({', '.join(columns)})")
    with pytest.raises(SourceError) as refused:
        read(mariadb)
    assert refused.value.code == "source.column_type"
    assert f"column {field} of type {declared}" in refused.value.en
    assert "CAST" in refused.value.en


def test_names_in_any_case_in_chinese_and_of_another_database(mariadb: Database) -> None:
    mariadb.run(
        "CREATE TABLE `企业 表` (`编号` varchar(9), NAME text, fee decimal(5,2), pages int, decided_on date, received_at datetime)",
        "INSERT INTO `企业 表` VALUES ('a', 'x', 1, 1, NULL, NULL)",
    )
    values, _ = read(mariadb, "企业 表", columns={"no": "编号"})
    assert values["no"] == ["a"]
    values, _ = read(mariadb, f"{mariadb.name}.企业 表", columns={"no": "编号"})
    assert values["name"] == ["x"]
    with pytest.raises(SourceError) as missing:
        read(mariadb, "nothing")
    assert missing.value.code == "source.table_missing"
    assert "企业 表" in missing.value.en
    with pytest.raises(SourceError) as column:
        read(mariadb, "企业 表")
    assert column.value.code == "source.column_missing"


def test_an_engine_without_transactions_is_refused(mariadb: Database) -> None:
    mariadb.run(f"CREATE TABLE t ({COLUMNS}) ENGINE=MyISAM")
    with pytest.raises(SourceError) as refused:
        read(mariadb)
    assert refused.value.code == "source.not_transactional"
    assert "InnoDB" in refused.value.en


def test_a_view_is_read_with_a_remark(table: Database) -> None:
    table.run("INSERT INTO t VALUES ('a', 'x', 1, 1, NULL, NULL)", "CREATE VIEW v AS SELECT * FROM t")
    with open_table(table.url, "v", catalog()) as source:
        assert [chunk.fields["no"].to_pylist() for chunk in source.scan()] == [["a"]]
        assert len(source.notes) == 1


def test_one_state_is_read_and_the_table_cannot_be_dropped_meanwhile(table: Database) -> None:
    table.run("INSERT INTO t VALUES ('a', 'x', 1, 1, NULL, NULL)")
    with open_table(table.url, "t", catalog()) as source:
        table.run("INSERT INTO t VALUES ('b', 'x', 1, 1, NULL, NULL)")
        for _ in range(2):
            assert [chunk.fields["no"].to_pylist() for chunk in source.scan()] == [["a"]]
        with pytest.raises(Exception, match="Lock wait timeout"):
            table.run("SET SESSION lock_wait_timeout = 1", "DROP TABLE t")


@pytest.mark.parametrize("setting", ["sql_select_limit = 1", "system_versioning_asof = '2020-01-01 00:00:00'"])
def test_what_an_administrator_hides_from_sessions_is_read_all_the_same(mariadb: Database, setting: str) -> None:
    mariadb.run(f"CREATE TABLE t ({COLUMNS}) WITH SYSTEM VERSIONING")
    mariadb.run("INSERT INTO t VALUES ('a', 'x', 1, 1, NULL, NULL), ('b', 'x', 1, 1, NULL, NULL)")
    mariadb.run(f"SET GLOBAL {setting}")
    try:
        assert len(mariadb.run("SELECT * FROM t")) < 2, "the setting does hide rows"
        assert read(mariadb)[0]["no"] == ["a", "b"]
    finally:
        mariadb.run(f"SET GLOBAL {setting.split(maxsplit=1)[0]} = DEFAULT")


def test_a_session_that_would_show_another_time_is_refused(table: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = mariadb_module._rows

    def rows(connection: Any, sql: str, values: tuple[str, ...] = ()) -> Any:
        found = honest(connection, sql, values)
        return [("system_versioning_asof", "2020-01-01")] if "versioning" in sql else found

    monkeypatch.setattr(mariadb_module, "_rows", rows)
    with pytest.raises(SourceError) as refused:
        read(table)
    assert refused.value.code == "source.session"


def test_a_server_that_accepts_and_says_nothing_is_given_up(mariadb: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.source.mariadb.CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"mysql+pymysql://root@127.0.0.1:{silent.getsockname()[1]}/city"
        started = time.monotonic()
        with pytest.raises(SourceError) as lost, open_table(url, "t", catalog()):
            pass
        assert lost.value.code in ("source.lost", "source.connect")
        assert time.monotonic() - started < 20


def test_versions_and_batches(mariadb: Database) -> None:
    mariadb.run(
        f"CREATE TABLE t ({COLUMNS}, batch varchar(9), v bigint, at timestamp(6) NULL)",
        "SET SESSION time_zone = '+00:00'",
        "INSERT INTO t VALUES ('a','x',1,1,NULL,NULL,' b1 ',5,'1970-01-01 00:00:01.5'),('b','x',1,1,NULL,NULL,NULL,NULL,NULL)",
    )
    for column, expected in (("v", [5, None]), ("at", [1_500_000, None])):
        with open_table(mariadb.url, "t", catalog(), batch_column="batch", row_version_column=column) as source:
            (chunk,) = source.scan()
            assert chunk.extra["row_version"].to_pylist() == expected
            assert chunk.extra["batch"].to_pylist() == ["B1", None]
    with pytest.raises(SourceError) as refused, open_table(mariadb.url, "t", catalog(), row_version_column="name"):
        pass
    assert refused.value.code == "source.column_type"


def test_a_large_table_comes_in_chunks_of_bounded_size(mariadb: Database) -> None:
    mariadb.run(f"CREATE TABLE t ({COLUMNS})")
    mariadb.run("INSERT INTO t SELECT seq, REPEAT('字', 300), 1, 1, NULL, NULL FROM seq_1_to_40000")
    mariadb.run("INSERT INTO t VALUES ('big', REPEAT('x', 1048576), 1, 1, NULL, NULL)")
    with open_table(mariadb.url, "t", catalog()) as source:
        sizes = [len(chunk) for chunk in source.scan()]
    assert sum(sizes) == 40_001
    assert max(sizes) <= 16_384
    assert len(sizes) > 3


def test_who_may_not_read_is_told_which_grant(table: Database) -> None:
    table.run(f"CREATE OR REPLACE USER reader@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
    url = table.url_as("reader")
    with pytest.raises(SourceError) as refused, open_table(url, "t", catalog()):
        pass
    assert refused.value.code == "source.permission"
    table.run(f"CREATE TABLE {table.name}.other (x int)", f"GRANT SELECT ON {table.name}.other TO reader@'127.0.0.1'")
    with pytest.raises(SourceError) as hidden, open_table(url, "t", catalog()):
        pass
    assert hidden.value.code == "source.table_missing"
    assert "GRANT SELECT" in hidden.value.en
    table.run(f"GRANT SELECT ON {table.name}.t TO reader@'127.0.0.1'")
    with open_table(url, "t", catalog()) as source:
        assert list(source.scan()) == []


@pytest.mark.parametrize("what", ["password", "port", "database"])
def test_who_cannot_connect_is_told_where_and_never_the_password(mariadb: Database, what: str) -> None:
    url = {
        "password": mariadb.url_as("root", "wrong-secret"),
        "port": mariadb.url.replace(f":{mariadb.server.port}/", ":1/"),
        "database": mariadb.url + "_gone",
    }[what]
    with pytest.raises(SourceError) as refused, open_table(url, "t", catalog()):
        pass
    code = {"password": "password", "port": "connect", "database": "database_missing"}[what]
    assert refused.value.code == f"source.{code}"
    told = refused.value.zh + refused.value.en + refused.value.where
    assert PASSWORD not in told
    assert "wrong-secret" not in told
    assert "127.0.0.1" in told


def test_a_connection_that_is_killed_mid_scan_is_an_error(mariadb: Database) -> None:
    mariadb.run(f"CREATE TABLE t ({COLUMNS})")
    mariadb.run("INSERT INTO t SELECT seq, REPEAT('字', 900), 1, 1, NULL, NULL FROM seq_1_to_30000")

    def scan() -> None:
        with open_table(mariadb.url, "t", catalog()) as source:
            rows = 0
            for chunk in source.scan():
                rows += len(chunk)
                if rows == len(chunk):
                    mine = mariadb.run(
                        "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
                    )
                    for (number,) in mine:
                        mariadb.run(f"KILL CONNECTION {number}")

    with pytest.raises(SourceError) as lost:
        scan()
    assert lost.value.code == "source.lost"


def test_a_locked_table_is_waited_for_and_then_named(table: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.source.mariadb.LOCK_SECONDS", 1)
    holder = table.connect()
    holder.cursor().execute("LOCK TABLES t WRITE")
    released = threading.Timer(20, holder.close)
    released.start()
    started = time.monotonic()
    with pytest.raises(SourceError) as locked:
        read(table)
    assert locked.value.code == "source.locked"
    assert time.monotonic() - started < 15
    released.cancel()
    holder.close()


def test_the_shape_for_a_catalog_is_told(mariadb: Database) -> None:
    mariadb.run(f"CREATE TABLE t ({COLUMNS}, raw blob, PRIMARY KEY (no))")
    shape = {column.name: column for column in describe_table(mariadb.url, "t").columns}
    assert (shape["no"].type, shape["no"].in_primary_key, shape["no"].nullable) == ("text", True, False)
    assert (shape["fee"].type, shape["fee"].scale) == ("decimal", 4)
    assert (shape["raw"].type, shape["received_at"].type) == (None, "datetime")


def test_a_password_may_be_chinese(mariadb: Database) -> None:
    user = f"u{mariadb.name}"
    mariadb.run(
        "CREATE TABLE t (no int)",
        f"CREATE USER {user} IDENTIFIED BY '密:码@'",
        f"GRANT SELECT ON {mariadb.name}.* TO {user}",
    )
    try:
        assert [column.name for column in describe_table(mariadb.url_as(user, "密:码@"), "t").columns] == ["no"]
    finally:
        mariadb.run(f"DROP USER {user}")


def test_a_table_emptied_while_it_is_opened_is_never_taken_for_empty(
    mariadb: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = parse_catalog(b'id = "a"\nversion = 1\nkey = ["no"]\nfield = [{ name = "no", type = "code" }]', "a")
    mariadb.run("CREATE TABLE t (no int)", "INSERT INTO t VALUES (1)")
    real = pymysql.cursors.Cursor.execute

    def late(cursor: Any, query: str, args: Any = None) -> Any:
        # Between the snapshot and the lock that keeps the table.
        if query.startswith("SELECT 1 FROM"):
            monkeypatch.setattr(pymysql.cursors.Cursor, "execute", real)
            mariadb.run("TRUNCATE t", "INSERT INTO t VALUES (2)")
        return real(cursor, query, args)

    monkeypatch.setattr(pymysql.cursors.Cursor, "execute", late)
    with pytest.raises(SourceError) as caught, open_table(mariadb.url, "t", catalog) as source:
        list(source.scan())
    assert caught.value.code == "source.changed"
