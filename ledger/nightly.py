"""The nightly job (design section 6): resume, receive what arrived, reconcile, seal own new rows, anchor, confirm, brief, notify.

One catalog that cannot be read does not hide the others: its error stands in the brief, and the job ends with exit 2.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from sqlalchemy import select

from ledger import snapshot
from ledger.batch.book import now
from ledger.batch.intake import FileOptions
from ledger.batch.job import Job
from ledger.batch.stream import AnnouncedBatch
from ledger.between import Overdue, close_late, compare_all, open_in
from ledger.between import overdue as find_overdue
from ledger.catalog import Catalog
from ledger.counterpart.findings import PartyComparison
from ledger.delivery.due import Due, due_withdrawals
from ledger.delivery.incoming import Delivered, expect, take_file
from ledger.delivery.receive import Received, is_open, land
from ledger.descriptor import batch_number
from ledger.errors import InputError, LedgerError
from ledger.notify.queue import overdue
from ledger.reconcile.runs import NIGHTLY, record
from ledger.reconcile.source import Reconciliation, reconcile
from ledger.restore.log import untold
from ledger.sealing import Anchored, seal
from ledger.source.files import bare_name
from ledger.source.kinds import ENDINGS
from ledger.store import models
from ledger.store.files import os_errors, store_error, sync_folder

_BRIEF_ZONE = timezone(
    timedelta(hours=8)
)  # a brief is for the office that reads it in the morning: China standard time


@dataclass(frozen=True)
class Failure:
    """What could not be done for one catalog or file."""

    what: str
    error: LedgerError


@dataclass
class Night:
    """The outcome of one nightly run; `exit_code` is the worst of its parts."""

    day: str
    started_at: str
    received: list[Received] = field(default_factory=list)
    reconciled: list[Reconciliation] = field(default_factory=list)
    sealed: list[tuple[Catalog, Anchored]] = field(default_factory=list)
    compared: list[PartyComparison] = field(default_factory=list)
    overdue: list[Overdue] = field(default_factory=list)
    closed: list[AnnouncedBatch] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    restores: list[models.Restore] = field(default_factory=list)
    due: list[Due] = field(default_factory=list)
    finished_at: str = ""

    @property
    def exit_code(self) -> int:
        """0 all matched, 1 differences found, 2 something could not be told."""
        codes = [2] * len(self.failures)
        codes += [received.exit_code for received in self.received]
        codes += [report.verdict.exit_code for report in self.reconciled]
        codes += [1 for _ in self.overdue]
        codes += [1 for it in self.compared if open_in(it)]
        return max(codes, default=0)


def run_nightly(job: Job) -> Night:
    """Do the night's work in an opened job (which has finished what an earlier run began); the caller writes the brief."""
    night = Night(datetime.now(_BRIEF_ZONE).date().isoformat(), now())
    run_id = _begin(job)
    for catalog_id, source in sorted(job.workspace.config.sources.items()):
        started_at = now()
        try:
            catalog = job.workspace.catalog(catalog_id)
            if source.origin == "own":
                report, anchored = seal(job, catalog)
                night.sealed.extend((catalog, one) for one in anchored)
            else:
                _receive_all(job, catalog, night)
                report = reconcile(job, catalog)
            keep = job.workspace.config.api.keep_reconciliations
            night.reconciled.append(record(job.store, report, requested_by=NIGHTLY, started_at=started_at, keep=keep))
        except LedgerError as error:
            night.failures.append(Failure(catalog_id, error))
        except Exception as error:
            # A fault of ours in one catalog must not hide the others, nor leave the morning without a brief.
            night.failures.append(Failure(catalog_id, _internal(error)))
    _find_due(job, night)
    _tell_unhandled(job, night)
    _look_across(job, night)
    gone = overdue(job.store, job.workspace.config.notify, datetime.now(UTC))
    night.failures.extend(Failure(what, error) for what, error in gone)
    night.restores = untold(job.store)
    night.finished_at = now()
    _end(job, run_id, night)
    return night


