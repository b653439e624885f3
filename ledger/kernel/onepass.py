"""Rows into entries in one pass over the columns, compiled (native/rows.c): for the rows whose values are plainly in normal form.

What it leaves is `ODD`, and the columns' way (`columns`, `canonical`) takes it; both are held equal to the reference.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ledger.catalog import Catalog, parse_catalog
from ledger.kernel.automaton import Automaton, automaton_of
from ledger.kernel.native import functions
from ledger.keys import CatalogKeys, ExchangeKey
from ledger.pattern import parse
from ledger.record import Unreadable, canonical, normal_row, record_key

DONE, SKIPPED, ODD = 0, 1, 2
"""States of a row: has its entry; was not to be looked at; is left to another way."""
_KINDS = {"text": 0, "enum": 0, "code": 1, "integer": 2, "decimal": 3, "date": 4, "datetime": 5}
_ROOM = 2 << 20
"""Bytes for two rows at once; a longer one is odd."""
_MAX_KEYS = 64


class _Field(ctypes.Structure):
    """`Field` of rows.c."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("valid", ctypes.c_void_p),
        ("first", ctypes.c_int64),
        ("before", ctypes.c_char_p),
        ("key_before", ctypes.c_char_p),
        ("before_size", ctypes.c_int64),
        ("key_before_size", ctypes.c_int64),
        ("kind", ctypes.c_int64),
        ("scale", ctypes.c_int64),
    )


class _Plan(ctypes.Structure):
    """`Plan` of rows.c."""

    _fields_ = (
        ("fields", ctypes.POINTER(_Field)),
        ("width", ctypes.c_int64),
        ("subject", ctypes.c_int64),
        ("offset_seconds", ctypes.c_int64),
        ("commitment_key", ctypes.c_char_p),
        ("key_key", ctypes.c_char_p),
        ("subject_key", ctypes.c_char_p),
        ("public_key", ctypes.c_char_p),
        ("automaton", ctypes.c_void_p),
        ("accepts", ctypes.c_void_p),
    )


class OnePass:
    """The compiled way for one catalog under one exchange key. Not for two threads: it keeps a buffer."""

    def __init__(self, catalog: Catalog, keys: CatalogKeys, library: Any) -> None:
        self._library = library
        self._names = sorted(catalog.by_name)
        self._fields = (_Field * len(self._names))()
        self._room = np.empty(_ROOM, np.uint8)
        head, key_head = f'{{"catalog":"{catalog.name}","record":{{', f'{{"catalog":"{catalog.id}","key":{{'
        for field, name in zip(self._fields, self._names, strict=True):
            declared = catalog.by_name[name]
            # Ids and names are [a-z0-9_-] only (F1), so they stand in the template as they are.
            field.before = f'{head}"{name}":'.encode()
            field.before_size = len(field.before)
            head = ","
            if name in catalog.key:
                field.key_before = f'{key_head}"{name}":'.encode()
                field.key_before_size = len(field.key_before)
                key_head = ","
            field.kind, field.scale = _KINDS[declared.type], declared.scale or 0
        self._plan = _Plan(
            fields=self._fields,
            width=len(self._names),
            subject=-1,
            offset_seconds=round(catalog.offset.total_seconds()),
            commitment_key=keys.commitment,
            key_key=keys.key,
            subject_key=keys.subject,
        )
        self._automaton: Automaton | None = None
        if catalog.subject is not None:
            self._plan.subject = self._names.index(catalog.subject.field)
            if catalog.subject.visibility == "public":
                self._plan.public_key = keys.public_subject
                self._automaton = _automaton(catalog)
        if self._automaton is not None:
            self._plan.automaton = self._automaton.table.ctypes.data
            self._plan.accepts = self._automaton.accepts.ctypes.data

    def run(self, columns: Mapping[str, Any], state: NDArray[np.uint8], entries: NDArray[np.uint8]) -> bool:
        """Fill in the entry of each row whose `state` is DONE, and set it to ODD where the row is left; False, and nothing is done, if a
        column is not pa.string(). `entries` is (n, 64), contiguous."""
        kept = []
        for field, name in zip(self._fields, self._names, strict=True):
            array = columns[name]
            array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
            if array.type != pa.string() or len(array) != len(state):
                return False
            kept.append(array)
            valid, offsets, data = array.buffers()
            if not len(array):
                return True
            # A buffer of nothing has no address; one that is never read does as well.
            field.data = offsets.address if data is None or not data.size else data.address
            field.offsets = offsets.address + 4 * array.offset
            field.valid = None if valid is None or not array.null_count else valid.address
            field.first = array.offset
        self._library.dz_entries(
            ctypes.byref(self._plan),
            ctypes.c_int64(len(state)),
            ctypes.c_void_p(state.ctypes.data),
            ctypes.c_void_p(entries.ctypes.data),
            ctypes.c_void_p(self._room.ctypes.data),
            ctypes.c_int64(_ROOM),
            0,
        )
        return True


def one_pass(catalog: Catalog, keys: CatalogKeys) -> OnePass | None:
    """The compiled way, where there is a library and the catalog is one it takes."""
    library = functions()
    if library is None or len(catalog.key) > _MAX_KEYS or not _is_right(library):
        return None
    subject = catalog.subject
    if (
        subject is not None
        and subject.visibility == "public"
        and subject.public_pattern is not None
        and _automaton(catalog) is None
    ):
        return None
    return OnePass(catalog, keys, library)


def _automaton(catalog: Catalog) -> Automaton | None:
    subject = catalog.subject
    return None if subject is None or subject.public_pattern is None else _of_text(subject.public_pattern)


@cache
def _of_text(text: str) -> Automaton | None:
    return automaton_of(parse(text))


_CHECKED = b"""id = "c"
version = 2
key = ["b", "a"]
subject = { field = "b", visibility = "public", public_pattern = "9[13][0-9A-Z]{2}" }
field = [
  { name = "b", type = "code" }, { name = "a", type = "integer" }, { name = "t", type = "text" },
  { name = "m", type = "decimal", scale = 2 }, { name = "d", type = "date" }, { name = "w", type = "datetime" },
]
"""
_ROWS = (
    ("91ab", "0", '许可\n"x"', "12.5", "2024/02/29", "2024-01-01 07:59:59"),
    ("9300", "-12", None, "-3.00", "2023-12-31", "2023-12-31T23:59:59.120000Z"),
    ("许可", "7", "", None, "", None),
    ("88aa", "8", "\\", "0.1", "20240229", "2024-02-29 08:00:00"),
)


@cache
def _is_right(library: Any) -> bool:
    """Whether it gives the reference's entries for a few rows; one that does not is not used."""
    catalog = parse_catalog(_CHECKED, "onepass")
    keys = ExchangeKey(bytes(range(32))).for_catalog(catalog)
    names = [field.name for field in catalog.fields]
    state, entries = np.zeros(len(_ROWS), np.uint8), np.zeros((len(_ROWS), 64), np.uint8)
    columns = {name: pa.array([row[at] for row in _ROWS], pa.string()) for at, name in enumerate(names)}
    OnePass(catalog, keys, library).run(columns, state, entries)
    for row, entry in zip(_ROWS, entries, strict=True):
        values = normal_row(catalog, dict(zip(names, row, strict=True)))
        if isinstance(values, Unreadable):
            return False
        tag = keys.key_tag(record_key(catalog, values))
        if entry.tobytes() != keys.entry(
            keys.subject_tag(values["b"]), tag, keys.commit(canonical(catalog, values))[2]
        ):
            return False
    return not state.any()
