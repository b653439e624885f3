"""Streams as the chain tells them: which batches exist, who announced them, what each side claims (formats F7).

A pure reading of one registry view: bytes in, values out. A stream is (catalog id, sender, receiver) by party name, the parties
that held the descriptor's addresses when the batch was first anchored; its order is that of the sender's first anchors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property

from ledger.chain.registry import AnchorRecord, RegistryView
from ledger.descriptor import Descriptor, parse_descriptor
from ledger.errors import InputError

_SNAPSHOT = re.compile(r"P[0-9]{8}-[1-9][0-9]*:(.+)")


@dataclass(frozen=True, order=True)
class StreamId:
    """Names a stream; `receiver` is empty for an own source's stream."""

    catalog_id: str
    sender: str
    receiver: str


@dataclass(frozen=True)
class AnnouncedBatch:
    """One batch on chain. `sent` and `received` are the sender's and the receiver's anchors, oldest first."""

    batch_id: str
    descriptor: Descriptor
    stream: StreamId
    sent: tuple[AnchorRecord, ...]
    received: tuple[AnchorRecord, ...]

    @property
    def announced(self) -> AnchorRecord | None:
        """The sender's last anchor, which alone makes entries lawful; None if only the receiver anchored."""
        return self.sent[-1] if self.sent else None

    @property
    def announced_late(self) -> bool:
        """True if the receiver's first anchor came before the sender's first."""
        return bool(self.received) and (not self.sent or self.received[0].position < self.sent[0].position)

    @property
    def revised_after_receipt(self) -> bool:
        """True if the sender revised the batch after the receiver's first anchor (such a revision is marked, F7)."""
        return bool(self.received) and len(self.sent) > 1 and self.sent[-1].position > self.received[0].position

    @property
    def upto(self) -> str | None:
        """The number of the last batch that a snapshot folds, as its own number says; None for other kinds, or if it does not say."""
        found = _SNAPSHOT.fullmatch(self.descriptor.batch) if self.descriptor.kind == "snapshot" else None
        return None if found is None else found[1]

    def claims(self, party: str) -> tuple[AnchorRecord, ...]:
        """The anchors of `party` if it is a side of this batch, else none."""
        if party == self.stream.sender:
            return self.sent
        return self.received if party == self.stream.receiver else ()


@dataclass(frozen=True)
class RefusedBatch:
    """An anchored descriptor that readers refuse and show: not its own JCS, a stray form, a repeated number, a stranger's anchor."""

    batch_id: str
    party: str
    code: str
    zh: str
    en: str


@dataclass(frozen=True)
class Streams:
    """Every stream of a registry at one block; batches of a stream in the order of the sender's first anchors."""

    by_id: Mapping[StreamId, tuple[AnnouncedBatch, ...]]
    refused: tuple[RefusedBatch, ...]
    by_batch: Mapping[str, AnnouncedBatch] = field(default_factory=dict)

    def batches(self, stream: StreamId) -> tuple[AnnouncedBatch, ...]:
        """The batches of `stream` that carry versions, oldest first: all but its snapshots, which only repeat their fold."""
        return tuple(batch for batch in self.all_batches(stream) if batch.descriptor.kind != "snapshot")

    def snapshots(self, stream: StreamId) -> tuple[AnnouncedBatch, ...]:
        """The snapshots of `stream`, oldest first."""
        return tuple(batch for batch in self.all_batches(stream) if batch.descriptor.kind == "snapshot")

    def reach(self, snapshot: AnnouncedBatch) -> int:
        """How many batches of its stream a snapshot folds; 0 if its number names none that its sender anchored before it."""
        place, sequence = self._places.get(snapshot.stream, {}).get(snapshot.upto or "", (0, 0))
        return place if not snapshot.sent or sequence < snapshot.sent[0].sequence else 0

    def superseding(self, snapshot: AnnouncedBatch, party: str) -> tuple[AnnouncedBatch, ...]:
        """The snapshots of the stream by which `party` left `snapshot` behind: first anchored by it later, or folding further.

        Empty: it is that party's newest, or the party never anchored it.
        """
        mine = snapshot.claims(party)
        if not mine:
            return ()
        reach = self.reach(snapshot)
        return tuple(
            other
            for other in self.snapshots(snapshot.stream)
            if other.batch_id != snapshot.batch_id
            and (claims := other.claims(party))
            and (claims[0].position > mine[0].position or self.reach(other) > reach)
        )

    @cached_property
    def _places(self) -> Mapping[StreamId, Mapping[str, tuple[int, int]]]:
        """For each batch that its sender anchored, by number: its place in the stream, from 1, and the sender's sequence number."""
        return {
            stream: {
                batch.descriptor.batch: (place, batch.sent[0].sequence)
                for place, batch in enumerate(self.batches(stream), 1)
                if batch.sent
            }
            for stream in self.by_id
        }

    def all_batches(self, stream: StreamId) -> tuple[AnnouncedBatch, ...]:
        """Batches and snapshots of `stream` in its order; empty for a stream nobody anchored."""
        return self.by_id.get(stream, ())

    def find(self, stream: StreamId, number: str) -> AnnouncedBatch | None:
        """The batch or snapshot of that number, or None."""
        return next((batch for batch in self.all_batches(stream) if batch.descriptor.batch == number), None)

    def of_catalog(self, catalog_id: str, *, sender: str | None = None, receiver: str | None = None) -> list[StreamId]:
        """The streams of a catalog, optionally of one sender or receiver, sorted by name."""
        return sorted(
            stream
            for stream in self.by_id
            if stream.catalog_id == catalog_id
            and (sender is None or stream.sender == sender)
            and (receiver is None or stream.receiver == receiver)
        )


