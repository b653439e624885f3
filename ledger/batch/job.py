"""What a job works with: the workspace under its lock, the open store, the checked chain, one reading of the registry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ledger.anchor.claims import anchor_open
from ledger.anchor.link import Link, open_link
from ledger.batch.book import Book
from ledger.batch.erasures import finish_erasures
from ledger.batch.stream import StreamId, Streams, read_streams
from ledger.catalog import Catalog
from ledger.chain.registry import AnchorRecord, RegistryView
from ledger.descriptor import Descriptor
from ledger.errors import ChainError, NotBuiltError
from ledger.keys import ExchangeKey
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

        A stream that began under another catalog version or key is refused: that needs a bridge.
        """
        self.check_series(stream, catalog, key)
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
        """Raise NotBuiltError if a batch of the stream was anchored under another catalog digest or key."""
        for batch in self.streams.batches(stream):
            told = batch.descriptor
            if (told.catalog_digest, told.key_id) != (catalog.digest.hex(), key.id.hex()):
                raise NotBuiltError(
                    f"bridge 衔接（数据流已用目录 {told.catalog} 摘要 {told.catalog_digest[:16]}、密钥 {told.key_id}；"
                    f"现为 {catalog.name} {catalog.digest.hex()[:16]}、{key.id.hex()}）"
                )


@contextmanager
def open_job(workspace: Workspace, store: Store, *, resume: bool = True) -> Iterator[Job]:
    """Open the chain, finish what an earlier run began (unless only reading), read the registry once."""
    book = Book(workspace, store)
    if resume:
        finish_erasures(workspace, store)
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
