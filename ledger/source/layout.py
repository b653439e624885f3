"""Which column of a table holds which field: the same rules whatever the database."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ledger.catalog import Catalog, FieldType
from ledger.errors import SourceError

MAX_LISTED = 20
"""Names of tables that a message shows."""

Kind = Literal["text", "integer", "decimal", "date", "timestamp", "zoned"]
"""What a column's values are, as far as F2 cares: `timestamp` is a local time, `zoned` an instant."""

NUMERIC: tuple[FieldType, ...] = ("text", "code", "enum", "integer", "decimal")
FITS: Mapping[Kind, tuple[FieldType, ...]] = {
    "text": ("text", "code", "enum", "integer", "decimal", "date", "datetime"),
    "integer": NUMERIC,
    "decimal": NUMERIC,
    "date": ("date", "text", "enum"),
    "timestamp": ("datetime", "date"),
    "zoned": ("datetime",),
}
"""The types of fields that values of a kind may go into (formats F2, `record.text_of`)."""
VERSION_KINDS: tuple[Kind, ...] = ("integer", "date", "timestamp", "zoned")

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


@dataclass(frozen=True)
class ColumnShape:
    """A column as the database declares it; `type` is the field type it suggests, None if F2 has no form for its
    values. `scale` is a decimal's, if declared."""

    name: str
    declared: str
    type: FieldType | None
    nullable: bool
    scale: int | None
    in_primary_key: bool


@dataclass(frozen=True)
class TableShape:
    """A table's columns in their order."""

    columns: tuple[ColumnShape, ...]


@dataclass(frozen=True)
class Layout:
    """Which column of which table holds what, all in the database's own spelling; `reference` names the table in SQL."""

    table: str
    reference: str
    is_view: bool
    columns: Mapping[str, str]
    batch_column: str | None
    version_column: str | None
    ignored: tuple[str, ...]


def resolve_columns(
    names: Sequence[str],
    catalog: Catalog,
    *,
    table: str,
    reference: str,
    is_view: bool,
    columns: Mapping[str, str],
    batch_column: str | None,
    row_version_column: str | None,
    where: str,
) -> Layout:
    """Find every field's column among `names`; SourceError `source.column_missing`, `source.column_shared` say which
    and what is there."""
    by_field: dict[str, str] = {}
    missing: list[str] = []
    for field in catalog.fields:
        wanted = columns.get(field.name, field.name)
        column = in_any_case(wanted, names)
        if column is None:
            missing.append(field.name if wanted == field.name else f"{field.name} = {wanted}")
            continue
        for other, taken in by_field.items():
            if taken == column:
                raise SourceError(
                    "source.column_shared",
                    f"字段 {other} 和 {field.name} 都对应列 {column}",
                    f"fields {other} and {field.name} both read column {column}",
                    where,
                )
        by_field[field.name] = column
    others: dict[str, str | None] = {}
    for member, wanted_column in (("batch_column", batch_column), ("row_version_column", row_version_column)):
        others[member] = None if wanted_column is None else in_any_case(wanted_column, names)
        if wanted_column is not None and others[member] is None:
            missing.append(f"{member} = {wanted_column}")
    if missing:
        raise SourceError(
            "source.column_missing",
            f'缺少列：{"、".join(missing)}；表中有：{", ".join(names)}。列名不同时请在 [source.{catalog.id}.columns] 写 字段 = "列名"',
            f'lacks the columns {", ".join(missing)}; it has: {", ".join(names)}. Where names differ, say field = "column" in '
            f"[source.{catalog.id}.columns]",
            where,
        )
    used = {*by_field.values(), *others.values()}
    ignored = tuple(name for name in names if name not in used)
    return Layout(
        table, reference, is_view, by_field, others["batch_column"], others["row_version_column"], ignored
    )  # fmt: skip


def in_any_case(wanted: str, names: Iterable[str]) -> str | None:
    """The name that is `wanted`, else the only one that differs from it in the case of ASCII letters alone."""
    names = list(names)
    if wanted in names:
        return wanted
    found = [name for name in names if folded(name) == folded(wanted)]
    return found[0] if len(found) == 1 else None


def folded(name: str) -> str:
    """A name without the case of its ASCII letters."""
    return name.translate(_LOWER)


def table_missing(table: str, there: Iterable[str], where: str) -> SourceError:
    """No table or view of that name; some there are."""
    names = sorted(there)
    more = f" … (+{len(names) - MAX_LISTED})" if len(names) > MAX_LISTED else ""
    listed = ", ".join(names[:MAX_LISTED]) + more or "-"
    return SourceError(
        "source.table_missing",
        f"没有表或视图 {table}；库中有：{listed}",
        f"there is no table or view {table}; the database has: {listed}",
        where,
    )


def check_kinds(
    layout: Layout, catalog: Catalog, kinds: Mapping[str, tuple[Kind | None, str]], cast: Mapping[FieldType, str], where: str
) -> None:  # fmt: skip
    """Refuse columns whose type F2 does not let into their field, by name.

    kinds  column -> what its values are (None: no form), and its type as the database writes it
    cast   field type -> the type to cast to, in this database's words

    SourceError `source.column_type`.
    """
    for name, column in layout.columns.items():
        field = catalog.by_name[name]
        _check_kind(
            column,
            kinds[column],
            f"字段 {name}（{field.type}）",
            f"field {name} ({field.type})",
            field.type,
            cast,
            where,
        )
    if layout.batch_column is not None:
        column = layout.batch_column
        _check_kind(column, kinds[column], "批次号（code）", "the batch number (code)", "code", cast, where)
    if layout.version_column is not None and kinds[layout.version_column][0] not in VERSION_KINDS:
        column, declared = layout.version_column, kinds[layout.version_column][1]
        raise SourceError(
            "source.column_type",
            f"列 {column} 的类型 {declared} 不能作 row_version_column；须为整数、日期或时间类型",
            f"column {column} of type {declared} cannot be the row_version_column: it must be an integer, a date or a timestamp",
            where,
        )


def _check_kind(
    column: str,
    found: tuple[Kind | None, str],
    zh: str,
    en: str,
    wanted: FieldType,
    cast: Mapping[FieldType, str],
    where: str,
) -> None:
    kind, declared = found
    if kind is not None and wanted in FITS[kind]:
        return
    raise SourceError(
        "source.column_type",
        f"列 {column} 的类型 {declared} 不能用于{zh}；请建视图并在其中转换：CAST({column} AS {cast[wanted]})，或更改列类型",
        f"column {column} of type {declared} does not go into {en}; read a view with CAST({column} AS {cast[wanted]}) in it, or "
        "change the column's type",
        where,
    )
