"""Own sources: sealing new rows, anchoring updated ones, accepting a change, withdrawing a record (design section 4).

Sealing means first seen on this day, nothing more. An anchored row that changed is updated if its row version says so, and stays a
finding otherwise, until somebody accepts it by name; rows with findings are never anchored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ledger.anchor.claims import propose
from ledger.batch.book import StreamLedger, now, save_batch
from ledger.batch.build import Builder, Built, result_of
from ledger.batch.engine import rows_among
from ledger.batch.job import Job
from ledger.batch.keyarg import key_label, parse_key_argument
from ledger.batch.numbering import today, used_numbers
from ledger.batch.stream import StreamId
from ledger.catalog import Catalog
from ledger.chain.registry import AnchorRecord
from ledger.descriptor import Descriptor
from ledger.errors import InputError
from ledger.kernel.chunk import Chunk
from ledger.kernel.entries import Kernel, Result
from ledger.kernel.sorting import TAG, EntryIndex, order_of, words_of
from ledger.reconcile.approval import Asked, Proposed, Request, Seconded, close, lapse, person, propose_all, review
from ledger.reconcile.findings import Finding, Kind
from ledger.reconcile.lawful import load_ledger
from ledger.reconcile.source import Reading, Reconciliation, read_and_compare
from ledger.record import MASK, REASONS, record_key, withdrawal
from ledger.store import models
from ledger.store.archive import ArchiveWriter

ACCEPTABLE = (Kind.ALTERED, Kind.STALE, Kind.NOT_WITHDRAWN)
"""Findings that `accept` makes lawful; a missing row is a matter of `withdraw`, an unreadable or repeated one of the source."""


@dataclass(frozen=True)
class Anchored:
    """A batch of an own source on chain; `kind` is `sealed` (new rows) or `correction`."""

    number: str
    batch_id: str
    record: AnchorRecord
    kind: str


@dataclass(frozen=True)
class _Draft:
    """A batch about to be recorded."""

    descriptor: Descriptor
    catalog: Catalog
    built: Built
    archive: ArchiveWriter | None


def seal(job: Job, catalog: Catalog) -> tuple[Reconciliation, tuple[Anchored, ...]]:
    """Reconcile an own source, then anchor what may be, all from one consistent read: a sealed batch of the rows no batch knows, a
    correction of the rows that were updated. Either may be empty, and is then no batch.

    Rows that match and were anchored before their row version was known go into the correction as well: anchored again, with it.
    """
    own_source(job, catalog)
    with read_and_compare(job, catalog, keep=True) as reading:
        _lapse(job, reading)
        found = reading.comparison
        corrected = np.concatenate([found.updated, found.unversioned])
        wanted = [
            (_descriptor(job, catalog, kind), rows)
            for kind, rows in (("sealed", found.newly_seen), ("correction", corrected))
            if len(rows)
        ]
        if not wanted:
            return reading.report, ()
        with ExitStack() as stack:
            drafts = _drafts(job, reading, wanted, stack)
            _record(job, reading.ledger, drafts)
    return reading.report, _anchor(job, drafts)


def accept(job: Job, catalog: Catalog, keys: Sequence[str], *, reason: str, by: str) -> Anchored | Proposed:
    """Make the present rows of the named keys lawful by a correction batch; where the workspace asks for a second person, that is what
    happens when he asks for the same, and before it is only proposed.

    InputError `accept.*` for a key whose row is not altered, stale or back after a withdrawal, `consent.*` of `review`; then nothing
    is written.
    """
    own_source(job, catalog)
    _said(reason, by)
    with read_and_compare(job, catalog, keep=True) as reading:
        asked = {it.tag: it for it in (_acceptable(reading, catalog, text) for text in keys)}
        request = Request(catalog.id, "accept", tuple(asked.values()), reason, by)
        seconded = _second(job, request)
        if isinstance(seconded, Proposed):
            return seconded
        with ExitStack() as stack:
            rows = b"".join(it.tag + bytes.fromhex(it.commitment) for it in request.asked)
            wanted = [(_descriptor(job, catalog, "correction"), np.frombuffer(rows, np.uint8).reshape(-1, 48))]
            drafts = _drafts(job, reading, wanted, stack)
            _record(job, reading.ledger, drafts, request, seconded)
    return _anchor(job, drafts)[0]


def withdraw(job: Job, catalog: Catalog, keys: Sequence[str], *, reason: str, by: str) -> Anchored | Proposed:
    """Withdraw the named keys by a correction batch; the rows themselves are the operator's to delete. With a second person as for
    `accept`.

    InputError `withdraw.*` for a reason that is not listed or a key without a live version, `consent.*`; then nothing is written.
    """
    own_source(job, catalog)
    _said(reason, by)
    if reason not in REASONS:
        raise InputError(
            "withdrawal.reason",
            f"撤回原因“{reason}”不在列表中：{' '.join(REASONS)}",
            f"withdrawal reason {reason!r} is not one of {' '.join(REASONS)}",
            "--reason",
        )
    ledger, series = load_ledger(job, catalog)
    asked: dict[bytes, Asked] = {}
    withdrawals: dict[bytes, bytes] = {}
    for text in keys:
        values = parse_key_argument(catalog, text)
        tag = series.key_tag(record_key(catalog, values))
        key = ledger.history.find(tag)
        label = key_label(catalog, values)
        if key < 0 or not ledger.history.live[key]:
            raise InputError(
                "withdraw.not_live",
                f"记录 {label} 没有有效的上链版本，无可撤回",
                f"record {label} has no live anchored version, there is nothing to withdraw",
                "KEY",
            )
        asked[tag] = Asked(tag, label, _masked(catalog, values))
        withdrawals[tag] = withdrawal(catalog, values, reason)
    request = Request(catalog.id, "withdraw", tuple(asked.values()), reason, by)
    seconded = _second(job, request)
    if isinstance(seconded, Proposed):
        return seconded
    descriptor = _descriptor(job, catalog, "correction")
    with job.book.archive_writer(catalog, descriptor.batch_id.hex()) as archive:
        builder = Builder(catalog, series, archive=archive)
        for tag, canonical in withdrawals.items():
            builder.add_withdrawal(tag, canonical, ledger.history.latest(ledger.history.find(tag)).subject_tag)
        drafts = [_Draft(descriptor, catalog, builder.finish(catalog.id), archive)]
        _record(job, ledger, drafts, request, seconded)
    return _anchor(job, drafts)[0]


def own_source(job: Job, catalog: Catalog) -> None:
    """Refuse a source whose rows come from a sender: there only the sender's anchor makes anything lawful."""
    if job.workspace.source(catalog).origin != "own":
        raise InputError(
            "own.delivery_source",
            f"[source.{catalog.id}] 的 origin 为 delivery：只有发送方的上链能使改动合法，本方不得封存、认可或撤回",
            f'[source.{catalog.id}] has origin "delivery": only the sender\'s anchor makes a change lawful; nothing here is sealed, '
            "accepted or withdrawn",
            catalog.id,
        )


