"""SQLite through its C interface and through Python's module: the same chunks, the same refusals, one state."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledger.catalog import Catalog
from ledger.errors import LedgerError, SourceError
from ledger.source import sqlite, sqlitecapi
from ledger.source.sqlite import open_source

pytestmark = pytest.mark.usefixtures("compiled_part")
COLUMNS = "no, holder, fee, decided, batch, version"
INSERT = "INSERT INTO fines VALUES (?, ?, ?, ?, ?, ?)"


@contextmanager
def python_objects() -> Iterator[None]:
    """As where SQLite's C interface cannot be had."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlitecapi, "library", lambda: None)
        yield


def read(url: str, catalog: Catalog, table: str = "fines", extra: bool = True) -> Any:
    """All that a scan gives, whatever the chunks; or the refusal."""
    more = {"batch_column": "batch", "row_version_column": "version"} if extra else {}
    found: list[Any] = []
    try:
        with open_source(url, table, catalog, **more, busy_seconds=0.01) as source:
            for chunk in source.scan():
                columns = [*chunk.fields.values(), *chunk.extra.values()]
                for column in columns:
                    column.validate(full=True)
                assert [str(column.type) for column in columns] == ["string"] * 4 + ["string", "int64"] * extra
                rows = zip(chunk.numbers.tolist(), *(column.to_pylist() for column in columns), strict=True)
                found += [(*row, chunk.refused.get(at)) for at, row in enumerate(rows)]
    except LedgerError as error:
        return error.code, error.zh, error.en, error.where
    return found


class Damaged(str):
    """Bytes, as text in UTF-8's surrogates, that are stored as TEXT without being it."""


hostile = (
    st.none()
    | st.text(st.sampled_from("a1中\0\n\x85é\ufeff𠮷-. "), max_size=6)
    | st.sampled_from([b"\xff", b"\xe4\xb8", b"\xed\xa0\x80", b"a\0\xc0"]).map(
        lambda data: Damaged(data.decode("utf-8", "surrogateescape"))
    )
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([0, -1, 2**63 - 1, -(2**63), 10**18, -(10**18)])
    | st.floats()
    | st.binary(max_size=5)
    | st.sampled_from(["2024-01-01", "2024-01-01 10:00:00", "x" * 5000, "99999999999999999999"])
)


def stored(value: Any) -> Any:
    """The value as a parameter of CAST(? AS TEXT) if it is damaged text, else of itself."""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, Damaged) else value


def make(path: Path, rows: Sequence[Sequence[Any]], encoding: str = "UTF-8", form: str = "") -> str:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.execute(f"CREATE TABLE fines ({form if form else COLUMNS})")
        for row in rows:
            places = ", ".join("CAST(? AS TEXT)" if isinstance(value, Damaged) else "?" for value in row)
            connection.execute(f"INSERT INTO fines VALUES ({places})", [stored(value) for value in row])
        connection.execute(
            "CREATE VIEW seen AS SELECT no, holder || fee AS holder, fee, decided, batch, version FROM fines"
        )
        connection.commit()
    return f"sqlite:///{path}"


@given(
    rows=st.lists(st.tuples(*[hostile] * 6), max_size=12), encoding=st.sampled_from(["UTF-8", "UTF-16le", "UTF-16be"])
)
@settings(max_examples=200, deadline=None)
@example(rows=[(None,) * 6] * 9, encoding="UTF-8")
@example(
    rows=[("1", Damaged("\udcff"), 2.5, b"", "b", "2024-01-01"), (1, "a", "2", "3", 7, 2**63 - 1)], encoding="UTF-8"
)
def test_any_values_come_as_through_pythons_module(
    fines: Catalog, tmp_path_factory: pytest.TempPathFactory, rows: list[Sequence[Any]], encoding: str
) -> None:
    url = make(tmp_path_factory.mktemp("any") / "city.db", rows, encoding)
    for table in ("fines", "seen"):
        with python_objects():
            expected = read(url, fines, table)
        assert read(url, fines, table) == expected
        assert len(expected) == len(rows)


