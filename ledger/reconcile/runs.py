"""Reconciliations on record: queued, claimed by one worker, finished, failed or interrupted; never lost.

The store is the queue, so any process of this workspace can take a waiting reconciliation, and one whose worker died is found by
its heartbeat. Nothing here needs the workspace's lock: each function is one transaction of the store.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import Any

from sqlalchemy import Select, delete, func, insert, select, tuple_
from sqlalchemy.orm import Session

from ledger import progress
from ledger.batch.book import now
from ledger.batch.job import open_job
from ledger.errors import LedgerError, StoreError
from ledger.reconcile.findings import Finding
from ledger.reconcile.scope import Scope
from ledger.reconcile.source import Reconciliation, reconcile
from ledger.reconcile.tracking import track
from ledger.store import models
from ledger.store.db import Store
from ledger.workspace import Workspace

MAX_ATTEMPTS = 2
"""A reconciliation whose worker died is begun again once; one that kills its worker twice is interrupted."""
NIGHTLY = "nightly"
"""Who asks at night; only its reports stand in a brief."""
MAX_QUEUED = 16
"""Waiting reconciliations of one catalog, each of another scope."""
PRUNED_AFTER_SECONDS = 3600.0
"""Nothing younger is pruned, however many there are."""
BEAT_SECONDS = 2.0
STALE_SECONDS = 20.0
"""A running reconciliation that has not been heard of for so long has lost its worker."""
_INSERTED_AT_ONCE = 10_000


def enqueue(store: Store, catalog_id: str, scope: Scope, requested_by: str) -> models.Reconciliation:
    """Ask for a reconciliation; one of the same catalog and scope that still waits is returned instead of a second one.

    StoreError `reconciliation.queue_full` when MAX_QUEUED of the catalog wait.
    """
    wanted = _scope_text(scope)
    with store.write() as session:
        waiting = session.scalar(
            select(models.Reconciliation).where(
                models.Reconciliation.catalog_id == catalog_id,
                models.Reconciliation.scope == wanted,
                models.Reconciliation.state == "queued",
            )
        )
        if waiting is not None:
            return waiting
        queued = select(func.count()).where(
            models.Reconciliation.catalog_id == catalog_id, models.Reconciliation.state == "queued"
        )
        if (session.scalar(queued) or 0) >= MAX_QUEUED:
            raise StoreError(
                "reconciliation.queue_full",
                f"目录 {catalog_id} 已有 {MAX_QUEUED} 次对账在排队；请待其完成",
                f"{MAX_QUEUED} reconciliations of {catalog_id} wait already; let them come to their end",
                catalog_id,
            )
        row = models.Reconciliation(
            id=_new_id(),
            catalog_id=catalog_id,
            scope=wanted,
            requested_by=requested_by,
            state="queued",
            attempts=0,
            progress_rows=0,
            created_at=now(),
        )
        session.add(row)
    return row


def get(store: Store, run_id: str) -> models.Reconciliation | None:
    """The reconciliation of that id, or None."""
    with store.read() as session:
        return session.get(models.Reconciliation, run_id)


def listed(
    store: Store,
    *,
    catalog_id: str | None = None,
    state: models.ReconciliationState | None = None,
    before: tuple[str, str] | None = None,
    limit: int = 50,
) -> list[models.Reconciliation]:
    """Reconciliations, newest first; `before` is the (created_at, id) of the last one already seen."""
    row = models.Reconciliation
    chosen = select(row).order_by(row.created_at.desc(), row.id.desc()).limit(limit)
    if catalog_id is not None:
        chosen = chosen.where(row.catalog_id == catalog_id)
    if state is not None:
        chosen = chosen.where(row.state == state)
    if before is not None:
        chosen = chosen.where(tuple_(row.created_at, row.id) < tuple_(*before))
    with store.read() as session:
        return list(session.scalars(chosen))


def claim(store: Store, worker: str) -> models.Reconciliation | None:
    """The oldest that waits and whose catalog has none running becomes `worker`'s; None if there is nothing to do."""
    row = models.Reconciliation
    busy = select(row.catalog_id).where(row.state == "running")
    with store.write() as session:
        found = session.scalar(
            select(row)
            .where(row.state == "queued", row.catalog_id.not_in(busy))
            .order_by(row.created_at, row.id)
            .limit(1)
        )
        if found is None:
            return None
        found.state = "running"
        found.worker = worker
        found.attempts += 1
        found.progress_rows = 0
        found.started_at = found.heartbeat_at = now()
    return found


def beat(store: Store, run_id: str, worker: str, rows: int) -> bool:
    """Say that `worker` lives and has read `rows`; False if the reconciliation is no longer its own."""
    with store.write() as session:
        row = _own(session, run_id, worker)
        if row is None:
            return False
        row.heartbeat_at = now()
        row.progress_rows = rows
    return True


