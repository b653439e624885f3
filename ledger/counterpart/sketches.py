"""The sketches that go with anchors: ours, made for the other party, and the other party's, read (formats F6)."""

from __future__ import annotations

from ledger import sketch as sketches
from ledger.batch.build import Built
from ledger.batch.job import Job
from ledger.batch.stream import AnnouncedBatch
from ledger.chain.registry import AnchorRecord
from ledger.keys import ExchangeKey


def sketch_for(key: ExchangeKey, batch_id: bytes, built: Built, cells: int | None = None) -> bytes | None:
    """The encrypted sketch of a batch for the other holder of `key`; None for 0 cells. By default as many cells as its size asks for."""
    if cells == 0:
        return None
    wanted = sketches.default_cells(built.entries) if cells is None else cells
    clear = sketches.build(built.entries, wanted).encode()
    return sketches.encrypt(clear, key, batch_id, bytes.fromhex(built.root))


def sketch_on_chain(job: Job, record: AnchorRecord) -> bytes:
    """The encrypted sketch that came with an anchor; empty if it came without."""
    return job.link.registry.sketch(record)


def answering_sketch(job: Job, batch: AnnouncedBatch, held: Built) -> bytes | None:
    """The encrypted sketch of what we hold, for the sender, in as many cells as the sender's last anchor has.

    None where both hold the same: then none is needed.
    """
    sent = batch.sent[-1]
    if (sent.size, sent.root) == (held.size, held.root):
        return None
    cells = len(sketch_on_chain(job, sent)) // sketches.CELL_SIZE
    key = job.workspace.key_by_id(batch.stream.sender, batch.descriptor.key_id)
    return sketch_for(key, bytes.fromhex(batch.batch_id), held, cells or None)


def their_sketch(job: Job, batch: AnnouncedBatch, record: AnchorRecord, party: str) -> sketches.Sketch | None:
    """The sketch of `record`, an anchor of `party`, in clear; None if it came without one.

    InputError `sketch.malformed` if what decrypts is no sketch of that size (another key gives that, too), `key.wrong` and
    `key.no_exchange_key` without the key of the batch.
    """
    data = sketch_on_chain(job, record)
    if not data:
        return None
    key = job.workspace.key_by_id(party, batch.descriptor.key_id)
    where = f"{record.party} {batch.descriptor.batch}"
    clear = sketches.encrypt(data, key, bytes.fromhex(batch.batch_id), bytes.fromhex(record.root))
    return sketches.parse(clear, record.size, where)
