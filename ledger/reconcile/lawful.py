"""The stream that makes a source's rows lawful, loaded, and the source opened with it (design section 4)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from sqlalchemy import select

from ledger.batch.book import StreamLedger
from ledger.batch.job import Job
from ledger.batch.joint import Joint, open_joint
from ledger.batch.series import Series
from ledger.batch.stream import StreamId
from ledger.catalog import Catalog
from ledger.errors import ChainError, InputError, NotBuiltError, StoreError
from ledger.keys import CatalogKeys
from ledger.source.source import Source
from ledger.store import models
from ledger.workspace import OWN

SETTLING_TRIES = 5


@contextmanager
def open_settled(job: Job, catalog: Catalog) -> Iterator[tuple[StreamLedger, CatalogKeys, Source]]:
    """The ledger and a consistent read of the source that belong together: the sender anchored nothing between the two.

    Else a row that was sealed, or landed, in between would be a difference that never was. ChainError `reconcile.moving` if the
    stream does not stand still for SETTLING_TRIES readings.
    """
    with _opened(job, catalog, older=False) as (ledger, keys, table, _):
        yield ledger, keys, table


@contextmanager
def open_for_all(job: Job, catalog: Catalog) -> Iterator[tuple[StreamLedger, CatalogKeys, Source, Joint | None]]:
    """The same, and where a bridge left something behind, the read as one of all versions of the catalog."""
    with _opened(job, catalog, older=True) as opened:
        yield opened


@contextmanager
def _opened(
    job: Job, catalog: Catalog, *, older: bool
) -> Iterator[tuple[StreamLedger, CatalogKeys, Source, Joint | None]]:
    for _ in range(SETTLING_TRIES):
        ledger, keys = load_ledger(job, catalog)
        with ExitStack() as stack:
            joint: Joint | None = None
            if older and ledger.left:
                versions = [it.keys.catalog for it in ledger.left]
                joint = stack.enter_context(open_joint(job.workspace, keys.catalog, versions))
                table = joint.under(keys.catalog)
            else:
                table = stack.enter_context(job.workspace.open_source(keys.catalog))
            sender = ledger.stream.sender
            if job.link.registry.view().anchors.get(sender, ()) == job.view.anchors.get(sender, ()):
                yield ledger, keys, table, joint
                return
        job.refresh()
    raise ChainError(
        "reconcile.moving",
        f"对账期间 {catalog.id} 的发送方不断上链，无法取得同一时刻的数据；请稍后重试",
        f"the sender of {catalog.id} kept anchoring while the source was opened; try again later",
        catalog.id,
    )


def load_ledger(job: Job, catalog: Catalog) -> tuple[StreamLedger, CatalogKeys]:
    """The stream that makes the source's rows lawful, in its present series, and the keys of that; the keys name the catalog that counts.

    Of an own source it must be the catalog and key of now, else InputError `series.changed`. Of what is sent to us it is the newest
    series whose bridge was taken over here: what came after it is open.
    """
    stream = lawful_stream(job, catalog)
    arranged = job.series(stream)
    job.check_strays(arranged)
    if not stream.receiver:
        job.check_series(stream, catalog, job.workspace.exchange_key())
    series = job.current(stream) if stream.receiver else next(reversed(arranged.series), None)
    if series is None:
        key = job.workspace.exchange_key(
            stream.sender if stream.receiver and job.workspace.has_key(stream.sender) else OWN
        )
        keys = key.for_catalog(catalog)
        return job.book.load_stream(job.streams, stream, catalog, keys), keys
    ledger, keys = job.ledger(stream, series)
    if not stream.receiver and ledger.open:
        numbers = "、".join(batch.descriptor.batch for batch in ledger.open)
        raise StoreError(
            "store.own_batch_missing",
            f"本方已上链的批次 {numbers} 在台账库中没有条目：台账是旧备份或已损坏；请运行 fsck",
            f"batches {numbers} that this party anchored are not in the store: it is an old backup, or damaged; run fsck",
            str(job.workspace.root),
        )
    later = arranged.series[series.number + 1 :]
    if not later:
        return ledger, keys
    waiting = tuple(batch for it in later for batch in it.batches)
    return replace(
        ledger, open=(*ledger.open, *waiting), notes=(*ledger.notes, _untaken(stream, series, later[0]))
    ), keys


def _untaken(stream: StreamId, series: Series, later: Series) -> tuple[str, str]:
    now, then = later.told, series.told
    command = f"duizhang bridge {stream.catalog_id} --from {stream.sender}"
    return (
        f"{stream.sender} 已将数据流衔接到新系列（目录 {now.catalog}，密钥 {now.key_id}），本方尚未接续；此前仍按目录 {then.catalog} 比对，"
        f"结论不完整。请执行 {command}",
        f"{stream.sender} bridged the stream to a new series ({now.catalog}, key {now.key_id}) that was not taken over here; until then rows "
        f"are compared under {then.catalog}, and the answer is not complete: run {command}",
    )


def lawful_stream(job: Job, catalog: Catalog) -> StreamId:
    """Own sources: our stream without receiver. Deliveries: the one stream that somebody sends us."""
    source = job.workspace.source(catalog)
    if source.origin == "own":
        return StreamId(catalog.id, job.party, "")
    announced = job.streams.of_catalog(catalog.id, receiver=job.party)
    streams = [s for s in announced if job.workspace.has_key(s.sender)]
    # Anybody registered can announce something to us; a stranger beside our sender must not stop the night. A sender we received
    # from before is no stranger, and where nobody's batches can be read, nothing was compared.
    lost = [s.sender for s in announced if s not in streams and (not streams or job.book.knows(s))]
    if lost:
        senders = ", ".join(lost)
        raise InputError(
            "key.no_exchange_key",
            f"{senders} 在链上向本方宣告了 {catalog.id} 的批次，但缺少 keys/{lost[0]}/1.key：无法对账。请从备份恢复该密钥，或向 {lost[0]} 索取",
            f"{senders} announced batches of {catalog.id} to us and keys/{lost[0]}/1.key is missing: nothing can be compared. Restore "
            f"that key from a backup, or ask {lost[0]} for it",
            str(job.workspace.root / "keys" / lost[0]),
        )
    if len(streams) > 1:
        senders = ", ".join(stream.sender for stream in streams)
        raise NotBuiltError(f"同一数据源接收多个发送方 / one source fed by several senders ({catalog.id}: {senders})")
    if streams:
        return streams[0]
    # Nobody has announced anything: the parties we share a key with can be told, rows are unanchored whoever sends.
    known = [name for name in job.view.parties if name != job.party and job.workspace.has_key(name)]
    return StreamId(catalog.id, known[0] if known else job.party, job.party)


def consents(
    job: Job, ledger: StreamLedger, picked: frozenset[str], among: frozenset[bytes] | None = None
) -> tuple[list[int], int]:
    """Key numbers whose live version `accept` made lawful, and how many keys `withdraw` removed, in the batches picked; of the key tags
    `among` alone, if they are given."""
    batch_ids = [batch.announced.batch_id for batch in ledger.known]
    with job.store.read() as session:
        wanted = [batch_id for batch_id in batch_ids if batch_id in picked]
        rows = list(session.scalars(select(models.Consent).where(models.Consent.batch_id.in_(wanted))))
    accepted: list[int] = []
    removed = 0
    for row in rows:
        tag = bytes.fromhex(row.key_tag)
        key = ledger.history.find(tag)
        if key < 0 or batch_ids[ledger.history.latest(key).batch] != row.batch_id:
            continue
        if among is not None and tag not in among:
            continue
        if row.action == "accept":
            accepted.append(key)
        else:
            removed += 1
    return accepted, removed
