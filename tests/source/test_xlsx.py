"""Workbooks: what each cell stands for, what refuses a row, what refuses the file, and what an attacker packs into one."""

from __future__ import annotations

import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from ledger.catalog import Catalog, parse_catalog
from ledger.errors import InputError
from ledger.source import xlsxparts, xlsxsheet
from ledger.source.files import ReadOptions, open_file
from tests.source.workbooks import HEAD, MAIN, number, row, sheet, strings, styles, text, workbook

HEADER = row(text("文书号"), text("相对人"), text("罚款"), text("日期"))


@pytest.fixture(scope="session")
def kinds() -> Catalog:
    """One field of each type."""
    fields = ["text", "code", "enum", "integer", "decimal", "date", "datetime"]
    lines = ", ".join(
        f'{{ name = "{name}", type = "{name}"{", scale = 4" if name == "decimal" else ""} }}' for name in fields
    )
    return parse_catalog(f'id = "kinds"\nversion = 1\nkey = ["code"]\nfield = [{lines}]'.encode(), "kinds.toml")


def read(path: Path, catalog: Catalog, **options: Any) -> tuple[dict[int, tuple[Any, ...]], dict[int, Any]]:
    """The rows by number, and those refused."""
    rows: dict[int, tuple[Any, ...]] = {}
    refused = {}
    with open_file(path, catalog, ReadOptions(**options)) as file:
        for chunk in file.scan():
            values = zip(*(column.to_pylist() for column in chunk.fields.values()), strict=True)
            rows.update(zip(chunk.numbers.tolist(), values, strict=True))
            refused.update({int(chunk.numbers[at]): why for at, why in chunk.refused.items()})
    return rows, refused


