"""Snapshots (快照): the fold of a stream up to a named batch, anchored as a batch of its own (design section 4).

Never "the table on day D": the sender's snapshot is folded from the batches it anchored, no source is read. Its number,
`P<YYYYMMDD>-<n>:<NO>`, says the catalog's day, the n-th of that day, and the last batch folded in; its period is empty, it is as of its
anchor.

The receiver answers with what it holds, derived from the rows it has now (`delivery/standing.py`). So it shows what no batch does: a row
added behind the ledger's back, one lost or changed after its batch had matched, a withdrawal never carried out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ledger.anchor.claims import propose
from ledger.batch.book import StreamLedger, save_batch
from ledger.batch.build import Built
from ledger.batch.fold import fold_entries
from ledger.batch.job import Job
from ledger.batch.numbering import free_snapshots, today
from ledger.batch.series import Series, reach
from ledger.batch.stream import AnnouncedBatch, StreamId
from ledger.catalog import Catalog
from ledger.chain.registry import AnchorRecord
from ledger.counterpart.compare import BatchComparison, compare_with
from ledger.counterpart.sketches import answering_sketch, sketch_for
from ledger.delivery.receive import Received
from ledger.delivery.standing import Awaited, Notes, contradiction, held_of, refuse_withdrawals
from ledger.descriptor import Descriptor, batch_number
from ledger.errors import InputError
from ledger.keys import CatalogKeys, ExchangeKey
from ledger.reconcile.findings import Verdict
from ledger.reconcile.lawful import open_settled


@dataclass(frozen=True)
class Taken:
    """A snapshot of ours on chain, up to the batch numbered `upto`. Not `fresh`: today's was there already and says just this."""

    number: str
    batch_id: str
    upto: str
    record: AnchorRecord
    fresh: bool


def snapshot_own(job: Job, catalog: Catalog, *, number: str | None = None) -> Taken:
    """Anchor the fold of our own source's stream up to and including the batch `number`, by default its last; see `announce`."""
    return _take(job, catalog, job.workspace.exchange_key(), StreamId(catalog.id, job.party, ""), number)


def announce(job: Job, catalog: Catalog, *, to: str, number: str | None = None) -> Taken:
    """Anchor the fold of what we sent to the party `to`, with a sketch, up to and including the batch `number`, by default the last.

    Again on the same day: nothing happens if the fold is the same, else (a batch was revised) it is a visible revision. A later day
    is another snapshot, which says that the stream still stands so. InputError `snapshot.*`, `fold.open_batches`.
    """
    if to == job.party:
        raise InputError("send.to_self", f"不能发给本方 {to}", f"{to} is this party itself", "--to")
    job.view.address(to)
    return _take(job, catalog, job.workspace.exchange_key(to), StreamId(catalog.id, job.party, to), number)


def _take(job: Job, catalog: Catalog, key: ExchangeKey, stream: StreamId, number: str | None) -> Taken:
    series = next(reversed(job.series(stream).series), None)
    upto = _last(series, stream, number)
    job.check_series(stream, catalog, key)
    ledger = job.book.load_stream(job.streams, stream, catalog, key.for_catalog(catalog))
    built = fold_entries(ledger, upto).built()
    last = str(reach(upto))
    descriptor, known = _descriptor(job, catalog, key, stream, last)
    batch_id = descriptor.batch_id.hex()
    said = known.sent[-1] if known is not None else None
    fresh = said is None or (said.size, said.root) != (built.size, built.root)
    if fresh:
        with job.store.write() as session:
            save_batch(session, descriptor, stream, catalog)
            # What opens the entries is in the archives of the batches that were folded.
            entry_set = job.book.save_set(session, batch_id, "lawful", built, None)
            sketch = sketch_for(key, descriptor.batch_id, built) if stream.receiver else None
            propose(session, entry_set, known_revisions=0 if known is None else len(known.sent), sketch=sketch)
        job.anchor()
    return Taken(descriptor.batch, batch_id, last, job.anchored(batch_id), fresh)


