"""Parquet files into chunks: exact types only, each value written as text as F2 says.

A column that could only be guessed at (binary floats, bytes, booleans, lists, structures) is refused by name when the
file is opened; a single value that has no text refuses its row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ledger.catalog import Catalog, Field
from ledger.errors import InputError
from ledger.kernel.chunk import Chunk
from ledger.record import MASK, Unreadable, shown
from ledger.source.compressed import open_bytes, os_error
from ledger.source.csvheader import Header, resolve_header
from ledger.source.parquetpages import widest
from ledger.source.parquettexts import is_text, texts_of
from ledger.source.rows import CELL, assembled

BATCH_ROWS = 16_384
CODED_ROWS = 4096
"""Rows of a batch with dictionaries, which come anew with each batch."""
CHUNK_BYTES = 8 << 20
BATCH_BYTES = 32 << 20
"""Bytes that a batch may have were each value as long as the longest; where 256 rows may have more, dictionaries are made."""
RUN_ROWS = 1 << 17
"""Small row groups are read together, up to so many rows."""
MAX_CHUNK_BYTES = 64 << 20
"""Bytes of one row, as with a CSV's; a dictionary makes any number of long values out of one."""
MAX_GROUP = 8 << 30
"""Bytes that a column of one row group may unpack to, as the file declares it."""
MAX_COLUMNS = 16_384

_NUMERIC = ("text", "code", "enum", "integer", "decimal")


