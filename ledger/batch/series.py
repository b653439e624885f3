"""Series (系列) of a stream: the batches under one catalog version and exchange key, and the bridges between them (design section 4).

A pure reading of a stream, as `stream.py` arranged it. A bridge is two snapshots, one anchored right after the other by the sender: the
fold of the whole stream under the series so far, then the same up to the same batch under another. Whatever else comes under another
catalog or key belongs to no series and counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ledger.batch.stream import AnnouncedBatch, StreamId, Streams
from ledger.descriptor import Descriptor


@dataclass(frozen=True)
class Bridge:
    """Where a series begins: `old` is the fold under the series before, `new` what of it was carried, under this one."""

    old: AnnouncedBatch
    new: AnnouncedBatch


@dataclass(frozen=True)
class Series:
    """One series. `told` is its first descriptor: all of them name the same catalog, digest and key.

    `batches` carry versions, in stream order: the bridge's new snapshot, which is what the series rests on, then all that came later but
    snapshots. `snapshots` are the others, which only repeat; the old half of the bridge to the next series is one of them.
    """

    number: int
    told: Descriptor
    bridge: Bridge | None = None
    batches: tuple[AnnouncedBatch, ...] = ()
    snapshots: tuple[AnnouncedBatch, ...] = ()

    @property
    def every(self) -> tuple[AnnouncedBatch, ...]:
        """All of it, snapshots last."""
        return (*self.batches, *self.snapshots)

    def folded(self, snapshot: AnnouncedBatch) -> tuple[AnnouncedBatch, ...] | None:
        """What a snapshot of this series folds, oldest first; of its own bridge that bridge alone. None if it names no batch before it."""
        if self.bridge is not None and snapshot.batch_id == self.bridge.new.batch_id:
            return (self.bridge.new,)
        last = snapshot.sent[0].sequence if snapshot.sent else None
        before = [it for it in self.batches if it.sent and (last is None or it.sent[0].sequence < last)]
        at = next((at for at, it in enumerate(before) if reach(it) == snapshot.upto), None)
        return None if at is None else tuple(before[: at + 1])


@dataclass(frozen=True)
class StreamSeries:
    """The series of a stream, oldest first; none if nobody anchored anything. `strays` carry versions and belong to none of them."""

    stream: StreamId
    series: tuple[Series, ...]
    strays: tuple[AnnouncedBatch, ...]

    def of(self, batch: AnnouncedBatch) -> Series | None:
        """The series that a batch or snapshot belongs to; None for a stray."""
        mine = (it for it in self.series if any(one.batch_id == batch.batch_id for one in it.every))
        return next(mine, None)


def reach(batch: AnnouncedBatch) -> str | None:
    """The number of the last batch that is in the fold once `batch` is: its own, and for a bridge that of the last batch it carried."""
    return batch.upto if batch.descriptor.kind == "snapshot" else batch.descriptor.batch


@dataclass
class _Begun:
    """A series while it is being gathered."""

    told: Descriptor
    bridge: Bridge | None = None
    batches: list[AnnouncedBatch] = field(default_factory=list)
    snapshots: list[AnnouncedBatch] = field(default_factory=list)

    def has(self, batch: AnnouncedBatch) -> bool:
        told = batch.descriptor
        return (self.told.catalog_digest, self.told.key_id) == (told.catalog_digest, told.key_id)

    def take(self, batch: AnnouncedBatch) -> None:
        (self.snapshots if batch.descriptor.kind == "snapshot" else self.batches).append(batch)


def arrange(streams: Streams, stream: StreamId) -> StreamSeries:
    """Take a stream apart into its series. What its sender has not anchored stands last, in the newest series of its kind."""
    found: list[_Begun] = []
    strays: list[AnnouncedBatch] = []
    last: str | None = None
    before: AnnouncedBatch | None = None
    batches = streams.all_batches(stream)
    for batch in (it for it in batches if it.sent):
        if not found:
            found.append(_Begun(batch.descriptor))
        if found[-1].has(batch):
            found[-1].take(batch)
        elif before is not None and _is_bridge(before, batch, found[-1], last):
            found.append(_Begun(batch.descriptor, Bridge(before, batch), [batch]))
        elif batch.descriptor.kind != "snapshot":
            strays.append(batch)
        if found[-1].has(batch) and batch.descriptor.kind != "snapshot":
            last = batch.descriptor.batch
        before = batch
    for batch in (it for it in batches if not it.sent):
        if not found:
            found.append(_Begun(batch.descriptor))
        next((it for it in reversed(found) if it.has(batch)), found[-1]).take(batch)
    series = (
        Series(number, it.told, it.bridge, tuple(it.batches), tuple(it.snapshots)) for number, it in enumerate(found)
    )
    return StreamSeries(stream, tuple(series), tuple(strays))


def _is_bridge(old: AnnouncedBatch, new: AnnouncedBatch, series: _Begun, last: str | None) -> bool:
    kinds = {old.descriptor.kind, new.descriptor.kind}
    return kinds == {"snapshot"} and series.has(old) and last is not None and old.upto == new.upto == last