def refusal(path: Path, catalog: Catalog, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read(path, catalog, **options)
    assert caught.value.zh
    return caught.value


def one(tmp_path: Path, kinds: Catalog, field: str, cell: str, **more: Any) -> Any:
    """What a single cell of `field` comes to: its text, or the code it is refused with."""
    header = row(*(text(name) for name in kinds.by_name))
    cells = [text("K") if name == "code" else "<c/>" for name in kinds.by_name]
    cells[list(kinds.by_name).index(field)] = cell
    path = workbook(tmp_path / "one.xlsx", sheet(header, row(*cells)), **more)
    rows, refused = read(path, kinds)
    if refused:
        assert refused[2].field == field
        assert refused[2].zh
        return refused[2].code
    return rows[2][list(kinds.by_name).index(field)]


@pytest.mark.parametrize(
    ("field", "stored", "expected"),
    [
        ("code", "123", "123"),
        ("integer", "999999999999999", "999999999999999"),
        ("integer", "-0", "0"),
        ("decimal", "36.9", "36.9"),
        # What Excel writes for 1.1 and 36.9: 17 digits that mean the same double.
        ("decimal", "1.1000000000000001", "1.1"),
        ("decimal", "36.899999999999999", "36.9"),
        ("decimal", "1E-3", "0.001"),
        ("decimal", "1.2E+3", "1200"),
        ("decimal", "36.900000000000006", "cell.precision"),
        ("decimal", "0.30000000000000004", "cell.precision"),
        ("code", "440102199003076616", "cell.precision"),
        # What Excel makes of an 18-digit identity number: it keeps 15 digits, and nobody can tell that it did.
        ("code", "4.4010219900307603E+17", "cell.precision"),
        ("code", "440102199003076000", "cell.precision"),
        ("integer", "1000000000000000", "cell.precision"),
        ("integer", "1_000", "cell.number"),
        ("integer", "１２", "cell.number"),
        ("integer", "NaN", "cell.number"),
        ("integer", "1e999", "cell.precision"),
        ("integer", "-1e309", "cell.precision"),
        ("date", "45292", "value.type"),
        ("date", "20240101", "value.type"),
        ("datetime", "45292", "value.type"),
    ],
)
def test_a_number_counts_as_far_as_15_digits_tell_it(
    tmp_path: Path, kinds: Catalog, field: str, stored: str, expected: str
) -> None:
    assert one(tmp_path, kinds, field, number(stored)) == expected


@pytest.mark.parametrize(
    ("field", "stored", "format", "expected"),
    [
        ("code", "123", "00000", "cell.format"),
        ("code", "12345", "00000", "12345"),
        ("code", "123", "0", "123"),
        ("code", "12.5", "0", "cell.format"),
        ("code", "12.5", "0.00", "cell.format"),
        ("code", "12.55", "0.00", "12.55"),
        ("code", "12.55", "0.0##", "12.55"),
        ("code", "123", "0_ ", "123"),
        ("code", "123", "0_);[Red]\\(0\\)", "123"),
        ("code", "-123", "0_);[Red]\\(0\\)", "cell.format"),
        ("code", "123", "#,##0", "123"),
        ("code", "1234", "#,##0", "cell.format"),
        ("text", "0.05", "0%", "cell.format"),
        ("text", "123456", "0.00E+00", "cell.format"),
        ("text", "5", '"No. "0', "cell.format"),
        ("text", "5", "# ?/?", "cell.format"),
        ("text", "0", "#", "cell.format"),
        ("enum", "1", '[=1]"是";"否"', "cell.format"),
        ("text", "5", "@", "5"),
        ("decimal", "0.05", "0%", "cell.format"),
        ("decimal", "12345", "0.0,", "cell.format"),
        ("decimal", "12345", '0!.0,"万"', "cell.format"),
        ("decimal", "12345", "#,##0.00", "12345"),
        ("decimal", "12345", '"¥"#,##0.00', "12345"),
        ("integer", "123", "00000", "123"),
        ("decimal", "0.05", 9, "cell.format"),
        ("code", "123", 37, "123"),
        ("code", "1234", 37, "cell.format"),
    ],
)
def test_a_number_whose_cell_shows_something_else_is_refused(
    tmp_path: Path, kinds: Catalog, field: str, stored: str, format: str | int, expected: str
) -> None:
    assert one(tmp_path, kinds, field, number(stored, 1), styles=styles(format)) == expected


DAY, CHINESE, SECONDS = "yyyy-mm-dd", 'yyyy"年"m"月"d"日"', "yyyy-mm-dd hh:mm:ss"


@pytest.mark.parametrize(
    ("field", "stored", "format", "from_1904", "expected"),
    [
        ("date", "45292", DAY, False, "2024-01-01"),
        ("date", "45292", CHINESE, False, "2024-01-01"),
        ("date", "45292", 14, False, "2024-01-01"),
        # Built in for Chinese workbooks, without an entry in the styles; openpyxl takes these for numbers.
        ("date", "45292", 31, False, "2024-01-01"),
        ("date", "45292", 57, False, "2024-01-01"),
        ("date", "43830", DAY, True, "2024-01-01"),
        ("date", "0", DAY, True, "1904-01-01"),
        ("date", "1", DAY, False, "1900-01-01"),
        ("date", "59", DAY, False, "1900-02-28"),
        ("date", "60", DAY, False, "cell.date"),
        ("date", "61", DAY, False, "1900-03-01"),
        ("date", "60", DAY, True, "1904-03-01"),
        ("date", "0", DAY, False, "cell.date"),
        ("date", "-1", DAY, False, "cell.date"),
        ("date", "2958465", DAY, False, "9999-12-31"),
        ("date", "2958466", DAY, False, "cell.date"),
        ("date", "2958465", DAY, True, "cell.date"),
        ("date", "1E+15", DAY, False, "cell.date"),
        ("date", "1e999", DAY, False, "cell.date"),
        ("date", "45292", SECONDS, False, "2024-01-01 00:00:00"),
        ("text", "45292", DAY, False, "2024-01-01"),
        ("enum", "45292", DAY, False, "2024-01-01"),
        ("code", "45292", DAY, False, "value.type"),
        ("integer", "45292", DAY, False, "value.type"),
        ("text", "45292.5", DAY, False, "value.type"),
        ("datetime", "45292.520833333336", SECONDS, False, "2024-01-01 12:30:00"),
        # As written by programs that keep 15 digits.
        ("datetime", "45292.5208333333", SECONDS, False, "2024-01-01 12:30:00"),
        ("datetime", "45292.999999988426", SECONDS, False, "2024-01-01 23:59:59.999"),
        ("datetime", "45292.52083333391", SECONDS, False, "cell.date"),
        ("datetime", "45292", SECONDS, False, "2024-01-01 00:00:00"),
        ("datetime", "45292", DAY, False, "value.type"),
        ("datetime", "0.5", "hh:mm", False, "cell.time"),
        ("datetime", "45292.5", "hh:mm", False, "cell.time"),
        ("date", "45292", "[h]:mm", False, "cell.time"),
        ("date", "0.5", SECONDS, False, "cell.time"),
        ("date", "1", "mm:ss", False, "cell.time"),
    ],
)
def test_a_date_counts_by_its_day_in_the_workbooks_own_calendar(
    tmp_path: Path, kinds: Catalog, field: str, stored: str, format: str | int, from_1904: bool, expected: str
) -> None:
    told = one(tmp_path, kinds, field, number(stored, 1), styles=styles(format), from_1904=from_1904)
    assert told == expected


@pytest.mark.parametrize(
    ("field", "cell", "expected"),
    [
        ("text", '<c t="b"><v>1</v></c>', "value.type"),
        ("text", '<c t="e"><v>#N/A</v></c>', "cell.error"),
        ("text", "<c><f>A1+1</f></c>", "cell.formula"),
        ("text", "<c><f>A1+1</f><v/></c>", "cell.formula"),
        ("text", '<c t="str"><f>A1</f></c>', "cell.formula"),
        ("text", '<c t="str"><f>A1</f><v></v></c>', ""),
        ("text", '<c t="str"><f>A1</f><v>=1+1</v></c>', "=1+1"),
        ("decimal", "<c><f>A1</f><v>1.5</v></c>", "1.5"),
        ("date", '<c t="d"><v>2024-01-02</v></c>', "2024-01-02"),
        ("date", '<c t="d"><v>2024-01-02T00:00:00.000</v></c>', "2024-01-02"),
        ("date", '<c t="d"><v>2024-02-30</v></c>', "cell.date"),
        ("datetime", '<c t="d"><v>2024-01-02T03:04:05.25</v></c>', "2024-01-02 03:04:05.25"),
        ("datetime", '<c t="d"><v>03:04:05</v></c>', "cell.time"),
        ("text", '<c t="inlineStr"><is><r><t>ab</t></r><r><rPr/><t xml:space="preserve"> c</t></r></is></c>', "ab c"),
        ("text", '<c t="inlineStr"><is><t>東京</t><rPh sb="0" eb="2"><t>とうきょう</t></rPh></is></c>', "東京"),
        ("text", text("a_x000D_\nb"), "a\r\nb"),
        ("text", text("_x005F_x000D_"), "_x000D_"),
        ("text", text("x005F_ _x00g0_"), "x005F_ _x00g0_"),
        ("text", text("_xD83D__xDE00_"), "😀"),
        ("text", text("_xD83D_"), "text.unsafe"),
        ("text", text("x" * 32_767), "x" * 32_767),
        ("text", text("x" * 32_768), "cell.length"),
        ("text", text("😀" * 16_384), "cell.length"),
        ("text", text("＝１２"), "＝１２"),
        ("integer", text("１２"), "integer.form"),
        ("decimal", text("12．5"), "decimal.form"),
        ("date", text("２０２４-01-01"), "date.form"),
        ("datetime", text("2024-01-01 12：00"), "datetime.form"),
    ],
)
def test_a_cell_is_the_text_it_stands_for_or_refuses_its_row(
    tmp_path: Path, kinds: Catalog, field: str, cell: str, expected: str
) -> None:
    assert one(tmp_path, kinds, field, cell) == expected


def test_full_width_digits_are_told_what_to_become(tmp_path: Path, fines: Catalog) -> None:
    cells = row(text("１Ａ"), text("张三"), text("１２．５"), text("2024-01-01"))
    path = workbook(tmp_path / "f.xlsx", sheet(HEADER, cells, cells))
    _, refused = read(path, fines)
    assert (refused[3].field, refused[3].value) == ("fee", "１２．５")
    assert refused[3].zh.endswith("请改为半角：12.5")
    assert refused[3].en.endswith("in ASCII: 12.5")


def test_shared_strings_are_read_without_guides_and_kept_apart(tmp_path: Path, fines: Catalog) -> None:
    table = strings(
        "<t>文书号</t>", "<t>相对人</t>", "<t>罚款</t>", "<t>日期</t>", "<t/>",
        '<r><t>张</t></r><r><t>三</t></r><rPh sb="0" eb="1"><t>ZHANG</t></rPh>', "<t>x005F_ _x005F_x0041_</t>",
    )  # fmt: skip

    def shared(*numbers: int) -> str:
        return row(*(f'<c t="s"><v>{n}</v></c>' for n in numbers))

    path = workbook(tmp_path / "s.xlsx", sheet(shared(0, 1, 2, 3), shared(6, 5, 4, 4)), strings=table)
    assert read(path, fines)[0] == {2: ("x005F_ _x0041_", "张三", "", "")}
    for odd in ("7", "-1", "x", "1e0", "１"):
        bad = sheet(shared(0, 1, 2, 3), row(f'<c t="s"><v>{odd}</v></c>'))
        error = refusal(workbook(tmp_path / "s.xlsx", bad, strings=table), fines)
        assert (error.code, error.where[-2:]) == ("xlsx.damaged", ":2")


def test_refused_values_of_personal_fields_are_masked_and_kept_as_they_were(tmp_path: Path, fines: Catalog) -> None:
    path = workbook(tmp_path / "p.xlsx", sheet(HEADER, row(text("A"), '<c t="b"><v>1</v></c>', number("1e-3"))))
    with open_file(path, fines) as file:
        (chunk,) = file.scan()
    assert (chunk.refused[0].field, chunk.refused[0].value) == ("holder", "***")
    assert chunk.raw is not None
    assert chunk.raw.row(0) == ["A", "TRUE", "0.001", ""]
    assert chunk.fields["holder"].to_pylist() == [None]


def test_rows_keep_their_numbers_and_empty_ones_are_skipped(tmp_path: Path, fines: Catalog) -> None:
    record = (text("A"), text("甲"), number("1"), text("2024-01-01"))
    empty = row('<c s="1"/>', '<c t="str"><f>A1</f><v></v></c>', at=7)
    rows = [row(at=1), row(*(text(t) for t in ("no", "holder", "fee", "decided")), at=3), row(*record, at=5), row(at=6)]
    last = row(*record, at=1_048_576)
    path = workbook(tmp_path / "r.xlsx", sheet(*rows, empty, last, before='<dimension ref="A1:B2"/>'), styles=styles(1))
    found, refused = read(path, fines)
    assert list(found) == [5, 1_048_576]
    assert not refused


def test_rows_beside_the_header_and_shorter_ones(tmp_path: Path, fines: Catalog) -> None:
    record = (text("A"), text("甲"), number("1"), text("2024-01-01"))
    path = workbook(tmp_path / "r.xlsx", sheet(HEADER, row(*record, text("x")), row(*record, "<c/>"), row(text("B"))))
    found, refused = read(path, fines)
    assert (refused[2].code, refused[2].en) == ("row.long", "has 5 columns, the header has 4")
    assert set(refused) == {2}
    assert found[4] == ("B", None, None, None)


@pytest.mark.parametrize(
    "body",
    [
        row(text("B"), at=3) + row(text("C"), at=2),
        row(text("B"), at=3) + row(text("C"), at=3),
        row(at=1_048_577),
        row(text("B", "B2"), text("C", "A2"), at=2),
        row(text("B", "A2"), text("C", "A2"), at=2),
        row(text("B", "A3"), at=2),
        row(text("B", "XFE2"), at=2),
        row('<c t="inlineStr"><v>1</v><v>2</v></c>'),
        row('<c t="zz"><v>1</v></c>'),
        row('<c s="99"><v>1</v></c>'),
        row("<x><c><v>1</v></c></x>"),
        "<x>" + row(text("B")) + "</x>",
        "</sheetData><sheetData>" + row(text("B")),
        "<x>" * 70 + "</x>" * 70,
        "<row",
    ],
)
def test_a_sheet_that_stands_out_of_order_is_refused_never_read_in_part(
    tmp_path: Path, fines: Catalog, body: str
) -> None:
    assert refusal(workbook(tmp_path / "d.xlsx", sheet(HEADER, body)), fines).code == "xlsx.damaged"


def test_several_filled_sheets_need_a_name(tmp_path: Path, fines: Catalog) -> None:
    record = row(text("A"), text("甲"), number("1"), text("2024-01-01"))
    data, other, empty = sheet(HEADER, record), sheet(row(text("字典"))), sheet(row('<c s="0"/>'))
    path = workbook(tmp_path / "s.xlsx", {"一月": data, "字典": other, "空": empty}, states={"字典": "hidden"})
    error = refusal(path, fines)
    assert error.code == "xlsx.sheets"
    assert "--sheet" in error.zh
    assert "一月、字典（隐藏）、空" in error.zh
    assert list(read(path, fines, sheet="一月")[0]) == [2]
    assert refusal(path, fines, sheet="二月").code == "xlsx.sheet_missing"
    assert refusal(path, fines, sheet="空").code == "xlsx.empty"
    assert list(read(workbook(tmp_path / "t.xlsx", {"空": empty, "一月": data}), fines)[0]) == [2]
    assert refusal(workbook(tmp_path / "u.xlsx", {"空": empty}), fines).code == "xlsx.empty"


def test_a_title_above_the_header_is_noticed_and_passed_over(tmp_path: Path, fines: Catalog) -> None:
    record = row(text("A"), text("甲"), number("1"), text("2024-01-01"))
    merged = '<mergeCells><mergeCell ref="A1:D1"/></mergeCells>'
    path = workbook(
        tmp_path / "t.xlsx", sheet(row(text("行政处罚台账")), row(text("单位：元")), HEADER, record, after=merged)
    )
    error = refusal(path, fines)
    assert error.code == "csv.column_missing"
    assert "表头似乎在第 3 行：请加 --header-row 3" in error.zh
    assert list(read(path, fines, header_row=3)[0]) == [4]
    assert refusal(path, fines, header_row=9).code == "xlsx.empty"
    assert refusal(path, fines, header_row=0).code == "file.header_row"


@pytest.mark.parametrize("ref", ["A1:B1", "D1:E1", "C1:C2"])
def test_merged_cells_in_the_header_are_refused_by_name(tmp_path: Path, fines: Catalog, ref: str) -> None:
    after = f'<mergeCells count="1"><mergeCell ref="{ref}"/></mergeCells>'
    error = refusal(workbook(tmp_path / "m.xlsx", sheet(HEADER, row(text("A")), after=after)), fines)
    assert error.code == "xlsx.merged_header"
    assert ref in error.en


def test_a_header_spread_over_merged_cells_is_named_as_the_cause(tmp_path: Path, fines: Catalog) -> None:
    header = row(text("文书号"), "<c/>", text("罚款"), text("日期"))
    after = '<mergeCells><mergeCell ref="A1:B1"/></mergeCells>'
    assert refusal(workbook(tmp_path / "m.xlsx", sheet(header, after=after)), fines).code == "xlsx.merged_header"


def test_merged_cells_refuse_their_rows_and_no_others(tmp_path: Path, fines: Catalog) -> None:
    record = row(text("A"), text("甲"), number("1"), text("2024-01-01"))
    after = '<mergeCells><mergeCell ref="B3:B4"/><mergeCell ref="F2:G2"/></mergeCells>'
    _, refused = read(workbook(tmp_path / "m.xlsx", sheet(HEADER, *[record] * 4, after=after)), fines)
    assert {number: why.code for number, why in refused.items()} == {3: "row.merged", 4: "row.merged"}


@pytest.mark.parametrize(
    ("rows", "after"),
    [('<row hidden="1">', ""), ("<row>", '<autoFilter ref="A1:D9"/>'), ("<row hidden='true'>", "")],
)
def test_hidden_and_filtered_rows_count_and_are_noted(tmp_path: Path, fines: Catalog, rows: str, after: str) -> None:
    record = f"{rows}{text('A')}{text('甲')}</row>"
    path = workbook(tmp_path / "h.xlsx", sheet(HEADER, record, after=after))
    with open_file(path, fines) as file:
        assert [len(chunk) for chunk in file.scan()] == [1]
        assert "隐藏" in file.notes[0][0]
    with open_file(workbook(tmp_path / "n.xlsx", sheet(HEADER)), fines) as file:
        assert file.notes == ()


def test_withdrawals_come_with_operation_and_reason(tmp_path: Path, fines: Catalog) -> None:
    header = row(*(text(t) for t in ("no", "holder", "fee", "decided", "operation", "reason")))
    gone = row(text("A"), "<c/>", text("１"), "<c/>", text("withdraw "), text("revoked"))
    odd = row(text("B"), "<c/>", "<c/>", "<c/>", text("delete"))
    empty = row(text("C"))
    with open_file(workbook(tmp_path / "w.xlsx", sheet(header, gone, odd, empty)), fines) as file:
        (chunk,) = file.scan()
    assert chunk.withdrawals == {0: "revoked"}
    assert {at: why.code for at, why in chunk.refused.items()} == {1: "row.operation", 2: "row.operation"}
    path = workbook(tmp_path / "w.xlsx", sheet(header.replace("operation", "操作"), gone))
    with open_file(path, fines, ReadOptions(operation_column="操作")) as file:
        assert [dict(chunk.withdrawals) for chunk in file.scan()] == [{0: "revoked"}]


def test_what_openpyxl_writes_is_read_back(tmp_path: Path, fines: Catalog) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["文书号", "相对人", "罚款", "日期"])
    sheet.append(["0012", " 甲\n乙 ", 12.5, "2024-01-01"])
    book.save(tmp_path / "o.xlsx")
    assert read(tmp_path / "o.xlsx", fines) == ({2: ("0012", " 甲\n乙 ", "12.5", "2024-01-01")}, {})


