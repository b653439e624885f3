"""Opens the store's tables: SQLite with WAL and synchronous FULL, one transaction per `read` or `write` block.

`write` begins with the write lock (`BEGIN IMMEDIATE`), so a transaction never fails half-way because another writer
came first; `read` sees one consistent state and blocks nobody. Errors of SQLite and SQLAlchemy come out as
`StoreError`, named by cause. A store of a newer version is refused; an older one is migrated when it is opened for
writing, which the caller does only under the workspace's lock.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import QueuePool

from ledger.errors import InputError, NotBuiltError, StoreError
from ledger.store.files import PRIVATE, NewFile, os_errors

Mode = Literal["create", "write", "read"]

# Oldest first. A test compares this with the migrations, so that checking a version needs no Alembic.
REVISIONS = ("0001",)
BUSY_TIMEOUT_SECONDS = 30.0

_READ = "duizhang_read"


@dataclass(frozen=True)
class Store:
    """The open tables. `engine` and `sessions` are for what `read` and `write` do not offer."""

    path: Path
    engine: Engine
    sessions: sessionmaker[Session]

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent state; SQLite refuses any write (`store.read_only`). What was loaded stays usable after."""
        with store_errors(self.path), self.sessions() as session:
            session.connection(execution_options={_READ: True})
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction, durable when the block ends; an exception inside leaves nothing of it.

        An error while committing means unknown: read the state again before doing anything over.
        """
        with store_errors(self.path), self.sessions() as session:
            session.connection()
            yield session
            session.commit()

    def close(self) -> None:
        """Close all connections; SQLite then folds its write-ahead log into the file."""
        self.engine.dispose()


def store_path(url: str) -> Path:
    """The file of a `sqlite:///` URL.

    InputError `store.url` for what is no such URL or names no absolute path (a relative one would follow the folder the
    command was started in); NotBuiltError for other databases.
    """
    prefix = "sqlite:///"
    if url.startswith(prefix):
        # As it stands: SQLAlchemy's own reading of % in a path differs between versions.
        path = url.removeprefix(prefix)
        if "?" in path or not path.startswith("/"):
            raise _bad_url(url)
        return Path(path)
    try:
        backend = make_url(url).get_backend_name()
    except (ArgumentError, ValueError) as error:
        raise _bad_url("") from error
    if backend != "sqlite":
        raise NotBuiltError(f"store on {backend}")
    raise _bad_url("")


def _bad_url(shown: str) -> InputError:
    return InputError(
        "store.url",
        f"[store] url {shown} 无效；应为 sqlite:/// 加绝对路径，不带参数",
        f"[store] url {shown} must be sqlite:/// and an absolute path, without parameters",
        "[store] url",
    )


def open_store(url: str, mode: Mode) -> Store:
    """Open the store at `url`.

    `create` makes the file (mode 0600, its folder too) where there is none, and migrates; `write` needs one that
    exists, and migrates an older one: both only under the workspace's lock. `read` changes nothing and refuses an older
    store. Errors, besides those of `store_path`: `store.missing`, `store.newer`, `store.older`, `store.foreign`
    (another program's database, left untouched), `store.damaged`, `store.locked`, `store.permission`,
    `store.read_only`, `store.no_wal`, `store.disk_full`.
    """
    path = store_path(url)
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
    engine = _engine(path, writable=mode != "read")
    try:
        store = Store(path, engine, sessionmaker(engine, expire_on_commit=False))
        if mode == "read":
            check_version(store)
        else:
            migrate(store)
    except BaseException:
        engine.dispose()
        raise
    return store


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
            uri, uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
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
        reads = not writable or connection.get_execution_options().get(_READ, False)
        connection.exec_driver_sql(f"PRAGMA query_only = {'ON' if reads else 'OFF'}")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def check_version(store: Store) -> None:
    """Raise unless the tables are exactly this version's: `store.newer`, `store.older`, `store.foreign`."""
    with store.read() as session:
        revision = _revision(session.connection(), store.path)
    if revision != REVISIONS[-1]:
        raise StoreError(
            "store.older",
            f"台账库 {store.path} 为旧版本（{revision or '空'}，当前为 {REVISIONS[-1]}）；"
            "请先运行一次会写入的命令（如 duizhang anchor），它会自动升级",
            f"the store is of an older version ({revision or 'empty'}, this is {REVISIONS[-1]}); "
            "run a command that writes first (duizhang anchor, for one): it migrates the store",
            str(store.path),
        )


def migrate(store: Store) -> bool:
    """Bring the tables to this version, all or nothing; False if they were. Hold the workspace's lock.

    A newer store is `store.newer`, a database with tables that are not ours `store.foreign`; both stay untouched.
    """
    with store.read() as session:
        revision = _revision(session.connection(), store.path)
    # Only now is it known to be ours: this is kept in the file, and must not happen to another program's.
    _use_wal(store)
    if revision == REVISIONS[-1]:
        return False
    # Loading Alembic would cost every command a sixth of a second.
    from ledger.store.migrations.upgrade import upgrade  # noqa: PLC0415

    with store.write() as session:
        connection = session.connection()
        _revision(connection, store.path)
        upgrade(connection)
    return True


def _use_wal(store: Store) -> None:
    with store_errors(store.path):
        pooled = store.engine.raw_connection()
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
            f"台账库 {store.path} 所在文件系统不支持 WAL（日志方式仍为 {mode[0]}）；请放在本机磁盘上",
            f"the file system keeps the store from using WAL (its journal mode stays {mode[0]}); put it on a local disk",
            str(store.path),
        )


