"""Values of a Parquet column as text (F2, first paragraph), a whole column at a time where Arrow writes what `record.text_of` would."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ledger.catalog import Field
from ledger.record import Refusal, text_of
from ledger.source.compiled import is_utf8

Bad = dict[int, tuple[str, Refusal]]
"""What has no text: the value as shown, and why, by row."""

_UTF8 = Refusal("row.encoding", "不是 UTF-8 文字", "is not text in UTF-8")
_FINE = Refusal("value.fraction", "时间细于微秒，绝不舍入", "a time finer than a microsecond; never rounded")
_YEAR = Refusal("value.year", "年份不在 0001–9999", "its year is outside 0001-9999")
_MAX_SCALE = 6
"""Up to here Arrow writes decimals without an exponent."""


def is_text(type: Any) -> bool:
    """Whether Arrow calls it text."""
    return bool(pa.types.is_string(type) or pa.types.is_large_string(type) or pa.types.is_string_view(type))


def texts_of(column: Any, field: Field | None) -> tuple[Any, Bad]:
    """A column as pa.string(), and what of it has no text: value as shown and reason, by row."""
    if pa.types.is_dictionary(column.type):
        values, bad = texts_of(column.dictionary, field)
        texts = values.take(column.indices)
        if not bad:
            return texts, {}
        rows = column.indices.to_pylist()
        return texts, {row: bad[place] for row, place in enumerate(rows) if place in bad}
    type = column.type
    if pa.types.is_null(type):
        return column.cast(pa.string()), {}
    if is_text(type):
        return _utf8(column)
    if pa.types.is_integer(type):
        return column.cast(pa.string()), {}
    if pa.types.is_date(type) or pa.types.is_timestamp(type):
        return _moments(column, field)
    return _written(column, field)


def _utf8(column: Any) -> tuple[Any, Bad]:
    # Arrow takes what the file calls text at its word.
    if is_utf8(column):
        return column, {}
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    wide = pa.types.is_large_string(column.type)
    try:
        return column.cast(pa.large_binary() if wide else pa.binary()).cast(pa.string()), {}
    except pa.ArrowInvalid:
        texts: list[str | None] = []
        bad: Bad = {}
        for row, value in enumerate(column.cast(pa.large_binary() if wide else pa.binary()).to_pylist()):
            try:
                texts.append(None if value is None else value.decode())
            except UnicodeDecodeError:
                texts.append(None)
                bad[row] = value.decode(errors="surrogateescape"), _UTF8
        return pa.array(texts, pa.string()), bad


_MICRO = {"s": 1_000_000, "ms": 1000, "us": 1}
_FIRST = int(datetime(1, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_LAST = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) * 1_000_000 + 86_400_000_000


def _moments(column: Any, field: Field | None) -> tuple[Any, Bad]:
    """Dates and timestamps: those outside the calendar, or finer than a microsecond, have no text."""
    type = column.type
    if pa.types.is_date32(type):
        counts, unit = column.cast(pa.int32()).cast(pa.int64()), 86_400_000_000
    else:
        counts = column.cast(pa.int64())
        unit = 1000 if pa.types.is_date64(type) else _MICRO.get(type.unit, 0)
    raw = counts.fill_null(0).to_numpy(zero_copy_only=False)
    bad: Bad = {}
    if unit:
        out = (raw < -(-_FIRST // unit)) | (raw >= _LAST // unit)
    else:
        # Nanoseconds in 64 bits never leave the years 1677-2262.
        out = raw % 1000 != 0
        bad = {row: (str(int(raw[row])), _FINE) for row in np.flatnonzero(out).tolist()}
    if pa.types.is_date64(type):
        # Milliseconds that are no whole day are no day.
        out = out | (raw % 86_400_000 != 0)
    for row in np.flatnonzero(out).tolist():
        bad.setdefault(row, (str(int(raw[row])), _YEAR))
    if pa.types.is_timestamp(type):
        kept = pc.if_else(pa.array(out), pa.scalar(None, pa.int64()), counts)
        kept = pc.multiply(kept, unit) if unit else pc.divide(kept, 1000)
        column = kept.cast(pa.timestamp("us", type.tz and "UTC"))
    else:
        column = pc.if_else(pa.array(out), pa.scalar(None, type), column).cast(pa.date32())
    texts, more = _written(column, field)
    return texts, {**more, **bad}


def _written(column: Any, field: Field | None) -> tuple[Any, Bad]:
    """Decimals, dates and timestamps in microseconds."""
    type = column.type
    kind = field.type if field is not None else _own_type(type)
    texts = None
    if pa.types.is_decimal(type) and 0 <= type.scale <= _MAX_SCALE:
        texts = column.cast(pa.string())
        texts = _without_zeros(texts) if type.scale else texts
    elif pa.types.is_date(type):
        texts = column.cast(pa.string())
    elif pa.types.is_timestamp(type) and kind == "datetime":
        # Always with six digits behind the point.
        texts = _without_zeros(column.cast(pa.timestamp("us")).cast(pa.string()))
        if type.tz is not None:
            texts = pc.binary_join_element_wise(texts, "Z", "")
    return (texts, {}) if texts is not None else _by_value(column, field)


def _without_zeros(texts: Any) -> Any:
    return pc.ascii_rtrim(pc.ascii_rtrim(texts, "0"), ".")


def _by_value(column: Any, field: Field | None) -> tuple[Any, Bad]:
    """One value after the other, each different one once, by the reference (`record.text_of`)."""
    zoned = pa.types.is_timestamp(column.type) and column.type.tz is not None
    if zoned:
        column = column.cast(pa.timestamp("us"))
    coded = column.dictionary_encode()
    forms: list[str | None] = []
    why: dict[int, tuple[str, Refusal]] = {}
    for place, value in enumerate(coded.dictionary.to_pylist()):
        given = value.replace(tzinfo=UTC) if zoned else value
        try:
            forms.append(text_of(given, field.type if field is not None else _own_type(column.type)))
        except Refusal as refusal:
            forms.append(None)
            why[place] = str(given), refusal
    texts = pa.array(forms, pa.string()).take(coded.indices)
    rows = coded.indices.to_pylist() if why else []
    return texts, {row: why[place] for row, place in enumerate(rows) if place in why}


def _own_type(type: Any) -> Any:
    if pa.types.is_timestamp(type):
        return "datetime"
    return "date" if pa.types.is_date(type) else "decimal"
