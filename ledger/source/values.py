"""Columns of database values into what a chunk holds: text of F2, batch numbers in normal form, row versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ledger.catalog import Catalog, Field
from ledger.kernel.chunk import Chunk
from ledger.record import Refusal, Unreadable, normal, shown, text_of
from ledger.source.layout import NUMERIC, Kind, Layout

BATCH = "batch"
"""Where `Chunk.extra` has the batch column."""
ROW_VERSION = "row_version"
"""Where `Chunk.extra` has the row version: pa.int64(), an integer column's value, or microseconds since the epoch."""

Refused = dict[int, Unreadable]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}\z"
_TIME = r"\A[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z?\z"
_FORMS: Mapping[Kind, str] = {"date": _DAY, "timestamp": _TIME, "zoned": _TIME}
_YEAR = Refusal("value.year", "年份不在 0001–9999，或为无穷大", "its year is outside 0001-9999, or it is infinite")
_VERSION = Refusal(
    "value.type", "行版本须为 64 位整数、日期或时间", "a row version is an integer of 64 bits, a date or a timestamp"
)


def texts_of(
    values: Sequence[Any],
    field: Field,
    refused: Refused,
    text: Callable[[Any, Field], str | None] | None = None,
) -> Any:
    """A column of Python values as text, null where it has none; rows it cannot be had for are added to `refused`, the
    first field first. `text` makes the text of one value; default: `record.text_of`."""
    if set(map(type, values)) <= {int, type(None)} and field.type in NUMERIC:
        try:
            return pa.array(values, pa.int64()).cast(pa.string())
        except (OverflowError, pa.ArrowInvalid):
            # A number past 64 bits: written out one by one.
            pass
    make = text or _text
    texts: list[str | None] = []
    for row, value in enumerate(values):
        try:
            texts.append(make(value, field))
        except Refusal as refusal:
            texts.append(None)
            refuse(refused, row, field, value, refusal)
    # A lone surrogate is no text that Arrow takes; only a driver that escapes damaged bytes makes one.
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return _without_surrogates(texts, field, refused)


def _text(value: object, field: Field) -> str | None:
    return text_of(value, field.type)


def _without_surrogates(texts: list[str | None], field: Field, refused: Refused) -> Any:
    for row, text in enumerate(texts):
        if text is not None and any("\ud800" <= char <= "\udfff" for char in text):
            texts[row] = None
            refuse(refused, row, field, text, Refusal("row.encoding", "不是 UTF-8 文字", "is not text in UTF-8"))
    return pa.array(texts, pa.string())


def utf8_of(column: Any, field: Field, refused: Refused) -> Any:
    """A pa.binary() column as text; rows whose bytes are not UTF-8 are refused. Text stays what it is."""
    if column.type == pa.string():
        return column
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        for row, value in enumerate(column.to_pylist()):
            try:
                texts.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                texts.append(None)
                seen = value.decode(errors="surrogateescape")
                refuse(refused, row, field, seen, Refusal("row.encoding", "不是 UTF-8 文字", "is not text in UTF-8"))
        return pa.array(texts, pa.string())


def checked(column: Any, kind: Kind, field: Field, refused: Refused) -> Any:
    """A column that a server wrote as text, without what F2 has no form for: infinities, NaN, years it does not know.
    Empty is null."""
    if kind in _FORMS:
        good, why = pc.match_substring_regex(column, _FORMS[kind]), _YEAR
    elif kind == "decimal":
        good = pc.match_substring_regex(column, r"\A-?[0-9]")
        why = Refusal("value.number", "NaN 或无穷大没有规范形式", "NaN and infinities have no normal form")
    else:
        return column
    empty = pc.equal(pc.binary_length(column), 0)
    bad = pc.fill_null(pc.and_(pc.invert(good), pc.invert(empty)), fill_value=False)
    if not pc.any(bad).as_py():
        return column
    for row in np.flatnonzero(bad.to_numpy(zero_copy_only=False)).tolist():
        refuse(refused, row, field, column[row].as_py(), why)
    return pc.if_else(bad, pa.scalar(None, pa.string()), column)


