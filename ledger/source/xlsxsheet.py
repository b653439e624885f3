"""The rows of a worksheet, as its XML has them; shared strings and styles. Pure but for reading parts of the package."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from openpyxl.styles.numbers import BUILTIN_FORMATS
from openpyxl.utils import get_column_letter

from ledger.errors import InputError
from ledger.source.xlsxparts import Package, walk

MAX_ROWS, MAX_COLUMNS = 1_048_576, 16_384
MAX_STRINGS = 1 << 30
"""Bytes of all shared strings, which are kept in memory; a sheet may refer to any of them anywhere."""
MAX_STRING = 1 << 20
"""Characters of one shared string; Excel keeps 32,767, escapes take seven each."""
MAX_ROW_CHARS = 32 << 20
"""Text of one row, in bytes or characters, whatever it is made of."""
MAX_STYLES = 1 << 20

_ESCAPE = re.compile("_x([0-9A-Fa-f]{4})_")
_REFERENCE = re.compile(r"([A-Z]{1,3})([1-9][0-9]{0,6})")
_RANGE = re.compile(r"\$?([A-Z]{1,3})\$?([1-9][0-9]{0,6})(?::\$?([A-Z]{1,3})\$?([1-9][0-9]{0,6}))?")
COLUMNS = {get_column_letter(number): number for number in range(1, MAX_COLUMNS + 1)}

# The dates of Chinese workbooks, which have no entry in the styles (ECMA-376 part 1, 18.8.30, zh-cn).
_CHINESE = {
    27: 'yyyy"年"m"月"', 28: 'm"月"d"日"', 29: 'm"月"d"日"', 30: "m-d-yy", 31: 'yyyy"年"m"月"d"日"', 32: 'h"时"mm"分"',
    33: 'h"时"mm"分"ss"秒"', 34: 'AM/PM h"时"mm"分"', 35: 'AM/PM h"时"mm"分"ss"秒"', 36: 'yyyy"年"m"月"',
    50: 'yyyy"年"m"月"', 51: 'm"月"d"日"', 52: 'yyyy"年"m"月"', 53: 'm"月"d"日"', 54: 'm"月"d"日"', 55: 'AM/PM h"时"mm"分"',
    56: 'AM/PM h"时"mm"分"ss"秒"', 57: 'yyyy"年"m"月"', 58: 'm"月"d"日"',
}  # fmt: skip


class Cell(NamedTuple):
    """A cell that holds something. `kind` is the XML's: n s b e str inlineStr d; `text` what it holds, shared strings
    not yet looked up, None where it has no value; `style` an index into the styles; `formula` if it has one."""

    column: int
    kind: str
    style: int
    text: str | None
    formula: bool


class Strings:
    """The shared strings, as text without phonetic guides."""

    def __init__(self, package: Package, part: str | None) -> None:
        self._data = bytearray()
        self._ends = array("Q", [0])
        if part is not None:
            for _ in self._read(package, part):
                pass

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return self._data[self._ends[index] : self._ends[index + 1]].decode("utf-8", "surrogatepass")

    def head(self, index: int, most: int) -> str:
        """At most `most` bytes of one of them."""
        begin, end = self._ends[index : index + 2]
        return self._data[begin : min(end, begin + most)].decode(
            "utf-8", "surrogatepass" if end - begin <= most else "ignore"
        )

    def size(self, index: int) -> int:
        """Bytes of one of them."""
        return self._ends[index + 1] - self._ends[index]

    def _read(self, package: Package, part: str) -> Iterator[None]:
        rich = RichText(2)

        def start(name: str, _: Mapping[str, str], depth: int) -> None:
            if depth == 1 and name != "sst":
                raise package.damaged(f"{part} 不是共享字符串表", f"{part} is no table of shared strings")
            if depth == 2:
                rich.begin()
            elif depth > 2:
                rich.start(name, depth)

        def end(name: str, depth: int) -> None:
            if depth == 2 and name == "si":
                self._data += unescaped(rich.text()).encode("utf-8", "surrogatepass")
                self._ends.append(len(self._data))
                if len(self._data) + 8 * len(self._ends) > MAX_STRINGS:
                    raise InputError(
                        "xlsx.size",
                        f"共享字符串超过 {MAX_STRINGS >> 20} MiB；请拆分文件，或改用 CSV、Parquet",
                        f"its shared strings exceed {MAX_STRINGS >> 20} MiB; split the file, or use CSV or Parquet",
                        package.where,
                    )
            elif depth > 2:
                rich.end(depth)

        def text(data: str) -> None:
            if rich.add(data) > MAX_STRING:
                raise package.damaged("共享字符串过长", "a shared string is too long")

        yield from walk(package, part, start, end, text)


class RichText:
    """Gathers the text of an `si` or `is` element that stands at `depth`: its own `t`, or those of its runs `r`;
    phonetic guides (`rPh`) are another text."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self.begin()

    def begin(self) -> None:
        """A new element begins."""
        self._parts: list[str] = []
        self._size = 0
        self._in_run = False
        self._taking = False

    def start(self, name: str, depth: int) -> None:
        """An element within it begins."""
        if depth == self._depth + 1:
            self._in_run = name == "r"
            self._taking = name == "t"
        else:
            self._taking = depth == self._depth + 2 and self._in_run and name == "t"

    def end(self, depth: int) -> None:
        """An element within it ends."""
        self._taking = False
        if depth == self._depth + 1:
            self._in_run = False

    def add(self, data: str) -> int:
        """Text within it; how much was gathered by now."""
        if self._taking:
            self._parts.append(data)
            self._size += len(data)
        return self._size

    def text(self) -> str:
        """What was gathered."""
        return "".join(self._parts)


