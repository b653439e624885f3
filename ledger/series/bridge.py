"""The sender's side of a bridge (衔接): the fold of a stream anchored under the old series, then what of it verifies under the new.

Two snapshots, one right after the other. Of an own source the rows are the table's, of a delivery our archive's: what was sent. A record
whose row does not verify under the old series is not carried; it stays under it, and is listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import select

from ledger.anchor.claims import propose
from ledger.batch.book import StreamLedger, save_batch
from ledger.batch.build import Builder, add_among
from ledger.batch.fold import fold_entries
from ledger.batch.job import Job
from ledger.batch.joint import Joint, open_joint
from ledger.batch.left import key_party
from ledger.batch.numbering import free_snapshots
from ledger.batch.series import Series, reach
from ledger.batch.stream import AnnouncedBatch, StreamId
from ledger.catalog import Catalog
from ledger.chain.registry import AnchorRecord
from ledger.counterpart.learn import key_finder
from ledger.counterpart.sketches import sketch_for
from ledger.errors import InputError
from ledger.keys import CatalogKeys, ExchangeKey
from ledger.record import MASK
from ledger.series.carry import ArchivedRows, cross, read_rows
from ledger.store import models
from ledger.workspace import OWN


@dataclass(frozen=True)
class Left:
    """A record that was not carried: its key tag in the old series (hex), its key with personal fields masked (None if nobody here can
    tell it), and why, one of `carry.REASONS`."""

    key_tag: str
    key: Mapping[str, str] | None
    why: str


@dataclass(frozen=True)
class Half:
    """One half of a bridge as anchored: its number and this party's anchor."""

    number: str
    record: AnchorRecord


@dataclass(frozen=True)
class Bridged:
    """A bridge on chain. Not `fresh`: it was there already, and `left` is what is on record about it, without reasons."""

    old: Half
    new: Half
    before: str
    after: str
    left: tuple[Left, ...]
    fresh: bool
    notes: tuple[tuple[str, str], ...] = ()


def bridge(job: Job, catalog: Catalog, *, to: str | None = None) -> Bridged:
    """Take our stream of `catalog` (to the party `to`, or of our own source) over to the present catalog and newest key.

    Again: nothing happens once it stands under them. InputError `bridge.*`, `fold.open_batches`, `series.no_bridge`; then nothing is
    written.
    """
    if to == job.party:
        raise InputError("send.to_self", f"不能发给本方 {to}", f"{to} is this party itself", "--to")
    if to is not None:
        job.view.address(to)
    elif job.workspace.source(catalog).origin != "own":
        raise InputError(
            "bridge.delivery_source",
            f"[source.{catalog.id}] 的 origin 为 delivery：换版由发送方衔接，本方用 bridge {catalog.id} --from 发送方 接续；本方发出的数据流用 --to",
            f'[source.{catalog.id}] has origin "delivery": its sender makes the bridge, take it over with bridge {catalog.id} --from SENDER; '
            "for a stream that we send name the receiver with --to",
            catalog.id,
        )
    stream = StreamId(catalog.id, job.party, to or "")
    key = job.workspace.exchange_key(to or OWN)
    arranged = job.series(stream)
    job.check_strays(arranged)
    if not arranged.series:
        raise InputError(
            "bridge.nothing",
            f"{catalog.id} 的数据流尚无批次，无须衔接",
            f"nothing of this stream of {catalog.id} is anchored yet: there is nothing to bridge",
            catalog.id,
        )
    series = arranged.series[-1]
    if (series.told.catalog_digest, series.told.key_id) == (catalog.digest.hex(), key.id.hex()):
        return _there(job, stream, arranged.series)
    return _make(job, stream, series, key, key.for_catalog(catalog))


def _there(job: Job, stream: StreamId, series: tuple[Series, ...]) -> Bridged:
    found = series[-1].bridge
    if found is None:
        told = series[-1].told
        raise InputError(
            "bridge.unchanged",
            f"{stream.catalog_id} 的数据流就在目录 {told.catalog}、密钥 {told.key_id} 之下，没有变化，无须衔接",
            f"the stream of {stream.catalog_id} stands under {told.catalog} and key {told.key_id}, which are the present ones: there is "
            "nothing to bridge",
            stream.catalog_id,
        )
    left = tuple(Left(tag, None, "") for tag in left_on_record(job, found.new))
    old, new = (Half(it.descriptor.batch, job.anchored(it.batch_id)) for it in (found.old, found.new))
    return Bridged(old, new, series[-2].told.catalog, series[-1].told.catalog, left, fresh=False)


