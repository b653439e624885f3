"""A source against the chain: entry files against on-chain roots first, then live rows (design sections 3 and 4)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ledger.batch.book import StreamLedger
from ledger.batch.build import result_of, row_versions
from ledger.batch.column import batch_mask
from ledger.batch.engine import compare_rows
from ledger.batch.job import Job
from ledger.batch.joint import Joint
from ledger.batch.stream import AnnouncedBatch
from ledger.catalog import Catalog
from ledger.errors import LedgerError
from ledger.kernel.entries import Kernel
from ledger.keys import CatalogKeys
from ledger.progress import watched
from ledger.reconcile.compare import Comparer, Comparison
from ledger.reconcile.findings import STATES, Counts, Finding, Verdict
from ledger.reconcile.gone import erasable_notes, erased_by_sender
from ledger.reconcile.kept import Kept
from ledger.reconcile.lawful import consents, open_for_all
from ledger.reconcile.older import merged, older_rows
from ledger.reconcile.scope import WHOLE, Scope
from ledger.source.source import Source


@dataclass(frozen=True)
class Reconciliation:
    """The report of one reconciliation. `read_mark` says when its reading began (microseconds, hex: it sorts); `notes` are (Chinese, English) remarks that weaken or limit the answer.

    `scope` is what was asked for; where that is not everything, counts, findings and batches are those of the scope alone.
    """

    catalog: str
    verdict: Verdict
    against: Mapping[str, object]
    counts: Counts
    findings: tuple[Finding, ...]
    accepted: tuple[Mapping[str, str], ...]
    newly_seen_keys: Sequence[Mapping[str, str]]
    batches: tuple[Mapping[str, object], ...]
    notes: tuple[tuple[str, str], ...]
    updated_keys: tuple[Mapping[str, str], ...] = ()
    erased: tuple[str, ...] = ()  # key tags in hex: erased here, and the row is gone
    scope: Scope = WHOLE
    read_mark: str = field(default="", repr=False, compare=False)
    ledger: StreamLedger | None = field(default=None, repr=False, compare=False)  # None once the report is on record

    def live_batch(self, key_tag: bytes) -> str | None:
        """The number of the batch that carries a key's live version; None if no batch does, or it was withdrawn."""
        if self.ledger is None:
            raise ValueError("a report on record no longer holds the ledger")
        for ledger in (self.ledger, *(it.ledger for it in self.ledger.left if key_tag in it.tags)):
            key = ledger.history.find(key_tag)
            if key >= 0 and ledger.history.live[key]:
                return ledger.numbers[ledger.history.latest(key).batch]
        return None

    def as_json(self) -> dict[str, object]:
        """The JSON of design section 7; findings sorted by key."""
        counts = {name: getattr(self.counts, name) for name in Counts.__dataclass_fields__}
        asked = {} if self.scope.whole else {"scope": self.scope.as_json()}
        return {
            "catalog": self.catalog,
            "verdict": str(self.verdict),
            **asked,
            "against": dict(self.against),
            "counts": counts,
            "balance": {
                "source_rows": [self.counts.source, self.counts.source_sum],
                "ledger_keys": [self.counts.ledger, self.counts.ledger_sum],
            },
            "states": {state: sum(finding.state == state for finding in self.findings) for state in STATES},
            "findings": [finding.as_json() for finding in self.findings],
            "accepted": [dict(key) for key in self.accepted],
            "newly_seen": [dict(key) for key in self.newly_seen_keys],
            "updated": [dict(key) for key in self.updated_keys],
            "erased": list(self.erased),
            "batches": [dict(batch) for batch in self.batches],
            "notes": [{"zh": zh, "en": en} for zh, en in self.notes],
        }


@dataclass(frozen=True)
class Reading:
    """A source read and compared, with the consistent read still open in `table`, which shows it as records of `catalog`.

    `joint` is the same read for the older versions of the catalog, None where nothing was left behind; `tails` gives for each row of
    an older series that was read, by its key tag there, what it is in the present one: tag and commitment. `kept` has the rows that may
    be anchored, if they were to be kept, and the read was of one version.
    """

    catalog: Catalog
    ledger: StreamLedger
    keys: CatalogKeys
    table: Source
    comparison: Comparison
    report: Reconciliation
    joint: Joint | None = None
    tails: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    kept: Kept | None = None


