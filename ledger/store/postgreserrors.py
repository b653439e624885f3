"""What PostgreSQL and its driver refuse, as `StoreError` by cause: in a session by SQLSTATE, before it by what libpq says.

    store.url             a parameter of the URL that libpq does not know
    store.unreachable     no server answers there, or it is starting up or shutting down
    store.login           name or password refused, or pg_hba.conf does not let us in
    store.no_database     the database does not exist
    store.no_schema       no schema of the search path exists, or none may be used
    store.connections     the server takes no more connections
    store.rights          a GRANT is missing; the message has the statement
    store.server_old      PostgreSQL before 15
    store.encoding        a database in another encoding than UTF8
    store.connection_lost the session ended; nothing of the open transaction was written
    store.commit_unknown  it ended while committing
    store.collision       deadlock or serialization failure; nothing was written
    store.cancelled       a time limit of the server or somebody cancelled the statement
    store.locked, store.conflict, store.read_only, store.disk_full, store.io, store.damaged, store.sql   as on SQLite

No message shows a statement, a row, or a password.
"""

from __future__ import annotations

import re
from typing import Any

import psycopg

from ledger.errors import LedgerError, StoreError
from ledger.store.database import bad_url

_LOGIN = ("store.login", "用户名、口令或 pg_hba.conf 不允许登录", "name, password or pg_hba.conf do not let us in")
_FULL = ("store.connections", "服务器连接数已满；请稍后再试", "the server takes no more connections; try again later")

_REFUSED: tuple[tuple[str, tuple[str, str, str]], ...] = (
    (r"authentication failed|no password supplied|no pg_hba\.conf entry|is not permitted to log in", _LOGIN),
    (r'role ".*" does not exist', _LOGIN),
    (
        r'permission denied for database "',
        (
            "store.rights",
            "无权连接该库；请管理员执行 GRANT CONNECT ON DATABASE … TO …",
            "no right to connect to this database; ask its owner: GRANT CONNECT ON DATABASE … TO …",
        ),
    ),
    (r"too many clients|too many connections|remaining connection slots", _FULL),
    (
        r'database ".*" does not exist',
        (
            "store.no_database",
            "库不存在；请先创建：CREATE DATABASE",
            "there is no such database; CREATE DATABASE makes it",
        ),
    ),
)
"""What a server says before there is a session: libpq passes on its words only, no SQLSTATE."""

_LOST = (
    "store.connection_lost",
    "连接中断，未提交的事务没有写入；请重试",
    "the connection was lost, nothing of the open transaction was written; run again",
)
_CAUSES: dict[str, tuple[str, str, str]] = {
    "08": _LOST,
    "57P01": _LOST,
    "57P02": _LOST,
    "57P03": ("store.unreachable", "服务器正在启动或停止", "the server is starting up or shutting down"),
    "57P04": _LOST,
    "57P05": _LOST,
    "25P03": _LOST,
    "25P04": _LOST,
    "57014": (
        "store.cancelled",
        "语句被取消（服务器时限或管理员），本次事务未写入",
        "the statement was cancelled (a time limit of the server, or its administrator), nothing of this transaction was "
        "written",
    ),
    "55P03": ("store.locked", "等待另一写入者超时", "another writer keeps it locked; try again when it ended"),
    "40": (
        "store.collision",
        "与另一事务冲突，本次事务未写入；请重试",
        "another transaction was in the way, nothing of this one was written; run again",
    ),
    "25006": (
        "store.read_only",
        "不可写（只读事务，或备用服务器、default_transaction_read_only）",
        "it cannot be written (a reading transaction; or a standby server, or default_transaction_read_only)",
    ),
    "53100": (
        "store.disk_full",
        "服务器磁盘空间已满，本次事务未写入；请清理后重试",
        "the server's disk is full, nothing of this transaction was written; free space, then run again",
    ),
    "53300": _FULL,
    "58": ("store.io", "服务器读写失败；请检查其磁盘", "the server failed to read or write; check its disk"),
    "XX001": (
        "store.damaged",
        "服务器报告数据已损坏；请从备份恢复",
        "the server reports damaged data; restore a backup",
    ),
    "XX002": ("store.damaged", "服务器报告索引已损坏；请 REINDEX", "the server reports a damaged index; REINDEX it"),
}


def refused(error: psycopg.Error, where: str, password: str | None) -> LedgerError:
    """Why there is no session."""
    told = str(error)
    if password:
        told = told.replace(password, "***")
    told = " ".join(told.split())
    if isinstance(error, psycopg.ProgrammingError):
        return bad_url(told, told)
    for pattern, (code, zh, en) in _REFUSED:
        if re.search(pattern, told):
            return StoreError(code, f"台账库 {where}：{zh}（{told}）", f"{en} ({told})", where)
    return StoreError(
        "store.unreachable",
        f"连不上台账库 {where}（{told}）；请检查 [store] url 与服务器",
        f"the store's server cannot be reached ({told}); check [store] url and the server",
        where,
    )


