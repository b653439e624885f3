"""Which column of a file holds which field (formats F2, last paragraph), the operation and the reason (design
section 7)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ledger.catalog import Catalog, Field
from ledger.errors import InputError
from ledger.record import UNSAFE, normal

DEFAULT_OPERATION = "operation"
REASON = "reason"
LOOKED_AT = 20
"""Rows below a header that does not fit which are tried as one."""


@dataclass(frozen=True)
class Header:
    """The header of a file: its cells as delivered, and which column (from 0) is what.

    `fields` has every declared field; `operation` and `reason` are None where the file has none; `ignored` names the
    rest.
    """

    cells: tuple[str, ...]
    fields: Mapping[str, int]
    operation: int | None
    reason: int | None
    ignored: tuple[str, ...]


def resolve_header(
    catalog: Catalog,
    cells: Sequence[str],
    operation_column: str | None,
    where: str,
    below: Iterable[tuple[int, Sequence[str]]] = (),
) -> Header:
    """Find every declared field by its name, else by its title, after NFC and strip.

    `operation_column`: None means `operation` if the file has it; a name must be there; empty means the file has
    none. A `reason` column counts only beside an operation column. InputError `csv.<rule>`, whatever the file's format:
    `header_repeated`, `column_missing`, `column_shared`, `column_twice`, `operation_column`.

    `below` gives the next rows with their numbers: the refusal says which of them would fit, because a title line may
    stand above the header.
    """
    try:
        return _resolve(catalog, cells, operation_column, where)
    except InputError as error:
        if error.code not in ("csv.column_missing", "csv.header_repeated"):
            raise
        number = _fitting(catalog, operation_column, below)
        if number is None:
            raise
        raise InputError(
            error.code,
            f"{error.zh}。表头似乎在第 {number} 行：请加 --header-row {number}（收件箱中的文件：[source.{catalog.id}.file] header_row = {number}）",
            f"{error.en}. The header seems to be in row {number}: say --header-row {number} (for files in the inbox: [source.{catalog.id}.file] header_row = {number})",
            where,
        ) from error


def _fitting(catalog: Catalog, operation_column: str | None, below: Iterable[tuple[int, Sequence[str]]]) -> int | None:
    for number, cells in below:
        try:
            _resolve(catalog, cells, operation_column, "")
        except InputError:
            continue
        return number
    return None


def _resolve(catalog: Catalog, cells: Sequence[str], operation_column: str | None, where: str) -> Header:
    names = [_name_of(cell, catalog) for cell in cells]
    _no_repeats(names, where)
    places = {name: place for place, name in enumerate(names) if name}
    fields = _fields(catalog, places, where)
    operation = _operation(operation_column, places, catalog, where)
    by_place = {place: name for name, place in fields.items()}
    reason = places.get(REASON) if operation is not None else None
    if operation is not None and operation in by_place:
        raise InputError(
            "csv.operation_column",
            f"列 {names[operation]} 既是目录字段 {by_place[operation]}，又是操作列；请用 --operation-column 指明操作列"
            "（没有操作列则给空名称）",
            f"column {names[operation]} is both field {by_place[operation]} of the catalog and the operation "
            "column; say with --operation-column which column holds the operation (an empty name: none)",
            where,
        )
    if reason is not None and reason in by_place:
        raise InputError(
            "csv.reason_column",
            f"列 {REASON} 既是目录字段 {by_place[reason]}，又是撤回原因；请把该字段的列改用目录中的标题作列名",
            f"column {REASON} is both field {by_place[reason]} of the catalog and the reason of withdrawals; "
            "head the field's column with its title instead",
            where,
        )
    known = {*fields.values(), operation, reason}
    ignored = tuple(name or f"#{place + 1}" for place, name in enumerate(names) if place not in known)
    return Header(tuple(cells), fields, operation, reason, ignored)


def _name_of(text: str, catalog: Catalog) -> str:
    # A data row that is only tried as a header may hold what no name can: it is then no name.
    return "" if UNSAFE.search(text) else normal(text, Field("header", "text"), catalog) or ""


def _no_repeats(names: Sequence[str], where: str) -> None:
    for place, name in enumerate(names):
        first = names.index(name)
        if first != place:
            zh, en = ("同一列名", "one and the same name") if name else ("空列名", "an empty name")
            raise InputError(
                "csv.header_repeated",
                f"表头第 {first + 1} 列和第 {place + 1} 列都是{zh}",
                f"columns {first + 1} and {place + 1} of the header both have {en}",
                where,
            )


def _fields(catalog: Catalog, places: Mapping[str, int], where: str) -> dict[str, int]:
    found: dict[str, int] = {}
    missing: list[Field] = []
    for field in catalog.fields:
        title = _name_of(field.title or "", catalog)
        # A column that bears another field's name is that field's, whatever titles say.
        titled = None if not title or title in catalog.by_name else places.get(title)
        named = places.get(field.name)
        if named is not None and titled is not None:
            raise InputError(
                "csv.column_twice",
                f"字段 {field.name} 有两列：{field.name} 和 {title}",
                f"field {field.name} has two columns: {field.name} and {title}",
                where,
            )
        place = named if named is not None else titled
        if place is None:
            missing.append(field)
            continue
        for other, taken in found.items():
            if taken == place:
                raise InputError(
                    "csv.column_shared",
                    f"字段 {other} 和 {field.name} 都对应列 {title}",
                    f"fields {other} and {field.name} both claim column {title}",
                    where,
                )
        found[field.name] = place
    if missing:
        zh = "、".join(f"{field.name}（{field.title}）" if field.title else field.name for field in missing)
        en = ", ".join(f"{field.name} ({field.title})" if field.title else field.name for field in missing)
        there = _there(catalog, places)
        raise InputError(
            "csv.column_missing",
            f"缺少目录 {catalog.name} 声明的列：{zh}；文件中有：{there}",
            f"lacks columns that {catalog.name} declares: {en}; the file has: {there}",
            where,
        )
    return found


def _there(catalog: Catalog, places: Mapping[str, int]) -> str:
    """The columns there are, as far as they may be shown: a file without a header has a record there."""
    declared = {name for field in catalog.fields for name in (field.name, _name_of(field.title or "", catalog))}
    known = [name for name in places if name in {*declared, DEFAULT_OPERATION, REASON}]
    others = len(places) - len(known)
    return ", ".join([*known, f"+{others}"] if others else known) or "-"


def _operation(wanted: str | None, places: Mapping[str, int], catalog: Catalog, where: str) -> int | None:
    if wanted is None:
        return places.get(DEFAULT_OPERATION)
    if not wanted:
        return None
    wanted = _name_of(wanted, catalog)
    if wanted not in places:
        raise InputError(
            "csv.operation_column",
            f"没有操作列 {wanted}；文件中有：{_there(catalog, places)}",
            f"there is no operation column {wanted}; the file has: {_there(catalog, places)}",
            where,
        )
    return places[wanted]