def reconcile(job: Job, catalog: Catalog, *, show_values: bool = False, scope: Scope = WHOLE) -> Reconciliation:
    """Reconcile the catalog's source with the live state of its stream, re-deriving everything.

    `undetermined` if a batch was announced whose lawful entries are not known here and nothing else was found;
    `differences_partial` if something was found as well: the list cannot be complete. With a `scope` that is not the whole stream all
    this is said of the scope alone, and `matched_in_scope` stands for `matched`.
    """
    with read_and_compare(job, catalog, show_values=show_values, scope=scope) as reading:
        return reading.report


@contextmanager
def read_and_compare(
    job: Job, catalog: Catalog, *, show_values: bool = False, scope: Scope = WHOLE, keep: bool = False
) -> Iterator[Reading]:
    """Compare, and keep the consistent read open so that what is sealed is what was compared. With `keep`, of
    the whole stream only, rows that may be anchored are kept."""
    source = job.workspace.source(catalog)
    read_mark = f"{time.time_ns() // 1000:014x}"
    with ExitStack() as stack:
        ledger, keys, table, joint = stack.enter_context(open_for_all(job, catalog))
        # Of a stream that is sent to us the sender decides which version its records are of.
        catalog = keys.catalog
        kernel = Kernel(catalog, keys)
        picked = scope.pick(ledger.stream, _versions(job, ledger), catalog)
        accepted, removed = consents(job, ledger, picked)
        # Rows that no batch knows belong to a batch only if they say so.
        claims = scope.batch if source.batch_column is not None else None
        open_version = stack.enter_context(job.book.opener(ledger.known, catalog, keys))
        comparer = Comparer(
            catalog,
            source.origin,
            ledger.history,
            ledger.numbers,
            open_version,
            accepted=accepted,
            removed=removed,
            show_values=show_values,
            scope=None if scope.whole else _keys_in(ledger, picked),
            erased=ledger.erased,
        )
        older = older_rows(
            job,
            ledger,
            stack,
            origin=source.origin,
            show_values=show_values,
            picked=None if scope.whole else picked,
            consents=[consents(job, it.ledger, picked, it.tags) for it in ledger.left],
        )
        # A run that was cut off begins this reading anew: its transaction is gone, and parts of two states of the source are no
        # state that ever was.
        # All rows, whatever the scope: only its normal form tells the key of a row, so no query can leave rows out, and a row
        # that was moved to another batch number, or entered twice, must not get away.
        kept = Kept() if keep and scope.whole and joint is None else None
        if joint is None:
            compare_rows(table, kernel, comparer, claims, None if kept is None else kept.add)
        else:
            for chunk in watched("比对数据源", "comparing the source", joint.table.scan(), joint.table.about_rows):
                result = kernel.run(joint.part(chunk, catalog))
                rows = np.ones(len(chunk), np.bool_)
                for it in older:
                    # A row stands under one series only, the newest that knows it.
                    rows &= ~it.take(chunk, joint, result, ledger, keys, rows)
                comparer.add(
                    int(rows.sum()),
                    chunk.numbers,
                    result_of(result, rows),
                    row_versions=row_versions(chunk),
                    claimed=None if claims is None else batch_mask(chunk, claims) & rows,
                )
        comparison = merged(comparer.finish(), older)
        erasable = [
            (catalog, erased_by_sender(catalog, ledger, open_version)),
            *((it.catalog, erased_by_sender(it.catalog, it.left.ledger, it.open_version)) for it in older),
        ]
        if not comparison.counts.balanced:
            raise LedgerError(
                "reconcile.unbalanced",
                f"程序内部错误：计数不平衡 {comparison.counts}",
                f"internal error: the counts do not balance: {comparison.counts}",
                table.where,
            )
        report = _report(job, catalog, table, ledger, comparison, scope, picked, read_mark, joint)
        report = replace(report, notes=(*report.notes, *(note for it in erasable for note in erasable_notes(*it))))
        tails = {tag: tail for it in older for tag, tail in it.tails.items()}
        yield Reading(catalog, ledger, keys, table, comparison, report, joint, tails, kept)


