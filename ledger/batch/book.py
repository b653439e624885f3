"""The ledger's own record of batches: entry sets, archives, claims; and the streams they make up.

Nothing read here is believed: an entry file counts once its root equals the sender's anchor on chain, a withdrawal once its archived
bytes open its commitment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from ledger.batch.build import Built
from ledger.batch.declared import keep_declaration
from ledger.batch.erasures import erased_of_catalog, erased_tags
from ledger.batch.history import COMMITMENT, Bytes2D, History, Version
from ledger.batch.series import Series, arrange
from ledger.batch.stream import AnnouncedBatch, StreamId, Streams
from ledger.batch.tiles import tree_of, with_tiles
from ledger.catalog import Catalog
from ledger.descriptor import Descriptor, parse_descriptor
from ledger.errors import InputError, StoreError
from ledger.keys import CatalogKeys
from ledger.record import open_canonical
from ledger.store import models
from ledger.store.archive import ArchiveReader, ArchiveWriter, among
from ledger.store.db import Store
from ledger.store.entryfile import NO_FRAME, Entries, read_entries, write_entries
from ledger.store.files import os_errors
from ledger.workspace import Workspace


@dataclass(frozen=True)
class KnownBatch:
    """A batch on chain whose lawful entries this workspace holds: their root is the sender's anchor."""

    announced: AnnouncedBatch
    entry_set: models.EntrySet
    entries: Entries


