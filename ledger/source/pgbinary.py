"""COPY in its binary format, compiled (native/pgcopy.c): what the server need not write as text, and what no loop of Python goes through.

Text, integers, numerics, dates and timestamps come out as the text that the server itself would write (`pgtable.PgColumn.as_text`); the
tests hold both ways equal. Where there is no compiled part, or no libpq to be found, `available` says so and the text format is read.
"""

from __future__ import annotations

import ctypes
import select
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from numpy.typing import NDArray
from psycopg import pq

from ledger.native import load
from ledger.source.layout import Kind

_KINDS: dict[Kind, int] = {"text": 0, "integer": 1, "decimal": 2, "date": 3, "timestamp": 4, "zoned": 5}
_FULL, _WAITING, _ENDED, _FAILED = range(4)
_PATIENCE = 200
"""Milliseconds in which nothing else of this thread happens, an interruption least of all."""
_CANCEL_SECONDS = 5.0
_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_TRAILER = b"\xff\xff"
_MAX_COLUMN = 64 << 20
"""Bytes of a column of one block; a numeric of a few bytes can be written in a hundred thousand."""


class _Copy(ctypes.Structure):
    """`Copy` of pgcopy.c."""

    _fields_ = (
        ("connection", ctypes.c_void_p),
        ("get", ctypes.c_void_p),
        ("consume", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
        ("socket", ctypes.c_int64),
        ("held", ctypes.c_void_p),
        ("held_size", ctypes.c_int64),
    )


class _Out(ctypes.Structure):
    """`Out` of pgcopy.c."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("kind", ctypes.c_int64),
        ("odd", ctypes.c_int64),
    )


@dataclass(frozen=True)
class Block:
    """Some rows as they came: row i is data[ends[i]:ends[i + 1]]; `ordinal` is the number of the first, from 1."""

    data: NDArray[np.uint8]
    ends: NDArray[np.int64]
    ordinal: int

    def __len__(self) -> int:
        return len(self.ends) - 1


class Torn(Exception):
    """What came is not what COPY sends."""


@cache
def _libpq() -> Any:
    """The libpq that psycopg has loaded, by its public functions; None where it cannot be told."""
    with suppress(OSError, AttributeError):
        if pq.__impl__ == "python":
            from psycopg.pq import _pq_ctypes  # noqa: PLC0415  only there with that implementation

            return _pq_ctypes.pq  # type: ignore[attr-defined]
        paths = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libpq" in line}
        if len(paths) == 1:
            library = ctypes.CDLL(paths.pop())
            if library.PQlibVersion() == pq.version():
                return library
    return None


def available() -> bool:
    """Whether this way can be gone."""
    return load() is not None and _libpq() is not None and _is_right()


@cache
def _is_right() -> bool:
    """Whether the compiled part writes a row of each kind as the server would; one that does not is not used."""
    cells = [
        ("text", "许".encode(), "许"), ("integer", (-7).to_bytes(8, "big", signed=True), "-7"),
        ("decimal", struct.pack(">hhHh2h", 2, 0, 0x4000, 2, 12, 500), "-12.05"), ("date", struct.pack(">i", 8825), "2024-02-29"),
        ("timestamp", struct.pack(">q", -1_500_000), "1999-12-31 23:59:58.5"), ("zoned", struct.pack(">q", 0), "2000-01-01 00:00:00Z"),
        ("date", struct.pack(">i", 2**31 - 1), "infinity"), ("text", None, ""),
    ]  # fmt: skip
    packed = [b"\xff" * 4 if data is None else struct.pack(">i", len(data)) + data for _, data, _ in cells]
    message = struct.pack(">h", len(cells)) + b"".join(packed)
    data, ends = np.frombuffer(message, np.uint8), np.array([0, len(message)], np.int64)
    try:
        made = _columns(data, ends, [kind for kind, _, _ in cells])  # type: ignore[misc]
    except (Torn, AttributeError):
        return False
    return [(array.to_pylist(), odd) for array, odd in made] == [([text], text == "infinity") for _, _, text in cells]


def blocks(connection: psycopg.Connection[Any], sql: str, block_bytes: int, most: int) -> Iterator[Block]:
    """What `COPY ... TO STDOUT (FORMAT binary)` sends, some whole rows at a time. psycopg.Error as ever; Torn if it is not whole.

    Given up midway, the server is told, and what it had sent meanwhile is thrown away.
    """
    native, libpq = load(), _libpq()
    pgconn: Any = connection.pgconn
    address = {
        name: ctypes.cast(getattr(libpq, name), ctypes.c_void_p).value
        for name in ("PQgetCopyData", "PQconsumeInput", "PQfreemem")
    }
    copy = _Copy(
        pgconn.pgconn_ptr,
        address["PQgetCopyData"],
        address["PQconsumeInput"],
        address["PQfreemem"],
        pgconn.socket,
        None,
        0,
    )
    total, first, room, trailed = 0, True, block_bytes, False
    try:
        result = pgconn.exec_(sql.encode())
        if result.status != pq.ExecStatus.COPY_OUT:
            raise psycopg.errors.error_from_result(result)
        while True:
            data = np.empty(room, np.uint8)
            ends = np.zeros(most + 1, np.int64)
            count = ctypes.c_int64(0)
            state = _WAITING
            while state == _WAITING:
                state = native.dz_copy_read(
                    ctypes.byref(copy), ctypes.c_void_p(data.ctypes.data), ctypes.c_int64(room), ctypes.c_void_p(ends.ctypes.data + 8),
                    ctypes.c_int64(most), ctypes.byref(count), _PATIENCE,
                )  # fmt: skip
            if state == _FAILED:
                break
            rows = count.value
            if not rows and state == _FULL:
                # One message larger than any so far.
                room = max(block_bytes, copy.held_size)
                continue
            room = block_bytes
            ends = ends[: rows + 1]
            if trailed and rows:
                raise Torn("rows after the end")
            if first and rows:
                ends[0] = _begun(data[: ends[1]].tobytes())
                first = False
            if rows and data[ends[-2] : ends[-1]].tobytes() == _TRAILER:
                ends, trailed = ends[:-1], True
            if len(ends) > 1:
                yield Block(data, ends, total + 1)
                total += len(ends) - 1
            if state == _ENDED:
                break
        told = _ended(connection)
    finally:
        native.dz_copy_drop(ctypes.byref(copy))
        if pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
            _give_up(connection)
    if told != total or not trailed:
        raise Torn(f"{told}, {total}")


def _begun(message: bytes) -> int:
    """Where the first row, or the trailer, begins: behind signature, flags and extension."""
    head = len(_SIGNATURE) + 8
    flags, extension = message[len(_SIGNATURE) : len(_SIGNATURE) + 4], message[len(_SIGNATURE) + 4 : head]
    end = head + int.from_bytes(extension, "big")
    if not message.startswith(_SIGNATURE) or any(flags) or end > len(message):
        raise Torn("no beginning")
    return end


def _ended(connection: psycopg.Connection[Any]) -> int:
    """What the server says it sent; its error if that is what it says."""
    pgconn = connection.pgconn
    told, error = -1, None
    while result := pgconn.get_result():
        if result.status != pq.ExecStatus.COMMAND_OK:
            error = error or psycopg.errors.error_from_result(result)
        else:
            told = result.command_tuples or 0
    if error is not None:
        raise error
    if told < 0 or pgconn.status != pq.ConnStatus.OK:
        raise psycopg.OperationalError(pgconn.get_error_message())
    return told


def _give_up(connection: psycopg.Connection[Any]) -> None:
    """Tell the server, and take what it had sent meanwhile; a connection that is not quiet within _CANCEL_SECONDS is ended: in the midst of a
    COPY libpq would answer for ever that there is more."""
    pgconn = connection.pgconn
    until = time.monotonic() + _CANCEL_SECONDS
    try:
        connection.cancel_safe(timeout=_CANCEL_SECONDS)
        while (size := pgconn.get_copy_data(1)[0]) >= 0:
            if not size:
                left = until - time.monotonic()
                if left <= 0:
                    break
                select.select([pgconn.socket], [], [], left)
                pgconn.consume_input()
            elif time.monotonic() > until:
                break
        else:
            while pgconn.get_result():
                pass
            return
    except psycopg.Error:
        pass
    pgconn.finish()


def columns_of(block: Block, kinds: Sequence[Kind]) -> list[tuple[Any, bool]]:
    """A block's columns, NULL as an empty text, which is the same to F2: pa.string(), or pa.binary() if their bytes are not all UTF-8; and whether there is a value without a form in it
    (an infinity, NaN, a year before 1 or after 9999), written as the server writes it."""
    parts = [_columns(block.data, block.ends[start : stop + 1], kinds) for start, stop in _bounded(block, kinds)]
    if len(parts) == 1:
        return parts[0]
    joined = []
    for at in range(len(kinds)):
        arrays = [part[at][0] for part in parts]
        if len({array.type for array in arrays}) > 1:
            arrays = [array.cast(pa.binary()) for array in arrays]
        joined.append((pa.concat_arrays(arrays), any(part[at][1] for part in parts)))
    return joined


def _bounded(block: Block, kinds: Sequence[Kind]) -> Iterator[tuple[int, int]]:
    """Parts of a block no column of which, written out, is too large; nearly always one."""
    todo = [(0, len(block))]
    while todo:
        start, stop = todo.pop()
        if stop - start > 1 and max(_sizes(block.data, block.ends[start : stop + 1], kinds)) > _MAX_COLUMN:
            middle = (start + stop) // 2
            todo += [(middle, stop), (start, middle)]
        else:
            yield start, stop


def _outs(kinds: Sequence[Kind]) -> Any:
    return (_Out * len(kinds))(*(_Out(kind=_KINDS[kind]) for kind in kinds))


def _call(data: NDArray[np.uint8], ends: NDArray[np.int64], outs: Any, *, write: bool) -> NDArray[np.int64]:
    sizes = np.zeros(len(outs), np.int64)
    function = load().dz_copy_columns
    function.restype = ctypes.c_int64
    wrong = function(
        ctypes.c_void_p(data.ctypes.data), ctypes.c_void_p(ends.ctypes.data + 8), ctypes.c_int64(len(ends) - 1), outs,
        ctypes.c_int64(len(outs)), ctypes.c_void_p(sizes.ctypes.data), int(write),
    )  # fmt: skip
    if wrong >= 0:
        raise Torn(f"row {wrong}")
    return sizes


def _sizes(data: NDArray[np.uint8], ends: NDArray[np.int64], kinds: Sequence[Kind]) -> list[int]:
    found: list[int] = _call(data, ends, _outs(kinds), write=False).tolist()
    return found


def _columns(data: NDArray[np.uint8], ends: NDArray[np.int64], kinds: Sequence[Kind]) -> list[tuple[Any, bool]]:
    rows = len(ends) - 1
    outs = _outs(kinds)
    buffers = []
    for out, size in zip(outs, _sizes(data, ends, kinds), strict=True):
        values, offsets = pa.allocate_buffer(size), np.empty(rows + 1, np.int32)
        out.data, out.offsets = values.address, offsets.ctypes.data
        buffers.append([None, pa.py_buffer(offsets), values])
    _call(data, ends, outs, write=True)
    columns = []
    for out, kind, parts in zip(outs, kinds, buffers, strict=True):
        array = pa.Array.from_buffers(pa.string(), rows, parts, 0)
        if kind == "text":
            try:
                array.validate(full=True)
            except pa.ArrowInvalid:
                array = pa.Array.from_buffers(pa.binary(), rows, parts, 0)
        columns.append((array, bool(out.odd)))
    return columns
