"""SQLite tables and views into chunks (design section 7): one consistent, read-only read, by storage class.

A value counts as what it is stored as, whatever the column declares: TEXT is text, INTEGER an exact number; REAL and
BLOB have no normal form, so their row is refused, with the advice to declare the column TEXT.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ledger.catalog import Catalog, Field, FieldType
from ledger.interruption import stoppable
from ledger.kernel.chunk import Chunk
from ledger.record import Refusal, text_of
from ledger.source.compiled import is_utf8
from ledger.source.layout import NUMERIC, ColumnShape, Layout, TableShape, in_any_case, resolve_columns, table_missing
from ledger.source.sqlitecapi import INTEGER, TEXT, Connection, Values
from ledger.source.sqlitefile import BUSY_SECONDS, about_rows, deadline, path_of, reading
from ledger.source.values import Refused, chunk_of, refuse, selected, texts_of, version_of

CHUNK_BYTES = 8 << 20
MAX_CHUNK_ROWS = 16_384
FIRST_CHUNK_ROWS = 256
"""The first chunk shows how wide rows are; the next are made to hold about CHUNK_BYTES."""

_DECLARED = re.compile(
    r"\s*([A-Za-z ]*[A-Za-z])?\s*(?:\(\s*([0-9]+)\s*(?:,\s*([0-9]+)\s*)?\))?.*", re.ASCII | re.DOTALL
)


AnyConnection = sqlite3.Connection | Connection


class SqliteSource:
    """One table or view within one read transaction; see `open_source`."""

    notes: Sequence[tuple[str, str]] = ()

    def __init__(
        self,
        connection: AnyConnection,
        catalog: Catalog,
        layout: Layout,
        where: str,
        timeout_seconds: int | None = None,
    ) -> None:
        self.layout = layout
        self._timeout_seconds = timeout_seconds
        self._connection = connection
        self._catalog = catalog
        self._where = where

    @property
    def where(self) -> str:
        """The file and table, for messages."""
        return self._where

    @property
    def ignored(self) -> Sequence[str]:
        """Columns neither declared nor the batch or row version column."""
        return self.layout.ignored

    def about_rows(self) -> int | None:
        """By the first and last rowid, which counts deleted rows too; None where rowids say nothing."""
        return about_rows(self._connection, self.layout.reference)

    def scan(self) -> Iterator[Chunk]:
        """All rows, in no particular order; `Chunk.numbers` counts them from 1. The same rows each time.

        `extra["batch"]`, if a batch column was named, is its text in the normal form of `code`; `extra["row_version"]`
        likewise its INTEGER, or microseconds since the epoch for a TEXT that F2 reads as a date or time.
        """
        names = list(self._catalog.by_name)
        with deadline(self._connection, self._timeout_seconds):
            if isinstance(self._connection, Connection):
                yield from _scan_columns(self._connection, self._catalog, self.layout, names)
                return
            for _, chunk in scan_table(self._connection, self._catalog, self.layout, names):
                yield chunk


@contextmanager
def open_source(
    url: str,
    table: str,
    catalog: Catalog,
    *,
    columns: Mapping[str, str] | None = None,
    batch_column: str | None = None,
    row_version_column: str | None = None,
    base: Path | None = None,
    busy_seconds: float = BUSY_SECONDS,
    timeout_seconds: int | None = None,
) -> Iterator[SqliteSource]:
    """Read `table` of the database at `url` as records of `catalog`; everything in the block sees one state of it.

    columns             field name -> column name, where they differ
    batch_column        the column that holds the batch number, if there is one
    row_version_column  the column that changes with each change of a row, if there is one
    base                what a relative path in `url` is relative to; default: the working folder
    timeout_seconds     how long a scan may take: SourceError `source.timeout`

    NotBuiltError for a database other than SQLite. SourceError `source.<rule>`: `missing permission locked not_database
    damaged table_missing column_missing column_shared` …; InputError `source.url`.
    """
    path = path_of(url, base or Path())
    where = f"{path}:{table}"
    with reading(path, busy_seconds, where) as connection, stoppable(connection.interrupt):
        # The first read after BEGIN fixes the state that all later ones see.
        connection.execute("BEGIN")
        layout = resolve_layout(
            connection, table, catalog, columns=columns or {}, batch_column=batch_column,
            row_version_column=row_version_column, where=where,
        )  # fmt: skip
        yield SqliteSource(connection, catalog, layout, where, timeout_seconds)


def resolve_layout(
    connection: AnyConnection,
    table: str,
    catalog: Catalog,
    *,
    columns: Mapping[str, str],
    batch_column: str | None,
    row_version_column: str | None = None,
    where: str,
) -> Layout:
    """Find table and columns, in any case as SQLite does. SourceError names what is missing and what is there."""
    real, is_view = _find_table(connection, table, where)
    names = [item[0] for item in connection.execute(f"SELECT * FROM {quoted(real)} LIMIT 0").description]  # noqa: S608
    return resolve_columns(
        names, catalog, table=real, reference=quoted(real), is_view=is_view, columns=columns,
        batch_column=batch_column, row_version_column=row_version_column, where=where,
    )  # fmt: skip


def _find_table(connection: AnyConnection, table: str, where: str) -> tuple[str, bool]:
    found = connection.execute("SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
    kinds = {name.decode(): kind.decode() for name, kind in found}
    real = in_any_case(table, kinds)
    if real is None:
        raise table_missing(table, kinds, where)
    return real, kinds[real] == "view"


def describe_table(url: str, table: str, base: Path | None = None) -> TableShape:
    """The columns of a table or view as SQLite declares them; errors as in `open_source`."""
    path = path_of(url, base or Path())
    where = f"{path}:{table}"
    with reading(path, BUSY_SECONDS, where) as connection:
        real, _ = _find_table(connection, table, where)
        shapes = []
        for column in table_columns(connection, real):
            kind, scale = _suggested(column.declared)
            shapes.append(ColumnShape(column.name, column.declared, kind, not column.not_null, scale, column.in_key))
        return TableShape(tuple(shapes))


@dataclass(frozen=True)
class SqliteColumn:
    """What SQLite says of a column; `key_place` is its place in the primary key from 1, or 0."""

    name: str
    declared: str
    not_null: bool
    has_default: bool
    key_place: int
    generated: bool

    @property
    def in_key(self) -> bool:
        """Whether the primary key has it."""
        return self.key_place > 0


def table_columns(connection: AnyConnection, table: str) -> list[SqliteColumn]:
    """The columns of a table or view, hidden ones too, in their order."""
    info = connection.execute(f"PRAGMA table_xinfo({quoted(table)})").fetchall()
    return [
        SqliteColumn(name.decode(), declared.decode(), bool(not_null), default is not None, key, hidden in (2, 3))
        for _, name, declared, not_null, default, key, hidden in info
    ]


def quoted(identifier: str) -> str:
    """An identifier for SQL, whatever it holds."""
    return '"' + identifier.replace('"', '""') + '"'


def scan_table(
    connection: sqlite3.Connection,
    catalog: Catalog,
    layout: Layout,
    names: Sequence[str],
    locator: Sequence[str] = (),
) -> Iterator[tuple[list[tuple[Any, ...]], Chunk]]:
    """The fields `names` of all rows, chunk by chunk, and beside each chunk the values of the expressions `locator`."""
    cursor = connection.execute(_select(layout, names, locator))
    ordinal, size = 1, FIRST_CHUNK_ROWS

    def versions(values: Sequence[Any], column: str, refused: Refused) -> Any:
        return _versions(values, column, catalog, refused)

    while rows := cursor.fetchmany(size):
        values = list(zip(*rows, strict=True))
        located = list(zip(*values[: len(locator)], strict=True)) if locator else []
        chunk = chunk_of(values[len(locator) :], names, layout, catalog, ordinal, _texts, versions)
        ordinal += len(rows)
        width = sum(column.nbytes for column in chunk.fields.values()) // len(rows) + 1
        size = max(1, min(MAX_CHUNK_ROWS, 2 * size, CHUNK_BYTES // width))
        del rows, values
        yield located, chunk


def _select(layout: Layout, names: Sequence[str], locator: Sequence[str] = ()) -> str:
    wanted = [*locator, *map(quoted, selected(layout, names))]
    return f"SELECT {', '.join(wanted)} FROM {layout.reference}"  # noqa: S608 - all quoted


def _scan_columns(connection: Connection, catalog: Catalog, layout: Layout, names: Sequence[str]) -> Iterator[Chunk]:
    """The chunks of `scan_table`, cut elsewhere."""
    ordinal = 1

    def versions(values: Any, column: str, refused: Refused) -> Any:
        if values.only(INTEGER):
            return values.binary().cast(pa.string()).cast(pa.int64())
        return _versions(values.objects(), column, catalog, refused)

    for columns in connection.scan(
        _select(layout, names), min(FIRST_CHUNK_ROWS, MAX_CHUNK_ROWS), MAX_CHUNK_ROWS, CHUNK_BYTES
    ):
        chunk = chunk_of(columns, names, layout, catalog, ordinal, _texts_of_values, versions)
        ordinal += len(chunk)
        yield chunk


def _texts_of_values(values: Values, column: str, field: Field, refused: Refused) -> Any:
    if values.only(TEXT) or (values.only(TEXT, INTEGER) and field.type in NUMERIC):
        texts = values.binary()
        if is_utf8(texts):
            return texts.view(pa.string())
    return _texts(values.objects(), column, field, refused)


def _texts(values: Sequence[Any], _column: str, field: Field, refused: Refused) -> Any:
    """A column as text, null where it has none; rows it cannot be had for are added to `refused`."""
    if set(map(type, values)) <= {bytearray, type(None)}:
        try:
            return pa.array(values, pa.binary()).cast(pa.string())
        except pa.ArrowInvalid:
            pass
    return texts_of(values, field, refused, text_of_value)


def text_of_value(value: object, field: Field) -> str | None:
    """One value as text by its storage class (`connected`): TEXT as it is, INTEGER written out; Refusal for the rest."""
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


def _versions(values: Sequence[Any], column: str, catalog: Catalog, refused: Refused) -> Any:
    versions: list[int | None] = []
    for row, value in enumerate(values):
        try:
            versions.append(
                value
                if value is None or type(value) is int
                else version_of(text_of_value(value, Field(column, "datetime")), catalog)
            )
        except Refusal as refusal:
            versions.append(None)
            refuse(refused, row, Field(column, "datetime"), value, refusal)
    return pa.array(versions, pa.int64())


def _suggested(declared: str) -> tuple[FieldType | None, int | None]:
    """The field type a declared type suggests, by its words: SQLite itself binds a column to none."""
    found = _DECLARED.fullmatch(declared)
    words = ((found[1] if found else None) or "").upper()
    if "INT" in words:
        return "integer", None
    if "CHAR" in words or "TEXT" in words or "CLOB" in words or not words:
        return "text", None
    if "DATETIME" in words or "TIMESTAMP" in words:
        return "datetime", None
    if words == "DATE":
        return "date", None
    if words in ("DECIMAL", "NUMERIC") and found is not None and found[2] is not None:
        return "decimal", int(found[3] or 0)
    return None, None
