"""The receiver's side of a delivery (design section 4).

`incoming.take_file` decides whether a delivered file is what the sender anchored; `land` looks at what is in the source and anchors it. The
sender's anchor alone makes entries lawful: ours states what we hold, and may state a wrong row.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from ledger.anchor.claims import propose
from ledger.batch.book import KnownBatch, StreamLedger, now, save_batch
from ledger.batch.build import Builder, Built, result_of
from ledger.batch.history import History, Version
from ledger.batch.intake import FileOptions
from ledger.batch.job import Job
from ledger.batch.stream import AnnouncedBatch, StreamId
from ledger.catalog import Catalog
from ledger.chain.registry import AnchorRecord
from ledger.counterpart.sketches import answering_sketch
from ledger.delivery.closing import close_batch, closing_of, refuse_closed
from ledger.delivery.decoding import Learnt, learn_lawful
from ledger.delivery.incoming import Delivered, Incoming, expect, ledger_of, load_file, take_file
from ledger.delivery.landing import Expected, Landing, Tags, start_landing
from ledger.errors import InputError
from ledger.kernel.sorting import TAG, EntryIndex
from ledger.reconcile.compare import Comparer, OpenVersion
from ledger.reconcile.findings import Finding, Verdict
from ledger.store import models
from ledger.store.archive import among


@dataclass(frozen=True)
class Received:
    """The outcome of a receive. `held` is what was anchored as landed, None where nothing could be said (undetermined).

    `settled` counts differing keys that a later batch carries; `notes` are (Chinese, English) remarks that weaken the answer.
    """

    batch: AnnouncedBatch
    verdict: Verdict
    held: Built | None
    anchored: AnchorRecord | None
    findings: tuple[Finding, ...]
    settled: int
    delivered: Delivered | None
    notes: tuple[tuple[str, str], ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """That of the verdict; at least 1 where rows were set aside or the file is not what the sender anchored."""
        odd = self.delivered is not None and (self.delivered.set_aside or not self.delivered.lawful)
        return max(self.verdict.exit_code, 1 if odd else 0)


def receive(
    job: Job,
    catalog: Catalog,
    file: FileOptions | None,
    *,
    number: str,
    sender: str,
    load: bool = False,
    final: bool = False,
) -> Received:
    """Receive one batch; provisional while the roots differ: receiving again anchors a revision as rows land.

    With `final` it is closed afterwards: nothing that lands later is anchored. InputError `receive.closed` for one that was closed.
    """
    incoming = expect(job, catalog, number=number, sender=sender)
    refuse_closed(job, incoming.batch, final=final)
    if load and file is None:
        raise InputError("receive.load_without_file", "--load 须同时给出文件", "--load needs a file", "--load")
    delivered = take_file(job, incoming, file) if file is not None else None
    baseline = None
    if file is not None and load:
        baseline = _baseline_before_load(job, incoming)
        load_file(job, incoming, file)
    received = land(job, incoming, delivered, baseline=baseline)
    if final and received.held is not None:
        with job.store.write() as session:
            close_batch(session, incoming.batch.batch_id, "final")
    return received


def land(job: Job, incoming: Incoming, delivered: Delivered | None = None, *, baseline: Tags | None = None) -> Received:
    """Look at what landed, anchor it if it differs from our last revision, and say how it stands to the sender's anchor."""
    batch, catalog, keys = incoming.batch, incoming.catalog, incoming.keys
    ledger = ledger_of(job, incoming)
    known = next((k for k in ledger.known if k.announced.batch_id == batch.batch_id), None)
    by_column = incoming.source.batch_column is not None
    expected = _expected(job, incoming, ledger, known, delivered, baseline)
    if expected.delivered is None and not by_column:
        learnt = learn_lawful(job, incoming, ledger, None)
        return land(job, incoming) if learnt.lawful else _undetermined(batch, learnt.notes)
    landing = start_landing(catalog, keys, expected)
    with job.book.archive_writer(catalog, batch.batch_id) as archive:
        builder = Builder(catalog, keys, archive=archive)
        with job.book.opener([] if known is None else [known], catalog, keys) as open_version:
            comparer = _comparer(incoming, ledger, known, landing, open_version)
            lawful = None if known is None else EntryIndex(known.entries.entries)
            with job.workspace.open_source(catalog) as table:
                for chunk, result in landing.rows(table):
                    if comparer is not None:
                        comparer.add(len(result.rows) + len(result.refused), chunk.numbers, result)
                    if lawful is None or known is None:
                        builder.add_result(chunk, result)
                        continue
                    same = _held_alike(result.entries, known.entries.entries, lawful)
                    mask = np.zeros(len(chunk), np.bool_)
                    mask[result.rows[same]] = True
                    builder.add_entries(result.entries[same], np.zeros(int(same.sum()), np.bool_))
                    builder.add_result(chunk, result_of(result, ~mask))
            findings = comparer.finish().findings if comparer is not None else ()
        nothing = known is None and delivered is None and not builder.rows
        _add_gone(builder, expected, landing)
        builder.drop_repeated()
        held = builder.finish()
        anchor = batch.sent[-1]
        equal = (held.size, held.root) == (anchor.size, anchor.root)
        learnt = Learnt(lawful=False)
        if known is None and not equal:
            learnt = learn_lawful(job, incoming, ledger, held.entries)
            if learnt.lawful:
                # What landed is looked at again, now against the sender's own entries.
                return land(job, incoming, delivered, baseline=baseline)
        if nothing and not equal:
            return _undetermined(batch, learnt.notes)
        sketch = answering_sketch(job, batch, held)
        with job.store.write() as session:
            save_batch(session, batch.descriptor, incoming.stream, catalog)
            # Landed rows that are what the sender anchored are the lawful entries, and the archive is theirs.
            proven = known is None and equal and not held.withdrawn.any()
            if proven:
                job.book.save_set(session, batch.batch_id, "lawful", held, archive)
            held_set = job.book.save_set(session, batch.batch_id, "held", held, None if proven else archive)
            propose(session, held_set, known_revisions=len(batch.received), sketch=sketch)
            if not by_column:
                save_baseline(session, incoming.stream, landing.unknown_tags())
    job.anchor()
    if proven:
        # Now that the lawful entries are known, what landed is compared with them: rows without an entry are findings too.
        return land(job, replace(incoming, batch=job.streams.by_batch[batch.batch_id]), delivered, baseline=baseline)
    anchored = job.anchored(batch.batch_id)
    settled = int(landing.superseded.sum()) if not equal else 0
    erased = 0 if known is None or equal else _erased_apart(known, held, ledger.erased)
    verdict = _verdict(equal or bool(erased), known is not None, findings)
    notes = (*learnt.notes, *_notes(incoming, expected, delivered), *([_erased_note(erased)] if erased else []))
    return Received(batch, verdict, held, anchored, findings, settled, delivered, notes)