def _look_across(job: Job, night: Night) -> None:
    """What lies between us and each counterpart; where nobody could look, that is a failure."""
    night.compared, failed = compare_all(job)
    night.failures.extend(Failure(what, error) for what, error in failed)
    for what, look in (("deadlines", _close_late), ("overdue", _overdue)):
        try:
            look(job, night)
        except LedgerError as error:
            night.failures.append(Failure(what, error))
        except Exception as error:
            night.failures.append(Failure(what, _internal(error)))


def _close_late(job: Job, night: Night) -> None:
    night.closed = close_late(job)


def _overdue(job: Job, night: Night) -> None:
    night.overdue = find_overdue(job)


def _find_due(job: Job, night: Night) -> None:
    """Withdrawals that we owe the receivers of our deliveries; where nobody could tell, that is a failure."""
    for catalog_id in sorted({stream.catalog_id for stream in job.streams.by_id if stream.sender == job.party}):
        what = f"{catalog_id}: withdrawals due"
        try:
            dues = due_withdrawals(job, job.workspace.catalog(catalog_id))
        except LedgerError as error:
            night.failures.append(Failure(what, error))
            continue
        except Exception as error:
            night.failures.append(Failure(what, _internal(error)))
            continue
        night.due.extend(dues.found)
        night.failures.extend(Failure(what, LedgerError("due.unknown", zh, en, catalog_id)) for zh, en in dues.notes)


def _receive_all(job: Job, catalog: Catalog, night: Night) -> None:
    """Take in every file that waits, then look at each batch that is not settled: so no batch is judged before a later one is known.

    Snapshots last: what is held is stated against them once every batch was looked at.
    """
    waiting: dict[tuple[str, str], tuple[Path, Delivered]] = {}
    # In the order of the stream: what a batch withdraws stands in an earlier one.
    streams = job.streams.of_catalog(catalog.id, receiver=job.party)
    order = {(s.sender, b.descriptor.batch): at for s in streams for at, b in enumerate(job.streams.batches(s))}
    files = sorted(_files_of(job, catalog).items(), key=lambda it: order.get(it[0], -1))
    for (sender, number), paths in files:
        what = f"inbox/{sender}/{catalog.id}/{'、'.join(path.name for path in paths)}"
        try:
            incoming = expect(job, catalog, number=number, sender=sender)
            if len(paths) > 1:
                raise _several_files(incoming.batch.descriptor.batch, paths)
            told = job.workspace.source(catalog).file
            file = FileOptions(paths[0], told.encoding, told.operation_column, None, told.sheet, told.header_row)
            waiting[sender, incoming.batch.descriptor.batch] = paths[0], take_file(job, incoming, file)
        except LedgerError as error:
            night.failures.append(Failure(what, error))
    # A stranger we share no key with is named by the reconciliation's notes; he must not stop the night.
    known = [s for s in job.streams.of_catalog(catalog.id, receiver=job.party) if job.workspace.has_key(s.sender)]
    for stream in known:
        current, arranged = job.current(stream), job.series(stream)
        # What a bridge took over is closed; what comes after a bridge that waits is told, once a batch.
        closed = {it.batch_id for series in arranged.series[: current.number if current else 0] for it in series.every}
        for batch in (it for it in job.streams.batches(stream) if it.batch_id not in closed):
            number = batch.descriptor.batch
            arrived = waiting.get((stream.sender, number))
            try:
                incoming = expect(job, catalog, number=number, sender=stream.sender)
                if arrived is None and not is_open(job, incoming):
                    continue
                night.received.append(land(job, incoming, arrived[1] if arrived else None))
                if arrived:
                    _put_away(arrived[0])
            except LedgerError as error:
                night.failures.append(Failure(f"{catalog.id} {number}", error))
        for announced in (it for it in job.streams.snapshots(stream) if it.batch_id not in closed):
            number = announced.descriptor.batch
            try:
                if snapshot.is_open(job, announced):
                    answered = snapshot.receive(job, catalog, sender=stream.sender, number=number)
                    night.received.append(answered.received())
            except LedgerError as error:
                night.failures.append(Failure(f"{catalog.id} {number}", error))


