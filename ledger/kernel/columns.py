"""A column of text into normal form (formats F2).

Each type knows how to see, for a whole column at once, which values are in normal form already or can be brought
there by a fixed rewriting; whatever is left is given to `record.normal`, value by distinct value. So nothing here
decides what a normal form is: a value that looks odd is always the reference's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ledger.catalog import Catalog, Field
from ledger.kernel.text import Mask, TextColumn
from ledger.record import MAX_DIGITS, Refusal, normal

MAX_REMEMBERED = 65_536
"""Odd values whose normal form is kept from chunk to chunk, per field: dates of a century fit, and memory stays
bounded."""
_MAX_REMEMBERED_CHARS = 64
# Stands for any refusal: the row is read again by record.normal_row, which gives the reason.
_REFUSED = Refusal("refused", "", "")


class Normaliser:
    """Brings the values of one declared field into normal form, chunk after chunk."""

    def __init__(self, field: Field, catalog: Catalog) -> None:
        self.field = field
        self.catalog = catalog
        self._known: dict[str, str | Refusal | None] = {}

    def run(self, array: Any) -> tuple[Any, Mask | None]:
        """The normal forms of a pa.string() array, and which values have none (None if all have); those are null."""
        column = TextColumn(array)
        array, odd = self._quick(column)
        odd &= ~column.empty
        refused = None
        if odd.any():
            array, refused = self._refer(array, column, odd)
        if (column.empty & ~column.nulls).any():
            array = pc.if_else(pa.array(column.empty), pa.scalar(None, pa.string()), array)
        return array, refused

    def _quick(self, column: TextColumn) -> tuple[Any, Mask]:
        """The column rewritten where that is plain, and a mask of the values the reference must see in the original."""
        kind = self.field.type
        if kind == "integer":
            return column.array, ~_matching(column.array, _INTEGER)
        if kind == "decimal":
            return _decimals(column, self.field.scale or 0)
        if kind == "date":
            return column.array, ~_days(column)
        if kind == "datetime":
            return _instants(column, int(self.catalog.offset.total_seconds()))
        strays = column.strays()
        if kind != "code":
            return column.array, strays
        # ASCII is its own NFKC; a text that holds an ideograph never has an ASCII one and stays as it is.
        if column.all_ascii:
            return pc.ascii_upper(column.array), strays
        plain = column.ascii
        return (
            pc.if_else(pa.array(plain), pc.ascii_upper(column.array), column.array),
            strays | ~(plain | column.ideographic),
        )

    def _refer(self, array: Any, column: TextColumn, odd: Mask) -> tuple[Any, Mask | None]:
        rows = np.flatnonzero(odd)
        distinct = column.array.take(pa.array(rows)).dictionary_encode()
        forms = [self._normal(value) for value in distinct.dictionary.to_pylist()]
        bad = np.fromiter((isinstance(form, Refusal) for form in forms), np.bool_, len(forms))
        values = pa.array([None if isinstance(form, Refusal) else form for form in forms], pa.string())
        array = pc.replace_with_mask(array, pa.array(odd), values.take(distinct.indices))
        if not bad.any():
            return array, None
        refused = np.zeros(len(odd), np.bool_)
        refused[rows] = bad[distinct.indices.to_numpy()]
        return array, refused

    def _normal(self, value: str) -> str | Refusal | None:
        if value in self._known:
            return self._known[value]
        form: str | Refusal | None
        try:
            form = normal(value, self.field, self.catalog)
        except Refusal:
            form = _REFUSED
        if len(value) <= _MAX_REMEMBERED_CHARS:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[value] = form
        return form


_INTEGER = rf"\A(?:0|-?[1-9][0-9]{{0,{MAX_DIGITS - 1}}})\z"


def _matching(array: Any, pattern: str) -> Mask:
    found = pc.match_substring_regex(array, pattern).fill_null(False)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)


def _decimals(column: TextColumn, scale: int) -> tuple[Any, Mask]:
    """Numbers without leading zeros or excess digits, their fraction filled up to `scale`; a negative zero is odd."""
    array = column.array
    whole = rf"(?:0|-?[1-9][0-9]{{0,{MAX_DIGITS - scale - 1}}})"
    fraction = rf"\.[0-9]{{{scale}}}" if scale else ""
    odd = ~_matching(array, rf"\A{whole}{fraction}\z") & ~column.empty
    if not scale or not odd.any():
        return array, odd
    rows = np.flatnonzero(odd)
    values = array.take(pa.array(rows))
    filled = np.zeros(len(rows), np.bool_)
    for given in range(scale):
        fraction = rf"\.[0-9]{{{given}}}" if given else ""
        short = _matching(values, rf"\A{whole}{fraction}\z")
        if short.any():
            point = "" if given else "."
            longer = pc.binary_join_element_wise(values.filter(pa.array(short)), "0" * (scale - given), point)
            values = pc.replace_with_mask(values, pa.array(short), longer)
            filled |= short
    odd[rows] = ~filled
    mask = np.zeros(column.size, np.bool_)
    mask[rows] = True
    return pc.replace_with_mask(array, pa.array(mask), values), odd


_MONTH_DAYS = np.array([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] + [0] * 87)


def _real_days(digits: NDArray[np.int64]) -> tuple[Mask, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Whether (n, 8) digits YYYYMMDD are days of the years 0001-9999, and their years, months, days."""
    year = digits[:, 0] * 1000 + digits[:, 1] * 100 + digits[:, 2] * 10 + digits[:, 3]
    month = digits[:, 4] * 10 + digits[:, 5]
    day = digits[:, 6] * 10 + digits[:, 7]
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    # Month 0 and months past 12 have no days.
    real = (year > 0) & (day > 0) & (day <= _MONTH_DAYS[month]) & ~((month == 2) & (day == 29) & ~leap)
    return np.asarray(real), year, month, day


