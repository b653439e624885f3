"""Until when a delivery may still land: provisional until its deadline or until somebody says that it is final (design section 4)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

from sqlalchemy.orm import Session

from ledger.batch.book import now
from ledger.batch.job import Job
from ledger.batch.stream import AnnouncedBatch
from ledger.chain.view import time_utc
from ledger.errors import InputError
from ledger.store import models
from ledger.workdays import due

# Working days are those of the office: China standard time.
OFFICE = timezone(timedelta(hours=8))


def closing_of(job: Job, batch: AnnouncedBatch) -> models.Closing | None:
    """That this workspace looks at a batch no more, and since when; None while it does."""
    with job.store.read() as session:
        return session.get(models.Closing, batch.batch_id)


def refuse_closed(job: Job, batch: AnnouncedBatch, *, final: bool) -> None:
    """InputError `receive.closed` for a batch that was closed, unless the caller says `final` again: a visible revision, asked for."""
    closed = closing_of(job, batch)
    if closed is None or final:
        return
    why_zh, why_en = (
        ("到期", "its deadline passed") if closed.reason == "deadline" else ("已以 --final 定稿", "it was made final")
    )
    raise InputError(
        "receive.closed",
        f"批次 {batch.descriptor.batch} 于 {closed.closed_at} {why_zh}，此后入库的不再补登；确需补登（链上会留下新版次）请加 --final",
        f"batch {batch.descriptor.batch} was closed at {closed.closed_at} ({why_en}): what lands later is not anchored. To anchor a visible "
        "revision all the same, say --final",
        "--batch",
    )


def close_batch(session: Session, batch_id: str, reason: models.ClosingReason) -> None:
    """Close a batch, once."""
    if session.get(models.Closing, batch_id) is None:
        session.add(models.Closing(batch_id=batch_id, reason=reason, closed_at=now()))


def landing_due(job: Job, batch: AnnouncedBatch) -> date:
    """The last day on which an announced batch may land; InputError `calendar.no_year`."""
    return due(office_day(batch.sent[0].time), job.workspace.config.deadlines.land)


def answer_due(job: Job, batch: AnnouncedBatch) -> date:
    """The last day on which the receiver of a batch of ours is to have anchored something of it; InputError `calendar.no_year`."""
    return due(office_day(batch.sent[0].time), job.workspace.config.deadlines.receive)


def today() -> date:
    """Today, where the office is."""
    return datetime.now(UTC).astimezone(OFFICE).date()


def office_day(seconds: int) -> date:
    """The office's day of a moment on chain."""
    moment = datetime.fromisoformat(time_utc(seconds).replace("Z", "+00:00"))
    return moment.astimezone(OFFICE).date()