def translated(cause: Any, where: str, schema: str, user: str, *, lost: bool) -> StoreError:
    """What a statement met; `lost`: the session is gone."""
    state = getattr(cause, "sqlstate", None) or ""
    told = f"{state} {type(cause).__name__}".strip()
    diag: Any = getattr(cause, "diag", None)
    if state.startswith("23"):
        # Not the message itself: its detail shows the row.
        rule = " ".join(part for part in (diag.table_name, diag.constraint_name or diag.column_name) if part)
        return StoreError(
            "store.conflict",
            f"台账库 {where} 的约束拒绝了写入（{told}：{rule}）；状态已变，或程序有误",
            f"a constraint of the store refused a row ({told}: {rule}): the state changed meanwhile, or the program errs",
            where,
        )
    if state == "42501":
        missing = "; ".join(grants(str(diag.message_primary), schema, user))
        return StoreError(
            "store.rights",
            f"台账库 {where}：没有权限（{diag.message_primary}）；请管理员执行：{missing}",
            f"no right to do this ({diag.message_primary}); ask the database's owner: {missing}",
            where,
        )
    code, zh, en = (
        _CAUSES.get(state)
        or _CAUSES.get(state[:2])
        or (_LOST if lost else ("store.sql", "语句执行失败", "a statement failed"))
    )
    return StoreError(code, f"台账库 {where}：{zh}（{told}）", f"{en} ({told})", where)


def unknown_outcome(cause: Any, where: str) -> StoreError:
    """The session ended after COMMIT was sent and before it was answered."""
    told = getattr(cause, "sqlstate", None) or type(cause).__name__
    return StoreError(
        "store.commit_unknown",
        f"台账库 {where}：提交时连接中断（{told}），是否写入未知；请再运行一次，它会先查明",
        f"the connection was lost while committing ({told}): whether it was written is unknown; run again, which finds out "
        "first",
        where,
    )


def grants(told: str, schema: str, user: str) -> list[str]:
    """The statements that give what `told` says is missing; all of them where it does not say."""
    quoted = [f'"{name}"' if not re.fullmatch("[a-z_][a-z0-9_]*", name) else name for name in (schema, user)]
    of, to = f"ON SCHEMA {quoted[0]}", f"TO {quoted[1]}"
    known = {
        "for schema": f"GRANT USAGE, CREATE {of} {to}",
        "for table": f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {quoted[0]} {to}",
        "for sequence": f"GRANT SELECT, USAGE ON ALL SEQUENCES IN SCHEMA {quoted[0]} {to}",
        "must be owner": f"REASSIGN OWNED BY … {to}",
    }
    return [grant for word, grant in known.items() if word in told] or list(known.values())[:3]


def too_old(version: int, where: str, oldest: int) -> StoreError:
    """A server that this program was never tried on."""
    have, need = version // 10000, oldest // 10000
    return StoreError(
        "store.server_old",
        f"台账库 {where} 的 PostgreSQL 版本为 {have}，需要 {need} 或更高",
        f"the store's server is PostgreSQL {have}; {need} or newer is needed",
        where,
    )


def wrong_encoding(encoding: str, where: str) -> StoreError:
    """A database that cannot hold every text."""
    return StoreError(
        "store.encoding",
        f"台账库 {where} 的编码为 {encoding}，必须是 UTF8；请另建：CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        f"the store's database is in {encoding} and must be in UTF8; make another: CREATE DATABASE … ENCODING 'UTF8' "
        "TEMPLATE template0",
        where,
    )


def no_schema(path: str, user: str, where: str) -> StoreError:
    """PostgreSQL leaves out of its search path what does not exist and what may not be used, without saying which."""
    return StoreError(
        "store.no_schema",
        f"台账库 {where}：search_path（{path}）中没有可用的模式；请管理员执行 CREATE SCHEMA … AUTHORIZATION {user}，"
        f"或 GRANT USAGE, CREATE ON SCHEMA … TO {user}",
        f"no schema of the search path ({path}) exists or may be used; ask the database's owner: CREATE SCHEMA … "
        f"AUTHORIZATION {user}, or GRANT USAGE, CREATE ON SCHEMA … TO {user}",
        where,
    )


def busy(holder: str, where: str) -> StoreError:
    """A job of another workspace is at work on the same tables."""
    return StoreError(
        "store.busy",
        f"另一工作区的任务正在使用台账库 {where}（{holder}）；请等它结束后再试。两个工作区不应共用一个台账库",
        f"a job of another workspace is using this store ({holder}); try again when it ended. Two workspaces should not "
        "share one store",
        where,
    )


def overtaken(where: str) -> StoreError:
    """We lost the hold on the store, and somebody else has had it since."""
    return StoreError(
        "store.overtaken",
        f"台账库 {where}：连接中断后，另一任务接管了台账库（或服务器崩溃过）；本次事务未写入，请再运行一次",
        "after the connection was lost another job took the store over (or the server crashed); nothing of this transaction "
        "was written; run again",
        where,
    )


def aborted(where: str) -> StoreError:
    """An error inside the block was caught and not told: PostgreSQL would answer COMMIT by rolling back, without an error."""
    return StoreError(
        "store.sql",
        f"台账库 {where}：事务中有语句失败，本次事务未写入",
        "a statement of this transaction failed, nothing of it was written",
        where,
    )
