"""Own sources: sealing new rows, accepting a change, withdrawing a record (design section 4).

Sealing means first seen on this day, nothing more. An anchored row that changed stays a finding until somebody accepts it by name;
rows with findings are never sealed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from ledger.anchor.claims import propose
from ledger.batch.book import StreamLedger, now, save_batch
from ledger.batch.build import Builder, Built, result_of
from ledger.batch.job import Job
from ledger.batch.keyarg import key_label, parse_key_argument
from ledger.batch.stream import StreamId
from ledger.catalog import Catalog
from ledger.chain.registry import AnchorRecord
from ledger.descriptor import Descriptor
from ledger.errors import InputError
from ledger.kernel.sorting import TAG, EntryIndex
from ledger.reconcile.findings import Finding, Kind
from ledger.reconcile.source import Reading, Reconciliation, load_ledger, read_and_compare
from ledger.record import REASONS, record_key, withdrawal
from ledger.source.source import Source
from ledger.store import models
from ledger.store.archive import ArchiveWriter

ACCEPTABLE = (Kind.ALTERED, Kind.STALE, Kind.NOT_WITHDRAWN)
"""Findings that `accept` makes lawful; a missing row is a matter of `withdraw`, an unreadable or repeated one of the source."""


@dataclass(frozen=True)
class Anchored:
    """A batch of an own source on chain: sealed rows, or a correction."""

    number: str
    batch_id: str
    record: AnchorRecord


def seal(job: Job, catalog: Catalog) -> tuple[Reconciliation, Anchored | None]:
    """Reconcile an own source, then seal and anchor the rows no batch knows; both from one consistent read."""
    own_source(job, catalog)
    with read_and_compare(job, catalog) as reading:
        tags = reading.comparison.newly_seen
        if not len(tags):
            return reading.report, None
        descriptor = _descriptor(job, catalog, "sealed", "S")
        with job.book.archive_writer(catalog, descriptor.batch_id.hex()) as archive:
            built = _rows_of(reading, tags, archive)
            _record(job, reading.ledger, descriptor, built, archive)
    return reading.report, _anchor(job, descriptor)


def accept(job: Job, catalog: Catalog, keys: Sequence[str], *, reason: str, by: str) -> Anchored:
    """Make the present rows of the named keys lawful by a correction batch.

    InputError `accept.*` for a key whose row is not altered, stale or back after a withdrawal; then nothing is written.
    """
    own_source(job, catalog)
    _said(reason, by)
    with read_and_compare(job, catalog) as reading:
        tags = [_acceptable(reading, catalog, text) for text in dict.fromkeys(keys)]
        descriptor = _descriptor(job, catalog, "correction", "C")
        with job.book.archive_writer(catalog, descriptor.batch_id.hex()) as archive:
            built = _rows_of(reading, _tags(tags), archive)
            _record(job, reading.ledger, descriptor, built, archive, consent=("accept", tags, reason, by))
    return _anchor(job, descriptor)


def withdraw(job: Job, catalog: Catalog, keys: Sequence[str], *, reason: str, by: str) -> Anchored:
    """Withdraw the named keys by a correction batch; the rows themselves are the operator's to delete.

    InputError `withdraw.*` for a reason that is not listed or a key without a live version; then nothing is written.
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
    descriptor = _descriptor(job, catalog, "correction", "C")
    tags: list[bytes] = []
    with job.book.archive_writer(catalog, descriptor.batch_id.hex()) as archive:
        builder = Builder(catalog, series, archive=archive)
        for text in dict.fromkeys(keys):
            values = parse_key_argument(catalog, text)
            tag = series.key_tag(record_key(catalog, values))
            key = ledger.history.find(tag)
            if key < 0 or not ledger.history.live[key]:
                raise InputError(
                    "withdraw.not_live",
                    f"记录 {key_label(catalog, values)} 没有有效的上链版本，无可撤回",
                    f"record {key_label(catalog, values)} has no live anchored version, there is nothing to withdraw",
                    "KEY",
                )
            if tag in tags:
                continue
            tags.append(tag)
            builder.add_withdrawal(tag, withdrawal(catalog, values, reason), ledger.history.latest(key).subject_tag)
        _record(job, ledger, descriptor, builder.finish(catalog.id), archive, consent=("withdraw", tags, reason, by))
    return _anchor(job, descriptor)


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


