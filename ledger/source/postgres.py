"""PostgreSQL tables and views into chunks: one READ ONLY, REPEATABLE READ transaction, read by COPY.

The server writes each value as F2 has it and Arrow reads its CSV, where NULL and an empty text are the same, as they
are to F2. A type without a form is refused by name before the first row, a value without one with its row.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.csv as arrow_csv
from sqlalchemy.engine import URL

from ledger.catalog import Catalog, Field
from ledger.errors import SourceError
from ledger.interruption import stoppable
from ledger.kernel.ahead import in_order
from ledger.kernel.chunk import Chunk
from ledger.source import pgbinary
from ledger.source.layout import Kind, Layout, TableShape, check_kinds, resolve_columns
from ledger.source.pgconnect import LOCK_SECONDS, address_of, connected, no_right
from ledger.source.pgtable import (
    CAST,
    PgColumn,
    PgTable,
    check_rights,
    find_table,
    quoted,
    read_columns,
    shape_of,
)
from ledger.source.values import Refused, checked, chunk_of, selected, utf8_of, versions_of

CHUNK_BYTES = 8 << 20
MAX_CHUNK_ROWS = 32_768

_CANCEL_SECONDS = 2.0
"""How long another connection may take to tell the server that nobody waits any more."""

LOCATOR = ("tableoid", "ctid")
"""What names a row of a table, its partitions included, while nobody else writes."""

_BOM = b"\xef\xbb\xbf"
_FOREIGN = (
    "表是外部表：远端数据不一定属于同一时刻",
    "the table is a foreign one: what the other server sent need not be of one moment",
)


class PostgresSource:
    """One table or view within one transaction; see `open_source`."""

    def __init__(
        self, connection: psycopg.Connection[Any], catalog: Catalog, table: PgTable, reader: Reader, where: str
    ) -> None:
        self.layout = reader.layout
        self.notes: Sequence[tuple[str, str]] = (_FOREIGN,) if table.kind == "f" else ()
        self.connection = connection
        self.table = table
        self.reader = reader
        self._catalog = catalog
        self._where = where

    @property
    def where(self) -> str:
        """Host, port, database and table, for messages."""
        return self._where

    @property
    def ignored(self) -> Sequence[str]:
        """Columns neither declared nor the batch or row version column."""
        return self.layout.ignored

    def about_rows(self) -> int | None:
        """What the planner expects, which it knows of views and partitions too."""
        found = self.connection.execute(f"EXPLAIN (FORMAT JSON) SELECT FROM {self.layout.reference}").fetchone()
        return None if found is None else int(found[0][0]["Plan"]["Plan Rows"])

    def scan(self) -> Iterator[Chunk]:
        """All rows, in no particular order; `Chunk.numbers` counts them from 1. The same rows each time.

        `extra["batch"]` is the batch column in the normal form of `code`; `extra["row_version"]` the row version column's
        integer, or microseconds since the epoch (a local time is the catalog's). One scan at a time: a scan must have
        ended, or been closed, before the next begins.
        """
        for _, chunk in self.reader.chunks(self.connection, list(self._catalog.by_name)):
            yield chunk


@contextmanager
def open_source(
    url: URL,
    table: str,
    catalog: Catalog,
    *,
    columns: Mapping[str, str] | None = None,
    batch_column: str | None = None,
    row_version_column: str | None = None,
    lock_seconds: float = LOCK_SECONDS,
    timeout_seconds: int | None = None,
) -> Iterator[PostgresSource]:
    """Read `table` (`schema.table` if it is not on the search path) as records of `catalog`; everything in the block
    sees one state of it, and nobody can drop or empty it meanwhile. Parameters as in `table.open_table`.

    SourceError `source.<rule>`: `connect password access database_missing table_missing column_missing column_shared
    column_type permission row_security locked timeout lost encoding` …; InputError `source.url`.
    """
    address = address_of(url)
    where = f"{address.shown}:{table}"
    with (
        connected(address, where, lock_seconds) as connection,
        stoppable(partial(connection.cancel_safe, timeout=_CANCEL_SECONDS)),
    ):
        found = find_table(connection, table, where)
        # From here on with its schema: a search path can mean another table than the one somebody has in mind.
        where = f"{address.shown}:{found.schema}.{found.name}"
        require_rights(connection, found, ["SELECT"], where)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        if timeout_seconds is not None:
            connection.execute(f"SET LOCAL statement_timeout = {timeout_seconds * 1000}")
        if found.is_lockable:
            # Before the first query, which fixes the state that is read: a TRUNCATE between the two would show an older
            # state an empty table.
            connection.execute(f"LOCK TABLE {found.reference} IN ACCESS SHARE MODE")
        connection.execute(f"SELECT FROM {found.reference} LIMIT 0")
        if find_table(connection, table, where) != found:
            raise SourceError(
                "source.changed", "打开期间表被替换，请重新运行", "the table was replaced while it was opened; run again", where
            )  # fmt: skip
        reader = make_reader(
            connection, found, catalog, columns=columns or {}, batch_column=batch_column,
            row_version_column=row_version_column, where=where,
        )  # fmt: skip
        yield PostgresSource(connection, catalog, found, reader, where)


def describe_table(url: URL, table: str) -> TableShape:
    """The columns of a table or view as its database declares them; errors as in `open_source`."""
    address = address_of(url)
    where = f"{address.shown}:{table}"
    with connected(address, where, LOCK_SECONDS) as connection:
        return shape_of(read_columns(connection, find_table(connection, table, where)))


def require_rights(connection: psycopg.Connection[Any], table: PgTable, rights: list[str], where: str) -> None:
    """SourceError `source.permission`, with the GRANT that is needed, if the role lacks one of `rights`."""
    usable, lacking = check_rights(connection, table, rights)
    if lacking or not usable:
        schema = None if usable else quoted(table.schema)
        raise no_right(", ".join(lacking or rights), table.reference, schema, connection.info.user, where)


def make_reader(
    connection: psycopg.Connection[Any],
    table: PgTable,
    catalog: Catalog,
    *,
    columns: Mapping[str, str],
    batch_column: str | None,
    row_version_column: str | None,
    where: str,
) -> Reader:
    """Find the columns and refuse types without a form, by name."""
    found = {column.name: column for column in read_columns(connection, table)}
    layout = resolve_columns(
        list(found), catalog, table=table.name, reference=table.reference, is_view=not table.is_table, columns=columns,
        batch_column=batch_column, row_version_column=row_version_column, where=where,
    )  # fmt: skip
    check_kinds(layout, catalog, {name: (column.kind, column.declared) for name, column in found.items()}, CAST, where)
    return Reader(catalog, layout, found, where)


class Reader:
    """Reads a table's rows as text, by COPY."""

    def __init__(self, catalog: Catalog, layout: Layout, columns: Mapping[str, PgColumn], where: str) -> None:
        self.layout = layout
        self.columns = columns
        self._catalog = catalog
        self._where = where

    def chunks(
        self, connection: psycopg.Connection[Any], names: Sequence[str], *, located: bool = False, condition: str = ""
    ) -> Iterator[tuple[list[tuple[str, ...]], Chunk]]:
        """The fields `names` of the rows that meet `condition`, chunk by chunk; beside each chunk its rows' LOCATOR, if
        `located`."""
        wanted = selected(self.layout, names)
        first = len(LOCATOR) if located else 0
        kinds: list[Kind] = [*["text"] * first, *((self.columns[name].kind or "text") for name in wanted)]  # type: ignore[list-item]
        binary = pgbinary.available() and not _is_bytes(connection)
        expressions = [f"{name}::pg_catalog.text" for name in LOCATOR[:first]]
        expressions += [quoted(name) if binary else self.columns[name].as_text for name in wanted]
        what = f"COPY (SELECT {', '.join(expressions)} FROM {self.layout.reference} {condition}) TO STDOUT"  # noqa: S608

        def chunk(columns: Sequence[tuple[Any, bool]], ordinal: int) -> tuple[list[tuple[str, ...]], Chunk]:
            arrays = [array for array, _ in columns]
            places = list(zip(*(array.cast(pa.string()).to_pylist() for array in arrays[:first]), strict=True))
            odd = {name for name, (_, it) in zip(wanted, columns[first:], strict=True) if it}
            return places, chunk_of(
                arrays[first:], names, self.layout, self._catalog, ordinal, partial(self._texts, odd), self._versions
            )

        def of_binary(block: pgbinary.Block) -> tuple[list[tuple[str, ...]], Chunk]:
            try:
                columns = pgbinary.columns_of(block, kinds)
            except pgbinary.Torn as error:
                raise _torn(self._where, str(error)) from error
            return chunk(columns, block.ordinal)

        def of_text(block: _Block) -> tuple[list[tuple[str, ...]], Chunk]:
            arrays = _parsed(block.data, block.rows, len(expressions), self._where)
            return chunk([(array, True) for array in arrays], block.ordinal)

        # One block is parsed while the next is on its way.
        parsed = (
            in_order(lambda: of_binary, _binary_blocks(connection, f"{what} (FORMAT binary)", self._where), workers=1)
            if binary
            else in_order(
                lambda: of_text, _blocks(connection, f"{what} (FORMAT csv{_raw(connection)})", self._where), workers=1
            )
        )
        with closing(parsed):
            for _, found in parsed:
                yield found

    def chunk(self, columns: Sequence[Any], names: Sequence[str], ordinal: int) -> Chunk:
        """The chunk of some rows that the server wrote as text (`as_text`): a column for each of `selected(layout, names)`, empty where it
        is null, numbered from `ordinal`."""
        odd = frozenset(selected(self.layout, names))
        return chunk_of(columns, names, self.layout, self._catalog, ordinal, partial(self._texts, odd), self._versions)

    def _texts(self, odd: Container[str], values: Any, column: str, field: Field, refused: Refused) -> Any:
        texts = utf8_of(values, field, refused)
        return checked(texts, self.columns[column].kind or "text", field, refused) if column in odd else texts

    def _versions(self, values: Any, column: str, refused: Refused) -> Any:
        return versions_of(
            values.cast(pa.string()), self.columns[column].kind or "text", column, self._catalog, refused
        )  # fmt: skip


def _is_bytes(connection: psycopg.Connection[Any]) -> bool:
    """Whether the database has no encoding and sends its bytes as they are: then a row that is not UTF-8 is refused, not the read."""
    return connection.info.parameter_status("server_encoding") == "SQL_ASCII"


def _raw(connection: psycopg.Connection[Any]) -> str:
    return ", ENCODING 'SQL_ASCII'" if _is_bytes(connection) else ""


@contextmanager
def _saved(connection: psycopg.Connection[Any], where: str) -> Iterator[None]:
    """Behind a savepoint, so that a scan that is given up leaves the transaction as it was."""
    if connection.info.transaction_status is not psycopg.pq.TransactionStatus.INTRANS:
        raise RuntimeError(f"{where}: a scan was begun before the one before it had ended")
    connection.execute("SAVEPOINT scan")
    try:
        yield
    except BaseException:
        # The cancel that ended the scan may strike this as well: what ended it is what is told. A transaction left so refuses all else.
        with suppress(psycopg.errors.QueryCanceled):
            if not connection.broken:
                connection.execute("ROLLBACK TO SAVEPOINT scan")
        raise
    connection.execute("RELEASE SAVEPOINT scan")


def _binary_blocks(connection: psycopg.Connection[Any], sql: str, where: str) -> Iterator[pgbinary.Block]:
    """What a COPY in binary format sends."""
    with _saved(connection, where):
        try:
            yield from pgbinary.blocks(connection, sql, CHUNK_BYTES, MAX_CHUNK_ROWS)
        except pgbinary.Torn as error:
            raise _torn(where, str(error)) from error


@dataclass(frozen=True)
class _Block:
    """Some whole rows as COPY sends them, how many they are, and the number of the first, from 1."""

    data: bytes
    rows: int
    ordinal: int


def _blocks(connection: psycopg.Connection[Any], sql: str, where: str) -> Iterator[_Block]:
    """What a COPY sends as text, some whole rows at a time."""
    with _saved(connection, where):
        # Arrow drops one byte order mark from the start of what it reads: this one, and never a cell's.
        rows: list[bytes] = [_BOM]
        total = size = 0
        with connection.cursor() as cursor:
            with cursor.copy(sql) as copy:
                # Not `for row in copy`: that is a generator more for each row.
                for row in iter(copy.read, b""):
                    rows.append(bytes(row))
                    size += len(row)
                    if size >= CHUNK_BYTES or len(rows) > MAX_CHUNK_ROWS:
                        yield _Block(b"".join(rows), len(rows) - 1, total + 1)
                        total += len(rows) - 1
                        rows, size = [_BOM], 0
            if len(rows) > 1:
                yield _Block(b"".join(rows), len(rows) - 1, total + 1)
                total += len(rows) - 1
            if cursor.rowcount != total:
                raise _torn(where, f"{cursor.rowcount}, {total}")


def _parsed(data: bytes, rows: int, width: int, where: str) -> list[Any]:
    """The columns of a block, pa.string(), or pa.binary() if its bytes are not all UTF-8."""
    names = [str(place) for place in range(width)]
    for type in (pa.string(), pa.binary()):
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(pa.py_buffer(data)),
                arrow_csv.ReadOptions(column_names=names, block_size=len(data) + 1),
                arrow_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
                arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, type), strings_can_be_null=False),
            )
        except pa.ArrowInvalid as error:
            if type == pa.binary():
                raise _torn(where, f"{len(data)} bytes") from error
            continue
        if table.num_rows != rows:
            raise _torn(where, f"{rows}, {table.num_rows}")
        return [table.column(name).combine_chunks() for name in names]
    raise AssertionError("unreachable")


def _torn(where: str, seen: str) -> SourceError:
    return SourceError(
        "source.copy",
        f"服务器或中间代理返回的 COPY 数据不完整（{seen}）；请直连数据库后重试",
        f"what the server, or a proxy before it, sent as COPY is not whole ({seen}); connect to the server itself and try again",
        where,
    )
