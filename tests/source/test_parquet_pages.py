"""What Parquet's pages say of the width of values; and the same rows whether or not dictionaries are made, values written by Arrow or one by one."""

from __future__ import annotations

import ctypes
import tracemalloc
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledger.catalog import Catalog, parse_catalog
from ledger.errors import InputError
from ledger.source import parquet, parquetpages, parquettexts
from ledger.source.files import open_file
from ledger.source.parquetpages import widest

pytestmark = pytest.mark.usefixtures("compiled_part")
ROW = {"no": ["A"], "holder": ["甲"], "fee": ["1"], "decided": ["2024-01-01"]}


def bound(path: Path, **options: Any) -> tuple[int | None, Any]:
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(0)
    given = {name: getattr(chunk, name) for name in ("physical_type", "compression", "has_dictionary_page", "dictionary_page_offset",
             "data_page_offset", "total_compressed_size", "num_values")}  # fmt: skip
    with path.open("rb") as file:
        return widest(file, SimpleNamespace(**{**given, **options})), chunk


@given(
    values=st.lists(
        st.none() | st.text(max_size=40) | st.integers(0, 9000).map(lambda n: "长" * n), min_size=1, max_size=40
    ),
    times=st.sampled_from([1, 30]),
    compression=st.sampled_from(["none", "snappy", "gzip", "zstd", "brotli", "lz4"]),
    version=st.sampled_from(["1.0", "2.0"]),
    dictionary=st.sampled_from([0, 300, 1 << 20]),
    page=st.sampled_from([64, 5000, 1 << 20]),
)
@settings(max_examples=150, deadline=None)
def test_no_value_of_a_dictionary_is_longer_than_is_said(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[str | None],
    times: int,
    compression: str,
    version: str,
    dictionary: int,
    page: int,
) -> None:
    path = tmp_path_factory.mktemp("w") / "w.parquet"
    array = pa.array(values * times, pa.string())
    pq.write_table(
        pa.table({"a": array}), path, compression=compression, data_page_version=version, use_dictionary=bool(dictionary),
        dictionary_pagesize_limit=dictionary or None, data_page_size=page, write_page_index=True,
    )  # fmt: skip
    found, chunk = bound(path)
    assert found is not None
    lengths = pc.binary_length(array).fill_null(0)
    if chunk.has_dictionary_page:
        # What is in the dictionary, is at least what a batch of one row has.
        coded = next(pq.ParquetFile(path, read_dictionary=["a"]).iter_batches(1)).column(0).dictionary
        assert found >= (pc.max(pc.binary_length(coded)).as_py() or 0)
    assert len(values) * times * found >= pc.sum(lengths).as_py()


def test_a_dictionary_that_the_file_does_not_own_up_to_is_found(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"a": ["长" * 3000, "b"] * 9}), path)
    found, chunk = bound(path)
    assert found == 9000
    assert bound(path, has_dictionary_page=False, data_page_offset=chunk.dictionary_page_offset)[0] == 9000


def test_a_dictionary_that_lies_about_its_length_gives_no_bound(tmp_path: Path) -> None:
    """Arrow takes what is not compressed by its length in the file; the header's other number could say anything."""
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"a": ["长" * 3000] * 9}), path, compression="none")
    assert bound(path)[0] == 9000
    data = bytearray(path.read_bytes())
    # The page header: field 1 (kind, 2 for a dictionary), field 2 (unpacked), field 3 (packed), zigzag varints of one length.
    size = 9004
    number = bytes([(2 * size & 0x7F) | 0x80, (2 * size >> 7 & 0x7F) | 0x80, 2 * size >> 14])
    at = data.index(b"\x15\x04\x15" + number + b"\x15" + number)
    data[at + 3 : at + 6] = bytes([2 * 10 | 0x80, 0x80, 0])
    path.write_bytes(data)
    assert pq.ParquetFile(path).read().column("a")[0].as_py() == "长" * 3000
    assert bound(path)[0] is None


def test_a_small_dictionary_is_its_own_bound(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"a": ["ab", "c"] * 99}), path)
    assert bound(path)[0] == 4 + 2 + 4 + 1


