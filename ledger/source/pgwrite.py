"""Writing into a PostgreSQL table; see `writer.Writer`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from sqlalchemy.engine import URL

from ledger.catalog import Catalog
from ledger.errors import SourceError
from ledger.kernel.chunk import Chunk
from ledger.source.pgconnect import LOCK_SECONDS, address_of, connected
from ledger.source.pgtable import PgTable, find_table, quoted
from ledger.source.postgres import Reader, make_reader, require_rights
from ledger.source.writer import Locator, not_a_table, written_columns

_MATCH = "tableoid = %s::pg_catalog.oid AND ctid = %s::pg_catalog.tid"
_LOCATED = "tableoid::pg_catalog.text, ctid::pg_catalog.text"


@contextmanager
def open_writer(
    url: URL,
    table: str,
    catalog: Catalog,
    columns: Mapping[str, str],
    batch_column: str | None,
    lock_seconds: float = LOCK_SECONDS,
) -> Iterator[PostgresWriter]:
    """See `write.open_writer`. Others may read the table meanwhile; who writes to it, waits."""
    address = address_of(url)
    where = f"{address.shown}:{table}"
    with connected(address, where, lock_seconds) as connection:
        found = find_table(connection, table, where)
        if not found.is_table:
            raise not_a_table(where)
        require_rights(connection, found, ["SELECT", "UPDATE"], where)
        _require_primary(connection, where)
        connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        # Against each other, too, and before the first row is looked at: nothing moves between finding a row and
        # changing it.
        connection.execute(f"LOCK TABLE {found.reference} IN SHARE ROW EXCLUSIVE MODE")
        if find_table(connection, table, where) != found:
            raise SourceError(
                "source.changed", "打开期间表被替换，请重新运行", "the table was replaced while it was opened; run again", where
            )  # fmt: skip
        reader = make_reader(
            connection, found, catalog, columns=columns, batch_column=batch_column, row_version_column=None, where=where
        )
        yield PostgresWriter(connection, catalog, found, reader, where)
        _commit(connection, where)


def _require_primary(connection: psycopg.Connection[Any], where: str) -> None:
    row = connection.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
    if row is not None and row[0]:
        raise SourceError(
            "source.read_only",
            "该服务器是只读备机；写入请连接主库",
            "the server is a standby, which is read-only; to write, connect to the primary",
            where,
        )


def _commit(connection: psycopg.Connection[Any], where: str) -> None:
    try:
        connection.execute("COMMIT")
    except psycopg.Error as error:
        if error.sqlstate is None or connection.broken:
            raise SourceError(
                "source.commit_unknown",
                "提交时连接中断，不知道是否已写入；请重新运行，按库中现状继续",
                "the connection was lost during the commit, so whether it was written is unknown; run again, which goes on from what "
                "the table holds",
                where,
            ) from error
        raise


class PostgresWriter:
    """A `writer.Writer`. Locators are (tableoid, ctid); an update gives a row a new one."""

    def __init__(
        self, connection: psycopg.Connection[Any], catalog: Catalog, table: PgTable, reader: Reader, where: str
    ) -> None:
        self.where = where
        self.layout = reader.layout
        self._connection = connection
        self._catalog = catalog
        self._table = table
        self._reader = reader
        self._held: set[str] = set()

    def rows(self, names: Sequence[str], *, batch: bool = False) -> Iterator[tuple[list[Locator], Chunk]]:
        """See `writer.Writer`."""
        layout = self.layout if batch else replace(self.layout, batch_column=None)
        reader = Reader(self._catalog, layout, self._reader.columns, self.where)
        for located, chunk in reader.chunks(self._connection, names, located=True):
            yield list(located), chunk

    def read(self, locator: Locator) -> Mapping[str, object] | None:
        """See `writer.Writer`; every value is text."""
        columns = [self._reader.columns[self.layout.columns[name]] for name in self._catalog.by_name]
        texts = ", ".join(f"({_literal(column.as_text)})::pg_catalog.text" for column in columns)
        row = self._connection.execute(f"SELECT {texts} FROM {self._reference} WHERE {_MATCH}", locator).fetchone()  # noqa: S608
        return None if row is None else dict(zip(self._catalog.by_name, row, strict=True))

    def kind(self, name: str, value: object) -> str:
        """The column's type."""
        return self._reader.columns[self.layout.columns[name]].declared

    def update(self, locator: Locator, values: Mapping[str, str | None], batch: str | None = None) -> Locator | None:
        """See `writer.Writer`."""
        sql = f"{self.update_sql(list(values), batch=batch is not None)} RETURNING {_LOCATED}"
        row = self._connection.execute(sql, (*self._given(values, batch), *locator)).fetchone()
        return None if row is None else tuple(row)

    def insert(self, values: Mapping[str, str | None], batch: str | None = None) -> Locator | None:
        """See `writer.Writer`."""
        self._require("INSERT")
        sql = f"{self.insert_sql(list(values), batch=batch is not None)} RETURNING {_LOCATED}"
        row = self._connection.execute(sql, self._given(values, batch)).fetchone()
        return None if row is None else tuple(row)

    def delete(self, locator: Locator) -> bool:
        """See `writer.Writer`."""
        self._require("DELETE")
        sql = f"DELETE FROM {self._reference} WHERE {_MATCH}"  # noqa: S608 - all quoted
        return self._connection.execute(sql, locator).rowcount == 1

    def settle(self) -> None:
        """See `writer.Writer`."""
        self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def required(self) -> tuple[str, ...]:
        """See `writer.Writer`."""
        return tuple(c.name for c in self._reader.columns.values() if not c.nullable and not c.filled)

    def update_sql(self, names: Sequence[str], *, batch: bool = False) -> str:
        """See `writer.Writer`."""
        sets = ", ".join(f"{_literal(quoted(c))} = %s" for c in written_columns(self.layout, names, batch=batch))
        return f"UPDATE {self._reference} SET {sets} WHERE {_MATCH}"  # noqa: S608 - all quoted

    def insert_sql(self, names: Sequence[str], *, batch: bool = False) -> str:
        """See `writer.Writer`."""
        columns = written_columns(self.layout, names, batch=batch)
        listed, marks = ", ".join(_literal(quoted(c)) for c in columns), ", ".join(["%s"] * len(columns))
        return f"INSERT INTO {self._reference} ({listed}) VALUES ({marks})"  # noqa: S608 - all quoted

    def _require(self, right: str) -> None:
        if right not in self._held:
            require_rights(self._connection, self._table, [right], self.where)
            self._held.add(right)

    @property
    def _reference(self) -> str:
        return _literal(self.layout.reference)

    def _given(self, values: Mapping[str, str | None], batch: str | None) -> list[str | None]:
        """What the server is sent: text without a type, which it reads as it reads a literal for the column."""
        given = [self._localised(name, value) for name, value in values.items()]
        return given if batch is None else [*given, batch]

    def _localised(self, name: str, value: str | None) -> str | None:
        """A time as the column keeps it: one without zone holds the catalog's local time (F2), and drops a Z unseen."""
        kind = self._reader.columns[self.layout.columns[name]].kind
        if value is None or kind != "timestamp" or self._catalog.by_name[name].type != "datetime":
            return value
        try:
            local = datetime.fromisoformat(value).astimezone(UTC).replace(tzinfo=None) + self._catalog.offset
        except OverflowError:
            # A year past the calendar: read back, the row does not hold what was written.
            return value
        return local.isoformat(" ")


def _literal(sql: str) -> str:
    """SQL in which a percent sign is no placeholder."""
    return sql.replace("%", "%%")