def snapshot_number(day: date, count: int, upto: str) -> str:
    """The number of the `count`-th snapshot of a day that folds a stream up to the batch numbered `upto`; `AnnouncedBatch.upto` reads
    it."""
    return f"P{day:%Y%m%d}-{count}:{upto}"


def read_streams(view: RegistryView, descriptors: Mapping[str, bytes]) -> Streams:
    """Arrange a registry view into streams; `descriptors` holds each batch id's descriptor bytes (already checked to hash to it).

    A batch whose descriptor strays, or whose number an earlier batch of the stream carries, stands in `refused` and nowhere else.
    """
    anchors: dict[str, list[AnchorRecord]] = {}
    for record in sorted((r for records in view.anchors.values() for r in records), key=lambda r: r.position):
        anchors.setdefault(record.batch_id, []).append(record)
    refused: list[RefusedBatch] = []
    found: dict[StreamId, list[AnnouncedBatch]] = {}
    for batch_id, records in anchors.items():
        try:
            descriptor = parse_descriptor(descriptors[batch_id])
        except InputError as error:
            refused.append(RefusedBatch(batch_id, records[0].party, error.code, error.zh, error.en))
            continue
        stream = _stream_of(view, descriptor, records)
        if stream is None:
            refused.append(_stranger(batch_id, records[0].party))
            continue
        refused.extend(
            _stranger(batch_id, record.party)
            for record in records
            if record.party not in (stream.sender, stream.receiver)
        )
        found.setdefault(stream, []).append(
            AnnouncedBatch(
                batch_id,
                descriptor,
                stream,
                sent=_of(records, stream.sender),
                received=_of(records, stream.receiver) if stream.receiver else (),
            )
        )
    by_id: dict[StreamId, tuple[AnnouncedBatch, ...]] = {}
    for stream, batches in found.items():
        numbers: dict[str, AnnouncedBatch] = {}
        for batch in sorted(batches, key=_order):
            first = numbers.setdefault(batch.descriptor.batch, batch)
            if first is not batch:
                refused.append(_repeated(batch, first))
        by_id[stream] = tuple(numbers.values())
    by_batch = {batch.batch_id: batch for batches in by_id.values() for batch in batches}
    return Streams(by_id, tuple(refused), by_batch)


def _order(batch: AnnouncedBatch) -> tuple[int, int]:
    # A batch its sender has not anchored yet has no place in the sender's order: it stands last.
    return (0, batch.sent[0].sequence) if batch.sent else (1, batch.received[0].position)


def _stream_of(view: RegistryView, descriptor: Descriptor, records: Sequence[AnchorRecord]) -> StreamId | None:
    """The parties that held the descriptor's addresses when one of them first anchored it; None if neither ever did."""
    for record in records:
        sender = view.holder(descriptor.sender, record.position)
        receiver = view.holder(descriptor.receiver, record.position) if descriptor.receiver else ""
        if sender is None or receiver is None:
            continue
        if record.party in (sender, receiver):
            return StreamId(descriptor.catalog_id, sender, receiver)
    return None


def _of(records: Iterable[AnchorRecord], party: str) -> tuple[AnchorRecord, ...]:
    return tuple(record for record in records if record.party == party)


def _stranger(batch_id: str, party: str) -> RefusedBatch:
    return RefusedBatch(
        batch_id,
        party,
        "batch.stranger",
        f"参与方 {party} 既非该批次的发送方也非接收方，其上链不计",
        f"party {party} is neither sender nor receiver of this batch; its anchor does not count",
    )


def _repeated(batch: AnnouncedBatch, first: AnnouncedBatch) -> RefusedBatch:
    number = batch.descriptor.batch
    return RefusedBatch(
        batch.batch_id,
        batch.stream.sender,
        "batch.number_repeated",
        f"批次号 {number} 已由批次 {first.batch_id[:16]} 占用，后者不计",
        f"batch number {number} is already held by batch {first.batch_id[:16]}; this one does not count",
    )
