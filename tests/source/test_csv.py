"""CSV files: what is read, what is refused as a whole, and which rows are refused."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.catalog import Catalog, parse_catalog
from ledger.errors import InputError
from ledger.kernel.chunk import Chunk
from ledger.source import csvblocks
from ledger.source.csvfile import open_csv
from ledger.source.csvsyntax import Parser, Record

Write = Callable[[bytes | str], Path]
RowsOf = Callable[[Iterable[Chunk]], list[tuple[str | None, ...]]]
pytestmark = pytest.mark.usefixtures("readers")
HEADER = "no,holder,fee,decided\n"
ROW = "1,a,2,2024-01-01\n"


def refusal(path: Path, catalog: Catalog, **more: str) -> InputError:
    with pytest.raises(InputError) as caught, open_csv(path, catalog, **more) as file:
        list(file.scan())
    assert caught.value.zh
    return caught.value


def only_chunk(path: Path, catalog: Catalog, **more: Any) -> Chunk:
    with open_csv(path, catalog, **more) as file:
        (chunk,) = file.scan()
    return chunk


@pytest.mark.parametrize(
    "header",
    [
        "no,holder,fee,decided",
        "文书号,相对人,罚款,日期",
        " no ,\u3000相对人\t,fee,日期",
        "\ufeffno,holder,fee,decided",
        '"no","holder","fee","decided"\r',
        "\n\nno,holder,fee,decided",
    ],
)
def test_fields_are_found_by_name_or_title(write: Write, fines: Catalog, rows_of: RowsOf, header: str) -> None:
    chunk = only_chunk(write(f"{header}\n{ROW}"), fines)
    assert rows_of([chunk]) == [("1", "a", "2", "2024-01-01")]
    assert chunk.numbers.tolist() == [4 if header.startswith("\n") else 2]


def test_columns_may_stand_in_any_order_and_others_are_named(write: Write, fines: Catalog, rows_of: RowsOf) -> None:
    path = write("decided,备注,fee,holder,no,\n2024-01-01,x,2,a,1,\n")
    with open_csv(path, fines) as file:
        assert file.ignored == ("备注", "#6")
        (chunk,) = file.scan()
    assert rows_of([chunk]) == [("1", "a", "2", "2024-01-01")]
    assert chunk.raw is not None
    assert chunk.raw.row(0) == ["2024-01-01", "x", "2", "a", "1", ""]


@pytest.mark.parametrize(
    ("header", "code", "named"),
    [
        ("no,holder,fee", "csv.column_missing", "decided (日期)"),
        ("no,fee", "csv.column_missing", "holder (相对人), decided (日期)"),
        ("no,文书号,holder,fee,decided", "csv.column_twice", "no and 文书号"),
        ("no,holder,fee,decided,fee", "csv.header_repeated", "columns 3 and 5"),
        ("no,holder,fee,decided,x, x ", "csv.header_repeated", "columns 5 and 6"),
        ("no,holder,fee,decided,,", "csv.header_repeated", "an empty name"),
        ('no,hol"der,fee,decided', "csv.header", "a quote outside quotes"),
        ("no\0,holder,fee,decided", "csv.header", "U+0000"),
    ],
)
def test_a_header_that_does_not_fit_is_refused_by_name(
    write: Write, fines: Catalog, header: str, code: str, named: str
) -> None:
    error = refusal(write(f"{header}\n{ROW}"), fines)
    assert error.code == code
    assert named in error.en
    assert error.where.endswith("fines.csv:1")


def test_two_fields_of_one_title_are_refused_on_one_column(write: Write) -> None:
    catalog = parse_catalog(
        b'id = "t"\nversion = 1\nkey = ["a"]\nfield = [{ name = "a", type = "text", title = "x" }, '
        b'{ name = "b", type = "text", title = "x" }]',
        "t",
    )
    assert refusal(write("x\n1\n"), catalog).code == "csv.column_shared"


def test_a_title_that_is_another_fields_name_gives_the_column_to_that_field(write: Write, rows_of: RowsOf) -> None:
    catalog = parse_catalog(
        b'id = "t"\nversion = 1\nkey = ["a"]\nfield = [{ name = "a", type = "text", title = "b" }, '
        b'{ name = "b", type = "text" }]',
        "t",
    )
    assert rows_of([only_chunk(write("a,b\n1,2\n"), catalog)]) == [("1", "2")]
    assert refusal(write("b\n1\n"), catalog).code == "csv.column_missing"


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_a_file_without_a_header_is_refused(write: Write, fines: Catalog, content: str) -> None:
    assert refusal(write(content), fines).code == "csv.empty"


@pytest.mark.parametrize("content", [HEADER, HEADER.strip(), HEADER + "\n\r\n\n"])
def test_a_file_of_only_a_header_has_no_rows(write: Write, fines: Catalog, content: str) -> None:
    with open_csv(write(content), fines) as file:
        assert list(file.scan()) == []


def test_a_header_in_another_encoding_is_refused_with_advice(write: Write, fines: Catalog) -> None:
    gb = write("文书号,相对人,罚款,日期\n".encode("gb18030"))
    error = refusal(gb, fines)
    assert error.code == "csv.encoding"
    assert "--encoding gb18030" in error.en
    assert "--encoding gb18030" in error.zh
    assert refusal(write("\ufeff" + HEADER), fines, encoding="gb18030").code == "csv.encoding"
    assert refusal(write(HEADER.encode("utf-16")), fines).code == "csv.encoding"
    assert refusal(write(HEADER), fines, encoding="latin-1").code == "csv.encoding_name"


def test_the_mark_of_gb18030_is_dropped_once(write: Write, fines: Catalog, rows_of: RowsOf) -> None:
    chunk = only_chunk(write(("\ufeff" + HEADER + ROW).encode("gb18030")), fines, encoding="gbk")
    assert rows_of([chunk]) == [("1", "a", "2", "2024-01-01")]


def test_only_one_mark_is_dropped(write: Write, fines: Catalog) -> None:
    assert refusal(write("\ufeff\ufeff" + HEADER), fines).code == "csv.column_missing"


def test_bad_rows_are_all_carried_with_line_and_reason(write: Write, fines: Catalog, rows_of: RowsOf) -> None:
    path = write(
        HEADER.encode() + b'1,"a\nb",2,2024-01-01\n2,short\n\n3,a,2,2024-01-01,long\n4,a"b,2,2024-01-01\n'
        b"5,\xd6\xd0,2,2024-01-01\n" + "6,好,2,2024-01-01\n".encode()
    )
    with open_csv(path, fines) as file:
        chunks = list(file.scan())
    assert [line for chunk in chunks for line in chunk.numbers.tolist()] == [2, 4, 6, 7, 8, 9]
    refused = {int(chunk.numbers[row]): why for chunk in chunks for row, why in chunk.refused.items()}
    assert {line: why.code for line, why in refused.items()} == {
        4: "row.short", 6: "row.long", 7: "row.quote", 8: "row.encoding",
    }  # fmt: skip
    assert (refused[8].field, refused[8].value) == ("holder", "***")
    assert "--encoding gb18030" in refused[8].en
    assert rows_of(chunks)[4] == ("5", None, "2", "2024-01-01")
    raw = [chunk.raw.row(row) for chunk in chunks if chunk.raw is not None for row in range(len(chunk))]
    assert raw[1] == ["2", "short"]
    # Damaged bytes can be written as they came.
    assert ",".join(raw[4]).encode("utf-8", "surrogateescape") == b"5,\xd6\xd0,2,2024-01-01"
    assert raw[5] == ["6", "好", "2", "2024-01-01"]


def test_damage_in_a_column_nobody_reads_still_refuses_the_row(write: Write, fines: Catalog) -> None:
    chunk = only_chunk(write((HEADER.strip() + ",other\n").encode() + b"1,a,2,2024-01-01,\xff\n"), fines)
    assert (chunk.refused[0].field, chunk.refused[0].value) == ("other", "")


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ('1,a,2,2024-01-01\n2,"never closed,2,2024-01-01\n3,a,2,2024-01-01\n', 3),
        ('1,"a\nb",2,2024-01-01\n2,"text after"x,2,2024-01-01\n', 4),
        ('1,"a,2,2024-01-01\n2,"b",2,2024-01-01\n', 2),
    ],
)
def test_unbalanced_quotes_name_the_line_where_the_quote_opened(
    write: Write, fines: Catalog, rows: str, line: int
) -> None:
    error = refusal(write(HEADER + rows), fines)
    assert error.code == "csv.quote"
    assert error.where.endswith(f"fines.csv:{line}")
    assert f"第 {line} 行" in error.zh


def test_a_quote_that_swallows_the_file_stops_at_the_greatest_row(
    write: Write, fines: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csvblocks, "MAX_ROW_BYTES", 1000)
    path = write(HEADER + ROW + '2,"' + "a,b\n" * 2000)
    with pytest.raises(InputError) as caught, open_csv(path, fines, block_bytes=100) as file:
        list(file.scan())
    assert (caught.value.code, caught.value.where) == ("csv.quote", f"{path}:3")
    with pytest.raises(InputError) as caught, open_csv(write(HEADER + "x" * 5000), fines, block_bytes=100) as file:
        list(file.scan())
    assert (caught.value.code, caught.value.where) == ("csv.row_size", f"{path}:2")
    with pytest.raises(InputError, match="more than"):
        open_csv(write("x" * 5000), fines, block_bytes=100)


def test_a_very_long_value_is_read_whole(write: Write, fines: Catalog) -> None:
    long = "长" * 700_000
    chunk = only_chunk(write(HEADER + f"1,{long},2,2024-01-01\n"), fines)
    assert chunk.fields["holder"][0].as_py() == long


def test_withdrawals_and_upserts_are_told_apart(write: Write, fines: Catalog) -> None:
    chunk = only_chunk(
        write(
            "operation,reason,no,holder,fee,decided\nupsert,,1,a,2,2024-01-01\nwithdraw,revoked,2,,,\n withdraw ,\trepaired,3,,,\n"
            "withdraw,,4,,,\nwithdraw,sold,5,,,\nremove,,6,,,\n,,7,a,2,2024-01-01\nUpsert,,8,a,2,2024-01-01\n"
        ),
        fines,
    )
    assert chunk.withdrawals == {1: "revoked", 2: "repaired"}
    assert {row: why.code for row, why in chunk.refused.items()} == {
        3: "row.reason", 4: "row.reason", 5: "row.operation", 6: "row.operation", 7: "row.operation",
    }  # fmt: skip


def test_a_refused_row_does_not_withdraw(write: Write, fines: Catalog) -> None:
    content = b"operation,reason,no,holder,fee,decided\n" + b"withdraw,revoked,2,\xff,,\nwithdraw,revoked\n"
    chunk = only_chunk(write(content), fines)
    assert chunk.withdrawals == {}
    assert [why.code for why in chunk.refused.values()] == ["row.encoding", "row.short"]


def test_withdrawals_without_a_reason_column_are_refused(write: Write, fines: Catalog) -> None:
    chunk = only_chunk(write("operation,no,holder,fee,decided\nwithdraw,2,,,\n"), fines)
    assert chunk.refused[0].code == "row.reason"


def test_the_operation_column_can_be_named_or_denied(write: Write, fines: Catalog) -> None:
    path = write("操作,operation,reason,no,holder,fee,decided\nwithdraw,a,revoked,2,,,\n")
    assert only_chunk(path, fines, operation_column="操作").withdrawals == {0: "revoked"}
    with open_csv(path, fines, operation_column="操作") as file:
        assert file.ignored == ("operation",)
    with open_csv(path, fines, operation_column="") as file:
        assert file.ignored == ("操作", "operation", "reason")
        assert next(file.scan()).refused == {}
    assert "there is no operation column op" in refusal(path, fines, operation_column="op").en


@pytest.mark.parametrize("header", ["no,operation", "no,操作类型"])
def test_a_field_in_the_operation_column_must_be_settled(write: Write, rows_of: RowsOf, header: str) -> None:
    title = "operation" if header == "no,operation" else "操作类型"
    catalog = parse_catalog(
        'id = "t"\nversion = 1\nkey = ["no"]\nfield = [{ name = "no", type = "text" }, '
        f'{{ name = "what", title = "{title}", type = "text" }}]'.encode(),
        "t",
    )
    path = write(f"{header}\n1,withdraw\n")
    if title == "operation":
        error = refusal(path, catalog)
        assert error.code == "csv.operation_column"
        assert "--operation-column" in error.en
    else:
        assert refusal(path, catalog, operation_column=title).code == "csv.operation_column"
    assert rows_of([only_chunk(path, catalog, operation_column="")]) == [("1", "withdraw")]


def test_a_field_in_the_reason_column_beside_operations_is_refused(write: Write, rows_of: RowsOf) -> None:
    catalog = parse_catalog(
        b'id = "t"\nversion = 1\nkey = ["no"]\nfield = [{ name = "no", type = "text" }, { name = "reason", type = "text" }]',
        "t",
    )
    assert refusal(write("operation,no,reason\nupsert,1,x\n"), catalog).code == "csv.reason_column"
    assert rows_of([only_chunk(write("no,reason\n1,x\n"), catalog)]) == [("1", "x")]


def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path, fines: Catalog) -> None:
    assert "no such file" in refusal(tmp_path / "none.csv", fines).en
    assert "a folder" in refusal(tmp_path, fines).en


def test_a_file_that_changes_while_it_is_read_is_refused(write: Write, fines: Catalog) -> None:
    path = write(HEADER + ROW)
    with open_csv(path, fines) as file:
        chunks = file.scan()
        next(chunks)
        os.utime(path, ns=(1, 1))
        with pytest.raises(InputError, match="changed while"):
            next(chunks)


def test_a_file_can_be_scanned_again(write: Write, fines: Catalog, rows_of: RowsOf) -> None:
    with open_csv(write(HEADER + ROW * 3), fines) as file:
        assert rows_of(file.scan()) == rows_of(file.scan()) == [("1", "a", "2", "2024-01-01")] * 3


@pytest.mark.parametrize("title", ["标题", "标题,,", "标题,,,", "标题,,,,", '"标题\n二行",,,'])
def test_a_header_below_a_title_of_any_width_is_pointed_out(write: Write, fines: Catalog, title: str) -> None:
    error = refusal(write(f"{title}\n{HEADER}{ROW}"), fines)
    number = 2 + title.count("\n")
    assert error.code == "csv.column_missing" or (error.code, title) == ("csv.header_repeated", title)
    assert f"--header-row {number}" in error.en


@pytest.mark.parametrize("bad", [b"1,a,2", b"1,a,2,3,4", b'1,a"b,2,3', b"1,\xff,2,3"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_one_bad_row_does_not_make_the_others_slow(
    write: Write, fines: Catalog, monkeypatch: pytest.MonkeyPatch, readers: str, bad: bytes, end: bytes
) -> None:
    lines = [HEADER.encode().strip()] + [b"%d,a,2,2024-01-01" % n for n in range(2000)]
    lines[1000] = bad
    looked_at: list[int] = []
    parse = Parser.records

    def records(self: Parser) -> Iterator[Record]:
        looked_at.append(len(self.data))
        return parse(self)

    monkeypatch.setattr(Parser, "records", records)
    with open_csv(write(end.join([*lines, b""])), fines) as file:
        chunks = list(file.scan())
    assert [int(chunk.numbers[row]) for chunk in chunks for row in chunk.refused] == [1001]
    assert sum(map(len, chunks)) == 2000
    # The header, when the file is opened and when it is read, and the row itself.
    assert readers == "reference" or looked_at[2:] == [len(bad)]


@pytest.mark.parametrize("quote", [b"", b'"x"y'])
def test_memory_does_not_grow_with_the_file(write: Write, fines: Catalog, quote: bytes) -> None:
    def peak(rows: int) -> int:
        # A bare quote in each line makes every record odd, which costs the most.
        line = b"1,a" + quote[:1] + b"b,2,2024-01-01\n"
        path = write(HEADER.encode() + line * rows)
        tracemalloc.start()
        with open_csv(path, fines, block_bytes=1 << 14) as file:
            assert sum(len(chunk) for chunk in file.scan()) == rows
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    # Twice: what is imported on the way is not counted.
    peak(4_000)
    assert peak(16_000) < 1.3 * peak(4_000)
