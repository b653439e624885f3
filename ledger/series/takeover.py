"""The receiver's side of a bridge (接续): what the sender carried, worked out from our own rows and checked against its anchors.

Nothing is believed because the sender says so: the old half must be what the sender's own batches fold to, and the new half is worked out
from rows of ours that verify under the old series, from our archive where a row is gone, and for the rest from the sketch or an entry
file, whose root must be the anchored one. Where both series tell the same keys apart, no record may come in by way of a bridge.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ledger import snapshot
from ledger.batch.book import StreamLedger, save_batch
from ledger.batch.build import Builder, add_among, root_hex
from ledger.batch.fold import fold_entries
from ledger.batch.history import Bytes2D
from ledger.batch.job import Job
from ledger.batch.joint import open_joint
from ledger.batch.left import comparable
from ledger.batch.series import Bridge, Series
from ledger.batch.stream import AnnouncedBatch, StreamId
from ledger.catalog import Catalog
from ledger.counterpart.sketches import their_sketch
from ledger.delivery.entries import read_given
from ledger.delivery.receive import save_baseline
from ledger.errors import InputError
from ledger.kernel.sorting import TAG, sort_entries
from ledger.keys import CatalogKeys
from ledger.reconcile.findings import Verdict
from ledger.series.bridge import Left, left_on_record, named
from ledger.series.carry import ArchivedRows, Crossing, Rows, cross, read_rows
from ledger.sketch import apply_difference, decode
from ledger.snapshot import Answered
from ledger.store import models
from ledger.store.archive import among

NOT_CARRIED = "not_carried"
"""Why a record stays in the old series, where it was the sender that left it there."""

Notes = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class TakenOver:
    """A bridge taken over: `batch` is its new half, `new` what we hold stated against that, None where batches after it are not here yet.
    Not `fresh`: it had been taken over before."""

    batch: AnnouncedBatch
    old: Answered | None
    new: Answered | None
    before: str
    after: str
    carried: int
    left: tuple[Left, ...]
    fresh: bool
    notes: Notes = ()

    @property
    def verdict(self) -> Verdict:
        """Of what we hold against the new half."""
        return Verdict.UNDETERMINED if self.new is None else self.new.verdict


def take_over(job: Job, catalog: Catalog, *, sender: str, entries: Path | None = None) -> TakenOver:
    """Take over the next bridge of `sender`'s stream to us; the last one again, if there is no other. Then state what we hold.

    `entries` is an entry file of the new half, where the sketch does not suffice. InputError `bridge.*`, `fold.open_batches`,
    `snapshot.*`, `entries.*`; then nothing of the new series is recorded.
    """
    if job.workspace.source(catalog).origin != "delivery":
        raise InputError(
            "snapshot.own_source",
            f"[source.{catalog.id}] 的 origin 为 own，没有收自他方的数据流；本方数据流用 bridge {catalog.id}",
            f'[source.{catalog.id}] has origin "own": no stream in it came from another party; bridge your own without --from',
            catalog.id,
        )
    job.view.address(sender)
    stream = StreamId(catalog.id, sender, job.party)
    arranged, current = job.series(stream), job.current(stream)
    job.check_strays(arranged)
    following = arranged.series[current.number + 1 :] if current is not None else ()
    if current is None or not following:
        return _again(job, catalog, current, arranged.series, sender)
    series = following[0]
    if series.bridge is None:
        raise ValueError("every series but the first begins with a bridge")
    answered = None
    if not series.bridge.old.received:
        answered = snapshot.receive(job, catalog, sender=sender, number=series.bridge.old.descriptor.batch)
    carried, left, notes = _take(job, stream, current, series, series.bridge, entries)
    new, waits = _stated(job, catalog, series.bridge.new)
    names = current.told.catalog, series.told.catalog
    return TakenOver(series.bridge.new, answered, new, *names, carried, left, fresh=True, notes=(*notes, *waits))


def _stated(job: Job, catalog: Catalog, batch: AnnouncedBatch) -> tuple[Answered | None, Notes]:
    """What we hold against the new half. With later batches open it cannot be told apart yet: the night states it once they are here."""
    try:
        return snapshot.receive(job, catalog, sender=batch.stream.sender, number=batch.descriptor.batch), ()
    except InputError as error:
        if error.code != "snapshot.later_open":
            raise
        return None, ((error.zh, error.en),)


def _again(job: Job, catalog: Catalog, current: Series | None, series: tuple[Series, ...], sender: str) -> TakenOver:
    if current is None or current.bridge is None:
        raise InputError(
            "bridge.nothing",
            f"{sender} 没有衔接 {catalog.id} 的数据流，无可接续",
            f"{sender} bridged no stream of {catalog.id} to us: there is nothing to take over",
            "--from",
        )
    bridge = current.bridge
    new, waits = _stated(job, catalog, bridge.new)
    left = tuple(Left(tag, None, NOT_CARRIED) for tag in left_on_record(job, bridge.new))
    size = bridge.new.sent[-1].size
    before = series[current.number - 1].told.catalog
    return TakenOver(bridge.new, None, new, before, current.told.catalog, size, left, fresh=False, notes=waits)


def _take(
    job: Job, stream: StreamId, old: Series, series: Series, bridge: Bridge, file: Path | None
) -> tuple[int, tuple[Left, ...], Notes]:
    ledger, before = job.ledger(stream, old)
    keys = job.keys(stream, series)
    _check_old(ledger, bridge)
    anchor = bridge.new.sent[-1]
    given = None if file is None else read_given(file, anchor, bridge.new.descriptor.batch)
    versions = [before.catalog, *(it.keys.catalog for it in ledger.left)]
    names = list(dict.fromkeys((*keys.catalog.by_name, *before.catalog.by_name)))
    with open_joint(job.workspace, keys.catalog, versions) as joint:
        rows = read_rows(joint, before, keys)
        crossing = cross(ledger, rows)
        archived = ArchivedRows(job.book, ledger, before, names, _marked(ledger, crossing)).joint()
        kept = read_rows(archived, before, keys)
        ours = _joined(crossing, cross(ledger, kept))
        if (len(ours), root_hex(ours)) == (anchor.size, anchor.root):
            theirs = ours
        else:
            # What the sender left behind is not among its entries: without it the sketch has less to tell.
            theirs = given if given is not None else _decoded(job, bridge, crossing.entries, ours)
        _check_new(ledger, before, keys, bridge, theirs)
        behind = _behind(ledger, before, keys, (rows, kept), theirs)
        with job.book.archive_writer(keys.catalog, bridge.new.batch_id) as archive:
            builder = Builder(keys.catalog, keys, archive=archive)
            rest = theirs[~add_among(builder, joint.under(keys.catalog).scan(), theirs)]
            rest = rest[~add_among(builder, archived.under(keys.catalog).scan(), rest)]
            builder.add_entries(rest, np.zeros(len(rest), np.bool_))
            built = builder.finish(keys.catalog.id)
            if (built.size, built.root) != (anchor.size, anchor.root):
                raise InputError(
                    "source.changed",
                    "读取期间数据源发生变化，请重新执行",
                    "the source changed while it was read; run it again",
                    keys.catalog.id,
                )
            with job.store.write() as session:
                save_batch(session, bridge.new.descriptor, stream, keys.catalog)
                job.book.save_set(session, bridge.new.batch_id, "lawful", built, archive)
                # The tags recorded before are those of the old series.
                save_baseline(session, stream, _unknown(rows, ledger, theirs))
                session.add_all(
                    models.NotCarried(batch_id=bridge.new.batch_id, key_tag=tag.hex()) for tag in sorted(behind.tags)
                )
    left = named(job, ledger, before, dict.fromkeys(behind.tags, NOT_CARRIED))
    return len(theirs), left, (*behind.notes, *_unchecked(ours, theirs, stream.sender))


def _check_old(ledger: StreamLedger, bridge: Bridge) -> None:
    """InputError `fold.open_batches`, and `bridge.contradiction` unless the old half is what the sender's own batches fold to."""
    folded, said = fold_entries(ledger).built(), bridge.old.sent[-1]
    if (folded.size, folded.root) != (said.size, said.root):
        sender = ledger.stream.sender
        raise InputError(
            "bridge.contradiction",
            f"{sender} 的衔接与其自己的批次不符：应为 {folded.size} 条、根 {folded.root[:16]}…，其旧系列快照为 {said.size} 条、根 "
            f"{said.root[:16]}…；未接续，请 {sender} 查明",
            f"the bridge contradicts {sender}'s own batches: they fold to {folded.size} entries, root {folded.root[:16]}…, its old half says "
            f"{said.size}, root {said.root[:16]}…; it was not taken over, {sender} must look into it",
            bridge.old.descriptor.batch,
        )