def _revision(connection: Connection, path: Path) -> str | None:
    """The revision of the tables, None for an empty database; refuses what this version must not touch."""
    tables = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
    if not tables:
        return None
    if "alembic_version" not in tables or "entry_set" not in tables:
        raise StoreError(
            "store.foreign",
            f"{path} 是其他程序的数据库（含表 {sorted(tables)[0]}），不是台账库；请检查 [store] url",
            f"this is another program's database (it has a table {sorted(tables)[0]}), not a store; check [store] url",
            str(path),
        )
    revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()
    if revision not in REVISIONS:
        raise StoreError(
            "store.newer",
            f"台账库 {path} 的版本 {revision} 由更新的 duizhang 写入，本版本只认识到 {REVISIONS[-1]}；请升级程序",
            f"the store is of version {revision}, written by a newer duizhang; this one knows versions up to "
            f"{REVISIONS[-1]}: install the newer program",
            str(path),
        )
    return str(revision)


def find_damage(store: Store) -> tuple[str, ...]:
    """What SQLite itself finds wrong in the file, one sentence each; empty if nothing (`fsck`)."""
    with store.read() as session:
        connection = session.connection()
        pages = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check(100)")]
        broken = [
            f"{row[0]} row {row[1]}: no such row in {row[2]}"
            for row in connection.exec_driver_sql("PRAGMA foreign_key_check")
        ]
    return tuple([] if pages == ["ok"] else pages) + tuple(broken)


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


@contextlib.contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn what SQLAlchemy and SQLite raise inside into `StoreError`; everything else passes.

    `store.conflict`: a constraint refused the row. `store.sql`: a statement failed for any other reason.
    """
    try:
        yield
    except IntegrityError as error:
        raise StoreError(
            "store.conflict",
            f"台账库 {path} 的约束拒绝了写入（{error.orig}）；状态已变，或程序有误",
            f"a constraint of the store refused a row ({error.orig}): the state changed meanwhile, or the program errs",
            str(path),
        ) from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise _translated(error, path) from error


def _translated(error: SQLAlchemyError | sqlite3.Error, path: Path) -> StoreError:
    # The text of SQLAlchemy's error would show statement and parameters, which a log must not.
    cause: Any = error.orig if isinstance(error, DBAPIError) else error
    number = getattr(cause, "sqlite_errorcode", None)
    told = str(cause) if isinstance(cause, sqlite3.Error) else type(cause).__name__
    code, zh, en = _CAUSES.get((number or 0) & 0xFF, ("store.sql", "语句执行失败", "a statement failed"))
    return StoreError(code, f"台账库 {path}：{zh}（{told}）", f"{en} ({told})", str(path))
