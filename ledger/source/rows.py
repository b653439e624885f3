"""What the readers of files share: columns of text become a chunk with its withdrawals, its refusals and its raw rows."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ledger.catalog import Catalog, Field
from ledger.kernel.chunk import Chunk, Delivered
from ledger.record import REASONS, Unreadable, normal, shown
from ledger.source.csvheader import Header

UPSERT, WITHDRAW = "upsert", "withdraw"
CELL = Field("cell", "enum")
"""Stands for the operation and reason columns, and for those that the catalog does not declare."""

_WIDE = "[\uff0b-\uff0f\uff10-\uff1a\u2212\u2010-\u2015]"
"""Digits and signs in full width, and dashes that look like a minus: what an input method leaves in numbers and dates."""
_PLAIN = str.maketrans(dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u2014\u2015", "-"))
_STRICT = {"integer": "integer.form", "decimal": "decimal.form", "date": "date.form", "datetime": "datetime.form"}


def assembled(
    catalog: Catalog,
    header: Header,
    columns: Sequence[Any],
    numbers: NDArray[np.int64],
    refused: dict[int, Unreadable],
    odd: Mapping[int, Sequence[str]],
) -> Chunk:
    """The chunk of some rows of a file; `columns` are pa.string(), one for each cell of the header, null where nothing
    could be read. Rows that are refused here are added to `refused`; `odd` is that of `Delivered`."""
    withdrawals: dict[int, str] = {}
    if header.operation is not None:
        reasons = None if header.reason is None else columns[header.reason]
        withdrawals = _withdrawals(catalog, columns[header.operation], reasons, refused)
    fields = {name: columns[place] for name, place in header.fields.items()}
    _refuse_wide(catalog, fields, refused, withdrawals)
    raw = [column.fill_null("") if column.null_count else column for column in columns]
    return Chunk(fields, numbers, refused, withdrawals, raw=Delivered(raw, odd))


def _refuse_wide(
    catalog: Catalog, fields: Mapping[str, Any], refused: dict[int, Unreadable], withdrawals: Mapping[int, str]
) -> None:
    """Full-width digits in numbers and dates have no normal form (F2): say so before the kernel does, and what to
    write instead."""
    for field in catalog.fields:
        if field.type not in _STRICT:
            continue
        column = fields[field.name]
        if pc.all(pc.string_is_ascii(column), min_count=0).as_py():
            continue
        wide = pc.match_substring_regex(column, _WIDE)
        for row in np.flatnonzero(wide.fill_null(False).to_numpy(zero_copy_only=False)).tolist():
            if row in refused or row in withdrawals:
                continue
            text = column[row].as_py()
            narrow = shown(field, unicodedata.normalize("NFKC", text).translate(_PLAIN))
            refused[row] = Unreadable(
                field.name,
                shown(field, text),
                _STRICT[field.type],
                f"含有全角数字或符号；请改为半角：{narrow}",
                f"holds full-width digits or signs; write them in ASCII: {narrow}",
            )


def _withdrawals(
    catalog: Catalog, operations: Any, reasons: Any | None, refused: dict[int, Unreadable]
) -> dict[int, str]:
    """Which rows withdraw, and why; rows with another operation than the two, or another reason, are added to
    `refused`."""
    coded = operations.dictionary_encode()
    known = [normal_or_raw(text, catalog) for text in coded.dictionary.to_pylist()]
    upserts = np.array([name == UPSERT for name in known] + [False], np.bool_)
    codes = coded.indices.fill_null(len(known)).to_numpy()
    found: dict[int, str] = {}
    for row in np.flatnonzero(~upserts[codes]).tolist():
        if row in refused:
            continue
        operation = known[codes[row]] if codes[row] < len(known) else ""
        reason = normal_or_raw(reasons[row].as_py() or "", catalog) if reasons is not None else ""
        if operation != WITHDRAW:
            refused[row] = Unreadable(
                "",
                operation[:60],
                "row.operation",
                f"操作 {operation[:60]!a} 未知：只有 {UPSERT} 和 {WITHDRAW}",
                f"operation {operation[:60]!a} is unknown; there are {UPSERT} and {WITHDRAW}",
            )
        elif reason not in REASONS:
            refused[row] = Unreadable(
                "",
                reason[:60],
                "row.reason",
                f"撤回原因 {reason[:60]!a} 不在列表中：{' '.join(REASONS)}",
                f"withdrawal reason {reason[:60]!a} is not one of {' '.join(REASONS)}",
            )
        else:
            found[row] = reason
    return found


def normal_or_raw(text: str, catalog: Catalog) -> str:
    """A cell of the operation or reason column without what F2 strips; with U+0000 it stays as it is, and is
    unknown."""
    return text if "\0" in text else normal(text, CELL, catalog) or ""


def wrong_width(size: int, width: int) -> Unreadable:
    """The refusal of a row that has more or fewer cells than the header."""
    code, zh = ("row.short", "少于") if size < width else ("row.long", "多于")
    return Unreadable(
        "", "", code, f"有 {size} 列，{zh}表头的 {width} 列", f"has {size} columns, the header has {width}"
    )


def strings(texts: Sequence[str | None]) -> Any:
    """A column of text."""
    return pa.array(texts, pa.string())