def _last(series: Series | None, stream: StreamId, number: str | None) -> AnnouncedBatch:
    """The batch named, or the last that we anchored in the present series: what the receiver alone anchored under our name is no part of it.

    A bridge stands for the last batch that it carried.
    """
    batches = [] if series is None else [batch for batch in series.batches if batch.sent]
    if not batches:
        to_zh = f"发给 {stream.receiver} 的" if stream.receiver else "本方数据源的"
        to_en = f"to {stream.receiver}" if stream.receiver else "of an own source"
        raise InputError(
            "snapshot.nothing",
            f"{stream.catalog_id} {to_zh}数据流尚无批次，没有可以快照的内容；请先{'send' if stream.receiver else ' anchor'}"
            + ("" if stream.receiver else "；发给他方的用 --to，收自他方的用 --from"),
            f"nothing {to_en} of {stream.catalog_id} is anchored yet: there is nothing to take a snapshot of; "
            + ("send first" if stream.receiver else "anchor first, or name the other party with --to or --from"),
            stream.catalog_id,
        )
    if number is None:
        return batches[-1]
    name = batch_number(number)
    found = next((batch for batch in batches if reach(batch) == name), None)
    if found is None:
        there = [str(reach(batch)) for batch in batches]
        raise InputError(
            "snapshot.unknown_batch",
            f"{stream.catalog_id} 的数据流中没有批次 {name}（快照不能截至另一快照）；现有：{'、'.join(there)}",
            f"the stream of {stream.catalog_id} has no batch {name} (a snapshot is no such batch); there are: {', '.join(there)}",
            "--batch",
        )
    return found


def _descriptor(
    job: Job, catalog: Catalog, key: ExchangeKey, stream: StreamId, upto: str
) -> tuple[Descriptor, AnnouncedBatch | None]:
    """The descriptor of today's snapshot up to that batch, and what of it is on chain already."""
    prefix = f"P{today(catalog):%Y%m%d}-"

    def described(number: str) -> Descriptor:
        return job.descriptor(catalog, key, stream, number=number, kind="snapshot", period="")

    for known in reversed(job.streams.snapshots(stream)):
        if known.sent and known.upto == upto and known.descriptor.batch.startswith(prefix):
            descriptor = described(known.descriptor.batch)
            # Another id: of another series.
            if descriptor.batch_id.hex() == known.batch_id:
                return descriptor, known
    return described(free_snapshots(job, catalog, stream, upto)[0]), None


@dataclass(frozen=True)
class Answered:
    """What we hold, anchored against a snapshot; `comparison` is of this one batch. `notes` (zh, en) limit what was stated."""

    batch: AnnouncedBatch
    upto: str
    held: Built
    record: AnchorRecord
    comparison: BatchComparison
    notes: Notes

    @property
    def verdict(self) -> Verdict:
        """Of what is still open, as `reconcile --with` says it."""
        told = self.comparison
        settled = told.verdict is Verdict.DIFFERENCES and not any(finding.open for finding in told.findings)
        return Verdict.MATCHED if settled else told.verdict

    def received(self) -> Received:
        """The same as the night tells what it received: counts in a note instead of each difference."""
        findings = self.comparison.findings
        notes = [*self.notes, *self.comparison.notes]
        if findings:
            kinds = Counter(str(finding.kind) for finding in findings)
            listed = "、".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
            stream, number = self.batch.stream, self.batch.descriptor.batch
            command = f"reconcile {stream.catalog_id} --with {stream.sender} --batch {number}"
            notes.append(
                (
                    f"与快照不同：{listed}；逐条见 {command}",
                    f"differs from the snapshot: {listed}; {command} names each",
                )
            )
        settled = sum(not finding.open for finding in findings)
        return Received(self.batch, self.verdict, self.held, self.record, (), settled, None, tuple(notes))


def is_open(job: Job, snapshot: AnnouncedBatch) -> bool:
    """True while the night should answer a snapshot (again): we have not, or the roots differ and it is its sender's newest."""
    if not snapshot.sent:
        return False
    if not snapshot.received:
        return True
    sent, held = snapshot.sent[-1], snapshot.received[-1]
    equal = (sent.size, sent.root) == (held.size, held.root)
    return not equal and not job.streams.superseding(snapshot, snapshot.stream.sender)