def _marked(ledger: StreamLedger, crossing: Crossing) -> npt.NDArray[np.bool_]:
    """The keys that no row of ours carries over."""
    marked = np.zeros(len(ledger.history), np.bool_)
    for tag in crossing.left:
        marked[ledger.history.find(tag)] = True
    return marked


def _joined(crossing: Crossing, archived: Crossing) -> Bytes2D:
    """All of the first, and of the second what has another key there."""
    found = np.concatenate([crossing.entries, archived.entries])
    tags = np.ascontiguousarray(found[:, TAG]).view("V16").reshape(-1)
    _, first = np.unique(tags, return_index=True)
    found = found[np.sort(first)]
    return found[sort_entries(found)]


def _decoded(job: Job, bridge: Bridge, *ours: Bytes2D) -> Bytes2D:
    """The sender's entries, from its sketch and any of `ours`; InputError `bridge.undecided` if none of them suffices."""
    batch, anchor = bridge.new, bridge.new.sent[-1]
    sketch = their_sketch(job, batch, anchor, batch.stream.sender)
    for mine in ours:
        if sketch is None:
            break
        difference = decode(mine, sketch, anchor.size, bytes.fromhex(anchor.root))
        if difference.certified:
            found = apply_difference(mine, difference.only_ours, difference.only_theirs)
            if found is None:
                raise ValueError("a certified difference applies")
            return found
    number, sender = batch.descriptor.batch, batch.stream.sender
    raise InputError(
        "bridge.undecided",
        f"本方的行与 {sender} 衔接的新系列相差过多，差异摘要解不开：无从得知其衔接了哪些记录，未接续；请 {sender} 执行 export entries（批次 {number}），"
        f"本方再以 bridge --entries 文件 接续",
        f"our rows and the new series of {sender} differ by more than its sketch can tell: what it carried is not known, so the bridge was "
        f"not taken over; ask {sender} for its entry file of {number} (export entries) and run bridge with --entries FILE",
        number,
    )


