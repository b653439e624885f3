"""SQLite tables and views: read by storage class, in one state, and nothing is created or written."""

from __future__ import annotations

import csv
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.catalog import Catalog, parse_catalog
from ledger.errors import InputError, LedgerError, NotBuiltError, SourceError
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel
from ledger.source import sqlite
from ledger.source.csvfile import open_csv
from ledger.source.sqlite import open_source

Database = Callable[..., str]
RowsOf = Callable[[Iterable[Chunk]], list[tuple[str | None, ...]]]
pytestmark = pytest.mark.usefixtures("readers")
TEXT_TABLE = "CREATE TABLE fines (no TEXT, holder TEXT, fee TEXT, decided TEXT)"
NO_TYPES = "CREATE TABLE fines (no, holder, fee, decided)"


def read(url: str, catalog: Catalog, table: str = "fines", **more: Any) -> list[Chunk]:
    with open_source(url, table, catalog, **more) as source:
        return list(source.scan())


def refusal(url: str, catalog: Catalog, table: str = "fines", **more: Any) -> LedgerError:
    with pytest.raises(LedgerError) as caught:
        read(url, catalog, table, **more)
    assert caught.value.zh
    return caught.value


def test_text_is_read_as_it_is_and_null_as_null(database: Database, fines: Catalog, rows_of: RowsOf) -> None:
    rows = [("1", " 穗 ", "2.50", "2024-01-01"), ("2", "", None, None), ("3", "a\0b\ufeff", "x", "📜")]
    assert rows_of(read(database(TEXT_TABLE, rows=rows), fines)) == rows


def test_whole_numbers_are_exact_whatever_the_column_declares(
    database: Database, fines: Catalog, rows_of: RowsOf
) -> None:
    rows: list[tuple[Any, ...]] = [(7, "a", -(2**63), None), ("8", 2**63 - 1, 0, None), (9, None, None, None)]
    chunks = read(database(NO_TYPES, rows=rows), fines)
    assert rows_of(chunks) == [
        ("7", "a", "-9223372036854775808", None), ("8", "9223372036854775807", "0", None), ("9", None, None, None),
    ]  # fmt: skip
    assert chunks[0].refused == {}


@pytest.mark.parametrize(
    ("row", "field", "seen"),
    [
        (("1", "a", 2.5, None), "fee", "2.5"),
        (("1", "a", 2.0, None), "fee", "2.0"),
        (("1", "a", b"2.5", None), "fee", "322e35"),
        (("1", "a", "2", 20240101), "decided", "20240101"),
        (("1", b"a", "2", None), "holder", "***"),
        ((1.0, "a", "2", None), "no", "1.0"),
    ],
)
def test_real_and_blob_and_numbers_for_dates_refuse_the_row_with_advice(
    database: Database, fines: Catalog, kernel: Kernel, row: tuple[Any, ...], field: str, seen: str
) -> None:
    (chunk,) = read(database(NO_TYPES, rows=[("0", "a", "2", None), row]), fines)
    assert list(chunk.refused) == [1]
    why = chunk.refused[1]
    assert (why.field, why.value, why.code) == (field, seen, "value.type")
    assert "TEXT" in why.en
    assert "TEXT" in why.zh
    assert chunk.fields[field][1].as_py() is None
    result = kernel.run(chunk)
    assert result.rows.tolist() == [0]
    # Whose key can be read is known by its key; a key that cannot be read is not a null key.
    assert list(result.refused_keys) == ([] if field == "no" else [1])


def test_damaged_text_refuses_the_row_and_not_the_read(database: Database, fines: Catalog) -> None:
    rows = [("1", "a", "2", None), ("2", "b", "3", None)]
    url = database(TEXT_TABLE, "INSERT INTO fines VALUES ('0', 'x', CAST(X'32FF' AS TEXT), NULL)", rows=rows)
    (chunk,) = read(url, fines)
    assert {row: (why.field, why.code) for row, why in chunk.refused.items()} == {0: ("fee", "row.encoding")}
    assert chunk.numbers.tolist() == [1, 2, 3]
    assert chunk.fields["fee"].to_pylist() == [None, "2", "3"]


