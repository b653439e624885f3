"""SQLite tables and views into chunks (design section 7): one consistent, read-only read, by storage class.

A value counts as what it is stored as, whatever the column declares: TEXT is text, INTEGER an exact number; REAL and
BLOB have no normal form, so their row is refused, with the advice to declare the column TEXT.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ledger.catalog import Catalog, Field
from ledger.errors import SourceError
from ledger.kernel.chunk import Chunk
from ledger.record import Refusal, Unreadable, normal, shown, text_of
from ledger.source.sqlitefile import BUSY_SECONDS, connected, path_of

BATCH = "batch"
"""Where `Chunk.extra` has the batch column."""
CHUNK_BYTES = 8 << 20
MAX_CHUNK_ROWS = 16_384
FIRST_CHUNK_ROWS = 256
"""The first chunk shows how wide rows are; the next are made to hold about CHUNK_BYTES."""

_NUMERIC = ("text", "code", "enum", "integer", "decimal")


@dataclass(frozen=True)
class Layout:
    """Which column of which table holds what, all in the database's own spelling."""

    table: str
    is_view: bool
    columns: Mapping[str, str]
    batch_column: str | None
    ignored: tuple[str, ...]


class SqliteSource:
    """One table or view within one read transaction; see `open_source`."""

    def __init__(self, connection: sqlite3.Connection, catalog: Catalog, layout: Layout, where: str) -> None:
        self.layout = layout
        self._connection = connection
        self._catalog = catalog
        self._where = where

    @property
    def where(self) -> str:
        """The file and table, for messages."""
        return self._where

    @property
    def ignored(self) -> Sequence[str]:
        """Columns neither declared nor the batch column."""
        return self.layout.ignored

    def scan(self) -> Iterator[Chunk]:
        """All rows, in no particular order; `Chunk.numbers` counts them from 1. The same rows each time.

        `extra["batch"]`, if a batch column was named, is its text in the normal form of `code`.
        """
        for _, chunk in scan_table(self._connection, self._catalog, self.layout, list(self._catalog.by_name)):
            yield chunk


@contextmanager
def open_source(
    url: str,
    table: str,
    catalog: Catalog,
    *,
    columns: Mapping[str, str] | None = None,
    batch_column: str | None = None,
    base: Path | None = None,
    busy_seconds: float = BUSY_SECONDS,
) -> Iterator[SqliteSource]:
    """Read `table` of the database at `url` as records of `catalog`; everything in the block sees one state of it.

    columns       field name -> column name, where they differ
    batch_column  the column that holds the batch number, if there is one
    base          what a relative path in `url` is relative to; default: the working folder

    NotBuiltError for a database other than SQLite. SourceError `source.<rule>`: `missing permission locked not_database
    damaged table_missing column_missing column_shared` …; InputError `source.url`.
    """
    path = path_of(url, base or Path())
    where = f"{path}:{table}"
    with connected(path, "ro", busy_seconds, where) as connection:
        # The first read after BEGIN fixes the state that all later ones see.
        connection.execute("BEGIN")
        layout = resolve_layout(
            connection, table, catalog, columns=columns or {}, batch_column=batch_column, where=where
        )
        yield SqliteSource(connection, catalog, layout, where)


