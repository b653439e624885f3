"""SQLite through its C interface, in the library that Python's own sqlite3 module has loaded: rows become columns without an object for each
value. `library` says whether that can be done here; where it cannot, sqlite3 reads the same rows.

Two copies of SQLite in one process would break each other's file locks, so no other library is ever opened.
"""

from __future__ import annotations

import ctypes
import sqlite3
import struct
import threading
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ledger.native import load
from ledger.source.compiled import utf8

INTEGER, REAL, TEXT, BLOB, NULL = 1, 2, 3, 4, 5
"""Storage classes, as SQLite numbers them."""

_OK, _NOMEM, _ROW, _DONE = 0, 7, 100, 101
_FULL, _CRAMPED = -1, -2
# As sqlite3.connect opens a URI; without SQLite's own mutex, for a connection is used by one thread at a time.
_READWRITE, _CREATE, _URI, _NOMUTEX = 0x2, 0x4, 0x40, 0x8000
_FIRST_ROOM = 1 << 16
_CALLED = (
    "step",
    "column_value",
    "value_type",
    "value_bytes",
    "value_text",
    "value_blob",
    "value_int64",
    "value_double",
)
_POINTER, _INT, _TEXT_OUT = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
_DECLARED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "open_v2": (_INT, (_TEXT_OUT, _POINTER, _INT, _TEXT_OUT)),
    "close_v2": (_INT, (_POINTER,)),
    "interrupt": (None, (_POINTER,)),
    "extended_result_codes": (_INT, (_POINTER, _INT)),
    "busy_timeout": (_INT, (_POINTER, _INT)),
    "extended_errcode": (_INT, (_POINTER,)),
    "errmsg": (_TEXT_OUT, (_POINTER,)),
    "prepare_v2": (_INT, (_POINTER, _TEXT_OUT, _INT, _POINTER, _POINTER)),
    "finalize": (_INT, (_POINTER,)),
    "column_count": (_INT, (_POINTER,)),
    "column_name": (_TEXT_OUT, (_POINTER, _INT)),
}


class _Filled(ctypes.Structure):
    """`Filled` of sqlite.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("data", "offsets", "valid", "kinds")),
        *((name, ctypes.c_int64) for name in ("room", "size", "seen")),
    )


class Values:
    """One column of some rows, as SQLite stores it: TEXT as its bytes, INTEGER written out, REAL in the machine's form, BLOB, NULL."""

    def __init__(self, rows: int, buffers: tuple[Any, Any, NDArray[np.int32], NDArray[np.uint8]], seen: int) -> None:
        self._data, self._valid, self._offsets, self._kinds = buffers
        self._rows = rows
        self._seen = seen

    def __len__(self) -> int:
        return self._rows

    def only(self, *kinds: int) -> bool:
        """Whether no value is of another storage class; NULL may always be there."""
        return not self._seen & ~sum(1 << kind for kind in {*kinds, NULL})

    def binary(self) -> Any:
        """As pa.binary()."""
        valid = pa.py_buffer(self._valid) if self._seen >> NULL & 1 else None
        return pa.BinaryArray.from_buffers(pa.binary(), self._rows, [valid, pa.py_buffer(self._offsets), self._data])

    def objects(self) -> list[Any]:
        """As sqlite3 gives them under `sqlitefile.connected`: bytearray, int, float, bytes, None."""
        # A buffer that was resized still shows the length it was made with; a slice of it shows the present one.
        data, ends = memoryview(self._data.slice(0, self._data.size)), self._offsets.tolist()
        if ends[self._rows] > len(data):
            raise BufferError("values end behind their buffer")
        kinds = self._kinds[: self._rows].tolist()
        return [_OBJECT[kind](data[ends[row] : ends[row + 1]]) for row, kind in enumerate(kinds)]


_OBJECT: dict[int, Any] = {
    INTEGER: lambda data: int(bytes(data)),
    REAL: lambda data: struct.unpack("=d", data)[0],
    TEXT: bytearray,
    BLOB: bytes,
    NULL: lambda data: None,
}
_KIND = {int: INTEGER, float: REAL, bytearray: TEXT, bytes: BLOB, type(None): NULL}


