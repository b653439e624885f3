"""What a job works with: the workspace under its lock, the open store, the checked chain, one reading of the registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ledger.anchor.claims import anchor_open
from ledger.anchor.link import Link, open_link
from ledger.batch.book import Book, StreamLedger
from ledger.batch.declared import keep_declarations
from ledger.batch.erasures import finish_erasures
from ledger.batch.left import keys_of, with_left
from ledger.batch.series import Series, StreamSeries, arrange
from ledger.batch.stream import StreamId, Streams, read_streams
from ledger.catalog import Catalog
from ledger.chain.registry import AnchorRecord, RegistryView
from ledger.descriptor import Descriptor
from ledger.errors import ChainError, InputError
from ledger.keys import CatalogKeys, ExchangeKey
from ledger.store.db import Store
from ledger.workspace import Workspace


@dataclass
class Job:
    """One job. `view` and `streams` belong to one block; `refresh` reads a newer one."""

    workspace: Workspace
    store: Store
    link: Link
    book: Book
    view: RegistryView
    streams: Streams

    @property
    def party(self) -> str:
        """This party's name."""
        return self.workspace.party

    @property
    def address(self) -> str:
        """This party's address; ChainError if the registry knows another one (or none) for its name."""
        account = self.link.account
        holder = self.view.holder(account, self.view.position)
        if holder != self.party:
            raise ChainError(
                "chain.not_a_party",
                f"本方账户 {account} 在链上{f'登记为 {holder}' if holder else '未登记'}，与本工作区名称 {self.party} 不符",
                f"account {account} is {f'registered as {holder}' if holder else 'not registered'}, this workspace is {self.party}",
            )
        return account

    def anchor(self) -> None:
        """Anchor every open claim and read the registry again."""
        anchor_open(self.workspace, self.store, self.link)
        self.refresh()

    def anchored(self, batch_id: str) -> AnchorRecord:
        """This party's last anchor of a batch it has anchored."""
        record = self.view.last(batch_id, self.party)
        if record is None:
            raise ChainError("chain.not_anchored", f"批次 {batch_id} 未上链", f"batch {batch_id} was not anchored")
        return record

    def refresh(self) -> None:
        """Read the registry again."""
        self.view, self.streams = read_registry(self.link)

    def descriptor(
        self, catalog: Catalog, key: ExchangeKey, stream: StreamId, *, number: str, kind: str, period: str
    ) -> Descriptor:
        """The descriptor of a batch of ours; the one on chain is used again if it differs in addresses only.

        Another catalog version or key than that of the stream's newest series is refused: that needs a bridge.
        """
        self.check_series(stream, catalog, key)
        return self.describe(catalog, key, stream, number=number, kind=kind, period=period)

    def describe(
        self, catalog: Catalog, key: ExchangeKey, stream: StreamId, *, number: str, kind: str, period: str
    ) -> Descriptor:
        """The same, whatever series the stream is in: for the halves of a bridge."""
        fresh = Descriptor(
            batch=number,
            catalog=catalog.name,
            catalog_digest=catalog.digest.hex(),
            key_id=key.id.hex(),
            kind=kind,
            period=period,
            receiver=self.view.address(stream.receiver) if stream.receiver else "",
            sender=self.address,
        )
        present = self.streams.find(stream, number)
        if present is not None and _same_but_addresses(present.descriptor, fresh):
            return present.descriptor
        return fresh

    def check_series(self, stream: StreamId, catalog: Catalog, key: ExchangeKey) -> None:
        """InputError `series.changed` unless new batches of the stream may stand under this catalog and key: that of its newest series.

        A stream with a batch that belongs to no series is `series.no_bridge`.
        """
        arranged = self.series(stream)
        self.check_strays(arranged)
        if not arranged.series:
            return
        told = arranged.series[-1].told
        if (told.catalog_digest, told.key_id) == (catalog.digest.hex(), key.id.hex()):
            return
        command = f"duizhang bridge {catalog.id}" + (f" --to {stream.receiver}" if stream.receiver else "")
        raise InputError(
            "series.changed",
            f"{catalog.id} 的数据流已按目录 {told.catalog}（摘要 {told.catalog_digest[:16]}）、密钥 {told.key_id} 上链；现为 {catalog.name}"
            f"（{catalog.digest.hex()[:16]}）、{key.id.hex()}。换版或换钥须先衔接：{command}；若是误改，请放回原目录文件或密钥",
            f"the stream of {catalog.id} stands under {told.catalog} (digest {told.catalog_digest[:16]}) and key {told.key_id}; now it is "
            f"{catalog.name} ({catalog.digest.hex()[:16]}) and {key.id.hex()}. A new version or key begins with a bridge: run {command}; if "
            "the change was a slip, put the former catalog file or key back",
            catalog.id,
        )

    def check_strays(self, arranged: StreamSeries) -> None:
        """InputError `series.no_bridge` if a batch was anchored under another catalog or key without a bridge: what is lawful cannot be told."""
        if not arranged.strays:
            return
        stray = arranged.strays[0]
        told, sender = stray.descriptor, arranged.stream.sender
        raise InputError(
            "series.no_bridge",
            f"{sender} 的批次 {told.batch} 按目录 {told.catalog}（摘要 {told.catalog_digest[:16]}）、密钥 {told.key_id} 上链，与数据流现行系列不同，"
            f"其前又没有衔接：不属于任何系列，该数据流的合法状态无法判定；请 {sender} 查明",
            f"batch {told.batch} of {sender} was anchored under {told.catalog} (digest {told.catalog_digest[:16]}) and key {told.key_id}, "
            f"which is not the stream's series, and no bridge came before it: it belongs to none, and what is lawful cannot be told; {sender} "
            "must look into it",
            told.batch,
        )

    def series(self, stream: StreamId) -> StreamSeries:
        """The series of a stream, as the chain tells them."""
        return arrange(self.streams, stream)

    def current(self, stream: StreamId) -> Series | None:
        """The newest series whose beginning is known here: of a stream sent to us the last whose bridge we took over."""
        found: Series | None = None
        with self.store.read() as session:
            for series in self.series(stream).series:
                if series.bridge is not None and self.book.lawful_set(session, series.bridge.new) is None:
                    break
                found = series
        return found

    def keys(self, stream: StreamId, series: Series) -> CatalogKeys:
        """The keys of a series, with its catalog; InputError `catalog.changed`, `key.wrong`, `key.no_exchange_key`."""
        with self.store.read() as session:
            return keys_of(self.workspace, session, stream, series)

    def ledger(self, stream: StreamId, series: Series) -> tuple[StreamLedger, CatalogKeys]:
        """A series of a stream, with what bridges left behind, and its keys."""
        keys = self.keys(stream, series)
        ledger = self.book.load_stream(self.streams, stream, keys.catalog, keys, series)
        arranged = self.series(stream)
        return with_left(self.workspace, self.book, self.streams, arranged, series, ledger, keys), keys


