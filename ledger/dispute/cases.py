"""Disputes as a person sees them: on what, by whom, what was said, until when an answer is due."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from ledger.batch.job import Job
from ledger.batch.stream import AnnouncedBatch
from ledger.chain.disputes import Dispute, DisputeView
from ledger.chain.view import time_utc
from ledger.delivery.closing import office_day, today
from ledger.dispute.desk import dispute_registry
from ledger.errors import InputError
from ledger.workdays import due


@dataclass(frozen=True)
class Case:
    """One dispute. `batch` is None where its batch is not one of the chain's streams; it `counts` if opener and respondent are the
    batch's two sides. `due` is the last day for the next answer, None once it was answered or closed."""

    dispute: Dispute
    batch: AnnouncedBatch | None
    counts: bool
    due: date | None
    overdue: bool
    undated: tuple[str, str] | None = None  # (zh, en): why the term cannot be counted

    @property
    def state(self) -> str:
        """open, answered or closed."""
        if self.dispute.closing is not None:
            return "closed"
        return "answered" if self.dispute.answers else "open"

    def as_json(self) -> dict[str, object]:
        """The dispute with its whole history, in the words of the JSON output."""
        it = self.dispute
        told = None if self.batch is None else self.batch.descriptor
        closing = it.closing
        return {
            "id": it.id,
            "state": self.state,
            "opener": it.opener,
            "respondent": it.respondent,
            "catalog": None if told is None else told.catalog_id,
            "batch": None if told is None else told.batch,
            "batch_id": it.batch_id,
            "counts": self.counts,
            "revisions": {"opener": it.revisions[0], "respondent": it.revisions[1]},
            "findings": [{"kind": kind, "key_tag": tag} for kind, tag in it.findings],
            "evidence": it.evidence,
            "opened_at": time_utc(it.time),
            "block": it.block,
            "due": None if self.due is None else self.due.isoformat(),
            "overdue": self.overdue,
            "due_unknown": None if self.undated is None else {"zh": self.undated[0], "en": self.undated[1]},
            "answers": [
                {
                    "answer": answer.choice,
                    "batch_id": answer.batch_id or None,
                    "evidence": answer.evidence or None,
                    "at": time_utc(answer.time),
                    "block": answer.block,
                }
                for answer in it.answers
            ],
            "closing": None
            if closing is None
            else {
                "outcome": closing.outcome,
                "batch_id": closing.batch_id or None,
                "anchors": {it.opener: closing.sequences[0], it.respondent: closing.sequences[1]}
                if closing.batch_id
                else None,
                "evidence": closing.evidence or None,
                "at": time_utc(closing.time),
                "block": closing.block,
            },
        }


def cases(job: Job, *, closed: bool = True) -> list[Case]:
    """All disputes of the registry, oldest first; without the closed ones if asked for."""
    view = dispute_registry(job).view()
    found = [case_of(job, view, number) for number in sorted(view.disputes)]
    return [it for it in found if closed or it.state != "closed"]


def overdue_cases(job: Job) -> list[Case]:
    """Open disputes of ours, either way, whose answer is late; none in a workspace that knows no dispute registry."""
    if job.workspace.config.chain.disputes is None:
        return []
    mine = [it for it in cases(job, closed=False) if job.party in (it.dispute.opener, it.dispute.respondent)]
    return [it for it in mine if it.overdue and it.counts]


def case_of(job: Job, view: DisputeView, number: int) -> Case:
    """One dispute; InputError `dispute.unknown`."""
    it = view.disputes.get(number)
    if it is None:
        listed = "、".join(str(name) for name in sorted(view.disputes)) or "-"
        raise InputError(
            "dispute.unknown",
            f"链上没有争议 {number}；现有：{listed}",
            f"there is no dispute {number} on chain; there are: {listed}",
            "ID",
        )
    batch = job.streams.by_batch.get(it.batch_id)
    counts = batch is not None and {batch.stream.sender, batch.stream.receiver} == {it.opener, it.respondent}
    last, undated = None, None
    if it.closing is None and not it.answers:
        try:
            last = due(office_day(it.time), job.workspace.config.deadlines.answer)
        except InputError as error:
            # The dispute is shown all the same, with why its term is not.
            undated = (error.zh, error.en)
    return Case(it, batch, counts, last, last is not None and today() > last, undated)