def normals_of(texts: Any, field: Field, catalog: Catalog, refused: Refused) -> Any:
    """A column of text in the normal form of `field`; rows without one are refused."""
    coded = texts.dictionary_encode()
    forms: list[str | None] = []
    bad: dict[int, Refusal] = {}
    for place, text in enumerate(coded.dictionary.to_pylist()):
        try:
            forms.append(normal(text, field, catalog))
        except Refusal as refusal:
            forms.append(None)
            bad[place] = refusal
    if bad:
        for row, place in enumerate(coded.indices.to_pylist()):
            if place in bad:
                refuse(refused, row, field, texts[row].as_py(), bad[place])
    return pa.array(forms, pa.string()).take(coded.indices)


def versions_of(texts: Any, kind: Kind, column: str, catalog: Catalog, refused: Refused) -> Any:
    """Row versions out of a column of text: an integer itself; a date or time as microseconds since the epoch, a local
    one being the catalog's local time (F2). Null where empty; what is no version refuses its row."""
    field = Field(column, "datetime" if kind in _FORMS else "integer")
    texts = checked(texts, kind, field, refused)
    plain = pc.if_else(pc.equal(pc.binary_length(texts), 0), pa.scalar(None, pa.string()), texts)
    try:
        if kind == "integer":
            return plain.cast(pa.int64())
        # Arrow reads a time without zone only; these are in UTC where they bear a Z.
        micros = pc.replace_substring(plain, "Z", "").cast(pa.timestamp("us")).cast(pa.int64())
    except pa.ArrowInvalid:
        return pa.array(
            [_version(text, kind, field, catalog, refused, row) for row, text in enumerate(plain.to_pylist())], pa.int64()
        )  # fmt: skip
    ahead = timedelta(0) if kind == "zoned" else catalog.offset
    return pc.subtract(micros, ahead // timedelta(microseconds=1))


def version_of(text: str | None, catalog: Catalog) -> int | None:
    """Microseconds since the epoch of a date or time in any form F2 reads, None of null; Refusal if it is neither."""
    try:
        form = normal(text, Field("", "datetime"), catalog)
    except Refusal:
        form = normal(f"{normal(text, Field('', 'date'), catalog)} 00:00", Field("", "datetime"), catalog)
    return None if form is None else (datetime.fromisoformat(form) - _EPOCH) // timedelta(microseconds=1)


def _version(text: str | None, kind: Kind, field: Field, catalog: Catalog, refused: Refused, row: int) -> int | None:
    if text is None:
        return None
    try:
        number = int(text) if kind == "integer" else version_of(text, catalog)
    except (Refusal, ValueError):
        number = None
    if number is None or not -(2**63) <= number < 2**63:
        refuse(refused, row, field, text, _VERSION)
        return None
    return number


def refuse(refused: Refused, row: int, field: Field, value: object, why: Refusal) -> None:
    """Refuse a row for a value, unless it is refused already."""
    if row not in refused:
        seen = value.decode(errors="surrogateescape") if isinstance(value, bytearray) else value
        refused[row] = Unreadable(field.name, shown(field, seen), why.code, why.zh, why.en)


def chunk_of(
    columns: Sequence[Any],
    names: Sequence[str],
    layout: Layout,
    catalog: Catalog,
    first_number: int,
    make: Callable[[Any, str, Field, Refused], Any],
    make_version: Callable[[Any, str, Refused], Any],
) -> Chunk:
    """A chunk of columns as selected: the batch and row version columns, if there are any, then the fields `names`.

    `make` turns values of the column named into text, `make_version` into integers.
    """
    refused: Refused = {}
    extra: dict[str, Any] = {}
    rest = list(columns)
    rows = len(rest[-1])
    if layout.batch_column is not None:
        field = Field(layout.batch_column, "code")
        extra[BATCH] = normals_of(make(rest.pop(0), field.name, field, refused), field, catalog, refused)
    if layout.version_column is not None:
        extra[ROW_VERSION] = make_version(rest.pop(0), layout.version_column, refused)
    fields = {
        name: make(values, layout.columns[name], catalog.by_name[name], refused)
        for name, values in zip(names, rest, strict=True)
    }
    return Chunk(fields, np.arange(first_number, first_number + rows, dtype=np.int64), refused, extra=extra)


def selected(layout: Layout, names: Sequence[str]) -> list[str]:
    """The columns `chunk_of` wants, in its order."""
    extra = [column for column in (layout.batch_column, layout.version_column) if column is not None]
    return [*extra, *(layout.columns[name] for name in names)]