def test_columns_are_mapped_and_names_are_quoted(database: Database, rows_of: RowsOf, fines: Catalog) -> None:
    url = database(
        'CREATE TABLE "罚 款""; --" ("select" TEXT, "a""b" TEXT, Fee TEXT, decided TEXT, other BLOB)',
        rows=[("1", "a", "2", None, b"x")],
        table='"罚 款""; --"',
    )
    with open_source(url, '罚 款"; --', fines, columns={"no": "select", "holder": 'a"b'}) as source:
        assert source.ignored == ("other",)
        assert rows_of(source.scan()) == [("1", "a", "2", None)]


def test_a_view_is_read_like_a_table(database: Database, fines: Catalog, rows_of: RowsOf) -> None:
    url = database(
        TEXT_TABLE,
        "CREATE VIEW v AS SELECT no, holder, fee || '0' AS fee, decided, 1 AS one FROM fines WHERE no <> '2'",
        rows=[("1", "a", "2.5", None), ("2", "b", "1", None)],
    )
    assert rows_of(read(url, fines, "v")) == [("1", "a", "2.50", None)]


def test_the_batch_column_comes_beside_the_fields_in_normal_form(database: Database, fines: Catalog) -> None:
    rows = [
        ("1", "a", "2", None, " b-01"),
        ("2", "a", "2", None, 7),
        ("3", "a", "2", None, None),
        ("4", "a", "2", None, 1.5),
    ]
    url = database("CREATE TABLE fines (no, holder, fee, decided, batch_no)", rows=rows)
    with open_source(url, "fines", fines, batch_column="batch_no") as source:
        assert source.ignored == ()
        (chunk,) = source.scan()
    assert chunk.extra["batch"].to_pylist() == ["B-01", "7", None, None]
    assert chunk.refused[3].field == "batch_no"


def test_without_a_batch_column_there_is_none(database: Database, fines: Catalog) -> None:
    assert read(database(TEXT_TABLE, rows=[("1", "a", "2", None)]), fines)[0].extra == {}


def test_a_double_quoted_name_that_is_no_column_is_never_taken_for_a_string(database: Database, fines: Catalog) -> None:
    error = refusal(database("CREATE TABLE fines (no, holder, fee)"), fines)
    assert error.code == "source.column_missing"
    assert "decided" in error.en
    assert "no, holder, fee" in error.en


@pytest.mark.parametrize(
    ("more", "code", "named"),
    [
        ({"table": "fine"}, "source.table_missing", "fines, v"),
        ({"columns": {"fee": "amount"}}, "source.column_missing", "fee = amount"),
        ({"columns": {"fee": "no"}}, "source.column_shared", "fields no and fee"),
        ({"batch_column": "batch"}, "source.column_missing", "batch_column = batch"),
    ],
)
def test_what_is_missing_is_named_with_what_is_there(
    database: Database, fines: Catalog, more: dict[str, Any], code: str, named: str
) -> None:
    error = refusal(database(TEXT_TABLE, "CREATE VIEW v AS SELECT 1"), fines, **more)
    assert (error.code, named in error.en) == (code, True)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("postgresql://u:secret@h/d", NotBuiltError),
        ("mysql+pymysql://u:secret@h/d", NotBuiltError),
        ("sqlite+aiosqlite:///x.db", NotBuiltError),
        ("sqlite://", InputError),
        ("sqlite:///:memory:", InputError),
        ("sqlite:///file:x?mode=rwc&uri=true", InputError),
        ("sqlite:///x.db?mode=rwc", InputError),
        ("not a url secret", InputError),
    ],
)
def test_a_url_that_is_no_sqlite_file_is_refused_without_its_secrets(
    fines: Catalog, url: str, kind: type[LedgerError]
) -> None:
    error = refusal(url, fines)
    assert type(error) is kind
    assert "secret" not in f"{error.zh}{error.en}{error.where}"
    if kind is NotBuiltError:
        assert url.split(":", maxsplit=1)[0] in error.en


