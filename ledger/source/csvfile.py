"""CSV files into chunks: RFC 4180, UTF-8 (with or without byte order mark) or GB18030 (design section 7, formats F2).

A file that cannot be read for certain (encoding of the header, columns, quoting) is refused as a whole. A row that
cannot be read (too short, too long, damaged bytes, unknown operation) is carried as a refused row with its line, so
that all bad rows can be listed or set aside. Blocks whose quoting is regular go through the compiled part, or Arrow's
reader; all others through `csvsyntax.Parser`, which reads the same rows.
"""

from __future__ import annotations

import codecs
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

from ledger.catalog import Catalog
from ledger.errors import InputError
from ledger.kernel.chunk import Chunk
from ledger.record import Unreadable, shown
from ledger.source.compiled import Cut
from ledger.source.compressed import about_lines, open_stream
from ledger.source.csvblocks import (
    BLOCK_BYTES,
    Block,
    advice_en,
    advice_zh,
    blocks,
    encoding_of,
    utf8_reader,
)
from ledger.source.csvheader import LOOKED_AT, Header, resolve_header
from ledger.source.csvsyntax import Parser, Plain, Record
from ledger.source.rows import assembled, strings, wrong_width

_ESCAPE = {"utf-8": "surrogateescape", "gb18030": "surrogatepass"}
"""How bytes that are not text come through: as surrogates, decoded here from UTF-8, or already by the GB18030
decoder."""