def formats_of(package: Package, part: str | None) -> list[str]:
    """The number format of every cell style, by index; at least one."""
    custom: dict[int, str] = {}
    styles: list[int] = []
    inside = ""

    def start(name: str, attributes: Mapping[str, str], depth: int) -> None:
        nonlocal inside
        if depth == 2:
            inside = name
        elif depth == 3 and inside == "numFmts" and name == "numFmt":
            custom[_index(attributes.get("numFmtId"))] = attributes.get("formatCode", "General")
        elif depth == 3 and inside == "cellXfs" and name == "xf":
            styles.append(_index(attributes.get("numFmtId")))
        if len(styles) > MAX_STYLES or len(custom) > MAX_STYLES:
            raise package.damaged("样式过多", "has too many styles")

    if part is not None:
        for _ in walk(package, part, start, lambda name, depth: None, lambda data: None):
            pass
    known = {**BUILTIN_FORMATS, **_CHINESE, **custom}
    return [known.get(number, "General") for number in styles] or ["General"]


def _index(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 0


class SheetRows:
    """The rows of one worksheet part, in order, without those that hold nothing."""

    def __init__(self, package: Package, part: str) -> None:
        self._package = package
        self._part = part

    def __iter__(self) -> Iterator[tuple[int, list[Cell]]]:
        """(row number from 1, its cells from left to right). InputError `xlsx.damaged` for a row or cell out of place,
        `xlsx.row_size`."""
        parser = _Rows(self._package, self._part)
        for _ in walk(self._package, self._part, parser.start, parser.end, parser.text):
            if parser.rows:
                yield from parser.rows
                parser.rows.clear()
        if not parser.whole:
            raise self._package.damaged(f"{self._part} 中没有 sheetData", f"{self._part} has no sheetData")

    def merged(self) -> list[tuple[int, int, int, int]]:
        """The merged ranges: first row, last row, first column, last column."""
        found: list[tuple[int, int, int, int]] = []

        def start(name: str, attributes: Mapping[str, str], depth: int) -> None:
            if depth == 3 and name == "mergeCell":
                ref = _RANGE.fullmatch(attributes.get("ref", ""))
                if ref is None or ref[1] not in COLUMNS or (ref[3] or ref[1]) not in COLUMNS or len(found) > 1_000_000:
                    raise self._package.damaged("合并单元格的范围无效", "a range of merged cells is not valid")
                rows, columns = (int(ref[2]), int(ref[4] or ref[2])), (COLUMNS[ref[1]], COLUMNS[ref[3] or ref[1]])
                found.append((min(rows), min(max(rows), MAX_ROWS), min(columns), max(columns)))

        for _ in walk(self._package, self._part, start, lambda name, depth: None, lambda data: None):
            pass
        return found


class _Rows:
    """What expat calls while it goes through a worksheet; whole rows gather in `rows`."""

    def __init__(self, package: Package, part: str) -> None:
        self.rows: list[tuple[int, list[Cell]]] = []
        self.whole = False
        self._package = package
        self._part = part
        self._row = 0
        self._in_data = self._in_row = self._in_cell = False
        self._cells: list[Cell] = []
        self._chars = 0
        self._column = self._style = 0
        self._kind = ""
        self._rich = RichText(5)
        self._value: list[str] | None = None
        self._taking = self._in_text = self._has_rich = self._formula = False

    def start(self, name: str, attributes: Mapping[str, str], depth: int) -> None:
        if depth > 5:
            if self._in_text:
                self._rich.start(name, depth)
        elif depth == 5:
            if self._in_cell:
                self._within(name)
        elif depth == 4:
            if self._in_row:
                self._in_cell = name == "c"
                if self._in_cell:
                    self._begin_cell(attributes)
                elif name != "extLst":
                    raise self._odd(name)
        elif depth == 3:
            if self._in_data:
                if name != "row":
                    raise self._odd(name)
                self._begin_row(attributes)
        elif depth == 2:
            self._in_data = name == "sheetData"
            if self._in_data and self.whole:
                raise self._package.damaged(f"{self._part} 中有两个 sheetData", f"{self._part} has two sheetData")
            self.whole = self.whole or self._in_data
        elif name != "worksheet":
            raise self._package.damaged(f"{self._part} 不是工作表", f"{self._part} is no worksheet")

    def end(self, name: str, depth: int) -> None:
        if depth > 5:
            if self._in_text:
                self._rich.end(depth)
        elif depth == 5:
            self._taking = self._in_text = False
        elif depth == 4:
            if self._in_cell:
                self._end_cell()
                self._in_cell = False
        elif depth == 3:
            if self._in_row:
                if self._cells:
                    self.rows.append((self._row, self._cells))
                self._in_row = False
        elif depth == 2:
            self._in_data = False

    def text(self, data: str) -> None:
        if not self._in_cell:
            return
        if self._in_text:
            self._rich.add(data)
        elif self._taking and self._value is not None:
            self._value.append(data)
        self._chars += len(data)
        if self._chars > MAX_ROW_CHARS:
            raise row_too_long(self._package.where, self._row)

    def _begin_row(self, attributes: Mapping[str, str]) -> None:
        number = attributes.get("r")
        row = self._row + 1 if number is None else _index(number)
        if row <= self._row or row > MAX_ROWS:
            raise self._package.damaged(
                f"第 {self._row} 行之后是第 {row} 行", f"row {row} stands after row {self._row}", self._row
            )
        self._row, self._in_row, self._cells, self._chars, self._column = row, True, [], 0, 0

    def _begin_cell(self, attributes: Mapping[str, str]) -> None:
        reference = attributes.get("r")
        if reference is None:
            column = self._column + 1
        else:
            found = _REFERENCE.fullmatch(reference)
            column = COLUMNS.get(found[1], 0) if found is not None and int(found[2]) == self._row else 0
        if column <= self._column or column > MAX_COLUMNS:
            raise self._package.damaged("单元格位置无效", "a cell stands out of place", self._row)
        self._column = column
        self._kind = attributes.get("t", "n")
        self._style = _index(attributes.get("s"))
        self._value, self._has_rich, self._formula = None, False, False

    def _within(self, name: str) -> None:
        if name == "v":
            if self._value is not None:
                raise self._package.damaged("单元格有两个值", "a cell has two values", self._row)
            self._value, self._taking = [], True
        elif name == "f":
            self._formula = True
        elif name == "is":
            self._has_rich = self._in_text = True
            self._rich.begin()

    def _end_cell(self) -> None:
        text = None if self._value is None else "".join(self._value)
        if self._kind == "inlineStr" and self._has_rich:
            text = self._rich.text()
        if text is not None or self._formula:
            self._cells.append(Cell(self._column, self._kind, self._style, text, self._formula))

    def _odd(self, name: str) -> InputError:
        return self._package.damaged(
            f"行中有不认识的元素 {name[:40]!a}", f"holds an unknown element {name[:40]!a}", self._row
        )


def row_too_long(where: str, row: int) -> InputError:
    """The refusal of a file with a row past MAX_ROW_CHARS."""
    return InputError(
        "xlsx.row_size",
        f"一行的文字超过 {MAX_ROW_CHARS >> 20} MiB",
        f"a row holds more than {MAX_ROW_CHARS >> 20} MiB of text",
        f"{where}:{row}",
    )


def unescaped(text: str) -> str:
    """Text without the escapes of characters that XML has no place for: `_x000D_` is a carriage return, `_x005F_` an
    underscore (ECMA-376 part 1, 22.9.2.19)."""
    if "_x" not in text:
        return text
    plain = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
    # Two halves of one character may have been escaped each for itself.
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
