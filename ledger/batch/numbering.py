"""Numbers for batches of our own that nobody used yet."""

from __future__ import annotations

from datetime import UTC, date, datetime

from sqlalchemy import select

from ledger.batch.job import Job
from ledger.batch.stream import StreamId, snapshot_number
from ledger.catalog import Catalog
from ledger.store import models


def today(catalog: Catalog) -> date:
    """The catalog's day now."""
    return (datetime.now(UTC) + catalog.offset).date()


def used_numbers(job: Job, stream: StreamId) -> set[str]:
    """The numbers of all batches of a stream, on chain or only on record here."""
    with job.store.read() as session:
        used = set(
            session.scalars(
                select(models.Batch.number).where(
                    models.Batch.catalog_id == stream.catalog_id,
                    models.Batch.sender_party == stream.sender,
                    models.Batch.receiver_party == stream.receiver,
                )
            )
        )
    return used | {batch.descriptor.batch for batch in job.streams.all_batches(stream)}


def free_snapshots(job: Job, catalog: Catalog, stream: StreamId, upto: str, count: int = 1) -> list[str]:
    """The next `count` numbers of today for snapshots of the stream up to the batch numbered `upto`."""
    taken = {name.partition(":")[0] for name in used_numbers(job, stream)}
    numbers = (snapshot_number(today(catalog), n, upto) for n in range(1, len(taken) + count + 1))
    return [number for number in numbers if number.partition(":")[0] not in taken][:count]
