"""The records to erase: their tags in every stream of this party, and the archives and entry files that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.batch.book import Book
from ledger.batch.job import Job
from ledger.batch.keyarg import key_label, parse_key_argument
from ledger.batch.stream import StreamId
from ledger.catalog import Catalog, from_declaration
from ledger.descriptor import Descriptor, parse_descriptor
from ledger.errors import InputError
from ledger.keys import ExchangeKey
from ledger.progress import watched
from ledger.record import MASK, record_key
from ledger.store import models
from ledger.store.archive import among
from ledger.store.entryfile import Entries, read_entries
from ledger.workspace import OWN, Workspace


@dataclass(frozen=True)
class Named:
    """One record that was named: its key in normal form, as it may be shown, and its record key (formats F3)."""

    values: Mapping[str, str]
    shown: Mapping[str, str]
    label: str
    record_key: bytes


@dataclass(frozen=True)
class HeldSet:
    """An entry set of a stream that has some of the tags: in its entries, in its archive, or both."""

    entry_set: models.EntrySet
    entries: Entries
    in_entries: frozenset[bytes]
    in_archive: frozenset[bytes]
    snapshot: bool = False


@dataclass
class InStream:
    """One stream: the tag of each named record under every key the stream used or may use next, and what is held of them."""

    stream: StreamId
    tags: Mapping[bytes, Named]
    held: list[HeldSet] = field(default_factory=list)
    before: frozenset[bytes] = frozenset()

    def has(self, named: Named) -> bool:
        """Whether the stream holds, or held until it was erased, a version of the record."""
        mine = {tag for tag, it in self.tags.items() if it is named}
        return bool(mine & self.before) or any(mine & (it.in_entries | it.in_archive) for it in self.held)

    def versions(self, named: Named) -> int:
        """Entries of the record in the sender's batches but snapshots, as far as they are known here (each revision counts)."""
        mine = {tag for tag, it in self.tags.items() if it is named}
        lawful = (it for it in self.held if it.entry_set.role == "lawful" and not it.snapshot)
        return sum(len(mine & it.in_entries) for it in lawful)


def read_names(catalog: Catalog, keys: Sequence[str]) -> list[Named]:
    """The records that the command line names, repeats once; InputError `key.form`, `key.value`."""
    found: dict[bytes, Named] = {}
    for text in keys:
        values = parse_key_argument(catalog, text)
        name = record_key(catalog, values)
        shown = {n: MASK if catalog.by_name[n].personal else value for n, value in values.items()}
        found.setdefault(name, Named(values, shown, key_label(catalog, values), name))
    return list(found.values())


def find(job: Job, catalog: Catalog, wanted: Sequence[Named]) -> list[InStream]:
    """Every stream of this party that has one of the records; all of its archives were opened and looked through.

    InputError `erase.unknown_key` for a record that no stream has; `key.wrong`, `key.no_exchange_key`, `erase.other_catalog` where
    nobody could tell, StoreError where an archive cannot be read: then it may be there, so nothing is begun.
    """
    with job.store.read() as session:
        batches = list(session.scalars(select(models.Batch).where(models.Batch.catalog_id == catalog.id)))
        streams = _streams(session, job.workspace, catalog, batches, wanted)
        snapshots = {row.id for row in batches if row.kind == "snapshot"}
        of_batch = {row.id: StreamId(row.catalog_id, row.sender_party, row.receiver_party) for row in batches}
        sets = [
            it
            for it in session.scalars(select(models.EntrySet).order_by(models.EntrySet.id))
            if it.batch_id in of_batch
        ]
        for stream in streams.values():
            chosen = select(models.Erasure.key_tag).where(
                models.Erasure.catalog_id == catalog.id,
                models.Erasure.sender_party == stream.stream.sender,
                models.Erasure.receiver_party == stream.stream.receiver,
            )
            stream.before = frozenset(map(bytes.fromhex, session.scalars(chosen))) & stream.tags.keys()
    for (entry_set,) in watched("查找记录", "looking for the records", ((it,) for it in sets)):
        stream = streams[of_batch[entry_set.batch_id]]
        held = _look(job.book, job.workspace, entry_set, frozenset(stream.tags))
        if held is not None:
            stream.held.append(replace(held, snapshot=entry_set.batch_id in snapshots))
    lost = [it.label for it in wanted if not any(stream.has(it) for stream in streams.values())]
    if lost:
        raise InputError(
            "erase.unknown_key",
            f"本方参与的任何批次中都没有记录 {'、'.join(lost)}；未删除任何内容",
            f"no batch that this party is a side of has record {', '.join(lost)}; nothing was erased",
            "KEY",
        )
    return [it for it in streams.values() if any(it.has(named) for named in wanted)]


