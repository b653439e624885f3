"""Withdrawals that are due to be sent: a record we withdrew at home, or erased, is still live where we delivered it.

Backflow must carry withdrawals as it carries records: until the receiver is told, it holds lawfully what should be gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from ledger.batch.erasures import erased_tags
from ledger.batch.job import Job
from ledger.catalog import Catalog
from ledger.prove import Held, load_sides
from ledger.record import MASK, open_canonical, record_key
from ledger.store import models


@dataclass(frozen=True)
class Due:
    """A record to withdraw from `party`, named by its tag in that stream; `key` (personal fields masked) is None once it was erased.

    `batch` is the number of our own batch that withdrew it, None if it was erased without.
    """

    catalog_id: str
    party: str
    key: Mapping[str, str] | None
    key_tag: str
    reason: str
    batch: str | None

    def as_json(self) -> dict[str, object]:
        """In the words of the JSON output."""
        return {
            "catalog": self.catalog_id,
            "to": self.party,
            "key": None if self.key is None else dict(self.key),
            "key_tag": self.key_tag,
            "reason": self.reason,
            "batch": self.batch,
        }


def shown_due(due: Due) -> str:
    """A due withdrawal on one line: key (or tag) and reason."""
    key = due.key_tag if due.key is None else " ".join(due.key.values())
    return f"{key}（{due.reason}）"


@dataclass(frozen=True)
class Dues:
    """All that is due of one catalog, by party and tag; `notes` (zh, en) say which streams could not be looked at."""

    found: tuple[Due, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()


def due_withdrawals(job: Job, catalog: Catalog) -> Dues:
    """Compare what we withdrew and erased with what is live in the streams we send. Loads streams only if there is anything to compare."""
    sending = [s for s in job.streams.of_catalog(catalog.id, sender=job.party) if s.receiver]
    withdrawn = select(models.Consent.key_tag).join(models.Batch, models.Batch.id == models.Consent.batch_id)
    withdrawn = withdrawn.where(models.Batch.catalog_id == catalog.id, models.Consent.action == "withdraw")
    with job.store.read() as session:
        tags = sorted({bytes.fromhex(tag) for tag in session.scalars(withdrawn)})
        erased = any(erased_tags(session, stream) for stream in sending)
    if not sending or not (tags or erased):
        return Dues()
    sides, unread = load_sides(job, catalog)
    present = [it for it in sides if it.left is None]
    receivers = [it for it in present if it.ledger.stream in sending]
    own = next((it for it in present if not it.ledger.stream.receiver), None)
    found = {(it.party, it.key_tag): it for it in _erased(catalog, receivers)}
    if own is not None:
        found |= {(it.party, it.key_tag): it for it in _withdrawn(job, catalog, own, receivers, tags)}
    notes = tuple(
        (
            f"发往 {stream.receiver} 的数据流未能核对有无应发的撤回：{error.zh}",
            f"whether withdrawals are due to {stream.receiver} could not be told: {error.en}",
        )
        for stream, error in unread
        if stream in sending or not stream.receiver
    )
    return Dues(tuple(found[name] for name in sorted(found)), notes)


def _erased(catalog: Catalog, receivers: Sequence[Held]) -> Iterator[Due]:
    for held in receivers:
        history = held.ledger.history
        for tag in held.ledger.erased:
            key = history.find(tag)
            if key >= 0 and history.live[key]:
                yield Due(catalog.id, held.ledger.stream.receiver, None, tag.hex(), "erased", None)


def _withdrawn(
    job: Job, catalog: Catalog, own: Held, receivers: Sequence[Held], tags: Sequence[bytes]
) -> Iterator[Due]:
    """Of the keys that we ever withdrew at home those that are withdrawn still, as far as the withdrawal can be opened."""
    ledger = own.ledger
    with job.book.opener(ledger.known, catalog, own.keys) as open_version:
        for tag in tags:
            key = ledger.history.find(tag)
            if key < 0 or ledger.history.live[key]:
                continue
            latest = ledger.history.latest(key)
            data = open_version(latest)
            if data is None:
                continue
            opened = open_canonical(catalog, data)
            values = {name: str(opened.values[name]) for name in catalog.key}
            shown = {name: MASK if catalog.by_name[name].personal else value for name, value in values.items()}
            for held in receivers:
                there = held.keys.key_tag(record_key(catalog, values))
                at = held.ledger.history.find(there)
                if at >= 0 and held.ledger.history.live[at]:
                    party, number = held.ledger.stream.receiver, ledger.numbers[latest.batch]
                    yield Due(catalog.id, party, shown, there.hex(), str(opened.reason), number)
