"""Writing a delivery into a table: all of it or nothing, and read back before it counts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ledger.catalog import Catalog
from ledger.errors import LedgerError, SourceError
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel
from ledger.source.load import Loaded, Upsert, load_rows

Database = Callable[..., str]
TEXT_TABLE = "CREATE TABLE fines (no TEXT, holder TEXT, fee TEXT, decided TEXT)"
DEFAULT = {"no": "1", "holder": "甲", "fee": "2.50", "decided": "2024-01-01"}


def upsert(kernel: Kernel, **cells: str | None) -> Upsert:
    values = DEFAULT | cells
    fields = {name: pa.array([values[name]], pa.string()) for name in DEFAULT}
    result = kernel.run(Chunk(fields, np.array([1])))
    assert not result.refused
    normal = {name: column[0].as_py() for name, column in result.values.items()}
    return Upsert(result.record_keys[0].as_py(), normal, result.entries[0].tobytes())


def gone(kernel: Kernel, no: str) -> Mapping[bytes, Mapping[str, str | None]]:
    return {upsert(kernel, no=no).record_key: {"no": no}}


def table(url: str, sql: str = "SELECT * FROM fines ORDER BY 1") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        return connection.execute(sql).fetchall()


def refusal(url: str, kernel: Kernel, *upserts: Upsert, withdrawn: Any = None, **more: Any) -> LedgerError:
    before = table(url)
    with pytest.raises(LedgerError) as caught:
        load_rows(url, more.pop("table", "fines"), kernel, upserts=upserts, withdrawn=withdrawn or {}, **more)
    assert table(url) == before
    return caught.value


def test_new_rows_are_inserted_old_ones_updated_withdrawn_ones_deleted(database: Database, kernel: Kernel) -> None:
    rows = [("1", "old", "0", None), ("3", "gone", "1", None), ("4", "kept", "x", "not a date")]
    url = database(TEXT_TABLE, rows=rows)
    done = load_rows(
        url, "fines", kernel,
        upserts=[upsert(kernel), upsert(kernel, no="2", holder=None, fee="3")],
        withdrawn={**gone(kernel, "3"), **gone(kernel, "5")},
    )  # fmt: skip
    assert done == Loaded(inserted=1, updated=1, deleted=1, absent=1)
    assert table(url) == [
        ("1", "甲", "2.50", "2024-01-01"), ("2", None, "3.00", "2024-01-01"), ("4", "kept", "x", "not a date"),
    ]  # fmt: skip


def test_rows_are_matched_by_the_normal_form_of_the_key_they_hold(database: Database, kernel: Kernel) -> None:
    url = database(
        "CREATE TABLE fines (no, holder, fee TEXT, decided)", rows=[(" ａb ", "x", "1", None), (7, "y", "1", None)]
    )
    done = load_rows(url, "fines", kernel, upserts=[upsert(kernel, no="AB")], withdrawn=gone(kernel, "7"))
    assert (done.updated, done.deleted) == (1, 1)
    assert table(url) == [("AB", "甲", "2.50", "2024-01-01")]


def test_only_declared_columns_and_the_batch_are_written(database: Database, kernel: Kernel) -> None:
    url = database(
        "CREATE TABLE fines (note TEXT DEFAULT 'new', no TEXT, who TEXT, fee TEXT, decided TEXT, batch TEXT)",
        rows=[("mine", "1", "old", "0", None, "B0")],
    )
    load_rows(
        url, "fines", kernel,
        upserts=[upsert(kernel), upsert(kernel, no="2")], withdrawn={}, columns={"holder": "who"}, batch_column="batch", batch="B1",
    )  # fmt: skip
    assert table(url, "SELECT note, no, who, batch FROM fines ORDER BY no") == [
        ("mine", "1", "甲", "B1"), ("new", "2", "甲", "B1"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "ddl",
    [
        "CREATE TABLE fines (no TEXT PRIMARY KEY, holder TEXT, fee TEXT, decided TEXT) WITHOUT ROWID",
        "CREATE TABLE fines (no TEXT, holder TEXT, fee TEXT, decided TEXT, PRIMARY KEY (decided, no)) WITHOUT ROWID",
        "CREATE TABLE fines (no TEXT COLLATE NOCASE, holder TEXT, fee TEXT, decided TEXT, UNIQUE (no))",
        "CREATE TABLE fines (no TEXT, holder TEXT, fee TEXT, decided TEXT, rowid TEXT)",
        "CREATE TABLE fines (no INTEGER PRIMARY KEY, holder TEXT, fee TEXT, decided TEXT)",
        "CREATE TABLE fines (no VARCHAR(9), holder CHAR(1), fee VARCHAR(2), decided VARCHAR)",
    ],
)
def test_every_kind_of_table_is_written(database: Database, kernel: Kernel, ddl: str) -> None:
    url = database(ddl)
    first = [upsert(kernel, no=str(i)) for i in range(1, 4)]
    assert load_rows(url, "fines", kernel, upserts=first, withdrawn={}).inserted == 3
    again = load_rows(url, "fines", kernel, upserts=[upsert(kernel, no="2", fee="9")], withdrawn=gone(kernel, "3"))
    assert again == Loaded(inserted=0, updated=1, deleted=1, absent=0)
    assert [str(row[0]) + row[2] for row in table(url, "SELECT no, holder, fee FROM fines ORDER BY no")] == [
        "12.50",
        "29.00",
    ]


@pytest.mark.parametrize(
    ("ddl", "column", "wrote", "came"),
    [
        ("no TEXT, holder TEXT, fee NUMERIC, decided TEXT", "fee", "'2.50'", "'2.5' (float)"),
        ("no TEXT, holder TEXT, fee REAL, decided TEXT", "fee", "'2.50'", "'2.5' (float)"),
    ],
)
def test_a_column_that_changes_what_is_written_rolls_everything_back(
    database: Database, kernel: Kernel, ddl: str, column: str, wrote: str, came: str
) -> None:
    url = database(f"CREATE TABLE fines ({ddl})", rows=[("1", "old", None, None)])
    error = refusal(url, kernel, upsert(kernel, no="9"), upsert(kernel))
    assert error.code == "load.differs"
    for part in (f"column {column}", wrote, came, "TEXT"):
        assert part in error.en


def test_an_integer_column_that_eats_the_zeros_of_a_key_is_named(database: Database, kernel: Kernel) -> None:
    url = database("CREATE TABLE fines (no INTEGER, holder TEXT, fee TEXT, decided TEXT)")
    error = refusal(url, kernel, upsert(kernel, no="007"))
    assert error.code == "load.differs"
    assert "column no: wrote '007', read back '7' (int)" in error.en


@pytest.mark.parametrize(
    ("trigger", "code", "named"),
    [
        ("AFTER INSERT ON fines BEGIN UPDATE fines SET fee = '9' WHERE no = new.no; END", "load.differs", "column fee"),
        ("AFTER INSERT ON fines BEGIN DELETE FROM fines WHERE no = new.no; END", "load.vanished", "no=1"),
        ("AFTER INSERT ON fines BEGIN INSERT INTO fines VALUES (new.no, 'x', '1', NULL); END", "load.key_repeated", "no=1"),
        ("AFTER INSERT ON fines BEGIN INSERT INTO fines VALUES (new.no, 'x', 'bad', NULL); END", "load.key_repeated", "no=1"),
        ("BEFORE INSERT ON fines BEGIN SELECT RAISE(IGNORE); END", "load.vanished", "no=1"),
        ("BEFORE INSERT ON fines BEGIN SELECT RAISE(ABORT, 'closed'); END", "source.constraint", "closed"),
        ("AFTER DELETE ON fines BEGIN INSERT INTO fines VALUES (old.no, old.holder, old.fee, NULL); END", "load.still_there", "no=2"),
        ("BEFORE DELETE ON fines BEGIN SELECT RAISE(IGNORE); END", "load.vanished", "no=2"),
        ("AFTER INSERT ON fines BEGIN INSERT INTO fines VALUES ('2', 'x', 'bad', NULL); END", "load.still_there", "no=2"),
    ],
)  # fmt: skip
def test_whatever_a_trigger_does_is_seen_and_rolled_back(
    database: Database, kernel: Kernel, trigger: str, code: str, named: str
) -> None:
    url = database(TEXT_TABLE, rows=[("2", "x", "1", None)])
    table(url, f"CREATE TRIGGER t {trigger}")
    error = refusal(url, kernel, upsert(kernel), withdrawn=gone(kernel, "2"))
    assert error.code == code
    assert named in error.en


def test_personal_values_are_masked_in_what_differs(database: Database, kernel: Kernel) -> None:
    trigger = "CREATE TRIGGER t AFTER INSERT ON fines BEGIN UPDATE fines SET holder = 'mallory'; END"
    error = refusal(database(TEXT_TABLE, trigger), kernel, upsert(kernel, holder="alice"))
    assert "column holder" in error.en
    assert "alice" not in error.en + error.zh
    assert "mallory" not in error.en + error.zh


def test_two_rows_of_one_key_are_refused_by_name(database: Database, kernel: Kernel) -> None:
    url = database(TEXT_TABLE, rows=[("ab", "x", "1", None), ("AB", "y", "2", None)])
    error = refusal(url, kernel, upsert(kernel, no="AB"))
    assert error.code == "load.key_repeated"
    assert "no=AB" in error.en
    assert "no=AB" in refusal(url, kernel, withdrawn=gone(kernel, "AB")).en
    # Two rows of a key that is not written are nobody's business here.
    assert load_rows(url, "fines", kernel, upserts=[upsert(kernel)], withdrawn={}).inserted == 1


def test_an_unreadable_row_of_the_key_is_replaced(database: Database, kernel: Kernel) -> None:
    url = database("CREATE TABLE fines (no, holder, fee, decided)", rows=[("1", "x", 1.5, "never")])
    assert load_rows(url, "fines", kernel, upserts=[upsert(kernel)], withdrawn={}).updated == 1
    assert table(url) == [("1", "甲", "2.50", "2024-01-01")]


def test_a_constraint_rolls_everything_back(database: Database, kernel: Kernel) -> None:
    url = database("CREATE TABLE fines (no TEXT, holder TEXT, fee TEXT, decided TEXT, must TEXT NOT NULL)")
    error = refusal(url, kernel, upsert(kernel))
    assert error.code == "source.constraint"
    assert "fines.must" in error.en


def test_a_view_is_not_written(database: Database, kernel: Kernel) -> None:
    url = database(TEXT_TABLE, "CREATE VIEW v AS SELECT * FROM fines")
    assert refusal(url, kernel, upsert(kernel), table="v").code == "load.view"


def test_a_locked_database_is_left_alone(database: Database, kernel: Kernel) -> None:
    url = database(TEXT_TABLE)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert refusal(url, kernel, upsert(kernel), busy_seconds=0.01).code == "source.locked"


def test_a_full_database_rolls_everything_back(
    database: Database, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database(TEXT_TABLE)
    real = sqlite3.connect

    def small(*args: Any, **more: Any) -> sqlite3.Connection:
        connection = real(*args, **more)
        # What a full disk does: SQLITE_FULL on the page that does not fit any more.
        connection.execute("PRAGMA max_page_count = 2")
        return connection

    monkeypatch.setattr("ledger.source.sqlitefile.sqlite3.connect", small)
    with pytest.raises(SourceError) as caught:
        load_rows(
            url, "fines", kernel, upserts=[upsert(kernel, no=str(i), holder="x" * 2000) for i in range(9)], withdrawn={}
        )
    assert caught.value.code == "source.full"
    monkeypatch.undo()
    assert table(url) == []


def test_an_error_in_the_middle_leaves_nothing(
    database: Database, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database(TEXT_TABLE)
    monkeypatch.setattr(Kernel, "run", lambda *_: (_ for _ in ()).throw(RuntimeError("struck")))
    with pytest.raises(RuntimeError, match="struck"):
        load_rows(url, "fines", kernel, upserts=[Upsert(b"k", DEFAULT, b"e")], withdrawn={})
    assert table(url) == []


def test_a_missing_database_is_not_created(tmp_path: Path, kernel: Kernel) -> None:
    with pytest.raises(SourceError):
        load_rows(f"sqlite:///{tmp_path}/none.db", "fines", kernel, upserts=[], withdrawn={})
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_occurs_twice_is_the_callers_mistake(database: Database, kernel: Kernel, fines: Catalog) -> None:
    url = database(TEXT_TABLE)
    one = upsert(kernel)
    with pytest.raises(ValueError, match="twice"):
        load_rows(url, "fines", kernel, upserts=[one, one], withdrawn={})
    with pytest.raises(ValueError, match="twice"):
        load_rows(url, "fines", kernel, upserts=[one], withdrawn={one.record_key: one.values})
    with pytest.raises(ValueError, match="go together"):
        load_rows(url, "fines", kernel, upserts=[], withdrawn={}, batch="B1")


def test_many_rows_are_written_and_checked(database: Database, kernel: Kernel) -> None:
    url = database(TEXT_TABLE, rows=((str(i), "x", "1", None) for i in range(0, 3000, 2)))
    done = load_rows(url, "fines", kernel, upserts=[upsert(kernel, no=str(i)) for i in range(300)], withdrawn={})
    assert (done.inserted, done.updated) == (150, 150)