@dataclass(frozen=True)
class StreamLedger:
    """One series of a stream as this workspace knows it; of most streams there is but one. After a bridge the first of `known` is the
    snapshot that the series begins with.

    `open` are announced batches whose lawful entries are not known here, `erased` the key tags of records whose plaintext was removed
    here. `left` are the keys that bridges left behind, newest series first (`batch.left`; empty where nobody asked for them), `notes`
    (zh, en) what could not be looked at.
    """

    stream: StreamId
    known: tuple[KnownBatch, ...]
    open: tuple[AnnouncedBatch, ...]
    history: History
    erased: frozenset[bytes] = frozenset()
    left: tuple[LeftBehind, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()

    @property
    def numbers(self) -> list[str]:
        """Batch numbers, in the order of the history's batches."""
        return [batch.announced.descriptor.batch for batch in self.known]

    @property
    def apart(self) -> frozenset[bytes]:
        """The key tags, in this series, of what bridges left behind: rows of them stand under an older one."""
        return frozenset(tag for left in self.left for tag in left.now.values())

    def before(self, batch: AnnouncedBatch | None) -> History:
        """The fold of the known batches that come before `batch` in the stream; all of them for a batch not yet on chain.

        Live keys that bridges left behind are in it, first, under the tags of this series, so that a withdrawal finds its subject's tag
        (formats F4). Its batches are not those of `known`.
        """
        known = [known for known in self.known if batch is None or _precedes(known.announced, batch)]
        left = [it.retagged for it in reversed(self.left) if len(it.retagged)]
        if not left:
            return history_of(known)
        parts = [(entries, np.zeros(len(entries), np.bool_)) for entries in left]
        return History([*parts, *((it.entries.entries, it.entries.withdrawn) for it in known)])

    def after(self, batch: AnnouncedBatch) -> History:
        """The fold of the known batches that come after `batch`."""
        return history_of([known for known in self.known if _precedes(batch, known.announced)])


@dataclass(frozen=True)
class LeftBehind:
    """Keys that are still compared under an older series: a bridge did not carry them, or they were withdrawn before it, and no later
    batch anchored them again.

    `ledger` is that series, `keys` its keys and catalog, `tags` the key tags there. `now` tells the tag in the present series where it
    can be told, `named` (by that tag) the key fields in normal form; `retagged` are the live ones as entries: subject and key tag of
    the present series, the old commitment.
    """

    ledger: StreamLedger
    keys: CatalogKeys
    tags: frozenset[bytes]
    now: Mapping[bytes, bytes] = field(repr=False)
    named: Mapping[bytes, Mapping[str, str]] = field(repr=False)
    retagged: Bytes2D = field(repr=False)

    @property
    def live(self) -> frozenset[bytes]:
        """Those of the tags whose record is live: it stands in no tree of the present series."""
        history = self.ledger.history
        return frozenset(tag for tag in self.tags - self.ledger.erased if history.live[history.find(tag)])


class Book:
    """Reads and writes entry sets of one workspace; needs the workspace's lock for writing."""

    def __init__(self, workspace: Workspace, store: Store) -> None:
        self._workspace = workspace
        self.store = store

    def read_set(self, entry_set: models.EntrySet, *, by_tiles: bool = False) -> Entries:
        """The entries of a set with the tiles of their tree, re-hashed: size and root must be those recorded (StoreError
        `store.entries_root`, `store.entries_tiles`). With `by_tiles` see `batch.tiles.with_tiles`: what is used must be checked then."""
        path = self._workspace.root / entry_set.entries_file
        entries = read_entries(path, entry_set.entries_sha256)
        return with_tiles(entries, entry_set.size, entry_set.root, str(path), by_tiles=by_tiles)

    def sets(self, session: Session, batch_id: str, role: models.Role) -> list[models.EntrySet]:
        """Entry sets of a batch, oldest first."""
        chosen = select(models.EntrySet).where(models.EntrySet.batch_id == batch_id, models.EntrySet.role == role)
        return list(session.scalars(chosen.order_by(models.EntrySet.id)))

    def knows(self, stream: StreamId) -> bool:
        """True if a batch of the stream is on record here."""
        chosen = select(models.Batch.id).where(
            models.Batch.catalog_id == stream.catalog_id,
            models.Batch.sender_party == stream.sender,
            models.Batch.receiver_party == stream.receiver,
        )
        with self.store.read() as session:
            return session.scalar(chosen.limit(1)) is not None

    def sets_under(self, session: Session, catalog: Catalog, key_id: str) -> list[models.EntrySet]:
        """The lawful sets of all batches of a catalog's digest under one exchange key, oldest first; a snapshot brings no version."""
        chosen = (
            select(models.EntrySet, models.Batch)
            .join(models.Batch, models.Batch.id == models.EntrySet.batch_id)
            .where(
                models.EntrySet.role == "lawful",
                models.Batch.catalog_id == catalog.id,
                models.Batch.kind != "snapshot",
            )
            .order_by(models.EntrySet.id)
        )
        return [
            entry_set
            for entry_set, batch in session.execute(chosen)
            if parse_descriptor(batch.descriptor.encode()).key_id == key_id
        ]

    def load_stream(
        self,
        streams: Streams,
        stream: StreamId,
        catalog: Catalog,
        keys: CatalogKeys,
        series: Series | None = None,
    ) -> StreamLedger:
        """A series of the stream (default: the newest) with every lawful entry set this workspace holds, each checked against the
        sender's anchor; `keys` and `catalog` must be its own. What bridges left
        behind is `batch.left`'s to add.

        InputError `series.other_catalog` for another catalog.
        """
        if series is None:
            found = arrange(streams, stream).series
            if not found:
                with self.store.read() as session:
                    return StreamLedger(stream, (), (), history_of([]), erased_tags(session, stream))
            series = found[-1]
        if series.told.catalog_digest != catalog.digest.hex():
            raise InputError(
                "series.other_catalog",
                f"数据流现按目录 {series.told.catalog}（摘要 {series.told.catalog_digest[:16]}）上链，不是 {catalog.name}"
                f"（{catalog.digest.hex()[:16]}）",
                f"the stream stands under {series.told.catalog} (digest {series.told.catalog_digest[:16]}), not under {catalog.name} "
                f"({catalog.digest.hex()[:16]})",
                stream.catalog_id,
            )
        known: list[KnownBatch] = []
        unknown: list[AnnouncedBatch] = []
        with self.store.read() as session:
            erased = erased_tags(session, stream)
            for announced in series.batches:
                entry_set = self.lawful_set(session, announced)
                if entry_set is None:
                    unknown.append(announced)
                else:
                    known.append(KnownBatch(announced, entry_set, self.read_set(entry_set)))
        ledger = StreamLedger(stream, tuple(known), tuple(unknown), history_of(known), erased)
        for batch in known:
            self._check_withdrawals(batch, catalog, keys, erased)
        return ledger

    def lawful_set(self, session: Session, batch: AnnouncedBatch) -> models.EntrySet | None:
        """The entries of a batch as its sender last anchored them, if they are on record here."""
        anchor = batch.announced
        if anchor is None:
            return None
        sets = [it for it in self.sets(session, batch.batch_id, "lawful") if it.root == anchor.root]
        return sets[-1] if sets and sets[-1].size == anchor.size else None

    def _check_withdrawals(
        self, batch: KnownBatch, catalog: Catalog, keys: CatalogKeys, erased: frozenset[bytes]
    ) -> None:
        # The entry alone does not tell a withdrawal from a record; its archived bytes do. Unread, a flag in our own file would
        # decide what is lawful. Of an erased record it decides nothing: erased it is, withdrawn or not.
        marked = np.flatnonzero(batch.entries.withdrawn)
        if erased:
            marked = marked[~among(batch.entries.key_tags[marked], erased)]
        if not len(marked) or not catalog.archive:
            return
        # By frame: the reader keeps the frame it read last.
        marked = marked[np.argsort(batch.entries.frames[marked], kind="stable")]
        with self.opener([batch], catalog, keys) as open_version:
            for index in marked.tolist():
                data = open_version(Version(0, index, True, batch.entries.entries[index].tobytes()))
                if data is None or open_canonical(catalog, data).kind != "withdrawal":
                    raise StoreError(
                        "store.withdrawal_flag",
                        f"批次 {batch.announced.descriptor.batch} 第 {index} 条的撤回标记与归档不符；请运行 duizhang fsck",
                        f"entry {index} of batch {batch.announced.descriptor.batch} is marked a withdrawal and is none; run fsck",
                        batch.entry_set.entries_file,
                    )

    @contextmanager
    def opener(
        self, known: Sequence[KnownBatch], catalog: Catalog, keys: CatalogKeys
    ) -> Iterator[Callable[[Version], bytes | None]]:
        """A function from a version of `known` (by its batch index) to its canonical bytes; None where nothing is archived.

        Archived bytes that do not open the entry's commitment are StoreError `store.archive_commitment`.
        """
        readers: dict[int, ArchiveReader] = {}
        with ExitStack() as stack:

            def open_version(version: Version) -> bytes | None:
                batch = known[version.batch]
                frame = int(batch.entries.frames[version.index])
                if frame == NO_FRAME or batch.entry_set.archive_file is None:
                    return None
                if version.batch not in readers:
                    readers[version.batch] = stack.enter_context(self.archive(batch.entry_set))
                data = readers[version.batch].find(version.entry[16:32], frame).canonical
                if keys.commit(data)[2] != version.commitment:
                    raise StoreError(
                        "store.archive_commitment",
                        "归档内容与上链承诺不符；请运行 duizhang fsck",
                        "archived bytes do not open the anchored commitment; run duizhang fsck",
                        batch.entry_set.archive_file,
                    )
                return data

            yield open_version

    def archive(self, entry_set: models.EntrySet) -> ArchiveReader:
        """The archive of a set that has one."""
        if entry_set.archive_file is None or entry_set.archive_key_wrapped is None:
            raise ValueError("this entry set has no archive")
        path = self._workspace.root / entry_set.archive_file
        return ArchiveReader(
            path, entry_set.archive_key_wrapped, self._workspace.archive_key(), entry_set.batch_id.encode()
        )

    @contextmanager
    def archive_writer(self, catalog: Catalog, batch_id: str) -> Iterator[ArchiveWriter | None]:
        """A new archive for a batch, or None where the catalog switches the archive off. It takes no record that was erased."""
        if not catalog.archive:
            yield None
            return
        with self.store.read() as session:
            erased = erased_of_catalog(session, catalog.id)
        path = self._workspace.archive_folder / f"{batch_id[:16]}.archive"
        with ArchiveWriter(path, batch_id.encode(), self._workspace.archive_key(), erased) as writer:
            yield writer

    def save_set(
        self, session: Session, batch_id: str, role: models.Role, built: Built, archive: ArchiveWriter | None
    ) -> models.EntrySet:
        """Finish the archive, write the entry file, record the set; a set of the same root that is there already is returned."""
        for entry_set in self.sets(session, batch_id, role):
            if entry_set.root == built.root:
                return entry_set
        used = archive is not None and bool((built.frames != NO_FRAME).any())
        reference = archive.finish() if archive is not None and used else None
        name = f"entries/{batch_id[:16]}-{role}-{built.root[:16]}.parquet"
        path = self._workspace.root / name
        tiles = tree_of(built.entries)[0] if built.tiles is None else built.tiles
        digest = write_entries(path, built.entries, built.withdrawn, built.frames, built.row_versions, tiles)
        entry_set = models.EntrySet(
            batch_id=batch_id,
            role=role,
            size=built.size,
            root=built.root,
            entries_file=name,
            entries_sha256=digest,
            archive_file=None if reference is None else f"archive/{reference.file_name}",
            archive_key_wrapped=None if reference is None else reference.key_wrapped,
            created_at=now(),
        )
        session.add(entry_set)
        session.flush()
        return entry_set

    def sweep(self, streams: Streams) -> list[str]:
        """Remove files that no entry set names: what a run wrote whose intent was never recorded. Needs the lock.

        A file of a batch that is on chain stays: if the store is an old backup, it may be the only copy of what was anchored.
        """
        anchored = {batch_id[:16] for batch_id in streams.by_batch}
        with self.store.read() as session:
            named = {
                name
                for row in session.scalars(select(models.EntrySet))
                for name in (row.entries_file, row.archive_file)
            }
        swept: list[str] = []
        for folder in (self._workspace.entries_folder, self._workspace.archive_folder):
            for path in sorted(folder.iterdir()):
                name = f"{folder.name}/{path.name}"
                if name not in named and path.name[:16] not in anchored:
                    with os_errors(path):
                        path.unlink()
                    swept.append(name)
        return swept


def save_batch(session: Session, descriptor: Descriptor, stream: StreamId, catalog: Catalog) -> models.Batch:
    """Record a batch and what its catalog declares, or return it if it is recorded already; StoreError if its number stands under another
    descriptor. ValueError unless `catalog` is the descriptor's."""
    if catalog.digest.hex() != descriptor.catalog_digest:
        raise ValueError(f"a batch of {descriptor.catalog} is recorded with the catalog {catalog.name}")
    keep_declaration(session, catalog)
    batch_id = descriptor.batch_id.hex()
    row = session.get(models.Batch, batch_id)
    if row is not None:
        return row
    taken = session.scalar(
        select(models.Batch).where(
            models.Batch.catalog_id == stream.catalog_id,
            models.Batch.sender_party == stream.sender,
            models.Batch.receiver_party == stream.receiver,
            models.Batch.number == descriptor.batch,
        )
    )
    if taken is not None:
        raise number_taken(descriptor, taken.descriptor)
    row = models.Batch(
        id=batch_id,
        descriptor=descriptor.encode().decode(),
        catalog_id=stream.catalog_id,
        catalog_version=int(descriptor.catalog.partition("/")[2]),
        number=descriptor.batch,
        kind=descriptor.kind,
        period=descriptor.period,
        sender=descriptor.sender,
        receiver=descriptor.receiver,
        sender_party=stream.sender,
        receiver_party=stream.receiver,
        created_at=now(),
    )
    session.add(row)
    session.flush()
    return row


def number_taken(descriptor: Descriptor, other: str) -> StoreError:
    """The refusal of a batch number that stands under another descriptor (formats F7)."""
    return StoreError(
        "batch.number_taken",
        f"批次号 {descriptor.batch} 已用于另一批次描述（期间、目录版本或密钥不同）：{other}",
        f"batch number {descriptor.batch} is already used under another descriptor: {other}",
        descriptor.catalog,
    )


def history_of(known: Sequence[KnownBatch]) -> History:
    """The fold of batches in stream order."""
    return History(
        [(batch.entries.entries, batch.entries.withdrawn) for batch in known],
        [batch.entries.row_versions for batch in known],
    )


def commitments(entries: Entries) -> dict[bytes, bytes]:
    """key_tag to commitment, for small sets."""
    return {entry[16:32].tobytes(): entry[COMMITMENT].tobytes() for entry in entries.entries}


def now() -> str:
    """The present moment as the store writes it."""
    return models.utc_text(datetime.now(UTC))


def _precedes(first: AnnouncedBatch, second: AnnouncedBatch) -> bool:
    if not first.sent:
        return False
    return not second.sent or first.sent[0].sequence < second.sent[0].sequence
