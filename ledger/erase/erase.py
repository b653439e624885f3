"""`erase`: the plaintext of named records is removed for good; entries, roots and anchors stay, so everything else still proves.

Order: everything is looked through, and new archive and entry files without the records are written beside the old ones; one transaction
of the store then names the new files, takes the records out of its tables and records the erasures with the old files' names; these are
deleted, the store's own files are cleared of what they no longer say, and the erasures are done. Killed before the transaction, nothing
happened (the new files are named by nobody; their keys are lost); after it, the next run of any job goes on (`finish_erasures`).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.batch.book import now
from ledger.batch.erasures import finish_erasures
from ledger.batch.job import Job
from ledger.batch.stream import StreamId
from ledger.catalog import Catalog
from ledger.delivery.due import Due, due_withdrawals
from ledger.erase.named import HeldSet, InStream, Named, find, read_names
from ledger.erase.redact import redact
from ledger.erase.traces import Traces, look
from ledger.errors import InputError, StoreError
from ledger.progress import watched
from ledger.reconcile.approval import person
from ledger.reconcile.runs import recover
from ledger.store import models
from ledger.store.archive import ArchiveWriter, among
from ledger.store.entryfile import NO_FRAME, write_entries


@dataclass(frozen=True)
class Delivered:
    """A file that was received for a batch that has the records, by the name it had; it may lie anywhere."""

    batch: str
    file_name: str
    received_at: str


@dataclass(frozen=True)
class Erased:
    """What became of the named records.

    `streams` are those that had one, `again` the records that were erased before. `archives` counts the archive files written anew.
    `due` are the parties we sent a record to and who were not told that it is withdrawn.
    """

    catalog: Catalog
    named: tuple[Named, ...]
    streams: tuple[InStream, ...]
    again: tuple[Named, ...]
    archives: int
    traces: Traces
    delivered: tuple[Delivered, ...]
    due: tuple[Due, ...]
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if no plaintext is left as far as can be told, 1 where it still stands, 2 where nobody could look."""
        if self.traces.holding or any((self.traces.rows or {}).values()):
            return 1
        return 2 if self.traces.unread or self.traces.rows is None else 0


@dataclass(frozen=True)
class _Rewritten:
    """An entry set's new files."""

    set_id: int
    entries_file: str
    entries_sha256: str
    archive_file: str | None
    key_wrapped: str | None


def erase(job: Job, catalog: Catalog, keys: Sequence[str], *, reason: str, by: str) -> Erased:
    """Erase the named records from archives and store: every version, in every stream of this party that has the key; all or none.

    Erasing again is allowed: it clears what reports have named since, and looks once more where plaintext is left. The source is never
    touched. InputError `erase.*`, `key.*`; then nothing was done.
    """
    _check_asked(job, reason, by)
    named = read_names(catalog, keys)
    _check_quiet(job, catalog)
    streams = find(job, catalog, named)
    again = tuple(it for it in named if any(stream.before and _erased(stream, it) for stream in streams))
    traces = look(job, catalog, named)
    rewritten = _rewrite(job, streams)
    with job.store.write() as session:
        _check_idle(session, catalog)
        old = _take_over(session, rewritten)
        for stream in streams:
            _record(session, stream, named, old, reason=reason, by=by)
        redact(session, catalog, named, {tag for stream in streams for tag in stream.tags})
        delivered = _delivered(session, streams, traces)
    finish_erasures(job.workspace, job.store)
    due = due_withdrawals(job, catalog)
    tags = {tag.hex() for stream in streams for tag in stream.tags}
    return Erased(
        catalog,
        tuple(named),
        tuple(streams),
        again,
        len(rewritten),
        traces,
        tuple(delivered),
        tuple(it for it in due.found if it.key_tag in tags),
        due.notes,
    )


def _check_asked(job: Job, reason: str, by: str) -> None:
    for name, value in (("--reason", reason), ("--by", by)):
        if not person(value):
            raise InputError("consent.empty", f"{name} 不得为空", f"{name} must not be empty", name)
    if job.workspace.config.approvers > 1:
        raise InputError(
            "erase.approvers",
            f"本工作区要求两人认可（[consent] approvers = {job.workspace.config.approvers}），而 erase 只能由一人执行，未删除任何内容；"
            "请经两人同意后把 approvers 暂改为 1 执行",
            f"this workspace asks for two people ([consent] approvers = {job.workspace.config.approvers}) and erase is done by one: nothing "
            "was erased. Once two people agree, set approvers to 1 for the time it takes",
            "[consent] approvers",
        )


def _check_quiet(job: Job, catalog: Catalog) -> None:
    # One whose worker died long ago is none.
    recover(job.store)
    with job.store.read() as session:
        _check_idle(session, catalog)


def _check_idle(session: Session, catalog: Catalog) -> None:
    """A reconciliation that runs has read what the store says now, and would write it down again."""
    running = session.scalar(
        select(models.Reconciliation.id).where(
            models.Reconciliation.catalog_id == catalog.id, models.Reconciliation.state == "running"
        )
    )
    if running is not None:
        raise StoreError(
            "erase.reconciling",
            f"目录 {catalog.id} 的一次对账正在运行（{running}），它会把记录重新写进台账；请待其结束后再执行，未删除任何内容",
            f"a reconciliation of {catalog.id} is running ({running}) and would write the record down again; run it when that one ended. "
            "Nothing was erased",
            running,
        )


