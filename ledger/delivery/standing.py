"""What a receiver holds of a stream up to a batch, to be stated against the sender's snapshot (design section 4).

Derived from the rows there are now, each readable one once. Two things are not taken from the rows. Keys that a batch after the last
folded one carries have moved on: what we said we held up to that batch, the fold of our own held sets, stands for them. And no old set
of ours speaks for a record that was erased here; a row that is there is stated all the same, for it is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ledger.batch.book import StreamLedger
from ledger.batch.build import Builder, Built, result_of
from ledger.batch.fold import archived_entries, fold_entries, same_entries
from ledger.batch.history import Bytes2D, History
from ledger.batch.job import Job
from ledger.batch.stream import AnnouncedBatch
from ledger.catalog import Catalog
from ledger.counterpart.learn import key_finder
from ledger.counterpart.sketches import their_sketch
from ledger.errors import InputError, StoreError
from ledger.kernel.entries import Kernel
from ledger.kernel.sorting import TAG
from ledger.keys import CatalogKeys
from ledger.progress import watched
from ledger.record import REASONS, withdrawal
from ledger.sketch import Difference, compare, decode
from ledger.source.source import Source
from ledger.store.archive import ArchiveWriter, among

Notes = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Awaited:
    """A snapshot announced to us, the batches it folds, and its stream as we know it; `later` is the fold of the batches after those."""

    catalog: Catalog
    batch: AnnouncedBatch
    folded: Sequence[AnnouncedBatch]
    ledger: StreamLedger
    keys: CatalogKeys
    later: History


def held_of(job: Job, awaited: Awaited, table: Source, archive: ArchiveWriter | None) -> tuple[Built, Notes]:
    """Our entries, and what could not be stated. The archive takes the rows that no other set of the stream archives."""
    builder = Builder(awaited.catalog, awaited.keys, archive=archive)
    kernel = Kernel(awaited.catalog, awaited.keys)
    batches = job.streams.all_batches(awaited.batch.stream)
    beside = archived_entries(job.book, batches, beside=awaited.ledger.known)
    unreadable = stated = 0
    for chunk, result in kernel.run_all(watched("核对快照", "stating what is held", table.scan(), table.about_rows)):
        unreadable += len(result.refused)
        tags = np.ascontiguousarray(result.entries[:, TAG])
        now = (awaited.later.lookup(tags) < 0) & ~among(tags, awaited.ledger.apart)
        known = now & _archived(awaited.ledger.history, beside, result.entries)
        builder.add_entries(result.entries[known], np.zeros(int(known.sum()), np.bool_))
        fresh = np.zeros(len(chunk), np.bool_)
        fresh[result.rows[now & ~known]] = True
        builder.add_result(chunk, result_of(result, fresh))
        stated += int(now.sum())
    moved = _moved_on(job, awaited)
    builder.add_entries(moved, np.zeros(len(moved), np.bool_))
    builder.drop_repeated()
    held = builder.finish(table.where)
    repeated = stated + len(moved) - held.size
    if not unreadable and not repeated:
        return held, ()
    return held, (
        (
            f"有 {unreadable} 行无法读取、{repeated} 行主键重复，未计入本方持有：逐行见 reconcile",
            f"{unreadable} rows that cannot be read and {repeated} rows of repeated keys are not stated as held: reconcile names them",
        ),
    )


def _archived(history: History, beside: Bytes2D, entries: Bytes2D) -> npt.NDArray[np.bool_]:
    """Which entries are a version of some batch, or among those `beside`: what opens them is archived there."""
    keys = history.lookup(np.ascontiguousarray(entries[:, TAG]))
    found = keys >= 0
    at = np.flatnonzero(found)
    found[at] = history.matches(keys[at], entries[at, TAG.stop :])
    for row in at[~found[at]].tolist():
        found[row] = any(version.entry == entries[row].tobytes() for version in history.versions(int(keys[row])))
    if len(beside):
        found |= np.isin(_as_set(entries), _as_set(beside))
    return found


def _as_set(entries: Bytes2D) -> npt.NDArray[np.void]:
    return np.ascontiguousarray(entries).view("V64").reshape(-1)


def _moved_on(job: Job, awaited: Awaited) -> Bytes2D:
    """What our last claims about the folded batches say, folded, of keys that later batches carry; without withdrawn and erased ones."""
    lawful = {it.announced.batch_id: it.entries for it in awaited.ledger.known}
    parts: list[tuple[Bytes2D, npt.NDArray[np.bool_]]] = []
    for batch in awaited.folded:
        if not batch.received:
            continue
        ours = batch.received[-1]
        with job.store.read() as session:
            sets = job.book.sets(session, batch.batch_id, "held")
        found = next((it for it in sets if (it.size, it.root) == (ours.size, ours.root)), None)
        if found is None:
            raise StoreError(
                "snapshot.held_missing",
                f"本方就批次 {batch.descriptor.batch} 上链的条目不在台账库中：台账是旧备份或已损坏；请运行 fsck",
                f"the entries that this party anchored for batch {batch.descriptor.batch} are not in the store: it is an old backup, or "
                "damaged; run fsck",
                batch.descriptor.batch,
            )
        held = job.book.read_set(found)
        entries = held.entries[awaited.later.lookup(np.ascontiguousarray(held.key_tags)) >= 0]
        withdrawn = np.zeros(len(entries), np.bool_)
        if batch.batch_id in lawful:
            # A withdrawal that was carried out is stated in the sender's own entry.
            rows = same_entries(entries, lawful[batch.batch_id].entries)
            withdrawn[rows >= 0] = lawful[batch.batch_id].withdrawn[rows[rows >= 0]]
        parts.append((entries, withdrawn))
    history = History(parts)
    erased = awaited.ledger.erased
    keep = [key for key in np.flatnonzero(history.live).tolist() if not erased or history.tag(key) not in erased]
    return history.entries(np.array(keep, np.int64))


def refuse_withdrawals(job: Job, awaited: Awaited, held: Built) -> None:
    """InputError `snapshot.withdrawal` if the sender's snapshot is seen to hold one: a snapshot holds none (formats F7)."""
    difference = _difference(job, awaited, held)
    if difference is None or not difference.certified:
        return
    ledger, catalog = awaited.ledger, awaited.catalog
    with job.book.opener(ledger.known, catalog, awaited.keys) as opener:
        key_of = key_finder(catalog, ledger, opener)
        for entry in difference.only_theirs:
            tag = entry[TAG].tobytes()
            values = key_of(tag)
            known = ledger.history.find(tag)
            versions = ledger.history.versions(known) if known >= 0 else []
            withdrawals = {version.commitment for version in versions if version.withdrawn}
            if values is not None:
                withdrawals |= {awaited.keys.commit(withdrawal(catalog, values, reason))[2] for reason in REASONS}
            if entry[TAG.stop :].tobytes() in withdrawals:
                told = awaited.batch.descriptor.batch
                sender = awaited.batch.stream.sender
                raise InputError(
                    "snapshot.withdrawal",
                    f"{sender} 的快照 {told} 中有一条撤回（key_tag {tag.hex()}）；快照只含有效记录，该快照不合规，本方不表态；请 {sender} 重新快照",
                    f"snapshot {told} of {sender} holds a withdrawal (key tag {tag.hex()}): a snapshot holds live records only, so this one "
                    f"is refused and not answered; ask {sender} for another",
                    told,
                )


