"""Writing into a SQLite table; see `writer.Writer`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ledger.catalog import Catalog
from ledger.kernel.chunk import Chunk
from ledger.source.layout import Layout
from ledger.source.sqlite import quoted, resolve_layout, scan_table, table_columns
from ledger.source.sqlitefile import BUSY_SECONDS, connected, path_of
from ledger.source.writer import Locator, not_a_table, written_columns

_ROWIDS = ("rowid", "_rowid_", "oid")


@contextmanager
def open_writer(
    url: str,
    table: str,
    catalog: Catalog,
    columns: Mapping[str, str],
    batch_column: str | None,
    base: Path,
    lock_seconds: float = BUSY_SECONDS,
) -> Iterator[SqliteWriter]:
    """See `write.open_writer`."""
    path = path_of(url, base)
    where = f"{path}:{table}"
    with connected(path, "rw", lock_seconds, where) as connection, _transaction(connection):
        layout = resolve_layout(connection, table, catalog, columns=columns, batch_column=batch_column, where=where)
        if layout.is_view:
            raise not_a_table(where)
        yield SqliteWriter(connection, catalog, layout, where)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    # The write lock from the start: rows are matched in the state that is then changed.
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back already (a full disk), or a busy COMMIT may have left the transaction open.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class SqliteWriter:
    """A `writer.Writer`. Locators are rowids, or primary keys where there are none."""

    def __init__(self, connection: sqlite3.Connection, catalog: Catalog, layout: Layout, where: str) -> None:
        self.where = where
        self.layout = layout
        self._connection = connection
        self._catalog = catalog
        self._columns = table_columns(connection, layout.table)
        self._by_rowid, self._locator = self._find_locator()
        self._match = " AND ".join(f"{column} IS ?" for column in self._locator)

    def rows(self, names: Sequence[str], *, batch: bool = False) -> Iterator[tuple[list[Locator], Chunk]]:
        """See `writer.Writer`."""
        layout = self.layout if batch else replace(self.layout, batch_column=None)
        for located, chunk in scan_table(self._connection, self._catalog, layout, names, self._locator):
            yield [tuple(v.decode() if isinstance(v, bytearray) else v for v in place) for place in located], chunk

    def read(self, locator: Locator) -> Mapping[str, object] | None:
        """See `writer.Writer`; bytes where a TEXT is not UTF-8, or a BLOB."""
        columns = ", ".join(quoted(self.layout.columns[name]) for name in self._catalog.by_name)
        sql = f"SELECT {columns} FROM {self.layout.reference} WHERE {self._match}"  # noqa: S608 - all quoted
        row = self._connection.execute(sql, locator).fetchone()
        if row is None:
            return None
        return {name: _decoded(value) for name, value in zip(self._catalog.by_name, row, strict=True)}

    def kind(self, name: str, value: object) -> str:
        """The storage class, as Python has it: a column's declared type binds SQLite to nothing."""
        return type(value).__name__

    def update(self, locator: Locator, values: Mapping[str, str | None], batch: str | None = None) -> Locator | None:
        """See `writer.Writer`."""
        sql = self.update_sql(list(values), batch=batch is not None)
        done = self._connection.execute(sql, (*_with(values, batch), *locator))
        return locator if done.rowcount == 1 else None

    def insert(self, values: Mapping[str, str | None], batch: str | None = None) -> Locator | None:
        """See `writer.Writer`; without rowids the locator is not known."""
        sql = self.insert_sql(list(values), batch=batch is not None)
        cursor = self._connection.execute(sql, _with(values, batch))
        return (cursor.lastrowid,) if self._by_rowid and cursor.rowcount == 1 else None

    def delete(self, locator: Locator) -> bool:
        """See `writer.Writer`."""
        sql = f"DELETE FROM {self.layout.reference} WHERE {self._match}"  # noqa: S608 - all quoted
        return self._connection.execute(sql, locator).rowcount == 1

    def settle(self) -> None:
        """SQLite puts nothing off but the checks of foreign keys."""

    def required(self) -> tuple[str, ...]:
        """See `writer.Writer`."""
        alone = [column.name for column in self._columns if column.in_key]
        return tuple(
            column.name
            for column in self._columns
            if (column.not_null or (column.in_key and not self._by_rowid))
            and not column.has_default
            and not column.generated
            # An INTEGER PRIMARY KEY is the rowid, which SQLite gives.
            and not (self._by_rowid and alone == [column.name] and column.declared.upper() == "INTEGER")
        )

    def update_sql(self, names: Sequence[str], *, batch: bool = False) -> str:
        """See `writer.Writer`."""
        sets = ", ".join(f"{quoted(column)} = ?" for column in written_columns(self.layout, names, batch=batch))
        return f"UPDATE {self.layout.reference} SET {sets} WHERE {self._match}"  # noqa: S608 - all quoted

    def insert_sql(self, names: Sequence[str], *, batch: bool = False) -> str:
        """See `writer.Writer`."""
        columns = written_columns(self.layout, names, batch=batch)
        listed, marks = ", ".join(map(quoted, columns)), ", ".join("?" * len(columns))
        return f"INSERT INTO {self.layout.reference} ({listed}) VALUES ({marks})"  # noqa: S608 - all quoted

    def _find_locator(self) -> tuple[bool, list[str]]:
        """Expressions that name one row of the table for as long as the transaction lasts: its rowid, else its primary
        key."""
        names = {column.name.lower() for column in self._columns}
        for rowid in _ROWIDS:
            if rowid in names:
                continue
            try:
                self._connection.execute(f"SELECT {rowid} FROM {self.layout.reference} LIMIT 0")  # noqa: S608
            except sqlite3.OperationalError:
                break
            return True, [rowid]
        keys = sorted((column for column in self._columns if column.in_key), key=lambda column: column.key_place)
        return False, [quoted(column.name) for column in keys]


def _with(values: Mapping[str, str | None], batch: str | None) -> list[str | None]:
    return [*values.values()] if batch is None else [*values.values(), batch]


def _decoded(value: object) -> object:
    if not isinstance(value, bytearray):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return bytes(value)
