"""CSV taken apart: the plain and the careful path agree with each other and with Python's reader."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledger.catalog import Catalog
from ledger.errors import InputError
from ledger.kernel.chunk import Chunk
from ledger.source import compiled, csvblocks
from ledger.source.csvfile import open_csv
from ledger.source.csvsyntax import Parser, Plain, find_plain

pytestmark = pytest.mark.usefixtures("compiled_part")
HEADER = b"no,holder,fee,decided\n"
Row = tuple[int, tuple[str | None, ...], str, tuple[str, ...]]


@contextmanager
def careful_path_only() -> Iterator[None]:
    with plain_path_only(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(csvblocks, "find_plain", lambda data, final: None)
        yield


@contextmanager
def plain_path_only() -> Iterator[None]:
    """What is regular goes through Arrow's reader, not the compiled part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "csv", lambda: None)
        yield


def rows_in(data: bytes, catalog: Catalog, block_bytes: int = 1 << 20, encoding: str = "utf-8") -> list[Row] | str:
    """Line, declared fields, reason of refusal and delivered cells of each row; or the code and place of the error."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "f.csv")
        path.write_bytes(data)
        try:
            with open_csv(path, catalog, block_bytes=block_bytes, encoding=encoding) as file:
                return [row for chunk in file.scan() for row in rows_of(chunk)]
        except InputError as error:
            return f"{error.code} {error.where.removeprefix(str(path))}"


def rows_of(chunk: Chunk) -> Iterable[Row]:
    assert chunk.raw is not None
    cells = chunk.raw.rows(range(len(chunk)))
    for row, line in enumerate(chunk.numbers.tolist()):
        why = chunk.refused.get(row)
        fields = tuple(column[row].as_py() for column in chunk.fields.values())
        assert chunk.raw.row(row) == cells[row]
        yield line, fields, why.code if why else "", tuple(cells[row])


# Whatever has a meaning in CSV, in few bytes so that they meet; 0xFF, 0xE4 and 0xEF 0xBB 0xBF to damage text.
piece = st.sampled_from(
    [b",", b",,,", b'"', b'""', b"\n", b"\r\n", b"\r", b"a", b" ", b"\0", b"\xff", b"\xe4\xb8\xad", b"\xe4", b"\xef\xbb\xbf",
     b"1,2,3,4\n", b'"x",2,3,4\r\n', b'1,"a\nb",3,4\n', b"\xed\xa0\x80", b"\xc2\x85", b"\xe2\x80\xa8"]
)  # fmt: skip
body = st.lists(piece, max_size=25).map(b"".join)


@given(data=body, block_bytes=st.integers(1, 40))
@settings(max_examples=250, deadline=None)
@example(data=b'1,"a""b",,\n\n"\n', block_bytes=7)
@example(data=b"\xef\xbb\xbf1,2,3,4\n", block_bytes=len(HEADER))
def test_both_paths_and_any_block_size_give_the_same_rows_or_the_same_error(
    fines: Catalog, data: bytes, block_bytes: int
) -> None:
    with careful_path_only():
        expected = rows_in(HEADER + data, fines)
    with plain_path_only():
        assert rows_in(HEADER + data, fines) == expected
        assert rows_in(HEADER + data, fines, block_bytes) == expected
    assert rows_in(HEADER + data, fines) == expected
    assert rows_in(HEADER + data, fines, block_bytes) == expected


@given(data=body, final=st.booleans())
@settings(max_examples=400, deadline=None)
def test_the_compiled_path_takes_what_the_plain_path_takes(data: bytes, final: bool) -> None:
    width = 4
    cut = compiled.Cutter(width).cut(bytearray(data + b"never looked at,\n"), len(data), final=final)
    parser = Parser(data, final=final, where="f", first_line=1)
    try:
        records = list(parser.records())
    except InputError:
        assert cut is None
        return
    regular = find_plain(data, final=final) is not None and all(
        len(record.cells) == width and all(is_text(cell) for cell in record.cells) for record in records
    )
    if cut is None:
        assert not regular
        return
    # Without `final` a record whose line end might go on is left to the next block, or not.
    known = [record for record in records if record.line < cut.line_count or final]
    rows = list(zip(*map(cells_of, cut.columns), strict=True))
    assert len(rows) == len(known)
    for row, record in enumerate(known):
        good = len(record.cells) == width and not record.bare_quote and all(map(is_text, record.cells))
        assert (row not in cut.odd) is good
        if good:
            assert list(rows[row]) == record.cells
        else:
            (again,) = Parser(cut.odd[row], final=True, where="f", first_line=1).records()
            assert (again.cells, again.bare_quote) == (record.cells, record.bare_quote)
    assert cut.lines.tolist() == [record.line for record in known]
    assert cut.size <= len(data)
    assert not final or (cut.size, cut.line_count) == (len(data), parser.line)


def is_text(cell: bytes) -> bool:
    try:
        cell.decode()
    except UnicodeDecodeError:
        return False
    return True


def cells_of(column: Any) -> list[bytes]:
    column.validate(full=True)
    return list(column.to_pylist())


cell = st.text(st.sampled_from('a中,"\n\r\t ;\ufeff\u2028é'), max_size=6)
table = st.lists(st.lists(cell, min_size=4, max_size=4), max_size=8)


@given(
    rows=table, end=st.sampled_from(["\n", "\r\n", "\r"]), quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])
)
@settings(max_examples=120, deadline=None)
def test_what_pythons_writer_wrote_is_read_back_with_pythons_line_numbers(
    fines: Catalog, rows: list[list[str]], end: str, quoting: int
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=quoting).writerows([["no", "holder", "fee", "decided"], *rows])  # type: ignore[arg-type]
    reader = csv.reader(io.StringIO(text.getvalue(), newline=""), strict=True)
    next(reader)
    line, expected = reader.line_num + 1, []
    for cells in reader:
        if cells:
            expected.append((line, tuple(cells)))
        line = reader.line_num + 1
    found = rows_in(text.getvalue().encode(), fines, block_bytes=16)
    assert not isinstance(found, str)
    assert [(line, cells) for line, _, _, cells in found] == expected
    # Python's writer leaves a CR unquoted when it quotes no more than it must.
    assert quoting == csv.QUOTE_MINIMAL or rows == [list(cells) for _, _, _, cells in found]


@pytest.mark.parametrize(
    "data",
    [
        b"1,2,3,4",
        b"1,2,3,4\n",
        b'1,"2\n2",3,4\n5,6,7,8\n',
        b'""\n',
        b'"a""b"\n""""\n',
        b"\n\r\n1\n",
        b'"\n"\n',
        b'"a\r\nb"\n',
    ],
)
def test_regular_quoting_takes_the_plain_path(data: bytes) -> None:
    plain = find_plain(data, final=True)
    assert plain is not None
    assert plain.size == len(data)
    parser = Parser(data, final=True, where="f", first_line=1)
    assert plain.lines.tolist() == [record.line for record in parser.records()]
    assert plain.line_count == parser.line