def _acceptable(reading: Reading, catalog: Catalog, text: str) -> Asked:
    values = parse_key_argument(catalog, text)
    tag = reading.keys.key_tag(record_key(catalog, values))
    label = key_label(catalog, values)
    if tag in reading.ledger.erased:
        raise InputError(
            "accept.erased",
            f"记录 {label} 的原文已在本方删除，其行不能再被认可；请从数据源删除该行",
            f"record {label} was erased here: no row of it is accepted again; delete the row from the source",
            "KEY",
        )
    found: Finding | None = next((f for f in reading.comparison.findings if f.key_tag == tag.hex()), None)
    if found is not None and found.kind in ACCEPTABLE:
        return Asked(tag, label, _masked(catalog, values), str(found.observed))
    if found is None:
        if (reading.comparison.updated[:, :16] == np.frombuffer(tag, np.uint8)).all(axis=1).any():
            state_zh, state_en = (
                "的行版本更高，是更新；由 anchor 上链",
                "has a higher row version: it is updated, anchor anchors it",
            )
        elif reading.ledger.history.find(tag) >= 0:
            state_zh, state_en = "与上链版本一致，无须认可", "matches its anchored version"
        else:
            state_zh, state_en = "从未上链；新行由 anchor 封存", "was never anchored; anchor seals new rows"
    elif found.kind is Kind.MISSING:
        state_zh, state_en = "已不在数据源中；删除请用 withdraw", "is gone from the source; use withdraw"
    else:
        state_zh, state_en = f"为 {found.kind}，须先改正数据源", f"is {found.kind}; the source must be mended first"
    raise InputError("accept.nothing", f"记录 {label} {state_zh}", f"record {label} {state_en}", "KEY")


def _second(job: Job, request: Request) -> Proposed | Seconded:
    """What the workspace's number of approvers makes of a request; a proposal is recorded here."""
    if job.workspace.config.approvers < 2:
        return {}
    reviewed = review(job.store, request)
    if isinstance(reviewed, Proposed):
        propose_all(job.store, reviewed)
    return reviewed


def _lapse(job: Job, reading: Reading) -> None:
    """Proposals about rows that are no longer as they were proposed, or about keys that are gone, wait for nobody."""
    observed = {f.key_tag: f.observed for f in reading.comparison.findings if f.kind in ACCEPTABLE}
    history = reading.ledger.history

    def holds(proposal: models.Proposal) -> bool:
        if proposal.action == "accept":
            return observed.get(proposal.key_tag) == proposal.commitment
        key = history.find(bytes.fromhex(proposal.key_tag))
        return key >= 0 and bool(history.live[key])

    lapse(job.store, reading.catalog.id, holds)