def recover(store: Store, *, stale_seconds: float = STALE_SECONDS) -> list[str]:
    """Reconciliations whose worker is gone wait again, or are interrupted after MAX_ATTEMPTS; their ids."""
    limit = models.utc_text(datetime.now(UTC) - timedelta(seconds=stale_seconds))
    with store.write() as session:
        lost = list(
            session.scalars(
                select(models.Reconciliation).where(
                    models.Reconciliation.state == "running", models.Reconciliation.heartbeat_at < limit
                )
            )
        )
        for row in lost:
            _give_back(row)
    return [row.id for row in lost]


def release(store: Store, run_id: str, worker: str, *, told_to_stop: bool = False) -> None:
    """A worker gives back what was not finished, as `recover` would; being told to stop counts as no attempt.

    Else two workers that end one after the other could use up both of them: the second may claim what the first gave back.
    """
    with store.write() as session:
        row = _own(session, run_id, worker)
        if row is not None:
            if told_to_stop:
                row.attempts -= 1
                _queue_again(row)
            else:
                _give_back(row)


def fail(store: Store, run_id: str, worker: str, error: LedgerError) -> None:
    """Record what stopped a reconciliation; nothing if it is no longer `worker`'s."""
    with store.write() as session:
        row = _own(session, run_id, worker)
        if row is not None:
            row.state, row.finished_at = "failed", now()
            row.error = _error_text(error.code, error.zh, error.en, error.where)


def found(
    store: Store,
    run_id: str,
    *,
    kind: str | None = None,
    state: str | None = None,
    batch: str | None = None,
    after: int = -1,
    limit: int = 100,
) -> list[models.Found]:
    """Findings of a reconciliation in the report's order, those after ordinal `after`."""
    chosen = _found_where(select(models.Found), run_id, kind, state, batch)
    chosen = chosen.where(models.Found.ordinal > after).order_by(models.Found.ordinal).limit(limit)
    with store.read() as session:
        return list(session.scalars(chosen))


def count_found(
    store: Store, run_id: str, *, kind: str | None = None, state: str | None = None, batch: str | None = None
) -> int:
    """How many findings `found` would give in all."""
    counted = _found_where(select(func.count()).select_from(models.Found), run_id, kind, state, batch)
    with store.read() as session:
        return int(session.scalar(counted) or 0)


def record(
    store: Store,
    report: Reconciliation,
    *,
    requested_by: str,
    started_at: str,
    keep: int,
) -> Reconciliation:
    """Put an answer that was just found on record; returns it with the state of each finding.

    `new` are findings that this reconciliation is the first to see; at night, those that no brief has told of. `keep` is how many
    of the catalog stay on record.
    """
    catalog_id = report.catalog.partition("/")[0]
    with store.write() as session:
        row = models.Reconciliation(
            id=_new_id(),
            catalog_id=catalog_id,
            scope=_scope_text(report.scope),
            requested_by=requested_by,
            state="running",
            worker=requested_by,
            attempts=1,
            progress_rows=report.counts.source,
            created_at=started_at,
            started_at=started_at,
            heartbeat_at=now(),
        )
        told = _finish(session, row, report)
        session.add(row)
        session.flush()
        _save_found(session, row.id, told.findings)
        _prune(session, catalog_id, keep)
    return told


def perform(workspace: Workspace, run_id: str, worker: str) -> int:
    """Do a claimed reconciliation to its end, in a process of its own; the exit code is the verdict's, 2 for an error.

    Reads source and chain beside whatever else runs; writes nothing but the outcome. StoreError `reconciliation.not_ours` if it was
    not claimed by `worker`.
    """
    with closing(workspace.open_store("update")) as store:
        with store.read() as session:
            row = _own(session, run_id, worker)
        if row is None:
            raise _not_ours(run_id)
        try:
            with _beating(store, run_id, worker):
                report = _reconcile(workspace, store, row)
            _conclude(store, run_id, worker, report, workspace.config.api.keep_reconciliations)
            return report.verdict.exit_code
        except LedgerError as error:
            fail(store, run_id, worker, error)
            return 2
        except Exception as error:
            # What a library says may quote a value; kind and place are enough for whoever mends it.
            text = f"{type(error).__name__} ({_place(error)})"
            fail(store, run_id, worker, LedgerError("internal", f"程序内部错误：{text}", f"internal error: {text}"))
            raise


def _reconcile(workspace: Workspace, store: Store, row: models.Reconciliation) -> Reconciliation:
    catalog = workspace.catalog(row.catalog_id)
    with open_job(workspace, store, resume=False) as job:
        return reconcile(job, catalog, scope=Scope.from_json(json.loads(row.scope)))


def _conclude(store: Store, run_id: str, worker: str, report: Reconciliation, keep: int) -> None:
    with store.write() as session:
        row = _own(session, run_id, worker)
        if row is None:
            raise _not_ours(run_id)
        told = _finish(session, row, report)
        _save_found(session, run_id, told.findings)
        _prune(session, row.catalog_id, keep)


def _finish(session: Session, row: models.Reconciliation, report: Reconciliation) -> Reconciliation:
    told = track(session, report, run_id=row.id, in_brief=row.requested_by == NIGHTLY)
    document = told.as_json()
    del document["findings"]
    row.state, row.finished_at = "finished", now()
    row.progress_rows = report.counts.source
    row.verdict, row.exit_code = str(report.verdict), report.verdict.exit_code
    row.report = json.dumps(document, ensure_ascii=False)
    return told