def left_on_record(job: Job, new: AnnouncedBatch) -> list[str]:
    """The key tags, in the old series, that a bridge did not carry."""
    with job.store.read() as session:
        chosen = select(models.NotCarried.key_tag).where(models.NotCarried.batch_id == new.batch_id)
        return sorted(session.scalars(chosen))


def _make(job: Job, stream: StreamId, series: Series, key: ExchangeKey, keys: CatalogKeys) -> Bridged:
    catalog = keys.catalog
    ledger, before = job.ledger(stream, series)
    key_before = job.workspace.key_by_id(key_party(job.workspace, stream), series.told.key_id)
    folded = fold_entries(ledger).built()
    last = next(reach(it) for it in reversed(series.batches) if it.sent)
    if last is None:
        raise ValueError("a bridge names the last batch it carried")
    numbers = free_snapshots(job, catalog, stream, last, 2)
    old, new = (
        job.describe(its, epoch, stream, number=number, kind="snapshot", period="")
        for its, epoch, number in zip((before.catalog, catalog), (key_before, key), numbers, strict=True)
    )
    new_id = new.batch_id.hex()
    with _opened(job, ledger, before, keys) as joint:
        rows = read_rows(joint, before, keys)
        crossing = cross(ledger, rows)
        with job.book.archive_writer(catalog, new_id) as archive:
            builder = Builder(catalog, keys, archive=archive)
            add_among(builder, joint.under(catalog).scan(), crossing.entries)
            built = builder.finish(joint.table.where)
            if built.size != len(crossing.entries):
                raise _changed(joint)
            with job.store.write() as session:
                for told, its, epoch, made, used in (
                    (old, before.catalog, key_before, folded, None),
                    (new, catalog, key, built, archive),
                ):
                    save_batch(session, told, stream, its)
                    entry_set = job.book.save_set(session, told.batch_id.hex(), "lawful", made, used)
                    sketch = sketch_for(epoch, told.batch_id, made) if stream.receiver else None
                    propose(session, entry_set, known_revisions=0, sketch=sketch)
                session.add_all(models.NotCarried(batch_id=new_id, key_tag=tag.hex()) for tag in sorted(crossing.left))
        notes = tuple(joint.table.notes)
    left = named(job, ledger, before, crossing.left)
    job.anchor()
    halves = [Half(it.batch, job.anchored(it.batch_id.hex())) for it in (old, new)]
    return Bridged(halves[0], halves[1], before.catalog.name, catalog.name, left, fresh=True, notes=notes)


@contextmanager
def _opened(job: Job, ledger: StreamLedger, before: CatalogKeys, keys: CatalogKeys) -> Iterator[Joint]:
    """What our records of the stream are, as all versions: our own table, or what we sent."""
    if ledger.stream.receiver:
        if not (before.catalog.archive and keys.catalog.archive):
            raise InputError(
                "bridge.no_archive",
                f"目录 {keys.catalog.id} 关闭了归档（archive = false）：发出的记录没有留存，无从按新系列重新承诺；请改用新的目录 id 另起数据流",
                f"catalog {keys.catalog.id} switches the archive off: what was sent is not kept, so it cannot be committed to under a new "
                "series; begin another stream under a new catalog id",
                keys.catalog.id,
            )
        names = list(dict.fromkeys((*keys.catalog.by_name, *before.catalog.by_name)))
        yield ArchivedRows(job.book, ledger, before, names).joint()
        return
    with open_joint(job.workspace, keys.catalog, [before.catalog]) as joint:
        yield joint


def named(job: Job, ledger: StreamLedger, keys: CatalogKeys, left: Mapping[bytes, str]) -> tuple[Left, ...]:
    """What was not carried, by key where our archive can tell it."""
    catalog = keys.catalog
    found: list[Left] = []
    with job.book.opener(ledger.known, catalog, keys) as opener:
        key_of = key_finder(catalog, ledger, opener)
        for tag, why in sorted(left.items()):
            values = None if tag in ledger.erased else key_of(tag)
            shown = (
                None if values is None else {n: MASK if catalog.by_name[n].personal else v for n, v in values.items()}
            )
            found.append(Left(tag.hex(), shown, why))
    return tuple(sorted(found, key=lambda it: (it.key is None, tuple((it.key or {}).values()), it.key_tag)))


def _changed(joint: Joint) -> InputError:
    return InputError(
        "source.changed",
        "读取期间数据源发生变化，请重新执行",
        "the source changed while it was read; run it again",
        joint.table.where,
    )
