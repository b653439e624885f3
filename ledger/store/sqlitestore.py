"""The store on SQLite: a file in WAL mode with synchronous FULL, opened for one process at a time by the workspace's lock."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from ledger.errors import StoreError
from ledger.store import database
from ledger.store.database import READING, Flaw, Mode, Obstacle, bad_url
from ledger.store.files import PRIVATE, NewFile, os_errors


def store_path(url: str) -> Path:
    """The file of a `sqlite:///` URL.

    InputError `store.url` for what is no such URL or names no absolute path (a relative one would follow the folder the
    command was started in).
    """
    # As it stands: SQLAlchemy's own reading of % in a path differs between versions.
    prefix, path = "sqlite:///", url.removeprefix("sqlite:///")
    if not url.startswith(prefix) or "?" in path or not path.startswith("/"):
        raise bad_url()
    return Path(path)


class SqliteDatabase:
    """One file. `create` makes it (0600, its folder too) where there is none; any other mode is `store.missing` then."""

    name = "SQLite"
    row = "rowid"
    reading: Mapping[str, Any] = {READING: True}

    def __init__(self, path: Path, mode: Mode) -> None:
        self.path: Path | None = path
        self.where = str(path)
        with os_errors(path):
            exists = path.exists()
        if mode == "create":
            _create_private(path)
        elif not exists:
            raise StoreError(
                "store.missing",
                f"台账库不存在：{path}；请检查 [store] url，或先执行 duizhang init",
                "there is no store here; check [store] url, or run duizhang init first",
                str(path),
            )
        self.engine = _engine(path, writable=mode != "read")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """`store.conflict`: a constraint refused the row. `store.sql`: a statement failed for any other reason."""
        try:
            yield
        except IntegrityError as error:
            raise StoreError(
                "store.conflict",
                f"台账库 {self.where} 的约束拒绝了写入（{error.orig}）；状态已变，或程序有误",
                f"a constraint of the store refused a row ({error.orig}): the state changed meanwhile, or the program errs",
                self.where,
            ) from error
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise _translated(error, self.where) from error

    def committing(self, connection: Connection) -> contextlib.AbstractContextManager[None]:
        """Nothing to add: SQLite's own errors name the cause."""
        return contextlib.nullcontext()

    def tables(self, connection: Connection) -> Sequence[str]:
        """All tables of the file."""
        return connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()

    def missing(self) -> StoreError | None:
        """A file without tables is what a killed `create` leaves."""
        return None

    def hold(self) -> contextlib.AbstractContextManager[None]:
        """Nothing: a file on a local disk is used by one workspace, which has its own lock."""
        return contextlib.nullcontext()

    def settle(self) -> None:
        """Switch to WAL. It is kept in the file, and must not happen to another program's."""
        with self.errors():
            pooled = self.engine.raw_connection()
            try:
                with contextlib.closing(pooled.cursor()) as cursor:
                    cursor.execute("PRAGMA query_only = OFF")
                    cursor.execute("PRAGMA journal_mode = WAL")
                    mode = cursor.fetchone() or ("",)
            finally:
                pooled.close()
        if mode[0] != "wal":
            raise StoreError(
                "store.no_wal",
                f"台账库 {self.where} 所在文件系统不支持 WAL（日志方式仍为 {mode[0]}）；请放在本机磁盘上",
                f"the file system keeps the store from using WAL (its journal mode stays {mode[0]}); "
                "put it on a local disk",
                self.where,
            )

    def take_over(self) -> None:
        """Nothing: see `hold`."""

    def forget(self) -> None:
        """Write the file anew from its rows, then empty the write-ahead log, which holds pages as they were."""
        with self.errors():
            pooled = self.engine.raw_connection()
            try:
                with contextlib.closing(pooled.cursor()) as cursor:
                    cursor.execute("PRAGMA query_only = OFF")
                    cursor.execute("VACUUM")
                    cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    busy = (cursor.fetchone() or (1,))[0]
            finally:
                pooled.close()
        if busy:
            raise database.in_use(self.where)

    def damage(self, connection: Connection) -> Sequence[Flaw]:
        """What SQLite itself finds wrong in the file, in its own words."""
        pages = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check(100)")]
        found = [] if pages == ["ok"] else [Flaw(page, page) for page in pages]
        for row in connection.exec_driver_sql("PRAGMA foreign_key_check"):
            found.append(
                Flaw(
                    f"{row[0]} 第 {row[1]} 行：{row[2]} 中没有对应的行",
                    f"{row[0]} row {row[1]}: no such row in {row[2]}",
                )
            )
        return found

    def obstacles(self, connection: Connection) -> Sequence[Obstacle]:
        """The file or its folder may not be written."""
        path = Path(self.where)
        return [
            Obstacle(
                "store.read_only",
                "台账库不可写",
                "the store cannot be written",
                f"ls -ld {blocked}；更改属主或权限",
                f"ls -ld {blocked}; change owner or mode",
                str(blocked),
            )
            for blocked in (path, path.parent)
            if not os.access(blocked, os.W_OK)
        ]

    def after_copy(self, connection: Connection, table: str, column: str) -> None:
        """Nothing: SQLite takes the next number from the rows."""

    def close(self) -> None:
        """Close all connections; SQLite then folds its write-ahead log into the file."""
        self.engine.dispose()


