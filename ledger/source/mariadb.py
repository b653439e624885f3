"""MySQL and MariaDB tables and views into chunks: one read-only transaction with a consistent snapshot, values as the server writes them.

The server sends every value as text; what it means follows from the column's declared type, so nothing depends on what a driver makes
of it. A type without a form is refused by name before the first row, a value without one (a zero date) with its row.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pymysql
from pymysql.cursors import SSCursor
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.engine import URL

from ledger.catalog import Catalog, Field, FieldType
from ledger.errors import InputError, SourceError
from ledger.interruption import stoppable
from ledger.kernel.chunk import Chunk
from ledger.record import Refusal
from ledger.source.layout import (
    ColumnShape,
    Kind,
    Layout,
    TableShape,
    check_kinds,
    in_any_case,
    resolve_columns,
    table_missing,
)
from ledger.source.values import Refused, checked, chunk_of, refuse, selected, versions_of

CONNECT_SECONDS = 10
LOCK_SECONDS = 10
READ_SECONDS = 600
"""A server that says nothing for so long is taken for lost."""
_NO_LIMIT = 2**64 - 1
CHUNK_BYTES = 8 << 20
MAX_CHUNK_ROWS = 16_384
FIRST_CHUNK_ROWS = 256

CAST: Mapping[FieldType, str] = {
    "text": "CHAR", "code": "CHAR", "enum": "CHAR", "integer": "DECIMAL(65)", "decimal": "DECIMAL(65, 10)", "date": "DATE",
    "datetime": "DATETIME(6)",
}  # fmt: skip
_KINDS: Mapping[str, Kind] = {
    "tinyint": "integer", "smallint": "integer", "mediumint": "integer", "int": "integer", "bigint": "integer",
    "decimal": "decimal", "date": "date", "datetime": "timestamp", "timestamp": "zoned",
    "char": "text", "varchar": "text", "tinytext": "text", "text": "text", "mediumtext": "text", "longtext": "text", "enum": "text",
    "set": "text",
}  # fmt: skip
"""Types that have a form (TINYINT(1) is a number to the server); every other type is refused by name."""
_SUGGESTED: Mapping[Kind, FieldType] = {
    "text": "text", "integer": "integer", "decimal": "decimal", "date": "date", "timestamp": "datetime", "zoned": "datetime",
}  # fmt: skip
_ZERO_DATE = Refusal(
    "value.date", "零日期（年、月或日为 0）不是日期", "a zero date (a year, month or day of 0) is no date"
)
_VIEW = (
    "这是视图：其中的表是否都支持事务无从确认，读到的未必是同一时刻",
    "this is a view: whether all tables in it are transactional cannot be told, so what was read need not be of one moment",
)


@dataclass(frozen=True)
class _Column:
    name: str
    declared: str
    kind: Kind | None
    nullable: bool
    scale: int | None
    in_key: bool

    @property
    def padded(self) -> bool:
        return "zerofill" in self.declared


@dataclass(frozen=True)
class _Table:
    schema: str
    name: str
    is_view: bool

    @property
    def reference(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"


class MariaSource:
    """One table or view within one transaction; see `open_source`."""

    def __init__(
        self,
        connection: Any,
        catalog: Catalog,
        layout: Layout,
        columns: Mapping[str, _Column],
        where: str,
        schema: str,
    ) -> None:
        self.layout = layout
        self._schema = schema
        self.notes: Sequence[tuple[str, str]] = (_VIEW,) if layout.is_view else ()
        self._connection = connection
        self._catalog = catalog
        self._columns = columns
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
        """As the engine's statistics have it; None for a view."""
        found = _rows(
            self._connection,
            "SELECT table_rows FROM information_schema.tables WHERE table_schema = %s AND table_name = %s",
            (self._schema, self.layout.table),
        )
        return int(found[0][0]) if found and found[0][0] is not None else None

    def scan(self) -> Iterator[Chunk]:
        """All rows, in no particular order; `Chunk.numbers` counts them from 1. The same rows each time, one scan at a time."""
        names = list(self._catalog.by_name)
        columns = ", ".join(map(quoted, selected(self.layout, names)))
        ordinal, size = 1, FIRST_CHUNK_ROWS
        cursor = self._connection.cursor(SSCursor)
        try:
            cursor.execute(f"SELECT {columns} FROM {self.layout.reference}")  # noqa: S608 - all quoted
            while rows := cursor.fetchmany(size):
                values = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
                chunk = chunk_of(values, names, self.layout, self._catalog, ordinal, self._texts, self._versions)
                ordinal += len(rows)
                width = sum(column.nbytes for column in values) // len(rows) + 1
                size = max(1, min(MAX_CHUNK_ROWS, 2 * size, CHUNK_BYTES // width))
                del rows, values
                yield chunk
        finally:
            # Of a connection that was lost the driver's close fails in ways of its own; what lost it is already on its way up.
            with contextlib.suppress(pymysql.err.Error, OSError, AttributeError):
                cursor.close()

    def _texts(self, values: Any, column: str, field: Field, refused: Refused) -> Any:
        found = self._columns[column]
        return checked(_written(values, found, field, refused), found.kind or "text", field, refused)

    def _versions(self, values: Any, column: str, refused: Refused) -> Any:
        found = self._columns[column]
        kind = found.kind or "text"
        texts = _written(values, found, Field(column, "integer" if kind == "integer" else "datetime"), refused)
        return versions_of(texts, kind, column, self._catalog, refused)


@contextmanager
def open_source(
    url: URL,
    table: str,
    catalog: Catalog,
    *,
    columns: Mapping[str, str] | None = None,
    batch_column: str | None = None,
    row_version_column: str | None = None,
    timeout_seconds: int | None = None,
) -> Iterator[MariaSource]:
    """Read `table` (`database.table` for another database than the URL's) as records of `catalog`; everything in the block sees one
    state of it. Parameters as in `table.open_table`.

    SourceError `source.<rule>`: `connect password database_missing table_missing column_missing column_type permission locked
    timeout lost not_transactional changed encoding` …; InputError `source.url`.
    """
    where = f"{_shown(url)}:{table}"
    with _connected(url, where) as connection:
        found = _find_table(connection, url, table, where)
        _require_snapshot(connection, found, where)
        by_name = {column.name: column for column in _read_columns(connection, found)}
        layout = resolve_columns(
            list(by_name), catalog, table=found.name, reference=found.reference, is_view=found.is_view, columns=columns or {},
            batch_column=batch_column, row_version_column=row_version_column, where=where,
        )  # fmt: skip
        kinds = {name: (column.kind, column.declared) for name, column in by_name.items()}
        check_kinds(layout, catalog, kinds, CAST, where)
        if timeout_seconds is not None:
            _limit(connection, timeout_seconds)
        with connection.cursor() as cursor:
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            # Takes the table's metadata lock for as long as the transaction lasts: nobody can drop or change it meanwhile.
            cursor.execute(f"SELECT 1 FROM {found.reference} LIMIT 0")  # noqa: S608 - quoted
        if _read_columns(connection, found) != list(by_name.values()):
            raise SourceError(
                "source.changed", "打开期间表结构被修改，请重新运行", "the table was changed while it was opened; run again", where
            )  # fmt: skip
        yield MariaSource(connection, catalog, layout, by_name, where, found.schema)


def describe_table(url: URL, table: str) -> TableShape:
    """The columns of a table or view as its database declares them; errors as in `open_source`."""
    where = f"{_shown(url)}:{table}"
    with _connected(url, where) as connection:
        columns = _read_columns(connection, _find_table(connection, url, table, where))
    return TableShape(
        tuple(
            ColumnShape(
                column.name,
                column.declared,
                None if column.kind is None else _SUGGESTED[column.kind],
                column.nullable,
                column.scale,
                column.in_key,
            )
            for column in columns
        )
    )


def quoted(identifier: str) -> str:
    """An identifier for SQL, whatever it holds."""
    return "`" + identifier.replace("`", "``") + "`"


def _written(values: Any, column: _Column, field: Field, refused: Refused) -> Any:
    """What the server sent, as F2 writes it: numbers without padding or trailing zeros, instants with Z, zero dates refused."""
    if column.padded:
        values = pc.replace_substring_regex(values, r"\A0+([0-9])", r"\1")
    if column.kind == "decimal":
        trimmed = pc.replace_substring_regex(values, r"(\.[0-9]*?)0+\z", r"\1")
        return pc.replace_substring_regex(trimmed, r"\.\z", "")
    if column.kind not in ("date", "timestamp", "zoned"):
        return values
    zero = pc.fill_null(
        pc.match_substring_regex(values, r"\A0000|\A[0-9]{4}-00|\A[0-9]{4}-[0-9]{2}-00"), fill_value=False
    )
    if pc.any(zero, min_count=0).as_py():
        for row in np.flatnonzero(zero.to_numpy(zero_copy_only=False)).tolist():
            refuse(refused, row, field, values[row].as_py(), _ZERO_DATE)
        values = pc.if_else(zero, pa.scalar(None, pa.string()), values)
    return pc.binary_join_element_wise(values, "Z", "") if column.kind == "zoned" else values


# ---- connection ----


def _shown(url: URL) -> str:
    return f"mysql://{url.host or 'localhost'}:{url.port or 3306}/{url.database or ''}"


@contextmanager
def _connected(url: URL, where: str) -> Iterator[Any]:
    if not url.database:
        raise InputError(
            "source.url",
            "须指明数据库：mysql://用户@主机/库",
            "must name a database: mysql://user@host/database",
            "url",
        )
    # SQLAlchemy knows which options of a URL are the driver's.
    _, options = MySQLDialect_pymysql(dbapi=pymysql).create_connect_args(url)
    given: dict[str, Any] = dict(options)
    if url.password is not None:
        # As bytes: pymysql itself knows no password outside Latin-1.
        given["password"] = str(url.password).encode()
    given.update(
        charset="utf8mb4",
        connect_timeout=CONNECT_SECONDS,
        autocommit=True,
        conv={},
        local_infile=False,
        read_timeout=CONNECT_SECONDS,
        write_timeout=READ_SECONDS,
    )
    connection: Any = None
    try:
        connection = pymysql.connect(**given)
        with connection.cursor() as cursor:
            cursor.execute(
                f"SET SESSION sql_select_limit = {_NO_LIMIT}, time_zone = '+00:00', net_write_timeout = 3600, net_read_timeout = 3600, "
                f"lock_wait_timeout = {LOCK_SECONDS}, innodb_lock_wait_timeout = {LOCK_SECONDS}, "
                # Any form a value has, it is shown; a mode must not change what strings and identifiers mean.
                "sql_mode = 'NO_ENGINE_SUBSTITUTION'"
            )
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        _require_all_of_now(connection, where)
        # The handshake is over: from here on a silence may be a long one, but not an endless one.
        connection._read_timeout = READ_SECONDS
        with stoppable(lambda: _kill_query(given, connection)):
            yield connection
    except (pymysql.err.Error, OSError) as error:
        raise _source_error(error, url, where) from error
    except UnicodeDecodeError as error:
        raise SourceError(
            "source.encoding", "有内容不是 UTF-8 文字", "the server sent bytes that are not text in UTF-8", where
        ) from error
    finally:
        if connection is not None and connection.open:
            # Without a goodbye: a scan that was given up has rows under way.
            connection._force_close()


def _limit(connection: Any, seconds: int) -> None:
    """Have the server end a statement after so long: each of the two kinds has a name and a unit of its own."""
    maria = "mariadb" in connection.get_server_info().lower()
    with connection.cursor() as cursor:
        cursor.execute(
            f"SET SESSION {f'max_statement_time = {seconds}' if maria else f'max_execution_time = {seconds * 1000}'}"
        )


def _kill_query(given: Mapping[str, Any], connection: Any) -> None:
    """Without this the server would go on with a query nobody waits for until it has rows to send."""
    with contextlib.closing(pymysql.connect(**{**given, "connect_timeout": 2, "read_timeout": 2})) as other:
        other.cursor().execute(f"KILL QUERY {connection.thread_id()}")


def _require_all_of_now(connection: Any, where: str) -> None:
    """Refuse a session in which the server would show a part of a table, or what it held at another time.

    Both can be set for all sessions, by an administrator or in `init_connect`, and nothing in what is read would tell.
    """
    ((limit,),) = _rows(connection, "SELECT @@session.sql_select_limit")
    found = {"sql_select_limit": (str(limit), str(_NO_LIMIT))}
    present = _rows(connection, "SHOW SESSION VARIABLES LIKE 'system_versioning_asof'")
    if present:
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION system_versioning_asof = DEFAULT")
        ((_, value),) = _rows(connection, "SHOW SESSION VARIABLES LIKE 'system_versioning_asof'")
        found["system_versioning_asof"] = (str(value), "DEFAULT")
    for name, (value, wanted) in found.items():
        if value != wanted:
            raise SourceError(
                "source.session",
                f"服务器把会话变量 {name} 设为 {value}，读到的不会是当前的全部数据；请管理员恢复为 {wanted}",
                f"the server sets {name} = {value} for sessions, so what is read would not be all there is now; have it set to {wanted}",
                where,
            )


_RULES: Mapping[int, tuple[str, str, str]] = {
    1045: ("password", "用户名或密码被拒绝", "the user or password was refused"),
    1698: ("password", "用户名或密码被拒绝", "the user or password was refused"),
    1044: ("permission", "没有访问该数据库的权限", "no right to this database"),
    1049: ("database_missing", "没有该数据库", "there is no such database"),
    1146: ("table_missing", "引用的表不存在", "a table it refers to does not exist"),
    1205: (
        "locked",
        "表被其他会话锁定，等待超时；请稍后重试",
        "another session holds the table locked; try again later",
    ),
    1213: ("locked", "与其他会话互相等待（死锁）；请重试", "a deadlock with another session; try again"),
    1412: ("changed", "读取期间表结构被修改，请重新运行", "the table was changed while it was read; run again"),
    1317: ("timeout", "查询被管理员中止", "the query was stopped by an administrator"),
    1969: ("timeout", "查询超过 max_statement_time；请放宽", "the query ran past max_statement_time; allow it more"),
    3024: ("timeout", "查询超过 max_execution_time；请放宽", "the query ran past max_execution_time; allow it more"),
    1927: ("lost", "连接被管理员终止", "the connection was ended by an administrator"),
    1053: ("lost", "服务器正在关闭", "the server is shutting down"),
    1040: ("connect", "服务器连接数已满", "the server has no connection to spare"),
    2002: ("connect", "无法连接服务器", "the server cannot be reached"),
    2003: ("connect", "无法连接服务器", "the server cannot be reached"),
    2006: ("lost", "与服务器的连接中断", "the connection to the server was lost"),
    2013: ("lost", "与服务器的连接中断", "the connection to the server was lost"),
}
_NO_RIGHT = (1142, 1143, 1227, 1356, 1370)


def _source_error(error: Exception, url: URL, where: str) -> SourceError:
    code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    told = " ".join(str(error.args[1] if len(error.args) > 1 else error).split())
    told = told.replace(str(url.password), "***") if url.password else told
    if code in _NO_RIGHT:
        grant = f"GRANT SELECT ON {where.rpartition(':')[2]} TO {url.username}"
        return SourceError(
            "source.permission",
            f"用户 {url.username} 没有权限；请执行：{grant}（{told}）",
            f"{url.username} has no permission; run: {grant} ({told})",
            where,
        )
    rule, zh, en = _RULES.get(code, ("", "", ""))
    if not rule:
        lost = isinstance(error, OSError | pymysql.err.InterfaceError) or not code
        rule, zh, en = (
            ("lost", "与服务器的连接中断", "the connection to the server was lost")
            if lost
            else ("failed", "数据库拒绝了操作", "the database refused")
        )
    return SourceError(f"source.{rule}", f"{zh}（{told}）", f"{en} ({told})", where)


# ---- table ----


def _find_table(connection: Any, url: URL, table: str, where: str) -> _Table:
    found = _rows(
        connection,
        "SELECT table_schema, table_name, table_type FROM information_schema.tables "
        "WHERE table_schema NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys')",
    )
    here = {name: _Table(schema, name, "VIEW" in kind) for schema, name, kind in found if schema == url.database}
    elsewhere = {f"{schema}.{name}": _Table(schema, name, "VIEW" in kind) for schema, name, kind in found}
    for tables in (here, elsewhere):
        name = in_any_case(table, tables)
        if name is not None:
            return tables[name]
    missing = table_missing(table, here, where)
    # The server shows only what the user may see, so a table without a right is as if it were not there.
    grant = f"GRANT SELECT ON {url.database}.{table} TO {url.username}"
    raise SourceError(
        missing.code,
        f"{missing.zh}；若表存在，则用户 {url.username} 没有权限：{grant}",
        f"{missing.en}; if it is there, {url.username} may not see it: {grant}",
        where,
    )


def _require_snapshot(connection: Any, table: _Table, where: str) -> None:
    """Refuse a table whose engine knows no transactions: what is read of it is of no one moment."""
    if table.is_view:
        return
    rows = _rows(
        connection,
        "SELECT t.engine, e.transactions FROM information_schema.tables t LEFT JOIN information_schema.engines e "
        "ON e.engine = t.engine WHERE t.table_schema = %s AND t.table_name = %s",
        (table.schema, table.name),
    )
    for engine, transactions in rows:
        if transactions != "YES":
            raise SourceError(
                "source.not_transactional",
                f"表的存储引擎 {engine} 不支持事务，无法一致地读取；请 ALTER TABLE … ENGINE = InnoDB",
                f"the table's engine {engine} knows no transactions, so it cannot be read as of one moment: ALTER TABLE … ENGINE = "
                "InnoDB",
                where,
            )


def _read_columns(connection: Any, table: _Table) -> list[_Column]:
    rows = _rows(
        connection,
        "SELECT column_name, data_type, column_type, is_nullable, numeric_scale, column_key FROM information_schema.columns "
        "WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
        (table.schema, table.name),
    )
    columns = []
    for name, data_type, declared, nullable, scale, key in rows:
        kind = _KINDS.get(data_type.lower())
        places = int(scale) if kind == "decimal" and scale is not None else None
        columns.append(_Column(name, declared.lower(), kind, nullable == "YES", places, key == "PRI"))
    return columns


def _rows(connection: Any, sql: str, values: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        # Names of information_schema come as bytes from some servers.
        return [
            tuple(value.decode() if isinstance(value, bytes) else value for value in row) for row in cursor.fetchall()
        ]