class Result:
    """What a statement gives: `description` as in the Python database API, names only, and its rows."""

    def __init__(self, names: Sequence[str], chunks: Iterator[list[Values]]) -> None:
        self.description = [(name,) for name in names]
        self._chunks = chunks

    def fetchone(self) -> tuple[Any, ...] | None:
        """The first row; None if there is none."""
        for chunk in self._chunks:
            return next(zip(*(values.objects() for values in chunk), strict=True))
        return None

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows."""
        return [row for chunk in self._chunks for row in zip(*(values.objects() for values in chunk), strict=True)]


class Connection:
    """A connection, used by one thread at a time (others wait); raises sqlite3.Error with SQLite's message and `sqlite_errorcode`, as sqlite3 does."""

    def __init__(self, uri: str, busy_seconds: float, functions: Any | None = None) -> None:
        found = functions or library()
        if found is None:
            raise sqlite3.NotSupportedError("no C interface of SQLite")
        self._library = found
        self._handle = ctypes.c_void_p()
        self._open: set[int] = set()
        # SQLite's own lock would be taken for every value.
        self._lock = threading.RLock()
        self._closing = threading.Lock()
        flags = _READWRITE | _CREATE | _URI | _NOMUTEX
        failed = found.sqlite3_open_v2(uri.encode(), ctypes.byref(self._handle), flags, None)
        found.sqlite3_extended_result_codes(self._handle, 1)
        try:
            self._check(failed)
        except BaseException:
            self.close()
            raise
        found.sqlite3_busy_timeout(self._handle, int(busy_seconds * 1000))

    def close(self) -> None:
        """Ends the transaction, and whatever is being read."""
        with self._lock:
            for statement in list(self._open):
                self._finalize(statement)
            with self._closing:
                self._library.sqlite3_close_v2(self._handle)
                self._handle = ctypes.c_void_p()

    def interrupt(self) -> None:
        """Ends what another thread is reading, with `sqlite_errorcode` SQLITE_INTERRUPT; nothing if nothing is read, or it is closed."""
        with self._closing:
            if self._handle:
                self._library.sqlite3_interrupt(self._handle)

    def execute(self, sql: str) -> Result:
        """One statement, run to its end."""
        names, statement = self._prepared(sql)
        found = list(self._chunks(statement, len(names), 1024, 1024, 1 << 20))
        return Result(names, iter(found))

    def scan(self, sql: str, first: int, rows: int, chunk_bytes: int) -> Iterator[list[Values]]:
        """The rows of a statement, `first` of them, then each time twice as many, up to `rows` or about `chunk_bytes`."""
        names, statement = self._prepared(sql)
        return self._chunks(statement, len(names), first, rows, chunk_bytes)

    def _prepared(self, sql: str) -> tuple[list[str], int]:
        statement = ctypes.c_void_p()
        with self._lock:
            self._check_open()
            self._check(self._library.sqlite3_prepare_v2(self._handle, sql.encode(), -1, ctypes.byref(statement), None))
            if statement.value is None:
                raise sqlite3.ProgrammingError("no statement")
            self._open.add(statement.value)
            count = self._library.sqlite3_column_count(statement)
            names = [self._library.sqlite3_column_name(statement, place) for place in range(count)]
        if None in names:
            raise MemoryError
        return [name.decode() for name in names], statement.value

    def _chunks(self, statement: int, width: int, size: int, rows: int, chunk_bytes: int) -> Iterator[list[Values]]:
        rooms = [_FIRST_ROOM] * width
        try:
            more = True
            while more:
                filling = _Filling(rooms, size)
                more = self._fill(statement, filling, size, chunk_bytes)
                if filling.count:
                    yield filling.values()
                grown = max(1, min(2 * size, rows) // size)
                size = min(2 * size, rows)
                # What the next rows need is what these did; a little more is left for each to differ.
                rooms = [grown * (column.size + (column.size >> 4)) + 4096 for column in filling.columns]
        finally:
            self._finalize(statement)

    def _fill(self, statement: int, filling: _Filling, rows: int, chunk_bytes: int) -> bool:
        """Whether there are more rows."""
        row, stepped, cramped = ctypes.c_int64(), ctypes.c_int(), (ctypes.c_int64 * 2)()
        while True:
            with self._lock:
                self._check_open()
                state = self._library.dz_sqlite(
                    self._library.dz_api, ctypes.c_void_p(statement), filling.columns, len(filling.columns), ctypes.c_int64(rows),
                    ctypes.c_int64(chunk_bytes), ctypes.byref(row), ctypes.byref(stepped), cramped,
                )  # fmt: skip
                if state not in (_FULL, _CRAMPED, _DONE):
                    self._check(state)
                    raise sqlite3.InternalError("rows ended without saying so")
            filling.count = row.value
            if state == _CRAMPED:
                filling.widen(*cramped)
            else:
                return bool(state == _FULL)

    def _finalize(self, statement: int) -> None:
        with self._lock:
            if statement in self._open:
                self._open.remove(statement)
                self._library.sqlite3_finalize(ctypes.c_void_p(statement))

    def _check_open(self) -> None:
        if not self._handle:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")

    def _check(self, state: int) -> None:
        if state == _OK:
            return
        if state & 0xFF == _NOMEM or not self._handle:
            raise MemoryError
        message = self._library.sqlite3_errmsg(self._handle)
        error = sqlite3.OperationalError((message or b"").decode("utf-8", "replace"))
        error.sqlite_errorcode = self._library.sqlite3_extended_errcode(self._handle)
        raise error


class _Filling:
    """Room for the rows of one chunk, a column each."""

    def __init__(self, rooms: Sequence[int], rows: int) -> None:
        self.count = 0
        self.columns = (_Filled * len(rooms))()
        self._data = [pa.allocate_buffer(room, resizable=True) for room in rooms]
        self._offsets = [np.zeros(rows + 1, np.int32) for _ in rooms]
        self._valid = [np.full((rows + 7) // 8, 255, np.uint8) for _ in rooms]
        self._kinds = [np.empty(rows, np.uint8) for _ in rooms]
        for place, column in enumerate(self.columns):
            column.data, column.room = self._data[place].address, rooms[place]
            column.offsets, column.valid, column.kinds = (
                arrays[place].ctypes.data for arrays in (self._offsets, self._valid, self._kinds)
            )

    def widen(self, place: int, needed: int) -> None:
        """Room for at least `needed` bytes in a column."""
        column, room = self.columns[place], max(needed, min(2 * self.columns[place].room, needed + (64 << 20)))
        self._data[place].resize(room)
        column.data, column.room = self._data[place].address, room

    def values(self) -> list[Values]:
        """The columns; nothing may be filled in any more."""
        buffers = zip(self._data, self._valid, self._offsets, self._kinds, strict=True)
        return [Values(self.count, made, column.seen) for made, column in zip(buffers, self.columns, strict=True)]


@cache
def library() -> Any | None:
    """SQLite's functions and those of sqlite.c in one; None where they cannot be had, or do not read what sqlite3 would."""
    compiled = load()
    try:
        # Part of the interpreter in some builds: then SQLite's functions are not to be had.
        import _sqlite3  # noqa: PLC0415

        found = ctypes.CDLL(_sqlite3.__file__)
        found.sqlite3_libversion.restype = ctypes.c_char_p
        if found.sqlite3_libversion().decode() != sqlite3.sqlite_version or not found.sqlite3_threadsafe():
            return None
        for name, (result, given) in _DECLARED.items():
            function = getattr(found, f"sqlite3_{name}")
            function.restype, function.argtypes = result, given
        functions = [ctypes.cast(getattr(found, f"sqlite3_{name}"), ctypes.c_void_p).value for name in _CALLED]
        joined = _Joined(found, compiled.dz_sqlite, (ctypes.c_void_p * len(functions))(*functions))
    except (ImportError, AttributeError, OSError, TypeError):
        return None
    return joined if utf8() is not None and _is_right(joined) else None


class _Joined:
    """SQLite's functions, `dz_sqlite`, and `dz_api` for it."""

    def __init__(self, found: Any, function: Any, api: Any) -> None:
        function.restype = ctypes.c_int
        self._found = found
        self.dz_sqlite = function
        self.dz_api = api

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found, name)


def _is_right(joined: _Joined) -> bool:
    """A value of each storage class, and numbers at the bounds, as sqlite3 reads them."""
    sql = (
        "SELECT 'a', -9223372036854775808, x'00ff', 1.5, NULL, '' "
        "UNION ALL SELECT '许' || char(0), 9223372036854775807, x'', -0.5, 0, NULL "
        # More than the room a column begins with.
        f"UNION ALL SELECT printf('%.{2 * _FIRST_ROOM}c', 'x'), 1, x'', 0.5, 'y', 'z'"
    )
    reference, own = sqlite3.connect(":memory:"), Connection("file::memory:", 0, joined)
    try:
        reference.text_factory = bytearray
        wanted = reference.execute(sql).fetchall()
        (columns,) = own.scan(sql, 16, 16, 1 << 20)
    finally:
        reference.close()
        own.close()
    for values, asked in zip(columns, zip(*wanted, strict=True), strict=True):
        kinds = {_KIND[type(value)] for value in asked}
        if values.objects() != list(asked) or {
            kind for kind in _OBJECT if not values.only(*({*_OBJECT} - {kind}))
        } != kinds - {NULL}:
            return False
        if list(map(type, values.objects())) != list(map(type, asked)) or values.binary().null_count != asked.count(
            None
        ):
            return False
    return True
