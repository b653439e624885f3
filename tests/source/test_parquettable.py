"""Parquet files as a table: the root of any other database, one file or many, and no file that is not the one that was opened."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.catalog import Catalog, parse_catalog
from ledger.errors import InputError, LedgerError, SourceError
from ledger.source.table import describe_table, open_table
from tests.source.test_same_root import CATALOG, ROWS, root, sqlite_root

TYPES = {
    "no": pa.string(), "who": pa.large_string(), "state": pa.dictionary(pa.int32(), pa.string()), "fee": pa.decimal128(20, 4),
    "count": pa.int32(), "day": pa.date32(), "at": pa.timestamp("us"), "zoned": pa.timestamp("ms", tz="Asia/Shanghai"),
}  # fmt: skip


def typed(name: str, text: str | None) -> Any:
    if text is None or name in ("no", "who", "state"):
        return text
    if name == "fee":
        return Decimal(text)
    if name == "count":
        return int(text)
    if name == "day":
        return date.fromisoformat(text)
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if name == "zoned" else moment


def write(path: Path, rows: Any, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        name: pa.array([typed(name, row[at]) for row in rows], type) for at, (name, type) in enumerate(TYPES.items())
    }
    pq.write_table(pa.table({**columns, **more}), path, row_group_size=5)


def test_one_file_and_many_have_the_root_of_a_database(tmp_path: Path) -> None:
    catalog = parse_catalog(CATALOG.encode(), "same.toml")
    expected = sqlite_root(catalog, tmp_path)
    write(tmp_path / "t.parquet", ROWS)
    (tmp_path / "one").mkdir()
    (tmp_path / "t.parquet").rename(tmp_path / "one" / "t")
    for at in range(4):
        write(tmp_path / "many" / "t" / f"{at}.parquet", ROWS[at::4])
    assert root(f"parquet:///{tmp_path}/one", catalog) == expected
    assert root(f"parquet:///{tmp_path}/many", catalog) == expected


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (pa.array([3, None], pa.int16()), [3, None]),
        (pa.array([datetime(1970, 1, 2), None], pa.timestamp("s")), [(24 - 8) * 3_600_000_000, None]),
        (pa.array([datetime(1970, 1, 2), None], pa.timestamp("ms", tz="UTC")), [86_400_000_000, None]),
        (pa.array([date(1970, 1, 2), None], pa.date32()), [(24 - 8) * 3_600_000_000, None]),
    ],
)
def test_batch_and_row_version(tmp_path: Path, version: Any, expected: list[int | None]) -> None:
    catalog = parse_catalog(CATALOG.encode(), "same.toml")
    write(tmp_path / "t" / "0.parquet", ROWS[:2], Batch=pa.array([" b１", None]), v=version)
    with open_table(f"parquet:///{tmp_path}", "t", catalog, batch_column="batch", row_version_column="v") as table:
        (chunk,) = table.scan()
        assert table.ignored == ()
    assert chunk.extra["batch"].to_pylist() == ["B1", None]
    assert chunk.extra["row_version"].to_pylist() == expected
    assert (chunk.refused, chunk.raw, chunk.numbers.tolist()) == ({}, None, [1, 2])


def test_what_has_no_form_refuses_its_row(tmp_path: Path, fines: Catalog) -> None:
    late = pa.array([datetime(2000, 1, 1), datetime(2000, 1, 2)], pa.timestamp("ns")).cast(pa.int64())
    odd = pa.array([late[0].as_py(), late[1].as_py() + 1], pa.int64()).cast(pa.timestamp("ns"))
    columns = {"no": ["1", "2"], "holder": ["a", "b"], "fee": ["1", "2"], "decided": ["2020-01-01"] * 2, "v": odd}
    pq.write_table(pa.table(columns), tmp_path / "f.parquet")
    with open_table(f"parquet:///{tmp_path}", "f.parquet", fines, row_version_column="v") as table:
        (chunk,) = table.scan()
    assert {row: why.code for row, why in chunk.refused.items()} == {1: "value.fraction"}


def _replaced(folder: Path) -> None:
    write(folder / "t" / "new", ROWS[:9])
    (folder / "t" / "new").rename(folder / "t" / "1.parquet")


CHANGES: dict[str, Callable[[Path], None]] = {
    "replaced": _replaced,
    "rewritten in place": lambda folder: write(folder / "t" / "1.parquet", ROWS[:9]),
    "cut short": lambda folder: (folder / "t" / "1.parquet").write_bytes(b"PAR1"),
    "removed": lambda folder: (folder / "t" / "1.parquet").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_since_it_was_opened_stops_the_read(tmp_path: Path, change: str) -> None:
    catalog = parse_catalog(CATALOG.encode(), "same.toml")
    for at in range(3):
        write(tmp_path / "t" / f"{at}.parquet", ROWS[at::3])
    with open_table(f"parquet:///{tmp_path}", "t", catalog) as table:
        assert sum(len(chunk) for chunk in table.scan()) == len(ROWS)
        CHANGES[change](tmp_path)
        with pytest.raises(LedgerError) as told:
            list(table.scan())
    assert told.value.code == "source.changed"
    assert "1.parquet" in told.value.where


def test_what_is_missing_is_said(tmp_path: Path, fines: Catalog) -> None:
    def code(url: str, table: str, **more: Any) -> str:
        with pytest.raises(LedgerError) as told, open_table(url, table, fines, **more):
            pass
        assert isinstance(told.value, InputError | SourceError)
        return told.value.code

    url = f"parquet:///{tmp_path}"
    good = {"no": ["1"], "holder": ["a"], "fee": ["1"], "decided": ["2020-01-01"]}
    pq.write_table(pa.table(good), tmp_path / "good.parquet")
    assert code(url, "none") == "source.table_missing"
    (tmp_path / "empty").mkdir()
    assert code(url, "empty") == "source.table_missing"
    assert code("parquet://host/x", "good.parquet") == "source.url"
    assert code("parquet://", "good.parquet") == "source.url"
    assert code(f"{url}?a=b", "good.parquet") == "source.url"
    assert code(url, "good.parquet", batch_column="b") == "source.column_missing"
    assert code(url, "good.parquet", row_version_column="no") == "source.column_type"
    pq.write_table(pa.table({**good, "fee": [1.5]}), tmp_path / "float.parquet")
    assert code(url, "float.parquet") == "parquet.type"
    (tmp_path / "text.parquet").write_text("no,holder", encoding="utf-8")
    assert code(url, "text.parquet") == "parquet.damaged"
    # A second file that lacks what the first has.
    (tmp_path / "two").mkdir()
    pq.write_table(pa.table(good), tmp_path / "two" / "a.parquet")
    pq.write_table(pa.table({**good, "fee2": ["1"]}).drop_columns(["fee"]), tmp_path / "two" / "b.parquet")
    assert code(url, "two") == "source.column_missing"


def test_a_draft_can_be_made_of_it(tmp_path: Path) -> None:
    write(tmp_path / "t" / "0.parquet", ROWS[:2], x=pa.array([1.5, 2.5]))
    shape = {column.name: column for column in describe_table("parquet:///t/..", "t", tmp_path).columns}
    assert [shape[name].type for name in (*TYPES, "x")] == [
        "text", "text", "text", "decimal", "integer", "date", "datetime", "datetime", None,
    ]  # fmt: skip
    assert shape["fee"].scale == 4
