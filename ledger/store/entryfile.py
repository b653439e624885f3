"""The entries of one batch in one immutable Parquet file (docs/formats/entries.md).

Columns: the 64-byte entry, whether it is a withdrawal, the archive frame that holds its record and, where the source
has one, the row version under which the record was read. Rows stand in the order of the tree (formats F5), so that
reading the file from front to back gives its leaves; the tiles of the tree (`merkle.tiles_of`) stand in the footer. The same
rows give the same bytes under one version of Arrow; what authenticates them is the anchored root, not the file's hash.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ledger.errors import StoreError
from ledger.merkle import HASH_SIZE, TILE
from ledger.store.files import NewFile, hash_file, os_errors, sync_folder

ENTRY_BYTES = 64
NO_FRAME = 0xFFFFFFFF  # no archive holds the record
NO_VERSION = -(1 << 63)  # the row version is not known; a row whose version is this very number has none either

# 4 MiB of entries: what a reader holds beside the arrays it fills.
_GROUP_ROWS = 1 << 16
_TILES = f"duizhang.tiles/{TILE}".encode()
_SCHEMA = pa.schema(
    [
        pa.field("entry", pa.binary(ENTRY_BYTES), nullable=False),
        pa.field("withdrawn", pa.bool_(), nullable=False),
        pa.field("frame", pa.uint32(), nullable=False),
    ]
)
_VERSIONED = _SCHEMA.append(pa.field("row_version", pa.int64()))


@dataclass(frozen=True)
class Entries:
    """The rows of one entry file in tree order; the arrays cannot be written to.

    `entries` uint8 (n, 64), `withdrawn` bool (n,), `frames` uint32 (n,): `NO_FRAME` where no archive has the record.
    `row_versions` int64 (n,), `NO_VERSION` where it is not known; None for a file without that column. `tiles` uint8 (t, 32) as
    written, or None: nobody has looked whether they belong to the entries, or to the root (`batch.tiles` does).
    """

    entries: NDArray[np.uint8]
    withdrawn: NDArray[np.bool_]
    frames: NDArray[np.uint32]
    row_versions: NDArray[np.int64] | None = None
    tiles: NDArray[np.uint8] | None = None

    @property
    def key_tags(self) -> NDArray[np.uint8]:
        """(n, 16), a view."""
        return self.entries[:, 16:32]


class _HashingSink:
    """What Arrow writes to: passes the bytes on and hashes them, so that the file need not be read again.

    The first error of the file is kept for `check` and hidden from Arrow, which would meet it again in a destructor, at
    any later moment, and format its traceback there: in the midst of another parse that ends the process (CPython 3.11).
    """

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._error: OSError | None = None
        self.sha256 = hashlib.sha256()
        self.closed = False

    def write(self, data: Any) -> int:
        if self._error is None:
            self.sha256.update(data)
            try:
                self._handle.write(data)
            except OSError as error:
                self._error = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Nothing: the file is flushed when it is published."""

    def close(self) -> None:
        """The file stays open; whoever owns it publishes or discards it."""
        self.closed = True

    def check(self) -> None:
        """Raise the error that a write met."""
        if self._error is not None:
            raise self._error


def write_entries(
    path: Path,
    entries: NDArray[np.uint8],
    withdrawn: NDArray[np.bool_],
    frames: NDArray[np.uint32],
    row_versions: NDArray[np.int64] | None = None,
    tiles: NDArray[np.uint8] | None = None,
) -> str:
    """Write the rows whole or not at all (mode 0600) and return the file's SHA-256 in hex.

    `entries` must be strictly ascending with one entry a key_tag: `store.entries_order`, `store.entries_duplicate`. A
    file that is there already must hold the same bytes, else `store.entries_conflict`: entry files never change. Without
    `row_versions`, or where none of them is known, the file has no such column. `tiles` are those of the tree over `entries`; without
    them, or where there are no entries, the file has none.
    """
    size = len(entries)
    if entries.dtype != np.uint8 or entries.shape != (size, ENTRY_BYTES):
        raise ValueError(f"entries must be uint8 (n, 64), not {entries.dtype} {entries.shape}")
    if withdrawn.dtype != np.bool_ or frames.dtype != np.uint32 or not withdrawn.shape == frames.shape == (size,):
        raise ValueError("withdrawn must be bool and frames uint32, one for each entry")
    if row_versions is not None and (row_versions.dtype != np.int64 or row_versions.shape != (size,)):
        raise ValueError("row_versions must be int64, one for each entry")
    if tiles is not None and (tiles.dtype != np.uint8 or tiles.shape != (tile_count(size), HASH_SIZE)):
        raise ValueError(f"tiles must be uint8, one for each {TILE} entries")
    entries = np.ascontiguousarray(entries)
    _check_order(entries, path)
    with os_errors(path):
        new = NewFile(path)
        try:
            sink = _HashingSink(new.handle)
            _write_table(sink, entries, withdrawn, frames, row_versions, tiles)
            sink.check()
            digest = sink.sha256.hexdigest()
            try:
                new.publish(overwrite=False)
            except FileExistsError:
                present = hash_file(path)
                if present != digest:
                    raise _conflict(path, present, digest) from None
                # Whoever wrote it may have failed at this very step, and the caller relies on it.
                sync_folder(path.parent)
        finally:
            new.discard()
    return digest


