"""What landed of a delivery: which rows of the source belong to a batch (design section 4).

With a batch column, the rows that carry the batch's number. Without one, rows whose key is in the delivery, plus rows first seen
since the last receive. Keys that a later batch of the stream carries are left to that batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ledger.batch.build import result_of
from ledger.batch.column import batch_mask
from ledger.batch.history import History
from ledger.catalog import Catalog
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel, Result
from ledger.kernel.sorting import TAG, EntryIndex
from ledger.keys import CatalogKeys
from ledger.progress import watched
from ledger.source.source import Source
from ledger.store.archive import among

Tags = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Expected:
    """What is known before the source is read.

    `delivered` are the entries of the delivery (the verified ones, else those of the file), None where neither is known. `stream`
    is the fold of all known batches, `later` of those after this one. `baseline` holds the tags (n,16) of rows no batch knew at the
    last receive, None if there was none; `held` the entries (n,64) of our last revision. Rows of the key tags `apart` stand under an
    older series.
    """

    number: str
    batch_column: bool
    delivered: npt.NDArray[np.uint8] | None
    withdrawn: npt.NDArray[np.bool_] | None
    stream: History
    later: History
    baseline: Tags | None
    held: npt.NDArray[np.uint8] | None
    apart: frozenset[bytes] = frozenset()


@dataclass
class Landing:
    """One reading of the source. `rows` yields the landed part of each chunk; the other members are complete afterwards.

    `unknown` gathers the tags of all rows that no batch knows (the next baseline); `present` tells, for each delivered entry,
    whether its key is in the source; `superseded` whether a later batch carries it.
    """

    expected: Expected
    kernel: Kernel
    present: npt.NDArray[np.bool_]
    superseded: npt.NDArray[np.bool_]
    delivered_index: EntryIndex | None
    baseline_index: EntryIndex | None
    held_index: EntryIndex | None
    unknown: list[Tags] = field(default_factory=list)

    def rows(self, source: Source) -> Iterator[tuple[Chunk, Result]]:
        """The landed rows, chunk by chunk; unreadable ones stand in the result's `refused`."""
        chunks = watched("查看入库情况", "looking at what landed", source.scan(), source.about_rows)
        for chunk, result in self.kernel.run_all(chunks):
            keep = self._landed(chunk, result)
            yield chunk, result_of(result, keep)

    def unknown_tags(self) -> Tags:
        """All of `unknown`, (n,16)."""
        return np.concatenate([np.zeros((0, 16), np.uint8), *self.unknown])

    def _landed(self, chunk: Chunk, result: Result) -> npt.NDArray[np.bool_]:
        expected = self.expected
        keep = np.zeros(len(chunk), np.bool_)
        tags = np.ascontiguousarray(result.entries[:, TAG])
        refused = [row for row in result.refused if row in result.refused_keys]
        if refused:
            extra = np.frombuffer(b"".join(result.refused_keys[row][0] for row in refused), np.uint8).reshape(-1, 16)
            tags = np.concatenate([tags, extra])
        rows = np.concatenate([result.rows, np.array(refused, np.int64)])
        unknown = (expected.stream.lookup(tags) < 0) & ~among(tags, expected.apart)
        inside = np.zeros(len(tags), np.bool_)
        if self.delivered_index is not None:
            at = self.delivered_index.lookup(tags)
            self.present[at[at >= 0]] = True
            inside = at >= 0
            unknown &= ~inside
        self.unknown.append(tags[unknown])
        if expected.batch_column:
            keep = batch_mask(chunk, expected.number)
            keep[rows[inside & self._withdrawn_at(tags)]] = True
        else:
            keep[rows[inside | (unknown & self._first_seen(tags))]] = True
        keep[rows[expected.later.lookup(tags) >= 0]] = False
        return keep

    def _withdrawn_at(self, tags: Tags) -> npt.NDArray[np.bool_]:
        # A row whose key this batch withdraws belongs to it whatever batch it carries: it should be gone.
        marked = np.zeros(len(tags), np.bool_)
        if self.delivered_index is not None and self.expected.withdrawn is not None:
            at = self.delivered_index.lookup(tags)
            marked[at >= 0] = self.expected.withdrawn[at[at >= 0]]
        return marked

    def _first_seen(self, tags: Tags) -> npt.NDArray[np.bool_]:
        # Without a baseline nobody can say what is new. A row our last revision added stays in the next one.
        before = np.zeros(len(tags), np.bool_)
        if self.held_index is not None:
            before = self.held_index.lookup(tags) >= 0
        if self.baseline_index is None:
            return before
        return before | (self.baseline_index.lookup(tags) < 0)


def start_landing(catalog: Catalog, keys: CatalogKeys, expected: Expected) -> Landing:
    """Prepare to read the source once."""
    delivered = expected.delivered
    size = 0 if delivered is None else len(delivered)
    superseded = np.zeros(size, np.bool_)
    if delivered is not None:
        superseded = expected.later.lookup(np.ascontiguousarray(delivered[:, TAG])) >= 0
    return Landing(
        expected,
        Kernel(catalog, keys),
        present=np.zeros(size, np.bool_),
        superseded=superseded,
        delivered_index=None if delivered is None else EntryIndex(delivered),
        baseline_index=None if expected.baseline is None else EntryIndex(_as_entries(expected.baseline)),
        held_index=None if expected.held is None else EntryIndex(expected.held),
    )


def _as_entries(tags: Tags) -> npt.NDArray[np.uint8]:
    entries = np.zeros((len(tags), 64), np.uint8)
    entries[:, TAG] = tags
    return entries