def _save_found(session: Session, run_id: str, findings: Sequence[Finding]) -> None:
    for start in range(0, len(findings), _INSERTED_AT_ONCE):
        rows = [
            {
                "reconciliation_id": run_id,
                "ordinal": start + at,
                "kind": str(finding.kind),
                "key_tag": finding.key_tag,
                "batch": finding.batch,
                "state": finding.state or "",
                "document": json.dumps(_without_values(finding).as_json(), ensure_ascii=False),
            }
            for at, finding in enumerate(findings[start : start + _INSERTED_AT_ONCE])
        ]
        session.execute(insert(models.Found), rows)


def _without_values(finding: Finding) -> Finding:
    """Field values were shown to whoever asked for them; on record there are commitments only."""

    def kept(told: object) -> object:
        return told if isinstance(told, str) else None

    return replace(finding, expected=kept(finding.expected), observed=kept(finding.observed))


def _prune(session: Session, catalog_id: str, keep: int) -> None:
    row = models.Reconciliation
    ended = row.state.in_(("finished", "failed", "interrupted"))
    # Apart, so that failures and answers about a part never push out those that looked at everything.
    whole = (row.state == "finished") & (row.scope == _scope_text(Scope()))
    # Whoever asked for one that has just ended will want to read it.
    limit = models.utc_text(datetime.now(UTC) - timedelta(seconds=PRUNED_AFTER_SECONDS))
    ids: list[str] = []
    for group in (whole, ~whole):
        old = (
            select(row.id)
            .where(row.catalog_id == catalog_id, ended, group, row.finished_at < limit)
            .order_by(row.created_at.desc(), row.id.desc())
        )
        ids += list(session.scalars(old))[keep:]
    # A few at a time: a statement takes a limited number of values.
    for start in range(0, len(ids), 500):
        gone = ids[start : start + 500]
        session.execute(delete(models.Found).where(models.Found.reconciliation_id.in_(gone)))
        session.execute(delete(row).where(row.id.in_(gone)))


def _found_where(
    chosen: Select[Any], run_id: str, kind: str | None, state: str | None, batch: str | None
) -> Select[Any]:
    chosen = chosen.where(models.Found.reconciliation_id == run_id)
    for column, value in ((models.Found.kind, kind), (models.Found.state, state), (models.Found.batch, batch)):
        if value is not None:
            chosen = chosen.where(column == value)
    return chosen


def _own(session: Session, run_id: str, worker: str) -> models.Reconciliation | None:
    row = session.get(models.Reconciliation, run_id)
    return row if row is not None and row.state == "running" and row.worker == worker else None


def _give_back(row: models.Reconciliation) -> None:
    if row.attempts < MAX_ATTEMPTS:
        _queue_again(row)
        return
    row.state, row.finished_at = "interrupted", now()
    row.error = _error_text(
        "reconciliation.interrupted",
        f"执行进程已中断 {row.attempts} 次，未得出结论；请重新发起",
        f"the process that did it was lost {row.attempts} times and there is no answer; ask again",
        "",
    )


def _new_id() -> str:
    # Times on record are to the second; what was asked for first must still come first.
    return f"{time.time_ns() // 1000:014x}{secrets.token_hex(9)}"


def _place(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "-"


def _queue_again(row: models.Reconciliation) -> None:
    row.state, row.worker, row.heartbeat_at, row.progress_rows = "queued", None, None, 0


def _scope_text(scope: Scope) -> str:
    return json.dumps(scope.as_json(), ensure_ascii=False, sort_keys=True)


def _error_text(code: str, zh: str, en: str, where: str) -> str:
    return json.dumps({"code": code, "zh": zh, "en": en, "where": where}, ensure_ascii=False)


def _not_ours(run_id: str) -> StoreError:
    return StoreError(
        "reconciliation.not_ours",
        "该对账不在运行，或已由其他进程接手",
        "this reconciliation is not running, or another process has taken it over",
        run_id,
    )


@contextmanager
def _beating(store: Store, run_id: str, worker: str) -> Iterator[None]:
    """Beat until the block ends; a reconciliation that was taken from us stops at its next chunk."""
    done = threading.Event()
    lost = threading.Event()
    rows = 0

    def hear(zh: str, en: str, count: int | None, about: int | None) -> None:
        nonlocal rows
        rows = rows if count is None else count
        if lost.is_set():
            raise _not_ours(run_id)

    def keep_beating() -> None:
        while not done.wait(BEAT_SECONDS):
            try:
                if not beat(store, run_id, worker, rows):
                    lost.set()
                    return
            except StoreError:
                # A store that is busy or away for a moment: the next beat may get through, and the outcome is written
                # only if the reconciliation is still ours.
                continue

    thread = threading.Thread(target=keep_beating, name="heartbeat", daemon=True)
    progress.listen(hear)
    thread.start()
    try:
        yield
    finally:
        done.set()
        progress.listen(None)
        thread.join()
