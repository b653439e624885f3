"""Opens the store's tables: on SQLite or PostgreSQL, one transaction per `read` or `write` block.

`write` begins with the store's write lock (SQLite: `BEGIN IMMEDIATE`; PostgreSQL: an advisory lock of the transaction),
so a transaction never fails half-way because another writer came first; `read` sees one consistent state and blocks
nobody. Errors of database, driver and SQLAlchemy come out as `StoreError`, named by cause. A store of a newer version is
refused; an older one is migrated when it is opened for a writing job, which the caller does only under the workspace's
lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, Table, insert, select
from sqlalchemy.orm import Session, sessionmaker

from ledger.errors import NotBuiltError, StoreError
from ledger.store.database import Database, Flaw, Mode, backend_of
from ledger.store.models import Base
from ledger.store.sqlitestore import SqliteDatabase, store_path

__all__ = [
    "Mode",
    "Store",
    "check_version",
    "copy_rows",
    "find_damage",
    "is_empty",
    "migrate",
    "open_store",
    "same_rows",
]

# Oldest first. A test compares this with the migrations, so that checking a version needs no Alembic.
REVISIONS = ("0001", "0002", "0003")


@dataclass(frozen=True)
class Store:
    """The open tables. `engine` and `sessions` are for what `read` and `write` do not offer."""

    database: Database
    sessions: sessionmaker[Session]

    @property
    def where(self) -> str:
        """The store in messages: SQLite's file, or PostgreSQL's user, host and database; never a secret."""
        return self.database.where

    @property
    def path(self) -> Path | None:
        """SQLite's file; None for a server."""
        return self.database.path

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine."""
        return self.database.engine

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent state; the database refuses any write (`store.read_only`). What was loaded stays usable after."""
        with self.database.errors(), self.sessions() as session:
            session.connection(execution_options=self.database.reading)
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction, durable when the block ends; an exception inside leaves nothing of it.

        An error while committing means unknown: read the state again before doing anything over.
        """
        with self.database.errors(), self.sessions() as session:
            session.connection()
            yield session
            session.flush()
            with self.database.committing(session.connection()):
                session.commit()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """No job of another workspace writes while this lasts (StoreError `store.busy`); for one that is open for reading."""
        with self.database.hold():
            yield

    def forget(self) -> None:
        """What was deleted or overwritten is in no file of the store any more (`Database.forget`); outside `read` and `write`."""
        self.database.forget()

    def close(self) -> None:
        """Close all connections."""
        self.database.close()


def open_store(url: str, mode: Mode) -> Store:
    """Open the store at `url`: `sqlite:///` and an absolute path, or `postgresql://` with what libpq knows as parameters.

    `create` makes the tables where there are none (on SQLite the file too, mode 0600, and its folder), and migrates;
    `write` needs a store that exists, and migrates an older one. Both are for the workspace's one writing job, under its
    lock; on PostgreSQL they also hold the store against jobs of other workspaces until it is closed (`store.busy`).
    `update` may write rows, beside a job too, but needs exactly this version; `read` changes nothing, and needs that too.

    InputError `store.url`; NotBuiltError for other databases; StoreError `store.missing`, `store.newer`, `store.older`,
    `store.foreign` (another program's tables, left untouched), `store.locked`, `store.read_only`, `store.disk_full`. On
    SQLite `store.damaged`, `store.permission`, `store.no_wal`; on PostgreSQL those of `postgreserrors`.
    """
    database = _database(url, mode)
    try:
        store = Store(database, sessionmaker(database.engine, expire_on_commit=False))
        if mode in ("read", "update"):
            check_version(store)
        else:
            database.take_over()
            migrate(store, create=mode == "create")
    except BaseException:
        database.close()
        raise
    return store


def _database(url: str, mode: Mode) -> Database:
    if url.startswith("sqlite:///"):
        return SqliteDatabase(store_path(url), mode)
    backend = backend_of(url)
    if backend == "postgresql":
        # A store on SQLite needs no driver for PostgreSQL.
        from ledger.store.postgresstore import PostgresDatabase  # noqa: PLC0415

        return PostgresDatabase(url, mode)
    if backend == "sqlite":
        return SqliteDatabase(store_path(url), mode)  # refuses it
    raise NotBuiltError(f"store on {backend}")


def check_version(store: Store) -> None:
    """Raise unless the tables are exactly this version's: `store.newer`, `store.older`, `store.foreign`, `store.missing`."""
    with store.read() as session:
        revision = _revision(session.connection(), store.database)
    if revision != REVISIONS[-1]:
        _refuse_missing(revision, store.database)
        raise StoreError(
            "store.older",
            f"台账库 {store.where} 为旧版本（{revision or '空'}，当前为 {REVISIONS[-1]}）；"
            "请先运行一次会写入的命令（如 duizhang anchor），它会自动升级",
            f"the store is of an older version ({revision or 'empty'}, this is {REVISIONS[-1]}); "
            "run a command that writes first (duizhang anchor, for one): it migrates the store",
            store.where,
        )


def migrate(store: Store, *, create: bool = True) -> bool:
    """Bring the tables to this version, all or nothing; False if they were. Hold the workspace's lock.

    A newer store is `store.newer`, a database with tables that are not ours `store.foreign`; both stay untouched. Of two
    processes that both migrate, the second waits and finds it done.
    """
    with store.read() as session:
        revision = _revision(session.connection(), store.database)
    if not create:
        _refuse_missing(revision, store.database)
    # Only now is it known to be ours.
    store.database.settle()
    if revision == REVISIONS[-1]:
        return False
    # Loading Alembic would cost every command a sixth of a second.
    from ledger.store.migrations.upgrade import upgrade  # noqa: PLC0415

    with store.write() as session:
        connection = session.connection()
        if _revision(connection, store.database) == REVISIONS[-1]:
            return False
        upgrade(connection)
    return True


def _refuse_missing(revision: str | None, database: Database) -> None:
    if revision is None and (missing := database.missing()) is not None:
        raise missing


def _revision(connection: Connection, database: Database) -> str | None:
    """The revision of the tables, None where there are none; refuses what this version must not touch."""
    tables = database.tables(connection)
    if not tables:
        return None
    where = database.where
    if "alembic_version" not in tables or "entry_set" not in tables:
        raise StoreError(
            "store.foreign",
            f"{where} 是其他程序的数据库（含表 {sorted(tables)[0]}），不是台账库；请检查 [store] url",
            f"this is another program's database (it has a table {sorted(tables)[0]}), not a store; check [store] url",
            where,
        )
    revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()
    if revision not in REVISIONS:
        raise StoreError(
            "store.newer",
            f"台账库 {where} 的版本 {revision} 由更新的 duizhang 写入，本版本只认识到 {REVISIONS[-1]}；请升级程序",
            f"the store is of version {revision}, written by a newer duizhang; this one knows versions up to "
            f"{REVISIONS[-1]}: install the newer program",
            where,
        )
    return str(revision)


def find_damage(store: Store) -> tuple[Flaw, ...]:
    """What is wrong with the tables themselves, beyond the content of single rows; empty if nothing (`fsck`)."""
    with store.read() as session:
        return tuple(store.database.damage(session.connection()))


def is_empty(store: Store) -> bool:
    """True if no table has a row."""
    with store.read() as session:
        return all(session.execute(select(table).limit(1)).first() is None for table in Base.metadata.sorted_tables)


def same_rows(one: Store, other: Store) -> bool:
    """True if every table holds the same rows in both; for small stores, all is read at once."""
    with one.read() as first, other.read() as second:
        return all(_rows(first, table) == _rows(second, table) for table in Base.metadata.sorted_tables)


def copy_rows(source: Store, target: Store) -> None:
    """Put every row of `source` into the empty tables of `target`, in one transaction; a table at a time in memory."""
    with source.read() as old, target.write() as new:
        for table in Base.metadata.sorted_tables:
            rows = _rows(old, table)
            if not rows:
                continue
            new.execute(insert(table), [dict(zip(table.columns.keys(), row, strict=True)) for row in rows])
            if table.autoincrement_column is not None:
                target.database.after_copy(new.connection(), table.name, table.autoincrement_column.name)


def _rows(session: Session, table: Table) -> list[tuple[object, ...]]:
    # Sorted here: two databases need not sort text alike.
    rows = [tuple(row) for row in session.execute(select(table))]
    return sorted(rows, key=lambda row: [str(value) for value in row])
