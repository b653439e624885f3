"""A PostgreSQL table as its catalogs tell it: which one a name means, its columns, how each is written as text (F2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from ledger.catalog import FieldType
from ledger.errors import SourceError
from ledger.source.layout import ColumnShape, Kind, TableShape, folded, table_missing

CAST: Mapping[FieldType, str] = {
    "text": "text", "code": "text", "enum": "text", "integer": "numeric", "decimal": "numeric", "date": "date",
    "datetime": "timestamptz",
}  # fmt: skip
"""What a view casts to, for a field of each type."""

_KINDS: Mapping[str, Kind] = {
    "int2": "integer", "int4": "integer", "int8": "integer", "numeric": "decimal",
    "text": "text", "varchar": "text", "bpchar": "text", "name": "text",
    "date": "date", "timestamp": "timestamp", "timestamptz": "zoned",
}  # fmt: skip
"""Types of pg_catalog that have a form; every other type is refused by name, but for enums and citext."""
_SUGGESTED: Mapping[Kind, FieldType] = {
    "text": "text", "integer": "integer", "decimal": "decimal", "date": "date", "timestamp": "datetime", "zoned": "datetime",
}  # fmt: skip

_TABLES = """
SELECT c.oid, n.nspname, c.relname, c.relkind::text, pg_catalog.pg_table_is_visible(c.oid)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp%'
AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""
_COLUMNS = """
WITH RECURSIVE base AS (
  SELECT attnum, atttypid AS type, atttypmod AS typmod
  FROM pg_catalog.pg_attribute WHERE attrelid = %(oid)s AND attnum > 0 AND NOT attisdropped
  UNION ALL
  SELECT attnum, t.typbasetype, t.typtypmod FROM base JOIN pg_catalog.pg_type t ON t.oid = type AND t.typtype = 'd'
)
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), t.typname, n.nspname, t.typtype::text, base.typmod,
  a.attnotnull, a.atthasdef, a.attidentity::text, a.attgenerated::text,
  EXISTS (SELECT FROM pg_catalog.pg_type own WHERE own.oid = a.atttypid AND (own.typdefault IS NOT NULL)),
  EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary AND a.attnum = ANY (i.indkey)),
  EXISTS (SELECT FROM pg_catalog.pg_type own WHERE own.oid = a.atttypid AND own.typnotnull)
FROM pg_catalog.pg_attribute a JOIN base USING (attnum)
JOIN pg_catalog.pg_type t ON t.oid = base.type AND t.typtype <> 'd' JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE a.attrelid = %(oid)s ORDER BY a.attnum
"""
_RIGHTS = """
SELECT pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'),
  ARRAY(SELECT r FROM pg_catalog.unnest(%(rights)s::text[]) r WHERE NOT pg_catalog.has_table_privilege(c.oid, r))
FROM pg_catalog.pg_class c WHERE c.oid = %(oid)s
"""