def _create_private(path: Path) -> None:
    # SQLite would give the file, and the logs beside it, whatever the umask leaves.
    with os_errors(path), contextlib.suppress(FileExistsError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        new = NewFile(path, PRIVATE)
        try:
            new.publish(overwrite=False)
        finally:
            new.discard()


def _engine(path: Path, *, writable: bool) -> Engine:
    # mode=rw: a file that vanished is an error, never silently a new and empty store.
    uri = f"file:{quote(str(path.absolute()))}?mode=rw"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            uri, uri=True, timeout=database.BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in ("synchronous = FULL", "foreign_keys = ON", "trusted_schema = OFF", "cell_size_check = ON"):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite+pysqlite://", creator=connect, poolclass=QueuePool)

    @event.listens_for(engine, "reset")
    def reset(connection: Any, record: Any, state: Any) -> None:
        # After a commit that failed SQLAlchemy takes the transaction for ended and skips its rollback; SQLite may still
        # be inside, with the write lock.
        if connection is not None and connection.in_transaction:
            connection.rollback()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # isolation_level None above: the driver begins nothing by itself, so that DDL, too, is inside the transaction.
        reads = not writable or connection.get_execution_options().get(READING, False)
        connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if reads else 'OFF'}")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


_CAUSES: dict[int, tuple[str, str, str]] = {
    sqlite3.SQLITE_FULL: (
        "store.disk_full",
        "磁盘空间已满，本次事务未写入；请清理后重试",
        "the disk is full, nothing of this transaction was written; free space, then run again",
    ),
    sqlite3.SQLITE_BUSY: (
        "store.locked",
        "被另一进程占用",
        "another process keeps it locked; try again when it ended",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "store.damaged",
        "数据库文件已损坏；请从备份恢复后执行 duizhang fsck",
        "the database file is damaged; put a backup in its place, then run duizhang fsck",
    ),
    sqlite3.SQLITE_NOTADB: (
        "store.damaged",
        "不是 SQLite 数据库，或文件头已损坏",
        "this is not an SQLite database, or its header is damaged",
    ),
    sqlite3.SQLITE_READONLY: (
        "store.read_only",
        "不可写；请检查文件与目录的属主和权限",
        "it cannot be written; check owner and mode of the file and its folder",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "store.permission",
        "无法打开；请检查文件与目录的属主和权限",
        "it cannot be opened; check owner and mode of the file and its folder",
    ),
    sqlite3.SQLITE_PERM: ("store.permission", "没有访问权限", "no permission"),
    sqlite3.SQLITE_IOERR: ("store.io", "读写失败；请检查磁盘", "reading or writing failed; check the disk"),
}


def _translated(error: SQLAlchemyError | sqlite3.Error, where: str) -> StoreError:
    # The text of SQLAlchemy's error would show statement and parameters, which a log must not.
    cause: Any = error.orig if isinstance(error, DBAPIError) else error
    number = getattr(cause, "sqlite_errorcode", None)
    told = str(cause) if isinstance(cause, sqlite3.Error) else type(cause).__name__
    code, zh, en = _CAUSES.get((number or 0) & 0xFF, ("store.sql", "语句执行失败", "a statement failed"))
    return StoreError(code, f"台账库 {where}：{zh}（{told}）", f"{en} ({told})", where)