def _drafts(
    job: Job, reading: Reading, wanted: Sequence[tuple[Descriptor, npt.NDArray[np.uint8]]], stack: ExitStack
) -> list[_Draft]:
    """The batches of exactly the rows wanted (tag and commitment, (n,48)): as they were kept, or, of more than are kept, read again in the
    same consistent read; archives stay open in `stack`.

    InputError `source.changed` if a second reading does not give the rows that were compared: not every database keeps its word.
    """
    catalog = reading.catalog
    begun: list[tuple[Descriptor, EntryIndex, Builder, ArchiveWriter | None]] = []
    for descriptor, rows in wanted:
        entries = np.zeros((len(rows), 64), np.uint8)
        entries[:, TAG.start :] = rows
        archive = stack.enter_context(job.book.archive_writer(catalog, descriptor.batch_id.hex()))
        begun.append((descriptor, EntryIndex(entries), Builder(catalog, reading.keys, archive=archive), archive))
    kept = None if reading.kept is None else reading.kept.pairs
    if kept is None:
        tags = np.concatenate([np.zeros((0, 16), np.uint8), *(rows[:, :16] for _, rows in wanted)])
        pairs: Iterable[tuple[Chunk, Result]] = rows_among(reading.table, Kernel(catalog, reading.keys), tags)
    else:
        pairs = kept
    for chunk, result in pairs:
        found = np.ascontiguousarray(result.entries[:, TAG])
        for _, index, builder, _ in begun:
            keep = np.zeros(len(chunk), np.bool_)
            keep[result.rows] = index.lookup(found) >= 0
            if keep.any():
                builder.add_result(chunk, result_of(result, keep))
    drafts = [
        _Draft(descriptor, catalog, builder.finish(reading.table.where), archive)
        for descriptor, _, builder, archive in begun
    ]
    for draft, (_, rows) in zip(drafts, wanted, strict=True):
        same = _sorted(draft.built.entries[:, TAG.start :])
        if not np.array_equal(same, _sorted(rows)):
            raise InputError(
                "source.changed",
                "读取期间数据源发生变化：要上链的行已不是比对时的内容；请重新执行",
                "the source changed while it was read: the rows to anchor are not those that were compared; run it again",
                reading.table.where,
            )
    return drafts


def _record(
    job: Job,
    ledger: StreamLedger,
    drafts: Sequence[_Draft],
    request: Request | None = None,
    seconded: Seconded | None = None,
) -> None:
    """The intent, whole or not at all: batches, entries, archives, claims and who said so.

    All in one transaction: whoever finishes an interrupted run finds every batch of the read, or none.
    """
    with job.store.write() as session:
        for draft in drafts:
            save_batch(session, draft.descriptor, ledger.stream, draft.catalog)
            entry_set = job.book.save_set(
                session, draft.descriptor.batch_id.hex(), "lawful", draft.built, draft.archive
            )
            propose(session, entry_set, known_revisions=0)
        if request is not None:
            batch_id = drafts[0].descriptor.batch_id.hex()
            session.add_all(
                _consent(batch_id, request, asked, (seconded or {}).get(asked.tag)) for asked in request.asked
            )
            close(session, request)


def _consent(batch_id: str, request: Request, asked: Asked, proposal: models.Proposal | None) -> models.Consent:
    reason = request.reason
    if proposal is not None and proposal.reason != reason:
        reason = f"{proposal.reason}；{reason}"
    return models.Consent(
        batch_id=batch_id,
        key_tag=asked.tag.hex(),
        action=request.action,
        reason=reason,
        approved_by=request.by,
        proposed_by=None if proposal is None else proposal.proposed_by,
        created_at=now(),
    )


def _anchor(job: Job, drafts: Sequence[_Draft]) -> tuple[Anchored, ...]:
    job.anchor()
    return tuple(
        Anchored(it.batch, it.batch_id.hex(), job.anchored(it.batch_id.hex()), it.kind)
        for it in (draft.descriptor for draft in drafts)
    )


def _descriptor(job: Job, catalog: Catalog, kind: str) -> Descriptor:
    """The next batch of the own stream: numbered by the catalog's day, which is fixed here, in the intent."""
    key = job.workspace.exchange_key()
    stream = StreamId(catalog.id, job.party, "")
    day, used = today(catalog), used_numbers(job, stream)
    letter = {"sealed": "S", "correction": "C"}[kind]
    number = next(name for n in range(1, len(used) + 2) if (name := f"{letter}{day:%Y%m%d}-{n}") not in used)
    return job.descriptor(catalog, key, stream, number=number, kind=kind, period=day.isoformat())


def _sorted(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Rows (n,48) as words, in the order of their tags, of which no two are alike."""
    return words_of(rows[order_of(rows[:, :16])])


def _said(reason: str, by: str) -> None:
    for name, value in (("--reason", reason), ("--by", by)):
        if not person(value):
            raise InputError("consent.empty", f"{name} 不得为空", f"{name} must not be empty", name)


def _masked(catalog: Catalog, values: Mapping[str, str]) -> dict[str, str]:
    return {name: MASK if catalog.by_name[name].personal else value for name, value in values.items()}