@pytest.mark.parametrize(
    "form",
    [
        "no TEXT PRIMARY KEY, holder, fee, decided, batch, version) WITHOUT ROWID --",
        "no INTEGER PRIMARY KEY, holder TEXT, fee DECIMAL(10,2), decided DATE, batch, version INTEGER",
        "no TEXT, holder TEXT NOT NULL DEFAULT 'x', fee REAL, decided BLOB, batch TEXT, version TEXT, more AS (no || holder) STORED",
    ],
)
def test_tables_of_other_forms(fines: Catalog, tmp_path: Path, form: str) -> None:
    rows = [(str(n), f"甲{n}", n * 3 if n % 5 else n / 4, None if n % 3 else "2024-01-01", n, n) for n in range(700)]
    with closing(sqlite3.connect(tmp_path / "city.db")) as connection:
        connection.execute(f"CREATE TABLE fines ({form}\n{'' if '--' in form else ')'}")
        connection.executemany(f"INSERT INTO fines ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.commit()
    url = f"sqlite:///{tmp_path}/city.db"
    with python_objects():
        expected = read(url, fines)
    assert read(url, fines) == expected
    assert len(expected) == 700


def test_values_of_any_length_and_chunks_of_any_size(
    fines: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(str(n), "中" * (n * n * 37 % 90_000), "1", None, "b", n) for n in range(300)]
    url = make(tmp_path / "city.db", rows)
    with python_objects():
        expected = read(url, fines)
    for chunk_rows, chunk_bytes in ((1, 1), (7, 1 << 20), (64, 100_000), (16_384, 8 << 20)):
        monkeypatch.setattr(sqlite, "MAX_CHUNK_ROWS", chunk_rows)
        monkeypatch.setattr(sqlite, "CHUNK_BYTES", chunk_bytes)
        assert read(url, fines) == expected


def test_a_chunk_holds_no_more_than_its_bytes_and_one_row(
    fines: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CHUNK_BYTES", 10_000)
    url = make(tmp_path / "city.db", [(str(n), "x" * 999, "1", None, "b", n) for n in range(100)])
    with open_source(url, "fines", fines) as source:
        sizes = [len(chunk) for chunk in source.scan()]
    assert sum(sizes) == 100
    assert max(sizes) == 10


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_what_another_program_writes_meanwhile_is_not_seen(fines: Catalog, tmp_path: Path, journal: str) -> None:
    url = make(tmp_path / "city.db", [(str(n), "a", "2", None, "b", n) for n in range(2000)])
    with closing(sqlite3.connect(tmp_path / "city.db", isolation_level=None, timeout=0.01)) as other:
        other.execute(f"PRAGMA journal_mode = {journal}")
        with open_source(url, "fines", fines) as source:
            if journal == "WAL":
                other.execute("UPDATE fines SET holder = 'changed' WHERE version % 2")
            else:
                # Without a log of changes the reader's lock keeps the writer out.
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    other.execute("UPDATE fines SET holder = 'changed'")
            seen = []
            for chunk in source.scan():
                seen += chunk.fields["holder"].to_pylist()
                if journal == "WAL":
                    other.execute("INSERT INTO fines VALUES ('x', 'new', '2', NULL, 'b', 1)")
            assert seen == ["a"] * 2000
            assert [value for chunk in source.scan() for value in chunk.fields["holder"].to_pylist()] == seen
        other.execute("UPDATE fines SET holder = 'free'")


def test_two_scans_at_once_do_not_disturb_each_other(
    fines: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "MAX_CHUNK_ROWS", 10)
    url = make(tmp_path / "city.db", [(str(n), "a", "2", None, "b", n) for n in range(95)])
    with open_source(url, "fines", fines) as source:
        pairs = list(zip(source.scan(), source.scan(), strict=True))
    assert [one.fields["no"] for one, _ in pairs] == [two.fields["no"] for _, two in pairs]
    assert sum(len(one) for one, _ in pairs) == 95


def test_a_scan_that_was_left_holds_no_lock_and_ends_with_its_source(
    fines: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "MAX_CHUNK_ROWS", 10)
    url = make(tmp_path / "city.db", [(str(n), "a", "2", None, "b", n) for n in range(95)])
    with open_source(url, "fines", fines) as source:
        left = source.scan()
        assert len(next(left)) == 10
    with closing(sqlite3.connect(tmp_path / "city.db", timeout=0.01)) as other:
        other.execute("DELETE FROM fines")
        other.commit()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        next(left)


def test_damage_in_the_middle_is_refused_as_through_pythons_module(fines: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "city.db"
    url = make(path, [(str(n), "a" * 300, "2", None, "b", n) for n in range(4000)])
    content = bytearray(path.read_bytes())
    pages = len(content) // 4096
    for page in range(pages // 2, pages // 2 + 8):
        content[page * 4096 : page * 4096 + 8] = b"\xee" * 8
    path.write_bytes(content)
    with python_objects():
        expected = read(url, fines)
    assert expected[0] == "source.damaged"
    assert read(url, fines) == expected


@pytest.mark.parametrize("state", ["missing", "folder", "locked", "no database", "no table", "gone"])
def test_refusals_are_those_of_pythons_module(fines: Catalog, tmp_path: Path, state: str) -> None:
    path = tmp_path / "city.db"
    url, table = make(path, []), "fines"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        if state == "missing":
            path.unlink()
        elif state == "folder":
            path.unlink()
            path.mkdir()
        elif state == "locked":
            other.execute("BEGIN EXCLUSIVE")
        elif state == "no database":
            path.write_bytes(b"x" * 5000)
        elif state == "no table":
            table = "fine"
        else:
            other.execute("DROP TABLE fines")
            table = "seen"
        with python_objects():
            expected = read(url, fines, table)
        assert expected[0].startswith("source.")
        assert read(url, fines, table) == expected


def test_an_error_of_sqlite_carries_its_code_and_words(fines: Catalog, tmp_path: Path) -> None:
    url = make(tmp_path / "city.db", [])
    with open_source(url, "fines", fines) as source:
        assert isinstance(source._connection, sqlitecapi.Connection)
        for statement, code in (
            ("SELECT nothing", sqlite3.SQLITE_ERROR),
            ("DELETE FROM fines", sqlite3.SQLITE_READONLY),
        ):
            with pytest.raises(sqlite3.OperationalError) as quick:
                source._connection.execute(statement)
            with (
                closing(sqlite3.connect(f"file:{tmp_path}/city.db?mode=ro", uri=True)) as reference,
                pytest.raises(sqlite3.OperationalError) as slow,
            ):
                reference.execute(statement)
            assert str(quick.value) == str(slow.value)
            assert quick.value.sqlite_errorcode == slow.value.sqlite_errorcode
            assert quick.value.sqlite_errorcode & 0xFF == code
    with pytest.raises(SourceError) as caught, open_source(url, "fines", fines) as source:
        source._connection.execute("SELECT nothing")
    assert caught.value.code == "source.failed"


@pytest.mark.parametrize("broken", ["version", "no file", "no function", "not compiled"])
def test_where_the_library_is_not_pythons_own_python_reads(
    fines: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    import _sqlite3

    if broken == "version":
        monkeypatch.setattr(sqlite3, "sqlite_version", "3.0.0")
    elif broken == "no file":
        monkeypatch.delattr(_sqlite3, "__file__")
    elif broken == "no function":
        import math

        import numpy

        monkeypatch.setattr(
            _sqlite3, "__file__", getattr(math, "__file__", None) or numpy.core._multiarray_umath.__file__
        )
    else:
        monkeypatch.setattr(sqlitecapi, "load", lambda: None)
    sqlitecapi.library.cache_clear()
    try:
        assert sqlitecapi.library() is None
        url = make(tmp_path / "city.db", [("1", "a", "2", None, "b", 1)])
        with open_source(url, "fines", fines) as source:
            assert isinstance(source._connection, sqlite3.Connection)
            assert [len(chunk) for chunk in source.scan()] == [1]
    finally:
        sqlitecapi.library.cache_clear()


@pytest.mark.parametrize("odd", [b"\0\xff", 1.5, Damaged("\udcff")], ids=["blob", "real", "damaged"])
def test_an_odd_value_spoils_no_other_of_its_column_however_long_that_is(
    tmp_path: Path, fines: Catalog, odd: Any
) -> None:
    rows = [(f"no-{n}", f"广州示例{n}科技有限公司" * 3, n, "2024-01-01", None, None) for n in range(4000)]
    rows[2000] = (rows[2000][0], odd, *rows[2000][2:])
    url = make(tmp_path / "a.db", rows)
    quick = read(url, fines)
    with python_objects():
        assert quick == read(url, fines)
    assert [row[2] for row in quick if row[-1] is None] == [row[1] for row in rows if row[1] is not odd]


def test_row_versions_as_text_are_all_read(tmp_path: Path, fines: Catalog) -> None:
    rows = [
        (f"no-{n}", "x", n, "2024-01-01", None, f"2024-01-{n % 28 + 1:02d} 10:{n % 60:02d}:00") for n in range(10_000)
    ]
    url = make(tmp_path / "a.db", rows)
    quick = read(url, fines)
    with python_objects():
        assert quick == read(url, fines)
    assert all(row[-2] is not None and row[-1] is None for row in quick)