@pytest.mark.parametrize("data", [b'a"b\n', b'"a"b\n', b'a""\n', b'"a\n', b"a\rb\n", b'" "" \n', b'"a" ,b\n'])
def test_irregular_quoting_and_lone_crs_take_the_careful_path(data: bytes) -> None:
    assert find_plain(data, final=True) is None


def test_a_record_cut_off_by_the_block_waits_for_the_rest() -> None:
    plain = find_plain(b'1,2\n3,"4\n', final=False)
    assert plain is not None
    assert (plain.size, plain.lines.tolist(), plain.line_count) == (4, [0], 1)


def test_rows_that_two_readers_count_differently_are_read_carefully(
    fines: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = HEADER + b"1,a,2,3\n4,b,5,6\n"
    expected = rows_in(data, fines)

    def miscounted(data: bytes, *, final: bool) -> Plain | None:
        plain = find_plain(data, final=final)
        return plain and replace(plain, lines=plain.lines[1:])

    monkeypatch.setattr(csvblocks, "find_plain", miscounted)
    with plain_path_only():
        assert rows_in(data, fines) == expected


def test_the_same_rows_come_in_one_block_or_in_many(fines: Catalog) -> None:
    lines = [f'{i},"名,{i}\n第二行",{i}.5,2024-01-01' for i in range(2000)]
    data = HEADER + "\n".join(lines).encode()
    found = rows_in(data, fines)
    assert not isinstance(found, str)
    assert [row[0] for row in found] == list(range(2, 4002, 2))
    assert rows_in(data, fines, block_bytes=1000) == found
    assert rows_in(data.replace(b"\n", b"\r\n"), fines, block_bytes=999) == [
        (
            line,
            tuple((cell or "").replace("\n", "\r\n") for cell in fields),
            why,
            tuple(c.replace("\n", "\r\n") for c in cells),
        )
        for line, fields, why, cells in found
    ]


@pytest.mark.usefixtures("readers")
def test_gb18030_gives_the_rows_of_utf8(fines: Catalog) -> None:
    text = "no,相对人,fee,decided\n" + "".join(f'穗{i}号〔2024〕,"中𠀀文""{i}",{i},2024-01-01\n' for i in range(200))
    expected = rows_in(text.encode(), fines)
    assert not isinstance(expected, str)
    assert expected[0][1][:2] == ("穗0号〔2024〕", '中𠀀文"0')
    for block_bytes in (1, 7, 64, 1 << 20):
        assert rows_in(text.encode("gb18030"), fines, block_bytes, "gb18030") == expected


@given(
    st.lists(
        st.sampled_from(
            [
                b"\x81",
                b"\x30",
                b"\xfe",
                b"\xff",
                b'"',
                b",",
                b"\n",
                b"a",
                "中".encode("gb18030"),
                b"\x80",
                b"\xe4\xb8\xad",
            ]
        ),
        max_size=20,
    ).map(b"".join)
)
@settings(max_examples=120, deadline=None)
def test_damaged_gb18030_is_refused_in_the_same_rows_whatever_the_blocks(fines: Catalog, data: bytes) -> None:
    expected = rows_in(HEADER + data, fines, encoding="gb18030")
    assert rows_in(HEADER + data, fines, block_bytes=3, encoding="gb18030") == expected
    if not isinstance(expected, str):
        # Cells that could be read are what Python reads; those of refused rows are the bytes as they came.
        for _, _, why, cells in expected:
            ",".join(cells).encode("gb18030", "surrogateescape" if why else "strict")
