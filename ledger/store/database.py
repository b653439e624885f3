"""What the store needs of the database that keeps its tables, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from ledger.errors import InputError, StoreError

Mode = Literal["create", "write", "update", "read"]

READING = "duizhang_read"
"""The execution option of a connection that only reads."""
BUSY_TIMEOUT_SECONDS = 30.0
"""How long a transaction waits for another writer."""


class Flaw(NamedTuple):
    """One thing that is wrong with the tables themselves (`fsck`)."""

    zh: str
    en: str


class Obstacle(NamedTuple):
    """What keeps the store from being written, or (a `warning`) lessens what a write promises; and what mends it."""

    code: str
    zh: str
    en: str
    mend_zh: str
    mend_en: str
    where: str
    warning: bool = False


class Database(Protocol):
    """`where` names it in messages, without a secret; `name` is the product's; `row` the column that names any row."""

    name: str
    where: str
    path: Path | None
    row: str
    engine: Engine
    reading: Mapping[str, Any]

    def errors(self) -> AbstractContextManager[None]:
        """Turn what SQLAlchemy and the driver raise inside into `StoreError`."""

    def committing(self, connection: Connection) -> AbstractContextManager[None]:
        """Around a commit: an error inside that leaves the outcome unknown says so."""

    def tables(self, connection: Connection) -> Sequence[str]:
        """The tables there are where ours belong, whoever made them."""

    def missing(self) -> StoreError | None:
        """What to say where there is no table at all; None if that is merely an old store."""

    def hold(self) -> AbstractContextManager[None]:
        """While held, no other workspace's job may hold the same store (StoreError `store.busy`)."""

    def settle(self) -> None:
        """Called once the tables are known to be ours, before a job writes them."""

    def take_over(self) -> None:
        """Hold the store until `close`; an earlier holder's writes are refused from now on (StoreError `store.overtaken`)."""

    def damage(self, connection: Connection) -> Sequence[Flaw]:
        """What is wrong with the tables themselves, beyond single rows."""

    def forget(self) -> None:
        """What rows no longer say is in no file of the database any more: call it outside every transaction.

        StoreError `store.in_use` if somebody still reads an older state; calling it again is safe.
        """

    def obstacles(self, connection: Connection) -> Sequence[Obstacle]:
        """What keeps the tables from being written, found without writing."""

    def after_copy(self, connection: Connection, table: str, column: str) -> None:
        """Rows with given numbers were put into `table`: the next number is above them."""

    def close(self) -> None:
        """Close all connections and let go of what is held."""


def backend_of(url: str) -> str:
    """`sqlite`, `postgresql` (also for `postgres://`) or another name; InputError `store.url` for what is no URL."""
    try:
        name = make_url(url).get_backend_name()
    except (ArgumentError, ValueError) as error:
        raise bad_url() from error
    return "postgresql" if name == "postgres" else name


def bad_url(why_zh: str = "", why_en: str = "") -> InputError:
    """The refusal of a URL, which is never shown: it may hold a password."""
    return InputError(
        "store.url",
        f"[store] url 无效{f'（{why_zh}）' if why_zh else ''}；应为 sqlite:/// 加绝对路径（不带参数），或 postgresql://用户@主机/库",
        f"[store] url is not valid{f' ({why_en})' if why_en else ''}; it must be sqlite:/// and an absolute path, without "
        "parameters, or postgresql://user@host/database",
        "[store] url",
    )


def in_use(where: str) -> StoreError:
    """What `forget` says while somebody reads an older state of the tables."""
    return StoreError(
        "store.in_use",
        f"台账库 {where} 仍有进程在读取较早的内容，已改写的旧内容暂时清不掉；请待其结束（或停止 serve）后再次执行",
        "another process still reads an older state of the store, so what was overwritten cannot be cleared away yet; run it again "
        "when that process ended (or stop serve)",
        where,
    )
