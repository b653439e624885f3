"""PostgreSQL tables and views: read in one state, every type by its form or refused by name, bounded in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from ledger.catalog import Catalog, parse_catalog
from ledger.errors import InputError, LedgerError, SourceError
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel
from ledger.source import postgres as module
from ledger.source.table import open_table
from tests.databases import PASSWORD, Database

RowsOf = Callable[[Iterable[Chunk]], list[tuple[str | None, ...]]]
TEXT_TABLE = "CREATE TABLE fines (no text, holder text, fee numeric, decided date)"


def read(url: str, catalog: Catalog, table: str = "fines", **more: Any) -> list[Chunk]:
    with open_table(url, table, catalog, **more) as source:
        return list(source.scan())


def refusal(url: str, catalog: Catalog, table: str = "fines", **more: Any) -> LedgerError:
    with pytest.raises(LedgerError) as caught:
        read(url, catalog, table, **more)
    assert caught.value.zh
    told = f"{caught.value.zh}{caught.value.en}{caught.value.where}"
    assert PASSWORD not in told
    return caught.value


def one(type: str, scale: int | None = None) -> Catalog:
    """A catalog of a key and a field `v`."""
    more = f", scale = {scale}" if scale is not None else ""
    return parse_catalog(
        f'id = "one"\nversion = 1\nkey = ["no"]\nfield = [{{ name = "no", type = "integer" }}, {{ name = "v", type = "{type}"{more} }}]'.encode(),
        "one.toml",
    )


def forms(postgres: Database, declared: str, literal: str, type: str, scale: int | None = None) -> Any:
    """What a value of that column type becomes: its normal form, or the code it is refused with."""
    catalog = one(type, scale)
    postgres.run(
        "DROP TABLE IF EXISTS t", f"CREATE TABLE t (no int, v {declared})", f"INSERT INTO t VALUES (1, {literal})"
    )
    from ledger.keys import ExchangeKey

    (chunk,) = read(postgres.url, catalog, "t")
    result = Kernel(catalog, ExchangeKey(bytes(32)).for_catalog(catalog)).run(chunk)
    return result.refused[0].code if result.refused else result.values["v"][0].as_py()


WRITTEN = [
    ("int2", "-5", "integer", None, "-5"),
    ("int4", "7", "text", None, "7"),
    ("int8", "-9223372036854775808", "integer", None, "-9223372036854775808"),
    ("int8", "12", "decimal", 2, "12.00"),
    ("numeric(10,4)", "12.5000", "decimal", 2, "12.50"),
    ("numeric(10,4)", "12.5000", "code", None, "12.5"),
    ("numeric", "1e30", "integer", None, "1" + "0" * 30),
    ("numeric", "5.000", "integer", None, "5"),
    ("numeric", "0.00", "text", None, "0"),
    ("numeric", "'NaN'", "decimal", 2, "value.number"),
    ("numeric", "'NaN'", "text", None, "value.number"),
    ("text", "' 甲\u3000'", "text", None, "甲"),
    ("text", "''", "text", None, None),
    ("text", "NULL", "text", None, None),
    ("text", "'NULL'", "text", None, "NULL"),
    ("text", r"'\N'", "text", None, r"\N"),
    ("varchar(9)", "'ａb'", "code", None, "AB"),
    ("char(9)", "'x '", "text", None, "x"),
    ("name", "'x'", "text", None, "x"),
    ("date", "'2024-02-29'", "date", None, "2024-02-29"),
    ("date", "'2024-02-29'", "text", None, "2024-02-29"),
    ("date", "'infinity'", "date", None, "value.year"),
    ("date", "'-infinity'", "text", None, "value.year"),
    ("date", "'0044-03-15 BC'", "text", None, "value.year"),
    ("date", "'10000-01-01'", "enum", None, "value.year"),
    ("date", "'0001-01-01'", "date", None, "0001-01-01"),
    ("timestamp", "'2024-02-29 08:30:00.25'", "datetime", None, "2024-02-29T00:30:00.25Z"),
    ("timestamp", "'2024-02-29'", "date", None, "2024-02-29"),
    ("timestamp", "'2024-02-29 08:30'", "date", None, "date.form"),
    ("timestamp", "'infinity'", "datetime", None, "value.year"),
    ("timestamp", "'12024-02-29 08:30'", "datetime", None, "value.year"),
    ("timestamptz", "'2024-02-29 08:30:00.123456+08'", "datetime", None, "2024-02-29T00:30:00.123456Z"),
    ("timestamptz", "'0044-03-15 08:30 BC'", "datetime", None, "value.year"),
    ("timestamptz", "'-infinity'", "datetime", None, "value.year"),
]  # fmt: skip


def test_each_type_is_written_as_the_format_has_it(postgres: Database) -> None:
    # Whatever the session would say by default.
    postgres.run(
        f"ALTER DATABASE {postgres.name} SET datestyle = 'German, DMY'",
        f"ALTER DATABASE {postgres.name} SET timezone = 'Asia/Kathmandu'",
    )
    for declared, literal, type, scale, form in WRITTEN:
        assert forms(postgres, declared, literal, type, scale) == form, (declared, literal, type)


def test_domains_and_enums_and_citext_are_what_they_are_made_of(postgres: Database) -> None:
    postgres.run(
        "CREATE EXTENSION citext", "CREATE TYPE state AS ENUM ('有效', 'x')", "CREATE DOMAIN money_ AS numeric(9,2)",
        "CREATE DOMAIN fee AS money_ CHECK (VALUE > 0)",
    )  # fmt: skip
    assert forms(postgres, "fee", "2.50", "decimal", 1) == "2.5"
    assert forms(postgres, "state", "'有效'", "enum") == "有效"
    assert forms(postgres, "citext", "'aB'", "text") == "aB"


FORMLESS = [
    ("boolean", "text"), ("real", "decimal"), ("double precision", "integer"), ("json", "text"), ("jsonb", "text"),
    ("integer[]", "text"), ("text[]", "text"), ("bytea", "text"), ("uuid", "text"), ("uuid", "code"), ("time without time zone", "text"),
    ("interval", "text"), ("money", "decimal"), ("bit(3)", "text"), ("inet", "text"), ("xml", "text"), ("int4range", "text"),
    ("pair", "text"), ('"char"', "text"), ("oid", "integer"), ("tsvector", "text"), ("point", "text"),
    ("integer", "date"), ("numeric", "datetime"), ("date", "code"), ("date", "datetime"), ("date", "integer"),
    ("timestamp without time zone", "text"), ("timestamp with time zone", "date"), ("timestamp with time zone", "code"),
    ("yes", "text"),
    ("odd.text", "text"),
]  # fmt: skip


def test_a_type_without_a_form_is_refused_by_name(postgres18: Database) -> None:
    postgres18.run(
        "CREATE TYPE pair AS (a int, b int)",
        "CREATE DOMAIN yes AS boolean",
        "CREATE SCHEMA odd",
        "CREATE TYPE odd.text AS (a int)",
    )
    for declared, type in FORMLESS:
        postgres18.run("DROP TABLE IF EXISTS t", f"CREATE TABLE t (no int, v {declared})")
        error = refusal(postgres18.url, one(type, 2 if type == "decimal" else None), "t")
        assert error.code == "source.column_type", (declared, type)
        for part in ("column v", declared, f"field v ({type})", "CAST(v AS "):
            assert part in error.en, (declared, type)
        assert declared in error.zh


HOSTILE = [
    "a,b", '"', '""', 'a"b', "\n", "\r", "\r\n", "a\r\nb\rc\nd", " lead", "trail ", "\\.", "\\N", "\\", "a\\nb", "NULL", "null",
    "\ufeff", "\ufeffx", "\u200b", "甲乙", "📜", "e\u0301", "\u2028", "\x01\x1f", "'; DROP TABLE t; --", "{}", "#N/A", "nan", "\t", "\x7f",
    "x" * 1_000_000, "," * 1000, '"' * 999, "\uffff", "%s", "%(a)s", ":a", "?", "\u0085", "1e5", "-0", "true",
]  # fmt: skip


def test_hostile_cells_come_through_as_they_are(postgres: Database) -> None:
    catalog = one("text")
    postgres.run("CREATE TABLE t (v text, no int)")
    postgres.fill("t", [(cell, row) for row, cell in enumerate(HOSTILE)])
    chunks = read(postgres.url, catalog, "t")
    seen = {
        int(no): cell
        for chunk in chunks
        for no, cell in zip(*(chunk.fields[n].to_pylist() for n in ("no", "v")), strict=True)
    }
    assert seen == dict(enumerate(HOSTILE))
    assert not any(chunk.refused for chunk in chunks)


@pytest.mark.parametrize("cell", ["\ufeffx", "", "\n", "\\.", '"'])
def test_a_table_of_one_column_keeps_every_row(
    postgres18: Database, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CHUNK_ROWS", 2)
    catalog = parse_catalog(b'id = "a"\nversion = 1\nkey = ["v"]\nfield = [{ name = "v", type = "text" }]', "a")
    postgres18.run("CREATE TABLE t (v text)")
    postgres18.fill("t", [(cell,), ("b",), (cell,), (None,), (cell,)])
    assert [cell for chunk in read(postgres18.url, catalog, "t") for cell in chunk.fields["v"].to_pylist()] == [
        cell, "b", cell, "", cell,
    ]  # fmt: skip


def test_two_hundred_columns_are_read(postgres18: Database) -> None:
    names = [f"c{place}" for place in range(200)]
    fields = ", ".join(f'{{ name = "{name}", type = "text" }}' for name in names)
    catalog = parse_catalog(f'id = "w"\nversion = 1\nkey = ["c0"]\nfield = [{fields}]'.encode(), "w")
    postgres18.run(f"CREATE TABLE t ({', '.join(f'{name} text' for name in reversed(names))})")
    postgres18.fill("t", [[f"{name}甲" for name in reversed(names)]] * 3)
    (chunk,) = read(postgres18.url, catalog, "t")
    assert all(chunk.fields[name].to_pylist() == [f"{name}甲"] * 3 for name in names)


def test_an_empty_table_has_no_chunks(postgres: Database, fines: Catalog) -> None:
    postgres.run(TEXT_TABLE)
    assert read(postgres.url, fines) == []


def test_batch_and_row_version_come_beside_the_fields(postgres: Database, fines: Catalog) -> None:
    postgres.run(
        "CREATE TABLE fines (no text, holder text, fee numeric, decided date, b text, v int8, t timestamptz, l timestamp, d date)"
    )
    postgres.run(
        "INSERT INTO fines (no, b, v, t, l, d) VALUES ('1', ' b-1', 9223372036854775807, '1970-01-01 00:00:01.5Z', '1970-01-01 08:00:02', '1970-01-02'),"
        " ('2', NULL, NULL, NULL, NULL, NULL), ('3', '', 3, 'infinity', '10000-01-01', '0001-01-01 BC')"
    )
    (chunk,) = read(postgres.url, fines, batch_column="b", row_version_column="v")
    assert chunk.extra["batch"].to_pylist() == ["B-1", None, None]
    assert chunk.extra["row_version"].to_pylist() == [9223372036854775807, None, 3]
    for column, versions in (
        ("t", [1_500_000, None, None]),
        ("l", [2_000_000, None, None]),
        ("d", [57_600_000_000, None, None]),
    ):
        (chunk,) = read(postgres.url, fines, row_version_column=column)
        assert chunk.extra["row_version"].to_pylist() == versions
        assert {row: (why.field, why.code) for row, why in chunk.refused.items()} == {2: (column, "value.year")}
    error = refusal(postgres.url, fines, row_version_column="b")
    assert (error.code, "column b of type text" in error.en) == ("source.column_type", True)
    error = refusal(postgres.url, fines, batch_column="d")
    assert (error.code, "batch number" in error.en) == ("source.column_type", True)


@pytest.mark.parametrize("kind", ["VIEW", "MATERIALIZED VIEW"])
def test_views_are_read_like_tables(postgres: Database, fines: Catalog, rows_of: RowsOf, kind: str) -> None:
    postgres.run(
        TEXT_TABLE,
        "INSERT INTO fines VALUES ('1', 'a', 2.50, '2024-01-01')",
        f"CREATE {kind} v AS SELECT *, 1 AS one FROM fines",
    )
    with open_table(postgres.url, "v", fines) as source:
        assert rows_of(source.scan()) == [("1", "a", "2.5", "2024-01-01")]
        assert source.ignored == ("one",)
        assert source.notes == ()


def test_partitioned_and_inherited_tables_are_read_whole(postgres: Database, fines: Catalog, rows_of: RowsOf) -> None:
    postgres.run(
        "CREATE TABLE fines (no text, holder text, fee numeric, decided date) PARTITION BY LIST (no)",
        "CREATE TABLE f1 PARTITION OF fines FOR VALUES IN ('1')", "CREATE TABLE f2 PARTITION OF fines DEFAULT",
        "CREATE TABLE p (no text, holder text, fee numeric, decided date)", "CREATE TABLE c () INHERITS (p)",
    )  # fmt: skip
    for table in ("fines", "c", "p"):
        postgres.fill(table, [("1", "a", 1, None), ("2", "b", 2, None)])
    assert sorted(str(row) for row in rows_of(read(postgres.url, fines))) == [
        "('1', 'a', '1', '')",
        "('2', 'b', '2', '')",
    ]
    assert len(rows_of(read(postgres.url, fines, "p"))) == 4


def test_a_foreign_table_is_read_with_a_note(postgres18: Database, fines: Catalog, rows_of: RowsOf) -> None:
    postgres18.run(
        "CREATE EXTENSION file_fdw", "CREATE SERVER s FOREIGN DATA WRAPPER file_fdw",
        "CREATE FOREIGN TABLE fines (no text, holder text, fee numeric, decided date) SERVER s "
        "OPTIONS (program 'echo 1,a,2.5,2024-01-01', format 'csv')",
    )  # fmt: skip
    with open_table(postgres18.url, "fines", fines) as source:
        assert rows_of(source.scan()) == [("1", "a", "2.5", "2024-01-01")]
        assert "foreign" in source.notes[0][1]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("fines", "lower"), ("Fines", "mixed"), ("s.t", "s.t"), ("S.T", "s.t"), ("罚款 T", "cn"), ("罚款 t", "cn"), ('a"b', "quote"),
        ('"a""b"', "quote"), ('"s"."t"', "s.t"), ("x.y", "dotted"), ('"Q s"."T.1"', "qs"), ("Q s.T.1", "qs"), ("public.fines", "lower"),
        ("ONLY", "only"),
    ],
)  # fmt: skip
def test_names_mean_what_is_spelled_and_then_any_case(
    postgres18: Database, asked: str, found: str, fines: Catalog, rows_of: RowsOf
) -> None:
    postgres18.run("CREATE SCHEMA s", 'CREATE SCHEMA "Q s"')
    tables = {
        "fines": "lower", '"Fines"': "mixed", "s.t": "s.t", '"罚款 T"': "cn", '"a""b"': "quote", '"x.y"': "dotted",
        '"Q s"."T.1"': "qs", '"only"': "only",
    }  # fmt: skip
    for table, mark in tables.items():
        postgres18.run(f'CREATE TABLE {table} ("NO" text, "Holder" text, "罚 款""" numeric, decided date)')
        postgres18.fill(table, [("1", mark, 1, None)])
    columns = {"fee": '罚 款"'}
    assert rows_of(read(postgres18.url, fines, asked, columns=columns))[0][1] == found