class ParquetFile:
    """One file, opened and its columns understood; see `files.RowsFile`.

    InputError `parquet.<rule>`: `damaged`, `encoding`, `type` (a declared column of a type without normal form), `size`,
    `row_size`, `changed`; `csv.<rule>` for the names. Rows are refused as `row.encoding`, `value.fraction`,
    `value.year`, `value.type`, `row.operation`, `row.reason`.
    """

    def __init__(
        self,
        path: Path,
        catalog: Catalog,
        *,
        operation_column: str | None = None,
        header: Callable[[Sequence[str]], Header] | None = None,
        also: Mapping[str, Field] | None = None,
    ) -> None:
        """`header` finds the columns by their names, by default as in any delivered file; `also` are other columns of which a value
        without text refuses its row."""
        self.catalog = catalog
        self.notes: Sequence[tuple[str, str]] = ()
        self._path = path
        self._file = open_bytes(path)
        try:
            self._state = self._stat()
            self._schema = self._check()
            find = header or (lambda names: resolve_header(catalog, names, operation_column, self.where))
            self.header: Header = find(self._schema.names)
            self._fields = self._field_of_column(also or {})
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

    @property
    def schema(self) -> Any:
        """The columns and their types, as Arrow has them."""
        return self._schema

    def groups(self) -> list[int]:
        """The rows of each row group, as the file declares them."""
        try:
            metadata = self._open(()).metadata
            return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise self._damaged(error) from error

    def about_rows(self) -> int | None:
        """As the file's footer has it."""
        try:
            return sum(self.groups())
        except InputError:
            # What is wrong with the file the reading says.
            return None

    def scan(self, groups: Sequence[int] | None = None) -> Iterator[Chunk]:
        """All rows in the file's order, or those of some row groups; `Chunk.numbers` counts what is read from 1."""
        ordinal = 1
        try:
            opened = self._open(())
            read = [name for name, type in zip(self._schema.names, self._schema.types, strict=True) if _readable(type)]
            about = opened.metadata
            wanted = range(about.num_row_groups) if groups is None else groups
            for run in _runs(about, wanted):
                coded, rows = self._way(opened, run)
                reader = self._open(coded) if coded else opened
                for whole in reader.iter_batches(rows, row_groups=run, columns=read, use_threads=False):
                    batch = pa.RecordBatch.from_arrays(
                        [_compact(column) for column in whole.columns], whole.schema.names
                    )
                    for part in self._bounded(batch, ordinal):
                        yield self._chunk(part, ordinal)
                        ordinal += part.num_rows
            counted = sum(about.row_group(it).num_rows for it in wanted)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise self._damaged(error) from error
        if counted != ordinal - 1:
            raise self._damaged(ValueError("rows"))
        if self._stat() != self._state:
            raise InputError(
                "parquet.changed",
                "读取期间文件被修改，请重新运行",
                "the file changed while it was read; run again",
                self.where,
            )

    def _stat(self) -> tuple[int, int]:
        found = os.fstat(self._file.fileno())
        return found.st_size, found.st_mtime_ns

    def _open(self, dictionaries: Sequence[str]) -> Any:
        self._file.seek(0)
        return pq.ParquetFile(
            pa.PythonFile(_Borrowed(self._file), "r"),
            read_dictionary=dictionaries,
            # Column by column, piece by piece: a row group is never in memory as a whole.
            pre_buffer=False,
            buffer_size=1 << 20,
            page_checksum_verification=True,
            thrift_string_size_limit=64 << 20,
            thrift_container_size_limit=1_000_000,
        )

    def _way(self, opened: Any, groups: Sequence[int]) -> tuple[list[str], int]:
        """Which columns of some row groups are read as dictionaries, so that one long value repeated is in memory once; and how many rows at
        a time."""
        widths = {
            name: self._width(opened, groups, name)
            for name, type in zip(self._schema.names, self._schema.types, strict=True)
            if is_text(_plain(type))
        }
        coded = [name for name, width in widths.items() if width is None]
        plain = sorted((width, name) for name, width in widths.items() if width is not None)
        while plain and sum(width for width, _ in plain) > BATCH_BYTES >> 8:
            coded.append(plain.pop()[1])
        rows = min(BATCH_ROWS, BATCH_BYTES // max(1, sum(width for width, _ in plain)))
        return coded, min(rows, CODED_ROWS) if coded else rows

    def _width(self, opened: Any, groups: Sequence[int], name: str) -> int | None:
        places = [place for place in range(opened.metadata.num_columns) if opened.schema.column(place).path == name]
        if len(places) != 1 or pa.types.is_dictionary(self._schema.field(name).type):
            return None
        found = [widest(self._file, opened.metadata.row_group(group).column(places[0])) for group in groups]
        return None if None in found else max(filter(None, found), default=0)

    def _check(self) -> Any:
        try:
            opened = self._open(())
            schema, metadata = opened.schema_arrow, opened.metadata
            if len(schema) > MAX_COLUMNS or metadata.num_columns > MAX_COLUMNS:
                raise InputError(
                    "parquet.size", f"超过 {MAX_COLUMNS} 列", f"has more than {MAX_COLUMNS} columns", self.where
                )
            for group in range(metadata.num_row_groups):
                about = metadata.row_group(group)
                for column in range(about.num_columns):
                    if about.column(column).total_uncompressed_size > MAX_GROUP:
                        raise InputError(
                            "parquet.size",
                            f"第 {group + 1} 个行组有一列解压后超过 {MAX_GROUP >> 30} GiB；请用较小的行组重新导出",
                            f"a column of row group {group + 1} unpacks to more than {MAX_GROUP >> 30} GiB; export it "
                            "with smaller row groups",
                            self.where,
                        )
        except (pa.ArrowException, OSError, ValueError, OverflowError, UnicodeDecodeError) as error:
            raise self._damaged(error) from error
        return schema

    def _damaged(self, error: Exception) -> InputError:
        if isinstance(error, OSError) and error.errno is not None:
            return os_error(error, self.where)
        if "ncrypt" in str(error):
            return InputError(
                "file.kind",
                "Parquet 文件已加密，不能读取；请不加密导出",
                "the Parquet file is encrypted, which is not read; export it without encryption",
                self.where,
            )
        if "Not yet implemented" in str(error):
            return InputError(
                "parquet.encoding",
                "Parquet 文件用了不能读取的编码（如 DELTA_BYTE_ARRAY）；请用默认编码（PLAIN 或字典）重新导出",
                "the Parquet file uses an encoding that is not read (such as DELTA_BYTE_ARRAY); export it with the default ones "
                "(PLAIN or dictionary)",
                self.where,
            )
        return InputError(
            "parquet.damaged",
            "Parquet 文件已损坏或不完整；请重新传输或导出",
            "the Parquet file is damaged or cut short; transfer or export it again",
            self.where,
        )

    def _field_of_column(self, also: Mapping[str, Field]) -> list[Field | None]:
        fields: list[Field | None] = [also.get(name) for name in self._schema.names]
        for name, place in self.header.fields.items():
            fields[place] = self.catalog.by_name[name]
        for known in (self.header.operation, self.header.reason):
            if known is not None:
                fields[known] = CELL
        for place, field in enumerate(fields):
            type = self._schema.types[place]
            if field is not None and not _fits(type, field):
                name = self._schema.names[place]
                advice_zh, advice_en = _advice(type, field)
                raise InputError(
                    "parquet.type",
                    f"列 {name} 的类型是 {str(type)[:80]}，不能用于 {field.type} 字段；{advice_zh}",
                    f"column {name} is of type {str(type)[:80]}, which does not go into a field of type {field.type}; {advice_en}",
                    self.where,
                )
        return fields

    def _bounded(self, batch: Any, ordinal: int) -> Iterator[Any]:
        """A batch in parts that hold about CHUNK_BYTES of text once each value is written out."""
        if not any(pa.types.is_dictionary(type) for type in batch.schema.types) and batch.nbytes <= min(
            CHUNK_BYTES, MAX_CHUNK_BYTES
        ):
            yield batch
            return
        sizes = np.zeros(batch.num_rows, np.int64)
        for column in batch.columns:
            sizes += _sizes(column)
        long = sizes > MAX_CHUNK_BYTES
        if long.any():
            raise InputError(
                "parquet.row_size",
                f"一行超过 {MAX_CHUNK_BYTES >> 20} MiB",
                f"a row has more than {MAX_CHUNK_BYTES >> 20} MiB",
                f"{self.where}:{ordinal + int(long.argmax())}",
            )
        ends = np.cumsum(sizes)
        begin = 0
        while begin < batch.num_rows:
            most = CHUNK_BYTES + (int(ends[begin - 1]) if begin else 0)
            end = max(begin + 1, int(np.searchsorted(ends, most, "right")))
            yield batch.slice(begin, end - begin)
            begin = end

    def _chunk(self, batch: Any, ordinal: int) -> Chunk:
        count = batch.num_rows
        refused: dict[int, Unreadable] = {}
        seen: dict[int, dict[int, str]] = {}
        columns = []
        for place, name in enumerate(self._schema.names):
            type, field = self._schema.types[place], self._fields[place]
            at = batch.schema.get_field_index(name)
            if at < 0:
                # Nothing of a type that nobody asked for is read; its place shows what it is.
                columns.append(pa.array([f"<{type}>"[:80]] * count, pa.string()))
                continue
            texts, bad = texts_of(batch.column(at), field)
            columns.append(texts)
            for row, (value, refusal) in bad.items():
                seen.setdefault(row, {})[place] = value
                if field is None:
                    continue
                called = field.name if field is not CELL else name
                mask = field.personal
                refused.setdefault(
                    row, Unreadable(called, MASK if mask else shown(field, value), refusal.code, refusal.zh, refusal.en)
                )
        odd: dict[int, list[str]] = {}
        for row, values in seen.items():
            odd[row] = [values.get(place, column[row].as_py() or "") for place, column in enumerate(columns)]
        numbers = np.arange(ordinal, ordinal + count, dtype=np.int64)
        return assembled(self.catalog, self.header, columns, numbers, refused, odd)


def _plain(type: Any) -> Any:
    return type.value_type if pa.types.is_dictionary(type) else type


def _runs(metadata: Any, groups: Sequence[int]) -> Iterator[list[int]]:
    """Those of these row groups that are read together."""
    run: list[int] = []
    rows = 0
    for group in groups:
        count = metadata.row_group(group).num_rows
        if run and rows + count > RUN_ROWS:
            yield run
            run, rows = [], 0
        run.append(group)
        rows += count
    if run:
        yield run


def _readable(type: Any) -> bool:
    """Whether every value of the type has a text."""
    type = _plain(type)
    return bool(
        is_text(type)
        or pa.types.is_integer(type)
        or pa.types.is_decimal(type)
        or pa.types.is_date(type)
        or pa.types.is_timestamp(type)
        or pa.types.is_null(type)
    )


def _fits(type: Any, field: Field) -> bool:
    """F2, first paragraph."""
    type = _plain(type)
    if is_text(type) or pa.types.is_null(type):
        return True
    if pa.types.is_integer(type) or pa.types.is_decimal(type):
        return field.type in _NUMERIC
    if pa.types.is_date(type):
        return field.type in ("date", "text", "enum")
    if pa.types.is_timestamp(type):
        return field.type == "datetime" or (field.type == "date" and not type.tz)
    return False


def _advice(type: Any, field: Field) -> tuple[str, str]:
    if pa.types.is_floating(_plain(type)):
        return "二进制浮点数不精确，请改为 DECIMAL 或文字", "a binary float is not exact: write DECIMAL or text"
    if pa.types.is_binary(_plain(type)) or pa.types.is_large_binary(_plain(type)):
        return "请写成文字（UTF8/STRING）", "write it as text (UTF8/STRING)"
    return "请改为文字", "write it as text"


def _compact(column: Any) -> Any:
    """A column whose dictionary, that of a whole row group, is larger than itself: with a dictionary of what is used, each once."""
    if not pa.types.is_dictionary(column.type) or len(column.dictionary) <= len(column):
        return column
    used = column.indices.dictionary_encode()
    return pa.DictionaryArray.from_arrays(used.indices, column.dictionary.take(used.dictionary))


def _sizes(column: Any) -> Any:
    """Bytes of every value of a column."""
    if pa.types.is_dictionary(column.type):
        if not is_text(column.type.value_type):
            return np.full(len(column), 16, np.int64)
        lengths = pc.binary_length(column.dictionary).cast(pa.int64()).fill_null(0)
        return pc.take(lengths, column.indices).fill_null(0).to_numpy(zero_copy_only=False)
    if is_text(column.type):
        return pc.binary_length(column).cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return np.full(len(column), 16, np.int64)


class _Borrowed:
    """A file that Arrow reads from and does not close."""

    closed = False

    def __init__(self, file: Any) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell

    def close(self) -> None:
        """Left open."""