class CsvFile:
    """One file, opened and its header understood; a context manager. See `open_csv`."""

    def __init__(
        self,
        path: Path,
        catalog: Catalog,
        encoding: str,
        operation_column: str | None,
        header_row: int,
        block_bytes: int,
    ) -> None:
        self.catalog = catalog
        self.notes: Sequence[tuple[str, str]] = ()
        self._path = path
        self._encoding = encoding_of(encoding, str(path))
        self._header_row = header_row
        self._block_bytes = block_bytes
        self._file = open_stream(path)
        try:
            self._state = self._stat()
            all_blocks = self._blocks()
            header = next(all_blocks)
            cells = self._header_cells(header)
            self.header: Header = resolve_header(
                catalog, cells, operation_column, f"{path}:{header.first_line}", self._first_rows(all_blocks)
            )
        except BaseException:
            self._file.close()
            raise

    @property
    def where(self) -> str:
        """The path."""
        return str(self._path)

    @property
    def ignored(self) -> Sequence[str]:
        """Columns that are neither declared nor operation nor reason."""
        return self.header.ignored

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def about_rows(self) -> int | None:
        """By the length of the lines at the beginning; None for a compressed file."""
        return about_lines(self._path)

    def scan(self) -> Iterator[Chunk]:
        """All rows, in the file's order; `Chunk.numbers` are physical lines, the first line is 1, `Chunk.raw` is there.

        InputError `csv.quote`, `csv.row_size`; `csv.changed` if the file changed since it was opened.
        """
        all_blocks = self._blocks()
        next(all_blocks)
        for block in all_blocks:
            chunk = self._chunk(block)
            if len(chunk):
                yield chunk
        if self._stat() != self._state:
            raise InputError(
                "csv.changed",
                "读取期间文件被修改，请重新运行",
                "the file changed while it was read; run again",
                self.where,
            )

    def _stat(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns

    def _blocks(self) -> Iterator[Block]:
        fill = utf8_reader(self._file, self._encoding, self.where)
        return blocks(fill, self.where, self._block_bytes, self._header_row)

    def _first_rows(self, rest: Iterator[Block]) -> Iterator[tuple[int, Sequence[str]]]:
        try:
            block = next(rest, None)
            if block is None:
                return
            if block.cut is not None:
                cut = block.cut
                for row, line in enumerate((cut.lines[:LOOKED_AT] + block.first_line).tolist()):
                    odd = row in cut.odd
                    found = self._odd(cut, row, line).cells if odd else [column[row].as_py() for column in cut.columns]
                    yield line, [self._text(cell) for cell in found]
                return
            parser = Parser(block.data, final=True, where=self.where, first_line=block.first_line)
            records = parser.records() if block.plain is not None else iter(block.records)
            for record in itertools.islice(records, LOOKED_AT):
                yield block.first_line + record.line, [self._text(cell) for cell in record.cells]
        except InputError:
            # They are only looked at for advice; that the header does not fit is what there is to say.
            return

    def _text(self, cell: bytes) -> str:
        return cell.decode("utf-8", _ESCAPE[self._encoding])

    def _header_cells(self, block: Block) -> list[str]:
        record = block.records[0]
        where = f"{self.where}:{block.first_line}"
        cells = [self._text(cell) for cell in record.cells]
        if not all(_is_text(cell) for cell in cells):
            raise InputError(
                "csv.encoding",
                f"表头不是 {self._encoding.upper()} 文字；{advice_zh(self._encoding)}",
                f"the header is not text in {self._encoding.upper()}; {advice_en(self._encoding)}",
                where,
            )
        if record.bare_quote or any("\0" in cell for cell in cells):
            raise InputError(
                "csv.header",
                "表头含有未加引号的引号或 U+0000；这可能不是 CSV 文件",
                "the header holds a quote outside quotes, or U+0000; this may not be a CSV file",
                where,
            )
        return cells

    def _chunk(self, block: Block) -> Chunk:
        if block.cut is not None:
            return self._from_cut(block.cut, block.first_line)
        if block.plain is not None:
            columns = self._read_plain(block.data, block.plain)
            if columns is not None:
                return self._assembled(columns, block.plain.lines + block.first_line, {}, {})
            parser = Parser(block.data, final=True, where=self.where, first_line=block.first_line)
            return self._from_records(list(parser.records()), block.first_line)
        return self._from_records(block.records, block.first_line)

    def _read_plain(self, data: bytes, plain: Plain) -> list[Any] | None:
        """The columns by Arrow's reader; None where it cannot read every row (length, bytes), or drops what looks
        like a mark."""
        names = [str(place) for place in range(len(self.header.cells))]
        if data.startswith(codecs.BOM_UTF8):
            return None
        if not len(plain.lines):
            return [pa.array([], pa.string()) for _ in names]
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(pa.py_buffer(data)),
                arrow_csv.ReadOptions(column_names=names, block_size=len(data) + 1),
                arrow_csv.ParseOptions(newlines_in_values=plain.quoted_line_breaks),
                arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
            )
        except pa.ArrowInvalid:
            return None
        if table.num_rows != len(plain.lines):
            return None
        return [table.column(name).combine_chunks() for name in names]

    def _from_cut(self, cut: Cut, first_line: int) -> Chunk:
        refused: dict[int, Unreadable] = {}
        odd: dict[int, list[str]] = {}
        columns = list(cut.columns)
        if cut.odd:
            kept = []
            for row in cut.odd:
                record = self._odd(cut, row, first_line + int(cut.lines[row]))
                kept.append(self._read(record, row, refused, odd))
            mask = np.zeros(len(cut.lines), np.bool_)
            mask[list(cut.odd)] = True
            parts = (
                pa.array([cells[place] for cells in kept], pa.string()).view(pa.binary())
                for place in range(len(columns))
            )
            columns = [
                pc.replace_with_mask(column, pa.array(mask), part) for column, part in zip(columns, parts, strict=True)
            ]
        return self._assembled([column.view(pa.string()) for column in columns], cut.lines + first_line, refused, odd)

    def _odd(self, cut: Cut, row: int, line: int) -> Record:
        (record,) = Parser(cut.odd[row], final=True, where=self.where, first_line=line).records()
        return record

    def _from_records(self, records: Sequence[Record], first_line: int) -> Chunk:
        columns: list[list[str | None]] = [[] for _ in self.header.cells]
        refused: dict[int, Unreadable] = {}
        odd: dict[int, list[str]] = {}
        for row, record in enumerate(records):
            for column, cell in zip(columns, self._read(record, row, refused, odd), strict=True):
                column.append(cell)
        lines = np.array([record.line for record in records], np.int64) + first_line
        return self._assembled([strings(column) for column in columns], lines, refused, odd)

    def _read(
        self, record: Record, row: int, refused: dict[int, Unreadable], odd: dict[int, list[str]]
    ) -> Sequence[str | None]:
        """The cells of one record that could be read; what could not, is added to `refused` and `odd`."""
        width = len(self.header.cells)
        cells = [self._text(cell) for cell in record.cells]
        if len(cells) != width:
            refused[row], odd[row] = wrong_width(len(cells), width), cells
            return [None] * width
        if record.bare_quote:
            # Its cells may be cut in the wrong places, so none of them counts.
            refused[row], odd[row] = _BARE_QUOTE, cells
            return [None] * width
        if all(_is_text(cell) for cell in cells):
            return cells
        refused[row], odd[row] = self._damaged(cells), cells
        return [cell if _is_text(cell) else None for cell in cells]

    def _damaged(self, cells: Sequence[str]) -> Unreadable:
        place = next(place for place, cell in enumerate(cells) if not _is_text(cell))
        name = next((name for name, at in self.header.fields.items() if at == place), None)
        value = "" if name is None else shown(self.catalog.by_name[name], cells[place])
        encoding = self._encoding
        return Unreadable(
            name or self.header.cells[place],
            value,
            "row.encoding",
            f"不是 {encoding.upper()} 文字；{advice_zh(encoding)}",
            f"is not text in {encoding.upper()}; {advice_en(encoding)}",
        )

    def _assembled(
        self,
        columns: Sequence[Any],
        lines: NDArray[np.int64],
        refused: dict[int, Unreadable],
        odd: dict[int, list[str]],
    ) -> Chunk:
        return assembled(self.catalog, self.header, columns, lines, refused, odd)


def open_csv(
    path: Path,
    catalog: Catalog,
    *,
    encoding: str = "utf-8",
    operation_column: str | None = None,
    header_row: int = 1,
    block_bytes: int = BLOCK_BYTES,
) -> CsvFile:
    """Open a file of `catalog`'s records, plain or compressed, checking its header; use it in a `with` statement.

    encoding          `utf-8` (one byte order mark is dropped) or `gb18030`
    operation_column  see `csvheader.resolve_header`
    header_row        the physical line on which the header starts; empty lines from there on are skipped

    InputError `csv.<rule>`: `file encoding encoding_name empty header header_repeated column_missing column_shared
    column_twice operation_column reason_column quote row_size`. Rows are refused, in their chunk, as `row.short long
    quote encoding operation reason`, and with the kernel's own codes where digits are in full width. A compressed file
    is refused as `compressed.<rule>`, while it is read. To write rows of `Chunk.raw` as they came, use the file's encoding with
    `surrogateescape`.
    """
    return CsvFile(Path(path), catalog, encoding, operation_column, header_row, block_bytes)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_BARE_QUOTE = Unreadable(
    "",
    "",
    "row.quote",
    "未加引号的单元格中有引号：含引号的值须整体加引号，其中的引号写成两个（RFC 4180）",
    "a quote stands in an unquoted cell: quote the whole cell and double the quotes inside (RFC 4180)",
)
