"""Before anything is judged: the announced batch, the delivered file, and `--load` (design section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.batch.book import StreamLedger, now, save_batch
from ledger.batch.build import NO_EARLIER, Builder, Built
from ledger.batch.intake import FileOptions, build_from_file
from ledger.batch.job import Job
from ledger.batch.series import Series
from ledger.batch.stream import AnnouncedBatch, StreamId
from ledger.catalog import Catalog
from ledger.config import SourceConfig
from ledger.descriptor import batch_number
from ledger.errors import InputError
from ledger.kernel.entries import Kernel
from ledger.kernel.sorting import TAG
from ledger.keys import CatalogKeys
from ledger.progress import watched
from ledger.source.load import Upsert, load_rows
from ledger.store import models
from ledger.store.archive import among
from ledger.store.files import hash_file


@dataclass(frozen=True)
class Incoming:
    """A batch that was announced to us, ready to be received: everything but the rows."""

    catalog: Catalog
    source: SourceConfig
    batch: AnnouncedBatch
    stream: StreamId
    keys: CatalogKeys
    series: Series


@dataclass(frozen=True)
class Delivered:
    """A delivered file. `lawful`: its size and root are the sender's anchor. `set_aside` counts quarantined rows,
    `notes` (zh, en) are remarks on how it was read."""

    built: Built
    lawful: bool
    set_aside: int
    ignored: tuple[str, ...]
    notes: tuple[tuple[str, str], ...] = ()


def expect(job: Job, catalog: Catalog, *, number: str, sender: str) -> Incoming:
    """Find the announced batch and check that we can read it: origin, catalog digest, exchange key."""
    number = batch_number(number)
    source = job.workspace.source(catalog)
    if source.origin != "delivery":
        raise InputError(
            "receive.own_source",
            f"[source.{catalog.id}] 的 origin 为 own，不接收下发；应为 delivery",
            f'[source.{catalog.id}] has origin "own": only a source of origin "delivery" receives',
            catalog.id,
        )
    job.view.address(sender)
    stream = StreamId(catalog.id, sender, job.party)
    batch = job.streams.find(stream, number)
    if batch is None or not batch.sent:
        known = "、".join(b.descriptor.batch for b in job.streams.batches(stream)) or "-"
        raise InputError(
            "receive.not_announced",
            f"{sender} 未在链上宣告目录 {catalog.id} 的批次 {number}；已宣告：{known}",
            f"{sender} announced no batch {number} of {catalog.id} on the chain; announced: {known}",
            "--batch",
        )
    told = batch.descriptor
    if told.kind == "snapshot":
        raise InputError(
            "receive.snapshot",
            f"{number} 是 {sender} 的快照，不是下发，没有可接收的行；请执行 snapshot {catalog.id} --from {sender} --batch {number} 表明本方持有什么",
            f"{number} is a snapshot of {sender}, no delivery: it brings no rows; run snapshot {catalog.id} --from {sender} --batch "
            f"{number} to state what you hold",
            "--batch",
        )
    arranged, current = job.series(stream), job.current(stream)
    job.check_strays(arranged)
    series = arranged.of(batch)
    if series is None or current is None:
        raise ValueError("an announced batch that is no stray stands in a series")
    if series.number != current.number:
        later = series.number > current.number
        raise InputError(
            "receive.other_series",
            f"批次 {number} 按目录 {told.catalog}、密钥 {told.key_id} 上链，属于另一系列；"
            + (f"请先执行 bridge {catalog.id} --from {sender}" if later else "该系列已被衔接取代，不再接收"),
            f"batch {number} stands under {told.catalog} and key {told.key_id}, another series; "
            + (
                f"run bridge {catalog.id} --from {sender} first"
                if later
                else "a bridge has left that series behind, nothing of it is received any more"
            ),
            "--batch",
        )
    # The sender decides which version its records are of; ours may be newer already.
    keys = job.keys(stream, series)
    return Incoming(keys.catalog, source, batch, stream, keys, series)


def take_file(job: Job, incoming: Incoming, file: FileOptions) -> Delivered:
    """Read a delivered file; if it is what the sender anchored, its entries and archive are kept as the lawful ones."""
    anchor = incoming.batch.sent[-1]
    ledger = ledger_of(job, incoming)
    with job.book.archive_writer(incoming.catalog, incoming.batch.batch_id) as archive:
        builder = Builder(incoming.catalog, incoming.keys, ledger.before(incoming.batch), archive)
        with file.open(incoming.catalog) as delivered:
            try:
                built = build_from_file(delivered, builder, file.quarantine)
            except InputError:
                _check_order(incoming, ledger, builder)
                raise
            ignored, notes = tuple(delivered.ignored), tuple(delivered.notes)
        again = int((among(built.entries[:, TAG], ledger.erased) & ~built.withdrawn).sum())
        if again:
            notes += (_erased_note(again),)
        lawful = (built.size, built.root) == (anchor.size, anchor.root)
        if lawful and not any(k.announced.batch_id == incoming.batch.batch_id for k in ledger.known):
            with job.store.write() as session:
                save_batch(session, incoming.batch.descriptor, incoming.stream, incoming.catalog)
                job.book.save_set(session, incoming.batch.batch_id, "lawful", built, archive)
    with job.store.write() as session:
        save_batch(session, incoming.batch.descriptor, incoming.stream, incoming.catalog)
        _record_arrival(session, incoming, file, builder.rows)
    return Delivered(built, lawful, len(builder.bad), ignored, notes)


def ledger_of(job: Job, incoming: Incoming) -> StreamLedger:
    """The stream of an incoming batch as this workspace knows it now."""
    return job.ledger(incoming.stream, incoming.series)[0]


def load_file(job: Job, incoming: Incoming, file: FileOptions) -> None:
    """Write the file's readable rows into the source, all or nothing, read back before it counts.

    Keys that a later batch of the stream carries are left as that batch has them: arrival order never matters. Records that were erased
    here are never written, only removed.
    """
    kernel = Kernel(incoming.catalog, incoming.keys)
    ledger = ledger_of(job, incoming)
    later = ledger.after(incoming.batch)
    upserts: list[Upsert] = []
    withdrawn: dict[bytes, dict[str, str | None]] = {}
    names = list(incoming.catalog.by_name)
    with file.open(incoming.catalog) as delivered:
        for chunk in watched("读取要入库的行", "reading what is to be loaded", delivered.scan(), delivered.about_rows):
            result = kernel.run(chunk)
            columns = [result.values[name].to_pylist() for name in names]
            keys = result.record_keys.to_pylist()
            tags = np.ascontiguousarray(result.entries[:, TAG])
            superseded = (later.lookup(tags) >= 0) | among(tags, ledger.erased)
            for over, key, entry, *values in zip(superseded, keys, result.entries, *columns, strict=True):
                if over:
                    continue
                upserts.append(Upsert(key, dict(zip(names, values, strict=True)), entry.tobytes()))
            gone = kernel.keys_of(chunk)
            for at, key in enumerate(gone.record_keys.to_pylist()):
                if later.find(gone.key_tags[at].tobytes()) >= 0:
                    continue
                withdrawn[key] = {name: gone.values[name][at].as_py() for name in incoming.catalog.key}
    source = incoming.source
    load_rows(
        source.url,
        source.table,
        kernel,
        upserts=upserts,
        withdrawn=withdrawn,
        columns=source.columns,
        batch_column=source.batch_column,
        batch=None if source.batch_column is None else incoming.batch.descriptor.batch,
        base=job.workspace.root,
    )


def _check_order(incoming: Incoming, ledger: StreamLedger, builder: Builder) -> None:
    """A withdrawal whose record stands in an earlier batch that is not known here yet is no bad row: that batch comes first."""
    waiting = [
        batch.descriptor.batch
        for batch in ledger.open
        if batch.sent and batch.sent[0].sequence < incoming.batch.sent[0].sequence
    ]
    if waiting and any(row.unreadable.code == NO_EARLIER for row in builder.bad):
        numbers = "、".join(waiting)
        raise InputError(
            "receive.earlier_batch_first",
            f"批次 {incoming.batch.descriptor.batch} 撤回的记录本台账尚不知道，它们可能在尚未接收的批次 {numbers} 中：请先接收 {numbers}",
            f"batch {incoming.batch.descriptor.batch} withdraws records that are not known here; they may be in {', '.join(waiting)}, "
            f"which was not received yet: receive {', '.join(waiting)} first",
            "--batch",
        )


def _erased_note(count: int) -> tuple[str, str]:
    return (
        f"文件含本方已删除原文的记录 {count} 条：不写入数据源，不归档；请发送方以 erased 撤回",
        f"the file holds {count} record(s) that were erased here: they are neither loaded nor archived; ask the sender to withdraw them "
        "(erased)",
    )


def _record_arrival(session: Session, incoming: Incoming, file: FileOptions, rows: int) -> None:
    digest = hash_file(file.path)
    present = session.scalar(
        select(models.Arrival).where(
            models.Arrival.batch_id == incoming.batch.batch_id, models.Arrival.file_sha256 == digest
        )
    )
    if present is None:
        session.add(
            models.Arrival(
                batch_id=incoming.batch.batch_id,
                file_sha256=digest,
                file_name=file.path.name,
                rows=rows,
                received_at=now(),
                state="received",
            )
        )
