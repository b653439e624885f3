"""A sheet of an .xlsx workbook into chunks: streamed, with limits, each cell as the text it stands for or a refused row.

A row without any value is skipped wherever it stands; hidden and filtered rows count like all others.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from openpyxl.utils import get_column_letter

from ledger.catalog import Catalog, Field
from ledger.errors import InputError
from ledger.kernel.chunk import Chunk
from ledger.record import Refusal, Unreadable, shown
from ledger.source.compressed import open_bytes
from ledger.source.csvheader import LOOKED_AT, Header, resolve_header
from ledger.source.rows import CELL, assembled, strings, wrong_width
from ledger.source.xlsxcells import Cells
from ledger.source.xlsxparts import Package, Sheet
from ledger.source.xlsxsheet import MAX_ROW_CHARS, MAX_ROWS, Cell, SheetRows, Strings, formats_of, row_too_long

CHUNK_CHARS = 4 << 20
MAX_CHUNK_ROWS = 16_384

_HIDDEN = re.compile(rb"""\shidden=["'](?:1|true)["']|<(?:\w+:)?autoFilter\b""")
_NOTE = (
    "工作表有隐藏或筛选的行列：它们同样计入",
    "the sheet has hidden or filtered rows or columns: they count like all others",
)
_MERGED = Unreadable(
    "",
    "",
    "row.merged",
    "该行有合并单元格，其值属于哪一行无法判断；请取消合并并逐行填写",
    "has merged cells, so nobody can say which row a value belongs to; unmerge them and fill in every row",
)

Row = tuple[int, list[Cell]]


class XlsxFile:
    """One sheet of a workbook, opened and its header understood; see `files.RowsFile`.

    InputError `xlsx.<rule>`: those of `xlsxparts.Package`, `sheet_missing`, `sheets` (several hold something),
    `empty`, `header`, `merged_header`, `row_size`, `changed`. Rows are refused as `cell.<rule>` (`xlsxcells.Cells`),
    `row.long`, `row.merged`, `row.operation`, `row.reason`.
    """

    def __init__(
        self,
        path: Path,
        catalog: Catalog,
        *,
        sheet: str | None = None,
        operation_column: str | None = None,
        header_row: int = 1,
    ) -> None:
        self.catalog = catalog
        self._path = path
        self._file = open_bytes(path)
        try:
            self._state = self._stat()
            self._package = Package(self._file, str(path))
            workbook = self._package.workbook()
            chosen = self._choose(workbook.sheets, sheet)
            self._where = str(path) if len(workbook.sheets) == 1 else f"{path}[{chosen.name}]"
            self._package.where = self._where
            strings_part = Strings(self._package, workbook.strings)
            formats = formats_of(self._package, workbook.styles)
            self._cells = Cells(strings_part, formats, from_1904=workbook.from_1904)
            self._sheet = SheetRows(self._package, chosen.part)
            merges = self._survey(chosen.part)
            self.header: Header = self._find_header(header_row, operation_column, merges)
            self._merged = _marked(merges, len(self.header.cells))
            self._fields = self._field_of_column()
        except BaseException:
            self._file.close()
            raise

    @property
    def where(self) -> str:
        """The path, and the sheet if the workbook has several."""
        return self._where

    @property
    def ignored(self) -> Sequence[str]:
        """Columns that are neither declared nor operation nor reason."""
        return self.header.ignored

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def about_rows(self) -> int | None:
        """None: what a workbook says of its size need not be so."""
        return None

    def scan(self) -> Iterator[Chunk]:
        """All rows below the header that hold something; `Chunk.numbers` are the sheet's row numbers."""
        rows: list[Row] = []
        size = 0
        for number, cells in self._sheet:
            if number <= self._header_number:
                continue
            rows.append((number, cells))
            size += self._size(number, cells)
            if size > CHUNK_CHARS or len(rows) >= MAX_CHUNK_ROWS:
                chunk = self._chunk(rows)
                if len(chunk):
                    yield chunk
                rows, size = [], 0
        if rows:
            chunk = self._chunk(rows)
            if len(chunk):
                yield chunk
        if self._stat() != self._state:
            raise InputError(
                "xlsx.changed",
                "读取期间文件被修改，请重新运行",
                "the file changed while it was read; run again",
                self.where,
            )

    def _stat(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns

    def _choose(self, sheets: Sequence[Sheet], wanted: str | None) -> Sheet:
        listed = "、".join(f"{sheet.name}{'（隐藏）' if sheet.hidden else ''}" for sheet in sheets)
        listed_en = ", ".join(f"{sheet.name}{' (hidden)' if sheet.hidden else ''}" for sheet in sheets)
        if wanted is not None:
            found = [sheet for sheet in sheets if sheet.name == wanted] or [
                sheet for sheet in sheets if sheet.name.strip().casefold() == wanted.strip().casefold()
            ]
            if len(found) != 1:
                raise InputError(
                    "xlsx.sheet_missing",
                    f"没有工作表 {wanted}；文件中有：{listed}",
                    f"there is no sheet {wanted}; the workbook has: {listed_en}",
                    str(self._path),
                )
            return found[0]
        filled = [sheet for sheet in sheets if self._holds_something(sheet)]
        if len(filled) > 1:
            raise InputError(
                "xlsx.sheets",
                f"有 {len(filled)} 个工作表有内容，请用 --sheet 指明一个：{listed}",
                f"{len(filled)} sheets hold something; name one with --sheet: {listed_en}",
                str(self._path),
            )
        if not filled:
            raise InputError("xlsx.empty", "工作簿没有内容", "the workbook holds nothing", str(self._path))
        return filled[0]

    def _holds_something(self, sheet: Sheet) -> bool:
        return any(cell.text or cell.formula for _, cells in SheetRows(self._package, sheet.part) for cell in cells)

    def _survey(self, part: str) -> list[tuple[int, int, int, int]]:
        """Read the part once as it is: its CRC is then checked, and what stands behind the rows is known before them."""
        hidden = merged = False
        kept = b""
        for data in self._package.chunks(part):
            window = kept + data
            hidden = hidden or _HIDDEN.search(window) is not None
            merged = merged or b"mergeCell" in window
            kept = window[-64:]
        self.notes: Sequence[tuple[str, str]] = (_NOTE,) if hidden else ()
        return self._sheet.merged() if merged else []

    def _find_header(
        self, header_row: int, operation_column: str | None, merges: Sequence[tuple[int, int, int, int]]
    ) -> Header:
        first = itertools.islice(
            ((number, self._header_cells(number, cells)) for number, cells in self._sheet if number >= header_row),
            1 + LOOKED_AT,
        )
        rows = ((number, cells) for number, cells in first if any(cells))
        number, cells = next(rows, (0, []))
        if not number:
            raise InputError(
                "xlsx.empty",
                f"工作表从第 {header_row} 行起没有内容，没有表头",
                f"the sheet holds nothing from row {header_row} on: it has no header",
                self.where,
            )
        self._header_number = number
        where = f"{self.where}:{number}"
        try:
            header = resolve_header(self.catalog, cells, operation_column, where, rows)
        except InputError as error:
            if "--header-row" not in error.en:
                _check_merged(merges, number, len(cells), where)
            raise
        _check_merged(merges, number, len(cells), where)
        return header

    def _header_cells(self, number: int, cells: Sequence[Cell]) -> list[str]:
        found: list[str] = []
        for cell in cells:
            self._check_known(number, cell)
            try:
                text = self._cells.text(cell, None) or ""
            except Refusal:
                text = ""
            if text:
                found += [""] * (cell.column - 1 - len(found))
                found.append(text)
        return found

    def _field_of_column(self) -> list[Field | None]:
        fields: list[Field | None] = [None] * len(self.header.cells)
        for name, place in self.header.fields.items():
            fields[place] = self.catalog.by_name[name]
        for known in (self.header.operation, self.header.reason):
            if known is not None:
                fields[known] = CELL
        return fields

    def _size(self, number: int, cells: Sequence[Cell]) -> int:
        """About how much text a row holds; one string may stand in it thousands of times."""
        for cell in cells:
            self._check_known(number, cell)
        size = sum(self._cells.size(cell) for cell in cells)
        if size > MAX_ROW_CHARS:
            raise row_too_long(self._where, number)
        return size

    def _check_known(self, number: int, cell: Cell) -> None:
        if not self._cells.known(cell):
            column = get_column_letter(cell.column)
            raise self._package.damaged(
                f"单元格 {column}{number} 的类型、样式或字符串编号无效",
                f"cell {column}{number} has an unknown type, style or string",
                number,
            )

    def _chunk(self, rows: Sequence[Row]) -> Chunk:
        width = len(self.header.cells)
        columns: list[list[str | None]] = [[] for _ in range(width)]
        refused: dict[int, Unreadable] = {}
        odd: dict[int, list[str]] = {}
        numbers: list[int] = []
        for number, cells in rows:
            row = len(numbers)
            texts: list[str | None] = [None] * width
            bad: Unreadable | None = None
            for cell in cells:
                place = cell.column - 1
                if place >= width:
                    if cell.text or cell.formula:
                        bad = wrong_width(cells[-1].column, width)
                    continue
                field = self._fields[place]
                try:
                    texts[place] = self._cells.text(cell, field)
                except Refusal as refusal:
                    if field is not None:
                        name = field.name if field is not CELL else self.header.cells[place]
                        value = shown(field, self._cells.shown(cell))
                        bad = bad or Unreadable(name, value, refusal.code, refusal.zh, refusal.en)
            if bad is None and not any(texts):
                continue
            if self._merged[number]:
                bad = _MERGED
            if bad is not None:
                refused[row] = bad
                odd[row] = self._raw(cells)
                if bad.code == "row.long":
                    texts = [None] * width
            numbers.append(number)
            for column, text in zip(columns, texts, strict=True):
                column.append(text)
        counted = np.array(numbers, np.int64)
        return assembled(self.catalog, self.header, [strings(column) for column in columns], counted, refused, odd)

    def _raw(self, cells: Sequence[Cell]) -> list[str]:
        """The cells of a refused row as they were; half characters as the bytes that other files would have for
        them."""
        found = [""] * max(len(self.header.cells), cells[-1].column)
        for cell in cells:
            field = self._fields[cell.column - 1] if cell.column <= len(self._fields) else None
            try:
                text = self._cells.text(cell, field) or ""
            except Refusal:
                text = self._cells.shown(cell)
            found[cell.column - 1] = text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
        return found


def _check_merged(merges: Sequence[tuple[int, int, int, int]], row: int, width: int, where: str) -> None:
    for top, bottom, left, right in merges:
        if top <= row <= bottom and left <= width:
            found = f"{get_column_letter(left)}{top}:{get_column_letter(right)}{bottom}"
            raise InputError(
                "xlsx.merged_header",
                f"表头有合并单元格 {found}：每列须有自己的列名；请取消合并",
                f"the header has merged cells {found}: every column needs a name of its own; unmerge them",
                where,
            )


def _marked(merges: Sequence[tuple[int, int, int, int]], width: int) -> NDArray[np.bool_]:
    """Which rows of the sheet have merged cells within the header's columns."""
    steps = np.zeros(MAX_ROWS + 2, np.int32)
    for top, bottom, left, _ in merges:
        if left <= width:
            steps[top] += 1
            steps[bottom + 1] -= 1
    return np.cumsum(steps) > 0