def test_strict_workbooks_and_other_spellings_of_parts_are_read(tmp_path: Path, fines: Catalog) -> None:
    record = row(text("A"), text("甲"), number("1"), text("2024-01-01"))
    path = workbook(tmp_path / "a.xlsx", sheet(HEADER, record))
    strict = tmp_path / "strict.xlsx"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(strict, "w") as new:
        for name in old.namelist():
            data = old.read(name).replace(MAIN.encode(), b"http://purl.oclc.org/ooxml/spreadsheetml/main")
            data = data.replace(
                b"http://schemas.openxmlformats.org/officeDocument/2006/relationships",
                b"http://purl.oclc.org/ooxml/officeDocument/relationships",
            )
            new.writestr(name.replace("/", "\\").replace("worksheets", "WorkSheets"), data)
    assert read(strict, fines) == read(path, fines) != ({}, {})


BILLION = '<!DOCTYPE lolz [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
EXTERNAL = '<!DOCTYPE x SYSTEM "file:///etc/passwd">'


@pytest.mark.parametrize("attack", [BILLION, EXTERNAL])
@pytest.mark.parametrize(
    "part", ["xl/worksheets/sheet1.xml", "xl/sharedStrings.xml", "xl/styles.xml", "xl/workbook.xml"]
)
def test_a_document_type_is_refused_wherever_it_stands(tmp_path: Path, fines: Catalog, attack: str, part: str) -> None:
    path = workbook(tmp_path / "x.xlsx", sheet(HEADER, row(text("A"))), styles=styles(), strings=strings("<t>&lt;</t>"))
    hostile = tmp_path / "hostile.xlsx"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(hostile, "w") as new:
        for name in old.namelist():
            data = old.read(name).decode()
            new.writestr(name, data.replace(HEAD, HEAD + attack) if name == part else data)
    assert refusal(hostile, fines).code == "xlsx.dtd"


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, fines: Catalog) -> None:
    filler = "<row>" + " " * (40 << 20) + "</row>"
    error = refusal(workbook(tmp_path / "b.xlsx", sheet(HEADER, filler)), fines)
    assert error.code == "xlsx.ratio"
    assert "300" in error.zh
    assert (
        refusal(
            workbook(tmp_path / "b.xlsx", sheet(HEADER), strings=strings("<t>" + "a" * (40 << 20) + "</t>")), fines
        ).code
        == "xlsx.ratio"
    )