@pytest.mark.parametrize(
    ("more", "code", "named"),
    [
        ({"table": "FINES"}, "source.table_missing", "Fines, fines"),
        ({"table": "s.none"}, "source.table_missing", "s.t"),
        ({"table": "t"}, "source.table_missing", "s.t"),
        ({"columns": {"fee": "amount"}}, "source.column_missing", "fee = amount"),
        ({"columns": {"fee": "no"}}, "source.column_shared", "fields no and fee"),
        ({"batch_column": "batch"}, "source.column_missing", "batch_column = batch"),
        ({"row_version_column": "xmin"}, "source.column_missing", "row_version_column = xmin"),
    ],
)
def test_what_is_missing_is_named_with_what_is_there(
    postgres18: Database, fines: Catalog, more: dict[str, Any], code: str, named: str
) -> None:
    postgres18.run(TEXT_TABLE, 'CREATE TABLE "Fines" (a int)', "CREATE SCHEMA s", "CREATE TABLE s.t (a int)")
    error = refusal(postgres18.url, fines, **more)
    assert (error.code, named in error.en) == (code, True), error.en


def test_all_scans_of_one_read_see_one_state(postgres: Database, fines: Catalog, rows_of: RowsOf) -> None:
    postgres.run(TEXT_TABLE, "INSERT INTO fines VALUES ('1', 'a', 2, NULL)")
    with open_table(postgres.url, "fines", fines) as source:
        # Before the first scan, too: the read begins when the source is opened.
        postgres.run("INSERT INTO fines VALUES ('2', 'b', 3, NULL)")
        first = rows_of(source.scan())
        postgres.run("DELETE FROM fines")
        assert rows_of(source.scan()) == first == [("1", "a", "2", "")]
    assert rows_of(read(postgres.url, fines)) == []


