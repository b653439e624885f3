"""What the readers use of the compiled part (ledger/native): text checked, CSV cut, SQLite's rows taken. None of it is needed: without, or
where a function fails its own check, the readers do the same work in Python."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ledger.native import load

SLACK = 16
"""Bytes behind a buffer that csv.c may write over."""
INT32_MAX = 2**31 - 1

_TEXTS = (b"", b"a", "许可".encode(), b"\x7f", "é𠮷\U0010ffff".encode(), b"12345678", "퟿\ue000".encode())
_DAMAGED = (
    b"\x80",
    b"\xc0\xaf",
    b"\xe4\xb8",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xe0\x9f\xbf",
    b"\xff",
)


@cache
def utf8() -> Any | None:
    """`dz_utf8`, or None."""
    function = _declared("dz_utf8", ctypes.c_int)
    if function is None:
        return None
    good = pa.array(_TEXTS, pa.binary())
    # Each damaged text alone, and one that is cut in two values, which together are text.
    bad = [pa.array([b"12345678", text], pa.binary()) for text in _DAMAGED] + [
        pa.array([b"\xe4\xb8", b"\xad"], pa.binary())
    ]
    return function if _asked(function, good) and not any(_asked(function, array) for array in bad) else None


def is_utf8(array: Any) -> bool | None:
    """Whether every value of a pa.binary() or pa.string() array is UTF-8; None where the reference must say."""
    function = utf8()
    if function is None or array.type not in (pa.string(), pa.binary()):
        return None
    return _asked(function, array)


def _asked(function: Any, array: Any) -> bool:
    if not len(array):
        return True
    _, offsets, data = array.buffers()
    at = offsets if data is None or not data.size else data
    first = ctypes.c_void_p(offsets.address + 4 * array.offset)
    return bool(function(ctypes.c_void_p(at.address), first, ctypes.c_int64(len(array))))


def _declared(name: str, result: Any) -> Any | None:
    function = getattr(load(), name, None)
    if function is not None:
        function.restype = result
    return function


class _Cut(ctypes.Structure):
    """`Cut` of csv.c."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("records", "odd", "size", "lines", "quoted"))


class _Text(ctypes.Structure):
    """`Text` of csv.c."""

    _fields_ = (("data", ctypes.c_void_p), ("offsets", ctypes.c_void_p))


@dataclass(frozen=True)
class Cut:
    """Whole records, and the bytes and lines that they take.

    columns  pa.binary(), one for each cell of the header: text, but in the rows named in `odd`
    lines    the physical line of each record, counted from 0
    odd      by row, the bytes of records that are not as they should be: of another width, with a quote in an unquoted cell, not UTF-8
    """

    columns: Sequence[Any]
    lines: NDArray[np.int64]
    odd: Mapping[int, bytes]
    size: int
    line_count: int


class Cutter:
    """Cuts the bytes of one CSV file, block after block; keeps room for what one block has. Not for two threads."""

    def __init__(self, width: int, functions: Any | None = None) -> None:
        self._functions = functions or csv()
        self._width = width
        self._bounds = np.empty(0, np.int32)
        self._lines = np.empty(0, np.int64)

    def cut(self, data: bytearray, size: int, *, final: bool) -> Cut | None:
        """The whole records at the start of the first `size` bytes of `data`; None where csvsyntax.Parser must read them.

        `final` says that nothing follows; without it the last record counts only if its line end is there.
        """
        found = self._functions
        if found is None or not 0 < size <= INT32_MAX:
            return None
        width, most = self._width, size // self._width + 1
        if len(self._lines) < most:
            self._bounds, self._lines = np.empty(most * (width + 1), np.int32), np.empty(most, np.int64)
        bytes_in = ctypes.byref((ctypes.c_char * 1).from_buffer(data))
        cut, sizes = _Cut(), np.empty(width, np.int64)
        at = [ctypes.c_void_p(array.ctypes.data) for array in (self._bounds, self._lines, sizes)]
        given = bytes_in, ctypes.c_int64(size)
        counts = ctypes.c_int64(width), ctypes.c_int64(most)
        if found.dz_csv_cut(*given, int(final), *counts, *at, ctypes.byref(cut)) or not cut.size:
            return None
        records = cut.records
        texts, buffers, ends = (_Text * width)(), [], np.empty(width, np.int32)
        for text, column_size in zip(texts, sizes.tolist(), strict=True):
            buffers.append([pa.allocate_buffer(4 * records + 4), pa.allocate_buffer(column_size + SLACK)])
            text.offsets, text.data = (buffer.address for buffer in buffers[-1])
        found.dz_csv_copy(
            *given, at[0], ctypes.byref(cut), ctypes.c_int64(width), texts, ctypes.c_void_p(ends.ctypes.data)
        )
        columns = [
            pa.BinaryArray.from_buffers(pa.binary(), records, [None, offsets, text]) for offsets, text in buffers
        ]
        bounds = self._bounds[: records * (width + 1)].reshape(records, width + 1)
        odd = (
            {int(row): (~bounds[row, 0], bounds[row, 1]) for row in np.flatnonzero(bounds[:, 0] < 0)} if cut.odd else {}
        )
        for column in columns:
            if not is_utf8(column):
                odd.update((row, (bounds[row, 0], bounds[row, width])) for row in _damaged(column))
        taken = {row: bytes(data[start:end]) for row, (start, end) in sorted(odd.items())}
        return Cut(columns, self._lines[:records].copy(), taken, cut.size, cut.lines)


def _damaged(column: Any) -> Iterator[int]:
    for row, value in enumerate(column.to_pylist()):
        try:
            value.decode()
        except UnicodeDecodeError:
            yield row


@cache
def csv() -> Any | None:
    """The functions of csv.c, or None."""
    found = load()
    if (
        utf8() is None
        or found is None
        or not hasattr(found, "dz_csv_copy")
        or _declared("dz_csv_cut", ctypes.c_int) is None
    ):
        return None
    found.dz_csv_copy.restype = None
    data = bytearray(b'1,"a""\r\n"\r\n\n"",' + b"x" * 99 + b'\n1\n1,2,3\na"b,"c\n"\n\xff,2\n,')
    cut = Cutter(2, found).cut(data, len(data), final=True)
    if cut is None or (cut.size, cut.line_count, cut.lines.tolist()) != (len(data), 9, [0, 3, 4, 5, 6, 8, 9]):
        return None
    if cut.odd != {2: b"1", 3: b"1,2,3", 4: b'a"b,"c\n"', 5: b"\xff,2"}:
        return None
    wanted = [[b"1", b"", b"", b"", b"", b"\xff", b""], [b'a"\r\n', b"x" * 99, b"", b"", b"", b"2", b""]]
    return found if [column.to_pylist() for column in cut.columns] == wanted else None