@pytest.mark.parametrize(
    ("encoding", "known"), [("PLAIN", True), ("DELTA_LENGTH_BYTE_ARRAY", True), ("DELTA_BYTE_ARRAY", False)]
)
def test_beginnings_that_are_those_of_the_value_before_give_no_bound(
    tmp_path: Path, encoding: str, known: bool
) -> None:
    path = tmp_path / "e.parquet"
    pq.write_table(pa.table({"a": ["长" * 900] * 50}), path, use_dictionary=False, column_encoding={"a": encoding})
    found, _ = bound(path)
    assert (found is not None) is known
    assert found is None or 2700 <= found < 2800


@pytest.mark.parametrize(
    "options",
    [
        {"physical_type": "INT64"}, {"compression": "UNKNOWN"}, {"compression": "GZIP"}, {"data_page_offset": 0, "dictionary_page_offset": 0},
        {"data_page_offset": 1 << 40, "dictionary_page_offset": None}, {"data_page_offset": 40, "dictionary_page_offset": 5},
    ],
)  # fmt: skip
def test_what_is_not_as_it_should_be_gives_no_bound(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "o.parquet"
    pq.write_table(pa.table({"a": [f"{n:09}" for n in range(2000)]}), path)
    assert bound(path)[0] == 9
    assert bound(path, **options)[0] is None


def test_no_more_pages_are_looked_at_than_a_writer_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"a": [f"{n:09}" for n in range(9000)]}), path, use_dictionary=False, data_page_size=64)
    assert bound(path)[0] is not None
    monkeypatch.setattr(parquetpages, "MAX_PAGES", 5)
    assert bound(path)[0] is None


@given(at=st.integers(4, 400), byte=st.integers(0, 255), values=st.integers(0, 2**31 - 1))
@settings(max_examples=300, deadline=None)
def test_damaged_headers_give_a_bound_or_none(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int, values: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    pq.write_table(pa.table({"a": [f"{n % 50:09}" for n in range(500)]}), path, data_page_size=100)
    data = bytearray(path.read_bytes())
    with path.open("rb+") as file:
        file.seek(min(at, len(data) - 400))
        file.write(bytes([byte]))
    chunk = SimpleNamespace(
        physical_type="BYTE_ARRAY", compression="SNAPPY", has_dictionary_page=True, dictionary_page_offset=4, data_page_offset=5,
        total_compressed_size=len(data), num_values=values,
    )  # fmt: skip
    with path.open("rb") as file:
        found = widest(file, chunk)
    assert found is None or found >= 0


# ---- what is read ----


@pytest.fixture(scope="module")
def kinds() -> Catalog:
    fields = ["text", "code", "enum", "integer", "decimal", "date", "datetime"]
    lines = ", ".join(f'{{ name = "{n}", type = "{n}"{", scale = 4" if n == "decimal" else ""} }}' for n in fields)
    return parse_catalog(f'id = "kinds"\nversion = 1\nkey = ["code"]\nfield = [{lines}]'.encode(), "kinds.toml")


def rows(path: Path, catalog: Catalog) -> list[Any]:
    found: list[Any] = []
    with open_file(path, catalog) as file:
        for chunk in file.scan():
            assert chunk.raw is not None
            for column in (*chunk.fields.values(), *chunk.raw.columns):
                assert column.type == pa.string()
                column.validate(full=True)
            fields = zip(chunk.numbers.tolist(), *(column.to_pylist() for column in chunk.fields.values()), strict=True)
            raw = chunk.raw.rows(range(len(chunk)))
            found += [(row, raw[at], chunk.refused.get(at)) for at, row in enumerate(fields)]
    return found


def reference(patch: pytest.MonkeyPatch) -> None:
    """Dictionaries for all text, and one value after the other."""
    patch.setattr(parquet, "widest", lambda file, chunk: None)
    patch.setattr(parquettexts, "is_utf8", lambda array: None)
    patch.setattr(parquettexts, "_written", parquettexts._by_value)


damaged = st.sampled_from([b"\xff", b"\xe4\xb8", b"\xad", b"a\xed\xa0\x80", "中".encode(), b"", b"x" * 3000])
moment = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999)) | st.sampled_from(
    [
        datetime(1, 1, 1),
        datetime(9999, 12, 31),
        datetime(2024, 2, 29),
        datetime(1969, 12, 31, 23, 59, 59, 500_000),
        datetime(2024, 1, 1, 10, 20, 30),
    ]
)