def _erased(stream: InStream, named: Named) -> bool:
    return any(stream.tags[tag] is named for tag in stream.before)


# ---- files ----


def _rewrite(job: Job, streams: Sequence[InStream]) -> list[_Rewritten]:
    """New files for every set whose archive has one of the records; if one cannot be written, none is left."""
    todo = [(held, frozenset(stream.tags)) for stream in streams for held in stream.held if _needs(held)]
    written: list[Path] = []
    done: list[_Rewritten] = []
    try:
        for ((held, tags),) in watched("改写归档", "writing archives anew", ((it,) for it in todo)):
            done.append(_rewrite_one(job, held, tags, written))
    except BaseException:
        # After a kill they stay: no row names them, and nobody has the archives' keys.
        for path in written:
            with suppress(OSError):
                path.unlink()
        raise
    return done


def _needs(held: HeldSet) -> bool:
    archived = held.entry_set.archive_file is not None
    pointed = archived and bool((held.entries.frames[among(held.entries.key_tags, held.in_entries)] != NO_FRAME).any())
    return bool(held.in_archive) or pointed


def _rewrite_one(job: Job, held: HeldSet, tags: frozenset[bytes], written: list[Path]) -> _Rewritten:
    row, workspace = held.entry_set, job.workspace
    frames = held.entries.frames.copy()
    frames[among(held.entries.key_tags, tags)] = NO_FRAME
    archive_file = key_wrapped = None
    # An archive that lost its last record is none.
    if bool((frames != NO_FRAME).any()):
        path = workspace.archive_folder / f"{row.batch_id[:16]}.archive"
        with (
            job.book.archive(row) as reader,
            ArchiveWriter(path, row.batch_id.encode(), workspace.archive_key()) as writer,
        ):
            writer.copy_without(reader, tags)
            reference = writer.finish()
        written.append(workspace.archive_folder / reference.file_name)
        archive_file, key_wrapped = f"archive/{reference.file_name}", reference.key_wrapped
    name = f"entries/{row.batch_id[:16]}-{row.role}-{row.root[:16]}-{secrets.token_hex(4)}.parquet"
    entries = held.entries
    digest = write_entries(
        workspace.root / name,
        np.asarray(entries.entries),
        np.asarray(entries.withdrawn),
        frames,
        entries.row_versions,
        entries.tiles,
    )
    written.append(workspace.root / name)
    return _Rewritten(row.id, name, digest, archive_file, key_wrapped)


# ---- the store ----


def _take_over(session: Session, rewritten: Sequence[_Rewritten]) -> dict[int, list[str]]:
    """Let the sets name their new files; the old ones by set."""
    old: dict[int, list[str]] = {}
    for it in rewritten:
        row = session.get_one(models.EntrySet, it.set_id)
        old[row.id] = [row.entries_file, *([] if row.archive_file is None else [row.archive_file])]
        row.entries_file, row.entries_sha256 = it.entries_file, it.entries_sha256
        row.archive_file, row.archive_key_wrapped = it.archive_file, it.key_wrapped
    return old


def _record(
    session: Session,
    stream: InStream,
    named: Sequence[Named],
    old: Mapping[int, list[str]],
    *,
    reason: str,
    by: str,
) -> None:
    """One row for each tag of a record that the stream has: under every key, so that it does not come back under the next either."""
    there = [it for it in named if stream.has(it)]
    rows = {
        row.key_tag: row
        for row in session.scalars(
            select(models.Erasure).where(
                models.Erasure.catalog_id == stream.stream.catalog_id,
                models.Erasure.sender_party == stream.stream.sender,
                models.Erasure.receiver_party == stream.stream.receiver,
            )
        )
    }
    for tag, it in stream.tags.items():
        if it not in there:
            continue
        files = sorted(
            name
            for held in stream.held
            if tag in held.in_entries | held.in_archive
            for name in old.get(held.entry_set.id, ())
        )
        row = rows.get(tag.hex())
        if row is None:
            session.add(_erasure(stream.stream, tag, files, reason=reason, by=by))
        else:
            row.files = json.dumps(sorted({*json.loads(row.files), *files}))
            row.state, row.finished_at = "intent", None


def _erasure(stream: StreamId, tag: bytes, files: Sequence[str], *, reason: str, by: str) -> models.Erasure:
    return models.Erasure(
        catalog_id=stream.catalog_id,
        sender_party=stream.sender,
        receiver_party=stream.receiver,
        key_tag=tag.hex(),
        reason=reason,
        approved_by=by,
        files=json.dumps(list(files)),
        state="intent",
        created_at=now(),
    )


def _delivered(session: Session, streams: Sequence[InStream], traces: Traces) -> list[Delivered]:
    """Files that were received for batches that have a record, but for those found in the workspace."""
    found = [Path(name).name for name in traces.holding]
    batches = {held.entry_set.batch_id for stream in streams for held in stream.held if held.entry_set.role == "lawful"}
    chosen = (
        select(models.Arrival, models.Batch.number)
        .join(models.Batch, models.Batch.id == models.Arrival.batch_id)
        .where(models.Arrival.batch_id.in_(sorted(batches)))
        .order_by(models.Arrival.id)
    )
    return [
        Delivered(number, arrival.file_name, arrival.received_at)
        for arrival, number in session.execute(chosen)
        if not any(name.startswith(arrival.file_name) for name in found)
    ]