def _acceptable(reading: Reading, catalog: Catalog, text: str) -> bytes:
    values = parse_key_argument(catalog, text)
    tag = reading.keys.key_tag(record_key(catalog, values))
    label = key_label(catalog, values)
    found: Finding | None = next((f for f in reading.comparison.findings if f.key_tag == tag.hex()), None)
    if found is not None and found.kind in ACCEPTABLE:
        return tag
    if found is None:
        known = reading.ledger.history.find(tag) >= 0
        state_zh = "与上链版本一致，无须认可" if known else "从未上链；新行由 anchor 封存"
        state_en = "matches its anchored version" if known else "was never anchored; anchor seals new rows"
    elif found.kind is Kind.MISSING:
        state_zh, state_en = "已不在数据源中；删除请用 withdraw", "is gone from the source; use withdraw"
    else:
        state_zh, state_en = f"为 {found.kind}，须先改正数据源", f"is {found.kind}; the source must be mended first"
    raise InputError("accept.nothing", f"记录 {label} {state_zh}", f"record {label} {state_en}", "KEY")


def _rows_of(reading: Reading, tags: npt.NDArray[np.uint8], archive: ArchiveWriter | None) -> Built:
    """The batch of exactly the rows that carry these tags, read again in the same consistent read."""
    entries = np.zeros((len(tags), 64), np.uint8)
    entries[:, TAG] = tags
    wanted = EntryIndex(entries)
    builder = Builder(reading.catalog, reading.keys, archive=archive)
    source: Source = reading.table
    for chunk in source.scan():
        result = builder.kernel.run(chunk)
        keep = np.zeros(len(chunk), np.bool_)
        keep[result.rows] = wanted.lookup(np.ascontiguousarray(result.entries[:, TAG])) >= 0
        if keep.any():
            builder.add_result(chunk, result_of(result, keep))
    built = builder.finish(source.where)
    if built.size != len(tags):
        raise InputError(
            "source.changed",
            f"读取期间数据源发生变化：应有 {len(tags)} 行，实有 {built.size} 行",
            f"the source changed while it was read: {len(tags)} rows expected, {built.size} found",
            source.where,
        )
    return built


def _record(
    job: Job,
    ledger: StreamLedger,
    descriptor: Descriptor,
    built: Built,
    archive: ArchiveWriter | None,
    *,
    consent: tuple[models.ConsentAction, Sequence[bytes], str, str] | None = None,
) -> None:
    """The intent, whole or not at all: batch, entries, archive, claim and who said so."""
    batch_id = descriptor.batch_id.hex()
    with job.store.write() as session:
        save_batch(session, descriptor, ledger.stream)
        entry_set = job.book.save_set(session, batch_id, "lawful", built, archive)
        propose(session, entry_set, known_revisions=0)
        if consent is not None:
            action, tags, reason, by = consent
            session.add_all(
                models.Consent(
                    batch_id=batch_id, key_tag=tag.hex(), action=action, reason=reason, approved_by=by, created_at=now()
                )
                for tag in tags
            )


def _anchor(job: Job, descriptor: Descriptor) -> Anchored:
    job.anchor()
    batch_id = descriptor.batch_id.hex()
    return Anchored(descriptor.batch, batch_id, job.anchored(batch_id))


def _descriptor(job: Job, catalog: Catalog, kind: str, letter: str) -> Descriptor:
    """The next batch of the own stream: numbered by the catalog's day, which is fixed here, in the intent."""
    key = job.workspace.exchange_key()
    stream = StreamId(catalog.id, job.party, "")
    day = (datetime.now(UTC) + catalog.offset).date()
    with job.store.read() as session:
        used = set(
            session.scalars(
                select(models.Batch.number).where(
                    models.Batch.catalog_id == catalog.id,
                    models.Batch.sender_party == job.party,
                    models.Batch.receiver_party == "",
                )
            )
        )
    used |= {batch.descriptor.batch for batch in job.streams.batches(stream)}
    number = next(name for n in range(1, len(used) + 2) if (name := f"{letter}{day:%Y%m%d}-{n}") not in used)
    return job.descriptor(catalog, key, stream, number=number, kind=kind, period=day.isoformat())


def _tags(tags: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(dict.fromkeys(tags)), np.uint8).reshape(-1, 16)


def _said(reason: str, by: str) -> None:
    for name, value in (("--reason", reason), ("--by", by)):
        if not value.strip():
            raise InputError("consent.empty", f"{name} 不得为空", f"{name} must not be empty", name)
