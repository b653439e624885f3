"""What a process that answers many questions keeps between them: the open store, and what was read and checked before.

Each question still gets one reading of the registry and of the store, as a command does. Kept is only what cannot change while the
registry says the same: the registry's events, and streams whose anchors and entry sets are the same.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import select

from ledger.anchor.link import open_link
from ledger.batch.book import Book, StreamLedger
from ledger.batch.erasures import erased_tags
from ledger.batch.job import Job, read_registry
from ledger.batch.series import Series, arrange
from ledger.batch.stream import AnnouncedBatch, StreamId, Streams
from ledger.catalog import Catalog
from ledger.chain.history import Memory
from ledger.keys import CatalogKeys
from ledger.store import models
from ledger.store.db import Store
from ledger.workspace import Workspace

KEPT_STREAMS = 8
"""Streams kept open in one process; a version takes about 150 bytes."""


class Desk:
    """One workspace, open for questions from any number of threads until `close`. Takes no lock and finishes nothing.

    The store is open for updating rows; StoreError if it is not of this version (any writing job migrates it).
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.store = workspace.open_store("update")
        self._book = _KeepingBook(workspace, self.store)
        self.memory = Memory()

    @contextmanager
    def job(self) -> Iterator[Job]:
        """A job that only reads: the chain checked, the registry read once. Used by one thread."""
        with open_link(self.workspace, self.store, self.memory) as link:
            view, streams = read_registry(link)
            yield Job(self.workspace, self.store, link, self._book, view, streams)

    def close(self) -> None:
        """Close the store."""
        self.store.close()


@dataclass(frozen=True)
class _Basis:
    """What an open stream rests on; while this is the same, so is the stream."""

    batches: tuple[AnnouncedBatch, ...]
    sets: tuple[tuple[int, str, int, str], ...]
    keys: CatalogKeys
    erased: frozenset[bytes]


_Name = tuple[StreamId, int]
"""A stream and the number of one of its series."""


class _KeepingBook(Book):
    """Streams once loaded stay open while anchors and entry sets are what they were; a stream is loaded by one thread."""

    def __init__(self, workspace: Workspace, store: Store) -> None:
        super().__init__(workspace, store)
        self._kept: OrderedDict[_Name, tuple[_Basis, StreamLedger]] = OrderedDict()
        self._guard = threading.Lock()
        self._loading: defaultdict[_Name, threading.Lock] = defaultdict(threading.Lock)

    def load_stream(
        self,
        streams: Streams,
        stream: StreamId,
        catalog: Catalog,
        keys: CatalogKeys,
        series: Series | None = None,
    ) -> StreamLedger:
        # What is kept is asked many times, by anybody: every entry is hashed and the fold made, once.
        if series is None:
            found = arrange(streams, stream).series
            series = found[-1] if found else None
        if series is None:
            return super().load_stream(streams, stream, catalog, keys)
        name = (stream, series.number)
        with self._guard:
            loading = self._loading[name]
        with loading:
            basis = self._basis(stream, series, keys)
            kept = self._kept.get(name)
            if kept is None or kept[0] != basis:
                # The sets are read again inside: one that came in between makes the stream newer than its basis, and it is
                # loaded once more next time.
                loaded = super().load_stream(streams, stream, catalog, keys, series)
                loaded.history.prepare()
                kept = (basis, loaded)
            with self._guard:
                self._kept[name] = kept
                self._kept.move_to_end(name)
                while len(self._kept) > KEPT_STREAMS:
                    self._kept.popitem(last=False)
            return kept[1]

    def _basis(self, stream: StreamId, series: Series, keys: CatalogKeys) -> _Basis:
        # A snapshot changes nothing of what is lawful, but for the one that a series begins with.
        row = models.EntrySet
        chosen = (
            select(row.id, row.root, row.size, row.entries_sha256)
            .where(row.batch_id.in_([batch.batch_id for batch in series.batches]), row.role == "lawful")
            .order_by(row.id)
        )
        with self.store.read() as session:
            sets = tuple((it.id, it.root, it.size, it.entries_sha256) for it in session.execute(chosen))
            erased = erased_tags(session, stream)
        return _Basis(series.batches, sets, keys, erased)
