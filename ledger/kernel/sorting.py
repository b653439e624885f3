"""Entries in order, key tags that occur twice, and where a key tag stands.

Entries are (n, 64) uint8. Compiled (native/sort.c) where it can be; else comparison is by big-endian 64-bit words, which is the order of the
bytes: numpy's own byte strings are never used, because they drop trailing NULs.
"""

from __future__ import annotations

import ctypes
import secrets
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ledger.kernel.native import functions

ENTRY_BYTES = 64
TAG = slice(16, 32)
_MAX_ROWS = 1 << 30
"""Places in a compiled table are 32 bits."""


@cache
def _library() -> Any:
    """The compiled library if it sorts and finds as numpy does, else None."""
    library = functions()
    if library is None:
        return None
    entries = np.zeros((60, 24), np.uint8)
    entries[:, 7] = np.arange(60) // 30
    entries[:, 8] = (np.arange(60) * 37 % 60) // 2
    entries[:, 23] = np.arange(60) * 11 % 60
    words = words_of(entries)
    right = _order(library, entries).tolist() == np.lexsort((words[:, 2], words[:, 1], words[:, 0])).tolist()
    tags = np.ascontiguousarray(entries[:, 8:])
    table = _table(library, tags)
    if not right or table is None or _table(library, np.concatenate([tags, tags[7:8]])) is not None:
        return None
    found = _found(table, tags, np.concatenate([tags[::-1], np.full((1, 16), 9, np.uint8)]))
    return library if found.tolist() == [*range(59, -1, -1), -1] else None


def words_of(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(n, 8k) bytes as (n, k) words that compare as the bytes do."""
    return np.ascontiguousarray(rows).view(">u8").astype(np.uint64)


def order_of(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The order that makes rows of (n, 8k) bytes ascend; equal rows keep theirs. A view of some columns is not copied."""
    library = _library()
    if library is None or rows.strides[1] != 1 or not len(rows):
        words = words_of(rows)
        return np.lexsort(tuple(words[:, column] for column in range(words.shape[1] - 1, -1, -1))).astype(
            np.int64, copy=False
        )
    return _order(library, rows)


def _order(library: Any, rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    count, width = rows.shape
    places = np.empty((2 * count, 2), np.uint64)
    order = np.empty(count, np.int64)
    library.dz_order(
        _at(rows),
        ctypes.c_int64(count),
        ctypes.c_int64(rows.strides[0]),
        ctypes.c_int64(0),
        ctypes.c_int64(width),
        _at(places),
        _at(order),
    )
    return order


def sort_entries(entries: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The order that makes `entries` ascend as bytes (F5): `entries[sort_entries(entries)]`. Equal entries keep
    their order."""
    return order_of(entries)


def duplicate_tags(entries: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Groups of rows (indices into `entries`, ascending) that have the same key tag; the groups by their first row."""
    library = _library()
    if library is not None and _table(library, entries[:, TAG]) is not None:
        return []
    tags = words_of(entries[:, TAG])
    order = order_of(entries[:, TAG])
    ordered = tags[order]
    same = (ordered[1:] == ordered[:-1]).all(axis=1)
    if not bool(same.any()):
        return []
    starts = np.flatnonzero(np.concatenate(([True], ~same)))
    ends = np.append(starts[1:], len(order))
    groups = [np.sort(order[start:end]) for start, end in zip(starts, ends, strict=True) if end - start > 1]
    return sorted(groups, key=lambda group: int(group[0]))


class TagIndex:
    """Finds the row of a key tag among tags, (n, 16), of which no two are the same. They are kept, and must not change."""

    def __init__(self, tags: NDArray[np.uint8]) -> None:
        """ValueError if a tag occurs twice (ask `duplicate_tags` first)."""
        self._tags = tags
        self._table: _Table | None = None
        self._words, self._rows = np.zeros((0, 2), np.uint64), np.zeros(0, np.int64)
        library = _library()
        if library is not None:
            self._table = _table(library, tags)
            if self._table is None:
                raise ValueError("a key tag occurs twice")
            return
        words = words_of(tags)
        self._rows = np.lexsort((words[:, 1], words[:, 0])).astype(np.int64, copy=False)
        self._words = words[self._rows]
        if bool((self._words[1:] == self._words[:-1]).all(axis=1).any()):
            raise ValueError("a key tag occurs twice")

    def __len__(self) -> int:
        return len(self._tags)

    def lookup(self, tags: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The row of each tag, (n, 16) bytes, or -1 where none is it."""
        found = np.full(len(tags), -1, np.int64)
        if not len(self._tags) or not len(tags):
            return found
        if self._table is not None:
            return _found(self._table, self._tags, tags)
        return self._search(words_of(tags), found)

    def _search(self, wanted: NDArray[np.uint64], found: NDArray[np.int64]) -> NDArray[np.int64]:
        high, low = self._words[:, 0], self._words[:, 1]
        at = np.searchsorted(high, wanted[:, 0], "left")
        there = np.flatnonzero(at < len(high))
        there = there[high[at[there]] == wanted[there, 0]]
        same = low[at[there]] == wanted[there, 1]
        found[there[same]] = self._rows[at[there[same]]]
        # Two tags that agree in 64 bits: never by chance, so a plain search is quick enough.
        for i in there[~same].tolist():
            until = int(np.searchsorted(high, wanted[i, 0], "right"))
            inner = int(at[i] + np.searchsorted(low[at[i] : until], wanted[i, 1]))
            if inner < until and low[inner] == wanted[i, 1]:
                found[i] = self._rows[inner]
        return found


class EntryIndex(TagIndex):
    """The same for the key tags of entries, (n, 64), which are kept and must not change."""

    def __init__(self, entries: NDArray[np.uint8]) -> None:
        super().__init__(entries[:, TAG])


@dataclass(frozen=True)
class _Table:
    """A table of places by tag, for `library`'s functions."""

    library: Any
    slots: NDArray[np.int32]
    shift: int
    factors: NDArray[np.uint64]


def _table(library: Any, tags: NDArray[np.uint8]) -> _Table | None:
    """None if a tag occurs twice."""
    if len(tags) > _MAX_ROWS:
        raise ValueError(f"more than {_MAX_ROWS} tags")
    bits = (2 * len(tags) + 1).bit_length()
    slots = np.full(1 << bits, -1, np.int32)
    factors = np.array([secrets.randbits(64) | 1, secrets.randbits(64) | 1], np.uint64)
    twice = library.dz_index(
        _at(tags), ctypes.c_int64(len(tags)), ctypes.c_int64(tags.strides[0]), _at(factors), 64 - bits, _at(slots)
    )
    return None if twice >= 0 else _Table(library, slots, 64 - bits, factors)


def _found(table: _Table, tags: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> NDArray[np.int64]:
    wanted = np.ascontiguousarray(wanted)
    found = np.empty(len(wanted), np.int64)
    table.library.dz_lookup(
        _at(tags), ctypes.c_int64(tags.strides[0]), _at(table.factors), table.shift, _at(table.slots), _at(wanted),
        ctypes.c_int64(len(wanted)), _at(found),
    )  # fmt: skip
    return found


def _at(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