def _streams(
    session: Session, workspace: Workspace, catalog: Catalog, batches: Iterable[models.Batch], wanted: Sequence[Named]
) -> dict[StreamId, InStream]:
    keys: dict[StreamId, dict[str, ExchangeKey]] = {}
    for row in batches:
        stream = StreamId(row.catalog_id, row.sender_party, row.receiver_party)
        party = OWN if not stream.receiver else stream.receiver if stream.sender == workspace.party else stream.sender
        told = parse_descriptor(row.descriptor.encode())
        _check_key_fields(session, catalog, told)
        known = keys.setdefault(stream, {})
        if not known:
            # What comes next comes under the newest key.
            newest = workspace.exchange_key(party)
            known[newest.id.hex()] = newest
        if told.key_id not in known:
            known[told.key_id] = workspace.key_by_id(party, told.key_id)
    return {
        stream: InStream(
            stream,
            {
                series.key_tag(named.record_key): named
                for series in (key.for_catalog(catalog) for key in known.values())
                for named in wanted
            },
        )
        for stream, known in keys.items()
    }


def _check_key_fields(session: Session, catalog: Catalog, told: Descriptor) -> None:
    """A record is found by its key: a batch under another declaration must name records as this one does."""
    if told.catalog_digest == catalog.digest.hex():
        return
    row = session.get(models.Declaration, told.catalog_digest)
    former = None if row is None else from_declaration(row.text.encode(), told.catalog)
    if former is None or _key_fields(former) != _key_fields(catalog):
        raise InputError(
            "erase.other_catalog",
            f"批次 {told.batch} 按目录 {told.catalog}（摘要 {told.catalog_digest[:16]}）上链，"
            + ("其主键字段与现目录不同" if former is not None else "本台账没有该目录的声明")
            + "，无法确定其中是否有这些记录：未删除任何内容",
            f"batch {told.batch} was anchored under {told.catalog} (digest {told.catalog_digest[:16]}), "
            + ("whose key has other fields" if former is not None else "whose declaration is not known here")
            + ": nobody can tell whether it has these records; nothing was erased",
            catalog.id,
        )


def _key_fields(catalog: Catalog) -> list[tuple[str, str, int | None]]:
    return [(name, catalog.by_name[name].type, catalog.by_name[name].scale) for name in catalog.key]


def _look(book: Book, workspace: Workspace, entry_set: models.EntrySet, tags: frozenset[bytes]) -> HeldSet | None:
    entries = read_entries(workspace.root / entry_set.entries_file, entry_set.entries_sha256)
    mine = _among(entries.key_tags, tags)
    archived: frozenset[bytes] = frozenset()
    if entry_set.archive_file is not None:
        # Every frame, not only those that the entries name: of a key that stood in several rows the archive has each row, the
        # entries none.
        with book.archive(entry_set) as reader:
            for frame in reader:
                archived |= _among(frame.key_tags, tags)
    return HeldSet(entry_set, entries, mine, archived) if mine or archived else None


def _among(key_tags: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], tags: frozenset[bytes]) -> frozenset[bytes]:
    return frozenset(key_tags[row].tobytes() for row in np.flatnonzero(among(key_tags, tags)).tolist())