def text(values: list[bytes | None]) -> Any:
    binary = pa.array(values, pa.binary())
    return pa.StringArray.from_buffers(len(binary), binary.buffers()[1], binary.buffers()[2], binary.buffers()[0])


@given(
    values=st.lists(
        st.tuples(
            st.none() | damaged, st.none() | moment, st.none() | st.dates(), st.none() | st.decimals(-9999, 9999, places=4) | st.just(Decimal(0)),
            st.none() | st.integers(-(2**63), 2**63 - 1), st.none() | st.decimals(Decimal(-1) / 10**5, 1, places=9),
        ),
        min_size=1, max_size=30,
    ),
    unit=st.sampled_from(["s", "ms", "us", "ns"]),
    zone=st.sampled_from([None, "UTC", "Asia/Shanghai"]),
    scale=st.integers(4, 12),
    group=st.sampled_from([1, 7, 1000]),
    midnight=st.booleans(),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
@example(
    values=[(b"\xe4\xb8", None, None, Decimal("-0.0000"), 0, None), (b"\xad", None, None, Decimal("1200"), 0, None)],
    unit="us",
    zone=None,
    scale=4,
    group=9,
    midnight=True,
)
def test_all_exact_values_are_written_as_one_by_one(
    kinds: Catalog,
    tmp_path_factory: pytest.TempPathFactory,
    values: list[Any],
    unit: str,
    zone: str | None,
    scale: int,
    group: int,
    midnight: bool,
) -> None:
    texts, moments, days, amounts, numbers, small = (list(column) for column in zip(*values, strict=True))
    # Nanoseconds in 64 bits end in 2262; other units go past the calendar, too.
    micros = [None if m is None else (m - datetime(1970, 1, 1)) // timedelta(microseconds=1) for m in moments]
    counts = [
        None if m is None else {"s": m // 10**6, "ms": m // 1000, "us": m, "ns": m % 10**14 * 1000 + m % 2}[unit]
        for m in micros
    ]
    times = pa.array(counts, pa.int64()).cast(pa.timestamp(unit, zone))
    if midnight and zone is None:
        days_as_times = pa.array(
            [None if m is None else m // 86_400_000_000 * 86_400_000_000 for m in micros], pa.int64()
        ).cast(pa.timestamp("us"))
    else:
        days_as_times = pa.array(days, pa.date32())
    columns = {
        "text": text(texts),
        "code": [f"K{n}" for n in range(len(values))],
        "enum": pa.array([None if amount is None else amount for amount in small], pa.decimal128(38, 12)),
        "integer": pa.array(numbers, pa.int64()),
        "decimal": pa.array(amounts, pa.decimal128(38, scale)),
        "date": days_as_times,
        "datetime": times,
        "ignored": times,
        "ignored too": pa.array(days, pa.date32()),
    }
    path = tmp_path_factory.mktemp("v") / "v.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=group)
    with pytest.MonkeyPatch.context() as patch:
        reference(patch)
        expected = rows(path, kinds)
    assert rows(path, kinds) == expected
    assert len(expected) == len(values)


def test_many_row_groups_of_any_size_and_writers_of_any_kind(
    fines: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 3000
    table = pa.table({
        "no": [f"A{n}" for n in range(count)], "holder": ["穗" * (n % 400) for n in range(count)],
        "fee": pa.array([str(n % 7) for n in range(count)]).dictionary_encode(), "decided": pa.array(["2024-01-01"] * count, pa.large_string()),
        "x.y": [str(n) for n in range(count)],
    })  # fmt: skip
    path = tmp_path / "g.parquet"
    for options in (
        {"row_group_size": 1}, {"row_group_size": 17, "compression": "lz4"}, {"data_page_version": "2.0", "compression": "zstd"},
        {"dictionary_pagesize_limit": 2000, "data_page_size": 500}, {"store_schema": False},
    ):  # fmt: skip
        pq.write_table(table.slice(0, 200) if options.get("row_group_size") == 1 else table, path, **options)
        with monkeypatch.context() as patch:
            reference(patch)
            expected = rows(path, fines)
        assert rows(path, fines) == expected
        monkeypatch.setattr(parquet, "BATCH_ROWS", 100)
        monkeypatch.setattr(parquet, "RUN_ROWS", 50)
        monkeypatch.setattr(parquet, "CHUNK_BYTES", 20_000)
        assert rows(path, fines) == expected
        monkeypatch.undo()


@pytest.mark.usefixtures("readers")
def test_encodings_that_spell_values_out_are_read_and_others_named(fines: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    table = pa.table({name: value * 3000 for name, value in ROW.items()} | {"no": [f"A{n}" for n in range(3000)]})
    pq.write_table(table, path)
    expected = rows(path, fines)
    for encoding in ("PLAIN", "DELTA_LENGTH_BYTE_ARRAY"):
        pq.write_table(table, path, use_dictionary=False, column_encoding=dict.fromkeys(ROW, encoding))
        assert rows(path, fines) == expected
    pq.write_table(table, path, use_dictionary=False, column_encoding={"holder": "DELTA_BYTE_ARRAY"})
    with pytest.raises(InputError) as caught:
        rows(path, fines)
    assert caught.value.code == "parquet.encoding"
    assert "DELTA_BYTE_ARRAY" in caught.value.zh


@given(data=st.lists(st.integers(0, 9), max_size=6), cut=st.integers(0, 3), more=st.integers(-1, 1))
def test_the_longest_of_a_dictionary_is_the_same_with_and_without_a_compiler(
    data: list[int], cut: int, more: int
) -> None:
    page = b"".join(size.to_bytes(4, "little") + b"x" * size for size in data)
    page, count = page[: len(page) - cut], max(0, len(data) + more)
    found = parquetpages._longest(page, count)
    assert parquetpages.longest_of()(page, ctypes.c_int64(len(page)), ctypes.c_int64(count)) == found
    assert found == (max(data, default=0) if count == len(data) and (not cut or not page) else -1) or (
        found == -1 and cut
    )


@pytest.mark.parametrize("length", [300, 9_000, 40_000, 200_000])
@pytest.mark.parametrize("encoding", [None, "PLAIN"])
def test_a_value_that_is_repeated_stays_in_bounded_memory_whatever_its_length(
    tmp_path: Path, fines: Catalog, length: int, encoding: str | None
) -> None:
    count = 240_000_000 // length // (1 if encoding is None else 4)
    holder = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["长" * length]))
    columns = {name: v * count for name, v in ROW.items()} | {"no": [f"A{n}" for n in range(count)]}
    path = tmp_path / "b.parquet"
    schema = pa.schema([(name, pa.string()) for name in ROW])
    with pq.ParquetWriter(
        path, schema, use_dictionary=["holder"] if encoding is None else False, compression="zstd"
    ) as writer:
        step = max(1, 8_000_000 // length)
        for start in range(0, count, step):
            part = {name: values[start : start + step] for name, values in columns.items()}
            part["holder"] = holder.slice(start, step).cast(pa.string())
            writer.write_table(pa.table(part, schema), row_group_size=count)
    before = pa.total_allocated_bytes()
    highest = found = 0
    tracemalloc.start()
    with open_file(path, fines) as file:
        for chunk in file.scan():
            found += len(chunk)
            highest = max(highest, pa.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == count
    assert highest < 96 << 20
    assert peak < 32 << 20


def test_a_time_in_utc_bears_its_z(kinds: Catalog, tmp_path: Path) -> None:
    columns = {name: ["K"] for name in kinds.by_name if name not in ("date", "datetime")} | {
        "date": pa.array([date(2024, 1, 2)]), "datetime": pa.array([datetime(2024, 1, 2, 3, tzinfo=UTC)], pa.timestamp("us", "Asia/Shanghai")),
    }  # fmt: skip
    path = tmp_path / "z.parquet"
    pq.write_table(pa.table(columns), path)
    ((row, _, _),) = rows(path, kinds)
    assert row[-2:] == ("2024-01-02", "2024-01-02 03:00:00Z")