def _erased_apart(known: KnownBatch, held: Built, erased: frozenset[bytes]) -> int:
    """How many entries make all the difference between the lawful ones and what we hold, if they are of erased records; else 0."""
    apart = _differing_tags(known.entries.entries, held.entries)
    return len(apart) if among(apart, erased).all() else 0


def _erased_note(count: int) -> tuple[str, str]:
    return (
        f"本方已删除原文的记录 {count} 条不在所持之列，双方的根因此不同；其余一致",
        f"{count} record(s) that were erased here are not held, which is why the roots differ; all else matches",
    )


def _verdict(equal: bool, lawful_known: bool, findings: tuple[Finding, ...]) -> Verdict:
    if equal and not findings:
        return Verdict.MATCHED
    return Verdict.DIFFERENCES if lawful_known else Verdict.DIFFERENCES_PARTIAL


def _expected(
    job: Job,
    incoming: Incoming,
    ledger: StreamLedger,
    known: KnownBatch | None,
    delivered: Delivered | None,
    baseline: Tags | None,
) -> Expected:
    entries, withdrawn = None, None
    if known is not None:
        entries, withdrawn = known.entries.entries, known.entries.withdrawn
    elif delivered is not None:
        entries, withdrawn = delivered.built.entries, delivered.built.withdrawn
    with job.store.read() as session:
        sets = job.book.sets(session, incoming.batch.batch_id, "held")
        claimed = session.scalar(
            select(models.Claim)
            .where(models.Claim.batch_id == incoming.batch.batch_id)
            .order_by(models.Claim.id.desc())
        )
        last = next((s for s in sets if claimed is not None and s.id == claimed.entry_set_id), None)
        if baseline is None and received_before(session, incoming.stream):
            tags = session.scalars(
                select(models.Baseline.key_tag).where(
                    models.Baseline.catalog_id == incoming.catalog.id,
                    models.Baseline.sender_party == incoming.stream.sender,
                )
            )
            baseline = np.frombuffer(bytes.fromhex("".join(tags)), np.uint8).reshape(-1, 16)
    return Expected(
        number=incoming.batch.descriptor.batch,
        batch_column=incoming.source.batch_column is not None,
        delivered=entries,
        withdrawn=withdrawn,
        stream=ledger.history,
        later=ledger.after(incoming.batch),
        baseline=baseline,
        held=None if last is None else job.book.read_set(last).entries,
        apart=ledger.apart,
    )