def _versions(job: Job, ledger: StreamLedger) -> list[AnnouncedBatch]:
    """The batches of all series that carry versions, bridges among them."""
    return [batch for series in job.series(ledger.stream).series for batch in series.batches]


def _open_in(ledger: StreamLedger, batches: Sequence[AnnouncedBatch], picked: frozenset[str]) -> list[AnnouncedBatch]:
    """Batches whose content is not known here and that may carry a later version of a key of the scope: those of the scope, and all
    after its first."""
    first = next((at for at, batch in enumerate(batches) if batch.batch_id in picked), len(batches))
    later = {batch.batch_id for batch in batches[first:]}
    return [batch for batch in ledger.open if batch.batch_id in later]


def _keys_in(ledger: StreamLedger, picked: frozenset[str]) -> npt.NDArray[np.bool_]:
    """The keys whose latest version, a withdrawal included, stands in one of these batches."""
    places = [at for at, batch in enumerate(ledger.known) if batch.announced.batch_id in picked]
    found: npt.NDArray[np.bool_] = np.isin(ledger.history.latest_batches(), places)
    return found


def _report(
    job: Job,
    catalog: Catalog,
    table: Source,
    ledger: StreamLedger,
    comparison: Comparison,
    scope: Scope,
    picked: frozenset[str],
    read_mark: str,
    joint: Joint | None,
) -> Reconciliation:
    identity = job.link.identity
    against = {
        "chain_id": identity.chain_id,
        "contract": identity.contract,
        "block": job.view.block,
        "time": job.view.time,
        "position": job.view.position,
        "source": table.where,
        "origin": job.workspace.source(catalog).origin,
        "sender": ledger.stream.sender,
        "ignored_columns": list(table.ignored),
    }
    versions = _versions(job, ledger)
    batches = [batch for batch in versions if batch.batch_id in picked]
    waiting = _open_in(ledger, versions, picked)
    notes = [
        *_scope_notes(ledger, comparison, scope, batches),
        *_version_notes(job, catalog, ledger),
        *_notes(job, ledger, _receivable(job, ledger, waiting)),
        *_left_notes(ledger, joint),
        *ledger.notes,
        *table.notes,
    ]
    return Reconciliation(
        catalog.name,
        _verdict(comparison, scope, open_batches=bool(waiting)),
        against,
        comparison.counts,
        comparison.findings,
        comparison.accepted,
        comparison.newly_seen_keys,
        tuple(_batch_json(job, ledger, batch) for batch in batches),
        tuple(notes),
        comparison.updated_keys,
        tuple(tag.hex() for tag in comparison.erased),
        scope,
        read_mark,
        ledger,
    )


def _verdict(comparison: Comparison, scope: Scope, *, open_batches: bool) -> Verdict:
    if open_batches:
        return Verdict.DIFFERENCES_PARTIAL if comparison.findings else Verdict.UNDETERMINED
    if comparison.findings:
        return Verdict.DIFFERENCES
    return Verdict.MATCHED if scope.whole else Verdict.MATCHED_IN_SCOPE


def _batch_json(job: Job, ledger: StreamLedger, batch: AnnouncedBatch) -> dict[str, object]:
    known = {it.announced.batch_id for it in ledger.known}
    if batch.batch_id not in known and batch not in ledger.open:
        # Of an older series.
        with job.store.read() as session:
            known |= {batch.batch_id} if job.book.lawful_set(session, batch) is not None else set()
    sent, held = batch.announced, batch.received[-1] if batch.received else None
    return {
        "batch": batch.descriptor.batch,
        "batch_id": batch.batch_id,
        "kind": batch.descriptor.kind,
        "size": None if sent is None else sent.size,
        "root": None if sent is None else sent.root,
        "revision": None if sent is None else sent.revision,
        "held_size": None if held is None else held.size,
        "held_root": None if held is None else held.root,
        "held_revision": None if held is None else held.revision,
        "lawful_entries_known": batch.batch_id in known,
        "sender_revised_after_receipt": batch.revised_after_receipt,
    }