def test_a_missing_file_is_not_created(tmp_path: Path, fines: Catalog) -> None:
    assert refusal(f"sqlite:///{tmp_path}/none.db", fines).code == "source.missing"
    assert refusal(f"sqlite:///{tmp_path}", fines).code == "source.missing"
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_is_relative_to_the_base(database: Database, fines: Catalog, tmp_path: Path) -> None:
    database(TEXT_TABLE, rows=[("1", "a", "2", None)])
    assert len(read("sqlite:///city.db", fines, base=tmp_path)) == 1


def test_names_with_question_marks_and_hashes_are_files(tmp_path: Path, fines: Catalog) -> None:
    path = tmp_path / "市 100%#.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(TEXT_TABLE)
    assert read(f"sqlite:///{path}", fines) == []


def test_a_file_that_is_no_database_or_damaged_says_so(tmp_path: Path, database: Database, fines: Catalog) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"no,holder,fee,decided\n" * 100)
    assert refusal(f"sqlite:///{path}", fines).code == "source.not_database"
    url = database(TEXT_TABLE, rows=[(str(i), "a" * 500, "2", None) for i in range(200)])
    file = tmp_path / "city.db"
    content = bytearray(file.read_bytes())
    content[8192 : 8192 + 8] = b"\xee" * 8
    file.write_bytes(content)
    assert refusal(url, fines).code == "source.damaged"


def test_an_empty_file_has_no_tables(tmp_path: Path, fines: Catalog) -> None:
    (tmp_path / "x.db").touch()
    assert refusal(f"sqlite:///{tmp_path}/x.db", fines).code == "source.table_missing"


