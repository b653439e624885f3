"""Opening a SQLite file by its URL, and SQLite's errors in an operator's words."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from ledger.errors import InputError, NotBuiltError, SourceError
from ledger.source import sqlitecapi
from ledger.source.sqlitecapi import Connection

BUSY_SECONDS = 10.0
"""How long to wait for another program's lock before giving up."""

_LEAST_ROW_BYTES = 8
"""Hardly a row takes less room."""

_CODES = {
    sqlite3.SQLITE_BUSY: (
        "locked", "数据库被其他程序锁定，等待超时；请稍后重试", "another program holds the database locked; try again later"
    ),
    sqlite3.SQLITE_LOCKED: ("locked", "表被锁定；请稍后重试", "the table is locked; try again later"),
    sqlite3.SQLITE_NOTADB: ("not_database", "该文件不是 SQLite 数据库", "the file is not a SQLite database"),
    sqlite3.SQLITE_CORRUPT: ("damaged", "数据库文件已损坏", "the database file is damaged"),
    sqlite3.SQLITE_CANTOPEN: (
        "permission",
        "无法打开：检查对文件及其文件夹的权限（WAL 模式需要写入文件夹）",
        "cannot be opened: check the permissions of the file and its folder (WAL mode writes into the folder)",
    ),
    sqlite3.SQLITE_PERM: ("permission", "没有访问权限", "no permission"),
    sqlite3.SQLITE_READONLY: ("permission", "没有写入权限", "no permission to write"),
    sqlite3.SQLITE_FULL: ("full", "磁盘已满", "the disk is full"),
    sqlite3.SQLITE_IOERR: ("io", "读写磁盘失败", "reading or writing the disk failed"),
    sqlite3.SQLITE_INTERRUPT: ("timeout", "查询超时，已中止", "the query took too long and was stopped"),
    sqlite3.SQLITE_CONSTRAINT: ("constraint", "违反了表的约束", "a constraint of the table was violated"),
}  # fmt: skip


def path_of(url: str, base: Path) -> Path:
    """The file a `sqlite:///path` URL names, relative to `base`.

    NotBuiltError for a URL of another kind of database; InputError `source.url` for what is no such URL, names no
    file, or has options.
    """
    # SQLAlchemy is slow to import, and only commands that read a table need it.
    from sqlalchemy.engine import make_url  # noqa: PLC0415
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        parsed = make_url(url)
    except ArgumentError:
        # Not shown: what is meant as a URL may hold a password.
        raise _url_error("不是数据库 URL，须形如 sqlite:///路径", "not a database URL such as sqlite:///path") from None
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise NotBuiltError(f"{parsed.drivername}://")
    if not parsed.database or parsed.database.startswith((":memory:", "file:")):
        raise _url_error("须指明一个数据库文件：sqlite:///路径", "must name a database file: sqlite:///path")
    if parsed.query or parsed.host:
        raise _url_error(
            "sqlite URL 不能带主机或参数：sqlite:///路径", "a sqlite URL has neither host nor options: sqlite:///path"
        )
    return base / parsed.database


def _url_error(zh: str, en: str) -> InputError:
    return InputError("source.url", zh, en, "url")


@contextmanager
def connected(path: Path, mode: Literal["ro", "rw"], busy_seconds: float, where: str) -> Iterator[sqlite3.Connection]:
    """A connection to an existing file, which is never created; transactions are the caller's.

    TEXT comes as bytearray and BLOB as bytes, so that the two differ and damaged text does not stop a read. SourceError
    `source.<rule>` for anything SQLite refuses within the block.
    """
    with _within(path, where):
        connection = sqlite3.connect(
            _uri(path, mode), uri=True, timeout=busy_seconds, isolation_level=None, check_same_thread=False, cached_statements=16
        )  # fmt: skip
        with closing(connection):
            connection.text_factory = bytearray
            yield connection


@contextmanager
def reading(path: Path, busy_seconds: float, where: str) -> Iterator[Connection | sqlite3.Connection]:
    """`connected` to read only, through SQLite's C interface where that can be had."""
    if sqlitecapi.library() is None:
        with connected(path, "ro", busy_seconds, where) as connection:
            yield connection
    else:
        with _within(path, where), closing(Connection(_uri(path, "ro"), busy_seconds)) as quick:
            yield quick


@contextmanager
def _within(path: Path, where: str) -> Iterator[None]:
    _check_file(path, where)
    try:
        yield
    except sqlite3.Error as error:
        raise source_error(error, where) from error


def _uri(path: Path, mode: str) -> str:
    return f"file:{quote(str(path.absolute()))}?mode={mode}"


@contextmanager
def deadline(connection: Connection | sqlite3.Connection, seconds: float | None) -> Iterator[None]:
    """Interrupt what `connection` is doing if the block takes longer: SQLite itself knows no time-out."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        # It must not strike once the connection is closed, nor the next scan.
        timer.join()


def about_rows(connection: Connection | sqlite3.Connection, reference: str) -> int | None:
    """How many rowids lie between the first and the last of a table; None for a view, and where they are not counted up."""
    try:
        # Two queries: of one query with both SQLite would read the whole table.
        found = connection.execute(
            f"SELECT (SELECT max(rowid) FROM {reference}), (SELECT min(rowid) FROM {reference}), "  # noqa: S608 - quoted
            "(SELECT page_count FROM pragma_page_count), (SELECT page_size FROM pragma_page_size)"
        ).fetchone()
    except sqlite3.OperationalError:
        return None
    last, first, pages, page = found or (None, None, 0, 0)
    if not isinstance(last, int) or not isinstance(first, int):
        return None
    # More rows than the file has room for: numbers that mean something else.
    span = last - first + 1
    return span if span <= pages * page // _LEAST_ROW_BYTES else None


def source_error(error: sqlite3.Error, where: str) -> SourceError:
    """What SQLite refused, in words; its own message is added, which names tables and columns but no values."""
    code = getattr(error, "sqlite_errorcode", None)
    rule, zh, en = _CODES.get(
        code & 0xFF if isinstance(code, int) else -1, ("failed", "数据库拒绝了操作", "the database refused")
    )
    return SourceError(f"source.{rule}", f"{zh}（{error}）", f"{en} ({error})", where)


def _check_file(path: Path, where: str) -> None:
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise SourceError(
            "source.permission", f"没有访问 {path} 的权限", f"no permission to reach {path}", where
        ) from error
    if is_folder:
        raise SourceError("source.missing", f"{path} 是文件夹", f"{path} is a folder, not a database file", where)
    if not exists:
        raise SourceError("source.missing", f"数据库文件 {path} 不存在", f"there is no database file {path}", where)