def _files_of(job: Job, catalog: Catalog) -> dict[tuple[str, str], list[Path]]:
    """The files that wait, by sender and batch number."""
    found: dict[tuple[str, str], list[Path]] = {}
    for path in sorted((job.workspace.root / "inbox").glob(f"*/{catalog.id}/*")):
        name = bare_name(path.name)
        if name is None or not path.is_file():
            continue
        try:
            number = batch_number(name)
        except InputError:
            # Told when the batch is looked for.
            number = name
        found.setdefault((path.parent.parent.name, number), []).append(path)
    return found


def _put_away(path: Path) -> None:
    """What was received is kept under another name, so that it is not read again; killed before this, it is read again for nothing."""
    with os_errors(path):
        names = (path.with_name(f"{path.name}.received{(n and f'-{n}') or ''}") for n in itertools.count())
        path.rename(next(name for name in names if not name.exists()))
        sync_folder(path.parent)


def _tell_unhandled(job: Job, night: Night) -> None:
    """What waits and nobody looked at: announced batches and delivered files that no source of ours takes."""
    sources = job.workspace.config.sources
    taken = {catalog_id for catalog_id, source in sources.items() if source.origin == "delivery"}
    for stream in sorted(job.streams.by_id):
        if stream.receiver == job.party and stream.catalog_id not in taken and job.workspace.has_key(stream.sender):
            night.failures.append(Failure(f"{stream.sender} → {stream.catalog_id}", _no_source(stream.catalog_id)))
    told = {failure.what for failure in night.failures}
    root = job.workspace.root

    def unreadable(error: OSError) -> None:
        night.failures.append(Failure("inbox", store_error(error, Path(error.filename or root / "inbox"))))

    for folder, _, names in os.walk(root / "inbox", onerror=unreadable):
        for name in sorted(names):
            path = Path(folder) / name
            what = str(path.relative_to(root))
            if ".received" not in name and what not in told and not _takes(path, taken, root):
                night.failures.append(Failure(what, _odd_file(what)))


def _takes(path: Path, taken: set[str], root: Path) -> bool:
    parts = path.relative_to(root / "inbox").parts
    return len(parts) == 3 and parts[1] in taken and bare_name(path.name) is not None


def _no_source(catalog_id: str) -> InputError:
    return InputError(
        "nightly.no_source",
        f'对方已宣告目录 {catalog_id} 的批次，但本方没有 origin = "delivery" 的 [source.{catalog_id}]：无从核对',
        f'batches of {catalog_id} were announced to us and there is no [source.{catalog_id}] of origin "delivery": nobody looked',
    )


def _several_files(number: str, paths: Sequence[Path]) -> InputError:
    names = [path.name for path in paths]
    return InputError(
        "nightly.several_files",
        f"批次 {number} 有 {len(names)} 个文件：{'、'.join(names)}；无法判断以哪个为准，均未处理，请只留一个",
        f"batch {number} has {len(names)} files: {', '.join(names)}; nobody can say which counts, so none was taken: keep one",
    )


def _odd_file(what: str) -> InputError:
    endings = " ".join(ENDINGS)
    return InputError(
        "nightly.odd_file",
        f'{what} 未被处理：应为 inbox/<发送方>/<目录>/<批次号>.csv（或 {endings}），且目录有 origin = "delivery" 的数据源',
        f"{what} was not taken in: it should be inbox/<sender>/<catalog>/<batch>.csv ({endings}) of a catalog with a delivery source",
    )


def _internal(error: Exception) -> LedgerError:
    text = f"{type(error).__name__}: {error}"
    return LedgerError("internal", f"程序内部错误：{text}", f"internal error: {text}")


def _begin(job: Job) -> int:
    with job.store.write() as session:
        for left in session.scalars(select(models.Run).where(models.Run.finished_at.is_(None))):
            left.finished_at, left.exit_code, left.outcome = now(), 2, json.dumps({"interrupted": True})
        run = models.Run(command="nightly", started_at=now())
        session.add(run)
        session.flush()
        return run.id


def _end(job: Job, run_id: int, night: Night) -> None:
    outcome: Mapping[str, object] = {
        "received": len(night.received),
        "reconciled": {report.catalog: str(report.verdict) for report in night.reconciled},
        "failures": [failure.error.code for failure in night.failures],
    }
    with job.store.write() as session:
        run = session.get_one(models.Run, run_id)
        run.finished_at, run.exit_code, run.outcome = night.finished_at, night.exit_code, json.dumps(outcome)