def contradiction(awaited: Awaited) -> Notes:
    """A note if the sender's snapshot is not what its own batches fold to, where all of them are known here."""
    folded = {it.batch_id for it in awaited.folded}
    if any(it.batch_id in folded for it in awaited.ledger.open):
        return ()
    lawful = fold_entries(awaited.ledger, awaited.folded[-1]).built()
    said, number = awaited.batch.sent[-1], awaited.folded[-1].descriptor.batch
    if (said.size, said.root) == (lawful.size, lawful.root):
        return ()
    sender = awaited.batch.stream.sender
    return (
        (
            f"快照与 {sender} 自己的批次不符：截至 {number} 应为 {lawful.size} 条、根 {lawful.root[:16]}…，快照为 {said.size} 条、"
            f"根 {said.root[:16]}…（快照不实，或其后有批次修订）；请 {sender} 重新快照",
            f"the snapshot contradicts {sender}'s own batches: up to {number} they give {lawful.size} entries, root {lawful.root[:16]}…, it "
            f"says {said.size}, root {said.root[:16]}… (it is untrue, or a batch was revised since); ask {sender} for another",
        ),
    )


def _difference(job: Job, awaited: Awaited, held: Built) -> Difference | None:
    """Ours against the sender's entries, as far as those are known or its sketch can be read."""
    batch = awaited.batch
    anchor = batch.sent[-1]
    with job.store.read() as session:
        sets = job.book.sets(session, batch.batch_id, "lawful")
    known = next((it for it in sets if (it.size, it.root) == (anchor.size, anchor.root)), None)
    if known is not None:
        return compare(held.entries, job.book.read_set(known).entries)
    if (anchor.size, anchor.root) == (held.size, held.root):
        return None
    try:
        theirs = their_sketch(job, batch, anchor, batch.stream.sender)
    except InputError:
        # The comparison says why it cannot be read.
        return None
    return None if theirs is None else decode(held.entries, theirs, anchor.size, bytes.fromhex(anchor.root))