def _check_new(ledger: StreamLedger, before: CatalogKeys, keys: CatalogKeys, bridge: Bridge, theirs: Bytes2D) -> None:
    """InputError `bridge.adds` if the new half has records that the old has not."""
    adds = len(theirs) - len(ledger.history.live.nonzero()[0])
    if comparable(before, keys):
        at = ledger.history.lookup(np.ascontiguousarray(theirs[:, TAG]))
        known = at >= 0
        known[known] = ledger.history.live[at[known]]
        adds = int((~known).sum())
    if adds <= 0:
        return
    sender = ledger.stream.sender
    raise InputError(
        "bridge.adds",
        f"{sender} 的衔接中有 {adds} 条记录不在旧系列的有效记录之中；衔接只能带来旧系列已有的记录，未接续，请 {sender} 查明",
        f"the bridge of {sender} holds {adds} record(s) that are not live in the old series; a bridge carries what the old one has and nothing "
        f"else, so it was not taken over: {sender} must look into it",
        bridge.new.descriptor.batch,
    )


@dataclass(frozen=True)
class _Behind:
    tags: frozenset[bytes]
    notes: Notes = ()


def _behind(
    ledger: StreamLedger, before: CatalogKeys, keys: CatalogKeys, read: tuple[Rows, ...], theirs: Bytes2D
) -> _Behind:
    """Which live keys of the old series the sender did not carry."""
    history = ledger.history
    live = history.tags(np.flatnonzero(history.live))
    carried = {tag.tobytes() for tag in theirs[:, TAG]}
    if comparable(before, keys):
        return _Behind(frozenset(tag.tobytes() for tag in live) - carried)
    now: dict[bytes, bytes] = {}
    for rows in read:
        both = rows.then_keyed & rows.now_keyed
        pairs = zip(rows.then[both][:, TAG], rows.now[both][:, TAG], strict=True)
        now.update((then.tobytes(), tag.tobytes()) for then, tag in pairs)
    tags = [tag.tobytes() for tag in live]
    told = frozenset(tag for tag in tags if tag in now and now[tag] not in carried)
    unknown = sum(tag not in now for tag in tags)
    # Those of the sender's entries that are none of ours are among the unknown ones.
    others = len(carried - {now[tag] for tag in tags if tag in now})
    if not unknown or others == unknown:
        return _Behind(told)
    return _Behind(
        told,
        (
            (
                f"旧系列有 {unknown} 条记录本方既无行又无原文，其中 {unknown - others} 条未随迁，无从得知是哪些：不再报为缺失",
                f"of {unknown} records of the old series there is neither a row nor an archived one here, and {unknown - others} of them were "
                "not carried; which ones cannot be told: they are no longer reported as missing",
            ),
        ),
    )


def _unknown(rows: Rows, ledger: StreamLedger, theirs: Bytes2D) -> npt.NDArray[np.uint8]:
    """The key tags in the new series of all rows that neither series knows."""
    tags = rows.now[:, TAG]
    known = among(tags, frozenset(entry[TAG].tobytes() for entry in theirs)) | ~rows.now_keyed
    known[rows.then_keyed] |= ledger.history.lookup(np.ascontiguousarray(rows.then[rows.then_keyed][:, TAG])) >= 0
    return np.ascontiguousarray(tags[~known])


def _unchecked(ours: Bytes2D, theirs: Bytes2D, sender: str) -> Notes:
    """A note on entries of the sender that do not follow from what verifies here."""
    derived = np.isin(
        np.ascontiguousarray(theirs).view("V64").reshape(-1), np.ascontiguousarray(ours).view("V64").reshape(-1)
    )
    unknown = Counter(derived.tolist())[False]
    if not unknown:
        return ()
    return (
        (
            f"新系列有 {unknown} 条的内容本方无从由旧系列核实（无原文，或与按旧系列核实的行不同）；以 {sender} 上链的为准，逐条比对见 reconcile",
            f"{unknown} entries of the new series do not follow from what verifies under the old here (no plaintext, or another content); what "
            f"{sender} anchored counts, reconcile compares each",
        ),
    )
