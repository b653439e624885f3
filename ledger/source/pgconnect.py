"""Connecting to PostgreSQL by a SQLAlchemy URL, and its errors in an operator's words. Never shows a password."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from sqlalchemy.engine import URL

from ledger.errors import InputError, SourceError

LOCK_SECONDS = 10.0
"""How long to wait for another session's lock before giving up."""
MIN_VERSION = 130000

_DEFAULTS: Mapping[str, object] = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "application_name": "duizhang",
}
"""A server that vanished without a word is noticed within a minute; what a URL says goes before."""
_SESSION = (
    "SET client_encoding = 'UTF8'",
    "SET datestyle = 'ISO, YMD'",
    "SET timezone = 'UTC'",
    "SET intervalstyle = 'postgres'",
    "SET extra_float_digits = 1",
    "SET bytea_output = 'hex'",
    # A policy that would hide rows becomes an error: a table read in part would lack rows that are there.
    "SET row_security = off",
)
"""What a view writes as text does not depend on whose session reads it."""


@dataclass(frozen=True)
class Address:
    """What libpq is told, and how the database is named in messages (host, port, database; never the password)."""

    parameters: Mapping[str, Any]
    shown: str


def address_of(url: URL) -> Address:
    """The address a URL names; the query's members are libpq's own. InputError `source.url` for what libpq does not
    know. What is left out, libpq finds as ever (environment, service file, password file)."""
    query = {name: value if isinstance(value, str) else ",".join(value) for name, value in url.query.items()}
    named = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": None if url.password is None else str(url.password),
        "dbname": url.database or None,
    }
    parameters: dict[str, Any] = {
        **_DEFAULTS,
        **query,
        **{name: value for name, value in named.items() if value is not None},
    }
    try:
        make_conninfo("", **parameters)
    except psycopg.Error:
        known = ", ".join(sorted(query))
        raise InputError(
            "source.url",
            f"URL 的参数 {known} 中有 libpq 不认识的",
            f"among the options {known} of the URL is one that libpq does not know",
            "url",
        ) from None
    host = parameters.get("host") or parameters.get("service") or "local"
    port = f":{parameters['port']}" if "port" in parameters else ""
    return Address(parameters, f"postgresql://{host}{port}/{parameters.get('dbname', '')}")


