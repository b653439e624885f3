"""The same rows give the same entries and the same root whatever file they come in."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl.cell import WriteOnlyCell

from ledger.batch.build import Builder
from ledger.batch.intake import FileOptions, build_from_file
from ledger.catalog import Catalog, parse_catalog
from ledger.errors import InputError
from ledger.keys import ExchangeKey
from ledger.sheet import CUT, MAX_CELL, write_rows
from ledger.source.files import ReadOptions, open_file

Rows = Sequence[Sequence[str | None]]
KEYS = ExchangeKey(bytes(range(32)))
HOSTILE = [
    "007", "1e5", '"', '""a""', "a,b", "line\nbreak", "end\r\nof", "cr\rhere", "=1+1", "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)",
    "#N/A", "TRUE", "😀", "𠀀𪚥", "\u3000全角\u3000", " lead", "trail ", unicodedata.normalize("NFD", "é"), "é", "<b>&amp;</b>",
    "_x000D_", "_x005F_", "x005F_", "]]>", "\u200b", "\ufeff", "\x0b", "\x1f", "\x7f", "\u0085", "\u2028", "\ufffe", "\uffff", "\ue000", "",
    "440102199003076616", "36.900000000000006", "2024-01-01", "0.1", "NULL", "\ttab", "a\t", "'", "'007", "\\N", ";", "﹏", "ﬁ",
]  # fmt: skip


def table_csv(path: Path, header: Sequence[str], rows: Rows, encoding: str = "utf-8") -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([header, *rows])
    return out.getvalue().encode(encoding)


def as_csv(path: Path, header: Sequence[str], rows: Rows) -> FileOptions:
    path.with_suffix(".csv").write_bytes(table_csv(path, header, rows))
    return FileOptions(path.with_suffix(".csv"))


def as_marked_csv(path: Path, header: Sequence[str], rows: Rows) -> FileOptions:
    path.with_suffix(".csv").write_bytes(table_csv(path, header, rows, "utf-8-sig"))
    return FileOptions(path.with_suffix(".csv"))


def as_gb18030(path: Path, header: Sequence[str], rows: Rows) -> FileOptions:
    path.with_suffix(".csv").write_bytes(table_csv(path, header, rows, "gb18030"))
    return FileOptions(path.with_suffix(".csv"), "gb18030")


def packed(ending: str, pack: Callable[[bytes], bytes]) -> Callable[..., FileOptions]:
    def write(path: Path, header: Sequence[str], rows: Rows) -> FileOptions:
        path = path.with_suffix(f".csv.{ending}")
        path.write_bytes(pack(table_csv(path, header, rows)))
        return FileOptions(path)

    return write


def as_xlsx(path: Path, header: Sequence[str], rows: Rows) -> FileOptions:
    write_rows(path.with_suffix(".xlsx"), header, rows)
    return FileOptions(path.with_suffix(".xlsx"))


def as_parquet(path: Path, header: Sequence[str], rows: Rows) -> FileOptions:
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    table = pa.table({name: pa.array(column, pa.string()) for name, column in zip(header, columns, strict=True)})
    pq.write_table(table, path.with_suffix(".parquet"), row_group_size=3)
    return FileOptions(path.with_suffix(".parquet"))


WRITERS: dict[str, Callable[[Path, Sequence[str], Rows], FileOptions]] = {
    "marked": as_marked_csv, "gb18030": as_gb18030, "gz": packed("gz", gzip.compress), "bz2": packed("bz2", bz2.compress),
    "xz": packed("xz", lzma.compress), "zst": packed("zst", lambda data: pa.Codec("zstd").compress(data, asbytes=True)),
    "xlsx": as_xlsx, "parquet": as_parquet,
}  # fmt: skip


def texts(count: int) -> Catalog:
    """A key and `count` fields of text."""
    fields = ", ".join(f'{{ name = "f{n}", type = "text", title = "字段{n}" }}' for n in range(count))
    return parse_catalog(
        f'id = "texts"\nversion = 1\nkey = ["no"]\nfield = [{{ name = "no", type = "text" }}, {fields}]'.encode(), "t"
    )


def root_of(file: FileOptions, catalog: Catalog) -> tuple[int, str]:
    with file.open(catalog) as delivered:
        built = build_from_file(delivered, Builder(catalog, KEYS.for_catalog(catalog)), None)
    return built.size, built.root


@pytest.mark.parametrize("format", WRITERS)
def test_hostile_cells_give_one_root(tmp_path: Path, format: str) -> None:
    catalog = texts(2)
    header = ["no", "字段0", "f1"]
    rows = [[f"K{n}", cell, HOSTILE[-n]] for n, cell in enumerate(HOSTILE)]
    wanted = root_of(as_csv(tmp_path / "a", header, rows), catalog)
    assert wanted[0] == len(HOSTILE)
    assert root_of(WRITERS[format](tmp_path / "b", header, rows), catalog) == wanted
    other = [*rows[:-1], [*rows[-1][:-1], "other"]]
    assert root_of(WRITERS[format](tmp_path / "c", header, other), catalog) != wanted


@pytest.mark.parametrize("format", WRITERS)
def test_many_columns_and_long_cells_give_one_root(tmp_path: Path, format: str) -> None:
    catalog = texts(199)
    header = ["no", *(f"字段{n}" for n in range(199))]
    long = "长" * (MAX_CELL if format == "xlsx" else 1 << 20)
    rows = [[f"K{r}", long, *(f"{r}-{n}" for n in range(198))] for r in range(5)]
    wanted = root_of(as_csv(tmp_path / "a", header, rows), catalog)
    assert root_of(WRITERS[format](tmp_path / "b", header, rows), catalog) == wanted


@pytest.mark.parametrize("format", ["xlsx", "parquet"])
def test_raw_rows_are_the_same_text_as_a_csvs(tmp_path: Path, format: str) -> None:
    catalog = texts(1)
    rows = [["A", "007", "备注"], ["B", "", "😀"], ["C", "x", ""]]
    with WRITERS[format](tmp_path / "r", ["no", "f0", "x"], rows).open(catalog) as file:
        (chunk,) = file.scan()
    assert chunk.raw is not None
    assert chunk.raw.rows([2, 0, 1]) == [rows[2], rows[0], rows[1]]


# What a CSV can hold: no lone surrogates; no U+0000, which no format gives a normal form.
characters = st.characters(codec="utf-8", exclude_characters="\0")
cell = st.text(characters, max_size=12) | st.sampled_from(HOSTILE)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(cell, cell), min_size=1, max_size=6), st.sampled_from(["gb18030", "xlsx", "parquet", "zst"]))
def test_any_text_comes_back_from_every_format(tmp_path: Path, cells: list[tuple[str, str]], format: str) -> None:
    catalog = texts(2)
    rows = [[f"K{n}", *pair] for n, pair in enumerate(cells)]
    wanted = root_of(as_csv(tmp_path / "a", ["no", "f0", "f1"], rows), catalog)
    assert root_of(WRITERS[format](tmp_path / "b", ["no", "f0", "f1"], rows), catalog) == wanted


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(-(10**15) + 1, 10**15 - 1), min_size=1, max_size=5), st.integers(0, 15))
def test_numbers_of_15_digits_come_back_from_a_workbook(tmp_path: Path, numbers: list[int], places: int) -> None:
    catalog = parse_catalog(
        b'id = "n"\nversion = 1\nkey = ["no"]\nfield = [{ name = "no", type = "text" }, '
        b'{ name = "f", type = "decimal", scale = 15 }]', "n",
    )  # fmt: skip
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    sheet.append(["no", "f"])
    rows = []
    for n, value in enumerate(numbers):
        digits = f"{abs(value):0{places + 1}d}"
        written = (
            ("-" if value < 0 else "") + digits[: len(digits) - places] + ("." + digits[-places:] if places else "")
        )
        cell = WriteOnlyCell(sheet, float(written))
        sheet.append([f"K{n}", cell])
        rows.append([f"K{n}", written])
    book.save(tmp_path / "n.xlsx")
    assert root_of(FileOptions(tmp_path / "n.xlsx"), catalog) == root_of(
        as_csv(tmp_path / "n", ["no", "f"], rows), catalog
    )


def test_a_workbook_we_write_is_text_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "w.xlsx"
    long, escapes, wide = "长" * (MAX_CELL + 1), "\x01" * 9_000, "😀" * MAX_CELL
    rows: Rows = [
        ["=1+1", "#N/A", None],
        ["007", "2024-01-01", "\x00\ud800_x000D_"],
        [long, escapes, wide],
        ["x" * MAX_CELL, "", ""],
    ]
    write_rows(path, ["键", "=A1", "值"], rows)
    sheet = openpyxl.load_workbook(path).active
    assert [[cell.data_type for cell in row] for row in sheet.iter_rows(max_row=2)] == [["s"] * 3, ["s", "s", "n"]]
    assert sheet["A2"].value == "=1+1"
    catalog = parse_catalog(
        'id = "w"\nversion = 1\nkey = ["a"]\nfield = [{ name = "a", type = "text", title = "键" }, '
        '{ name = "b", type = "text", title = "=A1" }, { name = "c", type = "text", title = "值" }]'.encode(), "w",
    )  # fmt: skip
    with open_file(path, catalog, ReadOptions()) as file:
        (chunk,) = file.scan()
    a, b, c = (chunk.fields[name].to_pylist() for name in "abc")
    assert (a[:2], b[:2], c[0]) == (["=1+1", "007"], ["#N/A", "2024-01-01"], None)
    assert chunk.raw is not None
    # Half a character has no text: the row is refused, as it stands.
    assert chunk.raw.row(1)[2].encode("utf-8", "surrogateescape") == b"\x00\xed\xa0\x80_x000D_"
    assert {at: why.code for at, why in chunk.refused.items()} == {1: "text.unsafe"}
    for cut, whole in ((a[2], long), (b[2], escapes), (c[2], wide)):
        assert cut.endswith(CUT)
        assert whole.startswith(cut.removesuffix(CUT))
        assert len(cut.encode("utf-16-le")) // 2 <= MAX_CELL
    assert len(a[2]) == MAX_CELL
    assert a[3] == "x" * MAX_CELL


def test_more_rows_than_a_sheet_has_are_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ledger.sheet.MAX_ROWS", 3)
    path = tmp_path / "m.xlsx"
    write_rows(path, ["a"], [["1"], ["2"], ["3"]])
    before = path.read_bytes()
    with pytest.raises(InputError) as caught:
        write_rows(path, ["a"], [["1"]] * 4)
    assert caught.value.code == "sheet.rows"
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.xlsx"]
    stream = io.BytesIO()
    write_rows(stream, ["a"], [["1"]])
    assert openpyxl.load_workbook(stream).active["A2"].value == "1"