def test_a_scan_given_up_in_the_middle_leaves_the_next_one_whole(
    postgres: Database, fines: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CHUNK_ROWS", 50)
    postgres.run(
        TEXT_TABLE, "INSERT INTO fines SELECT i::text, repeat('x', 1000), 1, NULL FROM generate_series(1, 20000) i"
    )
    with open_table(postgres.url, "fines", fines) as source:
        scan = source.scan()
        assert len(next(iter(scan))) == 50
        with pytest.raises(RuntimeError, match="before it had ended"):
            next(iter(source.scan()))
        assert isinstance(scan, Iterator)
        scan.close()  # type: ignore[attr-defined]
        assert sum(len(chunk) for chunk in source.scan()) == 20000


def test_nothing_can_be_written_or_dropped_while_it_is_read(postgres: Database, fines: Catalog) -> None:
    postgres.run(TEXT_TABLE, "INSERT INTO fines VALUES ('1', 'a', 2, NULL)")
    with open_table(postgres.url, "fines", fines) as source:
        with closing(postgres.connect()) as other:
            other.execute("SET lock_timeout = 50")
            for statement in ("DROP TABLE fines", "TRUNCATE fines", "ALTER TABLE fines ADD x int"):
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    other.execute(statement)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            source.connection.execute("DELETE FROM fines")  # type: ignore[attr-defined]


@pytest.mark.parametrize("table", ["fines", "v", "p"])
def test_a_truncate_that_commits_while_the_source_opens_never_shows_an_empty_table(
    postgres: Database, fines: Catalog, rows_of: RowsOf, table: str
) -> None:
    postgres.run(
        TEXT_TABLE, "INSERT INTO fines VALUES ('1', 'old', 2, NULL)", "CREATE VIEW v AS SELECT * FROM fines",
        "CREATE TABLE p (no text, holder text, fee numeric, decided date) PARTITION BY LIST (no)", "CREATE TABLE p1 PARTITION OF p DEFAULT",
        "INSERT INTO p SELECT * FROM fines",
    )  # fmt: skip
    inner = {"fines": "fines", "v": "fines", "p": "p1"}[table]
    with closing(postgres.connect(autocommit=False)) as other:
        other.execute(f"TRUNCATE {inner}")
        other.execute(f"INSERT INTO {inner} VALUES ('1', 'new', 2, NULL)")
        found: list[Any] = []
        reader = threading.Thread(target=lambda: found.extend(rows_of(read(postgres.url, fines, table))))
        reader.start()
        wait_for(postgres, "SELECT count(*) FROM pg_locks WHERE NOT granted")
        other.commit()
        reader.join()
    assert found == [("1", "new", "2", "")]


def wait_for(database: Database, query: str) -> None:
    deadline = time.monotonic() + 10
    while not database.run(query)[0][0]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_chunks_are_bounded_in_bytes_and_rows(
    postgres18: Database, fines: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 20_000)
    postgres18.run(
        TEXT_TABLE, "INSERT INTO fines SELECT i::text, repeat('x', 100), 2, NULL FROM generate_series(1, 2000) i"
    )
    chunks = read(postgres18.url, fines)
    assert max(len(chunk) for chunk in chunks) < 200
    assert [line for chunk in chunks for line in chunk.numbers.tolist()] == list(range(1, 2001))
    assert sorted(int(no) for chunk in chunks for no in chunk.fields["no"].to_pylist()) == list(range(1, 2001))


def test_bytes_that_are_not_text_refuse_the_row(postgres: Database, fines: Catalog) -> None:
    name = f"{postgres.name}_ascii"
    postgres.server.run(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    try:
        other = Database(postgres.server, name)
        other.run(
            TEXT_TABLE,
            "SET client_encoding = 'SQL_ASCII'",
            "INSERT INTO fines VALUES ('1', E'\\xd5\\xe3', 2, NULL), ('2', E'\\xe7\\x94\\xb2', 3, NULL)",
        )
        (chunk,) = read(other.url, fines)
        assert {row: (why.field, why.code) for row, why in chunk.refused.items()} == {0: ("holder", "row.encoding")}
        assert chunk.fields["holder"].to_pylist() == [None, "甲"]
    finally:
        postgres.server.run(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_in_another_encoding_is_read_as_unicode(postgres: Database, fines: Catalog, rows_of: RowsOf) -> None:
    name = f"{postgres.name}_euc"
    postgres.server.run(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'EUC_CN' LOCALE 'C'")
    try:
        other = Database(postgres.server, name)
        other.run(TEXT_TABLE, "INSERT INTO fines VALUES ('1', '广州', 2, NULL)")
        assert rows_of(read(other.url, fines)) == [("1", "广州", "2", "")]
    finally:
        postgres.server.run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg2", "postgresql+asyncpg", "postgres"])
def test_any_spelling_of_the_driver_is_psycopg_3(postgres18: Database, fines: Catalog, driver: str) -> None:
    postgres18.run(TEXT_TABLE)
    assert read(postgres18.server.url(postgres18.name, driver=driver), fines) == []


def test_a_url_that_is_none_is_refused_without_its_secrets(fines: Catalog) -> None:
    for url in ("postgresql://u:se:cret@h:p/d", "secret", "postgresql://u:secret@h/d?nonsense=secret"):
        error = refusal(url, fines)
        assert isinstance(error, InputError)
        assert error.code == "source.url"
        assert "cret" not in f"{error.zh}{error.en}{error.where}"
        assert error.__cause__ is None


def test_the_source_error_says_where(postgres18: Database, fines: Catalog) -> None:
    error = refusal(postgres18.url, fines)
    assert isinstance(error, SourceError)
    for part in (postgres18.name, "127.0.0.1", str(postgres18.server.port), "fines"):
        assert part in error.where