def _write_table(
    sink: _HashingSink,
    entries: NDArray[np.uint8],
    withdrawn: NDArray[np.bool_],
    frames: NDArray[np.uint32],
    row_versions: NDArray[np.int64] | None,
    tiles: NDArray[np.uint8] | None,
) -> None:
    versions = None if row_versions is None or (row_versions == NO_VERSION).all() else row_versions
    schema = _SCHEMA if versions is None else _VERSIONED
    # Entries are hashes: compression would cost time and save nothing. Frames repeat, withdrawals are rare.
    packed = {"entry": "NONE", "withdrawn": "ZSTD", "frame": "ZSTD", "row_version": "ZSTD"}
    with pq.ParquetWriter(
        pa.PythonFile(sink, mode="w"),
        schema,
        compression={name: packed[name] for name in schema.names},
        use_dictionary=["frame"],
        write_statistics=False,
        store_schema=False,
    ) as writer:
        for start in range(0, len(entries), _GROUP_ROWS):
            rows = slice(start, start + _GROUP_ROWS)
            part = entries[rows]
            column = pa.FixedSizeBinaryArray.from_buffers(_SCHEMA.field(0).type, len(part), [None, pa.py_buffer(part)])
            columns = [column, pa.array(withdrawn[rows]), pa.array(frames[rows])]
            if versions is not None:
                columns.append(pa.array(versions[rows], mask=versions[rows] == NO_VERSION))
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=_GROUP_ROWS)
            sink.check()
        if tiles is not None and len(tiles):
            # In hex: other readers of Parquet take what stands there for text.
            writer.add_key_value_metadata({_TILES: tiles.tobytes().hex()})


def read_entries(path: Path, sha256: str) -> Entries:
    """The rows of the file whose SHA-256 the store recorded, about 70 bytes of memory a row (80 with row versions).

    StoreError `store.entries_missing`, `store.entries_damaged` (other bytes than those written, or not this format).
    """
    with os_errors(path):
        try:
            handle = open(path, "rb")  # noqa: SIM115 - closed by the with below; only a missing file is caught here
        except FileNotFoundError as error:
            raise StoreError(
                "store.entries_missing",
                f"条目文件 {path} 不见了；请从备份恢复",
                "the entry file is gone; put it back from a backup",
                str(path),
            ) from error
        with handle:
            found = hashlib.file_digest(handle, "sha256").hexdigest()
            if found != sha256:
                raise _damaged(path, f"its SHA-256 is {found}, recorded was {sha256}", "内容与写入时不同")
            handle.seek(0)
            try:
                rows = _read_table(handle, path)
            except (pa.ArrowException, ValueError) as error:
                raise _damaged(path, str(error), "不是条目文件格式") from error
    try:
        _check_order(rows.entries, path)
    except StoreError as error:
        raise _damaged(path, error.en, "条目次序错误") from error
    return rows


