"""Parquet: each exact type as the text F2 gives it, everything else refused by name; damaged and hostile files."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ledger.catalog import Catalog, parse_catalog
from ledger.errors import InputError
from ledger.source import parquet
from ledger.source.files import ReadOptions, open_file

pytestmark = pytest.mark.usefixtures("readers")
ROW = {"no": ["A"], "holder": ["甲"], "fee": ["1"], "decided": ["2024-01-01"]}


@pytest.fixture(scope="session")
def kinds() -> Catalog:
    """A key and one field of each type, `f`, at a time is what these tests look at."""
    fields = ["text", "code", "enum", "integer", "decimal", "date", "datetime"]
    lines = ", ".join(f'{{ name = "{n}", type = "{n}"{", scale = 4" if n == "decimal" else ""} }}' for n in fields)
    return parse_catalog(f'id = "kinds"\nversion = 1\nkey = ["code"]\nfield = [{lines}]'.encode(), "kinds.toml")


def written(path: Path, columns: Mapping[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(dict(columns)), path, **options)
    return path


def refusal(path: Path, catalog: Catalog, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught, open_file(path, catalog, ReadOptions(**options)) as file:
        list(file.scan())
    assert caught.value.zh
    return caught.value


def column(tmp_path: Path, kinds: Catalog, field: str, values: Any) -> list[Any]:
    """What a column of `field` comes to: a text, or the code the row is refused with."""
    count = len(values)
    table = {name: pa.array([f"K{n}" for n in range(count)]) for name in kinds.by_name}
    with open_file(written(tmp_path / "c.parquet", {**table, field: values}), kinds) as file:
        (chunk,) = file.scan()
    assert all(why.field == field and why.zh for why in chunk.refused.values())
    texts = chunk.fields[field].to_pylist()
    return [chunk.refused[at].code if at in chunk.refused else text for at, text in enumerate(texts)]


TIMES = [datetime(2024, 1, 1), datetime(2024, 1, 1, 12, 30, 0, 250_000), None]


@pytest.mark.parametrize(
    ("field", "values", "expected"),
    [
        ("text", pa.array(["甲", " x ", "", None]), ["甲", " x ", "", None]),
        ("text", pa.array(["甲", None], pa.large_string()), ["甲", None]),
        ("code", pa.array(["007", None, "007"]).dictionary_encode(), ["007", None, "007"]),
        ("integer", pa.array([-(2**63), 2**63 - 1, None], pa.int64()), ["-9223372036854775808", "9223372036854775807", None]),
        ("integer", pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        ("code", pa.array([7, None], pa.int8()), ["7", None]),
        ("decimal", pa.array([Decimal("12.3400"), Decimal("-0.0000"), Decimal("0.0001"), None], pa.decimal128(20, 4)),
         ["12.34", "0", "0.0001", None]),
        ("text", pa.array([Decimal("1" * 40 + "." + "0" * 30), Decimal("0." + "0" * 29 + "1")], pa.decimal256(70, 30)),
         ["1" * 40, "0." + "0" * 29 + "1"]),
        ("date", pa.array([date(1, 1, 1), date(9999, 12, 31), None], pa.date32()), ["0001-01-01", "9999-12-31", None]),
        ("date", pa.array([2932897, -719163], pa.int32()).cast(pa.date32()), ["value.year", "value.year"]),
        ("text", pa.array([date(2024, 1, 2)], pa.date64()), ["2024-01-02"]),
        ("date", pa.array(TIMES[:1] + TIMES[2:], pa.timestamp("us")), ["2024-01-01 00:00:00", None]),
        ("date", pa.array(TIMES[1:2], pa.timestamp("ms")), ["value.type"]),
        ("datetime", pa.array(TIMES, pa.timestamp("us")), ["2024-01-01 00:00:00", "2024-01-01 12:30:00.25", None]),
        ("datetime", pa.array(TIMES, pa.timestamp("ms", "Asia/Shanghai")), ["2024-01-01 00:00:00Z", "2024-01-01 12:30:00.25Z", None]),
        ("datetime", pa.array([1704067200_000_001_000, 1704067200_000_000_001, None, -1000], pa.timestamp("ns")),
         ["2024-01-01 00:00:00.000001", "value.fraction", None, "1969-12-31 23:59:59.999999"]),
        ("datetime", pa.array([-62135596800_000, -62135596800_001, 253402300799_999, 253402300800_000], pa.timestamp("ms")),
         ["0001-01-01 00:00:00", "value.year", "9999-12-31 23:59:59.999", "value.year"]),
        ("text", pa.nulls(2), [None, None]),
        ("integer", pa.array(["１２", "12"]), ["integer.form", "12"]),
    ],
)  # fmt: skip
def test_exact_values_come_as_the_text_of_f2(
    tmp_path: Path, kinds: Catalog, field: str, values: Any, expected: list[Any]
) -> None:
    assert column(tmp_path, kinds, field, values) == expected


@pytest.mark.parametrize(
    ("field", "values", "named"),
    [
        ("decimal", pa.array([1.5]), "double"),
        ("decimal", pa.array([1.5], pa.float32()), "float"),
        ("text", pa.array([True]), "bool"),
        ("text", pa.array([b"x"]), "binary"),
        ("text", pa.array([b"x"], pa.binary(1)), "fixed_size_binary"),
        ("text", pa.array([["x"]]), "list"),
        ("text", pa.array([{"a": 1}]), "struct"),
        ("text", pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())), "map"),
        ("text", pa.array([1], pa.time32("s")), "time32"),
        ("text", pa.array([1.5]).dictionary_encode(), "d"),
        ("datetime", pa.array([date(2024, 1, 1)]), "date32"),
        ("code", pa.array([date(2024, 1, 1)]), "date32"),
        ("date", pa.array([20240101]), "int64"),
        ("text", pa.array(TIMES[:1]), "timestamp"),
        ("date", pa.array(TIMES[:1], pa.timestamp("us", "UTC")), "timestamp"),
    ],
)
def test_a_declared_column_of_another_type_is_refused_when_opened(
    tmp_path: Path, kinds: Catalog, field: str, values: Any, named: str
) -> None:
    table = {name: pa.array(["K"]) for name in kinds.by_name}
    with pytest.raises(InputError) as caught:
        open_file(written(tmp_path / "t.parquet", {**table, field: values}), kinds)
    assert caught.value.code == "parquet.type"
    assert f"column {field} is of type {named}" in caught.value.en


def test_columns_are_found_by_name_or_title_and_others_may_be_anything(tmp_path: Path, fines: Catalog) -> None:
    columns = {
        "日期": ["2024-01-01"],
        "x.y": [{"no": 1.5}],
        "文书号": ["A"],
        "备注": ["b"],
        "holder": [None],
        "罚款": [None],
    }
    with open_file(written(tmp_path / "n.parquet", columns), fines) as file:
        assert file.ignored == ("x.y", "备注")
        (chunk,) = file.scan()
    assert chunk.fields["no"].to_pylist() == ["A"]
    assert chunk.raw is not None
    assert chunk.raw.row(0) == ["2024-01-01", "<struct<no: double>>", "A", "b", "", ""]
    assert refusal(written(tmp_path / "m.parquet", {"no": ["A"]}), fines).code == "csv.column_missing"
    both = written(tmp_path / "b.parquet", {**ROW, "文书号": ["A"]})
    assert refusal(both, fines).code == "csv.column_twice"


def test_row_groups_are_numbered_through_and_withdrawals_known(tmp_path: Path, fines: Catalog) -> None:
    count = 10_000
    columns = {
        "no": [f"A{n}" for n in range(count)], "holder": ["甲"] * count, "fee": ["1"] * count,
        "decided": ["2024-01-01"] * count,
        "operation": ["withdraw" if n == 9_000 else "delete" if n == 9_001 else "upsert" for n in range(count)],
        "reason": ["revoked"] * count,
    }  # fmt: skip
    path = written(tmp_path / "g.parquet", columns, row_group_size=1500)
    with open_file(path, fines) as file:
        chunks = list(file.scan())
        again = [chunk.numbers.tolist() for chunk in file.scan()]
    assert [n for chunk in chunks for n in chunk.numbers.tolist()] == list(range(1, count + 1))
    assert again == [chunk.numbers.tolist() for chunk in chunks]
    gone = {int(chunk.numbers[at]): reason for chunk in chunks for at, reason in chunk.withdrawals.items()}
    refused = {int(chunk.numbers[at]): why.code for chunk in chunks for at, why in chunk.refused.items()}
    assert (gone, refused) == ({9_001: "revoked"}, {9_002: "row.operation"})


def test_text_that_is_not_utf8_refuses_its_row_and_stays_as_it_was(tmp_path: Path, fines: Catalog) -> None:
    bad = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 2, 3], np.int32)), pa.py_buffer(b"\xd6\xd0B"))
    for values in (bad, pa.DictionaryArray.from_arrays(pa.array([0, 1]), bad)):
        path = written(tmp_path / "u.parquet", {**{name: [*v, "2"] for name, v in ROW.items()}, "holder": values})
        with open_file(path, fines) as file:
            (chunk,) = file.scan()
        assert {at: (why.field, why.value, why.code) for at, why in chunk.refused.items()} == {
            0: ("holder", "***", "row.encoding")
        }
        assert chunk.raw is not None
        assert chunk.raw.row(0)[1].encode("utf-8", "surrogateescape") == b"\xd6\xd0"
        assert chunk.fields["holder"].to_pylist() == [None, "B"]


def test_damaged_files_are_refused(tmp_path: Path, fines: Catalog) -> None:
    path = written(tmp_path / "d.parquet", {name: v * 500 for name, v in ROW.items()}, write_page_checksum=True)
    good = path.read_bytes()
    for data in (
        good[:-9],
        good[: len(good) // 2],
        good[:4],
        good[:-8] + b"\xff\xff\xff\x7fPAR1",
        b"PAR1" + b"x" * 90 + b"PAR1",
    ):
        path.write_bytes(data)
        assert refusal(path, fines).code == "parquet.damaged"
    options = {"write_page_checksum": True, "compression": "none", "use_dictionary": False, "write_statistics": False}
    data = written(path, {**ROW, "holder": ["甲乙丙丁"]}, **options).read_bytes()
    at = data.index("甲乙丙丁".encode())
    path.write_bytes(data[:at] + "乙".encode() + data[at + 3 :])
    assert refusal(path, fines).code == "parquet.damaged"


def test_a_long_value_repeated_stays_in_bounded_memory(
    tmp_path: Path, fines: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 2_000
    holder = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["长" * 200_000]))
    columns = {name: v * count for name, v in ROW.items()} | {"no": [f"A{n}" for n in range(count)], "holder": holder}
    path = written(tmp_path / "b.parquet", columns)
    before = pa.total_allocated_bytes()
    highest = rows = 0
    tracemalloc.start()
    with open_file(path, fines) as file:
        for chunk in file.scan():
            rows += len(chunk)
            highest = max(highest, pa.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == count
    assert highest < 64 << 20
    assert peak < 64 << 20
    monkeypatch.setattr(parquet, "MAX_CHUNK_BYTES", 100_000)
    error = refusal(path, fines)
    assert (error.code, error.where[-2:]) == ("parquet.row_size", ":1")


def test_a_row_group_past_its_limit_is_refused_when_opened(
    tmp_path: Path, fines: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MAX_GROUP", 10)
    assert refusal(written(tmp_path / "l.parquet", ROW), fines).code == "parquet.size"


def test_an_empty_file_has_no_rows_and_a_changed_one_is_noticed(tmp_path: Path, fines: Catalog) -> None:
    path = written(tmp_path / "e.parquet", {name: pa.array([], pa.string()) for name in ROW})
    with open_file(path, fines) as file:
        assert list(file.scan()) == []
        with path.open("ab") as more:
            more.write(b"x")
        with pytest.raises(InputError) as caught:
            list(file.scan())
    assert caught.value.code in ("parquet.changed", "parquet.damaged")