def resolve_layout(
    connection: sqlite3.Connection,
    table: str,
    catalog: Catalog,
    *,
    columns: Mapping[str, str],
    batch_column: str | None,
    where: str,
) -> Layout:
    """Find table and columns, in any case as SQLite does. SourceError names what is missing and what is there."""
    found = connection.execute("SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
    kinds = {name.decode(): kind.decode() for name, kind in found}
    real = _in_any_case(table, kinds)
    if real is None:
        there = ", ".join(sorted(kinds)) or "-"
        raise SourceError(
            "source.table_missing",
            f"没有表或视图 {table}；库中有：{there}",
            f"there is no table or view {table}; the database has: {there}",
            where,
        )
    names = [item[0] for item in connection.execute(f"SELECT * FROM {quoted(real)} LIMIT 0").description]  # noqa: S608
    by_field: dict[str, str] = {}
    missing: list[str] = []
    for field in catalog.fields:
        wanted = columns.get(field.name, field.name)
        column = _in_any_case(wanted, names)
        if column is None:
            missing.append(field.name if wanted == field.name else f"{field.name} = {wanted}")
            continue
        for other, taken in by_field.items():
            if taken == column:
                raise SourceError(
                    "source.column_shared",
                    f"字段 {other} 和 {field.name} 都对应列 {column}",
                    f"fields {other} and {field.name} both read column {column}",
                    where,
                )
        by_field[field.name] = column
    batch = None if batch_column is None else _in_any_case(batch_column, names)
    if batch_column is not None and batch is None:
        missing.append(f"batch_column = {batch_column}")
    if missing:
        raise SourceError(
            "source.column_missing",
            f"缺少列：{'、'.join(missing)}；表中有：{', '.join(names)}",
            f"lacks the columns {', '.join(missing)}; it has: {', '.join(names)}",
            where,
        )
    used = {*by_field.values(), batch}
    return Layout(real, kinds[real] == "view", by_field, batch, tuple(name for name in names if name not in used))


def quoted(identifier: str) -> str:
    """An identifier for SQL, whatever it holds."""
    return '"' + identifier.replace('"', '""') + '"'


def _in_any_case(wanted: str, names: Sequence[str] | Mapping[str, str]) -> str | None:
    if wanted in names:
        return wanted
    found = [name for name in names if name.isascii() and wanted.isascii() and name.lower() == wanted.lower()]
    return found[0] if len(found) == 1 else None


def scan_table(
    connection: sqlite3.Connection,
    catalog: Catalog,
    layout: Layout,
    names: Sequence[str],
    locator: Sequence[str] = (),
) -> Iterator[tuple[list[tuple[Any, ...]], Chunk]]:
    """The fields `names` of all rows, chunk by chunk, and beside each chunk the values of the expressions `locator`."""
    batch = [] if layout.batch_column is None else [quoted(layout.batch_column)]
    wanted = [*locator, *batch, *(quoted(layout.columns[name]) for name in names)]
    cursor = connection.execute(f"SELECT {', '.join(wanted)} FROM {quoted(layout.table)}")  # noqa: S608 - all quoted
    ordinal, size = 1, FIRST_CHUNK_ROWS
    while rows := cursor.fetchmany(size):
        values = list(zip(*rows, strict=True))
        located = list(zip(*values[: len(locator)], strict=True)) if locator else []
        refused: dict[int, Unreadable] = {}
        extra = {}
        if batch:
            field = Field(layout.batch_column or "", "code")
            extra[BATCH] = _normal(_texts(values[len(locator)], field, refused), field, catalog, refused)
        first = len(locator) + len(batch)
        fields = {
            name: _texts(column, catalog.by_name[name], refused)
            for name, column in zip(names, values[first:], strict=True)
        }
        chunk = Chunk(fields, np.arange(ordinal, ordinal + len(rows), dtype=np.int64), refused, extra=extra)
        ordinal += len(rows)
        width = sum(column.nbytes for column in fields.values()) // len(rows) + 1
        size = max(1, min(MAX_CHUNK_ROWS, 2 * size, CHUNK_BYTES // width))
        del rows, values
        yield located, chunk


def _texts(values: Sequence[Any], field: Field, refused: dict[int, Unreadable]) -> Any:
    """A column as text, null where it has none; rows it cannot be had for are added to `refused`, the first field
    first."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {bytearray}:
        try:
            return pa.array(values, pa.binary()).cast(pa.string())
        except pa.ArrowInvalid:
            pass
    elif kinds == {int} and field.type in _NUMERIC:
        return pa.array(values, pa.int64()).cast(pa.string())
    texts: list[str | None] = []
    for row, value in enumerate(values):
        try:
            texts.append(_text(value, field))
        except Refusal as refusal:
            texts.append(None)
            seen = value.decode(errors="surrogateescape") if isinstance(value, bytearray) else value
            refused.setdefault(row, Unreadable(field.name, shown(field, seen), refusal.code, refusal.zh, refusal.en))
    return pa.array(texts, pa.string())


def _text(value: object, field: Field) -> str | None:
    if isinstance(value, bytearray):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise Refusal("row.encoding", "不是 UTF-8 文字", "is not text in UTF-8") from None
    if isinstance(value, bytes):
        raise Refusal(
            "value.type",
            "BLOB 没有规范形式；请把该列声明为 TEXT 并按文字写入",
            "a BLOB has no normal form; declare the column TEXT and write text into it",
        )
    return text_of(value, field.type)


def _normal(texts: Any, field: Field, catalog: Catalog, refused: dict[int, Unreadable]) -> Any:
    coded = texts.dictionary_encode()
    forms: list[str | None] = []
    bad: dict[int, Refusal] = {}
    for place, text in enumerate(coded.dictionary.to_pylist()):
        try:
            forms.append(normal(text, field, catalog))
        except Refusal as refusal:
            forms.append(None)
            bad[place] = refusal
    if bad:
        for row, place in enumerate(coded.indices.to_pylist()):
            if place in bad:
                why = bad[place]
                value = shown(field, texts[row].as_py())
                refused.setdefault(row, Unreadable(field.name, value, why.code, why.zh, why.en))
    return pa.array(forms, pa.string()).take(coded.indices)