@contextmanager
def connected(address: Address, where: str, lock_seconds: float) -> Iterator[psycopg.Connection[Any]]:
    """A connection whose transactions are the caller's; closed, and so rolled back, at the end.

    SourceError `source.<rule>` for anything PostgreSQL refuses within the block.
    """
    try:
        # Nothing is prepared on the server: a pooler may hand the next transaction to another one.
        connection = psycopg.connect(**dict(address.parameters), autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        raise _refused(error, address) from error
    except UnicodeError as error:
        raise _encoding(where) from error
    try:
        if connection.info.server_version < MIN_VERSION:
            raise SourceError(
                "source.version",
                f"PostgreSQL 版本为 {connection.info.server_version}，须为 13 或更高",
                f"the server's version is {connection.info.server_version}; PostgreSQL 13 or later is needed",
                where,
            )
        for statement in _SESSION:
            connection.execute(statement)
        connection.execute(f"SET lock_timeout = {max(1, int(lock_seconds * 1000))}")
        yield connection
    except psycopg.Error as error:
        raise source_error(error, where, _user(connection)) from error
    except UnicodeDecodeError as error:
        raise _encoding(where) from error
    finally:
        connection.close()


def _user(connection: psycopg.Connection[Any]) -> str:
    try:
        return connection.info.user
    except psycopg.Error:
        return "?"


def _encoding(where: str) -> SourceError:
    return SourceError(
        "source.encoding",
        "数据库中的名称或内容不是 UTF-8 文字（数据库编码为 SQL_ASCII？）；请改用编码明确的数据库",
        "names or content of the database are not text in UTF-8 (is its encoding SQL_ASCII?); use a database that declares its "
        "encoding",
        where,
    )


_MISSING = re.compile(r'(?:database|数据库) ?["“][^"”]*["”] ?(?:does not exist|不存在)')


def _refused(error: psycopg.Error, address: Address) -> SourceError:
    """Why there is no connection; the server's words come in its own language and without a code."""
    told = _plain(str(error), address)
    finished = error.pgconn
    user = address.parameters.get("user", "")
    if error.sqlstate == "3D000" or _MISSING.search(told):
        name = address.parameters.get("dbname", user)
        zh, en, rule = f"没有数据库 {name}", f"there is no database {name}", "database_missing"
    elif finished is not None and finished.needs_password:
        rule = "password"
        zh = f"用户 {user} 需要密码：请在 url 中给出，或用 PGPASSWORD、~/.pgpass、service 文件"
        en = f"user {user} needs a password: give it in the url, or by PGPASSWORD, ~/.pgpass or a service file"
    elif finished is not None and finished.used_password and ("28P01" in told or _PASSWORD.search(told)):
        rule, zh, en = "password", f"用户 {user} 的密码被拒绝", f"the password of user {user} was refused"
    elif _HBA.search(told):
        rule = "access"
        zh = f"服务器不允许用户 {user} 从本机连接（pg_hba.conf）"
        en = f"the server does not let user {user} connect from here (pg_hba.conf)"
    else:
        rule, zh, en = "connect", "无法连接数据库", "cannot connect to the database"
    return SourceError(f"source.{rule}", f"{zh}（{told}）", f"{en} ({told})", address.shown)


_PASSWORD = re.compile(r"password authentication failed|Password ?认证失败|口令认证失败|密码认证失败|用户 .* 认证失败")
_HBA = re.compile(r"pg_hba\.conf")


def _plain(text: str, address: Address) -> str:
    """libpq's message on one line, without the password should it ever hold it."""
    line = " ".join(text.split())
    password = address.parameters.get("password")
    return line.replace(str(password), "***") if password else line


_RULES: Mapping[str, tuple[str, str, str]] = {
    "28P01": ("password", "密码被拒绝", "the password was refused"),
    "3D000": ("database_missing", "没有该数据库", "there is no such database"),
    "55P03": ("locked", "表被其他会话锁定，等待超时；请稍后重试", "another session holds the table locked; try again later"),
    "40P01": ("locked", "与其他会话互相等待（死锁）；请重试", "a deadlock with another session; try again"),
    "40001": ("locked", "与其他会话冲突；请重试", "a conflict with another session; try again"),
    "57014": (
        "timeout",
        "查询被取消：超过该用户的 statement_timeout，或由管理员取消；请放宽 statement_timeout",
        "the query was cancelled: past this role's statement_timeout, or by an administrator; allow it more time",
    ),
    "25P03": (
        "timeout",
        "事务空闲超过 idle_in_transaction_session_timeout；请为该用户放宽",
        "the transaction was idle past idle_in_transaction_session_timeout; allow this role more",
    ),
    "25P04": (
        "timeout",
        "事务超过 transaction_timeout；请为该用户放宽",
        "the transaction ran past transaction_timeout; allow this role more",
    ),
    "57P01": ("lost", "连接被管理员终止，或服务器正在关闭", "the connection was ended by an administrator, or the server shut down"),
    "57P02": ("lost", "服务器崩溃，连接中断", "the server crashed and the connection with it"),
    "57P03": ("connect", "服务器正在启动或关闭；请稍后重试", "the server is starting up or shutting down; try again later"),
    "53300": ("connect", "服务器连接数已满", "the server has no connection to spare"),
    "25006": (
        "read_only",
        "服务器或会话是只读的（备机？）；写入请连接主库",
        "the server or session is read-only (a standby?); to write, connect to the primary",
    ),
    "22021": ("encoding", "内容不是有效文字", "holds bytes that are not text"),
    "22P05": ("encoding", "有文字无法转换为 UTF-8", "holds text that has no form in UTF-8"),
    "53100": ("full", "数据库服务器磁盘已满", "the disk of the server is full"),
    "XX001": ("damaged", "表的数据已损坏", "the table's data is damaged"),
    "XX002": ("damaged", "索引已损坏", "an index is damaged"),
    "42P01": ("table_missing", "引用的表不存在", "a table it refers to does not exist"),
    "22001": ("too_long", "值超过列的长度", "a value is too long for its column"),
}  # fmt: skip


def source_error(error: psycopg.Error, where: str, user: str) -> SourceError:
    """What PostgreSQL refused, in words; its own first line is added, without what it quotes of values."""
    state = error.sqlstate or ""
    told = _own_words(error)
    if state == "42501":
        if "row-level security" in told or "行级安全" in told or "行级安全策略" in told:
            rule = "row_security"
            zh = f"表有行级安全策略，{user} 只能看到部分行；请 ALTER ROLE {_name(user)} BYPASSRLS，或由表的所有者读取"
            en = (
                f"the table has row-level security, which hides rows from {user}: ALTER ROLE {_name(user)} BYPASSRLS, or read it "
                "as its owner"
            )
        else:
            rule, zh, en = "permission", f"{user} 没有权限", f"{user} has no permission"
    elif state in _RULES:
        rule, zh, en = _RULES[state]
    elif state.startswith("23"):
        rule, zh, en = "constraint", "违反了表的约束", "a constraint of the table was violated"
    elif not state or state.startswith("08"):
        rule, zh, en = "lost", "与数据库服务器的连接中断", "the connection to the database server was lost"
    else:
        rule, zh, en = "failed", "数据库拒绝了操作", "the database refused"
    return SourceError(f"source.{rule}", f"{zh}（{told}）", f"{en} ({told})", where)


def _own_words(error: psycopg.Error) -> str:
    """The primary message: details and context, which quote rows, are left out; so is what data errors quote."""
    told = " ".join((error.diag.message_primary or str(error)).split())
    if (error.sqlstate or "").startswith("22"):
        told = re.sub(r'["“].*["”]', '"***"', told)
    return f"{told} [{error.sqlstate}]" if error.sqlstate else told


def _name(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def no_right(rights: str, table: str, schema: str | None, user: str, where: str) -> SourceError:
    """SourceError `source.permission` with the GRANT that is needed; `schema` (quoted) if the schema's USAGE lacks too,
    `table` quoted and qualified."""
    usage = f"GRANT USAGE ON SCHEMA {schema} TO {_name(user)}; " if schema else ""
    grant = f"{usage}GRANT {rights} ON TABLE {table} TO {_name(user)};"
    return SourceError(
        "source.permission",
        f"用户 {user} 没有权限；请由表的所有者执行：{grant}",
        f"{user} has no permission; the owner of the table runs: {grant}",
        where,
    )