@contextmanager
def open_job(workspace: Workspace, store: Store, *, resume: bool = True) -> Iterator[Job]:
    """Open the chain, finish what an earlier run began (unless only reading), read the registry once."""
    book = Book(workspace, store)
    if resume:
        finish_erasures(workspace, store)
        keep_declarations(workspace, store)
    with open_link(workspace, store) as link:
        if resume:
            anchor_open(workspace, store, link)
        view, streams = read_registry(link)
        if resume:
            book.sweep(streams)
        yield Job(workspace, store, link, book, view, streams)


def read_registry(link: Link) -> tuple[RegistryView, Streams]:
    """One reading of the registry, arranged into streams; every descriptor checked against its batch id."""
    view = link.registry.view()
    firsts: dict[str, AnchorRecord] = {}
    for records in view.anchors.values():
        for record in records:
            firsts.setdefault(record.batch_id, record)
    events = link.registry.events(record for records in view.anchors.values() for record in records)
    descriptors = {batch_id: events[record].descriptor for batch_id, record in firsts.items()}
    return view, read_streams(view, descriptors)


def _same_but_addresses(first: Descriptor, second: Descriptor) -> bool:
    def rest(it: Descriptor) -> tuple[str, ...]:
        return (it.batch, it.catalog, it.catalog_digest, it.key_id, it.kind, it.period, it.suite)

    return rest(first) == rest(second)