def test_limits_on_strings_rows_and_parts_are_named(
    tmp_path: Path, fines: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sheet(HEADER, row(text("A" * 900), text("B" * 900)))
    path = workbook(tmp_path / "l.xlsx", data, strings=strings(*["<t>abcdefghij</t>"] * 100))
    for module, name, limit, code in (
        (xlsxsheet, "MAX_STRINGS", 1000, "xlsx.size"),
        (xlsxsheet, "MAX_ROW_CHARS", 1000, "xlsx.row_size"),
        (xlsxsheet, "MAX_STRING", 5, "xlsx.damaged"),
        (xlsxparts, "MAX_PART", 100, "xlsx.size"),
        (xlsxparts, "MAX_SMALL", 100, "xlsx.size"),
        (xlsxparts, "MAX_PARTS", 2, "xlsx.size"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, limit)
            assert refusal(path, fines).code == code, name
    assert list(read(path, fines)[0]) == [2]


def test_one_string_in_thousands_of_cells_stays_within_a_rows_limit(tmp_path: Path, fines: Catalog) -> None:
    many = row(*['<c t="s"><v>0</v></c>'] * 16_000)
    path = workbook(tmp_path / "m.xlsx", sheet(HEADER, many), strings=strings("<t>" + "长" * 30_000 + "</t>"))
    assert refusal(path, fines).code == "xlsx.row_size"


def test_a_tag_without_end_is_stopped(tmp_path: Path, fines: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsxparts, "MAX_TOKEN", 1 << 20)
    rows = sheet(HEADER, f'<row spans="{"1 " * (2 << 20)}"/>')
    error = refusal(workbook(tmp_path / "t.xlsx", rows, compression=zipfile.ZIP_STORED), fines)
    assert (error.code, "without end" in error.en) == ("xlsx.damaged", True)


def test_a_sheet_of_a_million_rows_is_read_in_bounded_memory(tmp_path: Path, fines: Catalog) -> None:
    body = "".join(row(at=n) for n in range(2, 1_048_576, 3))
    record = row(text("A"), text("甲"), number("1"), text("2024-01-01"), at=1_048_576)
    path = workbook(tmp_path / "big.xlsx", sheet(HEADER, body, record, before='<dimension ref="A1:XFD1048576"/>'))
    tracemalloc.start()
    found, _ = read(path, fines)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert list(found) == [1_048_576]
    assert peak < 24 << 20


@pytest.mark.parametrize(
    ("how", "code"),
    [("short", "xlsx.damaged"), ("flipped", "xlsx.damaged"), ("twice", "xlsx.damaged"), ("encrypted", "xlsx.encrypted"),
     ("zip", "file.kind"), ("ods", "file.kind"), ("docx", "file.kind"), ("xlsb", "file.kind"), ("no sheet", "xlsx.damaged"),
     ("lost part", "xlsx.damaged"), ("utf16", "xlsx.damaged")],
)  # fmt: skip
def test_what_is_no_whole_workbook_is_refused(tmp_path: Path, fines: Catalog, how: str, code: str) -> None:
    good = sheet(HEADER, row(text("A"), text("甲" * 4000)))
    path = workbook(tmp_path / "g.xlsx", good, compression=zipfile.ZIP_STORED)
    data = path.read_bytes()
    if how == "short":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        at = data.index("甲甲".encode())
        path.write_bytes(data[:at] + b"\xe4\xb9\x99" + data[at + 3 :])
    elif how == "twice":
        workbook(path, good, extra={"XL/workbook.xml": "<a/>"})
    elif how == "encrypted":
        with zipfile.ZipFile(path) as file:
            marks = [part.header_offset for part in file.infolist()]
        raw = bytearray(data)
        for at in [*(mark + 6 for mark in marks), *(n + 8 for n in range(len(raw)) if raw.startswith(b"PK\1\2", n))]:
            raw[at] |= 1
        path.write_bytes(raw)
    elif how in ("zip", "ods", "docx", "xlsb"):
        relations = (
            '<Relationships xmlns="p"><Relationship Id="a" Type="x/officeDocument" Target="{}"/></Relationships>'
        )
        parts: Mapping[str, Mapping[str, str]] = {
            "zip": {"B1.csv": "a,b"},
            "ods": {"mimetype": "application/vnd.oasis.opendocument.spreadsheet", "content.xml": "<a/>"},
            "docx": {"_rels/.rels": relations.format("word/document.xml"), "word/document.xml": "<a/>"},
            "xlsb": {"_rels/.rels": relations.format("xl/workbook.bin"), "xl/workbook.bin": "x"},
        }
        with zipfile.ZipFile(path, "w") as file:
            for name, content in parts[how].items():
                file.writestr(name, content)
    elif how == "no sheet":
        workbook(path, {})
    elif how == "lost part":
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "l.xlsx", "w") as new:
            for name in old.namelist():
                if "sheet1" not in name:
                    new.writestr(name, old.read(name))
        path = tmp_path / "l.xlsx"
    else:
        encoded = good.replace("UTF-8", "UTF-16").encode("utf-16")
        workbook(path, good, extra={})
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "u.xlsx", "w") as new:
            for name in old.namelist():
                new.writestr(name, encoded if "sheet1" in name else old.read(name))
        path = tmp_path / "u.xlsx"
    assert refusal(path, fines).code == code


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path, fines: Catalog) -> None:
    path = workbook(tmp_path / "c.xlsx", sheet(HEADER, row(text("A"))))
    with open_file(path, fines) as file:
        assert len(list(file.scan())) == 1
        with path.open("ab") as more:
            more.write(b"x")
        with pytest.raises(InputError) as caught:
            list(file.scan())
    assert caught.value.code == "xlsx.changed"
