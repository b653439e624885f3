"""The fold of a stream as entries: what a snapshot holds, and where the records behind it lie (design section 4).

A snapshot repeats entries of the batches it folds, byte for byte, and so has no archive of its own: what opens an entry is looked up in
the sets of those batches. There is no second copy of any plaintext that an erasure would have to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ledger.batch.book import Book, KnownBatch, StreamLedger, history_of
from ledger.batch.build import Built
from ledger.batch.history import Bytes2D, Version
from ledger.batch.stream import AnnouncedBatch
from ledger.batch.tiles import tree_of
from ledger.catalog import Catalog
from ledger.errors import InputError
from ledger.kernel.sorting import TAG, EntryIndex, sort_entries
from ledger.keys import CatalogKeys
from ledger.store.entryfile import NO_FRAME


@dataclass(frozen=True)
class Fold:
    """The live entries of a stream up to a batch, strictly ascending, withdrawals left out.

    `batches` and `rows` run along: which of `known` carries the entry, and at which index of that batch's entries.
    """

    known: tuple[KnownBatch, ...]
    entries: Bytes2D
    batches: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]

    def built(self) -> Built:
        """The same as a batch without an archive."""
        size = len(self.entries)
        frames = np.full(size, NO_FRAME, np.uint32)
        tiles, root = tree_of(self.entries)
        return Built(self.entries, np.zeros(size, np.bool_), frames, size, root, tiles=tiles)


def fold_entries(ledger: StreamLedger, upto: AnnouncedBatch | None = None) -> Fold:
    """The fold of `ledger` up to and including the batch `upto`; of the whole stream without.

    InputError `fold.open_batches` if the entries of a batch that is part of it are not known here. A batch that its sender never
    anchored is no part of it.
    """
    last = None if upto is None else _place(upto)
    missing = [it.descriptor.batch for it in ledger.open if it.sent and (last is None or _place(it) <= last)]
    if missing:
        numbers = "、".join(missing)
        raise InputError(
            "fold.open_batches",
            f"批次 {numbers} 的条目本台账没有，无法得出 {ledger.stream.catalog_id} 的累积状态；"
            "由他方下发的请先 receive 或 import entries，本方发出的请运行 fsck",
            f"the entries of {', '.join(missing)} are not known here, so {ledger.stream.catalog_id} cannot be folded; receive them (or "
            "import entries) if another party sent them, run fsck if this party did",
            ledger.stream.catalog_id,
        )
    known = tuple(it for it in ledger.known if last is None or _place(it.announced) <= last)
    history = ledger.history if len(known) == len(ledger.known) else history_of(known)
    keys = np.flatnonzero(history.live)
    entries = history.entries(keys)
    batches, rows = history.places(keys)
    order = sort_entries(entries)
    return Fold(known, entries[order], batches[order], rows[order])


def open_entries(
    book: Book, batches: Sequence[AnnouncedBatch], catalog: Catalog, keys: CatalogKeys, wanted: Bytes2D
) -> list[bytes | None]:
    """The canonical bytes of the entries `wanted` (n,64), of which no two share a key tag, from any set of `batches`, of any revision.

    None where no archive has them: the catalog switches it off, the record was erased, or the set was never here. StoreError
    `store.archive_commitment` for archived bytes that do not open their entry.
    """
    found: list[bytes | None] = [None] * len(wanted)
    for announced in batches:
        with book.store.read() as session:
            sets = [*book.sets(session, announced.batch_id, "lawful"), *book.sets(session, announced.batch_id, "held")]
        for entry_set in sets:
            left = np.array([at for at, data in enumerate(found) if data is None], np.int64)
            if entry_set.archive_file is None or not len(left):
                continue
            # The archived bytes of an entry that is wanted open it, or nothing is said; nothing else of the set is relied on.
            known = KnownBatch(announced, entry_set, book.read_set(entry_set, by_tiles=True))
            rows = same_entries(wanted[left], known.entries.entries)
            there = np.flatnonzero(rows >= 0)
            # By frame: the reader keeps the frame it read last.
            there = there[np.argsort(known.entries.frames[rows[there]], kind="stable")]
            with book.opener([known], catalog, keys) as open_version:
                for at in there.tolist():
                    entry = wanted[left[at]].tobytes()
                    found[left[at]] = open_version(Version(0, int(rows[at]), withdrawn=False, entry=entry))
    return found


def archived_entries(book: Book, batches: Sequence[AnnouncedBatch], *, beside: Sequence[KnownBatch]) -> Bytes2D:
    """The entries (n,64) that any set of `batches` archives but those of `beside`: older revisions, and rows that a receiver held."""
    known = {it.entry_set.id for it in beside}
    found = [np.zeros((0, 64), np.uint8)]
    for announced in batches:
        with book.store.read() as session:
            sets = [*book.sets(session, announced.batch_id, "lawful"), *book.sets(session, announced.batch_id, "held")]
        for entry_set in sets:
            if entry_set.archive_file is not None and entry_set.id not in known:
                entries = book.read_set(entry_set)
                found.append(entries.entries[entries.frames != NO_FRAME])
    return np.concatenate(found)


def same_entries(these: Bytes2D, those: Bytes2D) -> npt.NDArray[np.int64]:
    """For each of `these` entries the row of the very same among `those`, which share no key tag; -1 where it is not there."""
    rows = EntryIndex(those).lookup(np.ascontiguousarray(these[:, TAG]))
    at = np.flatnonzero(rows >= 0)
    rows[at[(those[rows[at]] != these[at]).any(axis=1)]] = -1
    return rows


def _place(batch: AnnouncedBatch) -> int:
    return batch.sent[0].sequence
