"""The databases of the story: an SQLite file and the workspaces' own stores, or schemas of one PostgreSQL database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from ledger.errors import InputError, SourceError

CITY_DB = Path("city.db")
_CITY_SCHEMA = "duizhang_demo_city"
_STORE_SCHEMAS = "duizhang_demo_{party}"


class Database(Protocol):
    """Where the city's table lies, and where each party's store does."""

    @property
    def shell(self) -> str:
        """The program an operator would type SQL into."""

    @property
    def source_url(self) -> str:
        """The city's database, as [source] names it."""

    @property
    def row_id(self) -> str:
        """The column that tells two equal rows apart; the later one has the greater."""

    def store_options(self, party: str) -> Sequence[str]:
        """What `init` is told of the store."""

    def execute(self, statements: Iterable[str]) -> None:
        """Run statements in one transaction, as anybody with access could."""

    def remove(self) -> None:
        """Remove what lies outside the story's folder."""


class SqliteDatabase:
    """A file in the story's folder, and stores in the workspaces."""

    shell = f"sqlite3 {CITY_DB}"
    source_url = f"sqlite:///../{CITY_DB}"
    row_id = "rowid"

    def store_options(self, party: str) -> Sequence[str]:
        """None: the default."""
        return ()

    def execute(self, statements: Iterable[str]) -> None:
        """Run statements in one transaction."""
        with closing(sqlite3.connect(CITY_DB)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    def remove(self) -> None:
        """Nothing: the file goes with the folder."""


class PostgresDatabase:
    """Three schemas of a database: the city's table, and a store for each party. They must not be there before."""

    row_id = "ctid"

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError:
            parsed = None
        if parsed is None or parsed.get_backend_name() != "postgresql" or parsed.query:
            raise InputError(
                "demo.database",
                "应为 postgresql://用户@主机/库，不带参数",
                "must be postgresql://user@host/database, without options",
                "--database",
            )
        self._url = parsed.set(drivername="postgresql")
        engine_url = parsed.set(drivername="postgresql+psycopg")
        self._engine: Engine = create_engine(engine_url, poolclass=NullPool)
        self._schemas = [_CITY_SCHEMA, *(_STORE_SCHEMAS.format(party=p) for p in ("guangdong", "guangzhou"))]
        self._made = False
        self.shell = f"PGOPTIONS=-csearch_path={_CITY_SCHEMA} psql {self._url.render_as_string(hide_password=True)}"

    @property
    def source_url(self) -> str:
        """The database with the city's schema on the search path."""
        return self._in_schema(_CITY_SCHEMA)

    def make(self) -> None:
        """Create the schemas; SourceError `demo.database` if one is there already, or the database cannot be used."""
        try:
            with self._engine.begin() as connection:
                for schema in self._schemas:
                    connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        except SQLAlchemyError as error:
            told = str(getattr(error, "orig", error)).strip()
            raise SourceError(
                "demo.database",
                f"无法建立演示用的模式 {'、'.join(self._schemas)}：{told}",
                f"the schemas {', '.join(self._schemas)} of the demonstration cannot be made: {told}",
                self._url.render_as_string(hide_password=True),
            ) from error
        self._made = True

    def store_options(self, party: str) -> Sequence[str]:
        """The party's own schema."""
        return ("--store", self._in_schema(_STORE_SCHEMAS.format(party=party)))

    def execute(self, statements: Iterable[str]) -> None:
        """Run statements in one transaction."""
        with self._engine.begin() as connection:
            connection.exec_driver_sql(f"SET LOCAL search_path = {_CITY_SCHEMA}")
            for statement in statements:
                # As a statement without parameters: a % in it is a %.
                connection.connection.cursor().execute(statement)

    def remove(self) -> None:
        """Drop the schemas that were made."""
        if self._made:
            with self._engine.begin() as connection:
                connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {', '.join(self._schemas)} CASCADE")

    def _in_schema(self, schema: str) -> str:
        url = self._url.update_query_dict({"options": f"-csearch_path={schema}"})
        return url.render_as_string(hide_password=False)