def received_before(session: Session, stream: StreamId) -> bool:
    """True if we anchored what we hold of any batch of the stream."""
    found = session.scalar(
        select(models.EntrySet.id)
        .join(models.Batch, models.Batch.id == models.EntrySet.batch_id)
        .where(
            models.EntrySet.role == "held",
            models.Batch.catalog_id == stream.catalog_id,
            models.Batch.sender_party == stream.sender,
            models.Batch.receiver_party == stream.receiver,
        )
        .limit(1)
    )
    return found is not None


def _comparer(
    incoming: Incoming, ledger: StreamLedger, known: KnownBatch | None, landing: Landing, open_version: OpenVersion
) -> Comparer | None:
    """Compares the landed rows with the batch's lawful entries; keys that a later batch carries are that batch's matter, and a row
    that equals a version of an earlier batch is stale, as `reconcile` says."""
    if known is None:
        return None
    entries = known.entries
    keep = np.flatnonzero(~landing.superseded)
    history = History([(entries.entries[keep], entries.withdrawn[keep])])

    def open_kept(version: Version) -> bytes | None:
        return open_version(Version(0, int(keep[version.index]), version.withdrawn, version.entry))

    place = next(at for at, batch in enumerate(ledger.known) if batch is known)

    def was_earlier(tag: bytes, commitment: bytes) -> bool:
        versions = ledger.history.versions(ledger.history.find(tag))
        return any(v.batch < place and not v.withdrawn and v.commitment == commitment for v in versions)

    number = incoming.batch.descriptor.batch
    return Comparer(
        incoming.catalog,
        "delivery",
        history,
        [number],
        open_kept,
        was_earlier=was_earlier,
        erased=ledger.erased,
    )


def _add_gone(builder: Builder, expected: Expected, landing: Landing) -> None:
    """Withdrawals whose key is gone, and for keys of later batches what our last revision said."""
    if expected.delivered is not None and expected.withdrawn is not None:
        gone = expected.withdrawn & ~landing.present & ~landing.superseded
        builder.add_entries(expected.delivered[gone], np.ones(int(gone.sum()), np.bool_))
    if expected.held is not None and len(expected.held):
        frozen = expected.held[expected.later.lookup(np.ascontiguousarray(expected.held[:, TAG])) >= 0]
        builder.add_entries(frozen, np.zeros(len(frozen), np.bool_))


def save_baseline(session: Session, stream: StreamId, tags: Tags) -> None:
    """Record the key tags (n,16) of all rows that no batch of the stream knows, in place of those recorded before."""
    session.execute(
        delete(models.Baseline).where(
            models.Baseline.catalog_id == stream.catalog_id,
            models.Baseline.sender_party == stream.sender,
        )
    )
    moment = now()
    session.add_all(
        models.Baseline(catalog_id=stream.catalog_id, sender_party=stream.sender, key_tag=tag, first_seen_at=moment)
        for tag in sorted({row.tobytes().hex() for row in tags})
    )


