"""CSV as RFC 4180 has it: where records end, which physical line each starts on, and their cells. Pure; works on bytes.

Bytes are UTF-8 or nearly so: comma, quote, CR and LF are never part of another character there, so damaged text
changes no structure. A row ends with LF, CRLF or CR, which also end a physical line. A quote inside an unquoted cell
is read as it stands, and named; text after a closing quote, and a quote that is never closed, make all that follows
uncertain and stop the reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ledger.errors import InputError

_QUOTE, _COMMA, _LF, _CR = b'",\n\r'
# Possessive: half of a doubled quote must never be given back as a closing one.
_QUOTED = re.compile(rb'"([^"]*+(?:""[^"]*+)*+)"')
_BARE = re.compile(rb"[^,\r\n]*")


@dataclass(frozen=True)
class Plain:
    """Whole records that any CSV reader takes apart alike.

    `size` is the number of bytes they take; `lines` the physical line of each, counted from that of the first byte,
    which is 0; `line_count` the number of lines they take.
    """

    size: int
    lines: NDArray[np.int64]
    line_count: int
    quoted_line_breaks: bool


@dataclass(frozen=True)
class Record:
    """One record: its first physical line (the first byte of what was parsed is on line 0) and its cells, still in
    bytes."""

    line: int
    cells: list[bytes]
    bare_quote: bool


def find_plain(data: bytes, *, final: bool) -> Plain | None:
    """The whole records at the start of `data` if their quoting is regular and no line ends with a lone CR; else None.

    `final` says that nothing follows; without it the last record counts only if its line end is there.
    """
    crs = data.count(b"\r")
    if crs and crs - (not final and data.endswith(b"\r")) != data.count(b"\r\n"):
        return None
    array = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(array == _QUOTE)
    breaks = np.flatnonzero(array == _LF)
    before = np.searchsorted(quotes, breaks)
    ends = breaks[before % 2 == 0]
    size = len(data) if final else int(ends[-1]) + 1 if len(ends) else 0
    quotes = quotes[: np.searchsorted(quotes, size)]
    if not size or not _regular(array[:size], quotes):
        return None
    if final and (not len(ends) or ends[-1] + 1 < size):
        ends = np.append(ends, size)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts
    empty = (lengths == 0) | ((lengths == 1) & (array[np.minimum(starts, size - 1)] == _CR))
    lines = np.searchsorted(breaks, starts[~empty]).astype(np.int64)
    line_count = int(np.searchsorted(breaks, size))
    return Plain(size, lines, line_count, quoted_line_breaks=line_count > len(ends))


def _regular(array: NDArray[np.uint8], quotes: NDArray[np.int64]) -> bool:
    """Whether each quote opens a cell, closes one, or is doubled inside one; `array` begins with a record and is whole.

    Counted from 0, quotes of even number open or end a doubled pair, those of odd number close or begin one.
    """
    if len(quotes) % 2:
        return False
    opening, closing = quotes[::2], quotes[1::2]
    doubled = closing[:-1] + 1 == opening[1:]
    before = np.zeros(len(opening), np.uint8) + _LF
    inside = opening > 0
    before[inside] = array[opening[inside] - 1]
    opens = (before == _COMMA) | (before == _LF)
    opens[1:] |= doubled
    after = np.zeros(len(closing), np.uint8) + _LF
    inside = closing < len(array) - 1
    after[inside] = array[closing[inside] + 1]
    closes = (after == _COMMA) | (after == _LF) | (after == _CR)
    closes[:-1] |= doubled
    return bool(opens.all() and closes.all())


class Parser:
    """Takes records apart one by one, however they are quoted; `place` and `line` say how far it came."""

    def __init__(self, data: bytes, *, final: bool, where: str, first_line: int) -> None:
        self.data = data
        self.final = final
        self.place = 0
        self.line = 0
        self.open_quote: int | None = None
        """The line on which a quote opened that the data does not close, once the records have run out."""
        self._where = where
        self._first_line = first_line

    def records(self) -> Iterator[Record]:
        """Whole records that are not empty lines. InputError `csv.quote` where quoting makes what follows uncertain."""
        while self.place < len(self.data):
            cells: list[bytes] = []
            bare_quote = False
            place = self.place
            while True:
                if self.data.startswith(b'"', place):
                    found = _QUOTED.match(self.data, place)
                    if found is None:
                        self._open(place)
                        return
                    cells.append(found[1].replace(b'""', b'"'))
                else:
                    found = _BARE.match(self.data, place)
                    if found is None:
                        raise AssertionError("matches the empty text")
                    cells.append(found[0])
                    bare_quote = bare_quote or b'"' in found[0]
                start, place = place, found.end()
                if self.data.startswith(b",", place):
                    place += 1
                    continue
                break
            if place < len(self.data) and self.data[place] not in (_CR, _LF):
                self._stray(start, place)
            if not self.final and len(self.data) - place <= 1 and not self.data.endswith(b"\n"):
                # The record may go on: a cell, a doubled quote, a CRLF may be cut here.
                return
            width = 2 if self.data.startswith(b"\r\n", place) else 1
            line, taken = self.line, self.data[self.place : place + width]
            self.place = min(place + width, len(self.data))
            self.line += count_lines(taken)
            if len(cells) > 1 or cells[0] or taken.startswith(b'"'):
                yield Record(line, cells, bare_quote)

    def _line_at(self, place: int) -> int:
        return self._first_line + self.line + count_lines(self.data[self.place : place])

    def _open(self, place: int) -> None:
        self.open_quote = self._line_at(place)
        if self.final:
            raise unclosed(self._where, self.open_quote)

    def _stray(self, start: int, place: int) -> None:
        opened, line = self._line_at(start), self._line_at(place)
        raise InputError(
            "csv.quote",
            f"第 {opened} 行开始的引号在第 {line} 行结束，其后却还有内容：引号不配对，"
            "或引号内的引号没有写成两个（RFC 4180）",
            f"the quote opened on line {opened} closes on line {line} before more text: quotes are unbalanced, or one "
            "inside a quoted cell is not doubled (RFC 4180)",
            f"{self._where}:{opened}",
        )


def unclosed(where: str, line: int) -> InputError:
    """The error for a quote that never closes."""
    return InputError(
        "csv.quote",
        f"第 {line} 行开始的引号直到文件末尾（或单行长度上限）都没有结束",
        f"the quote opened on line {line} is not closed before the file (or the greatest length of a row) ends",
        f"{where}:{line}",
    )


def count_lines(data: bytes) -> int:
    """Line ends in `data`: LF, CRLF and lone CR."""
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