def _left_notes(ledger: StreamLedger, joint: Joint | None) -> Iterator[tuple[str, str]]:
    """What is still compared under an older series."""
    for left in ledger.left:
        live = len(left.live)
        if live:
            name = left.keys.catalog.name
            yield (
                f"有 {live} 条记录衔接时未随迁，仍按其最后上链的系列（目录 {name}）比对",
                f"{live} record(s) were left behind by a bridge and are compared under the series of their last anchor ({name})",
            )
    if joint is not None and joint.lost:
        names = "、".join(joint.lost)
        yield (
            f"旧版目录的字段 {names} 在表中已无对应的列，按空值比对",
            f"the table has no column any more for {', '.join(joint.lost)} of an older version: compared as null",
        )


def _scope_notes(
    ledger: StreamLedger, comparison: Comparison, scope: Scope, batches: Sequence[AnnouncedBatch]
) -> Iterator[tuple[str, str]]:
    """What a part that was asked for does not say about the whole."""
    if scope.whole:
        return
    numbers = [batch.descriptor.batch for batch in batches]
    yield (
        f"只核对了一部分：批次 {'、'.join(numbers)}；范围外的 {comparison.keys_outside} 个主键和 {comparison.rows_outside} 行不在此结论内",
        f"only a part was asked for: {', '.join(numbers)}; {comparison.keys_outside} keys and {comparison.rows_outside} rows outside "
        "it are not judged here",
    )
    outside = [batch.descriptor.batch for batch in ledger.open if batch.batch_id not in {it.batch_id for it in batches}]
    if outside:
        yield (
            f"范围外的批次 {'、'.join(outside)} 尚无合法内容，其中可能有范围内主键的更新版本或撤回",
            f"the content of {', '.join(outside)}, outside the scope, is not known here: they may carry later versions or withdrawals of "
            "keys inside",
        )


def _version_notes(job: Job, catalog: Catalog, ledger: StreamLedger) -> Iterator[tuple[str, str]]:
    column = job.workspace.source(catalog).row_version_column
    if column is not None and len(ledger.history) and ledger.history.row_versions is None:
        yield (
            f"已上链的行都没有记录行版本（{column}）：它们的改动仍算差异；下一次 anchor 会为一致的行补记",
            f"nothing was anchored with a row version ({column}) yet: changes stay findings; the next anchor records it for rows that match",
        )


def _receivable(job: Job, ledger: StreamLedger, waiting: Sequence[AnnouncedBatch]) -> list[AnnouncedBatch]:
    """Those that can be received now: what comes after a bridge that waits is told by a note of its own."""
    arranged, current = job.series(ledger.stream), job.current(ledger.stream)
    later = {
        it.batch_id for series in arranged.series[(current.number if current else -1) + 1 :] for it in series.every
    }
    return [it for it in waiting if it.batch_id not in later]


def _notes(job: Job, ledger: StreamLedger, waiting: Sequence[AnnouncedBatch]) -> tuple[tuple[str, str], ...]:
    notes = [
        (
            f"批次 {batch.descriptor.batch} 已宣告（{batch.announced.size if batch.announced else '?'} 条），但本方尚无其合法内容：请 receive",
            f"batch {batch.descriptor.batch} was announced ({batch.announced.size if batch.announced else '?'} entries); its lawful "
            "content is not known here: receive it",
        )
        for batch in waiting
    ]
    if not job.streams.batches(ledger.stream):
        notes.append(
            (
                "该数据流在链上尚无批次，没有可以比对的内容" if ledger.stream.receiver else "本方尚未封存该数据源",
                "no batch of this stream is on chain yet: there is nothing to compare with"
                if ledger.stream.receiver
                else "nothing of this source was sealed yet",
            )
        )
    for stream in job.streams.of_catalog(ledger.stream.catalog_id, receiver=job.party):
        if ledger.stream.receiver and not job.workspace.has_key(stream.sender):
            notes.append(
                (
                    f"{stream.sender} 也向本方宣告了批次，但没有与其共享的密钥，不计",
                    f"{stream.sender} announced batches to us as well, but we share no key with it: they do not count",
                )
            )
    notes += [
        (
            f"链上批次 {refused.batch_id[:16]} 不计：{refused.zh}",
            f"batch {refused.batch_id[:16]} on chain does not count: {refused.en}",
        )
        for refused in job.streams.refused
    ]
    return tuple(notes)