def _baseline_before_load(job: Job, incoming: Incoming) -> Tags | None:
    """Rows that no batch knows before `--load` writes; None if an earlier receive recorded them."""
    if incoming.source.batch_column is not None:
        return None
    with job.store.read() as session:
        if received_before(session, incoming.stream):
            return None
    ledger = ledger_of(job, incoming)
    landing = start_landing(
        incoming.catalog,
        incoming.keys,
        Expected("", False, None, None, ledger.history, ledger.history, None, None, ledger.apart),
    )
    with job.workspace.open_source(incoming.catalog) as table:
        for _ in landing.rows(table):
            pass
    return np.unique(landing.unknown_tags(), axis=0)


def _undetermined(batch: AnnouncedBatch, notes: tuple[tuple[str, str], ...]) -> Received:
    return Received(
        batch,
        Verdict.UNDETERMINED,
        None,
        None,
        (),
        0,
        None,
        (
            *notes,
            (
                "既无下发文件，也无可归属该批次的行：无法判定；请提供文件，或为数据源配置 batch_column",
                "there is neither the delivered file nor rows that belong to this batch: bring the file, or configure batch_column",
            ),
        ),
    )


def _notes(incoming: Incoming, expected: Expected, delivered: Delivered | None) -> tuple[tuple[str, str], ...]:
    notes = []
    anchor = incoming.batch.sent[-1]
    if delivered is not None and not delivered.lawful:
        notes.append(
            (
                f"文件与发送方上链不符：文件 {delivered.built.size} 条、根 {delivered.built.root[:16]}…；"
                f"链上 {anchor.size} 条、根 {anchor.root[:16]}…。该文件不作依据；上链的是实际入库内容",
                f"the file is not what the sender anchored: file {delivered.built.size} entries, root {delivered.built.root[:16]}…; "
                f"chain {anchor.size} entries, root {anchor.root[:16]}…. It proves nothing; what landed is anchored as it is",
            )
        )
    if not expected.batch_column and expected.baseline is None:
        notes.append(
            (
                "首次接收且数据源无 batch_column：多出的行无从识别",
                "first receive without batch_column: added rows cannot be seen",
            )
        )
    if incoming.batch.revised_after_receipt:
        notes.append(
            ("发送方在我方首次上链之后修订过该批次", "the sender revised this batch after our first anchor"),
        )
    if delivered is not None:
        notes += delivered.notes
    return tuple(notes)


def is_open(job: Job, incoming: Incoming) -> bool:
    """True while a batch should be looked at again: not anchored by us, or the roots differ in keys no later batch carries and that
    were not erased here."""
    batch = incoming.batch
    if not batch.received:
        return True
    anchor, ours = batch.sent[-1], batch.received[-1]
    if (ours.size, ours.root) == (anchor.size, anchor.root) or closing_of(job, batch) is not None:
        return False
    ledger = ledger_of(job, incoming)
    known = next((k for k in ledger.known if k.announced.batch_id == batch.batch_id), None)
    with job.store.read() as session:
        held = next((s for s in job.book.sets(session, batch.batch_id, "held") if s.root == ours.root), None)
    if known is None or held is None:
        return True
    differing = _differing_tags(known.entries.entries, job.book.read_set(held).entries)
    return bool(((ledger.after(batch).lookup(differing) < 0) & ~among(differing, ledger.erased)).any())


def _differing_tags(lawful: npt.NDArray[np.uint8], held: npt.NDArray[np.uint8]) -> Tags:
    only_lawful = lawful[~_held_alike(lawful, held, EntryIndex(held))]
    only_held = held[~_held_alike(held, lawful, EntryIndex(lawful))]
    return np.ascontiguousarray(np.concatenate([only_lawful, only_held])[:, TAG])


def _held_alike(
    these: npt.NDArray[np.uint8], those: npt.NDArray[np.uint8], index_of_those: EntryIndex
) -> npt.NDArray[np.bool_]:
    """Which of `these` entries stand byte for byte among `those`."""
    at = index_of_those.lookup(np.ascontiguousarray(these[:, TAG]))
    same: npt.NDArray[np.bool_] = at >= 0
    same[same] = (those[at[same]] == these[same]).all(axis=1)
    return same
