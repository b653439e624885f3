"""A table of any database as a source: which module reads it follows from its URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ledger.catalog import Catalog
from ledger.errors import InputError
from ledger.source.layout import ColumnShape, TableShape
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
) -> Iterator[Source]:
    """Read a table or view as records of `catalog`; everything in the block sees one state of it, or `notes` says why
    it may not.

    url                 SQLAlchemy URL; postgresql and mysql/mariadb are read with psycopg 3 and pymysql whatever driver it
                        names, `parquet:///folder` are files, any other is read through SQLAlchemy
    columns             field name -> column name, where they differ
    batch_column        the column that holds the batch number, if there is one: `Chunk.extra["batch"]`
    row_version_column  the column that changes with each change of a row, if there is one: `Chunk.extra["row_version"]`
    base                what a relative path of a SQLite or Parquet file is relative to; default: the working folder

    SourceError `source.<rule>`: what is missing, refused or lost, and who must act; InputError `source.url`.
    """
    # Drivers are slow to import and only the one that is used is needed.
    kind = kind_of(url)
    given = {
        "columns": columns, "batch_column": batch_column, "row_version_column": row_version_column,
    }  # fmt: skip
    if kind == "sqlite":
        from ledger.source import sqlite  # noqa: PLC0415

        with sqlite.open_source(url, table, catalog, **given, base=base) as source:  # type: ignore[arg-type]
            yield source
    elif kind == "postgresql":
        from ledger.source import postgres  # noqa: PLC0415

        with postgres.open_source(parsed_url(url), table, catalog, **given) as pg_source:  # type: ignore[arg-type]
            yield pg_source
    elif kind == "mysql":
        from ledger.source import mariadb  # noqa: PLC0415

        with mariadb.open_source(parsed_url(url), table, catalog, **given) as maria_source:  # type: ignore[arg-type]
            yield maria_source
    elif kind == "parquet":
        from ledger.source import parquettable  # noqa: PLC0415

        with parquettable.open_source(parsed_url(url), table, catalog, **given, base=base) as files:  # type: ignore[arg-type]
            yield files
    else:
        from ledger.source import anysql  # noqa: PLC0415

        with anysql.open_source(parsed_url(url), table, catalog, **given) as any_source:  # type: ignore[arg-type]
            yield any_source


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
