"""Entries as numpy columns: their order, key tags that occur twice, and where a key tag stands.

Entries are (n, 64) uint8. Comparison is by big-endian 64-bit words, which is the order of the bytes; numpy's own
byte strings are never used, because they drop trailing NULs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ENTRY_BYTES = 64
TAG = slice(16, 32)


def words_of(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(n, 8k) bytes as (n, k) words that compare as the bytes do."""
    return np.ascontiguousarray(rows).view(">u8").astype(np.uint64)


def sort_entries(entries: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The order that makes `entries` ascend as bytes (F5): `entries[sort_entries(entries)]`. Equal entries keep
    their order."""
    # Subject tag and half of the key tag decide nearly always; only if they do not are all eight words compared.
    head = words_of(entries[:, :24])
    order = np.lexsort((head[:, 2], head[:, 1], head[:, 0]))
    head = head[order]
    if bool((head[1:] == head[:-1]).all(axis=1).any()):
        words = words_of(entries)
        order = np.lexsort(tuple(words[:, column] for column in range(7, -1, -1)))
    return order.astype(np.int64, copy=False)


def duplicate_tags(entries: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Groups of rows (indices into `entries`, ascending) that have the same key tag; the groups by their first row."""
    tags = words_of(entries[:, TAG])
    order = np.lexsort((tags[:, 1], tags[:, 0]))
    ordered = tags[order]
    same = (ordered[1:] == ordered[:-1]).all(axis=1)
    if not bool(same.any()):
        return []
    starts = np.flatnonzero(np.concatenate(([True], ~same)))
    ends = np.append(starts[1:], len(order))
    groups = [np.sort(order[start:end]) for start, end in zip(starts, ends, strict=True) if end - start > 1]
    return sorted(groups, key=lambda group: int(group[0]))


class EntryIndex:
    """Finds the row of a key tag among entries of which no two share one."""

    def __init__(self, entries: NDArray[np.uint8]) -> None:
        """Index `entries`, (n, 64); ValueError if a key tag occurs twice (ask `duplicate_tags` first)."""
        tags = words_of(entries[:, TAG])
        high, low = tags[:, 0], tags[:, 1]
        ascending = (high[1:] > high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] >= low[:-1]))
        order = np.arange(len(tags)) if bool(ascending.all()) else np.lexsort((low, high))
        self._rows = order.astype(np.int64, copy=False)
        self._high = high[order]
        self._low = low[order]
        if bool(((self._high[1:] == self._high[:-1]) & (self._low[1:] == self._low[:-1])).any()):
            raise ValueError("a key tag occurs twice")

    @classmethod
    def ascending(cls, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> EntryIndex:
        """The index of tags, in two words, of which each is above the one before it: the caller has seen to that."""
        index = cls.__new__(cls)
        index._rows, index._high, index._low = np.arange(len(high), dtype=np.int64), high, low
        return index

    def __len__(self) -> int:
        return len(self._rows)

    def lookup(self, tags: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The row of each tag, (n, 16) bytes, or -1 where no entry has it."""
        wanted = words_of(tags)
        found = np.full(len(wanted), -1, np.int64)
        if not len(self._rows) or not len(wanted):
            return found
        at = np.searchsorted(self._high, wanted[:, 0], "left")
        there = np.flatnonzero(at < len(self._high))
        there = there[self._high[at[there]] == wanted[there, 0]]
        same = self._low[at[there]] == wanted[there, 1]
        found[there[same]] = self._rows[at[there[same]]]
        # Two tags that agree in 64 bits: never by chance, so a plain search is quick enough.
        for i in there[~same].tolist():
            until = int(np.searchsorted(self._high, wanted[i, 0], "right"))
            inner = int(at[i] + np.searchsorted(self._low[at[i] : until], wanted[i, 1]))
            if inner < until and self._low[inner] == wanted[i, 1]:
                found[i] = self._rows[inner]
        return found
