"""Sending disputed records again: a correction batch of exactly these keys, from the archive, and the file for the channel."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ledger.anchor.claims import propose
from ledger.batch.book import save_batch
from ledger.batch.build import Builder, Built
from ledger.batch.history import Version
from ledger.batch.job import Job
from ledger.batch.left import comparable
from ledger.batch.stream import AnnouncedBatch
from ledger.catalog import Catalog
from ledger.counterpart.sketches import sketch_for
from ledger.dispute.cases import Case
from ledger.errors import InputError
from ledger.record import open_canonical
from ledger.store.files import os_errors, write_atomic


@dataclass(frozen=True)
class Resent:
    """The correction batch and how many records it holds; `left_out` are disputed key tags of which we have no live version."""

    number: str
    batch_id: str
    records: int
    left_out: tuple[str, ...]


def resend(job: Job, case: Case, *, number: str, out: Path | None) -> Resent:
    """Anchor the live versions of the disputed keys as correction batch `number`, and write them to `out` as CSV, under field names.

    The same again anchors nothing new, and takes a file that holds just this. InputError `dispute.*` if we are not the sender, or
    have nothing of it, or if the number or the file is that of something else (also `batch.number_taken`); nothing is anchored then.
    """
    batch = case.batch
    if batch is None or not case.counts or batch.stream.sender != job.party:
        raise InputError(
            "dispute.not_sender",
            f"本方不是该批次的发送方，不能重发（争议 {case.dispute.id}）",
            f"this party did not send that batch, so it cannot send it again (dispute {case.dispute.id})",
            "--resend",
        )
    stream = batch.stream
    catalog = job.workspace.catalog(stream.catalog_id)
    key = job.workspace.exchange_key(stream.receiver)
    descriptor = job.descriptor(catalog, key, stream, number=number, kind="correction", period="")
    keys = key.for_catalog(catalog)
    arranged = job.series(stream)
    disputed = arranged.of(batch)
    if disputed is not None and not comparable(job.keys(stream, disputed), keys):
        raise InputError(
            "dispute.other_series",
            f"批次 {batch.descriptor.batch} 属于旧系列，其标签在现行密钥或主键下不同：无从找出有争议的记录，请用 send 从文件重发",
            f"batch {batch.descriptor.batch} is of an older series whose tags are others under the present key: the disputed records cannot be "
            "found by them, send them again from a file",
            "--resend",
        )
    ledger, _ = job.ledger(stream, arranged.series[-1])
    known = job.streams.find(stream, number)
    left_out: list[str] = []
    versions: list[tuple[Version, bytes]] = []
    with job.book.opener(ledger.known, catalog, keys) as open_version:
        # Whoever opened it may have named a key twice.
        for tag in dict.fromkeys(tag for _, tag in case.dispute.findings):
            at = ledger.history.find(bytes.fromhex(tag))
            latest = ledger.history.latest(at) if at >= 0 else None
            if latest is None or latest.withdrawn:
                left_out.append(tag)
                continue
            canonical = open_version(latest)
            if canonical is None:
                raise InputError(
                    "dispute.not_archived",
                    f"记录（标签 {tag}）的原文不在归档中，无法重发；请用 send 从文件重发",
                    f"the record with key tag {tag} is not archived and cannot be sent from here: send it from a file",
                    "--resend",
                )
            versions.append((latest, canonical))
    if not versions:
        raise InputError(
            "dispute.nothing_to_resend",
            "有争议的主键本方都没有有效版本，无可重发",
            "of none of the disputed keys do we have a live version: there is nothing to send again",
            "--resend",
        )
    data = _csv(catalog, [canonical for _, canonical in versions])
    written = out is not None and _is_there(out, data)
    batch_id = descriptor.batch_id.hex()
    with job.book.archive_writer(catalog, batch_id) as archive:
        builder = Builder(catalog, keys, archive=archive)
        entries = np.frombuffer(b"".join(version.entry for version, _ in versions), np.uint8).reshape(-1, 64)
        builder.add_opened(entries, [canonical for _, canonical in versions])
        built = builder.finish(catalog.id)
        _check_number(known, batch_id, built)
        with job.store.write() as session:
            save_batch(session, descriptor, stream, catalog)
            entry_set = job.book.save_set(session, batch_id, "lawful", built, archive)
            sketch = sketch_for(key, descriptor.batch_id, built)
            propose(session, entry_set, known_revisions=0 if known is None else len(known.sent), sketch=sketch)
    job.anchor()
    if out is not None and not written:
        write_atomic(out, data, 0o600, overwrite=False)
    return Resent(number, batch_id, built.size, tuple(left_out))


def _check_number(known: AnnouncedBatch | None, batch_id: str, built: Built) -> None:
    """A correction that was anchored for other records stays what it is: it must not become a revision of itself."""
    if known is None or known.batch_id != batch_id or not known.sent:
        return
    last = known.sent[-1]
    if (last.size, last.root) != (built.size, built.root):
        number = known.descriptor.batch
        raise InputError(
            "dispute.number_taken",
            f"批次号 {number} 已用于另一些记录的更正（{last.size} 条）；请另取批次号",
            f"batch number {number} is that of a correction of other records ({last.size}): take another one",
            "--resend",
        )


def _is_there(out: Path, data: bytes) -> bool:
    """True if the file is there already with just these bytes: an answer that was interrupted is given again."""
    with os_errors(out):
        if not out.exists():
            return False
        if out.is_file() and out.stat().st_size == len(data) and out.read_bytes() == data:
            return True
    raise InputError("dispute.out_exists", "输出文件已存在，不予覆盖", "the output file exists", str(out))


def _csv(catalog: Catalog, records: list[bytes]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    names = [field.name for field in catalog.fields]
    writer.writerow(names)
    for canonical in records:
        values = open_canonical(catalog, canonical).values
        writer.writerow(["" if values[name] is None else values[name] for name in names])
    return text.getvalue().encode()