def _read_table(handle: BinaryIO, path: Path) -> Entries:
    file = pq.ParquetFile(handle)
    size = file.metadata.num_rows
    versioned = file.schema_arrow.equals(_VERSIONED)
    if not versioned and not file.schema_arrow.equals(_SCHEMA):
        raise _damaged(path, "its columns are not entry, withdrawn, frame and at most row_version", "列不符")
    if size * ENTRY_BYTES > handle.seek(0, 2):
        raise _damaged(path, f"it claims {size} rows and is too short for them", "行数与长度不符")
    entries = np.empty((size, ENTRY_BYTES), np.uint8)
    withdrawn = np.empty(size, np.bool_)
    frames = np.empty(size, np.uint32)
    row_versions = np.empty(size, np.int64) if versioned else None
    start = 0
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, use_threads=False)
        stop = start + len(table)
        column = table.column("entry").combine_chunks()
        data = np.frombuffer(column.buffers()[1], np.uint8, len(table) * ENTRY_BYTES, column.offset * ENTRY_BYTES)
        entries[start:stop] = data.reshape(-1, ENTRY_BYTES)
        withdrawn[start:stop] = table.column("withdrawn").to_numpy()
        frames[start:stop] = table.column("frame").to_numpy()
        if row_versions is not None:
            row_versions[start:stop] = versions_of(table.column("row_version"))
        start = stop
    if start != size:
        raise _damaged(path, f"it claims {size} rows and holds {start}", "行数不符")
    for array in (entries, withdrawn, frames, row_versions):
        if array is not None:
            array.flags.writeable = False
    told = (file.metadata.metadata or {}).get(_TILES)
    return Entries(entries, withdrawn, frames, row_versions, None if told is None else _read_tiles(told, size, path))


def _read_tiles(told: bytes, size: int, path: Path) -> NDArray[np.uint8]:
    data = bytes.fromhex(told.decode("ascii"))
    if len(data) != tile_count(size) * HASH_SIZE:
        raise _damaged(path, f"it has {len(data)} bytes of tiles for {size} entries", "树块数与条数不符")
    return np.frombuffer(data, np.uint8).reshape(-1, HASH_SIZE)


def tile_count(size: int) -> int:
    """How many tiles a tree over `size` entries has."""
    return -(-size // TILE)


def versions_of(column: Any) -> NDArray[np.int64]:
    """A pa.int64() column as numbers, `NO_VERSION` where it is null."""
    return np.asarray(column.fill_null(NO_VERSION).to_numpy(), np.int64)


def _check_order(entries: NDArray[np.uint8], path: Path) -> None:
    """Formats F5: strictly ascending as bytes, at most one entry a key_tag."""
    words = entries.view(">u8")  # (n, 8); big-endian, so that numbers compare as the bytes do
    for start in range(0, len(entries) - 1, _GROUP_ROWS):
        row = _first_descent(words[start : start + _GROUP_ROWS + 1])
        if row is not None:
            raise StoreError(
                "store.entries_order",
                f"{path}：第 {start + row} 与 {start + row + 1} 条未按严格升序排列（格式 F5）",
                f"entries {start + row} and {start + row + 1} are not strictly ascending (formats F5)",
                str(path),
            )
    # Two equal tags have equal first halves, and those are almost always distinct: sorting them costs 8 bytes a row.
    halves = np.sort(words[:, 2].astype(np.uint64))
    if (halves[1:] == halves[:-1]).any():
        tags, counts = np.unique(np.ascontiguousarray(entries[:, 16:32]).view("V16"), return_counts=True)
        if (counts > 1).any():
            tag = tags[counts > 1][0].tobytes().hex()
            raise StoreError(
                "store.entries_duplicate",
                f"{path}：key_tag {tag} 出现多次，每个键只能有一条（格式 F5）",
                f"key_tag {tag} occurs more than once; a key has at most one entry (formats F5)",
                str(path),
            )


def _first_descent(words: NDArray[np.uint64]) -> int | None:
    """The first row that is not below the next one, compared word by word; None if all are."""
    below = np.zeros(len(words) - 1, np.bool_)
    equal = np.ones(len(words) - 1, np.bool_)
    for word in range(words.shape[1]):
        left, right = words[:-1, word], words[1:, word]
        below |= equal & (left < right)
        equal &= left == right
        if not equal.any():
            break
    descents = np.flatnonzero(~below)
    return int(descents[0]) if len(descents) else None


def _conflict(path: Path, present: str, written: str) -> StoreError:
    return StoreError(
        "store.entries_conflict",
        f"条目文件 {path} 已存在且内容不同（现有 {present}，应写 {written}）；条目文件从不改写",
        f"the entry file exists with other content (SHA-256 {present}, to be written {written}); it is never changed",
        str(path),
    )


def _damaged(path: Path, why: str, zh: str) -> StoreError:
    return StoreError(
        "store.entries_damaged",
        f"条目文件 {path} 已损坏：{zh}；请从备份恢复",
        f"the entry file is damaged ({why}); put it back from a backup",
        str(path),
    )