def _days(column: TextColumn) -> Mask:
    """Values that are a date in normal form."""
    good = np.zeros(column.size, np.bool_)
    rows = np.flatnonzero(column.lengths == 10)
    if not len(rows):
        return good
    text = column.matrix(rows, 10)
    rows, text = _kept(rows, text, (text[:, [4, 7]] == ord("-")).all(axis=1))
    digits = text[:, [0, 1, 2, 3, 5, 6, 8, 9]] - np.uint8(ord("0"))
    rows, digits = _kept(rows, digits, (digits < 10).all(axis=1))
    good[rows] = _real_days(digits.astype(np.int64))[0]
    return good


def _kept(rows: NDArray[np.int64], text: NDArray[np.uint8], keep: Any) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    return (rows, text) if keep.all() else (rows[keep], text[keep])


_INSTANT_DIGITS = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18]
_INSTANT_FORM = np.frombuffer(b"0000-00-00T00:00:00Z", np.uint8)


def _instants(column: TextColumn, offset_seconds: int) -> tuple[Any, Mask]:
    """Times to the second, naive or with Z, rewritten in UTC; years 0001 and 9999 are odd, for they may leave the
    calendar."""
    odd = ~column.empty
    done, values = [], []
    for width, offset in ((19, offset_seconds), (20, 0)):
        rows = np.flatnonzero(column.lengths == width)
        if not len(rows):
            continue
        text = column.matrix(rows, width)
        form = (
            ((text[:, 4] == ord("-")) | (text[:, 4] == ord("/")))
            & (text[:, 7] == text[:, 4])
            & ((text[:, 10] == ord(" ")) | (text[:, 10] == ord("T")))
            & (text[:, 13] == ord(":"))
            & (text[:, 16] == ord(":"))
        )
        if width == 20:
            form &= text[:, 19] == ord("Z")
        rows, text = _kept(rows, text, form)
        digits = text[:, _INSTANT_DIGITS] - np.uint8(ord("0"))
        rows, digits = _kept(rows, digits, (digits < 10).all(axis=1))
        good, written = _in_utc(digits.astype(np.int64), offset)
        done.append(rows[good])
        values.append(written[good])
    if not done:
        return column.array, odd
    rows = np.concatenate(done)
    matrix = np.concatenate(values)
    order = np.argsort(rows)
    odd[rows] = False
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * matrix.shape[1]
    texts = pa.StringArray.from_buffers(len(rows), pa.py_buffer(offsets), pa.py_buffer(matrix[order].tobytes()))
    mask = np.zeros(column.size, np.bool_)
    mask[rows] = True
    return pc.replace_with_mask(column.array, pa.array(mask), texts), odd


def _in_utc(digits: NDArray[np.int64], offset_seconds: int) -> tuple[Mask, NDArray[np.uint8]]:
    """Which (n, 14) digits YYYYMMDDhhmmss are a time, and all written in UTC, (n, 20) bytes."""
    good, year, month, day = _real_days(digits[:, :8])
    hour = digits[:, 8] * 10 + digits[:, 9]
    minute = digits[:, 10] * 10 + digits[:, 11]
    second = digits[:, 12] * 10 + digits[:, 13]
    good &= (hour < 24) & (minute < 60) & (second < 60) & (year > 1) & (year < 9999)
    months = (year - 1970) * 12 + month - 1
    days = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + day - 1
    seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset_seconds
    days, rest = np.divmod(seconds, 86_400)
    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    day = days - months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + 1
    years, month = np.divmod(months, 12)
    year = years + 1970
    parts = (
        year // 1000, year // 100 % 10, year // 10 % 10, year % 10,
        (month + 1) // 10, (month + 1) % 10, day // 10, day % 10,
        rest // 36_000, rest // 3600 % 10, rest // 600 % 6, rest // 60 % 10, rest // 10 % 6, rest % 10,
    )  # fmt: skip
    text = np.tile(_INSTANT_FORM, (len(digits), 1))
    text[:, _INSTANT_DIGITS] += np.stack(parts, axis=1).astype(np.uint8)
    return good, text
