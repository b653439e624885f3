"""Writing a delivery into a table, for `receive --load`: all of it or nothing, and read back before it counts.

One transaction: find the rows that hold the record keys, update, insert and delete, then read the table again
through the reading code and the kernel and compare each entry with the expected one. Whatever the database did to a
value on the way (column affinity, triggers) shows there and rolls everything back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.catalog import Catalog
from ledger.errors import SourceError
from ledger.record import Refusal, normal, shown, text_of
from ledger.source.sqlite import Layout, quoted, resolve_layout, scan_table
from ledger.source.sqlitefile import BUSY_SECONDS, connected, path_of

if TYPE_CHECKING:
    from ledger.kernel.entries import Kernel

Locator = tuple[Any, ...]


@dataclass(frozen=True)
class Upsert:
    """A record to be there afterwards: its values in normal form, its record key, and the entry it must give."""

    record_key: bytes
    values: Mapping[str, str | None]
    entry: bytes


@dataclass(frozen=True)
class Loaded:
    """How many rows were inserted, updated, deleted; and of the withdrawn keys, how many had no row."""

    inserted: int
    updated: int
    deleted: int
    absent: int


def load_rows(
    url: str,
    table: str,
    kernel: Kernel,
    *,
    upserts: Sequence[Upsert],
    withdrawn: Mapping[bytes, Mapping[str, str | None]],
    columns: Mapping[str, str] | None = None,
    batch_column: str | None = None,
    batch: str | None = None,
    base: Path | None = None,
    busy_seconds: float = BUSY_SECONDS,
) -> Loaded:
    """Write `upserts` into the table and delete the rows of the `withdrawn` record keys (each with its key fields).

    Rows are matched by record key: the normal form of the key they hold. Declared columns are written, and `batch` into
    `batch_column` if there is one; null is NULL; other columns keep what they hold, or get the table's default.
    SourceError `load.<rule>`: `view`, `key_repeated` (two rows of one key), `differs` (read back, a row does not give its
    entry; names the column, what was written and what came back), `vanished`, `still_there`; and those of
    `sqlite.open_source`. ValueError if a record key occurs twice in `upserts` and `withdrawn` together.
    """
    if (batch_column is None) != (batch is None):
        raise ValueError("batch and batch_column go together")
    wanted = {upsert.record_key: upsert for upsert in upserts}
    if len(wanted) != len(upserts) or wanted.keys() & withdrawn.keys():
        raise ValueError("a record key occurs twice")
    path = path_of(url, base or Path())
    where = f"{path}:{table}"
    with connected(path, "rw", busy_seconds, where) as connection, _transaction(connection):
        layout = resolve_layout(
            connection, table, kernel.catalog, columns=columns or {}, batch_column=batch_column, where=where
        )
        writer = _Writer(connection, layout, kernel, where)
        return writer.run(wanted, withdrawn, batch)


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


class _Writer:
    def __init__(self, connection: sqlite3.Connection, layout: Layout, kernel: Kernel, where: str) -> None:
        if layout.is_view:
            raise SourceError(
                "load.view",
                "这是视图，不能写入；请指明表",
                "this is a view, which cannot be written; name the table",
                where,
            )
        self.connection = connection
        self.layout = layout
        self.kernel = kernel
        self.catalog: Catalog = kernel.catalog
        self.where = where
        self.table = quoted(layout.table)
        self.locator = _locator(connection, layout)

    def run(
        self, upserts: Mapping[bytes, Upsert], withdrawn: Mapping[bytes, Mapping[str, str | None]], batch: str | None
    ) -> Loaded:
        there = self._existing({key: up.values for key, up in upserts.items()} | dict(withdrawn))
        match = " AND ".join(f"{column} IS ?" for column in self.locator)
        names = list(self.catalog.by_name)
        columns = [self.layout.columns[name] for name in names]
        tail: list[str] = []
        if self.layout.batch_column is not None and batch is not None:
            columns.append(self.layout.batch_column)
            tail.append(batch)
        update = f"UPDATE {self.table} SET {', '.join(f'{quoted(c)} = ?' for c in columns)} WHERE {match}"  # noqa: S608
        insert = (
            f"INSERT INTO {self.table} ({', '.join(map(quoted, columns))}) "  # noqa: S608 - identifiers are quoted
            f"VALUES ({', '.join('?' * len(columns))})"
        )
        written: dict[bytes, Locator | None] = {}
        updated = deleted = 0
        for key, upsert in upserts.items():
            values = [*(upsert.values[name] for name in names), *tail]
            if key in there:
                self._change(update, (*values, *there[key]), upsert.values)
                written[key] = there[key]
                updated += 1
            else:
                cursor = self.connection.execute(insert, values)
                written[key] = (cursor.lastrowid,) if len(self.locator) == 1 and self._by_rowid else None
        for key, fields in withdrawn.items():
            if key in there:
                self._change(f"DELETE FROM {self.table} WHERE {match}", there[key], fields)  # noqa: S608
                deleted += 1
        self._verify(upserts, withdrawn, written)
        return Loaded(len(upserts) - updated, updated, deleted, len(withdrawn) - deleted)

    @property
    def _by_rowid(self) -> bool:
        return self.locator[0] in _ROWIDS

    def _existing(self, wanted: Mapping[bytes, Mapping[str, str | None]]) -> dict[bytes, Locator]:
        """Where the rows of the wanted record keys are."""
        found: dict[bytes, Locator] = {}
        key_layout = Layout(self.layout.table, False, self.layout.columns, None, ())
        for located, chunk in scan_table(
            self.connection, self.catalog, key_layout, list(self.catalog.key), self.locator
        ):
            keys = self.kernel.keys_of(chunk, range(len(chunk)))
            for row, key in zip(keys.rows.tolist(), keys.record_keys.to_pylist(), strict=True):
                if key not in wanted:
                    continue
                if key in found:
                    raise self._repeated(wanted[key])
                found[key] = tuple(v.decode() if isinstance(v, bytearray) else v for v in located[row])
        return found

    def _change(self, sql: str, values: Sequence[Any], fields: Mapping[str, str | None]) -> None:
        if self.connection.execute(sql, values).rowcount != 1:
            raise self._vanished(fields)

    def _verify(
        self,
        upserts: Mapping[bytes, Upsert],
        withdrawn: Mapping[bytes, Mapping[str, str | None]],
        written: Mapping[bytes, Locator | None],
    ) -> None:
        seen: set[bytes] = set()
        for _, chunk in scan_table(self.connection, self.catalog, self.layout, list(self.catalog.by_name)):
            result = self.kernel.run(chunk)
            for place, key in enumerate(result.record_keys.to_pylist()):
                self._check_gone(key, withdrawn)
                if key not in upserts:
                    continue
                if key in seen:
                    raise self._repeated(upserts[key].values)
                seen.add(key)
                if result.entries[place].tobytes() != upserts[key].entry:
                    raise self._differs(upserts[key], written[key]) or AssertionError("expected entry of other values")
            for _, key in result.refused_keys.values():
                self._check_gone(key, withdrawn)
                if key in upserts:
                    upsert = upserts[key]
                    raise self._differs(upsert, written[key]) or self._repeated(upsert.values)
        for key, upsert in upserts.items():
            if key not in seen:
                raise self._differs(upsert, written[key]) or self._vanished(upsert.values)

    def _check_gone(self, key: bytes, withdrawn: Mapping[bytes, Mapping[str, str | None]]) -> None:
        if key in withdrawn:
            raise SourceError(
                "load.still_there",
                f"已删除的记录 {self._shown(withdrawn[key])} 仍在表中（触发器？），已全部回滚",
                f"the deleted record {self._shown(withdrawn[key])} is still in the table (a trigger?); all was rolled back",
                self.where,
            )

    def _differs(self, upsert: Upsert, locator: Locator | None) -> SourceError | None:
        """Which column came back otherwise than it was written; None if the row is not there, or is as it was written."""
        names = list(self.catalog.by_name)
        select = f"SELECT {', '.join(quoted(self.layout.columns[name]) for name in names)} FROM {self.table}"  # noqa: S608
        match = " AND ".join(f"{column} IS ?" for column in self.locator)
        row = None if locator is None else self.connection.execute(f"{select} WHERE {match}", locator).fetchone()
        for name, value in zip(names, row or (), strict=False):
            field = self.catalog.by_name[name]
            try:
                back: object = value.decode() if isinstance(value, bytearray) else value
                same = normal(text_of(back, field.type), field, self.catalog) == upsert.values[name]
            except (Refusal, UnicodeDecodeError):
                back, same = value, False
            if not same:
                column = self.layout.columns[name]
                wrote, came = shown(field, upsert.values[name]), shown(field, back)
                kind = type(back).__name__
                return SourceError(
                    "load.differs",
                    f"记录 {self._shown(upsert.values)} 的列 {column}：写入 {wrote!r}，读回 {came!r}（{kind}），"
                    "已全部回滚；请把该列声明为 TEXT，并检查触发器",
                    f"record {self._shown(upsert.values)}, column {column}: wrote {wrote!r}, read back {came!r} ({kind}); all "
                    "was rolled back; declare the column TEXT and look for triggers",
                    self.where,
                )
        return None

    def _repeated(self, fields: Mapping[str, str | None]) -> SourceError:
        return SourceError(
            "load.key_repeated",
            f"表中有多行的主键都是 {self._shown(fields)}，无法确定写入哪一行；已全部回滚",
            f"several rows of the table have the key {self._shown(fields)}, so which to write is unknown; all was rolled back",
            self.where,
        )

    def _vanished(self, fields: Mapping[str, str | None]) -> SourceError:
        return SourceError(
            "load.vanished",
            f"写入的记录 {self._shown(fields)} 读不回来（触发器，或主键列不是 TEXT？），已全部回滚",
            f"record {self._shown(fields)} was written but cannot be read back (a trigger, or a key column that is not TEXT?); "
            "all was rolled back",
            self.where,
        )

    def _shown(self, fields: Mapping[str, str | None]) -> str:
        return ", ".join(f"{name}={shown(self.catalog.by_name[name], fields[name])}" for name in self.catalog.key)


_ROWIDS = ("rowid", "_rowid_", "oid")


def _locator(connection: sqlite3.Connection, layout: Layout) -> list[str]:
    """Expressions that name one row of the table for as long as the transaction lasts: its rowid, else its primary
    key."""
    info = connection.execute(f"PRAGMA table_xinfo({quoted(layout.table)})").fetchall()
    names = {row[1].decode().lower() for row in info}
    for rowid in _ROWIDS:
        if rowid in names:
            continue
        try:
            connection.execute(f"SELECT {rowid} FROM {quoted(layout.table)} LIMIT 0")  # noqa: S608
        except sqlite3.OperationalError:
            break
        return [rowid]
    return [quoted(row[1].decode()) for row in sorted(info, key=lambda row: int(row[5])) if row[5]]
