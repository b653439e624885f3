"""Which records can cross from one series into the next: those whose row verifies under the old and can be read under the new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ledger.batch.book import Book, StreamLedger
from ledger.batch.history import Bytes2D
from ledger.batch.joint import Joint
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel, Result
from ledger.kernel.sorting import TAG, sort_entries
from ledger.keys import CatalogKeys
from ledger.progress import watched
from ledger.record import open_canonical

Mask = npt.NDArray[np.bool_]
_ARCHIVED_ROWS = 8192

MISSING, ALTERED, REPEATED, UNREADABLE, ERASED = "missing", "altered", "repeated", "unreadable", "erased"
REASONS = (MISSING, ALTERED, REPEATED, UNREADABLE, ERASED)
"""Why a live record of the old series is not carried: it has no row; no row of it verifies; it has several; its row cannot be read under
the new version, or has a key there that another row has, too; its plaintext was erased."""


@dataclass(frozen=True)
class Rows:
    """The rows of a table under two series, side by side: row i of each array is the same row.

    `then` and `now` are (n,64) entries; where a row cannot be read all but its key tag is zero, and where its key cannot be told the tag
    is, too. `then_read`, `then_keyed`, `now_read`, `now_keyed` say which.
    """

    then: Bytes2D
    then_read: Mask
    then_keyed: Mask
    now: Bytes2D
    now_read: Mask
    now_keyed: Mask

    def __len__(self) -> int:
        return len(self.then)

    def alone(self) -> Mask:
        """The rows that can be read under the new series and share their key there with no other row."""
        return self.now_read & _alone(self.now, self.now_keyed)


@dataclass(frozen=True)
class Crossing:
    """`rows` tells which of the rows cross, `entries` (n,64) what they are in the new series, ascending. `left` gives for every live key
    tag of the old series that does not cross the reason, one of REASONS."""

    rows: Mask
    entries: Bytes2D
    left: Mapping[bytes, str] = field(repr=False)


def read_rows(joint: Joint, then: CatalogKeys, now: CatalogKeys) -> Rows:
    """All rows of a read, under both series."""
    old, new = Kernel(then.catalog, then), Kernel(now.catalog, now)
    parts: list[tuple[Bytes2D, Mask, Mask, Bytes2D, Mask, Mask]] = []
    for chunk in watched("衔接", "reading for the bridge", joint.table.scan(), joint.table.about_rows):
        size = len(chunk)
        before = _whole(old.run(joint.part(chunk, then.catalog)), size)
        parts.append((*before, *_whole(new.run(joint.part(chunk, now.catalog)), size)))
    if not parts:
        parts = [(*_whole(None, 0), *_whole(None, 0))]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Rows(*columns)


def cross(ledger: StreamLedger, rows: Rows) -> Crossing:
    """Which rows cross from the series that `ledger` is."""
    history = ledger.history
    keys = np.full(len(rows), -1, np.int64)
    keys[rows.then_keyed] = history.lookup(np.ascontiguousarray(rows.then[rows.then_keyed][:, TAG]))
    known = np.flatnonzero(keys >= 0)
    verified = np.zeros(len(rows), np.bool_)
    verified[known] = history.matches(keys[known], rows.then[known, TAG.stop :]) & history.live[keys[known]]
    verified &= rows.then_read
    count = np.bincount(keys[known], minlength=len(history))
    erased = np.array([history.find(tag) for tag in ledger.erased], np.int64)
    gone = np.zeros(len(history), np.bool_)
    gone[erased[erased >= 0]] = True
    single = np.zeros(len(rows), np.bool_)
    single[known] = (count[keys[known]] == 1) & ~gone[keys[known]]
    carried = verified & single & rows.alone()
    crossed = np.zeros(len(history), np.bool_)
    crossed[keys[carried]] = True
    fit = np.zeros(len(history), np.bool_)
    fit[keys[verified]] = True
    left: dict[bytes, str] = {}
    for key in np.flatnonzero(history.live & ~crossed).tolist():
        if gone[key]:
            why = ERASED
        elif not count[key]:
            why = MISSING
        elif count[key] > 1:
            why = REPEATED
        else:
            why = UNREADABLE if fit[key] else ALTERED
        left[history.tag(key)] = why
    entries = rows.now[carried]
    return Crossing(carried, entries[sort_entries(entries)], left)


@dataclass(frozen=True)
class ArchivedRows:
    """The live versions of a series out of our own archives, as rows: what was sent as files stands in no table."""

    book: Book
    ledger: StreamLedger
    keys: CatalogKeys
    names: Sequence[str]
    among: Mask | None = None

    @property
    def where(self) -> str:
        """The stream."""
        return self.ledger.stream.catalog_id

    @property
    def ignored(self) -> Sequence[str]:
        """None."""
        return ()

    @property
    def notes(self) -> Sequence[tuple[str, str]]:
        """None."""
        return ()

    def about_rows(self) -> int | None:
        """The live keys."""
        live = self.ledger.history.live
        return int(np.count_nonzero(live if self.among is None else live & self.among))

    def scan(self) -> Iterator[Chunk]:
        """A row for each live key (of those marked `among`) whose plaintext is archived; fields of other versions are null."""
        history = self.ledger.history
        live = history.live if self.among is None else history.live & self.among
        latest = [history.latest(key) for key in np.flatnonzero(live).tolist()]

        # By frame: the reader keeps the frame it read last.
        frames = [int(self.ledger.known[it.batch].entries.frames[it.index]) for it in latest]
        order = sorted(range(len(latest)), key=lambda at: (latest[at].batch, frames[at]))
        rows: list[Mapping[str, str | None]] = []
        start = 1
        with self.book.opener(self.ledger.known, self.keys.catalog, self.keys) as open_version:
            for at in order:
                if latest[at].entry[TAG] in self.ledger.erased:
                    continue
                data = open_version(latest[at])
                if data is None:
                    continue
                rows.append(open_canonical(self.keys.catalog, data).values)
                if len(rows) == _ARCHIVED_ROWS:
                    yield self._chunk(rows, start)
                    start, rows = start + len(rows), []
        if rows:
            yield self._chunk(rows, start)

    def joint(self) -> Joint:
        """The same, for every version whose fields are among `names`."""
        return Joint(self, {name: place for place, name in enumerate(self.names)}, ())

    def _chunk(self, rows: Sequence[Mapping[str, str | None]], start: int) -> Chunk:
        fields = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in self.names}
        return Chunk(fields, np.arange(start, start + len(rows), dtype=np.int64))


def _whole(result: Result | None, size: int) -> tuple[Bytes2D, Mask, Mask]:
    entries = np.zeros((size, 64), np.uint8)
    read, keyed = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    if result is not None:
        entries[result.rows] = result.entries
        read[result.rows] = keyed[result.rows] = True
        for row, (tag, _) in result.refused_keys.items():
            entries[row, TAG] = np.frombuffer(tag, np.uint8)
            keyed[row] = True
    return entries, read, keyed


def _alone(entries: Bytes2D, keyed: Mask) -> Mask:
    """Rows whose key tag can be told and is no other row's."""
    alone = np.zeros(len(entries), np.bool_)
    tags = np.ascontiguousarray(entries[keyed][:, TAG]).view("V16").reshape(-1)
    _, places, counts = np.unique(tags, return_inverse=True, return_counts=True)
    alone[keyed] = counts[places] == 1
    return alone
