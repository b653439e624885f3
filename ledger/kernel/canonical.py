"""Columns in normal form into canonical bytes (formats F3): a fixed template filled row by row, for all rows at
once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ledger.catalog import Catalog
from ledger.kernel import native
from ledger.kernel.text import TextColumn

# The backslash first, or it would escape the others' escapes.
_ESCAPES = {"\\": "\\\\"} | {char: json.dumps(char)[1:-1] for char in ('"', *(chr(code) for code in range(0x20)))}


def records(catalog: Catalog, columns: Mapping[str, Any]) -> Any:
    """The canonical bytes of records: pa.binary(), a row for each row of `columns` (every declared field in normal
    form)."""
    names = sorted(catalog.by_name)
    return _filled(f'{{"catalog":"{catalog.name}","record":{{', names, columns, "}}")


def record_keys(catalog: Catalog, columns: Mapping[str, Any]) -> Any:
    """The record keys of the rows: pa.binary(); no key field may be null."""
    return _filled(f'{{"catalog":"{catalog.id}","key":{{', sorted(catalog.key), columns, "}}")


def _filled(head: str, names: Sequence[str], columns: Mapping[str, Any], tail: str) -> Any:
    # Catalog ids and field names are [a-z0-9_-] only (F1), so they stand in the template as they are.
    befores = [f'{head if not at else ","}"{name}":'.encode() for at, name in enumerate(names)]
    made = native.objects([(before, columns[name]) for before, name in zip(befores, names, strict=True)], tail.encode())
    if made is not None:
        return made
    parts: list[Any] = []
    literal = head
    for position, name in enumerate(names):
        literal += f'{"," if position else ""}"{name}":'
        value = _escaped(columns[name])
        if value.null_count:
            parts += [literal, pc.fill_null(pc.binary_join_element_wise('"', value, '"', ""), "null")]
            literal = ""
        else:
            parts += [f'{literal}"', value]
            literal = '"'
    return pc.binary_join_element_wise(*parts, literal + tail, "").cast(pa.binary())


def _escaped(array: Any) -> Any:
    column = TextColumn(array)
    if not len(column.data):
        return array
    present = [char for char in ("\\", '"') if char.encode() in column.bytes]
    low = column.data[column.data < 0x20]
    present += [chr(code) for code in np.unique(low).tolist()]
    for char in present:
        array = pc.replace_substring(array, char, _ESCAPES[char])
    return array
