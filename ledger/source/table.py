"""A table of any database as a source: which module reads it follows from its URL."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.catalog import Catalog
from ledger.errors import InputError, SourceError
from ledger.source.layout import ColumnShape, TableShape
from ledger.source.paced import timed_out
from ledger.source.source import Source

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

__all__ = ["ColumnShape", "TableShape", "describe_table", "open_table"]


@contextmanager
def open_table(
    url: str,
    table: str,
    catalog: Catalog,
    *,
    columns: Mapping[str, str] | None = None,
    batch_column: str | None = None,
    row_version_column: str | None = None,
    base: Path | None = None,
    timeout_seconds: int | None = None,
) -> Iterator[Source]:
    """Read a table or view as records of `catalog`; everything in the block sees one state of it, or `notes` says why
    it may not.

    url                 SQLAlchemy URL; postgresql and mysql/mariadb are read with psycopg 3 and pymysql whatever driver it
                        names, `parquet:///folder` are files, any other is read through SQLAlchemy
    columns             field name -> column name, where they differ
    batch_column        the column that holds the batch number, if there is one: `Chunk.extra["batch"]`
    row_version_column  the column that changes with each change of a row, if there is one: `Chunk.extra["row_version"]`
    base                what a relative path of a SQLite or Parquet file is relative to; default: the working folder
    timeout_seconds     how long one scan may take; the database ends it by itself, but for kinds that are read through SQLAlchemy

    SourceError `source.<rule>`: what is missing, refused or lost, and who must act; InputError `source.url`.
    """
    began = time.monotonic()
    try:
        with _opened(url, table, catalog, columns, batch_column, row_version_column, base, timeout_seconds) as source:
            yield source
    except SourceError as error:
        # Databases tell that a statement was stopped, but not whose time-out it was.
        if (
            error.code == "source.timeout"
            and timeout_seconds is not None
            and time.monotonic() - began >= timeout_seconds
        ):
            raise timed_out(catalog.id, timeout_seconds, error.where, error.en) from error
        raise


def _opened(
    url: str,
    table: str,
    catalog: Catalog,
    columns: Mapping[str, str] | None,
    batch_column: str | None,
    row_version_column: str | None,
    base: Path | None,
    timeout_seconds: int | None,
) -> AbstractContextManager[Source]:
    # Drivers are slow to import and only the one that is used is needed.
    kind = kind_of(url)
    given = {"columns": columns, "batch_column": batch_column, "row_version_column": row_version_column}
    if kind == "sqlite":
        from ledger.source import sqlite  # noqa: PLC0415

        return sqlite.open_source(url, table, catalog, **given, base=base, timeout_seconds=timeout_seconds)  # type: ignore[arg-type]
    if kind == "postgresql":
        from ledger.source import postgres  # noqa: PLC0415

        return postgres.open_source(parsed_url(url), table, catalog, **given, timeout_seconds=timeout_seconds)  # type: ignore[arg-type]
    if kind == "mysql":
        from ledger.source import mariadb  # noqa: PLC0415

        return mariadb.open_source(parsed_url(url), table, catalog, **given, timeout_seconds=timeout_seconds)  # type: ignore[arg-type]
    if kind == "parquet":
        from ledger.source import parquettable  # noqa: PLC0415

        return parquettable.open_source(parsed_url(url), table, catalog, **given, base=base)  # type: ignore[arg-type]
    from ledger.source import anysql  # noqa: PLC0415

    return anysql.open_source(parsed_url(url), table, catalog, **given)  # type: ignore[arg-type]


def describe_table(url: str, table: str, base: Path | None = None) -> TableShape:
    """The columns of a table or view as the database declares them, for `catalog new`; errors as in `open_table`."""
    kind = kind_of(url)
    if kind == "sqlite":
        from ledger.source import sqlite  # noqa: PLC0415

        return sqlite.describe_table(url, table, base)
    if kind == "postgresql":
        from ledger.source import postgres  # noqa: PLC0415

        return postgres.describe_table(parsed_url(url), table)
    if kind == "mysql":
        from ledger.source import mariadb  # noqa: PLC0415

        return mariadb.describe_table(parsed_url(url), table)
    if kind == "parquet":
        from ledger.source import parquettable  # noqa: PLC0415

        return parquettable.describe_table(parsed_url(url), table, base)
    from ledger.source import anysql  # noqa: PLC0415

    return anysql.describe_table(parsed_url(url), table)


def parsed_url(url: str) -> URL:
    """InputError `source.url` for what is no URL; it is not shown, for it may hold a password."""
    # SQLAlchemy is slow to import, and only commands that read a table need it.
    from sqlalchemy.engine import make_url  # noqa: PLC0415
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        raise InputError(
            "source.url",
            "不是数据库 URL，须形如 sqlite:///路径 或 postgresql://用户:密码@主机/库",
            "not a database URL such as sqlite:///path or postgresql://user:password@host/database",
            "url",
        ) from None


def kind_of(url: str) -> str:
    """`sqlite`, `postgresql`, `mysql` (also for mariadb), or the name another database goes by."""
    name = parsed_url(url).drivername.split("+", maxsplit=1)[0]
    return {"postgres": "postgresql", "mariadb": "mysql"}.get(name, name)