@dataclass(frozen=True)
class PgTable:
    """One table, view, materialized view, partitioned or foreign table; `kind` is pg_class.relkind."""

    oid: int
    schema: str
    name: str
    kind: str

    @property
    def reference(self) -> str:
        """Its name in SQL."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def is_table(self) -> bool:
        """Whether rows are kept in it (or its partitions) and can be written."""
        return self.kind in ("r", "p")

    @property
    def is_lockable(self) -> bool:
        """Whether LOCK TABLE takes it."""
        return self.kind in ("r", "p", "v")


@dataclass(frozen=True)
class PgColumn:
    """A column; `kind` is what its values are, None if they have no form."""

    name: str
    declared: str
    kind: Kind | None
    nullable: bool
    scale: int | None
    in_primary_key: bool
    filled: bool

    @property
    def as_text(self) -> str:
        """The SQL expression whose output is the value as F2 writes it (under the session of `pgconnect`)."""
        column = quoted(self.name)
        if self.kind == "decimal":
            return f"pg_catalog.trim_scale({column})"
        if self.kind == "zoned":
            return f"({column} AT TIME ZONE 'UTC')::pg_catalog.text OPERATOR(pg_catalog.||) 'Z'"
        return column


def find_table(connection: psycopg.Connection[Any], table: str, where: str) -> PgTable:
    """The table a name means: as it is on the search path, else as `schema.table`, else in any case if only one fits.

    SourceError `source.table_missing` lists some there are.
    """
    found = [(PgTable(*row[:4]), bool(row[4])) for row in connection.execute(_TABLES)]
    for same in (_as_is, folded):
        wanted = same(table)
        visible = [it for it, on_path in found if on_path and same(it.name) == wanted]
        if len(visible) == 1:
            return visible[0]
        spelled = {wanted, *(same(name) for name in _unquoted(table))}
        qualified = [it for it, _ in found if same(f"{it.schema}.{it.name}") in spelled]
        if len(qualified) == 1:
            return qualified[0]
        plain = [it for it, on_path in found if on_path and same(it.name) in spelled]
        if len(plain) == 1:
            return plain[0]
    raise table_missing(table, (it.name if on_path else f"{it.schema}.{it.name}" for it, on_path in found), where)


def _as_is(name: str) -> str:
    return name


def _unquoted(table: str) -> Iterable[str]:
    """`"a b"."c"` without its quotes, if they are an SQL identifier's."""
    parts, rest = [], table
    while rest.startswith('"'):
        end = 1
        while (end := rest.find('"', end)) != -1 and rest[end + 1 : end + 2] == '"':
            end += 2
        if end == -1:
            return
        parts.append(rest[1:end].replace('""', '"'))
        rest = rest[end + 1 :]
        if not rest.startswith("."):
            break
        rest = rest[1:]
    if rest and parts and '"' not in rest:
        parts.append(rest)
        rest = ""
    elif not parts and (dot := table.find('."')) > 0 and table.endswith('"'):
        parts, rest = [table[:dot], table[dot + 2 : -1].replace('""', '"')], ""
    if parts and not rest:
        yield ".".join(parts)


def read_columns(connection: psycopg.Connection[Any], table: PgTable) -> list[PgColumn]:
    """The table's columns in their order, domains resolved to what they are made of."""
    columns = []
    for row in connection.execute(_COLUMNS, {"oid": table.oid}):
        (
            name,
            declared,
            type_name,
            schema,
            type_kind,
            typmod,
            not_null,
            default,
            identity,
            generated,
            own,
            key,
            own_null,
        ) = row
        kind: Kind | None = _KINDS.get(type_name) if schema == "pg_catalog" else None
        if type_kind == "e" or (type_name == "citext" and type_kind == "b"):
            kind = "text"
        # A numeric's modifier holds precision and scale; the scale is 11 bits with a sign since version 15.
        scale = ((typmod - 4) & 0x7FF ^ 0x400) - 0x400 if kind == "decimal" and typmod >= 4 else None
        filled = bool(default or identity or generated or own)
        columns.append(PgColumn(name, declared, kind, not (not_null or own_null), scale, key, filled))
    return columns


def check_rights(connection: psycopg.Connection[Any], table: PgTable, rights: list[str]) -> tuple[bool, list[str]]:
    """Whether the role may use the schema, and which of `rights` on the table it lacks."""
    row = connection.execute(_RIGHTS, {"oid": table.oid, "rights": rights}).fetchone()
    if row is None:
        raise SourceError("source.table_missing", "表已被删除", "the table was dropped", table.reference)
    return bool(row[0]), list(row[1])


def shape_of(columns: Iterable[PgColumn]) -> TableShape:
    """The columns as `catalog new` wants them."""
    return TableShape(
        tuple(
            ColumnShape(
                column.name, column.declared, None if column.kind is None else _SUGGESTED[column.kind], column.nullable,
                column.scale, column.in_primary_key,
            )
            for column in columns
        )
    )  # fmt: skip


def quoted(identifier: str) -> str:
    """An identifier for SQL, whatever it holds."""
    return '"' + identifier.replace('"', '""') + '"'