def test_a_locked_database_says_so(database: Database, fines: Catalog, tmp_path: Path) -> None:
    url = database(TEXT_TABLE)
    with closing(sqlite3.connect(tmp_path / "city.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert refusal(url, fines, busy_seconds=0.01).code == "source.locked"


def test_no_permission_says_so(database: Database, fines: Catalog, tmp_path: Path) -> None:
    url = database(TEXT_TABLE)
    (tmp_path / "city.db").chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    script = (
        "import os, sys\n"
        "from ledger.catalog import parse_catalog\n"
        "from ledger.errors import SourceError\n"
        "from ledger.source.sqlite import open_source\n"
        "from sqlalchemy.engine import make_url\n"
        "from ledger.source.csvfile import open_csv\n"
        f"catalog = parse_catalog({fines_toml()!r}, 'f')\n"
        "make_url('sqlite://')\n"
        "if os.geteuid() == 0:\n"
        "    os.setuid(65534)\n"
        "try:\n"
        f"    open_source({url!r}, 'fines', catalog).__enter__()\n"
        "except SourceError as error:\n"
        "    print(error.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("source.permission\n", "")


def fines_toml() -> bytes:
    return b'id = "fines"\nversion = 1\nkey = ["no"]\nfield = [{ name = "no", type = "code" }]'


def test_nothing_can_be_written_through_a_source(database: Database, fines: Catalog) -> None:
    with open_source(database(TEXT_TABLE), "fines", fines) as source:
        for statement in ("INSERT INTO fines VALUES (1, 2, 3, 4)", "CREATE TABLE t (a)"):
            with pytest.raises(sqlite3.OperationalError):
                source._connection.execute(statement)


@pytest.mark.parametrize("journal", ["WAL"])
def test_all_scans_of_one_read_see_one_state(
    database: Database, fines: Catalog, rows_of: RowsOf, tmp_path: Path, journal: str
) -> None:
    url = database(TEXT_TABLE, rows=[("1", "a", "2", None)])
    with closing(sqlite3.connect(tmp_path / "city.db", isolation_level=None)) as other:
        other.execute(f"PRAGMA journal_mode = {journal}")
        with open_source(url, "fines", fines) as source:
            # Before the first scan, too: the read begins when the source is opened.
            other.execute("INSERT INTO fines VALUES ('2', 'b', '3', NULL)")
            first = rows_of(source.scan())
            other.execute("DELETE FROM fines")
            assert rows_of(source.scan()) == first == [("1", "a", "2", None)]
    assert rows_of(read(url, fines)) == []


def test_chunks_grow_to_a_bounded_number_of_bytes(
    database: Database, fines: Catalog, monkeypatch: pytest.MonkeyPatch, rows_of: RowsOf
) -> None:
    monkeypatch.setattr(sqlite, "CHUNK_BYTES", 20_000)
    url = database(TEXT_TABLE, rows=((str(i), "x" * 100, "2", None) for i in range(2000)))
    chunks = read(url, fines)
    assert max(len(chunk) for chunk in chunks[1:]) < 200
    assert [line for chunk in chunks for line in chunk.numbers.tolist()] == list(range(1, 2001))
    assert sorted(int(row[0] or 0) for row in rows_of(chunks)) == list(range(2000))


def test_memory_does_not_grow_with_the_table(
    database: Database, fines: Catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sqlite, "CHUNK_BYTES", 20_000)

    def peak(rows: int) -> int:
        (tmp_path / "city.db").unlink(missing_ok=True)
        url = database(TEXT_TABLE, rows=((str(i), "x" * 100, "2", None) for i in range(rows)))
        tracemalloc.start()
        with open_source(url, "fines", fines) as source:
            assert sum(len(chunk) for chunk in source.scan()) == rows
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(100)
    assert peak(8000) < 1.3 * peak(2000)


cell = st.none() | st.text(st.sampled_from('a中,"\n\r\t é\u0301\ufeff\\0'), min_size=1, max_size=5)
fine = st.tuples(
    st.sampled_from(["1", "二", "Ａ"]),
    cell,
    st.sampled_from(["1", "2.50", "x", " 3"]),
    st.sampled_from(["2024/01/01", "soon", None]),
)


@given(rows=st.lists(fine, max_size=10))
@settings(max_examples=30, deadline=None)
def test_a_table_and_a_file_of_the_same_rows_give_the_same_entries(
    fines: Catalog,
    kernel_of: Callable[[Catalog], Kernel],
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Sequence[str | None]],
) -> None:
    folder = tmp_path_factory.mktemp("same")
    with closing(sqlite3.connect(folder / "city.db")) as connection:
        connection.execute(TEXT_TABLE)
        connection.executemany("INSERT INTO fines VALUES (?, ?, ?, ?)", rows)
        connection.commit()
    with (folder / "f.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["no", "holder", "fee", "decided"], *rows])
    kernel = kernel_of(fines)
    with open_csv(folder / "f.csv", fines) as delivered:
        from_file = [kernel.run(chunk) for chunk in delivered.scan()]
    from_table = [kernel.run(chunk) for chunk in read(f"sqlite:///{folder}/city.db", fines)]
    assert [r.entries.tobytes() for r in from_file] == [r.entries.tobytes() for r in from_table]
    assert [r.refused for r in from_file] == [r.refused for r in from_table]
    assert [r.refused_keys for r in from_file] == [r.refused_keys for r in from_table]


def test_a_table_dropped_before_the_read_is_named(database: Database, fines: Catalog) -> None:
    error = refusal(database(TEXT_TABLE, "DROP TABLE fines"), fines)
    assert error.code == "source.table_missing"


def test_a_view_whose_table_is_gone_says_so(database: Database, fines: Catalog) -> None:
    error = refusal(database(TEXT_TABLE, "CREATE VIEW v AS SELECT * FROM fines", "DROP TABLE fines"), fines, "v")
    assert isinstance(error, SourceError)
    assert "main.fines" in error.en


def test_a_catalog_of_other_columns_reads_the_same_table(database: Database, rows_of: RowsOf) -> None:
    catalog = parse_catalog(fines_toml(), "f")
    assert rows_of(read(database(TEXT_TABLE, rows=[("1", "a", "2", None)]), catalog)) == [("1",)]
