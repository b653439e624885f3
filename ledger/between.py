"""The night between parties: what each counterpart and we anchored, and who has kept whom waiting too long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from ledger.batch.job import Job
from ledger.batch.stream import AnnouncedBatch
from ledger.chain.view import time_utc
from ledger.counterpart.compare import compare_with
from ledger.counterpart.findings import PartyComparison
from ledger.delivery.closing import answer_due, close_batch, closing_of, landing_due, today
from ledger.dispute.cases import overdue_cases
from ledger.errors import LedgerError


@dataclass(frozen=True)
class Overdue:
    """Something that should have happened by `due`: what kind, about what, since when it waits, and who must act."""

    kind: str
    what: str
    since: str
    due: date
    who: str
    zh: str
    en: str

    def as_json(self) -> dict[str, object]:
        """In the words of the JSON output."""
        return {
            "kind": self.kind,
            "what": self.what,
            "since": self.since,
            "due": self.due.isoformat(),
            "who": self.who,
            "zh": self.zh,
            "en": self.en,
        }


def compare_all(job: Job) -> tuple[list[PartyComparison], list[tuple[str, LedgerError]]]:
    """A comparison for each catalog and counterpart we share a key with, of the batches both sides anchored; and what could not be done."""
    pairs = sorted(
        {
            (stream.catalog_id, other)
            for stream in job.streams.by_id
            if stream.receiver
            and job.party in (stream.sender, stream.receiver)
            and job.workspace.has_key(other := stream.receiver if stream.sender == job.party else stream.sender)
        }
    )
    found: list[PartyComparison] = []
    failed: list[tuple[str, LedgerError]] = []
    for catalog_id, other in pairs:
        try:
            found.append(compare_with(job, job.workspace.catalog(catalog_id), other))
        except LedgerError as error:
            failed.append((f"{catalog_id} {other}", error))
    return found, failed


def open_in(comparison: PartyComparison) -> bool:
    """True if a batch that both anchored differs in something no later batch settled. A side that is silent is told by `overdue`."""
    anchored = [it for it in comparison.batches if it.ours is not None and it.theirs is not None]
    return any(any(f.open for f in it.findings) or (it.verdict == "differences_partial") for it in anchored)


def close_late(job: Job) -> list[AnnouncedBatch]:
    """Close the batches that were announced to us, still differ, and whose time to land is over; those closed now."""
    late: list[AnnouncedBatch] = []
    for batch in _announced_to_us(job):
        if not batch.received or closing_of(job, batch) is not None:
            continue
        sent, ours = batch.sent[-1], batch.received[-1]
        if (sent.size, sent.root) != (ours.size, ours.root) and today() > landing_due(job, batch):
            late.append(batch)
    if late:
        with job.store.write() as session:
            for batch in late:
                close_batch(session, batch.batch_id, "deadline")
    return late


def overdue(job: Job) -> list[Overdue]:
    """Everything that is late between us and others, in both directions; InputError `calendar.no_year`."""
    found: list[Overdue] = []
    for batch in _announced_to_us(job):
        last = landing_due(job, batch)
        if not batch.received and today() > last:
            found.append(
                _overdue(
                    "nothing_landed",
                    batch,
                    last,
                    batch.stream.sender,
                    f"{batch.stream.sender} 已宣告批次 {batch.descriptor.batch}，期限 {last} 已过，本方仍无可登记的内容；请向其催要或提出争议",
                    f"{batch.stream.sender} announced batch {batch.descriptor.batch}; it was due by {last} and nothing of it is here: ask for it",
                )
            )
    for stream in sorted(job.streams.by_id):
        if stream.sender != job.party or not stream.receiver:
            continue
        for batch in job.streams.batches(stream):
            if not batch.sent or batch.received:
                continue
            last = answer_due(job, batch)
            if today() > last:
                found.append(
                    _overdue(
                        "no_answer",
                        batch,
                        last,
                        stream.receiver,
                        f"{stream.receiver} 对批次 {batch.descriptor.batch} 逾期（{last}）仍未上链；请催办",
                        f"{stream.receiver} has anchored nothing of batch {batch.descriptor.batch}, due by {last}: remind it",
                    )
                )
    for case in overdue_cases(job):
        it = case.dispute
        if case.due is not None:
            found.append(
                Overdue(
                    "dispute_unanswered",
                    str(it.id),
                    "",
                    case.due,
                    it.respondent,
                    f"争议 {it.id} 应由 {it.respondent} 在 {case.due} 前答复，已逾期",
                    f"dispute {it.id} was to be answered by {it.respondent} by {case.due}",
                )
            )
    return found


def _announced_to_us(job: Job) -> Iterator[AnnouncedBatch]:
    for stream in sorted(job.streams.by_id):
        if stream.receiver == job.party and job.workspace.has_key(stream.sender):
            yield from (batch for batch in job.streams.batches(stream) if batch.sent)


def _overdue(kind: str, batch: AnnouncedBatch, last: date, who: str, zh: str, en: str) -> Overdue:
    return Overdue(
        kind, f"{batch.descriptor.catalog_id} {batch.descriptor.batch}", time_utc(batch.sent[0].time), last, who, zh, en
    )