def receive(job: Job, catalog: Catalog, *, sender: str, number: str | None = None) -> Answered:
    """State what we hold against the snapshot `number` of `sender`, by default its newest, and compare the two.

    Again: nothing happens if we hold the same, else it is a visible revision. InputError `snapshot.*`; then nothing is written.
    """
    if job.workspace.source(catalog).origin != "delivery":
        raise InputError(
            "snapshot.own_source",
            f"[source.{catalog.id}] 的 origin 为 own，没有收自他方的记录可以表态；本方快照不用 --from",
            f'[source.{catalog.id}] has origin "own": nothing in it came from another party; take your own snapshot without --from',
            catalog.id,
        )
    job.view.address(sender)
    stream = StreamId(catalog.id, sender, job.party)
    name = _announced(job, stream, number).descriptor.batch
    with open_settled(job, catalog) as (ledger, keys, table):
        # Found again: the reading may have become a newer one.
        awaited = _awaited(job, catalog, _announced(job, stream, name), ledger, keys)
        batch = awaited.batch
        with job.book.archive_writer(awaited.catalog, batch.batch_id) as archive:
            held, notes = held_of(job, awaited, table, archive)
            refuse_withdrawals(job, awaited, held)
            notes += contradiction(awaited)
            with job.store.write() as session:
                save_batch(session, batch.descriptor, stream, awaited.catalog)
                sketch = answering_sketch(job, batch, held)
                held_set = job.book.save_set(session, batch.batch_id, "held", held, archive)
                propose(session, held_set, known_revisions=len(batch.received), sketch=sketch)
    job.anchor()
    found = compare_with(job, catalog, sender, number=name)
    # We may send that party a batch of the same number.
    comparison = next(it for it in found.batches if it.batch.batch_id == batch.batch_id)
    return Answered(comparison.batch, name, held, job.anchored(batch.batch_id), comparison, notes)


def _announced(job: Job, stream: StreamId, number: str | None) -> AnnouncedBatch:
    told = [batch for batch in job.streams.snapshots(stream) if batch.sent]
    if number is None and told:
        return told[-1]
    name = "" if number is None else batch_number(number)
    found = next((batch for batch in told if batch.descriptor.batch == name), None)
    if found is None:
        there = [batch.descriptor.batch for batch in told]
        raise InputError(
            "snapshot.not_announced",
            f"{stream.sender} 未在链上宣告 {stream.catalog_id} 的快照{f' {name}' if name else ''}；已宣告：{'、'.join(there) or '无'}",
            f"{stream.sender} announced no snapshot {f'{name} ' if name else ''}of {stream.catalog_id} on the chain; announced: "
            f"{', '.join(there) or 'none'}",
            "--batch" if name else "--from",
        )
    return found


def _awaited(job: Job, catalog: Catalog, batch: AnnouncedBatch, ledger: StreamLedger, keys: CatalogKeys) -> Awaited:
    told, stream = batch.descriptor, batch.stream
    arranged, current = job.series(stream), job.current(stream)
    series = arranged.of(batch)
    if series is None or current is None or series.number != current.number:
        later = series is not None and current is not None and series.number > current.number
        raise InputError(
            "snapshot.other_series",
            f"快照 {told.batch} 按目录 {told.catalog}、密钥 {told.key_id} 上链，属于另一系列；"
            + (f"请先执行 bridge {catalog.id} --from {stream.sender}" if later else "该系列已被衔接取代"),
            f"snapshot {told.batch} stands under {told.catalog} and key {told.key_id}, another series; "
            + (
                f"run bridge {catalog.id} --from {stream.sender} first"
                if later
                else "a bridge has left that series behind"
            ),
            told.batch,
        )
    folded = series.folded(batch)
    if not folded:
        raise InputError(
            "snapshot.unknown_batch",
            f"快照 {told.batch} 的编号没有指明 {stream.sender} 在其之前宣告过的批次（应为 P日期-序号:批次号），无从得知它截至何处；请向 {stream.sender} 查询",
            f"the number of snapshot {told.batch} names no batch that {stream.sender} anchored before it (P<day>-<n>:<batch>), so it cannot "
            f"be told how far it goes: ask {stream.sender}",
            told.batch,
        )
    inside = {it.batch_id for it in folded}
    own = {it.batch_id for it in series.batches}
    unknown = [it.descriptor.batch for it in ledger.open if it.sent and it.batch_id in own - inside]
    if unknown:
        raise InputError(
            "snapshot.later_open",
            f"快照截至 {folded[-1].descriptor.batch}，其后的批次 {'、'.join(unknown)} 本方尚无条目：无法分清哪些行属于后来；请先 receive 或 "
            f"import entries，或请 {stream.sender} 重新快照",
            f"the snapshot goes up to {folded[-1].descriptor.batch}, and the entries of {', '.join(unknown)}, announced after it, are not "
            f"known here: which rows came later cannot be told; receive them (or import entries) first, or ask {stream.sender} for another "
            "snapshot",
            told.batch,
        )
    return Awaited(keys.catalog, batch, folded, ledger, keys, ledger.after(folded[-1]))
