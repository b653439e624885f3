"""The sender's side of a delivery: the file (or the source's rows of that batch) becomes a lawful entry set and a claim."""

from __future__ import annotations

from dataclasses import dataclass

from ledger import sketch as sketches
from ledger.anchor.claims import propose
from ledger.batch.book import number_taken, save_batch
from ledger.batch.build import Builder, Built
from ledger.batch.column import batch_mask
from ledger.batch.intake import FileOptions, bad_rows, build_from_file
from ledger.batch.job import Job
from ledger.batch.stream import StreamId
from ledger.catalog import Catalog
from ledger.chain.registry import AnchorRecord
from ledger.counterpart.sketches import sketch_for
from ledger.descriptor import batch_number
from ledger.errors import InputError
from ledger.progress import watched


@dataclass(frozen=True)
class Sent:
    """What `send` did; `set_aside` counts quarantined rows, `ignored` names columns the catalog does not declare,
    `notes` (zh, en) are remarks on how the file was read."""

    batch_id: str
    number: str
    anchored: AnchorRecord
    set_aside: int
    ignored: tuple[str, ...]
    notes: tuple[tuple[str, str], ...] = ()


def send(
    job: Job,
    catalog: Catalog,
    file: FileOptions | None,
    *,
    number: str,
    to: str,
    period: str,
    correction: bool = False,
    cells: int | None = None,
) -> Sent:
    """Anchor a delivery of `catalog` to the party `to`, or a correction of what was delivered before.

    It carries a sketch of `cells` cells for the receiver, by default as many as its size asks for, none for 0.

    Sending the same content again changes nothing; other content under the same descriptor is a visible revision; the same
    number under another descriptor is refused. InputError for bad rows or repeated keys; nothing is written then.
    """
    number = batch_number(number)
    if to == job.party:
        raise InputError("send.to_self", f"不能发给本方 {to}", f"{to} is this party itself", "--to")
    key = job.workspace.exchange_key(to)
    stream = StreamId(catalog.id, job.party, to)
    if cells:
        sketches.check_cells(cells, "--cells")
    descriptor = job.descriptor(
        catalog, key, stream, number=number, kind="correction" if correction else "delivery", period=period
    )
    known = job.streams.find(stream, number)
    if known is not None and known.batch_id != descriptor.batch_id.hex():
        raise number_taken(descriptor, known.descriptor.encode().decode())
    keys = key.for_catalog(catalog)
    series = next(reversed(job.series(stream).series), None)
    ledger = (
        job.book.load_stream(job.streams, stream, catalog, keys) if series is None else job.ledger(stream, series)[0]
    )
    earlier = ledger.before(known)
    batch_id = descriptor.batch_id.hex()
    with job.book.archive_writer(catalog, batch_id) as archive:
        builder = Builder(catalog, keys, earlier, archive)
        if file is not None:
            with file.open(catalog) as delivered:
                built = build_from_file(delivered, builder, file.quarantine)
                ignored, notes = tuple(delivered.ignored), tuple(delivered.notes)
        else:
            built, ignored, notes = _from_source(job, catalog, builder, number), (), ()
        with job.store.write() as session:
            save_batch(session, descriptor, stream, catalog)
            entry_set = job.book.save_set(session, batch_id, "lawful", built, archive)
            sketch = sketch_for(key, descriptor.batch_id, built, cells)
            propose(session, entry_set, known_revisions=0 if known is None else len(known.sent), sketch=sketch)
    job.anchor()
    return Sent(batch_id, number, job.anchored(batch_id), len(builder.bad), ignored, notes)


def _from_source(job: Job, catalog: Catalog, builder: Builder, number: str) -> Built:
    source = job.workspace.source(catalog)
    if source.batch_column is None:
        raise InputError(
            "send.no_batch_column",
            f"[source.{catalog.id}] 未配置 batch_column，请给出要发送的文件",
            f"[source.{catalog.id}] has no batch_column: name the file to send",
            catalog.id,
        )
    with job.workspace.open_source(catalog) as table:
        chunks = watched("读取数据源", "reading the source", table.scan(), table.about_rows)
        builder.add_all(chunks, lambda chunk: batch_mask(chunk, number))
        if builder.bad:
            raise bad_rows(builder.bad, table.where)
        if not builder.rows:
            raise InputError(
                "send.no_rows",
                f"数据源中没有批次 {number} 的行",
                f"the source has no rows of batch {number}",
                table.where,
            )
        return builder.finish(table.where, table.scan)
