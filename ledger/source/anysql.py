"""Any other database through plain SQLAlchemy: values as its driver gives them, by `record.text_of`. Untested, and said to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, create_engine, inspect
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.types import (
    ARRAY,
    JSON,
    Boolean,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    LargeBinary,
    Numeric,
    String,
    TypeEngine,
)

from ledger.catalog import Catalog, Field
from ledger.errors import SourceError
from ledger.kernel.chunk import Chunk
from ledger.source.layout import ColumnShape, Kind, Layout, TableShape, check_kinds, resolve_columns, table_missing
from ledger.source.values import Refused, chunk_of, selected, texts_of, versions_of

CHUNK_BYTES = 8 << 20
MAX_CHUNK_ROWS = 16_384
FIRST_CHUNK_ROWS = 256

SNAPSHOT_LEVELS = ("SNAPSHOT", "REPEATABLE READ", "SERIALIZABLE")
"""Isolation levels under which all reads of a transaction see one state, the cheapest first."""
_CAST = {
    "text": "VARCHAR", "code": "VARCHAR", "enum": "VARCHAR", "integer": "DECIMAL", "decimal": "DECIMAL", "date": "DATE",
    "datetime": "TIMESTAMP",
}  # fmt: skip
_UNTESTED = (
    "本程序未在这种数据库（{name}）上测试过，经 SQLAlchemy 读取",
    "this program was not tested on this kind of database ({name}), which is read through SQLAlchemy",
)
_NO_SNAPSHOT = (
    "该数据库不提供一致性读取的隔离级别：读到的未必是同一时刻",
    "the database offers no isolation level for a consistent read: what was read need not be of one moment",
)


class AnySource:
    """One table or view within one transaction; see `open_source`."""

    def __init__(
        self,
        connection: Connection,
        catalog: Catalog,
        layout: Layout,
        kinds: Mapping[str, Kind],
        notes: Sequence[tuple[str, str]],
        where: str,
    ) -> None:
        self.layout = layout
        self.notes = notes
        self._connection = connection
        self._catalog = catalog
        self._kinds = kinds
        self._where = where

    @property
    def where(self) -> str:
        """The URL without its password, and the table."""
        return self._where

    @property
    def ignored(self) -> Sequence[str]:
        """Columns neither declared nor the batch or row version column."""
        return self.layout.ignored

    def about_rows(self) -> int | None:
        """None: each kind of database has its own way to tell."""
        return None

    def scan(self) -> Iterator[Chunk]:
        """All rows, in no particular order; `Chunk.numbers` counts them from 1."""
        names = list(self._catalog.by_name)
        quote = self._connection.dialect.identifier_preparer.quote
        columns = ", ".join(quote(name) for name in selected(self.layout, names))
        streaming = self._connection.execution_options(stream_results=True, max_row_buffer=MAX_CHUNK_ROWS)
        ordinal, size = 1, FIRST_CHUNK_ROWS
        with streaming.exec_driver_sql(f"SELECT {columns} FROM {self.layout.reference}") as result:  # noqa: S608 - quoted
            while rows := result.fetchmany(size):
                values = list(zip(*rows, strict=True))
                chunk = chunk_of(values, names, self.layout, self._catalog, ordinal, self._texts, self._versions)
                ordinal += len(rows)
                width = sum(column.nbytes for column in chunk.fields.values()) // len(rows) + 1
                size = max(1, min(MAX_CHUNK_ROWS, 2 * size, CHUNK_BYTES // width))
                del rows, values
                yield chunk

    def _texts(self, values: Sequence[Any], column: str, field: Field, refused: Refused) -> Any:
        return texts_of(values, field, refused)

    def _versions(self, values: Sequence[Any], column: str, refused: Refused) -> Any:
        kind = self._kinds[column]
        field = Field(column, {"integer": "integer", "date": "date"}.get(kind, "datetime"))  # type: ignore[arg-type]
        return versions_of(texts_of(values, field, refused), kind, column, self._catalog, refused)


@contextmanager
def open_source(
    url: URL,
    table: str,
    catalog: Catalog,
    *,
    columns: Mapping[str, str] | None = None,
    batch_column: str | None = None,
    row_version_column: str | None = None,
) -> Iterator[AnySource]:
    """Read `table` (`schema.table` for another schema than the default one) as records of `catalog`, in one transaction that is never
    committed. Parameters as in `table.open_table`.

    SourceError `source.<rule>`: `driver connect table_missing column_missing column_type failed`.
    """
    where = f"{url.render_as_string(hide_password=True)}:{table}"
    with _connected(url, where) as (connection, levels):
        shapes, schema, name, is_view = _inspected(connection, table, where)
        kinds = {column: (_kind(type_), str(type_)) for column, type_, _, _ in shapes}
        quote = connection.dialect.identifier_preparer.quote
        reference = quote(name) if schema is None else f"{quote(schema)}.{quote(name)}"
        layout = resolve_columns(
            list(kinds), catalog, table=name, reference=reference, is_view=is_view, columns=columns or {},
            batch_column=batch_column, row_version_column=row_version_column, where=where,
        )  # fmt: skip
        check_kinds(layout, catalog, kinds, _CAST, where)  # type: ignore[arg-type]
        told = (_UNTESTED[0].format(name=url.get_backend_name()), _UNTESTED[1].format(name=url.get_backend_name()))
        notes = (told,) if levels else (told, _NO_SNAPSHOT)
        known = {column: kind for column, (kind, _) in kinds.items() if kind is not None}
        yield AnySource(connection, catalog, layout, known, notes, where)


def describe_table(url: URL, table: str) -> TableShape:
    """The columns of a table or view as its driver tells them; errors as in `open_source`."""
    where = f"{url.render_as_string(hide_password=True)}:{table}"
    with _connected(url, where) as (connection, _):
        shapes, *_ = _inspected(connection, table, where)
    return TableShape(
        tuple(
            ColumnShape(
                column,
                str(type_),
                None
                if (kind := _kind(type_)) is None
                else {"timestamp": "datetime", "zoned": "datetime"}.get(kind, kind),  # type: ignore[arg-type]
                nullable,
                getattr(type_, "scale", None) if kind == "decimal" else None,
                in_key,
            )
            for column, type_, nullable, in_key in shapes
        )
    )


@contextmanager
def _connected(url: URL, where: str) -> Iterator[tuple[Connection, Sequence[str]]]:
    """A connection within a transaction of the strictest level that reads one state, and which such levels there are."""
    try:
        engine = create_engine(url, poolclass=NullPool)
    except (NoSuchModuleError, ModuleNotFoundError, ImportError) as error:
        raise SourceError(
            "source.driver",
            f"缺少该数据库的驱动（{error}）；请用 pip 安装对应的 SQLAlchemy 方言与驱动",
            f"the driver of this database is not installed ({error}); install its SQLAlchemy dialect and driver with pip",
            where,
        ) from error
    try:
        with engine.connect() as connection:
            levels = _levels(connection)
            if levels:
                connection.execution_options(isolation_level=levels[0])
            yield connection, levels
            connection.rollback()
    except SQLAlchemyError as error:
        # SQLAlchemy's own text shows the statement; the driver's says what is wrong.
        cause = error.orig if isinstance(error, DBAPIError) else error
        told = " ".join(str(cause).split())[:400]
        told = told.replace(str(url.password), "***") if url.password else told
        rule = "lost" if isinstance(error, DBAPIError) and error.connection_invalidated else "failed"
        raise SourceError(
            f"source.{rule}", f"数据库拒绝了操作（{told}）", f"the database refused ({told})", where
        ) from error
    finally:
        engine.dispose()


def _levels(connection: Connection) -> list[str]:
    try:
        there = connection.dialect.get_isolation_level_values(connection.connection.dbapi_connection)  # type: ignore[arg-type]
    except NotImplementedError:
        return []
    return [level for level in SNAPSHOT_LEVELS if level in there]


Shape = tuple[str, TypeEngine[Any], bool, bool]


def _inspected(connection: Connection, table: str, where: str) -> tuple[list[Shape], str | None, str, bool]:
    """The columns of the table a name means (name, type, nullable, in the primary key), its schema and name, whether it is a view."""
    inspector = inspect(connection)
    before, dot, after = table.rpartition(".")
    for schema, name in ((None, table), *(((before, after),) if dot else ())):
        views = inspector.get_view_names(schema)
        if name in views or name in inspector.get_table_names(schema):
            keys = set(inspector.get_pk_constraint(name, schema).get("constrained_columns") or ())
            columns = inspector.get_columns(name, schema)
            shapes = [(c["name"], c["type"], bool(c.get("nullable", True)), c["name"] in keys) for c in columns]
            return shapes, schema, name, name in views
    raise table_missing(table, [*inspector.get_table_names(), *inspector.get_view_names()], where)


def _kind(type_: TypeEngine[Any]) -> Kind | None:
    if isinstance(type_, Boolean | Float | LargeBinary | JSON | ARRAY):
        return None
    if isinstance(type_, Enum | String):
        return "text"
    if isinstance(type_, Integer):
        return "integer"
    if isinstance(type_, Numeric):
        return "decimal"
    if isinstance(type_, DateTime):
        return "zoned" if type_.timezone else "timestamp"
    return "date" if isinstance(type_, Date) else None
