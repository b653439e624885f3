"""Entry files (条目文件): the fall-back where differences are too many for a sketch (design section 4).

One party writes the entries of a batch as it anchored them, the other takes them in: believed because their root is the one that the
first anchored, not because of where they came from. They hold tags and commitments, never plaintext; the tags of public subjects can be
enumerated, so the file is private all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ledger.batch.book import save_batch
from ledger.batch.build import Built, root_hex
from ledger.batch.declared import catalog_of
from ledger.batch.job import Job
from ledger.batch.stream import AnnouncedBatch, StreamId
from ledger.catalog import Catalog
from ledger.chain.registry import AnchorRecord
from ledger.counterpart.learn import key_finder, tell
from ledger.delivery.decoding import keep_lawful
from ledger.delivery.incoming import expect, ledger_of
from ledger.descriptor import batch_number
from ledger.errors import InputError, StoreError
from ledger.store import models
from ledger.store.entryfile import NO_FRAME, read_entries, write_entries
from ledger.store.files import hash_file


@dataclass(frozen=True)
class Exchanged:
    """A batch whose entries were written or taken in; `record` is the anchor they belong to."""

    batch: AnnouncedBatch
    record: AnchorRecord


def export_entries(job: Job, catalog: Catalog, *, number: str, party: str, out: Path) -> Exchanged:
    """Write our entries of a batch between us and `party`, as last anchored, to `out` (0600), which must not exist."""
    batch = _batch(job, catalog, number, party)
    claims = batch.claims(job.party)
    if not claims:
        raise InputError(
            "entries.not_anchored",
            f"本方未对批次 {number} 上链",
            f"this party did not anchor batch {number}",
            "--batch",
        )
    if out.exists():
        raise InputError("entries.out_exists", "输出文件已存在，不予覆盖", "the output file exists", str(out))
    record = claims[-1]
    role: models.Role = "lawful" if batch.stream.sender == job.party else "held"
    with job.store.read() as session:
        sets = job.book.sets(session, batch.batch_id, role)
    ours = next((it for it in sets if (it.size, it.root) == (record.size, record.root)), None)
    if ours is None:
        raise StoreError(
            "entries.not_kept",
            f"批次 {number} 上链的条目不在台账库中；请运行 fsck",
            f"the entries anchored for batch {number} are not in the store; run fsck",
            "--batch",
        )
    entries = job.book.read_set(ours)
    frames = np.full(len(entries.entries), NO_FRAME, np.uint32)
    write_entries(out, entries.entries, entries.withdrawn, frames)
    return Exchanged(batch, record)


def import_entries(job: Job, catalog: Catalog, file: Path, *, number: str, party: str) -> Exchanged:
    """Take in the entries of `party` for a batch; they count only if their root is the one that `party` anchored last.

    InputError `entries.*` for another file; nothing is written then. Where we are the receiver they are the lawful entries from now on.
    Which of them are withdrawals is worked out here: the file's word on it is not authenticated.
    """
    batch = _batch(job, catalog, number, party)
    claims = batch.claims(party)
    if not claims:
        raise InputError(
            "entries.not_anchored",
            f"{party} 未对批次 {number} 上链",
            f"{party} did not anchor batch {number}",
            "--batch",
        )
    record = claims[-1]
    given = read_given(file, record, number)
    if _begins_series(job, batch):
        raise InputError(
            "entries.bridge",
            f"{number} 是 {party} 衔接新系列的批次，请以 bridge {catalog.id} --from {party} --entries {file} 接续",
            f"{number} begins a new series of {party}: take it over with bridge {catalog.id} --from {party} --entries {file}",
            "--batch",
        )
    if batch.stream.sender != party or batch.descriptor.kind == "snapshot":
        role: models.Role = "lawful" if batch.stream.sender == party else "held"
        nothing_withdrawn = np.zeros(len(given), np.bool_)
        built = Built(given, nothing_withdrawn, np.full(len(given), NO_FRAME, np.uint32), record.size, record.root)
        with job.store.write() as session:
            save_batch(session, batch.descriptor, batch.stream, catalog_of(job.workspace, session, batch.descriptor))
            job.book.save_set(session, batch.batch_id, role, built, None)
        return Exchanged(batch, record)
    incoming = expect(job, catalog, number=number, sender=party)
    ledger = ledger_of(job, incoming)
    if any(it.announced.batch_id == batch.batch_id for it in ledger.known):
        return Exchanged(batch, record)
    with job.book.opener(ledger.known, catalog, incoming.keys) as opener:
        told = tell(given, batch, ledger, catalog, incoming.keys, key_finder(catalog, ledger, opener))
    untold = sum(it.withdrawn is None for it in told)
    if untold:
        raise InputError(
            "entries.untold",
            f"有 {untold} 条无法判明是记录还是撤回（其更早版本的原文或条目本方没有）；请先补齐更早的批次，或取得下发文件。未导入",
            f"of {untold} entries it cannot be told whether they are records or withdrawals (their earlier versions are not here): take in "
            "the earlier batches first, or bring the delivered file. Nothing was taken in",
            str(file),
        )
    keep_lawful(job, incoming, given, told)
    return Exchanged(batch, record)


def read_given(file: Path, record: AnchorRecord, number: str) -> npt.NDArray[np.uint8]:
    """The entries in an entry file, which must be those that were anchored; InputError `entries.*` for another file."""
    if not file.is_file():
        raise InputError("entries.missing", "没有这个文件", "there is no such file", str(file))
    try:
        given = read_entries(file, hash_file(file)).entries
    except StoreError as error:
        raise InputError(
            "entries.file", f"不是条目文件：{error.zh}", f"not an entry file: {error.en}", str(file)
        ) from error
    if (len(given), root_hex(given)) != (record.size, record.root):
        raise InputError(
            "entries.root",
            f"条目文件有 {len(given)} 条，根 {root_hex(given)[:16]}…；{record.party} 上链的是 {record.size} 条，根 {record.root[:16]}…："
            "不是该批次最后一版的条目，未导入",
            f"the file has {len(given)} entries, root {root_hex(given)[:16]}…; {record.party} anchored {record.size}, root {record.root[:16]}…: "
            "these are not the entries of its last revision, nothing was taken in",
            str(file),
        )
    return given


def _begins_series(job: Job, batch: AnnouncedBatch) -> bool:
    """True for the new half of a bridge that another party made."""
    series = job.series(batch.stream).of(batch)
    bridge = None if series is None else series.bridge
    return bridge is not None and bridge.new.batch_id == batch.batch_id and batch.stream.sender != job.party


def _batch(job: Job, catalog: Catalog, number: str, party: str) -> AnnouncedBatch:
    name = batch_number(number)
    job.view.address(party)
    for stream in (StreamId(catalog.id, party, job.party), StreamId(catalog.id, job.party, party)):
        found = job.streams.find(stream, name)
        if found is not None:
            return found
    raise InputError(
        "entries.no_batch",
        f"本方与 {party} 之间没有目录 {catalog.id} 的批次 {name}",
        f"there is no batch {name} of {catalog.id} between this party and {party}",
        "--batch",
    )
