"""Our own snapshots against the batches they fold: a snapshot has no archive, what opens its entries is in those of the batches.

The new half of a bridge is no such snapshot: it carries versions, as a batch does, and has an archive of its own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ledger.batch.history import COMMITMENT
from ledger.fsck.report import SHOWN, Check, Report
from ledger.fsck.tables import Tables
from ledger.store import models
from ledger.store.entryfile import Entries

_Series = tuple[str, str, str, str]


class Folds:
    """Takes in the entry sets of a store one after another, oldest first: what a snapshot folds was written before it.

    Of a batch 8 bytes an entry are kept, the beginning of its commitment.
    """

    def __init__(self, report: Report, tables: Tables) -> None:
        self._check: Check = report.open(
            "snapshots", "本方快照的条目都在其批次中", "our snapshots repeat their batches"
        )
        self._party = report.party
        self._tables = tables
        self._carried: dict[_Series, list[npt.NDArray[np.uint64]]] = {}
        self._unread: set[_Series] = set()
        self._count = 0
        # Of each stream the series and the kind of the set before, and its size.
        self._before: dict[tuple[str, str], tuple[_Series, str, int]] = {}

    def add(self, entry_set: models.EntrySet, entries: Entries | None) -> None:
        """The next set; None for entries that could not be read, which is told elsewhere."""
        told = self._tables.descriptors.get(entry_set.batch_id)
        batch = self._tables.batches.get(entry_set.batch_id)
        if told is None or batch is None or entry_set.role != "lawful" or batch.sender_party != self._party:
            return
        series = (batch.catalog_id, batch.receiver_party, told.catalog_digest, told.key_id)
        stream = (batch.catalog_id, batch.receiver_party)
        before = self._before.get(stream)
        self._before[stream] = (series, told.kind, entry_set.size)
        if self._begins(before, series, entry_set, told.kind):
            if entries is None:
                self._unread.add(series)
            else:
                self._carried[series] = [_words(entries)]
        elif told.kind == "snapshot":
            if entries is not None:
                self._look_at(entry_set, entries, series)
        elif entries is None:
            self._unread.add(series)
        else:
            self._carried.setdefault(series, []).append(_words(entries)[~entries.withdrawn])

    def _begins(
        self, before: tuple[_Series, str, int] | None, series: _Series, entry_set: models.EntrySet, kind: str
    ) -> bool:
        """Whether a set is the new half of a bridge: under a new series, right after a snapshot of another that is as large or larger."""
        if kind != "snapshot" or before is None or series in self._carried or series in self._unread:
            return False
        last, last_kind, size = before
        return last_kind == "snapshot" and last != series and entry_set.size <= size

    def close(self) -> None:
        """Say what was examined."""
        self._check.seen(f"{self._count} 个快照", f"{self._count} snapshots")

    def _look_at(self, entry_set: models.EntrySet, entries: Entries, series: _Series) -> None:
        self._count += 1
        where = f"{entry_set.entries_file} · {self._tables.name(entry_set.batch_id)}"
        if entry_set.archive_file is not None:
            self._check.broken(
                "snapshot.archive",
                "快照不应有自己的归档：原文只存于各批次的归档",
                "a snapshot has no archive of its own: plaintext is in those of the batches alone",
                where,
            )
        words = _words(entries)
        strays = ~np.isin(words, np.concatenate([np.zeros(0, np.uint64), *self._carried.get(series, ())]))
        strays |= entries.withdrawn
        if strays.any() and series in self._unread:
            self._check.cannot(
                "snapshot.unread",
                "有批次的条目读不出，快照中的条目无从核对",
                "the entries of a batch cannot be read, so those of the snapshot have nothing to be held against",
                where,
            )
            return
        for position in np.flatnonzero(strays)[:SHOWN].tolist():
            tag = entries.key_tags[position].tobytes().hex()
            self._check.broken(
                "snapshot.stray",
                f"第 {position} 条（key_tag {tag}）不是任何批次的记录",
                f"entry {position} (key_tag {tag}) is a record of no batch",
                f"{where} · entry {position}",
            )
        count = int(strays.sum())
        if count > SHOWN:
            self._check.broken("snapshot.stray", f"……共 {count} 条", f"... {count} in all", where)


def _words(entries: Entries) -> npt.NDArray[np.uint64]:
    start = np.ascontiguousarray(entries.entries[:, COMMITMENT.start : COMMITMENT.start + 8])
    return start.view(np.uint64).reshape(-1)
