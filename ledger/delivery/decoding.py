"""Without the delivered file: what the sender anchored, worked out from its sketch and the rows that landed (design section 4).

Nothing is believed because it peels: the entries are lawful once size and root are the sender's anchor, and what each of them is can be
told. Otherwise the caller goes on as if there were no sketch, with a note that says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ledger import sketch as sketches
from ledger.batch.book import StreamLedger, save_batch
from ledger.batch.build import Builder, Built, add_among, result_of
from ledger.batch.job import Job
from ledger.counterpart.learn import RECORD, Told, key_finder, tell
from ledger.counterpart.sketches import their_sketch
from ledger.delivery.incoming import Incoming
from ledger.errors import InputError
from ledger.kernel.entries import Kernel
from ledger.kernel.sorting import TAG
from ledger.progress import watched
from ledger.store.archive import ArchiveWriter, among

Entries = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Learnt:
    """`lawful`: the sender's entries are on record now. Else `notes` (zh, en) say why not."""

    lawful: bool
    notes: tuple[tuple[str, str], ...] = ()


def learn_lawful(job: Job, incoming: Incoming, ledger: StreamLedger, landed: Entries | None) -> Learnt:
    """Work out the sender's entries from its sketch and what `landed`, and keep them; None for `landed` where no column tells which rows
    are of the batch: then all rows count that no other batch accounts for."""
    anchor = incoming.batch.sent[-1]
    try:
        theirs = their_sketch(job, incoming.batch, anchor, incoming.stream.sender)
    except InputError as error:
        return Learnt(lawful=False, notes=((error.zh, error.en),))
    if theirs is None:
        return Learnt(lawful=False)
    ours = _unaccounted(job, incoming, ledger) if landed is None else landed
    difference = sketches.decode(ours, theirs, anchor.size, bytes.fromhex(anchor.root))
    if not difference.certified:
        return Learnt(lawful=False, notes=(_too_many(len(theirs)),))
    with job.book.opener(ledger.known, incoming.catalog, incoming.keys) as open_version:
        told = tell(
            difference.only_theirs,
            incoming.batch,
            ledger,
            incoming.catalog,
            incoming.keys,
            key_finder(incoming.catalog, ledger, open_version),
        )
    if any(it.withdrawn is None for it in told):
        return Learnt(lawful=False, notes=(_NOT_TOLD,))
    theirs_whole = sketches.apply_difference(ours, difference.only_ours, difference.only_theirs)
    if theirs_whole is None:
        raise ValueError("a certified difference applies")
    by_tag = {entry[TAG].tobytes(): it for entry, it in zip(difference.only_theirs, told, strict=True)}
    keep_lawful(job, incoming, theirs_whole, [by_tag.get(entry[TAG].tobytes(), RECORD) for entry in theirs_whole])
    return Learnt(lawful=True)


def _unaccounted(job: Job, incoming: Incoming, ledger: StreamLedger) -> Entries:
    """The entries of all rows that are not simply the live version of a known batch; keys that occur twice left out."""
    builder = Builder(incoming.catalog, incoming.keys)
    kernel = Kernel(incoming.catalog, incoming.keys)
    later = ledger.after(incoming.batch)
    with job.workspace.open_source(incoming.catalog) as table:
        chunks = watched("读取数据源", "reading the source", table.scan(), table.about_rows)
        for chunk, result in kernel.run_all(chunks):
            tags = np.ascontiguousarray(result.entries[:, TAG])
            keys = ledger.history.lookup(tags)
            keep = keys < 0
            known = np.flatnonzero(~keep)
            keep[known] = ~ledger.history.matches(keys[known], result.entries[known, TAG.stop :])
            keep &= (later.lookup(tags) < 0) & ~among(tags, ledger.apart)
            mask = np.zeros(len(chunk), np.bool_)
            mask[result.rows[keep]] = True
            builder.add_result(chunk, result_of(result, mask))
    builder.drop_repeated()
    return builder.finish().entries


def keep_lawful(job: Job, incoming: Incoming, theirs: Entries, told: Sequence[Told]) -> None:
    """Save the sender's entries (of its anchored root, ascending) as lawful, with the archive of those that are in the source.

    `told` runs along with `theirs`; InputError `source.changed` if the entries do not come out as anchored.
    """
    anchor = incoming.batch.sent[-1]
    with job.book.archive_writer(incoming.catalog, incoming.batch.batch_id) as archive:
        builder = Builder(incoming.catalog, incoming.keys, archive=archive)
        with job.workspace.open_source(incoming.catalog) as table:
            chunks = watched("读取收到的行", "reading what landed", table.scan(), table.about_rows)
            held = add_among(builder, chunks, theirs)
        for row in np.flatnonzero(~held).tolist():
            entry, it = theirs[row], told[row]
            if it.canonical is not None:
                builder.add_withdrawal(entry[TAG].tobytes(), it.canonical, entry[:16].tobytes())
            else:
                builder.add_entries(entry.reshape(1, -1), np.zeros(1, np.bool_))
        built = builder.finish(incoming.catalog.id)
        if (built.size, built.root) != (anchor.size, anchor.root):
            raise InputError(
                "source.changed",
                "读取期间数据源发生变化，请重新执行",
                "the source changed while it was read; run it again",
                incoming.catalog.id,
            )
        _save_lawful(job, incoming, built, archive)


def _save_lawful(job: Job, incoming: Incoming, built: Built, archive: ArchiveWriter | None) -> None:
    """Record `built` as the lawful entries of the batch."""
    with job.store.write() as session:
        save_batch(session, incoming.batch.descriptor, incoming.stream, incoming.catalog)
        job.book.save_set(session, incoming.batch.batch_id, "lawful", built, archive)


def _too_many(cells: int) -> tuple[str, str]:
    return (
        f"差异过多，差异摘要（{cells} 个单元）解不开：无法逐条列全；请提供下发文件，或由发送方 export entries 后 import entries",
        f"too many differences for the sketch ({cells} cells): they cannot all be named; bring the delivered file, or import the "
        "sender's entries (export entries, import entries)",
    )


_NOT_TOLD = (
    "差异摘要已解开，但有条目无法判明是记录还是撤回（其更早版本的原文本方没有）；请提供下发文件，或 import entries",
    "the sketch was decoded, but of some entries it cannot be told whether they are records or withdrawals (their earlier versions "
    "were never here): bring the delivered file, or import entries",
)
