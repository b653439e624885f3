"""From a sample to a catalog: guess, read the sample again as the guess says, and widen until every row can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ledger.catalog import CATALOG_ID, Catalog, Field, Subject
from ledger.drafting.guess import Column, Guess, guess_key, guess_type, has_form, is_uscc, looks_personal
from ledger.drafting.sample import Origin, Rows
from ledger.errors import InputError

PUBLIC_PATTERN = "9[13][0-9A-Z]{16}"
"""Enterprises and farmers' cooperatives; 92 points to a natural person and stays out (as in the built-in catalogs)."""


@dataclass(frozen=True)
class Drafted:
    """A catalog that reads its sample, and how each part of it was come by.

    key_from   `primary_key`, `unique`, `pair` or `none` (`guess.guess_key`)
    empty      fields without a value in the sample
    left_out   columns that are no field, with the reason's code: `type` (no normal form), `values` (some have none),
               `unnamed` (no heading; then the column's place, #1 the first)
    unreadable rows of the sample that no choice of types can read: too short, bytes that are not text …
    """

    catalog: Catalog
    columns: tuple[Column, ...]
    key_from: str
    empty: frozenset[str]
    left_out: tuple[tuple[str, str], ...]
    rows: int
    unreadable: int
    where: str


def draft(catalog_id: str, origin: Origin) -> Drafted:
    """Draft a catalog. InputError `draft.<rule>`: `id`, `no_header`, `no_columns`; what reading the file or table raises."""
    if not CATALOG_ID.fullmatch(catalog_id):
        raise InputError(
            "draft.id",
            f"目录 id“{catalog_id[:60]}”须形如 [a-z][a-z0-9_-]{{0,31}}",
            f"the catalog id {catalog_id[:60]!r} does not have the form [a-z][a-z0-9_-]{{0,31}}",
            "ID",
        )
    columns, left_out = origin.columns()
    guesses = {column.name: guess_type(column) for column in columns}
    personal = {column.name for column in columns if looks_personal(column)}
    while True:
        if not columns:
            raise InputError("draft.no_columns", "没有可用的列", "has no column to make a field of", origin.where)
        fields = [_field(column, guesses[column.name], column.name in personal) for column in columns]
        trial = Catalog(catalog_id, 1, (), tuple(fields))
        rows = origin.read(trial, {column.name: column.title for column in columns})
        bad = _unfit(fields, rows)
        if not bad:
            break
        # Each round widens a field or drops one, so the rounds come to an end.
        for column in list(columns):
            if column.name in bad:
                if guesses[column.name].type != "text" and "text" in column.fits:
                    guesses[column.name] = Guess("text")
                else:
                    columns = [it for it in columns if it is not column]
                    left_out.append((column.title, "values"))
    columns = [replace(column, texts=rows.fields[column.name]) for column in columns]
    odd = {row for row, _ in rows.refused}
    key, key_from = guess_key(_without(columns, odd), fields)
    fields = [replace(f, rules={"required": True}) if f.name in key else f for f in fields]
    return Drafted(
        Catalog(
            catalog_id,
            1,
            key,
            tuple(fields),
            _subject([c for c, f in zip(columns, fields, strict=True) if not f.personal]),
        ),
        tuple(columns),
        key_from,
        frozenset(name for name, guess in guesses.items() if guess.empty),
        tuple(left_out),
        rows.count,
        len(odd),
        origin.where,
    )


def _field(column: Column, guess: Guess, personal: bool) -> Field:
    title = column.title if column.title != column.name else None
    return Field(column.name, guess.type, guess.scale, title, personal)


def _unfit(fields: Sequence[Field], rows: Rows) -> Counter[str]:
    """Fields that some value of the sample does not fit into, with the number of rows."""
    bad = Counter(name for _, name in rows.refused if name in rows.fields)
    for field in fields:
        bad[field.name] += sum(not has_form(text, field) for text in rows.fields[field.name])
    return +bad


def _without(columns: Sequence[Column], odd: set[int]) -> list[Column]:
    """The columns without rows that nobody can read: their cells are null for that reason alone."""
    if not odd:
        return list(columns)
    return [
        replace(column, texts=[text for row, text in enumerate(column.texts) if row not in odd]) for column in columns
    ]


def _subject(columns: Sequence[Column]) -> Subject | None:
    """The first column of unified social credit codes, the one called so before others."""
    codes = sorted((column for column in columns if is_uscc(column)), key=lambda column: column.name != "uscc")
    return Subject(codes[0].name, "public", PUBLIC_PATTERN) if codes else None
