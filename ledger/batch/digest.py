"""Size and root of a file or of the source as one batch would have them; nothing is written, no chain is asked."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import numpy as np

from ledger.batch.book import Book
from ledger.batch.build import Builder
from ledger.batch.history import History
from ledger.batch.intake import FileOptions, bad_rows, build_from_file
from ledger.catalog import Catalog
from ledger.keys import ExchangeKey
from ledger.progress import watched
from ledger.workspace import OWN, Workspace


@dataclass(frozen=True)
class Digest:
    """`root` is 64 hex digits; `set_aside` counts rows without an entry that went to the quarantine file, `notes` (zh, en) are
    remarks on how the file was read."""

    size: int
    root: str
    set_aside: int
    ignored: tuple[str, ...]
    notes: tuple[tuple[str, str], ...] = ()


def digest(workspace: Workspace, catalog: Catalog, file: FileOptions | None, party: str = OWN) -> Digest:
    """Digest under the key shared with `party`, or the own key.

    Withdrawals take their subject tags from the earlier versions that this workspace holds under the same key.
    """
    key = workspace.exchange_key(party)
    if file is None:
        builder = Builder(catalog, key.for_catalog(catalog))
        with workspace.open_source(catalog) as table:
            for chunk in watched("读取数据源", "reading the source", table.scan()):
                builder.add(chunk)
            if builder.bad:
                raise bad_rows(builder.bad, table.where)
            built, ignored = builder.finish(table.where, table.scan), tuple(table.ignored)
        return Digest(built.size, built.root, 0, ignored)
    with file.open(catalog) as delivered:
        earlier = _records_under(workspace, catalog, key) if delivered.header.operation is not None else None
        builder = Builder(catalog, key.for_catalog(catalog), earlier)
        built = build_from_file(delivered, builder, file.quarantine)
        return Digest(built.size, built.root, len(builder.bad), tuple(delivered.ignored), tuple(delivered.notes))


def _records_under(workspace: Workspace, catalog: Catalog, key: ExchangeKey) -> History:
    """Every record version held under this key, withdrawals left out: the same file gives the same root before and after it is sent."""
    batches = []
    with closing(workspace.open_store("read")) as store:
        book = Book(workspace, store)
        with store.read() as session:
            sets = book.sets_under(session, catalog, key.id.hex())
        for entry_set in sets:
            entries = book.read_set(entry_set)
            kept = np.flatnonzero(~entries.withdrawn)
            batches.append((entries.entries[kept], entries.withdrawn[kept]))
    return History(batches)
