"""Batches and anchors in an order that pages can follow while more of them arrive: newest first. Reads only.

What is not on chain yet stands before what is. A batch only ever moves towards the end (when it gets its place on the chain), so
whoever pages on sees each batch that was there when he began at least once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select

from ledger.batch.job import Job
from ledger.batch.stream import AnnouncedBatch, RefusedBatch
from ledger.chain.registry import AnchorRecord
from ledger.descriptor import Descriptor, parse_descriptor
from ledger.status import BatchState, StreamState, read_states
from ledger.store import models

_NOT_YET = 1 << 62


@dataclass(frozen=True)
class Listed:
    """A batch of this party. `place` is where it was first anchored among all that ever was, `created_at` is "" if it was not made or
    received here."""

    stream: StreamState
    batch: BatchState
    place: int
    created_at: str

    @property
    def cursor(self) -> tuple[int, str, str]:
        """What the list is sorted by, downwards."""
        return (self.place, self.created_at, self.batch.batch_id)


@dataclass(frozen=True)
class Told:
    """One batch in full; `announced` is None while it is not on chain, `refused` says why readers do not count it."""

    descriptor: Descriptor
    listed: Listed
    announced: AnnouncedBatch | None
    refused: RefusedBatch | None


def streams(job: Job) -> tuple[StreamState, ...]:
    """Every stream of this party with its batches."""
    return read_states(job.party, job.store, job.streams)


def batches(
    job: Job,
    *,
    catalog: str | None = None,
    sender: str | None = None,
    receiver: str | None = None,
    state: str | None = None,
    before: tuple[int, str, str] | None = None,
    limit: int = 50,
) -> list[Listed]:
    """Batches of this party, newest first; `before` is the cursor of the last one already seen."""
    found = [
        it
        for it in _all(job)
        if (catalog is None or it.stream.catalog == catalog)
        and (sender is None or it.stream.sender == sender)
        and (receiver is None or it.stream.receiver == receiver)
        and (state is None or it.batch.state == state)
        and (before is None or it.cursor < before)
    ]
    return sorted(found, key=lambda it: it.cursor, reverse=True)[:limit]


def batch(job: Job, batch_id: str) -> Told | None:
    """A batch of this party by its id, or None."""
    listed = next((it for it in _all(job) if it.batch.batch_id == batch_id), None)
    if listed is None:
        return None
    announced = job.streams.by_batch.get(batch_id)
    refused = next((it for it in job.streams.refused if it.batch_id == batch_id), None)
    if announced is not None:
        return Told(announced.descriptor, listed, announced, refused)
    with job.store.read() as session:
        row = session.get(models.Batch, batch_id)
    return None if row is None else Told(parse_descriptor(row.descriptor.encode()), listed, None, refused)


def anchors(
    job: Job, *, party: str | None = None, before: int | None = None, limit: int = 50
) -> list[tuple[AnchorRecord, AnnouncedBatch | None]]:
    """Anchors of every party on this chain, newest first, with the batch they are about (None where readers do not count it)."""
    found = [
        record
        for name, records in job.view.anchors.items()
        for record in records
        if (party is None or name == party) and (before is None or record.position < before)
    ]
    chosen = sorted(found, key=lambda record: record.position, reverse=True)[:limit]
    return [(record, job.streams.by_batch.get(record.batch_id)) for record in chosen]


def _all(job: Job) -> list[Listed]:
    states = streams(job)
    created = _created(job)
    return [
        Listed(stream, it, _place(job.streams.by_batch.get(it.batch_id)), created.get(it.batch_id, ""))
        for stream in states
        for it in stream.batches
    ]


def _place(announced: AnnouncedBatch | None) -> int:
    if announced is None:
        return _NOT_YET
    return min(record.position for record in (*announced.sent[:1], *announced.received[:1]))


def _created(job: Job) -> Mapping[str, str]:
    with job.store.read() as session:
        return {row.id: row.created_at for row in session.execute(select(models.Batch.id, models.Batch.created_at))}
